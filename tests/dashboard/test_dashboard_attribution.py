"""The prompt page says which features an answer depends on, with the error and what is left."""

import pytest
from dash import no_update
from make_tiny import SPEC
from page_text import text_of

from dashboard.prompt import _panels as why
from interp.errors import PromptError
from interp.workspace import Workspace
from saes.acts.attribution import AttributeAnswer, AttributeToFeatures
from saes.weights.folder import load_sae


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
    from saes.attribution.attribution import AttributionConfig, attribute
    from saes.attribution.sites import MeasuredPrompts

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
