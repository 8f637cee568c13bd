"""Share of training that a step waits for its batch, with and without read-ahead.

`python -m benchmarks.reader [--json]`. A stored recording of 131,072 rows of SmolLM2's embeddings (two groups of the
shuffle), and a BatchTopK dictionary of 4,608 latents. Every step is taken; the time until its batch was there is
counted apart. The files are dropped from the page cache first where the system allows it.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.report import Result, main

HOOK_POINT, TOKENS, D_SAE, STEPS = "hook_embed", 131_072, 4_608, 28
MOST = 0.05


def run() -> list[Result]:
    """Measure the share of waiting."""
    with tempfile.TemporaryDirectory() as scratch:
        recording = _recorded(Path(scratch) / "recordings" / "speed")
        with mock.patch("saes.training.run.read_ahead", iter), mock.patch("interp.recording.store.read_ahead", iter):
            plain = _share_of_waiting(recording, Path(scratch) / "plain")
        ahead = _share_of_waiting(recording, Path(scratch) / "ahead")
    return [
        Result(
            question=f"waiting for batches of 4,096, BatchTopK {D_SAE:,} latents",
            ratio=ahead,
            target=MOST,
            against="the whole time of the steps",
            lower_is_better=True,
            detail=f"without read-ahead {plain:.1%}, {STEPS} steps",
        )
    ]


def _recorded(folder: Path) -> Any:
    from interp.models.loading import load_model
    from interp.recording.record import record
    from interp.recording.recorded import RecordConfig
    from interp.recording.store import Recording
    from interp.text.corpora import open_corpus

    record(
        load_model("smollm2-135m"),
        open_corpus("docstrings"),
        folder,
        RecordConfig(tokens=TOKENS),
        hook_points=[HOOK_POINT],
    )
    return Recording(folder)


def _share_of_waiting(recording: Any, folder: Path) -> float:
    from saes.kinds.config import BatchTopKConfig
    from saes.training.config import TrainConfig
    from saes.training.data import Position, RowSource
    from saes.training.run import Job, TrainingProcess, read_together

    settings = TrainConfig(tokens=4_096 * STEPS, batch_size=4_096)
    run = TrainingProcess(
        RowSource(recording, HOOK_POINT), Job(sae=BatchTopKConfig(d_sae=D_SAE, k=32), train=settings, folder=folder)
    )
    _drop_from_cache(recording.folder)
    waited, started = 0.0, time.perf_counter()
    batches: Iterator[Any] = read_together([run], Position())
    while not run.done:
        start = time.perf_counter()
        [batch] = next(batches)
        waited += time.perf_counter() - start
        run.step(batch)
    return waited / (time.perf_counter() - started)


def _drop_from_cache(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main(run)
