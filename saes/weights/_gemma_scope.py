"""Gemma Scope 1: `params.npz` with `W_enc [d_in, d_sae]`, `b_enc`, `W_dec [d_sae, d_out]`, `b_dec`, `threshold`,
float32.

    acts = pre * 1[pre > threshold]  with  pre = x @ W_enc + b_enc        recons = acts @ W_dec + b_dec

`b_dec` is not subtracted from the input. The file holds nothing else; the path tells the format:

| format | recognised by | difference |
|---|---|---|
| gemma_scope | params.npz | an SAE |
| gemma_scope_embedding | a folder `embedding` above it | of `x / s`, `s = sqrt(d_in)`: `W_enc / s`, `W_dec * s` |
| gemma_scope_transcoder | a folder `gemma-scope...transcoders` above it | from an MLP's input to its output |

Embedding SAEs follow SAELens' reading: `b_dec` is not rescaled.

Gemma Scope 2: `params.safetensors` with `w_enc [d_in, d_sae]`, `b_enc`, `w_dec [d_sae, d_out]`, `b_dec`,
`threshold`, and `config.json` (`architecture: jump_relu`, `model_name`, `hf_hook_point_in`, `hf_hook_point_out`).

    acts = pre * 1[pre > threshold]  with  pre = x @ w_enc + b_enc
    recons = acts @ w_dec + b_dec [+ x @ affine_skip_connection]

`b_dec` is not subtracted from the input. `affine_skip_connection [d_in, d_out]` is the transpose of `W_skip`. A
dictionary is a transcoder when its two hook points differ or it has the skip connection. A layer of a cross-layer
transcoder has `w_dec [d_sae, n_layers, d_out]` and is refused.
"""

import re
from collections.abc import Mapping
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from interp.artifacts import read_json
from interp.errors import MismatchError
from saes.kinds.base import JumpReLU, SAEMetadata, Weights
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.transcoder import Transcoder
from saes.weights._saelens import subtract_b_dec
from saes.weights.layout import (
    Arrays,
    Axes,
    Conversion,
    Format,
    check_arrays,
    flag,
    has_files,
    one_file,
    read_npz,
    read_safetensors,
    text,
)

WEIGHTS = "params.npz"
LAYOUT: dict[str, Axes] = {
    "W_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "W_dec": ("d_sae", "d_out"),
    "b_dec": ("d_out",),
    "threshold": ("d_sae",),
}
_RELEASE = re.compile(r"gemma-scope-(\d+b)-(?:pt|it)-(res|mlp|att)\b")
_TRANSCODERS = re.compile(r"gemma[-_]scope.*transcoder")
_SITES = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


def read_sae(path: Path) -> Conversion:
    """Read a residual, MLP or attention SAE."""
    return _autoencoder(_arrays(path, same_width=True), 1.0, metadata_of(path))


def read_embedding(path: Path) -> Conversion:
    """Read an SAE of the embedding."""
    arrays = _arrays(path, same_width=True)
    return _autoencoder(arrays, sqrt(arrays.sizes["d_in"]), SAEMetadata(hook_point="hook_embed"))


def read_transcoder(path: Path) -> Conversion:
    """Read a transcoder of one MLP."""
    w = _arrays(path, same_width=False)
    layer = re.search(r"layer_(\d+)", path.as_posix())
    metadata = SAEMetadata(hook_point_out=f"blocks.{layer[1]}.hook_mlp_out" if layer else "")
    return _transcoder(w, metadata)


def _transcoder(w: Arrays, metadata: SAEMetadata) -> Conversion:
    weights = Weights(w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"])
    skip = w[SKIP_NAME].T.contiguous() if SKIP_NAME in w else None
    sae = Transcoder(weights, activation=JumpReLU(w["threshold"].clamp_min(0)), W_skip=skip, metadata=metadata)
    return Conversion(sae=sae, forward=w.forward(_forward))


def _arrays(path: Path, *, same_width: bool) -> Arrays:
    file = one_file(path, WEIGHTS)
    tensors = _upper_case(read_npz(file))
    scale = tensors.pop("scaling_factor", None)
    if scale is not None and not bool((scale == 1).all()):
        raise MismatchError(f"{file}: scaling_factor is not 1; SAEs with a fine-tuned scale are not supported")
    return check_arrays(tensors, _layout(same_width=same_width), file, what="a Gemma Scope dictionary")


def _upper_case(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return matrices that a release calls `w_enc` and `w_dec` as `W_enc` and `W_dec`."""
    return {("W" + name[1:] if name.startswith("w_") else name): t for name, t in tensors.items()}


def _layout(*, same_width: bool) -> dict[str, Axes]:
    return {name: tuple("d_in" if same_width and a == "d_out" else a for a in axes) for name, axes in LAYOUT.items()}


def _autoencoder(w: Arrays, scale: float, metadata: SAEMetadata) -> Conversion:
    weights = subtract_b_dec(Weights(w["W_enc"] / scale, w["b_enc"], w["W_dec"] * scale, w["b_dec"]))
    sae = JumpReLUSAE(weights, threshold=w["threshold"].clamp_min(0), metadata=metadata)
    return Conversion(sae=sae, forward=w.forward(_forward, scale))


def _forward(x: Tensor, w: dict[str, Tensor], scale: float = 1.0) -> tuple[Tensor, Tensor]:
    pre = (x / scale) @ w["W_enc"] + w["b_enc"]
    acts = torch.where(pre > w["threshold"], pre, torch.zeros_like(pre)).clamp_min(0)
    recons = scale * (acts @ w["W_dec"]) + w["b_dec"]
    return acts, recons + x @ w[SKIP_NAME] if SKIP_NAME in w else recons


def metadata_of(path: Path) -> SAEMetadata:
    """Return the metadata that the release's folder names imply; empty where the file lies elsewhere."""
    release, layer = _RELEASE.search(path.as_posix()), re.search(r"layer_(\d+)", path.as_posix())
    if not release or not layer:
        return SAEMetadata()
    return SAEMetadata(model=f"google/gemma-2-{release[1]}", hook_point=f"blocks.{layer[1]}.{_SITES[release[2]]}")


def _is_here(path: Path) -> bool:
    return (path.is_file() and path.suffix == ".npz") or (path / WEIGHTS).is_file()


def _is_embedding(path: Path) -> bool:
    return _is_here(path) and "embedding" in path.absolute().parts[-5:]  # not resolved: the hub's cache is links


def _is_transcoder(path: Path) -> bool:
    return _is_here(path) and any(_TRANSCODERS.search(part) for part in path.absolute().parts)


TRANSCODER = Format(
    name="gemma_scope_transcoder",
    files=f"gemma-scope*transcoders/.../{WEIGHTS}",
    recognises=_is_transcoder,
    read=read_transcoder,
)
EMBEDDING = Format(
    name="gemma_scope_embedding", files=f"embedding/.../{WEIGHTS}", recognises=_is_embedding, read=read_embedding
)
FORMAT = Format(name="gemma_scope", files=WEIGHTS, recognises=_is_here, read=read_sae)

CONFIG, WEIGHTS_2 = "config.json", "params.safetensors"
SKIP_NAME = "affine_skip_connection"
SKIP: dict[str, Axes] = {SKIP_NAME: ("d_in", "d_out")}
_SITES_2 = {"resid_post": "hook_resid_post", "attn_out": "attn.hook_z", "mlp_out": "hook_mlp_out"}


def read_2(path: Path) -> Conversion:
    """Read the dictionary of a folder."""
    config = read_json(path / CONFIG)
    if config.get("architecture") != "jump_relu":
        raise MismatchError(
            f"{path / CONFIG}: architecture {config.get('architecture')!r} is not supported, only 'jump_relu'"
        )
    tensors = _upper_case(read_safetensors(path / WEIGHTS_2))
    if "W_dec" in tensors and tensors["W_dec"].ndim == 3:
        raise MismatchError(f"{path}: w_dec has three axes: it is one layer of a cross-layer transcoder")
    transcodes = is_transcoder(config, tensors, path / CONFIG)
    layout = _layout(same_width=not transcodes)
    if flag(config, "affine_connection", path / CONFIG):
        layout = {**layout, **SKIP}
    w = check_arrays(
        tensors, layout, path / WEIGHTS_2, optional=SKIP if transcodes else None, what="a Gemma Scope 2 dictionary"
    )
    metadata = metadata_of_2(config, path, transcodes)
    return _transcoder(w, metadata) if transcodes else _autoencoder(w, 1.0, metadata)


def is_transcoder(config: Mapping[str, object], tensors: dict[str, Tensor], path: Path) -> bool:
    """Return whether there is a skip connection, or two hook points that differ."""
    source, target = (text(config, f"hf_hook_point_{side}", path) for side in ("in", "out"))
    return SKIP_NAME in tensors or flag(config, "affine_connection", path) or (bool(target) and source != target)


def metadata_of_2(config: Mapping[str, object], path: Path, transcodes: bool) -> SAEMetadata:
    """Return the model of the config, and the hook point that the folder's name implies."""
    layer = re.search(r"layer_(\d+)", path.as_posix())
    model = text(config, "model_name", path / CONFIG).replace("-v3", "-3")
    if not layer:
        return SAEMetadata(model=model)
    if transcodes:
        return SAEMetadata(model=model, hook_point_out=f"blocks.{layer[1]}.hook_mlp_out")
    site = next((name for word, name in _SITES_2.items() if word in path.as_posix()), "")
    return SAEMetadata(model=model, hook_point=f"blocks.{layer[1]}.{site}" if site else "")


FORMAT_2 = Format(
    name="gemma_scope_2", files=f"{CONFIG}, {WEIGHTS_2}", recognises=has_files(CONFIG, WEIGHTS_2), read=read_2
)
