"""`workbench direction` from examples to files that other machines read, and `workbench steer` along it."""

import json

import pytest

from interp.directions.study import DirectionGeometry
from interp.workspace import Workspace
from workbench.__main__ import main

MODEL = "small:mlp-2l"
QUICK = [
    "--lists",
    "letters",
    "digits",
    "--n-random",
    "2",
    "--n-judging",
    "5",
    "--strengths",
    "0.5",
    "1",
    "--layers",
    "1",
]
STEER = ["--prompt", "we say", "--new-tokens", "3", "--samples", "0"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with a direction made of pairs, along which the tests steer by an amount of their own."""
    folder = tmp_path_factory.mktemp("directions")
    lines = [{"prompt": f"{a}{b} is ", "towards": "abc", "away": "XYZ"} for a in "pqrs" for b in "tuv"]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["--pairs", str(folder / "pairs.jsonl"), "--name", "own", "--harmless", "9"]
    assert main(["direction", MODEL, *words, *QUICK, "--workspace", str(folder)]) == 0
    return folder


def test_the_artefact_has_every_method_and_the_choice(workspace):
    found = Workspace(workspace).open(DirectionGeometry, "own")
    assert set(found.variants) == {"difference in means", "PCA of differences", "probe", "LDA", "mass-mean"}
    assert found.choice.n_questions == 6
    assert found.settings.direction.source == "difference in means, 12 pairs of pairs.jsonl"


def test_a_direction_steers_goes_into_files_and_back(workspace, tmp_path, capsys):
    found = Workspace(workspace).open(DirectionGeometry, "own")
    if found.amount is None:
        pytest.fail("nothing was chosen, so the files have nothing to say")
    own = ["steer", "directions/own", *STEER, "--workspace", str(workspace)]
    written = []
    for suffix in ("safetensors", "json"):
        path = tmp_path / f"own.{suffix}"
        assert main([*own, "--write", str(path)]) == 0
        shown = capsys.readouterr().out
        assert main(["steer", str(path), *STEER, "--model", MODEL, "--workspace", str(tmp_path)]) == 0
        written.append((shown.split("\n", 2)[2][-200:], capsys.readouterr().out[-200:]))
    for direct, from_file in written:
        assert direct == from_file


def test_a_file_for_other_weights_is_refused_and_says_what_was_overridden(workspace, tmp_path, capsys):
    path = tmp_path / "own.safetensors"
    assert main(["steer", "directions/own", *STEER, "--write", str(path), "--workspace", str(workspace)]) == 0
    other = ["steer", str(path), *STEER, "--model", "small:attn-only-2l", "--workspace", str(tmp_path)]
    capsys.readouterr()
    assert main(other) == 2
    assert "was made for" in capsys.readouterr().err
    assert main([*other, "--allow-other-weights"]) == 0
    assert "overridden: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trait", "sad"], "needs its opposite"),
        (["--texts", "a.txt"], "takes two sources"),
        (["--pairs", "none.jsonl"], "no file at"),
        (["--pairs", "none.jsonl", "--trait", "sad", "--instead", "gay"], "give one direction"),
        (["--towards", *"abcd", "--away", *"EFGH", "--strengths", "-1"], "above 0"),
        (["--towards", *"abcd", "--away", *"EFGH", "--method", "mean"], "method of a direction"),
    ],
)
def test_what_is_no_direction_is_one_line(tmp_path, capsys, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    assert main(["direction", MODEL, *options, "--workspace", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
