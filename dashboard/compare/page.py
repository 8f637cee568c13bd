"""*Compare*: two features or neurons compared, every number with its null.

The two names are fields of a form, so the address says what is compared. Stored tables are drawn at once; a callback
adds cosines and activations, which need the weights. *Counterparts* shows features of two dictionaries, of any models,
that fire on the same words.
"""

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html

from dashboard.compare import _data as view
from dashboard.compare import measure
from dashboard.compare._data import FeatureOrNeuron, Measure
from dashboard.components.evidence import number, percent, records_table
from dashboard.components.forms import feature_input
from dashboard.components.frame import (
    Children,
    Part,
    attempt,
    attrs,
    graph,
    guarded,
    notice,
    page,
    panel,
    quiet_link,
    select,
    stat,
    verdict,
)
from dashboard.components.frame import explain as explain_error
from dashboard.components.pages import (
    Page,
    changes_href,
    compare_href,
    feature_href,
    first_step,
    geometry_href,
    runs_href,
    sae_href,
)
from dashboard.components.tokens import token_bars, token_strip, token_text
from dashboard.data import features
from dashboard.data.feature_names import bare_name, is_name, proposals
from dashboard.data.features import choose, examples
from dashboard.data.meaning import meaning_if_known, said_by
from dashboard.figures.scaling import cosine_histogram
from dashboard.figures.theme import theme, visible
from dashboard.sources import NothingYetError, PageSources, current
from interp.errors import WorkbenchError, as_typed
from interp.models.short_name import short_name
from interp.workspace import Workspace
from saes.evaluation.counterparts import ALIKE, APART, ONE_WORD, SAME, Counterparts
from saes.features.schema import MOST_TELLING, Features
from saes.features.search import search_features

N_EXAMPLES, N_TOKENS, N_HITS = 6, 8, 12
_WAIT = html.P(
    [
        "Measuring, from the weights: the first time takes some seconds.",
        html.Progress(**attrs({"aria-label": "Progress of the measurement"})),
    ],
    className="wb-busy wb-busy-on",
)


def layout(context: PageSources, a: str = "", b: str = "", pairs: str = "", **_: object) -> html.Div:
    """`/compare?a=<name>&b=<name>`; in place of a name a text, for which the page proposes features.

    `pairs` names the counterparts of two dictionaries; without it, the newest are shown.
    """
    workspace = context.workspace
    known, described = proposals(workspace, ""), workspace.names("features")
    first = choose(workspace, None) if described else ""
    a, b = bare_name(a, first), bare_name(b, first)
    if not known and not workspace.names("sae"):
        raise NothingYetError(f"there are no features to compare in {workspace.address}")
    form, texts = _form(known, a, b), [text for text in (a, b) if text.strip()]
    try:
        if not all(map(is_name, texts)):
            return page("Compare", form, _hits(workspace, a, b), _others())
        if len(texts) < 2:
            body = _partners(workspace, view.named(workspace, texts[0])) if texts else _begin(known)
            made = None if texts else view.newest(workspace, pairs)
            both = None if made is None else attempt(lambda: counterparts_panel(workspace, made))
            return page("Compare", form, both, body, _others(), lead=PAGE.shows)
        names = [feature.name for feature in view.both(workspace, a, b)]
    except WorkbenchError as error:
        return page("Compare", form, notice(explain_error(error), tone="error"), _begin(known), _others())
    return page(
        "Compare",
        dcc.Store(id="compare-state", data=names),
        form,
        html.Div(id="compare-parts"),
        html.Div(_WAIT, id="compare-measured", className="wb-compare-measured", **attrs({"aria-live": "polite"})),
        html.Div(id="compare-rest"),
    )


def register(app: Dash) -> None:
    """Add the callbacks: the parts from tables, and those that need the weights."""
    state = (Input("compare-state", "data"), State("scheme", "data"))
    app.callback(Output("compare-parts", "children"), Output("compare-rest", "children"), state[0])(show_stored)
    app.callback(Output("compare-measured", "children"), *state)(show_measured)
    for side in ("a", "b"):
        field = f"compare-{side}"
        app.callback(Output(field, "data"), Input(field, "value"), prevent_initial_call=True)(propose)


def propose(text: str | None) -> list[str]:
    """Return what the menu of a field offers for what was typed in it."""
    return proposals(current().workspace, text or "")


def _form(known: list[str], a: str, b: str) -> html.Form:
    def field(name: str, label: str, value: str) -> dmc.Autocomplete:
        return feature_input(f"compare-{name}", label, known, value, name=name, className="wb-compare-field")

    return html.Form(
        [
            field("a", "Compare", a),
            field("b", "with", b),
            html.Button("Compare", type="submit", className="wb-act"),
            quiet_link("swap", compare_href(b, a)) if a and b else None,
        ],
        action="/compare", method="get", className="wb-panel wb-compare-form",
        **attrs({"aria-label": "Two features to compare"}),
    )  # fmt: skip


def _begin(known: list[str]) -> html.Section:
    """Return how to name features, with examples from this workspace."""
    return panel(
        "Choose two features",
        html.Ul(
            [html.Li(quiet_link(visible(name, 80), compare_href(bare_name(name)))) for name in known[:12]],
            className="wb-lines",
        ),
        note=[
            "type a number or a word and choose; a neuron is ",
            html.Code("neurons:blocks.9.mlp.hook_post:12"),
        ],
    )


def _others() -> html.Section:
    """Return where dictionaries, layers and models are compared."""
    lines = [
        html.Li(
            [f"{what}: ", quiet_link(title, href), f" {shows}. Run ", quiet_link(verb, runs_href(verb)), "."],
            className="wb-note",
        )
        for what, title, href, shows, verb in _OTHERS
    ]
    return panel("Compare something else", html.Ul(lines, className="wb-said"))


_OTHERS = (
    ("SAEs", "SAE", sae_href(""), "shows them at one L0, with their common features", "compare saes"),
    ("Layers", "Geometry", geometry_href(""), "shows their CKA", "geometry compare"),
    ("Models", "Changes", changes_href(""), "shows the effects of fine-tuning", "compare models"),
)


def _hits(workspace: Workspace, a: str, b: str) -> html.Section:
    """Return the features that fit the first text of the form that is not a name, each as a link that puts it there."""
    text = next(field for field in (a, b) if field.strip() and not is_name(field))
    answer = search_features(workspace, text, limit=N_HITS, examples=False, meanings=meaning_if_known)
    lines: list[html.Li] = []
    for hit in answer.hits:
        name = f"{hit.features}:{hit.feature}"
        href = compare_href(name, b) if text == a else compare_href(a, name)
        lines.append(html.Li(quiet_link(f"{name} {visible(hit.label, 60)}".strip(), href)))
    body = html.Ul(lines, className="wb-lines") if lines else html.P("No feature fits it.", className="wb-none")
    return panel(f"Features for {visible(text, 60)}", body, note="choose one; the page Search says why each fits")


def _partners(workspace: Workspace, feature: FeatureOrNeuron) -> html.Section:
    lines: list[html.Li] = []
    for name, reason in view.partners(workspace, feature):
        label = _label(workspace, view.named(workspace, name, model=feature.model))
        link = quiet_link(f"{name} {label}".strip(), compare_href(feature.name, name))
        lines.append(html.Li([link, html.Span(reason, className="wb-quiet")]))
    body = html.Ul(lines, className="wb-lines") if lines else html.P("Name another one above.", className="wb-none")
    text = f"{feature.name} {_label(workspace, feature)}".strip()
    return panel(
        "Compare with",
        body,
        className="wb-compare-partners",
        note=[_linked(feature, text), "; any other name works too"],
    )


def _label(workspace: Workspace, feature: FeatureOrNeuron) -> str:
    row = view.about(workspace, feature)
    return visible(row.label, 60) if row else ""


def _linked(feature: FeatureOrNeuron, text: str) -> dcc.Link | str:
    return quiet_link(text, feature_href(feature.features, feature.index)) if feature.features else text


def show_stored(names: list[str]) -> tuple[Any, Any]:
    """Return what is known of two features without a computation, in two parts: the second is below the measures."""
    workspace = current().workspace
    a, b = view.both(workspace, *names)
    sides = html.Div(
        [guarded(feature.name, lambda feature=feature: _side(workspace, feature)) for feature in (a, b)],
        className="wb-two wb-even",
    )
    return sides, [_shared(workspace, a, b), _examples(workspace, a, b)]


def show_measured(names: list[str], scheme: str | None) -> Children:
    """Return what is computed from the weights of two features."""
    workspace = current().workspace
    return attempt(lambda: _pair(workspace, *view.both(workspace, *names), scheme))


def measures_table(measures: list[Measure]) -> html.Div:
    """Return measures as rows, each with its null."""
    titles = {"name": "measure", "value": "value", "null": "null", "p": "p", "of": "null made of"}
    return records_table([{title: getattr(row, field) for field, title in titles.items()} for row in measures])


def _side(workspace: Workspace, feature: FeatureOrNeuron) -> list[Part]:
    """Return one feature or neuron: label, density, promoted tokens."""
    row = view.about(workspace, feature)
    where = f"{'neuron' if feature.neuron else 'feature'} at {feature.hook_point} of {short_name(feature.model)}"
    if row is None:
        hint = as_typed("No table describes it; `workbench features` makes one.")
        return [html.P(where, className="wb-note"), html.P(hint, className="wb-none")]
    tokens = row.promoted[:N_TOKENS]
    label = visible(row.label or "", 300) or ("never fires" if not row.n_fired else "no label")
    parts: list[Part] = [
        html.P([_linked(feature, label), html.Span(f" from {row.label_source}", className="wb-quiet")], dir="auto"),
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
    lens = said_by(workspace, workspace.open(Features, feature.features), feature.index)
    note = "direct effect on the next token's logits"
    if lens.saying is not None:
        tokens = list(lens.saying.raised[:N_TOKENS])
        note = "through the Jacobian lens, in standard deviations of all tokens' logits"
    if tokens:
        label = f"Tokens that {feature.name} promotes"
        parts += [html.H3("Promotes", title=note), token_bars(tokens, label=label, form="{:+.2f}".format)]
    return parts


def _pair(workspace: Workspace, a: FeatureOrNeuron, b: FeatureOrNeuron, scheme: str | None) -> html.Section:
    comparison = measure.pair(workspace, a, b)
    parts: list[Part] = [verdict(comparison.verdict, html.P(_METHOD))] if comparison.verdict else []
    parts += [measures_table(comparison.measures)] if comparison.measures else []
    parts += [html.P(visible(f"Not measured: {sentence}", 400), className="wb-none") for sentence in comparison.missing]
    if comparison.cosines is not None:
        random, nearest, value = comparison.cosines.random, comparison.cosines.nearest, comparison.measures[0].value
        figure = cosine_histogram(random, nearest, measure.EDGES.tolist(), theme(scheme), marker=value)
        label = "Cosines of random pairs and of nearest neighbours"
        parts.append(graph("compare-cosines", figure=figure, height=230, label=label))
    if comparison.nearest:
        table = b.features or b.name.rpartition(":")[0]
        named = view.labels(workspace, b, [index for index, _ in comparison.nearest])
        lines: list[html.Li] = []
        for index, cosine in comparison.nearest:
            text = f"{index} {visible(named.get(index) or '', 60)}".strip()
            link = quiet_link(text, compare_href(a.name, f"{table}:{index}"))
            lines.append(html.Li([link, html.Span(f"{cosine:+.2f}", className="wb-value")]))
        parts += [html.H3(f"Nearest to {a.name} in {table}"), html.Ol(lines, className="wb-lines")]
    return panel("Measures", *parts)


_METHOD = (
    "Random pairs: each of the two with every other latent of the other's dictionary. Vertical line: this pair. "
    "If a search found the pair, compare it with the nearest neighbours instead. Null: its 95th percentile in "
    "magnitude, or the expected value. p: the fraction of the null that reaches the value."
)


def _shared(workspace: Workspace, a: FeatureOrNeuron, b: FeatureOrNeuron) -> html.Section:
    def body() -> list[Part]:
        shared = view.shared_tokens(workspace, a, b)
        if not shared:
            return [html.P("No tokens are recorded for both.", className="wb-none")]
        parts: list[Part] = [measures_table([row.measure for row in shared])]
        for row in shared:
            spans = [span for token in row.tokens for span in (token_text(token), " · ")][:-1]
            parts += [html.H3(f"Both: {row.what}"), html.P(spans or "none", className="wb-shared")]
        return parts

    return guarded("Tokens in common", body, note="without case, and without spaces at the ends")


def _examples(workspace: Workspace, a: FeatureOrNeuron, b: FeatureOrNeuron) -> html.Section:
    def side(feature: FeatureOrNeuron) -> html.Div:
        described = workspace.open(Features, feature.features) if feature.features else None
        rows = examples(described, feature.index)[:N_EXAMPLES] if described else []
        maximum = max((row.activation for row in rows), default=1.0)
        lines = [
            html.Li([html.Span(f"{row.activation:.3g}", className="wb-value"),
                     token_strip(row.tokens, row.activations, maximum=maximum, peak=row.peak)])
            for row in rows
        ]  # fmt: skip
        none = html.P("No examples are recorded.", className="wb-none")
        return html.Div([html.H3(feature.name), html.Ol(lines, className="wb-compare-examples") if lines else none])

    return guarded("Strongest examples", lambda: [html.Div([side(a), side(b)], className="wb-two wb-even")])


N_SHOWN, N_CHOICES, N_ALONE = 24, 400, 12
_BOTH = f"""select p.* from t p join t q on p.side = 'first' and q.side = 'second'
            and p.feature = q.counterpart and p.counterpart = q.feature
            where p.correlation > {ALIKE} order by p.share <= {ONE_WORD} desc, p.correlation desc, p.feature limit ?"""
"""Features that are each other's counterpart; those that know more than one word's forms first."""


def counterparts_panel(workspace: Workspace, made: Counterparts) -> html.Section:
    """Return the pairs of two dictionaries side by side, those of one only, and the shares with their nulls."""
    rows = made.pairs.rows_of(made.pairs.query(_BOTH, N_CHOICES))
    first, second = made.settings.first, made.settings.second
    mine = features.labels(workspace, first, [row.feature for row in rows])
    theirs = features.labels(workspace, second, [row.counterpart for row in rows])
    texts = [(_text(row.feature, mine), _text(row.counterpart, theirs)) for row in rows]
    links = [compare_href(f"{first}:{row.feature}", f"{second}:{row.counterpart}") for row in rows]
    menu = [{"value": href, "label": f"{a} ↔ {b}"} for (a, b), href in zip(texts, links, strict=True)]
    table = [
        html.Tr(
            [
                html.Td(quiet_link(a, feature_href(first, row.feature)), dir="auto"),
                html.Td(quiet_link(f"{row.correlation:.2f}", href), className="wb-value"),
                html.Td(quiet_link(b, feature_href(second, row.counterpart)), dir="auto"),
                html.Td(visible(", ".join(row.words), 80), className="wb-quiet", dir="auto"),
            ]
        )
        for row, (a, b), href in list(zip(rows, texts, links, strict=True))[:N_SHOWN]
    ]
    head = html.Thead(html.Tr([html.Th(title) for title in (first, "correlation", second, "fires on")]))
    return panel(
        "Counterparts",
        html.P(html.Strong(f"{made.headline()}.")),
        _menu(menu) if menu else None,
        html.Div(
            html.Table([head, html.Tbody(table)], className="wb-evidence wb-records wb-pairs"), className="wb-scroll"
        )
        if table
        else None,
        html.Div([_alone(workspace, made, "first"), _alone(workspace, made, "second")], className="wb-two wb-even"),
        html.Details([html.Summary("How many, and by chance"), _shares(made)]),
        note=f"the same {made.settings.n_words:,} words read by both; choose a pair to compare it",
        more=(
            f"A pair is chosen on half of the documents and judged on the other half; correlations are of the other "
            f"half. It counts from {ALIKE}. Nulls: the documents shuffled; an untrained dictionary and the neurons of "
            "the layer in place of the first, as sparse. More than one word: no word with its forms, and no token, has "
            "over half of the strong firings."
        ),
    )


def _menu(pairs: list[dict[str, str]]) -> html.Div:
    """Return the menu that opens the comparison of a pair; the callback is that of the menu of artefacts."""
    menu = select("artefact-menu", "Pairs to compare", pairs, None, 460, searchable=True, placeholder="Find a pair")
    return html.Div([dcc.Store(id="artefact-shown", data=""), menu], className="wb-compare-pick")


def _text(feature: int, labels: dict[int, str]) -> str:
    return visible(labels.get(feature) or f"feature {feature}", 48)


def _shares(made: Counterparts) -> html.Div:
    rows = [
        {
            "features of": share.features,
            "paired": share.n,
            f"above {ALIKE}": percent(share.alike / max(share.n, 1)),
            f"above {SAME}": percent(share.same / max(share.n, 1)),
            "agree": percent(share.hold / max(share.n, 1)),
            "more than one word": "" if share.wide is None else share.wide,
        }
        for share in made.shares
    ]
    return records_table(rows)


def _alone(workspace: Workspace, made: Counterparts, side: str) -> html.Div:
    """Return the features of one dictionary that nothing in the other correlates with, those that say most first."""
    settings = made.settings
    name, other = (settings.first, settings.second) if side == "first" else (settings.second, settings.first)
    apart = made.pairs.query(f"select feature from t where side = ? and correlation < {APART}", side)[
        "feature"
    ].to_pylist()
    path = workspace.table_path("features", name, "features")
    sql = f"select feature from f where list_contains(?, feature) order by {MOST_TELLING} limit {N_ALONE}"
    first = workspace.query(sql, apart, f=path)["feature"].to_pylist() if apart else []
    labels = features.labels(workspace, name, first)
    lines: list[Part] = [html.Li(quiet_link(_text(at, labels), feature_href(name, at)), dir="auto") for at in first]
    body = html.Ul(lines, className="wb-lines") if lines else html.P("None.", className="wb-none")
    return html.Div([html.H3(f"In {name}, not in {other}: {len(apart):,}"), body])


PAGE = Page(
    title="Compare",
    path="/compare",
    group="features",
    order=105,
    about="Two features side by side",
    layout=layout,
    register=register,
    shows="Two features or neurons compared, every number with its null.",
    command="workbench demo --no-serve",
    fill=first_step,
)
