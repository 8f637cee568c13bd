"""Two-dimensional features from a decoder: a planted circle is found, independent latents and mixtures are not."""

import numpy as np
import pytest
import torch

from interp.dictionary import SparseActs
from interp.errors import ConfigError, NonFiniteError
from saes.features.planes import cluster_decoder, feature_planes


class PlantedDictionary:
    """Eight latents around a circle, two near copies that fire in turn, and latents of their own directions."""

    hook_point = "planted"

    def __init__(self, seed, d=40, n_alone=20):
        frame, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
        angles = np.arange(8) * np.pi / 4
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ frame[:, :2].T
        copies = np.stack([frame[:, 2], 0.8 * frame[:, 2] + 0.6 * frame[:, 3]])
        self.W = torch.tensor(np.concatenate([circle, copies, frame[:, 4 : 4 + n_alone].T]), dtype=torch.float32)
        self.d_sae, self.d_in, self.circle = len(self.W), d, frame[:, :2].T

    @property
    def decoder_directions(self):
        return self.W

    def acts(self, n, seed):
        """`[n, d_sae]`: the circle is on in half of the rows, at any angle."""
        rng = np.random.default_rng(seed)
        acts = np.where(rng.random((n, self.d_sae)) < 0.15, rng.exponential(1, (n, self.d_sae)), 0)
        towards = np.cos(rng.uniform(0, 2 * np.pi, n)[:, None] - np.arange(8) * np.pi / 4)
        acts[:, :8] = np.where(rng.random(n)[:, None] < 0.5, np.maximum(towards, 0) / 2, 0)
        which = rng.integers(0, 3, n)
        acts[:, 8], acts[:, 9] = acts[:, 8] * (which == 0), acts[:, 9] * (which == 1)
        return torch.tensor(acts, dtype=torch.float32)

    def encode_sparse(self, x):
        """Rows are activations already."""
        values, indices = x.topk(16, dim=1)
        return SparseActs(values, indices)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_circle_is_the_irreducible_plane_and_nothing_else_is(seed):
    sae = PlantedDictionary(seed)
    found = feature_planes(sae, sae.acts(2000, seed).split(1000), threshold=0.6, n_random=4)
    assert found.n_clusters == 2
    best = found.planes[0]
    assert best.latents == tuple(range(8))
    cosines = np.linalg.svd(best.plane.basis @ sae.circle.T, compute_uv=False)  # of the principal angles
    assert cosines.min() > 0.999
    assert [each.latents for each in found.above_random] == [tuple(range(8))]
    assert "1 of" in str(found)


def test_clusters_are_chains_of_near_rows():
    sae = PlantedDictionary(0)
    assert cluster_decoder(sae.W, threshold=0.6) == [list(range(8)), [8, 9]]
    assert cluster_decoder(sae.W, threshold=0.75) == [[8, 9]]
    assert cluster_decoder(sae.W, threshold=0.6, largest=5) == [[8, 9]]


def test_a_dictionary_without_near_rows_says_so():
    sae = PlantedDictionary(0)
    sae.W, sae.d_sae = sae.W[10:], len(sae.W) - 10
    with pytest.raises(ConfigError, match="lower the threshold"):
        feature_planes(sae, [torch.rand(300, sae.d_sae)])


def test_latents_that_are_hardly_on_are_counted_as_such():
    sae = PlantedDictionary(0)
    found = feature_planes(sae, [sae.acts(100, 0)], threshold=0.6, n_random=2)
    assert found.planes == ()
    assert sum(found.skipped.values()) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"clusters": [[0, 999]]}, "latents 0 to 29, got 999"),
        ({"clusters": [[0, -1]]}, "latents 0 to 29, got -1"),
        ({"clusters": [[0, 1.5]]}, "latents 0 to 29, got 1.5"),
        ({"clusters": [[0, 0]]}, "a latent twice"),
        ({"clusters": [[]]}, "an empty one"),
        ({"clusters": []}, "got none"),
        ({"max_components": 1}, "max_components 1"),
        ({"max_clusters": 0}, "max_clusters 0"),
        ({"n_random": -1}, "n_random -1"),
        ({"threshold": np.nan}, "threshold"),
    ],
)
def test_clusters_and_settings_that_have_no_plane_are_refused(settings, expected):
    sae = PlantedDictionary(0)
    with pytest.raises(ConfigError, match=expected):
        feature_planes(sae, [sae.acts(300, 0)], **settings)


def test_clusters_may_be_an_array_and_activations_must_be_finite_batches():
    sae = PlantedDictionary(0)
    for clusters in ([[0, 1, 2]], np.array([[0, 1, 2]])):
        found = feature_planes(sae, [sae.acts(600, 0)], clusters=clusters, n_random=0)
        assert found.planes[0].latents == (0, 1, 2)
    with pytest.raises(NonFiniteError, match="activations must be finite"):
        feature_planes(sae, [sae.acts(300, 0) * np.nan], threshold=0.6)
    for batches in ([], sae.acts(300, 0)):
        with pytest.raises(ConfigError, match="batch"):
            feature_planes(sae, batches, threshold=0.6)
    for wrong in ({"directions": sae.W[0]}, {"directions": sae.W[:0]}, {"n_neighbours": 0}, {"largest": 1}):
        with pytest.raises(ConfigError, match="one neighbour"):
            cluster_decoder(**{"directions": sae.W} | wrong)
