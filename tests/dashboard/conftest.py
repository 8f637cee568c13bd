"""A synthetic workspace for pages that need no browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_live import FakeLive
from make_workspace import build

from dashboard.app import create_app
from interp.workspace import Workspace

if TYPE_CHECKING:
    from dashboard.circuit.data import Scored
    from interp.circuits.found_circuit import FoundCircuit


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("pages") / "workspace")


@pytest.fixture(scope="session")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose SAE `demo` was made again after its features were described."""
    workspace = build(tmp_path_factory.mktemp("remade") / "workspace", n_features=40, n_points=40)
    path = workspace.path("sae", "demo") / "manifest.json"
    path.write_text(path.read_text().replace(workspace.manifest("sae", "demo").content_hash, "0" * 64))
    return workspace


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """Return an empty workspace."""
    return Workspace(tmp_path / "workspace", create=True)


@pytest.fixture
def live() -> FakeLive:
    return FakeLive()


@pytest.fixture
def server(workspace: Workspace, live: FakeLive) -> Iterator:
    """The Flask app, inside an application context."""
    app = create_app(workspace, live=live)
    with app.server.app_context():
        yield app.server


@pytest.fixture(scope="session")
def ioi(workspace: Workspace) -> "tuple[FoundCircuit, Scored]":
    """The circuit of that name and the scored graph that it was cut from."""
    from dashboard.circuit.data import scored
    from interp.circuits.found_circuit import open_circuit

    found = open_circuit(workspace, "ioi")
    return found, scored(found)
