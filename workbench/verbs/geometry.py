"""`workbench geometry ...`: the geometry of a model's representations, one verb per question.

- `shapes MODEL`: lists of words that lie on a circle, along a line or in a cluster.
- `space MODEL`: spectrum, anisotropy and intrinsic dimension of embeddings and activations, and analogies.
- `compare A [B]`: how alike the layers of one model, two models or two checkpoints are.

A further verb of the family is a dataclass here with its `words`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from interp.errors import ConfigError
from interp.geometry.points import ShapesConfig
from interp.models.hooked import HookedModel
from interp.models.short_name import short_name
from interp.options import Argument, Corpus, HookPoint, ModelName, Word
from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import Heading, ModelArgument, RunsModel, Seeded, Threaded, settings_of, slug
from workbench.verbs.heads import corpus_contexts

if TYPE_CHECKING:
    from torch import Tensor

    from interp.geometry.space import SpaceComparison, SpaceReport
    from interp.geometry.word_geometry import WordGeometry

HEADING = Heading.MAPS


@dataclass(frozen=True, kw_only=True)
class Shapes(ShapesConfig, Threaded, RunsModel, Analysis["WordGeometry"]):
    """Test whether weekdays, months, digits ... lie on a circle or a line.

    Example: workbench geometry shapes smollm2-135m --lists weekdays months

    Lists: weekdays, months, digits, number words, letters, colours and compass points. The layer is chosen on half of
    the sentences and tested on the other half; p-values are corrected for the search over layers and lists. A list of
    too few words gets no verdict.
    """

    words: ClassVar[tuple[str, ...]] = ("geometry", "shapes")
    makes: ClassVar[str] = "word_geometry"

    model: ModelArgument
    lists: tuple[Word, ...] = ()
    """Lists to measure. Default: all seven. A single list cannot be tested for being a cluster among others."""
    own_words: tuple[Word, ...] = ()
    """Words of your own, in their order, as a further list."""
    cyclic: bool = False
    """Your own words are cyclic: the last is followed by the first."""

    def measure(self, run: AnalysisRun) -> "WordGeometry":
        from interp.geometry.report import measure_concepts
        from interp.geometry.words import find_concepts, own_concept

        concepts = find_concepts(self.lists) if self.lists or not self.own_words else []
        if self.own_words:
            concepts = [*concepts, own_concept("own words", self.own_words, cyclic=self.cyclic)]
        model, config = run.model(self.model), settings_of(self, ShapesConfig)
        with run.progress("geometry", "steps") as progress:
            return measure_concepts(model, concepts, config, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Space(Seeded, Threaded, RunsModel, Analysis["SpaceReport"]):
    """Measure the spectrum, anisotropy and dimension of a model's representations.

    Example: workbench geometry space smollm2-135m --hook-points blocks.0.hook_resid_post blocks.15.hook_resid_post

    The token embeddings are always measured, with analogies among them. Nulls: isotropic points, Gaussian points of the
    same covariance, and for analogies `b - a + c` shuffled pairs and the neighbours of the third word alone
    (the baseline that ignores `b - a`). The dashboard's *Geometry* page shows the result.
    """

    words: ClassVar[tuple[str, ...]] = ("geometry", "space")
    makes: ClassVar[str] = "space"

    model: ModelArgument
    hook_points: tuple[HookPoint, ...] = ()
    """Hook points whose values on text are measured too."""
    points: int = 2000
    """Tokens per hook point, and points that the intrinsic dimension is measured on."""
    corpus: Corpus = "docstrings"
    """Text for the hook points: docstrings, a .txt, .jsonl or .parquet file, or hub:NAME."""
    context_length: int = 64
    """Tokens per context, BOS included."""

    def default_name(self) -> str:
        return slug(f"space-{short_name(self.model)}")

    def measure(self, run: AnalysisRun) -> "SpaceReport":
        from interp.geometry.space import measure_space

        model = run.model(self.model)
        tokens = _text(model, self.corpus, self.points, self.context_length, self.seed) if self.hook_points else None
        with run.progress("spaces", "spaces") as progress:
            return measure_space(
                model,
                tokens,
                self.hook_points,
                n_points=self.points,
                corpus=self.corpus,
                seed=self.seed,
                progress=progress,
            )


@dataclass(frozen=True, kw_only=True)
class CompareSpaces(Seeded, Threaded, RunsModel, Analysis["SpaceComparison"]):
    """Compare the layers of one model, of two models, or of two checkpoints.

    Example: workbench geometry compare small:mlp-2l

    CKA of all layers with all, in batches; Procrustes and the optimal transport distance of neighbouring layers (one
    model) or corresponding layers (two). Nulls: shuffled rows, and split halves of one cloud. For a fine-tuned
    model, `workbench compare models` also finds the parts that carry the change of behaviour.
    """

    words: ClassVar[tuple[str, ...]] = ("geometry", "compare")
    makes: ClassVar[str] = "space_comparison"

    model: ModelArgument
    other: Annotated[ModelName | None, Argument("OTHER")] = None
    """A second model or checkpoint with the same tokenizer. Default: the layers of the first with each other."""
    hook_points: tuple[HookPoint, ...] = ()
    """Default: the residual stream after every block."""
    points: int = 1024
    """Tokens that are compared."""
    batch: int = 256
    """Tokens per batch of CKA."""
    corpus: Corpus = "docstrings"
    """Text: docstrings, a .txt, .jsonl or .parquet file, or hub:NAME."""
    context_length: int = 64
    """Tokens per context, BOS included."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are compared."""
        return (self.model, *([self.other] if self.other else []))

    def default_name(self) -> str:
        return slug(f"compare-{'-'.join(map(short_name, self.models))}")

    def measure(self, run: AnalysisRun) -> "SpaceComparison":
        from interp.geometry.space import compare_spaces

        models = [run.model(spec) for spec in self.models]
        tokens = _text(models[0], self.corpus, self.points, self.context_length, self.seed)
        with run.progress("comparison", "pairs") as progress:
            return compare_spaces(
                tokens,
                *models,
                hook_points=self.hook_points,
                n_points=self.points,
                batch=self.batch,
                corpus=self.corpus,
                seed=self.seed,
                progress=progress,
            )


def _text(model: HookedModel, corpus: str, n_points: int, length: int, seed: int) -> "Tensor":
    """Return enough contexts `[n, length]` of the corpus for the points asked for."""
    for name, number, least in (("context_length", length, 2), ("points", n_points, 4)):
        if number < least:
            raise ConfigError(f"{name} must be at least {least}, got {number}")
    return corpus_contexts(model, corpus, -(-n_points // (length - 1)) + 1, length, seed)
