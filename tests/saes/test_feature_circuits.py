"""Circuits of features: the planted one is found, judged and saved; nothing is claimed where nothing is."""

from dataclasses import replace

import pytest
import torch
from placed import random_sae, random_task, tiny
from planted_pair import ANSWER, SCORE, STRENGTH, A, B, perfect_dictionaries, planted_pair, planted_task

from interp.artifacts import open_artefact, save_artefact
from interp.circuits.circuit import Circuit
from interp.errors import ConfigError, MissingError, UnknownNameError
from interp.interventions.apply import hooks_of
from interp.interventions.intervention import Intervention, Latent
from saes.circuits.attribution import FeatureNode, measure
from saes.circuits.feature_circuit import AttributionConfig, FeatureCircuit, FeatureCircuitConfig
from saes.circuits.find import FeatureBench, find_feature_circuit
from saes.circuits.sites import MeasuredPrompts
from saes.evaluation.baselines import random_dictionary_like

CONFIG = FeatureCircuitConfig(attribution=AttributionConfig(steps=3), n_features=4, verify=3, n_random=10)


@pytest.fixture(scope="module")
def planted():
    model = planted_pair()
    task = planted_task(model)
    return task, find_feature_circuit(model, perfect_dictionaries(), task, CONFIG)


def test_the_planted_circuit_is_two_features_and_two_edges(planted):
    circuit = planted[1].circuit
    strong = {node.name for node in circuit.nodes if abs(node.effect or 0) > 1e-6}
    assert strong == {f"L0resid.{A}", f"L1resid.{B}"}
    edges = {(edge.source, edge.target): edge.score for edge in circuit.edges if abs(edge.score) > 1e-6}
    assert edges == pytest.approx(
        {(f"L0resid.{A}", f"L1resid.{B}"): SCORE, (f"L1resid.{B}", "logits"): SCORE}, rel=1e-5
    )


def test_the_planted_circuit_does_all_of_the_task_and_nothing_else_any_of_it(planted):
    evaluation = planted[1].evaluation
    assert evaluation.faithfulness.estimate == pytest.approx(1)
    assert evaluation.without_errors.estimate == pytest.approx(1)
    assert evaluation.completeness == pytest.approx(0, abs=1e-6)
    assert evaluation.errors_alone == pytest.approx(0, abs=1e-6)
    assert evaluation.all_features == pytest.approx(1)
    assert evaluation.random_circuits.mean < 0.5
    assert planted[1].verdict.holds, planted[1].verdict.reason


def with_others(**reads: float):
    """Return the planted pair, in whose A-token lie further directions that the answer's logit reads so much."""
    model = planted_pair()
    with torch.no_grad():
        for direction, read in enumerate(reads.values(), 24):
            model.W_E[A, direction] = STRENGTH
            model.unembed.original_component.weight[ANSWER, direction] = read
    return model


def attacked(model, n_prompts: int = 6) -> FeatureCircuit:
    config = FeatureCircuitConfig(attribution=AttributionConfig(steps=3), n_features=1, verify=0, nulls=False)
    return find_feature_circuit(model, perfect_dictionaries(), planted_task(model, n_prompts), config)


def test_a_helper_and_a_hurter_that_cancel_are_faithful_in_the_mean_and_break_under_attack():
    found = attacked(with_others(helps=3.0, hurts=-3.0))
    assert found.evaluation.faithfulness.estimate == pytest.approx(1)
    assert found.attacked.n_helpers == 2, "the direction at both hook points"
    assert found.attacked.worst.left.estimate == pytest.approx(1 - STRENGTH * 3 / SCORE)
    assert found.stands is False
    assert found.under_attack()[0].endswith("it breaks")
    assert found.under_attack()[0] in found.details()


def test_a_circuit_that_does_nearly_all_stands_and_its_random_rivals_do_not():
    found = attacked(with_others(helps=0.1))
    assert found.attacked.worst.left.estimate == pytest.approx(1 - 0.2 / (SCORE + 0.2))
    assert max(found.attacked.random_circuits) < 0.1, "their helpers are the circuit"
    assert min(found.attacked.random_outsiders) > 0.9
    assert found.stands is True
    one = attacked(with_others(helps=0.1), n_prompts=1)
    assert one.stands is None, "one prompt does not say how far prompts differ"
    assert one.under_attack()[0].endswith("undecided")


def test_an_attack_without_helpers_says_so_and_the_circuit_does_not_stand():
    found = attacked(planted_pair())
    assert (found.attacked.n_helpers, found.attacked.worst, found.stands) == (0, None, None)
    assert found.under_attack() == [f"worst case: none of the {found.attacked.n_outside} features outside helps, so "
                                    "nothing was attacked"]  # fmt: skip
    unmeasured = replace(found, attacked=None)
    assert unmeasured.stands is None
    assert "found before it was" in unmeasured.under_attack()[0]


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_everything_left_is_the_model_and_nothing_left_is_the_replacement(ablation):
    model = tiny("llama-gqa")
    saes = [random_sae("jumprelu", 0), random_sae("skip_transcoder", 1, 1), random_sae("layer_norm", 1, 2)]
    task = random_task(model, n=5)
    network = measure(model, saes, MeasuredPrompts.of_task(task), AttributionConfig(method="gradient", batch_size=2))
    bench = FeatureBench(network, ablation)
    torch.testing.assert_close(bench.values(bench.all_features(errors=True)), task.clean_value, atol=1e-4, rtol=1e-4)
    empty = bench.values(bench.nodes([]))
    if ablation == "resample":  # the last place is all of the stream: its value is then the corrupted one
        torch.testing.assert_close(empty, task.corrupt_value, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(empty, task.clean_value, atol=1e-2)


def test_one_feature_taken_out_is_its_ablation():
    """Against the hooks of `interp.interventions`."""
    model, sae = tiny("native-ln"), random_sae("topk", 0)
    task = random_task(model)
    network = measure(model, [sae], MeasuredPrompts.of_task(task), AttributionConfig(method="gradient"))
    feature = next(node.feature for node in network.strongest(1) if node.feature is not None)
    left = FeatureBench(network, "zero")
    kept = left.all_features(errors=True)
    kept.features[0][feature] = False
    step = Intervention(target=Latent(dictionary="sae", index=feature), action="ablate", positions=(0, None))
    with torch.no_grad():
        logits = model.run_with_hooks(task.clean, fwd_hooks=hooks_of(model, [step], {"sae": sae}))[:, -1:]
    torch.testing.assert_close(left.values(kept), task.metric(logits).double(), atol=1e-5, rtol=1e-4)


def test_the_mean_is_that_of_the_corrupted_prompts_at_each_position():
    model, sae = tiny("native-raw"), random_sae("relu", 1)
    task = random_task(model, n=4)
    network = measure(model, [sae], MeasuredPrompts.of_task(task), AttributionConfig(method="gradient", batch_size=3))
    bench = FeatureBench(network, "mean")
    with torch.no_grad():
        _, cache = model.run_with_cache(task.corrupt)
        mean = cache[sae.hook_point].mean(0, keepdim=True)
        logits = model.run_with_hooks(task.clean, fwd_hooks=[(sae.hook_point, lambda v, hook: mean.expand_as(v))])
    torch.testing.assert_close(
        bench.values(bench.nodes([])), task.metric(logits[:, -1:]).double(), atol=1e-4, rtol=1e-4
    )


def test_an_untrained_model_has_no_circuit():
    """Random weights, random dictionaries, random prompts: nodes and edges get scores, and none is believed."""
    model = tiny("native-ln")
    saes = [random_sae("topk", 0), random_sae("topk", 1, 1)]
    found = find_feature_circuit(model, saes, random_task(model, n=4), CONFIG)
    assert found.circuit.edges
    assert found.verdict.holds is False
    assert "gap of an untrained model" in found.verdict.reason


def test_an_untrained_dictionary_explains_less_and_leaves_more_to_its_error():
    model, task = planted_pair(), planted_task(planted_pair())
    found = find_feature_circuit(model, perfect_dictionaries(), task, CONFIG)
    null = found.untrained_saes
    assert null.all_features < 0.7 < found.evaluation.all_features
    assert null.without_errors < 0.5 < found.evaluation.without_errors.estimate
    for kind in ("topk", "skip_transcoder"):
        sae = random_sae(kind, 0)
        twin = random_dictionary_like(sae, k=6)
        assert (twin.d_in, twin.d_sae, twin.hook_point_out) == (sae.d_in, sae.d_sae, sae.hook_point_out)
        assert not torch.allclose(twin.W_dec, sae.W_dec)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_strong_edges_rank_as_patching_them_does_and_random_ones_are_weak(seed):
    model = tiny("llama-gqa")
    saes = [random_sae("jumprelu", 0, seed), random_sae("jumprelu", 1, seed + 10)]
    config = FeatureCircuitConfig(n_features=10, verify=30, n_random=2, nulls=False, seed=seed)
    edges = find_feature_circuit(model, saes, random_task(model, seed=seed), config).agreement
    assert edges.spearman.estimate > 0.5, edges
    assert edges.spearman.low > 0, edges
    assert edges.random_mean_abs_exact < edges.mean_abs_exact / 3, edges


def test_a_circuit_is_read_back_as_it_was_found(planted, tmp_path):
    save_artefact(planted[1], tmp_path / "c")
    again = open_artefact(FeatureCircuit, tmp_path / "c")
    assert again.attacked == planted[1].attacked is not None
    assert Circuit.load(tmp_path / "c") == again.circuit == planted[1].circuit
    best = again.edge_scores.rows()[0]
    assert (best.source, best.target) in {(f"L0resid.{A}", f"L1resid.{B}"), (f"L1resid.{B}", "logits")}
    assert best.exact == pytest.approx(SCORE, rel=1e-5)
    assert {row.node for row in again.node_scores.rows()[:2]} == {f"L0resid.{A}", f"L1resid.{B}"}
    with pytest.raises(MissingError):
        Circuit.load(tmp_path / "d")


def test_labels_travel_with_their_features():
    model = planted_pair()
    labels = [[f"coordinate {i}" for i in range(32)], ["later"] * 32]
    found = find_feature_circuit(model, perfect_dictionaries(), planted_task(model), CONFIG, labels=labels)
    found_labels = {node.name: node.label for node in found.circuit.nodes}
    assert found_labels[f"L0resid.{A}"] == f"coordinate {A}"
    assert found_labels[f"L1resid.{B}"] == "later"
    assert found_labels["L0resid.error"] is None


def test_bad_settings_are_refused():
    model, sae = tiny("native-raw"), random_sae("topk", 0)
    prompts = MeasuredPrompts.of_task(random_task(model))
    alone = MeasuredPrompts(
        name="p", tokens=prompts.tokens, lengths=prompts.lengths, at=prompts.at, metric=prompts.metric
    )
    network = measure(model, [sae], alone, AttributionConfig(method="gradient"))
    with pytest.raises(ConfigError, match="needs corrupted prompts"):
        FeatureBench(network, "resample")
    with pytest.raises(UnknownNameError, match="resample"):
        FeatureBench(network, "resampel")  # pyright: ignore[reportArgumentType]
    for wrong in ({"n_features": 0}, {"verify": -1}, {"n_random": 0}):
        with pytest.raises(ConfigError, match="at least"):
            FeatureCircuitConfig(**wrong)
    assert network.name(FeatureNode(0, None)) == "L0resid.error"
