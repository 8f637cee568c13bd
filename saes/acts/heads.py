"""An act on one attention head: ablated on its own examples, beside random heads. Torch-free until it is measured."""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Annotated, ClassVar

from interp.acts import Compared, Price
from interp.circuits.heads_in_text import HeadExample, HeadPassage, HeadsInText
from interp.errors import ConfigError, MismatchError, PromptError
from interp.names import HeadName, parse_head
from interp.nulls import DRAWS, NullComparison
from interp.options import ArtefactName, Means
from interp.results import Result
from interp.seeds import derive_seed
from interp.view import View
from saes.acts.run import Run, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

ABLATED, MEAN_OVER = 8, 4
"""Examples that the model reads, the strongest first, and texts that the mean output of a head is over."""


@dataclass(frozen=True)
class AblatedHead(Result):
    """Change of the prediction at the queries of a head's examples when it is ablated, in nats."""

    head: str
    compared: NullComparison
    """KL of the ablated prediction from the unchanged one, mean over examples; of random heads the same"""
    by_example: list[float]
    tokens: list[str]
    """query token of each example"""

    def view(self) -> View:
        null = self.compared.draws["random heads"]
        yield (
            f"Ablating {self.head} changes the prediction after its queries by {self.compared.value:.4f} nats, a "
            f"random head by {sum(null) / len(null):.4f}: {self.compared.exceeds()} (p {self.compared.p:.2f})."
        )
        pairs = sorted(zip(self.by_example, self.tokens, strict=True), reverse=True)[:3]
        yield "Most after " + ", ".join(f"{token.strip() or token!r} ({change:.3f})" for change, token in pairs) + "."


@dataclass(frozen=True, kw_only=True)
class AblateHead(Compared[Run, AblatedHead]):
    """Ablate a head on its own examples: the change of the prediction at each query, beside random heads.

    The output of a head becomes its mean over texts of the examples. Raises `UnknownNameError` for an unknown head,
    `PromptError` for one without examples, `MismatchError` for a model with other weights.
    """

    verb: ClassVar[str] = "ablate_head"
    heads: ArtefactName
    """Heads in a text: an artefact of `workbench heads MODEL --text FILE`."""
    head: Annotated[str, Means("L5H1")]
    """The head, such as L5H1."""

    def found(self, run: Run) -> HeadsInText:
        """Return the artefact."""
        return run.workspace.open(HeadsInText, self.heads)

    def arms(self, run: Run) -> list[HeadName]:
        """Return the head, then random others of the model."""
        text_heads, head = self.found(run), parse_head(self.head)
        others = [row.name for row in text_heads.rows if row.name != head]
        if not others:
            raise ConfigError("this model has no other head to compare with")
        n = min(DRAWS[self.nulls], len(others))
        return [text_heads.row(head).name, *Random(derive_seed(0, "random heads", self.head)).sample(others, n)]

    def price(self, run: Run) -> Price:
        n, text_heads = len(self.arms(run)), self.found(run)
        examples = self.examples(run)
        tokens = sum(example.query + 1 for example, _ in examples)
        tokens += sum(len(passage.ids) for _, passage in examples[:MEAN_OVER])
        return Price(
            {"unchanged": 1, "the head": 1, "random heads": n - 1}, tokens, text_heads.settings.model, self.verb
        )

    def examples(self, run: Run) -> list[tuple[HeadExample, HeadPassage]]:
        """Return the strongest examples."""
        examples = [pair[:2] for pair in self.found(run).examples_of(parse_head(self.head))[:ABLATED]]
        if not examples:
            raise PromptError(f"{self.head} has no examples: it attends to BOS alone on this text; choose another head")
        return examples

    @without_gradients
    def measure(self, run: Run) -> AblatedHead:
        import torch

        from interp.models.adapter import weight_hash
        from interp.patching.ablation import ablated

        text_heads, examples, arms = self.found(run), self.examples(run), self.arms(run)
        model = run.model(text_heads.settings.model)
        if weight_hash(model) != text_heads.settings.weight_hash:
            raise MismatchError(
                f"{text_heads.key} was measured on {text_heads.settings.model} with other weights; run `workbench "
                "heads` again"
            )
        texts = [torch.tensor([passage.ids[: example.query + 1]]) for example, passage in examples]
        reference = torch.tensor([passage.ids for _, passage in examples[:MEAN_OVER]])
        price = self.price(run)
        done = run.counted(price)

        def predictions() -> "list[Tensor]":
            read = [model(text.to(model.cfg.device))[0, -1].float().log_softmax(0) for text in texts]
            done(price.tokens)
            return read

        base, changes = predictions(), list[list[float]]()
        for arm in arms:
            with ablated(model, [str(arm)], kind="mean", reference=reference):
                pairs = zip(base, predictions(), strict=True)
                changes.append([float((before.exp() * (before - after)).sum()) for before, after in pairs])
        means = [sum(values) / len(values) for values in changes]
        tokens = [passage.pieces[example.query] for example, passage in examples]
        return AblatedHead(str(arms[0]), NullComparison(means[0], {"random heads": means[1:]}), changes[0], tokens)
