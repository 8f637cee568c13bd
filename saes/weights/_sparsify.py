"""EleutherAI sparsify (`SparseCoder`): a folder per hook point with `cfg.json` and `sae.safetensors`.

    encoder.weight [d_sae, d_in]  encoder.bias [d_sae]  W_dec [d_sae, d_in]  b_dec [d_in]  optional: W_skip [d_in, d_in]

    acts = TopK(relu(z @ encoder.weight.T + encoder.bias), k)      z = x - b_dec, or x where `transcode`
    recons = acts @ W_dec + b_dec [+ x @ W_skip.T]

`W_dec` lies as here and must not be transposed, and `b_dec` is subtracted whenever `transcode` is false, whatever
`normalize_decoder` says. `d_sae` is `num_latents`, or `d_in * expansion_factor` where that is 0. The name of the folder
is the module whose output is reconstructed: `layers.5` is the residual stream after block 5, `layers.5.mlp` an MLP.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from interp.artifacts import read_json
from interp.errors import CorruptError, MismatchError
from saes.kinds.base import SAEMetadata, TopK, Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder
from saes.weights.layout import (
    Arrays,
    Axes,
    Conversion,
    Format,
    as_relu_topk,
    check_arrays,
    check_k,
    check_size,
    flag,
    has_files,
    read_safetensors,
    require,
)

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
LAYOUT: dict[str, Axes] = {
    "encoder.weight": ("d_sae", "d_in"),
    "encoder.bias": ("d_sae",),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
}
SKIP: dict[str, Axes] = {"W_skip": ("d_in", "d_in")}
_MODULE = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)(\.mlp)?$")


def read(path: Path) -> Conversion:
    """Read the dictionary of one hook point's folder."""
    config_path = path / CONFIG
    config = read_json(config_path)
    require(config_path, config, "d_in", "k")
    if config.get("activation", "topk") != "topk":
        raise MismatchError(f"{config_path}: activation {config['activation']!r} is not supported, only 'topk'")
    d_in = check_size(config["d_in"], "d_in", config_path)
    sizes = {"d_in": d_in, "d_sae": _d_sae(config, d_in, config_path)}
    skip, transcode = (flag(config, key, config_path) for key in ("skip_connection", "transcode"))
    arrays = check_arrays(
        read_safetensors(path / WEIGHTS),
        {**LAYOUT, **(SKIP if skip else {})},
        path / WEIGHTS,
        sizes=sizes,
        what="a sparsify coder" + (" with skip_connection" if skip else ""),
    )
    k = check_k(config["k"], sizes["d_sae"], config_path)
    sae = _build(arrays, k, transcode, metadata_of(path.name, transcode))
    return Conversion(sae=sae, forward=arrays.forward(_forward, k, transcode))


def _d_sae(config: Mapping[str, object], d_in: int, path: Path) -> int:
    if config.get("num_latents"):
        return check_size(config["num_latents"], "num_latents", path)
    return d_in * check_size(config.get("expansion_factor", 32), "expansion_factor", path)


def metadata_of(module: str, transcode: bool) -> SAEMetadata:
    """Return the hook points of a module's name; empty for an unknown module, and for an MLP's input."""
    match = _MODULE.search(module)
    if not match:
        return SAEMetadata()
    output = f"blocks.{match[1]}." + ("hook_mlp_out" if match[2] else "hook_resid_post")
    return SAEMetadata(hook_point_out=output) if transcode else SAEMetadata(hook_point=output)


def _build(w: Arrays, k: int, transcode: bool, metadata: SAEMetadata) -> TopKSAE | Transcoder:
    weights = Weights(w["encoder.weight"].T.contiguous(), w["encoder.bias"], w["W_dec"], w["b_dec"])
    if not transcode and "W_skip" not in w:
        return TopKSAE(weights, k=k, metadata=metadata)
    if not transcode:  # centred input and a skip connection: the centring goes into the bias
        shift = weights.b_dec.double() @ weights.W_enc.double()
        weights = weights._replace(b_enc=(weights.b_enc.double() - shift).float())
    skip = w["W_skip"] if "W_skip" in w else None  # noqa: SIM401 (not a dict)
    return Transcoder(weights, activation=TopK(k), W_skip=skip, metadata=metadata)


def _forward(x: Tensor, w: dict[str, Tensor], k: int, transcode: bool) -> tuple[Tensor, Tensor]:
    z = x if transcode else x - w["b_dec"]
    acts = as_relu_topk((z @ w["encoder.weight"].T + w["encoder.bias"]).clamp_min(0), k)
    recons = acts @ w["W_dec"] + w["b_dec"]
    return acts, recons + x @ w["W_skip"].T if "W_skip" in w else recons


def explain(path: Path) -> None:
    """Raise a `CorruptError` that lists the hook points of a run's folder, when that is what was given."""
    inside = sorted(file.parent.name for file in path.glob(f"*/{WEIGHTS}"))
    if inside:
        raise CorruptError(f"{path} holds {len(inside)} hook points ({', '.join(inside[:6])}); give the folder of one")


FORMAT = Format(name="sparsify", files=f"{CONFIG}, {WEIGHTS}", recognises=has_files(CONFIG, WEIGHTS), read=read)
