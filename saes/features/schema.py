"""The features artefact: its settings, counts, and the rows of its tables; and constants of readers and writers.

`labels` looks labels up by number. `saes.features.build` describes the features of a dictionary. Torch-free.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.artifacts import Artefact, Table, query
from interp.artifacts.files import file_version
from interp.artifacts.tables import Float32, Int8, Int16, Int32
from interp.errors import MismatchError
from interp.options import check_least
from interp.view import Facts, View
from interp.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa


NEURONS = "neurons:"
"""Start of the name of a dictionary that is the neurons of an MLP; their hook point follows."""
SAE = "sae:"
"""Start of the name of a dictionary that is an SAE; its name follows."""

# Example groups in the order in which they are stored and shown; `group_order` is the index in this tuple.
TOP = "top"
QUARTILES = ("q4", "q3", "q2", "q1")
"""`q4` holds firings from the strongest quarter of a feature's active values, `q1` from the weakest."""
GROUPS = (TOP, *QUARTILES)

N_EFFECTS = 10
"""Number of promoted and of suppressed tokens stored per feature."""
N_NEIGHBOURS = 10
"""Number of nearest neighbours by cosine similarity stored per feature."""
N_EXAMPLES = 12
"""Default number of examples stored of a feature's strongest firings."""
STATISTICS, CLASSES, CONTEXT = "token statistics", "word classes", "context"
SAID = "words it makes the model say"
SOURCES = (STATISTICS, CLASSES, CONTEXT, SAID)
"""Sources of labels that are made by rule, without a language model."""
MIN_HELDOUT = 5
"""Fewest held-out firings on which such a label is judged."""
NO_LABEL = "none"
"""Kind of label of a feature for which no candidate holds on held-out text."""
SAYS = "says"
"""Kind of a label that is the words which a feature makes the model say (`saes.features.titles`)."""
WRITTEN = "written"
"""Kind of a label written by a language model or a person: it has a text and no further fields."""
LABEL_FIELDS = ("label_kind", "label_names", "label_share")
"""Columns with the fields of a label (`saes.features._labels.Label`)."""
LABEL_SCORES = ("label_score", "label_null", "label_null_high", "label_heldout")
"""Columns with the score of a label on held-out firings, its null, and their number; null where nothing was scored."""
NOT_DENSEST = "density <= (select quantile_cont(density, 0.9) from f where n_fired > 0)"
"""SQL condition on `features.parquet` as `f`: not among the densest tenth of the live features of this dictionary. In
the densest tenth wide labels (noun, punctuation) are most frequent; where it begins depends on L0 and `d_sae`."""
MOST_TELLING = f"""{NOT_DENSEST} desc,
    coalesce(label_heldout >= 10 and label_score > label_null_high, false) desc,
    label_kind = 'written' desc, label_kind = 'said' desc, label_kind = 'class' desc,
    round(coalesce(label_score - label_null_high, 0), 2) desc, len(other_labels) desc,
    max_activation / greatest(mean_activation, 1e-9) desc, feature"""
"""SQL order of `features.parquet` as `f`, those that say most to a reader first: not dense, with a label above those of
other features, judged on ten firings. Labels that a reader wrote come first, then words that a feature both fires on
and makes the model say, then classes of words (months, pronouns); of these the labels farthest above the null, with
most other readings; without scored labels, features whose maximum is farthest above their mean activation."""


@dataclass(frozen=True, kw_only=True)
class FeatureRow:
    """One feature: how often and how strongly it fires, its label, and the effects of its direction."""

    feature: Int32
    """Index in the dictionary."""
    density: float
    """Fraction of real tokens on which it is active."""
    n_fired: int
    """Number of those tokens."""
    mean_activation: Float32
    """Over active tokens; 0 where it never fired."""
    max_activation: Float32
    decoder_norm: Float32
    """Length of its decoder direction."""
    label: str
    label_source: str
    """Maker of the label: one of `SOURCES`, or the model whose labels were adopted."""
    label_kind: str
    """Kind of label (`saes.features._labels`): `token`, `word`, `class` ..., or `written` by a model."""
    label_names: list[str]
    """The tokens or the class that the label names."""
    label_share: Float32 | None
    """Fraction of strong firings for which it holds; of a dense feature, of all tokens."""
    label_score: Float32 | None
    """Balanced accuracy on held-out strong firings; None where nothing was scored."""
    label_null: Float32 | None
    """Mean score there of other features' readings from the same source."""
    label_null_high: Float32 | None
    """95th percentile of those scores; of fewer than 19, the largest."""
    label_heldout: Int32 | None
    """Number of held-out firings."""
    other_labels: list[str]
    """Readings of other kinds that exceed their null, the best first."""
    other_sources: list[str]
    other_scores: list[Float32]
    promoted_tokens: list[str]
    """Tokens whose logit its direction raises most; none where it does not write to the residual stream."""
    promoted_logits: list[Float32]
    suppressed_tokens: list[str]
    suppressed_logits: list[Float32]
    neighbours: list[Int32]
    """Nearest features by cosine similarity of the decoder directions."""
    neighbour_cosines: list[Float32]
    histogram: list[int]
    """Active tokens per bin; the edges are `Features.histogram_edges`."""

    @property
    def promoted(self) -> list[tuple[str, float]]:
        """The tokens that its direction promotes most, each with the change of its logit."""
        return list(zip(self.promoted_tokens, self.promoted_logits, strict=True))

    @property
    def suppressed(self) -> list[tuple[str, float]]:
        """The same for the tokens that it suppresses most."""
        return list(zip(self.suppressed_tokens, self.suppressed_logits, strict=True))

    @property
    def near(self) -> list[tuple[int, float]]:
        """Its nearest features, each with the cosine similarity."""
        return list(zip(self.neighbours, self.neighbour_cosines, strict=True))

    def score_in_words(self) -> str:
        """Return the label's score and its null, or the reason for its absence; empty where the label was written."""
        score, n = self.label_score, self.label_heldout
        if n is None:
            return ""
        if score is None and n < MIN_HELDOUT:
            return f"too few firings to judge a reading: {n} held-out, {MIN_HELDOUT} needed"
        if score is None:
            return f"no candidate scored above other features' labels on {n} held-out firings"
        return (
            f"balanced accuracy {score:.2f} on {n} held-out firings; other features' labels "
            f"{self.label_null:.2f} on average, 95 % of them up to {self.label_null_high:.2f}; 0.5 is chance"
        )

    def other_readings(self) -> list[str]:
        """Return the other readings that exceed their null, each with source and score."""
        columns = zip(self.other_labels, self.other_sources, self.other_scores, strict=True)
        return [f"{label}: {score:.2f}, {source}" for label, source, score in columns]


@dataclass(frozen=True, kw_only=True)
class ExampleRow:
    """Text around one firing of a feature."""

    feature: Int32
    group: str
    """One of `GROUPS`: the strongest firings of different contexts, or a quarter of a sample of its firings."""
    group_order: Int8
    """Index of the group in `GROUPS`."""
    rank: Int16
    """Rank within the group, the strongest 0."""
    activation: Float32
    """At the peak token."""
    row: int
    """Row of the peak token in the recording."""
    document: Int32
    position: Int32
    """Position of the peak token in the document."""
    document_id: str
    document_label: str
    tokens: list[str]
    """Tokens around the peak within its context, as plain text, never HTML."""
    token_ids: list[Int32]
    activations: list[Float32]
    """Activation of this feature on each of the tokens."""
    peak: Int16
    """Index of the peak token in the window."""


@dataclass(frozen=True, kw_only=True)
class RelationRow:
    """Relations of one feature: to next tokens, to neurons, to features that fire on the same tokens."""

    feature: Int32
    logit_histogram: list[Int32]
    """Tokens of the vocabulary per bin of direct effect (`LogitScales.edges`); empty, as are the next five, where
    directions do not lie in the residual stream."""
    promoted_p: Float32 | None
    """Fraction of random directions, this one counted too, whose largest effect is at least as large."""
    suppressed_p: Float32 | None
    """The same of the smallest effect."""
    neuron_layers: list[Int16]
    neurons: list[Int32]
    """MLP neurons, up to the hook point's layer, whose output weights are most similar to the direction."""
    neuron_cosines: list[Float32]
    """Their cosine similarities, the largest magnitude first."""
    coactive: list[Int32]
    """Features that fire on the same tokens, by Jaccard index."""
    coactive_jaccard: list[Float32]
    """Tokens with both divided by tokens with either, 0 to 1."""
    coactive_tokens: list[Int32]
    """Tokens with both."""
    coactive_expected: list[Float32]
    """Number expected if the two fired independently."""

    @property
    def near_neurons(self) -> list[tuple[int, int, float]]:
        """Layer, number and cosine similarity of each of the nearest neurons."""
        return list(zip(self.neuron_layers, self.neurons, self.neuron_cosines, strict=True))

    @property
    def companions(self) -> list[tuple[int, float, int, float]]:
        """The co-active features: number, Jaccard index, tokens with both, and the number expected by chance."""
        columns = (self.coactive, self.coactive_jaccard, self.coactive_tokens, self.coactive_expected)
        return list(zip(*columns, strict=True))


@dataclass(frozen=True, kw_only=True)
class LogitScales:
    """Scale of the histograms of logits, with the random directions that are their null."""

    edges: tuple[float, float, int]
    """Lowest edge, highest edge, number of equal bins; the end bins hold what lies beyond."""
    null: list[float]
    """Mean histogram of the random directions."""
    null_top: tuple[float, float, float]
    """5, 50 and 95 % quantile of the largest effect of a random direction."""


@dataclass(frozen=True, kw_only=True)
class RelationScales:
    """Scales and nulls of the relations of all features."""

    draws: int
    """Random directions."""
    coactivation_tokens: int
    """Tokens of the sample on which co-activation was counted."""
    logits: LogitScales | None
    """None where directions do not lie in the residual stream."""
    neuron_null: float | None
    """Cosine similarity with the nearest neuron that 95 % of random directions stay below; None without MLPs."""


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Settings of the description of features. Raises `ConfigError` for numbers that are too small."""

    window: int = 16
    """Tokens of context on each side of an example's peak."""
    examples: int = N_EXAMPLES
    """Examples of the strongest firings of each feature."""
    samples: int = 5
    """Examples from each quarter of a feature's activations."""
    index: bool = True
    """Index the text, so that features are found by the words on which they fire."""
    index_units: int = 512
    """Words indexed per feature: those with most of its activation."""

    def __post_init__(self) -> None:
        check_least(self, {"window": 0, "examples": 1, "samples": 0, "index_units": 1})


@dataclass(frozen=True, kw_only=True)
class FeaturesSettings:
    """Settings that determine the description of a dictionary's features."""

    dictionary: str
    """`sae:NAME`, `neurons:HOOK_POINT` or `transcoders:SET:LAYER`."""
    sign: int
    """-1 for the negative activations of neurons, else 1."""
    recording: str
    hook_point: str
    model: str
    window: int
    """Tokens on each side of the peak of an example."""
    n_top: int
    """Examples of the strongest firings of each feature."""
    n_per_quantile: int
    """Examples from each quarter of activation."""
    labels: str | None
    """Labels artefact whose labels were adopted."""


@dataclass(frozen=True, kw_only=True)
class Features(Artefact, kind="features"):
    """The features of a dictionary over a recording. Next to them may lie an index of the text, for search."""

    settings: FeaturesSettings
    n_features: int
    n_tokens: int
    """Real tokens of the recording."""
    n_dead: int
    """Features that never fire."""
    n_dense: int
    """Features that fire on more than a tenth of all tokens."""
    mean_l0: float
    """Mean number of active features per token."""
    tokens_per_second: float
    histogram_edges: list[float]
    """Edges of the bins of activation of all histograms."""
    features: Table[FeatureRow]
    """Rows by feature."""
    examples: Table[ExampleRow]
    """Rows by feature, group and rank."""
    relations: Table[RelationRow] | None
    """Rows by feature; None where they were not measured."""
    scales: RelationScales | None
    """Scales of the relations."""

    @property
    def dictionary(self) -> str:
        """`sae:NAME`, `neurons:HOOK_POINT` or `transcoders:SET:LAYER`."""
        return self.settings.dictionary

    @property
    def sae(self) -> str:
        """Name of the SAE that is described; empty for another dictionary."""
        return self.dictionary.removeprefix(SAE) if self.dictionary.startswith(SAE) else ""

    @property
    def neurons(self) -> str:
        """Hook point of the neurons that are described; empty for another dictionary."""
        return self.dictionary.removeprefix(NEURONS) if self.dictionary.startswith(NEURONS) else ""

    @property
    def set_name(self) -> str:
        """Name of the set of transcoders of which one layer is described; empty for another dictionary."""
        kind, _, name = self.dictionary.partition(":")
        return name.rpartition(":")[0] if kind == "transcoders" else ""

    def labels_by_rule(self) -> dict[int, str]:
        """Return the labels that were made by rule, by feature."""
        rows = self.features.query("select feature, label, label_source from t").to_pylist()
        return {row["feature"]: row["label"] for row in rows if row["label_source"] in SOURCES}

    def view(self) -> View:
        what = "neurons of the model" if self.neurons else "features of a dictionary"
        if self.set_name:
            layer = self.dictionary.rpartition(":")[2]
            what = f"latents in layer {layer} of the set {self.set_name}"
        live = f"{self.n_features - self.n_dead:,} of {self.n_features:,}"
        yield f"{live} {what} are active at least once in {self.n_tokens:,} tokens"
        yield Facts(("dead", f"{self.n_dead:,}"), ("dense", f"{self.n_dense:,}"), ("dictionary", self.dictionary))
        yield from self._lines()

    def _lines(self) -> list[str]:
        """Return the number of labels confirmed on held-out text, with their mean score, by source."""
        if self.set_name:  # a command describes many layers
            return []
        sql = """select label_source as source, count(*) as n, avg(label_score) as score, avg(label_null) as "null"
                 from t where label_score is not null group by all order by n desc"""
        rows = self.features.query(sql).to_pylist()
        parts = [f"{row['n']:,} from {row['source']} ({row['score']:.2f}, null {row['null']:.2f})" for row in rows]
        return [
            f"labels: {sum(row['n'] for row in rows):,} of {self.n_features:,} features have one that scores above "
            "other features' labels on held-out text",
            f"mean balanced accuracy: {', '.join(parts) or 'none'}",
        ]


def described_another(workspace: "Workspace", features: Features) -> str:
    """Return a warning where the SAE in the workspace is not the one whose features were described; else an empty text.

    If it was made again under its name since, labels and examples belong to other directions. A deleted SAE, or one
    without a record, is not judged.
    """
    name = features.sae
    recorded = features.about.parents.get(f"saes/{name}")
    if not name or recorded is None or name not in workspace.names("sae"):
        return ""
    if workspace.manifest("sae", name).content_hash == recorded:
        return ""
    named = "" if features.name == name else f" --name {features.name}"
    return (
        f"the SAE {name} was made again since its features {features.name} were described; "
        f"run `workbench features {name}{named} --overwrite`"
    )


def check_described(workspace: "Workspace", features: Features) -> None:
    """Raise `MismatchError` where the SAE is not the one whose features were described (`described_another`)."""
    if mismatch := described_another(workspace, features):
        raise MismatchError(mismatch)


def labels(workspace: Workspace, name: str, features: Iterable[int]) -> dict[int, str]:
    """Return the labels of some features of an artefact; a number without a row is left out."""
    path = workspace.table_path("features", name, "features")
    table = _all_labels(path, file_version(path))
    numbers, wanted = np.asarray(table["feature"]), np.asarray(sorted(set(features)), int)
    rows: list[int] = np.searchsorted(numbers, wanted).tolist()
    return {
        feature: table["label"][row].as_py()
        for feature, row in zip(wanted.tolist(), rows, strict=True)
        if row < len(numbers) and numbers[row] == feature
    }


@lru_cache(maxsize=4)
def _all_labels(path: Path, version: tuple[int, ...]) -> "pa.Table":
    return query("select feature, label from t order by feature", t=path)


def shares_below(features: Features, fired: Sequence[tuple[int, float]]) -> list[float | None]:
    """Return, for pairs of feature and activation, the fraction of recorded activations of the feature below it.

    Within a bin of its histogram, activations are taken to be spread evenly in their logarithm. None for a feature
    that never fired.
    """
    edges = np.log(np.array(features.histogram_edges))
    sql = "select feature, histogram from t where feature in (select unnest(?::int[]))"
    rows = features.features.query(sql, sorted({feature for feature, _ in fired})).to_pylist()
    counts = {row["feature"]: np.concatenate([[0], np.cumsum(row["histogram"])]) for row in rows}
    return [
        float(np.interp(float(np.log(max(value, 1e-30))), edges, at) / at[-1]) if at is not None and at[-1] else None
        for value, at in ((activation, counts.get(feature)) for feature, activation in fired)
    ]


LONGEST_TOKEN = 24


def quoted(token: str) -> str:
    """Return a token in double quotes, with line breaks as `\\n`, truncated when very long.

    >>> quoted(" the")
    '" the"'
    """
    short = token if len(token) <= LONGEST_TOKEN else token[: LONGEST_TOKEN - 1] + "…"
    return json.dumps(short, ensure_ascii=False)


def features_of_sae(workspace: Workspace, sae: str) -> Path | None:
    """Return the folder of the features of an SAE, those of the same name first; None when there are none."""
    names = [m.name for m in workspace.children("sae", sae) if m.kind == "features"]
    return workspace.path("features", sae if sae in names else names[0]) if names else None


@dataclass(frozen=True)
class KnownFeature:
    """Label and size of a latent, as the features of its SAE say."""

    label: str = ""
    largest: float = 0.0
    """Largest activation; 0 where none was measured."""


def known_features(workspace: Workspace, sae: str) -> dict[int, KnownFeature]:
    """Return the features of an SAE by number, with label and largest activation; empty where it was not described."""
    folder = features_of_sae(workspace, sae)
    if folder is None:
        return {}
    path = workspace.table_path("features", folder.name, "features")
    rows = workspace.query("select feature, label, max_activation from f", f=path).to_pylist()
    return {row["feature"]: KnownFeature(row["label"] or "", float(row["max_activation"] or 0)) for row in rows}
