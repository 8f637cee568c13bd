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
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from dashboard.components.evidence import number, percent
from dashboard.components.frame import (
    attempt,
    attrs,
    loading,
    notice,
    page,
    panel,
    quiet_link,
    save_search_control,
    select,
)
from dashboard.components.pages import Context, Page, current, feature_href, register_parts
from dashboard.components.tokens import token_strip, token_text
from dashboard.figures.theme import visible
from interp.atlas.vector_map import VectorMap
from interp.errors import UsageError, as_typed, program
from interp.workspace import Workspace
from saes.features.found import ALPHA, Example, Found, Hit, Match
from saes.features.schema import Features
from saes.features.search import rank_active, search_features
from saes.features.token_index import PHRASE_FROM

N_HITS, N_ACTIVE = 15, 15
MAX_REGIONS = 80
DENSITIES = ((0.0001, "under 0.01 % of tokens"), (0.001, "under 0.1 % of tokens"), (0.01, "under 1 % of tokens"),
             (0.1, "under 10 % of tokens"))  # fmt: skip
SCORES = ((0.05, "score 0.05 or more"), (0.1, "score 0.1 or more"), (0.25, "score 0.25 or more"),
          (0.5, "score 0.5 or more"))  # fmt: skip
FILTERS = ("in", "d", "s", "region")
"""Names of the filters in the address: artefact or hook point, largest density, smallest score, region of a map."""
HOOK = "hook:"
EXAMPLES = (
    ("a word", "January", "in any case, with or without a space before it, as one token or several"),
    ("a text", "countries in Europe", "pairs of words in their order first, then all words but the most frequent"),
    ("part of a label", "in any form", "labels count too, after the text"),
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


def layout(context: Context, q: str = "", **address: Any) -> html.Div:
    """`/search?q=<text>&in=<features or hook:HOOK POINT>&d=<density>&s=<score>&region=<atlas>:<number>`."""
    given = {name: str(address.get(name) or "") for name in FILTERS}
    return page(
        "Search",
        dcc.Store(id="search-state", data={"q": q, **given}),
        html.Div(loading(html.Div(id="search-parts", className="wb-search-parts"))),
        html.Div(loading(html.Div(id="search-active"))) if q.strip() else None,
        controls=[*_filters(context.workspace, given), *([save_search_control()] if q.strip() else [])],
        lead=[html.Strong(visible(q, 300), dir="auto"), " "] if q.strip() else None,
    )


def _filters(workspace: Workspace, given: dict[str, str]) -> list[Any]:
    made = workspace.values(Features)
    hook_points = sorted({each.settings.hook_point for each in made})
    sets = Counter(each.set_name for each in made if each.set_name)
    where = [{"value": "", "label": "All dictionaries, without sets" if sets else "All dictionaries"}]
    where += [{"value": name, "label": f"{name} · set of {n} layers"} for name, n in sets.items()]
    where += [{"value": m.name, "label": f"{m.name} · {m.dictionary}"} for m in made]
    where += [{"value": f"{HOOK}{h}", "label": f"at {h}"} for h in hook_points] if len(hook_points) > 1 else []
    density = [{"value": "", "label": "Any density"}, *({"value": f"{v:g}", "label": text} for v, text in DENSITIES)]
    score = [{"value": "", "label": "Any score"}, *({"value": f"{v:g}", "label": text} for v, text in SCORES)]
    menus = [("in", "Dictionary or layer", where, 240), ("d", "Density", density, 170), ("s", "Score", score, 160)]
    regions = _regions(workspace)
    menus.append(("region", "Region of a map", [{"value": "", "label": "Anywhere on the maps"}, *regions], 210))
    return [
        html.Div(
            select(f"search-{name}", label, _with(data, given[name]), given[name], width=width),
            hidden=name == "region" and not regions,
        )
        for name, label, data, width in menus
    ]


def _with(data: list[dict[str, str]], value: str) -> list[dict[str, str]]:
    """Return the choices of a menu with that of the address, so that a typed address shows what it says."""
    known = {each["value"] for each in data}
    return data if value in known else [*data, {"value": value, "label": visible(value, 60)}]


def _regions(workspace: Workspace) -> list[dict[str, str]]:
    """Return the regions of every map of features, the largest first."""
    found: list[dict[str, str]] = []
    for made in workspace.values(VectorMap):
        if made.features and made.regions_per_level:
            named = made.regions.rows("size > 1 and label <> ''", order="size desc, region", limit=MAX_REGIONS)
            for row in named:
                label = f"{made.name} · {visible(row.label, 40)} ({row.size:,})"
                found.append({"value": f"{made.name}:{row.region}", "label": label})
    return found


def find(workspace: Workspace, state: dict[str, str]) -> Found:
    """Return the search that an address asks for. Raises `UsageError` when a filter of it is malformed."""
    where, region = state["in"], None
    if state["region"]:
        atlas, _, at = state["region"].rpartition(":")
        if not atlas or not at.isdigit():
            raise UsageError(f"region should be MAP:NUMBER, got {state['region']!r}; choose one in the menu")
        region = atlas, int(at)
    try:
        density, score = float(state["d"] or 1), float(state["s"] or 0)
    except ValueError:
        raise UsageError("density and score should be numbers from 0 to 1; choose them in the menus") from None
    return search_features(
        workspace,
        state["q"],
        features=None if not where or where.startswith(HOOK) else where,
        hook_point=where.removeprefix(HOOK) if where.startswith(HOOK) else None,
        density=(0.0, density),
        min_score=score,
        region=region,
        limit=N_HITS,
    )


def _draw(state: dict[str, str], _scheme: str | None) -> Any:
    workspace = current().workspace
    if not state["q"].strip():
        return _welcome()
    return attempt(lambda: results(workspace, find(workspace, state), run=current().live.state != "loading"))


def _welcome() -> html.Section:
    rows = [
        html.Li([html.Span(what), quiet_link(query, _href(query)), html.Span(about, className="wb-quiet")])
        for what, query, about in EXAMPLES
    ]
    return panel(
        "Find features",
        html.Ul(rows, className="wb-find-examples"),
        note="type into the box in the bar; the key / goes there from any page",
    )


def _href(query: str) -> str:
    return f"/search?q={quote(query)}"


def results(workspace: Workspace, found: Found, *, run: bool) -> html.Div:
    """Return the panels of a search: hits by text, by label, by similarity, and what could not be found."""
    several = len({hit.features for hit in found.hits}) > 1
    first = {by: -number for number, by in enumerate(hit.by for hit in reversed(found.hits))}
    sections = [
        _section(title, note, [hit for hit in found.hits if hit.by == by], several=several)
        for by, title, note in sorted(_SECTIONS, key=lambda section: first.get(section[0], 0))
    ]
    shown = [each for each in sections if each is not None]
    empty = [] if shown else [notice(html.P(_nothing(found)), *_near(found))]
    button = dmc.Button(
        "Run the text through the model", id="search-run", variant="default", size="xs", disabled=not run
    )
    foot = panel(
        "Active on this text",
        button,
        note="the features that fire when the model reads exactly this text; the first run loads the model",
    )
    return html.Div([*_remarks(found), *empty, *shown, foot])


_SECTIONS = (
    ("number", "Feature", ""),
    ("name", "Your names", "names that you gave to features in the notes"),
    (
        "phrase",
        "Fires on it in this order",
        "on the last word of a pair of words, right after the first one. Score, null and p are those of the next "
        "panel, of the pairs; counts of the last word alone show how much the order matters",
    ),
    (
        "tokens",
        "Fires on it",
        "score, 0 to 1: for one word F1 of two fractions, the part of the feature's total activation that falls on it "
        "and the part of its tokens on which it fires; for several words the mean of the roots of its activation there "
        "over its largest, so that it counts on how many of them it fires. In brackets the null, for a random feature "
        "that fires as often. p: the probability of as many firings on these words by chance, at its own rate; "
        "corrected for all features searched (Holm), so up to 0.05 counts as found. It takes tokens as independent",
    ),
    (
        "similar",
        "Similar directions",
        "cosine similarity of decoder directions, 1 for the same; in brackets the baseline, the median over all "
        "features of the cosine to the nearest one. p: the probability that one of as many random directions is as "
        "near; directions of a dictionary pass it easily",
    ),
    (
        "label",
        "The label contains it",
        "score: the balanced accuracy of the label on held-out text, 0.5 by chance; in brackets the null, another "
        "feature's label. Of a label by `workbench explain`, detection. 'Also' names another reading that contains it",
    ),
)


def _section(title: str, note: str, hits: list[Hit], *, several: bool) -> html.Section | None:
    if not hits:
        return None
    return panel(title, html.Ol([row(hit, several=several) for hit in hits], className="wb-hits"), note=note or None)


def row(hit: Hit, *, several: bool = False) -> html.Li:
    """Return one hit: label and number, score with its null, the matching tokens, and an example."""
    own = html.Strong(f"{visible(hit.own, 80)} · ") if hit.own else None
    also = html.Span(f" · also: {visible(hit.other, 160)}", className="wb-quiet") if hit.other else None
    name = [own, visible(hit.label, 160) or "no label", also]
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
    return html.Li([html.Div([head, _numbers(hit)], className="wb-hit-head"), _why(hit), _example(hit)])


def _numbers(hit: Hit) -> html.Span:
    parts: list[Any] = []
    if hit.score is not None:
        parts = ["score ", html.Strong(_rounded(hit.score))]
        if hit.null is not None:
            below = hit.score >= 0.05 and 0 < hit.null < 0.01
            parts.append(" [under 0.01]" if below else f" [{_rounded(hit.null)}]")
        parts.append(" · ")
    parts.append(f"fires on {percent(hit.density)} of tokens")
    return html.Span(parts, className="wb-quiet wb-hit-numbers")


def _rounded(value: float) -> str:
    return f"{value:.2f}" if value >= 0.05 else number(value)


def _why(hit: Hit) -> html.Div | None:
    """Return the reason of a hit: the texts that match, and how far its firings are from chance."""
    words = [html.Span([token_text(each.text, 24), _count(each, hit)], className="wb-match") for each in hit.matches]
    share = (
        html.Span(f"{hit.share:.0%} of its activation", className="wb-quiet") if hit.share is not None else None
    )  # fmt: skip
    chance = html.Span(chance_text(hit), className="wb-quiet") if hit.p is not None else None
    return html.Div([*words, share, chance], className="wb-matches") if words or chance else None


def chance_text(hit: Hit) -> str:
    """Return how a hit compares with chance, in a sentence."""
    p = hit.p or 0.0
    said = "p < 1e-12" if p < 1e-12 else f"p = {p:.2g}"
    if hit.expected is None:
        return f"{said} for random directions"
    found = "" if p <= ALPHA else "not above chance: "
    return f"{found}{hit.fired:,} of {hit.tries:,}, by chance {hit.expected:.2g}; {said}"


def _count(match: Match, hit: Hit) -> html.Span:
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


def _remarks(found: Found) -> list[Any]:
    """Return what limits the answer: partial coverage, words that do not occur, words left out."""
    notes = [f"Your own names could not be read: {as_typed(found.names_problem)}"] if found.names_problem else []
    partial = [name for name, text in found.covers.items() if text == "examples"]
    if partial:
        said = f"{program()} features DICTIONARY --recording NAME --overwrite indexes all of the text."
        notes.append(
            f"Only the text of the examples is indexed of {', '.join(partial)}: about thirty passages a feature. "
            f"Counts refer to these passages. {said}"
        )
    if found.left_out:
        notes.append(f"Left out as too frequent: {', '.join(visible(word, 24) for word in found.left_out)}.")
    if found.missing_phrases:
        pairs = ", ".join(f"“{visible(pair, 40)}”" for pair in found.missing_phrases)
        notes.append(f"Not indexed as a phrase: {pairs}. The text holds it fewer than {PHRASE_FROM} times.")
    if found.missing and found.words:
        notes.append(f"Not in the recorded text: {', '.join(visible(word, 24) for word in found.missing)}.")
    lines: list[Any] = [html.P(each, className="wb-note") for each in notes]
    if found.sets_left_out:
        links = [
            quiet_link(visible(each, 40), f"{_href(found.query)}&in={quote(each)}") for each in found.sets_left_out
        ]
        joined = [part for link in links for part in (link, " ")]
        lines.append(html.P(["Layers of sets are searched one set at a time: ", *joined], className="wb-note"))
    return [*lines, *(_near(found) if found.hits else [])]


def _near(found: Found) -> list[Any]:
    if not found.near:
        return []
    links = [html.Span([quiet_link(visible(word, 24), _href(word)), f" ({n:,}) "]) for word, n in found.near]
    return [html.P(["Longer words that begin with it: ", *links], className="wb-note")]


def _nothing(found: Found) -> str:
    if found.missing and not found.words:
        return (
            "The recorded text does not hold this, and no label does. Run the text through the model, or search for a "
            "more common word."
        )
    return "No feature fires on this above its null within these filters. Widen the filters, or run the text."


def _run(clicks: int | None, state: dict[str, str]) -> Any:
    """Run the text through the model when asked, or when a model is loaded and the text has several words."""
    text = state["q"].strip()
    live = current().live
    if not text or (not clicks and not (live.state == "ready" and len(text.split()) > 1)):
        return no_update
    return attempt(lambda: active(current(), text, state))


def active(context: Context, text: str, state: dict[str, str]) -> html.Section:
    """Return the features that fire when the model reads the text, of one dictionary."""
    workspace, where = context.workspace, state["in"]
    made = [
        each for each in workspace.values(Features) if where in ("", each.name, f"{HOOK}{each.settings.hook_point}")
    ]
    made.sort(key=lambda each: not each.sae)
    if not made:
        raise UsageError("there are no features to read the text with; `workbench features` makes them")
    name = made[0].name
    result = context.live.read(text, model=made[0].settings.model, features=name)
    fired = [[(each.feature, each.activation) for each in at] for at in result.features]
    hits = rank_active(workspace, name, result.tokens, fired, N_ACTIVE)
    rows = [row(_whole(context, hit, text, made[0].settings.model)) for hit in hits]
    body = html.Ol(rows, className="wb-hits") if rows else html.P("None fires on this text.", className="wb-none")
    return panel(
        f"Active on this text, by {name}",
        body,
        note="of the five strongest features of each token. Score: strongest activation among these, as a fraction of "
        "the feature's maximum, times log10(1 / density), so that strong and rare features come first. In "
        "brackets the probability that a feature of this density fires on any of as many random tokens",
        className="wb-row",
    )


def _whole(context: Context, hit: Hit, text: str, model: str) -> Hit:
    """Return a hit with its activation on every token: a reading holds the strongest features of each token only."""
    if hit.example is None:
        return hit
    found = context.live.activations(text, model=model, features=hit.features, feature=hit.feature)
    return replace(hit, example=replace(hit.example, activations=tuple(found)))


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
    )(_run)


PAGE = Page(
    title="Search",
    path="/search",
    layout=layout,
    register=register,
    listed=False,
    shows="Features by the words on which they fire, by label, or by similarity.",
    command="workbench demo --no-serve",
)
