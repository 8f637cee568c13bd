"""A recipe: interventions to be repeated, in a JSON file or among the notes of a workspace. Torch-free.

    write_recipe(Recipe(name="months up", steps=(step,), model="smollm2-135m", weight_hash=...), "months.json")
    recipe = read_recipe("months.json")               # on another machine
    recipe.check(weight_hash(model), {"saes/demo": sae})

A recipe says what it was made for; it is refused where the weights, or the hook points or layers of a dictionary,
differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.artifacts import as_json, read_json, write_json
from interp.errors import ConfigError, MismatchError
from interp.forms import from_json
from interp.interventions.intervention import Intervention, Latent

if TYPE_CHECKING:
    from interp.dictionary import Dictionary

MAX_STEPS = 256
FILES = (".json", ".safetensors", ".gguf")
"""Suffixes of files that hold interventions; the latter two hold directions (`interp.directions.files`)."""


@dataclass(frozen=True, kw_only=True)
class HookPoints:
    """Hook points that a dictionary reads and writes."""

    reads: str
    writes: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Interventions that belong together, what they were made for, and the prompt that they were tried on."""

    name: str
    steps: tuple[Intervention, ...]
    prompt: str = ""
    model: str = ""
    """Model that it was tried on; empty: the one of the dictionary."""
    weight_hash: str = ""
    """Weights that it was made for; empty: those of its dictionaries."""
    dictionaries: dict[str, dict[int, HookPoints]] = field(default_factory=dict)
    """Key of a dictionary -> layer (0 for one that is not by layer) -> its hook points; empty: not recorded."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= MAX_STEPS:
            raise ConfigError(f"a recipe has 1 to {MAX_STEPS} steps, got {len(self.steps)}")

    @property
    def latents(self) -> list[Latent]:
        """The latents that its steps change."""
        return [step.target for step in self.steps if isinstance(step.target, Latent)]

    def check(self, weight_hash: str, dictionaries: "Mapping[str, Dictionary | Mapping[int, Dictionary]]") -> None:
        """Raise `MismatchError` where the weights or the hook points of a dictionary are not those it was made for."""
        if self.weight_hash and self.weight_hash != weight_hash:
            raise MismatchError(
                f"recipe {self.name!r} was made for {self.model or 'a model'} with weights {self.weight_hash[:12]}, "
                f"this model has {weight_hash[:12]}; load the model it was made for, or allow other weights on purpose"
            )
        for key, layers in self.dictionaries.items():
            points = hook_points_of(dictionaries[key]) if key in dictionaries else layers
            if points != layers:
                raise MismatchError(
                    f"recipe {self.name!r} was made for {key} at {_listed(layers)}, this one is at {_listed(points)}; "
                    "import the dictionary it was made for"
                )

    def as_json(self) -> dict[str, Any]:
        """Return the recipe without its name."""
        return {name: value for name, value in as_json(self).items() if name != "name"}


def hook_points_of(dictionary: "Dictionary | Mapping[int, Dictionary]") -> dict[int, HookPoints]:
    """Return where a dictionary, or one for each layer, reads and writes."""
    if isinstance(dictionary, Mapping):
        return {layer: hook_points_of(part)[0] for layer, part in dictionary.items()}
    reads = dictionary.hook_point
    return {0: HookPoints(reads=reads, writes=getattr(dictionary, "hook_point_out", "") or reads)}


def _listed(layers: Mapping[int, HookPoints]) -> str:
    return ", ".join(f"{layer}: {at.reads} -> {at.writes}" for layer, at in layers.items())


def write_recipe(recipe: Recipe, path: Path | str) -> None:
    """Write a recipe as a JSON file.

    `path` is the file; an existing one is replaced.
    """
    write_json(Path(path), as_json(recipe))


def read_recipe(path: Path | str) -> Recipe:
    """Return the recipe of a file. Raises `MissingError`, or `CorruptError` with the path of the wrong value inside."""
    return from_json(Recipe, read_json(Path(path)), path)
