"""`workbench heads MODEL`: scores of every attention head. `workbench lens MODEL`: a lens that reads every layer."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np

from interp.circuits.config import HeadScoresConfig
from interp.circuits.heads_in_text import HeadsInText, HeadsInTextConfig
from interp.errors import ConfigError, MismatchError
from interp.lenses.jacobian_lens import JacobianLens, JacobianLensConfig
from interp.lenses.lens import newest_lens
from interp.lenses.tuned_lens import TunedLens, TunedLensConfig
from interp.models.hooked import HookedModel
from interp.options import BASIC, Corpus, Means, RecordingName
from workbench.analysis import AnalysisRun, Resumable
from workbench.terminal import Heading, ModelArgument, RunsModel, Threaded, say, settings_of

if TYPE_CHECKING:
    from torch import Tensor

    from interp.circuits.head_scores import HeadScores
    from interp.recording.store import Recording

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class Heads(HeadScoresConfig, HeadsInTextConfig, Threaded, RunsModel, Resumable["HeadScores | HeadsInText"]):
    """Score every head by kind, in repeated random tokens or over a text.

    Example: workbench heads smollm2-135m

    Example: workbench heads smollm2-135m --recording demo --text-tokens 20000

    In random tokens a score is the fraction of attention, 0 to 1, on the tokens of a kind (predecessor: in texts). A
    head counts as found when its interval lies 0.1 above its null, corrected for testing all heads. Over a text
    (--recording, --text) every head has its kinds, the words that it reads and writes, and twenty examples, beside
    shuffled keys and an untrained model; an interrupted command continues when it is repeated.
    """

    makes: ClassVar[str] = "heads"

    model: ModelArgument
    recording: Annotated[RecordingName | None, BASIC] = None
    """Recording whose text is read."""
    text: Annotated[Corpus | None, BASIC] = None
    """Text that is read: `docstrings`, a .txt, .jsonl or .parquet file, or hub:NAME."""

    def __post_init__(self) -> None:
        super().__post_init__()
        settings_of(self, HeadsInTextConfig)  # its checks
        if self.recording and self.text:
            raise ConfigError("--recording and --text each name a text; give one of them")

    def writes(self) -> str:
        return "heads_in_text" if self.recording or self.text else "heads"

    def measure(self, run: AnalysisRun) -> "HeadScores | HeadsInText":
        from interp.circuits.head_kinds import score_heads

        if self.text:
            from interp.text.corpora import open_corpus

            open_corpus(self.text)  # a mistake in its name shows before a model is loaded
        config, model = settings_of(self, HeadScoresConfig), run.model(self.model)
        if self.writes() == "heads_in_text":
            return self.measure_text(run, model)
        with run.progress("head scores", "batches") as progress:
            return score_heads(model, config, progress=progress)

    def measure_text(self, run: AnalysisRun, model: HookedModel) -> HeadsInText:
        """Measure every head over a text."""
        from interp.circuits.measure_heads import measure_heads

        length = min(self.text_context, model.cfg.n_ctx)
        n = -(-self.text_tokens // length)
        if self.text:
            source, (tokens, documents) = f"corpus:{self.text}", packed(model, self.text, n, length, self.seeds[0])
        else:
            recording = recording_of(run, self.recording or "", self.model)
            length = min(length, recording.context_length)
            n = -(-self.text_tokens // length)
            source, read = recording.key, recording.contexts_and_documents(limit=n)
            tokens, documents = (part[:, :length] for part in read)
        with run.progress("heads in a text", "contexts") as progress:
            return measure_heads(
                model, tokens, documents, settings_of(self, HeadsInTextConfig), source=source,
                lens=run.jacobian_lens(self.model), batch_size=self.batch_size, seed=self.seeds[0],
                draft=run.draft, progress=progress,
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FitLens(TunedLensConfig, JacobianLensConfig, Threaded, RunsModel, Resumable["TunedLens | JacobianLens"]):
    """Fit a lens, which decodes the residual stream of any layer into next tokens.

    Example: workbench lens smollm2-135m --kind jacobian --rounds 30

    Example: workbench lens smollm2-135m --steps 100 --positions 64 --contexts 1 --layers 0 10 20 29

    A tuned lens has an affine translator for each layer, trained to reproduce the model's output (Belrose et al. 2023,
    arXiv 2303.08112). A Jacobian lens is the mean derivative of the last residual in the layer's (Gurnee et al. 2026),
    without training. It reads what a direction makes the model say, so pages of features and search by meaning use it.
    An interrupted command resumes when it is repeated, to the same numbers.
    """

    words: ClassVar[tuple[str, ...]] = ("lens",)
    makes: ClassVar[str] = "lens"

    model: ModelArgument
    kind: Annotated[Literal["tuned", "jacobian"], BASIC] = "tuned"
    """tuned: trained translators; jacobian: mean Jacobians."""
    recording: RecordingName | None = None
    """Recording to take tokens from; its held-out documents are held out. Default: the text of --corpus."""
    corpus: Corpus = "docstrings"
    """`docstrings`, a .txt, .jsonl or .parquet file, or hub:NAME."""
    n_contexts: int | None = None
    """Contexts to read from the corpus; the last tenth of them is held out. Default: 400, and 1,600 for --kind
    jacobian."""
    context_length: int | None = None
    """Tokens per context, BOS included; of a recording the first ones of each context. Default: 128, and 48 for --kind
    jacobian."""

    from_file: Annotated[str | None, Means("FILE")] = None
    """Take a published Jacobian lens, the .pt file of TransformerLens, instead of fitting one; it is measured."""
    export: Annotated[str | None, Means("FILE")] = None
    """Write the Jacobian lens as such a .pt file, too."""

    def writes(self) -> str:
        return "jacobian_lens" if self.kind == "jacobian" else "lens"

    def measure(self, run: AnalysisRun) -> TunedLens | JacobianLens:
        from interp.text.corpora import open_corpus

        if self.recording is None:
            open_corpus(self.corpus)  # a mistake in its name shows before a model is loaded
        if self.kind == "jacobian":
            return self.measure_jacobian(run)
        for option, value in (("--from-file", self.from_file), ("--export", self.export)):
            if value is not None:
                raise ConfigError(f"{option} is for --kind jacobian")
        from interp.lenses.lens_training import train_tuned_lens

        model, config = run.model(self.model), settings_of(self, TunedLensConfig)
        contexts, heldout, source = self.tokens(run, model)
        with run.progress("tuned lens", "steps") as progress:
            return train_tuned_lens(
                model,
                contexts,
                heldout,
                config,
                source=source,
                draft=run.draft,
                progress=progress,
            )

    def measure_jacobian(self, run: AnalysisRun) -> JacobianLens:
        """Fit a Jacobian lens, or take a published one, and measure it."""
        from interp.lenses.jacobian_fit import fit_jacobian_lens, import_jacobian_lens, write_published

        model, config = run.model(self.model), settings_of(self, JacobianLensConfig)
        contexts, heldout, source = self.tokens(run, model)
        tuned = newest_lens(run.workspace, TunedLens, run.weight_hash(self.model))
        if self.from_file is not None:
            file = Path(self.from_file)
            lens = import_jacobian_lens(file, model, contexts, heldout, config, tuned=tuned)
        else:
            with run.progress("Jacobian lens", "rounds") as progress:
                lens = fit_jacobian_lens(
                    model,
                    contexts,
                    heldout,
                    config,
                    source=source,
                    tuned=tuned,
                    draft=run.draft,
                    progress=progress,
                )
        if self.export is not None:
            write_published(lens, Path(self.export))
            say(f"wrote {self.export}")
        return lens

    def tokens(self, run: AnalysisRun, model: HookedModel) -> "tuple[Tensor, Tensor, str]":
        """Return contexts to train on, held-out contexts, and their source."""
        n, length = (1600, 48) if self.kind == "jacobian" else (400, 128)
        n, length = self.n_contexts or n, self.context_length or length
        if self.recording is None:
            contexts = corpus_contexts(model, self.corpus, n, length, self.seed)
            n_heldout = max(1, len(contexts) // 10)
            return contexts[:-n_heldout], contexts[-n_heldout:], f"corpus:{self.corpus}"
        recording = recording_of(run, self.recording, self.model)
        train, heldout = (recording.contexts(split=split)[:, :length] for split in ("train", "heldout"))
        return train, heldout, recording.key


def recording_of(run: AnalysisRun, name: str, model: str) -> "Recording":
    """Return a recording of a model that is loaded. Raises `MismatchError` for one of other weights."""
    recording = run.recording(name)
    if recording.weight_hash != run.weight_hash(model):
        raise MismatchError(
            f"recording {name} was made with {recording.model}, other weights than {model}; "
            "name that model, or leave --recording out"
        )
    return recording


def corpus_contexts(model: HookedModel, corpus: str, n: int, length: int, seed: int) -> "Tensor":
    """Return the tokens of whole contexts `[n, length]`, BOS first when the model has one."""
    return packed(model, corpus, n, length, seed)[0]


def packed(model: HookedModel, corpus: str, n: int, length: int, seed: int) -> "tuple[Tensor, Tensor]":
    """Return whole contexts and the document of each token, `[n, length]` both; -1 for BOS."""
    import torch

    from interp.models.identity import tokenizer_of
    from interp.text.corpora import open_corpus
    from interp.text.tokens import pack

    tokenizer = tokenizer_of(model)
    bos = "none" if tokenizer.bos_token_id is None else "context"
    contexts = itertools.islice(pack(open_corpus(corpus, seed=seed), tokenizer, length, bos), n)
    whole = [np.stack([context.tokens, context.document]) for context in contexts if context.document[-1] >= 0]
    both = torch.from_numpy(np.stack(whole, 1)).long() if whole else torch.zeros(2, 0, length, dtype=torch.long)
    return both[0], both[1]
