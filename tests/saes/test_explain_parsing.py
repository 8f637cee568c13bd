"""Replies are read strictly, and scores give nothing to those who know nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saes.explain.cases import LONGEST_LABEL, read_answers, read_explanation
from saes.explain.run import mean_over_features, mean_scores, other_features, score_answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Explanation: names of animals", "names of animals"),
        ("All of them bark.\n\n**Explanation:** names of animals", "names of animals"),
        ('explanation: "names of animals"\nmore talk', "names of animals"),
        ("<think>Explanation: wrong</think>\nExplanation: right", "right"),
        ("Explanation: first guess\nExplanation: second guess", "second guess"),
        ("just one line", "just one line"),
        ("Explanation: tab\there \x1b[31mred", "tab here [31mred"),
        ("", None),
        ("Explanation: ...", None),
        ("two lines\nwithout a mark", None),
        ("<think>never ends", "<think>never ends"),
    ],
)
def test_explanations_are_read_or_refused(text, expected):
    assert read_explanation(text) == expected


def test_long_explanations_are_cut():
    found = read_explanation("Explanation: " + "word " * 500)
    assert len(found) == LONGEST_LABEL


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("[1, 0, 1]", 3, [True, False, True]),
        ("At first [0, 0], in the end [1, 0].", 2, [True, False]),
        ("<think>[1, 1]</think> [0, 0]", 2, [False, False]),
        ("```json\n[1]\n```", 1, [True]),
        ("[1, 0]", 3, None),
        ("[0.5, 1]", 2, None),
        ("[[], 1]", 2, None),
        (f"[{'9' * 5000}]", 1, None),
        ("", 1, None),
    ],
)
def test_answers_are_read_or_refused(text, n, expected):
    assert read_answers(text, n) == expected


@given(st.text(), st.integers(1, 5))
def test_no_reply_breaks_the_reading(text, n):
    answers = read_answers(text, n)
    assert answers is None or len(answers) == n
    label = read_explanation(text)
    assert label is None or (label and "\n" not in label and label.isprintable())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_who_is_always_right_scores_one_and_who_is_always_wrong_zero():
    truth = [True] * 4 + [False] * 8
    right = score_answers(truth, truth, generator=rng())
    assert (right.estimate, right.high) == (1.0, 1.0)
    assert 0.3 < right.low < 0.95, "trials that are all right still leave an error rate possible"
    assert score_answers(truth, [not t for t in truth], generator=rng()).estimate == 0.0


@pytest.mark.parametrize("answer", [True, False])
def test_a_constant_answer_scores_a_half_whatever_the_mixture(answer):
    for n_yes, n_no in ((1, 20), (20, 1), (5, 5)):
        found = score_answers([True] * n_yes + [False] * n_no, [answer] * (n_yes + n_no), generator=rng())
        assert found.estimate == 0.5


def test_balanced_accuracy_by_hand():
    truth, answers = [True, True, True, False, False], [True, True, False, True, False]
    found = score_answers(truth, answers, generator=rng())
    assert found.estimate == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert score_answers([True], [True], generator=rng()) is None


@pytest.mark.parametrize("right", [(1, 1), (2, 0), (0, 1)])
def test_an_interval_is_that_of_two_rates_under_jeffreys_prior(right):
    """Of two trials each: quantiles of many draws of the two posteriors."""
    hit, refused = right
    answers = [True] * hit + [False] * (2 - hit) + [False] * refused + [True] * (2 - refused)
    found = score_answers([True, True, False, False], answers, generator=rng())
    draws = np.mean([rng(seed).beta(n + 0.5, 2.5 - n, 200_000) for seed, n in enumerate(right, 1)], axis=0)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=0.02)


def test_a_coin_s_interval_holds_a_half_about_as_often_as_it_says():
    inside = 0
    for seed in range(300):
        draw = rng(seed)
        found = score_answers([True] * 15 + [False] * 15, draw.random(30) < 0.5, generator=draw)
        inside += found.contains(0.5)
    assert 0.90 < inside / 300 < 0.99


def test_the_mean_over_features_comes_with_the_spread_between_them():
    found = mean_over_features([0.5, 0.7, 0.9], generator=rng())
    assert found.mean.estimate == pytest.approx(0.7)
    assert 0.5 <= found.mean.low < 0.7 < found.mean.high <= 0.9
    assert mean_over_features([], generator=rng()) is None
    assert mean_scores([], generator=rng()) is None


@given(st.integers(2, 50), st.integers(0, 100))
def test_every_feature_gets_another_one_s_label_and_lends_its_own_once(n, seed):
    partner = other_features(n, generator=rng(seed))
    assert sorted(partner) == list(range(n))
    assert all(partner[i] != i for i in range(n))


def test_a_single_feature_has_no_null():
    assert other_features(1, generator=rng()) is None
