"""Two toy models whose difference is known by construction: the tuned one has learned one thing more than its base.

The meaning of a token is a few of 28 properties, each with a direction and a strength of its own. The tuned model has
the same weights, but marks an eighth of its vocabulary with a direction that is new.
"""

from typing import Any

import pytest
import torch
from architectures import blank
from planted import HOOK, write_recording

from interp.models.adapter import run_with_cache, weight_hash
from saes.evaluation.crosscoder_latents import compare_models
from saes.kinds.config import CrosscoderConfig
from saes.training.config import TrainConfig
from saes.training.train import train_sae

D, N_PROPERTIES, N_TOKENS, LENGTH = 24, 28, 800, 40


def pair_of_models(seed: int) -> tuple[list[Any], torch.Tensor, torch.Tensor]:
    """Base and tuned, the new direction, and which tokens are marked with it."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(N_PROPERTIES + 1, D, generator=generator), dim=1)
    has = torch.rand(N_TOKENS, N_PROPERTIES, generator=generator) < 3 / N_PROPERTIES
    strength = has * (1 + torch.rand(N_TOKENS, N_PROPERTIES, generator=generator))
    marked = torch.rand(N_TOKENS, generator=generator) < 1 / 8
    models = [blank(n_layers=2, d_model=D, n_heads=2, d_vocab=N_TOKENS, n_ctx=LENGTH) for _ in range(2)]
    with torch.no_grad():
        for model, mark in zip(models, (0.0, 1.5), strict=True):
            model.W_E.copy_(strength @ rows[:-1] + mark * marked[:, None] * rows[-1])
            model.W_pos.copy_(0.05 * torch.randn(LENGTH, D, generator=torch.Generator().manual_seed(seed + 9)))
    return models, rows[-1], marked


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_what_was_learned_is_found_as_the_tuned_models_own(tmp_path, seed):
    models, new, marked = pair_of_models(seed)
    tokens = torch.randint(N_TOKENS, (300, LENGTH), generator=torch.Generator().manual_seed(seed + 5))
    recordings = []
    for name, model in zip(("base", "tuned"), models, strict=True):
        x = run_with_cache(model, tokens, [HOOK])[1][HOOK].flatten(0, 1)
        made = {"context_length": LENGTH, "shard_contexts": 100, "weight_hash": weight_hash(model)}
        recordings.append(write_recording(tmp_path / name, x, tokens.flatten(), torch.arange(len(x)) // 200, **made))
    # a token has 3.1 directions on average: with k = 3, below that, the new one is hardly given a latent of its own
    train = TrainConfig(tokens=200_000, batch_size=256, lr=1e-2, log_every=100)
    sae = train_sae(recordings, HOOK, CrosscoderConfig(d_sae=40, k=4), train, tmp_path / "sae")
    found = compare_models(sae, recordings, split="all")
    [own] = found.of_kind("second only", confirmed=True)
    assert found.of_kind("second only") == [own]
    assert not found.of_kind("first only")
    assert float(torch.nn.functional.normalize(sae.W_dec[own, D:], dim=0) @ new) > 0.95
    assert int(found.n_fired[own]) == pytest.approx(int(marked[tokens].sum()), rel=0.02)
    assert len(found.of_kind("shared")) >= 24
