"""Files of a set: circuit-tracer's layouts, which its own loaders and ours read.

    config.yaml             model_name, model_kind, feature_input_hook, feature_output_hook, transcoders (file names);
                            ours besides: layers, weight_hash, context_size, bos
    layer_N.safetensors     a transcoder of layer N (`model_kind: transcoder_set`)
    W_enc_N, W_dec_N        a cross-layer transcoder (`model_kind: cross_layer_transcoder`)

`saes.weights.circuit_tracer` documents the arrays. All scales are folded into them. Skip connections lie in two ways,
as the peer has it: `x @ W_skip.T` per layer, `x @ W_skip` across layers. The peer has no TopK and reads a layer without
thresholds as ReLU; a TopK layer holds `activation_function.k`, at which its loader stops instead of misreading it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.artifacts import atomic_file
from interp.errors import CorruptError, MissingError
from saes.kinds.base import JumpReLU, SAEMetadata, TopK
from saes.kinds.clt import CrossLayerTranscoder
from saes.kinds.transcoder import Transcoder
from saes.weights import circuit_tracer
from saes.weights.layout import check_finite, text

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
    found = {
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
        temporary.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


def read_config(folder: Path) -> SetConfig:
    """Read `config.yaml`. Raises `MissingError` (no set there), `CorruptError`."""
    path = folder / CONFIG
    if not path.is_file():
        raise MissingError(
            f"no set of transcoders at {folder} ({CONFIG} is missing); `workbench train --set` makes one"
        )
    found = circuit_tracer.read_yaml(path)
    kind, layers, size = text(found, "model_kind", path), found.get("layers"), found.get("context_size")
    if kind not in (PER_LAYER, CROSS_LAYER):
        raise CorruptError(f"{path}: model_kind must be {PER_LAYER} or {CROSS_LAYER}, found {kind!r:.80}")
    if not isinstance(layers, list) or not layers or any(type(each) is not int or each < 0 for each in layers):
        raise CorruptError(f"{path}: layers must list the layers of the set, found {layers!r:.80}")
    reads, writes = (text(found, f"feature_{side}_hook", path) for side in ("input", "output"))
    if not reads or not writes:
        raise CorruptError(f"{path} lacks the hook points feature_input_hook and feature_output_hook; import it again")
    about = SAEMetadata(
        model=text(found, "model_name", path),
        weight_hash=text(found, "weight_hash", path),
        context_size=size if type(size) is int else None,
        bos=text(found, "bos", path),
    )
    cross_layer = kind == CROSS_LAYER
    return SetConfig(
        reads=reads, writes=writes, layers=tuple(sorted(set(layers))), cross_layer=cross_layer, about=about
    )


def write_layer(
    folder: Path, layer: int, transcoder: Transcoder, *, dtype: Literal["float32", "bfloat16"] = "float32"
) -> None:
    """Write the file of one layer's transcoder; `bfloat16` halves and rounds the matrices, vectors stay float32."""
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
    if dtype == "bfloat16":
        tensors = {name: t.bfloat16() if t.ndim == 2 else t for name, t in tensors.items()}
    _save(folder / layer_file(layer), tensors)


def read_layer(folder: Path, layer: int) -> Transcoder:
    """Read one layer's transcoder. Raises `MissingError` when its file is gone, `CorruptError`, `NonFiniteError`."""
    path = folder / layer_file(layer)
    if not path.is_file():
        raise MissingError(f"{folder} has no {path.name}, though its {CONFIG} lists layer {layer}; make the set again")
    found = circuit_tracer.read(path).sae
    assert isinstance(found, Transcoder)
    return found


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
    found = circuit_tracer.load_cross_layer_transcoder(folder)
    if config.layers != tuple(range(found.n_layers)):
        raise CorruptError(
            f"{folder / CONFIG} lists layers {', '.join(map(str, config.layers))}; a cross-layer transcoder has "
            f"{found.n_layers}, counted from 0"
        )
    return found


def _save(path: Path, tensors: dict[str, Any]) -> None:
    plain: dict[str, Tensor] = {
        name: (t if t.dtype == torch.bfloat16 else t.float()).detach().cpu().contiguous() for name, t in tensors.items()
    }
    for name, tensor in plain.items():
        check_finite(name, tensor, path)
    with atomic_file(path) as temporary:
        save_file(plain, temporary)
