"""dictionary_learning (saprmarks): `config.json` and `ae.pt`, a state dict of tensors.

| dict_class | arrays (`nn.Linear` keeps `[out, in]`) | what it computes |
|---|---|---|
| AutoEncoder | bias, encoder.weight, encoder.bias, decoder.weight | `relu((x - bias) @ E + b)`, unit rows: below |
| AutoEncoderNew | encoder.*, decoder.weight, decoder.bias | `relu(x @ E + b)`: nothing is subtracted |
| GatedAutoEncoder | decoder_bias, encoder.weight, r_mag, gate_bias, mag_bias, decoder.weight | a gated SAE |
| AutoEncoderTopK | encoder.*, decoder.weight, b_dec, k, threshold | the k largest of `relu((x - b_dec) @ E + b)` |
| BatchTopKSAE | the same | `relu(..) * 1[.. > threshold]`; a threshold of -1 was never set, and lets all through |
| MatryoshkaBatchTopKSAE | W_enc, b_enc, W_dec, b_dec, k, threshold, group_sizes | the same; arrays lie as here |
| JumpReluAutoEncoder | W_enc, b_enc, W_dec, b_dec, threshold | **`b_dec` is not subtracted** from the input |

`AutoEncoder` gets unit decoder rows because the peer's own loader does that; activations grow by the former lengths.
The scale of normalised training is in the biases already (the trainer saves them scaled back).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.artifacts import read_json
from interp.errors import CorruptError, UnknownNameError
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.gated import GatedSAE
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.relu import ReLUSAE
from saes.kinds.topk import TopKSAE
from saes.weights.layout import (
    Arrays,
    Axes,
    Conversion,
    Format,
    as_relu_topk,
    check_arrays,
    check_k,
    read_pt,
    require,
    section,
    text,
)
from saes.weights.saelens import subtract_b_dec, with_unit_rows

CONFIG, WEIGHTS = "config.json", "ae.pt"
LINEAR: dict[str, Axes] = {
    "encoder.weight": ("d_sae", "d_in"),
    "encoder.bias": ("d_sae",),
    "decoder.weight": ("d_in", "d_sae"),
}
PLAIN: dict[str, Axes] = {
    "W_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
}
GATED: dict[str, Axes] = {
    "decoder_bias": ("d_in",),
    "encoder.weight": ("d_sae", "d_in"),
    "r_mag": ("d_sae",),
    "gate_bias": ("d_sae",),
    "mag_bias": ("d_sae",),
    "decoder.weight": ("d_in", "d_sae"),
}
LAYOUTS: dict[str, dict[str, Axes]] = {
    "AutoEncoder": {"bias": ("d_in",), **LINEAR},
    "AutoEncoderNew": {**LINEAR, "decoder.bias": ("d_in",)},
    "GatedAutoEncoder": GATED,
    "AutoEncoderTopK": {**LINEAR, "b_dec": ("d_in",)},
    "BatchTopKSAE": {**LINEAR, "b_dec": ("d_in",), "threshold": ()},
    "MatryoshkaBatchTopKSAE": {**PLAIN, "threshold": ()},
    "JumpReluAutoEncoder": {**PLAIN, "threshold": ("d_sae",)},
}
COUNTS = ("k", "group_sizes")  # whole numbers among the arrays


def read(path: Path) -> Conversion:
    """Read the dictionary of a folder."""
    config = section(read_json(path / CONFIG), "trainer", path / CONFIG)
    require(path / CONFIG, config, "dict_class", "activation_dim", "dict_size")
    kind = config["dict_class"]
    if not isinstance(kind, str) or kind not in LAYOUTS:
        raise UnknownNameError("dict_class", str(kind), LAYOUTS, f"({path / CONFIG})")
    tensors = read_pt(path / WEIGHTS)
    arrays = check_arrays(
        tensors,
        LAYOUTS[kind],
        path / WEIGHTS,
        optional={"threshold": ()} if kind == "AutoEncoderTopK" else None,
        sizes={"d_in": config["activation_dim"], "d_sae": config["dict_size"]},
        what=f"a {kind}",
        ignore=COUNTS,
    )
    k = _k(config, tensors, arrays.sizes["d_sae"], path) if "TopK" in kind else 0
    return Conversion(sae=_build(kind, arrays, k, _metadata(config, path / CONFIG)), forward=_FORWARDS[kind](arrays, k))


def _k(config: dict[str, Any], tensors: dict[str, Any], d_sae: int, path: Path) -> int:
    k = check_k(config.get("k", tensors.get("k")), d_sae, path / CONFIG)
    if "k" in tensors and check_k(tensors["k"], d_sae, path / WEIGHTS) != k:
        raise CorruptError(f"{path / CONFIG} says k = {k}, {WEIGHTS} holds another; which one was it trained with?")
    return k


def _metadata(config: dict[str, Any], path: Path) -> SAEMetadata:
    """`submodule_name` is free text; the one that the peer's demo writes is understood."""
    found = re.fullmatch(r"resid_post_layer_(\d+)", text(config, "submodule_name", path))
    return SAEMetadata(
        model=text(config, "lm_name", path), hook_point=f"blocks.{found[1]}.hook_resid_post" if found else ""
    )


def _build(kind: str, w: Arrays, k: int, about: SAEMetadata) -> SAE:
    if kind in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        weights = Weights(w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"])
    else:
        b_dec = w[
            {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}.get(
                kind, "b_dec"
            )
        ]
        b_enc = w["gate_bias" if kind == "GatedAutoEncoder" else "encoder.bias"]
        weights = Weights(w["encoder.weight"].T.contiguous(), b_enc, w["decoder.weight"].T.contiguous(), b_dec)
    if kind in ("AutoEncoderNew", "JumpReluAutoEncoder"):
        weights = subtract_b_dec(weights)
    if kind == "AutoEncoder":
        weights = with_unit_rows(weights)
    if kind.startswith("AutoEncoder"):
        return TopKSAE(weights, k=k, metadata=about) if k else ReLUSAE(weights, metadata=about)
    if kind == "GatedAutoEncoder":
        return GatedSAE(weights, r_mag=w["r_mag"], b_mag=w["mag_bias"], metadata=about)
    threshold = w["threshold"].clamp_min(0).expand(weights.b_enc.shape).clone()
    return JumpReLUSAE(weights, threshold=threshold, metadata=about)


Maker = Callable[[Arrays, int], Callable[[Tensor], tuple[Tensor, Tensor]]]


def _auto_encoder(arrays: Arrays, k: int):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        norms = w["decoder.weight"].norm(dim=0)
        linear = (x - w["bias"]) @ (w["encoder.weight"] * norms[:, None]).T + w["encoder.bias"] * norms
        acts = linear.clamp_min(0)
        return acts, acts @ (w["decoder.weight"] / norms.clamp_min(1e-300)).T + w["bias"]

    return forward


def _auto_encoder_new(arrays: Arrays, k: int):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        acts = (x @ w["encoder.weight"].T + w["encoder.bias"]).clamp_min(0)
        return acts, acts @ w["decoder.weight"].T + w["decoder.bias"]

    return forward


def _gated(arrays: Arrays, k: int):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        linear = (x - w["decoder_bias"]) @ w["encoder.weight"].T
        gate = (linear + w["gate_bias"] > 0).double()
        acts = gate * (w["r_mag"].exp() * linear + w["mag_bias"]).clamp_min(0)
        return acts, acts @ w["decoder.weight"].T + w["decoder_bias"]

    return forward


def _top_k(arrays: Arrays, k: int):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        acts = as_relu_topk((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], k)
        return acts, acts @ w["decoder.weight"].T + w["b_dec"]

    return forward


def _batch_top_k(arrays: Arrays, k: int):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        relu = ((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).clamp_min(0)
        acts = relu * (relu > w["threshold"])
        return acts, acts @ w["decoder.weight"].T + w["b_dec"]

    return forward


def _matryoshka(arrays: Arrays, k: int):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        relu = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).clamp_min(0)
        acts = relu * (relu > w["threshold"])
        return acts, acts @ w["W_dec"] + w["b_dec"]

    return forward


def _jump_relu(arrays: Arrays, k: int):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        pre = x @ w["W_enc"] + w["b_enc"]
        acts = torch.relu(pre * (pre > w["threshold"]))
        return acts, acts @ w["W_dec"] + w["b_dec"]

    return forward


_FORWARDS: dict[str, Maker] = {
    "AutoEncoder": _auto_encoder,
    "AutoEncoderNew": _auto_encoder_new,
    "GatedAutoEncoder": _gated,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "JumpReluAutoEncoder": _jump_relu,
}


def recognises(path: Path) -> bool:
    """Return whether `config.json` and `ae.pt` exist."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


FORMAT = Format(name="dictionary_learning", files=f"{CONFIG}, {WEIGHTS}", recognises=recognises, read=read)
