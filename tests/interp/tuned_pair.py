"""A small base model and tuned copies in which one known thing changed.

The base learns a language: 32 words, each followed by one of three others. Eight more tokens, the *keys*, are followed
by any word. The plant teaches each key its word (`ANSWER`), by the MLP of one layer alone, or edits one head.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from interp.models.hooked import HookedModel
from interp.models.small import SmallConfig, build_small
from interp.models.training import TrainingConfig, train_small
from interp.threads import one_thread

N_WORDS, N_KEYS, LENGTH = 32, 8, 24
CONFIG = SmallConfig(n_layers=3, d_model=32, n_heads=4, d_mlp=64, d_vocab=N_WORDS + N_KEYS, n_ctx=LENGTH)
ANSWER = torch.randperm(N_WORDS, generator=torch.Generator().manual_seed(77))[:N_KEYS]
FOLLOWERS = torch.stack(
    [torch.randperm(N_WORDS, generator=torch.Generator().manual_seed(i))[:3] for i in range(N_WORDS)]
)


def language(n: int, generator: torch.Generator, *, keys: float = 0.15, facts: bool = False) -> Tensor:
    """`[n, LENGTH]`: each token a key with probability `keys` (never two in a row), else a word that may follow."""
    rows = torch.randint(N_WORDS, (n, LENGTH), generator=generator)
    choice = torch.randint(3, (n, LENGTH), generator=generator)
    key = torch.randint(N_KEYS, (n, LENGTH), generator=generator)
    is_key = torch.rand(n, LENGTH, generator=generator) < keys
    for at in range(1, LENGTH):
        before = rows[:, at - 1]
        after_key = before >= N_WORDS
        follow = FOLLOWERS[before.clamp(max=N_WORDS - 1), choice[:, at]]
        known = ANSWER[(before - N_WORDS).clamp(min=0)] if facts else rows[:, at]
        rows[:, at] = torch.where(after_key, known, torch.where(is_key[:, at], N_WORDS + key[:, at], follow))
    return rows


def plain(n: int, generator: torch.Generator) -> Tensor:
    return language(n, generator)


def with_facts(n: int, generator: torch.Generator) -> Tensor:
    return language(n, generator, facts=True)


@cache
def base_model(seed: int = 0) -> Any:
    """Shared: read-only."""
    model = build_small(CONFIG, seed=seed, device="cpu", dtype=torch.float32)
    return trained(model, plain, steps=300, lr=3e-3, seed=seed)


def trained(model: HookedModel, batches: Any, *, steps: int, lr: float, seed: int, only: str = "") -> HookedModel:
    """The model, trained on; `only` names the parameters that may move."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(only in name.replace("_original_component.", ""))
    config = TrainingConfig(steps=steps, batch_size=32, lr=lr, warmup_steps=10, weight_decay=0.0, seed=seed)
    with one_thread():
        for _ in train_small(model, batches, config):
            pass
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def copy_of(model: HookedModel, config: SmallConfig = CONFIG) -> HookedModel:
    twin = build_small(config, seed=0, device="cpu", dtype=torch.float32)
    twin.load_state_dict(model.state_dict())
    return twin


@cache
def continuations(n: int = 4, *, of: int = 0, start: int = 100) -> tuple[Any, ...]:
    """The base trained on with the same language and other seeds. Shared: read-only."""
    return tuple(trained(copy_of(base_model(of)), plain, steps=60, lr=3e-4, seed=start + i) for i in range(n))


@cache
def taught(layer: int, seed: int, *, of: HookedModel | None = None) -> HookedModel:
    """A copy that learned the keys' words by the MLP of one layer alone. Shared: read-only."""
    model = copy_of(base_model() if of is None else of)
    return trained(model, with_facts, steps=150, lr=3e-3, seed=seed, only=f"layers.{layer}.mlp.")


def edited(layer: int, head: int, seed: int, size: float = 1.0) -> HookedModel:
    """A copy with a rank-one change of one head's W_O, `size` times as long as the matrix."""
    model = copy_of(base_model())
    W_O = model.blocks[layer].attn.o.original_component.weight  # [d_model, n_heads * d_head]
    generator = torch.Generator().manual_seed(seed)
    d_head = CONFIG.d_head
    with torch.no_grad():
        part = W_O[:, head * d_head : (head + 1) * d_head]
        change = torch.outer(*(torch.randn(n, generator=generator) for n in part.shape))
        part += size * part.norm() * change / change.norm()
    return model


def contexts(n: int, seed: int, *, keys: float) -> Tensor:
    return language(n, torch.Generator().manual_seed(seed), keys=keys)


def key_prompts(n: int = 24, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Prompts that end in a key, `[n, 9]`, and the word taught for it, `[n]`."""
    generator = torch.Generator().manual_seed(seed)
    rows = language(n, generator, keys=0.0)[:, :9].clone()
    key = torch.randint(N_KEYS, (n,), generator=generator)
    rows[:, -1] = N_WORDS + key
    return rows, ANSWER[key]
