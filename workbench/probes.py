"""What probes of a recording need: the text of its tokens and the questions that it can answer."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError, MismatchError
from workbench.terminal import bar

if TYPE_CHECKING:
    from interp.recording.store import Recording
    from saes.kinds.base import SAE
    from saes.probing_scores import Probing


def vocabulary_of(recording: "Recording") -> list[str] | None:
    """The text of every token; None where there is no text (planted features)."""
    if "synthetic" in recording.manifest.config:
        return None
    import torch

    from interp.models.adapter import token_strings
    from workbench.steps import open_recording_model

    model = open_recording_model(recording)
    return token_strings(model, torch.arange(model.cfg.d_vocab))


def run_probes(
    saes: "dict[str, SAE]", recording: "Recording", labels: Path | None, fraction: float, seeds: tuple[int, ...]
) -> "Probing":
    """Probe with all tasks that the recording knows, and those of a file. Raises as `saes.probing.probe` does."""
    from saes.probing import ProbingConfig, probe
    from saes.probing_tasks import file_tasks, planted_tasks, recording_tasks, text_tasks

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
    from saes.absorption import first_letters, measure_absorption
    from saes.baselines import untrained_like

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
    from saes.probing_tasks import file_tasks

    file_tasks(labels, recording, vocabulary_of(recording))
    return {**settings, "labels": {"file": labels.name, "sha256": sha256_file(labels)}}
