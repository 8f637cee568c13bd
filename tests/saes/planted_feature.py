"""A model of one block in which features have known effects, and tables of features over random text."""

import math
from pathlib import Path

import torch
from architectures import blank
from planted import write_recording

from interp.models.adapter import run_with_cache, weight_hash
from saes.features.build import Described, build_features
from saes.features.schema import FeaturesConfig
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE

D, V, LENGTH = 144, 128, 16
CAUSE, OTHER, ANSWER, IDLE, VOICE = 3, 7, 9, 20, V + 1
WORDS = (CAUSE, 60, 61, 62)
"""tokens that lie along CAUSE, which raises them"""
RAISED = (ANSWER, *WORDS)
"""tokens that CAUSE raises; each of WORDS is followed by ANSWER"""
ELSEWHERE = tuple(range(40, 52))
"""tokens that OTHER raises; it fires on itself alone"""
STRENGTH = 2.0
READ = 2.5 - 0.01 * torch.arange(12, dtype=torch.float32)
HOOK = "blocks.0.hook_resid_post"


def planted_model(n_layers: int = 1):
    """Token `t` writes STRENGTH along direction `t`, WORDS along CAUSE; the logits read CAUSE and OTHER.

    They read the last directions, which no token writes, at random: random directions say something, too.
    """
    model = blank(n_layers=n_layers, d_model=D, n_heads=2, d_mlp=8, d_vocab=V, n_ctx=32)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        model.W_E[:, :V] = STRENGTH * torch.eye(V)
        model.W_E[list(WORDS)] = model.W_E[CAUSE].clone()
        unembed = model.unembed.original_component.weight
        unembed[:, VOICE + 8 :] = 1.5 * torch.randn(V, D - VOICE - 8, generator=generator)
        unembed[list(RAISED), CAUSE] = READ[: len(RAISED)]
        unembed[list(ELSEWHERE), OTHER] = READ[: len(ELSEWHERE)]
    return model


def with_memory(weight: float):
    """Return the planted model with a second block, in which every token reads the mean of CAUSE over those before."""
    model = planted_model(2)
    with torch.no_grad():
        attention = model.blocks[1].attn
        attention.v.original_component.weight[0, CAUSE] = 1.0
        attention.o.original_component.weight[CAUSE, 0] = weight
    return model


def rise(activation: float, tokens: tuple[int, ...]) -> float:
    """Return the rise of the mean log-probability of tokens when the last residual has an activation along CAUSE."""
    logits = torch.zeros(V)
    logits[list(RAISED)] = activation * READ[: len(RAISED)]
    return float(logits.log_softmax(-1)[list(tokens)].mean()) + math.log(V)


def dictionary(W_dec: torch.Tensor | None = None, W_enc: torch.Tensor | None = None) -> ReLUSAE:
    """Return the coordinates as latents; the arguments replace what they write and read."""
    eye, zeros = torch.eye(D), torch.zeros(D)
    weights = Weights(eye if W_enc is None else W_enc, zeros, eye if W_dec is None else W_dec, zeros)
    return ReLUSAE(weights, metadata=SAEMetadata(model="tiny", hook_point=HOOK))


def build(folder: Path, model, sae, *, hook_point: str = HOOK, n_contexts: int = 240) -> Path:
    """Build feature tables over random tokens in which each of WORDS is followed by ANSWER."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(V, (n_contexts, LENGTH), generator=generator)
    row, at = torch.isin(tokens[:, :-1], torch.tensor(WORDS)).nonzero(as_tuple=True)
    tokens[row, at + 1] = ANSWER
    _, values = run_with_cache(model, tokens, [hook_point])
    document = torch.arange(n_contexts).repeat_interleave(LENGTH)
    recording = write_recording(
        folder / "rec", values[hook_point].flatten(0, 1), tokens.flatten(), document, context_length=LENGTH,
        shard_contexts=60, hook_point=hook_point, weight_hash=weight_hash(model),
    )  # fmt: skip
    build_features(
        Described(dictionary=sae, name="sae:planted", folder=folder / "feat"),
        recording,
        model,
        FeaturesConfig(window=6),
    )
    return folder / "feat"
