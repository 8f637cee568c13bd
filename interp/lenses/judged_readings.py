"""Readings of activations as an artefact: kinds of reading by layer, scored beside their controls. Torch-free.

A *reading* is a text about one activation: what a patchscope writes, lens words, labels, an explanation from a file.
`interp.lenses.judge_readings` says how it is scored. Examples are stored only of kinds that pass.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from interp.artifacts import Artefact, Finding, Table
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.options import BASIC, Means, check_least
from interp.results import Record, columns_of

TARGETS = {
    "identity": "cat -> cat; 1135 -> 1135; hello -> hello; {}",
    "description": "Syria: Country in the Middle East, Leonardo DiCaprio: American actor, Samsung: South Korean "
    "company, {}",
}
"""Target prompts by name: of Ghandeharioun et al. 2024, the second shortened. What follows is copied, or described."""


def patchscope_name(prompt: str) -> str:
    """Return the name of the kind of reading that a target prompt makes."""
    return f"patchscope {next((name for name, known in TARGETS.items() if known == prompt), repr(prompt))}"


@dataclass(frozen=True, kw_only=True)
class ReadingsConfig:
    """Settings of readings and of their score."""

    positions: Annotated[int, BASIC] = 768
    """Activations that are read at each hook point. An explanation file determines its own."""
    per_document: int = 4
    """Most positions of one document of --text."""
    context_length: int = 48
    """Tokens of a document of --text that are read, BOS included."""
    target_prompts: Annotated[tuple[str, ...], Means("PROMPT")] = tuple(TARGETS.values())
    """Target prompts of patchscopes; `{}` marks the token that the activation is put into."""
    new_tokens: int = 8
    """Tokens that a patchscope writes."""
    n_words: int = 5
    """Words of a lens, and labels of features, in a reading."""
    repeats: int = 3
    """Random splits of the documents into five folds, over which scores are averaged."""
    seed: int = 0
    """Draws positions, folds and the other activations of the control."""

    def __post_init__(self) -> None:
        least = {"positions": 32, "per_document": 1, "context_length": 12, "new_tokens": 1, "n_words": 1, "repeats": 1}
        check_least(self, least)
        if wrong := [prompt for prompt in self.target_prompts if prompt.count("{}") != 1]:
            raise ConfigError(f"a target prompt has one {{}}, where the activation goes, got {wrong[0]!r}")


@dataclass(frozen=True, kw_only=True)
class ReadingsSettings(ReadingsConfig):
    """Settings that determine readings and scores."""

    model: str
    weight_hash: str
    source: str
    """Origin of the text: `corpus:SPEC` or `file:NAME`."""
    source_hash: str
    """Of the tokens, the positions and the explanations of the file."""
    hook_points: tuple[str, ...]
    kinds: dict[str, str]
    """Kinds of reading, and what determines each: the hash of a lens or of features."""


@dataclass(frozen=True, kw_only=True)
class ReadingScore:
    """One kind of reading at one hook point: cosines of predicted and actual activations on held-out documents."""

    kind: str
    hook_point: str
    cosine: float
    """Predicted from the reading alone. 1: the activation; `empty`: no more than the mean activation."""
    low: float
    high: float
    """Ends of its 95 % interval over documents."""
    shuffled: float
    """Null: from the reading of another position of the same document."""
    empty: float
    """Null: from one text for all activations, which predicts their mean."""
    prompt: float
    """Null: from the words of the prompt up to the position."""
    with_prompt: float
    """From the words of the prompt and the reading together."""
    with_shuffled: float
    """Null: from the words of the prompt and another position's reading."""
    above_nulls: float
    """The cosine less the larger of `shuffled` and `empty`."""
    above_nulls_low: float
    adds: float
    """`with_prompt` less the larger of `prompt` and `with_shuffled`."""
    adds_low: float
    """Lower ends of the intervals of both, corrected for all rows."""
    shown: bool
    """True: both differences are at least 0.01, and their lower ends above 0."""


@dataclass(frozen=True, kw_only=True)
class ReadingExample:
    """A reading of a kind that passes, of a position drawn at random."""

    kind: str
    hook_point: str
    prompt: str
    """Its end, up to the position."""
    reading: str
    cosine: float
    """Predicted from this reading alone."""
    shuffled: float
    """From another position's reading."""


@dataclass(frozen=True, kw_only=True)
class JudgedReadings(Artefact, kind="readings", title="Readings of activations", made_by="readings"):
    """Readings of activations, scored by what they let one predict, beside shuffled and empty ones and the prompt."""

    settings: ReadingsSettings
    documents: int
    """Over which intervals are."""
    scores: Table[ReadingScore]
    """Rows by kind and hook point."""
    examples: Table[ReadingExample]
    """Of rows of `scores` that are shown."""

    @cached_property
    def rows(self) -> list[ReadingScore]:
        """All scores in memory."""
        return self.scores.rows()

    def score(self, kind: str, hook_point: str) -> ReadingScore | None:
        """Return the score of a kind at a hook point; None where it was not measured."""
        return next((row for row in self.rows if (row.kind, row.hook_point) == (kind, hook_point)), None)

    def said(self, kind: str, hook_point: str) -> str:
        """Return whether a kind is a reading at a hook point, in a sentence; empty where it was not measured."""
        row = self.score(kind, hook_point)
        if row is None:
            return ""
        on, null = f"on {self.documents} documents", max(row.shuffled, row.empty)
        if row.shown:
            return f"Comes from the activation: {on} it adds {row.adds:.3f} to the prompt's cosine, above every null."
        return (
            f"Not shown as a reading: {on} its cosine is {row.cosine:.3f} (null {null:.3f}), and with the prompt "
            f"{row.with_prompt:.3f} (null {max(row.prompt, row.with_shuffled):.3f})."
        )

    @cached_property
    def passed(self) -> list[ReadingScore]:
        """Rows above every null, the one that adds most to the prompt first."""
        return sorted((row for row in self.rows if row.shown), key=lambda row: -row.adds)

    def headline(self) -> str:
        """Return one line: how many kinds come from the activation."""
        kinds = len({row.kind for row in self.passed})
        of = len(self.settings.kinds)
        return (
            f"{kinds} of {of} kinds of reading of {short_name(self.settings.model)} say more than the prompt "
            f"({len(self.passed)} of {len(self.rows)} by hook point)"
        )

    def details(self) -> list[str]:
        """Return each kind at each hook point beside its nulls."""
        return [
            f"{row.kind} at {row.hook_point}: {row.cosine:.3f} (shuffled {row.shuffled:.3f}, empty {row.empty:.3f}); "
            f"with the prompt {row.with_prompt:.3f} (prompt alone {row.prompt:.3f}, with a shuffled one "
            f"{row.with_shuffled:.3f}){'' if row.shown else ': not shown as a reading'}"
            for row in self.rows
        ]

    def findings(self) -> list[Finding]:
        """Return the kind that adds most to the prompt."""
        if not self.passed:
            return []
        best = self.passed[0]
        return [
            Finding(
                kind="reading of activations",
                title="A reading that comes from the activation",
                sentence=f"{best.kind} at {best.hook_point} of {short_name(self.settings.model)}: with the prompt it "
                f"predicts the activation at a cosine of {best.with_prompt:.3f}, the prompt alone {best.prompt:.3f}",
                value=best.with_prompt,
                null=max(best.prompt, best.with_shuffled),
                about="cosine of predicted and actual activation; null: the prompt alone, or with a shuffled reading",
                proof="See every kind",
                href=self.href,
            )
        ]

    def to_records(self) -> list[Record]:
        """Return one row per kind and hook point."""
        return [columns_of(row) for row in self.rows]
