"""Train a sparse dictionary on recorded activations; `train_many` reads top to bottom as the algorithm.

1. The rows of a hook point, scaled to mean norm `sqrt(d)` and shuffled (`RowSource`, `read_together`).
2. Initial weights, or those of the last checkpoint (`TrainingProcess`): decoder rows of norm 1, the encoder their copy
   (Gao et al. 2024, arXiv 2406.04093, appendix A.1), `b_dec` the mean row.
3. Steps (`advance`, `saes.kernels.step`): encode, select the active latents, decode, loss, gradients, Adam, rows back
   to norm 1.
4. The scale is folded into the weights, the kind is finished (BatchTopK estimates its threshold), and the dictionary is
   evaluated on held-out documents and saved.

Several dictionaries can share one reading of the data: every batch is given to each of them in turn.

When interrupted (Ctrl-C, a full disk, bad data), a run writes a checkpoint after its last whole step; when killed, it
returns to the previous checkpoint. In both cases the same call resumes it, and ends at bit-identical weights. Runs of a
sweep that were killed at different steps catch up first: reading starts at the position of the run furthest behind.

Several ranks (`interp.ranks`) take the same steps together; `spread` decides whether they share the tokens of a batch
or the latents of the dictionary. Every rank calls with the same arguments and gets the same health lines.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from interp.artifacts import open_artefact, partial_path
from interp.errors import ConfigError, LostRankError
from interp.progress import Progress
from interp.ranks import restore
from interp.recording.store import Recording
from saes.kernels.spread import UNSHARED, Spread
from saes.kinds.base import SAE
from saes.kinds.config import CrosscoderConfig, SAEConfig
from saes.training.config import TrainConfig
from saes.training.data import RowSource
from saes.training.health import Metrics
from saes.training.run import Job, TrainingProcess, read_together, settings_of
from saes.training.schedule import plan
from saes.training.stored import ProseScores, StoredSAE
from saes.weights.folder import load_sae


class DelayedStop:
    """Delay Ctrl-C and SIGTERM until a step is complete: a checkpoint of half a step could not be resumed exactly.

    With several ranks the request waits for the next batch, when all of them learn of it and stop at the same step. It
    is delayed between steps too, as the others would wait for the numbers of a rank that left alone.
    """

    def __init__(self) -> None:
        self._asked = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            restore(before)

    def raise_if_asked(self) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True


Recordings = Recording | Sequence[Recording]
"""one recording, or several of the same tokens (for a crosscoder)"""


def train_sae(
    recording: Recordings,
    hook_point: str | Sequence[str],
    sae_config: SAEConfig,
    train_config: TrainConfig,
    folder: Path,
    *,
    overwrite: bool = False,
    device: str | None = None,
    spread: Spread = UNSHARED,
    progress: Progress | None = None,
) -> SAE:
    """Train to the end and return the saved SAE. Its arguments, and what is raised, are those of `train`.

    Args:
        recording: rows to train on.
        hook_point: the value to reconstruct.
        sae_config: the kind of dictionary and its size.
        train_config: tokens, learning rate and seed.
        folder: of the dictionary.
        spread: how processes share the work.
        progress: called as `progress(tokens, total, metrics)` at every health line.
    Raises:
        UnknownNameError, ConfigError, NonFiniteError, MismatchError: as `train` does.

    >>> small = TrainConfig(tokens=2_000, batch_size=128)
    >>> train_sae(recording, point, TopKConfig(d_sae=64, k=8), small, folder / "trained").W_dec.shape
    torch.Size([64, 64])
    """
    lines = train(
        recording, hook_point, sae_config, train_config, folder, overwrite=overwrite, device=device, spread=spread
    )
    for metrics in lines:
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
    spread: Spread = UNSHARED,
) -> Iterator[Metrics]:
    """Train one dictionary into `folder`; it is whole when the iteration ends.

    Args:
        recording: rows to train on; several for a crosscoder of models.
        hook_point: the value to reconstruct, among those of the recording; several for a crosscoder.
        sae_config: the kind of dictionary and its size, such as `BatchTopKConfig(d_sae=4608, k=32)`.
        train_config: tokens, batches, learning rate.
        folder: of the dictionary. An interrupted run continues there, with the same arguments, to the same bytes.
        overwrite: replace a dictionary that is there.
        device: None takes a CUDA GPU where there is one, else the CPU with its compiled loops.
        spread: how processes share the work.
    Returns: an iterator over `Metrics`, one for every health line.
    Raises:
        UnknownNameError: a hook point that was not recorded.
        ConfigError: too few tokens.
        NonFiniteError: NaN in the activations, or the loss diverged.
        MismatchError: an unfinished run with other settings is in the way.
        OtherRankError, LostRankError: another rank failed, or is gone.

    >>> small = TrainConfig(tokens=2_000, batch_size=128)
    >>> for health in train(recording, point, TopKConfig(d_sae=64, k=8), small, folder / "watched"):
    ...     print(f"{health.tokens:,}")
    1,280
    1,920
    """
    job = Job(sae=sae_config, train=train_config, folder=Path(folder))
    lines = train_many(
        recording, hook_point, [job], overwrite=overwrite, resume_sweep=False, device=device, spread=spread
    )
    with contextlib.closing(lines):
        for _, metrics in lines:
            yield metrics


def train_many(
    recording: Recordings,
    hook_point: str | Sequence[str],
    jobs: Sequence[Job],
    *,
    overwrite: bool = False,
    resume_sweep: bool = True,
    device: str | None = None,
    spread: Spread = UNSHARED,
    measure_prose: Callable[[SAE], ProseScores | None] | None = None,
) -> Generator[tuple[Job, Metrics], None, None]:
    """Train several dictionaries on one stream of batches.

    Each has its own folder, checkpoint and log, and ends at the weights that it would have had alone. Memory: one state
    per dictionary (three times its weights) and one batch.

    Args:
        recording: holds the activations at `hook_point`.
        jobs: a folder, a kind and a training config each. All must agree on the sites, `tokens`, `batch_size`, `seed`
            and `heldout_fraction`.
        resume_sweep: leave folders as they are that hold one of these runs, finished, so that an interrupted sweep
            continues; without it they are an error, as for `train`.
        spread: how processes share the work.
        measure_prose: returns the scores of a finished dictionary on the doctor's prose, which are stored with it.
    Returns: an iterator over `(job, metrics)`, one for every health line.
    Raises:
        ConfigError: jobs that do not agree; the message names the difference.
        UnknownNameError, NonFiniteError, MismatchError: as `train` does.

    >>> small = TrainConfig(tokens=2_000, batch_size=128)
    >>> jobs = [Job(sae=TopKConfig(d_sae=64, k=k), train=small, folder=folder / f"k{k}") for k in (4, 8)]
    >>> sorted({job.folder.name for job, metrics in train_many(recording, point, jobs)})
    ['k4', 'k8']
    """
    with spread.ranks.checked():
        source = _shared_source(recording, hook_point, jobs)
        todo = [job for job in jobs if not (resume_sweep and not overwrite and _finished(source, job))]
    runs = {
        TrainingProcess(
            source, job, overwrite=overwrite, device=device, spread=spread, measure_prose=measure_prose
        ): job
        for job in todo
    }
    with contextlib.closing(advance(list(runs), spread)) as steps:
        for run, metrics in steps:
            yield runs[run], metrics
    for run in runs:
        run.finish()


def _shared_source(recording: Recordings, hook_point: str | Sequence[str], jobs: Sequence[Job]) -> RowSource:
    """Return the sites that all jobs read and reconstruct.

    Raises `ConfigError` where there is no job, or where jobs read different batches or write one folder.
    """
    if not jobs:
        raise ConfigError("train_many needs at least one job")
    sources = [source_of(recording, hook_point, job.sae) for job in jobs]
    _check_one_stream(sources, jobs)
    return sources[0]


def source_of(recording: Recordings, hook_point: str | Sequence[str], config: SAEConfig) -> RowSource:
    """Return the sites that a config reads and reconstructs.

    Raises `ConfigError` when it cannot read as many as were given.
    """
    source = RowSource(recording, hook_point, target=getattr(config, "target", ""))
    n, compares = len(source.inputs), isinstance(config, CrosscoderConfig)
    if compares and n < 2:
        raise ConfigError(
            f"a crosscoder needs at least two sites, got {source.inputs[0]}; add a hook point or recording"
        )
    if n > 1 and not compares:
        raise ConfigError(f"a {config.kind} dictionary reads one hook point, got {n}; name one, or train a crosscoder")
    return source


def advance(runs: Sequence[TrainingProcess], spread: Spread) -> Generator[tuple[TrainingProcess, Metrics], None, None]:
    """Take every step of runs on one stream of batches, which starts at the run furthest behind."""
    stop = DelayedStop()
    with contextlib.nullcontext() if spread.alone else stop.held():
        try:
            yield from _steps(runs, spread, stop)
        except BaseException as error:  # a closed generator too: whatever ends the loop, the last whole step is saved
            with stop.held():
                for run in runs:
                    run.checkpoint(alone=isinstance(error, LostRankError))
            raise
        for run in runs:
            run.checkpoint()


def _steps(
    runs: Sequence[TrainingProcess], spread: Spread, stop: DelayedStop
) -> Generator[tuple[TrainingProcess, Metrics], None, None]:
    """Take every step; with several ranks all leave at the same one. Its rows are free when it ends: finishing needs
    the memory.
    """
    behind = min(runs, key=lambda run: run.state.step, default=None)
    step = behind.state.step if behind else 0
    batches = read_together(runs, behind.position) if behind else iter(())
    while not all(run.done for run in runs):
        with stop.held(), spread.ranks.checked():
            stop.raise_if_asked()
            batch = next(batches)
        for run, run_batch in zip(runs, batch, strict=True):
            if run.state.step != step or run.done:
                continue
            with stop.held():
                metrics = run.step(run_batch)
            if spread.alone:
                stop.raise_if_asked()
            if metrics:
                yield run, metrics
        step += 1
    with stop.held(), spread.ranks.checked():
        stop.raise_if_asked()


def _finished(source: RowSource, job: Job) -> bool:
    """Return whether the folder holds exactly this run, finished."""
    if not job.folder.exists() or partial_path(job.folder).exists():
        return False
    stored = open_artefact(StoredSAE, job.folder)
    return stored.settings == settings_of(source, job.sae, job.train) and stored.about.seed == job.train.seed


def _check_one_stream(sources: list[RowSource], jobs: Sequence[Job]) -> None:
    """Raise `ConfigError` unless all jobs read the same batches and write to different folders."""

    def stream(source: RowSource, job: Job) -> dict[str, object]:
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
