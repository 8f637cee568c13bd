"""Labels of the MLP neurons of all layers or some, for reading attribution graphs of neurons. Torch-free.

    neurons = workspace.open(NeuronLabels, "smollm2-135m")
    neurons.of([(9, 97, 1)])                     # layer, neuron, sign of its activation -> `NeuronRow`

A neuron of a gated MLP is active in both directions, so its positive and its negative activations are two features.
`saes/features/describe_neurons.py` makes them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from interp.artifacts import Artefact, Table
from interp.artifacts.tables import Float32, Int8, Int16, Int32
from interp.models.short_name import short_name
from interp.options import check_least
from interp.tracing.background import direction
from interp.tracing.graph import AttributionGraph
from interp.view import Facts, View
from interp.workspace import Workspace
from saes.features.schema import quoted


@dataclass(frozen=True, kw_only=True)
class NeuronsConfig:
    """Settings of the description of neurons. Raises `ConfigError` for numbers that are too small."""

    layers: tuple[int, ...] = ()
    """Layers to describe, counted from 0. Default: all."""
    tokens: int | None = None
    """Tokens to read at most. Default: the whole recording."""
    window: int = 5
    """Tokens of context on each side of an example's peak."""
    examples: int = 2
    """Examples of each direction of a neuron."""
    prompts: int = 24
    """Prompts (beginnings of documents) whose graphs give the background, the neurons that lead every prompt; 0 for
    none."""

    def __post_init__(self) -> None:
        check_least(self, {"window": 0, "prompts": 0, "examples": 1, "tokens": 1})


@dataclass(frozen=True, kw_only=True)
class NeuronRow:
    """One direction of one neuron."""

    layer: Int16
    neuron: Int32
    sign: Int8
    """1: its positive activations, -1: its negative ones."""
    maximum: Float32
    """Largest magnitude of these activations."""
    label: str
    confirmed: bool
    """The label scored above 95 % of other neurons' labels on held-out text."""
    score: Float32 | None
    """Balanced accuracy of the label on held-out firings; None where nothing was scored."""
    null_high: Float32 | None
    """95th percentile of the scores of other neurons' labels there."""
    background: Float32
    """Mean influence over the graphs of other prompts (`interp/tracing/background.py`)."""
    says: list[str]
    """Tokens that it raises most through the Jacobian lens; none where 5 % of random directions raise one as much."""

    @property
    def name(self) -> str:
        """Its label if that holds, without its share; else the words that it raises; else what it fires on."""
        if self.says and not self.confirmed:
            return f"raises {', '.join(map(quoted, self.says))}"
        return re.sub(r" \(\d+ %\)$", "", self.label).removeprefix("no label; ")


@dataclass(frozen=True, kw_only=True)
class NeuronExample:
    """Text around a strong firing."""

    layer: Int16
    neuron: Int32
    sign: Int8
    tokens: list[str]
    activation: Float32
    """At the strongest token; a magnitude."""
    percent: list[Int8]
    """Activation on each token in this direction, in hundredths of that."""
    peak: Int8
    """Index of the strongest token."""

    @property
    def activations(self) -> list[float]:
        """Activation on each token, to a hundredth of the largest."""
        return [self.activation * percent / 100 for percent in self.percent]


@dataclass(frozen=True, kw_only=True)
class NeuronSettings:
    """Settings that determine the labels of neurons."""

    model: str
    weight_hash: str
    recording: str
    lens: str | None
    """Jacobian lens through which words are read."""
    window: int
    """Tokens on each side of the peak of an example."""
    examples: int
    """Examples of each direction of a neuron."""
    prompts: int
    """Prompts over whose graphs the background was measured, the first tokens of documents unless others are given."""


@dataclass(frozen=True, kw_only=True)
class NeuronLabels(Artefact, kind="neurons"):
    """The MLP neurons of a model, both directions of each, with labels and short examples."""

    settings: NeuronSettings
    n_layers: int
    """Layers of the model; `layers` are those described."""
    d_mlp: int
    n_tokens: int
    """Tokens of the text."""
    n_confirmed: int
    """Labels that scored above their null on held-out text."""
    rows: Table[NeuronRow]
    """Rows by layer, neuron and sign."""
    examples: Table[NeuronExample]
    """Rows by layer, neuron and sign, the strongest first."""

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers whose neurons are described."""
        rows = self.rows.query("select distinct layer from t order by layer").to_pylist()
        return tuple(row["layer"] for row in rows)

    def of(self, wanted: Iterable[tuple[int, int, int]]) -> dict[tuple[int, int, int], NeuronRow]:
        """Return the rows of some (layer, neuron, sign); missing ones are left out."""
        keys = list(dict.fromkeys(wanted))
        sql = """select t.* from t join (select unnest($1::smallint[]) as l, unnest($2::int[]) as n,
                 unnest($3::tinyint[]) as s) on layer = l and neuron = n and sign = s"""
        columns = [list(column) for column in zip(*keys, strict=True)] or [[], [], []]
        rows = self.rows.rows_of(self.rows.query(sql, *columns))
        return {(row.layer, row.neuron, row.sign): row for row in rows}

    def background(self) -> dict[tuple[int, int, int], float]:
        """Return the mean influence over other prompts, of the (layer, neuron, sign) that have any."""
        rows = self.rows.query("select layer, neuron, sign, background from t where background > 0").to_pylist()
        return {(row["layer"], row["neuron"], row["sign"]): row["background"] for row in rows}

    def examples_of(self, layer: int, neuron: int, sign: int) -> list[NeuronExample]:
        """Return the text around the strongest firings of one direction of a neuron."""
        return self.examples.rows("layer = ? and neuron = ? and sign = ?", layer, neuron, sign)

    def rows_of(self, graph: AttributionGraph) -> dict[int, NeuronRow]:
        """Return the rows of a graph's neurons by the number of the node; missing ones are left out."""
        latents = {i: direction(node) for i, node in enumerate(graph.nodes) if node.kind == "feature"}
        rows = self.of(latents.values())
        return {i: rows[key] for i, key in latents.items() if key in rows}

    def named(self, graph: AttributionGraph) -> AttributionGraph:
        """Return a graph of these neurons with their labels: where one fires, else the words that it raises."""
        rows = self.rows_of(graph)
        nodes = [replace(node, label=rows[i].name) if i in rows else node for i, node in enumerate(graph.nodes)]
        return graph.with_parts(nodes=nodes)

    def view(self) -> View:
        model = short_name(self.settings.model)
        some = "" if len(self.layers) == self.n_layers else f" ({len(self.layers)} of {self.n_layers} layers)"
        yield (
            f"{self.n_confirmed:,} of {len(self.rows):,} directions of neurons of {model}{some} have a label that "
            "holds on held-out text"
        )
        which = "" if len(self.layers) == self.n_layers else f" ({', '.join(map(str, self.layers))})"
        yield Facts(("layers", f"{len(self.layers)} of {self.n_layers}{which}"), ("neurons each", f"{self.d_mlp:,}"),
                ("labels that hold", f"{self.n_confirmed:,}"))  # fmt: skip


def newest_labels(workspace: Workspace, weight_hash: str) -> NeuronLabels | None:
    """Return the newest description of the neurons of a model; None without one."""
    return next((table for table in workspace.values(NeuronLabels) if table.settings.weight_hash == weight_hash), None)
