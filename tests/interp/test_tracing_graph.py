"""An attribution graph as a value and as files: reading it back, and files that do not fit each other."""

import contextlib
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.artifacts import MANIFEST, open_artefact, save_artefact, write_json
from interp.errors import ConfigError, CorruptError, MismatchError, UnknownNameError
from interp.tracing.graph import AttributionGraph, GraphEdges, GraphNode, TraceConfig
from tests.interp.tracing_graphs import small_graph


@pytest.fixture
def folder(tmp_path):
    save_artefact(small_graph(), tmp_path / "paris", parents={"model:tiny": "abc"}, seed=0)
    return tmp_path / "paris"


def same(one: AttributionGraph, two: AttributionGraph) -> bool:
    edges = ("source", "target", "weight", "share", "kept")
    about = ("settings", "prompt", "token_texts", "n_layers", "targets", "nodes", "scores", "floor", "run", "effects")
    return all(getattr(one, name) == getattr(two, name) for name in about) and all(
        np.array_equal(getattr(one.edges, name), getattr(two.edges, name)) for name in edges
    )


def test_a_graph_is_read_back_as_it_was_written(folder):
    graph = open_artefact(AttributionGraph, folder)
    assert same(graph, small_graph())
    assert graph.headline() == small_graph().headline()
    assert graph.facts() == [("nodes kept", "7"), ("replacement score", "0.6"), ("without latents", "0.2")]
    assert graph.findings() == [], "no untrained set"


def test_the_same_graph_has_the_same_hash(folder, tmp_path):
    graph = open_artefact(AttributionGraph, folder)
    assert save_artefact(graph, tmp_path / "again").about.content_hash == graph.about.content_hash


def test_ids_name_nodes_and_neighbours_come_strongest_first():
    graph = small_graph()
    assert [node.id for node in graph.nodes[:5]] == [
        "token:0:1", "token:1:7", "feature:0:1:3", "error:0:1", "feature:1:1:0",
    ]  # fmt: skip
    assert graph.node("logit:1:1").index == 1
    into = graph.edges_into("feature:1:1:0")
    assert [row["node"] for row in into] == ["token:1:7", "feature:0:1:3", "error:0:1"]
    assert [row["weight"] for row in into] == [-3.0, 2.0, 1.0]
    assert [row["node"] for row in graph.edges_from("feature:1:1:0")] == ["logit:1:0", "logit:1:1"]
    assert graph.edges_into("token:0:1") == []
    with pytest.raises(UnknownNameError, match="did you mean 'feature:1:1:0'"):
        graph.edges_into("feature:1:1:00")


def test_rows_are_ordered_by_importance_and_the_details_have_the_baselines():
    graph = small_graph()
    rows = graph.to_records()
    assert [row["influence"] for row in rows] == sorted((node.influence for node in graph.nodes), reverse=True)
    shares = [row["share"] for row in graph.edge_records()]
    assert shares == sorted(shares)
    assert all("logit" in row["node"] or row["influence"] > 0 for row in graph.shown())
    text = graph.details()
    assert graph.headline() == "Why '<s> is' leads to 'Paris' (75%)"
    assert "Pruned to 7 of 8 stored nodes and 8 of 9 edges." in text
    assert "Replacement score 0.60 (without any latent 0.20; 1 is perfect)." in text
    assert "Completeness score 0.70 (without any latent 0.30; 1 is perfect)." in text


def test_a_graph_without_edges_can_be_written_and_read(tmp_path):
    none = GraphEdges(*(np.zeros(0, kind) for kind in (np.int32, np.int32, np.float32, np.float64, bool)))
    empty = small_graph().with_parts(edges=none)
    assert same(save_artefact(empty, tmp_path / "empty"), empty)


def test_a_model_with_other_weights_is_refused():
    small_graph().check_model("0" * 64)
    with pytest.raises(MismatchError, match="traced in tiny with weights 000000000000, these are ffff"):
        small_graph().check_model("f" * 64)


def rewrite(path, change) -> None:
    """Change the columns of a parquet file. A column keeps its type if its values still fit."""
    before = pq.read_table(path)
    table = before.to_pydict()
    change(table)
    for name, values in table.items():
        with contextlib.suppress(pa.ArrowException, KeyError):
            table[name] = pa.array(values).cast(before.schema.field(name).type)
    pq.write_table(pa.table(table), path)


def edit(path, **values) -> None:
    """Change fields of the summary; ... removes one."""
    held = json.loads(path.read_text())
    summary = held["summary"] | values
    held["summary"] = {name: value for name, value in summary.items() if value is not ...}
    write_json(path, held)


NODES, EDGES = "node_table.parquet", "edge_table.parquet"
DAMAGE = {
    "names node 8 of 8": lambda at: rewrite(at / EDGES, lambda t: t["target"].__setitem__(0, 8)),
    "names node -1 of 8": lambda at: rewrite(at / EDGES, lambda t: t["source"].__setitem__(0, -1)),
    "column 'weight' is missing": lambda at: rewrite(at / EDGES, lambda t: t.pop("weight")),
    "column 'source' should hold int64, found string": lambda at: rewrite(
        at / EDGES, lambda t: t.update(source=["a"] * 9)
    ),
    "column 'source' should hold int64, found double": lambda at: rewrite(
        at / EDGES, lambda t: t.update(source=[0.5] * 9)
    ),
    "column 'layer' is missing": lambda at: rewrite(at / NODES, lambda t: t.pop("layer")),
    "unknown kind of node 'head'": lambda at: rewrite(at / NODES, lambda t: t["kind"].__setitem__(0, "head")),
    "column 'colour' is not known": lambda at: rewrite(at / NODES, lambda t: t.update(colour=["red"] * 8)),
    "column 'layer' lacks values": lambda at: rewrite(at / NODES, lambda t: t["layer"].__setitem__(0, None)),
    "prompt is missing": lambda at: edit(at / MANIFEST, prompt=...),
    "token_texts.1 ": lambda at: edit(at / MANIFEST, token_texts=["a", 3]),
    "scores ": lambda at: edit(at / MANIFEST, scores=3),
    "scores.0 ": lambda at: edit(at / MANIFEST, scores=["high", 0.5]),
    "targets.0.weight ": lambda at: edit(at / MANIFEST, targets=[{"label": "a", "weight": "1"}]),
    "targets.0.colour is not a field of it": lambda at: edit(at / MANIFEST, targets=[{"label": "a", "colour": "red"}]),
    "node_table.parquet": lambda at: (at / NODES).unlink(),
    "effects.json": lambda at: (at / "effects.json").write_text("{"),
}


def read(folder) -> tuple:
    graph = open_artefact(AttributionGraph, folder)
    return graph.nodes, graph.edges, graph.effects


@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_do_not_fit_each_other_are_refused_in_one_line(folder, damage):
    DAMAGE[damage](folder)
    with pytest.raises(CorruptError, match=re.escape(damage)) as refused:
        read(folder)
    assert "\n" not in str(refused.value)


def test_an_edge_of_a_value_names_a_node_that_exists():
    edges = small_graph().edges
    wrong = small_graph().with_parts(edges=replace(edges, target=np.full(len(edges), 8, np.int32)))
    with pytest.raises(CorruptError, match="an edge names node 8 of 8"):
        _ = wrong.edges
    assert GraphNode("error", 2, 3, -1).id == "error:2:3"


@pytest.mark.parametrize(
    "settings",
    [{"max_feature_nodes": 0}, {"batch_size": 0}, {"node_share": 0.0}, {"edge_share": 1.5}, {"logit_share": -1},
     {"effects": -1}, {"skip_positions": -1}, {"max_neurons": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TraceConfig(**settings)
