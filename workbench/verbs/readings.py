"""`workbench readings MODEL`: texts about activations, scored by what they let one predict, beside their nulls."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from interp.errors import ConfigError, MismatchError
from interp.lenses.judged_readings import JudgedReadings, ReadingsConfig
from interp.names import canonical_hook_point
from interp.options import BASIC, Corpus, FeaturesName, HookPoint, Means
from interp.workspace import Workspace
from saes.features.schema import Features, check_described, labels
from workbench.analysis import AnalysisRun, Resumable
from workbench.terminal import Heading, ModelArgument, RunsModel, Threaded, settings_of

if TYPE_CHECKING:
    from torch import Tensor

    from interp.dictionary import Dictionary
    from interp.lenses.judge_readings import ReadingKind

HEADING = Heading.CIRCUITS
OF_TEXT = ("text", "positions", "per_document", "context_length")
"""Options of the text that is read, which a file of explanations replaces."""


@dataclass(frozen=True, kw_only=True)
class Readings(ReadingsConfig, Threaded, RunsModel, Resumable[JudgedReadings]):
    """Judge whether texts about activations come from the activations.

    Example: workbench readings smollm2-135m

    Example: workbench readings smollm2-135m --explanations mine.jsonl --hook-points blocks.19.hook_resid_post

    Patchscopes, lens words, labels of active features and explanations from a file are scored by how well their words
    predict the activation on held-out documents, beside the reading of another position, an empty one, and the words
    of the prompt. What is not above all of them is not shown as a reading. An interrupted command continues when it is
    repeated.
    """

    makes: ClassVar[str] = "readings"

    model: ModelArgument
    text: Annotated[Corpus, BASIC] = "docstrings"
    """Text that is read: `docstrings`, a .txt, .jsonl or .parquet file, or hub:NAME."""
    explanations: Annotated[str | None, BASIC, Means("FILE")] = None
    """JSON lines with text, explanation and position (a token, by default the last), read in place of --text."""
    hook_points: Annotated[tuple[HookPoint, ...], BASIC] = ()
    """Default: after a third, two thirds and all but one of the layers, and that of --features."""
    features: FeaturesName = ""
    """Described features, whose labels are read at their hook point."""

    def __post_init__(self) -> None:
        super().__post_init__()
        of_text = [option for option in fields(self) if option.name in OF_TEXT]
        if self.explanations and (given := [f for f in of_text if getattr(self, f.name) != f.default]):
            names = ", ".join(f"--{f.name.replace('_', '-')}" for f in given)
            raise ConfigError(f"--explanations has texts and positions of its own; leave out {names}")

    def measure(self, run: AnalysisRun) -> JudgedReadings:
        from interp.lenses.judge_readings import judge_readings, reading_kinds
        from interp.lenses.reading_positions import positions_of_corpus, positions_of_file

        config, model = settings_of(self, ReadingsConfig), run.model(self.model)
        if self.explanations is None:
            positions = positions_of_corpus(model, self.text, config)
        else:
            positions = positions_of_file(model, Path(self.explanations))
        lens = run.jacobian_lens(run.weight_hash(self.model))
        kinds = reading_kinds(model, config, jacobian=lens, explanations=positions.explanations)
        n = model.cfg.n_layers
        points = list(self.hook_points)
        if self.features:
            kinds.append(self.labels(run))
            points += [point for point in kinds[-1].hook_points if not self.hook_points]
        layers = sorted({n // 3, 2 * n // 3, max(0, n - 2)})
        points = points if self.hook_points else [*(f"blocks.{layer}.hook_resid_post" for layer in layers), *points]
        with run.progress("readings", "readings") as progress:
            return judge_readings(
                model, positions, kinds, [*dict.fromkeys(points)], config, model_name=self.model, draft=run.draft,
                progress=progress,
            )  # fmt: skip

    def labels(self, run: AnalysisRun) -> "ReadingKind":
        """Return the kind of reading that consists of the labels of the most active features.

        Raises `MismatchError` for features of another model.
        """
        from interp.lenses.judge_readings import ReadingKind
        from saes.sets.set import open_described
        from saes.weights.folder import check_model

        described = run.open(Features, self.features)
        check_described(run.workspace, described)
        if described.settings.model != self.model:
            raise MismatchError(
                f"features {self.features} are of {described.settings.model}, not of {self.model}; choose others"
            )
        if described.sae:
            dictionary = run.sae(described.sae)
            check_model(dictionary, run.weight_hash(self.model))
        else:
            model, sign = run.model(self.model), described.settings.sign
            dictionary = open_described(run.workspace, described.dictionary, model, sign=sign)[0]
        read = partial(_labels, run.workspace, self.features, dictionary, self.n_words)
        point = canonical_hook_point(described.settings.hook_point)
        return ReadingKind("labels", read, (point,), version=described.about.content_hash)


def _labels(
    workspace: Workspace,
    features: str,
    dictionary: "Dictionary",
    k: int,
    point: str,
    rows: "Tensor",
    done: Callable[[int], None],
) -> list[str]:
    """Return the labels of the `k` most active features of each activation."""
    import torch

    strongest = []
    with torch.no_grad():
        for batch in rows.split(64):
            top = dictionary.encode(batch.to(dictionary.decoder_directions.device)).topk(k)
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            strongest += [[n for n, size in zip(*pair, strict=True) if size > 0] for pair in pairs]
            done(len(strongest))
    texts = labels(workspace, features, {feature for row in strongest for feature in row})
    return ["; ".join(texts[feature] for feature in row if feature in texts) for row in strongest]
