"""`workbench geometry` from the command line."""

import numpy as np

from interp.directions.study import DirectionGeometry
from interp.geometry.space import SpaceComparison, SpaceReport
from interp.geometry.word_geometry import WordGeometry
from interp.workspace import Workspace


def test_own_words_of_an_untrained_model_have_no_shape(cli, tmp_path):
    words = ("--own-words", *"ABCDEFGH", "--cyclic", "--no-interventions", "--name", "mine")
    assert "own words: nothing" in cli(tmp_path, "geometry", "shapes", "small:mlp-2l", *words)
    found = Workspace(tmp_path).open(WordGeometry, "mine")
    assert found.lists["own words"].shape.cluster is None, "one list has no others to be a cluster among"
    assert (found.settings.interventions, found.settings.n_random) == (False, 2)
    assert found.settings.lists[0].cyclic
    assert list(found.about.parents) == ["model:small:mlp-2l"]
    assert "--overwrite" in cli(tmp_path, "geometry", "shapes", "small:mlp-2l", *words, code=2)


def test_a_direction_of_words_is_measured_and_found_again(cli, tmp_path):
    words = ("--lists", "letters", "digits", "--towards", *"abcd", "--away", *"EFGH", "--n-random", 2, "--n-judging", 9)
    shown = cli(tmp_path, "direction", "small:mlp-2l", *words)
    assert "difference in means: held-out accuracy" in shown
    assert "random directions" in shown
    found = Workspace(tmp_path).open(DirectionGeometry, "direction-a-E")
    assert found.settings.direction.name == "a from E"
    assert found.settings.direction.hook_point == "blocks.0.hook_resid_post"
    assert found.settings.n_random == 2


def test_spaces_are_measured_with_their_nulls(cli, tmp_path):
    options = ("--hook-points", "blocks.0.hook_resid_post", "--points", 200)
    shown = cli(tmp_path, "geometry", "space", "small:mlp-2l", *options)
    assert "isotropic" in shown
    assert "capital: 0 of 10 pairs are single tokens" in shown
    found = Workspace(tmp_path).open(SpaceReport, "space-small-mlp-2l")
    assert (found.settings.corpus, found.settings.context_length) == ("docstrings", 64)
    rows = found.to_records()
    assert [row["space"] for row in rows] == ["embeddings", "blocks.0.hook_resid_post"]
    assert all(row["two_nn_gaussian"] > 0 for row in rows)


def test_layers_are_compared_with_their_nulls(cli, tmp_path):
    options = ("--points", 256, "--batch", 64)
    assert "Procrustes residual" in cli(tmp_path, "geometry", "compare", "small:mlp-2l", *options)
    found = Workspace(tmp_path).open(SpaceComparison, "compare-small-mlp-2l")
    assert found.settings.models == ("small:mlp-2l",)
    assert found.cka.cka.shape == (2, 2)
    np.testing.assert_allclose(found.cka.cka.diagonal(), 1)
