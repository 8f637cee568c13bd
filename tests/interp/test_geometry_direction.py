"""One direction: planted ones are set apart, read, and move the output; random ones are and do nothing of that."""

import string

import numpy as np
import pytest
from scipy.stats import binomtest
from test_directions import planted_model

from interp.directions.config import DirectionConfig
from interp.directions.meaning import measure_direction, read_tokens
from interp.directions.named import NamedDirection, direction_of_file, direction_of_words
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError, NonFiniteError, UnknownNameError
from interp.geometry.separation import words_along
from interp.geometry.words import WordActivations, WordList
from interp.models.loading import load_model
from interp.models.small import SmallConfig

PLACE, D, N_SENTENCES = "blocks.0.hook_resid_post", 48, 4
SENTENCES = ("x {word}", "so {word}", "and {word}", "it is {word}")
CAPITALS = WordList(name="capitals", words=tuple(string.ascii_uppercase), cyclic=False)
SMALL = WordList(name="small letters", words=tuple(string.ascii_lowercase), cyclic=False)


def made_up(name: str, points: np.ndarray, *, seed: int = 0) -> WordActivations:
    """A list whose words lie at `points [n, D]`, with a little noise in every sentence."""
    rng = np.random.default_rng(seed)
    values = points[None] + 0.05 * rng.standard_normal((N_SENTENCES, *points.shape))
    n = len(points)
    words = tuple(f"{name}{i}" for i in range(n))
    return WordActivations(
        concept=WordList(name=name, words=words, cyclic=False), sentences=SENTENCES, hook_points=(PLACE,),
        values={PLACE: values.astype(np.float32)}, n_tokens=(1,) * n, last_tokens=tuple(range(n)), prefix=(),
    )  # fmt: skip


def clouds(seed: int, n_lists: int = 4, n: int = 8, apart: float = 0.0) -> dict[str, WordActivations]:
    """Lists that lie together, each about a middle of its own; the first also `apart` along the first coordinate."""
    rng = np.random.default_rng(seed)
    found = {}
    for number in range(n_lists):
        points = rng.standard_normal((n, D)) + rng.standard_normal(D)
        points[:, 0] += apart * (number == 0)
        found[f"list{number}"] = made_up(f"list{number}", points, seed=seed)
    return found


def along_axis(i: int) -> np.ndarray:
    return np.eye(D)[i]


@pytest.mark.parametrize("seed", range(5))
def test_the_direction_that_sets_a_list_apart_is_found_with_its_list(seed):
    found = words_along(clouds(seed, apart=12.0), PLACE, 3.0 * along_axis(0), seed=seed)
    assert found.set_apart == ("list0",)
    assert found.lists[0].auc == 1.0
    assert found.share > 10 * found.random_share
    assert "list0 set apart" in str(found)


def test_a_random_direction_sets_a_list_apart_as_often_as_the_bound_says():
    """The null: p is uniform for directions drawn as the random ones are, though the lists lie together."""
    p = []
    for seed in range(150):
        direction = np.random.default_rng(1000 + seed).standard_normal(D)
        found = words_along(clouds(seed), PLACE, direction, n_random=199, seed=seed)
        p += [each.p for each in found.lists]
    for bound in (0.05, 0.2, 0.5):
        share = binomtest(sum(each <= bound for each in p), len(p), bound)
        assert share.pvalue > 1e-4, (bound, share.statistic)


def test_a_direction_in_the_plane_of_a_list_lies_in_it_and_one_across_does_not():
    angle = 2 * np.pi * np.arange(8) / 8
    ring = np.zeros((8, D))
    ring[:, :2] = 5 * np.column_stack([np.cos(angle), np.sin(angle)])
    lists = clouds(0, 2) | {"ring": made_up("ring", ring)}
    within = words_along(lists, PLACE, along_axis(0) + along_axis(1)).lists[-1]
    across = words_along(lists, PLACE, along_axis(2)).lists[-1]
    assert within.plane_share > 0.99
    assert across.plane_share < 0.01
    assert within.random_plane_share == pytest.approx(2 / D, rel=0.1)
    assert within.random_plane_share < within.random_plane_high < 0.3


def test_the_numbers_are_those_of_a_loop_over_pairs():
    lists = clouds(3)
    direction = np.random.default_rng(0).standard_normal(D)
    found = words_along(lists, PLACE, direction)
    unit = direction / np.linalg.norm(direction)
    points = {name: acts.points(PLACE) @ unit for name, acts in lists.items()}
    middle = np.concatenate(list(points.values())).mean()
    for each in found.lists:
        mine, others = points[each.name], np.concatenate([v for name, v in points.items() if name != each.name])
        assert each.auc == pytest.approx(np.mean(mine[:, None] > others[None]))
        within = np.mean([v.var(ddof=1) for v in points.values()])  # all lists are as long
        means = [v.mean() for name, v in points.items() if name != each.name]
        assert each.separation == pytest.approx((mine.mean() - np.median(means)) / within**0.5)
        np.testing.assert_allclose(each.places.estimate, mine - middle, atol=1e-5)
        assert (each.places.low < each.places.estimate).all()
        assert (each.places.estimate < each.places.high).all()


def test_words_that_it_was_made_of_do_not_count():
    lists = clouds(0, apart=12.0)
    own = lists["list0"].concept.words
    found = words_along(lists, PLACE, along_axis(0), made_of=own)
    assert (found.lists[0].separation, found.lists[0].auc, found.lists[0].p) == (None, None, None)
    assert not any(found.lists[0].counted)
    assert found.alpha == pytest.approx(0.05 / 3), "what has no p-value costs none"
    few = words_along(lists, PLACE, along_axis(0), made_of=own[:4])
    assert few.lists[0].auc == 1.0
    assert few.lists[0].counted == (False,) * 4 + (True,) * 4


@pytest.mark.parametrize(
    ("vector", "error", "says"),
    [(np.zeros(D), ConfigError, "zeros only"), (np.ones(D + 1), MismatchError, f"activations {D}"),
     (np.full(D, np.nan), NonFiniteError, "NaN"), (np.ones((2, D)), ConfigError, "flat list"),
     (["a"] * D, ConfigError, "real numbers")],
)  # fmt: skip
def test_what_is_no_direction_is_refused(vector, error, says):
    with pytest.raises(error, match=says):
        words_along(clouds(0), PLACE, vector)


def test_a_tiny_direction_is_a_direction():
    one, other = (words_along(clouds(0), PLACE, scale * along_axis(1)) for scale in (1.0, 1e-300))
    assert one.lists[0].auc == other.lists[0].auc


def test_a_place_that_was_not_read_and_no_lists_are_refused():
    with pytest.raises(UnknownNameError, match="hook point of these words"):
        words_along(clouds(0), "blocks.1.hook_resid_post", along_axis(0))
    with pytest.raises(ConfigError, match="no lists"):
        words_along({}, PLACE, along_axis(0))


@pytest.fixture(scope="module")
def planted():
    return planted_model()


@pytest.fixture(scope="module")
def measured(planted):
    direction = direction_of_words(planted, SMALL.words[:4], CAPITALS.words[:4], PLACE, sentences=SENTENCES)
    return measure_direction(
        planted, direction, [CAPITALS, SMALL], DirectionConfig(strengths=(0.5, 1.0)), sentences=SENTENCES
    )


def test_a_planted_direction_is_found_read_set_apart_and_moves_the_output(measured):
    assert abs(measured.direction.vector[3]) > 0.9
    assert measured.direction.accuracy.accuracy == 1.0
    assert set(measured.reading.raised) <= set(SMALL.words)
    assert measured.reading.raised_logits[0] > measured.reading.random_high
    assert "small letters" in measured.along.set_apart
    assert measured.choice.works
    assert "'a'" in measured.choice.question, "the words that it leads to"
    at = next(each for each in measured.probes if each.probe.hook_point == PLACE)
    assert at.probe.accuracy.low > 0.5
    assert at.probe.accuracy.estimate > max(at.probe.control, at.random)
    assert " works: +" in str(measured)
    assert any("it raises" in line for line in measured.details())


@pytest.mark.parametrize("seed", range(3))
def test_a_random_direction_moves_nothing_and_an_untrained_model_has_none(seed):
    """The null: among the tokens that it raises, a random direction does what random directions do."""
    model = load_model(SmallConfig(n_layers=2, d_model=24, n_heads=2), seed=seed)
    vector = np.random.default_rng(seed).standard_normal(24)
    direction = NamedDirection(name="random", source="a draw", hook_point=PLACE, vector=vector)
    found = measure_direction(
        model, direction, [CAPITALS, SMALL], DirectionConfig(targets=("Q", "Z"), seed=seed), sentences=SENTENCES
    )
    assert not found.choice.works
    assert found.along.set_apart == ()


def test_without_interventions_and_outside_the_residual_stream_it_says_why(planted):
    place = "blocks.0.attn.hook_z"
    vector = np.ones(24)
    direction = NamedDirection(name="z", source="made up", hook_point=place, vector=vector)
    with pytest.raises(ConfigError, match="not in it"):
        read_tokens(planted, place, vector)
    model = load_model(SmallConfig(n_layers=1, d_model=24, n_heads=1))
    found = measure_direction(
        model, direction, [CAPITALS, SMALL], DirectionConfig(interventions=False), sentences=SENTENCES
    )
    assert "not in it" in str(found.reading)
    assert found.choice == "interventions were left out"
    assert isinstance(found.choice, str)
    pushed = measure_direction(model, direction, [CAPITALS, SMALL], sentences=SENTENCES)
    assert "steering needs target tokens" in str(pushed.choice)


def test_a_direction_of_another_width_is_refused_before_all_is_read(planted):
    wrong = NamedDirection(name="wide", source="made up", hook_point=PLACE, vector=np.ones(25))
    with pytest.raises(MismatchError, match="25 numbers"):
        measure_direction(planted, wrong, [CAPITALS, SMALL], sentences=SENTENCES)


def test_sides_of_words_must_be_long_enough_and_differ(planted):
    with pytest.raises(ConfigError, match="4 of each side"):
        direction_of_words(planted, "ABC", "abcd", PLACE, sentences=SENTENCES)
    with pytest.raises(ConfigError, match="both sides"):
        direction_of_words(planted, "ABCD", "Dabc", PLACE, sentences=SENTENCES)


def test_a_file_is_read_and_pickles_and_archives_are_not(tmp_path):
    path = tmp_path / "v.npy"
    np.save(path, np.arange(5.0)[None])
    assert direction_of_file(path, PLACE).vector.shape == (5,)
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(CorruptError, match="pickled"):
        direction_of_file(path, PLACE)
    np.savez(tmp_path / "v.npz", a=np.ones(3))
    with pytest.raises(CorruptError, match="several arrays"):
        direction_of_file(tmp_path / "v.npz", PLACE)
    np.save(path, np.array(["a", "b"]))
    with pytest.raises(CorruptError, match="hold numbers"):
        direction_of_file(path, PLACE)
    with pytest.raises(MissingError, match=r"numpy\.save"):
        direction_of_file(tmp_path / "none.npy", PLACE)


def test_the_words_that_it_was_made_of_are_a_list_and_do_not_count(measured):
    assert measured.choice.works
    assert measured.direction.towards == SMALL.words[:4]
    assert measured.direction.accuracy == measured.accuracy
    assert [each.name for each in measured.along.lists] == ["capitals", "small letters", "towards", "away"]
    words = [row for each in measured.along.lists for row in each.to_records()]
    assert all(row["counted"] == (row["word"] not in "ABCDabcd") for row in words)
