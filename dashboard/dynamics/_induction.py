"""The panels of a small model that learns induction: behaviour, attention, composition, with those of its control."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from dash import html

from dashboard.components.evidence import as_table
from dashboard.components.frame import Part, graph, guarded, panel, stat, verdict
from dashboard.dynamics import _data as view
from dashboard.dynamics._data import curve_rows
from dashboard.figures.studies import training_curves
from dashboard.figures.theme import Theme, visible
from interp.errors import as_typed
from interp.studies.induction_onset import UNTRAINED, InductionOnset, InductionRun
from interp.workspace import Workspace

CURVES = {
    "loss_first": "loss, first copy",
    "loss_repeat": "loss, second copy",
    "accuracy": "accuracy, second copy",
    "induction": "induction",
    "previous": "previous token",
    "composition": "K-composition",
}
"""Curve -> its name in the table of changes."""
_PARTS = (
    ("loss", "Loss", {"loss_repeat": "second copy", "loss_first": "first copy"}, "loss (nats per token)",
     "on random tokens repeated once: only the second copy is predictable"),
    ("accuracy", "Copying", {"accuracy": "second copy"}, "accuracy",
     "fraction of tokens of the second copy predicted correctly"),
    ("attention", "Attention", {"induction": "induction", "previous": "previous token"}, "share of attention",
     "of the strongest head: to the token after an earlier copy (induction), to the previous token"),
    ("composition", "Composition", {"composition": "K-composition"}, "over its null",
     "strongest K-composition of two heads, divided by that of random weights (1: no more than random)"),
)  # fmt: skip
HEIGHT = 290


def runs(study: InductionOnset) -> list[view.DynamicsRun]:
    """Return every seed of every toy."""
    return [view.DynamicsRun(run.seed, run.spec) for run in study.runs]


def _trained(study: InductionOnset) -> str:
    specs = ", ".join(visible(spec) for spec in study.settings.specs)
    if not study.settings.every:
        return f"The checkpoints in {specs.partition(', ')[0]}, against random weights."
    return (
        f"Small models trained on random tokens that repeat: {specs or 'not named'}. The control sees the same data: "
        "a change that only the model shows is not due to the data."
    )


def outcome(study: InductionOnset, at: int) -> tuple[str, str]:
    """Return the outcome of a run, in a word and in a line."""
    run = study.runs[at]
    if run.onset is None:
        return "does not copy", "no sudden rise of accuracy"
    heads = "" if run.together is None else f", induction heads within {run.together:,.0f} steps"
    return "copies", f"from step {run.onset:,.0f}{heads}"


def summary_panel(study: InductionOnset, at: int, actions: Sequence[Part]) -> html.Section:
    """Return the step at which it begins to copy, the changes at that step, and the same for its control."""
    run = study.runs[at]
    onset, together, control = run.onset, run.together, study.control(run)
    begins = "It does not begin to copy" if onset is None else f"It begins to copy suddenly at step {onset:,.0f}"
    stats = [
        stat("begins to copy", "never" if onset is None else f"{onset:,.0f}",
             "step at which the accuracy has risen by a tenth of its total rise"),
        stat("steps between copying and heads", "not both" if together is None else f"{together:,.0f}",
             "between the midpoints of the rises of accuracy and of the induction score"),
    ]  # fmt: skip
    tables = [
        as_table(_transitions(model), f"Sudden changes of {visible(model.label)}") for model in (run, control) if model
    ]
    return panel(
        visible(run.label, 80),
        verdict(
            f"{begins}; {_of_control(control)}.",
            html.P(_trained(study)),
            html.P(f"Control: {visible(control.label)}.") if control is not None else None,
            html.P(as_typed("A simultaneous change is no proof of a cause; `workbench circuit induction` ablates.")),
            *tables,
        ),
        html.Div(stats, className="wb-stats"),
        actions=actions,
        className="wb-findings",
    )


def _of_control(control: InductionRun | None) -> str:
    if control is None:
        return "no control was trained on the same data"
    most = f"(induction score at most {control.curves['induction'].max():.2g})"
    if control.spec == UNTRAINED:
        return f"random weights do not {most}"
    does = "does not" if control.onset is None else f"does at step {control.onset:,.0f}"
    return f"its control on the same data {does} {most}"


def panels(workspace: Workspace, study: InductionOnset, at: int, colours: Theme) -> list[Part]:
    """Return one figure for each kind of measure, with the curves of the control in it."""
    run = study.runs[at]
    control = study.control(run)

    def shown(part: tuple[str, str, dict[str, str], str, str]) -> html.Section:
        key, title, names, axis, note = part
        return guarded(title, lambda: _figure(run, control, key, names, axis, colours), note=note)

    made = [shown(part) for part in _PARTS]
    return [html.Div(made[at : at + 2], className="wb-two wb-even") for at in (0, 2)]


def _figure(
    run: InductionRun, control: InductionRun | None, key: str, names: dict[str, str], axis: str, colours: Theme
) -> list[Part]:
    steps = run.steps if control is None else np.union1d(run.steps, control.steps)
    shown = {word: _over(run, curve, steps) for curve, word in names.items()}
    if control is not None:
        first, word = next(iter(names.items()))
        shown[f"{word}, {control.spec}"] = _over(control, first, steps)
    marks = {"begins to copy": run.onset}
    levels = {"chance": 1.0} if key == "composition" else None
    figure = training_curves(steps, shown, colours, y_title=axis, marks=marks, levels=levels, height=HEIGHT)
    figure.update_yaxes(rangemode="tozero")
    if key in ("accuracy", "attention"):
        figure.update_yaxes(tickformat=".0%")
    return [graph(f"dynamics-{key}", figure=figure, label=f"{axis} over training of {run.label}", height=HEIGHT),
            as_table(curve_rows(steps, shown, "step"))]  # fmt: skip


def _over(run: InductionRun, curve: str, steps: np.ndarray) -> np.ndarray:
    """Return a curve of a run over the steps of several runs; NaN where it was not measured."""
    values = np.full(len(steps), np.nan)
    values[np.searchsorted(steps, run.steps)] = run.curves[curve]
    return values


def _transitions(run: InductionRun) -> list[dict[str, Any]]:
    """Return one row per curve, with the steps of its change."""
    rows: list[dict[str, Any]] = []
    for name, words in CURVES.items():
        change = run.transitions[name]
        steps = {part: getattr(change, part) for part in ("onset", "middle", "end")}
        rows.append(
            {"curve": words, "sudden": change.sudden}
            | {part: None if step is None else f"{step:,.0f}" for part, step in steps.items()}
            | {part: getattr(change, part) for part in ("before", "after", "noise")}
            | {"why": visible(change.reason, 80)}
        )
    return rows
