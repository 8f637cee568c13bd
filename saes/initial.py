"""Where a run starts: weights drawn from a seed, biases at the mean of the data, others from a batch."""

from collections.abc import Callable

import torch

from saes.batches import TrainingBatch
from saes.kernels.state import TrainState
from saes.kinds.recipe import Recipe
from saes.source import Source


def initial_state(
    recipe: Recipe, source: Source, d_sae: int, first_batch: Callable[[], TrainingBatch], generator: torch.Generator
) -> TrainState:
    """The state before the first step. `first_batch` is only called by kinds that start from data."""
    mean = (source.mean_out * source.scales.output).float()
    state = TrainState.initial(mean, d_sae, generator=generator)
    if recipe.starts_from_data:
        x = first_batch().x * source.scales.input.float()
        centred = x - state.b_dec
        state.extra = recipe.own_parameters(torch.addmm(state.b_enc, centred, state.W_enc.T))
        state.zero_moments()
    return state
