"""*Overview*: every artefact of the workspace as a card, with its origin."""

import shlex
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update

from dashboard.answers import is_object
from dashboard.components.evidence import number
from dashboard.components.frame import notice, page, panel, quiet_link
from dashboard.components.pages import Context, Page, current, run_button, run_state
from dashboard.components.tokens import token_strip
from dashboard.data.workspace import stamp
from dashboard.overview.data import Card, overview
from dashboard.overview.findings import Finding, findings
from interp.artifacts import FOLDERS, hash_json
from interp.errors import as_typed, program
from interp.workspace import Broken, Partial

_COLUMNS = {
    "recording": ("Recordings", "activations of a model"),
    "sae": ("Dictionaries", "sparse autoencoders trained on them"),
    "features": ("Features", "what each latent responds to"),
    "atlas": ("Atlases", "maps of vectors"),
}
_MORE = {
    "transcoders": ("Transcoders", "MLPs of all layers, in one set"),
    "heads": ("Heads", "kinds of attention heads"),
    "induction_circuit": ("Induction circuits", "heads that copy"),
    "edge_circuit": ("Circuits of heads", "heads and MLPs of a task"),
    "feature_circuit": ("Circuits of features", "features of a task"),
    "attribution_graph": ("Attribution graphs", "why the model says that"),
    "patching": ("Patching", "which values carry a difference"),
    "lens": ("Tuned lenses", "the prediction after each layer"),
    "jacobian_lens": ("Jacobian lenses", "what a direction makes the model say"),
    "labels": ("Labels", "written by a model, and scored"),
    "word_geometry": ("Word lists", "circles, lines, clusters"),
    "space": ("Spaces", "spectrum and dimension"),
    "space_comparison": ("Spaces compared", "CKA, Procrustes, optimal transport"),
    "direction": ("Directions", "the meaning of one direction"),
    "proof": ("Proofs", "what one feature does to the model"),
    "grokking": ("Grokking", "from memorising to a rule"),
    "induction_onset": ("Onset of induction", "when small models begin to copy"),
    "language_scaling": ("Model sizes", "how loss falls with parameters and text"),
    "evaluation": ("Evaluations", "the error of a dictionary"),
    "sae_comparison": ("SAE comparisons", "at the same sparsity"),
    "size_law": ("Size laws", "error as a law of size"),
    "model_comparison": ("Fine-tuning effects", "base and tuned model"),
    "latent_comparison": ("Crosscoder latents", "shared, or of one model"),
}
MEANINGS = {
    "FVU": "fraction of variance unexplained on held-out documents: 0 is perfect, 1 no better than the mean",
    "L0": "mean number of active features per token",
    "dead": "features that are active on none of the tokens",
    "dense": "features that are active on more than a tenth of the tokens",
    "l2 ratio": "mean length of the reconstruction over that of the activation",
    "hook point": "the activation that the dictionary or direction reads",
    "trustworthiness": "neighbours on the map are neighbours in the full space: 1 all of them, 0.5 as by chance",
    "regions": "dense parts of the map",
    "faithfulness": "metric of the circuit alone: 1: as good as the whole model; 0: as bad as with every edge ablated",
    "detection": "balanced accuracy of detecting contexts from the label: 0.5 by chance, 1 always right",
    "detection null": "the same with the label of another feature",
}
"""Name of a number on a card -> its meaning, shown in a tooltip."""
_WIDE = 13
"""Characters beyond which a fact takes a line of its own."""
_KIND_OF_FOLDER = {folder: kind.replace("_", " ") for kind, folder in FOLDERS.items()}
_KIND_OF_FOLDER |= {"saes": "SAE"}


CLOCK = 2500
"""Milliseconds between two looks at the workspace."""


def layout(context: Context, **_: Any) -> html.Div:
    """Return every artefact as a card, in the order in which they are made."""
    news = _news(context)
    return page(
        "Overview",
        html.Div(news, id="overview-news"),
        html.Div(_cards(context), id="overview-cards"),
        dcc.Interval(id="overview-clock", interval=CLOCK),
        dcc.Store(id="overview-shown", data=_shown(context, news)),
    )


def register(app: Dash) -> None:
    """Let the page follow the workspace: runs that begin and move, artefacts that appear and go, whoever made them."""

    @app.callback(
        Output("overview-news", "children"),
        Output("overview-cards", "children"),
        Output("overview-shown", "data"),
        Input("overview-clock", "n_intervals"),
        State("overview-shown", "data"),
        prevent_initial_call=True,
    )
    def follow(_: int | None, shown: list[str]) -> tuple[Any, Any, Any]:
        context = current()
        news = _news(context)
        now = _shown(context, news)
        same = [before == after for before, after in zip(shown, now, strict=True)]
        cards = no_update if same[1] else _cards(context)
        return no_update if same[0] else news, cards, no_update if all(same) else now


def _shown(context: Context, news: list[Any]) -> list[str]:
    """Return fingerprints of the news and of the cards."""
    return [hash_json(str(news)), stamp(context.workspace)]


def _news(context: Context) -> list[Any]:
    """Return the runs that wait or run, the unfinished artefacts and the unreadable ones, each as a notice."""
    runs = context.runs.active() if context.runs else []
    workspace = context.workspace
    return [
        *(notice(html.Strong(quiet_link(f"Run {run.id}", "/runs")), f" {run_state(run)}") for run in runs),
        *map(_partial, workspace.partials()),
        *map(_broken, workspace.broken()),
    ]


def _cards(context: Context) -> list[Any]:
    found = overview(context.workspace)
    if found.empty:
        return [_empty(context.workspace.address, runs=context.runs is not None)]
    lead = [
        f"{sum(map(len, found.cards.values()))} artefacts in ",
        html.Code(context.workspace.name),
        f", made with {', '.join(found.models)}. " if found.models else ". ",
        "A card names the artefacts that it was made from.",
    ]
    return [
        html.P(lead, className="wb-lead"),
        _found(findings(context.workspace, stamp(context.workspace))),
        html.Div([_column(kind, found.cards[kind]) for kind in _COLUMNS], className="wb-lineage"),
        html.Div([_column(kind, found.cards[kind]) for kind in _MORE if found.cards[kind]], className="wb-lineage"),
    ]


def _found(found: tuple[Finding, ...]) -> html.Section | None:
    """Return the strongest findings as cards; None without any."""
    if not found:
        return None
    about = (
        "chosen by code from all artefacts: the part of the number that its null does not reach, the strongest of each "
        "kind first"
    )
    head = html.Div([html.H2("Found in this workspace"), html.Span(about)], className="wb-column-head")
    return html.Section([head, html.Ol(list(map(_finding, found)), className="wb-found")], id="overview-found")


def _finding(found: Finding) -> html.Li:
    top = max(found.value, found.null)
    bars = [
        html.Div(
            [
                html.Span(html.Span(style={"width": f"{max(value, 0) / top:.1%}"}), className="wb-track"),
                html.Span(f"{name} {number(value)}", className="wb-value"),
            ],
            className=f"wb-against wb-{name}",
        )
        for name, value in (("measured", found.value), ("null", found.null))
    ]
    text = None
    if found.example is not None:
        activations, peak = found.example["activations"], found.example["peak"]
        text = token_strip(found.example["tokens"], activations, peak=peak, maximum=max(activations))
    return html.Li(
        [
            html.H3(found.title, dir="auto"),
            html.P(found.sentence, dir="auto"),
            text,
            html.Div([*bars, html.P(found.about, className="wb-note")], className="wb-againsts"),
            quiet_link(found.proof, found.href),
        ],
        className="wb-card",
    )


def _column(kind: str, cards: list[Card]) -> html.Section:
    title, subtitle = (_COLUMNS | _MORE)[kind]
    body = [_card(card) for card in cards] or [html.P("None yet.", className="wb-none")]
    head = html.Div([html.H2(title), html.Span(subtitle)], className="wb-column-head")
    return html.Section([head, *body], className="wb-column")


def _card(card: Card) -> html.Article:
    title = quiet_link(card.name, card.href) if card.href else html.Span(card.name)
    facts = [
        html.Div(
            [html.Dt(name, title=MEANINGS.get(name)), html.Dd(value, title=value)],
            className="wb-wide" if len(value) > _WIDE else None,
        )
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
    named: list[str] = []
    for parent in parents:
        folder, _, name = parent.replace("model:", "model/").partition("/")
        named.append(f"{_KIND_OF_FOLDER.get(folder, folder)} {name}")
    return "from " + ", ".join(named) if named else ""


def _when(created: str) -> str:
    return created.replace("T", " ").removesuffix("Z")[:16]


def _partial(partial: Partial) -> html.Div:
    found = partial.status.get("progress")
    progress = dict(found) if is_object(found) else {}
    done, total = progress.pop("done", None), progress.pop("total", None)
    counted = isinstance(done, int | float) and isinstance(total, int | float) and total
    share = f"{done / total:.0%} done" if counted else ""
    details = ", ".join(
        f"{key} {_short(value)}" for key, value in progress.items() if not isinstance(value, dict | list)
    )
    words = " · ".join(part for part in (share, details) if part) or partial.status.get("problem", "just started")
    updated = _when(str(partial.status.get("updated") or partial.status.get("started") or ""))
    return notice(
        html.Strong(f"Unfinished {partial.kind.replace('_', ' ')} {partial.name}"),
        html.Span(f" {words}. ", className="wb-notice-text"),
        html.Span(f"Last update {updated} UTC; the same command resumes it." if updated else ""),
        html.Progress(value=str(done), max=str(total)) if share else None,
    )


def _broken(broken: Broken) -> html.Div:
    return notice(html.Strong(f"Cannot read {broken.key}. "), html.Span(as_typed(broken.problem)), tone="error")


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


STEPS = (
    "record smollm2-135m --name mine",
    "train mine",
    "features mine",
    "heads smollm2-135m",
    "atlas sae:mine",
)
"""Arguments of the commands that fill a workspace step by step."""


def _empty(root: str, *, runs: bool) -> html.Section:
    first = {"model": "smollm2-135m", "name": "mine"}
    start = [
        html.P("Or record a model now, in the background; the page Features then offers the next steps:"),
        run_button("record", first, id="first", text="Record smollm2-135m", then="/"),
    ]
    return panel(
        "Nothing here yet",
        html.P("One command records a real model, opens a dictionary of its features, and maps them, within minutes:"),
        html.Pre(f"{program()} demo --workspace {shlex.quote(root)}", className="wb-command"),
        *(start if runs else []),
        html.P("Or step by step:"),
        html.Pre(
            "\n".join(f"{program()} {step} --workspace {shlex.quote(root)}" for step in STEPS), className="wb-command"
        ),
        html.P(["Then ", dcc.Link("look again", href="/", refresh=True, className="wb-link"), "."]),
    )


PAGE = Page(title="Overview", path="/", group="look", order=10, layout=layout, register=register)
