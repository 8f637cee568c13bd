"""Copies between the package and workspaces: `pack` after the recipe, `unpack` in the demo.

The folders are artefacts with manifests. The recording that they were made from (ten million tokens) does not ship; the
manifests hold its hashes, and `card.json` its description.
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
"""Name of the dictionary and of its features, and prefix of the names of its maps."""


def shipped_artifacts(data: Path = DATA) -> list[tuple[str, str]]:
    """Return (kind, name) of every artefact that ships, in the order of the kinds."""
    return [
        (kind, path.parent.name)
        for kind, folder in KINDS.items()
        for path in sorted((data / folder).glob(f"*/{MANIFEST}"))
    ]


def unpack(workspace: Workspace, data: Path = DATA) -> None:
    """Copy the artefacts that a workspace lacks.

    Raises `MissingError` or `CorruptError` for an incomplete installation.
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
        say(f"      a dictionary of SmolLM2-135M's features; its training text and its scores: {data / CARD}")


def pack(workspace: Workspace, *, heads: str, data: Path = DATA) -> None:
    """Copy the artefacts that ship from the workspace of the recipe into the package."""
    chosen = [("sae", SHIPPED), ("evaluation", SHIPPED), ("features", SHIPPED), ("features", f"{SHIPPED}-neurons"),
              ("atlas", f"{SHIPPED}-features"), ("atlas", f"{SHIPPED}-tokens"), ("heads", heads)]  # fmt: skip
    shutil.rmtree(data, ignore_errors=True)
    for kind, name in chosen:
        shutil.copytree(workspace.path(kind, name), data / KINDS[kind] / name)
    shutil.copy(workspace.root / CARD, data / CARD)
    n_bytes = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    say(f"packed {len(chosen)} artefacts into {data}, {n_bytes / 1e6:.1f} MB")
