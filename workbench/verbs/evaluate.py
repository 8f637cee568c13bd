"""`workbench evaluate SAE`: reconstruction on held-out documents, loss inside the model, probing, absorption.

`compare saes` shares the probing: its tasks come from the text of a recording's tokens, or from a file of labels.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.errors import ConfigError, MismatchError
from workbench.terminal import OnDevice, Seeded, Threaded, Writes, bar, say, wrote

if TYPE_CHECKING:
    from torch import Tensor

    from interp.recording.store import Recording
    from saes.evaluation.probing import Probing
    from saes.kinds.base import SAE


def vocabulary_of(recording: "Recording") -> list[str] | None:
    """Return the text of every token; None for a recording of planted features, which has no text."""
    if "synthetic" in recording.manifest.config:
        return None
    import torch

    from interp.models.adapter import token_strings
    from workbench.opening import open_recording_model

    model = open_recording_model(recording, device="cpu")  # its tokenizer is all that is used
    return token_strings(model, torch.arange(model.cfg.d_vocab))


def run_probes(
    saes: "dict[str, SAE]", recording: "Recording", labels: Path | None, fraction: float, seeds: tuple[int, ...]
) -> "Probing":
    """Probe the SAEs on all tasks that the recording offers, and on those of a file.

    Raises as `saes.evaluation.probing.probe` does.
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
    """Return the result as plain values, or `{"refused": reason}`, so that other parts of the evaluation remain."""
    try:
        return as_dict(run_probes(saes, recording, labels, fraction, seeds))
    except ConfigError as error:
        return {"refused": str(error)}


def as_dict(probing: "Probing") -> dict[str, Any]:
    """Return the result as plain values, with its table as text for readers of the file."""
    return {**probing.to_json(), "table": probing.table()}


def run_absorption(sae: "SAE", name: str, recording: "Recording", seed: int) -> dict[str, Any]:
    """Return absorption of first letters in the SAE and in an untrained one of its size, or the reason for none."""
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
    """Return the probing options that determine the result, for a manifest.

    Raises, before anything is measured, `ConfigError` on options that contradict each other, and as `file_tasks` does.
    """
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
class Evaluate(Writes, Seeded, Threaded, OnDevice):
    """Evaluate an SAE on held-out documents, and spliced into the model.

    Example: workbench evaluate demo --probing --absorption

    Scores come with 95 % intervals over documents. In the model, the reconstruction replaces the activations (of a
    transcoder, those of its target). An interrupted command continues with the missing parts when it is repeated.
    """

    sae: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAE")]
    """Name of an SAE in the workspace."""
    recording: str | None = None
    """Recording to evaluate on. Default: the one that it was trained on."""
    contexts: int = 32
    """Largest number of held-out contexts for the loss inside the model; 0 skips that part."""
    probing: bool = False
    """Sparse probing: predict a property of a token (a digit, a capital, its document's label ...) from one, two or
    five features. Baselines: random labels, principal components, coordinates, an untrained SAE. Takes minutes."""
    labels: Path | None = None
    """Further probing tasks: a .csv, .jsonl or .parquet with the columns `label` and `document` or `token`."""
    probe_seeds: int = 3
    """Repetitions of the probes with other training tokens and control labels."""
    absorption: bool = False
    """Feature absorption: the latent for a first letter stops firing on some words because a more specific latent has
    absorbed its direction. Means little for small models and dictionaries; refused where letters are not
    represented."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def __post_init__(self) -> None:
        if self.contexts < 0:
            raise ConfigError(f"contexts must be at least 0, got {self.contexts}")

    def run(self) -> None:
        from interp.artifacts import Draft, read_json, write_json
        from saes.evaluation.reconstruction import evaluate_on_recording
        from workbench.opening import open_dictionary

        workspace = self.open_workspace()
        threads = self.use_threads()
        chosen = open_dictionary(workspace, self.sae, self.recording, device=self.use_device())
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
        """Return the measurements besides reconstruction, by their key in `evaluation.json`."""
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
            seeds = self.seeds(self.probe_seeds)
            parts["probing"] = lambda: probes_or_reason({self.sae: sae}, recording, self.labels, fraction, seeds)
        if self.absorption:
            parts["absorption"] = lambda: run_absorption(sae, self.sae, recording, self.seed)
        return parts

    def inside(self, sae: "SAE", recording: "Recording", tokens: "Tensor", documents: "Tensor") -> dict[str, Any]:
        """Return the model's loss with the reconstruction spliced in."""
        from saes.evaluation.in_model import evaluate_in_model
        from workbench.opening import open_recording_model

        model = open_recording_model(recording, device=self.device)
        sae = deepcopy(sae).to(model.cfg.device)
        with bar("inside the model", "contexts") as progress:
            found = evaluate_in_model(sae, model, tokens, documents=documents, seed=self.seed, progress=progress)
        return asdict(found)


def describe_parts(found: dict) -> list[str]:
    """Return the tables of probing and absorption, or the reason for their absence."""
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
    """Return the single numbers of `evaluation.json`, part by part, for the manifest."""
    return {
        key: summary_of(value) if isinstance(value, dict) else value
        for key, value in found.items()
        if isinstance(value, int | float | dict) and key != "intervals"
    }


def describe_evaluation(found: dict) -> str:
    """Return one line: reconstruction, sparsity, and the loss inside the model."""
    line = f"FVU {_with_ends(found, 'fvu')} at L0 {found['l0']:.1f} on {found['n_tokens']:,} held-out tokens"
    inside = found.get("model")
    if inside is None:
        return line
    line += f"; in the model the loss goes from {inside['ce_clean']:.2f} to {inside['ce_spliced']:.2f} nats"
    if inside["ce_recovered"] is None:
        return f"{line}, and replacing the activations by zeros costs nothing"
    return (
        f"{line} ({_with_ends(inside, 'ce_recovered')} recovered against zeros, "
        f"{_with_ends(inside, 'ce_recovered_from_mean')} against the mean)"
    )


def _with_ends(found: dict, score: str) -> str:
    """Return a score with its interval, `0.123 [0.119, 0.128]`."""
    if found[score] is None:
        return "undefined, since the baseline costs nothing,"
    ends = found.get("intervals", {}).get(score)
    return f"{found[score]:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
