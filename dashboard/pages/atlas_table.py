"""The table under the map: the points that are bright on it, sorted by any column; what the map shows, in words."""

from typing import Any

import dash_ag_grid as dag
from dash import html, no_update

from dashboard.components.attributes import attrs
from dashboard.components.frame import panel
from dashboard.context import current
from dashboard.figures.theme import visible
from dashboard.views import atlas as view
from dashboard.views.atlas_columns import columns
from dashboard.views.atlas_selection import Choice
from interp.workspace import Workspace

_NUMBER = {"function": "params.value == null ? '' : d3.format('.3~g')(params.value)"}


def table_panel(workspace: Workspace, name: str) -> html.Section:
    """The grid, filled in blocks as one scrolls."""
    shown: list[dict[str, Any]] = [
        {"field": "point", "headerName": "#", "width": 90, "type": "rightAligned"},
        {"field": "label", "headerName": "label", "flex": 2, "minWidth": 140, "tooltipField": "label"},
        {
            "field": "region",
            "headerName": "region",
            "flex": 2,
            "minWidth": 120,
            "sortable": False,
            "tooltipField": "region",
        },
    ]
    for column in columns(workspace, name):
        if column.kind == "number":
            shown.append(
                {
                    "field": column.name,
                    "headerName": column.title,
                    "width": 150,
                    "type": "rightAligned",
                    "valueFormatter": _NUMBER,
                }
            )
        elif column.kind == "category":
            shown.append({"field": column.name, "headerName": column.title, "flex": 1, "minWidth": 110})
    for column in shown:
        column |= {"suppressHeaderFilterButton": True, "sortable": column.get("sortable", True)}
    grid = dag.AgGrid(
        id="atlas-grid",
        columnDefs=shown,
        rowModelType="infinite",
        getRowId="params.data.id",
        className="wb-grid wb-atlas-grid",
        columnSize=None,
        dashGridOptions={
            "cacheBlockSize": 100, "maxBlocksInCache": 20, "rowHeight": 30, "headerHeight": 32, "tooltipShowDelay": 400,
            "animateRows": False,
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
        },
    )  # fmt: skip
    title = html.Span(id="atlas-table-title", **attrs({"aria-live": "polite"}))
    note = "Shift-drag on the map draws a lasso, alt-drag a rectangle; a row leads to its point."
    return panel(title, grid, note=note, className="wb-atlas-table")


def fill(request: dict[str, Any] | None, narrowing: dict[str, str] | None, state: dict[str, Any]) -> Any:
    """Rows of the points that are chosen, and how many there are."""
    if not request:
        return no_update, no_update
    sort = (request.get("sortModel") or [{"colId": "", "sort": "asc"}])[0]
    choice = Choice(**(narrowing or {}))
    rows, total = view.rows(
        current().workspace, state["name"], choice, sort=sort["colId"], descending=sort["sort"] == "desc",
        start=int(request["startRow"]), end=int(request["endRow"]),
    )  # fmt: skip
    lines = [
        row | {"id": str(row["point"]), "label": visible(row["label"], 200), "region": visible(row["region"], 120)}
        for row in rows
    ]
    what = "All points" if choice == Choice() else "Chosen points"
    return {"rowData": lines, "rowCount": total}, f"{what}: {total:,}"
