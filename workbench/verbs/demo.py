"""`workbench demo`: the whole pipeline on a real model; the story is told in `workbench/demo.py`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Demo:
    """SmolLM2-135M: a dictionary of its features with their maps, its heads, a circuit proved; then the dashboard.

    The dictionary ships with the package, so this takes two minutes on two cores. --train makes one from nothing (eight
    minutes, three with --quick), --sae takes another. A second run finds what is there and serves at once.
    """

    workspace: Path = Path("workspace")
    """Where everything is kept."""
    quick: bool = False
    """Smaller everything."""
    train: bool = False
    """Record, train, describe and map from nothing, as `trained`, instead of the dictionary that ships."""
    sae: str | None = None
    """Another dictionary instead: a folder or file of any known format, or hub:OWNER/NAME[/FOLDER]."""
    model: str = "smollm2-135m"
    """The model that --sae belongs to."""
    hook_point: str | None = None
    """Where --sae reads. Default: what its files say."""
    serve: bool = True
    """Open the dashboard at the end; --no-serve leaves it."""
    browser: bool = True
    """Open the page in the default browser."""
    port: int | None = None
    """Default: 8050, or the next free one."""
    seed: int = 0
    """Every random number follows from this."""
    threads: int | None = None
    """CPU threads. Default: all cores."""

    def run(self) -> None:
        from interp.errors import ConfigError
        from workbench.demo import MODEL, run_demo

        if self.sae is not None and self.train:
            raise ConfigError("--train makes a dictionary and --sae takes one; choose")
        if self.sae is None and (self.model != MODEL or self.hook_point):
            raise ConfigError(
                "--model and --hook-point say where --sae belongs; for another model use `workbench record`"
            )
        run_demo(self)
