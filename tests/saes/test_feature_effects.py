"""Effects of features are those of whole passes, and single answers about one stand beside their controls."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from planted_feature import (
    ANSWER,
    CAUSE,
    HOOK,
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
)

from interp.geometry.words import WordActivations, WordList
from interp.interventions.apply import hooks_of
from interp.interventions.arms import positions_from, read_arms
from interp.interventions.intervention import Intervention, Latent
from interp.interventions.site import DictionarySite, continuations
from interp.models.adapter import run_with_cache, token_strings
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from saes.acts.features import NEW_TOKENS, Ablate, JudgeSteering, ReadText, SeparateLists, Steer
from saes.acts.run import Run, TokenPace
from saes.features.case import Passage, ProofConfig, read_case
from saes.features.measure_proof import prove
from saes.features.passes import ablated_log_p, ablation_losses, next_token_changes, with_bos
from saes.features.sources import neurons_of
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE

QUICK = ProofConfig(draws=19)


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def features(model, tmp_path_factory):
    return build(tmp_path_factory.mktemp("effects"), model, dictionary())


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
        log_p, read = ablated_log_p(site, passage, feature, arms, [5, 9])
        silent = ablated_log_p(site, passage, feature, arms, [5, 9], silent=True)
        first, rises = int(late[feature]), ablation_losses(site, passage, feature, arms)
        assert read.tolist() == list(range(first, len(acts)))
        assert silent[1].tolist() == [at for at in read.tolist() if acts[at, feature] == 0] != []
        torch.testing.assert_close(silent[0], log_p[:, silent[1] - first])
        assert rises[:, first:].abs().max() > 1e-3
        assert not rises[:, :first].any()
        for at, direction in enumerate([0 * directions[0], *directions]):
            changed = slowly(tokens, -acts[:, feature], direction)[0]
            torch.testing.assert_close(log_p[at, :, 1], changed[first:, [5, 9]].logsumexp(-1), atol=1e-4, rtol=1e-4)
            if at:
                expected = (clean - changed)[:-1].gather(1, tokens[0, 1:, None])[:, 0]
                torch.testing.assert_close(rises[at - 1], expected, atol=1e-4, rtol=1e-4)
        later = ablation_losses(site, passage, feature, arms, start=first + 1)
        assert not later[:, : first + 1].any(), "not read"
        torch.testing.assert_close(later[:, first + 1 :], rises[:, first + 1 :])
        strength = torch.full((len(acts),), 3.0)
        strength[: site.first] = 0
        moved, shift = next_token_changes(site, [tokens], arms.times(3.0), [5, 9])
        for at, direction in enumerate(directions):
            last = slowly(tokens, strength, direction)[0, -1]
            np.testing.assert_allclose(moved[at, 0], (last - clean[-1])[[5, 9]], atol=1e-4)
            assert shift[at, 0] == pytest.approx(float((clean[-1].exp() * (clean[-1] - last)).sum()), abs=1e-4)
        texts = continuations(site, tokens, arms.part([0]).times(3.0), 3)
        grown = tokens
        for _ in range(3):
            steady = torch.full((grown.shape[1],), 3.0)
            steady[: site.first] = 0
            grown = torch.cat([grown, slowly(grown, steady, directions[0])[:, -1].argmax(-1)[:, None]], 1)
        assert texts[1] == "".join(token_strings(model, grown[0, -3:]))


def test_neurons_are_proved_likewise(tmp_path):
    """A neuron that reads CAUSE and raises it; its ablation is exact at the output of the MLP."""
    model = planted_model()
    raised = (ANSWER, *WORDS)
    with torch.no_grad():
        unembed = model.unembed.original_component.weight
        unembed.zero_()
        unembed[list(raised), VOICE] = READ[: len(raised)]
        getattr(model.blocks[0].mlp, "in").original_component.weight[0, CAUSE] = 5.0
        model.blocks[0].mlp.out.original_component.weight[VOICE, 0] = 1.0
        for neuron in range(1, 8):  # idle neurons that fire on other tokens
            getattr(model.blocks[0].mlp, "in").original_component.weight[neuron, 10 + neuron] = 5.0
            model.blocks[0].mlp.out.original_component.weight[VOICE + neuron, neuron] = 1.0
    place = "blocks.0.mlp.hook_post"
    neurons = neurons_of(model, place)
    folder = build(tmp_path, model, neurons, hook_point=place)
    proof = prove(model, neurons, folder, 0, QUICK)
    site, passage = DictionarySite.of(model, neurons), read_case(folder, 0, QUICK).examples[0]
    losses = ablation_losses(site, passage, 0, site.arms(0, [], 0, 0))
    assert float(losses[0, passage.peak]) == pytest.approx(rise(5 * STRENGTH, (ANSWER,)), rel=1e-3)
    assert proof.measure("steer").value == pytest.approx(rise(proof.strength, proof.words.ids), rel=1e-3)
    assert len(proof.measure("fires").random) == QUICK.draws, "random directions of the space that is read"


class Planted(Run):
    """A run with the planted model, whose prompts are the numbers of tokens, and one feature of its dictionary."""

    def __init__(self, site: DictionarySite, case: Any, lists: Any = None):
        self.site, self.case, self.words, self._pace = site, case, lists, TokenPace()

    def open(self, form, name):
        return SimpleNamespace(settings=SimpleNamespace(model="tiny"))

    def model(self, spec):
        return self.site.model

    def prompt(self, text, spec, chat=False):
        return self.site.model, torch.tensor([[int(word) for word in text.split()]])

    def feature(self, features, feature, model):
        return self.site, self.case

    def lists(self, spec, site):
        return self.words

    def jacobian_lens(self, spec):
        return None

    def check(self, stage=""):
        pass


def test_the_page_gets_every_number_with_its_nulls(model, features):
    site, sae_case = DictionarySite.of(model, dictionary()), read_case(features, CAUSE, QUICK)
    run, question = Planted(site, sae_case), {"features": "feat", "feature": CAUSE}
    firings = ReadText(**question, text=f"5 {CAUSE} 6").measure(run)
    assert firings.activations == [0, STRENGTH, 0]
    assert len(firings.alike) == QUICK.draws
    rows = Steer(**question, text="5 6", strength=4 / sae_case.max_activation).measure(run)
    assert [row.name for row in rows] == ["unchanged", "feature", "random direction", f"feature {sae_case.alike[0]}"]
    assert rows[0].kl == 0
    assert rows[1].kl > rows[2].kl
    assert rows[1].text == str(ANSWER) * NEW_TOKENS
    assert rows[1].moved[0][0] == str(ANSWER)
    for nulls, n in (("quick", 5), ("standard", 19)):
        examples = Ablate(**question, nulls=nulls).measure(run)
        assert len(examples) == 4
        assert all(row.change > max(row.random) and len(row.random) == len(row.alike) == n for row in examples)


def test_lists_of_words_are_set_apart_by_their_own_direction_only():
    """The spread-out lists of a model without text: the mean of one list is its direction, a random one is none."""
    rng = np.random.default_rng(0)
    model, concepts = (
        planted_model(),
        [WordList(name=name, words=tuple("abcdef"), cyclic=False) for name in ("one", "two", "three", "four")],
    )
    shifts = 4 * np.eye(D)[: len(concepts)]
    lists = {
        concept.name: WordActivations(
            concept=concept, sentences=("",) * 4, hook_points=(HOOK,), n_tokens=(1,) * 6, last_tokens=(0,) * 6,
            prefix=(), values={HOOK: (shift + 0.5 * rng.standard_normal((4, 6, D))).astype(np.float32)},
        )
        for concept, shift in zip(concepts, shifts, strict=True)
    }  # fmt: skip
    site = DictionarySite.of(model, dictionary())
    run = Planted(site, None, lists)
    lists_apart = SeparateLists(features="feat", feature=2).measure(run)
    assert lists_apart.set_apart == ["three"]
    assert {row["name"]: row["p"] <= lists_apart.alpha for row in lists_apart.lists} == {
        "one": False, "two": False, "three": True, "four": False
    }  # fmt: skip
    assert SeparateLists(features="feat", feature=50).measure(run).set_apart == []


@pytest.mark.parametrize("strength", [1.0, -1.0])
def test_one_prompt_is_judged_by_the_words_that_the_feature_reads(model, features, strength):
    run = Planted(DictionarySite.of(model, dictionary()), read_case(features, CAUSE, QUICK))
    judged = JudgeSteering(features="feat", feature=CAUSE, text="5 6", strength=strength, nulls="standard").measure(run)
    assert set(judged.words) < set(map(str, WORDS))
    ids = tuple(map(int, judged.words))
    assert judged.raised.value == pytest.approx(strength * rise(strength * STRENGTH, ids), abs=1e-4)
    assert judged.raised.p == judged.raised.smallest_p == 0.05
    assert ("fall by" if strength < 0 else "rise by") in judged.headline()
    assert "more than 19 of 19 random directions and 19 of 19 features of like density" in judged.headline()
