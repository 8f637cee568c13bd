"""QK attribution: pairs that sum to the model's own score; the previous-token head as the reason for induction."""

import math
from dataclasses import replace

import pytest
import torch
from architectures import ALL_NAMES, NORMED_KEYS, gain, tiny

from interp.circuits.score_explanation import explain_score, hook_points_of_parts
from interp.dictionary import SparseActs
from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.models.adapter import run_with_cache, untrained_model
from interp.models.residual import ResidualStream, rotary_hook_points
from interp.models.toys import planted_induction, repeating_rows
from interp.names import HeadName


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(50, (1, 9), generator=torch.Generator().manual_seed(1))


class Planes:
    """A dictionary of random directions that reconstructs part of what it is given."""

    d_in, d_sae = 32, 40

    def __init__(self, hook_point):
        self.hook_point = hook_point
        self.decoder_directions = torch.randn(40, 32, generator=torch.Generator().manual_seed(2))
        self.bias = torch.randn(32, generator=torch.Generator().manual_seed(3))

    def encode(self, x):
        return (x @ self.decoder_directions.T - 4).relu()

    def encode_sparse(self, x):
        return SparseActs(*self.encode(x).topk(40))

    def decode(self, feature_acts):
        return feature_acts @ self.decoder_directions + self.bias


def own_scores(name, tokens, layer):
    """`[n_heads, dest, src]` before the softmax: the hook's where it holds them, else the product of q and k."""
    if not name.startswith("native"):
        hook_point = f"blocks.{layer}.attn.hook_attn_scores"
        return run_with_cache(tiny(name), tokens, [hook_point])[1][hook_point][0].double()
    _, cache = run_with_cache(tiny(name), tokens, [f"blocks.{layer}.attn.hook_{side}" for side in "qk"])
    q, k = (value[0].transpose(0, 1) for value in cache.values())  # [heads, pos, d_head]
    if name == "native-rms":
        q, k = (complex_rotation(x, torch.arange(x.shape[1])) for x in (q, k))
    return (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).double()


def complex_rotation(x, positions):
    """Rotary positions of neighbouring dimensions (0, 1), (2, 3), ... as complex numbers, base 10,000."""
    width = x.shape[-1]
    angle = positions[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(turned).flatten(-2)


@pytest.mark.parametrize("name", [*ALL_NAMES, *NORMED_KEYS])
@pytest.mark.parametrize(
    "hook_point", [None, "blocks.1.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.0.hook_resid_pre"]
)
def test_pairs_sum_to_the_models_own_score(name, hook_point, tokens):
    model = tiny(name)
    scores = own_scores(name, tokens, 1)
    dictionary = None if hook_point is None else Planes(hook_point)
    for head in (0, 3):
        found = explain_score(model, tokens, HeadName(1, head), query=7, key=2, dictionary=dictionary)
        row = scores[head, 7, :8]
        others = torch.tensor([0, 1, 3, 4, 5, 6, 7])
        assert found.score == pytest.approx(float(row[2]), rel=1e-4, abs=1e-4)
        assert found.relative_score == pytest.approx(float(row[2] - row[others].mean()), rel=1e-4, abs=1e-4)
        assert float(found.matrix.sum()) == pytest.approx(found.score, abs=1e-9)
        assert found.attention == pytest.approx(float(row.softmax(0)[2]), rel=1e-3)
    if hook_point is not None:
        assert any(part.startswith("F") for part in found.key_parts)
        assert {"error", "dictionary_bias"} <= set(found.query_parts)
        assert ("L0H1" in found.key_parts) == (hook_point == "blocks.0.hook_resid_pre")


def frozen_score(name, cache, query, key, head=3):
    """The score as a function of both residuals, written out in float64, with the scales of norms at clean values."""
    attn, block = tiny(name).blocks[1].attn, tiny(name).blocks[1]
    kv = head * attn.W_K.shape[0] // 4
    plain = attn.original_component

    def normed(x, clean, module):
        if module is None or isinstance(module, torch.nn.Identity):
            return x
        eps = next(getattr(module, key) for key in ("eps", "variance_epsilon") if hasattr(module, key))
        centred = getattr(module, "bias", None) is not None
        x, clean = (value - centred * value.mean() for value in (x, clean))
        y = x / (clean.pow(2).mean() + eps).sqrt() * gain(name, module).double()
        return y + module.bias.double() if centred else y

    def side(position, weight, bias, index, norm):
        clean = cache["blocks.1.hook_resid_pre"][0, position].double()

        def raw(x):
            x = normed(x, clean, getattr(getattr(block, "ln1", None), "original_component", None))
            all_heads = torch.einsum("d,hde->he", x, weight.double()) + (0 if bias is None else bias.double())
            return all_heads.flatten() if name == "olmo-2" else all_heads[index]

        def vector(x):
            out = normed(raw(x), raw(clean), norm)
            out = out.view(-1, 8)[index] if name == "olmo-2" else out
            if name == "native-rms":
                return complex_rotation(out[None].float(), torch.tensor([position]))[0].double()
            tables = (
                [cache[f"blocks.1.attn.hook_{part}"][0, position].double() for part in ("cos", "sin")]
                if ("blocks.1.attn.hook_cos" in cache)
                else []
            )
            if not tables:
                return out
            half = len(tables[0]) // 2
            turned = torch.complex(out[:half], out[half : 2 * half]) * torch.complex(*(t[:half] for t in tables))
            return torch.cat([turned.real, turned.imag, out[2 * half :]])

        return vector

    q = side(query, attn.W_Q, getattr(attn, "b_Q", None), head, getattr(plain, "q_norm", None))
    k = side(key, attn.W_K, getattr(attn, "b_K", None), kv, getattr(plain, "k_norm", None))
    return lambda x, y: float(q(x) @ k(y)) / 8**0.5


@pytest.mark.parametrize("name", [*ALL_NAMES, *NORMED_KEYS])
def test_contributions_are_what_the_score_loses_without_a_part(name, tokens):
    """Every component is removed at the query, at the key, and at both; a cap multiplies by its slope at the score."""
    model, query, key = tiny(name), 6, 4
    found = explain_score(model, tokens, "L1H3", query=query, key=key)
    residual = ResidualStream(model)
    points = [*hook_points_of_parts(residual, 1), *rotary_hook_points(model, 1)]
    _, cache = run_with_cache(model, tokens, points)
    with torch.no_grad():
        score = frozen_score(name, cache, query, key)
        first = cache["blocks.0.hook_resid_pre"][0]
        parts = {"embed": first - cache["hook_pos_embed"][0] if "hook_pos_embed" in cache else first}
        parts |= {"L0MLP": cache["blocks.0.hook_mlp_out"][0]} if residual.has_mlp else {}
        heads = residual.head_output(0, cache["blocks.0.attn.hook_z"])[0]
        parts |= {f"L0H{head}": heads[:, head] for head in range(4)}
        x, y = (cache["blocks.1.hook_resid_pre"][0, at].double() for at in (query, key))
        whole, slope = score(x, y), 1.0
        if name == "gemma-2":
            slope = 1 - math.tanh(whole / 5) ** 2
            assert found.score == pytest.approx(5 * math.tanh(whole / 5), rel=1e-5)
            assert found.pair("cap", "cap", relative=False) == pytest.approx(found.score - slope * whole, rel=1e-4)
        for q_name, q_part in parts.items():
            at = found.query_parts.index(q_name)
            without = x - q_part[query].double()
            assert float(found.matrix[at].sum()) == pytest.approx(slope * (whole - score(without, y)), abs=1e-5)
            for k_name, k_part in parts.items():
                other = y - k_part[key].double()
                both = whole - score(without, y) - score(x, other) + score(without, other)
                assert found.pair(q_name, k_name, relative=False) == pytest.approx(slope * both, abs=1e-5)


def induction_pairs(rows, period):
    """(row, query, key): every query of the repeat, and the token after its earlier copy."""
    return [(row, q, q - period + 1) for row in range(len(rows)) for q in range(period + 2, 2 * period - 1, 3)]


def explain_induction(model, head, period=16, n_rows=4, bos=None):
    d_vocab = model.cfg.d_vocab if bos is None else bos
    generator = torch.Generator().manual_seed(0)
    blocks = torch.stack([torch.randperm(d_vocab, generator=generator)[:period] for _ in range(n_rows)])
    rows = blocks.repeat(1, 2)
    pairs = induction_pairs(rows, period)
    found = [explain_score(model, rows[r : r + 1], head, query=q, key=k) for r, q, k in pairs]
    matrix, relative = (torch.stack([getattr(each, name) for each in found]).mean(0) for name in ("matrix", "relative"))
    score, mean = (sum(getattr(each, name) for each in found) / len(found) for name in ("score", "relative_score"))
    return replace(found[0], matrix=matrix, relative=relative, score=score, relative_score=mean)


def test_the_previous_token_head_is_the_reason_in_the_planted_model():
    found = explain_induction(planted_induction(), "L1H0", period=14)
    best = found.top(1)[0]
    assert (best["query_part"], best["key_part"]) == ("embed", "L0H0")
    assert best["share"] == pytest.approx(1, abs=1e-4)
    assert found.relative_score == pytest.approx(100, rel=0.01)
    assert float(found.relative.abs().sum()) == pytest.approx(found.relative_score, rel=1e-4)  # and nothing else
    previous = explain_score(planted_induction(), torch.arange(12)[None], "L0H0", query=9, key=8)
    assert previous.pair("pos_embed", "pos_embed") == pytest.approx(previous.relative_score, rel=1e-4)


def test_the_previous_token_head_is_the_reason_in_the_trained_toy(induction_toy):
    generator = torch.Generator().manual_seed(0)
    rows = repeating_rows(64, 64, 64, 32, 32, generator)
    _, cache = run_with_cache(induction_toy, rows, [f"blocks.{i}.attn.hook_pattern" for i in (0, 1)])
    previous = int(cache["blocks.0.attn.hook_pattern"].diagonal(-1, -2, -1).mean((0, 2)).argmax())
    stripe = cache["blocks.1.attn.hook_pattern"][:, :, 33:].diagonal(2, -2, -1).mean((0, 2))  # key = query - 31
    head = f"L1H{int(stripe.argmax())}"
    found = explain_induction(induction_toy, head, period=32)
    strongest = found.key_parts[int(found.relative.sum(0).abs().argmax())]
    best = found.top(1)[0]
    assert best["query_part"] == "embed"
    assert best["key_part"] == f"L0H{previous}" == strongest
    assert found.pair("embed", f"L0H{previous}") > 3
    untrained = explain_induction(untrained_model(induction_toy, 0), head, period=32)
    assert abs(untrained.relative_score) < 0.05 * found.relative_score
    of_heads = [abs(untrained.pair("embed", f"L0H{head}")) for head in range(4)]
    assert max(of_heads) < 0.01 * found.pair("embed", f"L0H{previous}")


def test_features_that_matter_are_listed_first(tokens):
    found = explain_score(
        tiny("llama-gqa"), tokens, "L1H0", query=7, key=2, dictionary=Planes("blocks.1.hook_resid_pre")
    )
    top = found.top(5)
    assert [abs(r["value"]) for r in top] == sorted((abs(r["value"]) for r in top), reverse=True)
    assert top[0]["value"] == found.pair(top[0]["query_part"], top[0]["key_part"])
    assert sum(record["relative"] for record in found.to_records()) == pytest.approx(found.relative_score)
    with pytest.raises(KeyError):
        found.pair("L7H7", "embed")


def test_requests_that_mean_nothing_are_refused(tokens):
    model = tiny("llama-gqa")
    with pytest.raises(PromptError, match="no head looks ahead"):
        explain_score(model, tokens, "L1H0", query=2, key=3)
    with pytest.raises(PromptError, match="one prompt"):
        explain_score(model, tokens.repeat(2, 1), "L1H0", query=3, key=2)
    with pytest.raises(UnknownNameError, match="L9H0"):
        explain_score(model, tokens, "L9H0", query=3, key=2)
    with pytest.raises(ConfigError, match="residual stream before layer 0"):
        explain_score(model, tokens, "L0H0", query=3, key=2, dictionary=Planes("blocks.0.hook_resid_post"))
