"""The tuned lens as an artefact: a logit lens with a learned affine translator per layer (Belrose et al. 2023).

The translator is applied to the residual before the model's own final norm and unembedding:

    reading = unembed(norm_final(resid + resid @ weight + bias))

With weight 0 and bias 0 it is the plain logit lens. A lens is valid for one set of weights.

    lens = workspace.open(TunedLens, "smollm2-135m")
    readings = logit_lens(model, tokens, lens=lens)

`interp.lenses.lens_training` trains it. Torch-free until a residual is translated.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from jaxtyping import Float32

from interp.artifacts import ARRAY, Artefact, Measured
from interp.errors import ConfigError
from interp.lenses.lens import check_weights, fitted_hook_points
from interp.models.short_name import short_name
from interp.options import Seed
from interp.results import Record
from interp.view import Facts, View

if TYPE_CHECKING:
    from torch import Tensor

    from interp.models.hooked import HookedModel


@dataclass(frozen=True, kw_only=True)
class TunedLensConfig:
    """Settings of the training of a tuned lens."""

    steps: int = 250
    """Tuned lens: training steps."""
    positions: int = 256
    """Tuned lens: tokens per step; time is proportional to steps x positions x layers x vocabulary."""
    contexts: int = 4
    """Tuned lens: contexts per step that the positions are drawn from; the model runs over all of them."""
    lr: float = 1e-3
    """Tuned lens: peak learning rate; it rises over ten steps, then falls linearly to 0."""
    layers: tuple[int, ...] | None = None
    """Layers that get a translator: 0 is the embedding, i the residual stream after block i - 1. Default: all but the
    last, which is read without one."""
    heldout_positions: int = 256
    """Held-out tokens that measure the lens, of at most 64 texts; as many decide whether a translator replaces the
    logit lens."""
    checkpoint_every: int = 25
    """Tuned lens: steps between checkpoints."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        counts = (self.steps, self.positions, self.contexts, self.heldout_positions, self.checkpoint_every)
        if min(counts) < 1 or not self.lr > 0:
            raise ConfigError("steps, positions, contexts, heldout_positions, checkpoint_every and lr must be above 0")

    def hook_points(self, n_layers: int) -> list[str]:
        """Return the hook points that get a translator. Raises `ConfigError` for a layer that cannot have one."""
        return fitted_hook_points(self.layers, n_layers)


@dataclass(frozen=True, kw_only=True)
class LensSettings(TunedLensConfig):
    """Settings that determine a tuned lens."""

    model: str
    weight_hash: str
    """Of the model that it was trained on."""
    source: str
    """Origin of the tokens: `recordings/NAME` or `corpus:SPEC`."""
    n_contexts: int
    """Contexts to train on."""
    context_length: int


@dataclass(frozen=True, kw_only=True)
class LensLayer:
    """KL of the model's output from the reading of one hook point, in nats, on held-out tokens."""

    hook_point: str
    kl_logit: Measured
    """Of the plain logit lens."""
    kl_tuned: Measured
    kept: bool
    """False where the translator did not beat the plain lens on tokens set apart: it is zero then."""


@dataclass(frozen=True, kw_only=True)
class TunedLens(Artefact, kind="lens", title="Tuned lens"):
    """Translators by hook point; a hook point without one is read by the plain logit lens."""

    settings: LensSettings
    layers: tuple[LensLayer, ...]
    weights: Annotated[Float32[np.ndarray, "n_layers d_model d_model"], ARRAY]
    """`resid @ weight` is added; in the order of `layers`."""
    biases: Annotated[Float32[np.ndarray, "n_layers d_model"], ARRAY]

    how: ClassVar[str] = "tuned"

    @cached_property
    def _translators(self) -> "dict[str, tuple[Tensor, Tensor]]":
        import torch

        pairs = zip(torch.from_numpy(self.weights), torch.from_numpy(self.biases), strict=True)
        return {layer.hook_point: pair for layer, pair in zip(self.layers, pairs, strict=True)}

    def translate(self, hook_point: str, resid: "Tensor") -> "Tensor":
        """Return `resid [..., d_model]` translated to the basis of the last layer."""
        if hook_point not in self._translators:
            return resid
        weight, bias = (tensor.to(resid.device) for tensor in self._translators[hook_point])
        cast = resid.to(weight.dtype)
        return (cast + cast @ weight + bias).to(resid.dtype)

    def check_model(self, model: "HookedModel") -> None:
        """Raise `MismatchError` when the model has other weights than the lens was trained on."""
        check_weights(self.settings.weight_hash, model, "workbench lens MODEL")

    def distances(self) -> dict[str, tuple[float, float]]:
        """Return by hook point the KL of the model's output from the logit lens and from this one, in nats."""
        return {layer.hook_point: (layer.kl_logit, layer.kl_tuned) for layer in self.layers}

    def to_records(self) -> list[Record]:
        """Return one row per hook point: `hook_point, kl_logit, kl_tuned` (nats)."""
        return [
            {name: getattr(layer, name) for name in ("hook_point", "kl_logit", "kl_tuned")} for layer in self.layers
        ]

    def view(self) -> View:
        better = f"{sum(x.kept for x in self.layers)} of {len(self.layers)}"
        yield f"Tuned lens of {short_name(self.settings.model)}, better than the logit lens in {better} layers"
        yield Facts(
            ("layers", str(len(self.layers))),
            ("better than the logit lens", str(sum(x.kept for x in self.layers))),
            ("KL measured on", f"{self.settings.heldout_positions:,} held-out tokens"),
        )
        notes = {True: "", False: "  (no better than the logit lens, which replaces it)"}
        yield from [
            f"{x.hook_point}: logit lens {x.kl_logit:.3f}, tuned {x.kl_tuned:.3f} nats{notes[x.kept]}"
            for x in self.layers
        ]
