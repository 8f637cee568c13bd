"""*Compare*: dictionaries at one L0, features of two that fire on the same words, and two features side by side.

The two names are fields of a form, so the address says what is compared. Stored tables are drawn at once; a callback
adds cosine and activations, which need the weights. *Counterparts* shows features of two dictionaries, of any models,
that fire on the same words.
"""

import dash_mantine_components as dmc
from dash import Dash, Input, Output, dcc, html

from dashboard.compare import _data as view
from dashboard.compare import measure
from dashboard.compare._data import NamedFeature
from dashboard.components.evidence import number, percent, records_table
from dashboard.components.forms import feature_input
from dashboard.components.frame import (
    Children,
    Part,
    attempt,
    attrs,
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
from dashboard.components.pages import Page, compare_href, feature_href, first_step, runs_href
from dashboard.components.tokens import token_bars, token_strip
from dashboard.data import features
from dashboard.data.feature_names import bare_name, proposals
from dashboard.data.features import choose, examples
from dashboard.data.meaning import said_by
from dashboard.figures.theme import visible
from dashboard.sources import NothingYetError, PageSources, current
from interp.errors import WorkbenchError, as_typed
from interp.models.short_name import short_name
from interp.workspace import Workspace
from saes.evaluation.counterparts import ALIKE, APART, ONE_WORD, SAME, Counterparts
from saes.evaluation.sae_comparison import SAEComparison
from saes.features.schema import MOST_TELLING, Features

N_EXAMPLES, N_TOKENS = 6, 8
_WAIT = html.P(
    [
        "Measuring, from the weights: the first time takes some seconds.",
        html.Progress(**attrs({"aria-label": "Progress of the measurement"})),
    ],
    className="wb-busy wb-busy-on",
)


def layout(context: PageSources, a: str = "", b: str = "", pairs: str = "", **_: object) -> html.Div:
    """`/compare?a=<name>&b=<name>`.

    `pairs` names the counterparts of two dictionaries; without it, the newest are shown.
    """
    workspace = context.workspace
    known, described = proposals(workspace, ""), workspace.names("features")
    first = choose(workspace, None) if described else ""
    a, b = bare_name(a, first), bare_name(b, first)
    if not known and not workspace.names("sae"):
        raise NothingYetError(f"there are no features to compare in {workspace.root}")
    form, texts = _form(known, a, b), [text for text in (a, b) if text.strip()]
    try:
        chosen = [view.named(workspace, text) for text in texts]
    except WorkbenchError as error:
        return page("Compare", form, notice(explain_error(error), tone="error"))
    if len(chosen) < 2:
        made = view.newest(workspace, pairs)
        both = None if made is None else attempt(lambda: counterparts_panel(workspace, made))
        return page("Compare", form, _dictionaries(workspace), both, lead=PAGE.shows)
    return page(
        "Compare",
        dcc.Store(id="compare-state", data=[feature.name for feature in chosen]),
        form,
        html.Div(_WAIT, id="compare-measured", className="wb-compare-measured", **attrs({"aria-live": "polite"})),
        html.Div(id="compare-parts"),
    )


def register(app: Dash) -> None:
    """Add the callbacks: the parts from tables, and those that need the weights."""
    state = Input("compare-state", "data")
    app.callback(Output("compare-parts", "children"), state)(show_stored)
    app.callback(Output("compare-measured", "children"), state)(show_measured)
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


def _dictionaries(workspace: Workspace) -> html.Section:
    """Return the newest comparison of dictionaries, beside its baselines."""
    made = next(iter(workspace.values(SAEComparison)), None)
    if made is None:
        return panel("Dictionaries at one L0", quiet_link("Compare SAEs", runs_href("compare saes")))

    def body() -> list[Part]:
        shared = [html.P(f"{visible(pair, 80)}: {overlap}.") for pair, overlap in made.shared.items()]
        return [records_table(made.to_records()), *shared]

    return guarded("Dictionaries at one L0", body, note=f"cut: reduced to L0 {made.l0:.1f}; comparison {made.name}")


def _linked(feature: NamedFeature, text: str) -> dcc.Link | str:
    return quiet_link(text, feature_href(feature.features, feature.index)) if feature.features else text


def show_stored(names: list[str]) -> html.Div:
    """Return what is known of two features without a computation."""
    workspace = current().workspace
    chosen = [view.named(workspace, name) for name in names]
    return html.Div(
        [guarded(feature.name, lambda feature=feature: _side(workspace, feature)) for feature in chosen],
        className="wb-two wb-even",
    )


def show_measured(names: list[str]) -> Children:
    """Return what is computed from the weights of two features."""
    workspace = current().workspace
    return attempt(lambda: _pair(workspace, *(view.named(workspace, name) for name in names)))


def _side(workspace: Workspace, feature: NamedFeature) -> list[Part]:
    """Return one feature: label, density, promoted tokens, and its strongest examples."""
    row = view.about(workspace, feature)
    where = f"feature at {feature.hook_point} of {short_name(feature.model)}"
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
    described = workspace.open(Features, feature.features)
    lens = said_by(workspace, described, feature.index)
    note = "direct effect on the next token's logits"
    if lens.saying is not None:
        tokens = list(lens.saying.raised[:N_TOKENS])
        note = "through the Jacobian lens, in standard deviations of all tokens' logits"
    if tokens:
        label = f"Tokens that {feature.name} promotes"
        parts += [html.H3("Promotes", title=note), token_bars(tokens, label=label, form="{:+.2f}".format)]
    rows = examples(described, feature.index)[:N_EXAMPLES]
    maximum = max((row.activation for row in rows), default=1.0)
    lines = [
        html.Li([html.Span(f"{row.activation:.3g}", className="wb-value"),
                 token_strip(row.tokens, row.activations, maximum=maximum, peak=row.peak)])
        for row in rows
    ]  # fmt: skip
    none = html.P("No examples are recorded.", className="wb-none")
    return [*parts, html.H3("Strongest"), html.Ol(lines, className="wb-compare-examples") if lines else none]


def _pair(workspace: Workspace, a: NamedFeature, b: NamedFeature) -> html.Section:
    comparison = measure.pair(workspace, a, b)
    parts: list[Part] = [verdict(comparison.verdict, html.P(_METHOD))] if comparison.verdict else []
    titles = {"name": "measure", "value": "value", "null": "null", "p": "p", "of": "null made of"}
    rows = [{title: getattr(row, field) for field, title in titles.items()} for row in comparison.measures]
    parts += [records_table(rows)] if rows else []
    parts += [html.P(visible(f"Not measured: {sentence}", 400), className="wb-none") for sentence in comparison.missing]
    return panel("Measures", *parts)


_METHOD = (
    "Random pairs: each of the two with every other latent of the other's dictionary. If a search found the pair, "
    "compare it with the nearest neighbours instead. Null: its 95th percentile in magnitude, or the expected value. "
    "p: the fraction of the null that reaches the value."
)


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
    about="Features of two dictionaries",
    layout=layout,
    register=register,
    shows="Dictionaries, features of two of them that fire on the same words, or two features, beside their nulls.",
    command="workbench demo --no-serve",
    fill=first_step,
)
