"""`workbench own MODEL --text FILE`: a workspace like that of the demo, from your own model and text.

Its settings, whole or quick (`OwnScale`), the costs of its steps, and the steps.
"""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar

from interp.cache import size_text
from interp.errors import ConfigError, MismatchError, MissingError
from interp.geometry.words import CONCEPTS
from interp.models.hooked import HookedModel
from interp.models.short_name import short_name
from interp.options import BASIC, ArtefactName, Corpus, HookPoint, Means
from interp.progress import duration
from interp.recording.recorded import Recorded
from interp.text.corpora import open_corpus, with_column
from interp.tracing.graph import TraceConfig
from interp.tracing.prompts import AnsweredPrompt, answered_facts
from interp.workspace import Workspace
from saes.features.case import ProofConfig
from saes.features.meaning import meaning_of
from saes.features.schema import Features
from saes.features.telling import telling
from saes.training.stored import StoredSAE
from workbench.costs import BATCH, Cost, CostSizes, ModelPace, check_room, costs, measure_pace
from workbench.demo import highlights
from workbench.engine import RecordsInEngine
from workbench.first_look import certificate_name
from workbench.options import command_line
from workbench.serve import OpensDashboard
from workbench.steps import Pipeline, WorkspaceStep, sharing
from workbench.terminal import ModelArgument, RunsModel, Seeded, say, slug
from workbench.verbs.atlas import Atlas
from workbench.verbs.circuit import Induction
from workbench.verbs.doctor import Doctor
from workbench.verbs.evaluate import Evaluate
from workbench.verbs.features import DescribeFeatures, DescribeNeurons, Prove
from workbench.verbs.geometry import Shapes
from workbench.verbs.heads import FitLens, Heads
from workbench.verbs.record import Record
from workbench.verbs.trace import TracePrompt
from workbench.verbs.train import Train

LOGITS = 10 * 4 * 8 * 41
"""Bytes of the logits of the prompts of the induction circuit that are in memory together, for each token."""
PROMPT, ROW = 11, 1e-6
"""Tokens of a prompt, and 10^9 multiplications that a row of a graph takes as long as, for each of its tokens, layers
and dimensions."""


@dataclass(frozen=True, kw_only=True)
class OwnScale:
    """Settings by which a quick run differs from a whole one."""

    tokens: int
    """tokens of text at most"""
    rounds: int
    """rounds of the Jacobian lens"""
    contexts: int
    """held-out contexts of the loss inside the model"""
    layers: int
    """layers whose neurons are described, evenly spread"""
    neuron_tokens: int
    background: int
    """prompts over which the background of graphs is measured"""
    graphs: int
    lists: tuple[str, ...]
    """lists of words whose geometry is measured; all where none is named"""
    proofs: int
    draws: int
    """directions of each null of a proof; with fewer than 99 no claim of five can hold"""
    quick: bool = False
    """only the quick checks of an examination"""


WHOLE = OwnScale(
    tokens=200_000, rounds=6, contexts=Evaluate.contexts, layers=6, neuron_tokens=40_000, background=8, graphs=3,
    lists=("weekdays", "months", "digits"), proofs=3, draws=ProofConfig.draws,
)  # fmt: skip
QUICK = OwnScale(
    tokens=40_000, rounds=2, contexts=8, layers=2, neuron_tokens=15_000, background=3, graphs=1,
    lists=("weekdays",), proofs=1, draws=ProofConfig.draws, quick=True,
)  # fmt: skip


@dataclass(frozen=True)
class OwnFacts:
    """Facts of the model and its text that the steps follow from."""

    sizes: CostSizes
    hook_point: str
    n_layers: int
    n_ctx: int
    prompts: tuple[AnsweredPrompt, ...]
    """prompts that it answers, for graphs; none for a model without MLPs"""
    d_mlp: int
    """neurons of an MLP; 0 without MLPs"""

    def layers(self, n: int) -> tuple[int, ...]:
        """Return `n` layers, evenly spread; none where that is all of them.

        >>> OwnFacts(None, "", 18, 128, (), 2048).layers(6)
        (1, 4, 7, 10, 13, 16)
        """
        return () if n >= self.n_layers else tuple((2 * i + 1) * self.n_layers // (2 * n) for i in range(n))


def further_costs(scale: OwnScale, facts: OwnFacts, pace: ModelPace) -> dict[str, Cost]:
    """Return the cost of each further step, by the kind of artefact, and of a quick examination.

    Counted are passes; the share of a graph's row that one product takes, and constants of a few seconds, are those of
    two models (docs/log.md).
    """
    d_model, layers = facts.sizes.d_in, min(scale.layers, facts.n_layers)
    directions = 2 * layers * facts.d_mlp
    rows = TraceConfig.max_feature_nodes
    traced = rows * PROMPT * facts.n_layers * d_model * ROW * pace.product
    vocabulary = 8 * pace.d_vocab * d_model
    graph = pace.memory + 12 * rows * min(TraceConfig.max_neurons, PROMPT * facts.n_layers * facts.d_mlp)
    read = 1.3 * scale.neuron_tokens / BATCH * pace.blocks
    words = 1.2 * directions / 2 / BATCH * pace.logits
    lists = len(scale.lists or CONCEPTS)
    above = pace.blocks - pace.batch  # steering and ablation run what lies above the hook point
    costs = {
        "neurons": Cost(
            100 * directions, graph + vocabulary, 5 + read + words + 6e-4 * directions + scale.background * traced
        ),
        "attribution_graph": Cost(2e6, graph, 5 + 1.8 * traced),
        "induction_circuit": Cost(1e6, pace.memory + LOGITS * pace.d_vocab, 5 + 10 * pace.blocks),
        "word_geometry": Cost(1e6, pace.memory, lists * (3 + 4 * (pace.blocks + pace.logits))),
        "proof": Cost(1e6, pace.memory + 2 * vocabulary, 10 + scale.draws * (0.1 * above + 0.01 * pace.logits)),
    }
    if scale.quick:
        costs["certificate"] = Cost(1e5, pace.memory + pace.weights, 2 + 0.2 * (pace.blocks + pace.logits))
    return costs


FEWEST_TOKENS, FEWEST_DOCUMENTS = 5_000, 20
"""Least text for a useful dictionary; a tenth of the documents is held out."""
TOKENS_PER_LATENT = 25
REPEATS = 5
"""Times that the recorded tokens are read in training."""
ENGLISH = {"the", "of", "and", "to", "in", "is", "that", "it", "for", "as", "was", "with", "on", "be", "by", "this"}
LEAST_ENGLISH = 0.1
"""Least share of these words in English text; of prose about 0.3, of German or French below 0.05."""
INDUCTION_TOKENS = 41
"""Tokens of a prompt of the induction circuit, as in the demo."""


@dataclass(frozen=True, kw_only=True)
class Own(OpensDashboard, RecordsInEngine, Seeded, RunsModel):
    """Make a workspace from your own model and text: features, map, heads, graphs, proofs.

    Example: workbench own smollm2-135m+./my-lora --text pages.jsonl

    The model is examined first. Then record, train, lens, features, evaluate, atlas, heads, neurons, trace, circuit
    induction and geometry shapes run, an examination of the dictionary, and proofs of three features; each is printed
    as you could type it. Disk, memory and time of all are printed first, and a plan that does not fit is refused. A
    step that fails does not stop the others; then the exit code is 1. An interrupted command continues when it is
    repeated.
    """

    resumes: ClassVar[bool] = True

    model: ModelArgument
    text: Corpus
    """Text to record: a .txt, .jsonl or .parquet file, a folder of .txt files, hub:NAME, or `docstrings`."""
    column: Annotated[str, Means("COLUMN")] | None = None
    """Column of --text with the text or conversations. Default: text."""
    name: Annotated[ArtefactName | None, BASIC] = None
    """Name of everything that is made. Default: from the model."""
    hook_point: HookPoint | None = None
    """Hook point of the dictionary. Default: the residual stream after a third of the blocks."""
    tokens: int | None = None
    """Tokens to record at most. Default: 200,000, with --quick 40,000."""
    d_sae: int | None = None
    """Latents of the dictionary. Default: 8 for each dimension, at most one for 25 tokens of text."""
    k: int = 32
    """Latents active per token, on average."""
    rounds: int | None = None
    """Rounds of the fit of the Jacobian lens, which reads what features make the model say; 0 leaves it out. Default:
    6, with --quick 2."""
    quick: bool = False
    """A third of the time: less text, fewer rounds, layers, graphs and checks. Everything is named NAME-quick."""
    brief: bool = False
    """Stop after the heads: no neurons, graphs, circuit, geometry of words and proofs."""
    doctor: bool = True
    """Examine the model first, and stop where a check fails."""
    plan: bool = False
    """Print what would be run, with sizes and times, and stop."""

    def __post_init__(self) -> None:
        numbers = (self.scale.tokens, self.k, 1 if self.d_sae is None else self.d_sae)
        if min(numbers) < 1 or self.scale.rounds < 0:
            raise ConfigError("tokens, k and d-sae must be at least 1, and rounds at least 0")
        super().__post_init__()

    def run(self) -> int:
        """Measure, print the costs, and run the missing steps; return 1 where one failed."""
        from interp.models.sharing import sharing_models

        started = time.time()
        with sharing_models():
            facts = self.measured()
            if self.plan:
                return 0
            workspace = Workspace(self.workspace, create=True)
            failures = self.made_by(workspace, self.steps(facts))
        say(f"\nDone after {duration(time.time() - started)}.")
        for line in self.findings(workspace, facts):
            say(line)
        if failures:
            say("\nNot everything went well; the same command tries again:\n  " + "\n  ".join(failures))
        self.open_dashboard()
        return int(bool(failures))

    def made_by(self, workspace: Workspace, steps: list[WorkspaceStep]) -> list[str]:
        """Run the steps and the proofs; return a sentence for each that failed.

        Raises `MismatchError` where the examination of the model failed.
        """
        pipeline = Pipeline(workspace, len(steps) + self.scale.proofs)
        if self.doctor:
            pipeline.run(steps[:1])
            if pipeline.failures:
                raise MismatchError(
                    f"{pipeline.failures[0]}: numbers of this set-up may be wrong, so nothing was computed with it; "
                    "--no-doctor continues anyway"
                )
        pipeline.run(steps[self.doctor :])
        if self.made not in workspace.names("features"):
            return [*pipeline.failures, "Prove features: left out, since it reads the features"]
        pipeline.run(self.proofs(workspace))
        return pipeline.failures

    @cached_property
    def scale(self) -> OwnScale:
        """The settings of a quick or a whole run, with those that were typed."""
        scale = QUICK if self.quick else WHOLE
        scale = replace(scale, graphs=0, proofs=0) if self.brief else scale
        tokens = scale.tokens if self.tokens is None else self.tokens
        return replace(scale, tokens=tokens, rounds=scale.rounds if self.rounds is None else self.rounds)

    @property
    def made(self) -> str:
        """The name of everything that is made."""
        return self.name or slug(short_name(self.model) + "-quick" * self.quick)

    @property
    def corpus(self) -> str:
        """Spec of the text, with its column."""
        return with_column(self.text, self.column)

    @cached_property
    def found_workspace(self) -> Workspace | None:
        """The workspace, where there is one already."""
        with contextlib.suppress(MissingError):
            return Workspace(self.workspace)
        return None

    def measured(self) -> OwnFacts:
        """Return what the steps follow from, after printing their costs.

        Raises `ConfigError` for too little text, `ResourceError` for too little room, `MismatchError` where the
        workspace has something else of this name.
        """
        from interp.models.loading import adapter_of, load_model, load_tokenizer

        open_corpus(self.corpus)  # a mistake in its name shows before a model is loaded
        self.check_engine(self.model, self.hook_point)
        device = self.use_device()
        self.use_threads()
        load_tokenizer(self.model)  # converts a GGUF file, which is done once and not timed
        started = time.perf_counter()
        model = load_model(self.model, device=device)
        load = time.perf_counter() - started
        facts, documents = self.facts_of(model)
        self.check_same(model, facts)
        if changed := adapter_of(self.model):
            say(f"adapter: {changed}")
        say(f"\n{self.model} and {facts.sizes.tokens:,} tokens of {documents:,} documents, read at {facts.hook_point}:")
        pace = measure_pace(model, facts.hook_point, 0.0)  # the steps share the model
        takes = costs(facts.sizes, pace) | further_costs(self.scale, facts, pace)
        takes["certificate"] = replace(takes["certificate"], seconds=takes["certificate"].seconds + load)  # reads anew
        workspace = self.found_workspace
        steps = [step for step in self.steps(facts) if workspace is None or not step.is_there(workspace)]
        shown = [(step.title, takes[step.kind]) for step in steps]
        shown += [("Prove a feature", takes["proof"])] * self.n_unproved(workspace)
        for title, cost in shown:
            say(f"  {title:<32}{cost}")
        seconds, disk = (sum(getattr(cost, name) for _, cost in shown) for name in ("seconds", "disk"))
        say(f"  in all {size_text(disk)} on disk and {duration(seconds)}" if shown else "  all artefacts exist")
        if len(facts.prompts) < self.scale.graphs and facts.d_mlp:
            say(f"  {len(facts.prompts)} of the prompts with known answers are answered, so there are no more graphs")
        check_room(shown, self.workspace, device, lambda **changes: command_line(replace(self, **changes)))
        return facts

    def n_unproved(self, workspace: Workspace | None) -> int:
        """Return how many features are still to be proved."""
        if workspace is None or self.made not in workspace.names("features"):
            return self.scale.proofs
        return sum(not step.is_there(workspace) for step in self.proofs(workspace))

    def facts_of(self, model: HookedModel) -> tuple[OwnFacts, int]:
        """Return facts of the model and the text, and the number of documents. Raises `ConfigError` as `text_of`."""
        from interp.models.adapter import default_hook_point
        from interp.recording.record import probe_widths

        hook_point = self.hook_point or default_hook_point(model)
        documents, tokens = self.text_of(model)
        width, d_mlp = probe_widths(model, [hook_point])[hook_point], model.cfg.d_mlp or 0
        d_sae = self.d_sae or max(64, min(8 * width, tokens // TOKENS_PER_LATENT) // 64 * 64)
        facts = OwnFacts(
            sizes=CostSizes(tokens, REPEATS * tokens, width, d_sae, self.scale.rounds, self.scale.contexts),
            hook_point=hook_point,
            n_layers=model.cfg.n_layers,
            n_ctx=model.cfg.n_ctx,
            prompts=answered_facts(model, self.scale.graphs) if d_mlp and self.scale.graphs else (),
            d_mlp=d_mlp,
        )
        return facts, documents

    def text_of(self, model: HookedModel) -> tuple[int, int]:
        """Return documents and tokens of the text, as far as it is read; say where it does not look like English.

        Raises `ConfigError` for too little.
        """
        from interp.models.identity import tokenizer_of
        from interp.models.loading import chat_template

        tokenizer, documents, tokens = tokenizer_of(model), 0, 0
        words: Counter[bool] = Counter()
        template = chat_template(self.model)
        for document in open_corpus(self.corpus, seed=self.seed, template=template):
            documents, tokens = documents + 1, tokens + len(tokenizer.encode_batch([document.text])[0])
            words.update(word in ENGLISH for word in re.findall(r"\w+", document.text.lower()))
            if tokens >= self.scale.tokens:
                break
        tokens = min(tokens, self.scale.tokens)
        if tokens < FEWEST_TOKENS or documents < FEWEST_DOCUMENTS:
            shipped = replace(self, text="docstrings", column=None, tokens=None)
            raise ConfigError(
                f"expected at least {FEWEST_TOKENS:,} tokens of {FEWEST_DOCUMENTS} documents, {self.text} gives "
                f"{tokens:,} of {documents}; add text, or cut it into more documents (one a line of a .jsonl file; a "
                f".txt file is cut where paragraphs end). Text that is there: `{command_line(shipped)}`"
            )
        if (share := words[True] / max(words.total(), 1)) < LEAST_ENGLISH:
            say(
                f"{share:.0%} of the words of {self.text} are common English ones, of English prose 30 %. Classes of "
                "words in labels, lists of words and prompts of graphs are English, so fewer labels will hold. If this "
                "is the wrong text, stop with Ctrl-C and name another --text"
            )
        return documents, tokens

    def check_same(self, model: HookedModel, facts: OwnFacts) -> None:
        """Raise `MismatchError` where the workspace has another recording or dictionary of this name."""
        from interp.models.identity import weight_hash

        workspace = self.found_workspace
        if workspace is None:
            return
        if self.made in workspace.names("recording"):
            run = workspace.open(Recorded, self.made).settings
            request = (weight_hash(model), self.corpus, (facts.hook_point,))
            if (run.weight_hash, run.text.corpus if run.text else "", run.hook_points) != request:
                self._refuse("recording", f"{run.model} on {run.text and run.text.corpus} at {run.hook_points}")
        if self.made in workspace.names("sae"):
            d_sae = workspace.open(StoredSAE, self.made).d_sae
            if d_sae != facts.sizes.d_sae:
                self._refuse("dictionary", f"{d_sae:,} latents")

    def _refuse(self, kind: str, content: str) -> None:
        raise MismatchError(f"{self.workspace} has another {kind} named {self.made}: {content}; choose another --name")

    def steps(self, facts: OwnFacts) -> list[WorkspaceStep]:
        """Return the steps in their order, all but the proofs."""
        return [replace(step, verb=sharing(step.verb, self)) for step in steps_of(self, facts)]

    def proofs(self, workspace: Workspace) -> list[WorkspaceStep]:
        """Return the proofs of the features that are shown first."""
        if not self.scale.proofs:
            return []
        meaning = meaning_of(workspace, workspace.open(Features, self.made))
        chosen = [feature for feature, _ in telling(workspace, self.made, meaning, self.scale.proofs)]
        return [replace(step, verb=sharing(step.verb, self)) for step in proofs_of(self, chosen)]

    def findings(self, workspace: Workspace, facts: OwnFacts) -> list[str]:
        """Return lines on what to open first, and on what is left out."""
        lines = highlights(workspace, self.made) if self.made in workspace.names("features") else []
        if facts.d_mlp and not self.brief and (layers := facts.layers(self.scale.layers)):
            more = sharing(DescribeNeurons(recording=self.made, name=f"{self.made}-all"), self)
            lines.append(
                f"Neurons of layers {', '.join(map(str, layers))} have labels; all layers: {command_line(more)}"
            )
        return lines


def steps_of(verb: Own, facts: OwnFacts) -> list[WorkspaceStep]:
    """Return the steps in their order, all but the proofs; options that they share are not filled in."""
    made, why = verb.made, "Is any number of this set-up silently wrong?"
    heads, *further = _of_model(verb, facts)
    steps = [*_of_text(verb, facts), heads, *([] if verb.brief else further)]
    if not verb.doctor:
        return steps
    first = Doctor(model=verb.model, name=certificate_name(verb.model), quick=verb.scale.quick)
    last = replace(first, dictionary=made, name=certificate_name(verb.model, f"saes/{made}"))
    return [
        WorkspaceStep("Examine the model", why, first),
        *steps,
        WorkspaceStep("Examine the dictionary", why, last, needs=("sae",)),
    ]


def _of_text(verb: Own, facts: OwnFacts) -> Iterator[WorkspaceStep]:
    """Yield the steps from the text to the map of the features."""
    made, sizes = verb.made, facts.sizes
    yield WorkspaceStep(
        "Record", f"Its activations at {facts.hook_point} are stored.",
        Record(
            model=verb.model, name=made, corpus=verb.text, column=verb.column, hook_points=(facts.hook_point,),
            tokens=sizes.tokens, compute=verb.dtype, engine=verb.engine, tensor_parallel=verb.tensor_parallel,
        ),
    )  # fmt: skip
    yield WorkspaceStep(
        "Train a sparse autoencoder",
        f"It writes each activation as a sum of about {verb.k} of {sizes.d_sae:,} directions: the features.",
        Train(recording=made, name=made, kind="batchtopk", d_sae=(sizes.d_sae,), k=(verb.k,), tokens=sizes.seen),
        needs=("recording",),
    )
    if sizes.rounds:
        yield WorkspaceStep(
            "Fit a Jacobian lens", "The mean derivative of the last residual: what a direction makes the model say.",
            FitLens(model=verb.model, name=made, kind="jacobian", recording=made, rounds=sizes.rounds),
            needs=("recording",),
        )  # fmt: skip
    yield WorkspaceStep(
        "Describe every feature", "Where does it fire, and what does it make the model say?",
        DescribeFeatures(dictionary=made, name=made), needs=("sae",),
    )  # fmt: skip
    yield WorkspaceStep(
        "Evaluate the dictionary", "On held-out documents, and inside the model.",
        Evaluate(sae=made, name=made, contexts=verb.scale.contexts), needs=("sae",),
    )  # fmt: skip
    yield WorkspaceStep(
        "Map the features", "Features that read and say similar words lie close together.",
        Atlas(source=f"features:{made}", name=f"{made}-features"), needs=("features",),
    )  # fmt: skip


def _of_model(verb: Own, facts: OwnFacts) -> Iterator[WorkspaceStep]:
    """Yield the steps that show the model as the demo does."""
    model, made, scale, layers = verb.model, verb.made, verb.scale, facts.layers(verb.scale.layers)
    why = "Which attend to the previous token, or to an earlier copy?"
    yield WorkspaceStep("Score every attention head", why, Heads(model=model, name=made))
    if facts.d_mlp:
        shown = f"layers {', '.join(map(str, layers))}" if layers else "all layers"
        yield WorkspaceStep(
            "Describe neurons", f"Attribution graphs are read in the labels of MLP neurons, those of {shown}.",
            DescribeNeurons(
                recording=made, name=made, layers=layers, tokens=scale.neuron_tokens, prompts=scale.background
            ),
            needs=("recording",),
        )  # fmt: skip
    for name, _, prompt, target, contrast in facts.prompts:
        yield WorkspaceStep(
            f"Trace the answer{target}", f"Why does it say{target} after: {prompt}",
            TracePrompt(model=model, name=slug(f"{name}-{made}"), prompt=prompt, target=target, contrast=contrast),
        )  # fmt: skip
    yield WorkspaceStep(
        "Test the induction circuit",
        "An induction head needs to know the token before each position, from an earlier head. Which one?",
        Induction(
            model=model, name=f"induction-{made}", prompts_per_seed=6, seeds=verb.seed_range(2), max_candidates=8,
            context_length=min(INDUCTION_TOKENS, facts.n_ctx),
        ),
    )  # fmt: skip
    why = "Do weekdays, months or numbers lie on a circle or a line?"
    yield WorkspaceStep("Find the geometry of words", why, Shapes(model=model, name=made, lists=scale.lists))


def proofs_of(verb: Own, chosen: Sequence[int]) -> list[WorkspaceStep]:
    """Return the proofs of some features of the dictionary."""
    why, draws = "Does it fire on its words, and does steering along it make the model say them?", verb.scale.draws
    proofs = [Prove(features=verb.made, feature=feature, draws=draws) for feature in chosen]
    return [WorkspaceStep(f"Prove feature {proof.feature}", why, proof, needs=("features",)) for proof in proofs]
