"""Attention entropy: planted rows are exact, planted induction heads are sharp, untrained heads are not."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interp.artifacts import save_artefact, verify
from interp.circuits.attention_entropy import (
    AttentionEntropy,
    entropy_by_document,
    measure_entropy,
    row_entropy,
    untrained_bound,
)
from interp.errors import ConfigError
from interp.models.adapter import run_with_cache, untrained_model
from interp.models.loading import load_model
from interp.workspace import Workspace
from workbench.__main__ import main


def rows(n: int) -> torch.Tensor:
    """Attention of heads that are uniform, on one token, and half on each of two tokens, `[1, 3, n, n]`."""
    uniform = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    one, two = torch.zeros(n, n), torch.zeros(n, n)
    one[:, 0] = 1
    two[:, :2] = 0.5
    return torch.stack([uniform, one, two])[None]


class PlantedRows:
    """A stand-in model of one layer with the heads of `rows`."""

    def __init__(self):
        self.cfg = SimpleNamespace(n_layers=1, n_heads=3, n_ctx=64, device="cpu")
        self.original_model = SimpleNamespace()

    def run_with_hooks(self, tokens, fwd_hooks):
        for _, hook in fwd_hooks:
            hook(rows(tokens.shape[1]).expand(len(tokens), -1, -1, -1), hook=None)


def test_uniform_attention_has_one_and_attention_to_one_token_zero():
    found = row_entropy(rows(6))[0, :, 1:]
    torch.testing.assert_close(found[0], torch.ones(5))
    torch.testing.assert_close(found[1], torch.zeros(5))
    torch.testing.assert_close(found[2], np.log(2) / torch.arange(2, 7).log())


def test_the_mean_is_over_the_tokens_of_each_document_without_the_first_position():
    documents = torch.tensor([[7, 7, 7, 4], [-1, 4, -1, 9]])
    found = entropy_by_document(PlantedRows(), torch.zeros(2, 4, dtype=torch.int64), documents, batch_size=1)
    assert found.shape == (1, 3, 3)  # documents 4, 7 and 9
    np.testing.assert_allclose(found[0, :2], [[1, 1, 1], [0, 0, 0]], atol=1e-6)
    share = np.log(2) / np.log([2, 3, 4])  # of positions 1 to 3
    np.testing.assert_allclose(found[0, 2], [(share[2] + share[0]) / 2, share[:2].mean(), share[2]], rtol=1e-6)


def test_entropies_are_those_of_the_cached_patterns_in_any_batches():
    model = load_model("small:mlp-2l")
    tokens = torch.randint(0, 100, (5, 12), generator=torch.Generator().manual_seed(0))
    documents = torch.arange(5)[:, None].expand(5, 12)
    found = entropy_by_document(model, tokens, documents, batch_size=2)
    for layer in range(2):
        pattern = run_with_cache(model, tokens, [f"blocks.{layer}.attn.hook_pattern"])[1]
        pattern = pattern[f"blocks.{layer}.attn.hook_pattern"].double()
        slow = -(pattern * pattern.clamp(min=1e-300).log()).sum(-1)[..., 1:] / torch.arange(2, 13).log()
        np.testing.assert_allclose(found[layer], slow.mean(-1).T, atol=1e-5)


def test_planted_heads_are_sharp_and_no_head_of_other_untrained_models(tmp_path: Path):
    model = load_model("planted:induction")
    drawn = torch.randint(1, model.cfg.d_vocab, (8, 12), generator=torch.Generator().manual_seed(0))
    tokens, documents = torch.cat([drawn, drawn], 1), torch.arange(8)[:, None].expand(8, 24)
    found = measure_entropy(model, tokens, documents, model_name="planted:induction")
    assert any(row.sharp for row in found.heads.rows())
    workspace = Workspace(tmp_path, create=True)
    [finding] = save_artefact(found, workspace.path("attention_entropy", "planted")).findings()
    assert finding.value > finding.null > 0
    assert finding.href == "/artefact/attention-entropies/planted"
    sharp = 0
    for seed in range(1, 6):
        null = measure_entropy(untrained_model(model, seed), tokens, documents, seed=seed + 10)
        sharp += sum(row.sharp for row in null.heads.rows())
        assert null.null_low <= null.null <= 1
    assert sharp == 0


def test_the_bound_of_untrained_heads_is_at_most_their_smallest():
    mean, low = untrained_bound(np.array([[[0.5], [0.9], [0.9]]]))
    assert mean == pytest.approx(0.7666666)
    assert low <= 0.5


def test_an_interval_needs_two_documents():
    with pytest.raises(ConfigError, match=r"at least two documents, got 1"):
        measure_entropy(load_model("small:mlp-2l"), torch.ones(2, 8, dtype=torch.int64), torch.zeros(2, 8).long())


def test_the_verb_stores_what_was_measured_and_says_it(tmp_path: Path, capsys):
    where = ["--workspace", str(tmp_path)]
    corpus = tmp_path / "text.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": f"Line {i} says that {i + 1} follows {i}."}) for i in range(60)))
    words = ["record", "small:mlp-2l", "--corpus", str(corpus), "--tokens", "1000", "--context-length", "32"]
    assert main([*words, "--name", "text", *where]) == 0
    capsys.readouterr()
    assert main(["entropy", "text", "--contexts", "10", *where]) == 0
    workspace = Workspace(tmp_path)
    found = workspace.open(AttentionEntropy, "text")
    assert found.headline() in capsys.readouterr().out
    assert verify(found.folder) == []
    assert (found.settings.contexts, len(found.heads)) == (10, 8)
    assert {"recordings/text", "model:small:mlp-2l"} <= found.about.parents.keys()
    assert all(0 <= row.low <= row.entropy <= row.high <= 1 for row in found.heads.rows())
