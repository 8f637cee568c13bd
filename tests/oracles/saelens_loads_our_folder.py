"""Does SAELens read our SAE folders, and do we read its? Run where `pip install sae-lens==6.54.12 numba` was done.

    python tests/oracles/saelens_loads_our_folder.py [FOLDER ...]   compare, trained SAEs as well
    python tests/oracles/saelens_loads_our_folder.py --freeze       rewrite tests/fixtures/saelens_*/ as well

Every comparison is on features and reconstruction of a random probe, to 1e-5 of their largest value.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig  # noqa: E402

from saes.kinds.base import SAEMetadata, Weights  # noqa: E402
from saes.kinds.batchtopk import BatchTopKSAE  # noqa: E402
from saes.kinds.topk import TopKSAE as OurTopK  # noqa: E402
from saes.weights.folder import load_sae, save_sae  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures"
D_IN, D_SAE, K = 8, 24, 4
METADATA = SAEMetadata(
    model="tiny", weight_hash="ab" * 32, hook_point="blocks.1.hook_resid_post", context_size=16, bos="each context"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--freeze", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name, sae in our_saes().items():
            folder = Path(scratch) / f"ours_{name}"
            save_sae(sae, folder)
            compare(folder)
        for name, sae in their_saes().items():
            folder = FIXTURES / f"saelens_{name}" if arguments.freeze else Path(scratch) / f"theirs_{name}"
            sae.save_model(folder)
            x, acts, recons = compare(folder)
            if arguments.freeze:
                save_file({"x": x, "feature_acts": acts, "recons": recons}, folder / "probe.safetensors")
    for folder in arguments.folders:
        compare(folder)


def compare(folder: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both tools on the same folder and probe; returns the probe and SAELens' features and reconstruction."""
    theirs, ours = SAE.load_from_disk(folder, device="cpu"), load_sae(folder)
    x = torch.randn(64, ours.d_in, generator=torch.Generator().manual_seed(7)) * 2 + ours.b_dec
    with torch.no_grad():
        acts = theirs.encode(x)
        recons = theirs.decode(acts)
        errors = {
            "encode": relative(ours.encode(x), acts),
            "encode_sparse": relative(scatter(ours.encode_sparse(x), ours.d_sae), acts),
            "decode": relative(ours.decode(ours.encode(x)), recons),
        }
    active = float((acts > 0).sum(1).float().mean())
    print(
        f"{folder.name}: {type(theirs).__name__}, {active:.1f} active, "
        + ", ".join(f"{k} {v:.1e}" for k, v in errors.items())
    )
    assert active > 0.5, "the probe activates nothing, so the comparison says nothing"
    assert max(errors.values()) < 1e-5, errors
    return x, acts.contiguous(), recons.contiguous()


def our_saes() -> dict:
    generator = torch.Generator().manual_seed(1)
    weights = random_weights(generator)
    return {
        "topk": OurTopK(weights, k=K, metadata=METADATA),
        "batchtopk": BatchTopKSAE(weights, threshold=torch.rand(D_SAE, generator=generator) * 2, metadata=METADATA),
    }


def their_saes() -> dict:
    """Decoder rows of unequal length, so that `rescale_acts_by_decoder_norm` matters."""
    generator = torch.Generator().manual_seed(2)
    weights = random_weights(generator)
    topk = TopKSAE(
        TopKSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K, rescale_acts_by_decoder_norm=True, apply_b_dec_to_input=True)
    )
    plain = TopKSAE(
        TopKSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K, rescale_acts_by_decoder_norm=False, apply_b_dec_to_input=True)
    )
    unbiased = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=False))
    jump = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=True))
    for sae in (topk, plain, jump, unbiased):
        for name, tensor in weights._asdict().items():
            getattr(sae, name).data.copy_(tensor)
    for sae in (jump, unbiased):
        sae.threshold.data.copy_(torch.rand(D_SAE, generator=generator))
    return {"topk": topk, "topk_plain": plain, "jumprelu": jump, "jumprelu_unbiased": unbiased}


def random_weights(generator: torch.Generator) -> Weights:
    W_dec = torch.randn(D_SAE, D_IN, generator=generator) * (0.5 + torch.rand(D_SAE, 1, generator=generator))
    b_enc, b_dec = (torch.randn(n, generator=generator) * 0.1 for n in (D_SAE, D_IN))
    return Weights(torch.randn(D_IN, D_SAE, generator=generator), b_enc, W_dec, b_dec)


def scatter(acts, d_sae: int) -> torch.Tensor:
    return torch.zeros(len(acts.values), d_sae).scatter_add_(1, acts.indices.long(), acts.values)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


if __name__ == "__main__":
    main()
