"""Labels from Neuronpedia: its explanations export, as a labels artefact with the source and the scores given there.

    labels = read_labels(workspace, "demo", Path("explanations.jsonl.gz"))

Formats, plain or gzipped: a JSON list of explanations (`/api/explanation/export`), the JSON of one feature or of
several (`/api/feature`, with `explanations`), or one such object per line (the batches of its data sets). Fields read:
`index`, `description`, `explanationModelName`, `typeName`, `layer`, `modelId`, and `scores` with `value`,
`explanationScoreTypeName`, `explanationScoreModelName`. Text and scores are the source's. Other scorers measured these
scores on other text, so they are shown next to ours and never averaged with them.
"""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from interp.artifacts import Table, disk_errors, sha256_file
from interp.errors import ConfigError, CorruptError, MissingError
from interp.forms import from_json, matches
from interp.names import parse_hook_point
from interp.workspace import Workspace
from saes.features.schema import Features
from saes.features.written_labels import ContextJudgement, FeatureLabel, Imported, Labels, LabelScore, LabelsSettings

MAX_BYTES = 1_000_000_000
"""Largest size of an unpacked export, in bytes."""
MAX_LABEL = 2_000
"""Characters of a label; a longer one is cut."""


@dataclass(frozen=True, kw_only=True)
class GivenScore:
    """A score of an explanation in the export."""

    value: float
    explanationScoreTypeName: str | None = None
    explanationScoreModelName: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedExplanation:
    """An explanation of a feature, in the names of the export."""

    index: Annotated[str, matches(r"[0-9]{1,9}", "the number of a feature")] | Annotated[int, Interval(ge=0, lt=10**9)]
    description: Annotated[str, matches(r"(?s).*\S.*", "a text")]
    scores: tuple[GivenScore, ...] | None = None
    modelId: str = "?"
    layer: str | int = "?"
    explanationModelName: str | None = None
    typeName: str | None = None


def read_labels(workspace: Workspace, features: str, path: Path, *, model: str | None = None) -> Labels:
    """Return the labels of an export of Neuronpedia, for the features of that name.

    Of several explanations of one feature the one with the best mean score is taken, else the first. `model` takes only
    those by one explainer. Raises `MissingError` for no file, `CorruptError` with the line of malformed data,
    `ConfigError` for an export of other features: another layer, or a number beyond the last feature.
    """
    made = workspace.open(Features, features)
    n_features, hook_point = made.n_features, made.settings.hook_point
    labels: dict[int, FeatureLabel] = {}
    n_read, sources, explainers = 0, set(), set()
    for where, explanation in _explanations(path):
        row = _row(explanation)
        n_read += 1
        _check_place(where, explanation, n_features, hook_point, features)
        sources.add(f"{explanation.modelId}/{explanation.layer}")
        explainers.add(explanation.explanationModelName or "no model")
        if model is not None and explanation.explanationModelName != model:
            continue
        known = labels.get(row.feature)
        if known is None or _mean(row.given_scores) > _mean(known.given_scores):
            labels[row.feature] = row
    if len(sources) > 1:
        raise ConfigError(
            f"{path} holds explanations of several dictionaries: {', '.join(sorted(sources)[:5])}; import one"
        )
    if not labels:
        known_models = ", ".join(sorted(explainers)[:8]) or "none"
        raise ConfigError(
            f"{path} holds no explanation{f' by {model}' if model else ''}; explainers in it: {known_models}"
        )
    source = Imported(file=path.name, sha256=sha256_file(path), explainer=model, dictionary=sources.pop())
    explained = tuple(sorted(labels))
    rows = _with_statistics(made, [labels[feature] for feature in explained])
    return Labels(
        settings=LabelsSettings(
            features=features, features_hash=made.about.content_hash, explained=explained, source=source
        ),
        labels=Table.of(FeatureLabel, rows),
        scores=Table.of(LabelScore, []),
        trials=Table.of(ContextJudgement, []),
        n_read=n_read,
    )


def _explanations(path: Path) -> Iterator[tuple[str, ImportedExplanation]]:
    """Yield every explanation with its line or entry in the file, for messages."""
    if not path.is_file():
        raise MissingError(f"no file at {path}; download an explanations export of Neuronpedia")
    text = _text(path)
    first = text.lstrip()[:1]
    if not first:
        raise CorruptError(f"{path} is empty; download it again")
    try:
        whole = json.loads(text)
        yield from _unpacked(f"{path}", whole)
        return
    except json.JSONDecodeError as error:
        if first == "[" or "\n" not in text.strip():
            raise CorruptError(
                f"{path} is not valid JSON: {error.msg} at line {error.lineno}; download it again"
            ) from None
    except RecursionError:
        raise CorruptError(f"{path} is nested too deeply for an export of Neuronpedia") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                content = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                why = getattr(error, "msg", "nested too deeply")
                raise CorruptError(f"{path}, line {number} is not valid JSON: {why}; download it again") from None
            yield from _unpacked(f"{path}, line {number}", content)


def _text(path: Path) -> str:
    with disk_errors(path):
        raw = b"" if (large := path.stat().st_size > MAX_BYTES) else path.read_bytes()
    try:
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                raw = file.read(MAX_BYTES + 1)
        if large or len(raw) > MAX_BYTES:
            raise ConfigError(f"{path} unpacks to more than {MAX_BYTES:,} bytes; import its batches one by one")
        return raw.decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptError(f"{path} cannot be unpacked ({error}); download it again") from None
    except UnicodeDecodeError as error:
        raise CorruptError(f"{path} is not UTF-8 at byte {error.start:,}; an export of Neuronpedia is") from None


def _unpacked(where: str, content: object) -> Iterator[tuple[str, ImportedExplanation]]:
    """Yield the explanations of a list, of a feature that holds them, or the one explanation given."""
    if isinstance(content, list):
        for at, entry in enumerate(content):
            yield from _unpacked(f"{where}, entry {at}", entry)
    elif isinstance(content, dict) and isinstance(content.get("explanations"), list):
        of = {name: content[name] for name in ("modelId", "layer", "index") if name in content}
        for entry in content["explanations"]:
            yield from _unpacked(where, of | entry if isinstance(entry, dict) else entry)
    else:
        whole = json.loads(
            json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        )  # labels cut in a character
        yield where, from_json(ImportedExplanation, whole, where, "foreign")


def _row(explanation: ImportedExplanation) -> FeatureLabel:
    """Return an explanation as a label."""
    scorers = [(score.explanationScoreTypeName, score.explanationScoreModelName) for score in explanation.scores or ()]
    by = ", ".join(filter(None, (explanation.explanationModelName, explanation.typeName)))
    return FeatureLabel(
        feature=int(explanation.index),
        label=" ".join(explanation.description.split())[:MAX_LABEL],
        label_source=f"neuronpedia: {by}" if by else "neuronpedia",
        statistics_label="",
        given_names=[" by ".join(filter(None, scorer)) or "score" for scorer in scorers],
        given_scores=[score.value for score in explanation.scores or ()],
    )


def _check_place(where: str, explanation: ImportedExplanation, n_features: int, hook_point: str, features: str) -> None:
    """Raise `ConfigError` when an explanation cannot be of one of these features."""
    if int(explanation.index) >= n_features:
        raise ConfigError(
            f"{where}: feature {explanation.index} is beyond the {n_features:,} features of {features!r}; the export "
            "is of another dictionary"
        )
    layer, own_layer = re.match(r"[0-9]+", str(explanation.layer)), parse_hook_point(hook_point).layer
    if layer is not None and own_layer is not None and int(layer[0]) != own_layer:
        raise ConfigError(
            f"{where}: the export is of layer {layer[0]} ({explanation.layer}), {features!r} of layer {own_layer} "
            f"({hook_point}); choose the features of that layer"
        )


def _with_statistics(features: Features, rows: list[FeatureLabel]) -> list[FeatureLabel]:
    """Return the rows with the labels made by rule, for comparison."""
    labels = features.labels_by_rule()
    return [replace(row, statistics_label=labels.get(row.feature, "")) for row in rows]


def _mean(scores: list[float]) -> float:
    return sum(scores) / len(scores) if scores else -math.inf
