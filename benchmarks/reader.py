"""Share of training that a step waits for its batch, with and without read-ahead; reading of int8 against float16.

`python -m benchmarks.reader [--json]`. A stored recording of 131,072 rows of SmolLM2's embeddings (two groups of the
shuffle), and a BatchTopK dictionary of 4,608 latents. Every step is taken; the time until its batch was there is
counted apart. The files are dropped from the page cache first where the system allows it.

The same rows stored as int8 are read in turns with float16, eight epochs of the shuffle into batches in float32, on one
thread. There the files are in memory, so what counts is the processor's work; from a disk int8 reads half of the bytes.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from benchmarks.report import Result, at_least, at_most, interleaved, main

HOOK_POINT, TOKENS, D_SAE, STEPS = "hook_embed", 131_072, 4_608, 28
MOST = 0.05
EPOCHS = 8


def run() -> list[Result]:
    """Measure the share of waiting."""
    with tempfile.TemporaryDirectory() as scratch:
        recording = _recorded(Path(scratch) / "recordings" / "speed")
        with mock.patch("saes.training.run.read_ahead", iter), mock.patch("interp.recording.store.read_ahead", iter):
            plain = _share_of_waiting(recording, Path(scratch) / "plain")
        ahead = _share_of_waiting(recording, Path(scratch) / "ahead")
        half, int8 = _reading(recording, _recorded(Path(scratch) / "recordings" / "int8", dtype="int8"))
    return [
        at_most(
            f"waiting for batches of 4,096, BatchTopK {D_SAE:,} latents",
            ahead,
            MOST,
            "the whole time of the steps",
            f"without read-ahead {plain:.1%}, {STEPS} steps",
        ),
        at_least(
            "rows of int8 a CPU second, shuffled, as float32",
            half / int8,
            1.0,
            "rows of float16",
            f"{EPOCHS * TOKENS / int8:,.0f} and {EPOCHS * TOKENS / half:,.0f}",
        ),
    ]


def _reading(*recordings: Any) -> list[float]:
    """Return the CPU seconds of the fastest of three readings of each recording."""
    import torch

    from interp.ranks import ALONE
    from interp.recording.store import GROUP_ROWS, plan_epoch, read_plan

    def read(recording: Any) -> None:
        how: Any = {"seed": 0, "group_rows": GROUP_ROWS, "split": "all", "fraction": 0.1}
        plan = chain.from_iterable(plan_epoch(recording, epoch=epoch, **how) for epoch in range(EPOCHS))
        rows: Any = {"batch_size": 4_096, "skip": 0, "dtype": torch.float32, "ranks": ALONE}
        for _ in read_plan(recording, plan, [HOOK_POINT], **rows):
            pass

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = interleaved(*(partial(read, r) for r in recordings), repeats=3, clock=time.process_time)
    torch.set_num_threads(threads)
    return [min(each) for each in seconds]


def _recorded(folder: Path, dtype: Literal["float16", "int8"] = "float16") -> Any:
    from interp.models.loading import load_model
    from interp.recording.record import record
    from interp.recording.recorded import RecordConfig
    from interp.recording.store import Recording
    from interp.text.corpora import open_corpus

    record(
        load_model("smollm2-135m"),
        open_corpus("docstrings"),
        folder,
        RecordConfig(tokens=TOKENS, dtype=dtype),
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
