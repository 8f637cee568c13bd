"""What a TopK SAE recovers of a toy of superposition: exact with the true directions, more than chance when trained."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from interp.artifacts import save_json
from interp.errors import ConfigError
from interp.recording.store import Recording
from interp.statistics import t_interval
from interp.studies.superposition import ToyConfig, Toys, train_toys
from interp.studies.superposition_geometry import measure_geometry
from saes.evaluation.synthetic import measure_recovery
from saes.evaluation.toy_recovery import ToyData, read_synthetic, recover_toy, toy_data, write_synthetic
from saes.kinds.base import Weights
from saes.kinds.topk import TopKSAE

PAIRS = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.2], [0.0, -1.2], [0.1, 0.0]]
"""two antipodal pairs, and a feature that the toy dropped"""

pytestmark = pytest.mark.usefixtures("one_thread")


def handmade(rows: list[list[float]], density: float) -> Toys:
    W = torch.tensor([rows])
    n = len(rows)
    return Toys(
        W=W, b=torch.zeros(1, n), density=torch.tensor([density]), importance=torch.ones(1, n), seed=(0,),
        loss=torch.zeros(1), null_loss=torch.ones(1), settings={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def toys():
    config = ToyConfig(n_features=24, d_hidden=8, steps=800, batch_size=256, lr=2e-2)
    return train_toys(config, n_seeds=1, densities=(0.02,))


def test_rows_are_the_hidden_layer_of_the_features_that_are_on():
    data = toy_data(handmade(PAIRS, 0.3), 0)
    rows = data.sample(20_000, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor(PAIRS[:4])
    torch.testing.assert_close(rows.x, (rows.strengths / kept.norm(dim=1)) @ kept)
    assert (rows.strengths > 0).any(1).all(), "rows with nothing on are left out"
    torch.testing.assert_close((rows.strengths > 0).double().mean(0), data.rates, atol=0.015, rtol=0)
    assert data.l0 == pytest.approx(4 * 0.3 / (1 - 0.7**4))


def test_opposite_features_are_told_apart_by_the_sign():
    data = toy_data(handmade(PAIRS, 0.02), 0)
    rows = data.directions
    truth = TopKSAE(Weights(rows.T.contiguous(), torch.zeros(4), rows, torch.zeros(2)), k=1)
    found = measure_recovery(truth, data)
    assert found.mcc == pytest.approx(1)
    assert found.precision == pytest.approx(1, abs=0.02)
    assert found.f1 > 0.97
    one_way = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]])
    blind = TopKSAE(Weights(one_way.T.contiguous(), torch.zeros(4), one_way, torch.zeros(2)), k=1)
    assert measure_recovery(blind, data).mcc == pytest.approx(0.5, abs=0.01), "two of four point the wrong way"


def test_a_recording_of_a_toy_is_read_back_as_the_toy(tmp_path):
    data = toy_data(handmade(PAIRS, 0.1), 0, seed=3)
    write_synthetic(data, tmp_path / "recording", n_rows=500)
    again = read_synthetic(Recording(tmp_path / "recording"))
    assert isinstance(again, ToyData)
    assert asdict(again.config) == asdict(data.config)
    assert torch.equal(next(again.batches(50)).x, next(data.batches(50)).x)


def test_a_trained_dictionary_finds_the_features_of_a_toy_and_a_random_one_does_not(toys, tmp_path):
    geometry = measure_geometry(toys.W[0])
    assert geometry.represented > geometry.rank, "in superposition"
    found = recover_toy(toys, 0, tmp_path / "found", n_rows=20_000, tokens=100_000)
    assert found.trained.mcc > 0.9
    assert found.trained.mcc > found.untrained.mcc + 0.25
    assert found.trained.f1 > found.untrained.f1 + 0.1
    assert abs(found.untrained.mcc - found.untrained.mcc_random) < 0.12
    save_json(found, tmp_path / "found.json")
    read = json.loads((tmp_path / "found.json").read_text())
    assert read["settings"]["density"] == pytest.approx(0.02)
    assert read["trained"]["mcc"] == found.trained.mcc


@pytest.mark.slow
def test_the_denser_the_features_the_worse_they_are_detected(tmp_path):
    """40 features in 12 dimensions, four toys each: directions are found at both densities, detection falls."""
    config = ToyConfig(n_features=40, d_hidden=12, steps=1200, lr=1e-2, batch_size=256)
    toys = train_toys(config, densities=(0.01, 0.1), n_seeds=4)
    chosen = {0.01: (0, 1, 2, 3), 0.1: (4, 5, 6, 7)}
    found = {
        d: [recover_toy(toys, t, tmp_path / f"{t}", tokens=150_000, seed=t) for t in which]
        for d, which in chosen.items()
    }
    f1 = {d: t_interval(np.array([each.trained.f1 for each in runs])) for d, runs in found.items()}
    assert f1[0.01][1] > f1[0.1][2]
    for runs in found.values():
        gain = t_interval(np.array([each.trained.mcc - each.untrained.mcc for each in runs]))
        assert gain[1] > 0.2
    assert found[0.01][0].one_at_a_time > found[0.1][0].one_at_a_time


def test_a_toy_that_represents_one_feature_has_nothing_to_recover():
    with pytest.raises(ConfigError, match="represents 1 of 2 features"):
        toy_data(handmade([[1.0], [0.1]], 0.9), 0)
