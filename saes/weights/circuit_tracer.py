"""circuit-tracer: per-layer transcoders (`layer_N.safetensors`) and cross-layer ones (`W_enc_N`,
`W_dec_N.safetensors`).

    layer_N.safetensors     W_enc [d_sae, d_in] (transposed here), b_enc, W_dec [d_sae, d_out], b_dec,
                            activation_function.threshold (optional), W_skip [d_out, d_in] (optional)
                            activation_function.k (optional, one number; written by our sets only: TopK)
    W_enc_N.safetensors     W_enc_N [d_sae, d_in], b_enc_N, b_dec_N, optional: threshold_N, W_skip_N [d_in, d_out]
    W_dec_N.safetensors     W_dec_N [d_sae, n_layers - N, d_out]
    config.yaml             model_name, feature_input_hook, feature_output_hook

Layers count from 0 to `n_layers - 1` and none may be missing; the last one's decoder has one slice. The two kinds store
`W_skip` transposed to each other: `x @ W_skip.T` per layer, `x @ W_skip` across layers. JumpReLU here is
`x * 1[x > threshold]` without ReLU. A threshold below 0 would let negative activations through and is refused.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from interp.errors import CorruptError, MismatchError, MissingError
from saes.kinds.base import Activation, JumpReLU, ReLU, SAEMetadata, TopK, Weights
from saes.kinds.clt import CrossLayerTranscoder
from saes.kinds.transcoder import Transcoder
from saes.weights.layout import (
    Axes,
    Conversion,
    Format,
    as_relu_topk,
    check_arrays,
    check_k,
    first_line,
    one_file,
    read_safetensors,
    text,
)

LAYOUT: dict[str, Axes] = {
    "W_enc": ("d_sae", "d_in"),
    "b_enc": ("d_sae",),
    "W_dec": ("d_sae", "d_out"),
    "b_dec": ("d_out",),
}
THRESHOLD, K = "activation_function.threshold", "activation_function.k"
OPTIONAL: dict[str, Axes] = {THRESHOLD: ("d_sae",), K: (), "W_skip": ("d_out", "d_in")}
FILES = "layer_*.safetensors"
ENCODERS = "W_enc_*.safetensors"


def read(path: Path) -> Conversion:
    """Read the transcoder of one layer's file."""
    file = one_file(path, FILES)
    w = check_arrays(read_safetensors(file), LAYOUT, file, optional=OPTIONAL, what="a circuit-tracer transcoder")
    activation: Activation = JumpReLU(_threshold(w[THRESHOLD], file)) if THRESHOLD in w else ReLU()
    if K in w:
        activation = TopK(check_k(w[K], w.sizes["d_sae"], file))
    layer = re.search(r"layer_(\d+)", file.name)
    weights = Weights(w["W_enc"].T.contiguous(), w["b_enc"], w["W_dec"], w["b_dec"])
    skip = w["W_skip"] if "W_skip" in w else None  # noqa: SIM401 (not a dict)
    metadata = metadata_of(file.parent, int(layer[1]) if layer else None)
    sae = Transcoder(weights, activation=activation, W_skip=skip, metadata=metadata)
    return Conversion(sae=sae, forward=w.forward(_forward))


def load_cross_layer_transcoder(folder: Path | str) -> CrossLayerTranscoder:
    """Load all layers of a cross-layer transcoder's folder.

    Raises `MissingError` (no such files, or a layer missing), `CorruptError`, `MismatchError`, `NonFiniteError`.
    """
    folder = Path(folder)
    n_layers = len(list(folder.glob(ENCODERS)))
    if not n_layers:
        raise MissingError(f"no {ENCODERS} in {folder}; a cross-layer transcoder has one per layer, counted from 0")
    sizes: dict[str, int] = {}
    layers = [_read_layer(folder, layer, n_layers, sizes) for layer in range(n_layers)]
    columns = {name: [layer[name] for layer in layers if name in layer] for name in layers[0]}
    for name, arrays in columns.items():
        if len(arrays) != n_layers or any(layer.keys() != layers[0].keys() for layer in layers):
            raise CorruptError(
                f"{folder}: {name} is there for {len(arrays)} of {n_layers} layers; all or none must have it"
            )
    return CrossLayerTranscoder(
        [W_enc.T.contiguous() for W_enc in columns["W_enc"]],
        columns["b_enc"],
        columns["W_dec"],
        columns["b_dec"],
        threshold=columns.get("threshold"),
        W_skip=columns.get("W_skip"),
        metadata=metadata_of(folder, None),
    )


def _read_layer(folder: Path, layer: int, n_layers: int, sizes: dict[str, int]) -> dict[str, Tensor]:
    """Read the arrays of one layer by their bare names; `sizes` holds the sizes of the layers before."""
    encoder, decoder = folder / f"W_enc_{layer}.safetensors", folder / f"W_dec_{layer}.safetensors"
    expected: dict[str, Axes] = {"W_enc": ("d_sae", "d_in"), "b_enc": ("d_sae",), "b_dec": ("d_out",)}
    optional: dict[str, Axes] = {"threshold": ("d_sae",), "W_skip": ("d_in", "d_out")}
    arrays = check_arrays(
        read_safetensors(encoder),
        {f"{name}_{layer}": axes for name, axes in expected.items()},
        encoder,
        optional={f"{name}_{layer}": axes for name, axes in optional.items()},
        sizes=sizes,
        what=f"layer {layer}",
    )
    sizes.update(arrays.sizes)
    write = check_arrays(
        read_safetensors(decoder),
        {f"W_dec_{layer}": ("d_sae", "layers written", "d_out")},
        decoder,
        sizes={**sizes, "layers written": n_layers - layer},
        what=f"layer {layer}",
    )
    tensors = {name.rsplit("_", 1)[0]: arrays[name] for name in arrays.tensors}
    if "threshold" in tensors:
        _threshold(tensors["threshold"], encoder)
    return {**tensors, "W_dec": write[f"W_dec_{layer}"]}


def _threshold(threshold: Tensor, path: Path) -> Tensor:
    if bool((threshold < 0).any()):
        raise MismatchError(f"{path}: thresholds below 0 let negative activations through, which is not supported")
    return threshold


def metadata_of(folder: Path, layer: int | None) -> SAEMetadata:
    """Return the metadata of `config.yaml`, where that exists."""
    path = folder / "config.yaml"
    config = read_yaml(path)
    source, target = (text(config, f"feature_{side}_hook", path) for side in ("input", "output"))
    before = "" if layer is None else f"blocks.{layer}."
    return SAEMetadata(
        model=text(config, "model_name", path),
        hook_point=before + source if source else "",
        hook_point_out=before + target if target else "",
    )


def read_yaml(path: Path) -> dict[str, object]:
    """Return the keys of a YAML file; none where it is missing, or holds something else. Raises `CorruptError`."""
    import yaml

    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path} is not valid YAML ({first_line(error)})") from None
    return content if isinstance(content, dict) else {}


def _forward(x: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    pre = torch.nn.functional.linear(x, w["W_enc"], w["b_enc"])
    acts = pre * (pre > w[THRESHOLD]) if THRESHOLD in w else pre.clamp_min(0)
    if K in w:
        acts = as_relu_topk(pre, int(w[K]))
    recons = acts @ w["W_dec"] + w["b_dec"]
    return acts, recons + x @ w["W_skip"].T if "W_skip" in w else recons


def recognises(path: Path) -> bool:
    """Return whether the path is a file, or a folder of files, named after layers."""
    if path.is_file():
        return re.fullmatch(r"layer_\d+\.safetensors", path.name) is not None
    return any(path.glob(FILES))


def recognises_cross_layer(path: Path) -> bool:
    """Return whether the folder holds encoders named after layers."""
    return path.is_dir() and any(path.glob(ENCODERS))


def read_cross_layer(path: Path) -> Conversion:
    """Raise `MismatchError` with the function that reads it."""
    raise MismatchError(
        f"{path} is a cross-layer transcoder, whose features write to many layers; it can be read with "
        "saes.weights.circuit_tracer.load_cross_layer_transcoder, but not imported as one dictionary"
    )


CROSS_LAYER = Format(
    name="circuit_tracer_clt", files=f"{ENCODERS}", recognises=recognises_cross_layer, read=read_cross_layer
)
FORMAT = Format(name="circuit_tracer", files=FILES, recognises=recognises, read=read)
