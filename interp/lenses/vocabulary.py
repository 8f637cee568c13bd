"""Directions of the last residual that raise each token of the vocabulary, kept in the cache by the model's weights.

    vocabulary = vocabulary_of(model)              # computed once per model, then memory-mapped
    vocabulary = open_vocabulary(weight_hash)      # without a model; None where it was never computed

Direction w of token t is the gradient of its logit in the normalised last residual: the norm's gain times the row of
the unembedding, less the mean over the vocabulary, to which softmax is invariant. A vector v at an earlier layer raises
token t by `w_t . (J v)`. Torch is needed to compute it, not to read it.
"""

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.artifacts import atomic_file
from interp.cache import cache_folder
from interp.errors import NonFiniteError, disk_errors

if TYPE_CHECKING:
    from torch import Tensor

    from interp.models.hooked import HookedModel

_AT_ONCE = 64
"""dimensions whose logits are in memory at a time"""
_TOKENS_AT_ONCE = 8192
"""tokens whose directions are in memory as float32"""


@dataclass(frozen=True)
class Vocabulary:
    """Read directions of all tokens of a model."""

    directions: np.ndarray
    """`[d_vocab, d_model]` float16, memory-mapped; the mean over the vocabulary is 0 but for rounding"""
    spread: np.ndarray
    """`[d_model, d_model]` float32, their second moments: `v spread v` is the variance of the logits that v adds"""
    texts: tuple[str, ...]
    """the text of each token"""

    def scale(self, carried: np.ndarray) -> np.ndarray:
        """Return the standard deviation over the vocabulary of the logits of directions `[n, d]`, `[n]`."""
        return np.sqrt(np.maximum(np.einsum("nd,nd->n", carried @ self.spread, carried), 1e-24))

    def logits(self, carried: np.ndarray, tokens: np.ndarray | list[int]) -> np.ndarray:
        """Return the logits that directions `[n, d]` add to some tokens, less the mean over all, `[n, tokens]`."""
        return carried @ self.directions[np.asarray(tokens, np.int64)].astype(np.float32).T

    def strongest(self, carried: np.ndarray, k: int) -> np.ndarray:
        """Return the `k` tokens that each direction `[n, d]` raises most, the strongest first, `[n, k]`."""
        logits, tokens = np.empty((len(carried), 0), np.float32), np.empty((len(carried), 0), np.int64)
        for start in range(0, len(self.directions), _TOKENS_AT_ONCE):
            block = np.arange(start, min(start + _TOKENS_AT_ONCE, len(self.directions)))
            logits = np.concatenate([logits, self.logits(carried, block)], 1)
            tokens = np.concatenate([tokens, np.broadcast_to(block, (len(carried), len(block)))], 1)
            best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
            logits, tokens = np.take_along_axis(logits, best, 1), np.take_along_axis(tokens, best, 1)
        return tokens

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each token by its text; the first of equal texts."""
        numbers: dict[str, int] = {}
        for number, text in enumerate(self.texts):
            numbers.setdefault(text, number)
        return numbers

    def spelled(self, word: str) -> list[int]:
        """Return the tokens that are a word as it stands, after a space, or with another initial, each a whole token.

        A word that begins or ends with a space is taken as it stands.
        """
        if word != word.strip():
            forms = [word]
        else:
            cases = dict.fromkeys((word, word.lower(), word.capitalize(), word.upper()))
            forms = [space + case for space in (" ", "") for case in cases]
        return [self.numbers[form] for form in forms if form in self.numbers]


def _folder(weight_hash: str) -> Path:
    return cache_folder() / "vocabularies" / weight_hash[:32]


@lru_cache(maxsize=4)
def _opened(folder: Path) -> Vocabulary:
    texts = tuple(json.loads((folder / "tokens.json").read_text(encoding="utf-8")))
    directions = np.load(folder / "directions.npy", mmap_mode="r", allow_pickle=False)
    return Vocabulary(directions, np.load(folder / "spread.npy", allow_pickle=False), texts)


def open_vocabulary(weight_hash: str) -> Vocabulary | None:
    """Return the vocabulary of a model's weights from the cache; None where it was never computed there."""
    folder = _folder(weight_hash)
    try:
        return _opened(folder)
    except (OSError, ValueError, EOFError):  # not there, or cut short: it is computed again
        return None


def vocabulary_of(model: "HookedModel") -> Vocabulary:
    """Return the vocabulary of a model, from the cache, or computed and kept there."""
    import torch

    from interp.models.adapter import token_strings, weight_hash

    digest = weight_hash(model)
    vocabulary = open_vocabulary(digest)
    if vocabulary is not None:
        return vocabulary
    directions = read_directions(model)
    spread = (directions.T @ directions / len(directions)).numpy()
    texts = token_strings(model, torch.arange(model.cfg.d_vocab))
    folder = _folder(digest)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in (("spread", spread), ("directions", directions.half().numpy())):
            with atomic_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, value, allow_pickle=False)
        with atomic_file(folder / "tokens.json") as temporary:
            temporary.write_text(json.dumps(texts), encoding="utf-8")
    return _opened(folder)


def read_directions(model: "HookedModel", tokens: "Tensor | None" = None) -> "Tensor":
    """Return the read directions `[d_vocab, d_model]` float32 on the CPU, or those of some tokens.

    They are measured through the model's own final norm and unembedding, so a norm that subtracts the mean, biases,
    tied embeddings and a soft cap of the logits need no case of their own. Raises `NonFiniteError`.
    """
    import torch

    from interp.models.adapter import final_norm_and_unembed, logit_cap

    d, cap = model.cfg.d_model, logit_cap(model)

    def logits(resid: "Tensor") -> "Tensor":
        output = final_norm_and_unembed(model, resid[None])[0].float()
        return output if cap is None else cap * (output / cap).clamp(-1 + 1e-6, 1 - 1e-6).atanh()

    with torch.no_grad():
        device = model.cfg.device
        zero = logits(torch.zeros(1, d, device=device))
        unit = torch.eye(d, device=device) * d**0.5  # a norm of root mean square 1 leaves it as it is
        chosen = slice(None) if tokens is None else tokens.to(device)
        parts = []
        for block in unit.split(_AT_ONCE):
            raised = (logits(block) - zero) / d**0.5
            parts.append((raised - raised.mean(1, keepdim=True))[:, chosen])
        directions = torch.cat(parts).T.contiguous().cpu()
    if not directions.isfinite().all():
        raise NonFiniteError("the model's unembedding is not finite; its weights are damaged")
    return directions
