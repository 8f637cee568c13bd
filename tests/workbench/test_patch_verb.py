"""`workbench patch` from the command line."""

import pytest

from interp.patching.patching_map import PatchingMap
from interp.workspace import Workspace
from workbench.__main__ import main

PAIR = ["--clean", "3 5 7 9 1 2 3 5 7", "--corrupt", "3 5 8 9 1 2 3 5 7", "--answer", "9", "--wrong", "4"]


def patch(folder, *more: str) -> int:
    return main(["patch", "planted:induction", *more, "--workspace", str(folder)])


def test_the_planted_heads_are_named_with_their_null(tmp_path, capsys):
    assert patch(tmp_path, *PAIR, "--what", "z", "--name", "mine") == 0
    shown = capsys.readouterr().out
    assert "2 of 18 patches beyond the null" in shown
    first = next(line for line in shown.splitlines() if "L0H0, position 3 '9'" in line)
    assert "+1.000" in first
    assert "beyond the null" in first
    assert "at most 1 in 10" in shown
    found = Workspace(tmp_path).open(PatchingMap, "mine")
    assert found.about.parents == {"model:planted:induction": found.settings.weight_hash}
    assert (found.settings.task.origin["correct"], found.settings.what) == ("9", "z")
    beyond = found.patches.rows("beyond")
    assert {(row.layer, row.head, row.position) for row in beyond} == {(0, 0, 3), (1, 0, 8)}
    assert patch(tmp_path, *PAIR, "--what", "z", "--name", "mine") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_task_is_patched_whole_by_default(tmp_path, capsys):
    assert patch(tmp_path, "--task", "induction", "--what", "z", "--prompts", "4", "--draws", "2") == 0
    assert "L1H0" in capsys.readouterr().out
    found = Workspace(tmp_path).open(PatchingMap, "induction-z-planted-induction")
    assert (found.settings.by_position, found.settings.task.n_prompts, len(found.patches)) == (False, 4, 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "lacks --clean, --corrupt, --answer"),
        (PAIR[:4], "lacks --answer"),
        ([*PAIR, "--task", "ioi"], "not both"),
        ([*PAIR, "--draws", "0"], "null"),
        ([*PAIR[:4], "--answer", "9 4"], "2 tokens"),
        (["--clean", "1 2 3", "--corrupt", "1 2", "--answer", "9"], "reword one of the two"),
        (["--clean", "hello", "--corrupt", "1 2", "--answer", "9"], "no tokenizer"),
        ([*PAIR, "--what", "mlp_out"], "no MLPs"),
        (["--task", "inductoin"], "'induction'"),
        (["--task", "gone.jsonl"], "no file of prompts"),
    ],
)
def test_what_cannot_be_patched_is_one_line(tmp_path, capsys, options, says):
    assert patch(tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not list((tmp_path / "patching").glob("*")) if (tmp_path / "patching").exists() else True
