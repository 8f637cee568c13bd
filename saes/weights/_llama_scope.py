"""Llama Scope and OpenMOSS' later releases (Llamascopium): `config.json` and `sae_weights.safetensors`.

    W_E [d_model, d_sae]  b_E [d_sae]  W_D [d_sae, d_model]  b_D [d_model]
    activation_function.log_jumprelu_threshold [d_sae]       for act_fn jumprelu
    dataset_average_activation_norm.<hook point>             one number for input and target

    z = x * s_in                          s = sqrt(d_model) / average norm (norm_activation dataset-wise); 1 (inference)
    g = act((z @ W_E + b_E) * n) / n      n = |W_D| per row where sparsity_include_decoder_norm, else 1
    recons = (g @ W_D + b_D) / s_out

act: relu, topk (`top_k`), jumprelu. Nothing is subtracted from the input. Decoder rows are normalised to 1 and the
scale is folded in, so that activations are `g * n / s_in`, in the units of the model. Two different hook points make
it a transcoder. `norm_activation` token-wise and batch-wise, and `use_glu_encoder`, are not maps of this form and are
refused; so are batchtopk weights, which have no threshold yet (the peer converts them to jumprelu for release). The
older release (`hyperparams.json`, `checkpoints/final.safetensors`) is read by the same arithmetic: see `older`.

Qwen Scope: `layerN.sae.pt` with `W_enc [d_sae, d_in]`, `W_dec [d_in, d_sae]`, `b_enc`, `b_dec`.

TopK of `x @ W_enc.T + b_enc`; `b_dec` is not subtracted. The file does not hold `k`: it is read from the path, where
the release writes it (`SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer3.sae.pt` has k 50).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from interp.artifacts import read_json
from interp.errors import ConfigError, CorruptError, MismatchError
from saes.kinds.base import SAE, Activation, JumpReLU, ReLU, SAEMetadata, TopK, Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder
from saes.weights._saelens import plain_sae, subtract_b_dec
from saes.weights.layout import (
    Arrays,
    Axes,
    Conversion,
    Format,
    as_relu_topk,
    check_arrays,
    check_finite,
    check_k,
    check_size,
    flag,
    one_file,
    read_pt,
    read_safetensors,
    require,
    section,
    text,
)

CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"
OLD_CONFIG, OLD_WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
LAYOUT: dict[str, Axes] = {
    "W_E": ("d_model", "d_sae"),
    "b_E": ("d_sae",),
    "W_D": ("d_sae", "d_model"),
    "b_D": ("d_model",),
}
LINEAR: dict[str, Axes] = {
    "encoder.weight": ("d_sae", "d_model"),
    "encoder.bias": ("d_sae",),
    "decoder.weight": ("d_model", "d_sae"),
    "decoder.bias": ("d_model",),
}
LOG_THRESHOLD = "activation_function.log_jumprelu_threshold"
NORM = "dataset_average_activation_norm."
LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the arithmetic above, besides the arrays."""

    act: str
    k: int
    s_in: float
    s_out: float
    by_row_norm: bool


def read(path: Path) -> Conversion:
    """Read the dictionary of a folder."""
    if (path / OLD_CONFIG).is_file():
        return older(path)
    config, file = read_json(path / CONFIG), path / WEIGHTS
    require(path / CONFIG, config, "d_model", "expansion_factor")
    tensors = read_safetensors(file)
    norms: dict[str, Axes] = {name: () for name in tensors if name.startswith(NORM)}
    act = text(config, "act_fn", path / CONFIG) or "relu"
    _check(config, act, path / CONFIG)
    d_model = check_size(config["d_model"], "d_model", path / CONFIG)
    sizes = {"d_model": d_model, "d_sae": _d_sae(config, d_model, path / CONFIG)}
    threshold: dict[str, Axes] = {LOG_THRESHOLD: ("d_sae",)} if act == "jumprelu" else {}
    layout = {**LAYOUT, **threshold}
    w = check_arrays(tensors, layout, file, optional=norms, sizes=sizes, what=f"a Llama Scope {act} dictionary")
    source, target = (text(config, f"hook_point_{side}", path / CONFIG) for side in ("in", "out"))
    s_in, s_out = (_scale(config, w, hook_point or source, d_model, path / CONFIG) for hook_point in (source, target))
    settings = Settings(
        act=act,
        k=check_k(config.get("top_k"), sizes["d_sae"], path / CONFIG) if act == "topk" else 0,
        s_in=s_in,
        s_out=s_out,
        by_row_norm=flag(config, "sparsity_include_decoder_norm", path / CONFIG, default=True),
    )
    metadata = SAEMetadata(
        model=text(config, "model_name", path / CONFIG),
        hook_point=source,
        hook_point_out=target if target != source else "",
    )
    return _convert(w, w[LOG_THRESHOLD].exp() if threshold else None, settings, metadata)


def older(path: Path) -> Conversion:
    """Read the first release: `nn.Linear` arrays, one `jump_relu_threshold` for all latents, in the model's units.

    The threshold is multiplied by the input scale and compared in training units, as SAELens reads it.
    """
    config, config_path, file = read_json(path / OLD_CONFIG), path / OLD_CONFIG, path / OLD_WEIGHTS
    require(config_path, config, "d_model", "d_sae", "jump_relu_threshold", "dataset_average_activation_norm")
    norms = section(config, "dataset_average_activation_norm", config_path)
    d_model, d_sae = (check_size(config[key], key, config_path) for key in ("d_model", "d_sae"))
    sizes = {"d_model": d_model, "d_sae": d_sae}
    s_in, s_out = (sqrt(d_model) / _positive(norms.get(side), side, config_path) for side in ("in", "out"))
    w = _transposed(check_arrays(read_safetensors(file), LINEAR, file, sizes=sizes, what="a Llama Scope dictionary"))
    height = _positive(config["jump_relu_threshold"], "jump_relu_threshold", config_path) * s_in
    threshold = torch.tensor(height, dtype=torch.float64)
    check_finite("jump_relu_threshold", threshold, config_path)
    threshold = threshold.float().expand(d_sae).clone()
    source, target = (text(config, f"hook_point_{side}", config_path) for side in ("in", "out"))
    metadata = SAEMetadata(hook_point=source, hook_point_out=target if target != source else "")
    settings = Settings(act="jumprelu", k=0, s_in=s_in, s_out=s_out, by_row_norm=False)
    return _convert(w, threshold, settings, metadata)


def _transposed(linear: Arrays) -> Arrays:
    """Return `nn.Linear` arrays by the names of the later releases."""
    t = linear.tensors
    W_E, W_D = (t[f"{side}.weight"].T.contiguous() for side in ("encoder", "decoder"))
    return Arrays({"W_E": W_E, "b_E": t["encoder.bias"], "W_D": W_D, "b_D": t["decoder.bias"]}, linear.sizes)


def _check(config: Mapping[str, object], act: str, path: Path) -> None:
    if act not in ("relu", "topk", "jumprelu"):
        raise MismatchError(
            f"{path}: act_fn {act!r} is not supported, only relu, topk and jumprelu; convert it to jumprelu"
        )
    if flag(config, "use_glu_encoder", path):
        raise MismatchError(f"{path}: use_glu_encoder is not supported; its encoder is not an affine map")
    if (kind := config.get("sae_type", "sae")) != "sae":
        raise MismatchError(f"{path}: sae_type {kind!r} is not supported, only 'sae'")


def _d_sae(config: Mapping[str, object], d_model: int, path: Path) -> int:
    factor = _positive(config["expansion_factor"], "expansion_factor", path)
    return check_size(round(d_model * factor), "d_model * expansion_factor", path)


def _scale(config: Mapping[str, object], w: Arrays, hook_point: str, d_model: int, path: Path) -> float:
    kind = config.get("norm_activation", "dataset-wise")
    if kind == "inference":
        return 1.0
    if kind != "dataset-wise":
        raise MismatchError(f"{path}: norm_activation {kind!r} is not supported, only dataset-wise and inference")
    if NORM + hook_point not in w:
        raise CorruptError(f"{path.parent / WEIGHTS} lacks {NORM}{hook_point}; the scale is not known")
    return sqrt(d_model) / _positive(float(w[NORM + hook_point]), NORM + hook_point, path)


def _positive(value: object, name: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LARGEST:
        raise CorruptError(f"{path}: {name} must be a number above 0, found {value!r:.80}")
    return float(value)


def _convert(w: Arrays, threshold: Tensor | None, settings: Settings, metadata: SAEMetadata) -> Conversion:
    weights = {name: tensor for name, tensor in w.double.items() if name in LAYOUT}
    norm = weights["W_D"].norm(dim=1)
    length = norm if settings.by_row_norm else torch.ones_like(norm)
    unit = Weights(
        (weights["W_E"] * length).float(),
        (weights["b_E"] * length / settings.s_in).float(),
        (weights["W_D"] / length.clamp_min(1e-300)[:, None] * (settings.s_in / settings.s_out)).float(),
        (weights["b_D"] / settings.s_out).float(),
    )
    activation: Activation = TopK(settings.k) if settings.act == "topk" else ReLU()
    if threshold is not None:
        activation = JumpReLU((threshold.double() / settings.s_in).float())
    sae: SAE
    if metadata.hook_point_out:
        sae = Transcoder(unit, activation=activation, metadata=metadata)
    else:
        sae = plain_sae(subtract_b_dec(unit), activation, metadata)
    return Conversion(sae=sae, forward=w.forward(_forward, threshold, settings))


def _forward(x: Tensor, w: dict[str, Tensor], threshold: Tensor | None, settings: Settings) -> tuple[Tensor, Tensor]:
    """Compute the source's forward pass, followed by the change of units stated above."""
    norm = w["W_D"].square().sum(1).sqrt() if settings.by_row_norm else torch.ones((), dtype=x.dtype)
    scored = ((x * settings.s_in) @ w["W_E"] + w["b_E"]) * norm
    if threshold is not None:
        kept = scored * (scored > threshold.double())
    else:
        kept = as_relu_topk(scored, settings.k) if settings.act == "topk" else scored.clamp_min(0)
    recons = ((kept / norm.clamp_min(1e-300)) @ w["W_D"] + w["b_D"]) / settings.s_out
    return kept / settings.s_in, recons


def recognises(path: Path) -> bool:
    """Return whether either release's pair of files exists."""
    return ((path / CONFIG).is_file() and (path / WEIGHTS).is_file()) or (path / OLD_CONFIG).is_file()


FORMAT = Format(name="llama_scope", files=f"{CONFIG}, {WEIGHTS}", recognises=recognises, read=read)

LAYOUT_QWEN: dict[str, Axes] = {
    "W_enc": ("d_sae", "d_in"),
    "W_dec": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "b_dec": ("d_in",),
}
FILES_QWEN = "*.sae.pt"
_RELEASE = re.compile(r"SAE-Res-(.+?)-W\d+K-L0_\d+")


def read_qwen(path: Path) -> Conversion:
    """Read the dictionary of a file."""
    file = one_file(path, FILES_QWEN)
    named = re.search(r"L0_(\d+)", file.as_posix())
    if not named:
        raise ConfigError(f"{file} does not hold k; put it below a folder named after it, as in .../W32K-L0_50/")
    w = check_arrays(read_pt(file), LAYOUT_QWEN, file, what="a Qwen Scope SAE")
    k = check_k(int(named[1]), w.sizes["d_sae"], file)
    weights = Weights(w["W_enc"].T.contiguous(), w["b_enc"], w["W_dec"].T.contiguous(), w["b_dec"])
    sae = TopKSAE(subtract_b_dec(weights), k=k, metadata=metadata_of_qwen(file))
    return Conversion(sae=sae, forward=w.forward(_forward_qwen, k))


def metadata_of_qwen(file: Path) -> SAEMetadata:
    """Return the metadata that the names of the release imply."""
    layer, release = re.search(r"layer(\d+)\.sae\.pt$", file.name), _RELEASE.search(file.as_posix())
    return SAEMetadata(
        model=f"Qwen/{release[1]}" if release else "",
        hook_point=f"blocks.{layer[1]}.hook_resid_post" if layer else "",
    )


def _forward_qwen(x: Tensor, w: dict[str, Tensor], k: int) -> tuple[Tensor, Tensor]:
    acts = as_relu_topk(x @ w["W_enc"].T + w["b_enc"], k)
    return acts, acts @ w["W_dec"].T + w["b_dec"]


def recognises_qwen(path: Path) -> bool:
    """Return whether the file's name fits."""
    return path.name.endswith(".sae.pt") or (path.is_dir() and any(path.glob(FILES_QWEN)))


FORMAT_QWEN = Format(name="qwen_scope", files="layerN.sae.pt", recognises=recognises_qwen, read=read_qwen)
