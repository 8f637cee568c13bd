"""One dictionary in training: opened or resumed, advanced by one batch at a time, finished.

`saes.training.train` reads the batches, for one run or for several at once. A run may be spread over ranks
(`saes.kernels.spread`): each has its own `TrainingProcess`, all take the same steps, and the first of them writes.
Every few steps the health of the run (`saes.training.health`) becomes a line of `log.jsonl`. Initial weights are drawn
from the seed, biases start at the mean of the data, and some kinds initialise parameters from the first batch.

**Exact resume.** A checkpoint holds the weights, Adam's moments, the firing counters, the step and the data position.
The generators need no state: initial weights are drawn once, and the order of epoch `e` is a function of `(seed, e)`.

    checkpoint/state.safetensors            the whole state: written by one process, or the first of ranks
    checkpoint/rank-1.safetensors           the whole state, written by another rank after the first was lost
    checkpoint/00000200-1-of-2.safetensors  step 200, where ranks share the latents: each writes its own rows

A run resumes from the latest step whose files are complete. The files of a step are removed only when those of a later
step are complete, so a rank that dies while others write costs some steps, never the run. Any number of ranks, sharing
tokens or latents, can resume the checkpoint of any other number. Files are written atomically.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from interp.artifacts import atomic_file, save_artefact
from interp.artifacts.artefact import settings_json
from interp.devices import parse_dtype, pick_device
from interp.errors import ConfigError, CorruptError, MismatchError, NonFiniteError
from interp.ranks import ALONE, open_draft
from interp.recording.store import read_ahead
from interp.seeds import make_generator
from saes.kernels.autograd import AutogradSettings, AutogradStepper
from saes.kernels.spread import UNSHARED, Spread
from saes.kernels.state import BY_LATENT, RunState, TrainState
from saes.kernels.step import Buffers, Stepper, StepResult, StepSettings, choose_ops
from saes.kinds.autograd import AutogradRecipe, AutogradSAE, DictionarySizes
from saes.kinds.base import SAE, Finished, SAEMetadata, Trained, TrainingRecipe
from saes.kinds.config import SAEConfig
from saes.kinds.registry import autograd_of, recipe_of
from saes.training.config import Null, TrainConfig
from saes.training.data import Position, RowSource, TrainingBatch, check_stats, fold, training_batches
from saes.training.health import Metrics, append_line, measure, truncate_log
from saes.training.log_checks import row_sum
from saes.training.reconstruction import evaluate_on_recording
from saes.training.schedule import TrainingPlan, plan
from saes.training.stored import ProseScores, Reconstruction, StoredSAE, TrainedSettings, TrainingRun
from saes.weights.folder import save_sae
from saes.weights.read import ROWS, Probe, write_probe

CHECKPOINT = "checkpoint"
STATE = f"{CHECKPOINT}/state.safetensors"
_PART = re.compile(r"(\d+)-(\d+)-of-(\d+)\.safetensors")


@dataclass
class Checkpoint:
    """State of a run at one step."""

    state: RunState
    position: Position
    seconds: float
    """Time spent training so far."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint, spread: Spread = UNSHARED, *, alone: bool = False) -> None:
    """Replace the folder's checkpoint, together with the other ranks.

    Ranks that share the tokens hold the same state, so the first of them writes. With `alone` (another rank was lost)
    every remaining rank writes.
    """
    latents, tokens, step = spread.latents, spread.tokens, checkpoint.state.step
    if latents.world > 1:
        name = f"{CHECKPOINT}/{step:08d}-{latents.rank}-of-{latents.world}.safetensors"
    elif tokens.first:
        name = STATE
    elif alone:
        name = f"{CHECKPOINT}/rank-{tokens.rank}.safetensors"
    else:
        return
    numbers = {
        "step": step,
        "epoch": checkpoint.position.epoch,
        "batch": checkpoint.position.batch,
        "seconds": checkpoint.seconds,
    }
    tensors = {name: tensor.contiguous().cpu() for name, tensor in checkpoint.state.tensors().items()}
    with atomic_file(folder / name) as temporary:
        save_file(tensors, temporary, metadata={"numbers": json.dumps(numbers)})
    if spread.ranks.first:
        _remove_older(folder)


def read_checkpoint(folder: Path, spread: Spread = UNSHARED, *, kind: type[RunState] = TrainState) -> Checkpoint | None:
    """Return the folder's latest checkpoint, with this rank's share of the latents; None when there is none yet.

    `kind` is the class of its state.

    Raises `CorruptError` when it cannot be read.
    """
    by_step = _whole_sets(folder)
    if not by_step:
        return None
    paths = by_step[max(by_step)]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(safe_open(str(path), framework="pt")) for path in paths]
            numbers = json.loads(files[0].metadata()["numbers"])
            # copies are aligned as in a run that was never interrupted: products round by alignment
            tensors = {name: _read(files, name, spread).clone() for name in files[0].keys()}  # noqa: SIM118 (not a dict)
        state = kind.from_tensors(tensors, numbers["step"])
        return Checkpoint(state, Position(numbers["epoch"], numbers["batch"]), numbers["seconds"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{paths[0]} cannot be read ({error}); start over with --overwrite") from None


def remove_checkpoint(folder: Path) -> None:
    """Remove everything that was written to resume from."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def _read(files: list[safe_open], name: str, spread: Spread) -> Tensor:
    """Read one tensor; where it has a row per latent, this rank's rows only, whichever rank wrote them."""
    if name.split(".")[0] not in BY_LATENT:
        return files[0].get_tensor(name)
    slices = [file.get_slice(name) for file in files]
    n_rows = slices[0].get_shape()[0]
    mine = spread.latents.share(n_rows * len(files), "the number of latents")
    parts = []
    for number, part in enumerate(slices):
        low, high = max(mine.start - number * n_rows, 0), min(mine.stop - number * n_rows, n_rows)
        if low < high:
            parts.append(part[low:high])
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _whole_sets(folder: Path) -> dict[int, list[Path]]:
    """Map a step to the files that together hold its state. Whole states take precedence over parts."""
    by_step: dict[int, list[Path]] = {}
    parts: dict[tuple[int, int], dict[int, Path]] = {}
    for path in (folder / CHECKPOINT).glob("*.safetensors"):
        if part := _PART.fullmatch(path.name):
            step, rank, world = map(int, part.groups())
            parts.setdefault((step, world), {})[rank] = path
        else:
            by_step[_step(path)] = [path]
    for (step, world), ranks in parts.items():
        if len(ranks) == world:
            by_step.setdefault(step, [ranks[rank] for rank in range(world)])
    return by_step


def _remove_older(folder: Path) -> None:
    """Remove files of steps before the latest complete one."""
    by_step = _whole_sets(folder)
    latest = max(by_step, default=-1)
    for path in (folder / CHECKPOINT).glob("*.safetensors"):
        if path not in by_step.get(latest, []) and _step(path) <= latest:
            path.unlink(missing_ok=True)


def _step(path: Path) -> int:
    if part := _PART.fullmatch(path.name):
        return int(part[1])
    try:
        with safe_open(str(path), framework="pt") as handle:
            return json.loads(handle.metadata()["numbers"])["step"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path} cannot be read ({error}); start over with --overwrite") from None


def initial_state(
    recipe: TrainingRecipe,
    source: RowSource,
    d_sae: int,
    first_batch: Callable[[], TrainingBatch],
    generator: torch.Generator,
    latents: slice = slice(None),
) -> TrainState:
    """Return the state before the first step, restricted to `latents`.

    `first_batch` (the whole batch, on every rank) is called only by kinds that initialise from data.
    """
    scales, mean = source.scales, (source.mean_out * source.scales.output).float()
    d_in = source.d_in if source.target else None
    state = TrainState.initial(mean, d_sae, generator=generator, d_in=d_in, latents=latents)
    if recipe.starts_from_data:
        x, target, *_ = first_batch()
        target = None if target is None else target.float() * scales.output.float()
        recipe.start(choose_ops("cpu"), state, scales.scaled(x.float()), target)
        state.zero_moments()
    return state


THRESHOLD_BATCHES = 16
FROZEN: dict[Null, tuple[str, ...]] = {"frozen-decoder": ("W_dec",), "frozen-encoder": ("W_enc", "b_enc")}
"""Null -> parameters that keep their initial values."""


def shuffled(x: Float[Tensor, "n d"], seed: int, step: int) -> Float[Tensor, "n d"]:
    """Return rows whose coordinates come from different rows: each column is rotated by an amount of its own.

    The distribution of each coordinate remains, whatever they have in common is gone. Drawn from the seed and the step,
    so that a resumed run takes the same steps.
    """
    n, d = x.shape
    turns = torch.randint(n, (d,), generator=make_generator(seed, "shuffled", step)).to(x.device)
    return x.gather(0, (torch.arange(n, device=x.device)[:, None] + turns) % n)


class Steps(Protocol):
    """A stepper of either family, which changes a state of its own class in place."""

    def step(self, state: Any, x: Tensor, lr: float, target: Tensor | None = None) -> StepResult: ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """A dictionary to train: its config, the settings of the run, and the folder."""

    sae: SAEConfig
    train: TrainConfig
    folder: Path


class TrainingProcess:
    """One training run."""

    def __init__(
        self,
        source: RowSource,
        job: Job,
        *,
        overwrite: bool = False,
        device: str | None = None,
        spread: Spread = UNSHARED,
        first_batch: Callable[[], TrainingBatch] | None = None,
        buffers: Buffers | None = None,
        measure_prose: Callable[[SAE], ProseScores | None] | None = None,
    ):
        """Open or resume the run in its folder.

        `first_batch` gives the first whole batch where it was read for other runs as well, `buffers` the working memory
        that they share. `measure_prose` returns the scores of the finished dictionary on the doctor's prose.
        """
        self.source, self.config, self.train_config, self.folder = source, job.sae, job.train, job.folder
        self.spread, self.ranks, self._measure_prose = spread, spread.ranks, measure_prose
        with self.ranks.checked():
            for site in source.sites:
                check_stats(site.recording, site.hook_point)
            self.plan = plan(job.train, d_in=source.d_in, d_sae=job.sae.d_sae)
            self.recipe = autograd_of(job.sae) or recipe_of(job.sae, source.widths)
            if job.train.null != "none" and isinstance(self.recipe, AutogradRecipe):
                raise ConfigError(
                    f"a null of a {job.sae.kind} dictionary cannot be trained: its loss names its own parameters; "
                    "choose a kind with one encoder and one decoder, such as batchtopk"
                )
            self.rows, self._latents = shares(spread, self.recipe, self.config, self.plan)
        self.settings = settings_of(source, job.sae, job.train)
        config = settings_json(self.settings)
        self.draft = open_draft(
            self.ranks, job.folder, kind=StoredSAE.kind, config=config, seed=job.train.seed, overwrite=overwrite
        )
        with self.ranks.checked():
            self.device = pick_device(self.ranks.device(device), mps=False)
            kind = RunState if isinstance(self.recipe, AutogradRecipe) else TrainState
            saved = read_checkpoint(self.draft.path, spread, kind=kind) or self.start(first_batch)
        self.state, self.position, self.seconds = saved.state.to(self.device), saved.position, saved.seconds
        self._check_one_step()
        self.diverged = False
        if self.ranks.first:
            truncate_log(self.draft.path, self.state.step)
        self._stepper = self._make_stepper(self.recipe, buffers)
        self._output = source.scales.output.float().to(self.device)
        self._window: list[tuple[StepResult, float]] = []

    @property
    def done(self) -> bool:
        """True when every step has been taken."""
        return self.state.step >= self.plan.n_steps

    def step(self, batch: TrainingBatch) -> Metrics | None:
        """One step on this rank's rows of a batch; metrics when a health line is due."""
        started = time.perf_counter()
        lr = self.plan.lr_at(self.state.step)
        x = self.source.scales.scaled(batch.x.to(self.device, torch.float32, non_blocking=True))
        target = None if batch.target is None else batch.target.to(self.device, torch.float32, non_blocking=True)
        target = None if target is None else target * self._output
        if self.train_config.null == "shuffled":
            x = shuffled(x, self.train_config.seed, self.state.step)
        result = self._stepper.step(self.state, x, lr, target)
        self.position = batch.next
        if not isfinite(result.loss):
            self.diverged = True
            raise self.ranks.common(
                NonFiniteError(
                    f"the loss is {result.loss} at step {self.state.step}; lower lr (it was {self.plan.lr:.1e})"
                )
            )
        spent = time.perf_counter() - started
        self.seconds += spent
        self._window.append((result, spent))
        if self.state.step % self.train_config.checkpoint_every == 0:
            with self.ranks.checked(patient=True):
                self.checkpoint()
        if self.state.step % self.train_config.log_every and not self.done:
            return None
        return self._report(lr, batch.rows)

    def checkpoint(self, *, alone: bool = False) -> None:
        """Write a checkpoint (not after a step that diverged); `alone`: another rank was lost."""
        if not self.diverged:
            now = Checkpoint(self.state, self.position, self.seconds)
            write_checkpoint(self.draft.path, now, self.spread, alone=alone)

    def finish(self) -> None:
        """Fold scales, finish the kind, evaluate on held-out documents and write the folder.

        The first rank does this, with the latents of all ranks.
        """
        state = self.settle()
        with self.ranks.checked(patient=True):
            if self.ranks.first:
                self._finish(state)

    def settle(self) -> RunState:
        """Return the final state, on the first rank with the latents of all; frees what only training needs."""
        state = replace(self._whole_state(), moments={})
        self.state = state  # drops Adam's moments and step buffers: evaluation needs the memory
        del self._stepper
        return state

    def trained(self, state: RunState, batches: Iterable[Tensor]) -> nn.Module:
        """Return the dictionary of a final state; `batches [n, d_in]` are whole batches of training input."""
        recording, scales = self.source.recording, self.source.scales
        target = self.source.target.hook_point if self.source.target else ""
        metadata = SAEMetadata.of(recording, self.source.inputs[0].hook_point, target)
        sites = tuple(self.source.inputs)
        if isinstance(self.recipe, AutogradRecipe):
            finished = Finished(scales=scales, metadata=metadata, sites=sites, batches=batches)
            return self.recipe.finish(self._sizes(), self.train_config.seed, state, finished)
        assert isinstance(state, TrainState)
        folded = fold(state, scales)
        return self.recipe.finish(
            Trained(scales=scales, metadata=metadata, sites=sites, batches=batches, weights=folded, own=state.extra)
        )

    def _finish(self, state: RunState) -> None:
        sae = self.trained(state, (b.x for b in islice(self.read(Position(), whole=True), THRESHOLD_BATCHES)))
        assert isinstance(sae, SAE)
        fraction = self.train_config.heldout_fraction
        heldout = evaluate_on_recording(sae, self.source.recordings, heldout_fraction=fraction)
        save_sae(sae, self.draft.path)
        if isinstance(sae, AutogradSAE):  # its code may change: loading repeats these numbers
            x = next(self.read(Position(), whole=True)).x[:ROWS].float()
            write_probe(self.draft.path, Probe(x, sae(x)))
        remove_checkpoint(self.draft.path)
        save_artefact(
            self._stored(sae, heldout),
            self.folder,
            parents=self._parents(),
            seed=self.train_config.seed,
            threads=torch.get_num_threads(),
            draft=self.draft,
        )

    def read(self, start: Position, *, whole: bool = False) -> Iterator[TrainingBatch]:
        """Yield the batches that this run trains on: this rank's rows of them, or all rows."""
        return (batches[0] for batches in read_together([self], start, whole=whole))

    def _make_stepper(self, recipe: TrainingRecipe | AutogradRecipe, buffers: Buffers | None) -> Steps:
        ops, dead_window, clip_norm = choose_ops(self.device), self.plan.dead_window, self.train_config.clip_norm
        if isinstance(recipe, AutogradRecipe):
            settings = AutogradSettings(
                variance=self.source.variances if self.source.n_layers > 1 else self.source.variances[0],
                n_steps=self.plan.n_steps,
                dead_window=dead_window,
                clip_norm=clip_norm,
                sparsity_warmup_steps=self.plan.sparsity_warmup_steps,
                seed=self.train_config.seed,
            )
            learner = recipe.build(self._sizes(), self.train_config.seed).to(self.device)
            return AutogradStepper(settings, learner, ops, self.spread)
        return Stepper(self._settings(), recipe, ops, self.spread, buffers)

    def _sizes(self) -> DictionarySizes:
        mean = (self.source.mean_out * self.source.scales.output).float()
        return DictionarySizes(self.source.d_in, self.config.d_sae, mean)

    def _settings(self) -> StepSettings:
        return StepSettings(
            variance=self.source.variances[0],
            k_aux=self.plan.k_aux,
            aux_coefficient=self.train_config.aux_coefficient,
            dead_window=self.plan.dead_window,
            clip_norm=self.train_config.clip_norm,
            encoder_dtype=parse_dtype(self.train_config.encoder_dtype),
            sparsity_warmup_steps=self.plan.sparsity_warmup_steps,
            frozen=FROZEN.get(self.train_config.null, ()),
        )

    def start(self, first_batch: Callable[[], TrainingBatch] | None = None) -> Checkpoint:
        """Return the checkpoint before the first step."""
        if isinstance(self.recipe, AutogradRecipe):
            return Checkpoint(self.recipe.start(self._sizes(), self.train_config.seed), Position(), 0.0)
        generator = make_generator(self.train_config.seed, "sae", "initial weights")
        first = first_batch or (lambda: next(self.read(Position(), whole=True)))
        state = initial_state(self.recipe, self.source, self.config.d_sae, first, generator, self._latents)
        return Checkpoint(state, Position(), 0.0)

    def _check_one_step(self) -> None:
        """Raise `MismatchError` when the ranks are not at the same step."""
        steps = [int(step) for step in self.ranks.gather(torch.tensor([self.state.step]))]
        if len(set(steps)) > 1:
            raise self.ranks.common(
                MismatchError(
                    f"the ranks are at steps {', '.join(map(str, steps))}; all of them must see the same files: put "
                    "the --workspace on a file system that they share"
                )
            )

    def _whole_state(self) -> RunState:
        """Return the state on the CPU; on the first rank with the latents of all ranks."""
        state, latents = self.state.to("cpu"), self.spread.latents
        if latents.world == 1:
            return state
        return replace(
            state, **{name: latents.collect(t) for name, t in state.parameters().items() if name in BY_LATENT}
        )

    def _parents(self) -> dict[str, str]:
        recordings = self.source.recordings
        return {
            **{recording.key: recording.manifest.content_hash for recording in recordings},
            **{f"model:{recording.model}": recording.weight_hash for recording in recordings},
        }

    def _stored(self, sae: SAE, heldout: Reconstruction) -> StoredSAE:
        tokens = self.plan.n_steps * self.plan.batch_size
        run = TrainingRun(
            tokens_seen=tokens,
            tokens_per_second=round(tokens / max(self.seconds, 1e-9)),
            plan=str(self.plan),
            ranks={"tokens": self.spread.tokens.world, "latents": self.spread.latents.world},
        )
        return StoredSAE(
            settings=self.settings,
            d_in=sae.d_in,
            d_sae=sae.d_sae,
            architecture=sae.architecture,
            training=run,
            heldout=heldout,
            heldout_before_rounding=None,
            self_check=None,
            prose=self._measure_prose(sae) if self._measure_prose else None,
        )

    def _report(self, lr: float, rows: Tensor) -> Metrics:
        results, times = zip(*self._window, strict=True)
        self._window.clear()
        size = self.plan.batch_size
        metrics = measure(self.state, list(results), self.plan.dead_window, batch_size=size, seconds=sum(times), lr=lr)
        latents = self.spread.latents
        dead, dense = (latents.total(share) / latents.world for share in (metrics.dead, metrics.dense))
        seen = int(self.spread.tokens.total(row_sum(rows)))
        metrics = replace(metrics, dead=dead, dense=dense, rows=seen)
        with self.ranks.checked():
            if self.ranks.first:
                append_line(self.draft.path, metrics)
                self.draft.update(**asdict(metrics), total_tokens=self.plan.n_steps * size, plan=str(self.plan))
        return metrics


def read_together(
    runs: Sequence[TrainingProcess], start: Position, *, whole: bool = False
) -> Iterator[list[TrainingBatch]]:
    """Yield the batches of runs on one stream, one for each run: this rank's rows of them, or all rows.

    This rank's rows are read together with all other ranks; all rows without them.
    """
    first = runs[0]
    ranks = ALONE if whole else first.ranks
    keys = [(tuple(run.source.inputs), run.source.target) for run in runs]
    sources = {key: run.source for key, run in zip(keys, runs, strict=True)}
    turn = [list(sources).index(key) for key in keys]
    batches = training_batches(
        list(sources.values()),
        batch_size=first.plan.batch_size,
        heldout_fraction=first.train_config.heldout_fraction,
        seed=first.train_config.seed,
        start=start,
        part=slice(None) if whole else first.rows,
        ranks=ranks,
    )
    if all(recording.reads_ahead(ranks) for recording in first.source.recordings) and not whole:
        batches = read_ahead(_pinned(batches) if first.device.startswith("cuda") else batches)
    return ([group[number] for number in turn] for group in batches)


def _pinned(batches: Iterator[list[TrainingBatch]]) -> Iterator[list[TrainingBatch]]:
    """Move batches to page-locked memory, from which the GPU copies while it computes."""
    for group in batches:
        yield [
            batch._replace(x=batch.x.pin_memory(), target=None if batch.target is None else batch.target.pin_memory())
            for batch in group
        ]


def shares(
    spread: Spread, recipe: TrainingRecipe | AutogradRecipe, sae: SAEConfig, plan: TrainingPlan
) -> tuple[slice, slice]:
    """Return this rank's rows of a batch, and its latents.

    Raises `ConfigError` where they cannot be divided evenly, or where a kind needs all latents on one rank.
    """
    if spread.latents.world > 1 and not recipe.shares_latents:
        raise ConfigError(
            f"the latents of a {sae.kind} dictionary cannot be shared by ranks, only those of topk and batchtopk; "
            "leave --share latents out to share the tokens"
        )
    rows = spread.tokens.share(plan.batch_size, "batch_size")
    return rows, spread.latents.share(sae.d_sae, "d_sae")


def settings_of(source: RowSource, sae: SAEConfig, train: TrainConfig) -> TrainedSettings:
    """Return the settings that determine a run."""
    recording = source.recording
    return TrainedSettings(
        sae=sae,
        train=train,
        model=recording.model,
        weight_hash=recording.weight_hash,
        recording=recording.folder.name,
        recording_hashes=tuple(recording.manifest.content_hash for recording in source.recordings),
        hook_point=source.inputs[0].hook_point,
        sites=tuple(str(site) for site in source.inputs),
    )
