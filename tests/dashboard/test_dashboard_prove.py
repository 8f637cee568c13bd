"""The panel *Prove it*: the stored verdict, live answers, and the controls beside every number."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from make_workspace import HOSTILE, build

from dashboard.data import features as feature_view
from dashboard.feature import _prove
from dashboard.feature.page import detail
from dashboard.figures import plot
from dashboard.figures.saes import proof_nulls
from dashboard.figures.theme import theme
from dashboard.live import LiveModel
from interp.artifacts import save_artefact
from interp.errors import UsageError
from interp.workspace import Workspace
from saes.acts.features import Ablate, JudgeSteering, ReadText, Steer
from saes.acts.prompt import FeatureActivations
from saes.features.case import ProofWords
from saes.features.proof import (
    AblatedExample,
    Proof,
    ProofPart,
    ProofSettings,
    SteeredContinuations,
    SteeredRow,
    TextFirings,
    measure_of,
    newest_proof,
    why_outdated,
)
from saes.features.schema import Features

FEATURE = 12


def made_proof() -> Proof:
    from interp.statistics import Interval

    rng = np.random.default_rng(0)
    nulls = [(rng.normal(0, 0.1, 99), rng.normal(0, 0.1, 99)) for _ in range(4)]
    measures = (
        measure_of("fires", Interval(0.9, 0.8, 0.95), "AUROC", 12, nulls[0]),
        measure_of("steer", Interval(2.0, 1.0, 3.0), "nats", 5, nulls[2]),
        measure_of("ablate", Interval(0.6, -0.1, 1.3), "nats", 8, nulls[1]),
        measure_of("joined", 0.05, "standard deviations", 7, nulls[3], untrained=nulls[3][0] + 0.4),
    )
    shown = ProofPart(continuations=(SteeredContinuations(HOSTILE[1], " a", HOSTILE[2], " c", " d"),))
    return Proof(
        settings=ProofSettings(features="demo", feature=FEATURE, model="smollm2-135m"),
        label="names of months", hook_point="blocks.9.hook_resid_post", strength=5.0, lens="",
        words=ProofWords((1, 2), (HOSTILE[0], "May")),
        parts={measure.name: ProofPart(measures=(measure,)) for measure in measures} | {"continuations": shown},
        alike=tuple(range(100, 199)),
    )  # fmt: skip


def store(workspace: Workspace, proof: Proof, features_hash: str) -> None:
    folder = workspace.path("proof", f"demo-{proof.settings.feature}")
    save_artefact(proof, folder, parents={"features/demo": features_hash})


def panel_of(workspace: Workspace, scheme: str) -> Any:
    """Return the panel of the feature with its newest proof."""
    one = feature_view.one(workspace, "demo", FEATURE)
    return _prove.prove_panel(workspace, one, newest_proof(workspace, "demo", FEATURE), scheme)


@pytest.fixture(scope="module")
def proved(tmp_path_factory) -> Workspace:
    workspace = build(tmp_path_factory.mktemp("prove") / "ws", n_points=40)
    store(workspace, made_proof(), workspace.manifest("features", "demo").content_hash)
    return workspace


def test_a_feature_without_proof_offers_to_run_it(server, workspace):
    text = str(panel_of(workspace, "light"))
    assert f"workbench prove demo --feature {FEATURE}" in text
    assert newest_proof(workspace, "demo", FEATURE) is None


def test_a_stored_proof_shows_its_verdict_and_every_number_with_both_nulls(server, proved):
    text = str(panel_of(proved, "dark"))
    assert "(2.0 nats, more than 99 of 99 features like it); ablating it has no clear effect." in text
    assert "2 of 4 tests hold" in str(_prove.badge(proved, newest_proof(proved, "demo", FEATURE)))
    assert "more than 99 of 99 random directions and 99 of 99 features of like density" in text
    assert "it does not hold: its interval includes chance" in text
    assert "no effect beyond the null" in text, "of what it says"
    for words in ("random 95 %", "like density 95 %", "p (Holm)", "proofs/demo-12", "random direction"):
        assert words in text
    assert newest_proof(proved, "demo", FEATURE + 1) is None


def test_a_verdict_stands_alone_and_the_method_is_folded(server, proved):
    one, proof = feature_view.one(proved, "demo", FEATURE), newest_proof(proved, "demo", FEATURE)
    parts = _prove._stored(proved, one, proof, "light")
    judged = next(part for part in parts if getattr(part, "className", "") == "wb-judged")
    sentence, method = judged.children
    assert len(sentence.children.split()) <= 25
    assert "Tested: the words on which it peaks" in str(method)
    assert "any direction may pass" not in str(parts)


def test_words_that_its_own_direction_chose_are_said_to_prove_little(server, small):
    proof = replace(made_proof(), words=replace(made_proof().words, chosen_by="lens"))
    store(small, proof, small.manifest("features", "demo").content_hash)
    assert "so any direction may pass" in str(panel_of(small, "light"))


def test_the_page_places_the_panel_for_features_that_fire(server, proved):
    assert "feature-prove" in str(detail(proved, "demo", FEATURE, "light"))


def test_a_proof_of_features_that_were_described_again_says_so(server, small):
    store(small, made_proof(), "0" * 64)
    assert why_outdated(small, newest_proof(small, "demo", FEATURE))
    assert "run it again" in str(panel_of(small, "light"))


def test_a_proof_of_an_sae_that_was_made_again_says_so(server, remade):
    """The tables are as they were, but the directions are others."""
    now = remade.manifest("features", "demo").content_hash
    store(remade, made_proof(), now)
    assert "demo was made again" in why_outdated(remade, newest_proof(remade, "demo", FEATURE))
    assert "Demo was made again" not in str(panel_of(remade, "light"))
    assert "The SAE demo was made again" in str(panel_of(remade, "light"))


def test_the_figure_shows_the_feature_beside_its_nulls():
    proof = made_proof()
    figure = plot(proof)
    random, _, untrained, own = figure.data
    assert [len(trace.x) for trace in figure.data] == [4 * 99, 4 * 99, 99, 4]
    assert np.mean(untrained.x) > 3, "only the claim that it says what it reads has them"
    assert abs(np.mean(random.x)) < 1e-9, "distances from the mean of random directions"
    by_name = dict(zip(reversed([measure.name for measure in proof.measures]), own.x, strict=True))
    assert by_name["steer"] == 12, "clipped at the edge"
    assert by_name["joined"] < 2
    assert proof_nulls(replace(proof, parts={}), theme("dark")).layout.annotations


def test_live_answers_stand_beside_their_controls(server, live):
    state = {"features": "demo", "index": FEATURE}
    read = _prove.answering(ReadText, _prove.text_answer, "text")
    steer = _prove.answering(Steer, _prove.steer_answer, "text", "strength")
    judge = _prove.answering(JudgeSteering, _prove.verdict_answer, "text", "strength", "nulls")
    words, size = (str(line) for line in judge(1, state, "in July", 0.5, "thorough"))
    assert live.calls[-1] == ("steering_verdict", f"demo {FEATURE} x0.5 thorough")
    assert "39 of 39 random directions" in words
    assert "The next token shifts by 0.3 nats" in size
    text = str(read(1, state, "in July"))
    assert "others of like density" in text
    steered = str(steer(1, state, "in July", -0.5))
    assert "random direction" in steered
    assert "feature 3" in steered
    assert live.calls[-1] == ("steer", f"{FEATURE}: in July x -0.5")
    ablated = str(_prove.answering(Ablate, _prove.ablate_answer, "nulls")(1, state, "standard"))
    assert "random −0.005, at most +0.01" in ablated
    assert live.calls[-1] == ("ablate", f"{FEATURE} standard")
    assert "be10" in str(read(1, state, "")), "its own example, where none is typed"
    assert "nulls should be" in str(judge(1, state, "in July", 0.5, "many")), "what the act does not take is refused"


def test_answers_without_examples_or_controls_are_whole_sentences():
    assert "No token follows" in str(_prove.ablate_answer([]))
    assert "none" in str(_prove.text_answer(TextFirings(["a"], [0.0], [])))
    one = AblatedExample(["a", "b"], [1.0, 0.0], 0, None, 0.5, [0.1], [])
    assert "+0.5 (random +0.1, at most +0.1)" in str(_prove.ablate_answer([one]))
    assert "like density" not in str(_prove.ablate_answer([one]))
    assert "no shift" in str(_prove.steer_answer([SteeredRow("unchanged", HOSTILE[0], 0.0, [])]))


@pytest.mark.real
def test_the_real_model_answers_about_a_neuron(workspace, smollm2, monkeypatch):
    monkeypatch.setattr("interp.models.loading.load_model", lambda spec, **_: smollm2)
    live = LiveModel(workspace)
    asked, text = {"features": "neurons", "feature": 3}, "The capital of France is"
    found = live.ask(ReadText(text=text, **asked))
    elsewhere = live.ask(FeatureActivations(text=text, model="smollm2-135m", **asked))
    assert found.activations[1:] == pytest.approx(elsewhere[1:], abs=1e-4)
    assert found.activations[0] == 0, "BOS is left out"
    rows = live.ask(Steer(text=text, strength=0.0, **asked))
    assert {row.text for row in rows} == {rows[0].text}, "nothing is added at strength 0"
    assert max(row.kl for row in rows) < 1e-4
    examples = live.ask(Ablate(**asked))
    assert all(len(each.random) == 5 for each in examples)
    with pytest.raises(UsageError, match="its features are"):
        live.ask(ReadText(text=text, **asked | {"feature": 10**6}))


def test_steering_starts_from_text_of_the_feature_itself(workspace, monkeypatch):
    def example(tokens: list[str], peak: int) -> SimpleNamespace:
        return SimpleNamespace(tokens=tokens, peak=peak)

    def found(*rows: SimpleNamespace) -> tuple[str, str]:
        monkeypatch.setattr(_prove, "examples", lambda *_: list(rows))
        return _prove.own_text(workspace.open(Features, "demo"), FEATURE)

    short, long = example([" red", " is", " warm"], 0), example([" a", " coat", " of", " red", " wool"], 3)
    assert found(short, long) == ("red is warm", "a coat of"), "the strongest example with words before its peak"
    assert found(short) == ("red is warm", "red is warm"), "else all of it"
    assert found() == (_prove.TEXT, _prove.PROMPT)
