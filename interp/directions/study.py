"""One direction of a model as an artefact: how it was made, the layer and strength that were chosen, what it means.

`interp.directions.making` and `interp.directions.meaning` measure it. Torch-free.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float64

from interp.artifacts import ARRAY, Artefact, DocumentField
from interp.directions._variants import Variant
from interp.directions.choice import SteeringChoice
from interp.directions.config import DirectionConfig
from interp.directions.named import DirectionOrigin, NamedDirection
from interp.errors import ConfigError
from interp.geometry.points import GeometryResult
from interp.geometry.probes import DirectionAccuracy, Erasure, ProbeResult
from interp.geometry.separation import WordsAlong
from interp.geometry.words import WordList
from interp.interventions.intervention import Direction, Intervention, everywhere
from interp.models.short_name import short_name
from interp.results import Record
from interp.view import Dots, Facts, Finding, View


@dataclass(frozen=True, kw_only=True)
class TokenReading(GeometryResult):
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
class DirectionProbe(GeometryResult):
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
    lists: tuple[WordList, ...]
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
    along: Annotated[WordsAlong, DocumentField("along.json")]
    probes: Annotated[tuple[DirectionProbe, ...] | str, DocumentField("probes.json")]
    erased: Erasure | str
    """Linear probes for the two lists of words, before and after the linear information is erased (LEACE)."""
    choice: Annotated[SteeringChoice | str, DocumentField("choice.json")]
    """Layers and strengths that were tried, and the judgement of the chosen one."""
    variants: Annotated[dict[str, Variant], DocumentField("variants.json")]
    """Method -> accuracy of its direction at this hook point; empty for a feature or a file."""
    variant_vectors: Annotated[Float64[np.ndarray, "variants d"], ARRAY]
    """Their directions, of unit length, in the same order."""
    n_layers: int
    """Blocks of the model."""
    amount: float | None
    """Length that steering adds, or value that it sets; None where nothing was chosen, or for `ablate`."""

    @property
    def direction(self) -> NamedDirection:
        """The direction with its name and origin."""
        origin = self.settings.direction
        return NamedDirection(**vars(origin), vector=self.vector, accuracy=self.accuracy)

    def intervention(self, strength: float | None = None) -> Intervention:
        """Return the steering as an intervention: as chosen, or at another strength in units of the chosen amount.

        Raises `ConfigError` where no strength was chosen and none is given.
        """
        origin = self.settings.direction
        target = Direction(hook_point=origin.hook_point, vector=self.vector, origin=origin.source)
        if self.settings.action == "ablate":
            return Intervention(target=target, action="ablate")
        if self.amount is None:
            raise ConfigError(
                f"no strength of {origin.name} was chosen, so it has no amount to steer by; give other examples, or "
                "steer along the vector with an amount of your own"
            )
        amount = self.amount * (1.0 if strength is None else strength)
        return Intervention(target=target, action=self.settings.action, amount=amount)

    def steps(self, strength: float | None = None) -> tuple[Intervention, ...]:
        """Return all interventions of the steering: `ablate` is done at the embedding and after every block."""
        return tuple(everywhere(self.intervention(strength), self.n_layers))

    def view(self) -> View:
        yield self._sentence()
        raised = () if isinstance(self.reading, str) else self.reading.raised[:5]
        separates = ", ".join(self.along.set_apart) or "no list"
        yield Facts(("separates", separates), ("raises", ", ".join(raised)), ("hook point", self.along.hook_point))
        parts = (self.accuracy, self.choice, self.reading, self.along, self.erased)
        yield from [str(part) for part in parts if part is not None]
        choice = self.choice
        if isinstance(choice, str) or choice.judged is None or not choice.works:
            return
        judged, most = choice.judged, float(choice.judged.random_effect.max())
        sample = next(iter(judged.samples), None)
        changed = "" if sample is None else f": “{sample.prompt}” goes on “{_begin(sample.steered)}”"
        plain = "" if sample is None else f" Unsteered it goes on “{_begin(sample.plain)}”."
        yield Finding(
            kind="direction",
            title="A direction that steers",
            sentence=f"Steering along {self.settings.direction.name} changes what "
            f"{short_name(self.settings.model)} says{changed}.",
            more=f"{judged.effect.estimate:+.2f} {choice.measured_in} on held-out questions; of "
            f"{len(judged.random_effect)} random directions at most {most:+.2f}.{plain}",
            value=judged.effect.estimate,
            null=max(most, 0.0),
            about=f"{choice.question}; null: the largest effect of a random direction",
            proof="See effect and damage",
            dots=Dots(
                x=tuple(map(float, choice.damage.ravel())),
                y=tuple(map(float, choice.effect.ravel())),
                across="damage to neutral text",
                up="effect by layer and strength",
            ),
        )

    def _sentence(self) -> str:
        """Return one line: the held-out effect of steering along it, beside random directions."""
        name = self.settings.direction.name
        if isinstance(self.choice, str):
            return f"Steering along {name} was not measured"
        if (judged := self.choice.judged) is None:
            return f"No layer and strength along {name} exceeds random directions at an acceptable cost"
        works, effect = "works" if judged.works else "is not clearly above random", judged.effect
        null = f"{len(judged.random_effect)} random directions at most {judged.random_effect.max():+.2f}"
        return (
            f"Steering along {name} {works}: {effect.estimate:+.2f} [{effect.low:+.2f}, {effect.high:+.2f}] "
            f"{self.choice.measured_in}; {null}"
        )

    def to_records(self) -> list[Record]:
        """Return one row per list of words along the direction."""
        return self.along.to_records()


def _begin(text: str, longest: int = 60) -> str:
    """Return the first line of a continuation, cut at a word."""
    line = " ".join(text.strip().split("\n")[0].split())
    return line if len(line) <= longest else line[:longest].rsplit(" ", 1)[0] + " ..."
