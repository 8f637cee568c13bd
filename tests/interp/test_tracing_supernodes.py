"""Supernodes: planted groups are found and permuted graphs have none; measured effects judge a group."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, UnknownNameError
from interp.tracing.effects import effect_profiles
from interp.tracing.graph import AttributionGraph, GraphEdges, GraphNode, GraphTarget, TraceConfig
from interp.tracing.replacement import Neurons
from interp.tracing.supernodes import Supernode, alike_groups, find_supernodes, judge_groups, latents, with_groups
from interp.tracing.trace import open_system, trace
from tests.interp.architectures import tiny
from tests.interp.tracing_graphs import small_graph

N_GROUPS, SIZE, LOOSE, ENDS = 4, 5, 20, 24
COLOURS = ("red", "green", "blue", "white")


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
            label = f"words of {COLOURS[group]}, {member}"
            middle.append(GraphNode("feature", 1 + member % 3, 2, 100 * group + member, 1.0, label=label))
            ends.append((shared, [each * rng.uniform(0.75, 1.25, 5) for each in weights]))
    for loose in range(LOOSE):
        shared = [rng.choice(ENDS, 5, replace=False) for _ in range(2)]
        middle.append(GraphNode("feature", 1 + loose % 3, 2, 1000 + loose, 1.0, label=f"thing{loose}"))
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


def permuted(graph: AttributionGraph, seed: int) -> AttributionGraph:
    """Give every edge of the latents between another end of the same layer."""
    rng, edges = np.random.default_rng(seed), graph.edges
    layer = np.array([node.layer for node in graph.nodes])
    source, target = edges.source.copy(), edges.target.copy()
    for i in np.flatnonzero((layer >= 1) & (layer <= 3)):
        for own, other, at in ((target, source, 0), (source, target, 4)):
            rows = np.flatnonzero(own == i)
            other[rows] = rng.choice(np.flatnonzero(layer == at), len(rows), replace=False)
    return graph.with_parts(edges=replace(edges, source=source, target=target))


@pytest.mark.parametrize("seed", range(4))
def test_planted_groups_are_found_and_nothing_else(seed):
    graph, groups = planted(seed)
    found = find_supernodes(graph)
    assert sorted(sorted(each.nodes) for each in found.groups) == sorted(map(sorted, groups))
    assert min(found.similarity) > found.bound
    pairs = N_GROUPS * SIZE * (SIZE - 1) // 2
    assert pairs <= found.pairs <= 1.05 * pairs  # chance may explain 5 %
    assert found.chance < 1


def test_permuted_graphs_have_no_groups():
    """Twenty graphs with the same layers, weights and numbers of edges, and other ends."""
    assert sum(bool(find_supernodes(permuted(planted(seed)[0], seed)).groups) for seed in range(20)) <= 2
    assert "No groups" in find_supernodes(permuted(planted(0)[0], 0)).headline()


def test_a_graph_of_loose_latents_has_no_groups():
    assert find_supernodes(planted(7, n_groups=0)[0]).groups == ()


def test_groups_need_similar_inputs_and_outputs():
    """With the out-edges alone permuted, in-edges still agree, and nothing is grouped."""
    graph, _ = planted()
    half = permuted(graph, 3)
    half = half.with_parts(edges=replace(half.edges, source=graph.edges.source))
    assert find_supernodes(half).groups == ()


def test_directions_separate_latents_with_the_same_edges():
    """Two members of each group write elsewhere than the other three."""
    graph, groups = planted()
    rng = np.random.default_rng(0)
    centres = {(group, part): rng.normal(size=256) for group in range(N_GROUPS) for part in range(2)}
    directions = rng.normal(size=(len(latents(graph)), 256))
    expected: dict[tuple[int, int], set[str]] = {}
    for i, node in enumerate(latents(graph)):
        for group, members in enumerate(groups):
            if node.id in members:
                part = group, int(node.index % 100 < 2)
                directions[i] = centres[part] + 0.2 * rng.normal(size=256)
                expected.setdefault(part, set()).add(node.id)
    found = find_supernodes(graph, directions)
    assert {frozenset(each.nodes) for each in found.groups} == {frozenset(each) for each in expected.values()}
    with pytest.raises(ConfigError, match="expected directions of 40 latents"):
        find_supernodes(graph, directions[:-1])


def test_latents_that_are_too_far_apart_are_never_grouped():
    graph, groups = planted()
    same_layer = find_supernodes(graph, near_layers=0)
    layers = [{graph.node(name).layer for name in each.nodes} for each in same_layer.groups]
    assert layers
    assert all(len(each) == 1 for each in layers)
    moved = [replace(node, position=1) if node.id in groups[0] and node.layer == 1 else node for node in graph.nodes]
    apart = graph.with_parts(nodes=moved)
    for near, largest in ((0, 3), (1, 5), (None, 5)):
        found = find_supernodes(apart, near_positions=near)
        assert max(len(each.nodes) for each in found.groups if "red" in each.name) == largest, near


def test_names_are_the_words_that_labels_share():
    graph, groups = planted()
    names = {frozenset(each.nodes): each.name for each in find_supernodes(graph).groups}
    for i, members in enumerate(groups):
        assert set(names[frozenset(members)].split()) == {COLOURS[i]}, "the words of rules name nothing"
    bare = graph.with_parts(nodes=[replace(node, label="") for node in graph.nodes])
    names = [each.name for each in find_supernodes(bare).groups]
    assert names[0] == "sky · layers 1 to 3"
    assert len(set(names)) == len(names)


def test_the_groups_of_most_influence_are_proposed_and_named_by_quoted_words():
    graph, _ = planted()
    found = find_supernodes(graph)
    weight = {each.name: sum(graph.node(name).influence for name in each.nodes) for each in found.groups}
    [one] = find_supernodes(graph, most=1).groups
    assert weight[one.name] == max(weight.values())
    labelled = graph.with_parts(nodes=[replace(node, label='" Oven" in any form (90 %)') for node in graph.nodes])
    assert find_supernodes(labelled).groups[0].name == "oven"


def test_a_graph_of_one_latent_or_none_has_no_groups():
    graph = small_graph()
    assert find_supernodes(graph).groups == ()
    none = graph.with_parts(nodes=[replace(node, kept=node.kind != "feature") for node in graph.nodes])
    assert find_supernodes(none).n_latents == 0


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
    assert "4 of 4 proposed groups act together" in judged.headline()
    # The same groups where effects do not agree.
    judged = judge_groups(graph, groups, effects(graph, [], noise=1), n_random=499)
    assert (judged.p > 0.05).all()
    assert "0 of 4 proposed groups act together" in judged.headline()
    # Groups of one member of each planted group.
    mixed = [Supernode(f"mixed {i}", tuple(sorted(each)[i] for each in truth)) for i in range(3)]
    judged = judge_groups(graph, mixed, effects(graph, truth, noise=0.3), n_random=499)
    assert (judged.p > 0.05).all()


def test_groups_are_found_by_effects_and_judged_by_outcomes_that_did_not_make_them():
    graph, truth = planted()
    measured: list[str] = []

    def wide(groups: list[set[str]], seed: int = 1):
        """Effects on 400 outcomes: members of a group share half of their variance, others share nothing."""

        def profiles(nodes):
            measured.extend(node.id for node in nodes)
            shared = np.random.default_rng(seed).normal(size=(len(groups), 400))
            own = [np.random.default_rng([seed, node.layer, node.index]).normal(size=400) for node in nodes]
            mine = [next((shared[i] for i, each in enumerate(groups) if node.id in each), 0) for node in nodes]
            return np.array(own) * 0.7 + np.array([np.broadcast_to(each, 400) for each in mine])

        return profiles

    judged = alike_groups(graph, latents(graph), wide(truth))
    assert {frozenset(each.nodes) for each in judged.held} == {frozenset(each) for each in truth}
    assert len(measured) == len(set(measured)), "no latent is ablated twice"
    assert {each.name for each in judged.held} == {each.name for each in find_supernodes(graph).groups}
    assert len(alike_groups(graph, latents(graph), wide(truth), most=2).groups) == 2
    # With nothing shared there is no group; with few outcomes some are alike by chance, and do not hold.
    assert alike_groups(graph, latents(graph), wide([])).groups == ()
    found = [alike_groups(graph, latents(graph), lambda nodes, s=s: wide([], s)(nodes)[:, :8]) for s in range(5)]
    assert min(len(each.groups) for each in found) > 0
    assert sum(len(each.held) for each in found) <= 1
    assert alike_groups(graph, latents(graph)[:1], wide(truth)).held == ()
    ends = {graph.number[node.id] for node in graph.nodes if not node.kept}
    stored = with_groups(graph, wide(truth), hidden=ends).groups
    assert {frozenset(each.nodes) for each in stored} == {frozenset(each) for each in truth}
    gone = {graph.number[node] for node in truth[0]}
    without = with_groups(graph, wide(truth), hidden=ends | gone).groups
    assert {frozenset(each.nodes) for each in without} == {frozenset(each) for each in truth[1:]}
    assert with_groups(graph, wide([]), hidden=ends).groups == ()


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
