"""Panels that explain an answer: attribution, the reasons for one cell of an attention pattern, activation patching.

Attribution is to heads, MLPs and features. Patches between two prompts are measured live or read from disk.

All panels explain one number, the *metric*: the logit of the answer minus that of the contrast (without a contrast,
minus the mean over the vocabulary), after the chosen token. Its name and value are the same in each (`metric`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, NoUpdate, Output, State, ctx, dcc, html, no_update

from dashboard.components.evidence import number
from dashboard.components.forms import field_input, help_mark
from dashboard.components.frame import (
    Children,
    attempt,
    attrs,
    fold,
    folded,
    graph,
    loading,
    panel,
    select,
    stat,
    verdict,
)
from dashboard.components.tokens import feature_line
from dashboard.data import features as feature_view
from dashboard.figures.attribution import pair_map, patching_map, share_bars, share_map, side_bars
from dashboard.figures.theme import Theme, theme, visible
from dashboard.sources import current
from dashboard.turns import asking
from interp.errors import SupersededError, WorkbenchError
from interp.models.short_name import short_name
from interp.nulls import BEYOND, DRAWS, NULLS
from interp.patching.patching_map import WHOLE, PatchingMap
from interp.workspace import Workspace
from saes.acts.attribution import (
    AttributeAnswer,
    AttributeToFeatures,
    ExplainAttention,
    FeatureShares,
    LogitShares,
    ScoreReasons,
)
from saes.acts.patching import PatchPrompts, SuggestPair

_signed = partial(number, signed=True)
Run = dict[str, Any] | None
"""The prompt that was read, and the visitor who reads it."""


def answer_controls(answer: str, contrast: str) -> html.Div:
    """Return the fields of the answer and the contrast, which every panel explains."""
    return html.Div(
        [
            dmc.TextInput(id="prompt-answer", value=answer, placeholder="answer: most probable", debounce=True,
                          size="xs", w=190, className="wb-mono", **attrs({"aria-label": "Answer"})),
            html.Span("rather than", className="wb-quiet"),
            dmc.TextInput(id="prompt-contrast", value=contrast, placeholder="contrast: the next one", debounce=True,
                          size="xs", w=190, className="wb-mono", **attrs({"aria-label": "Contrast"})),
        ],
        className="wb-controls",
    )  # fmt: skip


def attribution_panel(answer: str, contrast: str) -> html.Section:
    """Return the panel of attribution: to heads and MLPs at once, to features on a button.

    The second takes some ten passes of the model.
    """
    return panel(
        "Attribution",
        answer_controls(answer, contrast),
        loading(html.Div(id="prompt-shares")),
        fold(
            "To features",
            html.P(
                "integrated gradients: each feature's share of the change in the metric when all features and the "
                "error are ablated together. Ablating one alone may change less, since others compensate",
                className="wb-note",
            ),
            dmc.Button("Attribute to features", id="prompt-attribution", size="xs", variant="default"),
            loading(html.Div(id="prompt-feature-shares")),
        ),
        more="Direct effect of each head and MLP on the metric, in logits, through the final norm and the unembedding, "
        "without effects through later layers. The parts add up to the metric.",
    )


def reasons_frame() -> html.Section:
    """Return the panel of the reasons for one cell, hidden until a callback fills it."""
    return panel("Reasons for one cell", loading(html.Div(id="prompt-reasons")), id="prompt-why", hidden=True)


def register_why(app: Dash) -> None:
    """Add the callbacks: the attribution to heads (at once) and to features (on the button), the reasons of a cell."""
    parts = ("prompt-read", "prompt-asked", "prompt-token")
    shown = [Input(part, "data") for part in parts]
    app.callback(Output("prompt-shares", "children"), *shown, State("scheme", "data"))(attribute_to_parts)
    app.clientside_callback(  # features that were shown are about another answer, token or prompt now
        "() => null",
        Output("prompt-feature-shares", "children", allow_duplicate=True),
        *shown,
        prevent_initial_call=True,
    )
    app.callback(
        Output("prompt-feature-shares", "children"),
        Input("prompt-attribution", "n_clicks"),
        *(State(part, "data") for part in parts),
        running=[(Output("prompt-attribution", "disabled"), True, False)],
        prevent_initial_call=True,
    )(attribute_to_features)
    app.callback(
        Output("prompt-reasons", "children"),
        Input("prompt-cell", "data"),
        Input("prompt-read", "data"),
        State("scheme", "data"),
    )(show_reasons)


def _asked(run: dict[str, Any], body: Callable[[], Any]) -> Children | NoUpdate:
    """Call `body` in the name of the run's visitor; return nothing if a newer request replaced it."""

    def asked() -> Children | NoUpdate:
        with asking(run.get("visitor", "")):
            try:
                return body()
            except SupersededError:
                return no_update

    return attempt(asked)


def _prompt(run: dict[str, Any]) -> dict[str, Any]:
    return {"text": run["text"], "model": run["model"], "chat": bool(run.get("chat"))}


def attribute_to_parts(run: Run, answer: dict[str, Any], after: int | None, scheme: str | None) -> Children | NoUpdate:
    """Return the attribution of an answer to heads and MLPs; None without a prompt."""
    if not run:
        return None
    return _asked(
        run,
        lambda: part_shares(current().live.ask(AttributeAnswer(**_prompt(run), **answer, after=after)), theme(scheme)),
    )


def metric(shares: LogitShares | FeatureShares, value: float) -> html.Div:
    """Return the number that every attribution on the page explains, with its name."""
    against = "mean over the vocabulary" if shares.contrast is None else f"logit({spaced(shares.contrast)})"
    name = f"metric: logit({spaced(shares.answer)}) − {against}, after {spaced(shares.token)}"
    return stat(name, _signed(value), "in logits, of the unchanged model; above 0 the answer is preferred")


def part_shares(shares: LogitShares, colours: Theme) -> html.Div:
    """Return the metric, and the direct effect of each head and MLP on it, as figures."""
    bars = share_bars(shares.parts, colours, unit="direct effect (logits)")
    heat = share_map(shares.heads, shares.mlps, colours)
    return html.Div(
        [
            html.Div(metric(shares, shares.total), className="wb-stats", dir="auto"),
            *([html.P(shares.note, className="wb-note")] if shares.note else []),
            graph("prompt-share-bars", figure=bars, label="Largest direct effects"),
            fold("By layer and head", graph("prompt-share-map", figure=heat, label="All direct effects")),
        ]
    )


def attribute_to_features(
    clicks: int | None, run: Run, answer: dict[str, Any], after: int | None
) -> Children | NoUpdate:
    """Return the attribution of an answer to the features of the chosen dictionary."""
    if not clicks or not run:
        return no_update

    def body() -> html.Div:
        features = run["features"]
        shares = current().live.ask(AttributeToFeatures(**_prompt(run), features=features, **answer, after=after))
        numbers = sorted(share.feature for share in shares.features)
        return feature_shares(shares, features, feature_view.labels(current().workspace, features, numbers))

    if not run["features"]:
        return html.P("No dictionary was chosen: choose one above the prompt and run it again.", className="wb-none")
    return _asked(run, body)


def feature_shares(shares: FeatureShares, features: str, labels: dict[int, str]) -> html.Div:
    """Return the metric as the sum over features and error, and the features with the largest effects as links."""
    rest = shares.explained - sum(share.effect for share in shares.features)
    left = shares.n_active - len(shares.features)
    numbers = [
        metric(shares, shares.metric),
        stat("= baseline", _signed(shares.baseline), f"with all features and the error ablated at {shares.hook_point}"),
        stat("+ all features", _signed(shares.explained), f"{number(shares.n_active)} active ones"),
        stat("+ error", _signed(shares.error), "effect of the reconstruction error, which no feature explains"),
        stat("+ remainder", _signed(shares.gap), "error of the approximation by gradients"),
    ]
    lines = [
        feature_line(
            features,
            share.feature,
            labels.get(share.feature, ""),
            f"{_signed(share.effect)} at {visible(share.token, 12)} ({share.position})",
        )
        for share in shares.features
    ]
    more = (
        [html.P(f"The other {left:,} active features: {_signed(rest)} together.", className="wb-note")] if left else []
    )
    return html.Div([html.Div(numbers, className="wb-stats", dir="auto"), html.Ol(lines, className="wb-lines"), *more])


def show_reasons(cell: dict[str, Any] | None, run: Run, scheme: str | None) -> Children | NoUpdate:
    """Return the reasons for one cell of an attention pattern; None without a prompt or a cell."""
    if not run or not cell:
        return None
    return _asked(
        run, lambda: reasons_panel(current().live.ask(ExplainAttention(**_prompt(run), **cell)), theme(scheme))
    )


def reasons_panel(reasons: ScoreReasons, colours: Theme) -> html.Div:
    """Return the attention, the score above that of the other keys, and the layers and pairs of parts it comes from."""
    numbers = [
        stat("attention", number(reasons.attention)),
        stat(
            "score above the other keys",
            _signed(reasons.relative),
            "before the softmax, minus the mean of the other keys",
        ),
        *(
            stat(name, f"{_signed(min(values))} to {_signed(max(values))}", f"null: the same score of {meaning}")
            for name, values, meaning in (
                ("other keys", reasons.other_keys, "every other key of this query"),
                ("other queries", reasons.other_queries, "this key for every other query"),
            )
            if values
        ),
    ]
    where = f"{spaced(reasons.query_token)} ({reasons.query}) attends to {spaced(reasons.key_token)} ({reasons.key})"
    return html.Div(
        [
            html.H3(html.Span(where, dir="auto", className="wb-token")),
            html.P(
                "Queries and keys are sums over earlier components, norms held fixed, and so is the score. All bars of "
                "a colour add up to it.",
                className="wb-note",
            ),
            html.Div(numbers, className="wb-stats"),
            html.Div(
                [
                    graph(
                        "prompt-side-bars",
                        figure=side_bars(reasons.matrix, reasons.query_parts, reasons.key_parts, colours),
                        label="Score by layer, at the key and at the query",
                    ),
                    graph(
                        "prompt-pair-map",
                        figure=pair_map(reasons.matrix, reasons.query_parts, reasons.key_parts, colours),
                        label="Pairs of the largest parts",
                    ),
                ],
                className="wb-two wb-even wb-flush",
            ),
        ]
    )


def spaced(token: str) -> str:
    """Return a token on one line, with its leading space visible: `␣Paris`."""
    shown = visible(token, 24)
    return "␣" + shown[1:] if shown.startswith(" ") else shown


EXAMPLE = {
    "clean": "The capital of France is",
    "corrupt": "The capital of Italy is",
    "answer": "Paris",
    "wrong": "Rome",
}
METRIC = (
    "after the last token: logit(clean answer) − logit(corrupt answer), as in the attributions; without a corrupt "
    "answer, the log-probability of the clean one, in nats"
)
_SHOWN = 5000
"""Patches that are drawn at most, largest effects first."""


def patching_panel(workspace: Workspace, name: str) -> html.Details:
    """Return the panel: a pair of prompts with a button, and the stored maps; `name` is the one that is opened."""
    stored = [{"value": "", "label": "stored maps"}, *workspace.names("patching")]
    return folded(
        "Activation patching",
        html.Div(
            [
                *(
                    field_input(PatchPrompts, key, f"prompt-patch-{key}", value=EXAMPLE[key], w=width)
                    for key, width in (("clean", 260), ("corrupt", 260), ("answer", 130), ("wrong", 130))
                ),
                field_input(PatchPrompts, "what", "prompt-patch-what", w=330),
                field_input(PatchPrompts, "direction", "prompt-patch-direction", w=210),
                dmc.Button("Patch", id="prompt-patch-go", size="xs", variant="default"),
                help_mark(PatchPrompts, *EXAMPLE, "what", "direction"),
                select("prompt-patch-stored", "Stored map", stored, name, width=200,
                       className="" if stored[1:] else "wb-hidden"),
            ],
            className="wb-controls wb-labelled wb-form",
        ),
        html.P(
            [html.Span(id="prompt-patch-hint", role="status"), " ",
             html.Button("Use the prompt above", id="prompt-patch-use", type="button", className="wb-link")],
            className="wb-note",
        ),
        dcc.Store(id="prompt-patch-filled"),
        loading(html.Div(id="prompt-patch-result", **attrs({"aria-live": "polite"}))),
        note="One activation of one run replaces that of the other. Effect: the fraction of the gap between their "
        f"metrics that this closes (0: none, 1: all of it). With {DRAWS['quick']} maps of null patches, this takes "
        f"about {1 + DRAWS['quick']} passes of the model per layer and position. The switch of the chat template "
        "applies here too.",
        id="prompt-patch",
        open=bool(name),
    )  # fmt: skip


def register_patching(app: Dash) -> None:
    """Add the callbacks: the button, the menu of stored maps, and the fields that follow the prompt above."""
    fields = [State(f"prompt-patch-{key}", "value") for key in (*EXAMPLE, "what", "direction")]
    app.callback(
        Output("prompt-patch-result", "children"),
        Input("prompt-patch-go", "n_clicks"),
        State("prompt-model", "value"),
        *fields,
        State("prompt-chat", "checked"),
        State("prompt-visitor", "data"),
        State("scheme", "data"),
        running=[(Output("prompt-patch-go", "disabled"), True, False)],
        prevent_initial_call=True,
    )(measure_patches)
    app.callback(
        Output("prompt-patch-result", "children", allow_duplicate=True),
        Input("prompt-patch-stored", "value"),
        State("scheme", "data"),
        prevent_initial_call="initial_duplicate",
    )(show_stored_patches)
    app.callback(
        *(Output(f"prompt-patch-{key}", "value") for key in EXAMPLE),
        Output("prompt-patch-hint", "children"),
        Output("prompt-patch-filled", "data"),
        Input("prompt-read", "data"),
        Input("prompt-patch-use", "n_clicks"),
        Input("fold-prompt-patch", "n_clicks"),
        *fields[: len(EXAMPLE)],
        State("prompt-patch-filled", "data"),
        prevent_initial_call=True,
    )(fill_patching)


def fill_patching(run: Run, _: int | None, folds: int, *fields: Any) -> tuple[Any, ...]:
    """Fill the fields from the prompt above once the panel is open, as it takes passes of the model.

    The button always fills them; anything else does so unless a visitor has typed into them.
    """
    *typed, filled = fields
    nothing = (no_update,) * (len(EXAMPLE) + 2)
    if not run or not folds:
        return nothing
    if ctx.triggered_id != "prompt-patch-use" and typed not in ([*EXAMPLE.values()], filled):
        return nothing
    try:
        with asking(run.get("visitor", "")):
            pair = current().live.ask(SuggestPair(**_prompt(run)))
    except WorkbenchError:  # the panel works without a suggestion
        return nothing
    values = [pair.clean, pair.corrupt, pair.answer, pair.wrong]
    hint = (
        "The prompt above, and the same with one word replaced, each with its most probable next token."
        if pair.corrupt
        else "The prompt above. Type a second prompt of the same length in tokens, with another answer."
    )
    return (*values, hint, values)


def measure_patches(clicks: int | None, model: str, *fields: Any) -> Children | NoUpdate:
    """Return the effects of patches between the two prompts in the fields."""
    if not clicks:
        return no_update
    *texts, what, direction, chat, visitor, scheme = fields
    clean, corrupt, answer, wrong = ((text or "").rstrip("\n") for text in texts)

    def body() -> html.Div:
        question = PatchPrompts(
            clean=clean, corrupt=corrupt, answer=answer, wrong=wrong, model=model, what=what, direction=direction,
            by_position=what in WHOLE, chat=bool(chat),
        )  # fmt: skip
        return effects(current().live.ask(question), theme(scheme))

    return _asked({"visitor": visitor or ""}, body)


def show_stored_patches(name: str | None, scheme: str | None) -> Children | NoUpdate:
    """Return the effects of a stored map of patches."""
    if not name:
        return no_update
    return attempt(lambda: effects(current().workspace.open(PatchingMap, name), theme(scheme)))


def effects(patches: PatchingMap, colours: Theme) -> html.Div:
    """Return the numbers, the heat map, and the criterion for an effect."""
    s, n = patches.settings, patches.settings.task.n_prompts
    stats = [
        stat(f"metric: {s.task.metric}, clean prompt", _signed(patches.clean_metric), METRIC),
        stat("corrupt prompt", _signed(patches.corrupt_metric), METRIC),
        stat(BEYOND, f"{patches.n_beyond:,} of {len(patches.rows):,}", "patches with an effect above any null's"),
        stat("largest null effect", number(patches.threshold), f"{patches.null}; fixed: {NULLS[patches.null].fixed}"),
    ]
    tokens = [
        visible(clean, 12) if clean == corrupt else f"{visible(clean, 12)} / {visible(corrupt, 12)}"
        for clean, corrupt in zip(patches.prompts.clean, patches.prompts.corrupt, strict=False)
    ]
    height = min(640, 120 + 16 * (1 + max((row.layer for row in patches.rows), default=0)))
    figure = patching_map(patches.strongest(_SHOWN), colours, tokens=tokens if s.by_position else None, height=height)
    method = (
        f"{short_name(s.model)}{', in its chat template' if s.task.chat else ''}, {s.what}, {s.direction}, "
        f"{n:,} pair{'s' * (n != 1)} of prompts. A dot marks an effect larger than every "
        f"effect of the null ({patches.null}); the chance of a false one "
        f"anywhere in the map is at most {number(patches.level)}."
    )
    return html.Div(
        [
            verdict(f"{patches.headline()}.", html.P(method)),
            html.Div(stats, className="wb-stats", dir="auto"),
            html.Div(graph("prompt-patch-map", figure=figure, label="Effects of patches"), className="wb-scroll"),
        ]
    )
