"""Heads over a text as pages, files and the API show them: the list and its filters, and all about one head.

heads = choose(found, HeadQuery(kind="name_mover", text="Mary"))
report = report_of(found, heads[0].head)
"""

from dataclasses import dataclass

import numpy as np

from interp.circuits.found_circuit import EdgeCircuit
from interp.circuits.heads_in_text import SILENT, HeadInText, HeadKindInText, HeadsInText, HeadWord
from interp.circuits.induction_circuit import InductionCircuit
from interp.errors import UnknownNameError
from interp.forms import Measured
from interp.names import TEXT_HEAD_KINDS, HeadName, parse_head
from interp.workspace import Workspace

BEFORE, AFTER, AROUND = 36, 6, 5
"""Tokens that are shown before and after the query of an example, and around a key that lies farther back."""
FAINT = 0.01
"""Attention below this share of the strongest is not shaded."""
STATISTICS = {
    "copies": "raise the tokens they attend to",
    "sharp": "attend to few tokens: entropy below 0.2",
    "silent": "attend to the first position alone",
}
"""Choices over statistics, beside the kinds."""


@dataclass(frozen=True, kw_only=True)
class HeadQuery:
    """Heads that are listed."""

    kind: str = ""
    """A kind, or one of `STATISTICS`; empty for all."""
    layer: int | None = None
    text: str = ""
    """A word or token that the head attends to, or from."""


@dataclass(frozen=True, kw_only=True)
class HeadLine:
    """One line of the list."""

    head: str
    kinds: tuple[str, ...]
    value: float
    """What the list is sorted by."""
    null: Measured
    row: HeadInText
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive tokens of an example."""

    first: int
    pieces: tuple[str, ...]
    attention: tuple[float, ...]
    """Of the query to each of them, 0 to 1, without BOS."""
    attended_by: tuple[float, ...]
    """Of each of them to the key."""


@dataclass(frozen=True, kw_only=True)
class ExampleText:
    """One example of a head with the text around it."""

    strength: float
    document: int
    context: int
    query: int
    query_token: str
    key: int
    key_token: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class HeadReport:
    """All that is stored about a head over a text: the form of the exported JSON."""

    format: str
    head: str
    model: str
    weight_hash: str
    source: str
    contexts: int
    documents: int
    found: tuple[str, ...]
    """Kinds above their nulls."""
    statistics: HeadInText
    kinds: tuple[HeadKindInText, ...]
    words: tuple[HeadWord, ...]
    examples: tuple[ExampleText, ...]


FORMAT = "interp-workbench-head/1"


def report_of(text_heads: HeadsInText, name: str, examples: int = 20) -> HeadReport:
    """Return all about one head. Raises `UnknownNameError` for one that the model lacks."""
    head, of = parse_head(name), text_heads.settings
    row = text_heads.row(head)
    kinds = tuple(row for row in text_heads.scores if row.name == head)
    return HeadReport(
        format=FORMAT, head=str(head), model=of.model, weight_hash=of.weight_hash, source=of.source,
        contexts=of.contexts, documents=of.documents, found=tuple(text_heads.found(head)), statistics=row, kinds=kinds,
        words=tuple(text_heads.words_of(head)), examples=tuple(_examples(text_heads, head)[:examples]),
    )  # fmt: skip


def _examples(text_heads: HeadsInText, head: HeadName) -> list[ExampleText]:
    texts: list[ExampleText] = []
    for example, passage, attention in text_heads.examples_of(head):
        pieces, last = passage.pieces, min(len(passage.pieces), example.query + AFTER + 1)
        first = max(1, example.query - BEFORE)
        spans = [(first, last)]
        if example.key < first:
            spans.insert(0, (max(1, example.key - AROUND), min(first, example.key + AROUND + 1)))
        shaded = np.where(attention < FAINT * example.strength, 0, attention.round(3))
        segments = tuple(
            Segment(
                first=start, pieces=tuple(pieces[start:stop]), attention=tuple(shaded[0, start:stop].tolist()),
                attended_by=tuple(shaded[1, start:stop].tolist()),
            )
            for start, stop in spans
        )  # fmt: skip
        texts.append(ExampleText(
            strength=example.strength, document=example.document, context=example.context, query=example.query,
            query_token=pieces[example.query], key=example.key, key_token=pieces[example.key], segments=segments,
        ))  # fmt: skip
    return texts


def choices(text_heads: HeadsInText) -> dict[str, str]:
    """Return what heads can be chosen by, with what such heads do; kinds without a sentence by their name."""
    names = text_heads.settings.kinds
    return {name: TEXT_HEAD_KINDS.get(name, f"are of the kind {name.replace('_', ' ')}") for name in names} | STATISTICS


def choose(text_heads: HeadsInText, query: HeadQuery) -> list[HeadLine]:
    """Return the heads of a query, the strongest of its kind first; without a kind, the farthest above a null.

    Raises `UnknownNameError` for an unknown kind.
    """
    if query.kind and query.kind not in choices(text_heads):
        raise UnknownNameError("kind of head", query.kind, choices(text_heads))
    named = _heads_with(text_heads, query.text.strip().lower()) if query.text.strip() else None
    reads, writes = _texts(text_heads, "key word", "key token"), _texts(text_heads, "lens", "writes")
    ranks = _ranks(text_heads, query.kind)
    kinds: dict[HeadName, tuple[str, ...]] = {}
    of_kind = (row for row in text_heads.scores if row.found)  # scores of the others may be NaN
    for row in sorted(of_kind, key=lambda row: (row.kind == "sink", row.shuffled - row.score)):
        kinds[row.name] = (*kinds.get(row.name, ()), row.kind)
    lines: list[HeadLine] = []
    for row in text_heads.rows:
        name = row.name
        outside = query.layer is not None and row.layer != query.layer
        if outside or name not in ranks or (named is not None and name not in named):
            continue
        value, null = ranks[name]
        lines.append(HeadLine(
            head=str(name), kinds=kinds.get(name, ()), value=value, null=null, row=row, reads=reads.get(name, ()),
            writes=writes.get(name, ()),
        ))  # fmt: skip
    if query.kind:
        return sorted(lines, key=lambda line: -line.value)
    return sorted(lines, key=lambda line: line.null - line.value if line.value else 0.0)


def _ranks(text_heads: HeadsInText, kind: str) -> dict[HeadName, tuple[float, float]]:
    """Return the value of every head that is of a kind, with its null; of all heads their best score above one."""
    if kind in text_heads.settings.kinds:
        return {row.name: (row.score, row.shuffled) for row in text_heads.scores if row.kind == kind and row.found}
    if kind == "copies":
        return {
            row.name: (row.copies, row.copies_null) for row in text_heads.rows if row.copies > max(row.copies_null, 1)
        }
    if kind == "sharp":
        return {row.name: (1 - row.entropy, float("nan")) for row in text_heads.rows if row.entropy < 0.2}
    if kind == "silent":
        return {row.name: (1 - row.outside, float("nan")) for row in text_heads.rows if row.outside < SILENT}
    best = {row.name: (0.0, float("nan")) for row in text_heads.rows}
    for row in text_heads.scores:
        if row.found and row.score > best[row.name][0] and row.kind != "sink":
            best[row.name] = (row.score, row.shuffled)
    return best


def _heads_with(text_heads: HeadsInText, text: str) -> set[HeadName]:
    sides = "side like 'key%' or side like 'query%'"
    rows = text_heads.words.query(
        f"select distinct layer, head from t where trim(lower(text)) = ? and ({sides})", text
    ).to_pylist()
    return {HeadName(row["layer"], row["head"]) for row in rows}


def _texts(text_heads: HeadsInText, *sides: str) -> dict[HeadName, tuple[str, ...]]:
    """Return the four strongest texts of each head on the first of these sides that it has."""
    marks = ", ".join("?" * len(sides))
    rows = text_heads.words.query(f"select layer, head, side, text from t where side in ({marks})", *sides).to_pylist()
    texts: dict[HeadName, dict[str, list[str]]] = {}
    for row in rows:
        texts.setdefault(HeadName(row["layer"], row["head"]), {}).setdefault(row["side"], []).append(row["text"])
    return {
        head: tuple(dict.fromkeys(next(by[side] for side in sides if side in by)))[:4] for head, by in texts.items()
    }


@dataclass(frozen=True)
class Mention:
    """An artefact of the workspace that names a head."""

    key: str
    """Key of the artefact."""
    text: str
    """What it says about the head."""


def mentions(workspace: Workspace, model: str, head: HeadName) -> list[Mention]:
    """Return the circuits of a model that a head is in, or was tested for."""
    words: list[Mention] = []
    for circuit in workspace.values(InductionCircuit):
        row = next((row for row in circuit.verdicts if row.name == head), None)
        if circuit.settings.model == model and row is not None and (row.candidate or row.verdict):
            role = f"{(row.verdict or 'no induction').replace('_', ' ')} head"
            words.append(Mention(circuit.key, f"tested for the induction circuit: {role}"))
    return words + [
        Mention(circuit.key, f"in the circuit of {circuit.settings.task.name}")
        for circuit in workspace.values(EdgeCircuit)
        if circuit.settings.model == model and str(head) in circuit.heads
    ]
