"""*Notes*: starred things, lists, texts and recipes of the workspace, each a link to what it names.

    GET  /api/notes?key=features/demo%2312   what is noted on one thing
    GET  /api/notes/export                   everything, as a JSON file
    POST /api/notes/{set,recipe,delete}      write one note or recipe; delete a list or recipe

The controls are drawn in the browser (assets/notes.mjs) wherever a page puts `note_controls` (`components.frame`). A
failure of the notes is shown there and leaves the rest of the dashboard as it is.
"""

from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import quote

import flask
from dash import Dash, dcc, html

from dashboard.answers import finite_json
from dashboard.components.frame import Part, attempt, attrs, note_controls, page, panel, quiet_link
from dashboard.components.pages import (
    Page,
    artefact_href,
    feature_href,
    heads_href,
    prompt_href,
    register_parts,
)
from dashboard.data import features
from dashboard.data.workspace import notes
from dashboard.figures.theme import visible
from dashboard.requests import RequestFields, answered
from dashboard.sources import PageSources, current
from interp.artifacts import KINDS
from interp.errors import UnknownNameError, WorkbenchError
from interp.interventions.intervention import Latent
from interp.interventions.recipe import Recipe
from interp.notes import FILE, Key, Names, Note, Notes, Text, Title, split_key
from interp.workspace import Workspace

Answer = dict[str, Any]


def thing_href(workspace: Workspace, key: str) -> str | None:
    """Return the address of the thing that a key names; None if no page shows it."""
    folder, name, part = split_key(key)
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
    server.add_url_rule("/api/notes/<act>", "notes_act", _act, methods=["POST"])
    register_parts(app, "notes", lambda _, __: attempt(_parts))


def _get() -> flask.Response:
    return _answer(_state(notes(), notes().get(flask.request.args.get("key", ""))))


def _export() -> flask.Response:
    answer = _answer(notes().export())
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
) -> Answer:
    return _state(notes, notes.set(key, title=title, note=note, starred=starred, tags=tags))


def _save_recipe(request: RequestFields, notes: Notes, *, recipe: Recipe) -> Answer:
    notes.save_recipe(recipe)
    return {"saved": recipe.name}


def _delete(request: RequestFields, notes: Notes, *, kind: Literal["list", "recipe"], name: str) -> Answer:
    {"list": notes.delete_list, "recipe": notes.delete_recipe}[kind](name)
    return {"deleted": name}


_ACTS: dict[str, Callable[..., Answer]] = {"set": _set, "recipe": _save_recipe, "delete": _delete}


def _state(notes: Notes, note: Note) -> Answer:
    fields = {"key": note.key, "title": note.title, "note": note.note, "starred": note.starred, "tags": note.tags}
    return {**fields, "lists": [*notes.lists()]}


def _answer(answer: Answer) -> flask.Response:
    return flask.Response(finite_json(answer), mimetype="application/json", headers={"Cache-Control": "no-store"})


# The page


def layout(context: PageSources, **_: object) -> html.Div:
    """`/notes`: everything noted in this workspace."""
    return page(
        "Notes",
        dcc.Store(id="notes-state", data=0),
        html.Div(id="notes-parts", **attrs({"aria-live": "polite"})),
        controls=html.A("Export", href="/api/notes/export", className="wb-link", download=""),
        lead="Stars, names, texts, lists and recipes; the key s stars a page.",
    )


def _parts() -> html.Div:
    store = notes()
    workspace, all_notes = current().workspace, store.all()
    labels = _labels(workspace, all_notes)
    by_key = {note.key: note for note in all_notes}

    def rows(keys: list[str]) -> html.Ol:
        return html.Ol([_row(workspace, by_key[key], labels) for key in keys], className="wb-notes")

    starred = [note.key for note in all_notes if note.starred]
    written = [note.key for note in all_notes if (note.note or note.title) and not note.starred]
    none = html.P("None yet: the star next to the title of a page adds the thing on it.", className="wb-none")
    lists = [panel(name, rows(keys), actions=[_delete_button("list", name)]) for name, keys in store.lists().items()]
    return html.Div(
        [
            html.P(f"These notes are {FILE} of the workspace.", className="wb-note"),
            panel("Starred", rows(starred) if starred else none),
            *lists,
            *([panel("Named or with a text", rows(written))] if written else []),
            panel("Recipes", *_recipes(workspace, store)),
        ]
    )


def _labels(workspace: Workspace, all_notes: list[Note]) -> dict[str, str]:
    """Return the label of every noted feature that is still there."""
    wanted: dict[str, list[int]] = {}
    for note in all_notes:
        folder, name, part = split_key(note.key)
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
    folder, name, part = split_key(key)
    if folder == "features" and part:
        return key in labels
    try:
        return bool(workspace.find(f"{folder}/{name}", *KINDS))
    except WorkbenchError:
        return False


def _row(workspace: Workspace, note: Note, labels: dict[str, str]) -> html.Li:
    href, label = thing_href(workspace, note.key), labels.get(note.key, "")
    name = visible(note.title or label or note.key, 200)
    exists = _there(workspace, note.key, labels)
    detail = note.key if exists else f"{note.key}, no longer in the workspace"
    if note.title and label:
        detail += f" · {visible(label, 120)}"
    state = {"title": note.title, "note": note.note, "starred": note.starred, "tags": note.tags}
    return html.Li(
        [
            quiet_link(name, href) if href and exists else html.Span(name),
            html.Span(detail, className="wb-quiet"),
            note_controls(note.key, state=state),
        ],
        dir="auto",
    )


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
        dir="auto",
    )


def _delete_button(kind: str, name: str) -> html.Button:
    named = attrs({"data-note-delete": kind, "data-note-name": name, "aria-label": f"Delete the {kind} {name}"})
    return html.Button("Delete", type="button", className="wb-link", **named)


PAGE = Page(
    title="Notes",
    path="/notes",
    group="work",
    order=95,
    about="Stars, names, lists and recipes",
    layout=layout,
    register=register,
    shows="Stars, names, texts, lists and recipes of the workspace.",
    command="workbench demo --no-serve",
)
