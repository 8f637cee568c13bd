"""The health log of a run, read while it is written: a bounded number of lines whatever its length, broken ones out."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

LOG = "log.jsonl"
MAX_LINES = 400
"""lines of a log that a figure shows: more than a screen has room for"""
WHOLE = 256 * 1024
"""bytes up to which a log is read from end to end; of a longer one `MAX_LINES` lines are read, evenly spaced"""
LAST_PART = 0.2
"""share of a run, at its end, over which a threshold should have settled: the rate falls to 0 there"""
_LINE = 8192
"""no line is longer"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Log:
    """Health lines, by step."""

    rows: list[Row] = field(default_factory=list)
    unreadable: int = 0
    """lines that are no JSON object with a step; half a line at the end is being written and does not count"""


def fingerprint(path: Path) -> str:
    """Changes whenever the log does; empty without one."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def read_log(path: Path, limit: int = MAX_LINES) -> Log:
    """At most `limit` lines of a log, first and last among them; an absent log is an empty one."""
    try:
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            lines = handle.read().split(b"\n") if size <= WHOLE else _spaced(handle, size, limit)
    except OSError:
        return Log()
    half = 1 if lines and lines[-1].strip() and _parse(lines[-1]) is None else 0
    whole = [line for line in lines[: len(lines) - half] if line.strip()]
    rows = [row for line in whole if (row := _parse(line)) is not None]
    by_step = {row["step"]: row for row in rows}
    return Log(_thinned([by_step[step] for step in sorted(by_step)], limit), len(whole) - len(rows))


def drift(rows: Iterable[Row], part: float = LAST_PART) -> float | None:
    """How far the threshold moved over the last `part` of the log, along a straight line fitted to it, as a share of
    its mean there: 0 has settled. None with fewer than four lines there, or no threshold."""
    import numpy as np

    points = [(row["tokens"], row["threshold"]) for row in rows if number(row.get("threshold")) is not None]
    if not points:
        return None
    x, y = np.array(points, np.float64).T
    late = x >= x[-1] * (1 - part)
    if late.sum() < 4 or not y[late].mean():
        return None
    slope = np.polyfit(x[late] - x[-1], y[late], 1)[0]
    return float(slope * (x[late][-1] - x[late][0]) / abs(y[late].mean()))


def number(value: Any) -> float | None:
    """A finite number, or None for everything else that may stand in a log."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) != float("inf") else None


def first_not_finite(rows: Iterable[Row]) -> Row | None:
    """The first line whose loss is no finite number: from there on nothing is learned."""
    return next((row for row in rows if "loss" in row and number(row["loss"]) is None), None)


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(row, dict) and number(row.get("step")) is not None and number(row.get("tokens")) is not None
    return row if known else None


def _spaced(handle: BinaryIO, size: int, limit: int) -> list[bytes]:
    """Whole lines that start after evenly spaced places, and the last two."""
    lines = [handle.readline(_LINE).rstrip(b"\n")]
    for at in range(1, limit):
        handle.seek(size * at // limit)
        handle.readline(_LINE)  # the rest of a line
        lines.append(handle.readline(_LINE).rstrip(b"\n"))
    handle.seek(max(0, size - 2 * _LINE))
    return lines + handle.read().split(b"\n")[1:][-3:]


def _thinned(rows: list[Row], limit: int) -> list[Row]:
    if len(rows) <= limit:
        return rows
    return [rows[round(i * (len(rows) - 1) / (limit - 1))] for i in range(limit)]
