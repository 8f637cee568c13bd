"""`workbench train RECORDING`: a sparse autoencoder of recorded activations."""

from dataclasses import dataclass, fields
from typing import Literal

import tyro

from saes.config import TrainConfig
from workbench.options import Options
from workbench.terminal import bar, wrote


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig, Options):
    """Learn a dictionary of sparse features from a recording.

    Example: workbench train demo --kind batchtopk --d-sae 4608 --k 32

    The result is in SAELens' format. Interrupted? The same command resumes, to the same weights.
    """

    recording: tyro.conf.Positional[str]
    """Name of a recording in the workspace."""
    hook_point: str | None = None
    """Which of its hook points. Default: its first."""
    kind: Literal["topk", "batchtopk"] = "batchtopk"
    """topk: exactly k features per token; batchtopk: k on average, hard tokens get more."""
    d_sae: int = 4608
    """Number of features to learn."""
    k: int = 32
    """Features active per token."""

    def run(self) -> None:
        from interp.recording.store import Recording
        from saes.config import make_config
        from saes.train import train

        workspace = self.open_workspace()
        self.use_threads()
        sae_config = make_config(self.kind, d_sae=self.d_sae, k=self.k)
        workspace.manifest("recording", self.recording)
        recording = Recording(workspace.path("recording", self.recording))
        hook_point = recording.check_hook_point(self.hook_point or recording.hook_points[0])
        folder = workspace.path("sae", self.name or self.recording)
        with bar("training", "tokens") as progress:
            for metrics in train(
                recording, hook_point, sae_config, self.train_config(), folder, overwrite=self.overwrite
            ):
                health = {"fvu": metrics.fvu, "l0": metrics.l0, "dead": metrics.dead, "dense": metrics.dense}
                progress(metrics.tokens, self.tokens, health)
        wrote(folder, describe_sae(workspace.manifest("sae", folder.name).summary))

    def train_config(self) -> TrainConfig:
        """The training settings among the options."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})


def describe_sae(summary: dict) -> str:
    """The numbers that say how good it is, on held-out documents."""
    heldout = summary["heldout"]
    return (
        f"{summary['d_sae']:,} features; on {heldout['n_tokens']:,} held-out tokens: FVU {heldout['fvu']:.3f} at L0 "
        f"{heldout['l0']:.1f}, {heldout['dead_fraction']:.1%} never fire, {heldout['dense_fraction']:.1%} dense"
    )
