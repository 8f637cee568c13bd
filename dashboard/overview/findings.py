"""Findings of a workspace: results of its artefacts, each with its null, chosen by score.

Every artefact with a measurement and a null gives candidates, by code for its kind. A candidate must exceed its null:
by an interval above the null's upper end, or by a significant test. Of many concepts some would do so by chance, so the
dictionary must also beat an untrained one on more concepts than it loses (sign test). Its strength is the part of the
measured value that the null does not reach,

    1 - null / value

A feature needs a label that exceeds its null. The strongest of each kind is shown, `MOST` in all. A workspace of
untrained models and dictionaries has none.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice

from interp.artifacts import KINDS, Finding
from interp.circuits.induction_circuit import InductionCircuit
from interp.errors import WorkbenchError
from interp.workspace import Workspace, outdated
from saes.features.schema import NO_LABEL

log = logging.getLogger("workbench.dashboard")
MOST, PER_KIND = 3, 1
LEAST = 0.1
"""Smallest strength. Scores of graphs have no interval: an untrained set differs from another one by less than this."""
TOKENS = 12
"""Tokens of an example on each side of its peak."""


@lru_cache(maxsize=8)
def findings(workspace: Workspace, stamp: str) -> tuple[Finding, ...]:
    """Return the findings to show; they are read again once `stamp` (`data.workspace.stamp`) changes."""
    by_kind: dict[str, list[Finding]] = {}
    for each in _found(workspace):
        if each.strength >= LEAST:
            by_kind.setdefault(each.kind, []).append(each)
    ranked = [_first_labelled(workspace, sorted(found, key=_weakness)) for found in by_kind.values()]
    rounds = [sorted((found[k] for found in ranked if len(found) > k), key=_weakness) for k in range(PER_KIND)]
    return tuple(_with_example(workspace, each) for each in [each for chosen in rounds for each in chosen][:MOST])


def _weakness(finding: Finding) -> float:
    return -finding.strength


def _first_labelled(workspace: Workspace, found: list[Finding]) -> list[Finding]:
    """Return the first `PER_KIND` findings, without features whose labels do not exceed their null."""
    return list(islice((each for each in found if _has_label(workspace, each)), PER_KIND))


def _has_label(workspace: Workspace, finding: Finding) -> bool:
    """Return False for a finding on a feature whose label does not exceed its null."""
    if finding.feature is None:
        return True
    name, at = finding.feature
    sql = "select 1 from f where feature = ? and label_kind = ?"
    try:
        path = workspace.table_path("features", name, "features")
        return not workspace.query(sql, at, NO_LABEL, f=path).num_rows
    except WorkbenchError:  # its own page says what is wrong
        return True


def _found(workspace: Workspace) -> Iterator[Finding]:
    """Yield the candidates of artefacts, newest first; heads only if no circuit of the model proves them.

    Outdated and damaged artefacts give none.
    """
    stale = outdated(workspace.artifacts(), workspace.key)
    proved = {each.settings.model for each in workspace.values(InductionCircuit) if each.verdict.found}
    for manifest in workspace.newest(*KINDS):
        if stale.get(manifest.key):
            continue
        try:
            found = workspace.value(manifest).findings()
        except (WorkbenchError, OSError) as error:
            log.warning("no findings of %s: %r", manifest.key, error)
            continue
        yield from (each for each in found if not (each.in_circuit and manifest.model in proved))


def _with_example(workspace: Workspace, finding: Finding) -> Finding:
    """Return a finding about a feature without a picture with the feature's strongest example, cut around its peak."""
    if finding.feature is None or finding.dots is not None:
        return finding
    features, at = finding.feature
    sql = "select tokens, activations, peak from e where feature = ? order by activation desc limit 1"
    try:
        rows = workspace.query(sql, at, e=workspace.table_path("features", features, "examples")).to_pylist()
    except WorkbenchError as error:
        log.warning("no example of feature %s of %s: %r", at, features, error)
        return finding
    if not rows:
        return finding
    row = rows[0]
    start = max(0, row["peak"] - TOKENS)
    part = slice(start, row["peak"] + TOKENS + 1)
    shown = {"tokens": row["tokens"][part], "activations": row["activations"][part], "peak": row["peak"] - start}
    return replace(finding, example=shown)
