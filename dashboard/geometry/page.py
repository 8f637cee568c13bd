"""*Geometry*: the shape that lists of words have in a model, and how representations fill space.

Every number has its null.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from dash import Dash, dcc, html

from dashboard.components.evidence import number
from dashboard.components.frame import Children, Choice, attempt, choice_list, page, previous_next
from dashboard.components.pages import (
    Context,
    Page,
    artefact_menu,
    current,
    geometry_href,
    menu_choices,
    open_artefact,
    register_parts,
)
from dashboard.figures.geometry import short_hook_point
from dashboard.figures.theme import theme
from dashboard.geometry.panels import (
    order_panel,
    plane_panel,
    probe_panel,
    rotation_panel,
    spectrum_panel,
    steering_panel,
    verdict_panel,
)
from dashboard.geometry.space_panels import (
    measures_panel,
    pairs_panel,
    relations_panel,
    similarity_panel,
    spectra_panel,
)
from interp.artifacts import GEOMETRY, Artefact
from interp.errors import UnknownNameError
from interp.geometry.space import SpaceComparison, SpaceReport
from interp.geometry.word_geometry import ConceptGeometry, WordGeometry
from interp.workspace import Workspace

_OUTCOMES = {"nothing": "no shape", "ordered": "an order"}


def layout(context: Context, name: str | None = None, **address: Any) -> html.Div:
    """`/geometry?name=<artefact>&list=<list of words>`; without them the newest artefact and its first list."""
    workspace = context.workspace
    value = workspace.value(open_artefact(workspace, GEOMETRY, name))
    if isinstance(value, WordGeometry):
        chosen = _list(value, address.get("list"))
        choices = _choices_of_lists(value)
        at = [*value.lists].index(chosen.shape.name)
        verdict = verdict_panel(chosen.shape, previous_next(choices, at))
        return _page(workspace, value, _with_choices(choices, at, verdict), _lead(value), chosen.shape.name)
    models = value.settings.models if isinstance(value, SpaceComparison) else (value.settings.model,)
    how = "fill their space" if isinstance(value, SpaceReport) else "are alike, on the same tokens"
    return _page(
        workspace, value, html.Div(id="geometry-parts"), f"How the representations of {' and '.join(models)} {how}."
    )


def _page(workspace: Workspace, value: Artefact, body: html.Div, lead: str, word_list: str | None = None) -> html.Div:
    menu = artefact_menu(
        "Artefact", menu_choices(workspace, GEOMETRY, geometry_href), value.href, width=200, key=value.key
    )
    state = {"name": value.key, "list": word_list}
    return page("Geometry", dcc.Store(id="geometry-state", data=state), body, controls=menu, lead=lead)


def _with_choices(choices: list[Choice], at: int, verdict: Children) -> html.Div:
    return html.Div(
        [
            choice_list("Lists", choices, at),
            html.Div([verdict, html.Div(id="geometry-parts")], className="wb-detail"),
        ],
        className="wb-chosen-one",
    )


def register(app: Dash) -> None:
    """Add the callback that draws the chosen list."""
    register_parts(app, "geometry", show_geometry)


def _list(found: WordGeometry, name: str | None) -> ConceptGeometry:
    """Return the list called `name`, else the first. Raises `UnknownNameError` with the nearest names."""
    if name and name not in found.lists:
        raise UnknownNameError("list of words", name, found.lists)
    return found.lists[name or next(iter(found.lists))]


def _choices_of_lists(found: WordGeometry) -> list[Choice]:
    return [_choice_of_list(found, each) for each in found.lists.values()]


def _choice_of_list(found: WordGeometry, each: ConceptGeometry) -> Choice:
    shape = each.shape
    p = number(min(shape.order.p_circular, shape.order.p_linear))
    about = f"{len(shape.words)} words {_where(shape.hook_point)} · p {p}"
    return Choice(
        shape.name, _OUTCOMES.get(shape.verdict, shape.verdict), about, geometry_href(found.key, list=shape.name)
    )


def _where(hook_point: str) -> str:
    shown = short_hook_point(hook_point)
    return "at the embedding" if shown == "embed" else f"after block {shown}" if shown.isdigit() else f"at {shown}"


def _lead(found: WordGeometry) -> str:
    n = len(found.lists)
    return (
        f"The shape of {n} list{'s' * (n > 1)} of words in {found.settings.model}, each word in "
        f"{len(found.settings.sentences)} sentences: half of them choose the layer and fit the shape, half test it."
    )


def show_geometry(state: dict[str, Any], scheme: str | None) -> list[Any]:
    """Return the panels of a list of words, a space, or a comparison of two spaces."""
    workspace, colours = current().workspace, theme(scheme)
    value = workspace.value(open_artefact(workspace, GEOMETRY, state["name"]))
    if isinstance(value, WordGeometry):
        found = _list(value, state["list"])
        shape = found.shape
        return [
            _row(partial(plane_panel, shape, colours), partial(spectrum_panel, shape, colours)),
            _row(partial(order_panel, shape, colours), partial(probe_panel, found, colours)),
            _row(partial(steering_panel, found, colours), partial(rotation_panel, found, colours)),
        ]
    if isinstance(value, SpaceComparison):
        return [attempt(partial(draw, value, colours)) for draw in (similarity_panel, pairs_panel)]
    assert isinstance(value, SpaceReport)
    return [attempt(partial(draw, value, colours)) for draw in (measures_panel, spectra_panel, relations_panel)]


def _row(*panels: Callable[[], html.Section]) -> html.Div:
    return html.Div([attempt(each) for each in panels], className="wb-two wb-even")


PAGE = Page(
    title="Geometry",
    path="/geometry",
    order=80,
    layout=layout,
    register=register,
    shows="The shape that lists of words have in the residual stream (the weekdays as a circle, numbers as a line, "
    "countries as a cluster), each with a null distribution.",
    command="workbench geometry shapes MODEL",
    fill=lambda _, model: ("geometry shapes", {"model": model}),
)
