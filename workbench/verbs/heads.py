"""`workbench heads MODEL`: scores of every attention head. `workbench lens MODEL`: a tuned lens for early layers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from interp.circuits.config import HeadScoresConfig
from interp.lenses.config import TunedLensConfig
from interp.options import Corpus, RecordingName
from workbench.analysis import Analysis, Resumable, Run
from workbench.terminal import Heading, ModelArgument, RunsModel, Threaded, settings_of, slug

if TYPE_CHECKING:
    from torch import Tensor

    from interp.circuits.head_scores import HeadScores
    from interp.lenses.tuned_lens import TunedLens
    from interp.models.hooked import HookedModel

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class Heads(HeadScoresConfig, Threaded, RunsModel, Analysis["HeadScores"]):
    """Score every head as previous-token, duplicate-token, induction and other kinds.

    A score is the fraction of attention that goes to the tokens of that kind, on repeated random tokens (for the kind
    predecessor on texts): 0 none of it, 1 all of it. A head counts as found when its interval lies above its null,
    corrected for testing all heads.
    """

    makes: ClassVar[str] = "heads"

    model: ModelArgument

    def default_name(self) -> str:
        return slug(self.model)

    def measure(self, run: Run) -> "HeadScores":
        from interp.circuits.head_kinds import score_heads

        config, model = settings_of(self, HeadScoresConfig), run.model(self.model)
        with run.progress("head scores", "batches") as progress:
            return score_heads(model, config, model_name=self.model, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Lens(TunedLensConfig, Threaded, RunsModel, Resumable["TunedLens"]):
    """Train a tuned lens: one affine translator per layer.

    Example: workbench lens smollm2-135m --steps 100 --positions 64 --contexts 1 --layers 0 10 20 29

    A translator maps the residual stream of a layer to that of the last one, and is trained to reproduce the model's
    output (Belrose et al. 2023, arXiv 2303.08112). An interrupted command resumes when it is repeated, to the same
    numbers.
    """

    makes: ClassVar[str] = "lens"

    model: ModelArgument
    recording: RecordingName | None = None
    """Recording to take tokens from; its held-out documents are held out. Default: the text of --corpus."""
    corpus: Corpus = "docstrings"
    """`docstrings`, a .txt, .jsonl or .parquet file, or hub:NAME."""
    n_contexts: int = 400
    """Contexts to read from the corpus; the last tenth of them is held out."""
    context_length: int = 128
    """Tokens per context, BOS included."""

    def default_name(self) -> str:
        return slug(self.model)

    def measure(self, run: Run) -> "TunedLens":
        from interp.lenses.lens_training import train_tuned_lens
        from interp.text.corpora import open_corpus

        if self.recording is None:
            open_corpus(self.corpus)  # a mistake in its name shows before a model is loaded
        config, model = settings_of(self, TunedLensConfig), run.model(self.model)
        contexts, heldout, source = self.tokens(run, model)
        how = {"model_name": self.model, "source": source, "draft": run.draft}
        with run.progress("tuned lens", "steps") as progress:
            return train_tuned_lens(model, contexts, heldout, config, **how, progress=progress)

    def tokens(self, run: Run, model: "HookedModel") -> "tuple[Tensor, Tensor, str]":
        """Return contexts to train on, held-out contexts, and their source."""
        if self.recording is None:
            contexts = corpus_contexts(model, self.corpus, self.n_contexts, self.context_length, self.seed)
            n_heldout = max(1, len(contexts) // 10)
            return contexts[:-n_heldout], contexts[-n_heldout:], f"corpus:{self.corpus}"
        from interp.errors import MismatchError

        recording = run.recording(self.recording)
        if recording.weight_hash != run.weight_hash(self.model):
            raise MismatchError(
                f"recording {self.recording} was made with {recording.model}, other weights than {self.model}; "
                "name that model, or leave --recording out"
            )
        return recording.contexts(split="train"), recording.contexts(split="heldout"), recording.key


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
