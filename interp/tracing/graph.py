"""An attribution graph as an artefact, and the settings of its trace. Torch-free: pages and scripts read it without a
model.

    graph = workspace.open(AttributionGraph, "capital")
    print(graph)                              # scores, and the nodes with the largest influence
    graph.edges_into(node), graph.edges_from(node)

Node ids are `feature:LAYER:POSITION:LATENT`, `error:LAYER:POSITION`, `token:POSITION:TOKEN` and
`logit:POSITION:TARGET`, where TARGET counts the targets from 0.

"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from interp.artifacts import Artefact, DocumentField, Table
from interp.artifacts.tables import schema_of
from interp.errors import ConfigError, CorruptError, MismatchError, UnknownNameError
from interp.models.short_name import short_name
from interp.options import Derived, Seed
from interp.results import Record
from interp.statistics import Interval
from interp.tracing._influence import GraphScores
from interp.tracing._sufficiency import Sufficiency
from interp.view import Dots, Facts, Finding, Rows, View


@dataclass(frozen=True, kw_only=True)
class TraceConfig:
    """Settings of an attribution graph."""

    max_feature_nodes: int = 4096
    """Largest number of active latents that get a row of edges: those with most influence on the targets so far."""
    max_logits: int = 1
    """Next tokens that are explained at once where no target is named. 1: the likeliest content word against the next;
    more: the likeliest tokens, at most as many."""
    logit_share: Derived[float] = 0.95
    """Of several targets: the fewest next tokens whose probabilities sum to this."""
    node_share: Derived[float] = 0.8
    """Nodes that hold this share of all influence are kept in the pruned graph."""
    edge_share: float = 0.98
    """Edges that hold this share of the scores between kept nodes are kept."""
    max_neurons: Derived[int] = 30_000
    """With MLP neurons as the dictionary: the largest number of neurons that become nodes, by activation times length
    of the output weights. The others of a layer and position are part of its error node."""
    skip_positions: Derived[int] = 1
    """First positions without latents and errors: BOS, whose activations are outliers. Gemma 3 instruct: 4."""
    batch_size: int = 256
    """Rows that are computed together."""
    effects: int = 48
    """Latents that are ablated in the free model, to compare the effects with the graph's prediction; 0 for none."""
    nulls: bool = True
    """Also compute the scores of the same prompt without any latent, and with an untrained dictionary."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        least = {"max_feature_nodes": 1, "max_logits": 1, "max_neurons": 1, "batch_size": 1}
        for name, low in (least | {"effects": 0, "skip_positions": 0}).items():
            if (value := getattr(self, name)) < low:
                raise ConfigError(f"{name} must be at least {low}, got {value}")
        for name in ("logit_share", "node_share", "edge_share"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise ConfigError(f"{name} must be above 0 and at most 1, got {value}")


KIND = "attribution_graph"
TARGET_RULE = "No target was named: the likeliest content word is explained against {}."
PROMPT_WORDS = 5
"""Words at the end of a prompt that a headline shows."""

NodeKind = Literal["feature", "error", "token", "logit"]
NODE_KINDS: tuple[NodeKind, ...] = get_args(NodeKind)


@dataclass(frozen=True)
class GraphNode:
    """One node of an attribution graph."""

    kind: NodeKind
    layer: int
    """layer of a latent or an error; -1 for a token, `n_layers` for a logit"""
    position: int
    index: int
    """latent in its dictionary, token id of a token, number of the target of a logit; -1 for an error"""
    activation: float = 0.0
    """of a latent, in the units of its dictionary; 0 for other nodes"""
    influence: float = 0.0
    """influence on the targets, absolute: the sum over nodes that lead straight to the targets is 1"""
    share: float = 1.0
    """cumulative share of the influence of all nodes, in descending order: low is important"""
    kept: bool = True
    """part of the graph that is pruned at the default thresholds"""
    probability: float = 0.0
    """of a logit: probability of the token in the model; the weight of a target without one"""
    label: str = ""
    effects: Sequence[float] = ()
    """on each target: its value times the target's gradient in the model with nothing frozen (`first_order_effects`);
    empty for a logit, and in graphs of other programs"""

    @property
    def id(self) -> str:
        parts: tuple[int, ...] = {
            "feature": (self.layer, self.position, self.index),
            "error": (self.layer, self.position),
        }.get(self.kind, (self.position, self.index))
        return ":".join([self.kind, *map(str, parts)])


@dataclass(frozen=True)
class GraphEdges:
    """Edges as arrays of one length, each row one edge."""

    source: np.ndarray
    """number of the source node, int32"""
    target: np.ndarray
    weight: np.ndarray
    """direct effect of the source's value on the target's input, signed, float32"""
    share: np.ndarray
    """cumulative share of edge scores, in descending order: low is important"""
    kept: np.ndarray
    """part of the graph that is pruned at the default thresholds, bool"""

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class GraphTarget:
    """One explained output: a token's logit less the mean logit, or less that of `contrast`, or a latent."""

    label: str
    token: int | None = None
    contrast: int | None = None
    weight: float = 1.0
    """share of the influence that starts here: 1 for a single target, else the token's probability"""

    @property
    def sides(self) -> tuple[str, str]:
        """Return the text of the token and that of its contrast, which is empty without one."""
        ours, _, contrast = self.label.partition(" - ") if self.contrast is not None else (self.label, "", "")
        return ours, contrast


@dataclass(frozen=True, kw_only=True)
class LikelyToken:
    """A token that may be said next."""

    text: str
    token: int
    probability: float = 0.0


@dataclass(frozen=True)
class Supernode:
    """Nodes of a graph that are shown as one."""

    name: str
    nodes: tuple[str, ...]
    """ids"""


@dataclass(frozen=True, kw_only=True)
class GraphEdge:
    """One edge as a row; `GraphEdges` explains the columns."""

    source: int
    target: int
    weight: float
    share: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Influence that goes straight from one group of nodes to another, over the words of a template."""

    source: str
    target: str
    mean: float
    low: float
    high: float
    """Ends of its 95 % interval over the words."""
    same_sign: int
    """Words whose flow has the sign of the mean."""
    n: int

    @property
    def beyond(self) -> bool:
        """True where the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """The file of another program that a graph came from."""

    file: str = ""
    sha256: str = ""
    node_share: float | None = None
    """Share of influence at which it was pruned, where the file says so."""
    guessed_links: int = 0
    """Links whose source had to be guessed, since a latent and an error have the same id."""


@dataclass(frozen=True, kw_only=True)
class GraphSettings:
    """Settings that determine a graph."""

    model: str
    weight_hash: str
    dictionary: str
    """Name of the set of transcoders, or `neurons`."""
    tokens: tuple[int, ...]
    target: str | None = None
    contrast: str | None = None
    words: dict[str, str]
    """Words of the template, with their targets; none without a template."""
    trace: TraceConfig | None
    """None for a graph of another program."""
    imported: ImportedFile | None = None


@dataclass(frozen=True, kw_only=True)
class TraceRun:
    """Results of a trace in addition to its graph."""

    frozen: tuple[str, ...]
    """Parts of the model that were held at the values of the prompt."""
    active: int
    """Active latents."""
    rows: int
    """Latents whose edges were computed."""
    residue: float
    """Largest difference between an input and the sum of its edges, as a fraction."""
    nodes_kept: int
    """Nodes of the graph pruned at the default thresholds, stored or not."""
    edges_kept: int
    candidates: tuple[LikelyToken, ...] = ()
    """Likeliest next tokens in descending order: what else the target could have been."""


@dataclass(frozen=True, kw_only=True)
class EffectAgreement:
    """Effects of ablating latents in the free model, against those that the graph predicts."""

    slope: float
    """Of measured on predicted effects (`GraphNode.effects`), through 0."""
    spearman: Interval[float]
    edges_slope: float
    edges_spearman: Interval[float]
    """The same for effects along the edges, which hold attention, norms and slopes of neurons."""
    direct_slope: float
    direct_spearman: Interval[float]
    """The same for direct effects alone."""
    nodes: tuple[str, ...]
    predicted: Float[np.ndarray, " nodes"]
    measured: Float[np.ndarray, " nodes"]

    @property
    def chance(self) -> float:
        """Size of the rank correlation that 95 % of random orders stay within."""
        return 1.96 / math.sqrt(max(len(self.nodes) - 1, 1))


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Fields of another program's file that we do not use, each as JSON text, so that an export has them again."""

    top: dict[str, str]
    metadata: dict[str, str]
    parameters: dict[str, str]
    """Of `qParams`."""


@dataclass(frozen=True, kw_only=True, repr=False)
class AttributionGraph(Artefact, kind="attribution_graph", made_by="trace"):
    """Direct effects between tokens, latents, errors and targets on one prompt."""

    settings: GraphSettings
    prompt: str
    token_texts: tuple[str, ...]
    n_layers: int
    targets: tuple[GraphTarget, ...]
    scores: GraphScores | None
    floor: GraphScores | None
    """Scores of the same prompt without any latent."""
    untrained: GraphScores | None
    """Scores with an untrained dictionary."""
    run: TraceRun | None
    """None for a graph of another program."""
    effects: Annotated[EffectAgreement | None, DocumentField("effects.json")]
    carried: Annotated[Carried | None, DocumentField("carried.json")]
    node_table: Table[GraphNode]
    edge_table: Table[GraphEdge]
    flows: Table[Flow] | None
    """Flows between groups of nodes; None without a template."""
    sufficiency: Annotated[Sufficiency | None, DocumentField("sufficiency.json")]
    """What the pruned graph holds of the answer; None where it was not measured."""

    @property
    def model(self) -> str:
        """Model that was traced."""
        return self.settings.model

    @property
    def weight_hash(self) -> str:
        """Hash of its weights."""
        return self.settings.weight_hash

    @property
    def dictionary(self) -> str:
        """Name of the set of transcoders, or `neurons`."""
        return self.settings.dictionary

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of the prompt."""
        return self.settings.tokens

    @property
    def thresholds(self) -> tuple[float, float]:
        """Shares of influence and of edge scores at which the graph was pruned."""
        usual = self.settings.trace or TraceConfig()
        share = self.settings.imported and self.settings.imported.node_share
        return share or usual.node_share, usual.edge_share

    @property
    def first_picture(self) -> bool:
        """True where a trace goes on, or was interrupted: edges into fewer latents, no scores, not tested yet."""
        return self.settings.trace is not None and self.scores is None

    @cached_property
    def nodes(self) -> tuple[GraphNode, ...]:
        """All nodes. Raises `CorruptError`."""
        nodes = self.node_table.rows()
        if unknown := {node.kind for node in nodes} - set(NODE_KINDS):
            raise CorruptError(f"{self.node_table.path}: unknown kind of node {min(unknown)!r}; it was edited")
        return tuple(nodes)

    @cached_property
    def probabilities(self) -> tuple[float | None, ...]:
        """Probability of each target's token in the model; None for a latent, and where it was not stored."""
        by_token = {node.index: node.probability for node in self.nodes if node.kind == "logit"}
        whole = 1.0 if self.settings.target else None  # the weight of a named target in its stead
        chances = (None if target.token is None else by_token.get(i) for i, target in enumerate(self.targets))
        return tuple(None if chance == whole else chance for chance in chances)

    @cached_property
    def edges(self) -> GraphEdges:
        """All edges, as arrays. Raises `CorruptError` where one names a missing node."""
        columns, n = self.edge_table.columns(), len(self.nodes)
        source, target, weight, share, kept = (columns[part.name] for part in fields(GraphEdges))
        edges = GraphEdges(source, target, weight, share, kept)
        ends = np.concatenate([edges.source, edges.target])
        if len(ends) and (ends.min() < 0 or ends.max() >= n):
            odd = int(ends[(ends < 0) | (ends >= n)][0])
            raise CorruptError(f"an edge names node {odd} of {n}; the files were edited or cut short")
        return edges

    def with_parts(
        self, *, nodes: Sequence[GraphNode] | None = None, edges: GraphEdges | None = None
    ) -> "AttributionGraph":
        """Return a graph with other nodes or edges."""
        made = self if nodes is None else replace(self, node_table=node_table(nodes))
        return made if edges is None else replace(made, edge_table=edge_table(edges))

    @cached_property
    def number(self) -> dict[str, int]:
        """Map each node id to its number, the index into `nodes`."""
        return {node.id: i for i, node in enumerate(self.nodes)}

    def node(self, name: str) -> GraphNode:
        """Return the node with an id. Raises `UnknownNameError`."""
        if name not in self.number:
            raise UnknownNameError("node", name, list(self.number))
        return self.nodes[self.number[name]]

    def edges_into(self, name: str) -> list[Record]:
        """Return `node, weight, share` of every source of a node, largest absolute weight first."""
        return self._beside(name, self.edges.target, self.edges.source)

    def edges_from(self, name: str) -> list[Record]:
        """Return `node, weight, share` of every target of a node, largest absolute weight first."""
        return self._beside(name, self.edges.source, self.edges.target)

    def _beside(self, name: str, near_ends: np.ndarray, far_ends: np.ndarray) -> list[Record]:
        self.node(name)
        rows = np.flatnonzero(near_ends == self.number[name])
        rows = rows[np.argsort(-np.abs(self.edges.weight[rows]), kind="stable")]
        return [
            {
                "node": self.nodes[far_ends[i]].id,
                "weight": float(self.edges.weight[i]),
                "share": float(self.edges.share[i]),
            }
            for i in rows.tolist()
        ]

    def to_records(self) -> list[Record]:
        """Return one row per node, the largest influence first: its fields and its id."""
        rows = [{"node": node.id, **asdict(node)} for node in self.nodes]
        return sorted(rows, key=lambda row: (-row["influence"], row["node"]))

    def edge_records(self) -> list[Record]:
        """Return one row per edge, the most important first: `source, target, weight, share, kept`."""
        order = np.argsort(self.edges.share, kind="stable").tolist()
        names = [node.id for node in self.nodes]
        return [
            {
                "source": names[self.edges.source[i]],
                "target": names[self.edges.target[i]],
                "weight": float(self.edges.weight[i]),
                "share": float(self.edges.share[i]),
                "kept": bool(self.edges.kept[i]),
            }
            for i in order
        ]

    def view(self) -> View:
        yield self._sentence()
        kept = [("nodes kept", f"{sum(node.kept for node in self.nodes):,}")]
        known = (("replacement score", self.scores), ("without latents", self.floor))
        yield Facts(*(kept + [(name, f"{scores.replacement:.3g}") for name, scores in known if scores is not None]))
        yield from [*self._size_sentences(), *self._score_sentences()]
        if self.run is not None:
            yield f"{self.run.rows} of {self.run.active} active latents have their edges"
        yield from self.sufficiency.lines() if self.sufficiency is not None else ()
        yield Rows(self._rows)
        effects = self.effects
        if effects is None or len(effects.nodes) < 3:
            return
        value, chance = effects.spearman.estimate, effects.chance
        if effects.spearman.low <= chance or value <= effects.direct_spearman.estimate:
            return
        null, own = self.untrained, self.scores
        if null is not None and own is not None and null.replacement > own.replacement:
            return
        target, contrast = self.targets[0].sides
        question = f"“{target.strip()[:30]}”" + (f" rather than “{contrast.strip()[:30]}”" if contrast else "")
        yield Finding(
            kind="graph",
            title=f"Why {question} after “{self.prompt.strip()[-40:]}”",
            sentence=f"A graph of its causes predicts what the model loses without each of {len(effects.nodes)} "
            f"latents: rank correlation {value:.2f}.",
            more=f"Direct effects alone reach {effects.direct_spearman.estimate:.2f}. One prompt, one run.",
            value=value,
            null=chance,
            about="rank correlation; null: 95 % of random orders",
            proof="Open the graph",
            dots=Dots(
                x=tuple(effects.predicted.tolist()),
                y=tuple(effects.measured.tolist()),
                across="predicted effect, logits",
                up="measured effect",
            ),
        )

    def _sentence(self) -> str:
        """Return the end of the prompt, the first target, and how well the graph predicts ablations."""
        words = self.prompt.split(" ")
        prompt = " ".join(["…"] * (len(words) > PROMPT_WORDS) + words[-PROMPT_WORDS:])[-60:]
        sides, chance = (self.targets[0].sides, self.probabilities[0]) if self.targets else (("no target", ""), None)
        aim = " rather than ".join(repr(side.strip()) for side in sides if side)
        line = f"Why {prompt!r} leads to {aim}" + ("" if chance is None else f" ({chance:.0%})")
        if (known := self.effects) is None:
            return f"{line}; not tested yet" if self.first_picture else line
        return f"{line}; predicts ablations: {known.spearman.estimate:.2f} (chance {known.chance:.2f})"

    def _rows(self) -> list[Record]:
        """Return the kept nodes, with the columns that fit a line."""
        columns = ("node", "label", "activation", "influence", "share")
        return [{name: row[name] for name in columns} for row in self.to_records() if row["kept"]]

    def _size_sentences(self) -> list[str]:
        """Return the model, all targets, and what was stored of the graph."""
        known = zip(self.targets[:3], self.probabilities, strict=False)
        aims = ", ".join(repr(aim.label) + ("" if chance is None else f" ({chance:.0%})") for aim, chance in known)
        kept, edges = sum(node.kept for node in self.nodes), int(self.edges.kept.sum())
        of = f"Attribution graph of {self.prompt!r} in {short_name(self.model)} with {self.dictionary}, for {aims}."
        size = f"Pruned to {kept} of {len(self.nodes)} stored nodes and {edges} of {len(self.edges)} edges."
        beyond = 0 if self.run is None else self.run.edges_kept - edges
        weaker = f"{beyond} weaker edges are not stored." * (beyond > 0)
        return [text for text in (of, target_rule(self), size, weaker) if text]

    def _score_sentences(self) -> list[str]:
        """Return the scores in sentences, each next to its baselines."""
        lines = []
        for name in GraphScores._fields if self.scores is not None else ():
            known = (("without any latent", self.floor), ("untrained dictionary", self.untrained))
            baselines = [f"{text} {getattr(null, name):.2f}" for text, null in known if null is not None]
            remark = "; ".join([*([", ".join(baselines)] if baselines else []), "1 is perfect"])
            lines.append(f"{name.capitalize()} score {getattr(self.scores, name):.2f} ({remark}).")
        if (effects := self.effects) is not None:
            ends = effects.spearman
            lines.append(
                f"Ablated in one run of the free model, {len(effects.nodes)} latents had effects of slope "
                f"{effects.slope:.2f} and rank correlation {ends.estimate:.2f} [{ends.low:.2f}, {ends.high:.2f}] with "
                f"the prediction (95 % of random orders within ±{effects.chance:.2f}). Along the edges, with attention "
                f"and norms frozen: slope {effects.edges_slope:.2f}, {effects.edges_spearman.estimate:.2f}."
            )
        return lines

    def check_model(self, weight_hash: str) -> None:
        """Raise `MismatchError` when the graph was traced in other weights."""
        if weight_hash != self.weight_hash:
            raise MismatchError(
                f"the graph was traced in {self.model} with weights {self.weight_hash[:12]}, these are "
                f"{weight_hash[:12]}; load the model that it belongs to"
            )


def target_rule(graph: AttributionGraph) -> str:
    """Return the rule by which a target was chosen; empty where it was named, or several are explained at once."""
    named = graph.settings.trace is None or graph.settings.target is not None
    against = graph.settings.contrast
    rule = TARGET_RULE.format("the next likely one" if against is None else f"“{against.strip()}”")
    return "" if named or graph.targets[0].contrast is None else rule


def node_table(nodes: Sequence[GraphNode]) -> Table[GraphNode]:
    """Return one row per node."""
    import pyarrow as pa

    element: Any = pa.schema([("element", pa.float32())]).field("element")  # the name under which it is read back
    narrow = {
        "layer": pa.int32(),
        "position": pa.int32(),
        "activation": pa.float32(),
        "effects": pa.list_(element),
    }
    wide = schema_of(GraphNode)
    columns = {
        name: pa.array([getattr(node, name) for node in nodes], narrow.get(name, wide.field(name).type))
        for name in wide.names
    }
    return Table.of_columns(GraphNode, columns)


def edge_table(edges: GraphEdges) -> Table[GraphEdge]:
    """Return one row per edge."""
    kinds = {"source": np.int32, "target": np.int32, "weight": np.float32, "share": np.float64, "kept": bool}
    return Table.of_columns(GraphEdge, {name: getattr(edges, name).astype(kind) for name, kind in kinds.items()})
