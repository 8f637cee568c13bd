"""Findings of a workspace: what its artefacts have found, each beside its null, chosen by score.

Every artefact with a measurement and a null gives candidates, by code that knows its kind and no name. A candidate
needs more than its null: an interval above the null's upper end, or a test that holds. Of many concepts some would do
so by chance, so the dictionary must also beat an untrained one on more concepts than it loses (sign test). Its strength
is the part of the measured value that the null does not reach,

    1 - null / value

Shown are the strongest of each kind first, then second ones, at most `MOST` in all. A workspace of untrained models and
dictionaries has none.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from dashboard.components.evidence import number
from dashboard.components.pages import (
    artefact_key,
    circuit_href,
)
from interp.artifacts import KINDS, Finding, read_json
from interp.errors import WorkbenchError, form_errors
from interp.workspace import Workspace, outdated

log = logging.getLogger("workbench.dashboard")
MOST, PER_KIND = 5, 2
LEAST = 0.1
"""Smallest strength. Scores of graphs have no interval: an untrained set differs from another one by less than this."""
TOKENS = 12
"""Tokens of an example on each side of its peak."""


@lru_cache(maxsize=8)
def findings(workspace: Workspace, stamp: str) -> tuple[Finding, ...]:
    """Return the findings to show; they are read again once `stamp` (`data.workspace.stamp`) changes."""
    by_kind: dict[str, list[Finding]] = {}
    for read in _READERS:
        for each in _read(read, workspace):
            by_kind.setdefault(each.kind, []).append(each)
    ranked = [sorted(found, key=_weakness) for found in by_kind.values()]
    rounds = [sorted((found[k] for found in ranked if len(found) > k), key=_weakness) for k in range(PER_KIND)]
    return tuple(_with_example(workspace, each) for each in [each for chosen in rounds for each in chosen][:MOST])


def _weakness(finding: Finding) -> float:
    return -finding.strength


def _read(read: Callable[[Workspace], Iterator[Finding]], workspace: Workspace) -> list[Finding]:
    """Return what a reader finds; artefacts that it cannot read, such as damaged ones, give nothing."""
    try:
        with form_errors("an artefact"):
            return [each for each in read(workspace) if each.strength >= LEAST]
    except (WorkbenchError, OSError) as error:
        log.warning("no findings of %s: %r", read.__name__.strip("_"), error)
        return []


def _circuits(workspace: Workspace) -> Iterator[Finding]:
    """Yield induction circuits: the path-patched effect of a previous-token head through the keys of another."""
    for made in workspace.newest("induction_circuit"):
        if made.summary.get("found") is not True:
            continue
        stored = read_json(workspace.path("induction_circuit", made.name) / "circuit.json")
        keys = [each for each in stored["edges"] if each["via"] == "k"]
        edges = [each for each in keys if _beyond(each["evidence"])]
        if not edges:
            continue
        best = max(edges, key=lambda each: -each["evidence"]["high"])
        evidence = best["evidence"]
        low, high = sorted((-evidence["low"], -evidence["high"]))
        groups = {each["group"]: each for each in stored["evaluation"].get("ablation") or []}
        others = [each["loss_second_half"] for name, each in groups.items() if name.startswith("random heads")]
        ablated = groups.get("induction heads")
        more = ""
        if ablated and others:
            more = (
                f" Without its {ablated['n_heads']} copying heads the loss on repeated text rises by "
                f"{number(ablated['loss_second_half'])} nats per token, without as many random heads by at most "
                f"{number(max(others))}."
            )
        yield Finding(
            kind="circuit",
            title="Two heads that copy together",
            sentence=f"In {made.config['model']}, head {best['source']} tells head {best['target']} which token came "
            f"before each one. With that path cut, its induction score falls by {number(-evidence['effect'])} "
            f"({number(low)} to {number(high)}); paths from random heads, by at most {number(evidence['null_high'])}."
            f"{more}",
            value=-evidence["effect"],
            null=evidence["null_high"],
            about="fall of the induction score; null: paths from random heads",
            href=circuit_href(artefact_key(made), at=f"{best['source']}-k-{best['target']}"),
            proof="See the circuit",
        )


def _beyond(evidence: dict[str, Any]) -> bool:
    """Return whether the fall that an edge causes lies above its null, interval and all."""
    return evidence.get("null_high") is not None and -evidence["high"] > evidence["null_high"]


def _typed(workspace: Workspace) -> Iterator[Finding]:
    """Yield what artefacts say of themselves: the newest of each model first; heads only where no circuit proves them.

    Artefacts whose parents changed since say nothing, nor do damaged ones.
    """
    manifests = [each for each in workspace.newest(*KINDS) if KINDS[each.kind].defined_in]
    stale = outdated(workspace.artifacts(), workspace.key)
    proved = {made.config["model"] for made in workspace.newest("induction_circuit") if made.summary.get("found")}
    for manifest in manifests:
        if stale.get(manifest.key):
            continue
        try:
            found = workspace.value(manifest).findings()
        except WorkbenchError as error:
            log.warning("no findings of %s: %r", manifest.key, error)
            continue
        for finding in found:
            by_circuit = finding.kind == "head" and "repeats" not in finding.title
            if not (by_circuit and manifest.config.get("model") in proved):
                yield finding


_READERS = (_typed, _circuits)


def _with_example(workspace: Workspace, finding: Finding) -> Finding:
    """Return a finding about a feature with the feature's strongest example, cut around its peak."""
    if finding.feature is None:
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
