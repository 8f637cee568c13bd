"""The one training loop: a generator of metrics, used alike by the command line, a notebook and a test.

1. scale the activations to a mean norm of `sqrt(d)`; start `b_dec` at their mean;
2. take steps (`saes.kernels.step`), writing a health line every `log_every` and a checkpoint every `checkpoint_every`;
3. fold the scale into the weights, let the kind finish itself (BatchTopK finds its threshold), evaluate on the
   documents that were held out, and put the folder in place.

Many dictionaries can share one reading of the data (`train_many`): every batch is given to each of them in turn.

Interrupted (Ctrl-C, a full disk, bad data), a run writes a checkpoint after its last whole step. Killed outright, it
goes back to the checkpoint before. Either way the same call resumes it, and ends at bit-identical weights. Runs of a
sweep that were killed at different steps catch up first: batches are read from where the last of them stands.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from interp.artifacts import partial_path, read_manifest
from interp.errors import ConfigError
from interp.recording.store import Recording
from saes.config import CrosscoderConfig, SAEConfig, TrainConfig, plan
from saes.health import Metrics
from saes.kinds.base import SAE
from saes.run import Job, Run, run_identity
from saes.source import Source
from saes.weights.folder import load_sae

Recordings = Recording | Sequence[Recording]
"""One, or several of the same tokens (a crosscoder's)."""


def train_sae(
    recording: Recordings,
    hook_point: str | Sequence[str],
    sae_config: SAEConfig,
    train_config: TrainConfig,
    folder: Path,
    *,
    overwrite: bool = False,
    device: str | None = None,
    progress: Callable[[int, int, dict], None] | None = None,
) -> SAE:
    """Train to the end and return the saved SAE. `progress(tokens, total, metrics)` is called at every health line."""
    for metrics in train(recording, hook_point, sae_config, train_config, folder, overwrite=overwrite, device=device):
        if progress:
            progress(metrics.tokens, train_config.tokens, asdict(metrics))
    return load_sae(Path(folder))


def train(
    recording: Recordings,
    hook_point: str | Sequence[str],
    sae_config: SAEConfig,
    train_config: TrainConfig,
    folder: Path,
    *,
    overwrite: bool = False,
    device: str | None = None,
) -> Iterator[Metrics]:
    """Train one dictionary into `folder`, yielding a `Metrics` at every health line; the folder is whole when it ends.

    `device` None takes a CUDA GPU where there is one, else the CPU with its compiled loops.

    Raises `UnknownNameError` (hook point not recorded), `ConfigError` (too few tokens), `NonFiniteError` (NaN in the
    activations, or the loss diverged), `MismatchError` (an unfinished run with other settings is in the way).
    """
    source = source_of(recording, hook_point, sae_config)
    run = Run(source, Job(sae=sae_config, train=train_config, folder=Path(folder)), overwrite=overwrite, device=device)
    with contextlib.closing(_advance([run])) as steps:
        for _, metrics in steps:
            yield metrics


def train_many(
    recording: Recordings,
    hook_point: str | Sequence[str],
    jobs: Sequence[Job],
    *,
    overwrite: bool = False,
    resume_sweep: bool = True,
    device: str | None = None,
) -> Iterator[tuple[Job, Metrics]]:
    """Train several dictionaries on one stream of batches, yielding health lines as `(job, metrics)`.

    Each has its own folder, checkpoint and log, and ends at the weights that it would have had alone. With
    `resume_sweep` folders that hold one of these very runs, finished, are left as they are, so that an interrupted
    sweep goes on; without, they are in the way, as for `train`. What the stream is made of must be the same: places,
    `tokens`, `batch_size`, `seed`, `heldout_fraction`; `ConfigError` names what differs. Memory: one state per
    dictionary (three times its weights), one batch.
    """
    if not jobs:
        raise ConfigError("train_many needs at least one job")
    places = [source_of(recording, hook_point, job.sae) for job in jobs]
    _check_one_stream(places, jobs)
    source = places[0]
    whole = [job for job in jobs if resume_sweep and not overwrite and _finished(source, job)]
    runs = [Run(source, job, overwrite=overwrite, device=device) for job in jobs if job not in whole]
    by_folder = {job.folder: job for job in jobs}
    with contextlib.closing(_advance(runs)) as steps:
        for run, metrics in steps:
            yield by_folder[run.folder], metrics


def source_of(recording: Recordings, hook_point: str | Sequence[str], config: SAEConfig) -> Source:
    """The places that a config reads and reconstructs.

    Raises `ConfigError` when it cannot read as many as were given.
    """
    source = Source(recording, hook_point, target=getattr(config, "target", ""))
    n, compares = len(source.inputs), isinstance(config, CrosscoderConfig)
    if compares and n < 2:
        raise ConfigError(
            f"a crosscoder needs at least two places, got {source.inputs[0]}; add a hook point or recording"
        )
    if n > 1 and not compares:
        raise ConfigError(f"a {config.kind} dictionary reads one place, got {n}; name one, or train a crosscoder")
    return source


def _advance(runs: list[Run]) -> Generator[tuple[Run, Metrics], None, None]:
    """Take every run to its end on one stream of batches, starting with the one that is furthest behind."""
    try:
        behind = min(runs, key=lambda run: run.state.step, default=None)
        step = behind.state.step if behind else 0
        batches = behind.read(behind.position) if behind else iter(())
        while not all(run.done for run in runs):
            batch = next(batches)
            for run in runs:
                if run.state.step != step or run.done:
                    continue
                with _whole_step():
                    metrics = run.step(batch)
                if metrics:
                    yield run, metrics
            step += 1
    except BaseException:  # Ctrl-C and a closed generator too: whatever ends the loop, the last whole step is kept
        for run in runs:
            run.checkpoint()
        raise
    for run in runs:
        run.checkpoint()
    for run in runs:
        run.finish()


def _finished(source: Source, job: Job) -> bool:
    """Whether the folder is this very run, whole."""
    if not job.folder.exists() or partial_path(job.folder).exists():
        return False
    manifest = read_manifest(job.folder)
    return manifest.config == run_identity(source, job.sae, job.train) and manifest.seed == job.train.seed


def _check_one_stream(sources: list[Source], jobs: Sequence[Job]) -> None:
    """Raise `ConfigError` where jobs would not read the same batches, or would write the same folder."""

    def stream(source: Source, job: Job) -> dict[str, object]:
        sizes = plan(job.train, d_in=source.d_in, d_sae=job.sae.d_sae)
        return {
            "target": str(source.target or ""),
            "tokens": job.train.tokens,
            "batch_size": sizes.batch_size,
            "seed": job.train.seed,
            "heldout_fraction": job.train.heldout_fraction,
        }

    first = stream(sources[0], jobs[0])
    for source, job in zip(sources, jobs, strict=True):
        mine = stream(source, job)
        if mine != first:
            what = ", ".join(f"{key} ({first[key]} and {mine[key]})" for key in first if first[key] != mine[key])
            raise ConfigError(f"dictionaries trained together read the same batches, but differ in {what}; split them")
    if len({job.folder for job in jobs}) < len(jobs):
        raise ConfigError("two jobs would write the same folder; give each its own")


@contextlib.contextmanager
def _whole_step() -> Iterator[None]:
    """Hold Ctrl-C back until the step is whole: half a step in a checkpoint could not be resumed exactly."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
