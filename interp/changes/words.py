"""Words for a fine-tune: what it made more likely, what its changes say through a lens, and texts of both models.

`interp.changes.reading` measures them. The null of every number is the same number for the base with a change of equal
size that writes elsewhere. Torch-free.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from interp.forms import Measured
from interp.nulls import BEYOND
from interp.results import Record, Result

Way = Literal["difference", "writes", "reads"]
WAYS: tuple[Way, ...] = get_args(Way)
N_WORDS = 8
"""tokens shown of a direction"""


@dataclass(frozen=True, kw_only=True)
class Said:
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
    def found(self) -> bool:
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
    def found(self) -> bool:
        """True where the change lies above its bound."""
        return abs(self.change) > self.null_high


@dataclass(frozen=True, kw_only=True)
class Turn:
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
    said: tuple[Said, ...]
    kl: float
    """mean over positions, nats"""
    kl_null: float
    """mean of the nulls"""
    kl_high: float
    """upper bound of the largest KL at any position of a null"""
    turns: tuple[Turn, ...]
    """positions of largest KL, the largest first"""
    tokens: tuple[Use, ...]
    """tokens of largest change, the largest first"""
    features: tuple[Use, ...]
    """features of dictionaries of the base, likewise; empty without a dictionary"""
    steered_at: str
    """hook point at which the mean difference was added; empty where none was beyond its null"""
    written: tuple[Written, ...]

    @property
    def found(self) -> list[Said]:
        """Directions beyond their null: the furthest above it first."""
        return sorted((each for each in self.said if each.found), key=lambda each: each.null_high / each.strength)

    def words(self) -> dict[str, set[str]]:
        """Return every word that the report shows beyond a null, in lower case, by where it comes from.

        Of predictions and continuations those are left out that the base has itself.
        """
        shown = {way: [word for each in self.found if each.way == way for word in each.words] for way in WAYS}
        more = (each.what for each in self.tokens if each.found and each.change > 0)
        turned = chain.from_iterable(set(each.tuned) - set(each.base) for each in self.turns if each.kl > self.kl_high)
        sources = {**shown, "predictions": chain(more, turned), "continuations": self._only_tuned()}
        return {name: {word.strip().lower() for word in words} - {""} for name, words in sources.items()}

    def _only_tuned(self) -> Iterator[str]:
        for each in self.written if self.kl > self.kl_null else ():
            yield from set(f"{each.tuned} {each.steered}".split()) - set(f"{each.base} {each.null}".split())

    def to_records(self) -> list[Record]:
        """Return one row per direction, token and feature: `question, name, value, null, found, words`."""
        rows = [(each.way, each.name, each.strength, each.null_high, each.found, each.words) for each in self.said]
        for kind, uses in (("token", self.tokens), ("feature", self.features)):
            rows += [(kind, each.what, each.change, each.null_high, each.found, ()) for each in uses]
        names = ("question", "name", "value", "null", "found", "words")
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
            {"way": each.way, "name": each.name, "strength": each.strength, "null": each.null_high,
             "words": " ".join(each.words)} for each in self.found
        ]  # fmt: skip

    def sentences(self) -> list[str]:
        """Return one sentence per question: the difference lens, directions of weights, tokens, features."""
        return [self._difference(), self._weights(), self._predictions(), *self._features()]

    def lines(self) -> list[str]:
        """Return each prompt with its continuations, a line each."""
        names = {"base": "base", "tuned": "tuned", "steered": "base, steered", "null": "base, null"}
        shown = [(each, name, getattr(each, key)) for each in self.written for key, name in names.items()]
        return [f"{name:>13} | {each.prompt!r} -> {text!r}" for each, name, text in shown if text]

    def _difference(self) -> str:
        found = [each for each in self.found if each.way == "difference"]
        if not found:
            return f"difference lens on {self.text}: the mean difference raises no word {BEYOND} at any layer"
        best, layers = found[0], f"{len(found)} layer{'s' * (len(found) != 1)}"
        return (
            f"difference lens on the first {self.first} tokens of {self.text}: {BEYOND} after {layers}, "
            f"furthest after {best.name}, where it raises {_quoted(best.words)} "
            f"(by {best.strength:.1f} nats, null up to {best.null_high:.1f})"
        )

    def _weights(self) -> str:
        found = [each for each in self.found if each.way != "difference"]
        if not found:
            return f"directions of the weight changes: none raises a word {BEYOND}"
        shown = "; ".join(f"{each.name} {each.way} {_quoted(each.words)}" for each in found[:3])
        return f"directions of the weight changes: {shown}"

    def _predictions(self) -> str:
        up, down = (
            [each.what for each in self.tokens if each.found and (each.change > 0) is more] for more in (True, False)
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
        found = [each for each in self.features if each.found]
        shown = ", ".join(f"{each.what} ({each.before:.2g} to {each.after:.2g})" for each in found[:5])
        return [f"features whose use changed: {shown or f'none {BEYOND}'}"]


def _quoted(words: Sequence[str]) -> str:
    return " ".join(map(repr, words[:N_WORDS]))
