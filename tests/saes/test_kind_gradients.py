"""Every kind's step against its loss written out densely: the same loss and the same gradients, in float64."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_worker import D_IN, D_OUT, D_SAE, WIDTHS, K, random_state

from saes.kernels._plain import PlainOps
from saes.kernels.compiled import CompiledOps
from saes.kernels.state import Gradients
from saes.kernels.step import CAP, EVERY, Stepper, StepSettings, block_norms, project_blocks
from saes.kinds.config import (
    BatchTopKConfig,
    CrosscoderConfig,
    GatedConfig,
    JumpReLUConfig,
    MatryoshkaConfig,
    ReLUConfig,
    SAEConfig,
    TopKConfig,
    TranscoderConfig,
)
from saes.kinds.registry import recipe_of
from saes.kinds.topk import prefix_ends

N = 60
VARIANCE, WARMUP = 50.0, 3
BACKENDS = [PlainOps, CompiledOps]


def make_batch(config: SAEConfig, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D_IN, generator=generator, dtype=torch.float64) * 2
    y = torch.randn(N, D_OUT, generator=generator, dtype=torch.float64) * 2
    return x, y if isinstance(config, TranscoderConfig) else None


class Step(torch.autograd.Function):
    """`1[pre > threshold]` with the rectangular straight-through gradient to the threshold."""

    @staticmethod
    def forward(ctx, pre, threshold, bandwidth):
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx, grad):
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.bandwidth / 2) * (pre > 0)
        return None, -(near * grad).sum(0) / ctx.bandwidth, None


class Jump(torch.autograd.Function):
    """`pre * 1[pre > threshold]`, exact in `pre`, straight-through in the threshold."""

    @staticmethod
    def forward(ctx, pre, threshold, bandwidth):
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx, grad):
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.bandwidth / 2) * (pre > 0)
        return grad * (pre > threshold), -(threshold * near * grad).sum(0) / ctx.bandwidth, None


@dataclass
class Reference:
    """The loss of the papers, dense, with autograd."""

    weights: dict[str, torch.Tensor]
    warmth: float

    def loss(self, config: SAEConfig, x, y, dead, k_aux, coefficient):
        w = self.weights
        target = x if y is None else y
        pre = (x - w["b_dec"] if y is None else x) @ w["W_enc"].T + w["b_enc"]
        bias = w["b_dec"] + (x @ w["W_skip"].T if "W_skip" in w else 0)
        acts, penalty, ends = self.activate(config, x, pre), 0.0, (D_SAE,)
        if isinstance(config, MatryoshkaConfig):
            ends = prefix_ends(config)
        errors = [target - acts[:, :end] @ w["W_dec"][:end] - bias for end in ends]
        fvu = sum(self.fvu(e) for e in errors) / len(ends)
        if isinstance(config, ReLUConfig) or (isinstance(config, CrosscoderConfig) and config.sparsity == "l1"):
            lengths = block_norms(w["W_dec"], WIDTHS).sum(1).detach() if isinstance(config, CrosscoderConfig) else 1
            penalty = self.warmth * config.l1_coefficient * (acts * lengths).sum() / N / VARIANCE**0.5
        if isinstance(config, GatedConfig):
            gate = pre.relu()
            frozen = target - gate @ w["W_dec"].detach() - w["b_dec"].detach()
            frozen = frozen + 0 * w["b_dec"].sum()
            l1 = self.warmth * config.l1_coefficient * gate.sum() / N / VARIANCE**0.5
            penalty = l1 + self.fvu(frozen)
        if isinstance(config, JumpReLUConfig):
            if config.sparsity == "tanh":
                penalty = torch.tanh(4 * acts).sum() / N / config.k
            else:
                l0 = Step.apply(pre.detach(), w["threshold"], config.bandwidth).sum() / N
                penalty = (l0 / config.k - 1) ** 2
            penalty = penalty * self.warmth * config.sparsity_coefficient
        loss = fvu + penalty
        if len(dead):
            dead_pre, error = pre[::EVERY, dead], errors[-1][::EVERY].detach()
            keep = torch.zeros_like(dead_pre).scatter_(1, dead_pre.topk(min(k_aux, len(dead)), dim=1).indices, 1.0)
            aux = (error - (dead_pre.relu() * keep) @ w["W_dec"][dead]).square().sum()
            loss = loss + coefficient * aux / (error - error.mean(0)).square().sum()
        return loss

    def activate(self, config, x, pre):
        w = self.weights
        if isinstance(config, JumpReLUConfig):
            return Jump.apply(pre, w["threshold"], config.bandwidth)
        if isinstance(config, GatedConfig):
            z = pre - w["b_enc"]
            return (pre > 0) * (z * w["r_mag"].exp() + w["b_mag"]).relu()
        if isinstance(config, ReLUConfig) or getattr(config, "sparsity", "") == "l1":
            return pre.relu()
        if isinstance(config, TopKConfig) or getattr(config, "selection", "") == "topk":
            return pre.relu() * torch.zeros_like(pre).scatter_(1, pre.topk(K, dim=1).indices, 1.0)
        return pre.relu() * (pre >= pre.flatten().topk(K * N).values.min())

    def fvu(self, error):
        return error.square().sum() / (N * VARIANCE)


SIZES = {"d_sae": D_SAE}
CONFIGS = {
    "topk": TopKConfig(**SIZES, k=K),
    "batchtopk": BatchTopKConfig(**SIZES, k=K),
    "matryoshka": MatryoshkaConfig(**SIZES, k=K, prefixes=(0.1, 0.3, 0.7)),
    "jumprelu quadratic": JumpReLUConfig(**SIZES, k=K, bandwidth=0.6, sparsity_coefficient=0.7),
    "jumprelu tanh": JumpReLUConfig(**SIZES, k=K, bandwidth=0.6, sparsity="tanh", sparsity_coefficient=0.3),
    "jumprelu wide": JumpReLUConfig(**SIZES, k=K, bandwidth=2.0),
    "relu": ReLUConfig(**SIZES, l1_coefficient=0.4),
    "gated": GatedConfig(**SIZES, l1_coefficient=0.4),
    "transcoder": TranscoderConfig(**SIZES, k=K, target="blocks.0.hook_mlp_out"),
    "transcoder topk": TranscoderConfig(**SIZES, k=K, target="blocks.0.hook_mlp_out", selection="topk"),
    "skip transcoder": TranscoderConfig(**SIZES, k=K, target="blocks.0.hook_mlp_out", skip=True),
    "crosscoder": CrosscoderConfig(**SIZES, k=K),
    "crosscoder l1": CrosscoderConfig(**SIZES, k=K, sparsity="l1", l1_coefficient=0.4),
}


@pytest.mark.parametrize("ops", BACKENDS)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("n_dead", [0, 6, 20])
def test_loss_and_every_gradient_equal_the_written_out_ones(ops, name, n_dead):
    config = CONFIGS[name]
    state, (x, y) = random_state(config), make_batch(config)
    rule, k_aux = recipe_of(config, WIDTHS), 4
    silent = torch.arange(1, 1 + 2 * n_dead, 2)
    state.silent[silent] = 1000  # equally long: of more than `CAP * k_aux` the first take part
    dead = silent[: CAP * k_aux] if rule.revives else silent[:0]
    chosen = StepSettings(
        variance=VARIANCE, k_aux=k_aux, aux_coefficient=0.5, dead_window=900, sparsity_warmup_steps=WARMUP
    )
    found = Stepper(chosen, rule, ops()).gradients(state, x, y)
    leaves = {n: w.clone().requires_grad_() for n, w in state.parameters().items()}
    expected = Reference(leaves, 1 / (WARMUP + 1)).loss(config, x, y, dead, k_aux, 0.5)
    expected.backward()
    assert found.n_dead == (n_dead if rule.revives else 0)
    assert found.loss == pytest.approx(expected.item(), abs=1e-12)
    gradients = found.gradients.by_name()
    assert gradients.keys() == leaves.keys()
    for n, leaf in leaves.items():
        assert leaf.grad is not None, n
        assert leaf.grad.abs().max() > 1e-6, n  # a gradient that is zero everywhere would be checked against nothing
        assert (gradients[n] - leaf.grad).abs().max() < 1e-10, n


@pytest.mark.parametrize("name", CONFIGS)
def test_compiled_and_plain_steps_agree(name):
    config, results = CONFIGS[name], []
    for ops in BACKENDS:
        state = random_state(config)
        chosen = StepSettings(variance=VARIANCE, k_aux=4, dead_window=150)
        stepper = Stepper(chosen, recipe_of(config, WIDTHS), ops())
        losses = [stepper.step(state, x, 1e-2, y).loss for x, y in (make_batch(config, seed) for seed in range(8))]
        results.append((losses, state.tensors()))
    (mine, compiled), (theirs, plain) = results
    assert mine == pytest.approx(theirs, rel=1e-10)
    for n, tensor in compiled.items():
        torch.testing.assert_close(tensor, plain[n], atol=1e-8, rtol=1e-8, msg=n)


@pytest.mark.parametrize("name", CONFIGS)
def test_decoder_rows_keep_their_length(name):
    config = CONFIGS[name]
    state, widths = random_state(config), WIDTHS if isinstance(config, CrosscoderConfig) else (-1,)
    stepper = Stepper(StepSettings(variance=VARIANCE, k_aux=4), recipe_of(config, WIDTHS), CompiledOps())
    for seed in range(3):
        x, y = make_batch(config, seed)
        stepper.step(state, x, 1e-2, y)
    lengths = block_norms(state.W_dec, widths if widths[0] > 0 else (state.W_dec.shape[1],)).sum(1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_projected_crosscoder_gradient_keeps_the_sum_of_lengths_to_first_order(seed):
    generator = torch.Generator().manual_seed(seed)
    W_dec, grad = (torch.randn(9, D_IN, generator=generator, dtype=torch.float64) for _ in range(2))
    W_dec /= block_norms(W_dec, WIDTHS).sum(1, keepdim=True)
    out = Gradients(torch.zeros(9, D_IN), torch.zeros(9), grad, torch.zeros(D_IN))
    squared = project_blocks(out, W_dec, WIDTHS)
    assert squared == pytest.approx(float(out.W_dec.square().sum()))
    moved = block_norms(W_dec + 1e-6 * out.W_dec, WIDTHS).sum(1)
    assert (moved - 1).abs().max() < 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), shares=st.lists(st.floats(0.02, 1.0), min_size=1, max_size=5, unique=True))
def test_one_prefix_more_or_less_leaves_the_fvu_of_the_whole_alone(seed, shares):
    """Nested prefixes change what is learned, not what the whole reconstructs."""
    nested = MatryoshkaConfig(**SIZES, k=K, prefixes=tuple(sorted(shares)))
    single = MatryoshkaConfig(**SIZES, k=K, prefixes=(1.0,))
    state, (x, _) = random_state(nested, seed), make_batch(nested, seed)
    chosen = StepSettings(variance=VARIANCE, k_aux=4)
    steps = [Stepper(chosen, recipe_of(c), CompiledOps()).gradients(state, x) for c in (nested, single)]
    assert steps[0].fvu == pytest.approx(steps[1].fvu, abs=1e-12)
    assert steps[1].loss == pytest.approx(steps[1].fvu, abs=1e-12)


def test_thresholds_move_at_five_times_the_rate_of_the_weights():
    """Adam's first step is the learning rate, whatever the gradient."""
    config, lr = CONFIGS["jumprelu quadratic"], 1e-3
    state = random_state(config)
    before = {name: tensor.clone() for name, tensor in state.parameters().items()}
    stepper = Stepper(StepSettings(variance=VARIANCE, k_aux=4), recipe_of(config), CompiledOps())
    stepper.step(state, make_batch(config)[0], lr)
    moved = {name: float((tensor - before[name]).abs().max()) for name, tensor in state.parameters().items()}
    assert moved["b_enc"] == pytest.approx(lr, rel=1e-3)
    assert moved["threshold"] == pytest.approx(5 * lr, rel=1e-3)


def test_thresholds_stay_at_or_above_zero_and_teach_in_float32_under_a_bfloat16_encoder():
    config = JumpReLUConfig(**SIZES, k=1, bandwidth=1.0)
    state = random_state(config)
    for name, tensor in state.parameters().items():
        moved = tensor.float()
        if name in state.extra:
            state.extra[name] = moved.mul(0.01)
        else:
            setattr(state, name, moved)
    state.zero_moments()
    before = state.extra["threshold"].clone()
    chosen = StepSettings(variance=VARIANCE, k_aux=4, encoder_dtype=torch.bfloat16)
    stepper = Stepper(chosen, recipe_of(config), CompiledOps())
    for seed in range(5):
        stepper.step(state, make_batch(config, seed)[0].float(), 3e-4)
    after = state.extra["threshold"]
    assert after.dtype == torch.float32
    assert (after >= 0).all()
    assert (after > before).any()  # L0 is far above 1: thresholds rise, by less than bfloat16 resolves at 1
