"""Registry of recipes: maps a config to the recipe that trains it. A new kind adds itself here."""

from collections.abc import Callable
from typing import Any

from saes.kinds.config import (
    BatchTopKConfig,
    CrosscoderConfig,
    GatedConfig,
    JumpReLUConfig,
    MatryoshkaConfig,
    ReLUConfig,
    SAEConfig,
    TopKConfig,
    TranscoderConfig,
)
from saes.kinds.crosscoder import CrosscoderRecipe
from saes.kinds.gated import GatedRecipe
from saes.kinds.jumprelu import JumpReLURecipe
from saes.kinds.recipe import Recipe
from saes.kinds.relu import ReLURecipe
from saes.kinds.topk import BatchTopKRecipe, TopKRecipe, matryoshka_recipe
from saes.kinds.transcoder import TranscoderRecipe

RECIPES: dict[type[SAEConfig], Callable[[Any], Recipe]] = {
    TopKConfig: TopKRecipe,
    BatchTopKConfig: BatchTopKRecipe,
    MatryoshkaConfig: matryoshka_recipe,
    JumpReLUConfig: JumpReLURecipe,
    ReLUConfig: ReLURecipe,
    GatedConfig: GatedRecipe,
}


def recipe_of(config: SAEConfig, widths: tuple[int, ...] = ()) -> Recipe:
    """Return the recipe of a config; `widths` are the widths of the hook points that it reads."""
    if isinstance(config, CrosscoderConfig):
        return CrosscoderRecipe(config, widths)
    if isinstance(config, TranscoderConfig):
        return TranscoderRecipe(config, recipe_of(config.selects()))
    return RECIPES[type(config)](config)
