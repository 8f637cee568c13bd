"""Entries of a graph JSON: nodes, links and marks, each checked as it is read. Torch-free.

`interchange` makes a graph of them. Every error is a `CorruptError` that names the entry.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from interp.errors import CorruptError
from interp.tracing.graph import GraphEdges, GraphNode, GraphTarget, NodeKind, Supernode
from interp.tracing.influence import cumulative_share, link_influence
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


def cantor(layer: int, latent: int) -> int:
    """Return one number for a layer and a latent (Cantor's pairing function).

    >>> cantor(0, 116505), cantor(1, 19591)
    (6786882270, 191952619)
    """
    return (layer + latent) * (layer + latent + 1) // 2 + latent


_NEEDED = object()
_WORDS = {str: "text", int: "a whole number", float: "a finite number", list: "a list", dict: "an object"}


def get(held: Mapping[str, Any], name: str, kind: Any, where: str, default: Any = _NEEDED) -> Any:
    """Return a field of an expected type. A field that is missing or null is its default, if it has one."""
    value: Any = held.get(name)
    if value is None and default is not _NEEDED:
        return default
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if kind is float:
        fits = isinstance(value, float) and math.isfinite(value)
    else:
        fits = type(value) is kind and not (isinstance(value, int) and abs(value) >= 2**53)
    if not fits:
        found = "nothing" if name not in held else short(value)
        raise CorruptError(f"{where}: {name} should be {_WORDS[kind]}, found {found}")
    return text_of(value, f"{where}: {name}") if kind is str else value


def _single(held: Mapping[str, Any], name: str, where: str, default: Any = _NEEDED) -> float:
    """Return a field of single precision, as the artefact holds it."""
    value = get(held, name, float, where, default)
    if abs(value) > float(np.finfo(np.float32).max):
        raise CorruptError(f"{where}: {name} {value} is beyond the largest number of 32 bits")
    return float(np.float32(value))


def short(value: Any) -> str:
    """Return a value in few characters."""
    if isinstance(value, list | dict):
        return _WORDS[type(value)]
    return repr(value[:60] if isinstance(value, str) else value)[:62]


def text_of(value: Any, where: str) -> str:
    """Return a text that can be written again."""
    if not isinstance(value, str):
        raise CorruptError(f"{where} should hold text, found {short(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise CorruptError(f"{where} holds half a character (a lone surrogate)") from None
    return value


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return a part that is carried along, once it can be written again as JSON."""
    if depth > MAX_DEPTH:
        raise CorruptError(f"{where} is nested in more than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {text_of(key, where): plain(each, where, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each, where, depth + 1) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise CorruptError(f"{where} holds {value}; JSON has finite numbers only")
    return text_of(value, where) if isinstance(value, str) else value


Numbers = dict[str, list[int]]
"""Id in a file -> numbers of its nodes; two where a latent and an error share the id, the latent first."""


def read_nodes(entries: list[Any], n_positions: int) -> tuple[list[GraphNode], Numbers, list[int]]:
    """Return the nodes, logits last; their numbers by id; and the token of each logit."""
    found: list[tuple[str, GraphNode]] = []
    vocabulary: list[int] = []
    for i, entry in enumerate(entries):
        where = f"node {i}"
        if not isinstance(entry, dict):
            raise CorruptError(f"{where} should be an object, found {short(entry)}")
        name, node = _read_node(entry, where, n_positions)
        if node.kind == "logit":
            vocabulary.append(node.index)
            node = replace(node, index=len(vocabulary) - 1)
        found.append((name, node))
    found.sort(key=lambda each: each[1].kind == "logit")
    tops = {node.layer for _, node in found if node.kind == "logit"}
    below = max((node.layer for _, node in found if node.kind in ("feature", "error")), default=-1)
    if len(tops) != 1 or below >= max(tops):
        raise CorruptError(
            f"the logits should be in one layer, two above the last of the model; found latents up to layer {below} "
            f"and logits in {[top + 1 for top in sorted(tops)][:5]}"
        )
    ids: Numbers = {}
    for kind in TYPES:  # latents before errors
        for number, (name, node) in enumerate(found):
            if node.kind == kind:
                ids.setdefault(name, []).append(number)
    for name, numbers in ids.items():
        if len(numbers) > 1 and [found[n][1].kind for n in numbers] != ["feature", "error"]:
            raise CorruptError(f"node_id {name!r} occurs {len(numbers)} times")
    return [node for _, node in found], ids, vocabulary


def _read_node(entry: dict[str, Any], where: str, n_positions: int) -> tuple[str, GraphNode]:
    """Return the id of an entry and its node; the index of a logit is its token, its layer that of the last MLP + 1."""
    name, kind_text = get(entry, "node_id", str, where), get(entry, "feature_type", str, where)
    kind: NodeKind | None = next((kind for kind, text in TYPES.items() if text == kind_text), None)
    if kind is None:
        raise CorruptError(
            f"{where}: feature_type should be one of {', '.join(TYPES.values())}, found {kind_text[:60]!r}"
        )
    position = get(entry, "ctx_idx", int, where)
    if not 0 <= position < n_positions:
        raise CorruptError(f"{where}: ctx_idx is {position}, the prompt has {n_positions} tokens")
    layer_text = entry["layer"] if isinstance(entry.get("layer"), str) else short(entry.get("layer"))
    layer = -1 if kind == "token" else int(layer_text) if re.fullmatch(r"\d{1,4}", layer_text, re.ASCII) else None
    if layer is None:
        raise CorruptError(f"{where}: layer should be a whole number, found {layer_text[:60]!r}")
    index = -1
    if kind != "error":
        parts = re.fullmatch(rf"{'E' if kind == 'token' else layer}_(\d{{1,15}})_{position}", name, re.ASCII)
        if parts is None:
            raise CorruptError(f"{where}: node_id {name[:60]!r} does not fit layer {layer_text} and ctx_idx {position}")
        index = int(parts[1])
    if kind == "feature" and entry.get("feature") not in (None, index, cantor(layer, index)):
        raise CorruptError(
            f"{where}: feature should be {cantor(layer, index)}, the pairing of layer {layer} and latent {index}, "
            f"found {short(entry['feature'])}"
        )
    share = get(entry, "influence", float, where, None)
    return name, GraphNode(
        kind,
        layer - 1 if kind == "logit" else layer,
        position,
        index,
        activation=_single(entry, "activation", where, 0.0) if kind == "feature" else 0.0,
        share=math.nan if share is None else share,
        probability=get(entry, "token_prob", float, where, 0.0) if kind == "logit" else 0.0,
        label=get(entry, "clerp", str, where, ""),
    )


Links = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_links(entries: list[Any], nodes: list[GraphNode], ids: Numbers) -> tuple[Links, int]:
    """Return sources, targets and weights, and the number of links whose source had to be guessed."""
    weights: dict[tuple[int, int], float] = {}
    guessed: set[tuple[int, int]] = set()
    for i, entry in enumerate(entries):
        where = f"link {i}"
        if not isinstance(entry, dict):
            raise CorruptError(f"{where} should be an object, found {short(entry)}")
        ends = [get(entry, end, str, where) for end in ("source", "target")]
        if unknown := [end for end in ends if end not in ids]:
            raise CorruptError(f"{where} names node {unknown[0][:60]!r}, which is not among the nodes")
        (source, *second), (target, *_) = ids[ends[0]], ids[ends[1]]
        if second and nodes[target].layer > nodes[second[0]].layer:
            if (source, target) in weights:
                guessed.discard((source, target))
                source = second[0]
            else:
                guessed.add((source, target))
        if nodes[source].layer >= nodes[target].layer:
            raise CorruptError(
                f"{where} leads from layer {nodes[source].layer} ({ends[0][:60]}) to layer {nodes[target].layer} "
                f"({ends[1][:60]}); direct effects lead to later layers"
            )
        if (source, target) in weights:
            raise CorruptError(f"{where} repeats the link from {ends[0][:60]} to {ends[1][:60]}")
        weights[source, target] = _single(entry, "weight", where)
    both = np.array(list(weights), np.int32).reshape(-1, 2)
    return (both[:, 0], both[:, 1], np.array(list(weights.values()), np.float32)), len(guessed)


def read_targets(
    ours: tuple[GraphTarget, ...] | None, nodes: list[GraphNode], vocabulary: list[int]
) -> tuple[GraphTarget, ...]:
    """Return the explained outputs: as we wrote them, else from labels such as `Output " Paris" (p=0.613)`."""
    logits = [node for node in nodes if node.kind == "logit"]
    if ours is not None:
        for number in (each for target in ours for each in (target.token, target.contrast) if each is not None):
            if not 0 <= number < NAMED_TARGET:
                raise CorruptError(f"metadata: workbench: a target should name a token's id, found {number}")
        if len(ours) != len(logits):
            raise CorruptError(f"metadata: workbench: {len(ours)} targets, but {len(logits)} logits among the nodes")
        return ours
    found = []
    for node, token in zip(logits, vocabulary, strict=True):
        text = re.fullmatch(r'Output "(.*)" \(p=[0-9.]+\)', node.label, re.DOTALL)
        label = text[1] if text else node.label or f"token {token}"
        found.append(GraphTarget(label, token if token < NAMED_TARGET else None, weight=node.probability))
    return tuple(found)


def with_influence(nodes: list[GraphNode], links: Links, weights: list[float]) -> tuple[list[GraphNode], GraphEdges]:
    """Return nodes and edges with influence and shares along the links. The last nodes are the weighted targets."""
    source, target, weight = links
    n = len(nodes)
    own = np.zeros(n)
    own[n - len(weights) :] = weights if any(weights) else 1 / len(weights)
    layer = np.array([node.layer for node in nodes])
    total, scores = link_influence(source, target, weight, layer, own)
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


def read_edits(params: dict[str, Any], marks: dict[str, Any], nodes: list[GraphNode], ids: Numbers) -> GraphEdits:
    """Return the user's marks: those of the format, and in `marks` those that we add."""

    def names(entries: list[Any], where: str) -> tuple[str, ...]:
        found = [text_of(each, where) for each in entries]
        if unknown := [each for each in found if each not in ids]:
            raise CorruptError(f"{where} names node {unknown[0][:60]!r}, which is not among the nodes")
        return tuple(nodes[ids[each][0]].id for each in found)

    def tuples(held: dict[str, Any], name: str, shape: str, where: str) -> list[list[Any]]:
        entries = get(held, name, list, where, [])
        least = 1 if shape.endswith("...]") else shape.count(",") + 1
        for entry in entries:
            if not isinstance(entry, list) or len(entry) < least or (least > 1 and len(entry) > least):
                raise CorruptError(f"{where}: {name} should hold lists {shape}, found {short(entry)}")
        return entries

    params = params | {
        "pinnedIds": _listed(params, "pinnedIds", lambda text: text.split(",") if text else []),
        "supernodes": _listed(params, "supernodes", json.loads),
    }
    groups = [
        Supernode(text_of(entry[0], "qParams: supernodes"), names(entry[1:], f"supernode {str(entry[0])[:60]!r}"))
        for entry in tuples(params, "supernodes", "[label, id, ...]", "qParams")
    ]
    labels = _labels_by_number(params, nodes)
    for name, label in tuples(marks, "labels", "[id, label]", "marks"):
        labels[names([name], "marks: labels")[0]] = text_of(label, "marks: labels")
    moves = {}
    for name, *place in tuples(marks, "moves", "[id, x, y]", "marks"):
        move = [get({axis: value}, axis, float, "marks: moves") for axis, value in zip("xy", place, strict=True)]
        moves[names([name], "marks: moves")[0]] = move
    sets: dict[str, dict[str, float]] = {}
    for key, name, factor in tuples(marks, "sets", "[name, id, factor]", "marks"):
        node = names([name], "marks: sets")[0]
        sets.setdefault(text_of(key, "marks: sets"), {})[node] = get({"factor": factor}, "factor", float, "marks: sets")
    clicked = get(params, "clickedId", str, "qParams", "")
    pins = names(get(params, "pinnedIds", list, "qParams", []), "qParams: pinnedIds")
    if "pins" in marks:  # members of groups are pinned for viewers
        own = names(get(marks, "pins", list, "marks"), "marks: pins")
        grouped = {name for each in groups for name in each.nodes}
        pins = tuple(name for name in pins if name in own or name not in grouped)
    return GraphEdits(
        pins=pins,
        supernodes=tuple(groups),
        labels=labels,
        hidden=names(get(marks, "hidden", list, "marks", []), "marks: hidden"),
        moves=moves,
        sets=sets,
        clicked=nodes[ids[clicked][0]].id if clicked in ids else "",
        layout=get(params, "sg_pos", str, "qParams", ""),
        link_type=get(params, "linkType", str, "qParams", "both"),
    )


def _listed(params: dict[str, Any], name: str, read: Callable[[str], Any]) -> Any:
    """Return a list that circuit-tracer's viewer saved as text, as in its address."""
    held = params.get(name)
    try:
        return read(held) if isinstance(held, str) else held
    except (ValueError, RecursionError):
        raise CorruptError(f"qParams: {name} should be a list, found {short(held)}") from None


def _labels_by_number(params: dict[str, Any], nodes: list[GraphNode]) -> dict[str, str]:
    """Return labels that a visitor of a viewer gave: `clerps`, JSON in a text, `[[number of a latent, label], ...]`."""
    held = get(params, "clerps", str, "qParams", "")
    try:
        pairs = dict(json.loads(held)) if held else {}
    except (ValueError, TypeError, RecursionError):
        raise CorruptError("qParams: clerps should be JSON of pairs [number, label]") from None
    found = {}
    for node in nodes:
        label = pairs.get(str(cantor(node.layer, node.index))) if node.kind == "feature" else None
        if label is not None:
            found[node.id] = text_of(label, "qParams: clerps")
    return found
