"""Everything that the palette leads to (Ctrl K, assets/palette.mjs): pages, artefacts and notes.

    GET /api/destinations   {"features": "demo", "destinations": [{"kind": "page", "text": "Atlas", ...}, ...]}

The browser filters them while a visitor types. Features it asks of the reads `features` and `search` of the API;
`features` here names the artefact that the pages open first.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

import flask

from dashboard.components.pages import Page, find_pages, page_of
from dashboard.data.features import choose
from dashboard.data.workspace import notes
from dashboard.figures.theme import visible
from dashboard.notes.page import thing_href
from dashboard.sources import current
from interp.artifacts import KINDS, address_of
from interp.errors import WorkbenchError
from interp.workspace import Workspace

MOST_ARTEFACTS, MOST_NOTES = 2000, 1000
"""Newest artefacts, and notes edited last, that are offered; older ones are on their pages."""
ADDRESSED = ("/artefact",)
"""Pages that show nothing without a name in their address."""


@dataclass(frozen=True)
class Destination:
    """Something that has an address."""

    kind: Literal["page", "artefact", "note"]
    text: str
    about: str
    href: str


def register(server: flask.Flask) -> None:
    """Add the route to the server."""
    server.add_url_rule("/api/destinations", "destinations", _answer, methods=["GET"])


def _answer() -> flask.Response:
    workspace = current().workspace
    features = ""
    with suppress(WorkbenchError):  # none yet, or damaged: their page says so
        features = choose(workspace, None)
    answer = flask.jsonify(
        {"features": features, "destinations": [asdict(destination) for destination in destinations(workspace)]}
    )
    answer.cache_control.no_store = True
    return answer


def destinations(workspace: Workspace) -> list[Destination]:
    """Return every destination: pages as the bar has them, the newest artefacts first, notes by their last edit."""
    places = [*map(_page, (page for page in find_pages() if page.path not in ADDRESSED))]
    for manifest in workspace.newest(*KINDS)[:MOST_ARTEFACTS]:
        title = KINDS[manifest.kind].load().title
        places.append(Destination("artefact", manifest.name, title, page_of(address_of(manifest.key))))
    with suppress(WorkbenchError):  # a damaged file of notes: the page Notes says what is wrong
        places += _notes(workspace)
    return places


def _page(page: Page) -> Destination:
    return Destination("page", page.title, page.about, page.path)


def _notes(workspace: Workspace) -> Iterator[Destination]:
    """Yield what was named, starred or written on, then lists and recipes."""
    store = notes()
    for note in store.all()[:MOST_NOTES]:
        about = visible(note.note.strip().partition("\n")[0], 80) or note.key
        yield Destination(
            "note", visible(note.title or note.key, 80), about, thing_href(workspace, note.key) or "/notes"
        )
    for what, names in (("list", store.lists()), ("recipe", store.recipes())):
        for name in names:
            yield Destination("note", visible(name, 80), what, "/notes")
