"""Registry of recipes: maps a config to what trains it. A new kind of this tree adds itself here."""

from collections.abc import Callable

from saes.kinds.autograd import AutogradKind, AutogradRecipe
from saes.kinds.base import TrainingRecipe
from saes.kinds.clt import CrossLayer
from saes.kinds.config import (
    BatchTopKConfig,
    CrosscoderConfig,
    CrossLayerConfig,
    GatedConfig,
    JumpReLUConfig,
    MatryoshkaConfig,
    OwnConfig,
    ReLUConfig,
    SAEConfig,
    TopKConfig,
    TranscoderConfig,
)
from saes.kinds.crosscoder import CrosscoderRecipe
from saes.kinds.jumprelu import JumpReLURecipe
from saes.kinds.l1 import GatedRecipe, ReLURecipe
from saes.kinds.own import own_recipe
from saes.kinds.topk import BatchTopKRecipe, TopKRecipe, matryoshka_recipe
from saes.kinds.transcoder import TranscoderRecipe

RECIPES: dict[type[SAEConfig], Callable[..., TrainingRecipe]] = {
    TopKConfig: TopKRecipe,
    BatchTopKConfig: BatchTopKRecipe,
    MatryoshkaConfig: matryoshka_recipe,
    JumpReLUConfig: JumpReLURecipe,
    ReLUConfig: ReLURecipe,
    GatedConfig: GatedRecipe,
}
LEARNED: dict[type[SAEConfig], Callable[..., AutogradKind]] = {CrossLayerConfig: CrossLayer}
"""Kinds that have a loss instead of a recipe with its gradients."""


def recipe_of(config: SAEConfig, widths: tuple[int, ...] = ()) -> TrainingRecipe:
    """Return the recipe of a config; `widths` are the widths of the hook points that it reads."""
    if isinstance(config, CrosscoderConfig):
        return CrosscoderRecipe(config, widths)
    if isinstance(config, TranscoderConfig):
        return TranscoderRecipe(config, recipe_of(config.selects()))
    return RECIPES[type(config)](config)


def autograd_of(config: SAEConfig) -> AutogradRecipe | None:
    """Return what trains a kind that has a loss, this tree's or one's own; None for a kind with a `TrainingRecipe`."""
    if isinstance(config, OwnConfig):
        return own_recipe(config)
    if (make := LEARNED.get(type(config))) is None:
        return None
    return AutogradRecipe(config.kind.replace("_", "-"), lambda sizes: make(sizes, config))
