"""Problems that the log of a training shows: a resumed run that began anew, tokens counted twice, and tokens that
several processes saw together and one process would not have seen.
"""

import json
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from interp.artifacts.manifest import LOG

if TYPE_CHECKING:
    from torch import Tensor

    from interp.recording.store import Recording

TRAINED, ANEW = 0.3, 0.7
"""Shares of the first FVU: a run below the first one has learned, and back above the second one it began anew."""


def log_problems(folder: Path, tokens_seen: int | None = None) -> list[str]:
    """Return the problems in the log of a finished training, one line each; empty without a log.

    Steps and tokens have to rise, at one number of tokens a step; FVU may not return to that of an untrained
    dictionary; and the last line has to have the tokens that the manifest states, where it is given them.
    """
    path = folder / LOG
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        rows = [(int(line["step"]), int(line["tokens"]), float(line["fvu"])) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        return [f"{LOG}: a line cannot be read ({error})"]
    problems = []
    rate = rows[0][1] / max(rows[0][0], 1) if rows else 0.0
    for (step, tokens, _), (after, more, _) in pairwise(rows):
        if after <= step or more <= tokens:
            problems.append(f"{LOG}: step {after} ({more:,} tokens) follows step {step} ({tokens:,} tokens)")
        elif more - tokens > rate * (after - step):  # the last batch may be smaller
            problems.append(f"{LOG}: {more - tokens:,} tokens between steps {step} and {after}, more than before")
    lowest = rows[0][2] if rows else 0.0
    for step, _, fvu in rows:
        if lowest < TRAINED * rows[0][2] and fvu > ANEW * rows[0][2]:
            problems.append(f"{LOG}: FVU is {fvu:.2f} at step {step} after {lowest:.2f}: a resumed run began anew")
            break
        lowest = min(lowest, fvu)
    if rows and tokens_seen is not None and rows[-1][1] != tokens_seen:
        problems.append(f"{LOG}: ends at {rows[-1][1]:,} tokens, the manifest says {tokens_seen:,}")
    return problems[:3]


_PRIME, _FACTOR = 2**31 - 1, 0x9E3779B1


def row_sum(rows: "Tensor") -> int:
    """Return a checksum of the row numbers of a batch, `[n]` int64 below 3e9: that of its parts adds up to it.

    It does not depend on the order, nor on how many processes share the batch, and is exact in float64.
    """
    return int(((rows + 1) * _FACTOR % _PRIME).sum())


def row_problems(folder: Path, recording: "Recording", *, seed: int, heldout_fraction: float) -> list[str]:
    """Return the steps of a finished training whose batch had other rows than one process draws from the recording.

    The log has the checksum of one batch a line; the order of rows is planned once more, from tokens alone.
    """
    lines = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines() if line]
    sums = {line["step"]: line["rows"] for line in lines if line.get("rows") is not None}
    if not sums:
        return []
    batch_size = lines[0]["tokens"] // lines[0]["step"]
    planned = zip(count(1), _batches(recording, batch_size, seed, heldout_fraction), strict=False)
    wrong = []
    for step, rows in planned:
        if step in sums and row_sum(rows) != sums[step]:
            wrong.append(f"{LOG}: the tokens of step {step} are not those that one process reads there")
        if step >= max(sums):
            break
    return wrong[:3]


def _batches(recording: "Recording", batch_size: int, seed: int, fraction: float) -> "Iterator[Tensor]":
    """Yield the rows of every batch, epoch after epoch; nothing where an epoch has less than one."""
    from interp.recording.store import GROUP_ROWS, plan_epoch, planned_rows

    for epoch in count():
        options = {"seed": seed, "epoch": epoch, "group_rows": GROUP_ROWS, "split": "train", "fraction": fraction}
        empty = True
        for rows in planned_rows(recording, plan_epoch(recording, **options), batch_size):
            empty = False
            yield rows
        if empty:
            return
