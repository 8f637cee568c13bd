"""`workbench geometry` from the command line."""

import numpy as np
import pytest

from interp.directions.study import DirectionGeometry
from interp.geometry.space import SpaceComparison, SpaceReport
from interp.geometry.word_geometry import WordGeometry
from interp.workspace import Workspace
from workbench.__main__ import main


def test_own_words_of_an_untrained_model_have_no_shape(tmp_path, capsys):
    words = ["--own-words", *"ABCDEFGH", "--cyclic", "--no-interventions"]
    command = ["geometry", "shapes", "small:mlp-2l", *words, "--workspace", str(tmp_path), "--name", "mine"]
    assert main(command) == 0
    assert "own words: nothing" in capsys.readouterr().out
    found = Workspace(tmp_path).open(WordGeometry, "mine")
    assert found.lists["own words"].shape.cluster is None, "one list has no others to be a cluster among"
    assert (found.settings.interventions, found.settings.n_random) == (False, 2)
    assert found.settings.lists[0].cyclic
    assert list(found.about.parents) == ["model:small:mlp-2l"]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_wrong_list_names_the_nearest(tmp_path, capsys):
    assert main(["geometry", "shapes", "small:mlp-2l", "--lists", "weekday", "--workspace", str(tmp_path)]) == 2
    assert "weekdays" in capsys.readouterr().err


def test_words_that_cannot_be_judged_are_refused_in_one_line(tmp_path, capsys):
    short = ["geometry", "shapes", "small:mlp-2l", "--own-words", "A", "B", "--workspace", str(tmp_path)]
    assert main(short) == 2
    assert "three are the least" in capsys.readouterr().err


SMALL = ["direction", "small:mlp-2l", "--lists", "letters", "digits"]
SIDES = ["--towards", *"abcd", "--away", *"EFGH"]


def test_a_direction_of_words_is_measured_and_found_again(tmp_path, capsys):
    command = [*SMALL, *SIDES, "--n-random", "2", "--n-judging", "9", "--workspace", str(tmp_path)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "difference in means: held-out accuracy" in shown
    assert "random directions" in shown
    found = Workspace(tmp_path).open(DirectionGeometry, "direction-a-E")
    assert found.settings.direction.name == "a from E"
    assert found.settings.direction.hook_point == "blocks.0.hook_resid_post"
    assert found.settings.n_random == 2
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give one direction"),
        (["--feature", "demo:1", *SIDES], "give one direction"),
        (["--vector", "v.npy", "--at", "blocks.0.hook_resid_post"], "no file at"),
        (["--feature", "demo"], "NAME:NUMBER"),
        (["--feature", "demo:1"], "demo"),
        ([*SIDES, "--at", "blocks.9.hook_resid_post"], "blocks.9.hook_resid_post"),
        ([*SIDES, "--n-random", "0"], "at least 1"),
        (["--towards", *"abcd", "--away", *"EFG"], "4 of each side"),
    ],
)
def test_what_is_no_direction_is_one_line(tmp_path, capsys, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, *options, "--workspace", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_a_vector_of_another_width_is_refused(tmp_path, capsys):
    np.save(tmp_path / "v.npy", np.ones(7))
    wrong = ["--vector", str(tmp_path / "v.npy"), "--at", "blocks.0.hook_resid_post", "--workspace", str(tmp_path)]
    assert main([*SMALL, *wrong]) == 2
    assert "7 numbers" in capsys.readouterr().err


def test_spaces_are_measured_with_their_nulls(tmp_path, capsys):
    options = ["--hook-points", "blocks.0.hook_resid_post", "--points", "200", "--workspace", str(tmp_path)]
    assert main(["geometry", "space", "small:mlp-2l", *options]) == 0
    shown = capsys.readouterr().out
    assert "isotropic" in shown
    assert "capital: 0 of 10 pairs are single tokens" in shown
    found = Workspace(tmp_path).open(SpaceReport, "space-small-mlp-2l")
    assert (found.settings.corpus, found.settings.context_length) == ("docstrings", 64)
    rows = found.to_records()
    assert [row["space"] for row in rows] == ["embeddings", "blocks.0.hook_resid_post"]
    assert all(row["two_nn_gaussian"] > 0 for row in rows)
    assert main(["geometry", "space", "small:mlp-2l", *options]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_layers_are_compared_with_their_nulls(tmp_path, capsys):
    options = ["--points", "256", "--batch", "64", "--workspace", str(tmp_path)]
    assert main(["geometry", "compare", "small:mlp-2l", *options]) == 0
    assert "Procrustes residual" in capsys.readouterr().out
    found = Workspace(tmp_path).open(SpaceComparison, "compare-small-mlp-2l")
    assert found.settings.models == ("small:mlp-2l",)
    assert found.cka.cka.shape == (2, 2)
    np.testing.assert_allclose(found.cka.cka.diagonal(), 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["space", "small:mlp-2l", "--hook-points", "blocks.7.hook_resid_post"], "blocks.7"),
        (["space", "small:mlp-2l", "--hook-points", "hook_embed", "--points", "2"], "points at least 4"),
        (["compare", "small:mlp-2l", "planted:induction"], "different tokenizers"),
        (["compare", "small:mlp-2l", "--points", "64", "--batch", "64"], "two are needed"),
    ],
)
def test_spaces_that_cannot_be_measured_are_one_line(tmp_path, capsys, options, says):
    assert main(["geometry", *options, "--workspace", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
