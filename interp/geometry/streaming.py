"""CKA of all layers with all layers in one pass over a recording.

1. rows come in a seeded shuffle, `batch` at a time, all hook points together;
2. each batch gives one kernel matrix per hook point, and the unbiased HSIC of every pair: one product of the flattened
   kernels, `[layers, batch^2]` with itself;
3. HSICs are averaged over batches (Nguyen et al. 2021). Each is unbiased whatever its size, so their mean is too, and
   the ratio of means goes to the CKA of the whole set as batches are added.

The error is a delete-one jackknife over batches; the null the same pass with each batch's rows shuffled for one side.
Memory: `layers * batch^2` floats. Nothing grows with the recording.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError
from interp.geometry.points import Finding
from interp.runtime import make_generator

if TYPE_CHECKING:
    from interp.recording.store import Recording


@dataclass(frozen=True, kw_only=True)
class LayerSimilarity(Finding):
    """Unbiased CKA of every pair of places, `[n, n]` each: 1 is the same shape, about 0 unrelated."""

    hook_points: tuple[str, ...]
    cka: np.ndarray
    error: np.ndarray
    """standard error over batches"""
    shuffled: np.ndarray
    """the null: row `i` of one against another row of the other; about 0"""
    n_rows: int
    batch: int
    seed: int

    def sentence(self) -> str:
        away = ~np.eye(len(self.cka), dtype=bool)
        if not away.any():
            return f"CKA of {self.hook_points[0]} with itself is 1; give another place to compare it with"
        i, j = np.unravel_index(np.where(away, self.cka, np.inf).argmin(), self.cka.shape)
        return (
            f"CKA of {len(self.cka)} places on {self.n_rows} rows in batches of {self.batch}: least alike "
            f"{self.hook_points[i]} and {self.hook_points[j]}, {self.cka[i, j]:.3f} (standard error "
            f"{self.error[i, j]:.3f}); rows shuffled at most {np.abs(self.shuffled[away]).max():.3f}"
        )


def recording_cka(
    recording: "Recording",
    hook_points: list[str] | None = None,
    *,
    batch: int = 512,
    max_rows: int | None = None,
    seed: int = 0,
) -> LayerSimilarity:
    """CKA of all pairs of hook points of a recording, by default of all it has, in one pass.

    `max_rows` ends the pass early; rows come shuffled, so any part of them is a sample. Raises `ConfigError` when the
    recording holds fewer than two batches.
    """
    names = [recording.check_hook_point(name) for name in hook_points or recording.hook_points]
    centre = [recording.stats(name).mean.float() for name in names]  # any shift leaves CKA as it is, but not rounding
    batches = (
        [part.activations[name] - mean for name, mean in zip(names, centre, strict=True)]
        for part in recording.shuffled(names, batch_size=batch, seed=seed)
    )
    return batched_cka(batches, names, max_rows=max_rows, seed=seed)


@torch.no_grad()
def batched_cka(
    batches: Iterable[list[Tensor]], names: list[str], *, max_rows: int | None = None, seed: int = 0
) -> LayerSimilarity:
    """The same from batches, each a list of `[m, d]`, one for each name; a last batch that is smaller is left out.

    Raises `ConfigError` on fewer than two whole batches, and where one does not fit the names, or in its rows.
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
            raise ConfigError(f"batches of one size were expected, got {len(values[0])} rows after {size}; split them")
        if size < 4:
            raise ConfigError(f"unbiased HSIC needs batches of 4 rows or more, got {size}")
        scales = scales or [_spread(value) for value in values]  # one for all batches, or they would weigh unequally
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
        raise ConfigError(f"a batch must be [m, d] of the same m items at every place, got shapes {shapes}")


def _spread(x: Tensor) -> float:
    """Typical length of a centred row: kernels of rows divided by it suit float32."""
    return max(float((x.double() - x.double().mean(0)).square().sum(1).mean().sqrt()), 1e-30)


def _write_kernel(x: Tensor, scale: float, kernel: Tensor) -> None:
    """Of `x [m, d] / scale` into `kernel [m, m]`, its diagonal 0. The mean is taken off: HSIC is blind to it."""
    x = x.float()
    x = (x - x.mean(0)).div_(scale)
    torch.mm(x, x.T, out=kernel)
    kernel.fill_diagonal_(0)


def _reordered(kernels: Tensor, order: Tensor) -> Tensor:
    """Rows and columns of `kernels [n, m, m]` in another order, in one gather."""
    m = len(order)
    return kernels.flatten(1).index_select(1, (order[:, None] * m + order).flatten()).view_as(kernels)


def _hsics(k: Tensor, other: Tensor) -> Tensor:
    """`[n, n]` float64: unbiased HSIC of every kernel of `k [n, m, m]` with every one of `other`."""
    m = k.shape[1]
    trace = (k.flatten(1) @ other.flatten(1).T).double()
    rows_k, rows_other = k.sum(2).double(), other.sum(2).double()
    both = rows_k.sum(1)[:, None] * rows_other.sum(1)[None] / ((m - 1) * (m - 2))
    return (trace + both - 2 / (m - 2) * rows_k @ rows_other.T) / (m * (m - 3))


def _ratio(each: Tensor) -> tuple[Tensor, Tensor]:
    """CKA of the mean HSIC over batches `[b, n, n]`, and its jackknife standard error."""
    n = len(each)
    left_out = _normalised((each.sum(0) - each) / (n - 1))
    error = ((n - 1) / n * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
    return _normalised(each.mean(0)), error


def _normalised(hsic: Tensor) -> Tensor:
    own: Any = hsic.diagonal(dim1=-2, dim2=-1)
    if (own <= 0).any():
        raise ConfigError("a place has no structure beyond chance at this batch size; use larger batches")
    return hsic / (own[..., :, None] * own[..., None, :]).sqrt()
