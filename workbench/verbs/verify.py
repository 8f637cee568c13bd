"""`workbench verify`: is everything on disk still what was written?"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from workbench.terminal import say

PROBE = "selfcheck.safetensors"


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check every file against its checksum. Exit code 1 when damage is found, with the file named."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Artefacts to check, as NAME or FOLDER/NAME (recordings/demo). Default: all."""
    workspace: Path = Path("workspace")
    """The folder that holds all artefacts."""

    def run(self) -> int:
        from interp.artifacts import KINDS, verify
        from interp.errors import UnknownNameError
        from interp.workspace import Workspace

        workspace = Workspace(self.workspace)
        broken = {f"{KINDS[b.kind]}/{b.name}": b.problem for b in workspace.broken()}
        whole = {f"{KINDS[m.kind]}/{m.name}": m for m in workspace.artifacts()}
        known = [*broken, *whole]
        for name in self.names:
            if not any(_matches(key, name) for key in known):
                raise UnknownNameError("artefact", name, known)
        chosen = [key for key in known if not self.names or any(_matches(key, name) for name in self.names)]
        damaged = 0
        for key in sorted(chosen):
            problems = [broken[key]] if key in broken else verify(workspace.root / key)
            if not problems and (workspace.root / key / PROBE).exists():
                problems = _recheck(workspace.root / key)
            damaged += bool(problems)
            say(f"{'DAMAGED' if problems else 'ok':<8} {key}")
            for problem in problems:
                say(f"         {problem}")
        say(f"{len(chosen)} artefacts checked, {damaged} damaged")
        return 1 if damaged else 0


def _recheck(folder: Path) -> list[str]:
    """An imported dictionary also has to give the reconstructions stored with it."""
    from interp.errors import WorkbenchError
    from saes.weights.folder import load_sae

    try:
        load_sae(folder)
    except WorkbenchError as error:
        return [str(error)]
    return []


def _matches(key: str, name: str) -> bool:
    return name in (key, key.split("/", 1)[1])
