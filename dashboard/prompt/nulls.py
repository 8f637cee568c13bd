"""Nulls of the numbers on the prompt page, on a model that is loaded; needs torch, as `compute` does.

- an activation: the activations of the dictionary at random vectors, as far from the mean of the prompt as its tokens;
- a cell of the lens: the same token at other positions of the prompt, after the same layer;
- steering: directions of two nulls, enough for a p-value;
- patching: a second prompt that differs from the first in one word.
"""

import contextlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dashboard.components.live import Compared, PatchPair, SteeringVerdict
from interp.errors import PromptError
from interp.models.adapter import final_norm_and_unembed, run_with_cache, token_strings
from interp.models.hooked import HookedModel
from interp.names import lens_hook_points
from interp.runtime import make_generator

if TYPE_CHECKING:
    from dashboard.prompt.compute import Check, Reading
    from interp.lenses.jacobian_lens import JacobianLens

OTHERS = 9
"""Positions of a prompt at which the null of its lens is measured."""
VERDICT_DRAWS = 19
"""Directions of each null in a verdict on steering; the smallest p-value is 1/20."""
_NEAR = 60
"""Tokens nearest to a word, among which its replacement is searched for."""
_WORD = re.compile(r"[^\W\d_]{3,}")


def lengths(vectors: Any) -> Tensor:
    """Return the Euclidean norm of each row of `[..., d]`, as `[..., 1]`; torch's own `norm` has no types."""
    return vectors.norm(dim=-1, keepdim=True)


@torch.no_grad()
def at_random_vectors(sae: Any, x: Tensor, first: int) -> tuple[list[int], list[float]]:
    """Return the active latents and the largest activation at one random vector for each row of `x [n, d]`.

    A random vector is as far from the mean of the rows as its row. The first rows (BOS) are left out; with fewer than
    two others, both lists are empty.
    """
    rest = x[first:]
    if len(rest) < 2:
        return [], []
    centre = rest.mean(0)
    drawn = torch.randn(rest.shape, generator=make_generator(0, "random vectors")).to(rest)
    moved = lengths(rest - centre) * drawn / lengths(drawn)
    values = sae.encode_sparse(centre + moved).values.float()
    return (values > 0).sum(1).tolist(), values.amax(1).clamp_min(0).tolist()


class Elsewhere:
    """Lens predictions at a few other positions of a prompt, spread evenly: the control of every cell.

    The first position is left out if there are others, since attention sinks predict nothing about the text.
    """

    def __init__(self, loaded: HookedModel, reading: "Reading", translators: Any, token: int | None, check: "Check"):
        n = reading.tokens.shape[1]
        self.positions = np.unique(np.linspace(min(1, n - 1), n - 1, min(OTHERS, n)).round().astype(int))
        names = lens_hook_points(len(reading.residuals) - 1)
        top: list[np.ndarray] = []
        rank: list[np.ndarray] = []
        for name, residual in zip(names, reading.residuals[:, self.positions.tolist()], strict=True):
            check("decoding other positions")
            x = residual if translators is None else translators.translate(name, residual)
            logits = final_norm_and_unembed(loaded, x).float()
            top.append(logits.argmax(-1).cpu().numpy())
            if token is not None:
                rank.append((logits > logits[:, token, None]).sum(-1).cpu().numpy())
        self.top, self.rank = np.stack(top), np.stack(rank) if rank else None
        """`[n_layers + 1, k]`: ids of the most probable tokens, and ranks of the token that is followed."""

    def cells(self, best: np.ndarray, start: int) -> tuple[list[int], list[list[int]], list[list[float]]]:
        """Return the control of cells with the top tokens `best [n_layers + 1, width]`, from position `start` on.

        Per column: the number of other positions. Per cell: the number of them with its token on top, and the median
        rank at them of the followed token.
        """
        columns = np.arange(start, start + len(best[0]))
        apart: np.ndarray = np.not_equal(self.positions[None], columns[:, None])  # [width, k]
        alike: np.ndarray = np.equal(self.top[:, None], best[:, :, None])
        same = np.logical_and(alike, apart).sum(-1)
        ranks: list[list[float]] = []
        if self.rank is not None and apart.any(1).all():
            ranks = [[float(np.median(row[mine])) for mine in apart] for row in self.rank]
        return apart.sum(1).tolist(), same.tolist(), ranks


def elsewhere(
    loaded: HookedModel, reading: "Reading", translators: Any, token: int | None, check: "Check"
) -> Elsewhere:
    """Return the control of a reading's lens, measured once for each lens and token."""
    key = (translators.how if translators else "logit", token)
    if key not in reading.elsewhere:
        reading.elsewhere[key] = Elsewhere(loaded, reading, translators, token, check)
    return reading.elsewhere[key]


@torch.no_grad()
def steering_verdict(
    site: Any, case: Any, tokens: Tensor, strength: float, lens: "JacobianLens | None", done: Any
) -> SteeringVerdict:
    """Steer `tokens [1, n]` along a feature and both nulls; compare the rise of held-back words, and the shift.

    `strength` is in units of the largest activation. The words are those of the proof, read through the lens; below
    strength 0, those that the direction lowers.
    """
    from saes.features.measure_proof import next_token_changes, words_of

    directions = site.nulls(case.feature, case.alike[:VERDICT_DRAWS], VERDICT_DRAWS, 0)
    words = words_of(site, directions, VERDICT_DRAWS, lens, -1.0 if strength < 0 else 1.0)
    amount = strength * case.max_activation
    moved, shift = next_token_changes(site, [tokens], amount, directions, words.ids, done)
    random, alike = site.null_slices(VERDICT_DRAWS)
    raised, shifted = (
        Compared(float(each[0]), each[random].tolist(), each[alike].tolist())
        for each in (words.means(moved, 1), shift[:, 0])
    )
    return SteeringVerdict(case.feature, strength, amount, words.held_back(site.model), raised, shifted)


@torch.no_grad()
def suggest_pair(
    loaded: HookedModel, text: str, tokens: Tensor, likeliest: str, encode: Callable[[str], Tensor]
) -> PatchPair:
    """Return a corrupt prompt that differs from `text` in one word, with the model's most probable next tokens.

    The word is the last capitalised one after the first word, else the last one that has a replacement: the nearest
    token by the cosine similarity of embeddings that is another word in the same letter case. `encode(text)` gives the
    tokens of a prompt `[1, n]`. Without such a word, or where the lengths would differ, the corrupt prompt is empty.
    """
    words = list(_WORD.finditer(text))
    capitals = [word for word in words[1:] if word[0][0].isupper()]
    for word in [*reversed(capitals), *(each for each in reversed(words) if each not in capitals)]:
        other = _nearest_word(loaded, word[0]) if word.start() and text[word.start() - 1] == " " else None
        if other is None:
            continue
        corrupt = text[: word.start()] + other + text[word.end() :]
        changed = encode(corrupt)
        if changed.shape != tokens.shape:
            continue
        after = run_with_cache(loaded, changed, [])[0][0, -1].float().argmax()
        wrong = token_strings(loaded, [int(after)])[0]
        return PatchPair(text, corrupt, likeliest, "" if wrong == likeliest else wrong)
    return PatchPair(text, "", likeliest, "")


def _nearest_word(loaded: HookedModel, word: str) -> str | None:
    """Return the word, one token with its leading space, whose embedding is nearest to that of `word`."""
    from interp.lenses.direct_attribution import token_ids

    found = None
    with contextlib.suppress(PromptError):
        found = int(token_ids(loaded, f" {word}", 1)[0])
    if found is None:
        return None
    table = loaded.W_E.detach()
    scores = (table @ table[found]).float() / lengths(table)[:, 0].float().clamp_min(1e-9)
    near = token_strings(loaded, scores.topk(min(_NEAR, len(scores))).indices)
    low = word.lower()
    for each in near:
        other = each.removeprefix(" ")
        whole = each.startswith(" ") and _WORD.fullmatch(other) and other.istitle() == word.istitle()
        akin = other.lower().startswith(low[:4]) or low.startswith(other.lower()[:4])
        if whole and not akin and other.isupper() == word.isupper():
            return other
    return None
