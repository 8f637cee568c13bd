"""SAELens 6: a folder with `cfg.json` and `sae_weights.safetensors`; ours are the same.

    cfg.json                 architecture, d_in, d_sae (d_out), k, apply_b_dec_to_input, normalize_activations, metadata
    sae_weights.safetensors  W_enc [d_in, d_sae], b_enc [d_sae], W_dec [d_sae, d_out], b_dec [d_out], and more:

| architecture | its own arrays | what it computes from `pre = (x - b_dec) @ W_enc + b_enc` |
|---|---|---|
| standard | | `relu(pre)` |
| topk | | the k largest, then relu; compared as `pre * norm(W_dec)` where `rescale_acts_by_decoder_norm` |
| abstopk | | the k largest by size, signed; read as TopK over both signs: latent `i + d_sae` is the negative of `i` |
| jumprelu | threshold | `relu(pre) * 1[pre > threshold]` |
| gated | b_gate, b_mag, r_mag, no b_enc | `1[p + b_gate > 0] * relu(p * exp(r_mag) + b_mag)` with `p = pre - b_enc` |
| transcoder, jumprelu_transcoder | (threshold) | from `x`: nothing is subtracted |
| skip_transcoder, jumprelu_skip_transcoder | W_skip [d_out, d_in] (threshold) | `+ x @ W_skip.T` |

`apply_b_dec_to_input = false` is folded into the bias: `x @ W = (x - b_dec) @ W + b_dec @ W`. `layer_norm` and
`constant_norm_rescale` are applied token by token. `expected_average_only_in` and `covariance_whitening` need numbers
that the folder does not hold, and are refused, as are `temporal`, which reads other tokens, and `matching_pursuit`,
which searches. Transcoders with TopK, which SAELens has no name for, are written as `topk_transcoder` and
`topk_skip_transcoder`, and crosscoders as `crosscoder`. `hook_z` has its heads concatenated, as in recordings.

**Before version 6** `cfg.json` is flat and holds training settings as well (format `saelens_flat`):

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

**Kinds of one's own** (`saes.kinds.own`), in our folder alone: `cfg.json` names the kind and its settings.

    cfg.json                 architecture (the kind), d_in, d_sae, d_out, settings, metadata
    sae_weights.safetensors  kind.NAME for each parameter and buffer of its class, in training units; and the scales
                             between these and raw activations: input_scale, shift_scale, output_scale, unit_scale

The class is that of the file which the environment names; none comes with the folder. `selfcheck.safetensors` has
reconstructions from the end of training. Loading repeats them, so that a class that computes something else is noticed.

**Crosscoders**, in our folder alone: `architecture` is `crosscoder`, a layout that no other tool has. Arrays as for
jumprelu, over the concatenated activations of all sites, and `scales [n_places]`; `cfg.json` lists the sites as
`places`, with their widths `d` (see `saes.kinds.crosscoder`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from interp.artifacts import read_json
from interp.errors import CorruptError, MismatchError, UnknownNameError
from saes.kinds.autograd import AutogradSAE, DictionarySizes
from saes.kinds.base import (
    SAE,
    TOKEN_NORMS,
    Activation,
    JumpReLU,
    ReLU,
    SAEMetadata,
    Scales,
    TokenNorm,
    TokenNormSAE,
    TopK,
    Weights,
)
from saes.kinds.crosscoder import CrosscoderSAE, CrosscoderSite
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.l1 import GatedSAE, ReLUSAE
from saes.kinds.own import own_kind
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder
from saes.weights.layout import (
    Arrays,
    Axes,
    Conversion,
    Format,
    Forward,
    as_relu_topk,
    check_arrays,
    check_k,
    check_size,
    flag,
    has_files,
    read_safetensors,
    require,
    section,
    text,
)

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"

ENCODER: dict[str, Axes] = {"W_enc": ("d_in", "d_sae"), "b_enc": ("d_sae",)}
DECODER: dict[str, Axes] = {"W_dec": ("d_sae", "d_out"), "b_dec": ("d_out",)}
GATE: dict[str, Axes] = {"W_enc": ("d_in", "d_sae"), "b_gate": ("d_sae",), "b_mag": ("d_sae",), "r_mag": ("d_sae",)}
THRESHOLD: dict[str, Axes] = {"threshold": ("d_sae",)}
SKIP: dict[str, Axes] = {"W_skip": ("d_out", "d_in")}
CROSSCODER = "crosscoder"

LAYOUTS: dict[str, dict[str, Axes]] = {
    "standard": {**ENCODER, **DECODER},
    "topk": {**ENCODER, **DECODER},
    "abstopk": {**ENCODER, **DECODER},
    "jumprelu": {**ENCODER, **DECODER, **THRESHOLD},
    "gated": {**GATE, **DECODER},
    "transcoder": {**ENCODER, **DECODER},
    "skip_transcoder": {**ENCODER, **DECODER, **SKIP},
    "jumprelu_transcoder": {**ENCODER, **DECODER, **THRESHOLD},
    "jumprelu_skip_transcoder": {**ENCODER, **DECODER, **THRESHOLD, **SKIP},
    "topk_transcoder": {**ENCODER, **DECODER},
    "topk_skip_transcoder": {**ENCODER, **DECODER, **SKIP},
    CROSSCODER: {**ENCODER, **DECODER, **THRESHOLD, "scales": ("n_places",)},
}

TRAINING = "a training checkpoint, whose scale is not folded yet; save it with SAELens' save_inference_model"
NOT_READ = {
    "batchtopk": TRAINING,
    "matryoshka_batchtopk": TRAINING,
    "temporal": "encoded from the tokens before, not from one vector",
    "matching_pursuit": "a search that selects one latent after another, which only SAELens runs",
}


def read(path: Path) -> Conversion:
    """Read the dictionary of a folder. Raises `CorruptError`, `UnknownNameError`, `MismatchError`, `NonFiniteError`."""
    return convert(read_json(path / CONFIG), read_safetensors(path / WEIGHTS), path / CONFIG, path / WEIGHTS)


def convert(config: Mapping[str, object], tensors: Mapping[str, Tensor], config_path: Path, path: Path) -> Conversion:
    """Convert a config and arrays that are already in memory."""
    require(config_path, config, "architecture", "d_in", "d_sae", "metadata")
    architecture = config["architecture"]
    if isinstance(architecture, str) and architecture in NOT_READ:
        raise MismatchError(f"{config_path}: architecture {architecture!r} is not supported: {NOT_READ[architecture]}")
    if isinstance(architecture, str) and OWN_SETTINGS in config:
        return _own(config, tensors, metadata(section(config, "metadata", config_path), config_path), path)
    if not isinstance(architecture, str) or architecture not in LAYOUTS:
        raise UnknownNameError("SAE architecture", str(architecture), LAYOUTS, f"({config_path})")
    sizes = {axis: check_size(config[axis], axis, config_path) for axis in ("d_in", "d_sae")}
    is_transcoder = architecture.endswith("transcoder")
    sizes["d_out"] = check_size(config.get("d_out"), "d_out", config_path) if is_transcoder else sizes["d_in"]
    if "topk" in architecture:
        check_k(config.get("k"), sizes["d_sae"], config_path)
    meta = metadata(section(config, "metadata", config_path), config_path)
    _check_settings(config, architecture, config_path)
    if architecture == CROSSCODER:
        sizes["n_places"] = len(_check_sites(config.get("places"), sizes["d_in"], config_path))
    arrays = check_arrays(tensors, LAYOUTS[architecture], path, sizes=sizes, what=f"a {architecture} SAE")
    return Conversion(sae=_build(config, arrays, meta, path), forward=_forward(config, arrays, path))


def metadata(entries: Mapping[str, object], path: Path) -> SAEMetadata:
    """Return the metadata from SAELens' keys and ours."""
    size = entries.get("context_size")
    return SAEMetadata(
        model=text(entries, "model_name", path),
        weight_hash=text(entries, "weight_hash", path),
        hook_point=text(entries, "hook_name", path),
        hook_point_out=text(entries, "hook_name_out", path),
        context_size=size if isinstance(size, int) else None,
        bos=text(entries, "bos", path),
    )


def _check_settings(config: Mapping[str, object], architecture: str, path: Path) -> None:
    transcoder = architecture.endswith("transcoder")
    known: dict[str, tuple[object, ...]] = {
        "normalize_activations": ("none", None)
        if transcoder or architecture in ("gated", CROSSCODER)
        else ("none", None, *TOKEN_NORMS),
        "reshape_activations": ("none", "hook_z", None),
        "apply_b_dec_to_input": (False, None) if transcoder else (True, False, None),
        "rescale_acts_by_decoder_norm": (True, False, None),
    }
    for key, values in known.items():
        if key in config and not any(_same(config[key], value) for value in values):
            raise MismatchError(
                f"{path}: {key} = {config[key]!r} is not supported, only "
                f"{', '.join(repr(value) for value in values if value is not None)}; fold it into the weights"
            )


def _same(setting: object, value: object) -> bool:
    """Return whether a setting is this value; 0 does not equal False, so booleans are compared by identity."""
    return setting is value or (isinstance(value, str) and setting == value)


def _build(config: Mapping[str, object], arrays: Arrays, meta: SAEMetadata, path: Path) -> SAE:
    architecture = text(config, "architecture", path)
    weights = Weights(
        arrays["W_enc"], arrays["b_gate" if architecture == "gated" else "b_enc"], arrays["W_dec"], arrays["b_dec"]
    )
    if architecture.endswith("transcoder"):
        skip = arrays["W_skip"] if "W_skip" in arrays else None  # noqa: SIM401 (not a dict)
        return Transcoder(weights, activation=_activation(config, arrays, path), W_skip=skip, metadata=meta)
    if architecture == CROSSCODER:
        return _crosscoder(weights, arrays, _check_sites(config["places"], arrays.sizes["d_in"], path), meta, path)
    unbiased = config.get("apply_b_dec_to_input") is False
    if architecture == "gated":
        return _gated(weights, arrays, meta, unbiased=unbiased)
    if unbiased:
        weights = subtract_b_dec(weights)
    if "topk" in architecture and config.get("rescale_acts_by_decoder_norm"):
        weights = with_unit_rows(weights)
    if architecture == "abstopk":
        weights = both_signs(weights)
    activation = _activation(config, arrays, path)
    norm = config.get("normalize_activations")
    if norm in TOKEN_NORMS:
        return TokenNormSAE(weights, activation=activation, norm=cast("TokenNorm", norm), metadata=meta)
    return plain_sae(weights, activation, meta)


def plain_sae(weights: Weights, activation: Activation, meta: SAEMetadata) -> SAE:
    """Return the SAE of the kind that has this activation function."""
    if isinstance(activation, TopK):
        return TopKSAE(weights, k=activation.k, metadata=meta)
    if isinstance(activation, JumpReLU):
        return JumpReLUSAE(weights, threshold=activation.threshold.data, metadata=meta)
    return ReLUSAE(weights, metadata=meta)


def _activation(config: Mapping[str, object], arrays: Arrays, path: Path) -> Activation:
    if "topk" in text(config, "architecture", path):
        return TopK(check_k(config["k"], arrays.sizes["d_sae"], path))
    return JumpReLU(arrays["threshold"].clamp_min(0)) if "threshold" in arrays else ReLU()


def _gated(weights: Weights, arrays: Arrays, meta: SAEMetadata, *, unbiased: bool) -> SAE:
    b_mag, r_mag = arrays["b_mag"], arrays["r_mag"]
    if unbiased:
        shift = weights.b_dec.double() @ weights.W_enc.double()
        b_mag = (b_mag.double() + shift * r_mag.double().exp()).float()
        weights = subtract_b_dec(weights)
    return GatedSAE(weights, r_mag=r_mag, b_mag=b_mag, metadata=meta)


def subtract_b_dec(weights: Weights) -> Weights:
    """Return the same SAE with centred input: `x @ W_enc + b = (x - b_dec) @ W_enc + (b + b_dec @ W_enc)`."""
    shifted = weights.b_enc.double() + weights.b_dec.double() @ weights.W_enc.double()
    return weights._replace(b_enc=shifted.to(weights.b_enc.dtype))


def with_unit_rows(weights: Weights) -> Weights:
    """Return weights of the same reconstruction with unit decoder rows; activations grow by the former norms."""
    norm = weights.W_dec.double().norm(dim=1)
    W_enc, b_enc, W_dec, b_dec = weights
    unit = W_dec.double() / norm.clamp_min(1e-300)[:, None]
    return Weights((W_enc * norm).float(), (b_enc * norm).float(), unit.float(), b_dec)


def both_signs(weights: Weights) -> Weights:
    """Return weights of twice the latents, the second half the negatives of the first."""
    W_enc, b_enc, W_dec, b_dec = weights
    return Weights(torch.cat([W_enc, -W_enc], 1), torch.cat([b_enc, -b_enc]), torch.cat([W_dec, -W_dec]), b_dec)


def _forward(config: Mapping[str, object], arrays: Arrays, path: Path) -> Forward:
    """Compute SAELens' forward pass in float64."""
    architecture, centred = text(config, "architecture", path), config.get("apply_b_dec_to_input") is not False
    k = check_k(config["k"], arrays.sizes["d_sae"], path) if "topk" in architecture else 0
    transcoder, norm = architecture.endswith("transcoder"), config.get("normalize_activations")

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        w = arrays.double
        size, centre = _token_scale(x, norm)
        seen = (x - centre) / (size + (1e-5 if norm == "layer_norm" else 0.0))
        if centred and not transcoder:
            seen = seen - w["b_dec"]
        rows = w["W_dec"]
        if architecture == "gated":
            gate = (seen @ w["W_enc"] + w["b_gate"] > 0).double()
            acts = gate * (seen @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).clamp_min(0)
        else:
            pre = seen @ w["W_enc"] + w["b_enc"]
            if config.get("rescale_acts_by_decoder_norm"):
                pre, rows = pre * rows.norm(dim=1), rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
            if architecture == "abstopk":
                pre, rows = torch.cat([pre, -pre], 1), torch.cat([rows, -rows])
            if "topk" in architecture:
                acts = as_relu_topk(pre, k)
            else:
                acts = pre.clamp_min(0) * (pre > w.get("threshold", torch.zeros(())))
        recons = (acts @ rows + w["b_dec"]) * (1 if transcoder else size) + (0 if transcoder else centre)
        if "W_skip" in w:
            recons = recons + x @ w["W_skip"].T
        return acts, recons

    return forward


def _token_scale(x: Tensor, norm: object) -> tuple[Tensor, Tensor]:
    zeros, ones = torch.zeros(len(x), 1, dtype=x.dtype), torch.ones(len(x), 1, dtype=x.dtype)
    if norm == "layer_norm":
        return x.std(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)
    if norm == "constant_norm_rescale":
        return x.square().sum(1, keepdim=True).sqrt() / x.shape[1] ** 0.5, zeros
    return ones, zeros


BOTH_FILES = has_files(CONFIG, WEIGHTS)


def recognises(path: Path) -> bool:
    """Return whether `cfg.json` and the weights exist, and `cfg.json` has SAELens 6's `metadata` or is unreadable."""
    if not BOTH_FILES(path):
        return False
    try:
        return "metadata" in read_json(path / CONFIG)
    except CorruptError:
        return True


FORMAT = Format(name="saelens", files=f"{CONFIG} with metadata, {WEIGHTS}", recognises=recognises, read=read)


ACTIVATIONS = ("relu", "topk")
SCALE = "scaling_factor"


def read_flat(path: Path) -> Conversion:
    """Read the dictionary of a folder."""
    config, tensors = read_json(path / CONFIG), read_safetensors(path / WEIGHTS)
    require(path / CONFIG, config, "d_in", "d_sae")
    new = modern(config, path / CONFIG)
    if SCALE not in tensors:
        return convert(new, tensors, path / CONFIG, path / WEIGHTS)
    scale = tensors.pop(SCALE)
    if scale.shape != (check_size(new["d_sae"], "d_sae", path / CONFIG),) or not torch.isfinite(scale).all():
        raise CorruptError(f"{path / WEIGHTS}: {SCALE} should be {new['d_sae']} finite numbers")
    if bool((scale == 1).all()):
        return convert(new, tensors, path / CONFIG, path / WEIGHTS)
    if not flag(config, "finetuning_scaling_factor", path / CONFIG):
        raise MismatchError(f"{path}: {SCALE} is not 1, but finetuning_scaling_factor is not set; was it to be used?")
    if "W_dec" in tensors and tensors["W_dec"].ndim == 2 and len(tensors["W_dec"]) == len(scale):
        tensors["W_dec"] = tensors["W_dec"].float() * scale.float()[:, None]
    return convert(new, tensors, path / CONFIG, path / WEIGHTS)


def modern(config: Mapping[str, object], path: Path) -> dict[str, object]:
    """Translate the settings to the keys of version 6."""
    hook_point = text(config, "hook_name", path) or text(config, "hook_point", path)
    activation = text(config, "activation_fn_str", path) or text(config, "activation_fn", path) or "relu"
    if activation not in ACTIVATIONS:
        raise MismatchError(f"{path}: activation {activation!r} is not supported, only {', '.join(ACTIVATIONS)}")
    arguments = config.get("activation_fn_kwargs")
    norm = config.get("normalize_activations")
    new: dict[str, object] = {
        "architecture": text(config, "architecture", path) or "standard",
        "d_in": config["d_in"],
        "d_sae": config["d_sae"],
        "apply_b_dec_to_input": flag(config, "apply_b_dec_to_input", path, default=True),
        "normalize_activations": "none"
        if norm is None or norm is False
        else ("expected_average_only_in" if norm is True else norm),
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


def recognises_flat(path: Path) -> bool:
    """Return whether `cfg.json` has no `metadata`, but a hook point and sizes."""
    if not BOTH_FILES(path):
        return False
    try:
        config = read_json(path / CONFIG)
    except CorruptError:
        return False
    return "metadata" not in config and "d_sae" in config and bool({"hook_point", "hook_name"} & config.keys())


FLAT_FORMAT = Format(name="saelens_flat", files=f"flat {CONFIG}, {WEIGHTS}", recognises=recognises_flat, read=read_flat)


OWN_SETTINGS = "settings"
"""Key of `cfg.json` that only such a dictionary has."""


def _own(config: Mapping[str, object], tensors: Mapping[str, Tensor], meta: SAEMetadata, path: Path) -> Conversion:
    """Return the dictionary. Raises `MissingError` without its code, `CorruptError` where the weights do not fit it."""
    require(path, config, "d_out")
    d_in, d_sae, d_out = (check_size(config[axis], axis, path) for axis in ("d_in", "d_sae", "d_out"))
    architecture = text(config, "architecture", path)
    kind = own_kind(architecture, DictionarySizes(d_in, d_sae, torch.zeros(d_out)), section(config, OWN_SETTINGS, path))
    state = {name.removeprefix("kind."): t for name, t in tensors.items() if name.startswith("kind.")}
    scales = {name: tensors.get(f"{name}_scale") for name in ("input", "shift", "output", "unit")}
    expected = {name: t.shape for name, t in kind.state_dict().items()}
    wrong = [n for n in {*expected, *state} if n not in state or n not in expected or state[n].shape != expected[n]]
    wrong += [f"{name}_scale" for name, t in scales.items() if t is None]
    if wrong:
        raise CorruptError(
            f"{path} does not fit the class of the kind {architecture} (at {', '.join(sorted(wrong))}); the "
            "code has changed since the training, or the file is damaged: restore it, or train again"
        )
    kind.load_state_dict(state)
    inner, shift, outer, unit = (t.double() for t in scales.values() if t is not None)
    sae = AutogradSAE(kind, Scales(inner, outer, float(unit), shift), metadata=meta)
    return Conversion(sae=sae, forward=lambda x: (sae.encode(x), sae(x)))


def _crosscoder(weights: Weights, w: Arrays, sites: list[CrosscoderSite], meta: SAEMetadata, path: Path) -> SAE:
    if bool((w["threshold"] < 0).any()) or bool((w["scales"] <= 0).any()):
        raise CorruptError(
            f"{path}: thresholds must be at least 0 and scales above 0; no crosscoder was saved with others"
        )
    return CrosscoderSAE(weights, threshold=w["threshold"], scales=w["scales"], sites=sites, metadata=meta)


def _check_sites(sites: object, d_in: int, path: Path) -> list[CrosscoderSite]:
    """Return the sites, checked: their widths add up to `d_in`."""
    if not isinstance(sites, list) or not sites or not all(isinstance(site, dict) for site in sites):
        raise CorruptError(f"{path}: places must be a list of objects, found {type(sites).__name__}")
    for site in sites:
        if not text(site, "hook_point", path):
            raise CorruptError(f"{path}: every site needs a hook_point, found {site!r}")
    widths = [check_size(site.get("d"), "d", path) for site in sites]
    if sum(widths) != d_in:
        raise CorruptError(f"{path}: widths of `places` {widths} do not add up to d_in = {d_in}")
    return [
        CrosscoderSite(
            recording=text(site, "recording", path),
            model=text(site, "model", path),
            weight_hash=text(site, "weight_hash", path),
            hook_point=text(site, "hook_point", path),
            d=width,
        )
        for site, width in zip(sites, widths, strict=True)
    ]
