"""Skill files: their heads, and every command of theirs, in order, on small untrained models and short texts."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from interp.models.small import SmallConfig, build_small, save_small
from interp.workspace import Workspace
from workbench.__main__ import main
from workbench.skills import skills, text_of

FIRST = "record-and-train"
NAMES = [
    ("smollm2-135m --task ioi", "planted:induction --task induction"),
    ("patch smollm2-135m", "patch planted:induction"),
    ("smollm2-135m", "small:mlp-2l"),
    ("blocks.9.", "blocks.0."),
    ("demo", "mine"),
    ("--feature 540", "--feature 10"),
]
"""What the commands name, and what they name here."""
SHORT = {
    "record": "--corpus pages.jsonl --tokens 2500 --context-length 64",
    "train": "--d-sae 64 --k 4 --tokens 5000",
    "prove": "--draws 2 --examples 1 --others 2 --new-tokens 2",
    "attribute": "--prompt dog --target s",
    "heads": "--n-prompts 2 --seeds 0 --context-length 41 --max-lag 20",
    "patch": "--clean '3 5 7 9 1 2 3 5 7' --corrupt '3 5 8 9 1 2 3 5 7' --answer 9 --wrong 4",
    "trace": "--prompt dog --effects 3 --max-feature-nodes 32 --no-nulls",
    "direction": "--lists letters --n-random 2 --n-judging 3 --strengths 0.5 --harmless 9 --layers 1",
    "steer": "--new-tokens 2 --samples 0",
    "doctor": "--quick",
    "own": "--plan",
    "circuit induction": "--prompts-per-seed 3 --seeds 0 1",
    "circuit find": "--prompts 4 --n-random 1 --n-minimality 1 --n-knockouts 1 --fractions 0.5 1 --no-untrained",
    "circuit attack": "--prompts 4 --ablations resample --exchanges 1 --n-random 1 --fractions 0.5 1",
    "compare models": "--prompts 8 --context-length 16",
    "geometry compare": "--corpus pages.jsonl --points 64 --batch 16 --context-length 16",
}
"""Options in place of those of the skill: what keeps a command short here."""


def commands(name: str) -> list[list[str]]:
    """Return the commands of a skill with the names and sizes of this test."""
    found = []
    for line in re.findall(r"^\$ workbench (.*)$", skills()[name], flags=re.MULTILINE):
        for there, here in NAMES:
            line = line.replace(there, here)
        words = shlex.split(line)
        verb = next((verb for verb in SHORT if words[: len(verb.split())] == verb.split()), "")
        short = shlex.split(SHORT.get(verb, ""))
        found.append([*without(words, {word for word in short if word.startswith("--")}), *short])
    return found


def without(words: list[str], options: set[str]) -> list[str]:
    """Return a command without some of its options and their values."""
    kept, dropping = [], False
    for word in words:
        dropping = word in options if word.startswith("--") else dropping
        if not dropping:
            kept.append(word)
    return kept


@pytest.fixture(scope="module")
def folder(tmp_path_factory, text_documents):
    """A folder with the files that the skills name, and the workspace that the first of them makes."""
    folder = tmp_path_factory.mktemp("skills")
    config = SmallConfig(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=128)
    model = build_small(config, seed=0, device="cpu", dtype=torch.float32)
    for name in ("my-model", "base"):
        save_small(model, config, folder / name)
    with torch.no_grad():
        model.blocks[1].mlp.out.original_component.weight.mul_(20)
    save_small(model, config, folder / "tuned")
    for name in ("pages", "facts"):
        lines = [json.dumps({"text": each.text[:96]}) for each in text_documents]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    pairs = [{"prompt": f"{a}{b} is ", "towards": "abc", "away": "XYZ"} for a in "pqrs" for b in "tuv"]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in commands(FIRST):
            assert main(words) == 0, words
    shutil.copytree(folder / "workspace" / "saes" / "mine", folder / "peer-sae")
    return folder


@pytest.mark.parametrize("name", [name for name in skills() if name != FIRST])
def test_the_commands_of_a_skill_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("interp.directions._samples.SAMPLE_TOKENS", 3)
    before = set(map(Workspace("workspace").key, Workspace("workspace").artifacts()))
    for words in commands(name):
        assert main(words) == 0, words
    assert set(map(Workspace("workspace").key, Workspace("workspace").artifacts())) > before


@pytest.mark.parametrize("name", skills())
def test_a_skill_has_a_head_commands_and_mistakes_and_is_short(name: str):
    body = text_of(skills()[name])
    head = skills()[name].removesuffix(body + "\n")
    assert re.fullmatch(r"---\nname: [\w-]+\ndescription: .*\n---\n\n", head)
    about = yaml.safe_load(head.strip("-\n"))
    assert about["name"] == name
    assert "Use for" in about["description"]
    assert len(about["description"]) < 300
    assert "**Mistakes to avoid**" in body
    assert commands(name)
    assert len(body.splitlines()) < 40


def test_skills_are_listed_printed_and_a_wrong_name_is_answered_with_the_nearest(capsys):
    assert main(["skill"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == list(skills())
    assert main(["skill", FIRST]) == 0
    assert capsys.readouterr().out == skills()[FIRST]
    assert main(["skill", "make-dir"]) == 2
    assert "did you mean 'make-direction'" in capsys.readouterr().err
