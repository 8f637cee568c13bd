"""From a prompt to an attribution graph (Ameisen et al. 2025): targets, rows, scores with their nulls, pruning.

    graph = trace(model, "The capital of France is", Neurons())
    graph = trace(model, prompt, transcoders, target=" Paris", contrast=" London")

`trace_system` is the algorithm, its steps in order. The graph explains the last position; `interp.tracing._targets`
says what of it. Every score comes with that of the same prompt without any latent (the floor) and with an untrained
dictionary; predicted effects come with measured ones.

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

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.cache import size_text
from interp.errors import ConfigError, PromptError
from interp.models.adapter import available_hook_points, check_token_ids, to_tokens, token_strings, weight_hash
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec
from interp.progress import Progress
from interp.results import Record, Result
from interp.statistics import t_interval
from interp.tracing._influence import (
    GraphScores,
    Pruned,
    cumulative_share,
    influence,
    normalise_rows,
    prune,
    score,
)
from interp.tracing._targets import Aim, aim_at, likely_tokens
from interp.tracing.edges import BATCHES, Adjacency, RowStore, System, compute_rows, memory_needed, numbers_of
from interp.tracing.effects import agreement, first_order_effects, measure_sufficiency
from interp.tracing.frozen import FrozenModel
from interp.tracing.graph import (
    AttributionGraph,
    Flow,
    GraphEdges,
    GraphNode,
    GraphSettings,
    TraceConfig,
    TraceRun,
    edge_table,
    node_table,
)
from interp.tracing.replacement import NoReplacement, Replacement
from interp.view import View

Labels = Callable[[int, Sequence[int]], list[str]]
"""`labels(layer, latents)`: what each latent means; an empty text where that is not known."""

STORED_NODE_SHARE, STORED_EDGE_SHARE = 0.95, 0.99
STORED_NODES, STORED_EDGES = 3_000, 30_000
"""Thresholds and limits of what a graph stores, looser than those of the pruned graph, so that a page can move them."""


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
    """Trace one prompt: find the latents that lead to its next token, and how they act on each other.

    The arguments that are not listed are those of `trace_system`.

    Args:
        model: the model that is explained.
        prompt: text, or tokens `[1, pos]` with BOS.
        replacement: the dictionary that stands for the MLPs: transcoders, or `Neurons()`.
        config: size of the graph, measured effects, nulls (default: `TraceConfig()`).
        target, contrast: the token to explain (by default the most likely), and the one against it.
        labels: returns what latents of a layer mean.
        untrained: a dictionary whose scores are the null.
        folder: of the work in progress, from which an interrupted run continues.
        report: gets a line before the long work.
    Returns: the graph, with scores that say how much of the answer it explains.
    Raises:
        PromptError: a prompt that is too short, or a target that is not one token.
        MismatchError: a dictionary of other weights.
        ConfigError: a model that stays nonlinear when attention and norms are frozen.

    >>> trace(model, "abca", Neurons(), TraceConfig(effects=0, nulls=False)).headline()
    "Why 'abca' leads to 'O' rather than '<0x92>' (1%)"
    """
    settings = trace_settings(model, prompt, replacement, config or TraceConfig(), target=target, contrast=contrast)
    return trace_system(
        open_traced(model, settings, replacement),
        settings,
        prompt if isinstance(prompt, str) else None,
        labels=labels,
        untrained=untrained,
        folder=None if folder is None else lambda: folder,
        progress=progress,
        report=report,
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


def open_system(
    model: HookedModel, tokens: Int[Tensor, "1 pos"], replacement: Replacement, *, skip_positions: int = 1
) -> System:
    """Return the frozen model of a prompt with its latents: what `intervene` and custom readers need.

    Args:
        model: runs once on the prompt.
        tokens: the prompt's, BOS first, `[1, pos]`.
        replacement: the dictionary that stands for the MLPs: transcoders, or `Neurons()`.
        skip_positions: the number of first tokens at which MLPs are not replaced.
    Raises:
        ConfigError: a model that stays nonlinear when attention and norms are frozen.

    >>> len(open_system(model, to_tokens(model, "abca"), Neurons()).activation) > 1000  # active neurons, all positions
    True
    """
    reads, writes = replacement.reads_point, replacement.writes_point
    return System(FrozenModel(model, tokens, skip_positions, reads=reads, writes=writes), replacement)


def open_traced(model: HookedModel, settings: GraphSettings, replacement: Replacement) -> System:
    """Return the frozen model of a graph's prompt with its latents."""
    tokens = torch.tensor([settings.tokens], device=next(model.parameters()).device)
    return open_system(model, tokens, replacement, skip_positions=(settings.trace or TraceConfig()).skip_positions)


def trace_system(
    system: System,
    settings: GraphSettings,
    prompt: str | None = None,
    *,
    labels: Labels | None = None,
    untrained: Replacement | None = None,
    show: Callable[[AttributionGraph], None] | None = None,
    folder: Callable[[], Path] | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> AttributionGraph:
    """Build the attribution graph of one prompt, as in the sections of Ameisen et al. 2025 that the steps name.

    Args:
        system: "The Local Replacement Model" (`open_traced`): the model with attention patterns and the scales of norms
            fixed at their values on the prompt, and MLP outputs written as latents plus an error node per position.
        prompt: its text, where that is not the text of its tokens.
        labels: returns what each latent means. untrained: a dictionary whose scores are a null of the graph's.
        show: gets a first picture, with edges into the latents of largest influence only, before scores and tests.
        folder: makes the folder that keeps the rows of an interrupted run.
        report: gets one line before the long work: the number of active latents, and the memory that is needed.
    """
    frozen, config = system.frozen, settings.trace or TraceConfig()
    if report is not None:
        need = bytes_needed(system.n_features, frozen.n_pos, frozen.shape.n_layers, config)
        report(f"{system.n_features} active latents on {frozen.n_pos} tokens; needs {size_text(need)} of memory")
    # "Constructing an Attribution Graph for a Prompt": output nodes, and A[t, s] = a_s w(s -> t), the direct effects
    aim = aim_at(frozen.model, system, config, settings.target, settings.contrast)
    measures = aim.feature is None
    effects = first_order_effects(system, aim.starts.read) if measures else None
    texts = tuple(token_strings(frozen.model, frozen.tokens))

    def drawn(adjacency: Adjacency) -> AttributionGraph:
        # "Graph Pruning": by influence, the rows of the targets in B = (I - A)^-1 - I with A = |A| over its row sums
        pruned = prune_adjacency(adjacency, config.node_share, config.edge_share)
        stored, edges = stored_part(adjacency, pruned, config)
        return AttributionGraph(
            settings=settings,
            prompt="".join(texts) if prompt is None else prompt,
            token_texts=texts,
            n_layers=frozen.shape.n_layers,
            targets=tuple(aim.targets),
            scores=None,
            floor=None,
            untrained=None,
            run=TraceRun(
                frozen=tuple(frozen.frozen_parts),
                active=system.n_features,
                rows=len(adjacency.features),
                residue=adjacency.residue,
                nodes_kept=int(pruned.nodes.sum()),
                edges_kept=int(pruned.edges.sum()),
                candidates=tuple(likely_tokens(frozen.model, frozen.logits)),
            ),
            effects=None,
            carried=None,
            node_table=node_table(stored_nodes(system, adjacency, aim, pruned, stored, effects, labels, texts)),
            edge_table=edge_table(edges),
            flows=None,
            sufficiency=None,
        )

    begun = None if show is None else _store(system, aim, config, BATCHES * config.batch_size)
    if show is not None and begun is not None and begun.limit:
        show(drawn(assemble(system, aim, config, store=begun)))
    store = _store(system, aim, config, config.max_feature_nodes, None if folder is None else folder())
    if begun is not None and not store.done:
        store.continue_from(begun)
    begun = None
    adjacency = assemble(system, aim, config, store=store, progress=progress)
    # "Validating Attribution Graph Hypotheses with Interventions": ablations in the model with nothing frozen
    graph = drawn(adjacency)
    if effects is not None and config.effects and system.n_features:
        graph = _tested(graph, system, adjacency, effects[0], aim.starts.read[0], config)
    # "Attribution Graph Evaluation": replacement score and completeness, and the same without latents or training
    nulls = (NoReplacement(), untrained) if measures and config.nulls else (None, None)
    floor, fresh = (None if null is None else _score(assemble(System(frozen, null), aim, config)) for null in nulls)
    return replace(graph, scores=_score(adjacency), floor=floor, untrained=fresh)


def _tested(
    graph: AttributionGraph, system: System, adjacency: Adjacency, effects: Tensor, read: Tensor, config: TraceConfig
) -> AttributionGraph:
    """Return a graph with its effects beside measured ones, and with what its pruned part holds of the first target.

    The latter is not measured where another run does not show the activations of latents (`Replacement.watch`).
    """
    graph = replace(graph, effects=agreement(system, adjacency, effects, read, config))
    if f"blocks.0.{system.replacement.watch(0)[0]}" not in available_hook_points(system.frozen.model):
        return graph
    inside = torch.zeros(system.n_features, dtype=torch.bool)
    inside[system.source_numbers([node for node in graph.nodes if node.kind == "feature" and node.kept])] = True
    sufficiency = measure_sufficiency(system, inside, effects[: system.n_features], read, config.seed)
    return replace(graph, sufficiency=sufficiency)


def _score(adjacency: Adjacency) -> GraphScores:
    return score(adjacency.matrix, adjacency.weights, adjacency.kinds)


def _store(system: System, aim: Aim, config: TraceConfig, most: int, folder: Path | None = None) -> RowStore:
    """Return an empty store for the rows of at most `most` latents, or that of an interrupted run."""
    limit = min(most, config.max_feature_nodes, system.n_features - (aim.feature is not None))
    return RowStore(len(aim.targets), max(limit, 0), system.n_sources, folder)


def assemble(
    system: System,
    aim: Aim,
    config: TraceConfig,
    *,
    store: RowStore | None = None,
    progress: Progress | None = None,
) -> Adjacency:
    """Compute the rows and put them into one square matrix."""
    store = store or _store(system, aim, config, config.max_feature_nodes)
    weights = np.array([target.weight for target in aim.targets])
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


def prune_adjacency(
    adjacency: Adjacency, node_share: float, edge_share: float, total: Float[np.ndarray, " n"] | None = None
) -> Pruned:
    """Return the part of a graph that holds these shares of influence and of edge scores (`prune`)."""
    matrix, weights, kinds = adjacency.matrix, adjacency.weights, adjacency.kinds
    return prune(matrix, weights, kinds, node_share=node_share, edge_share=edge_share, total=total)


def stored_part(adjacency: Adjacency, pruned: Pruned, config: TraceConfig) -> tuple[Bool[np.ndarray, " n"], GraphEdges]:
    """Return which nodes a graph stores, and its edges: more than are kept, so that a page can move the thresholds."""
    shares = max(STORED_NODE_SHARE, config.node_share), max(STORED_EDGE_SHARE, config.edge_share)
    loose = prune_adjacency(adjacency, *shares, total=pruned.influence)
    stored = loose.nodes | pruned.nodes
    if stored.sum() > STORED_NODES:
        needed = pruned.nodes | np.isin(adjacency.kinds, ("token", "logit"))
        first = np.argsort(-np.where(needed, np.inf, pruned.influence), kind="stable")
        stored &= np.argsort(first, kind="stable") < max(STORED_NODES, int(needed.sum()))
    targets, sources = np.nonzero((loose.edges | pruned.edges) & stored[:, None] & stored)
    strength = loose.edge_score[targets, sources]
    if len(strength) > STORED_EDGES:  # only those are put in order
        strong = np.flatnonzero(strength >= np.partition(strength, -STORED_EDGES)[-STORED_EDGES])
        targets, sources, strength = targets[strong], sources[strong], strength[strong]
    order = np.argsort(-strength, kind="stable")[:STORED_EDGES]
    targets, sources = targets[order], sources[order]
    number = np.cumsum(stored) - 1
    edges = GraphEdges(
        source=number[sources].astype(np.int32),
        target=number[targets].astype(np.int32),
        weight=adjacency.matrix[targets, sources],
        share=cumulative_share(loose.edge_score[targets, sources]),
        kept=pruned.edges[targets, sources],
    )
    return stored, edges


def stored_nodes(
    system: System,
    adjacency: Adjacency,
    aim: Aim,
    pruned: Pruned,
    stored: Bool[np.ndarray, " n"],
    effects: Float[Tensor, "targets sources"] | None,
    labels: Labels | None,
    texts: Sequence[str],
) -> tuple[GraphNode, ...]:
    """Return the stored nodes, in the order of the adjacency matrix."""
    features, n_pos, n_layers = adjacency.features, system.frozen.n_pos, system.frozen.shape.n_layers
    layers, positions, latents = (getattr(system, name).tolist() for name in ("layer", "position", "latent"))
    activations = system.activation.tolist()
    first_error, first_token = len(features), len(features) + system.n_errors
    first_target = first_token + n_pos
    named = _labels(labels, [(layers[i], latents[i]) for i in features[stored[: len(features)]]])
    probabilities = system.frozen.logits.softmax(-1)
    by_source = [] if effects is None else effects.T.tolist()
    nodes = []
    for i in np.flatnonzero(stored).tolist():
        source = int(features[i]) if i < first_error else system.n_features + i - first_error
        if i < first_error:
            key = (layers[source], latents[source])
            node = GraphNode(
                "feature", key[0], positions[source], key[1], activations[source], label=named.get(key, "")
            )
        elif i < first_token:
            node = GraphNode("error", *divmod(i - first_error, n_pos), -1)
        elif i < first_target:
            position = i - first_token
            node = GraphNode("token", -1, position, int(system.frozen.tokens[0, position]), label=texts[position])
        else:
            which = i - first_target
            target = aim.targets[which]
            chance = target.weight if target.token is None else float(probabilities[target.token])
            layer = n_layers if aim.feature is None else int(aim.starts.layer[which])
            position = int(aim.starts.position[which])
            node = GraphNode("logit", layer, position, which, probability=chance, label=target.label)
        total, share = float(pruned.influence[i]), float(pruned.node_share[i])
        moved = by_source[source] if by_source and i < first_target else ()
        nodes.append(replace(node, influence=total, share=share, kept=bool(pruned.nodes[i]), effects=moved))
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
            rows.append(
                Flow(
                    source=source,
                    target=target,
                    mean=float(values.mean()),
                    low=float(interval.low),
                    high=float(interval.high),
                    same_sign=int((np.sign(values) == np.sign(values.mean())).sum()),
                    n=len(values),
                )
            )
        return sorted(rows, key=lambda row: -abs(row.mean))

    def to_records(self) -> list[Record]:
        """Return the flows as rows of a table."""
        return [asdict(row) for row in self.rows()]

    def view(self) -> View:
        rows = self.rows()
        sure = sum(row.beyond for row in rows)
        yield (
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
    if "{}" not in template:
        raise ConfigError(
            f"a template has {{}} where the word goes, such as 'The capital of {{}} is', got {template!r}"
        )
    if len(words) < LEAST:
        raise ConfigError(f"an interval needs at least {LEAST} words; got {len(words)}: {', '.join(words)}")
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
