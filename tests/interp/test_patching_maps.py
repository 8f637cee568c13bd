"""Maps of activation patches with their null: the planted circuit is found, an untrained model shows nothing."""

import numpy as np
import pytest

from interp.artifacts import Draft, save_artefact, verify
from interp.artifacts.artefact import settings_json
from interp.circuits.tasks import induction_task, pair_task
from interp.errors import ConfigError, MismatchError, PromptError
from interp.models.toys import planted_induction
from interp.patching.activation import activation_patching
from interp.patching.maps import measure_map, unrelated_prompts
from interp.patching.patching_map import PatchingConfig, PatchingMap
from interp.seeds import make_generator
from interp.workspace import Workspace

CLEAN, CORRUPT = "3 5 7 9 1 2 3 5 7", "3 5 8 9 1 2 3 5 7"


@pytest.fixture(scope="module")
def planted():
    return planted_induction()


@pytest.fixture(scope="module")
def pair(planted):
    return pair_task(planted, CLEAN, CORRUPT, "9", "4")


def beyond(found: PatchingMap) -> set[str]:
    return {f"L{row.layer}H{row.head} at {row.position}" for row in found.rows if row.beyond}


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_two_planted_heads_lie_beyond_their_null_where_they_act(planted, pair, direction):
    found = measure_map(planted, pair, PatchingConfig(what="z", direction=direction))
    assert beyond(found) == {"L0H0 at 3", "L1H0 at 8"}
    assert found.level == pytest.approx(0.1)
    strongest = found.strongest(2)
    assert [row.effect for row in strongest] == pytest.approx([1, 1], abs=1e-3)
    assert strongest[0].token == "9"


def test_values_of_the_base_prompt_itself_change_nothing(planted, pair):
    for direction, base in (("denoise", pair.corrupt), ("noise", pair.clean)):
        found = activation_patching(planted, pair, what="resid_pre", direction=direction, donors=base)
        np.testing.assert_allclose(found.effect, 0, atol=1e-6)


def test_values_of_the_other_prompt_are_the_default(planted, pair):
    default = activation_patching(planted, pair, what="z")
    named = activation_patching(planted, pair, what="z", donors=pair.clean)
    np.testing.assert_array_equal(default.effect, named.effect)


@pytest.mark.parametrize("what", ["resid_pre", "z", "mlp_out"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_untrained_model_shows_no_discoveries(tiny_model, what, direction, seed):
    texts = [("the cat sat on", "the dog sat on"), ("one two three", "one six three"), ("red is it", "tan is it")]
    clean, corrupt = texts[seed]
    for answers in (("a", "b"), ("b", "a")):  # one of the two has a gap that is above 0
        try:
            task = pair_task(tiny_model, clean, corrupt, *answers)
        except ConfigError:
            continue
        found = measure_map(tiny_model, task, PatchingConfig(what=what, direction=direction, draws=4), seed=seed)
        assert found.threshold > 0
        assert found.n_beyond == 0
        return
    pytest.fail("neither order of the answers has a gap")


def test_unrelated_prompts_share_no_token_with_either_prompt_but_the_first(tiny_model):
    task = pair_task(tiny_model, "abcdefgh", "abcdXfgh", "a")
    for seed in range(20):
        drawn = unrelated_prompts(tiny_model, task.clean, task.corrupt, make_generator(seed, "test"))
        assert drawn.shape == task.clean.shape
        same = (drawn == task.clean) | (drawn == task.corrupt)
        assert same.nonzero().tolist() == [[0, 0]], "BOS alone"


def test_prompts_of_several_lengths_have_no_positions(tiny_model):
    from interp.patching.metrics import LogitDiff
    from interp.patching.task import Task

    clean, corrupt = [[1, 2, 3], [4, 5]], [[9, 2, 3], [8, 5]]
    task = Task.of(tiny_model, clean, corrupt, LogitDiff(correct=[1, 2], wrong=[3, 4]), check_gap=False)
    with pytest.raises(ConfigError, match="2 to 3 tokens"):
        measure_map(tiny_model, task, PatchingConfig(by_position=True, draws=1))
    row = measure_map(tiny_model, task, PatchingConfig(draws=1)).rows[0]
    assert (row.where, row.token) == ("layer 0", None)


def saved(model, task, config, folder, **options) -> PatchingMap:
    drafts = []

    def draft(settings):
        drafts.append(Draft.open(folder, kind="patching", config=settings_json(settings), seed=0))
        return drafts[0]

    found = measure_map(model, task, config, draft=draft, **options)
    return save_artefact(found, folder, seed=0, draft=drafts[0])


def test_a_map_that_was_interrupted_goes_on_to_the_same_numbers(planted, tmp_path):
    task = induction_task(planted, n_prompts=4)
    config = PatchingConfig(what="z", draws=3)
    whole = saved(planted, task, config, tmp_path / "patching" / "whole")
    done = []

    def stop(at: int, total: int, facts: dict) -> None:
        done.append(at)
        if at == 5:  # in the third of four maps of two layers
            raise KeyboardInterrupt

    folder = tmp_path / "patching" / "stopped"
    with pytest.raises(KeyboardInterrupt):
        saved(planted, task, config, folder, progress=stop)
    assert not folder.exists()
    with pytest.raises(MismatchError, match="resume"):
        saved(planted, task, PatchingConfig(what="z", draws=4), folder)
    done.clear()
    again = saved(planted, task, config, folder, progress=lambda at, total, facts: done.append(at))
    assert done[0] == 5, "the first two maps are not made again"
    assert again.rows == whole.rows
    assert again.about.content_hash == whole.about.content_hash
    assert verify(folder) == []
    assert Workspace(tmp_path).open(PatchingMap, "stopped").headline() == again.headline()


def test_what_fails_before_the_first_map_leaves_nothing(planted, tmp_path):
    task = induction_task(planted, n_prompts=2)
    with pytest.raises(ConfigError, match="no MLPs"):
        saved(planted, task, PatchingConfig(what="mlp_out"), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ((CLEAN, CORRUPT + " 1", "9"), PromptError, "reword one of the two"),
        ((CLEAN, "3 5 99", "9"), PromptError, "token numbers from 0 to 15"),
        ((CLEAN, CORRUPT, "9 4"), PromptError, "2 tokens"),
        ((CLEAN, CORRUPT, ""), PromptError, "answer is empty"),
        (("", CORRUPT, "9"), PromptError, "clean prompt is empty"),
        ((CLEAN, CLEAN, "9"), ConfigError, "no gap"),
    ],
)
def test_pairs_that_cannot_be_measured_say_why(planted, given, error, says):
    with pytest.raises(error, match=says):
        pair_task(planted, *given)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="null"):
        PatchingConfig(draws=0)
    with pytest.raises(ConfigError, match="batch_size"):
        PatchingConfig(batch_size=0)
