"""One feature as a single HTML file that opens without a server: no script, no request, both colour schemes.

    text = feature_html(workspace, "demo", 540)

The file has the parts of the feature's page that need no model. Its policy forbids scripts and requests, and every
text is escaped.
"""

import flask
from dash import Dash, html

from dashboard.components.frame import Part, panel
from dashboard.components.markup import download, page_file
from dashboard.data import features as view
from dashboard.data.meaning import said_by
from dashboard.feature import _examples, sections
from dashboard.figures.theme import visible
from dashboard.sources import current
from interp.errors import UsageError
from interp.workspace import Workspace
from saes.features.proof import newest_proof, why_outdated
from saes.features.schema import FeatureRow, Features


def feature_html(workspace: Workspace, name: str, index: int) -> str:
    """Return the page of one feature as HTML. Raises `UsageError` when there is no such feature."""
    feature = view.one(workspace, name, index)
    named = view.names(workspace, name)
    alias = named.get(index, "")
    title = f"{name} #{index}: {alias or feature.row.label or 'no label'}"
    return page_file(title, html.Main(_parts(workspace, feature, named), className="wb-stack"))


def _parts(workspace: Workspace, feature: view.One, named: dict[int, str]) -> list[Part]:
    features, row = feature
    name, alias = features.name, named.get(row.feature, "")
    related = view.relations(features, row.feature)
    explained = view.explanations(workspace, features, row.feature)
    near = view.labels(workspace, name, row.neighbours)
    return [
        html.H1(visible(alias or f"Feature {row.feature} of {name}", 200), dir="auto"),
        sections.heading(row),
        sections.numbers(feature),
        _proof(workspace, name, row.feature),
        sections.labels_panel(row, explained) if explained else None,
        _histogram(feature),
        *sections.effects(row, related, said_by(workspace, features, row.feature)),
        sections.related_panels(workspace, name, related, named) if related else None,
        sections.neighbours(workspace, feature, near),
        panel("Examples", *_examples.all_examples(feature), note="colour: activation / maximum"),
        _provenance(features, row),
    ]


def _histogram(feature: view.One) -> html.Section:
    if not feature.row.n_fired:
        return panel("Activations", html.P("It never fired, so there is no histogram.", className="wb-none"))
    bars = html.Div(_examples.bars(feature), className="wb-histogram")
    return panel("Activations", bars, note="tokens per range of activation (logarithmic); dotted line: the mean")


def _proof(workspace: Workspace, name: str, index: int) -> html.Section | None:
    proof = newest_proof(workspace, name, index)
    if proof is None:
        return None
    old = why_outdated(workspace, proof)
    lines = html.Ol([html.Li(line) for line in proof.lines()], className="wb-lines")
    return panel("Proof", html.P(old, className="wb-note") if old else None, lines, note=proof.key)


def _provenance(features: Features, row: FeatureRow) -> html.Footer:
    made, of = features.about, features.settings
    text = (
        f"Feature {row.feature} of {features.n_features:,} of {of.dictionary}, at {of.hook_point} of {of.model}, "
        f"described on {features.n_tokens:,} tokens of the recording {of.recording}. "
        f"Artefact {features.key}, made {made.created}, content hash {made.content_hash}. Written by interp workbench."
    )
    return html.Footer(text, className="wb-note")


def register(app: Dash) -> None:
    """Add the address `/api/feature.html?features=NAME&index=NUMBER`, which downloads the page."""
    app.server.add_url_rule("/api/feature.html", "feature_html", _answer, methods=["GET"])


def _answer() -> flask.Response:
    name, index = flask.request.args.get("features", ""), flask.request.args.get("index", "")
    if not name or not index.isascii() or not index.isdigit() or len(index) > 9:
        raise UsageError("feature.html needs features=NAME and index=NUMBER")
    return download(feature_html(current().workspace, name, int(index)), f"{name}-{index}.html")
