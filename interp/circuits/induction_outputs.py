"""What a head adds to the logits itself: its direct path replaced, nothing between, the final norm recomputed.

The final stream is a sum, so the path from a head to the logits is replaced by adding to it what the head writes on
prompts that do not repeat, minus what it writes here: there it has nothing to find. Measured is the logit of the right
next token above the mean of all logits, wherever that token can be known from the first block. Exact, and two passes
for all heads. What later parts make of the head's write is not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.induction_prompts import InductionPrompts
from interp.circuits.task import final_point
from interp.intervals import t_interval
from interp.models.residual import ResidualStream
from interp.names import HeadName
from interp.patching.partial import capture


@dataclass(frozen=True)
class DirectOutput:
    """One head's direct path to the logits, replaced."""

    change: np.ndarray
    """`[n]` change of the right token's logit above the mean, by prompt; negative: the head argues for it"""
    control: np.ndarray | None
    """`[n]` the same of the strongest other head of its layer (no induction head itself)"""

    def evidence(self) -> dict[str, float]:
        """The change with its interval, and the bound of the control, in logits."""
        mean, low, high = t_interval(self.change)
        found = {"logit_effect": float(mean), "low": float(low), "high": float(high)}
        if self.control is not None:
            found["logit_effect_of_other_head"] = float(self.control.mean())
        return found


def direct_outputs(
    model: Any, drawn: Sequence[InductionPrompts], heads: Sequence[HeadName], batch_size: int
) -> dict[HeadName, DirectOutput]:
    """Of each head in `heads`, with all other heads of its layer as controls."""
    if not heads:
        return {}
    layers = sorted({head.layer for head in heads})
    parts = [part for prompts in drawn for part in prompts.batches(batch_size)]
    changes = torch.cat([direct_logit_changes(model, part, layers) for part in parts], -1).double().numpy()
    found = {}
    for head in heads:
        of_layer = changes[layers.index(head.layer)]
        others = [i for i in range(len(of_layer)) if HeadName(head.layer, i) not in heads]
        strongest = min(others, key=lambda i: of_layer[i].mean(), default=None)
        found[head] = DirectOutput(of_layer[head.head], None if strongest is None else of_layer[strongest])
    return found


@torch.no_grad()
def direct_logit_changes(model: Any, prompts: InductionPrompts, layers: Sequence[int]) -> Tensor:
    """`[n_layers, n_heads, n]`: mean change of the right token's logit above the mean, each head of `layers` alone."""
    residual, tokens = ResidualStream(model), prompts.tokens
    names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    final = final_point(model)
    clean, other = capture(model, tokens, [*names, final]), capture(model, prompts.unrepeated, names)
    known = _known(prompts).to(clean[final].device)
    following = tokens[:, 1:].to(known.device)[known]
    W_U = model.W_U
    direction = W_U.T[following] - W_U.mean(1)
    stream = clean[final][:, :-1][known]

    def above_mean(resid: Tensor) -> Tensor:
        logits = (residual.norm_final(resid[None])[0] * direction).sum(-1)
        total = logits.new_zeros(known.shape, dtype=torch.float32).masked_scatter_(known, logits.float())
        return (total.sum(1) / known.sum(1)).cpu()

    before, changes = above_mean(stream), []
    for layer, name in zip(layers, names, strict=True):
        change = (other[name] - clean[name])[:, :-1][known]  # [n_known, n_heads, d_head]
        W_O = residual.W(layer, "o")
        changes.append(torch.stack([above_mean(stream + change[:, i] @ W) - before for i, W in enumerate(W_O)]))
    return torch.stack(changes)


def _known(prompts: InductionPrompts) -> Tensor:
    """`[n, pos - 1]` bool: positions whose next token followed the same token one lag before."""
    position = torch.arange(prompts.tokens.shape[1] - 1)[None]
    return position >= (prompts.start + prompts.lags)[:, None]
