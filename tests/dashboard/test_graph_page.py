"""The graph page without a browser: scores beside baselines, columns, edits over HTTP, and names that are no graph."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from fake_live import HOSTILE, FakeLive
from make_features import copied
from make_graph import EDITS, make_graph, write_graph
from page_text import text_of
from visit import ERROR, Visitor

from dashboard.app import create_app
from dashboard.components.pages import artefact_href, graph_href, trace_href
from dashboard.data import features as features
from dashboard.graph import _data
from dashboard.graph import page as tracing
from dashboard.graph._checks import effects, scores
from dashboard.graph.page import answers, header, other_answers, over_words
from dashboard.live import LiveModel
from dashboard.notes.page import thing_href
from dashboard.queue import QueuedRun, RunQueue
from interp.acts import decode
from interp.artifacts import Table, read_json, save_artefact, write_json
from interp.errors import CorruptError, MismatchError, UsageError
from interp.notes import Notes
from interp.tracing._sufficiency import Sufficiency
from interp.tracing.background import direction, influences
from interp.tracing.graph import KIND, AttributionGraph, Flow, GraphNode, LikelyToken, TraceRun
from interp.tracing.interchange import import_graph
from interp.tracing.part import graph_effects, part_of
from interp.tracing.reasons import LOOSE
from interp.tracing.trace import Variants
from interp.workspace import Workspace
from saes.acts.graphs import ChangeLatents, ContinueGraph, ExplainHead, LoadHeads, SplitEdge
from saes.features.neurons import NeuronExample, NeuronLabels, NeuronRow, NeuronSettings
from saes.features.schema import Features
from workbench.commands import Commands

HERE = {"Host": "127.0.0.1:8050"}
MODEL = "smollm2-135m"


@pytest.fixture
def own(capital: Workspace) -> Workspace:
    """Return a copy of the workspace with a graph: edits are written into it."""
    return capital


def get(visitor: Visitor, path: str):
    return visitor.client.get(path, headers=HERE)


def ask_part(visitor: Visitor, **asked: Any):
    return visitor.client.post("/graph-data/capital/part.json", json=asked, headers=HERE)


def edits_of(visitor: Visitor, name: str) -> dict[str, Any]:
    return get(visitor, f"/graph-data/{name}/graph.json").get_json()["edits"]


def test_the_page_opens_on_the_newest_graph_and_its_texts_are_texts(visitor, own):
    for address in ("/graph", "/graph/capital", "/graph/capital?at=token:3:3&pins=nonsense&view=list&nodes=x"):
        page = visitor.open(address)
        assert ERROR not in page
        assert "/graph-data/capital" in page
    assert "dangerously" not in page
    key = "graphs/capital"
    assert artefact_href(own, key) == thing_href(own, key) == graph_href("capital") == "/graph/capital"


def test_columns_are_the_graph(visitor, own):
    found = get(visitor, "/graph-data/capital/graph.json").get_json()
    graph = own.open(AttributionGraph, "capital")
    assert len(found["nodes"]["kind"]) == len(graph.nodes)
    assert found["edges"]["source"] == graph.edges.source.tolist()
    np.testing.assert_allclose(found["edges"]["weight"], graph.edges.weight, rtol=1e-4)
    np.testing.assert_allclose(found["nodes"]["influence"], [node.influence for node in graph.nodes], rtol=1e-4)
    assert found["nodes"]["id"] == [node.id for node in graph.nodes]
    total = np.zeros(len(graph.nodes))
    np.add.at(total, graph.edges.target, np.abs(graph.edges.weight))
    np.testing.assert_allclose(found["nodes"]["input"], total, rtol=1e-4)
    assert found["edge_share"] == 0.98
    tokens = [label for label, kind in zip(found["nodes"]["label"], found["nodes"]["kind"], strict=True) if kind == 2]
    assert tokens == list(graph.token_texts) == found["tokens"]


def test_what_else_could_be_explained_comes_with_its_probability_and_its_node():
    graph = make_graph()
    target = next(n for n, node in enumerate(graph.nodes) if node.kind == "logit")
    explained = graph.targets[graph.nodes[target].index]
    likely = (LikelyToken(text=" the", token=-1, probability=0.19), LikelyToken(text="x", token=explained.token or 0))
    run = TraceRun(frozen=(), active=1, rows=1, residue=0.0, nodes_kept=1, edges_kept=1, candidates=likely)
    traced = replace(graph, run=run)
    assert _data.candidates(traced) == [
        {"text": " the", "probability": 0.19, "node": None},
        {"text": "x", "probability": 0.0, "node": target},
    ]
    assert _data.candidates(graph) == []  # of another program


def test_neurons_are_named_and_what_leads_every_prompt_is_background(visitor, own):
    graph = write_graph(own, "of-neurons", dictionary="neurons", n_features=6)
    numbers = [n for n, node in enumerate(graph.nodes) if node.kind == "feature"]
    confirmed, raising, common, unknown = (graph.nodes[n] for n in numbers[:4])
    influence = influences(graph)[direction(common)]
    rows = [
        neuron(confirmed, label='the word "France" (90 %)', confirmed=True, says=[" Paris"]),
        neuron(raising, label='no label; fires on "x"', says=[" Paris", " Lyon"]),
        neuron(common, label='"The" (99 %)', confirmed=True, background=influence * 0.6),
    ]
    example = NeuronExample(layer=confirmed.layer, neuron=confirmed.index, sign=1, tokens=[" in", " France"],
                            activation=4.0, percent=[10, 100], peak=1)  # fmt: skip
    settings = NeuronSettings(model=graph.model, weight_hash=graph.weight_hash, recording="r", lens="l", window=5,
                              examples=2, prompts=24)  # fmt: skip
    made = NeuronLabels(settings=settings, n_layers=6, d_mlp=4096, n_tokens=100, n_confirmed=2,
                        rows=Table.of(NeuronRow, rows), examples=Table.of(NeuronExample, [example]))  # fmt: skip
    save_artefact(made, own.path("neurons", "words"))
    found = get(visitor, "/graph-data/of-neurons/graph.json").get_json()
    labels = [found["nodes"]["label"][n] for n in numbers[:4]]
    assert labels == ['the word "France"', 'raises " Paris", " Lyon"', '"The"', unknown.label]
    errors = [n for n, node in enumerate(graph.nodes) if node.kind == "error"]
    assert found["background"] == [numbers[2], *errors]
    assert found["shown"]["hidden"] == [graph.nodes[n].id for n in (numbers[2], *errors)]
    pinned = get(visitor, f"/graph-data/of-neurons/graph.json?pins={common.id}").get_json()["shown"]
    assert pinned["hidden"] == [graph.nodes[n].id for n in errors]
    assert get(visitor, "/graph-data/of-neurons/graph.json?background=1").get_json()["shown"]["hidden"] == []
    assert found["prompts"] == 24
    about = get(visitor, f"/graph-data/of-neurons/node.json?n={numbers[0]}").get_json()
    assert (about["href"], about["table"], about["says"]) == (None, "words", [" Paris"])
    assert about["examples"] == [{"tokens": [" in", " France"], "activations": [0.4, 4.0], "peak": 1}]
    assert get(visitor, f"/graph-data/of-neurons/node.json?n={numbers[3]}").get_json()["examples"] == []


def neuron(node: GraphNode, *, label: str, **about: Any) -> NeuronRow:
    plain: dict[str, Any] = {"confirmed": False, "score": None, "null_high": None, "background": 0.0, "says": []}
    return NeuronRow(layer=node.layer, neuron=node.index, sign=1, maximum=4.0, label=label, **plain | about)


def test_every_score_has_its_baselines_beside_it_or_says_that_they_were_not_measured():
    graph = make_graph()
    whole = " ".join(map(text_of, scores(graph)))
    assert "no latent 0.22, untrained 0.31, perfect 1" in whole
    assert "no latent 0.40, untrained 0.52, perfect 1" in whole
    bare = " ".join(map(text_of, scores(replace(graph, floor=None, untrained=None))))
    assert "not measured: no latent, untrained" in bare
    assert "No score was computed" in text_of(scores(replace(graph, scores=None))[0])
    said = " ".join(map(text_of, effects(graph)))
    assert (
        "no agreement 0, 95 % of random orders within ±0.29, along the edges 0.55, by direct effects alone 0.40" in said
    )
    assert "the slope is 0.42" in said
    assert "interval 0.52 to 0.83" in said
    assert "48 latents were ablated in one run" in said
    assert "Not measured" in text_of(effects(replace(graph, effects=None))[0])


def test_the_header_names_the_target_with_its_probability_and_folds_the_scores():
    graph = make_graph()
    said = text_of(header(graph))
    assert all(
        part in said for part in ("“Paris” 62.0%", "matches real ablations (0.71; by chance up to 0.29)", "20.0%")
    )
    assert "likeliest content word" not in said
    pair = replace(graph.targets[0], label=" Paris -  Rome", contrast=7)
    assert "“Paris” 62.0% rather than “Rome”" in text_of(header(replace(graph, targets=(pair, *graph.targets[1:]))))
    assert "likeliest content word" in text_of(header(replace(graph, targets=(pair,)))), "no target was named"
    named = replace(graph, settings=replace(graph.settings, target=" Paris"))
    assert "“Paris” 62.0%" in text_of(header(named))
    whole = named.with_parts(nodes=[replace(each, probability=1.0) for each in named.nodes])
    assert "“Paris”" in text_of(header(whole))
    assert "“Paris” 100.0%" not in text_of(header(whole)), "the weight of a named target is no probability"
    assert "Not checked" in text_of(header(replace(graph, effects=None)))
    assert "alone keeps" not in said, "not measured"
    held = Sufficiency(whole=5, empty=0.5, alone=3, alone_random=(1, 2), n_outside=9, worst=-1, worst_random=(2, 4),
                       n_helpers=4, n_random=5)  # fmt: skip
    said = text_of(header(replace(graph, sufficiency=held)))
    assert "alone keeps 3.00 of 5.00 logits (as many random latents 1.00 to 2.00, none 0.50)" in said
    assert "without the 4 of 9 other latents that help: -1.00 (without as many random others 2.00 to 4.00)" in said


@pytest.mark.parametrize("running", [True, False])
def test_a_first_picture_says_that_it_is_not_tested_and_shows_the_run_that_goes_on(own, monkeypatch, running):
    first = save_artefact(replace(make_graph(), scores=None, effects=None), own.path(KIND, "first"))
    run = QueuedRun(id="0001-trace", verb="trace", options={"name": "first"}, state="running", command="")
    queue = RunQueue(own, Commands(own))
    monkeypatch.setattr(queue, "active", lambda: [run] if running else [])
    with create_app(own, live=FakeLive(), runs=queue).server.app_context():
        said = text_of(header(first))
        assert "Not tested yet" not in text_of(header(own.open(AttributionGraph, "capital")))
    assert "Not tested yet" in said
    assert "the same command continues it" in said
    assert ("wb-run-running" in said) == running


def test_other_likely_words_lead_to_the_form_that_traces_them(own):
    graph = own.open(AttributionGraph, "capital")
    likely = [LikelyToken(text=text, token=-1, probability=0.19) for text in (" the", "ing", "\n", " <b>")]
    run = TraceRun(frozen=(), active=1, rows=1, residue=0.0, nodes_kept=1, edges_kept=1, candidates=tuple(likely))
    save_artefact(replace(graph, run=run, targets=graph.targets[:1]), own.path(KIND, "one"))
    [shown] = other_answers(own.open(AttributionGraph, "one"))
    links = {part.children: part.href for part in shown.children[1:]}
    assert [*links] == ["the 19 %", "<b> 19 %"], "the form would put a space before an ending"
    query = parse_qs(urlsplit(links["the 19 %"]).query)
    assert (query["target"], query["contrast"]) == (["the"], ["Paris"])
    assert other_answers(graph) == [], "not known of a graph of another program"


def test_one_of_several_answers_is_explained_alone(own):
    graph = own.open(AttributionGraph, "capital")
    links = [(part.children, part.href) for part in answers(graph, "1")]
    assert [href for _, href in links] == ["?target=0", "?target=", "?target=2"]
    assert links[1][0].startswith("“Lyon”")


def test_flows_over_the_words_of_a_template_stand_beside_what_chance_gives(own):
    flows = {("token 'of' (3)", "target"): np.array([0.3, 0.31, 0.29]), ("<b>", "target"): np.array([0.4, -0.4, 0.1])}
    graph = own.open(AttributionGraph, "capital")
    found = Variants("The {}", ("a", "b", "c"), flows)
    settings = replace(graph.settings, words=dict.fromkeys(found.words, " x"))
    traced = replace(graph, settings=settings, flows=Table.of(Flow, found.rows()))
    [shown] = over_words(save_artefact(traced, own.path(KIND, "words")))
    text = text_of(shown)
    assert "with 3 words" in text
    assert "1 of 2 flows differ from 0, 0 would by chance" in text
    assert "token 'of' (3)" in text
    assert "<b>" not in text, "its interval holds 0"
    assert over_words(graph) == []


def test_a_latent_leads_to_the_features_table_of_its_layer(own):
    children = {"transcoders/set": "00" * 32}
    copied(own, "demo", "set-3", parents=children, dictionary="transcoders:set:3", hook_point="blocks.3.mlp.hook_in")
    graph = _data.choose(own, "capital")
    assert _data.feature_tables(own, graph) == {3: "set-3"}
    layers = {3: "/feature/set-3/", 2: None}
    for layer, expected in layers.items():
        number = next(i for i, node in enumerate(graph.nodes) if node.kind == "feature" and node.layer == layer)
        node = graph.nodes[number]
        assert _data.describe(own, graph, number).href == (expected and f"{expected}{node.index}")
    assert _data.describe(own, graph, 0).href is None  # a token


def test_a_feature_leads_to_the_graphs_whose_pruned_part_holds_it(own):
    nodes = [node for node in _data.choose(own, "capital").nodes if node.kind == "feature"]
    kept = next(node for node in nodes if node.kept)
    name = f"set-{kept.layer}"
    hook_point = f"blocks.{kept.layer}.mlp.hook_in"
    copied(own, "demo", name, dictionary=f"transcoders:set:{kept.layer}", hook_point=hook_point)
    assert features.uses(own, own.open(Features, name), kept.index).graphs == [("capital", kept.id)]
    assert features.uses(own, own.open(Features, "demo"), kept.index).graphs == []
    absent = next(i for i in range(5000) if i not in {node.index for node in nodes})
    assert features.uses(own, own.open(Features, name), absent).graphs == []
    dropped = next(node for node in nodes if not node.kept and node.layer == kept.layer)
    assert features.uses(own, own.open(Features, name), dropped.index).graphs == []


def test_labels_of_a_table_fill_in_those_that_the_graph_lacks(own):
    copied(own, "demo", "neurons-2", dictionary="neurons:blocks.2.mlp.hook_post")
    write_graph(own, "neurons", dictionary="neurons", n_features=400, n_layers=6)
    graph = _data.choose(own, "neurons")
    found = _data.content(own, graph)
    known = features.labels(own, "neurons-2", list(range(200)))
    bare = [
        i for i, node in enumerate(graph.nodes)
        if node.kind == "feature" and not node.label and node.layer == 2 and known.get(node.index)
    ]  # fmt: skip
    assert bare
    assert [found["nodes"]["label"][i] for i in bare] == [known[graph.nodes[i].index] for i in bare]


def test_edits_are_saved_among_the_notes_and_a_conflict_keeps_both(visitor, own):
    path = "/graph-data/capital/edits.json"
    assert edits_of(visitor, "capital") == {}
    assert visitor.client.post(path, json={"edits": EDITS, "was": {}}, headers=HERE).get_json() == {"edits": EDITS}
    assert Notes.open(own).graph_edits("graphs/capital") == edits_of(visitor, "capital") == EDITS
    answer = visitor.client.post(path, json={"edits": {"pins": ["token:4:4"]}, "was": {}}, headers=HERE)
    assert answer.status_code == 409
    assert json.loads(answer.get_json()["theirs"]) == EDITS
    assert ERROR not in visitor.open("/notes")


def test_the_part_that_is_shown_comes_from_the_server(visitor, own):
    graph = own.open(AttributionGraph, "capital")
    logit, dropped = (
        next(node.id for node in graph.nodes if node.kind == kind and node.kept == kept)
        for kind, kept in (("logit", True), ("feature", False))
    )
    most = len(graph.nodes)
    found = ask_part(visitor, nodes=20, edges=0.98).get_json()
    assert found["nodes"] == np.flatnonzero(part_of(graph, most=20, edges=0.98).nodes).tolist()
    np.testing.assert_allclose(found["effects"], graph_effects(graph), rtol=1e-4)
    pinned = ask_part(visitor, nodes=0, edges=0.98, pins=[dropped, "feature:9:9:9"]).get_json()
    assert [graph.nodes[i].kind for i in pinned["nodes"]].count("feature") == 1
    assert graph.number[dropped] in pinned["nodes"]
    number = graph.number[logit]
    expected = part_of(graph, most=30, edges=0.9, target=number, hidden={graph.number[dropped]})
    alone = ask_part(visitor, nodes=30, edges=0.9, target=logit, hidden=[dropped]).get_json()
    assert alone["nodes"] == np.flatnonzero(expected.nodes).tolist()
    assert alone["edges"] == np.flatnonzero(expected.edges).tolist()
    assert len(ask_part(visitor, nodes=most, edges=1).get_json()["nodes"]) == most


def test_the_part_that_an_address_shows_comes_with_the_graph(visitor, own):
    graph = own.open(AttributionGraph, "capital")
    latents = [node.id for node in graph.nodes if node.kind == "feature"]
    target = next(node for node in graph.nodes if node.kind == "logit")
    stored = {"pins": latents[:1]}
    visitor.client.post("/graph-data/capital/edits.json", json={"edits": stored, "was": {}}, headers=HERE)
    opened = get(visitor, "/graph-data/capital/graph.json").get_json()
    shown = {"nodes": 60, "edges": 0.98, "target": None, "hidden": [], **stored}
    assert (opened["shown"], opened["opening"]) == (shown, 60)
    assert opened["part"] == ask_part(visitor, **shown).get_json()
    address = f"?nodes=20&edges=0.5&target={target.index}&pins={latents[4]},feature:9:9:9"
    other = get(visitor, f"/graph-data/capital/graph.json{address}").get_json()
    asked = {"nodes": 20, "edges": 0.5, "target": target.id, "pins": latents[4:5], "hidden": []}
    assert other["shown"] == asked
    assert other["part"] == ask_part(visitor, **asked).get_json() != opened["part"]
    for wrong in ("?nodes=x&edges=2", "?nodes=-1&edges=nan&target=99"):
        assert get(visitor, f"/graph-data/capital/graph.json{wrong}").get_json()["shown"] == shown


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"nodes": 60, "edges": 2}, 400, "edges should be less than or equal to 1"),
        ({"nodes": 1, "edges": 1, "target": "token:1:1"}, 400, "starts with logit"),
        ({"nodes": 1, "edges": 1, "target": "logit:99:99"}, 404, "node"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_is_refused_with_a_sentence(visitor, asked, status, says):
    answer = ask_part(visitor, **asked)
    assert answer.status_code == status
    assert says in answer.get_json()["error"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/graph-data/capitol/graph.json", 404, "did you mean 'capital'"),
        ("/graph-data/..%2Fx/graph.json", 404, ""),
        ("/graph-data/capital/node.json", 400, "number of a node"),
        ("/graph-data/capital/node.json?n=-1", 400, "number of a node"),
        ("/graph-data/capital/node.json?n=99999", 404, "nodes"),
        ("/graph-data/capital/else.json", 404, ""),
    ],
)
def test_what_is_not_there_is_said(visitor, path, status, says):
    answer = get(visitor, path)
    assert answer.status_code == status
    assert says in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "change", [{"n_layers": None}, {"token_texts": [{"x": 1}]}, {"scores": ["a"]}], ids=["none", "object", "text"]
)
def test_a_damaged_graph_is_one_sentence(own, change):
    path = own.path(KIND, "capital") / "manifest.json"
    held = read_json(path)
    held["summary"] |= change
    write_json(path, held)
    with pytest.raises(CorruptError, match=f"summary: {next(iter(change))}"):
        _data.choose(own, "capital")
    page = Visitor(create_app(own, live=FakeLive())).open("/graph/capital")
    assert ERROR in page
    assert f"summary: {next(iter(change))}" in page


def test_numbers_that_are_not_finite_are_refused(own):
    found = _data.choose(own, "capital")
    first, *others = found.nodes
    spoilt = found.with_parts(nodes=[replace(first, activation=np.nan), *others])
    with pytest.raises(CorruptError, match="not finite"):
        _data.content(own, spoilt)


def test_without_a_graph_the_page_says_what_one_is_and_the_command(workspace):
    page = Visitor(create_app(workspace, live=FakeLive())).open("/graph")
    assert ERROR not in page
    assert re.search(r"workbench trace smollm2-135m --prompt", page)
    assert "attribution graph" in page


@pytest.fixture
def queue(own: Workspace) -> RunQueue:
    """A queue that nothing works on."""
    return RunQueue(own, Commands(own))


@pytest.fixture
def waiting(own: Workspace) -> Iterator[RunQueue]:
    """A queue whose runs last longer than the test."""
    queue = RunQueue(own, Commands(own), program=(sys.executable, "-c", "import time; time.sleep(60)"), grace=1)
    yield queue.start()
    queue.stop()


def test_an_address_with_a_prompt_traces_it_at_once_and_shows_no_other_graph(own, waiting):
    visitor = Visitor(create_app(own, live=FakeLive(), runs=waiting))
    address = f"/graph?trace=The+moon+is&model={MODEL}&target=round"
    for _ in range(2):  # a reload finds the run that is there
        page = visitor.open(address)
        assert "The moon is" in page
        assert "wb-run-state" in page
        assert "/graph-data/" not in page
    [run] = waiting.active()
    wanted = {"model": MODEL, "prompt": "The moon is", "target": " round", "name": "The-moon-is"}
    assert (run.verb, run.options) == ("trace", wanted | tracing.SIZES["usual"])
    graph = own.open(AttributionGraph, "capital")
    asked = replace(graph.settings, model=MODEL, dictionary="neurons", target=" round", contrast=None)
    save_artefact(replace(graph, prompt="The moon is", settings=asked), own.path(KIND, "The-moon-is"))
    assert "/graph-data/The-moon-is" in visitor.open(address), "it was traced"
    assert len(waiting.active()) == 1
    page = Visitor(create_app(own, live=FakeLive())).open("/graph?trace=A+star+is")
    assert "runs no analyses" in page
    assert "/graph-data/" not in page


def test_the_form_shows_three_fields(own, queue):
    visitor = Visitor(create_app(own, live=FakeLive(), runs=queue))
    page = visitor.open("/graph/capital")
    shown, folded = page.split("more", 1)[0], page.split("more", 1)[1]
    assert all(f"graph-trace-{name}" in shown for name in ("prompt", "target", "size"))
    assert all(f"graph-trace-{name}" in folded for name in ("contrast", "model", "set", "chat"))
    assert "graph-trace" not in Visitor(create_app(own, live=FakeLive())).open("/graph"), "nothing runs here"


def test_the_fields_of_the_form_are_options_that_the_verb_takes(own, queue):
    values = {"prompt": " The capital of France is", "target": "Paris", "contrast": " Rome", "model": MODEL}
    found = tracing.asked(own, values | {"size": "full"})
    assert found == {"model": MODEL, "prompt": "The capital of France is", "target": " Paris", "contrast": " Rome",
                     "name": "The-capital-of-France-is"}  # fmt: skip
    for size in tracing.SIZES:
        command = queue.catalogue.command("trace", tracing.asked(own, values | {"size": size}))
        assert f"trace {MODEL} --prompt" in command
    assert tracing.asked(own, values | {"target": "."})["target"] == "."
    assert tracing.asked(own, values | {"target": "Paris", "chat": True})["target"] == "Paris"
    assert tracing.asked(own, {"prompt": "capital", "model": MODEL})["name"] == "capital-2"  # there is one
    assert tracing.asked(own, {"prompt": "¿?", "model": MODEL})["name"] == "prompt"
    assert trace_href("The moon is", model="tiny", chat=None) == "/graph?trace=The+moon+is&model=tiny"


def test_the_exported_graph_reads_back_with_the_edits(visitor, own):
    get(visitor, "/graph")
    former = "feature:1:1:999999"  # the graph was traced again since
    gone = {"pins": [*EDITS["pins"], former], "groups": [*EDITS["groups"], ["former", [former]]]}
    visitor.client.post("/graph-data/capital/edits.json", json={"edits": EDITS | gone, "was": {}}, headers=HERE)
    graph, marks = import_graph(get(visitor, "/graph-data/capital/export.json").get_json())
    assert marks.to_notes() == EDITS
    kept = {node.id for node in own.open(AttributionGraph, "capital").nodes if node.kept}
    assert kept <= set(graph.number)


@pytest.mark.parametrize("factors", [{}, dict.fromkeys(map(str, range(301)), 0)])
def test_interventions_on_no_latent_and_on_too_many_are_refused(visitor, factors):
    get(visitor, "/graph")
    for what, more in (("change_latents", {"mode": "free"}), ("continue_graph", {})):
        answer = visitor.client.post(
            f"/api/act/{what}", json={"graph": "capital", "factors": factors} | more, headers=HERE
        )
        assert answer.status_code == 400
        assert answer.get_json()["error"].startswith(f"{what}: factors")


def test_an_intervention_of_the_page_is_answered_as_it_was_measured(visitor, own):
    latent = next(node.id for node in own.open(AttributionGraph, "capital").nodes if node.kind == "feature")
    get(visitor, "/graph")
    asked = {"graph": "capital", "factors": {latent: 0.0}, "visitor": "v"}
    found = visitor.client.post("/api/act/change_latents", json=asked | {"mode": "direct"}, headers=HERE).get_json()
    assert (found["mode"], found["measured"], found["tokens"][0]["token"]) == ("direct", -1.25, HOSTILE[0])
    found = visitor.client.post("/api/act/continue_graph", json=asked, headers=HERE).get_json()
    assert (found["changed"], found["random"]) == (f" {HOSTILE[1]}", [f" {HOSTILE[2]}"])


@pytest.fixture(scope="module")
def traced(tmp_path_factory, tiny_model) -> Workspace:
    """A workspace with the graph of a prompt in a small random model, with neurons as latents."""
    from interp.tracing.graph import TraceConfig
    from interp.tracing.replacement import Neurons
    from interp.tracing.trace import trace

    workspace = Workspace(tmp_path_factory.mktemp("traced") / "workspace", create=True)
    config = TraceConfig(max_feature_nodes=60, max_neurons=200, max_logits=2, effects=0, nulls=False)
    save_artefact(trace(tiny_model, "hello", Neurons(200), config), workspace.path(KIND, "tiny"))
    return workspace


def test_a_direct_intervention_in_the_live_model_is_the_edge_to_the_target(traced):
    live = LiveModel(traced)
    graph = traced.open(AttributionGraph, "tiny")
    aim = next(node.id for node in graph.nodes if node.kind == "logit" and node.index == 0)
    row = next(row for row in graph.edges_into(aim) if row["node"].startswith("feature"))
    found = live.ask(ChangeLatents(graph="tiny", factors={row["node"]: 0.0}, mode="direct"))
    assert found.measured == pytest.approx(-row["weight"], rel=1e-3)
    twice = live.ask(ChangeLatents(graph="tiny", factors={row["node"]: 2.0}, mode="direct"))
    assert twice.measured == pytest.approx(row["weight"], rel=1e-3)
    assert found.random_low <= found.random_high
    same = live.ask(ChangeLatents(graph="tiny", factors={row["node"]: 1.0}))
    assert same.measured == pytest.approx(0, abs=1e-5)
    usual: dict[str, Any] = {"graph": "tiny", "factors": {row["node"]: 0.0}, "mode": "free"}
    wrong_factors = [{"feature:0:1:99999": 0.0}, {aim: 0.0}, {row["node"]: float("nan")}]
    for wrong in ({"mode": "range"}, *({"factors": each} for each in wrong_factors)):
        with pytest.raises(UsageError):
            live.ask(ChangeLatents(**usual | wrong))
    for wrong in ({"mode": "range"}, {"factors": {row["node"]: float("nan")}}, {"factors": {row["node"]: 101}}):
        with pytest.raises(UsageError, match=f"change_latents: {next(iter(wrong))}"):
            decode(ChangeLatents, usual | wrong)


def test_several_changes_at_once_add_up_and_those_of_factor_one_write_the_same_text(traced):
    live = LiveModel(traced)
    graph = traced.open(AttributionGraph, "tiny")
    aim = next(node.id for node in graph.nodes if node.kind == "logit" and node.index == 0)
    one, two = [row for row in graph.edges_into(aim) if row["node"].startswith("feature")][:2]
    found = live.ask(ChangeLatents(graph="tiny", factors={one["node"]: 0.0, two["node"]: 1.5}, mode="direct"))
    assert found.measured == pytest.approx(0.5 * two["weight"] - one["weight"], rel=1e-3)
    assert len(found.changes) == 2
    text = live.ask(ContinueGraph(graph="tiny", factors={one["node"]: 1.0}))
    assert text.clean == text.changed
    far = {one["node"]: 100.0, two["node"]: -100.0}
    assert text.clean != live.ask(ContinueGraph(graph="tiny", factors=far)).changed
    with pytest.raises(UsageError):
        live.ask(ContinueGraph(graph="tiny", factors={aim: 0.0}))


def test_the_split_of_an_edge_by_heads_sums_to_the_stored_edge(traced):
    live, graph = LiveModel(traced), traced.open(AttributionGraph, "tiny")
    position = {node.id: node.position for node in graph.nodes}
    rows = [row for row in graph.edge_records() if position[row["source"]] != position[row["target"]]]
    found = live.ask(SplitEdge(graph="tiny", source=rows[0]["source"], target=rows[0]["target"]))
    assert found.heads.sum() == pytest.approx(rows[0]["weight"], rel=1e-3, abs=1e-6)
    query, key = position[rows[0]["target"]], position[rows[0]["source"]]
    why = live.ask(ExplainHead(graph="tiny", layer=0, head=1, query=query, key=key))
    assert sum(share.value for share in why.key_side) == pytest.approx(why.relative_score, rel=1e-4, abs=1e-5)
    loads = live.ask(LoadHeads(graph="tiny"))
    assert np.abs(loads.shares).max() > 0
    assert {row["key_node"] for row in why.to_records()} <= {
        *graph.number,
        *LOOSE,
        *(f"other:{at}" for at in range(len(graph.tokens))),
    }
    with pytest.raises(UsageError):
        live.ask(SplitEdge(graph="tiny", source="token:0:99999", target=rows[0]["target"]))


def test_an_intervention_is_refused_in_other_weights(traced, tmp_path):
    shutil.copytree(traced.root, tmp_path / "other")
    other = Workspace(tmp_path / "other")
    graph = other.open(AttributionGraph, "tiny")
    node = next(node.id for node in graph.nodes if node.kind == "feature")
    settings = replace(graph.settings, weight_hash="00" * 32)
    save_artefact(replace(graph, settings=settings), other.path(KIND, "tiny"), overwrite=True)
    live = LiveModel(other)
    with pytest.raises(MismatchError, match="load the model that it belongs to"):
        live.ask(ChangeLatents(graph="tiny", factors={node: 0.0}))
