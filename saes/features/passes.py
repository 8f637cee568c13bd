"""Passes of a model with directions added or subtracted, and the words that directions read there."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from interp.interventions.arms import Arms, positions_from, prefix_of, read_arms
from interp.interventions.site import DictionarySite
from interp.lenses.vocabulary import vocabulary_of
from interp.models.adapter import bos_token_id
from interp.models.hooked import HookedModel
from saes.features.case import Passage, first_words

STRONGEST = 256
"""Tokens of a direction among which its words are looked for."""


def with_bos(model: HookedModel, passages: Sequence[Passage]) -> tuple[Tensor, Tensor]:
    """Return tokens `[n, pos]` with BOS first where the model has one, and lengths `[n]`.

    Shorter passages are padded at the end, which causal attention does not see.
    """
    bos = bos_token_id(model)
    start = [] if bos is None else [bos]
    ids = [start + list(passage.token_ids) for passage in passages]
    width = max(map(len, ids))
    device = model.cfg.device
    tokens = torch.tensor([row + [row[-1]] * (width - len(row)) for row in ids], device=device)
    return tokens, torch.tensor([len(row) for row in ids], device=device)


def ablated_log_p(
    site: DictionarySite,
    passage: Passage,
    feature: int,
    arms: Arms,
    ids: Sequence[int] = (),
    done: Callable[[int], None] | None = None,
    *,
    start: int = 0,
    silent: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities `[1 + k, n, 2]` when activation times each direction is subtracted, and positions `[n]`.

    They are those of the unchanged model, then of every arm: of the token that follows (at the end of the passage of
    the last one, which says nothing), and of the tokens `ids` together. Positions are those from the first firing and
    from `start` on, with `silent` only those where the feature is not active.
    """
    tokens, _ = with_bos(site.model, [passage])
    reading = site.read(tokens)
    activation = site.activations(reading.x, [feature])[0, :, 0]
    wanted = (activation > 0).cumsum(0) > 0
    if silent:
        wanted &= activation == 0
    wanted[:start] = False
    at = wanted.nonzero()[:, 0]
    if not len(at):
        return torch.empty(1 + len(arms), 0, 2), at.cpu()
    following = tokens[0, (at + 1).clamp(max=len(wanted) - 1), None]

    def log_p(logits: Tensor) -> Tensor:
        logits = logits[:, 0].float()
        next_token = logits.gather(-1, following.expand(len(logits), -1, 1))
        together = logits[..., list(ids)].logsumexp(-1, keepdim=True)
        return torch.cat([next_token, together], -1) - logits.logsumexp(-1, keepdim=True)

    removed = replace(reading.prefix, sizes=reading.prefix.sizes * -activation)
    return read_arms(site.model, removed, arms, log_p, at=at[None], done=done), at.cpu()


def ablation_losses(
    site: DictionarySite,
    passage: Passage,
    feature: int,
    arms: Arms,
    done: Callable[[int], None] | None = None,
    *,
    start: int = 0,
) -> Tensor:
    """Return the rise of the loss `[k, pos - 1]` at each position when activation times each direction is subtracted.

    It is 0 before the feature fires; before the position `start` it is not read and is 0.
    """
    log_p, at = ablated_log_p(site, passage, feature, arms, done=done, start=start)
    rises = torch.zeros(len(arms), len(passage.token_ids) + site.first)
    rises[:, at] = log_p[:1, :, 0] - log_p[1:, :, 0]
    return rises[:, :-1]


def next_token_changes(
    site: DictionarySite,
    prompts: Sequence[Tensor],
    arms: Arms,
    ids: Sequence[int],
    done: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Steer each prompt along each direction, and return two changes of the next-token distribution.

    They are changes of log-probability `[k, prompts, ids]` in nats, and `KL(unchanged || steered)`, `[k, prompts]`.
    """
    moved, shift = [], []
    for tokens in prompts:
        clean: list[Tensor] = []

        def measure(logits: Tensor, clean: list[Tensor] = clean) -> Tensor:
            last = logits[:, 0, -1].float()
            total = last.logsumexp(-1, keepdim=True)
            if not clean:
                clean.append((last[0] - total[0]).exp())
            return torch.cat([last[:, list(ids)], (last @ clean[0])[:, None]], dim=1) - total

        prefix, _ = prefix_of(site.model, tokens, arms)
        changes = read_arms(site.model, prefix, arms, measure, at=positions_from(tokens, -1), done=done).double()
        moved.append(changes[1:, :-1] - changes[0, :-1])
        shift.append(changes[0, -1] - changes[1:, -1])
    return torch.stack(moved, 1).numpy(), torch.stack(shift, 1).numpy()


def words_read(site: DictionarySite, passages: Sequence[Passage], directions: Tensor, n: int) -> list[list[int]]:
    """Return the tokens of the `n` words that each direction `[k, d]` reads most, each in all its forms.

    It reads the tokens on which the residual reaches furthest along it. The list is empty where the dictionary reads a
    space of another width.
    """
    tokens, lengths = with_bos(site.model, passages)
    x = site.read(tokens).x
    if x.shape[-1] != directions.shape[-1]:
        return []
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    inside[:, : site.first] = False
    reached = (x / site.size(x))[inside] @ directions.to(x).T
    strongest = tokens[inside][reached.topk(min(STRONGEST, len(reached)), dim=0).indices].T.tolist()
    vocabulary, bos = vocabulary_of(site.model), bos_token_id(site.model)
    return [first_words(ids, n, vocabulary, () if bos is None else (bos,)) for ids in strongest]
