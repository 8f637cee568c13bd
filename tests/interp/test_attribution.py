"""Scores against truth: patching by hand, finite differences, linear models, planted and trained circuits."""

import pytest
import torch
from scipy.stats import pearsonr

from interp.circuits import attribution
from interp.circuits._edge_runs import Bench, collect, minus, outputs, run_with_edges, run_with_single_edges
from interp.circuits.attribution import attribute, verify_top_k
from interp.circuits.circuit import Edge
from interp.circuits.graph import Graph
from interp.circuits.tasks import induction_task
from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.models.residual import ResidualStream
from interp.models.toys import planted_induction
from interp.patching.metrics import KLToClean, LogitDiff
from interp.patching.task import Task
from tests.interp.architectures import ALL_NAMES, POST_NORM, new_tiny, tiny
from tests.interp.circuit_tasks import planted_circuit, random_task


@pytest.fixture(scope="module")
def toy_task(induction_toy):
    return induction_task(induction_toy, n_prompts=24, seed=1)


@pytest.fixture(scope="module")
def toy_exact(induction_toy, toy_task):
    return attribute(induction_toy, toy_task, method="exact", batch_size=24)


def patched_by_hand(model, task, edge, graph):
    """Plain re-implementation: the reader's input is rebuilt from cached parts and put in place of its own."""
    stream = ResidualStream(model).frozen_at(task.clean)
    clean, _ = collect(stream, graph, task.clean, task.at)
    corrupt, _ = collect(stream, graph, task.corrupt, task.at)
    frozen = stream.freezing_hooks()
    source = graph.sources.index(edge.source)
    change = outputs(stream, graph, corrupt)[source] - outputs(stream, graph, clean)[source]
    store = {}

    def keep(value, hook):
        store["resid"] = value

    def add_attention(value, hook):
        store["resid"] = store["resid"] + value

    def replace(value, hook):
        return value + change

    if edge.target == "logits":
        return model.run_with_hooks(task.clean, fwd_hooks=[*frozen, ("ln_final.hook_in", replace)])
    layer = int(edge.target[1:].split("H")[0].removesuffix("MLP"))
    block = f"blocks.{layer}"
    hooks = [*frozen, (f"{block}.hook_resid_pre", keep)]
    if edge.target.endswith("MLP"):
        if not stream.parallel:
            hooks.append((f"{block}.hook_attn_out", add_attention))
        hooks.append((f"{block}.mlp.hook_in", lambda v, hook: stream.norm2(layer, store["resid"] + change)))
        return model.run_with_hooks(task.clean, fwd_hooks=hooks)
    head = int(edge.target.split("H")[1])
    index = stream.kv_head(head) if edge.via in ("k", "v") else head

    def one_head(value, hook):
        value = value.clone()
        value[:, :, index] = stream.project(layer, edge.via, store["resid"] + change)[:, :, index]
        return value

    hooks.append((f"{block}.attn.hook_{edge.via}", one_head))
    return model.run_with_hooks(task.clean, fwd_hooks=hooks)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_exact_scores_equal_patching_by_hand(name):
    model = tiny(name)
    task, graph = random_task(model), Graph.from_model(model)
    only = [*torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(1))[:10].tolist(), graph.n_edges - 1]
    scores = attribute(model, task, graph, method="exact", only=only)
    with torch.no_grad():
        for i in only:
            logits = patched_by_hand(model, task, graph.edge(i), graph)[:, -1:]
            expected = float((task.clean_value - task.metric(logits)).mean())
            assert float(scores.values[i]) == pytest.approx(expected, abs=2e-5), graph.edge(i)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_eap_is_the_derivative_of_patching(name):
    """A small step along one edge moves the metric by the EAP score times the step: norms and groups included."""
    model = new_tiny(name).double()
    task, graph = random_task(model), Graph.from_model(model)
    scores = attribute(model, task, graph, method="eap")
    stream, eps = ResidualStream(model).frozen_at(task.clean), 3e-3  # RMS norms compute in float32 whatever the model
    clean, _ = collect(stream, graph, task.clean, task.at)
    corrupt, _ = collect(stream, graph, task.corrupt, task.at)
    diff = outputs(stream, graph, minus(clean, corrupt))
    edges = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(2))[:25].tolist()
    up, down = (run_with_single_edges(stream, graph, task.clean, s * eps * diff, edges, task.at) for s in (-1, 1))
    measured = [float((task.metric(a) - task.metric(b)).mean()) / (2 * eps) for a, b in zip(up, down, strict=True)]
    scale = float(scores.values.abs().max())
    expected = torch.tensor(measured, dtype=torch.float64)
    torch.testing.assert_close(scores.values[edges], expected, atol=2e-3 * scale, rtol=1e-2)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_all_edges_kept_is_the_clean_run_and_none_the_corrupted_one(name):
    model = tiny(name)
    task, graph = random_task(model), Graph.from_model(model)
    bench = Bench(model, graph, task)
    full, empty = bench.values([bench.everything(True), bench.everything(False)])
    torch.testing.assert_close(full, task.clean_value, atol=1e-5, rtol=1e-5)
    if name not in POST_NORM:  # theirs is the corrupted run of the model with frozen scales: test_post_norm.py
        torch.testing.assert_close(empty, task.corrupt_value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", [None, list(range(7))])
def test_a_mask_without_one_edge_equals_patching_that_edge(positions):
    model = tiny("llama-gqa")
    task, graph = random_task(model), Graph.from_model(model, positions=positions)
    stream = ResidualStream(model)
    clean, _ = collect(stream, graph, task.clean, task.at)
    corrupt, _ = collect(stream, graph, task.corrupt, task.at)
    diff = outputs(stream, graph, minus(clean, corrupt))
    edges = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(3))[:8].tolist()
    single = run_with_single_edges(stream, graph, task.clean, diff, edges, task.at)
    for edge, logits in zip(edges, single, strict=True):
        kept = torch.ones(graph.n_edges, dtype=torch.bool)
        kept[edge] = False
        torch.testing.assert_close(run_with_edges(stream, graph, task.clean, kept, corrupt, task.at), logits)


def test_an_unsplit_edge_replaces_query_key_and_value_together():
    model = tiny("gpt2")
    task, graph = random_task(model), Graph.from_model(model, split_qkv=False)
    only = [graph.index(Edge("embed", "L0H1")), graph.index(Edge("L0MLP", "L1H2")), graph.index(Edge("L0H0", "logits"))]
    scores = attribute(model, task, graph, method="exact", only=only)
    bench, split = Bench(model, graph, task), Graph.from_model(model)
    whole = Bench(model, split, task)
    for i in only:
        kept, kept_split = bench.everything(True), whole.everything(True)
        kept[i] = False
        edge = graph.edge(i)
        for via in (None,) if edge.target == "logits" else ("q", "k", "v"):
            kept_split[split.index(Edge(edge.source, edge.target, via))] = False
        expected = float((task.clean_value - whole.values([kept_split])[0]).mean())
        assert float((task.clean_value - bench.values([kept])[0]).mean()) == pytest.approx(expected, abs=2e-5)
        assert float(scores.values[i]) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_summing_gradients_before_the_sources_changes_nothing(name, monkeypatch):
    """Points one by one, each met by the sources alone, against sums of several points: every norm, bias and group."""
    model = tiny(name)
    task = random_task(model)
    for graph in (Graph.from_model(model), Graph.from_model(model, positions=[1, 3])):
        values = []
        for at_once in (1, 4, 8):
            monkeypatch.setattr(attribution, "POINTS_AT_ONCE", at_once)
            values.append(attribute(model, task, graph, steps=6).values)
        scale = float(values[0].abs().max())
        for summed in values[1:]:
            torch.testing.assert_close(summed, values[0], atol=2e-6 * scale, rtol=1e-4)


def linear_model():
    """No norms, even attention (zero W_Q): everything after the embedding is linear."""
    from interp.models.small import SmallConfig, build_small

    config = SmallConfig(d_model=32, n_heads=4, d_vocab=40, n_ctx=8, normalization=None)
    model = build_small(config, seed=1, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.q.original_component.weight.zero_()
            for part in (block.attn.v, block.attn.o):
                part.original_component.weight.mul_(10)
    return model


def test_in_a_linear_model_edges_sum_to_the_total_effect():
    """Edges into the logits add up to the gap, and so do the edges out of the embedding along all paths."""
    model = linear_model()
    task, graph = random_task(model), Graph.from_model(model)
    eap, ig, exact = (attribute(model, task, graph, method=m) for m in ("eap", "eap-ig", "exact"))
    into_logits = torch.tensor([edge.target == "logits" for edge in graph.edges()])
    from_embed = torch.tensor([edge.source == "embed" for edge in graph.edges()])
    for scores in (eap, ig, exact):
        assert float(scores.values[into_logits].sum()) == pytest.approx(task.gap, rel=1e-4)
        assert float(scores.values[from_embed].sum()) == pytest.approx(task.gap, rel=1e-4)
        torch.testing.assert_close(scores.values, exact.values, atol=1e-4, rtol=1e-3)


def test_scores_do_not_depend_on_the_batch_split():
    model = tiny("llama-gqa")
    task = random_task(model, n=5)
    for method in ("eap-ig", "exact"):
        only = list(range(10)) if method == "exact" else None
        a, b = (attribute(model, task, method=method, batch_size=size, only=only).values for size in (2, 5))
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_positions_sum_to_the_edge_over_all_positions(ablation):
    """EAP is linear in positions: per-position scores add up."""
    model = tiny("native-ln")
    task = random_task(model)
    whole = attribute(model, task, method="eap-ig", ablation=ablation)
    graph = Graph.from_model(model, positions=range(7))
    split = attribute(model, task, graph, method="eap-ig", ablation=ablation)
    assert split.graph.n_edges == 7 * whole.graph.n_edges
    torch.testing.assert_close(split.values.unflatten(0, (7, -1)).sum(0), whole.values, atol=1e-5, rtol=1e-4)


def test_node_scores_match_patching_in_a_linear_model():
    model = linear_model()
    task = random_task(model)
    exact = attribute(model, task, method="exact", level="node")
    approximate = attribute(model, task, level="node")
    torch.testing.assert_close(exact.values, approximate.values, atol=1e-4, rtol=1e-3)
    assert float(exact.values[0]) == pytest.approx(task.gap, rel=1e-4), "replacing the embedding replaces everything"


def test_a_circuit_of_nodes_keeps_their_effects_and_one_of_edges_the_scores():
    model = linear_model()
    task = random_task(model)
    nodes, edges = (attribute(model, task, level=level) for level in ("node", "edge"))
    by_node, by_edge = nodes.top(4, prune=False), edges.top(4, prune=False)
    effects = {node.name: node.evidence.effect for node in by_node.nodes if node.name != "logits"}
    names = {nodes.name(int(i)): float(nodes.values[i]) for i in nodes.order()[:4]}
    assert effects == {name: value for name, value in names.items() if name in effects}
    assert len(effects) > 1
    assert all(edge.score is None for edge in by_node.edges)
    assert [edge.score for edge in by_edge.edges] == [float(v) for v in edges.values[edges.order()[:4].sort().values]]
    assert all(node.evidence is None for node in by_edge.nodes)


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_other_ablations_are_exact_in_a_linear_model_too(ablation):
    model = linear_model()
    task = random_task(model)
    exact, eap = (attribute(model, task, method=m, ablation=ablation).values for m in ("exact", "eap"))
    torch.testing.assert_close(exact, eap, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(exact, attribute(model, task, method="exact").values, atol=1e-3)


def test_denoising_restores_what_noising_takes():
    """In a linear model both directions measure the same; in others they need not."""
    model = linear_model()
    task = random_task(model)
    noise, denoise = (attribute(model, task, method="exact", direction=d).values for d in ("noise", "denoise"))
    torch.testing.assert_close(noise, denoise, atol=1e-4, rtol=1e-3)
    with pytest.raises(ConfigError, match="resample"):
        attribute(model, task, direction="denoise", ablation="zero")


def test_exact_patching_finds_only_planted_edges():
    model = planted_induction()
    task = induction_task(model, n_prompts=8, block=8)
    graph = Graph.from_model(model)
    exact = attribute(model, task, graph, method="exact")
    planted = graph.members(planted_circuit())
    assert exact.values[~planted].abs().max() < 1e-4
    untouched = [Edge("embed", "L0H0", "q"), Edge("embed", "L0H0", "k"), Edge("embed", "L1H0", "q")]
    used = planted & ~graph.members(untouched)  # those read positions, or the second half, alike in both prompts
    assert exact.values[used].min() > 1
    assert exact.values[graph.members(untouched)].abs().max() < 1e-4


@pytest.mark.timeout(240)
def test_eap_ig_is_closer_to_exact_patching_than_eap_on_a_trained_circuit(induction_toy, toy_task, toy_exact):
    eap, ig = (attribute(induction_toy, toy_task, method=m, batch_size=24).values for m in ("eap", "eap-ig"))
    of_eap, of_ig = pearsonr(eap, toy_exact.values)[0], pearsonr(ig, toy_exact.values)[0]
    assert of_ig > 0.8
    assert of_ig > of_eap + 0.2


def test_eap_misses_the_strongest_edge_and_eap_ig_finds_it(induction_toy, toy_task, toy_exact):
    """The value input of the previous-token head: behind two softmaxes that are saturated at the clean point."""
    strongest = int(toy_exact.order()[0])
    edge = toy_exact.graph.edge(strongest)
    assert edge.source == "embed"
    assert edge.target.startswith("L0")
    assert edge.via == "v"
    eap, ig = (attribute(induction_toy, toy_task, method=m, batch_size=24) for m in ("eap", "eap-ig"))
    assert strongest in ig.order()[:3]
    assert strongest not in eap.order()[:3]


def test_verified_edges_carry_their_exact_effect(induction_toy, toy_task, toy_exact):
    scores = attribute(induction_toy, toy_task, batch_size=24)
    verified = verify_top_k(scores, induction_toy, toy_task, 8, batch_size=24)
    torch.testing.assert_close(verified.exact, toy_exact.values[verified.indices], atol=1e-4, rtol=1e-4)
    assert -1 <= verified.spearman <= 1
    with pytest.raises(ConfigError):
        verify_top_k(scores, induction_toy, toy_task, 82)


def test_plain_eap_warns_where_the_metric_is_flat():
    model = tiny("native-ln")
    task = random_task(model, metric=KLToClean())
    with pytest.warns(UserWarning, match="eap-ig"):
        flat = attribute(model, task, method="eap")
    curved = attribute(model, task, method="eap-ig")
    assert flat.values.abs().max() < 1e-4 * curved.values.abs().max()


def test_intervals_hold_the_mean_and_shrink_with_prompts():
    model = tiny("native-ln")
    few, many = (attribute(model, random_task(model, n=n)) for n in (8, 64))
    widths = []
    for scores in (few, many):
        low, high = scores.interval()
        assert (low <= scores.values + 1e-6).all()
        assert (scores.values <= high + 1e-6).all()
        widths.append(float((high - low).mean()))
    assert widths[1] < widths[0] / 1.8


def test_an_untrained_model_has_no_induction_task():
    from interp.models.adapter import untrained_model

    with pytest.raises(ConfigError, match="no gap"):
        induction_task(untrained_model(tiny("native-ln"), 0), n_prompts=16, block=7)


def test_wrong_settings_are_refused():
    model = tiny("native-ln")
    task = random_task(model)
    with pytest.raises(UnknownNameError, match="eap-ig"):
        attribute(model, task, method="eap_ig")
    with pytest.raises(MismatchError):
        attribute(model, task, Graph.from_model(tiny("llama-gqa")))
    with pytest.raises(ConfigError, match="position 9"):
        attribute(model, task, Graph.from_model(model, positions=[9]))
    with pytest.raises(ConfigError):
        attribute(model, task, steps=0)


def test_one_prompt_has_no_interval():
    model = tiny("native-ln")
    task = random_task(model, n=1)
    assert attribute(model, task).interval() is None
    metric = LogitDiff(correct=[1], wrong=[2])
    assert Task.of(model, task.clean, task.corrupt, metric, check_gap=False).gap_error == 0
