"""`workbench train RECORDING`: sparse dictionaries of recorded activations, one or several at once."""

from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from saes.config import SAEConfig, TrainConfig, make_config
from workbench.options import Options
from workbench.ranks import first_bar, together
from workbench.terminal import wrote

if TYPE_CHECKING:
    from interp.recording.store import Recording
    from saes.kernels.spread import Spread
    from saes.trackers import Tracker

Kind = Literal["topk", "batchtopk", "matryoshka", "jumprelu", "relu", "gated", "transcoder", "crosscoder"]


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig, Options):
    """Learn a dictionary of sparse features from a recording.

    Example: workbench train demo --kind batchtopk --d-sae 4608 --k 32

    Several values of --d-sae, --k or --l1-coefficient train one dictionary for each combination on a single reading
    of the data. Kinds that SAELens knows are saved in its format. Interrupted? The same command resumes, to the same
    weights. Several processes or GPUs train together under `torchrun --nproc-per-node 2 -m workbench train ...`.
    """

    recording: tyro.conf.Positional[str]
    """Name of a recording in the workspace."""
    others: tuple[str, ...] = ()
    """Further recordings of the same tokens, of other models say, for a crosscoder."""
    hook_point: tuple[str, ...] = ()
    """Which of its hook points; a crosscoder takes several. Default: its first, or all of them for a crosscoder."""
    kind: Kind = "batchtopk"
    """topk: exactly k features per token; batchtopk: k on average, hard tokens get more; matryoshka: the same, general
    features first; jumprelu: a threshold per feature; relu, gated: sparse by an L1 penalty; transcoder: from one hook
    point to another; crosscoder: one set of features for several places."""
    d_sae: tuple[int, ...] = ()
    """Number of features to learn. Default: 4,608."""
    k: tuple[int, ...] = ()
    """Features active per token (all kinds but relu and gated). Default: 32."""
    l1_coefficient: tuple[float, ...] = ()
    """Weight of the L1 penalty (relu, gated, crosscoder with --sparsity l1). Default: 0.1."""
    target: str | None = None
    """Hook point that a transcoder reconstructs."""
    skip: bool = False
    """Give a transcoder a linear path beside its features."""
    sparsity: Literal["quadratic", "tanh", "batchtopk", "l1"] | None = None
    """Of jumprelu: quadratic (default) or tanh; of a crosscoder: batchtopk (default) or l1."""
    prefixes: tuple[float, ...] = ()
    """Nested prefixes of a matryoshka dictionary, as shares of its size. Default: 1/16, 1/8, 1/4, 1/2."""
    share: Literal["tokens", "latents"] = "tokens"
    """What processes under torchrun share: tokens (each takes its part of every batch), or latents, for a dictionary
    too large for one device (topk, batchtopk)."""
    tracker: str | None = None
    """Send health lines to tensorboard:FOLDER or wandb:PROJECT as well."""

    def run(self) -> None:
        from saes.kernels.spread import Spread
        from saes.trackers import open_tracker

        with together() as ranks:
            with ranks.checked():
                workspace = self.open_workspace()
                self.use_threads()
                configs = self.sae_configs()
                recordings = [self._open(name) for name in (self.recording, *self.others)]
                folders = [workspace.path("sae", name) for name in self.folder_names(configs)]
                tracker = open_tracker(self.tracker) if self.tracker and ranks.first else None
            spread = Spread(latents=ranks) if self.share == "latents" else Spread(tokens=ranks)
            self._train(recordings, configs, folders, tracker, spread)
            if tracker:
                tracker.close()
            if ranks.first:
                for folder in folders:
                    wrote(folder, describe_sae(workspace.manifest("sae", folder.name).summary))

    def _train(
        self,
        recordings: list["Recording"],
        configs: list[SAEConfig],
        folders: list[Path],
        tracker: "Tracker | None",
        spread: "Spread",
    ) -> None:
        from saes.run import Job
        from saes.train import train_many

        jobs = [Job(sae=c, train=self.train_config(), folder=f) for c, f in zip(configs, folders, strict=True)]
        title = "training" if len(jobs) == 1 else f"training {len(jobs)} dictionaries"
        how: dict[str, Any] = {"overwrite": self.overwrite, "resume_sweep": len(jobs) > 1, "spread": spread}
        reached: dict[Path, int] = {}
        with first_bar(spread.ranks, title, "tokens") as progress:
            for job, metrics in train_many(recordings, self.places(recordings[0]), jobs, **how):
                reached[job.folder] = metrics.tokens
                health = {"fvu": metrics.fvu, "l0": metrics.l0, "dead": metrics.dead, "dense": metrics.dense}
                progress(min(reached.values()), self.tokens, health)
                if tracker:
                    tracker.log(job.folder.name, metrics)

    def train_config(self) -> TrainConfig:
        """The training settings among the options."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})

    def sae_configs(self) -> list[SAEConfig]:
        """One config per combination of the values given. Raises `ConfigError` for what the kind does not have."""
        same: dict[str, Any] = {"target": self.target, "skip": self.skip or None, "sparsity": self.sparsity}
        same["prefixes"] = self.prefixes or None
        given = {name: value for name, value in same.items() if value is not None}
        several = {name: values for name in SWEPT if (values := getattr(self, name))}
        return [
            make_config(self.kind, **given, **dict(zip(several, values, strict=True)))
            for values in product(*several.values())
        ]

    def folder_names(self, configs: list[SAEConfig]) -> list[str]:
        """The name, with the values that tell the dictionaries of a sweep apart: `demo-d4608-k16`."""
        base = self.name or self.recording
        varied = {name: short for name, short in SWEPT.items() if len(getattr(self, name)) > 1}
        return ["-".join([base, *(f"{s}{getattr(config, n):g}" for n, s in varied.items())]) for config in configs]

    def places(self, recording: "Recording") -> list[str]:
        """The hook points to read."""
        if self.kind == "crosscoder":
            return list(self.hook_point or recording.hook_points)
        return list(self.hook_point or recording.hook_points[:1])

    def _open(self, name: str) -> "Recording":
        from interp.recording.live import open_recording

        workspace = self.open_workspace()
        workspace.manifest("recording", name)
        return open_recording(workspace.path("recording", name))


SWEPT = {"d_sae": "d", "k": "k", "l1_coefficient": "l1-"}
"""Options that may have several values, and how they are written in a folder's name."""


def describe_sae(summary: dict) -> str:
    """The numbers that say how good it is, on held-out documents."""
    heldout = summary["heldout"]
    return (
        f"{summary['d_sae']:,} features; on {heldout['n_tokens']:,} held-out tokens: FVU {heldout['fvu']:.3f} at L0 "
        f"{heldout['l0']:.1f}, {heldout['dead_fraction']:.1%} never fire, {heldout['dense_fraction']:.1%} dense"
    )
