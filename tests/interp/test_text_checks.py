"""The text of a recording: in order, and that of its corpus, as one process would read it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recorder import HOOK_POINTS, SETTINGS, documents
from safetensors.torch import load_file, save_file
from sealing import seal

from interp.models.adapter import tokenizer_hash
from interp.models.identity import vocabulary_hash
from interp.models.loading import load_model, load_tokenizer
from interp.recording.record import order_problems, record, text_problems
from interp.recording.store import Recording
from interp.text.corpora import open_corpus
from workbench.__main__ import main

SPEC = "small:attn-only-2l"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    lines = [{"text": each.text, "id": each.id, "label": each.label} for each in documents()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module", params=["context", "document"])
def recorded(request, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a recording of a file."""
    root = tmp_path_factory.mktemp("w")
    config = replace(SETTINGS, bos=request.param)
    record(
        load_model(SPEC, seed=0),
        open_corpus(str(text)),
        root / "recordings" / "own",
        config,
        hook_points=HOOK_POINTS[:1],
    )
    return root


@pytest.fixture
def root(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "w")


def sealed(folder: Path) -> Recording:
    """Let the manifest fit files that were changed, as a faulty recorder would have written it."""
    seal(folder)
    return Recording(folder)


def test_a_sound_recording_has_no_problem(root, capsys):
    assert text_problems(Recording(root / "recordings" / "own")) == ([], "")
    assert main(["verify", "--workspace", str(root)]) == 0
    assert "ok       recordings/own\n" in capsys.readouterr().out


def test_a_shard_that_is_there_twice_is_seen_without_the_corpus(root):
    folder = root / "recordings" / "own"
    shutil.copy(folder / "tokens" / "00001.safetensors", folder / "tokens" / "00003.safetensors")
    found = list(order_problems(sealed(folder)))
    assert len(found) == 2  # where it begins again, and where the text goes on after it
    assert all("twice, or is missing" in each for each in found)


def test_other_tokens_than_the_corpus_gives_are_seen(root, capsys):
    folder = root / "recordings" / "own"
    file = folder / "tokens" / "00002.safetensors"
    tensors = load_file(file)
    tensors["tokens"][7] += 1
    save_file(tensors, file)
    problems, remark = text_problems(sealed(folder))
    assert len(problems) == 1
    assert problems[0].startswith("tokens/00002.safetensors: holds other text than")
    assert not remark
    assert main(["verify", "recordings/own", "--workspace", str(root)]) == 1
    assert "DAMAGED  recordings/own" in capsys.readouterr().out


def test_a_corpus_that_is_gone_or_was_changed_is_no_damage(root, text, capsys):
    folder, before = root / "recordings" / "own", text.read_text()
    try:
        text.write_text(before.replace("document 3 ", "document three "))
        assert "has changed since" in text_problems(Recording(folder))[1]
        text.unlink()
        problems, remark = text_problems(Recording(folder))
        assert (problems, "text.jsonl" in remark) == ([], True)
        assert main(["verify", "--workspace", str(root)]) == 0
        assert "(not compared: " in capsys.readouterr().out
    finally:
        text.write_text(before)


def test_a_tokenizer_loads_without_its_model(smollm2):
    assert vocabulary_hash(load_tokenizer("smollm2-135m")) == tokenizer_hash(smollm2)
    assert vocabulary_hash(load_tokenizer(SPEC)) == "bytes"
    ids = load_tokenizer("smollm2-135m").encode_batch(["The capital of France is"])[0]
    assert torch.tensor(ids).shape == (5,)
