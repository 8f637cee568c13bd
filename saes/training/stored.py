"""A dictionary in a workspace as an artefact: its settings, sizes and scores. Torch-free: `load` reads the weights.

Its folder also holds the weights in SAELens' format (`saes.weights.folder`), and the log of a training.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from interp.artifacts import Artefact
from interp.errors import as_typed
from interp.results import Record
from saes.kinds.config import AnyConfig
from saes.training.config import TrainConfig
from saes.training.scores import ProseScores, Reconstruction
from saes.weights.imported import ImportedSettings, SelfCheck

if TYPE_CHECKING:
    from saes.kinds.base import SAE

HELDOUT_FRACTION = 0.1
"""Share of documents held out for an imported dictionary, whose own share is not known."""


@dataclass(frozen=True, kw_only=True)
class TrainedSettings:
    """Settings that determine a training: an unfinished run with other settings is another one."""

    sae: AnyConfig
    train: TrainConfig
    model: str
    weight_hash: str
    recording: str
    """The first of several recordings."""
    recording_hashes: tuple[str, ...]
    hook_point: str
    """The first of several hook points."""
    sites: tuple[str, ...]
    """Hook points that it reads, each as `recording:hook point`; several of a crosscoder."""
    stored: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the matrices in the file."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Length and speed of a training."""

    tokens_seen: int
    tokens_per_second: int
    plan: str
    ranks: dict[Literal["tokens", "latents"], int]
    """Processes that shared the tokens of a batch, and the latents."""


@dataclass(frozen=True, kw_only=True)
class StoredSAE(Artefact, kind="sae"):
    """A trained or imported dictionary."""

    settings: TrainedSettings | ImportedSettings
    d_in: int
    d_sae: int
    architecture: str
    """Name in the format of its file. A BatchTopK dictionary is stored as `jumprelu`: it has a threshold per latent."""
    training: TrainingRun | None
    """None for an imported dictionary."""
    heldout: Reconstruction | None
    """Scores on held-out documents; None for an imported dictionary."""
    heldout_before_rounding: Reconstruction | None
    """The same before the matrices were rounded, where they were."""
    self_check: SelfCheck | None
    """Comparison of an imported dictionary with its source."""
    prose: ProseScores | None = None
    """Scores by which `workbench doctor` knows it again; None where its model was not at hand."""

    @property
    def model(self) -> str:
        """Spec of the model that it belongs to."""
        return self.settings.model

    @property
    def hook_point(self) -> str:
        """The hook point that it reads."""
        return self.settings.hook_point

    @property
    def recording(self) -> str | None:
        """Name of the recording that it was trained on; None for an imported dictionary."""
        return self.settings.recording if isinstance(self.settings, TrainedSettings) else None

    @property
    def heldout_fraction(self) -> float:
        """Share of documents held out from its training."""
        return self.settings.train.heldout_fraction if isinstance(self.settings, TrainedSettings) else HELDOUT_FRACTION

    def load(self) -> "SAE":
        """Return the dictionary with its weights, on the CPU."""
        from saes.weights.folder import load_sae

        return load_sae(self.folder)

    def to_records(self) -> list[Record]:
        """Return one row: `d_in, d_sae, architecture` and the scores on held-out documents."""
        row: Record = {"d_in": self.d_in, "d_sae": self.d_sae, "architecture": self.architecture}
        return [row if self.heldout is None else row | self.heldout.to_records()[0]]

    def headline(self) -> str:
        """Return size and quality in one sentence."""
        if isinstance(self.settings, ImportedSettings):
            said = f"{self.d_sae:,} latents at {self.hook_point} ({self.architecture}, from {self.settings.format})"
            error = None if self.self_check is None else self.self_check.largest_error
            return said if error is None else f"{said}; it agrees with the source's forward pass to {error:.0e}"
        said = f"{self.d_sae:,} latents"
        if self.training is not None:
            said += f", trained on {self.training.tokens_seen:,} tokens"
        held = self.heldout
        if held is None:
            return said
        return (
            f"{said}; on {held.n_tokens:,} held-out tokens about {held.l0:.0f} active latents per token reconstruct "
            f"{1 - held.fvu:.0%} of the variance (FVU {held.fvu:.3f} at L0 {held.l0:.1f}, {held.dead_fraction:.1%} "
            f"never fire, {held.dense_fraction:.1%} dense)"
        )

    def details(self) -> list[str]:
        """Return the next step for an imported dictionary, which has no recording of its own."""
        if self.recording is not None:
            return []
        return [as_typed(f"next, over a recording: `workbench features {self.name} --recording NAME`")]

    def facts(self) -> list[tuple[str, str]]:
        """Return scores, kind and hook point."""
        held = self.heldout
        facts = [] if held is None else [("FVU", f"{held.fvu:.3g}"), ("L0", f"{held.l0:.3g}"),
                                         ("dead", f"{held.dead_fraction:.1%}")]  # fmt: skip
        return [*facts, kind_of(self.settings, self.architecture), ("hook point", self.hook_point)]


def kind_of(settings: TrainedSettings | ImportedSettings, architecture: str = "") -> tuple[str, str]:
    """Return ("kind", the kind that a dictionary was trained as).

    That of an imported one is not known: it gives ("architecture", the name in the format of its file).
    """
    return ("kind", settings.sae.kind) if isinstance(settings, TrainedSettings) else ("architecture", architecture)
