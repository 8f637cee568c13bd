"""Pages without a browser: what an address shows, what a wrong one says, and that none of it needs torch."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from dash import html
from make_workspace import HOSTILE
from page_text import text_of

from dashboard.app import create_app, safe_layout
from dashboard.atlas import page as atlas
from dashboard.circuit import page as circuit
from dashboard.components.frame import explain
from dashboard.components.pages import Page, find_pages
from dashboard.components.tokens import MAX_ALPHA, MIN_ALPHA, alpha, token_strip
from dashboard.doctor import page as doctor
from dashboard.dynamics import page as dynamics
from dashboard.feature import page as feature
from dashboard.figures.theme import LIGHT
from dashboard.geometry import page as geometry
from dashboard.heads import page as heads
from dashboard.overview import page as overview
from dashboard.prompt import _panels as prompt_why
from dashboard.prompt import page as prompt
from dashboard.sae import page as sae
from dashboard.sources import PageSources
from interp.errors import PromptError, UnknownNameError, WorkbenchError
from interp.workspace import Workspace
from saes.acts.attribution import AttributeAnswer
from saes.acts.run import Run


@pytest.fixture
def context(workspace, live) -> PageSources:
    return PageSources(workspace, live)


@pytest.mark.parametrize(
    ("layout", "address"),
    [
        (overview.layout, {}),
        (atlas.layout, {}),
        (atlas.layout, {"name": "embeddings", "colour": "density", "q": "the", "point": "3"}),
        (feature.layout, {}),
        (feature.layout, {"features": "neurons", "index": "3", "q": "prose", "d": "-4,-1"}),
        (prompt.layout, {"text": "hello world"}),
        (heads.layout, {"kind": "previous_token", "head": "L3H1"}),
        (prompt.layout, {"text": "a b", "answer": "x", "contrast": "y", "after": "1", "query": "2", "key": "1"}),
        (sae.layout, {"name": "demo", "alone": "1"}),
        (geometry.layout, {"name": "shapes", "list": "digits"}),
        (dynamics.layout, {"name": "grok", "seed": "4"}),
        (circuit.layout, {}),
        (circuit.layout, {"name": "ioi", "n": "70", "paths": "1", "at": "L1H3", "collapse": "1"}),
    ],
)
def test_every_page_answers_and_ignores_what_it_does_not_know(context, layout, address):
    assert text_of(layout(context, **address, unknown="<script>"))


@pytest.mark.parametrize(
    ("layout", "address", "message"),
    [
        (feature.layout, {"features": "demp"}, "did you mean 'demo'"),
        (feature.layout, {"features": "demo", "index": "9999"}, "0 to 239"),
        (feature.layout, {"features": "../demo", "index": "1"}, "not a usable name"),
        (atlas.layout, {"name": "embedings"}, "did you mean 'embeddings'"),
        (atlas.layout, {"name": "embeddings", "colour": "densty"}, "did you mean 'density'"),
        (atlas.layout, {"name": "embeddings", "point": "-3"}, "0 to 399"),
        (atlas.layout, {"name": "embeddings", "selection": "lasso:1,2"}, "x and y of its corners"),
        (atlas.layout, {"name": "embeddings", "filter": "kept:0.5"}, "low and high"),
        (heads.layout, {"name": "smolm2-135m"}, "did you mean 'smollm2-135m'"),
        (heads.layout, {"kind": "inductoin"}, "did you mean 'induction'"),
        (heads.layout, {"head": "L99H0"}, "unknown head"),
        (sae.layout, {"name": "demi"}, "did you mean 'demo'"),
        (heads.layout, {"head": "five"}, "L<layer>H<head>"),
        (circuit.layout, {"name": "inducton"}, "did you mean 'induction'"),
        (circuit.layout, {"name": "induction", "at": "L1H2-k-L4H2"}, "did you mean 'L1H2-k-L4H1'"),
        (circuit.layout, {"name": "induction", "at": "L77H0"}, "unknown node or edge"),
        (circuit.layout, {"name": "induction", "at": "L1H2,head five"}, "unknown node or edge"),
        (geometry.layout, {"list": "weekday"}, "did you mean 'weekdays'"),
        (geometry.layout, {"name": "shape"}, "did you mean 'shapes'"),
        (doctor.layout, {"name": "smolm2-135m"}, "did you mean 'smollm2-135m'"),
    ],
)
def test_a_wrong_name_in_an_address_says_the_nearest_right_one(context, layout, address, message):
    with pytest.raises(WorkbenchError) as caught:
        layout(context, **address)
    assert message in str(caught.value)


def test_an_error_becomes_a_page_with_a_way_back(server):
    with server.app_context():
        page = safe_layout(feature.PAGE)(scheme="dark", features="demp")
    assert "did you mean 'demo'" in text_of(page)
    assert '"href": "/feature"' in text_of(page)


def test_an_unexpected_error_is_shown_too(server):
    def broken(context, **_):
        raise RuntimeError("wires crossed")

    with server.app_context():
        assert "wires crossed" in text_of(safe_layout(Page(title="Broken", path="/", layout=broken))(scheme="light"))


def test_damaged_table_is_one_line_that_names_the_file(small):
    (small.root / "features" / "demo" / "features.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(WorkbenchError, match=r"features\.parquet.*workbench verify"):
        feature.layout(PageSources(small, None), features="demo", index="1")


def test_newer_schema_is_shown_on_the_overview(small):
    path = small.root / "features" / "demo" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    shown = text_of(overview.layout(PageSources(small, None)))
    assert "has schema version 99" in shown


FORMS = {
    "features/demo/manifest.json created": ("/", "created has another form"),
    "features/demo/manifest.json parents": ("/", "parents has another form"),
    "grokking/grok/manifest.json summary.runs": ("/", "summary: runs.0 "),
    "saes/wide.partial/status.json progress": ("/", "Unfinished sae wide"),
    "saes/wide.partial/status.json progress.total": ("/", "Unfinished sae wide"),
    "atlases/demo-features/manifest.json summary.regions_per_level": (
        "/atlas/demo-features",
        "summary: regions_per_level.0 ",
    ),
    "atlases/demo-features/manifest.json summary.quality": ("/atlas/demo-features", "summary: quality "),
    "features/demo/manifest.json summary.n_tokens": (
        "/api/sae_dashboard?features=demo&index=3",
        "n_tokens should be a valid integer",
    ),
    "edge-circuits/ioi/circuit.json edges.0.score": ("/api/circuit?name=ioi", "circuit.json: edges.0.score "),
    "edge-circuits/ioi/circuit.json edges.0.evidence": ("/api/circuit?name=ioi", "circuit.json: edges.0.evidence "),
    "edge-circuits/ioi/circuit.json nodes.0.role": ("/api/circuit?name=ioi", "circuit.json: nodes.0.role "),
}
"""A value that was replaced by a list, and where that is said."""


@pytest.mark.parametrize("damaged", FORMS)
def test_a_value_of_another_form_is_said_in_one_sentence(small, damaged):
    file, keys = damaged.split()
    told = json.loads((small.root / file).read_text())
    *parents, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
    held = told
    for key in parents:
        held = held[key]
    held[last] = [["x"], ["y"]]
    (small.root / file).write_text(json.dumps(told))
    address, expected = FORMS[damaged]
    server = create_app(small).server
    if address.startswith("/api/"):
        answer = server.test_client().get(address, headers={"Host": "127.0.0.1"})
        assert answer.status_code == 500
        shown = answer.get_json()["error"]
    else:
        page = overview.PAGE if address == "/" else atlas.PAGE
        with server.app_context():
            shown = text_of(safe_layout(page)(scheme="light", **({} if address == "/" else {"name": "demo-features"})))
        shown += text_of(overview.artefacts(PageSources(small, None))) if address == "/" else ""
    assert expected in shown
    assert "unexpected" not in shown


def test_an_unexpected_error_of_a_route_of_data_is_json(workspace, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("wires crossed")

    monkeypatch.setattr("dashboard.api.call", broken)
    monkeypatch.setattr("dashboard.maps.columns.about", broken)
    client = create_app(workspace).server.test_client()
    found = client.get("/api/artefacts", headers={"Host": "127.0.0.1"})
    assert found.status_code == 500
    assert "wires crossed" in found.get_json()["error"]
    found = client.get("/atlas-data/demo-features/about.json", headers={"Host": "127.0.0.1"})
    assert found.status_code == 500
    assert "wires crossed" in found.get_json()["error"]


def test_empty_workspace_shows_the_command(tmp_path, live):
    assert "workbench demo --workspace" in text_of(overview.layout(PageSources(Workspace(tmp_path), live)))


def test_dead_feature_says_so(workspace):
    shown = text_of(feature.detail(workspace, "demo", 7, "light"))
    assert "A dead feature" in shown
    assert "Examples" not in shown


def test_labels_stand_side_by_side_with_their_scores_and_nulls(workspace):
    shown = text_of(feature.detail(workspace, "demo", 10, "light"))
    for part in ("names of rivers", "statistics 10", "token statistics", "judge", "0.81", "0.70 to 0.90 [0.52]"):
        assert part in shown
    assert "no label could be read" in text_of(feature.detail(workspace, "demo", 11, "light"))
    assert "wb-labels" not in text_of(feature.detail(workspace, "demo", 12, "light"))


def test_dense_feature_says_so(workspace):
    from dashboard.data.features import ListQuery, listing

    dense = listing(workspace, "demo", ListQuery(sort="density", descending=True)).rows[0]["feature"]
    assert "A dense feature" in text_of(feature.detail(workspace, "demo", dense, "light"))


def test_neurons_have_no_logit_effects_where_there_are_none(workspace):
    assert "does not write to the residual" in text_of(feature.detail(workspace, "neurons", 3, "dark"))


def test_prompt_page_runs_nothing_until_asked(context, live):
    prompt.layout(context)
    prompt.layout(context, text="hello")
    assert live.calls == []


def test_attribution_sums_and_names_what_was_compared(server, live):
    run = {"text": "one two", "model": "m"}
    shown = text_of(prompt_why.attribute_to_parts(run, {"answer": "Paris", "contrast": ""}, 2, "light"))
    assert "logit(Paris) − mean over the vocabulary" in shown
    assert "positions 0 to 2, got 9" in text_of(
        prompt_why.attribute_to_parts(run, {"answer": "", "contrast": ""}, 9, "light")
    )
    assert prompt_why.attribute_to_parts(None, {"answer": "", "contrast": ""}, 2, "light") is None


def test_reasons_follow_the_cell_and_the_head(server, live):
    run, cell = {"text": "one two three", "model": "m"}, {"layer": 3, "head": 1, "query": 2, "key": 1}
    shown = text_of(prompt_why.show_reasons(cell, run, "dark"))
    assert ("reasons", "L3H1 2 1") in live.calls
    assert "L2H3" in shown
    assert "All bars of a colour add up to it" in shown
    assert "looks ahead" in text_of(prompt_why.show_reasons(cell | {"query": 1, "key": 2}, run, "dark"))
    assert prompt_why.show_reasons(None, run, "dark") is None


def test_token_alpha_is_monotone_and_bounded():
    values = [alpha(a, 10.0) for a in (0.0, 0.001, 1.0, 5.0, 10.0, 50.0)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[1] >= MIN_ALPHA
    assert values[-1] == MAX_ALPHA


def test_token_strip_keeps_text_and_marks_the_peak():
    strip = token_strip(["a", "\n", " b", "<i>"], [0.0, 0.0, 2.0, 1.0], maximum=2.0, peak=2)
    silent, peak, weak = strip.children
    assert silent.children == "a↵"
    assert isinstance(peak, html.Mark)
    assert "wb-peak" in peak.className
    assert peak.to_plotly_json()["props"]["aria-label"] == "b, activation 2"
    assert weak.children == "<i>"


def test_no_component_is_given_html(workspace, live):
    parts = [feature.detail(workspace, "demo", i, "light") for i in range(len(HOSTILE))]
    assert all("not scored" in text_of(part) for part in parts)
    found = live.ask(AttributeAnswer(text="x", model="m", answer=HOSTILE[0], contrast=HOSTILE[1]))
    parts.append(prompt_why.part_shares(found, LIGHT))
    shown = text_of(parts)
    assert "dangerously" not in shown
    assert "Markdown" not in shown


def test_shares_say_where_logits_are_capped_and_a_scale_is_held(workspace, monkeypatch):
    from interp.models.toys import planted_post_norm

    reading = SimpleNamespace(
        tokens=torch.tensor([[3, 1, 4, 3]]), result=SimpleNamespace(tokens=["3", "1", "4", "3"]), parts={}
    )
    asked = planted_post_norm(), reading, 3, 1, None
    monkeypatch.setattr(AttributeAnswer, "tokens_at", lambda *_: asked)
    found = AttributeAnswer(text="3 1 4 3", model="m").measure(Run(workspace))
    assert found.note.startswith("The logits are those before the soft cap of 30. Held fixed: the scale of")
    assert found.note in text_of(prompt_why.part_shares(found, LIGHT))


def test_an_error_of_ours_is_its_own_explanation():
    assert explain(PromptError("the prompt is empty; type some text")) == "the prompt is empty; type some text"
    assert "ValueError" in explain(ValueError("x"))
    assert "did you mean" in explain(UnknownNameError("kind", "a1", ["a2"]))


def test_two_apps_in_one_process_keep_their_own_workspace(tmp_path, workspace, live):
    first = create_app(workspace, live=live)
    second = create_app(Workspace(tmp_path), live=live)
    page = safe_layout(overview.PAGE)
    with first.server.app_context():
        assert "Nothing here yet" not in text_of(page(scheme="light"))
    with second.server.app_context():
        assert "Nothing here yet" in text_of(page(scheme="light"))


def test_every_page_has_its_own_title_and_address_and_says_what_it_would_show():
    pages = find_pages()
    assert [each.title for each in pages][:3] == ["Overview", "Features", "Atlas"]
    addresses = [path for each in pages for path in (each.path, *each.templates)]
    assert len(set(addresses)) == len(addresses)
    assert all(path.startswith("/") for path in addresses)
    assert all(each.shows and each.command.startswith("workbench ") for each in pages if each.path != "/")


SHOW_ARTEFACTS = {"Atlas", "Features", "Heads", "Circuit", "Graph", "SAE", "Geometry", "Dynamics", "Changes"}
"""Pages that explain themselves in an empty workspace. Any other page may, or is of use there."""


@pytest.mark.parametrize("which", find_pages(), ids=lambda each: each.title)
def test_an_empty_workspace_is_no_error(tmp_path, live, which):
    app = create_app(Workspace(tmp_path), live=live)
    with app.server.app_context():
        shown = text_of(safe_layout(which)(scheme="light"))
    assert "wb-notice-error" not in shown
    if which.title in SHOW_ARTEFACTS or "Nothing to show yet" in shown:
        assert "Nothing to show yet" in shown
        assert which.shows in shown
        assert f"--workspace {tmp_path}" in shown
    else:
        assert which.title in shown


TORCH_FREE = """
import json, sys
from werkzeug.test import Client
from dashboard.serve import make_server
from dashboard.app import safe_layout
from dashboard.components.pages import find_pages
from interp.workspace import Workspace
server = make_server(Workspace(sys.argv[1]))
with server.app.app_context():
    for each in find_pages():
        page = safe_layout(each)(scheme="light")
        assert "That did not work" not in str(page), page
    from dashboard.atlas import page as atlas
    from dashboard.feature import page as feature
    from dashboard.heads import page as heads
    atlas.show_point(3, {"name": "embeddings", "features": None})
    feature.show_feature({"features": "demo", "index": 12}, "light", None)
    heads.draw_scores("induction", {"name": "smollm2-135m"}, "light")
    from dashboard.circuit import page as circuit
    from dashboard.dynamics import page as dynamics
    from dashboard.geometry import page as geometry
    geometry.show_geometry({"name": "shapes", "list": "weekdays"}, "light")
    dynamics.show_run({"name": "grokking/grok", "seed": 3, "spec": ""}, "light")
    view = {"n": None, "paths": False}
    circuit.draw_circuit(view, "ioi", "light")
    circuit.show_evidence("L1H2-k-L4H1", view, "induction", "light")
    heads.draw_composition("k", "induction", "light")
client = Client(server.app)
assert client.get("/", headers={"Host": "127.0.0.1"}).status_code == 200
print(json.dumps([m for m in ("torch", "transformers", "transformer_lens", "sklearn", "networkx") if m in sys.modules]))
"""


def test_every_page_without_a_prompt_opens_without_torch(workspace):
    done = subprocess.run(
        [sys.executable, "-c", TORCH_FREE, str(workspace.root)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
