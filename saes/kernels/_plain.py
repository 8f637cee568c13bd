"""The sparse step in torch operations: any device, any dtype, and the reference for the compiled loops.

An accelerator runs asynchronously until the program asks for a number: a size that depends on data (`nonzero`,
`bincount`, a mask as an index) or a float. So these are avoided, and a test counts what is left.
"""

import torch
from torch import Tensor

from saes.kernels.state import Active, AdamStep, Decoded, Gradients, entry_rows


class PlainOps:
    """The operations of `state.Ops`, stateless."""

    def select_topk(self, pre: Tensor, k: int) -> Active:
        """Select the `k` largest of each row of `pre [n, d_sae]`; negative ones count as 0 (padding)."""
        values, latents = pre.topk(k, dim=1, sorted=False)
        values = values.float() if values.dtype == torch.bfloat16 else values
        starts = torch.arange(len(pre) + 1, device=pre.device) * k
        return Active(starts, latents.flatten(), values.flatten().relu())

    def select_batch(self, pre: Tensor, n: int) -> Active:
        """Select the `n` largest positive values of the whole `pre [n_rows, d_sae]`."""
        values, flat = pre.flatten().topk(min(n, pre.numel()), sorted=False)
        values = values.float() if values.dtype == torch.bfloat16 else values
        positive = (values > 0).nonzero().squeeze(1)
        flat, order = flat[positive].sort()
        return _csr(flat // pre.shape[1], flat % pre.shape[1], values[positive][order], len(pre))

    def select_above(self, pre: Tensor, threshold: Tensor) -> Active:
        """Select the values of `pre [n, d_sae]` above their latent's `threshold [d_sae]` (>= 0)."""
        rows, latents = (pre > threshold).nonzero(as_tuple=True)
        return _csr(rows, latents, pre[rows, latents], len(pre))

    def decode(
        self, target: Tensor, W_dec: Tensor, active: Active, scale: float, ends: tuple[int, ...] = ()
    ) -> Decoded:
        """Return the error of `values @ W_dec` against `target [n, d_out]`, and its gradients.

        The loss is `scale / 2` times the mean over prefixes (`latents < end`, the last of `ends` is `d_sae`) of the
        squared error. The entries of every row are sorted by latent.
        """
        bounds, values = ends or (len(W_dec),), active.values.to(W_dec.dtype)
        errors = torch.stack(
            [
                torch.nn.functional.embedding_bag(
                    active.latents,
                    W_dec,
                    active.starts[:-1],
                    mode="sum",
                    per_sample_weights=values if end == len(W_dec) else values * (active.latents < end),
                )
                - target
                for end in bounds
            ]
        )
        grad = (errors * (scale / len(bounds))).flip(0).cumsum(0).flip(0)
        rows, groups = entry_rows(active), group_of(active.latents, bounds)
        slopes = torch.empty_like(values)
        for part in torch.arange(len(rows), device=rows.device).split(1 << 18):  # bounds the gathered [part, d] copies
            slopes[part] = (grad[groups[part], rows[part]] * W_dec[active.latents[part]]).sum(1)
        return Decoded(grad, slopes, errors.square().sum(2))

    def weight_gradients(
        self, x: Tensor, decoded: Decoded, active: Active, slopes: Tensor, out: Gradients, ends: tuple[int, ...] = ()
    ) -> Tensor:
        """Fill `out` (all but `b_dec`) with sums over the entries; return `[d_sae]` firing counts.

        `x [n, d_in]` is the encoder's input, `slopes [nnz]` the gradient with respect to the pre-activations.
        """
        d_sae, values = len(out.b_enc), active.values.to(x.dtype)
        rows = entry_rows(active)
        where = torch.stack([rows, active.latents])

        def transposed(entries: Tensor) -> Tensor:
            return torch.sparse_coo_tensor(where, entries, (len(x), d_sae), check_invariants=False).t()

        out.W_enc.copy_(torch.sparse.mm(transposed(slopes), x))
        groups = group_of(active.latents, ends or (d_sae,))
        parts = [torch.sparse.mm(transposed(values * (groups == g)), grad) for g, grad in enumerate(decoded.grad)]
        out.W_dec.copy_(sum(parts[1:], start=parts[0]))
        out.b_enc.zero_().index_add_(0, active.latents, slopes)
        return torch.zeros_like(out.b_enc, dtype=torch.int64).index_add_(0, active.latents, (values > 0).long())

    def project(self, out: Gradients, W_dec: Tensor) -> float:
        """Remove from each decoder gradient its component along the (unit) row; return the squared norm of all."""
        out.W_dec.sub_((out.W_dec * W_dec).sum(1, keepdim=True) * W_dec)
        return float(torch.stack([g.square().sum().double() for g in out.by_name().values()]).sum())

    def adam(self, weight: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep, unit: bool) -> None:
        """Take one Adam step in place; with `unit` the rows are then divided by their norm."""
        mean, square = moments
        g = grad * step.shrink
        mean.mul_(step.beta1).add_(g, alpha=1 - step.beta1)
        square.mul_(step.beta2).addcmul_(g, g, value=1 - step.beta2)
        weight.sub_(step.rate * mean / (square.sqrt() * step.root_scale + step.eps))
        if unit:
            weight.div_(weight.norm(dim=1, keepdim=True))


def _csr(rows: Tensor, latents: Tensor, values: Tensor, n: int) -> Active:
    """Return entries, whose `rows` rise, as CSR."""
    return Active(torch.searchsorted(rows, torch.arange(n + 1, device=rows.device)), latents, values)


def group_of(latents: Tensor, ends: tuple[int, ...]) -> Tensor:
    """Return the first prefix that contains each latent."""
    if len(ends) == 1:
        return torch.zeros_like(latents)
    return torch.bucketize(latents, torch.tensor(ends, device=latents.device), right=True)
