"""Effects of interventions as rows of tables, and a map of activation patches as an artefact. Torch-free.

`interp.patching.maps` measures a map and says what its null is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, TypeVar

from interp.artifacts import Artefact, Document, Measured, Table
from interp.patching.config import HeadKind, PatchingConfig, TaskSettings
from interp.results import ROWS, Record, columns_of


@dataclass(frozen=True, kw_only=True)
class AblationEffect:
    """Change of the loss by ablating a group of components, in nats; above 0 the model got worse."""

    group: str
    kind: str
    """zero, mean or resample."""
    loss_first_half: float
    loss_second_half: float
    low: Measured
    high: Measured
    """95 % interval of the second."""
    n_heads: int
    """Components of the group."""


NULLS = {
    "denoise": "values of random tokens",
    "noise": "changes of the same size in random directions",
}
"""The null of each direction, in words."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Effect of one patch, as a fraction of the metric's gap: 0 is no change, 1 the whole gap."""

    layer: int
    head: int | None
    """None where whole vectors are patched."""
    position: int | None
    """None where all positions are patched at once."""
    token: str | None
    """Text at the position, of the first clean prompt."""
    effect: float
    stderr: Measured
    """Standard error over prompts; NaN for a single prompt."""

    @property
    def where(self) -> str:
        """Head or layer, and position: `L1H0, position 8 ' Paris'`."""
        part = f"layer {self.layer}" if self.head is None else f"L{self.layer}H{self.head}"
        return part if self.position is None else f"{part}, position {self.position} {self.token!r}"

    def record(self) -> Record:
        """Return the columns that this kind of patch has; None for what was not measured."""
        absent = {name for name in ("head", "position", "token") if getattr(self, name) is None}
        values = {name: value for name, value in columns_of(self).items() if name not in absent}
        return {name: None if value != value else value for name, value in values.items()}


P = TypeVar("P", bound=Patch)


def strongest(rows: Iterable[P], n: int) -> list[P]:
    """Return the `n` patches with the largest effects by absolute value, largest first."""
    return sorted(rows, key=lambda row: -abs(row.effect))[:n]


@dataclass(frozen=True, kw_only=True)
class JudgedPatch(Patch):
    """A patch next to the effects of the same patch in every null map."""

    null: float
    """Mean null effect."""
    null_low: float
    null_high: float
    """Smallest and largest null effect."""
    beyond: bool
    """The effect exceeds every null effect of all patches in absolute value."""


@dataclass(frozen=True, kw_only=True)
class PatchingSettings(PatchingConfig):
    """Settings that determine a map of patches; `by_position` is decided."""

    model: str
    weight_hash: str
    task: TaskSettings


@dataclass(frozen=True, kw_only=True)
class PromptPair:
    """Tokens of a clean prompt and of its corrupt version, as text."""

    clean: tuple[str, ...]
    corrupt: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PatchingMap(Artefact, kind="patching", title="Patching map", made_by="patch"):
    """Effects of single patches, each with its null distribution."""

    settings: PatchingSettings
    heads: HeadKind | None
    """Heads that the rows count; None where whole vectors are patched."""
    group_size: int
    """Query heads per key-value head, where those are counted."""
    clean_metric: float
    corrupt_metric: float
    prompts: Annotated[PromptPair, Document("prompts.json")]
    """The first pair."""
    patches: Table[JudgedPatch]

    @cached_property
    def rows(self) -> list[JudgedPatch]:
        """All patches in memory, by layer, head and position."""
        return self.patches.rows()

    @property
    def threshold(self) -> float:
        """Largest absolute value of any null effect."""
        return max(max(abs(row.null_low), abs(row.null_high)) for row in self.rows)

    @property
    def n_beyond(self) -> int:
        """Number of patches with a larger effect than any null effect."""
        return sum(row.beyond for row in self.rows)

    @property
    def level(self) -> float:
        """Upper bound on the probability that a map without true effects shows a discovery: `1 / (draws + 1)`."""
        return 1 / (self.settings.draws + 1)

    @property
    def null(self) -> str:
        """The null, in words."""
        return NULLS[self.settings.direction]

    def strongest(self, n: int = 8) -> list[JudgedPatch]:
        """Return the patches with the largest effects by absolute value, largest first."""
        return strongest(self.rows, n)

    def to_records(self) -> list[Record]:
        """Return one row per patch: its axes, `effect`, `stderr`, `null`, `null_low`, `null_high`, `beyond`."""
        return [row.record() for row in self.rows]

    def shown(self) -> list[Record]:
        """Return the patches with the largest effects."""
        return [row.record() for row in self.strongest(ROWS)]

    def headline(self) -> str:
        """Return one line: the patch, the metric on both prompts, and the patches beyond their null."""
        s = self.settings
        between = "two prompts" if s.task.name == "pair" else f"the prompts of {s.task.name}"
        return (
            f"Activation patching of {s.what} ({s.direction}) in {s.model or 'a model'} between {between}; "
            f"{s.task.metric}: clean {self.clean_metric:.3g}, corrupt {self.corrupt_metric:.3g}; {self.n_beyond} of "
            f"{len(self.rows)} patches beyond their null"
        )

    def facts(self) -> list[tuple[str, str]]:
        """Return the number of discoveries, the direction and the largest null effect."""
        return [
            ("beyond the null", f"{self.n_beyond:,} of {len(self.rows):,}"),
            ("direction", self.settings.direction),
            ("largest null effect", f"{self.threshold:.3g}"),
        ]

    def details(self) -> list[str]:
        """Return a short table: the largest effects, each with its null, and the rule by which one counts as found."""
        width, draws = 34, self.settings.draws
        lines = [f"{'':{width}}  effect    null (smallest to largest)"]
        for row in self.strongest():
            mark = "  beyond the null" if row.beyond else ""
            null = f"{row.null:+.3f} ({row.null_low:+.3f} to {row.null_high:+.3f})"
            lines.append(f"{row.where[:width]:{width}}  {row.effect:+.3f}   {null}{mark}")
        return [
            *lines,
            f"null: {self.null}, {draws} map{'s' * (draws > 1)}, largest effect {self.threshold:.3g}; "
            f"a false discovery anywhere in a map has a chance of at most 1 in {draws + 1}",
        ]
