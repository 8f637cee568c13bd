"""How often the step in torch operations would wait for an accelerator: counted by the operations that it runs."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saes.kernels._plain import PlainOps
from saes.kernels.state import TrainState
from saes.kernels.step import Stepper, StepSettings
from saes.kinds.config import BatchTopKConfig, TopKConfig
from saes.kinds.registry import recipe_of

WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.bincount", "aten.masked_select", "aten.unique")
"""Operations whose result, or its size, the program needs; a mask as an index is `nonzero` inside."""


class Waits(TorchDispatchMode):
    """Count the operations for which a program waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        masks = name.startswith("aten.index") and any(
            isinstance(each, torch.Tensor) and each.dtype == torch.bool
            for each in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        unsized = name == "aten.repeat_interleave.Tensor" and (kwargs or {}).get("output_size") is None
        self.found[name] += name.startswith(WAITS) or masks or unsized
        return func(*args, **(kwargs or {}))


def test_a_mask_a_number_and_a_size_are_counted() -> None:
    x = torch.randn(20)
    with Waits() as waits:
        _ = x[x > 0]
        _ = float(x.sum())
        _ = torch.repeat_interleave(torch.ones(3, dtype=torch.int64))
        _ = x[torch.arange(3)] + 1
    assert waits.found.total() == 3


@pytest.mark.parametrize(("config", "allowed"), [(TopKConfig, 2), (BatchTopKConfig, 4)])
def test_a_step_waits_for_few_numbers(config: Any, allowed: int) -> None:
    """Dead latents, the norm for clipping; BatchTopK also the number of entries and the threshold."""
    state = TrainState.initial(torch.zeros(32), 256, generator=torch.Generator().manual_seed(0))
    x = torch.randn(512, 32, generator=torch.Generator().manual_seed(1))
    stepper = Stepper(StepSettings(variance=32.0, k_aux=16), recipe_of(config(d_sae=256, k=8)), PlainOps())
    stepper.step(state, x, 1e-3)
    with Waits() as waits:
        stepper.step(state, x, 1e-3)
    assert waits.found.total() <= allowed, waits.found
    state.silent[:40] = 10**9
    with Waits() as waits:
        assert stepper.step(state, x, 1e-3).n_dead == 40
    assert waits.found.total() <= allowed + 2, waits.found  # the dead that take part, rows with more than k_aux
