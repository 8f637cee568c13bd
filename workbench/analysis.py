"""The one way in which a verb makes an artefact. Torch-free until an analysis runs.

    @dataclass(frozen=True, kw_only=True)
    class Heads(HeadsConfig, Threaded, RunsModel, Analysis[HeadScores]):
        # its docstring is the help
        makes: ClassVar[str] = "heads"
        model: ModelArgument  # the options are the fields

        def measure(self, run: Run) -> HeadScores:
            with run.progress("heads", "passes") as progress:
                return score_heads(run.model(self.model), settings_of(self, HeadsConfig), progress=progress)

`Analysis.run` does what all share. It opens the workspace, refuses a taken name before a model loads, and picks
threads, device and dtype. Afterwards it saves the result of `measure` with its parents and prints the finding. Whatever
`measure` opens through its `AnalysisRun` becomes a parent of the artefact. A `Resumable` analysis keeps its work in a
draft.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from interp.acts import Act, Price
from interp.artifacts import Artefact, Draft, Manifest, as_json, read_json, save_artefact, write_json
from interp.artifacts.artefact import is_stored, layout_of, settings_json
from interp.artifacts.draft import RESUME, carrying
from interp.doctor.certificate import certificates_of
from interp.forms import from_json
from interp.models.short_name import short_name
from interp.progress import Progress, report_made
from interp.ranks import ALONE, Ranks, open_draft
from saes.acts.run import Run
from workbench.first_look import DICTIONARIES, FirstLook
from workbench.options import options_of
from workbench.terminal import OnDevice, Threaded, Writes, first_bar, joined_ranks, say, slug, wrote

if TYPE_CHECKING:
    from interp.claims import OwnText
    from interp.models.hooked import HookedModel
    from interp.workspace import Workspace
    from saes.evaluation.match_by_word import DictionaryIn
    from saes.features.schema import Features

A = TypeVar("A", bound=Artefact)
T = TypeVar("T")


class AnalysisRun(Run):
    """The run of an analysis: what it opens becomes a parent of what it makes, and its work is kept in a draft.

    A model that is loaded is examined before its first use, and so are its dictionaries.
    """

    def __init__(self, verb: "Analysis[Any]", workspace: "Workspace", folder: Path, ranks: Ranks | None = None):
        pick = partial(verb.use_device, ranks) if isinstance(verb, OnDevice) else lambda: None
        super().__init__(workspace, sys.maxsize, device=pick)  # an analysis holds the models that it compares
        self.folder, self.ranks = folder, ranks
        self.threads: int | None = verb.use_threads() if isinstance(verb, Threaded) else None
        self.seed = getattr(verb, "seed", None)
        self.replaces = False
        """True where a first version is stored, which the finished one replaces without `--overwrite`."""
        self._verb = verb
        self._examined: HookedModel | None = None
        self._draft: Draft | None = None

    def of_another(self, verb: "Analysis[Any]", folder: Path) -> "AnalysisRun":
        """Return the run of another analysis in this workspace, with the models that are loaded here."""
        run = AnalysisRun(verb, self.workspace, folder, self.ranks)
        run._models, run.parents = self._models, {k: h for k, h in self.parents.items() if k.startswith("model:")}
        return run

    def examine(self, model: "HookedModel") -> None:
        """Examine a loaded model, and the dictionaries among the parents where they are new.

        Dictionaries that become parents later are examined then.
        """
        from interp.models.tensor_parallel import split_over

        self._examined = model
        together = split_over(model.original_model) > 1  # one rank alone can run no pass
        if self._verb.looks_first and not together and (self.ranks is None or self.ranks.first):
            FirstLook(self.workspace, model, [*self.parents]).run()

    def made_from(self, manifest: Manifest) -> Manifest:
        """Add an artefact to the parents, and examine it where it is a dictionary of the model at hand."""
        super().made_from(manifest)
        if manifest.key.startswith(DICTIONARIES) and self._examined is not None:
            self.examine(self._examined)
        return manifest

    def described(self, features: "Features") -> "DictionaryIn":
        """Return the SAE that features describe, in its model. Raises as `described_sae` does."""
        from saes.evaluation.match_by_word import DictionaryIn

        sae = self.described_sae(features.name)
        return DictionaryIn(self.model(features.settings.model), sae, features.mean_l0)

    def text(self, path: Path) -> "OwnText":
        """Return a file of the user's own; its hash becomes a parent."""
        from interp.claims import OwnText

        text = OwnText.of(path)
        self.parents[text.key] = text.sha256
        return text

    @contextlib.contextmanager
    def progress(self, title: str, unit: str = "", price: Price | None = None) -> Iterator[Progress]:
        """Show a progress bar."""
        with first_bar(self.ranks or ALONE, title, unit) as report:
            yield report

    def draft(self, settings: object) -> Draft:
        """Return the work in progress, begun now or continued. `save` finishes it.

        `settings` are those of the artefact. Raises `MismatchError` where unfinished work has other settings.
        """
        if self._draft is None:
            self._draft = open_draft(
                self.ranks or ALONE,
                self.folder,
                kind=self._verb.writes(),
                config=settings_json(settings),
                seed=self.seed,
                overwrite=self._verb.overwrite or self.replaces,
            )
        return self._draft

    def discard(self) -> None:
        """Remove the work in progress, unless an earlier run began it."""
        if self._draft is not None and not self._draft.resumed:
            self._draft.discard()

    def show(self, artefact: Artefact) -> None:
        """Store a first version, which pages open at once; an interruption leaves it."""
        report_made(self.save(artefact).folder)
        self.replaces = True

    def training(self, settings: object) -> Path:
        """Return a folder in the draft for what an interrupted run resumes from; it is gone once the draft is done."""
        folder = self.draft(settings).path / RESUME
        folder.mkdir(exist_ok=True)
        return folder

    def part(self, settings: object, form: type[Artefact], field: str, measure: Callable[[], T]) -> T:
        """Return a field of the artefact: measured and stored, or read where an interrupted run has stored it.

        `form` is the class of the artefact, whose field says how the value is read again.
        """
        path = self.training(settings) / f"{field}.json"
        if path.exists():
            return from_json(layout_of(form)[field].form, read_json(path).get("value"), path)
        value = measure()
        write_json(path, {"value": as_json(value)})
        return value

    def save(self, artefact: A) -> A:
        """Write what was measured, unless the analysis has stored it already.

        A result of another kind than the verb's own goes to the folder of its kind, under the same name.
        """
        if is_stored(artefact):
            return artefact
        folder, overwrite, draft = self.folder, self._verb.overwrite, self._draft
        if artefact.kind != self._verb.writes():
            folder = self.workspace.path(artefact.kind, self.folder.name)
            overwrite, draft = overwrite or (draft is not None and draft.resumed), None
        return save_artefact(
            artefact,
            folder,
            parents=self.parents,
            seed=self.seed,
            threads=self.threads,
            overwrite=overwrite,
            draft=draft,
        )


@dataclass(frozen=True, kw_only=True)
class Analysis(Writes, Act[AnalysisRun, A | Sequence[A] | Iterator[A]], Generic[A]):
    """An act that stores its answer: its fields are the settings, `measure` returns what to store, or has stored.

    Of an answer in steps the last one is stored.
    """

    makes: ClassVar[str]
    """Kind of artefact that it writes."""
    on_page: ClassVar[bool] = True
    """True where the page *Runs*, the API and agents may start it."""
    ranked: ClassVar[bool] = False
    """True where several processes may share the work under torchrun."""
    looks_first: ClassVar[bool] = True
    """True where a model or dictionary is examined before its first use, and certificates become parents."""

    def default_name(self) -> str:
        """Return the name of the artefact where none is given: that of its first argument."""
        arguments = [option.name for option in options_of(type(self)) if not option.flags]
        if not arguments:
            return type(self).typed_words()[-1]
        value = str(getattr(self, arguments[0]))
        return slug(short_name(value) if arguments[0] == "model" else value)

    def measured(self, run: AnalysisRun) -> A | Sequence[A]:
        """Return the answer; of one in steps the last."""
        answer = self.measure(run)
        if not isinstance(answer, Iterator):
            return answer
        *_, last = answer
        return last

    def writes(self) -> str:
        """Return the kind of artefact that these settings write; most verbs write one kind."""
        return self.makes

    def run(self) -> int | None:
        """Open the workspace, measure, save, and print what was found; return the exit code where it is not 0."""
        with joined_ranks() if self.ranked else contextlib.nullcontext() as ranks:
            with ranks.checked() if ranks is not None else contextlib.nullcontext():
                workspace = self.open_workspace()
                folder = workspace.path(self.writes(), self.name or self.default_name())
                self.check_free(folder)
                run = AnalysisRun(self, workspace, folder, ranks)
            with carrying(partial(certificates_of, workspace)) if self.looks_first else contextlib.nullcontext():
                answer = self.measured(run)
                if ranks is None or ranks.first:
                    for artefact in answer if isinstance(answer, Sequence) else (answer,):
                        report(run.save(artefact))


def report(artefact: Artefact) -> None:
    """Print where an artefact was written, and what was found."""
    wrote(artefact.folder, artefact.headline())
    for line in artefact.details():
        say(f"      {line}")


@dataclass(frozen=True, kw_only=True)
class Resumable(Analysis[A]):
    """An analysis that keeps its work in `run.draft(settings)`, so that an interrupted command continues."""

    resumes: ClassVar[bool] = True
