"""*Overview*: what is in this workspace and where it came from."""

from typing import Any

from dash import dcc, html

from dashboard.components.frame import notice, page, panel, quiet_link
from dashboard.components.pages import Page
from dashboard.context import Context
from dashboard.overview.data import Card, Overview, overview
from interp.artifacts import KINDS
from interp.workspace import Broken, Partial

_COLUMNS = {
    "recording": ("Recordings", "what the model computed"),
    "sae": ("Dictionaries", "sparse features learnt from it"),
    "features": ("Features", "when each one fires, and what it says"),
    "atlas": ("Atlases", "where things lie"),
}
_MORE = {
    "heads": ("Heads", "what attention looks at"),
    "induction_circuit": ("Induction circuits", "which heads copy what came before"),
    "edge_circuit": ("Circuits of heads", "which heads and MLPs carry out a task"),
    "feature_circuit": ("Circuits of features", "which features carry out a task"),
    "lens": ("Lenses", "what each layer would say"),
    "labels": ("Labels", "features in a model's words, scored"),
    "word_geometry": ("Word lists", "the shape of what words mean"),
    "direction": ("Directions", "the meaning of one direction"),
    "dynamics": ("Dynamics", "what training did"),
    "evaluation": ("Evaluations", "how true a dictionary is"),
    "sae_comparison": ("Comparisons of dictionaries", "several at one sparsity"),
    "size_law": ("Size laws", "how error falls with size"),
    "model_comparison": ("Fine-tuning effects", "how training changed a model"),
    "latent_comparison": ("Crosscoder latents", "which belong to one of two models"),
}
_WIDE = 13
"""characters beyond which a fact takes a line of its own"""
_PLACES = {folder: kind.replace("_", " ") for kind, folder in KINDS.items()}
_PLACES |= {"saes": "SAE", "dynamics": "training", "circuits": "circuit"}  # circuits: a folder of earlier versions


def layout(context: Context, **_: Any) -> html.Div:
    """Every artefact as a card, in the order in which they are made."""
    found = overview(context.workspace)
    root = context.workspace.root
    if found.empty:
        return page("Overview", _empty(str(root)))
    lead = [
        f"{sum(map(len, found.cards.values()))} results in ",
        html.Code(root.name or str(root)),
        f", about {', '.join(found.models)}. " if found.models else ". ",
        "Each was made from what stands to its left.",
    ]
    return page(
        "Overview",
        *_troubles(found),
        html.Div([_column(kind, found.cards[kind]) for kind in _COLUMNS], className="wb-lineage"),
        html.Div([_column(kind, found.cards[kind]) for kind in _MORE if found.cards[kind]], className="wb-lineage"),
        lead=lead,
    )


def _column(kind: str, cards: list[Card]) -> html.Section:
    title, subtitle = (_COLUMNS | _MORE)[kind]
    body = [_card(card) for card in cards] or [html.P("None yet.", className="wb-none")]
    head = html.Div([html.H2(title), html.Span(subtitle)], className="wb-column-head")
    return html.Section([head, *body], className="wb-column")


def _card(card: Card) -> html.Article:
    title = quiet_link(card.name, card.href) if card.href else html.Span(card.name)
    facts = [
        html.Div([html.Dt(name), html.Dd(value, title=value)], className="wb-wide" if len(value) > _WIDE else None)
        for name, value in card.facts
    ]
    return html.Article(
        [
            html.H3(title),
            html.P(card.sentence),
            html.Dl(facts, className="wb-facts"),
            html.Div(
                [html.Span(_origin(card.parents)), html.Time(_when(card.created), dateTime=card.created)],
                className="wb-card-foot",
            ),
        ],
        className="wb-card",
    )


def _origin(parents: list[str]) -> str:
    """`recordings/demo` -> `from recording demo`."""
    places = []
    for parent in parents:
        place, _, name = parent.replace("model:", "model/").partition("/")
        places.append(f"{_PLACES.get(place, place)} {name}")
    return "from " + ", ".join(places) if places else ""


def _when(created: str) -> str:
    return created.replace("T", " ").removesuffix("Z")[:16]


def _troubles(found: Overview) -> list[Any]:
    shown: list[Any] = [_partial(partial) for partial in found.partials]
    return shown + [_broken(broken) for broken in found.broken]


def _partial(partial: Partial) -> html.Div:
    progress = dict(partial.status.get("progress") or {})
    done, total = progress.pop("done", None), progress.pop("total", None)
    share = f"{done / total:.0%} done" if isinstance(done, int | float) and total else ""
    details = ", ".join(
        f"{key} {_short(value)}" for key, value in progress.items() if not isinstance(value, dict | list)
    )
    words = " · ".join(part for part in (share, details) if part) or partial.status.get("problem", "just started")
    updated = _when(partial.status.get("updated") or partial.status.get("started") or "")
    return notice(
        html.Strong(f"Unfinished {partial.kind.replace('_', ' ')} {partial.name}"),
        html.Span(f" {words}. ", className="wb-notice-text"),
        html.Span(f"Last sign of life {updated} UTC; the same command resumes it." if updated else ""),
        html.Progress(value=str(done), max=str(total)) if share else None,
    )


def _broken(broken: Broken) -> html.Div:
    return notice(html.Strong(f"Cannot read {broken.key}. "), html.Span(broken.problem), tone="error")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _empty(root: str) -> html.Section:
    return panel(
        "Nothing here yet",
        html.P("One command records a real model, learns features from it, and maps them. It takes some minutes."),
        html.Pre(f"workbench demo --workspace {root}", className="wb-command"),
        html.P("Or step by step:"),
        html.Pre(
            "workbench record smollm2-135m\nworkbench train\nworkbench features\nworkbench heads smollm2-135m\n"
            "workbench atlas sae:demo",
            className="wb-command",
        ),
        html.P(["Then ", dcc.Link("look again", href="/", refresh=True, className="wb-link"), "."]),
    )


PAGE = Page(title="Overview", path="/", order=10, layout=layout)
