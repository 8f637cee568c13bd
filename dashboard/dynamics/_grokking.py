"""The panels of grokking: addition modulo a prime, memorised first, then generalised, with the circuit that forms."""

from collections.abc import Sequence
from math import log
from typing import Any

import plotly.graph_objects as go
from dash import html

from dashboard.components.evidence import as_table, number, percent
from dashboard.components.frame import Part, attempt, graph, guarded, panel, quiet_link, stat, verdict
from dashboard.components.pages import atlas_href
from dashboard.dynamics import _data as view
from dashboard.dynamics._data import curve_rows
from dashboard.figures.studies import frequency_shares, training_curves
from dashboard.figures.theme import Theme
from dashboard.maps.view import atlas_view
from interp.studies.grokking_phases import LEARNED, UNKNOWN, Grokking, Phases
from interp.workspace import Workspace

HEIGHT = 280
_MAPS = (
    "the embedding of every number at checkpoints, as aligned maps: move the slider. A map preserves neighbourhoods, "
    "not distances"
)


def runs(study: Grokking) -> list[view.DynamicsRun]:
    """Return the seeds."""
    return [view.DynamicsRun(run.seed) for run in study.runs]


def _trained(study: Grokking) -> str:
    c = study.settings
    return (
        f"A small transformer learns to add modulo {c.p} from {percent(c.train_fraction)} of all pairs, with weight "
        f"decay {c.weight_decay}. It is measured every {c.log_every} epochs, so epochs are known to that precision."
    )


def outcome(study: Grokking, at: int) -> tuple[str, str]:
    """Return the outcome of a seed, in two words and in a line."""
    phases = study.runs[at].phases
    epochs = [("memorised", phases.memorised), ("generalised", phases.generalised)]
    return "grokked" if phases.grokked else "did not grok", ", ".join(
        f"{word} at {number(value)}" if value is not None else f"never {word}" for word, value in epochs
    )


def summary_panel(study: Grokking, at: int, actions: Sequence[Part]) -> html.Section:
    """Return the phases of a seed, and those of all seeds as a table."""
    run = study.runs[at]
    phases, learned, unknown = run.phases, percent(LEARNED), percent(UNKNOWN)
    stats = [
        stat("memorised", _epoch(phases.memorised), f"first epoch with training accuracy of {learned} or more"),
        stat("begins to generalise", _epoch(phases.generalising), f"with test accuracy of {unknown} or more"),
        stat("generalised", _epoch(phases.generalised), f"with test accuracy of {learned} or more"),
        stat("epochs in between", _epoch(phases.gap), "from memorised to the beginning of generalisation"),
    ]
    table = [
        {"seed": str(seed_run.seed), **vars(seed_run.phases), "grokked": seed_run.phases.grokked,
         "frequencies of the logits": list(seed_run.keys), "of the embedding": list(seed_run.embedding_keys)}
        for seed_run in study.runs
    ]  # fmt: skip
    return panel(
        f"Seed {run.seed}",
        verdict(
            f"{_verdict(phases)} Chance: {percent(1 / study.settings.p)} right.",
            html.P(_trained(study)),
            html.P(
                f"Grokked: accuracy reaches {learned} on training pairs while below {unknown} on all other pairs, and "
                f"{learned} on those later."
            ),
            attempt(lambda: html.P(_unseen(study.circuit_forms_unseen(at)))),
            as_table(table, "All seeds as a table"),
        ),
        html.Div(stats, className="wb-stats"),
        actions=actions,
        className="wb-findings",
    )


def panels(workspace: Workspace, study: Grokking, at: int, colours: Theme) -> list[Part]:
    """Return the panels: accuracy and loss, structure of the weights, frequencies, maps."""
    return [
        html.Div(
            [
                guarded("Accuracy", lambda: _accuracy(study, at, colours),
                        note="on the training pairs, and on all other pairs"),
                guarded("Loss, restricted and excluded", lambda: _losses(study, at, colours),
                        note="restricted: loss on all pairs with the key frequencies of the logits alone; excluded: "
                        "loss on training pairs without them, the part that memorisation explains"),
            ],
            className="wb-two wb-even",
        ),
        html.Div(
            [
                guarded("Concentration of frequencies", lambda: _one(study, at, "gini", "Gini coefficient", colours),
                        note="Gini coefficient of the Fourier norms of the embedding; 0: all equal, near 1: few "
                        "dominate"),
                guarded("Size of the weights", lambda: _one(study, at, "weight_norm", "sum of squares", colours),
                        note="sum of squares of all weights; weight decay reduces it"),
            ],
            className="wb-two wb-even",
        ),
        html.Div([_shares_panel(study, at, which, colours) for which in ("logits", "embedding")],
                 className="wb-two wb-even"),
        guarded("The numbers, over training", lambda: _maps(workspace, study.name), note=_MAPS),
    ]  # fmt: skip


def _drawn(
    study: Grokking, at: int, names: dict[str, str], colours: Theme, **options: Any
) -> tuple[go.Figure, html.Details | None]:
    """Return some curves of a seed, by their names in the legend, as a figure and as a table."""
    shown = {word: study.curves[name][:, at] for word, name in names.items()}
    options = {"x_title": "epoch", "height": HEIGHT, "marks": vars(study.runs[at].phases)} | options
    return training_curves(study.epochs, shown, colours, **options), as_table(curve_rows(study.epochs, shown, "epoch"))


def _accuracy(study: Grokking, at: int, colours: Theme) -> list[Part]:
    names, p = {"training pairs": "train_accuracy", "other pairs": "test_accuracy"}, study.settings.p
    figure, table = _drawn(study, at, names, colours, y_title="accuracy", levels={f"chance, 1/{p}": 1 / p})
    figure.update_yaxes(range=[-0.03, 1.06], tickformat=".0%")
    return [graph("dynamics-outside", figure=figure, label="Accuracy over training", height=HEIGHT), table]


def _losses(study: Grokking, at: int, colours: Theme) -> list[Part]:
    names = {loss: f"{loss}_loss" for loss in ("train", "test", "restricted", "excluded")}
    options = {"y_title": "loss (nats)", "log": True, "levels": {"uniform guess": log(study.settings.p)}}
    figure, table = _drawn(study, at, names, colours, **options)
    figure.update_yaxes(dtick=1, exponentformat="power")
    return [graph("dynamics-inside", figure=figure, label="Losses over training", height=HEIGHT), table]


def _one(study: Grokking, at: int, curve: str, title: str, colours: Theme) -> list[Part]:
    figure, table = _drawn(study, at, {title: curve}, colours, y_title=title, height=220)
    figure.update_layout(showlegend=False)
    name = f"dynamics-{curve.replace('_', '-')}"
    return [graph(name, figure=figure, label=f"{title} over training", height=220), table]


def _shares_panel(study: Grokking, at: int, which: str, colours: Theme) -> html.Section:
    run, p = study.runs[at], study.settings.p
    keys = run.keys if which == "logits" else run.embedding_keys
    null = {"logits": f"in random logits each has about {percent(1 / p**2)}",
            "embedding": f"an even share is {percent(2 / (p - 1))}"}[which]  # fmt: skip
    frequencies = f"key frequencies {', '.join(map(str, keys))}" if keys else "no frequency dominates at the end"

    def body() -> list[Part]:
        values = study.shares_of(at)[which]
        figure = frequency_shares(values, study.epochs, colours, keys=keys, height=320)
        last = [{"frequency": k, "share at the end": float(value), "key": k in keys}
                for k, value in enumerate(values[-1], 1)]  # fmt: skip
        label = f"Share of the power of every frequency in the {which}, over training"
        return [graph(f"dynamics-{which}", figure=figure, label=label, height=320), as_table(last)]

    return guarded(f"Frequencies in the {which}", body, note=f"{frequencies}; {null}")


def _maps(workspace: Workspace, name: str) -> list[Part]:
    made = view.series(workspace, name)
    if made is None:
        return [html.P("No atlas of the same name maps the embedding at checkpoints.", className="wb-none")]
    shown = atlas_view(workspace, name, colour="value").component("dynamics-map")
    frames = [
        {"map": checkpoint, "trustworthiness": frame.quality and frame.quality.trustworthiness, "moved": frame.moved,
         "true neighbours that stayed": frame.stayed}
        for checkpoint, frame in zip(made.settings.frames, made.frame_quality, strict=True)
    ]  # fmt: skip
    null, still = made.moved_null, ""
    if null is not None:
        still = f" Null: between maps of the same vectors points move by {number(null.median)} (median), at most "
        still += f"{number(null.high)}."
    of = view.seed_of(made)
    return [
        html.Div(shown, className="wb-map wb-map-inside"),
        html.P(
            [f"These maps show seed {of}, whichever run is chosen." if of else "", still, " ",
             quiet_link("Open the map by itself", atlas_href(name)), "."],
            className="wb-note wb-flush",
        ),
        as_table(frames),
    ]  # fmt: skip


def _verdict(phases: Phases) -> str:
    if phases.grokked:
        known, understood = number(phases.memorised), number(phases.generalised)
        return f"It grokked: memorised at epoch {known}, generalised at epoch {understood}."
    if phases.memorised is None:
        return "It did not grok: it never memorised its training pairs."
    if phases.generalising is None:
        return "It did not grok: it memorised its training pairs, and never generalised."
    if phases.generalised is None:
        return "It had not grokked by the end of training: it had only begun to generalise."
    return "It did not grok: it generalised without memorising its training pairs first."


def _unseen(changes: tuple[float, float] | None) -> str:
    """Return a sentence on the hidden progress between memorisation and generalisation, with the expected signs."""
    if changes is None:
        return "Memorisation and generalisation leave no interval in which a circuit could form."
    restricted, excluded = changes
    as_expected = restricted < 0 < excluded
    return (
        f"Between memorisation and generalisation the restricted loss changed by {number(restricted, signed=True)} "
        f"nats and the excluded loss by {number(excluded, signed=True)}. A circuit that forms here lowers the first "
        f"and raises the second: {'both happened' if as_expected else 'not both happened'}."
    )


def _epoch(value: float | None) -> str:
    return "never" if value is None else number(value)
