"""Examine a model: every check of the model, its hook points, and what is done to it."""

from collections.abc import Iterable, Iterator

from torch import nn

from interp.doctor import _edit_checks, _hook_checks, _lens_checks, _model_checks, _response_checks
from interp.doctor._lens_checks import FittedLens
from interp.doctor._prompts import prompts_of
from interp.doctor._reference import reference_of
from interp.doctor.certificate import Certificate, Check, ExaminedSetup
from interp.doctor.trials import Setup, due, run_trials, trials_of
from interp.engines.bridge import engine_of
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.tuned_lens import TunedLens
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec
from interp.progress import Progress

MODEL_TRIALS = [
    trial for module in (_model_checks, _hook_checks, _response_checks, _edit_checks) for trial in trials_of(module)
]
LENS_TRIALS = trials_of(_lens_checks)


def set_up(
    model: HookedModel, *, seed: int = 0, quick: bool = False, plain: nn.Module | None = None, referred: bool = True
) -> Setup:
    """Return a model with its prompts and its reference, which is read anew from the model's files.

    `plain` is a module of transformers with the same weights, for a model that was made in memory. Without `referred`
    there is no reference: checks of a dictionary need none.
    """
    reference, why = reference_of(model, plain) if referred else (None, "the model was examined before")
    return Setup(model, prompts_of(model, seed, few=quick), reference, why, seed=seed, quick=quick)


def checks_of(setup: Setup, lenses: Iterable[TunedLens | JacobianLens] = ()) -> Iterator[Check]:
    """Yield the checks of a model and of lenses for it, each as soon as it is done."""
    yield from run_trials(due(MODEL_TRIALS, quick=setup.quick), setup)
    for lens in lenses:
        yield from run_trials(due(LENS_TRIALS, quick=setup.quick), FittedLens(setup, lens))


def n_checks(*, quick: bool, n_lenses: int) -> int:
    """Return how many checks of a model and of lenses there will be."""
    return len(due(MODEL_TRIALS, quick=quick)) + n_lenses * len(due(LENS_TRIALS, quick=quick))


def counted(checks: Iterable[Check], total: int, progress: Progress | None) -> list[Check]:
    """Return checks as a list, reporting each."""
    done: list[Check] = []
    for check in checks:
        done.append(check)
        if progress is not None:
            progress(min(len(done), total), total, {"check": check.name})
    return done


def examine(
    model: HookedModel,
    *,
    lenses: Iterable[TunedLens | JacobianLens] = (),
    quick: bool = False,
    seed: int = 0,
    plain: nn.Module | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """Examine a model by experiments. Nothing is changed in the model.

    The model is held against transformers alone, read anew from the same files, in float32 on the CPU. Small models of
    the workbench's own have no such reference: those checks say "not checked".

    Args:
        model: the model to examine.
        lenses: of the model, examined with it.
        quick: run the cheap checks alone: a few seconds.
        plain: a module to take as the reference, for a model made in memory.
    Returns: a certificate with one line per check.

    >>> examine(model, quick=True).headline()
    '6 of 6 checks passed; 5 could not be run'
    """
    setup, lenses = set_up(model, seed=seed, quick=quick, plain=plain), list(lenses)
    total = n_checks(quick=quick, n_lenses=len(lenses))
    return certificate(setup, counted(checks_of(setup, lenses), total, progress))


def certificate(setup: Setup, checks: list[Check], *, dictionary: str = "", dictionary_hash: str = "") -> Certificate:
    """Return the certificate of an examination."""
    settings = ExaminedSetup(
        model=model_spec(setup.model),
        weight_hash=setup.weight_hash,
        engine=engine_of(setup.model).about,
        dictionary=dictionary,
        dictionary_hash=dictionary_hash,
        quick=setup.quick,
        seed=setup.seed,
    )
    dtype = str(setup.model.cfg.dtype).removeprefix("torch.")
    return Certificate(settings=settings, device=str(setup.model.cfg.device), dtype=dtype, checks=checks)
