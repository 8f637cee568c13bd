"""Directions judged by what the model writes: a rule that samples keep, and somebody who reads them."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_directions import PAIRS, POINT, QUICK, REPLIES, STARTS, TEXT, D, planted_model, shuffled_replies, small

from interp.directions.choosing import Candidate, choose_steering
from interp.directions.config import DirectionConfig
from interp.directions.examples import ContrastPair, examples_of_trait
from interp.directions.making import make_direction
from interp.directions.questions import neutral_text
from interp.directions.samples import SAMPLE_TOKENS, Judge, continuations_of, sampled_questions
from interp.errors import ConfigError, MissingError, PromptError
from interp.interventions.apply import intervened
from interp.interventions.arms import Arms, random_directions
from interp.interventions.intervention import Direction, Intervention, everywhere
from interp.models.adapter import to_tokens

RULE = DirectionConfig(strengths=(0.5, 1.0, 4.0), n_random=5, n_judging=19, rule="[a-z]{6}", harmless=9.0)


@pytest.fixture(scope="module")
def planted():
    return planted_model()


def along(vector: np.ndarray, unit: float = 3.0, start: float = 0.0) -> Candidate:
    return Candidate(POINT, vector / np.linalg.norm(vector), unit, start)


def test_a_planted_direction_is_chosen_by_the_share_of_samples(planted):
    found = make_direction(planted, REPLIES, RULE)
    choice = found.choice
    assert choice.works
    assert choice.judged.effect.estimate > 0.3
    assert "share of samples in which /[a-z]{6}/ is found" in str(choice)
    assert "of the samples" in str(choice)
    assert (choice.effect >= choice.random_effect.mean(2)).all()
    costly = make_direction(planted, REPLIES, replace(RULE, harmless=-1.0)).choice
    assert np.isnan(costly.effect).all()  # nothing is written where it could not be chosen
    assert costly.chosen is None
    assert "no layer and strength was chosen" in str(costly)


@pytest.mark.parametrize("seed", range(3))
def test_in_an_untrained_model_no_direction_changes_what_it_writes(seed):
    assert not make_direction(small(seed), shuffled_replies(seed), RULE).choice.works


def test_a_cell_that_changes_nothing_changes_no_sample(planted):
    asked = sampled_questions(planted, STARTS, "[a-z]{3}", n_each=3)
    nothing = along(np.ones(D)).arms("add", [0.0] * 50)  # more than fit one batch
    assert (asked.effects(planted, nothing) == 0).all()
    [plain], arms = asked.texts(planted, None), asked.texts(planted, nothing)
    assert all(arm == plain for arm in arms)
    assert len(set(plain)) > len(plain) / 2  # of a prompt, too
    assert asked.half(0).prompts == STARTS[::2]


@pytest.mark.parametrize("action", ["add", "set", "ablate"])
def test_continuations_are_those_of_a_plain_loop(action):
    model = small(1)
    vectors = random_directions(D, 3, 0)
    amounts = {"add": [4.0, -2.0, 0.5], "set": [5.0, 0.0, -5.0], "ablate": [0.0] * 3}[action]
    arms = Arms(POINT, torch.from_numpy(vectors).float(), torch.tensor(amounts), action)
    prompts = [to_tokens(model, each)[0] for each in ("One day", "It was", "No")]
    found = continuations_of(model, prompts, arms)
    for vector, amount, cell in zip(vectors, amounts, found, strict=True):
        step = Intervention(
            target=Direction(hook_point=POINT, vector=vector, origin="drawn"), action=action, amount=amount
        )
        for prompt, new in zip(prompts, cell, strict=True):
            tokens = prompt[None]
            with torch.no_grad(), intervened(model, everywhere(step, 2)):
                for _ in range(SAMPLE_TOKENS):
                    tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], 1)
            assert new.tolist() == tokens[0, len(prompt) :].tolist()


def test_samples_have_the_probabilities_of_the_model(planted):
    """The first byte of 512 samples of one prompt against the model's own distribution."""
    asked = sampled_questions(planted, ["ab"], n_each=512, seed=4)
    [texts] = asked.texts(planted, None)
    with torch.no_grad():
        p = planted(to_tokens(planted, "ab"))[0, -1].softmax(-1)
    expected = float(p[list(b"abcdefghijklmnopqrstuvwxyz")].sum())
    share = np.mean([bool(re.match("[a-z]", each)) for each in texts])
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 512))


def test_a_judge_sees_prompt_and_text_alone_and_its_answers_are_counted(planted):
    seen: list[tuple[str, str]] = []
    told: list[tuple] = []

    def answers(samples, answered):
        seen.extend(samples)
        answered()
        return [None if i % 3 == 0 else bool(re.search("[a-z]{6}", text)) for i, (_, text) in enumerate(samples)]

    judge = Judge("Are there small letters?", "a regular expression", answers)
    config = DirectionConfig(strengths=(4.0,), n_random=3, n_judging=19, harmless=9.0, n_samples=3)
    found = make_direction(
        planted, REPLIES, config, judge=judge, progress=lambda *facts: told.append(facts)
    ).choice.judged.judgement
    assert (found.n_samples, found.unanswered, found.random.shape) == (24, 88, (9,))
    assert len(seen) == 24 * 11
    assert "1 of 264 samples judged" in str(told)
    assert {prompt for prompt, _ in seen} == {each.prompt for each in PAIRS[1::2]}
    assert found.steered > found.plain + 0.3
    assert found.change.low > 0
    assert found.steered > found.random.max()
    assert "says a regular expression: " in str(found)
    assert str(found).endswith("88 not answered")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [(lambda *_: (_ for _ in ()).throw(MissingError("nothing answers at http://x")), "did not judge: nothing answers"),
     (lambda samples, _: [None] * len(samples), "answered neither yes nor no to 100% of the samples")],
)  # fmt: skip
def test_a_judge_that_fails_loses_nothing(planted, answers, reason):
    config = DirectionConfig(strengths=(1.0,), n_random=3, n_judging=19)
    choice = make_direction(planted, REPLIES, config, judge=Judge("Good?", "somebody", answers)).choice
    assert choice.works
    assert reason in choice.judged.judgement
    assert "somebody" not in str(choice)


def test_mistakes_are_told_before_anything_runs(planted):
    with pytest.raises(ConfigError, match="is not a regular expression"):
        make_direction(planted, REPLIES, DirectionConfig(rule="(unclosed"))
    with pytest.raises(PromptError, match="no room for 24 more"):
        sampled_questions(planted, ["x" * (planted.cfg.n_ctx - 10)], "a")
    with pytest.raises(ConfigError, match="sample"):
        DirectionConfig(n_samples=0)
    assert continuations_of(planted, [], None) == [[]]
    few = sampled_questions(planted, STARTS[:3], "a")
    with pytest.raises(ConfigError, match="too few"):
        choose_steering(planted, [along(np.ones(D))], few, neutral_text(planted, TEXT), config=QUICK)


def test_another_writer_makes_the_examples_of_a_trait(planted):
    def write(trait, starts):
        return [f" {trait} {i}" for i, _ in enumerate(starts)]

    found = examples_of_trait(planted, "kind", "rude", STARTS, writer=write)
    assert len(found.pairs) == len(STARTS)
    assert found.pairs[1] == ContrastPair(prompt=STARTS[1], towards=" kind 1", away=" rude 1")
    assert "what another model writes as somebody who is kind, and who is rude" in found.source
