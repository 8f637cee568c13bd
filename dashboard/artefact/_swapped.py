"""The test pairs of an alignment, each a link to its runs: the predictions for base, source, and the swapped base."""

from dash import html

from dashboard.components.evidence import records_table
from dashboard.components.frame import Part, attempt, panel, quiet_link
from dashboard.sources import current
from interp.artifacts import address_of
from interp.circuits.alignment import Alignment, SwappedRun
from saes.acts.alignments import SwapTestPair


def pairs_panel(alignment: Alignment, pair: int | None) -> html.Section:
    """Return the pairs, and the runs of the one that the address names."""
    address = address_of(alignment.key)
    lines = [
        html.Li([
            "▸ " if number == pair else "", quiet_link(row.base, f"{address}?pair={number}"), " with ",
            html.Q(row.source), f": wanted {row.wanted!r}, whole swap {row.after_whole!r}, "
            f"learned {row.after_learned!r}",
        ], dir="auto")
        for number, row in enumerate(alignment.pairs.rows())
    ]  # fmt: skip
    run = None if pair is None else html.Div(attempt(lambda: _runs(alignment, pair)))
    return panel(
        "Swapped runs",
        run,
        html.Ol(lines, className="wb-said"),
        note="test pairs, and which of the program's answers follows; a click runs one again, over all tokens",
    )


def _runs(alignment: Alignment, pair: int) -> list[Part]:
    found: SwappedRun = current().live.ask(SwapTestPair(alignment=alignment.name, pair=pair))
    rows = [
        {
            "next token": repr(row.token), "base": f"{row.base:.1%}", "source": f"{row.source:.1%}",
            "base, whole vector swapped": f"{row.whole:.1%}", "base, learned subspace swapped": f"{row.learned:.1%}",
        }
        for row in found.tokens
    ]  # fmt: skip
    return [
        html.P(found.headline()),
        html.P(["Base: ", html.Q(found.pair.base), " Source: ", html.Q(found.pair.source)], className="wb-note"),
        records_table(rows, limit=len(rows)),
    ]
