"""`workbench direction` from examples to files that other machines read, and `workbench steer` along it."""

import json

import pytest

from interp.directions.study import DirectionGeometry
from interp.workspace import Workspace
from workbench.__main__ import main

MODEL = "small:mlp-2l"
QUICK = [
    *("--lists", "letters", "digits", "--n-random", "2", "--n-judging", "5"),
    *("--strengths", "0.5", "1", "--layers", "1"),
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


def test_a_direction_steers_goes_into_files_and_back(cli, workspace, tmp_path):
    found = Workspace(workspace).open(DirectionGeometry, "own")
    if found.amount is None:
        pytest.fail("nothing was chosen, so the files have nothing to say")
    written = []
    for suffix in ("safetensors", "json"):
        path = tmp_path / f"own.{suffix}"
        shown = cli(workspace, "steer", "directions/own", *STEER, "--write", path)
        again = cli(tmp_path, "steer", path, *STEER, "--model", MODEL)
        written.append((shown.split("\n", 2)[2][-200:], again[-200:]))
    for direct, from_file in written:
        assert direct == from_file


def test_a_file_for_other_weights_is_refused_and_says_what_was_overridden(cli, workspace, tmp_path):
    path = tmp_path / "own.safetensors"
    cli(workspace, "steer", "directions/own", *STEER, "--write", path)
    other = ("steer", path, *STEER, "--model", "small:attn-only-2l")
    assert "was made for" in cli(tmp_path, *other, code=2)
    assert "overridden: " in cli(tmp_path, *other, "--allow-other-weights")
