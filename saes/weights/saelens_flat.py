"""SAELens before version 6: the same two files, with a flat `cfg.json` that holds training settings as well.

| key then | meaning |
|---|---|
| hook_point, hook_name | the hook point |
| activation_fn_str, activation_fn | `relu`; `topk` with `activation_fn_kwargs.k` is the architecture topk |
| architecture | missing: standard |
| apply_b_dec_to_input | missing: true |
| normalize_activations | false and missing: none; true: `expected_average_only_in` (refused: no scale in the folder) |
| reshape_activations | missing: hook_z where the hook point is one |

The weights may hold `scaling_factor [d_sae]`, with which activations were multiplied before decoding where
`finetuning_scaling_factor` is true: it goes into the decoder rows. All ones are ignored, as SAELens does.
"""

from pathlib import Path
from typing import Any

import torch

from interp.artifacts import read_json
from interp.errors import CorruptError, MismatchError
from saes.weights import saelens
from saes.weights.layout import Conversion, Format, check_size, flag, read_safetensors, require, text
from saes.weights.saelens import CONFIG, WEIGHTS

ACTIVATIONS = ("relu", "topk")
SCALE = "scaling_factor"


def read(path: Path) -> Conversion:
    """Read the dictionary of a folder."""
    config, tensors = read_json(path / CONFIG), read_safetensors(path / WEIGHTS)
    require(path / CONFIG, config, "d_in", "d_sae")
    new = modern(config, path / CONFIG)
    if SCALE not in tensors:
        return saelens.convert(new, tensors, path / CONFIG, path / WEIGHTS)
    scale = tensors.pop(SCALE)
    if scale.shape != (check_size(new["d_sae"], "d_sae", path / CONFIG),) or not torch.isfinite(scale).all():
        raise CorruptError(f"{path / WEIGHTS}: {SCALE} should be {new['d_sae']} finite numbers")
    if bool((scale == 1).all()):
        return saelens.convert(new, tensors, path / CONFIG, path / WEIGHTS)
    if not flag(config, "finetuning_scaling_factor", path / CONFIG):
        raise MismatchError(f"{path}: {SCALE} is not 1, but finetuning_scaling_factor is not set; was it to be used?")
    if "W_dec" in tensors and tensors["W_dec"].ndim == 2 and len(tensors["W_dec"]) == len(scale):
        tensors["W_dec"] = tensors["W_dec"].float() * scale.float()[:, None]
    return saelens.convert(new, tensors, path / CONFIG, path / WEIGHTS)


def modern(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Translate the settings to the keys of version 6."""
    hook_point = text(config, "hook_name", path) or text(config, "hook_point", path)
    activation = text(config, "activation_fn_str", path) or text(config, "activation_fn", path) or "relu"
    if activation not in ACTIVATIONS:
        raise MismatchError(f"{path}: activation {activation!r} is not supported, only {', '.join(ACTIVATIONS)}")
    arguments = config.get("activation_fn_kwargs")
    norm = config.get("normalize_activations")
    new = {
        "architecture": text(config, "architecture", path) or "standard",
        "d_in": config["d_in"],
        "d_sae": config["d_sae"],
        "apply_b_dec_to_input": flag(config, "apply_b_dec_to_input", path, default=True),
        "normalize_activations": {None: "none", False: "none", True: "expected_average_only_in"}.get(norm, norm)
        if norm is None or isinstance(norm, bool | str)
        else norm,
        "reshape_activations": config.get("reshape_activations") or ("hook_z" if "hook_z" in hook_point else "none"),
        "metadata": {
            "model_name": config.get("model_name"),
            "hook_name": hook_point,
            "context_size": config.get("context_size"),
        },
    }
    if activation == "topk":
        new["architecture"] = "topk"
        new["k"] = arguments.get("k") if isinstance(arguments, dict) else config.get("k")
    return new


def recognises(path: Path) -> bool:
    """Return whether `cfg.json` has no `metadata`, but a hook point and sizes."""
    if not (path / CONFIG).is_file() or not (path / WEIGHTS).is_file():
        return False
    try:
        config = read_json(path / CONFIG)
    except CorruptError:
        return False
    return "metadata" not in config and "d_sae" in config and bool({"hook_point", "hook_name"} & config.keys())


FORMAT = Format(name="saelens_flat", files=f"flat {CONFIG}, {WEIGHTS}", recognises=recognises, read=read)
