"""OpenAI's sparse_autoencoder (Gao et al. 2024, 2406.04093): one `.pt` file, a state dict.

    pre_bias [d_in]  latent_bias [d_sae]  encoder.weight [d_sae, d_in]  decoder.weight [d_in, d_sae] (absent when tied)
    activation  "ReLU" or "TopK";  activation_state_dict  {"k": k, "postact_fn": "ReLU"}  for TopK

    acts = activation((z - pre_bias) @ encoder.weight.T + latent_bias)
    recons = acts @ decoder.weight.T + pre_bias

`z` is `x` for ReLU. With TopK (the peer's own rule) every token is first centred and divided by its standard deviation
plus 1e-5, and the reconstruction is scaled and shifted back. Counters (`stats_last_nonzero` ...) are ignored.
`postact_fn: Identity` lets negative activations through and is refused.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from interp.errors import CorruptError, MismatchError
from saes.kinds.base import SAE, TokenNormSAE, TopK, Weights
from saes.kinds.l1 import ReLUSAE
from saes.weights.layout import Arrays, Axes, Conversion, Format, as_relu_topk, check_arrays, check_k, one_file, read_pt

LAYOUT: dict[str, Axes] = {"pre_bias": ("d_in",), "latent_bias": ("d_sae",), "encoder.weight": ("d_sae", "d_in")}
DECODER: dict[str, Axes] = {"decoder.weight": ("d_in", "d_sae")}
TIED = ("decoder.linear.weight",)
COUNTERS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
SETTINGS = ("activation", "activation_state_dict")


def read(path: Path) -> Conversion:
    """Read the dictionary of a file."""
    file = one_file(path, "*.pt")
    state = read_pt(file)
    arrays = check_arrays(
        state, LAYOUT, file, optional=DECODER, what="an OpenAI autoencoder", ignore=(*COUNTERS, *SETTINGS, *TIED)
    )
    if "decoder.weight" not in arrays and not any(name in state for name in TIED):
        raise CorruptError(f"{file} lacks decoder.weight; an OpenAI autoencoder has {', '.join({**LAYOUT, **DECODER})}")
    k = _k(state, arrays.sizes["d_sae"], file)
    return Conversion(sae=_build(arrays, k), forward=arrays.forward(_forward, k))


def _k(state: Mapping[str, object], d_sae: int, path: Path) -> int:
    """Return `k`; 0 for ReLU."""
    activation = state.get("activation", "ReLU")
    if activation == "ReLU":
        return 0
    if activation != "TopK":
        raise MismatchError(f"{path}: activation {activation!r} is not supported, only ReLU and TopK")
    settings = state.get("activation_state_dict")
    if not isinstance(settings, Mapping):
        raise CorruptError(f"{path} lacks activation_state_dict; TopK needs its k")
    if settings.get("postact_fn", "ReLU") != "ReLU":
        raise MismatchError(f"{path}: postact_fn {settings['postact_fn']!r} is not supported, only ReLU")
    return check_k(settings.get("k"), d_sae, path)


def _build(w: Arrays, k: int) -> SAE:
    decoder = w["decoder.weight"].T if "decoder.weight" in w else w["encoder.weight"]
    weights = Weights(w["encoder.weight"].T.contiguous(), w["latent_bias"], decoder.clone().contiguous(), w["pre_bias"])
    return TokenNormSAE(weights, activation=TopK(k), norm="layer_norm") if k else ReLUSAE(weights)


def _forward(x: Tensor, w: dict[str, Tensor], k: int) -> tuple[Tensor, Tensor]:
    decoder = w.get("decoder.weight", w["encoder.weight"].T)
    if not k:
        acts = ((x - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"]).clamp_min(0)
        return acts, acts @ decoder.T + w["pre_bias"]
    mean = x.mean(1, keepdim=True)
    deviation = ((x - mean).square().sum(1, keepdim=True) / (x.shape[1] - 1)).sqrt()
    z = (x - mean) / (deviation + 1e-5)
    acts = as_relu_topk((z - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"], k)
    return acts, (acts @ decoder.T + w["pre_bias"]) * deviation + mean


def recognises(path: Path) -> bool:
    """Return whether this is a `.pt` file, or a folder with exactly one, of no other format."""
    if path.is_file():
        return path.suffix == ".pt" and path.name != "ae.pt"
    return len(list(path.glob("*.pt"))) == 1


FORMAT = Format(name="openai", files="one .pt file with pre_bias and latent_bias", recognises=recognises, read=read)
