"""The quick half of the doctor, before the first analysis of a model or dictionary in a workspace.

A few seconds for a small model. What it finds is an ordinary certificate; a failed check is a warning, and the analysis
goes on. `WORKBENCH_DOCTOR=off` in the environment leaves it out.
"""

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from interp.artifacts import save_artefact
from interp.doctor.certificate import BRIDGES, Certificate, Check
from interp.errors import ConfigError, program
from workbench.terminal import slug

if TYPE_CHECKING:
    from interp.doctor.trials import Setup
    from interp.models.hooked import HookedModel
    from interp.workspace import Workspace
    from saes.kinds.base import SAE
    from saes.training.stored import ProseScores

SWITCH = "WORKBENCH_DOCTOR"
DICTIONARIES = ("saes/", "transcoders/")
"""Beginnings of the keys of what is examined in a model."""
LARGEST = 2e9
"""Parameters of the largest model that is examined unasked: its weights are read a second time."""


def certificate_name(model: str, dictionary: str = "") -> str:
    """Return the name of the certificate of a model, or of a dictionary (`saes/demo`) in it.

    A long path is cut to its end, in which two models differ.
    """
    return slug("-".join(part for part in (model, dictionary.partition("/")[2]) if part)[-64:])


def dictionary_checks(workspace: "Workspace", key: str, setup: "Setup") -> Iterator[Check]:
    """Yield the checks of a dictionary of the workspace; of a set those of its first, middle and last layer, of which
    a quick examination takes the middle one."""
    from saes.evaluation.dictionary_checks import CardScores, checks_of_dictionary
    from saes.sets.set import PerLayerSet, open_set
    from saes.training.stored import StoredSAE

    device, (folder, _, name) = setup.model.cfg.device, key.partition("/")
    if folder == "saes":
        stored = workspace.open(StoredSAE, name)
        scores = stored.heldout
        l0, fvu = (None, None) if scores is None else (scores.l0, scores.fvu)
        claims = CardScores(l0=l0, fvu=fvu, prose=stored.prose)
        yield from checks_of_dictionary(setup, stored.load().to(device), claims)
        return
    transcoders = open_set(workspace, name)
    if not isinstance(transcoders, PerLayerSet):
        raise ConfigError(f"{name} is a cross-layer transcoder, which is not examined layer by layer")
    layers = sorted(transcoders.layers)
    middle = layers[len(layers) // 2]
    for layer in [middle] if setup.quick else sorted({layers[0], middle, layers[-1]}):
        yield from checks_of_dictionary(setup, transcoders.transcoder(layer).to(device))


def prose_measure(spec: str, weights: str) -> "Callable[[SAE], ProseScores | None]":
    """Return a function that scores a new dictionary of a model on the doctor's prose, by which it is known again.

    The model is loaded when the first dictionary is done. Where that fails, or its weights are others, a line says that
    nothing is stated.
    """

    @cache
    def model() -> "HookedModel | None":
        from interp.models.adapter import weight_hash
        from interp.models.loading import load_model

        try:
            loaded = load_model(spec)
        except Exception as error:  # the dictionary is trained, and this is an extra
            return _say(f"no scores on prose are stored: {spec} was not loaded ({type(error).__name__}: {error})")
        if weight_hash(loaded) != weights:
            return _say(f"no scores on prose are stored: {spec} has other weights than the recording")
        return loaded

    def measured(sae: "SAE") -> "ProseScores | None":
        from saes.evaluation.dictionary_checks import scores_on_prose

        known = None if is_off() else model()
        return None if known is None else scores_on_prose(sae, known)

    return measured


def is_off() -> bool:
    """Return whether the environment says that nothing is examined unasked."""
    return os.environ.get(SWITCH, "").lower() in ("off", "no", "0")


@dataclass(frozen=True)
class FirstLook:
    """A model, and the dictionaries that are to be used in it, at the beginning of an analysis."""

    workspace: "Workspace"
    model: "HookedModel"
    dictionaries: Collection[str]
    """Keys, such as `saes/demo`; those of other weights are left out."""

    def run(self) -> None:
        """Examine the model and dictionaries that lack a certificate; save certificates and print the findings."""
        from interp.models.identity import model_spec, weight_hash

        if is_off():
            return
        digest, dtype = weight_hash(self.model), str(self.model.cfg.dtype).removeprefix("torch.")
        known = [
            entry
            for entry in self.workspace.values(Certificate)
            if entry.settings.weight_hash == digest and entry.settings.engine in BRIDGES
        ]
        basis = next((entry for entry in known if entry.dtype == dtype), None)
        examined = {entry.settings.dictionary_hash for entry in known}
        new = {key: content for key, content in self._fitting(digest).items() if content not in examined}
        spec = model_spec(self.model)
        if basis is not None and not new:
            return
        if (size := sum(tensor.numel() for tensor in self.model.original_model.parameters())) > LARGEST:
            return _say(f"{spec} has {size / 1e9:.1f} billion parameters: examine it with {program()} doctor {spec}")
        try:
            self._examine(basis, new, dtype)
        except Exception as error:  # whatever it is, the analysis was asked for and this was not
            reason = (str(error).splitlines() or [""])[0]
            _say(f"{spec} could not be examined ({type(error).__name__}: {reason})")

    def _fitting(self, digest: str) -> dict[str, str]:
        """Return the content hash of each dictionary that belongs to these weights."""
        dictionaries = [self.workspace.open_key(key) for key in self.dictionaries if key.startswith(DICTIONARIES)]
        return {entry.key: entry.about.content_hash for entry in dictionaries if entry.settings.weight_hash == digest}

    def _examine(self, basis: Certificate | None, new: dict[str, str], dtype: str) -> None:
        from interp.doctor.examine import certificate, checks_of, set_up

        started = time.monotonic()
        setup = set_up(self.model, quick=True, referred=basis is None)
        if basis is None:
            basis = certificate(setup, list(checks_of(setup)))
            suffix = "" if dtype == "float32" else f"-{dtype}"
            self._save(basis, certificate_name(basis.settings.model + suffix), time.monotonic() - started)
        of_model = [check for check in basis.checks if check.part != "dictionary"]
        for key, content in new.items():
            started = time.monotonic()
            checks = [*of_model, *dictionary_checks(self.workspace, key, setup)]
            made = certificate(setup, checks, dictionary=key, dictionary_hash=content)
            self._save(made, certificate_name(basis.settings.model, key), time.monotonic() - started)

    def _save(self, certificate: Certificate, name: str, seconds: float) -> None:
        save_artefact(
            certificate, self.workspace.path(Certificate.kind, name), seed=certificate.settings.seed, overwrite=True
        )
        of = certificate.settings
        _say(
            f"{certificate.subject}, before the first analysis: {certificate.headline()} "
            f"({seconds:.0f} s; {SWITCH}=off skips this)"
        )
        failed = certificate.with_verdict("failed")
        for check in failed:
            _say(f"WARNING, {check.part} {check.name}: {check.came}. {check.means}")
        if failed:
            folder, _, name = of.dictionary.partition("/")
            option = f" --{'dictionary' if folder == 'saes' else 'set'} {name}" if name else ""
            _say(f"the numbers that follow may be wrong. All checks: {program()} doctor {of.model}{option}")


def _say(text: str) -> None:
    """Print a line on the error stream: what an analysis prints may be read by another program."""
    print(f"doctor: {text}", file=sys.stderr, flush=True)
