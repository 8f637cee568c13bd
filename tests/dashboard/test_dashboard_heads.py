"""Heads over a text on pages, in files and in the API: filters, one head, its export and its ablation."""

from dataclasses import replace

import jsonschema
import pytest
import torch
from make_graph import write_graph
from make_workspace import HOSTILE, MODEL, N_HEADS, N_LAYERS
from page_text import text_of
from test_dashboard_export import KNOWN
from test_dashboard_export import Page as Parsed
from visit import HEADERS

from dashboard.data.heads import HeadQuery, choose, mentions, report_of
from dashboard.head import page as head
from dashboard.heads import _browser as heads
from dashboard.sources import PageSources
from interp.artifacts import save_artefact
from interp.circuits.heads_in_text import HeadsInText, HeadsInTextConfig
from interp.circuits.measure_heads import measure_heads
from interp.errors import ConfigError, MismatchError, PromptError, UnknownNameError
from interp.models.loading import load_model
from interp.names import TEXT_HEAD_KINDS, HeadName
from interp.workspace import Workspace
from saes.acts.heads import AblateHead
from saes.acts.run import Run


@pytest.fixture
def found(workspace: Workspace) -> HeadsInText:
    return workspace.open(HeadsInText, MODEL)


def test_heads_are_chosen_by_kind_layer_statistic_and_word(found):
    n = N_LAYERS * N_HEADS
    assert len(choose(found, HeadQuery())) == n
    movers = choose(found, HeadQuery(kind="name_mover"))
    assert {line.head for line in movers} == {
        f"L{at // N_HEADS}H{at % N_HEADS}" for at in range(n) if at % len(TEXT_HEAD_KINDS) == 7
    }
    assert all(line.value == pytest.approx(0.8) and line.null == pytest.approx(0.04) for line in movers)
    assert {line.row.layer for line in choose(found, HeadQuery(layer=1))} == {1}
    assert [line.head for line in choose(found, HeadQuery(text=" WORD5 "))] == [f"L{5 // N_HEADS}H{5 % N_HEADS}"]
    assert [line.head for line in choose(found, HeadQuery(kind="copies"))] == ["L0H1"]
    assert [line.head for line in choose(found, HeadQuery(kind="silent"))] == ["L0H0"]
    assert choose(found, HeadQuery(text="word")) == []
    with pytest.raises(UnknownNameError, match="did you mean 'name_mover'"):
        choose(found, HeadQuery(kind="name_movr"))


def test_the_page_of_a_head_has_its_kinds_words_examples_and_circuits(workspace, live, server):
    said = text_of(head.layout(PageSources(workspace, live), MODEL, "L0H1"))
    assert "attend to the current token: score 0.80, shuffled keys 0.04" in said
    for text in ("word1", "Attends to words", "What attends to the key", "w40", "[here]", "L0H0", "L0H2", "circuits/"):
        assert text in said, text
    assert "attends to nothing else" in text_of(head.layout(PageSources(workspace, live), MODEL, "L0H0"))
    found = {mention.key: mention.text for mention in mentions(workspace, MODEL, HeadName(4, 1))}
    assert found["induction-circuits/induction"] == "tested for the induction circuit: induction head"
    with server.app_context(), pytest.raises(UnknownNameError, match="unknown head"):
        head.layout(PageSources(workspace, live), MODEL, "L99H0")


def test_a_far_key_is_a_segment_of_its_own(found):
    near, _, far = report_of(found, "L0H1").examples
    assert len(near.segments) == 1
    assert [segment.first for segment in far.segments] == [1, 14]
    assert far.segments[0].attention[far.key - 1] == pytest.approx(far.strength, abs=1e-3)


def test_the_maps_and_the_list_are_drawn(server, workspace):
    with server.app_context():
        figure = heads.draw_multiples(MODEL, "light")
        assert len(figure.data) == 2
        names = {name for row in figure.data[0].customdata for name in row}
        assert names == {"", *(f"L{layer}H{at}" for layer in range(N_LAYERS) for at in range(N_HEADS))}
        assert len(figure.data[1].x) == N_LAYERS * N_HEADS
        assert "L0H1" in text_of(heads.list_heads("current_token", "", "", MODEL))
        said = text_of(head.prove(1, {"name": MODEL, "head": "L0H1"}))
    assert "by 0.3000 nats, a random head by 0.0100: more than 19 of 19 random heads (p 0.05)" in said
    assert heads._open({"points": [{"customdata": "L0H1"}]}, MODEL) == f"/head/{MODEL}/L0H1"


def test_its_share_in_the_graphs_of_the_model_leads_to_them(server, tmp_path, monkeypatch):
    workspace, asked = Workspace(tmp_path, create=True), head._loadings

    def loadings(graph: str, version: str) -> object:
        if graph == "empty":
            raise ConfigError("the graph has no edges")
        return asked(graph, version)

    graphs = [write_graph(workspace, name) for name in ("empty", "capital")]
    monkeypatch.setattr(head, "_graphs", lambda *_: graphs)
    monkeypatch.setattr(head, "_loadings", loadings)
    with server.app_context():
        shares = text_of(head.in_graphs(1, {"name": MODEL, "head": "L0H0"}))
    assert ": 25.00%, number 2 of 4 heads" in shares
    assert "/graph/capital" in shares
    assert "the graph has no edges" in shares, "the others are told"


def test_a_head_is_exported_as_one_file_and_as_json_by_its_schema(server, found):
    page = Parsed(head.head_html(found, "L0H1"))
    assert {tag for tag, _ in page.tags} <= KNOWN | {"ul", "table", "thead", "tbody", "tr", "th", "td"}
    assert not {name for _, attrs in page.tags for name in attrs if name.startswith("on")}
    assert not {"src", "href"} & {name for _, attrs in page.tags for name in attrs}
    client = server.test_client()
    answer = client.get(f"/api/head?name={MODEL}&head=L0H1", headers=HEADERS).get_json()
    described = client.get("/api/openapi.json", headers=HEADERS).get_json()
    schema = described["paths"]["/api/head"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, schema | {"components": described["components"]})
    assert answer["format"] == "interp-workbench-head/1"
    assert answer["examples"][0]["key_token"] == HOSTILE[0]
    file = client.get(f"/api/head.html?name={MODEL}&head=L0H1", headers=HEADERS)
    assert "attachment" in file.headers["Content-Disposition"]
    listed = client.get(f"/api/heads?name={MODEL}&kind=name_mover", headers=HEADERS).get_json()
    assert listed[0]["kinds"] == ["name_mover"]


def test_a_head_is_ablated_on_its_examples_beside_random_heads(tmp_path):
    """In the planted circuit the induction head decides what follows a repeat; its sender does so through it."""
    workspace, spec = Workspace(tmp_path, create=True), "planted:induction"
    model = load_model(spec)
    block = torch.randint(1, 8, (8, 1, 6), generator=torch.Generator().manual_seed(0))
    tokens = block.expand(-1, 3, -1).flatten(1)
    documents = torch.arange(8)[:, None].expand(-1, tokens.shape[1])
    result = measure_heads(model, tokens, documents, HeadsInTextConfig())
    save_artefact(result, workspace.path("heads_in_text", "planted"), parents={f"model:{spec}": "0" * 64})
    answer = AblateHead(heads="planted", head="L1H0").measure(Run(workspace))
    assert answer.compared.value > 0.1
    assert len(answer.compared.draws["random heads"]) == 1
    assert "random head by" in answer.headline()
    other = replace(result, settings=replace(result.settings, weight_hash="f" * 64))
    save_artefact(other, workspace.path("heads_in_text", "other"))
    with pytest.raises(MismatchError, match="other weights"):
        AblateHead(heads="other", head="L1H0").measure(Run(workspace))


def test_a_head_without_examples_cannot_be_ablated(workspace):
    with pytest.raises(PromptError, match="attends to BOS alone"):
        AblateHead(heads=MODEL, head="L0H0").price(Run(workspace))
