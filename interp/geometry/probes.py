"""Linear probes: can a linear reader tell classes apart, on documents that it has not seen?

    curve = probe_layers({"blocks.3.hook_resid_post": x, ...}, labels, document, key=token)

1. whole documents are held out, a share of them, so that nothing of a test row's neighbourhood was trained on;
2. multinomial logistic regression on standardised coordinates, one fixed penalty;
3. beside the accuracy stand the *base rate* (always say the most frequent class of the training rows) and the accuracy
   on *control labels*: random classes, one for each value of `key` (the token), in the same proportions. *Selectivity*
   is the accuracy less that of the control (Hewitt and Liang 2019, 1909.03368): a probe that reaches both alike has
   learned keys by heart.

Intervals are over held-out documents (Student t over their accuracies, weighted alike). A high accuracy says that a
thing can be read, not that the model reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import ConfigError
from interp.geometry.values import Finding, as_points, one_each
from interp.intervals import t_interval
from interp.runtime import derive_seed

STRENGTH = 0.1
"""inverse L2 penalty, on standardised coordinates"""


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Finding):
    """One probe of one place. Accuracies are shares of held-out rows, 0 to 1."""

    hook_point: str
    accuracy: float
    low: float
    high: float
    """95 % over held-out documents"""
    base_rate: float
    """accuracy of always saying the most frequent class"""
    control: float
    """accuracy on control labels"""
    selectivity: float
    """`accuracy - control`"""
    n_train: int
    n_test: int
    n_documents: int
    """held-out documents"""
    n_classes: int
    seed: int

    def sentence(self) -> str:
        return (
            f"{self.hook_point}: accuracy {self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.n_test} rows "
            f"of {self.n_documents} held-out documents; base rate {self.base_rate:.3f}, control labels "
            f"{self.control:.3f}, selectivity {self.selectivity:.3f}"
        )


def probe_layers(
    layers: Mapping[str, Any], labels: Any, document: Any, *, key: Any, heldout: float = 0.5, seed: int = 0
) -> list[ProbeResult]:
    """One probe for each place, all with the same split and the same control labels.

    `layers`: hook point -> `[n, d]`; `labels, document, key [n]`. Raises `ConfigError` on one class or one key only, on
    fewer than four documents, where a class is missing from the training documents, and on columns that do not fit.
    """
    if not layers:
        raise ConfigError("a probe needs the activations of one place or more, got none; give {hook point: rows}")
    n = len(as_points(next(iter(layers.values()))))
    labels, document = one_each(labels, n), one_each(document, n, what="document")
    key = one_each(key, n, what="key")
    train = split_by_document(document, labels, heldout=heldout, seed=seed)
    control = control_classes(key, labels, seed=seed)
    points = ((name, as_points(x, what=f"the activations of {name}", n=n)) for name, x in layers.items())
    return [_probe(name, x, labels, control, document, train, seed) for name, x in points]


def split_by_document(document: np.ndarray, labels: np.ndarray, *, heldout: float, seed: int) -> np.ndarray:
    """`[n]` bool: rows of training documents. Every class is among them, or `ConfigError`."""
    if not 0 < heldout < 1:
        raise ConfigError(f"the share of held-out documents must lie between 0 and 1, got {heldout}")
    classes, documents = np.unique(labels), np.unique(document)
    if len(classes) < 2:
        raise ConfigError(f"a probe needs two classes, all {len(labels)} rows are {classes[:1].tolist()}")
    if len(documents) < 4:
        raise ConfigError(f"{len(documents)} documents; at least four are needed to hold some out: give more")
    rng = np.random.default_rng(derive_seed(seed, "held-out documents"))
    n_test = min(max(2, round(heldout * len(documents))), len(documents) - 2)
    for _ in range(20):
        train = ~np.isin(document, rng.permutation(documents)[:n_test])
        if len(np.unique(labels[train])) == len(classes) and len(np.unique(labels[~train])) > 1:
            return train
    raise ConfigError(
        f"classes sit in so few of the {len(documents)} documents that no split has them on both sides; give more"
    )


def control_classes(key: np.ndarray, labels: np.ndarray, *, seed: int) -> np.ndarray:
    """`[n]` a random class for each value of `key`, in about the proportions of `labels`.

    Raises `ConfigError` on one key only: its control labels would be one class, which every probe gets right.
    """
    rng = np.random.default_rng(derive_seed(seed, "control classes"))
    values, place = np.unique(key, return_inverse=True)
    if len(values) < 2:
        raise ConfigError(f"a control needs two keys or more, all rows have {values[:1].tolist()}; give each its token")
    drawn = np.resize(rng.permutation(labels), len(values))
    for _ in range(20):
        if len(np.unique(drawn[place])) > 1:
            break
        drawn = rng.choice(labels, len(values))
    return rng.permutation(drawn)[place]


def fit_linear(train: np.ndarray, labels: np.ndarray) -> "LinearProbe":
    """Logistic regression of `train [n, d]`; with more coordinates than rows it is fitted in the rows' own span, which
    gives the same probe."""
    from sklearn.linear_model import LogisticRegression

    classes, codes = np.unique(labels, return_inverse=True)
    mean, spread = train.mean(0), train.std(0)
    scale = np.where(spread > 1e-12 * max(spread.max(), 1e-300), spread, np.inf)
    z, back = (train - mean) / scale, None
    if z.shape[1] > z.shape[0]:
        u, s, back = np.linalg.svd(z, full_matrices=False)
        z = u * s
    model = LogisticRegression(C=STRENGTH, max_iter=500, tol=1e-4).fit(z, codes)
    weights = model.coef_ if back is None else model.coef_ @ back
    weights = weights / scale
    return LinearProbe(weights, model.intercept_ - weights @ mean, classes)


@dataclass(frozen=True)
class LinearProbe:
    """`x @ weights.T + bias`: one row of weights for two classes, else one for each."""

    weights: np.ndarray
    bias: np.ndarray
    classes: np.ndarray

    def scores(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights.T + self.bias

    def predict(self, x: np.ndarray) -> np.ndarray:
        scores = self.scores(x)
        chosen = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(1)
        return self.classes[chosen]


def _probe(
    name: str,
    x: np.ndarray,
    labels: np.ndarray,
    control: np.ndarray,
    document: np.ndarray,
    train: np.ndarray,
    seed: int,
) -> ProbeResult:
    right = fit_linear(x[train], labels[train]).predict(x[~train]) == labels[~train]
    mean, low, high = t_interval(np.array([right[document[~train] == d].mean() for d in np.unique(document[~train])]))
    values, counts = np.unique(labels[train], return_counts=True)
    guessed = _accuracy(x, control, train)
    return ProbeResult(
        hook_point=name,
        accuracy=float(right.mean()),
        low=float(np.clip(right.mean() + low - mean, 0, 1)),
        high=float(np.clip(right.mean() + high - mean, 0, 1)),
        base_rate=float((labels[~train] == values[counts.argmax()]).mean()),
        control=guessed,
        selectivity=float(right.mean()) - guessed,
        n_train=int(train.sum()),
        n_test=int((~train).sum()),
        n_documents=len(np.unique(document[~train])),
        n_classes=len(np.unique(labels)),
        seed=seed,
    )


def _accuracy(x: np.ndarray, labels: np.ndarray, train: np.ndarray) -> float:
    """Held-out accuracy; where the training side has one class only, that of saying it."""
    if len(np.unique(labels[train])) < 2:
        return float((labels[~train] == labels[train][0]).mean())
    return float((fit_linear(x[train], labels[train]).predict(x[~train]) == labels[~train]).mean())
