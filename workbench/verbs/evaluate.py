"""`workbench evaluate SAE`: reconstruction on held-out documents, loss inside the model, probing, absorption, concepts.

Tasks of probes come from the text of a recording's tokens, or from a file of labels.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

from interp.artifacts import sha256_file
from interp.errors import ConfigError, MismatchError, WorkbenchError
from interp.options import BASIC, Argument, Derived, RecordingName, SAEName
from interp.progress import Progress
from saes.evaluation.evaluation import (
    ConceptScores,
    ConceptSettings,
    DictionaryEvaluationSettings,
    GivenFile,
    ProbeSettings,
    SAEEvaluation,
)
from saes.evaluation.nulls import NullScore, null_config, train_nulls
from saes.evaluation.scores import (
    LIST,
    Absorption,
    AbsorptionConfig,
    ConceptList,
    InModel,
    Probing,
    ProbingConfig,
    read_concepts,
)
from saes.features.label_shares import LabelShare, label_shares
from saes.features.schema import features_of_sae
from saes.training.config import TrainConfig
from saes.training.stored import Reconstruction, StoredSAE, TrainedSettings
from workbench.analysis import AnalysisRun, Resumable
from workbench.engine import OverDevices
from workbench.terminal import AppliesDictionary, Heading, RunsModel, Seeded, Threaded, settings_of

if TYPE_CHECKING:
    from interp.recording.store import Recording
    from saes.kinds.base import SAE

T = TypeVar("T")

HEADING = Heading.RECORD

CONCEPT_ROWS = 4096
"""Held-out tokens for principal components, densities of latents and the sparsity of the untrained dictionary."""


def vocabulary_of(run: AnalysisRun, recording: "Recording") -> list[str] | None:
    """Return the text of every token; None for a recording of planted features."""
    if recording.planted:
        return None
    import torch

    from interp.models.adapter import token_strings

    model = run.recorded_model(recording)
    return token_strings(model, torch.arange(model.cfg.d_vocab))


def run_probes(
    run: AnalysisRun,
    saes: "dict[str, SAE]",
    recording: "Recording",
    config: ProbingConfig,
    labels: Path | None,
    fraction: float,
    progress: Progress,
) -> Probing:
    """Probe the SAEs on all tasks that the recording offers, and on those of a file.

    Raises as `saes.evaluation.probing.probe` does.
    """
    from saes.evaluation.probing import file_tasks, planted_tasks, probe, recording_tasks, text_tasks

    vocabulary = vocabulary_of(run, recording)
    tasks = planted_tasks(recording) if vocabulary is None else [*text_tasks(vocabulary), *recording_tasks(recording)]
    if labels is not None:
        tasks += file_tasks(labels, recording, vocabulary)
    return probe(saes, recording, tasks, config=config, heldout_fraction=fraction, progress=progress)


def run_absorption(
    run: AnalysisRun, saes: "dict[str, SAE]", recording: "Recording", config: AbsorptionConfig, progress: Progress
) -> dict[str, Absorption] | str:
    """Return absorption of first letters in SAEs and in an untrained one of the first's size, or why there is none."""
    from saes.evaluation.absorption import first_letters, measure_absorption
    from saes.evaluation.baselines import untrained_like

    vocabulary = vocabulary_of(run, recording)
    if vocabulary is None:
        return "the recording holds planted features, not words; its trees are scored by recovery"
    sae = next(iter(saes.values()))
    examples = first_letters(recording, sae.hook_point, vocabulary, config)
    untrained = untrained_like(sae, recording, examples.x, seed=config.seeds[0])
    return measure_absorption({**saes, "untrained": untrained}, examples, config, progress=progress)


def given_file(path: Path) -> GivenFile:
    """Return name and hash of a file."""
    return GivenFile(file=path.name, sha256=sha256_file(path))


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

    def probe_settings(self, run: AnalysisRun, recording: "Recording") -> ProbeSettings | None:
        """Return the probing options that determine the result; None without probing.

        Raises, before anything is measured, as `file_tasks` does.
        """
        if not self.probing:
            return None
        if self.labels is not None:
            from saes.evaluation.probing import file_tasks

            file_tasks(self.labels, recording, vocabulary_of(run, recording))
        return ProbeSettings(config=self.probing_config(), labels=self.labels and given_file(self.labels))


@dataclass(frozen=True, kw_only=True)
class Evaluate(
    AbsorptionConfig, OverDevices, Probes, AppliesDictionary, Threaded, RunsModel, Resumable["SAEEvaluation"]
):
    """Evaluate an SAE on held-out documents, and spliced into the model.

    Example: workbench evaluate demo --probing --absorption

    Scores come with 95 % intervals over documents. In the model, the reconstruction replaces the activations (of a
    transcoder, those of its target). An interrupted command continues with the missing parts when it is repeated.
    """

    makes: ClassVar[str] = "evaluation"

    sae: Annotated[SAEName, Argument("SAE")]
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
    dictionary, shuffled labels. Also tests whether steering raises its words and whether a search finds it."""
    concept_list: Path | None = None
    """Your own concepts instead of those that ship: a .toml file like saes/evaluation/concepts.toml."""
    concept_set: Literal["all", "choose", "judge"] = "all"
    """Concepts to measure. While you choose among dictionaries, measure `choose` only; `judge` scores the chosen one
    once."""
    nulls: bool = False
    """Null dictionaries: the same kind trained with a random decoder or encoder that stays as drawn, and on shuffled
    coordinates, beside one trained whole. Every score that is asked for is taken of them too."""
    null_tokens: int = TrainConfig.tokens
    """Tokens that each of the four is trained on."""

    def __post_init__(self) -> None:
        AbsorptionConfig.__post_init__(self)
        Probes.__post_init__(self)
        if self.contexts < 0:
            raise ConfigError(f"contexts must be at least 0, got {self.contexts}")
        if self.null_tokens < 1:
            raise ConfigError(f"null_tokens must be at least 1, got {self.null_tokens}")
        if self.null_tokens != TrainConfig.tokens and not self.nulls:
            raise ConfigError("--null-tokens is about null dictionaries; add --nulls")
        if (self.concept_list is not None or self.concept_set != "all") and not self.concepts:
            raise ConfigError("--concept-list and --concept-set are about concepts; add --concepts")

    def measure(self, run: AnalysisRun) -> SAEEvaluation:
        from saes.evaluation.matching import decoder_cosines

        chosen = run.dictionary(self.sae, self.recording)
        sae, recording = chosen.load_sae(allow_other_weights=self.allow_other_weights), chosen.recording
        settings = DictionaryEvaluationSettings(
            sae=self.sae,
            recording=recording.folder.name,
            contexts=self.contexts,
            probing=self.probe_settings(run, recording),
            absorption=self.absorption_config() if self.absorption else None,
            concepts=self.concept_settings() if self.concepts else None,
            null_tokens=self.null_tokens if self.nulls else None,
        )
        stored = run.workspace.open(StoredSAE, self.sae)
        fraction = stored.heldout_fraction

        def part(name: str, measure: Callable[[], T]) -> T:
            return run.part(settings, SAEEvaluation, name, measure)

        heldout = part("heldout", lambda: self.reconstruct(run, sae, recording, fraction))
        others: dict[str, SAE] | str = {}
        if self.nulls:
            others = self.trained_nulls(run, run.training(settings) / "nulls", sae, recording, stored, heldout.l0)
        nulls = others if isinstance(others, dict) else {}
        return SAEEvaluation(
            settings=settings,
            heldout=heldout,
            decoder=part("decoder", lambda: decoder_cosines(sae.decoder_directions, seed=self.seed)),
            in_model=part("in_model", lambda: self.inside(run, sae, recording, fraction)),
            probing=part("probing", lambda: self.probes(run, {self.sae: sae, **nulls}, recording, fraction)),
            absorption=part("absorption", lambda: self.absorbed(run, {self.sae: sae, **nulls}, recording)),
            concepts=part("concepts", lambda: self.detected(run, sae, nulls, recording, fraction)),
            nulls=part("nulls", lambda: self.null_scores(run, others, recording, fraction, heldout.l0)),
        )

    def trained_nulls(
        self, run: AnalysisRun, folder: Path, sae: "SAE", recording: "Recording", stored: StoredSAE, l0: float
    ) -> "dict[str, SAE] | str":
        """Return the null dictionaries and the whole one, trained or read again; or the reason for none."""
        known = stored.settings.sae if isinstance(stored.settings, TrainedSettings) else None
        train = TrainConfig(tokens=self.null_tokens, seed=self.seed, heldout_fraction=stored.heldout_fraction)
        try:
            config = null_config(sae, known, l0)
            with run.progress("training null dictionaries", "tokens") as progress:
                return train_nulls(sae, recording, folder, config, train, device=run.device, progress=progress)
        except ConfigError as error:
            return str(error)

    def null_scores(
        self, run: AnalysisRun, others: "dict[str, SAE] | str", recording: "Recording", fraction: float, l0: float
    ) -> dict[str, NullScore] | str | None:
        """Return the scores of nulls, of principal components and of coordinates; or the reason for none."""
        from saes.evaluation.baselines import coordinates_of, pca_of

        if not others:
            return None
        if isinstance(others, str):
            return others
        hook_point = next(iter(others.values())).hook_point
        k = max(1, min(round(l0), recording.d(hook_point)))
        saes = {**others, "pca": pca_of(recording, hook_point, k=k, heldout_fraction=fraction)}
        saes["coordinates"] = coordinates_of(recording, hook_point, k=k)
        inside = self.inside_each(run, saes, recording, fraction) or {}
        labels = self.labelled(run, saes, recording)
        return {
            name: NullScore(
                heldout=self.reconstruct(run, sae, recording, fraction),
                in_model=inside.get(name),
                labels=labels.get(name),
            )
            for name, sae in saes.items()
        }

    def labelled(self, run: AnalysisRun, saes: "dict[str, SAE]", recording: "Recording") -> dict[str, LabelShare]:
        """Return how many features of each carry a label; none of planted rows."""
        if recording.planted:
            return {}
        model = run.recorded_model(recording)
        with run.progress("labels", "tokens") as progress:
            return label_shares(saes, recording, model, seed=self.seed, progress=progress)

    def reconstruct(self, run: AnalysisRun, sae: "SAE", recording: "Recording", fraction: float) -> Reconstruction:
        """Return the scores on held-out rows."""
        from saes.training.reconstruction import evaluate_on_recording

        with run.progress("held-out tokens", "tokens") as progress:
            return evaluate_on_recording(sae, recording, heldout_fraction=fraction, seed=self.seed, progress=progress)

    def inside(self, run: AnalysisRun, sae: "SAE", recording: "Recording", fraction: float) -> InModel | None:
        """Return the model's loss with the reconstruction spliced in; None where it cannot be, or was not asked for."""
        found = self.inside_each(run, {self.sae: sae}, recording, fraction)
        return None if found is None else found[self.sae]

    def inside_each(
        self, run: AnalysisRun, saes: "dict[str, SAE]", recording: "Recording", fraction: float
    ) -> dict[str, InModel] | None:
        """Return the model's loss with each SAE spliced in; None as for `inside`."""
        from saes.evaluation.in_model import can_splice, evaluate_all_in_model

        if not self.contexts or not all(map(can_splice, saes.values())) or recording.planted:
            return None
        tokens, documents = recording.contexts_and_documents(
            split="heldout", limit=self.contexts, heldout_fraction=fraction
        )
        if not len(tokens):
            return None
        model = run.recorded_model(recording)
        saes = {name: deepcopy(sae).to(model.cfg.device) for name, sae in saes.items()}
        with run.progress("inside the model", "contexts") as progress:
            return evaluate_all_in_model(saes, model, tokens, documents=documents, seed=self.seed, progress=progress)

    def probes(
        self, run: AnalysisRun, saes: "dict[str, SAE]", recording: "Recording", fraction: float
    ) -> Probing | str | None:
        """Return the probes, or the reason for none."""
        if not self.probing:
            return None
        try:
            with run.progress("probing", "tasks") as progress:
                arguments = (self.probing_config(), self.labels, fraction, progress)
                return run_probes(run, saes, recording, *arguments)
        except ConfigError as error:
            return str(error)

    def absorbed(
        self, run: AnalysisRun, saes: "dict[str, SAE]", recording: "Recording"
    ) -> dict[str, Absorption] | str | None:
        """Return absorption by dictionary, or the reason for none."""
        if not self.absorption:
            return None
        try:
            with run.progress("absorption", "splits") as progress:
                return run_absorption(run, saes, recording, self.absorption_config(), progress)
        except (ConfigError, MismatchError) as error:
            return str(error)

    def detected(
        self, run: AnalysisRun, sae: "SAE", nulls: "dict[str, SAE]", recording: "Recording", fraction: float
    ) -> ConceptScores | str | None:
        """Return scores of everyday concepts, searched in the dictionary's feature tables where there are any.

        A text where the model reads no text, or the dictionary has several hook points: the reason.
        """
        from saes.evaluation.concepts import measure_concepts, search_concepts
        from saes.evaluation.probing import sample_rows

        if not self.concepts:
            return None
        try:
            model = run.recorded_model(recording)
            rows = sample_rows(recording, CONCEPT_ROWS, split="heldout", fraction=fraction, seed=self.seed)
            x, sae = recording.read_rows(sae.hook_point, rows), deepcopy(sae).to(model.cfg.device)
            listed = self.listed_concepts()
            with run.progress("concepts", "sentences") as progress:
                scores = measure_concepts(sae, model, x, listed, others=nulls, seed=self.seed, progress=progress)
            folder = features_of_sae(run.workspace, self.sae)
            return scores if folder is None else search_concepts(run.workspace, folder.name, scores)
        except WorkbenchError as error:
            return str(error)

    def listed_concepts(self) -> ConceptList:
        """Return the concepts to measure. Raises as `read_concepts` does, and where the set has none."""
        return read_concepts(self.concept_list or LIST).only(self.concept_set)

    def concept_settings(self) -> ConceptSettings:
        """Return the options about concepts; the list is checked before anything is measured."""
        self.listed_concepts()
        return ConceptSettings(listed=given_file(self.concept_list or LIST), set=self.concept_set)

    def absorption_config(self) -> AbsorptionConfig:
        """Return the settings of the absorption measurement, with the default number of splits."""
        return settings_of(self, AbsorptionConfig, seeds=self.seed_range(len(AbsorptionConfig.seeds)))
