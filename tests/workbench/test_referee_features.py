"""Cases of features and directions: the weights hold what is claimed, and the analyses tell it from the controls."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_direction import made_up_choice

from interp.errors import CorruptError
from interp.models.loading import load_model
from interp.statistics import Interval
from saes.weights.folder import load_sae
from workbench.referee import direction, feature
from workbench.referee._small_models import Texts, claimed_words, read_texts, setting_of, write_texts
from workbench.referee.baselines import METHODS
from workbench.referee.cases import Answer, CaseWords, RefereeCase
from workbench.referee.direction import ACTIVE, VECTOR
from workbench.referee.feature import CARRIED, D_SAE, READ
from workbench.referee.kinds import how_of
from workbench.referee.run import answer_case

SEEDS = (11, 12, 13)
"""Odd and even: both near misses of a feature, and both ways in which a direction is read."""


def written(kind, folder, control, seed, effect=1.0):
    folder.mkdir()
    return how_of(kind).write(folder, control, effect if control == "planted" else 0.0, seed)


def answer_of(kind: str, folder: Path, case: CaseWords) -> Answer:
    return how_of(kind).answer(folder, RefereeCase(name="case", kind=kind, claim=case.claim, details=case.details))


@pytest.mark.parametrize("kind", ["feature", "direction"])
@pytest.mark.parametrize(
    ("control", "seeds"), [("planted", SEEDS), ("near miss", SEEDS), ("untrained", SEEDS[:1]), ("shuffled", SEEDS[:1])]
)
def test_what_is_planted_is_supported_and_no_control_is(kind, control, seeds, tmp_path):
    for seed in seeds:
        case = written(kind, tmp_path / str(seed), control, seed)
        given = answer_of(kind, tmp_path / str(seed), case)
        assert given.outcome == ("supported" if control == "planted" else "not supported"), (seed, given)
        if control in ("planted", "near miss"):  # what is read alone supports a claim on what is written
            asked = RefereeCase(name="case", kind=kind, claim=case.claim, details=case.details)
            reads = METHODS["activations" if kind == "feature" else "projection"].answer(tmp_path / str(seed), asked)
            wrong_words = control == "near miss" and kind == "feature" and seed % 2 == 0
            assert reads.outcome == ("not supported" if wrong_words else "supported"), (seed, reads)
        if control == "planted":
            assert given.value > given.null


def test_the_strongest_activations_of_a_short_text_are_read_and_a_latent_that_is_not_there_is_refused(tmp_path):
    said = written("feature", folder := tmp_path / "case", "planted", 12)
    case = RefereeCase(name="case", kind="feature", claim=said.claim, details=said.details)
    short = "".join(said.details["words"])
    write_texts(folder, Texts(documents=(short,), prompts=(short,)))
    assert answer_case(folder, case, "activations").value == 1, "fewer tokens than the method reads"
    given = answer_case(folder, replace(case, details=case.details | {"latent": -1}), "activations")
    assert (given.outcome, given.why[:25]) == ("undecided", "feature -1 does not exist")


def test_a_feature_is_written_carried_and_raised_by_as_much_as_its_strength_says(tmp_path):
    """The same seed at strengths 1 and 0 differs by what was planted, and by nothing else."""
    case = written("feature", tmp_path / "in", "planted", 12)
    written("feature", tmp_path / "out", "planted", 12, effect=0.0)
    model, bare, sae = load_model(str(tmp_path / "in")), load_model(str(tmp_path / "out")), load_sae(tmp_path / "in")
    latent, tokens = case.details["latent"], case.details["tokens"]
    along, layer = sae.W_dec[latent], int(case.details["hook_point"].split(".")[1])
    assert torch.equal(sae.W_enc[:, latent], along), "it writes what it reads"
    assert (sae.d_sae, [chr(token) for token in tokens]) == (D_SAE, case.details["words"])
    written_more = model.W_E - bare.W_E
    torch.testing.assert_close(written_more[tokens], READ * along.expand(len(tokens), -1))
    raised = (model.unembed.original_component.weight - bare.unembed.original_component.weight)[tokens]
    torch.testing.assert_close(raised, feature.RAISED * along.expand(len(tokens), -1))
    groups = [token for group in setting_of(12).groups for token in map(ord, group)]
    assert sorted(written_more.abs().sum(1).nonzero()[:, 0].tolist()) == sorted(groups), "other words are left alone"
    read = [m.blocks[layer + 1].attn.v.original_component.weight for m in (model, bare)]
    carried = [m.blocks[layer + 1].attn.o.original_component.weight for m in (model, bare)]
    torch.testing.assert_close((carried[0] - carried[1]) @ ((read[0] - read[1]) @ along), CARRIED * along,
                               atol=0.5, rtol=0)  # the features of other words are not quite orthogonal  # fmt: skip


def test_near_misses_of_a_feature_have_the_wrong_words_or_the_wrong_direction(tmp_path):
    right = {seed: written("feature", tmp_path / f"right{seed}", "planted", seed) for seed in (12, 13)}
    wrong = {seed: written("feature", tmp_path / f"wrong{seed}", "near miss", seed) for seed in (12, 13)}
    for seed, planted in right.items():
        assert wrong[seed].details["latent"] == planted.details["latent"]
    groups = [list(group) for group in setting_of(12).groups]
    assert wrong[12].details["words"] in groups
    assert not set(wrong[12].details["words"]) & set(right[12].details["words"])
    assert wrong[13].details["words"] == right[13].details["words"]
    latent, dictionaries = (
        wrong[13].details["latent"],
        [load_sae(tmp_path / f"{name}13") for name in ("right", "wrong")],
    )
    assert torch.equal(dictionaries[0].W_enc, dictionaries[1].W_enc)
    assert (dictionaries[0].W_dec != dictionaries[1].W_dec).any(1).nonzero().tolist() == [[latent]]
    assert (dictionaries[1].W_dec == dictionaries[1].W_dec[latent]).all(1).sum() == 2, "it is that of another latent"


def test_words_write_both_directions_and_one_of_them_raises_the_words(tmp_path):
    case = written("direction", tmp_path / "in", "planted", 12)
    written("direction", tmp_path / "out", "planted", 12, effect=0.0)
    written("direction", tmp_path / "near", "near miss", 12)
    model, bare, near = (load_model(str(tmp_path / name)) for name in ("in", "out", "near"))
    steers, idle = (direction.read_vector(tmp_path / name / VECTOR, "hook_embed")[0] for name in ("in", "near"))
    assert [np.linalg.norm(steers), np.linalg.norm(idle), steers @ idle + 1] == pytest.approx([1, 1, 1], abs=1e-5)
    tokens = case.details["tokens"]
    unembed = [m.unembed.original_component.weight for m in (model, bare, near)]
    raised = (unembed[0] - unembed[1]).detach().numpy()
    assert raised[tokens] @ steers == pytest.approx(direction.RAISED, abs=1e-5)
    assert raised[tokens] @ idle == pytest.approx(0, abs=1e-5)
    assert not np.delete(raised, tokens, 0).any()
    assert torch.equal(unembed[0], unembed[2]), "a near miss is the planted model with the other direction"
    others = [token for group in setting_of(12).groups[1:] for token in map(ord, group)]
    active = model.W_E.detach().numpy() @ np.stack([steers, idle]).T
    assert active[tokens].mean(0) - active[others].mean(0) == pytest.approx([ACTIVE, ACTIVE], abs=0.5)


@pytest.mark.parametrize(
    ("effect", "random", "placebo", "works"),
    [
        (Interval(1.9, 1.2, 2.6), 1.5, 1.5, True),  # its interval is over questions, on which they were drawn alike
        (Interval(1.9, -0.1, 3.9), 0.5, 0.5, False),
        (Interval(1.9, 1.2, 2.6), 2.0, 0.5, False),
        (Interval(1.9, 1.2, 2.6), 0.5, 2.0, False),
    ],
)
def test_a_direction_works_whose_interval_lies_above_zero_and_whose_effect_none_of_the_null_has(
    effect, random, placebo, works
):
    judged = made_up_choice(np.random.default_rng(0)).judged
    null = {"random_effect": np.array([0.1] * 18 + [random]), "placebo_effect": np.array([placebo])}
    assert replace(judged, effect=effect, **null).works is works
    assert replace(judged, effect=effect, random_effect=null["random_effect"], placebo_effect=np.empty(0)).works is (
        works or placebo == 2.0
    )
    assert not replace(judged, effect=effect, random_effect=null["random_effect"][1:]).works, "18 cannot reach p = 0.05"


@pytest.mark.parametrize("words", [None, "abc", [], ["ab"], [1], ["ü"]])
def test_details_without_words_are_refused_by_name(words):
    details = {} if words is None else {"words": words}
    with pytest.raises(CorruptError, match=r"case-1: details\.words"):
        claimed_words(RefereeCase(name="case-1", kind="feature", claim="It is", details=details))


def test_seeds_change_words_layers_latents_and_sizes():
    settings = [setting_of(seed) for seed in range(20)]
    assert len({setting.layer for setting in settings}) == 2
    assert len({setting.config for setting in settings}) > 4
    assert len({setting.groups for setting in settings}) == 20
    assert all(len(set("".join(sum(setting.groups, ())))) == sum(map(len, setting.groups)) for setting in settings)


def test_texts_are_read_back(tmp_path):
    written("direction", tmp_path / "in", "planted", 12)
    assert read_texts(tmp_path / "in") == setting_of(12).texts
