"""Comparison of two checkpoints as an artefact: weights, representations on each text, heads, transplants, words.

`interp.changes.report` measures it. The table in plain text has one row per part of the model, and an asterisk marks
values beyond their null. Torch-free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from interp.artifacts import Artefact, Document
from interp.changes.measured import (
    MEASURES,
    HeadChanges,
    RepresentationChanges,
    Transplants,
    WeightChanges,
    unit_of,
)
from interp.changes.words import ChangedWords
from interp.results import Record, whole_table

HALF = 0.5
SHOWN = 6
"""names in a sentence, before "and n more\""""


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """Settings that determine a comparison of two checkpoints."""

    base: str
    tuned: str
    weight_hashes: tuple[str, ...]
    """Of the base, the tuned model and the continuations."""
    texts: dict[str, tuple[int, ...]]
    """Contexts and tokens per context of each text."""
    n_random: int
    """Random changes of each transplanted part."""
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelComparison(Artefact, kind="model_comparison", title="Fine-tuning effects", made_by="compare models"):
    """Effects of fine-tuning: changes of weights, representations and heads, the transplants, and words for them."""

    settings: ComparisonSettings
    weights: Annotated[WeightChanges, Document("weights.json")]
    representations: Annotated[dict[str, RepresentationChanges], Document("representations.json")]
    """by name of the text"""
    heads: Annotated[HeadChanges, Document("heads.json")]
    transplants: Annotated[Transplants, Document("transplants.json")]
    words: Annotated[ChangedWords, Document("words.json")]

    @property
    def base(self) -> str:
        """Name of the model before."""
        return self.settings.base

    @property
    def tuned(self) -> str:
        """Name of the model after."""
        return self.settings.tuned

    def sentences(self) -> list[str]:
        """Return one sentence per question: words, weights, residual stream on each text, heads, transplants."""
        return [
            *self.words.sentences(),
            self._weights(),
            *(self._stream(text) for text in self.representations),
            self._heads(),
            self._proof(),
        ]

    def to_records(self) -> list[Record]:
        """Return one row per component, layer, head and part: `question, text, name, value, null, found`.

        `question` is `weights`, `stream`, a measure of heads, `carried`, `removed`, or one of those for words; `text`
        is given for `stream` and words.
        """
        rows = [("weights", None, c.name, c.change, c.null, c.found) for c in self.weights.changes]
        for text, each in self.representations.items():
            layers = [(layer.name, layer.change.estimate, layer.null, layer.found) for layer in each.layers]
            rows += [("stream", text, *row) for row in layers]
        rows += [
            (row["measure"], None, row["head"], row["value"], row["null"], row["found"])
            for row in self.heads.to_records()
        ]
        for t in self.transplants.transplants:
            rows.append(("carried", None, t.name, t.carried.estimate, t.carried_random, t.carried_found))
            rows.append(("removed", None, t.name, t.removed.estimate, t.removed_random, t.removed_found))
        rows += [
            (row["question"], self.words.text, row["name"], row["value"], row["null"], row["found"])
            for row in self.words.to_records()
        ]
        names = ("question", "text", "name", "value", "null", "found")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def table(self) -> str:
        """Return a table in plain text: one row per part of the model, from the embedding to the unembedding."""
        return changes_table(self)

    def __str__(self) -> str:
        return self.table() + "\n\n" + "\n".join(self.sentences())

    def headline(self) -> str:
        """Name the two models."""
        return f"The effects of fine-tuning {self.base} into {self.tuned}"

    def facts(self) -> list[tuple[str, str]]:
        """Return the words of the difference lens, the number of changed matrices, and the parts that carry it."""
        said = next((" ".join(each.words[:4]) for each in self.words.found), "none")
        changed = ("changed matrices", str(len(self.weights.found)))
        carried = ("parts that carry the behaviour", _names(self.transplants.carried) or "none")
        return [("words", said), changed, carried]

    def details(self) -> list[str]:
        """Return the table, a sentence per question, and continuations of both models."""
        return [*self.table().splitlines(), "", *self.sentences(), *self.words.lines()]

    def _weights(self) -> str:
        found, low = self.weights.found, self.weights.low_rank
        n, null = len(self.weights.changes), f"moved by more than the null ({self.weights.null})"
        if not found:
            return f"weights: none of {n} components {null}"
        rank = f"; low-rank: {_names(low)}" if low else "; none is low-rank"
        return f"weights: {len(found)} of {n} components {null}: {_names(found)}{rank}"

    def _stream(self, text: str) -> str:
        each = self.representations[text]
        if not each.found:
            return f"residual stream on {text}: no layer moved by more than the null"
        most = max((each[name] for name in each.found), key=lambda layer: layer.change.estimate)
        change, low, high = most.change
        return (
            f"residual stream on {text}: differs from {each.found[0]} on, most at {most.name}: by {change:.2g} of its "
            f"variance [{low:.2g}, {high:.2g}] (null {most.null:.2g}), "
            f"CKA {most.cka.estimate:.4f} (null {most.cka_null:.4f}); "
            f"{most.main_share:.0%} of the squared difference lies along one direction (null "
            f"{most.main_share_null:.0%})"
        )

    def _heads(self) -> str:
        own = {m: self.heads.names(m) for m in MEASURES if m in self.heads.found}
        by_weights = list(dict.fromkeys([*own["own_pattern"], *own["own_output"]]))
        text = (
            f"heads: changed by their own weights: {_names(by_weights)}"
            if by_weights
            else "heads: none changed by its own weights"
        )
        text += (
            f"; changed attention patterns: {_names(own['pattern'])}"
            if own["pattern"]
            else "; no attention pattern changed"
        )
        scores = [f"{kind.replace('_', '-')} {_names(own[kind])}" for kind in MEASURES[3:] if own.get(kind)]
        return text + (f"; changed scores: {', '.join(scores)}" if scores else "")

    def _proof(self) -> str:
        proof = self.transplants
        gap = f"{proof.behaviour} {proof.base:.3f} in the base, {proof.tuned:.3f} in the tuned model"
        if not proof.differ:
            return (
                f"transplants: the two models behave alike ({gap}, bound of the nulls {proof.gap_bound:.2g}), so no "
                "part was transplanted"
            )
        carried = [f"{name} {proof[name].carried.estimate:.0%}" for name in proof.carried]
        removed = [f"{name} {proof[name].removed.estimate:.0%}" for name in proof.removed]
        inconclusive = [
            f"reverting {t.name} removes {t.removed.estimate:.0%}, a random change {t.removed_random:.0%} on average"
            for t in proof.transplants
            if t.removed.estimate > HALF and not t.removed_found
        ]
        into = (
            f"parts that transfer the behaviour: {_names(carried)}"
            if carried
            else "no single part transfers the behaviour"
        )
        out = f"parts that remove it: {_names(removed)}" if removed else "no single part removes it beyond chance"
        return f"transplants ({gap}): written into the base, {into}; reverted in the tuned model, {out}" + (
            f" ({'; '.join(inconclusive[:SHOWN])})" if inconclusive else ""
        )


def changes_table(found: "ModelComparison") -> str:
    """Return the table with rows `embed, L0.attn, L0.mlp ... unembed`: weights, stream by text, heads, transplants."""
    texts = (f"stream, {text}" for text in found.representations)
    columns = ["part", "weights", "null", "rank", *texts, "stream, null", "heads", "carried", "removed"]
    names = [part.name for part in found.transplants.transplants if part.level == "part"]
    rows = [[name, *_weights(found, name), *_stream(found, name), *_rest(found, name)] for name in names]
    notes = f"{found.base} -> {found.tuned}; null: {found.weights.null}; * beyond the null, corrected for all parts"
    heads = [part for part in found.transplants.transplants if part.level == "head"]
    lines = [notes, "", *whole_table([dict(zip(columns, row, strict=True)) for row in rows])]
    if heads:
        shown = [
            {
                "head": t.name,
                "carried": _share(t.carried.estimate, t.carried_found),
                "removed": _share(t.removed.estimate, t.removed_found),
            }
            for t in sorted(heads, key=lambda t: -t.carried.estimate)[:8]
        ]
        lines += ["", *whole_table(shown)]
    return "\n".join(lines)


def _weights(found: "ModelComparison", part: str) -> list[str]:
    """Return the largest change among the components of a part, its null, and its rank over the random rank."""
    mine = [c for c in found.weights.changes if unit_of(c.kind, c.layer) == part]
    most = max(mine, key=lambda c: (c.found, c.change))
    rank = f"{most.rank:.1f}/{most.random_rank:.1f}" if most.change else "-"
    return [_marked(most.change, most.found), f"{most.null_high:.2g}", rank]


def _stream(found: "ModelComparison", part: str) -> list[str]:
    """Return the change of the residual stream after a layer, for the row of its MLP (else of its attention)."""
    layer = part.split(".")[0]
    last = {row.name.split(".")[0]: row.name for row in found.transplants.transplants if row.level == "part"}
    known = {each.name for each in next(iter(found.representations.values())).layers}
    if layer not in known or last[layer] != part:
        return ["" for _ in found.representations] + [""]
    cells = [_marked(each[layer].change.estimate, each[layer].found) for each in found.representations.values()]
    return [*cells, f"{next(iter(found.representations.values()))[layer].null_high:.2g}"]


def _rest(found: "ModelComparison", part: str) -> list[str]:
    row = found.transplants[part]
    heads = ""
    if part.endswith(".attn"):
        layer = int(part[1:].split(".")[0])
        own = found.heads.found["own_pattern"][layer] | found.heads.found["own_output"][layer]
        heads = " ".join(f"H{head}" for head in own.nonzero()[0]) or "-"
    return [heads, _share(row.carried.estimate, row.carried_found), _share(row.removed.estimate, row.removed_found)]


def _marked(value: float, beyond: bool) -> str:
    return f"{value:.3g}" + ("*" if beyond else " ")


def _share(value: float, beyond: bool) -> str:
    return "-" if value != value else f"{value:.0%}" + ("*" if beyond else " ")


def _names(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
