"""How a circuit's graph looks: colour says role or input, width says strength, a dashed line a negative score."""

import re
from typing import Any

from dashboard.figures.theme import Theme

# Cytoscape takes no quotes in a list of typefaces
_FONT = "system-ui, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"
_MONO = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"

ROLES = ("induction", "previous_token", "duplicate_token", "name_mover", "s_inhibition", "negative")
"""roles with a colour of their own, in this order; others share the last one"""


def via_colours(colours: Theme) -> dict[str, str]:
    """Blue, orange, green, grey: told apart by colour-blind readers, and each edge names its input too."""
    q, v, k = colours.categories[0], colours.categories[2], colours.categories[1]
    return {"q": q, "k": k, "v": v, "other": colours.muted}


def role_colours(colours: Theme, roles: list[str]) -> dict[str, str]:
    """A colour for each role that occurs."""
    palette = [colours.categories[i] for i in (4, 5, 6, 3, 7, 8)]
    known = sorted(set(roles), key=lambda r: (ROLES.index(r) if r in ROLES else len(ROLES), r))
    return {role: palette[min(i, len(palette) - 1)] for i, role in enumerate(known)}


def stylesheet(colours: Theme, roles: list[str], chosen: str | None = None, *, many: bool = False) -> list[dict]:
    """Rules for the graph. `chosen` is the id of the node or edge that stands out; `many` gives up bends for speed."""
    rules = [*_node_rules(colours), *_edge_rules(colours, many)]
    for role, colour in role_colours(colours, roles).items():
        rules.append(
            {"selector": f"node[role = {_quoted(role)}]", "style": {"border-color": colour, "border-width": 2.5}}
        )
    for via, colour in via_colours(colours).items():
        rules.append(
            {
                "selector": f'edge[via = "{via}"]',
                "style": {"line-color": colour, "target-arrow-color": colour, "color": colour},
            }
        )
    return rules + _chosen_rules(colours, chosen)


def _node_rules(colours: Theme) -> list[dict[str, Any]]:
    return [
        {
            "selector": "node",
            "style": {
                **{"label": "data(label)", "font-family": _MONO, "font-size": 12, "color": colours.text},
                **{"shape": "round-rectangle", "width": 66, "height": 28, "background-color": colours.surface},
                **{"border-width": 1.25, "border-color": colours.muted, "text-valign": "center"},
                **{"text-halign": "center", "text-wrap": "wrap", "overlay-opacity": 0, "z-index": 10},
            },
        },
        {"selector": "node.mlp", "style": {"shape": "rectangle", "background-color": colours.grid}},
        {
            "selector": "node.embed, node.logits",
            "style": {"shape": "round-rectangle", "background-color": colours.grid},
        },
        {"selector": "node[label *= '@']", "style": {"width": 84}},
        {"selector": "node.feature, node.error", "style": {"width": 92, "font-size": 11}},
        {"selector": "node.error", "style": {"border-style": "dashed", "background-color": colours.grid}},
        {
            "selector": "node.group",
            "style": {
                **{"width": 112, "height": 42, "border-color": "data(halo)", "border-width": 2.5, "font-size": 11},
                **{"border-style": "double", "text-max-width": 104, "font-family": _FONT, "line-height": 1.25},
            },
        },
        {
            "selector": "node.grouped",
            "style": {"underlay-color": "data(halo)", "underlay-opacity": 0.28, "underlay-padding": 6},
        },
        {
            "selector": "node:selected",
            "style": {"underlay-color": colours.accent, "underlay-opacity": 0.38, "underlay-padding": 5},
        },
        {
            "selector": "node.axis",
            "style": {
                **{"background-opacity": 0, "border-width": 0, "color": colours.muted, "font-size": 11},
                **{"font-family": _FONT, "events": "no", "width": 1, "height": 1, "z-index": 1},
            },
        },
    ]


def _edge_rules(colours: Theme, many: bool) -> list[dict[str, Any]]:
    curve = (
        {"curve-style": "haystack", "haystack-radius": 0.3}
        if many
        else {
            **{"curve-style": "unbundled-bezier", "control-point-distances": "data(bend)"},
            "control-point-weights": 0.5,
        }
    )
    quiet = {"curve-style": "straight", "line-style": "dotted", "width": 1.2, "line-color": colours.muted}
    return [
        {
            "selector": "edge[width]",
            "style": {
                **{"width": "data(width)", "opacity": 0.55 if many else 0.9, "target-arrow-shape": "triangle"},
                **{"arrow-scale": 0.8, "target-label": "data(letter)", "target-text-offset": 22, "font-size": 11},
                **{"font-family": _MONO, "font-weight": 700, "text-background-color": colours.surface},
                **{"text-background-opacity": 1, "text-background-padding": 2, "overlay-padding": 5, **curve},
            },
        },
        {"selector": "edge.unscored", "style": {"opacity": 0.4}},
        {"selector": "edge.moves", "style": {**quiet, "target-arrow-shape": "none", "events": "no"}},
        {"selector": "edge.negative", "style": {"line-style": "dashed", "line-dash-pattern": [6, 4]}},
    ]


def _chosen_rules(colours: Theme, chosen: str | None) -> list[dict[str, Any]]:
    if not chosen:
        return []
    name = _quoted(chosen)
    return [
        {"selector": f"edge[id != {name}][source != {name}][target != {name}]", "style": {"opacity": 0.16}},
        {"selector": f"edge[id = {name}]", "style": {"opacity": 1, "z-index": 30}},
        {
            "selector": f"node[id = {name}]",
            "style": {"underlay-color": colours.accent, "underlay-opacity": 0.4, "underlay-padding": 6},
        },
    ]


def _quoted(text: str) -> str:
    """A name inside a selector; whatever could end the string is left out."""
    return '"' + re.sub(r'["\\\n\r]', "", text) + '"'
