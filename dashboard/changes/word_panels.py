"""Words for a fine-tune: the difference lens, directions of the weights, changed predictions, texts of both models."""

from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from dashboard.components.evidence import number, records_table
from dashboard.components.frame import guarded
from dashboard.components.pages import feature_href
from dashboard.components.tokens import token_text
from dashboard.figures.theme import visible
from interp.artifacts import as_json
from interp.changes.comparison import ModelComparison
from interp.changes.words import ChangedWords, Use, Written

ROWS, SHOWN = 8, 6
_COLUMNS = {"base": "base", "tuned": "tuned", "steered": "base, steered", "null": "base, null steered"}


def word_panels(found: ModelComparison) -> list[html.Section | html.Div]:
    """Return the panels, in pairs of equal width."""
    pairs = [
        guarded("Difference lens", lambda: [_read_on(found.words), *_said(found.words, ("difference",))],
                note="strength: the largest logit that it adds, in nats"),
        guarded("Directions of the weight changes", lambda: _said(found.words, ("writes", "reads")),
                note="singular vectors: tokens that they write or read; strength in standard deviations over tokens"),
        guarded("Tokens used more or less", lambda: _used(found.words.tokens, "token"),
                note="mean probability over all positions; change: share of the divergence, in nats"),
        guarded("Features used more or less", lambda: _used(found.words.features, "feature"),
                note="mean activation in each model, by the newest SAE of the base"),
    ]  # fmt: skip
    return [
        html.Div(pairs[:2], className="wb-two wb-even"),
        guarded("What each writes", lambda: _written(found.words.written, found.words.steered_at),
                note="greedy; steered: with the mean difference of this change, or of another one, added"),
        guarded("Predictions that changed most", lambda: _turns(found.words),
                note="KL of the tuned from the base prediction, in nats; at most one position per text"),
        html.Div(pairs[2:], className="wb-two wb-even"),
    ]  # fmt: skip


def _read_on(found: ChangedWords) -> html.P:
    lens = "the base's Jacobian lens" if found.lens else "the logit lens"
    text = f"Mean difference on the first {found.first} tokens of {visible(found.text, 60)}, read through {lens}."
    return html.P(text, className="wb-note")


def _said(found: ChangedWords, ways: Sequence[str]) -> list[Any]:
    mine = [each for each in found.said if each.way in ways]
    beyond = [each for each in found.found if each.way in ways]
    if not beyond:
        largest = max(mine, key=lambda each: each.strength / each.null_high, default=None)
        nearest = (
            ""
            if largest is None
            else f" Nearest: {largest.name}, {largest.strength:.1f} (null up to {largest.null_high:.1f})."
        )
        return [html.P(f"No direction raises a word beyond the null.{nearest}", className="wb-none")]
    rows = [html.Tr([html.Th(each, scope="col") for each in ("words", "direction", "strength", "null up to")])]
    for each in beyond:
        name = each.name if each.way == "difference" else f"{each.name} {each.way}"
        words = [piece for word in each.words[:SHOWN] for piece in (token_text(word, 22), " ")]
        numbers = (f"{each.strength:.1f}", f"{each.null_high:.1f}")
        rows.append(html.Tr([html.Td(words, dir="auto"), html.Td(name), *map(html.Td, numbers)]))
    first, rest = (
        html.Div(html.Table(part, className="wb-evidence wb-records"), className="wb-scroll")
        for part in (rows[: 1 + ROWS], [rows[0], *rows[1 + ROWS :]])
    )
    more = html.Details([html.Summary(f"{len(beyond) - ROWS} more beyond the null"), rest], className="wb-folded")
    return [first, more] if len(beyond) > ROWS else [first]


def _used(uses: Sequence[Use], kind: str) -> list[Any]:
    found = [each for each in uses if each.found]
    if not uses or not found:
        reason = f"No {kind} changed beyond the null." if uses else f"No {kind} was measured."
        return [html.P(reason, className="wb-none")]
    rows = [html.Tr([html.Th(each, scope="col") for each in (kind, "before", "after", "change", "null up to")])]
    for each in found:
        name, _, index = each.what.rpartition(":")
        what = dcc.Link(each.what, href=feature_href(name, int(index))) if kind == "feature" else token_text(each.what)
        numbers = (each.before, each.after, each.change, each.null_high)
        rows.append(html.Tr([html.Td(what, dir="auto"), *(html.Td(number(value)) for value in numbers)]))
    return [html.Div(html.Table(rows, className="wb-evidence wb-records"), className="wb-scroll")]


def _written(written: Sequence[Written], steered_at: str) -> list[Any]:
    names = {key: name for key, name in _COLUMNS.items() if steered_at or key in ("base", "tuned")}
    rows = [html.Tr([html.Th(each, scope="col") for each in ("prompt", *names.values())])]
    for each in written:
        texts = [visible(each.prompt, 80) or "no prompt", *(visible(getattr(each, key), 300) for key in names)]
        rows.append(html.Tr([html.Td(text, dir="auto") for text in texts]))
    return [html.Div(html.Table(rows, className="wb-samples"), className="wb-scroll")]


def _turns(found: ChangedWords) -> list[Any]:
    if not found.turns:
        return [html.P("The two models predict the same at every position.", className="wb-none")]
    beyond = [each for each in found.turns if each.kl > found.kl_high]
    about = (
        f"mean {number(found.kl)} nats (null {number(found.kl_null)}); {len(beyond)} of {len(found.turns)} positions "
        f"beyond the null's largest, {number(found.kl_high)}"
    )
    rows = [
        {"text": "…" + each.before[-60:], "then": each.actual, "base predicts": " ".join(each.base),
         "tuned predicts": " ".join(each.tuned), "KL": each.kl}
        for each in found.turns
    ]  # fmt: skip
    shown = [
        {key: visible(value, 70) if isinstance(value, str) else value for key, value in row.items()} for row in rows
    ]
    return [html.P(about, className="wb-note"), records_table(as_json(shown))]
