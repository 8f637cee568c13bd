"""`workbench evaluate SAE`: reconstruction on held-out documents, loss inside the model, probing, absorption, concepts.

`compare saes` shares the probing: its tasks come from the text of a recording's tokens, or from a file of labels.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from interp.errors import ConfigError, MismatchError, WorkbenchError
from interp.options import BASIC, RecordingName, SAEName
from saes.evaluation.config import LIST, AbsorptionConfig, ConceptList, ProbingConfig, read_concepts
from workbench.terminal import Derived, RunsModel, Seeded, Threaded, Writes, bar, say, settings_of, wrote

if TYPE_CHECKING:
    from torch import Tensor

    from interp.recording.store import Recording
    from interp.workspace import Workspace
    from saes.evaluation.probing import Probing
    from saes.kinds.base import SAE

CONCEPT_ROWS = 4096
"""Held-out tokens for principal components, densities of latents and the sparsity of the untrained dictionary."""


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
    saes: "dict[str, SAE]", recording: "Recording", config: ProbingConfig, labels: Path | None, fraction: float
) -> "Probing":
    """Probe the SAEs on all tasks that the recording offers, and on those of a file.

    Raises as `saes.evaluation.probing.probe` does.
    """
    from saes.evaluation.probing import probe
    from saes.evaluation.probing_tasks import file_tasks, planted_tasks, recording_tasks, text_tasks

    vocabulary = vocabulary_of(recording)
    tasks = planted_tasks(recording) if vocabulary is None else [*text_tasks(vocabulary), *recording_tasks(recording)]
    if labels is not None:
        tasks += file_tasks(labels, recording, vocabulary)
    with bar("probing", "tasks") as progress:
        return probe(saes, recording, tasks, config=config, heldout_fraction=fraction, progress=progress)


def probes_or_reason(*arguments: Any) -> dict[str, Any]:
    """Return the result of `run_probes` as plain values, or `{"refused": reason}`, so that other parts remain."""
    try:
        return as_dict(run_probes(*arguments))
    except ConfigError as error:
        return {"refused": str(error)}


def as_dict(probing: "Probing") -> dict[str, Any]:
    """Return the result as plain values, with its table as text for readers of the file."""
    return {**probing.to_json(), "table": probing.table()}


def run_absorption(sae: "SAE", name: str, recording: "Recording", config: AbsorptionConfig) -> dict[str, Any]:
    """Return absorption of first letters in the SAE and in an untrained one of its size, or the reason for none."""
    from saes.evaluation.absorption import first_letters, measure_absorption
    from saes.evaluation.baselines import untrained_like

    vocabulary = vocabulary_of(recording)
    if vocabulary is None:
        return {"refused": "the recording holds planted features, not words; its trees are scored by recovery"}
    try:
        examples = first_letters(recording, sae.hook_point, vocabulary, config)
        saes = {name: sae, "untrained": untrained_like(sae, recording, examples.x, seed=config.seeds[0])}
        with bar("absorption", "splits") as progress:
            found = measure_absorption(saes, examples, config, progress=progress)
    except (ConfigError, MismatchError) as error:
        return {"refused": str(error)}
    return {name: asdict(each) for name, each in found.items()}


def run_concepts(
    workspace: "Workspace",
    name: str,
    sae: "SAE",
    recording: "Recording",
    listed: ConceptList,
    *,
    fraction: float,
    device: str | None,
    seed: int,
) -> dict[str, Any]:
    """Return scores of everyday concepts, searched in the dictionary's feature tables where there are any.

    `{"refused": reason}` where the model reads no text, or the dictionary has several hook points.
    """
    from saes.evaluation.concepts import measure_concepts, search_concepts
    from saes.evaluation.probing import sample_rows
    from workbench.opening import features_folder, open_recording_model

    try:
        model = open_recording_model(recording, device=device)
        rows = sample_rows(recording, CONCEPT_ROWS, split="heldout", fraction=fraction, seed=seed)
        x, sae = recording.read_rows(sae.hook_point, rows), deepcopy(sae).to(model.cfg.device)
        with bar("concepts", "sentences") as progress:
            found = measure_concepts(sae, model, x, listed, seed=seed, progress=progress)
        if (folder := features_folder(workspace, name)) is not None:
            found = search_concepts(workspace, folder.name, found)
    except WorkbenchError as error:
        return {"refused": str(error)}
    return found.to_json()


def changed(settings: Any) -> dict[str, Any]:
    """Return the settings that differ from their defaults, without the seeds, for a manifest."""
    values = {each.name: (getattr(settings, each.name), each.default) for each in fields(settings)}
    return {name: value for name, (value, default) in values.items() if name != "seeds" and value != default}


@dataclass(frozen=True, kw_only=True)
class Probes(ProbingConfig, Seeded):
    """Options of a verb that probes dictionaries."""

    probing: Annotated[bool, BASIC] = False
    """Sparse probing: predict a property of a token (a digit, a capital, its document's label ...) from one, two or
    five features. Baselines: random labels, principal components, coordinates, an untrained SAE. Takes minutes."""
    labels: Path | None = None
    """Further probing tasks: a .csv, .jsonl or .parquet with the columns `label` and `document` or `token`."""
    probe_seeds: int = 3
    """Repetitions of the probes with other training tokens and control labels."""
    seeds: Derived[tuple[int, ...]] = ProbingConfig.seeds

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probe_seeds < 1:
            raise ConfigError(f"probe_seeds must be at least 1, got {self.probe_seeds}")
        if self.labels is not None and not self.probing:
            raise ConfigError("--labels are questions for probes; add --probing")

    def probing_config(self) -> ProbingConfig:
        """Return the settings of the probes."""
        return settings_of(self, ProbingConfig, seeds=self.seed_range(self.probe_seeds))

    def probe_settings(self, recording: "Recording") -> dict[str, Any]:
        """Return the probing options that determine the result, for a manifest.

        Raises, before anything is measured, as `file_tasks` does.
        """
        settings = {"probing": self.probing, "probe_seeds": self.probe_seeds, "labels": None}
        settings |= changed(self.probing_config()) if self.probing else {}
        if self.labels is None:
            return settings
        from interp.artifacts import sha256_file
        from saes.evaluation.probing_tasks import file_tasks

        file_tasks(self.labels, recording, vocabulary_of(recording))
        return {**settings, "labels": {"file": self.labels.name, "sha256": sha256_file(self.labels)}}


@dataclass(frozen=True, kw_only=True)
class Evaluate(AbsorptionConfig, Probes, Writes, Threaded, RunsModel):
    """Evaluate an SAE on held-out documents, and spliced into the model.

    Example: workbench evaluate demo --probing --absorption

    Scores come with 95 % intervals over documents. In the model, the reconstruction replaces the activations (of a
    transcoder, those of its target). An interrupted command continues with the missing parts when it is repeated.
    """

    sae: Annotated[tyro.conf.Positional[SAEName], tyro.conf.arg(metavar="SAE")]
    """Name of an SAE in the workspace."""
    recording: RecordingName | None = None
    """Recording to evaluate on. Default: the one that it was trained on."""
    contexts: int = 32
    """Largest number of held-out contexts for the loss inside the model; 0 skips that part."""
    absorption: bool = False
    """Feature absorption: the latent for a first letter stops firing on some words because a more specific latent has
    absorbed its direction. Means little for small models and dictionaries; refused where letters are not
    represented."""
    seeds: Derived[tuple[int, ...]] = ProbingConfig.seeds
    concepts: bool = False
    """Everyday concepts (months, kinship, past tense, French ...): F1 and AUROC of the best latent of each, chosen by
    one half of its words and judged by the other. Baselines: neurons, principal components, coordinates, an untrained
    dictionary, shuffled labels. Also whether steering raises its words, and a search finds it."""
    concept_list: Path | None = None
    """Concepts of your own instead of those that ship: a .toml as saes/evaluation/concepts.toml."""
    concept_set: Literal["all", "choose", "judge"] = "all"
    """Concepts to measure. While you choose among dictionaries, measure `choose` only; `judge` scores the chosen one
    once."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def __post_init__(self) -> None:
        AbsorptionConfig.__post_init__(self)
        Probes.__post_init__(self)
        if self.contexts < 0:
            raise ConfigError(f"contexts must be at least 0, got {self.contexts}")
        if (self.concept_list is not None or self.concept_set != "all") and not self.concepts:
            raise ConfigError("--concept-list and --concept-set are about concepts; add --concepts")

    def run(self) -> None:
        from interp.artifacts import Draft, read_json, write_json
        from saes.training.reconstruction import evaluate_on_recording
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
            **self.probe_settings(chosen.recording),
            "absorption": self.absorption,
            **(changed(self.absorption_config()) if self.absorption else {}),
            **(self.concept_settings() if self.concepts else {}),
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
            config = self.probing_config()
            parts["probing"] = lambda: probes_or_reason({self.sae: sae}, recording, config, self.labels, fraction)
        if self.absorption:
            parts["absorption"] = lambda: run_absorption(sae, self.sae, recording, self.absorption_config())
        if self.concepts:
            how: dict[str, Any] = {"fraction": fraction, "device": self.device, "seed": self.seed}
            listed = self.listed_concepts()
            parts["concepts"] = lambda: run_concepts(self.open_workspace(), self.sae, sae, recording, listed, **how)
        return parts

    def listed_concepts(self) -> ConceptList:
        """Return the concepts to measure. Raises as `read_concepts` does, and where the set has none."""
        return read_concepts(self.concept_list or LIST).only(self.concept_set)

    def concept_settings(self) -> dict[str, Any]:
        """Return the options about concepts, for a manifest; the list is checked before anything is measured."""
        from interp.artifacts import sha256_file

        path = self.concept_list or LIST
        self.listed_concepts()
        return {"concepts": {"file": path.name, "sha256": sha256_file(path), "set": self.concept_set}}

    def absorption_config(self) -> AbsorptionConfig:
        """Return the settings of the measurement of absorption, over as many splits as by default."""
        return settings_of(self, AbsorptionConfig, seeds=self.seed_range(len(AbsorptionConfig.seeds)))

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
    """Return the tables of probing, absorption and concepts, or the reason for their absence."""
    from saes.evaluation.absorption import CAVEAT, table_of

    lines = []
    for part in ("probing", "absorption", "concepts"):
        each = found.get(part)
        if each is None:
            continue
        if "refused" in each:
            lines.append(f"\n{part} was not measured: {each['refused']}")
        elif part == "probing":
            lines.append(f"\nprobing, balanced accuracy on {each['n_documents']} held-out documents:\n{each['table']}")
        elif part == "concepts":
            lines.append(f"\n{each['table']}")
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
