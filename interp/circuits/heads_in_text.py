"""Every attention head over a text as an artefact: what it attends to, what it writes, and its strongest examples.

    found = workspace.open(HeadsInText, "smollm2-135m")
    found.of_kind("name_mover")             # heads, strongest first
    found.examples_of(HeadName(17, 3))      # passages, strongest first

`interp.circuits.measure_heads` measures it; no attention pattern is stored, only sums and examples. A *score* is the
mean attention, 0 to 1, on the targets of a kind (`interp.circuits.text_kinds`), over queries that have a target.
Torch-free.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated
from urllib.parse import urlencode

import numpy as np
from jaxtyping import Float16

from interp.artifacts import ARRAY, Artefact, Measured, Table
from interp.errors import ConfigError, CorruptError, UnknownNameError
from interp.models.short_name import short_name
from interp.names import HeadName
from interp.options import check_positive
from interp.results import Record
from interp.view import Facts, Finding, Rows, View

N_EXAMPLES = 20
PER_DOCUMENT = 2
"""Most examples of a head from one document."""
SILENT = 0.01
"""A head whose attention outside BOS is below this share attends to BOS alone."""


@dataclass(frozen=True, kw_only=True)
class HeadsInTextConfig:
    """Settings of the pass over a text."""

    text_tokens: int = 300_000
    """Tokens of the text that are read, BOS included."""
    text_context: int = 128
    """Tokens per context of the text, BOS included; of a recording the first ones of each context."""
    untrained_contexts: int = 32
    """Contexts that the untrained model reads, spread over the text; it also reads those with most targets."""

    def __post_init__(self) -> None:
        check_positive(self, "text_tokens", "untrained_contexts")
        if self.text_context < 8:
            raise ConfigError(f"a context of a text has at least 8 tokens, got text_context {self.text_context}")


@dataclass(frozen=True, kw_only=True)
class HeadsInTextSettings(HeadsInTextConfig):
    """Settings that determine what is measured of every head."""

    model: str
    weight_hash: str
    source: str
    """Origin of the text: `recordings/NAME` or `corpus:SPEC`."""
    contexts: int
    documents: int
    kinds: tuple[str, ...]
    lens: str
    """Hash of the Jacobian lens that reads what heads write; empty without one."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class HeadInText:
    """Attention of one head over the text, means over tokens."""

    layer: int
    head: int
    entropy: float
    """Entropy of a row as a fraction of the largest: 0 on one token, 1 on all alike."""
    distance: Measured
    """Tokens from query to key, outside BOS; NaN for a head that attends to BOS alone."""
    outside: float
    """Share of attention outside the first position and BOS."""
    strongest: float
    """Attention to the strongest key outside BOS."""
    copies: float
    """How much attending to a token raises its logit, in standard deviations over tokens; weighted by its attention."""
    copies_null: float
    """Bound of that under permuted tokens, corrected for all heads; either sign."""

    @property
    def name(self) -> HeadName:
        return HeadName(self.layer, self.head)


@dataclass(frozen=True, kw_only=True)
class HeadKindInText:
    """Score of one head for one kind, next to its nulls."""

    layer: int
    head: int
    kind: str
    score: Measured
    """Mean attention to the targets, 0 to 1, over queries that have one."""
    low: Measured
    high: Measured
    """Ends of its 95 % interval over groups of documents."""
    shuffled: Measured
    """The same with the keys outside BOS permuted, in expectation; at the first position uniform attention."""
    elsewhere: Measured
    """Attention to such keys from other queries, of a kind that has such a control; NaN for others."""
    untrained: Measured
    """Bound of the difference between the two for a head of an untrained model, corrected for all heads."""
    writes: Measured
    """What it writes about the token it attends to, in standard deviations; NaN for a kind of attention alone."""
    writes_null: Measured
    found: bool
    """Above shuffled keys and `elsewhere` by 0.1 and above the untrained bound, and it writes what the kind does. Copy
    suppression: a tenth of the attention on earlier tokens outside BOS."""

    @property
    def name(self) -> HeadName:
        return HeadName(self.layer, self.head)


@dataclass(frozen=True, kw_only=True)
class HeadWord:
    """One line about a head in words."""

    layer: int
    head: int
    side: str
    """`key token`, `key word`, `query token`, `query word`: most attention over what shuffled keys give. `writes`,
    `lens`: tokens raised by what it reads from its keys, directly and through the Jacobian lens. `ov`: a key token and
    what it makes the head write. `qk`: a query token and the tokens that it looks for."""
    text: str
    value: float
    """Lift over what is expected; of `writes` and `lens` standard deviations over the vocabulary."""
    count: int
    """Tokens of it in the text."""
    tokens: list[str]
    """Of `ov` and `qk`."""


@dataclass(frozen=True, kw_only=True)
class HeadExample:
    """A query with its strongest key outside BOS."""

    layer: int
    head: int
    rank: int
    context: int
    """Row of `passages`."""
    document: int
    query: int
    key: int
    strength: float
    """Attention from the query to the key."""


@dataclass(frozen=True, kw_only=True)
class HeadPassage:
    """Tokens of a context that has examples."""

    context: int
    ids: list[int]
    pieces: list[str]
    """Text of every token."""


@dataclass(frozen=True, kw_only=True)
class HeadsInText(Artefact, kind="heads_in_text", title="Heads in a text", made_by="heads"):
    """Every head over a text: what it attends to and writes, with examples; nulls are shuffled keys, an untrained
    model and permuted tokens."""

    settings: HeadsInTextSettings
    heads: Table[HeadInText]
    """Rows by layer and head."""
    kinds: Table[HeadKindInText]
    """Rows by kind, layer and head."""
    words: Table[HeadWord]
    """Rows by layer, head and side, strongest first."""
    examples: Table[HeadExample]
    """Rows by layer, head and rank."""
    passages: Table[HeadPassage]
    attention: Annotated[Float16[np.ndarray, "n_examples 2 pos"], ARRAY]
    """Of each example the attention of the query to every position, and of every position to the key."""

    @cached_property
    def rows(self) -> list[HeadInText]:
        """All heads in memory."""
        return self.heads.rows()

    @cached_property
    def scores(self) -> list[HeadKindInText]:
        """All scores in memory."""
        return self.kinds.rows()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of layers, and of heads in a layer."""
        return 1 + max(row.layer for row in self.rows), 1 + max(row.head for row in self.rows)

    def of_kind(self, kind: str) -> list[HeadKindInText]:
        """Return the scores of one kind, strongest first. Raises `UnknownNameError` for a kind not measured."""
        if kind not in self.settings.kinds:
            raise UnknownNameError("kind of head", kind, self.settings.kinds)
        return sorted((row for row in self.scores if row.kind == kind), key=lambda row: -np.nan_to_num(row.score))

    def found(self, head: HeadName) -> list[str]:
        """Return the kinds found in a head, strongest first; attention to the first position, which is common, last."""
        rows = [row for row in self.scores if row.found and row.name == head]
        return [row.kind for row in sorted(rows, key=lambda row: (row.kind == "sink", row.shuffled - row.score))]

    def row(self, head: HeadName) -> HeadInText:
        """Return the statistics of a head. Raises `UnknownNameError` for one that the model lacks."""
        row = next((row for row in self.rows if row.name == head), None)
        if row is None:
            raise UnknownNameError("head", str(head), [str(row.name) for row in self.rows])
        return row

    def words_of(self, head: HeadName) -> list[HeadWord]:
        """Return what is known of a head in words."""
        return self.words.rows("layer = ? and head = ?", head.layer, head.head)

    def examples_of(self, head: HeadName) -> list[tuple[HeadExample, HeadPassage, np.ndarray]]:
        """Return the examples of a head, strongest first, with their passages and `attention [2, pos]`."""
        self.row(head)
        first = int(self.examples.query(
            "select count(*) as n from t where layer < ? or (layer = ? and head < ?)", head.layer, head.layer, head.head
        ).to_pylist()[0]["n"])  # fmt: skip
        examples = self.examples.rows("layer = ? and head = ?", head.layer, head.head, order="rank")
        contexts = sorted({example.context for example in examples})
        marks = ", ".join("?" * len(contexts))
        rows = self.passages.rows(f"context in ({marks})", *contexts) if contexts else []
        passages = {row.context: row for row in rows}
        shown = self.attention[first : first + len(examples)].astype(np.float32)
        return [(example, passages[example.context], shown[i]) for i, example in enumerate(examples)]

    def silent(self, head: HeadName) -> str:
        """Return a sentence for a head that attends to BOS alone; empty for others."""
        outside = self.row(head).outside
        if outside >= SILENT:
            return ""
        return (
            f"{head} gives {1 - outside:.1%} of its attention to the first position: on this text it attends to "
            "nothing else, so its words and examples say little. Measure it on other text."
        )

    def to_records(self) -> list[Record]:
        """Return one row per head: its statistics, its kinds, and its score of each kind."""
        names = ("entropy", "distance", "outside", "strongest", "copies", "copies_null")
        by_head: dict[HeadName, dict[str, float]] = {}
        for row in self.scores:
            by_head.setdefault(row.name, {})[row.kind] = row.score
        return [
            {"head": str(row.name)} | {name: getattr(row, name) for name in names}
            | {"kinds": ", ".join(self.found(row.name))} | by_head.get(row.name, {})
            for row in self.rows
        ]  # fmt: skip

    def counts(self) -> dict[str, int]:
        """Return the number of heads found of each kind. Raises `CorruptError` for one that the settings lack."""
        counts = Counter(row.kind for row in self.scores if row.found)
        if others := counts.keys() - set(self.settings.kinds):
            raise CorruptError(
                f"the heads of {self.settings.model} have kinds {', '.join(sorted(others))}, which its settings "
                "lack; a file was edited, so make it again"
            )
        return {kind: counts[kind] for kind in self.settings.kinds}

    def view(self) -> View:
        kinds_found = {row.name for row in self.scores if row.found and row.kind != "sink"}
        of, heads = self.settings, f"{len(kinds_found)} of {len(self.rows)} heads"
        yield f"{heads} of {short_name(of.model)} attend in a way that shuffled keys and an untrained model do not"
        kinds = len({row.name for row in self.scores if row.found})
        yield Facts(
            ("contexts", f"{of.contexts:,}"),
            ("documents", f"{of.documents:,}"),
            ("heads with a kind", str(kinds)),
        )
        counts = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in self.counts().items() if n) or "none"
        yield f"{of.contexts:,} contexts; heads by kind: {counts}"
        yield Rows(
            lambda: [
                {"head": str(row.name), "kind": kind, "score": row.score, "shuffled": row.shuffled, "found": row.found}
                for kind in self.settings.kinds
                for row in self.of_kind(kind)[:2]
            ]
        )
        for kind, does in _FINDINGS.items():
            rows = [row for row in self.scores if row.kind == kind]
            if not any(row.found for row in rows):
                continue
            best = max((row for row in rows if row.found), key=lambda row: row.low)
            yield Finding(
                kind="head in text", title=f"A head for {does[0]}",
                sentence=f"Head {best.name} of {short_name(self.settings.model)} gives {best.score:.0%} of its "
                f"attention to {does[1]} (shuffled keys: {best.shuffled:.1%}).",
                value=best.score, null=best.shuffled, about="mean attention on a text; null: shuffled keys",
                href=f"?{urlencode({'head': str(best.name)})}", proof="See the head",
                grid=tuple(
                    tuple(float(np.nan_to_num(row.score)) for row in rows if row.layer == layer)
                    for layer in range(self.shape[0])
                ),
            )  # fmt: skip


_FINDINGS = {
    "duplicate_name": ("repeated names", "an earlier mention of the name it is at"),
    "last_number": ("numbers", "the last number before"),
    "delimiter": ("punctuation", "punctuation and line ends"),
}
