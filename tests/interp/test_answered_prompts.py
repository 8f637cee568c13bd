"""Prompts that a model answers, and models that the steps of a pipeline share."""

import pytest

from interp.models.adapter import to_tokens
from interp.models.loading import load_model
from interp.models.sharing import sharing_models
from interp.tracing import prompts
from interp.tracing.prompts import PROMPTS, answered_facts, answered_prompts

SMALL = "small:mlp-2l"


def test_the_likeliest_answer_of_each_kind_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(SMALL)
    chances = model(to_tokens(model, "1, 2, "))[0, -1].softmax(-1).detach()
    worst, middle, best = sorted("abc", key=lambda letter: float(chances[ord(letter)]))
    candidates = {
        "after-one": ("1, 2, ", best, middle),
        "after-two": ("1, 2, ", middle, worst),
        "capital-of-a": ("1, 2, ", middle, worst),
        "opposite-of-b": ("1, 2, ", worst, best),  # the contrast is likelier
        "thanks": ("1, 2, ", best, worst),  # takes no knowledge
        "after-many": ("1, 2, ", "two letters", worst),
    }
    monkeypatch.setattr(prompts, "PROMPTS", candidates)
    assert answered_facts(model, 3) == (), "no letter has a tenth"
    monkeypatch.setattr(prompts, "LEAST", 0.0)
    facts = answered_facts(model, 3)
    assert [answer.name for answer in facts] == ["after-one", "capital-of-a"]
    assert [answer.probability for answer in facts] == pytest.approx([float(chances[ord(t)]) for t in (best, middle)])
    assert [answer.name for answer in answered_facts(model, 1)] == ["after-one"]
    assert {answer.name for answer in answered_prompts(model, candidates)} == {*candidates} - {
        "opposite-of-b",
        "after-many",
    }


def test_a_model_of_bytes_answers_no_prompt_of_the_list() -> None:
    assert answered_prompts(load_model(SMALL), PROMPTS) == []


def test_a_model_is_loaded_once_inside_and_anew_outside() -> None:
    with sharing_models():
        model = load_model(SMALL)
        assert load_model(SMALL, dtype="float32", device="cpu") is model
        assert load_model(SMALL, dtype="bfloat16") is not model
        assert load_model(SMALL, seed=1) is not model
    assert load_model(SMALL) is not model
