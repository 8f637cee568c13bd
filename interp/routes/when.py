"""The layers and the heads of a route: cut from a layer on, up to a layer, in single heads.

Where no window of layers matters alone, as when a word is told twice on the way, the cuts from a layer on and up to a
layer still say where it begins and ends.
"""

from collections.abc import Sequence

from interp.names import HeadName
from interp.routes.cut import CleanRun, Cut, Done, Edges, Layers, cut_effects
from interp.routes.routes import RouteHead, RouteLayers

KEPT, WINDOW_SHARE = 0.9, 0.4
"""Part of the effect that the heads of a route keep; smallest part that a window of layers has alone."""
POINTS = 16
"""Points of a curve over layers at most."""
MOST_HEADS, MOST_GROWN = 40, 16
"""Heads that are tried alone, those that attend most; and together, those with the largest effects."""


def route_layers(run: CleanRun, routes: Sequence[Edges], done: Done | None = None) -> list[RouteLayers]:
    """Return the layers of some routes, and as few heads of each as keep nine tenths of its effect.

    Rows of all routes share passes.
    """
    curves = _layer_curves(run, routes, done)
    windows = [_window(run.n_layers, *curve) for curve in curves]
    tried = [
        [
            Cut(edges, first=first, last=last),
            *(_in_heads(edges, [head]) for head in _attending(run, edges, first, last)),
        ]
        for edges, (first, last) in zip(routes, windows, strict=True)
    ]
    alone = _effects(run, tried, done)
    ranked = [_ranked(cuts, effects) for cuts, effects in zip(tried, alone, strict=True)]
    growing = [
        [_in_heads(edges, [head for _, head in heads[: n + 1]]) for n in range(len(heads))]
        for edges, heads in zip(routes, ranked, strict=True)
    ]
    found = []
    for edges, (from_layer, up_to, _), (first, last), effects, heads, together in zip(
        routes, curves, windows, alone, ranked, _effects(run, growing, done), strict=True
    ):
        enough = next((n + 1 for n, effect in enumerate(together) if _keeps(effect, effects[0])), len(heads))
        named = tuple(
            RouteHead(layer=head.layer, head=head.head, effect=effect, attention=_attention(run, edges, head))
            for effect, head in heads[:enough]
        )
        share = effects[0] / from_layer[0] if abs(from_layer[0]) > 1e-6 else 0.0
        found.append(
            RouteLayers(
                first=first,
                last=last,
                share=share,
                step=curve_layers(run.n_layers).step,
                from_layer=tuple(from_layer),
                up_to=tuple(up_to),
                heads=named,
            )
        )
    return found


def _effects(run: CleanRun, cuts: Sequence[Sequence[Cut]], done: Done | None) -> list[list[float]]:
    """Return the effects of lists of cuts, measured together."""
    effects = iter(cut_effects(run, [cut for row in cuts for cut in row], done))
    return [[next(effects).effect for _ in row] for row in cuts]


def _layer_curves(run: CleanRun, routes: Sequence[Edges], done: Done | None) -> list[list[list[float]]]:
    """Return for each route its effects, in nats: cut from each layer on, up to and with each, and in each window."""
    at, n = curve_layers(run.n_layers), len(curve_layers(run.n_layers))
    cuts = [
        [
            *(Cut(edges, first=layer) for layer in at),
            *(Cut(edges, last=min(layer + at.step, run.n_layers) - 1) for layer in at),
            *(Cut(edges, first=first, last=last) for first, last in _windows(run.n_layers)),
        ]
        for edges in routes
    ]
    return [[effects[:n], effects[n : 2 * n], effects[2 * n :]] for effects in _effects(run, cuts, done)]


def curve_layers(n_layers: int) -> range:
    """Return the layers from which a route is cut: each of a small model, about `POINTS` of a large one."""
    return range(0, n_layers, -(-n_layers // POINTS))


def _windows(n_layers: int) -> list[Layers]:
    """Return windows of a sixth of the model, that begin at the layers of the curves."""
    size = -(-n_layers // 6)
    return [(first, first + size - 1) for first in curve_layers(n_layers) if first + size <= n_layers]


def _window(n_layers: int, from_layer: Sequence[float], up_to: Sequence[float], alone: Sequence[float]) -> Layers:
    """Return the first and the last layer of a route: the window of most effect, where that has enough of it alone.

    Otherwise the layers between which half of the effect comes and goes, by the cuts from a layer on and up to one.
    """
    whole, at = from_layer[0], curve_layers(n_layers)
    best = max(range(len(alone)), key=lambda number: alone[number] * (1 if whole >= 0 else -1))
    if _keeps(alone[best], whole, WINDOW_SHARE):
        return _windows(n_layers)[best]
    first = at[max(number for number, effect in enumerate(from_layer) if _keeps(effect, whole, 0.5))]
    last = at[min(number for number, effect in enumerate(up_to) if _keeps(effect, whole, 0.5))] + at.step - 1
    return min(first, last), min(max(first, last), n_layers - 1)


def _keeps(effect: float, whole: float, part: float = KEPT) -> bool:
    return effect * (1 if whole >= 0 else -1) >= part * abs(whole)


def _attending(run: CleanRun, edges: Edges, first: int, last: int) -> list[HeadName]:
    """Return the heads of some layers that attend along edges most."""
    layers, n_heads = range(first, last + 1), run.model.cfg.n_heads
    heads = [HeadName(layer, head) for layer in layers for head in range(n_heads)]
    return sorted(heads, key=lambda head: -_attention(run, edges, head))[:MOST_HEADS]


def _ranked(cuts: Sequence[Cut], effects: Sequence[float]) -> list[tuple[float, HeadName]]:
    """Return the heads whose effect alone has the sign of the whole (the first cut), the largest first."""
    sign = 1 if effects[0] >= 0 else -1
    alone = [
        (effect, HeadName(*next(iter(cut.heads or ())))) for effect, cut in zip(effects[1:], cuts[1:], strict=True)
    ]
    return sorted((row for row in alone if sign * row[0] > 0), key=lambda row: -sign * row[0])[:MOST_GROWN]


def _in_heads(edges: Edges, heads: Sequence[HeadName]) -> Cut:
    layers = [head.layer for head in heads]
    chosen = frozenset((head.layer, head.head) for head in heads)
    return Cut(edges, first=min(layers), last=max(layers), heads=chosen)


def _attention(run: CleanRun, edges: Edges, head: HeadName) -> float:
    """Return the attention of a head along edges: summed over sources, mean over destinations."""
    pattern = run.values[f"blocks.{head.layer}.attn.hook_pattern"][0, head.head].float()
    dest = edges[0][0]
    sources = [position for _, source in edges for position in source]
    return float(pattern[dest.start : dest.stop][:, sources].sum(-1).mean())
