"""One direction as a geometry artefact has it: what it says, what it sets apart, where it is read, what a push does."""

from dataclasses import dataclass
from typing import Any

from dashboard.views.geometry import DIRECTION, part_of
from interp.artifacts import Manifest, read_json
from interp.errors import CorruptError, MissingError
from interp.workspace import Workspace

_PARTS = {"direction": dict, "along": dict}


@dataclass(frozen=True)
class DirectionView:
    """One direction, as it is in `direction.json`."""

    about: dict[str, Any]
    """`name, source, hook_point, towards, away, found`"""
    along: dict[str, Any]
    reading: dict[str, Any] | str
    probes: list[dict[str, Any]] | str
    steering: dict[str, Any] | str
    targets: list[str]
    moves_output: bool | None

    @property
    def name(self) -> str:
        return str(self.about.get("name") or "a direction")

    @property
    def hook_point(self) -> str:
        return str(self.about.get("hook_point") or "")

    @property
    def lists(self) -> list[dict[str, Any]]:
        found = self.along.get("lists")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    @property
    def set_apart(self) -> list[str]:
        """Names of the lists that it sets apart."""
        alpha = self.along.get("alpha")
        if not isinstance(alpha, int | float):
            return []
        return [str(e.get("name")) for e in self.lists if isinstance(e.get("p"), int | float) and e["p"] <= alpha]

    def verdict(self) -> str:
        """In two sentences: what it sets apart, and whether a push along it shows."""
        apart = self.set_apart
        words = f"It sets apart {', '.join(apart)}." if apart else "It sets no list of words apart."
        pushed = {
            True: "A push along it raises its tokens, more than along any random direction.",
            False: "A push along it does no more for its tokens than one along a random direction.",
            None: "Nothing was pushed along it.",
        }
        return f"{words} {pushed[self.moves_output]}"


def is_direction(manifest: Manifest) -> bool:
    """Whether a geometry artefact is one direction, and not lists of words."""
    return DIRECTION in manifest.files


def direction(workspace: Workspace, manifest: Manifest) -> DirectionView:
    """Raises `CorruptError` where the file is missing or lacks something."""
    path = workspace.path("geometry", manifest.name) / DIRECTION
    try:
        raw = read_json(path)
    except MissingError:
        raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is") from None
    wrong = [key for key, kind in _PARTS.items() if not (isinstance(raw, dict) and isinstance(raw.get(key), kind))]
    if wrong:
        raise CorruptError(f"{path} has no readable {wrong[0]!r}; it was edited or cut short")
    targets, moves = raw.get("targets"), manifest.summary.get("moves_output")
    return DirectionView(
        about=raw["direction"],
        along=raw["along"],
        **{name: part_of(raw.get(name)) for name in ("reading", "probes", "steering")},
        targets=[str(each) for each in targets] if isinstance(targets, list) else [],
        moves_output=moves if isinstance(moves, bool) else None,
    )


def words(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Its words: `list, word, place, low, high, counted`, in the order of the lists."""
    path = workspace.table_path("geometry", name, "along")
    return workspace.query("select * from a limit 5000", a=path).to_pylist()


def direction_layers(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """The probes by place, named as those of a list are, with `random`."""
    path = workspace.table_path("geometry", name, "layers")
    sql = "select * rename (accuracy as probe_accuracy, low as probe_low, high as probe_high) from l order by layer"
    return workspace.query(f"{sql} limit 2000", l=path).to_pylist()
