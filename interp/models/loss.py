"""Loss per token, and measures of in-context learning derived from it.

    losses = loss_per_token(model, tokens)                       # [batch, pos - 1], nats
    in_context_learning_score(losses, late=50, early=5)          # below 0: later tokens are easier
    first, second = repeat_losses(losses, lags, start=1)         # before and after the repeat begins

A low loss is behaviour, not mechanism: models copy by other means than induction heads too.
"""

from typing import Any

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from interp.errors import ConfigError, PromptError


def token_losses(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float32[Tensor, "batch pos-1"]:
    """`[batch, pos - 1]` float32 nats: entry `t` is the loss of token `t + 1` given tokens `0 .. t`.

    `logits [batch, pos, d_vocab]`, `tokens [batch, pos]`. 0 is certainty, `log(d_vocab)` a uniform guess.
    """
    log_p = logits[:, :-1].float().log_softmax(-1)
    return -log_p.gather(-1, tokens[:, 1:, None].to(log_p.device))[..., 0]


@torch.no_grad()
def loss_per_token(model: Any, tokens: Int[Tensor, "..."], *, batch_size: int = 16) -> Float32[Tensor, "batch targets"]:
    """`[batch, pos - 1]` float32 nats on the CPU; see `token_losses`. Logits of `batch_size` prompts exist at a time.

    Raises `PromptError` on prompts of fewer than two tokens.
    """
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise PromptError(f"losses need tokens [batch, pos] with at least 2 positions, got {list(tokens.shape)}")
    return torch.cat([token_losses(model(rows), rows).cpu() for rows in tokens.split(batch_size)])


def in_context_learning_score(losses: Float[Tensor, "batch targets"], *, late: int, early: int) -> float:
    """Mean loss of token `late` minus mean loss of token `early` (Olsson et al. 2022 take tokens 500 and 50).

    Nats; 0 when context does not help, negative when it does. `losses [batch, pos - 1]` of `loss_per_token`; both
    indices count tokens of the prompt, BOS included, so the first token that has a loss is 1.

    Raises `ConfigError` when an index has no loss or `late` is not after `early`.
    """
    last = losses.shape[1]
    if not 1 <= early < late <= last:
        raise ConfigError(
            f"1 <= early < late <= {last} was expected (token 0 has no loss), got early {early} and late {late}; "
            "use longer prompts or smaller indices"
        )
    return float(losses[:, late - 1].mean() - losses[:, early - 1].mean())


def repeat_losses(
    losses: Float[Tensor, "batch targets"], lags: Int[Tensor, " batch"] | int, *, start: int = 0
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Per prompt, the mean loss `[batch]` of the first block's tokens and of all tokens after it (nats).

    `losses [batch, pos - 1]`; `lags [batch]` are the block lengths (`interp.text.tokens.RandomPrompts`), `start` is the
    index of the first block's first token: 1 after a BOS. The first token of the repeat is among the second, although
    nothing before it says that a repeat begins. Without a BOS the very first token has no loss and is left out.

    Raises `ConfigError` when a prompt has no token in one of the two.
    """
    lags = torch.as_tensor(lags, device=losses.device).expand(len(losses))
    target = torch.arange(1, losses.shape[1] + 1, device=losses.device)[None]
    second = target >= start + lags[:, None]
    first = (target >= start) & ~second
    if not (first.any(1) & second.any(1)).all():
        raise ConfigError(
            f"every prompt needs a token before and after its repeat begins; {losses.shape[1] + 1} tokens that start "
            f"at {start} cannot hold lags up to {int(lags.max())}"
        )
    return _masked_mean(losses, first), _masked_mean(losses, second)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(1) / mask.sum(1)
