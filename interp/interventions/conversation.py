"""A conversation with a model, steered and not: what was said, how far each token was moved, and what steered it.

It is kept among the notes of a workspace and shared as a JSON file, and is refused for other weights. Torch-free.
"""

import json
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import numpy as np
from annotated_types import Interval, MaxLen

from interp.artifacts import as_json
from interp.errors import ConfigError
from interp.interventions.intervention import Direction, Intervention, everywhere
from interp.interventions.recipe import Recipe
from interp.options import Count, FieldLabel, Temperature, check_limits

UNSTEERED, STEERED, RANDOM = "unsteered", "steered", "random direction"
MOST_NEW, MOST_TURNS = 512, 200
"""Tokens of a reply, and messages of a conversation."""


class MovedToken(NamedTuple):
    """One token of a reply."""

    text: str
    shift: float
    """nats: its log-probability in the steered model, less that in the unsteered model after the same text"""


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """A reply in one chat."""

    text: str
    tokens: tuple[MovedToken, ...]
    cut: bool
    """it was cut at the limit, or stopped"""
    scores: tuple[float, ...] = ()
    """log-odds above the threshold of a monitor, of each token that it read; empty without one"""


@dataclass(frozen=True, kw_only=True)
class ChatTurn:
    """One message and the replies to it."""

    message: str
    strengths: dict[str, float]
    """Name of a direction -> the strength at which it steered, in units of its amount."""
    replies: dict[str, ChatReply]
    """`unsteered`, `steered` and, where it was asked for, `random direction`."""


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """Chats of one model with the same messages, each with its own replies: all but the directions themselves."""

    names: tuple[str, ...]
    """Name of the direction of each step."""
    strengths: tuple[float, ...]
    """Strength of each, in units of its amount; 0 leaves it out."""
    random: Annotated[bool, FieldLabel("random direction, the null")] = True
    """A third chat is steered along random directions of the same length, the null."""
    system: Annotated[str, FieldLabel("System prompt")] = ""
    """Message of the system before the first of the user."""
    turns: Annotated[tuple[ChatTurn, ...], MaxLen(MOST_TURNS)] = ()
    n_new: Annotated[int, Interval(ge=1, le=MOST_NEW), FieldLabel("tokens of a reply")] = 80
    """Tokens that a reply may have."""
    temperature: Temperature = 0.0
    """0 for the likeliest token."""
    seed: Count = 0
    """Of the random directions, and of the draws at a temperature above 0."""

    def __post_init__(self) -> None:
        check_limits(self)
        for name, strength in zip(self.names, self.strengths, strict=False):
            if not abs(strength) <= 1e6:
                raise ConfigError(f"the strength of {name} is {strength}; 1 is the amount of the direction")

    @property
    def chats(self) -> tuple[str, ...]:
        """Names of the chats."""
        return (UNSTEERED, STEERED, *((RANDOM,) if self.random else ()))


@dataclass(frozen=True, kw_only=True)
class Conversation(ChatSettings):
    """Chats with the directions that steer them."""

    recipe: Recipe
    """The directions at strength 1, and the weights that they were made for."""

    def __post_init__(self) -> None:
        n = len(self.recipe.steps)
        if not len(self.names) == len(self.strengths) == n or len(set(self.names)) != n:
            raise ConfigError(
                f"{n} directions need {n} different names and as many strengths, got the names {list(self.names)} and "
                f"{len(self.strengths)} strengths"
            )
        for step in self.recipe.steps:
            if not isinstance(step.target, Direction) or step.action == "replace":
                raise ConfigError(
                    f"a conversation is steered along directions, got {step.action} of a "
                    f"{type(step.target).__name__.lower()}; put it into a recipe"
                )
        super().__post_init__()

    @property
    def steering(self) -> str:
        """Everything that steers the chats, as a text: chats with the same can be continued."""
        return json.dumps(as_json([self.recipe, self.strengths, self.random, self.seed]))

    def messages(self, chat: str, message: str) -> list[dict[str, str]]:
        """Return one chat up to a new message, as `{"role", "content"}`."""
        messages = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for turn in self.turns:
            reply = turn.replies.get(chat) or turn.replies.get(UNSTEERED)
            messages.append({"role": "user", "content": turn.message})
            messages.append({"role": "assistant", "content": reply.text if reply else ""})
        return [*messages, {"role": "user", "content": message}]

    def steps(self, chat: str, n_layers: int) -> tuple[Intervention, ...]:
        """Return the interventions of a chat in a model of `n_layers` blocks."""
        if chat == UNSTEERED:
            return ()
        steps: list[Intervention] = []
        for number, (step, strength) in enumerate(zip(self.recipe.steps, self.strengths, strict=True)):
            if strength == 0:
                continue
            scaled = replace(step, amount=step.amount * strength)
            steps += everywhere(at_random(scaled, [self.seed, number]) if chat == RANDOM else scaled, n_layers)
        return tuple(steps)


def at_random(step: Intervention, seed: list[int]) -> Intervention:
    """Return an intervention along a random direction of the same length, at the same hook point."""
    assert isinstance(step.target, Direction)
    vector = random_vector(len(step.target.vector), float(np.linalg.norm(step.target.vector)), seed)
    return replace(step, target=replace(step.target, vector=vector, origin="a random direction"))


def random_vector(d: int, length: float, seed: list[int]) -> np.ndarray:
    """Return a random vector `[d]` of some length, float64."""
    drawn = np.random.default_rng(seed).standard_normal(d)
    return drawn * length / np.linalg.norm(drawn)
