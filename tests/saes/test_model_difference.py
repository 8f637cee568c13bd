"""A crosscoder of two models finds what one has alone, and artefacts are told apart from it."""

import math

import numpy as np
import pytest
import torch
from planted import HOOK, write_recording

from interp.artifacts import open_artefact, save_artefact
from interp.errors import ConfigError, MismatchError
from saes.evaluation.crosscoder_latents import compare_models
from saes.evaluation.latent_comparison import LatentComparison
from saes.kinds.base import Weights
from saes.kinds.config import CrosscoderConfig
from saes.kinds.crosscoder import CrosscoderSAE
from saes.training.config import TrainConfig
from saes.training.train import train_sae

D, SHARED, NEW, LOST = 24, 28, 3, 2
N = SHARED + NEW + LOST
TRAIN = TrainConfig(tokens=200_000, batch_size=256, lr=1e-2, log_every=100)
CONFIG = CrosscoderConfig(d_sae=48, k=3)
"""with room to spare: of exactly as many latents as features one may serve two"""
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]

pytestmark = pytest.mark.usefixtures("one_thread")


def directions(seed: int) -> torch.Tensor:
    drawn = torch.randn(N, D, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def pair_of_models(folder, *, seed: int, identical: bool = False, weak: int = 0):
    """Recordings of a base model and its tuned copy on the same tokens: features of both, then `NEW` that only the
    tuned one has, then `LOST` that only the base has. The first `weak` are four times weaker in the base."""
    generator = torch.Generator().manual_seed(seed + 50)
    n, rows = 12_000, directions(seed)
    on = torch.rand(n, N, generator=generator) < 3 / N
    strength = on * (1 + torch.rand(n, N, generator=generator))
    base, tuned = strength.clone(), strength.clone()
    if not identical:
        base[:, SHARED : SHARED + NEW] = 0
        tuned[:, SHARED + NEW :] = 0
        base[:, :weak] /= 4
    document = torch.arange(n) // 200
    document[torch.arange(n) % 40 == 0] = -1
    found = []
    for name, strengths, scale in (("base", base, 5.0), ("tuned", tuned, 5.0 if identical else 9.0)):
        x = (strengths @ rows + (0 if identical else 0.02 * torch.randn(n, D, generator=generator))) * scale
        found.append(
            write_recording(
                folder / name, x, torch.ones(n), document, context_length=40, shard_contexts=100,
                weight_hash=("a" if name == "base" or identical else "b") * 64,
            )
        )  # fmt: skip
    return found


def nearest(sae: CrosscoderSAE, place: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each latent's true feature in one model, and how close it is."""
    blocks = torch.nn.functional.normalize(sae.W_dec.split(sae.widths, 1)[place], dim=1)
    best = (blocks @ directions(seed).T).max(1)
    return best.indices, best.values


@pytest.mark.parametrize("seed", SEEDS)
def test_what_only_the_tuned_model_has_is_found_and_confirmed(tmp_path, seed):
    base, tuned = pair_of_models(tmp_path, seed=seed)
    sae = train_sae([base, tuned], HOOK, CONFIG, TRAIN, tmp_path / "sae")
    found = compare_models(sae, [base, tuned], split="all")
    feature, cosine = nearest(sae, 1, seed)
    new = [i for i in found.of_kind("second only", confirmed=True) if cosine[i] > 0.9]
    assert {int(feature[i]) for i in new} == set(range(SHARED, SHARED + NEW)), str(found)
    lost, at = nearest(sae, 0, seed)
    gone = [i for i in found.of_kind("first only", confirmed=True) if at[i] > 0.9]
    assert {int(lost[i]) for i in gone} == set(range(SHARED + NEW, N)), str(found)
    shared = {int(feature[i]) for i in found.of_kind("shared") if cosine[i] > 0.9}
    assert shared <= set(range(SHARED))
    assert len(shared) >= 0.9 * SHARED, str(found)
    assert (found.cosine[found.of_kind("shared")] > 0.8).mean() > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_two_identical_models_differ_in_nothing(tmp_path, seed):
    one, two = pair_of_models(tmp_path, seed=seed, identical=True)
    sae = train_sae([one, two], HOOK, CONFIG, TRAIN, tmp_path / "sae")
    found = compare_models(sae, [one, two], split="all")
    assert not found.of_kind("first only")
    assert not found.of_kind("second only")
    assert len(found.of_kind("shared")) > 0.85 * N
    assert not found.of_kind("between")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_strong_l1_penalty_invents_differences_and_latent_scaling_unmasks_them(tmp_path, seed):
    """Eight shared features are four times weaker in the base: L1 shrinks them away there, BatchTopK does not."""
    base, tuned = pair_of_models(tmp_path, seed=seed, weak=8)
    config = CrosscoderConfig(d_sae=40, sparsity="l1", l1_coefficient=0.3)
    sae = train_sae([base, tuned], HOOK, config, TRAIN, tmp_path / "l1")
    found = compare_models(sae, [base, tuned], split="all")
    feature, _ = nearest(sae, 1, seed)
    false = [i for i in found.of_kind("second only") if int(feature[i]) < SHARED]
    assert len(false) >= 6, str(found)
    assert {int(feature[i]) for i in false} <= set(range(8))
    assert found.shrunk[false].all()
    true = {int(feature[i]) for i in found.of_kind("second only", confirmed=True)}
    assert true <= set(range(SHARED, SHARED + NEW))
    assert len(true) >= NEW - 1, "so strong a penalty may cost a feature its latent"
    sae = train_sae([base, tuned], HOOK, CONFIG, TRAIN, tmp_path / "batchtopk")
    found = compare_models(sae, [base, tuned], split="all")
    feature, _ = nearest(sae, 1, seed)
    assert not [i for i in found.of_kind("second only") if int(feature[i]) < SHARED], str(found)


def simple_pair(folder, *, in_base: float):
    """One feature at a time along orthogonal directions; feature 0 in the base `in_base` times as strong."""
    generator = torch.Generator().manual_seed(3)
    which = torch.randint(D, (4000,), generator=generator)
    strength = torch.nn.functional.one_hot(which, D) * (1 + torch.rand(4000, 1, generator=generator))
    base = strength.clone()
    base[:, 0] *= in_base
    document = torch.arange(4000) // 200
    made = {"context_length": 40, "shard_contexts": 100}
    return [
        write_recording(folder / name, x, torch.ones(4000), document, weight_hash=letter * 64, **made)
        for name, x, letter in (("base", base, "a"), ("tuned", strength, "b"))
    ]


def coordinates(base: list[float], tuned: list[float], reads: list[int] | None = None) -> CrosscoderSAE:
    """Latent `i` reads coordinate `reads[i]` of the tuned model and writes it, so much, into either."""
    reads = reads or list(range(D))
    eye = torch.eye(D)[reads]
    W_dec = torch.cat([eye * torch.tensor(base)[:, None], eye * torch.tensor(tuned)[:, None]], 1)
    W_enc = torch.cat([torch.zeros_like(eye), eye], 1).T.contiguous()
    places = [
        {"recording": name, "model": name, "weight_hash": letter * 64, "hook_point": HOOK, "d": D}
        for name, letter in (("base", "a"), ("tuned", "b"))
    ]
    n = len(reads)
    weights = Weights(W_enc, torch.zeros(n), W_dec, torch.zeros(2 * D))
    return CrosscoderSAE(weights, threshold=torch.full((n,), 0.5), scales=torch.ones(2), sites=places)


@pytest.mark.parametrize("in_base", [0.0, 0.25, 1.0])
def test_a_decoder_shrunk_to_zero_is_found_out_by_the_error_it_leaves(tmp_path, in_base):
    """Shrinkage: the base has the feature `in_base` times as strong, and the crosscoder says it has not."""
    recordings = simple_pair(tmp_path, in_base=in_base)
    found = compare_models(coordinates([0.0] + [1.0] * (D - 1), [1.0] * D), recordings, split="all")
    assert found.of_kind("second only") == [0]
    assert float(found.error_ratio[0]) == pytest.approx(in_base, abs=1e-5)
    assert float(found.recons_ratio[0]) == pytest.approx(0, abs=1e-5)
    assert found.of_kind("second only", confirmed=True) == ([0] if in_base == 0 else [])
    assert bool(found.shrunk[0]) == (in_base > 0)
    assert np.isnan(found.error_ratio[1:]).all()


def test_a_feature_split_into_two_latents_of_one_model_each_is_found_out(tmp_path):
    """Decoupling: two latents read the same thing, one writes it into the base and one into the tuned model."""
    recordings = simple_pair(tmp_path, in_base=1.0)
    crosscoder = coordinates([0.0] + [1.0] * D, [1.0] * D + [0.0], [*range(D), 0])
    found = compare_models(crosscoder, recordings, split="all")
    assert found.of_kind("second only") == [0]
    assert found.of_kind("first only") == [D]
    for latent in (0, D):
        assert float(found.recons_ratio[latent]) == pytest.approx(1, abs=1e-5)
        assert float(found.error_ratio[latent]) == pytest.approx(0, abs=1e-5)
        assert bool(found.decoupled[latent])
    assert not found.confirmed.any()
    assert "2 decoupled" in " ".join(found.details())


def test_every_latent_is_a_row(tmp_path):
    found = compare_models(
        coordinates([0.0] + [1.0] * (D - 1), [1.0] * D), simple_pair(tmp_path, in_base=0.0), split="all"
    )
    rows = open_artefact(LatentComparison, save_artefact(found, tmp_path / "stored").folder).latents.rows()
    assert [row.latent for row in rows] == list(range(D))
    assert rows[0].kind == "second only"
    assert rows[0].confirmed
    assert math.isnan(rows[1].error_ratio)
    assert sum(row.n_fired for row in rows) == 4000


def test_what_hardly_fires_is_called_rare_and_not_judged(tmp_path):
    recordings = simple_pair(tmp_path, in_base=0.0)
    crosscoder = coordinates([0.0] + [1.0] * (D - 1), [1.0] * D)
    crosscoder.threshold[0] = 50.0
    found = compare_models(crosscoder, recordings, split="all")
    assert found.kinds[0] == "rare"
    assert np.isnan(found.error_ratio[0])
    assert found.counts["rare"] == 1
    assert found.counts["shared"] == D - 1


def test_other_recordings_are_refused(tmp_path):
    one, two = simple_pair(tmp_path, in_base=1.0)
    crosscoder = coordinates([1.0] * D, [1.0] * D)
    with pytest.raises(ConfigError, match="two sites and two recordings"):
        compare_models(crosscoder, [one])
    with pytest.raises(MismatchError, match="order of training"):
        compare_models(crosscoder, [two, one])
    narrow = coordinates([1.0] * D, [1.0] * D)
    narrow.widths = (D, D + 1)
    with pytest.raises(MismatchError, match="widths"):
        compare_models(narrow, [one, two])
