"""Blocks by which a result says itself once: the terminal, notebooks, `/api/`, the Overview and pages render them.

    def view(self) -> View:
        yield f"{len(heads)} induction heads, above the null of {null:.2f}"    # the sentence comes first
        yield Facts(("heads", str(len(heads))))                                # right after it
        yield "each is ablated on text that repeats"                           # a line
        yield Rows(self.strongest)
        yield Finding(**strongest)

Blocks are made one by one, as far as they are read: whoever wants the sentence reads no table. Torch-free.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Record = dict[str, Any]
"""One row: column -> number, text, bool, or None for a value that was not measured."""

B = TypeVar("B")


class Facts:
    """The few numbers that are asked for first, as pairs of name and value. They follow the sentence."""

    def __init__(self, *pairs: tuple[str, str]):
        self.pairs = pairs


@dataclass(frozen=True)
class Rows:
    """The rows to print, the most informative first; without them a result prints all of its rows."""

    records: Callable[[], Sequence[Record]]


@dataclass(frozen=True)
class Dots:
    """A small picture: points in a plane, with their texts."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    texts: tuple[str, ...] = ()
    """Text of each point; none where they would not fit."""
    across: str = ""
    """Label of the x axis; empty for a plane without units."""
    up: str = ""
    alike: bool = False
    """Both axes have the same units, as a plane has."""
    null: int = 0
    """Number of points at the end that belong to the null, drawn grey."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A measured value next to its null, with a sentence, for the overview."""

    kind: str
    """Findings of one kind compete with each other: `circuit`, `head`, `concept` ..."""
    title: str
    sentence: str
    """One sentence with the measured value; `more` goes with it where there is room."""
    value: float
    null: float
    about: str
    """Names of the two numbers, as `measured; null: description`."""
    proof: str
    """Text of the link to the proof."""
    href: str = ""
    """Address of the page with these numbers, relative to that of the result (`?head=L3H1`): "" is its own page."""
    feature: tuple[str, int] | None = None
    """Feature whose strongest example is shown with it: features artefact, or dictionary (`sae:demo`), and number."""
    example: dict[str, Any] | None = None
    """`tokens, activations, peak` of a text to show with it; activations may be all 0."""
    more: str = ""
    dots: Dots | None = None
    """Picture of it; likewise `grid`."""
    grid: tuple[tuple[float, ...], ...] = ()
    """Values from 0 to 1 of each layer, for a picture with a cell for each head."""
    in_circuit: bool = False
    """True where an induction circuit of the same model shows the same with a causal proof."""

    @property
    def strength(self) -> float:
        """Share of the value beyond the null, at most 1."""
        return 1 - max(self.null, 0.0) / self.value if self.value > 0 else 0.0

    @property
    def picture(self) -> str:
        """Name of the look of its picture; empty without one."""
        if self.dots is not None:
            return "named dots" if self.dots.texts else "dots along axes" if self.dots.across else "dots in a plane"
        return "grid" if self.grid else "text" if self.feature or self.example else ""


Block = str | Facts | Rows | Finding
View = Iterator[Block]


def blocks_of(view: View, kind: type[B]) -> list[B]:
    """Return the blocks of one kind after the sentence."""
    next(view)
    return [block for block in view if isinstance(block, kind)]


def facts_of(view: View) -> list[tuple[str, str]]:
    """Return the pairs of the facts that follow the sentence; none where something else does."""
    next(view)
    second = next(view, None)
    return list(second.pairs) if isinstance(second, Facts) else []
