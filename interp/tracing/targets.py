"""Targets of an attribution graph: what of the next token it explains.

Targets are a token, the difference of two, a latent (`feature:LAYER:POSITION:LATENT`), or several of the likeliest
tokens at once where a config asks for them (`max_logits`). By default it is one difference worth explaining: the
likeliest content word against the next (`default_contrast`). The likeliest token is often an article, which many
prompts share, and ten targets at once have no common explanation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, PromptError
from interp.models.adapter import token_strings
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.tracing.edges import System
from interp.tracing.effects import final_input
from interp.tracing.frozen import Starts
from interp.tracing.function_words import content_word
from interp.tracing.graph import GraphTarget, TraceConfig

LOOK = 10
"""Likeliest tokens among which a content word is looked for."""
LEAST = 0.05
"""A content word with a smaller fraction of the likeliest token's probability is not what the model says."""


class Aim(NamedTuple):
    """Outputs that a graph explains: targets, what each reads, and its clean value."""

    targets: list[GraphTarget]
    starts: Starts
    values: Float[Tensor, " targets"]
    feature: int | None = None
    """number of the latent that is the target"""


def aim_at(
    model: HookedModel, system: System, config: TraceConfig, target: str | None = None, contrast: str | None = None
) -> Aim:
    """Return the targets of a graph and what they read; by default `default_contrast`.

    Raises `PromptError` for a target that is not one token, `ConfigError` for a latent that is not active.
    """
    if target is not None and target.startswith("feature:"):
        if contrast is not None:
            raise ConfigError(f"a latent as the target has no contrast; leave --contrast {contrast!r} out")
        return _feature_aim(system, target)
    frozen = system.frozen
    probabilities = frozen.logits.softmax(-1)
    if target is None:
        if contrast is not None:
            raise ConfigError(f"a contrast needs a target; got contrast {contrast!r} alone, add --target")
        if config.max_logits == 1:
            ids = likely_tokens(probabilities, 1.0, LOOK)
            targets = [default_contrast(ids, token_strings(model, ids), probabilities[ids].tolist())]
        else:
            ids = likely_tokens(probabilities, config.logit_share, config.max_logits)
            targets = [
                GraphTarget(text, token, weight=float(probabilities[token]))
                for token, text in zip(ids, token_strings(model, ids), strict=True)
            ]
    else:
        token, against = _one_token(model, target), None if contrast is None else _one_token(model, contrast)
        targets = [_named(target, token, contrast, against)]
    unembed = model.W_U.detach().float()  # its bias is part of a logit, but nothing reads it
    reads, values = [], []
    for aim in targets:
        baseline = unembed.mean(1) if aim.contrast is None else unembed[:, aim.contrast]
        reads.append(unembed[:, aim.token] - baseline)
        values.append(reads[-1] @ final_input(frozen, frozen.resid_post[-1]))
    n = frozen.shape.n_layers
    layer = torch.full((len(targets),), n, device=unembed.device)
    starts = Starts(layer, torch.full_like(layer, frozen.n_pos - 1), torch.stack(reads))
    return Aim(targets, starts, torch.stack(values))


def default_contrast(ids: Sequence[int], texts: Sequence[str], probabilities: Sequence[float]) -> GraphTarget:
    """Return the likeliest content word against the next one, given the likeliest tokens in descending order.

    Where no content word has `LEAST` of the probability of the likeliest token, the likeliest token is the target. The
    contrast is the next content word that is not the same word in another spelling, else the next token.
    """
    words = [n for n, text in enumerate(texts) if content_word(text)]
    first = words[0] if words and probabilities[words[0]] >= LEAST * probabilities[0] else 0
    others = [n for n, text in enumerate(texts) if n != first and _spelling(text) != _spelling(texts[first])]
    if not others:
        return GraphTarget(texts[first], ids[first])
    against = next((n for n in others if first in words and n in words), others[0])
    return _named(texts[first], ids[first], texts[against], ids[against])


def _spelling(text: str) -> str:
    return text.strip().casefold()


def _named(target: str, token: int, contrast: str | None, against: int | None) -> GraphTarget:
    return GraphTarget(target if contrast is None else f"{target} - {contrast}", token, against)


def _feature_aim(system: System, name: str) -> Aim:
    parts = name.split(":")[1:]
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ConfigError(f"a latent is written feature:LAYER:POSITION:LATENT, got {name!r}")
    layer, position, latent = map(int, parts)
    mask = (system.layer == layer) & (system.position == position) & (system.latent == latent)
    if not mask.any():
        raise ConfigError(f"latent {latent} of layer {layer} is not active at position {position} of this prompt")
    number = mask.nonzero()[0]
    targets = [GraphTarget(name)]
    return Aim(targets, system.feature_starts(number), system.read_values(number), int(number))


def likely_tokens(probabilities: Float[Tensor, " d_vocab"], share: float, limit: int) -> list[int]:
    """Return the fewest most likely tokens whose probabilities sum to `share`, at most `limit`."""
    values, tokens = probabilities.topk(min(limit, len(probabilities)))
    n = int((values.cumsum(0) < share).sum()) + 1
    return tokens[:n].tolist()


def _one_token(model: HookedModel, text: str) -> int:
    ids = list(tokenizer_of(model).encode_batch([text])[0])
    if len(ids) != 1:
        pieces = ", ".join(repr(piece) for piece in token_strings(model, ids))
        raise PromptError(f"a target is one token, {text!r} is {len(ids)} ({pieces}); a leading space often matters")
    return int(ids[0])
