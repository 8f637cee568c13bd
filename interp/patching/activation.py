"""Activation patching: replace one value of a run by its value in another run, and measure the effect (Meng 2022).

Two prompts of the same length differ in one detail. In the base run, the value at one hook point is replaced by the
value of the other run. The effect is the fraction of the metric's gap between the two runs that this patch closes:

    found = activation_patching(model, (clean, corrupt), metric, what="z", by_position=False)
    found.effect                 # [n_layers, n_heads]: 0 no change, 1 the whole gap
    found.top(5)

Direction. `denoise` runs the corrupt prompt and restores clean values, which tests which values are *sufficient* for
the answer. `noise` runs the clean prompt and inserts corrupt values, which tests which are *necessary*. The two differ
where components are redundant.

Grouped-query attention: keys and values belong to a group of query heads, so `k` and `v` are patched per key-value
head; `settings.heads` says which kind of head the head axis counts.

A patch leaves everything before its layer unchanged. So the base run is read once, before every block, and each patch
runs from the residual stream of the base run before its layer: on average half of a pass.

`measure` and `check_pairs` check the metric and the prompt pairs of every kind of patching.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.interventions.edits import Slot, inserting
from interp.models.adapter import Hook, available_hook_points, head_shape, pattern_is_editable, token_strings
from interp.models.hooked import HookedModel
from interp.models.passes import Capture, read_hook, run_from
from interp.models.residual import ResidualStream
from interp.patching.patching_map import WHOLE, Direction, HeadKind, Patch, PromptPair, What, strongest
from interp.progress import Progress
from interp.results import ROWS, Record, Result
from interp.view import Rows, View

Metric = Callable[[Tensor], Tensor]
"""`metric(logits [batch, pos, d_vocab]) -> [batch]`, one number per prompt, in order; larger means more correct."""


def measure(metric: Metric, logits: Float[Tensor, "..."], n_prompts: int) -> Float64[Tensor, " {n_prompts}"]:
    """Return the metric of every prompt, `[n_prompts]` float64 on the CPU.

    Raises `ConfigError` for a metric that does not give one number per prompt.
    """
    values = torch.as_tensor(metric(logits))
    if values.shape != (n_prompts,):
        raise ConfigError(
            f"a metric gives one number per prompt, shape [{n_prompts}]; this one gave {list(values.shape)}"
        )
    return values.double().cpu()


def check_pairs(model: HookedModel, clean: Int[Tensor, "..."], corrupt: Int[Tensor, "..."]) -> None:
    """Raise `PromptError` unless both are `[batch, pos]` of the same shape; it names both lengths and the tokens."""
    if clean.ndim == 2 and clean.shape == corrupt.shape and clean.shape[1] > 0 and len(clean) > 0:
        return
    if clean.ndim != 2 or corrupt.ndim != 2 or 0 in (*clean.shape, *corrupt.shape):
        raise PromptError(
            f"expected clean and corrupt prompts as tokens [batch, pos], got {list(clean.shape)} and "
            f"{list(corrupt.shape)}"
        )
    if len(clean) != len(corrupt):
        raise PromptError(f"prompts come in pairs, got {len(clean)} clean and {len(corrupt)} corrupt ones")
    texts = ["|".join(token_strings(model, tokens[0])) for tokens in (clean, corrupt)]
    raise PromptError(
        f"clean and corrupt prompts need the same number of tokens, got {clean.shape[1]} ({texts[0]}) and "
        f"{corrupt.shape[1]} ({texts[1]}); reword one of them"
    )


Cut = tuple[int, Slot]
"""Layer of a patch, and its slot."""
STORED_VALUES = 1 << 26
"""Largest number of activations that are stored at once (256 MB in float32), unless one layer has more."""
LAYERS_AT_ONCE = 4
"""Layers whose patches share a pass. The later ones run through the earlier layers unchanged, which costs time, but
small batches cost more."""


class PatchingTask(Protocol):
    """Prompt pairs and their metric (`interp.patching.task.Task` is one)."""

    @property
    def clean(self) -> Int[Tensor, "batch pos"]: ...
    @property
    def corrupt(self) -> Int[Tensor, "batch pos"]: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def at(self) -> Int[Tensor, "batch n_read"]:
        """Positions whose logits the metric gets, instead of all: `[batch, n_read]`."""
        ...


@dataclass(frozen=True, kw_only=True)
class PatchRunSettings:
    """Settings of one map; a patched value is always that of the other prompt (resample ablation)."""

    what: What
    direction: Direction
    by_position: bool
    heads: HeadKind | None
    """Heads that the head axis counts; None without one."""
    group_size: int
    """Query heads per key-value head, where those are counted."""
    n_prompts: int


@dataclass(frozen=True, eq=False)
class ActivationPatching(Result):
    """Effects of single patches, as a fraction of the gap between the clean and the corrupt metric."""

    effect: Float64[np.ndarray, "*axes"]
    """over layers, then heads and positions where the patch has them: `(patched - base) / (other - base)` of the means
    over prompts. 0 is no change, 1 the whole gap; below 0 a patch widens the gap, above 1 it overshoots"""
    stderr: Float64[np.ndarray, "*axes"]
    """the same shape: standard error over prompts, in the same unit; NaN for a single prompt"""
    clean_metric: float
    corrupt_metric: float
    prompts: PromptPair
    """the first pair"""
    settings: PatchRunSettings

    @property
    def rows(self) -> list[Patch]:
        """All patches, by layer, head and position."""
        n_heads = self.settings.heads is not None
        patches = []
        for cell in np.ndindex(self.effect.shape):
            position = cell[-1] if self.settings.by_position else None
            token = None if position is None else self.prompts.clean[position]
            patches.append(
                Patch(
                    layer=cell[0],
                    head=cell[1] if n_heads else None,
                    position=position,
                    token=token,
                    effect=float(self.effect[cell]),
                    stderr=float(self.stderr[cell]),
                )
            )
        return patches

    def to_records(self) -> list[Record]:
        """Return one row per patch: its axes, `effect`, `stderr` (None for a single prompt)."""
        return [row.record() for row in self.rows]

    def top(self, n: int = 10) -> list[Patch]:
        """Return the patches with the largest effects by absolute value, largest first."""
        return strongest(self.rows, n)

    def view(self) -> View:
        yield (
            f"Activation patching of {self.settings.what} ({self.settings.direction}): effect 1 is the whole gap "
            f"between the clean metric {self.clean_metric:.2f} and the corrupt one {self.corrupt_metric:.2f}"
        )
        yield Rows(lambda: [row.record() for row in self.top(ROWS)])


@torch.no_grad()
def activation_patching(
    model: HookedModel,
    task: PatchingTask | tuple[Tensor, Tensor],
    metric: Metric | None = None,
    *,
    what: What = "resid_pre",
    by_position: bool = True,
    direction: Direction = "denoise",
    donors: Int[Tensor, "..."] | None = None,
    random_change: torch.Generator | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> ActivationPatching:
    """Patch every layer (and head, and position) by itself, and measure the effect on the metric.

    Several patches share a forward pass of at most `batch_size` sequences. The metric needs all prompts together, so
    the logits of `max(batch_size, n_prompts)` sequences are in memory at once (for a task, at the positions that it
    reads). So are the activations of as many layers as fit `STORED_VALUES`, of at least one.

    Args:
        model: runs on clean and corrupted prompts.
        task: a task, or `(clean, corrupt)` tokens, `[batch, pos]` each, with a `metric`.
        metric: a number of the logits; that of the task by default.
        what: the value that is replaced. `resid_pre`, `resid_post`, `attn_out` and `mlp_out` are whole vectors. `z` (or
            `heads`) is the output of a head before its output weights, `q`, `k`, `v` are its inputs, and `pattern` is
            its attention by query position.
        by_position: patch each position by itself.
        direction: `denoise` puts clean values into the corrupted run, `noise` the other way round.
        donors: a null: values come from these prompts `[batch, pos]` instead of the other run.
        random_change: a null: a value changes by the same distance as in the true patch, but in a random direction.
    Returns: `effect [n_layers]`, the fraction of the metric's gap that a patch closes (0: none, 1: all). Heads add an
        axis `[n_layers, heads]`, and `by_position` a last axis `pos`.
    Raises:
        PromptError: clean, corrupt and donors differ in shape.
        ConfigError: the metric has no gap, or heads of a model whose blocks norm their outputs (there, patch
            `resid_pre`).

    >>> model = load_model("planted:induction")
    >>> task = make_task("induction", model, n_prompts=4)
    >>> patched = activation_patching(model, task, what="z", by_position=False)
    >>> patched.effect.shape
    (2, 1)
    """
    clean, corrupt, at, metric = _unpack(task, metric)
    _check_names(model, what, direction)
    check_pairs(model, clean, corrupt)
    if donors is not None:
        check_pairs(model, clean, donors)
    clean, corrupt = (tokens.to(model.cfg.device) for tokens in (clean, corrupt))
    what = "z" if what == "heads" else what
    run = _Run(model, metric, at, what, by_position, batch_size, random_change)
    base, counterpart = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    start, target = run.plain(base), run.plain(counterpart)
    gap = _check_gap(start, target, direction)
    donor_tokens = counterpart if donors is None else donors.to(model.cfg.device)
    n_layers = head_shape(model).n_layers
    patched = []
    for metrics in run.layers(n_layers, base, donor_tokens):
        patched.append(metrics)
        if progress:
            progress(len(patched), n_layers, {})
    change = (torch.stack(patched) - start) / gap  # [n_layers, ..., n_prompts]
    clean_metric, corrupt_metric = (target, start) if direction == "denoise" else (start, target)
    clean_text, corrupt_text = (tuple(token_strings(model, tokens[0])) for tokens in (clean, corrupt))
    return ActivationPatching(
        change.mean(-1).numpy(),
        _standard_error(change).numpy(),
        float(clean_metric.mean()),
        float(corrupt_metric.mean()),
        PromptPair(clean=clean_text, corrupt=corrupt_text),
        PatchRunSettings(
            what=what,
            direction=direction,
            by_position=by_position,
            heads=run.heads,
            group_size=run.group_size,
            n_prompts=len(clean),
        ),
    )


class _Run:
    """Patches of one kind on one model and metric."""

    def __init__(
        self,
        model: HookedModel,
        metric: Metric,
        at: Tensor | None,
        what: What,
        by_position: bool,
        batch_size: int,
        random_change: torch.Generator | None = None,
    ):
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.metric, self.at, self.random_change = model, metric, at, random_change
        self.what, self.by_position, self.batch_size = what, by_position, batch_size
        self.n_heads = 0
        self.heads: HeadKind | None = None
        self.group_size = 1
        if what not in WHOLE:
            shape = ResidualStream(model).shape
            grouped = what in ("k", "v") and shape.n_kv_heads != shape.n_heads
            self.n_heads = shape.n_kv_heads if grouped else shape.n_heads
            self.heads = "key-value" if grouped else "query"
            self.group_size = shape.n_heads // shape.n_kv_heads if grouped else 1

    def hook_point(self, layer: int) -> str:
        return f"blocks.{layer}." + (f"hook_{self.what}" if self.what in WHOLE else f"attn.hook_{self.what}")

    def plain(self, tokens: Tensor) -> Tensor:
        """Return the metric without a patch, `[n_prompts]` float64."""
        rows = torch.arange(len(tokens)).split(self.batch_size)
        return measure(self.metric, torch.cat([self._logits(tokens[r], r, []) for r in rows]), len(tokens))

    def layers(self, n_layers: int, base: Tensor, donors: Tensor) -> Iterator[Tensor]:
        """Yield the metric with each patch of a layer from `donors`, `[heads?, pos?, n_prompts]` float64, by layer."""
        n, slots = len(base), list(self._slots(base.shape[1]))
        lengths = [size for size in (self.n_heads, base.shape[1] if self.by_position else 0) if size]
        size = base.numel() * self._width(base.shape[1])
        at_once = max(1, STORED_VALUES // size)
        for first in range(0, n_layers, at_once):
            group, metrics = range(first, min(first + at_once, n_layers)), []
            values = self._read(group, base, donors)
            for chunk in self._chunks(group, slots, n):
                parts = [torch.arange(n)] if n <= self.batch_size else torch.arange(n).split(self.batch_size)
                logits = torch.cat([self._patched(values, base, rows, chunk) for rows in parts])
                metrics += [measure(self.metric, part, n) for part in logits.split(n)]
                while len(metrics) >= len(slots):
                    yield torch.stack(metrics[: len(slots)]).reshape(*lengths, n)
                    del metrics[: len(slots)]

    def _width(self, length: int) -> int:
        """Return how many numbers of a layer are stored per token."""
        shape = head_shape(self.model)
        value = shape.n_heads * length if self.what == "pattern" else max(shape.d_model, shape.n_heads * shape.d_head)
        return shape.d_model + value * (1 if self.random_change is None else 2)

    def _read(self, layers: range, base: Tensor, donors: Tensor) -> "_Values":
        """Read the values that the patches of some layers start from and insert."""
        starts = {layer: f"blocks.{layer}.hook_resid_pre" for layer in layers if layer}
        points = {layer: self.hook_point(layer) for layer in layers}
        source = self._captured(donors, points.values())
        state = self._captured(base, [*starts.values(), *(points.values() if self.random_change is not None else ())])
        if self.random_change is not None:
            inside = self.what == "pattern"
            for name in points.values():
                source[name] = _changed_at_random(state[name], source[name], self.random_change, inside=inside)
        return _Values({layer: state[name] for layer, name in starts.items()}, source)

    def _captured(self, tokens: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        names = list(dict.fromkeys(names))
        if not names:
            return {}
        with Capture(self.model, names) as capture:
            parts = [capture(rows) for rows in tokens.split(self.batch_size)]
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _chunks(self, layers: range, slots: list[Slot], n: int) -> Iterator[list[Cut]]:
        """Yield patches that share a pass, layer by layer; a pass starts at the earliest of its layers."""
        chunk: list[Cut] = []
        for layer in layers:
            for slot in slots:
                if chunk and (len(chunk) >= self.batch_size // n or layer - chunk[0][0] >= LAYERS_AT_ONCE):
                    yield chunk
                    chunk = []
                chunk.append((layer, slot))
        yield chunk

    def _slots(self, length: int) -> Iterator[Slot]:
        """Yield the slot of every patch of a layer."""
        everything = slice(None)
        positions = range(length) if self.by_position else [everything]
        for head in range(self.n_heads) if self.n_heads else [None]:
            for position in positions:
                if head is None:
                    yield everything, position
                else:
                    yield (everything, head, position) if self.what == "pattern" else (everything, position, head)

    def _patched(self, values: "_Values", base: Tensor, rows: Tensor, patches: list[Cut]) -> Tensor:
        """Return logits `[len(patches) * rows, ...]` of prompts, repeated once per patch."""
        start, repeated = patches[0][0], rows.repeat(len(patches))
        by_layer: dict[int, list[tuple[slice, Slot]]] = {}
        for at, (layer, slot) in enumerate(patches):
            by_layer.setdefault(layer, []).append((slice(at * len(rows), (at + 1) * len(rows)), slot))
        hooks = []
        for layer, mine in by_layer.items():
            name = self.hook_point(layer)
            hooks.append((name, inserting(values.source[name][rows], mine)))
        if start == 0:
            return self._logits(base[repeated], repeated, hooks)
        return self._logits(values.start[start][repeated], repeated, hooks, layer=start)

    def _logits(self, value: Tensor, rows: Tensor, hooks: list[tuple[str, Hook]], layer: int = 0) -> Tensor:
        """Return logits of prompts `rows`, at every position or at those that the task reads.

        `value` is their tokens, or their residual before block `layer`.
        """
        reads = [] if self.at is None else [read_hook(self.at[rows])]
        logits = run_from(self.model, value, [*hooks, *reads], layer=layer)
        assert logits is not None  # only a pass with `until` has none
        return logits


class _Values(NamedTuple):
    """Values of some layers, for all prompts."""

    start: dict[int, Tensor]
    """residual of the base run before each layer but the first, `[n_prompts, pos, d_model]`"""
    source: dict[str, Tensor]
    """values to insert, by hook point"""


def _changed_at_random(value: Tensor, target: Tensor, generator: torch.Generator, *, inside: bool) -> Tensor:
    """Return `value [..., d]`, each vector moved in a random direction by its distance from `target`.

    `inside` preserves the sum of a vector and the zeros that both have, as needed for rows of an attention pattern.
    """
    drawn = torch.randn(value.shape, generator=generator).to(value)
    if inside:
        support = ((value > 0) | (target > 0)).to(value.dtype)
        mean = (drawn * support).sum(-1, keepdim=True) / support.sum(-1, keepdim=True).clamp_min(1)
        drawn = (drawn - mean) * support
    distance = (target - value).norm(dim=-1, keepdim=True)
    return value + drawn * distance / drawn.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _standard_error(values: Tensor) -> Tensor:
    """Return the standard error over the last axis; NaN for a single value."""
    n = values.shape[-1]
    return values.std(-1) / n**0.5 if n > 1 else torch.full_like(values[..., 0], torch.nan)


def _unpack(
    task: PatchingTask | tuple[Tensor, Tensor], metric: Metric | None
) -> tuple[Tensor, Tensor, Tensor | None, Metric]:
    if not isinstance(task, tuple):
        return task.clean, task.corrupt, task.at, task.metric if metric is None else metric
    if metric is None:
        raise ConfigError(
            "tokens without a metric were given; pass metric=, a function of logits [batch, pos, d_vocab]"
        )
    return *task, None, metric


def _check_names(model: HookedModel, what: str, direction: str) -> None:
    if what not in get_args(What):
        raise UnknownNameError("kind of patch", what, get_args(What))
    if direction not in get_args(Direction):
        raise UnknownNameError("direction", direction, get_args(Direction))
    if what == "mlp_out" and head_shape(model).d_mlp is None:
        raise ConfigError("this model has no MLPs to patch; choose heads, resid_pre or attn_out")
    if what == "pattern" and "blocks.0.attn.hook_pattern" not in available_hook_points(model):
        raise ConfigError('attention patterns are not computed by this kernel; load the model with attention="eager"')
    if what == "pattern" and not pattern_is_editable(model):
        raise ConfigError("an edit of attention patterns does not reach the logits in this architecture; patch heads")


def _check_gap(start: Tensor, target: Tensor, direction: str) -> float:
    """Return mean of `target` minus mean of `start`. Raises `ConfigError` when it is 0 or not finite."""
    gap = float((target - start).mean())
    size = float(torch.cat([start, target]).abs().max())
    if not torch.isfinite(target - start).all():
        raise ConfigError("the metric is not finite on these prompts; check the answers that it compares")
    if abs(gap) <= 1e-6 * max(size, 1e-6):
        raise ConfigError(
            f"the metric is {float(start.mean()):.4g} on both clean and corrupt prompts, so there is no gap to "
            "explain; choose prompts or a metric that tell them apart"
        )
    return gap
