"""`workbench circuit induction MODEL`: the induction circuit, with its evidence, or why there is none."""

from dataclasses import dataclass
from typing import ClassVar

import tyro

from workbench.options import Options, slug
from workbench.terminal import bar, say, wrote


@dataclass(frozen=True, kw_only=True)
class Induction(Options):
    """Look for induction heads and the heads that they read, and test every link.

    Scores are shares of attention (0 to 1) on repeated random tokens, losses are nats. The rule of the verdict is in
    circuit.json, beside the evidence for and against every head.
    """

    words: ClassVar[tuple[str, ...]] = ("circuit", "induction")

    model: tyro.conf.Positional[str]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    prompts: int = 8
    """Prompts per seed."""
    n_seeds: int = 3
    """Independent draws of prompts: the first chooses senders, the others test them."""
    context_length: int | None = None
    """Tokens per prompt, BOS included. Default: 65, or the model's context when that is shorter."""
    candidates: int = 24
    """At most so many heads are tested for a sender, strongest induction scores first."""
    device: str | None = None
    """cpu, cuda, mps. Default: the best there is."""

    def run(self) -> None:
        from interp.circuits.induction import gather_induction_evidence
        from interp.circuits.induction_prompts import InductionConfig
        from interp.circuits.induction_table import describe_induction, save_induction
        from interp.models.loading import load_model

        workspace = self.open_workspace()
        self.use_threads()
        config = InductionConfig(
            seeds=tuple(range(self.seed, self.seed + self.n_seeds)),
            prompts_per_seed=self.prompts,
            context_length=self.context_length,
            max_candidates=self.candidates,
        )
        folder = workspace.path("circuit", self.name or f"induction-{slug(self.model)}")
        model = load_model(self.model, device=self.device)
        with bar("induction circuit", "%") as progress:
            evidence = gather_induction_evidence(model, config, progress=progress, name=self.model)
        manifest = save_induction(
            evidence,
            folder,
            model_name=self.model,
            weight_hash=evidence.circuit.weight_hash,
            seed=self.seed,
            overwrite=self.overwrite,
        )
        wrote(folder, f"{manifest.summary['n_nodes']} nodes, {manifest.summary['n_edges']} edges")
        for line in describe_induction(evidence):
            say(f"      {line}")
