"""Checkpoints saved by EleutherAI's sparsify, with its own outputs. Run where `pip install eai-sparsify==1.3.3` was.

python tests/oracles/sparsify_checkpoints.py OUT
"""

import sys
from pathlib import Path

import torch
from probe import D_IN, D_SAE, K, keep, probe_inputs, random_arrays
from sparsify import SparseCoder
from sparsify.config import SparseCoderConfig

KINDS = {
    "sparsify_sae/layers.5": {},
    "sparsify_sae_unnormalised/layers.5.mlp": {"normalize_decoder": False},
    "sparsify_transcoder/layers.5.mlp": {"transcode": True},
    "sparsify_skip_transcoder/layers.5.mlp": {"transcode": True, "skip_connection": True},
    "sparsify_skip_sae/layers.5": {"skip_connection": True},
}


@torch.no_grad()
def main(out: Path) -> None:
    for number, (name, settings) in enumerate(KINDS.items()):
        arrays = random_arrays(10 + number)
        coder = SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, k=K, **settings))
        coder.encoder.weight.copy_(arrays["W_enc"].T)
        coder.encoder.bias.copy_(arrays["b_enc"])
        coder.W_dec.copy_(arrays["W_dec"])
        coder.b_dec.copy_(arrays["b_dec"])
        if coder.W_skip is not None:
            coder.W_skip.copy_(arrays["W_skip"])
        coder.save_to_disk(out / name)
        loaded, x = SparseCoder.load_from_disk(out / name), probe_inputs()
        result = loaded(x)
        acts = torch.zeros(len(x), D_SAE).scatter_(1, result.latent_indices, result.latent_acts)
        keep(out / name, x, acts, result.sae_out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
