"""A model with known features at two places and one known cause: A after block 0 makes B after block 1.

No norms, no attention. Token `t` puts `STRENGTH` along direction `t` into the stream. The MLP of block 1 reads
direction `A` and writes `GAIN` times as much along `B`; a second neuron reads `A2` and writes along `IDLE`, which the
logits do not read: they read `B` alone (token `ANSWER`), `READ` logits per unit. The dictionaries at both places are
the coordinates themselves: perfect, so that errors are 0.
"""

from typing import Any

import torch
from architectures import blank

from interp.models.hooked import HookedModel
from interp.patching.metrics import LogitDiff
from interp.patching.task import Task
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE

D, N_TOKENS = 32, 12
A, A2, B, IDLE, ANSWER = 3, 4, 20, 21, 7
STRENGTH, GAIN, READ = 2.0, 1.5, 3.0
SCORE = STRENGTH * GAIN * READ
"""of the one edge, in logits"""
PLACES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")


def planted_pair() -> Any:
    model = blank(n_layers=2, d_model=D, n_heads=2, d_mlp=16, d_vocab=N_TOKENS, n_ctx=8, act_fn="relu")
    with torch.no_grad():
        model.W_E[:, :N_TOKENS] = STRENGTH * torch.eye(N_TOKENS)
        mlp = model.blocks[1].mlp
        for neuron, (reads, writes) in enumerate([(A, B), (A2, IDLE)]):
            getattr(mlp, "in").original_component.weight[neuron, reads] = 1.0
            mlp.out.original_component.weight[writes, neuron] = GAIN
        model.unembed.original_component.weight[ANSWER, B] = READ
    return model


def perfect_dictionaries() -> list[ReLUSAE]:
    eye = torch.eye(D)
    weights = Weights(eye, torch.zeros(D), eye, torch.zeros(D))
    return [ReLUSAE(weights, metadata=SAEMetadata(model="planted pair", hook_point=place)) for place in PLACES]


def planted_task(model: HookedModel, n: int = 6) -> Task:
    """The last token is A where the prompt is clean, another (A2 among them) where it is corrupted."""
    generator = torch.Generator().manual_seed(0)
    others = torch.tensor([t for t in range(N_TOKENS) if t != A])
    clean = others[torch.randint(len(others), (n, 4), generator=generator)]
    corrupt = clean.clone()
    clean[:, -1], corrupt[:, -1] = A, others[torch.randint(len(others), (n,), generator=generator)]
    corrupt[0, -1] = A2
    return Task.of(model, clean, corrupt, LogitDiff(correct=[ANSWER] * n, wrong=[0] * n), name="planted")
