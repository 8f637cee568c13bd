"""A set of transcoders as the replacement of MLPs in an attribution graph, and an untrained set as its null."""

import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.models.adapter import weight_hash
from interp.models.hooked import HookedModel
from interp.seeds import make_generator
from interp.tracing.edges import System
from interp.tracing.frozen import FrozenModel
from interp.tracing.graph import AttributionGraph, TraceConfig
from interp.tracing.replacement import LayerLatents, Neurons
from interp.workspace import Workspace
from saes.features.schema import labels
from saes.sets.set import CrossLayerSet, PerLayerSet, TranscoderSet, open_set


class SetReplacement:
    """A set on one prompt; satisfies `interp.tracing.replacement.Replacement`.

    With `as_many_as`, another set of the same shape, each layer keeps as many activations as that set has on the
    prompt, the largest ones. Only so is an untrained set a null of a trained one: at the trained thresholds random
    directions are active several times as often, and more latents take more of the influence.
    """

    def __init__(
        self,
        sae_set: TranscoderSet,
        name: str,
        *,
        as_many_as: TranscoderSet | None = None,
        allow_other_weights: bool = False,
    ):
        self.set, self.name, self.cross_layer = sae_set, name, sae_set.cross_layer
        self._as_many_as = as_many_as
        self.reads_point, self.writes_point = sae_set.reads, sae_set.writes
        self._allow = allow_other_weights

    @torch.no_grad()
    def prepare(self, frozen: FrozenModel) -> None:
        """Encode the clean run. Raises `MismatchError` for other weights or a missing layer."""
        self.set.check_model(frozen.model, allow_other_weights=self._allow)
        self.set.to(frozen.embedding.device)
        if any(
            self.set.decoder_rows(layer, _first(), layer).shape[1] != frozen.shape.d_model for layer in self.set.layers
        ):
            raise ConfigError(f"the set {self.name} has another width than the model, {frozen.shape.d_model}")
        self._active = []
        for layer, block in enumerate(frozen.blocks):
            position, latent, value = self.set.encode(layer, block.mlp_in)
            inside = (position >= frozen.skip_from).nonzero()[:, 0]
            if self._as_many_as is not None:
                firings = self._as_many_as.to(frozen.embedding.device).encode(layer, block.mlp_in)
                n = int((firings.positions >= frozen.skip_from).sum())
                inside = inside[value[inside].topk(min(n, len(inside))).indices.sort().values]
            self._active.append(LayerLatents(position[inside], latent[inside], value[inside].float()))

    def active(self, layer: int) -> LayerLatents:
        return self._active[layer]

    def reads(self, layer: int, active: LayerLatents) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, " n"]]:
        rows, bias = self.set.encoder_rows(layer, active.latent), self.set.encoder_bias(layer, active.latent)
        return rows.float(), bias.float()

    def writes(self, layer: int, active: LayerLatents, target: int) -> Float[Tensor, "n d_model"]:
        return self.set.decoder_rows(layer, active.latent, target).float()

    def watch(self, layer: int) -> tuple[str, Callable[[Tensor], Tensor]]:
        position, latent, _ = self._active[layer]

        def activations(value: Tensor) -> Tensor:
            firings = self.set.encode(layer, value)
            now = value.new_zeros(len(value), self.set.d_sae(layer))
            now[firings.positions, firings.latents] = firings.values.to(now)
            return now[position, latent]

        return self.reads_point, activations

    def output_bias(self, layer: int) -> Float[Tensor, " d_model"]:
        return self.set.output_bias(layer).float()

    def skip(self, layer: int) -> Float[Tensor, "d_model d_model"] | None:
        skip = self.set.skip(layer)
        return None if skip is None else skip.float().T

    def n_latents(self, layer: int) -> int:
        return self.set.d_sae(layer)


def system_of(graph: AttributionGraph, model: HookedModel, workspace: Workspace) -> System:
    """Return the frozen model of a graph's prompt with its latents, as `interp.intervene` and `split_edge` take it.

    Raises `MismatchError` for a graph of other weights, `UnknownNameError` for a set that is not in the workspace.
    """
    from interp.tracing.trace import open_traced

    graph.check_model(weight_hash(model))
    config = graph.settings.trace or TraceConfig()
    if graph.dictionary == "neurons":
        replacement = Neurons(config.max_neurons)
    else:
        replacement = SetReplacement(open_set(workspace, graph.dictionary), graph.dictionary)
    return open_traced(model, graph.settings, replacement)


def _first() -> Tensor:
    return torch.zeros(1, dtype=torch.long)


def untrained_set(sae_set: TranscoderSet, seed: int) -> TranscoderSet:
    """Return a set of the same shape whose directions are random: the null of its graphs.

    `sae_set` gives the shape; `seed` draws the directions.

    Every encoder and decoder row keeps its length, biases, thresholds and k stay, a skip connection is 0.
    """
    out, draw = copy.deepcopy(sae_set), make_generator(seed, "untrained set")

    def scramble(weight: Tensor, dim: int) -> None:
        noise = torch.randn(weight.shape, generator=draw).to(weight)
        weight.data = noise * weight.norm(dim=dim, keepdim=True) / noise.norm(dim=dim, keepdim=True)

    for layer in out.layers:
        if isinstance(out, PerLayerSet):
            transcoder = out.transcoder(layer)
            scramble(transcoder.W_enc, 0)
            scramble(transcoder.W_dec, -1)
            if transcoder.W_skip is not None:
                transcoder.W_skip.data.zero_()
        else:
            assert isinstance(out, CrossLayerSet)
            scramble(out.clt.W_enc[layer], 0)
            scramble(out.clt.W_dec[layer], -1)
    if isinstance(out, CrossLayerSet):
        for skip in out.clt.W_skip:
            skip.data.zero_()
    return out


def labels_of(workspace: Workspace, name: str) -> Callable[[int, Sequence[int]], list[str]]:
    """Return a function from a layer and latents to labels, from the feature tables of a set where there are some."""
    described = set(workspace.names("features"))

    def find(layer: int, latents: Sequence[int]) -> list[str]:
        table = f"{name}-{layer}"
        known = labels(workspace, table, latents) if table in described else {}
        return [known.get(latent) or "" for latent in latents]

    return find
