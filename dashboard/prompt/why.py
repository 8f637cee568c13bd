"""Direct logit attribution of an answer, and the reasons for one cell of an attention pattern (QK attribution)."""

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update

from dashboard.components.frame import attempt, attrs, graph, panel, select, stat
from dashboard.components.live import LogitShares, PromptResult, ScoreReasons
from dashboard.components.pages import current, whole_number
from dashboard.figures.attribution import pair_map, share_bars, share_map
from dashboard.figures.theme import Theme, theme, visible


def logit_panel(result: PromptResult, asked: dict[str, Any]) -> html.Section:
    """Return the panel with the answer, its contrast and the position; a callback fills in the attribution."""
    n = len(result.tokens)
    positions = [{"value": str(i), "label": f"after {i}: {visible(t, 16)}"} for i, t in enumerate(result.tokens)]
    after = whole_number(asked.get("after"))
    return panel(
        "Direct logit attribution",
        html.Div(
            [
                dmc.TextInput(id="prompt-answer", value=asked.get("answer") or "", placeholder="answer: most probable",
                              size="xs", w=190, className="wb-mono", **attrs({"aria-label": "Answer"})),
                dmc.TextInput(id="prompt-contrast", value=asked.get("contrast") or "", placeholder="rather than",
                              size="xs", w=150, className="wb-mono", **attrs({"aria-label": "Contrast"})),
                select("prompt-after", "After which token", positions,
                       str(after if after is not None and 0 <= after < n else n - 1), width=200),
                dmc.Button("Attribute", id="prompt-attribute", size="xs", variant="default"),
            ],
            className="wb-controls",
        ),
        html.Div(id="prompt-shares"),
        note="direct effect of each head and MLP on the logit of the answer (minus that of the contrast), through the "
        "final norm and the unembedding; effects through later layers are not included",
    )  # fmt: skip


def register_why(app: Dash) -> None:
    """Add the callbacks: the attribution (at once, and on the button), the reasons (on a click in the pattern)."""
    app.callback(
        Output("prompt-shares", "children"),
        Output("prompt-asked", "data"),
        Input("prompt-attribute", "n_clicks"),
        State("prompt-answer", "value"),
        State("prompt-contrast", "value"),
        State("prompt-after", "value"),
        State("prompt-run-state", "data"),
        State("scheme", "data"),
        running=[(Output("prompt-attribute", "disabled"), True, False)],
    )(_attribute)
    app.callback(
        Output("prompt-cell", "data"),
        Input("prompt-pattern-graph", "clickData"),
        prevent_initial_call=True,
    )(_cell)
    app.callback(
        Output("prompt-reasons", "children"),
        Input("prompt-cell", "data"),
        Input("prompt-head-shown", "data"),
        State("prompt-run-state", "data"),
        State("scheme", "data"),
    )(_reasons)


def _attribute(
    clicks: int | None, answer: str | None, contrast: str | None, after: str, run: dict[str, Any] | None,
    scheme: str | None,
) -> Any:  # fmt: skip
    if not run:
        return no_update, no_update

    def body() -> html.Div:
        found = current().live.shares(
            run["text"], model=run["model"], answer=answer or "", contrast=contrast or "", after=whole_number(after)
        )
        return _shares(found, theme(scheme))

    asked = {"answer": answer or "", "contrast": contrast or "", "after": after}
    return attempt(body), asked if clicks else no_update


def _shares(found: LogitShares, colours: Theme) -> html.Div:
    against = f"− logit({spaced(found.contrast)})" if found.contrast is not None else "− mean over the vocabulary"
    numbers = [stat(f"logit({spaced(found.answer)}) {against}, after {spaced(found.token)}", f"{found.total:+.3f}")]
    bars = share_bars(found.parts, colours, unit="direct effect (logits)")
    return html.Div(
        [
            html.Div(numbers, className="wb-stats", dir="auto"),
            html.Div(
                [
                    graph("prompt-share-bars", figure=bars, label="Largest direct effects"),
                    graph(
                        "prompt-share-map",
                        figure=share_map(found.heads, found.mlps, colours),
                        label="All direct effects",
                    ),
                ],
                className="wb-two wb-even wb-flush",
            ),
        ]
    )


def _cell(click: dict[str, Any] | None) -> Any:
    if not click or not click.get("points"):
        return no_update
    at = click["points"][0]
    if at.get("z") is None:
        return no_update  # a later token, which no head attends to
    return {"query": int(at["y"]), "key": int(at["x"])}


def _reasons(cell: dict[str, int] | None, head: dict[str, int], run: dict[str, Any] | None, scheme: str | None) -> Any:
    if not run or not cell:
        words = "Click a cell of the pattern: its attention score is split into what earlier parts wrote."
        return html.P(words, className="wb-none")

    def body() -> html.Div:
        found = current().live.reasons(run["text"], model=run["model"], layer=head["layer"], head=head["head"], **cell)
        return reasons_panel(found, theme(scheme))

    return attempt(body)


def reasons_panel(found: ScoreReasons, colours: Theme) -> html.Div:
    """Return the attention, the score above that of the other keys, and the pairs of parts that it is the sum of."""
    pairs = [
        (f"{q} · {k}", float(found.matrix[i, j]))
        for i, q in enumerate(found.query_parts)
        for j, k in enumerate(found.key_parts)
    ]
    numbers = [
        stat("attention", f"{found.attention:.3f}"),
        stat(
            "score above the other keys",
            f"{found.relative:+.2f}",
            "before the softmax, minus the mean of the other keys",
        ),
    ]
    where = f"{spaced(found.query_token)} ({found.query}) attends to {spaced(found.key_token)} ({found.key})"
    return html.Div(
        [
            html.H3(html.Span(where, dir="auto", className="wb-token")),
            html.P(
                "The score is a sum over pairs of parts: the output of one at the query, of another at the key.",
                className="wb-note",
            ),
            html.Div(numbers, className="wb-stats"),
            graph(
                "prompt-pair-bars",
                figure=share_bars(pairs, colours, unit="share of the score (query part · key part)", n=8),
                label="Largest pairs",
            ),
            graph(
                "prompt-pair-map",
                figure=pair_map(found.matrix, found.query_parts, found.key_parts, colours),
                label="Pairs of parts",
            ),
        ]
    )


def spaced(token: str) -> str:
    """Return a token on one line, with its leading space visible: `␣Paris`."""
    shown = visible(token, 24)
    return "␣" + shown[1:] if shown.startswith(" ") else shown
