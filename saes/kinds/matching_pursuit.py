"""Matching pursuit: the encoder is a greedy search with the decoder's own rows (Costa et al. 2025, arXiv 2506.03093).

    residual = x - b_dec
    k times: the latent i with the largest residual . W_dec_i; value = relu(residual . W_dec_i)
             acts_i += value;  residual -= value * W_dec_i

Rows of `W_dec` have norm 1, so a step removes the whole component along its latent. A latent is selected in view of
what earlier ones explain already, unlike in one layer, where all latents see the whole input: features that are
correlated, or nested in one another, are told apart. The loss is the squared error alone. Gradients pass through values
and residuals, not through the selection.

On disk the architecture is SAELens' `matching_pursuit`: `W_dec`, `b_dec`, and in `cfg.json`

    max_iterations             steps; null: as many as `d_in`
    residual_threshold         stop at a residual of this norm; 0: never
    stop_on_duplicate_support  stop when a step selects a latent that was selected before
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.kinds.autograd import AutogradKind, DictionarySizes
from saes.kinds.base import SAE, Finished, SAEMetadata
from saes.kinds.config import MatchingPursuitConfig


@final
class MatchingPursuitSAE(SAE):
    """Latents selected one after another, each by the residual of those before."""

    architecture = "matching_pursuit"

    def __init__(
        self,
        W_dec: Float[Tensor, "d_sae d_in"],
        b_dec: Float[Tensor, " d_in"],
        *,
        steps: int,
        residual_threshold: float = 0.0,
        stop_on_duplicate: bool = False,
        metadata: SAEMetadata | None = None,
    ):
        super().__init__()
        self.W_dec, self.b_dec = (nn.Parameter(t, requires_grad=False) for t in (W_dec, b_dec))
        self.steps, self.residual_threshold, self.stop_on_duplicate = steps, residual_threshold, stop_on_duplicate
        self.describe(W_dec.shape[1], metadata)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        residual = (x.to(self.W_dec.dtype) - self.b_dec).flatten(0, -2)
        acts = pursue(
            residual,
            self.W_dec,
            self.steps,
            residual_threshold=self.residual_threshold,
            stop_on_duplicate=self.stop_on_duplicate,
        )
        return acts.unflatten(0, x.shape[:-1])

    def saved_tensors(self) -> dict[str, Tensor]:
        return {"W_dec": self.W_dec, "b_dec": self.b_dec}

    def extra_config(self) -> dict[str, object]:
        return {
            "max_iterations": self.steps,
            "residual_threshold": self.residual_threshold,
            "stop_on_duplicate_support": self.stop_on_duplicate,
        }


@final
class MatchingPursuit(AutogradKind):
    """Matching pursuit in training: `k` steps for every token."""

    def __init__(self, sizes: DictionarySizes, config: MatchingPursuitConfig):
        super().__init__(sizes)
        self.k = config.k

    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        return pursue(x - self.b_dec, self.W_dec, self.k)

    def constrain(self) -> None:
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    def finish(self, finished: Finished) -> MatchingPursuitSAE:
        """Return the dictionary for raw activations: a pursuit of `s * x` gives `s` times the values."""
        b_dec = self.b_dec / finished.scales.output.float()
        return MatchingPursuitSAE(self.W_dec.detach(), b_dec, steps=self.k, metadata=finished.metadata)


def pursue(
    residual: Float[Tensor, "n d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    steps: int,
    *,
    residual_threshold: float = 0.0,
    stop_on_duplicate: bool = False,
) -> Float[Tensor, "n d_sae"]:
    """Return the activations of a matching pursuit of `steps` steps; see the module for the arguments."""
    acts = torch.zeros(len(residual), len(W_dec), dtype=residual.dtype, device=residual.device)
    going = torch.ones(len(residual), 1, dtype=torch.bool, device=residual.device)
    for _ in range(steps):
        with torch.no_grad():  # a selection has no gradient, and the product with all rows need not be retained
            chosen = (residual @ W_dec.T).argmax(1, keepdim=True)
        rows = W_dec[chosen.squeeze(1)]
        value = (residual * rows).sum(1, keepdim=True).relu() * going
        with torch.no_grad():
            again = (acts.gather(1, chosen) > 0) | (value <= 0)
        acts = acts.scatter_add(1, chosen, value)
        residual = residual - value * rows
        if stop_on_duplicate:
            going = going & ~again
        if residual_threshold > 0:
            going = going & (residual.detach().norm(dim=1, keepdim=True) >= residual_threshold)
        if (stop_on_duplicate or residual_threshold > 0) and not bool(going.any()):
            break
    return acts
