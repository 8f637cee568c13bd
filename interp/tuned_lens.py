"""The tuned lens: a logit lens that first learned each layer's language (Belrose et al. 2023).

Each layer gets an affine translator, added to the residual before the model's own final norm and unembedding:

    reading = unembed(norm_final(resid + resid @ weight + bias))

At weight 0 and bias 0 it is the plain logit lens. `interp.tuned_lens_training` fits it by distillation: the loss is
`KL(model's output || reading)`, nothing is learned from the text itself. A lens belongs to one set of weights.

    lens = TunedLens.load(workspace.path("lens", "smollm2-135m"), model)
    readings = logit_lens(model, tokens, lens=lens)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.artifacts import atomic_file, read_manifest
from interp.errors import CorruptError, MismatchError
from interp.models.adapter import weight_hash

FILE = "lens.safetensors"


@dataclass(frozen=True, eq=False)
class TunedLens:
    """Translators by hook point; a hook point without one is read as it is."""

    weights: Mapping[str, Tensor]
    """hook point -> `[d_model, d_model]`, so that `resid @ weight` is added"""
    biases: Mapping[str, Tensor]
    """hook point -> `[d_model]`"""
    weight_hash: str
    """of the model that it was trained on"""
    summary: dict[str, Any] = field(default_factory=dict)
    """KL per hook point on held-out tokens, as in the manifest"""

    def translate(self, hook_point: str, resid: Tensor) -> Tensor:
        """`resid [..., d_model]` in the language of the last layer."""
        if hook_point not in self.weights:
            return resid
        weight, bias = (table[hook_point].to(resid.device) for table in (self.weights, self.biases))
        moved = resid.to(weight.dtype)
        return (moved + moved @ weight + bias).to(resid.dtype)

    def check_model(self, model: Any) -> None:
        """Raises `MismatchError` when the model has other weights than the lens was trained on."""
        if weight_hash(model) != self.weight_hash:
            raise MismatchError(
                f"the lens was trained on weights {self.weight_hash[:12]}, this model has {weight_hash(model)[:12]}; "
                "load the model that it belongs to, or train a lens for this one: workbench lens MODEL"
            )

    def save(self, folder: Path) -> None:
        """Write the translators into a folder."""
        from safetensors.torch import save_file

        tensors = {f"{name}.weight": value.contiguous() for name, value in self.weights.items()}
        tensors |= {f"{name}.bias": value.contiguous() for name, value in self.biases.items()}
        with atomic_file(Path(folder) / FILE) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, folder: Path | str, model: Any = None) -> "TunedLens":
        """The lens in an artefact folder; with a `model`, refused unless it was trained on these weights.

        Raises `MissingError`, `CorruptError`, or `MismatchError` for other weights or an artefact of another kind.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        manifest = read_manifest(Path(folder))
        if manifest.kind != "lens":
            raise MismatchError(f"{folder} is a {manifest.kind}, not a lens")
        try:
            tensors = load_file(Path(folder) / FILE)
        except (OSError, SafetensorError) as error:
            raise CorruptError(f"{Path(folder) / FILE} cannot be read: {error}") from error
        names = sorted({key.rpartition(".")[0] for key in tensors})
        weights = {name: tensors.get(f"{name}.weight", torch.empty(0)) for name in names}
        biases = {name: tensors.get(f"{name}.bias", torch.empty(0)) for name in names}
        if any(not b.numel() or weights[name].shape != (len(b), len(b)) for name, b in biases.items()):
            raise CorruptError(f"{Path(folder) / FILE} does not hold a square weight and a bias per hook point")
        lens = cls(weights, biases, manifest.config["weight_hash"], manifest.summary)
        if model is not None:
            lens.check_model(model)
        return lens


def kl_divergence(target: Tensor, logits: Tensor) -> Tensor:
    """`[...]` nats: `KL(target || reading)` of log-probabilities `target [..., d_vocab]` and a reading's `logits`.

    0 when they are the same distribution; how surprised the reading would be by the target, on average.
    """
    return (target.exp() * (target - logits.log_softmax(-1))).sum(-1)


def identity_lens(hook_points: list[str], d_model: int, weight_hash: str) -> TunedLens:
    """Where training starts: translators that change nothing."""
    weights = {name: torch.zeros(d_model, d_model) for name in hook_points}
    return TunedLens(weights, {name: torch.zeros(d_model) for name in hook_points}, weight_hash)
