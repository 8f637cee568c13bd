"""Grokking as an artefact: curves and key frequencies over training, and the phases of every seed (Nanda et al. 2023).

Phases (`find_phases`; section 5.2), by thresholds fixed in advance:

    memorisation        until training accuracy is above 0.99
    circuit formation   from there until test accuracy is above 0.3: accuracies hardly change, while the restricted loss
                        falls and the excluded loss rises
    clean-up            from there until test accuracy is above 0.99: the memorised solution is removed

A run grokked when it has all three phases, with a gap of at least one measurement between the end of memorisation and
test accuracy above 0.3. Key frequencies are those of the last snapshot, followed back in time. Torch-free;
`interp.studies.grokking` trains and measures.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from jaxtyping import Float64, Int64

from interp.artifacts import ARRAY, ARRAYS, Artefact
from interp.errors import ConfigError, CorruptError
from interp.options import check_least, check_positive
from interp.results import Record
from interp.studies._transitions import first_at
from interp.view import Facts, Rows, View

LEARNED = 0.99
"""accuracy above which pairs count as learned"""
UNKNOWN = 0.3
"""test accuracy up to which the rule counts as unknown"""
CURVES = (
    *("train_loss", "test_loss", "train_accuracy", "test_accuracy"),
    *("restricted_loss", "excluded_loss", "gini", "weight_norm"),
)


@dataclass(frozen=True, kw_only=True)
class ModularConfig:
    """Settings of a small transformer that learns addition modulo a prime."""

    p: int = 37
    """The modulus, a prime."""
    train_fraction: float = 0.75
    """Fraction of the pairs to train on, mirror images together; the others are the test set."""
    d_model: int = 64
    """Width of the residual stream."""
    n_heads: int = 4
    """Attention heads."""
    d_mlp: int = 192
    """Width of the MLP."""
    lr: float = 5e-3
    """Learning rate of AdamW."""
    weight_decay: float = 1.0
    """Weight decay of AdamW. 0 is the control: it memorises and never generalises. At 2 some seeds end with two
    frequencies, which do not explain all of the accuracy."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Betas of AdamW."""
    eps: float = 1e-5
    """Epsilon of AdamW. With 1e-8, steps stay long where gradients vanish, and accuracy collapses repeatedly (Thilak et
    al. 2022, arXiv 2206.04817)."""
    batches: int = 3
    """Batches that the training pairs are divided into, drawn anew in each epoch."""
    epochs: int = 800
    """Largest number of passes over the training pairs."""
    settle: int | None = 140
    """Epochs of training after the last seed has generalised. None: train for all `epochs`."""
    log_every: int = 4
    """Epochs between two measurements."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the weights and of the split; all of them train at once."""

    def __post_init__(self) -> None:
        if not isinstance(self.p, int) or self.p < 5 or any(self.p % factor == 0 for factor in range(2, self.p)):
            raise ConfigError(f"p must be a prime of at least 5, got {self.p}: frequencies of others share components")
        if not 0 < self.train_fraction < 1 or not 0 < round(self.train_fraction * self.p) < self.p:
            raise ConfigError(
                f"train_fraction must leave pairs to train on and to test, got {self.train_fraction} of p {self.p}"
            )
        if min(self.d_model, self.n_heads, self.d_mlp) < 1 or self.d_model % self.n_heads:
            raise ConfigError(
                f"d_model {self.d_model} must be a multiple of n_heads {self.n_heads}, and every size at least 1"
            )
        if len(self.betas) != 2:
            raise ConfigError(f"betas are two numbers, got {len(self.betas)}")
        check_positive(self, "epochs", "batches", "log_every", "lr", "eps")
        check_least(self, {"weight_decay": 0, "settle": 0})
        if not self.seeds:
            raise ConfigError("a seed is needed, got none; give 0, for example")


@dataclass(frozen=True)
class Phases:
    """Epochs at which the phases of one seed end; None for a phase that was not reached."""

    memorised: float | None
    generalising: float | None
    """test accuracy above 0.3"""
    generalised: float | None
    """test accuracy above 0.99"""

    @property
    def gap(self) -> float | None:
        """Epochs from memorisation to the start of generalisation."""
        if self.memorised is None or self.generalising is None:
            return None
        return self.generalising - self.memorised

    @property
    def grokked(self) -> bool:
        """True if all three phases occur, in this order, with a gap."""
        return self.generalised is not None and self.gap is not None and self.gap > 0


@dataclass(frozen=True, kw_only=True)
class FrequencyAblation:
    """Accuracy on test pairs (0 to 1; chance is `1 / p`) at the end of training, with frequencies removed from `W_E`.

    All that follows the embedding runs on what is left, so this says what the network uses, not what its logits hold.
    """

    whole: float
    """nothing removed"""
    keys_alone: float
    """all other frequencies removed"""
    without_keys: float
    without_others: tuple[float, ...]
    """the null: as many frequencies that are not key removed, one accuracy per random draw; empty without so many"""


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """Phases and key frequencies of one seed."""

    seed: int
    phases: Phases
    keys: tuple[int, ...]
    """key frequencies of the logits"""
    embedding_keys: tuple[int, ...]
    """key frequencies of the embedding, found independently"""
    ablation: FrequencyAblation | None = None
    """None without key frequencies, and in files that were written before it was measured"""


@dataclass(frozen=True, kw_only=True)
class Grokking(Artefact, kind="grokking", made_by="dynamics grok"):
    """Curves, key frequencies and phases of all seeds."""

    settings: ModularConfig
    runs: tuple[SeedRun, ...]
    epochs: Annotated[Int64[np.ndarray, " n_snapshots"], ARRAY]
    values: Annotated[Float64[np.ndarray, "n_curves n_snapshots n_seeds"], ARRAY]
    """in the order of `CURVES`; losses in nats"""
    logit_share: Annotated[Float64[np.ndarray, "n_snapshots n_seeds frequencies"], ARRAY]
    """`(p - 1) / 2` frequencies"""
    embedding_share: Annotated[Float64[np.ndarray, "n_snapshots n_seeds frequencies"], ARRAY]

    @cached_property
    def curves(self) -> dict[str, Float64[np.ndarray, "n_snapshots n_seeds"]]:
        """Curves by name."""
        self._check(self.values, (len(CURVES), len(self.epochs), len(self.runs)))
        return dict(zip(CURVES, self.values, strict=True))

    def shares_of(self, at: int) -> dict[str, Float64[np.ndarray, "n_snapshots frequencies"]]:
        """Return the power of every frequency in the `logits` and the `embedding` of a run, by its index."""
        grids = {"logits": self.logit_share, "embedding": self.embedding_share}
        for values in grids.values():
            self._check(values, (len(self.epochs), len(self.runs), self.settings.p // 2))
        return {name: values[:, at] for name, values in grids.items()}

    def _check(self, values: np.ndarray, shape: tuple[int, ...]) -> None:
        if values.shape != shape:
            raise CorruptError(
                f"{self.folder / ARRAYS} holds {list(values.shape)} values, by the manifest {list(shape)}; one of them "
                "was edited"
            )

    def circuit_forms_unseen(self, at: int) -> tuple[float, float] | None:
        """Return the change of the restricted and of the excluded loss (nats) of a run (its index) during the gap.

        Below 0 and above 0 when the circuit forms before the test accuracy rises. None without a gap.
        """
        phases = self.runs[at].phases
        if phases.memorised is None or phases.generalising is None or phases.generalising <= phases.memorised:
            return None
        inside = (self.epochs >= phases.memorised) & (self.epochs <= phases.generalising)
        if not inside.any():
            raise CorruptError(f"{self.folder} has phases at epochs that were not measured; its manifest was edited")
        restricted, excluded = (self.curves[f"{name}_loss"][inside, at] for name in ("restricted", "excluded"))
        return float(restricted[-1] - restricted[0]), float(excluded[-1] - excluded[0])

    def to_records(self) -> list[Record]:
        """Return one row per snapshot and seed: `epoch, seed` and a column per curve."""
        return [
            {"epoch": int(epoch), "seed": run.seed} | {name: float(curve[i, at]) for name, curve in self.curves.items()}
            for i, epoch in enumerate(self.epochs)
            for at, run in enumerate(self.runs)
        ]

    def view(self) -> View:
        grokked = sum(run.phases.grokked for run in self.runs)
        yield f"Addition modulo {self.settings.p}: {grokked} of {len(self.runs)} seeds grokked"
        yield Facts(*[(f"seed {run.seed} frequencies", ", ".join(map(str, run.keys))) for run in self.runs])
        yield from [self._said(at) for at in range(len(self.runs))]
        yield Rows(
            lambda: [
                {"seed": run.seed, **vars(run.phases), "grokked": run.phases.grokked, "keys": run.keys}
                for run in self.runs
            ]
        )

    def _said(self, at: int) -> str:
        run = self.runs[at]
        phases, changes = run.phases, self.circuit_forms_unseen(at)
        if not phases.grokked or changes is None:
            return (
                f"seed {run.seed}: did not grok (memorised at {phases.memorised}, generalised at {phases.generalised})"
            )
        restricted, excluded = changes
        return (
            f"seed {run.seed}: memorised at epoch {phases.memorised:.0f}, test above 0.3 at {phases.generalising:.0f}, "
            f"above 0.99 at {phases.generalised:.0f}; in between restricted loss {restricted:+.2f}, excluded "
            f"{excluded:+.2f} nats; frequencies {', '.join(map(str, run.keys))}{_ablated(run.ablation)}"
        )


def _ablated(ablation: FrequencyAblation | None) -> str:
    if ablation is None:
        return ""
    others = ablation.without_others
    null = f", without as many others at least {min(others):.2f} in {len(others)} draws" if others else ""
    return (
        f"; test accuracy {ablation.whole:.2f}, with these alone in the embedding {ablation.keys_alone:.2f}, "
        f"without them {ablation.without_keys:.2f}{null}"
    )


def find_phases(epochs: np.ndarray, train_accuracy: np.ndarray, test_accuracy: np.ndarray) -> Phases:
    """Return the ends of the phases of one run."""
    return Phases(
        first_at(epochs, train_accuracy, LEARNED),
        first_at(epochs, test_accuracy, UNKNOWN),
        first_at(epochs, test_accuracy, LEARNED),
    )
