"""The table of heads by score: its columns and its rows."""

from collections.abc import Sequence
from typing import Any

import dash_ag_grid as dag
from dash import html

from dashboard.components.frame import panel
from interp.circuits.head_scores import HeadScore


def table_panel() -> html.Section:
    """Return the panel of the table; `table_rows` fills it."""
    number = {"valueFormatter": {"function": "d3.format('.3f')(params.value)"}, "type": "rightAligned"}
    columns = [
        {"field": "name", "headerName": "head", "width": 84},
        {"field": "score", "headerName": "score", "width": 88, "sort": "desc", **number},
        {"field": "interval", "headerName": "95 % interval", "flex": 1, "minWidth": 120, "sortable": False},
        {
            "field": "null",
            "headerName": "null",
            "width": 88,
            "headerTooltip": "the same score on text that has no such token to attend to (upper bound)",
            **number,
        },
        {"field": "verdict", "headerName": "verdict", "width": 92},
    ]
    grid = dag.AgGrid(
        id="heads-grid",
        columnDefs=columns,
        getRowId="params.data.name",
        className="wb-grid",
        columnSize=None,
        dashGridOptions={"rowHeight": 30, "headerHeight": 32, "animateRows": False},
    )
    return panel("By score", grid, className="wb-heads-table")


def table_rows(rows: Sequence[HeadScore]) -> list[dict[str, Any]]:
    """Return one row per head, by the fields of the columns."""
    return [
        {
            "name": row.name,
            "score": row.score,
            "interval": f"{row.low:.3f} to {row.high:.3f}",
            "null": row.null_high,
            "verdict": "found" if row.above_null else "",
        }
        for row in rows
    ]
