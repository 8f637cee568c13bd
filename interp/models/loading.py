"""A name, folder, GGUF file, hub id or small config -> a model you can hook.

    model = load_model("smollm2-135m")            # packaged weights, no hub
    model = load_model("./my-model", dtype="bfloat16")
    model = load_model("owner/name", attention="sdpa")
    model = load_model(SmallConfig(n_layers=2))   # or "small:attn-only-2l"
    model = load_model("planted:induction")       # analytic weights; "toy:induction-2l" is trained once and cached

Weights are used raw: nothing is folded or centred.
"""

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError
from interp.models.checkpoint import load_small
from interp.models.convert import WEIGHT_HASH_FILE, converted_folder, quiet_transformers
from interp.models.identity import hash_weights, remember
from interp.models.planted import build_planted
from interp.models.small import SMALL_PREFIX, SmallConfig, build_small, small_config
from interp.models.sources import Source, cache_folder, find_source
from interp.models.toys import cached_toy
from interp.runtime import parse_dtype, pick_device
from interp.text.hub import hub_reachable

if TYPE_CHECKING:
    import torch
    from transformer_lens.model_bridge import TransformerBridge

Attention = Literal["eager", "sdpa"]
_OURS = ("small", "planted", "toy", "checkpoint")
"""kinds of source that need no Hugging Face class"""


def load_model(
    spec: "str | SmallConfig",
    *,
    dtype: str = "float32",
    device: str | None = None,
    attention: Attention = "eager",
    seed: int = 0,
) -> "TransformerBridge":
    """The model that a spec names, in evaluation mode.

    `attention="eager"` computes attention patterns, so that they can be read and edited; `"sdpa"` uses torch's fused
    kernel, which is faster and has no patterns. `seed` initialises small models and nothing else.

    Raises `UnknownNameError` with the nearest known names, `MissingError` when weights are not there or the hub cannot
    be reached, `CorruptError` when they cannot be read.
    """
    if attention not in ("eager", "sdpa"):
        raise UnknownNameError("attention", attention, ["eager", "sdpa"])
    torch_dtype, where = parse_dtype(dtype), pick_device(device)
    if isinstance(spec, SmallConfig):
        return _load_small(spec, torch_dtype, where, attention, seed)
    source = find_source(spec)
    if source.kind in _OURS:
        return _load_small(spec, torch_dtype, where, attention, seed, source)
    location = str(converted_folder(Path(source.location))) if source.kind == "gguf" else source.location
    model, fresh_hash = _load_transformers(spec, location, torch_dtype, where, attention)
    remember(model, spec, attention, fresh_hash)
    return model


def _load_small(
    spec: str | SmallConfig,
    dtype: "torch.dtype",
    device: str,
    attention: str,
    seed: int,
    source: Source | None = None,
) -> "TransformerBridge":
    """A model of our own: initialised, planted, trained by recipe, or from a folder that we wrote."""
    if attention != "eager":
        raise ConfigError(f"small models compute attention eagerly; attention={attention!r} is for Hugging Face models")
    name = spec if isinstance(spec, str) else f"{SMALL_PREFIX}{spec}"
    import torch

    build = partial(_build_ours, spec, source, seed, device)
    model = build(torch.float32)
    fresh_hash = hash_weights(model.original_model)
    if dtype != torch.float32:
        model = build(dtype)
    remember(model, name, attention, fresh_hash)
    return model


def _build_ours(
    spec: str | SmallConfig, source: Source | None, seed: int, device: str, dtype: "torch.dtype"
) -> "TransformerBridge":
    if isinstance(spec, SmallConfig) or source is None or source.kind == "small":
        config = spec if isinstance(spec, SmallConfig) else small_config(spec)
        return build_small(config, seed=seed, device=device, dtype=dtype)
    if source.kind == "planted":
        return build_planted(spec, device=device, dtype=dtype)
    if source.kind == "toy":
        return cached_toy(spec, cache_folder() / "toys", seed=seed, device=device, dtype=dtype)
    return load_small(Path(source.location), device=device, dtype=dtype)


def _load_transformers(
    spec: str, location: str, dtype: "torch.dtype", device: str, attention: Attention
) -> tuple["TransformerBridge", str]:
    from transformer_lens import TransformerBridge

    from interp.models.fused import use_fused_attention

    with quiet_transformers():
        plain, tokenizer = _read_weights(spec, location)
        fresh_hash = _known_hash(location) or hash_weights(plain)
        plain = plain.to(device=device, dtype=dtype).eval()
        model = TransformerBridge.boot_transformers(
            location, hf_model=plain, tokenizer=tokenizer, device=device, dtype=dtype
        )
    if attention == "sdpa":
        use_fused_attention(model)
    return model.eval(), fresh_hash


def _read_weights(spec: str, location: str) -> tuple[Any, Any]:
    """The plain module in the dtype of its files, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = Path(location).is_dir() or not hub_reachable()  # transformers itself would retry for half a minute
    try:
        plain = AutoModelForCausalLM.from_pretrained(
            location, dtype="auto", attn_implementation="eager", local_files_only=local
        )
        tokenizer = AutoTokenizer.from_pretrained(location, local_files_only=local)
    except Exception as error:  # transformers raises a dozen unrelated types here; each becomes one line
        raise _loading_error(spec, location, error) from error
    return plain, tokenizer


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
