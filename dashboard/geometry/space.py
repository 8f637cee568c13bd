"""Spaces on the Geometry page: how a model's representations fill their space, and how alike two of them are."""

from typing import Any

from dash import html

from dashboard.components.evidence import number
from dashboard.components.frame import graph, guarded, panel
from dashboard.figures.geometry import similarity_map, spectrum_figure
from dashboard.figures.theme import Theme, visible
from interp.artifacts import Manifest, read_json
from interp.errors import CorruptError
from interp.workspace import Workspace

_MEASURES = (
    ("cosine", None, "mean cosine", "of two different points; 0: directions spread evenly, 1: all the same"),
    ("participation_ratio", "isotropic", "participation ratio", "directions in use: 1 one has all the variance"),
    ("components_90", "isotropic_90", "components for 90 %", "principal components that hold 90 % of the variance"),
    ("two_nn", "two_nn_gaussian", "TwoNN dimension", "from ratios of the two nearest distances (Facco et al. 2017)"),
    ("mle", "mle_gaussian", "ML dimension", "maximum likelihood over neighbours (Levina and Bickel 2004)"),
    ("local_pca", "local_pca_gaussian", "local PCA dimension", "components of a neighbourhood"),
)
_PAIR = (
    ("cka", "cka_null", "CKA", "1: the same up to rotation and scale, 0: unrelated; null: shuffled rows"),
    (
        "procrustes",
        "procrustes_null",
        "Procrustes residual",
        "0: a rotation maps one onto the other; null: shuffled rows",
    ),
    ("transport_between", "transport_floor", "W2², squared units", "optimal transport; null: halves of one cloud"),
)


def lead(manifest: Manifest) -> str:
    """Return one sentence about the artefact."""
    if manifest.kind == "space":
        return f"How the representations of {manifest.config.get('model', 'a model')} fill their space."
    models = [str(each) for each in manifest.config.get("models", [])]
    return f"How alike the representations of {' and '.join(models) or 'a model'} are, on the same tokens."


def space_panels(workspace: Workspace, manifest: Manifest, colours: Theme) -> list[Any]:
    """Return the panels of a `space` or a `space_comparison`."""
    if manifest.kind == "space_comparison":
        return [_similarity(workspace, manifest, colours), _pairs(workspace, manifest)]
    return [_measures(workspace, manifest), _spectra(workspace, manifest, colours), _relations(manifest)]


def _measures(workspace: Workspace, manifest: Manifest) -> html.Section:
    def body() -> list[Any]:
        path = workspace.table_path("space", manifest.name, "spaces")
        rows = workspace.query("select * from s limit 500", s=path).to_pylist()
        cells = [[visible(row["space"]), f"{row['n']:,}", str(row["d"]), *_values(row, _MEASURES)] for row in rows]
        return [_table([("space", ""), ("points", ""), ("width", ""), *((m[2], m[3]) for m in _MEASURES)], cells)]

    return guarded("Spaces", body, note="each number with its null in brackets: isotropic points for the spectrum, "
                   "Gaussian points of the same covariance for the intrinsic dimensions")  # fmt: skip


def _spectra(workspace: Workspace, manifest: Manifest, colours: Theme) -> html.Section:
    def body() -> list[Any]:
        path = workspace.path("space", manifest.name) / "space.json"
        spectra = read_json(path).get("spectra")
        if not isinstance(spectra, dict):
            raise CorruptError(f"{path} has no readable 'spectra'; it was edited or cut short")
        return [
            html.Div(
                [html.H3(visible(name)), graph(f"geometry-space-{at}", figure=spectrum_figure(found, colours),
                                               label=f"Spectrum of {name}")]
            )
            for at, (name, found) in enumerate(spectra.items())
        ]  # fmt: skip

    return guarded("Spectra", body, note="fraction of the variance per principal component; the diamonds are isotropic "
                   "points, as many in as many dimensions")  # fmt: skip


def _relations(manifest: Manifest) -> html.Section:
    found = manifest.summary.get("relations") or {}
    rows = [[name, f"{each['accuracy']:.2f}", f"{each['null']:.2f}", f"{each['n']:,}"] for name, each in found.items()]
    head = [
        ("relation", ""),
        ("accuracy", "fraction of analogies whose expected word comes first, variants left out"),
        ("null", "the larger of shuffled pairs and the neighbours of the third word alone"),
        ("analogies", ""),
    ]
    none = html.P("None: the words of the relations are not single tokens of this model.", className="wb-none")
    return panel("Analogies among token embeddings", _table(head, rows) if rows else none,
                 note="a is to b as c is to what? the nearest word to b − a + c")  # fmt: skip


def _similarity(workspace: Workspace, manifest: Manifest, colours: Theme) -> html.Section:
    def body() -> list[Any]:
        path = workspace.table_path("space_comparison", manifest.name, "cka")
        rows = workspace.query("select * from c limit 40000", c=path).to_pylist()
        return [graph("geometry-cka", figure=similarity_map(rows, colours), label="CKA of all spaces with all")]

    s = manifest.summary
    note = (
        f"unbiased CKA on {number(s.get('n_rows'))} tokens: 1 the same up to rotation and scale, 0 unrelated; shuffled "
        f"rows at most {number(s.get('null_largest'))}"
    )
    return guarded("Similarity of all spaces", body, note=note)


def _pairs(workspace: Workspace, manifest: Manifest) -> html.Section:
    def body() -> list[Any]:
        path = workspace.table_path("space_comparison", manifest.name, "pairs")
        rows = workspace.query("select * from p limit 500", p=path).to_pylist()
        cells = [[visible(row["first"]), visible(row["second"]), *_values(row, _PAIR)] for row in rows]
        return [_table([("first", ""), ("second", ""), *((m[2], m[3]) for m in _PAIR)], cells)]

    return guarded("Pairs compared closely", body, note="each number with its null in brackets")


def _values(row: dict[str, Any], measures: tuple[tuple[str, str | None, str, str], ...]) -> list[str]:
    cells = []
    for key, null, *_ in measures:
        value = row.get(key)
        text = "–" if value is None else number(value)
        cells.append(
            f"{text} ({number(row[null])})" if null and value is not None and row.get(null) is not None else text
        )
    return cells


def _table(head: list[tuple[str, str]], rows: list[list[str]]) -> html.Div:
    titles = html.Tr([html.Th(name, scope="col", title=about or None) for name, about in head])
    body = [html.Tr([html.Td(cell, dir="auto") for cell in row]) for row in rows]
    return html.Div(
        html.Table([html.Thead(titles), html.Tbody(body)], className="wb-evidence wb-records"), className="wb-scroll"
    )
