"""A direction with a name, a place and an origin: two lists of words, a file, or somebody's dictionary."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interp.errors import ConfigError, MissingError
from interp.geometry.concepts import SENTENCES, Concept
from interp.geometry.directions import ConceptDirection, concept_directions
from interp.geometry.values import unit_vector
from interp.geometry.words import read_words
from interp.npy import read_npy

EACH = 4
"""words that either side of a direction needs: half are held out"""


@dataclass(frozen=True, kw_only=True)
class NamedDirection:
    """One direction at one place."""

    name: str
    source: str
    """in words: where it comes from"""
    hook_point: str
    vector: np.ndarray
    """`[d]` of length 1"""
    towards: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    """the words that it was made of, none where it was brought along"""
    found: ConceptDirection | None = None
    """how well it tells held-out words apart"""

    @property
    def own_words(self) -> list[Concept]:
        """Both sides as lists of words."""
        sides = (("towards", self.towards), ("away", self.away))
        return [Concept(name=name, words=words, cyclic=False) for name, words in sides if words]


def direction_of_words(
    model: Any,
    towards: Sequence[str],
    away: Sequence[str],
    hook_point: str,
    *,
    name: str = "",
    sentences: Sequence[str] = SENTENCES,
    seed: int = 0,
) -> NamedDirection:
    """The difference in means from the words `away` to the words `towards`; every second word of both is held out.

    Raises `ConfigError` on fewer than four words of a side or a word on both, else as `read_words` does.
    """
    sides = [
        Concept(name=side, words=tuple(words), cyclic=False) for side, words in (("towards", towards), ("away", away))
    ]
    for side in sides:
        if len(side.words) < EACH:
            raise ConfigError(
                f"{side.name} has {len(side.words)} words; a direction needs {EACH} of each side: give more"
            )
    if both := set(towards) & set(away):
        raise ConfigError(f"a word cannot lie on both sides, {', '.join(sorted(both))} does; leave it out of one")
    points = [
        read_words(model, side, sentences=sentences, hook_points=[hook_point]).points(hook_point) for side in sides
    ]
    yes = np.repeat([True, False], [len(side) for side in points])
    heldout = np.concatenate([np.arange(len(side)) % 2 == 1 for side in points])
    found = concept_directions(np.concatenate(points), yes, heldout, seed=seed)["difference in means"]
    return NamedDirection(
        name=name or f"{towards[0]} from {away[0]}",
        source=f"difference in means, from {', '.join(away)} to {', '.join(towards)}",
        hook_point=hook_point,
        vector=found.direction,
        towards=tuple(towards),
        away=tuple(away),
        found=found,
    )


def direction_of_file(path: Path | str, hook_point: str, *, name: str = "") -> NamedDirection:
    """A vector `[d]` from a `.npy` file. Raises `MissingError`, `CorruptError` as `read_npy` does, `ConfigError` on
    another shape or zeros, `NonFiniteError`."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingError(f"no file at {path}; numpy.save(path, vector) writes one")
    vector = read_npy(path)
    vector = vector[0] if vector.ndim == 2 and len(vector) == 1 else vector
    return NamedDirection(
        name=name or path.stem, source=f"the file {path.name}", hook_point=hook_point, vector=unit_vector(vector)
    )
