"""What an SAE computes, whichever way it is asked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.dictionary import Dictionary, SparseActs
from interp.errors import ConfigError
from interp.recording.store import Stats
from saes.kernels.state import TrainState
from saes.kinds.base import SAEMetadata, TopK, Trained, Weights
from saes.kinds.config import BatchTopKConfig, TopKConfig
from saes.kinds.crosscoder import CrosscoderSAE
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.l1 import GatedSAE, ReLUSAE
from saes.kinds.registry import recipe_of
from saes.kinds.topk import TopKSAE, estimate_threshold
from saes.kinds.transcoder import Transcoder
from saes.training.data import fold, input_scale, same_scale
from saes.weights.folder import load_sae, save_sae

D_IN, D_SAE, K = 16, 64, 5
METADATA = SAEMetadata(model="tiny", weight_hash="0" * 64, hook_point="blocks.1.hook_resid_post")


def random_weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=generator), dim=1)
    b_enc, b_dec = torch.randn(D_SAE, generator=generator) * 0.1, torch.randn(D_IN, generator=generator)
    return Weights(W_dec.T.contiguous(), b_enc, W_dec, b_dec)


def make_saes(seed=0):
    threshold = torch.rand(D_SAE, generator=torch.Generator().manual_seed(seed + 1)) * 2
    weights = random_weights(seed)
    return [TopKSAE(weights, k=K, metadata=METADATA), JumpReLUSAE(weights, threshold=threshold, metadata=METADATA)]


def make_others(seed=0):
    """The kinds beyond the two that every test takes."""
    generator = torch.Generator().manual_seed(seed + 2)
    weights = random_weights(seed)
    own = {name: 0.3 * torch.randn(D_SAE, generator=generator) for name in ("r_mag", "b_mag")}
    places = [
        {"recording": "r", "model": "m", "weight_hash": "", "hook_point": f"p{i}", "d": d} for i, d in ((0, 6), (1, 10))
    ]
    crosscoder = {"threshold": torch.rand(D_SAE, generator=generator), "scales": torch.tensor([0.5, 2.0])}
    return [
        ReLUSAE(weights, metadata=METADATA),
        GatedSAE(weights, **own, metadata=METADATA),
        Transcoder(weights, activation=TopK(K), W_skip=torch.eye(D_IN), metadata=METADATA),
        CrosscoderSAE(weights, **crosscoder, sites=places, metadata=METADATA),
    ]


def dense(acts: SparseActs) -> torch.Tensor:
    return torch.zeros(len(acts.values), D_SAE).scatter_add_(1, acts.indices.long(), acts.values)


@pytest.mark.parametrize("sae", make_saes(), ids=lambda s: s.architecture)
def test_an_sae_is_a_dictionary(sae):
    assert isinstance(sae, Dictionary)
    assert (sae.d_in, sae.d_sae, sae.hook_point) == (D_IN, D_SAE, METADATA.hook_point)
    assert sae.decoder_directions.shape == (D_SAE, D_IN)
    assert not any(p.requires_grad for p in sae.parameters())


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 40), seed=st.integers(0, 10**6), spread=st.sampled_from([0.01, 1.0, 10.0]))
def test_dense_and_sparse_paths_agree(n, seed, spread):
    x = torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed)) * spread
    for sae in [*make_saes(), *make_others()]:
        acts = sae.encode_sparse(x)
        torch.testing.assert_close(dense(acts), sae.encode(x))
        torch.testing.assert_close(sae.complete(sae.decode_sparse(acts), x), sae(x), atol=1e-4, rtol=1e-4)
        assert (acts.values >= 0).all()


def test_sparse_encoding_is_the_same_in_pieces(monkeypatch):
    x = torch.randn(50, D_IN, generator=torch.Generator().manual_seed(1))
    for sae in make_saes():
        whole = dense(sae.encode_sparse(x))
        monkeypatch.setattr("saes.kinds.base.CHUNK_VALUES", 7 * D_SAE)
        torch.testing.assert_close(dense(sae.encode_sparse(x)), whole)
        monkeypatch.undo()


def test_topk_keeps_k_and_only_positive_values():
    topk, _ = make_saes()
    assert ((topk.encode(torch.randn(100, D_IN) * 10) > 0).sum(1) == K).all()
    silent = TopKSAE(random_weights()._replace(b_enc=torch.full((D_SAE,), -1e4)), k=K)
    assert not silent.encode(torch.randn(10, D_IN)).any()


def test_jumprelu_passes_values_above_the_threshold_unchanged():
    _, jump = make_saes()
    x = torch.randn(30, D_IN, generator=torch.Generator().manual_seed(2)) * 2
    pre, acts = jump.pre_activations(x), jump.encode(x)
    above = pre > jump.threshold
    assert torch.equal(acts[above], pre[above])
    assert not acts[~above].any()


def test_a_gated_sae_measures_apart_from_its_gate():
    """Its paper's two paths: `1[x W + b_gate > 0] * relu(x W exp(r_mag) + b_mag)`."""
    gated = make_others()[1]
    x = torch.randn(30, D_IN, generator=torch.Generator().manual_seed(5)) * 2
    z = (x - gated.b_dec) @ gated.W_enc
    expected = (z + gated.b_enc > 0) * (z * gated.r_mag.exp() + gated.b_mag).relu()
    torch.testing.assert_close(gated.encode(x), expected, atol=1e-4, rtol=1e-4)
    assert "b_gate" in gated.saved_tensors()
    assert "b_enc" not in gated.saved_tensors()


@pytest.mark.parametrize("sae", [*make_saes(), *make_others()], ids=lambda s: s.architecture)
def test_every_kind_is_saved_and_loaded_bit_for_bit(sae, tmp_path):
    save_sae(sae, tmp_path)
    loaded, x = load_sae(tmp_path), torch.randn(20, D_IN, generator=torch.Generator().manual_seed(6))
    assert type(loaded) is type(sae)
    assert (loaded.metadata, loaded.hook_points) == (sae.metadata, sae.hook_points)
    assert loaded.state_dict().keys() == sae.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in sae.state_dict().items())
    assert torch.equal(loaded(x), sae(x))
    if isinstance(sae, CrosscoderSAE):
        assert torch.equal(loaded.decoder_norms(), sae.decoder_norms())
        assert loaded.widths == sae.widths == (6, 10)


def test_the_estimated_threshold_lets_k_latents_through_on_new_data():
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(512, D_IN, generator=generator) * 2 for _ in range(8)]
    sae = JumpReLUSAE(random_weights(), threshold=torch.zeros(D_SAE), metadata=METADATA)
    sae.threshold.fill_(estimate_threshold(sae, batches, K))
    l0 = float((sae.encode(torch.randn(4096, D_IN, generator=generator) * 2) > 0).sum(1).float().mean())
    assert l0 == pytest.approx(K, rel=0.03)


@pytest.mark.parametrize(
    "config", [TopKConfig(d_sae=D_SAE, k=K), BatchTopKConfig(d_sae=D_SAE, k=K)], ids=lambda c: c.kind
)
def test_folding_the_scale_changes_units_and_nothing_else(config):
    """An SAE of `scale * x` and its folded twin of `x`: the same latents fire, activations differ by the scale."""
    generator = torch.Generator().manual_seed(4)
    state = TrainState.initial(torch.randn(D_IN, generator=generator), D_SAE, generator=generator)
    state.b_enc.copy_(torch.randn(D_SAE, generator=generator) * 0.3)
    x, scale = torch.randn(300, D_IN, generator=generator) * 40 + 9, 0.037

    def make(by: float, batches: list[torch.Tensor]):
        scales = same_scale(by, D_IN)
        trained = Trained(weights=fold(state, scales), own={}, scales=scales, metadata=METADATA, batches=batches)
        return recipe_of(config).finish(trained)

    scaled, folded = make(1.0, [x * scale]), make(scale, [x])
    torch.testing.assert_close(folded.encode(x) * scale, scaled.encode(x * scale), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(folded(x) * scale, scaled(x * scale), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(folded.W_dec.norm(dim=1), torch.ones(D_SAE))


def test_the_scale_brings_the_mean_norm_to_the_root_of_d():
    stats = Stats(torch.zeros(64, dtype=torch.float64), torch.ones(64, dtype=torch.float64), 320.0, 100)
    assert input_scale(stats) * 320.0 == pytest.approx(8.0)


def test_gradients_flow_through_an_sae_to_its_input():
    for sae in make_saes():
        x = torch.randn(3, D_IN, requires_grad=True)
        sae(x).sum().backward()
        assert x.grad.abs().sum() > 0


def test_impossible_kinds_are_refused():
    with pytest.raises(ConfigError, match="k must lie"):
        TopKSAE(random_weights(), k=D_SAE + 1)
    with pytest.raises(ConfigError, match="thresholds"):
        JumpReLUSAE(random_weights(), threshold=torch.full((D_SAE,), -0.1))
