"""Qwen Scope: `layerN.sae.pt` with `W_enc [d_sae, d_in]`, `W_dec [d_in, d_sae]`, `b_enc`, `b_dec`.

TopK of `x @ W_enc.T + b_enc`; `b_dec` is not subtracted. The file does not hold `k`: it is read from the path, where
the release writes it (`SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer3.sae.pt` has k 50).
"""

import re
from pathlib import Path

from torch import Tensor

from interp.errors import ConfigError
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE
from saes.weights.layout import Arrays, Axes, Conversion, Format, as_relu_topk, check_arrays, check_k, one_file, read_pt
from saes.weights.saelens import subtract_b_dec

LAYOUT: dict[str, Axes] = {
    "W_enc": ("d_sae", "d_in"),
    "W_dec": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "b_dec": ("d_in",),
}
FILES = "*.sae.pt"
_RELEASE = re.compile(r"SAE-Res-(.+?)-W\d+K-L0_\d+")


def read(path: Path) -> Conversion:
    """Read the dictionary of a file."""
    file = one_file(path, FILES)
    named = re.search(r"L0_(\d+)", file.as_posix())
    if not named:
        raise ConfigError(f"{file} does not hold k; put it below a folder named after it, as in .../W32K-L0_50/")
    w = check_arrays(read_pt(file), LAYOUT, file, what="a Qwen Scope SAE")
    k = check_k(int(named[1]), w.sizes["d_sae"], file)
    weights = Weights(w["W_enc"].T.contiguous(), w["b_enc"], w["W_dec"].T.contiguous(), w["b_dec"])
    return Conversion(sae=TopKSAE(subtract_b_dec(weights), k=k, metadata=metadata_of(file)), forward=_forward(w, k))


def metadata_of(file: Path) -> SAEMetadata:
    """Return the metadata that the names of the release imply."""
    layer, release = re.search(r"layer(\d+)\.sae\.pt$", file.name), _RELEASE.search(file.as_posix())
    return SAEMetadata(
        model=f"Qwen/{release[1]}" if release else "",
        hook_point=f"blocks.{layer[1]}.hook_resid_post" if layer else "",
    )


def _forward(arrays: Arrays, k: int):
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double()
        acts = as_relu_topk(x @ w["W_enc"].T + w["b_enc"], k)
        return acts, acts @ w["W_dec"].T + w["b_dec"]

    return forward


def recognises(path: Path) -> bool:
    """Return whether the file's name fits."""
    return path.name.endswith(".sae.pt") or (path.is_dir() and any(path.glob(FILES)))


FORMAT = Format(name="qwen_scope", files="layerN.sae.pt", recognises=recognises, read=read)
