"""Lists of words and directions as the page reads them.

A list has a verdict with evidence, a plane, layers and interventions; a direction has logits, separated lists, a probe
and steering. A part that was not measured is a sentence that says why.
"""

from dataclasses import dataclass
from typing import Any

from interp.artifacts import Manifest, read_json
from interp.errors import CorruptError, MissingError, UnknownNameError
from interp.workspace import Workspace

VERDICTS = {
    "circle": "A circle: neighbours in the list are neighbours in the model, and the last word is next to the first.",
    "line": "A line, straight or bent: neighbours in the list are neighbours in the model, and its ends are far apart.",
    "ordered": "An order: neighbours in the list are neighbours in the model; the test cannot tell circle from line.",
    "cluster": "A cluster: its words lie together, separate from those of other lists, without an order.",
    "nothing": "No shape: neither an order nor a cluster beyond the null distribution.",
    "undecided": "Undecided: the list is too short for an order to be significant.",
}
DIRECTION = "direction.json"
"""the file that makes a geometry artefact one direction, and not lists of words"""
ORDERED = ("circle", "line", "ordered")
_SHAPE = {
    **{"verdict": str, "reason": str, "words": list, "layer": int, "hook_points": list},
    **{"order": dict, "plane": dict, "spectrum": dict},
}


@dataclass(frozen=True)
class WordList:
    """One list of words, as it is in `geometry.json`."""

    name: str
    shape: dict[str, Any]
    probes: list[dict[str, Any]] | str
    steering: dict[str, Any] | str
    rotation: dict[str, Any] | str
    found: dict[str, Any]
    """its part of the manifest's summary"""

    @property
    def verdict(self) -> str:
        return self.shape["verdict"]

    @property
    def hook_point(self) -> str:
        """Hook point at which its order is clearest, on the half of the sentences that selects it."""
        return str(self.shape["hook_points"][self.shape["layer"]])

    @property
    def words(self) -> list[str]:
        return [str(word) for word in self.shape["words"]]

    @property
    def order(self) -> dict[str, Any]:
        return self.shape["order"]

    @property
    def joined(self) -> str:
        """Lines between the words on the plane: `closed`, `open`, `unsure` (it may close), or `` without an order."""
        if self.verdict not in ORDERED:
            return ""
        if self.verdict == "ordered" and self.order.get("cyclic"):
            return "unsure"
        return "closed" if self.verdict == "circle" else "open"


def directions_of(workspace: Workspace, manifest: Manifest) -> list[Manifest]:
    """Return the directions of the same model, newest first."""
    return _same_model(workspace, "direction", manifest)


def lists_of_model(workspace: Workspace, manifest: Manifest) -> Manifest | None:
    """Return the newest lists of words of the same model, if there are any."""
    return next(iter(_same_model(workspace, "word_geometry", manifest)), None)


def _same_model(workspace: Workspace, kind: str, manifest: Manifest) -> list[Manifest]:
    return [each for each in workspace.newest(kind) if each.config.get("model") == manifest.config.get("model")]


def lists(workspace: Workspace, manifest: Manifest) -> dict[str, WordList]:
    """Every list of an artefact, in its order. Raises `CorruptError` where the file is missing or lacks something."""
    path = workspace.path("word_geometry", manifest.name) / "geometry.json"
    try:
        raw = read_json(path)
    except MissingError:
        raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is") from None
    if not raw:
        raise CorruptError(f"{path} holds no list of words")
    return {name: _word_list(str(path), name, each, manifest.summary.get(name)) for name, each in raw.items()}


def find(found: dict[str, WordList], name: str | None) -> WordList:
    """Return the list called `name`, else the first. Raises `UnknownNameError` with the nearest names."""
    if not name:
        return next(iter(found.values()))
    if name not in found:
        raise UnknownNameError("list of words", name, found)
    return found[name]


def points(workspace: Workspace, name: str, word_list: str) -> list[dict[str, Any]]:
    """Return the words of a list on its plane: `place` (index in the list), `word, half (fit, judge), x, y`."""
    path = workspace.table_path("word_geometry", name, "points")
    sql = 'select place, word, half, x, y from p where "list" = ? order by half, place limit 2000'
    return workspace.query(sql, word_list, p=path).to_pylist()


def layers(workspace: Workspace, name: str, word_list: str) -> list[dict[str, Any]]:
    """Return the rows of a list in `layers.parquet`, by layer: correlations, silhouette, probe with its nulls."""
    path = workspace.table_path("word_geometry", name, "layers")
    return workspace.query('select * from l where "list" = ? order by layer limit 2000', word_list, l=path).to_pylist()


def _word_list(path: str, name: str, raw: Any, found: Any) -> WordList:
    shape = raw.get("shape") if isinstance(raw, dict) else None
    shape = shape if isinstance(shape, dict) else {}
    wrong = [key for key, kind in _SHAPE.items() if not isinstance(shape.get(key), kind)]
    if wrong or not 0 <= shape["layer"] < len(shape["hook_points"]):
        raise CorruptError(
            f"{path}: the shape of {name!r} has no readable {(wrong or ['layer'])[0]!r}; it was edited or cut short"
        )
    parts = {key: part_of(raw.get(key)) for key in ("probes", "steering", "rotation")}
    return WordList(name=name, shape=shape, found=found if isinstance(found, dict) else {}, **parts)


def part_of(value: Any) -> Any:
    """A part as it is, or a sentence where the artefact does not hold it."""
    return value if isinstance(value, str | dict | list) else "the artefact does not hold this part"


_PARTS = {"direction": dict, "along": dict}


@dataclass(frozen=True)
class DirectionView:
    """One direction, as it is in `direction.json`."""

    about: dict[str, Any]
    """`name, source, hook_point, towards, away, found`"""
    along: dict[str, Any]
    reading: dict[str, Any] | str
    probes: list[dict[str, Any]] | str
    erased: dict[str, Any] | str
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
        """Names of the lists that it separates from the others."""
        alpha = self.along.get("alpha")
        if not isinstance(alpha, int | float):
            return []
        return [str(e.get("name")) for e in self.lists if isinstance(e.get("p"), int | float) and e["p"] <= alpha]

    def verdict(self) -> str:
        """Return two sentences: the lists that it separates, and the effect of steering along it."""
        apart = self.set_apart
        words = f"It separates {', '.join(apart)} from the other lists." if apart else "It separates no list of words."
        pushed = {
            True: "Steering along it raises its tokens, more than along any random direction.",
            False: "Steering along it raises its tokens no more than along a random direction.",
            None: "Steering along it was not measured.",
        }
        return f"{words} {pushed[self.moves_output]}"


def direction(workspace: Workspace, manifest: Manifest) -> DirectionView:
    """Return the direction of an artefact. Raises `CorruptError` where its file is missing or lacks something."""
    path = workspace.path("direction", manifest.name) / DIRECTION
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
        **{name: part_of(raw.get(name)) for name in ("reading", "probes", "erased", "steering")},
        targets=[str(each) for each in targets] if isinstance(targets, list) else [],
        moves_output=moves if isinstance(moves, bool) else None,
    )


def words(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Return the words along it: `list, word, place, low, high, counted`, in the order of the lists."""
    path = workspace.table_path("direction", name, "along")
    return workspace.query("select * from a limit 5000", a=path).to_pylist()


def direction_layers(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Return the probes by layer, with the column names of a list's probes and `random`."""
    path = workspace.table_path("direction", name, "layers")
    sql = "select * rename (accuracy as probe_accuracy, low as probe_low, high as probe_high) from l order by layer"
    return workspace.query(f"{sql} limit 2000", l=path).to_pylist()
