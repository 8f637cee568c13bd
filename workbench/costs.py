"""Costs of the steps of `workbench own` on this machine: bytes on disk and in memory, seconds.

Seconds follow from one timed model pass and one timed matrix product. Each step's share of both was read off runs of
SmolLM2-135M on two cores, so elsewhere the estimates are right to a factor of two.
"""

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.cache import size_text
from interp.devices import free_memory
from interp.errors import ResourceError
from interp.progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from interp.models.hooked import HookedModel

BATCH = 2_048
"""Tokens of the pass that is measured."""
_PROGRAM = 0.8e9
"""Bytes of Python and torch before any model is read."""
_LATENT_BYTES = 6_000
"""Bytes of the tables and the index of one feature."""


@dataclass(frozen=True)
class CostSizes:
    """Sizes that the costs follow from."""

    tokens: int
    """tokens that are recorded"""
    seen: int
    """tokens that the dictionary is trained on, repeats counted"""
    d_in: int
    d_sae: int
    rounds: int
    """rounds of the Jacobian lens; 0 for none"""


@dataclass(frozen=True)
class ModelPace:
    """Speed and size of a model on this machine."""

    batch: float
    """seconds of a pass of `BATCH` tokens"""
    product: float
    """seconds of 10^9 multiplications of a matrix product"""
    memory: float
    """bytes of the weights, and of the values of a pass"""
    layers: int


@dataclass(frozen=True)
class Cost:
    """Costs of a step."""

    disk: float
    memory: float
    seconds: float

    def __str__(self) -> str:
        disk = size_text(self.disk) if self.disk else "-"
        return f"{disk:>8} on disk  {size_text(self.memory):>8} in memory  about {duration(self.seconds)}"


def costs(sizes: CostSizes, pace: ModelPace) -> dict[str, Cost]:
    """Return the cost of each step, by the kind of artefact that it makes."""
    weights = 2 * sizes.d_in * sizes.d_sae
    model, batches = _PROGRAM + pace.memory, sizes.tokens / BATCH
    encoded = sizes.tokens * weights / 1e9 * pace.product
    return {
        "certificate": Cost(1e5, 2 * pace.memory + _PROGRAM, 10 + 15 * pace.batch),
        "recording": Cost(sizes.tokens * (2 * sizes.d_in + 12), model, 5 + 1.1 * batches * pace.batch),
        "sae": Cost(4 * weights, _PROGRAM + 16 * weights, 5 + 2 * sizes.seen * weights / 1e9 * pace.product),
        "jacobian_lens": Cost(
            2 * pace.layers * sizes.d_in**2, _PROGRAM + 3 * pace.memory, (90 + 15 * sizes.rounds) * pace.batch
        ),
        "features": Cost(_LATENT_BYTES * sizes.d_sae, model + 200 * sizes.tokens, 20 + 8 * encoded),
        "evaluation": Cost(1e5, model, 10 + 8 * pace.batch),
        "atlas": Cost(1_000 * sizes.d_sae, model, 15 + sizes.d_sae / 500),
        "heads": Cost(1e6, model, 5 + 8 * pace.batch),
    }


def measure_pace(model: "HookedModel", hook_point: str) -> ModelPace:
    """Time a pass up to a hook point and a matrix product, the second of two runs each."""
    import torch

    from interp.models.passes import Capture

    length = min(128, model.cfg.n_ctx)
    tokens = torch.zeros(BATCH // length, length, dtype=torch.long, device=model.cfg.device)
    square = torch.ones(1_024, 1_024, device=model.cfg.device)
    with Capture(model, [hook_point]) as capture:
        batch = _seconds(lambda: float(capture(tokens)[hook_point].sum()))
    product = _seconds(lambda: float((square @ square).sum())) / (1_024**3 / 1e9)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.original_model.parameters())
    values = BATCH * 4 * (8 * model.cfg.d_model + 3 * (model.cfg.d_mlp or 4 * model.cfg.d_model) + model.cfg.d_vocab)
    return ModelPace(batch, product, weights + values, model.cfg.n_layers)


def check_room(steps: dict[str, Cost], folder: "Path", device: str) -> None:
    """Raise `ResourceError` before the long work where the steps need more disk or memory than is free."""
    from interp.recording.record import existing_parent

    if not steps:
        return
    disk, free = sum(cost.disk for cost in steps.values()), shutil.disk_usage(existing_parent(folder)).free
    if disk > free:
        raise ResourceError(
            f"the steps need {size_text(disk)} at {folder}, {size_text(free)} are free; take fewer --tokens, or "
            "another --workspace"
        )
    kind, most = max(steps.items(), key=lambda item: item[1].memory)
    room = free_memory(device)
    if room is not None and most.memory > room:
        raise ResourceError(
            f"the {kind.replace('_', ' ')} needs {size_text(most.memory)} of memory, {size_text(room)} are free; "
            "take a smaller --d-sae, --dtype bfloat16 or a smaller model, or close other programs"
        )


def _seconds(run: "Callable[[], object]") -> float:
    run()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
