"""Relations of one feature, each with its null: logits, neurons, companions, and the artefacts that show or use it.

They come from `relations.parquet` (`saes/features/relations.py`). The layers of the shipped set lack it; their panels
say how to make it.
"""

from urllib.parse import urlencode

from dash import html

from dashboard.components.evidence import logit_bars
from dashboard.components.frame import attrs, folded, panel, quiet_link
from dashboard.components.pages import atlas_href, circuit_href, feature_href, graph_href, page_of
from dashboard.components.tokens import feature_line
from dashboard.data import features as view
from interp.artifacts import address_of
from interp.nulls import ALPHA
from interp.workspace import Workspace
from saes.features.schema import Features

MAX_USES = 12
"""Links shown of each kind."""


def effect_verdict(p: float | None, side: str, draws: int) -> str:
    """Return one sentence on whether a feature promotes (or suppresses) tokens more than random directions do."""
    if p is None:
        return ""
    found = "More" if p <= ALPHA else "Not clearly more"
    return f"{found} than random directions: {p:.0%} of {draws} {side} some token at least as much."


def logit_panel(related: view.Related | None) -> html.Section | None:
    """Return the histogram of effects on all logits with that of random directions, or None."""
    if related is None or related.scales.logits is None:
        return None
    scales = related.scales.logits
    bars = logit_bars(related.row.logit_histogram, scales.edges, scales.null, scales.null_top)
    about = attrs({"aria-label": "Histogram of direct effects on the logits"})
    return panel(
        "Effects on all logits",
        html.Div(bars, id="feature-logits", className="wb-histogram", role="figure", **about),
        more="Tokens of the vocabulary by direct effect. Line: mean of random directions. Dotted lines: the largest "
        "effect of half, and of 95 %, of random directions stays below.",
    )


def neurons_panel(workspace: Workspace, related: view.Related | None) -> html.Section | None:
    """Return the nearest MLP neurons, with links to those that have a features table; None without directions."""
    if related is None or related.scales.neuron_null is None:
        return None
    described = {
        each.neurons: each.name for each in reversed(workspace.values(Features)) if each.settings.model == related.model
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
        note=f"null: the nearest neuron of 95 % of random directions stays below {related.scales.neuron_null:.2f}",
        more="Cosine similarity of the decoder direction with the output weights of MLP neurons.",
    )


def companions_panel(name: str, related: view.Related | None, labels: dict[int, str]) -> html.Section | None:
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
            name, other, labels.get(other, ""), f"{jaccard:.2f}", title=f"{both} tokens, {chance:.2g} by chance"
        )
        for other, jaccard, both, chance in related.row.companions
    ]
    _, _, both, chance = related.row.companions[0]
    return panel(
        "Fires together with",
        html.Ol(lines, className="wb-lines"),
        note=f"Jaccard index over {related.scales.coactivation_tokens:,} tokens; the first pair shares {both} tokens, "
        f"{chance:.2g} expected by chance",
        more="Tokens on which both fire over those on which either fires; by chance: if they fired independently.",
    )


def uses_panel(workspace: Workspace, name: str, index: int) -> html.Section:
    """Return links to the maps, circuits, directions and graphs that contain this feature."""
    found = view.uses(workspace, name, index)
    lines = [html.Li(quiet_link(f"on the map {atlas}", atlas_href(atlas, point=point))) for atlas, point in found.maps]
    lines += [
        html.Li(
            [quiet_link(f"in the circuit {key}", circuit_href(key)), html.Span(f"{effect:+.3g}", className="wb-value")]
        )
        for key, effect in found.circuits
    ]
    lines += [html.Li(quiet_link(f"as the direction {key}", page_of(address_of(key)))) for key in found.directions]
    lines += [html.Li(quiet_link(f"in the graph {graph}", graph_href(graph, at=node))) for graph, node in found.graphs]
    body = (
        html.Ol(lines[:MAX_USES], className="wb-lines")
        if lines
        else html.P("No map, circuit, direction or graph of this workspace contains it yet.", className="wb-none")
    )
    return panel("Where it appears", body, more="In circuits: effect of the feature on the circuit's metric.")


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
