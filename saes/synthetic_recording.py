"""Synthetic rows written as a recording, so that every verb and the training loop read them as they read a model's.

A context is a document of 64 rows; there is no text (every token is 0) and no model: `weight_hash` is the hash of the
settings and the seed, from which the truth follows. `truth.safetensors` holds the directions, against which what
`read_synthetic` makes anew is checked.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from interp.artifacts import Draft, atomic_file, hash_json
from interp.errors import ConfigError, MismatchError
from interp.names import canonical_hook_point
from interp.recording.contexts import ShardText
from interp.recording.shards import Shard
from interp.recording.store import Recording, load_tensors
from interp.recording.writer import ShardLog, write_shard, write_stats
from saes.synthetic import SyntheticConfig, SyntheticData

HOOK_POINT = "blocks.0.hook_resid_post"
CONTEXT, SHARD_CONTEXTS = 64, 256
MODEL, TRUTH = "synthetic", "truth.safetensors"


def write_synthetic(
    data: SyntheticData,
    folder: Path,
    *,
    n_rows: int,
    hook_point: str = HOOK_POINT,
    overwrite: bool = False,
) -> Recording:
    """At least `n_rows` rows (whole contexts) as a recording at `hook_point`; interrupted, the same call goes on.

    Rows are float32 and drawn with the data's own seed, shard by shard. Memory holds one shard of 16,384 rows.
    Raises `ConfigError` (no rows, or the folder is there), `MismatchError` (an unfinished run with other settings).
    """
    if n_rows < 1:
        raise ConfigError(f"n_rows must be at least 1, got {n_rows}")
    name, contexts = canonical_hook_point(hook_point), -(-n_rows // CONTEXT)
    config = {
        "model": MODEL,
        "weight_hash": _hash(data),
        "hook_points": [name],
        "context_length": CONTEXT,
        "bos": "none",
        "dtype": "float32",
        "n_tokens": n_rows,
        "seed": data.seed,
        "synthetic": asdict(data.config),
    }
    draft = Draft.open(Path(folder), kind="recording", config=config, seed=data.seed, overwrite=overwrite)
    log = ShardLog(draft)
    for number, first in enumerate(range(0, contexts, SHARD_CONTEXTS)):
        if number in log:
            continue
        text = _no_text(number, first, min(SHARD_CONTEXTS, contexts - first), last=first + SHARD_CONTEXTS >= contexts)
        rows = next(data.batches(text.n_rows, start=number))
        write_shard(draft, log, Shard(text, {name: rows.x}))
    write_stats(draft, log, [name])
    with atomic_file(draft.path / TRUTH) as temporary:
        save_file({"directions": data.directions}, temporary)
    total = contexts * CONTEXT
    draft.finish(
        summary={
            "n_rows": total,
            "n_real": total,
            "n_documents": contexts,
            "shard_rows": [entry["rows"] for entry in log.entries],
            "widths": {name: data.config.d},
            "l0": data.l0,
        },
        threads=torch.get_num_threads(),
    )
    return Recording(Path(folder))


def read_synthetic(recording: Recording) -> SyntheticData:
    """The data that a recording was drawn from. Raises `MismatchError` when it holds a model's activations."""
    settings = recording.manifest.config.get("synthetic")
    if settings is None:
        raise MismatchError(
            f"{recording.folder} holds activations of {recording.model}, whose true features nobody knows; "
            "recovery can be measured on recordings that `saes.synthetic_recording.write_synthetic` wrote"
        )
    data = _data_of(settings, recording.manifest.config["seed"])
    directions = load_tensors(recording.folder / TRUTH)["directions"]
    if directions.shape != data.directions.shape or not torch.allclose(directions, data.directions, atol=1e-4):
        raise MismatchError(
            f"{recording.folder} was drawn along other directions than its settings give with this version of torch; "
            "write it again with `write_synthetic`"
        )
    return data


def _data_of(settings: dict[str, Any], seed: int) -> SyntheticData:
    """Drawn by the settings of `SyntheticConfig`, or the hidden layer of a toy of superposition."""
    if "W" in settings:
        from saes.toy_recovery import ToyData, ToyDataConfig

        rows = tuple(tuple(row) for row in settings["W"])
        return ToyData(ToyDataConfig(W=rows, density=settings["density"]), seed=seed)
    return SyntheticData(SyntheticConfig(**settings), seed=seed)


def _no_text(number: int, first: int, n_contexts: int, *, last: bool) -> ShardText:
    shape = (n_contexts, CONTEXT)
    documents = np.arange(first, first + n_contexts, dtype=np.int32)
    return ShardText(
        number=number,
        tokens=np.zeros(shape, np.int32),
        document=np.repeat(documents[:, None], CONTEXT, axis=1),
        position=np.tile(np.arange(CONTEXT, dtype=np.int32), (n_contexts, 1)),
        begins=[(int(n), f"context {n}", "synthetic") for n in documents],
        last=last,
    )


def _hash(data: SyntheticData) -> str:
    return hash_json({"config": asdict(data.config), "seed": data.seed})
