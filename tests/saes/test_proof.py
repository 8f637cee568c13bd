"""The proof of a feature: planted causes pass the tests that they should, and no others."""

import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted_feature import (
    ANSWER,
    CAUSE,
    ELSEWHERE,
    HOOK,
    IDLE,
    LENGTH,
    OTHER,
    RAISED,
    READ,
    STRENGTH,
    VOICE,
    WORDS,
    D,
    V,
    build,
    dictionary,
    planted_model,
    rise,
    with_memory,
)

from interp.artifacts import Draft, as_json, open_artefact, partial_path, read_manifest, save_artefact, verify
from interp.artifacts.draft import RESUME
from interp.errors import ConfigError, CorruptError, MismatchError, UsageError
from interp.geometry.words import WordActivations, WordList
from interp.interventions.site import DictionarySite
from interp.lenses.jacobian_lens import READINGS, JacobianLayer, JacobianLens, JacobianSettings
from interp.lenses.vocabulary import vocabulary_of
from interp.models.adapter import run_with_cache, weight_hash
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from interp.nulls import ALPHA, p_from_null
from interp.statistics import Interval, proportion_interval
from saes.features.case import Passage, ProofConfig, passages_with, read_case
from saes.features.measure_proof import COSINES, STRENGTHS, FinishedParts, own_words, proof_words, prove
from saes.features.passes import ablation_losses
from saes.features.proof import EFFECTS, RANDOM, UNTRAINED, Proof, ProofMeasure, ProofSettings
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE

QUICK = ProofConfig(draws=19)


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def features(model, tmp_path_factory):
    return build(tmp_path_factory.mktemp("proof"), model, dictionary())


@pytest.fixture(scope="module")
def proof(model, features):
    return prove(model, dictionary(), features, CAUSE)


def test_a_planted_cause_has_its_known_effects(proof, model, features):
    words = proof.words.ids
    assert set(words) < set(WORDS), "those of one half of its examples"
    assert proof.words.texts == tuple(map(str, words)), "the most frequent first"
    assert proof.strength == max((size * STRENGTH for size in STRENGTHS), key=lambda size: rise(size, words))
    assert proof.measure("steer").value == pytest.approx(rise(proof.strength, words), abs=1e-4)
    case = read_case(features, CAUSE, proof.settings)
    site, passage = DictionarySite.of(model, dictionary()), case.examples[0]
    losses = ablation_losses(site, passage, CAUSE, site.arms(CAUSE, [], 0, 0))
    assert float(losses[0, passage.peak]) == pytest.approx(rise(STRENGTH, (ANSWER,)), abs=1e-4)
    assert proof.measure("ablate").value == proof.measure("ablate loss").value == 0, "no token reads an earlier one"
    assert 0.95 < proof.measure("fires").value < 1, "it fires on the fourth of WORDS, which was not chosen, too"
    logits = torch.zeros(V)
    logits[list(RAISED)] = READ[: len(RAISED)]
    z = (logits - logits.mean()) / logits.std(correction=0)
    assert proof.measure("joined").value == pytest.approx(float(z[list(words)].mean()), rel=1e-3)


def test_a_feature_that_says_what_it_reads_passes_all_four_tests(features):
    """Later tokens read it from its own; there its words are expected less once it is ablated."""
    weight = 4.0
    proof = prove(with_memory(weight), dictionary(), features, CAUSE)
    assert proof.holds() == ["fires", "steer", "ablate", "joined"]
    assert all(p <= 0.05 for p in proof.p_holm().values())
    assert len(proof.measure("steer").random) == len(proof.measure("ablate").alike) == 99
    assert proof.verdict().startswith(f"Steering makes the model say “{proof.words.texts[0]}”, “")
    assert proof.verdict().endswith("; ablating it lowers them.")
    assert "direct effect" in proof.lines()[-1]
    assert not proof.missing, "the words are in no list"
    removed, case, falls = torch.tensor([0, 1, *COSINES]), read_case(features, CAUSE, proof.settings), []
    for passage in case.strongest(case.judging(), proof.settings.examples):
        firing = np.isin(passage.token_ids, WORDS)
        read = weight * STRENGTH * firing.cumsum() / np.arange(1, len(firing) + 1)
        silent = ~firing & firing.cumsum().astype(bool)
        logits = torch.zeros(len(removed), int(silent.sum()), V)
        logits[:, np.array(passage.token_ids)[silent] == OTHER, ELSEWHERE[0] : ELSEWHERE[-1] + 1] = STRENGTH * READ
        left = (1 - removed)[:, None, None] * torch.from_numpy(read[silent, None])
        logits[..., list(RAISED)] += left * READ[: len(RAISED)]
        expected = logits.softmax(-1)[..., list(proof.words.ids)].sum((1, 2)).log()
        falls.append((expected[0] - expected[1:]).numpy())
    fall, *near_falls = np.mean(falls, axis=0)
    assert proof.measure("ablate").value == pytest.approx(fall, abs=1e-3)
    for each, cosine, near_fall in zip(proof.parts["ablate"].near, COSINES, near_falls, strict=True):
        assert each.cosine == cosine
        assert [each.part, *each.shares] == pytest.approx([near_fall / fall] * 6, abs=1e-3), "nothing reads the rest"
    assert 0.3 < near_falls[1] < near_falls[0] < 0.95 * fall
    assert f"at cosine 0.9 by {near_falls[0] / fall:.0%} as much" in proof.lines()[-2]
    assert [row["measure"] for row in proof.to_records()][-2:] == ["ablate, at cosine 0.9", "ablate, at cosine 0.7"]


def test_a_test_that_can_no_longer_hold_is_given_up_and_says_what_all_draws_would(model, features, monkeypatch):
    quick = {feature: prove(model, dictionary(), features, feature) for feature in (CAUSE, OTHER, IDLE)}
    monkeypatch.setattr("saes.features.measure_proof.STAGES", ())
    for feature, proof in quick.items():
        whole = prove(model, dictionary(), features, feature)
        assert proof.holds() == whole.holds()
        assert {test: p for test, p in proof.p_holm().items() if p <= 0.05} == {
            test: p for test, p in whole.p_holm().items() if p <= 0.05
        }
        assert len(whole.measure("steer").random) == 99
        assert (len(proof.measure("steer").random) == 19) == ("steer" not in whole.holds())
        assert not proof.undecided(), "further draws would change nothing"
        kept = len(proof.measure("steer").random)
        np.testing.assert_allclose(proof.measure("steer").random, whole.measure("steer").random[:kept], atol=1e-5)


def test_a_feature_that_says_other_words_fires_and_does_no_more(model, features):
    proof = prove(model, dictionary(), features, OTHER)
    assert proof.words.ids == (OTHER,)
    assert proof.holds() == ["fires"]
    assert proof.verdict().endswith("; no effect on what the model says is proved.")
    assert proof.measure("steer").value < 0, "other words are raised"
    own = proof.measure("own words")
    assert own.value > own.null_high(own.random), "its own words are"
    assert set(own_words(DictionarySite.of(model, dictionary()), torch.eye(D)[[OTHER]], None)[0]) == set(ELSEWHERE)


def test_a_feature_without_effect_is_not_proved(model, features):
    proof = prove(model, dictionary(), features, IDLE)
    assert set(proof.holds()) <= {"fires"}
    assert proof.measure("fires").value == 1
    assert proof.measure("ablate").value == proof.measure("steer").value == 0
    assert proof.parts["ablate"].near == (), "no effect to have a share of"


def test_shuffled_decoder_rows_leave_the_words_without_effect(model, features):
    """The encoder reads them as before; the direction is another latent's."""
    proof = prove(model, dictionary(W_dec=torch.eye(D).roll(1, 0)), features, CAUSE)
    assert proof.holds() == ["fires"]


def test_the_right_words_with_another_feature_pass_nothing(model, features):
    """A near miss: text and words of CAUSE, encoder and direction of the idle feature."""
    swapped = torch.eye(D)
    swapped[[CAUSE, IDLE]] = swapped[[IDLE, CAUSE]]
    proof = prove(model, dictionary(W_dec=swapped, W_enc=swapped.T.contiguous()), features, CAUSE)
    assert set(proof.words.ids) < set(WORDS)
    assert proof.holds() == []


def test_a_strength_that_is_given_is_not_chosen(model, features):
    largest = read_case(features, CAUSE, QUICK).max_activation
    proof = prove(model, dictionary(), features, CAUSE, replace(QUICK, strength=1 / largest))
    assert proof.strength == pytest.approx(1.0), "in units of the largest activation"
    assert proof.measure("steer").value == pytest.approx(rise(1.0, proof.words.ids), abs=1e-4)


def test_directions_that_say_whatever_they_read_are_untrained_latents_of_a_model_with_tied_embeddings(tmp_path):
    """Where unembedding is embedding, any direction says what it reads; one that reads a single token says it more."""
    model, random = planted_model(), range(10, 22)
    rows = torch.eye(D)
    rows[list(random)] = torch.randn(len(random), D, generator=torch.Generator().manual_seed(1)) / math.sqrt(D)
    with torch.no_grad():
        model.unembed.original_component.weight.copy_(torch.eye(V, D))
    sae = dictionary(rows, rows.T.contiguous())
    folder = build(tmp_path, model, sae)

    def joined(feature: int, sae=sae) -> ProofMeasure:
        return prove(model, sae, folder, feature, QUICK, tests=["joined"]).measure("joined")

    measures = [joined(feature) for feature in random]
    ps = {kind: [p_from_null(one.value, one.by_null[kind]) for one in measures] for kind in measures[0].by_null}
    assert np.mean(np.array(ps[RANDOM]) <= ALPHA) > 0.9, "on its words, a random direction says less"
    assert np.mean(np.array(ps[UNTRAINED]) <= ALPHA) < 0.2, "on its own, as much"
    assert [joined(token).p for token in (OTHER, 70)] == [0.05] * 2, "the planted ones"
    shuffled = dictionary(rows.roll(1, 0), rows.T.contiguous())
    assert min(joined(token, shuffled).p for token in (OTHER, 70)) > ALPHA


def with_texts(patch: pytest.MonkeyPatch, model, texts: dict[int, str]) -> None:
    """Give tokens of a vocabulary other texts."""
    vocabulary = vocabulary_of(model)
    named = replace(vocabulary, texts=tuple(texts.get(token, text) for token, text in enumerate(vocabulary.texts)))
    patch.setattr("saes.features.measure_proof.vocabulary_of", lambda _: named)


def test_words_come_in_every_form_and_never_from_the_lens(model, features, monkeypatch):
    site, case = DictionarySite.of(model, dictionary()), read_case(features, CAUSE, QUICK)
    with_texts(monkeypatch, model, {CAUSE: " oven", 60: "Oven", 61: "\n", 62: "\ufffd", 80: "OVEN", 81: "ovens"})
    words = proof_words(site, case, None)
    assert set(words.ids) == {CAUSE, 60, 80}, "another case, whether or not it was seen; white space is no word"
    assert [text.casefold() for text in words.texts] == ["oven"]
    assert not words.any_direction_may_pass
    with_texts(monkeypatch, model, {CAUSE: "oon", 61: "uv", 62: " red"})
    first, *others = proof_words(site, replace(case, examples=peaks(CAUSE, 61, 62)), None).texts
    assert (first, others) == ("red", ["-oon", "-uv"]), "whole words first among equals, parts of words marked"
    frequent = proof_words(site, replace(case, examples=peaks(CAUSE, 61, 62, CAUSE)), None).texts
    assert frequent == ("-oon", "red", "-uv")


def peaks(*tokens: int) -> tuple[Passage, ...]:
    """Return examples in which these tokens are the peaks of the half that chooses."""
    return tuple(
        Passage((token, ANSWER), 0, document, 2.0)
        for number, token in enumerate(tokens)
        for document in (2 * number, 2 * number + 1)
    )


def test_where_nothing_can_be_named_half_of_what_it_says_is_tested_and_the_proof_says_so(model, features, monkeypatch):
    with_texts(monkeypatch, model, dict.fromkeys(WORDS, "\n"))
    proof = prove(model, dictionary(), features, CAUSE)
    assert proof.words.any_direction_may_pass
    assert proof.words.ids[:5] == RAISED
    assert list(proof.p_holm()) == ["steer", "ablate"]
    assert set(proof.missing) == {"fires", "joined"}
    assert "its lens words" in proof.verdict()


def lists_along(direction: int) -> dict[str, WordActivations]:
    """Lists of months, which lie along a direction, and of others, which do not."""
    rng = np.random.default_rng(0)
    months = ("January", "February", "March", "April", "May", "June")
    lists = {}
    for name, at in (("months", direction), ("one", 130), ("two", 131), ("three", 132)):
        concept = WordList(name=name, words=months if name == "months" else tuple("abcdef"), cyclic=False)
        values = 4 * np.eye(D)[at] + 0.5 * rng.standard_normal((4, 6, D))
        lists[name] = WordActivations(
            concept=concept, sentences=("",) * 4, hook_points=(HOOK,), n_tokens=(1,) * 6, last_tokens=(0,) * 6,
            prefix=(), values={HOOK: values.astype(np.float32)},
        )  # fmt: skip
    return lists


def test_a_list_is_tested_where_the_words_lie_within_it(model, features, monkeypatch):
    with_texts(monkeypatch, model, dict(zip(WORDS, (" May", " June", " March", " other"), strict=True)))
    for along, holds in ((CAUSE, True), (IDLE, False)):
        monkeypatch.setattr("saes.features.measure_proof.read_lists", lambda site, done, at=along: lists_along(at))
        proof = prove(model, dictionary(), features, CAUSE)
        assert proof.measure("lists").about == "months"
        assert ("lists" in proof.holds()) == holds
        assert {"fires", "steer", "joined"} <= set(proof.holds()), "five tests are corrected for"


def lens_of(model, jacobian: np.ndarray, folder: Path) -> JacobianLens:
    """A stored lens of one layer, not measured."""
    unmeasured = Interval(math.nan, math.nan, math.nan)
    names = [*(f"kl_{name}" for name in READINGS), "below_logit", "below_mean"]
    layer = JacobianLayer(hook_point=HOOK, agreement=math.nan, gain=1.0, **dict.fromkeys(names, unmeasured))
    settings = JacobianSettings(model="tiny", weight_hash=weight_hash(model), source="planted", context_length=LENGTH)
    zero = np.zeros((1, jacobian.shape[0]), np.float32)
    arrays = {"jacobians": jacobian[None].astype(np.float16), "means": zero, "end": zero[0]}
    lens = JacobianLens(settings=settings, n_texts=1, layers=(layer,), **arrays)
    return save_artefact(lens, folder, parents={})


def test_what_is_said_behind_a_later_layer_is_read_through_the_lens_alone(tmp_path):
    """An MLP turns CAUSE into VOICE, which the logits read; directly, CAUSE raises other tokens, and but a little."""
    model = planted_model(2)
    with torch.no_grad():
        unembed = model.unembed.original_component.weight
        unembed[list(RAISED), CAUSE] = 0
        unembed[list(RAISED), VOICE] = READ[: len(RAISED)]
        unembed[70:82, CAUSE] = 0.01
        mlp = model.blocks[1].mlp
        getattr(mlp, "in").original_component.weight[0, CAUSE] = 1.0
        getattr(mlp, "in").original_component.bias[0] = 8.0  # always in the linear part
        mlp.out.original_component.bias[VOICE] = -8.0
        mlp.out.original_component.weight[VOICE, 0] = 1.0
    folder = build(tmp_path, model, dictionary())
    jacobian = np.eye(D)
    jacobian[VOICE, CAUSE] = 1.0
    lens = lens_of(model, jacobian, tmp_path / "lens")
    through = prove(model, dictionary(), folder, CAUSE, lens=lens)
    assert through.holds() == ["fires", "steer", "joined"]
    assert through.lines()[-1].endswith("through the Jacobian lens jacobian-lenses/lens.")
    directly = prove(model, dictionary(), folder, CAUSE)
    assert directly.holds() == ["fires", "steer"], "the words do not depend on the lens"
    with pytest.raises(MismatchError, match="was fitted on weights"):
        prove(planted_model(2), dictionary(), folder, CAUSE, lens=lens)


def test_directions_outside_the_residual_stream_name_no_words(model, features):
    site = DictionarySite.of(model, dictionary())
    elsewhere = replace(site, dictionary=SimpleNamespace(hook_point="blocks.0.attn.hook_z"))
    with pytest.raises(ConfigError, match="name no words"):
        own_words(elsewhere, torch.zeros(1, D), None)


@pytest.mark.slow
def test_p_is_uniform_for_random_directions_given_as_features(features):
    """The examples stay, the direction is drawn: the feature is then one more draw of the null."""
    drawn = torch.nn.functional.normalize(torch.randn(D, D, generator=torch.Generator().manual_seed(5)), dim=1)
    sae, ps = dictionary(drawn), {"ablate": [], "steer": [], "joined": []}
    config = ProofConfig(draws=19, examples=3, others=4, new_tokens=1)
    for feature in (feature for feature in range(10, 60) if feature != ANSWER):
        for row in prove(with_memory(4.0), sae, features, feature, config, seed=feature).to_records():
            if row["measure"] in ps:
                ps[row["measure"]].append(row["p_random"])
    for name, values in ps.items():
        assert 0.35 < np.mean(values) < 0.7, name
        assert np.mean(np.array(values) <= 0.1) < 0.26, name


def untrained(seed: int, folder: Path):
    """Return an untrained model with an untrained dictionary, and the tables of its features."""
    config = SmallConfig(n_layers=2, d_model=32, n_heads=4, d_mlp=64, d_vocab=V, n_ctx=32)
    model = load_model(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(150, 32, generator=generator), dim=1)
    _, values = run_with_cache(model, torch.randint(V, (40, LENGTH), generator=generator), [HOOK])
    bias = -(values[HOOK].flatten(0, 1) @ rows.T).quantile(0.97, dim=0)
    weights = Weights(rows.T.contiguous(), bias, rows, torch.zeros(32))
    sae = ReLUSAE(weights, metadata=SAEMetadata(model="tiny", hook_point=HOOK))
    return model, sae, build(folder, model, sae, n_contexts=120)


@pytest.mark.slow
def test_latents_of_untrained_dictionaries_in_untrained_models_have_no_effect_on_what_they_read(tmp_path):
    """They fire on words, as any direction does; they do not say them."""
    config = ProofConfig(draws=39, examples=4, others=4, new_tokens=1)
    effects, positive = [], 0
    for seed in range(5):
        model, sae, folder = untrained(seed, tmp_path / str(seed))
        for feature in range(8):
            proof = prove(model, sae, folder, feature, config, seed=seed)
            effects += [measure.p <= 0.05 for test in EFFECTS if (measure := proof.measure(test))]
            positive += proof.measure("own words").value > 0
    assert len(effects) > 40
    assert positive > 0.9 * 40, "words through the direction are raised, in any model"
    assert proportion_interval(sum(effects), len(effects)).low <= 0.05


def test_the_halves_share_no_document_and_weak_examples_choose_nothing(features):
    case = read_case(features, CAUSE, QUICK)
    one, two = case.halves()
    assert one
    assert two
    assert not {example.document for example in one} & {example.document for example in two}
    assert all(example.activation >= case.max_activation / 2 for example in (*one, *two))
    assert CAUSE not in case.alike
    assert len(case.alike) == QUICK.draws
    assert len({example.document for example in case.strongest(case.examples, 8)}) == 8
    assert not {example.document for example in case.judging()} & {example.document for example in one}
    assert {example.document for example in two} <= {example.document for example in case.judging()}
    passages = passages_with(features, WORDS, 12, but={0, 1, 2})
    assert len({passage.document for passage in passages} - {0, 1, 2}) == len(passages) == 12
    assert all(set(WORDS) & set(passage.token_ids) for passage in passages)
    assert passages == passages_with(features, WORDS, 12, but={0, 1, 2}), "the seed decides"
    assert passages_with(features, [], 12) == ()


def stored(model, features: Path, folder: Path, progress=None, weights: str = "tiny") -> Proof:
    """Prove and store a feature as the verb does, or resume it."""
    parents = {"features/feat": read_manifest(features).content_hash, "model:tiny": weights}
    settings = ProofSettings(**vars(QUICK), features="feat", feature=CAUSE, model="tiny")
    draft = Draft.open(folder, kind="proof", config=as_json(settings))
    parts = FinishedParts(draft.path / RESUME, parents)
    proof = prove(model, dictionary(), features, CAUSE, QUICK, progress=progress, remembered=parts)
    return save_artefact(proof, folder, parents=parents, draft=draft)


def test_the_artefact_is_whole_and_repeats_bit_for_bit(model, features, tmp_path):
    seen = []
    one, two = (
        stored(model, features, tmp_path / name, lambda done, total, info: seen.append((done, total)))
        for name in ("one", "two")
    )
    assert one.about.content_hash == two.about.content_hash
    assert verify(tmp_path / "one") == []
    assert not partial_path(tmp_path / "one").exists()
    read = open_artefact(Proof, tmp_path / "one")
    assert read.to_records() == one.to_records()
    assert read.verdict() == one.verdict()
    np.testing.assert_array_equal(read.measure("steer").random, one.measure("steer").random)
    assert all(done <= total for done, total in seen)


@pytest.mark.parametrize("stage", ["steer", "ablate", "continuations"])
def test_a_stopped_proof_resumes_after_the_last_part_with_the_same_numbers(model, features, tmp_path, stage):
    def stop(done, total, info):
        if info["stage"] == stage:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stored(model, features, tmp_path / "stopped", stop)
    parts = partial_path(tmp_path / "stopped") / RESUME
    kept = {path.stem for path in parts.glob("*.json")} - {"of"}
    assert "fires" in kept
    seen = []
    proof = stored(
        model, features, tmp_path / "stopped", lambda done, total, info: seen.append((info["stage"], done, total))
    )
    whole = stored(model, features, tmp_path / "whole")
    assert proof.about.content_hash == whole.about.content_hash
    assert proof.to_records() == whole.to_records()
    assert not (tmp_path / "stopped" / RESUME).exists()
    for name in kept:
        assert sum(stage == name for stage, *_ in seen) == 1, f"{name} ran again"
    assert seen[-1][1] == seen[-1][2]


def test_parts_of_other_weights_are_not_taken_up(model, features, tmp_path):
    def stop(done, total, info):
        if info["stage"] == "ablate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(model, features, tmp_path / "p", stop)
    other = planted_model()
    with torch.no_grad():
        other.unembed.original_component.weight[list(RAISED), CAUSE] = 2 * READ[: len(RAISED)]
    resumed = stored(other, features, tmp_path / "p", weights="other")
    afresh = prove(other, dictionary(), features, CAUSE, QUICK)
    assert resumed.to_records() == afresh.to_records()


@pytest.mark.parametrize("table", ["features", "examples"])
def test_damaged_tables_are_named(features, table, damage_file, tmp_path):
    copy = Path(shutil.copytree(features, tmp_path / "features"))
    damage_file(copy / f"{table}.parquet")
    with pytest.raises(CorruptError, match=rf"cannot read .*{table}\.parquet"):
        read_case(copy, CAUSE, QUICK)


def test_wrong_requests_say_what_to_do(model, features):
    with pytest.raises(UsageError, match="0 to 143"):
        prove(model, dictionary(), features, 999, QUICK)
    with pytest.raises(UsageError, match="never fires"):
        prove(model, dictionary(), features, D - 1, QUICK)
    for word in (V, -1):
        with pytest.raises(UsageError, match=f"got {word} to {word}"):
            prove(model, dictionary(), features, CAUSE, QUICK, words=[word])
    eye = torch.eye(D)
    elsewhere = SAEMetadata(model="tiny", hook_point="blocks.0.hook_resid_pre")
    other = ReLUSAE(Weights(eye, torch.zeros(D), eye, torch.zeros(D)), metadata=elsewhere)
    with pytest.raises(MismatchError, match="build its own features"):
        prove(model, other, features, CAUSE, QUICK)
    with pytest.raises(ConfigError, match="draws"):
        ProofConfig(draws=0)
    with pytest.raises(ConfigError, match="strength"):
        ProofConfig(strength=-1.0)
