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

from probe import ROWS  # noqa: E402
from sae_lens import SAE  # noqa: E402
from sae_lens.registry import get_sae_class  # noqa: E402

from saes.kinds.base import (  # noqa: E402
    JumpReLU,
    ReLU,
    SAEMetadata,
    TokenNormSAE,
    TopK,
    Weights,
)
from saes.kinds.jumprelu import JumpReLUSAE  # noqa: E402
from saes.kinds.l1 import GatedSAE, ReLUSAE  # noqa: E402
from saes.kinds.topk import TopKSAE  # noqa: E402
from saes.kinds.transcoder import Transcoder  # noqa: E402
from saes.weights.folder import load_sae, save_sae  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures"
D_IN, D_SAE, D_OUT, K = 8, 24, 6, 4
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
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
    centre = ours.b_dec if ours.subtracts_b_dec else 0
    x = torch.randn(ROWS, ours.d_in, generator=torch.Generator().manual_seed(7)) * 2 + centre
    with torch.no_grad():
        acts = theirs.encode(x)
        recons = theirs(x)
        signed = torch.cat([acts.relu(), (-acts).relu()], 1) if ours.d_sae == 2 * acts.shape[1] else acts
        errors = {
            "encode": relative(ours.encode(x), signed),
            "encode_sparse": relative(scatter(ours.encode_sparse(x), ours.d_sae), signed),
            "forward": relative(ours(x), recons),
        }
    active = float((signed > 0).sum(1).float().mean())
    print(
        f"{folder.name}: {type(theirs).__name__}, {active:.1f} active, "
        + ", ".join(f"{k} {v:.1e}" for k, v in errors.items())
    )
    assert active > 0.5, "the probe activates nothing, so the comparison says nothing"
    assert max(errors.values()) < 1e-5, errors
    return x, signed.contiguous(), recons.contiguous()


def our_saes() -> dict:
    """One of every kind that SAELens has a name for."""
    generator = torch.Generator().manual_seed(1)
    weights, threshold = random_weights(generator), torch.rand(D_SAE, generator=generator) * 2
    r_mag, b_mag = (torch.randn(D_SAE, generator=generator) * 0.3 for _ in range(2))
    narrow, W_skip = random_weights(generator, D_OUT), torch.randn(D_OUT, D_IN, generator=generator)
    jump, rest = JumpReLU(threshold), {"metadata": METADATA}
    return {
        "topk": TopKSAE(weights, k=K, **rest),
        "jumprelu": JumpReLUSAE(weights, threshold=threshold, **rest),
        "relu": ReLUSAE(weights, **rest),
        "gated": GatedSAE(weights, r_mag=r_mag, b_mag=b_mag, **rest),
        "transcoder": Transcoder(narrow, **rest),
        "skip_transcoder": Transcoder(narrow, W_skip=W_skip, **rest),
        "jumprelu_transcoder": Transcoder(narrow, activation=jump, **rest),
        "jumprelu_skip_transcoder": Transcoder(narrow, activation=jump, W_skip=W_skip, **rest),
        "layer_norm_topk": TokenNormSAE(weights, activation=TopK(K), norm="layer_norm", **rest),
        "layer_norm_relu": TokenNormSAE(weights, activation=ReLU(), norm="layer_norm", **rest),
        "rescaled_jumprelu": TokenNormSAE(weights, activation=jump, norm="constant_norm_rescale", **rest),
    }


def their_saes() -> dict:
    """One of every architecture; decoder rows of unequal length, so that rescaling by them matters."""
    centred, k = {"apply_b_dec_to_input": True}, {"k": K, "rescale_acts_by_decoder_norm": False}
    plans = {
        "topk": ("topk", {**centred, **k, "rescale_acts_by_decoder_norm": True}),
        "topk_plain": ("topk", {**centred, **k}),
        "jumprelu": ("jumprelu", centred),
        "jumprelu_unbiased": ("jumprelu", {"apply_b_dec_to_input": False}),
        "standard": ("standard", centred),
        "gated": ("gated", centred),
        "gated_unbiased": ("gated", {"apply_b_dec_to_input": False}),
        "abstopk": ("abstopk", {**centred, **k}),
        "layer_norm": ("standard", {**centred, "normalize_activations": "layer_norm"}),
        **{name: (name, {"apply_b_dec_to_input": False, "d_out": D_OUT}) for name in TRANSCODERS},
    }
    return {name: random_sae(*plan, seed) for seed, (name, plan) in enumerate(plans.items(), 2)}


def random_sae(architecture: str, settings: dict, seed: int):
    sae_class, config_class = get_sae_class(architecture)
    sae, generator = sae_class(config_class(d_in=D_IN, d_sae=D_SAE, **settings)), torch.Generator().manual_seed(seed)
    weights = random_weights(generator, settings.get("d_out", D_IN))._asdict()
    for name, parameter in sae.named_parameters():
        value = weights.get(name)
        if value is None:
            value = torch.rand(parameter.shape, generator=generator) * 0.7
        parameter.data.copy_(value)
    return sae


def random_weights(generator: torch.Generator, d_out: int = D_IN) -> Weights:
    W_dec = torch.randn(D_SAE, d_out, generator=generator) * (0.5 + torch.rand(D_SAE, 1, generator=generator))
    b_enc, b_dec = (torch.randn(n, generator=generator) * 0.1 for n in (D_SAE, d_out))
    return Weights(torch.randn(D_IN, D_SAE, generator=generator), b_enc, W_dec, b_dec)


def scatter(acts, d_sae: int) -> torch.Tensor:
    return torch.zeros(len(acts.values), d_sae).scatter_add_(1, acts.indices.long(), acts.values)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


if __name__ == "__main__":
    main()
