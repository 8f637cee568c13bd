"""The form that makes a direction: pairs in a table, two lists, or a trait; its run goes through the queue.

Pairs are pasted, read from a file, or typed into the rows. What is wrong with them is said before anything runs.
"""

import base64
import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update

from dashboard.components.forms import model_choices
from dashboard.components.frame import Part, attrs, explain, fold, panel, select
from dashboard.components.pages import run_button
from dashboard.queue import RunQueue
from dashboard.sources import current
from interp.directions.examples import LEAST, read_examples
from interp.errors import ConfigError, WorkbenchError
from interp.workspace import Workspace

Row = dict[str, str]

COLUMNS = {"prompt": "prompt (optional)", "towards": "towards", "away": "away"}
WAYS = {"pairs": "Pairs of texts", "lists": "Two lists", "trait": "A trait"}
MOST_PAIRS = 500
FIRST_ROWS = 4
"""Empty rows of a new table."""
LEAST_WORDS = 4
"""Words of a list, as the verb needs them."""
_WAIT = 400
"""Milliseconds after the last key until what was typed is checked."""


def make_panel(workspace: Workspace, model: str, *, opened: bool = True) -> html.Section | html.Details | None:
    """Return the form, folded unless `opened`; None where the server runs nothing."""
    queue = current().runs
    if queue is None or queue.problem:
        return None
    models = model_choices(queue.catalogue.suggestions("model"))
    running = [run for run in queue.active() if run.verb == "direction"]
    parts: list[Part] = [
        *(run_button(run.verb, run.options, id=run.id, text=f"Make {run.id}", opens=True) for run in running),
        html.Div(
            [
                select("make-model", "Model", models, model, searchable=True),
                dmc.SegmentedControl(
                    id="make-way", data=[{"value": k, "label": v} for k, v in WAYS.items()], value="pairs", size="xs"
                ),
            ],
            className="wb-controls",
        ),
        html.Div(_pairs(), id="make-pairs"),
        html.Div(_side_by_side(_text("make-towards", "Towards: a word or text a line", "good\ngreat\nfine\nnice"),
                               _text("make-away", "Away: as many", "bad\nawful\npoor\nsad")),
                 id="make-lists", hidden=True),
        html.Div(_side_by_side(_line("make-trait", "A writer who is", "cheerful"),
                               _line("make-instead", "instead of", "sad")),
                 id="make-opposites", hidden=True),
        html.Div(_line("make-name", "Name (optional)", ""), className="wb-fields"),
        html.Div(id="make-run", **attrs({"aria-live": "polite"})),
    ]  # fmt: skip
    note = "Half of the examples make it and choose layer and strength; the other half judges it."
    if opened:
        return panel("Make a direction", *parts, note=note, className="wb-make")
    return fold("Make another direction", html.P(note, className="wb-note"), *parts)


def _pairs() -> list[Part]:
    grid = dag.AgGrid(
        id="make-grid", className="wb-grid", columnSize="sizeToFit", rowData=_rows([]),
        columnDefs=[{"field": name, "headerName": title, "editable": True, "minWidth": 90, "flex": 1, "sortable": False}
                    for name, title in COLUMNS.items()],
        dashGridOptions={"rowHeight": 30, "headerHeight": 32, "singleClickEdit": True, "animateRows": False,
                         "stopEditingWhenCellsLoseFocus": True, "suppressFieldDotNotation": True},
        style={"height": "230px"},
    )  # fmt: skip
    load = dcc.Upload(
        "Choose a file", id="make-file", multiple=False, max_size=2_000_000, className="wb-act-quiet wb-act"
    )
    return [
        _text(
            "make-paste",
            "Paste pairs, one a line: towards | away, or prompt | towards | away. Tabs, .csv and .jsonl are read too.",
            "I thought the food was | great. | awful.",
            wait=0,  # a click right after pasting finds the text
        ),
        html.Div([_quiet("make-add", "Add them to the table"), load, _quiet("make-row", "Add a row"),
                  _quiet("make-clear", "Empty the table")], className="wb-controls wb-make-acts"),
        html.P("", id="make-read", className="wb-note", role="status"),
        grid,
    ]  # fmt: skip


def _side_by_side(*fields: Part) -> html.Div:
    return html.Div([*fields], className="wb-two wb-even")


def _quiet(id: str, text: str) -> html.Button:
    return html.Button(text, id=id, type="button", className="wb-act wb-act-quiet")


def _text(id: str, label: str, placeholder: str, *, wait: int = _WAIT) -> dmc.Textarea:
    return dmc.Textarea(id=id, label=label, placeholder=placeholder, autosize=True, minRows=3, maxRows=8, size="xs",
                        value="", debounce=wait or False, className="wb-mono")  # fmt: skip


def _line(id: str, label: str, placeholder: str) -> dmc.TextInput:
    return dmc.TextInput(id=id, label=label, placeholder=placeholder, value="", size="xs", debounce=_WAIT)


def read_pairs(text: str) -> list[Row]:
    """Return the pairs of a text, one a line: objects of JSON, or two or three sides between tabs, `|` or commas.

    Raises `ConfigError` with the number of the line that is none, and for more than `MOST_PAIRS`.
    """
    if text.lstrip().startswith("["):
        try:
            lines = [json.dumps(entry) for entry in json.loads(text)]
        except ValueError as error:
            raise ConfigError(f"this is not a JSON list ({error}); check its quotes and commas") from None
    else:
        lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > MOST_PAIRS:
        raise ConfigError(
            f"{len(lines):,} pairs; the table takes {MOST_PAIRS}. Put the file into the workspace and name it on Runs"
        )
    rows = [_row(line, number) for number, line in enumerate(lines, 1)]
    head = [{name.strip().lower() for name in row.values()} - {""} for row in rows[:1]]
    return rows[1:] if head and head[0] <= {*COLUMNS} else rows  # a table may have titles


def _row(line: str, number: int) -> Row:
    sides: list[str] = []
    try:
        if line.lstrip().startswith("{"):
            entry = json.loads(line)
            sides = [entry.get("prompt", ""), entry["towards"], entry["away"]]
        else:
            mark = next((mark for mark in "\t|" if mark in line), ",")
            [read] = csv.reader(io.StringIO(line), delimiter=mark, skipinitialspace=True)
            sides = [*([""] if len(read) == 2 else []), *(side.strip() for side in read)]
    except (ValueError, KeyError, csv.Error):
        pass
    if len(sides) != len(COLUMNS) or not all(isinstance(side, str) for side in sides):
        raise ConfigError(f"line {number} is no pair: {line[:60]!r}. Write towards | away, or prompt | towards | away")
    return dict(zip(COLUMNS, sides, strict=True))


def pairs_option(rows: Sequence[Row]) -> str:
    """Return rows as the JSON list that the verb takes, with a space between a prompt and a word that follows it.

    Rows without any text are left out. Raises `ConfigError` for what makes no direction.
    """
    filled = [{name: row.get(name) or "" for name in COLUMNS} for row in rows]
    filled = [row for row in filled if "".join(row.values()).strip()]
    if len(filled) < LEAST:
        raise ConfigError(f"{len(filled)} of at least {LEAST} pairs: half of them make the direction, half judge it")
    if len(filled) > MOST_PAIRS:
        raise ConfigError(f"{len(filled)} pairs; the table takes {MOST_PAIRS}")
    pairs = [
        {name: _joined(row["prompt"], text) if name != "prompt" else text for name, text in row.items() if text}
        for row in filled
    ]
    option = json.dumps(pairs, ensure_ascii=False)
    option = option if option.isprintable() else json.dumps(pairs)
    for number, row in enumerate(filled, 1):
        if not (row["towards"].strip() and row["away"].strip()):
            raise ConfigError(f"row {number} has one side only; write towards and away")
    read_examples(option)
    return option


def _joined(prompt: str, text: str) -> str:
    apart = prompt and not prompt[-1].isspace() and re.match(r"[A-Za-z0-9]", text)
    return f" {text}" if apart else text


def options_of_form(way: str, rows: Sequence[Row], towards: str, away: str, trait: str, instead: str) -> dict[str, Any]:
    """Return the options of the verb for what was entered. Raises `ConfigError` with what is missing."""
    if way == "trait":
        if not (trait.strip() and instead.strip()):
            raise ConfigError("Write a trait and its opposite: the model then writes the examples itself")
        return {"trait": trait.strip(), "instead": instead.strip()}
    if way == "pairs":
        return {"pairs": pairs_option(rows)}
    sides = [[line.strip() for line in text.splitlines() if line.strip()] for text in (towards, away)]
    if all(" " not in line for side in sides for line in side):
        if min(map(len, sides)) < LEAST_WORDS:
            raise ConfigError(f"{len(sides[0])} and {len(sides[1])} words: write at least {LEAST_WORDS} on both sides")
        return {"towards": sides[0], "away": sides[1]}
    if len(sides[0]) != len(sides[1]):
        raise ConfigError(f"{len(sides[0])} and {len(sides[1])} texts: they are paired line by line; write as many")
    return {"pairs": pairs_option([{"towards": one, "away": other} for one, other in zip(*sides, strict=True)])}


def named(workspace: Workspace, options: dict[str, Any], name: str) -> dict[str, Any]:
    """Return options with a name that no direction has. Raises `ConfigError` for a typed one that is taken."""
    known = {*workspace.names("direction")}
    if name.strip():
        if name.strip() in known:
            raise ConfigError(f"there is a direction {name.strip()!r} already; type another name")
        return options | {"name": name.strip()}
    if "pairs" in options:
        first: Row = json.loads(options["pairs"])[0]
        sides = [first["towards"], first["away"]]
    elif "trait" in options:
        sides = [options["trait"], options["instead"]]
    else:
        sides = [options["towards"][0], options["away"][0]]
    words = [re.sub(r"[^a-z0-9]+", "-", side.lower()).strip("-")[:20].strip("-") for side in sides]
    base = "-or-".join(filter(None, words)) or "direction"
    numbered = (base if n == 1 else f"{base}-{n}" for n in range(1, len(known) + 2))
    return options | {"name": next(free for free in numbered if free not in known)}


def register_making(app: Dash) -> None:
    """Add the callbacks: pairs into the table, the fields of a way, and the button once everything is there."""

    @app.callback(
        Output("make-grid", "rowData"),
        Output("make-read", "children"),
        Output("make-paste", "value"),
        Output("make-file", "contents"),
        Input("make-add", "n_clicks"),
        Input("make-row", "n_clicks"),
        Input("make-clear", "n_clicks"),
        Input("make-file", "contents"),
        State("make-paste", "value"),
        State("make-grid", "rowData"),
        prevent_initial_call=True,
    )
    def fill(_: int, __: int, ___: int, file: str | None, pasted: str, rows: list[Row]) -> tuple[Any, ...]:
        if ctx.triggered_id == "make-clear":
            return _rows([]), "", no_update, no_update
        if ctx.triggered_id == "make-row":
            return [*rows, _rows([])[0]], "", no_update, no_update
        if ctx.triggered_id == "make-file" and not file:
            return (no_update,) * 4
        try:
            new = read_pairs(_file_text(file) if ctx.triggered_id == "make-file" and file else pasted or "")
        except WorkbenchError as error:
            return no_update, explain(error), no_update, None
        if not new:
            return no_update, "Nothing to add: paste pairs first, one a line.", no_update, None
        kept = [row for row in rows if any(row.values())]
        text = no_update if ctx.triggered_id == "make-file" else ""
        return _rows([*kept, *new]), f"{len(new)} pairs added.", text, None

    app.clientside_callback(
        "(way) => [way !== 'pairs', way !== 'lists', way !== 'trait']",
        Output("make-pairs", "hidden"),
        Output("make-lists", "hidden"),
        Output("make-opposites", "hidden"),
        Input("make-way", "value"),
    )

    @app.callback(
        Output("make-run", "children"),
        Input("make-way", "value"),
        Input("make-grid", "rowData"),
        Input("make-grid", "cellValueChanged"),
        Input("make-towards", "value"),
        Input("make-away", "value"),
        Input("make-trait", "value"),
        Input("make-instead", "value"),
        Input("make-name", "value"),
        Input("make-model", "value"),
    )
    def offer(way: str, rows: list[Row], _: Any, towards: str, away: str, trait: str, instead: str, name: str,
              model: str) -> Part:  # fmt: skip
        queue, workspace = current().runs, current().workspace
        assert queue is not None  # without one there is no form
        try:
            options = options_of_form(way, rows, towards, away, trait, instead)
            options = {"model": model} | named(workspace, options, name)
            queue.catalogue.command("direction", options)
        except WorkbenchError as error:
            return html.P(explain(error), className="wb-note", role="status")
        return _button(queue, options)


def _button(queue: RunQueue, options: dict[str, Any]) -> html.Div:
    return run_button("direction", options, id="make-direction", text=f"Make {options['name']}", opens=True)


def _file_text(contents: str) -> str:
    try:
        return base64.b64decode(contents.partition(",")[2]).decode("utf-8-sig")
    except ValueError:
        raise ConfigError("this file is not UTF-8 text; save it as .txt, .csv or .jsonl") from None


def _rows(rows: Sequence[Row]) -> list[Row]:
    """Return rows, with empty ones below where they are few."""
    return [*rows, *(dict.fromkeys(COLUMNS, "") for _ in range(FIRST_ROWS - len(rows)))]
