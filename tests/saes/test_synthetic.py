"""Synthetic rows are what their settings say, and come from disk as they were drawn."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import random_recording
from safetensors.torch import load_file, save_file

from interp.artifacts import partial_path, verify
from interp.errors import ConfigError, MismatchError, UsageError
from interp.recording.store import Recording
from saes.evaluation import synthetic as synthetic_recording
from saes.evaluation.synthetic import (
    CONTEXT,
    HOOK_POINT,
    TRUTH,
    SyntheticConfig,
    SyntheticData,
    read_synthetic,
    write_synthetic,
)

TREES = SyntheticConfig(n_trees=4, branching=3, depth=2, correlation=0.6, rank=2)

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(config: SyntheticConfig, n: int = 20_000, seed: int = 0):
    data = SyntheticData(config, seed=seed)
    return data, data.sample(n, generator=torch.Generator().manual_seed(seed))


configs = st.builds(
    SyntheticConfig,
    n_features=st.integers(30, 60),
    d=st.integers(4, 24),
    most_frequent=st.floats(0.2, 1.0),
    least_frequent=st.floats(0.005, 0.1),
    zipf=st.floats(0.1, 2.0),
    n_trees=st.integers(0, 4),
    branching=st.integers(1, 5),
    depth=st.integers(0, 1),
    correlation=st.floats(0, 0.9),
    rank=st.integers(1, 5),
    magnitude=st.sampled_from(["log_normal", "half_normal", "constant"]),
)


@settings(max_examples=25, deadline=None)
@given(configs)
def test_features_are_on_as_often_as_stated_whatever_the_trees_and_correlations(config):
    data, rows = draw(config, 4000)
    rates = (rows.strengths > 0).double().mean(0)
    error = (data.rates * (1 - data.rates) / 4000).sqrt()
    assert ((rates - data.rates).abs() <= 5.5 * error + 1e-9).all()
    torch.testing.assert_close(data.directions.norm(dim=1), torch.ones(config.n_features))
    assert data.l0 == pytest.approx(float(data.rates.sum()))


def test_rates_fall_by_zipfs_law_between_the_two_ends():
    config = SyntheticConfig(n_features=50, most_frequent=0.4, least_frequent=0.02, zipf=0.7)
    rates = SyntheticData(config).rates
    assert rates[0] == pytest.approx(0.4)
    assert rates[-1] == pytest.approx(0.02)
    rank = torch.arange(1, 51, dtype=torch.float64) ** -0.7
    slopes = rates.diff() / rank.diff()  # linear in rank ** -zipf
    torch.testing.assert_close(slopes, slopes[:1].expand(49))


def test_a_child_is_on_only_with_its_parent_and_never_with_a_sibling():
    data, rows = draw(TREES)
    on, parents = rows.strengths > 0, data.parents
    assert TREES.in_trees == 4 * (1 + 3 + 9)
    assert (parents >= 0).sum() == TREES.in_trees - 4
    for parent in parents[parents >= 0].unique():
        children = (parents == parent).nonzero().squeeze(1)
        assert len(children) == 3
        assert not (on[:, children].any(1) & ~on[:, parent]).any()
        assert on[:, children].sum(1).max() == 1


def test_roots_are_correlated_as_asked_and_not_otherwise():
    def largest(correlation: float) -> float:
        _, rows = draw(SyntheticConfig(most_frequent=0.3, least_frequent=0.2, correlation=correlation, rank=1))
        return float(torch.corrcoef((rows.strengths > 0).float().T).fill_diagonal_(0).abs().max())

    assert largest(0.0) < 0.05
    assert largest(0.8) > 0.4


@pytest.mark.parametrize("magnitude", ["log_normal", "half_normal", "constant"])
def test_strengths_have_mean_one_times_the_scale(magnitude):
    _, rows = draw(SyntheticConfig(magnitude=magnitude, scale=7.0))
    strengths = rows.strengths[rows.strengths > 0]
    assert strengths.mean() == pytest.approx(7.0, rel=0.02)
    assert (float(strengths.std()) < 1e-4) == (magnitude == "constant")


def test_a_row_is_the_mean_its_features_and_noise():
    data, rows = draw(SyntheticConfig(scale=3.0, noise=0.0))
    expected = rows.strengths.double() @ data.directions.double() + data.mean.double()
    torch.testing.assert_close(rows.x.double(), expected, atol=1e-4, rtol=1e-5)
    _, noisy = draw(SyntheticConfig(scale=3.0, noise=0.1))
    assert (noisy.x - rows.x).std() == pytest.approx(0.3, rel=0.02)


def test_directions_lie_further_apart_than_random_ones():
    config = SyntheticConfig(n_features=128, d=48)
    random = torch.nn.functional.normalize(torch.randn(128, 48, generator=torch.Generator().manual_seed(0)), dim=1)
    largest = [float((r @ r.T).fill_diagonal_(0).abs().max()) for r in (SyntheticData(config).directions, random)]
    assert largest[0] < 0.25 < 0.4 < largest[1]


def test_batches_follow_from_seed_and_number_alone():
    data = SyntheticData(TREES)
    whole = [rows.x for rows in itertools.islice(data.batches(50, seed=3), 4)]
    assert torch.equal(next(data.batches(50, seed=3, start=2)).x, whole[2])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(next(data.batches(50, seed=4)).x, whole[0])
    assert torch.equal(SyntheticData(TREES).directions, data.directions)
    assert not torch.equal(SyntheticData(TREES, seed=1).directions, data.directions)


def test_a_recording_holds_the_rows_that_were_drawn_and_the_truth(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_recording, "SHARD_CONTEXTS", 4)
    data = SyntheticData(TREES, seed=5)
    recording = write_synthetic(data, tmp_path / "planted", n_rows=1000)
    assert verify(recording.folder) == []
    assert recording.n_rows == 1024
    assert recording.n_shards == 4
    read = torch.cat([batch.activations[HOOK_POINT] for batch in recording.sequential([HOOK_POINT])])
    drawn = torch.cat([rows.x for rows in itertools.islice(data.batches(4 * CONTEXT), 4)])
    assert torch.equal(read, drawn)
    stats = recording.stats(HOOK_POINT)
    torch.testing.assert_close(stats.mean, drawn.double().mean(0))
    torch.testing.assert_close(stats.variance, drawn.double().var(0, unbiased=False))
    again = read_synthetic(Recording(recording.folder))
    assert torch.equal(again.directions, data.directions)
    assert torch.equal(again.rates, data.rates)
    held = sum(len(batch.rows) for batch in recording.sequential([HOOK_POINT], split="heldout", heldout_fraction=0.3))
    assert 0 < held < 1024


def test_an_interrupted_recording_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_recording, "SHARD_CONTEXTS", 4)
    data, write = SyntheticData(TREES), synthetic_recording.write_shard

    def stop_at_two(draft, log, shard):
        if len(log.entries) == 2:
            raise KeyboardInterrupt
        write(draft, log, shard)

    monkeypatch.setattr(synthetic_recording, "write_shard", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(data, tmp_path / "planted", n_rows=1000)
    assert partial_path(tmp_path / "planted").exists()
    monkeypatch.setattr(synthetic_recording, "write_shard", write)
    resumed = write_synthetic(data, tmp_path / "planted", n_rows=1000)
    whole = write_synthetic(data, tmp_path / "whole", n_rows=1000)
    assert resumed.manifest.content_hash == whole.manifest.content_hash


def test_other_truths_are_refused(tmp_path):
    recording = write_synthetic(SyntheticData(TREES), tmp_path / "planted", n_rows=100)
    truth = load_file(recording.folder / TRUTH)["directions"]
    save_file({"directions": truth.roll(1, 0).contiguous()}, recording.folder / TRUTH)
    with pytest.raises(MismatchError, match="other directions"):
        read_synthetic(recording)
    with pytest.raises(MismatchError, match="true features are unknown"):
        read_synthetic(random_recording(tmp_path / "recorded"))


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"n_features": 1}, "n_features"),
        ({"least_frequent": 0.5}, "least_frequent"),
        ({"most_frequent": 1.5}, "most_frequent"),
        ({"correlation": 1.0}, "correlation"),
        ({"zipf": 0.0}, "zipf"),
        ({"noise": -1.0}, "noise"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("inf")}, "scale"),
        ({"spread": float("inf")}, "spread"),
        ({"noise": float("nan")}, "noise"),
        ({"zipf": 1e-18}, "rates fall"),
        ({"n_trees": 60, "branching": 3}, "hold 240"),
        ({"magnitude": "half-normal"}, "half_normal"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(setting, error):
    with pytest.raises(UsageError, match=error):
        SyntheticConfig(**setting)


@pytest.mark.parametrize("n", [0, -1])
def test_no_rows_are_no_sample(n):
    with pytest.raises(ConfigError, match="number of rows"):
        next(SyntheticData(TREES).batches(n))
