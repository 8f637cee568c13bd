"""A circuit that was found, as an artefact: what the three kinds of circuit share. Torch-free.

`InductionCircuit`, `EdgeCircuit` and `saes.circuits.feature_circuit.FeatureCircuit` are the kinds.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float32

from interp.artifacts import ARRAY, Artefact, Document, Measured, Table, kinds_of
from interp.circuits.circuit import FILE, Circuit
from interp.patching.config import TaskSettings
from interp.patching.patching_map import PromptPair
from interp.results import Record
from interp.statistics import Interval

if TYPE_CHECKING:
    from interp.workspace import Workspace


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

    found: bool | None
    rule: str
    reason: str

    @property
    def line(self) -> str:
        """The verdict in one line."""
        said = {True: "found: ", False: "not found: ", None: ""}[self.found]
        return said + self.reason


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


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Metric of a circuit, compared with the full model, the empty circuit and random circuits."""

    full: float
    empty: float
    """Mean metric of the full model, and of the empty circuit in which everything is replaced."""
    faithfulness: Interval[float]
    completeness: float
    """Faithfulness of everything outside the circuit: 0 when nothing else contributes to the task."""
    random_circuits: RandomCircuits | None


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
class CurvePoint:
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
    circuit: Annotated[Circuit, Document(FILE)]
    verdict: Verdict
    prompts: Annotated[tuple[TaskPrompt, ...], Document("prompts.json")]
    """The first few."""
    edge_scores: Table[ScoredEdge] | None = field(default_factory=lambda: None)
    """Every scored edge of the graph, strongest first; None where no edges were ranked."""
    node_scores: Table[ScoredNode] | None = field(default_factory=lambda: None)
    """Every scored node, strongest first."""
    curve: Table[CurvePoint] | None = field(default_factory=lambda: None)
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
    def nulls(self) -> dict[str, Any]:
        """Return the nulls and controls of the circuit, by name."""

    def measures(self) -> list[tuple[str, float]]:
        """Return the scores of the whole circuit, as (name, value)."""
        return []

    def tables(self) -> dict[str, list[Record]]:
        """Return further measurements with one row each, by name."""
        return {}

    def numbers(self) -> dict[str, Any]:
        """Return all other numbers of the evaluation, by name."""
        return {}

    def to_records(self) -> list[Record]:
        """Return one row per edge of the circuit: `source, target, via, position, score`."""
        return self.circuit.to_records()

    def shown(self) -> list[Record]:
        """Return the edges of the circuit, largest scores first."""
        return self.circuit.shown()


def open_circuit(workspace: "Workspace", name: str) -> FoundCircuit:
    """Return a circuit of any kind, by its name or key. Raises `UnknownNameError` with the nearest names."""
    found = workspace.value(workspace.find(name, *kinds_of("circuit")))
    assert isinstance(found, FoundCircuit)
    return found


def task_unit(task: TaskSettings) -> str:
    """Return the unit of the scores of a task's edges, in words."""
    return f"estimated effect on the metric, in units of the {task.metric}"
