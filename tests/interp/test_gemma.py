"""A second real model: post-norms, norms of queries and keys, windows and 262,144 tokens, with trained weights."""

from pathlib import Path

import pytest
import torch

from interp.circuits.config import HeadScoresConfig
from interp.circuits.head_kinds import score_heads
from interp.circuits.score_explanation import explain_score
from interp.doctor.examine import examine
from interp.lenses.direct_attribution import direct_logit_attribution
from interp.models.adapter import final_norm_and_unembed, run_with_cache, run_with_hooks, to_tokens, token_strings
from interp.models.loading import read_plain
from interp.models.packaged import PACKAGED, sha256_of
from interp.models.residual import ResidualStream
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from interp.recording.store import Recording
from interp.tracing.graph import TraceConfig
from interp.tracing.replacement import Neurons
from interp.tracing.trace import trace

pytestmark = [pytest.mark.slow, pytest.mark.real]
PARIS = "The capital of France is"


@pytest.fixture(scope="module")
def plain(gemma):
    loaded = read_plain("gemma3-270m")
    assert loaded is not None
    return loaded[0].eval()


def test_weights_are_those_of_the_pinned_file_dequantised(plain, tmp_path: Path) -> None:
    from gguf import GGUFReader, dequantize

    packaged, whole = PACKAGED["gemma3-270m"], tmp_path / "whole.gguf"
    whole.write_bytes(b"".join(path.read_bytes() for path in packaged.parts()))
    assert sha256_of([whole]) == packaged.sha256
    tensors = {tensor.name: tensor for tensor in GGUFReader(whole).tensors}
    block, layer = plain.model.layers[7], "blk.7."
    pairs = {
        "attn_q": (block.self_attn.q_proj, 0), "attn_k": (block.self_attn.k_proj, 0),
        "attn_v": (block.self_attn.v_proj, 0), "attn_output": (block.self_attn.o_proj, 0),
        "ffn_gate": (block.mlp.gate_proj, 0), "ffn_up": (block.mlp.up_proj, 0), "ffn_down": (block.mlp.down_proj, 0),
        "attn_q_norm": (block.self_attn.q_norm, 1), "attn_k_norm": (block.self_attn.k_norm, 1),
        "attn_norm": (block.input_layernorm, 1), "post_attention_norm": (block.post_attention_layernorm, 1),
        "ffn_norm": (block.pre_feedforward_layernorm, 1), "post_ffw_norm": (block.post_feedforward_layernorm, 1),
    }  # fmt: skip
    assert {f"{layer}{name}.weight" for name in pairs} == {name for name in tensors if name.startswith(layer)}
    modules = {f"{layer}{name}.weight": pair for name, pair in pairs.items()}
    modules |= {"token_embd.weight": (plain.model.embed_tokens, 0), "output_norm.weight": (plain.model.norm, 1)}
    for name, (module, added) in modules.items():
        values = torch.tensor(dequantize(tensors[name].data, tensors[name].tensor_type))
        torch.testing.assert_close(module.weight + added, values, rtol=0, atol=1e-6, msg=name)


def test_logits_equal_those_of_the_plain_model_beyond_the_window(gemma, plain) -> None:
    """Five of six layers see the last 512 tokens only."""
    assert plain.config.sliding_window == 512
    tokens = torch.randint(1_000, 200_000, (1, 600), generator=torch.Generator().manual_seed(0))
    tokens[0, 0] = gemma.tokenizer.bos_token_id
    last = "blocks.17.hook_resid_post"
    with torch.no_grad():
        expected = plain(tokens, logits_to_keep=4).logits
        ours = final_norm_and_unembed(gemma, run_with_cache(gemma, tokens, [last])[1][last][:, -4:])
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-3)
        answer = gemma(to_tokens(gemma, PARIS))[0, -1]
    assert " Paris" in token_strings(gemma, answer.topk(5).indices)


def test_the_residual_stream_is_the_sum_of_what_is_written_to_it(gemma) -> None:
    assert ResidualStream(gemma).check_additive() < 1e-4
    writes = [f"blocks.{layer}.hook_{part}_out" for layer in range(18) for part in ("attn", "mlp")]
    first, last = "blocks.0.hook_resid_pre", "blocks.17.hook_resid_post"
    tokens = to_tokens(gemma, PARIS)
    _, cache = run_with_cache(gemma, tokens, [first, *writes, last])
    total = torch.stack([cache[name].double() for name in (first, *writes)]).sum(0)
    assert float((total - cache[last]).norm() / cache[last].norm()) < 1e-5
    torch.testing.assert_close(cache[first], gemma.W_E[tokens] * 640**0.5, rtol=1e-5, atol=1e-5)


def test_a_held_norm_gives_each_head_its_own_change(gemma) -> None:
    """The post-norm of attention is free, so that a head's change alone has no share of what is written."""
    tokens, layer = to_tokens(gemma, PARIS), 9
    z_point, out_point = f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.hook_attn_out"
    z, added = (run_with_cache(gemma, tokens, [z_point, out_point])[1][name] for name in (z_point, out_point))
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3)) * z.std()
    noise[:, :, [0, 1, 3]] = 0
    held, seen = ResidualStream(gemma).frozen_at(tokens), {}
    expected = noise[:, :, 2] @ held.W_write(layer)[2] / held.held_scale(layer)

    def change(hooks):
        patch = (z_point, lambda value, hook: z + noise)
        run_with_hooks(gemma, tokens, [*hooks, patch, (out_point, lambda value, hook: seen.update(out=value.detach()))])
        return float((seen["out"] - added - expected).norm() / expected.norm())

    with torch.no_grad():
        assert change(held.freezing_hooks()) < 1e-3
        assert change([]) > 0.05


def test_induction_heads_stand_out_from_their_nulls(gemma) -> None:
    scores = score_heads(gemma, HeadScoresConfig(n_prompts=4, context_length=41, min_lag=10, max_lag=18, seeds=(0,)))
    (strongest, score), *_ = scores.strongest("induction")
    assert scores.above_null["induction"][strongest.layer, strongest.head]
    assert score > 0.6 > 3 * scores.null_high["induction"].max()


def test_contributions_of_all_heads_and_mlps_sum_to_the_logit(gemma) -> None:
    effects = direct_logit_attribution(gemma, to_tokens(gemma, PARIS), " Paris", " London")
    assert effects.values.sum(0).item() == pytest.approx(effects.total.item(), rel=1e-3)
    assert effects.total.item() > 1


def test_scores_are_sums_over_pairs_of_components(gemma) -> None:
    tokens = to_tokens(gemma, PARIS)
    generator = torch.Generator().manual_seed(0)
    layers = torch.randint(1, 18, (10,), generator=generator).tolist()
    points = [f"blocks.{layer}.attn.hook_attn_scores" for layer in set(layers)]
    _, cache = run_with_cache(gemma, tokens, points)
    for number, layer in enumerate(layers):
        head, query, key = number % 4, 5 - number % 2, number % 5
        found = explain_score(gemma, tokens, f"L{layer}H{head}", query=query, key=key)
        own = cache[f"blocks.{layer}.attn.hook_attn_scores"][0, head, query]
        assert float(found.matrix.sum()) == pytest.approx(float(own[key]), rel=1e-4, abs=1e-4)
        others = [float(own[other]) for other in range(query + 1) if other != key]
        assert found.relative_score == pytest.approx(float(own[key]) - sum(others) / len(others), rel=1e-4, abs=1e-4)


def test_a_recording_holds_what_the_model_computes(gemma, text_documents, tmp_path: Path) -> None:
    names = ["blocks.6.hook_resid_post", "blocks.2.attn.hook_z", "blocks.2.mlp.hook_post", "blocks.2.hook_resid_mid"]
    record(
        gemma, text_documents, tmp_path / "r",
        RecordConfig(tokens=500, context_length=64, batch_size=4, dtype="float32"), hook_points=names,
    )  # fmt: skip
    recording = Recording(tmp_path / "r")
    tokens = recording.token_shard(0).tokens.long().view(-1, 64)
    parts = [run_with_cache(gemma, batch, names, stop_at_layer=7)[1] for batch in tokens.split(4)]
    for name in names:
        cached = torch.cat([part[name].reshape(-1, recording.d(name)) for part in parts])
        assert torch.equal(recording.activation_shard(name, 0), cached)


def test_a_graph_predicts_ablations_of_neurons(gemma) -> None:
    config = TraceConfig(max_feature_nodes=1024, max_neurons=8_000, effects=24, nulls=False)
    graph = trace(gemma, PARIS, Neurons(), config, target=" Paris")
    assert graph.effects is not None
    assert graph.effects.spearman.low > 0.3
    assert 0.6 < graph.effects.slope < 1.2


def test_the_doctor_finds_nothing_wrong(gemma) -> None:
    certificate = examine(gemma, quick=True)
    assert not certificate.failed
    assert {check.name for check in certificate.checks if check.verdict == "not checked"} <= {"text", "chat template"}
