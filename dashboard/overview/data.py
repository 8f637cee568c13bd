"""The artefacts of a workspace as cards: a plain sentence and the numbers that are asked for first."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dashboard.components.evidence import number
from dashboard.components.pages import (
    artefact_key,
    circuit_href,
    sae_href,
)
from dashboard.data.workspace import models
from interp.artifacts import KINDS, Manifest
from interp.errors import CorruptError, as_typed, form_errors
from interp.workspace import Broken, Partial, Workspace
from saes.features.schema import NEURONS, set_of

MAX_CARDS = 60
"""Cards per kind; of more artefacts the newest are shown."""


@dataclass(frozen=True)
class Card:
    """One artefact on the overview."""

    kind: str
    name: str
    sentence: str
    facts: list[tuple[str, str]]
    parents: list[str]
    created: str
    seconds: float
    href: str | None = None


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
    """Return the cards by kind, newest first and layers of sets last, and unfinished and unreadable artefacts."""
    manifests = workspace.artifacts()
    cards: dict[str, list[Card]] = {kind: [] for kind in KINDS}
    described: set[str] = set()
    newest = sorted(manifests, key=lambda m: m.created, reverse=True)
    for manifest in sorted(newest, key=lambda m: bool(set_of(m))):  # layers of a set after other features
        if of := set_of(manifest):  # one card for the tables of all layers
            if of in described:
                continue
            described.add(of)
        if len(cards[manifest.kind]) < MAX_CARDS:
            cards[manifest.kind].append(card(workspace, manifest))
    return Overview(cards, workspace.partials(), workspace.broken(), models(workspace))


def card(workspace: Workspace, manifest: Manifest) -> Card:
    """Describe one artefact by a sentence and a few numbers; a number that its summary lacks is left out.

    Where the manifest has a value of another form, the sentence says that.
    """
    try:
        with form_errors("the manifest"):
            if KINDS[manifest.kind].defined_in:
                value = workspace.value(manifest)
                sentence, facts, href = value.headline(), value.facts(), value.href or None
            else:
                sentence, facts, href = _DESCRIBE[manifest.kind](manifest)
    except CorruptError as error:
        sentence, facts, href = as_typed(str(error)), [], None
    return Card(
        kind=manifest.kind,
        name=manifest.name,
        sentence=sentence,
        facts=[(name, str(value)) for name, value in facts if value],
        parents=sorted(manifest.parents),
        created=manifest.created,
        seconds=manifest.seconds,
        href=href,
    )


Described = tuple[str, list[tuple[str, str]], str | None]


def _features(m: Manifest) -> Described:
    s, dictionary = m.summary, str(m.config.get("dictionary", ""))
    n, dead = s.get("n_features") or 0, s.get("n_dead") or 0
    what = "neurons of the model" if dictionary.startswith(NEURONS) else "features of a dictionary"
    if of := set_of(m):
        what = f"latents in layer {dictionary.rpartition(':')[2]} of the set {of}, of which every layer has a table,"
    sentence = f"{n - dead:,} of {n:,} {what} are active at least once in {_count(s.get('n_tokens'))} tokens."
    facts = [("dead", _count(dead)), ("dense", _count(s.get("n_dense"))), ("dictionary", dictionary)]
    return sentence, facts, f"/feature/{m.name}"


def _sae_comparison(m: Manifest) -> Described:
    names = [str(name) for name in m.config.get("saes") or []]
    sentence = f"{len(names)} dictionaries compared at the same sparsity, with baselines that are not trained."
    return sentence, _singles(m), sae_href(names[0]) if names else None


def _singles(m: Manifest) -> list[tuple[str, str]]:
    """Return the first six single numbers of the summary."""
    numbers = [(k, v) for k, v in m.summary.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    return [
        (_NAMES.get(k, k.replace("_", " ")), _count(v) if isinstance(v, int) else _number(v)) for k, v in numbers[:6]
    ]


_NAMES = {"fvu": "FVU", "l0": "L0", "n_tokens": "tokens", "dead_fraction": "dead", "dense_fraction": "dense"}


def _circuit(m: Manifest) -> Described:
    s, c = m.summary, m.config
    kind = str(c.get("kind") or s.get("kind") or "")
    model, task = c.get("model", "a model"), c.get("task")
    sentence = f"The induction circuit of {model}" if kind == "induction" else f"A circuit of {model}"
    if task and kind != "induction":
        sentence += f" for {task}"
    if s.get("found") is False:
        sentence += ": the search found none"
    facts = [("nodes", _count(s.get("n_nodes"))), ("edges", _count(s.get("n_edges")))]
    facts += [("faithfulness", _number(s.get("faithfulness"))), ("method", str(c.get("method") or ""))]
    heads = s.get("induction")
    if isinstance(heads, list):
        facts.append(("induction heads", ", ".join(map(str, heads[:6])) or "none"))
    return sentence + ".", facts, circuit_href(artefact_key(m))


_DESCRIBE: dict[str, Callable[[Manifest], Described]] = {
    "features": _features,
    "sae_comparison": _sae_comparison,
    "induction_circuit": _circuit,
    "edge_circuit": _circuit,
    "feature_circuit": _circuit,
}


def _count(value: Any) -> str:
    """`158750` -> `158,750`; `1114112` -> `1.1 million`."""
    if not isinstance(value, int | float):
        return ""
    return f"{value / 1e6:.1f} million" if value >= 1e6 else f"{value:,.0f}"


def _number(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else ""


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else ""


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return str(len(value))
    return "" if value is None else str(value)
