"""`workbench record MODEL`: activations on text, written to disk. `workbench models`: models that load by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from interp.options import Corpus, HookPoint
from interp.recording.config import RecordConfig
from workbench.terminal import (
    ModelArgument,
    OnDevice,
    Threaded,
    Verb,
    Writes,
    first_bar,
    joined_ranks,
    say,
    settings_of,
    slug,
    wrote,
)

MLPS = "mlps"
"""Name for the inputs and outputs of all MLPs."""


@dataclass(frozen=True, kw_only=True)
class Record(RecordConfig, Writes, Threaded, OnDevice):
    """Run a model over text and write its activations at chosen hook points.

    Example: workbench record smollm2-135m --hook-points blocks.9.hook_resid_post --tokens 300000

    An interrupted command resumes when it is repeated, to the same bytes. Several processes or GPUs share the work
    under `torchrun --nproc-per-node 2 -m workbench record ...`, to the same bytes too.
    """

    model: ModelArgument
    hook_points: Annotated[tuple[HookPoint, ...], tyro.conf.arg(aliases=["--hook-point"])] = ()
    """Hook points to record, all in one pass; `mlps`: inputs and outputs of all MLPs, as a set of transcoders reads
    them. Default: the residual stream after a third of the blocks."""
    corpus: Corpus = "docstrings"
    """`docstrings` (prose of the installed packages, offline), a .txt, .jsonl or .parquet file, or hub:NAME."""
    compute: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the model's computation, --dtype of other verbs; here --dtype is that of the stored activations."""
    budget_gb: float | None = None
    """Refuse to write more gigabytes than this."""

    def run(self) -> None:
        from interp.models.adapter import mlp_hook_points
        from interp.models.loading import load_model
        from interp.recording.record import record
        from interp.text.corpora import open_corpus

        with joined_ranks() as ranks:
            with ranks.checked():
                workspace = self.open_workspace()
                self.use_threads()
                folder = workspace.path("recording", self.name or slug(self.model))
                self.check_free(folder)
                corpus = open_corpus(self.corpus, seed=self.seed)
                model = load_model(self.model, dtype=self.compute, device=self.use_device(ranks))
                default = [f"blocks.{max(model.cfg.n_layers // 3 - 1, 0)}.hook_resid_post"]
                hook_points = list(self.hook_points) or default
                if MLPS in hook_points:
                    at = hook_points.index(MLPS)
                    hook_points[at : at + 1] = mlp_hook_points(model)
            with first_bar(ranks, "recording", "tokens") as progress:
                manifest = record(
                    model,
                    corpus,
                    folder,
                    settings_of(self, RecordConfig),
                    hook_points=hook_points,
                    model_name=self.model,
                    budget_bytes=None if self.budget_gb is None else int(self.budget_gb * 1e9),
                    overwrite=self.overwrite,
                    progress=progress,
                    ranks=ranks,
                )
            if ranks.first:
                self._report(folder, manifest.summary, hook_points)

    def _report(self, folder: Path, found: dict, hook_points: list[str]) -> None:
        named = ", ".join(hook_points[:4]) + (f" and {len(hook_points) - 4} more" if len(hook_points) > 4 else "")
        wrote(folder, f"{found['n_real']:,} tokens of {found['n_documents']:,} documents at {named}")
        if found["corpus_ended_early"]:
            say(f"      the corpus ended before {self.tokens:,} tokens")


@dataclass(frozen=True, kw_only=True)
class Models(Verb):
    """List the models that load by name.

    Any Hugging Face id or folder and any .gguf file loads too.
    """

    def run(self) -> None:
        from interp.models.loading import known_models

        for model in known_models():
            size = f"{model.n_params / 1e6:,.1f}M" if model.n_params >= 1e5 else f"{model.n_params:,}"
            say(
                f"{model.name:<38} {size:>8}  {model.n_layers:>2} layers of {model.d_model:<5} "
                f"{model.source}: {model.note}"
            )
        say("\nAlso: any Hugging Face id (owner/name), a model folder, or a .gguf file.")
