"""`workbench evaluate SAE`: what the reconstruction keeps, on held-out text and inside the model."""

from dataclasses import asdict, dataclass

import tyro

from workbench.options import Options
from workbench.terminal import bar, wrote


@dataclass(frozen=True, kw_only=True)
class Evaluate(Options):
    """Score an SAE on documents that it never saw, and put it into the model in place of what it reconstructs."""

    sae: tyro.conf.Positional[str]
    """Name of an SAE in the workspace."""
    recording: str | None = None
    """Default: the one that it was trained on."""
    contexts: int = 32
    """At most so many held-out contexts for the loss inside the model; 0 skips that part."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def run(self) -> None:
        from interp.artifacts import Draft, write_json
        from saes.evaluate import evaluate_in_model, evaluate_on_recording
        from workbench.steps import open_dictionary, open_recording_model

        workspace = self.open_workspace()
        threads = self.use_threads()
        chosen = open_dictionary(workspace, self.sae, self.recording)
        sae = chosen.load_sae(allow_other_weights=self.allow_other_weights)
        folder = workspace.path("evaluation", self.name or self.sae)
        config = {"sae": self.sae, "recording": chosen.recording.folder.name, "contexts": self.contexts}
        parents = {**chosen.parents, chosen.recording.key: chosen.recording.manifest.content_hash}
        draft = Draft.open(folder, kind="evaluation", config=config, seed=self.seed, overwrite=self.overwrite)
        with bar("held-out tokens", "tokens") as progress:
            found = asdict(evaluate_on_recording(sae, chosen.recording, progress=progress))
        tokens = chosen.recording.contexts(split="heldout", limit=self.contexts)
        if len(tokens) and sae.hook_point_out in ("", sae.hook_point):  # a transcoder replaces nothing that it reads
            model = open_recording_model(chosen.recording)
            with bar("inside the model", "contexts") as progress:
                found["model"] = asdict(evaluate_in_model(sae, model, tokens, progress=progress))
        write_json(draft.path / "evaluation.json", found)
        draft.finish(summary=found, parents=parents, threads=threads)
        wrote(folder, describe_evaluation(found))


def describe_evaluation(found: dict) -> str:
    """One line: reconstruction, sparsity, and what the model loses."""
    line = f"FVU {found['fvu']:.3f} at L0 {found['l0']:.1f} on {found['n_tokens']:,} held-out tokens"
    if "model" not in found:
        return line
    inside = found["model"]
    return (
        f"{line}; in the model the loss goes from {inside['ce_clean']:.2f} to {inside['ce_spliced']:.2f} nats "
        f"({inside['ce_recovered']:.1%} recovered against zeros, "
        f"{inside['ce_recovered_from_mean']:.1%} against the mean)"
    )
