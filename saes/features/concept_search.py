"""Features that measured concepts name: the best latent of each by F1, from a dictionary's evaluations. Torch-free.

`workbench evaluate SAE --concepts` measures them (`saes.evaluation.concepts`). Evaluations lie above this folder, so
they are opened by the registry of artefacts, and read through what is needed of them.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable

from interp.errors import WorkbenchError
from interp.results import Record
from interp.workspace import Workspace
from saes.features.label_search import singulars
from saes.features.schema import Features

LEAST_MATCH = 0.5
"""Fraction of the words of a query that have to be words of the concept."""


class _Concept(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def words(self) -> tuple[str, ...]: ...


class _Score(Protocol):
    @property
    def concept(self) -> _Concept: ...
    def to_record(self) -> Record: ...


class _Scores(Protocol):
    @property
    def scores(self) -> Sequence[_Score]: ...


@runtime_checkable
class _Evaluated(Protocol):
    @property
    def concept_scores(self) -> _Scores | None: ...


def by_concept(measured: "Sequence[_Scores]", text: str, *, leave_out: str = "") -> dict[int, tuple[str, float]]:
    """Return the features of concepts whose name the text is, or whose words it lists, with name, and F1 times the fit.

    Only concepts whose F1 is above that of shuffled labels count. `leave_out` names one that does not.
    """
    found: dict[int, tuple[str, float]] = {}
    for scores in measured:
        for each in scores.scores:
            record, fit = each.to_record(), _fit(text, each.concept)
            f1, feature, null = record["f1"], record["feature"], record["null_f1_high"]
            if each.concept.name == leave_out or not fit or not isinstance(f1, float) or not isinstance(feature, int):
                continue
            if f1 > (null if isinstance(null, float) else 0.0) and f1 * fit > found.get(feature, ("", 0.0))[1]:
                found[feature] = (each.concept.name, f1 * fit)
    return found


def measured_concepts(workspace: Workspace, made: Features) -> list[_Scores]:
    """Return the scores of concepts of the dictionary that the features describe, of the same weights."""
    parent = f"saes/{made.sae}"
    newest = workspace.newest("evaluation") if made.sae else []
    same = [each for each in newest if each.parents.get(parent, "") == made.about.parents.get(parent)]
    read = [_opened(workspace.absolute, each.name, each.content_hash) for each in same]
    return [scores for scores in read if scores is not None]


@lru_cache(maxsize=16)
def _opened(root: str, name: str, content_hash: str) -> _Scores | None:
    """Return the scores of an evaluation, decoded once; None without any, and of one that is damaged."""
    workspace = Workspace(root)
    try:
        value = workspace.value(workspace.manifest("evaluation", name))
    except WorkbenchError:  # `workbench verify` names it
        return None
    return value.concept_scores if isinstance(value, _Evaluated) else None


def _fit(text: str, concept: _Concept) -> float:
    """Return 1 where the text is the concept's name, else the share of its words that are the concept's."""
    asked, name = " ".join(re.findall(r"\w+", text.lower())), " ".join(re.findall(r"\w+", concept.name.lower()))
    if asked and (asked == name or name in singulars(asked) or asked in singulars(name)):
        return 1.0
    words, own = asked.split(), {word.lower() for word in concept.words}
    share = sum(word in own for word in words) / max(len(words), 1)
    return share if share >= LEAST_MATCH and len(words) > 1 else 0.0
