"""*Search*: the features that fit a word or a text, each with its Match, its null and an example.

The box in the bar of every page (`/` focuses it) opens `/search?q=...`. The dictionary to search is part of the address
too. No model runs (`saes.features.search`); the page *Prompt* shows what fires as the model reads a text.
"""

from collections import Counter
from typing import Any
from urllib.parse import quote

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, dcc, html

from dashboard.components.evidence import percent
from dashboard.components.frame import (
    Children,
    Part,
    attempt,
    attrs,
    folded,
    loading,
    notice,
    page,
    panel,
    quiet_link,
    select,
)
from dashboard.components.pages import Page, feature_href, prompt_href, register_parts
from dashboard.components.tokens import token_strip, token_text
from dashboard.data.meaning import meaning_if_known
from dashboard.figures.theme import visible
from dashboard.sources import PageSources, current
from interp.errors import as_typed, program
from interp.nulls import ALPHA, WITHIN
from interp.workspace import Workspace
from saes.features.found import CONVINCING, Example, FeatureHits, Hit, TextMatch
from saes.features.schema import Features
from saes.features.search import search_features

N_HITS = 15
HOOK = "hook:"
EXAMPLES = (
    ("a meaning", "cooking", "words on which features fire, or that they make the model say, and related words"),
    ("some words", "January April August", "the feature of all of them comes first"),
    ("all but", "bank NOT river", "AND requires both, NOT excludes; in capitals"),
    ("similar features", "like #12", "nearest decoder directions; like demo:12 names the dictionary"),
    ("a feature", "#12", "or demo:12"),
)


def box() -> html.Div:
    """Return the search box of the bar; it is on every page."""
    field = dmc.TextInput(
        id="find-box", placeholder="Find features  /", size="xs", className="wb-find-field",
        **attrs({"aria-label": "Find features by a word, a text, a label or a number"}),
    )  # fmt: skip
    return html.Div(field, className="wb-find", role="search", title="Find features by what they fire on (/)")


def layout(context: PageSources, q: str = "", **address: Any) -> html.Div:
    """`/search?q=<text>&in=<features or hook:HOOK POINT>`."""
    where = str(address.get("in") or "")
    return page(
        "Search",
        dcc.Store(id="search-state", data={"q": q, "in": where}),
        html.Div(loading(html.Div(_skeleton() if q.strip() else None, id="search-parts", className="wb-search-parts"))),
        controls=[_where(context.workspace, where)],
        lead=[html.Strong(visible(q, 300), dir="auto"), " "] if q.strip() else None,
    )


def _skeleton() -> html.Section:
    """Return the outline of a list of hits, shown until the first answer."""
    lines = [html.Li([html.Div(className="wb-bone wb-bone-short"), html.Div(className="wb-bone")]) for _ in range(4)]
    return panel(
        "Features", html.Ol(lines, className="wb-hits", **attrs({"aria-hidden": "true"})), note="Searching ..."
    )


def _where(workspace: Workspace, chosen: str) -> Part:
    """Return the menu of dictionaries and layers; the choice of the address is added if it is missing."""
    made = workspace.values(Features)
    hook_points = sorted({features.settings.hook_point for features in made})
    sets = Counter(features.set_name for features in made if features.set_name)
    choices = {"": "All dictionaries, without sets" if sets else "All dictionaries"}
    choices |= {name: f"{name} · set of {n} layers" for name, n in sets.items()}
    choices |= {m.name: f"{m.name} · {m.dictionary}" for m in made}
    choices |= {f"{HOOK}{h}": f"at {h}" for h in hook_points} if len(hook_points) > 1 else {}
    choices.setdefault(chosen, visible(chosen, 60))
    data = [{"value": value, "label": label} for value, label in choices.items()]
    return select("search-in", "Dictionary or layer", data, chosen, width=240)


def find(workspace: Workspace, state: dict[str, str]) -> FeatureHits:
    """Return the search that an address asks for."""
    where = state["in"]
    return search_features(
        workspace,
        state["q"],
        features=None if where.startswith(HOOK) else where or None,
        hook_point=where.removeprefix(HOOK) if where.startswith(HOOK) else None,
        limit=N_HITS,
        meanings=meaning_if_known,
    )


def _draw(state: dict[str, str], _scheme: str | None) -> Children:
    workspace = current().workspace
    if not state["q"].strip():
        return _welcome()
    return attempt(lambda: results(find(workspace, state)))


def _welcome() -> html.Section:
    rows = [
        html.Li([html.Span(what), quiet_link(query, _href(query)), html.Span(meaning, className="wb-quiet")])
        for what, query, meaning in EXAMPLES
    ]
    return panel(
        "Find features",
        html.Ul(rows, className="wb-find-examples"),
        note="type into the box in the bar; the key / goes there from any page",
    )


def _href(query: str) -> str:
    return f"/search?q={quote(query)}"


def results(answer: FeatureHits) -> html.Div:
    """Return the list of hits, those that do not convince folded away, and the parts not searched."""
    several = len({hit.features for hit in answer.hits}) > 1
    above = [hit for hit in answer.hits if hit.convincing]
    below = [hit for hit in answer.hits if not hit.convincing]
    shown: list[Part] = []
    if above:
        more = "" if _form(answer) in _NOTES else _MATCH
        shown.append(panel(_title(answer), _list(above, several=several), note=_note(answer), more=more))
    if below and not above:
        shown.append(
            notice(html.Strong("Nothing convincing. "), "No feature fits this well; other words may do better.")
        )
    if below:
        note = f"Match below {CONVINCING}, or no better than chance."
        nearest = html.Div(_list(below, several=several), className="wb-below-chance")
        shown.append(folded("What came nearest", nearest, note=note))
    empty = [] if answer.hits else [notice(html.P(_nothing(answer)))]
    read = quiet_link("the page Prompt", prompt_href(text=answer.query))
    foot = html.P(["What fires as the model reads this text: ", read, "."], className="wb-note")
    return html.Div([*empty, *shown, *_remarks(answer), foot])


_NOTE = "Match, 0 to 1"
_MATCH = (
    "The probability that the feature is right, learnt on 40 everyday concepts. Several features may be right, so the "
    "list may sum to more than 1. Null: nonsense words; at most one in twenty of them finds a hit."
)
_NOTES = {
    "similar": "Cosine similarity of decoder directions (1: identical). Null: the nearest of equally many random "
    "directions. Most latents have a neighbour above it, so compare with the median nearest neighbour too.",
    "number": "",
}


def _note(answer: FeatureHits) -> str:
    both = ". For texts joined by AND: the smallest of theirs" if " AND " in answer.query else ""
    return _NOTES.get(_form(answer), _NOTE + both)


def _form(answer: FeatureHits) -> str:
    return answer.hits[0].by if answer.hits else ""


def _title(answer: FeatureHits) -> str:
    return {"similar": "Similar directions", "number": "Feature"}.get(_form(answer), "Features")


def _list(hits: list[Hit], *, several: bool) -> html.Ol:
    return html.Ol([row(hit, several=several) for hit in hits], className="wb-hits")


def row(hit: Hit, *, several: bool = False) -> html.Li:
    """Return one hit: label and number, Match, the reason with its null, an example, and folded statistics."""
    title = html.Strong(f"{visible(hit.own, 80)} · ") if hit.own else None
    name = [title, visible(hit.label, 160) or "no label"]
    head = dcc.Link(
        [
            html.Span(
                f"{hit.features} #{hit.feature}" if several else f"#{hit.feature}", className="wb-feature-number"
            ),
            html.Span(name, className="wb-hit-label", dir="auto"),
        ],
        href=feature_href(hit.features, hit.feature),
        className="wb-hit",
        title=f"feature {hit.feature} of {hit.features}",
    )
    parts = [html.Div([head, _badge(hit)], className="wb-hit-head"), _why(hit), _example(hit), _statistics(hit)]
    return html.Li(parts)


def _badge(hit: Hit) -> html.Span | None:
    """Return the Match of a hit, or nothing if it does not convince."""
    if hit.strength is None or not hit.convincing:
        return None
    level = "strong" if hit.strength >= 0.6 else "fair"
    unit = "cosine " if hit.by == "similar" else "match "
    return html.Span([unit, html.Strong(_rounded(hit.strength))], className=f"wb-strength wb-strength-{level}")


_REASONS = {
    "tokens": "fires on it",
    "related": "fires on related words",
    "says": "makes the model say it",
    "label": "its label means it",
    "name": "your name for it",
    "similar": "similar direction",
}


def _rounded(value: float) -> str:
    return f"{value:.2f}" if value >= 0.05 else f"{value:.1g}"


def _why(hit: Hit) -> html.Div | None:
    """Return the reason of a hit, and the texts that match."""
    basis = _REASONS.get(hit.by, "")
    if hit.matches and hit.expected is not None and hit.fired is not None:
        basis += f"; {hit.fired:,} of {hit.tries:,} tokens, by chance {hit.expected:.2g}"
    reason = html.Span(basis, className="wb-quiet") if basis else None
    words = [html.Span([token_text(match.text, 24), _count(match)], className="wb-match") for match in hit.matches]
    return html.Div([*words, reason], className="wb-matches") if words or reason else None


def _statistics(hit: Hit) -> html.Details | None:
    """Return the numbers of a hit, folded away."""
    lines = [f"fires on {percent(hit.density)} of tokens"]
    if hit.by == "similar" and hit.null is not None:
        lines.append(f"the median nearest neighbour of a feature has cosine {_rounded(hit.null)}")
    elif hit.score is not None and hit.null is not None:
        lines.append(
            f"score of firing {_rounded(hit.score)}; null {_rounded(hit.null)}, a random feature of the same density"
        )
    if hit.p is not None:
        lines.append(f"{chance_text(hit)}, corrected for all features searched (Holm)")
    if hit.label_score is not None:
        null = "" if hit.label_null is None else f"; another feature's label {hit.label_null:.2f}"
        lines.append(f"balanced accuracy of its label on held-out text {hit.label_score:.2f}{null}; 0.5 by chance")
    return html.Details(
        [html.Summary("Statistics"), html.Ul([html.Li(line) for line in lines])], className="wb-hit-stats"
    )


def chance_text(hit: Hit) -> str:
    """Return how a hit compares with chance, in a sentence."""
    p = hit.p or 0.0
    p_text = "p < 1e-12" if p < 1e-12 else f"p = {p:.2g}"
    if hit.expected is None or hit.fired is None or hit.tries is None:
        return f"{p_text} for random directions"
    prefix = "" if p <= ALPHA else f"{WITHIN}: "
    return f"{prefix}{hit.fired:,} of {hit.tries:,} tokens, expected {hit.expected:.2g} by chance; {p_text}"


def _count(match: TextMatch) -> html.Span:
    title = f"fires on {match.n:,} of {match.seen:,} tokens, at most {match.max_activation:.3g}"
    return html.Span(f"{match.n:,}/{match.seen:,}", className="wb-value", title=title)


def _example(hit: Hit) -> html.Div | None:
    if hit.example is None:
        return None
    return strip(hit.example, hit.max_activation)


def strip(example: Example, maximum: float) -> html.Div:
    """Return an example with its activations; the matching token with the largest one is outlined."""
    at = max(example.marked, key=lambda i: example.activations[i], default=None)
    return token_strip(list(example.tokens), list(example.activations), maximum=maximum, peak=at)


def _remarks(answer: FeatureHits) -> list[Part]:
    """Return the limits of the answer: partial coverage, words that do not occur, words left out."""
    notes = [as_typed(note) for note in answer.notes]
    if answer.related:
        notes.append(f"Related words, searched too: {', '.join(visible(word, 24) for word in answer.related[:12])}.")
    partial = [name for name, text in answer.covers.items() if text == "examples"]
    if partial:
        command = f"{program()} features DICTIONARY --recording NAME --overwrite indexes all of the text."
        notes.append(
            f"Only the text of the examples is indexed of {', '.join(partial)}: about thirty passages a feature. "
            f"Counts refer to these passages. {command}"
        )
    if answer.left_out:
        notes.append(f"Left out as too frequent: {', '.join(visible(word, 24) for word in answer.left_out)}.")
    if answer.missing and answer.words:
        notes.append(f"Not in the recorded text: {', '.join(visible(word, 24) for word in answer.missing)}.")
    lines: list[Part] = [html.P(note, className="wb-note") for note in notes]
    if answer.sets_left_out:
        links = [
            quiet_link(visible(name, 40), f"{_href(answer.query)}&in={quote(name)}") for name in answer.sets_left_out
        ]
        joined = [part for link in links for part in (link, " ")]
        lines.append(html.P(["Layers of sets are searched one set at a time: ", *joined], className="wb-note"))
    return lines


def _nothing(answer: FeatureHits) -> str:
    if not answer.covers:
        return "No features are described in this workspace yet: the page Features begins with them."
    if answer.missing and not answer.words:
        return (
            "This occurs neither in the recorded text nor in a label. Search for a more common word, or let the model "
            "read the text."
        )
    return "No feature fires on this above its null. Search in all dictionaries, or let the model read the text."


def register(app: Dash) -> None:
    """Add the callbacks: the box of every page, the menu of dictionaries, and the hits."""
    register_parts(app, "search", _draw)
    app.clientside_callback(
        ClientsideFunction("search", "submit"),
        Output("nav", "href", allow_duplicate=True),
        Input("find-box", "n_submit"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("search", "show"),
        Output("find-box", "value"),
        Input("_pages_location", "pathname"),
        Input("_pages_location", "search"),
    )
    app.clientside_callback(
        ClientsideFunction("search", "filter"),
        Output("nav", "href", allow_duplicate=True),
        Input("search-in", "value"),
        prevent_initial_call=True,
    )


PAGE = Page(
    title="Search",
    path="/search",
    group="features",
    about="Features by what they fire on, or by label",
    layout=layout,
    register=register,
    listed=False,
    shows="Features by the words on which they fire, by label, or by similarity.",
    command="workbench demo --no-serve",
)
