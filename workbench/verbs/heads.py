"""`workbench heads MODEL`: what every attention head attends to, with nulls and intervals."""

from dataclasses import dataclass

import tyro

from workbench.options import Options, slug
from workbench.terminal import bar, say, wrote


@dataclass(frozen=True, kw_only=True)
class Heads(Options):
    """Score every head for previous-token, duplicate-token, induction, first-token and current-token attention.

    Scores are shares of attention (0 to 1) on repeated random tokens. A head is called found when its interval lies
    above its null, corrected for all heads.
    """

    model: tyro.conf.Positional[str]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    prompts: int = 16
    """Prompts per seed."""
    n_seeds: int = 3
    """Independent draws of prompts (and of the untrained twin)."""
    context_length: int = 101
    """Tokens per prompt, BOS included."""
    device: str | None = None
    """cpu, cuda, mps. Default: the best there is."""

    def run(self) -> None:
        from interp.circuits.head_table import save_heads
        from interp.circuits.heads import score_heads
        from interp.models.adapter import weight_hash
        from interp.models.loading import load_model

        workspace = self.open_workspace()
        self.use_threads()
        folder = workspace.path("heads", self.name or slug(self.model))
        model = load_model(self.model, device=self.device)
        with bar("head scores", "batches") as progress:
            scores = score_heads(
                model,
                n_prompts=self.prompts,
                context_length=self.context_length,
                seeds=tuple(range(self.seed, self.seed + self.n_seeds)),
                progress=progress,
            )
        manifest = save_heads(
            scores,
            folder,
            model_name=self.model,
            weight_hash=weight_hash(model),
            seed=self.seed,
            overwrite=self.overwrite,
        )
        wrote(folder, f"{manifest.summary['n_heads']} heads scored")
        for line in describe_heads(manifest.summary):
            say(f"      {line}")


def describe_heads(summary: dict) -> list[str]:
    """One line per kind of head: how many, and the strongest."""
    return [
        f"{kind.replace('_', '-')}: {entry['found']} heads"
        + (
            ", strongest " + ", ".join(f"{h['head']} {h['score']:.2f}" for h in entry["strongest"][:3])
            if entry["found"]
            else ""
        )
        for kind, entry in summary.items()
        if isinstance(entry, dict)
    ]
