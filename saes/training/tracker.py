"""Health lines sent to an experiment tracker; `log.jsonl` holds them in any case.

    tensorboard:FOLDER    one event file per dictionary under FOLDER (needs `pip install tensorboard`)
    wandb:PROJECT         one run of the project; metrics are named `dictionary/metric` (needs `pip install wandb`)

A script needs no tracker object: training is a generator, and its consumer can log every line that it yields.
"""

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from interp.errors import MissingError, UnknownNameError
from saes.training.health import Metrics


class Tracker(NamedTuple):
    """Receiver of health lines."""

    log: Callable[[str, Metrics], None]
    """records one line of the dictionary of a name"""
    close: Callable[[], None]
    """flushes and closes"""


def open_tracker(spec: str) -> Tracker:
    """Return the tracker of a spec, `tensorboard:FOLDER` or `wandb:PROJECT`.

    Raises `UnknownNameError` for another kind, `MissingError` when its package is not installed.
    """
    kind, _, target = spec.partition(":")
    if kind not in ("tensorboard", "wandb") or not target:
        raise UnknownNameError("tracker", spec, ["tensorboard:FOLDER", "wandb:PROJECT"])
    if kind == "wandb":
        run = _imported("wandb", "wandb").init(project=target)
        return Tracker(lambda name, line: run.log({f"{name}/{n}": v for n, v in _numbers(line).items()}), run.finish)
    module, opened = _imported("torch.utils.tensorboard", "tensorboard"), contextlib.ExitStack()

    @cache
    def writer(name: str) -> Any:
        made = module.SummaryWriter(f"{target}/{name}")
        opened.callback(made.close)
        return made

    def log(name: str, line: Metrics) -> None:
        for metric, value in _numbers(line).items():
            writer(name).add_scalar(metric, value, line.step)

    return Tracker(log, opened.close)


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: value for name, value in asdict(metrics).items() if value is not None and name != "rows"}


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingError(
            f"tracking needs the package {package}, which is not installed; pip install {package}, or leave it out: "
            "log.jsonl in the folder holds the same lines"
        ) from None
