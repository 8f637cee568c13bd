"""*Geometry*: the shape that lists of words have in a model, the meaning of directions, each number with its null."""

from typing import Any

from dash import Dash, dcc, html

from dashboard.components.frame import Choice, choice_list, page, previous_next
from dashboard.components.pages import (
    Context,
    Page,
    artefact_key,
    artefact_menu,
    current,
    geometry_href,
    menu_choices,
    open_artefact,
    register_parts,
)
from dashboard.figures.theme import theme
from dashboard.geometry import data as view
from dashboard.geometry.data import direction
from dashboard.geometry.panels import (
    direction_panels,
    direction_verdict,
    order_panel,
    plane_panel,
    probe_panel,
    rotation_panel,
    spectrum_panel,
    steering_panel,
    verdict_panel,
)
from dashboard.geometry.space import lead, space_panels
from interp.artifacts import GEOMETRY, Manifest
from interp.workspace import Workspace

SPACES = ("space", "space_comparison")
_OUTCOMES = {"nothing": "no shape", "ordered": "an order"}


def layout(context: Context, name: str | None = None, **address: Any) -> html.Div:
    """`/geometry?name=<artefact>&list=<list of words>`; without them the newest artefact and its first list."""
    workspace = context.workspace
    manifest = open_artefact(workspace, GEOMETRY, name)
    if manifest.kind == "direction":
        return _page_of_direction(workspace, manifest)
    if manifest.kind in SPACES:
        return page(
            "Geometry",
            dcc.Store(id="geometry-state", data={"name": artefact_key(manifest), "list": None}),
            html.Div(id="geometry-parts"),
            controls=_menu(workspace, manifest),
            lead=lead(manifest),
        )
    lists = view.lists(workspace, manifest)
    chosen = view.find(lists, address.get("list"))
    choices = [_choice(manifest, each) for each in lists.values()]
    at = [*lists].index(chosen.name)
    choices += [_choice_of_direction(each) for each in view.directions_of(workspace, manifest)]
    return _page(
        workspace,
        manifest,
        {"name": artefact_key(manifest), "list": chosen.name},
        choices,
        at,
        verdict_panel(chosen, previous_next(choices, at)),
        _lead(manifest, lists),
    )


def _page_of_direction(workspace: Workspace, manifest: Manifest) -> html.Div:
    """Return the page of a direction, with the lists of the newest artefact of its model and the other directions."""
    found = direction(workspace, manifest)
    lists = view.lists_of_model(workspace, manifest)
    choices = [_choice(lists, each) for each in view.lists(workspace, lists).values()] if lists else []
    others = view.directions_of(workspace, manifest)
    at = len(choices) + [each.name for each in others].index(manifest.name)
    choices += [_choice_of_direction(each) for each in others]
    lead = f"The meaning of a direction in {manifest.config.get('model', 'a model')}: words along it, logits, steering."
    panel = direction_verdict(found, previous_next(choices, at))
    return _page(workspace, manifest, {"name": artefact_key(manifest), "list": None}, choices, at, panel, lead)


def _page(
    workspace: Workspace,
    manifest: Manifest,
    state: dict[str, Any],
    choices: list[Choice],
    at: int,
    verdict: html.Section,
    lead: str,
) -> html.Div:
    return page(
        "Geometry",
        dcc.Store(id="geometry-state", data=state),
        html.Div(
            [
                choice_list("Lists and directions", choices, at),
                html.Div([verdict, html.Div(id="geometry-parts")], className="wb-detail"),
            ],
            className="wb-chosen-one",
        ),
        controls=_menu(workspace, manifest),
        lead=lead,
    )


def _menu(workspace: Workspace, manifest: Manifest) -> html.Div:
    choices = menu_choices(workspace, GEOMETRY, geometry_href)
    return artefact_menu("Artefact", choices, geometry_href(artefact_key(manifest)), width=200)


def register(app: Dash) -> None:
    """Add the callback that draws the chosen list or direction."""
    register_parts(app, "geometry", _show)


def _choice(artefact: Manifest, found: view.WordList) -> Choice:
    order = found.order
    p = [value for value in (order.get("p_circular"), order.get("p_linear")) if isinstance(value, int | float)]
    about = f"{len(found.words)} words {_where(found.hook_point)}"
    about += f" · p {min(p):.2g}" if p else ""
    outcome = _OUTCOMES.get(found.verdict, found.verdict)
    return Choice(found.name, outcome, about, geometry_href(artefact_key(artefact), list=found.name))


def _where(hook_point: str) -> str:
    shown = view.short_hook_point(hook_point)
    return "at the embedding" if shown == "embed" else f"after block {shown}" if shown.isdigit() else f"at {shown}"


def _choice_of_direction(manifest: Manifest) -> Choice:
    summary = manifest.summary
    outcomes = {True: "steers the output", False: "no effect beyond random", None: "not steered"}
    moves = outcomes.get(summary.get("moves_output"), "not steered")
    apart = summary.get("set_apart") or []
    about = f"a direction {_where(str(summary.get('hook_point')))}"
    about += f" · separates {', '.join(map(str, apart[:3]))}" if apart else " · separates no list"
    return Choice(str(summary.get("direction") or manifest.name), moves, about, geometry_href(artefact_key(manifest)))


def _lead(manifest: Manifest, lists: dict[str, view.WordList]) -> str:
    sentences = manifest.config.get("sentences")
    read = (
        f"each word in {len(sentences)} sentences; half of the sentences choose the layer and fit the shape, the other "
        "half test it"
        if sentences
        else ""
    )
    count = "1 list of words" if len(lists) == 1 else f"{len(lists)} lists of words"
    return (
        f"The shape of lists of words in {manifest.config.get('model', 'a model')}: {count}, {read}".rstrip(", ") + "."
    )


def _show(state: dict[str, Any], scheme: str | None) -> list[Any]:
    workspace = current().workspace
    manifest = open_artefact(workspace, GEOMETRY, state["name"])
    if manifest.kind == "direction":
        return direction_panels(workspace, manifest.name, direction(workspace, manifest), theme(scheme))
    if manifest.kind in SPACES:
        return space_panels(workspace, manifest, theme(scheme))
    chosen = view.find(view.lists(workspace, manifest), state["list"])
    colours = theme(scheme)
    return [
        html.Div([plane_panel(workspace, manifest.name, chosen, colours), spectrum_panel(chosen, colours)],
                 className="wb-two wb-even"),
        html.Div([order_panel(workspace, manifest.name, chosen, colours),
                  probe_panel(workspace, manifest.name, chosen, colours)], className="wb-two wb-even"),
        html.Div([steering_panel(chosen, colours), rotation_panel(chosen, colours)], className="wb-two wb-even"),
    ]  # fmt: skip


PAGE = Page(
    title="Geometry",
    path="/geometry",
    order=80,
    layout=layout,
    register=register,
    shows="The shape that lists of words have in the residual stream (the weekdays as a circle, numbers as a line, "
    "countries as a cluster) and the meaning of single directions, each with a null distribution.",
    command="workbench geometry shapes MODEL",
)
