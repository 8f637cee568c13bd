"""Parts of a feature that the page, a notebook and the exported file share, each written once.

Its relations, each with its null, come from `relations.parquet` (`saes/features/_relations.py`); the layers of the
shipped set lack it, and their panels say how to make it.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from dash import html

from dashboard.components.evidence import logit_bars, number, percent
from dashboard.components.frame import Part, attrs, fold, folded, notice, panel, quiet_link, stat
from dashboard.components.pages import atlas_href, feature_href, graph_href, page_of, runs_href
from dashboard.components.tokens import feature_line, token_bars
from dashboard.data import features as view
from dashboard.data.meaning import PromotedWords, said_by, said_words
from dashboard.figures.theme import visible
from interp.artifacts import address_of
from interp.nulls import ALPHA
from interp.workspace import Workspace
from saes.features.schema import NO_LABEL, SAYS, SOURCES, FeatureRow, Features
from saes.features.written_labels import LabelScore

SAID_WORDS = 5
"""Words in the sentence on what a feature makes the model say."""


def labels_panel(row: FeatureRow, explained: list[view.Explained]) -> html.Section:
    """Return every label of a feature with its scores, the one made by rule first."""
    lines = [
        _line(entry.label.label or "no label could be read", entry.label.label_source, entry) for entry in explained
    ]
    statistics = explained[0].label.statistics_label or (row.label if row.label_source in SOURCES else "")
    if statistics and all(entry.label.label != statistics for entry in explained):
        lines.insert(0, _line(statistics, row.label_source if row.label_source in SOURCES else "by rule", None))
    return panel(
        "Labels",
        html.Ol(lines, className="wb-labels"),
        note="balanced accuracy, 95 % interval, [null: another feature's label]",
        more="Measured on held-out contexts: 0.5 is chance, 1 is always right.",
    )


def _line(label: str, source: str, scored: view.Explained | None) -> html.Li:
    scores = [html.Span("not scored", className="wb-quiet")]
    if scored is not None:
        ours = [] if scored.score is None else [_score(scored.score)]
        scores = [*ours, *_given(scored)] or scores
    by = source
    if scored is not None and scored.made.judge not in ("", source):
        by = f"{source}, scored by {scored.made.judge}"
    return html.Li(
        [
            html.Span(visible(label, 300), dir="auto"),
            html.Span(visible(by, 60), className="wb-source", title=by),
            html.Div(scores, className="wb-label-scores"),
        ]
    )


def _given(scored: view.Explained) -> list[html.Span]:
    """Return the scores that came with an imported label; other labels have none."""
    hint = "given by the source of this label, on other text than this recording, without a null"
    return [
        html.Span([f"{visible(name, 60)} ", html.Strong(f"{value:.2f}")], title=hint) for name, value in scored.given
    ]


def _score(score: LabelScore) -> html.Span:
    null = "" if score.null is None else f" [{score.null:.2f}]"
    interval = f" {score.low:.2f} to {score.high:.2f}{null}"
    return html.Span(
        ["detection ", html.Strong(f"{score.accuracy:.2f}"), html.Span(interval, className="wb-quiet")],
        title=f"telling held-out tokens on which it is active from others, by the label; {score.n} contexts",
    )


def related_panels(
    workspace: Workspace, name: str, related: view.FeatureRelations | None, named: dict[int, str]
) -> html.Div:
    """Return the row of panels on logits, neurons and companions, or how to make their table; `named` by the user."""
    if related is None:
        return notice(
            "These features have no effects on all logits, neurons and co-active features yet: run "
            f"`workbench features` with --name {name} --overwrite."
        )
    labels = {n: view.named(n, text, named) for n, text in view.labels(workspace, name, related.row.coactive).items()}
    panels = [
        logit_panel(related),
        neurons_panel(workspace, related),
        companions_panel(name, related, labels),
    ]
    return html.Div([section for section in panels if section is not None], className="wb-facets")


def summary(workspace: Workspace, feature: view.One) -> html.Div:
    """Return label, numbers and effects on logits of a feature, without controls, for notebooks."""
    features, row = feature
    shown = effects(row, view.relations(features, row.feature), said_by(workspace, features, row.feature))
    return html.Div([heading(row), numbers(feature), html.Div(shown, className="wb-facets")], className="wb-stack")


def heading(row: FeatureRow, explained: Sequence[view.Explained] = (), own: str = "") -> html.Div:
    """Return number, title and score of the label.

    The title is the user's `own` name, else the label; a written label comes first where the rule found none. What the
    title replaces stands after it.
    """
    label = visible(row.label or "", 400) or ("never fires" if row.n_fired == 0 else "no label")
    written = next((entry.label for entry in explained if entry.label.label), None)
    source, title, fact = row.label_source, label, ""
    if written is not None and row.label_kind == NO_LABEL:
        source, title, fact = written.label_source, visible(written.label or "", 300), label
    elif row.label_kind == SAYS and row.other_labels:
        fact = visible(row.other_labels[0], 160)
    if own:
        title, fact = visible(own, 300), title
    shown = [html.Span(title), html.Span(f" · {fact}", className="wb-quiet")] if fact else title
    return html.Div(
        [
            html.Span(f"#{row.feature}", className="wb-feature-id", id="feature-number"),
            html.H2(shown, className="wb-feature-title", dir="auto"),
            html.Span(f"label from {source}", className="wb-quiet") if row.label else None,
            _score_of_rule(row),
        ],
        className="wb-feature-head",
        **attrs({"aria-live": "polite"}),
    )


def _score_of_rule(row: FeatureRow) -> html.Span | None:
    """Return how often a label is right, with its null; the other labels are in the tooltip."""
    text = row.score_in_words()
    if not text:
        return None
    shown: list[Part] = [text]
    if row.label_score is not None:
        chance = f" of the time (another feature's label: {row.label_null:.0%})"
        shown = ["label right ", html.Strong(f"{row.label_score:.0%}"), chance]
    others = "; ".join(visible(label, 120) for label in row.other_readings())
    more = f"; also: {others}" if others else ""
    return html.Span(shown, className="wb-quiet", id="label-score", title=text + more, tabIndex=0)


def numbers(feature: view.One) -> html.Div:
    """Return the row of numbers."""
    of, row = feature
    return html.Div(
        [
            stat("density", percent(row.density), "fraction of tokens on which it is active"),
            stat("tokens", f"{row.n_fired:,}", "tokens on which it is active"),
            stat("mean", number(row.mean_activation), "mean activation over those tokens"),
            stat("max", number(row.max_activation), "largest activation seen"),
            stat("decoder norm", number(row.decoder_norm), "Euclidean length of its decoder direction"),
            stat("features", f"{of.n_features:,}", f"number of features of {of.dictionary}"),
        ],
        className="wb-stats",
    )


_Ps = tuple[float | None, float | None]


class _Side(NamedTuple):
    """Tokens that a direction raises, or lowers, most."""

    title: str
    tokens: list[tuple[str, float]]
    p: float | None
    """fraction of random directions whose largest effect is at least as large"""


def _sides(raised: list[tuple[str, float]], lowered: list[tuple[str, float]], p: _Ps) -> tuple[_Side, _Side]:
    return _Side("Promotes", raised, p[0]), _Side("Suppresses", lowered, p[1])


LENS_METHOD = (
    "These are the tokens whose logits a unit step along the feature's direction raises most at the end of the model, "
    "through the Jacobian lens; without a lens, directly. Null: the strongest token of each random direction of the "
    "same length."
)
"""How the words of `says_sentence` were found."""


def says_sentence(row: FeatureRow, related: view.FeatureRelations | None, lens: PromotedWords) -> str:
    """Return the words that a feature makes the model say, with their null, as a sentence; empty where none is known.

    Through the Jacobian lens where the workspace has one, else by the direct effect.
    """
    if lens.saying is not None:
        does, tokens, p, draws = "It makes the model say", lens.saying.raised, lens.saying.raised_p, lens.draws
    elif related is not None and related.row.promoted_p is not None:
        does, tokens = "Its direct effect raises", row.promoted
        p, draws = related.row.promoted_p, related.scales.draws
    else:
        return ""
    if p > ALPHA:
        return f"{does} no word more than random directions do."
    words = dict.fromkeys(token.strip() for token, _ in tokens if token.strip())
    return f"{does} {', '.join(list(words)[:SAID_WORDS])}: {_stronger(p, draws)}."


def effects(row: FeatureRow, related: view.FeatureRelations | None, lens: PromotedWords) -> list[html.Section]:
    """Return the tokens that its direction promotes and suppresses, with their verdicts.

    Through the Jacobian lens where the workspace has one, with the direct effect folded away; else the direct effect.
    """
    if not row.promoted and lens.saying is None:
        none = "This hook point does not write to the residual stream: it has no direct effect on logits."
        return [panel("Promotes", html.P(none, className="wb-none"))]
    p = (None, None) if related is None else (related.row.promoted_p, related.row.suppressed_p)
    draws = 0 if related is None else related.scales.draws
    direct = _sides(row.promoted, row.suppressed, p)
    plain = [
        html.P(f"direct effect on the next token's logits. {effect_verdict(side.p, draws)}", className="wb-note")
        for side in direct
    ]
    bars = [_bars(side, direct) for side in direct]
    if lens.saying is None:
        missing = _missing_lens(lens)
        return [
            panel(side.title, note, bar, missing if side is direct[0] else None)
            for side, note, bar in zip(direct, plain, bars, strict=True)
        ]
    saying = lens.saying
    through = _sides(list(saying.raised), list(saying.lowered), (saying.raised_p, saying.lowered_p))
    sections: list[html.Section] = []
    for i, side in enumerate(through):
        direct_effect = fold("Direct effect", plain[i], bars[i]) if row.promoted else None
        note = effect_verdict(side.p, lens.draws)
        more = (
            f"Tokens that it makes the model {'say' if i == 0 else 'avoid'}, here or later, by the Jacobian lens, in "
            "standard deviations of all logits."
        )
        sections.append(panel(side.title, _bars(side, through), direct_effect, note=note, more=more))
    return sections


def _bars(side: _Side, both: tuple[_Side, _Side]) -> html.Ol:
    largest = max((abs(value) for part in both for _, value in part.tokens), default=0.0)
    label, signed = f"{side.title} tokens", side.title == "Suppresses"
    return token_bars(side.tokens, label=label, signed=signed, maximum=largest, form="{:+.2f}".format)


def _missing_lens(lens: PromotedWords) -> html.P | None:
    """Return why the effect through later layers is not shown, and what to do; None where no lens could show it."""
    if lens.state == "computing":
        text = "Its effect through later layers is being computed; reload in half a minute."
        return html.P(text, className="wb-note")
    if lens.state == "failed":
        text = f"Its effect through later layers cannot be computed: {lens.problem}"
        return html.P(text, className="wb-note")
    if lens.state != "no lens":
        return None
    href = runs_href("lens", model=lens.model, kind="jacobian")
    sentence = "Its effect through later layers needs a Jacobian lens of this model. "
    return html.P([sentence, html.A("Fit one", href=href, className="wb-link")], className="wb-note")


def neighbours(workspace: Workspace, feature: view.One, near: dict[int, str]) -> html.Section:
    """Return the nearest features by their directions, with what they say; `near` are their labels."""
    name, row = feature.features.name, feature.row
    words = said_words(workspace, feature.features, row.neighbours)
    lines = [feature_line(name, n, near.get(n, ""), f"{cosine:.2f}", words=words.get(n, ())) for n, cosine in row.near]
    more = "Cosine similarity of decoder directions, and the words that each feature makes the model say."
    return panel("Neighbours", html.Ol(lines, className="wb-lines"), more=more)


MAX_USES = 12
"""Links shown of each kind."""


def effect_verdict(p: float | None, draws: int) -> str:
    """Return how many random directions have a weaker strongest token on this side; p: the share of all others."""
    if p is None:
        return ""
    return f"{_stronger(p, draws).capitalize()}{'' if p <= ALPHA else ': not clear'}."


def _stronger(p: float, draws: int) -> str:
    return f"stronger than {draws + 1 - round(p * (draws + 1))} of {draws} random directions"


def logit_panel(related: view.FeatureRelations | None) -> html.Section | None:
    """Return the histogram of effects on all logits with that of random directions, or None."""
    if related is None or related.scales.logits is None:
        return None
    scales = related.scales.logits
    bars = logit_bars(related.row.logit_histogram, scales.edges, scales.null, scales.null_top)
    aria = attrs({"aria-label": "Histogram of direct effects on the logits"})
    return panel(
        "Effects on all logits",
        html.Div(bars, id="feature-logits", className="wb-histogram", role="figure", **aria),
        more="Tokens of the vocabulary by direct effect. Line: mean of random directions. Dotted lines: the largest "
        "effect of half, and of 95 %, of random directions stays below.",
    )


def neurons_panel(workspace: Workspace, related: view.FeatureRelations | None) -> html.Section | None:
    """Return the nearest MLP neurons, with links to those that have a features table; None without directions."""
    if related is None or related.scales.neuron_null is None:
        return None
    described = {
        table.neurons: table.name
        for table in reversed(workspace.values(Features))
        if table.settings.model == related.model
    }
    lines: list[html.Li] = []
    for layer, neuron, cosine in related.row.near_neurons:
        name = described.get(f"blocks.{layer}.mlp.hook_post")
        text = f"layer {layer}, neuron {neuron}"
        shown = html.Span(text) if name is None else quiet_link(text, feature_href(name, neuron))
        lines.append(html.Li([shown, html.Span(f"{cosine:+.2f}", className="wb-value")], className="wb-related"))
    return panel(
        "Neurons",
        html.Ol(lines, className="wb-lines"),
        note=f"null: for 95 % of random directions, no neuron is above {related.scales.neuron_null:.2f}",
        more="Cosine similarity of the decoder direction with the output weights of MLP neurons.",
    )


def companions_panel(name: str, related: view.FeatureRelations | None, labels: dict[int, str]) -> html.Section | None:
    """Return the features that fire on the same tokens, with the counts expected by chance."""
    if related is None:
        return None
    if not related.row.coactive:
        reason = "No other feature fires with it on the sampled tokens."
        if not related.scales.coactivation_tokens:
            reason = "Not counted for this artefact: `workbench features` counts it on a recording."
        return panel("Fires together with", html.P(reason, className="wb-none"))
    lines = [
        feature_line(
            name, companion, labels.get(companion, ""), f"{jaccard:.2f}", title=f"{both} tokens, {chance:.2g} by chance"
        )
        for companion, jaccard, both, chance in related.row.companions
    ]
    _, _, both, chance = related.row.companions[0]
    return panel(
        "Fires together with",
        html.Ol(lines, className="wb-lines"),
        note=f"Jaccard index over {related.scales.coactivation_tokens:,} tokens; the first pair shares {both} tokens, "
        f"{chance:.2g} expected by chance",
        more="Tokens on which both fire over those on which either fires; by chance: if they fired independently.",
    )


def uses_panel(workspace: Workspace, features: Features, index: int) -> html.Section:
    """Return links to the maps, directions and graphs that contain this feature."""
    uses = view.uses(workspace, features, index)
    lines = [html.Li(quiet_link(f"on the map {atlas}", atlas_href(atlas, point=point))) for atlas, point in uses.maps]
    lines += [html.Li(quiet_link(f"as the direction {key}", page_of(address_of(key)))) for key in uses.directions]
    lines += [html.Li(quiet_link(f"in the graph {graph}", graph_href(graph, at=node))) for graph, node in uses.graphs]
    body = (
        html.Ol(lines[:MAX_USES], className="wb-lines")
        if lines
        else html.P("No map, direction or graph of this workspace contains it yet.", className="wb-none")
    )
    return panel("Where it appears", body)


def downloads_panel(name: str, index: int) -> html.Details:
    """Return links to what is stored about a feature, as files for other tools."""
    query = urlencode({"features": name, "index": index})
    kinds = (
        ("feature", "numbers and relations (JSON)"),
        ("examples", "examples (JSON)"),
        ("vector", "decoder direction (JSON)"),
        ("sae_dashboard", "SAEDashboard and Neuronpedia (JSON)"),
    )
    links = [
        html.Li(html.A(text, href=f"/api/{kind}?{query}", download=f"{name}-{index}-{kind}.json", className="wb-link"))
        for kind, text in kinds
    ]
    page = html.A(
        "this page as one HTML file", href=f"/api/feature.html?{query}", download=f"{name}-{index}.html",
        className="wb-link", id="feature-export",
    )  # fmt: skip
    return folded("Download", html.Ul([html.Li(page), *links], className="wb-lines"))
