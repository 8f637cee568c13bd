"""*Geometry*: the shape that lists of words have in a model, the meaning of directions, how representations fill space.

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
from dashboard.geometry.direction_panels import (
    along_panel,
    direction_verdict,
    planes_panel,
    push_panel,
    side_panel,
    variance_panel,
)
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
from interp.errors import CorruptError, UnknownNameError
from interp.geometry.direction import DirectionGeometry
from interp.geometry.space import SpaceComparison, SpaceReport
from interp.geometry.word_geometry import ConceptGeometry, WordGeometry
from interp.workspace import Workspace

_OUTCOMES = {"nothing": "no shape", "ordered": "an order"}
_STEERED = {True: "steers the output", False: "no effect beyond random", None: "not steered"}


def layout(context: Context, name: str | None = None, **address: Any) -> html.Div:
    """`/geometry?name=<artefact>&list=<list of words>`; without them the newest artefact and its first list."""
    workspace = context.workspace
    value = workspace.value(open_artefact(workspace, GEOMETRY, name))
    if isinstance(value, WordGeometry):
        chosen = _list(value, address.get("list"))
        choices = _choices_of_lists(value)
        at = [*value.lists].index(chosen.shape.name)
        choices += [_choice_of_direction(each) for each in _directions(workspace, value.settings.model)]
        verdict = verdict_panel(chosen.shape, previous_next(choices, at))
        return _page(workspace, value, _with_choices(choices, at, verdict), _lead(value), chosen.shape.name)
    if isinstance(value, DirectionGeometry):
        return _page_of_direction(workspace, value)
    models = value.settings.models if isinstance(value, SpaceComparison) else (value.settings.model,)
    how = "fill their space" if isinstance(value, SpaceReport) else "are alike, on the same tokens"
    return _page(
        workspace, value, html.Div(id="geometry-parts"), f"How the representations of {' and '.join(models)} {how}."
    )


def _page_of_direction(workspace: Workspace, found: DirectionGeometry) -> html.Div:
    """Return the page of a direction, with the lists of the newest artefact of its model and the other directions."""
    model = found.settings.model
    lists = next((each for each in workspace.values(WordGeometry) if each.settings.model == model), None)
    choices = _choices_of_lists(lists) if lists else []
    others = _directions(workspace, model)
    at = len(choices) + [each.name for each in others].index(found.name)
    choices += [_choice_of_direction(each) for each in others]
    verdict = attempt(partial(direction_verdict, found, previous_next(choices, at)))
    lead = f"The meaning of a direction in {model}: words along it, logits, steering."
    return _page(workspace, found, _with_choices(choices, at, verdict), lead)


def _page(workspace: Workspace, value: Artefact, body: html.Div, lead: str, word_list: str | None = None) -> html.Div:
    menu = artefact_menu(
        "Artefact", menu_choices(workspace, GEOMETRY, geometry_href), value.href, width=200, key=value.key
    )
    state = {"name": value.key, "list": word_list}
    return page("Geometry", dcc.Store(id="geometry-state", data=state), body, controls=menu, lead=lead)


def _with_choices(choices: list[Choice], at: int, verdict: Children) -> html.Div:
    return html.Div(
        [
            choice_list("Lists and directions", choices, at),
            html.Div([verdict, html.Div(id="geometry-parts")], className="wb-detail"),
        ],
        className="wb-chosen-one",
    )


def register(app: Dash) -> None:
    """Add the callback that draws the chosen list or direction."""
    register_parts(app, "geometry", _show)


def _list(found: WordGeometry, name: str | None) -> ConceptGeometry:
    """Return the list called `name`, else the first. Raises `UnknownNameError` with the nearest names."""
    if name and name not in found.lists:
        raise UnknownNameError("list of words", name, found.lists)
    return found.lists[name or next(iter(found.lists))]


def _directions(workspace: Workspace, model: str) -> list[DirectionGeometry]:
    """Return the directions of a model, newest first."""
    return [each for each in workspace.values(DirectionGeometry) if each.settings.model == model]


def _choices_of_lists(found: WordGeometry) -> list[Choice]:
    return [_choice_of_list(found, each) for each in found.lists.values()]


def _choice_of_list(found: WordGeometry, each: ConceptGeometry) -> Choice:
    shape = each.shape
    p = number(min(shape.order.p_circular, shape.order.p_linear))
    about = f"{len(shape.words)} words {_where(shape.hook_point)} · p {p}"
    return Choice(
        shape.name, _OUTCOMES.get(shape.verdict, shape.verdict), about, geometry_href(found.key, list=shape.name)
    )


def _choice_of_direction(found: DirectionGeometry) -> Choice:
    origin = found.settings.direction
    about = f"a direction {_where(origin.hook_point)}"
    try:
        outcome = _STEERED[found.moves_output]
        about += f" · separates {', '.join(found.along.set_apart[:3]) or 'no list'}"
    except CorruptError:
        outcome = "cannot be read"
    return Choice(origin.name, outcome, about, found.href)


def _where(hook_point: str) -> str:
    shown = short_hook_point(hook_point)
    return "at the embedding" if shown == "embed" else f"after block {shown}" if shown.isdigit() else f"at {shown}"


def _lead(found: WordGeometry) -> str:
    n = len(found.lists)
    return (
        f"The shape of lists of words in {found.settings.model}: {n} list{'s' * (n > 1)} of words, each word in "
        f"{len(found.settings.sentences)} sentences; half of the sentences choose the layer and fit the shape, the "
        "other half test it."
    )


def _show(state: dict[str, Any], scheme: str | None) -> list[Any]:
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
    if isinstance(value, DirectionGeometry):
        return [
            html.Div(attempt(partial(along_panel, value, colours)), className="wb-two wb-one"),
            _row(partial(variance_panel, value, colours), partial(planes_panel, value, colours)),
            _row(partial(side_panel, value, colours), partial(push_panel, value, colours)),
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
    "countries as a cluster) and the meaning of single directions, each with a null distribution.",
    command="workbench geometry shapes MODEL",
    fill=lambda _, model: ("geometry shapes", {"model": model}),
)
