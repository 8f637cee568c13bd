"""Costs of the steps of `workbench own` on this machine: bytes on disk and in memory, seconds.

Seconds follow from what is timed on the model itself: loading it, a pass up to the hook point, a pass through all
blocks, logits with their sum, a backward pass, and a matrix product. What is counted for each step are passes.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from interp.cache import size_text
from interp.devices import free_memory
from interp.errors import ResourceError
from interp.lenses.jacobian_lens import JacobianLensConfig, JacobianSettings
from interp.models.hooked import HookedModel
from interp.names import lens_hook_points
from interp.progress import duration
from workbench.verbs.evaluate import Evaluate

BATCH, SAMPLE = 2_048, 512
"""Tokens that seconds are given for, and tokens of the passes that are timed."""
CONTEXT, FITTED = 128, 48
"""Tokens of a context of a recording, and of them those that a Jacobian lens is fitted on."""
EXAMINED, CHECKED = 10, 6_500
"""Tokens that the doctor runs for each hook point (noise added and subtracted in five), and those of other checks."""
HELD_OUT = 0.07
"""Contexts that are held out whole, of all: a tenth of the documents is held out."""
READINGS = 5
"""Lenses and nulls whose held-out distance from the output is measured at every position."""
_PROGRAM = 1.4e9
"""Bytes of Python and torch, and of what earlier steps leave."""
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
    contexts: int = Evaluate.contexts
    """contexts of the loss inside the model"""


@dataclass(frozen=True, kw_only=True)
class ModelPace:
    """Speed and size of a model on this machine; seconds are those of `BATCH` tokens unless they say otherwise."""

    load: float
    """seconds to start a program and load the model"""
    batch: float
    """a pass up to the hook point of the dictionary"""
    blocks: float
    """a pass through all blocks, without logits"""
    logits: float
    """logits of the last residual, and the logarithm of the sum of their exponentials"""
    rounded: float
    """logits in the dtype of products of a Jacobian lens, and the logarithms of their softmax"""
    backward: float
    """a backward pass through all blocks"""
    product: float
    """seconds of 10^9 multiplications of a matrix product"""
    weights: float
    """bytes of the weights"""
    values: float
    """bytes of a pass with its logits"""
    fit: float
    """bytes of a round of the Jacobian lens"""
    layers: int
    hook_points: int
    d_vocab: int

    @property
    def memory(self) -> float:
        """Bytes of a program with the model."""
        return _PROGRAM + self.weights + self.values


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
    from interp.lenses.jacobian_fit import CLOSER, GAINS, N_GAIN, N_MEANS
    from interp.lenses.lens_training import N_TEXTS
    from saes.evaluation.in_model import CONTEXT_VALUES

    weights = 2 * sizes.d_in * sizes.d_sae
    twice, batches = pace.memory + pace.weights, sizes.tokens / BATCH
    encoded = sizes.tokens * weights / 1e9 * pace.product
    examined, checked = EXAMINED * pace.hook_points / BATCH, CHECKED / BATCH
    jacobians = (sizes.rounds + 0.4) * sizes.d_in * FITTED / BATCH  # of the untrained model a short one
    passes = (N_MEANS + 2 * N_TEXTS) * FITTED / BATCH
    read = READINGS * JacobianLensConfig.heldout_positions + (len(GAINS) - 1 + len(CLOSER)) * N_GAIN
    distances = pace.layers * read / BATCH
    evaluated = min(sizes.contexts * CONTEXT, HELD_OUT * sizes.tokens)
    contexts = 4 * evaluated / BATCH  # unchanged, zero and mean ablation, and the dictionary
    scored = min(1.0, CONTEXT_VALUES / pace.d_vocab / CONTEXT)
    return {
        "certificate": Cost(
            1e5, twice, 2 * pace.load + 10 + examined * pace.blocks / 2 + checked * (pace.blocks + pace.logits)
        ),
        "recording": Cost(sizes.tokens * (2 * sizes.d_in + 12), pace.memory, pace.load + 1.1 * batches * pace.batch),
        "sae": Cost(4 * weights, pace.memory + 16 * weights, 5 + 1.2 * sizes.seen * weights / 1e9 * pace.product),
        "jacobian_lens": Cost(
            2 * pace.layers * sizes.d_in**2,
            twice + pace.fit,
            pace.load + jacobians * pace.backward + passes * pace.blocks + distances * pace.rounded,
        ),
        "features": Cost(
            _LATENT_BYTES * sizes.d_sae,
            pace.memory + 200 * sizes.tokens + 8 * pace.d_vocab * sizes.d_in,
            pace.load + 7 + 8 * encoded + sizes.d_sae / BATCH * pace.logits,
        ),
        "evaluation": Cost(1e5, pace.memory, pace.load + 5 + contexts * (pace.blocks + scored * pace.logits)),
        "atlas": Cost(1_000 * sizes.d_sae, pace.memory, 3 + sizes.d_sae / 400),
        "heads": Cost(1e6, twice, pace.load + 6 * pace.blocks),
    }


def measure_pace(model: HookedModel, hook_point: str, load: float) -> ModelPace:
    """Time passes of `SAMPLE` tokens and a matrix product, the second of two runs each."""
    import torch

    from interp.lenses.jacobian_fit import memory_of, products_of, run_texts
    from interp.lenses.lens_training import autocast, rows_at_once
    from interp.models.adapter import available_hook_points, final_norm_and_unembed
    from interp.models.passes import Capture
    from saes.evaluation.in_model import LOGIT_VALUES

    cfg, length = model.cfg, min(CONTEXT, model.cfg.n_ctx)
    products, fitted = products_of(model, JacobianLensConfig()), min(FITTED, length)
    fit = JacobianSettings(model="", weight_hash="", source="", context_length=fitted, products=products)
    tokens = torch.zeros(SAMPLE // length, length, dtype=torch.long, device=cfg.device)
    square = torch.ones(1_024, 1_024, device=cfg.device)
    first, *_, last = lens_hook_points(cfg.n_layers)

    def through(point: str) -> float:
        with Capture(model, [point]) as capture:
            return _seconds(lambda: float(capture(tokens)[point].sum()))

    def unembed() -> float:
        rows = resid.flatten(0, 1).split(rows_at_once(model))
        return sum(float(final_norm_and_unembed(model, few).float().logsumexp(-1).sum()) for few in rows)

    with Capture(model, [last]) as capture:
        resid = capture(tokens)[last]
    with autocast(model, products):
        contexts = tokens.flatten()[: SAMPLE // fitted * fitted].unflatten(0, (-1, fitted))
        texts, dims = run_texts(model, contexts, [first], 0), torch.zeros(len(contexts), dtype=torch.long)
        backward = _seconds(lambda: float(texts.rows(dims, last=False)[0].sum())) * BATCH / contexts.numel()
    with torch.no_grad():
        logits = _seconds(unembed)
        with autocast(model, products):
            rounded = _seconds(unembed)
    scale = BATCH / tokens.numel()
    return ModelPace(
        load=load,
        batch=scale * through(hook_point),
        blocks=scale * through(last),
        logits=scale * logits,
        rounded=scale * rounded,
        backward=backward,
        product=_seconds(lambda: float((square @ square).sum())) / (1_024**3 / 1e9),
        weights=sum(tensor.numel() * tensor.element_size() for tensor in model.original_model.parameters()),
        values=BATCH * 4 * (8 * cfg.d_model + 3 * (cfg.d_mlp or 4 * cfg.d_model)) + 2 * 4 * LOGIT_VALUES,
        fit=memory_of(model, fit, cfg.n_layers),
        layers=cfg.n_layers,
        hook_points=len(available_hook_points(model)),
        d_vocab=cfg.d_vocab,
    )


def check_room(steps: "Sequence[tuple[str, Cost]]", folder: Path, device: str, command: Callable[..., str]) -> None:
    """Raise `ResourceError` before the long work where steps, with their titles, need more disk or memory than is free.

    `command(**options)` is the command with other options, which the message names.
    """
    from interp.recording.record import existing_parent

    if not steps:
        return
    disk, free = sum(cost.disk for _, cost in steps), shutil.disk_usage(existing_parent(folder)).free
    if disk > free:
        raise ResourceError(
            f"the steps need {size_text(disk)} at {folder}, {size_text(free)} are free; take fewer --tokens, or "
            f"another --workspace: `{command(workspace='FOLDER')}`"
        )
    title, most = max(steps, key=lambda step: step[1].memory)
    room = free_memory(device)
    if room is not None and most.memory > room:
        without = {"rounds": 0} if "lens" in title.lower() else {"dtype": "bfloat16"}
        lens = "leave the lens out, " if "rounds" in without else ""
        raise ResourceError(
            f"the step `{title}` needs {size_text(most.memory)} of memory, {size_text(room)} are free; {lens}take a "
            f"smaller --d-sae, --dtype bfloat16 or a smaller model, or close other programs: `{command(**without)}`"
        )


def _seconds(run: Callable[[], object]) -> float:
    run()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
