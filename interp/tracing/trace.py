"""From a prompt to an attribution graph: targets, rows, scores with their baselines, pruning.

    graph = trace(model, "The capital of France is", Neurons())
    graph = trace(model, prompt, transcoders, target=" Paris", contrast=" London")

The graph explains the last position. Its targets are the most likely next tokens, or one token, the difference of two,
or a latent (`feature:LAYER:POSITION:LATENT`). Every score comes with that of the same prompt without any latent (the
floor) and with an untrained dictionary; predicted effects come with measured ones.

**Variants** are one template with several words: a distribution for every edge of the grouped graph.

    words = {"France": " Paris", "Italy": " Rome", "Japan": " Tokyo"}
    found = trace_variants(model, "The capital of {} is", words, replacement)
    print(found)                 # flows between groups of nodes, with 95 % intervals over the words

Latents that are active differ from word to word, so nodes are grouped by what all prompts share: the position, and the
third of the layers. The flow from one group to another is the sum of edge scores between their nodes, signed by the
edges: the part of all influence on the target that goes straight from one to the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.cache import size_text
from interp.errors import ConfigError, PromptError
from interp.models.adapter import check_token_ids, to_tokens, token_strings, weight_hash
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec, tokenizer_of
from interp.progress import Progress
from interp.results import Record, Result
from interp.statistics import t_interval
from interp.tracing._influence import GraphScores, cumulative_share, influence, normalise_rows, prune, score
from interp.tracing.edges import Adjacency, RowStore, System, compute_rows, memory_needed, numbers_of
from interp.tracing.effects import agreement, final_input
from interp.tracing.frozen import FrozenModel, Starts
from interp.tracing.graph import (
    AttributionGraph,
    Flow,
    GraphEdges,
    GraphNode,
    GraphSettings,
    GraphTarget,
    TraceConfig,
    TraceRun,
    edge_table,
    node_table,
)
from interp.tracing.replacement import NoReplacement, Replacement

Labels = Callable[[int, Sequence[int]], list[str]]
"""`labels(layer, latents)`: what each latent means; an empty text where that is not known."""

STORED_NODE_SHARE, STORED_EDGE_SHARE = 0.95, 0.99
STORED_NODES, STORED_EDGES = 3_000, 30_000
"""Thresholds and limits of what a graph stores, looser than those of the pruned graph, so that a page can move them."""


class Aim(NamedTuple):
    """Outputs that a graph explains: targets, what each reads, and its clean value."""

    targets: list[GraphTarget]
    starts: Starts
    values: Float[Tensor, " targets"]
    feature: int | None = None
    """number of the latent that is the target"""


def trace(
    model: HookedModel,
    prompt: str | Tensor,
    replacement: Replacement,
    config: TraceConfig | None = None,
    *,
    target: str | None = None,
    contrast: str | None = None,
    labels: Labels | None = None,
    untrained: Replacement | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> AttributionGraph:
    """Trace one prompt. `prompt` is text, or tokens `[1, pos]` with BOS; `folder` keeps the rows of an interrupted run.

    `report` gets one line before the work starts: the number of active latents, and the memory that is needed.

    Raises `PromptError` for a prompt that is too short or a target that is not one token, `MismatchError` for a
    dictionary of other weights, `ConfigError` for a model that stays nonlinear when attention and norms are frozen.
    """
    config = config or TraceConfig()
    tokens = _tokens(model, prompt, config)
    system = open_system(model, tokens, replacement, skip_positions=config.skip_positions)
    frozen = system.frozen
    if report is not None:
        need = bytes_needed(system.n_features, frozen.n_pos, frozen.shape.n_layers, config)
        report(f"{system.n_features} active latents on {frozen.n_pos} tokens; needs {size_text(need)} of memory")
    aim = aim_at(model, system, config, target, contrast)
    adjacency = assemble(system, aim, config, folder=folder, progress=progress)
    effects = None
    nulls: dict[str, GraphScores | None] = {"floor": None, "untrained": None}
    if config.effects and system.n_features and aim.feature is None:
        effects = agreement(system, adjacency, aim.starts.read[0], config)
    if config.nulls and aim.feature is None:
        for name, null in (("floor", NoReplacement()), ("untrained", untrained)):
            if null is not None:
                nulls[name] = _score(assemble(System(frozen, null), aim, config))
    texts = token_strings(model, tokens)
    nodes, edges, kept = _pruned(system, adjacency, aim, config, labels, texts)
    return AttributionGraph(
        settings=trace_settings(model, tokens, replacement, config, target=target, contrast=contrast),
        prompt=prompt if isinstance(prompt, str) else "".join(texts),
        token_texts=tuple(texts),
        n_layers=frozen.shape.n_layers,
        targets=tuple(aim.targets),
        scores=_score(adjacency),
        **nulls,
        run=TraceRun(
            frozen=tuple(frozen.frozen_parts),
            active=system.n_features,
            rows=len(adjacency.features),
            residue=adjacency.residue,
            **kept,
        ),
        effects=effects,
        carried=None,
        node_table=node_table(nodes),
        edge_table=edge_table(edges),
        flows=None,
        groups=None,
    )


def trace_settings(
    model: HookedModel,
    prompt: str | Tensor,
    replacement: Replacement,
    config: TraceConfig,
    *,
    target: str | None = None,
    contrast: str | None = None,
    words: Mapping[str, str] | None = None,
) -> GraphSettings:
    """Return what determines the graph of a prompt. Raises `PromptError` as `trace`."""
    return GraphSettings(
        model=model_spec(model),
        weight_hash=weight_hash(model),
        dictionary=replacement.name,
        tokens=tuple(_tokens(model, prompt, config)[0].tolist()),
        target=target,
        contrast=contrast,
        words=dict(words or {}),
        trace=config,
    )


def _score(adjacency: Adjacency) -> GraphScores:
    return score(adjacency.matrix, adjacency.weights, adjacency.kinds)


def open_system(
    model: HookedModel, tokens: Int[Tensor, "1 pos"], replacement: Replacement, *, skip_positions: int = 1
) -> System:
    """Return the frozen model of a prompt with its latents: what `intervene` and custom readers need."""
    reads, writes = replacement.reads_point, replacement.writes_point
    return System(FrozenModel(model, tokens, skip_positions, reads=reads, writes=writes), replacement)


def assemble(
    system: System,
    aim: Aim,
    config: TraceConfig,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Adjacency:
    """Compute the rows and put them into one square matrix."""
    weights = np.array([target.weight for target in aim.targets])
    limit = min(config.max_feature_nodes, system.n_features - (aim.feature is not None))
    store = RowStore(len(aim.targets), max(limit, 0), system.n_sources, folder)
    compute_rows(
        system,
        aim.starts,
        aim.values,
        weights,
        store,
        batch_size=config.batch_size,
        leave_out=aim.feature,
        progress=progress,
    )
    chosen = numbers_of(store)
    order = np.argsort(chosen, kind="stable")
    features, n_targets = chosen[order], len(aim.targets)
    columns = np.concatenate([features, np.arange(system.n_features, system.n_sources)])
    n = len(columns) + n_targets
    matrix = np.zeros((n, n), dtype=np.float32)
    for row, at in enumerate(order):
        matrix[row, : len(columns)] = store.effects[n_targets + at, columns]
    matrix[n - n_targets :, : len(columns)] = store.effects[:n_targets, columns]
    kinds = np.repeat(
        ["feature", "error", "token", "logit"], [len(features), system.n_errors, system.frozen.n_pos, n_targets]
    )
    scale = max(float(aim.values.abs().max()), float(system.activation.abs().max()) if system.n_features else 0.0, 1e-9)
    residue = float(store.residues[: store.done].max()) / scale
    store.remove()
    return Adjacency(matrix, np.concatenate([np.zeros(len(columns)), weights]), kinds, features, residue)


def bytes_needed(n_active: int, n_pos: int, n_layers: int, config: TraceConfig) -> int:
    """Return the memory that `trace` needs besides model and dictionary, at its peak."""
    rows = min(config.max_feature_nodes, n_active) + config.max_logits
    rest = n_pos * (n_layers + 1)
    return memory_needed(rows, n_active + rest, rows + rest)


def _tokens(model: HookedModel, prompt: str | Tensor, config: TraceConfig) -> Tensor:
    tokens = to_tokens(model, prompt) if isinstance(prompt, str) else prompt
    check_token_ids(model, tokens)
    if tokens.ndim != 2 or len(tokens) != 1:
        raise PromptError(f"expected tokens [1, pos] of one prompt, got {list(tokens.shape)}")
    if tokens.shape[1] < config.skip_positions + 1:
        raise PromptError(
            f"the prompt has {tokens.shape[1]} tokens, of which {config.skip_positions} are left out as BOS; a graph "
            "needs at least one more"
        )
    return tokens


def aim_at(
    model: HookedModel, system: System, config: TraceConfig, target: str | None = None, contrast: str | None = None
) -> Aim:
    """Return the targets of a graph and what they read; by default the most likely next tokens.

    Raises `PromptError` for a target that is not one token, `ConfigError` for a latent that is not active.
    """
    if target is not None and target.startswith("feature:"):
        if contrast is not None:
            raise ConfigError("a latent as the target has no contrast; leave --contrast out")
        return _feature_aim(system, target)
    frozen = system.frozen
    probabilities = frozen.logits.softmax(-1)
    if target is None:
        if contrast is not None:
            raise ConfigError("a contrast needs a target; add --target")
        ids = likely_tokens(probabilities, config.logit_share, config.max_logits)
        targets = [
            GraphTarget(text, token, weight=float(probabilities[token]))
            for token, text in zip(ids, token_strings(model, ids), strict=True)
        ]
    else:
        token, against = _one_token(model, target), None if contrast is None else _one_token(model, contrast)
        label = target if contrast is None else f"{target} - {contrast}"
        targets = [GraphTarget(label, token, against)]
    unembed = model.W_U.detach().float()  # its bias is part of a logit, but nothing reads it
    reads, values = [], []
    for aim in targets:
        baseline = unembed.mean(1) if aim.contrast is None else unembed[:, aim.contrast]
        reads.append(unembed[:, aim.token] - baseline)
        values.append(reads[-1] @ final_input(frozen, frozen.resid_post[-1]))
    n = frozen.shape.n_layers
    layer = torch.full((len(targets),), n, device=unembed.device)
    starts = Starts(layer, torch.full_like(layer, frozen.n_pos - 1), torch.stack(reads))
    return Aim(targets, starts, torch.stack(values))


def _feature_aim(system: System, name: str) -> Aim:
    parts = name.split(":")[1:]
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ConfigError(f"a latent is written feature:LAYER:POSITION:LATENT, got {name!r}")
    layer, position, latent = map(int, parts)
    mask = (system.layer == layer) & (system.position == position) & (system.latent == latent)
    if not mask.any():
        raise ConfigError(f"latent {latent} of layer {layer} is not active at position {position} of this prompt")
    number = mask.nonzero()[0]
    targets = [GraphTarget(name)]
    return Aim(targets, system.feature_starts(number), system.read_values(number), int(number))


def likely_tokens(probabilities: Float[Tensor, " d_vocab"], share: float, limit: int) -> list[int]:
    """Return the fewest most likely tokens whose probabilities sum to `share`, at most `limit`."""
    values, tokens = probabilities.topk(min(limit, len(probabilities)))
    n = int((values.cumsum(0) < share).sum()) + 1
    return tokens[:n].tolist()


def _one_token(model: HookedModel, text: str) -> int:
    ids = list(tokenizer_of(model).encode_batch([text])[0])
    if len(ids) != 1:
        pieces = ", ".join(repr(piece) for piece in token_strings(model, ids))
        raise PromptError(f"a target is one token, {text!r} is {len(ids)} ({pieces}); a leading space often matters")
    return int(ids[0])


def _pruned(
    system: System,
    adjacency: Adjacency,
    aim: Aim,
    config: TraceConfig,
    labels: Labels | None,
    texts: list[str],
) -> tuple[tuple[GraphNode, ...], GraphEdges, dict[str, int]]:
    """Return the nodes and edges to store, and how many the default thresholds keep, stored or not."""
    matrix, weights, kinds = adjacency.matrix, adjacency.weights, adjacency.kinds
    default = prune(matrix, weights, kinds, node_share=config.node_share, edge_share=config.edge_share)
    loose = prune(
        matrix,
        weights,
        kinds,
        node_share=max(STORED_NODE_SHARE, config.node_share),
        edge_share=max(STORED_EDGE_SHARE, config.edge_share),
        total=default.influence,
    )
    stored = loose.nodes | default.nodes
    total = default.influence
    fixed = np.isin(kinds, ("token", "logit"))
    if stored.sum() > STORED_NODES:
        rank = np.argsort(np.argsort(-np.where(default.nodes | fixed, np.inf, total), kind="stable"), kind="stable")
        stored &= rank < max(STORED_NODES, int((default.nodes | fixed).sum()))
    inside = (loose.edges | default.edges) & stored[:, None] & stored
    targets, sources = np.nonzero(inside)
    scores = loose.edge_score[targets, sources]
    kept = default.edges[targets, sources]
    order = np.argsort(-scores, kind="stable")[:STORED_EDGES]
    targets, sources, scores, kept = (column[order] for column in (targets, sources, scores, kept))
    number = np.cumsum(stored) - 1
    edges = GraphEdges(
        source=number[sources].astype(np.int32),
        target=number[targets].astype(np.int32),
        weight=matrix[targets, sources],
        share=cumulative_share(scores),
        kept=kept,
    )
    counts = {"nodes_kept": int(default.nodes.sum()), "edges_kept": int(default.edges.sum())}
    return _nodes(system, adjacency, aim, stored, total, default, labels, texts), edges, counts


def _nodes(
    system: System,
    adjacency: Adjacency,
    aim: Aim,
    stored: np.ndarray,
    total: np.ndarray,
    default: Any,
    labels: Labels | None,
    texts: list[str],
) -> tuple[GraphNode, ...]:
    features, n_pos, n_layers = adjacency.features, system.frozen.n_pos, system.frozen.shape.n_layers
    layers, positions, latents = (getattr(system, name).tolist() for name in ("layer", "position", "latent"))
    activations = system.activation.tolist()
    first_error, first_token = len(features), len(features) + system.n_errors
    first_target = first_token + n_pos
    named = _labels(labels, [(layers[i], latents[i]) for i in features[stored[: len(features)]]])
    nodes = []
    for i in np.flatnonzero(stored).tolist():
        columns = {"influence": float(total[i]), "share": float(default.node_share[i]), "kept": bool(default.nodes[i])}
        if i < first_error:
            at = int(features[i])
            label = named.get((layers[at], latents[at]), "")
            columns |= {"activation": activations[at], "label": label}
            nodes.append(GraphNode("feature", layers[at], positions[at], latents[at], **columns))
        elif i < first_token:
            layer, position = divmod(i - first_error, n_pos)
            nodes.append(GraphNode("error", layer, position, -1, **columns))
        elif i < first_target:
            position = i - first_token
            token = int(system.frozen.tokens[0, position])
            nodes.append(GraphNode("token", -1, position, token, label=texts[position], **columns))
        else:
            which = i - first_target
            target = aim.targets[which]
            chance = target.weight if target.token is None else float(system.frozen.logits.softmax(-1)[target.token])
            columns |= {"probability": chance, "label": target.label}
            layer, position = int(aim.starts.layer[which]), int(aim.starts.position[which])
            layer = layer if aim.feature is not None else n_layers
            nodes.append(GraphNode("logit", layer, position, which, **columns))
    return tuple(nodes)


def _labels(labels: Labels | None, wanted: list[tuple[int, int]]) -> dict[tuple[int, int], str]:
    if labels is None:
        return {}
    texts: dict[tuple[int, int], str] = {}
    for layer in sorted({layer for layer, _ in wanted}):
        latents = sorted({latent for block, latent in wanted if block == layer})
        texts |= {(layer, latent): text for latent, text in zip(latents, labels(layer, latents), strict=True)}
    return texts


LEAST = 3
"""Fewest words that give an interval."""
PARTS = ("early", "middle", "late")


@dataclass(frozen=True, repr=False)
class Variants(Result):
    """Flows between groups of nodes over several prompts of one template."""

    template: str
    words: tuple[str, ...]
    flows: dict[tuple[str, str], Float[np.ndarray, " words"]]
    """`(source group, target group)` -> flow in each prompt, signed; the absolute flows into the target group sum to
    less than 1 where effects of both signs meet"""

    def rows(self) -> list[Flow]:
        """Return one row per pair of groups, the largest mean flow first."""
        rows = []
        for (source, target), values in self.flows.items():
            interval = t_interval(values)
            ends = {"low": float(interval.low), "high": float(interval.high)}
            same = int((np.sign(values) == np.sign(values.mean())).sum())
            mean = float(values.mean())
            rows.append(Flow(source=source, target=target, mean=mean, **ends, same_sign=same, n=len(values)))
        return sorted(rows, key=lambda row: -abs(row.mean))

    def to_records(self) -> list[Record]:
        """Return the flows as rows of a table."""
        return [asdict(row) for row in self.rows()]

    def headline(self) -> str:
        """Name the template, and how many flows have a sign that the words agree on."""
        rows = self.rows()
        sure = sum(row.beyond for row in rows)
        return (
            f"{self.template!r} with {len(self.words)} words: {sure} of {len(rows)} flows between groups have an "
            f"interval that excludes 0, {0.05 * len(rows):.0f} by chance."
        )


def trace_variants(
    model: HookedModel,
    template: str,
    words: Mapping[str, str],
    replacement: "Replacement",
    config: TraceConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Variants:
    """Trace every word of a template, which has `{}` where the word goes; `words` maps each to the target token.

    Raises `PromptError` unless all prompts have the same number of tokens, so that positions can be compared, and
    `ConfigError` for fewer than three words or a template without `{}`.
    """

    config = replace(config or TraceConfig(), effects=0, nulls=False)
    if "{}" not in template or len(words) < LEAST:
        raise ConfigError(
            f"a template has {{}} where the word goes, and at least {LEAST} words; got {len(words)} words"
        )
    tokens = {word: to_tokens(model, template.replace("{}", word)) for word in words}
    lengths = {word: prompt.shape[1] for word, prompt in tokens.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{word!r} {n}" for word, n in lengths.items())
        raise PromptError(f"prompts of a template need the same number of tokens, got {shown}; choose other words")
    ids = [prompt[0].tolist() for prompt in tokens.values()]
    slots = [len({row[i] for row in ids}) > 1 for i in range(len(ids[0]))]
    texts = ["{}" if slot else text for slot, text in zip(slots, token_strings(model, ids[0]), strict=True)]
    by_pair: dict[tuple[str, str], list[float]] = {}
    for done, (word, target) in enumerate(words.items()):
        system = open_system(model, tokens[word], replacement, skip_positions=config.skip_positions)
        adjacency = assemble(system, aim_at(model, system, config, target), config)
        for pair, flow in flows(adjacency, groups_of(system, adjacency, texts)).items():
            by_pair.setdefault(pair, [0.0] * len(words))[done] = flow
        if progress is not None:
            progress(done + 1, len(words), {})
    arrays = {pair: np.array(values) for pair, values in by_pair.items() if np.any(values)}
    return Variants(template, tuple(words), arrays)


def groups_of(system: "System", adjacency: Adjacency, texts: list[str]) -> list[str]:
    """Return the group of each node: kind, third of the layers, position."""
    n_layers, n_pos = system.frozen.shape.n_layers, system.frozen.n_pos
    at = [f"{text!r} ({position})" for position, text in enumerate(texts)]

    def part(layer: int) -> str:
        return PARTS[min(2, 3 * layer // n_layers)]

    layers, positions = system.layer.tolist(), system.position.tolist()
    names = [f"{part(layers[i])} latents at {at[positions[i]]}" for i in adjacency.features.tolist()]
    names += [f"{part(i // n_pos)} errors at {at[i % n_pos]}" for i in range(system.n_errors)]
    names += [f"token {position}" for position in at]
    return names + ["target"] * (len(adjacency.kinds) - len(names))


def flows(adjacency: Adjacency, groups: list[str]) -> dict[tuple[str, str], float]:
    """Return the signed flow of influence between groups, by `(source, target)`; pairs without any are left out."""
    shares = normalise_rows(adjacency.matrix)
    shares *= (influence(shares, adjacency.weights) + adjacency.weights.astype(shares.dtype))[:, None]
    shares *= np.sign(adjacency.matrix)
    names = sorted(set(groups))
    member = np.array([[group == name for group in groups] for name in names], dtype=np.float32)
    table = member @ shares @ member.T  # [target group, source group]
    return {(names[source], names[target]): float(table[target, source]) for target, source in np.argwhere(table != 0)}
