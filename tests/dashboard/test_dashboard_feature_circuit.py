"""Circuits of features are drawn as any other, and the prompt page says which features an answer rests on."""

from dataclasses import replace

import pytest
from dash import no_update
from make_circuits import induction_circuit
from make_tiny import SPEC
from page_text import text_of

from dashboard.circuit._drawing import content
from dashboard.figures.circuits import circuit_plot
from dashboard.figures.theme import DARK
from dashboard.prompt import _panels as why
from interp.circuits.circuit import Circuit, Edge
from interp.errors import PromptError
from interp.workspace import Workspace
from saes.acts.attribution import AttributeAnswer, AttributeToFeatures
from saes.weights.folder import load_sae

EDGES = (
    Edge("L9resid.12", "L15resid.3", score=0.8),
    Edge("L9resid.700", "L15resid.3", score=-0.2),
    Edge("L9resid.error", "L15resid.3", score=0.1),
    Edge("L15mlp.4", "L15resid.3", score=0.3),
    Edge("L15resid.3", "logits", score=0.9),
    Edge("L15resid.error", "logits", score=0.4),
)


def test_features_stand_in_the_row_of_their_place_and_apart_from_errors():
    found = replace(induction_circuit("m", 24, 4, ["a"]), circuit=Circuit.of("m", "h", EDGES))
    drawn = content(found)
    nodes = drawn["nodes"]
    row = dict(zip(nodes["id"], nodes["layer"], strict=True))
    assert row["L9resid.12"] == row["L9resid.700"] == row["L9resid.error"]
    heights = [row[name] for name in ("L9resid.12", "L15mlp.4", "L15resid.3", "logits")]
    assert heights == sorted(set(heights)), "the input is below"
    assert drawn["rows"] == ["embed", "L9 resid", "L15 mlp", "L15 resid"]
    assert drawn["tokens"] == ["features", "errors"]


def test_a_still_of_features_puts_none_on_top_of_another():
    figure = circuit_plot(Circuit.of("m", "0" * 64, EDGES), DARK)
    [nodes] = figure.data
    assert len(set(zip(nodes.x, nodes.y, strict=True))) == len(nodes.x) == 7
    y = dict(zip(nodes.text, nodes.y, strict=True))
    assert y["L9resid.12"] < y["L15mlp.4"] < y["L15resid.3"] < y["logits"]


def test_the_prompt_page_names_features_behind_an_answer_and_the_error(server, live):
    run, answer = {"text": "one two", "model": "m", "features": "demo"}, {"answer": "Paris", "contrast": ""}
    shown = text_of(why.attribute_to_features(1, run, answer, 2))
    assert live.calls[0] == ("feature_shares", "demo: Paris-")
    for word in (
        "logit(Paris) − mean over the vocabulary",
        "+0.375",
        "effect of the reconstruction error",
        "35 active",
    ):
        assert word in shown
    assert '"href": "/feature/demo/7"' in shown
    assert "positions 0 to 2, got 9" in text_of(why.attribute_to_features(1, run, answer, 9))
    assert why.attribute_to_features(None, run, answer, 2) is no_update
    assert "No dictionary was chosen" in text_of(why.attribute_to_features(1, run | {"features": ""}, answer, 2))


def test_both_attributions_show_one_metric_with_one_name(server, live):
    run, answer = {"text": "one two", "model": "m", "features": "demo"}, {"answer": "Paris", "contrast": "Rome"}
    shown = [why.attribute_to_parts(run, answer, 1, "light"), why.attribute_to_features(1, run, answer, 1)]
    first, second = (panel.children[0].children for panel in shown)
    assert text_of(first) == text_of(second[0])
    baseline, features, error, gap = (float(each.children[0].children.replace("−", "-")) for each in second[1:])
    assert baseline + features + error + gap == pytest.approx(float(first.children[0].children), abs=0.02)


def test_the_live_model_gives_what_attribution_gives(tmp_path, tiny, tiny_model):
    from saes.circuits.attribution import AttributionConfig, attribute
    from saes.circuits.sites import MeasuredPrompts

    sae = load_sae(Workspace(tmp_path).path("sae", "tiny"))
    asked = {"text": "one two", "model": SPEC, "answer": "t", "contrast": "s"}
    found = tiny.ask(AttributeToFeatures(**asked, features="tiny"))
    prompts = MeasuredPrompts.of_text(tiny_model, "one two", "t", "s")
    [expected] = attribute(tiny_model, sae, prompts, AttributionConfig(steps=8, first=1))
    assert found.metric - found.baseline == pytest.approx(expected.total, abs=1e-5)
    shares = tiny.ask(AttributeAnswer(**asked))
    assert found.metric == pytest.approx(shares.total, abs=1e-4)
    assert [(s.feature, s.effect) for s in found.features] == [
        (feature, pytest.approx(effect, abs=1e-6)) for feature, effect in expected.top(16)
    ]
    parts = found.baseline + found.explained + found.error + found.gap
    assert parts == pytest.approx(found.metric, abs=1e-5)
    assert (found.answer, found.contrast, found.hook_point) == ("t", "s", "blocks.0.hook_resid_post")
    with pytest.raises(PromptError, match="positions 0 to"):
        tiny.ask(AttributeToFeatures(**asked | {"contrast": ""}, features="tiny", after=99))
