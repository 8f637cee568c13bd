"""`workbench dynamics ...`: train a toy and watch what forms in it."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import tyro

from interp.errors import ConfigError
from workbench.terminal import Options, bar, say, wrote


@dataclass(frozen=True, kw_only=True)
class Grok(Options):
    """Addition modulo a prime, learned by heart first and understood later.

    Three seeds train at once; key frequencies, restricted and excluded loss say what forms inside while the test still
    fails. Writes dynamics/NAME and atlases/NAME, the numbers' embedding over training.
    """

    words: ClassVar[tuple[str, ...]] = ("dynamics", "grok")

    p: int = 37
    """The modulus, a prime."""
    epochs: int = 800
    """Passes over the training pairs, at most; it ends 140 after the last seed has understood."""
    weight_decay: float = 1.0
    """0 memorises and stays there."""
    n_seeds: int = 3

    def run(self) -> None:
        from interp.studies.grokking import ModularConfig, describe_grokking, train_modular
        from interp.studies.save import embedding_series, save_grokking

        workspace = self.open_workspace()
        self.use_threads()
        name = self.name or f"grok-{self.p}"
        seeds = tuple(range(self.seed, self.seed + self.n_seeds))
        config = ModularConfig(p=self.p, epochs=self.epochs, weight_decay=self.weight_decay, seeds=seeds)
        snapshots = []
        with bar("epochs", "") as progress:
            for snapshot in train_modular(config):
                snapshots.append(snapshot)
                progress(snapshot.epoch, self.epochs, {"test accuracy": round(float(snapshot.test_accuracy.mean()), 2)})
        found = describe_grokking(snapshots, config)
        manifest = save_grokking(found, workspace.path("dynamics", name), seed=self.seed, overwrite=self.overwrite)
        wrote(
            workspace.path("dynamics", name), f"{sum(phase.grokked for phase in found.phases)} of {len(seeds)} grokked"
        )
        for run in manifest.summary["runs"]:
            say(f"      {describe_run(run)}")
        embedding_series(snapshots, found, workspace.path("atlas", name), overwrite=self.overwrite)
        wrote(workspace.path("atlas", name), "the numbers' embedding over training, in one frame")


@dataclass(frozen=True, kw_only=True)
class Form(Options):
    """A two-layer toy until induction heads form, beside its one-layer twin, which cannot.

    Loss on the second copy, scores of the strongest heads, and composition against its null; minutes per seed.
    """

    words: ClassVar[tuple[str, ...]] = ("dynamics", "induction")

    steps: int | None = None
    """Training steps. Default: the recipe's."""
    every: int = 50
    """Steps between two measurements."""
    n_seeds: int = 1
    control: bool = True
    """Train the one-layer twin too."""

    def run(self) -> None:
        from interp.studies.induction_emerges import follow_induction
        from interp.studies.save import save_induction_runs

        workspace = self.open_workspace()
        self.use_threads()
        specs = ["toy:induction-2l", *(["toy:induction-1l"] if self.control else [])]
        runs = []
        for spec in specs:
            for seed in range(self.seed, self.seed + self.n_seeds):
                with bar(f"{spec} seed {seed}", "steps") as progress:
                    runs.append(
                        follow_induction(spec, seed=seed, steps=self.steps, every=self.every, progress=progress)
                    )
        folder = workspace.path("dynamics", self.name or "induction")
        save_induction_runs(runs, folder, overwrite=self.overwrite)
        wrote(folder, f"{len(runs)} runs")
        for run in runs:
            where = "does not begin to copy" if run.onset is None else f"begins to copy at step {run.onset:.0f}"
            beside = "" if run.together is None else f", within {run.together:.0f} steps of its heads' induction score"
            say(f"      {run.spec} seed {run.seed}: {where}{beside}; induction {run.curves['induction'][-1]:.2f}")


@dataclass(frozen=True, kw_only=True)
class Scale(Options):
    """Language models of several sizes on the same text, and the law by which their loss falls.

    Bytes of documents, each seen once; L = E + A / N^alpha + B / D^beta over parameters N and tokens D, with intervals
    and the largest size predicted from the smaller. Some four minutes on two cores.
    """

    words: ClassVar[tuple[str, ...]] = ("dynamics", "scaling")

    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 96)
    """Widths of the residual stream, multiples of 8; at least four."""
    tokens: int = 2_000_000
    """Bytes that each model sees."""
    n_seeds: int = 2
    corpus: str = "docstrings"
    """As for `workbench record`."""

    def run(self) -> None:
        from interp.studies.language_models import ScalingRecipe, train_language_models
        from interp.studies.language_scaling import fit_language_scaling
        from interp.studies.save import save_language_scaling
        from interp.text.corpora import open_corpus

        workspace = self.open_workspace()
        self.use_threads()
        folder = workspace.path("dynamics", self.name or "scaling")
        if folder.exists() and not self.overwrite:
            raise ConfigError(f"{folder} is already there; choose another --name, or --overwrite to replace it")
        seeds = tuple(range(self.seed, self.seed + self.n_seeds))
        recipe = ScalingRecipe(widths=self.widths, tokens=self.tokens, seeds=seeds)
        corpus = open_corpus(self.corpus, seed=self.seed)
        with bar("models", "steps") as progress:
            runs = list(train_language_models(corpus, recipe, progress=progress))
        found = fit_language_scaling(runs, seed=self.seed)
        save_language_scaling(found, recipe, corpus.hash, folder, seed=self.seed, overwrite=self.overwrite)
        wrote(folder, f"{len(runs)} models of {runs[0].n_params:,} to {runs[-1].n_params:,} parameters")
        for sentence in found.findings:
            say(f"      {sentence}")


def describe_run(run: dict[str, Any]) -> str:
    """One seed in a line."""
    if not run["grokked"]:
        return (
            f"seed {run['seed']}: did not grok (memorised at {run['memorised']}, generalised at {run['generalised']})"
        )
    restricted, excluded = run["formed_unseen"]
    inside = f"restricted loss {restricted:+.2f}, excluded {excluded:+.2f} nats"
    return (
        f"seed {run['seed']}: by heart at epoch {run['memorised']:.0f}, test above .3 at {run['generalising']:.0f}, "
        f"above .99 at {run['generalised']:.0f}; in between {inside}; "
        f"frequencies {', '.join(map(str, run['keys']))}"
    )


Command = (
    Annotated[Grok, tyro.conf.subcommand("grok")]
    | Annotated[Form, tyro.conf.subcommand("induction")]
    | Annotated[Scale, tyro.conf.subcommand("scaling")]
)


@dataclass(frozen=True)
class Dynamics:
    """Train toys and watch what forms in them: grokking, induction heads, a scaling law."""

    command: Command

    def run(self) -> Any:
        """Run the subcommand."""
        return self.command.run()
