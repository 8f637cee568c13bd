"""*Dynamics*: small models in training: curves with their phases, the circuit that forms, maps over time."""

from collections.abc import Sequence
from typing import Any, Protocol

from dash import Dash, dcc, html

from dashboard.components.frame import ListLine, Part, choice_list, page, previous_next
from dashboard.components.pages import Page, artefact_menu, dynamics_href, menu_choices, register_parts, whole_number
from dashboard.dynamics import _data as view
from dashboard.dynamics import _grokking, _induction
from dashboard.figures.theme import Theme, theme, visible
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import kinds_of
from interp.errors import UsageError
from interp.workspace import Workspace


class _Part(Protocol):
    """Functions of the module that shows a kind of study; a run is given by its index."""

    def runs(self, study: Any) -> list[view.DynamicsRun]: ...
    def outcome(self, study: Any, at: int) -> tuple[str, str]: ...
    def summary_panel(self, study: Any, at: int, actions: Sequence[Part]) -> html.Section: ...
    def panels(self, workspace: Workspace, study: Any, at: int, colours: Theme) -> list[Part]: ...


_PARTS: dict[str, _Part] = {"grokking": _grokking, "induction_onset": _induction}


def layout(context: PageSources, name: str | None = None, seed: str = "", spec: str = "", **_: object) -> html.Div:
    """`/dynamics?name=<artefact>&seed=<seed>&spec=<toy>`; without them the newest artefact and its first run."""
    workspace = context.workspace
    study = workspace.value(open_artefact(workspace, kinds_of("study"), name))
    part, key = _PARTS[study.kind], study.key
    runs = part.runs(study)
    at = view.find(runs, _seed(seed), spec)
    choices = [
        ListLine(run.label, *part.outcome(study, i), dynamics_href(key, seed=run.seed, spec=run.spec))
        for i, run in enumerate(runs)
    ]
    studies = menu_choices(workspace, kinds_of("study"))
    return page(
        "Dynamics",
        dcc.Store(id="dynamics-state", data={"name": key, **runs[at]._asdict()}),
        html.Div(
            [
                choice_list("Runs", choices, at),
                html.Div(
                    [
                        part.summary_panel(study, at, previous_next(choices, at)),
                        html.Div(id="dynamics-parts"),
                    ],
                    className="wb-detail",
                ),
            ],
            className="wb-chosen-one",
        ),
        controls=artefact_menu("Study", studies, dynamics_href(key), width=200, key=key),
        lead=f"{visible(study.headline(), 300)}.",
    )


def register(app: Dash) -> None:
    """Add the callback that draws the chosen run."""
    register_parts(app, "dynamics", show_run)


def show_run(state: dict[str, Any], scheme: str | None) -> list[Part]:
    """Return the figures of the run that `state` names."""
    workspace = current().workspace
    study = workspace.open_key(state["name"])
    part = _PARTS[study.kind]
    return part.panels(workspace, study, view.find(part.runs(study), state["seed"], state["spec"]), theme(scheme))


def _seed(text: str) -> int | None:
    """Return the seed in an address, None without one. Raises `UsageError` when the text is no whole number."""
    seed = whole_number(text)
    if text and seed is None:
        raise UsageError(f"a seed is a whole number, got {text!r}")
    return seed


PAGE = Page(
    title="Dynamics",
    path="/dynamics",
    group="models",
    order=90,
    about="Small models while they learn",
    layout=layout,
    register=register,
    shows="Small models while they are trained: grokking (memorisation, then generalisation), the step at which "
    "induction heads form, or how the loss falls with the size of a model.",
    command="workbench dynamics induction",
    fill=lambda _workspace, _model: ("dynamics induction", {}),
)
