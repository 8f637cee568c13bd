"""The principal components as a dictionary."""

import pytest
import torch
from planted import HOOK, random_recording
from test_train_kinds import planted

from interp.dictionary import Dictionary
from interp.errors import ConfigError
from saes.evaluation.baselines import pca_of
from saes.kinds.config import BatchTopKConfig
from saes.training.config import TrainConfig
from saes.training.reconstruction import evaluate_on_recording
from saes.training.train import train_sae
from saes.weights.folder import load_sae, save_sae


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return random_recording(tmp_path_factory.mktemp("recordings") / "random", n_contexts=60)


def training_rows(recording):
    return torch.cat([b.activations[HOOK] for b in recording.sequential(split="train")]).double()


def test_components_are_those_of_a_singular_value_decomposition(recording):
    rows = training_rows(recording)
    _, _, expected = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    found = pca_of(recording, HOOK, k=3)
    d = recording.d(HOOK)
    cosines = (found.W_dec[:d].double() * expected).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones(d, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.W_dec[d:], -found.W_dec[:d])
    torch.testing.assert_close(found.b_dec.double(), rows.mean(0), atol=1e-5, rtol=1e-5)


def test_all_components_reconstruct_exactly_and_k_of_them_beat_the_first_k(recording):
    d, rows = recording.d(HOOK), training_rows(recording)
    assert evaluate_on_recording(pca_of(recording, HOOK, k=d), recording, "train").fvu < 1e-10
    variances = torch.linalg.svdvals(rows - rows.mean(0)).square()
    for k in (1, 4, 8):
        found = evaluate_on_recording(pca_of(recording, HOOK, k=k), recording, "train")
        assert found.l0 == pytest.approx(k)
        assert found.fvu < float(variances[k:].sum() / variances.sum())


def test_it_is_a_dictionary_that_is_saved_and_loaded(recording, tmp_path):
    pca = pca_of(recording, HOOK, k=4)
    assert isinstance(pca, Dictionary)
    save_sae(pca, tmp_path)
    x = training_rows(recording)[:20].float()
    assert torch.equal(load_sae(tmp_path)(x), pca(x))
    assert (pca.encode(x) >= 0).all()


def test_learned_features_beat_it_at_the_same_l0_where_there_are_features(one_thread, tmp_path):
    made = planted(tmp_path / "planted", n=12_000)
    settings = TrainConfig(tokens=150_000, batch_size=256, lr=1e-2, log_every=500)
    sae = train_sae(made, HOOK, BatchTopKConfig(d_sae=64, k=3), settings, tmp_path / "sae")
    learned, linear = (evaluate_on_recording(each, made).fvu for each in (sae, pca_of(made, HOOK, k=3)))
    assert learned < 0.6 * linear


@pytest.mark.parametrize("k", [0, 13])
def test_more_components_than_dimensions_are_refused(recording, k):
    with pytest.raises(ConfigError, match="between 1 and the width 12"):
        pca_of(recording, HOOK, k=k)
