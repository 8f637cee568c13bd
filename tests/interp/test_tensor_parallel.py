"""Two processes that share every layer of a model record the rows of one process; parts of a value are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import split_worker
import torch

from interp.errors import ConfigError
from interp.models.tensor_parallel import is_part
from interp.ranks import refuse_ranks
from interp.recording.store import Recording

SIZES = {
    "vocab_size": 64, "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 3, "head_dim": 8,
    "max_position_embeddings": 96, "bos_token_id": 0, "initializer_range": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks recorded models of different kinds."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("split")
    plain = Tokenizer(models.WordLevel({f"w{n}": n for n in range(64)}, unk_token="w1"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    for name, kind, form, heads, key_heads in (
        ("llama", LlamaForCausalLM, LlamaConfig, 6, 2),
        ("gemma", Gemma3ForCausalLM, Gemma3TextConfig, 4, 2),
        ("one-key-head", Gemma3ForCausalLM, Gemma3TextConfig, 4, 1),
        ("three-heads", LlamaForCausalLM, LlamaConfig, 3, 3),
    ):
        kind(form(**SIZES, num_attention_heads=heads, num_key_value_heads=key_heads)).save_pretrained(folder / name)
        PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="w0", unk_token="w1").save_pretrained(folder / name)
    lines = [" ".join(f"w{(i * i + 3 * n) % 61}" for i in range(40)) for n in range(12)]
    (folder / "text.txt").write_text("\n\n".join(lines))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    ran = subprocess.run(
        [*command, split_worker.__file__, folder], env=quiet, capture_output=True, text=True, timeout=400
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    (folder / "said.txt").write_text(ran.stderr)
    return folder


@pytest.mark.parametrize("name", ["llama", "gemma", "one-key-head"])
def test_two_ranks_record_the_rows_of_one(done: Path, name: str) -> None:
    assert split_worker.record(done, name, f"{name}-alone", "--hook-points", *split_worker.POINTS) == 0
    ours, theirs = (Recording(done / "workspace" / "recordings" / each) for each in (name, f"{name}-alone"))
    assert ours.artefact.settings.text_read.engine == "sharded over 2 processes"
    assert (ours.weight_hash, ours.n_shards) == (theirs.weight_hash, theirs.n_shards)
    for shard in range(ours.n_shards):
        assert torch.equal(ours.token_shard(shard).tokens, theirs.token_shard(shard).tokens)
        for point in split_worker.POINTS:
            one, other = ours.activation_shard(point, shard), theirs.activation_shard(point, shard)
            assert float((one - other).norm() / other.norm()) < 1e-5, point


def test_what_ranks_cannot_share_is_refused_once(done: Path) -> None:
    assert [json.loads((done / f"codes-{rank}.json").read_text()) for rank in (0, 1)] == [[0, 0, 0, 2, 2, 2]] * 2
    said = (done / "said.txt").read_text()
    assert said.count("blocks.1.attn.hook_z holds the heads or neurons of one of the 2 processes") == 1
    assert said.count("a live recording is read by one process") == 1
    assert said.count("has 3 heads, 3 of keys and values, and 64 tokens, which 2 processes cannot share") == 1


def test_values_inside_attention_and_mlp_are_parts() -> None:
    parts = ["attn.hook_q", "attn.hook_pattern", "attn.q.hook_in", "mlp.hook_post", "mlp.in.hook_out"]
    whole = ["hook_resid_mid", "ln1.hook_scale", "attn.hook_in", "attn.o.hook_out", "mlp.hook_in", "mlp.out.hook_out"]
    assert [is_part(f"blocks.1.{name}") for name in (*parts, *whole)] == [True] * len(parts) + [False] * len(whole)


def test_other_verbs_run_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="processes share a model in `record` alone; leave torchrun out"):
        refuse_ranks()
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        refuse_ranks()
