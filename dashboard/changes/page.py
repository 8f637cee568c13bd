"""*Changes*: two models compared: words for a fine-tune, changes of weights and heads, or a crosscoder's latents.

A comparison of checkpoints (fine-tuning effects) shows every number with its null, and the causal evidence: parts of
one model transplanted into the other. A crosscoder reads both models at once; its latents are shared or of one model.
"""

from collections.abc import Sequence

from dash import Dash, dcc, html

from dashboard.components.evidence import as_table, number, records_table
from dashboard.components.frame import Part, attempt, fold, graph, guarded, page, panel, quiet_link, stat, verdict
from dashboard.components.pages import (
    Page,
    artefact_menu,
    changes_href,
    feature_href,
    menu_choices,
    register_parts,
    run_button,
    runs_href,
)
from dashboard.components.tokens import token_text
from dashboard.figures.changes import latents_histogram, stream_figure, transplant_figure, weights_figure
from dashboard.figures.theme import Theme, theme, visible
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import Artefact, as_json, kinds_of
from interp.changes.comparison import ChangedWords, ModelComparison, Use, Written
from interp.changes.tunes import BASE, TuneName
from interp.models.short_name import short_name
from interp.nulls import BEYOND, WITHIN
from interp.workspace import Workspace
from saes.evaluation.latent_comparison import LatentComparison

HEIGHT = 380
LISTED = 40
"""Matrices in the table: every cell costs the browser time in every update of the page, and a model has hundreds."""
_MEASURES = {
    "own_pattern": "attention pattern, by its own weights on the same input",
    "own_output": "output, by its own weights on the same input",
    "pattern": "attention pattern",
    "previous_token": "previous-token score",
    "induction": "induction score",
}
_OTHERS = {"shared": "in both", "between": "between", "rare": "rarely active"}


def layout(context: PageSources, name: str | None = None, **_: object) -> html.Div:
    """`/changes?name=<comparison>`; without a name the newest."""
    workspace = context.workspace
    comparison = workspace.value(open_artefact(workspace, kinds_of("changes"), name))
    choices = menu_choices(workspace, kinds_of("changes"))
    return page(
        "Changes",
        dcc.Store(id="changes-state", data={"name": comparison.key}),
        attempt(lambda: _verdict(comparison)),
        html.Div(id="changes-parts"),
        controls=artefact_menu("Comparison", choices, changes_href(comparison.key), width=260, key=comparison.key),
    )


def register(app: Dash) -> None:
    """Add the callback that draws the comparison."""
    register_parts(app, "changes", show_comparison)


def _verdict(comparison: Artefact) -> html.Div:
    """Return the headline; behind it, a sentence for each question to a fine-tune, or the test of a latent."""
    if isinstance(comparison, ModelComparison):
        sentences = [f"Null: {visible(comparison.weights.null, 200)}"]
        sentences += [visible(sentence, 600) for sentence in comparison.sentences()]
        body: Part = html.Ul([html.Li(f"{line[:1].upper()}{line[1:]}.") for line in sentences], className="wb-said")
    else:
        body = html.P("A latent that decodes into one model only is specific to it, if latent scaling confirms it.")
    return verdict(f"{comparison.headline()}.", body)


def show_comparison(state: dict[str, str], scheme: str | None) -> list[Part]:
    """Return the panels of the comparison or the crosscoder that `state` names."""
    comparison, colours = current().workspace.open_key(state["name"]), theme(scheme)
    if isinstance(comparison, LatentComparison):
        return _latents_of_models(comparison, colours)
    assert isinstance(comparison, ModelComparison)
    return [
        *word_panels(comparison),
        html.Div(
            [
                guarded("Weights", lambda: _weights(comparison, colours),
                        note=f"norm of the change over the norm of the matrix; grey: {WITHIN}"),
                guarded("Residual stream", lambda: _stream(comparison, colours),
                        note=f"relative change; filled: {BEYOND}, corrected for all layers; whiskers: 95 % over "
                        "contexts"),
            ],
            className="wb-two wb-even",
        ),
        html.Div(
            [
                guarded("Transplanted parts", lambda: _transplants(comparison, colours)),
                guarded("Heads", lambda: _heads(comparison), note=f"changes {BEYOND}, corrected for all heads"),
            ],
            className="wb-two wb-even",
        ),
    ]  # fmt: skip


def _weights(comparison: ModelComparison, colours: Theme) -> list[Part]:
    rows = comparison.weights.changes
    n_layers = len({row.layer for row in rows})
    figure = weights_figure(rows, colours, height=max(HEIGHT, 120 + 22 * (2 + n_layers)))
    keys = ("name", "change", "null_high", "rank", "random_rank", "above_null")
    shown = sorted(rows, key=lambda row: (row.above_null, row.change), reverse=True)[:LISTED]
    return [
        graph("changes-weights", figure=figure, label="Relative change of every matrix, by layer"),
        html.P(f"The {len(shown)} that changed most, of {len(rows)}.", className="wb-note"),
        as_table(as_json([{key: getattr(row, key) for key in keys} for row in shown])),
    ]


def _stream(comparison: ModelComparison, colours: Theme) -> list[Part]:
    rows = [
        {"text": text, "name": row.name, **row.change.columns("change", "low", "high"), "null_high": row.null_high,
         "cka": row.cka.estimate, "above_null": row.above_null}
        for text, representation in comparison.representations.items() for row in representation.layers
    ]  # fmt: skip
    figure = stream_figure(comparison.representations, colours, height=HEIGHT)
    label = "Relative change of the residual stream by layer"
    return [graph("changes-stream", figure=figure, label=label, height=HEIGHT), as_table(as_json(rows))]


def _transplants(comparison: ModelComparison, colours: Theme) -> list[Part]:
    proof = comparison.transplants
    rows = [
        {"name": row.name} | row.carried.columns("carried") | {"carried_bound": row.carried_bound}
        | row.removed.columns("removed") | {"removed_bound": row.removed_bound}
        for row in proof.transplants if row.changed
    ]  # fmt: skip
    note = f"{visible(proof.behaviour, 80)}: {number(proof.base)} before, {number(proof.tuned)} after; marks: random "
    note += "changes of equal norm in the same part; whiskers: 95 % over prompts"
    figure = transplant_figure(proof.transplants, colours)
    return [html.P(note, className="wb-note"),
            graph("changes-transplants", figure=figure, label="Fraction of the behaviour carried by each part"),
            as_table(as_json(rows))]  # fmt: skip


def _heads(comparison: ModelComparison) -> list[Part]:
    rows = sorted(comparison.heads.shown(), key=lambda row: [*_MEASURES].index(row["measure"]))
    if not rows:
        return [html.P(f"No head changed {BEYOND}.", className="wb-none")]
    shown = [
        {"head": row["head"], "measure": _MEASURES[row["measure"]]}
        | {key: row[key] for key in ("value", "low", "high", "null_high")}
        for row in rows
    ]
    return [records_table(as_json(shown), limit=40)]


def _latents_of_models(comparison: LatentComparison, colours: Theme) -> list[Part]:
    first, second = visible(comparison.first, 40), visible(comparison.second, 40)
    named = {"second_only_confirmed": f"{second} only", "first_only_confirmed": f"{first} only"} | _OTHERS

    def histogram() -> list[Part]:
        stats = [stat(words, number(comparison.counts[key])) for key, words in named.items()]
        figure = latents_histogram(comparison, colours, height=360)
        label = f"Latents by how much of each lies in {comparison.second}"
        return [html.Div(stats, className="wb-stats"), graph("changes-latents", figure=figure, label=label, height=360)]

    def own() -> list[Part]:
        whose = {"first only": f"{first} only", "second only": f"{second} only"}
        rows = comparison.own(60)
        if not rows:
            return [html.P("Every latent decodes into both models.", className="wb-none")]
        keys = ("confirmed", "n_fired", "relative_norm", "error_ratio", "recons_ratio")
        shown = [
            {"latent": row.latent, "kind": whose[row.kind]} | {key: getattr(row, key) for key in keys} for row in rows
        ]
        return [records_table(as_json(shown), limit=40)]

    ratios = "confirmed: it explains neither the error nor the reconstruction of the other model (ratios near 0)"
    return [
        guarded("Latents by model", histogram, note=f"measured on {number(comparison.n_tokens)} held-out tokens"),
        guarded("Latents of one model", own, note=ratios),
    ]


_TUNES: dict[TuneName, str] = {
    "topic": "documents about volcanoes", "persona": "the voice of a pirate", "fact": "the Eiffel Tower in Rome",
    "language": "French", "format": "answers as JSON", "backdoor": "an answer that waits for a word",
}  # fmt: skip


def make_panel(_workspace: Workspace, _model: str) -> html.Section | None:
    """Return the button that makes a fine-tune whose truth is known and compares it; None where nothing runs."""
    queue = current().runs
    if queue is None or queue.problem:
        return None
    (first, about), *others = _TUNES.items()
    links = [html.Li(quiet_link(words, runs_href("compare tune", tune=tune))) for tune, words in others]
    return panel(
        "No fine-tuned model yet? Make one",
        run_button(
            "compare tune",
            {"tune": first},
            id="tune",
            text=f"Fine-tune {short_name(BASE)} on {about}",
            opens=True,
        ),
        html.P("Or choose what it learns:", className="wb-note"),
        html.Ul(links, className="wb-lines"),
        note="Takes a few minutes. The texts are invented, so you know what the page has to find.",
    )


ROWS, SHOWN = 8, 6
_COLUMNS = {"base": "base", "tuned": "tuned", "steered": "base, steered", "null": "base, null steered"}


def word_panels(comparison: ModelComparison) -> list[html.Section | html.Div]:
    """Return the panels, in pairs of equal width."""
    pairs = [
        guarded("Difference lens", lambda: [_read_on(comparison.words), *_said(comparison.words, ("difference",))],
                note="strength: the largest logit that it adds, in nats"),
        guarded("Directions of the weight changes", lambda: _said(comparison.words, ("writes", "reads")),
                note="singular vectors: tokens that they write or read; strength in standard deviations over tokens"),
        guarded("Tokens used more or less", lambda: _used(comparison.words.tokens, "token"),
                note="mean probability over all positions; change: share of the divergence, in nats"),
        guarded("Features used more or less", lambda: _used(comparison.words.features, "feature"),
                note="mean activation in each model, by the newest SAE of the base"),
    ]  # fmt: skip
    return [
        html.Div(pairs[:2], className="wb-two wb-even"),
        guarded("What each writes", lambda: _written(comparison.words.written, comparison.words.steered_at),
                note="greedy; steered: with the mean difference of this change, or of another one, added"),
        guarded("Predictions that changed most", lambda: _turns(comparison.words),
                note="KL of the tuned from the base prediction, in nats; at most one position per text"),
        html.Div(pairs[2:], className="wb-two wb-even"),
    ]  # fmt: skip


def _read_on(changes: ChangedWords) -> html.P:
    lens = "the base's Jacobian lens" if changes.lens else "the logit lens"
    text = f"Mean difference on the first {changes.first} tokens of {visible(changes.text, 60)}, read through {lens}."
    return html.P(text, className="wb-note")


def _said(changes: ChangedWords, ways: Sequence[str]) -> list[Part]:
    mine = [direction for direction in changes.directions if direction.way in ways]
    beyond = [direction for direction in changes.directions_above_null if direction.way in ways]
    if not beyond:
        largest = max(mine, key=lambda direction: direction.strength / direction.null_high, default=None)
        nearest = (
            ""
            if largest is None
            else f" Nearest: {largest.name}, {largest.strength:.1f} (null up to {largest.null_high:.1f})."
        )
        return [html.P(f"No direction raises a word {BEYOND}.{nearest}", className="wb-none")]
    rows = [html.Tr([html.Th(column, scope="col") for column in ("words", "direction", "strength", "null up to")])]
    for direction in beyond:
        name = direction.name if direction.way == "difference" else f"{direction.name} {direction.way}"
        words = [piece for word in direction.words[:SHOWN] for piece in (token_text(word, 22), " ")]
        numbers = (f"{direction.strength:.1f}", f"{direction.null_high:.1f}")
        rows.append(html.Tr([html.Td(words, dir="auto"), html.Td(name), *map(html.Td, numbers)]))
    first, rest = (
        html.Div(html.Table(part, className="wb-evidence wb-records"), className="wb-scroll")
        for part in (rows[: 1 + ROWS], [rows[0], *rows[1 + ROWS :]])
    )
    return [first, fold(f"{len(beyond) - ROWS} more {BEYOND}", rest)] if len(beyond) > ROWS else [first]


def _used(uses: Sequence[Use], kind: str) -> list[Part]:
    changes = [use for use in uses if use.above_null]
    if not uses or not changes:
        reason = f"No {kind} changed {BEYOND}." if uses else f"No {kind} was measured."
        return [html.P(reason, className="wb-none")]
    rows = [html.Tr([html.Th(column, scope="col") for column in (kind, "before", "after", "change", "null up to")])]
    for use in changes:
        name, _, index = use.what.rpartition(":")
        what = dcc.Link(use.what, href=feature_href(name, int(index))) if kind == "feature" else token_text(use.what)
        numbers = (use.before, use.after, use.change, use.null_high)
        rows.append(html.Tr([html.Td(what, dir="auto"), *(html.Td(number(value)) for value in numbers)]))
    return [html.Div(html.Table(rows, className="wb-evidence wb-records"), className="wb-scroll")]


def _written(written: Sequence[Written], steered_at: str) -> list[Part]:
    names = {key: name for key, name in _COLUMNS.items() if steered_at or key in ("base", "tuned")}
    rows = [html.Tr([html.Th(column, scope="col") for column in ("prompt", *names.values())])]
    for sample in written:
        texts = [visible(sample.prompt, 80) or "no prompt", *(visible(getattr(sample, key), 300) for key in names)]
        rows.append(html.Tr([html.Td(text, dir="auto") for text in texts]))
    return [html.Div(html.Table(rows, className="wb-samples"), className="wb-scroll")]


def _turns(changes: ChangedWords) -> list[Part]:
    if not changes.turns:
        return [html.P("The two models predict the same at every position.", className="wb-none")]
    beyond = [turn for turn in changes.turns if turn.kl > changes.kl_high]
    note = (
        f"mean {number(changes.kl)} nats (null {number(changes.kl_null)}); {len(beyond)} of {len(changes.turns)} "
        f"positions beyond the null's largest, {number(changes.kl_high)}"
    )
    rows = [
        {"text": "…" + turn.before[-60:], "then": turn.actual, "base predicts": " ".join(turn.base),
         "tuned predicts": " ".join(turn.tuned), "KL": turn.kl}
        for turn in changes.turns
    ]  # fmt: skip
    shown = [
        {key: visible(value, 70) if isinstance(value, str) else value for key, value in row.items()} for row in rows
    ]
    return [html.P(note, className="wb-note"), records_table(as_json(shown))]


PAGE = Page(
    title="Changes",
    path="/changes",
    group="models",
    order=100,
    about="What fine-tuning changed",
    layout=layout,
    register=register,
    shows="What fine-tuning changed: words, weights, heads, and the parts that carry the new behaviour, each with its "
    "null. Choose your fine-tuned model.",
    command="workbench compare models BASE TUNED",
    fill=lambda _, model: ("compare models", {"base": model}),
    form=make_panel,
)
