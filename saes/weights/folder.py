"""Saving and loading an SAE in SAELens' inference format: `sae_lens.SAE.load_from_disk(folder)` reads it as it stands.

    cfg.json                 sizes, architecture (`topk` with `k`, or `jumprelu`), metadata
    sae_weights.safetensors  W_enc [d_in, d_sae], b_enc [d_sae], W_dec [d_sae, d_in], b_dec [d_in];
                             for jumprelu also threshold [d_sae]

Folders that SAELens wrote load as well, where the settings are ones we know; others are refused rather than misread.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.artifacts import atomic_file, code_version, read_json, write_json
from interp.errors import CorruptError, MismatchError, MissingError, NonFiniteError, UnknownNameError
from interp.recording.store import load_tensors
from saes.kinds.activations import JumpReLU, TopK
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.crosscoder import CrosscoderSAE
from saes.kinds.gated import GatedSAE
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.relu import ReLUSAE
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
SHAPES = {"W_enc": ("d_in", "d_sae"), "b_enc": ("d_sae",), "W_dec": ("d_sae", "d_out"), "b_dec": ("d_out",)}
_THRESHOLD, _SKIP = {"threshold": ("d_sae",)}, {"W_skip": ("d_out", "d_in")}
EXTRA_SHAPES = {
    "topk": {},
    "standard": {},
    "jumprelu": _THRESHOLD,
    "gated": {"b_gate": ("d_sae",), "r_mag": ("d_sae",), "b_mag": ("d_sae",)},
    "topk_transcoder": {},
    "topk_skip_transcoder": _SKIP,
    "jumprelu_transcoder": _THRESHOLD,
    "jumprelu_skip_transcoder": {**_THRESHOLD, **_SKIP},
    "crosscoder": {**_THRESHOLD, "scales": ("n_places",)},
}

# Settings of other tools that change what the numbers mean. We know one value of each.
FIXED = {
    "normalize_activations": ("none", None),
    "reshape_activations": ("none", None),
}


def save_sae(sae: SAE, folder: Path) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` into `folder`, each atomically. Weights must be finite."""
    tensors = sae.saved_tensors()
    plain = {name: t.detach().cpu().float().contiguous() for name, t in tensors.items()}
    _check_finite(plain, folder)
    with atomic_file(folder / WEIGHTS) as temporary:
        save_file(plain, temporary)
    write_json(folder / CONFIG, sae_config(sae))


def load_sae(folder: Path) -> SAE:
    """The SAE of a folder.

    Raises `MissingError` (no such folder), `CorruptError` (keys missing, or weights that do not fit the config),
    `UnknownNameError` (an architecture we do not read), `MismatchError` (a setting we do not apply), `NonFiniteError`.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise MissingError(f"no SAE at {folder} ({CONFIG} was expected); `workbench train` writes one")
    config = read_json(folder / CONFIG)
    _check_config(config, folder / CONFIG)
    tensors = load_tensors(folder / WEIGHTS)
    _check_shapes(tensors, config, folder / WEIGHTS)
    _check_finite(tensors, folder / WEIGHTS)
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    if config["architecture"] == "gated":
        tensors["b_enc"] = tensors["b_gate"]
    weights = Weights(*(tensors[name] for name in SHAPES))
    transcodes = config["architecture"].endswith("transcoder")
    if (
        config.get("apply_b_dec_to_input") is False and not transcodes
    ):  # x @ W_enc = (x - b_dec) @ W_enc + b_dec @ W_enc
        weights = weights._replace(b_enc=weights.b_enc + weights.b_dec @ weights.W_enc)
    return _MAKERS[config["architecture"]](weights, tensors, config, _metadata(config))


def check_model(sae: SAE, weight_hash: str, *, allow_other_weights: bool = False) -> None:
    """Raise `MismatchError` when the SAE was trained on other weights than these, unless told to allow it.

    An SAE without a recorded hash (a folder from elsewhere) needs the permission too: nothing can be checked.
    """
    if allow_other_weights or sae.metadata.weight_hash == weight_hash:
        return
    trained = sae.metadata.weight_hash[:12] or "weights that were not recorded"
    raise MismatchError(
        f"the SAE was trained on {sae.metadata.model or 'a model'} with {trained}, this model has {weight_hash[:12]}; "
        "load the model it was trained on, or allow other weights on purpose"
    )


def sae_config(sae: SAE) -> dict[str, Any]:
    """`cfg.json`: SAELens' keys, with what only we know under `metadata`."""
    about = sae.metadata
    return {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtracts_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **sae.extra_config(),
        "metadata": {
            "model_name": about.model,
            "hook_name": about.hook_point,
            **({"hook_name_out": about.hook_point_out} if about.hook_point_out else {}),
            "hook_head_index": None,
            "context_size": about.context_size,
            "prepend_bos": about.bos not in ("", "none"),
            "seqpos_slice": [None],
            "model_from_pretrained_kwargs": {},
            "weight_hash": about.weight_hash,
            "bos": about.bos,
            "written_by": f"interp-workbench {code_version()}",
        },
    }


def _topk(weights: Weights, tensors: dict[str, Tensor], config: dict, metadata: SAEMetadata) -> SAE:
    if config.get(
        "rescale_acts_by_decoder_norm"
    ):  # activations are compared as `pre * norm` and decoded along unit rows
        norm = weights.W_dec.norm(dim=1)
        W_enc, b_enc, W_dec, b_dec = weights
        weights = Weights(W_enc * norm, b_enc * norm, W_dec / norm[:, None], b_dec)
    return TopKSAE(weights, k=config["k"], metadata=metadata)


def _jumprelu(weights: Weights, tensors: dict[str, Tensor], config: dict, metadata: SAEMetadata) -> SAE:
    return JumpReLUSAE(weights, threshold=tensors["threshold"], metadata=metadata)


def _standard(weights: Weights, tensors: dict[str, Tensor], config: dict, metadata: SAEMetadata) -> SAE:
    return ReLUSAE(weights, metadata=metadata)


def _gated(weights: Weights, tensors: dict[str, Tensor], config: dict, metadata: SAEMetadata) -> SAE:
    return GatedSAE(weights, r_mag=tensors["r_mag"], b_mag=tensors["b_mag"], metadata=metadata)


def _transcoder(weights: Weights, tensors: dict[str, Tensor], config: dict, metadata: SAEMetadata) -> SAE:
    topk = config["architecture"].startswith("topk")
    activation = TopK(config["k"]) if topk else JumpReLU(tensors["threshold"])
    return Transcoder(weights, activation=activation, W_skip=tensors.get("W_skip"), metadata=metadata)


def _crosscoder(weights: Weights, tensors: dict[str, Tensor], config: dict, metadata: SAEMetadata) -> SAE:
    own = {"threshold": tensors["threshold"], "scales": tensors["scales"], "places": config["places"]}
    return CrosscoderSAE(weights, **own, metadata=metadata)


_MAKERS: dict[str, Callable[[Weights, dict[str, Tensor], dict, SAEMetadata], SAE]] = {
    "topk": _topk,
    "jumprelu": _jumprelu,
    "standard": _standard,
    "gated": _gated,
    "topk_transcoder": _transcoder,
    "topk_skip_transcoder": _transcoder,
    "jumprelu_transcoder": _transcoder,
    "jumprelu_skip_transcoder": _transcoder,
    "crosscoder": _crosscoder,
}


def _metadata(config: dict) -> SAEMetadata:
    about = config["metadata"]
    return SAEMetadata(
        model=about.get("model_name") or "",
        weight_hash=about.get("weight_hash") or "",
        hook_point=about.get("hook_name") or "",
        hook_point_out=about.get("hook_name_out") or "",
        context_size=about.get("context_size"),
        bos=about.get("bos") or "",
    )


def _check_config(config: dict, path: Path) -> None:
    missing = [key for key in ("architecture", "d_in", "d_sae", "metadata") if key not in config]
    if missing:
        raise CorruptError(
            f"{path} lacks {', '.join(missing)}; it was edited, or is not in SAELens' format of version 6"
        )
    architecture = config["architecture"]
    if architecture not in _MAKERS:
        raise UnknownNameError("SAE architecture", str(architecture), _MAKERS, f"({path})")
    for key in ("d_in", "d_sae", *(("k",) if architecture.startswith("topk") else ())):
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise CorruptError(f"{path}: {key} must be a whole number above 0, found {config.get(key)!r}")
    if not isinstance(config["metadata"], dict):
        raise CorruptError(f"{path}: metadata must be an object, found {type(config['metadata']).__name__}")
    for key, known in FIXED.items():
        if key in config and config[key] not in known:
            raise MismatchError(
                f"{path}: {key} = {config[key]!r} is not supported, only {known[0]!r}; fold it into the weights"
            )


def _check_shapes(tensors: dict[str, Tensor], config: dict, path: Path) -> None:
    expected = {**SHAPES, **EXTRA_SHAPES[config["architecture"]]}
    if "b_gate" in expected:
        del expected["b_enc"]
    sizes = {"d_out": config["d_in"], "n_places": len(config.get("places", [])), **config}
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(unknown)} as well"
        raise CorruptError(f"{path} {problem}; a {config['architecture']} SAE has {', '.join(expected)}")
    for name, axes in expected.items():
        shape = tuple(sizes[axis] for axis in axes)
        if tuple(tensors[name].shape) != shape:
            raise CorruptError(
                f"{path}: {name} should be {list(shape)} ({' x '.join(axes)}, from {CONFIG}), "
                f"found {list(tensors[name].shape)}"
            )


def _check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            n = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(
                f"{path}: {name} must be finite, {n:,} of its {tensor.numel():,} numbers are not; train it again"
            )
