"""The dictionary that ships: whole, small, as good as its card says, and unpacked without touching what is there."""

import json
import re
import shutil

import pytest

from dashboard.graph._data import content
from dashboard.graph.named import MOST, named_nodes
from dashboard.graph.page import header
from interp.artifacts import FOLDERS, verify
from interp.errors import CorruptError, MissingError
from interp.routes.routes import MOST_SAID, Routes
from interp.tracing.background import background_nodes
from interp.tracing.graph import KIND as GRAPH
from interp.tracing.graph import AttributionGraph
from interp.tracing.prompts import PROMPTS
from interp.workspace import Workspace
from saes.features.neurons import NeuronLabels
from saes.training.stored import StoredSAE
from tools.build import KINDS as TEXT_KINDS
from tools.build import MAY_SHIP
from workbench.demo import CARD, DATA, SHIPPED, highlights, shipped_artifacts, unpack

SHOWN = sorted(path.name for path in (DATA / "graphs").iterdir())
ROUTES = ("capital", "country", "couple", "drink", "element", "evening", "import", "name", "opposite")


def test_what_ships_is_whole():
    found = shipped_artifacts()
    assert {(kind, name) for kind, name in found} == {
        ("sae", "demo"),
        ("evaluation", "demo"),
        ("evaluation", "nulls"),
        ("features", "demo"),
        ("features", "demo-neurons"),
        ("labels", "demo"),
        ("atlas", "demo-features"),
        ("atlas", "demo-tokens"),
        ("heads", "smollm2-135m"),
        ("jacobian_lens", "smollm2-135m"),
        ("neurons", "smollm2-135m"),
        ("word_geometry", "smollm2-135m"),
        ("direction", "praise"),
        ("induction_onset", "induction"),
        *(("routes", name) for name in ROUTES),
        *((GRAPH, name) for name in SHOWN),
    }
    for kind, name in found:
        assert verify(DATA / FOLDERS[kind] / name) == []
        assert Workspace(DATA).open_key(f"{FOLDERS[kind]}/{name}").name == name  # its form is that of the classes


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
    assert first == "Features to start from:"
    said = [re.fullmatch(r"  feature +\d+  fires on (.+); makes the model say (.+)", line) for line in lines[::2]]
    assert all(said)
    words = [word for each in said if each for word in each[2].split(", ")]
    assert len(words) == len(set(words)) == 15
    assert sum(word.isalpha() for word in words) >= 14
    assert all(line.strip().startswith(f"/feature/{SHIPPED}/") for line in lines[1::2])
    assert last.endswith("search cooking")


def test_the_graphs_that_ship_predict_ablations_and_have_named_nodes():
    workspace = Workspace(DATA)
    assert len(SHOWN) == 4
    labels = workspace.open(NeuronLabels, "smollm2-135m")
    assert (labels.n_layers, labels.d_mlp, labels.settings.prompts) == (30, 1536, 27)
    for name in SHOWN:
        graph = workspace.open(AttributionGraph, name)
        prompt, target, contrast = PROMPTS[name]
        assert (graph.prompt, graph.targets[0].label) == (prompt, f"{target} - {contrast}")
        assert graph.floor.replacement < graph.scores.replacement
        assert graph.effects.spearman.low > max(0.3, graph.effects.direct_spearman.estimate)
        assert len(named_nodes(workspace, graph)) == MOST
        assert background_nodes(graph, labels.background())
    paths = [*(DATA / "graphs").rglob("*"), *(DATA / "neurons").rglob("*")]
    assert sum(file.stat().st_size for file in paths if file.is_file()) < 15e6


def test_the_routes_that_ship_are_sharp_but_for_one_that_says_so():
    stored = {routes.name: routes for routes in Workspace(DATA).values(Routes)}
    assert sorted(stored) == sorted(ROUTES)
    for name, routes in stored.items():
        swap = routes.swaps[0]
        assert len(routes.sentence.split()) <= MOST_SAID
        assert (swap.flips and swap.share > 0.8 and swap.after.moved > max(swap.null)) == (name != "opposite"), name
        assert routes.enough.kl < routes.enough.kl_none / 5


def test_a_graph_that_ships_is_shown_with_the_labels_of_its_neurons():
    workspace = Workspace(DATA)
    graph = workspace.open(AttributionGraph, "capital-of-France")
    shown = content(workspace, graph)
    latents = [label for label, kind in zip(shown["nodes"]["label"], shown["nodes"]["kind"], strict=True) if kind == 0]
    assert all(latents), "every neuron has a label, or says on what it fires"
    assert shown["background"]
    assert shown["prompts"] == 27
    assert "“Paris” 74.9% rather than “Rome”" in str(header(graph))


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
    with pytest.raises(MissingError, match="workbench own smollm2-135m --text docstrings"):
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
    with pytest.raises(CorruptError, match=r"sae.*no manifest: .*move it away"):
        unpack(workspace)
    assert (mine / "notes.txt").read_text() == "mine"
