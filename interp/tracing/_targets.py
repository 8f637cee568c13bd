"""Targets of an attribution graph: what of the next token it explains.

Targets are a token, the difference of two, a latent (`feature:LAYER:POSITION:LATENT`), or several of the likeliest
tokens at once where a config asks for them (`max_logits`). By default it is one difference worth explaining: the
likeliest content word against the next, or against a stated contrast (`default_contrast`). The likeliest token is often
an article, which many prompts share, and ten targets at once have no common explanation.
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
from interp.text.function_words import content_word
from interp.tracing.edges import System
from interp.tracing.effects import final_input
from interp.tracing.frozen import Starts
from interp.tracing.graph import GraphTarget, LikelyToken, TraceConfig

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
    against = None if contrast is None else _one_token(model, contrast)
    if target is not None:
        targets = [_named(_one_token(model, target), against)]
    elif config.max_logits == 1:
        targets = [default_contrast(likely_tokens(model, frozen.logits), against)]
    elif against is not None:
        raise ConfigError(f"a contrast stands against one target; leave out --max-logits {config.max_logits}")
    else:
        likely = likely_tokens(model, frozen.logits, config.logit_share, config.max_logits)
        targets = [GraphTarget(token.text, token.token, weight=token.probability) for token in likely]
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


def default_contrast(likely: Sequence[LikelyToken], contrast: LikelyToken | None = None) -> GraphTarget:
    """Return the likeliest content word against `contrast`, given the likeliest tokens in descending order.

    Where no content word has `LEAST` of the probability of the likeliest token, the likeliest token is the target. The
    contrast is by default the next content word that is not the same word in another spelling, else the next token.
    """
    left = _others(likely, contrast) or list(likely)
    words = [token for token in left if content_word(token.text)]
    first = words[0] if words and words[0].probability >= LEAST * left[0].probability else left[0]
    if contrast is None and (others := _others(left, first)):
        contrast = next((token for token in others if first in words and token in words), others[0])
    return _named(first, contrast)


def _others(likely: Sequence[LikelyToken], chosen: LikelyToken | None) -> list[LikelyToken]:
    """Return the tokens that are not the chosen word in any spelling."""
    return [token for token in likely if chosen is None or _spelling(token.text) != _spelling(chosen.text)]


def _spelling(text: str) -> str:
    return text.strip().casefold()


def _named(target: LikelyToken, contrast: LikelyToken | None) -> GraphTarget:
    if contrast is None:
        return GraphTarget(target.text, target.token)
    return GraphTarget(f"{target.text} - {contrast.text}", target.token, contrast.token)


def _feature_aim(system: System, name: str) -> Aim:
    parts = name.split(":")[1:]
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ConfigError(f"a latent is written feature:LAYER:POSITION:LATENT, got {name!r}")
    layer, position, latent = map(int, parts)
    mask = (system.layer == layer) & (system.position == position) & (system.latent == latent)
    if not mask.any():
        raise ConfigError(f"latent {latent} of layer {layer} is not active at position {position} of this prompt")
    number = mask.nonzero()[0]
    return Aim([GraphTarget(name)], system.feature_starts(number), system.read_values(number), int(number))


def likely_tokens(
    model: HookedModel, logits: Float[Tensor, " d_vocab"], share: float = 1.0, limit: int = LOOK
) -> list[LikelyToken]:
    """Return the fewest most likely tokens whose probabilities sum to `share`, at most `limit`."""
    values, tokens = logits.softmax(-1).topk(min(limit, len(logits)))
    n = int((values.cumsum(0) < share).sum()) + 1
    ids = tokens[:n].tolist()
    rows = zip(token_strings(model, ids), ids, values.tolist(), strict=False)
    return [LikelyToken(text=text, token=token, probability=probability) for text, token, probability in rows]


def _one_token(model: HookedModel, text: str) -> LikelyToken:
    ids = list(tokenizer_of(model).encode_batch([text])[0])
    if len(ids) != 1:
        pieces = ", ".join(repr(piece) for piece in token_strings(model, ids))
        raise PromptError(f"a target is one token, {text!r} is {len(ids)} ({pieces}); a leading space often matters")
    return LikelyToken(text=text, token=int(ids[0]))
