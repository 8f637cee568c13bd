"""The circuit of a task in the features of several SAEs, as an artefact, and its settings. Torch-free.

`saes.circuits.find` finds it; the command line inherits the settings.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from interp.artifacts import DocumentField
from interp.circuits.config import Ablation
from interp.circuits.found_circuit import (
    CircuitJudgement,
    CircuitSettings,
    FoundCircuit,
    UntrainedGap,
    null_of,
    task_unit,
)
from interp.circuits.worst_case import STANDS
from interp.errors import UnknownNameError
from interp.models.short_name import short_name
from interp.nulls import DRAWS
from interp.options import BASIC, Seed, check_least
from interp.patching.patching_map import TaskSettings
from interp.results import Record
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
class HelpersReplaced:
    """Faithfulness left when the strongest helpers outside the circuit are replaced and all else stays."""

    n: int
    left: Interval[float]


@dataclass(frozen=True, kw_only=True)
class FeaturesAttacked:
    """Faithfulness of a feature circuit where an adversary replaces only outside features that help the metric.

    Helpers are features with an attributed effect above 0 on the prompts that also found and judge the circuit.
    """

    n_outside: int
    """Active features outside the circuit."""
    n_helpers: int
    strengths: tuple[HelpersReplaced, ...]
    """The strongest helpers replaced, fewest first, all of them last; empty where there are none."""
    random_circuits: tuple[float, ...]
    """The same adversary's strongest attack on circuits of as many random active features at each site."""
    random_outsiders: tuple[float, ...]
    """Left when as many random features outside the circuit are replaced as in its strongest attack."""

    @property
    def worst(self) -> HelpersReplaced | None:
        """The strength that leaves least; None without helpers."""
        return min(self.strengths, key=lambda each: each.left.estimate, default=None)


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
    attacked: Annotated[FeaturesAttacked | None, DocumentField("attack.json")] = field(default_factory=lambda: None)
    """Worst case; None for circuits found before it was measured, and where the model has no gap to keep."""

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

    @property
    def stands(self) -> bool | None:
        """True where it stands against its adversary by the rule of `circuit attack`; None: undecided, or no attack."""
        attack = self.attacked
        if attack is None or attack.worst is None or self.settings.task.n_prompts < 2:  # one has no interval
            return None
        faithful, null = self.evaluation.faithfulness, max(attack.random_circuits)

        def enough(left: float) -> bool:
            return faithful.estimate > 0 and left >= STANDS * faithful.estimate and left > null

        ends = [faithful.low, *(each.left.low for each in attack.strengths), *attack.random_outsiders]
        if enough(min(ends)):
            return True
        return None if enough(min(attack.worst.left.estimate, faithful.estimate)) else False

    def under_attack(self) -> list[str]:
        """Return the worst case beside the mean and the nulls, or why there is none."""
        attack, mean = self.attacked, self.evaluation.faithfulness.estimate
        if attack is None:
            gap = self.evaluation.full > self.evaluation.empty
            return ["worst case not measured: " + ("found before it was" if gap else "the model has no gap to keep")]
        if (worst := attack.worst) is None:
            return [f"worst case: none of the {attack.n_outside:,} features outside helps, so nothing was attacked"]
        word = {True: "it stands", False: "it breaks", None: "undecided"}[self.stands]
        strongest = "all" if worst.n == attack.n_helpers else f"the {worst.n:,} strongest of"
        return [
            f"worst case {worst.left:.2f}, {strongest} {attack.n_helpers:,} helpers outside replaced; "
            f"all {attack.n_outside:,} features outside replaced {mean:.2f}; random circuits under such an attack at "
            f"most {max(attack.random_circuits):.2f}; as many random features outside replaced at least "
            f"{min(attack.random_outsiders):.2f}: {word}"
        ]

    def facts(self) -> list[tuple[str, str]]:
        """Return the number of features, the faithfulness and that of random features."""
        e = self.evaluation
        null = [] if e.random_circuits is None else [("random features", f"{e.random_circuits.mean:.3g}")]
        return [("features", str(e.n_features)), ("faithfulness", f"{e.faithfulness.estimate:.3g}"), *null]

    def details(self) -> list[str]:
        """Return the verdict, the agreement of edge scores with patching, and the strongest nodes and edges."""
        lines, a, null = [self.verdict.reason, *self.under_attack()], self.agreement, self.untrained_saes
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

    def tables(self) -> dict[str, list[Record]]:
        """Return what is left over the number of helpers replaced."""
        rows = [] if self.attacked is None else self.attacked.strengths
        found = [{"helpers replaced": row.n, **row.left.columns("left", "low", "high")} for row in rows]
        return {"worst case": found} if found else {}

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
