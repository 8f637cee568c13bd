"""Graphs to and from files: marks, labels and latents of a workspace, and files that cannot be taken in."""

import json
import re
from dataclasses import replace

import pytest
from make_features import copied
from make_graph import EDITS, HOSTILE, MODEL, make_graph

from dashboard.data.features import one, viewer_feature
from dashboard.graph.exchange import take_in, write_export
from dashboard.graph.named import named_lines, named_nodes
from interp.artifacts import save_artefact
from interp.errors import ConfigError, CorruptError, UnknownNameError
from interp.notes import Notes
from interp.tracing.graph import KIND, AttributionGraph
from interp.tracing.graph_json import cantor
from interp.tracing.interchange import export_graph, import_graph
from interp.tracing.part import graph_effects
from interp.tracing.supernodes import GraphEdits
from interp.workspace import Workspace


@pytest.fixture
def own(capital: Workspace) -> Workspace:
    """Return a copy of the workspace with a graph of hostile texts, and with marks on it."""
    Notes.open(capital).save_graph_edits("graphs/capital", EDITS, was={})
    return capital


def edits_of(workspace: Workspace, name: str) -> dict:
    return Notes.open(workspace).graph_edits(f"graphs/{name}")


def test_a_graph_with_its_marks_leaves_and_comes_back(own, tmp_path):
    [said] = write_export(own, "capital", tmp_path / "out.json")
    assert "out.json" in said
    made = take_in(own, tmp_path / "out.json", "again")
    assert edits_of(own, "again") == EDITS
    assert made.targets == own.open(AttributionGraph, "capital").targets
    assert made.settings.imported.file == "out.json"
    write_export(own, "again", tmp_path / "two" / "out.json")
    assert (tmp_path / "two" / "out.json").read_bytes() == (tmp_path / "out.json").read_bytes()
    assert own.open(AttributionGraph, "again").prompt == make_graph(hostile=True, n_tokens=13).prompt


def test_hostile_texts_and_every_node_survive_the_round_trip():
    one = export_graph(make_graph(hostile=True, n_features=200, n_edges=2_000), all_nodes=True)
    two = export_graph(*import_graph(json.loads(json.dumps(one))))
    assert json.dumps(two) == json.dumps(one)


def test_latents_are_described_in_the_layout_of_the_viewer(own, tmp_path):
    about = {"dictionary": "transcoders:set:3", "hook_point": "blocks.3.mlp.hook_in"}
    copied(own, "demo", "set-3", parents={"transcoders/set": "00" * 32}, **about)
    graph = make_graph(n_features=120)
    nodes = [replace(node, index=i) if node.layer == 3 else node for i, node in enumerate(graph.nodes)]
    graph = save_artefact(graph.with_parts(nodes=nodes), own.path(KIND, "wide"))
    kept = {node.index for node in graph.nodes if node.kind == "feature" and node.layer == 3 and node.kept}
    assert kept
    said = write_export(own, "wide", tmp_path / "out" / "wide.json", features=True)[1]
    files = sorted(path.name for path in (tmp_path / "out" / "features" / MODEL).iterdir())
    assert files == sorted(f"{cantor(3, index)}.json" for index in kept)
    assert f"{len(kept)} of " in said
    write_export(own, "wide", tmp_path / "out" / "wide.json", features=True)
    write_export(own, "capital", tmp_path / "out" / "capital.json", features=True)
    listed = json.loads((tmp_path / "out" / "graph-metadata.json").read_text())["graphs"]
    assert [each["slug"] for each in listed] == ["wide", "capital"]
    assert listed[0]["scan"] == MODEL


def test_a_feature_has_the_fields_of_the_viewer(workspace):
    """Types of circuit-tracer's `feature_models.Model`; counts and quantiles are those of the table."""
    found, row = viewer_feature(workspace, "demo", 3), one(workspace, "demo", 3).row
    assert set(found) == {
        *("transcoder_id", "index", "examples_quantiles", "top_logits", "bottom_logits", "act_min", "act_max"),
        *("quantile_values", "histogram", "activation_frequency"),
    }
    assert found["examples_quantiles"][0]["quantile_name"] == "Top activations"
    for group in found["examples_quantiles"]:
        for each in group["examples"]:
            assert set(each) == {"tokens", "tokens_acts_list", "train_token_ind", "is_repeated_datapoint"}
            assert len(each["tokens"]) == len(each["tokens_acts_list"])
            peak = each["tokens_acts_list"][each["train_token_ind"]]
            assert peak == max(each["tokens_acts_list"])
    assert sum(found["histogram"]) == pytest.approx(sum(row.histogram))
    values = found["quantile_values"]
    assert len(values) == 99
    assert values == sorted(values)
    assert values[-1] <= found["act_max"] == row.max_activation
    assert found["top_logits"] == row.promoted_tokens
    json.dumps(found, allow_nan=False)


def test_what_cannot_be_taken_in_leaves_nothing_behind(own, tmp_path):
    write_export(own, "capital", tmp_path / "out.json")
    with pytest.raises(ConfigError, match="already there"):
        take_in(own, tmp_path / "out.json", "capital")
    take_in(own, tmp_path / "out.json", "capital", overwrite=True)
    assert edits_of(own, "capital") == EDITS
    lie = json.loads((tmp_path / "out.json").read_text())
    lie["links"][0]["source"] = "nothing"
    (tmp_path / "lie.json").write_text(json.dumps(lie))
    with pytest.raises(CorruptError, match=r"links\.0 names node 'nothing'"):
        take_in(own, tmp_path / "lie.json", "lie")
    lie = json.loads((tmp_path / "out.json").read_text())
    lie["qParams"]["supernodes"][0][0] = "two\nlines"
    (tmp_path / "lie.json").write_text(json.dumps(lie))
    with pytest.raises(ConfigError, match=r"groups\.0\.0 should be 1 to 80 characters"):
        take_in(own, tmp_path / "lie.json", "lie")
    assert not own.path(KIND, "lie").exists()
    assert not own.path(KIND, "lie").with_name("lie.partial").exists()
    with pytest.raises(ConfigError, match=r"should end in \.json"):
        write_export(own, "capital", tmp_path / "out.pt")
    with pytest.raises(UnknownNameError):
        write_export(own, "nothing", tmp_path / "out.json")


def test_marks_of_a_graph_that_is_replaced_are_replaced_too(own, tmp_path):
    bare = export_graph(make_graph(), GraphEdits())
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    take_in(own, tmp_path / "bare.json", "capital", overwrite=True)
    assert edits_of(own, "capital") == {}


def test_the_command_line_writes_reads_and_refuses_in_one_line(own, tmp_path, capsys):
    from workbench.__main__ import main

    where = ["--workspace", str(own.root)]
    out, lie = tmp_path / "out.json", tmp_path / "lie.json"
    assert main(["circuit", "show", "capital", "--export", str(out), *where]) == 0
    assert main(["import", str(out), "--name", "again", *where]) == 0
    assert edits_of(own, "again") == EDITS
    lie.write_text("{")
    (tmp_path / "graph.pt").write_bytes(b"PK\x03\x04")
    capsys.readouterr()
    for path, words in ((out, "already there"), (lie, "not valid JSON"), (tmp_path / "graph.pt", "pickled objects")):
        assert main(["import", str(path), *(["--name", "again"] if path == out else []), *where]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def test_a_graph_as_html_runs_no_script_and_holds_hostile_texts_as_texts(own, tmp_path):
    graph = own.open(AttributionGraph, "capital")
    write_export(own, "capital", tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "<script" not in text
    for label in HOSTILE[:2]:
        assert label not in text
    assert not re.search(r"<[^>]*\b(src|href)=", text)
    for node in named_nodes(own, graph, 3):
        assert f"{node.effect:+.2f}"[1:4] in text
    for words in (graph.about.content_hash, graph.weight_hash, "random orders within ±0.29", "no latent 0.22"):
        assert words in text


def test_named_nodes_are_the_largest_effects_of_nodes_whose_label_claims_a_meaning(own):
    graph = own.open(AttributionGraph, "capital")
    effect = graph_effects(graph)
    ranked = sorted((i for i, node in enumerate(graph.nodes) if node.kind == "feature"), key=lambda i: -abs(effect[i]))
    labels = dict(zip(ranked, ("", '"Paris"', 'fires on " the"', "no label; dense", "a city"), strict=False))
    nodes = [replace(node, label=labels.get(i, "")) for i, node in enumerate(graph.nodes)]
    found = named_nodes(own, graph.with_parts(nodes=nodes))
    assert [(node.name, node.node) for node in found] == [
        ('"Paris"', nodes[ranked[1]].id),
        ("a city", nodes[ranked[4]].id),
    ]
    assert [node.effect for node in found] == [effect[ranked[1]], effect[ranked[4]]]
    bare = [replace(node, label="") for node in nodes]
    assert named_lines(own, graph.with_parts(nodes=bare)) == ["No node has a label that holds."]
