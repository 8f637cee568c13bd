"""A set of transcoders in a workspace as an artefact: its settings, sizes and scores. Torch-free: `load` reads it.

Its folder also holds the weights in circuit-tracer's layouts (`saes.sets.set`), and the logs of a training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from interp.artifacts import Artefact
from interp.models.short_name import short_name
from interp.results import Record
from interp.view import Facts, View
from saes.evaluation.scores import InModel
from saes.kinds.config import AnyConfig
from saes.training.config import TrainConfig
from saes.training.stored import Reconstruction, TrainingRun
from saes.weights.imported import FileEntry, SelfCheck

if TYPE_CHECKING:
    from saes.sets.set import TranscoderSet


@dataclass(frozen=True)
class SetTraining:
    """A set that is to be trained: the latents of its layers, and what they read and predict."""

    sae: AnyConfig
    """Latents of every layer: the config of an SAE, a `TranscoderConfig`, or a `CrossLayerConfig`."""
    train: TrainConfig
    skip: bool = False
    """Add a linear map from what is read to what is predicted."""
    layers: tuple[int, ...] = ()
    """Layers, counted from 0. Default: all that were recorded."""
    reads: str = ""
    """Hook point inside a block that is read. Default: the input of the MLP."""
    writes: str = ""
    """Hook point inside a block that is predicted. Default: the output of the MLP."""


@dataclass(frozen=True, kw_only=True)
class TrainedSetSettings:
    """Settings that determine the training of a set: an unfinished run with other settings is another one."""

    sae: AnyConfig
    """Latents of every layer."""
    train: TrainConfig
    skip: bool
    model: str
    weight_hash: str
    recording: str
    recording_hash: str
    reads: str
    """Hook point inside a block that the latents read."""
    writes: str
    """Hook point inside a block that is predicted."""
    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ImportedSetSettings:
    """Origin of an imported set."""

    source: str
    """Name of its folder."""
    source_files: dict[int, dict[str, FileEntry]]
    """Files of each layer; of a cross-layer transcoder all under its first layer."""
    model: str
    weight_hash: str
    l0: int | None
    """Sparsity by which one of several dictionaries of a layer was chosen."""


@dataclass(frozen=True, kw_only=True)
class LayerScores:
    """Scores of one layer on held-out rows."""

    layer: int
    fvu: float
    l0: float
    dead_fraction: float
    dense_fraction: float


@dataclass(frozen=True, kw_only=True)
class SetScores:
    """Scores of a set on held-out documents."""

    n_tokens: int
    layers: tuple[LayerScores, ...]
    loss: dict[Literal["set", "untrained", "neurons"], InModel] | None
    """Loss of the model with the MLPs of all layers replaced; None without held-out contexts."""

    @property
    def fvu(self) -> float:
        """Mean over layers."""
        return _mean([layer.fvu for layer in self.layers])

    @property
    def l0(self) -> float:
        """Mean over layers."""
        return _mean([layer.l0 for layer in self.layers])

    @property
    def dead_fraction(self) -> float:
        """Mean over layers."""
        return _mean([layer.dead_fraction for layer in self.layers])


@dataclass(frozen=True, kw_only=True)
class LayerCheck:
    """Comparison of one layer of an imported set with its source."""

    layer: int
    recons_error: float
    """Largest error of an output, as a fraction of its size."""
    check: SelfCheck | None
    """All errors; None for a cross-layer transcoder, whose layers are compared by their outputs."""


@dataclass(frozen=True, kw_only=True)
class StoredSet(Artefact, kind="transcoders", made_by="train"):
    """A trained or imported set of transcoders."""

    settings: TrainedSetSettings | ImportedSetSettings
    layers: tuple[int, ...]
    cross_layer: bool
    """True where latents write to later layers too."""
    reads: str
    writes: str
    d_sae: int
    """Latents of the first layer."""
    training: TrainingRun | None
    scores: SetScores | None
    """None for an imported set."""
    format: str
    """Format of the files that it was imported from; empty for one of ours."""
    checks: tuple[LayerCheck, ...]

    @property
    def model(self) -> str:
        """Spec of the model that it belongs to."""
        return self.settings.model

    @property
    def recording(self) -> str | None:
        """Name of the recording that it was trained on; None for an imported set."""
        return self.settings.recording if isinstance(self.settings, TrainedSetSettings) else None

    def load(self) -> "TranscoderSet":
        """Return the set with its weights, on the CPU."""
        from saes.sets.set import read_set

        return read_set(self.folder)

    def to_records(self) -> list[Record]:
        """Return one row per layer: its scores, or for an imported set the error against the source."""
        if self.scores is not None:
            return [dict(vars(layer)) for layer in self.scores.layers]
        return [{"layer": check.layer, "recons_error": check.recons_error} for check in self.checks]

    def view(self) -> View:
        yield self._sentence()
        scores = self.scores
        facts = [] if scores is None else [("FVU", f"{scores.fvu:.3g}"), ("L0", f"{scores.l0:.3g}"),
                                           ("dead", f"{scores.dead_fraction:.1%}")]  # fmt: skip
        yield Facts(*facts, ("model", short_name(self.model)))
        yield from self._lines()

    def _sentence(self) -> str:
        """Return size and quality in one sentence."""
        line = f"{self.d_sae:,} latents for each of {len(self.layers)} layers"
        line += ", which write to all later layers" if self.cross_layer else ""
        if self.checks:
            error = max(check.recons_error for check in self.checks)
            return f"{line}; their outputs differ by {error:.0e} from the source's"
        if (scores := self.scores) is None:
            return line
        return f"{line}; mean FVU {scores.fvu:.3f} at L0 {scores.l0:.1f}"

    def _lines(self) -> list[str]:
        """Return the hook points and format of an imported set, or the loss with all MLPs replaced."""
        if self.checks:
            return [f"from {self.reads} to {self.writes} ({self.format})"]
        if self.scores is None or not self.scores.loss:
            return []
        loss = self.scores.loss["set"]
        return [
            f"on {self.scores.n_tokens:,} held-out tokens: cross-entropy {loss.ce_clean:.3f}, with all MLPs replaced "
            f"{loss.ce_spliced:.3f}"
        ]


def layer_scores(scores: Mapping[int, Reconstruction]) -> tuple[LayerScores, ...]:
    """Return the scores of every layer."""
    names = ("fvu", "l0", "dead_fraction", "dense_fraction")
    return tuple(LayerScores(layer=n, **{name: getattr(score, name) for name in names}) for n, score in scores.items())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
