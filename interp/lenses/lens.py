"""Lenses that are fitted, which carry residuals of any layer to the basis of the last one. Torch-free."""

from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from interp.artifacts import Artefact, Manifest
from interp.errors import ConfigError, MismatchError
from interp.names import lens_hook_points, parse_hook_point

if TYPE_CHECKING:
    from torch import Tensor

    from interp.models.hooked import HookedModel
    from interp.workspace import Workspace

L = TypeVar("L", bound=Artefact)
CHECKPOINT = "checkpoint.safetensors"
"""File in a draft from which a fit resumes."""


class Lens(Protocol):
    """A tuned lens or a Jacobian lens: `reading = unembed(norm_final(lens.translate(hook_point, resid)))`."""

    how: ClassVar[str]
    """name of its kind: `tuned` or `jacobian`"""

    @property
    def about(self) -> Manifest:
        """Return the manifest of the artefact that it is."""
        ...

    def translate(self, hook_point: str, resid: "Tensor") -> "Tensor":
        """Return `resid [..., d_model]` in the basis of the last layer, unchanged where no layer was fitted."""
        ...

    def distances(self) -> dict[str, tuple[float, float]]:
        """Return by hook point the KL of the model's output from the logit lens and from this one, in nats."""
        ...

    def check_model(self, model: "HookedModel") -> None:
        """Raise `MismatchError` when the model has other weights than the lens was fitted on."""
        ...


def check_weights(fitted_on: str, model: "HookedModel", verb: str) -> None:
    """Raise `MismatchError` when the model has other weights than those a lens was fitted on."""
    from interp.models.adapter import weight_hash

    if (digest := weight_hash(model)) != fitted_on:
        raise MismatchError(
            f"the lens was fitted on weights {fitted_on[:12]}, this model has {digest[:12]}; load the model that it "
            f"belongs to, or fit a lens for this one: `{verb}`"
        )


def lens_point(hook_point: str, n_layers: int) -> str:
    """Return the hook point of the lens that reads what is written at `hook_point`.

    >>> lens_point("blocks.9.hook_mlp_out", 30), lens_point("blocks.9.hook_resid_pre", 30)
    ('blocks.9.hook_resid_post', 'blocks.8.hook_resid_post')
    """
    point = parse_hook_point(hook_point)
    layer = n_layers - 1 if point.layer is None else point.layer
    if point.suffix == "hook_resid_pre":
        return f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"
    return f"blocks.{layer}.hook_resid_post"


def newest_lens(workspace: "Workspace", form: type[L], weight_hash: str) -> L | None:
    """Return the newest lens of some weights in a workspace, or None."""
    return next((lens for lens in workspace.values(form) if lens.settings.weight_hash == weight_hash), None)


def fitted_hook_points(layers: tuple[int, ...] | None, n_layers: int) -> list[str]:
    """Return the hook points of `layers`, by default of all. Raises `ConfigError` for a layer that cannot be fitted."""
    layers = tuple(range(n_layers)) if layers is None else layers
    if not layers or not all(0 <= layer < n_layers for layer in layers):
        raise ConfigError(f"layers to fit are 0 .. {n_layers - 1} (the last is read as it is), got {layers}")
    return [lens_hook_points(n_layers)[layer] for layer in sorted(set(layers))]
