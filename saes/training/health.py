"""Health of a training: one line of `log.jsonl` every few steps."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from interp.artifacts import LOG, atomic_file, disk_errors
from saes.kernels.state import RunState
from saes.kernels.step import StepResult
from saes.training.config import DENSE


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Health of a run at one step. Rates and losses are means since the previous line."""

    step: int
    tokens: int
    loss: float
    fvu: float
    """Fraction of variance unexplained on these batches: 0 is perfect, 1 no better than the mean."""
    l0: float
    """Active latents per token."""
    dead: float
    """Share of latents that have not fired within the dead window."""
    dense: float
    """Share of latents that fire on more than a tenth of recent tokens."""
    aux: float
    """AuxK loss: fraction of the reconstruction error that dead latents do not predict; 0 when none is dead."""
    penalty: float
    """Sparsity penalty (L1, quadratic, tanh) and auxiliary loss of a gate, as part of `loss`; 0 for other kinds."""
    threshold: float | None
    """Threshold between active and silent latents, in training units: the mean of learned thresholds, or the smallest
    active value of the batch. It should become constant towards the end of the run. None for kinds without one."""
    lr: float
    tokens_per_second: float
    rows: int | None = None
    """Checksum of the rows of this step's batch, over all ranks; `workbench verify` compares it with the plan."""

    def __str__(self) -> str:
        return (
            f"step {self.step:,}  fvu {self.fvu:.3f}  L0 {self.l0:.1f}  dead {self.dead:.1%}  dense {self.dense:.1%}  "
            f"lr {self.lr:.1e}  {self.tokens_per_second:,.0f} tokens/s"
        )


def measure(
    state: RunState, results: list[StepResult], dead_window: int, *, batch_size: int, seconds: float, lr: float
) -> Metrics:
    """Summarise the steps since the previous line."""
    thresholds = [r.threshold for r in results if r.threshold is not None]
    return Metrics(
        step=state.step,
        tokens=state.step * batch_size,
        loss=_mean(r.loss for r in results),
        fvu=_mean(r.fvu for r in results),
        l0=_mean(r.l0 for r in results),
        dead=float((state.silent >= dead_window).float().mean()),
        dense=float((state.density > DENSE).float().mean()),
        aux=_mean(r.aux for r in results),
        penalty=_mean(r.penalty for r in results),
        threshold=_mean(thresholds) if thresholds else None,
        lr=lr,
        tokens_per_second=batch_size * len(results) / seconds,
    )


def append_line(folder: Path, metrics: Metrics) -> None:
    """Append a line to the folder's log."""
    path = folder / LOG
    with disk_errors(path), open(path, "a", encoding="utf-8") as log:
        log.write(json.dumps(asdict(metrics)) + "\n")


def truncate_log(folder: Path, step: int) -> None:
    """Drop the lines after `step`: an interrupted run may have logged beyond its last checkpoint, or half a line."""
    path = folder / LOG
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
    numbers = list(values)
    return sum(numbers) / len(numbers)
