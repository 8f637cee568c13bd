"""ACDC against compiled programs whose circuits are written down."""

from pathlib import Path

import numpy as np
import pytest
import torch

from interp.circuits._edge_runs import Bench
from interp.circuits.attribution import acdc, attribute
from interp.circuits.circuit import Edge
from interp.circuits.graph import Graph
from interp.errors import ConfigError, CorruptError, MissingError
from interp.patching.metrics import KLToClean, L2ToClean
from interp.patching.task import Task
from interp.statistics import auroc
from tests.interp.architectures import tiny
from tests.interp.circuit_tasks import random_task
from tests.interp.tracr_models import load_tracr, written_edges

FIXTURES = Path(__file__).parent.parent / "fixtures"
TAUS = (1e-6, 1e-4, 1e-2)


def program_task(model, program, metric):
    """Prompts of three words, shorter than the program's maximum, so that their length has to be computed."""
    tokens = torch.from_numpy(program.tokens)[:, :4]
    corrupt = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))]
    at = torch.arange(4).expand(len(tokens), -1)
    return Task.of(model, tokens, corrupt, metric, at=at, batch_size=64)


def test_compiled_models_compute_their_programs():
    model, program = load_tracr(FIXTURES / "tracr_reverse.npz")
    with torch.no_grad():
        out = model(torch.from_numpy(program.tokens))[:, 1:, :3].argmax(-1).numpy()
    assert np.array_equal(out, program.expected[:, 1:])
    words = program.tokens[:, 1:]
    assert len(np.unique(words, axis=0)) == 64
    model, program = load_tracr(FIXTURES / "tracr_proportion.npz")
    with torch.no_grad():
        out = model(torch.from_numpy(program.tokens))[:, 1:, 0].numpy()
    np.testing.assert_allclose(out, program.expected[:, 1:], atol=1e-5)


@pytest.mark.parametrize(("name", "metric"), [("reverse", KLToClean()), ("proportion", L2ToClean())])
def test_acdc_with_zero_ablation_finds_every_compiled_edge_and_no_other(name, metric):
    model, program = load_tracr(FIXTURES / f"tracr_{name}.npz")
    graph = Graph.from_model(model)
    truth = graph.members([Edge(*edge) for edge in written_edges(program)])
    assert 0 < truth.sum() < graph.n_edges / 4
    task = program_task(model, program, metric)
    scores = attribute(model, task, graph, method="acdc", ablation="zero", taus=TAUS, batch_size=64)
    assert auroc(scores.values.numpy(), truth.numpy()) == 1.0
    assert torch.equal(scores.values > 0, truth)


def test_resampling_hides_compiled_edges():
    """Why zero ablation: parts that write constants look unused when another prompt's value replaces them."""
    model, program = load_tracr(FIXTURES / "tracr_reverse.npz")
    graph = Graph.from_model(model)
    truth = graph.members([Edge(*edge) for edge in written_edges(program)])
    task = program_task(model, program, KLToClean())
    scores = attribute(model, task, graph, method="acdc", ablation="resample", taus=TAUS, batch_size=64)
    assert auroc(scores.values.numpy(), truth.numpy()) < 0.8


def test_a_larger_tau_keeps_fewer_edges_and_zero_tau_loses_nothing():
    model = tiny("native-ln")
    task, graph = random_task(model, metric=KLToClean()), Graph.from_model(model)
    bench = Bench(model, graph, task)
    kept = [int(acdc(bench, tau)[0].sum()) for tau in (0.0, 0.01, 0.1)]
    assert kept[0] > kept[1] > kept[2]
    mask, runs = acdc(bench, 0.0)
    assert float(bench.values([mask]).mean()) >= float(task.clean_value.mean()) - 1e-4
    assert runs <= graph.n_edges + 1
    with pytest.raises(ConfigError, match="tau"):
        acdc(bench, -1.0)


def test_files_that_are_no_program_are_refused(tmp_path):
    with pytest.raises(MissingError):
        load_tracr(tmp_path / "none.npz")
    np.savez(tmp_path / "bad.npz", W_U=np.zeros(3))
    with pytest.raises(CorruptError):
        load_tracr(tmp_path / "bad.npz")
