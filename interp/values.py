"""Frozen values as JSON: what an analysis found together with the settings it was found with. Torch-free at load."""

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from interp.artifacts import write_json


def as_json(value: Any) -> Any:
    """A frozen dataclass, tensor, array or container as plain JSON values; what is no number becomes None.

    >>> as_json({"beta": 0.125, "heads": (1, 2), "slope": float("nan")})
    {'beta': 0.125, 'heads': [1, 2], 'slope': None}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if not isinstance(value, type) and hasattr(value, "tolist"):  # tensors, arrays, numpy's numbers
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def save_json(value: Any, path: Path | str) -> None:
    """Write a value atomically as one JSON file."""
    write_json(Path(path), as_json(value))
