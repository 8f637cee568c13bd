"""Words in models: a circle that a planted model computes on, one that it ignores, and the folder of all that."""

import numpy as np
import pytest
import torch
from architectures import blank

from interp.errors import ConfigError, MismatchError, NonFiniteError, PromptError, UnknownNameError
from interp.geometry._steering import choose_strength, sweep_strengths
from interp.geometry.points import ShapesConfig
from interp.geometry.report import layer_after, measure_concepts, rotate_words, turning_sense
from interp.geometry.shapes import find_shapes, fit_plane
from interp.geometry.sweeps import RotationSweep
from interp.geometry.words import CONCEPTS, WordActivations, WordList, find_concepts, own_concept, read_words, with_word
from interp.models.adapter import run_with_cache

PLACE = "blocks.0.hook_resid_post"
NOTES = WordList(name="notes", words=tuple("ABCDEFG"), cyclic=True, successors=("x {word} ", "then {word} "))
SENTENCES = ("x {word}", "so {word}", "and {word}", "it is {word}")


def planted_successor(kind, seed=0):
    """Answers with the next of seven letters. Letters lie on a circle (`circle`), or each along a direction of its own
    (`own`); the last layer's attention carries what it finds to the end of the prompt, the unembedding reads it."""
    model = blank(n_layers=2, d_model=24, n_heads=1)
    generator = torch.Generator().manual_seed(seed)
    angles = torch.arange(7) * 2 * torch.pi / 7
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    code = torch.nn.functional.pad(circle, (0, 6)) if kind == "circle" else torch.eye(8)[:7]
    letters = torch.tensor([ord(letter) for letter in "ABCDEFG"])
    with torch.no_grad():
        model.W_E[letters, :8] = code + 0.01 * torch.randn(7, 8, generator=generator)
        attention = model.blocks[1].attn
        attention.v.original_component.weight[:8, :8] = torch.eye(8)
        attention.o.original_component.weight[8:16, :8] = torch.eye(8)
        model.unembed.original_component.weight[letters.roll(-1), 8:16] = 30 * code
    return model


@pytest.fixture(scope="module")
def on_a_circle():
    model = planted_successor("circle")
    return model, read_words(model, NOTES, sentences=SENTENCES)


def test_words_are_read_at_their_last_token_and_padding_plays_no_part(on_a_circle):
    model, acts = on_a_circle
    assert acts.n_tokens == (2,) * 7
    assert acts.last_tokens == tuple(map(ord, "ABCDEFG"))
    assert acts.prefix == (ord(" "),)
    assert "last of several tokens" in acts.note
    bos = [256]
    tokens = torch.tensor([bos + list(b"it is C")])
    _, cache = run_with_cache(model, tokens, [PLACE])
    assert np.allclose(acts.values[PLACE][3, 2], cache[PLACE][0, -1].numpy())
    assert acts.values["hook_embed"].shape == (4, 7, 24)


def test_turning_a_planted_circle_turns_the_answer(on_a_circle):
    model, acts = on_a_circle
    plane = fit_plane(acts.points(PLACE, half=0))
    found = rotate_words(model, acts, plane, PLACE, n_random=3)
    assert found.baseline == 1
    assert np.all(found.followed == 1)
    assert found.n_following == 6
    assert found.moves_output
    assert np.allclose(found.moved.estimate, found.swapped, atol=0.3), "the circle is all that there is"
    assert found.random_high < 0.3 * found.overall.estimate
    assert found.random.shape == (3 + 1, 6)
    assert np.all(found.random[-1, [0, 1, 4, 5]] < -0.3), "near half a turn both senses lead to neighbours"
    assert "moves" in str(found)


def test_items_that_have_directions_of_their_own_do_not_turn():
    model = planted_successor("own")
    acts = read_words(model, NOTES, sentences=SENTENCES)
    found = rotate_words(model, acts, fit_plane(acts.points(PLACE, half=0)), PLACE, n_random=3)
    assert found.baseline == 1
    assert found.swapped.mean() > 2, "the place holds the answer"
    assert not found.moves_output
    assert abs(found.overall.estimate) < 0.2 * found.swapped.mean()


def test_the_sense_of_turning_follows_the_items(on_a_circle):
    points = on_a_circle[1].points(PLACE)
    plane = fit_plane(points)
    assert turning_sense(plane, points) == -turning_sense(plane, points[::-1])
    assert (layer_after("hook_embed"), layer_after(PLACE), layer_after("blocks.1.hook_resid_pre")) == (0, 1, 1)
    with pytest.raises(ConfigError, match="residual stream"):
        layer_after("blocks.0.mlp.hook_post")


def test_a_planted_circle_is_one_and_an_untrained_model_has_none(on_a_circle, tiny_model):
    shape = find_shapes({"notes": on_a_circle[1]}, n_draws=500)["notes"]
    assert shape.verdict == "circle"
    assert shape.order.p_circular == pytest.approx(1 / 360)
    assert shape.cluster is None
    months = WordList(name="letters", words=tuple("ABCDEFGHIJKL"), cyclic=True)
    words = read_words(tiny_model, months, sentences=SENTENCES)
    assert find_shapes({"letters": words}, n_draws=500)["letters"].verdict == "nothing"


def test_lists_that_cannot_be_turned_say_why(on_a_circle):
    model, acts = on_a_circle
    plane = fit_plane(acts.points(PLACE, half=0))
    with pytest.raises(ConfigError, match="end with"):
        rotate_words(model, acts, plane, PLACE, prompts=["x {word}"])
    words = read_words(model, own_concept("animals", ["cat", "dog", "cow", "pig"], cyclic=False), sentences=SENTENCES)
    with pytest.raises(ConfigError, match="no prompts"):
        rotate_words(model, words, plane, PLACE)
    with pytest.raises(ConfigError, match="several"):
        rotate_words(model, words, plane, PLACE, prompts=["x {word}"])


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"n_random": 0}, ConfigError, "n_random must be"),
        ({"batch_size": 0}, ConfigError, "batch_size must be"),
        ({"prompts": ["x"]}, ConfigError, r"names \{word\} once"),
        ({"prompts": ["x {word} " + "y" * 300 + " "]}, PromptError, "shorten"),
        ({"hook_point": "blocks.99.hook_resid_post"}, UnknownNameError, "the model has 2 layers"),
        ({"hook_point": "blocks.1.hook_resid_pre"}, UnknownNameError, "read_words"),
        ({"plane": fit_plane(np.eye(5))}, MismatchError, "5 coordinates, got 24"),
    ],
)
def test_what_cannot_be_turned_as_asked_is_refused(on_a_circle, changed, error, message):
    model, acts = on_a_circle
    given = {"plane": fit_plane(acts.points(PLACE, half=0)), "hook_point": PLACE} | changed
    with pytest.raises(error, match=message):
        rotate_words(model, acts, **given)


def test_words_of_another_model_are_refused(on_a_circle, tiny_model):
    acts = read_words(tiny_model, NOTES, sentences=SENTENCES)
    with pytest.raises(MismatchError, match="same model"):
        rotate_words(on_a_circle[0], acts, fit_plane(acts.points(PLACE, half=0)), PLACE)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"sentences": ["y" * 300 + " {word}", *SENTENCES]}, PromptError, "shorten"),
        ({"sentences": ["{word} and {word}", *SENTENCES]}, ConfigError, r"names \{word\} once"),
        ({"hook_points": ["blocks.99.hook_resid_post"]}, UnknownNameError, "the model has 2 layers"),
        ({"hook_points": ["blocks.0.attn.hook_pattern"]}, ConfigError, "one position"),
        ({"batch_size": 0}, ConfigError, "batch_size must be"),
    ],
)
def test_what_cannot_be_read_as_asked_is_refused(on_a_circle, changed, error, message):
    with pytest.raises(error, match=message):
        read_words(on_a_circle[0], NOTES, **({"sentences": SENTENCES} | changed))


def test_other_braces_are_text_and_halves_are_two(on_a_circle):
    model, acts = on_a_circle
    assert with_word("{0} {x} {{word}", "A") == "{0} {x} {A"
    read = read_words(model, NOTES, sentences=[*SENTENCES, "{} {x} {word}"])
    assert read.values[PLACE].shape == (5, 7, 24)
    plane = fit_plane(acts.points(PLACE, half=0))
    assert rotate_words(model, acts, plane, "blocks.0.hook_out", prompts=["{x} {word} "], n_random=1).baseline == 1
    with pytest.raises(ConfigError, match="half is 0"):
        acts.points(PLACE, half=2)


def test_a_push_along_what_the_unembedding_reads_moves_the_targets_and_random_ones_do_not(on_a_circle):
    model, _ = on_a_circle
    direction = np.zeros(24)
    direction[8] = 1.0
    found = sweep_strengths(
        model,
        PLACE,
        direction,
        unit=0.2,
        prompts=["x ", "on the y", "say C"],
        targets=[ord("B")],
        text=["some words here", "and others there"],
        n_random=5,
    )
    still = found.strengths.index(0.0)
    assert found.effect.estimate[still] == found.side_effect.estimate[still] == 0
    assert found.effect.estimate[-1] > 2 * np.abs(found.random_effect[:, -1]).max()
    effect, harm = found.effect.at(-1), found.side_effect.at(-1)
    assert 0 < effect.low < effect.estimate < effect.high
    assert harm.low < harm.estimate < harm.high
    assert found.effect.estimate[0] < 0
    alone = sweep_strengths(model, PLACE, direction, unit=0.2, prompts=["x "], targets=[ord("B")], text=["some words"])
    assert alone.effect.estimate[-1] == pytest.approx(found.effect.estimate[-1], abs=1.0)
    assert np.isinf(alone.effect.high[-1]), "one prompt tells nothing of the spread"
    assert alone.chosen is None
    assert "two prompts and two documents" in str(alone)
    assert np.isnan(alone.judged_effect.estimate)
    with pytest.raises(ConfigError, match="direction"):
        sweep_strengths(model, PLACE, direction * 0, unit=1, prompts=["x"], targets=[1], text=["y z"])


SWEEP = {
    "direction": np.eye(24)[8],
    "unit": 0.2,
    "prompts": ["x ", "say C"],
    "targets": [ord("B")],
    "text": ["some words here", "and others"],
    "n_random": 1,
}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"direction": np.full(24, np.nan)}, NonFiniteError, "24 NaN"),
        ({"direction": np.ones(1)}, MismatchError, r"\[24\] numbers at every position, the direction is \[1\]"),
        ({"direction": np.ones((24, 1))}, MismatchError, "24, 1"),
        ({"hook_point": "blocks.9.hook_resid_post"}, UnknownNameError, "2 layers"),
        ({"unit": np.nan}, NonFiniteError, "finite"),
        ({"unit": 0}, ConfigError, "unit above 0"),
        ({"strengths": [0.1, np.nan]}, NonFiniteError, "finite"),
        ({"strengths": []}, ConfigError, "list of strengths"),
        ({"targets": [-1]}, ConfigError, "token ids from 0"),
        ({"targets": [99999]}, ConfigError, "token ids from 0"),
        ({"targets": []}, ConfigError, "token ids from 0"),
        ({"targets": [66.5]}, ConfigError, "token ids from 0"),
        ({"n_random": 0}, ConfigError, "n_random must be"),
        ({"prompts": "x"}, ConfigError, "list of prompts"),
        ({"text": []}, ConfigError, "list of prompts"),
        ({"text": ["a"]}, PromptError, "two tokens"),
    ],
)
def test_a_sweep_that_cannot_be_done_is_refused(on_a_circle, changed, error, message):
    with pytest.raises(error, match=message):
        sweep_strengths(on_a_circle[0], **({"hook_point": PLACE} | SWEEP | changed))


def test_a_target_named_twice_counts_once_and_settings_may_be_arrays(on_a_circle):
    once = sweep_strengths(on_a_circle[0], PLACE, **SWEEP, strengths=(0.0, 1.0))
    arrays = {"targets": np.array([66, 66]), "direction": torch.eye(24)[8]}
    again = sweep_strengths(on_a_circle[0], PLACE, **(SWEEP | arrays), strengths=np.array([0.0, 1.0]))
    assert again.baseline == once.baseline
    assert np.array_equal(again.effect, once.effect)


def test_pushes_against_the_direction_only_are_not_called_harmful(on_a_circle):
    found = sweep_strengths(on_a_circle[0], PLACE, **SWEEP, strengths=(-1.0, 0.0))
    assert found.chosen is None
    assert "no strength is above 0" in str(found)


def test_a_strength_is_judged_on_prompts_that_did_not_choose_it():
    """Even-numbered prompts and documents choose; the others are opposite, so the two halves cannot be confused."""
    strengths = np.array([-1.0, 0.5, 1.0, 2.0])
    effects, harm = np.zeros((3, 4, 6)), np.zeros((3, 4, 4))
    effects[0, :, ::2] = np.array([9.0, 1.0, 3.0, 5.0])[:, None]
    effects[0, :, 1::2] = np.array([9.0, 4.0, -2.0, 7.0])[:, None] + [-0.1, 0.0, 0.1]
    effects[1:, 2, 1::2] = [[1.0], [2.0]]
    harm[0, :, ::2] = np.array([0.0, 0.0, 0.05, 0.2])[:, None]
    harm[0, :, 1::2] = np.array([0.0, 0.0, 0.5, 0.0])[:, None]
    found = choose_strength(strengths, effects, harm)
    assert found.chosen == 2, "the largest effect of those above 0 that cost little, on the half that chooses"
    assert found.n_judging == 3
    assert found.judged_effect.estimate == pytest.approx(-2)
    assert found.judged_effect.high == pytest.approx(-2 + 4.303 * 0.1 / 3**0.5, abs=1e-3)
    assert found.judged_side_effect.estimate == pytest.approx(0.5)
    np.testing.assert_allclose(found.judged_random, [1, 2])


def test_the_chosen_effect_of_noise_is_zero_on_the_prompts_that_judge():
    """The null: noise has no effect; the effect where it was chosen is positive, and intervals of the judges hold."""
    rng = np.random.default_rng(0)
    strengths, judged, choosing, covered = np.array([0.1, 0.2, 0.5, 1.0]), [], [], []
    for _ in range(400):
        effects, harm = rng.normal(size=(2, 4, 12)), np.zeros((2, 4, 6))
        found = choose_strength(strengths, effects, harm)
        judged.append(found.judged_effect.estimate)
        choosing.append(effects[0, found.chosen, ::2].mean())
        covered.append(found.judged_effect.contains(0.0))
    assert np.mean(choosing) > 0.3
    assert abs(np.mean(judged)) < 4 * (1 / 6 / 400) ** 0.5
    assert 0.92 <= np.mean(covered) <= 0.98, "nominal .95"


def test_words_that_a_model_does_not_tell_apart_have_no_shape(on_a_circle):
    animals = own_concept("animals", ["cat", "dog", "cow", "pig"], cyclic=False)
    acts = read_words(on_a_circle[0], animals, sentences=SENTENCES)
    with pytest.raises(ConfigError, match="same activation"):
        find_shapes({"animals": acts})


def test_bad_lists_are_refused():
    with pytest.raises(UnknownNameError, match="weekdays"):
        find_concepts(["weekday"])
    with pytest.raises(ConfigError, match="differ"):
        own_concept("twice", ["a", "b", "a"], cyclic=False)
    with pytest.raises(ConfigError, match="three"):
        own_concept("short", ["a", "b"], cyclic=False)
    with pytest.raises(ConfigError, match="once"):
        WordList(name="mute", words=("a", "b", "c"), cyclic=True, successors=("what comes next?",))
    assert len(find_concepts([])) == len(CONCEPTS) == 7


@pytest.mark.parametrize(
    ("concepts", "n_random", "message"),
    [([], 2, "no lists"), ([NOTES], 0, "n_random"), ([NOTES, NOTES], 2, "same name")],
)
def test_a_report_needs_lists_and_a_null(on_a_circle, concepts, n_random, message):
    with pytest.raises(ConfigError, match=message):
        measure_concepts(on_a_circle[0], concepts, ShapesConfig(n_random=n_random), sentences=SENTENCES)


def test_a_report_has_what_was_measured_and_why_the_rest_is_missing(on_a_circle):
    model, _ = on_a_circle
    pairs = own_concept("pairs", ["AB", "CD", "BF", "GA"], cyclic=False)
    found = measure_concepts(model, [NOTES, pairs], ShapesConfig(n_random=1), sentences=SENTENCES)
    assert (found.settings.lists, found.settings.n_random) == ((NOTES, pairs), 1)
    assert found.facts() == [("notes", "circle"), ("pairs", "undecided")]
    assert found.lists["notes"].shape.coordinates.shape == (2, 7, 2)
    rows = [row for each in found.lists.values() for row in each.to_records()]
    assert len(rows) == 2 * 3
    assert sum(row["chosen"] for row in rows) == 2
    assert all(0 <= row["probe_accuracy"] <= 1 and row["base_rate"] is not None for row in rows)
    assert isinstance(found.lists["notes"].rotation, RotationSweep)
    assert "no prompts" in found.lists["pairs"].rotation
    assert found.lists["notes"].shape.order.smallest_p == pytest.approx(1 / 360)
    assert [row["moves_output"] for row in found.to_records()] == [found.lists["notes"].rotation.moves_output, None]


@pytest.mark.slow
@pytest.mark.real
def test_smollm2_weekdays_have_an_order_that_seven_items_cannot_close(smollm2):
    """And what SmolLM2 names as the day after follows a turn of the word; an untrained twin has no order."""
    from interp.models.adapter import untrained_model

    weekdays = CONCEPTS["weekdays"]
    places = ["hook_embed", *(f"blocks.{layer}.hook_resid_post" for layer in (3, 7, 14, 21, 28))]
    acts = read_words(smollm2, weekdays, hook_points=places)
    shape = find_shapes({"weekdays": acts})["weekdays"]
    assert shape.order.p_circular <= 0.025
    assert shape.verdict in ("ordered", "circle", "line")
    place = "blocks.7.hook_resid_post"
    turned = rotate_words(smollm2, acts, fit_plane(acts.points(place, half=0)), place, n_random=2)
    assert turned.moves_output
    assert turned.overall.estimate < turned.swapped.mean()
    twin = untrained_model(smollm2, 0)
    blank = {
        name: read_words(twin, CONCEPTS[name], hook_points=places[1:3]) for name in ("weekdays", "colours", "months")
    }
    assert {shape.verdict for shape in find_shapes(blank).values()} == {"nothing"}


def invented(name, values, *, cyclic=True):
    """Words of `values [n_sentences, n_words, d]` by hook point, as a model would have been read."""
    n = next(iter(values.values())).shape[1]
    concept = WordList(name=name, words=tuple(f"{name}{i}" for i in range(n)), cyclic=cyclic)
    return WordActivations(
        concept=concept, sentences=SENTENCES, hook_points=tuple(values), values=values, n_tokens=(1,) * n,
        last_tokens=tuple(range(n)), prefix=None,
    )  # fmt: skip


def test_nan_at_a_place_that_is_not_chosen_is_no_discovery():
    rng = np.random.default_rng(0)
    values = {f"blocks.{i}.hook_resid_post": rng.standard_normal((4, 7, 8)).astype(np.float32) for i in range(2)}
    values["blocks.0.hook_resid_post"][1, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"blocks\.0"):
        find_shapes({"noise": invented("noise", values)}, n_draws=500)


def test_of_many_lists_that_lie_together_each_is_a_cluster():
    rng = np.random.default_rng(1)
    centres = 20 * np.linalg.qr(rng.standard_normal((32, 16)))[0].T
    lists = {}
    for i in range(14):
        points = centres[i] + 0.5 * rng.standard_normal((1, 7, 32)) + 0.01 * rng.standard_normal((4, 7, 32))
        lists[f"list{i}"] = invented(f"list{i}", {PLACE: points.astype(np.float32)}, cyclic=False)
    found = find_shapes(lists, n_draws=500)
    assert all(shape.cluster is not None and shape.cluster.p <= 0.05 / 28 for shape in found.values())
    assert [shape.verdict for shape in found.values()].count("cluster") >= 12
