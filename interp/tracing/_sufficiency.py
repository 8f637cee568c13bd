"""Part of an answer that the pruned graph of a prompt holds, in the mean and against an adversary. Torch-free.

`interp.tracing.effects.measure_sufficiency` runs it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sufficiency:
    """Value of the first target (logits) when some of the latents that are active on the prompt write nothing.

    Nothing is frozen: latents that are left follow their inputs, and so do reconstruction errors. A range is from the
    smallest to the largest draw; random latents are as many in each layer and position.
    """

    whole: float
    """In the model itself."""
    empty: float
    """Without any active latent."""
    alone: float
    """Without all active latents outside the pruned graph."""
    alone_random: tuple[float, float]
    """Without all but random latents, as many as the pruned graph has."""
    n_outside: int
    """Active latents outside the pruned graph."""
    worst: float
    """Without those outside that raise the target by their first-order effect: the worst case by score."""
    worst_random: tuple[float, float]
    """Without as many random ones outside."""
    n_helpers: int
    """Latents outside that raise the target by score."""
    n_random: int
    """Draws of each null."""

    def lines(self) -> tuple[str, str]:
        """Return both numbers in a sentence each, beside their nulls."""
        return (
            f"The pruned graph alone keeps {self.alone:.2f} of {self.whole:.2f} logits (as many random latents "
            f"{_range(self.alone_random)}, none {self.empty:.2f}).",
            f"Worst case by score, without the {self.n_helpers:,} of {self.n_outside:,} other latents that help: "
            f"{self.worst:.2f} (without as many random others {_range(self.worst_random)}).",
        )


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.2f} to {ends[1]:.2f}"
