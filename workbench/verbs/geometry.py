"""`workbench geometry ...`: the geometry of a model's representations, one subcommand per question.

- `shapes MODEL`: lists of words that lie on a circle, along a line or in a cluster.
- `direction MODEL`: the tokens that one direction raises, the words it separates, and the effect of steering along it.

A further subcommand is a dataclass here with its `words`, named in `Command`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from interp.errors import ConfigError
from workbench.terminal import Options, bar, say, slug, wrote

if TYPE_CHECKING:
    from interp.geometry.probes import NamedDirection
    from interp.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Shapes(Options):
    """Find the shape of weekdays, months, digits, number words, letters, colours and compass points in a model.

    Example: workbench geometry shapes smollm2-135m --lists weekdays months

    The layer is chosen on half of the sentences and judged on the other half; p-values pay for the search over layers
    and lists. Too few items are refused a verdict, whatever the picture looks like.
    """

    words: ClassVar[tuple[str, ...]] = ("geometry", "shapes")

    model: tyro.conf.Positional[str]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    lists: tuple[str, ...] = ()
    """Which of the lists. Default: all seven. One list alone has no others to be a cluster among."""
    own_words: tuple[str, ...] = ()
    """Words of your own, in their order, as one more list."""
    cyclic: bool = False
    """The last of your own words is followed by the first."""
    interventions: bool = True
    """Steer towards each list and turn its words around their circle, too."""
    random_directions: int = 2
    """Random directions beside each intervention."""
    device: str | None = None
    """cpu, cuda, mps. Default: the best there is."""

    def __post_init__(self) -> None:
        if self.random_directions < 1:
            raise ConfigError(
                "an intervention is never shown without a random one; random_directions must be at least 1"
            )

    def run(self) -> None:
        from interp.geometry.report import measure_concepts, save_geometry
        from interp.geometry.words import find_concepts, own_concept
        from interp.models.adapter import weight_hash
        from interp.models.loading import load_model

        workspace = self.open_workspace()
        threads = self.use_threads()
        folder = workspace.path("geometry", self.name or slug(self.model))
        if folder.exists() and not self.overwrite:
            raise ConfigError(f"{folder} is already there; choose another --name, or --overwrite to replace it")
        concepts = find_concepts(self.lists) if self.lists or not self.own_words else []
        if self.own_words:
            concepts = [*concepts, own_concept("own words", self.own_words, cyclic=self.cyclic)]
        model = load_model(self.model, device=self.device)
        with bar("geometry", "steps") as progress:
            found = measure_concepts(
                model,
                concepts,
                interventions=self.interventions,
                n_random=self.random_directions,
                seed=self.seed,
                progress=progress,
            )
        manifest = save_geometry(
            found,
            folder,
            model_name=self.model,
            weight_hash=weight_hash(model),
            seed=self.seed,
            threads=threads,
            overwrite=self.overwrite,
        )
        wrote(folder, f"{len(found)} list{'s' * (len(found) > 1)} of words")
        for line in describe(manifest.summary):
            say(f"      {line}")


def describe(summary: dict) -> list[str]:
    """One line for each list."""
    lines = []
    for name, entry in summary.items():
        moved = ""
        if entry["moves_output"] is not None:
            followed, steps = entry["steps_followed"]
            verb = "moves" if entry["moves_output"] else "does not move"
            moved = f"; turning {verb} the output, at {followed} of {steps} steps"
        lines.append(
            f"{name}: {entry['verdict']} ({entry['reason']}; circular {entry['circular']:.2f} "
            f"p {entry['p_circular']:.4f}, linear {entry['linear']:.2f} p {entry['p_linear']:.4f}"
            f"{moved})"
        )
    return lines


@dataclass(frozen=True, kw_only=True)
class Direction(Options):
    """Ask what a direction means: the tokens it raises, the words it sets apart, and what a push along it does.

    Example: workbench geometry direction smollm2-135m --towards good great fine nice --away bad awful poor sad

    A direction is one of three things: the difference in means of two lists of words (--towards, --away), a feature of
    an SAE (--feature demo:12), or a vector of your own (--vector v.npy --at blocks.7.hook_resid_post). Everything
    stands beside random directions. The dashboard's Geometry page shows it.
    """

    words: ClassVar[tuple[str, ...]] = ("geometry", "direction")

    model: tyro.conf.Positional[str]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    towards: tuple[str, ...] = ()
    """Words that the direction leads to, four or more."""
    away: tuple[str, ...] = ()
    """Words that it leads away from, four or more."""
    feature: str | None = None
    """A feature of an SAE in the workspace: NAME:NUMBER."""
    vector: Path | None = None
    """A .npy file with one vector [d]; needs --at."""
    at: str | None = None
    """The hook point. Default: that of the SAE; for words after the block a quarter of the way up."""
    targets: tuple[str, ...] = ()
    """Words that a push is judged by. Default: those it leads to, else the tokens it raises."""
    lists: tuple[str, ...] = ()
    """The lists of words that are laid along it. Default: all seven."""
    interventions: bool = True
    """Push along it, too."""
    random_directions: int = 9
    """Random directions beside the push."""
    allow_other_weights: bool = False
    """Take a feature of an SAE that was trained on other weights."""
    device: str | None = None
    """cpu, cuda, mps. Default: the best there is."""

    def __post_init__(self) -> None:
        given = [bool(self.towards or self.away), self.feature is not None, self.vector is not None]
        if sum(given) != 1:
            raise ConfigError("give one direction: --towards and --away words, --feature SAE:NUMBER, or --vector FILE")
        if self.vector is not None and self.at is None:
            raise ConfigError("a vector needs its place: add --at, blocks.7.hook_resid_post for example")
        if self.random_directions < 1:
            raise ConfigError("a push is never shown without a random one; random_directions must be at least 1")

    def run(self) -> None:
        from interp.geometry.direction_report import measure_direction, save_direction
        from interp.geometry.words import find_concepts
        from interp.models.adapter import weight_hash
        from interp.models.loading import load_model

        workspace = self.open_workspace()
        threads = self.use_threads()
        concepts = find_concepts(self.lists)
        folder = workspace.path("geometry", self.name or slug(f"direction-{self._called()}"))
        if folder.exists() and not self.overwrite:
            raise ConfigError(f"{folder} is already there; choose another --name, or --overwrite to replace it")
        model = load_model(self.model, device=self.device)
        direction, parents = self._direction(workspace, model)
        with bar("direction", "steps") as progress:
            found = measure_direction(
                model,
                direction,
                concepts,
                targets=self.targets,
                interventions=self.interventions,
                n_random=self.random_directions,
                seed=self.seed,
                progress=progress,
            )
        save_direction(
            found,
            folder,
            model_name=self.model,
            weight_hash=weight_hash(model),
            parents=parents,
            seed=self.seed,
            threads=threads,
            overwrite=self.overwrite,
        )
        wrote(folder, f"the direction {direction.name} at {direction.hook_point}")
        for part in (direction.found, found.reading, found.along, found.steering):
            if part is not None:
                say(f"      {part}")

    def _called(self) -> str:
        if self.vector is not None:
            return self.vector.stem
        return self.feature or "-".join([*self.towards[:1], *self.away[:1]])

    def _direction(self, workspace: "Workspace", model: Any) -> "tuple[NamedDirection, dict[str, str]]":
        """The direction, and the artefacts that it comes from."""
        from interp.geometry.probes import direction_of_file, direction_of_words
        from interp.geometry.report import early_place

        if self.vector is not None:
            return direction_of_file(self.vector, self.at or "", name=self.name or ""), {}
        if self.feature is not None:
            return self._of_feature(workspace, model, self.feature)
        place = self.at or early_place(model)
        return direction_of_words(model, self.towards, self.away, place, name=self.name or "", seed=self.seed), {}

    def _of_feature(self, workspace: "Workspace", model: Any, feature: str) -> "tuple[NamedDirection, dict[str, str]]":
        """What a feature of an SAE writes, with its label where there is one."""
        from interp.geometry.points import unit_vector
        from interp.geometry.probes import NamedDirection
        from interp.models.adapter import weight_hash
        from saes.weights.folder import check_model, load_sae
        from workbench.opening import feature_table, parents_of

        name, _, number = feature.rpartition(":")
        if not name or not number.isdecimal():
            raise ConfigError(f"--feature takes NAME:NUMBER, demo:12 for example, got {feature!r}")
        manifest = workspace.manifest("sae", name)
        sae = load_sae(workspace.path("sae", name))
        check_model(sae, weight_hash(model), allow_other_weights=self.allow_other_weights)
        if int(number) >= sae.d_sae:
            raise ConfigError(f"{name} has the features 0 to {sae.d_sae - 1}, there is no {number}")
        place = sae.hook_point_out or sae.hook_point
        if self.at not in (None, place):
            raise ConfigError(f"{name} writes to {place}, not to {self.at}; leave --at out")
        label = feature_table(workspace, manifest.name).get(int(number), {}).get("label")
        vector = unit_vector(sae.decoder_directions[int(number)])
        source = f"feature {number} of the SAE {name}" + (f", labelled {label!r}" if label else "")
        found = NamedDirection(name=self.name or f"{name} {number}", source=source, hook_point=place, vector=vector)
        return found, parents_of(workspace, [name])


Command = Annotated[Shapes, tyro.conf.subcommand("shapes")] | Annotated[Direction, tyro.conf.subcommand("direction")]


@dataclass(frozen=True)
class Geometry:
    """Measure the geometry of a model's representations: shapes of word lists, and single directions."""

    command: Command

    def run(self) -> Any:
        """Run the subcommand."""
        return self.command.run()
