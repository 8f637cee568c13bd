"""Alignment of a causal program's variable with a model: swaps by site and basis, as an artefact. Torch-free.

`interp.circuits.aligning` measures it and says what the controls are.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np
from jaxtyping import Float32

from interp.artifacts import ARRAY, Artefact, DocumentField, Finding, Table
from interp.claims import OwnText, StatedNumber
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.options import BASIC, check_least
from interp.results import Record, columns_of

CONTROLS = ("no swap", "random subspace", "placebo of equal norm", "untrained model")
"""Rows that the learned subspace has to exceed."""
LEARNED = "learned (DAS)"
OWN_PAIRS, ARBITRARY = "learned, on the pairs that trained it", "arbitrary labels, on the pairs that trained them"
"""Labels at random say nothing of other pairs; how well DAS fits them shows what it can fit."""
WHOLE = "whole vector"


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Settings of an alignment."""

    pairs: Annotated[int, BASIC] = 200
    """Pairs of prompts: half train the subspaces, a quarter chooses the rank, a quarter tests."""
    ranks: tuple[int, ...] = (1, 4, 16)
    """Dimensions of the subspaces that are trained; the one with the best swaps on the second part is tested."""
    epochs: int = 8
    """Passes of the training over its pairs."""
    layer_step: int = 3
    """Layers between two rows of the map."""
    seed: int = 0
    """Draws pairs, bases, controls and the untrained model."""

    def __post_init__(self) -> None:
        check_least(self, {"pairs": 16, "epochs": 1, "layer_step": 1})
        if not self.ranks or min(self.ranks) < 1:
            raise ConfigError(f"ranks must be at least 1, got {self.ranks}")


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings(AlignmentConfig):
    """Settings that determine an alignment."""

    model: str
    weight_hash: str
    program: str
    variable: str
    layer: int
    position: int
    """Site at which the bases are compared."""
    rank: int
    """The chosen one."""
    site_given: bool
    """False: the site with the best swaps on the map."""


@dataclass(frozen=True, kw_only=True)
class SiteAccuracy:
    """Share of pairs in which the swap of a whole vector, before one layer at one position, gives the wanted answer."""

    layer: int
    position: int
    token: str
    """Of the first base."""
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class BasisAccuracy:
    """Share of test pairs with the wanted answer after swapping the coordinates in one basis."""

    basis: str
    rank: int
    accuracy: float
    low: float
    high: float
    """Ends of its 95 % interval (Wilson)."""
    changed: float
    """Among pairs whose answer should change."""
    stayed: float
    """Among pairs whose answer should stay."""


@dataclass(frozen=True, kw_only=True)
class SwappedPair:
    """One test pair, and the answers of the model to its base."""

    base: str
    source: str
    wanted: str
    answer: str
    """Of the model to the base as it is."""
    after_whole: str
    """With the whole vector of the source."""
    after_learned: str
    """With the source's coordinates in the learned subspace."""


@dataclass(frozen=True, kw_only=True)
class SwappedToken:
    """Probability of one next token in the runs of a pair."""

    token: str
    base: float
    source: float
    whole: float
    """In the base, with the whole vector of the source at the site."""
    learned: float
    """In the base, with the source's coordinates in the learned subspace."""


@dataclass(frozen=True)
class SwappedRun:
    """Predictions for one test pair: base, source, and the base after both swaps."""

    pair: SwappedPair
    where: str
    tokens: list[SwappedToken]
    """The three most probable tokens of each run, and the wanted one; most probable after the learned swap first."""

    def headline(self) -> str:
        """Return what the swap should give, and what it gives."""
        best = {name: max(self.tokens, key=lambda row: getattr(row, name)).token for name in ("base", "learned")}
        return (
            f"Swapped {self.where}: {best['learned']!r} instead of {best['base']!r}; the program wants "
            f"{self.pair.wanted!r}."
        )


@dataclass(frozen=True, kw_only=True)
class Alignment(Artefact, kind="alignment", made_by="align"):
    """A variable of a causal program in a model: swaps by layer and position, and by basis at one site."""

    settings: AlignmentSettings
    solved: float
    """Share of test bases that the model answers as the program does, without a swap."""
    sites: Table[SiteAccuracy]
    bases: Table[BasisAccuracy]
    """Bases first, then the controls."""
    pairs: Table[SwappedPair]
    """Of the test."""
    basis: Annotated[Float32[np.ndarray, "d_model rank"], ARRAY]
    """The learned subspace, orthonormal."""
    file: Annotated[OwnText | None, DocumentField("file.json")] = field(default_factory=lambda: None)
    """File of the pairs, where they came from one."""

    @cached_property
    def rows(self) -> list[BasisAccuracy]:
        """All bases and controls in memory."""
        return self.bases.rows()

    def of_basis(self, name: str) -> BasisAccuracy:
        """Return the accuracy of one basis by its name."""
        return next(row for row in self.rows if row.basis == name)

    @property
    def best_control(self) -> BasisAccuracy:
        """The control with the most wanted answers."""
        return max((self.of_basis(name) for name in CONTROLS), key=lambda row: row.accuracy)

    @property
    def found(self) -> bool:
        """True where the learned subspace's interval lies above that of every control, and on its own pairs above that
        of arbitrary labels."""
        beyond_chance = self.of_basis(OWN_PAIRS).low > self.of_basis(ARBITRARY).high
        return beyond_chance and self.of_basis(LEARNED).low > max(self.of_basis(name).high for name in CONTROLS)

    @property
    def where(self) -> str:
        """The site, such as `before layer 12 at ' keys'`."""
        s = self.settings
        token = next(row.token for row in self.sites.rows() if row.position == s.position)
        return f"before layer {s.layer} at {token!r} (position {s.position})"

    def headline(self) -> str:
        """Return one line: whether the variable is found, where, and the best control."""
        s, learned, control = self.settings, self.of_basis(LEARNED), self.best_control
        verb = "carry" if self.found else "were not shown to carry"
        return (
            f"{s.rank} dimensions of {short_name(s.model)} {verb} {s.variable} ({s.program}): {learned.accuracy:.0%} "
            f"wanted answers, {control.basis} {control.accuracy:.0%}"
        )

    def stated(self) -> dict[str, StatedNumber]:
        """Return what a claim may say: the wanted answers by the learned subspace, beside the best control."""
        s, learned, control = self.settings, self.of_basis(LEARNED), self.best_control
        return {
            "subspace": StatedNumber(
                sentence=f"{s.rank} dimensions of {short_name(s.model)} {self.where} carry {s.variable} ({s.program})",
                subject="direction",
                formula="share of test pairs with the wanted answer after the learned subspace is swapped",
                unit="share, 0 to 1",
                value=learned.accuracy,
                low=learned.low,
                high=learned.high,
                null=control.accuracy,
                nulls=CONTROLS,
                outcome="supported" if self.found else "not supported",
            )
        }

    def facts(self) -> list[tuple[str, str]]:
        """Return the site, the rank and the size of the test."""
        return [
            ("site", self.where),
            ("rank", str(self.settings.rank)),
            ("test pairs", f"{len(self.pairs):,}"),
            ("bases answered without a swap", f"{self.solved:.0%}"),
        ]

    def details(self) -> list[str]:
        """Return every basis and control with its interval."""
        return [
            f"{row.basis} (rank {row.rank}): {row.accuracy:.0%} [{row.low:.0%}, {row.high:.0%}], "
            f"changed {row.changed:.0%}, stayed {row.stayed:.0%}"
            for row in self.rows
        ]

    def findings(self) -> list[Finding]:
        """Return the variable, where it is found."""
        if not self.found:
            return []
        s, learned, control = self.settings, self.of_basis(LEARNED), self.best_control
        return [
            Finding(
                kind="variable",
                title="A variable that can be swapped",
                sentence=(
                    f"{s.rank} dimensions {self.where} carry {s.variable}: swapping them gives the wanted answer in "
                    f"{learned.accuracy:.0%} of pairs"
                ),
                value=learned.accuracy,
                null=control.accuracy,
                about=f"share of wanted answers; null: {control.basis}",
                proof="See every control",
                href=self.href,
            )
        ]

    def to_records(self) -> list[Record]:
        """Return one row per basis and control."""
        return [columns_of(row) for row in self.rows]
