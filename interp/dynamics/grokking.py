"""Grokking, told in phases (Nanda et al. 2023, section 5.2), by thresholds stated beforehand:

    memorisation        until training accuracy is above .99
    circuit formation   from there until test accuracy is above .3: nothing shows outside, inside the restricted loss
                        falls and the excluded loss rises
    clean-up            from there until test accuracy is above .99: what was memorised is given up

A run grokked when it has all three, with a gap between the first and the last of at least one measurement: training
accuracy above .99 while test accuracy is below .3. Key frequencies are read off the last snapshot and followed back.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from interp.dynamics.fourier import Progress, embedding_frequencies, key_frequencies, measure_progress, shares
from interp.dynamics.modular import LEARNED, ModularConfig, Snapshot
from interp.dynamics.transitions import first_at
from interp.errors import ConfigError

UNKNOWN = 0.3
OUTSIDE = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
INSIDE = ("restricted_loss", "excluded_loss", "gini", "weight_norm")


@dataclass(frozen=True)
class Phases:
    """Epochs at which one seed's phases end; None where it never came to that."""

    memorised: float | None
    generalising: float | None
    """test accuracy above .3"""
    generalised: float | None
    """test accuracy above .99"""

    @property
    def gap(self) -> float | None:
        """Epochs between having memorised and beginning to generalise."""
        if self.memorised is None or self.generalising is None:
            return None
        return self.generalising - self.memorised

    @property
    def grokked(self) -> bool:
        """Whether all three phases are there, in this order, with a gap."""
        return self.generalised is not None and self.gap is not None and self.gap > 0


@dataclass(frozen=True)
class Grokking:
    """Curves and phases of all seeds."""

    config: ModularConfig
    epochs: np.ndarray
    """`[n_snapshots]`"""
    curves: dict[str, np.ndarray]
    """name -> `[n_snapshots, n_seeds]`"""
    logit_share: np.ndarray
    """`[n_snapshots, n_seeds, (p - 1) / 2]`"""
    embedding_share: np.ndarray
    keys: list[list[int]]
    """per seed the key frequencies of the logits"""
    embedding_keys: list[list[int]]
    """per seed those of the embedding, found apart"""
    phases: list[Phases]
    settings: dict[str, Any] = field(default_factory=dict)

    def circuit_forms_unseen(self, seed: int) -> tuple[float, float] | None:
        """Change of the restricted and of the excluded loss (nats) of a seed between having memorised and beginning to
        generalise: below 0 and above 0 when the circuit forms while nothing shows. None without a gap."""
        phases = self.phases[seed]
        if not phases.gap:
            return None
        inside = (self.epochs >= phases.memorised) & (self.epochs <= phases.generalising)
        restricted, excluded = (self.curves[f"{name}_loss"][inside, seed] for name in ("restricted", "excluded"))
        return float(restricted[-1] - restricted[0]), float(excluded[-1] - excluded[0])


@torch.no_grad()
def describe_grokking(snapshots: list[Snapshot], config: ModularConfig) -> Grokking:
    """Curves, key frequencies and phases of what `train_modular` yielded.

    Raises `ConfigError` without a snapshot, and what `measure_progress` raises.
    """
    if not snapshots:
        raise ConfigError("at least one snapshot was expected, got none; give it list(train_modular(config))")
    logit_share, embedding_share = shares(snapshots[-1].parameters, config)
    keys = key_frequencies(logit_share)
    measured = [measure_progress(snapshot.parameters, config, keys) for snapshot in snapshots]
    curves = {name: _curve(snapshots, name) for name in OUTSIDE} | {name: _curve(measured, name) for name in INSIDE}
    epochs = np.array([snapshot.epoch for snapshot in snapshots])
    return Grokking(
        config=config,
        epochs=epochs,
        curves=curves,
        logit_share=_curve(measured, "logit_share"),
        embedding_share=_curve(measured, "embedding_share"),
        keys=keys,
        embedding_keys=embedding_frequencies(embedding_share),
        phases=[
            find_phases(epochs, curves["train_accuracy"][:, seed], curves["test_accuracy"][:, seed])
            for seed in range(len(config.seeds))
        ],
        settings={"learned": LEARNED, "unknown": UNKNOWN},
    )


def find_phases(epochs: np.ndarray, train_accuracy: np.ndarray, test_accuracy: np.ndarray) -> Phases:
    """The ends of the phases of one run."""
    return Phases(
        first_at(epochs, train_accuracy, LEARNED),
        first_at(epochs, test_accuracy, UNKNOWN),
        first_at(epochs, test_accuracy, LEARNED),
    )


def _curve(rows: "list[Snapshot] | list[Progress]", name: str) -> np.ndarray:
    return np.stack([getattr(row, name).numpy() for row in rows])
