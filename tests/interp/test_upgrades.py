"""Folders of schema 1, where `evaluation`, `circuit` and `geometry` were names of several shapes, are read as today's.

The made-up folders here have the settings by which they are known; `tests/workbench/test_frozen_workspace.py` reads a
whole workspace that the earlier version wrote.
"""

from pathlib import Path
from typing import Any

import pytest

from interp.artifacts import (
    KINDS,
    LOG,
    MANIFEST,
    STATUS,
    Draft,
    hash_files,
    partial_path,
    read_json,
    read_manifest,
    verify,
    write_json,
)
from interp.errors import MissingError, UnknownNameError
from interp.upgrades import FORMER_FOLDERS
from interp.workspace import Workspace

MODEL = {"model": "m", "weight_hash": "0"}
SHAPES = [
    ("evaluations", "evaluation", {"sae": "a", "recording": "r", "contexts": 0}, "evaluation"),
    ("evaluations", "evaluation", {"saes": ["a", "b"], "recording": "r", "l0": None}, "sae_comparison"),
    ("evaluations", "evaluation", {"saes": ["a"], "kind": "topk", "n_bootstrap": 200}, "size_law"),
    ("evaluations", "evaluation", {"sae": "a", "recordings": ["r", "s"]}, "latent_comparison"),
    ("evaluations", "evaluation", {"base": "m", "tuned": "n", "texts": []}, "model_comparison"),
    ("circuits", "circuit", MODEL | {"kind": "induction"}, "induction_circuit"),
    ("circuits", "circuit", MODEL | {"kind": "discovered"}, "edge_circuit"),
    ("circuits", "circuit", MODEL | {"kind": "features"}, "feature_circuit"),
    ("dynamics", "dynamics", {"kind": "grokking", "p": 37}, "grokking"),
    ("dynamics", "dynamics", {"kind": "induction", "specs": []}, "induction_onset"),
    ("dynamics", "dynamics", {"kind": "scaling", "widths": []}, "language_scaling"),
    ("geometry", "geometry", MODEL | {"lists": {}}, "word_geometry"),
    ("geometry", "geometry", MODEL | {"lists": {}, "direction": {"name": "up"}}, "direction"),
]


def old(root: Path, folder: str, name: str, kind: str, config: dict[str, Any], **parents: str) -> Path:
    """An artefact as schema 1 left it, with a training log that its content hash covers."""
    path = root / folder / name
    work = Draft.open(path, kind="heads", config=config, seed=0)
    (work.path / "found.json").write_text("{}")
    (work.path / LOG).write_text("speed 1")
    work.finish(parents=parents)
    raw = read_json(path / MANIFEST)
    raw |= {"kind": kind, "schema_version": 1, "content_hash": hash_files(raw["files"], 1)}
    write_json(path / MANIFEST, raw)
    return path


@pytest.mark.parametrize(("folder", "kind", "config", "now"), SHAPES)
def test_a_former_shape_is_listed_opened_and_verified_as_its_kind_of_today(
    tmp_path: Path, folder: str, kind: str, config: dict, now: str
) -> None:
    path = old(tmp_path, folder, "x", kind, config)
    before = (path / MANIFEST).read_bytes()
    workspace = Workspace(tmp_path)
    assert workspace.path(now, "x") == path
    assert [each.kind for each in workspace.artifacts()] == [now]
    assert {each: workspace.names(each) for each in KINDS if workspace.names(each)} == {now: ["x"]}
    found = workspace.manifest(now, "x")
    assert (found.kind, found.config, workspace.key(found)) == (now, config, f"{folder}/x")
    assert verify(path) == []
    assert (path / MANIFEST).read_bytes() == before, "reading leaves the files of a user as they are"


@pytest.mark.parametrize(("folder", "kind", "config", "now"), SHAPES)
def test_unfinished_work_of_a_former_kind_is_listed_and_resumed_where_it_lies(
    tmp_path: Path, folder: str, kind: str, config: dict, now: str
) -> None:
    path = tmp_path / folder / "x"
    begun = Draft.open(path, kind="heads", config=config, seed=0)
    (begun.path / "part.bin").write_bytes(b"half")
    write_json(begun.path / STATUS, read_json(begun.path / STATUS) | {"kind": kind})
    workspace = Workspace(tmp_path)
    assert [(each.kind, each.name) for each in workspace.partials()] == [(now, "x")]
    with pytest.raises(MissingError, match="unfinished"):
        workspace.manifest(now, "x")
    again = Draft.open(workspace.path(now, "x"), kind=now, config=config, seed=0)
    assert again.resumed
    assert (again.path / "part.bin").read_bytes() == b"half"
    again.finish()
    assert not partial_path(path).exists()
    assert workspace.manifest(now, "x").schema_version == read_manifest(path).schema_version > 1


def test_every_kind_that_moved_has_a_former_shape_here() -> None:
    assert {now for _, _, _, now in SHAPES} - {"evaluation"} == set(FORMER_FOLDERS)


def test_new_and_former_artefacts_lie_next_to_each_other(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    old(tmp_path, "circuits", "former", "circuit", {"kind": "induction"})
    Draft.open(workspace.path("induction_circuit", "new"), kind="induction_circuit", config={}).finish()
    assert workspace.names("induction_circuit") == ["former", "new"]
    assert workspace.path("induction_circuit", "new") == tmp_path / "induction-circuits" / "new"
    assert workspace.path("edge_circuit", "former") == tmp_path / "edge-circuits" / "former", "free for another kind"


def test_parents_named_before_and_after_lead_to_the_artefact_and_back(tmp_path: Path) -> None:
    former = read_manifest(old(tmp_path, "circuits", "c", "circuit", {"kind": "discovered"}))
    old(tmp_path, "atlases", "child", "atlas", {}, **{"circuits/c": former.content_hash})
    workspace = Workspace(tmp_path)
    (child,) = workspace.children("edge_circuit", "c")
    (key, recorded), *_ = child.parents.items()
    for name in ("c", key, "edge-circuits/c"):
        assert workspace.find(name, "induction_circuit", "edge_circuit").content_hash == recorded
    with pytest.raises(UnknownNameError, match="induction_circuit or feature_circuit"):
        workspace.find(key, "induction_circuit", "feature_circuit")


def test_a_child_of_an_unchanged_dictionary_still_names_its_hash(tmp_path: Path) -> None:
    path = old(tmp_path, "saes", "a", "sae", {})
    old(tmp_path, "features", "a", "features", {}, **{"saes/a": read_json(path / MANIFEST)["content_hash"]})
    workspace = Workspace(tmp_path)
    (child,) = workspace.children("sae", "a")
    assert child.parents["saes/a"] == workspace.manifest("sae", "a").content_hash
    (path / LOG).write_text("speed 2")
    assert verify(path) == [f"{LOG}: content differs from its checksum"]


def test_what_cannot_be_read_is_broken_once_and_where_it_lies(tmp_path: Path) -> None:
    path = old(tmp_path, "circuits", "torn", "circuit", {"kind": "induction"})
    (path / MANIFEST).write_text("{ cut")
    (broken,) = Workspace(tmp_path).broken()
    assert broken.key == "circuits/torn"
    assert "not valid JSON" in broken.problem
