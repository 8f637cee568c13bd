"""`workbench dynamics ...`: small models trained, and measured while they learn.

- `grok`: addition modulo a prime, from memorising to generalising.
- `induction`: induction heads in a two-layer model, with a one-layer control.
- `scaling`: the loss of language models against parameters and tokens.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from interp.artifacts import partial_path
from interp.errors import ConfigError
from interp.options import Corpus
from interp.studies.config import ModularConfig, ScalingRecipe
from workbench.terminal import OnDevice, Seeded, Threaded, Writes, bar, say, settings_of, slug, wrote


@dataclass(frozen=True, kw_only=True)
class Grok(ModularConfig, Writes, Threaded, OnDevice):
    """Follow grokking: addition modulo a prime, memorised first, generalised later.

    Several seeds train at once. Key frequencies, restricted and excluded loss (Nanda et al. 2023, arXiv 2301.05217)
    show the circuit that forms while test accuracy is still low. Writes grokking/NAME, and atlases/NAME with the
    embedding of the numbers during training.
    """

    words: ClassVar[tuple[str, ...]] = ("dynamics", "grok")

    def run(self) -> None:
        from interp.studies.grokking import describe_grokking, train_modular
        from interp.studies.save import TRAINING, embedding_series, grokking_config, open_study, save_grokking

        workspace = self.open_workspace()
        self.use_threads()
        name = self.name or f"grok-{self.p}"
        folder, maps = workspace.path("grokking", name), workspace.path("atlas", name)
        self.check_free(folder)
        config, device = settings_of(self, ModularConfig), self.use_device(mps=False)
        seed, overwrite = self.seeds[0], self.overwrite
        if not partial_path(folder).exists():
            self.check_free(maps)
        draft = open_study(folder, "grokking", grokking_config(config), seed=seed, overwrite=overwrite)
        snapshots = []
        with bar("epochs", "") as progress:
            for snapshot in train_modular(config, device=device, state=draft.path / TRAINING / "state.safetensors"):
                snapshots.append(snapshot)
                progress(snapshot.epoch, self.epochs, {"test accuracy": round(float(snapshot.test_accuracy.mean()), 2)})
        found = describe_grokking(snapshots, config)
        # the maps first: a run that was killed between the two is unfinished then, and made again by the same command
        embedding_series(snapshots, found, maps, overwrite=overwrite or draft.resumed)
        manifest = save_grokking(found, folder, seed=seed, overwrite=overwrite)
        wrote(
            folder,
            f"{sum(phase.grokked for phase in found.phases)} of {len(self.seeds)} grokked",
        )
        for run in manifest.summary["runs"]:
            say(f"      {describe_run(run)}")
        wrote(maps, "the numbers' embedding over training, in one frame")


@dataclass(frozen=True, kw_only=True)
class Form(Writes, Seeded, Threaded, OnDevice):
    """Follow induction heads forming in a two-layer toy, with a one-layer control.

    Measures the loss on the second copy of a repeated sequence, the scores of the strongest heads, and composition
    against its null. A one-layer model cannot form induction heads. Takes minutes per seed.
    """

    words: ClassVar[tuple[str, ...]] = ("dynamics", "induction")

    steps: int | None = None
    """Training steps. Default: those of the model's recipe."""
    every: int = 50
    """Steps between two measurements."""
    n_seeds: int = 1
    """Independent runs of each model."""
    control: bool = True
    """Train the one-layer control too."""

    def __post_init__(self) -> None:
        if min(self.every, self.n_seeds) < 1 or (self.steps is not None and self.steps < 1):
            raise ConfigError(
                f"steps, every and n_seeds must be at least 1, got {self.steps}, {self.every} and {self.n_seeds}"
            )

    def run(self) -> None:
        from interp.studies.induction_emerges import follow_induction
        from interp.studies.save import TRAINING, open_study, save_induction_runs

        workspace = self.open_workspace()
        self.use_threads()
        folder = workspace.path("induction_onset", self.name or "induction")
        self.check_free(folder)
        device = self.use_device(mps=False)
        specs = ["toy:induction-2l", *(["toy:induction-1l"] if self.control else [])]
        seeds = self.seed_range(self.n_seeds)
        options: dict[str, Any] = {"steps": self.steps, "every": self.every}
        config = {"kind": "induction", "specs": specs, "seeds": list(seeds), **options}
        draft = open_study(folder, "induction_onset", config, seed=self.seed, overwrite=self.overwrite)
        runs = []
        for spec in specs:
            for seed in seeds:
                state = draft.path / TRAINING / f"{slug(spec)}-{seed}.safetensors"
                with bar(f"{spec} seed {seed}", "steps") as progress:
                    runs.append(
                        follow_induction(spec, seed=seed, device=device, progress=progress, state=state, **options)
                    )
        save_induction_runs(runs, folder, config=config, overwrite=self.overwrite)
        wrote(folder, f"{len(runs)} runs")
        for run in runs:
            where = "does not begin to copy" if run.onset is None else f"begins to copy at step {run.onset:.0f}"
            timing = "" if run.together is None else f", within {run.together:.0f} steps of its heads' induction score"
            say(f"      {run.spec} seed {run.seed}: {where}{timing}; induction {run.curves['induction'][-1]:.2f}")


@dataclass(frozen=True, kw_only=True)
class Scale(ScalingRecipe, Writes, Threaded, OnDevice):
    """Fit a scaling law to language models of several sizes trained here.

    The models read bytes of the same documents, each once. The law is L = E + A / N^alpha + B / D^beta over parameters
    N and tokens D (Hoffmann et al. 2022, arXiv 2203.15556), with intervals and the largest size predicted from the
    smaller ones. Takes four minutes on two cores.
    """

    words: ClassVar[tuple[str, ...]] = ("dynamics", "scaling")

    corpus: Corpus = "docstrings"
    """Text to train on, as for `workbench record`."""

    def run(self) -> None:
        from interp.studies.language_scaling import fit_language_scaling, train_language_models
        from interp.studies.save import TRAINING, open_study, save_language_scaling, scaling_config
        from interp.text.corpora import open_corpus

        workspace = self.open_workspace()
        self.use_threads()
        folder = workspace.path("language_scaling", self.name or "scaling")
        self.check_free(folder)
        recipe, seed, device = settings_of(self, ScalingRecipe), self.seeds[0], self.use_device(mps=False)
        corpus = open_corpus(self.corpus, seed=seed)
        config = scaling_config(recipe, corpus.hash)
        draft = open_study(folder, "language_scaling", config, seed=seed, overwrite=self.overwrite)
        kept = draft.path / TRAINING
        with bar("models", "steps") as progress:
            runs = list(train_language_models(corpus, recipe, device=device, progress=progress, folder=kept))
        found = fit_language_scaling(runs, seed=seed)
        save_language_scaling(found, recipe, corpus.hash, folder, seed=seed, overwrite=self.overwrite)
        wrote(folder, f"{len(runs)} models of {runs[0].n_params:,} to {runs[-1].n_params:,} parameters")
        for sentence in found.findings:
            say(f"      {sentence}")


def describe_run(run: dict[str, Any]) -> str:
    """Return one line on the run of one seed."""
    if not run["grokked"]:
        return (
            f"seed {run['seed']}: did not grok (memorised at {run['memorised']}, generalised at {run['generalised']})"
        )
    restricted, excluded = run["formed_unseen"]
    inside = f"restricted loss {restricted:+.2f}, excluded {excluded:+.2f} nats"
    return (
        f"seed {run['seed']}: memorised at epoch {run['memorised']:.0f}, test above .3 at {run['generalising']:.0f}, "
        f"above .99 at {run['generalised']:.0f}; in between {inside}; "
        f"frequencies {', '.join(map(str, run['keys']))}"
    )
