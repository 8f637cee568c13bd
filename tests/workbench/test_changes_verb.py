"""`workbench compare models BASE TUNED` on two checkpoints on disk."""

import json

import pytest
import torch

from interp.artifacts import open_artefact, verify
from interp.changes.comparison import ModelComparison
from interp.changes.tunes import BASE, tunes
from interp.models.small import SmallConfig, build_small, save_small

COMPARE = ("compare", "models", "--threads", 1, "--prompts", 12)
CONFIG = SmallConfig(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=32)


@pytest.fixture
def checkpoints(tmp_path, text_documents):
    """A base, a copy with another MLP in layer 1, three copies with noise everywhere, and text to read."""
    base = build_small(CONFIG, seed=0, device="cpu", dtype=torch.float32)
    save_small(base, CONFIG, tmp_path / "base")
    for seed in range(3):
        noisy = build_small(CONFIG, seed=0, device="cpu", dtype=torch.float32)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in noisy.parameters():
                scale = 0.01 * parameter.std() if parameter.numel() > 1 else 0.0
                parameter += scale * torch.randn(parameter.shape, generator=generator)
        save_small(noisy, CONFIG, tmp_path / f"noisy-{seed}")
    with torch.no_grad():
        base.blocks[1].mlp.out.original_component.weight.mul_(20)
    save_small(base, CONFIG, tmp_path / "tuned")
    lines = [json.dumps({"text": document.text}) for document in text_documents]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_it_names_what_changed_and_writes_it(cli, checkpoints):
    text = checkpoints / "text.jsonl"
    noisy = [checkpoints / f"noisy-{seed}" for seed in range(3)]
    words = (*COMPARE, checkpoints / "base", checkpoints / "tuned", "--corpus", text, "--control", "random")
    words += ("--continuations", *noisy, "--context-length", 24)
    out = cli(checkpoints / "ws", *words)
    assert "1 of 30" in out
    assert "L1.mlp.out" in out
    folder = checkpoints / "ws" / "model-comparisons" / "models-base-tuned"
    assert verify(folder) == []
    found = open_artefact(ModelComparison, folder)
    assert [row.name for row in found.found("weights")] == ["L1.mlp.out"]
    assert {row.text for row in found.changes.rows("question = 'stream'")} == {str(text), "random"}
    assert len(found.settings.weight_hashes) == len(found.about.parents) == 5
    assert "already there" in cli(checkpoints / "ws", *words, code=2)


def test_the_same_model_twice_has_no_difference(cli, checkpoints):
    out = cli(checkpoints / "ws", *COMPARE, checkpoints / "base", checkpoints / "base", "--corpus", "random")
    assert "0 of 30" in out
    assert "behave alike" in out


def test_a_model_that_cannot_be_tuned_is_refused(cli, tmp_path):
    out = cli(tmp_path / "ws", "compare", "tune", "topic", "--model", "small:mlp-2l", code=2)
    assert "small:mlp-2l cannot be tuned here" in out
    assert not (tmp_path / "ws" / "adapters").exists()


@pytest.mark.slow
def test_a_small_fine_tune_is_made_and_named_by_its_words(cli, tmp_path):
    cli(tmp_path / "ws", "compare", "tune", "topic", "--context-length", "12")
    made = open_artefact(ModelComparison, tmp_path / "ws" / "model-comparisons" / "tune-topic")
    known, _ = tunes()
    scores = {name: tune.score(set().union(*made.words().values())) for name, tune in known.items()}
    assert max(scores, key=scores.__getitem__) == "topic", scores
    (moved,) = made.changes.rows("question = 'predictions'")
    assert moved.value > moved.null
    assert made.settings.tuned == f"{BASE}+{tmp_path.resolve()}/ws/adapters/tune-topic"
