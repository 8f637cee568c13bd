"""Panels about one head over a text: kinds, words, and examples with the attention on their tokens."""

from collections.abc import Sequence
from math import isnan

from dash import html

from dashboard.components.evidence import records_table
from dashboard.components.frame import Part, fold, panel, stat, verdict
from dashboard.components.tokens import token_bars, token_strip, token_text
from dashboard.data.heads import ExampleText, HeadReport
from dashboard.figures.theme import visible
from interp.circuits.heads_in_text import HeadWord
from interp.names import TEXT_HEAD_KINDS

OPEN_EXAMPLES = 8
"""Examples that are shown at once; the others are folded."""
SIDES = {
    "key word": ("Attends to words", "attention over what shuffled keys give"),
    "query word": ("Attends from words", "attention outside BOS over the mean of all tokens"),
    "writes": (
        "Writes",
        "tokens it raises, in standard deviations; only those beyond the largest of as many normal draws",
    ),
    "lens": ("Writes, through later layers", "the same through the Jacobian lens"),
}


def summary(report: HeadReport) -> html.Div:
    """Return what kind of head it is, in a sentence, with its numbers."""
    row, best = report.statistics, next((kind for kind in report.kinds if kind.kind in report.found[:1]), None)
    if best is None:
        sentence = f"{report.head} is of no kind that is measured, beyond shuffled keys and an untrained model."
    else:
        does = TEXT_HEAD_KINDS.get(best.kind, best.kind.replace("_", " ")).partition(":")[0]
        sentence = (
            f"{report.head} is one of the heads that {does}: score {best.score:.2f}, shuffled keys {best.shuffled:.2f}."
        )
    others = [kind.replace("_", " ") for kind in report.found[1:]]
    also = html.P(f"Also found as: {', '.join(others)}.") if others else None
    numbers = [
        stat("entropy", f"{row.entropy:.2f}", "0: attention to one token; 1: to all earlier tokens alike"),
        stat("distance", f"{row.distance:.1f}", "mean number of tokens from query to key, outside BOS"),
        stat("outside BOS", f"{row.outside:.0%}", "share of attention outside the first position"),
        stat("copies", f"{row.copies:+.1f}", f"raises the attended token, in standard deviations; by permuted tokens "
             f"{row.copies_null:.1f}"),
    ]  # fmt: skip
    return html.Div([verdict(sentence, also), html.Div(numbers, className="wb-stats")])


def kinds_panel(report: HeadReport) -> html.Section:
    """Return the scores of the head, found ones first, each with its nulls."""
    rows = [
        {
            "kind": row.kind.replace("_", " "), "attention": f"{row.score:.2f} ({row.low:.2f} to {row.high:.2f})",
            "shuffled": f"{row.shuffled:.2f}" + ("" if isnan(row.elsewhere) else f" / {row.elsewhere:.2f}"),
            "found": row.found,
        }
        for row in sorted(report.kinds, key=lambda row: (not row.found, -row.score))
    ]  # fmt: skip
    more = (
        "Score: mean attention to the targets of a kind, 0 to 1, over queries that have one. Found: above shuffled "
        "keys by 0.1 and above an untrained model's heads, corrected for all heads. Name movers must also raise the "
        "token that they attend to; copy suppression lowers it; successors raise the next word of an order. After /: "
        "the score from words that are no verbs, which a head for verbs and subjects must exceed too."
    )
    return panel(
        "Kinds",
        records_table(rows, limit=len(rows)),
        note="mean attention on the targets, with its 95 % interval",
        more=more,
    )


def words_panels(report: HeadReport) -> list[html.Div | html.Section]:
    """Return what the head reads and writes in words, and its circuits on single tokens."""
    shown: list[html.Section] = []
    for side, (title, note) in SIDES.items():
        lines = [word for word in report.words if word.side == side]
        token_side = side.replace("word", "token")
        lines = lines or [word for word in report.words if word.side == token_side]
        if lines:
            pairs = [(word.text, word.value) for word in lines]
            shown.append(panel(title, token_bars(pairs, label=f"{title}, {report.head}"), note=note))
    ov, qk = ([word for word in report.words if word.side == side] for side in ("ov", "qk"))
    if ov or qk:
        shown += [
            panel("OV circuit", _lines(ov, "→"), note="a token it attends to, and what it makes the head write"),
            panel(
                "QK circuit", _lines(qk, "looks for"), note="a token it attends from, and the tokens that score most"
            ),
        ]
    return [html.Div(shown, className="wb-head-words")]


def _lines(words: Sequence[HeadWord], joint: str) -> html.Ul:
    def line(word: HeadWord) -> html.Li:
        shown = [part for token in word.tokens for part in (", ", token_text(token))][1:]
        return html.Li([token_text(word.text), f" {joint} ", *shown])

    return html.Ul([line(word) for word in words], className="wb-said")


def examples_panel(report: HeadReport) -> html.Section:
    """Return the examples: the attention of a query on the text, and folded, what attends to its strongest key."""
    if not report.examples:
        return panel("Examples", html.P("It attends to nothing but the first position.", className="wb-none"))
    shown = [_example(example) for example in report.examples]
    rest: list[Part] = []
    if len(shown) > OPEN_EXAMPLES:
        rest = [
            fold(f"{len(shown) - OPEN_EXAMPLES} more", html.Ol(shown[OPEN_EXAMPLES:], className="wb-head-examples"))
        ]
    return panel(
        "Examples", html.Ol(shown[:OPEN_EXAMPLES], className="wb-head-examples"), *rest,
        note="shade: attention of the query, which is in brackets; outlined: its strongest key",
        more="The strongest queries of the text, at most two of a document. Attention to BOS is left out.",
    )  # fmt: skip


def _example(example: ExampleText) -> html.Li:
    title = html.P([
        "from ", token_text(example.query_token), " to ", token_text(example.key_token),
        html.Span(f"{example.strength:.2f}", className="wb-value"),
    ], className="wb-head-pair")  # fmt: skip
    return html.Li([
        title,
        *_strips(example, "attention", example.key, example.query),
        fold("What attends to the key", *_strips(example, "attended_by", example.query, example.key)),
    ])  # fmt: skip


def _strips(example: ExampleText, which: str, peak: int, row_of_other: int) -> list[html.Div]:
    """Return the segments of an example, shaded by attention; `peak` is outlined and `other` underlined."""
    strips: list[html.Div] = []
    values = [getattr(segment, which) for segment in example.segments]
    top = max([example.strength, *(max(value, default=0.0) for value in values)])
    for segment, value in zip(example.segments, values, strict=True):
        at = peak - segment.first
        inside = 0 <= at < len(segment.pieces)
        pieces = list(segment.pieces)
        if 0 <= (mark := row_of_other - segment.first) < len(pieces):
            pieces[mark] = _marked(pieces[mark])
        strips.append(token_strip(pieces, list(value), maximum=top, peak=at if inside else None, unit="attention"))
    return strips


def _marked(piece: str) -> str:
    """Return the token at the other end of the pair, in brackets, with its space outside them."""
    text = piece.lstrip(" ")
    return f"{' ' * (len(piece) - len(text))}[{text}]"


def provenance(report: HeadReport) -> html.P:
    """Return where the numbers come from."""
    return html.P(
        visible(
            f"{report.head} of {report.model} over {report.contexts:,} contexts of {report.documents:,} documents "
            f"({report.source}).", 400
        ),
        className="wb-note",
    )  # fmt: skip
