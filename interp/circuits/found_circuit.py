"""A circuit that was found, as an artefact: what both kinds of circuit share. Torch-free.

`InductionCircuit` and `EdgeCircuit` are the kinds. `EdgeCircuit`, the circuit of a task in heads and MLPs, stands here;
`interp.circuits.find` finds and evaluates it.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from math import nan
from typing import TYPE_CHECKING, Annotated

import numpy as np
from jaxtyping import Float32

from interp.artifacts import ARRAY, Artefact, DocumentField, Measured, Table, kinds_of
from interp.circuits.circuit import FILE, Circuit, edge_text
from interp.circuits.config import Ablation, FindConfig, Level
from interp.claims import Outcome, OwnText, StatedNumber
from interp.models.short_name import short_name
from interp.names import parse_node
from interp.patching.patching_map import METRIC_OF, PromptPair, TaskSettings
from interp.results import Record, Result, columns_of, flat
from interp.statistics import Interval
from interp.view import Facts, Rows, View

if TYPE_CHECKING:
    from interp.workspace import Workspace


LEARNED = 0.1
"""The gap of an untrained model must be below this fraction of the trained model's."""


@dataclass(frozen=True, kw_only=True)
class CircuitSettings:
    """Settings that every kind of circuit has."""

    model: str
    weight_hash: str
    frozen: str | None
    """Part of a model with post-norms that all runs hold at its clean value; None for nothing."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of a stated rule; None without the nulls that it needs."""

    holds: bool | None
    rule: str
    reason: str

    @property
    def word(self) -> str:
        """`Not found: ` where the rule does not hold, else nothing."""
        return "Not found: " if self.holds is False else ""

    @property
    def line(self) -> str:
        """The numbers behind the verdict, in one line."""
        return {True: "found: ", False: "not found: ", None: ""}[self.holds] + self.reason


@dataclass(frozen=True, kw_only=True)
class RandomCircuits:
    """Faithfulness of random circuits of the same size: number, mean, 95 % range, and p of the circuit against it."""

    n: int
    mean: float
    low: Measured
    high: Measured
    p: float


@dataclass(frozen=True, kw_only=True)
class UntrainedGap:
    """The task's gap in an untrained model, next to that of the model."""

    gap: float
    gap_error: float
    gap_of_model: float

    @property
    def learned(self) -> bool:
        """True where this gap is below a tenth of the trained model's."""
        return abs(self.gap) < LEARNED * self.gap_of_model


@dataclass(frozen=True, kw_only=True)
class ScoredEdge:
    """Score of one edge of the whole graph."""

    source: str
    target: str
    via: str | None
    position: int | None
    score: float
    exact: float | None
    """Effect by patching that edge alone; None where it was not patched."""
    low: float | None
    high: float | None
    """Bootstrap interval of the score over prompts."""


@dataclass(frozen=True, kw_only=True)
class ScoredNode:
    """Score of all that one node writes."""

    node: str
    position: int | None
    score: float
    exact: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class FaithfulnessPoint:
    """Faithfulness of the circuit of the highest-ranked edges, at one size."""

    fraction: float
    """Of all edges."""
    n_edges: int
    """After pruning."""
    faithfulness: float
    """Ranked by absolute score."""
    signed: Measured
    """Ranked by signed score."""
    random: Measured
    random_low: Measured
    random_high: Measured
    """Mean and range of random circuits of this size."""


@dataclass(frozen=True, kw_only=True)
class TaskPrompt(PromptPair):
    """A prompt pair with its answers, where the metric has some."""

    correct: tuple[str, ...] | None = None
    wrong: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class FoundCircuit(Artefact, ABC):
    """A circuit with its verdict, the scores that it was cut from, and the prompts that found it."""

    settings: CircuitSettings
    circuit: Annotated[Circuit, DocumentField(FILE)]
    verdict: Verdict
    prompts: Annotated[tuple[TaskPrompt, ...], DocumentField("prompts.json")]
    """The first few."""
    edge_scores: Table[ScoredEdge] | None = field(default_factory=lambda: None)
    """Every scored edge of the graph, strongest first; None where no edges were ranked."""
    node_scores: Table[ScoredNode] | None = field(default_factory=lambda: None)
    """Every scored node, strongest first."""
    curve: Table[FaithfulnessPoint] | None = field(default_factory=lambda: None)
    """Faithfulness over the size of the circuit."""
    pattern_heads: tuple[str, ...] = ()
    """Heads whose attention on the first prompt is stored."""
    patterns: Annotated[Float32[np.ndarray, "n_heads dest src"] | None, ARRAY] = field(default_factory=lambda: None)
    group_size: int = 1
    """Query heads that share one key and value: an edge into the first is an edge into all of them."""

    @property
    def unit(self) -> str:
        """Unit of the score of an edge, in words."""
        return "estimated effect on the metric"

    @property
    def size(self) -> int:
        """Number of highest-ranked edges that the circuit was cut from: those on no path were left out of it."""
        return len(self.circuit.edges)

    def pattern(self, head: str) -> np.ndarray | None:
        """Return the attention `[dest, src]` of a head on the first prompt; None where it was not stored."""
        if self.patterns is None or head not in self.pattern_heads:
            return None
        return self.patterns[self.pattern_heads.index(head)]

    @abstractmethod
    def nulls(self) -> Record:
        """Return the nulls and controls of the circuit, by name."""

    def measures(self) -> list[tuple[str, float]]:
        """Return the scores of the whole circuit, as (name, value)."""
        return []

    def tables(self) -> dict[str, list[Record]]:
        """Return further measurements with one row each, by name."""
        return {}

    def numbers(self) -> Record:
        """Return all other numbers of the evaluation, by name."""
        return {}

    def to_records(self) -> list[Record]:
        """Return one row per edge of the circuit: `source, target, via, position, score`."""
        return self.circuit.to_records()


def open_circuit(workspace: "Workspace", name: str) -> FoundCircuit:
    """Return a circuit of any kind, by its name or key. Raises `UnknownNameError` with the nearest names."""
    circuit = workspace.value(workspace.find(name, *kinds_of("circuit")))
    assert isinstance(circuit, FoundCircuit)
    return circuit


@dataclass(frozen=True, kw_only=True)
class CircuitEvaluationSettings:
    """Settings that an evaluation depends on: edges outside the circuit are replaced in the clean run.

    Faithfulness is a ratio of means over prompts.
    """

    ablation: Ablation
    level: Level
    """Edges or nodes were ranked."""
    positions: tuple[int, ...] | None
    """Token positions that have edges of their own; None: all alike."""
    n_prompts: int
    metric: str
    seed: int
    frozen: str | None


@dataclass(frozen=True, kw_only=True)
class Minimality:
    """Change of faithfulness by removing one edge of the circuit."""

    n_tried: int
    median: float
    least: float


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Fraction of found edges that are true, and of true edges that are found."""

    precision: float
    recall: float


@dataclass(frozen=True, kw_only=True)
class CircuitEvaluation(Result):
    """Faithfulness, completeness and minimality of a circuit, with their nulls."""

    settings: CircuitEvaluationSettings
    full: float
    empty: float
    """Mean metric of the full model, and of the empty circuit in which everything is replaced."""
    faithfulness: Interval[float]
    completeness: float
    """Faithfulness of everything outside the circuit: 0 when nothing else contributes to the task."""
    random_circuits: RandomCircuits | None
    n_edges: int
    n_edges_of_graph: int
    incompleteness_of_halves: float | None
    """Mean difference in faithfulness between circuit and model, both without a random half of the circuit."""
    minimality: Minimality | None
    untrained: UntrainedGap | None
    corrupt_frozen: float | None
    """Metric of the corrupted prompts with post-norm scales frozen: faithfulness 0 in a post-norm model."""
    overlap: Overlap | None
    """With a known circuit."""

    def to_records(self) -> list[Record]:
        """Return one row with a column per number; names of nested ones are joined by a dot: `minimality.median`."""
        return [flat(columns_of(self) | {name: asdict(null) for name, null in self.nulls().items()})]

    def nulls(self) -> Record:
        """Return the nulls that were measured, by name."""
        nulls = {"random_circuits": self.random_circuits, "untrained": self.untrained, "minimality": self.minimality}
        return {name: null for name, null in nulls.items() if null is not None}

    def view(self) -> View:
        yield f"Evaluation of a circuit ({evaluated(self.settings)})"


def evaluated(settings: CircuitEvaluationSettings) -> str:
    """Return metric, ablation and number of prompts of an evaluation, in words."""
    return f"metric {settings.metric}, ablation {settings.ablation}, n_prompts {settings.n_prompts}"


@dataclass(frozen=True, kw_only=True)
class RandomRankings:
    """Areas of random rankings: mean and best of each."""

    n: int
    cpr: float
    cpr_best: float
    cmd: float
    cmd_best: float


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Areas under a ranking's faithfulness over circuit size."""

    cpr: float
    """Ranked by signed score: higher is better and may exceed 1."""
    cmd: float
    """Ranked by absolute score: the distance from 1, 0 is best."""
    random: RandomRankings | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Correlation of the scores of the highest-ranked edges or nodes with their exact effects by patching."""

    n: int
    spearman_abs: Measured
    """Rank correlation of the absolute values, -1 to 1; NaN where all are equal."""
    pearson: Measured
    """Of the signed values."""


@dataclass(frozen=True, kw_only=True)
class UnderAttack:
    """Faithfulness left where an adversary chose which edges are replaced, on the prompts that judge the circuit."""

    left: float
    low: float
    high: float
    """Ends of the 95 % interval over prompts."""
    null: float
    """The most that is left of a random circuit of the same size without its helpers."""
    stands: bool | None
    """By the rule of `circuit attack`; None: neither stands nor breaks."""


@dataclass(frozen=True, kw_only=True)
class EdgeCircuitSettings(FindConfig, CircuitSettings):
    """Settings that determine the circuit of a task."""

    task: TaskSettings
    """Prompts on which edges were scored."""
    held_out: TaskSettings | None
    """Prompts on which the circuit was judged; None: those on which edges were scored."""


@dataclass(frozen=True, kw_only=True)
class EdgeCircuit(FoundCircuit, kind="edge_circuit", title="Circuit of heads", made_by="circuit find"):
    """The circuit of a task: the highest-ranked edges of the whole graph of heads and MLPs, evaluated."""

    settings: EdgeCircuitSettings
    n_requested: int
    """Edges (nodes, at that level) of the circuit before pruning."""
    evaluation: CircuitEvaluation
    ranking: Ranking
    verified: Agreement | None
    attacked: Annotated[UnderAttack | None, DocumentField("attack.json")] = field(default_factory=lambda: None)
    """Worst case, where it was asked for."""
    file: Annotated[OwnText | None, DocumentField("file.json")] = field(default_factory=lambda: None)
    """File of the prompts, where they came from one."""

    @property
    def unit(self) -> str:
        """Unit of the score of an edge, in words."""
        return f"estimated effect on the metric, in units of the {self.settings.task.metric}"

    @property
    def size(self) -> int:
        """Number of highest-ranked edges that the circuit was cut from."""
        return self.n_requested

    @property
    def heads(self) -> list[str]:
        """Heads of the circuit."""
        return [node.name for node in self.circuit.nodes if parse_node(node.name).kind == "head"]

    def view(self) -> View:
        s, e, null = self.settings, self.evaluation, ""
        if e.random_circuits is not None:
            null = f"; random circuits at most {round(e.random_circuits.high, 2) + 0:.0%}"  # no -0%
        yield (
            f"{self.verdict.word}{short_name(s.model)}, {s.task.name}: {e.n_edges:,} of {e.n_edges_of_graph:,} edges "
            f"keep {e.faithfulness.estimate:.0%} of the behaviour{null}"
        )
        random = [] if e.random_circuits is None else [("random circuits", f"{e.random_circuits.mean:.3g}")]
        yield Facts(("edges", f"{e.n_edges:,}"), ("faithfulness", f"{e.faithfulness.estimate:.3g}"), *random)
        yield self.verdict.reason
        if (attack := self.attacked) is not None:
            word = {True: "stands", False: "breaks", None: "undecided"}[attack.stands]
            yield f"under attack {attack.left:.2f}, random circuits at most {attack.null:.2f}: {word}"
        if self.verified is not None:
            yield f"best {self.verified.n} {s.level}s patched: rank agreement {self.verified.spearman_abs:.2f}"
        scored = {edge_text(edge): edge.score for edge in self.circuit.edges}
        if s.level == "node":
            scored = {node.name: node.effect for node in self.circuit.nodes}
        strongest = sorted(((name, x) for name, x in scored.items() if x is not None), key=lambda pair: -abs(pair[1]))
        yield "strongest: " + ", ".join(f"{name} {score:+.2f}" for name, score in strongest[:8])
        yield from self.held_fixed
        yield Rows(self.circuit.shown)

    def stated(self) -> dict[str, StatedNumber]:
        """Return what a claim may say: faithfulness beside random circuits; in the worst case where it was attacked."""
        s, e, attack, holds = self.settings, self.evaluation, self.attacked, self.verdict.holds
        faithful, null = e.faithfulness, e.random_circuits
        value = faithful if attack is None else Interval(attack.left, attack.low, attack.high)
        if holds and attack is not None:
            holds = attack.stands
        outcomes: dict[bool | None, Outcome] = {True: "supported", False: "not supported", None: "undecided"}
        on = "prompts that found it" if s.held_out is None else "other prompts than those that found it"
        replaced = "all edges outside the circuit are" if attack is None else "edges that an adversary chooses are"
        drawn = 0 if null is None else null.n
        randoms = f"{drawn} random circuits of as many edges" + (", their helpers replaced" if attack else "")
        return {
            "faithfulness": StatedNumber(
                sentence=f"A circuit of {short_name(s.model)} does {s.task.name} by itself, on {on}",
                subject="circuit",
                formula=f"share of the gap of the metric that is left when {replaced} replaced ({e.settings.ablation})",
                unit="share, 1 is the whole model",
                value=value.estimate,
                low=value.low,
                high=value.high,
                null=nan if null is None else null.high if attack is None else attack.null,
                nulls=(randoms, "an untrained model"),
                outcome=outcomes[holds],
            )
        }

    def as_options(self) -> Record:
        """Return the settings as the options of `circuit find` that made it."""
        s = self.settings
        tried = {} if self.attacked is None else {"attacked": True}
        held_out = {"held_out": 0} if s.held_out is None else {"held_out": s.held_out.n_prompts}
        if s.held_out is not None and "template" in s.held_out.origin:
            held_out["judged_template"] = int(s.held_out.origin["template"] or 0)
        name = s.task.name if self.file is None else self.file.name
        task = {"task": name, "prompts": s.task.n_prompts, "metric": METRIC_OF[s.task.metric]}
        return {**asdict(s.evaluation), **asdict(s), **task, **held_out, **tried}

    def measures(self) -> list[tuple[str, float]]:
        """Return faithfulness, completeness and the two areas of the curve."""
        faithful, complete = self.evaluation.faithfulness.estimate, self.evaluation.completeness
        areas = ("cpr", self.ranking.cpr), ("cmd", self.ranking.cmd)
        return [("faithfulness", faithful), ("completeness", complete), *areas]

    def nulls(self) -> Record:
        """Return random circuits, the untrained model, minimality, and the agreement with patching."""
        checked = {} if self.verified is None else {"verified": self.verified}
        return self.evaluation.nulls() | checked

    def numbers(self) -> Record:
        """Return all other numbers of the evaluation."""
        e = self.evaluation
        named = ("full", "empty", "n_edges", "n_edges_of_graph", "incompleteness_of_halves", "corrupt_frozen")
        interval = {"faithfulness": e.faithfulness.estimate, "low": e.faithfulness.low, "high": e.faithfulness.high}
        return {
            **interval,
            **{name: getattr(e, name) for name in named},
            "ranking_random_circuits": self.ranking.random,
            **asdict(e.settings),
        }
