"""Small models train on the device asked for, from the same draws, to the same numbers."""

import numpy as np
import pytest
import torch
from other_device import DEVICE, other_device

from interp.circuits.head_weights import Factored, composition_scores, haar_blocks
from interp.errors import ConfigError
from interp.studies import induction_emerges
from interp.studies.grokking import describe_grokking, train_modular
from interp.studies.grokking_phases import ModularConfig
from interp.studies.induction_emerges import follow_induction

MODULAR = ModularConfig(p=11, d_model=16, n_heads=2, d_mlp=24, epochs=6, log_every=3, seeds=(0, 1))


def test_grokking():
    here = list(train_modular(MODULAR))
    with other_device():
        there = list(train_modular(MODULAR, device=str(DEVICE)))
    for one, other in zip(here, there, strict=True):
        assert {value.device.type for value in other.parameters.values()} == {"cpu"}
        assert torch.allclose(one.test_loss, other.test_loss)
    assert describe_grokking(there, MODULAR).curves.keys() == describe_grokking(here, MODULAR).curves.keys()


def test_float64_is_refused_where_the_device_has_none():
    with pytest.raises(ConfigError, match="--device cpu"):
        next(train_modular(MODULAR, device="mps"))


def test_induction(monkeypatch):
    monkeypatch.setattr(induction_emerges, "strongest_composition", lambda *_: 1.0)
    here = follow_induction(steps=8, every=1)
    with other_device():
        there = follow_induction(steps=8, every=1, device=str(DEVICE))
    for name, curve in here.curves.items():
        assert there.curves[name] == pytest.approx(curve, rel=1e-3, abs=1e-5), name


def test_composition_of_weights_elsewhere():
    made = [Factored(*torch.randn(2, 8, 8, dtype=torch.float64)) for _ in range(4)]
    before, blocks = np.ones((2, 2), bool), haar_blocks(8, 4, 5, 0).repeat(1, 2, 2)
    expected = composition_scores(made[:2], made[2:], before, blocks)
    with other_device() as device:
        moved = [Factored(each.left.to(device), each.right.to(device)) for each in made]
        found = composition_scores(moved[:2], moved[2:], before, blocks)
    for one, other in zip(expected, found, strict=True):
        assert np.allclose(one, other)
