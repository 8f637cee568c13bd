"""One of the ranks that share a model; `test_tensor_parallel` compares what they record with one process."""

import json
import sys
from pathlib import Path

from interp.ranks import join
from workbench.__main__ import main

POINTS = ["blocks.1.hook_resid_post", "blocks.1.hook_attn_out", "blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out"]
HOW = ["--tokens", "300", "--context-length", "16", "--batch-size", "4", "--shard-contexts", "4", "--threads", "1"]


def record(folder: Path, model: str, name: str, *options: str) -> int:
    where = ["--corpus", str(folder / "text.txt"), "--workspace", str(folder / "workspace"), "--dtype", "float32"]
    try:
        return main(["record", str(folder / model), "--name", name, *where, *HOW, *options])
    except SystemExit as error:
        return int(error.code or 0)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with join() as ranks:
        shared = ["--engine", "sharded", "--hook-points"]
        codes = [record(folder, name, name, *shared, *POINTS) for name in ("llama", "gemma", "one-key-head")]
        codes.append(record(folder, "llama", "heads", *shared, "blocks.1.attn.hook_z"))
        codes.append(record(folder, "llama", "live", *shared, POINTS[0], "--live"))
        codes.append(record(folder, "three-heads", "three-heads", *shared, POINTS[0]))
    (folder / f"codes-{ranks.rank}.json").write_text(json.dumps(codes))
