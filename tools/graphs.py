"""Attribution graphs that ship, and the labels of neurons in which graphs are read: `python -m tools.graphs`.

1. All MLP neurons of SmolLM2-135M are described on text that may ship, read with products in bfloat16. Their background
   is that of the graphs below, without those that ship.
2. Each of `PROMPTS` is traced with MLP neurons, from a target less a contrast, where both are one token and the model
   gives the target a probability of at least `LEAST` and more than the contrast.
3. Those whose prediction agrees better with the model than direct effects alone do are ranked by the lower end of the
   interval of that agreement; the first `SHOWN` are traced with their null and reduced to their `NODES` most
   influential latents.

Takes an hour and a half on two cores. An interrupted command goes on with the next prompt.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from interp.artifacts import Table, save_artefact
from interp.models.hooked import HookedModel
from interp.tracing.background import background_nodes, direction, mean_influences
from interp.tracing.graph import KIND as GRAPH
from interp.tracing.graph import AttributionGraph, GraphEdges
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
NODES, LEAST, SHOWN = 300, 0.1, 4
PROMPTS: dict[str, tuple[str, str, str]] = {
    "capital-of-France": ("The capital of France is", " Paris", " Rome"),
    "capital-of-Japan": ("Japan's largest city and capital is called", " Tokyo", " Paris"),
    "capital-of-Egypt": ("We flew to Egypt and landed in its capital,", " Cairo", " London"),
    "opposite-of-day": ("The opposite of day is", " night", " day"),
    "opposite-of-hot": ("It was not hot at all; on the contrary, it was very", " cold", " hot"),
    "opposite-of-small": ("An elephant is not small, it is", " large", " small"),
    "after-Wednesday": ("Monday, Tuesday, Wednesday,", " Thursday", " Monday"),
    "after-March": ("January, February, March,", " April", " May"),
    "after-four": ("one, two, three, four,", " five", " one"),
    "after-D": ("The letters in order are A, B, C, D,", " E", " A"),
    "repeated-name": ("Mr. Dalrympov was late. Everyone waited for Mr. Dal", "ry", "e"),
    "indirect-object": ("When John and Mary went to the store, John gave a bottle of milk to", " Mary", " John"),
    "another-indirect-object": ("After Anna and Peter had dinner, Peter handed the bill to", " Anna", " Peter"),
    "language-of-Brazil": ("In Brazil, people mostly speak", " Portuguese", " French"),
    "language-of-Berlin": ("She grew up in Berlin, so her first language is", " German", " English"),
    "sound-of-dogs": ("The dog opened its mouth and began to", " bark", " sing"),
    "plural-verb": ("The keys to the old cabinet", " are", " is"),
    "singular-verb": ("The key to the old cabinets", " is", " are"),
    "her": ("The queen looked at the mirror and admired", " her", " his"),
    "his": ("The king raised", " his", " her"),
    "where-doctors-work": ("The nurse and the doctor both work at the", " hospital", " school"),
    "where-teachers-work": ("The teacher walked into the", " classroom", " hospital"),
    "bread": ("Fresh bread is baked in an", " oven", " office"),
    "frozen-water": ("When water freezes it turns into", " ice", " gold"),
    "colour-of-sky": ("On a clear day the sky is", " blue", " green"),
    "colour-of-grass": ("The colour of fresh grass is", " green", " blue"),
    "code-return": ("def add(a, b):\n    return a +", " b", " a"),
    "code-import": ("import numpy as", " np", " pd"),
    "closing-bracket": ('print("hello"', ")", "]"),
    "past-tense": ("Yesterday she went to the shop and", " bought", " buy"),
    "future-tense": ("Tomorrow I will", " be", " was"),
    "comparative": ("Gold is heavier", " than", " of"),
    "either-or": ("You can either stay here", " or", " and"),
    "between-and": ("The war between France", " and", " or"),
    "not-only": ("He was not only rich", " but", " and"),
    "composers": ("Mozart and Beethoven were famous", " compos", " football"),
    "Shakespeare": ("The play Hamlet was written by William", " Shakespeare", " Smith"),
    "orbit-of-the-Moon": ("The Earth orbits the Sun, and the Moon orbits the", " Earth", " Sun"),
    "blood": ("Blood is pumped through the body by the", " heart", " lungs"),
    "bees": ("Bees collect nectar from flowers to make", " honey", " milk"),
    "jury": ("The jury found the defendant", " guilty", " happy"),
    "Sunday": ("Every Sunday the family went to", " church", " school"),
    "once-upon-a-time": ("Once upon a", " time", " day"),
    "thanks": ("Thank you very", " much", " many"),
    "goal": ("The team scored a goal in the last minute and won the", " game", " war"),
    "photosynthesis": ("Plants turn sunlight into energy by a process called", " photos", " evolution"),
    "Spanish-word": ('The Spanish word for house is "', "casa", "maison"),
    "French-sentence": ("Je suis allé à la plage avec mes", " am", " friends"),
}
"""Prompt, target and contrast, by name. They were written before any was traced."""


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
        wanted = traceable(load_model(MODEL, device=self.device))
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
                save_artefact(reduced(whole), folder, parents=whole.about.parents, seed=self.seed)
        pack(workspace, [("neurons", MODEL), *((GRAPH, name) for name in shown)], self.data)
        (self.data / "graphs.json").write_text(json.dumps(report(graphs, labels), indent=1))

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


def traceable(model: HookedModel) -> list[str]:
    """Return the prompts whose target the model gives at least `LEAST`, and more than the contrast."""
    from interp.models.generation import NextToken, prompt_tokens
    from interp.models.identity import tokenizer_of

    names = []
    for name, (prompt, *answers) in PROMPTS.items():
        ids = tokenizer_of(model).encode_batch(answers)
        if all(len(tokens) == 1 for tokens in ids):
            after = NextToken(model)(prompt_tokens(model, prompt))[0].softmax(-1)
            target, contrast = (float(after[tokens[0]]) for tokens in ids)
            if target >= LEAST and target > contrast:
                names.append(name)
    return names


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
    return replace(reduced, groups=tuple(group for group in graph.groups or () if wanted.issuperset(group.nodes)))


if __name__ == "__main__":
    run_tool(Graphs)
