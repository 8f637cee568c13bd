"""Where a run starts: weights drawn from a seed, biases at the mean of the data, others from a batch."""

from collections.abc import Callable

import torch

from saes.batches import TrainingBatch
from saes.kernels.state import TrainState
from saes.kernels.step import choose_ops
from saes.kinds.recipe import Recipe
from saes.source import Source


def initial_state(
    recipe: Recipe,
    source: Source,
    d_sae: int,
    first_batch: Callable[[], TrainingBatch],
    generator: torch.Generator,
    latents: slice = slice(None),
) -> TrainState:
    """The state before the first step, or the `latents` of it.

    `first_batch` (the whole batch, on every rank) is only called by kinds that start from data.
    """
    scales, mean = source.scales, (source.mean_out * source.scales.output).float()
    d_in = source.d_in if source.target else None
    state = TrainState.initial(mean, d_sae, generator=generator, d_in=d_in, latents=latents)
    if recipe.starts_from_data:
        x, target, _ = first_batch()
        target = None if target is None else target * scales.output.float()
        recipe.start(choose_ops("cpu"), state, source.scaled(x), target)
        state.zero_moments()
    return state
