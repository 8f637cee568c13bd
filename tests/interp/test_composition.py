"""Composition and copying against plain dense products, and on the planted circuit."""

import numpy as np
import pytest
import torch

from interp.circuits.head_weights import (
    Factored,
    HeadWeights,
    TokenTables,
    composition,
    copying,
    eigenvalue_score,
    haar_blocks,
    haar_frame,
)
from interp.errors import ConfigError, UnknownNameError
from interp.models.adapter import run_with_cache
from interp.models.toys import planted_induction
from interp.names import HeadName
from tests.interp.architectures import ALL_NAMES, gain, tiny

H = HeadName


def test_planted_key_composition_is_exactly_a_quarter_and_the_others_zero():
    found = composition(planted_induction())
    assert found["k"].score[0, 1] == pytest.approx(0.25, abs=1e-12)
    assert max(found["q"].score[0, 1], found["v"].score[0, 1]) < 2e-8
    assert found["k"].score[0, 1] > found["k"].null_high[0, 1]
    assert found["k"].argmax() == {H(1, 0): H(0, 0)}
    assert np.isnan(found["k"].score[1, 0])


def norm_gain(name, owner, norm, width):
    module = getattr(getattr(owner, norm, None), "original_component", None)
    return (torch.ones(width) if not hasattr(module, "weight") else gain(name, module)).double()


@pytest.mark.parametrize("name", ALL_NAMES)
@torch.no_grad()
def test_scores_are_those_of_dense_products_with_the_norm_folded_in(name):
    model = tiny(name)
    found = composition(model, n_null=4)
    groups = model.cfg.n_heads // (model.cfg.n_key_value_heads or model.cfg.n_heads)
    centred = name in ("native-ln", "gpt2", "neox")

    def dense(layer, head):
        W = {side: getattr(model.blocks[layer].attn, f"W_{side}").double() for side in "QKVO"}
        block, d_head = model.blocks[layer], model.cfg.d_head
        read = torch.diag(norm_gain(name, block, "ln1", 32))
        if centred:
            read = (torch.eye(32, dtype=torch.float64) - 1 / 32) @ read
        W_Q, W_K, W_V = read @ W["Q"][head], read @ W["K"][head // groups], read @ W["V"][head // groups]
        on_queries, on_keys = (norm_gain(name, block.attn, f"{side}_norm", d_head) for side in "qk")
        return (W_Q * on_queries) @ (W_K * on_keys).T, W_V @ W["O"][head] * norm_gain(name, block, "ln1_post", 32)

    for sender, reader in [(0, 0), (1, 3), (3, 2)]:
        _, a = dense(0, sender)
        qk, ov = dense(1, reader)
        for side, b in {"q": qk, "k": qk.T, "v": ov}.items():
            expected = float((a @ b).norm() / a.norm() / b.norm())
            assert found[side].score[sender, 4 + reader] == pytest.approx(expected, rel=1e-6)


def test_null_is_the_score_of_matrices_turned_at_random():
    generator = torch.Generator().manual_seed(0)
    a = Factored(torch.randn(24, 4, generator=generator).double(), torch.randn(4, 24, generator=generator).double())
    b = Factored(torch.randn(24, 4, generator=generator).double(), torch.randn(4, 24, generator=generator).double())
    spectra = [f.singular_values.square() for f in (a, b)]
    cheap = [
        float((spectra[0] @ block.square() @ spectra[1]).sqrt()) / a.norm / b.norm
        for block in haar_blocks(24, 4, 400, 1)
    ]
    full = []
    for _ in range(400):
        q, r = torch.linalg.qr(torch.randn(24, 24, generator=generator).double())
        full.append(float((a.dense() @ (q * r.diagonal().sign()) @ b.dense()).norm()) / a.norm / b.norm)
    assert np.mean(cheap) == pytest.approx(np.mean(full), rel=0.02)
    assert np.std(cheap) == pytest.approx(np.std(full), rel=0.2)
    assert np.mean(np.square(full)) == pytest.approx(1 / 24, rel=0.05)  # the baseline 1 / sqrt(d_model)


def test_a_random_rotation_prefers_no_direction():
    """QR as it comes has a negative first entry always, and turns vectors away from themselves."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.nn.functional.normalize(torch.randn(8, generator=generator).double(), dim=0)
    turns = torch.stack([haar_frame(8, 8, generator) for _ in range(1000)])
    assert (turns @ turns.mT - torch.eye(8)).abs().max() < 1e-12
    assert float((vector @ turns @ vector).mean()) == pytest.approx(0, abs=4 / (8 * 1000) ** 0.5)
    assert float((turns[:, 0, 0] > 0).double().mean()) == pytest.approx(0.5, abs=0.07)


def test_untrained_heads_stay_within_the_null():
    from interp.models.small import SmallConfig, build_small

    exceeded = total = 0
    for seed in range(3):
        model = build_small(SmallConfig(d_model=64, n_heads=4, d_vocab=64, n_ctx=64), seed=seed, device="cpu",
                            dtype=torch.float32)  # fmt: skip
        for side in composition(model, n_null=100).values():
            valid = np.isfinite(side.score)
            exceeded += int((side.score[valid] > side.null_high[valid]).sum())
            total += int(valid.sum())
    assert exceeded <= 0.05 * total


@pytest.mark.parametrize("name", ["native-rms", "llama-gqa", "neox"])
@torch.no_grad()
def test_offset_is_the_models_own_rotation(name):
    model, offset = tiny(name), 3
    weights = HeadWeights(model)
    assert weights.is_rotary
    tokens = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(2))
    points = [f"blocks.1.attn.hook_{name}" for name in ("q", "k", "pattern")]
    q, k, pattern = run_with_cache(model, tokens, points)[1].values()
    group = model.cfg.n_heads // (model.cfg.n_key_value_heads or model.cfg.n_heads)
    for head in (0, 3):
        # the softmax drops out of the difference between two keys
        ratio = (pattern[:, head, 5, 5 - offset] / pattern[:, head, 5, 5]).double().log() * 8**0.5
        query, keys = q[:, 5, head].double(), k[:, :, head // group].double()
        found = (query @ weights.rotation(1, offset) * keys[:, 5 - offset]).sum(-1) - (query * keys[:, 5]).sum(-1)
        torch.testing.assert_close(found, ratio, atol=1e-3, rtol=1e-3)


def test_position_free_models_do_not_turn():
    weights = HeadWeights(tiny("native-ln"))
    torch.testing.assert_close(weights.rotation(0, 5), torch.eye(8, dtype=torch.float64))


def test_eigenvalues_and_top1_are_those_of_the_whole_matrix():
    model = tiny("gpt2")
    tables = TokenTables(model)
    M = tables.ov(H(1, 2)).dense()
    values = torch.linalg.eigvals(M)
    expected = float(values.real.sum() / values.abs().sum())
    found = copying(model, [H(1, 2)])
    assert found.eigenvalue[H(1, 2)] == pytest.approx(expected, abs=1e-4)
    own = M.argmax(1) == torch.arange(len(M))
    assert found.top1[H(1, 2)] == pytest.approx(float(own.double().mean()))
    assert found.top1[H(1, 2)] == found.group_top1


def test_planted_induction_head_copies_and_its_sender_does_not():
    found = copying(planted_induction(), [H(0, 0), H(1, 0)])
    assert found.eigenvalue == {H(0, 0): 0.0, H(1, 0): pytest.approx(1.0)}
    assert found.top1[H(1, 0)] == 1.0
    assert eigenvalue_score(Factored(torch.eye(3).double(), -torch.eye(3).double())) == -1


def test_tables_give_the_best_tokens_of_a_row():
    tables = TokenTables(planted_induction())
    assert tables.top(tables.ov(H(1, 0)), 5, n=1)[0][0] == "5"
    qk = tables.qk(H(0, 0)).dense()
    assert float(qk.abs().max()) == 0  # positions only


def test_tokens_can_be_passed_through_block_0():
    model = tiny("llama-gqa")
    deep, raw = (TokenTables(model, n_tokens=10, through_block_0=flag) for flag in (True, False))
    _, cache = run_with_cache(model, deep.tokens[:, None], ["blocks.0.hook_resid_post"])
    torch.testing.assert_close(deep.embedding, cache["blocks.0.hook_resid_post"][:, 0].double())
    assert (deep.tokens == raw.tokens).all()


def test_heads_that_are_not_there_are_refused():
    with pytest.raises(UnknownNameError):
        composition(tiny("gpt2"), senders=[H(0, 9)])
    with pytest.raises(ConfigError, match="earlier"):
        composition(tiny("gpt2"), senders=[H(1, 0)], readers=[H(1, 1)])
