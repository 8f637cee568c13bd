"""*Artefact*: one artefact of any kind, from its class; a kind with a page of its own is linked to it."""

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from dashboard.artefact.sections import panels, summary
from dashboard.components.evidence import as_table, records_table
from dashboard.components.frame import Part, attempt, graph, page, panel, quiet_link, still, verdict
from dashboard.components.pages import Page, artefact_menu, menu_choices, page_of, register_parts
from dashboard.components.tokens import token_strip
from dashboard.figures.results import has_figure, plot
from dashboard.figures.theme import theme
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import KINDS, address_of
from interp.circuits.alignment import Alignment, SwappedRun
from interp.directions.monitor import Monitor, MonitoredText
from saes.acts.alignments import SwapTestPair
from saes.acts.monitors import RunMonitor

_FULL = 8.0
"""Log-odds above the threshold of the full colour."""


def pairs_panel(alignment: Alignment, pair: int | None) -> html.Section:
    """Return the pairs, and the runs of the one that the address names."""
    address = address_of(alignment.key)
    lines = [
        html.Li([
            "▸ " if number == pair else "", quiet_link(row.base, f"{address}?pair={number}"), " with ",
            html.Q(row.source), f": wanted {row.wanted!r}, whole swap {row.after_whole!r}, "
            f"learned {row.after_learned!r}",
        ], dir="auto")
        for number, row in enumerate(alignment.pairs.rows())
    ]  # fmt: skip
    run = None if pair is None else html.Div(attempt(lambda: _runs(alignment, pair)))
    return panel(
        "Swapped runs",
        run,
        html.Ol(lines, className="wb-said"),
        note="test pairs, and which of the program's answers follows; a click runs one again, over all tokens",
    )


def _runs(alignment: Alignment, pair: int) -> list[Part]:
    found: SwappedRun = current().live.ask(SwapTestPair(alignment=alignment.name, pair=pair))
    rows = [
        {
            "next token": repr(row.token), "base": f"{row.base:.1%}", "source": f"{row.source:.1%}",
            "base, whole vector swapped": f"{row.whole:.1%}", "base, learned subspace swapped": f"{row.learned:.1%}",
        }
        for row in found.tokens
    ]  # fmt: skip
    return [
        html.P(found.headline()),
        html.P(["Base: ", html.Q(found.pair.base), " Source: ", html.Q(found.pair.source)], className="wb-note"),
        records_table(rows, limit=len(rows)),
    ]


def monitor_panel(name: str) -> html.Section:
    """Return the box in which a monitor runs on a text."""
    return panel(
        "Run it on a text",
        dcc.Store(id="monitor-name", data=name),
        dmc.Textarea(id="monitor-text", label="Text", autosize=True, minRows=2, maxRows=8, size="xs", value=""),
        html.Button("Run", id="monitor-run", type="button", className="wb-act"),
        dcc.Loading(html.Div(id="monitor-_drawn", role="status")),
        note="coloured: tokens above the threshold; the text fires where their mean score is above 0",
        more="A score is the log-odds of the probe above its threshold. The first token is not read. In a chat, choose "
        "the monitor on the page Directions.",
    )


def register_monitor(app: Dash) -> None:
    """Add the callback that runs a monitor."""

    @app.callback(
        Output("monitor-_drawn", "children"),
        Input("monitor-run", "n_clicks"),
        State("monitor-name", "data"),
        State("monitor-text", "value"),
        prevent_initial_call=True,
    )
    def run(_: int, name: str, text: str) -> Part:
        return attempt(lambda: _drawn(current().live.ask(RunMonitor(monitor=name, text=text))))


def _drawn(watched: MonitoredText) -> html.Div:
    """Return a text with its verdict: coloured where a token scores above the threshold."""
    scores = [max(score or 0.0, 0.0) for score in watched.scores]
    tokens = token_strip(list(watched.tokens), scores, maximum=_FULL, unit="score")
    return html.Div([verdict(f"{watched.sentence()}."), tokens, as_table(watched.to_records(), "Every token")])


def layout(context: PageSources, name: str | None = None, pair: str = "", **_: object) -> html.Div:
    """`/artefact/<folder>/<name>`; without a name the newest artefact. `pair` is a pair of an alignment."""
    workspace = context.workspace
    value = workspace.value(open_artefact(workspace, tuple(KINDS), name))
    title, address, own_page = value.title, address_of(value.key), page_of(value.href)
    links = [] if own_page == address else [quiet_link("Open its own page", own_page)]
    return page(
        PAGE.title,
        panel(f"{title} {value.name}", attempt(lambda: summary(value)), *links),
        *([monitor_panel(value.name)] if isinstance(value, Monitor) else []),
        dcc.Store(id="artefact-state", data={"key": value.key}),
        *(
            [dcc.Store(id="swapped-state", data={"key": value.key, "pair": pair}), html.Div(id="swapped-parts")]
            if isinstance(value, Alignment)
            else []
        ),
        html.Div(id="artefact-parts", style={"marginTop": "12px"}),
        controls=artefact_menu(title, menu_choices(workspace, (value.kind,), address_of), address, key=value.key),
    )


def register(app: Dash) -> None:
    """Add the callbacks that draw the figure, the panels and the pairs of an alignment, and that run a monitor."""
    register_monitor(app)
    register_parts(app, "artefact", show_artefact)
    register_parts(app, "swapped", show_swapped)


def show_swapped(state: dict[str, str], scheme: str | None) -> Component:
    """Return the pairs of an alignment, with the runs of the one that `state` names."""
    alignment = current().workspace.open_key(state["key"])
    assert isinstance(alignment, Alignment)
    return still(pairs_panel(alignment, int(state["pair"]) if state["pair"].isdecimal() else None))


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
