"""Cost of training transcoders of all layers together, relative to its parts.

SmolLM2-135M, a BatchTopK transcoder with a skip connection for each of 30 layers, 2,304 latents each, batches of 2,048
tokens. The whole is what `saes.sets.train` does for some batches: read them from a live recording, which runs the model
once, and take one step of every layer. The parts are the bare pass over the same contexts, without storing anything,
and the 30 steps on batches in memory. CPU seconds of the process, rounds alternate.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.report import Result, at_most, interleaved, main, median_ratio

D_SAE, K, BATCH, N_BATCHES, REPEATS, TOKENS = 2304, 32, 2048, 2, 3, 3_000_000


def run() -> list[Result]:
    """Measure a set's training against the model's pass and the steps of its layers."""
    import torch

    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        whole, model_pass, steps = _measured(Path(scratch))
        seconds = interleaved(whole, model_pass, steps, repeats=REPEATS, clock=time.process_time)
    together, forward, apart = seconds
    parts = [1e3 * min(times) / (BATCH * N_BATCHES) for times in seconds]
    return [
        at_most(
            "training 30 transcoders from one pass",
            median_ratio(together, [a + b for a, b in zip(forward, apart, strict=True)]),
            1 / 0.9,
            "the model's pass and the 30 single steps",
            f"CPU s per 1,000 tokens: {parts[0]:.2f} together, {parts[1]:.2f} pass, {parts[2]:.2f} steps; "
            f"{parts[0] * TOKENS / 1e3 / 3600:.1f} CPU hours for 3 million tokens",
        )
    ]


def _measured(scratch: Path) -> tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]:
    from interp.models.adapter import mlp_hook_points
    from interp.models.loading import load_model
    from interp.models.passes import Capture
    from interp.recording.live import LiveRecording
    from interp.recording.record import record
    from interp.recording.recorded import RecordConfig
    from interp.text.corpora import open_corpus
    from saes.kernels.step import Buffers
    from saes.kinds.config import BatchTopKConfig
    from saes.sets.train import transcoder_config
    from saes.training.config import TrainConfig
    from saes.training.data import Position, RowSource, training_batches
    from saes.training.run import Job, TrainingProcess, read_together

    model = load_model("smollm2-135m", device="cpu")
    points = mlp_hook_points(model)
    record(
        model,
        open_corpus("docstrings"),
        scratch / "text",
        RecordConfig(live=True, tokens=BATCH * N_BATCHES),
        hook_points=points,
    )
    recording = LiveRecording(scratch / "text", model=model)
    train = TrainConfig(tokens=BATCH * N_BATCHES * (REPEATS + 2) * 2, batch_size=BATCH, heldout_fraction=1e-9)
    sources = [RowSource(recording, points[at], target=points[at + 1]) for at in range(0, len(points), 2)]
    options: dict[str, Any] = {"batch_size": BATCH, "heldout_fraction": train.heldout_fraction, "seed": train.seed}
    first, buffers, runs = next(training_batches(sources, **options)), Buffers(), []
    for source, batch in zip(sources, first, strict=True):
        config = transcoder_config(BatchTopKConfig(d_sae=D_SAE, k=K), source.outputs[0].hook_point, skip=True)
        job = Job(sae=config, train=train, folder=scratch / "runs" / f"layer_{len(runs)}")
        runs.append(TrainingProcess(source, job, buffers=buffers, first_batch=partial(_same, batch), device="cpu"))
    kept = list(islice(read_together(runs, Position()), N_BATCHES))

    def whole() -> None:
        for batches in islice(read_together(runs, Position()), N_BATCHES):
            for run, batch in zip(runs, batches, strict=True):
                run.step(batch)

    def model_pass() -> None:
        for shard in range(recording.n_shards):
            tokens = recording.token_shard(shard).tokens.view(-1, recording.context_length).long()
            with Capture(model, points) as capture:
                for part in tokens.split(16):
                    capture(part)

    def steps() -> None:
        for batches in kept:
            for run, batch in zip(runs, batches, strict=True):
                run.step(batch)

    return whole, model_pass, steps


def _same(value: Any) -> Any:
    return value


if __name__ == "__main__":
    main(run)
