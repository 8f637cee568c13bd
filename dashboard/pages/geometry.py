"""*Geometry*: what shape each list of words has in a model, with the evidence, the nulls and what interventions did."""

from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update

from dashboard.addresses import geometry_href
from dashboard.components.choices import Choice, choice_list, previous_next
from dashboard.components.frame import page, select
from dashboard.context import Context, current
from dashboard.figures.theme import theme
from dashboard.pages.geometry_parts import (
    order_panel,
    plane_panel,
    probe_panel,
    rotation_panel,
    spectrum_panel,
    steering_panel,
    verdict_panel,
)
from dashboard.views import geometry as view
from interp.artifacts import Manifest

_OUTCOMES = {"nothing": "no shape", "ordered": "an order"}


def layout(context: Context, name: str | None = None, **address: Any) -> html.Div:
    """`/geometry?name=<artefact>&list=<list of words>`; without them the newest artefact and its first list."""
    manifest = view.choose(context.workspace, name)
    lists = view.lists(context.workspace, manifest)
    chosen = view.find(lists, address.get("list"))
    choices = [_choice(manifest.name, each) for each in lists.values()]
    at = [*lists].index(chosen.name)
    names = [m.name for m in context.workspace.artifacts("geometry")]
    return page(
        "Geometry",
        dcc.Store(id="geometry-state", data={"name": manifest.name, "list": chosen.name}),
        html.Div(
            [
                choice_list("Lists of words", choices, at),
                html.Div([verdict_panel(chosen, previous_next(choices, at)), html.Div(id="geometry-parts")],
                         className="wb-detail"),
            ],
            className="wb-chosen-one",
        ),
        controls=[select("geometry-name", "Artefact", names, manifest.name, width=200)],
        lead=_lead(manifest, lists),
    )  # fmt: skip


def register(app: Dash) -> None:
    """The figures of the chosen list, and the choice of another artefact."""
    app.callback(
        Output("geometry-parts", "children"),
        Input("geometry-state", "data"),
        State("scheme", "data"),
    )(_show)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("geometry-name", "value"),
        State("geometry-state", "data"),
        prevent_initial_call=True,
    )(lambda name, state: geometry_href(name) if name != state["name"] else no_update)


def _choice(artefact: str, found: view.WordList) -> Choice:
    order = found.order
    p = [value for value in (order.get("p_circular"), order.get("p_linear")) if isinstance(value, int | float)]
    place = view.short_place(found.hook_point)
    where = "at the embedding" if place == "embed" else f"after block {place}" if place.isdigit() else f"at {place}"
    about = f"{len(found.words)} words {where}"
    about += f" · p {min(p):.2g}" if p else ""
    outcome = _OUTCOMES.get(found.verdict, found.verdict)
    return Choice(found.name, outcome, about, geometry_href(artefact, list=found.name))


def _lead(manifest: Manifest, lists: dict[str, view.WordList]) -> str:
    sentences = manifest.config.get("sentences")
    read = f"read in {len(sentences)} sentences each; one half fits and chooses, the other judges" if sentences else ""
    count = "1 list of words" if len(lists) == 1 else f"{len(lists)} lists of words"
    return (
        f"What shape do words have inside {manifest.config.get('model', 'a model')}? {count}, {read}".rstrip(", ") + "."
    )


def _show(state: dict[str, Any], scheme: str | None) -> list[Any]:
    workspace = current().workspace
    manifest = view.choose(workspace, state["name"])
    chosen = view.find(view.lists(workspace, manifest), state["list"])
    colours = theme(scheme)
    return [
        html.Div([plane_panel(workspace, manifest.name, chosen, colours), spectrum_panel(chosen, colours)],
                 className="wb-two wb-even"),
        html.Div([order_panel(workspace, manifest.name, chosen, colours),
                  probe_panel(workspace, manifest.name, chosen, colours)], className="wb-two wb-even"),
        html.Div([steering_panel(chosen, colours), rotation_panel(chosen, colours)], className="wb-two wb-even"),
    ]  # fmt: skip
