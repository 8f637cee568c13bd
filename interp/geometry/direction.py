"""One direction of a model as an artefact: the tokens that it raises, the words along it, probes, erasure and steering.

`interp.geometry.direction_report` measures them. Torch-free.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float64

from interp.artifacts import ARRAY, Artefact, Document
from interp.geometry.erasure import Erasure
from interp.geometry.points import DirectionConfig, Finding
from interp.geometry.probes import DirectionAccuracy, DirectionOrigin, NamedDirection, ProbeResult
from interp.geometry.separation import WordsAlong
from interp.geometry.sweeps import StrengthSweep
from interp.geometry.words import Concept
from interp.results import Record


@dataclass(frozen=True, kw_only=True)
class TokenReading(Finding):
    """Tokens whose logits a direction changes most, as if the direction alone were the final residual.

    Read through a Jacobian lens, it is first carried to the last layer; without one the effect is the direct one.
    """

    raised: tuple[str, ...]
    raised_ids: tuple[int, ...]
    raised_logits: tuple[float, ...]
    """nats above the mean over the vocabulary, largest first"""
    lowered: tuple[str, ...]
    lowered_logits: tuple[float, ...]
    """nats relative to the mean over the vocabulary, lowest first"""
    random: float
    """largest logit of a random direction, mean over random directions"""
    random_high: float
    """largest logit of any random direction, read in the same way"""
    lens: str
    """key of the Jacobian lens; empty: by direct effect"""

    def sentence(self) -> str:
        through = f"the Jacobian lens {self.lens.partition('/')[2]}" if self.lens else "the unembedding"
        return (
            f"read through {through} it raises {', '.join(map(repr, self.raised[:5]))} (largest logit "
            f"{self.raised_logits[0]:.2f}; random directions {self.random:.2f}, at most {self.random_high:.2f})"
        )

    def to_records(self) -> list[Record]:
        """Return one row per token: `token, logit`, and the largest logits of random directions."""
        tokens = zip((*self.raised, *self.lowered), (*self.raised_logits, *self.lowered_logits), strict=True)
        null = {"random": self.random, "random_high": self.random_high}
        return [{"token": token, "logit": logit, **null} for token, logit in tokens]


@dataclass(frozen=True, kw_only=True)
class DirectionProbe(Finding):
    """A probe at one hook point that predicts on which side of the median along the direction a word lies."""

    probe: ProbeResult
    random: float
    """mean accuracy of the same probe for random directions at the same hook point"""

    def sentence(self) -> str:
        return f"{self.probe}; for random directions {self.random:.3f}"

    def to_records(self) -> list[Record]:
        """Return one row: the probe's, and `random`."""
        return [self.probe.to_records()[0] | {"random": self.random}]


@dataclass(frozen=True, kw_only=True)
class DirectionSettings(DirectionConfig):
    """Settings that determine the measures of a direction."""

    model: str
    weight_hash: str
    direction: DirectionOrigin
    lists: tuple[Concept, ...]
    """Lists of words to project onto it, besides those that it was derived from."""
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DirectionGeometry(Artefact, kind="direction"):
    """All measurements of one direction. A part that is a string gives the reason why it is missing."""

    settings: DirectionSettings
    vector: Annotated[Float64[np.ndarray, " d"], ARRAY]
    """The direction, of unit length."""
    accuracy: DirectionAccuracy | None
    """Separation of held-out words of the lists that it was derived from."""
    reading: TokenReading | str
    along: Annotated[WordsAlong, Document("along.json")]
    probes: Annotated[tuple[DirectionProbe, ...] | str, Document("probes.json")]
    erased: Erasure | str
    """Linear probes for the two lists of words, before and after the linear information is erased (LEACE)."""
    steering: Annotated[StrengthSweep | str, Document("steering.json")]
    targets: tuple[str, ...]
    """Tokens whose log-odds measure the effect of steering."""

    @property
    def direction(self) -> NamedDirection:
        """The direction with its name and origin."""
        origin = self.settings.direction
        return NamedDirection(**vars(origin), vector=self.vector, found=self.accuracy)

    @property
    def moves_output(self) -> bool | None:
        """True if steering along the direction raises the targets more than every random direction does.

        The strength is chosen on half of the prompts and judged on the other. None where nothing was steered.
        """
        return None if isinstance(self.steering, str) else self.steering.moves_targets

    def headline(self) -> str:
        """Return one line: whether it steers the output."""
        moves = {
            True: "steers the output",
            False: "steers the output no more than a random one",
            None: "was not steered",
        }
        return f"The direction {self.settings.direction.name} of {self.settings.model} {moves[self.moves_output]}."

    def details(self) -> list[str]:
        """Return one line for each part that was measured."""
        parts = (self.accuracy, self.reading, self.along, self.erased, self.steering)
        return [str(part) for part in parts if part is not None]

    def facts(self) -> list[tuple[str, str]]:
        """Return the lists that it separates, the tokens that it raises, and its hook point."""
        raised = () if isinstance(self.reading, str) else self.reading.raised[:5]
        separates = ", ".join(self.along.set_apart) or "no list"
        return [("separates", separates), ("raises", ", ".join(raised)), ("hook point", self.along.hook_point)]

    def to_records(self) -> list[Record]:
        """Return one row per list of words along the direction."""
        return self.along.to_records()
