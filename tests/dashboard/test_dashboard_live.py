"""The real model behind the prompt page: right numbers, one load, and every wrong request in one line."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from make_lens import identity_lens
from make_workspace import planted

from dashboard.live import LiveModel
from interp.artifacts import save_artefact
from interp.errors import PromptError, UnknownNameError
from interp.models.identity import weight_hash
from saes.acts.attribution import AttributeAnswer, ExplainAttention
from saes.acts.prompt import NextTokens, ReadLayers, ReadPrompt, ShowAttention
from saes.acts.run import MOST_TOKENS

MODEL = "smollm2-135m"
TEXT = "The capital of France is"


@pytest.fixture(scope="module")
def real(workspace, smollm2) -> Iterator[LiveModel]:
    """Loading is replaced by the model that the whole test run shares, and counted."""
    loads: list[str] = []

    def load(spec: str, **_):
        loads.append(spec)
        return smollm2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.models.loading.load_model", load)
        yield LiveModel(workspace)
    assert loads == [MODEL]  # once, whatever was asked


def test_nothing_is_loaded_before_the_first_prompt(workspace):
    assert LiveModel(workspace).state == "cold"


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_empty_prompt_fails_before_anything_is_loaded(workspace, text):
    live = LiveModel(workspace)
    with pytest.raises(PromptError, match="empty"):
        live.ask(ReadPrompt(text=text, model=MODEL))
    assert live.state == "cold"


def test_a_model_that_the_workspace_does_not_name_is_refused(workspace):
    with pytest.raises(UnknownNameError, match="smollm2-135m"):
        LiveModel(workspace).ask(ReadPrompt(text="hello", model="/etc/passwd"))


@pytest.mark.real
def test_the_model_completes_paris_and_the_lens_ends_with_its_prediction(real):
    result = real.ask(ReadPrompt(text=TEXT, model=MODEL))
    assert result.likeliest == " Paris"
    n = len(result.tokens)
    lens = real.ask(ReadLayers(text=TEXT, model=MODEL, start=n - 1, stop=n, token="Paris"))
    following = real.ask(NextTokens(text=TEXT, model=MODEL))
    assert lens.cells[-1][0][0][0] == following.guesses[0][0] == lens.followed == " Paris"
    assert lens.probability[-1][0] == pytest.approx(following.guesses[0][1], abs=1e-4)
    assert lens.rank[-1] == [0]
    assert len(lens.cells) == result.n_layers + 1 == len(result.layers)
    assert result.losses[0] is None
    assert all(loss > 0 for loss in result.losses[1:])


@pytest.mark.real
def test_features_on_a_token_are_the_largest_of_the_dictionary(real, smollm2):
    from interp.models.adapter import run_with_cache, to_tokens

    result = real.ask(ReadPrompt(text=TEXT, model=MODEL, features="neurons"))
    place = "blocks.9.mlp.hook_post"
    _, values = run_with_cache(smollm2, to_tokens(smollm2, TEXT), [place])
    acts = values[place][0, -1].clamp(min=0)
    strongest = acts.topk(10)
    assert [f.feature for f in result.features[-1]] == strongest.indices.tolist()
    assert [f.activation for f in result.features[-1]] == pytest.approx(strongest.values.tolist(), rel=1e-4)
    assert result.features[0] == []  # BOS


@pytest.mark.real
def test_attention_rows_sum_to_one_and_never_look_ahead(real):
    pattern = real.ask(ShowAttention(text=TEXT, model=MODEL, layer=3, head=2))
    assert pattern.weights.shape == (len(pattern.tokens),) * 2
    assert np.allclose(pattern.weights.sum(1), 1, atol=1e-4)
    assert np.allclose(np.triu(pattern.weights, 1), 0)


@pytest.mark.real
def test_shares_sum_to_the_logit_difference_of_the_model(real, smollm2):
    found = real.ask(AttributeAnswer(text=TEXT, model=MODEL, answer="Paris", contrast="Rome"))
    assert (found.answer, found.contrast, found.token) == (" Paris", " Rome", " is")
    assert sum(value for _, value in found.parts) == pytest.approx(found.total, abs=1e-3)
    from interp.models.adapter import run_with_cache, to_tokens

    logits, _ = run_with_cache(smollm2, to_tokens(smollm2, TEXT), [])
    right, wrong = (int(to_tokens(smollm2, word, prepend_bos=False)[0, 0]) for word in (" Paris", " Rome"))
    assert found.total == pytest.approx(float(logits[0, -1, right] - logits[0, -1, wrong]), abs=1e-3)


@pytest.mark.real
def test_an_empty_answer_is_the_likeliest_continuation_there(real):
    assert real.ask(AttributeAnswer(text=TEXT, model=MODEL)).answer == " Paris"
    earlier = real.ask(AttributeAnswer(text=TEXT, model=MODEL, after=3))
    assert (earlier.after, earlier.token) == (3, " of")
    assert earlier.contrast is not None


@pytest.mark.real
@pytest.mark.parametrize(
    ("answer", "after", "says"), [("Constantinople-upon", None, "several tokens"), ("a", 99, "0 to 5")]
)
def test_an_answer_or_a_place_that_cannot_be_says_so(real, answer, after, says):
    with pytest.raises(PromptError, match=says):
        real.ask(AttributeAnswer(text=TEXT, model=MODEL, answer=answer, after=after))


@pytest.mark.real
def test_reasons_sum_to_the_score_and_give_the_attention_of_the_pattern(real):
    found = real.ask(ExplainAttention(text=TEXT, model=MODEL, layer=3, head=2, query=4, key=2))
    pattern = real.ask(ShowAttention(text=TEXT, model=MODEL, layer=3, head=2))
    assert found.matrix.sum() == pytest.approx(found.relative, abs=1e-6)
    assert found.attention == pytest.approx(pattern.weights[4, 2], abs=1e-4)
    assert found.matrix.shape == (len(found.query_parts), len(found.key_parts))


@pytest.mark.real
def test_a_head_that_is_not_there_is_refused(real):
    with pytest.raises(UnknownNameError, match="L29H8"):
        real.ask(ShowAttention(text=TEXT, model=MODEL, layer=30, head=0))


@pytest.mark.real
def test_a_prompt_longer_than_the_page_says_how_long(real):
    with pytest.raises(PromptError, match=f"at most {MOST_TOKENS}"):
        real.ask(ReadPrompt(text="word " * 600, model=MODEL))


@pytest.mark.real
def test_two_visitors_share_one_model(real):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(real.ask(ReadPrompt(text="One two three", model=MODEL))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert found[0] is found[1] is found[2]
    assert real.state == "ready"


@pytest.mark.real
def test_a_tuned_lens_that_changes_nothing_reads_as_the_logit_lens_and_one_of_other_weights_is_left_alone(
    place, smollm2, monkeypatch
):
    monkeypatch.setattr("interp.models.loading.load_model", lambda spec, **_: smollm2)
    planted(place, "recording", "rec", model=MODEL)
    for n, hashed in (8, "00" * 32), (smollm2.cfg.d_model, weight_hash(smollm2)):
        live = LiveModel(place)
        assert live.ask(ReadPrompt(text=TEXT, model=MODEL)).lenses == [("logit", "")]
        with pytest.raises(PromptError, match="no tuned lens"):
            live.ask(ReadLayers(text=TEXT, model=MODEL, start=0, stop=3, lens="tuned"))
        lens = identity_lens(["blocks.3.hook_resid_post"], n, hashed, MODEL)
        save_artefact(lens, place.path("lens", "tuned"), overwrite=True)
    live = LiveModel(place)
    assert {how for how, _ in live.ask(ReadPrompt(text=TEXT, model=MODEL)).lenses} == {"logit", "tuned"}
    plain, tuned = (
        live.ask(ReadLayers(text=TEXT, model=MODEL, start=0, stop=3, lens=how)) for how in ("logit", "tuned")
    )
    assert plain.cells == tuned.cells


@pytest.mark.real
def test_the_chat_template_goes_around_the_text(real):
    plain, chat = (real.ask(ReadPrompt(text="Who are you?", model=MODEL, chat=chat)).tokens for chat in (False, True))
    shown = "".join(chat)
    assert "user\nWho are you?" in shown
    assert shown.rstrip().endswith("assistant")
    assert len(chat) > len(plain)


@pytest.mark.real
def test_pairs_and_attributions_take_the_chat_template(smollm2):
    from interp.circuits.tasks import pair_task
    from interp.models.generation import chat_tokens
    from saes.attribution.sites import MeasuredPrompts

    texts = "Name the capital of France.", "Name the capital of Italy."
    task = pair_task(smollm2, *texts, "Paris", "Rome", check_gap=False, chat=True)
    assert task.clean.tolist() == chat_tokens(smollm2, texts[0]).tolist()
    assert task.corrupt.tolist() == chat_tokens(smollm2, texts[1]).tolist()
    assert MeasuredPrompts.of_text(smollm2, texts[0], "Paris", chat=True).tokens.tolist() == task.clean.tolist()
