"""Acts that write: a prompt continued under a change and its controls, and chats side by side.

Torch-free until an act is measured.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Interval, MaxLen

from interp.acts import Act, Streamed
from interp.directions.chats import NamedChats, NamedStep
from interp.directions.monitor import Monitor
from interp.directions.study import DirectionGeometry
from interp.errors import PromptError
from interp.interventions.conversation import ChatReply, MovedToken, random_vector
from interp.interventions.intervention import Direction, Intervention
from interp.options import ArtefactName, Count, FieldLabel, Strength, Temperature
from saes.acts.monitors import scorer_of
from saes.acts.prompt import OnPrompt
from saes.acts.readings import Guess
from saes.acts.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from interp.lenses.jacobian_lens import JacobianLens
    from interp.models.adapter import Hook
    from interp.models.generation import Offset
    from interp.models.hooked import HookedModel
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
class ContinuePrompt(OnPrompt, Streamed[Session, Generation]):
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

    def measure(self, run: Session) -> Iterator[Generation]:
        from interp.models.generation import check_room

        model, tokens = run.prompt(self.text, self.model, self.chat)
        check_room(model, tokens, self.n_new)
        if self.exchange is not None:
            changes = partial(exchanged_rows, model, run.jacobian_lens(self.model), self.exchange, self.seed)
        else:
            amount = self.strength * run.largest(self.features, self.feature)
            changes = partial(steered_rows, model, run.sae(self.model, self.features), self.feature, amount, self.seed)
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
    """One more token of every chat of a conversation; in the last message, the replies."""

    said: list[MovedToken | None]
    """None for a chat that has ended"""
    replies: dict[str, ChatReply] = field(default_factory=dict)
    scores: list[float | None] = field(default_factory=list)
    """by a monitor, of the token before this one in each chat, None where it read none; empty without one"""


@dataclass(frozen=True, kw_only=True)
class AnswerChats(Streamed[Session, ChatStep]):
    """Answer a message in every chat of a conversation, token by token; the last step has the replies.

    Raises `PromptError` for an empty message or a full context, `MismatchError` for other weights, `ConfigError` for a
    model that cannot chat.
    """

    verb: ClassVar[str] = "answer_chats"
    offered: ClassVar[bool] = False
    conversation: NamedChats
    """The chats so far, and their steering."""
    message: str
    """The next message of the user."""
    monitor: ArtefactName = ""
    """A monitor of the workspace, which scores every token of every chat."""

    def measure(self, run: Session) -> Iterator[ChatStep]:
        from interp.interventions.chat import reply_to

        conversation = self.conversation.read(run.workspace)
        spec, steering = conversation.recipe.model, conversation.steering
        watch = None
        if self.monitor:
            monitor = run.workspace.open(Monitor, self.monitor)
            watch, steering = scorer_of(run, monitor, spec), steering + monitor.about.content_hash
        kept = run.take_chats(spec, steering)
        try:
            replies = reply_to(run.model(spec), conversation, self.message, kept, watch and (watch.hook_point, watch))
            kept = replies.chats
            for tokens in replies:
                yield ChatStep(tokens, scores=replies.newest if watch else [])
            yield ChatStep([], replies.finished())
        finally:  # also after an empty message, and where nobody waits any more
            if kept is not None:
                run.put_chats(spec, steering, kept)


@dataclass(frozen=True)
class ChatModel:
    """Properties of a model that a conversation depends on."""

    template: bool
    """it has a chat template; without one, messages are lines of a script"""
    context: int
    """tokens of its context"""


@dataclass(frozen=True, kw_only=True)
class CheckChat(Act[Session, ChatModel]):
    """Load the model of a conversation. Raises as `AnswerChats` does."""

    verb: ClassVar[str] = "check_chat"
    offered: ClassVar[bool] = False
    conversation: NamedChats
    """The chats so far, and their steering."""

    def measure(self, run: Session) -> ChatModel:
        from interp.models.adapter import weight_hash
        from interp.models.generation import has_template

        recipe = self.conversation.read(run.workspace).recipe
        model = run.model(recipe.model)
        recipe.check(weight_hash(model), {})
        return ChatModel(has_template(model), model.cfg.n_ctx)


@dataclass(frozen=True)
class SaidInChat:
    """The reply in one of three chats."""

    chat: str
    text: str
    cut: bool
    shift: float
    """nats: mean size of the change of a token's log-probability by the steering"""


@dataclass(frozen=True, kw_only=True)
class Say(Act[Session, list[SaidInChat]]):
    """Say a message to a model: unsteered, steered along a direction, and along a random one of the same length.

    `shift` is the mean size of the change of a token's log-probability, in nats: an effect counts only where it exceeds
    that of the random direction.
    """

    verb: ClassVar[str] = "say"
    direction: ArtefactName
    """A direction of the workspace, such as the verb `direction` makes."""
    message: Annotated[str, MaxLen(100_000)]
    """The user's message."""
    strength: Strength = 1.0
    """In units of the direction's chosen amount."""
    system: str = ""
    """A system prompt."""
    n_new: Annotated[int, Interval(ge=1, le=512)] = 60
    """Tokens of a reply."""

    def measure(self, run: Session) -> list[SaidInChat]:
        direction = run.workspace.open(DirectionGeometry, self.direction)
        settings = direction.settings
        conversation = NamedChats(
            name=self.direction, model=settings.model, weight_hash=settings.weight_hash,
            steps=(NamedStep.of(direction, direction.intervention()),), names=(self.direction,),
            strengths=(self.strength,), system=self.system, n_new=self.n_new,
        )  # fmt: skip
        *_, last = AnswerChats(conversation=conversation, message=self.message).measure(run)
        return [
            SaidInChat(
                chat, reply.text, reply.cut,
                sum(abs(token.shift) for token in reply.tokens) / max(1, len(reply.tokens)),
            )
            for chat, reply in last.replies.items()
        ]  # fmt: skip
