"""Logits of SmolLM2-135M, steered by our intervention along the shipped direction *praise*, for llama.cpp to repeat.

    python tests/oracles/steered_logits.py OUT

OUT then holds a control vector of the direction at its block and at the blocks before and after it, the prompts as
token ids, and our logits: unsteered, and steered along each vector at every token, as llama.cpp steers.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from interp.artifacts.artefact import open_artefact
from interp.directions.files import read_directions, write_directions
from interp.directions.study import DirectionGeometry
from interp.interventions.apply import intervened
from interp.interventions.intervention import Direction, Intervention
from interp.interventions.recipe import Recipe
from interp.models.adapter import to_tokens
from interp.models.hooked import HookedModel
from interp.models.loading import load_model, packaged_gguf
from interp.names import parse_hook_point
from workbench.demo import DATA

PROMPTS = (
    "I thought the food was",
    "The new library in the middle of the town is",
    "My sister read the first chapter of my book and told me that",
    "Review of the film: two hours in the dark with",
)


def at_block(step: Intervention, layer: int) -> Intervention:
    """Return a step with its direction after another block."""
    assert isinstance(step.target, Direction)
    return replace(step, target=replace(step.target, hook_point=f"blocks.{layer}.hook_resid_post"))


@torch.no_grad()
def logits_of(model: HookedModel, prompts: list[Tensor], steps: tuple[Intervention, ...]) -> np.ndarray:
    """Return the logits of every token of the prompts, `[tokens, d_vocab]`."""
    with intervened(model, steps):
        return torch.cat([model(tokens)[0] for tokens in prompts]).numpy()


def main(out: Path) -> None:
    """Write the vectors, the prompts and our logits."""
    shipped = open_artefact(DirectionGeometry, DATA / "directions" / "praise")
    (step,) = shipped.steps()
    own = parse_hook_point(shipped.settings.direction.hook_point).layer
    assert own is not None
    model = load_model("smollm2-135m")
    prompts = [to_tokens(model, text) for text in PROMPTS]
    logits = {"unsteered": logits_of(model, prompts, ())}
    for layer in (own - 1, own, own + 1):
        recipe = Recipe(name="praise", steps=(at_block(replace(step, positions=(0, None)), layer),))
        write_directions(recipe, out / f"{layer}.gguf", hint="llama")
        logits[str(layer)] = logits_of(model, prompts, read_directions(out / f"{layer}.gguf").steps)
    logits["without the first token"] = logits_of(model, prompts, (step,))
    np.savez(out / "ours.npz", **logits)
    asked = {"model": str(packaged_gguf()), "layer": own, "prompts": [tokens[0].tolist() for tokens in prompts]}
    (out / "asked.json").write_text(json.dumps(asked), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
