"""The panels of language models of several sizes on the same text: their loss, and the scaling law if one fits."""

from collections.abc import Sequence

import numpy as np
from dash import html

from dashboard.components.evidence import as_table, number
from dashboard.components.frame import Part, graph, guarded, panel, stat, verdict
from dashboard.dynamics import _data as view
from dashboard.dynamics._data import curve_rows
from dashboard.figures.scaling import loss_over_size
from dashboard.figures.studies import training_curves
from dashboard.figures.theme import Theme, visible
from interp.studies.language_scaling import LanguageRun, LanguageScaling
from interp.workspace import Workspace

HEIGHT = 340
_EXPONENTS = {
    "alpha": ("exponent of parameters", "twice the parameters divide their part of the loss by 2 to this power"),
    "beta": ("exponent of tokens", "twice the tokens divide their part of the loss by 2 to this power"),
    "e": ("floor (nats)", "the irreducible loss: the limit for infinite size and data"),
}


def runs(study: LanguageScaling) -> list[view.DynamicsRun]:
    """Return the seeds: each is shown with all sizes."""
    return [view.DynamicsRun(seed) for seed in study.seeds]


def outcome(study: LanguageScaling, at: int) -> tuple[str, str]:
    """Return the outcome of a seed, in two words and in a line."""
    losses = [run.losses[-1] for run in _of_seed(study, at)]
    return f"{len(losses)} sizes", f"loss {number(max(losses))} to {number(min(losses))}"


def _of_seed(study: LanguageScaling, at: int) -> list[LanguageRun]:
    return [run for run in study.runs if run.seed == study.seeds[at]]


def summary_panel(study: LanguageScaling, at: int, actions: Sequence[Part]) -> html.Section:
    """Return the findings of the fit, with the fitted numbers."""
    stats: list[html.Div] = []
    for key, (name, hint) in _EXPONENTS.items() if study.intervals else ():
        value, low, high = getattr(study.intervals, key)
        stats.append(stat(name, f"{number(value)} ({number(low)} to {number(high)})", hint))
    return panel(
        f"Seed {study.seeds[at]}",
        verdict(
            f"{_verdict(study)} Against no fall with size: p {number(study.p_size)}.",
            html.P(
                "Every size is trained on the same text, each token once; the law is fitted to all seeds together and "
                "valid for models trained alike, within these sizes."
            ),
            html.Ul([html.Li(f"{detail[:1].upper()}{detail[1:]}.") for detail in study.details()], className="wb-said"),
        ),
        html.Div(stats, className="wb-stats"),
        actions=actions,
        className="wb-findings",
    )


def _verdict(study: LanguageScaling) -> str:
    if study.law is None:
        return "No scaling law fits the losses."
    if study.predicts is False:
        return "The loss falls, but the fitted law does not predict the largest model."
    return "The loss falls by a scaling law."


def panels(workspace: Workspace, study: LanguageScaling, at: int, colours: Theme) -> list[Part]:
    """Return the law over sizes, and the losses of this seed over tokens."""
    return [
        html.Div(
            [
                guarded("Over size", lambda: _over_size(study, colours), note="at the end of training; all seeds"),
                guarded("Over tokens", lambda: _over_tokens(study, at, colours),
                        note=f"held-out loss of every size, seed {study.seeds[at]}"),
            ],
            className="wb-two wb-even",
        )
    ]  # fmt: skip


def _over_size(study: LanguageScaling, colours: Theme) -> list[Part]:
    p = f"Null hypotheses: the loss does not fall with size, p {number(study.p_size)}; it does not fall with tokens, "
    p += f"p {number(study.p_tokens)}."
    rows = [{"parameters": run.n_params, "seed": str(run.seed), "loss": run.losses[-1]} for run in study.runs]
    return [
        graph("dynamics-size", figure=loss_over_size(study, colours, height=HEIGHT), height=HEIGHT,
              label="Held-out loss over parameters"),
        html.P(p, className="wb-note wb-flush"),
        as_table(rows),
    ]  # fmt: skip


def _over_tokens(study: LanguageScaling, at: int, colours: Theme) -> list[Part]:
    mine = _of_seed(study, at)
    steps = np.unique(np.array([step for run in mine for step in run.tokens], float))
    shown: dict[str, np.ndarray] = {}
    for run in mine:
        shown[visible(run.name)] = values = np.full(len(steps), np.nan)
        values[np.searchsorted(steps, run.tokens)] = run.losses
    figure = training_curves(steps, shown, colours, x_title="tokens", y_title="held-out loss (nats per token)",
                             height=HEIGHT)  # fmt: skip
    figure.update_xaxes(type="log", tickvals=steps.tolist(), tickformat=".3~s")
    return [
        graph("dynamics-tokens", figure=figure, label="Held-out loss over tokens", height=HEIGHT),
        as_table(curve_rows(steps, shown, "tokens")),
    ]
