"""Contexts on which a feature fires: what the explainer is shown, and what is kept from it for scoring."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from interp.errors import CorruptError
from saes.schema import QUARTILES, TOP

MARK = 0.3
"""A token is marked when it reaches this share of the largest activation in its context."""


@dataclass(frozen=True)
class Context:
    """A passage of text and what one feature does on each of its tokens."""

    row: int
    """of its centre, in the recording"""
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    """0 where the feature is silent"""
    group: str
    """`top`, `q4` ... `q1` where it fires; `random`, `same token` or `neighbour` where it does not"""

    @property
    def marked(self) -> tuple[bool, ...]:
        """Tokens on which the feature fires, weak ones beside a strong one left out; none where it is silent."""
        peak = max(self.activations)
        return tuple(value > 0 and value >= MARK * peak for value in self.activations)

    def overlaps(self, other: "Context") -> bool:
        """Whether they share text: the same stretch of the recording, or the same words elsewhere."""
        near = abs(self.row - other.row) < max(len(self.tokens), len(other.tokens))
        return near or self.tokens == other.tokens


def read_table(
    folder: Path, table: str, features: Iterable[int], columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of `features.parquet` or `examples.parquet` that belong to some features, in the order stored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{table}.parquet"
    try:
        found = pq.read_table(path, columns=columns, filters=[("feature", "in", [int(f) for f in features])])
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptError(f"cannot read {path} ({str(error).splitlines()[0]}); `workbench verify` checks it") from None
    return found.to_pylist()


def context_of(row: dict[str, Any]) -> Context:
    """A row of `examples.parquet`."""
    return Context(row["row"], tuple(row["tokens"]), tuple(row["activations"]), row["group"])


def split_contexts(
    contexts: Iterable[Context], *, shown: int, heldout: int, generator: np.random.Generator
) -> tuple[list[Context], list[Context]]:
    """(shown, held out): at most so many of each, and no text in both, nor twice in either.

    Shown are the strongest ones and, for the other half, the quarters in turn. Held out are the quarters in turn, so
    that the score speaks for all strengths, and what remains of the strongest only where the quarters run short.
    """
    groups: dict[str, list[Context]] = {group: [] for group in (TOP, *QUARTILES)}
    for context in contexts:
        groups[context.group].append(context)
    top = groups[TOP]
    quarters = in_turn([[groups[q][i] for i in generator.permutation(len(groups[q]))] for q in QUARTILES])
    for_show = distinct(top, most=shown - shown // 2)
    for_show += distinct([*quarters, *top], most=shown - len(for_show), apart_from=for_show)
    return for_show, distinct([*quarters, *top], most=heldout, apart_from=for_show)


def in_turn(lists: Iterable[Sequence[Context]]) -> list[Context]:
    """The first of each list, then the second of each, and so on."""
    return [context for round_ in zip_longest(*lists) for context in round_ if context is not None]


def distinct(contexts: Iterable[Context], *, most: int, apart_from: Iterable[Context] = ()) -> list[Context]:
    """The first `most` contexts that overlap neither each other nor `apart_from`."""
    taken, found = list(apart_from), []
    for context in contexts:
        if len(found) == most:
            break
        if not any(context.overlaps(other) for other in taken):
            taken.append(context)
            found.append(context)
    return found
