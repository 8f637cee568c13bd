"""LEACE: the smallest linear edit after which no linear probe finds a concept (Belrose et al. 2023, 2306.03819).

    eraser = fit_eraser(x, labels)
    eraser(x)

A linear probe with any convex loss is no better than a constant predictor exactly when all classes have the same mean.
That is the case when the cross-covariance of `x` and the labels is zero. Of all affine maps with that property,

    r(x) = x - W+ P W (x - mean),   W = (cov x)^(-1/2),   P the projection onto the columns of W cov(x, labels)

changes `x` least, in the mean square and in every norm at once. On the rows used for the fit the property is exact up
to rounding. On other rows the class means differ somewhat, and with fewer rows than dimensions they can differ a lot.
So the report covers held-out rows too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from interp.errors import ConfigError, MismatchError
from interp.geometry.points import Finding, as_mask, as_points, centred, one_each
from interp.geometry.probes import fit_linear
from interp.seeds import derive_seed

SMALL = 1e-10
"""eigenvalues of the covariance below this fraction of the largest count as zero"""


@dataclass(frozen=True)
class Eraser:
    """The affine map `x -> x - ((x - mean) @ read) @ write`."""

    mean: Float64[np.ndarray, " d"]
    read: Float64[np.ndarray, "d k"]
    write: Float64[np.ndarray, "k d"]
    """`k` is at most the number of classes minus one"""

    def __call__(self, x: Any) -> Float64[np.ndarray, "n d"]:
        """Erase the concept from `x [n, d]`. Raises `MismatchError` on another `d`."""
        points = as_points(x, at_least=1, d=len(self.mean))
        return points - (points - self.mean) @ self.read @ self.write

    def hook(self) -> Any:
        """Return a hook that erases everywhere: `run_with_hooks(model, tokens, [(hook_point, eraser.hook())])`."""
        import torch

        mean, read, write = (torch.from_numpy(np.asarray(part)) for part in (self.mean, self.read, self.write))

        def erase(value: Any, hook: Any = None) -> Any:
            if value.shape[-1] != len(mean):
                raise MismatchError(
                    f"an eraser of {len(mean)} coordinates ran at a hook point of {value.shape[-1]}; fit one there"
                )
            x = value.double()
            m, r, w = (part.to(value.device) for part in (mean, read, write))
            return (x - (x - m) @ r @ w).to(value.dtype)

        return erase


@dataclass(frozen=True, kw_only=True)
class Erasure(Finding):
    """Accuracy of linear probes for the concept before and after erasure."""

    before: float
    after: float
    """accuracies on the rows that the eraser was fitted to; `after` is the base rate"""
    before_heldout: float
    after_heldout: float
    base_rate: float
    base_rate_heldout: float
    random: float
    """the control: held-out accuracy after erasing the same number of random directions"""
    change: float
    """relative change of the rows, root mean square: `|r(x) - x| / |x - mean|`; 0 for no change"""
    cross_covariance: float
    """largest entry of the cross-covariance after erasure, over the largest before: 0 up to rounding"""
    n: int
    n_heldout: int
    seed: int

    def sentence(self) -> str:
        return (
            f"a linear probe falls from {self.before:.3f} to {self.after:.3f} (base rate {self.base_rate:.3f}), on "
            f"held-out rows from {self.before_heldout:.3f} to {self.after_heldout:.3f} (base rate "
            f"{self.base_rate_heldout:.3f}; random directions erased {self.random:.3f}); rows change by "
            f"{self.change:.1%}"
        )


def fit_eraser(x: Any, labels: Any) -> Eraser:
    """Fit the eraser of `labels [n]` (two classes or more) to `x [n, d]`.

    Raises `ConfigError` on one class only, or rows that are all the same.
    """
    points = as_points(x)
    z = one_hot(labels, len(points))
    mean, away = points.mean(0), centred(points, what="the rows to fit on")
    values, vectors = np.linalg.eigh(away.T @ away / len(points))
    nonzero = values > SMALL * values[-1]
    vectors, roots = vectors[:, nonzero], np.sqrt(values[nonzero])
    whitened = (vectors / roots).T @ (away.T @ (z - z.mean(0)) / len(points))
    u, s, _ = np.linalg.svd(whitened, full_matrices=False)
    u = u[:, s > max(1e-9 * s[0], 1e-14)] if len(s) else u
    return Eraser(mean, (vectors / roots) @ u, u.T @ (vectors * roots).T)


def erasure(x: Any, labels: Any, heldout: Any, *, seed: int = 0) -> Erasure:
    """Fit an eraser on the rows where `heldout [n]` is false, and evaluate new probes on both parts.

    Raises `ConfigError` on rows that are all the same, on one class only, or where labels or `heldout` do not fit.
    """
    points = as_points(x)
    labels, heldout = one_each(labels, len(points)), as_mask(heldout, len(points), what="held-out mark")
    if heldout.all() or not heldout.any() or len(np.unique(labels[~heldout])) < 2:
        raise ConfigError("expected rows on both sides of the split, and two classes among the fitted rows")
    eraser = fit_eraser(points[~heldout], labels[~heldout])
    rng = np.random.default_rng(derive_seed(seed, "random directions"))
    frame, _ = np.linalg.qr(rng.standard_normal((points.shape[1], max(eraser.read.shape[1], 1))))
    erased, other = eraser(points), Eraser(eraser.mean, frame, frame.T)(points)
    train = points[~heldout]
    z = one_hot(labels[~heldout], len(train))
    z = z - z.mean(0)
    left, was = (np.abs((part - part.mean(0)).T @ z).max() for part in (erased[~heldout], train))
    before, after = _accuracies(points, labels, heldout), _accuracies(erased, labels, heldout)
    values, counts = np.unique(labels[~heldout], return_counts=True)
    base = [float((labels[side] == values[counts.argmax()]).mean()) for side in (~heldout, heldout)]
    return Erasure(
        before=before[0],
        after=after[0],
        before_heldout=before[1],
        after_heldout=after[1],
        base_rate=base[0],
        base_rate_heldout=base[1],
        random=_accuracies(other, labels, heldout)[1],
        change=float(np.linalg.norm(erased - points) / np.linalg.norm(points - eraser.mean)),
        cross_covariance=float(left / max(was, 1e-300)),
        n=int((~heldout).sum()),
        n_heldout=int(heldout.sum()),
        seed=seed,
    )


def one_hot(labels: Any, n: int) -> Float64[np.ndarray, "{n} n_classes"]:
    """Return labels as indicators. Raises `ConfigError` on one class only."""
    labels = one_each(labels, n)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ConfigError(f"a concept needs two classes, all {n} rows are {classes[:1].tolist()}")
    return (labels[:, None] == classes).astype(np.float64)


def _accuracies(
    points: Float64[np.ndarray, "n d"], labels: Shaped[np.ndarray, " n"], heldout: Bool[np.ndarray, " n"]
) -> tuple[float, float]:
    probe = fit_linear(points[~heldout], labels[~heldout])
    right = probe.predict(points) == labels
    return float(right[~heldout].mean()), float(right[heldout].mean())
