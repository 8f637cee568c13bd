"""`workbench serve [WORKSPACE]`: the dashboard."""

from dataclasses import dataclass
from pathlib import Path

import tyro


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
