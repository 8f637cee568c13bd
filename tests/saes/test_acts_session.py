"""A session prices an answer by the pace of others like it."""

import pytest

from interp.acts import Price
from saes.acts import session
from saes.acts.session import Pace


def test_each_model_and_kind_of_pass_has_its_own_pace(monkeypatch):
    """Ten tokens take 1 s in one model, 4 s in the other, and 20 s with gradients: no price is that of another."""
    clock = [0.0]
    monkeypatch.setattr(session.time, "perf_counter", lambda: clock[0])
    pace, seen = Pace(), []
    small, large, backward = (
        Price({"the feature": 1, "random directions": 4}, 10, model, passes)
        for model, passes in (("small", "steer"), ("large", "steer"), ("small", "patch"))
    )
    for price, seconds in ((small, 1.0), (large, 4.0), (backward, 20.0)):
        assert pace.of(price).seconds is None
        done = pace.counting(price, seen.append, price.arm)
        clock[0] += seconds
        done(10)
    assert [pace.of(price).seconds for price in (small, large, backward)] == pytest.approx([5, 20, 100])
    assert seen == [f"random directions: 1 of 4, {left} left" for left in ("4 seconds", "16 seconds", "80 seconds")]
