"""Toys trained by recipe: small models with a known mechanism, the same in many training runs.

    toy:induction-2l    learns to copy the token that followed before, by a previous-token head and induction heads
    toy:induction-1l    one layer on the same data: cannot learn it (the loss stays at 3.0 nats)
    toy:fixed-period-1l a one-layer control whose rows all repeat with period 16: it copies perfectly, by position and
                        not by content, which misleads a detector that reads behaviour or tests a single lag

The data of the first two are random tokens that repeat with a period drawn per row.
`load_model("toy:induction-2l")` trains one (about a minute) and stores it in the cache.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import UnknownNameError
from interp.models.small import SmallConfig, build_small, is_small_folder, load_small, save_small
from interp.models.training import TrainingConfig, TrainingStep, train_small
from interp.runtime import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge

TOY_PREFIX = "toy:"


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A recipe: the model, its data, and how it is trained."""

    model: SmallConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    min_period: int
    max_period: int
    """each row repeats with a period drawn evenly from these"""

    def batches(self, n: int, generator: "torch.Generator") -> "Tensor":
        """Draw `[n, n_ctx]` tokens, each row random and repeating with its own period."""
        return repeating_rows(n, self.model.n_ctx, self.model.d_vocab, self.min_period, self.max_period, generator)


_POSITIVE = SmallConfig(n_layers=2, d_model=64, n_heads=4, d_vocab=64, n_ctx=64)
TOYS = {
    "induction-2l": Toy(model=_POSITIVE, min_period=8, max_period=32),
    "induction-1l": Toy(model=replace(_POSITIVE, n_layers=1), min_period=8, max_period=32),
    "fixed-period-1l": Toy(
        model=replace(_POSITIVE, n_layers=1, n_ctx=32),
        training=TrainingConfig(lr=3e-3, steps=600),
        min_period=16,
        max_period=16,
    ),
}


def find_toy(spec: str) -> Toy:
    """Return the recipe of a spec such as `"toy:induction-2l"`. Raises `UnknownNameError` with the nearest names."""
    name = spec.removeprefix(TOY_PREFIX)
    if name not in TOYS:
        raise UnknownNameError("toy", spec, [TOY_PREFIX + each for each in TOYS])
    return TOYS[name]


def train_toy(
    spec: "str | Toy", *, seed: int = 0, progress: "Callable[[TrainingStep, int], None] | None" = None
) -> "TransformerBridge":
    """Train a toy, and return it in evaluation mode. `seed` determines both the weights and the data."""
    import torch

    toy = find_toy(spec) if isinstance(spec, str) else spec
    model = build_small(toy.model, seed=seed, device="cpu", dtype=torch.float32)
    training = replace(toy.training, seed=seed)
    with one_thread():
        for step in train_small(model, toy.batches, training):
            if progress is not None:
                progress(step, training.steps)
    return model


def cached_toy(spec: str, folder: Path, *, seed: int, device: str, dtype: Any) -> "TransformerBridge":
    """Return the toy of a spec, trained first when `folder` holds none by this recipe and seed."""
    toy = find_toy(spec)
    path = folder / f"{spec.removeprefix(TOY_PREFIX)}-seed{seed}-{_recipe_hash(toy)}"
    if not is_small_folder(path):
        save_small(train_toy(toy, seed=seed), toy.model, path)
    return load_small(path, device=device, dtype=dtype)


def _recipe_hash(toy: Toy) -> str:
    return hashlib.sha256(repr(toy).encode()).hexdigest()[:12]


def repeating_rows(
    n: int, length: int, d_vocab: int, min_period: int, max_period: int, generator: "torch.Generator"
) -> "Tensor":
    """Draw `[n, length]` random tokens; row i repeats with a period drawn uniformly from `min_period .. max_period`."""
    import torch

    tokens = torch.randint(d_vocab, (n, max_period), generator=generator)
    periods = torch.randint(min_period, max_period + 1, (n, 1), generator=generator)
    return tokens.gather(1, torch.arange(length)[None] % periods)
