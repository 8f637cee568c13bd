"""Edges between features: the planted cause and no other, the chain rule, and patching one edge."""

import pytest
import torch
from placed import RESID, random_sae, random_task, tiny
from planted_pair import SCORE, A, B, perfect_dictionaries, planted_pair, planted_task

from saes.circuits.attribution import (
    AttributionConfig,
    FeatureNode,
    edge_scores,
    exact_edges,
    exact_effects,
    measure,
)
from saes.circuits.sites import MeasuredPrompts

GRADIENT = AttributionConfig(method="gradient", batch_size=3)


def all_nodes(network):
    return [FeatureNode(i, feature) for i, active in enumerate(network.active) for feature in [*active.tolist(), None]]


def switched_off(task) -> MeasuredPrompts:
    """The clean prompts alone."""
    return MeasuredPrompts(name="p", tokens=task.clean, lengths=task.lengths, at=task.at, metric=task.metric)


@pytest.fixture(scope="module")
def planted():
    model = planted_pair()
    return measure(
        model, perfect_dictionaries(), MeasuredPrompts.of_task(planted_task(model)), AttributionConfig(steps=3)
    )


def test_the_planted_edge_is_found_with_its_score_and_no_other(planted):
    scores = edge_scores(planted, all_nodes(planted))
    cause, effect = FeatureNode(0, A), FeatureNode(1, B)
    expected = {(cause, effect): SCORE, (effect, None): SCORE}
    assert {edge for edge, score in scores.items() if abs(score) > 1e-5} == set(expected)
    for edge, score in expected.items():
        assert scores[edge] == pytest.approx(score, rel=1e-5)
    assert planted.effect(cause) == pytest.approx(SCORE, rel=1e-5)
    assert planted.effect(effect) == pytest.approx(SCORE, rel=1e-5)
    assert planted.name(cause) == f"L0resid.{A}"


def test_patching_the_planted_edge_alone_takes_the_whole_effect(planted):
    edges = list(edge_scores(planted, all_nodes(planted)))
    exact = dict(zip(edges, exact_edges(planted, edges).tolist(), strict=True))
    found = {edge: effect for edge, effect in exact.items() if abs(effect) > 1e-5}
    assert found == pytest.approx(
        {(FeatureNode(0, A), FeatureNode(1, B)): SCORE, (FeatureNode(1, B), None): SCORE}, rel=1e-5
    )


@pytest.mark.parametrize("paired", [False, True], ids=["switched off", "corrupted"])
@pytest.mark.parametrize("architecture", ["native-ln", "llama-gqa"])
@pytest.mark.parametrize("kinds", [("relu", "gated"), ("jumprelu", "layer_norm")], ids="-".join)
def test_edges_out_of_a_node_add_up_to_its_effect(architecture, kinds, paired):
    """The chain rule, errors included: nothing is lost and nothing counted twice."""
    model = tiny(architecture)
    saes = [random_sae(kind, layer, layer, d_sae=48) for layer, kind in enumerate(kinds)]
    _check_chain_rule(model, saes, paired)


@pytest.mark.parametrize(("architecture", "kind"), [("native-rms", "skip_transcoder"), ("neox", "transcoder")], ids=str)
def test_edges_add_up_past_transcoders_too(architecture, kind):
    """Four places: what an MLP's transcoder reads lies before what it writes, and the stream goes round it."""
    places = [(kind, 0), ("topk", 0), (kind, 1), ("relu", 1)]
    saes = [random_sae(each, layer, seed, d_sae=36) for seed, (each, layer) in enumerate(places)]
    _check_chain_rule(tiny(architecture), saes, paired=True)


def _check_chain_rule(model, saes, paired):
    prompts = MeasuredPrompts.of_task(random_task(model))
    network = measure(model, saes, prompts if paired else switched_off(random_task(model)), GRADIENT)
    scores = edge_scores(network, all_nodes(network))
    assert len({target for _, target in scores}) > 3
    for node in all_nodes(network):
        out = sum(score for (source, _), score in scores.items() if source == node)
        assert out == pytest.approx(network.effect(node), abs=2e-5), network.name(node)
    assert max(abs(network.effect(node)) for node in all_nodes(network)) > 0.05


def test_edges_into_a_node_add_up_to_its_effect_where_all_is_linear():
    """Between two places joined by the stream alone, everything a later node has came from the earlier ones."""
    model, (first, second) = planted_pair(), perfect_dictionaries()
    with torch.no_grad():
        getattr(model.blocks[1].mlp, "in").original_component.weight.zero_()
        model.unembed.original_component.weight.copy_(torch.randn(12, 32, generator=torch.Generator().manual_seed(1)))
        second.W_dec *= 0.7  # so that it has an error
    network = measure(model, [first, second], switched_off(random_task(model, length=4)), GRADIENT)
    scores = edge_scores(network, all_nodes(network))
    later = [node for node in all_nodes(network) if node.site == 1]
    assert len(later) > 5
    for node in later:
        into = sum(score for (_, target), score in scores.items() if target == node)
        assert into == pytest.approx(network.effect(node), abs=1e-5), network.name(node)


def test_batches_change_no_edge():
    model, saes = tiny("llama-gqa"), [random_sae("topk", 0), random_sae("relu", 1)]
    prompts = MeasuredPrompts.of_task(random_task(model, n=5))
    found = []
    for size in (5, 2):
        network = measure(model, saes, prompts, AttributionConfig(steps=2, batch_size=size))
        nodes = network.strongest(6)
        scores = edge_scores(network, nodes)
        edges = list(scores)[:12]
        found.append((nodes, scores, exact_edges(network, edges)))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-5, rtol=1e-4)


def test_exact_edges_to_the_logits_are_ablations_where_no_site_follows():
    model, sae = tiny("llama-gqa"), random_sae("topk", 1)
    prompts = MeasuredPrompts.of_task(random_task(model))
    network = measure(model, [sae], prompts, GRADIENT)
    features = [node.feature for node in network.strongest(5) if node.feature is not None]
    exact = exact_edges(network, [(FeatureNode(0, feature), None) for feature in features])
    torch.testing.assert_close(exact, exact_effects(model, sae, prompts, features), atol=1e-6, rtol=1e-4)
    assert network.sites[0].writes == RESID.format(1)
