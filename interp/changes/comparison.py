"""Comparison of two checkpoints as an artefact: everything that was compared as one list, each row beside its null.

A row (`Change`) is a matrix, a layer, a part of the model, a direction or a token. A question (`QUESTIONS`) is what all
rows of one family ask; its finding is the row furthest above its null. `interp.changes.report` measures. Torch-free.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Literal, NamedTuple, get_args

from interp.artifacts import Artefact, DocumentField, Table
from interp.forms import Measured
from interp.models.short_name import short_name
from interp.results import Record, whole_table
from interp.view import Facts, Rows, View

Question = Literal[
    "predictions", "more", "less", "difference", "writes", "weights", "stream", "carried", "removed"
]  # fmt: skip
QUESTIONS: dict[Question, tuple[str, str]] = {
    "predictions": ("predictions", "nats per token"),
    "more": ("tokens made more likely", "nats"),
    "less": ("tokens made less likely", "nats"),
    "difference": ("mean difference, read as words", "nats"),
    "writes": ("directions that changed matrices write", "standard deviations"),
    "weights": ("weights", "of the matrix's norm"),
    "stream": ("residual stream", "of its variance"),
    "carried": ("part put into the base", "of the behaviour"),
    "removed": ("part of the base put back", "of the behaviour"),
}
"""Question -> what is compared, and the unit of its value."""
Source = Literal["difference", "writes", "predictions", "continuations"]
SOURCES: tuple[Source, ...] = get_args(Source)
N_WORDS = 8
"""tokens shown of a direction"""
SMALLEST = 1e-12
"""values below this count as 0"""
MOST = 10_000.0
"""multiple of a bound beyond which no larger one is told: rounding changes nothing in a layer before the change"""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that was compared, beside its null."""

    question: Question
    text: str
    """name of the text on which it was measured; empty for weights"""
    name: str
    """the component, layer, part or token; `L9.mlp.out 1` is the largest direction of that matrix's change"""
    place: str
    """`embed`, `L0` and so on, `unembed` or `other`; empty for predictions and tokens"""
    value: Measured
    """0: no change; the unit is that of its question"""
    low: Measured
    """95 % interval over contexts or prompts; NaN for what has none"""
    high: Measured
    null: Measured
    """mean of the nulls; NaN for a part too small to be found, which has no null"""
    bound: Measured
    """upper bound of the nulls, corrected for all rows of the question; of a part at least 0.1"""
    found: bool
    """the value, or the low end of its corrected interval, lies above the bound"""
    words: list[str]
    """tokens that a direction raises most"""

    @property
    def times(self) -> float:
        """The value in multiples of its bound, at most `MOST`."""
        return min(max(self.value, 0.0) / max(self.bound, SMALLEST), MOST)


class Found(NamedTuple):
    """The answer to one question on one text: its row furthest above the null, and how many rows are."""

    best: Change
    n_found: int
    n: int
    words: list[str]
    """tokens that name the change; none within the null"""

    def record(self) -> Record:
        """Return it as a row of the list: `what, where, words, value, null up to, times, beyond`."""
        what, unit = QUESTIONS[self.best.question]
        times = f"{self.best.times:.3g}" if self.best.times < MOST else f"over {MOST:,.0f}"
        return {
            "what": what + (f", on {self.best.text}" if self.best.question == "stream" else ""),
            "where": self.best.name,
            "words": " ".join(self.words),
            "value": f"{self.best.value:.3g} {unit}",
            "null up to": f"{self.best.bound:.2g}",
            "times": times,
            "beyond": f"{self.n_found} of {self.n}",
        }


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


@dataclass(frozen=True, kw_only=True)
class Said:
    """Predictions and continuations of both models on a text that the tuned one was not trained on."""

    text: str
    n_tokens: int
    first: int
    """tokens at the start of each context over which the mean difference is taken"""
    lens: str
    """key of the Jacobian lens of the base; empty: the logit lens"""
    kl_high: float
    """upper bound of the largest KL at any position of a null"""
    turns: tuple[Disagreement, ...]
    """positions of largest KL, the largest first"""
    steered_at: str
    """hook point at which the mean difference was added; empty where none was beyond its null"""
    written: tuple[Written, ...]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The behaviour of both models, of whose difference `carried` and `removed` are fractions."""

    behaviour: str
    base: float
    """mean over prompts"""
    tuned: float
    bound: float
    """upper prediction bound of the difference of one more null"""
    differ: bool
    """the end of the difference's 95 % interval nearer to 0 lies beyond the bound; if not, no part was transplanted"""

    def __str__(self) -> str:
        numbers = f"{self.behaviour} {self.base:.3f} in the base, {self.tuned:.3f} in the tuned model"
        return numbers if self.differ else f"{numbers}: they behave alike (null up to {self.bound:.2g})"


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
    """Effects of fine-tuning: words for the change, weights, residual stream, and the parts that carry it."""

    settings: CheckpointComparisonSettings
    null: str
    """null of weights, residual stream and behaviour, in words"""
    gap: Gap
    said: Annotated[Said, DocumentField("said.json")]
    changes: Table[Change]

    @property
    def base(self) -> str:
        """Name of the model before."""
        return self.settings.base

    @property
    def tuned(self) -> str:
        """Name of the model after."""
        return self.settings.tuned

    def found(self, question: Question, text: str = "") -> list[Change]:
        """Return the rows of a question beyond their null, the furthest above it first; `text`: on that one alone."""
        rows = self.changes.rows("question = ? and found and (? = '' or text = ?)", question, text, text)
        return sorted(rows, key=lambda row: -row.times)

    def answers(self) -> list[Found]:
        """Return one finding per question and text, the furthest above its null first, then those within theirs."""
        families: dict[tuple[str, str], list[Change]] = {}
        for row in self.changes.rows():
            families.setdefault((row.question, row.text), []).append(row)
        answers = []
        for rows in families.values():
            changed = sorted((row for row in rows if row.found), key=lambda row: -row.times)
            best = changed[0] if changed else max(rows, key=lambda row: row.times)
            tokens = [row.name for row in changed[:N_WORDS]] if best.question in ("more", "less") else best.words
            answers.append(Found(best, len(changed), len(rows), tokens if changed else []))
        return sorted(answers, key=lambda answer: (not answer.n_found, -answer.best.times))

    def words(self) -> dict[Source, set[str]]:
        """Return every word that is shown beyond a null, in lower case, by where it comes from.

        Of predictions and continuations those are left out that the base has itself.
        """
        turns = (turn for turn in self.said.turns if turn.kl > self.said.kl_high)
        turned = chain.from_iterable(set(turn.tuned) - set(turn.base) for turn in turns)
        sources: dict[Source, Iterator[str]] = {
            "difference": chain.from_iterable(row.words for row in self.found("difference")),
            "writes": chain.from_iterable(row.words for row in self.found("writes")),
            "predictions": chain((row.name for row in self.found("more")), turned),
            "continuations": self._only_tuned(),
        }
        return {name: {word.strip().lower() for word in words} - {""} for name, words in sources.items()}

    def _only_tuned(self) -> Iterator[str]:
        moved = self._predictions()
        for sample in self.said.written if moved.value > moved.null else ():
            yield from set(f"{sample.tuned} {sample.steered}".split()) - set(f"{sample.base} {sample.null}".split())

    def _predictions(self) -> Change:
        (moved,) = self.changes.rows("question = 'predictions'")
        return moved

    def to_records(self) -> list[Record]:
        """Return one row per thing compared: `question, text, name, place, value, low, high, null, bound, ...`."""
        return [{**vars(row)} for row in self.changes.rows()]

    def view(self) -> View:
        moved = self._predictions()
        yield (
            f"Fine-tuning {short_name(self.base)} into {short_name(self.tuned)} moves predictions by "
            f"{moved.value:.2g} nats a token (null {moved.null:.2g})"
        )
        words = next((" ".join(row.words[:4]) for row in self.found("difference")), "none")
        carried = ", ".join(row.name for row in self.found("carried")) or "none"
        matrices = ("changed matrices", str(len(self.found("weights"))))
        yield Facts(("words", words), matrices, ("parts that carry the behaviour", carried))
        names = {"base": "base", "tuned": "tuned", "steered": "base, steered", "null": "base, null"}
        samples = [(sample, name, getattr(sample, key)) for sample in self.said.written for key, name in names.items()]
        written = [f"{name:>13} | {sample.prompt!r} -> {text!r}" for sample, name, text in samples if text]
        answers = [answer.record() for answer in self.answers()]
        yield from [f"Null: {self.null}.", *whole_table(answers), f"Behaviour: {self.gap}.", *written]
        yield Rows(lambda: answers)

    def __str__(self) -> str:
        return "\n".join([self.headline(), *self.details()])
