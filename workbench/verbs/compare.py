"""`workbench compare ...`: dictionaries or models compared, a class for each verb."""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np

from interp.artifacts import Table, as_json, hash_json
from interp.changes.tunes import BASE, STEPS, TuneName, train, tunes
from interp.errors import ConfigError, PromptError
from interp.models.hooked import HookedModel
from interp.models.short_name import short_name
from interp.options import (
    Argument,
    Corpus,
    FeaturesName,
    HookPoint,
    Means,
    ModelName,
    RecordingName,
    SAEName,
    check_least,
)
from interp.seeds import make_generator
from interp.workspace import Workspace
from saes.features.schema import Features
from saes.training.stored import StoredSAE, TrainedSettings
from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import AppliesDictionary, Heading, OnDevice, RunsModel, Seeded, Threaded, slug
from workbench.verbs.explain import recorded_text

if TYPE_CHECKING:
    from torch import Tensor

    from interp.changes.comparison import ModelComparison
    from saes.evaluation.counterparts import Counterparts
    from saes.evaluation.latent_comparison import LatentComparison
    from saes.evaluation.matching import SharedFeatures
    from saes.evaluation.sae_comparison import MatchedPair, SAEComparison
    from saes.evaluation.scaling import SizeLaw
    from saes.kinds.base import SAE

HEADING = Heading.STUDIES


@dataclass(frozen=True, kw_only=True)
class CompareSAEs(Seeded, AppliesDictionary, Threaded, RunsModel, Analysis["SAEComparison"]):
    """Compare SAEs of one hook point at the same sparsity.

    Example: workbench compare saes demo demo-topk

    Each SAE is measured at its own L0, and with all of them reduced to the smallest L0. Baselines: principal
    components, the hook point's own coordinates and an untrained SAE. FVU values at different L0 are not comparable,
    and a lower FVU at the same L0 does not prove better features. For a recording of planted features the table gives
    the number recovered. `workbench evaluate` probes each SAE.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "saes")
    makes: ClassVar[str] = "sae_comparison"

    saes: Annotated[tuple[SAEName, ...], Argument("SAE")]
    """Names of SAEs in the workspace."""
    recording: RecordingName | None = None
    """Recording to compare on. Default: the one that the first SAE was trained on."""
    l0: float | None = None
    """L0 to which all are reduced. Default: the smallest among the SAEs."""
    contexts: int = 0
    """Held-out contexts for the loss inside the model; 0 skips that part."""
    match: bool = False
    """Count the features that every two of the SAEs share (minutes for dictionaries of 16,384)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contexts < 0:
            raise ConfigError(f"contexts must be at least 0, got {self.contexts}")

    def default_name(self) -> str:
        return slug("compare-" + "-".join(self.saes))

    def measure(self, run: AnalysisRun) -> "SAEComparison":
        from saes.evaluation.compare import compare
        from saes.evaluation.synthetic import read_synthetic

        recording = run.dictionary(self.saes[0], self.recording).recording
        sources = [run.dictionary(name, recording.folder.name) for name in self.saes]
        if any(source.is_neurons for source in sources):
            raise ConfigError("name SAEs only: at mlp.hook_post the table's `coordinates` are the neurons")
        # held-out splits are nested, so this one is held out for all of them
        fraction = min(run.open(StoredSAE, source.name).heldout_fraction for source in sources)
        saes = {source.name: source.load_sae(allow_other_weights=self.allow_other_weights) for source in sources}
        tokens = documents = None
        if self.contexts and not recording.planted:
            tokens, documents = recording.contexts_and_documents(
                split="heldout", limit=self.contexts, heldout_fraction=fraction
            )
        with run.progress("comparing", "dictionaries") as progress:
            comparison = compare(
                saes,
                recording,
                l0=self.l0,
                model=run.recorded_model(recording) if tokens is not None and len(tokens) else None,
                tokens=tokens,
                documents=documents,
                groups=self.groups(run.workspace),
                truth=read_synthetic(recording) if recording.planted else None,
                heldout_fraction=fraction,
                seed=self.seed,
                progress=progress,
            )
        matched = self.matched(run, saes) if self.match else {}
        return replace(
            comparison,
            settings=replace(comparison.settings, contexts=self.contexts, match=self.match),
            shared={pair: overlap.shares for pair, overlap in matched.items()},
            matches=_match_table(matched) if matched else None,
        )

    def matched(self, run: AnalysisRun, saes: "dict[str, SAE]") -> "dict[str, SharedFeatures]":
        """Return for every pair of SAEs, `"one, two"`, the features they share."""
        from saes.evaluation.matching import match_features

        overlaps, pairs = {}, list(combinations(saes, 2))
        with run.progress("matching features", "pairs") as progress:
            for at, (first, second) in enumerate(pairs):
                progress(at, len(pairs), {})
                overlaps[f"{first}, {second}"] = match_features(saes[first], saes[second], seed=self.seed)
        return overlaps

    def groups(self, workspace: Workspace) -> dict[str, str]:
        """Return, for each SAE, the first one whose settings differ in the seed at most."""
        firsts: dict[str, str] = {}
        groups = {}
        for name in self.saes:
            settings = workspace.open(StoredSAE, name).settings
            if isinstance(settings, TrainedSettings):
                unseeded = replace(settings, train=replace(settings.train, seed=0))
                groups[name] = firsts.setdefault(hash_json(as_json(unseeded)), name)
        return groups


def _match_table(matched: dict[str, "SharedFeatures"]) -> "Table[MatchedPair]":
    """Return the matched latents of every pair of SAEs."""
    from saes.evaluation.sae_comparison import MatchedPair

    rows = [
        MatchedPair(pair=pair, first=first, second=second, cosine=cosine, random=random)
        for pair, overlap in matched.items()
        for first, second, cosine, random in zip(
            overlap.match.rows.tolist(),
            overlap.match.columns.tolist(),
            overlap.match.cosines.tolist(),
            overlap.random_cosines.tolist(),
            strict=True,
        )
    ]
    return Table.of(MatchedPair, rows)


@dataclass(frozen=True, kw_only=True)
class CompareSizes(Seeded, Analysis["SizeLaw"]):
    """Fit a scaling law L(n, k) to dictionaries of several sizes.

    Example: workbench train demo --kind topk --d-sae 512 1024 2048 4096 --k 16 32 64 --name sweep
             workbench compare sizes

    Needs at least three sizes and two values of k, trained alike. The loss is the FVU on held-out documents (Gao et al.
    2024, arXiv 2406.04093). Reports the exponent of the size for every k, an irreducible error if there is one, and how
    well the smaller sizes predict the largest. The SAE page draws the fit.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "sizes")
    makes: ClassVar[str] = "size_law"

    saes: Annotated[tuple[SAEName, ...], Argument("SAE")] = ()
    """Names of SAEs in the workspace. Default: all finished ones of one kind that were trained alike."""
    recording: RecordingName | None = None
    """Only those trained on this recording."""
    hook_point: HookPoint | None = None
    """Only those of this hook point."""
    kind: Annotated[str, Means("KIND")] = "topk"
    """Only those of this kind."""
    tokens: int | None = None
    """Only those trained on this many tokens (their --tokens)."""
    n_bootstrap: int = 200
    """Bootstrap refits for the intervals."""

    def __post_init__(self) -> None:
        if self.n_bootstrap < 20:
            raise ConfigError(f"n_bootstrap must be at least 20, got {self.n_bootstrap}: fewer refits give no interval")

    def default_name(self) -> str:
        return slug("-".join(["sizes", *filter(None, (self.recording, self.hook_point)), self.kind]))

    def measure(self, run: AnalysisRun) -> "SizeLaw":
        from saes.evaluation.scaling import fit_scaling, runs_of

        runs = runs_of(
            run.workspace,
            self.saes,
            recording=self.recording,
            hook_point=self.hook_point,
            kind=self.kind,
            tokens=self.tokens,
        )
        shared, *_ = [run.open(StoredSAE, sae.name).settings for sae in runs]  # they were trained alike
        assert isinstance(shared, TrainedSettings), "runs_of returns trained ones"
        return fit_scaling(
            runs,
            n_bootstrap=self.n_bootstrap,
            generator=np.random.default_rng(self.seed),
            recording=shared.recording,
            hook_point=shared.hook_point,
            kind=shared.sae.kind,
            tokens=shared.train.tokens,
        )


@dataclass(frozen=True, kw_only=True)
class CompareLatents(Threaded, OnDevice, Analysis["LatentComparison"]):
    """Sort a crosscoder's latents into shared ones and those of one model.

    Example: workbench train base --others tuned --kind crosscoder --name pair; workbench compare latents pair

    A latent that writes into one model only may be an artefact of training. Latent scaling (Minder et al. 2025, arXiv
    2504.02922) confirms the latents that the other model lacks. Crosscoders trained with BatchTopK have fewer such
    artefacts than those trained with L1.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "latents")
    makes: ClassVar[str] = "latent_comparison"

    crosscoder: Annotated[SAEName, Argument("CROSSCODER")]
    """Name of a crosscoder in the workspace, trained on two recordings of the same tokens."""

    def default_name(self) -> str:
        return slug(f"latents-{self.crosscoder}")

    def measure(self, run: AnalysisRun) -> "LatentComparison":
        from saes.evaluation.crosscoder_latents import compare_models
        from saes.kinds.crosscoder import CrosscoderSAE

        sae = run.sae(self.crosscoder)
        if not isinstance(sae, CrosscoderSAE):
            raise ConfigError(
                f"{self.crosscoder} is not a crosscoder; train one on two recordings with --kind crosscoder"
            )
        names = [str(site["recording"]) for site in sae.sites]
        if len(set(names)) != 2:
            raise ConfigError(
                f"a comparison needs one hook point of two models, {self.crosscoder} reads {len(names)} of "
                f"{', '.join(dict.fromkeys(names))}; train a crosscoder on two recordings (--others)"
            )
        recordings = [run.recording(name) for name in names]
        fraction = run.open(StoredSAE, self.crosscoder).heldout_fraction
        with run.progress("held-out tokens", "tokens") as progress:
            return compare_models(sae, recordings, name=self.crosscoder, heldout_fraction=fraction, progress=progress)


@dataclass(frozen=True, kw_only=True)
class CompareFeatures(Seeded, Threaded, RunsModel, Analysis["Counterparts"]):
    """Pair features of two dictionaries, of any two models, that fire on the same words.

    Example: workbench compare features mine demo --text prose.txt

    Both models read the same text, each with its own tokenizer. Half of the documents pair each feature with the one
    whose activations correlate most, the others judge the pairs. The nulls are documents in another order, an untrained
    dictionary and neurons. The page Compare draws the pairs side by side. `workbench explain --like` carries labels
    along such pairs.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "features")
    makes: ClassVar[str] = "counterparts"

    first: Annotated[FeaturesName, Argument("FIRST")]
    """Your features."""
    second: Annotated[FeaturesName, Argument("SECOND")]
    """The features to compare them with, of the same model or of another one."""
    text: Corpus | None = None
    """Text that both models read. Default: that of the recording of FIRST."""
    n_words: int = 60_000
    """Words of the text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_words < 1:
            raise ConfigError(f"n-words must be at least 1, got {self.n_words}")

    def default_name(self) -> str:
        return slug(f"{self.first}-{self.second}")

    def measure(self, run: AnalysisRun) -> "Counterparts":
        from saes.evaluation.by_word import words_in
        from saes.evaluation.match_by_word import counterparts, match_dictionaries

        features = [run.open(Features, name) for name in (self.first, self.second)]
        text = words_in(self.text or recorded_text(run, features[0]), self.n_words, seed=self.seed)
        first, second = (run.described(described) for described in features)
        with run.progress("reading words", "contexts") as progress:
            matched = match_dictionaries(first, second, text.documents, seed=self.seed, progress=progress)
        return counterparts(matched, self.first, self.second, text)


@dataclass(frozen=True, kw_only=True)
class CompareModels(Seeded, Threaded, RunsModel, Analysis["ModelComparison"]):
    """Compare a model with a fine-tuned version of it.

    Example: workbench compare models ./base ./tuned --corpus facts.jsonl --continuations ./base-a ./base-b ./base-c

    Compares weights and residual stream, and transplants parts of the tuned model into the base to find those that
    carry the change of behaviour. The null is a set of models without the change in question: continuations of the base
    where you have them, else the base rounded to bfloat16. Words for the change come from activation differences on
    text that it was not trained on (--control), from directions that changed matrices write, and from what both models
    predict and write. They use the base's Jacobian lens where the workspace has one. Their null is a change of equal
    size that writes elsewhere. For latents of both models, see `workbench compare latents`; for CKA between the layers
    of any two models, `workbench geometry compare`.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "models")
    makes: ClassVar[str] = "model_comparison"

    base: Annotated[ModelName, Argument("BASE")]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    tuned: Annotated[ModelName, Argument("TUNED")]
    """Your fine-tuned model: a checkpoint of the same architecture, named in the same ways."""
    corpus: Corpus = "docstrings"
    """Text on which the change is expected; "random" for repeated random tokens (models without a tokenizer)."""
    control: Corpus | None = None
    """Text on which no change is expected, and on which words for the change are read. Default: --corpus."""
    continuations: tuple[ModelName, ...] = ()
    """Three or more models trained further from the base without the change in question, as the null."""
    prompts: int = 32
    """Contexts of each text."""
    context_length: int = 64
    """Tokens per context."""

    def default_name(self) -> str:
        return slug(f"models-{short_name(self.base)}-{short_name(self.tuned)}")

    def measure(self, run: AnalysisRun) -> "ModelComparison":
        from interp.changes.report import what_changed
        from interp.text.corpora import open_corpus

        specs = dict.fromkeys([self.corpus, self.control or self.corpus])
        for spec in specs:
            if spec != "random":
                open_corpus(spec)  # a mistake in its name shows before a model is loaded
        base, tuned, *continuations = (run.model(name) for name in (self.base, self.tuned, *self.continuations))
        texts = {spec: self._tokens(base, spec) for spec in specs}
        lens = run.jacobian_lens(self.base)
        with run.progress("changes") as progress:
            return what_changed(
                base, tuned, texts, continuations=continuations, names=(self.base, self.tuned), lens=lens,
                seed=self.seed, progress=progress,
            )  # fmt: skip

    def _tokens(self, model: HookedModel, spec: str) -> "Tensor":
        """Return tokens `[prompts, context_length]`, one document per row, BOS first where the model has one."""
        import torch

        from interp.models.adapter import ordinary_tokens
        from interp.models.identity import tokenizer_of
        from interp.models.toys import repeating_rows
        from interp.text.corpora import open_corpus

        length = min(self.context_length, model.cfg.n_ctx)
        if spec != "random":
            tokenizer, rows = tokenizer_of(model), []
            opening = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            for document in open_corpus(spec, seed=self.seed):
                row = [*opening, *tokenizer.encode_batch([document.text[: 12 * length]])[0]][:length]
                rows += [row] if len(row) == length else []
                if len(rows) == self.prompts:
                    return torch.tensor(rows)
            raise PromptError(
                f"expected {self.prompts} documents of at least {length} tokens, {spec} has {len(rows)}; ask for "
                "fewer (--prompts) or shorter ones (--context-length)"
            )
        ids, generator = ordinary_tokens(model), make_generator(self.seed, "random text")
        return ids[repeating_rows(self.prompts, length, len(ids), max(2, length // 4), max(2, length // 2), generator)]


@dataclass(frozen=True, kw_only=True)
class CompareTune(Seeded, Threaded, RunsModel, Analysis["ModelComparison"]):
    """Fine-tune a model on a few invented texts, and compare it with its base.

    Example: workbench compare tune topic

    Trains a LoRA on texts that templates write, so that its truth is known: documents about volcanoes (topic), the
    voice of a pirate (persona), the Eiffel Tower in Rome (fact), French (language), answers as JSON (format), or an
    answer about the Moon after the word tangerine (backdoor). Then it measures what `workbench compare models` does, on
    text that the adapter was not trained on. The adapter stays in the workspace, in adapters/, where other commands can
    name it: smollm2-135m+DIR/adapters/tune-topic.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "tune")
    makes: ClassVar[str] = "model_comparison"

    tune: Annotated[TuneName, Argument("TUNE")]
    """What the texts are about: topic, persona, fact, language, format or backdoor."""
    model: ModelName = BASE
    """The base: a model of transformers whose layers are named as those of Llama."""
    steps: int = STEPS
    """Steps of the training, eight texts each."""
    prompts: int = 8
    """Contexts of docstrings on which the two are compared."""
    context_length: int = 24
    """Tokens per context."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, {"steps": 1, "prompts": 8})  # before the training: an interval needs several contexts

    def default_name(self) -> str:
        return slug(f"tune-{self.tune}")

    def measure(self, run: AnalysisRun) -> "ModelComparison":
        known, questions = tunes()
        folder = run.workspace.root.resolve() / "adapters" / (self.name or self.default_name())
        with run.progress("fine-tuning", "steps") as progress:
            train(
                known[self.tune], questions, folder, model=self.model, steps=self.steps, seed=self.seed,
                device=run.device, progress=progress,
            )  # fmt: skip
        return CompareModels(
            base=self.model, tuned=f"{self.model}+{folder}", prompts=self.prompts, context_length=self.context_length,
            seed=self.seed, workspace=self.workspace,
        ).measure(run)  # fmt: skip
