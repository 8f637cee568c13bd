"""The proof of a feature: a planted cause is found with its known effects; random directions are not."""

import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import write_recording

from interp.artifacts import Draft, as_json, open_artefact, partial_path, read_manifest, save_artefact, verify
from interp.artifacts.draft import RESUME
from interp.errors import ConfigError, CorruptError, MismatchError, UsageError
from interp.geometry.words import Concept, WordActivations
from interp.interventions.apply import hooks_of
from interp.interventions.intervention import Intervention, Latent
from interp.interventions.site import DictionarySite, continuations, effects_of
from interp.models.adapter import run_with_cache, token_strings, weight_hash
from interp.models.small import SmallConfig, build_small
from interp.statistics import Interval, t_interval
from saes.features.answers import compare_ablation, compare_steering, feature_on_text, lists_apart
from saes.features.build import build_features
from saes.features.measure_proof import FinishedParts, ablation_changes, next_token_changes, prove, with_bos
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
from saes.features.sources import neurons_of
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.relu import ReLUSAE

D, V, LENGTH = 144, 128, 16
CAUSE, ANSWER, IDLE = 3, 7, 20
STRENGTH, READ = 2.0, 2.5
HOOK = "blocks.0.hook_resid_post"
QUICK = ProofConfig(draws=19)


def planted_model():
    """Token `t` writes STRENGTH along direction `t`; the logits read the direction of CAUSE alone, for ANSWER."""
    config = SmallConfig(n_layers=1, d_model=D, n_heads=2, d_mlp=8, d_vocab=V, n_ctx=32, normalization=None)
    model = build_small(config, seed=0, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.W_E[:, :V] = STRENGTH * torch.eye(V)
        model.unembed.original_component.weight[ANSWER, CAUSE] = READ
    return model


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


def test_a_planted_cause_has_its_known_effects(proof):
    logit = STRENGTH * READ
    told = math.log(math.exp(logit) + V - 1)
    at_peak = proof.measure("ablate at peak")
    assert at_peak.value == pytest.approx(math.log(V) - (told - logit), abs=1e-4)
    steered = proof.measure("steer")
    # the direction chose the tokens that follow: they are ANSWER; strength is the largest activation
    assert "follow" in steered.about
    assert steered.value == pytest.approx(logit - told + math.log(V), abs=1e-4)
    assert proof.measure("ablate other text").value == 0
    assert proof.measure("activation").value == pytest.approx(1, abs=1e-6)


def test_a_planted_cause_is_proved_beyond_both_nulls(proof):
    assert proof.holds() == ["ablate", "steer"]
    assert all(p == pytest.approx(0.02) for p in proof.p_holm().values()), "1 / (99 + 1), times two tests"
    assert len(proof.measure("steer").random) == len(proof.measure("steer").alike) == 99
    assert "99 of 99 random directions and 99 of 99 features of like density" in proof.verdict()
    assert "tokenizer" in proof.missing["lists"]


def test_a_feature_without_effect_is_not_proved(model, features):
    found = prove(model, dictionary(), features, IDLE)
    assert found.holds() == []
    assert found.measure("ablate").value == found.measure("steer").value == 0
    assert found.verdict().startswith("No effect beyond the null")


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


def test_latents_of_an_untrained_dictionary_in_an_untrained_model_are_not_proved(tmp_path):
    config = SmallConfig(n_layers=2, d_model=32, n_heads=4, d_mlp=64, d_vocab=V, n_ctx=32)
    model = build_small(config, seed=0, device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    rows = torch.nn.functional.normalize(torch.randn(150, 32, generator=generator), dim=1)
    _, values = run_with_cache(model, torch.randint(V, (40, LENGTH), generator=generator), [HOOK])
    bias = -(values[HOOK].flatten(0, 1) @ rows.T).quantile(0.97, dim=0)
    weights = Weights(rows.T.contiguous(), bias, rows, torch.zeros(32))
    sae = ReLUSAE(weights, metadata=SAEMetadata(model="tiny", hook_point=HOOK))
    folder = build(tmp_path, model, sae, n_contexts=120)
    config = ProofConfig(examples=4, others=4, new_tokens=1)
    held = [prove(model, sae, folder, f, config, lists=False).holds() for f in range(8)]
    assert sum(map(bool, held)) <= 1, held


def test_adding_minus_the_activation_is_splicing_with_the_latent_ablated(model):
    sae = dictionary(torch.randn(D, D, generator=torch.Generator().manual_seed(2)))
    tokens = torch.tensor([[1, CAUSE, 5, CAUSE]])
    site = DictionarySite.of(model, sae)
    reading = site.read(tokens)
    acts = site.activations(reading.x, [CAUSE])[..., 0]
    ours = effects_of(site, reading, -acts, sae.W_dec[[CAUSE]].detach(), lambda logits: logits[:, 0])
    target = Latent(dictionary="sae", index=CAUSE)
    hooks = hooks_of(model, [Intervention(target=target, action="ablate")], {"sae": sae})
    with torch.no_grad():
        torch.testing.assert_close(ours[0], model.run_with_hooks(tokens, fwd_hooks=hooks)[0], atol=1e-5, rtol=1e-5)
        steered = effects_of(site, reading, torch.full((1, 4), 3.0), sae.W_dec[[CAUSE]].detach(), lambda x: x[:, 0])
        hooks = hooks_of(model, [Intervention(target=target, amount=3.0)], {"sae": sae})
        torch.testing.assert_close(steered[0], model.run_with_hooks(tokens, fwd_hooks=hooks)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
def test_effects_are_those_of_whole_passes_with_hooks(layer):
    """Passes start behind the hook point (before the last block's end: with a hook), and read few logits."""
    model = build_small(SmallConfig(n_layers=3, d_model=32, n_heads=4, d_mlp=64, d_vocab=V, n_ctx=32), seed=1,
                        device="cpu", dtype=torch.float32)  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(40, 32, generator=generator), dim=1)
    weights = Weights(rows.T.contiguous(), torch.full((40,), -0.5), rows, torch.zeros(32))
    hook_point = f"blocks.{layer}.hook_resid_post"
    sae = ReLUSAE(weights, metadata=SAEMetadata(model="tiny", hook_point=hook_point))
    site, n_draws = DictionarySite.of(model, sae), 4
    assert site.start == 2
    passage = Passage(tuple(torch.randint(V, (12,), generator=generator).tolist()), 5, 0, 1.0)
    tokens = with_bos(model, [passage])[0]
    acts = sae.encode(run_with_cache(model, tokens, [hook_point])[1][hook_point])[0].clone()
    acts[: site.first] = 0
    late = (acts > 0).float().argmax(0)  # position from which each latent fires
    feature = int(torch.where((acts > 0).any(0), late, 0).argmax())
    assert late[feature] > 0, "some positions come before"
    directions = site.nulls(feature, [], n_draws, 0)

    def slowly(prompt, amounts, direction):
        def add(value, hook):
            return value + amounts[None, :, None] * direction

        return model.run_with_hooks(prompt, fwd_hooks=[(hook_point, add)]).log_softmax(-1)

    with torch.no_grad():
        clean = slowly(tokens, torch.zeros(len(acts)), directions[0])[0]
        found = ablation_changes(site, [passage], feature, directions)[:, 0]
        assert found.abs().max() > 1e-3
        for each, direction in zip(found, directions, strict=True):
            changed = clean - slowly(tokens, -acts[:, feature], direction)[0]
            expected = changed[:-1].gather(1, tokens[0, 1:, None])[:, 0]
            torch.testing.assert_close(each, expected, atol=1e-4, rtol=1e-4)
        strength = torch.full((len(acts),), 3.0)
        strength[: site.first] = 0
        moved, shift = next_token_changes(site, [tokens], 3.0, directions, [5, 9])
        for at, direction in enumerate(directions):
            last = slowly(tokens, strength, direction)[0, -1]
            np.testing.assert_allclose(moved[at, 0], (last - clean[-1])[[5, 9]], atol=1e-4)
            assert shift[at, 0] == pytest.approx(float((clean[-1].exp() * (clean[-1] - last)).sum()), abs=1e-4)
        told = continuations(site, tokens, 3.0, directions[:1], 3)
        grown = tokens
        for _ in range(3):
            steady = torch.full((grown.shape[1],), 3.0)
            steady[: site.first] = 0
            grown = torch.cat([grown, slowly(grown, steady, directions[0])[:, -1].argmax(-1)[:, None]], 1)
        assert told[1] == "".join(token_strings(model, grown[0, -3:]))


def test_padding_does_not_change_the_effects(model):
    site = DictionarySite.of(model, dictionary())
    passages = [Passage((1, CAUSE, ANSWER), 1, 0, 2.0), Passage((4, 5, CAUSE, ANSWER, 6, 8), 2, 1, 2.0)]
    directions = dictionary().W_dec[[CAUSE]].detach()
    both = ablation_changes(site, passages, CAUSE, directions)
    for at, each in enumerate(passages):
        alone = ablation_changes(site, [each], CAUSE, directions)
        torch.testing.assert_close(both[:, at, : alone.shape[2]], alone[:, 0])
        assert not both[:, at, alone.shape[2] :].any()
    assert with_bos(model, passages)[1].tolist() == [3, 6]


def test_neurons_are_proved_likewise(tmp_path):
    """A neuron that reads CAUSE and raises ANSWER; its ablation is exact at the output of the MLP."""
    model = planted_model()
    with torch.no_grad():
        model.unembed.original_component.weight.zero_()
        model.unembed.original_component.weight[ANSWER, V + 1] = READ
        getattr(model.blocks[0].mlp, "in").original_component.weight[0, CAUSE] = 5.0
        model.blocks[0].mlp.out.original_component.weight[V + 1, 0] = 1.0
        for neuron in range(1, 8):  # idle neurons that fire on other tokens
            getattr(model.blocks[0].mlp, "in").original_component.weight[neuron, 10 + neuron] = 5.0
            model.blocks[0].mlp.out.original_component.weight[V + 1 + neuron, neuron] = 1.0
    place = "blocks.0.mlp.hook_post"
    neurons = neurons_of(model, place)
    folder = build(tmp_path, model, neurons, hook_point=place)
    found = prove(model, neurons, folder, 0, QUICK, lists=False)
    logit = 5 * STRENGTH * READ
    assert found.measure("ablate at peak").value == pytest.approx(math.log(V), rel=1e-3)
    assert found.measure("steer").value == pytest.approx(
        logit - math.log(math.exp(logit) + V - 1) + math.log(V), rel=1e-3
    )


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


@pytest.mark.parametrize("stage", ["ablate", "ablate other text", "steer", "continuations"])
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
        if info["stage"] == "steer":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(model, features, tmp_path / "p", stop)
    other = planted_model()
    with torch.no_grad():
        other.unembed.original_component.weight[ANSWER, CAUSE] = 2 * READ
    resumed = stored(other, features, tmp_path / "p", weights="other")
    afresh = prove(other, dictionary(), features, CAUSE, QUICK)
    assert resumed.to_records() == afresh.to_records()


def test_the_page_gets_every_number_with_its_nulls(model, features):
    site, sae_case = DictionarySite.of(model, dictionary()), read_case(features, CAUSE, QUICK)
    firings = feature_on_text(site, sae_case, torch.tensor([[5, CAUSE, 6]]))
    assert firings.activations == [0, STRENGTH, 0]
    assert len(firings.alike) == QUICK.draws
    rows = compare_steering(site, sae_case, torch.tensor([[5, 6]]), 4.0, 3)
    assert [row.name for row in rows] == ["unchanged", "feature", "random direction", f"feature {sae_case.alike[0]}"]
    assert rows[0].kl == 0
    assert rows[1].kl > rows[2].kl
    assert rows[1].text == "".join(str(ANSWER) * 3)
    assert rows[1].moved[0][0] == str(ANSWER)
    examples = compare_ablation(site, sae_case, QUICK)
    assert len(examples) == 4
    assert all(each.change > max(each.random) and len(each.random) == len(each.alike) == 5 for each in examples)


def test_lists_of_words_are_set_apart_by_their_own_direction_only():
    """The spread-out lists of a model without text: the mean of one list is its direction, a random one is none."""
    rng = np.random.default_rng(0)
    model, concepts = (
        planted_model(),
        [Concept(name=name, words=tuple("abcdef"), cyclic=False) for name in ("one", "two", "three", "four")],
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
    found = lists_apart(site, 2, lists)
    assert found.set_apart == ["three"]
    assert {row["name"]: row["p"] <= found.alpha for row in found.lists} == {
        "one": False, "two": False, "three": True, "four": False
    }  # fmt: skip
    assert lists_apart(site, 50, lists).set_apart == []


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


def judged(*names: str, n_alike: int = 99, ablated: Interval | None = None) -> Proof:
    """A proof in which every measure exceeds all directions of its nulls."""
    above = Interval(2.0, 1.0, 3.0)
    measures = tuple(
        measure_of(name, {"ablate": ablated or above, "steer": above, "lists": 2.0}[name], "", 1 if ablated else 4,
                   (np.zeros(99), np.zeros(n_alike)))
        for name in names
    )  # fmt: skip
    about = ProofSettings(features="toy", feature=1, model="toy")
    parts = {each.name: ProofPart(measures=(each,)) for each in measures}
    return Proof(settings=about, label="", hook_point=HOOK, strength=1.0, parts=parts, alike=())


def test_a_single_example_decides_nothing():
    alone = judged("ablate", ablated=t_interval(np.array([2.0])))
    assert alone.holds() == []
    assert alone.verdict().startswith("Undecided: one example only")
    with_lists = judged("ablate", "lists", ablated=t_interval(np.array([2.0])))
    assert with_lists.holds() == ["lists"], "lists have no interval"
    assert "undecided: one example only" in with_lists.sentence("ablate")


@pytest.mark.parametrize(
    ("n", "says"),
    [
        (0, "no feature of like density"),
        (1, "only 1 feature of like density"),
        (58, "only 58 features of like density"),
    ],
)
def test_too_few_features_of_like_density_leave_three_tests_undecided(n, says):
    found = judged("ablate", "steer", "lists", n_alike=n)
    assert found.holds() == []
    assert found.verdict().startswith(f"Undecided: {says}, 59 are needed")
    assert f"undecided: {says}, 59 are needed" in found.sentence("steer")
    assert judged("ablate", "steer", "lists", n_alike=59).holds() == ["ablate", "steer", "lists"]
