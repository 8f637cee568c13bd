"""The circuit of a task in MLP neurons: found by relevance, judged by replacing all other neurons.

    task, held_out = make_task("greater-than", model, n_prompts=32).split(16)
    found = find_neurons(model, task, held_out, NeuronCircuitConfig(n_neurons=100))

1. A neuron's score is its change from the corrupted to the clean prompt times the gradient that follows relevance
   (`interp.circuits._relevance`), summed over positions: one backward pass for all neurons (RelP, Jafari et al. 2025).
2. Those of largest score are the circuit; the largest are also replaced one by one, and the effects compared.
3. On held-out prompts all neurons outside the circuit have their values on the corrupted prompt, at every position;
   attention and the neurons of the circuit are recomputed. Faithfulness is 1 for the model, 0 with all neurons
   replaced. Null: random neurons, as many in each layer. Baseline: the neurons whose output changes most.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from interp.artifacts import Table
from interp.circuits._relevance import relevance_hooks
from interp.circuits.circuit import Circuit, Node, NodeEffect
from interp.circuits.found_circuit import Agreement, ScoredNode, UntrainedGap, Verdict
from interp.circuits.judging import EMPTY, FULL, RANDOM, JudgedRuns, judge, prompt_texts, untrained_gap, verdict
from interp.circuits.neuron_circuit import NeuronCircuit, NeuronCircuitConfig, NeuronCircuitSettings
from interp.errors import ConfigError
from interp.models.adapter import Hook, available_hook_points, run_with_hooks, weight_hash
from interp.models.hooked import HookedModel
from interp.models.passes import capture, read_hook
from interp.models.residual import ResidualStream
from interp.patching.task import Task
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import rank_correlation

Mask = Bool[Tensor, "n_layers d_mlp"]
LEAST_PROMPTS = 4
"""Held-out prompts; an interval over fewer has no width to speak of."""
RULE = (
    "faithfulness is above that of random neurons (both intervals) and not below that of the neurons that change most, "
    "and an untrained model lacks the behaviour"
)


def find_neurons(
    model: HookedModel,
    task: Task,
    held_out: Task,
    config: NeuronCircuitConfig | None = None,
    *,
    model_name: str = "",
    progress: Progress | None = None,
) -> NeuronCircuit:
    """Find the neurons that a task depends on, and judge them on held-out prompts.

    Args:
        model: has MLPs.
        task: prompts on which neurons are scored.
        held_out: prompts on which the circuit is judged.
        config: size and nulls (default: `NeuronCircuitConfig()`).
        model_name: name in the result.
        progress: called with the number of runs done, of those on held-out prompts.
    Returns: the neurons with their scores and faithfulness, random neurons as null.
    Raises:
        ConfigError: a model without neurons, too few held-out prompts, or a task that does not depend on neurons.
    """
    config = config or NeuronCircuitConfig()
    scores, change = _scores(model, task, config.batch_size)
    flat, n = scores.flatten(), min(config.n_neurons, scores.numel() - 1)
    circuit, everything = _largest(scores, n), torch.ones_like(scores, dtype=torch.bool)
    generator = make_generator(config.seed, "random neurons")
    masks: dict[str, list[Mask]] = {
        FULL: [everything],
        EMPTY: [~everything],
        "circuit": [circuit],
        "complement": [~circuit],
        "by change": [_largest(change, n)],
        RANDOM: (random := [_random(circuit, generator) for _ in range(config.n_random)]),
        "random complement": [~mask for mask in random],
    }
    every = [mask for group in masks.values() for mask in group]
    values = _values(model, held_out, every, config.batch_size, progress)
    cuts = np.cumsum([len(group) for group in masks.values()])[:-1]
    runs = dict(zip(masks, np.split(values, cuts), strict=True))
    _check(runs[FULL][0] - runs[EMPTY][0], held_out)
    judged = judge(runs, complement="complement", seed=config.seed)
    best = flat.abs().topk(min(config.verify, len(flat))).indices
    alone = [everything.flatten().index_fill(0, each, False).view_as(circuit) for each in best.split(1)]
    exact = float(task.clean_value.mean()) - _values(model, task, alone, config.batch_size).mean(1)
    untrained, weights = untrained_gap(model, held_out, config.seed), weight_hash(model)
    table = _table(scores, max(n, len(exact)), exact)
    nodes = [Node(row.node, evidence=NodeEffect(effect=row.score)) for row in table.rows()[:n]]
    found_in = {"model": model_name, "weight_hash": weights, "frozen": None}
    return NeuronCircuit(
        settings=NeuronCircuitSettings(**vars(config), **found_in, task=task.settings, held_out=held_out.settings),
        circuit=Circuit.of(model_name, weights, [], nodes),
        verdict=_verdict(judged, untrained, held_out),
        prompts=prompt_texts(model, task),
        node_scores=table,
        n_neurons_of_model=len(flat),
        evaluation=judged.judgement,
        by_change=float(judged.f["by change"][0]),
        without_random=float(judged.f["random complement"].mean()),
        verified=_agreement(flat[best].numpy(), exact),
        untrained=untrained,
    )


def _agreement(scores: np.ndarray, exact: np.ndarray) -> Agreement:
    ranks = rank_correlation(np.abs(scores), np.abs(exact))
    return Agreement(n=len(exact), spearman_abs=ranks, pearson=float(np.corrcoef(scores, exact)[0, 1]))


def _verdict(judged: JudgedRuns, untrained: UntrainedGap, held_out: Task) -> Verdict:
    faithful, random = judged.judgement.faithfulness, judged.judgement.random_circuits
    changed = float(judged.f["by change"][0])
    assert random is not None
    reason = (
        f"faithfulness {faithful:.2f}, random neurons {random.mean:.2f} ({random.low:.2f} to {random.high:.2f}), those "
        f"that change most {changed:.2f}; gap of an untrained model {untrained.gap:.3g}, of this one "
        f"{untrained.gap_of_model:.3g}; judged on {held_out.n_prompts} other prompts"
    )
    return verdict(RULE, reason, faithful.low > random.high and faithful.estimate >= changed, untrained)


def _points(model: HookedModel) -> list[str]:
    """Return the hook points of all neurons. Raises `ConfigError` for a model without any."""
    points = [f"blocks.{layer}.mlp.hook_post" for layer in range(model.cfg.n_layers)]
    if not set(points) <= available_hook_points(model):
        raise ConfigError(
            "this model has no MLP neurons that can be read; find its heads with `workbench circuit find`"
        )
    return points


def _scores(model: HookedModel, task: Task, batch_size: int) -> tuple[Float[Tensor, "n_layers d_mlp"], ...]:
    """Return the relevance of every neuron, and the size of the change of what it writes, means over prompts."""
    points, device = _points(model), model.cfg.device
    relevance = relevance_hooks(ResidualStream(model))
    norms = torch.stack([block.mlp.W_out.detach().norm(dim=1) for block in model.blocks])
    scores, change = torch.zeros(2, *norms.shape, device=norms.device)
    values: dict[str, Tensor] = {}

    def record(value: Tensor, hook: object, name: str) -> Tensor:
        values[name] = value.view_as(value)
        return values[name]

    start: Hook = lambda value, hook: value.detach().requires_grad_()  # noqa: E731
    for rows in torch.arange(task.n_prompts).split(batch_size):
        corrupt = capture(model, task.corrupt[rows].to(device), points)
        hooks = [("blocks.0.hook_resid_pre", start), *relevance, read_hook(task.at[rows])]
        hooks += [(name, partial(record, name=name)) for name in points]
        with torch.enable_grad():
            total = task.metric.take(rows)(run_with_hooks(model, task.clean[rows].to(device), hooks)).sum()
            gradients = torch.autograd.grad(total, [values[name] for name in points])
        for layer, (name, gradient) in enumerate(zip(points, gradients, strict=True)):
            moved = values[name].detach() - corrupt[name]
            scores[layer] += (moved * gradient).sum((0, 1))
            change[layer] += moved.abs().sum((0, 1)) * norms[layer]
    return scores.cpu() / task.n_prompts, change.cpu() / task.n_prompts


@torch.no_grad()
def _values(
    model: HookedModel, task: Task, masks: Sequence[Mask], batch_size: int, progress: Progress | None = None
) -> Float64[np.ndarray, "n_masks n_prompts"]:
    """Return the metric on the clean prompts, with the neurons outside each mask at their corrupted values."""
    points, device, columns = _points(model), model.cfg.device, []
    parts = torch.arange(task.n_prompts).split(batch_size)
    for done, rows in enumerate(parts):
        corrupt, column = capture(model, task.corrupt[rows].to(device), points), []
        for number, mask in enumerate(masks):

            def others(value: Tensor, hook: object, keep: Tensor, corrupted: Tensor) -> Tensor:
                return torch.where(keep, value, corrupted)

            hooks = [
                (name, partial(others, keep=keep, corrupted=corrupt[name]))
                for name, keep in zip(points, mask.to(device), strict=True)
                if not keep.all()
            ]
            logits = run_with_hooks(model, task.clean[rows].to(device), [*hooks, read_hook(task.at[rows])])
            column.append(task.metric.take(rows)(logits).double().cpu())
            if progress is not None:
                progress(done * len(masks) + number + 1, len(parts) * len(masks), {})
        columns.append(torch.stack(column))
    return torch.cat(columns, 1).numpy()


def _check(gaps: Float64[np.ndarray, " n_prompts"], task: Task) -> None:
    """Raise `ConfigError` where replacing all neurons does not lower the metric beyond chance, or few prompts judge."""
    if len(gaps) < LEAST_PROMPTS:
        raise ConfigError(f"{len(gaps)} prompts are left to judge, {LEAST_PROMPTS} are needed; give more prompts")
    error = gaps.std(ddof=1) / len(gaps) ** 0.5
    if not gaps.mean() > 2 * error:
        raise ConfigError(
            f"replacing all neurons lowers the {task.metric.name} by {gaps.mean():.3g} (standard error {error:.2g}): "
            f"{task.name} does not depend on neurons; find its heads with `workbench circuit find`"
        )


def _largest(scores: Tensor, n: int) -> Mask:
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[scores.abs().flatten().topk(n).indices] = True
    return chosen.view_as(scores)


def _random(circuit: Mask, generator: torch.Generator) -> Mask:
    """Draw as many neurons in each layer as a circuit has there."""
    drawn = torch.zeros_like(circuit)
    for layer, n in enumerate(circuit.sum(1).tolist()):
        drawn[layer, torch.randperm(circuit.shape[1], generator=generator)[:n]] = True
    return drawn


def _table(scores: Tensor, n: int, exact: np.ndarray) -> Table[ScoredNode]:
    """Return the neurons of largest score, the strongest first, with the effects of those that were replaced alone."""
    top, effects = scores.abs().flatten().topk(n).indices.tolist(), dict(enumerate(exact.tolist()))
    rows = []
    for rank, number in enumerate(top):
        layer, neuron = divmod(number, scores.shape[1])
        node, score = f"L{layer}neurons.{neuron}", float(scores[layer, neuron])
        rows.append(ScoredNode(node=node, position=None, score=score, exact=effects.get(rank), low=None, high=None))
    return Table.of(ScoredNode, rows)
