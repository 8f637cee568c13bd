"""Trains the same TopK SAE with ours, in a process of its own, and prints what `saelens_training.py` prints.

python -m benchmarks.peers.our_training RECORDING FOLDER SETTINGS_JSON
"""

import json
import sys
import time
from pathlib import Path

import torch

from benchmarks.peers.memory import peak_mb, start_peak
from interp.recording.store import Recording
from saes.kernels.compiled import CompiledOps
from saes.kinds.config import TopKConfig
from saes.training.config import TrainConfig
from saes.training.reconstruction import evaluate_on_recording
from saes.training.train import train_sae


def main(recording_folder: str, folder: str, settings: dict) -> None:
    torch.set_num_threads(settings["threads"])
    # Numba imports most of itself, and SciPy, at its first call; the other side has imported all by now.
    CompiledOps().select_topk(torch.ones(1, 4), 1)
    recording = Recording(recording_folder)
    train = TrainConfig(tokens=settings["tokens"], batch_size=settings["batch_size"], seed=settings["seed"])
    before = start_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    config = TopKConfig(d_sae=settings["d_sae"], k=settings["k"])
    sae = train_sae(recording, settings["hook_point"], config, train, Path(folder))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = peak_mb() - before
    scores = evaluate_on_recording(sae, recording, heldout_fraction=train.heldout_fraction)
    print(json.dumps({"tokens": settings["tokens"], "wall": wall, "cpu": cpu, "memory_mb": memory,
                      "fvu": scores.fvu, "l0": scores.l0}))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
