"""`workbench demo`: the whole pipeline on a real model. Its steps are in `workbench/demo.py`."""

from dataclasses import dataclass

from workbench.terminal import InWorkspace, OnDevice, Seeded, Threaded


@dataclass(frozen=True, kw_only=True)
class Demo(InWorkspace, Seeded, Threaded, OnDevice):
    """Show features, heads, a circuit and maps of SmolLM2-135M, then open the dashboard.

    The dictionary ships with the package, so this takes two minutes on two cores. --train trains one instead (eight
    minutes, three with --quick), --sae takes another. A second run finds what is there and opens the dashboard at once.
    """

    quick: bool = False
    """Fewer tokens, features and prompts."""
    train: bool = False
    """Record, train, describe and map a new dictionary, named `trained`, instead of the one that ships."""
    sae: str | None = None
    """Another dictionary instead: a folder or file of any known format, or hub:OWNER/NAME[/FOLDER]."""
    model: str = "smollm2-135m"
    """The model that --sae belongs to."""
    hook_point: str | None = None
    """Hook point that --sae reads. Default: as stated in its files."""
    serve: bool = True
    """Open the dashboard at the end."""
    browser: bool = True
    """Open the page in the default browser."""
    port: int | None = None
    """Default: 8050, or the next free one."""

    def run(self) -> None:
        from interp.errors import ConfigError
        from workbench.demo import MODEL, run_demo

        if self.sae is not None and self.train:
            raise ConfigError("--train trains a dictionary and --sae takes another; choose one of the two")
        if self.sae is None and (self.model != MODEL or self.hook_point):
            raise ConfigError(
                "--model and --hook-point say where --sae belongs, and there is none; for another model use "
                "`workbench record`"
            )
        run_demo(self)
