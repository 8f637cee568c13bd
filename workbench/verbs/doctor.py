"""`workbench doctor MODEL`: is this set-up sound? Experiments on a model, and on a dictionary in it."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from interp.doctor.certificate import Certificate
from interp.errors import ConfigError
from workbench.analysis import Analysis, Run
from workbench.terminal import Heading, ModelArgument, RunsModel, Seeded, Threaded, slug

if TYPE_CHECKING:
    from interp.doctor.certificate import Check
    from interp.doctor.trials import Setup
    from interp.lenses.jacobian_lens import JacobianLens
    from interp.lenses.tuned_lens import TunedLens

HEADING = Heading.RECORD


@dataclass(frozen=True, kw_only=True)
class Doctor(Seeded, Threaded, RunsModel, Analysis[Certificate]):
    """Certify a model, and a dictionary in it, by experiments.

    Example: workbench doctor smollm2-135m

    Example: workbench doctor smollm2-135m --dictionary demo

    Is any number here silently wrong? The model is held against transformers alone, read from the same files: logits of
    single prompts, in padded batches, with a cache, after generating. Every hook point is read and edited. Steering and
    patching have to start where they should and do nothing at strength 0. A dictionary is encoded by its formula, and
    applied at other scales and other hook points. One line per check; the exit code is 0 when all passed, 1 when one
    failed, 2 when nothing could be run.
    """

    makes: ClassVar[str] = "certificate"

    model: ModelArgument
    dictionary: str | None = None
    """SAE of the workspace to examine in the model."""
    set: str | None = None
    """Set of transcoders of the workspace: its first, middle and last layer are examined."""
    quick: bool = False
    """Edit the hook points of three layers only: seconds."""
    json: bool = False
    """Print the checks as JSON, and everything else to the error stream."""
    overwrite: bool = True
    """Replace the certificate of this name."""

    def default_name(self) -> str:
        parts = [self.model, self.dictionary or self.set]
        return slug("-".join(part for part in parts if part))

    def measure(self, run: Run) -> Certificate:
        from interp.doctor.examine import certificate, checks_of, counted, set_up

        if self.dictionary and self.set:
            raise ConfigError("one of --dictionary and --set was expected, got both; examine one after the other")
        if self.dictionary:
            run.manifest("sae", self.dictionary)  # a mistake in its name shows before a model is loaded
        if self.set:
            run.manifest("transcoders", self.set)
        model = run.model(self.model)
        setup = set_up(model, seed=self.seed, quick=self.quick)
        lenses = list(self.lenses(run))

        def every() -> "Iterator[Check]":
            yield from checks_of(setup, lenses)
            yield from self.of_dictionary(run, setup)

        with run.progress("doctor", "checks") as progress:
            checks = counted(every(), self.n_checks(len(lenses)), progress)
        key = f"saes/{self.dictionary}" if self.dictionary else f"transcoders/{self.set}" if self.set else ""
        return certificate(setup, checks, dictionary=key, dictionary_hash=run.parents.get(key, ""))

    def n_checks(self, n_lenses: int) -> int:
        """Return how many checks there will be."""
        from interp.doctor.examine import LENS_TRIALS, MODEL_TRIALS
        from saes.evaluation.dictionary_checks import TRIALS

        layers = 1 if self.dictionary else 3 if self.set else 0
        return len(MODEL_TRIALS) + n_lenses * len(LENS_TRIALS) + layers * len(TRIALS)

    def lenses(self, run: Run) -> "Iterator[TunedLens | JacobianLens]":
        """Yield the newest lens of each kind that was fitted on this model, by its name."""
        from interp.lenses.jacobian_lens import JacobianLens
        from interp.lenses.tuned_lens import TunedLens

        for form in (TunedLens, JacobianLens):
            found = (lens for lens in run.workspace.values(form) if lens.settings.model == self.model)
            yield from list(found)[:1]

    def of_dictionary(self, run: Run, setup: "Setup") -> "Iterator[Check]":
        """Yield the checks of the dictionary or of the set."""
        from saes.evaluation.dictionary_checks import Said, checks_of_dictionary
        from saes.training.stored import StoredSAE

        device = setup.model.cfg.device
        if self.dictionary:
            stored = run.open(StoredSAE, self.dictionary)
            held = stored.heldout
            said = Said() if held is None else Said(l0=held.l0, fvu=held.fvu)
            yield from checks_of_dictionary(setup, stored.load().to(device), said)
        if self.set:
            from saes.sets.set import PerLayerSet, open_set

            found = open_set(run.workspace, self.set)
            if not isinstance(found, PerLayerSet):
                raise ConfigError(f"{self.set} is a cross-layer transcoder, which is not examined layer by layer")
            layers = sorted(found.layers)
            for layer in sorted({layers[0], layers[len(layers) // 2], layers[-1]}):
                yield from checks_of_dictionary(setup, found.transcoder(layer).to(device))

    def run(self) -> int:
        """Examine, print, and return 1 where a check failed."""
        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            super().run()
        found = self.open_workspace().open(Certificate, self.name or self.default_name())
        if self.json:
            print(json.dumps(found.to_records(), indent=1))
        return int(found.failed)
