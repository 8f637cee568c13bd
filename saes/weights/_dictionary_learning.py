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
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from interp.artifacts import read_json
from interp.errors import CorruptError, UnknownNameError
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.l1 import GatedSAE, ReLUSAE
from saes.kinds.topk import TopKSAE
from saes.weights._saelens import subtract_b_dec, with_unit_rows
from saes.weights.layout import (
    Arrays,
    Axes,
    Conversion,
    Format,
    as_relu_topk,
    check_arrays,
    check_k,
    has_files,
    read_pt,
    require,
    section,
    text,
)

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
UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")
"""Classes that do not subtract `b_dec` from the input."""


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
    named = _named(arrays)
    return Conversion(
        sae=_build(kind, named, k, _metadata(config, path / CONFIG)), forward=named.forward(_forward, kind, k)
    )


def _k(config: Mapping[str, object], tensors: Mapping[str, object], d_sae: int, path: Path) -> int:
    k = check_k(config.get("k", tensors.get("k")), d_sae, path / CONFIG)
    if "k" in tensors and check_k(tensors["k"], d_sae, path / WEIGHTS) != k:
        raise CorruptError(f"{path / CONFIG} says k = {k}, {WEIGHTS} holds another; which one was it trained with?")
    return k


def _metadata(config: Mapping[str, object], path: Path) -> SAEMetadata:
    """`submodule_name` is free text; the one that the peer's demo writes is understood."""
    match = re.fullmatch(r"resid_post_layer_(\d+)", text(config, "submodule_name", path))
    return SAEMetadata(
        model=text(config, "lm_name", path), hook_point=f"blocks.{match[1]}.hook_resid_post" if match else ""
    )


NAMES = {
    "encoder.weight": "W_enc",
    "decoder.weight": "W_dec",
    "encoder.bias": "b_enc",
    "gate_bias": "b_enc",
    "bias": "b_dec",
    "decoder.bias": "b_dec",
    "decoder_bias": "b_dec",
}


def _named(arrays: Arrays) -> Arrays:
    """Return the arrays by our names; matrices of `nn.Linear` are transposed."""
    tensors = {n: t.T.contiguous() if n.endswith("coder.weight") else t for n, t in arrays.tensors.items()}
    return Arrays({NAMES.get(name, name): t for name, t in tensors.items()}, arrays.sizes)


def _build(kind: str, w: Arrays, k: int, metadata: SAEMetadata) -> SAE:
    weights = Weights(w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"])
    if kind in UNCENTRED:
        weights = subtract_b_dec(weights)
    if kind == "AutoEncoder":
        weights = with_unit_rows(weights)
    if kind.startswith("AutoEncoder"):
        return TopKSAE(weights, k=k, metadata=metadata) if k else ReLUSAE(weights, metadata=metadata)
    if kind == "GatedAutoEncoder":
        return GatedSAE(weights, r_mag=w["r_mag"], b_mag=w["mag_bias"], metadata=metadata)
    threshold = w["threshold"].clamp_min(0).expand(weights.b_enc.shape).clone()
    return JumpReLUSAE(weights, threshold=threshold, metadata=metadata)


def _forward(x: Tensor, w: dict[str, Tensor], kind: str, k: int) -> tuple[Tensor, Tensor]:
    """Compute the forward pass of the peer's class."""
    linear, rows = (x if kind in UNCENTRED else x - w["b_dec"]) @ w["W_enc"], w["W_dec"]
    pre = linear + w["b_enc"]
    if kind == "AutoEncoder":
        norms = rows.norm(dim=1)
        pre, rows = pre * norms, rows / norms.clamp_min(1e-300)[:, None]
    if kind == "GatedAutoEncoder":
        acts = (pre > 0).double() * (w["r_mag"].exp() * linear + w["mag_bias"]).clamp_min(0)
    elif kind == "AutoEncoderTopK":
        acts = as_relu_topk(pre, k)
    else:
        relu = pre.clamp_min(0)
        acts = relu * (relu > w["threshold"]) if "threshold" in w else relu
    return acts, acts @ rows + w["b_dec"]


FORMAT = Format(
    name="dictionary_learning", files=f"{CONFIG}, {WEIGHTS}", recognises=has_files(CONFIG, WEIGHTS), read=read
)
