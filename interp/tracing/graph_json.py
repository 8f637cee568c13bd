"""Entries of a graph JSON: nodes, links and marks, decoded by `interp.forms`, then checked together. Torch-free.

`interchange` makes a graph of them. Every error is a `CorruptError` that names the entry.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Interval, MinLen

from interp.errors import CorruptError
from interp.forms import from_json
from interp.tracing._influence import Walks, cumulative_share
from interp.tracing.graph import GraphEdges, GraphNode, GraphTarget, NodeKind, Supernode
from interp.tracing.supernodes import GraphEdits

MAX_DEPTH = 24
"""Levels of lists and objects in the parts of a file that are carried along."""
NAMED_TARGET = 1_000_000
"""Targets that are not one token have this number, plus their own, in place of a token id."""

TYPES: dict[NodeKind, str] = {
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "token": "embedding",
    "logit": "logit",
}
"""Kind of node -> `feature_type` in the file; the order of nodes in an export."""
_KINDS: dict[str, NodeKind] = {text: kind for kind, text in TYPES.items()}


def cantor(layer: int, latent: int) -> int:
    """Return one number for a layer and a latent (Cantor's pairing function).

    >>> cantor(0, 116505), cantor(1, 19591)
    (6786882270, 191952619)
    """
    return (layer + latent) * (layer + latent + 1) // 2 + latent


Single = Annotated[float, Interval(ge=-float(np.finfo(np.float32).max), le=float(np.finfo(np.float32).max))]
"""A number of single precision, as the artefact holds it."""


@dataclass(frozen=True, kw_only=True)
class FileNode:
    """Entry of `nodes`."""

    node_id: str
    feature_type: Literal["cross layer transcoder", "mlp reconstruction error", "embedding", "logit"]
    ctx_idx: Annotated[int, Ge(0)]
    layer: str | int
    feature: int | None = None
    clerp: str | None = None
    influence: float | None = None
    token_prob: float | None = None
    activation: Single | None = None


@dataclass(frozen=True, kw_only=True)
class FileLink:
    """Entry of `links`."""

    source: str
    target: str
    weight: Single


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Fields of `metadata` that we read; `workbench` is ours."""

    scan: str
    prompt: str
    prompt_tokens: tuple[str, ...]
    slug: str | None = None
    transcoder_list: tuple[str, ...] | None = None
    node_threshold: float | None = None
    workbench: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Fields of `qParams`: what a user of a viewer marked."""

    pinnedIds: tuple[str, ...] | None = None
    supernodes: tuple[Annotated[tuple[str, ...], MinLen(1)], ...] | None = None
    """A label and node ids each."""
    linkType: str | None = None
    clickedId: str | None = None
    sg_pos: str | None = None
    clerps: str | None = None
    """JSON in a text: `[[number of a latent, label], ...]`."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The other marks of a user of our page, in `metadata.workbench.marks`."""

    pins: tuple[str, ...] | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """A graph JSON."""

    metadata: Metadata
    nodes: tuple[FileNode, ...]
    links: tuple[FileLink, ...]
    qParams: Parameters | None = None


def read_file(data: Mapping[str, object]) -> GraphFile:
    """Return the parts of a graph JSON that we use. Lists in its parameters may be texts, as in a viewer's address."""
    params = data.get("qParams") if isinstance(data, dict) else None
    if isinstance(params, dict):
        pins = _listed(params, "pinnedIds", lambda text: text.split(",") if text else [])
        params = params | {"pinnedIds": pins, "supernodes": _listed(params, "supernodes", json.loads)}
        data = {**data, "qParams": params}
    return from_json(GraphFile, data, "the graph", "foreign")


def check_carried(value: object, where: str, depth: int = 0) -> None:
    """Raise `CorruptError` for a part that is carried along, and cannot be written again as JSON."""
    if depth > MAX_DEPTH:
        raise CorruptError(f"{where} is nested in more than {MAX_DEPTH} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise CorruptError(f"{where} holds {value}; JSON has finite numbers only")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_carried(part, where, depth + 1)


Numbers = dict[str, list[int]]
"""Id in a file -> numbers of its nodes; two where a latent and an error share the id, the latent first."""


def read_nodes(entries: Sequence[FileNode], n_positions: int) -> tuple[list[GraphNode], Numbers, list[int]]:
    """Return the nodes, logits last; their numbers by id; and the token of each logit."""
    named: list[tuple[str, GraphNode]] = []
    vocabulary: list[int] = []
    for i, entry in enumerate(entries):
        node = _read_node(entry, f"nodes.{i}", n_positions)
        if node.kind == "logit":
            vocabulary.append(node.index)
            node = replace(node, index=len(vocabulary) - 1)
        named.append((entry.node_id, node))
    named.sort(key=lambda pair: pair[1].kind == "logit")
    tops = {node.layer for _, node in named if node.kind == "logit"}
    below = max((node.layer for _, node in named if node.kind in ("feature", "error")), default=-1)
    if len(tops) != 1 or below >= max(tops):
        raise CorruptError(
            f"the logits should be in one layer, two above the last of the model; found latents up to layer {below} "
            f"and logits in {[top + 1 for top in sorted(tops)][:5]}"
        )
    ids: Numbers = {}
    for kind in TYPES:  # latents before errors
        for number, (name, node) in enumerate(named):
            if node.kind == kind:
                ids.setdefault(name, []).append(number)
    for name, numbers in ids.items():
        if len(numbers) > 1 and [named[n][1].kind for n in numbers] != ["feature", "error"]:
            raise CorruptError(f"node_id {name!r} occurs {len(numbers)} times")
    return [node for _, node in named], ids, vocabulary


def _read_node(entry: FileNode, where: str, n_positions: int) -> GraphNode:
    """Return the node of an entry; the index of a logit is its token, its layer that of the last MLP + 1."""
    name, position = entry.node_id, entry.ctx_idx
    kind = _KINDS[entry.feature_type]
    if position >= n_positions:
        raise CorruptError(f"{where}.ctx_idx is {position}, the prompt has {n_positions} tokens")
    is_number = re.fullmatch(r"\d{1,4}", str(entry.layer), re.ASCII)
    if kind != "token" and not is_number:
        raise CorruptError(f"{where}.layer should be a whole number, found {str(entry.layer)[:60]!r}")
    layer, index = -1 if kind == "token" else int(entry.layer), -1
    if kind != "error":
        parts = re.fullmatch(rf"{'E' if kind == 'token' else layer}_(\d{{1,15}})_{position}", name, re.ASCII)
        if parts is None:
            raise CorruptError(f"{where}.node_id {name[:60]!r} does not fit layer {entry.layer} and ctx_idx {position}")
        index = int(parts[1])
    if kind == "feature" and entry.feature not in (None, index, cantor(layer, index)):
        raise CorruptError(
            f"{where}.feature should be {cantor(layer, index)}, the pairing of layer {layer} and latent {index}, "
            f"found {entry.feature}"
        )
    return GraphNode(
        kind,
        layer - 1 if kind == "logit" else layer,
        position,
        index,
        activation=float(np.float32(entry.activation or 0.0)) if kind == "feature" else 0.0,
        share=math.nan if entry.influence is None else entry.influence,
        probability=entry.token_prob or 0.0 if kind == "logit" else 0.0,
        label=entry.clerp or "",
    )


Links = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_links(entries: Sequence[FileLink], nodes: list[GraphNode], ids: Numbers) -> tuple[Links, int]:
    """Return sources, targets and weights, and the number of links whose source had to be guessed."""
    weights: dict[tuple[int, int], float] = {}
    guessed: set[tuple[int, int]] = set()
    for i, entry in enumerate(entries):
        ends = (entry.source, entry.target)
        if unknown := [end for end in ends if end not in ids]:
            raise CorruptError(f"links.{i} names node {unknown[0][:60]!r}, which is not among the nodes")
        (source, *second), (target, *_) = ids[ends[0]], ids[ends[1]]
        if second and nodes[target].layer > nodes[second[0]].layer:
            if (source, target) in weights:
                guessed.discard((source, target))
                source = second[0]
            else:
                guessed.add((source, target))
        if nodes[source].layer >= nodes[target].layer:
            raise CorruptError(
                f"links.{i} leads from layer {nodes[source].layer} ({ends[0][:60]}) to layer {nodes[target].layer} "
                f"({ends[1][:60]}); direct effects lead to later layers"
            )
        if (source, target) in weights:
            raise CorruptError(f"links.{i} repeats the link from {ends[0][:60]} to {ends[1][:60]}")
        weights[source, target] = entry.weight
    both = np.array(list(weights), np.int32).reshape(-1, 2)
    return (both[:, 0], both[:, 1], np.array(list(weights.values()), np.float32)), len(guessed)


def read_targets(
    ours: tuple[GraphTarget, ...] | None, nodes: list[GraphNode], vocabulary: list[int]
) -> tuple[GraphTarget, ...]:
    """Return the explained outputs: as we wrote them, else from labels such as `Output " Paris" (p=0.613)`."""
    logits = [node for node in nodes if node.kind == "logit"]
    if ours is not None:
        for number in (token for target in ours for token in (target.token, target.contrast) if token is not None):
            if not 0 <= number < NAMED_TARGET:
                raise CorruptError(f"metadata: workbench: a target should name a token's id, found {number}")
        if len(ours) != len(logits):
            raise CorruptError(f"metadata: workbench: {len(ours)} targets, but {len(logits)} logits among the nodes")
        return ours
    targets = []
    for node, token in zip(logits, vocabulary, strict=True):
        text = re.fullmatch(r'Output "(.*)" \(p=[0-9.]+\)', node.label, re.DOTALL)
        label = text[1] if text else node.label or f"token {token}"
        targets.append(GraphTarget(label, token if token < NAMED_TARGET else None, weight=node.probability))
    return tuple(targets)


def with_influence(nodes: list[GraphNode], links: Links, weights: list[float]) -> tuple[list[GraphNode], GraphEdges]:
    """Return nodes and edges with influence and shares along the links. The last nodes are the weighted targets."""
    source, target, weight = links
    n = len(nodes)
    start = np.zeros(n)
    start[n - len(weights) :] = weights if any(weights) else 1 / len(weights)
    layer = np.array([node.layer for node in nodes])
    walks = Walks(source, target, weight, layer)
    visits = walks.visits(start)
    total, scores = visits - start, walks.part * visits[target]
    shares = cumulative_share(total)
    nodes = [
        replace(
            node,
            influence=float(total[i]),
            share=1.0 if node.kind == "logit" else float(shares[i]) if math.isnan(node.share) else node.share,
        )
        for i, node in enumerate(nodes)
    ]
    return nodes, GraphEdges(source, target, weight, cumulative_share(scores), np.ones(len(scores), bool))


def read_edits(params: Parameters, marks: Marks, nodes: list[GraphNode], ids: Numbers) -> GraphEdits:
    """Return the user's marks: those of the format, and those that we add."""

    def names(entries: Sequence[str], where: str) -> tuple[str, ...]:
        if unknown := [entry for entry in entries if entry not in ids]:
            raise CorruptError(f"{where} names node {unknown[0][:60]!r}, which is not among the nodes")
        return tuple(nodes[ids[entry][0]].id for entry in entries)

    groups = [
        Supernode(label, names(members, f"supernode {label[:60]!r}")) for label, *members in params.supernodes or ()
    ]
    labels = _labels_by_number(params, nodes)
    labels |= {names([name], "marks: labels")[0]: label for name, label in marks.labels}
    pins = names(params.pinnedIds or (), "qParams.pinnedIds")
    if marks.pins is not None:  # members of groups are pinned for viewers
        own_pins = names(marks.pins, "marks: pins")
        grouped = {name for group in groups for name in group.nodes}
        pins = tuple(name for name in pins if name in own_pins or name not in grouped)
    return GraphEdits(
        pins=pins,
        supernodes=tuple(groups),
        labels=labels,
        clicked=nodes[ids[clicked][0]].id if (clicked := params.clickedId or "") in ids else "",
        layout=params.sg_pos or "",
        link_type=params.linkType or "both",
    )


def _listed(params: Mapping[str, object], name: str, read: Callable[[str], object]) -> object:
    """Return a list that circuit-tracer's viewer saved as text, as in its address."""
    value = params.get(name)
    try:
        return read(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise CorruptError(f"qParams.{name} should be a list, found {str(value)[:60]!r}") from None


def _labels_by_number(params: Parameters, nodes: list[GraphNode]) -> dict[str, str]:
    """Return labels that a visitor of a viewer gave."""
    try:
        pairs = json.loads(params.clerps or "[]")
    except (ValueError, RecursionError):
        pairs = params.clerps
    labels = dict(from_json(tuple[tuple[str, str], ...], pairs, "qParams.clerps", "foreign"))
    numbers = {node.id: str(cantor(node.layer, node.index)) for node in nodes if node.kind == "feature"}
    return {id: labels[number] for id, number in numbers.items() if number in labels}
