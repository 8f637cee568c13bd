"""From a task to a judged circuit, in order: score, verify, cut, judge.

    found = find_circuit(model, task, FindConfig(n_edges=200))
    found.circuit.evaluation["faithfulness"], found.circuit.verdict["found"]

1. every edge is scored (`attribution`), and the best are patched one by one to check the scores
2. the curve of faithfulness over sizes is measured beside random circuits
3. the circuit is the best `n_edges`, or the smallest on the curve that reaches the faithfulness asked for
4. it is judged: faithfulness, completeness, minimality, random circuits of its size, an untrained model
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from interp.circuits.attribution import Method, attribute
from interp.circuits.bench import Ablation, Bench
from interp.circuits.circuit import Circuit
from interp.circuits.evaluation import Curve, EvaluationConfig, evaluate
from interp.circuits.graph import Graph
from interp.circuits.measures import faithfulness
from interp.circuits.scores import By, Scores, Verified
from interp.circuits.task import Task
from interp.errors import ConfigError

RULE = (
    "the low end of the 95 % interval of its faithfulness lies above the 97.5 % quantile of random circuits with as "
    "many edges, and the gap of an untrained model is below a tenth of this model's"
)

HALVINGS = 5
"""runs spent on narrowing the size between two points of the curve"""


@dataclass(frozen=True, kw_only=True)
class FindConfig:
    """How a circuit is looked for."""

    method: Method = "eap-ig"
    steps: int = 5
    ablation: Ablation = "resample"
    by: By = "abs"
    n_edges: int | None = None
    """edges of the circuit before pruning; None: the smallest size on the curve that reaches `faithfulness`"""
    faithfulness: float = 0.8
    verify: int = 20
    """edges patched one by one to check the scores; 0 for none"""
    node_scores: bool = True
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if self.n_edges is not None and self.n_edges < 1:
            raise ConfigError(f"n_edges must be at least 1, got {self.n_edges}")
        if not self.faithfulness > 0 or self.verify < 0 or self.verify == 1:
            raise ConfigError("faithfulness must be above 0, verify 0 or at least 2")


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A circuit with all that led to it."""

    circuit: Circuit
    scores: Scores
    nodes: Scores | None
    curve: Curve
    verified: Verified | None


def find_circuit(
    model: Any,
    task: Task,
    config: FindConfig | None = None,
    graph: Graph | None = None,
    *,
    progress: Callable[[str], Any] | None = None,
) -> Found:
    """Find and judge the circuit of a task.

    `progress(step name)` gives the callback of each step. Raises what its steps raise.
    """
    config = config or FindConfig()
    step = progress or (lambda name: None)
    size = config.evaluation.batch_size
    shared: dict[str, Any] = {"ablation": config.ablation, "batch_size": size}
    scores = attribute(
        model, task, graph, method=config.method, steps=config.steps, **shared, progress=step("scoring edges")
    )
    nodes = None
    if config.node_scores:
        gradient = "eap-ig" if config.method == "acdc" else config.method
        nodes = attribute(model, task, method=gradient, steps=config.steps, level="node", **shared)
    verified = None
    if config.verify:
        verified = scores.verify_top_k(model, task, min(config.verify, len(scores)), by=config.by, batch_size=size)
    ranking = evaluate(model, task, scores, config=replace(config.evaluation, untrained=False), progress=step("curve"))
    assert ranking.curve is not None
    asked = config.n_edges or _smallest(model, task, scores, ranking.curve, config)
    circuit = scores.top(asked, by=config.by)
    judged = evaluate(model, task, circuit, scores.graph, config.evaluation, progress=step("judging"))
    evaluation = {
        **ranking.to_json(),
        **judged.to_json(),
        "ranking_random_circuits": ranking.numbers.get("random_circuits"),
    }
    if verified is not None:
        evaluation["verified"] = verified.to_json()
    circuit = replace(circuit, evaluation=evaluation, verdict=_verdict(evaluation))
    return Found(circuit=circuit, scores=scores, nodes=nodes, curve=ranking.curve, verified=verified)


def _smallest(model: Any, task: Task, scores: Scores, curve: Curve, config: FindConfig) -> int:
    """A size that reaches the faithfulness: the first on the curve that does, then halved down to the size before it.

    All edges when none does. Faithfulness need not rise with size, so a smaller circuit may have been passed over.
    """
    index = curve.smallest(config.faithfulness)
    if index is None:
        return len(scores)
    sizes = [0, *(round(fraction * len(scores)) for fraction in curve.fractions)]
    too_small, enough = sizes[index], sizes[index + 1]
    bench = Bench(model, scores.graph, task, ablation=config.ablation, batch_size=config.evaluation.batch_size)
    full, empty = bench.values([bench.everything(True), bench.everything(False)]).numpy()
    for _ in range(HALVINGS):
        middle = (too_small + enough) // 2
        if middle == too_small:
            break
        values = bench.values([scores.mask(middle, config.by)]).numpy()
        if faithfulness(values, empty, full)[0] >= config.faithfulness:
            enough = middle
        else:
            too_small = middle
    return max(1, enough)


def _verdict(evaluation: dict[str, Any]) -> dict[str, Any]:
    null, untrained = evaluation.get("random_circuits"), evaluation.get("untrained")
    if not null or not untrained:
        return {"found": None, "rule": RULE, "reason": "nulls were not run"}
    beats = evaluation["faithfulness_low"] > null["high"]
    learned = abs(untrained["gap"]) < 0.1 * untrained["gap_of_model"]
    f, size = evaluation["faithfulness"], f"{evaluation['n_edges']} of {evaluation['n_edges_of_graph']} edges"
    reason = (
        f"faithfulness {f:.2f} ({evaluation['faithfulness_low']:.2f} to {evaluation['faithfulness_high']:.2f}) with "
        f"{size}, random circuits {null['mean']:.2f} ({null['low']:.2f} to {null['high']:.2f}); gap of an untrained "
        f"model {untrained['gap']:.3g}, of this one {untrained['gap_of_model']:.3g}"
    )
    return {"found": bool(beats and learned), "rule": RULE, "reason": reason}
