"""A model of transformers by its files: config, names of modules and hash of the weights, without a pass of it."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from interp.errors import ConfigError, CorruptError
from interp.models.identity import hash_weights
from interp.models.loading import find_source, is_transformers, known_hash, location_of, quiet_transformers, read_plain


@dataclass(frozen=True)
class ModelFiles:
    """A folder or hub id with a model of transformers."""

    location: str
    config: Any
    """of its text"""
    modules: frozenset[str]
    """paths of its modules"""


@cache
def files_of(spec: str, reader: str) -> ModelFiles:
    """Return the files of a model that another program reads; `reader` names that program in errors.

    Raises `ConfigError` for models that have none of their own: small ones, and those with an adapter.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    source = find_source(spec)
    if not is_transformers(source):
        raise ConfigError(f"{spec} is a small model of the workbench's own, which {reader} cannot run")
    if source.adapter:
        raise ConfigError(f"{reader} runs no adapter; merge it into a folder (merge_and_unload, save_pretrained) first")
    location = location_of(source)
    try:
        config = AutoConfig.from_pretrained(location, local_files_only=True)
        with quiet_transformers(), torch.device("meta"):
            module = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises a dozen unrelated types for a bad config
        raise CorruptError(f"the config of {location} cannot be read ({str(error).splitlines()[0]})") from error
    modules = frozenset(name for name, _ in module.named_modules())
    return ModelFiles(location, config.get_text_config(), modules)


@cache
def weight_hash_of(spec: str) -> str:
    """Return the hash of a model's weights as `identity.weight_hash` takes it; the files are read where they have none.

    Raises as `load_model`.
    """
    source = find_source(spec)
    if known := known_hash(location_of(source)):
        return known
    plain = read_plain(spec)
    assert plain is not None, "models of the workbench's own have no files of transformers"
    return hash_weights(plain[0])
