"""Proof of one feature: its claims, each beside its nulls, and the verdict. Torch-free.

`saes.features.measure_proof` measures. The words are those that the feature reads (`saes.features.case`): the tokens on
which it peaks in one half of its examples. Four claims about them are tests:

- *fires*: it is active on these words in documents that did not choose them (AUROC);
- *steer*: adding its direction to neutral prompts raises them;
- *ablate*: ablating it where it is active lowers them in the rest of passages that did not choose them;
- *joined*: it says what it reads: through the Jacobian lens its direction raises them.

Where the words lie within one list of words, a fifth is that its direction separates this list (*lists*). *fires* and
*joined* are what Arad et al. 2025 call a feature's input and output side.

Each measure has two nulls, measured on the same words: random directions of the same norm, and features of about the
same density, scaled to that norm. *joined* has a third, untrained latents: the same random directions, each on as many
words of its own, those that it reads most in examples of the artefact. For most of a residual is its token, and a
direction that reads a token raises it, trained or not. The p-value is the largest.

A test holds when p is at most 0.05 after the correction of Holm 1979 over the tests made, and the interval lies above
chance (`joined` and `lists` have none). A test is undecided where it could not have held: with too few directions in a
null, or with one example only.

Further measures are no tests: how far steering shifts the next token, what ablation costs, what share of the fall by
ablation directions near the feature's have (how specific it is to this direction), and how much the feature raises the
words that its own direction says most (any direction raises its own words).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float64

from interp.artifacts import Artefact, DocumentField
from interp.claims import StatedNumber
from interp.nulls import ALPHA, NO_EFFECT, ROUNDING, NullComparison, NullKind, can_hold, draws_of, holm, p_from_null
from interp.results import Record, Result, cell
from interp.statistics import Interval
from interp.view import Dots, Facts, Finding, View
from interp.workspace import Workspace
from saes.features.case import ProofConfig, ProofWords
from saes.features.meaning import lens_for
from saes.features.schema import Features, described_another

RANDOM: NullKind = "random directions"
ALIKE: NullKind = "features of like density"
"""The two nulls of every measure."""
UNTRAINED: NullKind = "untrained latents"
"""The third null of *joined*."""
EFFECTS = ("steer", "ablate")
"""Tests that change what the model computes."""
TESTS = ("fires", *EFFECTS, "joined", "lists")
WITHOUT_INTERVAL = ("joined", "lists")
"""Tests of weights or of one list: no sample varies."""
OWN_WORDS = "own words"
SENTENCES = {
    "fires": "It fires on them in held-out documents with an AUROC of {value:.2f}{ends}",
    "steer": "Steering along it raises them by {value:.2f} nats{ends}",
    "steer shift": "The next token then shifts by {value:.2f} nats of KL divergence{ends}",
    "ablate": "Ablating it where it is active lowers them in the rest of held-out passages by {value:.2f} nats{ends}",
    "ablate loss": "The loss there then rises by {value:.2f} nats per token{ends}",
    "joined": "Its direction raises their logits by {value:.1f} standard deviations over the vocabulary",
    "lists": "Its direction separates the list {about} by {value:.1f} standard deviations of random directions",
}
"""Sentences by measure."""
CLAIMS = {
    "steer": "Steering makes the model say {words}",
    "ablate": "Without it the model says {words} less",
    "joined": "Its direction promotes {words}",
    "fires": "It fires on {words}",
    "lists": "Its direction separates the list {words}",
}
"""Beginning of a verdict by the first test that holds, in this order."""
FAILURES = {
    "steer": "steering changes {words} by {size}",
    "ablate": "ablating it lowers {words} by {size}",
    "joined": "its direction changes {words} by {size}",
    "fires": "it fires on {words} with {size}",
    "lists": "its direction separates {words} by {size}",
}
"""The same where no test holds."""
SIZES = {"fires": "AUROC {:.2f}", "joined": "{:.1f} SD", "lists": "{:.1f} SD"}
"""Size of an effect in a verdict; in nats by default."""
NAMED = 3
"""Words that a verdict names."""


@dataclass(frozen=True, kw_only=True)
class ProofSettings(ProofConfig):
    """Settings that determine the proof of a feature."""

    features: str
    """Name of the features artefact."""
    feature: int
    model: str


@dataclass(frozen=True, kw_only=True)
class ProofMeasure(Result):
    """One measure of a feature, with the same measure for the directions of its nulls."""

    name: str
    """A key of `SENTENCES`, or `own words`."""
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
    untrained: Float64[np.ndarray, " draws"] = field(default_factory=lambda: np.empty(0))
    """*joined*: the same for random directions on words of their own; empty where what reads is wider or narrower"""
    about: str = ""
    """details, such as the name of a list"""

    @property
    def tested(self) -> bool:
        """True for the measures that decide the verdict."""
        return self.name in TESTS

    @property
    def p(self) -> float:
        """The largest of the nulls' one-sided p-values; 1 where one of the two of every measure is missing."""
        return max(p_from_null(self.value, null) for null in self.by_null.values())

    @property
    def by_null(self) -> dict[NullKind, np.ndarray]:
        """Null -> the same measure for each of its directions."""
        third: dict[NullKind, np.ndarray] = {UNTRAINED: self.untrained} if len(self.untrained) else {}
        return {RANDOM: self.random, ALIKE: self.alike, **third}

    @property
    def above_chance(self) -> bool:
        """True where the interval lies above 0 (AUROC: 0.5), and for tests that have no interval."""
        chance = 0.5 if self.name == "fires" else 0.0
        return self.name in WITHOUT_INTERVAL or (self.low is not None and self.low > chance)

    @property
    def size(self) -> str:
        """The value with its unit, as short as a verdict has it."""
        decimals = 1 if abs(self.value) >= 0.095 else 2
        return SIZES.get(self.name, f"{{:.{decimals}f}} nats").format(self.value)

    @staticmethod
    def null_high(null: np.ndarray) -> float:
        """Return the value that 95 % of a null stay below."""
        return float(np.quantile(null, 0.95)) if len(null) else 0.0

    @property
    def nulls(self) -> NullComparison:
        """The value beside its nulls."""
        return NullComparison(self.value, {kind: null.tolist() for kind, null in self.by_null.items()})

    def beside(self) -> str:
        """Return the null that it exceeds least in a few words: `99 of 99 features like it`."""
        below = {kind: null < self.value - ROUNDING for kind, null in self.by_null.items() if len(null)}
        least = min(below, key=lambda kind: (below[kind].mean(), kind != ALIKE), default=ALIKE)
        n, of = (below[least].sum(), len(below[least])) if below else (0, 0)
        return f"{n} of {of} {'features like it' if least == ALIKE else least}"

    def to_records(self) -> list[Record]:
        nulls = {}
        for name, null in (("random", self.random), ("alike", self.alike), ("untrained", self.untrained)):
            nulls |= {
                f"{name}_mean": float(null.mean()) if len(null) else None,
                f"{name}_high": self.null_high(null) if len(null) else None,
                f"p_{name}": p_from_null(self.value, null) if len(null) else None,
            }
        columns = {"measure": self.name, "value": self.value, "low": self.low, "high": self.high, "unit": self.unit}
        return [columns | {"n": self.n, **nulls, "tested": self.tested}]


def measure_of(
    name: str,
    interval: Interval[Any] | float,
    unit: str,
    n: int,
    nulls: Sequence[np.ndarray],
    details: str = "",
    *,
    untrained: np.ndarray | None = None,
) -> ProofMeasure:
    """Return a measure from its interval and the values of the null directions, random ones first."""
    value, low, high = interval if isinstance(interval, Interval) else (interval, None, None)
    ends = [None if end is None or not math.isfinite(end) else float(end) for end in (low, high)]
    random, alike = (np.asarray(null, dtype=np.float64) for null in nulls)
    third = np.empty(0) if untrained is None else untrained
    return ProofMeasure(name=name, value=float(value), low=ends[0], high=ends[1], unit=unit, n=n, random=random,
                        alike=alike, untrained=third, about=details)  # fmt: skip


@dataclass(frozen=True)
class SteeredContinuations:
    """Most likely continuations of one prompt, unchanged and steered along three directions of one length."""

    prompt: str
    without: str
    feature: str
    random: str
    alike: str


@dataclass(frozen=True, kw_only=True)
class NearDirections:
    """Share of a feature's effect that directions near its own have."""

    cosine: float
    """To the feature's direction; the rest is a random direction orthogonal to it."""
    part: float
    """The same for the part along the feature's direction alone, without the rest: what the cosine alone would give."""
    shares: tuple[float, ...]
    """One for each direction; 1 is the effect of the feature itself, in the same amounts."""

    @property
    def text(self) -> str:
        """The mean share and its range, in words."""
        ends = f"{min(self.shares):.0%} to {max(self.shares):.0%}, {len(self.shares)} draws"
        along = f"their part along it alone {self.part:.0%}"
        return f"at cosine {self.cosine:g} by {np.mean(self.shares):.0%} as much ({ends}; {along})"


@dataclass(frozen=True, kw_only=True)
class ProofPart:
    """One part of a proof: its measures, what they show, and the reason where it could not be made."""

    measures: tuple[ProofMeasure, ...] = ()
    continuations: tuple[SteeredContinuations, ...] = ()
    strength: float | None = None
    """activation that the first prompts chose"""
    missing: str = ""
    near: tuple[NearDirections, ...] = ()
    """*ablate*: directions near the feature's; empty where it has no effect that they could have a share of"""


@dataclass(frozen=True, kw_only=True)
class Proof(Artefact, kind="proof", made_by="prove"):
    """All measures of one feature, and the verdict."""

    settings: ProofSettings
    label: str
    words: ProofWords
    """Words that every test is about."""
    hook_point: str
    """hook point that the direction is written to"""
    strength: float
    lens: str
    """key (where it is not stored, source) of the Jacobian lens that it says words through; empty: direct effect"""
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
        return [measure.name for measure in self.measures if p.get(measure.name, 1.0) <= ALPHA and measure.above_chance]

    def undecided(self) -> dict[str, str]:
        """Return `test -> reason` for the tests that could not have held, and that no further draw would decide."""
        tests = [measure for measure in self.measures if measure.tested]
        needed = math.ceil(len(tests) / ALPHA - 1e-9) - 1  # directions for which p can be ALPHA after Holm's correction
        reasons = {}
        for test in tests:
            counts: dict[NullKind, int] = {RANDOM: len(test.random), ALIKE: len(test.alike)}
            few = [draws_of(n, kind) for kind, n in counts.items() if n < needed]
            most = max(needed, self.settings.draws)
            if few and all(can_hold(test.value, null, most) for null in test.by_null.values()):
                only = "only " * (not few[0].startswith("no "))
                reasons[test.name] = f"{only}{' and '.join(few)}, {needed} are needed"
            elif not test.above_chance and test.low is None:
                reasons[test.name] = "one example only" if test.n == 1 else "it has no interval"
        return reasons

    def outcome(self, measure: ProofMeasure) -> str:
        """Return the outcome of a test: it holds, is undecided, fails for a reason, or finds nothing at all."""
        if measure.name in self.holds():
            return "it holds"
        if reason := self.undecided().get(measure.name):
            return f"undecided: {reason}"
        within = measure.nulls.within()
        if len(within) == len(measure.nulls.draws) > 1:
            return NO_EFFECT
        fails = [f"not beyond {kind}" for kind in within]
        fails += ["its interval includes chance"] * (not measure.above_chance)
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

    def verdict(self) -> str:
        """Return the verdict in at most 25 words, with the null that is exceeded least."""
        tests = {test.name: test for test in self.measures if test.tested}
        named = ", ".join("\u201c" + word.replace(" ", "\u2423") + "\u201d" for word in self.words.texts[:NAMED])
        words = "its lens words" if self.words.any_direction_may_pass else named
        holding, undecided = self.holds(), self.undecided()
        if not tests or (not holding and len(undecided) == len(tests)):
            return f"{self.count()}."
        if not holding:
            shown = tests[next(name for name in FAILURES if name in tests)]
            failure = FAILURES[shown.name].format(words=shown.about or words, size=shown.size)
            nothing = all(self.outcome(test) == NO_EFFECT for test in tests.values())
            start = f"{NO_EFFECT.capitalize()}" if nothing else "Nothing is proved"
            return f"{start}: {failure}, more than {shown.beside()}."
        best = tests[next(name for name in CLAIMS if name in holding)]
        claim = CLAIMS[best.name].format(words=best.about or words)
        if best.name == "joined" and "fires" in holding:
            claim = f"It fires on {words} and its direction promotes them"
        return f"{claim} ({best.size}, more than {best.beside()}){self._effects(best.name)}."

    def _effects(self, claim: str) -> str:
        """Return the end of a verdict: the tests of effects that its beginning does not speak of."""
        if claim == "steer" and self.measure("ablate") is None:
            return ""
        if claim == "steer":
            return "; ablating it lowers them" if "ablate" in self.holds() else "; ablating it has no clear effect"
        if claim == "ablate":
            return "; steering has no clear effect"
        return "; no effect on what the model says is proved" if claim == "fires" else "; no effect is proved"

    def lines(self) -> list[str]:
        """Return the verdict, and how it was tested: the words, a sentence on each measure, and the lens."""
        others = [self.sentence(measure) for measure in self.measures if measure.name in (*SENTENCES, OWN_WORDS)]
        found = (self.verdict(), self._about_words(), *others, *self._about_near())
        return [*found, *self._not_measured(), self._about_lens()]

    def _about_near(self) -> list[str]:
        """Return the share of the fall by ablation that directions near the feature's have, beside random ones."""
        measure, near = self.measure("ablate"), self.parts["ablate"].near if "ablate" in self.parts else ()
        if measure is None or not near:
            return []
        shares, random = ", ".join(each.text for each in near), measure.random.mean() / measure.value
        return [f"Ablated instead of it, directions near it lower them {shares}; random directions by {random:.0%}."]

    def _about_words(self) -> str:
        words = ", ".join(self.words.texts)
        if self.words.any_direction_may_pass:
            start = "It peaks on nothing that can be named. Tested: words that its direction says"
            return f"{start} ({words}), which any direction may raise."
        if self.words.chosen_by == "claim":
            return f"Tested: the words of the claim ({words})."
        return f"Tested: the words on which it peaks in one half of its examples, in every form ({words})."

    def _not_measured(self) -> list[str]:
        return [f"Not measured: {name} ({reason})." for name, reason in self.missing.items()]

    def _about_lens(self) -> str:
        if self.lens:
            return f"Words are said through the Jacobian lens {self.lens}."
        return (
            "Words are said by direct effect, as there was no Jacobian lens of these weights; "
            f"`workbench lens {self.settings.model} --kind jacobian` fits one."
        )

    def stated(self) -> dict[str, StatedNumber]:
        """Return what a claim may say: each test, beside the largest value of its nulls."""
        words = ", ".join(repr(word) for word in self.words.texts[:NAMED])
        return {test.name: self._stated(test, words) for test in self.measures if test.tested}

    def _stated(self, test: ProofMeasure, words: str) -> StatedNumber:
        claim = CLAIMS[test.name].format(words=test.about or words)
        undecided = test.name in self.undecided()
        return StatedNumber(
            sentence=f"Feature {self.settings.feature} of {self.settings.features}: {claim[0].lower()}{claim[1:]}",
            subject="feature",
            formula=SENTENCES[test.name].partition(" {")[0].removesuffix(" by").removesuffix(" of"),
            unit=test.unit,
            value=test.value,
            low=test.low,
            high=test.high,
            null=max((float(null.max()) for null in test.by_null.values() if len(null)), default=math.nan),
            nulls=tuple(draws_of(len(null), kind) for kind, null in test.by_null.items()),
            outcome="undecided" if undecided else "supported" if test.name in self.holds() else "not supported",
        )

    def sentence(self, measure: ProofMeasure) -> str:
        """Return one measure as a sentence: its interval, the draws that it exceeds, and of a test its outcome."""
        if measure.name == OWN_WORDS:
            return _own_words(measure)
        ends = "" if measure.low is None else f" ({measure.low:.2f} to {measure.high:.2f})"
        text = SENTENCES[measure.name].format(value=measure.value, ends=ends, about=measure.about)
        ending = f" (p {self.p_holm()[measure.name]:.2g}): {self.outcome(measure)}" if measure.tested else ""
        return f"{text}, {measure.nulls.exceeds()}{ending}."

    def view(self) -> View:
        claim = re.split(r" \(|, more than|[.]$", self.verdict())[0]
        yield f"Feature {self.settings.feature}: {claim[0].lower()}{claim[1:]}"
        yield Facts(*[(f"p, {name}", cell(p)) for name, p in self.p_holm().items()])
        yield from [f"label: {self.label or 'none'}", *self.lines()]
        holding = self.holds()
        tests = [measure for measure in self.measures if measure.name in EFFECTS and measure.name in holding]
        if not tests:
            return
        nulls = [max(test.null_high(test.random), test.null_high(test.alike)) for test in tests]
        best, null = max(zip(tests, nulls, strict=True), key=lambda pair: 1 - max(pair[1], 0) / pair[0].value)
        feature, features = self.settings.feature, self.settings.features
        yield Finding(
            kind="proof",
            title=f"What feature {feature} does",
            sentence=f"{self.label or 'A feature without a label'}, in {features}: {self.verdict()}",
            value=best.value,
            null=null,
            about=f"{best.unit}; null: 95 % of random directions and features",
            proof="See the proof",
            feature=(features, feature),
            dots=_dots(best),
        )

    def to_records(self) -> list[Record]:
        p = self.p_holm()
        rows = [
            record | {"p_holm": p.get(measure.name), "holds": measure.name in self.holds() if measure.tested else None}
            for measure in self.measures
            for record in measure.to_records()
        ]
        for each in (each for part in self.parts.values() for each in part.near):
            name, unit = f"ablate, at cosine {each.cosine:g}", "share of ablate (range of draws)"
            value, low, high = float(np.mean(each.shares)), min(each.shares), max(each.shares)
            row = {"measure": name, "value": value, "low": low, "high": high, "unit": unit, "n": len(each.shares)}
            rows.append(dict.fromkeys(rows[0]) | row | {"tested": False})
        return rows


def _own_words(measure: ProofMeasure) -> str:
    """Return the remark on the words that a direction says most: no test, as every direction raises its own."""
    mean, high = float(measure.random.mean()), measure.null_high(measure.random)
    remark = "Any direction is said about" if measure.value <= high else "Few directions are said"
    return (
        f"{remark} as strongly: its own lens words rise by {measure.value:.2f} nats, those of random "
        f"directions by {mean:.2f} (95 % by at most {high:.2f})."
    )


def _dots(measure: ProofMeasure) -> Dots:
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
