"""The circuit of a task in heads and MLPs, as an artefact, and its evaluation. Torch-free.

`interp.circuits.find` finds it, `interp.circuits.evaluation` evaluates it.
"""

from dataclasses import asdict, dataclass
from typing import Any

from interp.circuits.circuit import edge_text
from interp.circuits.config import Ablation, FindConfig, Level
from interp.circuits.found_circuit import CircuitSettings, FoundCircuit, Judgement, UntrainedGap, task_unit
from interp.names import parse_node
from interp.patching.config import TaskSettings
from interp.results import Record, Result, columns_of, flat


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
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
class CircuitEvaluation(Judgement, Result):
    """Faithfulness, completeness and minimality of a circuit, with their nulls."""

    settings: EvaluationSettings
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
        return [flat(columns_of(self) | {name: asdict(each) for name, each in self.nulls().items()})]

    def nulls(self) -> dict[str, Any]:
        """Return the nulls that were measured, by name."""
        found = {"random_circuits": self.random_circuits, "untrained": self.untrained, "minimality": self.minimality}
        return {name: each for name, each in found.items() if each is not None}

    def headline(self) -> str:
        """Return one line: metric, ablation and number of prompts."""
        return f"Evaluation of a circuit ({evaluated(self.settings)})"


def evaluated(settings: EvaluationSettings) -> str:
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
    spearman_abs: float
    """Rank correlation of the absolute values, -1 to 1."""
    pearson: float
    """Of the signed values."""


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
    asked: int
    """Edges (nodes, at that level) of the circuit before pruning."""
    evaluation: CircuitEvaluation
    ranking: Ranking
    verified: Agreement | None

    @property
    def unit(self) -> str:
        """Unit of the score of an edge, in words."""
        return task_unit(self.settings.task)

    @property
    def size(self) -> int:
        """Number of highest-ranked edges that the circuit was cut from."""
        return self.asked

    @property
    def heads(self) -> list[str]:
        """Heads of the circuit."""
        return [node.name for node in self.circuit.nodes if parse_node(node.name).kind == "head"]

    def headline(self) -> str:
        """Return one line: the task, the method, the size and the faithfulness."""
        s, e = self.settings, self.evaluation
        return (
            f"Circuit of {s.model} for {s.task.name}, by {s.method}: {e.n_edges:,} of {e.n_edges_of_graph:,} edges; "
            f"faithfulness {e.faithfulness:.2f}"
        )

    def facts(self) -> list[tuple[str, str]]:
        """Return the size, the faithfulness and that of random circuits."""
        e = self.evaluation
        null = [] if e.random_circuits is None else [("random circuits", f"{e.random_circuits.mean:.3g}")]
        return [("edges", f"{e.n_edges:,}"), ("faithfulness", f"{e.faithfulness.estimate:.3g}"), *null]

    def details(self) -> list[str]:
        """Return the verdict, the agreement of scores with patching, and the strongest edges."""
        lines, level = [self.verdict.reason], self.settings.level
        if self.verified is not None:
            lines.append(f"best {self.verified.n} {level}s patched: rank agreement {self.verified.spearman_abs:.2f}")
        scored = {edge_text(edge): edge.score for edge in self.circuit.edges}
        if level == "node":
            scored = {node.name: node.effect for node in self.circuit.nodes}
        strongest = sorted(((name, x) for name, x in scored.items() if x is not None), key=lambda pair: -abs(pair[1]))
        lines.append("strongest: " + ", ".join(f"{name} {score:+.2f}" for name, score in strongest[:8]))
        return lines + self.held_fixed

    def measures(self) -> list[tuple[str, float]]:
        """Return faithfulness, completeness and the two areas of the curve."""
        faithful, complete = self.evaluation.faithfulness.estimate, self.evaluation.completeness
        areas = ("cpr", self.ranking.cpr), ("cmd", self.ranking.cmd)
        return [("faithfulness", faithful), ("completeness", complete), *areas]

    def nulls(self) -> dict[str, Any]:
        """Return random circuits, the untrained model, minimality, and the agreement with patching."""
        checked = {} if self.verified is None else {"verified": self.verified}
        return self.evaluation.nulls() | checked

    def numbers(self) -> dict[str, Any]:
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
