"""Cost of the CKA of all pairs among 30 layers, in one pass over a recording.

The first ratio is to the same numbers pair by pair, where both layers of a pair are read and their kernels computed
again, as a function of two representations does. A tenth of the pairs is timed and scaled up. The second ratio is to
reading the same rows alone. The third is to the least that a pass must do: reading, and the products `x @ x.T` of every
layer and batch. The layers are those of an untrained model of SmolLM2's width, as only the time matters.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main

LAYERS, D, ROWS, BATCH = 30, 576, 6144, 512


def run() -> list[Result]:
    """Measure pair by pair / one pass, one pass / reading alone, and one pass / its products and reading."""
    with tempfile.TemporaryDirectory() as scratch:
        recording = _recorded(Path(scratch) / "recordings" / "layers")
        names = recording.hook_points
        pairs = list(itertools.combinations(names, 2))
        some = pairs[:: len(pairs) // 40]
        _read(recording, names)  # the files are in the page cache for all three
        reading = _seconds(lambda: _read(recording, names))
        once = _seconds(lambda: _cka(recording, names))
        pairwise = _seconds(lambda: [_cka(recording, list(pair)) for pair in some])
    products = _seconds(_products)
    by_pair = pairwise * len(pairs) / len(some)
    floor = f"products {products:.1f} s, reading {reading:.1f} s"
    detail = f"{ROWS} rows of {D}: {once:.1f} s; {floor}, {len(pairs)} pairs {by_pair:.0f} s"
    floors = (("reading the same rows", reading, 8), ("its products and reading", products + reading, 2))
    return [
        Result(question="CKA of 30 layers, one pass", ratio=by_pair / once, target=5, against="by pair", detail=detail),
        *(
            Result(
                question="CKA of 30 layers, one pass",
                ratio=once / seconds,
                target=target,
                against=against,
                lower_is_better=True,
                detail=detail,
            )
            for against, seconds, target in floors
        ),
    ]


def _recorded(folder: Path) -> Any:
    from interp.models.loading import load_model
    from interp.models.small import SmallConfig
    from interp.recording.record import record
    from interp.recording.recorded import RecordConfig
    from interp.recording.store import Recording
    from interp.text.corpora import Document

    model = load_model(SmallConfig(n_layers=LAYERS, d_model=D, n_heads=9), seed=0)
    documents = [Document(f"page {number} " + "some words in a row. " * 30, str(number), "") for number in range(200)]
    hook_points = [f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS)]
    record(model, documents, folder, RecordConfig(tokens=ROWS, context_length=128), hook_points=hook_points)
    return Recording(folder)


def _read(recording: Any, names: list[str]) -> None:
    for _ in recording.shuffled(names, batch_size=BATCH):
        pass


def _cka(recording: Any, names: list[str]) -> None:
    from interp.geometry.space import batched_cka

    centre = [recording.stats(name).mean.float() for name in names]  # CKA is shift-invariant, float32 rounding is not
    parts = (part.activations for part in recording.shuffled(names, batch_size=BATCH))
    batched_cka(([part[n] - mean for n, mean in zip(names, centre, strict=True)] for part in parts), names)


def _products() -> None:
    import torch

    x = torch.randn(BATCH, D)
    for _ in range(LAYERS * (ROWS // BATCH)):
        x @ x.T


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(run)
