"""A synthetic workspace for pages that need no browser."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from fake_live import FakeLive
from make_workspace import build

from dashboard.app import create_app
from interp.workspace import Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("pages") / "workspace")


@pytest.fixture
def live() -> FakeLive:
    return FakeLive()


@pytest.fixture
def server(workspace: Workspace, live: FakeLive) -> Iterator:
    """The Flask app, inside an application context."""
    app = create_app(workspace, live=live)
    with app.server.app_context():
        yield app.server
