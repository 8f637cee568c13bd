"""*Search*: the features that fire on a word or a text, each with its score, its null and an example.

The box in the bar of every page (`/` focuses it) opens `/search?q=...`. Filters are part of the address too. The
search itself needs no model (`saes.features.search`); a button runs the text through the model, and a model that is
loaded already reads texts of several words without being asked.
"""

from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, NoUpdate, Output, State, dcc, html, no_update

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
from dashboard.components.pages import Page, feature_href, register_parts
from dashboard.components.tokens import token_strip, token_text
from dashboard.data.meaning import meaning_if_known
from dashboard.figures.theme import visible
from dashboard.sources import PageSources, current
from interp.atlas.vector_map import VectorMap
from interp.errors import UsageError, as_typed, program
from interp.nulls import ALPHA, WITHIN
from interp.workspace import Workspace
from saes.acts.prompt import FeatureActivations, ReadPrompt
from saes.features.fired_words import rank_active
from saes.features.found import Example, FeatureHits, Hit, Kind, TextMatch
from saes.features.schema import Features
from saes.features.search import CONVINCING, search_features
from saes.features.token_index import PHRASE_FROM

N_HITS, N_ACTIVE = 15, 15
MAX_REGIONS = 80
DENSITIES = ((0.0001, "under 0.01 % of tokens"), (0.001, "under 0.1 % of tokens"), (0.01, "under 1 % of tokens"),
             (0.1, "under 10 % of tokens"))  # fmt: skip
LEAST_DENSITIES = ((0.0001, "over 0.01 % of tokens"), (0.001, "over 0.1 % of tokens"), (0.01, "over 1 % of tokens"))
OVER = ">"
"""Start of a smallest density in the address."""
MATCHES = ((0.25, "match 0.25 or more"), (0.5, "match 0.5 or more"), (0.75, "match 0.75 or more"))
KINDS: dict[str, Kind] = {"sae": "sae", "neurons": "neurons", "transcoders": "transcoders"}
FILTERS = ("in", "d", "s", "region", "kind")
"""Names of the filters in the address: artefact or hook point, largest density (or `>` and the smallest), smallest
Match, region of a map, kind of dictionary."""
HOOK = "hook:"
EXAMPLES = (
    ("a meaning", "cooking", "words on which features fire, or that they make the model say, and related words"),
    ("some words", "January April August", "the feature of all of them comes first"),
    ("a phrase", "New York", "pairs of words in this order count most"),
    ("all but", "bank NOT river", "AND requires both, NOT excludes; in capitals"),
    ("a whole word", "def ", "a space at the end: this word in this case, not part of another"),
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
    """`/search?q=<text>&in=<features or hook:HOOK POINT>&d=<density>&s=<score>&region=<atlas>:<number>`."""
    filters = {name: str(address.get(name) or "") for name in FILTERS}
    return page(
        "Search",
        dcc.Store(id="search-state", data={"q": q, **filters}),
        html.Div(loading(html.Div(_skeleton() if q.strip() else None, id="search-parts", className="wb-search-parts"))),
        html.Div(loading(html.Div(id="search-active"))) if q.strip() else None,
        controls=_filters(context.workspace, filters),
        lead=[html.Strong(visible(q, 300), dir="auto"), " "] if q.strip() else None,
    )


def _skeleton() -> html.Section:
    """Return the outline of a list of hits, shown until the first answer."""
    lines = [html.Li([html.Div(className="wb-bone wb-bone-short"), html.Div(className="wb-bone")]) for _ in range(4)]
    return panel(
        "Features", html.Ol(lines, className="wb-hits", **attrs({"aria-hidden": "true"})), note="Searching ..."
    )


def _filters(workspace: Workspace, filters: dict[str, str]) -> list[Part]:
    made = workspace.values(Features)
    hook_points = sorted({features.settings.hook_point for features in made})
    sets = Counter(features.set_name for features in made if features.set_name)
    where = [{"value": "", "label": "All dictionaries, without sets" if sets else "All dictionaries"}]
    where += [{"value": name, "label": f"{name} · set of {n} layers"} for name, n in sets.items()]
    where += [{"value": m.name, "label": f"{m.name} · {m.dictionary}"} for m in made]
    where += [{"value": f"{HOOK}{h}", "label": f"at {h}"} for h in hook_points] if len(hook_points) > 1 else []
    density = [{"value": "", "label": "Any density"}, *({"value": f"{v:g}", "label": text} for v, text in DENSITIES)]
    density += [{"value": f"{OVER}{v:g}", "label": text} for v, text in LEAST_DENSITIES]
    match = [{"value": "", "label": "Any match"}, *({"value": f"{v:g}", "label": text} for v, text in MATCHES)]
    kinds = [{"value": "", "label": "SAEs and neurons"}, *({"value": kind, "label": f"{kind} only"} for kind in KINDS)]
    menus = [
        ("in", "Dictionary or layer", where, 240),
        ("d", "Density", density, 170),
        ("s", "Match", match, 170),
    ]
    menus.append(("kind", "Kind of dictionary", kinds, 150))
    regions = _regions(workspace)
    menus.append(("region", "Region of a map", [{"value": "", "label": "Anywhere on the maps"}, *regions], 210))
    return [
        html.Div(
            select(f"search-{name}", label, _with(data, filters[name]), filters[name], width=width),
            hidden=name == "region" and not regions,
        )
        for name, label, data, width in menus
    ]


def _with(data: list[dict[str, str]], value: str) -> list[dict[str, str]]:
    """Return the choices of a menu, with the one in the address added if it is missing."""
    known = {choice["value"] for choice in data}
    return data if value in known else [*data, {"value": value, "label": visible(value, 60)}]


def _regions(workspace: Workspace) -> list[dict[str, str]]:
    """Return the regions of every map of features, the largest first."""
    regions: list[dict[str, str]] = []
    for made in workspace.values(VectorMap):
        if made.features and made.regions_per_level:
            named = made.regions.rows("size > 1 and label <> ''", order="size desc, region", limit=MAX_REGIONS)
            for row in named:
                label = f"{made.name} · {visible(row.label, 40)} ({row.size:,})"
                regions.append({"value": f"{made.name}:{row.region}", "label": label})
    return regions


def find(workspace: Workspace, state: dict[str, str]) -> FeatureHits:
    """Return the search that an address asks for. Raises `UsageError` when a filter of it is malformed."""
    where, region = state["in"], None
    if state["region"]:
        atlas, _, at = state["region"].rpartition(":")
        if not atlas or not at.isdigit():
            raise UsageError(f"region should be MAP:NUMBER, got {state['region']!r}; choose one in the menu")
        region = atlas, int(at)
    try:
        density, strength = float(state["d"].removeprefix(OVER) or 1), float(state["s"] or 0)
    except ValueError:
        raise UsageError("density and match should be numbers from 0 to 1; choose them in the menus") from None
    return search_features(
        workspace,
        state["q"],
        features=None if not where or where.startswith(HOOK) else where,
        hook_point=where.removeprefix(HOOK) if where.startswith(HOOK) else None,
        density=(density, 1.0) if state["d"].startswith(OVER) else (0.0, density),
        min_strength=strength,
        region=region,
        kind=_kind(state.get("kind") or ""),
        limit=N_HITS,
        meanings=meaning_if_known,
    )


def _kind(name: str) -> Kind | None:
    if name and name not in KINDS:
        raise UsageError(f"kind should be one of {', '.join(KINDS)}, got {name!r}; choose it in the menu")
    return KINDS.get(name)


def _draw(state: dict[str, str], _scheme: str | None) -> Children:
    workspace = current().workspace
    if not state["q"].strip():
        return _welcome()
    return attempt(lambda: results(workspace, find(workspace, state), run=current().live.state != "loading"))


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


def results(workspace: Workspace, answer: FeatureHits, *, run: bool) -> html.Div:
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
    empty = [] if answer.hits else [notice(html.P(_nothing(answer)), *_near(answer))]
    button = dmc.Button(
        "Run the text through the model", id="search-run", variant="default", size="xs", disabled=not run
    )
    foot = panel(
        "Active on this text",
        button,
        note="features that fire as the model reads this text; the first run loads the model",
    )
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
    also = html.Span(f" · also: {visible(hit.other, 160)}", className="wb-quiet") if hit.other else None
    name = [title, visible(hit.label, 160) or "no label", also]
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
    unit = "match " if hit.by not in ("similar", "active") else "cosine " if hit.by == "similar" else "score "
    return html.Span([unit, html.Strong(_rounded(hit.strength))], className=f"wb-strength wb-strength-{level}")


_REASONS = {
    "phrase": "fires on it in this order",
    "tokens": "fires on it",
    "related": "fires on related words",
    "says": "makes the model say it",
    "label": "its label means it",
    "examples": "its strongest examples contain it",
    "name": "your name for it",
    "similar": "similar direction",
    "active": "fires as the model reads it",
}


def _rounded(value: float) -> str:
    return f"{value:.2f}" if value >= 0.05 else f"{value:.1g}"


def _why(hit: Hit) -> html.Div | None:
    """Return the reason of a hit, and the texts that match."""
    basis = f"measured for the concept “{visible(hit.concept, 40)}”" if hit.concept else _REASONS.get(hit.by, "")
    if hit.matches and hit.expected is not None and hit.fired is not None:
        basis += f"; {hit.fired:,} of {hit.tries:,} tokens, by chance {hit.expected:.2g}"
    reason = html.Span(basis, className="wb-quiet") if basis else None
    words = [html.Span([token_text(match.text, 24), _count(match, hit)], className="wb-match") for match in hit.matches]
    return html.Div([*words, reason], className="wb-matches") if words or reason else None


def _statistics(hit: Hit) -> html.Details | None:
    """Return the numbers of a hit, folded away."""
    lines = [f"fires on {percent(hit.density)} of tokens"]
    if hit.by == "similar" and hit.null is not None:
        lines.append(f"the median nearest neighbour of a feature has cosine {_rounded(hit.null)}")
    elif hit.by == "active" and hit.null is not None:
        lines.append(f"a feature of the same density fires on a text of this length with probability {hit.null:.2g}")
    elif hit.score is not None and hit.null is not None:
        lines.append(
            f"score of firing {_rounded(hit.score)}; null {_rounded(hit.null)}, a random feature of the same density"
        )
    if hit.share is not None and hit.recall is not None:
        lines.append(f"{hit.share:.0%} of its activation falls on the words; it fires on {hit.recall:.0%} of them")
    if hit.p is not None:
        lines.append(f"{chance_text(hit)}, corrected for all features searched (Holm)")
    if hit.says is not None:
        lines.append(f"raises the words by {hit.says:.1f} robust standard deviations over all features")
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


def _count(match: TextMatch, hit: Hit) -> html.Span:
    if hit.by == "active":
        return html.Span(f"{match.max_activation:.3g}", className="wb-value", title="activation")
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
    if answer.missing_phrases:
        pairs = ", ".join(f"“{visible(pair, 40)}”" for pair in answer.missing_phrases)
        notes.append(f"Not indexed as a phrase: {pairs}. It occurs fewer than {PHRASE_FROM} times.")
    if answer.missing and answer.words:
        notes.append(f"Not in the recorded text: {', '.join(visible(word, 24) for word in answer.missing)}.")
    lines: list[Part] = [html.P(note, className="wb-note") for note in notes]
    if answer.sets_left_out:
        links = [
            quiet_link(visible(name, 40), f"{_href(answer.query)}&in={quote(name)}") for name in answer.sets_left_out
        ]
        joined = [part for link in links for part in (link, " ")]
        lines.append(html.P(["Layers of sets are searched one set at a time: ", *joined], className="wb-note"))
    return [*lines, *(_near(answer) if answer.hits else [])]


def _near(answer: FeatureHits) -> list[Part]:
    if not answer.near:
        return []
    links = [html.Span([quiet_link(visible(word, 24), _href(word)), f" ({n:,}) "]) for word, n in answer.near]
    return [html.P(["Longer words that begin with it: ", *links], className="wb-note")]


def _nothing(answer: FeatureHits) -> str:
    if not answer.covers:
        return "No features are described in this workspace yet: the page Features begins with them."
    if answer.missing and not answer.words:
        return (
            "This occurs neither in the recorded text nor in a label. Run the text through the model, or search for "
            "a more common word."
        )
    return "No feature fires on this above its null within these filters. Widen the filters, or run the text."


def run_text(clicks: int | None, state: dict[str, str]) -> Children | NoUpdate:
    """Run the text through the model on request, or if a model is loaded and the text has several words."""
    text = state["q"].strip()
    live = current().live
    if not text or (not clicks and not (live.state == "ready" and len(text.split()) > 1)):
        return no_update
    return attempt(lambda: active(current(), text, state))


def active(context: PageSources, text: str, state: dict[str, str]) -> html.Section:
    """Return the features that fire when the model reads the text, of one dictionary."""
    workspace, where = context.workspace, state["in"]
    made = [
        features
        for features in workspace.values(Features)
        if where in ("", features.name, f"{HOOK}{features.settings.hook_point}")
    ]
    made.sort(key=lambda features: not features.sae)
    if not made:
        raise UsageError("no features are described yet; `workbench features` describes them")
    name = made[0].name
    result = context.live.ask(ReadPrompt(text=text, model=made[0].settings.model, features=name))
    fired = [[(firing.feature, firing.activation) for firing in at] for at in result.features]
    hits = rank_active(workspace, name, result.tokens, fired, N_ACTIVE)
    rows = [row(_whole(context, hit, text, made[0].settings.model)) for hit in hits]
    body = html.Ol(rows, className="wb-hits") if rows else html.P("No feature fires on this text.", className="wb-none")
    return panel(
        f"Active on this text, by {name}",
        body,
        note="of the five strongest features of each token. Score: strongest activation among these, as a fraction of "
        "the feature's maximum, times log10(1 / density), so that strong and rare features come first",
        className="wb-row",
    )


def _whole(context: PageSources, hit: Hit, text: str, model: str) -> Hit:
    """Return a hit with its activation on every token; a reading has only the strongest features of each token."""
    if hit.example is None:
        return hit
    values = context.live.ask(FeatureActivations(text=text, model=model, features=hit.features, feature=hit.feature))
    return replace(hit, example=replace(hit.example, activations=tuple(values)))


def register(app: Dash) -> None:
    """Add the callbacks: the box of every page, the filters, the hits, and the run of the text."""
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
        *(Input(f"search-{name}", "value") for name in FILTERS),
        prevent_initial_call=True,
    )
    app.callback(
        Output("search-active", "children"),
        Input("search-run", "n_clicks"),
        State("search-state", "data"),
        running=[(Output("search-run", "disabled"), True, False)],
    )(run_text)


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
