"""Crosscoders in our folder: `architecture` is `crosscoder`, a layout that no other tool has.

Arrays as for jumprelu, over the concatenated activations of all sites, and `scales [n_places]`; `cfg.json` lists the
sites as `places`, with their widths `d` (see `saes.kinds.crosscoder`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import CorruptError
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.crosscoder import CrosscoderSAE
from saes.weights.layout import Axes, Conversion, check_arrays, check_size, text

NAME = "crosscoder"
LAYOUT: dict[str, Axes] = {
    "W_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
    "threshold": ("d_sae",),
    "scales": ("n_places",),
}


def convert(
    config: dict[str, Any], tensors: Mapping[str, Tensor], about: SAEMetadata, config_path: Path, path: Path
) -> Conversion:
    """Convert a config and arrays to a crosscoder. Raises `CorruptError`, `NonFiniteError`."""
    sites = check_sites(config.get("places"), config["d_in"], config_path)
    sizes = {"d_in": config["d_in"], "d_sae": config["d_sae"], "n_places": len(sites)}
    w = check_arrays(tensors, LAYOUT, path, sizes=sizes, what="a crosscoder")
    if bool((w["threshold"] < 0).any()) or bool((w["scales"] <= 0).any()):
        raise CorruptError(
            f"{path}: thresholds must be at least 0 and scales above 0; no crosscoder was saved with others"
        )
    weights = Weights(w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"])
    sae = CrosscoderSAE(weights, threshold=w["threshold"], scales=w["scales"], sites=sites, metadata=about)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        a = w.double()
        pre = (x - a["b_dec"]) @ a["W_enc"] + a["b_enc"]
        acts = pre.clamp_min(0) * (pre > a["threshold"])
        return acts, acts @ a["W_dec"] + a["b_dec"]

    return Conversion(sae=sae, forward=forward)


def check_sites(sites: Any, d_in: int, path: Path) -> list[dict[str, Any]]:
    """Return the sites, checked: their widths add up to `d_in`."""
    if not isinstance(sites, list) or not sites or not all(isinstance(site, dict) for site in sites):
        raise CorruptError(f"{path}: places must be a list of objects, found {type(sites).__name__}")
    for site in sites:
        if not text(site, "hook_point", path):
            raise CorruptError(f"{path}: every site needs a hook_point, found {site!r}")
    widths = [check_size(site.get("d"), "d", path) for site in sites]
    if sum(widths) != d_in:
        raise CorruptError(f"{path}: widths of `places` {widths} do not add up to d_in = {d_in}")
    return sites
