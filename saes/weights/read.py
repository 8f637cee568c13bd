"""One call for every format: `load_dictionary(path)` recognises the files, converts them and checks the conversion.

Formats are asked in the order of `FORMATS`, the more particular ones first; each says in its module how its files lie
and what is done with them. A format is recognised by file names and config keys alone.
"""

from dataclasses import dataclass
from pathlib import Path

from interp.errors import MissingError, UnknownNameError
from saes.kinds.base import SAE
from saes.weights import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    openai,
    qwen_scope,
    saelens,
    saelens_flat,
    sparsify,
)
from saes.weights.layout import Format
from saes.weights.selfcheck import Probe, SelfCheck, recheck, self_check

FORMATS: tuple[Format, ...] = (
    saelens_flat.FORMAT,
    saelens.FORMAT,
    dictionary_learning.FORMAT,
    sparsify.FORMAT,
    gemma_scope_2.FORMAT,
    gemma_scope.TRANSCODER,
    gemma_scope.EMBEDDING,
    gemma_scope.FORMAT,
    llama_scope.FORMAT,
    circuit_tracer.CROSS_LAYER,
    circuit_tracer.FORMAT,
    qwen_scope.FORMAT,
    openai.FORMAT,
)
BY_NAME = {each.name: each for each in FORMATS}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A dictionary from elsewhere, with the proof that it was read rightly."""

    sae: SAE
    format: str
    check: SelfCheck
    probe: Probe


def load_dictionary(path: Path | str, format: str | None = None) -> SAE:
    """The dictionary at a file or folder of any known format, which is recognised where it is not given.

    Every call compares our numbers with the format's own arithmetic (see `selfcheck.py`).

    Raises `MissingError` (nothing there, or nothing recognised), `UnknownNameError` (a format or architecture that is
    not known), `CorruptError` (keys missing, shapes that do not fit, code in a pickle, numbers that disagree),
    `MismatchError` (a setting that cannot be expressed), `NonFiniteError`.
    """
    return load_checked(path, format).sae


def load_checked(path: Path | str, format: str | None = None) -> Loaded:
    """The same, with the format that was recognised and the self-check."""
    path = Path(path).expanduser().absolute()  # formats go by folder names; links are not followed
    chosen = find_format(path, format)
    folder = path if chosen.recognises(path) or not path.is_file() else path.parent
    conversion = chosen.read(folder)
    check, probe = self_check(conversion)
    if folder.is_dir():
        recheck(conversion.sae, folder)
    return Loaded(sae=conversion.sae, format=chosen.name, check=check, probe=probe)


def find_format(path: Path, name: str | None = None) -> Format:
    """The format of a name, or the first that recognises the path (or, for a file, its folder)."""
    if not path.exists():
        raise MissingError(f"nothing at {path}; give a dictionary's folder, or its file")
    if name is not None:
        if name not in BY_NAME:
            raise UnknownNameError("dictionary format", name, BY_NAME)
        return BY_NAME[name]
    for place in (path, path.parent) if path.is_file() else (path,):
        for each in FORMATS:
            if each.recognises(place):
                return each
    sparsify.explain(path)
    known = "; ".join(f"{each.name}: {each.files}" for each in FORMATS)
    raise MissingError(f"{path} is in no format that is known ({known})")
