"""Labels of features and their scores, as an artefact: written by a language model, imported, or carried over.

`saes.explain.run` asks for them, `saes.explain.imported` reads those of an export of Neuronpedia, and
`saes.explain.carried` carries those of another dictionary. Torch-free.
"""

from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

from interp.artifacts import Artefact, Table
from interp.errors import ConfigError
from interp.results import Record
from interp.statistics import Interval
from interp.view import Facts, View

HOLDS = 0.75
"""Balanced accuracy on held-out text from which a label holds; chance is 0.5."""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Everything that determines a prompt. Two runs with the same settings ask the same questions."""

    shown: int = 10
    """Contexts shown to the explainer: half of them the strongest, the rest from all quarters of activation."""
    heldout: int = 12
    """Held-out contexts on which the feature fires; the scores are measured on them."""
    per_request: int = 5
    """Contexts judged in one request; 1 is the easiest for a small model."""
    max_tokens: int = 300
    """Largest number of tokens in one reply. A model that reasons aloud needs thousands."""

    def __post_init__(self) -> None:
        for name, low, high in (("shown", 2, 100), ("heldout", 4, 200), ("per_request", 1, 50)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}, got {getattr(self, name)}")
        if self.max_tokens < 16:
            raise ConfigError(f"max_tokens must be at least 16, got {self.max_tokens}: a reply would not fit")


@dataclass(frozen=True, kw_only=True)
class LabelRequest:
    """Labels that a language model wrote and judged."""

    endpoint: str
    """Its address. Never a key."""
    model: str
    config: ExplainConfig


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Labels of an explanations export of Neuronpedia."""

    file: str
    sha256: str
    dictionary: str
    """The dictionary at Neuronpedia, `model/layer`."""


@dataclass(frozen=True, kw_only=True)
class CarriedLabels:
    """Labels of another dictionary, of any model, carried to the features that fire on the same words."""

    features: str
    """Name of the features artefact that they come from."""
    features_hash: str
    corpus: str
    """Text that both read."""
    n_words: int
    nulls: dict[str, tuple[int, int]]
    """Labels that would hold, of those judged, by null: documents shuffled, an untrained dictionary, neurons."""
    n_wide: int
    """Labels that hold of features that know more than one word's forms."""


@dataclass(frozen=True, kw_only=True)
class LabelsSettings:
    """Settings that determine the labels."""

    features: str
    """Name of the features artefact."""
    features_hash: str
    explained: tuple[int, ...]
    """The features with a row."""
    source: LabelRequest | Imported | CarriedLabels


@dataclass(frozen=True, kw_only=True)
class FeatureLabel:
    """Label of one feature."""

    feature: int
    label: str | None
    """None where the reply could not be read: such a feature has no scores."""
    label_source: str
    """Who wrote it."""
    statistics_label: str
    """The label made by rule, for comparison."""
    null_feature: int | None = None
    """The feature whose label served as the null."""
    unanswered: float | None = None
    """Share of its judgements that could not be read, 0 to 1; they count as no."""
    shown_rows: list[int] = field(default_factory=list)
    """Rows of the recording at the middle of the contexts that the explainer saw."""
    heldout_rows: list[int] = field(default_factory=list)
    """The same of the contexts that the judge saw; the two share no text."""
    given_names: list[str] = field(default_factory=list)
    """Who gave the scores that came with an imported label."""
    given_scores: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """Score of the label of one feature, *detection*: balanced accuracy of telling held-out contexts on which it fires
    from random ones, by the label."""

    feature: int
    accuracy: float
    """0.5 at chance, 1 always right."""
    low: float
    high: float
    """Ends of its 95 % interval, both rates from Jeffreys' posterior."""
    null: float | None
    """The same with another feature's label; None where no other label was judged."""
    n: int
    """Number of contexts judged."""


@dataclass(frozen=True, kw_only=True)
class ContextJudgement:
    """One context that was judged, in the order asked."""

    feature: int
    label_of: int
    """The feature whose label was in the prompt: another one under the null."""
    row: int
    """Row of the recording at the middle of the context."""
    group: str
    """`top`, `q4` ... `q1` where the feature fires; `random` where it does not."""
    truth: bool
    answer: bool | None
    """None where the reply could not be read."""


class MeanScore(NamedTuple):
    """Mean of a score over features, with a 95 % bootstrap interval."""

    mean: Interval[float]
    n: int
    """Number of features."""

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}}"


@dataclass(frozen=True, kw_only=True)
class MeanScores:
    """The score over the features: of their labels, of other features' labels, and the difference."""

    own: MeanScore
    null: MeanScore | None
    gain: MeanScore | None
    """Label less null, feature by feature."""


@dataclass(frozen=True, kw_only=True)
class ReplyCounts:
    """Replies that were used."""

    requests: int
    tokens_in: int
    tokens_out: int
    cut: int
    """Replies that were cut off at the limit of tokens."""


@dataclass(frozen=True, kw_only=True)
class Labels(Artefact, kind="labels", title="Written labels", made_by="explain"):
    """Labels of features, with their scores on held-out contexts where a language model judged them."""

    settings: LabelsSettings
    labels: Table[FeatureLabel]
    """Rows by feature."""
    scores: Table[LabelScore]
    """Rows by feature, where there were trials."""
    trials: Table[ContextJudgement]
    """All judgements; every score can be computed again from them."""
    means: MeanScores | None = None
    """Means over features; None where nothing was scored."""
    skipped: dict[int, str] = field(default_factory=dict)
    """Features that could not be explained, and the reason."""
    replies: ReplyCounts | None = None
    """None for imported labels."""
    n_read: int | None = None
    """Explanations in the imported file."""

    def to_records(self) -> list[Record]:
        """Return one row per feature: its label, who wrote it, and the label by rule."""
        names = ("feature", "label", "label_source", "statistics_label")
        return [{name: getattr(row, name) for name in names} for row in self.labels.rows()]

    @property
    def judge(self) -> str:
        """The model that was asked; empty for imported labels."""
        source = self.settings.source
        return source.model if isinstance(source, LabelRequest) else ""

    @property
    def label_source(self) -> str:
        """Author of the labels."""
        source = self.settings.source
        if isinstance(source, Imported):
            return f"neuronpedia {source.dictionary}"
        if isinstance(source, CarriedLabels):
            return f"{source.features}, carried by the words on which both fire"
        return source.model

    @property
    def n_features(self) -> int:
        """Number of features that were asked about."""
        return len(self.settings.explained)

    @property
    def n_labelled(self) -> int:
        """Number of features with a label."""
        return self._number("count(label)")

    @property
    def n_scored(self) -> int:
        """Number of features whose label came with a score."""
        return self._number("count(*) filter (len(given_scores) > 0)")

    @property
    def n_holding(self) -> int:
        """Number of labels that hold: accuracy of detection of at least `HOLDS`."""
        return self.scores.query("select count(*) as n from t where accuracy >= ?", HOLDS)["n"][0].as_py()

    @property
    def unanswered(self) -> float:
        """Mean share of judgements that could not be read; 0 without any."""
        return self._number("coalesce(avg(unanswered), 0.0)")

    def _number(self, sql: str) -> int:
        return self.labels.query(f"select {sql} as n from t")["n"][0].as_py()

    @property
    def href(self) -> str:
        """Address of the features that are labelled."""
        return f"/feature/{quote(self.settings.features)}"

    def view(self) -> View:
        yield self._sentence()
        yield Facts(*self._facts())
        yield from self._lines()

    def _sentence(self) -> str:
        """Return the number of labels, their source, and their gain in detection over other features' labels."""
        if isinstance(source := self.settings.source, CarriedLabels):
            nulls = ", ".join(f"{name} {hold / max(n, 1):.0%}" for name, (hold, n) in source.nulls.items())
            return f"{self.n_holding:,} of {self.n_features:,} labels carried from {source.features} hold; {nulls}"
        if self.n_read is None:
            of = f"{self.n_labelled} of {self.n_features} features of {self.settings.features}"
            gain = None if self.means is None else self.means.gain
            better = f"; a label raises the accuracy of detection by {gain.mean.estimate:.2f}" if gain else ""
            return f"{of} labelled by {self.label_source}{better}"
        more = f", chosen of {self.n_read:,} explanations" if self.n_read > self.n_labelled else ""
        scored = f"{self.n_scored:,} with a score" if self.n_scored else "none with a score"
        return f"{self.n_labelled:,} labels of {self.label_source}{more}; {scored}"

    def _facts(self) -> list[tuple[str, str]]:
        """Return the mean score, with its null."""
        if self.means is None:
            return []
        null = f", null {self.means.null.mean.estimate:.2f}" if self.means.null else ""
        return [("detection", f"{self.means.own:.2f}{null}")]

    def _lines(self) -> list[str]:
        """Return the score of the labels, of other features' labels (the null), and the gain; what was not read."""
        if isinstance(self.settings.source, Imported):
            return []
        source = self.settings.source
        lines = []
        if isinstance(source, CarriedLabels):
            lines = [f"of those that hold, {source.n_wide:,} are of more than one word's forms"]
            lines += [f"null, {name}: {hold:,} of {n:,} hold" for name, (hold, n) in source.nulls.items()]
        if (scores := self.means) is not None:
            line = f"detection: {scores.own:.2f}, {scores.own.n} features"
            if scores.null is not None and scores.gain is not None:
                line += f"; with another feature's label {scores.null.mean.estimate:.2f}, gain {scores.gain:+.2f}"
            lines.append(line)
        if self.unanswered:
            lines.append(f"{self.unanswered:.0%} of the judgements could not be read and count as no")
        if self.replies is not None and (cut := self.replies.cut):
            lines.append(f"{cut:,} of {self.replies.requests:,} replies were cut off at --max-tokens; allow more")
        return lines or ["nothing could be scored"]
