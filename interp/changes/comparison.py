"""Comparison of two checkpoints as an artefact: weights, representations on each text, heads, transplants, words.

`interp.changes.report` measures it. The table in plain text has one row per part of the model, and an asterisk marks
values beyond their null. Torch-free.

`interp.changes._reading` measures the words: what a fine-tune made more likely, what its changes say through a lens,
and texts of both models. The null of every number there is the same number for the base with a change of equal
size that writes elsewhere. Torch-free.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Literal, get_args

from interp.artifacts import Artefact, DocumentField
from interp.changes.measured import MEASURES, HeadChanges, RepresentationChanges, Transplants, WeightChanges, unit_of
from interp.forms import Measured
from interp.models.short_name import short_name
from interp.nulls import BEYOND
from interp.results import Record, Result, whole_table

Way = Literal["difference", "writes", "reads"]
WAYS: tuple[Way, ...] = get_args(Way)
N_WORDS = 8
"""tokens shown of a direction"""


@dataclass(frozen=True, kw_only=True)
class DirectionTokens:
    """A direction of the residual stream, read as tokens."""

    name: str
    """`L9`, the mean difference after that layer; `L9.mlp.out 1`, the largest direction of that matrix's change"""
    way: Way
    share: Measured
    """of a mean difference its norm over the residual's mean norm, of a direction its share of the squared change"""
    words: tuple[str, ...]
    """tokens that it raises most; of a direction that a matrix reads, tokens whose embedding lies along it most"""
    strength: float
    """largest logit that it adds: of a mean difference in nats, of a direction in standard deviations over the
    vocabulary"""
    null: float
    """mean of the nulls' largest"""
    null_high: float
    """upper bound of the nulls, corrected for all rows of one way"""

    @property
    def above_null(self) -> bool:
        """True where the strength lies above its bound."""
        return self.strength > self.null_high


@dataclass(frozen=True, kw_only=True)
class Use:
    """A token or a feature whose use changed."""

    what: str
    """text of the token, or `KEY:NUMBER` of a feature"""
    before: float
    """mean probability of the token at all positions, or mean activation of the feature"""
    after: float
    change: float
    """standardised: of a token the signed contribution to the divergence of the two means, in nats; of a feature the
    difference of the means"""
    null_high: float
    """upper bound of the absolute change under the nulls, corrected for all tokens or features"""

    @property
    def above_null(self) -> bool:
        """True where the change lies above its bound."""
        return abs(self.change) > self.null_high


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A position of a text at which the two models predict different tokens."""

    before: str
    """the text up to the position"""
    actual: str
    """the token that follows in the text"""
    kl: float
    """KL of the tuned model's prediction from the base's, in nats"""
    base: tuple[str, ...]
    """the base's most likely tokens"""
    tuned: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Written:
    """Greedy continuations of one prompt by both models, and by the base with the mean difference added."""

    prompt: str
    base: str
    tuned: str
    steered: str
    """the base, with the mean difference added at one layer"""
    null: str
    """the base, with the mean difference of a null added there, of the same length"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChangedWords(Result):
    """Words for a fine-tune, each kind with its null."""

    text: str
    """name of the text, which the tuned model was not trained on"""
    n_contexts: int
    n_tokens: int
    first: int
    """tokens at the start of each context over which the mean difference is taken"""
    lens: str
    """key of the Jacobian lens of the base; empty: the logit lens"""
    directions: tuple[DirectionTokens, ...]
    kl: float
    """mean over positions, nats"""
    kl_null: float
    """mean of the nulls"""
    kl_high: float
    """upper bound of the largest KL at any position of a null"""
    turns: tuple[Disagreement, ...]
    """positions of largest KL, the largest first"""
    tokens: tuple[Use, ...]
    """tokens of largest change, the largest first"""
    features: tuple[Use, ...]
    """features of dictionaries of the base, likewise; empty without a dictionary"""
    steered_at: str
    """hook point at which the mean difference was added; empty where none was beyond its null"""
    written: tuple[Written, ...]

    @property
    def directions_above_null(self) -> list[DirectionTokens]:
        """Directions beyond their null: the furthest above it first."""
        return sorted((row for row in self.directions if row.above_null), key=lambda row: row.null_high / row.strength)

    def words(self) -> dict[str, set[str]]:
        """Return every word that the report shows beyond a null, in lower case, by where it comes from.

        Of predictions and continuations those are left out that the base has itself.
        """
        shown = {
            way: [word for row in self.directions_above_null if row.way == way for word in row.words] for way in WAYS
        }
        more = (use.what for use in self.tokens if use.above_null and use.change > 0)
        turned = chain.from_iterable(set(turn.tuned) - set(turn.base) for turn in self.turns if turn.kl > self.kl_high)
        sources = {**shown, "predictions": chain(more, turned), "continuations": self._only_tuned()}
        return {name: {word.strip().lower() for word in words} - {""} for name, words in sources.items()}

    def _only_tuned(self) -> Iterator[str]:
        for sample in self.written if self.kl > self.kl_null else ():
            yield from set(f"{sample.tuned} {sample.steered}".split()) - set(f"{sample.base} {sample.null}".split())

    def to_records(self) -> list[Record]:
        """Return one row per direction, token and feature: `question, name, value, null, above_null, words`."""
        rows = [(row.way, row.name, row.strength, row.null_high, row.above_null, row.words) for row in self.directions]
        for kind, uses in (("token", self.tokens), ("feature", self.features)):
            rows += [(kind, use.what, use.change, use.null_high, use.above_null, ()) for use in uses]
        names = ("question", "name", "value", "null", "above_null", "words")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def headline(self) -> str:
        """Say how far the predictions moved."""
        return (
            f"On {self.n_tokens:,} tokens of {self.text} the predictions moved by {self.kl:.3g} nats "
            f"(null {self.kl_null:.3g})"
        )

    def shown(self) -> list[Record]:
        """Return the directions found, the furthest above their null first."""
        return [
            {"way": row.way, "name": row.name, "strength": row.strength, "null": row.null_high,
             "words": " ".join(row.words)} for row in self.directions_above_null
        ]  # fmt: skip

    def sentences(self) -> list[str]:
        """Return one sentence per question: the difference lens, directions of weights, tokens, features."""
        return [self._difference(), self._weights(), self._predictions(), *self._features()]

    def lines(self) -> list[str]:
        """Return each prompt with its continuations, a line each."""
        names = {"base": "base", "tuned": "tuned", "steered": "base, steered", "null": "base, null"}
        shown = [(sample, name, getattr(sample, key)) for sample in self.written for key, name in names.items()]
        return [f"{name:>13} | {sample.prompt!r} -> {text!r}" for sample, name, text in shown if text]

    def _difference(self) -> str:
        rows = [row for row in self.directions_above_null if row.way == "difference"]
        if not rows:
            return f"difference lens on {self.text}: the mean difference raises no word {BEYOND} at any layer"
        best, layers = rows[0], f"{len(rows)} layer{'s' * (len(rows) != 1)}"
        return (
            f"difference lens on the first {self.first} tokens of {self.text}: {BEYOND} after {layers}, "
            f"furthest after {best.name}, where it raises {_quoted(best.words)} "
            f"(by {best.strength:.1f} nats, null up to {best.null_high:.1f})"
        )

    def _weights(self) -> str:
        rows = [row for row in self.directions_above_null if row.way != "difference"]
        if not rows:
            return f"directions of the weight changes: none raises a word {BEYOND}"
        shown = "; ".join(f"{row.name} {row.way} {_quoted(row.words)}" for row in rows[:3])
        return f"directions of the weight changes: {shown}"

    def _predictions(self) -> str:
        up, down = (
            [use.what for use in self.tokens if use.above_null and (use.change > 0) is more] for more in (True, False)
        )
        moved = f"predictions on {self.text}: KL {self.kl:.3g} nats per token (null {self.kl_null:.3g})"
        if not up and not down:
            return f"{moved}; no token is used more or less than under the null"
        return moved + "".join(
            f"; {name} likely {_quoted(words)}" for name, words in (("more", up), ("less", down)) if words
        )

    def _features(self) -> list[str]:
        if not self.features:
            return []
        features = [feature for feature in self.features if feature.above_null]
        shown = ", ".join(f"{feature.what} ({feature.before:.2g} to {feature.after:.2g})" for feature in features[:5])
        return [f"features whose use changed: {shown or f'none {BEYOND}'}"]


def _quoted(words: Sequence[str]) -> str:
    return " ".join(map(repr, words[:N_WORDS]))


HALF = 0.5
SHOWN = 6
"""names in a sentence, before "and n more\""""


@dataclass(frozen=True, kw_only=True)
class CheckpointComparisonSettings:
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

    settings: CheckpointComparisonSettings
    weights: Annotated[WeightChanges, DocumentField("weights.json")]
    representations: Annotated[dict[str, RepresentationChanges], DocumentField("representations.json")]
    """by name of the text"""
    heads: Annotated[HeadChanges, DocumentField("heads.json")]
    transplants: Annotated[Transplants, DocumentField("transplants.json")]
    words: Annotated[ChangedWords, DocumentField("words.json")]

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
        rows = [("weights", None, c.name, c.change, c.null, c.above_null) for c in self.weights.changes]
        for text, changes in self.representations.items():
            layers = [(layer.name, layer.change.estimate, layer.null, layer.above_null) for layer in changes.layers]
            rows += [("stream", text, *row) for row in layers]
        rows += [
            (row["measure"], None, row["head"], row["value"], row["null"], row["above_null"])
            for row in self.heads.to_records()
        ]
        for t in self.transplants.transplants:
            rows.append(("carried", None, t.name, t.carried.estimate, t.carried_random, t.carried_found))
            rows.append(("removed", None, t.name, t.removed.estimate, t.removed_random, t.removed_found))
        rows += [
            (row["question"], self.words.text, row["name"], row["value"], row["null"], row["above_null"])
            for row in self.words.to_records()
        ]
        names = ("question", "text", "name", "value", "null", "above_null")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def table(self) -> str:
        """Return a table in plain text: one row per part of the model, from the embedding to the unembedding."""
        return changes_table(self)

    def __str__(self) -> str:
        return self.table() + "\n\n" + "\n".join(self.sentences())

    def headline(self) -> str:
        """Return one line: how far the predictions moved, beside the null."""
        return (
            f"Fine-tuning {short_name(self.base)} into {short_name(self.tuned)} moves predictions by "
            f"{self.words.kl:.2g} nats a token (null {self.words.kl_null:.2g})"
        )

    def facts(self) -> list[tuple[str, str]]:
        """Return the words of the difference lens, the number of changed matrices, and the parts that carry it."""
        words = next((" ".join(row.words[:4]) for row in self.words.directions_above_null), "none")
        changed = ("changed matrices", str(len(self.weights.changed)))
        carried = ("parts that carry the behaviour", _names(self.transplants.carried) or "none")
        return [("words", words), changed, carried]

    def details(self) -> list[str]:
        """Return the table, a sentence per question, and continuations of both models."""
        return [*self.table().splitlines(), "", *self.sentences(), *self.words.lines()]

    def _weights(self) -> str:
        names, low = self.weights.changed, self.weights.low_rank
        n, null = len(self.weights.changes), f"moved by more than the null ({self.weights.null})"
        if not names:
            return f"weights: none of {n} components {null}"
        rank = f"; low-rank: {_names(low)}" if low else "; none is low-rank"
        return f"weights: {len(names)} of {n} components {null}: {_names(names)}{rank}"

    def _stream(self, text: str) -> str:
        changes = self.representations[text]
        if not changes.changed:
            return f"residual stream on {text}: no layer moved by more than the null"
        most = max((changes[name] for name in changes.changed), key=lambda layer: layer.change.estimate)
        change, low, high = most.change
        return (
            f"residual stream on {text}: differs from {changes.changed[0]} on, most at {most.name}: by {change:.2g} of "
            f"its variance [{low:.2g}, {high:.2g}] (null {most.null:.2g}), "
            f"CKA {most.cka.estimate:.4f} (null {most.cka_null:.4f}); "
            f"{most.main_share:.0%} of the squared difference lies along one direction (null "
            f"{most.main_share_null:.0%})"
        )

    def _heads(self) -> str:
        heads = {m: self.heads.names(m) for m in MEASURES if m in self.heads.above_null}
        by_weights = list(dict.fromkeys([*heads["own_pattern"], *heads["own_output"]]))
        text = (
            f"heads: changed by their own weights: {_names(by_weights)}"
            if by_weights
            else "heads: none changed by its own weights"
        )
        text += (
            f"; changed attention patterns: {_names(heads['pattern'])}"
            if heads["pattern"]
            else "; no attention pattern changed"
        )
        scores = [f"{kind.replace('_', '-')} {_names(heads[kind])}" for kind in MEASURES[3:] if heads.get(kind)]
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


def changes_table(comparison: "ModelComparison") -> str:
    """Return the table with rows `embed, L0.attn, L0.mlp ... unembed`: weights, stream by text, heads, transplants."""
    texts = (f"stream, {text}" for text in comparison.representations)
    columns = ["part", "weights", "null", "rank", *texts, "stream, null", "heads", "carried", "removed"]
    names = [part.name for part in comparison.transplants.transplants if part.level == "part"]
    rows = [[name, *_weights(comparison, name), *_stream(comparison, name), *_rest(comparison, name)] for name in names]
    models = f"{comparison.base} -> {comparison.tuned}"
    notes = f"{models}; null: {comparison.weights.null}; * {BEYOND}, corrected for all parts"
    heads = [part for part in comparison.transplants.transplants if part.level == "head"]
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


def _weights(comparison: "ModelComparison", part: str) -> list[str]:
    """Return the largest change among the components of a part, its null, and its rank over the random rank."""
    mine = [c for c in comparison.weights.changes if unit_of(c.kind, c.layer) == part]
    if not mine:
        return ["-"] * 3
    most = max(mine, key=lambda c: (c.above_null, c.change))
    rank = f"{most.rank:.1f}/{most.random_rank:.1f}" if most.change else "-"
    return [_marked(most.change, most.above_null), f"{most.null_high:.2g}", rank]


def _stream(comparison: "ModelComparison", part: str) -> list[str]:
    """Return the change of the residual stream after a layer, for the row of its MLP (else of its attention)."""
    layer = part.split(".")[0]
    last = {row.name.split(".")[0]: row.name for row in comparison.transplants.transplants if row.level == "part"}
    known = {change.name for change in next(iter(comparison.representations.values())).layers}
    if layer not in known or last[layer] != part:
        return ["" for _ in comparison.representations] + [""]
    cells = [
        _marked(changes[layer].change.estimate, changes[layer].above_null)
        for changes in comparison.representations.values()
    ]
    return [*cells, f"{next(iter(comparison.representations.values()))[layer].null_high:.2g}"]


def _rest(comparison: "ModelComparison", part: str) -> list[str]:
    row = comparison.transplants[part]
    heads = ""
    if part.endswith(".attn"):
        layer = int(part[1:].split(".")[0])
        mask = comparison.heads.above_null["own_pattern"][layer] | comparison.heads.above_null["own_output"][layer]
        heads = " ".join(f"H{head}" for head in mask.nonzero()[0]) or "-"
    return [heads, _share(row.carried.estimate, row.carried_found), _share(row.removed.estimate, row.removed_found)]


def _marked(value: float, beyond: bool) -> str:
    return f"{value:.3g}" + ("*" if beyond else " ")


def _share(value: float, beyond: bool) -> str:
    return "-" if value != value else f"{value:.0%}" + ("*" if beyond else " ")


def _names(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
