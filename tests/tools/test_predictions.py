"""The study of frozen parts: with all of them held, prediction, edges and ablation are one."""

import numpy as np
import pytest
import torch

from interp.tracing.effects import first_order_effects, predicted_effects
from interp.tracing.trace import assemble
from tests.interp.tracing_graphs import CONFIG, aim_of, system_of
from tools.predictions import PARTS, ablated, first_order


@pytest.mark.parametrize("name", ["llama-gqa", "gemma-2"])
def test_with_everything_frozen_the_first_order_effect_is_that_along_edges_and_the_ablation(name):
    system = system_of(name, "some neurons")
    aim = aim_of(system)
    adjacency, read = assemble(system, aim, CONFIG), aim.starts.read[0]
    numbers = torch.as_tensor(adjacency.features)
    layers, activations = system.layer[numbers].numpy(), system.activation[numbers].double().numpy()
    frozen = first_order(system, read, PARTS[-1])[numbers].numpy()
    np.testing.assert_allclose(frozen, predicted_effects(adjacency, layers, activations), atol=1e-5)
    np.testing.assert_allclose(
        ablated(system, numbers, np.arange(20)[:, None], read, PARTS[-1]), frozen[:20], atol=1e-5
    )
    free = first_order_effects(system, read[None])[0, numbers].numpy()
    np.testing.assert_allclose(first_order(system, read, "")[numbers].numpy(), free, atol=1e-6)
    assert np.abs(free - frozen).max() > 0.01 * np.abs(frozen).max(), "what is frozen matters"
