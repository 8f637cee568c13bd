"""The panel *Prove it*: the stored proof of a feature, and answers about it from a live model, each with its controls.

The standard proof is an artefact (`saes/features/proof.py`). A visitor can also read a text of their own with the
feature, steer a prompt along it, and ablate it on its own examples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import dash_mantine_components as dmc
import numpy as np
from dash import Dash, Input, NoUpdate, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboard.components.evidence import as_table, claim_fold, number
from dashboard.components.forms import field_input, help_mark
from dashboard.components.frame import (
    Children,
    Part,
    attempt,
    attrs,
    fold,
    graph,
    loading,
    notice,
    panel,
    quiet_link,
    stat,
    verdict,
)
from dashboard.components.pages import feature_href, page_of, run_button
from dashboard.components.tokens import token_strip
from dashboard.data.features import FeatureState, One, examples
from dashboard.figures.saes import proof_nulls
from dashboard.figures.theme import theme, visible
from dashboard.sources import current
from interp.acts import Act, decode
from interp.directions.study import DirectionGeometry
from interp.nulls import DRAWS
from interp.workspace import Workspace
from saes.acts.features import Ablate, JudgeSteering, OnFeature, ReadText, Steer, SteeringVerdict
from saes.acts.run import Run
from saes.features.proof import AblatedExample, Proof, SteeredRow, TextFirings, why_outdated
from saes.features.schema import Features

TEXT = "The meeting was moved to March, and the next one to July."
PROMPT = "The meeting was moved to"
FEWEST_WORDS = 3
"""Words before a peak from which on they serve as a prompt."""
PANEL = "feature-prove"
"""Id of the panel, to which the head of the page links."""


def prove_panel(workspace: Workspace, of: One, proof: Proof | None, scheme: str | None) -> html.Section:
    """Return the panel of one feature: the live questions beside its stored proof, or the button that runs it."""
    index = of.row.feature
    text, prompt = own_text(of.features, index)
    stored = html.Div(attempt(lambda: _stored(workspace, of, proof, scheme)), className="wb-proof")
    asks = html.Div([_ask_steer(prompt, of.row.max_activation), _ask_text(text), _ask_ablate()], className="wb-asks")
    return panel(
        "Prove it",
        html.Div([asks, stored], className="wb-two wb-even wb-flush"),
        more="Steering adds the feature's direction at every token, in units of its largest activation; the verdict "
        "says whether the words that it reads rise on this prompt. The standard proof tests four claims about these "
        "words: it fires on them, steering makes the model say them, ablating it makes the model say them less, and "
        "its direction says what it reads. Every number has two nulls, measured on the same words: random directions "
        "of the same norm, and other features of similar density. That it says what it reads has a third: untrained "
        "latents, random directions on words of their own, since a direction that reads a token often raises it.",
        className="wb-prove",
        id=PANEL,
    )


def own_text(features: Features, index: int) -> tuple[str, str]:
    """Return the feature's strongest example, and the text before the peak of the strongest one that has enough.

    If no peak has `FEWEST_WORDS` before it, the second is the whole example; without examples, both are fixed texts.
    """
    rows = examples(features, index)
    if not rows:
        return TEXT, PROMPT
    whole = "".join(rows[0].tokens).strip() or TEXT
    before = ("".join(row.tokens[: row.peak]).strip() for row in rows)
    return whole, next((prompt for prompt in before if len(prompt.split()) >= FEWEST_WORDS), whole)


def badge(workspace: Workspace, proof: Proof | None) -> html.A:
    """Return the outcome of the newest proof in a word or two, as a link to the panel."""
    words, more, tone = "not proved yet", "no proof of this feature is stored", " wb-strength-weak"
    if proof is not None:
        words, more, tone = proof.count(), proof.verdict(), " wb-strength-strong" if proof.holds() else ""
        if outdated := why_outdated(workspace, proof):
            words, more = "proof outdated", outdated
    href, shown = f"#{PANEL}", f"wb-strength{tone}"
    return html.A(words, href=href, className=shown, id="proof-badge", title=visible(more, 600))


def _stored(workspace: Workspace, of: One, proof: Proof | None, scheme: str | None) -> list[Part]:
    """Return the verdict with its numbers, or the button that runs the proof."""
    name, index = of.features.name, of.row.feature
    options: dict[str, object] = {"features": name, "feature": index}
    if proof is None:
        title = html.H3(["Proof", html.Span("not run yet; a few minutes on two cores", className="wb-quiet")])
        return [title, _button(workspace, options, name, index, "Run the standard proof")]
    again, outdated = options | {"overwrite": True}, why_outdated(workspace, proof)
    judged, *sentences = proof.lines()
    any_direction = "Its own direction chose these words, so any direction may pass."
    stored = [
        f"Stored as {proof.key}, strength {number(proof.strength)}, ",
        f"{number(proof.strength / of.row.max_activation)} times its maximum, written to {proof.hook_point}. ",
    ]
    return [
        notice(outdated, tone="warning") if outdated else None,
        verdict(
            judged,
            html.Ul([html.Li(visible(line, 600), dir="auto") for line in sentences], className="wb-proof-lines"),
            as_table([{_COLUMNS[name]: row[name] for name in _COLUMNS} for row in proof.to_records()], "All measures"),
            html.P([*stored, *_reports(workspace, of.features, index)], className="wb-note"),
            id="prove-verdict",
        ),
        html.P(any_direction, className="wb-note") if proof.words.any_direction_may_pass else None,
        graph("prove-nulls", figure=proof_nulls(proof, theme(scheme)), height=230, label="The feature and its nulls"),
        _continuations(proof),
        fold("Run it again", _button(workspace, again, name, index, "Run the proof again")),
        claim_fold(proof),
    ]  # fmt: skip


def _button(workspace: Workspace, options: Mapping[str, object], name: str, index: int, text: str) -> html.Div:
    command = f"workbench prove {name} --feature {index}" + (" --overwrite" if options.get("overwrite") else "")
    shown = html.Pre(f"{command} --workspace {workspace.root}", className="wb-command", tabIndex=0)
    button = run_button("prove", options, id="prove", text=text, then=feature_href(name, index))
    return html.Div([button, fold("as a command", shown)])


_COLUMNS = {
    "measure": "measure", "value": "value", "low": "low", "high": "high", "unit": "unit", "random_mean": "random",
    "random_high": "random 95 %", "alike_mean": "like density", "alike_high": "like density 95 %",
    "untrained_high": "untrained 95 %", "p_holm": "p (Holm)",
}  # fmt: skip
"""Measures of the table, with short names."""


def _continuations(proof: Proof) -> html.Details:
    parts: list[html.Div] = []
    for row in proof.continuations:
        texts = {"unchanged": row.without, "feature": row.feature, "random direction": row.random,
                "like density": row.alike}  # fmt: skip
        lines = [part for words, text in texts.items() for part in (html.Dt(words), _told(text))]
        parts.append(html.Div([html.H3(visible(row.prompt, 200), dir="auto"), html.Dl(lines)]))
    return fold("Continuations side by side", *parts)


def _told(text: str) -> html.Dd:
    return html.Dd(visible(text, 400), className="wb-token", dir="auto")


def _reports(workspace: Workspace, features: Features, index: int) -> list[dcc.Link]:
    """Return links to direction reports of the feature, which name every list and its p-value."""
    wanted = f"feature {index} of the SAE {features.sae or features.dictionary}"
    made = workspace.values(DirectionGeometry)
    of_feature = [report for report in made if report.settings.direction.source.split(",")[0] == wanted]
    return [quiet_link(f"Direction report {report.name}", page_of(report.href)) for report in of_feature[:1]]


def _question(title: str, button: str, which: str, note: str, *inputs: Component) -> html.Details:
    go = dmc.Button(button, id=f"prove-{which}-go", size="xs", variant="default")
    return fold(title, html.P(note, className="wb-note"), *inputs, go, _answer(which))


def _answer(which: str) -> dcc.Loading:
    return loading(html.Div(id=f"prove-{which}-answer", **attrs({"aria-live": "polite"})))


def _area(act: type[OnFeature], which: str, default: str, label: str) -> Component:
    """Return the field of a text; while it is empty, the `default` text is used."""
    shown = attrs({"aria-label": label, "placeholder": visible(default, 1000)})
    return field_input(act, "text", f"prove-{which}-text", lines=2, label=False, **shown)


def _ask_text(text: str) -> html.Details:
    note = "its activation on every token of your text"
    return _question("Your text", "Show activations", "read", note, _area(ReadText, "read", text, "Text to read"))


def _ask_steer(prompt: str, largest: float) -> html.Div:
    return html.Div(
        [
            html.H3(["Steer", html.Span(f"by a multiple of its maximum, {number(largest)}", className="wb-quiet")]),
            _area(Steer, "steer", prompt, "Prompt to continue"),
            field_input(Steer, "strength", "prove-strength", mb=22, mt=6),
            html.Div(
                [
                    dmc.Button("Steer", id="prove-steer-go", size="xs", variant="default"),
                    dmc.Button("Verdict", id="prove-steer-verdict", size="xs", variant="default"),
                    field_input(JudgeSteering, "nulls", "prove-steer-nulls", label=False, w=110),
                    help_mark(JudgeSteering, "strength", "nulls"),
                ],
                className="wb-controls wb-form",
            ),
            _answer("judge"),
            _answer("steer"),
        ]
    )


def _ask_ablate() -> html.Details:
    note = "zero-ablates it on its strongest examples: change of loss from the peak on, in nats per token"
    nulls = [field_input(Ablate, "nulls", "prove-ablate-nulls", label=False, w=110), help_mark(Ablate, "nulls")]
    controls = html.Div(nulls, className="wb-controls wb-form")
    return _question("Ablate", "Ablate on its examples", "ablate", note, controls)


def register(app: Dash) -> None:
    """Add the callbacks of the questions: a button, its panel, and the fields that are asked."""
    steering = {"text": "prove-steer-text", "strength": "prove-strength"}
    for button, which, act, answer, fields in (
        ("prove-read-go", "read", ReadText, text_answer, {"text": "prove-read-text"}),
        ("prove-steer-go", "steer", Steer, steer_answer, steering),
        ("prove-steer-verdict", "judge", JudgeSteering, verdict_answer, steering | {"nulls": "prove-steer-nulls"}),
        ("prove-ablate-go", "ablate", Ablate, ablate_answer, {"nulls": "prove-ablate-nulls"}),
    ):
        app.callback(
            Output(f"prove-{which}-answer", "children"),
            Input(button, "n_clicks"),
            State("feature-state", "data"),
            *(State(id, "value") for id in fields.values()),
            running=[(Output(button, "disabled"), True, False)],
            prevent_initial_call=True,
        )(answering(act, answer, *fields))


def answering(act: type[Act[Run, Any]], answer: Callable[[Any], Any], *fields: str) -> Callable[..., Any]:
    """Return the callback of one question with these fields; an empty text is the feature's own."""

    def respond(clicks: int | None, state: FeatureState, *values: Any) -> Children | NoUpdate:
        if not clicks:
            return no_update

        def body() -> Children:
            context, name, index = current(), state["features"], state["index"]
            options: dict[str, Any] = dict(zip(fields, values, strict=True)) | {"features": name, "feature": index}
            if "text" in options and not (options["text"] or "").strip():
                whole, prompt = own_text(context.workspace.open(Features, name), index)
                options["text"] = whole if act is ReadText else prompt
            return answer(context.live.ask(decode(act, options)))

        return attempt(body)

    return respond


def verdict_answer(judged: SteeringVerdict) -> list[html.P]:
    """Return the verdict on steering: its words in one line, the size of the shift in another."""
    return [
        html.P(visible(line, 600), className="wb-note", dir="auto") for line in (judged.headline(), *judged.details())
    ]


def text_answer(firings: TextFirings) -> html.Div:
    """Return the text coloured by activation, and the number of tokens on which features of like density fire."""
    fires = sum(activation > 0 for activation in firings.activations)
    strongest = max(firings.activations, default=0.0)
    alike = f"{number(float(np.mean(firings.alike)))}, at most {max(firings.alike)}" if firings.alike else "none"
    return html.Div(
        [
            token_strip(firings.tokens, firings.activations, maximum=strongest),
            html.Div(
                [
                    stat("tokens on which it fires", f"{fires} of {len(firings.tokens)}"),
                    stat("largest activation", number(strongest)),
                    stat("tokens, others of like density", alike, f"on which {len(firings.alike)} others fire: mean"),
                ],
                className="wb-stats",
            ),
        ]
    )


def steer_answer(rows: list[SteeredRow]) -> html.Div:
    """Return the continuations side by side, each with the shift of its next token."""
    parts: list[Part] = []
    for row in rows:
        moved = "; ".join(f"{visible(t, 16)} {before:.1%} to {after:.1%}" for t, before, after in row.moved)
        shift = [html.Span(f"shift {number(row.kl)} nats", title="KL divergence of the next token"), f" · {moved}"]
        parts += [
            html.Dt(row.name, className="wb-own" if row.name == "feature" else None),
            _told(row.text),
            html.Dd(shift if row.name != "unchanged" else "no shift", className="wb-note", dir="auto"),
        ]
    words = f"Two controls only; press Verdict for {DRAWS['standard']}."
    return html.Div([html.Dl(parts), html.P(words, className="wb-note")])


def ablate_answer(examples: list[AblatedExample]) -> html.Div:
    """Return every example with its change of loss, and the means over the directions of both nulls."""
    if not examples:
        return html.Div(html.P("No token follows the peak of any stored example.", className="wb-none"))
    means = {
        "mean change, nats per token": [example.change for example in examples],
        "random directions": [value for example in examples for value in example.random],
        "features of like density": [value for example in examples for value in example.alike],
    }
    rows = [
        html.Li(
            [
                token_strip(example.tokens, example.activations, maximum=max(example.activations), peak=example.peak),
                html.Span(
                    f"{_change(example.change)} (random {_beside(example.random)}"
                    + (f"; like density {_beside(example.alike)})" if example.alike else ")"),
                    className="wb-note",
                ),
            ]
        )
        for example in examples
    ]  # fmt: skip
    numbers = [stat(name, _change(float(np.mean(values)))) for name, values in means.items() if values]
    return html.Div([html.Div(numbers, className="wb-stats"), html.Ol(rows, className="wb-lines")])


def _change(value: float) -> str:
    return number(value, signed=True)


def _beside(null: list[float]) -> str:
    return f"{_change(float(np.mean(null)))}, at most {_change(max(null))}"
