"""`workbench direction MODEL`: a direction from examples, words, a trait, a feature or a file, ready to steer with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from interp.directions.config import DirectionConfig
from interp.errors import ConfigError
from interp.geometry.points import unit_vector
from interp.models.hooked import HookedModel
from interp.options import FeatureName, HookPoint, Pairs, SAEName, Word
from saes.features.schema import KnownFeature, known_features
from workbench.analysis import Analysis, AnalysisRun
from workbench.engine import OverDevices
from workbench.terminal import AppliesDictionary, Heading, ModelArgument, RunsModel, Threaded, settings_of, slug

if TYPE_CHECKING:
    from interp.directions.examples import ContrastPairs
    from interp.directions.making import Made
    from interp.directions.named import NamedDirection
    from interp.directions.study import DirectionGeometry
    from saes.explain.endpoint import Endpoint
    from saes.kinds.base import SAE

HEADING = Heading.FEATURES
WRITTEN_TOKENS = 40
"""Longest passage that is written for an opening."""
_WRITE = """\
Go on with a text in one sentence of at most fifteen words, as somebody who is very {trait} would. Reply with the \
words that follow and nothing else.

The text begins: {start}"""


@dataclass(frozen=True, kw_only=True)
class MakeDirection(
    DirectionConfig, OverDevices, AppliesDictionary, Threaded, RunsModel, Analysis["DirectionGeometry"]
):
    """Make a direction to steer with; choose its layer and strength, and judge them.

    Example: workbench direction smollm2-135m --towards good great fine nice --away bad awful poor sad

    A direction is made from pairs of replies or prompts (--pairs FILE.jsonl, each line {"prompt", "towards", "away"}),
    two lists of words, two sets of texts (--texts A.txt B.txt), a trait (--trait cheerful --instead sad), a feature of
    an SAE (--feature demo:12) or a file (--vector v.npy, .gguf, .safetensors). Half of the examples make it and choose
    layer and strength. The other half judges its effect, the loss on neutral text and the examples that moved the wrong
    way, each against random directions. Several methods are compared. Steer with it afterwards:
    workbench steer directions/NAME --prompt TEXT.
    """

    words: ClassVar[tuple[str, ...]] = ("direction",)
    makes: ClassVar[str] = "direction"

    model: ModelArgument
    towards: tuple[Word, ...] = ()
    """Words on the positive side of the direction, four or more."""
    away: tuple[Word, ...] = ()
    """Words on its negative side, four or more."""
    pairs: Pairs | None = None
    """A .jsonl file of examples, eight or more: towards and away continue prompt; without prompt they are prompts
    themselves. Or the examples themselves, as a JSON list."""
    texts: tuple[Path, ...] = ()
    """Two .txt files with one text a line, or two folders of .txt files: texts to go towards, and away from."""
    trait: str | None = None
    """A trait of a writer, such as cheerful: the model writes the examples itself."""
    instead: str | None = None
    """The trait that is its opposite, such as sad."""
    writer: Literal["model", "endpoint"] = "model"
    """Writer of the examples of a trait: the model, or the endpoint $WORKBENCH_ENDPOINT with its model
    $WORKBENCH_ENDPOINT_MODEL (48 requests)."""
    feature: FeatureName | None = None
    """A feature of an SAE in the workspace: NAME:NUMBER."""
    vector: Path | None = None
    """A file with a vector [d]: .npy, .pt, .safetensors, or a GGUF control vector; a bare vector needs --at."""
    at: HookPoint | None = None
    """Hook point of the direction. Default: that of the SAE or file; else the layer is chosen."""
    method: str = "difference in means"
    """Method of the direction that is steered along; the others are compared with it."""
    nuisance: Path | None = None
    """A .jsonl file of examples of a nuisance, such as politeness, which one more method removes."""
    dictionary: SAEName | None = None
    """An SAE: one method goes through its latents, and its features are placebos if it reads the chosen hook point."""
    chat: bool = False
    """Put the prompts of --pairs into the model's chat template."""
    lists: tuple[Word, ...] = ()
    """Lists of words to project onto the direction. Default: all seven."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = [
            bool(self.towards or self.away), self.pairs is not None, bool(self.texts), self.trait is not None,
            self.feature is not None, self.vector is not None,
        ]  # fmt: skip
        if sum(choices) != 1:
            raise ConfigError(
                "give one direction: --towards and --away words, --pairs FILE, --texts A B, --trait and --instead, "
                "--feature SAE:NUMBER, or --vector FILE"
            )
        if (self.trait is None) != (self.instead is None):
            raise ConfigError("a trait needs its opposite: --trait cheerful --instead sad")
        if self.writer == "endpoint" and self.trait is None:
            raise ConfigError("only the examples of a trait are written: add --trait and --instead")
        if self.texts and len(self.texts) != 2:
            raise ConfigError(f"--texts takes two sources, got {len(self.texts)}: texts to go towards, and away from")

    def default_name(self) -> str:
        words = "-".join([*self.towards[:1], *self.away[:1]])
        pairs = "pairs" if (self.pairs or "").startswith("[") else self.pairs
        files = [Path(file).stem for file in (self.vector, pairs, *self.texts) if file is not None]
        return slug(f"direction-{'-'.join(files) or self.feature or self.trait or words}")

    def measure(self, run: AnalysisRun) -> "DirectionGeometry":
        from interp.directions.meaning import measure_direction
        from interp.geometry.words import find_concepts

        concepts = find_concepts(self.lists)
        examples, file = self._examples_of_files(), self._of_file()  # errors before the model loads
        model, config = run.model(self.model), settings_of(self, DirectionConfig)
        made: Made | None = None
        if file is not None:
            direction = file
        elif self.feature is not None:
            direction = self._of_feature(run, self.feature)
        else:
            made = self._made(run, model, config, examples)
            direction = made.direction
        lens = run.jacobian_lens(self.model)
        with run.progress("direction", "steps") as progress:
            return measure_direction(
                model,
                direction,
                concepts,
                config,
                lens=lens,
                made=made,
                progress=progress,
            )

    def _examples_of_files(self) -> "tuple[ContrastPairs | None, ContrastPairs | None]":
        """Return the examples of files, and those of a nuisance."""
        from interp.directions.examples import examples_of_texts, read_examples

        examples = None
        if self.pairs is not None:
            examples = read_examples(self.pairs, chat=self.chat)
        elif self.texts:
            examples = examples_of_texts(*self.texts)
        return examples, None if self.nuisance is None else read_examples(self.nuisance, chat=self.chat)

    def _made(
        self,
        run: AnalysisRun,
        model: HookedModel,
        config: DirectionConfig,
        examples: "tuple[ContrastPairs | None, ContrastPairs | None]",
    ) -> "Made":
        """Make the direction, with its layer and strength."""
        from interp.directions.examples import examples_of_trait
        from interp.directions.making import TwoLists, make_direction

        source: ContrastPairs | TwoLists | None = examples[0]
        if source is None and self.trait is not None:
            writer = None
            if self.writer == "endpoint":
                from saes.explain.endpoint import chosen_endpoint

                writer = written_by(chosen_endpoint())
            source = examples_of_trait(model, self.trait, str(self.instead), writer=writer)
        source = source or TwoLists(towards=self.towards, away=self.away)
        default = f"{self.towards[0]} from {self.away[0]}" if self.towards and self.away else self.trait or ""
        with run.progress("layers and strengths", "tokens") as progress:
            return make_direction(
                model, source, config, name=self.name or default, variant=self.method,
                hook_points=(self.at,) if self.at else (), dictionary=self._dictionary(run), nuisance=examples[1],
                progress=progress,
            )  # fmt: skip

    def _dictionary(self, run: AnalysisRun) -> "SAE | None":
        from saes.weights.folder import check_model

        if self.dictionary is None:
            return None
        sae = run.sae(self.dictionary)
        check_model(sae, run.weight_hash(self.model), allow_other_weights=self.allow_other_weights)
        return sae

    def _of_file(self) -> "NamedDirection | None":
        from interp.directions.named import direction_of_file

        return None if self.vector is None else direction_of_file(self.vector, self.at or "", name=self.name or "")

    def _of_feature(self, run: AnalysisRun, feature: str) -> "NamedDirection":
        """Return the decoder direction of a feature, with its label where there is one."""
        from interp.directions.named import NamedDirection
        from saes.weights.folder import check_model

        name, _, number = feature.rpartition(":")
        if not name or not number.isdecimal():
            raise ConfigError(f"--feature takes NAME:NUMBER, demo:12 for example, got {feature!r}")
        sae = run.sae(name)
        check_model(sae, run.weight_hash(self.model), allow_other_weights=self.allow_other_weights)
        if int(number) >= sae.d_sae:
            raise ConfigError(f"{name} has the features 0 to {sae.d_sae - 1}, got {number}")
        at = sae.hook_point_out or sae.hook_point
        if self.at not in (None, at):
            raise ConfigError(f"{name} writes to {at}, not to {self.at}; leave --at out")
        label = known_features(run.workspace, name).get(int(number), KnownFeature()).label
        vector = unit_vector(sae.decoder_directions[int(number)])
        source = f"feature {number} of the SAE {name}" + (f", labelled {label!r}" if label else "")
        return NamedDirection(name=self.name or f"{name} {number}", source=source, hook_point=at, vector=vector)


def written_by(endpoint: "Endpoint") -> Callable[[str, Sequence[str]], list[str]]:
    """Return a function that writes what follows some openings, as somebody with a trait."""
    from saes.explain.endpoint import EndpointRequest

    def write(trait: str, starts: Sequence[str]) -> list[str]:
        requests = [EndpointRequest(_WRITE.format(trait=trait, start=start), WRITTEN_TOKENS) for start in starts]
        replies = [endpoint.complete(request) for request in requests]
        return [_continuation(reply.text, start) for reply, start in zip(replies, starts, strict=True)]

    return write


def _continuation(reply: str, start: str) -> str:
    """Return the first line of a reply without quotes and without the opening, after a space."""
    first = next((line for line in reply.splitlines() if line.strip()), "")
    return " " + first.strip(' "').removeprefix(start).strip(" .")
