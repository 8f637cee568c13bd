"""Path patching: send another run's value of a node to chosen receivers only.

After Wang et al. (2022) and Goldowsky-Dill et al. (2023).

    found = path_patch(model, clean, corrupt, metric, sender="L4H2", receivers=[("L7H1", "k")], between="frozen")
    found.effect              # [n_prompts], the metric's change, in its unit

A receiver reads `stream + (corrupt output - clean output)` of the senders before it (see *Edges*); everything after the
receivers is recomputed. The choice `between` sets the nodes between sender and receivers:

    frozen      they retain their clean values: the direct effect along the edges. Every receiver reads the clean stream
                plus the difference; receivers at different layers do not affect each other
    receivers   as frozen, but a receiver also reads the changes made by earlier receivers
    recomputed  the total effect, along all paths. In a first run the sender's value reaches every node; in a clean run
                the receivers then read the residual stream of the first

Post-norm models (Gemma 2 and 3): the norm on attention's output keeps its scale of the base run for a head's
difference, so that differences of heads sum (`settings["frozen"]`). All runs are of the model as it is.

Grouped-query attention: heads of a group share keys and values, so a patch into one reaches the whole group;
`settings["receivers"]` lists all heads that are reached.

**Edges** are read from another residual stream than the run's own. An edge leads from a sender, a component that adds
to the residual stream, to one input of a later component, its reader: the queries, keys or values of heads, an MLP, or
the logits. As the residual stream is a plain sum, patching the edge needs no further forward pass. The reader's input
is

    stream + (other output of the sender - its own output)

before the reader's norm, whose scale is recomputed. Only the inserted queries, keys, values or MLP inputs are computed
from that stream; everything after the reader is recomputed by the run itself.

`reading_hooks` makes the hooks of such a run. The caller says which stream each reader reads. So path patching,
circuits of edges (`interp.circuits._edge_runs`) and direct edges into induction heads
(`interp.circuits._induction_measure`) differ in that choice only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.errors import ConfigError, UnknownNameError
from interp.interventions.edits import inserting
from interp.models.adapter import Hook
from interp.models.hooked import HookedModel
from interp.models.passes import capture, run_from, storing_hook
from interp.models.residual import SIDES, ResidualStream, Side
from interp.names import HeadName, NodeName, parse_head, parse_node
from interp.patching.activation import check_pairs, measure
from interp.patching.task import final_point
from interp.results import Record, Result
from interp.view import View

Part = Literal["q", "k", "v", "mlp", "logits"]


class Reader(NamedTuple):
    """One input of a layer. The logits are in layer `n_layers`."""

    layer: int
    part: Part

    def stream_point(self, residual: ResidualStream) -> str:
        """Return the hook point of the residual stream that is read."""
        if self.part == "mlp":
            return residual.mlp_reads(self.layer)
        return final_point(residual.model) if self.part == "logits" else f"blocks.{self.layer}.hook_resid_pre"

    def value_point(self, residual: ResidualStream) -> str:
        """Return the hook point of the value that is computed from the residual stream."""
        if self.part == "logits":
            return final_point(residual.model)
        return f"blocks.{self.layer}." + ("mlp.hook_in" if self.part == "mlp" else f"attn.hook_{self.part}")


class Read(NamedTuple):
    """Residual stream that a reader reads in some rows of a run, before its norm."""

    reader: Reader
    stream: Float[Tensor, "*heads batch pos d_model"]
    """`[batch, pos, d_model]`, or one for each of `heads`: `[n, batch, pos, d_model]`"""
    heads: Sequence[int] | None = None
    """heads that read it (of keys and values: key-value heads); None for all"""
    rows: slice = slice(None)

    def value(self, residual: ResidualStream) -> Tensor:
        """Return the value at `Reader.value_point`: of heads `[batch, pos, n, d_head]`."""
        layer, part = self.reader
        if part == "logits":
            return self.stream
        if part == "mlp":
            return residual.norm2(layer, self.stream)
        if self.stream.ndim == 3:
            new = residual.project(layer, part, self.stream)
            return new if self.heads is None else new[:, :, list(self.heads)]
        assert self.heads is not None
        weight, bias = residual.W(layer, part)[self.heads], residual.b(layer, part)
        flat = rearrange(residual.norm1(layer, self.stream), "head batch pos d_model -> head (batch pos) d_model")
        new = rearrange(
            torch.bmm(flat, weight), "head (batch pos) d_head -> batch pos head d_head", batch=self.stream.shape[1]
        )
        return new if bias is None else new + bias[self.heads]


def reading_hooks(
    residual: ResidualStream,
    readers: Iterable[Reader],
    reads: Callable[[list[Reader], Tensor], Iterable[Read]],
) -> list[tuple[str, Hook]]:
    """Return the hooks of a run in which `readers` read other residual streams.

    `reads(readers, stream)` is called for all readers of one hook point, with the run's own residual stream there,
    `[batch, pos, d_model]`. Heads and rows that it does not name read that stream.
    """
    by_point: dict[str, list[Reader]] = {}
    for reader in readers:
        by_point.setdefault(reader.stream_point(residual), []).append(reader)
    values: dict[Reader, list[tuple[Read, Tensor]]] = {}

    def reading(at_point: list[Reader]) -> Hook:
        def read_streams(stream: Tensor, hook: object) -> None:
            for read in reads(at_point, stream):
                values.setdefault(read.reader, []).append((read, read.value(residual)))

        return read_streams

    def inserting(reader: Reader) -> Hook:
        return lambda value, hook: _inserted(value, values.pop(reader, []))

    hooks: list[tuple[str, Hook]] = []
    for point, at_point in by_point.items():
        hooks.append((point, reading(at_point)))
        hooks += [(reader.value_point(residual), inserting(reader)) for reader in at_point]
    return hooks


def _inserted(value: Tensor, parts: list[tuple[Read, Tensor]]) -> Tensor:
    """Return a reader's value with new ones in their rows and heads."""
    if len(parts) == 1 and parts[0][0].heads is None and parts[0][0].rows == slice(None):
        return parts[0][1].to(value.dtype).view_as(value)
    value = value.clone()
    for read, new in parts:
        rows = value[read.rows]
        if read.heads is None:
            rows.copy_(new)
        else:
            rows[:, :, list(read.heads)] = new.to(value.dtype)
    return value


Receivers = dict[Reader, tuple[int, ...] | None]
"""Heads of each receiver whose input is replaced (key-value heads for k and v); None for MLPs and the logits."""


def parse_receivers(residual: ResidualStream, receivers: Sequence[Any]) -> Receivers:
    """Parse receivers and check them against the model.

    Raises `UnknownNameError` for receivers that the model does not have, or that are not in a known form.
    """
    parsed: dict[Reader, set[int] | None] = {}
    for receiver in receivers:
        if isinstance(receiver, str):
            node = parse_node(receiver)
            if node.kind == "mlp" and residual.has_mlp and (node.layer or 0) < residual.shape.n_layers:
                parsed[Reader(node.layer or 0, "mlp")] = None
            elif node.kind == "logits":
                parsed[Reader(residual.shape.n_layers, "logits")] = None
            else:
                raise UnknownNameError(
                    "receiver", receiver, [], 'Write ("L5H1", "k") for a head, "L5MLP" or "logits"; all counted from 0.'
                )
            continue
        layer, head, side = _head_receiver(receiver)
        if side not in SIDES:
            raise UnknownNameError("side", str(side), SIDES)
        residual.check_head(HeadName(layer, head or 0))
        heads = parsed.setdefault(Reader(layer, side), set())
        assert heads is not None
        if head is None:
            heads.update(range(residual.n_side_heads(side)))
        else:
            heads.add(head if side == "q" else residual.kv_head(head))
    return {reader: None if heads is None else tuple(sorted(heads)) for reader, heads in sorted(parsed.items())}


def receiver_names(residual: ResidualStream, receivers: Receivers) -> list[str]:
    """Return `L5H1.k`, `L5MLP`, `logits`: every receiver that is reached, whole groups for keys and values."""
    names, others = [], []
    for (layer, part), heads in receivers.items():
        if heads is None:
            others.append("logits" if part == "logits" else f"L{layer}MLP")
            continue
        reached = heads if part == "q" else [head for group in heads for head in residual.heads_of_group(group)]
        names += [f"{HeadName(layer, head)}.{part}" for head in reached]
    return names + others


def check_after(residual: ResidualStream, receivers: Receivers, senders: Sequence[NodeName]) -> None:
    """Raise `ConfigError` when a receiver reads the residual stream before any sender has written to it."""
    for layer, part in receivers:
        if not any(writes_before(node, Reader(layer, part), parallel=residual.parallel) for node in senders):
            names = ", ".join(map(str, senders))
            raise ConfigError(
                f"{'the MLP' if part == 'mlp' else 'heads'} of layer {layer} cannot read what {names} writes, which "
                "comes later; choose receivers after the sender"
            )


def writes_before(node: NodeName, reader: Reader, *, parallel: bool) -> bool:
    """Return whether a node's output is in the residual stream that a reader reads."""
    if node.layer is None:
        return node.kind == "embed"
    if node.layer == reader.layer:
        return reader.part == "mlp" and node.kind == "head" and not parallel
    return node.layer < reader.layer


def _head_receiver(receiver: Any) -> tuple[int, int | None, Side]:
    match receiver:
        case (str(name), side):
            head = parse_head(name)
            return head.layer, head.head, side
        case (int(layer), None | int() as head, side):
            return layer, head, side
    raise UnknownNameError("receiver", str(receiver), [], 'Write ("L5H1", "k"), (5, None, "k"), "L5MLP" or "logits".')


Between = Literal["frozen", "receivers", "recomputed"]
Receiver = str | tuple[str, Side] | tuple[int, int | None, Side]
"""`"L5MLP"`, `"logits"`, `("L5H1", "k")`, or `(5, 1, "k")` where None for the head means all of the layer"""


@dataclass(frozen=True)
class PathPatching(Result):
    """Effect of one sender (or several) on the metric through chosen receivers."""

    effect: Float64[np.ndarray, " n_prompts"]
    """`[n_prompts]` float64: metric of the patched run minus that of the base run, in the metric's unit"""
    base: Float64[np.ndarray, " n_prompts"]
    """`[n_prompts]`: metric of the base run, without a patch"""
    other: Float64[np.ndarray, " n_prompts"] | None
    """`[n_prompts]`: metric of the run that the sender's value comes from; None without `normalise`"""
    settings: dict[str, object] = field(default_factory=dict)
    """sender, receivers, between, path (in words), direction, ablation (`resample`), n_prompts, frozen (post-norms)"""

    @property
    def share(self) -> float:
        """Mean effect as a fraction of the gap between the two runs: 0 is no effect, 1 the whole gap.

        Raises `ConfigError` without `normalise`.
        """
        if self.other is None:
            raise ConfigError("the share needs the other run's metric; call path_patch with normalise=True")
        return float(self.effect.mean() / (self.other - self.base).mean())

    def to_records(self) -> list[Record]:
        """Return one row per prompt: `prompt, effect, base`."""
        return [
            {"prompt": i, "effect": e, "base": b} for i, (e, b) in enumerate(zip(self.effect, self.base, strict=True))
        ]

    def view(self) -> View:
        share = f", {self.share:.0%} of the gap" if self.other is not None else ""
        yield f"Path {self.settings.get('path', '')}: effect {self.effect.mean():+.3f} on the metric{share}"


class PathPatcher:
    """Path patching of one batch at a time; stores no activations between batches.

    `senders` are nodes (`L4H2`, `L4MLP`, `embed`); several are patched together. Raises `UnknownNameError` for unknown
    nodes, `ConfigError` when a receiver comes before every sender.
    """

    def __init__(
        self, model: HookedModel, senders: Sequence[str], receivers: Sequence[Receiver], between: Between = "frozen"
    ):
        if between not in get_args(Between):
            raise UnknownNameError("choice of what happens between", between, get_args(Between))
        self.model, self.between = model, between
        self.residual = ResidualStream(model)
        self.senders = [_check_sender(self.residual, name) for name in senders]
        self.receivers = parse_receivers(self.residual, receivers)
        if not self.senders or not self.receivers:
            raise ConfigError("path patching needs at least one sender and one receiver")
        check_after(self.residual, self.receivers, self.senders)
        self.first_sender = min(max(int(node.order[0]), 0) for node in self.senders)
        self.start = min(*(reader.layer for reader in self.receivers), self.residual.shape.n_layers - 1)
        """layer at which the patched pass begins"""

    def sender_values(self, tokens: Int[Tensor, "batch pos"]) -> dict[NodeName, Float[Tensor, "batch pos _"]]:
        """Return the senders' values in a plain run: z `[batch, pos, d_head]` of heads, the output of other nodes."""
        points = {node: _point(node) for node in self.senders}
        values = capture(self.model, tokens, sorted(set(points.values())))
        return {node: _slice(node, values[point]) for node, point in points.items()}

    def run(
        self,
        clean: Int[Tensor, "batch pos"],
        values: Mapping[NodeName, Float[Tensor, "batch pos _"]],
        *,
        hooks: Sequence[tuple[str, Hook]] = (),
        clean_logits: Callable[[Tensor], None] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Run `clean [batch, pos]` with `values` sent along the chosen paths; return logits `[batch, pos, d_vocab]`.

        `values` replace the senders' values (`sender_values` of another prompt). `hooks` are added to the patched pass,
        which begins at the first receiver's layer. `clean_logits` is called with the logits of the clean pass; without
        it, that pass ends once its last needed value is captured.
        """
        seen = self._clean_values(clean, clean_logits)
        changes: dict[NodeName, Tensor] = {}
        streams = seen if self.between == "frozen" else {}
        if self.between == "recomputed":
            streams = self._total_streams(_begin(seen, clean, self.first_sender), values)
        else:
            changes = {node: self._change(node, values[node], seen[_point(node)]) for node in self.senders}
        reads = partial(self._reads, streams=streams, changes=changes)
        patched = reading_hooks(self.residual, self.receivers, reads)
        logits = run_from(self.model, _begin(seen, clean, self.start), [*patched, *hooks], layer=self.start)
        assert logits is not None
        return logits

    def _clean_values(self, clean: Tensor, clean_logits: Callable[[Tensor], None] | None) -> dict[str, Tensor]:
        """Return the values of the clean pass that the patch depends on, by hook point."""
        points = {_start_point(self.start)}
        if self.between == "recomputed":
            points.add(_start_point(self.first_sender))
        else:
            points |= {_point(node) for node in self.senders}
        if self.between == "frozen":
            points |= {reader.stream_point(self.residual) for reader in self.receivers if reader.part != "logits"}
        if clean_logits is None:
            return capture(self.model, clean, list(points))
        seen: dict[str, Tensor] = {}
        logits = run_from(self.model, clean, [(point, storing_hook(seen, point)) for point in points])
        assert logits is not None
        clean_logits(logits)
        return seen

    def _total_streams(self, begin: Tensor, values: Mapping[NodeName, Tensor]) -> dict[str, Tensor]:
        """Return the residual streams that the receivers read in a run in which the senders' values reach every node.

        `begin` is the input of the first sender's layer.
        """
        points = list(dict.fromkeys(reader.stream_point(self.residual) for reader in self.receivers))
        replaced = [(_point(node), self._replace(node, values[node])) for node in self.senders]
        return capture(self.model, begin, points, layer=self.first_sender, hooks=replaced)

    def _change(self, node: NodeName, value: Tensor, clean: Tensor) -> Tensor:
        """Return the change of what a sender writes, `[batch, pos, d_model]`; `clean` is the value at its point."""
        clean_slice = _slice(node, clean)
        change = value.to(clean_slice) - clean_slice
        if node.kind != "head":
            return change
        layer = node.layer or 0
        return self.residual.head_write(layer, node.head or 0, change, self.residual.write_scale(layer, clean))

    def _reads(
        self,
        readers: list[Reader],
        stream: Tensor,
        *,
        streams: Mapping[str, Tensor],
        changes: Mapping[NodeName, Tensor],
    ) -> Iterator[Read]:
        """Yield the residual stream that the receivers at one hook point read.

        It is one of `streams`, if they have that hook point, or else `stream` of the patched pass; plus the `changes`
        of the senders before it.
        """
        read = streams.get(readers[0].stream_point(self.residual), stream)
        for node, change in changes.items():
            if writes_before(node, readers[0], parallel=self.residual.parallel):
                read = read + change
        for reader in readers:
            yield Read(reader, read, self.receivers[reader])

    def _replace(self, node: NodeName, value: Tensor) -> Hook:
        if node.head is None:
            return inserting(value)
        return inserting(value[:, :, None].expand(-1, -1, self.residual.shape.n_heads, -1),
                         [(slice(None), (slice(None), slice(None), node.head))])  # fmt: skip


@torch.no_grad()
def path_patch(
    model: HookedModel,
    clean: Int[Tensor, "..."],
    corrupt: Int[Tensor, "..."],
    metric: Callable[[Tensor], Tensor],
    *,
    sender: str | Sequence[str],
    receivers: Sequence[Receiver],
    between: Between = "frozen",
    direction: Literal["noise", "denoise"] = "noise",
    normalise: bool = False,
    batch_size: int = 16,
) -> PathPatching:
    """Patch `sender` (one node, or several together) into `receivers`, on pairs of prompts `[batch, pos]`.

    `between` says what nodes between them do: `frozen` retain their clean values (the direct effect), `receivers` also
    read what earlier receivers change, `recomputed` gives the total effect. `direction` says which run is changed:
    `metric(logits [batch, pos, d_vocab]) -> [batch]`; if it has `take(rows)`, that gives the metric of each batch.
    `noise` runs the clean prompts and sends the corrupt value; `denoise` runs the corrupt prompts and sends the clean
    value. `normalise` also computes the metric of the other prompts, which `share` needs. Memory: the activations and
    logits of `batch_size` prompts.

    Raises `PromptError` when the prompts differ in shape, `UnknownNameError` for unknown nodes, `ConfigError` when a
    receiver comes before the sender or the model's residual is not a plain sum.
    """
    check_pairs(model, clean, corrupt)
    if direction not in ("noise", "denoise"):
        raise UnknownNameError("direction", direction, ("noise", "denoise"))
    senders = [sender] if isinstance(sender, str) else list(sender)
    patcher = PathPatcher(model, senders, receivers, between)
    prompts, source_prompts = (clean, corrupt) if direction == "noise" else (corrupt, clean)
    frozen = between != "recomputed" and any(node.kind == "head" for node in patcher.senders)
    base_metrics, patched_metrics, source_metrics = [], [], []
    for first in range(0, len(prompts), batch_size):
        rows = torch.arange(first, min(first + batch_size, len(prompts)))
        measure = _measure(metric, rows, len(prompts))
        values = patcher.sender_values(source_prompts[rows])
        logits = patcher.run(
            prompts[rows], values, clean_logits=lambda out, to=base_metrics, of=measure: to.append(of(out))
        )
        patched_metrics.append(measure(logits))
        if normalise:
            source_metrics.append(measure(model(source_prompts[rows])))
    return PathPatching(
        effect=np.concatenate(patched_metrics) - np.concatenate(base_metrics),
        base=np.concatenate(base_metrics),
        other=np.concatenate(source_metrics) if normalise else None,
        settings={
            "sender": senders,
            "receivers": receiver_names(patcher.residual, patcher.receivers),
            "between": between,
            "path": {
                "frozen": "direct edge, nodes between frozen",
                "receivers": "direct edges, receivers see earlier receivers",
                "recomputed": "total path, nodes between recomputed",
            }[between],
            "direction": direction,
            "ablation": "resample",
            "n_prompts": len(prompts),
            **(patcher.residual.frozen_settings("of the run that is patched") if frozen else {}),
        },
    )


def _measure(metric: Callable[[Tensor], Tensor], rows: Tensor, n: int) -> Callable[[Any], np.ndarray]:
    taken = metric.take(rows) if hasattr(metric, "take") and len(rows) < n else metric  # pyright: ignore

    return lambda logits: measure(taken, logits, len(rows)).numpy()


def _check_sender(residual: ResidualStream, name: str) -> NodeName:
    node = parse_node(name)
    if node.kind == "logits":
        raise ConfigError("the sender is the logits, which no node reads; choose a head, an MLP or embed")
    if node.kind == "head":
        residual.check_head(parse_head(name))
    if node.kind == "mlp" and (not residual.has_mlp or (node.layer or 0) >= residual.shape.n_layers):
        raise UnknownNameError("MLP", name, [], "The model has no MLP in this layer.")
    return node


def _point(node: NodeName) -> str:
    """Return the hook point of a sender's value."""
    if node.kind == "embed":
        return "blocks.0.hook_resid_pre"
    return f"blocks.{node.layer}." + ("attn.hook_z" if node.kind == "head" else "hook_mlp_out")


def _slice(node: NodeName, value: Tensor) -> Tensor:
    return value[:, :, node.head] if node.kind == "head" else value


def _start_point(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_pre"


def _begin(seen: Mapping[str, Tensor], tokens: Tensor, layer: int) -> Tensor:
    """Return the value from which `run_from` runs on: tokens at layer 0, otherwise the residual stream before it."""
    return tokens if layer == 0 else seen[_start_point(layer)]
