"""Identity of a model: its spec, and hashes of weights and tokenizer that go into every manifest.

The weight hash is taken over the parameters as float32, by the names of the plain module, before any cast: the same
spec has the same hash in every dtype. It is cached with the model, and taken again after a write to a parameter,
through `weight.data` too. Write counters and a cheap fingerprint of the values tell when.

Tokenizers of all models share one interface: Hugging Face's, or bytes for small models.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, overload
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interp.errors import MissingError
from interp.models.hooked import HookedModel
from interp.text.tokens import ByteTokenizer, Tokenizer

State = tuple[int, float]
"""Sum of the parameters' write counters, and a fingerprint of their values."""
_ATTRIBUTE = "_interp_identity"
_vocabulary_hashes: WeakKeyDictionary[object, tuple[int, str]] = WeakKeyDictionary()


@dataclass
class Identity:
    """Facts about a model that `load_model` records."""

    spec: str
    attention: str
    weight_hash: str
    state: "State"
    """state of the parameters when the hash was taken"""
    seed: int | None = None
    """of the initialisation, for small models"""


def weight_hash(model: HookedModel) -> str:
    """Return the sha256 over the raw weights; one spec has one hash.

    Args:
        model: its weights are read.

    >>> len(weight_hash(model))
    64
    """
    known: Identity | None = getattr(model, _ATTRIBUTE, None)
    if known is None:
        return hash_weights(model.original_model)
    if known.state != (state := _state(model.original_model)):
        known.weight_hash, known.state = hash_weights(model.original_model), state
    return known.weight_hash


def tokenizer_hash(model: HookedModel) -> str:
    """Return the sha256 over the vocabulary (token -> id); `"bytes"` or `"none"` for small models."""
    tokenizer = tokenizer_of(model, required=False)
    return "none" if tokenizer is None else vocabulary_hash(tokenizer)


def vocabulary_hash(tokenizer: Tokenizer) -> str:
    """Return the sha256 over the vocabulary (token -> id) of a tokenizer; `"bytes"` where bytes are the tokens."""
    if not isinstance(tokenizer, HubTokenizer):
        return "bytes"
    inner = tokenizer.tokenizer
    known = _vocabulary_hashes.get(inner)
    if known is None or known[0] != len(inner):  # a token was added since
        vocabulary = json.dumps(sorted(inner.get_vocab().items())).encode()
        known = len(inner), hashlib.sha256(vocabulary).hexdigest()
        _vocabulary_hashes[inner] = known
    return known[1]


def model_spec(model: HookedModel) -> str:
    """Return the spec that `load_model` was given, as `toy:induction-2l`; for models made elsewhere their own name.

    A model built here by hand has none: it is `unnamed` (TransformerLens calls all of them `native`).
    """
    known: Identity | None = getattr(model, _ATTRIBUTE, None)
    name = known.spec if known is not None else str(model.cfg.model_name)
    return "unnamed" if name == "native" else name


def attention_kernel(model: HookedModel) -> str:
    """Return the attention kernel, `"eager"` or `"sdpa"`."""
    known: Identity | None = getattr(model, _ATTRIBUTE, None)
    return known.attention if known is not None else "eager"


def remember(model: HookedModel, spec: str, attention: str, fresh_hash: str) -> None:
    """Store facts found while loading with the model itself."""
    identity = Identity(spec, attention, fresh_hash, _state(model.original_model))
    object.__setattr__(model, _ATTRIBUTE, identity)


def hash_weights(module: nn.Module) -> str:
    """Return the sha256 over (name, shape, sha256 of the float32 bytes) of every parameter, in name order."""
    parameters = dict(plain_parameters(module))
    return hash_tensors(sorted(parameters), parameters.__getitem__)


def hash_tensors(names: Sequence[str], read: Callable[[str], Tensor]) -> str:
    """Return the hash of tensors that `read` gives by name, of which two are held at a time."""

    def checked(name: str) -> tuple[tuple[int, ...], str]:
        tensor = read(name)
        return tuple(tensor.shape), _tensor_digest(tensor)

    digest = hashlib.sha256()
    with ThreadPoolExecutor(2) as pool:  # hashing releases the interpreter lock
        for name, (shape, checksum) in zip(names, pool.map(checked, names), strict=True):
            digest.update(f"{name}\0{shape}\0{checksum}\n".encode())
    return digest.hexdigest()


def plain_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return parameters by the names of the unwrapped module, without those of the bridge's wrappers."""
    return [(name.replace("_original_component.", ""), value) for name, value in module.named_parameters()]


def _tensor_digest(tensor: Tensor) -> str:
    flat = tensor.detach().to("cpu", torch.float32).contiguous().view(-1)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def _state(module: nn.Module) -> State:
    """Return write counters and fingerprint: writes to `weight.data` leave the counters as they are.

    Weights on disk (`sharded`) cannot be written to.
    """
    parameters = [parameter for parameter in module.parameters() if not parameter.is_meta]
    return sum(parameter._version for parameter in parameters), sum(_fingerprint(parameter) for parameter in parameters)


def _fingerprint(tensor: Tensor) -> float:
    """Return a number that changes with every value and its position: a weighted sum, read in one pass."""
    if not tensor.numel():
        return 0.0
    tensor = getattr(tensor, "to_local", lambda: tensor)()  # of a model that several processes share, our part
    rows = tensor.detach().reshape(len(tensor) if tensor.ndim else 1, -1).float()
    across, down = (torch.arange(1, n + 1, device=rows.device, dtype=torch.float32).sin() for n in rows.shape[::-1])
    return float((rows @ across).double() @ down.double())


class HubTokenizer:
    """A Hugging Face tokenizer as `interp.text.tokens.Tokenizer`."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    @property
    def bos_token_id(self) -> int | None:
        return self.tokenizer.bos_token_id

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    def token_text(self, token: int) -> str:
        """Return the decoded text of one token; a fragment of a character in its raw form, as in `<0xE2>`."""
        text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        if "\ufffd" in text:
            return _raw_bytes(self.tokenizer.convert_ids_to_tokens(token))
        if not text:  # decode drops some whitespace tokens; the vocabulary entry itself has the text
            return str(self.tokenizer.convert_ids_to_tokens(token)).replace("\u2581", " ").replace("\u0120", " ")
        return text


@overload
def tokenizer_of(model: HookedModel, required: Literal[True] = True) -> Tokenizer: ...
@overload
def tokenizer_of(model: HookedModel, required: Literal[False]) -> Tokenizer | None: ...
def tokenizer_of(model: HookedModel, required: bool = True) -> Tokenizer | None:
    """Return the model's tokenizer; a byte tokenizer for a small model whose vocabulary is bytes and BOS.

    Raises `MissingError` when there is none and one is required.
    """
    if model.tokenizer is not None:
        return HubTokenizer(model.tokenizer)
    if model.cfg.d_vocab == ByteTokenizer.d_vocab:
        return ByteTokenizer()
    if required:
        raise MissingError(
            f"{model_spec(model)} has no tokenizer (vocabulary of {model.cfg.d_vocab}); give it token ids, "
            f"not text, or build it with d_vocab={ByteTokenizer.d_vocab} to read bytes"
        )
    return None


def _raw_bytes(piece: str) -> str:
    """Return `<0xE2>` for each byte that a byte-level token encodes."""
    table = _byte_of_character()
    return "".join(f"<0x{table[c]:02X}>" if c in table else c for c in piece)


def _byte_of_character() -> dict[str, int]:
    """Return the GPT-2 byte alphabet: printable bytes are themselves, the others are characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + i): byte for i, byte in enumerate(hidden)}
