"""*Dynamics*: what happened while a toy was trained: curves with their phases, what formed inside, maps over time."""

from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update

from dashboard.addresses import dynamics_href, whole_number
from dashboard.components.frame import Choice, choice_list, page, previous_next, select
from dashboard.context import Context, current
from dashboard.dynamics import data as view
from dashboard.dynamics import grokking, induction, scaling
from dashboard.figures.theme import theme
from interp.errors import UsageError

_PARTS = {"grokking": grokking, "induction": induction, "scaling": scaling}


def layout(context: Context, name: str | None = None, seed: str = "", spec: str = "", **_: Any) -> html.Div:
    """`/dynamics?name=<artefact>&seed=<seed>&spec=<toy>`; without them the newest artefact and its first run."""
    manifest = view.choose(context.workspace, name)
    part = _PARTS[view.kind_of(manifest)]
    runs = view.runs(manifest)
    chosen = view.find(runs, _seed(seed), spec)
    told = [part.told(run) for run in runs]
    choices = [
        Choice(run.label, outcome, about, _href(manifest.name, run))
        for run, (outcome, about) in zip(runs, told, strict=True)
    ]
    at = runs.index(chosen)
    names = [m.name for m in context.workspace.artifacts("dynamics")]
    return page(
        "Dynamics",
        dcc.Store(id="dynamics-state", data={"name": manifest.name, "seed": chosen.seed, "spec": chosen.spec}),
        html.Div(
            [
                choice_list("Runs", choices, at),
                html.Div(
                    [
                        part.summary_panel(manifest, runs, chosen, previous_next(choices, at)),
                        html.Div(id="dynamics-parts"),
                    ],
                    className="wb-detail",
                ),
            ],
            className="wb-chosen-one",
        ),
        controls=[select("dynamics-name", "Artefact", names, manifest.name, width=200)],
        lead=part.lead(manifest),
    )


def register(app: Dash) -> None:
    """The figures of the chosen run, and the choice of another artefact."""
    app.callback(
        Output("dynamics-parts", "children"),
        Input("dynamics-state", "data"),
        State("scheme", "data"),
    )(_show)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("dynamics-name", "value"),
        State("dynamics-state", "data"),
        prevent_initial_call=True,
    )(lambda name, state: dynamics_href(name) if name != state["name"] else no_update)


def _show(state: dict[str, Any], scheme: str | None) -> list[Any]:
    workspace = current().workspace
    manifest = view.choose(workspace, state["name"])
    runs = view.runs(manifest)
    chosen = view.find(runs, state["seed"], state["spec"])
    return _PARTS[view.kind_of(manifest)].panels(workspace, manifest, runs, chosen, theme(scheme))


def _seed(text: str) -> int | None:
    """Raises `UsageError` when there is something that is no number."""
    found = whole_number(text)
    if text and found is None:
        raise UsageError(f"a seed is a whole number, got {text!r}")
    return found


def _href(artefact: str, run: view.Run) -> str:
    return dynamics_href(artefact, seed=run.seed, spec=run.spec)
