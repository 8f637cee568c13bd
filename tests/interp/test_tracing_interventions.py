"""Interventions on a traced prompt: effects as the graph predicts them, random latents as controls, bad requests."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import ConfigError
from interp.models.adapter import available_hook_points
from interp.models.small import SmallConfig, build_small
from interp.tracing import effects
from interp.tracing.edges import System
from interp.tracing.effects import ablation, final_states, measure, predicted_effects, set_latent
from interp.tracing.frozen import FrozenModel
from interp.tracing.interventions import changes_of, continuations, intervene
from interp.tracing.part import graph_effects
from interp.tracing.replacement import Neurons
from interp.tracing.trace import assemble, trace
from tests.interp.architectures import ALL_NAMES, NAMES, tiny
from tests.interp.tracing_graphs import CONFIG, DICTIONARIES, TOKENS, aim_of, planted, system_of


def test_ablating_a_link_of_the_planted_chain_takes_the_whole_logit_and_random_latents_nothing():
    model, tokens = planted(), torch.tensor([[0, 3, 5]])
    graph = trace(model, tokens, Neurons(), replace(CONFIG, effects=0))
    system = System(FrozenModel(model, tokens), Neurons())
    found = intervene(system, changes_of(graph, ["feature:0:2:2"]), graph)
    assert found.measured == pytest.approx(found.predicted, rel=1e-5)
    assert found.predicted == pytest.approx(-36 * 0.9, rel=1e-5)
    assert found.random_low == found.random_high == 0
    assert found.p == 1 / 20
    assert found.tokens[0]["after"] == pytest.approx(0.1, abs=1e-6)  # all ten tokens are alike again


def test_the_planted_graph_alone_keeps_the_answer_and_without_its_helper_outside_less():
    """Outside the chain a neuron adds 10 and another one takes 10 away: the mean is whole, the worst case is not."""
    model, tokens = planted(), torch.tensor([[0, 3, 5]])
    with torch.no_grad():
        for neuron, out in ((5, 10.0), (6, -10.0)):
            model.blocks[1].mlp.W_in[0, neuron] = 1.0
            model.blocks[1].mlp.W_out[neuron, 2] = out
    graph = trace(model, tokens, Neurons(), CONFIG)
    system = System(FrozenModel(model, tokens), Neurons())
    read = effects.read_of(system, graph)
    first_order = effects.first_order_effects(system, read[None])[0, : system.n_features]
    found = effects.measure_sufficiency(system, system.latent == 2, first_order, read, seed=0, n_random=8)
    assert (found.n_outside, found.n_helpers) == (2, 1)
    assert [found.whole, found.alone, found.worst, found.empty] == pytest.approx([32.4, 32.4, 23.4, 0], abs=1e-4)
    assert found.worst_random == pytest.approx((23.4, 41.4))  # one of the two, of the same layer and position
    assert found.alone_random[0] < 32
    assert "keeps 32.40 of 32.40 logits" in found.lines()[0]
    assert (
        "the 1 of 2 other latents that help: 23.40 (without as many random others 23.40 to 41.40)" in found.lines()[1]
    )
    assert graph.sufficiency is not None
    assert graph.sufficiency.lines()[0] in graph.details()
    assert (graph.sufficiency.whole, graph.sufficiency.empty) == pytest.approx((32.4, 0), abs=1e-4)


@pytest.mark.parametrize("dictionary", DICTIONARIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_run_without_latents_takes_out_what_they_write_in_this_run(name, dictionary):
    """With those of one layer alone nothing before them changes, so that their clean writes are taken out."""
    system = system_of(name, dictionary)
    clean = effects.final_input(system.frozen, system.frozen.resid_post[-1])
    point = f"blocks.0.{system.replacement.watch(0)[0]}"
    if not system.n_features or point not in available_hook_points(system.frozen.model):
        return
    for layer in range(2):
        out = system.layer == layer
        expected = final_states(system, [[ablation(system, i) for i in out.nonzero()[:, 0].tolist()]])[0]
        torch.testing.assert_close(effects._without(system, out) - clean, expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_ablations_that_reuse_keys_and_values_of_earlier_positions_are_those_of_whole_passes(name, monkeypatch):
    system, plain, lengths = system_of(name, "neurons"), effects.run_from, []
    chosen = (system.position >= 3).nonzero().flatten()[::5].tolist()
    runs = [[ablation(system, i)] for i in chosen] + [[]]

    def noting(model, value, *arguments, **options):
        lengths.append(value.shape[1])
        return plain(model, value, *arguments, **options)

    monkeypatch.setattr(effects, "run_from", noting)
    short, used = final_states(system, runs), min(lengths)
    monkeypatch.setattr(effects, "LEAST_PAST", 99)
    whole = final_states(system, runs)
    torch.testing.assert_close(short, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))
    assert (used < system.frozen.n_pos) == (not name.startswith("native"))  # which keep no keys and values


def test_without_norms_and_with_patterns_frozen_the_prediction_is_the_effect():
    """With ReLU neurons a small change flips none of them, so that the frozen model is the model itself."""
    model = relu_model()
    system = System(FrozenModel(model, torch.tensor([[1, 4, 2, 9, 3]])), Neurons())
    aim = aim_of(system)
    adjacency = assemble(system, aim, CONFIG)
    predicted = predicted_effects(adjacency, system.layer.numpy(), system.activation.numpy())
    tried = np.argsort(-np.abs(predicted))[:20]
    step = 1e-3
    changes = [[replace(ablation(system, int(i)), action="scale", amount=1 - step)] for i in tried]
    measured = -measure(system, changes, aim.starts.read[0], "attention").numpy() / step
    np.testing.assert_allclose(measured, predicted[tried], rtol=0.05, atol=1e-3 * np.abs(predicted).max())


@pytest.mark.parametrize("name", ["gpt2", "gemma-2"])
def test_in_direct_mode_an_effect_is_the_edge_and_in_a_range_it_does_not_compound(name):
    system = system_of(name, "neurons")
    aim = aim_of(system)
    adjacency = assemble(system, aim, CONFIG)
    late = int((system.layer == 0).nonzero()[7])
    change = [[ablation(system, late)]]
    direct = -measure(system, change, aim.starts.read[0], "direct")
    assert float(direct) == pytest.approx(float(adjacency.row_of_target()[late]), abs=1e-5)
    whole = -measure(system, change, aim.starts.read[0], "range", range(2))
    torch.testing.assert_close(whole, direct)
    free = float(-measure(system, change, aim.starts.read[0], "free"))
    attention = float(-measure(system, change, aim.starts.read[0], "attention"))
    part = float(-measure(system, change, aim.starts.read[0], "range", range(1, 2)))
    assert len({round(value, 7) for value in (free, attention, part, float(direct))}) == 4


def relu_model(layers: int = 3) -> Any:
    config = SmallConfig(
        d_model=16, n_heads=2, d_mlp=32, d_vocab=20, n_ctx=8, normalization=None, act_fn="relu", n_layers=layers
    )
    model = build_small(config, seed=1, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return model


def test_an_intervention_stands_beside_its_prediction_and_random_latents():
    model, tokens = relu_model(), torch.tensor([[1, 4, 2, 9, 3]])
    everything = replace(CONFIG, node_share=1.0, edge_share=1.0, effects=0)
    graph = trace(model, tokens, Neurons(), everything)
    system = System(FrozenModel(model, tokens), Neurons())
    effects = graph_effects(graph)
    best = sorted(range(len(effects)), key=lambda i: -abs(effects[i]) * (graph.nodes[i].kind == "feature"))[:2]
    changes = changes_of(graph, [graph.nodes[i].id for i in best], factor=0.999)
    found = intervene(system, changes, graph)
    assert found.measured == pytest.approx(found.predicted, rel=0.05)
    assert found.predicted == pytest.approx(-0.001 * effects[best].sum(), rel=1e-3)
    assert found.random_low <= found.random_mean <= found.random_high
    assert sum(row["after"] for row in found.tokens) <= 1 + 1e-6
    nothing = intervene(system, changes_of(graph, [graph.nodes[best[0]].id], factor=1.0), graph)
    assert nothing.measured == pytest.approx(0, abs=1e-6 * abs(nothing.clean))  # logits of millions, in float32
    assert nothing.p > 0.9


def test_interventions_refuse_what_they_cannot_change():
    model = tiny("gpt2")
    graph = trace(model, TOKENS, Neurons(), replace(CONFIG, effects=0))
    system = System(FrozenModel(model, TOKENS), Neurons())
    with pytest.raises(ConfigError, match="not a latent"):
        changes_of(graph, ["token:1:5"])
    with pytest.raises(ConfigError, match="at least one"):
        intervene(system, [], graph)
    with pytest.raises(ConfigError, match="outside the prompt"):
        intervene(system, [set_latent(0, 99, 1, 0.0)], graph)
    with pytest.raises(ConfigError, match="at one position or from one on"):
        intervene(system, [replace(set_latent(0, 1, 1, 0.0), positions=None)], graph)
    other = System(FrozenModel(model, TOKENS[:, :4]), Neurons())
    with pytest.raises(ConfigError, match="another prompt"):
        intervene(other, [set_latent(0, 1, 1, 0.0)], graph)
    with pytest.raises(ConfigError, match="range"):
        intervene(system, [set_latent(0, 1, 1, 0.0)], graph, mode="range")


def test_continuations_follow_the_changed_model_step_by_step():
    """The planted chain: token 5 makes 7 likely. Ablated onwards, its link is silent; random ones change nothing."""
    model, tokens = planted(), torch.tensor([[0, 3, 5]])
    with torch.no_grad():
        model.embed.original_component.weight[7, 0] = 1.0  # 7 leads to 7 again
    system = System(FrozenModel(model, tokens), Neurons())
    link = set_latent(0, 2, 2, 0.0, onwards=True)
    found = continuations(system, [link], n_tokens=3, n_random=1)
    assert found.clean == "777" == found.random[0]
    assert "7" not in found.changed
    once = continuations(system, [set_latent(0, 2, 2, 0.0)], n_tokens=2, n_random=1)
    assert once.changed != "77"
    with pytest.raises(ConfigError, match="free or attention"):
        continuations(system, [link], mode="direct")


def test_a_change_onwards_is_one_change_at_every_later_position():
    system = system_of("gpt2", "neurons")
    onwards = final_states(system, [[set_latent(0, 4, 3, 1.0, onwards=True)]])
    each = final_states(system, [[set_latent(0, position, 3, 1.0) for position in (4, 5, 6)]])
    torch.testing.assert_close(onwards, each)


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa"])
def test_texts_written_together_are_those_of_encoding_the_whole_text_at_each_token(name):
    system = system_of(name, "neurons")
    changes = [set_latent(0, 2, 3, 4e3), set_latent(1, 6, 1, -4e3)]
    idle = replace(set_latent(0, 2, 4, 1.0, onwards=True), action="scale")  # onwards, so each text is encoded alone
    texts = []
    for each in (changes, [set_latent(1, 6, 2, 6e3)]):
        together, alone = (continuations(system, some, n_tokens=4) for some in (each, [*each, idle]))
        texts += [together.clean, together.changed]
        assert texts[-2:] == [alone.clean, alone.changed]
    assert len({*texts}) > 1, "the changes are too small to test anything"
