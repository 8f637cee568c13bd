"""Cross-layer transcoder (Ameisen et al. 2025, Circuit Tracing): each latent reads from one layer's residual stream and
writes to the MLP outputs of that layer and of all later ones. `saes.weights.circuit_tracer` reads those of others.

    acts_i = act(x_i @ W_enc_i + b_enc_i)                       for layer i = 0 .. L - 1
    y_j = b_dec_j + sum over i <= j of acts_i @ W_dec_i[:, j - i]  [+ x_j @ W_skip_j]

`W_dec_i` is `[d_sae, L - i, d_model]`: the last layer writes to itself only. `W_skip_j` is `[d_in, d_out]`, the
transpose of a transcoder's.

Training (`CrossLayer`):

    loss = mean over layers of FVU + penalty
           + dead_coefficient * mean over tokens, sum over dead latents of relu(threshold - pre) |W|

`|W|` is the norm of a latent's decoder over all layers that it writes to. Two selections:

    jumprelu    a learned threshold for each latent, by straight-through estimators with a rectangular kernel, and the
                penalty sparsity_coefficient * mean sum tanh(tanh_scale * activation * |W|) / (k * n_layers), whose
                weight rises from 0 over the whole run
    batchtopk   the `k * n_layers` pre-activations of a token with the largest `activation * |W|`, on average over the
                batch and over all layers together; afterwards one value of `activation * |W|` is the threshold of all

The encoder starts uniform in `+- 1 / sqrt(d_sae)`, the decoder in `+- 1 / sqrt(n_layers * d_out)`. Products are dense.
The decoder has `n_layers * (n_layers + 1) / 2` blocks of `d_sae * d_out`: at the size of SmolLM2 (30 layers) 620
million weights for 2,304 latents a layer. In training, weights have an axis more: `W_enc [n_layers, d_sae, d_in]`,
`W_dec [n_blocks, d_sae, d_out]`.
"""

from itertools import islice
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.kernels.autograd import BatchMeasurements, LossInputs
from saes.kernels.state import Ops, entry_rows
from saes.kernels.step import SKIP, choose_ops
from saes.kinds.autograd import AutogradKind, DictionarySizes
from saes.kinds.base import Finished, SAEMetadata
from saes.kinds.config import CrossLayerConfig
from saes.kinds.jumprelu import THRESHOLD

SAMPLES = 4
"""Batches from which BatchTopK's threshold is estimated at the end."""


@final
class CrossLayerTranscoder(nn.Module):
    """All layers of one cross-layer transcoder; its weights have no gradients."""

    def __init__(
        self,
        W_enc: list[Float[Tensor, "d_in d_sae"]],
        b_enc: list[Float[Tensor, " d_sae"]],
        W_dec: list[Float[Tensor, "d_sae _ d_out"]],
        b_dec: list[Float[Tensor, " d_out"]],
        *,
        threshold: list[Float[Tensor, " d_sae"]] | None = None,
        W_skip: list[Float[Tensor, "d_in d_out"]] | None = None,
        metadata: SAEMetadata | None = None,
    ):
        """One entry per layer: `W_enc [d_in, d_sae]`, `W_dec [d_sae, L - i, d_out]`; ReLU without thresholds."""
        super().__init__()
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = (_fixed(group) for group in (W_enc, b_enc, W_dec, b_dec))
        self.threshold = _fixed(threshold or [])
        self.W_skip = _fixed(W_skip or [])
        self.metadata = metadata or SAEMetadata()
        self.n_layers = len(W_enc)
        self.d_in, self.d_sae = W_enc[0].shape
        self.d_out = W_dec[0].shape[2]

    def __repr__(self) -> str:
        return f"CrossLayerTranscoder({self.n_layers} layers of {self.d_sae} latents, d_in={self.d_in})"

    def encode_layer(self, layer: int, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Return activations of the latents that read from `layer`: `[..., d_in] -> [..., d_sae]`."""
        pre = x @ self.W_enc[layer] + self.b_enc[layer]
        return pre.relu() * (pre > self.threshold[layer]) if len(self.threshold) else pre.relu()

    def encode(self, x: Float[Tensor, "n_layers *batch d_in"]) -> Float[Tensor, "n_layers *batch d_sae"]:
        """`[n_layers, ..., d_in] -> [n_layers, ..., d_sae]`."""
        return torch.stack([self.encode_layer(layer, x[layer]) for layer in range(self.n_layers)])

    def directions(self, source: int, target: int) -> Float[Tensor, "d_sae d_out"]:
        """`[d_sae, d_out]`: vectors that one unit of each latent of layer `source` adds at `target >= source`."""
        return self.W_dec[source][:, target - source]

    def decode(self, feature_acts: Float[Tensor, "n_layers *batch d_sae"]) -> Float[Tensor, "n_layers *batch d_out"]:
        """`[n_layers, ..., d_sae] -> [n_layers, ..., d_out]`, biases included, skip connections not."""
        out = []
        for target in range(self.n_layers):
            total = sum(feature_acts[source] @ self.directions(source, target) for source in range(target + 1))
            out.append(total + self.b_dec[target])
        return torch.stack(out)

    def forward(self, x: Float[Tensor, "n_layers *batch d_in"]) -> Float[Tensor, "n_layers *batch d_out"]:
        """Predict all MLP outputs from all MLP inputs: `[n_layers, ..., d_in] -> [n_layers, ..., d_out]`."""
        recons = self.decode(self.encode(x))
        if not len(self.W_skip):
            return recons
        return recons + torch.stack([x[layer] @ self.W_skip[layer] for layer in range(self.n_layers)])


def _fixed(tensors: list[Tensor]) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(t, requires_grad=False) for t in tensors])


class _Jump(torch.autograd.Function):
    """`pre * 1[pre > threshold]`, and the threshold's gradient by a rectangular kernel."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.bandwidth / 2
        return grad * (pre > threshold), -(threshold / ctx.bandwidth) * (near * grad), None


def decoder_norms(W_dec: Tensor, n_layers: int) -> Tensor:
    """Return the norm of every latent's decoder over all layers that it writes to, `[n_layers, d_sae]`."""
    squares = W_dec.square().sum(-1)
    return torch.stack([part.sum(0) for part in _blocks(squares, n_layers)]).sqrt()


def decode(acts: Tensor, W_dec: Tensor, b_dec: Tensor) -> Tensor:
    """Return outputs `[n_layers, n, d_out]` of activations `[n_layers, n, d_sae]`."""
    n_layers = len(acts)
    out = [b_dec[layer].expand(acts.shape[1], -1) for layer in range(n_layers)]
    for source, blocks in enumerate(_blocks(W_dec, n_layers)):
        for offset, block in enumerate(blocks):
            out[source + offset] = torch.addmm(out[source + offset], acts[source], block)
    return torch.stack(out)


def _blocks(W_dec: Tensor, n_layers: int) -> list[Tensor]:
    """Return the decoder blocks `[n_targets, d_sae, ...]` of every layer."""
    return list(W_dec.split(list(range(n_layers, 0, -1))))


@final
class CrossLayer(AutogradKind):
    """A cross-layer transcoder in training; batches hold all layers, `[n, n_layers, d]`."""

    def __init__(self, sizes: DictionarySizes, config: CrossLayerConfig):
        nn.Module.__init__(self)  # other shapes than those of one layer
        (n, d_out), m = sizes.mean.shape, sizes.d_sae

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(*shape) - 1) * bound)

        self.config, self.n_layers = config, n
        self.W_enc, self.b_enc = uniform(m**-0.5, n, m, sizes.d_in), nn.Parameter(torch.zeros(n, m))
        self.W_dec = uniform((n * d_out) ** -0.5, n * (n + 1) // 2, m, d_out)
        self.b_dec = nn.Parameter(sizes.mean.clone())
        self.register_parameter(
            THRESHOLD,
            nn.Parameter(torch.full((n, m), config.threshold)) if config.selection == "jumprelu" else None,
        )
        self.register_parameter(SKIP, nn.Parameter(torch.zeros(n, d_out, sizes.d_in)) if config.skip else None)

    threshold: nn.Parameter | None
    W_skip: nn.Parameter | None

    def measure(self, batch: LossInputs) -> BatchMeasurements:
        config, layers = self.config, self.n_layers
        x, target = (t.transpose(0, 1).contiguous() for t in (batch.x, batch.target))
        pre, norms = self._pre_activations(x), decoder_norms(self.W_dec, layers)
        acts = self._activate(pre, norms.detach(), batch.ops)
        recons = decode(acts, self.W_dec, self.b_dec)
        if self.W_skip is not None:
            recons = recons + x @ self.W_skip.transpose(1, 2)
        n = x.shape[1]
        fvu = ((recons - target).square().sum((1, 2)) / (n * batch.variance)).mean()
        penalty = fvu.new_zeros(())
        if config.selection == "jumprelu":
            bounded = torch.tanh(config.tanh_scale * acts * norms[:, None])
            penalty = config.sparsity_coefficient * batch.progress * bounded.sum() / (n * config.k * layers)
        if batch.dead.any() and config.dead_coefficient:
            level = 0.0 if self.threshold is None else self.threshold[:, None]
            lifted = ((level - pre).relu() * norms[:, None])[batch.dead[:, None].expand_as(pre)]
            penalty = penalty + config.dead_coefficient * lifted.sum() / n
        return BatchMeasurements(fvu + penalty, fvu, acts, self._level(acts.detach(), norms.detach()))

    def encode(self, x: Float[Tensor, "n_layers n d_in"]) -> Float[Tensor, "n_layers n d_sae"]:
        """Return activations of all layers, selected among these tokens."""
        return self._activate(self._pre_activations(x), decoder_norms(self.W_dec, self.n_layers), choose_ops(x))

    def constrain(self) -> None:
        if self.threshold is not None:
            self.threshold.clamp_min_(0)

    def _pre_activations(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.b_enc[:, None], x, self.W_enc.transpose(1, 2))

    def _activate(self, pre: Tensor, norms: Tensor, ops: Ops) -> Tensor:
        """Return activations `[n_layers, rows, d_sae]`."""
        if self.threshold is not None:
            at = self.threshold[:, None].expand_as(pre)
            return _Jump.apply(pre, at, self.config.bandwidth)  # pyright: ignore[reportReturnType]
        flat = _sizes_in_rows(pre.detach(), norms)
        active = ops.select_batch(flat, self.config.k * self.n_layers * len(flat))
        mask = torch.zeros_like(flat)
        mask[entry_rows(active), active.latents] = 1.0
        return pre * mask.unflatten(1, (self.n_layers, -1)).transpose(0, 1)

    def _level(self, acts: Tensor, norms: Tensor) -> Tensor:
        """Return the mean threshold, or the smallest selected `activation * |W|`; infinity where nothing fired."""
        if self.threshold is not None:
            return self.threshold.detach().mean()
        sizes = (acts * norms[:, None])[acts > 0]
        return sizes.min() if len(sizes) else acts.new_full((), torch.inf)

    @torch.no_grad()
    def finish(self, finished: Finished) -> CrossLayerTranscoder:
        """Return the transcoder in the units of the model; activations remain in training units."""
        scales, threshold = finished.scales, self.threshold
        if threshold is None:
            norms = decoder_norms(self.W_dec, self.n_layers)
            threshold = self._estimate(finished, norms) / norms.clamp_min(1e-30)
        shifts = torch.zeros_like(scales.input) if scales.shift is None else scales.shift
        inner, outer, shift = (t.float() for t in (scales.input, scales.output, shifts))
        b_dec, skips = self.b_dec, None
        if self.W_skip is not None:
            b_dec = b_dec - torch.stack([skip @ at for skip, at in zip(self.W_skip, shift, strict=True)])
            skips = [t.T.contiguous() for t in self.W_skip * inner[:, None] / outer[:, :, None]]
        blocks = [
            (part / outer[layer:, None]).transpose(0, 1).contiguous()
            for layer, part in enumerate(_blocks(self.W_dec, self.n_layers))
        ]
        return CrossLayerTranscoder(
            [t.T.contiguous() for t in self.W_enc * inner[:, None]],
            [b - W @ at for b, W, at in zip(self.b_enc, self.W_enc, shift, strict=True)],
            blocks,
            list(b_dec / outer),
            threshold=list(threshold.unbind(0)),
            W_skip=skips,
        )

    def _estimate(self, finished: Finished, norms: Tensor) -> float:
        """Return the mean over a few batches of the smallest selected `activation * |W|`."""
        levels, ops = [], choose_ops("cpu")
        for raw in islice(finished.batches, SAMPLES):
            x = finished.scales.scaled(raw.float()).transpose(0, 1).contiguous()
            flat = _sizes_in_rows(self._pre_activations(x), norms)
            values = ops.select_batch(flat, self.config.k * self.n_layers * len(flat)).values
            levels.append(float(values.min()) if len(values) else 0.0)
        return sum(levels) / max(1, len(levels))


def _sizes_in_rows(pre: Tensor, norms: Tensor) -> Tensor:
    """Return `pre * |W|` with the latents of all layers of a token in one row, `[n, n_layers * d_sae]`."""
    return (pre * norms[:, None]).transpose(0, 1).flatten(1).contiguous()
