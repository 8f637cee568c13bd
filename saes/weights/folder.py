"""Save and load an SAE in SAELens' inference format: `sae_lens.SAE.load_from_disk(folder)` reads it unchanged.

`saelens.py` documents the two files. An imported folder also holds `selfcheck.safetensors`: inputs, and their
reconstructions by the source format's own arithmetic; loading repeats the comparison. Folders written by SAELens load
too, as long as we know their settings; others are refused rather than misread.
"""

from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from torch import Tensor

from interp.artifacts import atomic_file, read_json, write_json
from interp.errors import MismatchError, MissingError
from interp.packages import code_version
from saes.kinds.base import SAE, SAEMetadata
from saes.weights import _saelens
from saes.weights._saelens import CONFIG, WEIGHTS
from saes.weights.layout import check_finite, read_row, section
from saes.weights.read import recheck

ROWS_AS_USED = frozenset(_saelens.LAYOUTS) - {"abstopk"}
"""Architectures whose row `i` of `W_dec` is the direction of latent `i`."""


def save_sae(sae: SAE, folder: Path, *, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
    """Write `cfg.json` and `sae_weights.safetensors` into a folder, each atomically, as SAELens reads them.

    Args:
        sae: its weights must be finite.
        folder: where the files go.
        dtype: `bfloat16` halves the matrices for shipping, and rounds them (8 bits); vectors (biases, thresholds) stay
            float32. It is read back as float32.
    Raises:
        NonFiniteError: NaN or infinity in the weights.

    >>> save_sae(sae, folder / "written")
    >>> load_sae(folder / "written").d_sae
    64
    """
    plain = {name: t.detach().cpu().float().contiguous() for name, t in sae.saved_tensors().items()}
    if dtype == "bfloat16":
        plain = {name: t.bfloat16() if t.ndim == 2 else t for name, t in plain.items()}
    for name, tensor in plain.items():
        check_finite(name, tensor, folder)
    with atomic_file(folder / WEIGHTS) as temporary:
        save_file(plain, temporary)
    write_json(folder / CONFIG, sae_config(sae))


def load_sae(folder: Path) -> SAE:
    """Load the SAE of a folder that this workbench or SAELens wrote; `load_dictionary` reads other formats too.

    Args:
        folder: has `cfg.json` and `sae_weights.safetensors`.
    Returns: an SAE, which encodes `[..., d_in]` into activations `[..., d_sae]`.
    Raises:
        MissingError: no such folder.
        CorruptError: keys missing, weights that do not fit the config, or that no longer give the reconstructions
            stored with them.
        UnknownNameError: an architecture we do not read.
        MismatchError: a setting we do not apply.
        NonFiniteError: NaN in the weights.

    >>> loaded = load_sae(folder / "sae")
    >>> loaded.encode(torch.zeros(3, loaded.d_in)).shape
    torch.Size([3, 64])
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise MissingError(f"no SAE at {folder} ({CONFIG} is missing); `workbench train` writes one")
    sae = _saelens.read(folder).sae
    recheck(sae, folder)
    return sae


def load_direction(folder: Path, latent: int) -> tuple[SAEMetadata, Tensor]:
    """Return the metadata of an SAE's folder, and the decoder direction of one latent, `[d_out]` float32.

    The direction is that of `load_sae`, but only its row of the file is read, where rows are stored as used. Raises as
    `load_sae`, and `CorruptError` for a latent beyond the file.
    """
    if not (folder / CONFIG).exists():
        raise MissingError(f"no SAE at {folder} ({CONFIG} is missing); `workbench train` writes one")
    config = read_json(folder / CONFIG)
    if str(config.get("architecture")) in ROWS_AS_USED and not config.get("rescale_acts_by_decoder_norm"):
        row = read_row(folder / WEIGHTS, "W_dec", latent)
        check_finite("W_dec", row, folder)
        return _saelens.metadata(section(config, "metadata", folder / CONFIG), folder / CONFIG), row.float()
    sae = load_sae(folder)
    return sae.metadata, sae.decoder_directions[latent].detach().float()


def check_model(sae: SAE, weight_hash: str, *, allow_other_weights: bool = False) -> None:
    """Raise `MismatchError` when the SAE was trained on other weights than these, unless `allow_other_weights`.

    An SAE without a recorded hash (written by another tool) needs that permission too, since nothing can be checked.
    """
    check_weights(sae.metadata, weight_hash, "SAE", allow_other_weights=allow_other_weights)


def check_weights(metadata: SAEMetadata, weight_hash: str, what: str, *, allow_other_weights: bool = False) -> None:
    """Raise `MismatchError` when `what` was trained on other weights than these; see `check_model`."""
    if allow_other_weights or metadata.weight_hash == weight_hash:
        return
    trained = metadata.weight_hash[:12] or "weights that were not recorded"
    raise MismatchError(
        f"the {what} was trained on {metadata.model or 'a model'} with {trained}, this model has {weight_hash[:12]}; "
        "load the model it was trained on, or allow other weights on purpose"
    )


def sae_config(sae: SAE) -> dict[str, object]:
    """Return the content of `cfg.json`: SAELens' keys, and ours under `metadata`."""
    metadata = sae.metadata
    target = {"hook_name_out": metadata.hook_point_out} if metadata.hook_point_out else {}
    return {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtracts_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if metadata.hook_point.endswith("hook_z") else "none",
        **sae.extra_config(),
        "metadata": {
            "model_name": metadata.model,
            "hook_name": metadata.hook_point,
            **target,
            "hook_head_index": None,
            "context_size": metadata.context_size,
            "prepend_bos": metadata.bos not in ("", "none"),
            "seqpos_slice": [None],
            "model_from_pretrained_kwargs": {},
            "weight_hash": metadata.weight_hash,
            "bos": metadata.bos,
            "written_by": f"interp-workbench {code_version()}",
        },
    }
