"""Trains a TopK SAE with SAELens on rows saved by `against_saelens.py`. Runs in SAELens' own environment.

    python -m benchmarks.peers.saelens_training TRAIN.npy HELDOUT.npy SETTINGS_JSON

`TRAIN.npy [n, d]` float32 holds the training rows in the order in which ours saw them. Prints one JSON object: CPU and
wall seconds of the training loop, peak memory above what the process held before it, held-out FVU and L0.
"""

import json
import sys
import time

import numpy as np
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.peers.memory import peak_mb, start_peak


def main(train_path: str, heldout_path: str, settings: dict) -> None:
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    rows = np.load(train_path, mmap_mode="r")  # its shape and where it begins: read, never mapped, which would count
    batch = settings["batch_size"]

    def batches():
        while True:
            for start in range(0, len(rows) - batch + 1, batch):
                yield torch.from_numpy(read_rows(train_path, rows, start, batch))

    tokens = len(rows) // batch * batch
    before = start_peak()
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=rows.shape[1],
            d_sae=settings["d_sae"],
            k=settings["k"],
            normalize_activations="expected_average_only_in",
        )
    )
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=tokens,
            train_batch_size_samples=batch,
            lr=settings["lr"],
            lr_end=settings["lr"] / 10,
            lr_warm_up_steps=settings["warmup_steps"],
            lr_decay_steps=settings["decay_steps"],
            dead_feature_window=settings["dead_steps"],
            n_batches_for_norm_estimate=20,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=batches(),
    )
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.fit()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"tokens": tokens, "wall": wall, "cpu": cpu, "memory_mb": peak_mb() - before,
                      **heldout(sae, np.load(heldout_path))}))  # fmt: skip


def read_rows(path: str, mapped: np.memmap, start: int, n: int) -> np.ndarray:
    """Rows from disk into fresh memory. Pages of a mapped file would be counted as memory of the process."""
    width = mapped.shape[1]
    at = mapped.offset + start * width * mapped.itemsize
    return np.fromfile(path, dtype=mapped.dtype, count=n * width, offset=at).reshape(n, width)


@torch.no_grad()
def heldout(sae: TopKTrainingSAE, rows: np.ndarray) -> dict[str, float]:
    """FVU and L0 by the same definition as ours."""
    x = torch.from_numpy(rows)
    error, active = 0.0, 0.0
    for part in x.split(2048):
        acts = sae.encode(part)
        error += float((part - sae.decode(acts)).double().square().sum())
        active += float((acts != 0).sum())
    variance = float((x.double() - x.double().mean(0)).square().sum())
    return {"fvu": error / variance, "l0": active / len(x)}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
