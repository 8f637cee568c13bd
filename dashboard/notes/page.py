"""*Notes*: starred things, lists, texts, searches, recipes and chats of the workspace, each a link to what it names.

    GET  /api/notes?key=features/demo%2312      what is noted on one thing
    GET  /api/notes/export                      everything, as a JSON file
    POST /api/notes/{set,search,recipe,list}    write one note, saved search, recipe or list
    POST /api/notes/move                        move one line of a list up or down
    POST /api/notes/{delete,restore,import}     delete a value, restore an earlier one, merge an export

The controls are drawn in the browser (assets/notes.mjs) wherever a page puts `note_controls` or `save_search_control`
(`components.frame`). A failure of the notes is shown there and leaves the rest of the dashboard as it is.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import quote

import dash_mantine_components as dmc
import flask
from annotated_types import Ge, Le, Lt
from dash import Dash, dcc, html

from dashboard.answers import finite_json
from dashboard.components.frame import Part, attempt, attrs, note_controls, page, panel, quiet_link
from dashboard.components.pages import (
    Page,
    artefact_href,
    directions_href,
    feature_href,
    heads_href,
    prompt_href,
    register_parts,
)
from dashboard.data import features
from dashboard.data.workspace import notes
from dashboard.figures.theme import visible
from dashboard.requests import RequestFields, answered, json_body
from dashboard.sources import PageSources, current
from interp.artifacts import KINDS
from interp.entries import Earlier
from interp.errors import UnknownNameError, WorkbenchError
from interp.interventions.intervention import Latent
from interp.interventions.recipe import Recipe
from interp.models.short_name import short_name
from interp.notes import MAX_LIST, Address, Key, Keys, Name, Names, Note, Notes, Text, Title, check_key
from interp.workspace import Workspace

Answer = dict[str, Any]
SHOWN_EARLIER = 100


def thing_href(workspace: Workspace, key: str) -> str | None:
    """Return the address of the thing that a key names; None if no page shows it."""
    folder, name, part = check_key(key)
    if folder == "features" and part.isdigit():
        return feature_href(name, int(part))
    if folder == "heads":
        return heads_href(name, head=part)
    href = artefact_href(workspace, f"{folder}/{name}")
    return None if href == "/" else href


# Routes


def register(app: Dash) -> None:
    """Add the routes, and the callback that draws the parts of the page."""
    server = app.server
    server.add_url_rule("/api/notes", "notes_get", _get, methods=["GET"])
    server.add_url_rule("/api/notes/export", "notes_export", _export, methods=["GET"])
    server.add_url_rule("/api/notes/import", "notes_import", _import, methods=["POST"])
    server.add_url_rule("/api/notes/<act>", "notes_act", _act, methods=["POST"])
    register_parts(app, "notes", lambda _, __: attempt(_parts))


def _get() -> flask.Response:
    return _answer(_state(notes(), notes().get(flask.request.args.get("key", ""))))


def _export() -> flask.Response:
    answer = _answer(notes().entries.export())
    name = f"{current().workspace.name}-notes.json"
    answer.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return answer


def _act(act: str) -> flask.Response:
    if act not in _ACTS:
        raise UnknownNameError("act on notes", act, _ACTS)
    return _answer(answered(_ACTS[act], notes()))


def _set(
    request: RequestFields,
    notes: Notes,
    *,
    key: Key,
    title: Title | None = None,
    note: Text | None = None,
    starred: bool | None = None,
    tags: Names | None = None,
    was: dict[str, str] | None = None,
) -> Answer:
    return _state(notes, notes.set(key, title=title, note=note, starred=starred, tags=tags, was=was))


def _save_search(request: RequestFields, notes: Notes, *, name: Name, address: Address) -> Answer:
    notes.save_search(name, address)
    return {"saved": name}


def _save_recipe(request: RequestFields, notes: Notes, *, recipe: Recipe) -> Answer:
    notes.save_recipe(recipe)
    return {"saved": recipe.name}


def _save_list(request: RequestFields, notes: Notes, *, name: Name, keys: Keys) -> Answer:
    notes.set_list(name, keys)
    return {"saved": name}


def _move(
    request: RequestFields, notes: Notes, *, name: Name, key: Key, by: Annotated[int, Ge(-MAX_LIST), Le(MAX_LIST)]
) -> Answer:
    return {"keys": notes.move(name, key, by)}


def _delete(request: RequestFields, notes: Notes, *, kind: str, key: str) -> Answer:
    notes.delete(kind, key)
    versions = notes.entries.earlier(kind, key)
    return {"deleted": key, "restore": versions[0].id if versions else None}


def _restore(request: RequestFields, notes: Notes, *, id: Annotated[int, Ge(0), Lt(2**63)]) -> Answer:
    notes.entries.restore(id)
    return {"restored": id}


_ACTS: dict[str, Callable[..., Answer]] = {
    "set": _set,
    "search": _save_search,
    "recipe": _save_recipe,
    "list": _save_list,
    "move": _move,
    "delete": _delete,
    "restore": _restore,
}


def _import() -> flask.Response:
    return _answer(asdict(notes().entries.merge(json_body())))


def _state(notes: Notes, note: Note) -> dict[str, object]:
    fields = {"key": note.key, "title": note.title, "note": note.note, "starred": note.starred, "tags": note.tags}
    return {**fields, "lists": [*notes.lists()], "features": _feature_names(current().workspace)}


def _feature_names(workspace: Workspace) -> list[str]:
    """Return the features that a text may link to, as `demo:12`; `#12` is one of the first, where it has no own."""
    names = workspace.names("features")
    return sorted(names, key=lambda name: name != features.choose(workspace, None)) if names else []


def _answer(answer: dict[str, Any]) -> flask.Response:
    return flask.Response(finite_json(answer), mimetype="application/json", headers={"Cache-Control": "no-store"})


# The page


def layout(context: PageSources, **_: object) -> html.Div:
    """`/notes`: everything noted in this workspace."""
    controls = [
        dmc.TextInput(
            id="notes-filter", placeholder="filter   f", size="xs", w=200, className="wb-search",
            persistence=True, persistence_type="session", **attrs({"aria-label": "Filter notes"}),
        ),
        html.A("Export", href="/api/notes/export", className="wb-link", download=""),
        html.Div(id="notes-import"),
    ]  # fmt: skip
    return page(
        "Notes",
        dcc.Store(id="notes-state", data=0),
        html.Div(id="notes-parts", **attrs({"aria-live": "polite"})),
        controls=controls,
        lead="Stars, names, texts, lists, searches, recipes and conversations; the key s stars a page.",
    )


def _parts() -> html.Div:
    store = notes()
    workspace, all_notes = current().workspace, store.all()
    labels = _labels(workspace, all_notes)
    by_key = {note.key: note for note in all_notes}

    def rows(keys: list[str], of: str = "") -> html.Ol:
        lines = [_row(workspace, by_key.get(key, Note(key=key)), labels, _move_buttons(of, key) if of else [])
                 for key in keys]  # fmt: skip
        return html.Ol(lines, className="wb-notes")

    where = "in the workspace" if store.in_workspace else (
        f"in {store.path}, since the workspace is read-only; export them to pass them on"
    )  # fmt: skip
    starred = [note.key for note in all_notes if note.starred]
    written = [note.key for note in all_notes if (note.note or note.title) and not note.starred]
    none = html.P("None yet: the star next to the title of a page adds the thing on it.", className="wb-none")
    lists = [
        panel(name, rows(keys, name), actions=[_delete_button("list", name)]) for name, keys in store.lists().items()
    ]
    return html.Div(
        [
            html.P(f"These notes are stored {where}.", className="wb-note"),
            panel("Starred", rows(starred) if starred else none),
            *lists,
            *([panel("Named or with a text", rows(written))] if written else []),
            panel("Saved searches", _searches(store)),
            panel("Recipes", *_recipes(workspace, store)),
            panel("Conversations", _conversations(workspace, store)),
            _earlier(store.entries.earlier()),
        ]
    )


def _labels(workspace: Workspace, all_notes: list[Note]) -> dict[str, str]:
    """Return the label of every noted feature that is still there."""
    wanted: dict[str, list[int]] = {}
    for note in all_notes:
        folder, name, part = check_key(note.key)
        if folder == "features" and part.isdigit() and len(part) < 10:
            wanted.setdefault(name, []).append(int(part))
    labels = {}
    for name, numbers in wanted.items():
        for start in range(0, len(numbers), features.MAX_ROWS):
            try:
                chunk = features.labels(workspace, name, numbers[start : start + features.MAX_ROWS])
            except WorkbenchError:
                break
            labels |= {f"features/{name}#{number}": label or "no label" for number, label in chunk.items()}
    return labels


def _there(workspace: Workspace, key: str, labels: dict[str, str]) -> bool:
    folder, name, part = check_key(key)
    if folder == "features" and part:
        return key in labels
    try:
        return bool(workspace.find(f"{folder}/{name}", *KINDS))
    except WorkbenchError:
        return False


def _row(workspace: Workspace, note: Note, labels: dict[str, str], buttons: list[html.Button]) -> html.Li:
    href, label = thing_href(workspace, note.key), labels.get(note.key, "")
    name = visible(note.title or label or note.key, 200)
    exists = _there(workspace, note.key, labels)
    detail = note.key if exists else f"{note.key}, no longer in the workspace"
    if note.title and label:
        detail += f" · {visible(label, 120)}"
    state = {"title": note.title, "note": note.note, "starred": note.starred, "tags": note.tags,
             "features": _feature_names(workspace) if note.note else []}  # fmt: skip
    return html.Li(
        [
            quiet_link(name, href) if href and exists else html.Span(name),
            html.Span(detail, className="wb-quiet"),
            *buttons,
            note_controls(note.key, state=state),
        ],
        **attrs({"data-text": f"{name} {detail} {note.note} {' '.join(note.tags)}".lower()}),
        dir="auto",
    )


def _searches(notes: Notes) -> html.Ol | html.P:
    rows = [
        html.Li(
            [quiet_link(visible(name, 80), address), html.Span(visible(address, 160), className="wb-quiet"),
             _delete_button("search", name)],
            **attrs({"data-text": f"{name} {address}".lower()}), dir="auto",
        )
        for name, address in notes.searches().items()
    ]  # fmt: skip
    none = html.P("None yet: “Save this search” on the pages Features and Search adds one.", className="wb-none")
    return html.Ol(rows, className="wb-notes") if rows else none


def _recipes(workspace: Workspace, notes: Notes) -> list[Part]:
    rows = [_recipe(workspace, recipe) for recipe in notes.recipes().values()]
    if not rows:
        return [html.P("None yet: “Recipe” next to the title of a feature adds one.", className="wb-none")]
    code = "from saes import load_recipe\nhooks = load_recipe(WORKSPACE, NAME).hooks(model)"
    return [html.Ol(rows, className="wb-notes"), html.Pre(code, className="wb-command", tabIndex=0)]


def _recipe(workspace: Workspace, recipe: Recipe) -> html.Li:
    parts: list[Part] = []
    for step in recipe.steps:
        amount = "" if step.action in ("ablate", "replace") else f" {step.amount:+.3g}"
        parts.append(html.Span(f"{step.action}{amount}"))
        if isinstance(step.target, Latent):
            dictionary, number = step.target.dictionary, f"{step.target.dictionary}#{step.target.index}"
            key = number if dictionary.startswith("features/") else dictionary
            parts.append(quiet_link(number, thing_href(workspace, key) or "/"))
        else:
            parts.append(html.Span(getattr(step.target, "name", "") or getattr(step.target, "origin", "")))
    if recipe.prompt:
        parts.append(
            quiet_link("prompt", prompt_href(text=recipe.prompt, model=recipe.model), title=visible(recipe.prompt, 200))
        )
    return html.Li(
        [html.Strong(visible(recipe.name, 80)), *parts, _delete_button("recipe", recipe.name)],
        **attrs({"data-text": f"{recipe.name} {recipe.prompt}".lower()}),
        dir="auto",
    )


def _conversations(workspace: Workspace, notes: Notes) -> html.Ol | html.P:
    directions = workspace.names("direction")
    rows = [
        html.Li(
            [quiet_link(
                visible(name, 80),
                directions_href(next((direction for direction in talk.names if direction in directions), ""), chat=name)
             ),
             html.Span(visible(", ".join(talk.names), 80)),
             html.Span(
                 f"{visible(short_name(talk.recipe.model), 60)}, messages: {len(talk.turns)}", className="wb-quiet"
             ),
             _delete_button("chat", name)],
            **attrs({"data-text": f"{name} {' '.join(talk.names)}".lower()}), dir="auto",
        )
        for name, talk in notes.conversations().items()
    ]  # fmt: skip
    none = html.P("None yet: “Keep” under the chats on the page Directions adds one.", className="wb-none")
    return html.Ol(rows, className="wb-notes") if rows else none


def _earlier(versions: list[Earlier]) -> html.Details | None:
    if not versions:
        return None
    rows = [html.Li(_earlier_parts(version)) for version in versions[:SHOWN_EARLIER]]
    more = f", the last {SHOWN_EARLIER} of them shown" if len(versions) > SHOWN_EARLIER else ""
    return html.Details(
        [html.Summary(f"Earlier and deleted values: {len(versions):,}{more}"), html.Ol(rows, className="wb-notes")],
        className="wb-panel",
    )


def _earlier_parts(version: Earlier) -> list[Part]:
    named = attrs({"data-note-restore": str(version.id), "aria-label": f"Restore the {version.kind} of {version.key}"})
    when = f"{_REASONS.get(version.reason, 'replaced')}; written {version.edited[:16].replace('T', ' ')}"
    return [
        html.Span(f"{version.kind} of {visible(version.key, 100)}"),
        html.Span(visible(_said(version.value), 300), dir="auto"),
        html.Span(when, className="wb-quiet"),
        html.Button("Restore", type="button", className="wb-link", **named),
    ]


_REASONS = {
    "edit": "replaced",
    "order": "replaced",
    "restore": "replaced by an earlier one",
    "delete": "deleted",
    "import": "the older of two at an import",
}


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _delete_button(kind: str, key: str) -> html.Button:
    named = attrs({"data-note-delete": kind, "data-note-key": key, "aria-label": f"Delete the {kind} {key}"})
    return html.Button("Delete", type="button", className="wb-link", **named)


def _move_buttons(name: str, key: str) -> list[html.Button]:
    """Return the buttons that move a line of a list up and down."""
    return [
        html.Button(
            arrow, type="button", className="wb-link wb-note-move", title=f"Move {where}",
            **attrs({"data-note-move": str(by), "data-note-list": name, "data-note-key": key,
                     "aria-label": f"Move {key} {where} in {name}"}),
        )
        for arrow, by, where in (("↑", -1, "up"), ("↓", 1, "down"))
    ]  # fmt: skip


PAGE = Page(
    title="Notes",
    path="/notes",
    group="work",
    order=95,
    about="Stars, names, lists and saved searches",
    layout=layout,
    register=register,
    shows="Stars, names, texts, lists, saved searches, recipes and conversations of the workspace.",
    command="workbench demo --no-serve",
)
