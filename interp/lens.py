"""The logit lens: what the model would say if it stopped after each layer (nostalgebraist 2020).

Each layer's residual goes through the model's own final norm and unembedding. Early layers need not speak the last
layer's language, so an early reading is a hint; the last is the model's prediction itself.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import PromptError


@dataclass(frozen=True)
class LogitLens:
    """Readings of one prompt; layer 0 is the embedding, layer `i` the residual after block `i - 1`."""

    layers: tuple[str, ...]
    """`[n_layers + 1]` hook points"""
    tokens: tuple[str, ...]
    """`[pos]` the prompt"""
    top_tokens: tuple[tuple[tuple[str, ...], ...], ...]
    """`[n_layers + 1][pos][top]` text, most probable first"""
    token_ids: Tensor
    """`[n_layers + 1, pos, top]` int64"""
    probabilities: Tensor
    """`[n_layers + 1, pos, top]` float32, 0 to 1"""
    entropy: Tensor
    """`[n_layers + 1, pos]` float32, nats: 0 certain, `log(d_vocab)` no idea"""

    def to_records(self) -> list[dict[str, Any]]:
        """One plain dict per layer and position: `layer, hook_point, position, token, top, entropy`.

        `top` is a list of `{"token", "token_id", "probability"}`.
        """
        return [
            {
                "layer": layer,
                "hook_point": name,
                "position": position,
                "token": token,
                "entropy": float(self.entropy[layer, position]),
                "top": self._top(layer, position),
            }
            for layer, name in enumerate(self.layers)
            for position, token in enumerate(self.tokens)
        ]

    def _top(self, layer: int, position: int) -> list[dict[str, Any]]:
        columns = (
            self.top_tokens[layer][position],
            self.token_ids[layer, position].tolist(),
            self.probabilities[layer, position].tolist(),
        )
        return [{"token": t, "token_id": i, "probability": p} for t, i, p in zip(*columns, strict=True)]


@torch.no_grad()
def logit_lens(model: Any, tokens: Tensor, *, top: int = 5) -> LogitLens:
    """Read every layer of `tokens [1, pos]`; logits of one layer exist at a time.

    Raises `PromptError` on anything but one prompt of at least one token that fits the context.
    """
    from interp.models.adapter import final_norm_and_unembed, token_strings
    from interp.models.capture import Capture

    if tokens.ndim != 2 or len(tokens) != 1 or tokens.shape[1] == 0:
        raise PromptError(f"the lens reads one prompt as [1, pos] with at least one token, got {list(tokens.shape)}")
    if tokens.shape[1] > model.cfg.n_ctx:
        raise PromptError(f"the prompt has {tokens.shape[1]} tokens, the context holds {model.cfg.n_ctx}; shorten it")
    layers = ("blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers)))
    with Capture(model, list(layers)) as capture:
        residuals = capture(tokens)
    readings = [_read_layer(final_norm_and_unembed(model, residuals[name])[0].float(), top) for name in layers]
    ids, probabilities, entropy = (torch.stack(column) for column in zip(*readings, strict=True))
    strings = token_strings(model, ids)
    pos, k = ids.shape[1:]
    nested = tuple(
        tuple(tuple(strings[(layer * pos + p) * k : (layer * pos + p + 1) * k]) for p in range(pos))
        for layer in range(len(layers))
    )
    return LogitLens(layers, tuple(token_strings(model, tokens[0])), nested, ids, probabilities, entropy)


def _read_layer(logits: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and probabilities of the `top` tokens `[pos, top]`, and the entropy `[pos]`, of `logits [pos, d_vocab]`."""
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    values, ids = log_p.topk(min(top, logits.shape[-1]), dim=-1)
    return ids.cpu(), values.exp().cpu(), entropy.cpu()
