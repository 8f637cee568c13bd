"""Problems that the log of a training shows: a resumed run that began anew, tokens counted twice. Torch-free."""

import json
from itertools import pairwise
from pathlib import Path

from interp.artifacts.manifest import LOG

TRAINED, ANEW = 0.3, 0.7
"""Shares of the first FVU: a run below the first one has learned, and back above the second one it began anew."""


def log_problems(folder: Path, tokens_seen: int | None = None) -> list[str]:
    """Return what is wrong with the log of a finished training, one line each; empty without a log.

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
