"""Panel *Counterparts*: features of two dictionaries that fire on the same words, side by side, and a menu of them."""

from dash import dcc, html

from dashboard.components.evidence import percent, records_table
from dashboard.components.frame import Part, panel, quiet_link, select
from dashboard.components.pages import compare_href, feature_href
from dashboard.data import features
from dashboard.figures.theme import visible
from interp.workspace import Workspace
from saes.evaluation.counterparts import ALIKE, APART, ONE_WORD, SAME, Counterparts
from saes.features.schema import MOST_TELLING

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
