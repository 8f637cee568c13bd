"""Features that fire as a model reads a text, by strength and rarity. Torch-free: the activations are given."""

import math
from collections.abc import Sequence

from interp.workspace import Workspace
from saes.features.fired_words import MAX_MATCHES
from saes.features.found import Example, Hit, Match, feature_rows


def rank_active(
    workspace: Workspace, name: str, tokens: Sequence[str], active: Sequence[Sequence[tuple[int, float]]], limit: int
) -> list[Hit]:
    """Return the features that fire on a text, by strength and rarity.

    `active` holds the (feature, activation) of every token. The strength is the strongest activation, as a fraction of
    the feature's maximum, times `log10(1 / density)`, so that features of common tokens come last; the null is the
    probability that a feature of the same density fires on one of so many random tokens.
    """
    values: dict[int, list[float]] = {}
    for i, token in enumerate(active):
        for feature, activation in token:
            values.setdefault(feature, [0.0] * len(tokens))[i] = activation
    n_read = sum(bool(token) for token in active)
    hits = []
    for feature, row in feature_rows(workspace, name, list(values)).items():
        mine = values[feature]
        strength = min(1.0, max(mine) / (row["max_activation"] or max(mine)))
        rarity = -math.log10(min(1.0, max(row["density"], 1e-9)))
        chance = 1 - (1 - row["density"]) ** n_read
        at = tuple(i for i, value in enumerate(mine) if value > 0)
        matches = tuple(Match(tokens[i], 1, 1, mine[i]) for i in sorted(at, key=lambda i: -mine[i])[:MAX_MATCHES])
        shown = Example(tuple(tokens), tuple(mine), (max(at, key=lambda i: mine[i]),))
        given = {"strength": strength * rarity, "null": chance, "matches": matches, "example": shown}
        hits.append(Hit(features=name, by="active", **given, **row))
    return sorted(hits, key=lambda hit: (-(hit.strength or 0), hit.feature))[:limit]
