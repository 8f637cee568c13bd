"""CKA of all pairs of layers in one pass over batches.

1. Rows come shuffled, a batch at a time, for all hook points together.
2. Each batch gives one kernel matrix per hook point, and the unbiased HSIC of every pair. That is one product of the
   flattened kernels `[layers, batch^2]` with their transpose.
3. HSICs are averaged over batches (Nguyen et al. 2021). Each is unbiased at any batch size, and so is their mean. The
   ratio of the means converges to the CKA of all rows as batches are added.

The standard error is a delete-one jackknife over batches. The null is the same pass with each batch's rows shuffled for
one side. Memory is `layers * batch^2` floats, whatever the size of the recording.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError
from interp.geometry.similarity import LayerSimilarity
from interp.seeds import make_generator


@torch.no_grad()
def batched_cka(
    batches: Iterable[list[Tensor]], names: list[str], *, max_rows: int | None = None, seed: int = 0
) -> LayerSimilarity:
    """Compute CKA for all pairs from batches, each a list of `[m, d]`, one per name; a smaller last batch is left out.

    Raises `ConfigError` on fewer than two whole batches, and on a batch that does not fit the names or whose row counts
    differ.
    """
    right: list[Tensor] = []
    wrong: list[Tensor] = []
    scales: list[float] = []
    kernels: Tensor | None = None
    size = n_rows = 0
    generator = make_generator(seed, "shuffled rows of batches")
    for values in batches:
        _check_batch(values, names)
        size = size or len(values[0])
        if len(values[0]) < size or (max_rows is not None and n_rows + size > max_rows):
            break
        if len(values[0]) > size:
            raise ConfigError(f"expected batches of one size, got {len(values[0])} rows after {size}; split them")
        if size < 4:
            raise ConfigError(f"unbiased HSIC needs batches of 4 rows or more, got {size}")
        scales = scales or [_spread(value) for value in values]  # one scale for all batches, so they weigh the same
        if kernels is None:
            kernels = torch.empty(len(names), size, size, device=values[0].device)
        for kernel, value, scale in zip(kernels, values, scales, strict=True):
            _write_kernel(value, scale, kernel)
        order = torch.randperm(size, generator=generator)
        right.append(_hsics(kernels, kernels))
        wrong.append(_hsics(kernels, _reordered(kernels, order.to(kernels.device))))
        n_rows += size
    if len(right) < 2:
        raise ConfigError(
            f"{len(right)} whole batches of {size} rows; two are needed: record more, or use a smaller batch"
        )
    each, shuffled = torch.stack(right), torch.stack(wrong).mean(0)
    if not torch.isfinite(each).all():
        raise NonFiniteError("the activations hold NaN or infinity; `workbench verify` checks the recording")
    cka, error = _ratio(each)
    scale = each.mean(0).diagonal().clamp_min(1e-300).sqrt()
    return LayerSimilarity(
        hook_points=tuple(names),
        cka=cka.numpy(),
        error=error.numpy(),
        shuffled=(shuffled / (scale[:, None] * scale[None])).numpy(),
        n_rows=n_rows,
        batch=size,
        seed=seed,
    )


def _check_batch(values: list[Tensor], names: list[str]) -> None:
    if not names or len(values) != len(names):
        raise ConfigError(f"a batch must hold one tensor for each of the {len(names)} names {names}, got {len(values)}")
    shapes = [list(value.shape) for value in values]
    if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ConfigError(f"a batch must be [m, d] of the same m items at every hook point, got shapes {shapes}")


def _spread(x: Tensor) -> float:
    """Return the root mean square length of a centred row; kernels of rows divided by it fit float32."""
    return max(float((x.double() - x.double().mean(0)).square().sum(1).mean().sqrt()), 1e-30)


def _write_kernel(x: Tensor, scale: float, kernel: Tensor) -> None:
    """Write the kernel of `x [m, d] / scale` into `kernel [m, m]`, zero diagonal; centring leaves HSIC unchanged."""
    x = x.float()
    x = (x - x.mean(0)).div_(scale)
    torch.mm(x, x.T, out=kernel)
    kernel.fill_diagonal_(0)


def _reordered(kernels: Tensor, order: Tensor) -> Tensor:
    """Reorder rows and columns of `kernels [n, m, m]` in one gather."""
    m = len(order)
    return kernels.flatten(1).index_select(1, (order[:, None] * m + order).flatten()).view_as(kernels)


def _hsics(k: Tensor, other: Tensor) -> Tensor:
    """Return the unbiased HSIC of every kernel of `k [n, m, m]` with every one of `other`: `[n, n]` float64."""
    m = k.shape[1]
    trace = (k.flatten(1) @ other.flatten(1).T).double()
    rows_k, rows_other = k.sum(2).double(), other.sum(2).double()
    both = rows_k.sum(1)[:, None] * rows_other.sum(1)[None] / ((m - 1) * (m - 2))
    return (trace + both - 2 / (m - 2) * rows_k @ rows_other.T) / (m * (m - 3))


def _ratio(each: Tensor) -> tuple[Tensor, Tensor]:
    """Return the CKA of the mean HSIC over batches `[b, n, n]`, and its jackknife standard error."""
    n = len(each)
    left_out = _normalised((each.sum(0) - each) / (n - 1))
    error = ((n - 1) / n * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
    return _normalised(each.mean(0)), error


def _normalised(hsic: Tensor) -> Tensor:
    own: Any = hsic.diagonal(dim1=-2, dim2=-1)
    if (own <= 0).any():
        raise ConfigError("a hook point has no structure beyond chance at this batch size; use larger batches")
    return hsic / (own[..., :, None] * own[..., None, :]).sqrt()
