"""Features as the page reads them: one feature, its examples and labels, or a slice of the sorted list."""

import itertools
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar

import numpy as np

from dashboard.sources import open_artefact
from interp.artifacts import Table, query
from interp.artifacts.files import file_version
from interp.atlas.vector_map import VectorMap
from interp.directions.study import DirectionGeometry
from interp.errors import UnknownNameError, UsageError, WorkbenchError
from interp.names import parse_hook_point
from interp.notes import Notes
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from saes.features.schema import MOST_TELLING, NO_LABEL, ExampleRow, FeatureRow, Features, RelationRow, RelationScales
from saes.features.schema import labels as labels
from saes.features.written_labels import FeatureLabel, Labels, LabelScore

if TYPE_CHECKING:
    import pyarrow as pa

Row = TypeVar("Row")
MAX_ROWS = 200
"""Rows of the list per request."""
MAX_EXAMPLES = 60
"""Examples per group, where more are stored."""
MAX_BETWEEN = 40
"""Examples in a range of activation."""
MAX_EXPLANATIONS = 12
"""labels artefacts shown for one feature"""
BLOCK = 16
"""Features whose rows are read at once, since visitors step along features and tables are decoded in row groups."""
_LIST_COLUMNS = ("feature", "label", "label_score", "density", "mean_activation", "max_activation", "n_fired")


@dataclass(frozen=True)
class Slice:
    """Some rows of the filtered and sorted list, and the number of all that match."""

    rows: list[dict[str, Any]]
    total: int


@dataclass(frozen=True)
class ListQuery:
    """Filter and order of the list: text in the label or own name, a range of density (0 to 1), a column to sort by."""

    text: str = ""
    density_low: float = 0.0
    density_high: float = 1.0
    sort: str = "feature"
    """A column; empty for the order of `MOST_TELLING`."""
    descending: bool = False
    names: dict[int, str] = field(default_factory=dict)
    """Names that the user gave to features; they are shown with the label, and `text` finds them."""

    def __post_init__(self) -> None:
        if self.sort and self.sort not in _LIST_COLUMNS:
            raise UnknownNameError("column", self.sort, _LIST_COLUMNS)


def choose(workspace: Workspace, name: str | None) -> str:
    """Return `name` when there are features of this name; without one, those of the SAE with most labels.

    Without an SAE, the newest. Raises `UnknownNameError` with the nearest names, `NothingYetError` without features.
    """
    best = None if name else next(iter(_by_labels(workspace)), None)
    return best[0] if best else open_artefact(workspace, ("features",), name).name


def why_chosen(workspace: Workspace) -> str:
    """Return the reason for what `choose` took, in a sentence; empty if there was one candidate."""
    ranked = _by_labels(workspace)
    if len(ranked) < 2:
        return ""
    (first, share), (second, second_share) = ranked[:2]
    return (
        f"Opened on {first}: {share:.0%} of its features have a label that exceeds its null; "
        f"of those of {second} {second_share:.0%}."
    )


def _by_labels(workspace: Workspace) -> list[tuple[str, float]]:
    """Return the features of SAEs with the share of live ones that have a scored label, the largest share first."""
    made = [features for features in workspace.values(Features) if features.sae]
    shares = [(features.name, _labelled(features.folder, features.about.content_hash)) for features in made]
    return sorted(shares, key=lambda pair: -pair[1])


@lru_cache(maxsize=64)
def _labelled(folder: Path, _version: str) -> float:
    """Return the share of live features with a scored label, 0 to 1; 0 where the table cannot be read."""
    sql = "select count(label_score) / greatest(count(*), 1) as share from f where n_fired > 0"
    try:
        return float(query(sql, f=folder / "features.parquet")["share"][0].as_py())
    except WorkbenchError:  # its own page says what is wrong
        return 0.0


def choices(workspace: Workspace) -> list[dict[str, str]]:
    """Return `{"value": name, "label": "name · sae:demo"}` for every features artefact, newest first."""
    return [
        {"value": features.name, "label": f"{features.name} · {features.dictionary}"}
        for features in workspace.values(Features)
    ]


class FeatureState(TypedDict):
    """The feature that a page shows, as the browser holds it."""

    features: str
    index: int


class One(NamedTuple):
    """One feature, with the features that it belongs to."""

    features: Features
    row: FeatureRow

    def to_json(self) -> dict[str, Any]:
        """Return the row for the API, with the edges of its histogram."""
        of = self.features
        header = {"histogram_edges": of.histogram_edges, "n_features": of.n_features, "dictionary": of.dictionary}
        return asdict(self.row) | header


class FeatureRelations(NamedTuple):
    """Relations of one feature, with their scales and nulls."""

    row: RelationRow
    scales: RelationScales
    model: str

    def to_json(self) -> dict[str, Any]:
        """Return the relations for the API."""
        return asdict(self.row) | {"scales": asdict(self.scales), "model": self.model}


def one(workspace: Workspace, name: str, index: int) -> One:
    """Return a feature. Raises `UsageError` out of range."""
    features = workspace.open(Features, name)
    rows = _near(features.features, index, "select * from t where feature >= ? and feature < ?")
    if not rows:
        raise UsageError(f"feature {index} is not in {name!r}: its features are 0 to {features.n_features - 1}")
    return One(features, rows[0])


def examples(features: Features, index: int) -> list[ExampleRow]:
    """Return token windows in which the feature is active, by group (`top`, `q4` ... `q1`), strongest first."""
    sql = f"""select * from t where feature >= ? and feature < ? and rank < {MAX_EXAMPLES}
              order by feature, group_order, rank"""
    return _near(features.examples, index, sql)


def _near(table: Table[Row], index: int, sql: str) -> list[Row]:
    """Return the rows of a feature; rows of neighbouring features stay cached until the file changes."""
    assert table.path is not None
    rows = _block(table.row, table.path, file_version(table.path), sql, index - index % BLOCK)
    return table.rows_of(rows.filter(np.asarray(rows["feature"]) == index))


@lru_cache(maxsize=64)
def _block(row: type, path: Path, version: tuple[int, ...], sql: str, first: int) -> "pa.Table":
    """Return the rows of `BLOCK` features from `first` on."""
    return Table(row, path).query(sql, first, first + BLOCK)


def examples_between(
    features: Features, index: int, low: float, high: float, *, last: bool = False
) -> tuple[list[ExampleRow], int]:
    """Return the examples with an activation from `low` up to `high`, strongest first, and the number of all stored.

    Each context appears once. `last` includes activations of `high` or more, like the last bin of a histogram.
    """
    once = "feature = ? qualify row_number() over (partition by row order by group_order) = 1"
    examples = features.examples.rows(once, index, order="activation desc, row")
    within = [example for example in examples if low <= example.activation and (last or example.activation < high)]
    return within[:MAX_BETWEEN], len(examples)


class Explained(NamedTuple):
    """Label and score of a feature in one labels artefact."""

    made: Labels
    label: FeatureLabel
    score: LabelScore | None
    """None where there were no trials."""

    @property
    def given(self) -> list[tuple[str, float]]:
        """Scores that came with an imported label, each with its source."""
        return list(zip(self.label.given_names, self.label.given_scores, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return the label and its score for the API."""
        source = {"artefact": self.made.name, "judge": self.made.judge}
        return asdict(self.label) | {"score": self.score and asdict(self.score)} | source


def explanations(workspace: Workspace, features: Features, index: int) -> list[Explained]:
    """Return the labels of a feature with their scores.

    Labels come from artefacts made for these features as they are now, or whose labels these features took over.
    """
    about = features.about
    labels: list[Explained] = []
    for made in workspace.values(Labels):
        for_these = made.settings.features_hash == about.content_hash
        taken_in = about.parents.get(made.key) == made.about.content_hash
        if (for_these or taken_in) and len(labels) < MAX_EXPLANATIONS:
            rows = made.labels.rows("feature = ?", index)
            score = next(iter(made.scores.rows("feature = ?", index)), None)
            labels += [Explained(made, row, score) for row in rows]
    return labels


def names(workspace: Workspace, name: str) -> dict[int, str]:
    """Return the names that the user gave to features of an artefact; none where the notes cannot be read.

    The controls of the notes, on the same page, show why they cannot.
    """
    start = f"features/{name}#"
    try:
        titles = Notes.open(workspace).titles()
    except WorkbenchError:
        return {}
    parts = {key.removeprefix(start): title for key, title in titles.items() if key.startswith(start)}
    return {int(part): title for part, title in parts.items() if part.isdigit() and len(part) < 10}


def named(index: int, label: str | None, names: dict[int, str]) -> str:
    """Return the label of a feature, after the user's own name where there is one."""
    return f"{names[index]} · {label or 'no label'}" if index in names else label or ""


def listing(workspace: Workspace, name: str, query: ListQuery, start: int = 0, end: int = 100) -> Slice:
    """Return at most `MAX_ROWS` rows of the list, and the number of all that match."""
    path = workspace.table_path("features", name, "features")
    where, values, order = _filter(query)
    limit = max(0, min(end - start, MAX_ROWS))
    sql = f"select {', '.join(_LIST_COLUMNS)} from f where {where} order by {order} limit ? offset ?"
    rows = [
        row | {"id": str(row["feature"]), "label": named(row["feature"], row["label"], query.names)}
        for row in workspace.query(sql, *values, limit, max(0, start), f=path).to_pylist()
    ]
    total = workspace.query(f"select count(*) as n from f where {where}", *values, f=path)["n"][0].as_py()
    return Slice(rows, total)


def _filter(query: ListQuery) -> tuple[str, tuple[float | str | list[int], ...], str]:
    """Return the SQL condition of a query with its values, and the order."""
    where = (
        "density between ? and ? and (? = '' or contains(lower(label), lower(?)) or list_contains(?::int[], feature))"
    )
    indices = [index for index, name in query.names.items() if query.text.lower() in name.lower()]
    values = (query.density_low, query.density_high, query.text, query.text, indices)
    if not query.sort:
        return where, values, MOST_TELLING
    first = "round(label_score, 2)" if query.sort == "label_score" else query.sort  # as shown; then by use
    return where, values, f"{first} {'desc' if query.descending else 'asc'} nulls last, n_fired desc, feature"


def step(workspace: Workspace, name: str, query: ListQuery, index: int, by: int) -> int:
    """Return the feature `by` rows after `index` in the filtered and sorted list; `index` itself at an end of it.

    A step from a feature that the filter hides leads to the first of the list.
    """
    path = workspace.table_path("features", name, "features")
    where, values, order = _filter(query)
    sql = f"""with listed as (select feature, row_number() over (order by {order}) as n from f where {where})
              select feature from listed
              where n = coalesce((select n from listed where feature = ?) + ?, 1)"""
    features = workspace.query(sql, *values, index, by, f=path)["feature"].to_pylist()
    return features[0] if features else index


def unlabelled(workspace: Workspace, name: str, n: int) -> list[int]:
    """Return the `n` features that fire most often, of those without a label and without a written one."""
    path = workspace.table_path("features", name, "features")
    written = [row.feature for made in workspace.values(Labels) if made.settings.features == name
               for row in made.labels.rows() if row.label]  # fmt: skip
    sql = """select feature from f where label_kind = ? and not list_contains(?::int[], feature)
             order by n_fired desc, feature limit ?"""
    return workspace.query(sql, NO_LABEL, written, n, f=path)["feature"].to_pylist()


def random_live(workspace: Workspace, name: str, *, seed: int) -> int:
    """Return a feature that is not dead, drawn by `seed`; 0 when all are dead."""
    path = workspace.table_path("features", name, "features")
    live = workspace.query("select feature from f where n_fired > 0 order by feature", f=path)["feature"]
    return live[seed % len(live)].as_py() if len(live) else 0


def most_telling(workspace: Workspace, name: str) -> int:
    """Return the feature to open first (`MOST_TELLING`); 0 when all are dead."""
    path = workspace.table_path("features", name, "features")
    sql = f"select feature from f where n_fired > 0 order by {MOST_TELLING} limit 1"
    rows = workspace.query(sql, f=path)["feature"].to_pylist()
    return rows[0] if rows else 0


def relations(features: Features, index: int) -> FeatureRelations | None:
    """Return the relations of a feature; None for an artefact that lacks them."""
    if features.relations is None or features.scales is None:
        return None
    rows = _near(features.relations, index, "select * from t where feature >= ? and feature < ?")
    return FeatureRelations(rows[0], features.scales, features.settings.model) if rows else None


class Uses(NamedTuple):
    """Artefacts that contain one feature."""

    maps: list[tuple[str, int]]
    """(name of the atlas, its point)"""
    directions: list[str]
    """keys of reports on the feature's direction"""
    graphs: list[tuple[str, str]]
    """(name of the attribution graph, the feature's node with the largest influence in its pruned part)"""


def traced_layer(features: Features, dictionary: str, model: str) -> int | None:
    """Return the layer whose latents a features artefact describes, in graphs of a dictionary and a model; else None.

    `dictionary` is the name of a set of transcoders, or `neurons`.
    """
    if dictionary == "neurons":
        fits = features.neurons and features.settings.model == model
        return parse_hook_point(features.neurons).layer if fits else None
    layer = parse_hook_point(features.settings.hook_point).layer
    of_set = f"transcoders/{dictionary}" in features.about.parents or features.name == f"{dictionary}-{layer}"
    return layer if of_set else None


def uses(workspace: Workspace, features: Features, index: int) -> Uses:
    """Return the maps, direction reports and graphs of this workspace that contain a feature."""
    dictionary, key = features.dictionary, f"saes/{features.sae}" if features.sae else None
    maps = [
        (atlas.name, points[0].point)
        for atlas in workspace.values(VectorMap)
        if atlas.settings.source in (f"features:{features.name}", dictionary, dictionary.replace("sae:", "encoder:", 1))
        if (points := atlas.points.rows("item = ?", index))
    ]
    source = f"feature {index} of the SAE {dictionary.removeprefix('sae:')}"
    directions = [
        report.key
        for report in workspace.values(DirectionGeometry)
        if key in report.about.parents and report.settings.direction.source.split(",")[0] == source
    ]
    graphs = [
        (graph.name, node)
        for graph in workspace.values(AttributionGraph)
        if (node := _graph_node(graph, features, index)) is not None
    ]
    return Uses(maps, directions, graphs)


def _graph_node(graph: AttributionGraph, features: Features, index: int) -> str | None:
    """Return the node of a feature in the pruned part of a graph, that with the largest influence where several are."""
    layer = traced_layer(features, graph.dictionary, graph.model)
    if layer is None:
        return None
    where = "kind = 'feature' and kept and layer = ? and \"index\" = ?"
    nodes = graph.node_table.rows(where, layer, index, order="influence desc", limit=1)
    return nodes[0].id if nodes else None


def dashboard_batch(workspace: Workspace, name: str, index: int) -> dict[str, object]:
    """Return one feature as a batch of SAEDashboard's JSON, the format that Neuronpedia imports.

    Fields of SAEDashboard (`neuronpedia_dashboard.py`) that are not measured here are empty lists: correlations with
    neurons, and the norms of alignments. `neuron_alignment_indices` count through the neurons of the hook point's own
    layer alone. Example groups become intervals; the strongest examples have `bin_min` and `bin_contains` of -1.
    """
    features, row = one(workspace, name, index)
    related = relations(features, index)
    edges, hook_point = features.histogram_edges, parse_hook_point(features.settings.hook_point)
    centres = [(low * high) ** 0.5 if low > 0 else (low + high) / 2 for low, high in itertools.pairwise(edges)]
    record: dict[str, object] = {
        "feature_index": index,
        "neuron_alignment_indices": [],
        "neuron_alignment_values": [],
        "correlated_features_indices": [],
        **{key: [] for key in _NOT_MEASURED},
        "neg_str": row.suppressed_tokens,
        "neg_values": row.suppressed_logits,
        "pos_str": row.promoted_tokens,
        "pos_values": row.promoted_logits,
        "frac_nonzero": row.density,
        "freq_hist_data_bar_values": centres,
        "freq_hist_data_bar_heights": row.histogram,
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "n_prompts_total": 0,
        "n_tokens_in_prompt": features.n_tokens,
        "dataset": features.settings.recording,
        "activations": _binned(examples(features, index), row.max_activation),
    }
    if related is not None:
        record["correlated_features_indices"] = related.row.coactive
        if related.scales.logits is not None:
            low, high, n = related.scales.logits.edges
            record["logits_hist_data_bar_values"] = [low + (high - low) * (i + 0.5) / n for i in range(n)]
            record["logits_hist_data_bar_heights"] = related.row.logit_histogram
        near = [(neuron, cosine) for layer, neuron, cosine in related.row.near_neurons if layer == hook_point.layer]
        record["neuron_alignment_indices"] = [neuron for neuron, _ in near]
        record["neuron_alignment_values"] = [cosine for _, cosine in near]
    layer = -1 if hook_point.layer is None else hook_point.layer
    return {"model_id": features.settings.model, "layer": layer, "sae_set": name, "features": [record]}


_NOT_MEASURED = (
    *("neuron_alignment_l1", "correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson"),
    *("correlated_features_l1", "correlated_features_pearson", "decoder_weights_dist"),
)


def _binned(rows: list[ExampleRow], maximum: float) -> list[dict[str, object]]:
    """Return examples with the interval of activations that their group spans among those stored."""
    groups: list[dict[str, object]] = []
    for row in rows:
        same = [example.activation for example in rows if example.group == row.group]
        top = row.group == "top"
        groups.append(
            {
                "bin_min": -1 if top else min(same),
                "bin_max": maximum if top else max(same),
                "bin_contains": -1 if top else 0.25,
                "tokens": row.tokens,
                "values": row.activations,
            }
        )
    return groups


VIEWER_BINS = 40
"""Bins of the histogram in the viewer's JSON."""


def viewer_feature(workspace: Workspace, name: str, index: int) -> dict[str, object]:
    """Return one feature in the JSON that circuit-tracer's viewer and Neuronpedia read for a node of a graph.

    `histogram` counts firings in `VIEWER_BINS` equal bins from `act_min` to `act_max`, from our logarithmic bins,
    within each of which firings are taken to be spread evenly. `quantile_values` are percentiles 1 to 99 of the
    activations that are not 0, by the same bins.
    """
    features, row = one(workspace, name, index)
    by_group: dict[str, list[dict[str, object]]] = {}
    for window in examples(features, index):
        example: dict[str, object] = {
            "tokens": window.tokens,
            "tokens_acts_list": window.activations,
            "train_token_ind": window.peak,
            "is_repeated_datapoint": False,
        }
        by_group.setdefault(window.group, []).append(example)
    top = row.max_activation
    filled = np.flatnonzero(row.histogram)
    bins = slice(0, filled[-1] + 1 if len(filled) else 0)
    edges = np.minimum([*features.histogram_edges[bins], top], top)  # no firing lies above the largest
    total = np.concatenate([[0], np.cumsum(row.histogram[bins])]).astype(np.float64)
    return {
        "transcoder_id": name,
        "index": index,
        "examples_quantiles": [
            {"quantile_name": _QUANTILE_NAMES.get(group, group), "examples": rows} for group, rows in by_group.items()
        ],
        "top_logits": row.promoted_tokens,
        "bottom_logits": row.suppressed_tokens,
        "act_min": 0.0,
        "act_max": top,
        "quantile_values": np.interp(np.arange(1, 100) * float(total[-1]) / 100, total, edges).tolist(),
        "histogram": np.diff(np.interp(np.linspace(0, top, VIEWER_BINS + 1), edges, total)).tolist(),
        "activation_frequency": row.density,
    }


_QUANTILE_NAMES = {
    "top": "Top activations",
    **{f"q{i}": f"Activations of quartile {i} of 4" for i in (4, 3, 2, 1)},
}
