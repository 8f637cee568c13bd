"""`workbench evaluate SAE`: what the reconstruction keeps, on held-out text and inside the model.

What probes of a recording need: the text of its tokens and the questions that it can answer.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from interp.errors import ConfigError, MismatchError
from workbench.terminal import Options, bar, say, wrote

if TYPE_CHECKING:
    from torch import Tensor

    from interp.recording.store import Recording
    from saes.evaluation.probing import Probing
    from saes.kinds.base import SAE


def vocabulary_of(recording: "Recording") -> list[str] | None:
    """The text of every token; None where there is no text (planted features)."""
    if "synthetic" in recording.manifest.config:
        return None
    import torch

    from interp.models.adapter import token_strings
    from workbench.opening import open_recording_model

    model = open_recording_model(recording)
    return token_strings(model, torch.arange(model.cfg.d_vocab))


def run_probes(
    saes: "dict[str, SAE]", recording: "Recording", labels: Path | None, fraction: float, seeds: tuple[int, ...]
) -> "Probing":
    """Probe with all tasks that the recording knows, and those of a file. Raises as `saes.evaluation.probing.probe`
    does.
    """
    from saes.evaluation.probing import ProbingConfig, probe
    from saes.evaluation.probing_tasks import file_tasks, planted_tasks, recording_tasks, text_tasks

    vocabulary = vocabulary_of(recording)
    tasks = planted_tasks(recording) if vocabulary is None else [*text_tasks(vocabulary), *recording_tasks(recording)]
    if labels is not None:
        tasks += file_tasks(labels, recording, vocabulary)
    config = ProbingConfig(seeds=seeds)
    with bar("probing", "tasks") as progress:
        return probe(saes, recording, tasks, config=config, heldout_fraction=fraction, progress=progress)


def probes_or_reason(
    saes: "dict[str, SAE]", recording: "Recording", labels: Path | None, fraction: float, seeds: tuple[int, ...]
) -> dict[str, Any]:
    """The same as plain values, or `{"refused": why}` where nothing can be asked: what else was measured stands."""
    try:
        return as_dict(run_probes(saes, recording, labels, fraction, seeds))
    except ConfigError as error:
        return {"refused": str(error)}


def as_dict(probing: "Probing") -> dict[str, Any]:
    """With the table as text, so that a reader of the file needs no code of ours."""
    return {**asdict(probing), "table": probing.table()}


def run_absorption(sae: "SAE", name: str, recording: "Recording", seed: int) -> dict[str, Any]:
    """Absorption of first letters by the SAE and by an untrained one of its size, or why it cannot be measured."""
    from saes.evaluation.absorption import first_letters, measure_absorption
    from saes.evaluation.baselines import untrained_like

    vocabulary = vocabulary_of(recording)
    if vocabulary is None:
        return {"refused": "the recording holds planted features, not words; its trees are scored by recovery"}
    seeds = tuple(range(seed, seed + 3))
    try:
        examples = first_letters(recording, sae.hook_point, vocabulary, seed=seed)
        saes = {name: sae, "untrained": untrained_like(sae, recording, examples.x, seed=seed)}
        with bar("absorption", "splits") as progress:
            found = measure_absorption(saes, examples, seeds=seeds, progress=progress)
    except (ConfigError, MismatchError) as error:
        return {"refused": str(error)}
    return {name: asdict(each) for name, each in found.items()}


def probe_settings(recording: "Recording", *, probing: bool, labels: Path | None, probe_seeds: int) -> dict[str, Any]:
    """What of the options determines the result, for a manifest. Raises, before anything is measured, `ConfigError` on
    options that do not go together, and what `file_tasks` raises."""
    if probe_seeds < 1:
        raise ConfigError(f"probe_seeds must be at least 1, got {probe_seeds}")
    settings = {"probing": probing, "probe_seeds": probe_seeds, "labels": None}
    if labels is None:
        return settings
    if not probing:
        raise ConfigError("--labels are questions for probes; add --probing")
    from interp.artifacts import sha256_file
    from saes.evaluation.probing_tasks import file_tasks

    file_tasks(labels, recording, vocabulary_of(recording))
    return {**settings, "labels": {"file": labels.name, "sha256": sha256_file(labels)}}


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
        from saes.evaluation.reconstruction import evaluate_on_recording
        from workbench.opening import open_dictionary

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
        from saes.evaluation.in_model import can_splice
        from saes.evaluation.matching import decoder_cosines

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
        from saes.evaluation.in_model import evaluate_in_model
        from workbench.opening import open_recording_model

        model = open_recording_model(recording)
        with bar("inside the model", "contexts") as progress:
            found = evaluate_in_model(sae, model, tokens, documents=documents, seed=self.seed, progress=progress)
        return asdict(found)


def describe_parts(found: dict) -> list[str]:
    """The tables of probing and absorption, or why they are missing."""
    from saes.evaluation.absorption import CAVEAT, table_of

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
