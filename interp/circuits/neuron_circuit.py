"""The circuit of a task in MLP neurons, as an artefact: its neurons, their scores and its evaluation. Torch-free.

`interp.circuits.neurons` finds and evaluates it. Nodes are named `L9neurons.123`. Attention is no part of it, and it
has no edges: what a neuron does through others is in its effect.
"""

from dataclasses import dataclass
from typing import Annotated

from interp.circuits.found_circuit import (
    Agreement,
    CircuitJudgement,
    CircuitSettings,
    FoundCircuit,
    UntrainedGap,
    null_of,
)
from interp.models.short_name import short_name
from interp.nulls import DRAWS
from interp.options import BASIC, Seed, check_least
from interp.patching.patching_map import TaskSettings
from interp.results import Record


@dataclass(frozen=True, kw_only=True)
class NeuronCircuitConfig:
    """Settings of the search."""

    n_neurons: Annotated[int, BASIC] = 100
    """Neurons of the circuit, those of largest score at all positions."""
    verify: int = 20
    """Number of neurons of largest score that are replaced one by one to check the scores."""
    n_random: int = DRAWS["quick"]
    """Circuits of random neurons, as many in each layer, as the null."""
    batch_size: int = 16
    """Prompts per forward pass."""
    seed: Seed = 0
    """Draws prompts, random neurons and the untrained model."""

    def __post_init__(self) -> None:
        check_least(self, {"n_neurons": 1, "verify": 2, "n_random": 1, "batch_size": 1})


@dataclass(frozen=True, kw_only=True)
class NeuronCircuitSettings(NeuronCircuitConfig, CircuitSettings):
    """Settings that determine the circuit."""

    task: TaskSettings
    """Prompts on which neurons were scored."""
    held_out: TaskSettings
    """Prompts on which the circuit was judged."""


@dataclass(frozen=True, kw_only=True)
class NeuronCircuit(FoundCircuit, kind="neuron_circuit", title="Circuit of neurons", made_by="circuit neurons"):
    """The circuit of a task in MLP neurons: all others are replaced by their values on the corrupted prompts."""

    settings: NeuronCircuitSettings
    n_neurons_of_model: int
    evaluation: CircuitJudgement
    """Full: the model; empty: all its neurons replaced, and attention recomputed."""
    by_change: float
    """Baseline: faithfulness of as many neurons, those whose output changes most from corrupted to clean prompts."""
    without_random: float
    """Null of completeness: mean faithfulness with random neurons alone replaced, as many in each layer."""
    verified: Agreement
    untrained: UntrainedGap

    def headline(self) -> str:
        """Return one line: the task, the size and the faithfulness, beside random neurons."""
        s, e = self.settings, self.evaluation
        return (
            f"{self.verdict.word}{short_name(s.model)}, {s.task.name}: {len(self.circuit.nodes):,} of "
            f"{self.n_neurons_of_model:,} neurons keep {e.faithfulness.estimate:.0%} of the behaviour"
            f"{null_of(e.random_circuits).replace('circuits', 'neurons')}"
        )

    def details(self) -> list[str]:
        """Return the verdict, what is left without the neurons, how well scores agree with effects, the strongest."""
        strongest = ", ".join(f"{row['neuron']} {row['score']:+.3f}" for row in self.shown()[:8])
        agree = f"best {self.verified.n} neurons replaced alone: rank agreement {self.verified.spearman_abs:.2f}"
        left, random = self.evaluation.completeness, self.without_random
        without = (
            f"with these neurons alone replaced {left:.0%} of the behaviour is left, with random ones {random:.0%}"
        )
        return [self.verdict.reason, without, agree, f"strongest: {strongest}"]

    def nulls(self) -> Record:
        """Return random neurons, the neurons that change most, the untrained model, and the agreement."""
        return {
            "random_neurons": self.evaluation.random_circuits,
            "by_change": self.by_change,
            "without_random": self.without_random,
            "untrained": self.untrained,
            "verified": self.verified,
        }

    def to_records(self) -> list[Record]:
        """Return one row per neuron of the circuit: `neuron, score`."""
        return [{"neuron": node.name, "score": node.effect} for node in self.circuit.nodes]

    def shown(self) -> list[Record]:
        """Return the neurons, largest scores first."""
        return sorted(self.to_records(), key=lambda row: -abs(row["score"]))
