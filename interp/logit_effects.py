"""What a direction of the residual stream does to the next token's logits, read straight off the weights."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK_DIRECTIONS = 256


class Effects(NamedTuple):
    """The tokens moved most by each direction, all `[n, k]`, strongest first."""

    promoted_ids: Tensor
    promoted_logits: Tensor
    suppressed_ids: Tensor
    suppressed_logits: Tensor


@torch.no_grad()
def logit_effects(model: Any, directions: Tensor, k: int) -> Effects:
    """The `k` tokens whose logit each of `directions [n, d_model]` raises and lowers most.

    Each direction alone is taken as the final residual: it goes through the model's own final norm (which rescales it
    to root mean square 1, subtracts the mean if the norm does, and applies the gain) and the unembedding. The logits of
    a zero residual (norm and unembedding biases) are subtracted, and so is the mean over the vocabulary, which softmax
    cannot see. So values compare between features as directions, whatever their length, but are not the change at any
    actual token: there the norm divides by the whole residual. Later layers are left out.
    """
    from interp.models.adapter import final_norm_and_unembed

    device = next(model.parameters()).device
    zero = final_norm_and_unembed(model, torch.zeros(1, 1, directions.shape[1], device=device))[0, 0].float()
    parts = []
    for block in directions.split(BLOCK_DIRECTIONS):
        logits = final_norm_and_unembed(model, block[None].to(device, torch.float32))[0].float() - zero
        logits -= logits.mean(1, keepdim=True)
        high, low = logits.topk(k), logits.topk(k, largest=False)
        parts.append((high.indices, high.values, low.indices, low.values))
    return Effects(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))
