"""`workbench heads MODEL`: scores of every attention head. `workbench lens MODEL`: a lens that reads every layer."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from interp.circuits.config import HeadScoresConfig
from interp.errors import ConfigError
from interp.lenses.jacobian_lens import JacobianLensConfig
from interp.lenses.tuned_lens import TunedLensConfig
from interp.options import BASIC, Corpus, Means, RecordingName
from workbench.analysis import Analysis, AnalysisRun, Resumable
from workbench.terminal import Heading, ModelArgument, RunsModel, Threaded, say, settings_of

if TYPE_CHECKING:
    from torch import Tensor

    from interp.circuits.head_scores import HeadScores
    from interp.lenses.jacobian_lens import JacobianLens
    from interp.lenses.tuned_lens import TunedLens
    from interp.models.hooked import HookedModel

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class Heads(HeadScoresConfig, Threaded, RunsModel, Analysis["HeadScores"]):
    """Score every head as previous-token, duplicate-token, induction and other kinds.

    A score is the fraction of attention, 0 to 1, on the tokens of that kind, in repeated random tokens (predecessor: in
    texts). A head counts as found when its interval lies above its null, corrected for testing all heads.
    """

    makes: ClassVar[str] = "heads"

    model: ModelArgument

    def measure(self, run: AnalysisRun) -> "HeadScores":
        from interp.circuits.head_kinds import score_heads

        config, model = settings_of(self, HeadScoresConfig), run.model(self.model)
        with run.progress("head scores", "batches") as progress:
            return score_heads(model, config, model_name=self.model, progress=progress)


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

    def measure(self, run: AnalysisRun) -> "TunedLens | JacobianLens":
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
                model_name=self.model,
                source=source,
                draft=run.draft,
                progress=progress,
            )

    def measure_jacobian(self, run: AnalysisRun) -> "JacobianLens":
        """Fit a Jacobian lens, or take a published one, and measure it."""
        from interp.lenses.jacobian_fit import fit_jacobian_lens, import_jacobian_lens, write_published
        from interp.lenses.lens import newest_lens
        from interp.lenses.tuned_lens import TunedLens

        model, config = run.model(self.model), settings_of(self, JacobianLensConfig)
        contexts, heldout, source = self.tokens(run, model)
        tuned = newest_lens(run.workspace, TunedLens, run.weight_hash(self.model))
        if self.from_file is not None:
            file = Path(self.from_file)
            lens = import_jacobian_lens(file, model, contexts, heldout, config, model_name=self.model, tuned=tuned)
        else:
            with run.progress("Jacobian lens", "rounds") as progress:
                lens = fit_jacobian_lens(
                    model,
                    contexts,
                    heldout,
                    config,
                    model_name=self.model,
                    source=source,
                    tuned=tuned,
                    draft=run.draft,
                    progress=progress,
                )
        if self.export is not None:
            write_published(lens, Path(self.export))
            say(f"wrote {self.export}")
        return lens

    def tokens(self, run: AnalysisRun, model: "HookedModel") -> "tuple[Tensor, Tensor, str]":
        """Return contexts to train on, held-out contexts, and their source."""
        n, length = (1600, 48) if self.kind == "jacobian" else (400, 128)
        n, length = self.n_contexts or n, self.context_length or length
        if self.recording is None:
            contexts = corpus_contexts(model, self.corpus, n, length, self.seed)
            n_heldout = max(1, len(contexts) // 10)
            return contexts[:-n_heldout], contexts[-n_heldout:], f"corpus:{self.corpus}"
        from interp.errors import MismatchError

        recording = run.recording(self.recording)
        if recording.weight_hash != run.weight_hash(self.model):
            raise MismatchError(
                f"recording {self.recording} was made with {recording.model}, other weights than {self.model}; "
                "name that model, or leave --recording out"
            )
        train, heldout = (recording.contexts(split=split)[:, :length] for split in ("train", "heldout"))
        return train, heldout, recording.key


def corpus_contexts(model: "HookedModel", corpus: str, n: int, length: int, seed: int) -> "Tensor":
    """Return the tokens of whole contexts `[n, length]`, BOS first when the model has one."""
    import itertools

    import numpy as np
    import torch

    from interp.models.identity import tokenizer_of
    from interp.text.corpora import open_corpus
    from interp.text.tokens import pack

    tokenizer = tokenizer_of(model)
    bos = "none" if tokenizer.bos_token_id is None else "context"
    contexts = itertools.islice(pack(open_corpus(corpus, seed=seed), tokenizer, length, bos), n)
    whole = [context.tokens for context in contexts if context.document[-1] >= 0]
    return torch.from_numpy(np.stack(whole)).long() if whole else torch.zeros(0, length, dtype=torch.long)
