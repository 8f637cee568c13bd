"""The dictionary that ships: whole, small, as good as its card says, and unpacked without touching what is there."""

import json
import re
import shutil

import pytest

from dashboard.graph.page import header
from dashboard.overview.data import overview
from dashboard.sae.data import entries
from interp.artifacts import FOLDERS, verify
from interp.errors import CorruptError, MissingError
from interp.tracing.graph import KIND as GRAPH
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from saes.sets.stored import StoredSet
from saes.training.stored import StoredSAE
from tools.build import KINDS as TEXT_KINDS
from tools.build import MAY_SHIP
from tools.graphs import OTHERS, PROMPTS
from workbench.__main__ import main
from workbench.demo import CARD, DATA, SHIPPED, SHIPPED_SET, highlights, shipped_artifacts, unpack


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
        ("jacobian_lens", "smollm2-135m"),
        ("transcoders", SHIPPED_SET),
        *(("features", f"{SHIPPED_SET}-{layer}") for layer in range(30)),
        *((GRAPH, name) for name in PROMPTS),
    }
    for kind, name in found:
        assert verify(DATA / FOLDERS[kind] / name) == []


def test_the_card_tells_what_the_files_hold():
    card = json.loads((DATA / CARD).read_text())
    sae = Workspace(DATA).open(StoredSAE, SHIPPED)
    assert card["dictionary"] == sae.about.summary
    assert card["bytes"] == sum(entry["bytes"] for entry in sae.about.files.values()) < 25e6
    assert sae.training is not None
    assert sae.training.tokens_seen >= 10_000_000
    assert sae.d_sae >= 9_216
    assert set(card["text"]["characters"]) == set(card["text"]["licences"]) == set(TEXT_KINDS)
    assert card["text"]["characters"]["sampled"] > 6e6, "1.5 million tokens"
    assert set(card["text"]["examples_from"]) == set(MAY_SHIP)
    assert card["concepts"]["judge"]["dictionary"] > card["concepts"]["judge"]["neuron"]
    assert sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) < 100e6
    assert card["inside_the_model"]["ce_recovered"] > 0.95
    assert card["limits"]


def test_the_demo_names_features_that_a_reader_understands():
    first, *lines, last = highlights(Workspace(DATA), SHIPPED)
    assert first == "Three features to start from:"
    said = [re.fullmatch(r"  feature +\d+  fires on (.+); makes the model say (.+)", line) for line in lines[::2]]
    assert all(said)
    words = [word for each in said if each for word in each[2].split(", ")]
    assert len(words) == len(set(words)) == 15
    assert sum(word.isalpha() for word in words) >= 14
    assert all(line.strip().startswith(f"/feature/{SHIPPED}/") for line in lines[1::2])
    assert last.endswith("search cooking")


def test_the_graphs_that_ship_have_the_latents_that_they_name_and_are_small():
    workspace = Workspace(DATA)
    stored = workspace.open(StoredSet, SHIPPED_SET)
    assert stored.part is not None
    latents = stored.part.latents
    used = {(layer, index) for layer in range(30) for index in range(len(latents[layer]))}
    named: set[tuple[int, int]] = set()
    for name, (prompt, target, contrast) in PROMPTS.items():
        graph = workspace.open(AttributionGraph, name)
        assert (graph.prompt, graph.targets[0].label) == (prompt, f"{target} - {contrast}")
        named |= {(node.layer, node.index) for node in graph.nodes if node.kind == "feature"}
        assert graph.floor.replacement < graph.untrained.replacement < graph.scores.replacement
        assert workspace.manifest(GRAPH, name).parents[f"transcoders/{SHIPPED_SET}"] == stored.about.content_hash
    assert named < used
    assert len(used) < 3_000
    assert min(len(each) for each in latents.values()) >= OTHERS
    parts = [DATA / "graphs", DATA / "transcoders", *DATA.glob(f"features/{SHIPPED_SET}-*")]
    assert sum(file.stat().st_size for part in parts for file in part.rglob("*") if file.is_file()) < 15e6
    for layer in (0, 29):
        table = workspace.table_path("features", f"{SHIPPED_SET}-{layer}", "features")
        rows = workspace.query("select feature, label from f order by feature", f=table).to_pylist()
        n = len(latents[layer])
        assert [row["feature"] for row in rows] == list(range(n))


def test_pages_show_a_set_as_one_thing():
    cards = overview(Workspace(DATA)).cards
    of_set = [card.name for card in cards["features"] if card.name.startswith(SHIPPED_SET)]
    assert {card.name for card in cards["features"]} == {"demo", "demo-neurons", *of_set}
    assert len(of_set) == 1
    [card] = cards["transcoders"]
    assert "latents of the set smol, those of its graphs here" in card.sentence
    assert not any(entry.name.startswith(SHIPPED_SET) for entry in entries(Workspace(DATA)))
    graph = Workspace(DATA).open(AttributionGraph, "capital-of-France")
    assert "Why does smollm2-135m prefer “Paris” to “Rome”?" in str(header(graph))


def test_another_prompt_is_not_traced_with_a_part_of_a_set(tmp_path, capsys):
    unpack(Workspace(tmp_path, create=True))
    words = ["trace", "smollm2-135m", "--prompt", "Hello", "--set", SHIPPED_SET, "--workspace", str(tmp_path)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "holds only the latents of graphs" in said
    assert "workbench train RECORDING --set NAME" in said


def test_it_loads_as_what_the_card_says():
    from saes.weights.folder import load_sae

    sae = load_sae(DATA / "saes" / SHIPPED)
    assert (sae.d_in, sae.d_sae) == (576, Workspace(DATA).open(StoredSAE, SHIPPED).d_sae)
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
