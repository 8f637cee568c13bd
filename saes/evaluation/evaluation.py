"""Evaluation of one dictionary as an artefact: held-out rows, the model, and the optional parts. Torch-free.

`ConceptScores`: the best latent of each everyday concept, against baselines and shuffled labels, which `concepts`
measures. The score of a dictionary is the share of concepts with F1 of at least `GOOD_F1`: of those
that may guide choices, and of those that judge once. Its interval is Wilson's, over concepts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import comb, nan
from typing import Annotated, Literal

from interp.artifacts import Artefact, DocumentField
from interp.artifacts.artefact import address_of
from interp.forms import Measured
from interp.nulls import ALPHA
from interp.results import Record, Result, whole_table
from interp.statistics import Interval, proportion_interval
from interp.view import Dots, Facts, Finding, Rows, View
from saes.evaluation.nulls import (
    WHOLE,
    AgainstNulls,
    DictionaryAgainstNulls,
    NullScore,
    label_scores,
    reconstruction_scores,
)
from saes.evaluation.scores import (
    ALL,
    CAVEAT,
    GOOD_F1,
    Absorption,
    AbsorptionConfig,
    Concept,
    DecoderCosines,
    InModel,
    Probing,
    ProbingConfig,
    Set,
    absorption_table,
)
from saes.training.config import NULLS
from saes.training.stored import Reconstruction

BASES = ("dictionary", "neuron", "component", "coordinate", "untrained")
"""Bases whose units detect concepts: the dictionary and the baselines. Null dictionaries may join them."""


@dataclass(frozen=True, kw_only=True)
class Detector:
    """The best unit of one basis for one concept, judged on words that took no part in its choice."""

    unit: int
    sign: int
    """-1 where the unit's negative detects the concept; always 1 for dictionaries"""
    threshold: Measured
    """threshold of the unit's value, times its sign and (for latents) the norm of its direction"""
    f1: Interval[float]
    auroc: Interval[float]


@dataclass(frozen=True, kw_only=True)
class ConceptScore:
    """Scores of one concept."""

    concept: Concept
    detectors: dict[str, Detector]
    """by basis; without `neuron` where the layer has no MLP hook point"""
    null: Interval[float]
    """mean F1 for shuffled labels, and the range of 95 % of them"""
    steering: float | None = None
    """mean rise of the log-probability of the words, above the mean of random latents, in nats"""
    steering_p: float | None = None
    search_rank: int | None = None
    """position among the first hits of a search; None beyond them"""

    @property
    def own(self) -> Detector:
        """The best latent of the dictionary."""
        return self.detectors["dictionary"]

    @property
    def steers(self) -> bool:
        """True where its direction moves the log-probability of the words more than random latents do."""
        return self.steering_p is not None and self.steering_p <= ALPHA

    def to_record(self) -> Record:
        """Return the row of the concept."""
        row: Record = {"concept": self.concept.name, "set": self.concept.set, "class": self.concept.kind}
        row |= {"feature": self.own.unit, "threshold": self.own.threshold}
        row |= {**self.own.f1.columns("f1"), **self.own.auroc.columns("auroc")}
        for basis in dict.fromkeys((*BASES, *self.detectors)):
            if basis == "dictionary":
                continue
            best = self.detectors.get(basis)
            row |= {basis: best and best.unit, f"{basis}_sign": best and best.sign}
            row |= {f"{basis}_f1": best and best.f1.estimate, f"{basis}_auroc": best and best.auroc.estimate}
        row |= self.null.columns("null_f1")
        names = ("steering", "steering_p", "search_rank")
        return row | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class ConceptScores(Result):
    """Scores of a dictionary over a list of concepts."""

    scores: tuple[ConceptScore, ...]
    null: dict[Set, Interval[float]]
    """share of each set's concepts for which shuffled labels reach an F1 of `GOOD_F1`, over shuffles"""
    features: str = ""
    """features artefact that was searched; empty when none was"""

    @property
    def rivals(self) -> tuple[str, ...]:
        """Every basis but the dictionary: baselines, then null dictionaries where they were trained."""
        names = dict.fromkeys(BASES) | dict.fromkeys(name for score in self.scores for name in score.detectors)
        return tuple(name for name in names if name != "dictionary")

    def to_records(self) -> list[Record]:
        """Return one row per concept: `ConceptScore.to_record`."""
        return [score.to_record() for score in self.scores]

    def view(self) -> View:
        words = [
            f"{shares['dictionary'].estimate:.0%} of {len(self.of_set(name))} concepts ({name}; shuffled labels "
            f"{shares['null'].estimate:.0%})"
            for name, shares in self.shares().items()
        ]
        yield f"A latent detects, with F1 of at least {GOOD_F1}, {', '.join(words)}"
        yield Rows(self._rows)

    def _rows(self) -> list[Record]:
        """Return the main columns, the best detected concepts first."""
        names = ("concept", "feature", "f1", "auroc", *(f"{basis}_f1" for basis in self.rivals), "null_f1")
        return [{name: score.to_record()[name] for name in names} for score in self.ranked()]

    def ranked(self) -> list[ConceptScore]:
        """Return the concepts, the best detected first."""
        return sorted(self.scores, key=lambda score: -score.own.f1.estimate)

    def of_set(self, name: Set) -> list[ConceptScore]:
        """Return the concepts of one set."""
        return [score for score in self.scores if score.concept.set == name]

    def shares(self) -> dict[Set, dict[str, Interval[float]]]:
        """Return, by set, shares of concepts with their intervals over concepts.

        Keys: every basis, null dictionaries among them, and `null`: those with F1 of at least `GOOD_F1`; `steered` (p
        of at most 0.05); `found` by a search. The interval of the null is over shuffles.
        """
        shares = {}
        for name, null in self.null.items():
            scores = self.of_set(name)
            good = {
                basis: [score.detectors[basis].f1.estimate >= GOOD_F1 for score in scores]
                for basis in ("dictionary", *self.rivals)
                if all(basis in score.detectors for score in scores)
            }
            if all(score.steering_p is not None for score in scores):
                good["steered"] = [score.steers for score in scores]
            if self.features:
                good["found"] = [score.search_rank is not None for score in scores]
            counted = {key: proportion_interval(sum(flags), len(scores)) for key, flags in good.items()}
            shares[name] = {**counted, "null": null}
        return shares

    def table(self) -> str:
        """Return a plain-text table of the shares, one column per set."""
        shares = self.shares()
        names = {key: key for key in ("dictionary", *self.rivals, "null")} | {
            "steered": "steering raises its words",
            "found": "search hit",
        }
        rows = [
            {f"concepts with F1 of at least {GOOD_F1}": words}
            | {f"{name} ({len(self.of_set(name))})": format(share[key], ".0%") for name, share in shares.items()}
            for key, words in names.items()
            if all(key in share for share in shares.values())
        ]
        return "\n".join(whole_table(rows))

    def findings_of(self, sae: str) -> Iterator[Finding]:
        """Yield what a dictionary detects better than every baseline: single concepts, and the share of them."""
        if self._p_untrained() <= ALPHA:
            for score in self.scores:
                others = [
                    detector.f1.estimate
                    for name, detector in score.detectors.items()
                    if name not in ("dictionary", WHOLE)
                ]
                null = max([score.null.high, *others])
                if others and score.own.f1.estimate >= GOOD_F1 and score.own.f1.low > null:
                    yield self._concept(score, null, sae)
        if share := self.shares().get("judge"):
            yield from _dictionary(share, self.of_set("judge"), sae)

    def _p_untrained(self) -> float:
        """Return the p-value of a sign test, as an untrained dictionary has a latent for some concepts by chance."""
        pairs = [
            (score.own.f1.estimate, score.detectors["untrained"].f1.estimate)
            for score in self.scores
            if "untrained" in score.detectors
        ]
        n, wins = sum(a != b for a, b in pairs), sum(a > b for a, b in pairs)
        return sum(comb(n, k) for k in range(wins, n + 1)) / 2**n

    def _concept(self, score: ConceptScore, null: float, sae: str) -> Finding:
        at, f1 = score.own.unit, {name: detector.f1.estimate for name, detector in score.detectors.items()}
        beside = [f"The best neuron gets {f1['neuron']:.2f}"] if "neuron" in f1 else []
        beside += [f"the best untrained latent {f1['untrained']:.2f}"] if "untrained" in f1 else []
        steers = ""
        if score.steers and (score.steering or 0) > 0:
            steers = f" Steering along it raises its words, random features do not (p {score.steering_p:.2g})."
        return Finding(
            kind="concept",
            title=f"A feature for {score.concept.name[:40]}",
            sentence=f"Feature {at} of {sae} tells sentences with such a word from others: F1 {f1['dictionary']:.2f}.",
            more=f"Measured on held-out words. {', '.join(beside)}, shuffled labels at most {score.null.high:.2f}."
            f"{steers}",
            value=f1["dictionary"],
            null=null,
            about="F1 on held-out words; null: the best baseline",
            href=f"{address_of(f'saes/{sae}')}#concepts",
            proof="See the table of concepts",
            feature=(self.features, at) if self.features else None,
        )


def _dictionary(share: dict[str, Interval[float]], scores: Sequence[ConceptScore], sae: str) -> Iterator[Finding]:
    """Yield the share of concepts that a dictionary detects, where its interval lies above every baseline."""
    ours, untrained = share["dictionary"], share["untrained"].estimate
    best = {name: share[name].estimate for name in ("neuron", "component", "coordinate", *NULLS) if name in share}
    null = max(untrained, share["null"].estimate, *best.values())
    if ours.low <= null:
        return
    name, rival = max(best.items(), key=lambda pair: pair[1])
    unit = f"latent of the {name} null" if name in NULLS else name
    by_concept = [{way: detector.f1.estimate for way, detector in score.detectors.items()} for score in scores]
    yield Finding(
        kind="dictionary",
        title="A dictionary that knows everyday concepts",
        sentence=f"{ours.estimate:.0%} of {len(scores)} held-out concepts have a feature in {sae}; {rival:.0%} have a "
        f"{unit}, {untrained:.0%} a latent of an untrained dictionary.",
        more=f"F1 of at least {GOOD_F1}; 95 % interval {ours.low:.0%} to {ours.high:.0%}",
        value=ours.estimate,
        null=null,
        about="fraction of concepts; null: the best baseline",
        href=f"{address_of(f'saes/{sae}')}#concepts",
        proof="See the table",
        dots=Dots(
            x=tuple(max(f1 for way, f1 in f1s.items() if way not in ("dictionary", WHOLE)) for f1s in by_concept),
            y=tuple(f1s["dictionary"] for f1s in by_concept),
            across="F1 of the best baseline",
            up="F1 of the best feature, by concept",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class GivenFile:
    """A file of the user, by name and content."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Settings that determine the probes of a dictionary."""

    config: ProbingConfig
    labels: GivenFile | None
    """Further tasks."""


@dataclass(frozen=True, kw_only=True)
class ConceptSettings:
    """Settings that determine the concepts that are scored."""

    listed: GivenFile
    set: Literal["all", "choose", "judge"]


@dataclass(frozen=True, kw_only=True)
class DictionaryEvaluationSettings:
    """Settings that determine the evaluation of a dictionary; None: this part was not asked for."""

    sae: str
    recording: str
    contexts: int
    """Largest number of held-out contexts for the loss inside the model; 0 skips that part."""
    probing: ProbeSettings | None
    absorption: AbsorptionConfig | None
    concepts: ConceptSettings | None
    null_tokens: int | None = None
    """Tokens that null dictionaries were trained on; None without them."""


@dataclass(frozen=True, kw_only=True)
class SAEEvaluation(Artefact, kind="evaluation", made_by="evaluate"):
    """Evaluation of an SAE. A part is None where it was not asked for, and a text where it was refused: the reason."""

    settings: DictionaryEvaluationSettings
    heldout: Reconstruction
    decoder: DecoderCosines
    in_model: InModel | None
    """None for planted features, for several hook points, and without whole held-out contexts."""
    probing: Annotated[Probing | str | None, DocumentField("probing.json")]
    absorption: Annotated[dict[str, Absorption] | str | None, DocumentField("absorption.json")]
    """Of the dictionary, by its name, of an `untrained` one of its size, and of null dictionaries."""
    concepts: Annotated[ConceptScores | str | None, DocumentField("concepts.json")]
    nulls: Annotated[dict[str, NullScore] | str | None, DocumentField("nulls.json")] = field(
        default_factory=lambda: None  # a plain None would be a class attribute, where documents are read lazily
    )
    """Scores of null dictionaries and of the whole one, by name. The other parts have theirs among their own scores."""

    @property
    def concept_scores(self) -> ConceptScores | None:
        """Scores of everyday concepts; None where they were not measured."""
        return self.concepts if isinstance(self.concepts, ConceptScores) else None

    def against_nulls(self) -> DictionaryAgainstNulls | None:
        """Return every score of the whole one beside its nulls; None where none were trained."""
        if not isinstance(self.nulls, dict):
            return None
        scores = (*reconstruction_scores(self.nulls), *label_scores(self.nulls), *self._more_against_nulls())
        return DictionaryAgainstNulls(scores=scores)

    def _more_against_nulls(self) -> Iterator[AgainstNulls]:
        """Yield the scores of those parts that were measured."""
        if self.concept_scores:
            for name, shares in self.concept_scores.shares().items():
                rivals = {rival: shares[rival].estimate for rival in self.concept_scores.rivals if rival in shares}
                if WHOLE in rivals:
                    del rivals[WHOLE]
                    yield AgainstNulls(score=f"concepts detected ({name})", whole=shares[WHOLE], nulls=rivals)
        if isinstance(self.probing, Probing):
            k = min(score.k for score in self.probing.means)
            means = {score.dictionary: score for score in self.probing.means if score.k == k}
            rivals = {n: m.accuracy.estimate for n, m in means.items() if n not in (WHOLE, self.settings.sae, ALL)}
            if WHOLE in means:
                yield AgainstNulls(score=f"probing, {k} latent", whole=means[WHOLE].accuracy, nulls=rivals)
        if isinstance(self.absorption, dict) and WHOLE in self.absorption:
            f1 = {name: score.main_f1 for name, score in self.absorption.items() if name != self.settings.sae}
            own = f1.pop(WHOLE)
            yield AgainstNulls(score="first letters, F1", whole=Interval(own, nan, nan), nulls=f1)

    def to_records(self) -> list[Record]:
        """Return one row: the scores on held-out rows, and those in the model."""
        (heldout,), inside = self.heldout.to_records(), {}
        if self.in_model is not None:
            (inside,) = self.in_model.to_records()
        return [heldout | {name: value for name, value in inside.items() if name not in heldout}]

    def view(self) -> View:
        yield self._sentence()
        heldout, inside = self.heldout, self.in_model
        facts = [("SAE", self.settings.sae), ("FVU", f"{heldout.fvu:.3g}"), ("L0", f"{heldout.l0:.3g}")]
        facts += [("dead", f"{heldout.dead_fraction:.1%}"), ("dense", f"{heldout.dense_fraction:.1%}")]
        recovered = None if inside is None else inside.ce_recovered
        yield Facts(*(facts if recovered is None else [*facts, ("CE recovered", f"{recovered:.3g}")]))
        parts = {"probing": self.probing, "absorption": self.absorption, "concepts": self.concepts}
        parts |= {"null dictionaries": self.nulls if isinstance(self.nulls, str) else self.against_nulls()}
        yield from self._intervals()
        for name, part in parts.items():
            if isinstance(part, str):
                yield f"{name} was not measured: {part}"
            elif isinstance(part, Probing):
                yield f"probing, balanced accuracy on {part.n_documents} held-out documents:"
                yield from filter(None, part.table().split("\n"))
            elif isinstance(part, ConceptScores | DictionaryAgainstNulls):
                yield from filter(None, part.table().split("\n"))
            elif part:
                yield f"absorption of first letters ({CAVEAT}):"
                yield from filter(None, absorption_table(part).split("\n"))
        if self.concept_scores:
            yield from self.concept_scores.findings_of(self.settings.sae)

    def _sentence(self) -> str:
        """Return one line: reconstruction, sparsity, and the loss inside the model."""
        heldout, inside = self.heldout, self.in_model
        line = f"FVU {heldout.fvu:.3f} at L0 {heldout.l0:.1f} on held-out text"
        if inside is None:
            return line
        loss = f"{inside.ce_clean:.2f} to {inside.ce_spliced:.2f} nats (mean-ablated {inside.ce_mean:.2f})"
        return f"{line}; the model's loss goes from {loss}"

    def _intervals(self) -> list[str]:
        """Return the scores with their intervals, in sentences."""
        heldout, inside = self.heldout, self.in_model
        fvu = _with_ends(heldout.fvu, heldout.intervals.get("fvu"))
        line = f"on {heldout.n_tokens:,} held-out tokens: FVU {fvu}"
        if inside is None:
            return [line]
        if inside.ce_recovered is None:
            return [line, "in the model, replacing the activations by zeros costs nothing"]
        zero = _with_ends(inside.ce_recovered, inside.intervals.get("ce_recovered"))
        mean = _with_ends(inside.ce_recovered_from_mean, inside.intervals.get("ce_recovered_from_mean"))
        return [line, f"in the model {zero} of the loss is recovered against zeros, {mean} against the mean"]


def _with_ends(score: float | None, ends: tuple[float, float] | None) -> str:
    """Return a score with its interval, `0.123 [0.119, 0.128]`."""
    if score is None:
        return "undefined, since the baseline costs nothing,"
    return f"{score:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
