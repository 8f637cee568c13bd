"""*Dynamics*: small models while they are trained: curves with their phases, the circuit that forms, maps over time."""

from typing import Any

from dash import Dash, dcc, html

from dashboard.components.frame import Choice, choice_list, page, previous_next
from dashboard.components.pages import (
    Context,
    Page,
    artefact_key,
    artefact_menu,
    current,
    dynamics_href,
    menu_choices,
    open_artefact,
    register_parts,
    whole_number,
)
from dashboard.dynamics import data as view
from dashboard.dynamics import grokking, induction, scaling
from dashboard.figures.theme import theme
from interp.artifacts import STUDIES, Manifest
from interp.errors import UsageError, form_errors

_PARTS = {"grokking": grokking, "induction_onset": induction, "language_scaling": scaling}


def layout(context: Context, name: str | None = None, seed: str = "", spec: str = "", **_: Any) -> html.Div:
    """`/dynamics?name=<artefact>&seed=<seed>&spec=<toy>`; without them the newest artefact and its first run."""
    manifest = open_artefact(context.workspace, STUDIES, name)
    with form_errors(artefact_key(manifest)):
        return _layout(context, manifest, seed, spec)


def _layout(context: Context, manifest: Manifest, seed: str, spec: str) -> html.Div:
    part = _PARTS[manifest.kind]
    runs = view.runs(manifest)
    chosen = view.find(runs, _seed(seed), spec)
    key = artefact_key(manifest)
    choices = [_choice(run, part.outcome(run), key) for run in runs]
    at = runs.index(chosen)
    studies = menu_choices(context.workspace, STUDIES, dynamics_href)
    return page(
        "Dynamics",
        dcc.Store(id="dynamics-state", data={"name": key, "seed": chosen.seed, "spec": chosen.spec}),
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
        controls=artefact_menu("Study", studies, dynamics_href(key), width=200, key=key),
        lead=part.lead(manifest),
    )


def register(app: Dash) -> None:
    """Add the callback that draws the chosen run."""
    register_parts(app, "dynamics", _show)


def _show(state: dict[str, Any], scheme: str | None) -> list[Any]:
    workspace = current().workspace
    manifest = open_artefact(workspace, STUDIES, state["name"])
    with form_errors(state["name"]):
        runs = view.runs(manifest)
        chosen = view.find(runs, state["seed"], state["spec"])
        return _PARTS[manifest.kind].panels(workspace, manifest, runs, chosen, theme(scheme))


def _seed(text: str) -> int | None:
    """Return the seed in an address, None without one. Raises `UsageError` when the text is no whole number."""
    found = whole_number(text)
    if text and found is None:
        raise UsageError(f"a seed is a whole number, got {text!r}")
    return found


def _href(artefact: str, run: view.Run) -> str:
    return dynamics_href(artefact, seed=run.seed, spec=run.spec)


PAGE = Page(
    title="Dynamics",
    path="/dynamics",
    order=90,
    layout=layout,
    register=register,
    shows="Small models while they are trained: grokking (memorisation, then generalisation), the step at which "
    "induction heads form, or how the loss falls with the size of a model.",
    command="workbench dynamics induction",
    fill=lambda *_: ("dynamics induction", {}),
)


def _choice(run: view.Run, outcome: tuple[str, str], name: str) -> Choice:
    result, about = outcome
    return Choice(run.label, result, about, _href(name, run))
