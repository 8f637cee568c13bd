"""Why a head attended, in nodes of a graph: sums to the model's score, and names the part that was planted."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.circuits.score_explanation import explain_score
from interp.errors import PromptError, UnknownNameError
from interp.models.adapter import untrained_model
from interp.models.residual import ResidualStream
from interp.models.toys import planted_induction
from interp.tracing.edges import System
from interp.tracing.effects import push, reader_of, written_by
from interp.tracing.frozen import FrozenModel
from interp.tracing.loadings import head_loadings
from interp.tracing.reasons import attention_reasons
from interp.tracing.replacement import Neurons, NoReplacement
from interp.tracing.trace import open_system, trace
from tests.interp.architectures import ALL_NAMES, NORMED_KEYS, tiny
from tests.interp.tracing_graphs import CONFIG, DICTIONARIES, TOKENS, system_of

QUICK = replace(CONFIG, effects=0, nulls=False)


@pytest.mark.parametrize("name", [*ALL_NAMES, *NORMED_KEYS])
def test_reasons_sum_to_the_score_that_the_model_itself_has(name):
    model = tiny(name)
    graph, system = trace(model, TOKENS, Neurons(), QUICK), open_system(model, TOKENS, Neurons())
    for layer, head, query, key in ((1, 2, 6, 4), (1, 0, 6, 5), (0, 3, 5, 3), (1, 3, 0, 0)):
        found = attention_reasons(system, graph, f"L{layer}H{head}", query=query, key=key, paired=1000)
        known = explain_score(model, TOKENS, f"L{layer}H{head}", query=query, key=key)
        assert found.score == pytest.approx(known.score, rel=1e-4, abs=1e-5)
        assert found.relative_score == pytest.approx(known.relative_score, rel=1e-4, abs=1e-5)
        for side in (found.query_side, found.key_side):
            assert sum(share.value for share in side) == pytest.approx(found.relative_score, rel=1e-4, abs=1e-5)
        values = {share.node: share.value for share in found.query_side}
        assert [values[node] for node in found.paired] == pytest.approx(found.pairs.sum(1).tolist(), abs=1e-5)
        torch.testing.assert_close(torch.tensor(found.other_keys), known.other_keys, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.tensor(found.other_queries), known.other_queries, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dictionary", DICTIONARIES)
def test_a_pair_is_the_product_of_what_its_nodes_add_to_query_and_key(dictionary):
    """Nodes are pushed forwards, which shares no code with the rows that are pulled back."""
    model = tiny("llama-gqa")
    graph, system = trace(model, TOKENS, DICTIONARIES[dictionary](), QUICK), system_of("llama-gqa", dictionary)
    found = attention_reasons(system, graph, "L1H1", query=6, key=4)
    rotation, block = system.frozen.blocks[1].rotation, system.frozen.blocks[1]
    residual, positions = ResidualStream(model), torch.arange(system.frozen.n_pos)

    def added(node, side, index):
        before = push(system.frozen, *written_by(system, graph.node(node))).before[1]
        weight = model.blocks[1].ln1.original_component.weight[:, None] * residual.W(1, side)[index]
        return rotation(before / block.norm1.scale @ weight, positions)

    with torch.no_grad():
        for row in found.to_records()[:40]:
            if {row["key_node"], row["query_node"]} <= set(graph.number):
                query, keys = added(row["query_node"], "q", 1)[6], added(row["key_node"], "k", 0)
                scores = keys[:7] @ query / 8**0.5
                others = [0, 1, 2, 3, 5, 6]
                assert row["relative"] == pytest.approx(float(scores[4] - scores[others].mean()), abs=1e-5)


def reasons_of(model, tokens, pairs):
    graph = trace(model, tokens, NoReplacement(), replace(QUICK, node_share=1.0, edge_share=1.0))
    system = System(FrozenModel(model, tokens), NoReplacement())
    return [attention_reasons(system, graph, "L1H0", query=query, key=key) for query, key in pairs]


def test_the_planted_induction_head_attends_for_the_token_before_its_key_and_an_untrained_one_for_none():
    """L0H0 brings each token to the next position; L1H0 looks there for its own token."""
    tokens = torch.tensor([[3, 5, 7, 9, 1, 2, 3, 5, 7]])
    model = planted_induction()
    [found] = reasons_of(model, tokens, [(8, 3)])
    best = found.to_records()[0]
    assert (best["query_node"], best["key_node"]) == ("token:8:7", "token:2:7")  # not token:3:9, where it attends
    assert best["relative"] == pytest.approx(found.relative_score, rel=1e-3)
    assert found.key_side[0].above
    assert found.relative_score > 10 * max(found.other_keys.max(), 1)
    fresh = [untrained_model(model, seed) for seed in range(5)]
    nulls = [null for each in fresh for null in reasons_of(each, tokens, [(8, 3), (7, 2), (8, 6)])]
    assert np.mean([null.key_side[0].above for null in nulls]) < 0.5
    assert max(abs(null.relative_score) for null in nulls) < 0.05 * found.relative_score


def test_the_largest_nodes_that_a_graph_left_out_are_named_with_their_own_share():
    model = tiny("llama-gqa")
    system = open_system(model, TOKENS, Neurons())
    graphs = [trace(model, TOKENS, Neurons(), replace(QUICK, max_feature_nodes=n, node_share=1.0)) for n in (6, 1000)]
    small, whole = (attention_reasons(system, graph, "L1H1", query=6, key=4) for graph in graphs)
    assert not set(small.left_out) & set(graphs[0].number)
    nodes = set(graphs[1].number) | set(whole.left_out)
    for side, true in ((small.query_side, whole.query_side), (small.key_side, whole.key_side)):
        value = {share.node: share.value for share in true}
        for share in side:
            if share.node in nodes.intersection(small.left_out):
                assert share.value == pytest.approx(value[share.node], abs=1e-6)
        missing = [share.node for share in true if share.node in nodes.difference(graphs[0].number)]
        assert set(missing[:3]) <= set(small.left_out), "the largest are named"


def test_requests_that_mean_nothing_are_refused():
    model = tiny("gemma-3")
    graph, system = trace(model, TOKENS, Neurons(), QUICK), open_system(model, TOKENS, Neurons())
    with pytest.raises(PromptError, match="layer 0 can see"):
        attention_reasons(system, graph, "L0H0", query=6, key=1)  # outside its window of four tokens
    with pytest.raises(PromptError, match="key <= query"):
        attention_reasons(system, graph, "L1H0", query=1, key=2)
    with pytest.raises(UnknownNameError, match="L9H0"):
        attention_reasons(system, graph, "L9H0", query=1, key=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "dictionary"),
    [("gpt2", "neurons"), ("llama-gqa", "jumprelu skip"), ("neox", "cross-layer skip"), ("gemma-2", "neurons")],
)
def test_a_loading_is_what_the_edges_lose_without_the_head(name, dictionary):
    """Every edge is traced again with the head's attention set to 0, all else as it was."""
    few = replace(QUICK, max_feature_nodes=24)
    graph, system = trace(tiny(name), TOKENS, DICTIONARIES[dictionary](), few), system_of(name, dictionary)
    found = head_loadings(system, graph)
    weight = [target.weight for target in graph.targets]
    influence = [weight[node.index] if node.kind == "logit" else node.influence for node in graph.nodes]
    edges = graph.edges
    targets = sorted({int(target) for target in edges.target})
    for layer, head in ((0, 1), (1, 2)):
        without = system_of(name, dictionary)
        pattern = without.frozen.blocks[layer].pattern.clone()
        pattern[head] = 0
        frozen = copy(without.frozen)
        frozen.blocks = [replace(b, pattern=pattern) if at == layer else b for at, b in enumerate(frozen.blocks)]
        lost = 0.0
        for target in targets:
            reader = reader_of(system, graph, graph.nodes[target])
            into = edges.target == target
            weights, sources = edges.weight[into], edges.source[into]
            changed = []
            for source in sources.tolist():
                pushed = push(frozen, *written_by(without, graph.nodes[source]))
                states = torch.stack([*pushed.inputs, pushed.final])
                changed.append(float(states[int(reader.layer), int(reader.position)] @ reader.read[0]))
            lost += influence[target] / abs(weights).sum() * (np.sign(weights) @ (weights - np.array(changed)))
        assert found.shares[layer, head] == pytest.approx(lost / sum(influence[t] for t in targets), abs=1e-4)
    assert found.shares.max() > 0.01


def test_the_planted_heads_carry_the_graph_of_induction():
    model, tokens = planted_induction(), torch.tensor([[3, 5, 7, 9, 1, 2, 3, 5, 7]])
    graph = trace(model, tokens, NoReplacement(), replace(QUICK, node_share=1.0, edge_share=1.0))
    found = head_loadings(System(FrozenModel(model, tokens), NoReplacement()), graph)
    best = found.to_records()[0]
    assert best["head"] == "L1H0"
    assert best["loading"] == pytest.approx(1, abs=1e-4)
    assert found.shares[0, 0] == pytest.approx(0, abs=1e-4)  # it acts through the key of L1H0, whose attention is held
    assert found.crossing == pytest.approx(1, abs=1e-4)
