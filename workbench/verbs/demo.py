"""`workbench demo`: the whole pipeline on a real model; the story is told in `workbench/demo.py`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Record SmolLM2-135M, learn its features, score its heads, map it, and open the dashboard.

    Some eight minutes on two cores, three with --quick. A second run finds what is there and serves at once.
    """

    workspace: Path = Path("workspace")
    """Where everything is kept."""
    quick: bool = False
    """Smaller everything."""
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
        from workbench.demo import run_demo

        run_demo(self)
