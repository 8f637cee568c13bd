"""The proof of a feature: a planted cause is found with its known effects; random directions are not."""

import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from architectures import blank
from planted import write_recording

from interp.artifacts import Draft, as_json, open_artefact, partial_path, read_manifest, save_artefact, verify
from interp.artifacts.draft import RESUME
from interp.errors import ConfigError, CorruptError, MismatchError, UsageError
from interp.geometry.words import WordActivations, WordList
from interp.interventions.apply import hooks_of
from interp.interventions.arms import positions_from, read_arms
from interp.interventions.intervention import Intervention, Latent
from interp.interventions.site import DictionarySite, continuations
from interp.lenses.jacobian_lens import READINGS, JacobianLayer, JacobianLens, JacobianSettings
from interp.lenses.vocabulary import vocabulary_of
from interp.models.adapter import run_with_cache, token_strings, weight_hash
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from interp.statistics import Interval, proportion_interval, t_interval
from saes.acts.features import NEW_TOKENS, Ablate, ReadText, SeparateLists, Steer
from saes.acts.session import Session, TokenPace
from saes.features.build import build_features
from saes.features.measure_proof import (
    STRENGTHS,
    FinishedParts,
    ablation_changes,
    next_token_changes,
    prove,
    with_bos,
    words_of,
)
from saes.features.proof import (
    Passage,
    Proof,
    ProofConfig,
    ProofMeasure,
    ProofPart,
    ProofSettings,
    measure_of,
    read_case,
)
from saes.features.schema import Features
from saes.features.sources import neurons_of
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE

D, V, LENGTH = 144, 128, 16
CAUSE, ANSWER, IDLE, VOICE = 3, 7, 20, V + 1
ANSWERS = (ANSWER, *range(40, 51))
"""tokens that CAUSE raises, the strongest first"""
STRENGTH = 2.0
READ = 2.5 - 0.01 * torch.arange(len(ANSWERS), dtype=torch.float32)
HOOK = "blocks.0.hook_resid_post"
QUICK = ProofConfig(draws=19)


def planted_model(n_layers: int = 1):
    """Token `t` writes STRENGTH along direction `t`; the logits read the direction of CAUSE alone, for ANSWERS."""
    model = blank(n_layers=n_layers, d_model=D, n_heads=2, d_mlp=8, d_vocab=V, n_ctx=32)
    with torch.no_grad():
        model.W_E[:, :V] = STRENGTH * torch.eye(V)
        model.unembed.original_component.weight[list(ANSWERS), CAUSE] = READ
    return model


def told(activation: float, half: slice = slice(None)) -> float:
    """Rise of the mean log-probability of ANSWERS when the last residual has an activation along CAUSE."""
    logits = torch.zeros(V)
    logits[list(ANSWERS)] = activation * READ
    return float((logits.log_softmax(-1)[list(ANSWERS)[half]]).mean()) + math.log(V)


def dictionary(W_dec: torch.Tensor | None = None) -> ReLUSAE:
    """The coordinates as latents; `W_dec` replaces what they write."""
    eye = torch.eye(D)
    weights = Weights(eye, torch.zeros(D), eye if W_dec is None else W_dec, torch.zeros(D))
    return ReLUSAE(weights, metadata=SAEMetadata(model="tiny", hook_point=HOOK))


def build(folder: Path, model, sae, *, hook_point: str = HOOK, n_contexts: int = 240) -> Path:
    """Feature tables over random tokens in which CAUSE is followed by ANSWER."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(V, (n_contexts, LENGTH), generator=generator)
    row, at = (tokens[:, :-1] == CAUSE).nonzero(as_tuple=True)
    tokens[row, at + 1] = ANSWER
    _, values = run_with_cache(model, tokens, [hook_point])
    document = torch.arange(n_contexts).repeat_interleave(LENGTH)
    recording = write_recording(
        folder / "rec", values[hook_point].flatten(0, 1), tokens.flatten(), document, context_length=LENGTH,
        shard_contexts=60, hook_point=hook_point, weight_hash=weight_hash(model),
    )  # fmt: skip
    build_features(sae, recording, model, folder / "feat", dictionary_name="sae:planted", window=6)
    return folder / "feat"


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def features(model, tmp_path_factory):
    return build(tmp_path_factory.mktemp("proof"), model, dictionary())


@pytest.fixture(scope="module")
def proof(model, features):
    return prove(model, dictionary(), features, CAUSE)


HELD_BACK, CHOOSE = slice(0, None, 2), slice(1, None, 2)


def test_a_planted_cause_has_its_known_effects(proof):
    chosen = max((each * STRENGTH for each in STRENGTHS), key=lambda each: told(each, CHOOSE))
    assert proof.strength == chosen
    steered = proof.measure("steer")
    assert steered.value == pytest.approx(told(chosen, HELD_BACK), abs=1e-4)
    assert steered.about == ", ".join(map(str, ANSWERS[HELD_BACK]))
    assert proof.measure("ablate loss at peak").value == pytest.approx(told(STRENGTH, slice(1)), abs=1e-4)
    followed = [min(proof.settings.after, len(each.tokens) - 1 - each.peak) for each in proof.examples]
    once = told(STRENGTH, HELD_BACK) * np.mean([1 / n for n in followed])  # it fires at the peak alone
    assert proof.measure("ablate").value == pytest.approx(once, abs=1e-4)
    assert proof.measure("ablate loss, other text").value == 0
    assert proof.measure("activation").value == pytest.approx(1, abs=1e-6)


def test_a_planted_cause_is_proved_beyond_both_nulls(proof):
    assert proof.holds() == ["steer", "ablate"]
    assert all(p == pytest.approx(0.02) for p in proof.p_holm().values()), "1 / (99 + 1), times two tests"
    assert len(proof.measure("steer").random) == len(proof.measure("steer").alike) == 99
    first, shift, *_ = proof.lines()
    assert first.startswith(
        "2 of 2 tests hold (Holm's correction at 0.05). Steering along it raises its held-back words"
    )
    assert (
        "more than 99 of 99 random directions raise theirs and 99 of 99 features of like density raise these" in first
    )
    assert first.endswith(": it holds.")
    assert shift.startswith("The next token then shifts by")
    assert "direct effect" in proof.lines()[-1]
    assert "tokenizer" in proof.missing["lists"]


def test_a_strength_that_is_given_is_not_chosen(model, features):
    largest = read_case(features, CAUSE, QUICK).max_activation
    given = prove(model, dictionary(), features, CAUSE, replace(QUICK, strength=1 / largest), lists=False)
    assert given.strength == pytest.approx(1.0), "in units of the largest activation"
    assert given.measure("steer").value == pytest.approx(told(1.0, HELD_BACK), abs=1e-4)


def test_a_feature_without_effect_is_not_proved(model, features):
    found = prove(model, dictionary(), features, IDLE)
    assert found.holds() == []
    assert found.measure("ablate").value == found.measure("steer").value == 0
    assert found.verdict().startswith("No effect beyond the null in 2 tests")
    assert "more than 0 of 99 random directions raise theirs" in found.verdict()


def test_words_are_those_of_the_page_and_forms_of_one_stay_together(model, features):
    """Without a lens they are the stored tokens of the direct effect, as the page shows them."""
    site = DictionarySite.of(model, dictionary())
    words = words_of(site, site.arms(CAUSE, [IDLE], 4, 0).vectors, 4, None)
    shown = open_artefact(Features, features).features.query("select promoted_tokens from t where feature = 3")
    stored = shown["promoted_tokens"][0].as_py()
    assert [str(token) for token in ANSWERS[: len(stored)]] == stored
    choose, judge = ([words.ids[at] for at in half] for half in words.halves[0])
    assert (choose, judge) == (list(ANSWERS[CHOOSE]), list(ANSWERS[HELD_BACK]))
    assert words.halves[5] == words.halves[0], "features of like density are measured on the same words"
    assert any(words.halves[at] != words.halves[0] for at in range(1, 5)), "random directions on their own"
    lowered = words_of(site, site.arms(CAUSE, [], 0, 0).vectors, 0, None, sign=-1.0)
    assert not set(lowered.ids) & set(ANSWERS)
    vocabulary = vocabulary_of(model)
    forms = {token: f" {'oven' if token in (7, 41, 44) else token}" for token in ANSWERS}
    texts = tuple(forms.get(token, str(token)) for token in range(V))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saes.features.measure_proof.vocabulary_of", lambda _: replace(vocabulary, texts=texts))
        judge = words_of(site, site.arms(CAUSE, [], 0, 0).vectors, 0, None).halves[0][1]
    assert len({7, 41, 44} & {sorted(ANSWERS)[at] for at in judge}) == 3


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


def test_words_behind_a_later_layer_are_found_through_the_lens_alone(tmp_path):
    """An MLP turns CAUSE into VOICE, which the logits read; directly, CAUSE raises other tokens, and but a little."""
    model = planted_model(2)
    with torch.no_grad():
        unembed = model.unembed.original_component.weight
        unembed.zero_()
        unembed[list(ANSWERS), VOICE] = READ
        unembed[60:72, CAUSE] = 0.01
        mlp = model.blocks[1].mlp
        getattr(mlp, "in").original_component.weight[0, CAUSE] = 1.0
        getattr(mlp, "in").original_component.bias[0] = 8.0  # always in the linear part
        mlp.out.original_component.bias[VOICE] = -8.0
        mlp.out.original_component.weight[VOICE, 0] = 1.0
    folder = build(tmp_path, model, dictionary())
    jacobian = np.eye(D)
    jacobian[VOICE, CAUSE] = 1.0
    lens = lens_of(model, jacobian, tmp_path / "lens")
    through = prove(model, dictionary(), folder, CAUSE, lens=lens, lists=False)
    assert through.holds() == ["steer", "ablate"]
    assert through.measure("steer").about.startswith("7, ")
    assert through.lines()[-1].endswith("through the Jacobian lens jacobian-lenses/lens.")
    directly = prove(model, dictionary(), folder, CAUSE, lists=False)
    assert directly.holds() == []
    assert "60" in directly.measure("steer").about
    with pytest.raises(MismatchError, match="was fitted on weights"):
        prove(planted_model(2), dictionary(), folder, CAUSE, lens=lens)


def test_directions_outside_the_residual_stream_name_no_words(model, features):
    site = DictionarySite.of(model, dictionary())
    elsewhere = replace(site, dictionary=SimpleNamespace(hook_point="blocks.0.attn.hook_z"))
    with pytest.raises(ConfigError, match="name no words"):
        words_of(elsewhere, torch.zeros(1, D), 0, None)


@pytest.mark.slow
def test_p_is_uniform_for_random_directions_given_as_features(model, features):
    """The examples stay, the direction is drawn: the feature is then one more draw of the null."""
    drawn = torch.nn.functional.normalize(torch.randn(D, D, generator=torch.Generator().manual_seed(5)), dim=1)
    sae, found, holding = dictionary(drawn), {"ablate": [], "steer": []}, 0
    config = ProofConfig(draws=19, examples=3, others=4, new_tokens=1)
    for feature in range(10, 60):
        proof = prove(model, sae, features, feature, config, lists=False, seed=feature)
        holding += bool(proof.holds())
        for name, ps in found.items():
            ps.append(next(r["p_random"] for r in proof.to_records() if r["measure"] == name))
    assert holding == 0
    for name, ps in found.items():
        assert 0.35 < np.mean(ps) < 0.7, name
        assert np.mean(np.array(ps) <= 0.1) < 0.26, name


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
def test_latents_of_untrained_dictionaries_in_untrained_models_are_not_proved(tmp_path):
    """Every direction raises what it says; these do no more than random directions raise theirs."""
    config = ProofConfig(draws=39, examples=4, others=4, new_tokens=1)
    held, positive = [], 0
    for seed in range(5):
        model, sae, folder = untrained(seed, tmp_path / str(seed))
        for feature in range(8):
            found = prove(model, sae, folder, feature, config, lists=False, seed=seed)
            held.append(bool(found.holds()))
            positive += found.measure("steer").value > 0
    assert positive > 0.9 * len(held), "words through the direction are raised, in any model"
    assert proportion_interval(sum(held), len(held)).low <= 0.05
    assert sum(held) <= 2, "at most 5 %"


def test_adding_minus_the_activation_is_splicing_with_the_latent_ablated(model):
    sae = dictionary(torch.randn(D, D, generator=torch.Generator().manual_seed(2)))
    tokens = torch.tensor([[1, CAUSE, 5, CAUSE]])
    site = DictionarySite.of(model, sae)
    reading = site.read(tokens)
    acts = site.activations(reading.x, [CAUSE])[..., 0]
    arms, removed = site.arms(CAUSE, [], 0, 0), replace(reading.prefix, sizes=-acts)
    every = {"read": lambda logits: logits[:, 0], "at": positions_from(tokens, 0)}
    ours = read_arms(model, removed, arms, **every)
    target = Latent(dictionary="sae", index=CAUSE)
    hooks = hooks_of(model, [Intervention(target=target, action="ablate")], {"sae": sae})
    with torch.no_grad():
        torch.testing.assert_close(ours[1], model.run_with_hooks(tokens, fwd_hooks=hooks)[0], atol=1e-5, rtol=1e-5)
        steered = read_arms(model, reading.prefix, arms.times(3.0), **every)
        hooks = hooks_of(model, [Intervention(target=target, amount=3.0)], {"sae": sae})
        torch.testing.assert_close(steered[1], model.run_with_hooks(tokens, fwd_hooks=hooks)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
def test_effects_are_those_of_whole_passes_with_hooks(layer):
    """Passes start behind the hook point (before the last block's end: with a hook), and read few logits."""
    model = load_model(SmallConfig(n_layers=3, d_model=32, n_heads=4, d_mlp=64, d_vocab=V, n_ctx=32), seed=1)
    generator = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(40, 32, generator=generator), dim=1)
    weights = Weights(rows.T.contiguous(), torch.full((40,), -0.5), rows, torch.zeros(32))
    hook_point = f"blocks.{layer}.hook_resid_post"
    sae = ReLUSAE(weights, metadata=SAEMetadata(model="tiny", hook_point=hook_point))
    site, n_draws = DictionarySite.of(model, sae), 4
    passage = Passage(tuple(torch.randint(V, (12,), generator=generator).tolist()), 5, 0, 1.0)
    tokens = with_bos(model, [passage])[0]
    acts = sae.encode(run_with_cache(model, tokens, [hook_point])[1][hook_point])[0].clone()
    acts[: site.first] = 0
    late = (acts > 0).float().argmax(0)  # position from which each latent fires
    feature = int(torch.where((acts > 0).any(0), late, 0).argmax())
    assert late[feature] > 0, "some positions come before"
    arms = site.arms(feature, [], n_draws, 0)
    directions = arms.vectors
    assert arms.start(model) == 2

    def slowly(prompt, amounts, direction):
        def add(value, hook):
            return value + amounts[None, :, None] * direction

        return model.run_with_hooks(prompt, fwd_hooks=[(hook_point, add)]).log_softmax(-1)

    with torch.no_grad():
        clean = slowly(tokens, torch.zeros(len(acts)), directions[0])[0]
        found = ablation_changes(site, [passage], feature, arms, ids=[5, 9])[:, 0]
        assert found.abs().max() > 1e-3
        for each, direction in zip(found, directions, strict=True):
            changed = slowly(tokens, -acts[:, feature], direction)[0] - clean
            asked = torch.cat([tokens[0, 1:, None], torch.tensor([[5, 9]]).expand(len(changed) - 1, -1)], 1)
            expected = changed[:-1].gather(1, asked)
            torch.testing.assert_close(each, expected, atol=1e-4, rtol=1e-4)
        strength = torch.full((len(acts),), 3.0)
        strength[: site.first] = 0
        moved, shift = next_token_changes(site, [tokens], arms.times(3.0), [5, 9])
        for at, direction in enumerate(directions):
            last = slowly(tokens, strength, direction)[0, -1]
            np.testing.assert_allclose(moved[at, 0], (last - clean[-1])[[5, 9]], atol=1e-4)
            assert shift[at, 0] == pytest.approx(float((clean[-1].exp() * (clean[-1] - last)).sum()), abs=1e-4)
        told = continuations(site, tokens, arms.part([0]).times(3.0), 3)
        grown = tokens
        for _ in range(3):
            steady = torch.full((grown.shape[1],), 3.0)
            steady[: site.first] = 0
            grown = torch.cat([grown, slowly(grown, steady, directions[0])[:, -1].argmax(-1)[:, None]], 1)
        assert told[1] == "".join(token_strings(model, grown[0, -3:]))


def test_padding_does_not_change_the_effects(model):
    site = DictionarySite.of(model, dictionary())
    passages = [Passage((1, CAUSE, ANSWER), 1, 0, 2.0), Passage((4, 5, CAUSE, ANSWER, 6, 8), 2, 1, 2.0)]
    arms = site.arms(CAUSE, [], 0, 0)
    both = ablation_changes(site, passages, CAUSE, arms)
    for at, each in enumerate(passages):
        alone = ablation_changes(site, [each], CAUSE, arms)
        torch.testing.assert_close(both[:, at, : alone.shape[2]], alone[:, 0])
        assert not both[:, at, alone.shape[2] :].any()
    assert with_bos(model, passages)[1].tolist() == [3, 6]


def test_neurons_are_proved_likewise(tmp_path):
    """A neuron that reads CAUSE and raises ANSWER; its ablation is exact at the output of the MLP."""
    model = planted_model()
    with torch.no_grad():
        model.unembed.original_component.weight.zero_()
        model.unembed.original_component.weight[list(ANSWERS), VOICE] = READ
        getattr(model.blocks[0].mlp, "in").original_component.weight[0, CAUSE] = 5.0
        model.blocks[0].mlp.out.original_component.weight[VOICE, 0] = 1.0
        for neuron in range(1, 8):  # idle neurons that fire on other tokens
            getattr(model.blocks[0].mlp, "in").original_component.weight[neuron, 10 + neuron] = 5.0
            model.blocks[0].mlp.out.original_component.weight[VOICE + neuron, neuron] = 1.0
    place = "blocks.0.mlp.hook_post"
    neurons = neurons_of(model, place)
    folder = build(tmp_path, model, neurons, hook_point=place)
    found = prove(model, neurons, folder, 0, QUICK, lists=False)
    assert found.measure("ablate loss at peak").value == pytest.approx(told(5 * STRENGTH, slice(1)), rel=1e-3)
    assert found.measure("steer").value == pytest.approx(told(found.strength, HELD_BACK), rel=1e-3)


def test_the_halves_share_no_document_and_weak_examples_choose_nothing(features):
    case = read_case(features, CAUSE, QUICK)
    one, two = case.halves()
    assert one
    assert two
    assert not {each.document for each in one} & {each.document for each in two}
    assert all(each.activation >= case.max_activation / 2 for each in (*one, *two))
    assert CAUSE not in case.alike
    assert len(case.alike) == QUICK.draws
    assert len({each.document for each in case.strongest(8)}) == 8


def stored(model, features: Path, folder: Path, progress=None, weights: str = "tiny") -> Proof:
    """Prove and store a feature as the verb does, or resume it."""
    parents = {"features/feat": read_manifest(features).content_hash, "model:tiny": weights}
    settings = ProofSettings(**vars(QUICK), features="feat", feature=CAUSE, model="tiny")
    draft = Draft.open(folder, kind="proof", config=as_json(settings))
    parts = FinishedParts(draft.path / RESUME, parents)
    how = {"model_name": "tiny", "progress": progress, "remembered": parts}
    found = prove(model, dictionary(), features, CAUSE, QUICK, **how)
    return save_artefact(found, folder, parents=parents, draft=draft)


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


@pytest.mark.parametrize("stage", ["steer", "ablate", "ablate other text", "continuations"])
def test_a_stopped_proof_resumes_after_the_last_part_with_the_same_numbers(model, features, tmp_path, stage):
    def stop(done, total, info):
        if info["stage"] == stage:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stored(model, features, tmp_path / "stopped", stop)
    parts = partial_path(tmp_path / "stopped") / RESUME
    kept = {path.stem for path in parts.glob("*.json")} - {"of"}
    assert "activation" in kept
    seen = []
    proof = stored(model, features, tmp_path / "stopped", lambda *told: seen.append((told[2]["stage"], *told[:2])))
    whole = stored(model, features, tmp_path / "whole")
    assert proof.about.content_hash == whole.about.content_hash
    assert proof.to_records() == whole.to_records()
    assert not (tmp_path / "stopped" / RESUME).exists()
    for name in kept:
        assert sum(each == name for each, *_ in seen) == 1, f"{name} ran again"
    assert seen[-1][1] == seen[-1][2]


def test_parts_of_other_weights_are_not_taken_up(model, features, tmp_path):
    def stop(done, total, info):
        if info["stage"] == "ablate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(model, features, tmp_path / "p", stop)
    other = planted_model()
    with torch.no_grad():
        other.unembed.original_component.weight[list(ANSWERS), CAUSE] = 2 * READ
    resumed = stored(other, features, tmp_path / "p", weights="other")
    afresh = prove(other, dictionary(), features, CAUSE, QUICK)
    assert resumed.to_records() == afresh.to_records()


class Planted(Session):
    """A run with the planted model, whose prompts are the numbers of tokens, and one feature of its dictionary."""

    def __init__(self, site: DictionarySite, case: Any, lists: Any = None):
        self.site, self.case, self.words, self._pace = site, case, lists, TokenPace()

    def described(self, features):
        return SimpleNamespace(settings=SimpleNamespace(model="tiny"))

    def model(self, spec):
        return self.site.model

    def prompt(self, text, spec, chat=False):
        return self.site.model, torch.tensor([[int(word) for word in text.split()]])

    def feature(self, features, feature, model):
        return self.site, self.case

    def lists(self, spec, site):
        return self.words

    def check(self, stage=""):
        pass


def test_the_page_gets_every_number_with_its_nulls(model, features):
    site, sae_case = DictionarySite.of(model, dictionary()), read_case(features, CAUSE, QUICK)
    run, asked = Planted(site, sae_case), {"features": "feat", "feature": CAUSE}
    firings = ReadText(**asked, text=f"5 {CAUSE} 6").measure(run)
    assert firings.activations == [0, STRENGTH, 0]
    assert len(firings.alike) == QUICK.draws
    rows = Steer(**asked, text="5 6", strength=4 / sae_case.max_activation).measure(run)
    assert [row.name for row in rows] == ["unchanged", "feature", "random direction", f"feature {sae_case.alike[0]}"]
    assert rows[0].kl == 0
    assert rows[1].kl > rows[2].kl
    assert rows[1].text == str(ANSWER) * NEW_TOKENS
    assert rows[1].moved[0][0] == str(ANSWER)
    for nulls, n in (("quick", 5), ("standard", 19)):
        examples = Ablate(**asked, nulls=nulls).measure(run)
        assert len(examples) == 4
        assert all(each.change > max(each.random) and len(each.random) == len(each.alike) == n for each in examples)


def test_lists_of_words_are_set_apart_by_their_own_direction_only():
    """The spread-out lists of a model without text: the mean of one list is its direction, a random one is none."""
    rng = np.random.default_rng(0)
    model, concepts = (
        planted_model(),
        [WordList(name=name, words=tuple("abcdef"), cyclic=False) for name in ("one", "two", "three", "four")],
    )
    shifts = 4 * np.eye(D)[: len(concepts)]
    lists = {
        each.name: WordActivations(
            concept=each, sentences=("",) * 4, hook_points=(HOOK,), n_tokens=(1,) * 6, last_tokens=(0,) * 6,
            prefix=(), values={HOOK: (shift + 0.5 * rng.standard_normal((4, 6, D))).astype(np.float32)},
        )
        for each, shift in zip(concepts, shifts, strict=True)
    }  # fmt: skip
    site = DictionarySite.of(model, dictionary())
    run = Planted(site, None, lists)
    found = SeparateLists(features="feat", feature=2).measure(run)
    assert found.set_apart == ["three"]
    assert {row["name"]: row["p"] <= found.alpha for row in found.lists} == {
        "one": False, "two": False, "three": True, "four": False
    }  # fmt: skip
    assert SeparateLists(features="feat", feature=50).measure(run).set_apart == []


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
    eye = torch.eye(D)
    elsewhere = SAEMetadata(model="tiny", hook_point="blocks.0.hook_resid_pre")
    other = ReLUSAE(Weights(eye, torch.zeros(D), eye, torch.zeros(D)), metadata=elsewhere)
    with pytest.raises(MismatchError, match="build its own features"):
        prove(model, other, features, CAUSE, QUICK)
    with pytest.raises(ConfigError, match="draws"):
        ProofConfig(draws=0)
    with pytest.raises(ConfigError, match="strength"):
        ProofConfig(strength=-1.0)


def test_a_test_needs_both_nulls_and_an_interval_above_zero():
    def measure(value, low, random, alike):
        return ProofMeasure(
            name="steer", value=value, low=low, high=value + 1, unit="nats", n=4,
            random=np.array(random, float), alike=np.array(alike, float),
        )  # fmt: skip

    assert measure(2.0, 1.0, [0] * 99, [0] * 99).p == 0.01
    assert measure(2.0, 1.0, [0] * 99, [3] * 99).p == 1.0
    assert measure(2.0, 1.0, [0] * 99, []).p == 1.0, "a null is missing"


def judged(**measured: tuple[Interval, int, int]) -> Proof:
    """A proof by the interval of each test, and the number of the 99 directions of each null that it exceeds."""
    measures = tuple(
        measure_of(name, interval, "nats", 4, [np.repeat([-9.0, 9.0], [n, 99 - n]) for n in exceeds])
        for name, (interval, *exceeds) in measured.items()
    )
    about = ProofSettings(features="toy", feature=1, model="toy")
    parts = {each.name: ProofPart(measures=(each,)) for each in measures}
    return Proof(settings=about, label="", hook_point=HOOK, strength=1.0, lens="", parts=parts, alike=())


ABOVE, AROUND = Interval(2.0, 1.0, 3.0), Interval(0.4, -0.1, 0.9)


@pytest.mark.parametrize(
    ("steer", "ablate", "count", "outcome"),
    [
        ((ABOVE, 99, 99), (ABOVE, 99, 99), "2 of 2 tests hold", "it holds"),
        ((ABOVE, 99, 99), (AROUND, 50, 50), "1 of 2 tests holds", "it holds"),
        ((AROUND, 98, 99), (AROUND, 50, 50), "None of 2 tests holds", "it does not hold: its interval includes 0"),
        ((ABOVE, 96, 96), (AROUND, 50, 50), "None of 2 tests holds", "it does not hold: not after the correction"),
        ((ABOVE, 99, 60), (AROUND, 50, 50), "None of 2 tests holds",
         "it does not hold: not beyond features of like density"),
        ((AROUND, 60, 99), (ABOVE, 50, 50), "None of 2 tests holds",
         "it does not hold: not beyond random directions and its interval includes 0"),
        ((ABOVE, 60, 80), (ABOVE, 94, 94), "No effect beyond the null in 2 tests", "no effect beyond the null"),
    ],
)  # fmt: skip
def test_a_verdict_says_which_draws_are_exceeded_and_what_is_missing(steer, ablate, count, outcome):
    found = judged(steer=steer, ablate=ablate)
    assert found.verdict().startswith(count)
    first = found.lines()[0]
    assert first.endswith(f": {outcome}.")
    assert f"more than {steer[1]} of 99 random directions raise theirs and {steer[2]} of 99 features" in first
    assert f"{steer[0].estimate:.2f} nats ({steer[0].low:.2f} to {steer[0].high:.2f})" in first
    assert ("o effect beyond the null" in first) == (max(steer[1:]) < 95)


def test_a_single_example_decides_nothing():
    few = t_interval(np.array([2.0]))
    alone = replace_n(judged(ablate=(few, 99, 99)))
    assert alone.holds() == []
    assert alone.verdict().startswith("Undecided: one example only")
    with_lists = replace_n(judged(ablate=(few, 99, 99), lists=(few, 99, 99)))
    assert with_lists.holds() == ["lists"], "lists have no interval"
    assert "undecided: one example only" in with_lists.verdict()


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
        found = judged(steer=(ABOVE, 99, 99), ablate=(ABOVE, 99, 99), lists=(ABOVE, 99, 99))
        few = {name: ProofPart(measures=(replace(part.measures[0], alike=np.zeros(n_alike)),))
               for name, part in found.parts.items()}  # fmt: skip
        return replace(found, parts=few)

    assert proof(n).holds() == []
    assert proof(n).verdict().startswith(f"Undecided: {says}, 59 are needed")
    assert f": undecided: {says}, 59 are needed" in proof(n).verdict()
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
