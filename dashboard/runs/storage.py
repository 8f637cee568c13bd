"""The artefacts on disk: sizes, dependants, deletion into the trash of the workspace, and restoration."""

import os
from collections.abc import Iterator
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update

from dashboard.components.frame import attempt, attrs, explain, panel, quiet_link
from dashboard.components.pages import Context, artefact_href, current
from interp.artifacts import FOLDERS, PARTIAL, partial_path
from interp.cache import size_text
from interp.errors import ConfigError, WorkbenchError
from interp.workspace import Workspace, empty_trash, folder_bytes, move_to_trash, outdated, restore, trashed


def storage(context: Context) -> list[Any]:
    """Return the table of artefacts, and the trash."""
    return [attempt(lambda: _artefacts(context.workspace)), attempt(lambda: _trash(context.workspace))]


def _artefacts(workspace: Workspace) -> Any:
    """Return the table of artefacts with sizes, the largest first."""
    rows = sorted(_rows(workspace), key=lambda row: -row[1])
    if not rows:
        return panel("Artefacts on disk", html.P("None yet.", className="wb-none"))
    total = sum(row[1] for row in rows)
    head = html.Tr([html.Th(name, scope="col") for name in ("artefact", "size", "made", "used by", "state", "delete")])
    body = [_row(workspace, *row) for row in rows]
    table = html.Table([html.Thead(head), html.Tbody(body)], className="wb-evidence wb-records wb-artefacts")
    return panel(
        "Artefacts on disk",
        html.Div(table, className="wb-wide-table", tabIndex=0, role="region", **attrs({"aria-label": "Artefacts"})),
        note=f"{len(rows)} artefacts, {size_text(total)}. One is outdated when an artefact that it was made from has "
        "changed since; make it again before you compare it with others.",
    )


def _rows(workspace: Workspace) -> Iterator[tuple[str, int, str, int, str]]:
    """Yield key, bytes, time, number of artefacts made from it, and state, of every artefact and unfinished one."""
    manifests = workspace.artifacts()
    old = outdated(manifests, workspace.key)
    for each in manifests:
        key = workspace.key(each)
        changed = f"outdated: {', '.join(old[key])} has changed" if old[key] else "up to date"
        size = sum(int(file.get("bytes", 0)) for file in each.files.values())
        made = each.created.replace("T", " ").removesuffix("Z")[:16]
        yield key, size, made, sum(key in child.parents for child in manifests), changed
    for partial in workspace.partials():
        folder = partial_path(workspace.path(partial.kind, partial.name))
        started = str(partial.status.get("started", "")).replace("T", " ").removesuffix("Z")[:16]
        yield folder.relative_to(workspace.root).as_posix(), folder_bytes(folder), started, 0, "unfinished"


def _row(workspace: Workspace, key: str, size: int, made: str, children: int, state: str) -> html.Tr:
    href = "/" if key.endswith(PARTIAL) else artefact_href(workspace, key)
    name = html.Th(quiet_link(key, href) if href != "/" else key, scope="row")
    told = html.Td(state, className="wb-run-interrupted" if state != "up to date" else "")
    return html.Tr([name, html.Td(size_text(size)), html.Td(made), html.Td(str(children)), told, _delete(key)])


def _delete(key: str) -> html.Td:
    identity = {"type": "store-ask", "key": key.replace(".", ":")}  # Dash allows no dot in an id
    words = {"aria-label": f"Delete {key}"}
    return html.Td(html.Button("Delete", id=identity, className="wb-act wb-act-quiet", type="button", **attrs(words)))


def _trash(workspace: Workspace) -> Any:
    found = trashed(workspace)
    if not found:
        return None
    lines = [
        html.Li(
            [
                html.Span(f"{each.key}, {size_text(each.n_bytes)}"),
                html.Button(
                    "Restore",
                    id={"type": "store-act", "act": "restore", "of": each.entry},
                    className="wb-act wb-act-quiet",
                    type="button",
                    **attrs({"aria-label": f"Restore {each.key}"}),
                ),
            ]
        )
        for each in found
    ]
    total = size_text(sum(each.n_bytes for each in found))
    empty = html.Details(
        [
            html.Summary("Empty the trash"),
            html.Button(
                f"Delete {len(found)} for good, {total}",
                id={"type": "store-act", "act": "empty", "of": "all"},
                className="wb-act",
                type="button",
            ),
        ],
        className="wb-folded",
    )
    return panel(
        "Trash", html.Ul(lines, className="wb-lines"), empty, note="Deleted artefacts still take up disk space."
    )


def modal() -> list[Any]:
    """Return the dialog that asks before an artefact is deleted."""
    return [
        dcc.Store(id="delete-key"),
        dmc.Modal(
            [
                html.Div(id="delete-about"),
                dmc.TextInput(id="delete-typed", label="Type the name to confirm", value="", size="xs"),
                html.Button("Move to the trash", id="delete-go", className="wb-act wb-row", disabled=True),
                html.P("", id="delete-problem", className="wb-run-problem", role="alert"),
            ],
            id="delete",
            title="Delete an artefact",
            opened=False,
        ),
    ]


def _about(context: Context, key: str) -> list[Any]:
    """Return the consequences of deleting an artefact. Raises `ConfigError` while something uses it."""
    check_unused(context, key)
    users = [context.workspace.key(each) for each in context.workspace.artifacts() if key in each.parents]
    parts: list[Any] = [
        html.P([html.Code(key), " goes to the trash of the workspace, and can be restored from there."])
    ]
    if users:
        parts += [html.P(f"Made from it, and kept: {', '.join(users)}. They can no longer be traced or made again.")]
    return parts


def check_unused(context: Context, key: str) -> None:
    """Raise `ConfigError` while a run of the queue, or a command in a terminal, uses an artefact."""
    run = context.runs.using(key.removesuffix(PARTIAL)) if context.runs else None
    if run is not None:
        raise ConfigError(f"{key} is used by run {run.id}, which is {run.state}; cancel it or wait for its end")
    for partial in context.workspace.partials():
        folder = f"{FOLDERS[partial.kind]}/{partial.name}{PARTIAL}"
        if folder == key and _alive(partial.status.get("pid")):
            raise ConfigError(f"{key} is being written by process {partial.status['pid']}; stop that first")


def _alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (OSError, ValueError, TypeError, OverflowError):
        return False
    return True


def register(app: Dash) -> None:
    """Add the callbacks: asking, deleting, restoring, and emptying the trash."""

    @app.callback(
        Output("delete", "opened"),
        Output("delete-key", "data"),
        Output("delete-about", "children"),
        Output("delete-typed", "value"),
        Output("delete-problem", "children"),
        Input({"type": "store-ask", "key": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def ask(_: list[int | None]) -> tuple[Any, ...]:
        if not ctx.triggered_id or not ctx.triggered[0]["value"]:
            return (no_update,) * 5
        key = str(ctx.triggered_id["key"]).replace(":", ".")
        return True, key, _about(current(), key), "", ""

    app.clientside_callback(
        "(typed, key) => !key || typed !== key.split('/')[1]",
        Output("delete-go", "disabled"),
        Input("delete-typed", "value"),
        Input("delete-key", "data"),
    )

    @app.callback(
        Output("delete", "opened", allow_duplicate=True),
        Output("delete-problem", "children", allow_duplicate=True),
        Output("runs-storage", "children", allow_duplicate=True),
        Input("delete-go", "n_clicks"),
        State("delete-key", "data"),
        State("delete-typed", "value"),
        prevent_initial_call=True,
    )
    def delete(clicks: int | None, key: str, typed: str) -> tuple[Any, ...]:
        if not clicks:
            return no_update, no_update, no_update
        try:
            if typed != key.partition("/")[2]:
                raise ConfigError(f"type {key.partition('/')[2]} to confirm")
            check_unused(current(), key)
            move_to_trash(current().workspace, key)
        except WorkbenchError as error:
            return True, explain(error), no_update
        return False, "", storage(current())

    @app.callback(
        Output("runs-storage", "children", allow_duplicate=True),
        Input({"type": "store-act", "act": ALL, "of": ALL}, "n_clicks"),
        State({"type": "store-act", "act": ALL, "of": ALL}, "id"),
        prevent_initial_call=True,
    )
    def act(_: list[int | None], ids: list[dict[str, str]]) -> Any:
        if not ctx.triggered_id or not ctx.triggered[0]["value"]:
            return no_update
        if ctx.triggered_id["act"] == "empty":
            empty_trash(current().workspace, [each["of"] for each in ids if each["act"] == "restore"])  # those shown
        else:
            restore(current().workspace, str(ctx.triggered_id["of"]))
        return storage(current())
