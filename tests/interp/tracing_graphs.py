"""Attribution graphs, and prompts of small models to trace, that several test files share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from architectures import blank

from interp.tracing._influence import GraphScores
from interp.tracing._targets import Aim
from interp.tracing.edges import System
from interp.tracing.frozen import FrozenModel, Starts
from interp.tracing.graph import (
    AttributionGraph,
    GraphEdges,
    GraphNode,
    GraphSettings,
    GraphTarget,
    TraceConfig,
    edge_table,
    node_table,
)
from interp.tracing.replacement import LayerLatents, Neurons, NoReplacement
from tests.interp.architectures import tiny

TOKENS = torch.tensor([[1, 5, 9, 5, 2, 7, 9]])
CONFIG = TraceConfig(effects=6, batch_size=8)


def small_graph() -> AttributionGraph:
    """Return two tokens, three latents, one error and two targets. One latent and its edge are pruned."""
    nodes = (
        GraphNode("token", -1, 0, 1, influence=0.25, share=0.9, label="<s>"),
        GraphNode("token", -1, 1, 7, influence=0.5, share=0.6, label=" is"),
        GraphNode("feature", 0, 1, 3, 1.5, 0.375, 0.75, label="capitals"),
        GraphNode("error", 0, 1, -1, influence=0.125, share=0.975),
        GraphNode("feature", 1, 1, 0, 0.25, 0.75, 0.3, label='said "so"'),
        GraphNode("feature", 1, 1, 4, 2.0, 0.0625, 1.0, kept=False),
        GraphNode("logit", 2, 1, 0, probability=0.75, label=" Paris"),
        GraphNode("logit", 2, 1, 1, probability=0.125, label=" London"),
    )
    rows = [
        (1, 2, 0.5), (0, 2, 0.25), (2, 4, 2.0), (3, 4, 1.0), (1, 4, -3.0), (4, 6, 1.0), (4, 7, 0.1), (2, 6, 0.5),
        (5, 6, 0.0625),
    ]  # fmt: skip
    source, target, weight = zip(*rows, strict=True)
    edges = GraphEdges(
        np.array(source, np.int32),
        np.array(target, np.int32),
        np.array(weight, np.float32),
        np.linspace(0.2, 1, len(rows)),
        np.arange(len(rows)) < len(rows) - 1,
    )
    return AttributionGraph(
        settings=GraphSettings(
            model="tiny",
            weight_hash="0" * 64,
            dictionary="tiny-transcoders",
            tokens=(1, 7),
            words={},
            trace=TraceConfig(),
        ),
        prompt="<s> is",
        token_texts=("<s>", " is"),
        n_layers=2,
        targets=(GraphTarget(" Paris", 11, weight=0.75), GraphTarget(" London", 12, weight=0.125)),
        scores=GraphScores(0.6, 0.7),
        floor=GraphScores(0.2, 0.3),
        untrained=None,
        run=None,
        effects=None,
        carried=None,
        node_table=node_table(nodes),
        edge_table=edge_table(edges),
        flows=None,
        sufficiency=None,
    )


@dataclass
class RandomTranscoders:
    """Random transcoders of every layer: TopK or JumpReLU, per layer or cross-layer, with or without a skip."""

    cross_layer: bool = False
    k: int | None = 4
    with_skip: bool = False
    width: int = 24
    seed: int = 0
    name: str = "random"
    reads_point: str = "mlp.hook_in"
    writes_point: str = "mlp.hook_out"

    def prepare(self, frozen: FrozenModel) -> None:
        n, d = frozen.shape.n_layers, frozen.shape.d_model
        draw = torch.Generator().manual_seed(self.seed)
        self.W_enc, self.b_enc = (
            torch.randn(n, *size, generator=draw) / d**0.5 for size in ((self.width, d), (self.width,))
        )
        self.W_dec = torch.randn(n, n, self.width, d, generator=draw) / d**0.5
        self.b_dec, self.W_skip = torch.randn(n, d, generator=draw) / d, torch.randn(n, d, d, generator=draw) / d
        self._active = []
        for layer, block in enumerate(frozen.blocks):
            acts = self.encode(layer, block.mlp_in)
            acts[: frozen.skip_from] = 0
            position, latent = acts.nonzero(as_tuple=True)
            self._active.append(LayerLatents(position, latent, acts[position, latent]))

    def encode(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        pre = x @ self.W_enc[layer].T + self.b_enc[layer]
        bound = 0.3 if self.k is None else pre.topk(self.k, -1).values[:, -1:]
        return torch.where(pre >= bound, pre, 0).relu()

    def watch(self, layer: int) -> Any:
        position, latent, _ = self._active[layer]
        return self.reads_point, lambda value: self.encode(layer, value)[position, latent]

    def active(self, layer: int) -> LayerLatents:
        return self._active[layer]

    def reads(self, layer: int, active: LayerLatents) -> Any:
        return self.W_enc[layer, active.latent], self.b_enc[layer, active.latent]

    def writes(self, layer: int, active: LayerLatents, target: int) -> Any:
        return self.W_dec[layer, target, active.latent]

    def output_bias(self, layer: int) -> Any:
        return self.b_dec[layer]

    def skip(self, layer: int) -> Any:
        return self.W_skip[layer] if self.with_skip else None

    def n_latents(self, layer: int) -> int:
        return self.width


DICTIONARIES = {
    "none": NoReplacement,
    "neurons": Neurons,
    "some neurons": lambda: Neurons(100),
    "topk": RandomTranscoders,
    "jumprelu skip": lambda: RandomTranscoders(k=None, with_skip=True),
    "cross-layer": lambda: RandomTranscoders(cross_layer=True),
    "cross-layer skip": lambda: RandomTranscoders(cross_layer=True, k=None, with_skip=True),
    "before the norm": lambda: RandomTranscoders(
        with_skip=True, reads_point="hook_resid_mid", writes_point="hook_mlp_out"
    ),
    "before the gain": lambda: RandomTranscoders(reads_point="ln2.hook_normalized", writes_point="hook_mlp_out"),
}


def system_of(name: str, dictionary: str, tokens: torch.Tensor = TOKENS) -> System:
    """Return a tiny model of an architecture, frozen on some tokens, with one of `DICTIONARIES`."""
    found = DICTIONARIES[dictionary]()
    frozen = FrozenModel(tiny(name), tokens, reads=found.reads_point, writes=found.writes_point)
    return System(frozen, found)


def logit_starts(system: System, tokens: tuple[int, ...] = (3, 4)) -> Starts:
    """Return the centred logits of two tokens at the last position, as readers."""
    unembed = system.frozen.model.W_U.detach().float()
    reads = (unembed - unembed.mean(1, keepdim=True))[:, list(tokens)].T
    layer = torch.full((len(tokens),), system.frozen.shape.n_layers)
    return Starts(layer, torch.full_like(layer, system.frozen.n_pos - 1), reads)


def aim_of(system: System) -> Aim:
    """Return two targets of a system, tokens 3 and 4, with their values."""
    starts = logit_starts(system)
    values = system.rows(starts)
    targets = [GraphTarget("3", 3, weight=0.6), GraphTarget("4", 4, weight=0.4)]
    return Aim(targets, starts, values.effects.sum(1) + values.constant)


def planted() -> Any:
    """Return a model without attention: one neuron of layer 0 turns token 5 into a direction that layer 1 passes on.

    Residual coordinates: token 5 (0), what layer 0 writes (1), what layer 1 writes (2), which logit 7 reads.
    """
    model = blank(d_model=8, n_heads=1, d_mlp=64, d_vocab=10, n_ctx=8, act_fn="relu")
    with torch.no_grad():
        model.embed.original_component.weight[5, 0] = 1.0
        for layer in (0, 1):
            mlp = model.blocks[layer].mlp
            mlp.W_in[layer, 2] = 2.0
            mlp.W_out[2, layer + 1] = 3.0
        model.unembed.W_U[2, 7] = 1.0
    return model
