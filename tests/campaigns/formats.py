"""Healthy dictionaries in the formats of other tools: written as each tool lays them out, and read back by ours."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from saes.kinds.base import SAE, OneLayerSAE
from saes.weights.folder import save_sae
from saes.weights.read import load_dictionary


def _saelens(sae: OneLayerSAE, folder: Path) -> None:
    save_sae(sae, folder)


def _sparsify(sae: OneLayerSAE, folder: Path) -> None:
    config = {"d_in": sae.d_in, "num_latents": sae.d_sae, "k": sae.k, "activation": "topk"}
    (folder / "cfg.json").write_text(json.dumps(config))
    arrays = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    save_file(_plain(arrays), folder / "sae.safetensors")


def _gemma_scope(sae: OneLayerSAE, folder: Path) -> None:
    """`b_dec` is not subtracted from the input there."""
    arrays = {"W_enc": sae.W_enc, "b_enc": sae.b_enc - sae.b_dec @ sae.W_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    plain = _plain({**arrays, "threshold": sae.threshold})
    np.savez(folder / "params.npz", **{name: each.numpy() for name, each in plain.items()})


def _standard(sae: OneLayerSAE, folder: Path) -> None:
    """dictionary_learning's `AutoEncoder`, whose decoder rows may have any length: its own loader divides by it."""
    arrays = {"bias": sae.b_dec, "encoder.weight": sae.W_enc.T / 3, "encoder.bias": sae.b_enc / 3}
    _learning("AutoEncoder", {**arrays, "decoder.weight": 3 * sae.W_dec.T}, sae, folder)


def _top_k(sae: OneLayerSAE, folder: Path) -> None:
    arrays = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.T}
    _learning("AutoEncoderTopK", {**arrays, "b_dec": sae.b_dec, "k": torch.tensor(sae.k)}, sae, folder)


def _batch_top_k(sae: OneLayerSAE, folder: Path) -> None:
    arrays = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.T}
    arrays |= {"b_dec": sae.b_dec, "k": torch.tensor(8), "threshold": sae.threshold[0]}
    _learning("BatchTopKSAE", arrays, sae, folder)


def _learning(kind: str, arrays: dict[str, Tensor], sae: OneLayerSAE, folder: Path) -> None:
    trainer = {"dict_class": kind, "activation_dim": sae.d_in, "dict_size": sae.d_sae}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    torch.save(_plain(arrays), folder / "ae.pt")


def _plain(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.detach().contiguous().clone() for name, each in arrays.items()}


FORMATS: dict[str, Callable[..., None]] = {
    "topk as saelens": _saelens,
    "jumprelu as saelens": _saelens,
    "relu as saelens": _saelens,
    "topk as sparsify": _sparsify,
    "jumprelu as gemma_scope": _gemma_scope,
    "relu as dictionary_learning": _standard,
    "topk as dictionary_learning": _top_k,
    "jumprelu as dictionary_learning": _batch_top_k,
}
"""Kind of dictionary and format -> its writer."""


def rewritten(sae: SAE, name: str, folder: Path) -> SAE:
    """Write a dictionary in a format, and return it as it is read."""
    assert isinstance(sae, OneLayerSAE)
    folder.mkdir(parents=True, exist_ok=True)
    FORMATS[name](sae, folder)
    found = load_dictionary(folder)
    found.metadata, found.hook_point = sae.metadata, sae.hook_point  # its files do not name a model of three layers
    return found
