"""Scores of attention heads as an artefact: one row per kind and head, each with its interval, null and verdict.

`interp.circuits.head_kinds` measures them. Torch-free.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated
from urllib.parse import urlencode

import numpy as np
from jaxtyping import Bool, Float64

from interp.artifacts import ARRAY, Artefact, Table
from interp.models.short_name import short_name
from interp.names import HeadName
from interp.results import Record
from interp.view import Facts, Finding, Rows, View


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Settings that determine the scores of a model's heads."""

    model: str
    weight_hash: str
    prompts: int
    """Prompts per seed."""
    seeds: tuple[int, ...]
    lags: tuple[int, int]
    """Shortest and longest block that repeats."""
    context_length: int
    """Tokens per prompt, BOS included."""
    bos: int | None
    """Token id of BOS; None where the model has none."""


@dataclass(frozen=True, kw_only=True)
class HeadScore:
    """Score of one head for one kind: the share of its attention on the targets of the kind, 0 none to 1 all."""

    layer: int
    head: int
    kind: str
    score: float
    """Mean over prompts."""
    low: float
    high: float
    """Ends of its 95 % interval."""
    null: float
    """Mean under the null."""
    null_high: float
    """95 % upper bound of the null, corrected for all heads."""
    above_null: bool
    """The interval lies 0.1 above the null: the head is of this kind."""

    @property
    def name(self) -> str:
        """Name of the head, such as `L5H1`."""
        return f"L{self.layer}H{self.head}"


Grid = dict[str, Float64[np.ndarray, "n_layers n_heads"]]
"""Kind of head -> values by layer and head."""


@dataclass(frozen=True, kw_only=True)
class HeadScores(Artefact, kind="heads"):
    """Scores of every head for every kind: 0 is no attention on the targets, 1 all attention."""

    settings: HeadSettings
    scores: Table[HeadScore]
    """Rows by kind, layer and head."""
    per_prompt: Annotated[Float64[np.ndarray, "n_layers n_heads n_kinds n_prompts"] | None, ARRAY]
    """Scores by prompt, kinds in the order of `kinds`."""

    @cached_property
    def rows(self) -> list[HeadScore]:
        """All rows in memory (a model has hundreds of heads)."""
        return self.scores.rows()

    @property
    def kinds(self) -> list[str]:
        """Kinds that were scored."""
        return list(dict.fromkeys(row.kind for row in self.rows))

    def of_kind(self, kind: str) -> list[HeadScore]:
        """Return the rows of one kind, by layer and head."""
        return [row for row in self.rows if row.kind == kind]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of layers, and of heads in a layer."""
        return 1 + max(row.layer for row in self.rows), 1 + max(row.head for row in self.rows)

    @property
    def score(self) -> Grid:
        """Scores `[n_layers, n_heads]` by kind."""
        return self._grid("score")

    @property
    def null(self) -> Grid:
        """Means under the null `[n_layers, n_heads]` by kind."""
        return self._grid("null")

    @property
    def null_high(self) -> Grid:
        """Upper bounds of the null `[n_layers, n_heads]` by kind."""
        return self._grid("null_high")

    @property
    def above_null(self) -> dict[str, Bool[np.ndarray, "n_layers n_heads"]]:
        """Verdicts `[n_layers, n_heads]` by kind."""
        return self._grid("above_null")

    def _grid(self, column: str) -> dict[str, np.ndarray]:
        return {
            kind: np.array([getattr(row, column) for row in self.of_kind(kind)]).reshape(self.shape)
            for kind in self.kinds
        }

    def strongest(self, kind: str, n: int = 5) -> list[tuple[HeadName, float]]:
        """Return the `n` heads with the highest score of a kind, found or not."""
        rows = sorted(self.of_kind(kind), key=lambda row: -row.score)[:n]
        return [(HeadName(row.layer, row.head), row.score) for row in rows]

    def to_records(self) -> list[Record]:
        """Return one row per kind and head: `head, layer, kind, score, low, high, null, null_high, found`."""
        names = ("layer", "kind", "score", "low", "high", "null", "null_high", "above_null")
        return [{"head": row.name} | {name: getattr(row, name) for name in names} for row in self.rows]

    def view(self) -> View:
        counts = [(int(heads.sum()), kind.replace("_", "-")) for kind, heads in self.above_null.items()]
        text = ", ".join(f"{n} {kind}" for n, kind in counts if n) or "none"
        yield f"{self.shape[0] * self.shape[1]} heads of {short_name(self.settings.model)}, above their nulls: {text}"
        named = [(f"{kind.replace('_', ' ')} heads", str(heads.sum())) for kind, heads in self.above_null.items()]
        yield Facts(*named, ("prompts", str(self.settings.prompts)), ("seeds", str(len(self.settings.seeds))))
        for kind, heads in self.above_null.items():
            rows = sorted((row for row in self.of_kind(kind) if row.above_null), key=lambda row: -row.score)
            strongest = ", ".join(f"{row.name} {row.score:.2f}" for row in rows[:3])
            summary = f"{kind.replace('_', '-')}: {heads.sum()} heads"
            yield f"{summary}, strongest {strongest}" if heads.any() else summary
        yield Rows(self._rows)
        for kind, (title, target) in _FINDINGS.items():
            rows = self.of_kind(kind)
            null = max((row.null_high for row in rows), default=0.0)
            heads = [row for row in rows if row.above_null and row.low > null]
            if not heads:
                continue
            best = max(heads, key=lambda row: row.low)
            yield Finding(
                kind="head",
                title=title,
                sentence=f"Head {best.name} of {short_name(self.settings.model)} gives {best.score:.0%} of its "
                f"attention to {target}.",
                more=f"Null: no head gives more than {null:.1%}. {len(heads)} of {len(rows)} heads do so.",
                value=best.score,
                null=best.null_high,
                about="mean attention; null: text without such tokens",
                href=f"?{urlencode({'kind': kind, 'head': best.name})}",
                proof="See the head",
                in_circuit=kind != "duplicate_token",
                grid=tuple(
                    tuple(row.score for row in rows if row.layer == layer)
                    for layer in sorted({row.layer for row in rows})
                ),
            )

    def _rows(self) -> list[Record]:
        """Return the two heads with the highest score of each kind."""
        rows = sorted(self.to_records(), key=lambda row: -row["score"])
        return [row for kind in self.kinds for row in [record for record in rows if record["kind"] == kind][:2]]


_FINDINGS = {
    "previous_token": ("A head that looks one token back", "the token before"),
    "duplicate_token": ("A head that finds repeats", "earlier copies of the current token"),
    "induction": ("A head that copies", "the token after an earlier copy of the current one"),
}
