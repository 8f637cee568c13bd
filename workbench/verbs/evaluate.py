"""`workbench evaluate SAE`: what the reconstruction keeps, on held-out text and inside the model."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from workbench.options import Options
from workbench.probes import probe_settings, probes_or_reason, run_absorption
from workbench.terminal import bar, say, wrote

if TYPE_CHECKING:
    from torch import Tensor

    from interp.recording.store import Recording
    from saes.kinds.base import SAE


@dataclass(frozen=True, kw_only=True)
class Evaluate(Options):
    """Score an SAE on documents that it never saw, and put it into the model in place of what it reconstructs.

    Example: workbench evaluate demo --probing --absorption

    Scores come with 95 % intervals over documents. A transcoder takes the place of its target. Interrupted? The same
    command goes on with the parts that are missing.
    """

    sae: tyro.conf.Positional[str]
    """Name of an SAE in the workspace."""
    recording: str | None = None
    """Default: the one that it was trained on."""
    contexts: int = 32
    """At most so many held-out contexts for the loss inside the model; 0 skips that part."""
    probing: bool = False
    """Ask whether one, two or five features tell what a token is (a digit, a capital, its document's label ...), with
    random labels as control and principal components, coordinates and an untrained SAE beside it (minutes)."""
    labels: Path | None = None
    """Questions of yours for the probes: a .csv, .jsonl or .parquet with `label` and one of `document`, `token`."""
    probe_seeds: int = 3
    """How often the probes are repeated with other training tokens and control labels."""
    absorption: bool = False
    """Ask whether features for a word's first letter keep silent on some words while a feature of that word takes
    their direction over. Means little for small models and dictionaries; refused where letters are not represented."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def run(self) -> None:
        from interp.artifacts import Draft, read_json, write_json
        from saes.evaluate import evaluate_on_recording
        from workbench.steps import open_dictionary

        workspace = self.open_workspace()
        threads = self.use_threads()
        chosen = open_dictionary(workspace, self.sae, self.recording)
        sae = chosen.load_sae(allow_other_weights=self.allow_other_weights)
        fraction = workspace.manifest("sae", self.sae).config.get("heldout_fraction", 0.1)
        folder = workspace.path("evaluation", self.name or self.sae)
        config = {
            "sae": self.sae,
            "recording": chosen.recording.folder.name,
            "contexts": self.contexts,
            **probe_settings(chosen.recording, probing=self.probing, labels=self.labels, probe_seeds=self.probe_seeds),
            "absorption": self.absorption,
        }
        parents = {**chosen.parents, chosen.recording.key: chosen.recording.manifest.content_hash}
        draft = Draft.open(folder, kind="evaluation", config=config, seed=self.seed, overwrite=self.overwrite)
        path = draft.path / "evaluation.json"
        found = read_json(path) if path.exists() else {}
        if not found:
            with bar("held-out tokens", "tokens") as progress:
                scores = evaluate_on_recording(
                    sae, chosen.recording, heldout_fraction=fraction, seed=self.seed, progress=progress
                )
            found = asdict(scores)
            write_json(path, found)
        for part, measure in self.parts(sae, chosen.recording, fraction).items():
            if part in found:
                continue
            found[part] = measure()
            write_json(path, found)
        draft.finish(summary=summary_of(found), parents=parents, threads=threads)
        wrote(folder, describe_evaluation(found))
        for line in describe_parts(found):
            say(line)

    def parts(self, sae: "SAE", recording: "Recording", fraction: float) -> dict[str, Callable[[], Any]]:
        """What is measured besides the held-out rows, by its key in `evaluation.json`; kept once measured."""
        from saes.decoder_cosines import decoder_cosines
        from saes.evaluate_model import can_splice

        parts: dict[str, Callable[[], Any]] = {
            "decoder": lambda: asdict(decoder_cosines(sae.decoder_directions, seed=self.seed))
        }
        planted = "synthetic" in recording.manifest.config
        if self.contexts and can_splice(sae) and not planted:
            tokens, documents = recording.contexts_and_documents(
                split="heldout", limit=self.contexts, heldout_fraction=fraction
            )
            if len(tokens):
                parts["model"] = lambda: self.inside(sae, recording, tokens, documents)
        if self.probing:
            seeds = tuple(range(self.seed, self.seed + self.probe_seeds))
            parts["probing"] = lambda: probes_or_reason({self.sae: sae}, recording, self.labels, fraction, seeds)
        if self.absorption:
            parts["absorption"] = lambda: run_absorption(sae, self.sae, recording, self.seed)
        return parts

    def inside(self, sae: "SAE", recording: "Recording", tokens: "Tensor", documents: "Tensor") -> dict[str, Any]:
        """The model's loss with the SAE in place."""
        from saes.evaluate_model import evaluate_in_model
        from workbench.steps import open_recording_model

        model = open_recording_model(recording)
        with bar("inside the model", "contexts") as progress:
            found = evaluate_in_model(sae, model, tokens, documents=documents, seed=self.seed, progress=progress)
        return asdict(found)


def describe_parts(found: dict) -> list[str]:
    """The tables of probing and absorption, or why they are missing."""
    from saes.absorption import CAVEAT, table_of

    lines = []
    for part in ("probing", "absorption"):
        each = found.get(part)
        if each is None:
            continue
        if "refused" in each:
            lines.append(f"\n{part} was not measured: {each['refused']}")
        elif part == "probing":
            lines.append(f"\nprobing, balanced accuracy on {each['n_documents']} held-out documents:\n{each['table']}")
        else:
            lines.append(f"\nabsorption of first letters ({CAVEAT}):\n{table_of(each)}")
    return lines


def summary_of(found: dict) -> dict:
    """The numbers a person would ask for first: those of `evaluation.json` that are single numbers, part by part."""
    return {
        key: summary_of(value) if isinstance(value, dict) else value
        for key, value in found.items()
        if isinstance(value, int | float | dict) and key != "intervals"
    }


def describe_evaluation(found: dict) -> str:
    """One line: reconstruction, sparsity, and what the model loses."""
    line = f"FVU {_with_ends(found, 'fvu')} at L0 {found['l0']:.1f} on {found['n_tokens']:,} held-out tokens"
    inside = found.get("model")
    if inside is None:
        return line
    line += f"; in the model the loss goes from {inside['ce_clean']:.2f} to {inside['ce_spliced']:.2f} nats"
    if inside["ce_recovered"] is None:
        return f"{line}, where zeros cost nothing"
    return (
        f"{line} ({_with_ends(inside, 'ce_recovered')} recovered against zeros, "
        f"{_with_ends(inside, 'ce_recovered_from_mean')} against the mean)"
    )


def _with_ends(found: dict, score: str) -> str:
    """`0.123 [0.119, 0.128]`; without an interval the number alone."""
    if found[score] is None:
        return "nothing to be"
    ends = found.get("intervals", {}).get(score)
    return f"{found[score]:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
