"""Between the workspace that the recipe filled, the package, and the workspace of whoever runs the demo.

The folders are artefacts like any other, with their manifests. What they were made from (ten million tokens of recorded
activations) does not ship: its hashes stand in the manifests, its make in `card.json`.
"""

import shutil
from pathlib import Path

from interp.artifacts import KINDS, MANIFEST, disk_errors, verify
from interp.errors import CorruptError, MissingError
from interp.workspace import Workspace
from workbench.terminal import say

DATA = Path(__file__).parent / "data"
CARD = "card.json"
SHIPPED = "demo"
"""The name of the dictionary, of its features, and before a dash of its maps."""


def shipped_artifacts(data: Path = DATA) -> list[tuple[str, str]]:
    """(kind, name) of everything that ships, in the order of the kinds."""
    return [
        (kind, path.parent.name)
        for kind, folder in KINDS.items()
        for path in sorted((data / folder).glob(f"*/{MANIFEST}"))
    ]


def unpack(workspace: Workspace, data: Path = DATA) -> None:
    """Copy into the workspace what it lacks.

    Raises `MissingError` and `CorruptError` for an installation that is not whole.
    """
    found = shipped_artifacts(data)
    if not found:
        raise MissingError(f"this installation has no dictionary at {data}; `workbench demo --train` makes one")
    lacking = [(kind, name) for kind, name in found if name not in workspace.names(kind)]
    for kind, name in lacking:
        source, target = data / KINDS[kind] / name, workspace.path(kind, name)
        if problems := verify(source):
            raise CorruptError(f"{source} is damaged ({problems[0]}); install the package again")
        if target.exists():
            raise CorruptError(f"{target} was expected to be whole or absent, and has no manifest; move it away")
        copy = target.with_name(f"{name}.tmp")  # not `.partial`: that may be somebody's unfinished run
        with disk_errors(target):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy)
            copy.rename(target)
    if lacking:
        say(f"unpacked {', '.join(f'{KINDS[kind]}/{name}' for kind, name in lacking)}")
        say(f"      a dictionary of SmolLM2-135M's features; what it was made from and how good it is: {data / CARD}")


def pack(workspace: Workspace, *, heads: str, data: Path = DATA) -> None:
    """The reverse, once, by the recipe: what ships, out of a workspace that holds more."""
    chosen = [("sae", SHIPPED), ("evaluation", SHIPPED), ("features", SHIPPED), ("features", f"{SHIPPED}-neurons"),
              ("atlas", f"{SHIPPED}-features"), ("atlas", f"{SHIPPED}-tokens"), ("heads", heads)]  # fmt: skip
    shutil.rmtree(data, ignore_errors=True)
    for kind, name in chosen:
        shutil.copytree(workspace.path(kind, name), data / KINDS[kind] / name)
    shutil.copy(workspace.root / CARD, data / CARD)
    n_bytes = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    say(f"packed {len(chosen)} artefacts into {data}, {n_bytes / 1e6:.1f} MB")
