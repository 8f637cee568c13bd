"""Attribution graphs that ship, and the labels of neurons in which graphs are read: `python -m tools.graphs`.

1. All MLP neurons of SmolLM2-135M are described on text that may ship, read with products in bfloat16. Their background
   is that of the graphs below, without those that ship.
2. Each of `PROMPTS` is traced with MLP neurons, from a target less a contrast, where both are one token and the model
   gives the target a probability of at least `LEAST` (`interp.tracing.prompts`) and more than the contrast.
3. Those whose prediction agrees better with the model than direct effects alone do are ranked by the lower end of the
   interval of that agreement; the first `SHOWN` are traced with their null and reduced to their `NODES` most
   influential latents; the boxes of its story are tested.

Takes an hour and a half on two cores. An interrupted command goes on with the next prompt.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dashboard.graph.story import story_of
from interp.artifacts import Table, save_artefact
from interp.tracing.background import background_nodes, direction, mean_influences
from interp.tracing.graph import KIND as GRAPH
from interp.tracing.graph import AttributionGraph, GraphEdges
from interp.tracing.prompts import PROMPTS, answered_prompts
from interp.workspace import Workspace
from saes.features.neurons import NeuronExample, NeuronLabels, NeuronRow
from tools import run_tool
from tools.build import MAY_SHIP, gather, pack, write_corpus
from workbench.demo import DATA, MODEL
from workbench.steps import WorkspaceStep, run_step
from workbench.terminal import InWorkspace, OnDevice, Seeded, Threaded, say
from workbench.verbs.features import DescribeNeurons
from workbench.verbs.record import Record
from workbench.verbs.trace import TracePrompt

LOOK = "graphs-look"
NODES, SHOWN = 300, 4


@dataclass(frozen=True, kw_only=True)
class Graphs(InWorkspace, Seeded, Threaded, OnDevice):
    """Describe the neurons of SmolLM2, trace all prompts, and pack the graphs that show most."""

    look_chars: int = 16_000_000
    """Characters of text that may ship, from which labels and examples come."""
    look_tokens: int = 800_000
    """Tokens that neurons are described on."""
    data: Path = DATA

    def run(self) -> None:
        from interp.models.loading import load_model

        workspace = Workspace(self.workspace, create=True)
        for number, step in enumerate(self._description(self._text(workspace)), 1):
            run_step(workspace, step, f"{number}")
        wanted = [answer.name for answer in answered_prompts(load_model(MODEL, device=self.device))]
        say(f"{len(wanted)} of {len(PROMPTS)} prompts are traced")
        for name in wanted:
            run_step(workspace, self._trace(f"all-{name}", name, nulls=False), name)
        graphs = {name: workspace.open(AttributionGraph, f"all-{name}") for name in wanted}
        shown = best_predicted(graphs)
        labels = workspace.open(NeuronLabels, MODEL)
        if labels.settings.prompts == 0:
            others = {name: graph for name, graph in graphs.items() if name not in shown}
            options: dict[str, Any] = {"parents": labels.about.parents, "seed": None, "overwrite": True}
            labels = save_artefact(with_background(labels, others), workspace.path("neurons", MODEL), **options)
        for name in shown:
            run_step(workspace, self._trace(f"whole-{name}", name, nulls=True), name)
            if name not in workspace.names(GRAPH):
                whole = workspace.open(AttributionGraph, f"whole-{name}")
                folder = workspace.path(GRAPH, name)
                graph = self._tested(workspace, reduced(whole))
                save_artefact(graph, folder, parents=whole.about.parents, seed=self.seed)
        pack(workspace, [("neurons", MODEL), *((GRAPH, name) for name in shown)], self.data)
        (self.data / "graphs.json").write_text(json.dumps(report(graphs, labels), indent=1))

    def _tested(self, workspace: Workspace, graph: AttributionGraph) -> AttributionGraph:
        """Return a graph with the boxes of its own story judged: a smaller graph has other boxes."""
        from interp.models.loading import load_model
        from interp.tracing.effects import effect_profiles
        from interp.tracing.supernodes import with_groups
        from saes.sets.replacement import system_of

        model = load_model(MODEL, device=self.device, attention="eager")
        system = system_of(graph, model, workspace)
        return with_groups(graph, story_of(workspace, graph), partial(effect_profiles, system))

    def _shared(self) -> dict[str, Any]:
        return {"workspace": self.workspace, "threads": self.threads, "device": self.device}

    def _text(self, workspace: Workspace) -> Path:
        path = workspace.root / f"{LOOK}.jsonl"
        if not path.exists():
            say(f"Gathering text: {', '.join(MAY_SHIP)}")
            kinds = gather(workspace.root, self.seed)
            write_corpus(path, {kind: kinds[kind] for kind in MAY_SHIP}, chars=self.look_chars, seed=self.seed)
        return path

    def _description(self, text: Path) -> list[WorkspaceStep]:
        setup: dict[str, Any] = {"compute": "bfloat16", "live": True, "hook_points": ("blocks.0.hook_resid_pre",)}
        record = Record(
            model=MODEL, name=LOOK, corpus=str(text), tokens=self.look_tokens, seed=self.seed, **setup, **self._shared()
        )
        describe = DescribeNeurons(recording=LOOK, name=MODEL, prompts=0, **self._shared())
        return [
            WorkspaceStep("Record", "Text that may ship; activations are computed when they are read.", record),
            WorkspaceStep("Describe every neuron", "Labels and short examples, of all layers.", describe),
        ]

    def _trace(self, name: str, prompt: str, *, nulls: bool) -> WorkspaceStep:
        text, target, contrast = PROMPTS[prompt]
        options: dict[str, Any] = {"target": target, "contrast": contrast, "nulls": nulls, "seed": self.seed}
        return WorkspaceStep(
            "TracePrompt", text, TracePrompt(model=MODEL, name=name, prompt=text, **options, **self._shared())
        )


def best_predicted(graphs: dict[str, AttributionGraph]) -> list[str]:
    """Return the graphs that predict the model best, by the rule of this module."""
    effects = {name: graph.effects for name, graph in graphs.items() if graph.effects is not None}
    ahead = {
        name: effect.spearman.low
        for name, effect in effects.items()
        if effect.spearman.estimate > effect.direct_spearman.estimate
    }
    return sorted(ahead, key=lambda name: -ahead[name])[:SHOWN]


def with_background(labels: NeuronLabels, graphs: Mapping[str, AttributionGraph]) -> NeuronLabels:
    """Return labels whose background is the mean influence over these graphs."""
    import pyarrow as pa

    usual, rows = mean_influences(graphs.values()), labels.rows.arrow()
    keys = zip(*(rows[name].to_pylist() for name in ("layer", "neuron", "sign")), strict=True)
    background = pa.array([usual.get(key, 0.0) for key in keys], rows.schema.field("background").type)
    columns = {name: rows[name] for name in rows.column_names} | {"background": background}
    return NeuronLabels(
        settings=replace(labels.settings, prompts=len(graphs)),
        n_layers=labels.n_layers,
        d_mlp=labels.d_mlp,
        n_tokens=labels.n_tokens,
        n_confirmed=labels.n_confirmed,
        rows=Table.of_columns(NeuronRow, pa.table(columns, schema=rows.schema)),
        examples=Table.of_columns(NeuronExample, labels.examples.arrow()),
    )


def named_share(graph: AttributionGraph, labels: NeuronLabels) -> dict[str, float]:
    """Return shares of the influence of all latents and errors of a graph, background removed.

    `confirmed`: through neurons whose label holds on held-out text; `named`: also those that raise words beyond their
    null.
    """
    common = set(background_nodes(graph, labels.background()))
    rows = labels.of(direction(node) for node in graph.nodes if node.kind == "feature")
    total, shares = 0.0, {"confirmed": 0.0, "named": 0.0}
    for number, node in enumerate(graph.nodes):
        if node.kind not in ("feature", "error") or number in common:
            continue
        total += node.influence
        row = rows.get(direction(node)) if node.kind == "feature" else None
        shares["confirmed"] += node.influence * (row is not None and row.confirmed)
        shares["named"] += node.influence * (row is not None and (row.confirmed or bool(row.says)))
    return {name: share / total for name, share in shares.items()}


def report(graphs: dict[str, AttributionGraph], labels: NeuronLabels) -> dict[str, Any]:
    """Return the agreement of every traced graph with the model, and the share of it that is read in words."""
    rows: list[dict[str, Any]] = []
    for name, graph in graphs.items():
        assert graph.effects is not None
        assert graph.scores is not None
        shares = named_share(graph, labels)
        agreed = {"predicted": graph.effects.spearman.estimate, "direct": graph.effects.direct_spearman.estimate}
        rows.append({"graph": name, **agreed, **shares, "completeness": graph.scores.completeness})
    return {"prompts": len(rows), "mean": _mean(rows), "graphs": rows}


def _mean(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    rows = list(rows)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "graph"}


def reduced(graph: AttributionGraph, n: int = NODES) -> AttributionGraph:
    """Return a graph with its `n` most influential latents, the errors that pruning keeps, and the edges of these."""
    features = sorted((node for node in graph.nodes if node.kind == "feature"), key=lambda node: -node.influence)
    wanted = {node.id for node in features[:n]}
    stays = np.array(
        [
            node.id in wanted or node.kind in ("token", "logit") or (node.kind == "error" and node.kept)
            for node in graph.nodes
        ]
    )
    edges = graph.edges
    inside = stays[edges.source] & stays[edges.target]
    number = (np.cumsum(stays) - 1).astype(np.int32)
    reduced = graph.with_parts(
        nodes=[node for node, stay in zip(graph.nodes, stays, strict=True) if stay],
        edges=GraphEdges(
            source=number[edges.source[inside]],
            target=number[edges.target[inside]],
            weight=edges.weight[inside],
            share=edges.share[inside],
            kept=edges.kept[inside],
        ),
    )
    return replace(reduced, groups=None)


if __name__ == "__main__":
    run_tool(Graphs)
