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

An estimate of the memory that a Hugging Face model takes, from its config alone, before any weight is read.

    print(estimate("google/gemma-2-2b", "bfloat16"))

Weights are counted exactly: the architecture is built from the config on torch's `meta` device, which holds no values.
The values of one pass are those of 2,048 tokens, the default batch of a recording. Verbs that need gradients, or keep
the values of several layers, take more.
"""

import contextlib
import gc
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.artifacts import disk_errors
from interp.cache import cache_folder, size_text
from interp.devices import free_memory, model_dtype, parse_dtype, pick_device
from interp.errors import ConfigError, CorruptError, MissingError, ResourceError, UnknownNameError
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

if TYPE_CHECKING:
    import torch


PASS_TOKENS, CONTEXT = 2_048, 128
"""Tokens of the pass that the estimate includes, in contexts of 128."""
_HASHED_AT_ONCE = 2
"""Parameters that are copied as float32 at a time while the weights are hashed."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a model takes on its device and, while it is read, in the memory of the machine."""

    n_params: int
    weights: int
    """weights on the device"""
    values: int
    """values of one pass of `PASS_TOKENS` tokens without gradients: one layer at a time, and the logits"""
    reading: int
    """weights in the dtype of their files, with the float32 copies that are hashed: in the memory of the machine"""

    @property
    def on_device(self) -> int:
        """Bytes on the device."""
        return self.weights + self.values

    def __str__(self) -> str:
        return (
            f"{size_text(self.on_device)} (weights of {self.n_params / 1e9:,.2f} billion parameters "
            f"{size_text(self.weights)}, one pass of {PASS_TOKENS:,} tokens {size_text(self.values)})"
        )


def estimate(location: str, dtype: str) -> MemoryEstimate:
    """Return the memory that the model of a folder or hub id takes in a dtype.

    Raises `OSError` or `ValueError` where there is no config, or none of a known architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    local = Path(location).is_dir() or not hub_reachable()
    config = AutoConfig.from_pretrained(location, local_files_only=local)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    sizes = [parameter.numel() for parameter in model.parameters()]  # tied ones are counted once
    stored = getattr(config, "dtype", None) or torch.float32
    width, stored_width = parse_dtype(dtype).itemsize, stored.itemsize
    hashed = 0 if stored == torch.float32 else _HASHED_AT_ONCE * 4 * max(sizes)
    values = PASS_TOKENS * (
        _per_token(config.get_text_config()) * width + config.get_text_config().vocab_size * (width + 4)
    )
    return MemoryEstimate(sum(sizes), sum(sizes) * width, values, sum(sizes) * stored_width + hashed)


def _per_token(config: Any) -> int:
    """Return the values per token that exist at a time within a block: residual, heads, patterns and MLP."""
    d_model, d_mlp = config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return 8 * d_model + 3 * d_mlp + 2 * getattr(config, "num_attention_heads", 0) * CONTEXT


def check_memory(spec: str, location: str, dtype: str, device: str) -> None:
    """Raise `ConfigError`, before any weight is read, for a model that does not fit into the free memory.

    A model whose config cannot be read is not judged here: reading it reports the reason. Nothing is judged where the
    system does not tell how much is free.
    """
    try:
        needed = estimate(location, dtype)
    except Exception:  # transformers raises a dozen unrelated types for a bad config
        return
    on_cpu = device == "cpu"
    if (free := free_memory(device)) is not None and needed.on_device > free:
        raise ConfigError(
            f"{spec} needs about {needed} on {device} in {dtype}, and {size_text(free)} are free; {_next_move(dtype)}"
        )
    at_once = max(needed.reading, needed.on_device) if on_cpu else needed.reading
    if (free := free_memory("cpu")) is not None and at_once > free:
        raise ConfigError(
            f"reading {spec} takes about {size_text(at_once)} of the machine's memory, and {size_text(free)} are free; "
            "choose a smaller model, or close other programs"
        )


def _next_move(dtype: str) -> str:
    if dtype == "float32":
        return "halve it with --dtype bfloat16, or choose a smaller model or another --device"
    return "choose a smaller model or another --device, or close other programs"


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
    import torch
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


@loaded_once
def load_model(
    spec: "str | SmallConfig",
    *,
    dtype: str | None = None,
    device: str | None = None,
    attention: Attention = "eager",
    seed: int = 0,
) -> HookedModel:
    """Load the model that a spec names (a known name, hub id, folder, GGUF file) in evaluation mode on `device`.

        model = load_model("small:mlp-2l")  # small and untrained, for trying things out

    `attention="eager"` computes attention patterns, so that they can be read and edited; `"sdpa"` uses torch's fused
    kernel, which is faster and has no patterns. `seed` initialises small models and nothing else. `dtype` is by default
    that of the running command (`--dtype`), float32 in scripts; hooks see float32 (`adapter.show_float32`).

    Raises `UnknownNameError` with the nearest known names, `MissingError` when weights are not there or the hub cannot
    be reached, `ConfigError` before weights are read that do not fit into memory, `CorruptError` when they cannot be.
    """
    if attention not in ("eager", "sdpa"):
        raise UnknownNameError("attention", attention, ["eager", "sdpa"])
    torch_dtype, where = parse_dtype(dtype or model_dtype()), pick_device(device)
    if isinstance(spec, SmallConfig):
        return _load_small(spec, torch_dtype, where, attention, seed)
    source = find_source(spec)
    if source.kind in _OURS:
        return _load_small(spec, torch_dtype, where, attention, seed, source)
    model, fresh_hash = _load_transformers(spec, source, torch_dtype, where, attention)
    remember(model, spec, attention, fresh_hash)
    return model


def _load_small(
    spec: str | SmallConfig,
    dtype: "torch.dtype",
    device: str,
    attention: str,
    seed: int,
    source: ModelSource | None = None,
) -> HookedModel:
    """Load a small model: initialised, planted, trained by recipe, or from a folder written by `save_small`."""
    if attention != "eager":
        raise ConfigError(f"small models compute attention eagerly; attention={attention!r} is for Hugging Face models")
    name = spec if isinstance(spec, str) else f"{SMALL_PREFIX}{spec}"
    import torch

    from interp.models.adapter import show_float32

    build = partial(_build_ours, spec, source, seed, device)
    model = build(torch.float32)
    fresh_hash = hash_weights(model.original_model)
    if dtype != torch.float32:
        model = show_float32(build(dtype))
    remember(model, name, attention, fresh_hash)
    return model


def _build_ours(
    spec: str | SmallConfig, source: ModelSource | None, seed: int, device: str, dtype: "torch.dtype"
) -> HookedModel:
    if isinstance(spec, SmallConfig) or source is None or source.kind == "small":
        config = spec if isinstance(spec, SmallConfig) else small_config(spec)
        return build_small(config, seed=seed, device=device, dtype=dtype)
    if source.kind == "planted":
        return build_planted(spec, device=device, dtype=dtype)
    if source.kind == "toy":
        return cached_toy(spec, cache_folder() / "toys", seed=seed, device=device, dtype=dtype)
    return load_small(Path(source.location), device=device, dtype=dtype)


def _load_transformers(
    spec: str, source: ModelSource, dtype: "torch.dtype", device: str, attention: Attention
) -> tuple[HookedModel, str]:
    from interp.models.adapter import show_float32, use_fused_attention

    location = _location(source)
    with quiet_transformers():
        check_memory(spec, location, str(dtype).removeprefix("torch."), device)
        plain, tokenizer = _read_weights(spec, location, source.adapter)
        fresh_hash = ("" if source.adapter else _known_hash(location)) or hash_weights(plain)
        plain = plain.to(device=device, dtype=dtype).eval()
        model = wrap_transformers(plain, location, tokenizer, device=device, dtype=dtype)
    if attention == "sdpa":
        use_fused_attention(model)
    return show_float32(model), fresh_hash


def read_plain(spec: str) -> tuple[Any, Any] | None:
    """Return the model of transformers that a spec names and its tokenizer, without hooks; None for a small model of
    the workbench's own. Raises as `load_model`."""
    source = find_source(spec)
    if source.kind in _OURS:
        return None
    location = _location(source)
    check_memory(spec, location, "float32", "cpu")
    with quiet_transformers():
        return _read_weights(spec, location, source.adapter)


def load_tokenizer(spec: str) -> Tokenizer:
    """Return the tokenizer of the model that a spec names, without its weights. Raises as `load_model`."""
    from transformers import AutoTokenizer

    source = find_source(spec)
    if source.kind in _OURS:
        return tokenizer_of(load_model(spec))
    location = _location(source)
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


def _location(source: ModelSource) -> str:
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


def _known_hash(location: str) -> str | None:
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
