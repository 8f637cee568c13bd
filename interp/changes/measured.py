"""Measures of two checkpoints of one model: changes of weights, residual streams and heads, and effects of transplants.

Modules of the same names measure them: `weights`, `representations`, `heads`, `transplant`. Torch-free.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64

from interp.errors import ConfigError, UnknownNameError
from interp.forms import Measured
from interp.results import ROWS, Record, Result, columns_of
from interp.statistics import Interval

Grid = Float64[np.ndarray, "n_layers n_heads"]
LOW_RANK, LOW_RANK_OF_NULL = 0.25, 0.5
"""fractions of the random rank and of the nulls' rank up to which a change counts as low-rank"""
Measure = Literal["pattern", "own_pattern", "own_output", "previous_token", "induction"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
ON_TEXT: tuple[Measure, ...] = MEASURES[:3]
SCORES: tuple[Measure, ...] = MEASURES[3:]


def unit_of(kind: str, layer: int | None) -> str:
    """Return the part of the model to which a component belongs, by its kind and layer."""
    if kind == "other":
        return "other"
    if layer is None:
        return "embed" if kind in ("embed", "pos_embed") else "unembed"
    return f"L{layer}." + ("mlp" if kind.startswith("mlp") or kind == "ln2" else "attn")


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightChange:
    """Change of one component between the two models."""

    name: str
    kind: str
    layer: int | None
    heads: tuple[int, ...]
    change: float
    """relative Frobenius norm of the difference, 0 to 2; 0: equal to the bit"""
    null: float
    """mean change of the null models"""
    null_high: float
    """upper bound of the nulls"""
    above_null: bool
    """the change lies above `null_high`"""
    rank: Measured
    """participation ratio of the squared singular values of the difference; NaN without a difference"""
    random_rank: float
    """expected rank of a random difference of this shape"""
    null_rank: Measured
    """mean rank of the null models' differences"""
    rank_90: int
    """number of directions that hold 90 % of the squared difference"""
    spectrum: Float64[np.ndarray, " n"]
    """largest squared singular values as fractions of their sum, at most `N_SPECTRUM`"""

    @property
    def low_rank(self) -> bool:
        """True if found, with at most a quarter of the rank of a random change and half of that of the nulls."""
        return self.above_null and self.rank <= min(LOW_RANK * self.random_rank, LOW_RANK_OF_NULL * self.null_rank)


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightChanges(Result):
    """Changes of all components, from the embedding to the unembedding."""

    changes: tuple[WeightChange, ...]
    null: str
    """description of the null"""

    @property
    def changed(self) -> list[str]:
        """Names of the components that changed by more than their null, the largest change first."""
        return [c.name for c in sorted(self.changes, key=lambda c: -c.change) if c.above_null]

    @property
    def low_rank(self) -> list[str]:
        """Names of the components that changed in few directions."""
        return [c.name for c in self.changes if c.low_rank]

    def __getitem__(self, name: str) -> WeightChange:
        return next(c for c in self.changes if c.name == name)

    def to_records(self) -> list[Record]:
        """Return one row per component."""
        keys = (
            "name",
            "kind",
            "layer",
            "change",
            "null",
            "null_high",
            "above_null",
            "rank",
            "random_rank",
            "null_rank",
        )
        return [
            {key: getattr(c, key) for key in keys}
            | {"rank_90": c.rank_90, "low_rank": c.low_rank, "heads": list(c.heads), "spectrum": c.spectrum.tolist()}
            for c in self.changes
        ]

    def headline(self) -> str:
        """Count the components that moved."""
        return f"{len(self.changed)} of {len(self.changes)} components moved by more than the null ({self.null})"

    def shown(self) -> list[Record]:
        """Return the components with the largest changes, without their spectra."""
        names = ("name", "change", "null", "null_high", "above_null", "rank", "random_rank", "low_rank")
        return [{n: row[n] for n in names} for row in sorted(self.to_records(), key=lambda row: -row["change"])]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerChange:
    """Change of the residual stream after one layer (`embed`: before the first)."""

    name: str
    change: Interval[float]
    """over contexts; 0: the same; 1: as large as the base's variance"""
    null: float
    """mean change of the nulls"""
    null_high: float
    """upper bound of the nulls"""
    above_null: bool
    """the interval's low end, corrected for all layers, lies above `null_high`"""
    cka: Interval[float]
    """1: the same up to rotation, translation and scale; about 0: unrelated"""
    cka_null: Measured
    """mean of the nulls"""
    cka_above_null: bool
    """the low end of `1 - cka` lies above the bound of the nulls"""
    main_share: Measured
    """fraction of the squared difference along its main direction, on held-out contexts; NaN without a change"""
    main_share_null: Measured
    """mean of the nulls"""
    main_share_base: Measured
    """fraction of the base's variance along that direction, 0 to 1"""
    direction: Float64[np.ndarray, " d_model"]
    """of unit length, towards the tuned model; zeros without a change"""


@dataclass(frozen=True, kw_only=True, eq=False)
class RepresentationChanges(Result):
    """Changes of the residual stream at all layers, on one text."""

    layers: tuple[LayerChange, ...]
    n_contexts: int
    n_tokens: int
    null: str

    @property
    def changed(self) -> list[str]:
        """Layers that changed by more than their null, in the order of the model."""
        return [layer.name for layer in self.layers if layer.above_null]

    def __getitem__(self, name: str) -> LayerChange:
        by_name = {layer.name: layer for layer in self.layers}
        if name not in by_name:
            raise UnknownNameError("layer", name, by_name)
        return by_name[name]

    def to_records(self) -> list[Record]:
        """Return one row per layer, without the directions."""
        return [
            {
                "name": layer.name,
                **layer.change.columns("change", "low", "high"),
                **layer.cka.columns("cka"),
                **{k: v for k, v in vars(layer).items() if k not in ("name", "change", "cka", "direction")},
            }
            for layer in self.layers
        ]

    def headline(self) -> str:
        """Count the layers that changed by more than their null."""
        return f"Residual stream on {self.n_tokens:,} tokens: {len(self.changed)} of {len(self.layers)} layers moved"

    def shown(self) -> list[Record]:
        """Return the layers with the largest changes, in the order of the model."""
        names = ("name", "change", "low", "high", "null", "above_null", "cka", "cka_null", "main_share")
        largest = {layer.name for layer in sorted(self.layers, key=lambda layer: -layer.change.estimate)[:ROWS]}
        return [{n: row[n] for n in names} for row in self.to_records() if row["name"] in largest]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadMeasure:
    """One measure of every head."""

    value: Interval[np.ndarray]
    """mean over contexts or prompts with its interval; 0: no change"""
    null: Grid
    """mean absolute value under the nulls"""
    null_high: Grid
    """upper bound of the nulls"""
    above_null: Bool[np.ndarray, "n_layers n_heads"]
    """the change exceeds `null_high`"""

    def __post_init__(self) -> None:
        if len({array.shape for array in (*self.value, self.null, self.null_high, self.above_null)}) > 1:
            raise ConfigError("expected arrays of one shape, [n_layers, n_heads], for a measure of heads")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadChanges(Result):
    """Measures of every head, arrays `[n_layers, n_heads]`."""

    measures: dict[Measure, HeadMeasure]
    before: dict[Measure, Grid]
    """the base's own `previous_token` and `induction` scores"""
    null_words: str
    """description of the null"""
    n_contexts: int

    def __post_init__(self) -> None:
        if lacking := [measure for measure in ON_TEXT if measure not in self.measures]:
            raise ConfigError(f"expected the measures {', '.join(ON_TEXT)} of heads, {lacking[0]} is missing")

    @property
    def value(self) -> dict[Measure, Interval[np.ndarray]]:
        """Mean over contexts or prompts with its interval, by measure."""
        return {measure: scores.value for measure, scores in self.measures.items()}

    @property
    def above_null(self) -> dict[Measure, Bool[np.ndarray, "n_layers n_heads"]]:
        """Verdicts by measure."""
        return {measure: scores.above_null for measure, scores in self.measures.items()}

    def names(self, measure: Measure) -> list[str]:
        """Return the heads found by a measure, the largest change first."""
        scores = self.measures[measure]
        heads = np.argwhere(scores.above_null).tolist()
        order = sorted(heads, key=lambda at: -abs(float(scores.value.estimate[tuple(at)])))
        return [f"L{layer}H{head}" for layer, head in order]

    def to_records(self) -> list[Record]:
        """Return one row per head and measure: `head, layer, measure, value, low, high, null, ...`."""
        return [
            {"head": f"L{layer}H{head}", "layer": layer, "measure": measure}
            | scores.value.at((layer, head)).columns("value", "low", "high")
            | {key: getattr(scores, key)[layer, head].item() for key in ("null", "null_high", "above_null")}
            for measure, scores in self.measures.items()
            for layer, head in np.ndindex(scores.above_null.shape)
        ]

    def headline(self) -> str:
        """Count the heads found by each measure."""
        counts = [f"{len(self.names(measure))} by {measure.replace('_', ' ')}" for measure in self.measures]
        return f"Heads that changed by more than the null ({self.null_words}): {', '.join(counts)}"

    def shown(self) -> list[Record]:
        """Return the heads found, the largest change first."""
        return sorted((row for row in self.to_records() if row["above_null"]), key=lambda row: -abs(row["value"]))


@dataclass(frozen=True, kw_only=True)
class Transplant:
    """Effects of transplanting one part in both directions; NaN where the two models behave alike."""

    name: str
    level: Literal["part", "head"]
    changed: bool
    """False: the part is equal in both models to the bit, and nothing was run"""
    carried: Interval[float]
    """fraction of the behaviour that the tuned part transfers into the base, over prompts; 0: none, 1: all"""
    carried_random: Measured
    """mean of random changes of the same norm; NaN for a fraction too small to be found, which has no null"""
    carried_bound: Measured
    """upper bound of the random changes"""
    carried_found: bool
    """the interval's low end, corrected for all parts, lies above `carried_bound` and above 0.1"""
    removed: Interval[float]
    """fraction of the behaviour that the tuned model loses with the base's part, over prompts; 0: none, 1: all"""
    removed_random: Measured
    """mean of random changes of the same norm; NaN for a fraction too small to be found, which has no null"""
    removed_bound: Measured
    """upper bound of the random changes"""
    removed_found: bool
    """the interval's low end, corrected for all parts, lies above `removed_bound` and above 0.1"""


@dataclass(frozen=True, kw_only=True)
class Transplants(Result):
    """Transplants of every part, and the behavioural gap between the models of which they are fractions."""

    behaviour: str
    base: float
    """mean over prompts"""
    tuned: float
    gap_bound: float
    """upper prediction bound of the gap of one more null"""
    differ: bool
    """the end of the gap's 95 % interval nearer to 0 lies beyond `gap_bound`; if not, fractions are undefined"""
    transplants: tuple[Transplant, ...]
    n_prompts: int

    @property
    def carried(self) -> list[str]:
        """Parts that transfer the behaviour into the base, the largest fraction first."""
        return [t.name for t in sorted(self.transplants, key=lambda t: -t.carried.estimate) if t.carried_found]

    @property
    def removed(self) -> list[str]:
        """Parts whose reversal removes the behaviour from the tuned model, the largest fraction first."""
        return [t.name for t in sorted(self.transplants, key=lambda t: -t.removed.estimate) if t.removed_found]

    def __getitem__(self, name: str) -> Transplant:
        by_name = {t.name: t for t in self.transplants}
        if name not in by_name:
            raise UnknownNameError("part", name, by_name)
        return by_name[name]

    def to_records(self) -> list[Record]:
        """Return one row per part."""
        return [columns_of(t) for t in self.transplants]

    def headline(self) -> str:
        """Give the behaviour of both models."""
        return (
            f"{self.behaviour}: {self.base:.3f} in the base, {self.tuned:.3f} in the tuned model; fractions of that "
            "gap due to one part (1 is all of it)"
        )

    def shown(self) -> list[Record]:
        """Return the parts by descending `carried`, without their intervals."""
        names = ("name", "carried", "carried_random", "carried_found", "removed", "removed_random", "removed_found")
        rows = sorted(self.to_records(), key=lambda row: (row["carried"] != row["carried"], -row["carried"]))
        return [{n: row[n] for n in names} for row in rows]
