"""*Compare*: two named things compared: features, neurons, SAEs, layers, models; every number with its null.

The two names are fields of a form, so the address says what is compared. Stored tables are drawn at once; a callback
adds cosines, activations and matches, which need the weights.
"""

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html

from dashboard.compare import data as view
from dashboard.compare.data import FEATURE, LAYER, SAE, Measure, Thing
from dashboard.components.evidence import number, percent, records_table
from dashboard.components.frame import (
    attempt,
    attrs,
    graph,
    guarded,
    notice,
    page,
    panel,
    quiet_link,
    save_search_control,
    stat,
)
from dashboard.components.frame import explain as explain_error
from dashboard.components.pages import (
    Context,
    NothingYetError,
    Page,
    compare_href,
    current,
    feature_href,
    first_step,
    run_button,
    runs_href,
    sae_href,
)
from dashboard.components.tokens import token_bars, token_strip, token_text
from dashboard.data.features import examples
from dashboard.data.meaning import said_by
from dashboard.figures.scaling import cosine_histogram
from dashboard.figures.theme import theme, visible
from interp.errors import WorkbenchError, as_typed
from interp.workspace import Workspace

N_EXAMPLES, N_TOKENS = 6, 8
_WAIT = html.P(
    [
        "Measuring, from the weights: the first time takes some seconds.",
        html.Progress(**attrs({"aria-label": "Progress of the measurement"})),
    ],
    className="wb-busy wb-busy-on",
)
N_SHOWN = 25
"""Matched pairs shown of the largest, and of the smallest cosine."""


def layout(context: Context, a: str = "", b: str = "", **_: Any) -> html.Div:
    """`/compare?a=<name>&b=<name>`; without the second name, or both, the page proposes some."""
    workspace = context.workspace
    known = view.options(workspace)
    if not known:
        raise NothingYetError(f"there is nothing to compare in {workspace.address}")
    form = _form(known, a, b)
    try:
        named = [each for each in (a, b) if each.strip()]
        things = view.two(workspace, a, b) if len(named) == 2 else [view.thing(workspace, each) for each in named]
    except WorkbenchError as error:
        return page("Compare", form, notice(explain_error(error), tone="error"), _begin(workspace, known))
    if len(things) < 2:
        body = [_partners(workspace, things[0])] if things else [_begin(workspace, known)]
        return page("Compare", form, *body, lead=PAGE.shows)
    return page(
        "Compare",
        dcc.Store(id="compare-state", data={"a": things[0].name, "b": things[1].name}),
        form,
        html.Div(id="compare-parts"),
        html.Div(_WAIT, id="compare-measured", className="wb-compare-measured", **attrs({"aria-live": "polite"})),
        html.Div(id="compare-rest"),
        controls=save_search_control(),
    )


def register(app: Dash) -> None:
    """Add the callbacks: the parts from tables, and those that need the weights."""
    state = (Input("compare-state", "data"), State("scheme", "data"))
    app.callback(Output("compare-parts", "children"), Output("compare-rest", "children"), *state)(show_stored)
    app.callback(Output("compare-measured", "children"), *state)(show_measured)


def _form(known: list[str], a: str, b: str) -> html.Form:
    def field(name: str, label: str, value: str) -> dmc.Autocomplete:
        return dmc.Autocomplete(
            id=f"compare-{name}", name=name, label=label, value=value, data=known, limit=12, size="xs",
            placeholder="demo:12, demo, blocks.9.hook_resid_post ...", className="wb-compare-field",
        )  # fmt: skip

    return html.Form(
        [
            field("a", "Compare", a),
            field("b", "with", b),
            html.Button("Compare", type="submit", className="wb-act"),
            quiet_link("swap", compare_href(b, a)) if a and b else None,
        ],
        action="/compare", method="get", className="wb-panel wb-compare-form",
        **attrs({"aria-label": "Two things to compare"}),
    )  # fmt: skip


_NAMES = (
    ("a feature", "demo:12", "SAE or features artefact, and number"),
    ("a neuron", "neurons:blocks.9.mlp.hook_post:12", "layer and number"),
    ("an SAE", "demo", "features are matched, scores compared at one L0"),
    ("a layer", "blocks.9.hook_resid_post", "MODEL@blocks.9.hook_resid_post in another model"),
    ("a model", "smollm2-135m", "base and tuned model"),
)


def _begin(workspace: Workspace, known: list[str]) -> html.Section:
    """Return how to name things, with examples from this workspace."""
    rows = [
        html.Li([html.Span(kind), html.Code(example), html.Span(about, className="wb-quiet")])
        for kind, example, about in _NAMES
    ]
    links = [html.Li(quiet_link(name, compare_href(name))) for name in known[:12]]
    return panel(
        "Choose two things of one kind",
        html.Ul(rows, className="wb-compare-names"),
        html.H3("In this workspace"),
        html.Ul(links, className="wb-lines"),
        html.P(["Models elsewhere: ", quiet_link("run compare models", runs_href("compare models")), "."]),
        note="compare a feature with a feature or a neuron, everything else with its own kind",
    )


def _partners(workspace: Workspace, one: Thing) -> html.Section:
    lines: list[html.Li] = []
    for name, reason in view.partners(workspace, one):
        label = _label(workspace, view.thing(workspace, name))
        link = quiet_link(f"{name} {label}".strip(), compare_href(one.name, name))
        lines.append(html.Li([link, html.Span(reason, className="wb-quiet")]))
    body = html.Ul(lines, className="wb-lines") if lines else html.P("Name another one above.", className="wb-none")
    return panel(
        "Compare with",
        body,
        className="wb-compare-partners",
        note=[_named(workspace, one), f", a {one.kind}; any other name works too"],
    )


def _label(workspace: Workspace, one: Thing) -> str:
    row = view.about(workspace, one)
    return visible(row.label, 60) if row else ""


def _named(workspace: Workspace, one: Thing) -> Any:
    text = f"{one.name} {_label(workspace, one)}".strip()
    return quiet_link(text, one.href) if one.href else text


def _things(state: dict[str, str]) -> tuple[Workspace, Thing, Thing, str]:
    workspace = current().workspace
    a, b = view.two(workspace, state["a"], state["b"])
    return workspace, a, b, view.kind_of(a, b)


def show_stored(state: dict[str, str], scheme: str | None) -> tuple[Any, Any]:
    """Return what is known of two things without a computation, in two parts: the second is below the measures."""
    workspace, a, b, kind = _things(state)
    if kind == FEATURE:
        sides = html.Div(
            [guarded(each.name, lambda each=each: _side(workspace, each)) for each in (a, b)],
            className="wb-two wb-even",
        )
        return sides, [_shared(workspace, a, b), _examples(workspace, a, b)]
    if kind == SAE:
        return _scores(workspace, a, b), None
    return attempt(lambda: _layers(workspace, a, b) if kind == LAYER else _models(workspace, a, b)), None


def show_measured(state: dict[str, str], scheme: str | None) -> Any:
    """Return what is computed from the weights of two features or SAEs; None for layers and models."""
    workspace, a, b, kind = _things(state)
    if kind == FEATURE:
        return attempt(lambda: _pair(workspace, a, b, scheme))
    return attempt(lambda: _matched(workspace, a, b, scheme)) if kind == SAE else None


_NULL = "95th percentile of the null, or the expected value"


def measures_table(measures: list[Measure], label: str = "Measures") -> html.Div:
    """Return measures as rows, each with the null in words: value, null, p."""
    head = (("measure", ""), ("value", ""), ("null", _NULL), ("p", "fraction of the null that reaches the value"))
    rows = [
        html.Tr(
            [
                html.Th([visible(each.name, 160), html.Span(f"null: {visible(each.of, 160)}")], scope="row"),
                html.Td(html.Strong(number(each.value))),
                html.Td("–" if each.null is None else number(each.null)),
                html.Td("–" if each.p is None else number(each.p)),
            ]
        )
        for each in measures
    ]
    titles = [html.Th(name, scope="col", title=about or None) for name, about in head]
    return _scrolled([html.Thead(html.Tr(titles)), html.Tbody(rows)], "wb-measures", label)


def _scrolled(parts: list[Any], class_name: str, label: str) -> html.Div:
    """Return a table that scrolls sideways on a narrow screen, by keyboard too."""
    about = attrs({"aria-label": label, "tabIndex": 0, "role": "region"})
    return html.Div(html.Table(parts, className=f"wb-evidence {class_name}"), className="wb-scroll", **about)


def _side(workspace: Workspace, one: Thing) -> list[Any]:
    """Return one feature or neuron: label, density, promoted tokens."""
    row = view.about(workspace, one)
    where = f"{one.kind} at {one.hook_point} of {one.model}"
    if row is None:
        said = as_typed("No table describes it; `workbench features` makes one.")
        return [html.P(where, className="wb-note"), html.P(said, className="wb-none")]
    tokens = row.promoted[:N_TOKENS]
    label = visible(row.label or "", 300) or ("never fires" if not row.n_fired else "no label")
    parts: list[Any] = [
        html.P([quiet_link(label, one.href), html.Span(f" from {row.label_source}", className="wb-quiet")], dir="auto"),
        html.P(where, className="wb-note"),
        html.Div(
            [
                stat("density", percent(row.density), "fraction of tokens on which it is active"),
                stat("tokens", f"{row.n_fired:,}", "tokens on which it is active"),
                stat("max", number(row.max_activation), "largest activation seen"),
            ],
            className="wb-stats",
        ),
    ]
    said = said_by(workspace, one.features, one.index)
    note = "direct effect on the next token's logits"
    if said.saying is not None:
        tokens = list(said.saying.raised[:N_TOKENS])
        note = "through the Jacobian lens, in standard deviations of all tokens' logits"
    if tokens:
        label = f"Tokens that {one.name} promotes"
        parts += [html.H3("Promotes", title=note), token_bars(tokens, label=label, form="{:+.2f}".format)]
    return parts


def _pair(workspace: Workspace, a: Thing, b: Thing, scheme: str | None) -> html.Section:
    from dashboard.compare import measure

    found = measure.pair(workspace, a, b)
    fired = view.together(workspace, a, b)
    rows = [*found.measures, *([fired] if fired else [])]
    parts: list[Any] = [html.P(html.Strong(found.finding))] if found.finding else []
    parts += [measures_table(rows)] if rows else []
    parts += [html.P(visible(f"Not measured: {each}", 400), className="wb-none") for each in found.missing]
    if found.cosines is not None:
        names, value = ("random pairs", "nearest neighbours"), found.measures[0].value
        parts.append(_histogram("compare-cosines", found.cosines, names, scheme, marker=value))
    if found.nearest:
        table = b.features or b.name.rpartition(":")[0]
        named = view.labels(workspace, b, [index for index, _ in found.nearest])
        lines: list[html.Li] = []
        for index, cosine in found.nearest:
            text = f"{index} {visible(named.get(index) or '', 60)}".strip()
            link = quiet_link(text, compare_href(a.name, f"{table}:{index}"))
            lines.append(html.Li([link, html.Span(f"{cosine:+.2f}", className="wb-value")]))
        parts += [html.H3(f"Nearest to {a.name} in {table}"), html.Ol(lines, className="wb-lines")]
    note = (
        "Random pairs: each of the two with every other latent of the other's dictionary. Vertical line: this pair. "
        "If a search found the pair, compare it with the nearest neighbours instead."
    )
    return panel("Measures", *parts, more=note)


def _histogram(
    id: str, found: Any, names: tuple[str, str], scheme: str | None, *, marker: float | None = None
) -> html.Div:
    from dashboard.compare.measure import EDGES

    figure = cosine_histogram(found.counts, found.other, EDGES.tolist(), theme(scheme), names=names, marker=marker)
    return graph(id, figure=figure, height=230, label=f"Cosines of {names[0]} and of {names[1]}")


def _shared(workspace: Workspace, a: Thing, b: Thing) -> html.Section:
    def body() -> list[Any]:
        found = view.shared_tokens(workspace, a, b)
        if not found:
            return [html.P("No tokens are recorded for both.", className="wb-none")]
        parts: list[Any] = [measures_table([each.measure for each in found], "Shared tokens")]
        for each in found:
            spans = [span for token in each.tokens for span in (token_text(token), " · ")][:-1]
            parts += [html.H3(f"Both: {each.what}"), html.P(spans or "none", className="wb-shared")]
        return parts

    return guarded("Tokens in common", body, note="without case, and without spaces at the ends")


def _examples(workspace: Workspace, a: Thing, b: Thing) -> html.Section:
    def side(one: Thing) -> html.Div:
        rows = examples(workspace, one.features, one.index)[:N_EXAMPLES] if one.features else []
        maximum = max((row.activation for row in rows), default=1.0)
        lines = [
            html.Li([html.Span(f"{row.activation:.3g}", className="wb-value"),
                     token_strip(row.tokens, row.activations, maximum=maximum, peak=row.peak)])
            for row in rows
        ]  # fmt: skip
        none = html.P("No examples are recorded.", className="wb-none")
        return html.Div([html.H3(one.name), html.Ol(lines, className="wb-compare-examples") if lines else none])

    return guarded("Strongest examples", lambda: [html.Div([side(a), side(b)], className="wb-two wb-even")])


def _scores(workspace: Workspace, a: Thing, b: Thing) -> html.Section:
    def body() -> list[Any]:
        found = view.scores(workspace, a, b)
        about = [html.Span(f"{each.hook_point} of {each.model}", className="wb-quiet") for each in (a, b)]
        links = [quiet_link(each.name, sae_href(each.name)) for each in (a, b)]
        sides = html.Ul([html.Li(list(each)) for each in zip(links, about, strict=True)], className="wb-lines")
        said = "Not comparable: each at its own L0, on its own held-out documents. A run compares them at one L0."
        if found["artefact"]:
            said = (
                f"Scores on held-out tokens after truncation to a common L0 of {found['l0']:.1f}; CE: cross-entropy. "
                f"From the comparison {found['artefact']}."
            )
        parts = [sides, records_table(found["rows"]), html.P(said, className="wb-note wb-flush")]
        stored = found["artefact"] and view.stored_matches(workspace, a, b) is not None
        if not stored and (run := view.run_of(workspace, a, b)):
            text = "Compare at one L0, and match features"
            parts.append(run_button(*run, id="compare-saes", text=text, then=compare_href(a.name, b.name)))
        return parts

    return guarded("Error and sparsity", body)


def _matched(workspace: Workspace, a: Thing, b: Thing, scheme: str | None) -> html.Section:
    from dashboard.compare import measure

    found = measure.saes(workspace, a, b)
    parts: list[Any] = [html.P(visible(f"Not matched: {each}", 400), className="wb-none") for each in found.missing]
    if found.cosines is not None:
        ends = {"Closest pairs": found.pairs(N_SHOWN), "Least alike pairs": found.pairs(N_SHOWN, last=True)}
        tables = [html.Div([html.H3(title), _pairs(workspace, a, b, rows, title)]) for title, rows in ends.items()]
        parts += [
            html.P(html.Strong(found.finding)),
            measures_table(found.measures),
            _histogram("compare-matches", found.cosines, ("matched latents", "matched random directions"), scheme),
            html.Div(tables, className="wb-two wb-even"),
        ]
    note = (
        "Latents are matched one to one, with the largest sum of cosines of decoder directions. Null: the same match "
        "with random directions of the same second moments as those of the second SAE."
    )
    return panel("Features in common", *parts, more=note)


def _pairs(workspace: Workspace, a: Thing, b: Thing, rows: list[dict[str, Any]], title: str) -> html.Div:
    """Return matched pairs as a table with links to both features, and to their comparison."""
    sides = (("first", a), ("second", b))
    named = {key: view.labels(workspace, one, [row[key] for row in rows]) for key, one in sides}

    def cell(key: str, one: Thing, row: dict[str, Any]) -> html.Td:
        text = f"{row[key]} {visible(named[key].get(row[key]) or '', 40)}".strip()
        return html.Td(quiet_link(text, feature_href(one.features, row[key])) if one.features else text, dir="auto")

    def both(row: dict[str, Any]) -> html.Td:
        names = [f"{one.features or one.name}:{row[key]}" for key, one in sides]
        return html.Td(quiet_link(f"{row['cosine']:.2f}", compare_href(*names), title="compare the two"))

    body = [html.Tr([*(cell(key, one, row) for key, one in sides), both(row)]) for row in rows]
    head = html.Tr([html.Th(text, scope="col") for text in (a.name, b.name, "cosine")])
    return _scrolled([html.Thead(head), html.Tbody(body)], "wb-pairs", title)


def _layers(workspace: Workspace, a: Thing, b: Thing) -> list[Any]:
    found, here = view.layer_pair(workspace, a, b), compare_href(a.name, b.name)
    parts: list[Any] = []
    if found is not None:
        link = quiet_link(found.comparison.key, found.comparison.href)
        parts = [measures_table(found.measures), html.P(["From ", link, "."], className="wb-note wb-flush")]
    elif (run := view.run_of(workspace, a, b)) is not None:
        names, points = dict.fromkeys([a.model, b.model]), run[1]["hook_points"]
        parts = [
            html.P("No comparison in this workspace has both layers yet.", className="wb-none"),
            run_button(*run, id="compare-layers", text="Compare these layers", then=here),
            _command(f"workbench geometry compare {' '.join(names)} --hook-points {' '.join(points)}"),
        ]
    nulls = "isotropic points for the participation ratio, Gaussian ones for TwoNN"
    return [
        panel("Similarity on the same tokens", *parts, note="each number with its null: shuffled tokens"),
        panel("Dimension of each space", *_spaces(workspace, a, b, here), note=f"each with its null: {nulls}"),
    ]


_SPACE = {
    "participation_ratio": "participation ratio (directions in use)", "isotropic": "of isotropic points",
    "two_nn": "TwoNN dimension", "two_nn_gaussian": "of Gaussian points", "cosine": "mean cosine of two points",
}  # fmt: skip


def _spaces(workspace: Workspace, a: Thing, b: Thing, here: str) -> list[Any]:
    spaces = [(one, view.dimensions(workspace, one)) for one in dict.fromkeys((a, b))]
    rows = [{"layer": one.name, **{words: row.get(key) for key, words in _SPACE.items()}} for one, row in spaces if row]
    parts: list[Any] = [records_table(rows)] if rows else []
    if without := [one for one, row in spaces if row is None and one.model == a.model]:
        points = [one.hook_point for one in without]
        options = {"model": a.model, "hook_points": points, "name": view.slug("space", *points)}
        parts.append(html.P(f"Not measured: {', '.join(points)}.", className="wb-none"))
        parts.append(run_button("geometry space", options, id="compare-spaces", text="Measure them", then=here))
    return parts


def _command(text: str) -> html.Pre:
    return html.Pre(as_typed(f"`{text}`").strip("`"), className="wb-command")


def _models(workspace: Workspace, a: Thing, b: Thing) -> list[Any]:
    panels: list[html.Section] = []
    pairs = view.model_pairs(workspace, a, b)
    for each in pairs:
        said = [html.Li(visible(f"{text[:1].upper()}{text[1:]}.", 600)) for text in each.findings]
        link = html.P(quiet_link(f"Open {each.artefact}", each.href))
        panels.append(panel(each.kind.capitalize(), html.Ul(said, className="wb-said") if said else None, link))
    made = {each.kind for each in pairs}
    asks = (
        ("model comparison", "compare models", {"base": a.name, "tuned": b.name}, "Compare as base and tuned model"),
        ("space comparison", "geometry compare", {"model": a.name, "other": b.name}, "Compare their layers"),
    )
    return panels + [_ask(a, b, verb, options, text) for kind, verb, options, text in asks if kind not in made]


def _ask(a: Thing, b: Thing, verb: str, options: dict[str, Any], text: str) -> html.Section:
    """Return a button, a link to the form and the command for a comparison of two models that the workspace lacks."""
    return panel(
        text,
        run_button(verb, options, id=verb.replace(" ", "-"), text=f"Run {verb}", then=compare_href(a.name, b.name)),
        html.P(quiet_link("with other texts and settings", runs_href(verb, **options))),
        _command(f"workbench {verb} {a.name} {b.name}"),
        note=_MAKES[verb],
    )


_MAKES = {
    "compare models": "not made yet: effects of fine-tuning on weights, residual stream and heads, and the parts that "
    "carry them; null: the base rounded, or models trained further without the change",
    "geometry compare": "not made yet: CKA of all layers with all; null: shuffled tokens",
}


PAGE = Page(
    title="Compare",
    path="/compare",
    order=105,
    layout=layout,
    register=register,
    shows="Two features, neurons, SAEs, layers or models compared, every number with its null.",
    command="workbench demo --no-serve",
    fill=first_step,
)
