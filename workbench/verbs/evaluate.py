"""`workbench evaluate SAE`: what the reconstruction keeps, on held-out text and inside the model."""

from dataclasses import dataclass

import tyro

from workbench.options import Options


@dataclass(frozen=True, kw_only=True)
class Evaluate(Options):
    """Score an SAE on documents that it never saw, and put it into the model in place of what it reconstructs."""

    sae: tyro.conf.Positional[str]
    """Name of an SAE in the workspace."""
    recording: str | None = None
    """Default: the one that it was trained on."""
    contexts: int = 32
    """Contexts for the loss inside the model; 0 skips that part."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def run(self) -> None:
        raise NotImplementedError
