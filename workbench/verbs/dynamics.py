"""`workbench dynamics ...`: small models trained, and measured while they learn.

- `grok`: addition modulo a prime, from memorising to generalising.
- `induction`: induction heads in a two-layer model, with a one-layer control, or in your own checkpoints.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from interp.artifacts import partial_path
from interp.atlas.vector_map import VectorMap
from interp.options import check_least
from interp.studies.grokking_phases import Grokking, ModularConfig
from workbench.analysis import AnalysisRun, Resumable
from workbench.terminal import Heading, OnDevice, Seeded, Threaded, settings_of, slug

if TYPE_CHECKING:
    from interp.studies.induction_onset import InductionOnset

HEADING = Heading.STUDIES


@dataclass(frozen=True, kw_only=True)
class Grok(ModularConfig, Threaded, OnDevice, Resumable["VectorMap | Grokking"]):
    """Follow grokking: addition modulo a prime, memorised first, generalised later.

    Several seeds train at once. Key frequencies, restricted and excluded loss (Nanda et al. 2023, arXiv 2301.05217)
    show the circuit that forms while test accuracy is still low. Writes grokking/NAME, and atlases/NAME with the
    embedding of the numbers during training.
    """

    words: ClassVar[tuple[str, ...]] = ("dynamics", "grok")
    makes: ClassVar[str] = "grokking"

    def default_name(self) -> str:
        return f"grok-{self.p}"

    def measure(self, run: AnalysisRun) -> list[VectorMap | Grokking]:
        from interp.studies.grokking import describe_grokking, embedding_series, train_modular

        config, maps = settings_of(self, ModularConfig), run.workspace.path("atlas", run.folder.name)
        if not partial_path(run.folder).exists():
            self.check_free(maps)
        run.seed = self.seeds[0]
        state, snapshots = run.training(config) / "state.safetensors", []
        with run.progress("epochs") as progress:
            for snapshot in train_modular(config, device=self.use_device(mps=False), state=state):
                snapshots.append(snapshot)
                progress(snapshot.epoch, self.epochs, {"test accuracy": round(float(snapshot.test_accuracy.mean()), 2)})
        # the maps first: a run that was killed between the two is unfinished then, and made again by the same command
        return [embedding_series(snapshots, config), describe_grokking(snapshots, config)]


@dataclass(frozen=True, kw_only=True)
class FollowInduction(Seeded, Threaded, OnDevice, Resumable["InductionOnset"]):
    """Follow induction heads forming, in a toy with a control, or in checkpoints of your own.

    Example: workbench dynamics induction --checkpoints ./my-training

    The toy has two layers, its control one, which cannot form induction heads. Measures the loss on the second copy of
    a repeated sequence, the scores of the strongest heads, and composition against its null. Takes minutes per seed.
    With --checkpoints, every checkpoint in a folder (checkpoint-500 and so on: models, or peft adapters) is measured,
    next to the model with random weights.
    """

    words: ClassVar[tuple[str, ...]] = ("dynamics", "induction")
    makes: ClassVar[str] = "induction_onset"

    steps: int | None = None
    """Training steps. Default: those of the model's recipe."""
    every: int = 50
    """Steps between two measurements."""
    n_seeds: int = 1
    """Independent runs of each model."""
    control: bool = True
    """Train the one-layer control too."""
    checkpoints: Path | None = None
    """A folder of checkpoints, measured instead of a toy that is trained."""

    def __post_init__(self) -> None:
        check_least(self, {"steps": 1, "every": 1, "n_seeds": 1})

    def default_name(self) -> str:
        return "induction" if self.checkpoints is None else slug(self.checkpoints.expanduser().absolute().name)

    def measure(self, run: AnalysisRun) -> "InductionOnset":
        from interp.studies.induction_emerges import follow_induction
        from interp.studies.induction_onset import InductionOnset, OnsetSettings

        if self.checkpoints is not None:
            return self.measure_checkpoints(run, self.checkpoints)
        specs = ("toy:induction-2l", *(["toy:induction-1l"] if self.control else []))
        settings = OnsetSettings(specs=specs, seeds=self.seed_range(self.n_seeds), steps=self.steps, every=self.every)
        device, training, runs = self.use_device(mps=False), run.training(settings), []
        for spec in specs:
            for seed in settings.seeds:
                state = training / f"{slug(spec)}-{seed}.safetensors"
                with run.progress(f"{spec} seed {seed}", "steps") as progress:
                    onset = follow_induction(
                        spec,
                        seed=seed,
                        steps=self.steps,
                        every=self.every,
                        state=state,
                        device=device,
                        progress=progress,
                    )
                    runs.append(onset)
        return InductionOnset(settings=settings, runs=tuple(runs))

    def measure_checkpoints(self, run: AnalysisRun, folder: Path) -> "InductionOnset":
        """Measure every checkpoint in a folder."""
        from interp.models.small import checkpoints_in
        from interp.studies.induction_emerges import follow_checkpoints
        from interp.studies.induction_onset import UNTRAINED, InductionOnset, OnsetSettings

        checkpoints_in(folder)  # a mistake in its name shows before a draft is begun
        settings = OnsetSettings(specs=(str(folder), UNTRAINED), seeds=(self.seed,), steps=None, every=0)
        finished = run.training(settings)
        with run.progress("checkpoints", "models") as progress:
            runs = follow_checkpoints(folder, seed=self.seed, device=run.device, finished=finished, progress=progress)
        return InductionOnset(settings=settings, runs=runs)
