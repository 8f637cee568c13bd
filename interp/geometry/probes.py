"""Linear probes split by document, and directions of binary concepts.

    curve = probe_layers({"blocks.3.hook_resid_post": x, ...}, labels, document, key=token)

**Linear probes** (`probe_layers`):

1. Whole documents are held out, so that no training row comes from the context of a test row.
2. The probe is multinomial logistic regression on standardised coordinates, with one fixed penalty.
3. The accuracy has two baselines. The *base rate* always predicts the most frequent class of the training rows. The
   *control labels* are random classes, one for each value of `key` (the token), in the same proportions. *Selectivity*
   is the accuracy minus that on control labels (Hewitt and Liang 2019, 1909.03368): a probe that reaches both alike has
   memorised the keys.

Intervals are over held-out documents (Student t over their accuracies, weighted alike). A high accuracy shows that
information is linearly decodable, not that the model uses it.

**Directions of a binary concept** (`concept_directions`), by three methods that need not agree:

- difference in means: from the mean of the negative rows to the mean of the positive rows;
- probe: the weights of a logistic regression;
- PCA: the first principal component of all rows; the labels determine its sign only.

The difference in means also reflects everything else that differs between the classes. The probe ignores such
differences, and can be far more accurate along a direction that the model does not use. So all three are given, with
their held-out accuracy (threshold half-way between the training means), their cosines, and the accuracy of the same
method on shuffled labels.

**Erasure** (LEACE): the smallest linear edit after which no linear probe finds a concept (Belrose et al. 2023,
2306.03819).

    eraser = fit_eraser(x, labels)
    eraser(x)

A linear probe with any convex loss is no better than a constant predictor exactly when all classes have the same mean.
That is the case when the cross-covariance of `x` and the labels is zero. Of all affine maps with that property,

    r(x) = x - W+ P W (x - mean),   W = (cov x)^(-1/2),   P the projection onto the columns of W cov(x, labels)

changes `x` least, in the mean square and in every norm at once. On the rows used for the fit the property is exact up
to rounding. On other rows the class means differ somewhat, and with fewer rows than dimensions they can differ a lot.
So the report covers held-out rows too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped
from numpy.typing import ArrayLike

from interp.errors import ConfigError, MismatchError
from interp.geometry.points import GeometryResult, as_mask, as_points, centred, one_each, two_groups
from interp.nulls import DRAWS, null_range
from interp.results import Record, ends
from interp.seeds import derive_seed
from interp.statistics import Interval, proportion_interval, t_interval

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from torch import Tensor

    from interp.models.hooked import Hook

STRENGTH = 0.1
"""inverse L2 penalty, on standardised coordinates"""


@dataclass(frozen=True, kw_only=True)
class ProbeResult(GeometryResult):
    """One probe at one hook point. Accuracies are fractions of held-out rows, 0 to 1."""

    hook_point: str
    accuracy: Interval[float] = field(metadata=ends("low", "high"))
    """mean and interval over held-out documents"""
    base_rate: float
    """accuracy of always predicting the most frequent training class"""
    control: float
    """accuracy on control labels"""
    selectivity: float
    """`accuracy - control`"""
    n_train: int
    n_test: int
    n_documents: int
    """number of held-out documents"""
    n_classes: int
    seed: int

    def sentence(self) -> str:
        accuracy, low, high = self.accuracy
        return (
            f"{self.hook_point}: accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] on {self.n_test} rows "
            f"of {self.n_documents} held-out documents; base rate {self.base_rate:.3f}, control labels "
            f"{self.control:.3f}, selectivity {self.selectivity:.3f}"
        )


def probe_layers(
    layers: Mapping[str, ArrayLike],
    labels: ArrayLike,
    document: ArrayLike,
    *,
    key: ArrayLike,
    heldout: float = 0.5,
    seed: int = 0,
) -> list[ProbeResult]:
    """Fit one probe for each hook point, all with the same split and the same control labels.

    `layers`: hook point -> `[n, d]`; `labels, document, key [n]`. `heldout` is the fraction of documents held out.
    Raises `ConfigError` on one class or one key only, on fewer than four documents, where a class is missing from the
    training documents, and on columns that do not fit.
    """
    if not layers:
        raise ConfigError("a probe needs the activations of at least one hook point, got none; give {hook point: rows}")
    n = len(as_points(next(iter(layers.values()))))
    labels, document = one_each(labels, n), one_each(document, n, what="document")
    key = one_each(key, n, what="key")
    train = split_by_document(document, labels, heldout=heldout, seed=seed)
    control = control_classes(key, labels, seed=seed)
    points = ((name, as_points(x, what=f"the activations of {name}", n=n)) for name, x in layers.items())
    return [_probe(name, x, labels, control, document, train, seed) for name, x in points]


def split_by_document(
    document: Shaped[np.ndarray, " n"], labels: Shaped[np.ndarray, " n"], *, heldout: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """Return the rows of training documents, `[n]` bool: the same share of the documents that hold each set of classes.

    Raises `ConfigError` if a class would be missing from them.
    """
    if not 0 < heldout < 1:
        raise ConfigError(f"the fraction of held-out documents must lie between 0 and 1, got {heldout}")
    classes, documents = np.unique(labels), np.unique(document)
    if len(classes) < 2:
        raise ConfigError(f"a probe needs two classes, all {len(labels)} rows are {classes[:1].tolist()}")
    if len(documents) < 4:
        raise ConfigError(f"{len(documents)} documents; at least four are needed to hold some out: give more")
    rng = np.random.default_rng(derive_seed(seed, "held-out documents"))
    n, codes = len(documents), np.unique(labels, return_inverse=True)[1]
    n_test = min(max(2, round(heldout * n)), n - 2)
    by_document: dict[Any, list[int]] = {}
    for at, code in {*zip(document.tolist(), codes.tolist(), strict=True)}:
        by_document.setdefault(at, []).append(code)
    kinds = np.unique([str(sorted(by_document[at])) for at in documents.tolist()], return_inverse=True)[1]
    spread = np.diff(np.arange(n + 1) * n_test // n) > 0  # every second one, say
    for _ in range(20):
        order = rng.permutation(n)
        train = ~np.isin(document, documents[order[np.argsort(kinds[order], kind="stable")]][spread])
        if len(np.unique(labels[train])) == len(classes) and len(np.unique(labels[~train])) > 1:
            return train
    raise ConfigError(
        f"classes occur in so few of the {len(documents)} documents that no split has them on both sides; give more"
    )


def control_classes(
    key: Shaped[np.ndarray, " n"], labels: Shaped[np.ndarray, " n"], *, seed: int
) -> Shaped[np.ndarray, " n"]:
    """Draw a random class for each value of `key`, in about the proportions of `labels`; returns `[n]`.

    Raises `ConfigError` on one key only: its control labels would be one class, which every probe predicts.
    """
    rng = np.random.default_rng(derive_seed(seed, "control classes"))
    values, number = np.unique(key, return_inverse=True)
    if len(values) < 2:
        raise ConfigError(f"a control needs two keys or more, all rows have {values[:1].tolist()}; give each its token")
    drawn = np.resize(rng.permutation(labels), len(values))
    for _ in range(20):
        if len(np.unique(drawn[number])) > 1:
            break
        drawn = rng.choice(labels, len(values))
    return rng.permutation(drawn)[number]


def logistic_regression(strength: float, *, balanced: bool = False, std: bool = True, tol: float = 1e-4) -> "Pipeline":
    """Return an unfitted scaler and logistic regression, the probe for coordinates and latents alike.

    `strength` is the inverse L2 penalty on scaled inputs. `balanced` gives the classes equal weight. `std` scales
    every coordinate to unit variance; otherwise coordinates are only centred.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    weights = "balanced" if balanced else None
    return make_pipeline(
        StandardScaler(with_std=std), LogisticRegression(C=strength, class_weight=weights, max_iter=500, tol=tol)
    )


def fit_linear(train: Float[np.ndarray, "n d"], labels: Shaped[np.ndarray, " n"]) -> "LinearProbe":
    """Fit a logistic regression to `train [n, d]`, expressed on unscaled coordinates."""
    classes, codes = np.unique(labels, return_inverse=True)
    fitted: Any = logistic_regression(STRENGTH).fit(train, codes)
    scaler, model = fitted
    weights = model.coef_ / scaler.scale_
    return LinearProbe(weights, model.intercept_ - weights @ scaler.mean_, classes)


@dataclass(frozen=True)
class LinearProbe:
    """Linear scores `x @ weights.T + bias`: one row of weights for two classes, otherwise one per class."""

    weights: Float[np.ndarray, "n_scores d"]
    bias: Float[np.ndarray, " n_scores"]
    classes: Shaped[np.ndarray, " n_classes"]

    def scores(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n_scores"]:
        """Return scores of rows `x [n, d]`, one column per row of weights: `[n, 1]` or `[n, n_classes]`."""
        return x @ self.weights.T + self.bias

    def predict(self, x: Float[np.ndarray, "n d"]) -> Shaped[np.ndarray, " n"]:
        """Return the predicted class of rows `x [n, d]`, `[n]`."""
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
    accuracy = accuracy_interval(right, document[~train])
    values, counts = np.unique(labels[train], return_counts=True)
    guessed = _accuracy(x, control, train)
    return ProbeResult(
        hook_point=name,
        accuracy=accuracy,
        base_rate=float((labels[~train] == values[counts.argmax()]).mean()),
        control=guessed,
        selectivity=accuracy.estimate - guessed,
        n_train=int(train.sum()),
        n_test=int((~train).sum()),
        n_documents=len(np.unique(document[~train])),
        n_classes=len(np.unique(labels)),
        seed=seed,
    )


def accuracy_interval(right: Bool[np.ndarray, " n"], document: Shaped[np.ndarray, " n"]) -> Interval[float]:
    """Return the share of right answers, with Student's interval over documents.

    Where all documents have the same share (all answers right, say), Student's interval would have no width. Wilson's
    is returned then, with each document as one observation.
    """
    share = float(right.mean())
    by_document = np.array([right[document == number].mean() for number in np.unique(document)])
    if np.ptp(by_document) == 0:
        return proportion_interval(share * len(by_document), len(by_document))
    mean, low, high = t_interval(by_document)
    return Interval(share, float(share + low - mean), float(share + high - mean)).clip(0, 1)


def _accuracy(x: np.ndarray, labels: np.ndarray, train: np.ndarray) -> float:
    """Return the held-out accuracy; with one training class only, that of always predicting it."""
    if len(np.unique(labels[train])) < 2:
        return float((labels[~train] == labels[train][0]).mean())
    return float((fit_linear(x[train], labels[train]).predict(x[~train]) == labels[~train]).mean())


Method = Literal["difference in means", "probe", "PCA"]
METHODS: tuple[Method, ...] = ("difference in means", "probe", "PCA")


@dataclass(frozen=True, kw_only=True)
class DirectionAccuracy(GeometryResult):
    """Separation of held-out rows along a direction of a concept."""

    method: str
    distance: float
    """distance of the two means along it, in units of the activations: the length that steering at strength 1 adds"""
    accuracy: float
    """balanced accuracy on held-out rows: 0.5 is chance"""
    shuffled: float
    """mean held-out accuracy of the same method on shuffled training labels"""
    shuffled_high: float
    """largest of these accuracies"""
    n_train: int
    n_heldout: int
    seed: int

    def sentence(self) -> str:
        null = null_range("shuffled labels", f"{self.shuffled:.3f}", f"{self.shuffled_high:.3f}")
        held_out = f"{self.method}: held-out accuracy {self.accuracy:.3f} ({null})"
        return f"{held_out}; the means lie {self.distance:.3g} apart along it"


@dataclass(frozen=True, kw_only=True)
class ConceptDirection(DirectionAccuracy):
    """Direction of a concept by one method, with its held-out accuracy."""

    direction: Float[np.ndarray, " d"]
    """`[d]`, unit length, from negative to positive"""


@dataclass(frozen=True, kw_only=True)
class Directions(GeometryResult):
    """Directions by all three methods, and their cosines."""

    directions: tuple[ConceptDirection, ...]
    cosines: dict[str, float]
    """cosine of every pair of methods; about `1 / sqrt(d)` for random directions"""
    random_cosine: float

    def __getitem__(self, method: str) -> ConceptDirection:
        return next(direction for direction in self.directions if direction.method == method)

    def sentence(self) -> str:
        cosines = ", ".join(f"{names} {value:.2f}" for names, value in self.cosines.items())
        return "; ".join(map(str, self.directions)) + f". Cosines: {cosines} (random {self.random_cosine:.2f})"

    def to_records(self) -> list[Record]:
        """Return one row per method: its accuracy and that on shuffled labels."""
        return [record for direction in self.directions for record in direction.to_records()]


def concept_directions(x: ArrayLike, labels: ArrayLike, heldout: ArrayLike, *, seed: int = 0) -> Directions:
    """Find directions from the rows of `x [n, d]` where `heldout [n]` is false, and evaluate them on the others.

    Hold out whole documents or words, not repeated rows. Raises `ConfigError` on one class only, or fewer than two rows
    of a class on either side of the split.
    """
    points, heldout = as_points(x), np.asarray(heldout, bool)
    yes = two_groups(labels, len(points), least=4)
    if heldout.shape != yes.shape:
        raise ConfigError(
            f"heldout must be true or false for each of the {len(points)} rows, got shape {list(heldout.shape)}"
        )
    train, test = ~heldout, heldout
    two_groups(yes[train], int(train.sum()))
    two_groups(yes[test], int(test.sum()))
    directions = []
    for method in METHODS:
        find = partial(find_direction, method=method)
        direction, accuracy = scored_direction(method, find, points, yes=yes, heldout=heldout, seed=seed)
        directions.append(ConceptDirection(**vars(accuracy), direction=direction))
    pairs = [(a, b) for i, a in enumerate(directions) for b in directions[i + 1 :]]
    cosines = {f"{a.method}, {b.method}": float(a.direction @ b.direction) for a, b in pairs}
    return Directions(directions=tuple(directions), cosines=cosines, random_cosine=points.shape[1] ** -0.5)


def find_direction(
    points: Float[np.ndarray, "n d"], yes: Bool[np.ndarray, " n"], method: Method
) -> Float[np.ndarray, " d"]:
    """Return the unit direction `[d]` from negative to positive rows."""
    gap = points[yes].mean(0) - points[~yes].mean(0)
    if method == "difference in means":
        direction = gap
    elif method == "probe":
        direction = fit_linear(points, yes).weights[0]
    else:
        direction = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]
        direction = direction * (1.0 if direction @ gap >= 0 else -1.0)
    length = np.linalg.norm(direction)
    if length == 0:
        raise ConfigError("both classes have the same mean, so no direction lies between them")
    return direction / length


def scored_direction(
    method: str,
    find: Callable[[Float[np.ndarray, "n d"], Bool[np.ndarray, " n"]], Float[np.ndarray, " d"]],
    points: Float[np.ndarray, "n d"],
    *,
    yes: Bool[np.ndarray, " n"],
    heldout: Bool[np.ndarray, " n"],
    seed: int = 0,
) -> tuple[Float[np.ndarray, " d"], DirectionAccuracy]:
    """Return the unit direction that `find` makes of the rows not held out, with its accuracy on the others.

    The null is the same method on shuffled labels of the rows that it is made of.
    """
    train = ~heldout
    rng = np.random.default_rng(derive_seed(seed, "shuffled labels"))
    null = []
    for labels in [rng.permutation(yes[train]) for _ in range(DRAWS["standard"])]:
        try:
            null.append(_balanced_accuracy(points, yes, train, find(points[train], labels), labels))
        except ConfigError:
            null.append(0.5)  # such labels give no direction
    direction = find(points[train], yes[train])
    along = points[train] @ direction
    return direction, DirectionAccuracy(
        method=method,
        distance=float(along[yes[train]].mean() - along[~yes[train]].mean()),
        accuracy=_balanced_accuracy(points, yes, train, direction, yes[train]),
        shuffled=float(np.mean(null)),
        shuffled_high=float(np.max(null)),
        n_train=int(train.sum()),
        n_heldout=int(heldout.sum()),
        seed=seed,
    )


def _balanced_accuracy(
    points: np.ndarray, yes: np.ndarray, train: np.ndarray, direction: np.ndarray, labels: np.ndarray
) -> float:
    """Return the balanced accuracy on held-out rows; the threshold is half-way between the training means."""
    along = points @ direction
    seen = along[train]
    threshold = (seen[labels].mean() + seen[~labels].mean()) / 2
    predictions, truth = along[~train] > threshold, yes[~train]
    return float((predictions[truth].mean() + (~predictions[~truth]).mean()) / 2)


SMALL = 1e-10
"""eigenvalues of the covariance below this fraction of the largest count as zero"""


@dataclass(frozen=True)
class Eraser:
    """The affine map `x -> x - ((x - mean) @ read) @ write`."""

    mean: Float64[np.ndarray, " d"]
    read: Float64[np.ndarray, "d k"]
    write: Float64[np.ndarray, "k d"]
    """`k` is at most the number of classes minus one"""

    def __call__(self, x: ArrayLike) -> Float64[np.ndarray, "n d"]:
        """Erase the concept from `x [n, d]`. Raises `MismatchError` on another `d`."""
        points = as_points(x, at_least=1, d=len(self.mean))
        return points - (points - self.mean) @ self.read @ self.write

    def hook(self) -> "Hook":
        """Return a hook that erases everywhere: `run_with_hooks(model, tokens, [(hook_point, eraser.hook())])`."""
        import torch

        mean, read, write = (torch.from_numpy(np.asarray(part)) for part in (self.mean, self.read, self.write))

        def erase(value: "Tensor", hook: object = None) -> "Tensor":
            if value.shape[-1] != len(mean):
                raise MismatchError(
                    f"an eraser of {len(mean)} coordinates ran at a hook point of {value.shape[-1]}; fit one there"
                )
            x = value.double()
            m, r, w = (part.to(value.device) for part in (mean, read, write))
            return (x - (x - m) @ r @ w).to(value.dtype)

        return erase


@dataclass(frozen=True, kw_only=True)
class Erasure(GeometryResult):
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


def fit_eraser(x: ArrayLike, labels: ArrayLike) -> Eraser:
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


def erasure(x: ArrayLike, labels: ArrayLike, heldout: ArrayLike, *, seed: int = 0) -> Erasure:
    """Fit an eraser on the rows where `heldout [n]` is false, and evaluate new probes on both parts.

    `x [n, d]` are the rows, `labels [n]` their classes.

    Raises `ConfigError` on rows that are all the same, on one class only, or where labels or `heldout` do not fit.
    """
    points = as_points(x)
    labels, heldout = one_each(labels, len(points)), as_mask(heldout, len(points), what="held-out mark")
    if heldout.all() or not heldout.any() or len(np.unique(labels[~heldout])) < 2:
        raise ConfigError("expected rows on both sides of the split, and two classes among the fitted rows")
    eraser = fit_eraser(points[~heldout], labels[~heldout])
    rng = np.random.default_rng(derive_seed(seed, "random directions"))
    frame, _ = np.linalg.qr(rng.standard_normal((points.shape[1], max(eraser.read.shape[1], 1))))
    erased, control = eraser(points), Eraser(eraser.mean, frame, frame.T)(points)
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
        random=_accuracies(control, labels, heldout)[1],
        change=float(np.linalg.norm(erased - points) / np.linalg.norm(points - eraser.mean)),
        cross_covariance=float(left / max(was, 1e-300)),
        n=int((~heldout).sum()),
        n_heldout=int(heldout.sum()),
        seed=seed,
    )


def one_hot(labels: ArrayLike, n: int) -> Float64[np.ndarray, "{n} n_classes"]:
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
