"""A name, folder, GGUF file, hub id or small config -> a model you can hook.

    model = load_model("smollm2-135m")            # packaged weights, no hub (`packaged`)
    model = load_model("./my-model", dtype="bfloat16")
    model = load_model("owner/name", attention="sdpa")
    model = load_model("smollm2-135m+./my-lora")  # an adapter, merged into its base (`adapters`)
    model = load_model(SmallConfig(n_layers=2))   # or "small:attn-only-2l"
    model = load_model("planted:induction")       # analytic weights; "toy:induction-2l" is trained once and cached

Weights are used raw: nothing is folded or centred.

A GGUF file is converted once, to a folder of fp32 safetensors and a tokenizer in the user's cache: reading GGUF takes
about 20 s, loading the converted folder one. The folder is named after the file's content, written under a temporary
name and renamed, so two processes that start together both end with one complete folder.
"""

import contextlib
import gc
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch

from interp.artifacts import disk_errors
from interp.cache import cache_folder, size_text
from interp.devices import model_dtype, model_sharded, parse_dtype, pick_device
from interp.errors import ConfigError, CorruptError, MissingError, ResourceError, UnknownNameError
from interp.models._memory import check_memory
from interp.models.adapter import show_float32, use_fused_attention
from interp.models.hooked import HookedModel, wrap_transformers
from interp.models.identity import HubTokenizer, hash_weights, remember, tokenizer_of
from interp.models.lora import base_of_adapter, described, is_adapter, merged
from interp.models.packaged import PACKAGED, sha256_of
from interp.models.sharing import loaded_once
from interp.models.small import (
    PRESETS,
    SMALL_PREFIX,
    SmallConfig,
    build_small,
    is_small_folder,
    load_small,
    small_config,
)
from interp.models.toys import PLANTED_NAMES, PLANTED_PREFIX, TOY_PREFIX, TOYS, build_planted, cached_toy
from interp.text.corpora import ChatTemplate, Message, hub_reachable
from interp.text.tokens import Tokenizer

# Hub models worth suggesting: (id, parameters, layers, d_model). Any other hub id works too.
_HUB = (
    (PACKAGED["smollm2-135m"].hub, 134_515_008, 30, 576),
    ("gpt2", 124_439_808, 12, 768),
    ("EleutherAI/pythia-70m", 70_426_624, 6, 512),
    ("roneneldan/TinyStories-33M", 68_514_304, 4, 768),
)
_BARE_HUB_IDS = {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"}


@dataclass(frozen=True)
class ModelInfo:
    """One line of `workbench models`."""

    name: str
    n_params: int
    n_layers: int
    d_model: int
    source: str
    """origin of the weights"""
    available: bool
    """True when it loads without a network"""
    note: str = ""
    """the next step when it does not load, or a remark"""


@dataclass(frozen=True)
class ModelSource:
    """Resolved model spec."""

    kind: Literal["packaged", "gguf", "folder", "hub", "small", "planted", "toy", "checkpoint"]
    location: str
    """file, folder, hub id, or the spec of a packaged or small model"""
    adapter: str = ""
    """folder or hub id of an adapter, merged when the model loads"""


def find_source(spec: str) -> ModelSource:
    """Resolve a model spec.

    Raises `UnknownNameError` (nearest known names) for an unknown name that cannot be a hub id, `MissingError` for a
    path that does not exist or when packaged weights are not installed.
    """
    path = Path(spec).expanduser()
    if "+" in spec and not path.exists():
        base, _, adapter = spec.partition("+")
        return _with_adapter(base, adapter)
    if spec in PACKAGED:
        PACKAGED[spec].parts()
        return ModelSource("packaged", spec)
    if spec.startswith(SMALL_PREFIX):
        return ModelSource("small", spec)
    if spec.startswith(PLANTED_PREFIX):
        return ModelSource("planted", spec)
    if spec.startswith(TOY_PREFIX):
        return ModelSource("toy", spec)
    if spec.endswith(".gguf"):
        if not path.is_file():
            raise MissingError(
                f"no GGUF file at {path}; give the path of a .gguf file, or one of the known model names"
            )
        return ModelSource("gguf", str(path))
    if path.is_dir():
        return _folder_source(path)
    if spec.startswith(("/", "./", "../", "~")):
        raise MissingError(f"no model folder at {path}; it should hold config.json and weights")
    if spec in _BARE_HUB_IDS or spec.count("/") == 1:
        return ModelSource("hub", spec)
    raise UnknownNameError("model", spec, known_names(), "Hub models are written owner/name, folders as a path.")


def adapter_of(spec: str) -> str:
    """Return what the adapter of a spec changes, in one line; empty without an adapter in a folder. Raises as
    `find_source` and `described` do."""
    adapter = Path(find_source(spec).adapter).expanduser()
    return described(adapter) if adapter.name and is_adapter(adapter) else ""


def known_names() -> list[str]:
    """Return every name that `load_model` knows without a path or an owner."""
    ours = [*(SMALL_PREFIX + name for name in PRESETS), *PLANTED_NAMES, *(TOY_PREFIX + name for name in TOYS)]
    return [*PACKAGED, *ours, *(name for name, *_ in _HUB)]


def known_models() -> list[ModelInfo]:
    """Return the models that `workbench models` lists."""
    planted = SmallConfig(n_layers=2, d_model=80, n_heads=1, d_vocab=16, n_ctx=32, normalization=None)
    copying = SmallConfig(n_layers=2, d_model=96, n_heads=2, d_vocab=16, n_ctx=32, normalization=None)
    gemma = ModelInfo(PLANTED_NAMES[2], 53_790, 2, 66, "built here", True, "analytic weights in a Gemma 2")
    ours = [
        *(
            _small_info(name, config, "analytic weights, a known answer")
            for name, config in zip(PLANTED_NAMES[:2], (planted, copying), strict=True)
        ),
        gemma,
        *(_small_info(SMALL_PREFIX + name, config, "untrained; bytes as tokens") for name, config in PRESETS.items()),
        *(_small_info(TOY_PREFIX + name, toy.model, "trained once, then cached") for name, toy in TOYS.items()),
    ]
    return [*map(_packaged_info, PACKAGED), *ours, *(_hub_info(*row) for row in _HUB)]


def _with_adapter(base: str, adapter: str) -> ModelSource:
    """Return the source of a base model with an adapter. Raises `ConfigError` for a base that takes none."""
    source = find_source(base)
    if source.kind in _OURS or not adapter:
        raise ConfigError(f"an adapter belongs to a model of transformers: BASE+ADAPTER, got {base!r} and {adapter!r}")
    return replace(source, adapter=adapter)


def _folder_source(path: Path) -> ModelSource:
    if is_small_folder(path):
        return ModelSource("checkpoint", str(path))
    if is_adapter(path) and not (path / "config.json").is_file():
        return _with_adapter(base_of_adapter(path), str(path))
    if not (path / "config.json").is_file():
        files = [p.name for p in sorted(path.glob("*.gguf"))]
        hint = f"; for the GGUF file in it give {path / files[0]}" if files else ""
        raise MissingError(f"{path} has no config.json, so it is not a Hugging Face model folder{hint}")
    _check_bits(path)
    return ModelSource("folder", str(path))


def _check_bits(path: Path) -> None:
    """Raise `ConfigError` for weights in 4 or 8 bits of another library, whose values are not those that are read."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if quantization := config.get("quantization_config"):
            raise ConfigError(
                f"{path} holds weights quantised by {quantization.get('quant_method', 'another library')}; hooks "
                "and edits need the full weights: give the model it was made from, or a .gguf file, which is read in "
                "full precision"
            )


def _packaged_info(name: str) -> ModelInfo:
    packaged, available, note = PACKAGED[name], True, "converted once into the user cache"
    try:
        packaged.parts()
    except MissingError as error:
        available, note = False, str(error)
    source = f"packaged GGUF ({packaged.bits})"
    return ModelInfo(name, packaged.n_params, packaged.n_layers, packaged.d_model, source, available, note)


def _small_info(name: str, config: SmallConfig, note: str) -> ModelInfo:
    return ModelInfo(name, config.n_params, config.n_layers, config.d_model, "built here", True, note)


def _hub_info(name: str, n_params: int, n_layers: int, d_model: int) -> ModelInfo:
    available = in_hub_cache(name)
    note = "in the local hub cache" if available else "downloaded on first use"
    return ModelInfo(name, n_params, n_layers, d_model, "Hugging Face hub", available, note)


def in_hub_cache(name: str) -> bool:
    """Return whether the hub's local cache has this model's config (no request is made)."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    return any(hub.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json"))


WEIGHT_HASH_FILE = "weight_hash.txt"


def packaged_folder(name: str) -> Path:
    """Return the Hugging Face folder of a packaged model, converting it when it is not in the cache yet.

    Raises `MissingError` where a package is not installed, `CorruptError` for weights that are not those of the
    packages, `ResourceError` where the disk is too small.
    """
    packaged = PACKAGED[name]
    parts = packaged.parts()
    packaged.check(parts)
    return _converted(parts, packaged.sha256, 4 * packaged.n_params)


def converted_folder(gguf: Path) -> Path:
    """Return the Hugging Face folder of a GGUF file, converting it when it is not in the cache yet.

    Raises `CorruptError` for a file that cannot be read.
    """
    return _converted([gguf], sha256_of([gguf]))


def _converted(parts: Sequence[Path], digest: str, weights: int = 0) -> Path:
    """Return the folder of a file in parts, checked for room for the bytes of its weights before it is converted."""
    stem = parts[0].name.lower().partition(".gguf")[0]
    target = cache_folder() / "models" / f"{stem}-{digest[:12]}"
    if (target / "config.json").is_file():
        return target
    working = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    with disk_errors(target):
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        try:
            _check_disk(stem, working.parent, weights + sum(part.stat().st_size for part in parts))
            _convert(whole := _joined(parts, working), working)
            if whole.parent == working:
                whole.unlink()
            # another process may have been faster: its folder holds the same bytes, so ours is deleted
            with contextlib.suppress(FileExistsError, OSError):
                os.rename(working, target)
        finally:
            shutil.rmtree(working, ignore_errors=True)
    if not (target / "config.json").is_file():
        raise CorruptError(f"{target} is incomplete; remove it and run again")
    return target


def _check_disk(name: str, folder: Path, needed: int) -> None:
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ResourceError(
            f"converting {name} needs {size_text(needed)} in {folder}, {size_text(free)} are free; free space, or set "
            "INTERP_CACHE to a folder with more"
        )


def _joined(parts: Sequence[Path], folder: Path) -> Path:
    """Return the one file of the parts, written into a folder where there are several."""
    if len(parts) == 1:
        return parts[0]
    whole = folder / "parts.gguf"
    with open(whole, "wb") as target:
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, target)
    return whole


def _convert(gguf: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        try:
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except Exception as error:  # the GGUF reader can raise anything while parsing
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CorruptError(f"{gguf} cannot be read as a GGUF model ({reason}); is the file whole?") from error
        # it was dequantised while reading; left in, these would make the folder claim to be quantised
        model.config.quantization_config = None
        model.__dict__["hf_quantizer"] = None
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    (target / WEIGHT_HASH_FILE).write_text(hash_weights(model), encoding="utf-8")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars and advice of transformers within the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # the GGUF reader has a bar of its own that no setting turns off
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


Attention = Literal["eager", "sdpa"]
_OURS = ("small", "planted", "toy", "checkpoint")
"""kinds of source that need no Hugging Face class"""


def is_transformers(source: ModelSource) -> bool:
    """Return whether the model is one of transformers, not a small one of the workbench's own."""
    return source.kind not in _OURS


@loaded_once
def load_model(
    spec: str | SmallConfig,
    *,
    dtype: str | None = None,
    device: str | None = None,
    attention: Attention = "eager",
    seed: int = 0,
    sharded: bool | None = None,
) -> HookedModel:
    """Load the model that a spec names, in evaluation mode.

    Args:
        spec: a known name, an id of the hub, a folder or a GGUF file; the module has examples.
        dtype: default: that of the running command (`--dtype`), float32 in scripts. Hooks see float32.
        attention: "eager" has patterns, which can be read and edited; "sdpa" is a fused kernel, faster and without.
        seed: initialises small models and nothing else.
        sharded: spread the layers over GPUs, memory and disk, whatever `device`, for a model that does not fit on one
            (default: as the running command says, `--engine sharded`). Under `torchrun`, once ranks are joined, the
            processes share every layer instead.
    Returns: a model with hook points.
    Raises:
        UnknownNameError: no such model; the message has the nearest known names.
        MissingError: weights are not there, or the hub cannot be reached.
        ConfigError, CorruptError: weights that do not fit into memory (before they are read), or cannot be read.

    >>> load_model("small:mlp-2l").cfg.n_layers  # small and untrained, for trying things out
    2
    """
    if attention not in ("eager", "sdpa"):
        raise UnknownNameError("attention", attention, ["eager", "sdpa"])
    torch_dtype, where = parse_dtype(dtype or model_dtype()), pick_device(device)
    sharded = model_sharded() if sharded is None else sharded
    if isinstance(spec, SmallConfig):
        return _load_small(spec, torch_dtype, where, attention, seed)
    source = find_source(spec)
    if source.kind in _OURS:
        if sharded:
            raise ConfigError(f"{spec} is a small model, which fits on one device; leave --engine sharded out")
        return _load_small(spec, torch_dtype, where, attention, seed, source)
    if sharded and (source.adapter or attention != "eager"):
        raise ConfigError(f"{spec} is spread over devices without an adapter and with attention='eager' only")
    load = _load_sharded if sharded else partial(_load_transformers, device=where, attention=attention)
    model, fresh_hash = load(spec, source, torch_dtype)
    remember(model, spec, attention, fresh_hash)
    return model


def _load_small(
    spec: str | SmallConfig,
    dtype: torch.dtype,
    device: str,
    attention: str,
    seed: int,
    source: ModelSource | None = None,
) -> HookedModel:
    """Load a small model: initialised, planted, trained by recipe, or from a folder written by `save_small`."""
    if attention != "eager":
        raise ConfigError(f"small models compute attention eagerly; attention={attention!r} is for Hugging Face models")
    name = spec if isinstance(spec, str) else f"{SMALL_PREFIX}{spec}"
    build = partial(_build_ours, spec, source, seed, device)
    model = build(torch.float32)
    fresh_hash = hash_weights(model.original_model)
    if dtype != torch.float32:
        model = show_float32(build(dtype))
    remember(model, name, attention, fresh_hash)
    return model


def _build_ours(
    spec: str | SmallConfig, source: ModelSource | None, seed: int, device: str, dtype: torch.dtype
) -> HookedModel:
    if isinstance(spec, SmallConfig) or source is None or source.kind == "small":
        config = spec if isinstance(spec, SmallConfig) else small_config(spec)
        return build_small(config, seed=seed, device=device, dtype=dtype)
    if source.kind == "planted":
        return build_planted(spec, device=device, dtype=dtype)
    if source.kind == "toy":
        return cached_toy(spec, cache_folder() / "toys", seed=seed, device=device, dtype=dtype)
    return load_small(Path(source.location), device=device, dtype=dtype)


def _load_sharded(spec: str, source: ModelSource, dtype: torch.dtype) -> tuple[HookedModel, str]:
    from interp.models._sharded import describe_devices, read_sharded
    from interp.models.tensor_parallel import mend_unembedding, processes, read_split

    location, n = location_of(source), processes()
    with quiet_transformers():
        try:
            if n == 1:
                plain, fresh_hash, device = read_sharded(location, dtype)
            else:
                plain, fresh_hash, device = read_split(spec, location, dtype, local=_is_local(location))
        except (OSError, ValueError, ImportError) as error:
            raise _loading_error(spec, location, error) from error
        tokenizer = load_tokenizer(spec)
        inner = getattr(tokenizer, "tokenizer", None)
        model = wrap_transformers(plain, location, inner, device=device, dtype=dtype)
    if n > 1:
        mend_unembedding(model)
    else:
        print(f"{spec}: layers {describe_devices(plain)}", file=sys.stderr, flush=True)
    return show_float32(model), fresh_hash


def _load_transformers(
    spec: str, source: ModelSource, dtype: torch.dtype, *, device: str, attention: Attention
) -> tuple[HookedModel, str]:
    location = location_of(source)
    with quiet_transformers():
        check_memory(spec, location, str(dtype).removeprefix("torch."), device)
        plain, tokenizer = _read_weights(spec, location, source.adapter)
        fresh_hash = ("" if source.adapter else known_hash(location)) or hash_weights(plain)
        plain = plain.to(device=device, dtype=dtype).eval()
        model = wrap_transformers(plain, location, tokenizer, device=device, dtype=dtype)
    if attention == "sdpa":
        use_fused_attention(model)
    return show_float32(model), fresh_hash


def read_plain(spec: str) -> tuple[Any, Any] | None:
    """Return the model of transformers that a spec names and its tokenizer, without hooks; None for a small model of
    the workbench's own. Raises as `load_model`."""
    source = find_source(spec)
    if not is_transformers(source):
        return None
    location = location_of(source)
    check_memory(spec, location, "float32", "cpu")
    with quiet_transformers():
        return _read_weights(spec, location, source.adapter)


def load_tokenizer(spec: str) -> Tokenizer:
    """Return the tokenizer of the model that a spec names, without its weights. Raises as `load_model`."""
    from transformers import AutoTokenizer

    source = find_source(spec)
    if source.kind in _OURS:
        return tokenizer_of(load_model(spec))
    location = location_of(source)
    try:
        return HubTokenizer(AutoTokenizer.from_pretrained(location, local_files_only=_is_local(location)))
    except Exception as error:
        raise _loading_error(spec, location, error) from error


def chat_template(spec: str) -> ChatTemplate:
    """Return what makes one text of a conversation, as the model of a spec reads it; its tokenizer is loaded when the
    first conversation comes.

    It raises `ConfigError` for a model without a template, and for a conversation that the template refuses.
    """
    tokenizer = cache(partial(load_tokenizer, spec))

    def text_of(messages: list[Message]) -> str:
        inner: Any = getattr(tokenizer(), "tokenizer", None)
        if not getattr(inner, "chat_template", None):
            raise ConfigError(f"{spec} has no chat template, so it reads no conversations; give a column of plain text")
        try:
            return inner.apply_chat_template(messages, tokenize=False)
        except Exception as error:  # templates are programs of their authors
            roles = ", ".join(message["role"] for message in messages[:6])
            raise ConfigError(f"the chat template of {spec} refuses a conversation of {roles} ({error})") from error

    return text_of


def location_of(source: ModelSource) -> str:
    """Return the folder or hub id of a model of transformers; a GGUF file is converted first."""
    if source.kind == "packaged":
        return str(packaged_folder(source.location))
    return str(converted_folder(Path(source.location))) if source.kind == "gguf" else source.location


def _is_local(location: str) -> bool:
    """Return True where no request is made: transformers itself would retry for half a minute."""
    return Path(location).is_dir() or not hub_reachable()


def _read_weights(spec: str, location: str, adapter: str = "") -> tuple[Any, Any]:
    """Return the plain module in the dtype of its files, with the adapter merged, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gc.collect()  # a model refers to itself, so one that is not used any more may still fill the memory
    local = _is_local(location)
    try:
        plain = AutoModelForCausalLM.from_pretrained(
            location, dtype="auto", attn_implementation="eager", local_files_only=local
        )
        tokenizer = AutoTokenizer.from_pretrained(location, local_files_only=local)
    except Exception as error:  # transformers raises a dozen unrelated types here; each becomes one line
        raise _loading_error(spec, location, error) from error
    return merged(plain, adapter, spec) if adapter else plain, tokenizer


def known_hash(location: str) -> str | None:
    """Return the weight hash that a converted folder keeps; None elsewhere."""
    with contextlib.suppress(OSError):
        return (Path(location) / WEIGHT_HASH_FILE).read_text(encoding="utf-8").strip() or None
    return None


def _loading_error(spec: str, location: str, error: Exception) -> Exception:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if Path(location).is_dir():
        return CorruptError(f"the model folder {location} cannot be loaded ({reason})")
    if not hub_reachable():
        return MissingError(
            f"{spec} is not in the local hub cache and the hub cannot be reached; connect to the network once, or give "
            "a local folder or .gguf file"
        )
    return MissingError(f"{spec} cannot be loaded from the hub ({reason}); check the id, or give a local folder")
