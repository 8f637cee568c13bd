"""`workbench why MODEL PROMPT`: which word tells which word what, each route cut and swapped."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from interp.options import Argument, PromptText
from interp.routes.routes import RouteConfig, Routes, RouteSettings
from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import Heading, ModelArgument, RunsModel, Threaded, settings_of, slug

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class Why(RouteConfig, Threaded, RunsModel, Analysis[Routes]):
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

    def measure(self, run: AnalysisRun) -> Routes:
        from interp.routes.carried import LostWords
        from interp.routes.find import find_routes, price, question_run

        model, digest = run.model(self.model), run.weight_hash(self.model)
        settings = settings_of(self, RouteSettings, weight_hash=digest)
        reading = question_run(model, settings)
        reader = LostWords.of(model, run.jacobian_lens(self.model))
        done, total, answers = 0, price(reading), list[Routes]()
        with run.progress("cutting edges", "tokens") as progress:

            def count(tokens: int) -> None:
                nonlocal done
                done += tokens
                progress(done, max(done, total), {})  # what follows the edges depends on them

            for so_far in find_routes(reading, reader, settings, count):
                answers = [so_far]
        return answers[0]
