"""Checkpoints of dictionary_learning, read by its own loader. Run where `pip install dictionary-learning==0.1.0` was.

python tests/oracles/dictionary_learning_checkpoints.py OUT
"""

import json
import sys
from pathlib import Path

import torch
from dictionary_learning import AutoEncoder, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.dictionary import AutoEncoderNew
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary
from probe import D_IN, D_SAE, K, keep, probe_inputs, random_arrays

TRAINER = {"layer": 5, "lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_5"}


def dictionaries() -> dict:
    return {
        "standard": AutoEncoder(D_IN, D_SAE),
        "new": AutoEncoderNew(D_IN, D_SAE),
        "gated": GatedAutoEncoder(D_IN, D_SAE),
        "jumprelu": JumpReluAutoEncoder(D_IN, D_SAE),
        "topk": AutoEncoderTopK(D_IN, D_SAE, K),
        "batchtopk": BatchTopKSAE(D_IN, D_SAE, K),
        "matryoshka": MatryoshkaBatchTopKSAE(D_IN, D_SAE, K, [8, 16]),
    }


@torch.no_grad()
def main(out: Path) -> None:
    for number, (name, dictionary) in enumerate(dictionaries().items()):
        fill(dictionary.state_dict(), random_arrays(20 + number))
        folder = out / f"dictionary_learning_{name}"
        folder.mkdir(parents=True)
        torch.save(dictionary.state_dict(), folder / "ae.pt")
        config = {
            **TRAINER,
            "dict_class": type(dictionary).__name__,
            "activation_dim": D_IN,
            "dict_size": D_SAE,
            "k": K,
        }
        (folder / "config.json").write_text(
            json.dumps({"trainer": config, "buffer": {"ctx_len": 128}}, indent=1) + "\n"
        )
        loaded, _ = load_dictionary(str(folder), device="cpu")
        x = probe_inputs()
        keep(folder, x, loaded.encode(x), loaded(x))


def fill(state: dict, arrays: dict) -> None:
    """Random values into whatever arrays a class has."""
    extra = torch.Generator().manual_seed(99)
    for name, tensor in state.items():
        if name in ("k", "group_sizes"):
            continue
        if name == "threshold":
            tensor.copy_(arrays["threshold"] if tensor.ndim else torch.tensor(0.7))
            continue
        plain = {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "encoder.bias": "b_enc"}.get(name, name)
        value = arrays.get(plain)
        if value is None and tensor.shape == arrays["b_dec"].shape:
            value = arrays["b_dec"]
        if value is None:
            value = torch.randn(tensor.shape, generator=extra) * 0.3
        tensor.copy_(value if value.shape == tensor.shape else value.T)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
