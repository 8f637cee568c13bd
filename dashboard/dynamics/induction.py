"""A toy on its way to induction heads: behaviour, attention and composition, beside the twin that cannot."""

from typing import Any

import numpy as np
from dash import html

from dashboard.components.evidence import as_table
from dashboard.components.frame import graph, guarded, panel, stat
from dashboard.dynamics import data as view
from dashboard.dynamics.data import curve_rows
from dashboard.figures.studies import training_curves
from dashboard.figures.theme import Theme, visible
from interp.artifacts import Manifest
from interp.workspace import Workspace

CURVES = {
    "loss_first": "loss, first copy",
    "loss_repeat": "loss, second copy",
    "accuracy": "accuracy, second copy",
    "induction": "induction",
    "previous": "previous token",
    "composition": "K-composition",
}
"""curve -> what the table of changes calls it"""
_PARTS = (
    ("loss", "Loss", {"loss_repeat": "second copy", "loss_first": "first copy"}, "loss (nats per token)",
     "of random tokens that repeat once: the first copy cannot be known, the second can"),
    ("accuracy", "Copying", {"accuracy": "second copy"}, "accuracy",
     "share of the second copy's tokens that are guessed right"),
    ("attention", "Attention", {"induction": "induction", "previous": "previous token"}, "share of attention",
     "of the strongest head: on what followed its token before (induction), on the token before"),
    ("composition", "Composition", {"composition": "K-composition"}, "over its null",
     "strongest K-composition of an earlier head with a later one, over the mean of random weights: 1 is chance"),
)  # fmt: skip
HEIGHT = 290


def lead(manifest: Manifest) -> str:
    """What was trained, in a sentence."""
    specs = ", ".join(visible(str(spec)) for spec in manifest.config.get("specs") or [])
    return (
        f"Do induction heads form all at once? Toys trained on random tokens that repeat: {specs or 'not named'}. What "
        "a twin on the same data never does is not due to the data."
    )


def outcome(run: view.Run) -> tuple[str, str]:
    """What came of a run, in a word and in a line."""
    onset = run.found.get("onset")
    if onset is None:
        return "never copies", "no sudden rise of accuracy"
    together = run.found.get("together")
    beside = "" if together is None else f", heads within {together:,.0f} steps"
    return "copies", f"begins at step {onset:,.0f}{beside}"


def summary_panel(manifest: Manifest, runs: list[view.Run], run: view.Run, actions: list[Any]) -> html.Section:
    """Where it begins to copy, what changed with it, and the same of its twin."""
    onset, together, twin = run.found.get("onset"), run.found.get("together"), view.twin(runs, run)
    verdict = (
        "It does not begin to copy: its accuracy makes no sudden change."
        if onset is None
        else f"It begins to copy at step {onset:,.0f}, all at once."
    )
    stats = [
        stat("begins to copy", "never" if onset is None else f"{onset:,.0f}",
             "the step at which accuracy has gone a tenth of its way"),
        stat("steps between copying and heads", "not both" if together is None else f"{together:,.0f}",
             "between the middles of the changes of accuracy and of the induction score"),
    ]  # fmt: skip
    tables = [
        as_table(_transitions(each), f"What changed suddenly: {visible(each.label)}") for each in (run, twin) if each
    ]
    return panel(
        visible(run.label, 80),
        html.P(verdict, className="wb-verdict"),
        html.P(_beside(twin), className="wb-why"),
        html.Div(stats, className="wb-stats"),
        *tables,
        note="that they change together is no proof that the heads cause it; ablation is for that "
        "(workbench circuit induction)",
        actions=actions,
        className="wb-findings",
    )


def _beside(twin: view.Run | None) -> str:
    if twin is None:
        return "No twin was trained beside it, so nothing says what the data alone does."
    onset = twin.found.get("onset")
    return f"Its twin {visible(twin.label)} " + ("never does." if onset is None else f"does from step {onset:,.0f}.")


def panels(workspace: Workspace, manifest: Manifest, runs: list[view.Run], run: view.Run, colours: Theme) -> list[Any]:
    """One figure for each kind of measure, the twin's curves in it."""
    twin = view.twin(runs, run)

    def shown(part: tuple[str, str, dict[str, str], str, str]) -> html.Section:
        key, title, names, axis, note = part
        return guarded(
            title, lambda: _figure(workspace, manifest.name, run, twin, key, names, axis, colours), note=note
        )

    made = [shown(part) for part in _PARTS]
    return [html.Div(made[at : at + 2], className="wb-two wb-even") for at in (0, 2)]


def _figure(
    workspace: Workspace,
    name: str,
    run: view.Run,
    twin: view.Run | None,
    key: str,
    names: dict[str, str],
    axis: str,
    colours: Theme,
) -> list[Any]:
    mine = view.curves(workspace, name, run)
    steps, shown = mine.steps, {word: mine.get(each) for each, word in names.items()}
    if twin is not None:
        steps, mine, other = view.beside(mine, view.curves(workspace, name, twin))
        shown = {word: mine.get(each) for each, word in names.items()}
        first = next(iter(names))
        shown |= {f"{names[first]}, {twin.spec}": other.get(first)}
    marks = {"begins to copy": run.found.get("onset")}
    levels = {"chance": 1.0} if key == "composition" else None
    figure = training_curves(steps, shown, colours, y_title=axis, marks=marks, levels=levels, height=HEIGHT)
    figure.update_yaxes(rangemode="tozero")
    if key in ("accuracy", "attention"):
        figure.update_yaxes(tickformat=".0%")
    return [graph(f"dynamics-{key}", figure=figure, label=f"{axis} over training of {run.label}", height=HEIGHT),
            as_table(curve_rows(np.asarray(steps), shown, "step"))]  # fmt: skip


def _transitions(run: view.Run) -> list[dict[str, Any]]:
    """One row per curve, places rounded to the step."""
    found = run.found.get("transitions") or {}
    rows = []
    for name, change in found.items():
        places = {
            part: None if change.get(part) is None else f"{change[part]:,.0f}" for part in ("onset", "middle", "end")
        }
        rows.append(
            {"curve": CURVES.get(name, visible(str(name))), "sudden": bool(change.get("found")), **places}
            | {part: change.get(part) for part in ("before", "after", "noise")}
            | {"why": visible(str(change.get("reason") or ""), 80)}
        )
    return rows
