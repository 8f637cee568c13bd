"""A dictionary in a workspace as an artefact: its settings, sizes and scores. Torch-free: `load` reads the weights.

Its folder also holds the weights in SAELens' format (`saes.weights.folder`), and the log of a training.
`saes.training.reconstruction` measures the scores on held-out rows. `import_dictionary` stores a peer's checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from interp.artifacts import Artefact, Draft, save_artefact
from interp.artifacts.artefact import settings_json
from interp.errors import as_typed
from interp.forms import Measured
from interp.results import Record, Result
from interp.statistics import Ends
from interp.view import Facts, View
from saes.kinds.config import AnyConfig
from saes.training.config import TrainConfig
from saes.weights.imported import ImportedSettings, SelfCheck

if TYPE_CHECKING:
    from saes.kinds.base import SAE
    from saes.weights.importing import Origin


DENSITY_EDGES = tuple(float(edge) for edge in np.linspace(-6, 0, 25))
"""Edges of the bins of the density histogram: `log10` of the share of tokens on which a latent fires."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Result):
    """Reconstruction and sparsity over `n_tokens` tokens."""

    n_tokens: int
    l0: float
    """Mean number of active latents per token."""
    fvu: float
    """Variance unexplained, `E|x - x_hat|^2 / (E|x|^2 - |E x|^2)`: 0 is perfect, 1 no better than the mean."""
    dead_fraction: float
    """Share of latents that never fire on these tokens."""
    dense_fraction: float
    """Share of latents that fire on more than a tenth of these tokens."""
    l2_ratio: float
    """`mean |x_hat| / |x|`: 1 is unbiased, below 1 is shrinkage."""
    relative_bias: Measured
    """`E|x_hat|^2 / E[x . x_hat]`: 1 is unbiased, below 1 is shrinkage (2404.16014, equation 10); NaN where `x_hat` is
    always 0."""
    cosine: float
    """Mean cosine between `x` and `x_hat`: 1 is perfect."""
    n_documents: int = 0
    """Documents that these tokens come from: the observations that the intervals resample."""
    intervals: dict[str, Ends] = field(default_factory=dict)
    """`score -> (low, high)`, 95 %, over documents; empty with fewer than `statistics.MIN_DOCUMENTS`. Dead and dense
    fractions have no interval, since a resample always lacks documents on which rare latents fire."""
    density_edges: tuple[float, ...] = DENSITY_EDGES
    """Edges of the bins of `density_counts`."""
    density_counts: tuple[int, ...] = ()
    """Latents per bin of `log10(share of tokens)`; those rarer than the first edge are in the first bin. Dead latents
    are in no bin, so the counts add up to `d_sae * (1 - dead_fraction)`."""

    def view(self) -> View:
        yield f"Reconstruction on {self.n_tokens:,} tokens of {self.n_documents:,} documents"


@dataclass(frozen=True, kw_only=True)
class ProseScores:
    """L0 and FVU on the doctor's own prose, as measured when a dictionary was trained or imported."""

    l0: float
    fvu: float
    tokens_hash: str
    """Hash of the tokens: scores on another text are not compared."""


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
class StoredSAE(Artefact, kind="sae", title="Dictionary", made_by="train"):
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

    def view(self) -> View:
        yield self._sentence()
        score = self.heldout
        facts = [] if score is None else [("FVU", f"{score.fvu:.3g}"), ("L0", f"{score.l0:.3g}"),
                                          ("dead", f"{score.dead_fraction:.1%}"),
                                          ("dense", f"{score.dense_fraction:.1%}"),
                                          ("held-out tokens", f"{score.n_tokens:,}")]  # fmt: skip
        yield Facts(*facts, kind_of(self.settings, self.architecture), ("hook point", self.hook_point))
        yield from self._lines()

    def _sentence(self) -> str:
        """Return size and quality in one sentence."""
        if isinstance(self.settings, ImportedSettings):
            line = f"{self.d_sae:,} latents at {self.hook_point} ({self.architecture}, from {self.settings.format})"
            error = None if self.self_check is None else self.self_check.largest_error
            return line if error is None else f"{line}; it agrees with the source's forward pass to {error:.0e}"
        null = self.settings.train.null
        line = f"{self.d_sae:,} latents" + (f" of a null dictionary ({null})" if null != "none" else "")
        if self.training is not None:
            line += f" trained on {self.training.tokens_seen:,} tokens"
        score = self.heldout
        if score is None:
            return line
        return (
            f"{line}; {score.l0:.0f} active per token reconstruct {1 - score.fvu:.0%} of the variance "
            f"({score.dead_fraction:.1%} never fire)"
        )

    def _lines(self) -> list[str]:
        """Return the next step for an imported dictionary, which has no recording of its own."""
        if self.recording is not None:
            return []
        return [as_typed(f"next, over a recording: `workbench features {self.name} --recording NAME`")]


def kind_of(settings: TrainedSettings | ImportedSettings, architecture: str = "") -> tuple[str, str]:
    """Return ("kind", the kind that a dictionary was trained as).

    That of an imported one is not known: it gives ("architecture", the name in the format of its file).
    """
    return ("kind", settings.sae.kind) if isinstance(settings, TrainedSettings) else ("architecture", architecture)


def import_dictionary(
    path: Path | str,
    folder: Path,
    origin: "Origin",
    *,
    measure_widths: Callable[[list[str]], dict[str, int]] | None = None,
    measure_prose: "Callable[[SAE], ProseScores | None] | None" = None,
    format: str | None = None,
    allow_mismatch: bool = False,
    overwrite: bool = False,
) -> StoredSAE:
    """Write the dictionary at `path` into `folder` with its self-check, and return it as stored.

    `origin` names the model and the hook point. `format` names the tool where the files do not show it.

    `measure_widths` returns the model's widths at hook points; without it widths are not compared. `measure_prose`
    returns the scores on the doctor's prose that are stored with it. Raises what `load_dictionary` does, `ConfigError`
    when no hook point is known, `MismatchError` when the files name another model, weights or hook point (unless
    `allow_mismatch`) or when widths differ.
    """
    from saes.weights.folder import save_sae
    from saes.weights.importing import agree_on_origin, check_widths, source_files
    from saes.weights.read import load_checked, write_probe

    path = Path(path).expanduser().absolute()
    loaded = load_checked(path, format)
    metadata = agree_on_origin(loaded.sae, origin, allow_mismatch=allow_mismatch)
    if measure_widths:
        check_widths(
            loaded.sae, metadata, measure_widths([n for n in (metadata.hook_point, metadata.hook_point_out) if n])
        )
    settings = ImportedSettings(
        format=loaded.format,
        source=path.name,
        source_files=source_files(path),
        model=metadata.model,
        weight_hash=metadata.weight_hash,
        hook_point=metadata.hook_point,
        hook_point_out=metadata.hook_point_out,
    )
    draft = Draft.open(folder, kind="sae", config=settings_json(settings), overwrite=overwrite)
    loaded.sae.metadata = metadata
    loaded.sae.hook_point = metadata.hook_point
    save_sae(loaded.sae, draft.path)
    write_probe(draft.path, loaded.probe)
    stored = StoredSAE(
        settings=settings,
        d_in=loaded.sae.d_in,
        d_sae=loaded.sae.d_sae,
        architecture=loaded.sae.architecture,
        training=None,
        heldout=None,
        heldout_before_rounding=None,
        self_check=loaded.check,
        prose=measure_prose(loaded.sae) if measure_prose else None,
    )
    return save_artefact(stored, folder, parents={f"model:{metadata.model}": metadata.weight_hash}, draft=draft)
