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
"""

import re
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from interp.errors import MismatchError
from saes.kinds.base import JumpReLU, SAEMetadata, Weights
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.transcoder import Transcoder
from saes.weights.layout import Arrays, Axes, Conversion, Format, check_arrays, one_file, read_npz
from saes.weights.saelens import subtract_b_dec

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
    about = SAEMetadata(hook_point_out=f"blocks.{layer[1]}.hook_mlp_out" if layer else "")
    weights = Weights(w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"])
    sae = Transcoder(weights, activation=JumpReLU(w["threshold"].clamp_min(0)), metadata=about)
    return Conversion(sae=sae, forward=_forward(w, 1.0))


def _arrays(path: Path, *, same_width: bool) -> Arrays:
    file = one_file(path, WEIGHTS)
    tensors = {("W" + name[1:] if name.startswith("w_") else name): t for name, t in read_npz(file).items()}
    scale = tensors.pop("scaling_factor", None)
    if scale is not None and not bool((scale == 1).all()):
        raise MismatchError(f"{file}: scaling_factor is not 1; SAEs with a fine-tuned scale are not supported")
    layout = {name: tuple("d_in" if same_width and a == "d_out" else a for a in axes) for name, axes in LAYOUT.items()}
    return check_arrays(tensors, layout, file, what="a Gemma Scope dictionary")


def _autoencoder(w: Arrays, scale: float, about: SAEMetadata) -> Conversion:
    weights = subtract_b_dec(Weights(w["W_enc"] / scale, w["b_enc"], w["W_dec"] * scale, w["b_dec"]))
    sae = JumpReLUSAE(weights, threshold=w["threshold"].clamp_min(0), metadata=about)
    return Conversion(sae=sae, forward=_forward(w, scale))


def _forward(arrays: Arrays, scale: float):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        pre = (x / scale) @ w["W_enc"] + w["b_enc"]
        acts = torch.where(pre > w["threshold"], pre, torch.zeros_like(pre)).clamp_min(0)
        return acts, scale * (acts @ w["W_dec"]) + w["b_dec"]

    return forward


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
