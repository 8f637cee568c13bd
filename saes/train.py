"""The one training loop: a generator of metrics, used alike by the command line, a notebook and a test.

1. scale the activations to a mean norm of `sqrt(d)`; start `b_dec` at their mean;
2. take steps (`saes.kernels.step`), writing a health line every `log_every` and a checkpoint every `checkpoint_every`;
3. fold the scale into the weights, let the kind finish itself (BatchTopK finds its threshold), evaluate on the
   documents that were held out, and put the folder in place.

Interrupted (Ctrl-C, a full disk, bad data), the run writes a checkpoint after its last whole step. Killed outright, it
goes back to the checkpoint before. Either way the same call resumes it, and ends at bit-identical weights.
"""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from math import isfinite
from pathlib import Path

import torch

from interp.artifacts import Draft, atomic_file, disk_errors
from interp.errors import NonFiniteError
from interp.recording.store import Recording
from interp.runtime import make_generator, parse_dtype, pick_device
from saes.batches import Position, TrainingBatch, check_stats, training_batches
from saes.checkpoint import FILE, Checkpoint, read_checkpoint, write_checkpoint
from saes.config import SAEConfig, TrainConfig, plan
from saes.evaluate import evaluate_on_recording
from saes.folding import fold, input_scale
from saes.kernels.state import TrainState
from saes.kernels.step import Stepper, StepResult, StepSettings, choose_ops
from saes.kinds.base import SAE, SAEMetadata
from saes.kinds.registry import kind_of
from saes.schema import DENSE
from saes.weights.folder import load_sae, save_sae

LOG = "log.jsonl"
THRESHOLD_BATCHES = 16


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The health of a run at one step."""

    step: int
    tokens: int
    loss: float
    fvu: float
    """Fraction of variance unexplained on this batch: 0 is perfect, 1 no better than the mean."""
    l0: float
    """Active latents per token."""
    dead: float
    """Share of latents silent for the dead window."""
    dense: float
    """Share of latents that fire on more than a tenth of recent tokens."""
    aux: float
    """AuxK loss: share of the residual that dead latents leave unexplained; 0 when none is dead."""
    lr: float
    tokens_per_second: float

    def __str__(self) -> str:
        return (
            f"step {self.step:,}  fvu {self.fvu:.3f}  L0 {self.l0:.1f}  dead {self.dead:.1%}  dense {self.dense:.1%}  "
            f"lr {self.lr:.1e}  {self.tokens_per_second:,.0f} tokens/s"
        )


def train_sae(
    recording: Recording,
    hook_point: str,
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
    recording: Recording,
    hook_point: str,
    sae_config: SAEConfig,
    train_config: TrainConfig,
    folder: Path,
    *,
    overwrite: bool = False,
    device: str | None = None,
) -> Iterator[Metrics]:
    """Train one SAE into `folder`, yielding a `Metrics` at every health line; the folder is whole when it ends.

    `device` None takes a CUDA GPU where there is one, else the CPU with its compiled loops.

    Raises `UnknownNameError` (hook point not recorded), `ConfigError` (too few tokens), `NonFiniteError` (NaN in the
    activations, or the loss diverged), `MismatchError` (an unfinished run with other settings is in the way).
    """
    run = Run(recording, hook_point, sae_config, train_config, Path(folder), overwrite, device)
    try:
        while run.state.step < run.plan.n_steps:
            with _whole_step():
                metrics = run.step()
            if metrics:
                yield metrics
    except BaseException:  # Ctrl-C and a closed generator too: whatever ends the loop, the last whole step is kept
        if not run.diverged:
            run.checkpoint()
        raise
    run.checkpoint()
    run.finish()


class Run:
    """One training run: opened or resumed, advanced step by step, finished."""

    def __init__(
        self,
        recording: Recording,
        hook_point: str,
        sae: SAEConfig,
        train: TrainConfig,
        folder: Path,
        overwrite: bool,
        device: str | None,
    ):
        self.recording, self.config, self.train_config = recording, sae, train
        self.hook_point = recording.check_hook_point(hook_point)
        check_stats(recording, self.hook_point)
        self.stats = recording.stats(self.hook_point)
        self.plan = plan(train, d_in=recording.d(self.hook_point), d_sae=sae.d_sae)
        self.scale = input_scale(self.stats)
        self.draft = Draft.open(folder, kind="sae", config=self._identity(), seed=train.seed, overwrite=overwrite)
        self.device = pick_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        saved = read_checkpoint(self.draft.path) or self._start()
        self.state, self.position, self.seconds = saved.state.to(self.device), saved.position, saved.seconds
        self.diverged = False
        _truncate_log(self.draft.path / LOG, self.state.step)
        self._stepper = Stepper(self._settings(), kind_of(sae).training_select(sae), choose_ops(self.device))
        self._batches = self._read(self.position)
        self._window: list[tuple[StepResult, float]] = []

    def step(self) -> Metrics | None:
        """One step; metrics when a health line is due."""
        started = time.perf_counter()
        batch = next(self._batches)
        lr = self.plan.lr_at(self.state.step)
        result = self._stepper.step(self.state, batch.activations.to(self.device) * self.scale, lr)
        self.position = batch.next
        if not isfinite(result.loss):
            self.diverged = True
            raise NonFiniteError(
                f"the loss is {result.loss} at step {self.state.step}; lower lr (it was {self.plan.lr:.1e})"
            )
        spent = time.perf_counter() - started
        self.seconds += spent
        self._window.append((result, spent))
        if self.state.step % self.train_config.checkpoint_every == 0:
            self.checkpoint()
        if self.state.step % self.train_config.log_every and self.state.step != self.plan.n_steps:
            return None
        return self._report(lr)

    def checkpoint(self) -> None:
        write_checkpoint(self.draft.path, Checkpoint(self.state, self.position, self.seconds))

    def finish(self) -> SAE:
        """Fold, finish the kind, evaluate on held-out documents, write the folder."""
        manifest = self.recording.manifest
        metadata = SAEMetadata(
            model=self.recording.model,
            weight_hash=self.recording.weight_hash,
            hook_point=self.hook_point,
            context_size=self.recording.context_length,
            bos=str(manifest.config.get("bos", "")),
        )
        sample = (b.activations for b in islice(self._read(Position()), THRESHOLD_BATCHES))
        sae = kind_of(self.config).from_training(
            self.config, fold(self.state.to("cpu"), self.scale), metadata=metadata, batches=sample
        )
        fraction = self.train_config.heldout_fraction
        heldout = evaluate_on_recording(sae, self.recording, heldout_fraction=fraction)
        save_sae(sae, self.draft.path)
        (self.draft.path / FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.draft.path / FILE).parent.rmdir()
        self.draft.finish(
            summary=self._summary(sae, asdict(heldout)), parents=self._parents(), threads=torch.get_num_threads()
        )
        return sae

    def _identity(self) -> dict:
        sae = {"kind": self.config.kind, **asdict(self.config)}
        place = {"recording": self.recording.folder.name, "hook_point": self.hook_point}
        return {**sae, **asdict(self.train_config), **place, "recording_hash": self.recording.manifest.content_hash}

    def _settings(self) -> StepSettings:
        return StepSettings(
            variance=float(self.stats.variance.sum()) * self.scale**2,
            k_aux=self.plan.k_aux,
            aux_coefficient=self.train_config.aux_coefficient,
            dead_window=self.plan.dead_window,
            clip_norm=self.train_config.clip_norm,
            encoder_dtype=parse_dtype(self.train_config.encoder_dtype),
        )

    def _start(self) -> Checkpoint:
        mean = (self.stats.mean * self.scale).float()
        generator = make_generator(self.train_config.seed, "sae", "initial weights")
        return Checkpoint(TrainState.initial(mean, self.config.d_sae, generator=generator), Position(), 0.0)

    def _parents(self) -> dict[str, str]:
        model = {f"model:{self.recording.model}": self.recording.weight_hash}
        return {self.recording.key: self.recording.manifest.content_hash, **model}

    def _summary(self, sae: SAE, heldout: dict) -> dict:
        return {
            "d_in": sae.d_in,
            "d_sae": sae.d_sae,
            "hook_point": self.hook_point,
            "model": self.recording.model,
            "architecture": sae.architecture,
            "tokens_seen": self.plan.n_steps * self.plan.batch_size,
            "tokens_per_second": round(self.plan.n_steps * self.plan.batch_size / max(self.seconds, 1e-9)),
            "plan": str(self.plan),
            "heldout": heldout,
        }

    def _read(self, start: Position) -> Iterator[TrainingBatch]:
        return training_batches(
            self.recording,
            self.hook_point,
            batch_size=self.plan.batch_size,
            heldout_fraction=self.train_config.heldout_fraction,
            seed=self.train_config.seed,
            start=start,
        )

    def _report(self, lr: float) -> Metrics:
        results, times = zip(*self._window, strict=True)
        self._window.clear()
        metrics = Metrics(
            step=self.state.step,
            tokens=self.state.step * self.plan.batch_size,
            loss=_mean(r.loss for r in results),
            fvu=_mean(r.fvu for r in results),
            l0=_mean(r.l0 for r in results),
            dead=results[-1].n_dead / self.state.d_sae,
            dense=float((self.state.density > DENSE).float().mean()),
            aux=_mean(r.aux for r in results),
            lr=lr,
            tokens_per_second=self.plan.batch_size * len(times) / sum(times),
        )
        path = self.draft.path / LOG
        with disk_errors(path), open(path, "a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(metrics)) + "\n")
        self.draft.update(**asdict(metrics), total_tokens=self.plan.n_steps * self.plan.batch_size, plan=str(self.plan))
        return metrics


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


def _truncate_log(path: Path, step: int) -> None:
    """Drop the lines after `step`: an interrupted run may have logged beyond its last checkpoint, or half a line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError, KeyError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
