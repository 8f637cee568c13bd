"""`workbench geometry MODEL`: which lists of words are circles, lines, clusters or nothing in a model."""

from dataclasses import dataclass

import tyro

from interp.errors import ConfigError
from workbench.options import Options, slug
from workbench.terminal import bar, say, wrote


@dataclass(frozen=True, kw_only=True)
class Geometry(Options):
    """Find the shape of weekdays, months, digits, number words, letters, colours and compass points in a model.

    Example: workbench geometry smollm2-135m --lists weekdays months

    The layer is chosen on half of the sentences and judged on the other half; p-values pay for the search over layers
    and lists. Too few items are refused a verdict, whatever the picture looks like.
    """

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
        from interp.geometry.concepts import find_concepts, own_concept
        from interp.geometry.report import measure_concepts, save_geometry
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
