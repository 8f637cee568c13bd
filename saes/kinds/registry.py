"""Which recipe trains a config. A new kind adds itself here."""

from collections.abc import Callable
from typing import Any

from saes.config import (
    BatchTopKConfig,
    GatedConfig,
    JumpReLUConfig,
    MatryoshkaConfig,
    ReLUConfig,
    SAEConfig,
    TopKConfig,
)
from saes.kinds.batchtopk import BatchTopKRecipe
from saes.kinds.gated import GatedRecipe
from saes.kinds.jumprelu import JumpReLURecipe
from saes.kinds.matryoshka import matryoshka_recipe
from saes.kinds.recipe import Recipe
from saes.kinds.relu import ReLURecipe
from saes.kinds.topk import TopKRecipe

RECIPES: dict[type[SAEConfig], Callable[[Any], Recipe]] = {
    TopKConfig: TopKRecipe,
    BatchTopKConfig: BatchTopKRecipe,
    MatryoshkaConfig: matryoshka_recipe,
    JumpReLUConfig: JumpReLURecipe,
    ReLUConfig: ReLURecipe,
    GatedConfig: GatedRecipe,
}


def recipe_of(config: SAEConfig) -> Recipe:
    """How a config is trained."""
    return RECIPES[type(config)](config)
