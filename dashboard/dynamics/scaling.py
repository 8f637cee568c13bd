"""The panels of language models of several sizes on the same text: their loss, and the scaling law if one fits."""

from typing import Any

from dash import html

from dashboard.components.evidence import as_table, number
from dashboard.components.frame import graph, guarded, panel, stat
from dashboard.dynamics import data as view
from dashboard.dynamics.data import curve_rows
from dashboard.figures.scaling import loss_over_size
from dashboard.figures.studies import training_curves
from dashboard.figures.theme import Theme, visible
from interp.artifacts import Manifest
from interp.workspace import Workspace

HEIGHT = 340
_EXPONENTS = {
    "alpha": ("exponent of parameters", "the loss above the floor falls as (parameters) to minus this power"),
    "beta": ("exponent of tokens", "and as (tokens) to minus this power"),
    "e": ("floor (nats)", "the irreducible loss: the limit for infinite size and data"),
}


def lead(manifest: Manifest) -> str:
    """Return a sentence on what was trained."""
    return (
        "Language models of several sizes, trained on the same text, each token once. A law that fits them holds for "
        "models trained in the same way, within the measured sizes."
    )


def outcome(run: view.Run) -> tuple[str, str]:
    """Return the outcome of a seed, in two words and in a line."""
    losses = [each["loss"] for each in run.found["runs"] if isinstance(each.get("loss"), int | float)]
    about = f"loss {number(max(losses))} to {number(min(losses))}" if losses else "no loss"
    return f"{len(run.found['runs'])} sizes", about


def summary_panel(manifest: Manifest, runs: list[view.Run], run: view.Run, actions: list[Any]) -> html.Section:
    """Return the findings of the fit, with the fitted numbers."""
    intervals = manifest.summary.get("intervals") or {}
    said = [visible(str(each), 400) for each in manifest.summary.get("findings") or []]
    stats = [
        stat(name, f"{number(intervals[key].get('value'))} ({number(intervals[key].get('low'))} to "
             f"{number(intervals[key].get('high'))})", hint)
        for key, (name, hint) in _EXPONENTS.items() if isinstance(intervals.get(key), dict)
    ]  # fmt: skip
    return panel(
        f"Seed {run.seed}",
        html.P(_verdict(manifest), className="wb-verdict"),
        html.Ul([html.Li(f"{each[:1].upper()}{each[1:]}.") for each in said], className="wb-said"),
        html.Div(stats, className="wb-stats"),
        note="fitted to all seeds together; 95 % intervals in brackets",
        actions=actions,
        className="wb-findings",
    )


def _verdict(manifest: Manifest) -> str:
    if not manifest.summary.get("intervals"):
        return "No scaling law fits the losses."
    if manifest.summary.get("predicts") is False:
        return "The loss falls, but the fitted law does not predict the largest model."
    return "The loss falls by a scaling law."


def panels(workspace: Workspace, manifest: Manifest, runs: list[view.Run], run: view.Run, colours: Theme) -> list[Any]:
    """Return the law over sizes, and the losses of this seed over tokens."""
    return [
        html.Div(
            [
                guarded("Over size", lambda: _over_size(workspace, manifest.name, colours),
                        note="at the end of training; all seeds"),
                guarded("Over tokens", lambda: _over_tokens(workspace, manifest, run, colours),
                        note=f"held-out loss of every size, seed {run.seed}"),
            ],
            className="wb-two wb-even",
        )
    ]  # fmt: skip


def _over_size(workspace: Workspace, name: str, colours: Theme) -> list[Any]:
    found = view.scaling(workspace, name)
    p = f"Null hypotheses: the loss does not fall with size, p {number(found.get('p_size'))}; it does not fall with "
    p += f"tokens, p {number(found.get('p_tokens'))}."
    rows = [
        {"parameters": run.get("n_params"), "seed": str(run.get("seed")), "loss": (run.get("losses") or [None])[-1]}
        for run in found.get("runs") or []
    ]
    return [
        graph("dynamics-size", figure=loss_over_size(found, colours, height=HEIGHT), height=HEIGHT,
              label="Held-out loss over parameters"),
        html.P(p, className="wb-note wb-flush"),
        as_table(rows),
    ]  # fmt: skip


def _over_tokens(workspace: Workspace, manifest: Manifest, run: view.Run, colours: Theme) -> list[Any]:
    found = view.curves(workspace, manifest, run)
    order = [str(each.get("name")) for each in view.scaling(workspace, manifest.name).get("runs") or []]
    shown = {
        curve: found.values[curve] for curve in sorted(found.values, key=lambda c: order.index(c) if c in order else -1)
    }
    figure = training_curves(found.steps, shown, colours, x_title="tokens", y_title="held-out loss (nats per token)",
                             height=HEIGHT)  # fmt: skip
    figure.update_xaxes(type="log", tickvals=found.steps.tolist(), tickformat=".3~s")
    return [
        graph("dynamics-tokens", figure=figure, label="Held-out loss over tokens", height=HEIGHT),
        as_table(curve_rows(found.steps, shown, "tokens")),
    ]
