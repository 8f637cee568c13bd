"""The plain-text table of what changed: one row per part of the model; an asterisk marks what lies beyond its null."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.difference.components import unit_of

if TYPE_CHECKING:
    from interp.difference.report import WhatChanged


def changes_table(found: "WhatChanged") -> str:
    """Rows `embed, L0.attn, L0.mlp ... unembed`: weights, stream after it by text, heads, transplants."""
    texts = list(found.representations)
    header = [
        "part",
        "weights",
        "null",
        "rank",
        *(f"stream, {text}" for text in texts),
        "null",
        "heads",
        "carried",
        "removed",
    ]
    names = [part.name for part in found.transplants.transplants if part.level == "part"]
    rows = [header, *([n, *_weights(found, n), *_stream(found, n), *_rest(found, n)] for n in names)]
    notes = f"{found.base} -> {found.tuned}; null: {found.null}; * beyond the null, corrected for all parts"
    heads = [part for part in found.transplants.transplants if part.level == "head"]
    lines = [notes, "", *aligned(rows)]
    if heads:
        shown = sorted(heads, key=lambda t: -t.carried)[:8]
        parts = [[t.name, _share(t.carried, t.carried_found), _share(t.removed, t.removed_found)] for t in shown]
        lines += ["", *aligned([["head", "carried", "removed"], *parts])]
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _weights(found: "WhatChanged", part: str) -> list[str]:
    """The largest change among the components of a part, its null, and its rank beside a random one."""
    mine = [c for c in found.weights.changes if unit_of(c.kind, c.layer) == part]
    most = max(mine, key=lambda c: (c.found, c.change))
    rank = f"{most.rank:.1f}/{most.random_rank:.1f}" if most.change else "-"
    return [_marked(most.change, most.found), f"{most.null_high:.2g}", rank]


def _stream(found: "WhatChanged", part: str) -> list[str]:
    """The stream after a layer stands in the row of its MLP (of its attention, where there is none)."""
    layer = part.split(".")[0]
    last = {row.name.split(".")[0]: row.name for row in found.transplants.transplants if row.level == "part"}
    known = {each.name for each in next(iter(found.representations.values())).layers}
    if layer not in known or last[layer] != part:
        return ["" for _ in found.representations] + [""]
    cells = [_marked(each[layer].change, each[layer].found) for each in found.representations.values()]
    return [*cells, f"{next(iter(found.representations.values()))[layer].null_high:.2g}"]


def _rest(found: "WhatChanged", part: str) -> list[str]:
    row = found.transplants[part]
    heads = ""
    if part.endswith(".attn"):
        layer = int(part[1:].split(".")[0])
        own = found.heads.found["own_pattern"][layer] | found.heads.found["own_output"][layer]
        heads = " ".join(f"H{head}" for head in own.nonzero()[0]) or "-"
    return [heads, _share(row.carried, row.carried_found), _share(row.removed, row.removed_found)]


def _marked(value: float, beyond: bool) -> str:
    return f"{value:.3g}" + ("*" if beyond else " ")


def _share(value: float, beyond: bool) -> str:
    return "-" if value != value else f"{value:.0%}" + ("*" if beyond else " ")
