"""Measures of circuits: closed forms, the two ends, known circuits, nulls."""

import numpy as np
import pytest
import torch

from interp.circuits._edge_runs import Bench
from interp.circuits._edge_scores import prune_edges
from interp.circuits.attribution import attribute
from interp.circuits.circuit import Circuit, Edge
from interp.circuits.config import EvaluationConfig
from interp.circuits.find import evaluate
from interp.circuits.graph import Graph
from interp.circuits.judging import area, cmd, cpr, faithfulness, faithfulness_interval, untrained_gap
from interp.circuits.tasks import induction_task
from interp.errors import ConfigError, MismatchError
from interp.models.toys import planted_induction
from tests.interp.architectures import ALL_NAMES, tiny
from tests.interp.circuit_tasks import planted_circuit, random_task

QUICK = EvaluationConfig(n_random=3, n_knockouts=2, n_minimality=5, untrained=False)


def test_areas_in_closed_form():
    x = np.linspace(0.001, 1, 5).tolist()
    assert cpr(x, x) == pytest.approx((1 - 0.001**2) / 2)
    assert cmd(x, x) == pytest.approx(0.999**2 / 2)
    assert cpr(x, [1.0] * 5) == pytest.approx(0.999)
    assert cmd(x, [1.0] * 5) == 0
    assert cmd([0, 1], [2, 2]) == 1, "overshooting counts as distance"
    assert area([0, 0.5, 1], [0, 1, 0]) == 0.5
    with pytest.raises(ConfigError):
        area([0.5, 0.5], [1, 1])


def test_faithfulness_is_a_ratio_of_means():
    empty, full = np.array([0.0, 2.0]), np.array([4.0, 2.0])
    values = np.array([[4.0, 2.0], [0.0, 2.0], [2.0, 2.0]])
    assert faithfulness(values, empty, full).tolist() == [1, 0, 0.5]
    ends = faithfulness_interval(values, np.zeros(2), np.full(2, 4.0))
    assert ends.estimate.tolist() == faithfulness(values, np.zeros(2), np.full(2, 4.0)).tolist()
    assert (ends.low <= ends.estimate).all()
    assert ends.low[2] == ends.high[2] == 0.5, "prompts that agree leave no interval"


def test_the_interval_of_faithfulness_differs_from_plain_resampling_by_its_draws_alone():
    rng = np.random.default_rng(0)
    empty, full = rng.normal(0, 0.5, 40), rng.normal(4, 0.5, 40)
    values = empty + rng.uniform(0, 1, (3, 40)) * (full - empty)
    rows = rng.integers(40, size=(4000, 40))
    by_hand = (values[:, rows].mean(2) - empty[rows].mean(1)) / (full[rows].mean(1) - empty[rows].mean(1))
    ends = faithfulness_interval(values, empty, full)
    np.testing.assert_allclose([ends.low, ends.high], np.quantile(by_hand, [0.025, 0.975], axis=1), atol=0.02)


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_the_whole_model_is_faithful_and_nothing_is_not(name, ablation):
    model = tiny(name)
    task, graph = random_task(model), Graph.from_model(model)
    bench = Bench(model, graph, task, ablation=ablation)
    full, empty = (bench.everything(kept) for kept in (True, False))
    values = bench.values([full, empty, full, empty]).numpy()
    f = faithfulness(values[2:], values[1], values[0])
    assert f.tolist() == [1.0, 0.0]
    np.testing.assert_allclose(values[0], task.clean_value, atol=1e-5)


def test_zero_ablation_of_everything_leaves_the_biases():
    model = tiny("native-raw")
    task, graph = random_task(model), Graph.from_model(model)
    bench = Bench(model, graph, task, ablation="zero")
    values = bench.values([bench.everything(False)])[0]
    bias = sum(block.attn.o.original_component.bias for block in model.blocks)
    with torch.no_grad():
        logits = model.unembed.original_component(bias).expand(4, 1, -1)
    torch.testing.assert_close(values, task.metric(logits).double(), atol=1e-5, rtol=1e-5)


def test_the_mean_is_over_corrupted_prompts_whatever_the_batches():
    model = tiny("gpt2")
    task, graph = random_task(model, n=5), Graph.from_model(model)
    a, b = (Bench(model, graph, task, ablation="mean", batch_size=size) for size in (2, 5))
    none = a.everything(False)
    torch.testing.assert_close(a.values([none]), b.values([none]), atol=1e-6, rtol=1e-5)


def test_the_planted_circuit_is_all_there_is():
    model = planted_induction()
    task = induction_task(model, n_prompts=8, block=8)
    report = evaluate(model, task, planted_circuit(), config=QUICK)
    assert report.faithfulness.estimate == pytest.approx(1, abs=1e-4)
    assert report.completeness == pytest.approx(0, abs=1e-4)
    assert report.random_circuits.mean < 0.5
    without = Circuit.of("planted", "", [e for e in planted_circuit().edges if e.via != "k" or e.source == "embed"])
    assert evaluate(model, task, without, config=QUICK).faithfulness.estimate < 0.2


def test_scores_of_the_planted_model_rank_its_circuit_first():
    model = planted_induction()
    task = induction_task(model, n_prompts=8, block=8)
    scores = attribute(model, task, method="eap-ig")
    config = EvaluationConfig(n_random=3, untrained=False, fractions=(0.1, 0.4, 0.7, 1.0))
    report = evaluate(model, task, scores, config=config, truth=planted_circuit())
    assert report.auroc > 0.7, "three planted edges read what the corruption leaves alone"
    assert report.curve.faithfulness[-1] == pytest.approx(1, abs=1e-6)
    assert (report.settings.ablation, report.settings.level, report.settings.positions) == ("resample", "edge", None)
    assert report.ranking.cpr == pytest.approx(report.signed.cpr)


def test_the_found_circuit_beats_every_random_one(induction_toy):
    task = induction_task(induction_toy, n_prompts=16)
    circuit = attribute(induction_toy, task).top(25)
    report = evaluate(induction_toy, task, circuit, config=EvaluationConfig(n_random=10, untrained=True))
    assert report.faithfulness.estimate > 0.6
    assert report.random_circuits.high < report.faithfulness.estimate / 2
    assert report.random_circuits.p == pytest.approx(1 / 11)
    untrained = report.untrained
    assert abs(untrained.gap) < 3 * untrained.gap_error + 0.05
    assert untrained.gap_of_model > 5


def test_an_untrained_twin_has_no_gap(induction_toy):
    task = induction_task(induction_toy, n_prompts=16)
    gaps = [untrained_gap(induction_toy, task, seed) for seed in range(3)]
    assert max(abs(g.gap) for g in gaps) < 0.02 * task.gap


def test_node_circuits_keep_all_edges_among_their_nodes():
    model = tiny("native-ln")
    task = random_task(model)
    scores = attribute(model, task, level="node")
    mask = scores.mask(4, prune=False)
    nodes = {scores.name(int(i)) for i in scores.order()[:4]} | {"logits"}
    expected = [e.source in nodes and e.target in nodes for e in scores.graph.edges()]
    assert mask.tolist() == expected
    assert scores.mask(len(scores)).all()


def test_pruned_circuits_are_as_faithful_as_unpruned_ones():
    model = tiny("llama-gqa")
    task = random_task(model)
    scores = attribute(model, task)
    bench = Bench(model, scores.graph, task)
    pairs = [(scores.mask(n), scores.mask(n, prune=False)) for n in (5, 15, 40)]
    assert any(int(a.sum()) < int(b.sum()) for a, b in pairs)
    for a, b in pairs:
        torch.testing.assert_close(*bench.values([a, b]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["native-ln", "llama-gqa", "neox"])
@pytest.mark.parametrize("positions", [[0, 2, 5], [3, 6], [6], range(7)])
def test_pruning_over_some_positions_takes_away_only_what_does_nothing(name, positions):
    """Sparse random circuits: pruning shrinks them, the metric stays; at most positions there is a way round."""
    model = tiny(name)
    task, graph = random_task(model), Graph.from_model(model, positions=positions)
    bench, length = Bench(model, graph, task), task.clean.shape[1]
    kept = [torch.rand(graph.n_edges, generator=torch.Generator().manual_seed(seed)) < 0.1 for seed in range(6)]
    pruned = [prune_edges(graph, mask, length) for mask in kept]
    assert sum(int(mask.sum()) for mask in pruned) < sum(int(mask.sum()) for mask in kept)
    torch.testing.assert_close(bench.values(pruned), bench.values(kept), atol=1e-5, rtol=1e-5)
    for mask, less in zip(kept, pruned, strict=True):
        assert (prune_edges(graph, mask) | ~less).all(), "without a length no more is taken"


def test_circuits_of_other_weights_are_refused():
    model = tiny("native-ln")
    task = random_task(model)
    other = Circuit.of("m", "0" * 64, [Edge("embed", "logits")])
    with pytest.raises(MismatchError):
        evaluate(model, task, other, config=QUICK)
    with pytest.raises(ConfigError):
        EvaluationConfig(fractions=(0.5, 0.1))
