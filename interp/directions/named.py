"""A direction with its name and origin: from two lists of words, a file, or the examples that it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from interp.directions.files import read_vector
from interp.directions.sides import words_as_sides
from interp.geometry.points import unit_vector
from interp.geometry.probes import DirectionAccuracy, concept_directions
from interp.geometry.words import SENTENCES, WordList
from interp.models.hooked import HookedModel
from interp.options import base_of


@dataclass(frozen=True, kw_only=True)
class DirectionOrigin:
    """Name and origin of a direction at one hook point."""

    name: str
    source: str
    """origin of the direction, in words"""
    hook_point: str
    towards: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    """words that the direction was derived from; empty for a direction from a file"""

    @property
    def own_words(self) -> list[WordList]:
        """Return both sides as lists of words."""
        sides = (("towards", self.towards), ("away", self.away))
        return [WordList(name=name, words=words, cyclic=False) for name, words in sides if words]


@dataclass(frozen=True, kw_only=True)
class NamedDirection(DirectionOrigin):
    """A direction at one hook point, with a name and an origin."""

    vector: Float[np.ndarray, " d"]
    """`[d]`, unit length"""
    accuracy: DirectionAccuracy | None = None
    """how well it separates held-out words"""

    @property
    def origin(self) -> DirectionOrigin:
        """Return the direction without its vector."""
        return base_of(self, DirectionOrigin)


def direction_of_words(
    model: HookedModel,
    towards: Sequence[str],
    away: Sequence[str],
    hook_point: str,
    *,
    name: str = "",
    sentences: Sequence[str] = SENTENCES,
    seed: int = 0,
) -> NamedDirection:
    """Compute the difference in means from the words `away` to the words `towards`; every second word is held out.

    `name` is stored with the direction; each word is put into all `sentences`, in place of `{word}`.

    Raises `ConfigError` on fewer than four words on a side or a word on both, otherwise as `read_words` does.

    >>> good, bad = ["good", "great", "fine", "kind"], ["bad", "sad", "poor", "cruel"]
    >>> direction_of_words(model, good, bad, "blocks.0.hook_resid_post").source
    'difference in means, from bad, sad, poor, cruel to good, great, fine, kind'
    """
    sides = words_as_sides(model, towards, away, [hook_point], sentences=sentences)
    [points] = sides.points.values()
    direction = concept_directions(points, sides.yes, sides.heldout, seed=seed)["difference in means"]
    return NamedDirection(
        name=name or f"{towards[0]} from {away[0]}",
        source=f"difference in means, from {', '.join(away)} to {', '.join(towards)}",
        hook_point=hook_point,
        vector=direction.direction,
        towards=tuple(towards),
        away=tuple(away),
        accuracy=base_of(direction, DirectionAccuracy),
    )


def direction_of_file(path: Path | str, hook_point: str = "", *, name: str = "") -> NamedDirection:
    """Read a vector `[d]` from a file; `interp.directions.files` says which forms are read.

    Raises `MissingError`, `CorruptError`, `ConfigError` on another shape, zeros, or a file that does not say where its
    vector belongs; `NonFiniteError`.
    """
    vector, at = read_vector(path, hook_point)
    path = Path(path)
    return NamedDirection(
        name=name or path.stem, source=f"the file {path.name}", hook_point=at, vector=unit_vector(vector)
    )
