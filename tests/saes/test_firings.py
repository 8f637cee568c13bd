"""The streaming pass: equal to brute force, whatever the blocks, flat in memory, loud on NaN."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import HOOK, ReluDictionary, TableDictionary, random_recording, write_recording

from interp.dictionary import SparseActs
from interp.errors import ConfigError, MismatchError, NonFiniteError
from saes.features._firings import Encoded, FeatureStatistics, collect_together

WINDOW, N_TOP = 4, 5


def dense_activations(recording, dictionary) -> tuple[np.ndarray, np.ndarray]:
    """All real rows and their activations `[n, d_sae]`, read without the pass."""
    batches = list(recording.sequential([HOOK], batch_size=10_000))
    acts = torch.cat([dictionary.encode(batch.activations[HOOK]) for batch in batches]).numpy()
    return torch.cat([batch.rows for batch in batches]).numpy(), acts


@pytest.fixture(scope="module")
def pass_and_truth(tmp_path_factory: pytest.TempPathFactory):
    recording = random_recording(tmp_path_factory.mktemp("statistics") / "rec")
    dictionary = ReluDictionary(12, 30)
    statistics = collect_together(
        [Encoded(dictionary, HOOK)], recording, window=WINDOW, n_top=N_TOP, n_sample=20, seed=3, block_rows=64
    )[0]
    return statistics, *dense_activations(recording, dictionary)


def test_counts_means_and_maxima_equal_brute_force(pass_and_truth):
    statistics, rows, acts = pass_and_truth
    assert statistics.n_tokens == len(rows)
    np.testing.assert_array_equal(statistics.totals.n_fired, (acts > 0).sum(0))
    np.testing.assert_allclose(statistics.density, (acts > 0).mean(0))
    np.testing.assert_allclose(statistics.totals.maximum, acts.max(0), rtol=1e-5)
    means = [column[column > 0].mean() if (column > 0).any() else 0 for column in acts.T]
    np.testing.assert_allclose(statistics.mean_activation, means, rtol=1e-5)


def test_histogram_counts_every_firing_in_its_bin(pass_and_truth):
    statistics, _, acts = pass_and_truth
    counts, edges = statistics.histogram()
    assert len(edges) == counts.shape[1] + 1
    assert counts.shape[1] <= 40
    np.testing.assert_allclose(np.diff(np.log2(edges)), np.diff(np.log2(edges))[0])
    for feature, column in enumerate(acts.T):
        expected, _ = np.histogram(column[column > 0], bins=edges)
        assert counts[feature].sum() == (column > 0).sum()
        assert np.abs(counts[feature] - expected).sum() <= 2, "at most one value may sit on an edge"


def test_top_firings_are_the_strongest_of_the_strongest_contexts(pass_and_truth):
    statistics, rows, acts = pass_and_truth
    for feature, column in enumerate(acts.T):
        best: dict[int, float] = {}
        for row, value in zip(rows, column, strict=True):
            if value > best.get(row // 16, 0):
                best[row // 16] = value
        expected = sorted(best.values(), reverse=True)[:N_TOP]
        kept = statistics.top.keys[feature] >= 0
        np.testing.assert_allclose(np.sort(statistics.top.values[feature][kept])[::-1], expected, rtol=1e-5)


def test_windows_hold_the_feature_on_every_token_around_within_the_context(pass_and_truth):
    statistics, rows, acts = pass_and_truth
    by_row = {int(row): acts[i] for i, row in enumerate(rows)}
    for slots in (statistics.top, statistics.sample):
        for feature, slot in zip(*np.nonzero(slots.keys >= 0), strict=True):
            peak = int(slots.rows[feature, slot])
            for offset in range(-WINDOW, WINDOW + 1):
                row = peak + offset
                inside = row // 16 == peak // 16 and row in by_row
                expected = by_row[row][feature] if inside else 0.0
                assert slots.windows[feature, slot, WINDOW + offset] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_rare_feature_has_all_its_firings_in_the_sample(pass_and_truth):
    statistics, rows, acts = pass_and_truth
    rare = [f for f in range(30) if 0 < (acts[:, f] > 0).sum() <= 20]
    for feature in rare:
        kept = statistics.sample.keys[feature] >= 0
        assert sorted(statistics.sample.rows[feature][kept]) == rows[acts[:, feature] > 0].tolist()


@settings(max_examples=12, deadline=None)
@given(block=st.integers(1, 300), seed=st.integers(0, 5))
def test_the_result_does_not_depend_on_the_blocks(tmp_path_factory: pytest.TempPathFactory, block: int, seed: int):
    recording = random_recording(tmp_path_factory.mktemp("blocks") / "rec", n_contexts=9, seed=seed)
    dictionary = ReluDictionary(12, 10, seed=seed)
    settings_ = {"window": 3, "n_top": 3, "n_sample": 6, "seed": seed}
    one = collect_together([Encoded(dictionary, HOOK)], recording, block_rows=10**6, **settings_)[0]
    other = collect_together([Encoded(dictionary, HOOK)], recording, block_rows=block, **settings_)[0]
    np.testing.assert_array_equal(one.totals.n_fired, other.totals.n_fired)
    for name in ("top", "sample"):
        first, second = getattr(one, name), getattr(other, name)
        for row in range(10):
            assert sorted(first.rows[row]) == sorted(second.rows[row]), name
            np.testing.assert_allclose(np.sort(first.values[row]), np.sort(second.values[row]), rtol=1e-5)


def test_the_sample_is_uniform_over_firings():
    n, size, repeats = 200, 20, 300
    hits = np.zeros(n)
    for seed in range(repeats):
        statistics = FeatureStatistics(1, context_length=n, window=0, n_top=1, n_sample=size, seed=seed)
        acts = SparseActs(torch.arange(1.0, n + 1)[:, None], torch.zeros(n, 1, dtype=torch.int64))
        statistics.add(acts, torch.arange(n))
        hits[statistics.sample.rows[0]] += 1
    expected = repeats * size / n
    chi2 = ((hits - expected) ** 2 / (expected * (1 - size / n))).sum()
    assert abs(chi2 - n) < 4 * np.sqrt(2 * n), f"chi-squared {chi2:.0f} for {n} rows"


def test_state_does_not_grow_with_the_number_of_tokens():
    def bytes_held(n_blocks: int) -> int:
        statistics = FeatureStatistics(8, context_length=32, window=4, n_top=3, n_sample=8, seed=0)
        for block in range(n_blocks):
            acts = SparseActs(torch.rand(64, 2) + 0.1, torch.randint(0, 8, (64, 2)))
            statistics.add(acts, torch.arange(64) + 64 * block)
        parts = (*statistics.totals, *statistics.top, *statistics.sample)
        return sum(array.nbytes for array in parts)

    assert bytes_held(50) == bytes_held(2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_nan_in_a_recording_is_found_and_its_row_named(tmp_path: Path, bad: float):
    activations = torch.randn(64, 6)
    activations[37, 2] = bad
    recording = write_recording(
        tmp_path / "rec", activations, torch.ones(64).long(), torch.zeros(64).long(), context_length=8, shard_contexts=3
    )
    with pytest.raises(NonFiniteError, match="row 37"):
        collect_together([Encoded(ReluDictionary(6, 4), HOOK)], recording, window=2, n_top=2, seed=0)


def test_damaged_dictionary_weights_are_refused(tmp_path: Path):
    recording = random_recording(tmp_path / "rec")
    dictionary = ReluDictionary(12, 8)
    dictionary.W[3, 0] = torch.nan
    dictionary.encode_sparse = lambda x: SparseActs(x @ dictionary.W.T, torch.arange(8).expand(len(x), -1))  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="dictionary"):
        collect_together([Encoded(dictionary, HOOK)], recording, window=2, n_top=2, seed=0)


def test_a_dictionary_of_another_width_is_refused(tmp_path: Path):
    with pytest.raises(MismatchError, match="vectors of 5"):
        collect_together(
            [Encoded(TableDictionary(5), HOOK)], random_recording(tmp_path / "rec"), window=2, n_top=2, seed=0
        )[0]


def test_a_top_of_none_is_refused():
    with pytest.raises(ConfigError, match="n_top"):
        FeatureStatistics(3, context_length=8, window=2, n_top=0, n_sample=4, seed=0)
