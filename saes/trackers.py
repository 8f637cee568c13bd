"""Health lines to an experiment tracker, where one is wanted. None is needed: `log.jsonl` holds the same lines.

    tensorboard:FOLDER    one event file per dictionary under FOLDER (needs `pip install tensorboard`)
    wandb:PROJECT         one run of the project; metrics are named `dictionary/metric` (needs `pip install wandb`)

Any object with `log(name, metrics)` and `close()` will do in a script: training is a generator, so a tracker is
whatever its consumer calls.
"""

from dataclasses import asdict
from importlib import import_module
from typing import Any, Protocol

from interp.errors import MissingError, UnknownNameError
from saes.health import Metrics


class Tracker(Protocol):
    """Where health lines go."""

    def log(self, name: str, metrics: Metrics) -> None:
        """One line of the dictionary `name`."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def open_tracker(spec: str) -> Tracker:
    """The tracker that `tensorboard:FOLDER` or `wandb:PROJECT` stands for.

    Raises `UnknownNameError` for another kind, `MissingError` when its package is not installed.
    """
    kind, _, place = spec.partition(":")
    if kind not in _TRACKERS or not place:
        raise UnknownNameError("tracker", spec, ["tensorboard:FOLDER", "wandb:PROJECT"])
    return _TRACKERS[kind](place)


class TensorBoardTracker:
    """Scalars by step, one writer per dictionary."""

    def __init__(self, folder: str):
        self._module = _imported("torch.utils.tensorboard", "tensorboard")
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def log(self, name: str, metrics: Metrics) -> None:
        if name not in self._writers:
            self._writers[name] = self._module.SummaryWriter(f"{self._folder}/{name}")
        for metric, value in _numbers(metrics).items():
            self._writers[name].add_scalar(metric, value, metrics.step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class WandbTracker:
    """One run, metrics prefixed by the dictionary's name."""

    def __init__(self, project: str):
        self._run = _imported("wandb", "wandb").init(project=project)

    def log(self, name: str, metrics: Metrics) -> None:
        self._run.log({f"{name}/{metric}": value for metric, value in _numbers(metrics).items()})

    def close(self) -> None:
        self._run.finish()


_TRACKERS = {"tensorboard": TensorBoardTracker, "wandb": WandbTracker}


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: value for name, value in asdict(metrics).items() if value is not None}


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingError(
            f"tracking needs the package {package}, which is not installed; pip install {package}, or leave it out: "
            "log.jsonl in the folder holds the same lines"
        ) from None
