"""Recipes of interventions with the dictionaries that their steps name, opened from a workspace.

hooks = load_recipe("workspace", "months up").hooks(model)
model.run_with_hooks(tokens, fwd_hooks=hooks)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from interp.directions.files import SUFFIXES, check_width, read_directions, write_directions
from interp.directions.study import DirectionGeometry
from interp.errors import ConfigError, MismatchError
from interp.interventions.apply import Hooks, check_latent, hooks_of
from interp.interventions.intervention import Component, Direction, Intervention, Latent, at_random, random_vector
from interp.interventions.recipe import FILES, Recipe, hook_points_of, read_recipe, write_recipe
from interp.models.generation import Offset
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec, weight_hash
from interp.names import parse_hook_point
from interp.notes import Notes
from interp.workspace import Workspace
from saes.features.schema import Features
from saes.kinds.base import SAE
from saes.weights.folder import check_model, load_sae


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with the dictionaries of its steps, by key. Steps on features of neurons are steps on components."""

    recipe: Recipe
    dictionaries: dict[str, SAE]

    @property
    def model(self) -> str:
        """Spec of the model that it was made for; empty where it is not known."""
        return self.recipe.model or next((sae.metadata.model for sae in self.dictionaries.values()), "")

    def hooks(
        self,
        model: HookedModel,
        *,
        allow_other_weights: bool = False,
        offset: Offset | None = None,
        between: Hooks | None = None,
    ) -> Hooks:
        """Return the hooks of the steps; `between` are those of `hooks_of`.

        Raises `MismatchError` when the recipe or a dictionary was made for other weights, unless `allow_other_weights`,
        or when a dictionary is at other hook points.
        """
        model_hash = weight_hash(model)
        self.recipe.check(self.recipe.weight_hash if allow_other_weights else model_hash, self.dictionaries)
        check_width(self.recipe, model.cfg.d_model)
        placed = {key: sae.to(model.cfg.device) for key, sae in self.dictionaries.items()}
        for sae in self.dictionaries.values():
            check_model(sae, model_hash, allow_other_weights=allow_other_weights)
        return hooks_of(model, self.recipe.steps, placed, offset=offset, between=between)

    def at_random(self, seed: int) -> "LoadedRecipe | None":
        """Return the null: the same changes along random directions of the same length. None with a component, which
        has no direction."""
        steps: list[Intervention] = []
        for number, step in enumerate(self.recipe.steps):
            draw = [seed, number]
            if isinstance(step.target, Latent):
                sae = self.dictionaries[step.target.dictionary]
                check_latent(sae, step.target.index)
                direction = sae.decoder_directions[step.target.index].detach().float()
                vector = random_vector(len(direction), float(direction.norm()), draw)
                point = sae.hook_point_out or sae.hook_point
                control = Direction(hook_point=point, vector=vector, origin="a random direction")
                steps.append(replace(step, along=control))
            elif isinstance(step.target, Direction):
                steps.append(at_random(step, draw))
            else:
                return None
        return replace(self, recipe=replace(self.recipe, steps=tuple(steps)))

    def mismatch(self, model: HookedModel) -> str:
        """Return a warning where the recipe was made for other weights; else an empty text."""
        try:
            self.recipe.check(weight_hash(model), self.dictionaries)
        except MismatchError as error:
            return str(error)
        return ""

    def write(self, path: Path, model: HookedModel, metadata: Mapping[str, object]) -> None:
        """Write the recipe in the form that the suffix says. Raises `ConfigError` where that form cannot hold it."""
        if path.suffix in SUFFIXES:
            config = getattr(model.original_model, "config", None)
            write_directions(self.recipe, path, metadata, getattr(config, "model_type", ""))
        else:
            write_recipe(self.recipe, path)


def load_recipe(workspace: Workspace | Path | str, name: str) -> LoadedRecipe:
    """Return the recipe of this name among the notes of a workspace, or of a file.

    Args:
        workspace: its notes, and the dictionaries that the recipe changes.
        name: of the recipe, or a file: a recipe `NAME.json`, directions `NAME.safetensors`, or a GGUF control vector
            `NAME.gguf`.
    Returns: the recipe with its dictionaries; its `hooks(model)` apply it.
    Raises:
        UnknownNameError: no such recipe, or no such dictionary any more.
        MissingError: no such file.
        CorruptError: a file of another form.

    >>> down = Intervention(target=Component(name="L1H0"), action="ablate")
    >>> write_recipe(Recipe(name="down", steps=(down,)), folder / "down.json")
    >>> load_recipe(Workspace(folder / "notes", create=True), str(folder / "down.json")).recipe.name
    'down'
    """
    opened = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    if name.endswith(FILES):
        return open_recipe(opened, read_recipe(name) if name.endswith(".json") else read_directions(name))
    return open_recipe(opened, Notes.open(opened).recipe(name))


def recipe_of_direction(geometry: DirectionGeometry, strength: float | None = None) -> LoadedRecipe:
    """Return the steering of a direction, at the chosen strength or a multiple of it."""
    of = geometry.settings
    recipe = Recipe(name=of.direction.name, steps=geometry.steps(strength), model=of.model, weight_hash=of.weight_hash)
    return LoadedRecipe(recipe, {})


def open_recipe(workspace: Workspace, recipe: Recipe) -> LoadedRecipe:
    """Load the dictionaries of a recipe. Raises `UnknownNameError` for one that is not in the workspace."""
    saes: dict[str, SAE] = {}
    steps: list[Intervention] = []
    for step in recipe.steps:
        target = step.target
        if isinstance(target, Latent):
            folder, _, artefact = target.dictionary.partition("/")
            if folder not in ("features", "saes"):
                raise ConfigError(f"a recipe changes latents of features/NAME or saes/NAME, got {target.dictionary!r}")
            source = workspace.open(Features, artefact).dictionary if folder == "features" else f"sae:{artefact}"
            kind, _, rest = source.partition(":")
            if kind == "sae" and target.dictionary not in saes:
                workspace.manifest("sae", rest)  # the clearer error when it is gone
                saes[target.dictionary] = load_sae(workspace.path("sae", rest))
            elif kind != "sae":
                component = Component(name=f"L{parse_hook_point(rest).layer}N{target.index}")
                step = replace(step, target=component)
        steps.append(step)
    return LoadedRecipe(replace(recipe, steps=tuple(steps)), saes)


def recipe_for(
    model: HookedModel, name: str, steps: Sequence[Intervention], saes: Mapping[str, SAE], prompt: str
) -> Recipe:
    """Return the recipe with the weights it was made for, and the hook points of each dictionary."""
    return Recipe(
        name=name,
        steps=tuple(steps),
        prompt=prompt,
        model=model_spec(model),
        weight_hash=weight_hash(model),
        dictionaries={key: hook_points_of(sae) for key, sae in saes.items()},
    )
