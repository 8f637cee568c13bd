"""Path patching: send another run's value of a node to chosen receivers only.

After Wang et al. (2022) and Goldowsky-Dill et al. (2023).

    found = path_patch(model, clean, corrupt, metric, sender="L4H2", receivers=[("L7H1", "k")], between="frozen")
    found.effect              # [n_prompts], the metric's change, in its unit

The residual stream is a plain sum. So a receiver's input with only the sender's output replaced is exactly
`resid + (corrupt output - clean output)`, without a further forward pass; the scale of its norm is recomputed. Only the
receivers' queries, keys or values (or MLP inputs, or the logits) are computed from that input; everything after the
receivers is recomputed. The choice `between` sets the nodes between sender and receivers:

    frozen      they retain their clean values: the direct effect along the edges. Every receiver reads the clean stream
                plus the difference; receivers at different layers do not affect each other
    receivers   as frozen, but a receiver also reads the changes made by earlier receivers
    recomputed  the total effect, along all paths. In a first run the sender's value reaches every node; the receivers'
                values of that run are then inserted into a clean run

Post-norm models (Gemma 2 and 3): the norm on attention's output keeps its scale of the base run for a head's
difference, so that differences of heads sum (`settings["frozen"]`). All runs are of the model as it is.

Grouped-query attention: heads of a group share keys and values, so a patch into one reaches the whole group;
`settings["receivers"]` lists all heads that are reached.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
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
from interp.results import Record, Result


@dataclass(frozen=True)
class Receivers:
    """Receivers of path patching, by layer and side."""

    heads: dict[tuple[int, Side], tuple[int, ...]]
    """heads whose slice is replaced, per layer and side: key-value heads for k and v"""
    mlps: tuple[int, ...]
    logits: bool

    def layers_and_logits(self, n_layers: int) -> list[int]:
        """Return the layers that have receivers; the logits count as layer `n_layers`."""
        return [layer for layer, _ in self.heads] + list(self.mlps) + ([n_layers] if self.logits else [])

    def check_after(self, residual: ResidualStream, senders: Sequence[NodeName]) -> None:
        """Raise `ConfigError` when a receiver reads the residual stream before any sender has written to it."""
        receivers = [(layer, False) for layer, _ in self.heads] + [(layer, True) for layer in self.mlps]
        for layer, mlp in receivers:
            if not any(writes_before(node, layer, mlp=mlp, parallel=residual.parallel) for node in senders):
                names = ", ".join(map(str, senders))
                raise ConfigError(
                    f"{'the MLP' if mlp else 'heads'} of layer {layer} cannot read what {names} writes, which comes "
                    "later; choose receivers after the sender"
                )

    def names(self, residual: ResidualStream) -> list[str]:
        """Return `L5H1.k`, `L5MLP`, `logits`: every receiver that is reached, whole groups for keys and values."""
        names = []
        for (layer, side), heads in self.heads.items():
            reached = heads if side == "q" else [h for group in heads for h in residual.heads_of_group(group)]
            names += [f"{HeadName(layer, head)}.{side}" for head in reached]
        return names + [f"L{layer}MLP" for layer in self.mlps] + (["logits"] if self.logits else [])


def parse_receivers(residual: ResidualStream, receivers: Sequence[Any]) -> Receivers:
    """Parse receivers and check them against the model.

    Raises `UnknownNameError` for receivers that the model does not have, or that are not in a known form.
    """
    heads: dict[tuple[int, Side], set[int]] = {}
    mlps, logits = set(), False
    for receiver in receivers:
        if isinstance(receiver, str):
            node = parse_node(receiver)
            if node.kind == "mlp" and residual.has_mlp and (node.layer or 0) < residual.shape.n_layers:
                mlps.add(node.layer)
            elif node.kind == "logits":
                logits = True
            else:
                raise UnknownNameError(
                    "receiver", receiver, [], 'Write ("L5H1", "k") for a head, "L5MLP" or "logits"; all counted from 0.'
                )
            continue
        layer, head, side = _head_receiver(receiver)
        if side not in SIDES:
            raise UnknownNameError("side", str(side), SIDES)
        residual.check_head(HeadName(layer, head or 0))
        chosen = range(residual.n_side_heads(side))
        if head is not None:
            chosen = [head if side == "q" else residual.kv_head(head)]
        heads.setdefault((layer, side), set()).update(chosen)
    return Receivers(
        {key: tuple(sorted(of_layer)) for key, of_layer in sorted(heads.items())}, tuple(sorted(mlps)), logits
    )


def writes_before(node: NodeName, layer: int, *, mlp: bool, parallel: bool) -> bool:
    """Return whether a node's output is in the residual stream that the heads of a layer (or its MLP) read."""
    if node.layer is None:
        return node.kind == "embed"
    if node.layer == layer:
        return mlp and node.kind == "head" and not parallel
    return node.layer < layer


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
    settings: dict[str, Any] = field(default_factory=dict)
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

    def headline(self) -> str:
        """Return one line: the path and its mean effect."""
        share = f", {self.share:.0%} of the gap" if self.other is not None else ""
        return f"Path {self.settings.get('path', '')}: effect {self.effect.mean():+.3f} on the metric{share}"


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
        self.n_layers = self.residual.shape.n_layers
        self.senders = [_check_sender(self.residual, name) for name in senders]
        self.receivers: Receivers = parse_receivers(self.residual, receivers)
        if not self.senders or not self.receivers.layers_and_logits(self.residual.shape.n_layers):
            raise ConfigError("path patching needs at least one sender and one receiver")
        self.receivers.check_after(self.residual, self.senders)
        self.first_sender = min(max(int(node.order[0]), 0) for node in self.senders)
        self.first_receiver = min(self.receivers.layers_and_logits(self.residual.shape.n_layers))

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
        until: str | None = None,
        clean_logits: Callable[[Tensor], None] | None = None,
        known: "KnownClean | None" = None,
    ) -> Float[Tensor, "batch _ d_vocab"] | None:
        """Run `clean [batch, pos]` with `values` sent along the chosen paths; return logits `[batch, pos, d_vocab]`.

        `values` replace the senders' values (`sender_values` of another prompt). `hooks` are added to the patched pass,
        which begins at the first receiver's layer and ends at `until`. `clean_logits` is called with the logits of the
        clean pass; without it, that pass ends once its last needed value is captured. With `known` and
        `between="receivers"` there is no clean pass.
        """
        state = _Pass(self, values)
        if known is not None and self.between == "receivers":
            state.take(known)
        else:
            last = None if clean_logits is not None else self._last_clean_point()
            logits = run_from(self.model, clean, state.clean_hooks(), until=last)
            if clean_logits is not None and logits is not None:
                clean_logits(logits)
        if self.between == "recomputed":
            run_from(
                self.model,
                state.resid(self.first_sender, clean),
                state.total_hooks(),
                layer=self.first_sender,
                until=self._last_point(),
            )
        start = state.resid(self.first_receiver, clean)
        patched = [*state.patch_hooks(), *hooks]
        return run_from(self.model, start, patched, layer=min(self.first_receiver, self.n_layers - 1), until=until)

    def _last_clean_point(self) -> str:
        """Return the last hook point of the clean pass that a patched pass depends on."""
        points = [f"blocks.{min(self.first_receiver, self.n_layers - 1)}.hook_resid_pre"]
        if self.between == "frozen":
            points.append(self._last_point())
        if self.between != "recomputed":
            points += [_point(node) for node in self.senders]
        return max(points, key=_depth)

    def _last_point(self) -> str:
        """Return the first hook point at which all receivers have read their input."""
        if self.receivers.logits:
            return f"blocks.{self.n_layers - 1}.hook_resid_post"
        points = [f"blocks.{layer}.attn.hook_z" for layer, _ in self.receivers.heads]
        points += [f"blocks.{layer}.hook_resid_post" for layer in self.receivers.mlps]
        return max(points, key=_depth)


@dataclass(frozen=True)
class KnownClean:
    """Values of an earlier clean pass on the same prompts, which is then not repeated."""

    resid: Float[Tensor, "batch pos d_model"]
    """`[batch, pos, d_model]`: the input of the first receiver's layer"""
    values: Mapping[NodeName, Float[Tensor, "batch pos _"]]
    """values of the senders, as from `PathPatcher.sender_values`"""
    scales: Mapping[NodeName, Float[Tensor, "batch pos 1"] | None]
    """scales of the post-norm on senders that are heads, as from `ResidualStream.write_scale`"""


class _Pass:
    """Hooks of one batch, and the values that they share."""

    def __init__(self, patcher: PathPatcher, values: Mapping[NodeName, Tensor]):
        self.patcher, self.residual, self.values = patcher, patcher.residual, values
        self.writes: dict[NodeName, Tensor] = {}
        self.resids: dict[int, Tensor] = {}
        self.received: dict[str, Tensor] = {}

    def resid(self, layer: int, tokens: Tensor) -> Tensor:
        """Return the input of a pass that starts at a layer: tokens at layer 0, otherwise the residual before it."""
        n_layers = self.residual.shape.n_layers
        return tokens if layer == 0 else self.resids[min(layer, n_layers - 1)]

    def clean_hooks(self) -> list[tuple[str, Hook]]:
        """Return hooks that store start residuals, the senders' differences, and (frozen) the receivers' values."""
        patcher, n_layers = self.patcher, self.residual.shape.n_layers
        starts = {patcher.first_receiver}
        starts |= {patcher.first_sender} if patcher.between == "recomputed" else set()
        hooks: list[tuple[str, Hook]] = [
            (f"blocks.{layer}.hook_resid_pre", storing_hook(self.resids, layer))
            for layer in {min(layer, n_layers - 1) for layer in starts}
        ]
        if patcher.between != "recomputed":
            hooks += [(_point(node), self._save_write(node)) for node in patcher.senders]
        if patcher.between == "frozen":
            hooks += self._input_hooks()
        return hooks

    def total_hooks(self) -> list[tuple[str, Hook]]:
        """Return hooks that replace the senders for all later nodes, and store the values of the receivers."""
        receivers, n_layers = self.patcher.receivers, self.residual.shape.n_layers
        hooks: list[tuple[str, Hook]] = [(_point(node), self._replace_sender(node)) for node in self.patcher.senders]
        points = [f"blocks.{layer}.attn.hook_{side}" for layer, side in receivers.heads]
        points += [f"blocks.{layer}.hook_mlp_out" for layer in receivers.mlps]
        points += [f"blocks.{n_layers - 1}.hook_resid_post"] if receivers.logits else []
        return hooks + [(point, storing_hook(self.received, point)) for point in points]

    def patch_hooks(self) -> list[tuple[str, Hook]]:
        """Return hooks that insert the stored values into the receivers only."""
        receivers, n_layers = self.patcher.receivers, self.residual.shape.n_layers
        hooks = self._input_hooks() if self.patcher.between == "receivers" else []
        for (layer, side), heads in receivers.heads.items():
            hooks.append((f"blocks.{layer}.attn.hook_{side}", self._insert(f"blocks.{layer}.attn.hook_{side}", heads)))
        for layer in receivers.mlps:
            hooks.append((f"blocks.{layer}.hook_mlp_out", self._insert(f"blocks.{layer}.hook_mlp_out")))
        if receivers.logits:
            point = f"blocks.{n_layers - 1}.hook_resid_post"
            total = self.patcher.between == "recomputed"
            hooks.append((point, self._insert(point) if total else self._add_everything))
        return hooks

    def _input_hooks(self) -> list[tuple[str, Hook]]:
        """Return hooks that compute the receivers' values from a stream in which only the senders are replaced."""
        receivers = self.patcher.receivers
        sides: dict[int, list[Side]] = {}
        for layer, side in receivers.heads:
            sides.setdefault(layer, []).append(side)
        hooks: list[tuple[str, Hook]] = [
            (f"blocks.{layer}.hook_resid_pre", self._project(layer, of_layer)) for layer, of_layer in sides.items()
        ]
        return hooks + [(self.residual.mlp_reads(layer), self._run_mlp(layer)) for layer in receivers.mlps]

    def _difference(self, layer: int, *, mlp: bool = False) -> Tensor:
        """Return the senders' change of what a layer's heads (or MLP) read, `[batch, pos, d_model]`."""
        nodes = [n for n in self.patcher.senders if writes_before(n, layer, mlp=mlp, parallel=self.residual.parallel)]
        total = self.writes[nodes[0]]
        for node in nodes[1:]:
            total = total + self.writes[node]
        return total

    def take(self, known: KnownClean) -> None:
        """Take the start residual and the senders' differences from an earlier clean pass."""
        self.resids[min(self.patcher.first_receiver, self.residual.shape.n_layers - 1)] = known.resid
        for node in self.patcher.senders:
            self._write(node, known.values[node], known.scales[node] if node.kind == "head" else None)

    def _write(self, node: NodeName, clean: Tensor, scale: Tensor | None) -> None:
        difference = self.values[node].to(clean) - clean
        if node.kind == "head":
            difference = difference @ self.residual.W_write(node.layer or 0)[node.head]
            difference = difference if scale is None else difference / scale
        self.writes[node] = difference

    def _save_write(self, node: NodeName) -> Hook:
        def save(value: Tensor, hook: Any) -> None:
            if node not in self.writes:
                scale = self.residual.write_scale(node.layer or 0, value) if node.kind == "head" else None
                self._write(node, _slice(node, value), scale)

        return save

    def _project(self, layer: int, sides: list[Side]) -> Hook:
        def project(value: Tensor, hook: Any) -> None:
            resid = value + self._difference(layer)
            for side in sides:
                self.received[f"blocks.{layer}.attn.hook_{side}"] = self.residual.project(layer, side, resid)

        return project

    def _run_mlp(self, layer: int) -> Hook:
        def run(value: Tensor, hook: Any) -> None:
            point = f"blocks.{layer}.hook_mlp_out"
            self.received.pop(point, None)  # the call below passes through the same hook point
            self.received[point] = self.residual.mlp(layer, value + self._difference(layer, mlp=True))

        return run

    def _replace_sender(self, node: NodeName) -> Hook:
        if node.kind != "head":
            return inserting(self.values[node])
        return inserting(self.values[node][:, :, None].expand(-1, -1, self.residual.shape.n_heads, -1),
                         [(slice(None), (slice(None), slice(None), node.head))])  # fmt: skip

    def _insert(self, point: str, heads: Sequence[int] | None = None) -> Hook:
        chosen = None if heads is None else [(slice(None), (slice(None), slice(None), list(heads)))]
        return inserting(lambda value: self.received.get(point, value), chosen)

    def _add_everything(self, value: Tensor, hook: Any) -> Tensor:
        return value + self._difference(self.residual.shape.n_layers)


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
    start, source = (clean, corrupt) if direction == "noise" else (corrupt, clean)
    held = between != "recomputed" and any(node.kind == "head" for node in patcher.senders)
    base, patched, other = [], [], []
    for first in range(0, len(start), batch_size):
        rows = torch.arange(first, min(first + batch_size, len(start)))
        measure = _measure(metric, rows, len(start))
        values = patcher.sender_values(source[rows])
        logits = patcher.run(start[rows], values, clean_logits=lambda out, to=base, of=measure: to.append(of(out)))
        patched.append(measure(logits))
        if normalise:
            other.append(measure(model(source[rows])))
    return PathPatching(
        effect=np.concatenate(patched) - np.concatenate(base),
        base=np.concatenate(base),
        other=np.concatenate(other) if normalise else None,
        settings={
            "sender": senders,
            "receivers": patcher.receivers.names(patcher.residual),
            "between": between,
            "path": {
                "frozen": "direct edge, nodes between frozen",
                "receivers": "direct edges, receivers see earlier receivers",
                "recomputed": "total path, nodes between recomputed",
            }[between],
            "direction": direction,
            "ablation": "resample",
            "n_prompts": len(start),
            **(patcher.residual.frozen_settings("of the run that is patched") if held else {}),
        },
    )


def into_all(model: HookedModel, side: Side, *, after: str) -> list[Receiver]:
    """Return the queries, keys or values of every head in every layer after a node, as receivers for `path_patch`."""
    if side not in SIDES:
        raise UnknownNameError("side", side, SIDES)
    layer = parse_node(after).layer
    return [(each, None, side) for each in range(0 if layer is None else layer + 1, model.cfg.n_layers)]


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


def _depth(point: str) -> tuple[int, int]:
    """Return the sort key of a hook point in the order of the forward pass."""
    _, layer, name = point.split(".", 2)
    return int(layer), ("hook_resid_pre", "attn.hook_z", "hook_mlp_out", "hook_resid_post").index(name)
