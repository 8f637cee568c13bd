"""The panels of a `space` and of a `space_comparison`: every number with its null."""

import numpy as np
from dash import html

from dashboard.components.evidence import number
from dashboard.components.frame import graph, panel
from dashboard.figures.geometry import similarity_map, spectrum_figure
from dashboard.figures.theme import Theme, visible
from interp.geometry.space import SpaceComparison, SpaceReport
from interp.results import Record

_MEASURES = (
    ("cosine", None, "mean cosine", "of two different points; 0: directions spread evenly, 1: all alike"),
    ("participation_ratio", "isotropic", "participation ratio", "directions in use; 1: one has all the variance"),
    ("components_90", "isotropic_90", "components for 90 %", "principal components with 90 % of the variance"),
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


def measures_panel(found: SpaceReport, _: Theme) -> html.Section:
    """Return the measures of every space."""
    cells = [
        [visible(row["space"]), number(row["n"]), number(row["d"]), *_values(row, _MEASURES)]
        for row in found.to_records()
    ]
    head = [("space", ""), ("points", ""), ("width", ""), *((m[2], m[3]) for m in _MEASURES)]
    return panel(
        "Spaces",
        _table(head, cells),
        note="in brackets: the null",
        more="Null of the spectrum: isotropic points; of the intrinsic dimensions: Gaussian points of the same "
        "covariance.",
    )


def spectra_panel(found: SpaceReport, colours: Theme) -> html.Section:
    """Return the spectrum of every space."""
    parts = [
        html.Div([html.H3(visible(name)), graph(f"geometry-space-{at}", figure=spectrum_figure(each, colours),
                                                label=f"Spectrum of {name}")])
        for at, (name, each) in enumerate(found.spectra.items())
    ]  # fmt: skip
    return panel(
        "Spectra",
        *parts,
        note="fraction of the variance per principal component; diamonds: isotropic points",
        more="The isotropic points are equally many, in the same number of dimensions.",
    )


def relations_panel(found: SpaceReport, _: Theme) -> html.Section:
    """Return the accuracy of analogies among the token embeddings."""
    rows = [
        [name, number(each.accuracy), number(max(each.c_alone, each.shuffled_high)), number(each.n)]
        for name, each in found.relations.items()
        if not isinstance(each, str)
    ]
    head = [
        ("relation", ""),
        ("accuracy", "fraction of analogies whose expected word comes first, variants left out"),
        ("null", "the larger of shuffled pairs and the neighbours of the third word alone"),
        ("analogies", ""),
    ]
    none = html.P("Not measured: the words are not single tokens of this model.", className="wb-none")
    return panel("Analogies among token embeddings", _table(head, rows) if rows else none,
                 note="a is to b as c is to the nearest word to b − a + c")  # fmt: skip


def similarity_panel(found: SpaceComparison, colours: Theme) -> html.Section:
    """Return the CKA of all spaces with all."""
    largest = np.abs(found.cka.shuffled[~np.eye(len(found.spaces), dtype=bool)]).max(initial=0)
    return panel(
        "Similarity of all spaces",
        graph("geometry-cka", figure=similarity_map(found.cka, colours), label="CKA of all spaces with all"),
        note=f"unbiased CKA on {number(found.cka.n_rows)} tokens; shuffled rows at most {number(float(largest))}",
        more="1: the same up to rotation and scale; 0: unrelated.",
    )


def pairs_panel(found: SpaceComparison, _: Theme) -> html.Section:
    """Return the pairs that were compared closely."""
    cells = [[visible(row["first"]), visible(row["second"]), *_values(row, _PAIR)] for row in found.to_records()]
    head = [("first", ""), ("second", ""), *((m[2], m[3]) for m in _PAIR)]
    return panel("Pairs compared closely", _table(head, cells), note="in brackets: the null")


def _values(row: Record, measures: tuple[tuple[str, str | None, str, str], ...]) -> list[str]:
    cells: list[str] = []
    for key, null, *_ in measures:
        text = "–" if row[key] is None else number(row[key])
        cells.append(f"{text} ({number(row[null])})" if null and row[key] is not None else text)
    return cells


def _table(head: list[tuple[str, str]], rows: list[list[str]]) -> html.Div:
    titles = html.Tr([html.Th(name, scope="col", title=about or None) for name, about in head])
    body = [html.Tr([html.Td(cell, dir="auto") for cell in row]) for row in rows]
    return html.Div(
        html.Table([html.Thead(titles), html.Tbody(body)], className="wb-evidence wb-records"), className="wb-scroll"
    )
