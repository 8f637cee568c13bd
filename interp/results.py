"""Results of analyses: values that print as a short table, render in a notebook and convert to a data frame.

    scores = score_heads(model)
    print(scores)             # the strongest heads of each kind
    scores.to_frame()         # every head and kind, as a pandas data frame

A class of results defines its rows (`to_records`) and what it says of itself (`view`, see `interp.view`); everything
else is inherited. Torch-free; pandas is imported only for a data frame.
"""

import html
import math
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.statistics import Interval
from interp.view import Finding, Record, Rows, View, blocks_of, facts_of

if TYPE_CHECKING:
    import pandas as pd
    from _typeshed import DataclassInstance

ROWS, WIDTH, CELL = 12, 110, 36
"""Largest number of rows and of characters per line of a printed table, and of characters per cell."""


class Result:
    """Base of the values that analyses return."""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "__repr__" not in vars(cls):  # set before @dataclass generates one that would print every array
            cls.__repr__ = Result.__repr__

    def to_records(self) -> list[Record]:
        """Return one dict per row. By default one row: the fields that are numbers, text or bools.

        A field `intervals` of `{score: (low, high)}` becomes the columns `<score>_low` and `<score>_high`.
        """
        assert is_dataclass(self), f"{type(self).__name__} defines no to_records"
        record = {name: value for name, value in columns_of(self).items() if is_cell(value)}
        for name, ends in (getattr(self, "intervals", None) or {}).items():
            if ends is not None and name in record:
                record |= {f"{name}_low": float(ends[0]), f"{name}_high": float(ends[1])}
        return [record]

    def view(self) -> View:
        """Yield what the result says of itself, its sentence first; by default the name of the class, in words."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__)
        yield words[0] + words[1:].lower()

    def headline(self) -> str:
        """Return the sentence of the view: one line about the whole."""
        return str(next(self.view()))

    def facts(self) -> list[tuple[str, str]]:
        """Return the few numbers that are asked for first, as (name, value)."""
        return facts_of(self.view())

    def details(self) -> list[str]:
        """Return the lines under the sentence."""
        return blocks_of(self.view(), str)

    def findings(self) -> list[Finding]:
        """Return what was found beyond its null."""
        return blocks_of(self.view(), Finding)

    def shown(self) -> Sequence[Record]:
        """Return the rows to print, the most informative first: those of the view, or all."""
        chosen = blocks_of(self.view(), Rows)
        return chosen[0].records() if chosen else self.to_records()

    def to_frame(self) -> "pd.DataFrame":
        """Return all rows as a pandas data frame, one column per key of `to_records`."""
        import pandas as pd

        return pd.DataFrame(self.to_records())

    @property
    def held_fixed(self) -> list[str]:
        """Line that states what the analysis held fixed, from its settings or its circuit's; empty if nothing."""
        owners = (self, getattr(self, "circuit", None))
        settings = [getattr(owner, "settings", None) for owner in owners]
        conditions = [s.get("frozen") if isinstance(s, dict) else getattr(s, "frozen", None) for s in settings]
        return [f"Held fixed: {frozen}." for frozen in filter(None, conditions)][:1]

    def __str__(self) -> str:
        lines = [self.headline(), *self.held_fixed]
        return "\n".join([*(part for line in lines for part in _wrapped(line)), *table_lines(self.shown())])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return the printed text as HTML, for a notebook."""
        if type(self).__str__ is not Result.__str__:
            return f"<pre>{html.escape(str(self))}</pre>"
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in (self.headline(), *self.held_fixed))
        return f"{lines}{table_html(self.shown())}"


def ends(low: str, high: str) -> dict[str, tuple[str, str]]:
    """Return field metadata for an `Interval`: the names of the columns of its two ends.

    Without it they are `<field>_low` and `<field>_high`.
    """
    return {"ends": (low, high)}


def columns_of(value: "DataclassInstance") -> Record:
    """Return the fields of a dataclass by name; a field with an `Interval` becomes three."""
    record: Record = {}
    for field in fields(value):
        content = getattr(value, field.name)
        low, high = field.metadata.get("ends", ("", ""))
        record |= content.columns(field.name, low, high) if isinstance(content, Interval) else {field.name: content}
    return record


def is_cell(value: object) -> bool:
    """Return True for a value that fits in one cell of a table."""
    return value is None or isinstance(value, str | bool | int | float | np.generic)


def table_lines(records: Sequence[Record], rows: int = ROWS, width: int = WIDTH) -> list[str]:
    """Return a table in plain text, at most `rows + 3` lines of `width` characters.

    A single record is written vertically, one score per line with its interval. A last line names the rows and columns
    that do not fit.
    """
    if len(records) == 1 and len(records[0]) > 4:
        records = _downwards(records[0])
        rows += 4
    names = list(dict.fromkeys(name for record in records[:rows] for name in record))
    cells = [names, *([cell(record.get(name)) for name in names] for record in records[:rows])]
    columns = [_column([row[i] for row in cells], records[:rows], name) for i, name in enumerate(names)]
    fitting, used = 0, 0
    while fitting < len(columns) and used + len(columns[fitting][0]) + 2 * (fitting > 0) <= width:
        used += len(columns[fitting][0]) + 2 * (fitting > 0)
        fitting += 1
    lines = ["  ".join(row).rstrip() for row in zip(*columns[:fitting], strict=True)] if columns else []
    more = [f"{len(records) - rows} more rows"] if len(records) > rows else []
    more += [f"more columns: {', '.join(names[fitting:])}"] if fitting < len(names) else []
    summary = f"... {'; '.join(more)}; to_frame() has all"
    return lines + ([textwrap.shorten(summary, width, placeholder=" ...")] if more else [])


def whole_table(records: Sequence[Record]) -> list[str]:
    """Return a table in plain text with all of its rows and columns."""
    return table_lines(records, rows=sys.maxsize, width=sys.maxsize)


def table_html(records: Sequence[Record], rows: int = ROWS) -> str:
    """Return the same table as HTML."""
    if len(records) == 1 and len(records[0]) > 4:
        records, rows = _downwards(records[0]), 100
    names = list(dict.fromkeys(name for record in records[:rows] for name in record))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell(record.get(name)))}</td>" for name in names) + "</tr>"
        for record in records[:rows]
    )
    more = f"<p>{len(records) - rows} more rows: to_frame() has all</p>" if len(records) > rows else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def cell(value: object) -> str:
    """Return the text of one cell: three significant digits, `-` for a value that was not measured."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {cell(part)}" for key, part in value.items())
    elif isinstance(value, Iterable) and not isinstance(value, str):
        value = ", ".join(cell(part) for part in value)
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= CELL else text[: CELL - 3] + "..."


def per_head(arrays: Mapping[str, np.ndarray], **same: object) -> list[Record]:
    """Return one record per head of arrays `[n_layers, n_heads]`: `head, layer`, the values of `same`, the arrays."""
    shape = next(iter(arrays.values())).shape
    return [
        {"head": f"L{layer}H{head}", "layer": layer, **same}
        | {name: array[layer, head].item() for name, array in arrays.items()}
        for layer, head in np.ndindex(*shape)
    ]


def flat(values: Mapping[str, object], before: str = "") -> Record:
    """Return the cells of nested dicts as one record: `{"null": {"mean": 1}}` becomes `{"null.mean": 1}`."""
    record: Record = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            record |= flat(value, f"{before}{key}.")
        elif is_cell(value):
            record[f"{before}{key}"] = value
    return record


def _downwards(record: Record) -> list[Record]:
    """Convert one record to rows `score, value, low, high`; the last two only if there are intervals."""
    ends = {f"{name}_{end}" for name in record for end in ("low", "high") if f"{name}_{end}" in record}
    return [
        {"score": name, "value": value}
        | ({"low": record.get(f"{name}_low"), "high": record.get(f"{name}_high")} if ends else {})
        for name, value in record.items()
        if name not in ends
    ]


def _column(cells: list[str], records: Sequence[Record], name: str) -> list[str]:
    """Pad to one width: numbers to the right, text to the left."""
    wide = max(map(len, cells))
    words = any(isinstance(record.get(name), str) for record in records)
    return [text.ljust(wide) if words else text.rjust(wide) for text in cells]


def _wrapped(text: str) -> list[str]:
    return [line for part in text.splitlines() for line in textwrap.wrap(part, WIDTH)]
