"""Supernodes."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Supernode:
    """Nodes of a graph that are shown as one."""

    name: str
    nodes: tuple[str, ...]
    """ids"""


@dataclass(frozen=True)
class GraphEdits:
    """A user's marks on a graph. Nodes are named by their ids."""

    pins: tuple[str, ...] = ()
    supernodes: tuple[Supernode, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    """node -> the user's own label"""
    clicked: str = ""
    layout: str = ""
    """positions in the viewer, in its own notation (`sg_pos`)"""
    link_type: str = "both"

    def named(self) -> list[str]:
        """Return every node that is pinned, grouped or labelled."""
        return list(dict.fromkeys([*self.pins, *(n for each in self.supernodes for n in each.nodes), *self.labels]))
