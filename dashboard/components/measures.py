"""Small parts of the pages that show measured numbers: rows in words, a signed change, a part that is missing."""

import math

from dash import html

from dashboard.components.evidence import number
from dashboard.components.frame import panel
from dashboard.figures.theme import visible
from interp.geometry.dimension import Spectrum
from interp.results import Record


def evidence(rows: list[tuple[str, str]]) -> html.Table:
    """Return the evidence as a table, one row for each name and its numbers in words; empty ones are left out."""
    cells = [html.Tr([html.Th(name, scope="row"), html.Td(words, dir="auto")]) for name, words in rows if words]
    return html.Table(html.Tbody(cells), className="wb-evidence")


def signed(value: float) -> str:
    """Return a change as signed text; a change without a bound is not known."""
    return number(value, signed=True) if math.isfinite(value) else "not known"


def missing_panel(title: str, why: str) -> html.Section:
    """Return the panel of a part that was not measured, with the reason."""
    return panel(title, html.P(["Not measured: ", visible(why, 400), "."], className="wb-why"))


def eigenvalues(spectrum: Spectrum) -> list[Record]:
    """Return the eigenvalues of a spectrum as rows of a table."""
    return [{"component": at, "eigenvalue": value} for at, value in enumerate(spectrum.eigenvalues.tolist(), 1)]
