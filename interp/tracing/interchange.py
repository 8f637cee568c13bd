"""Attribution graphs as the JSON that Neuronpedia and the viewer of circuit-tracer read. Torch-free.

    data = export_graph(graph, edits)         # a dict that fits Neuronpedia's published schema
    write_graph_json(data, "capital.json")
    graph, edits = import_graph(read_graph_json("capital.json"))

The format has `metadata`, `qParams` (pins and groups of nodes), `nodes` and `links`. Ids of its nodes are
`LAYER_LATENT_POSITION`, `0_LAYER_POSITION` for errors, `E_TOKEN_POSITION` and `(N_LAYERS + 1)_TOKEN_POSITION` for
logits. The id of an error can equal that of a latent of layer 0; `feature_type` tells them apart. In an export such an
error has the id `LAYER_-1_POSITION`, which newer files of Neuronpedia use for every error; both are read. A user's
label is in `clerp`, which viewers show. They draw members of a supernode only if they are pinned, so that all members
are in `pinnedIds`; the user's own pins are among the marks.

An export that is imported and exported again is the same, byte for byte. Fields that the format lacks (settings,
scores, the user's other marks) are in `metadata.workbench`. Fields of other programs that this module does not use are
carried along. The format has one number of importance, the cumulative share; influence and the shares of edges are
computed again along the links of the file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from interp.artifacts import as_json, read_json, write_json
from interp.errors import ConfigError, UnknownNameError
from interp.forms import from_json
from interp.tracing._influence import GraphScores
from interp.tracing.graph import (
    AttributionGraph,
    Carried,
    EffectAgreement,
    GraphNode,
    GraphSettings,
    GraphTarget,
    ImportedFile,
    TraceRun,
    edge_table,
    node_table,
)
from interp.tracing.graph_json import (
    NAMED_TARGET,
    TYPES,
    Marks,
    Parameters,
    cantor,
    check_carried,
    read_edits,
    read_file,
    read_links,
    read_nodes,
    read_targets,
    with_influence,
)
from interp.tracing.supernodes import GraphEdits

MAX_FILE = 64_000_000
"""Largest size of a graph JSON, in bytes."""

_METADATA = ("scan", "prompt_tokens", "prompt", "node_threshold", "schema_version", "workbench")
"""Fields of `metadata` that a graph holds itself; others are carried along."""
_PARAMETERS = ("pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos", "clerps")
_TOP = ("metadata", "qParams", "nodes", "links")


def export_graph(
    graph: AttributionGraph,
    edits: GraphEdits | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    slug: str = "",
    all_nodes: bool = False,
    feature_json_base_url: str = "",
) -> dict[str, Any]:
    """Return a graph and the user's marks in the format of Neuronpedia and circuit-tracer, ready for JSON.

    Nodes and edges below the default thresholds are left out, unless they are marked or `all_nodes` is set. `labels`
    describes nodes without a label of their own, for example from a features table. Under the
    address `feature_json_base_url` a viewer finds the examples of latents, as `ADDRESS/NUMBER.json` with NUMBER from
    `cantor`. Raises `UnknownNameError` where the marks name a node that the graph lacks.
    """
    edits = edits or GraphEdits()
    if unknown := [name for name in [*edits.named(), edits.clicked] if name and name not in graph.number]:
        raise UnknownNameError("node", unknown[0], list(graph.number))
    shown = set(edits.named())
    kept = [i for i, node in enumerate(graph.nodes) if all_nodes or node.kept or node.id in shown]
    kinds = list(TYPES)
    kept.sort(key=lambda i: (kinds.index(graph.nodes[i].kind), *_place(graph.nodes[i])))
    ids = _file_ids(graph, kept)
    place = {number: at for at, number in enumerate(kept)}
    edges, marked = graph.edges, {graph.number[node] for node in shown}
    columns = (column.tolist() for column in (edges.source, edges.target, edges.weight, edges.kept))
    links = sorted(
        (place[t], place[s], w)
        for s, t, w, k in zip(*columns, strict=True)
        if (k or all_nodes or marked & {s, t}) and s in place and t in place
    )
    nodes = [_file_node(graph, graph.nodes[i], ids[i], edits, labels or {}) for i in kept]
    name = {graph.nodes[i].id: ids[i] for i in kept}
    params = {
        "pinnedIds": [name[node] for node in dict.fromkeys([*edits.pins, *edits.grouped()])],
        "supernodes": [[group.name, *(name[node] for node in group.nodes)] for group in edits.supernodes],
        "linkType": edits.link_type,
        "clickedId": name.get(edits.clicked, ""),
        "sg_pos": edits.layout,
    }
    marks = {
        "pins": [name[node] for node in edits.pins],
        "labels": sorted([name[node], label] for node, label in edits.labels.items()),
    }
    carried = graph.carried or Carried(top={}, metadata={}, parameters={})
    params |= _parsed(carried.parameters)
    metadata = _metadata(graph, _parsed(carried.metadata), slug)
    metadata["workbench"]["marks"] = marks
    if feature_json_base_url:
        metadata["feature_details"] = {"feature_json_base_url": feature_json_base_url}
    links_as_dicts = [{"source": ids[kept[s]], "target": ids[kept[t]], "weight": w} for t, s, w in links]
    parts = {"metadata": metadata, "qParams": params, "nodes": nodes, "links": links_as_dicts}
    return as_json(parts | _parsed(carried.top))


def _parsed(texts: Mapping[str, str]) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in texts.items()}


def _place(node: GraphNode) -> tuple[int, int, int]:
    return (0, 0, node.index) if node.kind == "logit" else (node.layer, node.position, node.index)


def _vocabulary_index(graph: AttributionGraph, number: int) -> int:
    """Return the token of a target, or a number of its own where it is a difference, a latent, or there twice."""
    target = graph.targets[number]
    twice = sum(candidate.token == target.token and candidate.contrast is None for candidate in graph.targets) > 1
    return NAMED_TARGET + number if target.token is None or target.contrast is not None or twice else target.token


def _file_ids(graph: AttributionGraph, kept: list[int]) -> dict[int, str]:
    """Return node number -> id in the file."""
    ids, taken = {}, set()
    for i in kept:  # latents first
        node = graph.nodes[i]
        if node.kind == "feature":
            ids[i] = f"{node.layer}_{node.index}_{node.position}"
            taken.add(ids[i])
        elif node.kind == "error":
            ids[i] = f"0_{node.layer}_{node.position}"
            if ids[i] in taken:
                ids[i] = f"{node.layer}_-1_{node.position}"
        elif node.kind == "token":
            ids[i] = f"E_{node.index}_{node.position}"
        else:
            ids[i] = f"{graph.n_layers + 1}_{_vocabulary_index(graph, node.index)}_{node.position}"
    return ids


def _file_node(
    graph: AttributionGraph, node: GraphNode, name: str, edits: GraphEdits, labels: Mapping[str, str]
) -> dict[str, str | float | None]:
    """Return one entry of `nodes`."""
    label = edits.labels.get(node.id) or node.label or labels.get(node.id, "")
    if node.kind == "feature":
        number, layer, key = cantor(node.layer, node.index), str(node.layer), f"{node.layer}_{node.index}-0"
    elif node.kind == "error":
        number, layer, key = -1, str(node.layer), f"{node.layer}_{node.position}-0"
    elif node.kind == "token":
        number, layer, key = node.position, "E", f"E_{node.index}-{node.position}"
    else:
        number = _vocabulary_index(graph, node.index)
        layer, key = str(graph.n_layers + 1), f"L_{number}-{node.position}"
        label = edits.labels.get(node.id) or graph.targets[node.index].label
        label = f'Output "{label}" (p={node.probability:.3f})'  # the viewer reads the number from here
    return {
        "node_id": name,
        "feature": number,
        "layer": layer,
        "ctx_idx": node.position,
        "feature_type": TYPES[node.kind],
        "token_prob": node.probability,
        "is_target_logit": node.kind == "logit" and node.index == 0,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": key,
        "clerp": label,
        "influence": None if node.kind == "logit" else node.share,
        "activation": float(np.float32(node.activation)) if node.kind == "feature" else None,
    }


@dataclass(frozen=True, kw_only=True)
class _Ours:
    """Parts that only we have: `metadata.workbench` without the marks."""

    settings: GraphSettings
    targets: tuple[GraphTarget, ...]
    scores: GraphScores | None
    floor: GraphScores | None
    untrained: GraphScores | None
    run: TraceRun | None
    effects: EffectAgreement | None


def _metadata(graph: AttributionGraph, carried: dict[str, Any], slug: str) -> dict[str, Any]:
    """Return `metadata`: fields of the format, those carried along from a file, and what only we have."""
    node_share, edge_share = graph.thresholds
    settings = replace(graph.settings, imported=None)
    ours = _Ours(
        settings=settings,
        targets=graph.targets,
        scores=graph.scores,
        floor=graph.floor,
        untrained=graph.untrained,
        run=graph.run,
        effects=graph.effects,
    )
    return {
        "slug": "graph",
        "scan": graph.model,
        "transcoder_list": [graph.dictionary],
        "prompt_tokens": list(graph.token_texts),
        "prompt": graph.prompt,
        "node_threshold": node_share,
        "schema_version": 1,
        "info": {"generator": {"name": "interp workbench"}},
        "pruning_settings": {"node_threshold": node_share, "edge_threshold": edge_share},
        **carried,
        **({"slug": slug} if slug else {}),
        "workbench": as_json(ours),
    }


def write_graph_json(data: dict[str, Any], path: Path | str) -> None:
    """Write an export as one JSON file, atomically."""
    write_json(Path(path), data)


def read_graph_json(path: Path | str) -> dict[str, Any]:
    """Read a graph JSON of at most `MAX_FILE` bytes.

    Raises `MissingError`, `CorruptError` for what is not JSON, and `ConfigError` for a file that is too large, and for
    a `.pt` file: it holds pickled objects, and reading those can run any code.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected a graph JSON file")
    if path.is_file():
        with open(path, "rb") as handle:
            start = handle.read(4)
        if path.suffix == ".pt" or start.startswith((b"PK\x03\x04", b"\x80")):
            raise ConfigError(
                f"{path} holds pickled objects, and reading those can run any code; write the graph as JSON with "
                "circuit-tracer's create_graph_files and import that"
            )
        if path.stat().st_size > MAX_FILE:
            raise ConfigError(
                f"{path} has {path.stat().st_size:,} bytes, a graph JSON at most {MAX_FILE:,}; prune the graph more "
                "before it is exported"
            )
    return read_json(path)


def import_graph(data: Mapping[str, Any]) -> tuple[AttributionGraph, GraphEdits]:
    """Return the graph and the user's marks in an export of ours, of circuit-tracer or of Neuronpedia.

    All its nodes and edges count as kept. A link whose source is an id that a latent and an error share starts at the
    latent where its target is no higher than the error, else at the latent first and, where it is repeated, at the
    error; `settings.imported.guessed_links` counts the links for which this is a guess.
    Raises `CorruptError`, naming the entry, for content that does not fit the format or contradicts itself.
    """
    file = read_file(data)
    metadata, workbench = file.metadata, dict(file.metadata.workbench or {})
    nodes, ids, vocabulary = read_nodes(file.nodes, len(metadata.prompt_tokens))
    n_layers = nodes[-1].layer
    links, shared = read_links(file.links, nodes, ids)
    marks = from_json(Marks, workbench.pop("marks", None) or {}, "metadata.workbench.marks", "foreign")
    ours = from_json(_Ours, workbench, "metadata.workbench") if workbench else None
    targets = read_targets(None if ours is None else ours.targets, nodes, vocabulary)
    logits = zip(nodes[-len(targets) :], targets, strict=True)
    nodes = [*nodes[: -len(targets)], *(replace(node, label=target.label) for node, target in logits)]
    nodes, edges = with_influence(nodes, links, [target.weight for target in targets])
    tokens = {node.position: node.index for node in nodes if node.kind == "token"}
    settings = GraphSettings(
        model=metadata.scan,
        weight_hash="",
        dictionary="unknown",
        tokens=tuple(tokens.get(i, -1) for i in range(len(metadata.prompt_tokens))),
        words={},
        trace=None,
    )
    known = ours or _Ours(
        settings=settings, targets=targets, scores=None, floor=None, untrained=None, run=None, effects=None
    )
    traced = known.settings.trace is not None
    imported = ImportedFile(node_share=None if traced else metadata.node_threshold or None, guessed_links=shared)
    graph = AttributionGraph(
        settings=replace(known.settings, imported=imported),
        prompt=metadata.prompt,
        token_texts=metadata.prompt_tokens,
        n_layers=n_layers,
        targets=targets,
        scores=known.scores,
        floor=known.floor,
        untrained=known.untrained,
        run=known.run,
        effects=known.effects,
        carried=Carried(
            top=_carried(data, _TOP, "the file"),
            metadata=_carried(
                {key: value for key, value in data["metadata"].items() if value is not None}, _METADATA, "metadata"
            ),
            parameters=_carried(data.get("qParams") or {}, _PARAMETERS, "qParams"),
        ),
        node_table=node_table(nodes),
        edge_table=edge_table(edges),
        flows=None,
        sufficiency=None,
    )
    return graph, read_edits(file.qParams or Parameters(), marks, nodes, ids)


def _carried(entries: Mapping[str, object], used: tuple[str, ...], where: str) -> dict[str, str]:
    """Return fields that are not used, as JSON text."""
    others = {key: value for key, value in entries.items() if key not in used}
    for key, value in others.items():
        check_carried(value, f"{where}: {key}")
    return {key: json.dumps(value) for key, value in others.items()}
