"""Attribution graphs that ship, with the latents that they use: `python -m tools.graphs`.

1. Transcoders of all MLPs of SmolLM2-135M are trained on three million tokens of the recipe's text, in one pass.
2. Their latents are described on text that may ship.
3. Four prompts are traced: a capital, an opposite, a repeated name, an indirect object. Each graph is reduced to its
   `NODES` most influential latents.
4. A part of the set ships: the latents of those graphs, and `OTHERS` random ones of every layer for the null of an
   intervention, numbered anew and rounded to bfloat16. Activations are those of the whole set, so interventions work;
   for other prompts the part explains too little, and `workbench trace` refuses it.

Takes an hour on two cores with AVX-512. An interrupted command resumes when it is repeated.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, save_artefact
from interp.artifacts.artefact import settings_json
from interp.errors import ConfigError
from interp.runtime import make_generator
from interp.tracing.graph import KIND as GRAPH
from interp.tracing.graph import AttributionGraph, GraphEdges
from interp.workspace import Workspace
from saes.sets.stored import PartSettings, StoredSet
from tools import run_tool
from tools.build import KINDS, MAY_SHIP, gather, pack, write_corpus
from workbench.demo import DATA, MODEL, SHIPPED_SET, Step, run_step
from workbench.terminal import InWorkspace, OnDevice, Seeded, Threaded, say
from workbench.verbs.features import Features
from workbench.verbs.record import Record
from workbench.verbs.trace import Trace
from workbench.verbs.train import Train

if TYPE_CHECKING:
    from saes.sets.set import PerLayerSet

SET, TEXT, LOOK = "smol", "mlps", "mlps-look"
NODES = 300
OTHERS = 16
PROMPTS: dict[str, tuple[str, str, str]] = {
    "capital-of-France": ("The capital of France is", " Paris", " Rome"),
    "opposite-of-day": ("The opposite of day is", " night", " day"),
    "repeated-name": ("Mr. Dalrympov was late. Everyone waited for Mr. Dal", "ry", "e"),
    "indirect-object": ("When John and Mary went to the store, John gave a bottle of milk to", " Mary", " John"),
}
"""Prompt, target and contrast of each graph, by name."""


@dataclass(frozen=True, kw_only=True)
class Graphs(InWorkspace, Seeded, Threaded, OnDevice):
    """Train transcoders of all layers of SmolLM2, trace four prompts, and pack them."""

    chars: int = 15_500_000
    """Characters of text to train on."""
    look_chars: int = 6_000_000
    """Characters of text that may ship, from which examples come."""
    tokens: int = 3_010_000
    """Tokens to train on, each once."""
    look_tokens: int = 200_000
    """Tokens that latents are described on."""
    d_sae: int = 2_304
    k: int = 32
    heldout_fraction: float = 0.01
    data: Path = DATA

    def run(self) -> None:
        workspace = Workspace(self.workspace, create=True)
        plan = self._steps(self._texts(workspace))
        for number, step in enumerate(plan, 1):
            run_step(workspace, step, f"{number}/{len(plan)}")
        ship_part(workspace, list(PROMPTS), seed=self.seed)
        described = [("features", f"{SHIPPED_SET}-{n}") for n in workspace.open(StoredSet, SET).layers]
        run_step(workspace, self._describe(SHIPPED_SET), "last")
        pack(workspace, [("transcoders", SHIPPED_SET), *described, *((GRAPH, name) for name in PROMPTS)], self.data)

    def _texts(self, workspace: Workspace) -> dict[str, Path]:
        paths: dict[str, Path] = {}
        for name, chars, may in (("train", self.chars, tuple(KINDS)), ("look", self.look_chars, MAY_SHIP)):
            paths[name] = workspace.root / f"mlps-{name}.jsonl"
            if not paths[name].exists():
                say(f"Gathering text: {', '.join(may)}")
                kinds = gather(workspace.root, self.seed)
                write_corpus(paths[name], {kind: kinds[kind] for kind in may}, chars=chars, seed=self.seed)
        return paths

    def _shared(self) -> dict[str, Any]:
        return {"workspace": self.workspace, "threads": self.threads, "device": self.device, "seed": self.seed}

    def _describe(self, name: str) -> Step:
        how: dict[str, Any] = {"window": 8, "examples": 8, "samples": 2, "index": False}
        verb = Features(set=name, recording=LOOK, **how, **self._shared())
        return Step("features", "Describe every latent", "Examples and labels.", verb, f"{name}-0")

    def _steps(self, texts: dict[str, Path]) -> list[Step]:
        shared = self._shared()
        live: dict[str, Any] = {"model": MODEL, "hook_points": ("mlps",), "live": True, **shared}
        return [
            Step("recording", "Record", "The training text; activations are computed when they are read.",
                 Record(name=TEXT, corpus=str(texts["train"]), tokens=self.tokens * 9 // 8, compute="bfloat16",
                        **live)),
            Step("transcoders", "Train", "A transcoder for every MLP, in one pass through the model.",
                 Train(recording=TEXT, set=SET, kind="batchtopk", d_sae=(self.d_sae,), k=(self.k,), tokens=self.tokens,
                       heldout_fraction=self.heldout_fraction, encoder_dtype="bfloat16", checkpoint_every=60,
                       **shared), SET),
            Step("recording", "Record", "Text that may ship, for examples.",
                 Record(name=LOOK, corpus=str(texts["look"]), tokens=self.look_tokens, **live)),
            self._describe(SET),
            *(
                Step("attribution_graph", "Trace", "Before it is reduced to what ships.",
                     Trace(model=MODEL, name=whole_name(name), set=SET, prompt=prompt, target=target, contrast=contrast,
                           **shared))
                for name, (prompt, target, contrast) in PROMPTS.items()
            ),
        ]  # fmt: skip


def whole_name(name: str) -> str:
    """Return the name of a graph before it is reduced."""
    return f"whole-{name}"


def ship_part(workspace: Workspace, names: list[str], *, seed: int) -> None:
    """Reduce the graphs, and write them and the part of the set that they use."""
    from saes.sets.layouts import SetConfig, write_config, write_layer
    from saes.sets.set import PerLayerSet

    source = workspace.open(StoredSet, SET)
    whole, of = source.load(), source.settings
    assert isinstance(whole, PerLayerSet)
    assert not isinstance(of, PartSettings)
    wholes = {name: workspace.open(AttributionGraph, whole_name(name)) for name in names}
    graphs = {name: reduced(graph) for name, graph in wholes.items()}
    latents = chosen_latents(whole, list(graphs.values()), seed)
    if SHIPPED_SET not in workspace.names("transcoders"):
        part = part_of(whole, latents)
        folder = workspace.path("transcoders", SHIPPED_SET)
        settings = PartSettings(part_of=SET, whole=of, latents={layer: tuple(each) for layer, each in latents.items()})
        draft = Draft.open(folder, kind="transcoders", config=settings_json(settings), seed=seed)
        about = SetConfig(reads=part.reads, writes=part.writes, layers=part.layers, cross_layer=False, about=part.about)
        write_config(draft.path, about)
        for layer in part.layers:
            write_layer(draft.path, layer, part.transcoder(layer), dtype="bfloat16")
        runs = workspace.path("transcoders", SET) / "runs"
        shutil.copytree(runs, draft.path / "runs", dirs_exist_ok=True)
        parents = {source.key: source.about.content_hash, **source.about.parents}
        made = StoredSet(**{**{each.name: getattr(source, each.name) for each in fields(source)}, "settings": settings})
        save_artefact(made, folder, parents=parents, seed=seed, draft=draft)
    part_hash = workspace.manifest("transcoders", SHIPPED_SET).content_hash
    numbers = {layer: {old: new for new, old in enumerate(each)} for layer, each in latents.items()}
    for name, graph in graphs.items():
        if name in workspace.names(GRAPH):
            continue
        parents = {**wholes[name].about.parents, f"transcoders/{SHIPPED_SET}": part_hash}
        save_artefact(renumbered(graph, numbers), workspace.path(GRAPH, name), parents=parents, seed=seed)


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
    return graph.with_parts(
        nodes=[node for node, stay in zip(graph.nodes, stays, strict=True) if stay],
        edges=GraphEdges(
            source=number[edges.source[inside]],
            target=number[edges.target[inside]],
            weight=edges.weight[inside],
            share=edges.share[inside],
            kept=edges.kept[inside],
        ),
    )


def chosen_latents(whole: "PerLayerSet", graphs: list[AttributionGraph], seed: int) -> dict[int, list[int]]:
    """Return by layer the latents of some graphs, those whose effects were measured, and `OTHERS` random ones."""
    import torch

    used: dict[int, set[int]] = {layer: set() for layer in whole.layers}
    for graph in graphs:
        for node in graph.nodes:
            if node.kind == "feature":
                used[node.layer].add(node.index)
        for name in graph.effects.nodes if graph.effects else ():
            layer, _, latent = map(int, name.split(":")[1:])
            used[layer].add(latent)
    draw = make_generator(seed, "other latents")
    for layer, each in used.items():
        rest = [n for n in torch.randperm(whole.d_sae(layer), generator=draw).tolist() if n not in each]
        each.update(rest[:OTHERS])
    return {layer: sorted(each) for layer, each in used.items()}


def part_of(found: "PerLayerSet", latents: Mapping[int, list[int]]) -> "PerLayerSet":
    """Return a set with some latents of each layer, numbered anew in the given order; the rest is part of the error.

    Each activation is the same as in the whole set. Raises `ConfigError` for TopK, where latents compete.
    """
    from saes.kinds.base import JumpReLU, TopK, Weights
    from saes.kinds.transcoder import Transcoder
    from saes.sets.set import PerLayerSet

    parts = {}
    for layer in found.layers:
        whole, chosen = found.transcoder(layer), latents[layer]
        if isinstance(whole.activation, TopK):
            raise ConfigError("latents of a TopK transcoder compete, so a part of them has other activations")
        thresholds = whole.activation.tensors().get("threshold")
        parts[layer] = Transcoder(
            Weights(whole.W_enc[:, chosen], whole.b_enc[chosen], whole.W_dec[chosen], whole.b_dec),
            activation=None if thresholds is None else JumpReLU(thresholds[chosen]),
            W_skip=whole.W_skip,
            metadata=whole.metadata,
        )
    return PerLayerSet(parts, reads=found.reads, writes=found.writes, about=found.about)


def renumbered(graph: AttributionGraph, numbers: Mapping[int, Mapping[int, int]]) -> AttributionGraph:
    """Return a graph whose latents have the numbers of the part of the set that ships."""
    nodes = [
        replace(node, index=numbers[node.layer][node.index]) if node.kind == "feature" else node for node in graph.nodes
    ]
    effects = graph.effects
    if effects is not None:
        parts = [list(map(int, name.split(":")[1:])) for name in effects.nodes]
        names = tuple(f"feature:{layer}:{at}:{numbers[layer][latent]}" for layer, at, latent in parts)
        effects = replace(effects, nodes=names)
    settings = replace(graph.settings, dictionary=SHIPPED_SET)
    return replace(graph.with_parts(nodes=nodes), settings=settings, effects=effects)


if __name__ == "__main__":
    run_tool(Graphs)
