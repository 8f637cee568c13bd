"""`workbench record MODEL`: activations on text, written to disk. `workbench models`: models that load by name."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from interp.engines.engine import Engine
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.options import Alias, Corpus, HookPoint, Means
from interp.ranks import ALONE, Ranks
from interp.recording.recorded import RecordConfig, Recorded
from workbench.analysis import AnalysisRun, Resumable
from workbench.engine import OnEngine, certify
from workbench.terminal import Heading, ModelArgument, Threaded, Verb, say, settings_of

if TYPE_CHECKING:
    from interp.text.corpora import Corpus as OpenedCorpus

HEADING = Heading.RECORD

MLPS = "mlps"
"""Name for the inputs and outputs of all MLPs."""


@dataclass(frozen=True, kw_only=True)
class Record(RecordConfig, OnEngine, Threaded, Resumable["Recorded"]):
    """Run a model over text and write its activations at chosen hook points.

    Example: workbench record smollm2-135m --hook-points blocks.9.hook_resid_post --tokens 300000

    An interrupted command resumes when it is repeated, to the same bytes. Several processes or GPUs share the work
    under `torchrun --nproc-per-node 2 -m workbench record ...`, to the same bytes too.

    Example: workbench record smollm2-135m --engine vllm --tokens 300000

    An inference engine is examined before its first recording, and refused where its rows are not those of the model.
    With --live it feeds `workbench train`.
    """

    makes: ClassVar[str] = "recording"
    ranked: ClassVar[bool] = True

    model: ModelArgument
    hook_points: Annotated[tuple[HookPoint, ...], Alias("--hook-point")] = ()
    """Hook points to record, all in one pass; `mlps`: inputs and outputs of all MLPs, as a set of transcoders reads
    them. Default: the residual stream after a third of the blocks."""
    corpus: Corpus = "docstrings"
    """`docstrings` (prose of the installed packages, offline), a .txt, .jsonl or .parquet file, or hub:NAME."""
    column: Annotated[str, Means("COLUMN")] | None = None
    """Column of --corpus with the text, or with conversations (lists of messages), which go through the model's chat
    template. Default: text."""
    compute: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the model's computation, --dtype of other verbs; here --dtype is that of the stored activations."""

    def __post_init__(self) -> None:
        RecordConfig.__post_init__(self)
        OnEngine.__post_init__(self)

    def measure(self, run: AnalysisRun) -> Recorded:
        from interp.models.loading import chat_template
        from interp.text.corpora import open_corpus, with_column

        ranks = run.ranks or ALONE
        with ranks.checked():
            spec = with_column(self.corpus, self.column)
            corpus = open_corpus(spec, seed=self.seed, template=chat_template(self.model))
            model = None if self.engine == "vllm" else run.model(self.model, dtype=self.compute)
        if model is not None:
            return self._record(run, model, corpus, ranks)
        if ranks.world > 1:
            raise ConfigError("vLLM starts its own processes: give --tensor-parallel 2, without torchrun")
        with self.started(self.model, self.compute, self.context_length) as engine:
            run.parents[f"model:{self.model}"] = engine.weight_hash
            certify(run, engine)
            return self._record(run, engine, corpus, ranks)

    def _record(self, run: AnalysisRun, model: HookedModel | Engine, corpus: "OpenedCorpus", ranks: Ranks) -> Recorded:
        from interp.engines.bridge import engine_of
        from interp.models.adapter import after_a_third, mlps_among
        from interp.recording.record import record

        engine = engine_of(model)
        hook_points = list(self.hook_points) or [after_a_third(engine.n_layers)]
        if MLPS in hook_points:
            at = hook_points.index(MLPS)
            hook_points[at : at + 1] = mlps_among(engine.hook_points, engine.n_layers)
        with run.progress("recording", "tokens") as progress:
            return record(
                engine,
                corpus,
                run.folder,
                settings_of(self, RecordConfig),
                hook_points=hook_points,
                progress=progress,
                ranks=ranks,
                draft=run.draft,
            )


@dataclass(frozen=True, kw_only=True)
class Models(Verb):
    """List the models that load by name.

    Any Hugging Face id or folder and any .gguf file loads too.
    """

    def run(self) -> None:
        from interp.models.loading import known_models

        for model in known_models():
            size = f"{model.n_params / 1e6:,.1f}M" if model.n_params >= 1e5 else f"{model.n_params:,}"
            say(
                f"{model.name:<38} {size:>8}  {model.n_layers:>2} layers of {model.d_model:<5} "
                f"{model.source}: {model.note}"
            )
        say("\nAlso: any Hugging Face id (owner/name), a model folder, a .gguf file, or BASE+ADAPTER (peft).")
