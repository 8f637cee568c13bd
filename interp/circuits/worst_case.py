"""The worst case of a circuit as an artefact: what is left of its faithfulness when an adversary chooses the ablation.

`interp.circuits.attack` measures it. Torch-free.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from interp.artifacts import Artefact, DocumentField, Measured, Table
from interp.circuits.circuit import Circuit
from interp.circuits.config import Ablation
from interp.circuits.found_circuit import EdgeCircuit, FoundCircuit
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.nulls import DRAWS
from interp.options import BASIC, check_least, check_positive
from interp.patching.patching_map import TaskSettings
from interp.results import ROWS, Record, columns_of
from interp.view import Facts, Finding, Rows, View

if TYPE_CHECKING:
    from interp.workspace import Workspace

EVERYTHING, HALF, HURTERS, HELPERS, CHOSEN = (
    "all other edges",
    "a random half",
    "the hurters",
    "all helpers",
    "the adversary's choice",
)
ATTACKS = (EVERYTHING, HELPERS, CHOSEN)
RANDOM_EDGES, RANDOM_CIRCUITS = "as many random edges", "random circuits, their helpers"
"""Null of the attack, and of the circuit."""
STANDS = 0.5
"""Share of its mean faithfulness that a circuit keeps to stand."""


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """Settings of the attack of a circuit."""

    prompts: Annotated[int, BASIC] = 16
    """Prompt pairs on which the attack is chosen; as many others judge it."""
    ablations: tuple[Ablation, ...] = ("resample", "other", "mean")
    """Values that replace edges. The worst of them counts, beside all other edges replaced by the first."""
    exchanges: int = 16
    """Inputs whose outside edges alone are replaced, as starts of the attack. Also nodes whose edges are then replaced
    or put back as a whole, one after another, where that leaves less of the answer."""
    gradient_steps: int = 4
    """Steps of the second adversary, which follows the gradient of the metric by how far each edge is replaced."""
    strengths: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
    """Fractions of the helpers that are replaced together, strongest first."""
    budget: int | None = None
    """Sets of edges that the adversary measures at most with each ablation. An attack that ends early says so."""
    n_random: int = DRAWS["quick"]
    """Draws of each null."""
    fractions: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    """Sizes of circuits, as fractions of all edges, each with helpers replaced by their scores alone."""
    faithfulness: float = 0.8
    """Faithfulness from which a size is large enough."""
    grow: int = 0
    """Rounds that search a circuit that stands: edges that the adversary replaces are added, half as many as it has."""
    batch_size: int = 16
    """Prompts per forward pass."""
    seed: int = 0
    """Draws prompts and nulls."""

    def __post_init__(self) -> None:
        check_least(
            self, {"prompts": 2, "exchanges": 0, "gradient_steps": 0, "grow": 0, "n_random": 1, "batch_size": 1}
        )
        check_positive(self, "faithfulness")
        if self.budget is not None:
            check_least(self, {"budget": 1})
        if not self.ablations:
            raise ConfigError("an adversary needs an ablation: resample, other, mean or zero")
        for fractions in (self.fractions, self.strengths):
            if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
                raise ConfigError(f"fractions of edges lie above 0 and are at most 1, got {fractions}")


@dataclass(frozen=True, kw_only=True)
class AttackSettings(AttackConfig):
    """Settings that determine an attack."""

    model: str
    weight_hash: str
    circuit: str
    n_edges: int
    n_edges_of_graph: int
    task: TaskSettings


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Faithfulness left when some edges outside the circuit are replaced, on prompts that did not choose them."""

    ablation: str
    wording: str
    """Paraphrase of the prompts that judge, such as `template 1`; empty: the task's own prompts."""
    what: str
    """Edges that are replaced; for the nulls, the mean over draws."""
    n_removed: int
    left: float
    """1 is the whole model, 0 everything replaced; beyond both is possible."""
    low: float
    high: float
    """Ends of the 95 % interval over prompts; of a null the range of its draws."""
    lost: Measured
    """Of prompts with a gap, the share on which less than half of it is left; not measured for nulls."""


@dataclass(frozen=True, kw_only=True)
class Strength:
    """Faithfulness left when the strongest helpers are replaced, on prompts that did not choose them."""

    ablation: str
    n_removed: int
    left: float


@dataclass(frozen=True, kw_only=True)
class StandingSize:
    """Faithfulness of the circuit of the highest-ranked edges, at one size."""

    n_edges: int
    mean: float
    """With all other edges replaced."""
    worst: float
    """With the helpers among them replaced, all or the strongest quarter, whichever leaves less."""


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A circuit of the search for one that stands, on prompts that did not choose its edges."""

    n_edges: int
    mean: float
    """Faithfulness with all other edges replaced."""
    worst: float
    """With those edges replaced that the adversary chose against this circuit."""
    low: float
    high: float
    """Ends of the 95 % interval of the worst case over prompts."""
    ranked: float
    """Baseline: the worst case of the circuit of as many highest-ranked edges, attacked in the same way."""


@dataclass(frozen=True, kw_only=True)
class WorstCase(Artefact, kind="worst_case", title="Worst case of a circuit", made_by="circuit attack"):
    """Faithfulness of a circuit under an adversary's ablation of edges outside it."""

    settings: AttackSettings
    tried: int
    """Sets of edges among which the adversary chose."""
    complete: bool
    """False where the budget ended before the adversary had tried all that it knows, or where the settings leave out
    the gradient or the exchanges."""
    attacks: Table[Attack]
    strength: Table[Strength]
    sizes: Table[StandingSize]
    grown: tuple[Grown, ...] = ()
    """Circuits of the search for one that stands, smallest first."""
    standing: Annotated[Circuit | None, DocumentField("standing.json")] = field(default_factory=lambda: None)
    """The last of them, where the adversary leaves enough of it."""

    @cached_property
    def rows(self) -> list[Attack]:
        """All attacks in memory."""
        return self.attacks.rows()

    def of(self, what: str) -> Attack:
        """Return the attack of a name that leaves least, over ablations."""
        return min((row for row in self.rows if row.what == what), key=lambda row: row.left)

    @property
    def mean(self) -> Attack:
        """Faithfulness as everybody reports it: all other edges replaced, with the first ablation."""
        first = self.settings.ablations[0]
        return next(row for row in self.rows if (row.what, row.ablation, row.wording) == (EVERYTHING, first, ""))

    @property
    def worst(self) -> Attack:
        """The strongest attack found."""
        return min((self.of(what) for what in ATTACKS), key=lambda row: row.left)

    @property
    def wordings(self) -> list[str]:
        """Paraphrases on which the circuit was judged."""
        return [*dict.fromkeys(row.wording for row in self.rows if row.wording)]

    @property
    def null(self) -> float:
        """The most that is left of a random circuit without its helpers, with any ablation and wording."""
        return max(row.high for row in self.rows if row.what == RANDOM_CIRCUITS)

    @property
    def stands(self) -> bool:
        """True where a whole attack failed: every low end is good enough, and every draw of random edges."""
        return self.complete and self._enough(min(row.low for row in self.rows if row.what in (*ATTACKS, RANDOM_EDGES)))

    @property
    def breaks(self) -> bool:
        """True where the strongest attack leaves too little; neither stands nor breaks is undecided."""
        return not self._enough(self.worst.left)

    def _enough(self, left: float) -> bool:
        """Return whether it is at least half of the mean faithfulness, and above random circuits without helpers."""
        return self.mean.left > 0 and left >= STANDS * self.mean.left and left > self.null

    def smallest(self, column: str) -> int | None:
        """Return the edges of the smallest circuit whose `mean` or `worst` reaches the faithfulness; None for none."""
        enough = [row.n_edges for row in self.sizes.rows() if getattr(row, column) >= self.settings.faithfulness]
        return min(enough, default=None)

    @property
    def searched(self) -> str:
        """Result of the search for a circuit that stands, in words."""
        last = self.grown[-1]
        size = f"{last.n_edges:,}" if self.standing else f"more than {last.n_edges:,}"
        return f"{size} ({last.worst:.2f} left on other prompts; the highest-ranked as many: {last.ranked:.2f})"

    def view(self) -> View:
        s = self.settings
        word = "stands" if self.stands else "breaks" if self.breaks else f"is undecided after {self.tried:,} tries"
        yield (
            f"{short_name(s.model)}, {s.task.name}: the circuit of {s.n_edges:,} edges {word}: faithfulness "
            f"{self.mean.left:.2f} with all other edges replaced, {self.worst.left:.2f} in the worst case"
        )
        wanted = f"edges for {self.settings.faithfulness:g}"
        sizes = {"all others replaced": self.smallest("mean"), "helpers replaced": self.smallest("worst")}
        yield Facts(
            ("mean", f"{self.mean.left:.2f}"),
            ("worst case", f"{self.worst.left:.2f} [{self.worst.low:.2f}, {self.worst.high:.2f}]"),
            ("replaced there", f"{self.worst.what} ({self.worst.n_removed:,}), {_where(self.worst)}"),
            ("wordings", ", ".join(["the task's own", *self.wordings])),
            *((f"{wanted}, {what}", f"{n:,}" if n else "none measured") for what, n in sizes.items()),
            *([("edges until the attack fails", self.searched)] if self.grown else []),
            ("prompts lost there", f"{self.worst.lost:.0%}"),
            ("sets tried", f"{self.tried:,}" + ("" if self.complete else ", not all that the adversary knows")),
        )
        yield from [
            f"{_where(row)}, {row.what} ({row.n_removed:,}): {row.left:.2f} [{row.low:.2f}, {row.high:.2f}]"
            for row in self.rows
        ]
        yield Rows(lambda: self.to_records()[:ROWS])
        if not self.stands:
            return
        yield Finding(
            kind="worst case",
            title="A circuit that stands",
            sentence=f"Circuit {self.settings.circuit} keeps {self.worst.left:.0%} under the worst ablation found",
            value=self.worst.left,
            null=self.null,
            about=f"faithfulness left; null: the best of {RANDOM_CIRCUITS}",
            proof="See every attack",
        )

    def to_records(self) -> list[Record]:
        """Return one row per attack."""
        return [columns_of(row) for row in self.rows]


def _where(row: Attack) -> str:
    return f"{row.ablation}, {row.wording}" if row.wording else row.ablation


def attacks_of(workspace: "Workspace", key: str) -> list[WorstCase]:
    """Return the attacks of a circuit in a workspace, strongest first: each gives an upper bound."""
    attacks = [attack for attack in workspace.values(WorstCase) if key in attack.about.parents]
    return sorted(attacks, key=lambda attack: attack.worst.left)


def _worst(attack: WorstCase) -> str:
    """Return the worst case as a part of a sentence, with what the attack covered where that is not all."""
    left = attack.worst.left
    kept = "below 0%" if left < 0 else f"{left:.0%}"
    return f"{kept} in the worst " + ("case" if attack.complete else f"of {attack.tried:,} tries")


def mean_and_worst(circuit: FoundCircuit, attacks: list[WorstCase]) -> str | None:
    """Return mean and worst case of a task's circuit in one sentence; None for other kinds of circuit.

    Of its attacks the first is said.
    """
    if not isinstance(circuit, EdgeCircuit):
        return None
    e, attack = circuit.evaluation, circuit.attacked
    null = "" if e.random_circuits is None else f" (random {e.random_circuits.high:.0%})"
    worst = (
        _worst(attacks[0]) if attacks else f"{attack.left:.0%} under attack" if attack else "worst case not measured"
    )
    name = f"{circuit.verdict.word}{short_name(circuit.settings.model)}, {circuit.settings.task.name}"
    return f"{name}: {e.n_edges:,} edges keep {e.faithfulness.estimate:.0%}{null}; {worst}"
