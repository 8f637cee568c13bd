"""The induction circuit of a model as an artefact: verdicts on every head, and the measurements behind them.

`interp.circuits.induction` measures it, `interp.circuits._induction_measure` states the rule. Torch-free.
"""

from dataclasses import dataclass, field
from functools import cached_property
from math import isnan, nan
from typing import Annotated

import numpy as np
from jaxtyping import Float64

from interp.artifacts import ARRAY, DocumentField, Measured, Table
from interp.circuits.circuit import KeyEvidence
from interp.circuits.config import InductionConfig
from interp.circuits.found_circuit import CircuitSettings, FoundCircuit
from interp.claims import Outcome, StatedNumber
from interp.models.short_name import short_name
from interp.names import HeadName
from interp.patching.patching_map import AblationEffect
from interp.results import Record, columns_of
from interp.statistics import Interval, p_above, t_interval
from interp.view import Dots, Facts, Finding, Rows, View

SHOWN = 8
"""Key edges in the picture of a finding."""
SMALLEST_SHARE = 0.25
"""Smallest fall of a score by patching the sender, as a fraction of it, that counts."""


@dataclass(frozen=True, kw_only=True)
class InductionSettings(InductionConfig, CircuitSettings):
    """Settings that determine an induction circuit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SenderTest:
    """Fall of the induction score when one sender is patched into query, key or value, per prompt."""

    head: HeadName
    sender: HeadName
    clean: Float64[np.ndarray, " n"]
    """the score without a patch"""
    k: Float64[np.ndarray, " n"]
    q: Float64[np.ndarray, " n"]
    v: Float64[np.ndarray, " n"]
    """patched into the values of all candidates, as a head's pattern does not depend on its own values"""
    controls: Float64[np.ndarray, "n_controls n"]
    """control senders, patched into the keys"""

    @property
    def strongest_control(self) -> Float64[np.ndarray, " n"]:
        """The control sender with the largest mean fall."""
        return self.controls[int(self.controls.mean(-1).argmax())]

    @property
    def p(self) -> float:
        """Largest p-value of the three comparisons."""
        rivals = (self.q, self.v, self.strongest_control)
        if self.k.mean() < SMALLEST_SHARE * self.clean.mean():
            return 1.0
        return max(float(p_above(self.k - rival)) for rival in rivals)

    @property
    def line(self) -> str:
        """The test in one line."""
        mean, low, high = t_interval(self.k)
        return (
            f"{self.sender} -k-> {self.head}: score {self.clean.mean():.2f} falls by {mean:.2f} [{low:.2f}, "
            f"{high:.2f}] (into queries {self.q.mean():+.2f}, control senders up to "
            f"{self.strongest_control.mean():+.2f})"
        )


@dataclass(frozen=True, kw_only=True)
class HeadVerdict:
    """Evidence for one head; None where it was not tested, ablated or scored for copying."""

    layer: int
    head: int
    strict: float
    tl: float
    """Induction scores by both conventions, 0 to 1."""
    previous_token: float
    candidate: bool
    """Its strict score lies above its null, so that it was tested for a sender."""
    best_sender: str | None
    k_effect: float | None
    q_effect: float | None
    v_effect: float | None
    """Fall of the strict score by patching that sender into this input."""
    loss_first_half: float | None
    loss_second_half: float | None
    """Change of the loss when it is ablated, in nats."""
    ov_eigenvalue: float | None
    ov_top1: float | None
    p_holm: float
    induction: bool
    """It passes the rule for one head."""
    verdict: str | None
    """Role in the circuit."""

    @property
    def name(self) -> HeadName:
        """Name of the head."""
        return HeadName(self.layer, self.head)


@dataclass(frozen=True, kw_only=True)
class ComposedPair:
    """Composition of the weights of two heads, next to Haar rotations of the same spectra."""

    source: str
    target: str
    via: str
    score: float
    null_mean: Measured
    null_high: Measured
    is_argmax: bool
    """The strongest sender of this reader."""


@dataclass(frozen=True, kw_only=True)
class PathLoss:
    """Change of the loss by patching a sender into one input of all candidates, in nats."""

    sender: str
    via: str
    loss_first_half: float
    loss_second_half: float
    low: Measured
    high: Measured
    """95 % interval of the second."""


@dataclass(frozen=True, kw_only=True)
class Redundancy:
    """Effect of ablating all induction heads together, and each of them alone, in nats after the repeat."""

    group: float
    sum_of_singles: float
    largest_single: float

    @property
    def sentence(self) -> str:
        """The two effects compared, in a sentence."""
        if self.group > 1.5 * self.sum_of_singles:
            return "Together they do more than the sum of each: they back each other up."
        return "Together they do about what each does alone, added up."


@dataclass(frozen=True, kw_only=True)
class InductionCircuit(FoundCircuit, kind="induction_circuit", made_by="circuit induction"):
    """The induction circuit: heads that copy what followed an earlier copy, and the heads that they read."""

    settings: InductionSettings
    context_length: int
    """Tokens per prompt, BOS included."""
    lags: tuple[int, int]
    """Shortest and longest block that repeats, of the first draw."""
    logit_effect: str | None
    """Point of the direct effects on logits, if not the end; None: the end."""
    redundancy: Redundancy | None
    heads: Table[HeadVerdict]
    ablations: Table[AblationEffect]
    paths: Table[PathLoss]
    composition: Table[ComposedPair] | None
    """None where heads cannot compose."""
    sender_tests: Annotated[tuple[SenderTest, ...], DocumentField("tests.json")]
    """Test of each candidate's sender against controls, on the test prompts."""
    scores: Annotated[Float64[np.ndarray, "n_layers n_heads scores n_prompts"] | None, ARRAY] = field(
        default_factory=lambda: None
    )
    """Strict, stripe (tl) and previous-token scores by prompt; all seeds."""

    @cached_property
    def verdicts(self) -> list[HeadVerdict]:
        """Verdicts on all heads, by layer and head."""
        return self.heads.rows()

    @property
    def candidates(self) -> list[HeadVerdict]:
        """Heads that were tested for a sender, highest strict scores first."""
        return sorted((row for row in self.verdicts if row.candidate), key=lambda row: -row.strict)

    @property
    def tests(self) -> dict[HeadName, SenderTest]:
        """Test of each candidate."""
        return {test.head: test for test in self.sender_tests}

    @property
    def induction(self) -> dict[HeadName, HeadName]:
        """Sender of each induction head."""
        tests = self.tests
        return {row.name: tests[row.name].sender for row in self.verdicts if row.induction}

    @property
    def unit(self) -> str:
        """Unit of the score of an edge, in words."""
        return "drop of the strict induction score (0 to 1) when this edge alone is patched"

    def to_records(self) -> list[Record]:
        """Return one row per candidate head: `head, strict, stripe, sender, by_keys, by_queries, p_holm, induction`.

        `strict` and `stripe` are fractions of attention, 0 to 1. `by_keys` and `by_queries` are drops of the strict
        score when the sender's corrupted value is patched into that side alone. `p_holm` is the head's corrected
        p-value.
        """
        return [
            {
                "head": str(row.name),
                "strict": row.strict,
                "stripe": row.tl,
                "sender": row.best_sender,
                "by_keys": row.k_effect,
                "by_queries": row.q_effect,
                "p_holm": row.p_holm,
                "induction": row.induction,
            }
            for row in self.candidates
        ]

    def view(self) -> View:
        yield self._sentence()
        heads = [str(row.name) for row in self.verdicts if row.verdict == "induction"]
        together = [] if self.redundancy is None else [("ablated together", f"{self.redundancy.group:+.2f} nats")]
        yield Facts(("induction heads", ", ".join(heads[:6]) or "none"), *together)
        yield self.verdict.line
        induction = self.induction
        strongest = sorted((test for head, test in self.tests.items() if head in induction), key=lambda t: -t.k.mean())
        yield from [test.line for test in strongest[:8]]
        if (r := self.redundancy) is not None:
            yield (
                f"ablated together {r.group:+.2f} nats after the repeat, singly {r.sum_of_singles:+.2f} in sum. "
                f"{r.sentence}"
            )
        yield from self.held_fixed
        yield Rows(self.to_records)
        edges = [(edge, edge.evidence) for edge in self.circuit.edges if isinstance(edge.evidence, KeyEvidence)]
        beyond = [(edge, e) for edge, e in edges if -e.high > e.null_high]
        if self.verdict.holds is not True or not beyond:
            return
        best, e = max(beyond, key=lambda pair: -pair[1].high)
        shown = sorted(edges, key=lambda pair: pair[1].effect)[:SHOWN]
        lines = tuple(range(len(shown), 0, -1)) * 2
        groups = {row.group: row for row in self.ablations.rows()}
        others = [row.loss_second_half for name, row in groups.items() if name.startswith("random heads")]
        more = ""
        if (ablated := groups.get("induction heads")) and others:
            more = (
                f" Without its {ablated.n_heads} copying heads the loss on repeated text rises by "
                f"{ablated.loss_second_half:.3g} nats per token, without the same number of random heads by at most "
                f"{max(others):.3g}."
            )
        yield Finding(
            kind="circuit",
            title=f"Heads {best.source} and {best.target} copy together",
            sentence=f"{best.source} tells {best.target} which token came before each one: with that path cut, its "
            f"induction score falls by {-e.effect:.3g}.",
            more=f"95 % interval {-e.high:.3g} to {-e.low:.3g}; paths from random heads, by at most "
            f"{e.null_high:.3g}.{more}",
            value=-e.effect,
            null=e.null_high,
            about="fall of the induction score; null: paths from random heads",
            href=f"?at={best.source}-k-{best.target}",
            proof="See the circuit",
            dots=Dots(
                x=(*(-loss.effect for _, loss in shown), *(loss.null_high for _, loss in shown)),
                y=tuple(map(float, lines)),
                texts=(*(f"{edge.source} → {edge.target}" for edge, _ in shown), *[""] * len(shown)),
                across="fall of the score; grey: random heads",
                null=len(shown),
            ),
        )

    def _sentence(self) -> str:
        """Return one line: the induction heads and the effect of ablating them, beside random heads."""
        model, heads = short_name(self.settings.model), [row for row in self.verdicts if row.verdict == "induction"]
        if not self.verdict.holds or self.redundancy is None:
            return f"No induction circuit found in {model}: no heads pass the tests of attention, patching and ablation"
        random = [row.loss_second_half for row in self.ablations.rows() if row.group.startswith("random heads")]
        null = f"; random heads at most {max(random):+.2f}" if random else ""
        return (
            f"{len(heads)} induction head{'s' * (len(heads) != 1)} in {model}: ablating them changes the loss on "
            f"repeats by {self.redundancy.group:+.2f} nats{null}"
        )

    def stated(self) -> dict[str, StatedNumber]:
        """Return what a claim may say: the strongest key edge, and the loss by ablating the induction heads together.

        Both hold where the circuit does and their intervals lie above the null. A number that was not measured, or has
        no draw of its null, is undecided where the circuit is found.
        """
        groups = {row.group: row for row in self.ablations.rows()}
        random = [row.loss_second_half for name, row in groups.items() if name.startswith("random heads")]
        heads, model = groups.get("induction heads"), short_name(self.settings.model)
        tests = [edge.evidence for edge in self.circuit.edges if isinstance(edge.evidence, KeyEvidence)]
        evidence = min(tests, key=lambda test: test.effect, default=None)
        return {
            "path": self._stated(
                f"A head of {model} tells an induction head which token came before each one, through its keys",
                "fall of the induction score when the strongest key edge is cut",
                "share of attention, 0 to 1",
                None if evidence is None else Interval(-evidence.effect, -evidence.high, -evidence.low),
                nan if evidence is None else evidence.null_high,
                "paths from random heads",
            ),
            "ablation": self._stated(
                f"Induction heads of {model} copy in repeated text",
                "rise of the loss after the start of the repeat when all induction heads are ablated",
                "nats per token",
                None if heads is None else Interval(heads.loss_second_half, heads.low, heads.high),
                max(random, default=nan),
                f"{len(random)} groups of random heads",
            ),
        }

    def _stated(
        self, sentence: str, formula: str, unit: str, number: Interval[float] | None, null: float, nulls: str
    ) -> StatedNumber:
        holds = self.verdict.holds
        if holds:
            holds = None if number is None or isnan(number.low - null) else bool(number.low > null)
        outcomes: dict[bool | None, Outcome] = {True: "supported", False: "not supported", None: "undecided"}
        return StatedNumber(
            sentence=sentence,
            subject="circuit",
            formula=formula,
            unit=unit,
            value=number.estimate if number else nan,
            low=number.low if number and not isnan(number.low) else None,
            high=number.high if number and not isnan(number.high) else None,
            null=null,
            nulls=(nulls,),
            outcome=outcomes[holds],
        )

    def nulls(self) -> Record:
        """Return the effects of the induction heads together and alone."""
        r = self.redundancy
        if r is None:
            return {}
        return {"ablated together": r.group, "ablated one by one, sum": r.sum_of_singles, "largest": r.largest_single}

    def tables(self) -> dict[str, list[Record]]:
        """Return the losses by path patching and by ablation."""
        losses = {"path_patching": self.paths.rows(), "ablation": self.ablations.rows()}
        return {name: [columns_of(row) for row in rows] for name, rows in losses.items() if rows}
