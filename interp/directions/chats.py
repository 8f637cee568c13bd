"""Chats as a page has them: a direction of the workspace is named, and its vector is read where the chats are answered.

A conversation that is kept or downloaded has the vectors themselves (`interp.interventions.conversation`).
Torch-free.
"""

from dataclasses import dataclass

from interp.artifacts import as_json
from interp.directions.study import DirectionGeometry
from interp.errors import MismatchError, WorkbenchError
from interp.interventions.conversation import ChatSettings, Conversation
from interp.interventions.intervention import Action, Direction, Intervention
from interp.interventions.recipe import Recipe
from interp.options import ArtefactName
from interp.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class StoredDirection:
    """A direction of the workspace at a hook point, by the name of its artefact."""

    artefact: ArtefactName
    content_hash: str
    """Of the artefact: a direction that was made again under its name is refused."""
    hook_point: str


@dataclass(frozen=True, kw_only=True)
class NamedStep:
    """An intervention along a direction of the workspace, without the vector."""

    target: StoredDirection
    action: Action = "add"
    amount: float = 0.0
    """As of an `Intervention`."""

    @classmethod
    def of(cls, report: DirectionGeometry, step: Intervention) -> "NamedStep":
        """Return an intervention along the direction of an artefact."""
        assert isinstance(step.target, Direction)
        stored = StoredDirection(
            artefact=report.name, content_hash=report.about.content_hash, hook_point=step.target.hook_point
        )
        return cls(target=stored, action=step.action, amount=step.amount)

    def read(self, workspace: Workspace) -> Intervention:
        """Return the intervention with its vector. Raises `MismatchError` for a direction that was made again."""
        report = workspace.open(DirectionGeometry, self.target.artefact)
        if report.about.content_hash != self.target.content_hash:
            raise MismatchError(
                f"the direction {report.name} was made again since this page was opened; open the page again"
            )
        origin = report.settings.direction.source
        target = Direction(hook_point=self.target.hook_point, vector=report.vector, origin=origin)
        return Intervention(target=target, action=self.action, amount=self.amount)


@dataclass(frozen=True, kw_only=True)
class NamedChats(ChatSettings):
    """A conversation whose directions are named where the workspace has them; others, of a file, have their vectors."""

    name: str
    model: str
    weight_hash: str
    steps: tuple[NamedStep | Intervention, ...]

    @classmethod
    def of(cls, conversation: Conversation, workspace: Workspace) -> "NamedChats":
        """Return a conversation with names for the directions that the workspace has as they are in it."""
        recipe = conversation.recipe
        steps = [_named(*pair, workspace) for pair in zip(recipe.steps, conversation.names, strict=True)]
        return cls(
            name=recipe.name, model=recipe.model, weight_hash=recipe.weight_hash, steps=tuple(steps),
            names=conversation.names, strengths=conversation.strengths, random=conversation.random,
            system=conversation.system, turns=conversation.turns, n_new=conversation.n_new,
            temperature=conversation.temperature, seed=conversation.seed,
        )  # fmt: skip

    def read(self, workspace: Workspace) -> Conversation:
        """Return the conversation with its vectors. Raises as `NamedStep.read`, `Recipe` and `Conversation`."""
        steps = tuple(step.read(workspace) if isinstance(step, NamedStep) else step for step in self.steps)
        recipe = Recipe(name=self.name, steps=steps, model=self.model, weight_hash=self.weight_hash)
        return Conversation(
            recipe=recipe, names=self.names, strengths=self.strengths, random=self.random, system=self.system,
            turns=self.turns, n_new=self.n_new, temperature=self.temperature, seed=self.seed,
        )  # fmt: skip


def _named(step: Intervention, name: str, workspace: Workspace) -> NamedStep | Intervention:
    try:
        report = workspace.open(DirectionGeometry, name)
    except WorkbenchError:  # made elsewhere, or deleted since
        return step
    named = NamedStep.of(report, step)
    return named if as_json(named.read(workspace)) == as_json(step) else step
