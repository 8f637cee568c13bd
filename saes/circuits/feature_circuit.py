"""The circuit of a task in the features of several SAEs, as an artefact, and its settings. Torch-free.

`saes.circuits.find` finds it; the command line inherits the settings.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from interp.circuits.config import Ablation
from interp.circuits.found_circuit import (
    CircuitJudgement,
    CircuitSettings,
    FoundCircuit,
    UntrainedGap,
    null_of,
    task_unit,
)
from interp.errors import UnknownNameError
from interp.models.short_name import short_name
from interp.nulls import DRAWS
from interp.options import BASIC, Seed, check_least
from interp.patching.patching_map import TaskSettings
from interp.statistics import Interval

if TYPE_CHECKING:
    from saes.circuits.sites import MeasuredPrompts


Method = Literal["ig", "gradient"]
METHODS = ("ig", "gradient")


@dataclass(frozen=True, kw_only=True)
class AttributionConfig:
    """Settings of attribution to features."""

    method: Annotated[Method, BASIC] = "ig"
    """ig: integrated gradients, whose attributions add up to the total; gradient: the gradient on the prompt, which
    ranks features as single ablations do."""
    steps: int = 10
    """Gradients between the baseline and the prompt, for ig."""
    first: int = 0
    """Positions at the start that are left out: 1 for SAEs trained without the BOS position, whose residual is an
    outlier."""
    batch_size: int = 8
    """Prompts per forward pass."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("attribution method", self.method, METHODS)
        check_least(self, {"steps": 1, "batch_size": 1, "first": 0})

    def describe(self, prompts: "MeasuredPrompts") -> dict[str, str | int]:
        """Return the settings that are stored with results."""
        steps = {"steps": self.steps} if self.method == "ig" else {}
        baseline = "features and error off" if prompts.corrupt is None else "corrupted prompts"
        return {"task": prompts.name, "metric": prompts.metric.name, "method": self.method, **steps,
                "baseline": baseline, "first": self.first}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FeatureCircuitConfig:
    """Settings of the search for a feature circuit, and of its evaluation."""

    attribution: AttributionConfig = field(default_factory=AttributionConfig)
    n_features: int = 20
    """Features of each SAE that become nodes."""
    n_edges: Annotated[int, BASIC] = 60
    """Edges of the circuit."""
    ablation: Ablation = "resample"
    """Activation of features outside the circuit: that of the corrupted prompt, its mean over prompts, or zero."""
    verify: int = 20
    """Number of strongest edges that are patched one by one, and of random edges."""
    n_random: int = DRAWS["standard"]
    """Random circuits with the same number of features of each SAE, for the null distribution."""
    nulls: bool = True
    """Also evaluate untrained SAEs and an untrained model."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        check_least(self, {"n_features": 1, "n_edges": 1, "n_random": 1, "verify": 0})


@dataclass(frozen=True, kw_only=True)
class FeatureCircuitSettings(FeatureCircuitConfig, CircuitSettings):
    """Settings that determine a circuit of features."""

    task: TaskSettings
    hook_points: tuple[str, ...]
    """Hook points that the dictionaries write, in the order of the model."""


@dataclass(frozen=True, kw_only=True)
class NodesEvaluation(CircuitJudgement):
    """Faithfulness of a set of features with the error nodes of every site, and of each of the two alone."""

    n_features: int
    n_active: int
    """Features of the set, and all that are active on the prompts."""
    without_errors: Interval[float]
    """Faithfulness of the features alone."""
    errors_alone: float
    """Faithfulness of the error nodes alone."""
    all_features: float
    """Faithfulness of all features without error nodes."""


@dataclass(frozen=True, kw_only=True)
class EdgeAgreement:
    """Scores of the strongest edges against their exact effects by patching, and those of random edges."""

    n: int
    spearman: Interval[float]
    """Rank correlation; not a number for fewer than three edges, or where all are equal."""
    spearman_abs: float | None
    mean_abs_exact: float
    random_mean_abs_exact: float
    random_as_strong: float
    """Fraction of random edges whose effect is at least the median of the strongest edges."""


@dataclass(frozen=True, kw_only=True)
class UntrainedDictionaries:
    """The same numbers for untrained dictionaries of random directions: the null of features and error nodes."""

    faithfulness: float
    without_errors: float
    errors_alone: float
    all_features: float


@dataclass(frozen=True, kw_only=True)
class FeatureCircuit(FoundCircuit, kind="feature_circuit", title="Circuit of features", made_by="circuit features"):
    """The circuit of a task in features and reconstruction errors, judged against nulls."""

    settings: FeatureCircuitSettings
    evaluation: NodesEvaluation
    agreement: EdgeAgreement | None
    """None where no edge was patched."""
    untrained_saes: UntrainedDictionaries | None
    untrained: UntrainedGap | None

    @property
    def unit(self) -> str:
        """Unit of the score of an edge, in words."""
        return task_unit(self.settings.task)

    def headline(self) -> str:
        """Return one line: the task, the number of features and the faithfulness, beside random features."""
        s, e = self.settings, self.evaluation
        of = (
            f"{self.verdict.word}{short_name(s.model)}, {s.task.name}: {e.n_features} of {e.n_active:,} active features"
        )
        return f"{of} keep {e.faithfulness.estimate:.0%} of the behaviour{null_of(e.random_circuits)}"

    def facts(self) -> list[tuple[str, str]]:
        """Return the number of features, the faithfulness and that of random features."""
        e = self.evaluation
        null = [] if e.random_circuits is None else [("random features", f"{e.random_circuits.mean:.3g}")]
        return [("features", str(e.n_features)), ("faithfulness", f"{e.faithfulness.estimate:.3g}"), *null]

    def details(self) -> list[str]:
        """Return the verdict, the agreement of edge scores with patching, and the strongest nodes and edges."""
        lines, a, null = [self.verdict.reason], self.agreement, self.untrained_saes
        if a is not None and not math.isnan(a.spearman.estimate):
            lines.append(
                f"best {a.n} edges patched: rank agreement {a.spearman:.2f}, mean size {a.mean_abs_exact:.3g}, of "
                f"random edges {a.random_mean_abs_exact:.3g}"
            )
        effects = {node.name: node.effect for node in self.circuit.nodes if node.effect is not None}
        strongest = sorted(effects.items(), key=lambda pair: -abs(pair[1]))[:8]
        lines.append("strongest nodes: " + ", ".join(f"{name} {effect:+.3f}" for name, effect in strongest))
        best = sorted(self.circuit.edges, key=lambda edge: -abs(edge.score or 0))[:8]
        lines.append("strongest edges: " + ", ".join(f"{e.source} -> {e.target} {e.score:+.3f}" for e in best))
        if null is not None:
            lines.append(
                f"untrained SAEs: {null.faithfulness:.2f} with their errors, {null.without_errors:.2f} without, all of "
                f"their features {null.all_features:.2f}"
            )
        return lines + self.held_fixed

    def measures(self) -> list[tuple[str, float]]:
        """Return faithfulness and completeness."""
        e = self.evaluation
        return [("faithfulness", e.faithfulness.estimate), ("completeness", e.completeness)]

    def nulls(self) -> dict[str, object]:
        """Return random features, untrained dictionaries and the untrained model."""
        nulls = {
            "random_circuits": self.evaluation.random_circuits,
            "untrained_saes": self.untrained_saes,
            "untrained": self.untrained,
        }
        return {name: asdict(null) for name, null in nulls.items() if null is not None}

    def numbers(self) -> dict[str, object]:
        """Return all other numbers of the evaluation."""
        e, a = self.evaluation, self.agreement
        named = ("full", "empty", "n_features", "n_active", "errors_alone", "all_features")
        return {
            "faithfulness": e.faithfulness.estimate,
            "low": e.faithfulness.low,
            "high": e.faithfulness.high,
            "without_errors": f"{e.without_errors:.3g}",
            **{name: getattr(e, name) for name in named},
            "edges": {} if a is None else asdict(a) | {"spearman": f"{a.spearman:.2f}"},
        }
