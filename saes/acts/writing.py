"""Acts that write: a prompt continued under a change and its controls, and chats side by side.

Torch-free until an act is measured.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Interval, MaxLen

from interp.acts import Streamed
from interp.directions.monitor import Monitor
from interp.directions.study import DirectionGeometry
from interp.errors import ConfigError, PromptError
from interp.interventions.conversation import RANDOM, STEERED, UNSTEERED, ChatReply, ChatTurn
from interp.interventions.intervention import Direction, Intervention, Latent, random_vector
from interp.interventions.recipe import Recipe
from interp.options import ArtefactName, Count, FieldLabel, Slider, Strength, Temperature
from saes.acts.monitors import scorer_of
from saes.acts.prompt import OnPrompt
from saes.acts.readings import Guess
from saes.acts.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from interp.lenses.jacobian_lens import JacobianLens
    from interp.models.adapter import Hook
    from interp.models.generation import Message, Offset
    from interp.models.hooked import HookedModel
    from saes.features.recipes import LoadedRecipe
    from saes.kinds.base import SAE

    Changes = Callable[[Offset], list[tuple[str, Hook]]]

NewTokens = Annotated[int, Interval(ge=1, le=60), FieldLabel("tokens")]
"""Tokens of a continuation."""


@dataclass(frozen=True)
class Exchange:
    """Two words whose coordinates are exchanged through the Jacobian lens, after a block."""

    word: Annotated[str, FieldLabel("exchange")]
    """A word that is one token, such as Rome."""
    other: Annotated[str, FieldLabel("with")]
    """Another, such as London."""
    layer: Annotated[Count, FieldLabel("after layer")]
    """Number of the layer, from 0."""


@dataclass(frozen=True)
class Generation:
    """One more token of three continuations: unchanged, changed, and moved as far in a random direction."""

    number: int
    """counted from 0"""
    tokens: list[Guess]
    """one for each continuation, with its probability there; empty in the last message"""
    unchanged: list[list[float]] = field(default_factory=list)
    """in the last message: for each continuation, the probability of its tokens under the unchanged model"""


@dataclass(frozen=True, kw_only=True)
class ContinuePrompt(OnPrompt, Streamed[Run, Generation]):
    """Continue a prompt unchanged, changed, and changed as much along a random direction, token by token.

    The change is a feature of an SAE that is steered, or two words exchanged through the Jacobian lens. The last step
    has the probability of every token under the unchanged model: the cost of the change in fluency. Raises
    `ConfigError` for neurons.
    """

    verb: ClassVar[str] = "continue_prompt"
    features: str = ""
    """Described features of an SAE."""
    feature: Count = 0
    """Number of the feature that is steered."""
    strength: Strength = 1.0
    """In units of the largest activation that was measured."""
    exchange: Exchange | None = None
    """Two words instead of a feature."""
    n_new: NewTokens = 20
    """New tokens."""
    temperature: Temperature = 0.0
    """0 for the likeliest token."""
    seed: Count = 0
    """Of the random direction, and of the draws at a temperature above 0."""

    def measure(self, run: Run) -> Iterator[Generation]:
        from interp.models.generation import check_room

        model, tokens = run.prompt(self.text, self.model, self.chat)
        check_room(model, tokens, self.n_new)
        if self.exchange is not None:
            changes = partial(exchanged_rows, model, run.jacobian_lens(self.model), self.exchange, self.seed)
        else:
            amount = self.strength * run.largest(self.features, self.feature)
            sae = run.described_sae(self.features, self.model)
            changes = partial(steered_rows, model, sae, self.feature, amount, self.seed)
        return continuations(model, tokens, changes, self)


def continuations(
    model: "HookedModel", tokens: "Tensor", changes: "Changes", act: ContinuePrompt
) -> Iterator[Generation]:
    """Yield one `Generation` per token, and a last one with the probabilities under the unchanged model.

    The rows share the random number of each draw, so that equal distributions give equal tokens.
    """
    import torch

    from interp.models.adapter import run_with_hooks, token_strings
    from interp.models.generation import NextToken, Offset, generate, sampled
    from interp.seeds import make_generator

    offset, chances, rows = Offset(), list[list[float]](), [tokens.expand(3, -1)]
    step = NextToken(model, changes(offset), offset=offset)
    draw = sampled(act.temperature, make_generator(act.seed, "generation"))

    def choose(logits: "Tensor") -> "Tensor":
        ids = draw(logits).to(logits.device)
        chances.append(logits.softmax(-1).gather(1, ids[:, None])[:, 0].tolist())
        return ids

    written = generate(step, rows[0], act.n_new, choose)
    for number in range(act.n_new):
        with torch.no_grad():
            rows.append(next(written)[:, None])
        yield Generation(number, list(zip(token_strings(model, rows[-1][:, 0]), chances[-1], strict=True)))
    with torch.no_grad():
        whole, start = torch.cat(rows, 1), tokens.shape[1]
        logits = run_with_hooks(model, whole, [])[:, start - 1 : -1].float()
        chances_unchanged = logits.softmax(-1).gather(2, whole[:, start:, None].to(logits.device))[:, :, 0]
    yield Generation(act.n_new, [], chances_unchanged.tolist())


def steered_rows(
    model: "HookedModel", sae: "SAE", feature: int, amount: float, seed: int, offset: "Offset"
) -> "list[tuple[str, Hook]]":
    """Return hooks for a batch of three rows: unchanged, steered, and moved as far in a random direction."""
    import torch

    from interp.interventions.site import DictionarySite

    site = DictionarySite.of(model, sae)
    direction = site.directions[feature].cpu()
    control = torch.from_numpy(random_vector(len(direction), float(direction.norm()), [seed])).to(direction)
    return site.adding(torch.stack([direction, control]), amount).with_unchanged().hooks(model, offset)


def exchanged_rows(
    model: "HookedModel", lens: "JacobianLens | None", exchange: Exchange, seed: int, offset: "Offset"
) -> "list[tuple[str, Hook]]":
    """Return hooks for a batch of three rows: unchanged, two words exchanged, and changed as much at random.

    Raises `PromptError` for a word that is not one token, or the same twice, and without a lens of that layer.
    """
    import numpy as np

    from interp.interventions.apply import hooks_of
    from interp.interventions.edits import at_rows
    from interp.lenses.vocabulary import vocabulary_of

    if lens is None:
        raise PromptError(
            "the workspace has no Jacobian lens of this model: `workbench lens MODEL --kind jacobian` fits one"
        )
    lens.check_model(model)
    vocabulary, point = vocabulary_of(model), f"blocks.{exchange.layer}.hook_resid_post"
    ids: list[int] = []
    for word in (exchange.word, exchange.other):
        tokens = vocabulary.spelled(word)
        if not tokens:
            raise PromptError(f"{word!r} is no single token of this model; choose a more common word")
        ids.append(tokens[0])
    if ids[0] == ids[1]:
        raise PromptError(f"{exchange.word!r} exchanged with itself changes nothing; type two words")
    if lens.jacobian(point) is None:
        raise PromptError(f"the Jacobian lens has no layer {exchange.layer}; it has {lens.headline()}")
    first, second = (lens.word_direction(point, vocabulary, token) for token in ids)
    exchanged = Intervention(target=first, partner=second, action="exchange")
    units = [word.vector / np.linalg.norm(word.vector) for word in (first, second)]
    length = float(np.linalg.norm(units[0] - units[1]))
    control = replace(exchanged, along=_drawn(point, len(units[0]), length, seed))
    return [
        (name, at_rows(hook, slice(row, row + 1)))
        for row, step in enumerate((exchanged, control), 1)
        for name, hook in hooks_of(model, [step], {}, offset=offset)
    ]


def _drawn(point: str, d: int, length: float, seed: int) -> Direction:
    """Return a random direction of a length: the control."""
    return Direction(hook_point=point, vector=random_vector(d, length, [seed]), origin=f"random, seed {seed}")


@dataclass(frozen=True)
class ChatStep:
    """One more token of every chat; in the last message, the replies."""

    said: list[str | None]
    """None for a chat that has ended"""
    replies: dict[str, ChatReply] = field(default_factory=dict)
    """by the name of the chat"""


@dataclass(frozen=True, kw_only=True)
class Say(Streamed[Run, ChatStep]):
    """Say a message to a model: unsteered, steered along a direction, and along a random one of the same length.

    The last step has the replies. The `shift` of one is the mean size of the change of a token's log-probability, in
    nats: an effect counts only where it exceeds that of the random direction. Raises `PromptError` for an empty message
    or a full context, `MismatchError` for other weights, `ConfigError` for a model that cannot chat.
    """

    verb: ClassVar[str] = "say"
    direction: ArtefactName
    """A direction of the workspace, such as the verb `direction` makes, or a feature of an SAE, such as demo:12."""
    message: Annotated[str, MaxLen(100_000)]
    """The user's message."""
    turns: Annotated[tuple[ChatTurn, ...], MaxLen(200)] = ()
    """Messages and replies before it."""
    strength: Annotated[float, Interval(ge=-1000, le=1000), Slider(-3, 3, 0.1), FieldLabel("strength")] = 1.0
    """In units of the direction's chosen amount, or of the feature's largest activation; an ablation has none."""
    system: Annotated[str, FieldLabel("system prompt")] = ""
    """A system prompt."""
    n_new: Annotated[int, Interval(ge=1, le=512), FieldLabel("tokens of a reply")] = 60
    """Tokens of a reply."""
    temperature: Temperature = 0.0
    """0 for the likeliest token."""
    seed: Count = 0
    """Of the random direction, and of the draws at a temperature above 0, which the chats share."""
    monitor: ArtefactName = ""
    """A monitor of the workspace, which scores every token of every chat."""

    def measure(self, run: Run) -> Iterator[ChatStep]:
        from interp.interventions.chat import Reply
        from interp.models.generation import sampled
        from interp.seeds import make_generator

        if not self.message.strip():
            raise PromptError("the message is empty; type one")
        steered = self._steering(run)
        random = steered.at_random(self.seed)
        if random is None:
            raise ConfigError(f"{self.direction} is a neuron; a chat is steered along features of an SAE")
        model, replies = run.model(steered.model), dict[str, Reply]()
        for chat, recipe in ((UNSTEERED, None), (STEERED, steered), (RANDOM, random)):
            draw = sampled(self.temperature, make_generator(self.seed + len(self.turns), "chat"))
            replies[chat] = Reply(model, self._messages(chat), _hooks(recipe, model), self.n_new, draw)
        watch = None
        if self.monitor:
            score = scorer_of(run, run.workspace.open(Monitor, self.monitor), steered.model)
            watch = (score.hook_point, score)
        for said in zip_longest(*replies.values()):
            yield ChatStep([*said])
        yield ChatStep([], {chat: reply.finished(watch) for chat, reply in replies.items()})

    def _steering(self, run: Run) -> "LoadedRecipe":
        """Return the steering along a direction of the workspace, or along what a feature writes."""
        from saes.features.recipes import open_recipe, recipe_of_direction

        features, mark, number = self.direction.rpartition(":")
        if not mark:
            return recipe_of_direction(run.workspace.open(DirectionGeometry, self.direction), self.strength)
        if not number.isdecimal():
            raise ConfigError(f"a feature is SAE:NUMBER, got {self.direction!r}")
        target = Latent(dictionary=f"features/{features}", index=int(number))
        amount = self.strength * run.largest(features, target.index)
        steps = (Intervention(target=target, amount=amount),)
        return open_recipe(run.workspace, Recipe(name=self.direction, steps=steps))

    def _messages(self, chat: str) -> "list[Message]":
        """Return one chat up to the new message."""
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.message})
            messages.append({"role": "assistant", "content": turn.replies.get(chat, "")})
        return [*messages, {"role": "user", "content": self.message}]


def _hooks(recipe: "LoadedRecipe | None", model: "HookedModel") -> "Callable[[Offset | None], list[tuple[str, Hook]]]":
    """Return what makes the hooks of a chat; none for the unsteered one."""
    return lambda offset: [] if recipe is None else recipe.hooks(model, offset=offset)
