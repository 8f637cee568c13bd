"""Cost of a sparse training step, relative to the one dense product that it needs.

All steps run at d_in 512, d_sae 4096, k 32, batch 4096 and 2 threads, relative to one float32 4096x512x4096 product.
They include the loss, firing statistics, clipping, Adam and unit decoder rows. No latent is dead unless stated. Kinds
by autograd (`saes.kinds.autograd`) are compared with the same kind in the sparse step, in CPU seconds.
"""

import statistics
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.report import Result, at_most, interleaved, main, median_ratio
from saes.kernels.autograd import AutogradSettings, AutogradStepper, LossInputs
from saes.kernels.state import Rule, RunState, TrainState
from saes.kernels.step import Stepper, StepSettings, choose_ops
from saes.kinds.autograd import AutogradKind, DictionarySizes
from saes.kinds.config import BatchTopKConfig, JumpReLUConfig, MatryoshkaConfig, ReLUConfig, SAEConfig, TopKConfig
from saes.kinds.registry import recipe_of
from saes.kinds.topk import TopKRecipe

N, D_IN, D_SAE, K, N_DEAD = 4096, 512, 4096, 32, 410
WINDOW = 1 << 40
QUALITY_STEPS = 500
AGAINST = "one float32 4096x512x4096 product"


def run() -> list[Result]:
    """Measure the step of saes/kernels, in turns with a plain autograd step and the product itself."""
    torch.set_num_threads(2)
    x = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(0))
    left, out = torch.randn(D_SAE, D_IN), torch.empty(N, D_SAE)
    steps = [
        lambda: torch.mm(x, left.T, out=out),
        sparse_step(x),
        sparse_step(x, encoder=torch.bfloat16),
        sparse_step(x, n_dead=N_DEAD),
        rule_step(x, BatchTopKConfig(d_sae=D_SAE, k=K)),
        rule_step(x, MatryoshkaConfig(d_sae=D_SAE, k=K)),
        rule_step(x, JumpReLUConfig(d_sae=D_SAE, k=K)),
        autograd_step(x),
    ]
    product, *seconds = interleaved(*steps, repeats=9, warm_up=2)
    fp32, bf16, aux, batch, nested, jump, autograd = (median_ratio(s, product) for s in seconds)
    detail = f"product {statistics.median(product) * 1e3:.0f} ms"
    loss = quality_ratio()
    topk, relu = (by_autograd(x, kind) for kind in ("topk", "relu"))
    return [
        result("TopK step, float32 encoder", fp32, 2.0, f"{detail}; a plain autograd step takes {autograd:.1f}"),
        result("TopK step, bfloat16 encoder", bf16, 1.5, detail),
        result("added by AuxK with 10 % of latents dead", aux - fp32, 0.6, f"{N_DEAD} dead, k_aux 256"),
        result("BatchTopK step, float32 encoder", batch, 2.5, detail),
        result("Matryoshka step, five prefixes, float32 encoder", nested, 2.5, detail),
        result("JumpReLU step at its target L0, float32 encoder", jump, 4.0, detail),
        against_sparse("a TopK step by autograd, CPU seconds", topk, 8.0),
        against_sparse(f"a ReLU step by autograd at L0 {relu.l0:.0f}, CPU seconds", relu, 8.0),
        at_most(
            f"loss after {QUALITY_STEPS} steps, bfloat16 encoder",
            loss,
            1.01,
            "the same run in float32",
            "sparse sums of 1,024 directions, d_in 128, d_sae 1,024, k 16, batch 1,024",
        ),
    ]


def result(question: str, ratio: float, target: float, detail: str) -> Result:
    return at_most(question, ratio, target, AGAINST, detail)


def make_stepper(d_in: int, rule: Rule, encoder: torch.dtype) -> Stepper:
    settings = StepSettings(variance=float(d_in), k_aux=d_in // 2, dead_window=WINDOW, encoder_dtype=encoder)
    return Stepper(settings, rule, choose_ops("cpu"))


def fresh(d_in: int, d_sae: int) -> TrainState:
    return TrainState.initial(torch.zeros(d_in), d_sae, generator=torch.Generator().manual_seed(1))


def sparse_step(x: Tensor, *, encoder: torch.dtype = torch.float32, n_dead: int = 0):
    state, stepper = fresh(D_IN, D_SAE), make_stepper(D_IN, TopKRecipe(TopKConfig(d_sae=D_SAE, k=K)), encoder)

    def step() -> None:
        state.silent[: n_dead * 9 : 9] = WINDOW  # declared dead before every step, so that AuxK fires each time
        stepper.step(state, x, 1e-4)

    return step


def rule_step(x: Tensor, config: SAEConfig):
    """Return the step of one kind; its thresholds, where it has them, start at the target L0."""
    state, rule = fresh(D_IN, D_SAE), recipe_of(config)
    stepper = make_stepper(D_IN, rule, torch.float32)
    rule.start(stepper.ops, state, x, None)
    state.zero_moments()
    return lambda: stepper.step(state, x, 1e-4)


def autograd_step(x: Tensor):
    """Return a step in plain torch: dense decoder, autograd, fused Adam, firing statistics."""
    state = fresh(D_IN, D_SAE)
    W_enc, b_enc, W_dec, b_dec = weights = [w.clone().requires_grad_() for w in state.parameters().values()]
    adam = torch.optim.Adam(weights, lr=1e-4, fused=True)
    fired = torch.zeros(D_SAE, dtype=torch.int64)

    def step() -> None:
        pre = torch.addmm(b_enc, x - b_dec, W_enc.T)
        values, latents = pre.topk(K, dim=1)
        acts = torch.zeros_like(pre).scatter(1, latents, values.relu())
        loss = (acts @ W_dec + b_dec - x).square().sum() / (len(x) * D_IN)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
            fired.add_(torch.bincount(latents.flatten(), minlength=D_SAE))

    return step


class TopKByLoss(AutogradKind):
    """TopK, or ReLU with L1 where `k` is 0, given by its loss."""

    def __init__(self, sizes: DictionarySizes, k: int, l1: float = 0.0):
        super().__init__(sizes)
        self.k, self.l1 = k, l1
        self.W_enc = nn.Parameter(self.W_dec.detach().clone())
        self.b_enc = nn.Parameter(torch.zeros(sizes.d_sae))

    def encode(self, x: Tensor) -> Tensor:
        pre = torch.addmm(self.b_enc, x - self.b_dec, self.W_enc.T)
        if not self.k:
            return pre.relu()
        values, latents = pre.topk(self.k, dim=1)
        return torch.zeros_like(pre).scatter(1, latents, values.relu())

    def loss(self, batch: LossInputs, acts: Tensor, recons: Tensor) -> Tensor:
        penalty = self.l1 * acts.sum(-1).mean() / batch.variance**0.5 if self.l1 else 0.0
        return batch.fvu(recons) + penalty

    def constrain(self) -> None:
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))


class Compared(NamedTuple):
    """CPU seconds per step."""

    autograd: list[float]
    sparse: list[float]
    l0: float


def by_autograd(x: Tensor, kind: str) -> Compared:
    """Measure one kind by autograd and in the sparse step, from the same weights, in turns.

    The bias of a ReLU encoder starts so low that about `K` latents fire, as at the end of a training.
    """
    config = TopKConfig(d_sae=D_SAE, k=K) if kind == "topk" else ReLUConfig(d_sae=D_SAE, l1_coefficient=1e-3)
    state, rule = fresh(D_IN, D_SAE), recipe_of(config)
    if kind == "relu":
        state.b_enc -= (x @ state.W_enc.T).flatten().kthvalue(N * (D_SAE - K)).values
    learner = TopKByLoss(DictionarySizes(D_IN, D_SAE, torch.zeros(D_IN)), K if kind == "topk" else 0, 1e-3)
    clone = RunState(
        silent=state.silent.clone(),
        density=state.density.clone(),
        extra={name: tensor.clone() for name, tensor in state.parameters().items()},
    )
    clone.zero_moments()
    sparse = make_stepper(D_IN, rule, torch.float32)
    settings = AutogradSettings(variance=float(D_IN), n_steps=1000, dead_window=WINDOW)
    dense = AutogradStepper(settings, learner, choose_ops("cpu"))
    seen: list[float] = []
    steps = (lambda: seen.append(dense.step(clone, x, 1e-6).l0), lambda: sparse.step(state, x, 1e-6))
    autograd, compiled = interleaved(*steps, repeats=9, warm_up=2, clock=time.process_time)
    return Compared(autograd, compiled, statistics.mean(seen))


def against_sparse(question: str, comparison: Compared, target: float) -> Result:
    medians = statistics.median(comparison.autograd), statistics.median(comparison.sparse)
    return at_most(
        question,
        median_ratio(comparison.autograd, comparison.sparse),
        target,
        "the same kind in the sparse step",
        f"{medians[0]:.2f} and {medians[1]:.2f} CPU s at L0 {comparison.l0:.0f}",
    )


def quality_ratio() -> float:
    """Return the loss with a bfloat16 encoder / the loss in float32, after the same steps (mean of the last 20)."""
    losses = []
    for encoder in (torch.bfloat16, torch.float32):
        d_in, d_sae, generator = 128, 1024, torch.Generator().manual_seed(2)
        directions = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
        state, stepper = fresh(d_in, d_sae), make_stepper(d_in, TopKRecipe(TopKConfig(d_sae=d_sae, k=16)), encoder)
        seen = []
        for _ in range(QUALITY_STEPS):
            on = torch.rand(1024, d_sae, generator=generator) < 16 / d_sae
            seen.append(
                stepper.step(state, (on * torch.rand(on.shape, generator=generator)) @ directions * 4, 2e-3).loss
            )
        losses.append(statistics.mean(seen[-20:]))
    return losses[0] / losses[1]


if __name__ == "__main__":
    main(run)
