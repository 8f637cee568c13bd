"""What every script that makes checkpoints shares: small sizes, random weights, and the numbers kept beside them."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

D_IN, D_SAE, K, ROWS = 8, 24, 4, 16


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_arrays(seed: int, *, d_out: int = D_IN) -> dict[str, Tensor]:
    """Decoder rows of unequal length and biases that matter, so that a layout that is misread shows."""
    g = generator(seed)
    return {
        "W_enc": torch.randn(D_IN, D_SAE, generator=g),
        "b_enc": torch.randn(D_SAE, generator=g) * 0.3,
        "W_dec": torch.randn(D_SAE, d_out, generator=g) * (0.5 + torch.rand(D_SAE, 1, generator=g)),
        "b_dec": torch.randn(d_out, generator=g),
        "threshold": torch.rand(D_SAE, generator=g),
        "W_skip": torch.randn(d_out, D_IN, generator=g) * 0.5,
    }


def probe_inputs(seed: int = 7) -> Tensor:
    return torch.randn(ROWS, D_IN, generator=generator(seed)) * 2


def keep(folder: Path, x: Tensor, acts: Tensor, recons: Tensor) -> None:
    """The peer's numbers for a probe, next to its checkpoint."""
    active = float((acts != 0).sum(-1).float().mean())
    assert active > 0.5, f"{folder}: the probe activates nothing, so the comparison would say nothing"
    tensors = {"x": x, "feature_acts": acts, "recons": recons}
    save_file(
        {name: t.detach().float().contiguous().clone() for name, t in tensors.items()}, folder / "probe.safetensors"
    )
