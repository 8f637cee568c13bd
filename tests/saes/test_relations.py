"""Relations of features: planted tokens, neurons and companions come back; random directions find nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted import HOOK, TableDictionary, random_recording

from interp.dictionary import SparseActs
from interp.models.adapter import weight_hash
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from saes.features._relations import N_DIRECTIONS, coactivation, logit_relations, neuron_relations

D = 32


@pytest.fixture(scope="module")
def model():
    return load_model(SmallConfig(d_model=D, n_heads=4, d_mlp=20, n_layers=2, d_vocab=200, normalization="RMS"))


def test_a_direction_of_one_token_promotes_more_than_random_ones(model):
    tokens = torch.nn.functional.normalize(model.W_U.detach().T.float(), dim=1)[:20]
    random = torch.randn(400, D, generator=torch.Generator().manual_seed(3))
    found = logit_relations(model, torch.cat([tokens, random]), seed=0)
    assert (found.promoted_p[:20] <= 0.05).mean() > 0.8
    p = found.promoted_p[20:]
    assert (p <= 0.05).mean() < 0.1
    assert 0.4 < p.mean() < 0.6
    assert found.promoted_p.min() >= 1 / (1 + N_DIRECTIONS)


def test_histograms_count_the_whole_vocabulary(model):
    found = logit_relations(model, torch.randn(5, D), seed=0)
    assert (found.counts.sum(1) == model.cfg.d_vocab).all()
    assert found.null_counts.sum() == pytest.approx(model.cfg.d_vocab)
    assert len(found.edges) == found.counts.shape[1] + 1


def test_the_planted_neuron_is_the_nearest(model):
    W_out = model.blocks[1].mlp.W_out.detach().float()
    directions = torch.stack([2 * W_out[7], -W_out[3], torch.randn(D)])
    found = neuron_relations(model, directions, "blocks.1.hook_resid_post", seed=0)
    assert (found.layers[:2, 0] == 1).all()
    assert found.neurons[:2, 0].tolist() == [7, 3]
    assert found.cosines[:2, 0] == pytest.approx([1, -1], abs=1e-5)
    early = neuron_relations(model, directions, "blocks.0.hook_resid_post", seed=0)
    assert (early.layers == 0).all()
    random = torch.randn(400, D, generator=torch.Generator().manual_seed(1))
    null = neuron_relations(model, random, "blocks.1.hook_resid_post", seed=0)
    assert (np.abs(null.cosines[:, 0]) > null.null).mean() < 0.12


class Pair(TableDictionary):
    """Latents 0 and 1 fire together on positive first coordinates, latent 2 on the second alone."""

    def encode_sparse(self, x: torch.Tensor) -> SparseActs:
        acts = torch.zeros(len(x), self.d_sae)
        acts[:, 0] = acts[:, 1] = torch.relu(x[:, 0])
        acts[:, 2] = torch.relu(x[:, 1])
        return SparseActs(acts, torch.arange(self.d_sae).expand(len(x), -1))


def test_companions_are_found_with_the_count_of_chance(model, tmp_path: Path):
    recording = random_recording(tmp_path / "rec", n_contexts=60, weight_hash=weight_hash(model), d=D)
    found = coactivation(Pair(D), recording, HOOK, seed=0)
    assert found.n_tokens == 60 * 15
    assert found.features[0][0] == 1
    assert found.jaccard[0][0] == 1.0
    assert found.features[2][:2] == [0, 1]
    both, expected = found.both[2][0], found.expected[2][0]
    assert abs(both - expected) < 4 * expected**0.5  # independent coordinates meet as often as chance says
    assert 5 not in found.features[0]
    assert found.features[5] == []
