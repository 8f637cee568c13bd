"""A synthetic workspace for pages that need no browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_live import FakeLive
from make_graph import write_graph
from make_workspace import build
from visit import Visitor, unguarded

from dashboard.app import create_app
from interp.workspace import Workspace

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from dashboard.circuit._data import ScoredEdges
    from dashboard.live import LiveModel
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
def own(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of the workspace, to write into."""
    return Workspace(shutil.copytree(workspace.root, tmp_path / "own"))


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    """Return the workspace with fewer features and points, to damage."""
    return build(tmp_path / "small", n_features=40, n_points=40)


@pytest.fixture
def capital(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of the workspace with a graph of hostile texts, `capital`, of 13 tokens."""
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "capital"))
    write_graph(copy, "capital", hostile=True, n_tokens=13)
    return copy


@pytest.fixture
def visitor(own: Workspace) -> Visitor:
    return Visitor(create_app(own, live=FakeLive()))


@pytest.fixture
def live() -> FakeLive:
    return FakeLive()


@pytest.fixture
def server(workspace: Workspace, live: FakeLive) -> Iterator:
    """The Flask app, inside an application context."""
    app = create_app(workspace, live=live)
    with app.server.app_context():
        yield app.server


@pytest.fixture
def client(workspace: Workspace, live: FakeLive) -> "FlaskClient":
    return unguarded(workspace, live)


@pytest.fixture
def tiny(tmp_path: Path, tiny_model, monkeypatch: pytest.MonkeyPatch) -> "LiveModel":
    """Return a live model, `small:mlp-2l`, of a workspace with an SAE `tiny` and its features."""
    from make_tiny import SPEC, save_tiny_sae

    from dashboard.live import LiveModel

    save_tiny_sae(tmp_path, tiny_model)
    monkeypatch.setattr("saes.acts.run.models", lambda workspace: [SPEC])
    monkeypatch.setattr("interp.models.loading.load_model", lambda spec, **_: tiny_model)
    return LiveModel(Workspace(tmp_path))


@pytest.fixture(scope="session")
def ioi(workspace: Workspace) -> "tuple[FoundCircuit, ScoredEdges]":
    """The circuit of that name and the scored graph that it was cut from."""
    from dashboard.circuit._data import scored
    from interp.circuits.found_circuit import open_circuit

    found = open_circuit(workspace, "ioi")
    return found, scored(found)
