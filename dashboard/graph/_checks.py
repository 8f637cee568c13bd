"""Scores of a graph on lines with their baselines, and its agreement with ablations in the free model."""

from dash import html

from dashboard.components.frame import attrs
from dashboard.figures.theme import visible
from interp.tracing.graph import AttributionGraph, target_rule

SCORES = {
    "replacement": (
        "Replacement score",
        "share of the influence that starts at tokens and not at errors: how much of the way from tokens to targets "
        "the latents account for",
    ),
    "completeness": (
        "Completeness",
        "share of the input of nodes, weighted by their influence, that does not come from errors",
    ),
}


def trust(graph: AttributionGraph) -> str:
    """Return how far the model agrees with the graph, in a few words."""
    if graph.effects is None:
        return "Not tested yet" if graph.first_picture else "Not checked against ablations"
    matches = "matches" if graph.effects.spearman.low > graph.effects.chance else "does not clearly match"
    value, chance = graph.effects.spearman.estimate, graph.effects.chance
    return f"Checked: its ranking {matches} real ablations ({value:.2f}; by chance up to {chance:.2f})"


def about(graph: AttributionGraph) -> str:
    latents = "MLP neurons" if graph.dictionary == "neurons" else f"latents of {graph.dictionary}"
    frozen = ", ".join(graph.run.frozen) if graph.run else "attention and norms"
    text = f"{target_rule(graph)} Edges: direct effects between {latents}, with {frozen} held at their clean values."
    stored = int(graph.edges.kept.sum())
    if graph.run is not None and (pruned := graph.run.edges_kept) > stored:
        text += f" Of {pruned:,} edges of the pruned graph, the {stored:,} with the largest scores are stored."
    return visible(text.strip(), 600)


def scores(graph: AttributionGraph) -> list[html.Div | html.P]:
    """Return each score on a line from 0 to 1, with its baselines on the same line."""
    if graph.scores is None:
        return [html.P("No score was computed.", className="wb-none")]
    shown: list[html.Div | html.P] = []
    for name, (title, meaning) in SCORES.items():
        nulls = {"no latent": graph.floor, "untrained": graph.untrained}
        if graph.dictionary == "neurons":  # which nobody trained for this
            del nulls["untrained"]
        marks = {words: float(getattr(null, name)) for words, null in nulls.items() if null is not None}
        parts = [f"{words} {mark:.2f}" for words, mark in marks.items()]
        missing = [words for words, null in nulls.items() if null is None]
        text = ", ".join([*parts, "perfect 1"]) + (f"; not measured: {', '.join(missing)}" if missing else "")
        shown.append(_strip(title, getattr(graph.scores, name), list(marks.values()), text, meaning))
    held = graph.sufficiency.lines() if graph.sufficiency is not None else ()
    return shown + [html.P(line, className="wb-note") for line in held]


def effects(graph: AttributionGraph) -> list[html.Div | html.P]:
    """Return how well the graph predicts ablations in the model with nothing frozen, or that this was not measured."""
    known = graph.effects
    if known is None:
        why = "its edges are exact only in the frozen model"
        if graph.first_picture:
            why = "the trace goes on, or was interrupted: then the same command continues it"
        return [html.P(f"Not measured for this graph: {why}.", className="wb-none")]
    value, low, high = known.spearman
    direct, edges = known.direct_spearman.estimate, known.edges_spearman.estimate
    strip = _strip(
        "Rank correlation", value, [0.0, direct, edges],
        f"no agreement 0, 95 % of random orders within ±{known.chance:.2f}, along the edges {edges:.2f}, by direct "
        f"effects alone {direct:.2f}, perfect 1, 95 % interval {low:.2f} to {high:.2f}",
        "of the predicted and the measured effect of ablating a latent with nothing frozen", bounds=(low, high),
    )  # fmt: skip
    texts = (
        f"{len(known.nodes)} latents were ablated in one run; slope {known.slope:.2f} (1: exact).",
        f"Along the edges, which hold norms, gates and attention, the slope is {known.edges_slope:.2f}.",
    )
    return [strip, *(html.P(text, className="wb-note") for text in texts)]


def _strip(
    title: str, value: float, marks: list[float], text: str, meaning: str, *, bounds: tuple[float, float] | None = None
) -> html.Div:
    """Return a number with a line from 0 to 1: a bar to the value, a tick for each baseline, a band for an interval."""
    band = []
    if bounds is not None:
        low, high = (min(max(bound, 0.0), 1.0) for bound in bounds)
        band = [html.I(className="wb-graph-band", style={"left": f"{low:.1%}", "width": f"{high - low:.1%}"})]
    line = html.Div(
        [
            html.I(className="wb-graph-fill", style={"width": f"{min(max(value, 0.0), 1.0):.1%}"}),
            *band,
            *(html.I(className="wb-graph-tick", style={"left": f"{min(max(mark, 0.0), 1.0):.1%}"}) for mark in marks),
        ],
        className="wb-graph-strip",
        **attrs({"aria-hidden": "true"}),
    )
    head = html.Div([html.Span(title, title=meaning), html.Strong(f"{value:.2f}")], className="wb-graph-score")
    return html.Div([head, line, html.P(text, className="wb-note")], title=meaning)
