"""Supernodes: nodes of a circuit that a person, or a proposal, treats as one. They live in the page's address.

induction:L4H1,L5H3;-early:L0MLP,L1H2        two groups; the second is folded into one node
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from dashboard.views.circuit import Row, node_id
from interp.circuits.circuit import Circuit
from interp.errors import UnknownNameError, UsageError
from interp.names import NodeName, parse_node

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
        title = next(f"{title} {i}" for i in range(2, MAX_GROUPS + 3) if f"{title} {i}" not in taken)
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
