"""Readings of prompts: one pass of a model, and the views that draw on it in slices, each with its control.

A `PromptReading` has the residual stream after every layer, the attention of every head, and the activations of a
dictionary. The lens decodes the columns that are seen, the next-token distribution one position. Controls:

- an activation: the activations of the dictionary at random vectors, as far from the mean of the prompt as its tokens;
- a cell of the lens: the same token at other positions of the prompt, after the same layer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.dictionary import Dictionary, SparseActs
from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.lenses.direct_attribution import single_token
from interp.lenses.lens import Lens
from interp.models.adapter import bos_token_id, final_norm_and_unembed, head_shape, token_strings
from interp.models.hooked import HookedModel
from interp.models.passes import Capture
from interp.names import lens_hook_points
from interp.seeds import make_generator
from saes.acts.readings import ActiveFeature, LensCells, NextTokenGuesses, PromptResult

Check = Callable[[str], None]
"""Names the next stage; raises if the answer is no longer wanted."""
TOP_TOKENS, TOP_FEATURES = 5, 10
THUMB = 24
"""Cells along a side of the small picture of a head; each is the maximum of the attention that it covers."""
OTHERS = 9
"""Positions of a prompt at which the null of its lens is measured."""
_LOSS_ROWS, _LENS_CELLS = 64, 256
"""Positions or cells unembedded at a time; each needs one float per token of the vocabulary."""


@dataclass(eq=False)
class PromptReading:
    """One pass over a prompt of `n` tokens."""

    tokens: Tensor
    """`[1, n]`"""
    residuals: Tensor
    """`[n_layers + 1, n, d_model]`: the embedding, then the residual stream after each block"""
    patterns: Tensor
    """`[n_layers, n_heads, n, n]` float16"""
    parts: dict[str, Tensor]
    """`[1, n, ...]` at the hook points of direct logit attribution; empty if it needs its own pass"""
    activations: SparseActs | None
    """of the dictionary; None without one"""
    result: PromptResult
    elsewhere: dict[tuple[str, int | None], "Elsewhere"] = field(default_factory=dict)
    """Controls of the lens that were measured, by lens and token."""

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in (self.residuals, self.patterns, *self.parts.values()))


@torch.no_grad()
def read(
    loaded: HookedModel,
    spec: str,
    tokens: Tensor,
    dictionary: Dictionary | None,
    lenses: list[tuple[str, str]],
    check: Check,
) -> PromptReading:
    """Run the model once over `tokens [1, n]` and keep the values for the views; `lenses` are those to choose from."""
    from saes.features.sources import NeuronBasis

    check("running the model")
    shape = head_shape(loaded)
    layers = list(lens_hook_points(shape.n_layers))
    heads = [f"blocks.{layer}.attn.hook_pattern" for layer in range(shape.n_layers)]
    reads = [dictionary.hook_point] if dictionary is not None else []
    attributed = _attributed(loaded)
    with Capture(loaded, list(dict.fromkeys([*layers, *heads, *reads, *attributed]))) as capture:
        values = capture(tokens)
    check("computing the losses")
    residuals = torch.stack([values[name][0] for name in layers])
    patterns = torch.stack([values[name][0].half() for name in heads])
    losses = _losses(loaded, residuals[-1], tokens[0], check)
    check("looking for active features")
    first, acts = int(bos_token_id(loaded) is not None), None
    active: list[int] = []
    random: tuple[list[int], list[float]] = [], []
    if dictionary is not None:
        x = values[dictionary.hook_point][0].float()
        acts = dictionary.encode_sparse(x)
        if not isinstance(dictionary, NeuronBasis):
            random = at_random_vectors(dictionary, x, first)
            active = (acts.values[first:] > 0).sum(1).tolist()
    result = PromptResult(
        model=spec,
        tokens=token_strings(loaded, tokens),
        losses=losses,
        layers=["embedding", *(f"layer {i}" for i in range(shape.n_layers))],
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        features=_strongest(loaded, acts, tokens[0]) if acts is not None else [],
        active=active,
        random_active=random[0],
        random_strongest=random[1],
        lenses=lenses,
        patterns=thumbnails(patterns),
        vocabulary=shape.d_vocab,
        likeliest=token_strings(loaded, [int(final_norm_and_unembed(loaded, residuals[-1, -1:])[0].argmax())])[0],
    )
    return PromptReading(tokens, residuals, patterns, {name: values[name] for name in attributed}, acts, result)


def _attributed(loaded: HookedModel) -> list[str]:
    """Return the hook points that attribution at any token needs; none in a model for which it is not defined."""
    from interp.lenses.direct_attribution import attribution_points

    try:
        return attribution_points(loaded)
    except ConfigError:  # attribution itself says why
        return []


def thumbnails(patterns: Tensor) -> np.ndarray:
    """Return `[n_layers, n_heads, s, s]` uint8, 255 for an attention of 1: `s` is `n`, or less for long prompts."""
    small = patterns.float()
    if small.shape[-1] > THUMB:
        small = torch.nn.functional.adaptive_max_pool2d(small, THUMB)
    return (small * 255).round().to(torch.uint8).cpu().numpy()


def activations_of(reading: PromptReading, feature: int) -> list[float]:
    """Return the activation of one feature on every token."""
    acts = reading.activations
    assert acts is not None, "the prompt was read without a dictionary"
    on_tokens = torch.where(acts.indices == feature, acts.values.float(), 0.0).sum(1)
    return lists(on_tokens.clamp_min(0))


@torch.no_grad()
def lens_cells(
    loaded: HookedModel,
    reading: PromptReading,
    start: int,
    stop: int,
    translators: Lens | None,
    token: int | None,
    check: Check,
) -> LensCells:
    """Decode the residual stream of the positions from `start` up to `stop` after every layer.

    With a `token`, its rank (0: the most probable) and probability in each cell come too, and with both the control.
    """
    names = lens_hook_points(len(reading.residuals) - 1)
    chosen = reading.residuals[:, start:stop]
    if translators is not None:
        chosen = torch.stack([translators.translate(name, x) for name, x in zip(names, chosen, strict=True)])
    ids: list[Tensor] = []
    probabilities: list[Tensor] = []
    ranks: list[Tensor] = []
    followed: list[Tensor] = []
    for rows in torch.split(chosen.flatten(0, 1), _LENS_CELLS):
        check("decoding layers")
        logits = final_norm_and_unembed(loaded, rows).float()
        total = logits.logsumexp(-1, keepdim=True)
        best = logits.topk(min(TOP_TOKENS, logits.shape[1]), dim=-1)
        ids.append(best.indices)
        probabilities.append((best.values - total).exp())
        if token is not None:
            logit = logits[:, token, None]
            ranks.append((logits > logit).sum(-1))
            followed.append((logit - total).exp()[:, 0])
    shape = chosen.shape[:2]
    flat = torch.cat(ids)
    texts = np.array(token_strings(loaded, flat), object).reshape(*shape, -1)
    numbers = lists(torch.cat(probabilities).reshape(*shape, -1))
    control = elsewhere(loaded, reading, translators, token, check)
    others, same, usual = control.cells(flat[:, 0].reshape(shape).cpu().numpy(), start)
    guesses = [
        [list(zip(t, p, strict=True)) for t, p in zip(*layer, strict=True)]
        for layer in zip(texts.tolist(), numbers, strict=True)
    ]
    return LensCells(
        start=start,
        cells=guesses,
        followed=token_strings(loaded, [token])[0] if token is not None else None,
        rank=lists(torch.cat(ranks).reshape(shape)) if token is not None else [],
        probability=lists(torch.cat(followed).reshape(shape)) if token is not None else [],
        others=others,
        top_elsewhere=same,
        rank_elsewhere=usual,
    )


@torch.no_grad()
def next_tokens(
    loaded: HookedModel, reading: PromptReading, at: int, temperature: float, top: int = 10
) -> NextTokenGuesses:
    """Return the likeliest tokens after position `at`, with the softmax at a temperature."""
    log_p = (final_norm_and_unembed(loaded, reading.residuals[-1, at][None]).float()[0] / temperature).log_softmax(-1)
    best = log_p.topk(min(top, len(log_p)))
    return NextTokenGuesses(
        after=at,
        token=reading.result.tokens[at],
        temperature=temperature,
        guesses=list(zip(token_strings(loaded, best.indices), lists(best.values.exp()), strict=True)),
        entropy=float(-(log_p.exp() * log_p).nan_to_num().sum()),
        uniform=math.log(len(log_p)),
    )


def check_head(loaded: HookedModel, layer: int, head: int) -> None:
    shape = head_shape(loaded)
    if not (0 <= layer < shape.n_layers and 0 <= head < shape.n_heads):
        last = f"L{shape.n_layers - 1}H{shape.n_heads - 1}"
        raise UnknownNameError("head", f"L{layer}H{head}", ["L0H0", last], f"(the last one is {last})")


@torch.no_grad()
def answers(loaded: HookedModel, reading: PromptReading, at: int, answer: str, contrast: str) -> tuple[int, int | None]:
    """Ids of the answer and the contrast; empty ones are taken from the model's ranking after `at`."""
    logits = final_norm_and_unembed(loaded, reading.residuals[-1, at][None]).float()[0]
    likeliest = lists(logits.topk(2).indices)
    right = single_token(loaded, answer, logits) if answer else likeliest[0]
    if contrast:
        return right, single_token(loaded, contrast, logits)
    return right, None if answer else likeliest[1]


@torch.no_grad()
def token_at_end(loaded: HookedModel, reading: PromptReading, text: str) -> int:
    """Id of a word as the likelier of its two forms at the end of the prompt. Raises `PromptError`: several tokens."""
    return single_token(loaded, text, final_norm_and_unembed(loaded, reading.residuals[-1, -1][None]).float()[0])


def position(tokens: Tensor, after: int | None) -> int:
    """Return a position in `tokens [1, n]`, by default the last. Raises `PromptError`."""
    at = tokens.shape[1] - 1 if after is None else after
    if not 0 <= at < tokens.shape[1]:
        raise PromptError(f"the prompt has positions 0 to {tokens.shape[1] - 1}, got {at}; choose one of them")
    return at


def _losses(loaded: HookedModel, residual: Tensor, tokens: Tensor, check: Check) -> list[float | None]:
    """Nats of each token given those before it; None for the first. `residual [n, d_model]`, `tokens [n]`."""
    losses: list[float | None] = [None]
    for start in range(0, len(tokens) - 1, _LOSS_ROWS):
        check("computing the losses")
        targets = tokens[start + 1 : start + 1 + _LOSS_ROWS]
        logits = final_norm_and_unembed(loaded, residual[start : start + len(targets)]).float()
        logit = logits.gather(1, targets[:, None].to(logits.device))[:, 0]
        losses += lists(logits.logsumexp(-1) - logit)
    return losses


def _strongest(loaded: HookedModel, acts: SparseActs, tokens: Tensor) -> list[list[ActiveFeature]]:
    """The strongest features on each token; none on BOS, on which no dictionary here is trained."""
    best = acts.values.topk(min(TOP_FEATURES, acts.values.shape[1]), dim=1)
    numbers = acts.indices.long().gather(1, best.indices)
    bos = bos_token_id(loaded)
    return [
        [ActiveFeature(n, a) for n, a in zip(*row, strict=True) if a > 0 and token != bos]
        for token, *row in zip(lists(tokens), numbers.tolist(), best.values.tolist(), strict=True)
    ]


def lengths(vectors: Tensor) -> Tensor:
    """Return the Euclidean norm of each row of `[..., d]`, as `[..., 1]`."""
    return vectors.norm(dim=-1, keepdim=True)


@torch.no_grad()
def at_random_vectors(sae: Dictionary, x: Tensor, first: int) -> tuple[list[int], list[float]]:
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

    def __init__(
        self, loaded: HookedModel, reading: PromptReading, translators: Lens | None, token: int | None, check: Check
    ):
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
            ranks = [[float(np.median(row[others])) for others in apart] for row in self.rank]
        return apart.sum(1).tolist(), same.tolist(), ranks


def elsewhere(
    loaded: HookedModel, reading: PromptReading, translators: Lens | None, token: int | None, check: Check
) -> Elsewhere:
    """Return the control of a reading's lens, measured once for each lens and token."""
    key = (translators.how if translators else "logit", token)
    if key not in reading.elsewhere:
        reading.elsewhere[key] = Elsewhere(loaded, reading, translators, token, check)
    return reading.elsewhere[key]


def lists(values: Tensor) -> Any:
    """Return the values of a tensor, in lists of lists."""
    return values.tolist()
