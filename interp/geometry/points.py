"""Inputs, settings and results of the geometry analyses: float64 points, and findings that print and plot.

Torch-free: the command line inherits the settings.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from numpy.typing import ArrayLike

from interp.errors import ConfigError, MismatchError, NonFiniteError, UsageError
from interp.nulls import SHOWN
from interp.options import Seed
from interp.results import Result
from interp.view import View


@dataclass(frozen=True, kw_only=True)
class ShapesConfig:
    """Settings of the report on lists of words."""

    interventions: bool = True
    """Also steer towards each list, and rotate its words around their circle."""
    n_random: int = SHOWN
    """Random directions as the null of each intervention."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        check_count("n_random", self.n_random, 1, "random directions are the null of an intervention")


class GeometryResult(Result, ABC):
    """Base of the results: a frozen dataclass that prints as a sentence."""

    @abstractmethod
    def sentence(self) -> str:
        """Return the result in one sentence, with its null or baseline."""

    def view(self) -> View:
        yield self.sentence()

    def __str__(self) -> str:
        return self.sentence()


T = TypeVar("T")


def or_why(measure: Callable[[], T]) -> T | str:
    """Return the result of a part, or the reason why it does not apply."""
    try:
        return measure()
    except UsageError as error:
        return str(error)


def as_array(x: object, *, what: str) -> np.ndarray:
    """Convert a tensor, array or nested lists to an array.

    Raises `ConfigError` on rows of different lengths, or anything that is not an array.
    """
    if (detach := getattr(x, "detach", None)) is not None:
        tensor = detach().cpu()
        x = tensor.double() if tensor.is_floating_point() else tensor
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError):
        kind = type(x).__name__
        raise ConfigError(f"{what} must be an array, or rows of one length; got a {kind} that is neither") from None


def as_numbers(x: object, *, what: str) -> np.ndarray:
    """Convert to float64, any shape. Raises `ConfigError` on text, objects or complex numbers."""
    array = as_array(x, what=what)
    try:
        if array.dtype.kind in "biufO":
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"{what} must be real numbers, got {array.dtype}; give an array or a tensor of numbers")


def as_points(
    x: ArrayLike, *, what: str = "the points", at_least: int = 2, n: int | None = None, d: int | None = None
) -> Float64[np.ndarray, "rows coordinates"]:
    """Convert to points `[n, d]`; `n` and `d`, where given, are the required numbers of rows and coordinates.

    Raises `ConfigError` on input that is not numeric, another shape, another `n` or fewer rows than `at_least`;
    `MismatchError` on another `d`; `NonFiniteError` with the first bad row.
    """
    points = as_numbers(x, what=what)
    if points.ndim != 2 or points.shape[1] < 1:
        raise ConfigError(f"{what} must be [n, d], got shape {list(points.shape)}")
    if len(points) < at_least:
        raise ConfigError(f"{what} are {len(points)} rows; at least {at_least} are needed: give more")
    if n not in (None, len(points)):
        raise ConfigError(
            f"{what} must be {n} rows, one for each label, got {len(points)}: give those of the same items"
        )
    if d not in (None, points.shape[1]):
        raise MismatchError(
            f"{what} must have {d} coordinates, got {points.shape[1]}; they come from another model or hook point"
        )
    bad = ~np.isfinite(points).all(1)
    if bad.any():
        raise NonFiniteError(f"{what} hold NaN or infinity in {int(bad.sum())} rows, first in row {int(bad.argmax())}")
    return points


def unit_vector(direction: ArrayLike, *, d: int | None = None) -> Float64[np.ndarray, " width"]:
    """Scale a direction to unit length.

    Raises `ConfigError` on zeros or another shape, `MismatchError` on another `d`, `NonFiniteError`.
    """
    vector = as_numbers(direction, what="the direction")
    if vector.ndim != 1 or not len(vector):
        raise ConfigError(f"a direction is a flat list of numbers [d], got shape {list(vector.shape)}; give one row")
    if d not in (None, len(vector)):
        raise MismatchError(
            f"the direction has {len(vector)} numbers, the activations {d}; it comes from another model or hook point"
        )
    bad = ~np.isfinite(vector)
    if bad.any():
        raise NonFiniteError(f"the direction holds {int(bad.sum())} NaN or infinite numbers; refit it")
    if not vector.any():
        raise ConfigError("expected a direction of some length, got zeros only; fit one with concept_directions")
    vector = vector / np.abs(vector).max()  # the squares of very small numbers would be 0
    return vector / np.linalg.norm(vector)


def centred(points: Float64[np.ndarray, "n d"], *, what: str = "the points") -> Float64[np.ndarray, "n d"]:
    """Subtract the mean of the points. Raises `ConfigError` when all points are the same."""
    away = points - points.mean(0)
    scale = np.abs(points).max()
    if np.abs(away).max() <= 1e-12 * max(scale, 1e-300):
        raise ConfigError(f"{what} are {len(points)} times the same point; they have no directions to measure")
    return away


def same_rows(
    x: ArrayLike, y: ArrayLike, *, at_least: int
) -> tuple[Float64[np.ndarray, "n d_x"], Float64[np.ndarray, "n d_y"]]:
    """Convert two representations of the same items, row by row. Raises `ConfigError` when their row counts differ."""
    x, y = as_points(x, what="the first", at_least=at_least), as_points(y, what="the second", at_least=at_least)
    if len(x) != len(y):
        raise ConfigError(f"row i of both must be the same item, but there are {len(x)} and {len(y)} rows")
    return x, y


def one_each(values: ArrayLike, n: int, *, what: str = "label") -> Shaped[np.ndarray, " {n}"]:
    """Convert to a column with one value per row: labels, documents, keys.

    Raises `ConfigError` on another shape, or values that cannot be sorted; `NonFiniteError` on NaN.
    """
    column = as_array(values, what=f"the {what}s")
    if column.shape != (n,):
        raise ConfigError(
            f"expected one {what} for each of the {n} rows, [{n}], got shape {list(column.shape)}: give a flat list"
        )
    missing = column != column  # only NaN differs from itself
    if missing.any():
        first = int(missing.argmax())
        raise NonFiniteError(
            f"every row needs its {what}, {int(missing.sum())} are NaN, first row {first}: leave them out"
        )
    try:
        np.unique(column)
    except TypeError:
        raise ConfigError(f"{what}s must be of one kind, text or numbers, got a mixture; leave out None") from None
    return column


def as_mask(values: ArrayLike, n: int, *, what: str) -> Bool[np.ndarray, " {n}"]:
    """Convert true and false, or 0 and 1, to a mask. Raises `ConfigError` on other values or another shape."""
    column = one_each(values, n, what=what)
    if not np.isin(column, (0, 1)).all():
        raise ConfigError(f"the {what} must be true or false for each row, got {np.unique(column)[:5].tolist()}")
    return column.astype(bool)


def check_count(name: str, value: int, least: int, why: str) -> None:
    """Raise `ConfigError` unless a setting is a whole number of at least `least`; `why` goes into the message."""
    if not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}: {why}")


def two_groups(labels: ArrayLike, n: int, *, least: int = 2) -> Bool[np.ndarray, " {n}"]:
    """Convert binary labels to a mask. Raises `ConfigError` unless both classes have `least` rows or more."""
    labels = one_each(labels, n)
    classes = np.unique(labels)
    if len(classes) != 2:
        raise ConfigError(f"expected two classes, the labels hold {len(classes)}: {classes[:5].tolist()}")
    yes = labels == classes[1]
    if min(yes.sum(), (~yes).sum()) < least:
        raise ConfigError(f"{int(yes.sum())} and {int((~yes).sum())} rows of the classes; {least} of each are needed")
    return yes
