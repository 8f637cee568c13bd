"""Import a peer's transcoders of all layers as one set: found by their folders, converted and checked one by one.

| source | files |
|---|---|
| circuit-tracer, per layer | `layer_N.safetensors`, `config.yaml`; or a `config.yaml` whose `transcoders` name files |
| circuit-tracer, across layers | `W_enc_N.safetensors`, `W_dec_N.safetensors` |
| Gemma Scope 1 transcoders | `layer_N/width_W/average_l0_L/params.npz` |
| Gemma Scope 2 transcoders | `layer_N_width_W_l0_L[_affine]/` with `params.safetensors`, `config.json` |
| Gemma Scope 2 across layers | one file of a layer each, whose `w_dec` is `[d_sae, n_layers, d_out]` |
| Llama Scope transcoders | a folder a layer, `...L3TC...`, with `config.json` or `hyperparams.json` |
| sparsify | `layers.N.mlp/` with `cfg.json`, `sae.safetensors` |

Each layer is compared in float64 with the arithmetic of its source (`saes.weights.read`), and again after it is written
in our layout. Where a release holds several dictionaries of a layer, `l0` takes the one whose stated sparsity is
nearest. Hook points that the files do not state are those of the release: `ln2.hook_normalized` for Gemma Scope 1,
`mlp.hook_in` for sparsify, which predicts the MLP's own output (before any norm that follows).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.artifacts import Draft, save_artefact
from interp.artifacts.artefact import settings_json
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError
from interp.models.adapter import MLP_IN, MLP_OUT, MLP_OUT_BEFORE_NORM, available_hook_points, weight_hash
from interp.models.hooked import HookedModel
from interp.seeds import make_generator
from saes.kinds.base import SAEMetadata
from saes.kinds.clt import CrossLayerTranscoder
from saes.kinds.transcoder import Transcoder
from saes.sets.set import SetConfig, read_layer, read_set, write_config, write_cross_layer, write_layer
from saes.sets.stored import ImportedSetSettings, LayerCheck, StoredSet
from saes.weights import circuit_tracer
from saes.weights.importing import PREFIX, checkpoint_path, same_model, source_files
from saes.weights.layout import check_arrays, read_safetensors
from saes.weights.read import FORMATS, TOLERANCE, Loaded, load_checked, row_errors

RAW_OUT = "mlp.hook_out"
"""The MLP's own output: `hook_mlp_out`, or in a model with a norm after the MLP what that norm reads."""
_LAYER = re.compile(r"(?:layer[_-]?|layers\.|blocks\.|(?:^|[-_])L)(\d+)(?![\d.]*[kKmM]\b)")
_L0 = re.compile(r"(?:average_)?l0_(\d+)")
_DEFAULTS = {"gemma_scope_transcoder": ("ln2.hook_normalized", MLP_OUT), "sparsify": (MLP_IN, RAW_OUT)}
_HF = {"pre_feedforward_layernorm.output": MLP_IN, "post_feedforward_layernorm.output": MLP_OUT}


@dataclass(frozen=True, kw_only=True)
class LayerLocations:
    """Locations of the layers of a set."""

    layers: dict[int, Path]
    across: str = ""
    """`circuit_tracer` or `gemma_scope_2` for a cross-layer transcoder, else empty"""


def find_layers(path: Path, *, l0: int | None = None) -> LayerLocations:
    """Find the dictionaries of every layer below a folder.

    Raises `MissingError` (none there), `ConfigError` (several of one layer, and no `l0` to choose by).
    """
    if not path.is_dir():
        raise MissingError(f"{path} is not a folder; a set is imported from the folder that holds all its layers")
    if any(path.glob(circuit_tracer.ENCODERS)):
        n = len(list(path.glob(circuit_tracer.ENCODERS)))
        return LayerLocations(layers=dict.fromkeys(range(n), path), across="circuit_tracer")
    named = circuit_tracer.read_yaml(path / "config.yaml").get("transcoders")
    if isinstance(named, list) and named and all(isinstance(name, str) for name in named):
        return LayerLocations(layers={layer: _named(path, name) for layer, name in enumerate(named)})
    several: dict[int, list[Path]] = {}
    for candidate in [*sorted(path.glob("*/**/*")), *sorted(path.iterdir())]:
        if _is_dictionary(candidate):
            match = _LAYER.search(candidate.relative_to(path).as_posix())
            if match:
                several.setdefault(int(match[1]), []).append(candidate)
    if not several:
        raise MissingError(
            f"no transcoder of a numbered layer below {path}; layers are known by names such as layer_3, layers.3.mlp "
            "or L3TC"
        )
    layers = {layer: _one(layer, list(dict.fromkeys(paths)), l0) for layer, paths in sorted(several.items())}
    first = next(iter(layers.values()))
    return LayerLocations(layers=layers, across="gemma_scope_2" if _writes_to_layers(first) else "")


def _named(folder: Path, name: str) -> Path:
    """Return a file of a `config.yaml`: `hf://OWNER/NAME/FILE`, or a path relative to it."""
    if name.startswith("hf://"):
        return checkpoint_path(PREFIX + name.removeprefix("hf://").partition("?")[0])
    file = folder / name
    if not file.is_file():
        raise MissingError(f"{folder / 'config.yaml'} names {name}, which is not there; copy the whole folder")
    return file


def _is_dictionary(path: Path) -> bool:
    if path.is_file():
        return circuit_tracer.recognises(path) or (path.suffix == ".safetensors" and _writes_to_layers(path))
    return any(f.recognises(path) for f in FORMATS if f.name not in ("circuit_tracer", "circuit_tracer_clt"))


def _writes_to_layers(path: Path) -> bool:
    """Return whether a file, or the parameters in a folder, are a layer of Gemma Scope 2's cross-layer transcoders."""
    file = path / "params.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    try:
        with safe_open(str(file), framework="pt") as handle:
            return "w_dec" in handle.keys() and len(handle.get_slice("w_dec").get_shape()) == 3  # noqa: SIM118
    except (SafetensorError, OSError):
        return False


def _one(layer: int, paths: list[Path], l0: int | None) -> Path:
    if len(paths) == 1:
        return paths[0]
    stated = {path: int(match[1]) for path in paths if (match := _L0.search(path.as_posix()))}
    if l0 is None or not stated:
        names = ", ".join("/".join(path.parts[-3:]) for path in paths[:4])
        raise ConfigError(
            f"layer {layer} has {len(paths)} dictionaries ({names} ...); give the folder of one width, and --l0 N to "
            "take of each layer the one nearest to that sparsity"
        )
    return min(stated, key=lambda path: (abs(stated[path] - l0), path))


@dataclass(frozen=True, kw_only=True)
class SetOrigin:
    """The model that a set belongs to, and hook points inside a block where the files do not say; empty: unknown."""

    model: str
    reads: str = ""
    writes: str = ""


def import_set(
    path: Path,
    folder: Path,
    model: HookedModel,
    origin: SetOrigin,
    *,
    l0: int | None = None,
    format: str | None = None,
    allow_mismatch: bool = False,
    overwrite: bool = False,
) -> StoredSet:
    """Write the transcoders of all layers below `path` into `folder` as one set, and return it as stored.

    `origin` names the model. Where the files have several sparsities, `l0` chooses the nearest; `format` names the tool
    where the files do not show it.

    Raises what `find_layers` and `load_dictionary` do, `MissingError` where a layer between others is missing,
    `ConfigError` where no hook point is known, `MismatchError` where the files name another model or hook point
    (unless `allow_mismatch`), or widths differ from the model's.
    """
    source = find_layers(path, l0=l0)
    metadata = SAEMetadata(model=origin.model, weight_hash=weight_hash(model))
    files = {0: source_files(path)} if source.across else {n: source_files(p) for n, p in source.layers.items()}
    settings = ImportedSetSettings(
        source=path.name, source_files=files, model=origin.model, weight_hash=metadata.weight_hash, l0=l0
    )
    lost = sorted(set(range(max(source.layers) + 1)) - set(source.layers))
    if lost and source.across:
        raise MissingError(f"{path} lacks layer {lost[0]} of {max(source.layers) + 1} of a cross-layer transcoder")
    draft = Draft.open(folder, kind=StoredSet.kind, config=settings_json(settings), overwrite=overwrite)
    take = _take_across if source.across else _take_layers
    try:
        reads, writes, format_, checks = take(
            source, draft, origin, model, allow_mismatch=allow_mismatch, format=format
        )
        _check_widths(draft.path, source, model, reads)
    except BaseException:
        draft.discard()  # nothing to resume: the source is still there
        raise
    write_config(
        draft.path,
        SetConfig(
            reads=reads, writes=writes, layers=tuple(source.layers), cross_layer=bool(source.across), about=metadata
        ),
    )
    whole = read_set(draft.path)
    stored = StoredSet(
        settings=settings,
        layers=whole.layers,
        cross_layer=whole.cross_layer,
        reads=reads,
        writes=writes,
        d_sae=whole.d_sae(whole.layers[0]),
        training=None,
        scores=None,
        format=format_,
        checks=checks,
    )
    return save_artefact(stored, folder, parents={f"model:{origin.model}": metadata.weight_hash}, draft=draft)


Taken = tuple[str, str, str, tuple[LayerCheck, ...]]
"""Hook points read and written, format, and checks of converted layers."""


def _take_layers(
    source: LayerLocations,
    draft: Draft,
    origin: SetOrigin,
    model: HookedModel,
    *,
    allow_mismatch: bool,
    format: str | None,
) -> Taken:
    """Convert the layers one by one."""
    hooks: dict[tuple[str, str], int] = {}
    checks, name = [], ""
    for layer, path in source.layers.items():
        loaded = load_checked(path, format)
        if not isinstance(loaded.sae, Transcoder):
            raise MismatchError(f"{path} is a {loaded.sae.architecture} SAE, not a transcoder; import it by itself")
        theirs = loaded.sae.metadata.model
        if theirs and not allow_mismatch and not same_model(theirs, origin.model):
            raise MismatchError(f"{path} says that it belongs to {theirs}, but the model given is {origin.model}")
        hooks.setdefault(_hooks(loaded, layer, path), layer)
        write_layer(draft.path, layer, loaded.sae)
        again = read_layer(draft.path, layer)
        if not torch.equal(again(loaded.probe.x), loaded.sae(loaded.probe.x)):
            raise CorruptError(f"layer {layer} reads back with other numbers than it was written with")
        checks.append(LayerCheck(layer=layer, recons_error=loaded.check.recons_error, check=loaded.check))
        name = loaded.format
    if len(hooks) > 1:
        raise MismatchError(f"layers of a set read and write at one pair of hook points, found {sorted(hooks)}")
    (stated,) = hooks
    reads, writes = _agreed(stated, origin, model, allow_mismatch=allow_mismatch)
    return reads, writes, name, tuple(checks)


def _hooks(loaded: Loaded, layer: int, path: Path) -> tuple[str, str]:
    """Return the hook points inside a block that the files, or else the release, state."""
    defaults = _DEFAULTS.get(loaded.format, ("", ""))
    if loaded.format == "gemma_scope_2":
        stated = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return _hf(stated, "in"), _hf(stated, "out")
    metadata, before = loaded.sae.metadata, f"blocks.{layer}."
    for point in (metadata.hook_point, metadata.hook_point_out):
        if point and not point.startswith(before):
            raise MismatchError(f"{path} says {point}, but its name says layer {layer}")
    reads, writes = (point.removeprefix(before) for point in (metadata.hook_point, metadata.hook_point_out))
    return reads or defaults[0], defaults[1] or writes


def _hf(config: Mapping[str, object], side: str) -> str:
    stated = str(config.get(f"hf_hook_point_{side}", ""))
    known = next((name for end, name in _HF.items() if stated.endswith(end)), "")
    return known or (RAW_OUT if re.search(r"\.mlp(\.output)?$", stated) else "")


def _agreed(stated: tuple[str, str], origin: SetOrigin, model: HookedModel, *, allow_mismatch: bool) -> tuple[str, str]:
    """Return the hook points to use, by the names of this model."""
    for side, theirs, ours in zip(
        ("--hook-point", "--hook-point-out"), stated, (origin.reads, origin.writes), strict=True
    ):
        if theirs and ours and theirs != ours and not allow_mismatch:
            raise MismatchError(
                f"the files say {theirs}, but {side} is {ours}; leave it out, or allow another on purpose"
            )
        if not theirs and not ours:
            raise ConfigError(f"the files do not say which hook point inside a block is meant; add {side}, {MLP_IN} or "
                              f"{MLP_OUT} for example")  # fmt: skip
    reads, writes = (ours or theirs for theirs, ours in zip(stated, (origin.reads, origin.writes), strict=True))
    have = available_hook_points(model)
    if writes == RAW_OUT:
        writes = MLP_OUT_BEFORE_NORM if f"blocks.0.{MLP_OUT_BEFORE_NORM}" in have else MLP_OUT
    for name in (reads, writes):
        if f"blocks.0.{name}" not in have:
            raise MismatchError(f"the model has no hook point blocks.0.{name}, at which the set was trained")
    return reads, writes


def _take_across(
    source: LayerLocations,
    draft: Draft,
    origin: SetOrigin,
    model: HookedModel,
    *,
    allow_mismatch: bool,
    format: str | None,
) -> Taken:
    """Convert a cross-layer transcoder."""
    first = source.layers[0]
    if source.across == "circuit_tracer":
        metadata = circuit_tracer.metadata_of(first, None)
        clt, raw = circuit_tracer.load_cross_layer_transcoder(first), _raw_circuit_tracer(first, len(source.layers))
        stated = (metadata.hook_point, metadata.hook_point_out)
    else:
        metadata, raw = SAEMetadata(), [_raw_gemma(path) for path in source.layers.values()]
        clt = _from_gemma(raw, first)
        config = first.parent / "config.json" if first.is_file() else first / "config.json"
        known = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        metadata = replace(metadata, model=str(known.get("model_name", "")).replace("-v3", "-3"))
        stated = (_hf(known, "in") or MLP_IN, _hf(known, "out") or MLP_OUT)
    if metadata.model and not allow_mismatch and not same_model(metadata.model, origin.model):
        raise MismatchError(
            f"the files say that they belong to {metadata.model}, but the model given is {origin.model}"
        )
    check = check_across(clt, raw)
    write_cross_layer(draft.path, clt)
    reads, writes = _agreed(stated, origin, model, allow_mismatch=allow_mismatch)
    checks = tuple(LayerCheck(layer=n, recons_error=error, check=None) for n, error in check.items())
    return reads, writes, source.across, checks


Raw = dict[str, Tensor]
"""Arrays of one layer: `enc [d_in, d_sae]`, `b_enc`, `dec [d_sae, n_layers, d_out]`, `b_dec`, `threshold`, `skip`."""


def _raw_circuit_tracer(folder: Path, n_layers: int) -> list[Raw]:
    layers = []
    for layer in range(n_layers):
        enc = read_safetensors(folder / f"W_enc_{layer}.safetensors")
        dec = read_safetensors(folder / f"W_dec_{layer}.safetensors")[f"W_dec_{layer}"]
        arrays = {name.rsplit("_", 1)[0]: t for name, t in enc.items()}
        padded = torch.cat([dec.new_zeros(len(dec), layer, dec.shape[2]), dec], dim=1)
        raw = {"enc": arrays["W_enc"].T, "b_enc": arrays["b_enc"], "dec": padded, "b_dec": arrays["b_dec"]}
        layers.append(raw | ({"threshold": arrays["threshold"]} if "threshold" in arrays else {})
                     | ({"skip": arrays["W_skip"]} if "W_skip" in arrays else {}))  # fmt: skip
    return layers


def _raw_gemma(path: Path) -> Raw:
    file = path / "params.safetensors" if path.is_dir() else path
    layout = {"w_enc": ("d_in", "d_sae"), "b_enc": ("d_sae",), "w_dec": ("d_sae", "n_layers", "d_out"),
              "b_dec": ("d_out",), "threshold": ("d_sae",)}  # fmt: skip
    skip = {"affine_skip_connection": ("d_in", "d_out")}
    w = check_arrays(read_safetensors(file), layout, file, optional=skip, what="a layer of a cross-layer transcoder")
    raw = {"enc": w["w_enc"], "b_enc": w["b_enc"], "dec": w["w_dec"], "b_dec": w["b_dec"], "threshold": w["threshold"]}
    return raw | ({"skip": w["affine_skip_connection"]} if "affine_skip_connection" in w else {})


def _from_gemma(raw: list[Raw], path: Path) -> CrossLayerTranscoder:
    n_layers = raw[0]["dec"].shape[1]
    if len(raw) != n_layers:
        raise MissingError(f"{path.parent} holds {len(raw)} layers of a cross-layer transcoder of {n_layers}")
    if any(bool(w["dec"][:, :layer].any()) for layer, w in enumerate(raw)):
        raise MismatchError(f"{path.parent}: latents write to layers before their own; the layers are out of order")
    return CrossLayerTranscoder(
        [w["enc"].contiguous() for w in raw],
        [w["b_enc"] for w in raw],
        [w["dec"][:, layer:].contiguous() for layer, w in enumerate(raw)],
        [w["b_dec"] for w in raw],
        threshold=[w["threshold"].clamp_min(0) for w in raw],
        W_skip=[w["skip"] for w in raw] if all("skip" in w for w in raw) else None,
    )


@torch.no_grad()
def check_across(clt: CrossLayerTranscoder, raw: list[Raw], *, rows: int = 8) -> dict[int, float]:
    """Return by layer the largest error of outputs against the source's arithmetic in float64.

    Raises `CorruptError` where it is larger than `saes.weights.read.TOLERANCE`.
    """
    generator, x = make_generator(0, "self-check across layers"), []
    for w in raw:
        directions = w["enc"].double().T / w["enc"].double().norm(dim=0)[:, None].clamp_min(1e-30)
        chosen = torch.randint(len(directions), (rows, 4), generator=generator)
        x.append(directions[chosen].sum(1) * (1 + 4 * float(w.get("threshold", torch.ones(1)).mean())))
    acts = []
    for inputs, w in zip(x, raw, strict=True):
        pre = inputs @ w["enc"].double() + w["b_enc"].double()
        acts.append(pre * (pre > w["threshold"].double()) if "threshold" in w else pre.clamp_min(0))
    ours, errors = clt.double()(torch.stack(x)), {}
    clt.float()
    for layer, w in enumerate(raw):
        theirs = sum((a @ r["dec"][:, layer].double() for a, r in zip(acts, raw, strict=True)), w["b_dec"].double())
        if "skip" in w:
            theirs = theirs + x[layer] @ w["skip"].double()
        errors[layer] = float(row_errors(ours[layer], theirs).median())
        if not errors[layer] <= TOLERANCE:
            raise CorruptError(
                f"layer {layer} differs from its source's arithmetic by {errors[layer]:.1e} of its size; the files are "
                "in another layout than they say"
            )
    return errors


def _check_widths(folder: Path, source: LayerLocations, model: HookedModel, reads: str) -> None:
    """Raise `MismatchError` unless there is a layer of the model for each, of the model's width."""
    n_layers, d_model = int(model.cfg.n_layers), int(model.cfg.d_model)
    if max(source.layers) >= n_layers:
        raise MismatchError(
            f"the set has a layer {max(source.layers)}, the model has {n_layers} layers; give its model"
        )
    files = [folder / (f"W_enc_{n}.safetensors" if source.across else f"layer_{n}.safetensors") for n in source.layers]
    for layer, file in zip(source.layers, files, strict=True):
        with safe_open(str(file), framework="pt") as handle:
            width = handle.get_slice(f"W_enc_{layer}" if source.across else "W_enc").get_shape()[1]
        if width != d_model:
            raise MismatchError(
                f"layer {layer} reads vectors of {width}, blocks.{layer}.{reads} of the model has {d_model}; is it "
                "another model's?"
            )
