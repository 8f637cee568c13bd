"""The Jacobian lens that ships: `python -m tools.lens`, a quarter of an hour on two cores.

It is fitted on text sampled from the model itself (`tools/text/`), in a seeded order, and replaces the one in
`workbench/shipped/data/`. An interrupted command resumes when it is repeated.
"""

from dataclasses import dataclass
from pathlib import Path

from interp.workspace import Workspace
from tools import run_tool
from tools.build import KINDS, pack, write_corpus
from tools.sources import sampled
from workbench.demo import DATA, MODEL
from workbench.steps import WorkspaceStep, run_step
from workbench.terminal import InWorkspace, OnDevice, Seeded, Threaded
from workbench.verbs.heads import FitLens

CORPUS = "shipped-sampled.jsonl"


@dataclass(frozen=True, kw_only=True)
class ShippedLens(InWorkspace, Seeded, Threaded, OnDevice):
    """Fit the Jacobian lens that ships with the package."""

    rounds: int = 30
    """Rounds of the fit."""
    heldout_positions: int = 1_024
    """Held-out tokens that measure it."""
    chars: int = 46_000_000
    """Characters of which the sampled text is its share, as in the recipe of the dictionary."""
    data: Path = DATA
    """Folder that the finished lens is copied into."""

    def run(self) -> None:
        workspace = Workspace(self.workspace, create=True)
        corpus = workspace.root / CORPUS
        if not corpus.exists():
            assert KINDS["sampled"].ships
            write_corpus(corpus, {"sampled": sampled()}, chars=self.chars, seed=self.seed)
        options = {"workspace": self.workspace, "threads": self.threads, "device": self.device, "seed": self.seed}
        lens = FitLens(model=MODEL, name=MODEL, kind="jacobian", corpus=str(corpus), rounds=self.rounds,
                       heldout_positions=self.heldout_positions, **options)  # fmt: skip
        run_step(workspace, WorkspaceStep("Fit the Jacobian lens", "On text of the model itself.", lens), "1/1")
        pack(workspace, [("jacobian_lens", MODEL)], self.data)


if __name__ == "__main__":
    run_tool(ShippedLens)
