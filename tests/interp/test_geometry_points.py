"""Geometry of points: known answers of clouds that were made to have them, over several seeds, beside their nulls."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import ConfigError, NonFiniteError, UnknownNameError
from interp.geometry.dimension import (
    intrinsic_dimension,
    maximum_likelihood,
    mean_cosine,
    participation_ratio,
    spectrum,
    two_nn,
)
from interp.geometry.similarity import cka, compare_clouds, hsic, procrustes, wasserstein
from interp.geometry.space import batched_cka

SEEDS = (0, 1, 2)


def gaussian(n, d, seed, ambient=None):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, d))
    if ambient is None:
        return z
    frame, _ = np.linalg.qr(rng.standard_normal((ambient, d)))
    return z @ frame.T


def rotation(d, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_isotropic_points_fill_their_dimensions_and_have_no_common_direction(seed):
    found = spectrum(gaussian(4000, 32, seed), seed=seed + 10)
    assert found.participation_ratio == pytest.approx(32 * 3999 / (32 + 4000), rel=0.01)
    assert found.participation_ratio == pytest.approx(found.isotropic.participation_ratio, rel=0.01)
    assert abs(found.cosine_raw) < 3e-3
    assert found.dims["99"] == 32
    assert found.note == ""


def test_a_shared_mean_is_anisotropy_that_centring_removes():
    found = spectrum(gaussian(500, 32, 0) + 3)
    assert found.cosine_raw == pytest.approx(0.9, abs=0.02)
    assert abs(found.cosine_centred) < 0.01
    assert found.mean_share == pytest.approx(3 / np.sqrt(10), abs=0.02)


def test_mean_cosine_is_that_of_all_pairs():
    points = gaussian(40, 5, 1) + 0.5
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines = (units @ units.T)[~np.eye(40, dtype=bool)]
    assert mean_cosine(points) == pytest.approx(cosines.mean(), abs=1e-12)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30), st.floats(0.1, 10))
@settings(max_examples=50, deadline=None)
def test_participation_ratio_lies_between_one_and_the_number_of_directions_whatever_the_scale(variances, scale):
    eigenvalues = np.array(variances)
    ratio = participation_ratio(eigenvalues)
    assert 1 - 1e-9 <= ratio <= len(eigenvalues) + 1e-9
    assert participation_ratio(eigenvalues * scale) == pytest.approx(ratio)


def test_few_points_say_that_they_cannot_show_many_dimensions():
    found = spectrum(gaussian(20, 64, 0))
    assert found.participation_ratio == pytest.approx(found.isotropic.participation_ratio, rel=0.15)
    assert "at most 19 of 64" in found.note


def test_degenerate_points_are_refused_with_the_reason():
    with pytest.raises(ConfigError, match="the same point"):
        spectrum(np.ones((5, 3)))
    with pytest.raises(NonFiniteError, match="row 2"):
        spectrum(np.array([[1.0, 2], [3, 4], [np.nan, 0]]))
    with pytest.raises(ConfigError, match=r"\[n, d\]"):
        spectrum(np.ones(4))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([["a", "b"], ["c", "d"]], "real numbers"),
        (np.ones((5, 2)) * 1j, "real numbers"),
        (np.array([[1, "x"], [2, 3]], dtype=object), "real numbers"),
        ([[1.0, 2.0], [3.0]], "one length"),
        (None, r"\[n, d\]|real numbers"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_everywhere(points, message):
    for measure in (spectrum, intrinsic_dimension, lambda x: cka(x, x)):
        with pytest.raises(ConfigError, match=message):
            measure(points)


def test_tensors_that_are_trained_and_narrow_floats_are_points():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16, requires_grad=True)
    assert spectrum(x).participation_ratio == spectrum(x.detach().float()).participation_ratio


@pytest.mark.parametrize("seed", SEEDS)
def test_eight_dimensions_inside_576_are_found_by_two_estimators(seed):
    points = gaussian(2000, 8, seed, ambient=576) @ rotation(576, seed)[:, :64]  # any 64 coordinates hold them all
    assert two_nn(points) == pytest.approx(8.0, abs=0.5)
    assert maximum_likelihood(points, 20) == pytest.approx(7.65, abs=0.25)


def test_estimators_agree_with_scikit_dimension():
    """Frozen answers of scikit-dimension 0.5.0: `TwoNN()` and `MLE()` (20 neighbours) of these points."""
    points = np.random.default_rng(7).standard_normal((300, 6)) * [1, 1, 2, 1, 3, 1]
    assert two_nn(points) == pytest.approx(5.830211719475279, rel=1e-9)
    assert maximum_likelihood(points, 20) == pytest.approx(5.124459263075015, rel=1e-9)


def test_estimates_come_together_with_intervals_and_the_gaussian_beside_them():
    rng = np.random.default_rng(0)
    sphere = rng.standard_normal((600, 3))
    sphere = sphere / np.linalg.norm(sphere, axis=1, keepdims=True) @ rng.standard_normal((3, 20))
    found = intrinsic_dimension(sphere, k_pca=25)
    assert [each.estimator for each in found.estimates] == ["TwoNN", "MLE", "local PCA"]
    for each in found.estimates:
        assert each.dimension.contains(each.dimension.estimate)
        assert each.dimension.estimate == pytest.approx(2, abs=0.25), "a sphere has two"
        assert each.gaussian > 2.4, "and its covariance three"
    assert found["MLE"].dimension.low > 1.7
    assert "factor" in str(found)


def test_repeated_points_are_left_out_and_counted():
    points = gaussian(200, 3, 0)
    found = intrinsic_dimension(np.concatenate([points, points[:50]]))
    assert found.n == 200
    assert found.n_repeated == 50
    with pytest.raises(ConfigError, match="different points"):
        intrinsic_dimension(np.repeat(gaussian(4, 3, 0), 10, axis=0))


def test_near_copies_are_left_out_and_counted():
    points = gaussian(200, 3, 0)
    found = intrinsic_dimension(np.concatenate([points, points + 1e-9, points[:20] - 1e-9]))
    assert (found.n, found.n_near) == (200, 220)
    assert "220 near-copies" in str(found)
    alone = intrinsic_dimension(points)
    assert (alone.n_near, alone.note) == (0, "")
    assert [each.dimension.estimate for each in found.estimates[:2]] == pytest.approx([3, 3], abs=0.5)
    pairs = intrinsic_dimension(np.concatenate([points, points + 1e-4]))
    assert "TwoNN lies below 1" in pairs.note, "too far apart for copies, but in close groups"


@pytest.mark.parametrize(
    ("points", "missing"),
    [
        (np.eye(60), {"TwoNN", "MLE"}),
        (np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2), {"TwoNN"}),
    ],
)
def test_where_distances_tie_an_estimator_is_left_out_with_the_reason(points, missing):
    found = intrinsic_dimension(points)
    assert {each.estimator for each in found.estimates} == {"TwoNN", "MLE", "local PCA"} - missing
    assert all(np.isfinite([*each.dimension, each.gaussian]).all() for each in found.estimates)
    assert all(f"{name} is left out" in str(found) for name in missing)
    with pytest.raises(UnknownNameError, match="TwoNN needs distinct distances"):
        found["TwoNN"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k_mle": 1}, "k_mle must be"),
        ({"k_pca": 0}, "k_pca must be"),
        ({"max_points": 10}, "max_points must be .* at least 22, got 10"),
        ({"max_points": 30, "k_mle": 40}, "at least 42"),
        ({"k_mle": 2.5}, "whole number"),
    ],
)
def test_settings_that_look_at_too_few_points_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        intrinsic_dimension(gaussian(100, 3, 0), **settings)


@pytest.mark.parametrize("seed", SEEDS)
def test_cka_of_a_rotation_is_one_and_of_independent_rows_zero(seed):
    x, y = gaussian(500, 576, seed), gaussian(500, 576, seed + 100)
    same = cka(x[:, :64], 3 * x[:, :64] @ rotation(64, seed) + 5, n_shuffles=9)
    assert same.value == pytest.approx(1, abs=1e-9)
    assert same.p == 0.1, "the smallest of nine shuffles"
    unrelated = cka(x, y, n_shuffles=9)
    assert abs(unrelated.value) < 0.02
    k, other = x @ x.T, y @ y.T
    centre = np.eye(500) - 1 / 500
    biased = np.sum((centre @ k @ centre) * (centre @ other @ centre))
    biased /= np.linalg.norm(centre @ k @ centre) * np.linalg.norm(centre @ other @ centre)
    assert biased == pytest.approx(0.535, abs=0.02), "the form that we do not offer"


def test_unbiased_hsic_is_the_mean_over_quadruples():
    """Song et al. 2012: a U-statistic over four different items."""
    from itertools import permutations

    rng = np.random.default_rng(0)
    k, m = (g @ g.T for g in (rng.standard_normal((6, 3)), rng.standard_normal((6, 2))))
    terms = [k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q] for i, j, q, r in permutations(range(6), 4)]
    assert hsic(k, m) == pytest.approx(np.mean(terms), abs=1e-10)


def test_batched_cka_goes_to_that_of_all_rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4096, 40)) * np.linspace(0.1, 3, 40) + 7
    y = np.tanh(x @ rng.standard_normal((40, 60)) * 0.2)
    z = rng.standard_normal((4096, 10))
    batches = [[torch.tensor(v[i : i + 256]) for v in (x, y, z)] for i in range(0, 4096, 256)]
    found = batched_cka([*batches, [v[:50] for v in batches[0]]], ["x", "y", "z"])
    whole = cka(x[:2000], y[:2000], n_shuffles=1).value
    assert found.cka[0, 1] == pytest.approx(whole, abs=4 * found.error[0, 1] + 0.02)
    assert abs(found.cka[0, 2]) < 0.01
    assert abs(found.shuffled[0, 1]) < 0.02
    assert found.n_rows == 4096
    assert np.allclose(np.diag(found.cka), 1)


@pytest.mark.parametrize(
    ("batches", "names", "message"),
    [
        ([[torch.ones(8, 2)] * 2] * 2, ["a"], "one tensor for each"),
        ([[]] * 2, [], "one tensor for each"),
        ([[torch.ones(8, 2), torch.ones(7, 2)]] * 2, ["a", "b"], "same m items"),
        ([[torch.ones(8), torch.ones(8)]] * 2, ["a", "b"], r"\[m, d\]"),
        ([[torch.ones(8, 2)], [torch.ones(9, 2)]], ["a"], "one size"),
        ([[torch.randn(8, 2)] * 2], ["a", "b"], "two are needed"),
    ],
)
def test_batches_that_do_not_fit_are_refused(batches, names, message):
    with pytest.raises(ConfigError, match=message):
        batched_cka(batches, names)


def test_one_place_is_like_itself():
    generator = torch.Generator().manual_seed(0)
    found = batched_cka([[torch.randn(16, 3, generator=generator)] for _ in range(4)], ["a"])
    assert found.cka == pytest.approx(1)
    assert "give another hook point" in str(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_procrustes_sees_through_a_rotation(seed):
    x = gaussian(100, 16, seed)
    turned = 2 * x @ rotation(16, seed) + 1
    assert procrustes(x, turned, n_shuffles=9).value == pytest.approx(0, abs=4e-15)
    other = procrustes(x, gaussian(100, 16, seed + 50), n_shuffles=19)
    assert other.p > 0.04
    assert other.null_range[0] < other.value < other.null_range[1] + 0.05


def test_procrustes_of_few_items_in_many_dimensions_fits_anything_and_its_null_says_so():
    found = procrustes(gaussian(8, 200, 0), gaussian(8, 200, 1), n_shuffles=19)
    assert found.value < 0.2
    assert found.null < 0.2
    assert found.p > 0.05


def test_rows_must_be_the_same_items():
    with pytest.raises(ConfigError, match="3 rows"):
        cka(gaussian(3, 2, 0), gaussian(3, 2, 0))
    with pytest.raises(ConfigError, match="same item"):
        cka(gaussian(5, 2, 0), gaussian(6, 2, 0))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_shift_by_three_has_squared_distance_nine(seed):
    x = gaussian(100, 10, seed)
    shift = np.zeros(10)
    shift[seed] = 3
    found = wasserstein(x, x + shift)
    assert found.w2_squared == pytest.approx(9.0, abs=1e-9)
    assert np.allclose(found.plan, np.eye(100) / 100)


def test_in_one_dimension_the_plan_sorts():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50, 1))
    y = y * 2 + 1
    assert wasserstein(x, y).w2_squared == pytest.approx(((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2).mean())


def test_two_samples_of_one_cloud_are_not_above_the_split_half_floor():
    excesses = []
    for seed in SEEDS:
        x, y = gaussian(160, 10, seed), gaussian(160, 10, seed + 70)
        same = compare_clouds(x, y, n_splits=5, seed=seed)
        assert same.floor > 3, "samples of one cloud are far apart in ten dimensions"
        assert same.p > 0.15
        excesses.append(same.excess)
        shift = np.eye(10)[0] * 3
        assert compare_clouds(x, y + shift, n_splits=5, seed=seed).excess == pytest.approx(9, abs=1.5)
    assert abs(np.mean(excesses)) < 0.4


def test_far_clouds_have_a_small_p_and_alike_ones_any_p():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4))
    assert compare_clouds(x, x + 100, n_splits=2).p == pytest.approx(0.01)
    alike = [compare_clouds(*rng.standard_normal((2, 40, 4)), n_splits=2, n_relabelled=39, seed=i).p for i in range(40)]
    assert min(alike) < 0.25 < 0.75 < max(alike)
    assert sum(p <= 0.05 for p in alike) <= 6


@pytest.mark.parametrize("settings", [{"n_splits": 0}, {"n_relabelled": 5}, {"max_points": 3}])
def test_clouds_are_not_compared_with_nothing(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        compare_clouds(np.eye(8), np.eye(8), **settings)
