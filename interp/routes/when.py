"""The layers and the heads of a route: cut from a layer on, up to a layer, in single heads.

Where no window of layers matters alone, as when a word is told twice on the way, the cuts from a layer on and up to a
layer still say where it begins and ends.
"""

from collections.abc import Sequence

from interp.names import HeadName
from interp.routes.cut import CleanRun, Cut, Done, cut_effects
from interp.routes.routes import RouteHead, RouteLayers

KEPT = 0.9
"""Part of the effect that the layers and the heads of a route keep."""
MOST_HEADS = 24
"""Heads that are tried together, those with the largest effect alone."""

Edges = tuple[tuple[range, range], ...]


def layer_curves(run: CleanRun, edges: Edges, done: Done | None = None) -> tuple[list[float], list[float]]:
    """Return the effects of cutting edges from each layer on, and up to and with each layer, in nats."""
    n = run.n_layers
    cuts = [Cut(edges, first=layer) for layer in range(n)] + [Cut(edges, last=layer) for layer in range(n)]
    effects = [changed.effect for changed in cut_effects(run, cuts, done)]
    return effects[:n], effects[n:]


def route_layers(run: CleanRun, edges: Edges, done: Done | None = None) -> RouteLayers:
    """Return the layers of a route, and as few of its heads as keep nine tenths of its effect."""
    from_layer, up_to = layer_curves(run, edges, done)
    whole = from_layer[0]
    first = max(layer for layer, effect in enumerate(from_layer) if _keeps(effect, whole))
    last = min(layer for layer, effect in enumerate(up_to) if _keeps(effect, whole))
    first, last = min(first, last), max(first, last)
    window = cut_effects(run, [Cut(edges, first=first, last=last)], done)[0].effect
    heads = _heads(run, edges, range(first, last + 1), window, done)
    share = window / whole if abs(whole) > 1e-6 else 0.0
    return RouteLayers(
        first=first, last=last, share=share, from_layer=tuple(from_layer), up_to=tuple(up_to), heads=heads
    )


def _keeps(effect: float, whole: float) -> bool:
    return effect * (1 if whole >= 0 else -1) >= KEPT * abs(whole)


def _heads(run: CleanRun, edges: Edges, layers: range, whole: float, done: Done | None) -> tuple[RouteHead, ...]:
    """Return the heads of the largest effects alone, as many as keep nine tenths of the effect together."""
    sign = 1 if whole >= 0 else -1
    all_heads = [HeadName(layer, head) for layer in layers for head in range(run.model.cfg.n_heads)]
    most = sorted(all_heads, key=lambda head: -_attention(run, edges, head))[: 4 * MOST_HEADS]
    alone = cut_effects(run, [_in_heads(edges, [head]) for head in most], done)
    ranked = sorted(zip(alone, most, strict=True), key=lambda pair: -sign * pair[0].effect)[:MOST_HEADS]
    ranked = [(changed, head) for changed, head in ranked if sign * changed.effect > 0]
    if not ranked:
        return ()
    growing = [_in_heads(edges, [head for _, head in ranked[: n + 1]]) for n in range(len(ranked))]
    together = [changed.effect for changed in cut_effects(run, growing, done)]
    enough = next((n + 1 for n, effect in enumerate(together) if _keeps(effect, whole)), len(ranked))
    return tuple(
        RouteHead(layer=head.layer, head=head.head, effect=changed.effect, attention=_attention(run, edges, head))
        for changed, head in ranked[:enough]
    )


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
