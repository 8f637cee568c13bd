"""Graphs in the JSON of Neuronpedia and circuit-tracer: schema, round trip, files of others, files that lie."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from interp.artifacts import open_artefact, save_artefact
from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError
from interp.notes import Notes
from interp.tracing.graph import AttributionGraph, GraphEdges, GraphNode, GraphTarget
from interp.tracing.graph_json import NAMED_TARGET, cantor
from interp.tracing.interchange import MAX_FILE, export_graph, import_graph, read_graph_json, write_graph_json
from interp.tracing.supernodes import GraphEdits, Supernode
from interp.workspace import Workspace
from tests.interp.tracing_graphs import small_graph

FIXTURES = Path(__file__).parent.parent / "fixtures"
SCHEMA = json.loads((FIXTURES / "graph_schema.json").read_text())
EDITS = GraphEdits(
    pins=("feature:1:1:4", "token:1:7"),
    supernodes=(Supernode("say “Paris”", ("feature:0:1:3", "feature:1:1:0")), Supernode("empty", ())),
    labels={"feature:1:1:0": 'my "own"\nlabel', "logit:1:1": "the wrong capital", "error:0:1": "?"},
    clicked="feature:0:1:3",
    layout="0.5 0.25",
)


def as_text(data: dict) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


@pytest.fixture
def data() -> dict:
    return export_graph(small_graph(), EDITS, slug="paris")


def test_an_export_fits_the_schema(data):
    jsonschema.validate(data, SCHEMA)
    for options in ({}, {"all_nodes": True}, {"feature_json_base_url": "https://example.org/features"}):
        jsonschema.validate(export_graph(small_graph(), **options), SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data | {"nodes": [{}]}, SCHEMA)


def test_nodes_have_the_ids_and_numbers_of_the_format(data):
    by_id = {node["node_id"]: node for node in data["nodes"]}
    assert list(by_id) == ["0_3_1", "1_0_1", "1_4_1", "0_0_1", "E_1_0", "E_7_1", "3_11_1", "3_12_1"]
    latent = by_id["0_3_1"]
    assert (latent["feature"], latent["layer"], latent["jsNodeId"]) == (9, "0", "0_3-0")
    assert (latent["clerp"], latent["influence"], latent["activation"]) == ("capitals", 0.75, 1.5)
    error = by_id["0_0_1"]
    assert (error["feature"], error["layer"], error["feature_type"]) == (-1, "0", "mlp reconstruction error")
    token, logit = by_id["E_7_1"], by_id["3_11_1"]
    assert (token["layer"], token["feature"], token["jsNodeId"], token["activation"]) == ("E", 1, "E_7-1", None)
    assert (logit["clerp"], logit["token_prob"]) == ('Output " Paris" (p=0.750)', 0.75)
    assert (logit["is_target_logit"], by_id["3_12_1"]["is_target_logit"]) == (True, False)
    assert data["qParams"]["supernodes"] == [["say “Paris”", "0_3_1", "1_0_1"], ["empty"]]
    assert data["qParams"]["pinnedIds"] == ["1_4_1", "E_7_1", "0_3_1", "1_0_1"]  # viewers show pinned members only
    assert data["metadata"]["workbench"]["marks"]["pins"] == ["1_4_1", "E_7_1"]
    assert {"source": "E_7_1", "target": "1_0_1", "weight": -3.0} in data["links"]


def test_dropped_nodes_are_left_out_unless_a_mark_names_them(data):
    plain = export_graph(small_graph())
    assert "1_4_1" not in [node["node_id"] for node in plain["nodes"]]
    assert len(plain["links"]) == 8
    assert len(data["links"]) == len(export_graph(small_graph(), all_nodes=True)["links"]) == 9


def test_marks_pass_through_the_notes_of_a_workspace(tmp_path):
    marks = replace(
        EDITS, supernodes=EDITS.supernodes[:1], labels={"logit:1:1": "the wrong capital"}, clicked="", layout=""
    )
    notes = Notes.open(Workspace(tmp_path / "workspace", create=True))
    notes.save_graph_edits("graphs/paris", marks.to_notes(), was={})
    assert GraphEdits.of_notes(notes.graph_edits("graphs/paris")) == marks
    assert GraphEdits.of_notes({}) == GraphEdits()


def test_marks_on_unknown_nodes_are_refused():
    for edits in (
        GraphEdits(pins=("feature:9:9:9",)), GraphEdits(supernodes=(Supernode("a", ("nothing",)),)),
        GraphEdits(labels={"nothing": "a"}), GraphEdits(clicked="nothing"),
    ):  # fmt: skip
        with pytest.raises(UnknownNameError):
            export_graph(small_graph(), edits)


def test_pins_supernodes_and_labels_survive_the_round_trip_byte_for_byte(data, tmp_path):
    write_graph_json(data, tmp_path / "one.json")
    graph, edits = import_graph(read_graph_json(tmp_path / "one.json"))
    write_graph_json(export_graph(graph, edits), tmp_path / "two.json")
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert (edits.pins, edits.supernodes, edits.labels) == (EDITS.pins, EDITS.supernodes, EDITS.labels)
    assert edits == EDITS
    assert (graph.targets, graph.scores) == (small_graph().targets, small_graph().scores)
    # Through the artefact as well.
    stored = open_artefact(AttributionGraph, save_artefact(graph, tmp_path / "graph").folder)
    assert as_text(export_graph(stored, edits)) == as_text(data)


def test_the_viewer_of_circuit_tracer_can_read_what_it_parses(data):
    """It reads the probability of a logit from its label, and `clerps` of `qParams` as JSON in a text."""
    for node in data["nodes"]:
        if node["feature_type"] == "logit":
            assert float(node["clerp"].split("(p=")[1].split(")")[0]) == pytest.approx(node["token_prob"], abs=5e-4)
    assert 'Output "the wrong capital" (p=0.125)' in [node["clerp"] for node in data["nodes"]]
    assert "clerps" not in data["qParams"]
    # Its own server stores what stood in the address: texts.
    data["qParams"] |= {
        "clerps": json.dumps([["9", "given in the viewer"]]),
        "pinnedIds": ",".join([*data["qParams"]["pinnedIds"], "3_11_1"]),
        "supernodes": json.dumps([["of the viewer", "0_3_1"]]),
        "pruningThreshold": "0.7",
    }
    graph, edits = import_graph(data)
    assert export_graph(graph, edits)["qParams"]["pruningThreshold"] == "0.7"
    assert edits.labels == {**EDITS.labels, "feature:0:1:3": "given in the viewer"}
    assert edits.supernodes == (Supernode("of the viewer", ("feature:0:1:3",)),)
    assert edits.pins == (*EDITS.pins, "feature:1:1:0", "logit:1:0")


def test_the_order_of_nodes_and_edges_changes_nothing(data):
    graph = small_graph()
    order = np.random.default_rng(0).permutation(len(graph.nodes))
    place = np.argsort(order).astype(np.int32)
    rows = np.random.default_rng(1).permutation(len(graph.edges))
    old = graph.edges
    edges = GraphEdges(
        place[old.source][rows], place[old.target][rows], old.weight[rows], old.share[rows], old.kept[rows]
    )
    mixed = graph.with_parts(nodes=[graph.nodes[i] for i in order], edges=edges)
    assert as_text(export_graph(mixed, EDITS, slug="paris")) == as_text(data)


def test_influence_along_all_links_is_that_of_the_graph():
    """Tokens, latents and errors of the small graph, by hand: inputs of each target by absolute size."""
    graph, _ = import_graph(export_graph(small_graph(), all_nodes=True))
    got = {node.id: node.influence for node in graph.nodes}
    paris, london = 0.75, 0.125
    into = paris * 1 / 1.5625 + london
    assert got["feature:1:1:0"] == pytest.approx(into)
    assert got["error:0:1"] == pytest.approx(into / 6)
    latent = into * 2 / 6 + paris * 0.5 / 1.5625
    assert got["feature:0:1:3"] == pytest.approx(latent)
    assert got["token:1:7"] == pytest.approx(into * 3 / 6 + latent * 2 / 3)
    shares = graph.edges.share[np.argsort(graph.edges.share)]
    assert shares[-1] == pytest.approx(1)
    assert (shares > 0).all()


def test_the_error_that_shares_an_id_with_a_latent_gets_its_own():
    """Layer 0, latent 1 at position 1, and the error of layer 1 there: both would be `0_1_1`."""
    graph = small_graph()
    nodes = list(graph.nodes)
    nodes[2] = replace(nodes[2], index=1)
    nodes[5] = GraphNode("error", 1, 1, -1, share=0.9)
    graph = graph.with_parts(nodes=nodes)
    data = export_graph(graph, GraphEdits(pins=("error:1:1",)), all_nodes=True)
    names = [node["node_id"] for node in data["nodes"]]
    assert len(set(names)) == len(names)
    assert {"0_1_1", "1_-1_1", "0_0_1"} <= set(names)
    again, edits = import_graph(data)
    assert edits.pins == ("error:1:1",)
    assert {node.id for node in again.nodes} == {node.id for node in graph.nodes}


def theirs() -> dict:
    """Return a file as circuit-tracer writes it: errors are `0_LAYER_POSITION`, and one shares an id with a latent."""

    def node(name: str, feature: int, layer: str, kind: str, position: int, **more) -> dict:
        fixed = {"token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0}
        about = {"node_id": name, "feature": feature, "layer": layer, "ctx_idx": position, "feature_type": kind}
        return fixed | about | {"jsNodeId": name, "clerp": "", "influence": 0.5, "activation": None} | more

    clt, error = "cross layer transcoder", "mlp reconstruction error"
    return {
        "metadata": {
            "slug": "ab", "scan": "gpt2", "transcoder_list": [], "prompt_tokens": ["<s>", "a"], "prompt": "<s>a",
            "node_threshold": 0.8, "schema_version": 1, "info": {"creator_name": "someone", "create_time_ms": 1.5},
        },
        "qParams": {"pinnedIds": ["0_1_1"], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [
            node("0_1_1", cantor(0, 1), "0", clt, 1, activation=2.0),
            node("2_5_1", cantor(2, 5), "2", clt, 1, activation=1.0),
            node("1_9_1", cantor(1, 9), "1", clt, 1, activation=1.0),
            node("0_1_1", -1, "1", error, 1),
            node("E_3_0", 0, "E", "embedding", 0),
            node("E_4_1", 1, "E", "embedding", 1),
            node("4_8_1", 8, "4", "logit", 1, token_prob=0.75, clerp='Output "b" (p=0.750)', influence=None),
        ],
        "links": [
            {"source": "E_4_1", "target": "0_1_1", "weight": 1.0},
            {"source": "0_1_1", "target": "1_9_1", "weight": 2.0},
            {"source": "0_1_1", "target": "2_5_1", "weight": 3.0},
            {"source": "0_1_1", "target": "2_5_1", "weight": -4.0},
            {"source": "0_1_1", "target": "4_8_1", "weight": 5.0},
            {"source": "2_5_1", "target": "4_8_1", "weight": 1},
        ],
        "qk_tracing_results": {"heads": [1, 2]},
    }  # fmt: skip


def test_a_file_of_circuit_tracer_is_read_and_ids_that_collide_are_told_apart():
    graph, edits = import_graph(theirs())
    assert (graph.model, graph.n_layers, graph.tokens, graph.token_texts) == ("gpt2", 3, (3, 4), ("<s>", "a"))
    assert graph.targets == (GraphTarget("b", 8, weight=0.75),)
    assert [row["node"] for row in graph.edges_into("feature:0:1:1")] == ["token:1:4"]
    assert [row["node"] for row in graph.edges_into("feature:1:1:9")] == ["feature:0:1:1"]
    into = graph.edges_into("feature:2:1:5")
    assert [(row["node"], row["weight"]) for row in into] == [("error:1:1", -4.0), ("feature:0:1:1", 3.0)]
    assert graph.settings.imported.guessed_links == 1  # the link into the logit: latent or error
    assert edits.pins == ("feature:0:1:1",)
    # What we do not use is carried along, and the second round trip changes nothing.
    one = export_graph(graph, edits)
    assert one["metadata"]["info"] == theirs()["metadata"]["info"]
    assert one["metadata"]["slug"] == "ab"
    assert one["qk_tracing_results"] == {"heads": [1, 2]}
    assert as_text(export_graph(*import_graph(one))) == as_text(one)
    jsonschema.validate(one, SCHEMA)


def test_a_file_that_circuit_tracer_wrote_is_read_and_written_again():
    """Frozen by `make oracles`: its graph of a random GPT-2. Nodes and links stay as they were, in another order."""
    theirs = read_graph_json(FIXTURES / "circuit_tracer_graph" / "graph.json")
    jsonschema.validate(theirs, SCHEMA)
    ours = export_graph(*import_graph(theirs))
    jsonschema.validate(ours, SCHEMA)
    assert len(ours["nodes"]) == 26
    assert sorted(map(as_text, ours["nodes"])) == sorted(map(as_text, theirs["nodes"]))
    assert sorted(map(as_text, ours["links"])) == sorted(map(as_text, theirs["links"]))
    assert {key: ours["metadata"][key] for key in theirs["metadata"]} == theirs["metadata"]


def test_errors_by_the_newer_ids_and_layers_as_numbers_are_read():
    data = theirs()
    data["nodes"][3] |= {"node_id": "1_-1_1", "layer": 1, "influence": None}
    data["links"][3]["source"] = "1_-1_1"
    graph, _ = import_graph(data)
    assert graph.settings.imported.guessed_links == 0
    assert graph.edges_into("feature:2:1:5")[0]["node"] == "error:1:1"
    assert 0 < graph.node("error:1:1").share <= 1


def test_targets_that_are_not_one_token_keep_their_fields():
    graph = small_graph()
    targets = (GraphTarget(" Paris -  London", 11, 12), GraphTarget("feature:1:1:0"))
    graph = replace(graph, targets=targets)
    data = export_graph(graph)
    jsonschema.validate(data, SCHEMA)
    assert [node["feature"] for node in data["nodes"][-2:]] == [NAMED_TARGET, NAMED_TARGET + 1]
    assert import_graph(data)[0].targets == targets
    del data["metadata"]["workbench"]
    assert [each.token for each in import_graph(data)[0].targets] == [None, None]


def test_labels_from_a_table_describe_nodes_without_their_own():
    labels = {"feature:1:1:4": "from the table", "feature:0:1:3": "not this"}
    data = export_graph(small_graph(), labels=labels, all_nodes=True)
    by_id = {node["node_id"]: node["clerp"] for node in data["nodes"]}
    assert (by_id["1_4_1"], by_id["0_3_1"]) == ("from the table", "capitals")


def changed(*path, value=None) -> dict:
    """Return an export with one value changed, or removed where the new value is ...."""
    data = copy.deepcopy(export_graph(small_graph(), EDITS))
    held = data
    for step in path[:-1]:
        held = held[step]
    if value is ...:
        del held[path[-1]]
    else:
        held[path[-1]] = value
    return data


def nested(depth: int) -> list:
    held: list = []
    for _ in range(depth):
        held = [held]
    return held


MARKS = ("metadata", "workbench", "marks")
LIES = {
    "links.2 names node '9_9_9', which is not among the nodes": (("links", 2, "source"), "9_9_9"),
    "links.0.target should be a valid string, found 7": (("links", 0, "target"), 7),
    "links.0.weight should be a finite number, found nan": (("links", 0, "weight"), float("nan")),
    "links.0.weight should be a finite number, found inf": (("links", 0, "weight"), float("inf")),
    "links.0.weight should be a valid number, found '1'": (("links", 0, "weight"), "1"),
    "links.0.weight should be a valid number, found True": (("links", 0, "weight"), True),
    "links.0.weight should be less than or equal to 3402823": (("links", 0, "weight"), 1e39),
    "nodes.0.activation should be greater than or equal to -3402823": (("nodes", 0, "activation"), -1e39),
    "links.1 should be an object, found []": (("links", 1), []),
    "links.0 leads from layer 1 (1_0_1) to layer 0 (0_3_1)": (("links", 0, "source"), "1_0_1"),
    "links.1 repeats the link from E_1_0 to 0_3_1": (("links", 1, "source"), "E_1_0"),
    "the graph: links is missing": (("links",), ...),
    "the graph: nodes should be a valid array, found {}": (("nodes",), {}),
    "nodes.0 should be an object, found 3": (("nodes", 0), 3),
    "nodes.0.node_id is missing": (("nodes", 0, "node_id"), ...),
    "nodes.0.node_id '0_3_0' does not fit layer 0 and ctx_idx 1": (("nodes", 0, "node_id"), "0_3_0"),
    "nodes.0.ctx_idx is 2, the prompt has 2 tokens": (("nodes", 0, "ctx_idx"), 2),
    "nodes.0.ctx_idx should be a valid integer, found 0.5": (("nodes", 0, "ctx_idx"), 0.5),
    "nodes.0.layer should be a whole number, found '-1'": (("nodes", 0, "layer"), "-1"),
    "nodes.0.feature should be 9, the pairing of layer 0 and latent 3, found 8": (("nodes", 0, "feature"), 8),
    "nodes.0.feature_type should be 'cross layer transcoder', 'mlp reconstruction error'": (
        ("nodes", 0, "feature_type"),
        "lorsa",
    ),
    "nodes.0.influence should be a finite number": (("nodes", 0, "influence"), float("nan")),
    "nodes.0.clerp should be a valid string, found 3": (("nodes", 0, "clerp"), 3),
    "nodes.0.clerp holds half a character": (("nodes", 0, "clerp"), "\ud800"),
    "nodes.1.node_id '0_3_1' does not fit layer 1": (("nodes", 1, "node_id"), "0_3_1"),
    "the logits should be in one layer": (("nodes",), []),
    "metadata.scan is missing": (("metadata", "scan"), ...),
    "metadata.prompt_tokens.0 should be a valid string, found None": (("metadata", "prompt_tokens", 0), None),
    "metadata.slug should be a valid string, found 3": (("metadata", "slug"), 3),
    "metadata.transcoder_list.0 should be a valid string, found 3": (("metadata", "transcoder_list"), [3]),
    "metadata: info is nested in more than 24 levels": (("metadata", "info"), nested(30)),
    "metadata: info holds nan": (("metadata", "info"), [float("nan")]),
    "metadata: workbench: 1 targets, but 2 logits": (
        ("metadata", "workbench", "targets"),
        [{"label": "a", "token": None, "contrast": None, "weight": 1.0}],
    ),
    "metadata.workbench: targets.0.colour is not a field": (
        ("metadata", "workbench", "targets"),
        [{"label": "a", "colour": "a"}] * 2,
    ),
    "metadata.workbench: targets.0.label should be": (
        ("metadata", "workbench", "targets"),
        [{"label": 1, "token": None, "contrast": None, "weight": 1.0}] * 2,
    ),
    "a target should name a token's id, found -1": (("metadata", "workbench", "targets", 0, "token"), -1),
    "qParams.pinnedIds names node '9_9_9'": (("qParams", "pinnedIds"), ["9_9_9"]),
    "qParams.pinnedIds.0 should be a valid string, found {}": (("qParams", "pinnedIds"), [{}]),
    "supernode 'a' names node 'b'": (("qParams", "supernodes"), [["a", "b"]]),
    "qParams.supernodes.0 should have at least 1 item after validation": (("qParams", "supernodes"), [[]]),
    "qParams.clerps: should be a valid array, found '[1'": (("qParams", "clerps"), "[1"),
    "qParams.clerps: 0.1 should be a valid string, found 1": (("qParams", "clerps"), '[["9", 1]]'),
    "qParams.supernodes should be a list, found '[1'": (("qParams", "supernodes"), "[1"),
    "qParams.pinnedIds names node 'b'": (("qParams", "pinnedIds"), "0_3_1,b"),
    "marks: pins names node 'b'": ((*MARKS, "pins"), ["b"]),
    "marks: labels.0.1 is missing": ((*MARKS, "labels"), [["0_3_1"]]),
    "marks: labels names node 'b'": ((*MARKS, "labels"), [["b", "a"]]),
}


@pytest.mark.parametrize("line", LIES)
def test_a_file_that_lies_is_refused_in_one_line(line):
    path, value = LIES[line]
    with pytest.raises(CorruptError) as refused:
        import_graph(changed(*path, value=value))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def leaves(held, path=()):
    """Every path into a JSON value."""
    yield path
    for key, each in held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ():
        yield from leaves(each, (*path, key))


JUNK = [
    None,
    True,
    -1,
    0,
    3,
    2**60,
    10**400,
    0.5,
    -1e300,
    float("nan"),
    "",
    "0_3_1",
    "\ud800",
    "\x00",
    [],
    [[]],
    {},
    {"": {}},
]


def test_a_damaged_file_is_read_whole_or_refused_in_one_line(tmp_path):
    """Values anywhere in the file are exchanged for junk. A graph that is still read can be stored and exported."""
    whole, rng = export_graph(small_graph(), EDITS), np.random.default_rng(0)
    paths = [path for path in leaves(whole) if path]
    read, lines = 0, []
    for trial in range(600):
        data = copy.deepcopy(whole)
        path = paths[rng.integers(len(paths))]
        held = data
        for step in path[:-1]:
            held = held[step]
        held[path[-1]] = JUNK[rng.integers(len(JUNK))]
        try:
            graph, edits = import_graph(data)
        except CorruptError as refused:
            lines.append(str(refused))
            continue
        read += 1
        one = export_graph(graph, edits)
        assert as_text(export_graph(*import_graph(one))) == as_text(one), path
        if trial % 10 == 0:
            stored = save_artefact(graph, tmp_path / f"graph-{trial}").folder
            assert as_text(export_graph(open_artefact(AttributionGraph, stored), edits)) == as_text(one)
    assert 50 < read < 550
    assert not any("\n" in line for line in lines)


def test_two_nodes_of_one_id_are_refused():
    data = export_graph(small_graph())
    data["nodes"].append(data["nodes"][0])
    with pytest.raises(CorruptError, match="node_id '0_3_1' occurs 2 times"):
        import_graph(data)


def test_a_graph_of_pickled_objects_is_refused_with_the_reason(tmp_path):
    import pickle

    for name, content in (("a.pt", b"PK\x03\x04zip"), ("a.json", b"PK\x03\x04zip"), ("b.json", pickle.dumps({}))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="pickled objects, and reading those can run any code"):
            read_graph_json(tmp_path / name)


def test_a_file_of_100_mb_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large.json"
    with open(path, "wb") as handle:
        handle.truncate(100_000_000)  # sparse: reading it would be 100 MB of zeros
    with pytest.raises(ConfigError, match="has 100,000,000 bytes, a graph JSON at most 64,000,000"):
        read_graph_json(path)
    assert MAX_FILE == 64_000_000


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 200_000, '{"a": 1' + "0" * 5000 + "}", "\x00", '"text"'])
def test_what_is_not_a_graph_json_is_refused(tmp_path, content):
    path = tmp_path / "graph.json"
    path.write_text(content)
    with pytest.raises(CorruptError) as refused:
        import_graph(read_graph_json(path))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingError):
        read_graph_json(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match="is a folder"):
        read_graph_json(tmp_path)
