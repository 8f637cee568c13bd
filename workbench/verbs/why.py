"""`workbench why MODEL PROMPT`: which word tells which word what, each route cut and swapped."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from interp.options import Argument, PromptText
from interp.routes.routes import Routes
from saes.acts.routes import AskWhy
from workbench.analysis import Analysis
from workbench.terminal import Heading, ModelArgument, RunsModel, Threaded, slug

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class Why(Threaded, RunsModel, Analysis[Routes], AskWhy):
    """Say why a model says what it says: which word tells which what, in which layers.

    Example: workbench why smollm2-135m "The capital of France is" --swap France=Italy

    Every edge of attention between two words is cut, and the fall of the answer's log-probability is its effect, in
    nats. A route is an edge above 0.25 nats. Words that it carries are read through the Jacobian lens where one is
    fitted (`workbench lens MODEL --kind jacobian`), and named only beyond their null. `--swap` lets single routes carry
    the values of another word, beside unrelated values of equal norm. Last, as few edges as keep the answer, beside
    random sets. A prompt has at most 100 words. Opens on the page *Prompt*.
    """

    words: ClassVar[tuple[str, ...]] = ("why",)
    makes: ClassVar[str] = "routes"

    model: ModelArgument
    text: Annotated[PromptText, Argument("PROMPT", "Text whose next token is explained.")]

    def default_name(self) -> str:
        return slug(self.text)[:60]
