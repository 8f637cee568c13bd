"""A circuit as the page reads it: scored edges, faithfulness curve, evidence of heads, prompts, stored patterns.

Supernodes: nodes of a circuit that a person, or a proposal, treats as one. They live in the page's address.

induction:L4H1,L5H3;-early:L0MLP,L1H2        two groups; the second is folded into one node
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from interp.artifacts import CIRCUITS, Manifest
from interp.circuits.circuit import Circuit, Edge
from interp.errors import CorruptError, UnknownNameError, UsageError
from interp.names import NodeName, parse_node
from interp.workspace import Workspace

MAX_EDGES = 1000
"""Edges that the graph shows at most: with more it is unreadable and slow."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """Edges to draw, strongest first, and the number of all scored edges."""

    rows: list[Row]
    """`id, source, target, via, position, score, exact, low, high, member, evidence`"""
    total: int
    found: int
    """edges of the circuit itself"""
    everything: bool
    """True when the whole graph was scored (`edges.parquet`); False when only the circuit itself is known."""
    group: int = 1
    """query heads that share one key and value (grouped-query attention): an edge into the first is an edge into all"""

    def strongest(self, n: int | None, *, paths: bool = False, limit: int | None = MAX_EDGES) -> list[Row]:
        """The `n` strongest by absolute score; None gives the circuit as it was found, up to `limit` edges.

        `paths` leaves out edges on no path from `embed` to `logits`, where the circuit reaches from one to the other.
        """
        members = [row for row in self.rows if row["member"]]
        rows = members[:limit] if n is None else self._ranked[: max(1, n)]
        return on_paths(rows, self.group) if paths and self.has_ends else rows

    def at_least(self, score: float) -> int:
        """Return the number of edges with an absolute score of `score` or more."""
        return sum(abs(row["score"] or 0.0) >= score for row in self._ranked)

    @property
    def has_ends(self) -> bool:
        """True when the embedding and the logits are among its nodes; an induction circuit ends at its heads."""
        return {"embed", "logits"} <= {row[end] for row in self.rows for end in ("source", "target")}

    @property
    def limit(self) -> int:
        """Return the largest number of edges that the slider can ask for."""
        return len(self._ranked)

    @property
    def _ranked(self) -> list[Row]:
        rows = self.rows if not self.everything else [row for row in self.rows if row["rank"] is not None]
        return rows[:MAX_EDGES]


@dataclass(frozen=True)
class Prompt:
    """A stored prompt: its tokens, and those of its corrupt version."""

    tokens: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)


def of_model(workspace: Workspace, model: str, table: str) -> Manifest | None:
    """Return the newest induction circuit of a model that has `<table>.parquet`: not every one has all of them."""
    for manifest in workspace.newest("induction_circuit"):
        if manifest.config.get("model") == model and f"{table}.parquet" in manifest.files:
            return manifest
    return None


def folder(workspace: Workspace, name: str) -> Path:
    """Return the folder of a circuit of any kind, by its name or key. Raises `UnknownNameError`."""
    manifest = workspace.find(name, *CIRCUITS)
    return workspace.path(manifest.kind, manifest.name)


def circuit(workspace: Workspace, name: str) -> Circuit:
    """The circuit itself. Raises `CorruptError`."""
    return Circuit.load(folder(workspace, name))


def scored(workspace: Workspace, name: str, found: Circuit) -> Scored:
    """The strongest edges of the scored graph and every edge of the circuit, strongest first."""
    members = {edge_id(e.source, e.target, e.via, e.position): e for e in found.edges}
    path = folder(workspace, name) / "edges.parquet"
    if not path.is_file():
        rows = sorted(map(_row_of, found.edges), key=_strength)
        return Scored(rows, len(rows), len(rows), everything=False)
    sql = "select * from e order by abs(coalesce(score, 0)) desc, source, target, via limit ?"
    rows = workspace.query(sql, MAX_EDGES, e=path).to_pylist()
    for rank, row in enumerate(rows):
        row["id"] = edge_id(row["source"], row["target"], row["via"], row["position"])
        known = members.pop(row["id"], None)
        row |= {"rank": rank, "member": known is not None, "evidence": dict(known.evidence) if known else {}}
    left = sorted((_row_of(edge) for edge in members.values()), key=_strength)
    total = int(workspace.query("select count(*) as n from e", e=path)["n"][0].as_py())
    ranked = sorted(rows + left, key=_strength)
    return Scored(ranked, total, len(found.edges), everything=True, group=_group_size(workspace, path))


def edge_id(source: str, target: str, via: str | None, position: int | None = None) -> str:
    """The name of an edge in addresses and tables: `L4H2-k-L5H1`, `embed--L0MLP`, `...@7` at a position."""
    return f"{source}-{via or ''}-{target}" + ("" if position is None else f"@{position}")


def node_id(name: str, position: int | None = None) -> str:
    """`L5H1`, or `L5H1@7` at a token position."""
    return name if position is None else f"{name}@{position}"


def on_paths(rows: list[Row], group: int = 1) -> list[Row]:
    """The rows on a path from `embed` to `logits`. A group reads a key or value together; positions count as one."""
    edges = [(row["source"], reader) for row in rows for reader in readers(row, group)]
    ahead, behind = _reach(edges, "embed"), _reach([(b, a) for a, b in edges], "logits")
    return [row for row in rows if row["source"] in ahead and behind.intersection(readers(row, group))]


def readers(row: Row, group: int) -> list[str]:
    """The nodes that read an edge: its target, or every head of the target's group.

    >>> readers({"target": "L5H3", "via": "k"}, 3)
    ['L5H3', 'L5H4', 'L5H5']
    """
    if row["via"] not in ("k", "v") or group == 1:
        return [row["target"]]
    name = parse_node(row["target"])
    first = (name.head or 0) // group * group
    return [f"L{name.layer}H{first + i}" for i in range(group)]


def _reach(edges: list[tuple[str, str]], start: str) -> set[str]:
    steps: dict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        steps[a].append(b)
    seen, waiting = {start}, [start]
    while waiting:
        for name in steps[waiting.pop()]:
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    return seen


def _group_size(workspace: Workspace, path: Path) -> int:
    """Query heads per key head, from the readers of a whole graph: the keys of a group bear its first head's name."""
    sql = """select max(h) + 1 as heads, count(distinct case when via = 'k' then h end) as keys
             from (select via, cast(nullif(regexp_extract(target, 'H([0-9]+)$', 1), '') as int) as h from e)"""
    found = workspace.query(sql, e=path).to_pylist()[0]
    return max(1, (found["heads"] or 1) // found["keys"]) if found["keys"] else 1


def table(workspace: Workspace, name: str, which: str) -> list[Row]:
    """Rows of `curve`, `heads`, `composition` or `ablations`; empty when the circuit has none."""
    path = folder(workspace, name) / f"{which}.parquet"
    return workspace.query("select * from t limit 200000", t=path).to_pylist() if path.is_file() else []


def checked(workspace: Workspace, name: str) -> list[Row]:
    """Edges that were also patched one by one: `source, target, via, position, score, exact`."""
    path = folder(workspace, name) / "edges.parquet"
    if not path.is_file():
        return []
    sql = "select source, target, via, position, score, exact from e where exact is not null limit 500"
    return workspace.query(sql, e=path).to_pylist()


def strongest_nodes(workspace: Workspace, name: str, n: int) -> tuple[list[Row], int]:
    """The `n` nodes with the strongest scores of all that they write, and how many were scored."""
    path = folder(workspace, name) / "nodes.parquet"
    if not path.is_file():
        return [], 0
    sql = "select * from t where score is not null order by abs(score) desc, node limit ?"
    total = workspace.query("select count(*) as n from t where score is not null", t=path)["n"][0].as_py()
    return workspace.query(sql, n, t=path).to_pylist(), int(total)


def node_score(workspace: Workspace, name: str, node: str, position: int | None = None) -> dict[str, float]:
    """The score of all that a node writes, with `exact`, `low` and `high` where they are known; empty without."""
    path = folder(workspace, name) / "nodes.parquet"
    if not path.is_file():
        return {}
    sql = "select * from t where node = ? and (position is null or position = ?) limit 1"
    found = workspace.query(sql, node, position, t=path).to_pylist()
    return {k: found[0][k] for k in ("score", "exact", "low", "high") if found and found[0].get(k) is not None}


def prompt(workspace: Workspace, name: str) -> Prompt:
    """The first stored prompt; an empty one when none is."""
    path = folder(workspace, name) / "prompts.json"
    if not path.is_file():
        return Prompt()
    try:
        first = json.loads(path.read_text(encoding="utf-8"))[0]
        return Prompt(list(map(str, first["tokens"])), list(map(str, first.get("corrupt_tokens") or [])))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CorruptError(f"{path} holds no prompts ({error!r}); `workbench verify` checks it") from error


def pattern(workspace: Workspace, name: str, head: str) -> np.ndarray | None:
    """Attention `[dest, src]` of a head on the first prompt, when it was stored."""
    path = folder(workspace, name) / "patterns.safetensors"
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return np.asarray(file.get_tensor(head), np.float32) if head in file.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"{path} cannot be read: {error}; `workbench verify` checks it") from error


def check_chosen(chosen: str, scored_edges: Scored, found: Circuit, workspace: Workspace, name: str) -> str:
    """`chosen` when it names a node or an edge that is known here. Raises `UnknownNameError`."""
    edges = {row["id"] for row in scored_edges.rows}
    nodes = {node_id(n.name, n.position) for n in found.nodes} | {n.name for n in found.nodes}
    nodes |= {row[end] for row in scored_edges.rows for end in ("source", "target")}
    nodes |= {node_id(row[end], row["position"]) for row in scored_edges.rows for end in ("source", "target")}
    bare, _, at = chosen.partition("@")
    if chosen not in edges | nodes and not node_score(workspace, name, bare, int(at) if at.isdecimal() else None):
        raise UnknownNameError("node or edge of this circuit", chosen, sorted(edges | nodes))
    return chosen


def as_shown(found: Circuit, rows: list[Row], shown: dict[str, Any]) -> dict[str, Any]:
    """The circuit of `rows` as on disk, readable by `Circuit.from_json`; `shown` goes into its settings."""
    nodes = {row[end] for row in rows for end in ("source", "target")}
    if shown.get("n") is None and not shown.get("paths"):
        nodes |= {n.name for n in found.nodes}
    edges = [Edge(r["source"], r["target"], r["via"], r["position"], r["score"], _with_numbers(r)) for r in rows]
    shown_nodes = [n for n in found.nodes if n.name in nodes]
    same = len(rows) == len(found.edges) and all(r["member"] for r in rows)
    return Circuit.of(
        found.model,
        found.weight_hash,
        edges,
        shown_nodes,
        settings=found.settings | {"shown": shown},
        evaluation=found.evaluation if same else {},  # it judged another set of edges
        verdict=found.verdict if same else {},
    ).to_json()


def _with_numbers(row: Row) -> dict[str, Any]:
    return {k: row[k] for k in ("exact", "low", "high") if row[k] is not None} | row["evidence"]


def _row_of(edge: Edge) -> Row:
    evidence = dict(edge.evidence)
    score = edge.score if edge.score is not None else _number(evidence.get("effect"))
    low, high = (None if score is None else _number(evidence.get(end)) for end in ("low", "high"))
    if (
        score is not None
        and low is not None
        and high is not None
        and not low <= score <= high
        and low <= -score <= high
    ):
        low, high = -high, -low  # the interval of a change, where the score is a drop
    return {
        "id": edge_id(edge.source, edge.target, edge.via, edge.position),
        **{"source": edge.source, "target": edge.target, "via": edge.via, "position": edge.position},
        **{"score": score, "exact": _number(evidence.get("exact")), "low": low, "high": high},
        **{"rank": None, "member": True, "evidence": evidence},
    }


_SIGNED = ("q_effect", "k_effect", "v_effect")


def measured(row: Row) -> dict[str, Any]:
    """Return the numbers of an edge in the sign of its score, with the score first and its interval after it.

    The evidence of an induction circuit holds changes of the metric (`effect`), its score is the drop: then the
    effects through other inputs become drops too, and the effect itself is the score once more.
    """
    evidence, score = dict(row["evidence"]), row["score"]
    found = {key: row[key] for key in ("score", "low", "high", "exact") if row[key] is not None}
    effect = _number(evidence.get("effect"))
    if effect is None or score is None or abs(effect) != abs(score):
        return found | {key: value for key, value in evidence.items() if key not in found}
    sign = -1 if effect == -score else 1
    for key in _SIGNED:
        if (value := _number(evidence.get(key))) is not None:
            evidence[key] = sign * value
    return found | {key: value for key, value in evidence.items() if key not in ("effect", "low", "high", *found)}


def unit(found: Circuit) -> str:
    """Return what the score of an edge is, in words, for the table and the panel beside the graph."""
    if found.settings.get("kind") == "induction":
        return "drop of the strict induction score (0 to 1) when this edge alone is patched"
    metric = found.settings.get("metric")
    return "estimated effect on the metric" + (f", in units of the {metric}" if metric else "")


def _strength(row: Row) -> float:
    return -abs(row["score"] or 0.0)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


MAX_GROUPS, MAX_NAME = 40, 40
PROPOSALS = {
    "role": "by role",
    "band": "by band of layers",
    "readers": "by shared readers",
}
PREFIX = "group:"


@dataclass(frozen=True)
class Group:
    """Some nodes under one name; a folded one is drawn as a single node."""

    name: str
    members: tuple[str, ...]
    folded: bool = False

    @property
    def id(self) -> str:
        return PREFIX + self.name


def parse_groups(text: str | None) -> tuple[Group, ...]:
    """From an address. A node is in one group only: the first that names it.

    Raises `UsageError` on text that is no list of groups, `UnknownNameError` on a node name that cannot be.
    """
    groups: list[Group] = []
    taken: set[str] = set()
    for part in filter(None, (text or "").split(";")):
        name, colon, members = part.partition(":")
        if not colon or len(groups) == MAX_GROUPS:
            raise UsageError(f"cannot read the group {part[:60]!r}: expected name:L4H1,L5H3 (at most {MAX_GROUPS})")
        own = tuple(m for m in dict.fromkeys(filter(None, members.split(","))) if m not in taken)
        for member in own:
            parse_node(member.partition("@")[0])
        taken.update(own)
        title = clean_name(unquote(name.removeprefix("-")))
        if own and title not in {g.name for g in groups}:
            groups.append(Group(title, own, name.startswith("-")))
    return tuple(groups)


def format_groups(groups: tuple[Group, ...]) -> str:
    """The text that `parse_groups` reads."""
    return ";".join(f"{'-' if g.folded else ''}{quote(g.name, safe=' ')}:{','.join(g.members)}" for g in groups)


def clean_name(name: str) -> str:
    """One line, trimmed, at most `MAX_NAME` characters; `group` when nothing is left."""
    return " ".join(name.split())[:MAX_NAME].strip().lstrip("-") or "group"


def add(groups: tuple[Group, ...], name: str, members: list[str]) -> tuple[Group, ...]:
    """With one more group, taken out of those that held its members. Raises `UsageError` below two members."""
    chosen = tuple(dict.fromkeys(m for m in members if not m.startswith(PREFIX)))
    if len(chosen) < 2:
        raise UsageError("choose at least two nodes to group: Shift-click or Shift-drag in the graph, or in the list")
    title, taken = clean_name(name), {g.name for g in groups}
    if title in taken:
        short = title[: MAX_NAME - 3].rstrip()  # room for a space and two digits
        title = next(each for i in range(2, MAX_GROUPS + 3) if (each := f"{short} {i}") not in taken)
    left = (replace(g, members=tuple(m for m in g.members if m not in chosen)) for g in groups)
    return (*(g for g in left if g.members), Group(title, chosen))


def toggle(groups: tuple[Group, ...], index: int) -> tuple[Group, ...]:
    """Folded becomes open, and the other way."""
    return tuple(replace(g, folded=not g.folded) if i == index else g for i, g in enumerate(groups))


def propose(kind: str, found: Circuit, rows: list[Row]) -> tuple[Group, ...]:
    """Groups of at least two of the nodes in `rows`.

    `role`: the same role. `band`: heads and MLPs of neighbouring layers, in thirds of the layers in use. `readers`:
    the same set of readers (at least half of them shared).
    """
    if kind not in PROPOSALS:
        raise UnknownNameError("proposal", kind, PROPOSALS)
    ids = {node_id(row[end], row["position"]) for row in rows for end in ("source", "target")}
    inner = [n for n in sorted(ids, key=lambda n: (_node(n).order, n)) if _node(n).layer is not None]
    makers = {"role": _by_role, "band": _by_band, "readers": _by_readers}
    parts = makers[kind](inner, found, rows)
    return tuple(Group(clean_name(name), tuple(members), True) for name, members in parts if len(members) > 1)


def _by_role(names: list[str], found: Circuit, _rows: list[Row]) -> list[tuple[str, list[str]]]:
    roles: dict[str, list[str]] = defaultdict(list)
    known = {node.name: node.role for node in found.nodes if node.role}
    for name in names:
        if role := known.get(name.partition("@")[0]):
            roles[role].append(name)
    return [(role.replace("_", " "), members) for role, members in roles.items()]


def _by_band(names: list[str], _found: Circuit, _rows: list[Row]) -> list[tuple[str, list[str]]]:
    layers = sorted({_node(n).layer or 0 for n in names})
    size = max(1, -(-len(layers) // 3))
    bands = [layers[i : i + size] for i in range(0, len(layers), size)]
    return [
        (
            f"layers {band[0]} to {band[-1]}" if len(band) > 1 else f"layer {band[0]}",
            [n for n in names if _node(n).layer in band],
        )
        for band in bands
    ]


def _by_readers(names: list[str], _found: Circuit, rows: list[Row]) -> list[tuple[str, list[str]]]:
    readers: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        readers[node_id(row["source"], row["position"])].add(f"{row['via'] or ''}-{row['target']}")
    parts: list[tuple[set[str], list[str]]] = []
    for name in names:
        own = readers.get(name)
        if not own:
            continue
        for shared, members in parts:
            if len(own & shared) * 2 >= len(own | shared):
                members.append(name)
                break
        else:
            parts.append((own, [name]))
    return [(f"read by {_short(shared)}", members) for shared, members in parts]


def _short(readers: set[str]) -> str:
    targets = sorted({r.split("-")[1] for r in readers}, key=lambda n: _node(n).order)
    return targets[0] + (f" and {len(targets) - 1} more" if len(targets) > 1 else "")


def _node(identity: str) -> NodeName:
    """`L5H1@7` -> the name of L5H1."""
    return parse_node(identity.partition("@")[0])
