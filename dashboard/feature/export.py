"""One feature as a single HTML file that opens without a server: no script, no request, both colour schemes.

    text = feature_html(workspace, "demo", 540)

The page has what the dashboard's page of the feature shows without a model: numbers, labels, the proof, effects with
their nulls, neighbours, and every example. Its policy forbids scripts and requests, and every text is escaped.
"""

import html
import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any
from urllib.parse import quote

import flask
from dash import Dash

from dashboard.components.pages import current
from dashboard.components.tokens import alpha
from dashboard.data import features as view
from dashboard.feature.examples import GROUPS
from dashboard.feature.relations import effect_verdict
from dashboard.figures.saes import filled_bins
from dashboard.figures.theme import DARK, LIGHT, Theme, visible
from interp.errors import UsageError
from interp.workspace import Workspace
from saes.features.proof import newest_proof, why_outdated
from saes.features.schema import ExampleRow, FeatureRow, Features

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a page cannot hold, and those that reverse the text after them."""
_WIDTH, _HEIGHT = 520, 150


def feature_html(workspace: Workspace, name: str, index: int) -> str:
    """Return the page of one feature as HTML. Raises `UsageError` when there is no such feature."""
    features, row = view.one(workspace, name, index)
    related = view.relations(workspace, name, index)
    own = view.names(workspace, name).get(index, "")
    title = own or row.label or "no label"
    parts = [
        f"<h1><span class=id>#{index}</span> {_text(title, 400)}</h1>",
        f"<p class=quiet>{_text(_origin(row), 800)}</p>" if own or row.label else "",
        _numbers(row),
        _proof(workspace, name, index),
        _labels(view.explanations(workspace, name, index)),
        _section(
            "Activations",
            "tokens per range of activation, on a logarithmic axis",
            _histogram(row, features.histogram_edges),
        ),
        *_effects(row, related),
        *_relations(workspace, name, row, related),
        *_examples(view.examples(workspace, name, index), row.max_activation),
        _provenance(features, row),
    ]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{_text(f'{name} #{index}: {title}', 200)}</title><style>{_style()}</style>"
    )
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n"


def _text(text: Any, limit: int = 120) -> str:
    """Return a text escaped, on one line, and as UTF-8 can hold it."""
    plain = visible(str(text), limit).encode("utf-8", "replace").decode()
    return html.escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", plain))


def _origin(row: FeatureRow) -> str:
    said = [f"{row.label}, label from {row.label_source}" if row.label else "no label", row.score_in_words()]
    others = "; ".join(row.other_readings())
    return "; ".join([*filter(None, said), *([f"also {others}"] if others else [])])


def _section(title: str, note: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2><p class=quiet>{html.escape(note)}</p>{body}</section>"


def _numbers(row: FeatureRow) -> str:
    found = (
        ("fires on", f"{row.density:.3%} of tokens"),
        ("tokens", f"{row.n_fired:,}"),
        ("mean activation", f"{row.mean_activation:.3g}"),
        ("largest", f"{row.max_activation:.3g}"),
        ("decoder norm", f"{row.decoder_norm:.3g}"),
    )
    return "<dl class=stats>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in found) + "</dl>"


def _proof(workspace: Workspace, name: str, index: int) -> str:
    found = newest_proof(workspace, name, index)
    if found is None:
        return ""
    old = why_outdated(workspace, found)
    outdated = f"<p class=quiet>{_text(old, 400)}</p>" if old else ""
    lines = "".join(f"<li>{_text(each, 600)}</li>" for each in found.lines())
    return _section("Proof", found.key, f"{outdated}<ul>{lines}</ul>")


def _labels(explained: list[view.Explained]) -> str:
    if not explained:
        return ""
    lines = []
    for each in explained:
        known = [score for score in each.scores if score.name != "detection_hard"]
        said = [f"{s.name} {s.accuracy:.2f}" + ("" if s.null is None else f" [{s.null:.2f}]") for s in known]
        scores = ", ".join([*said, *(f"{_text(name, 60)} {value:.2f}" for name, value in each.given)])
        lines.append(
            f"<li>{_text(each.label.label or 'no label could be read', 300)} "
            f"<span class=quiet>{_text(each.label.label_source, 120)}{'; ' + scores if scores else ''}</span></li>"
        )
    note = "with balanced accuracy on held-out contexts, 0.5 by chance; in brackets with another feature's label"
    return _section("Labels", note, f"<ol>{''.join(lines)}</ol>")


def _histogram(row: FeatureRow, edges: list[float]) -> str:
    shown = filled_bins(row.histogram)
    counts = row.histogram[shown]
    if not counts:
        return "<p>It never fired.</p>"
    names = [
        f"{edges[i]:.3g} to {edges[i + 1]:.3g}: {row.histogram[i]:,} tokens" for i in range(shown.start, shown.stop)
    ]
    return _bars(counts, names, f"{edges[shown.start]:.3g}", f"{edges[shown.stop]:.3g}", f"{max(counts):,} tokens")


def _bars(counts: list[int], names: list[str], low: str, high: str, top: str, line: list[float] | None = None) -> str:
    """Return a histogram as SVG; `line [n]` is drawn over its bars, for a null."""
    largest = max(*counts, *(line or [0]), 1e-12)
    step = _WIDTH / len(counts)
    rects = "".join(
        f'<rect x="{i * step:.1f}" y="{_HEIGHT * (1 - n / largest):.1f}" width="{step * 0.9:.1f}" '
        f'height="{_HEIGHT * n / largest:.1f}"><title>{html.escape(name)}</title></rect>'
        for i, (n, name) in enumerate(zip(counts, names, strict=True))
    )
    path = ""
    if line:
        points = " ".join(f"{(i + 0.45) * step:.1f},{_HEIGHT * (1 - n / largest):.1f}" for i, n in enumerate(line))
        path = f'<polyline points="{points}"/>'
    return (
        f'<svg viewBox="0 -16 {_WIDTH} {_HEIGHT + 36}" role=img aria-label="Histogram">{rects}{path}'
        f'<text x="0" y="-4">{html.escape(top)}</text><text x="0" y="{_HEIGHT + 15}">{html.escape(low)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 15}" text-anchor="end">{html.escape(high)}</text></svg>'
    )


def _effects(row: FeatureRow, related: view.Related | None) -> Iterable[str]:
    p = (related.row.promoted_p, related.row.suppressed_p) if related else (None, None)
    sides = (("promote", "Promotes", row.promoted, p[0]), ("suppress", "Suppresses", row.suppressed, p[1]))
    for verb, title, pairs, chance in sides:
        if pairs:
            verdict = effect_verdict(chance, verb, related.scales.draws) if related else ""
            lines = "".join(f"<li><code>{_text(t, 40)}</code> <span class=value>{v:+.2f}</span></li>" for t, v in pairs)
            note = f"direct effect of its direction on the logits of next tokens. {verdict}"
            yield _section(title, note, f"<ol class=columns>{lines}</ol>")
    if related and (scales := related.scales.logits):
        (low, high, n), counts = scales.edges, related.row.logit_histogram
        names = [f"{low + (high - low) * i / n:.2f}: {each:,} tokens" for i, each in enumerate(counts)]
        body = _bars(counts, names, f"{low:.3g}", f"{high:.3g}", "tokens", scales.null)
        yield _section("Effects on all logits", "tokens of the vocabulary; line: mean of random directions", body)


def _relations(workspace: Workspace, name: str, row: FeatureRow, related: view.Related | None) -> Iterable[str]:
    near = view.labels(workspace, name, row.neighbours)
    yield _section("Neighbours", "cosine similarity of decoder directions", _lines(row.near, near, "{:.2f}"))
    if related and related.row.coactive:
        labels, companions = view.labels(workspace, name, related.row.coactive), related.row.companions
        _, _, both, chance = companions[0]
        note = f"Jaccard index; the first pair shares {both} tokens, {chance:.2g} by chance"
        pairs = [(other, jaccard) for other, jaccard, *_ in companions]
        yield _section("Fires together with", note, _lines(pairs, labels, "{:.2f}"))


def _lines(pairs: Iterable[tuple[int, float]], labels: dict[int, str], form: str) -> str:
    return "<ol class=columns>" + "".join(
        f"<li><span class=id>#{n}</span> {_text(labels.get(n) or 'no label', 80)} "
        f"<span class=value>{form.format(value)}</span></li>" for n, value in pairs
    ) + "</ol>"  # fmt: skip


def _examples(rows: list[ExampleRow], maximum: float) -> Iterable[str]:
    for group, found in groupby(rows, lambda each: each.group):
        title, meaning = GROUPS.get(group, (group, ""))
        lines = "".join(_example(each, maximum) for each in found)
        yield _section(
            title, f"{meaning}; colour: activation / maximum of the feature", f"<ol class=texts>{lines}</ol>"
        )


def _example(row: ExampleRow, maximum: float) -> str:
    first, tokens = row.position - row.peak, []
    for i, (token, value, number) in enumerate(zip(row.tokens, row.activations, row.token_ids, strict=True)):
        tip = f"{value:.3g}, position {first + i}, token {number}"
        strong = " class=peak" if i == row.peak else ""
        mark = f'<mark{strong} style="--a:{alpha(value, maximum):.2f}" title="{tip}">{_text(token, 48)}</mark>'
        tokens.append(mark if value > 0 or strong else f'<span title="{tip}">{_text(token, 48)}</span>')
    where = _text(f"{row.document_label or ''} {row.document_id or ''}", 80)
    return (
        f"<li><span class=value>{row.activation:.3g}</span> <span class=tokens dir=auto>{''.join(tokens)}</span> "
        f"<span class=quiet>{where}</span></li>"
    )


def _provenance(features: Features, row: FeatureRow) -> str:
    made, of = features.about, features.settings
    said = (
        f"Feature {row.feature} of {features.n_features:,} of {of.dictionary}, at {of.hook_point} of {of.model}, "
        f"described on {features.n_tokens:,} tokens of the recording {of.recording}. "
        f"Artefact {features.key}, made {made.created}, content hash {made.content_hash}. Written by interp workbench."
    )
    return f"<footer class=quiet>{_text(said, 900)}</footer>"


def _colours(theme: Theme, mark: str) -> str:
    return (
        f"--bg:{theme.surface};--text:{theme.text};--muted:{theme.muted};--line:{theme.grid};--accent:{theme.accent};"
        f"--opposite:{theme.opposite};--mark:{mark}"
    )


def _style() -> str:
    return (
        f":root{{{_colours(LIGHT, '54,132,240')}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{_colours(DARK, '58,124,230')}}}}}"
        "body{margin:0;background:var(--bg);color:var(--text);font:14px/1.5 system-ui,sans-serif}"
        "main{max-width:980px;margin:0 auto;padding:20px}h1{font-size:22px;overflow-wrap:anywhere}"
        "h2{font-size:15px;margin:0}section{border-top:1px solid var(--line);padding:12px 0}"
        ".quiet{color:var(--muted);font-size:12.5px;margin:2px 0 8px;overflow-wrap:anywhere}"
        ".id,.value,code,.tokens{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:13px}"
        ".id{color:var(--accent)}.stats{display:flex;flex-wrap:wrap;gap:8px 28px}.stats div{margin:0}"
        "dt{color:var(--muted);font-size:12px}dd{margin:0;font-weight:600}ol,ul{margin:0;padding-left:20px}"
        ".columns{columns:2 300px}.texts{list-style:none;padding:0}"
        ".texts li{padding:6px 0;border-top:1px solid var(--line)}"
        ".tokens{white-space:pre-wrap;overflow-wrap:anywhere}.tokens>*{unicode-bidi:isolate}"
        "mark{color:var(--text);background:rgba(var(--mark),var(--a));border-radius:3px}"
        ".peak{font-weight:650;box-shadow:0 0 0 1.5px rgb(var(--mark))}"
        "svg{width:100%;max-width:520px}rect{fill:var(--accent)}polyline{fill:none;stroke:var(--opposite);stroke-width:2}"
        "text{fill:var(--muted);font-size:11px}"
    )


def register(app: Dash) -> None:
    """Add the address `/api/feature.html?features=NAME&index=NUMBER`, which downloads the page."""
    app.server.add_url_rule("/api/feature.html", "feature_html", _answer, methods=["GET"])


def _answer() -> flask.Response:
    name, index = flask.request.args.get("features", ""), flask.request.args.get("index", "")
    if not name or not index.isascii() or not index.isdigit() or len(index) > 9:
        raise UsageError("feature.html needs features=NAME and index=NUMBER")
    text = feature_html(current().workspace, name, int(index))
    answer = flask.Response(text, 200, mimetype="text/html")
    answer.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(f'{name}-{index}.html', safe='')}"
    return answer
