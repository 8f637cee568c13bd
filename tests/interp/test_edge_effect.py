"""Effect of one edge beside random rotations of what it carries."""

from itertools import chain

import pytest
import torch

from interp.circuits import edge_effect
from interp.circuits._edge_runs import Bench
from interp.circuits.circuit import Edge
from interp.circuits.edge_effect import measure_edge
from interp.circuits.graph import Graph
from interp.circuits.tasks import make_task
from interp.errors import ConfigError, UnknownNameError
from interp.models.toys import planted_induction

EDGE = Edge("L0H0", "L1H0", "k")


def test_the_planted_edge_matters_and_another_input_of_its_reader_does_not():
    model = planted_induction()
    task = make_task("induction", model, n_prompts=8)
    found, other = (measure_edge(model, task, Edge("L0H0", "L1H0", via)) for via in "kq")
    assert (found.matters, found.share.estimate > 0.9, found.p) == (True, True, 0.05)
    assert (other.matters, other.share.estimate) == (False, pytest.approx(0, abs=0.01))
    few = measure_edge(model, task, EDGE, draws=5)
    assert (few.matters, few.p) == (False, pytest.approx(1 / 6)), "five draws cannot show it"
    assert not measure_edge(model, task.take([0]), EDGE).matters, "one prompt has no interval"


def test_an_edge_has_the_effect_of_its_replacement_by_hand():
    model = planted_induction()
    task = make_task("induction", model, n_prompts=6)
    graph = Graph.from_model(model)
    bench = Bench(model, graph, task)
    without = bench.everything(True)
    without[graph.index(EDGE)] = False
    full, cut = bench.values([bench.everything(True), without]).numpy()
    found = measure_edge(model, task, EDGE, draws=1)
    assert found.share.estimate == pytest.approx((full - cut).mean() / task.gap, rel=1e-5)


def test_a_null_that_does_as_much_is_one(monkeypatch: pytest.MonkeyPatch):
    model = planted_induction()
    turns = chain([torch.eye(model.cfg.d_model)], iter(lambda: -torch.eye(model.cfg.d_model), None))
    monkeypatch.setattr(edge_effect, "haar_frame", lambda *_: next(turns))
    found = measure_edge(model, make_task("induction", model, n_prompts=8), EDGE)
    assert (found.null[0], found.p, found.matters) == (pytest.approx(found.share.estimate), 0.1, False)


def test_an_edge_without_a_null_or_outside_the_graph_is_refused():
    model = planted_induction()
    task = make_task("induction", model, n_prompts=8)
    with pytest.raises(ConfigError, match="needs a random rotation, got 0 draws"):
        measure_edge(model, task, EDGE, draws=0)
    with pytest.raises(UnknownNameError, match="L0H9"):
        measure_edge(model, task, Edge("L0H9", "L1H0", "k"))
