"""`workbench serve [WORKSPACE]`: the dashboard.

`workbench verify`: is everything on disk still what was written?
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from workbench.terminal import say


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Open a workspace in the browser. Nothing leaves this machine."""

    folder: tyro.conf.Positional[Path | None] = None
    """The workspace. Default: ./workspace."""
    workspace: Path = Path("workspace")
    """The same, as an option."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback other machines can reach it, so the address then carries a token."""
    token: str | None = None
    """What the address must carry. Default: none on loopback, a fresh one beyond it."""
    port: int | None = None
    """Default: 8050, or the next free one."""
    browser: bool = True
    """Open the page in the default browser."""
    threads: int | None = None
    """CPU threads for prompts."""

    def run(self) -> None:
        import os
        import secrets

        from dashboard.security import is_loopback
        from dashboard.serve import serve
        from interp.workspace import Workspace

        if self.threads is not None:  # torch is loaded at the first prompt, and reads this then
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
        workspace = Workspace(self.folder or self.workspace)
        token = self.token or (None if is_loopback(self.host) else secrets.token_urlsafe(16))
        serve(workspace, host=self.host, port=self.port, open_browser=self.browser, token=token)


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
