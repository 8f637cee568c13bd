"""Supernodes: measured effects judge groups."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, UnknownNameError
from interp.tracing.effects import effect_profiles
from interp.tracing.graph import AttributionGraph, GraphEdges, GraphNode, GraphTarget, TraceConfig
from interp.tracing.replacement import Neurons
from interp.tracing.supernodes import Supernode, judge_groups, latents
from interp.tracing.trace import open_system, trace
from tests.interp.architectures import tiny
from tests.interp.tracing_graphs import small_graph

N_GROUPS, SIZE, LOOSE, ENDS = 4, 5, 20, 24


def planted(seed: int = 0, *, n_groups: int = N_GROUPS) -> tuple[AttributionGraph, list[set[str]]]:
    """Return a graph with groups of latents in layers 1 to 3 that share sources and targets, and loose latents.

    Layer 0 and layer 4 hold `ENDS` latents each, which are not kept. Every latent between has five edges from the one
    and five to the other. Members of a group have the same ends, with weights that vary by a quarter.
    """
    rng = np.random.default_rng(seed)
    nodes = [GraphNode("token", -1, position, 10 + position) for position in range(3)]
    first = len(nodes)
    nodes += [GraphNode("feature", layer, 2, i, 1.0, kept=False) for layer in (0, 4) for i in range(ENDS)]
    middle, ends = [], []
    for group in range(n_groups):
        shared = [rng.choice(ENDS, 5, replace=False) for _ in range(2)]
        weights = [rng.normal(size=5) + np.sign(rng.normal(size=5)) for _ in range(2)]
        for member in range(SIZE):
            middle.append(GraphNode("feature", 1 + member % 3, 2, 100 * group + member, 1.0))
            ends.append((shared, [each * rng.uniform(0.75, 1.25, 5) for each in weights]))
    for loose in range(LOOSE):
        shared = [rng.choice(ENDS, 5, replace=False) for _ in range(2)]
        middle.append(GraphNode("feature", 1 + loose % 3, 2, 1000 + loose, 1.0))
        ends.append((shared, [rng.normal(size=5) for _ in range(2)]))
    start = len(nodes)
    nodes += [*middle, GraphNode("logit", 5, 2, 0, probability=1.0)]
    rows = [(position, first + i, 1.0) for position in range(3) for i in range(ENDS)]
    rows += [(first + ENDS + i, len(nodes) - 1, 1.0) for i in range(ENDS)]
    for i, ((sources, targets), (into, out)) in enumerate(ends):
        rows += [(first + int(s), start + i, w) for s, w in zip(sources, into, strict=True)]
        rows += [(start + i, first + ENDS + int(t), w) for t, w in zip(targets, out, strict=True)]
    source, target, weight = zip(*rows, strict=True)
    edges = GraphEdges(
        np.array(source, np.int32), np.array(target, np.int32), np.array(weight, np.float32),
        np.ones(len(rows)), np.ones(len(rows), bool),
    )  # fmt: skip
    small = small_graph().with_parts(nodes=nodes, edges=edges)
    settings = replace(small.settings, tokens=(10, 11, 12))
    graph = replace(
        small, n_layers=5, settings=settings, token_texts=("<s>", " the", " sky"), targets=(GraphTarget(" blue", 5),)
    )  # fmt: skip
    return graph, [{node.id for node in middle[SIZE * i : SIZE * (i + 1)]} for i in range(n_groups)]


def effects(graph: AttributionGraph, groups: list[set[str]], noise: float):
    """Measured effects: members of a group share a direction, others are random."""

    def profiles(nodes: list[GraphNode]) -> np.ndarray:
        rng = np.random.default_rng(1)
        shared = rng.normal(size=(len(groups), 12))
        rows = []
        for node in nodes:
            mine = [i for i, members in enumerate(groups) if node.id in members]
            rows.append((shared[mine[0]] if mine else 0) + noise * rng.normal(size=12))
        return np.array(rows)

    return profiles


def test_groups_whose_effects_agree_hold_and_random_ones_do_not():
    graph, truth = planted()
    groups = [Supernode(f"group {i}", tuple(sorted(each))) for i, each in enumerate(truth)]
    judged = judge_groups(graph, groups, effects(graph, truth, noise=0.3), n_random=499)
    assert (judged.p < 0.05).all()
    assert judged.p_all < 0.01
    assert judged.agreement.min() > 0.8
    assert abs(judged.null.mean()) < 0.25
    assert "4 of 4 groups act together" in judged.headline()
    # The same groups where effects do not agree.
    judged = judge_groups(graph, groups, effects(graph, [], noise=1), n_random=499)
    assert (judged.p > 0.05).all()
    assert "0 of 4 groups act together" in judged.headline()
    # Groups of one member of each planted group.
    mixed = [Supernode(f"mixed {i}", tuple(sorted(each)[i] for each in truth)) for i in range(3)]
    judged = judge_groups(graph, mixed, effects(graph, truth, noise=0.3), n_random=499)
    assert (judged.p > 0.05).all()


def test_effects_are_measured_once_and_random_groups_have_the_same_layers():
    graph, truth = planted()
    calls = []

    def profiles(nodes):
        calls.append(nodes)
        layers = np.array([node.layer for node in nodes])
        return np.eye(5)[layers]  # the effect of a latent says its layer and nothing else

    group = Supernode("a", tuple(sorted(truth[0])))
    judged = judge_groups(graph, [group], profiles, n_random=50, max_per_layer=4)
    assert len(calls) == 1
    assert len(calls[0]) == SIZE + 3 * 4
    assert np.allclose(judged.null, judged.agreement)  # the same layers, so the same agreement, in every draw
    assert judged.p[0] == 1
    assert judged.to_records()[0]["latents"] == SIZE


def test_groups_of_a_traced_graph_are_judged_by_the_model():
    """Neurons of a random model: the profile of a neuron is the change of the final residual when it is ablated."""
    tokens = torch.tensor([[1, 5, 9, 5, 2, 7, 9]])
    model, config = tiny("gpt2"), TraceConfig(effects=0, nulls=False)
    graph, system = trace(model, tokens, Neurons(), config), open_system(model, tokens, Neurons())
    chosen = [node for node in latents(graph) if node.layer == 1 and node.position == 6][:3]
    found = effect_profiles(system, chosen)
    for node, profile in zip(chosen, found, strict=True):

        def ablate(value, hook, node=node):
            value[0, node.position, node.index] = 0
            return value

        both = []
        for hooks in ([], [(f"blocks.{node.layer}.mlp.hook_post", ablate)]):
            with torch.no_grad():
                both.append(model.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1].numpy())
        centred = [each - each.mean() for each in both]
        logits = (torch.from_numpy(profile) @ model.W_U.detach()).numpy()
        assert np.allclose(logits - logits.mean(), centred[1] - centred[0], atol=1e-4)
    group = Supernode("three", tuple(node.id for node in chosen))
    judged = judge_groups(graph, [group], partial(effect_profiles, system), n_random=50)
    assert 0 < judged.p[0] <= 1
    assert -1 <= judged.agreement[0] <= 1


def test_what_cannot_be_judged_is_refused():
    graph, truth = planted()
    fine = effects(graph, truth, 0.3)
    with pytest.raises(ConfigError, match="'one' has fewer than two latents"):
        judge_groups(graph, [Supernode("one", (next(iter(truth[0])), "token:0:10"))], fine)
    with pytest.raises(UnknownNameError):
        judge_groups(graph, [Supernode("a", ("nothing", "feature:1:2:0"))], fine)
    group = Supernode("a", tuple(truth[0]))
    for wrong in (lambda nodes: np.zeros(3), lambda nodes: np.full((len(nodes), 2), np.nan)):
        with pytest.raises(ConfigError, match="finite effects"):
            judge_groups(graph, [group], wrong)
    assert judge_groups(graph, [], fine).headline() == "No groups to judge."
