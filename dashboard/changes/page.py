"""*Changes*: two models compared: a list of what fine-tuning changed, or a crosscoder's latents.

A comparison of checkpoints shows every finding beside its null, among them the causal evidence: parts of one model
transplanted into the other. A crosscoder reads both models at once; its latents are shared or of one model.
"""

from dash import Dash, dcc, html

from dashboard.components.evidence import number, records_table
from dashboard.components.frame import Part, attempt, fold, graph, guarded, page, panel, quiet_link, stat, verdict
from dashboard.components.pages import (
    Page,
    artefact_menu,
    changes_href,
    menu_choices,
    register_parts,
    run_button,
    runs_href,
)
from dashboard.figures.changes import changes_figure, latents_histogram
from dashboard.figures.theme import Theme, theme, visible
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import Artefact, as_json, kinds_of
from interp.changes.comparison import QUESTIONS, ModelComparison, Said
from interp.changes.tunes import BASE, TuneName
from interp.models.short_name import short_name
from interp.nulls import BEYOND
from interp.workspace import Workspace
from saes.evaluation.latent_comparison import LatentComparison

HEIGHT = 380
LISTED = 40
"""Rows in the table: every cell costs the browser time in every update of the page, and a model has hundreds."""
_COLUMNS = {"base": "base", "tuned": "tuned", "steered": "base, steered", "null": "base, null steered"}
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
    """Return the headline; behind it the null, and the behaviour of both models or the test of a latent."""
    if isinstance(comparison, ModelComparison):
        answers = comparison.said
        lens = "the base's Jacobian lens" if answers.lens else "the logit lens"
        sentences = (
            f"Null of weights, residual stream and behaviour: {comparison.null}",
            "Null of words and predictions: the base with the same change written elsewhere",
            f"Words are read on {answers.n_tokens:,} tokens of {answers.text}, through {lens}",
            f"Behaviour: {comparison.gap}",
        )
        body: Part = html.Ul([html.Li(f"{visible(line, 600)}.") for line in sentences], className="wb-said")
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
        guarded("Findings", lambda: _findings(comparison),
                note="the furthest above its null first; times: multiples of the null's bound; beyond: rows above it"),
        guarded("Where in the model", lambda: _by_layer(comparison, colours),
                note=f"the largest change of each layer; filled: {BEYOND}, dotted: the null's upper bound"),
        guarded("Texts", lambda: _texts(comparison.said), note="what both models write and predict"),
    ]  # fmt: skip


def _findings(comparison: ModelComparison) -> list[Part]:
    """Return the list, and folded every row beyond its null."""
    listed = [{key: visible(value, 80) for key, value in answer.record().items()} for answer in comparison.answers()]
    rows = [row for question in QUESTIONS for row in comparison.found(question)]
    shown = [
        {"what": QUESTIONS[row.question][0], "text": visible(row.text, 40), "where": visible(row.name, 40),
         "words": visible(" ".join(row.words), 120), "value": row.value, "low": row.low, "high": row.high,
         "null": row.null, "null up to": row.bound}
        for row in sorted(rows, key=lambda row: -row.times)[:LISTED]
    ]  # fmt: skip
    more = [records_table(as_json(shown), limit=LISTED)] if shown else [html.P(f"Nothing is {BEYOND}.")]
    return [records_table(as_json(listed)), fold(f"{len(shown)} of {len(rows)} rows {BEYOND}", *more)]


def _by_layer(comparison: ModelComparison, colours: Theme) -> list[Part]:
    figure = changes_figure(comparison.changes.rows(), colours, height=HEIGHT)
    label = "Changes of every layer, in multiples of their nulls"
    return [graph("changes-layers", figure=figure, label=label, height=HEIGHT)]


def _texts(answers: Said) -> list[Part]:
    return [
        fold("What each writes", *_written(answers)),
        fold("Predictions that changed most", *_turns(answers)),
    ]


def _written(answers: Said) -> list[Part]:
    names = {key: name for key, name in _COLUMNS.items() if answers.steered_at or key in ("base", "tuned")}
    rows = [html.Tr([html.Th(column, scope="col") for column in ("prompt", *names.values())])]
    for sample in answers.written:
        texts = [visible(sample.prompt, 80) or "no prompt", *(visible(getattr(sample, key), 300) for key in names)]
        rows.append(html.Tr([html.Td(text, dir="auto") for text in texts]))
    note = "Greedy; steered: with the mean difference of this change, or of another one, added."
    return [
        html.P(note, className="wb-note"),
        html.Div(html.Table(rows, className="wb-samples"), className="wb-scroll"),
    ]


def _turns(answers: Said) -> list[Part]:
    if not answers.turns:
        return [html.P("The two models predict the same at every position.", className="wb-none")]
    beyond = sum(turn.kl > answers.kl_high for turn in answers.turns)
    note = (
        f"{beyond} of {len(answers.turns)} positions beyond the null's largest KL, {number(answers.kl_high)} nats; "
        "at most one position per text."
    )
    rows = [
        {"text": visible("…" + turn.before[-60:], 70), "then": visible(turn.actual, 70),
         "base predicts": visible(" ".join(turn.base), 70), "tuned predicts": visible(" ".join(turn.tuned), 70),
         "KL": turn.kl}
        for turn in answers.turns
    ]  # fmt: skip
    return [html.P(note, className="wb-note"), records_table(as_json(rows))]


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


PAGE = Page(
    title="Changes",
    path="/changes",
    group="models",
    order=100,
    about="What fine-tuning changed",
    layout=layout,
    register=register,
    shows="What fine-tuning changed: words, weights, and the parts that carry the new behaviour, each with its null. "
    "Choose your fine-tuned model.",
    command="workbench compare models BASE TUNED",
    fill=lambda _, model: ("compare models", {"base": model}),
    form=make_panel,
)
