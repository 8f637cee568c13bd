"""GGUF -> a folder of fp32 safetensors and a tokenizer, once, in the user's cache.

Reading the GGUF takes about 20 s, most of it imports and the tokenizer; the converted folder loads in one. The folder
is named after the file's content, written beside its place and renamed into it, so two processes that start together
both end with one whole folder.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from interp.artifacts import disk_errors, sha256_file
from interp.errors import CorruptError
from interp.models.sources import cache_folder

WEIGHT_HASH_FILE = "weight_hash.txt"


def converted_folder(gguf: Path) -> Path:
    """The Hugging Face folder made from a GGUF file, converting it when it is not in the cache yet."""
    target = cache_folder() / "models" / f"{gguf.stem.lower()}-{sha256_file(gguf)[:12]}"
    if (target / "config.json").is_file():
        return target
    working = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    with disk_errors(target):
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        try:
            _convert(gguf, working)
            # another process may have been faster: its folder holds the same bytes, so ours is dropped
            with contextlib.suppress(FileExistsError, OSError):
                os.rename(working, target)
        finally:
            shutil.rmtree(working, ignore_errors=True)
    if not (target / "config.json").is_file():
        raise CorruptError(f"{target} is incomplete; remove it and run again")
    return target


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from interp.models.identity import hash_weights

    with quiet_transformers():
        try:
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except Exception as error:  # the GGUF reader raises whatever its parsing hits
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
    """Keep transformers from printing bars and advice while the block runs."""
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
