"""The nulls of the prompt page: what chance gives, where it is known, and prompts that a panel fills by itself."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_live import FakeLive
from make_features import write_features
from page_text import text_of

from dashboard.app import create_app
from dashboard.data import features as feature_view
from dashboard.feature import _prove
from dashboard.live import LiveModel
from dashboard.prompt import _panels
from interp.acts import PriceOf
from interp.nulls import DRAWS, NullComparison
from interp.workspace import Workspace
from saes.acts._reading import OTHERS, at_random_vectors
from saes.acts.features import JudgeSteering, SteeringVerdict
from saes.acts.patching import SuggestPair
from saes.acts.prompt import ReadLayers, ReadPrompt
from saes.acts.run import Run
from saes.features.schema import Features, shares_below
from saes.weights.folder import load_sae

MODEL = "small:mlp-2l"


def test_the_share_of_smaller_activations_is_read_from_the_histogram(tmp_path):
    workspace = Workspace(tmp_path / "ws", create=True)
    rows = [{"feature": 0, "histogram": [10, 30, 60]}, {"feature": 1, "histogram": [0, 0, 0]}]
    write_features(workspace, "f", rows, edges=[1.0, 2.0, 4.0, 8.0])
    fired = [(0, 1.0), (0, 2.0), (0, 2.0 * 2**0.5), (0, 4.0), (0, 9.0), (1, 3.0), (7, 1.0)]
    assert shares_below(workspace.open(Features, "f"), fired) == pytest.approx([0, 0.1, 0.25, 0.4, 1, None, None])


def test_random_vectors_lie_as_far_from_the_mean_as_the_tokens():
    seen = []

    def encode(x):
        seen.append(x)
        return SimpleNamespace(values=torch.tensor([[1.0, 0.0], [2.0, 5.0], [-3.0, -1.0]]))

    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    assert at_random_vectors(SimpleNamespace(encode_sparse=encode), x, 1) == ([1, 2, 0], [1.0, 5.0, 0.0])
    centre = x[1:].mean(0)
    assert (seen[0] - centre).norm(dim=1) == pytest.approx((x[1:] - centre).norm(dim=1).numpy(), rel=1e-4)
    assert abs(torch.nn.functional.cosine_similarity(seen[0] - centre, x[1:] - centre)).max() < 0.9
    assert at_random_vectors(None, x[:2], 1) == ([], [])


def test_the_lens_of_other_positions_leaves_the_own_one_out(tiny, tiny_model):
    from interp.lenses.logit_lens import logit_lens
    from interp.models.adapter import to_tokens

    text = "one two three"
    tokens = to_tokens(tiny_model, text)
    n = tokens.shape[1]
    found = tiny.ask(ReadLayers(text=text, model=MODEL, start=0, stop=n, token="t"))
    at = np.unique(np.linspace(1, n - 1, OTHERS).round().astype(int))
    top = logit_lens(tiny_model, tokens, top=1).top_tokens
    for column in range(n):
        apart = [int(i) for i in at if i != column]
        assert found.others[column] == len(apart)
        for layer, row in enumerate(found.top_elsewhere):
            assert row[column] == sum(top[layer][i][0] == top[layer][column][0] for i in apart)
            ranks = [found.rank[layer][i] for i in apart]
            assert found.rank_elsewhere[layer][column] == np.median(ranks)
    assert tiny.ask(ReadLayers(text="a", model=MODEL, start=0, stop=2)).others == [1, 0]


def beside(value, random, alike):
    """A value beside its two nulls."""
    return NullComparison(value, {"random directions": random, "features of like density": alike})


def test_a_verdict_counts_the_directions_that_raise_their_words_as_much():
    shift = beside(0.7, [0.1] * 39, [0.9] * 39)
    found = SteeringVerdict(3, 0.5, 2.0, ["red"], beside(0.5, [0.1] * 38 + [0.6], [0.1] * 39), shift)
    words, size = found.headline(), *found.details()
    assert found.raised.p == pytest.approx(2 / 40)
    assert "Feature 3 at 0.5 × its maximum (2): its words (red)" in words
    assert "rise by 0.5 nats, more than 38 of 39 random directions and 39 of 39 features" in words
    assert "(p 0.05, the smallest possible is 0.025). Beyond both nulls, on this one prompt." in words
    assert size.endswith("0.7 nats of KL divergence, more than 39 of 39 random directions and 0 of 39 features of like "
                         "density.")  # fmt: skip
    few = SteeringVerdict(3, 0.5, 2.0, ["red"], beside(0.5, [0.1] * 4, []), shift)
    assert few.raised.p == pytest.approx(1 / 5), "four directions can never give a verdict"
    assert "Not beyond random directions, on" in few.headline()
    vague = SteeringVerdict(3, 0.5, 2.0, ["red"], beside(0.5, [0.1] * 39, [0.6] * 39), shift)
    assert "Not beyond features of like density, on" in vague.headline()


def test_steering_by_nothing_is_no_verdict(tiny, tiny_model, tmp_path, monkeypatch):
    sae = load_sae(Workspace(tmp_path).path("sae", "tiny"))
    from interp.interventions.site import DictionarySite

    case = SimpleNamespace(feature=3, alike=(4, 5), max_activation=6.0, words=lambda *_: None)
    monkeypatch.setattr(Run, "feature", lambda *_: (DictionarySite.of(tiny_model, sae), case))
    asked = {"text": "one two", "features": "tiny", "feature": 3}
    nothing = tiny.ask(JudgeSteering(**asked, strength=0.0))
    for found in (nothing.raised, nothing.shift):
        random, alike = found.draws.values()
        assert (len(random), len(alike)) == (DRAWS["standard"], 2)
        assert max(map(abs, [found.value, *random, *alike])) < 1e-6
    assert nothing.raised.p == 1
    price = tiny.ask(PriceOf(act=JudgeSteering(**asked, nulls="quick")))
    assert price.arms == {"unchanged": 1, "the feature": 1, "random directions": 5, "features of like density": 2}
    assert price.total == 9 * price.tokens
    assert price.seconds > 0, "at the pace of the answer before"
    strong = tiny.ask(JudgeSteering(**asked))
    assert strong.amount == 6
    assert min(strong.shift.value, strong.raised.value, *strong.shift.draws["random directions"]) > 1e-4
    back = tiny.ask(JudgeSteering(**asked, strength=-1.0))
    assert back.raised.value > 1e-4, "backwards, the same words fall"
    assert back.words == strong.words


@pytest.mark.real
def test_a_pair_differs_in_one_word_and_has_a_gap(workspace, smollm2, monkeypatch):
    monkeypatch.setattr("interp.models.loading.load_model", lambda spec, **_: smollm2)
    live, text = LiveModel(workspace), "The capital of France is"
    for chat in (False, True):
        found = live.ask(SuggestPair(text=text, model="smollm2-135m", chat=chat))
        changed = [(a, b) for a, b in zip(text.split(), found.corrupt.split(), strict=True) if a != b]
        assert [a for a, _ in changed] == ["France"]
        assert changed[0][1].istitle()
        n = {
            len(live.ask(ReadPrompt(text=each, model="smollm2-135m", chat=chat)).tokens)
            for each in (text, found.corrupt)
        }
        assert len(n) == 1
    assert live.ask(SuggestPair(text=text, model="smollm2-135m")).answer == " Paris"
    long = live.ask(SuggestPair(text="word " * 100, model="smollm2-135m"))
    assert long.corrupt == ""


def test_the_fields_follow_the_prompt_until_somebody_types(workspace):
    run = {"text": "the river", "model": "m", "chat": True, "visitor": "v"}
    example = list(_panels.EXAMPLE.values())
    live = FakeLive()
    app = create_app(workspace, live=live)
    with app.server.test_request_context():
        from dash._callback_context import context_value
        from dash._utils import AttributeDict

        context_value.set(AttributeDict(triggered_inputs=[{"prop_id": "prompt-read.data", "value": run}]))
        closed = _panels.fill_patching(run, None, 0, *example, None)
        assert all(str(each).startswith("<dash") for each in closed), "the model runs only once the panel is open"
        *values, hint, filled = _panels.fill_patching(run, None, 1, *example, None)
        assert values == filled == ["the river", "the revir", *values[2:]]
        assert "one word replaced" in hint
        typed = ["my own", *values[1:]]
        assert all(str(each).startswith("<dash") for each in _panels.fill_patching(run, None, 1, *typed, filled))
        assert _panels.fill_patching(run, None, 1, *values, filled)[0] == "the river"
        context_value.set(AttributeDict(triggered_inputs=[{"prop_id": "prompt-patch-use.n_clicks", "value": 1}]))
        assert _panels.fill_patching(run, 1, 1, *typed, filled)[0] == "the river"


def test_a_patch_and_a_verdict_name_the_chat_template_and_both_nulls(workspace):
    live = FakeLive()
    with create_app(workspace, live=live).server.app_context():
        given = ("one two", "one three", "a", "b", "resid_pre", "denoise", True, "v", "light")
        assert "m, in its chat template" in text_of(_panels.measure_patches(1, "m", *given))
        state = {"features": "demo", "index": 12}
        judge = _prove.answering(JudgeSteering, _prove.verdict_answer, "text", "strength", "nulls")
        text = text_of(judge(1, state, "in July", 0.5, "quick"))
        assert live.calls[-1] == ("steering_verdict", "demo 12 x0.5 quick")
        assert "39 random directions" in text
        assert "39 features of like density" in text


def test_pages_open_on_the_sae_with_most_labels_and_say_so(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    for name, labelled in (("good", 9), ("mine", 5)):  # the newest is the worse one
        rows = [{"feature": n, "label_score": 0.9 if n < labelled else None} for n in range(10)]
        write_features(workspace, name, [*rows, {"feature": 10, "n_fired": 0}], dictionary=f"sae:{name}")
    write_features(
        workspace, "neurons", [{"feature": 0, "label_score": 0.9}], dictionary="neurons:blocks.0.mlp.hook_post"
    )
    assert feature_view.choose(workspace, None) == "good"
    assert feature_view.choose(workspace, "mine") == "mine"
    assert feature_view.why_chosen(workspace).startswith("Opened on good: 90% of its features have a label")
    assert "mine 50%" in feature_view.why_chosen(workspace)
