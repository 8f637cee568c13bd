"""Hooks that put an SAE into a model."""

import pytest
import torch
from test_kinds import make_saes

from interp.errors import ConfigError
from saes.intervene import ablate, clamp, keep_positions, replace_with, splice, steer


@pytest.fixture(params=[0, 1], ids=["topk", "jumprelu"])
def sae(request):
    return make_saes()[request.param]


@pytest.fixture
def value():
    return torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0)) * 3


def test_splicing_puts_the_reconstruction_in(sae, value):
    torch.testing.assert_close(splice(sae)(value), sae(value))


def test_splicing_with_the_error_kept_changes_nothing(sae, value):
    assert torch.equal(splice(sae, keep_error=True)(value), value)


def test_ablating_removes_exactly_that_features_direction(sae, value):
    acts = sae.encode(value)
    feature = int(acts.sum((0, 1)).argmax())
    changed = splice(sae, keep_error=True, edit=ablate(sae, feature))(value)
    expected = value - acts[..., feature, None] * sae.W_dec[feature]
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(changed, value)


def test_ablating_a_silent_feature_changes_nothing(sae, value):
    silent = int((sae.encode(value).sum((0, 1)) == 0).nonzero()[0])
    torch.testing.assert_close(splice(sae, keep_error=True, edit=ablate(sae, silent))(value), value)


def test_clamping_sets_the_feature_everywhere(sae, value):
    edited = clamp(sae, 3, 2.5)(sae.encode(value))
    assert (edited[..., 3] == 2.5).all()
    assert torch.equal(edited[..., 4:], sae.encode(value)[..., 4:])


def test_steering_adds_the_direction(sae, value):
    torch.testing.assert_close(
        steer(sae, 5, 4.0)(value) - value, (4 * sae.W_dec[5]).expand_as(value), atol=1e-5, rtol=0
    )


def test_the_dtype_of_the_model_is_kept(sae, value):
    assert splice(sae)(value.bfloat16()).dtype == torch.bfloat16
    assert steer(sae, 0, 1.0)(value.bfloat16()).dtype == torch.bfloat16


def test_kept_positions_pass_through(value):
    out = keep_positions(replace_with(torch.zeros(16)), 2)(value)
    assert torch.equal(out[:, :2], value[:, :2])
    assert not out[:, 2:].any()


def test_a_feature_that_is_not_there_is_refused(sae):
    for make in (lambda: ablate(sae, 64), lambda: clamp(sae, -1, 0.0), lambda: steer(sae, 999, 1.0)):
        with pytest.raises(ConfigError, match="features 0 to 63"):
            make()
