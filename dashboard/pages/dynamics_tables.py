"""Curves over training as rows of a table."""

from typing import Any

import numpy as np

MAX_TABLE_ROWS = 60
"""steps in a table; more are thinned out"""


def curve_rows(steps: np.ndarray, curves: dict[str, np.ndarray], unit: str) -> list[dict[str, Any]]:
    """Some steps of all curves, the first and the last among them; what was not measured is left empty."""
    at = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MAX_TABLE_ROWS)).round().astype(int))
    return [
        {unit: int(steps[i])} | {name: _known(float(values[i])) for name, values in curves.items()} for i in at.tolist()
    ]


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
