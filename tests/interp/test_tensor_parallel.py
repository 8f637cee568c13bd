"""Two processes that share every layer of a model record the rows of one process; parts of a value are refused.

Run as a script, this file is one of the two.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from interp.errors import ConfigError
from interp.models.tensor_parallel import is_part
from interp.ranks import join, refuse_ranks
from interp.recording.store import Recording
from workbench.__main__ import main

MODELS = {"llama": (6, 2), "gemma": (4, 2), "one-key-head": (4, 1), "three-heads": (3, 3)}
"""Heads of queries, and of keys and values."""
POINTS = ["blocks.1.hook_resid_post", "blocks.1.hook_attn_out", "blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out"]
HOW = ["--tokens", "300", "--context-length", "16", "--batch-size", "4", "--shard-contexts", "4", "--threads", "1"]


def record(folder: Path, model: str, name: str, *options: str) -> int:
    where = ["--corpus", str(folder / "text.txt"), "--workspace", str(folder / "workspace"), "--dtype", "float32"]
    try:
        return main(["record", str(folder / model), "--name", name, *where, *HOW, *options])
    except SystemExit as error:
        return int(error.code or 0)


def on_one_rank(folder: Path) -> None:
    shared = ["--engine", "sharded", "--hook-points"]
    with join() as ranks:
        codes = [record(folder, name, name, *shared, *POINTS) for name in MODELS]
        codes.append(record(folder, "llama", "heads", *shared, "blocks.1.attn.hook_z"))
        codes.append(record(folder, "llama", "live", *shared, POINTS[0], "--live"))
    (folder / f"codes-{ranks.rank}.json").write_text(json.dumps(codes))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks recorded models of different kinds."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("split")
    plain = Tokenizer(models.WordLevel({f"w{n}": n for n in range(64)}, unk_token="w1"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="w0", unk_token="w1")
    torch.manual_seed(0)
    for name, (heads, key_heads) in MODELS.items():
        form = hf.LlamaConfig if name in ("llama", "three-heads") else hf.Gemma3TextConfig
        config = form(
            vocab_size=64, hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=heads,
            num_key_value_heads=key_heads, head_dim=8, max_position_embeddings=96, bos_token_id=0,
            initializer_range=0.5,
        )  # fmt: skip
        hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    lines = [" ".join(f"w{(i * i + 3 * n) % 61}" for i in range(40)) for n in range(12)]
    (folder / "text.txt").write_text("\n\n".join(lines))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    ran = subprocess.run([*command, __file__, folder], env=quiet, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stderr[-4000:]
    (folder / "said.txt").write_text(ran.stderr)
    return folder


@pytest.mark.parametrize("name", ["llama", "gemma", "one-key-head"])
def test_two_ranks_record_the_rows_of_one(done: Path, name: str) -> None:
    assert record(done, name, f"{name}-alone", "--hook-points", *POINTS) == 0
    ours, theirs = (Recording(done / "workspace" / "recordings" / each) for each in (name, f"{name}-alone"))
    assert ours.artefact.settings.text_read.engine == "sharded over 2 processes"
    assert (ours.weight_hash, ours.n_shards) == (theirs.weight_hash, theirs.n_shards)
    for shard in range(ours.n_shards):
        assert torch.equal(ours.token_shard(shard).tokens, theirs.token_shard(shard).tokens)
        for point in POINTS:
            one, other = ours.activation_shard(point, shard), theirs.activation_shard(point, shard)
            assert float((one - other).norm() / other.norm()) < 1e-5, point


def test_what_ranks_cannot_share_is_refused_once(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [json.loads((done / f"codes-{rank}.json").read_text()) for rank in (0, 1)] == [[0, 0, 0, 2, 2, 2]] * 2
    said = (done / "said.txt").read_text()
    assert said.count("blocks.1.attn.hook_z holds the heads or neurons of one of the 2 processes") == 1
    assert said.count("a live recording is read by one process") == 1
    assert said.count("has 3 heads, 3 of keys and values, and 64 tokens, which 2 processes cannot share") == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, error in (("0", ConfigError), ("1", SystemExit)):  # other verbs
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(error):
            refuse_ranks()


def test_values_inside_attention_and_mlp_are_parts() -> None:
    parts = ["attn.hook_q", "attn.hook_pattern", "attn.q.hook_in", "mlp.hook_post", "mlp.in.hook_out"]
    whole = ["hook_resid_mid", "ln1.hook_scale", "attn.hook_in", "attn.o.hook_out", "mlp.hook_in", "mlp.out.hook_out"]
    assert [is_part(f"blocks.1.{name}") for name in (*parts, *whole)] == [True] * len(parts) + [False] * len(whole)


if __name__ == "__main__":
    on_one_rank(Path(sys.argv[1]))
