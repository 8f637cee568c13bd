"""`workbench geometry` from the command line."""

from interp.workspace import Workspace
from workbench.__main__ import main


def test_own_words_of_an_untrained_model_have_no_shape(tmp_path, capsys):
    words = ["--own-words", *"ABCDEFGH", "--cyclic", "--no-interventions"]
    command = ["geometry", "small:mlp-2l", *words, "--workspace", str(tmp_path), "--name", "mine"]
    assert main(command) == 0
    assert "own words: nothing" in capsys.readouterr().out
    manifest = Workspace(tmp_path).manifest("geometry", "mine")
    assert manifest.summary["own words"]["p_cluster"] is None, "one list has no others to be a cluster among"
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_wrong_list_names_the_nearest(tmp_path, capsys):
    assert main(["geometry", "small:mlp-2l", "--lists", "weekday", "--workspace", str(tmp_path)]) == 2
    assert "weekdays" in capsys.readouterr().err


def test_words_that_cannot_be_judged_are_refused_in_one_line(tmp_path, capsys):
    short = ["geometry", "small:mlp-2l", "--own-words", "A", "B", "--workspace", str(tmp_path)]
    assert main(short) == 2
    assert "three are the least" in capsys.readouterr().err
