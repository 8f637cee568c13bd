"""`workbench serve [WORKSPACE]`: the dashboard. `workbench verify [NAME ...]`: files checked against checksums."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from workbench.terminal import InWorkspace, Threaded, say


@dataclass(frozen=True, kw_only=True)
class Serve(Threaded):
    """Open a workspace in the browser.

    Nothing leaves this machine unless --host names an address that other machines reach.
    """

    folder: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="WORKSPACE")] = None
    """The workspace. Default: ./workspace."""
    workspace: Path = Path("workspace")
    """The same, as an option like that of other verbs."""
    host: str = "127.0.0.1"
    """Address to listen on. Other machines can reach an address beyond loopback, so it then carries a token."""
    token: str | None = None
    """Token that the address must carry. Default: none on loopback, a random one beyond it."""
    port: int | None = None
    """Default: 8050, or the next free one."""
    browser: bool = True
    """Open the page in the default browser."""

    def run(self) -> None:
        import os
        import secrets

        from dashboard.runs.queue import RunQueue
        from dashboard.security import is_loopback
        from dashboard.serve import serve
        from interp.workspace import Workspace
        from workbench.commands import Commands

        if self.threads is not None:  # torch is loaded at the first prompt, and reads this then
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
        workspace = Workspace(self.folder or self.workspace)
        token = self.token or (None if is_loopback(self.host) else secrets.token_urlsafe(16))
        runs = RunQueue(workspace, Commands(workspace))
        serve(workspace, host=self.host, port=self.port, open_browser=self.browser, token=token, runs=runs)


PROBE = "selfcheck.safetensors"


@dataclass(frozen=True, kw_only=True)
class Verify(InWorkspace):
    """Check every file of a workspace against its checksum.

    Exit code 1 when damage is found, with the file named. An imported dictionary must also give the reconstructions
    that are stored with it.
    """

    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    """Artefacts to check, as NAME or FOLDER/NAME (recordings/demo). Default: all."""

    def run(self) -> int:
        from interp.artifacts import verify
        from interp.errors import UnknownNameError

        workspace = self.open_workspace()
        broken = {each.key: each.problem for each in workspace.broken()}
        whole = {workspace.key(manifest): manifest for manifest in workspace.artifacts()}
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
    """Return what is wrong with an imported dictionary that does not reproduce the reconstructions stored with it."""
    from interp.errors import WorkbenchError
    from saes.weights.folder import load_sae

    try:
        load_sae(folder)
    except WorkbenchError as error:
        return [str(error)]
    return []


def _matches(key: str, name: str) -> bool:
    return name in (key, key.split("/", 1)[1])
