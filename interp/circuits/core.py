"""The core of a circuit as an artefact: what all circuits that do a task equally well share, and what is exchangeable.

`interp.circuits.find_core` searches them. Torch-free.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from interp.artifacts import Artefact, DocumentField, Measured, Table
from interp.circuits.config import Ablation, By, Method
from interp.circuits.found_circuit import EdgeCircuit, FoundCircuit, UntrainedGap
from interp.circuits.worst_case import WorstCase
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.nulls import DRAWS
from interp.options import BASIC, Seed, check_least
from interp.patching.patching_map import TaskSettings
from interp.results import ROWS, Record, columns_of
from interp.statistics import Interval

if TYPE_CHECKING:
    from interp.workspace import Workspace

OWN = "circuit find"
"""Origin of the circuit whose core is asked for."""


@dataclass(frozen=True, kw_only=True)
class CoreConfig:
    """Settings of the search for the core of a circuit."""

    circuits: Annotated[int, BASIC] = 20
    """Searches, each with prompts of its own; methods, templates of the task and thresholds take turns."""
    prompts: int = 8
    """Prompt pairs on which each search scores edges."""
    judging: int = 8
    """Prompt pairs, the same for all searches, on which sizes are chosen. As many others admit equally good circuits,
    and as many again state their numbers."""
    methods: tuple[Method, ...] = ("eap-ig", "eap")
    """Scores of edges, in turn."""
    thresholds: tuple[float, ...] = (0.8, 0.85, 0.9)
    """Faithfulness that decides the size of a circuit, in turn."""
    within: float = 0.1
    """A circuit is equally good where it is at most this much less faithful than the lowest threshold, on the prompts
    that admit."""
    exchanges: int = 4
    """Nodes of each circuit that are taken out and, where missed, replaced by the next edges of the ranking."""
    n_random: int = DRAWS["thorough"]
    """Draws of the null: circuits of the same nodes wired at random, with as many edges into each input."""
    batch_size: int = 16
    """Prompts per forward pass."""
    seed: Seed = 0
    """Draws prompts, nodes and nulls."""

    def __post_init__(self) -> None:
        check_least(self, {"circuits": 2, "prompts": 2, "judging": 2, "exchanges": 0, "n_random": 1, "batch_size": 1})
        if not self.methods or not self.thresholds or not all(0 < each <= 1 for each in self.thresholds):
            raise ConfigError("a core needs at least one method, and thresholds above 0 and at most 1")
        if not 0 <= self.within < min(self.thresholds):
            raise ConfigError(f"within must be at least 0 and below the lowest threshold, got {self.within:g}")


@dataclass(frozen=True, kw_only=True)
class CoreSettings(CoreConfig):
    """Settings that determine a core."""

    model: str
    weight_hash: str
    circuit: str
    n_edges_of_graph: int
    ablation: Ablation
    by: By
    task: TaskSettings
    """Prompts on which sizes are chosen."""


@dataclass(frozen=True, kw_only=True)
class CircuitOfCore:
    """One of the circuits that were compared, judged on prompts that neither chose nor admitted it."""

    number: int
    origin: str
    """Method and prompts, the circuit that it avoids, or `circuit find`."""
    threshold: Measured
    """Faithfulness at which its size was chosen; missing for that of `circuit find`."""
    n_edges: int
    faithfulness: float
    low: float
    high: float
    """Its 95 % interval over prompts."""
    equally_good: bool


@dataclass(frozen=True, kw_only=True)
class ReturningEdge:
    """An edge of at least one equally good circuit, with the share of circuits in which it returns."""

    source: str
    target: str
    via: str | None
    position: int | None
    n_circuits: int
    share: float
    low: float
    high: float
    """95 % interval over circuits."""
    first: bool
    second: bool
    """True where it is in the first, in the second of the two circuits that share least."""

    @property
    def key(self) -> tuple[str, str, str | None, int | None]:
        return self.source, self.target, self.via, self.position


@dataclass(frozen=True, kw_only=True)
class Substitute:
    """Edges that a circuit misses when they are taken out, and others that do as well; on prompts that chose sizes."""

    circuit: int
    out: str
    """Nodes whose edges are taken out, largest number of edges first."""
    instead: str
    """Nodes whose edges come in."""
    n_out: int
    n_instead: int
    before: float
    without: float
    after: float
    """Faithfulness of the circuit, without these edges, and with the others instead."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two equally good circuits that share the smallest part of the smaller one; None where all are the same."""

    first: int
    second: int
    shared: int
    only_first: int
    only_second: int
    """Edges in both, and in one alone."""
    shared_faithfulness: float
    """Faithfulness of the shared edges alone."""


@dataclass(frozen=True, kw_only=True)
class ChanceCore:
    """Edges that random circuits share: the nodes of each equally good circuit, wired at random.

    Each has as many edges into each input, from sources drawn in proportion to the circuit's edges out of them.
    """

    n: int
    mean: float
    most: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Core(Artefact, kind="core", title="Core of a circuit", made_by="circuit core"):
    """Edges that are in all equally good circuits of a task, and those that can replace each other."""

    settings: CoreSettings
    circuits: Table[CircuitOfCore]
    edges: Table[ReturningEdge]
    substitutes: Table[Substitute]
    n_good: int
    """Equally good circuits."""
    core_edges: int
    """Edges in all of them; 0 with fewer than two."""
    chance: ChanceCore | None
    """Null of the number of core edges; None with fewer than two equally good circuits."""
    core_alone: float
    """Faithfulness of the core alone."""
    core_removed: float
    """Faithfulness of all edges but the core."""
    over_circuits: Interval[float] | None
    """Mean faithfulness of the equally good circuits, on prompts that admitted none; its 95 % range over circuits."""
    over_prompts: Interval[float] | None
    """The same, with its 95 % interval over prompts."""
    pair: Pair | None
    untrained: UntrainedGap
    null: Annotated[str | None, DocumentField("null.json")]
    """Circuits of the null, in words; None in cores from before they kept the nodes of each circuit."""

    @cached_property
    def good(self) -> list[CircuitOfCore]:
        """Equally good circuits."""
        return self.circuits.rows("equally_good", order="number")

    @cached_property
    def shares(self) -> dict[tuple[str, str, str | None, int | None], float]:
        """Share of equally good circuits in which an edge returns, by source, target, input and position."""
        columns = self.edges.query("select source, target, via, position, share from t").to_pydict()
        *keys, shares = columns.values()
        return dict(zip(zip(*keys, strict=True), shares, strict=True))

    def share(self, key: tuple[str, str, str | None, int | None]) -> float:
        """Return the share of equally good circuits in which an edge returns; 0 where it is in none."""
        return self.shares.get(key, 0.0)

    @property
    def holds(self) -> bool:
        """True where there are more core edges than by chance, and an untrained model lacks the behaviour."""
        return self.chance is not None and self.core_edges > self.chance.most and self.untrained.learned

    @property
    def sizes(self) -> tuple[int, int]:
        """Smallest and largest number of edges of the equally good circuits."""
        sizes = [circuit.n_edges for circuit in self.good]
        return min(sizes, default=0), max(sizes, default=0)

    @property
    def null_said(self) -> str:
        """Circuits of the null, in words."""
        return self.null or "random edges, as many into each input"

    @property
    def said(self) -> str:
        """The core beside chance, as a part of a sentence."""
        if self.chance is None:
            return f"{self.n_good} of {len(self.circuits)} circuits is equally good, so no core"
        return f"{self.core_edges:,} are in all {self.n_good} circuits (by chance {self.chance.most:,})"

    def headline(self) -> str:
        """Return one line: the core, and the sizes of the circuits that share it."""
        name, (low, high) = f"{short_name(self.settings.model)}, {self.settings.task.name}", self.sizes
        if self.chance is None:
            return f"{name}: {self.said}"
        circuits = f"{self.n_good} circuits of {low:,} to {high:,} edges"
        return f"{name}: {self.core_edges:,} edges are in all {circuits}; by chance at most {self.chance.most:,}"

    def facts(self) -> list[tuple[str, str]]:
        """Return the core alone, what is left without it, and both intervals."""
        facts = [
            ("substitutes", f"{len(self.substitutes):,}"),
            ("gap of an untrained model", f"{self.untrained.gap:.2g} (of the model {self.untrained.gap_of_model:.2g})"),
        ]
        if self.core_edges:
            facts.append(("core alone", f"{self.core_alone:.2f}"))
            facts.append(("all edges but the core", f"{self.core_removed:.2f}"))
        for name, interval in (("circuits", self.over_circuits), ("prompts", self.over_prompts)):
            if interval is not None:
                text = f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
                facts.append((f"faithfulness over {name}", text))
        return facts

    def details(self) -> list[str]:
        """Return the two circuits that share least, the substitutes that were missed most, and circuits left out."""
        lines = []
        if (p := self.pair) is not None:
            lines.append(
                f"circuits {p.first} and {p.second} are equally good and share {p.shared:,} edges, which alone reach "
                f"{p.shared_faithfulness:.2f}; {p.only_first:,} and {p.only_second:,} are in one alone"
            )
        lines += [
            f"circuit {s.circuit}, {s.before:.2f}: without {s.out} ({s.n_out} edges) {s.without:.2f}, "
            f"with {s.instead} ({s.n_instead}) instead {s.after:.2f}"
            for s in self.substitutes.rows(order="before - without desc", limit=6)
        ]
        left = len(self.circuits) - self.n_good
        lines += [f"by chance: {self.null_said}"] if self.chance is not None else []
        return [*lines, f"{left} of {len(self.circuits)} circuits are less good on other prompts"] if left else lines

    def to_records(self) -> list[Record]:
        """Return one row per circuit."""
        return [columns_of(row) for row in self.circuits.rows(order="number")]

    def shown(self) -> list[Record]:
        """Return the circuits."""
        return self.to_records()[:ROWS]


def cores_of(workspace: "Workspace", key: str) -> list[Core]:
    """Return the cores that were searched from a circuit in a workspace, newest first."""
    return [core for core in workspace.values(Core) if key in core.about.parents]


def names_of(counts: dict[str, int]) -> str:
    """Return nodes by their number of edges, the first four."""
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _worst(attack: WorstCase) -> str:
    """Return the worst case as a part of a sentence, with what the attack covered where that is not all."""
    left = attack.worst.left
    kept = "below 0%" if left < 0 else f"{left:.0%}"
    return f"{kept} in the worst " + ("case" if attack.complete else f"of {attack.tried:,} tries")


def three_numbers(circuit: FoundCircuit, attacks: list[WorstCase], cores: list[Core]) -> str | None:
    """Return mean, worst case and core of a task's circuit in one sentence; None for other kinds of circuit.

    Of its attacks and cores the first is said.
    """
    if not isinstance(circuit, EdgeCircuit):
        return None
    e, own = circuit.evaluation, circuit.attacked
    null = "" if e.random_circuits is None else f" (random {e.random_circuits.high:.0%})"
    parts = [
        f"{e.n_edges:,} edges keep {e.faithfulness.estimate:.0%}{null}",
        _worst(attacks[0]) if attacks else f"{own.left:.0%} under attack" if own else "worst case not measured",
        cores[0].said if cores else "one run",
    ]
    name = f"{circuit.verdict.word}{short_name(circuit.settings.model)}, {circuit.settings.task.name}"
    return f"{name}: {'; '.join(parts)}"
