"""Effects of interventions as rows of tables; a map of activation patches as an artefact, and its settings. Torch-free.

`interp.patching.activation` measures a map and says what its null is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, TypeVar

from interp.artifacts import Artefact, DocumentField, Measured, Table
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.nulls import BEYOND, PER_PART, NullKind, smallest_p
from interp.options import BASIC, ChoiceWords, FieldLabel, check_least
from interp.results import ROWS, Record, columns_of
from interp.view import Facts, Rows, View

What = Literal["resid_pre", "resid_post", "attn_out", "mlp_out", "heads", "z", "q", "k", "v", "pattern"]
WHOLE: tuple[What, ...] = ("resid_pre", "resid_post", "attn_out", "mlp_out")
"""Values that are whole vectors; the others belong to single heads."""
Direction = Literal["denoise", "noise"]
PATCHED = ChoiceWords(
    resid_pre="residual stream before each block",
    resid_post="residual stream after each block",
    attn_out="attention outputs",
    mlp_out="MLP outputs",
    z="outputs of single heads",
    q="queries of single heads",
    k="keys of single heads",
    v="values of single heads",
    pattern="attention patterns of single heads",
)
DIRECTIONS = ChoiceWords(denoise="denoise: clean into corrupt", noise="noise: corrupt into clean")
HeadKind = Literal["query", "key-value"]
"""Heads that a patch counts: under grouped-query attention, k and v belong to a group of query heads."""
MetricName = Literal["logit-diff", "prob-diff", "log-prob", "kl", "l2"]
"""Names of `metrics.METRICS`."""
METRIC_OF: dict[str, MetricName] = {
    "logit difference": "logit-diff",
    "logit above the mean": "logit-diff",
    "probability difference": "prob-diff",
    "log-probability": "log-prob",
    "minus KL to clean (nats)": "kl",
    "minus squared distance to clean": "l2",
}
"""Name of a metric by the words in the settings of a task."""
Origin = dict[str, str | int | bool | None]
"""Origin of the prompts of a task: a seed, a file, the texts of a pair."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings that determine the numbers of a task."""

    name: str
    metric: str
    n_prompts: int
    origin: Origin

    @property
    def chat(self) -> bool:
        """True where the prompts are messages in the chat template of the model."""
        return self.origin.get("chat") is True


@dataclass(frozen=True, kw_only=True)
class PatchChoice:
    """The patches of a map."""

    what: Annotated[What, BASIC, FieldLabel("Value that is patched"), PATCHED] = "resid_pre"
    """The value that is replaced: the residual stream before or after a block, the output of attention or the MLP, or
    per head its output z (also called heads), its inputs q, k, v, or its attention pattern."""
    direction: Annotated[Direction, BASIC, FieldLabel("Direction"), DIRECTIONS] = "denoise"
    """denoise: restore clean values in the corrupt run, which tests sufficiency; noise: put corrupt values into the
    clean run, which tests necessity."""
    by_position: bool | None = None
    """Patch each position by itself. Default: yes for one pair of prompts, no for a task."""
    batch_size: int = 32
    """Sequences per forward pass."""

    def __post_init__(self) -> None:
        check_least(self, {"batch_size": 1})


@dataclass(frozen=True, kw_only=True)
class PatchingConfig(PatchChoice):
    """Settings of a map of activation patches."""

    draws: int = PER_PART
    """Number of null maps. A map without true effects shows a discovery with probability at most 1 / (draws + 1). Each
    null map costs as much as the map itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ConfigError(f"draws must be at least 1, got {self.draws}: every effect is compared with a null")


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


NULL_OF: dict[Direction, NullKind] = {"denoise": "values of random tokens", "noise": "random changes of the same size"}
"""The null of each direction."""


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
    prompts: Annotated[PromptPair, DocumentField("prompts.json")]
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
        return smallest_p(self.settings.draws)

    @property
    def null(self) -> NullKind:
        """The null of the direction."""
        return NULL_OF[self.settings.direction]

    def strongest(self, n: int = 8) -> list[JudgedPatch]:
        """Return the patches with the largest effects by absolute value, largest first."""
        return strongest(self.rows, n)

    def to_records(self) -> list[Record]:
        """Return one row per patch: its axes, `effect`, `stderr`, `null`, `null_low`, `null_high`, `beyond`."""
        return [row.record() for row in self.rows]

    def view(self) -> View:
        s, beyond = self.settings, f"{self.n_beyond} of {len(self.rows)} patches {BEYOND}"
        between = "two prompts" if s.task.name == "pair" else f"prompts of {s.task.name}"
        yield f"Patching {s.what} in {short_name(s.model) or 'a model'} between {between}: {beyond}"
        yield Facts(
            (BEYOND, f"{self.n_beyond:,} of {len(self.rows):,}"),
            ("direction", self.settings.direction),
            (self.settings.task.metric, f"clean {self.clean_metric:.3g}, corrupt {self.corrupt_metric:.3g}"),
            ("largest null effect", f"{self.threshold:.3g}"),
        )
        width, draws = 34, self.settings.draws
        yield f"{'':{width}}  effect    null (smallest to largest)"
        for row in self.strongest():
            mark = f"  {BEYOND}" if row.beyond else ""
            null = f"{row.null:+.3f} ({row.null_low:+.3f} to {row.null_high:+.3f})"
            yield f"{row.where[:width]:{width}}  {row.effect:+.3f}   {null}{mark}"
        yield (
            f"null: {self.null}, {draws} map{'s' * (draws > 1)}, largest effect {self.threshold:.3g}; "
            f"a false discovery anywhere in a map has a chance of at most 1 in {draws + 1}"
        )
        yield Rows(lambda: [row.record() for row in self.strongest(ROWS)])
