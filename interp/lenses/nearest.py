"""The lenses that a workspace has for a model, the nearest to its output first. Torch-free."""

from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import Lens, newest_lens
from interp.lenses.tuned_lens import TunedLens
from interp.workspace import Workspace


def lenses_of(workspace: Workspace, weight_hash: str) -> dict[str, Lens]:
    """Return the newest lens of each kind for some weights, by `how`, nearest to the model's output first."""
    found = [newest_lens(workspace, form, weight_hash) for form in (TunedLens, JacobianLens)]
    return {lens.how: lens for lens in sorted((each for each in found if each is not None), key=gain, reverse=True)}


def gain(lens: Lens) -> float:
    """Return how much nearer than the logit lens a lens is to the model's output, in nats summed over its layers."""
    return float(sum(plain - own for plain, own in lens.distances().values() if plain - own == plain - own))
