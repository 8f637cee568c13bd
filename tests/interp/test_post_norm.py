"""Post-norm models (Gemma 2 and 3): shares at a held scale, the frozen model, and a planted circuit that is found."""

import numpy as np
import pytest
import torch

from interp.circuits._edge_runs import Bench, collect, minus, outputs
from interp.circuits.attribution import attribute
from interp.circuits.circuit import edge_text
from interp.circuits.config import EvaluationConfig, FindConfig, HeadScoresConfig, InductionConfig
from interp.circuits.find import find_circuit
from interp.circuits.graph import Graph
from interp.circuits.head_kinds import score_heads
from interp.circuits.head_weights import copying
from interp.circuits.induction import find_induction_circuit
from interp.circuits.score_explanation import explain_score
from interp.circuits.tasks import induction_task
from interp.errors import ConfigError
from interp.lenses.direct_attribution import direct_logit_attribution
from interp.models.adapter import final_norm_and_unembed, run_with_cache, run_with_hooks, untrained_model, weight_hash
from interp.models.loading import known_models, load_model
from interp.models.residual import FROZEN, ResidualStream, norm_of
from interp.models.toys import planted_post_norm
from interp.names import HeadName
from interp.patching.paths import PathPatcher, path_patch
from tests.interp.architectures import POST_NORM, gain, hold_post_norm, new_tiny, tiny
from tests.interp.circuit_tasks import random_task

PLANTED = ["L1H0 -> logits", "L0H0 -k-> L1H0", "embed -v-> L0H0", "embed -v-> L1H0"]
"""The planted edges whose values differ between clean and corrupted prompts; the others carry the constant."""


@pytest.fixture(scope="module")
def planted():
    return planted_post_norm()


@pytest.fixture(scope="module")
def task(planted):
    return induction_task(planted, n_prompts=16, seed=1)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(2))


def cached(model, tokens, *names):
    _, cache = run_with_cache(model, tokens, list(names))
    return [cache[name] for name in names]


@pytest.mark.parametrize("name", POST_NORM)
def test_the_stream_is_the_sum_of_shares_and_not_of_raw_outputs(name, tokens):
    model = tiny(name)
    stream = ResidualStream(model)
    assert stream.check_additive() < 1e-6
    before, z, mlp, after = cached(
        model, tokens, *(f"blocks.0.{each}" for each in ("hook_resid_pre", "attn.hook_z", "hook_mlp_out")),
        "blocks.1.hook_resid_pre",
    )  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(before, model.W_E[tokens] * 32**0.5, msg="embeddings are scaled by sqrt(d_model)")
        heads = stream.head_output(0, z)
        torch.testing.assert_close(before + heads.sum(2) + mlp, after, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(stream.head_output(0, z, 3), heads[:, :, 3])
        raw = torch.einsum("bphd,hdm->bpm", z, model.blocks[0].attn.W_O)
        assert float((before + raw + mlp - after).norm() / after.norm()) > 0.05, "the norm must matter"
        root = (raw.double().pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        by_hand = (
            z[:, :, 1] @ model.blocks[0].attn.W_O[1] / root * gain(name, model.blocks[0].ln1_post.original_component)
        )
        torch.testing.assert_close(heads[:, :, 1], by_hand.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", POST_NORM)
def test_gains_are_one_plus_the_weight_even_where_it_is_zero(name):
    model = new_tiny(name)
    for norm in ("ln1", "ln1_post", "ln2", "ln2_post"):
        module = getattr(model.blocks[1], norm).original_component
        read = norm_of(model.blocks[1], norm, 32)
        torch.testing.assert_close(read.gain, 1 + module.weight.detach())
        with torch.no_grad():
            module.weight.zero_()
        assert torch.equal(norm_of(model.blocks[1], norm, 32).gain, torch.ones(32))


@pytest.mark.parametrize("name", POST_NORM)
def test_the_mlp_and_the_logits_of_a_stream_are_the_models(name, tokens):
    model = tiny(name)
    stream = ResidualStream(model)
    middle, mlp, final = cached(
        model, tokens, "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"
    )
    with torch.no_grad():
        torch.testing.assert_close(stream.mlp(1, middle), mlp, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(final_norm_and_unembed(model, final), model(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", POST_NORM)
def test_a_held_norm_gives_each_head_its_own_change_whatever_the_others_do(name, tokens):
    model = tiny(name)
    held = ResidualStream(model).frozen_at(tokens)
    (z, added) = cached(model, tokens, "blocks.0.attn.hook_z", "blocks.0.hook_attn_out")
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))

    def added_with(heads, hooks):
        seen = {}
        moved = z.clone()
        moved[:, :, heads] += noise[:, :, heads]
        patch = ("blocks.0.attn.hook_z", lambda value, hook: moved)
        keep = ("blocks.0.hook_attn_out", lambda value, hook: seen.update(out=value.detach()))
        run_with_hooks(model, tokens, [*hooks, patch, keep])
        return seen["out"] - added

    scale, weight = held.held_scale(0), held.W_write(0)
    with torch.no_grad():
        own = [noise[:, :, head] @ weight[head] / scale for head in range(4)]
    torch.testing.assert_close(added_with([1], held.freezing_hooks()), own[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        added_with([0, 1, 3], held.freezing_hooks()), own[0] + own[1] + own[3], rtol=1e-4, atol=1e-5
    )
    assert float((added_with([1], []) - own[1]).norm() / own[1].norm()) > 0.05, "free, the scale moves too"
    torch.testing.assert_close(added_with([], held.freezing_hooks()), torch.zeros_like(added), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ablation", ["resample", "mean"])
@pytest.mark.parametrize("name", POST_NORM)
def test_without_edges_the_circuit_is_the_corrupted_run_of_the_frozen_model(name, ablation):
    model = tiny(name)
    prompts = random_task(model, n=1 if ablation == "mean" else 4)
    bench = Bench(model, Graph.from_model(model), prompts, ablation=ablation)
    full, empty = bench.values([bench.everything(True), bench.everything(False)])
    torch.testing.assert_close(full, prompts.clean_value, atol=1e-5, rtol=1e-5)
    hooks = [hook for layer in range(2) for hook in hold_post_norm(model, prompts.clean, layer)]
    with torch.no_grad():
        expected = prompts.metric(run_with_hooks(model, prompts.corrupt, hooks)[:, -1:]).double()
    torch.testing.assert_close(empty, expected, atol=1e-5, rtol=1e-5)
    assert float((empty - prompts.corrupt_value).abs().max()) > 1e-3, "the free model differs"


@pytest.mark.parametrize("name", POST_NORM)
def test_direct_effects_sum_to_the_linear_total_in_the_frozen_frame(name):
    """Every sender's direct effect on logits through a final norm that is held as well: one by one, and together."""
    model, prompts = tiny(name), random_task(tiny(name))
    graph = Graph.from_model(model)
    (final,) = cached(model, prompts.clean, "blocks.1.hook_resid_post")
    root = (final.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    factor = gain(name, model.ln_final.original_component) / root

    def effect(senders):
        seen = {}
        hooks = [
            ("ln_final.hook_in", lambda value, hook: seen.update(stream=value)),
            ("ln_final.hook_out", lambda value, hook: seen["stream"] * factor),
            ("hook_unembed", lambda value, hook: seen.update(logits=value.detach())),  # before the soft cap
        ]
        patcher = PathPatcher(model, senders, ["logits"])
        patcher.run(prompts.clean, patcher.sender_values(prompts.corrupt), hooks=hooks)
        return seen["logits"]

    with torch.no_grad():
        clean = final * factor @ model.W_U
        one_by_one = torch.stack([effect([source]) - clean for source in graph.sources])
        together = effect(list(graph.sources)) - clean
        torch.testing.assert_close(one_by_one.sum(0), together, rtol=1e-4, atol=1e-3)
        held = ResidualStream(model).frozen_at(prompts.clean)
        free = ResidualStream(model)
        values = [collect(free, graph, rows, prompts.at)[0] for rows in (prompts.corrupt, prompts.clean)]
        writes = outputs(held, graph, minus(*values))
        torch.testing.assert_close(one_by_one, writes * factor @ model.W_U, rtol=1e-4, atol=1e-3)
    assert float(together.abs().mean()) > 0.1


def test_differences_have_no_shares_before_the_scale_is_held():
    model = tiny("gemma-2")
    prompts, free = random_task(model), ResidualStream(model)
    graph = Graph.from_model(model)
    values, _ = collect(free, graph, prompts.clean, prompts.at)
    with pytest.raises(ConfigError, match="frozen_at"):
        outputs(free, graph, values)


def test_planted_heads_attend_where_they_are_planted(planted):
    block = 1 + torch.randperm(15, generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.zeros(1, dtype=torch.long), block, block])[None]
    previous, induction = cached(planted, tokens, *(f"blocks.{layer}.attn.hook_pattern" for layer in range(2)))
    assert previous[0, 0].diagonal(-1).mean() == pytest.approx(1, abs=1e-5)
    assert induction[0, 0].diagonal(-14)[2:].mean() == pytest.approx(1, abs=1e-5)
    assert (planted(tokens)[0].argmax(-1)[16:-1] == tokens[0, 17:]).all()
    loaded, info = load_model("planted:post-norm"), {each.name: each for each in known_models()}["planted:post-norm"]
    assert weight_hash(loaded) == weight_hash(planted)
    sizes = sum(each.numel() for each in loaded.original_model.parameters()), loaded.cfg.d_model
    assert (info.n_params, info.d_model) == sizes


@pytest.mark.parametrize("method", ["exact", "eap-ig", "acdc"])
def test_planted_edges_come_first(planted, task, method):
    scores = attribute(planted, task, method=method, steps=10)
    best = [edge_text(scores.graph.edge(i)) for i in scores.order()[:4].tolist()]
    assert sorted(best) == sorted(PLANTED)
    if method != "eap-ig":  # gradients see the softmax move before it settles
        assert float(scores.values.abs().sort(descending=True).values[4]) < 0.1
    assert scores.settings.frozen.startswith(FROZEN)
    assert f"Held fixed: {FROZEN}" in " ".join(str(scores).split())


def test_node_scores_freeze_nothing(planted, task):
    scores = attribute(planted, task, method="exact", level="node")
    value = dict(zip(scores.graph.sources, scores.values.tolist(), strict=True))
    assert min(value["L0H0"], value["L1H0"]) > 14
    assert max(abs(value["L0H1"]), abs(value["L1H1"])) < 0.5
    assert scores.settings.frozen is None


def test_the_planted_circuit_is_found_on_held_out_prompts(planted):
    task, held_out = induction_task(planted, n_prompts=32, seed=1).split(16)
    evaluation = EvaluationConfig(n_random=10, n_knockouts=2, n_minimality=2, fractions=(0.1, 0.5))
    config = FindConfig(method="exact", n_edges=4, verify=0, evaluation=evaluation)
    found = find_circuit(planted, task, config, held_out=held_out)
    assert found.verdict.holds is True
    assert found.evaluation.faithfulness.estimate == pytest.approx(1, abs=0.05)
    assert found.evaluation.corrupt_frozen == pytest.approx(float(held_out.corrupt_value.mean()), abs=0.4)
    assert found.settings.frozen == found.evaluation.settings.frozen
    assert "Held fixed" in str(found)


def test_path_patching_finds_the_keys_alone(planted, task):
    def effect(sender, side):
        found = path_patch(planted, task.clean, task.corrupt, whole, sender=sender, receivers=[("L1H0", side)])
        assert found.settings["frozen"] == f"{FROZEN} of the run that is patched"
        return float(found.effect.mean())

    def whole(logits):
        rows = torch.arange(len(logits))[:, None]
        return logits[rows, task.at, task.clean[rows, task.at - 15]].mean(1) - logits[rows, task.at].mean((1, 2))

    assert effect("L0H0", "k") < -10
    assert max(abs(effect("L0H0", side)) for side in "qv") < 0.1
    assert max(abs(effect("L0H1", side)) for side in "qkv") < 0.1
    total = path_patch(
        planted, task.clean, task.corrupt, whole, sender="L0H0", receivers=[("L1H0", "k")], between="recomputed"
    )
    assert "frozen" not in total.settings


def test_direct_attribution_gives_the_logit_before_the_cap_to_the_planted_head(planted):
    block = 1 + torch.randperm(15, generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.zeros(1, dtype=torch.long), block, block[:5]])[None]
    found = direct_logit_attribution(planted, tokens, int(block[5]))
    assert found.values.sum(0).item() == pytest.approx(found.total.item(), rel=1e-5)
    assert found["L1H0"].item() == pytest.approx(found.total.item(), rel=1e-5)
    capped = planted(tokens)[0, -1].detach()
    assert found.total.item() > float(capped[block[5]] - capped.mean()) + 0.5
    assert found.settings["logits"] == "before the soft cap of 30"
    assert "before the soft cap of 30" in str(found)
    assert f"Held fixed: {FROZEN} on the prompt" in " ".join(str(found).split())


def test_heads_are_scored_and_copy_in_a_post_norm_model():
    model = planted_post_norm(d_vocab=40, n_ctx=40)
    found = score_heads(model, HeadScoresConfig(n_prompts=8, context_length=32, min_lag=6, max_lag=12, seeds=(0, 1)))
    assert np.argwhere(found.above_null["previous_token"]).tolist() == [[0, 0]]
    assert np.argwhere(found.above_null["induction"]).tolist() == [[1, 0]]
    copies = copying(model, [HeadName(0, 0), HeadName(1, 0)])
    assert copies.top1[HeadName(1, 0)] == 1
    assert copies.top1[HeadName(0, 0)] < 0.1, "what it writes is not read by the unembedding"


def test_the_planted_head_is_proved_to_be_an_induction_head_and_an_untrained_one_is_not(planted):
    config = InductionConfig(prompts_per_seed=6)
    found = find_induction_circuit(planted, config)
    assert found.verdict.holds
    assert list(found.induction) == [HeadName(1, 0)]
    assert found.tests[HeadName(1, 0)].sender == HeadName(0, 0)
    assert found.settings.frozen.startswith(FROZEN)
    assert found.logit_effect == "before the soft cap of 30"
    null = find_induction_circuit(untrained_model(planted, 0), config)
    assert not null.verdict.holds
    assert not null.circuit.edges


@pytest.mark.parametrize("name", POST_NORM)
def test_an_untrained_post_norm_model_shows_no_discoveries(name):
    model = untrained_model(tiny(name), 1)
    assert ResidualStream(model).frozen == FROZEN
    found = score_heads(model, HeadScoresConfig(n_prompts=8, context_length=24, min_lag=5, max_lag=10, seeds=(0, 1)))
    assert not any(heads.any() for heads in found.above_null.values())
    with pytest.raises(ConfigError, match="gap"):
        induction_task(model, n_prompts=16, block=7)
    config = FindConfig(n_edges=10, verify=0, evaluation=EvaluationConfig(n_random=10, fractions=(0.1, 0.5)))
    assert find_circuit(model, random_task(model), config).verdict.holds is False


@pytest.mark.parametrize("name", POST_NORM)
def test_scores_of_attention_are_split_within_the_window(name, tokens):
    model = tiny(name)
    found = explain_score(model, tokens[:1], "L1H2", query=8, key=3)
    assert {"L0H0", "L0H3", "L0MLP", "embed"} <= set(found.query_parts)
    assert found.settings["frozen"].startswith(FROZEN)
    sliding = explain_score(model, tokens[:1], "L0H2", query=8, key=6)  # this layer sees four tokens
    _, cache = run_with_cache(model, tokens[:1], ["blocks.0.attn.hook_attn_scores"])
    row = cache["blocks.0.attn.hook_attn_scores"][0, 2, 8, 5:9].double()
    assert sliding.score == pytest.approx(float(row[1]), rel=1e-4)
    assert sliding.relative_score == pytest.approx(float(row[1] - row[[0, 2, 3]].mean()), rel=1e-4)
    assert sliding.settings["relative_to"] == "mean of the other 3 keys that the query may attend to"
