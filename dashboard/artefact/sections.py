"""Panels of any artefact, from its class: what was found, numbers, settings, documents, tables, origin and files."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from dash import html

from dashboard.answers import MOST_ROWS, is_object, is_sequence
from dashboard.components.evidence import as_table, claim_fold, evidence_table, flattened, number, records_table, words
from dashboard.components.frame import attempt, fold, panel, quiet_link, stat, verdict
from dashboard.components.pages import artefact_href
from dashboard.figures.theme import visible
from interp.artifacts import Artefact, Manifest, Table, as_json
from interp.artifacts.artefact import layout_of
from interp.artifacts.tables import schema_of
from interp.cache import size_text
from interp.claims import Claim, OwnText
from interp.errors import program
from interp.workspace import Workspace

CELLS = {"bool", "int8", "int16", "int32", "int64", "float", "double", "string"}
"""Types of the columns that fit in one cell."""
MAX_SHOWN = 20_000
"""Most characters of a text."""
PLACES = ("document", "table")
"""Places of the fields that have a panel of their own."""


def summary(value: Artefact) -> html.Div:
    """Return the headline of an artefact, and the numbers that are asked for first."""
    facts = html.Div(
        [stat(name, visible(str(fact), 160)) for name, fact in value.facts() if fact], className="wb-stats"
    )
    if isinstance(value, Claim):  # its facts are sentences
        said = ([html.Strong(name), ": ", html.Span(visible(fact, 600), dir="auto")] for name, fact in value.facts())
        facts = html.Ul([html.Li(part) for part in said], className="wb-said")
    lines = [html.Li(visible(line, 600), dir="auto") for line in value.details()]
    judged = verdict(value.headline(), *([html.Ul(lines, className="wb-said")] if lines else []))
    return html.Div([judged, facts if facts.children else None, claim_fold(value)])


def panels(workspace: Workspace, value: Artefact) -> list[html.Section | html.Div]:
    """Return a panel for each part of an artefact; a part that cannot be read says why."""
    manifest = value.about
    pairs: list[dict[str, Callable[[], Any]]] = [
        {"Results": lambda: evidence_table(manifest.summary), "Settings": lambda: evidence_table(manifest.config)},
        {"Made from": lambda: _origin(workspace, value), "Files": lambda: _files(manifest)},
    ]
    layout = layout_of(type(value))
    documents, tables = ([name for name, part in layout.items() if part.place == place] for place in PLACES)
    found = attempt(lambda: _findings(value))
    return [
        *([] if found is None else [panel("Findings", found)]),
        *(
            html.Div([panel(title, attempt(body)) for title, body in pair.items()], className="wb-two wb-even")
            for pair in pairs
        ),
        *(panel(f"Document {name}", attempt(partial(_document, value, name))) for name in documents),
        *(panel(f"Table {name}", attempt(partial(_table, value, name))) for name in tables),
    ]


def _findings(value: Artefact) -> html.Div | None:
    """Return what was found beyond its null, each value next to it; None where nothing was."""
    rows = [
        {"finding": visible(claim.sentence, 400), "value": claim.value, "null": claim.null, "measured": claim.about}
        for claim in value.findings()
    ]
    return records_table(rows, limit=MOST_ROWS) if rows else None


def _document(value: Artefact, name: str) -> html.Div | html.P | html.Table:
    """Return a document as a table of its parts; of a single value its numbers, and its lists folded below them."""
    document = getattr(value, name)
    if document is None or isinstance(document, str):  # the reason for which it is not there
        return html.P(visible(document or "This artefact lacks it.", 600), className="wb-none", dir="auto")
    if isinstance(document, OwnText):
        return html.Div(_text(document.name, document.text or f"too long to be kept, SHA-256 {document.sha256}"))
    if isinstance(value, Claim) and is_object(document):
        return html.Div([_text(str(name), str(text)) for name, text in document.items()])
    if rows := _parts(document):
        return records_table(rows, limit=MOST_ROWS)
    if not is_dataclass(document):
        return html.P(number(document), dir="auto")
    lists = {field.name: parts for field in fields(document) if (parts := _parts(getattr(document, field.name)))}
    folded = [as_table(parts[:MOST_ROWS], words(name)) for name, parts in lists.items()]
    return html.Div([evidence_table(as_json(document), skip=tuple(lists)), *folded])


def _text(name: str, text: str) -> html.Details:
    """Return a text as it is written, folded under its name."""
    shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}\n... {len(text) - MAX_SHOWN:,} characters more"
    return fold(
        f"{visible(name, 80)}, {len(text):,} characters",
        html.Pre(shown, className="wb-command", tabIndex=0, dir="auto"),
    )


def _parts(value: object) -> list[dict[str, Any]]:
    """Return a row for each part of a list or dictionary of parts; none for any other value."""
    if is_object(value):
        return [{"name": str(key), **_row(part)} for key, part in value.items()]
    parts = list(value) if is_sequence(value) else []
    return [_row(part) for part in parts if is_dataclass(part)]


def _row(part: object) -> dict[str, Any]:
    return flattened(as_json(part)) if is_dataclass(part) or is_object(part) else {"value": number(part)}


def _table(value: Artefact, name: str) -> html.Div:
    """Return the first rows of a table, with the columns whose values fit in a cell."""
    table: Table[Any] | None = getattr(value, name)
    if table is None:
        return html.Div("This artefact lacks it.", className="wb-none")
    columns = schema_of(table.row)
    plain = [column.name for column in columns if str(column.type) in CELLS]
    others = [column.name for column in columns if column.name not in plain]
    quoted = ", ".join(f'"{column}"' for column in plain)
    rows = table.query(f"select {quoted} from t limit {MOST_ROWS}").to_pylist() if plain else []
    n = len(table)
    size = f"{n:,} rows" if n <= MOST_ROWS else f"The first {MOST_ROWS} of {n:,} rows"
    note = f"{size}, without the lists {', '.join(others)}." if others else f"{size}."
    return html.Div([html.P(note, className="wb-note"), records_table(rows, limit=MOST_ROWS) if rows else None])


def _origin(workspace: Workspace, value: Artefact) -> html.Div:
    """Return the parents with their pages, the command, and what identifies the content."""
    manifest = value.about
    links = {parent: artefact_href(workspace, parent) for parent in sorted(manifest.parents)}
    parents = [
        html.Li(visible(parent, 160) if href == "/" else quiet_link(parent, href), dir="auto")
        for parent, href in links.items()
    ]
    made = {name: getattr(manifest, name) for name in ("created", "seconds", "seed", "code_version", "content_hash")}
    command = f"{program()} {value.made_by}"
    return html.Div(
        [
            html.Ul(parents) if parents else html.P("No other artefact.", className="wb-none"),
            html.P(["Made by ", html.Code(command), "; ", html.Code(f"{command} --help"), " lists its options."]),
            evidence_table(made),
            html.A("All of it as JSON", href=f"/api/artefact?key={quote(manifest.key)}", className="wb-link"),
        ]
    )


def _files(manifest: Manifest) -> html.Div | html.P:
    sizes = [{"file": path, "size": size_text(entry["bytes"])} for path, entry in sorted(manifest.files.items())]
    return records_table(sizes, limit=MOST_ROWS) if sizes else html.P("None but the manifest.", className="wb-none")
