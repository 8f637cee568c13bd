"""One home for nulls: their kinds, counts and words."""

from typing import get_args

import pytest

from interp.forms import from_json
from interp.nulls import (
    DRAWS,
    NO_EFFECT,
    NULLS,
    NUMERIC_DRAWS,
    NullComparison,
    NullKind,
    beside,
    draws_of,
    smallest_p,
    verdict,
)


def test_every_kind_of_null_has_its_words_and_what_it_holds_fixed():
    assert list(NULLS) == list(get_args(NullKind))
    for kind, null in NULLS.items():
        assert null.fixed
        assert null.one != kind
        assert draws_of(19, kind) == f"19 {kind}"
        assert draws_of(1, kind) == f"1 {null.one}"
        assert draws_of(0, kind) == f"no {kind}"


def test_each_level_allows_a_smaller_p_value():
    for table in (DRAWS, NUMERIC_DRAWS):
        least = [smallest_p(table[level]) for level in ("quick", "standard", "thorough")]
        assert least == sorted(least, reverse=True)
    assert smallest_p(DRAWS["standard"]) == pytest.approx(0.05)


def test_a_value_is_compared_with_each_of_its_nulls():
    both = NullComparison(0.5, {"random directions": [0.1] * 38 + [0.6], "features of like density": [0.1] * 39})
    assert both.p == both.p_by("random directions") == pytest.approx(2 / 40)
    assert both.p_by("features of like density") == both.smallest_p == pytest.approx(1 / 40)
    assert both.verdict() == "beyond both nulls"
    assert both.verdict(0.03) == "not beyond random directions"
    assert both.verdict(0.01) == NO_EFFECT
    assert both.exceeds(" raise theirs", " raise these") == (
        "more than 38 of 39 random directions raise theirs and 39 of 39 features of like density raise these"
    )
    assert both.exceeds() == "more than 38 of 39 random directions and 39 of 39 features of like density"


def test_a_null_without_draws_is_left_out_of_a_verdict():
    few = NullComparison(0.5, {"random directions": [0.1] * 4, "features of like density": []})
    assert few.p == few.smallest_p == pytest.approx(1 / 5), "four directions can never give a verdict"
    assert few.verdict() == "not beyond random directions"
    nothing = NullComparison(0.5, {})
    assert (nothing.p, nothing.smallest_p, nothing.verdict()) == (1.0, 1.0, NO_EFFECT)


def test_the_answer_of_a_comparison_is_read_back():
    raw = {"value": 0.5, "draws": {"random latents": [0.1, 0.2]}}
    assert from_json(NullComparison, raw, "an answer") == NullComparison(0.5, {"random latents": [0.1, 0.2]})


def test_words_of_verdicts():
    assert verdict(["random circuits"], []) == "beyond random circuits"
    assert beside("shuffled labels", 0.51, 0.62) == "shuffled labels 0.510, at most 0.620"
