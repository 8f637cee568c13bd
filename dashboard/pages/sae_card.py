"""The list of dictionaries, and the card of one: what it is, how good it is, where it came from."""

from typing import Any

from dash import dcc, html

from dashboard.addresses import atlas_href, sae_href
from dashboard.components.attributes import attrs
from dashboard.components.evidence import number as shown
from dashboard.components.frame import notice, panel, quiet_link, stat
from dashboard.views.sae import Entry
from dashboard.views.sae_log import Log, first_not_finite, number
from interp.artifacts import Manifest

HINTS = {
    "FVU": "Fraction of variance unexplained, on documents that it never saw: 0 is perfect, 1 no better than the mean.",
    "L0": "Features active per token, on those documents.",
    "dead": "Share of features that never fired on those documents; with few tokens rare features count as dead.",
    "dense": "Share of features active on more than a tenth of those tokens: seldom about one thing.",
    "CE recovered": "With the reconstruction in place of the activation: 1 loses nothing of the model's loss, 0 is as "
    "bad as zeros there. Against zeros almost anything looks good.",
    "from the mean": "The same against the mean activation instead of zeros: the harder baseline.",
    "FVU now": "Fraction of variance unexplained on the last batches it learned from.",
    "L0 now": "Features active per token on those batches.",
    "dead now": "Share of features that have not fired for the dead window.",
    "dense now": "Share of features that fire on more than a tenth of recent tokens.",
    "l2 ratio": "Mean length of the reconstruction over that of the activation: below 1 it shrinks.",
    "features": "Directions learned (d_sae).",
    "tokens": "Tokens seen in training; a token of the recording counts once per epoch.",
    "tokens/s": "Of its own steps; dictionaries trained together take turns.",
}
MAX_LISTED = 200
_SETTINGS = ("k", "l1_coefficient", "sparsity", "prefixes", "target", "batch_size", "lr", "aux_coefficient", "seed")
_STATES = {
    "training": "in training",
    "finishing": "being scored and written",
    "silent": "silent",
    "finished": "",
    "broken": "cannot be read",
}


def listing(found: list[Entry], chosen: str) -> html.Ul:
    """Every dictionary (at most `MAX_LISTED`) as a link, those in training with their progress."""
    here = attrs({"aria-current": "true"})
    rows = [html.Li(_link(entry), **(here if entry.name == chosen else {})) for entry in found[:MAX_LISTED]]
    more = len(found) - len(rows)
    return html.Ul([*rows, *[html.Li(f"and {more:,} older", className="wb-none")] * bool(more)])


def _link(entry: Entry) -> dcc.Link:
    size = f"{entry.d_sae:,} features" if entry.d_sae else ""
    words = [entry.kind, size, f"k {entry.k}" if entry.k else ""]
    state = _STATES[entry.state]
    share = entry.share if entry.unfinished else None
    scores = [f"{name} {_short(entry.heldout.get(key))}" for name, key in (("FVU", "fvu"), ("L0", "l0"))
              if number(entry.heldout.get(key)) is not None]  # fmt: skip
    if share is not None:
        state = f"{state} · {share:.0%}"
    return dcc.Link(
        [
            html.Span([html.Span(entry.name, className="wb-sae-name"), html.Span(state, className="wb-sae-state")]),
            html.Span(" · ".join(word for word in words if word), className="wb-quiet"),
            html.Span("   ".join(scores), className="wb-sae-scores") if scores else None,
            html.Progress(value=f"{share:.4f}", max="1", **attrs({"aria-label": f"{entry.name} trained"}))
            if share is not None
            else None,
        ],
        href=sae_href(entry.name),
        className=f"wb-sae wb-sae-{entry.state}",
    )


def live_notice(entry: Entry) -> Any:
    """How far an unfinished run has come, and whether it still goes on."""
    if entry.state == "broken":
        return notice(html.Strong(f"Cannot read {entry.name}. "), html.Span(entry.problem), tone="error")
    if not entry.unfinished:
        return None
    done, total = number(entry.progress.get("tokens")), number(entry.progress.get("total_tokens"))
    parts = [f"step {entry.progress['step']:,}" if isinstance(entry.progress.get("step"), int) else "",
             f"{done:,.0f} of {total:,.0f} tokens" if done is not None and total else "",
             f"{speed:,.0f} tokens/s" if (speed := number(entry.progress.get("tokens_per_second"))) else "",
             f"about {_duration(entry.seconds_left)} left" if entry.seconds_left is not None else ""]  # fmt: skip
    said = " · ".join(part for part in parts if part) or "no step is logged yet"
    instead = " It will replace the finished dictionary of this name." if entry.replaces else ""
    bar = (
        html.Progress(value=f"{entry.share:.4f}", max="1", **attrs({"aria-label": "trained"})) if entry.share else None
    )
    if entry.state == "silent":
        return notice(
            html.Strong(f"No sign of life for {_duration(entry.quiet)}. "),
            html.Span(f"It stands at {said}. If it was stopped, the same command resumes it.{instead}"),
            bar,
            tone="warning",
        )
    title = "In training" if entry.state == "training" else "Trained; it is being scored and written"
    return notice(html.Strong(f"{title}: "), html.Span(f"{said}.{instead}", className="wb-notice-text"), bar)


def log_notices(log: Log) -> list[Any]:
    """What is wrong with a log."""
    shown_: list[Any] = []
    lost = first_not_finite(log.rows)
    if lost:
        words = f"The loss is no number from step {lost['step']:,} on: lower the learning rate."
        shown_.append(notice(html.Span(words), tone="error"))
    if log.unreadable:
        lines = "1 line" if log.unreadable == 1 else f"{log.unreadable:,} lines"
        shown_.append(notice(html.Span(f"{lines} of the log cannot be read and are left out."), tone="warning"))
    return shown_


def card(entry: Entry, inside: dict[str, Any], made: list[Manifest]) -> html.Section:
    """Numbers first, then settings and origin, then where to go on."""
    held = entry.heldout
    now = entry.progress if entry.unfinished else {}
    stats = [
        *[_stat(f"{name} now", _short(now.get(key))) for name, key in (("FVU", "fvu"), ("L0", "l0"))],
        *[_stat(f"{name} now", _percent(now.get(key))) for name, key in (("dead", "dead"), ("dense", "dense"))],
        _stat("features", f"{entry.d_sae:,}" if entry.d_sae else None),
        _stat("FVU", _short(held.get("fvu"))),
        _stat("L0", _short(held.get("l0"))),
        _stat("dead", _percent(held.get("dead_fraction"))),
        _stat("dense", _percent(held.get("dense_fraction"))),
        _stat("l2 ratio", _short(held.get("l2_ratio"))),
        _stat("CE recovered", _short(inside.get("ce_recovered"))),
        _stat("from the mean", _short(inside.get("ce_recovered_from_mean"))),
        _stat("tokens", _count(entry.summary.get("tokens_seen"))),
        _stat("tokens/s", _count(entry.summary.get("tokens_per_second"))),
    ]
    return panel(
        html.Span(entry.name, className="wb-circuit-title"),
        html.Div([each for each in stats if each], className="wb-stats"),
        html.Table(html.Tbody([_row(name, value) for name, value in _facts(entry, inside)]), className="wb-evidence"),
        None if entry.unfinished else _links(made),
        note=_card_lead(entry),
        className="wb-sae-card",
    )


def _card_lead(entry: Entry) -> str:
    at = f" at {entry.hook_point}" if entry.hook_point else ""
    model = entry.summary.get("model")
    of = f" of {model}" if model else ""
    if entry.imported:
        return f"Imported: a {entry.kind} dictionary{of}{at}, written by another tool."
    held = entry.heldout.get("n_tokens")
    scored = f"; scores on {held:,} held-out tokens" if isinstance(held, int) else ""
    return f"A {entry.kind} dictionary{of}{at}{scored}." if entry.kind else "No settings are stored with it."


def _facts(entry: Entry, inside: dict[str, Any]) -> list[tuple[str, str]]:
    config, check = entry.config, entry.summary.get("self_check")
    facts: list[tuple[str, Any]] = [("plan", entry.summary.get("plan") or entry.progress.get("plan"))]
    if entry.imported:
        facts += [("format", config.get("format")), ("from", config.get("source"))]
    elif config.get("recording"):
        facts.append(("trained on", f"recording {config['recording']}"))
    if isinstance(check, dict):
        errors = [number(check.get(f"{part}_error")) for part in ("encode", "encode_sparse", "recons")]
        known = [error for error in errors if error is not None]
        if known:
            rows = f" on {check['rows']} rows" if isinstance(check.get("rows"), int) else ""
            facts.append(("self-check", f"agrees with that format's own numbers to {max(known):.1e}{rows}"))
    facts += [(name.replace("_", " "), config.get(name)) for name in _SETTINGS]
    if inside:
        facts.append(
            ("loss in the model", f"{_short(inside.get('ce_clean'))} → {_short(inside.get('ce_spliced'))} nats")
        )
        facts.append(("from evaluation", inside.get("artefact")))
    return [(name, shown(value)) for name, value in facts if value is not None and value != ""]


def _links(made: list[Manifest]) -> html.P:
    links: list[Any] = []
    for manifest in made:
        href = f"/feature/{manifest.name}" if manifest.kind == "features" else atlas_href(manifest.name)
        words = "its features" if manifest.kind == "features" else "its map"
        links += [quiet_link(f"{words} ({manifest.name})", href), " · "]
    if not links:
        return html.P("Not described yet: `workbench features` makes its feature tables.", className="wb-note wb-flush")
    return html.P(links[:-1], className="wb-flush")


def _stat(name: str, value: str | None) -> Any:
    return stat(name, value, HINTS.get(name, "")) if value else None


def _row(name: str, value: str) -> html.Tr:
    return html.Tr([html.Th(name, scope="row"), html.Td(value, dir="auto")])


def _short(value: Any) -> str:
    return shown(found) if (found := number(value)) is not None else ""


def _percent(value: Any) -> str:
    return f"{found:.1%}" if (found := number(value)) is not None else ""


def _count(value: Any) -> str:
    found = number(value)
    return "" if found is None else f"{found / 1e6:.1f} million" if found >= 1e6 else f"{found:,.0f}"


def _duration(seconds: float | None) -> str:
    """`75` -> `1 min`; `200000` -> `2 days`."""
    seconds = seconds or 0.0
    for unit, size in (("day", 86400), ("hour", 3600)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
