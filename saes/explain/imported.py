"""Labels from Neuronpedia: its explanations export, as a labels artefact with the source and the scores given there.

    labels = read_labels(features, Path("explanations.jsonl.gz"))

Formats, plain or gzipped: a JSON list of explanations (`/api/explanation/export`), or one per line (the batches of its
data sets). Fields read: `index`, `description`, `explanationModelName`, `typeName`, `layer`, `modelId`, and `scores`
with `value`, `explanationScoreTypeName`, `explanationScoreModelName`. Text and scores are the source's. Other scorers
measured these scores on other text, so they are shown next to ours and never averaged with them.
"""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from interp.artifacts import Table, disk_errors, sha256_file
from interp.errors import ConfigError, CorruptError, MissingError
from interp.forms import from_json, matches
from interp.names import parse_hook_point
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


def read_labels(features: Features, path: Path) -> Labels:
    """Return the labels of an export of Neuronpedia, for some features.

    Of several explanations of one feature the one with the best mean score is taken, else the first. Raises
    `MissingError` for no file, `CorruptError` with the line of malformed data, `ConfigError` for an export of other
    features: another layer, or a number beyond the last feature.
    """
    labels: dict[int, FeatureLabel] = {}
    n_read, sources, rule = 0, set(), features.labels_by_rule()
    for where, explanation in _explanations(path):
        _check_place(where, explanation, features)
        row = _row(explanation)
        n_read += 1
        sources.add(f"{explanation.modelId}/{explanation.layer}")
        known = labels.get(row.feature)
        if known is None or _mean(row.given_scores) > _mean(known.given_scores):
            labels[row.feature] = replace(row, statistics_label=rule.get(row.feature, ""))
    if not labels:
        raise ConfigError(f"{path} holds no explanation; download it again")
    if len(sources) > 1:
        raise ConfigError(
            f"{path} holds explanations of several dictionaries: {', '.join(sorted(sources)[:5])}; import one"
        )
    explained = tuple(sorted(labels))
    source = Imported(file=path.name, sha256=sha256_file(path), dictionary=sources.pop())
    settings = LabelsSettings(
        features=features.name, features_hash=features.about.content_hash, explained=explained, source=source
    )
    return Labels(
        settings=settings,
        labels=Table.of(FeatureLabel, [labels[feature] for feature in explained]),
        scores=Table.of(LabelScore, []),
        trials=Table.of(ContextJudgement, []),
        n_read=n_read,
    )


def _explanations(path: Path) -> Iterator[tuple[str, ImportedExplanation]]:
    """Yield every explanation with its line or entry in the file, for messages."""
    if not path.is_file():
        raise MissingError(f"no file at {path}; download an explanations export of Neuronpedia")
    text = _text(path)
    if text.lstrip()[:1] == "[":
        whole = _parsed(text, f"{path}")
        entries = [(f"{path}, entry {at}", entry) for at, entry in enumerate(whole)]
    else:
        lines = ((f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), start=1))
        entries = ((where, _parsed(line, where)) for where, line in lines if line.strip())
    for where, entry in entries:
        yield where, from_json(ImportedExplanation, entry, where, "foreign")


def _parsed(text: str, where: str) -> Any:
    """Return the JSON of a text, with `?` for half of a character, as where a label was cut."""
    try:
        return json.loads(json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace"))
    except (json.JSONDecodeError, RecursionError) as error:
        why = getattr(error, "msg", "nested too deeply")
        raise CorruptError(f"{where} is not valid JSON: {why}; download it again") from None


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


def _check_place(where: str, explanation: ImportedExplanation, features: Features) -> None:
    """Raise `ConfigError` when an explanation cannot be of one of these features."""
    n_features, hook_point = features.n_features, features.settings.hook_point
    if int(explanation.index) >= n_features:
        raise ConfigError(
            f"{where}: feature {explanation.index} is beyond the {n_features:,} features of {features.name!r}; the "
            "export is of another dictionary"
        )
    layer, own_layer = re.match(r"[0-9]+", str(explanation.layer)), parse_hook_point(hook_point).layer
    if layer is not None and own_layer is not None and int(layer[0]) != own_layer:
        raise ConfigError(
            f"{where}: the export is of layer {layer[0]} ({explanation.layer}), {features.name!r} of layer {own_layer} "
            f"({hook_point}); choose the features of that layer"
        )


def _mean(scores: list[float]) -> float:
    return sum(scores) / len(scores) if scores else -math.inf
