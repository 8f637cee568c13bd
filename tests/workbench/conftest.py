"""The command line as its tests use it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from interp.workspace import Workspace
from workbench.__main__ import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a verb in a workspace.

    It asserts the exit code, and returns what was printed; of a mistake (2) the one line on the error stream.
    """

    def run(workspace: Workspace | Path, *words: object, code: int = 0) -> str:
        root = workspace.root if isinstance(workspace, Workspace) else workspace
        capsys.readouterr()
        assert main([*map(str, words), "--workspace", str(root)]) == code
        out, err = capsys.readouterr()
        if code != 2:
            return out
        assert err.strip().count("\n") == 0, err
        return err

    return run
