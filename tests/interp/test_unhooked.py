"""Training without hooks is the same function as the bridge, and steps aside where somebody looks."""

import itertools

import pytest
import torch

from interp.models.small import SmallConfig, build_small
from interp.models.training import TrainingConfig, train_small, training_forward

SIZES = {"n_layers": 2, "d_model": 32, "n_heads": 4, "d_vocab": 50, "n_ctx": 24}
KINDS = list(itertools.product(("LN", "RMS", None), ("standard", "rotary"), (None, 48)))


def build(**kind):
    model = build_small(SmallConfig(**SIZES, **kind), seed=0, device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():  # biases start at 0, norms at 1: nothing would be tested of them
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


def tokens(n: int = 3) -> torch.Tensor:
    return torch.randint(50, (n, 17), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("norm", "positions", "d_mlp"), KINDS)
def test_logits_and_gradients_are_the_models_own(norm, positions, d_mlp):
    model = build(normalization=norm, positions=positions, d_mlp=d_mlp)
    plain = training_forward(model)
    assert plain is not model
    weights = list(model.parameters())
    with torch.enable_grad():
        found, true = (forward(tokens()).logsumexp(-1).square().sum() for forward in (plain, model))
        torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-4)
        ours, theirs = (torch.autograd.grad(value, weights) for value in (found, true))
    largest = max(float(gradient.abs().max()) for gradient in theirs)
    for one, other in zip(ours, theirs, strict=True):  # that of a key's bias is 0 but for rounding
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("act_fn", ["gelu", "relu", "silu"])
def test_every_nonlinearity(act_fn: str):
    model = build(d_mlp=48, act_fn=act_fn)
    torch.testing.assert_close(training_forward(model)(tokens()), model(tokens()), rtol=1e-4, atol=1e-4)


def test_a_hook_is_not_passed_by():
    model = build()
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda value, hook: value)]):
        assert training_forward(model) is model
    assert training_forward(model) is not model


def test_an_intervention_put_on_between_two_values_is_trained_through():
    """From the second value on the first block's output is zeroed, so that its weights get no gradient."""
    model = build(d_mlp=48)
    config = TrainingConfig(steps=6, batch_size=4, log_every=3, weight_decay=0, warmup_steps=0)
    frozen = {name: w for name, w in model.named_parameters() if name.startswith("layers.0.")}
    kept = {}
    for step in train_small(model, lambda n, generator: tokens(n), config):
        if step.step == 3:
            assert all(weight.grad is not None for weight in frozen.values())
            model.add_hook("blocks.0.hook_resid_post", lambda value, hook: torch.zeros_like(value))
        else:
            kept = {name: w.grad for name, w in frozen.items()}
    assert len(kept) == len(frozen)
    assert all(grad is None or not grad.any() for grad in kept.values())
