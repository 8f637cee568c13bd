"""Words that features make the model say, for pages: read where they are known, computed beside the pages where not."""

import contextlib
import threading
from typing import TYPE_CHECKING, Literal, NamedTuple

from interp.errors import WorkbenchError
from interp.workspace import Workspace
from saes.features.meaning import DRAWS, Saying, is_computed, lens_for, meaning_of
from saes.features.schema import Features

if TYPE_CHECKING:
    from interp.dictionary import Dictionary
    from interp.models.hooked import HookedModel

State = Literal["read", "no lens", "computing", "elsewhere"]
_computing: set[str] = set()


class Said(NamedTuple):
    """Words that one feature makes the model say, or why they are not known."""

    state: State
    """`elsewhere`: its direction does not lie in the residual stream"""
    model: str
    saying: Saying | None = None
    layer: str = ""
    """hook point of the lens"""
    draws: int = DRAWS
    """random directions of the null"""


def said_by(workspace: Workspace, name: str, feature: int) -> Said:
    """Return what a feature makes the model say. Where it was never computed, that begins beside the pages."""
    features = workspace.open(Features, name)
    model = features.settings.model
    lens = lens_for(workspace, features)
    if lens is None:
        return Said("no lens", model)
    if not is_computed(features, lens):
        _compute(workspace, features)
        return Said("computing", model)
    meaning = meaning_of(workspace, features)
    if meaning is None:
        return Said("elsewhere", model)
    return Said("read", model, meaning.says(feature), meaning.hook_point)


def _opened(workspace: Workspace, features: Features, model: "HookedModel") -> "Dictionary":
    if features.sae:
        from saes.weights.folder import load_sae

        return load_sae(workspace.path("sae", features.sae))
    from saes.sets.set import open_described

    return open_described(workspace, features.dictionary, model, sign=features.settings.sign)[0]


def _compute(workspace: Workspace, features: Features) -> None:
    """Compute what all features of an artefact say, in a thread of its own, once at a time."""
    key = features.about.content_hash

    def work() -> None:
        with contextlib.suppress(WorkbenchError):  # a model that cannot be loaded is said where it is asked for
            meaning_of(workspace, features, opener=_opened)
        _computing.discard(key)

    if key not in _computing:
        _computing.add(key)
        threading.Thread(target=work, daemon=True, name="meaning").start()
