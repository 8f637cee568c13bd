"""`workbench train RECORDING`: sparse dictionaries of activations. `workbench import PATH`: one from elsewhere."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from interp.errors import ConfigError, UnknownNameError
from interp.options import Argument, HookPoint, Means, ModelName, RecordingName
from saes.kinds.config import CONFIGS, SELECTIONS, CrossLayerConfig, SAEConfig, make_config
from saes.kinds.own import own_config, own_kinds
from saes.training.config import TrainConfig
from workbench.analysis import Analysis, AnalysisRun, Resumable
from workbench.first_look import prose_measure
from workbench.terminal import Heading, OnDevice, RunsModel, Threaded, first_bar, say, settings_of, slug

if TYPE_CHECKING:
    from interp.ranks import Ranks
    from interp.recording.store import Recording
    from interp.tracing.graph import AttributionGraph
    from saes.kernels.spread import Spread
    from saes.sets.stored import StoredSet
    from saes.training.stored import StoredSAE


if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(dict.fromkeys((*CONFIGS, *own_kinds())))]  # a new kind of dictionary is not named here

HEADING = Heading.RECORD


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig, Threaded, OnDevice, Resumable["StoredSAE | StoredSet"]):
    """Learn a dictionary of sparse features from a recording.

    Example: workbench train demo --kind batchtopk --d-sae 4608 --k 32

    Several values of --d-sae, --k or --l1-coefficient train one dictionary for each combination, all on one pass over
    the data. Kinds that SAELens knows are saved in its format. An interrupted command resumes when it is repeated, to
    the same weights. Several processes or GPUs train together under `torchrun --nproc-per-node 2 -m workbench train
    ...`.
    """

    makes: ClassVar[str] = "sae"
    ranked: ClassVar[bool] = True

    recording: Annotated[RecordingName, Argument("RECORDING")]
    """Name of a recording in the workspace."""
    others: tuple[RecordingName, ...] = ()
    """Further recordings of the same tokens (those of another model, for example), for a crosscoder."""
    hook_point: tuple[HookPoint, ...] = ()
    """Hook point of the recording; a crosscoder takes several. Default: its first, or all of them for a crosscoder."""
    kind: Kind = "batchtopk"
    """topk: exactly k latents per token; batchtopk: k on average, hard tokens get more; matryoshka: the same, general
    latents first; jumprelu: a threshold per latent; relu, gated: an L1 penalty; transcoder: from one hook point to
    another; crosscoder: one set of latents for several hook points. Kinds of your own are in files that WORKBENCH_KINDS
    names."""
    d_sae: tuple[int, ...] = ()
    """Number of latents. Default: 4,608."""
    k: tuple[int, ...] = ()
    """Latents active per token (all kinds but relu and gated). Default: 32."""
    l1_coefficient: tuple[float, ...] = ()
    """Weight of the L1 penalty (relu, gated). Default: 0.1."""
    target: HookPoint | None = None
    """Hook point that a transcoder reconstructs."""
    skip: bool = False
    """Give a transcoder a linear skip connection."""
    setting: Annotated[tuple[str, ...], Means("NAME=VALUE")] = ()
    """Settings of a kind of your own."""
    share: Literal["tokens", "latents"] = "tokens"
    """Split between processes under torchrun: tokens (each takes its part of every batch), or latents, for a dictionary
    too large for one device (topk, batchtopk)."""
    set: Annotated[str, Means("NAME")] | None = None
    """Train a set of this name instead: transcoders of every layer of a recording made with --hook-points mlps, their
    latents of the given --kind, in one pass through the model."""
    layers: tuple[int, ...] = ()
    """Layers of a set. Default: all that were recorded."""
    cross_layer: bool = False
    """Let latents of a set write to all later layers too (jumprelu or batchtopk; small models)."""

    def writes(self) -> str:
        return "transcoders" if self.set else "sae"

    def default_name(self) -> str:
        return self.set or self._base()

    def _base(self) -> str:
        return self.recording if self.null == "none" else f"{self.recording}-{self.null}"

    def check_free(self, *folders: Path | None) -> None:
        """Raise `ConfigError` as for every verb; a sweep skips its finished dictionaries."""
        if len(self.configs()) == 1:
            super().check_free(*folders)

    def use_device(self, ranks: "Ranks | None" = None, *, mps: bool = False) -> str:
        """Return the device, and print it; nothing is trained on mps by default."""
        return super().use_device(ranks, mps=mps)

    def measure(self, run: AnalysisRun) -> "list[StoredSAE] | list[StoredSet]":
        from interp.ranks import ALONE
        from saes.kernels.spread import Spread
        from saes.sets.stored import StoredSet
        from saes.training.stored import StoredSAE

        ranks = run.ranks or ALONE
        with ranks.checked():
            configs = self.configs()
            recordings = [run.recording(name) for name in (self.recording, *self.others)]
            folders = [run.workspace.path("sae", name) for name in self.folder_names(configs)]
        spread = Spread(latents=ranks) if self.share == "latents" else Spread(tokens=ranks)
        if self.set:
            self._train_set(recordings[0], configs[0], run, spread)
        else:
            self._train(recordings, configs, folders, spread, run.device)
        if not ranks.first:
            return []
        if self.set:
            return [run.workspace.open(StoredSet, self.set)]
        return [run.workspace.open(StoredSAE, folder.name) for folder in folders]

    def _train(
        self,
        recordings: list["Recording"],
        configs: list[SAEConfig],
        folders: list[Path],
        spread: "Spread",
        device: str | None,
    ) -> None:
        from saes.training.run import Job
        from saes.training.train import train_many

        first = recordings[0]
        jobs = [Job(sae=c, train=self.train_config(), folder=f) for c, f in zip(configs, folders, strict=True)]
        title = "training" if len(jobs) == 1 else f"training {len(jobs)} dictionaries"
        steps = train_many(
            recordings,
            self.hook_points(first),
            jobs,
            overwrite=self.overwrite,
            resume_sweep=len(jobs) > 1,
            device=device,
            spread=spread,
            measure_prose=None if first.planted else prose_measure(first.model, first.weight_hash),
        )
        reached: dict[Path, int] = {}
        with first_bar(spread.ranks, title, "tokens") as progress:
            for job, metrics in steps:
                reached[job.folder] = metrics.tokens
                health = {"fvu": metrics.fvu, "l0": metrics.l0, "dead": metrics.dead, "dense": metrics.dense}
                progress(min(reached.values()), self.tokens, health)

    def _train_set(self, recording: "Recording", config: SAEConfig, run: AnalysisRun, spread: "Spread") -> None:
        from saes.sets.stored import SetTraining
        from saes.sets.train import training

        steps = training(
            recording,
            SetTraining(config, self.train_config(), skip=self.skip, layers=self.layers, writes=self.target or ""),
            run.folder,
            overwrite=self.overwrite,
            device=run.device,
            spread=spread,
            report=say,
        )
        with run.progress(f"training the set {self.set}", "tokens") as progress:
            for layer, metrics in steps:
                health = {"layer": layer, "fvu": metrics.fvu, "l0": metrics.l0, "dead": metrics.dead}
                progress(metrics.tokens, self.tokens, {k: v for k, v in health.items() if layer >= 0 or k != "layer"})

    def configs(self) -> list[SAEConfig]:
        """Return the settings of every dictionary, or those of a set's latents. Raises as the two functions do."""
        return [self.set_config()] if self.set else self.sae_configs()

    def set_config(self) -> SAEConfig:
        """Return the config of a set's latents. Raises `ConfigError` for options that a set lacks."""
        if self.others or self.hook_point or self.name or self.share == "latents":
            raise ConfigError("a set has one recording, --set as its name, and shares tokens only; leave out "
                              "--others, --hook-point, --name and --share")  # fmt: skip
        if any(len(getattr(self, name)) > 1 for name in SWEPT):
            raise ConfigError("a set has one value of --d-sae, --k and --l1-coefficient; train several sets")
        if not self.cross_layer:
            if self.kind not in SELECTIONS:
                raise UnknownNameError("kind of a set's latents", self.kind, SELECTIONS)
            return replace(self, target=None, skip=False).sae_configs()[0]
        if self.kind not in ("jumprelu", "batchtopk"):
            raise UnknownNameError("kind of a cross-layer set's latents", self.kind, ["jumprelu", "batchtopk"])
        d_sae = self.d_sae[0] if self.d_sae else CrossLayerConfig.d_sae
        k = self.k[0] if self.k else CrossLayerConfig.k
        return CrossLayerConfig(d_sae=d_sae, k=k, selection=self.kind)

    def train_config(self) -> TrainConfig:
        """Return the training settings among the options."""
        return settings_of(self, TrainConfig)

    def sae_configs(self) -> list[SAEConfig]:
        """Return one config per combination of values. Raises `ConfigError` for a setting that the kind lacks."""
        settings: dict[str, object] = {"target": self.target} if self.target else {}
        settings |= {"skip": True} if self.skip else {}
        swept = {"d_sae": self.d_sae, "k": self.k, "l1_coefficient": self.l1_coefficient}
        several = {name: values for name, values in swept.items() if values}
        own = self.kind in own_kinds()
        if self.setting and not own:
            raise ConfigError(f"--setting is for a kind of your own, and {self.kind} is none; leave it out")
        make = partial(own_config if own else make_config, self.kind)
        settings |= dict(self._setting(assignment) for assignment in self.setting)
        return [make(**settings, **dict(zip(several, values, strict=True))) for values in product(*several.values())]

    def _setting(self, assignment: str) -> tuple[str, str]:
        name, equals, value = assignment.partition("=")
        if not equals or hasattr(self, name):
            raise ConfigError(f"--setting takes NAME=VALUE of a setting that is not an option, got {assignment!r}")
        return name, value

    def folder_names(self, configs: list[SAEConfig]) -> list[str]:
        """Return one name per config, with the values that vary in a sweep: `demo-d4608-k16`."""
        base = self.name or self._base()
        varied = {name: short for name, short in SWEPT.items() if len(getattr(self, name)) > 1}
        settings = [{**vars(config), **getattr(config, "settings", {})} for config in configs]
        return ["-".join([base, *(f"{s}{values[n]:g}" for n, s in varied.items())]) for values in settings]

    def hook_points(self, recording: "Recording") -> list[str]:
        """Return the hook points to train on."""
        if self.kind == "crosscoder":
            return list(self.hook_point or recording.hook_points)
        return list(self.hook_point or recording.hook_points[:1])


SWEPT = {"d_sae": "d", "k": "k", "l1_coefficient": "l1-"}
"""Options that may have several values, and their abbreviation in a folder's name."""


@dataclass(frozen=True, kw_only=True)
class Import(Threaded, RunsModel, Analysis["StoredSAE | StoredSet | AttributionGraph"]):
    """Import an SAE or transcoder from SAELens, sparsify, Gemma Scope and others.

    Example: workbench import checkpoints/layers.9 --model smollm2-135m --hook-point blocks.9.hook_resid_post

    The format is recognised from the files. The reconstructions are compared with those of the source's own forward
    pass, and compared again whenever the dictionary is loaded or verified. A FILE.json is an attribution graph, of this
    workbench, Neuronpedia or circuit-tracer; it needs no model.
    """

    makes: ClassVar[str] = "sae"
    on_page: ClassVar[bool] = False

    path: Annotated[str, Argument("PATH")]
    """Folder or file of the checkpoint, hub:OWNER/NAME[/FOLDER], a name of SAELens (RELEASE/ID), or FILE.json of a
    graph."""
    model: ModelName = ""
    """Model whose activations a dictionary was trained on: a name as for `workbench record`."""
    hook_point: HookPoint | None = None
    """Hook point that it encodes. Default: as stated in its files."""
    hook_point_out: HookPoint | None = None
    """Hook point that a transcoder reconstructs. Default: as stated in its files."""
    format: Annotated[str, Means("FORMAT")] | None = None
    """Format to read it as. Default: recognised from the files."""
    set: Annotated[str, Means("NAME")] | None = None
    """Import transcoders of all layers, from their folder, as a set of this name. Hook points are then
    those inside a block: mlp.hook_in, hook_mlp_out."""
    l0: int | None = None
    """For a set: where a layer has several dictionaries, take the one whose stated sparsity is nearest to this."""
    allow_mismatch: bool = False
    """Import although the files name another model or hook point."""

    def writes(self) -> str:
        if self.is_graph:
            return "attribution_graph"
        return "transcoders" if self.set else "sae"

    @property
    def is_graph(self) -> bool:
        """True for a graph, False for dictionaries."""
        return self.path.endswith(".json")

    def default_name(self) -> str:
        path = Path(self.path)
        known = path.suffix in (".json", ".pt", ".npz", ".safetensors")
        return self.set or slug(path.stem if known or path.is_file() else path.name)

    def measure(self, run: AnalysisRun) -> "StoredSAE | StoredSet | AttributionGraph":
        from saes.weights.importing import checkpoint_path
        from saes.weights.read import find_format

        path = checkpoint_path(self.path)
        if self.is_graph:
            from dashboard.graph.exchange import take_in
            from interp.tracing.graph import AttributionGraph

            made = take_in(run.workspace, path, run.folder.name, overwrite=self.overwrite)
            return run.workspace.open(AttributionGraph, made.name)
        if not self.model:
            graph = " (a graph in .pt holds pickled objects, which can run any code: export it as JSON)"
            raise ConfigError(f"a dictionary needs --model MODEL{graph if path.suffix == '.pt' else ''}")
        if self.set:
            return self._set(run, path)
        find_format(path, self.format)  # fails before a model is loaded
        return self._dictionary(run, path)

    def _dictionary(self, run: AnalysisRun, path: Path) -> "StoredSAE":
        from interp.models.adapter import available_hook_points
        from interp.names import check_hook_points
        from interp.recording.record import probe_widths
        from saes.evaluation.dictionary_checks import scores_on_prose
        from saes.training.stored import import_dictionary
        from saes.weights.importing import Origin

        model = run.model(self.model)
        available, n_layers = available_hook_points(model), model.cfg.n_layers
        return import_dictionary(
            path,
            run.folder,
            Origin(
                model=self.model,
                weight_hash=run.weight_hash(self.model),
                hook_point=self.hook_point or "",
                hook_point_out=self.hook_point_out or "",
            ),
            measure_widths=lambda names: probe_widths(model, check_hook_points(names, available, n_layers)),
            measure_prose=lambda sae: scores_on_prose(sae.to(model.cfg.device), model),
            format=self.format,
            allow_mismatch=self.allow_mismatch,
            overwrite=self.overwrite,
        )

    def _set(self, run: AnalysisRun, path: Path) -> "StoredSet":
        from saes.sets.importing import SetOrigin, find_layers, import_set

        find_layers(path, l0=self.l0)  # fails before a model is loaded
        origin = SetOrigin(model=self.model, reads=self.hook_point or "", writes=self.hook_point_out or "")
        return import_set(
            path,
            run.folder,
            run.model(self.model),
            origin,
            l0=self.l0,
            format=self.format,
            allow_mismatch=self.allow_mismatch,
            overwrite=self.overwrite,
        )
