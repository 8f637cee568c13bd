"""Proof of one feature: its settings, the text and controls that it is judged with, and the verdict. Torch-free.

`saes.features.measure_proof` measures. A feature is judged by the words that it should raise: those that its page shows
under *Promotes*, through the Jacobian lens, or by direct effect where there is no lens. Every second word is held back
to judge, the others choose the strength of steering. Three measures are tests:

- *steer*: adding its direction to neutral prompts raises its held-back words;
- *ablate*: ablating it on its examples lowers them at and after its peaks;
- *lists*: its direction separates a list of words.

Each measure has two nulls. Random directions of the same norm go through the same steps, each with words and a strength
of its own: any direction raises what it says. Features of about the same density, scaled to that norm, are measured on
the words of this feature: they do not raise them. The p-value is the larger of the two nulls'.

A test holds when its p-value is at most 0.05 after Holm's correction over the tests, and its interval lies above 0
(`lists` has none). A test is undecided where it could not have held: with too few directions in a null, or with one
example only. Further measures have the same nulls but are no tests: how far steering shifts the next token, what
ablation costs, and where a feature fires (any direction fires selectively on text that was selected because it fires
there).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float64

from interp.artifacts import Artefact, DocumentField, Dots, Finding, read_manifest, read_table
from interp.errors import ConfigError, UsageError
from interp.nulls import ALPHA, DRAWS, NO_EFFECT, NullComparison, NullKind, draws_of, holm, p_from_null
from interp.results import Record, Result, cell
from interp.seeds import derive_seed
from interp.statistics import Interval
from interp.workspace import Workspace
from saes.features.meaning import lens_for
from saes.features.schema import Features, described_another

RANDOM: NullKind = "random directions"
ALIKE: NullKind = "features of like density"
"""The two nulls."""
TESTS = ("steer", "ablate", "lists")
SENTENCES = {
    "steer": ("Steering along it raises its held-back words ({about}) by {value:.2f} nats{ends}",
              " raise theirs", " raise these"),
    "steer shift": ("The next token then shifts by {value:.2f} nats of KL divergence{ends}", "", ""),
    "ablate": ("Ablating it on its examples lowers its held-back words by {value:.2f} nats{ends}",
               " lower theirs", " lower these"),
    "ablate loss": ("The loss at and after its peaks then rises by {value:.2f} nats per token{ends}", "", ""),
    "lists": ("Its direction separates {about} by {value:.1f} standard deviations of random directions", "", ""),
}  # fmt: skip
"""Sentences of a verdict by measure, in its order, and what the directions of both nulls do."""


@dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """Settings of the standard proof of a feature."""

    draws: int = DRAWS["thorough"]
    """Directions of each null. The smallest p-value is 1 / (draws + 1); below 59, no test passes Holm's correction."""
    examples: int = 8
    """Examples of the feature on which it is ablated: the strongest, of different documents where possible."""
    others: int = 24
    """Passages of other text, examples of features drawn at random."""
    before: int = 10
    """Tokens of an example before its peak."""
    after: int = 3
    """Tokens after the peak whose loss is measured."""
    strength: float | None = None
    """Strength of steering, in units of the feature's largest activation. Default: 0.5, 1 or 2, whichever raises one
    half of its words most."""
    new_tokens: int = 12
    """Tokens of the continuations shown."""

    def __post_init__(self) -> None:
        least = {"draws": 1, "examples": 1, "others": 1, "before": 0, "after": 1, "new_tokens": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ConfigError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        if self.strength is not None and not (math.isfinite(self.strength) and self.strength > 0):
            raise ConfigError(f"strength must be a number above 0, got {self.strength}; leave it out for the default")


@dataclass(frozen=True, kw_only=True)
class ProofSettings(ProofConfig):
    """Settings that determine the proof of a feature."""

    features: str
    """Name of the features artefact."""
    feature: int
    model: str


@dataclass(frozen=True)
class Passage:
    """Some tokens of recorded text, in which a feature peaks."""

    token_ids: tuple[int, ...]
    peak: int
    document: int
    activation: float


@dataclass(frozen=True, kw_only=True)
class FeatureCase:
    """One feature with its text and its controls, read from the feature tables."""

    features: str
    """Name of the features artefact."""
    feature: int
    density: float
    max_activation: float
    label: str
    examples: tuple[Passage, ...]
    """All stored examples, strongest group first."""
    other: tuple[Passage, ...]
    """Examples of features drawn at random, from documents without an example of this one where possible."""
    alike: tuple[int, ...]
    """Live features with the nearest density."""

    @property
    def strong(self) -> tuple[Passage, ...]:
        """Examples of at least half of the largest activation, and four at least: weak ones peak on other tokens."""
        most = max(example.activation for example in self.examples)
        strong = tuple(example for example in self.examples if example.activation >= most / 2)
        return strong if len(strong) >= 4 else self.examples[:4]

    def halves(self) -> tuple[tuple[Passage, ...], tuple[Passage, ...]]:
        """Split the strong examples into two halves without a document in common, alternating by strength."""
        strong = self.strong
        first = set(list(dict.fromkeys(example.document for example in strong))[::2])
        first_half = tuple(example for example in strong if example.document in first)
        two = tuple(example for example in strong if example.document not in first)
        return (first_half, two) if two else (strong[::2], strong[1::2])

    def strongest(self, n: int) -> list[Passage]:
        """Return the `n` strongest examples that a token follows, one of each document first."""
        followed = [example for example in self.examples if example.peak + 1 < len(example.token_ids)]
        seen: set[int] = set()
        ranked = sorted(
            range(len(followed)),
            key=lambda at: (followed[at].document in seen or seen.add(followed[at].document) is not None, at),
        )
        return [followed[at] for at in ranked[:n]]


def read_case(folder: Path, feature: int, config: ProofConfig, *, seed: int = 0) -> FeatureCase:
    """Read one feature of a features artefact, other text, and features of like density.

    Raises `UsageError` for a feature that does not exist, or that never fires.
    """
    manifest, path = read_manifest(folder), folder / "features.parquet"
    table = read_table(path, ["feature", "density", "n_fired", "max_activation", "decoder_norm", "label"])
    if not 0 <= feature < len(table):
        raise UsageError(f"feature {feature} is not in {folder.name!r}: its features are 0 to {len(table) - 1}")
    density, norm = table["density"].to_numpy(), table["decoder_norm"].to_numpy()
    examples = _passages(folder, [feature], config)
    if density[feature] == 0 or not examples:
        raise UsageError(f"feature {feature} of {manifest.name!r} never fires, so there is no text to prove it with")
    live = np.flatnonzero((density > 0) & (norm > 0))
    live = live[live != feature]
    distance = np.abs(np.log(density[live]) - np.log(density[feature]))
    alike = live[np.argsort(distance, kind="stable")[: config.draws]]
    rng = np.random.default_rng(derive_seed(seed, "other text", feature))
    drawn = rng.permutation(live)[: 2 * config.others].tolist()
    documents = {example.document for example in examples}
    passages = [passage for passage in _passages(folder, drawn, config, only_best=True) if len(passage.token_ids) > 2]
    passages = sorted(passages, key=lambda passage: passage.document in documents)[: config.others]
    return FeatureCase(
        features=manifest.name,
        feature=feature,
        density=float(density[feature]),
        max_activation=float(table["max_activation"][feature].as_py()),
        label=table["label"][feature].as_py() or "",
        examples=tuple(examples),
        other=tuple(passages),
        alike=tuple(alike.tolist()),
    )


def _passages(folder: Path, features: Sequence[int], config: ProofConfig, *, only_best: bool = False) -> list[Passage]:
    """Return the examples of some features, cut to the tokens around the peak that are needed."""
    columns = ["group_order", "rank", "activation", "document", "token_ids", "peak"]
    wanted: list[Any] = [("feature", "in", list(features))]
    wanted += [("group_order", "==", 0), ("rank", "==", 0)] * only_best
    rows = read_table(folder / "examples.parquet", columns, filters=wanted).to_pylist()
    passages = []
    for row in sorted(rows, key=lambda row: (row["group_order"], row["rank"])):
        start = max(0, row["peak"] - config.before)
        ids = tuple(row["token_ids"][start : row["peak"] + config.after + 1])
        passages.append(Passage(ids, row["peak"] - start, row["document"], row["activation"]))
    return passages


@dataclass(frozen=True, kw_only=True)
class ProofMeasure(Result):
    """One measure of a feature, with the same measure for the directions of both nulls."""

    name: str
    """`activation`, `steer`, `steer shift`, `ablate`, `ablate loss`, `ablate loss at peak`, `ablate loss, other text`
    or `lists`."""
    value: float
    low: float | None
    high: float | None
    """95 % interval; None where there is no sample to vary"""
    unit: str
    n: int
    """examples, prompts, passages or lists"""
    random: Float64[np.ndarray, " draws"]
    alike: Float64[np.ndarray, " alike_draws"]
    """the same for each direction of a null"""
    about: str = ""
    """details, such as the held-back words"""

    @property
    def tested(self) -> bool:
        """True for the measures that decide the verdict."""
        return self.name in TESTS

    @property
    def p(self) -> float:
        """The larger of the two nulls' one-sided p-values; 1 where a null is missing."""
        return max(p_from_null(self.value, null) for null in (self.random, self.alike))

    @property
    def above_zero(self) -> bool:
        """True where the interval lies above 0, and for `lists`, which has no interval."""
        return self.name == "lists" or (self.low is not None and self.low > 0)

    @staticmethod
    def null_high(null: np.ndarray) -> float:
        """Return the value that 95 % of a null stay below."""
        return float(np.quantile(null, 0.95)) if len(null) else 0.0

    @property
    def nulls(self) -> NullComparison:
        """The value beside both nulls."""
        return NullComparison(self.value, {RANDOM: self.random.tolist(), ALIKE: self.alike.tolist()})

    def to_records(self) -> list[Record]:
        nulls = {}
        for name, null in (("random", self.random), ("alike", self.alike)):
            nulls |= {
                f"{name}_mean": float(null.mean()) if len(null) else None,
                f"{name}_high": self.null_high(null) if len(null) else None,
                f"p_{name}": p_from_null(self.value, null) if len(null) else None,
            }
        columns = {"measure": self.name, "value": self.value, "low": self.low, "high": self.high, "unit": self.unit}
        return [columns | {"n": self.n, **nulls, "tested": self.tested}]


def measure_of(
    name: str, interval: Interval[Any] | float, unit: str, n: int, nulls: Sequence[np.ndarray], details: str = ""
) -> ProofMeasure:
    """Return a measure from its interval and the values of the null directions, random ones first."""
    value, low, high = interval if isinstance(interval, Interval) else (interval, None, None)
    ends = [None if end is None or not math.isfinite(end) else float(end) for end in (low, high)]
    random, alike = (np.asarray(null, dtype=np.float64) for null in nulls)
    return ProofMeasure(name=name, value=float(value), low=ends[0], high=ends[1], unit=unit, n=n, random=random,
                        alike=alike, about=details)  # fmt: skip


@dataclass(frozen=True)
class SteeredContinuations:
    """Most likely continuations of one prompt, unchanged and steered along three directions of one length."""

    prompt: str
    without: str
    feature: str
    random: str
    alike: str


@dataclass(frozen=True)
class AblatedText:
    """One example on which the feature was ablated: changes of loss, in nats per token."""

    document: int
    tokens: list[str]
    peak: int
    change: float
    """at and after the peak"""
    change_at_peak: float


@dataclass(frozen=True, kw_only=True)
class ProofPart:
    """One part of a proof: its measures, what they show, and the reason where it could not be made."""

    measures: tuple[ProofMeasure, ...] = ()
    continuations: tuple[SteeredContinuations, ...] = ()
    examples: tuple[AblatedText, ...] = ()
    strength: float | None = None
    """activation that one half of the words chose"""
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Proof(Artefact, kind="proof", made_by="prove"):
    """All measures of one feature, and the verdict."""

    settings: ProofSettings
    label: str
    hook_point: str
    """hook point that the direction is written to"""
    strength: float
    lens: str
    """key (where it is not stored, source) of the Jacobian lens that reads the words; empty for the direct effect"""
    parts: Annotated[dict[str, ProofPart], DocumentField("parts.json")]
    """By measure, in the order in which they were made."""
    alike: tuple[int, ...]
    """features of the second null"""

    @property
    def measures(self) -> list[ProofMeasure]:
        """Measures of all parts."""
        return [measure for part in self.parts.values() for measure in part.measures]

    @property
    def missing(self) -> dict[str, str]:
        """Measure -> reason why it could not be made."""
        return {name: part.missing for name, part in self.parts.items() if part.missing}

    @property
    def continuations(self) -> list[SteeredContinuations]:
        """Continuations of some prompts, unchanged and steered."""
        return [continuation for part in self.parts.values() for continuation in part.continuations]

    @property
    def examples(self) -> list[AblatedText]:
        """Examples on which the feature was ablated."""
        return [example for part in self.parts.values() for example in part.examples]

    @property
    def href(self) -> str:
        """Address of the feature's page, which shows the proof."""
        return f"/feature/{quote(self.settings.features)}/{self.settings.feature}"

    def measure(self, name: str) -> ProofMeasure | None:
        """Return the measure of that name, or None where it is missing."""
        return next((measure for measure in self.measures if measure.name == name), None)

    def p_holm(self) -> dict[str, float]:
        """Return `test -> p-value` after Holm's correction over the tests that were made."""
        tests = [measure for measure in self.measures if measure.tested]
        if not tests:
            return {}
        return dict(zip((t.name for t in tests), holm(np.array([t.p for t in tests])).tolist(), strict=True))

    def holds(self) -> list[str]:
        """Return the tests that hold."""
        p = self.p_holm()
        return [measure.name for measure in self.measures if p.get(measure.name, 1.0) <= ALPHA and measure.above_zero]

    def undecided(self) -> dict[str, str]:
        """Return `test -> reason` for the tests that could not have held, whatever their value."""
        tests = [measure for measure in self.measures if measure.tested]
        needed = math.ceil(len(tests) / ALPHA - 1e-9) - 1  # directions for which p can be ALPHA after Holm's correction
        reasons = {}
        for test in tests:
            counts: dict[NullKind, int] = {RANDOM: len(test.random), ALIKE: len(test.alike)}
            few = [draws_of(n, kind) for kind, n in counts.items() if n < needed]
            if few:
                only = "only " * (not few[0].startswith("no "))
                reasons[test.name] = f"{only}{' and '.join(few)}, {needed} are needed"
            elif not test.above_zero and test.low is None:
                reasons[test.name] = "one example only" if test.n == 1 else "it has no interval"
        return reasons

    def outcome(self, measure: ProofMeasure) -> str:
        """Return the outcome of a test: it holds, is undecided, fails for a reason, or finds nothing at all."""
        if measure.name in self.holds():
            return "it holds"
        if reason := self.undecided().get(measure.name):
            return f"undecided: {reason}"
        within = measure.nulls.within()
        if len(within) == 2:
            return NO_EFFECT
        fails = [f"not beyond {kind}" for kind in within]
        fails += ["its interval includes 0"] * (not measure.above_zero)
        return f"it does not hold: {' and '.join(fails) or 'not after the correction'}"

    def count(self) -> str:
        """Return in a few words how many tests hold."""
        tests = [measure for measure in self.measures if measure.tested]
        if not tests:
            return "Nothing could be tested"
        holding, outcomes, undecided = self.holds(), {self.outcome(test) for test in tests}, self.undecided()
        if holding:
            return f"{len(holding)} of {len(tests)} tests hold{'s' * (len(holding) == 1)}"
        if len(undecided) == len(tests):
            return f"Undecided: {next(iter(undecided.values()))}"
        nothing = outcomes == {NO_EFFECT}
        return f"{NO_EFFECT.capitalize()} in {len(tests)} tests" if nothing else f"None of {len(tests)} tests holds"

    def lines(self) -> list[str]:
        """Return the number of tests that hold with the first test, then a sentence on each other measure."""
        if not any(measure.tested for measure in self.measures):
            return [f"{self.count()}: " + "; ".join(f"{k}: {why}" for k, why in self.missing.items()) + "."]
        first, *others = (self.sentence(measure) for measure in self.measures if measure.name in SENTENCES)
        words = f"Its words are those that it raises most through the Jacobian lens {self.lens}."
        if not self.lens:
            words = (
                "Its words are those of its direct effect, as there was no Jacobian lens of these weights; "
                f"`workbench lens {self.settings.model} --kind jacobian` fits one."
            )
        return [f"{self.count()} (Holm's correction at {ALPHA:g}). {first}", *others, words]

    def verdict(self) -> str:
        """Return all lines as one text."""
        return " ".join(self.lines())

    def sentence(self, measure: ProofMeasure) -> str:
        """Return one measure as a sentence: its interval, the draws that it exceeds, and of a test its outcome."""
        ends = "" if measure.low is None else f" ({measure.low:.2f} to {measure.high:.2f})"
        text, theirs, these = SENTENCES[measure.name]
        text = text.format(value=measure.value, ends=ends, about=measure.about)
        nulls = measure.nulls.exceeds(theirs, these)
        ending = f" (p {self.p_holm()[measure.name]:.2g}): {self.outcome(measure)}" if measure.tested else ""
        return f"{text}, {nulls}{ending}."

    def headline(self) -> str:
        """Return the feature, its label and the verdict."""
        label = self.label or "no label"
        return f"feature {self.settings.feature} of {self.settings.features} ({label}): {self.lines()[0]}"

    def details(self) -> list[str]:
        """Return one sentence on each further measure."""
        return self.lines()[1:]

    def facts(self) -> list[tuple[str, str]]:
        """Return the p-value of each test after Holm's correction."""
        return [(f"p, {name}", cell(p)) for name, p in self.p_holm().items()]

    def findings(self) -> list[Finding]:
        """Return the test that holds and lies furthest above its nulls."""
        holding = self.holds()
        tests = [measure for measure in self.measures if measure.name in holding]
        if not tests:
            return []
        nulls = [max(test.null_high(test.random), test.null_high(test.alike)) for test in tests]
        best, null = max(zip(tests, nulls, strict=True), key=lambda pair: 1 - max(pair[1], 0) / pair[0].value)
        feature, features = self.settings.feature, self.settings.features
        return [
            Finding(
                kind="proof",
                title=f"What feature {feature} does",
                sentence=f"{self.label or 'A feature without a label'}, in {features}: {self.sentence(best)}",
                value=best.value,
                null=null,
                about=f"{best.unit}; null: 95 % of random directions and features",
                href=self.href,
                proof="See the proof",
                feature=(features, feature),
                dots=_beside(best),
            )
        ]

    def to_records(self) -> list[Record]:
        p = self.p_holm()
        return [
            record | {"p_holm": p.get(measure.name), "holds": measure.name in self.holds() if measure.tested else None}
            for measure in self.measures
            for record in measure.to_records()
        ]


def _beside(measure: ProofMeasure) -> Dots:
    """Return the measure of a feature above the same for every direction of its nulls, a line each."""
    lines = ((ALIKE, measure.alike), (RANDOM, measure.random))
    x, y, texts = [measure.value], [float(len(lines))], ["this feature"]
    for line, (name, null) in enumerate(lines):
        x += null.tolist()
        y += [float(line)] * len(null)
        texts += [name if at == null.argmax() else "" for at in range(len(null))]
    return Dots(x=tuple(x), y=tuple(y), texts=tuple(texts), across=measure.unit, null=len(x) - 1)


@dataclass(frozen=True)
class TextFirings:
    """Activations of a feature on a text that a visitor gave."""

    tokens: list[str]
    activations: list[float]
    alike: list[int]
    """tokens on which each feature of like density fires"""


@dataclass(frozen=True)
class SteeredRow:
    """One way to continue a prompt."""

    name: str
    """`unchanged`, `feature`, `random direction` or `feature NUMBER`"""
    text: str
    kl: float
    """nats, `KL(unchanged || this)` of the next token"""
    moved: list[tuple[str, float, float]]
    """tokens whose probability changes most, with the probability before and after"""


@dataclass(frozen=True)
class AblatedExample:
    """Changes of loss on one example, in nats per token at and after the peak."""

    tokens: list[str]
    activations: list[float]
    peak: int
    document: int | None
    change: float
    random: list[float]
    alike: list[float]
    """for the directions of both nulls, in the same amounts"""


@dataclass(frozen=True)
class ListsApart:
    """Lists of words along the direction of a feature; the null is random directions."""

    sentence: str
    hook_point: str
    alpha: float
    """level that each p-value is compared with: 0.05 over the number of lists"""
    n_random: int
    set_apart: list[str]
    lists: list[Record]
    """`name, separation, auc, p` of each list, and the share of the direction in its plane, with that of the null"""


def newest_proof(workspace: Workspace, features: str, feature: int) -> Proof | None:
    """Return the newest proof of a feature, or None where there is none."""
    key = (features, feature)
    return next((p for p in workspace.values(Proof) if (p.settings.features, p.settings.feature) == key), None)


def why_outdated(workspace: Workspace, proof: Proof) -> str:
    """Return a warning where a stored proof no longer matches its features, SAE or lens; else an empty text."""
    features = workspace.open(Features, proof.settings.features)
    if proof.about.parents.get(features.key) != features.about.content_hash:
        return "These features were described again after this proof; run it again."
    lens = lens_for(workspace, features)
    if lens is not None and proof.about.parents.get(lens.key) != lens.about.content_hash:
        return f"The page reads the words of this feature through {lens.key}, this proof did not; run it again."
    described = described_another(workspace, features)
    return described and f"{described[0].upper()}{described[1:]}, then run the proof again."
