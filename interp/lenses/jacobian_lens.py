"""The Jacobian lens as an artefact: a residual carried to the last layer by the mean Jacobian (Gurnee et al. 2026).

    residual:   reading = unembed(norm_final(f + g_l J_l (resid_l - m_l)))
    direction:  carried = J_l direction

`J_l [d_model, d_model]` is the mean, over texts and source positions t, of the derivative of the residual after the
last block, summed over positions t' >= t, in the residual at layer l. A derivative says how a change is carried, so a
residual is read as a change from the mean `m_l` of its layer, which becomes `f`, the mean after the last block. Gurnee
et al. 2026 read `J_l resid_l`, without these constants. The gain `g_l` is the one number of a layer that is fitted to
the model's output: 0 is the mean alone, a constant prediction. All else is measured: the text says where the derivative
is taken, not what is to be predicted. A lens is valid for one set of weights.

    lens = workspace.open(JacobianLens, "smollm2-135m")
    readings = logit_lens(model, tokens, lens=lens)
    says = logit_effects(model, lens.carry("blocks.9.hook_resid_post", directions), k=10)

`interp.lenses.jacobian_fit` fits it, and reads and writes the published file format.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float16, Float32

from interp.artifacts import ARRAY, Artefact, Measured
from interp.errors import ConfigError, MissingError
from interp.interventions.intervention import Direction
from interp.lenses.lens import check_weights, fitted_hook_points
from interp.models.short_name import short_name
from interp.options import Seed
from interp.results import Record
from interp.statistics import Interval
from interp.view import Facts, View

if TYPE_CHECKING:
    from torch import Tensor

    from interp.lenses.vocabulary import Vocabulary
    from interp.models.hooked import HookedModel


Products = Literal["float32", "bfloat16"]
READINGS = ("logit", "tuned", "uncentred", "jacobian", "mean", "untrained", "shuffled")
"""readings whose distance from the model's output is measured"""


@dataclass(frozen=True, kw_only=True)
class JacobianLensConfig:
    """Settings of the fit of a Jacobian lens."""

    rounds: int = 30
    """Jacobian lens: rounds of the fit. One reads `texts` other contexts and measures each row of the Jacobian in one
    of them; SmolLM2 takes half a minute on two cores, where the processor multiplies bfloat16."""
    texts: int = 48
    """Jacobian lens: largest number of contexts in a round, which are in memory together."""
    skip: int = 8
    """Jacobian lens: first positions of a context that are left out, since they are attention sinks."""
    layers: tuple[int, ...] | None = None
    """Layers that are fitted: 0 is the embedding, i the residual stream after block i - 1. Default: all but the last,
    which is read as it is."""
    heldout_positions: int = 256
    """Held-out tokens that measure the lens, of at most 64 texts."""
    products: Products | None = None
    """Jacobian lens: dtype of products; sums are float32. Default: bfloat16 where the processor is faster in it and the
    model is float32 on a CPU, otherwise the model's own."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.texts, self.heldout_positions) < 1 or self.skip < 0:
            raise ConfigError("rounds, texts and heldout_positions must be above 0, and skip at least 0")

    def hook_points(self, n_layers: int) -> list[str]:
        """Return the hook points that are fitted. Raises `ConfigError` for a layer that cannot be."""
        return fitted_hook_points(self.layers, n_layers)


@dataclass(frozen=True, kw_only=True)
class JacobianSettings(JacobianLensConfig):
    """Settings that determine a Jacobian lens."""

    model: str
    weight_hash: str
    """Of the model that it was fitted on."""
    source: str
    """Origin of the tokens: `recordings/NAME`, `corpus:SPEC`, or the name of a published file."""
    context_length: int
    """Tokens per context."""


@dataclass(frozen=True, kw_only=True)
class JacobianLayer:
    """One layer of the lens, and KL of the model's output from its readings, in nats, on held-out tokens."""

    hook_point: str
    agreement: Measured
    """Mean cosine of the read directions of random tokens between the Jacobians of two halves of the texts: 1 the same,
    0 unrelated. NaN for a published file, which does not say."""
    gain: Measured
    """Factor of the carried residual; 0 where no gain reads better than the mean alone."""
    kl_logit: Interval[float]
    """Of the plain logit lens; like all below with its interval over texts."""
    kl_tuned: Interval[float]
    """Of the tuned lens of the workspace; NaN where there was none."""
    kl_uncentred: Interval[float]
    """Of the Jacobian without means and gain, as published."""
    kl_jacobian: Interval[float]
    kl_mean: Interval[float]
    """Of the mean last residual alone, the same prediction everywhere: a null."""
    kl_untrained: Interval[float]
    """Of this lens with the Jacobian of an untrained model of the same architecture: a null."""
    kl_shuffled: Interval[float]
    """Of this lens where it reads the residuals of other positions of other texts: a null."""
    below_logit: Interval[float]
    """How much nearer this lens is than the logit lens, at the same positions."""
    below_mean: Interval[float]
    """How much nearer this lens is than the mean alone, at the same positions."""


@dataclass(frozen=True, kw_only=True)
class JacobianLens(Artefact, kind="jacobian_lens", made_by="lens --kind jacobian"):
    """Mean Jacobians by hook point; a hook point without one is read by the plain logit lens."""

    settings: JacobianSettings
    n_texts: int
    """Texts that each row is the mean over."""
    layers: tuple[JacobianLayer, ...]
    jacobians: Annotated[Float16[np.ndarray, "n_layers d_model d_model"], ARRAY]
    """`jacobians[i] @ direction` is the direction carried to the last layer; in the order of `layers`."""
    means: Annotated[Float32[np.ndarray, "n_layers d_model"], ARRAY]
    """Mean residual of each layer over texts, without the first positions."""
    end: Annotated[Float32[np.ndarray, " d_model"], ARRAY]
    """Mean residual after the last block at the same positions."""

    how: ClassVar[str] = "jacobian"

    @cached_property
    def _number(self) -> dict[str, int]:
        return {layer.hook_point: i for i, layer in enumerate(self.layers)}

    def jacobian(self, hook_point: str) -> "Tensor | None":
        """Return the Jacobian `[d_model, d_model]` float32 of a hook point, or None where it was not fitted."""
        import torch

        if hook_point not in self._number:
            return None
        return torch.from_numpy(self.jacobians[self._number[hook_point]]).float()

    def carry(self, hook_point: str, directions: "Tensor") -> "Tensor":
        """Return `directions [..., d_model]` carried to the last layer; as they are where no layer was fitted."""
        jacobian = self.jacobian(hook_point)
        if jacobian is None:
            return directions
        return (directions.float() @ jacobian.to(directions.device).T).to(directions.dtype)

    def translate(self, hook_point: str, resid: "Tensor") -> "Tensor":
        """Return residuals `[..., d_model]` as they are expected after the last block."""
        import torch

        if hook_point not in self._number:
            return resid
        number = self._number[hook_point]
        mean, end = (torch.from_numpy(x).to(resid.device) for x in (self.means[number], self.end))
        return (end + self.layers[number].gain * self.carry(hook_point, resid.float() - mean)).to(resid.dtype)

    def word_direction(self, hook_point: str, vocabulary: "Vocabulary", token: int) -> Direction:
        """Return the direction at a hook point that raises a token: the gradient of its logit through the lens.

        Raises `MissingError` where the hook point was not fitted.
        """
        jacobian = self.jacobian(hook_point)
        if jacobian is None:
            raise MissingError(f"the lens has no {hook_point}; it has {', '.join(self._number)}")
        vector = jacobian.numpy().T.astype(np.float64) @ vocabulary.directions[token].astype(np.float64)
        origin = f"raises {vocabulary.texts[token]!r} through the Jacobian lens of {short_name(self.settings.model)}"
        return Direction(hook_point=hook_point, vector=vector, origin=origin)

    def check_model(self, model: "HookedModel") -> None:
        """Raise `MismatchError` when the model has other weights than the lens was fitted on."""
        check_weights(self.settings.weight_hash, model, "workbench lens MODEL --kind jacobian")

    def distances(self) -> dict[str, tuple[float, float]]:
        """Return by hook point the KL of the model's output from the logit lens and from this one, in nats."""
        return {layer.hook_point: (layer.kl_logit.estimate, layer.kl_jacobian.estimate) for layer in self.layers}

    @property
    def constant(self) -> float:
        """KL of the model's output from the prediction of its mean last residual, in nats."""
        return self.layers[0].kl_mean.estimate

    def to_records(self) -> list[Record]:
        """Return one row per hook point: agreement, gain, the KL of every lens and null, and how much nearer it is."""
        return [
            {"hook_point": layer.hook_point, "agreement": layer.agreement, "gain": layer.gain}
            | {f"kl_{name}": getattr(layer, f"kl_{name}").estimate for name in READINGS}
            | layer.below_logit.columns("below_logit")
            | layer.below_mean.columns("below_mean")
            for layer in self.layers
        ]

    def view(self) -> View:
        mean = float(np.mean([layer.agreement for layer in self.layers]))
        agreed = "" if math.isnan(mean) else f"; read directions of two halves agree to a cosine of {mean:.2f}"
        layers = f"{len(self.layers)} layer{'s' * (len(self.layers) != 1)}"
        yield f"Jacobian lens of {short_name(self.settings.model)}, {layers}{agreed}"
        beyond_mean = sum(layer.below_mean.low > 0 for layer in self.layers)
        yield Facts(
            ("layers", str(len(self.layers))),
            ("texts for each row", str(self.n_texts)),
            ("better than the logit lens", str(sum(layer.below_logit.low > 0 for layer in self.layers))),
            ("better than the mean alone", str(beyond_mean)),
        )
        yield from [
            f"{x.hook_point}: Jacobian {x.kl_jacobian:.2f} nats at gain {x.gain:.2f}; "
            + ", ".join(
                f"{name} {kl.estimate:.2f}"
                for name in READINGS
                if name != "jacobian" and not math.isnan((kl := getattr(x, f"kl_{name}")).estimate)
            )
            + ("" if math.isnan(x.agreement) else f"; halves agree to {x.agreement:.2f}")
            for x in self.layers
        ]
