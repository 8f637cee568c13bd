"""The measures have the values that their definitions give by hand."""

from dataclasses import asdict

import pytest
import torch
from planted import HOOK, random_recording
from test_kinds import make_saes

from interp.errors import ConfigError, MismatchError, UnknownNameError
from saes.evaluate import evaluate_in_model, evaluate_on_recording
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE

D = 12


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return random_recording(tmp_path_factory.mktemp("recordings") / "random", n_contexts=60, d=D)


def signed_basis(scale: float = 1.0, *, k: int = D, b_dec: torch.Tensor | None = None) -> TopKSAE:
    """Features `+e_i` and `-e_i`: with `k = D` the reconstruction is `scale * (x - b_dec) + b_dec`."""
    directions = torch.cat([torch.eye(D), -torch.eye(D)])
    b_dec = torch.zeros(D) if b_dec is None else b_dec
    weights = Weights(directions.T.contiguous(), torch.zeros(2 * D), directions * scale, b_dec)
    return TopKSAE(weights, k=k, metadata=SAEMetadata(model="tiny", hook_point=HOOK))


def rows_of(recording, split="all"):
    return torch.cat([b.activations[HOOK] for b in recording.sequential(split=split)]).double()


def test_a_perfect_dictionary_leaves_nothing_unexplained(recording):
    found = evaluate_on_recording(signed_basis(), recording, "all")
    assert found.n_tokens == len(rows_of(recording))
    assert found.fvu == pytest.approx(0, abs=1e-12)
    assert found.l0 == pytest.approx(D)
    assert (found.l2_ratio, found.relative_bias, found.cosine) == pytest.approx((1, 1, 1))
    assert (found.dead_fraction, found.dense_fraction) == (0, 1)


def test_the_mean_alone_explains_nothing(recording):
    sae = signed_basis(0.0, b_dec=rows_of(recording).mean(0).float())
    assert evaluate_on_recording(sae, recording, "all").fvu == pytest.approx(1, abs=1e-6)


def test_shrinkage_shows_in_norm_and_bias_but_not_in_cosine(recording):
    found = evaluate_on_recording(signed_basis(0.8), recording, "all")
    assert found.l2_ratio == pytest.approx(0.8)
    assert found.relative_bias == pytest.approx(0.8)
    assert found.cosine == pytest.approx(1)


def test_fvu_equals_its_definition_and_not_the_mean_of_ratios(recording):
    sae, x = signed_basis(k=2), rows_of(recording)
    error = (x - sae(x.float()).double()).square().sum()
    expected = float(error / (x - x.mean(0)).square().sum())
    assert evaluate_on_recording(sae, recording, "all").fvu == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing(recording, batch_size):
    sae = signed_basis(k=3)
    whole = asdict(evaluate_on_recording(sae, recording, "train"))
    assert asdict(evaluate_on_recording(sae, recording, "train", batch_size=batch_size)) == pytest.approx(whole)


def test_splits_add_up_to_all(recording):
    sae = signed_basis(k=3)
    parts = [evaluate_on_recording(sae, recording, split) for split in ("train", "heldout")]
    whole = evaluate_on_recording(sae, recording, "all")
    assert sum(p.n_tokens for p in parts) == whole.n_tokens
    assert sum(p.l0 * p.n_tokens for p in parts) / whole.n_tokens == pytest.approx(whole.l0)


def test_an_sae_of_another_place_is_refused(recording):
    with pytest.raises(MismatchError, match="width 12"):
        evaluate_on_recording(make_saes()[0], recording)
    elsewhere = signed_basis()
    elsewhere.hook_point = "blocks.7.hook_resid_post"
    with pytest.raises(UnknownNameError, match="recorded hook point"):
        evaluate_on_recording(elsewhere, recording)
    with pytest.raises(ConfigError, match="no tokens in its 'heldout' split"):
        evaluate_on_recording(signed_basis(), recording, heldout_fraction=1e-9)


class OneLayerModel:
    """Embeds tokens, passes them through one hook point, and unembeds: enough to splice into."""

    def __init__(self, d_vocab: int = 30):
        generator = torch.Generator().manual_seed(0)
        self.W_E = torch.randn(d_vocab, D, generator=generator)
        self.W_U = torch.randn(D, d_vocab, generator=generator)

    def run_with_hooks(self, tokens, *, return_type, fwd_hooks, stop_at_layer=None):
        value = self.W_E[tokens]
        for name, hook in fwd_hooks:
            assert name == HOOK
            changed = hook(value, hook=None)
            value = value if changed is None else changed
        return None if stop_at_layer is not None else value @ self.W_U


@pytest.fixture(scope="module")
def tokens():
    """Each token's successor is the one its own embedding predicts best, so that the clean model is good."""
    model, rows = OneLayerModel(), torch.arange(20)[:, None]
    steps = [rows]
    for _ in range(7):
        steps.append((model.W_E[steps[-1]] @ model.W_U).argmax(-1))
    return torch.cat(steps, dim=1)


def test_a_perfect_dictionary_recovers_all_of_the_models_loss(tokens):
    found = evaluate_in_model(signed_basis(), OneLayerModel(), tokens, batch_size=6)
    assert found.n_tokens == 20 * 6
    assert found.ce_spliced == pytest.approx(found.ce_clean)
    assert found.ce_recovered == pytest.approx(1)
    assert found.kl_spliced == pytest.approx(0, abs=1e-6)
    assert found.ce_clean < found.ce_zero
    assert found.ce_zero == pytest.approx(torch.log(torch.tensor(30.0)).item())  # zeros predict uniformly


def test_an_sae_that_gives_zeros_recovers_nothing(tokens):
    found = evaluate_in_model(signed_basis(0.0), OneLayerModel(), tokens)
    assert found.ce_recovered == pytest.approx(0)
    assert found.kl_spliced > 0.1


def test_losses_are_those_computed_by_hand(tokens):
    model, sae = OneLayerModel(), signed_basis(k=2)
    found = evaluate_in_model(sae, model, tokens, batch_size=7)
    value, target = model.W_E[tokens][:, 1:-1], tokens[:, 2:]
    mean = model.W_E[tokens][:, 1:].mean((0, 1))
    for name, changed in {"clean": value, "spliced": sae(value), "mean": mean.expand_as(value)}.items():
        loss = torch.nn.functional.cross_entropy((changed @ model.W_U).flatten(0, 1), target.flatten())
        assert getattr(found, f"ce_{name}") == pytest.approx(loss.item(), rel=1e-5), name


def test_tokens_of_the_wrong_shape_are_refused():
    with pytest.raises(ConfigError, match="n_ctx >= 3"):
        evaluate_in_model(signed_basis(), OneLayerModel(), torch.zeros(4, 2, dtype=torch.int64))


def both_signs(d: int, hook_point: str, scale: float = 1.0) -> TopKSAE:
    directions = torch.cat([torch.eye(d), -torch.eye(d)])
    weights = Weights(directions.T.contiguous(), torch.zeros(2 * d), directions * scale, torch.zeros(d))
    return TopKSAE(weights, k=d, metadata=SAEMetadata(hook_point=hook_point))


@pytest.mark.parametrize("hook_point", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"])
def test_hooks_reach_a_real_bridge_at_the_names_on_disk(tiny_model, hook_point):
    tokens = torch.randint(0, tiny_model.cfg.d_vocab, (4, 12), generator=torch.Generator().manual_seed(0))
    whole = evaluate_in_model(both_signs(tiny_model.cfg.d_model, hook_point), tiny_model, tokens, batch_size=3)
    assert whole.ce_spliced == pytest.approx(whole.ce_clean, abs=1e-5)
    zero = evaluate_in_model(both_signs(tiny_model.cfg.d_model, hook_point, 0.0), tiny_model, tokens)
    assert zero.ce_spliced == pytest.approx(zero.ce_zero)
    assert zero.kl_spliced > 1e-4
    assert zero.ce_zero != pytest.approx(zero.ce_clean, abs=1e-6)
