"""What the analyses take and give: points as float64 arrays, findings as small values that print, save and plot."""

import math
from abc import ABC, abstractmethod
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from interp.artifacts import write_json
from interp.errors import ConfigError, NonFiniteError


class Finding(ABC):
    """Base of the results: a frozen dataclass that prints as a sentence and becomes JSON with its settings."""

    @abstractmethod
    def sentence(self) -> str:
        """What was found, beside its null."""

    def __str__(self) -> str:
        return self.sentence()

    def _repr_markdown_(self) -> str:
        return self.sentence()

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not a finite number is null."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}  # pyright: ignore[reportArgumentType]

    def save(self, path: Path | str) -> None:
        """Write `to_json()` to a file, atomically."""
        write_json(Path(path), self.to_json())


def plain(value: Any) -> Any:
    """Lists, dicts, strings, numbers; NaN and infinity become None."""
    if isinstance(value, Finding):
        return value.to_json()
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def as_points(x: Any, *, what: str = "the points", at_least: int = 2) -> np.ndarray:
    """`[n, d]` float64 of a tensor or array.

    Raises `ConfigError` on another shape, or fewer rows than `at_least`; `NonFiniteError` naming the first bad row.
    """
    if hasattr(x, "detach"):
        x = x.detach().cpu().double().numpy()
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 1:
        raise ConfigError(f"{what} must be [n, d], got shape {list(points.shape)}")
    if len(points) < at_least:
        raise ConfigError(f"{what} are {len(points)} rows; at least {at_least} are needed: give more")
    bad = ~np.isfinite(points).all(1)
    if bad.any():
        raise NonFiniteError(f"{what} hold NaN or infinity in {int(bad.sum())} rows, first in row {int(bad.argmax())}")
    return points


def centred(points: np.ndarray, *, what: str = "the points") -> np.ndarray:
    """Without their mean. Raises `ConfigError` when nothing is left: all points are the same."""
    away = points - points.mean(0)
    scale = np.abs(points).max()
    if np.abs(away).max() <= 1e-12 * max(scale, 1e-300):
        raise ConfigError(f"{what} are {len(points)} times the same point; they have no directions to measure")
    return away


def same_rows(x: Any, y: Any, *, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    """Two representations of the same items, row by row. Raises `ConfigError` when their numbers differ."""
    x, y = as_points(x, what="the first", at_least=at_least), as_points(y, what="the second", at_least=at_least)
    if len(x) != len(y):
        raise ConfigError(f"row i of both must be the same item, but there are {len(x)} and {len(y)} rows")
    return x, y


def two_groups(labels: Any, n: int, *, each: int = 2) -> np.ndarray:
    """`[n]` bool of yes-or-no labels. Raises `ConfigError` on one class only, or fewer than `each` rows of either."""
    labels = np.asarray(labels)
    found = np.unique(labels)
    if labels.shape != (n,):
        raise ConfigError(f"one label for each of the {n} rows was expected, got shape {list(labels.shape)}")
    if len(found) != 2:
        raise ConfigError(f"two classes were expected, the labels hold {len(found)}: {found[:5].tolist()}")
    yes = labels == found[1]
    if min(yes.sum(), (~yes).sum()) < each:
        raise ConfigError(f"{int(yes.sum())} and {int((~yes).sum())} rows of the classes; {each} of each are needed")
    return yes


def p_of(value: float, null: np.ndarray) -> float:
    """One-sided p-value against draws of the null, the value itself counted among them: never below 1 / (n + 1)."""
    return float((1 + (np.asarray(null) >= value - 1e-12).sum()) / (1 + len(null)))
