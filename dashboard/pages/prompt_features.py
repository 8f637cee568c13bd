"""Which features an answer rests on: attribution to the features of a dictionary, with what it leaves out."""

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update

from dashboard.addresses import whole_number
from dashboard.components.feature_links import feature_line
from dashboard.components.frame import explain, notice, panel, stat
from dashboard.context import current
from dashboard.figures.theme import visible
from dashboard.results import FeatureShares
from dashboard.views import features as feature_view


def rests_panel() -> html.Section:
    """A button, since it takes the model some ten passes; answer, contrast and place are those of the panel above."""
    return panel(
        "Which features it rests on",
        html.Div(
            dmc.Button("Attribute to features", id="prompt-rests", size="xs", variant="default"),
            className="wb-controls",
        ),
        html.Div(id="prompt-feature-shares"),
        note="each feature's share of what the answer loses when all of them are off; without one alone the answer may "
        "lose less, as others stand in",
    )


def register_features(app: Dash) -> None:
    """The button."""
    app.callback(
        Output("prompt-feature-shares", "children"),
        Input("prompt-rests", "n_clicks"),
        State("prompt-answer", "value"),
        State("prompt-contrast", "value"),
        State("prompt-after", "value"),
        State("prompt-run-state", "data"),
        running=[(Output("prompt-rests", "disabled"), True, False)],
        prevent_initial_call=True,
    )(_attribute)


def _attribute(
    clicks: int | None, answer: str | None, contrast: str | None, after: str, run: dict[str, Any] | None
) -> Any:
    if not clicks or not run:
        return no_update
    try:
        found = current().live.feature_shares(
            run["text"], model=run["model"], features=run["features"], answer=answer or "", contrast=contrast or "",
            after=whole_number(after),
        )  # fmt: skip
        numbers = sorted(share.feature for share in found.features)
        return shares(found, run["features"], feature_view.labels(current().workspace, run["features"], numbers))
    except Exception as error:
        return notice(explain(error), tone="error")


def shares(found: FeatureShares, features: str, labels: dict[int, str]) -> html.Div:
    """What adds up to the whole, and the strongest features, each a link."""
    against = f" − logit({visible(found.contrast, 24)})" if found.contrast is not None else " above the mean"
    rest = found.explained - sum(share.effect for share in found.features)
    left = found.n_active - len(found.features)
    numbers = [
        stat(
            f"logit({visible(found.answer, 24)}){against}",
            f"{found.total:+.3f}",
            f"after {visible(found.token, 24)}, less what it is with all features and the error off at {found.place}",
        ),
        stat("all features", f"{found.explained:+.3f}", f"{found.n_active:,} active ones"),
        stat("error", f"{found.error:+.3f}", "what the dictionary does not reconstruct: nothing here explains it"),
        stat("remainder", f"{found.gap:+.3f}", "what the gradients miss"),
    ]
    lines = [
        feature_line(
            features,
            share.feature,
            labels.get(share.feature, ""),
            f"{share.effect:+.3f} at {visible(share.token, 12)} ({share.position})",
        )
        for share in found.features
    ]
    more = [html.P(f"The other {left:,} active features: {rest:+.3f} together.", className="wb-note")] if left else []
    return html.Div([html.Div(numbers, className="wb-stats", dir="auto"), html.Ol(lines, className="wb-lines"), *more])
