"""`workbench doctor MODEL`: is this set-up sound? Experiments on a model, and on a dictionary in it."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from interp.doctor.certificate import Certificate, Check
from interp.errors import ConfigError, as_typed
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.tuned_lens import TunedLens
from workbench.analysis import Analysis, AnalysisRun
from workbench.engine import OnEngine, engine_certificate
from workbench.first_look import certificate_name, dictionary_checks
from workbench.terminal import Heading, ModelArgument, RunsModel, Seeded, Threaded

HEADING = Heading.RECORD


@dataclass(frozen=True, kw_only=True)
class Doctor(OnEngine, Seeded, Threaded, RunsModel, Analysis[Certificate]):
    """Certify a model, and a dictionary in it, by experiments.

    Example: workbench doctor smollm2-135m

    Example: workbench doctor smollm2-135m --dictionary demo

    Example: workbench doctor smollm2-135m --engine vllm

    Is any number here silently wrong? The model is compared with plain transformers on the same files: logits of single
    prompts, in padded batches, with a cache, after generating. Every hook point is read and edited. Steering and
    patching must start at the position asked for and have no effect at strength 0. A dictionary is encoded by its
    formula, and applied at other scales and other hook points. With --engine vllm the rows of that program are compared
    with transformers, at every hook point that it offers. One line per check; the exit code is 0 when all passed,
    1 when one failed, 2 when nothing could be run.
    """

    makes: ClassVar[str] = "certificate"
    looks_first: ClassVar[bool] = False

    model: ModelArgument
    dictionary: str | None = None
    """SAE of the workspace to examine in the model."""
    set: str | None = None
    """Set of transcoders of the workspace: its first, middle and last layer are examined."""
    quick: bool = False
    """Run only the cheap checks (seconds), which run unasked before a first analysis."""
    json: bool = False
    """Print the checks as JSON, and everything else to the error stream."""
    overwrite: bool = True
    """Replace the certificate of this name."""

    def default_name(self) -> str:
        if self.engine == "vllm":
            return engine_certificate(self.model, self.engine, self.tensor_parallel)
        return certificate_name(self.model, self.key)

    @property
    def key(self) -> str:
        """Key of the dictionary that is examined; empty without one."""
        return f"saes/{self.dictionary}" if self.dictionary else f"transcoders/{self.set}" if self.set else ""

    def measure(self, run: AnalysisRun) -> Certificate:
        from interp.doctor.examine import certificate, checks_of, counted, set_up

        if self.dictionary and self.set:
            raise ConfigError("give --dictionary or --set, not both; examine one after the other")
        if self.dictionary and "/" in self.dictionary:
            raise ConfigError(
                f"--dictionary takes the name of an SAE, a folder in {run.workspace.root}/saes; {self.dictionary} "
                "is a path. To bring a dictionary in: "
                + as_typed(f"`workbench import {self.dictionary} --model {self.model} --name NAME`, then give NAME")
            )
        if self.engine == "vllm":
            return self._examined_engine(run)
        if self.dictionary:
            run.manifest("sae", self.dictionary)  # a mistake in its name shows before a model is loaded
        if self.set:
            run.manifest("transcoders", self.set)
        model = run.model(self.model)
        setup = set_up(model, seed=self.seed, quick=self.quick)
        lenses = list(self.lenses(run))

        def every() -> Iterator[Check]:
            yield from checks_of(setup, lenses)
            if self.key:
                yield from dictionary_checks(run.workspace, self.key, setup)

        with run.progress("doctor", "checks") as progress:
            checks = counted(every(), self.n_checks(len(lenses)), progress)
        return certificate(setup, checks, dictionary=self.key, dictionary_hash=run.parents.get(self.key, ""))

    def _examined_engine(self, run: AnalysisRun) -> Certificate:
        """Examine vLLM with the model in it."""
        from interp.doctor.engine import examine_engine

        if self.key or self.quick:
            raise ConfigError("an engine is examined as a whole: leave --quick, --dictionary and --set out")
        with self.started(self.model, self.dtype) as engine, run.progress("engine", "contexts") as progress:
            run.parents[f"model:{self.model}"] = engine.weight_hash
            return examine_engine(engine, seed=self.seed, progress=progress)

    def n_checks(self, n_lenses: int) -> int:
        """Return how many checks there will be."""
        from interp.doctor.examine import n_checks
        from interp.doctor.trials import due
        from saes.evaluation.dictionary_checks import TRIALS

        layers = 1 if self.dictionary else (1 if self.quick else 3) if self.set else 0
        of_model = n_checks(quick=self.quick, n_lenses=n_lenses)
        return of_model + layers * len(due(TRIALS, quick=self.quick))

    def lenses(self, run: AnalysisRun) -> Iterator[TunedLens | JacobianLens]:
        """Yield the newest lens of each kind that was fitted on this model, by its name."""
        for form in (TunedLens, JacobianLens):
            lenses = (lens for lens in run.workspace.values(form) if lens.settings.model == self.model)
            yield from list(lenses)[:1]

    def run(self) -> int:
        """Examine, print, and return 1 where a check failed."""
        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            super().run()
        certificate = self.open_workspace().open(Certificate, self.name or self.default_name())
        if self.json:
            print(json.dumps(certificate.to_records(), indent=1))
        return int(certificate.failed)
