"""Effects of latents in the model itself, against those that a graph predicts; and interventions.

A graph's prediction of the model is tested: a latent is ablated (its activation times its output direction is taken
out of the MLP's output) with nothing frozen, and the change of the target is compared with three predictions, all
signed: the first-order effect of the node (`first_order_effects`), its effect along the edges, which are exact
in the frozen model only,

    e(s) = A[target, s] + sum over latents t of (A[t, s] / a_t) e(t)

and its direct effect `A[target, s]`.

**The first-order effect** of a node is its value times the gradient of the target with respect to what it writes, in
the model with nothing frozen. In the frozen model a larger residual is not divided by a larger norm, and no gate or
attention pattern follows a change; here they do, as far as a small change tells. One backward pass gives the effects of
all latents, errors and tokens (attribution patching, Syed et al. 2023).

**The split of an edge** between positions (`split_edge`) is by the last head through which its paths change position.
A path from a source to a reader at a later position can pass through several heads. Each path has one last head that
brings it to the reader's position; behind it the path stays there. So the edge is the sum over heads of the paths that
arrive through them, plus the paths that never leave the position (for a source at the reader's own position):

    split = split_edge(system, graph, "token:4:4649", "feature:13:5:1033")
    print(split)                        # heads, with the key positions that they read

Why a head attended to its key position is explained by `interp.attention_reasons`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import ConfigError, UnknownNameError
from interp.interventions.edits import adding, change_of, inserting
from interp.interventions.intervention import Intervention, Latent
from interp.models.adapter import Hook, run_with_hooks
from interp.models.passes import past_of, run_from
from interp.nulls import DRAWS
from interp.progress import Progress
from interp.results import Record, Result
from interp.seeds import make_generator
from interp.statistics import Interval, rank_correlation_interval
from interp.tracing._sufficiency import Sufficiency
from interp.tracing.edges import Adjacency, System
from interp.tracing.frozen import FrozenModel, Starts, apply_linear
from interp.tracing.graph import AttributionGraph, EffectAgreement, GraphNode, TraceConfig
from interp.tracing.replacement import LayerLatents
from interp.view import View

ROWS = 16
"""Changed copies of the prompt in one forward pass."""
LEAST_PAST = 3
"""Fewest unchanged positions that are worth a pass of their own."""

Mode = Literal["direct", "range", "attention", "free"]
MODES: tuple[Mode, ...] = ("direct", "range", "attention", "free")
"""`direct`: everything is frozen, so that the effect equals the graph's direct effect. `range`: attention patterns are
frozen, and MLPs of a range of layers keep their clean outputs. `attention`: only patterns are frozen."""


def set_latent(
    layer: int, position: int, latent: int, value: float, *, onwards: bool = False, dictionary: str = ""
) -> Intervention:
    """Return the intervention that sets the activation of a latent at one position, or there and later (`onwards`)."""
    return Intervention(
        target=Latent(dictionary=dictionary, layer=layer, index=latent),
        action="set",
        amount=float(value),
        positions=(position, None if onwards else position + 1),
    )


def latent_of(step: Intervention) -> tuple[int, int, int]:
    """Return layer, first position and number of the latent that an intervention on a graph changes.

    Raises `ConfigError` for an intervention on anything else, or on several positions that are not all later ones.
    """
    target = step.target
    if not isinstance(target, Latent) or target.layer is None or step.action == "replace" or step.along is not None:
        raise ConfigError(f"on a graph, latents of a layer are set, scaled, ablated or added to; got {step.action}")
    if step.positions is None or step.positions[1] not in (None, step.positions[0] + 1):
        raise ConfigError(f"on a graph, a latent is changed at one position or from one on, got {step.positions}")
    return target.layer, step.positions[0], target.index


def read_of(system: System, graph: AttributionGraph, target: int = 0) -> Float[Tensor, " d_model"]:
    """Return the direction in the unembedding's input that a target of a graph reads.

    Raises `ConfigError` for a latent as the target.
    """
    aim, unembed = graph.targets[target], system.frozen.model.W_U.detach().float()
    if aim.token is None:
        raise ConfigError(f"interventions measure a token; the target of this graph is the latent {aim.label}")
    return unembed[:, aim.token] - (unembed.mean(1) if aim.contrast is None else unembed[:, aim.contrast])


def predicted_effects(
    adjacency: Adjacency, layers: np.ndarray, activations: np.ndarray, target: int = 0
) -> Float[np.ndarray, " features"]:
    """Return the total effect of every latent of a graph on one target, signed, in the frozen model.

    `layers` and `activations` belong to `adjacency.features`; `target` counts the targets from 0.
    """
    n = len(adjacency.features)
    effects = adjacency.row_of_target(target)[:n].astype(np.float64)
    for layer in np.unique(layers)[::-1]:
        rows = np.flatnonzero(layers == layer)
        scale = effects[rows] / activations[rows]
        effects += scale @ adjacency.matrix[rows, :n].astype(np.float64)
    return effects


def agreement(
    system: System, adjacency: Adjacency, effects: Float[Tensor, " sources"], read: Tensor, config: TraceConfig
) -> EffectAgreement | None:
    """Compare predicted with measured effects of ablating some latents: those of largest effect and random others.

    `effects` are those on the target that `read` reads, to first order. Return None with fewer than three latents.
    """
    n = len(adjacency.features)
    if n < 3:
        return None
    numbers = torch.as_tensor(adjacency.features)
    layers, activations = system.layer.cpu()[numbers].numpy(), system.activation.cpu()[numbers].double().numpy()
    predicted = effects.cpu()[numbers].double().numpy()
    edges = predicted_effects(adjacency, layers, activations)
    direct = adjacency.row_of_target()[:n].astype(np.float64)
    strongest = np.argsort(-np.abs(predicted), kind="stable")[: max(2, config.effects // 2)]
    rest = np.setdiff1d(np.arange(n), strongest)
    order = torch.randperm(len(rest), generator=make_generator(config.seed, "effects")).numpy()
    sample = np.concatenate([strongest, rest[order[: config.effects - len(strongest)]]])
    changes = [[ablation(system, int(numbers[i]))] for i in sample]
    measured = -measure(system, changes, read).double().cpu().numpy()

    def along(values: np.ndarray) -> tuple[float, Interval[float]]:
        """Return the slope of measured effects on `values`, and their rank correlation."""
        correlation = rank_correlation_interval(values, measured, rng=np.random.default_rng(config.seed))
        return float(values @ measured / max(values @ values, 1e-30)), correlation

    (slope, spearman), (edges_slope, edges_spearman) = along(predicted[sample]), along(edges[sample])
    direct_slope, direct_spearman = along(direct[sample])
    ids = [f"feature:{layers[i]}:{int(system.position[numbers[i]])}:{int(system.latent[numbers[i]])}" for i in sample]
    return EffectAgreement(
        slope=slope,
        spearman=spearman,
        edges_slope=edges_slope,
        edges_spearman=edges_spearman,
        direct_slope=direct_slope,
        direct_spearman=direct_spearman,
        nodes=tuple(ids),
        predicted=predicted[sample],
        measured=measured,
    )


@torch.no_grad()
def measure_sufficiency(
    system: System,
    inside: Bool[Tensor, " features"],
    effects: Float[Tensor, " features"],
    read: Float[Tensor, " d_model"],
    seed: int,
    n_random: int = DRAWS["quick"],
) -> Sufficiency:
    """Take out all active latents outside a pruned graph at once, those that help alone, and as many random ones.

    `inside` marks the latents of the pruned graph, `effects` are those on the target that `read` reads, to first order.
    """
    frozen, rng = system.frozen, np.random.default_rng(seed)
    groups, kept = (system.layer * frozen.n_pos + system.position).cpu().numpy(), inside.cpu().numpy()
    helpers, every = ~kept & (effects > 0).cpu().numpy(), np.ones_like(kept)
    sets = [every, ~kept, helpers]
    sets += [~_like(every, kept, groups, rng) for _ in range(n_random)]
    sets += [_like(~kept, helpers, groups, rng) for _ in range(n_random)]
    empty, alone, worst, *null = [float(_without(system, torch.from_numpy(each)) @ read) for each in sets]
    kept_random, helping_random = null[:n_random], null[n_random:]
    return Sufficiency(
        whole=float(final_input(frozen, frozen.resid_post[-1]) @ read), empty=empty, alone=alone,
        alone_random=(min(kept_random), max(kept_random)), n_outside=int((~kept).sum()), worst=worst,
        worst_random=(min(helping_random), max(helping_random)), n_helpers=int(helpers.sum()), n_random=n_random,
    )  # fmt: skip


def _without(system: System, out: Bool[Tensor, " features"]) -> Float[Tensor, " d_model"]:
    """Return the unembedding's input where latents write nothing, whatever their activation in this run is."""
    frozen, out = system.frozen, out.to(system.activation.device)
    factors, hooks, final = torch.zeros_like(system.activation), [], []

    def hooks_of(layer: int) -> list[tuple[str, Hook]]:
        point, activations = system.replacement.watch(layer)
        mine = system.layer == layer

        def watch(value: Tensor, hook: object = None) -> None:
            now = activations(value[0].float())
            factors[mine] = torch.where(out[mine], -now / system.activation[mine], 0)

        write = adding(lambda value: system.written_at(layer, factors[None])[0])
        return [(f"blocks.{layer}.{point}", watch), (frozen.mlp_point(layer), write)]

    for layer in range(frozen.shape.n_layers):
        hooks += hooks_of(layer)
    last = f"blocks.{frozen.shape.n_layers - 1}.hook_resid_post"
    run_with_hooks(
        frozen.model, frozen.tokens, [*hooks, (last, lambda value, hook: final.append(value[0, -1].float()))]
    )
    return final_input(frozen, final[0])


def _like(pool: np.ndarray, chosen: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a mask of random latents of a pool, as many in each layer and position as are `chosen`."""
    order = np.lexsort((rng.random(len(pool)), ~pool, groups))
    ordered = groups[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    drawn = np.empty_like(pool)
    drawn[order] = rank < np.bincount(groups[chosen], minlength=int(groups.max()) + 1)[ordered]
    return drawn


def ablation(system: System, number: int) -> Intervention:
    """Return the change that sets a latent to 0."""
    return set_latent(int(system.layer[number]), int(system.position[number]), int(system.latent[number]), 0.0)


@torch.no_grad()
def measure(
    system: System,
    changes: Sequence[Sequence[Intervention]],
    read: Float[Tensor, " d_model"],
    mode: Mode = "free",
    layers: range | None = None,
) -> Float[Tensor, " runs"]:
    """Return the change of a target's value by each set of changes.

    `read` is a direction in the input of the unembedding, at the last position: for a token its unembedding less the
    mean, so that the value is a logit before any cap. `layers` belongs to mode `range`.
    """
    return final_states(system, changes, mode, layers) @ read


@torch.no_grad()
def final_states(
    system: System,
    changes: Sequence[Sequence[Intervention]],
    mode: Mode = "free",
    layers: range | None = None,
    done: Callable[[int], None] | None = None,
) -> Float[Tensor, "runs d_model"]:
    """Return the change of the unembedding's input at the last position, by each set of changes.

    `done` is called with the number of tokens of each pass.

    Raises `ConfigError` for a position outside the prompt, or for a range in a mode without one.
    """
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    if (layers is not None) != (mode == "range"):
        raise ConfigError(
            f"a range of layers belongs to mode 'range', which needs one; got mode {mode!r}, layers {layers}"
        )
    frozen = system.frozen
    written = [deltas(system, interventions) for interventions in changes]
    if mode == "direct" or (layers is not None and len(layers) == frozen.shape.n_layers):
        return torch.stack([push(frozen, delta).final[-1] for delta in written])
    states = torch.empty(len(written), frozen.shape.d_model, device=frozen.embedding.device)
    for rows, first in _passes(frozen, written, mode):
        states[rows] = _run(frozen, [written[row] for row in rows], mode, layers, first)
        if done:
            done(len(rows) * frozen.n_pos)
    return states - final_input(frozen, frozen.resid_post[-1])


def _passes(frozen: FrozenModel, written: list[dict[int, Tensor]], mode: Mode) -> Iterator[tuple[list[int], int]]:
    """Yield the runs of each pass, and the first position that it computes: earlier ones are not changed.

    A pass has at most the tokens of `ROWS` prompts.
    """
    changed = [_first_changed(delta) if mode == "free" else 0 for delta in written]
    rows: list[int] = []
    for row in sorted(range(len(written)), key=lambda row: (-changed[row], -min(written[row], default=0))):
        if rows and (len(rows) + 1) * (frozen.n_pos - changed[row]) > ROWS * frozen.n_pos:
            yield rows, changed[rows[-1]]
            rows = []
        rows.append(row)
    if rows:
        yield rows, changed[rows[-1]]


def _first_changed(delta: dict[int, Tensor]) -> int:
    """Return the first position of a prompt that changes write to; 0 for none."""
    if not delta:
        return 0
    return int(torch.stack([*delta.values()]).abs().amax((0, 2)).ne(0).int().argmax())


def effect_profiles(
    system: System, nodes: Sequence[GraphNode], *, progress: Progress | None = None
) -> Float[np.ndarray, "nodes d_model"]:
    """Return the change of the unembedding's input by ablating each latent alone, with nothing frozen.

    `functools.partial(effect_profiles, system)` is what `interp.tracing.supernodes.judge_groups` takes.
    """
    changes = [[set_latent(node.layer, node.position, node.index, 0.0)] for node in nodes]
    tokens = 0

    def done(n: int) -> None:
        nonlocal tokens
        tokens += n
        if progress is not None:
            progress(tokens // system.frozen.n_pos, len(nodes), {})

    return final_states(system, changes, done=done).cpu().numpy()


def final_input(frozen: FrozenModel, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """Return the input of the unembedding for a residual stream, its norm recomputed."""
    norm = frozen.final.norm
    if norm is None:
        return resid
    unit = norm.unit_and_scale(resid)[0]
    return (unit if norm.gain is None else unit * norm.gain) + frozen.final.bias


def deltas(system: System, changes: Sequence[Intervention]) -> dict[int, Float[Tensor, "pos d_model"]]:
    """Return what changes add to each MLP's output, before a post-norm; a latent that is not active counts as 0."""
    frozen, replacement = system.frozen, system.replacement
    out: dict[int, Tensor] = {}
    for step in changes:
        layer, position, latent = latent_of(step)
        if not 0 <= position < frozen.n_pos or not 0 <= layer < frozen.shape.n_layers:
            raise ConfigError(
                f"layer {layer}, position {position} is outside the prompt: it has {frozen.n_pos} tokens, "
                f"the model {frozen.shape.n_layers} layers, both counted from 0"
            )
        mask = (system.layer == layer) & (system.latent == latent)
        clean = torch.zeros(frozen.n_pos, device=mask.device)
        clean[system.position[mask]] = system.activation[mask]
        clean = clean[position : step.positions[1] if step.positions else None]
        amounts = change_of(clean, step.action, step.amount)
        index = torch.tensor([latent], device=system.latent.device)
        unit = LayerLatents(torch.full_like(index, position), index, torch.ones(1, device=index.device))
        last = frozen.shape.n_layers if replacement.cross_layer else layer + 1
        for target in range(layer, last):
            at = out.setdefault(target, torch.zeros_like(frozen.embedding))
            at[position : position + len(amounts)] += torch.outer(amounts, replacement.writes(layer, unit, target)[0])
    return out


class Pushed(NamedTuple):
    """Changes in the frozen model, forwards."""

    before: list[Float[Tensor, "pos d_model"]]
    """of the residual stream before each block"""
    inputs: list[Float[Tensor, "pos d_model"]]
    """of what the dictionary of each layer reads"""
    final: Float[Tensor, "pos d_model"]
    """of the unembedding's input"""


def push(frozen: FrozenModel, written: dict[int, Tensor], embedding: Tensor | None = None) -> Pushed:
    """Return how the frozen model changes when MLP outputs (`written`, by layer) or the embedding change."""
    stream = torch.zeros_like(frozen.embedding) if embedding is None else embedding
    before, inputs = [], []
    for layer, block in enumerate(frozen.blocks):
        before.append(stream)
        after = stream + block.push_attention(stream)
        inputs.append(apply_linear(block.norm2, stream if frozen.parallel else after))
        out = written.get(layer, torch.zeros_like(stream))
        skip = frozen.skips[layer]
        if skip is not None:
            through = inputs[-1] @ skip
            through[: frozen.skip_from] = 0
            out = out + through
        stream = after + (out if block.post2 is None else apply_linear(block.post2, out))
    return Pushed(before, inputs, apply_linear(frozen.final, stream))


def _run(
    frozen: FrozenModel, written: list[dict[int, Tensor]], mode: Mode, layers: range | None, unchanged: int
) -> Tensor:
    """Return the unembedding's input at the last position, of forward passes with changed MLP outputs.

    Keys and values of the first `unchanged` positions are those of the clean run, where the model can take them.
    """
    n, touched = len(written), sorted({layer for delta in written for layer in delta})
    starts = [*touched, *([layers.start] if layers else [])]
    first = int(min(starts)) if starts else 0
    before, past = frozen.blocks[first].before.to(frozen.model.cfg.dtype), None
    if unchanged >= LEAST_PAST:
        past = past_of(frozen.model, before[None, :unchanged], first)
    at = 0 if past is None else unchanged
    if past is not None:
        past.batch_repeat_interleave(n)
    none = torch.zeros_like(frozen.embedding)
    hooks: list[tuple[str, Hook]] = []
    for layer in range(first, frozen.shape.n_layers):
        if mode in ("range", "attention"):
            hooks.append((f"blocks.{layer}.attn.hook_pattern", inserting(frozen.blocks[layer].pattern)))
        clean = frozen.blocks[layer].mlp_out if layers is not None and layer in layers else None
        hooks += [(frozen.mlp_point(layer), inserting(clean))] if clean is not None else []
        if layer in touched:
            added = torch.stack([delta.get(layer, none)[at:] for delta in written])
            hooks.append((frozen.mlp_point(layer), adding(added)))
    store: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: object = None) -> None:
        store["resid"] = value[:, -1].detach().float()

    last = f"blocks.{frozen.shape.n_layers - 1}.hook_resid_post"
    start = before[None, at:].expand(n, -1, -1) if first or at else frozen.tokens.expand(n, -1)
    run_from(frozen.model, start, [*hooks, (last, keep)], layer=first, until=last, past=past)
    return final_input(frozen, store["resid"])


@dataclass(frozen=True, repr=False)
class EdgeSplit(Result):
    """One edge, split by the last head that moves it, and by the position that this head reads."""

    source: str
    target: str
    total: float
    """the edge: sum of `heads` and `stays`"""
    stays: float
    """paths that are at the target's position from the source on; 0 for a source at another position"""
    heads: Float[np.ndarray, "n_layers n_heads pos"]
    """share of each head by the key position that it reads"""
    patterns: Float[np.ndarray, "n_layers n_heads pos"]
    """attention of each head from the target's position to each key position"""
    token_texts: tuple[str, ...]

    def view(self) -> View:
        sizes = np.sort(np.abs(self.heads).sum(2), axis=None)[::-1]
        n = int(np.searchsorted(np.cumsum(sizes), 0.5 * sizes.sum())) + 1 if sizes.sum() else 0
        yield (
            f"{self.source} -> {self.target}: {self.total:+.3g}, of which {self.stays:+.3g} without a move; {n} heads "
            "carry half of the rest."
        )

    def to_records(self) -> list[Record]:
        """Return one row per head and key position, the largest share first."""
        order = np.argsort(-np.abs(self.heads), axis=None, kind="stable")
        rows = [np.unravel_index(i, self.heads.shape) for i in order.tolist() if self.heads.flat[i]]
        return [
            {
                "head": f"L{layer}H{head}",
                "position": int(key),
                "token": self.token_texts[key],
                "effect": float(self.heads[layer, head, key]),
                "attention": float(self.patterns[layer, head, key]),
            }
            for layer, head, key in rows
        ]


@torch.no_grad()
def split_edge(system: System, graph: AttributionGraph, source: str, target: str) -> EdgeSplit:
    """Split an edge of a graph, named by the ids of its nodes.

    `system` is what `open_system` returns for the prompt of the graph; `source` and `target` are the nodes.

    Raises `UnknownNameError` for a node that is not there, `ConfigError` for a target that reads nothing.
    """
    frozen, start, end = system.frozen, graph.node(source), graph.node(target)
    vectors, embedding = written_by(system, start)
    reader = reader_of(system, graph, end)
    before = push(frozen, vectors, embedding).before
    heads, stays = _follow(frozen, reader, before, vectors, embedding)
    position = int(reader.position[0])
    patterns = torch.stack([block.pattern[:, position] for block in frozen.blocks])
    return EdgeSplit(
        source=source,
        target=target,
        total=float(heads.sum() + stays),
        stays=stays,
        heads=heads.double().cpu().numpy(),
        patterns=patterns.double().cpu().numpy(),
        token_texts=graph.token_texts,
    )


def written_by(system: System, node: GraphNode) -> tuple[dict[int, Tensor], Tensor | None]:
    """Return what a node writes on the clean run: into MLP outputs by layer, or into the embedding.

    Raises `ConfigError` for a target, or for a latent that is not active.
    """
    frozen = system.frozen
    zero = torch.zeros_like(frozen.embedding)
    if node.kind == "token":
        zero[node.position] = frozen.embedding[node.position]
        return {}, zero
    if node.kind == "error":
        zero[node.position] = system.errors[node.layer, node.position]
        return {node.layer: zero}, None
    number = _number(system, node)
    written = {}
    for layer in range(node.layer, frozen.shape.n_layers if system.replacement.cross_layer else node.layer + 1):
        written[layer] = zero.clone()
        written[layer][node.position] = system.activation[number] * system.written_by(number, layer)[0]
    return written, None


def reader_of(system: System, graph: AttributionGraph, node: GraphNode) -> Starts:
    """Return what a node of a graph reads. Raises `ConfigError` for tokens and errors, which read nothing."""
    if node.kind == "feature":
        return system.feature_starts(_number(system, node))
    if node.kind != "logit":
        raise ConfigError(f"{node.id} reads nothing: a {node.kind} is a source only")
    layer = torch.tensor([system.frozen.shape.n_layers])
    return Starts(layer, torch.tensor([node.position]), read_of(system, graph, node.index)[None])


def _follow(
    frozen: FrozenModel,
    reader: Starts,
    before: list[Tensor],
    vectors: dict[int, Tensor],
    embedding: Tensor | None,
) -> tuple[Tensor, float]:
    """Pull a reader back along paths that stay at its position, and collect what each head brings there."""
    layer, position = int(reader.layer[0]), int(reader.position[0])
    n, shape = len(frozen.blocks), frozen.shape
    heads = before[0].new_zeros(n, shape.n_heads, frozen.n_pos)
    norm = frozen.final if layer == n else frozen.blocks[layer].norm2
    gradient = norm.fold(reader.read) / norm.scale[position]  # [1, d_model]
    stays = 0.0
    reads_after_attention = layer < n and not frozen.parallel
    for at in reversed(range(min(layer + 1, n) if reads_after_attention else layer)):
        block = frozen.blocks[at]
        resid_grad = gradient
        if at != layer:  # the MLP of the reader's own layer comes after it
            out = gradient if block.post2 is None else block.post2.fold(gradient) / block.post2.scale[position]
            if at in vectors:
                stays += float((out[0] * vectors[at][position]).sum())
            skip = frozen.skips[at]
            if skip is not None and position >= frozen.skip_from:
                resid_grad = resid_grad + block.norm2.fold(out @ skip.T) / block.norm2.scale[position]
        into = gradient if frozen.parallel else resid_grad
        into = into if block.post1 is None else block.post1.fold(into) / block.post1.scale[position]
        at_heads = rearrange(into @ block.W_O.T, "1 (h e) -> h e", h=shape.n_heads)
        values = rearrange(before[at] / block.norm1.scale @ block.W_V, "k (kv e) -> kv k e", kv=shape.n_kv_heads)
        values = values.repeat_interleave(shape.n_heads // shape.n_kv_heads, 0)
        heads[at] = block.pattern[:, position] * torch.einsum("hke,he->hk", values, at_heads)
        heads[at, :, position] = 0
        kept = at_heads * block.pattern[:, position, position, None]
        kept = rearrange(kept, "(kv g) e -> kv g e", kv=shape.n_kv_heads).sum(1)
        gradient = resid_grad + kept.reshape(1, -1) @ block.W_V.T / block.norm1.scale[position]
    if embedding is not None:
        stays += float((gradient[0] * embedding[position]).sum())
    return heads, stays


def _number(system: System, node: GraphNode) -> Tensor:
    mask = (system.layer == node.layer) & (system.position == node.position) & (system.latent == node.index)
    if node.kind != "feature" or not mask.any():
        raise ConfigError(f"{node.id} is not an active latent of this prompt and dictionary")
    return mask.nonzero()[0]


def first_order_effects(system: System, reads: Float[Tensor, "targets d_model"]) -> Float[Tensor, "targets sources"]:
    """Return the effect of every source of a prompt on what each target reads of the unembedding's input.

    Removing a source changes the target by about minus its effect.
    """
    frozen = system.frozen
    n = frozen.shape.n_layers if frozen.shape.d_mlp is not None else 0
    points = ["blocks.0.hook_resid_pre", *(frozen.mlp_point(layer) for layer in range(n))]
    probes = [torch.zeros_like(frozen.embedding).requires_grad_() for _ in points]
    hooks: list[tuple[str, Hook]] = [(point, adding(probe)) for point, probe in zip(points, probes, strict=True)]
    final: list[Tensor] = []
    hooks.append((f"blocks.{frozen.shape.n_layers - 1}.hook_resid_post", lambda value, hook: final.append(value)))
    with torch.enable_grad():
        run_with_hooks(frozen.model, frozen.tokens, hooks)
        values = reads @ final_input(frozen, final[0][0, -1].float())
        gradients = [torch.autograd.grad(value, probes, retain_graph=True) for value in values]
    effects = reads.new_zeros(len(reads), system.n_sources)
    for layer, rows in enumerate(zip(*gradients, strict=True), start=-1):
        system.add_effects(effects, layer, torch.stack(rows, 1))
    return effects
