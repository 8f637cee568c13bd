"""The words of a proof: its verdict in one sentence, what is missing, and its picture."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from planted_feature import HOOK

from interp.nulls import NO_EFFECT
from interp.statistics import Interval, t_interval
from saes.features.case import ProofWords
from saes.features.proof import CLAIMS, TESTS, Proof, ProofMeasure, ProofPart, ProofSettings, measure_of

WORDS = ProofWords(ids=(1, 2, 3, 4), texts=("church", "parish", "of the", "<b>"))
SAID = replace(WORDS, chosen_by="lens")


def test_a_test_needs_both_nulls_and_an_interval_above_zero():
    def measure(value, low, random, alike):
        return ProofMeasure(
            name="steer", value=value, low=low, high=value + 1, unit="nats", n=4,
            random=np.array(random, float), alike=np.array(alike, float),
        )  # fmt: skip

    assert measure(2.0, 1.0, [0] * 99, [0] * 99).p == 0.01
    assert measure(2.0, 1.0, [0] * 99, [3] * 99).p == 1.0
    assert measure(2.0, 1.0, [0] * 99, []).p == 1.0, "a null is missing"


def judged(words: ProofWords = WORDS, **measured: tuple[Any, ...]) -> Proof:
    """A proof by the interval of each test, and the number of the 99 directions of each null that it exceeds."""

    def measure(name: str, value: Interval | float, *exceeds: int) -> ProofMeasure:
        nulls = [np.repeat([-9.0, 9.0], [n, 99 - n]) for n in exceeds]
        return measure_of(name, value, "nats", 4, nulls[:2], untrained=nulls[2] if nulls[2:] else None)

    measures = [measure(name, *of) for name, of in measured.items()]
    settings = ProofSettings(features="toy", feature=1, model="toy")
    parts = {measure.name: ProofPart(measures=(measure,)) for measure in measures}
    return Proof(
        settings=settings, label="", words=words, hook_point=HOOK, strength=1.0, lens="", parts=parts, alike=()
    )


ABOVE, AROUND = Interval(2.0, 1.0, 3.0), Interval(0.4, -0.1, 0.9)
MORE = "more than 99 of 99 features like it"
NAMES = "“church”, “parish”, “of␣the”"


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ({"steer": (ABOVE, 99, 99), "ablate": (ABOVE, 99, 99)},
         f"Steering makes the model say {NAMES} (2.0 nats, {MORE}); ablating it lowers them."),
        ({"steer": (ABOVE, 98, 99), "ablate": (AROUND, 50, 50)},
         f"Steering makes the model say {NAMES} (2.0 nats, more than 98 of 99 random directions); ablating it "
         "has no clear effect."),
        ({"steer": (AROUND, 50, 50), "ablate": (ABOVE, 99, 99), "fires": (ABOVE, 99, 99)},
         f"Without it the model says {NAMES} less (2.0 nats, {MORE}); steering has no clear effect."),
        ({"steer": (AROUND, 50, 50), "fires": (ABOVE, 99, 99), "joined": (5.0, 99, 99)},
         f"It fires on {NAMES} and its direction promotes them (5.0 SD, {MORE}); no effect is proved."),
        ({"steer": (AROUND, 50, 50), "fires": (ABOVE, 99, 99), "joined": (5.0, 99, 99, 98)},
         f"It fires on {NAMES} and its direction promotes them (5.0 SD, more than 98 of 99 untrained latents); no "
         "effect is proved."),
        ({"joined": (5.0, 99, 99, 60)},
         f"Nothing is proved: its direction changes {NAMES} by 5.0 SD, more than 60 of 99 untrained latents."),
        ({"steer": (AROUND, 50, 50), "fires": (ABOVE, 99, 99)},
         f"It fires on {NAMES} (AUROC 2.00, {MORE}); no effect on what the model says is proved."),
        ({"steer": (AROUND, 60, 50), "ablate": (AROUND, 50, 50)},
         f"No effect beyond the null: steering changes {NAMES} by 0.4 nats, more than 50 of 99 features "
         "like it."),
        ({"steer": (ABOVE, 99, 60), "ablate": (AROUND, 50, 50)},
         f"Nothing is proved: steering changes {NAMES} by 2.0 nats, more than 60 of 99 features like it."),
        ({}, "Nothing could be tested."),
    ],
)  # fmt: skip
def test_a_verdict_is_one_sentence_with_the_null_that_is_exceeded_least(measured, verdict):
    assert judged(**measured).verdict() == verdict
    assert judged(**measured).lines()[0] == verdict


def test_no_verdict_has_more_than_25_words():
    outcomes = {
        "holds": (ABOVE, 99, 99), "fails": (ABOVE, 99, 60), "nothing": (AROUND, 60, 50), "missing": None,
        "undecided": (Interval(-12345.6, -np.inf, np.inf), 99, 99),
    }  # fmt: skip
    seen = set()
    for words, cases in product((WORDS, SAID), product(outcomes, repeat=len(TESTS))):
        measured = {name: outcomes[case] for name, case in zip(TESTS, cases, strict=True) if outcomes[case]}
        proof = judged(words, **measured)
        verdict = proof.verdict()
        assert len(verdict.split()) <= 25, verdict
        assert "null" in verdict or " of 99 " in verdict or verdict.startswith(("Undecided", "Nothing")), verdict
        seen.add(verdict.partition(" (")[0])
    assert all(any(claim.partition("{")[0] in start for start in seen) for claim in CLAIMS.values())


def test_untrained_latents_decide_joined_alone_and_are_a_null_like_the_others():
    proof = judged(joined=(5.0, 99, 99, 60), fires=(ABOVE, 99, 99))
    joined, fires = proof.measure("joined"), proof.measure("fires")
    assert proof.holds() == ["fires"]
    assert joined.p == pytest.approx(40 / 100)
    assert proof.sentence(joined).endswith("it does not hold: not beyond untrained latents.")
    assert "directions, 99 of 99 features of like density and 60 of 99 untrained latents" in proof.sentence(joined)
    assert joined.to_records()[0]["p_untrained"] == pytest.approx(40 / 100)
    assert fires.to_records()[0]["p_untrained"] is None
    assert judged(joined=(5.0, 60, 60, 60)).outcome(judged(joined=(5.0, 60, 60, 60)).measures[0]) == NO_EFFECT


@pytest.mark.parametrize(
    ("measured", "outcome"),
    [
        ((ABOVE, 99, 99), "it holds"),
        ((AROUND, 98, 99), "it does not hold: its interval includes chance"),
        ((ABOVE, 96, 96), "it does not hold: not after the correction"),
        ((ABOVE, 99, 60), "it does not hold: not beyond features of like density"),
        ((AROUND, 60, 99), "it does not hold: not beyond random directions and its interval includes chance"),
        ((ABOVE, 60, 80), "no effect beyond the null"),
    ],
)
def test_a_sentence_says_which_draws_are_exceeded_and_what_is_missing(measured, outcome):
    proof = judged(steer=measured, ablate=(AROUND, 50, 50))
    sentence = next(line for line in proof.lines()[1:] if line.startswith("Steering"))
    assert sentence.endswith(f": {outcome}.")
    assert f"more than {measured[1]} of 99 random directions and {measured[2]} of 99 features" in sentence
    assert f"{measured[0].estimate:.2f} nats ({measured[0].low:.2f} to {measured[0].high:.2f})" in sentence


def test_fires_is_above_chance_from_an_auroc_of_one_half_on():
    assert judged(fires=(Interval(0.9, 0.6, 1.0), 99, 99)).holds() == ["fires"]
    assert judged(fires=(Interval(0.6, 0.45, 0.8), 99, 99)).holds() == []


def test_words_that_the_lens_chose_and_words_of_any_direction_are_remarked_on():
    proof = judged(SAID, steer=(ABOVE, 99, 99))
    assert proof.verdict().startswith("Steering makes the model say its lens words (2.0 nats,")
    assert "which any direction may raise" in proof.lines()[1]
    assert "church, parish, of the, <b>" in judged(steer=(ABOVE, 99, 99)).lines()[1]
    for value, start in (
        (4.0, "Any direction is said about as strongly"),
        (9.0, "Few directions are said as strongly"),
    ):
        remark = measure_of("own words", value, "nats", 3, (np.linspace(0, 8, 99), np.empty(0)))
        proof = replace(judged(steer=(ABOVE, 99, 99)), parts={"steer": ProofPart(measures=(remark,))})
        assert proof.lines()[2].startswith(f"{start}: its own lens words rise by {value:.2f} nats, those of random")
        assert proof.verdict() == "Nothing could be tested.", "no test"


def test_a_single_example_decides_nothing():
    few = t_interval(np.array([2.0]))
    alone = replace_n(judged(ablate=(few, 99, 99)))
    assert alone.holds() == []
    assert alone.verdict().startswith("Undecided: one example only")
    with_lists = replace_n(judged(ablate=(few, 99, 99), lists=(few, 99, 99)))
    assert with_lists.holds() == ["lists"], "lists have no interval"
    assert "undecided: one example only" in " ".join(with_lists.lines())


def replace_n(proof: Proof) -> Proof:
    """The same proof, measured on one example."""
    parts = {name: ProofPart(measures=(replace(part.measures[0], n=1),)) for name, part in proof.parts.items()}
    return replace(proof, parts=parts)


@pytest.mark.parametrize(
    ("n", "says"),
    [
        (0, "no features of like density"),
        (1, "only 1 feature of like density"),
        (58, "only 58 features of like density"),
    ],
)
def test_too_few_features_of_like_density_leave_three_tests_undecided(n, says):
    def proof(n_alike: int) -> Proof:
        whole = judged(steer=(ABOVE, 99, 99), ablate=(ABOVE, 99, 99), lists=(ABOVE, 99, 99))
        few = {name: ProofPart(measures=(replace(part.measures[0], alike=np.zeros(n_alike)),))
               for name, part in whole.parts.items()}  # fmt: skip
        return replace(whole, parts=few)

    assert proof(n).holds() == []
    assert proof(n).verdict().startswith(f"Undecided: {says}, 59 are needed")
    assert f": undecided: {says}, 59 are needed" in " ".join(proof(n).lines())
    assert proof(59).holds() == ["steer", "ablate", "lists"]


def test_the_picture_of_a_proof_has_the_feature_first_and_every_direction_of_its_nulls():
    random, alike = np.roll(np.linspace(0, 0.4, 99), 5), np.roll(np.linspace(0, 0.3, 99), 9)
    measure = measure_of("steer", Interval(2.0, 1.5, 2.5), "nats", 8, (random, alike))
    proof = replace(judged(steer=(ABOVE, 99, 99)), parts={"steer": ProofPart(measures=(measure,))})
    [finding] = proof.findings()
    drawn = finding.dots
    assert drawn.x == (2.0, *alike, *random)
    assert drawn.y == (2, *[0] * 99, *[1] * 99)
    named = {drawn.x[at]: text for at, text in enumerate(drawn.texts) if text}
    assert named == {2.0: "this feature", 0.3: "features of like density", 0.4: "random directions"}
    assert drawn.null == 198
