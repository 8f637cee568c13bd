"""A set of transcoders: latents of every layer that predict MLP outputs from MLP inputs.

In a per-layer set the latents of layer `l` write to the MLP output of layer `l`; in a cross-layer set to those of `l`
and of all later layers. For both, with the sum over layers `s` up to `l` (per-layer: `s = l` alone):

    output_l = output_bias(l) + sum over s of a_s @ decoder_rows(s, ., l) + skip(l) @ input_l
    a_s = act(encoder_rows(s, .) @ input_s + encoder_bias(s, .))

Rows are in the units of the hook points that the set reads and writes: no scale is left to apply. `reads` and `writes`
are those hook points inside a block. The usual ones are `mlp.hook_in`, after the MLP's norm, and `hook_mlp_out`. In a
model with a norm after the MLP `hook_mlp_out` lies after that norm; `ln2_post.hook_in` is the MLP's own output.

**Files of a set**: circuit-tracer's layouts, which its own loaders and ours read.

    config.yaml             model_name, model_kind, feature_input_hook, feature_output_hook, transcoders (file names);
                            ours besides: layers, weight_hash, context_size, bos
    layer_N.safetensors     a transcoder of layer N (`model_kind: transcoder_set`)
    W_enc_N, W_dec_N        a cross-layer transcoder (`model_kind: cross_layer_transcoder`)

`saes.weights.circuit_tracer` documents the arrays. All scales are folded into them. Skip connections lie in two ways,
as the peer has it: `x @ W_skip.T` per layer, `x @ W_skip` across layers. The peer has no TopK and reads a layer without
thresholds as ReLU; a TopK layer holds `activation_function.k`, at which its loader stops instead of misreading it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int64
from safetensors.torch import save_file
from torch import Tensor, nn

from interp.artifacts import atomic_file
from interp.dictionary import Dictionary, SparseActs
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError, UnknownNameError
from interp.models.adapter import weight_hash
from interp.models.hooked import HookedModel
from interp.workspace import Workspace
from saes.features.schema import NEURONS
from saes.features.sources import neurons_of
from saes.kernels.state import Active
from saes.kinds.base import JumpReLU, SAEMetadata, TopK, padded
from saes.kinds.clt import CrossLayerTranscoder
from saes.kinds.transcoder import Transcoder
from saes.weights import circuit_tracer
from saes.weights.folder import check_weights
from saes.weights.layout import check_finite, text

KIND = "transcoders"
"""Kind of the artefact."""

Inputs = Mapping[int, Tensor] | Sequence[Tensor] | Tensor
"""MLP inputs `[pos, d_in]` by layer."""


class LayerFirings(NamedTuple):
    """Active latents of one layer, sorted by position."""

    positions: Int64[Tensor, " m"]
    latents: Int64[Tensor, " m"]
    values: Float[Tensor, " m"]
    """activations, above 0"""


class TranscoderSet(nn.Module, ABC):
    """Transcoders of several layers of one model; weights have no gradients. `.to(device or dtype)` converts all."""

    cross_layer: bool
    """True where latents write to later layers too."""

    def __init__(self, *, layers: Sequence[int], reads: str, writes: str, about: SAEMetadata) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.reads, self.writes = reads, writes
        self.about = about

    @property
    def model(self) -> str:
        """Spec of the model that the set belongs to."""
        return self.about.model

    @property
    def weight_hash(self) -> str:
        """Hash of that model's weights; empty where a peer's files do not say."""
        return self.about.weight_hash

    def hook_point(self, layer: int) -> str:
        """Return the hook point that the latents of a layer read."""
        return f"blocks.{layer}.{self.reads}"

    def hook_point_out(self, layer: int) -> str:
        """Return the hook point that is predicted at a layer."""
        return f"blocks.{layer}.{self.writes}"

    def check_model(self, model: HookedModel, *, all_layers: bool = True, allow_other_weights: bool = False) -> None:
        """Raise `MismatchError` unless the set belongs to these weights and, with `all_layers`, covers every layer."""
        check_weights(self.about, weight_hash(model), "set", allow_other_weights=allow_other_weights)
        n_layers = int(model.cfg.n_layers)
        missing = sorted(set(range(n_layers)) - set(self.layers))
        if beyond := [layer for layer in self.layers if layer >= n_layers]:
            raise MismatchError(f"the set has a layer {beyond[0]}, {self.model} has {n_layers} layers; give its model")
        if missing and all_layers:
            raise MismatchError(
                f"the set has no transcoder for layer {', '.join(map(str, missing))} of {n_layers}; train or import "
                "one that covers every layer"
            )

    def targets(self, layer: int) -> tuple[int, ...]:
        """Return the layers that the latents of a layer write to."""
        return tuple(target for target in self.layers if target >= layer) if self.cross_layer else (layer,)

    @abstractmethod
    def d_sae(self, layer: int) -> int:
        """Return the number of latents that read from a layer."""

    @abstractmethod
    def encode(self, layer: int, x: Float[Tensor, "pos d_in"]) -> LayerFirings:
        """Return the active latents of a layer for its MLP input `[pos, d_in]`."""

    @abstractmethod
    def encoder_rows(self, layer: int, latents: Int64[Tensor, " n"]) -> Float[Tensor, "n d_in"]:
        """Return the directions `[n, d_in]` that latents of a layer read, at the hook point `reads`."""

    @abstractmethod
    def encoder_bias(self, layer: int, latents: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return what is added to `encoder_rows @ input` before the activation function, `[n]`."""

    @abstractmethod
    def directions(self, layer: int, target_layer: int) -> Float[Tensor, "d_sae d_out"]:
        """Return the vectors `[d_sae, d_out]` that one unit of each latent of `layer` adds at `target_layer`."""

    def decoder_rows(self, layer: int, latents: Int64[Tensor, " n"], target_layer: int) -> Float[Tensor, "n d_out"]:
        """Return the vectors `[n, d_out]` of some latents of `layer` at `target_layer`."""
        return self.directions(layer, target_layer)[latents]

    @abstractmethod
    def output_bias(self, layer: int) -> Float[Tensor, " d_out"]:
        """Return the constant part of a layer's output, `[d_out]`."""

    @abstractmethod
    def skip(self, layer: int) -> Float[Tensor, "d_out d_in"] | None:
        """Return the matrix `[d_out, d_in]` of a layer's skip connection: it adds `input @ skip.T`; None without."""

    def reconstruct(self, layer: int, inputs: Inputs) -> Float[Tensor, "pos d_out"]:
        """Predict the MLP output `[pos, d_out]` of a layer, skip connection and bias included.

        `inputs[s]` is the MLP input `[pos, d_in]` of layer `s`; a cross-layer set needs those of all layers up to this
        one, a per-layer set that of this layer alone.
        """
        dtype = self.output_bias(self._known(layer)).dtype
        sources = [source for source in self.layers if layer in self.targets(source)]
        firings = {source: self.encode(source, inputs[source].to(dtype)) for source in sources}
        return self.assemble(layer, inputs[layer], firings)

    def assemble(
        self, layer: int, x: Float[Tensor, "pos d_in"], firings: Mapping[int, LayerFirings]
    ) -> Float[Tensor, "pos d_out"]:
        """Return the output of a layer, given its input and the firings of all layers that write to it."""
        bias, skip = self.output_bias(layer), self.skip(layer)
        out = bias.expand(len(x), -1).clone() if skip is None else torch.addmm(bias, x.to(bias), skip.T)
        for source, (positions, latents, values) in firings.items():
            if layer in self.targets(source) and len(values):
                starts = torch.searchsorted(positions, torch.arange(len(x), device=positions.device))
                rows = self.directions(source, layer).contiguous()
                out += nn.functional.embedding_bag(latents, rows, starts, per_sample_weights=values, mode="sum")
        return out

    def dictionary(self, layer: int) -> "LayerDictionary":
        """Return the latents of one layer as a dictionary of its MLP input."""
        return LayerDictionary(self, self._known(layer))

    def _known(self, layer: int) -> int:
        if layer not in self.layers:
            raise UnknownNameError("layer of the set", str(layer), [str(index) for index in self.layers])
        return layer


@final
class LayerDictionary:
    """The latents of one layer of a set; their directions are the sums of what they write, over all layers."""

    def __init__(self, sae_set: TranscoderSet, layer: int) -> None:
        self.set, self.layer = sae_set, layer
        self.d_in = len(sae_set.encoder_rows(layer, torch.zeros(1, dtype=torch.int64))[0])
        self.d_sae = sae_set.d_sae(layer)
        self.hook_point, self.hook_point_out = sae_set.hook_point(layer), sae_set.hook_point_out(layer)

    @property
    def decoder_directions(self) -> Float[Tensor, "d_sae d_out"]:
        """`[d_sae, d_out]`: the sum over layers of what one unit of each latent writes."""
        return torch.stack([self.set.directions(self.layer, n) for n in self.set.targets(self.layer)]).sum(0)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Return activations, `[..., d_in] -> [..., d_sae]`."""
        flat = x.reshape(-1, self.d_in)
        at = self.set.encode(self.layer, flat)
        acts = at.values.new_zeros(len(flat), self.d_sae)
        acts[at.positions, at.latents] = at.values
        return acts.view(*x.shape[:-1], self.d_sae)

    def encode_sparse(self, x: Float[Tensor, "n d_in"]) -> SparseActs:
        """Return active latents only, `[n, d_in] -> ([n, k_max], [n, k_max])`."""
        positions, latents, values = self.set.encode(self.layer, x)
        starts = torch.searchsorted(positions, torch.arange(len(x) + 1, device=x.device))
        return padded([Active(starts, latents, values)])

    def decode(self, feature_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_out"]:
        """Return what activations `[..., d_sae]` write, `[..., d_out]`, with the bias of the own layer."""
        return feature_acts @ self.decoder_directions + self.set.output_bias(self.layer)


@final
class PerLayerSet(TranscoderSet):
    """One transcoder for each layer."""

    cross_layer = False

    def __init__(self, transcoders: Mapping[int, Transcoder], *, reads: str, writes: str, about: SAEMetadata) -> None:
        super().__init__(layers=sorted(transcoders), reads=reads, writes=writes, about=about)
        self._transcoders = nn.ModuleDict({str(layer): transcoders[layer] for layer in self.layers})

    def transcoder(self, layer: int) -> Transcoder:
        """Return the transcoder of one layer."""
        transcoder = self._transcoders[str(self._known(layer))]
        assert isinstance(transcoder, Transcoder)
        return transcoder

    def d_sae(self, layer: int) -> int:
        return self.transcoder(layer).d_sae

    def encode(self, layer: int, x: Float[Tensor, "pos d_in"]) -> LayerFirings:
        acts = self.transcoder(layer).encode_sparse(x)
        positions, slots = (acts.values > 0).nonzero(as_tuple=True)
        return LayerFirings(positions, acts.indices[positions, slots].long(), acts.values[positions, slots])

    def encoder_rows(self, layer: int, latents: Int64[Tensor, " n"]) -> Float[Tensor, "n d_in"]:
        return self.transcoder(layer).W_enc[:, latents].T

    def encoder_bias(self, layer: int, latents: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.transcoder(layer).b_enc[latents]

    def directions(self, layer: int, target_layer: int) -> Float[Tensor, "d_sae d_out"]:
        _check_target(self, layer, target_layer)
        return self.transcoder(layer).W_dec

    def output_bias(self, layer: int) -> Float[Tensor, " d_out"]:
        return self.transcoder(layer).b_dec

    def skip(self, layer: int) -> Float[Tensor, "d_out d_in"] | None:
        return self.transcoder(layer).W_skip


@final
class CrossLayerSet(TranscoderSet):
    """One cross-layer transcoder, whose layers are counted from 0."""

    cross_layer = True

    def __init__(self, clt: CrossLayerTranscoder, *, reads: str, writes: str, about: SAEMetadata) -> None:
        super().__init__(layers=range(clt.n_layers), reads=reads, writes=writes, about=about)
        self.clt = clt

    def d_sae(self, layer: int) -> int:
        return self.clt.d_sae

    def encode(self, layer: int, x: Float[Tensor, "pos d_in"]) -> LayerFirings:
        acts = self.clt.encode_layer(self._known(layer), x.to(self.clt.W_enc[layer].dtype))
        positions, latents = acts.nonzero(as_tuple=True)
        return LayerFirings(positions, latents, acts[positions, latents])

    def encoder_rows(self, layer: int, latents: Int64[Tensor, " n"]) -> Float[Tensor, "n d_in"]:
        return self.clt.W_enc[self._known(layer)][:, latents].T

    def encoder_bias(self, layer: int, latents: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.clt.b_enc[self._known(layer)][latents]

    def directions(self, layer: int, target_layer: int) -> Float[Tensor, "d_sae d_out"]:
        _check_target(self, layer, target_layer)
        return self.clt.directions(layer, target_layer)

    def output_bias(self, layer: int) -> Float[Tensor, " d_out"]:
        return self.clt.b_dec[self._known(layer)]

    def skip(self, layer: int) -> Float[Tensor, "d_out d_in"] | None:
        return self.clt.W_skip[layer].T if len(self.clt.W_skip) else None


def _check_target(sae_set: TranscoderSet, layer: int, target_layer: int) -> None:
    if target_layer not in sae_set.targets(layer):
        known = [str(target) for target in sae_set.targets(layer)]
        raise UnknownNameError(f"layer that latents of layer {layer} write to", str(target_layer), known)


def open_set(workspace: Workspace, name: str) -> TranscoderSet:
    """Return a set of the workspace, on the CPU.

    Args:
        workspace: has the set.
        name: of its folder in `sets/`.
    Raises:
        UnknownNameError: no such set; the message has the nearest names.
        MissingError: a layer's file is gone.
        CorruptError: a file that is damaged.
        NonFiniteError: NaN in the weights.

    >>> target = Workspace(folder / "sets", create=True)
    >>> kind, small = TranscoderConfig(d_sae=32, k=4, target="hook_mlp_out"), TrainConfig(tokens=2_000, batch_size=128)
    >>> trained = train_set(recording, SetTraining(kind, small), target.path("transcoders", "tiny"))
    >>> open_set(target, "tiny").layers
    (0, 1)
    """
    workspace.manifest(KIND, name)  # lists the nearest names when it is not there
    return read_set(workspace.path(KIND, name))


def open_layer(workspace: Workspace, name: str) -> LayerDictionary:
    """Return the latents of one layer of a set, named `SET:LAYER` as in feature tables. See `open_set` for errors."""
    of, _, layer = name.rpartition(":")
    workspace.manifest(KIND, of)
    return read_set(workspace.path(KIND, of), only=int(layer)).dictionary(int(layer))


def open_described(
    workspace: Workspace, described: str, model: HookedModel, *, sign: int = 1, allow_other_weights: bool = False
) -> tuple[Dictionary, dict[str, str]]:
    """Return the dictionary that a feature table of no SAE describes, on the model's device, and its parents.

    `described` is `neurons:HOOK_POINT` or `transcoders:SET:LAYER`. Raises `ConfigError` for another kind,
    `MismatchError` for a set of other weights than the model's.
    """
    if described.startswith(NEURONS):
        return neurons_of(model, described.removeprefix(NEURONS), sign=sign), {}
    kind, _, name = described.partition(":")
    if kind != KIND:
        raise ConfigError(
            f"cannot run {described}: only features of an SAE, a set of transcoders or neurons can be run"
        )
    layer, of = open_layer(workspace, name), name.rpartition(":")[0]
    layer.set.check_model(model, all_layers=False, allow_other_weights=allow_other_weights)
    layer.set.to(model.cfg.device)
    return layer, {f"{KIND}/{of}": workspace.manifest(KIND, of).content_hash}


def read_set(folder: Path | str, *, only: int | None = None) -> TranscoderSet:
    """Read the set in a folder of circuit-tracer's layout; see `open_set` for errors.

    `only`: the layer to read of a per-layer set; the layers of a cross-layer transcoder belong together.
    """
    folder = Path(folder)
    config = read_config(folder)
    reads, writes, metadata = config.reads, config.writes, config.about
    if config.cross_layer:
        return CrossLayerSet(read_cross_layer(folder, config), reads=reads, writes=writes, about=metadata)
    layers = config.layers if only is None else [only]
    transcoders = {layer: read_layer(folder, layer) for layer in layers}
    return PerLayerSet(transcoders, reads=reads, writes=writes, about=metadata)


CONFIG = "config.yaml"
PER_LAYER, CROSS_LAYER = "transcoder_set", "cross_layer_transcoder"


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """Contents of the `config.yaml` of a set."""

    reads: str
    """hook point inside a block that the encoders read"""
    writes: str
    """hook point inside a block that is predicted"""
    layers: tuple[int, ...]
    cross_layer: bool
    about: SAEMetadata


def layer_file(layer: int) -> str:
    """Return the name of a layer's file."""
    return f"layer_{layer}.safetensors"


def write_config(folder: Path, config: SetConfig) -> None:
    """Write `config.yaml`."""
    import yaml

    first = [f"W_enc_{n}.safetensors" if config.cross_layer else layer_file(n) for n in config.layers]
    content = {
        "model_name": config.about.model,
        "model_kind": CROSS_LAYER if config.cross_layer else PER_LAYER,
        "feature_input_hook": config.reads,
        "feature_output_hook": config.writes,
        "layers": list(config.layers),
        "weight_hash": config.about.weight_hash,
        "context_size": config.about.context_size,
        "bos": config.about.bos,
        "transcoders": first,
    }
    with atomic_file(folder / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def read_config(folder: Path) -> SetConfig:
    """Read `config.yaml`. Raises `MissingError` (no set there), `CorruptError`."""
    path = folder / CONFIG
    if not path.is_file():
        raise MissingError(
            f"no set of transcoders at {folder} ({CONFIG} is missing); `workbench train --set` makes one"
        )
    content = circuit_tracer.read_yaml(path)
    kind, layers, size = text(content, "model_kind", path), content.get("layers"), content.get("context_size")
    if kind not in (PER_LAYER, CROSS_LAYER):
        raise CorruptError(f"{path}: model_kind must be {PER_LAYER} or {CROSS_LAYER}, found {kind!r:.80}")
    if not isinstance(layers, list) or not layers or any(type(layer) is not int or layer < 0 for layer in layers):
        raise CorruptError(f"{path}: layers must list the layers of the set, found {layers!r:.80}")
    reads, writes = (text(content, f"feature_{side}_hook", path) for side in ("input", "output"))
    if not reads or not writes:
        raise CorruptError(f"{path} lacks the hook points feature_input_hook and feature_output_hook; import it again")
    metadata = SAEMetadata(
        model=text(content, "model_name", path),
        weight_hash=text(content, "weight_hash", path),
        context_size=size if type(size) is int else None,
        bos=text(content, "bos", path),
    )
    cross_layer = kind == CROSS_LAYER
    return SetConfig(
        reads=reads, writes=writes, layers=tuple(sorted(set(layers))), cross_layer=cross_layer, about=metadata
    )


def write_layer(folder: Path, layer: int, transcoder: Transcoder) -> None:
    """Write the file of one layer's transcoder."""
    tensors = {
        "W_enc": transcoder.W_enc.T,
        "b_enc": transcoder.b_enc,
        "W_dec": transcoder.W_dec,
        "b_dec": transcoder.b_dec,
    }
    if isinstance(transcoder.activation, JumpReLU):
        tensors[circuit_tracer.THRESHOLD] = transcoder.activation.threshold
    if isinstance(transcoder.activation, TopK):
        tensors[circuit_tracer.K] = torch.tensor(float(transcoder.activation.k))
    if transcoder.W_skip is not None:
        tensors["W_skip"] = transcoder.W_skip
    _save(folder / layer_file(layer), tensors)


def read_layer(folder: Path, layer: int) -> Transcoder:
    """Read one layer's transcoder. Raises `MissingError` when its file is gone, `CorruptError`, `NonFiniteError`."""
    path = folder / layer_file(layer)
    if not path.is_file():
        raise MissingError(f"{folder} has no {path.name}, though its {CONFIG} lists layer {layer}; make the set again")
    transcoder = circuit_tracer.read(path).sae
    assert isinstance(transcoder, Transcoder)
    return transcoder


def write_cross_layer(folder: Path, clt: CrossLayerTranscoder) -> None:
    """Write the two files of every layer of a cross-layer transcoder."""
    for layer in range(clt.n_layers):
        named = {"W_enc": clt.W_enc[layer].T, "b_enc": clt.b_enc[layer], "b_dec": clt.b_dec[layer]}
        if len(clt.threshold):
            named["threshold"] = clt.threshold[layer]
        if len(clt.W_skip):
            named["W_skip"] = clt.W_skip[layer]
        _save(folder / f"W_enc_{layer}.safetensors", {f"{name}_{layer}": t for name, t in named.items()})
        _save(folder / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": clt.W_dec[layer]})


def read_cross_layer(folder: Path, config: SetConfig) -> CrossLayerTranscoder:
    """Read a cross-layer transcoder. Raises `MissingError` when a layer is gone, `CorruptError`, `NonFiniteError`."""
    for layer in config.layers:
        for side in ("W_enc", "W_dec"):
            if not (folder / f"{side}_{layer}.safetensors").is_file():
                raise MissingError(f"{folder} has no {side}_{layer}.safetensors; make the set again")
    clt = circuit_tracer.load_cross_layer_transcoder(folder)
    if config.layers != tuple(range(clt.n_layers)):
        raise CorruptError(
            f"{folder / CONFIG} lists layers {', '.join(map(str, config.layers))}; a cross-layer transcoder has "
            f"{clt.n_layers}, counted from 0"
        )
    return clt


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain: dict[str, Tensor] = {name: t.float().detach().cpu().contiguous() for name, t in tensors.items()}
    for name, tensor in plain.items():
        check_finite(name, tensor, path)
    with atomic_file(path) as temporary:
        save_file(plain, temporary)
