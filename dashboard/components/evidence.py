"""Evidence as a table (the name of each measure in words, its number, its interval), and as a histogram of HTML.

Histograms are for pages that draw one for every thing that a visitor steps to. A Plotly figure costs a browser 100 ms
and more, and its colours are fixed when it is made. These bars are one element each, in the colours of the scheme that
is chosen. Notebooks draw the same counts with `dashboard.figures.saes`.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component

from dashboard.answers import is_list, is_object, is_sequence
from dashboard.components.frame import Still, attrs, fold
from dashboard.components.glossary import glossary
from dashboard.figures.theme import visible
from interp.artifacts import Artefact
from interp.claims import StatedNumber
from interp.errors import program

WORDS = {
    "score": "estimated effect on the metric",
    "exact": "exact effect, patching this edge or node alone",
    "effect": "effect on the metric",
    "p_holm": "p (Holm, over all heads)",
    "null_high": "upper bound of the null",
    "null_mean": "mean of the null",
    "induction_score": "induction score",
    "previous_token_score": "previous-token score",
    "ov_copying": "OV copying (eigenvalues, -1 to 1)",
    "composition": "composition of the weights",
    "loss_first_half": "loss when ablated, first half (nats)",
    "loss_second_half": "loss when ablated, second half (nats)",
    "k_effect": "effect through the key",
    "q_effect": "effect through the query",
    "v_effect": "effect through the value",
    "cpr": "CPR (area under faithfulness)",
    "cmd": "CMD (distance from 1; 0 is best)",
    "auroc": "AUROC against known edges",
    "loss_second_half_k": "loss, second half, patched into keys (nats)",
    "loss_second_half_q": "loss, second half, patched into queries (nats)",
    "loss_second_half_v": "loss, second half, patched into values (nats)",
    "share_of_score": "fraction of the reader's score",
    "composition_null_high": "composition of randomly rotated weights (null, upper bound)",
    "composition_is_argmax": "is the strongest sender of this reader",
    "induction_score_tl": "induction score by stripe",
    "ov_top1": "OV top-1 copying (fraction of tokens)",
    "ov_copying_through_block_0": "OV copying after block 0 (eigenvalues)",
    "ov_top1_through_block_0": "OV top-1 copying after block 0",
    "logit_effect": "direct effect on the next token's logit, above the mean logit",
    "logit_effect_of_other_head": "the same, strongest other head of the layer",
    "low": "lower end, 95 %",
    "high": "upper end, 95 %",
}
_TERM_OF = {
    "p_holm": "Holm correction",
    "induction_score_tl": "induction score by stripe",
    "ov_copying": "OV eigenvalue",
    "ov_copying_through_block_0": "OV eigenvalue",
}
_CHANGES = {"effect", "loss_first_half", "loss_second_half", "k_effect", "q_effect", "v_effect", "score", "exact"}
_CHANGES |= {f"loss_second_half_{side}" for side in "qkv"} | {"logit_effect", "logit_effect_of_other_head"}
MAX_ROWS = 60


def evidence_table(
    values: dict[str, Any], *, skip: tuple[str, ...] = (), names: dict[str, str] | None = None
) -> html.Table | html.P:
    """Return one row per value; nested values are flattened, unknown names are shown as they are written.

    `names` replaces the words for some of them.

    `low` and `high` become the interval of the first value before them when it lies between the two.
    """
    flat = {k: v for k, v in flattened(values).items() if v is not None and k not in skip}
    low, high = flat.get("low"), flat.get("high")
    owner = None
    if isinstance(low, int | float) and isinstance(high, int | float):
        owner = next((k for k, v in flat.items() if k not in ("low", "high") and _inside(v, low, high)), None)
    rows: list[html.Tr] = []
    for name, value in list(flat.items())[:MAX_ROWS]:
        if owner and name in ("low", "high"):
            continue
        label = (names or {}).get(name) or words(name)
        rows.append(_row(label, number(value, signed=name in _CHANGES), term=_TERM_OF.get(name)))
        if name == owner:
            rows.append(_row("95 % interval", f"{number(low)} to {number(high)}", "wb-sub"))
    if len(flat) > MAX_ROWS:
        rows.append(_row(f"and {len(flat) - MAX_ROWS} more", ""))
    if not rows:
        return html.P("This artefact has no such measurement.", className="wb-none")
    return html.Table(html.Tbody(rows), className="wb-evidence")


def records_table(records: Sequence[Mapping[str, Any]], *, limit: int = 14) -> html.Div:
    """Return records as a small table; `low` and `high` become one column, groups of heads come first."""
    records = sorted(records, key=lambda record: -(record.get("n_heads") or 0))
    same = _same_text(records)
    hidden = ("low", "high", "n_heads", *same)
    names = [n for n in dict.fromkeys(key for record in records for key in record) if n not in hidden]
    interval = any("low" in record and "high" in record for record in records)
    aligned = {n: "wb-text" if any(isinstance(record.get(n), str) for record in records) else None for n in names}
    head = [
        html.Th(name.removeprefix("loss_").replace("_", " "), scope="col", className=side)
        for name, side in aligned.items()
    ] + ([html.Th("95 %")] if interval else [])
    body = [
        html.Tr(
            [*(_cell(record.get(name), name, side) for name, side in aligned.items()), *_interval(record, interval)]
        )
        for record in records
    ]
    notes = [f"{words(name)}: {value}" for name, value in same.items()]
    notes += [f"and {len(records) - limit} more"] if len(records) > limit else []
    more = html.P("; ".join(notes), className="wb-note") if notes else None
    table = html.Table([html.Thead(html.Tr(head)), html.Tbody(body[:limit])], className="wb-evidence wb-records")
    named = attrs({"role": "group", "aria-label": "Table, scrolls sideways"})
    return html.Div([table, more], className="wb-scroll", tabIndex=0, **named)  # keys scroll what has the focus


def as_table(records: Sequence[Mapping[str, Any]], words: str = "These numbers as a table") -> html.Details | None:
    """Return all numbers of a figure as a folded table, for readers who cannot see the figure."""
    return fold(words, records_table(records, limit=len(records))) if records else None


def _same_text(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns with the same text in all rows; a note under the table shows it once."""
    first: Mapping[str, Any] = records[0] if len(records) > 1 else {}
    return {
        name: value
        for name, value in first.items()
        if isinstance(value, str) and all(record.get(name) == value for record in records)
    }


def _cell(value: Any, name: str, side: str | None) -> html.Td:
    shown = "" if value is None else number(value, signed=name in _CHANGES)
    return html.Td(shown, dir="auto", className=side)


def _interval(record: Mapping[str, Any], wanted: bool) -> list[html.Td]:
    if not wanted:
        return []
    low, high = record.get("low"), record.get("high")
    return [html.Td(f"{number(low)} to {number(high)}" if low is not None and high is not None else "")]


def words(name: str) -> str:
    """Return the meaning of a name such as `p_holm`; unknown names without their underscores."""
    return WORDS.get(name) or visible(name.replace("_", " "), 60)


def number(value: Any, *, signed: bool = False) -> str:
    """Return a value as text: three significant digits, whole numbers as they are, text cut to a line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value != value:
            return "not a number"
        if value == 0:
            return "0"  # no minus before it
        small = abs(value) < 1e-3
        text = f"{value:.2e}" if small else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        return f"+{text}" if signed and value > 0 else text.replace("-", "−", 1) if value < 0 else text
    if is_sequence(value):
        shown = ", ".join(number(v) for v in value[:6])
        return shown + (f" and {len(value) - 6} more" if len(value) > 6 else "")
    return visible(str(value), 160)


def percent(fraction: float) -> str:
    """Return a fraction as a percentage of three significant digits, or as under 0.001 %."""
    if 0 < abs(fraction) < 1e-5:
        return "under 0.001%"
    return f"{number(100.0 * fraction)}%"


def known(value: object) -> str:
    """Return `number(value)`, or that the value is not known."""
    return "not known" if value is None else number(value)


def flattened(values: dict[str, Any]) -> dict[str, Any]:
    """Return nested values under one name each; of a list of records their number."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if is_object(value):
            flat |= {f"{name} · {k}": v for k, v in flattened(value).items()}
        elif is_list(value) and any(isinstance(v, dict) for v in value):
            flat[name] = f"{len(value)} records"
        else:
            flat[name] = value
    return flat


def _inside(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _row(name: str, value: str, class_name: str | None = None, term: str | None = None) -> html.Tr:
    shown = glossary()[term].link(name) if term is not None else name
    return html.Tr([html.Th(shown, scope="row"), html.Td(value, dir="auto")], className=class_name)


LOWEST = -0.3
"""Base-10 logarithm of the count at the foot of a logarithmic axis, so that the bar of one token is visible."""
TICK_ROOM = 0.1
"""Least distance of two ticks, as a share of the axis, so that their numbers do not collide."""
Tick = tuple[float, str]
"""Position along an axis, 0 to 1, and its text."""


def activation_bars(
    counts: list[int], edges: list[float], *, mean: float | None = None, chosen: range | None = None
) -> list[Component]:
    """Return tokens per bin of activation, with a dotted line at `mean`; bins outside `chosen` are faint.

    `counts [n]` and `edges [n + 1]`, ascending, are the bins that are shown; each has the same width.
    """
    names = [f"{n:,} tokens, {low:.3g} to {high:.3g}" for n, (low, high) in zip(counts, pairwise(edges), strict=True)]
    along = np.linspace(0, 1, len(edges))
    scale = np.log10(np.maximum(edges, 1e-12))

    def at(value: float) -> float:
        return float(np.interp(float(np.log10(max(value, 1e-12))), scale, along))

    ticks: list[float] = []
    for tick in (10.0**e * m for e in range(4, -5, -1) for m in (3, 1)):
        if edges[0] <= tick <= edges[-1] and (not ticks or at(ticks[-1]) - at(tick) >= TICK_ROOM):
            ticks.append(tick)
    ticks = ticks[::-1] or [edges[0], edges[-1]]
    top = max(counts)
    return _plot(
        [n / top for n in counts],
        names,
        across=[(at(tick), f"{tick:.3g}") for tick in ticks],
        up=[(count / top, f"{count:,}") for count in _round_counts(top)],
        titles=("activation (log scale)", "tokens"),
        marks=[at(mean)] if mean else [],
        chosen=chosen,
    )


def logit_bars(
    counts: list[int], edges: tuple[float, float, int], null: list[float], tops: tuple[float, float, float]
) -> list[Component]:
    """Return tokens per bin of direct effect on the logit, on a log axis, with the mean counts of random directions.

    `counts [n]` and `null [n]` share the equal bins of `edges = (lowest, highest, n)`. `tops` are the 5, 50 and 95 %
    quantiles of the largest effect of one random direction; the latter two are dotted lines.
    """
    low, high, n = edges
    width = (high - low) / n
    values, baseline = np.asarray(counts, float), np.asarray(null, float)
    filled = np.flatnonzero((values > 0) | (baseline > 0.05))
    first = max(int(filled[0]) - 1, 0)
    last = min(max(int(filled[-1]) + 2, int(np.ceil((tops[2] - low) / width))), int(n))
    start, span = low + first * width, (last - first) * width
    top = float(np.log10(max(values.max(), baseline.max(), 2.0)) + 0.2)

    def height(count: float) -> float:
        return max(0.0, (float(np.log10(count)) - LOWEST) / (top - LOWEST)) if count > 0 else 0.0

    shown = range(first, last)
    step = _step(span, 5)
    ticks = [step * n for n in range(math.ceil(start / step), math.floor((start + span) / step) + 1)]
    return _plot(
        [height(values[i]) for i in shown],
        [f"{values[i]:,.0f} tokens, random {baseline[i]:,.1f}; effect {low + width * (i + 0.5):+.1f}" for i in shown],
        across=[((tick - start) / span, f"{tick:g}".replace("-", "−")) for tick in ticks],
        up=[(height(10.0**e), f"{10**e:,}") for e in range(int(top) + 1)],
        titles=("direct effect on the logit", "tokens (log)"),
        marks=[(quantile - start) / span for quantile in tops[1:]],
        line=[height(count) if count > 0.05 else 0.0 for count in baseline[first:last].tolist()],
    )


def _plot(
    heights: Sequence[float],
    names: list[str],
    *,
    across: list[Tick],
    up: list[Tick],
    titles: tuple[str, str],
    marks: list[float],
    line: list[float] | None = None,
    chosen: range | None = None,
) -> list[Component]:
    """Return bars of `heights`, 0 to 1, between their axes; `names` are their tooltips."""
    bins = [
        html.Span(
            className="wb-bin" if chosen is None or i in chosen else "wb-bin wb-unchosen",
            style={"--h": f"{height:.1%}"},
            **attrs({"data-tip": name}),
        )
        for i, (height, name) in enumerate(zip(heights, names, strict=True))
    ]
    rules = [html.Span(html.Span(text), className="wb-rule", style={"bottom": f"{at:.1%}"}) for at, text in up]
    dotted = [html.Span(className="wb-dotted", style={"left": f"{at:.1%}"}) for at in marks if 0 <= at <= 1]
    ticks = [html.Span(text, className="wb-tick", style={"left": f"{at:.1%}"}) for at, text in across]
    drawn = [] if line is None else [Still([_steps(line)])]
    return [
        html.Span(titles[1], className="wb-axis"),
        html.Div([*rules, html.Div(bins, className="wb-bins"), *drawn, *dotted], className="wb-plot"),
        html.Div(ticks, className="wb-ticks"),
        html.Span(titles[0], className="wb-axis wb-across"),
    ]


def _steps(heights: list[float]) -> list[Any]:
    """Return a line over the bars as SVG, one level for each bar."""
    points = " ".join(f"{i + side},{100 - 100 * height:.1f}" for i, height in enumerate(heights) for side in (0, 1))
    attributes = {"viewBox": f"0 0 {len(heights)} 100", "preserveAspectRatio": "none", "aria-hidden": "true"}
    return ["svg", attributes, ["polyline", {"points": points, "vectorEffect": "non-scaling-stroke"}]]


def _step(span: float, most: int) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that divides `span` into at most `most` parts."""
    power = 10.0 ** np.floor(np.log10(span / most))
    return next(float(m * power) for m in (1, 2, 5, 10) if span / (m * power) <= most)


def _round_counts(top: int) -> list[int]:
    """Return a few round counts from 0 to `top`."""
    step = max(1, int(_step(top, 4)))
    return list(range(0, top + 1, step))


def claim_fold(artefact: Artefact) -> html.Details | None:
    """Return the commands that state each number of an artefact as a claim; None for a kind that states none."""
    stated = getattr(artefact, "stated", None)
    if not callable(stated):  # a measured claim has a field of this name
        return None
    numbers: dict[str, StatedNumber] = stated()  # pyright: ignore[reportAssignmentType]
    lines = [f"{program()} claim {artefact.key} --number {name} --out {name}.json" for name in numbers]
    said = [
        html.Li(visible(f"{name}: {number.sentence} ({number.outcome} here)", 400)) for name, number in numbers.items()
    ]
    return fold(
        "State this as a claim",
        html.Ul(said, className="wb-said"),
        html.Pre(
            "\n".join([*lines, f"{program()} check {next(iter(numbers))}.json --harder"]),
            className="wb-command",
            tabIndex=0,
        ),
        html.P("A claim names what would refute it: other seeds, wordings and attacks.", className="wb-note"),
        id="claim",
    )
