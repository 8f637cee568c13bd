"""`workbench patch` from the command line."""

from interp.patching.patching_map import PatchingMap
from interp.workspace import Workspace

PAIR = ["--clean", "3 5 7 9 1 2 3 5 7", "--corrupt", "3 5 8 9 1 2 3 5 7", "--answer", "9", "--wrong", "4"]


def test_the_planted_heads_are_named_with_their_null(cli, tmp_path):
    words = ("patch", "planted:induction", *PAIR, "--what", "z", "--name", "mine")
    shown = cli(tmp_path, *words)
    assert "2 of 18 patches beyond the null" in shown
    first = next(line for line in shown.splitlines() if "L0H0, position 3 '9'" in line)
    assert "+1.000" in first
    assert "beyond the null" in first
    assert "at most 1 in 20" in shown
    found = Workspace(tmp_path).open(PatchingMap, "mine")
    assert found.about.parents == {"model:planted:induction": found.settings.weight_hash}
    assert (found.settings.task.origin["correct"], found.settings.what) == ("9", "z")
    beyond = found.patches.rows("beyond")
    assert {(row.layer, row.head, row.position) for row in beyond} == {(0, 0, 3), (1, 0, 8)}
    assert "--overwrite" in cli(tmp_path, *words, code=2)


def test_a_task_is_patched_whole_by_default(cli, tmp_path):
    words = ("--task", "induction", "--what", "z", "--prompts", 4, "--nulls", "quick")
    assert "L1H0" in cli(tmp_path, "patch", "planted:induction", *words)
    found = Workspace(tmp_path).open(PatchingMap, "induction-z-planted-induction")
    assert (found.settings.by_position, found.settings.task.n_prompts, len(found.patches)) == (False, 4, 2)
