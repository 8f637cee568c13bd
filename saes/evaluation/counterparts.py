"""Counterparts of features in another dictionary as an artefact: which fire on the same words, of any two models.

`saes.evaluation.match_by_word` pairs and judges them. Torch-free.
"""

from dataclasses import dataclass
from typing import Literal

from interp.artifacts import Artefact, Table
from interp.artifacts.tables import Float32, Int32
from interp.results import Record
from interp.view import Facts, Finding, View

SHUFFLED, UNTRAINED, NEURONS = "documents shuffled", "an untrained dictionary", "neurons"
"""Nulls: the second's documents in another order; others in place of the first dictionary, as sparse."""
ALIKE, SAME, APART = 0.5, 0.7, 0.3
"""Held-out correlations from which a feature has a counterpart, a close one, and up to which it has none."""
ONE_WORD = 0.5
"""A feature knows one word if its forms, or one token, are more than this share of its strong firings."""


@dataclass(frozen=True, kw_only=True)
class CounterpartSettings:
    """Settings that determine the counterparts."""

    first: str
    """Name of a features artefact."""
    second: str
    corpus: str
    """Text that both read."""
    n_words: int


@dataclass(frozen=True, kw_only=True)
class CounterpartShare:
    """Number of features that have a counterpart, of one dictionary or null."""

    features: str
    """Whose: the first's, the second's, or a null's."""
    n: int
    """Features that fire often enough, and not too often, to be paired."""
    alike: int
    """With a held-out correlation above `ALIKE`."""
    same: int
    """Above `SAME`."""
    hold: int
    """Pairs that agree well enough to share a label."""
    wide: int | None
    """Of the `alike`, those that know more than one word's forms; None for a null."""

    def __str__(self) -> str:
        wide = "" if self.wide is None else f" ({self.wide:,} more than one word)"
        return f"{self.features}: {self.alike:,} of {self.n:,} above {ALIKE}{wide}, {self.same:,} above {SAME}"


@dataclass(frozen=True, kw_only=True)
class CounterpartRow:
    """One feature with the one of the other dictionary that fires on the same words."""

    side: Literal["first", "second"]
    """The dictionary of `feature`; the other one has the counterpart."""
    feature: Int32
    counterpart: Int32
    correlation: Float32
    """Of activations on words, held-out documents: the half that did not choose the pair."""
    agreement: Float32 | None
    """Balanced accuracy there, the worse of two ways: does one fire where the other does? None: too few documents."""
    null: Float32 | None
    """The same with another feature's counterpart."""
    words: list[str]
    """Words, in their base form, on which the feature fires strongly, the most frequent first."""
    share: Float32
    """Share of the first of them, or of the most frequent token where that is larger."""

    @property
    def wide(self) -> bool:
        """True where it knows more than one word's forms."""
        return self.share <= ONE_WORD


@dataclass(frozen=True, kw_only=True, eq=False)
class Counterparts(Artefact, kind="counterparts", title="Counterparts", made_by="compare features"):
    """Features of two dictionaries that fire on the same words, both ways, with their nulls."""

    settings: CounterpartSettings
    shares: tuple[CounterpartShare, ...]
    """Of the first, of the second, then of the nulls."""
    null_high: float
    """Held-out correlation that 95 % of the first's features stay below with the documents shuffled."""
    pairs: Table[CounterpartRow]
    """Rows by side and feature, of those that have any counterpart."""

    def share(self, features: str) -> CounterpartShare:
        """Return a row of the shares by its name."""
        return next(share for share in self.shares if share.features == features)

    def view(self) -> View:
        own, null = self.shares[0], self.share(SHUFFLED)
        yield (
            f"{own.alike / max(own.n, 1):.0%} of {own.features}'s features have a counterpart in "
            f"{self.settings.second}; {null.alike / max(null.n, 1):.0%} with {SHUFFLED}"
        )
        yield Facts(*[(share.features, f"{share.alike / max(share.n, 1):.0%}") for share in self.shares])
        yield from [
            f"held-out correlation, {self.settings.n_words:,} words of {self.settings.corpus}",
            *map(str, self.shares),
        ]
        own, *_ = shares = [share.alike / max(share.n, 1) for share in self.shares]
        value, null = shares[0], max(shares[2:], default=0.0)
        if own <= null:
            return
        yield Finding(
                kind="counterparts", title=f"{self.settings.first} beside {self.settings.second}",
                sentence=f"{self.headline()}.", value=value, null=null,
                about="share of features; null: the largest of " + ", ".join(s.features for s in self.shares[2:]),
                proof="See the pairs",
            )  # fmt: skip

    def to_records(self) -> list[Record]:
        """Return one row per feature with a counterpart."""
        return self.pairs.query("select * exclude (words) from t").to_pylist()
