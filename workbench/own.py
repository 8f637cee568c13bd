"""`workbench own MODEL --text FILE`: a workspace like that of the demo, from your own model and text."""

import contextlib
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from interp.cache import size_text
from interp.errors import ConfigError, MismatchError, MissingError
from interp.models.short_name import short_name
from interp.options import BASIC, ArtefactName, Corpus, HookPoint, Means
from interp.progress import duration
from interp.recording.recorded import RecordConfig, Recorded
from interp.workspace import Workspace
from saes.training.stored import StoredSAE
from workbench.costs import CostSizes, check_room, costs, measure_pace
from workbench.demo import highlights
from workbench.first_look import certificate_name
from workbench.serve import OpensDashboard
from workbench.steps import WorkspaceStep, run_step
from workbench.terminal import ModelArgument, RunsModel, Seeded, say, slug
from workbench.verbs.atlas import Atlas
from workbench.verbs.doctor import Doctor
from workbench.verbs.evaluate import Evaluate
from workbench.verbs.features import DescribeFeatures
from workbench.verbs.heads import FitLens, Heads
from workbench.verbs.record import Record
from workbench.verbs.train import Train

if TYPE_CHECKING:
    from interp.models.hooked import HookedModel

FEWEST_TOKENS, FEWEST_DOCUMENTS = 5_000, 20
"""Least text for a useful dictionary; a tenth of the documents is held out."""
TOKENS_PER_LATENT = 25
REPEATS = 5
"""Times that the recorded tokens are read in training."""


@dataclass(frozen=True, kw_only=True)
class Own(OpensDashboard, Seeded, RunsModel):
    """Make a workspace from your own model and text: features, labels, map, heads.

    Example: workbench own smollm2-135m+./my-lora --text pages.jsonl

    The model is examined first. Then record, train, lens, features, evaluate, atlas and heads run, and an examination
    of the dictionary; each is printed as you could type it. Disk, memory and time of all are printed first, and a plan
    that does not fit is refused. An interrupted command continues when it is repeated.
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
    tokens: int = RecordConfig.tokens
    """Tokens to record at most."""
    d_sae: int | None = None
    """Latents of the dictionary. Default: 8 for each dimension, at most one for 25 tokens of text."""
    k: int = 32
    """Latents active per token, on average."""
    rounds: int = 10
    """Rounds of the fit of the Jacobian lens, which reads what features make the model say; 0 leaves it out."""
    doctor: bool = True
    """Examine the model first, and stop where a check fails."""
    plan: bool = False
    """Print what would be run, with sizes and times, and stop."""

    def __post_init__(self) -> None:
        if min(self.tokens, self.k) < 1 or self.rounds < 0 or (self.d_sae is not None and self.d_sae < 1):
            raise ConfigError("tokens, k and d-sae must be at least 1, and rounds at least 0")

    def run(self) -> None:
        """Measure, print the costs, and run the missing steps."""
        started, (chosen, hook_point) = time.time(), self.measured()
        workspace = Workspace(self.workspace, create=True)
        plan = self.steps(chosen, hook_point)
        if self.plan:
            return
        for number, step in enumerate(plan, 1):
            run_step(workspace, step, f"{number}/{len(plan)}")
            if step.kind == "certificate":
                self.check_passed(workspace, step.name)
        say(f"\nDone after {duration(time.time() - started)}.")
        for line in highlights(workspace, self.made):
            say(line)
        self.open_dashboard()

    @property
    def made(self) -> str:
        """The name of everything that is made."""
        return self.name or slug(short_name(self.model))

    @property
    def corpus(self) -> str:
        """Spec of the text, with its column."""
        from interp.text.corpora import with_column

        return with_column(self.text, self.column)

    @cached_property
    def found_workspace(self) -> Workspace | None:
        """The workspace, where there is one already."""
        with contextlib.suppress(MissingError):
            return Workspace(self.workspace)
        return None

    def measured(self) -> tuple[CostSizes, str]:
        """Return sizes and hook point, after printing the costs of the steps.

        Raises `ConfigError` for too little text, `ResourceError` for too little room, `MismatchError` where the
        workspace has something else of this name.
        """
        from interp.models.adapter import default_hook_point
        from interp.models.loading import adapter_of, load_model, load_tokenizer
        from interp.recording.record import probe_widths
        from interp.text.corpora import open_corpus

        open_corpus(self.corpus)  # a mistake in its name shows before a model is loaded
        device = self.use_device()
        self.use_threads()
        load_tokenizer(self.model)  # converts a GGUF file, which is done once and not timed
        started = time.perf_counter()
        model = load_model(self.model, device=device)
        load = time.perf_counter() - started
        hook_point = self.hook_point or default_hook_point(model)
        documents, tokens = self.text_of(model)
        width = probe_widths(model, [hook_point])[hook_point]
        d_sae = self.d_sae or max(64, min(8 * width, tokens // TOKENS_PER_LATENT) // 64 * 64)
        chosen = CostSizes(tokens, REPEATS * tokens, width, d_sae, self.rounds)
        self.check_same(model, hook_point, chosen)
        takes = costs(chosen, measure_pace(model, hook_point, load))
        if changed := adapter_of(self.model):
            say(f"adapter: {changed}")
        say(f"\n{self.model} and {tokens:,} tokens of {documents:,} documents, read at {hook_point}:")
        workspace = self.found_workspace
        steps = [step for step in self.steps(chosen, hook_point) if workspace is None or not step.is_there(workspace)]
        shown = {step.kind: takes[step.kind] for step in steps}
        for step in steps:
            say(f"  {step.title:<32}{takes[step.kind]}")
        seconds = sum(takes[step.kind].seconds for step in steps)
        disk = sum(cost.disk for cost in shown.values())
        say(f"  in all {size_text(disk)} on disk and {duration(seconds)}" if steps else "  all artefacts exist")
        check_room(shown, self.workspace, device)
        return chosen, hook_point

    def text_of(self, model: "HookedModel") -> tuple[int, int]:
        """Return documents and tokens of the text, as far as it is read. Raises `ConfigError` for too little."""
        from interp.models.identity import tokenizer_of
        from interp.models.loading import chat_template
        from interp.text.corpora import open_corpus

        tokenizer, documents, tokens = tokenizer_of(model), 0, 0
        template = chat_template(self.model)
        for document in open_corpus(self.corpus, seed=self.seed, template=template):
            documents, tokens = documents + 1, tokens + len(tokenizer.encode_batch([document.text])[0])
            if tokens >= self.tokens:
                break
        tokens = min(tokens, self.tokens)
        if tokens < FEWEST_TOKENS or documents < FEWEST_DOCUMENTS:
            raise ConfigError(
                f"expected at least {FEWEST_TOKENS:,} tokens of {FEWEST_DOCUMENTS} documents, {self.text} gives "
                f"{tokens:,} of {documents}; add text, or cut it into more documents"
            )
        return documents, tokens

    def check_same(self, model: "HookedModel", hook_point: str, chosen: CostSizes) -> None:
        """Raise `MismatchError` where the workspace has another recording or dictionary of this name."""
        from interp.models.identity import weight_hash

        workspace = self.found_workspace
        if workspace is None:
            return
        if self.made in workspace.names("recording"):
            run = workspace.open(Recorded, self.made).settings
            request = (weight_hash(model), self.corpus, (hook_point,))
            if (run.weight_hash, run.text.corpus if run.text else "", run.hook_points) != request:
                self._refuse("recording", f"{run.model} on {run.text and run.text.corpus} at {run.hook_points}")
        if self.made in workspace.names("sae"):
            d_sae = workspace.open(StoredSAE, self.made).d_sae
            if d_sae != chosen.d_sae:
                self._refuse("dictionary", f"{d_sae:,} latents")

    def _refuse(self, kind: str, content: str) -> None:
        raise MismatchError(f"{self.workspace} has another {kind} named {self.made}: {content}; choose another --name")

    def check_passed(self, workspace: Workspace, name: str) -> None:
        """Raise `MismatchError` where a certificate has a failed check."""
        from interp.doctor.certificate import Certificate

        certificate = workspace.open(Certificate, name)
        if certificate.failed:
            raise MismatchError(
                f"{certificate.headline()}: numbers of this set-up may be wrong, so nothing was computed with it; "
                "--no-doctor continues anyway"
            )

    def steps(self, chosen: CostSizes, hook_point: str) -> list[WorkspaceStep]:
        """Return the steps, in their order."""
        shared: dict[str, Any] = {"workspace": self.workspace, "threads": self.threads, "device": self.device}
        seeded = {**shared, "seed": self.seed}
        model = {**seeded, "dtype": self.dtype}
        made = self.made
        examined, whole = certificate_name(self.model), certificate_name(self.model, f"saes/{made}")
        steps = [
            WorkspaceStep(
                "Record",
                f"Its activations at {hook_point} are stored.",
                Record(
                    model=self.model, name=made, corpus=self.text, column=self.column, hook_points=(hook_point,),
                    tokens=chosen.tokens, compute=self.dtype, **seeded,
                ),
            ),
            WorkspaceStep(
                "Train a sparse autoencoder",
                f"It writes each activation as a sum of about {self.k} of {chosen.d_sae:,} directions: the features.",
                Train(
                    recording=made, name=made, kind="batchtopk", d_sae=(chosen.d_sae,), k=(self.k,),
                    tokens=chosen.seen, **seeded,
                ),
            ),
            WorkspaceStep(
                "Describe every feature",
                "Where does it fire, and what does it make the model say?",
                DescribeFeatures(dictionary=made, name=made, **model),
            ),
            WorkspaceStep(
                "Evaluate the dictionary", "On held-out documents, and inside the model.",
                Evaluate(sae=made, name=made, **{**shared, "dtype": self.dtype}),
            ),
            WorkspaceStep(
                "Map the features", "Features with similar directions lie close together.",
                Atlas(source=f"sae:{made}", name=f"{made}-features", **model),
            ),
            WorkspaceStep(
                "Score every attention head", "Which attend to the previous token, or to an earlier copy?",
                Heads(model=self.model, name=made, **{**shared, "dtype": self.dtype}),
            ),
        ]  # fmt: skip
        if self.rounds:
            fit = FitLens(model=self.model, name=made, kind="jacobian", recording=made, rounds=self.rounds, **model)
            why = "The mean derivative of the last residual: what a direction makes the model say."
            steps.insert(2, WorkspaceStep("Fit a Jacobian lens", why, fit))
        if self.doctor:
            why = "Is any number of this set-up silently wrong?"
            first = WorkspaceStep("Examine the model", why, Doctor(model=self.model, name=examined, **model))
            last = Doctor(model=self.model, dictionary=made, name=whole, **model)
            steps = [first, *steps, WorkspaceStep("Examine the dictionary", why, last)]
        return steps
