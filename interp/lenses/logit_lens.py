"""The logit lens: the next-token distribution decoded from every layer (nostalgebraist 2020).

Each layer's residual goes through the model's own final norm and unembedding. Early layers may use another basis than
the last layer, so their readings are only a hint; the reading of the last layer is the model's own prediction.

`logit_effects` decodes directions of the residual stream in the same way: the tokens whose logits they raise and lower.

`lenses_of` opens the fitted lenses that a workspace has for a model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int, Int64
from torch import Tensor

from interp.errors import PromptError
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import Lens, newest_lens
from interp.lenses.tuned_lens import TunedLens
from interp.models.adapter import final_norm_and_unembed
from interp.models.hooked import HookedModel
from interp.models.passes import Capture
from interp.names import lens_hook_points
from interp.results import ROWS, Record, Result
from interp.view import Rows, View
from interp.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LogitLens(Result):
    """Readings of one prompt; layer 0 is the embedding, layer `i` the residual after block `i - 1`."""

    layers: tuple[str, ...]
    """`[n_layers + 1]` hook points"""
    tokens: tuple[str, ...]
    """`[pos]` the prompt"""
    top_tokens: tuple[tuple[tuple[str, ...], ...], ...]
    """`[n_layers + 1][pos][top]` text, most probable first"""
    token_ids: Int64[Tensor, "layers pos top"]
    """`[n_layers + 1, pos, top]` int64"""
    probabilities: Float32[Tensor, "layers pos top"]
    """`[n_layers + 1, pos, top]` float32, 0 to 1"""
    entropy: Float32[Tensor, "layers pos"]
    """`[n_layers + 1, pos]` float32, nats: 0 for a certain prediction, `log(d_vocab)` for a uniform one"""
    kl: Float32[Tensor, "layers pos"]
    """`[n_layers + 1, pos]` float32, nats: KL(model's output || reading); 0 at the last layer"""
    lens: str = "logit"
    """`logit`, or the lens that was applied: `tuned`, `jacobian`"""

    def to_records(self) -> list[Record]:
        """Return one row per layer and position: `layer, hook_point, position, token, top, entropy, kl`.

        `top` is a list of `{"token", "token_id", "probability"}`.
        """
        return [
            {
                "layer": layer,
                "hook_point": name,
                "position": position,
                "token": token,
                "entropy": float(self.entropy[layer, position]),
                "kl": float(self.kl[layer, position]),
                "top": self._top(layer, position),
            }
            for layer, name in enumerate(self.layers)
            for position, token in enumerate(self.tokens)
        ]

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per layer and position: `layer, position, token, reading, probability, entropy, kl`.

        `reading` is the most probable next token; entropy and KL are in nats.
        """
        import pandas as pd

        return pd.DataFrame([self._row(record) for record in self.to_records()])

    def view(self) -> View:
        after = f"next token after {self.tokens[-1]!r}"
        yield f"{self.lens.capitalize()} lens: {after}, layer by layer (entropy, KL in nats)"
        yield Rows(self._rows)

    def _rows(self) -> list[Record]:
        """Return the last position, at evenly spaced layers."""
        rows = [self._row(r) for r in self.to_records() if r["position"] == len(self.tokens) - 1]
        chosen = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round().astype(int)
        return [rows[i] for i in chosen]

    def _row(self, record: Record) -> Record:
        best = record["top"][0]
        row = {name: record[name] for name in ("layer", "position", "token")}
        row |= {"reading": best["token"], "probability": best["probability"]}
        return row | {"entropy": record["entropy"], "kl": record["kl"]}

    def _top(self, layer: int, position: int) -> list[Record]:
        columns = (
            self.top_tokens[layer][position],
            self.token_ids[layer, position].tolist(),
            self.probabilities[layer, position].tolist(),
        )
        return [{"token": t, "token_id": i, "probability": p} for t, i, p in zip(*columns, strict=True)]


@dataclass(frozen=True)
class TokenTrajectory(Result):
    """Rank and probability of one token at every layer of one prompt."""

    layers: tuple[str, ...]
    """`[n_layers + 1]` hook points"""
    token_id: int
    rank: Int64[Tensor, "layers pos"]
    """`[n_layers + 1, pos]` int64: number of more probable tokens; 0 is the top"""
    probability: Float32[Tensor, "layers pos"]
    """`[n_layers + 1, pos]` float32, 0 to 1"""
    lens: str = "logit"

    def to_records(self) -> list[Record]:
        """Return one row per layer and position: `layer, position, rank` (0 is the top), `probability`."""
        return [
            {
                "layer": layer,
                "position": position,
                "rank": rank,
                "probability": float(self.probability[layer, position]),
            }
            for layer, ranks in enumerate(self.rank.tolist())
            for position, rank in enumerate(ranks)
        ]

    def view(self) -> View:
        yield f"Token {self.token_id} through {len(self.layers)} layers, {self.lens} lens; the last position"
        yield Rows(lambda: [row for row in self.to_records() if row["position"] == self.rank.shape[1] - 1])


@torch.no_grad()
def logit_lens(model: HookedModel, tokens: Int[Tensor, "..."], *, top: int = 5, lens: Lens | None = None) -> LogitLens:
    """Decode the residual of every layer. The logits of the last layer and of one other are in memory at a time.

    Args:
        model: its final norm and unembedding decode.
        tokens: one prompt, `[1, pos]`.
        top: the number of tokens that are kept at each layer and position.
        lens: translates each residual first: a `TunedLens` or a `JacobianLens` of these weights.
    Returns: the most likely tokens after each layer, and how far its prediction is from the last one (KL, nats).
    Raises:
        PromptError: anything but one prompt of at least one token that fits the context.
        MismatchError: a lens of other weights.

    >>> print(logit_lens(model, tokens[:, :3], top=2))
    Logit lens: next token after 'h', layer by layer (entropy, KL in nats)
    ...
    """
    from interp.models.adapter import token_strings

    layers, target, readings = lens_hook_points(model.cfg.n_layers), None, []
    for logits in reversed_readings(model, tokens, lens):  # last layer first: every other layer is compared with it
        log_p = logits.log_softmax(-1)
        target = log_p if target is None else target
        readings.append((*_read_layer(log_p, top), (target.exp() * (target - log_p)).sum(-1).cpu()))
    ids, probabilities, entropy, kl = (torch.stack(column[::-1]) for column in zip(*readings, strict=True))
    strings = token_strings(model, ids)
    pos, k = ids.shape[1:]
    nested = tuple(
        tuple(tuple(strings[(layer * pos + p) * k : (layer * pos + p + 1) * k]) for p in range(pos))
        for layer in range(len(layers))
    )
    prompt, kind = tuple(token_strings(model, tokens[0])), "logit" if lens is None else lens.how
    return LogitLens(layers, prompt, nested, ids, probabilities, entropy, kl.clamp_min(0), kind)


@torch.no_grad()
def follow_token(
    model: HookedModel, tokens: Int[Tensor, "..."], token_id: int, *, lens: Lens | None = None
) -> TokenTrajectory:
    """Return the rank and probability of one token at every layer and position of `tokens [1, pos]`.

        print(follow_token(model, tokens[:1], 5))

    `token_id` names the token that is followed; a `lens` translates residuals as in `logit_lens`.

    Raises `PromptError` as `logit_lens` does, and for a token outside the vocabulary.
    """
    if not 0 <= token_id < model.cfg.d_vocab:
        raise PromptError(f"expected a token id below {model.cfg.d_vocab}, got {token_id}")
    ranks, probabilities = [], []
    for logits in reversed_readings(model, tokens, lens):
        ranks.append((logits > logits[:, token_id, None]).sum(-1).cpu())
        probabilities.append(logits.log_softmax(-1)[:, token_id].exp().cpu())
    layers, kind = lens_hook_points(model.cfg.n_layers), "logit" if lens is None else lens.how
    return TokenTrajectory(layers, token_id, torch.stack(ranks[::-1]), torch.stack(probabilities[::-1]), kind)


def reversed_readings(
    model: HookedModel, tokens: Int[Tensor, "..."], lens: Lens | None = None
) -> Iterator[Float32[Tensor, "pos d_vocab"]]:
    """Yield the logits `[pos, d_vocab]` float32 of every layer of one prompt, the last layer first."""
    if tokens.ndim != 2 or len(tokens) != 1 or tokens.shape[1] == 0:
        raise PromptError(f"the lens reads one prompt as [1, pos] with at least one token, got {list(tokens.shape)}")
    if tokens.shape[1] > model.cfg.n_ctx:
        raise PromptError(f"the prompt has {tokens.shape[1]} tokens, the context holds {model.cfg.n_ctx}; shorten it")
    if lens is not None:
        lens.check_model(model)
    layers = lens_hook_points(model.cfg.n_layers)
    with Capture(model, list(layers)) as capture:
        residuals = capture(tokens)
    for name in reversed(layers):
        resid = residuals.pop(name)
        yield final_norm_and_unembed(model, resid if lens is None else lens.translate(name, resid))[0].float()


def _read_layer(log_p: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return top ids and probabilities `[pos, top]`, and the entropy `[pos]`, of `log_p [pos, d_vocab]`."""
    entropy = -(log_p.exp() * log_p).sum(-1)
    values, ids = log_p.topk(min(top, log_p.shape[-1]), dim=-1)
    return ids.cpu(), values.exp().cpu(), entropy.cpu()


BLOCK_DIRECTIONS = 128
"""directions at a time: 25 MB of logits over 49,152 tokens, which the C library keeps for the next block"""


class Effects(NamedTuple):
    """Tokens whose logits each direction changes most, all `[n, k]`, largest change first."""

    promoted_ids: Tensor
    promoted_logits: Tensor
    suppressed_ids: Tensor
    suppressed_logits: Tensor


@torch.no_grad()
def logit_effects(model: HookedModel, directions: Tensor, k: int) -> Effects:
    """Return the tokens whose logits each direction raises and lowers most.

    Each direction by itself is used as the final residual. It goes through the model's own final norm (which rescales
    it to root mean square 1, subtracts the mean if the norm does, and applies the gain) and the unembedding. Subtracted
    are the logits of a zero residual (norm and unembedding biases), and the mean over the vocabulary, to which softmax
    is invariant. So values are comparable between directions of any length. They are not the change at an actual token,
    where the norm divides by the whole residual. Effects through later layers are not included.

    Args:
        model: has the final norm and the unembedding.
        directions: one or more, `[n, d_model]`.
        k: tokens at each end.
    Returns: ids and effects of the promoted and of the suppressed tokens, `[n, k]` each, largest change first.

    >>> logit_effects(model, sae.W_dec[:3], k=5).promoted_ids.shape
    torch.Size([3, 5])
    """
    parts = []
    for block in directions.split(BLOCK_DIRECTIONS):
        logits = all_logit_effects(model, block)
        high, low = logits.topk(k), logits.topk(k, largest=False)
        parts.append((high.indices, high.values, low.indices, low.values))
    return Effects(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


@torch.no_grad()
def all_logit_effects(model: HookedModel, directions: Tensor) -> Tensor:
    """Return the direct effects `[n, d_vocab]` of `directions [n, d_model]` on all logits, as in `logit_effects`."""
    device = next(model.parameters()).device
    zero = final_norm_and_unembed(model, torch.zeros(1, 1, directions.shape[1], device=device))[0, 0].float()
    logits = final_norm_and_unembed(model, directions[None].to(device, torch.float32))[0].float().sub_(zero)
    return logits.sub_(logits.mean(1, keepdim=True))


def lenses_of(workspace: Workspace, weight_hash: str) -> dict[str, Lens]:
    """Return the newest lens of each kind for some weights, by `how`, nearest to the model's output first."""
    lenses = [newest_lens(workspace, form, weight_hash) for form in (TunedLens, JacobianLens)]
    return {lens.how: lens for lens in sorted((lens for lens in lenses if lens is not None), key=gain, reverse=True)}


def gain(lens: Lens) -> float:
    """Return how much nearer than the logit lens a lens is to the model's output, in nats summed over its layers."""
    return float(sum(plain - fit for plain, fit in lens.distances().values() if plain - fit == plain - fit))
