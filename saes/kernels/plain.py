"""The sparse step in torch operations: any device, any dtype, and the reference for the compiled loops."""

import torch
from torch import Tensor

from saes.kernels.state import Active, AdamStep, Decoded, Gradients


class PlainOps:
    """The operations of `state.Ops`, stateless."""

    def select_topk(self, pre: Tensor, k: int) -> Active:
        """The `k` largest of each row of `pre [n, d_sae]`; negative ones count as 0 (padding)."""
        values, latents = pre.topk(k, dim=1, sorted=False)
        values = values.float() if values.dtype == torch.bfloat16 else values
        starts = torch.arange(len(pre) + 1, device=pre.device) * k
        return Active(starts, latents.flatten(), values.flatten().relu())

    def select_batch(self, pre: Tensor, n: int) -> Active:
        """The `n` largest positive values of the whole `pre [n_rows, d_sae]`."""
        values, flat = pre.flatten().topk(min(n, pre.numel()), sorted=False)
        values = values.float() if values.dtype == torch.bfloat16 else values
        flat, order = flat[values > 0].sort()
        return _csr(flat // pre.shape[1], flat % pre.shape[1], values[values > 0][order], len(pre))

    def select_above(self, pre: Tensor, threshold: Tensor) -> Active:
        """The values of `pre [n, d_sae]` above their latent's `threshold [d_sae]` (>= 0)."""
        rows, latents = (pre > threshold).nonzero(as_tuple=True)
        return _csr(rows, latents, pre[rows, latents], len(pre))

    def decode(self, x: Tensor, W_dec: Tensor, active: Active, scale: float) -> Decoded:
        """Error of the reconstruction of `x` (`b_dec` already subtracted), and its gradients."""
        recons = torch.nn.functional.embedding_bag(
            active.latents, W_dec, active.starts[:-1], mode="sum", per_sample_weights=active.values.to(W_dec.dtype)
        )
        error = recons - x
        grad = error * scale
        rows = _rows(active)
        slopes = torch.empty_like(active.values)
        for part in torch.arange(len(rows), device=x.device).split(1 << 18):  # bounds the gathered [part, d_in] copies
            slopes[part] = (grad[rows[part]] * W_dec[active.latents[part]]).sum(1)
        return Decoded(grad, slopes * (active.values > 0), error.square().sum(1))

    def weight_gradients(self, x: Tensor, decoded: Decoded, active: Active, out: Gradients) -> Tensor:
        """Fill `out` (all but `b_dec`) with sums over the active tokens; returns `[d_sae]` firing counts."""
        d_sae = len(out.b_enc)
        shape = (len(x), d_sae)
        rows = _rows(active)
        where = torch.stack([rows, active.latents])
        slopes = torch.sparse_coo_tensor(where, decoded.grad_values, shape, check_invariants=False).t()
        values = torch.sparse_coo_tensor(where, active.values, shape, check_invariants=False).t()
        out.W_enc.copy_(torch.sparse.mm(slopes, x))
        out.W_dec.copy_(torch.sparse.mm(values, decoded.grad))
        out.b_enc.zero_().index_add_(0, active.latents, decoded.grad_values)
        return torch.bincount(active.latents[active.values > 0], minlength=d_sae)

    def project(self, out: Gradients, W_dec: Tensor) -> float:
        """Remove from each decoder gradient the part along its (unit) row; the squared length of all gradients."""
        out.W_dec.sub_((out.W_dec * W_dec).sum(1, keepdim=True) * W_dec)
        return sum(float(g.square().sum()) for g in out)

    def adam(self, weight: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep, unit: bool) -> None:
        """One Adam step in place; with `unit` the rows are then divided by their length."""
        mean, square = moments
        g = grad * step.shrink
        mean.mul_(step.beta1).add_(g, alpha=1 - step.beta1)
        square.mul_(step.beta2).addcmul_(g, g, value=1 - step.beta2)
        weight.sub_(step.rate * mean / (square.sqrt() * step.root_scale + step.eps))
        if unit:
            weight.div_(weight.norm(dim=1, keepdim=True))


def _csr(rows: Tensor, latents: Tensor, values: Tensor, n: int) -> Active:
    starts = torch.zeros(n + 1, dtype=torch.int64, device=rows.device)
    starts[1:] = torch.bincount(rows, minlength=n).cumsum(0)
    return Active(starts, latents, values)


def _rows(active: Active) -> Tensor:
    """`[nnz]`: the token of each entry."""
    return torch.repeat_interleave(active.starts.diff())
