"""The dictionary that ships: whole, small, as good as its card says, and unpacked without touching what is there."""

import json
import shutil

import pytest

from interp.artifacts import KINDS, verify
from interp.errors import CorruptError, MissingError
from interp.workspace import Workspace
from workbench.demo import CARD, DATA, SHIPPED, shipped_artifacts, unpack


def test_what_ships_is_whole():
    found = shipped_artifacts()
    assert {(kind, name) for kind, name in found} == {
        ("sae", "demo"),
        ("evaluation", "demo"),
        ("features", "demo"),
        ("features", "demo-neurons"),
        ("atlas", "demo-features"),
        ("atlas", "demo-tokens"),
        ("heads", "smollm2-135m"),
    }
    for kind, name in found:
        assert verify(DATA / KINDS[kind] / name) == []


def test_the_card_tells_what_the_files_hold():
    card = json.loads((DATA / CARD).read_text())
    manifest = Workspace(DATA).manifest("sae", SHIPPED)
    assert card["dictionary"] == manifest.summary
    assert card["bytes"] == sum(entry["bytes"] for entry in manifest.files.values()) < 25e6
    assert manifest.summary["tokens_seen"] >= 10_000_000
    assert manifest.summary["d_sae"] >= 9_216
    assert card["text"]["characters"]["books and speeches"] + card["text"]["characters"]["docstring prose"] > 10e6
    assert card["inside_the_model"]["ce_recovered"] > 0.95
    assert card["limits"]


def test_it_loads_as_what_the_card_says():
    from saes.weights.folder import load_sae

    sae = load_sae(DATA / "saes" / SHIPPED)
    assert (sae.d_in, sae.d_sae) == (576, Workspace(DATA).manifest("sae", SHIPPED).summary["d_sae"])
    assert sae.hook_point == "blocks.9.hook_resid_post"


def test_unpacking_leaves_what_is_there(tmp_path):
    workspace = Workspace(tmp_path)
    mine = workspace.path("sae", SHIPPED)
    mine.mkdir(parents=True)
    (mine / "manifest.json").write_text("{}")
    unfinished = workspace.path("features", SHIPPED).with_name(f"{SHIPPED}.partial")
    unfinished.mkdir(parents=True)
    (unfinished / "status.json").write_text("{}")
    unpack(workspace)
    assert (mine / "manifest.json").read_text() == "{}"
    assert unfinished.exists()
    assert verify(workspace.path("features", SHIPPED)) == []
    before = sorted(tmp_path.rglob("*"))
    unpack(workspace)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_or_missing_installation_says_so(tmp_path):
    with pytest.raises(MissingError, match="demo --train"):
        unpack(Workspace(tmp_path / "to", create=True), tmp_path / "nothing")
    shutil.copytree(DATA / "heads", tmp_path / "data" / "heads")
    table = next((tmp_path / "data").rglob("*.parquet"))
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptError, match=r"damaged.*install the package again"):
        unpack(Workspace(tmp_path / "to"), tmp_path / "data")
    assert not list((tmp_path / "to").rglob("*.parquet"))


def test_a_folder_in_the_way_is_left_and_named(tmp_path):
    workspace = Workspace(tmp_path)
    mine = workspace.path("sae", SHIPPED)
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(CorruptError, match=r"sae.*no manifest; move it away"):
        unpack(workspace)
    assert (mine / "notes.txt").read_text() == "mine"
