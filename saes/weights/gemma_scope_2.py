"""Gemma Scope 2: `params.safetensors` with `w_enc [d_in, d_sae]`, `b_enc`, `w_dec [d_sae, d_out]`, `b_dec`,
`threshold`, and `config.json` (`architecture: jump_relu`, `model_name`, `hf_hook_point_in`, `hf_hook_point_out`).

    acts = pre * 1[pre > threshold]  with  pre = x @ w_enc + b_enc
    recons = acts @ w_dec + b_dec [+ x @ affine_skip_connection]

`b_dec` is not subtracted from the input. `affine_skip_connection [d_in, d_out]` is the transpose of `W_skip`. A
dictionary is a transcoder when its two hook points differ or it has the skip connection. A layer of a cross-layer
transcoder has `w_dec [d_sae, n_layers, d_out]` and is refused.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.artifacts import read_json
from interp.errors import MismatchError
from saes.kinds.base import JumpReLU, SAEMetadata, Weights
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.transcoder import Transcoder
from saes.weights.layout import Arrays, Axes, Conversion, Format, check_arrays, flag, read_safetensors, text
from saes.weights.saelens import subtract_b_dec

CONFIG, WEIGHTS = "config.json", "params.safetensors"
LAYOUT: dict[str, Axes] = {
    "w_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "w_dec": ("d_sae", "d_out"),
    "b_dec": ("d_out",),
    "threshold": ("d_sae",),
}
SKIP_NAME = "affine_skip_connection"
SKIP: dict[str, Axes] = {SKIP_NAME: ("d_in", "d_out")}
_SITES = {"resid_post": "hook_resid_post", "attn_out": "attn.hook_z", "mlp_out": "hook_mlp_out"}


def read(path: Path) -> Conversion:
    """Read the dictionary of a folder."""
    config = read_json(path / CONFIG)
    if config.get("architecture") != "jump_relu":
        raise MismatchError(
            f"{path / CONFIG}: architecture {config.get('architecture')!r} is not supported, only 'jump_relu'"
        )
    tensors = read_safetensors(path / WEIGHTS)
    if "w_dec" in tensors and tensors["w_dec"].ndim == 3:
        raise MismatchError(f"{path}: w_dec has three axes: it is one layer of a cross-layer transcoder")
    transcodes = is_transcoder(config, tensors, path / CONFIG)
    layout = LAYOUT if transcodes else {n: tuple("d_in" if a == "d_out" else a for a in x) for n, x in LAYOUT.items()}
    if flag(config, "affine_connection", path / CONFIG):
        layout = {**layout, **SKIP}
    w = check_arrays(
        tensors, layout, path / WEIGHTS, optional=SKIP if transcodes else None, what="a Gemma Scope 2 dictionary"
    )
    weights, threshold = Weights(w["w_enc"], w["b_enc"], w["w_dec"], w["b_dec"]), w["threshold"].clamp_min(0)
    about = metadata_of(config, path, transcodes)
    if not transcodes:
        sae = JumpReLUSAE(subtract_b_dec(weights), threshold=threshold, metadata=about)
        return Conversion(sae=sae, forward=_forward(w))
    skip = w[SKIP_NAME].T.contiguous() if SKIP_NAME in w else None
    sae = Transcoder(weights, activation=JumpReLU(threshold), W_skip=skip, metadata=about)
    return Conversion(sae=sae, forward=_forward(w))


def is_transcoder(config: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> bool:
    """Return whether there is a skip connection, or two hook points that differ."""
    source, target = (text(config, f"hf_hook_point_{side}", path) for side in ("in", "out"))
    return SKIP_NAME in tensors or flag(config, "affine_connection", path) or (bool(target) and source != target)


def metadata_of(config: dict[str, Any], path: Path, transcodes: bool) -> SAEMetadata:
    """Return the model of the config, and the hook point that the folder's name implies."""
    layer = re.search(r"layer_(\d+)", path.as_posix())
    model = text(config, "model_name", path / CONFIG).replace("-v3", "-3")
    if not layer:
        return SAEMetadata(model=model)
    if transcodes:
        return SAEMetadata(model=model, hook_point_out=f"blocks.{layer[1]}.hook_mlp_out")
    site = next((name for word, name in _SITES.items() if word in path.as_posix()), "")
    return SAEMetadata(model=model, hook_point=f"blocks.{layer[1]}.{site}" if site else "")


def _forward(arrays: Arrays):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        pre = x @ w["w_enc"] + w["b_enc"]
        acts = torch.where(pre > w["threshold"], pre, torch.zeros_like(pre)).clamp_min(0)
        recons = acts @ w["w_dec"] + w["b_dec"]
        return acts, recons + x @ w[SKIP_NAME] if SKIP_NAME in w else recons

    return forward


def recognises(path: Path) -> bool:
    """Return whether both files exist."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


FORMAT = Format(name="gemma_scope_2", files=f"{CONFIG}, {WEIGHTS}", recognises=recognises, read=read)
