"""The artefacts of a workspace as cards: a plain sentence and the main numbers."""

from dataclasses import dataclass, field

from dashboard.components.pages import kinds_by_page, page_of
from interp.artifacts import Manifest, address_of
from interp.errors import CorruptError, as_typed
from interp.workspace import Broken, Partial, Workspace
from saes.acts.run import models
from saes.features.schema import Features

MAX_CARDS = 60
"""Cards per kind, for the newest artefacts."""


@dataclass(frozen=True)
class Card:
    """One artefact on the overview."""

    kind: str
    name: str
    sentence: str
    facts: list[tuple[str, str]]
    parents: list[str]
    created: str
    href: str


@dataclass(frozen=True)
class Overview:
    """Everything in the workspace."""

    cards: dict[str, list[Card]]
    partials: list[Partial]
    broken: list[Broken]
    models: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (any(self.cards.values()) or self.partials or self.broken)


def overview(workspace: Workspace) -> Overview:
    """Return the cards by kind, and unfinished and unreadable artefacts.

    Kinds with a page of their own come first; of a kind the newest, and layers of sets last.
    """
    manifests = workspace.artifacts()
    cards: dict[str, list[Card]] = {kind: [] for kind in kinds_by_page()}
    described: set[str] = set()
    newest = sorted(manifests, key=lambda m: m.created, reverse=True)
    sets = {features.key: features.set_name for features in workspace.values(Features) if features.set_name}
    for manifest in sorted(newest, key=lambda m: m.key in sets):  # layers of a set after other features
        if of := sets.get(manifest.key):  # one card for the tables of all layers
            if of in described:
                continue
            described.add(of)
        if len(cards[manifest.kind]) < MAX_CARDS:
            cards[manifest.kind].append(card(workspace, manifest))
    return Overview(cards, workspace.partials(), workspace.broken(), models(workspace))


def card(workspace: Workspace, manifest: Manifest) -> Card:
    """Describe one artefact by its sentence and a few numbers; where it cannot be read, the sentence says why."""
    try:
        value = workspace.value(manifest)
        sentence, facts, href = value.headline(), value.facts(), page_of(value.href)
    except CorruptError as error:
        sentence, facts, href = as_typed(str(error)), (), page_of(address_of(manifest.key))
    return Card(
        kind=manifest.kind,
        name=manifest.name,
        sentence=sentence,
        facts=[(name, str(value)) for name, value in facts if value],
        parents=sorted(manifest.parents),
        created=manifest.created,
        href=href,
    )
