"""One training step of a sparse dictionary: `Stepper.step` and `Stepper.gradients` read as the algorithm.

1. encode: `pre = (x - b_dec) @ W_enc + b_enc`, the only dense product (without `b_dec` where the target is not `x`);
2. the rule of the kind selects the active latents (TopK: Gao et al. 2024, equation 1);
3. decode them: `recons = values @ W_dec + b_dec [+ x @ W_skip]`;
4. loss `= FVU + penalty of the rule + aux_coefficient * L_aux`, where FVU is the squared error over the variance of
   the target (averaged over nested prefixes, where the rule has them), and `L_aux` is that of AuxK below;
5. gradients of the weights from the active latents alone, plus those of AuxK;
6. clip, Adam (dense: silent latents continue on their momentum, as in any Adam), decoder rows back to norm 1.

Tokens or latents may be divided over ranks (`spread.py`): sums over the shared axis cross ranks, nothing else does. All
exchange precedes the update, so that a rank lost in between leaves the state of the others intact.

**AuxK**: dead latents learn to predict the reconstruction error (Gao et al. 2024, arXiv 2406.04093, appendix A.2).
`L_aux = sum ||e - e_hat||^2 / sum ||e - mean(e)||^2`, where `e = x - recons` (without gradient) and
`e_hat = sum over the k_aux largest dead latents of relu(pre) * W_dec`, without bias. 0: the dead latents predict the
error fully; 1: no better than its mean. Only dead latents take part, so the products are dense but narrow (`n_dead`
wide), which is cheaper than a sparse loop.

**Decoder rows of several sites** (crosscoders) have blocks whose norms sum to 1. Scaling a latent's activation up and
its row down changes nothing, so one norm may be fixed. With this sum at 1, L1 weighted by decoder norms (Lindsey et
al. 2024, "Sparse crosscoders") is plain L1, and BatchTopK weighted by them plain BatchTopK. One block gives rows of
norm 1, as in an SAE.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from interp.ranks import ALONE, Ranks
from saes.kernels._plain import PlainOps
from saes.kernels.spread import UNSHARED, Spread, SpreadOps, kth_largest
from saes.kernels.state import NAMES, Active, Decoded, Gradients, Ops, Pass, Rule, TrainState

EVERY = 2
"""L_aux is estimated on every `EVERY`-th token of the batch: unbiased, and its cost falls by the same factor."""

CAP = 2
"""At most `CAP * k_aux` dead latents take part in a step, those silent longest: this bounds the cost of a bad start."""


class AuxK(NamedTuple):
    """Settings of the loss, and the ranks that share tokens or latents."""

    k: int
    """dead latents per token"""
    weight: float
    """weight of L_aux in the loss"""
    spread: Spread


def every(first: int) -> slice:
    """Return the rows on which L_aux is estimated, of a slice that begins at row `first` of the batch."""
    return slice(-first % EVERY, None, EVERY)


def dead_latents(state: TrainState, window: int, k_aux: int, latents: Ranks = ALONE) -> tuple[int, Tensor]:
    """Return the number of latents of all ranks silent for `window` tokens, and the indices of this rank's that take
    part.
    """
    dead = (state.silent >= window).nonzero().squeeze(1)
    n = int(latents.total(len(dead)))
    if n <= CAP * k_aux:
        return n, dead
    order = dead + latents.rank * state.d_sae
    return n, dead[Spread(latents=latents).largest(state.silent[dead], order, CAP * k_aux)]


def add_auxk(
    ops: Ops, state: TrainState, x: Tensor, error: Tensor, pre: Tensor, dead: Tensor, settings: AuxK, out: Gradients
) -> Tensor:
    """Add the gradients of `weight * L_aux` to `out`; return the contribution `[]` of this rank's tokens to `L_aux`.

    `x [n, d_in]` is the encoder's input, `error [n, d_out]` is `recons - target`, `pre [n, d_sae]` the pre-activations
    that the step has already computed.
    """
    W_dec, latents = state.W_dec[dead], settings.spread.latents
    power = _power(error, settings.spread.tokens)
    per_power = torch.where(power > 0, 1 / power, 0)  # no variance, no loss: asking here would wait for the device
    acts = pre[:, dead].to(error.dtype).relu_()
    _keep_largest(ops, acts, settings.k, latents)
    # e_hat - e, since error = -e: it is added once however many ranks share the latents
    residual_error = latents.add(torch.addmm(error, acts, W_dec, beta=int(latents.first)))
    grad = residual_error * (2 * settings.weight * per_power)
    slopes = (grad @ W_dec.T).mul_(acts > 0)
    out.W_dec[dead] += acts.T @ grad  # each dead latent occurs once, so plain indexing adds all
    out.W_enc[dead] += slopes.T @ x
    out.b_enc[dead] += slopes.sum(0)
    return residual_error.norm() ** 2 * per_power


def _power(error: Tensor, tokens: Ranks) -> Tensor:
    """Return the squared distance of all ranks' errors from their mean, `[]`.

    0 where they differ by rounding only (a single token, say), so that there is no variance to explain.
    """
    sums = torch.cat([error.sum(0), error.norm()[None] ** 2, error.new_full((1,), len(error))])
    tokens.add(sums)
    apart = sums[-2] - sums[:-2].norm() ** 2 / sums[-1]
    return apart * (apart > 1e-5 * sums[-2])


def _keep_largest(ops: Ops, acts: Tensor, k: int, latents: Ranks) -> None:
    """Zero all but the `k` largest of each row over all ranks' columns, in place.

    Rows with at most `k` positive values do not change.
    """
    crowded = (latents.add((acts > 0).sum(1)) > k).nonzero().squeeze(1)
    if len(crowded):
        rows = acts[crowded]
        acts[crowded] = rows.where(rows >= kth_largest(ops, rows, k, latents), 0)


def block_norms(W_dec: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Return the norm of every block of every row, `[d_sae, n_blocks]`; `blocks` are their widths."""
    return torch.stack([part.norm(dim=1) for part in W_dec.split(blocks, dim=1)], dim=1)


def project_blocks(out: Gradients, W_dec: Tensor, blocks: tuple[int, ...]) -> float:
    """Remove from each decoder gradient its component along the normal of its constraint.

    The blocks of that normal are the unit vectors of the row's blocks. Returns the squared norm of all gradients.
    """
    lengths = block_norms(W_dec, blocks)
    units = [part / length[:, None].clamp_min(1e-12) for part, length in _parts(W_dec, lengths, blocks)]
    normal = torch.cat(units, dim=1)
    share = (out.W_dec * normal).sum(1, keepdim=True) / normal.square().sum(1, keepdim=True).clamp_min(1e-12)
    out.W_dec.sub_(share * normal)
    return float(sum(g.double().square().sum() for g in out.by_name().values()))


def _parts(W_dec: Tensor, lengths: Tensor, blocks: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(W_dec.split(blocks, dim=1), lengths.unbind(1), strict=True))


SKIP = "W_skip"
"""`[d_out, d_in]`: a linear skip connection, learned with the latents."""


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Settings that are constant over a run."""

    variance: float
    """Mean squared distance of a row from the mean row; an SAE that outputs the mean has loss 1."""
    k_aux: int
    aux_coefficient: float = 1 / 32
    dead_window: int = 10_000_000
    clip_norm: float = 1.0
    encoder_dtype: torch.dtype = torch.float32
    sparsity_warmup_steps: int = 0
    """Steps over which the rule's penalty rises to its full weight."""
    frozen: tuple[str, ...] = ()
    """Parameters that keep their initial values."""


class StepResult(NamedTuple):
    """Numbers of one step before its update, over all ranks' tokens and latents."""

    loss: float
    fvu: float
    aux: float
    """L_aux; 0 when no latent is dead"""
    l0: float
    n_dead: int
    penalty: float
    """contribution of the rule to the loss; 0 for kinds without a sparsity penalty"""
    threshold: float | None
    """threshold between active and silent latents (mean over latents); None for kinds without one"""


class Derivatives(NamedTuple):
    """Loss of a batch, and its gradients."""

    loss: float
    fvu: float
    aux: float
    penalty: float
    n_dead: int
    n_active: float
    """entries that fire, of all tokens and this rank's latents"""
    counts: Tensor
    """`[d_sae]` tokens on which each latent fired"""
    active: Active
    """this rank's entries"""
    gradients: Gradients
    """their memory is reused by the next call"""


class Buffers:
    """Working memory of a step; steppers that take turns may share it."""

    def __init__(self) -> None:
        self._gradients: Gradients | None = None
        self._pre: Tensor | None = None

    def gradients(self, state: TrainState) -> Gradients:
        """Return room for the gradients of a state, with undefined content."""
        buffers, like = self._gradients, [getattr(state, name) for name in NAMES]
        kind = [(t.shape, t.dtype, t.device) for t in like]
        if buffers is None or kind != [(t.shape, t.dtype, t.device) for t in (getattr(buffers, n) for n in NAMES)]:
            W_enc, b_enc, W_dec, b_dec = map(torch.empty_like, like)
            self._gradients = buffers = Gradients(W_enc, b_enc, W_dec, b_dec)
        return buffers

    def pre(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return room for pre-activations, with undefined content."""
        if self._pre is None or (self._pre.shape, self._pre.dtype, self._pre.device) != (shape, dtype, device):
            self._pre = torch.empty(shape, dtype=dtype, device=device)
        return self._pre


class Stepper:
    """Take steps on a `TrainState`. Holds the backend and the gradient buffers, nothing that a resume would need."""

    def __init__(
        self, settings: StepSettings, rule: Rule, ops: Ops, spread: Spread = UNSHARED, buffers: Buffers | None = None
    ):
        self.settings, self.rule, self.spread = settings, rule, spread
        self.ops: Ops = ops if spread.alone else SpreadOps(ops, spread)
        self._own_ops = ops
        self._buffers = buffers or Buffers()

    def step(self, state: TrainState, x: Tensor, lr: float, target: Tensor | None = None) -> StepResult:
        """Take one step on `x [n, d_in]`, changing `state` in place. `target [n, d_out]` None: `x` is its own target.

        Each rank that shares a batch passes its rows, the same number on every rank.
        """
        grads, n = self.gradients(state, x, target), self._n(x)
        threshold = self._threshold(state, grads.active)
        l0 = self.spread.latents.total(grads.n_active) / n
        self._apply(state, grads.gradients, lr)
        self.rule.constrain(state)
        state.count(grads.counts, n)
        return StepResult(grads.loss, grads.fvu, grads.aux, l0, grads.n_dead, grads.penalty, threshold)

    def gradients(self, state: TrainState, x: Tensor, target: Tensor | None = None) -> Derivatives:
        """Return the loss on a batch and its gradients. The numbers are the steps of the module's docstring."""
        rule, ops, n, variance = self.rule, self.ops, self._n(x), self.settings.variance
        tied = target is None
        centred = x - state.b_dec if tied else x
        goal = centred if target is None else _without_skip(state, x, target - state.b_dec)
        pre = self._encode(state, centred)  # 1
        selected = rule.select(ops, state, pre)  # 2
        scale = 2 / (n * variance)
        decoded = ops.decode(goal, state.W_dec, selected.active, scale, rule.ends)  # 3
        warmth, tokens = self._warmth(state), self.spread.tokens
        back = rule.backward(ops, Pass(state, goal, selected, decoded, scale, variance, warmth, tokens))  # 4
        out = self._buffers.gradients(state)
        counts = ops.weight_gradients(centred, decoded, selected.active, back.slopes, out, rule.ends)  # 5
        n_dead, aux = self._add_auxk(state, centred, pre, decoded, scale, out)
        self._add_bias_gradients(state, x, decoded.grad[0], dict(back.extra or {}), tied, out)
        numbers = decoded.squared.new_zeros(3 + len(decoded.squared), dtype=torch.float64)
        numbers[0], numbers[1], numbers[2] = back.penalty, counts.sum(), aux
        torch.sum(decoded.squared.double(), 1, out=numbers[3:])
        tokens.add(*out.by_name().values(), counts, numbers)
        penalty, n_active, aux, *squared = numbers.tolist()
        # of the recording's variance; `fraction_unexplained` of the evaluation takes that of its own tokens
        fvus = [error / (n * variance) for error in squared]
        loss = sum(fvus) / len(fvus) + penalty + self.settings.aux_coefficient * aux
        return Derivatives(loss, fvus[-1], aux, penalty, n_dead, n_active, counts, selected.active, out)

    def _add_auxk(
        self, state: TrainState, centred: Tensor, pre: Tensor, decoded: Decoded, scale: float, out: Gradients
    ) -> tuple[int, Tensor | float]:
        """Add the gradients of AuxK to `out`; return how many latents are dead, and this rank's part of `L_aux`."""
        s = self.settings
        if not (s.aux_coefficient and self.rule.revives):
            return 0, 0.0
        n_dead, dead = dead_latents(state, s.dead_window, s.k_aux, self.spread.latents)
        if not n_dead:
            return 0, 0.0
        part = every(len(centred) * self.spread.tokens.rank)
        error = decoded.grad[-1, part] * (len(decoded.grad) / scale)
        settings = AuxK(s.k_aux, s.aux_coefficient, self.spread)
        return n_dead, add_auxk(self._own_ops, state, centred[part], error, pre[part], dead, settings, out)

    def _add_bias_gradients(
        self, state: TrainState, x: Tensor, output: Tensor, own: dict[str, Tensor], tied: bool, out: Gradients
    ) -> None:
        """Fill in the gradients of the biases, of the skip connection and of the kind's own parameters.

        `output [n, d_out]` is the gradient of everything that is added to the reconstruction.
        """
        # b_dec may enter twice: added to the reconstruction, subtracted from the encoder's input
        torch.sub(output.sum(0), self.spread.latents.add(out.b_enc @ state.W_enc) if tied else 0, out=out.b_dec)
        out.extra = own
        out.b_enc.copy_(out.extra.pop("b_enc", out.b_enc))
        if SKIP in state.extra:
            out.extra[SKIP] = output.T @ x

    def _n(self, x: Tensor) -> int:
        """Number of tokens of the whole batch."""
        return len(x) * self.spread.tokens.world

    def _threshold(self, state: TrainState, active: Active) -> float | None:
        """Return the rule's threshold; where it is the smallest active value, the smallest of all ranks."""
        level = self.rule.threshold(state, active)
        if level is None or self.spread.alone:
            return level
        least = self.spread.ranks.least(level if len(active.values) else math.inf)
        return least if math.isfinite(least) else level

    def _warmth(self, state: TrainState) -> float:
        return min(1.0, (state.step + 1) / (self.settings.sparsity_warmup_steps + 1))

    def _encode(self, state: TrainState, centred: Tensor) -> Tensor:
        dtype = torch.float32 if centred.dtype == torch.float32 else centred.dtype
        if dtype == torch.float32 and self.settings.encoder_dtype == torch.bfloat16:
            dtype = torch.bfloat16
        room = self._buffers.pre((len(centred), state.d_sae), dtype, centred.device)
        return torch.addmm(state.b_enc.to(dtype), centred.to(dtype), state.W_enc.to(dtype).T, out=room)

    def _apply(self, state: TrainState, gradients: Gradients, lr: float) -> None:
        blocks = self.rule.blocks
        for name in self.settings.frozen:  # with moments of 0, Adam leaves them as they are
            gradients.by_name()[name].zero_()
        if blocks:
            norm = math.sqrt(project_blocks(gradients, state.W_dec, blocks))
        else:
            norm = math.sqrt(self.ops.project(gradients, state.W_dec))
        state.step += 1
        adam = state.adam_step(lr, norm, self.settings.clip_norm)
        by_name = gradients.by_name()
        for name, weight in state.parameters().items():
            scaled = adam._replace(rate=adam.rate * self.rule.quicker.get(name, 1.0))
            self.ops.adam(weight, by_name[name], state.moments[name], scaled, unit=name == "W_dec" and not blocks)
        if blocks:
            state.W_dec.div_(block_norms(state.W_dec, blocks).sum(1, keepdim=True))


def choose_ops(x: Tensor | torch.device | str) -> Ops:
    """Choose the backend: compiled loops on the CPU, torch operations elsewhere."""
    device = x.device if isinstance(x, Tensor) else torch.device(x)
    if device.type != "cpu":
        return PlainOps()
    from saes.kernels.compiled import CompiledOps

    return CompiledOps()


def _without_skip(state: TrainState, x: Tensor, target: Tensor) -> Tensor:
    """Return the target minus the output of the skip connection."""
    return torch.addmm(target, x, state.extra[SKIP].T, alpha=-1) if SKIP in state.extra else target
