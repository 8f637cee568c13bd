"""*Artefact*: one artefact of any kind, from its class; a kind with a page of its own is linked to it."""

from dash import Dash, dcc, html
from dash.development.base_component import Component

from dashboard.artefact._monitor import monitor_panel, register_monitor
from dashboard.artefact.sections import panels, summary
from dashboard.components.frame import attempt, graph, page, panel, quiet_link, still
from dashboard.components.pages import Page, artefact_menu, menu_choices, page_of, register_parts
from dashboard.figures.results import has_figure, plot
from dashboard.figures.theme import theme
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import KINDS, address_of
from interp.directions.monitor import Monitor


def layout(context: PageSources, name: str | None = None, **_: object) -> html.Div:
    """`/artefact/<folder>/<name>`; without a name the newest artefact."""
    workspace = context.workspace
    value = workspace.value(open_artefact(workspace, tuple(KINDS), name))
    title, address, own_page = value.title, address_of(value.key), page_of(value.href)
    links = [] if own_page == address else [quiet_link("Open its own page", own_page)]
    return page(
        PAGE.title,
        panel(f"{title} {value.name}", attempt(lambda: summary(value)), *links),
        *([monitor_panel(value.name)] if isinstance(value, Monitor) else []),
        dcc.Store(id="artefact-state", data={"key": value.key}),
        html.Div(id="artefact-parts", style={"marginTop": "12px"}),
        controls=artefact_menu(title, menu_choices(workspace, (value.kind,), address_of), address, key=value.key),
    )


def register(app: Dash) -> None:
    """Add the callbacks that draw the figure and the panels, and that run a monitor."""
    register_monitor(app)
    register_parts(app, "artefact", show_artefact)


def show_artefact(state: dict[str, str], scheme: str | None) -> Component:
    """Return the figure of the artefact that `state` names, where its class has one, and its panels."""
    workspace = current().workspace
    value = workspace.open_key(state["key"])
    parts = panels(workspace, value)
    if has_figure(value):
        label = f"Figure of {value.key}"
        drawn = attempt(lambda: graph("artefact-figure", figure=plot(value, theme(scheme)), label=label))
        parts.insert(0, panel("Figure", drawn))
    return still(html.Div(parts))


PAGE = Page(
    title="Artefact",
    path="/artefact",
    templates=("/artefact/<name>",),
    group="work",
    order=99,
    listed=False,
    layout=layout,
    register=register,
    shows="One artefact of any kind: its findings with their nulls, settings, tables, origin and files.",
    command="workbench record MODEL",
    fill=lambda _, model: ("record", {"model": model}),
)
