"""Words that features make the model say, for pages: read where stored, else computed in the background."""

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from interp.errors import ResourceError
from interp.lenses.jacobian_lens import JacobianLens
from interp.nulls import ALPHA
from interp.workspace import Workspace
from saes.features.meaning import N_DIRECTIONS, Meaning, Saying, is_computed, lens_for, meaning_of
from saes.features.schema import Features

if TYPE_CHECKING:
    from interp.dictionary import Dictionary
    from interp.models.hooked import HookedModel

State = Literal["read", "no lens", "computing", "failed", "elsewhere"]
log = logging.getLogger(__name__)
_computing: dict[str, str] = {}
"""Reason why a computation failed, empty while it runs, by the hashes of features and lens."""


class PromotedWords(NamedTuple):
    """Words that one feature makes the model say, or why they are not known."""

    state: State
    """`elsewhere`: its direction does not lie in the residual stream"""
    model: str
    saying: Saying | None = None
    layer: str = ""
    """hook point of the lens"""
    draws: int = N_DIRECTIONS
    """random directions of the null"""
    problem: str = ""
    """why it could not be computed"""


def said_by(workspace: Workspace, features: Features, feature: int) -> PromotedWords:
    """Return what a feature makes the model say. If it was never computed, start that in the background."""
    model = features.settings.model
    lens = lens_for(workspace, features)
    if lens is None:
        return PromotedWords("no lens", model)
    if not is_computed(features, lens):
        problem = _begun(workspace, features, lens)
        return PromotedWords("failed" if problem else "computing", model, problem=problem)
    meaning = meaning_of(workspace, features)
    if meaning is None:
        return PromotedWords("elsewhere", model)
    return PromotedWords("read", model, meaning.says(feature), meaning.hook_point)


def meaning_if_known(workspace: Workspace, features: Features) -> Meaning | None:
    """Return what the features of an artefact say, as `meaning_of`, without waiting for it.

    Raises `ResourceError` where it was never computed, which begins in the background.
    """
    lens = lens_for(workspace, features)
    if lens is not None and not features.set_name and not is_computed(features, lens):
        problem = _begun(workspace, features, lens)
        raise ResourceError(problem or "it is being computed; search again in half a minute")
    return meaning_of(workspace, features)


def known_meaning(workspace: Workspace, features: Features) -> Meaning | None:
    """Return what the features of an artefact say where it is computed; this starts no computation."""
    lens = lens_for(workspace, features)
    return meaning_of(workspace, features) if lens is not None and is_computed(features, lens) else None


def said_words(
    workspace: Workspace, features: Features, indices: Sequence[int], k: int = 3
) -> dict[int, tuple[str, ...]]:
    """Return the `k` tokens that each feature raises most, beyond random directions alone.

    Empty until that is computed; this starts no computation.
    """
    meaning = known_meaning(workspace, features)
    if meaning is None:
        return {}
    readings = {index: meaning.says(index, k) for index in indices}
    return {
        index: tuple(word for word, _ in reading.raised)
        for index, reading in readings.items()
        if reading.raised_p <= ALPHA
    }


def _begun(workspace: Workspace, features: Features, lens: JacobianLens) -> str:
    """Compute what the features say in the background, once; return why that failed, empty while it runs."""
    key = f"{features.about.content_hash} {lens.about.content_hash}"
    if key not in _computing:
        _computing[key] = ""
        threading.Thread(target=_compute, args=(workspace, features, key), daemon=True, name="meaning").start()
    return _computing.get(key, "")  # the thread may have ended meanwhile


def _compute(workspace: Workspace, features: Features, key: str) -> None:
    """Compute what all features of an artefact say; the reason of a failure stays until the process ends."""
    try:
        meaning_of(workspace, features, opener=_layer_of_set)
        _computing.pop(key)
    except Exception as error:
        log.exception("what the features of %s say cannot be computed", features.name)
        _computing[key] = str(error)


def _layer_of_set(workspace: Workspace, features: Features, model: "HookedModel") -> "Dictionary":
    from saes.sets.set import open_described

    return open_described(workspace, features.dictionary, model)[0]
