"""The two circuits of a head as factored matrices (Elhage et al. 2021), norms folded in.

Row vectors, weights as `x @ W`. What a head reads is the unit-scaled stream, so the norm's gain (and for LayerNorm the
centring) is multiplied into a copy of `W_Q W_K W_V`; the model's weights stay as they are.

    qk   W_Q W_K^T     [d_model, d_model]   what a query looks for in a key       left = W_Q, right = W_K^T
    ov   W_V W_O       [d_model, d_model]   what is read from a key and written   left = W_V, right = W_O

Neither product is ever formed: everything here works on the `d_head` wide factors.

Rotary heads rotate queries and keys by their positions, so their QK circuit depends on how far the key is behind the
query. `offset=0` is the weights alone, a query looking at its own position; `offset=n` looks `n` positions back.
Biases are left out.

Composition: how much of what one head writes another head's weights read (Elhage et al. 2021).

With `A = W_OV` of the earlier head and `B` what the later one reads (row vectors, norms folded in),

    q   B = W_QK        k   B = W_QK^T        v   B = W_OV        score = ||A B|| / (||A|| ||B||)    (Frobenius)

0: nothing written is read; factors of random directions reach about `1 / sqrt(d_model)`; the largest value is 1.

The null. Trained matrices put much of their norm into few directions, so scores scatter far more than random matrices
would. The null keeps both matrices and turns one against the other by a random rotation (Haar): `||S_A R S_B||` with
S the singular values and R a `d_head` square block of the rotation. Only the spectra enter, so one sample of blocks
serves all pairs. A pair beats chance when its score lies above `null_high`, an upper bound at 5 % over all pairs of its
reader. Even so, real edges are best read off the *arg-max* sender of each reader: trained models share directions.

Weights are not behaviour: a norm's scale, positions and what is really in the stream are missing. Rotary heads:
`offset` says how far the key lies behind the query, for q and k; at 0 they are the weights alone.

Does a head copy: does attending to a token raise that token's own logit (Elhage et al. 2021)?

The head's full OV circuit takes tokens to logits, `M = E W_V W_O W_U` with `E` the embedding of each token and the
norms folded in. Two scores of it:

    eigenvalue   sum of Re(eigenvalues) / sum of |eigenvalues|; 1 copies, -1 suppresses what it attends to, 0 neither
    top1         share of tokens whose own logit is raised most; by chance 1 / number of tokens

The non-zero eigenvalues of the token by token matrix are those of the `d_head` square `W_O W_U E W_V`. In a deep model
the raw embedding is not what later heads see, so `through_block_0=True` uses each token's residual after the first
block, run on that token alone. Large vocabularies are sampled: both axes hold the same `n_tokens` tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.models.adapter import ordinary_tokens, run_with_cache, token_strings
from interp.models.norms import norm_of, read_rotation, rotary_hook_points
from interp.models.residual import SIDES, ResidualStream, Side
from interp.names import HeadName
from interp.patching.partial import capture
from interp.results import Record, Result
from interp.runtime import make_generator
from interp.statistics import prediction_bound


@dataclass(frozen=True)
class Factored:
    """`left [a, d_head] @ right [d_head, b]`, never multiplied out; float64."""

    left: Tensor
    right: Tensor

    @property
    def T(self) -> "Factored":
        return Factored(self.right.T, self.left.T)

    @cached_property
    def core(self) -> tuple[Tensor, Tensor]:
        """`R_left, R_right [d_head, d_head]`, triangular: left = Q R_left, right = R_right^T Q'^T, Q orthonormal."""
        return torch.linalg.qr(self.left, mode="r").R, torch.linalg.qr(self.right.T, mode="r").R

    @cached_property
    def singular_values(self) -> Tensor:
        """`[d_head]`, largest first."""
        left, right = self.core
        return torch.linalg.svdvals(left @ right.T)

    @cached_property
    def norm(self) -> float:
        """Frobenius."""
        return float(self.singular_values.square().sum().sqrt())

    def composed_norm(self, other: "Factored") -> float:
        """Frobenius norm of `self @ other`, by way of a `d_head x d_head` matrix."""
        left, right = self.core[0], other.core[1]
        return float((left @ (self.right @ other.left) @ right.T).norm())

    def rows(self, x: Tensor) -> "Factored":
        """`x [n, a]` in place of the identity on the left: for example an embedding."""
        return Factored(x.double() @ self.left, self.right)

    def columns(self, y: Tensor) -> "Factored":
        """`y [b, n]` on the right: for example an unembedding."""
        return Factored(self.left, self.right @ y.double())

    def dense(self) -> Tensor:
        """The product; only for few rows and columns."""
        return self.left @ self.right


class HeadWeights:
    """The factored circuits of a model's heads. Grouped heads share `W_K` and `W_V`."""

    def __init__(self, model: Any):
        self.model, self.residual = model, ResidualStream(model)
        self.shape = self.residual.shape
        self._rotations: dict[tuple[int, int], Tensor] = {}
        self._folded: dict[tuple[int, str], Tensor] = {}

    def ov(self, head: HeadName) -> Factored:
        """`W_V W_O`."""
        self.residual.check_head(head)
        group = self.residual.kv_head(head.head)
        return Factored(self._read(head.layer, "v")[group], self._write(head.layer)[head.head])

    def qk(self, head: HeadName, *, offset: int = 0) -> Factored:
        """`W_Q W_K^T`, the key `offset` positions behind the query (rotary models only feel it)."""
        self.residual.check_head(head)
        W_Q = self._read(head.layer, "q")[head.head]
        W_K = self._read(head.layer, "k")[self.residual.kv_head(head.head)]
        if offset:
            W_Q = W_Q @ self.rotation(head.layer, offset)
        return Factored(W_Q, W_K.T)

    def rotation(self, layer: int, offset: int) -> Tensor:
        """`[d_head, d_head]`: what rotary position `offset` does to a query (row vector); the identity without rotary.

        Raises `ConfigError` for an offset beyond the model's context.
        """
        if (layer, offset) not in self._rotations:
            self._rotations[layer, offset] = self._rotation(layer, offset)
        return self._rotations[layer, offset]

    @property
    def is_rotary(self) -> bool:
        return getattr(self.model.cfg, "positional_embedding_type", "") == "rotary"

    @torch.no_grad()
    def _rotation(self, layer: int, offset: int) -> Tensor:
        if not 0 <= offset < self.shape.n_ctx:
            raise ConfigError(f"the offset must lie within the context of {self.shape.n_ctx}, got {offset}")
        tokens = torch.zeros(1, offset + 1, dtype=torch.long, device=self.residual.device)
        points, cache = rotary_hook_points(self.model, layer), {}
        if points:
            cache = run_with_cache(self.model, tokens, points, stop_at_layer=layer + 1)[1]
        rotation, unit = read_rotation(self.model, layer, cache), torch.eye(self.shape.d_head, dtype=torch.float64)
        if rotation is None:
            return unit
        here, there = (rotation(unit, torch.full((len(unit),), place)) for place in (0, offset))
        return there @ torch.linalg.inv(here)  # some models scale what they rotate

    @torch.no_grad()
    def unembedding(self) -> Tensor:
        """`[d_model, d_vocab]` float64: gain of the final norm folded in, centred over the vocabulary."""
        W_U = self.model.unembed.original_component.weight.T.detach().double()
        norm = norm_of(self.model, "ln_final", self.shape.d_model)
        W_U = W_U if norm is None else norm.fold(W_U)
        return W_U - W_U.mean(1, keepdim=True)

    @torch.no_grad()
    def _read(self, layer: int, side: Side) -> Tensor:
        """`[heads, d_model, d_head]` float64, the block's first norm folded in."""
        if (layer, side) not in self._folded:
            W = self.residual.W(layer, side).detach().double()
            norm = norm_of(self.model.blocks[layer], "ln1", self.shape.d_model)
            self._folded[layer, side] = W if norm is None else norm.fold(W)
        return self._folded[layer, side]

    @torch.no_grad()
    def _write(self, layer: int) -> Tensor:
        return self.residual.W(layer, "o").detach().double()


FAMILY_WISE = 0.05


@dataclass(frozen=True)
class Composition(Result):
    """Scores of one side, all `[n_senders, n_readers]` float64; NaN where the sender is not in an earlier layer."""

    via: Side
    senders: tuple[HeadName, ...]
    readers: tuple[HeadName, ...]
    score: np.ndarray
    null_mean: np.ndarray
    null_high: np.ndarray
    """upper bound of the null at 5 % over all senders of a reader"""
    settings: dict[str, Any] = field(default_factory=dict)
    """baseline `1 / sqrt(d_model)`, n_null, seed, offset, rotary, folded norms"""

    def argmax(self) -> dict[HeadName, HeadName]:
        """Per reader the sender with the highest score."""
        return {
            reader: self.senders[int(np.nanargmax(self.score[:, i]))]
            for i, reader in enumerate(self.readers)
            if np.isfinite(self.score[:, i]).any()
        }

    def to_records(self) -> list[dict[str, Any]]:
        """`source, target, via, score, null_mean, null_high, is_argmax` of every pair."""
        best = self.argmax()
        return [
            {
                "source": str(sender),
                "target": str(reader),
                "via": self.via,
                "score": float(self.score[i, j]),
                "null_mean": float(self.null_mean[i, j]),
                "null_high": float(self.null_high[i, j]),
                "is_argmax": best[reader] == sender,
            }
            for j, reader in enumerate(self.readers)
            for i, sender in enumerate(self.senders)
            if np.isfinite(self.score[i, j])
        ]

    def headline(self) -> str:
        """Count the pairs above the null."""
        above = int((self.score > self.null_high).sum())
        n = int(np.isfinite(self.score).sum())
        return f"{self.via.upper()}-composition of {n} pairs of heads; {above} above the null"

    def shown(self) -> list[dict[str, Any]]:
        """Return each reader's strongest sender, the furthest above its null first."""
        rows = [row for row in self.to_records() if row["is_argmax"]]
        return sorted(rows, key=lambda row: row["null_high"] - row["score"])


@torch.no_grad()
def composition(
    model: Any,
    *,
    senders: Sequence[HeadName] | None = None,
    readers: Sequence[HeadName] | None = None,
    sides: Sequence[Side] = SIDES,
    offset: int = 0,
    n_null: int = 200,
    seed: int = 0,
    weights: HeadWeights | None = None,
) -> dict[Side, Composition]:
    """Composition of senders with readers in later layers, by default of all heads.

    `n_null` rotations are drawn for the null. Cost: products `d_head` wide for each pair; nothing `d_model` square.
    Raises `UnknownNameError` for heads that are not there, `ConfigError` when no sender comes before any reader.
    """
    weights = weights or HeadWeights(model)
    senders = tuple(senders if senders is not None else weights.residual.all_heads())
    readers = tuple(readers if readers is not None else weights.residual.all_heads())
    for head in (*senders, *readers):
        weights.residual.check_head(head)
    before = np.array([[sender.layer < reader.layer for reader in readers] for sender in senders]).reshape(
        len(senders), len(readers)
    )
    if not before.any():
        raise ConfigError("composition needs a sender in an earlier layer than a reader")
    blocks = haar_blocks(weights.shape.d_model, weights.shape.d_head, n_null, seed)
    written = [weights.ov(head) for head in senders]
    settings = {
        "baseline": weights.shape.d_model**-0.5,
        "n_null": n_null,
        "seed": seed,
        "offset": offset,
        "rotary": weights.is_rotary,
        "norms": "folded into what reads",
    }
    found: dict[Side, Composition] = {}
    for side in sides:
        read = [_reads(weights, head, side, offset) for head in readers]
        score, mean, high = _scores(written, read, before, blocks)
        found[side] = Composition(side, senders, readers, score, mean, high, settings)
    return found


def haar_blocks(d_model: int, d_head: int, n: int, seed: int) -> Tensor:
    """`[n, d_head, d_head]` float64: the overlap of two independent random `d_head`-dimensional frames.

    A corner of a Haar-random rotation of `d_model` dimensions.
    """
    if n < 2:
        raise ConfigError(f"a null needs at least 2 draws, got {n}")
    generator = make_generator(seed, "Haar rotations")
    blocks = []
    for _ in range(n):
        gaussian = torch.randn(d_model, d_head, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(gaussian)
        blocks.append((q * r.diagonal().sign())[:d_head])
    return torch.stack(blocks)


def _reads(weights: HeadWeights, head: HeadName, side: Side, offset: int) -> Factored:
    if side == "v":
        return weights.ov(head)
    qk = weights.qk(head, offset=offset)
    return qk if side == "q" else qk.T


def _scores(
    written: list[Factored], read: list[Factored], before: np.ndarray, blocks: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, null means and null bounds `[n_senders, n_readers]`."""
    score = np.full(before.shape, np.nan)
    for i, j in zip(*np.nonzero(before), strict=True):
        denominator = written[i].norm * read[j].norm
        score[i, j] = written[i].composed_norm(read[j]) / denominator if denominator else 0.0
    spectra_a, spectra_b = (torch.stack([f.singular_values.square() for f in side]) for side in (written, read))
    spectra_a, spectra_b = (s / s.sum(1, keepdim=True).clamp_min(1e-300) for s in (spectra_a, spectra_b))
    draws = torch.stack([(spectra_a @ block.square() @ spectra_b.T).sqrt() for block in blocks]).numpy()
    n_senders = np.maximum(before.sum(0), 1)
    mean = draws.mean(0)
    high = prediction_bound(mean, draws.std(0, ddof=1), len(blocks), n_tests=n_senders, error=FAMILY_WISE)
    mean, high = (np.where(before, values, np.nan) for values in (mean, high))
    return score, mean, high


@dataclass(frozen=True)
class Copying(Result):
    """Copying scores per head."""

    eigenvalue: dict[HeadName, float]
    """-1 to 1"""
    top1: dict[HeadName, float]
    """0 to 1"""
    group_top1: float
    """the same for the sum of all these heads"""
    settings: dict[str, Any] = field(default_factory=dict)
    """n_tokens, through_block_0, seed"""

    def to_records(self) -> list[Record]:
        """Return one row per head: `head, eigenvalue` (-1 to 1), `top1` (0 to 1)."""
        return [{"head": str(h), "eigenvalue": value, "top1": self.top1[h]} for h, value in self.eigenvalue.items()]

    def headline(self) -> str:
        """Give the share of tokens that all heads together copy."""
        return f"Copying by {len(self.eigenvalue)} heads: together they raise {self.group_top1:.0%} of tokens most"

    def shown(self) -> list[Record]:
        """Return the heads that copy most, first."""
        return sorted(self.to_records(), key=lambda row: -row["top1"])


class TokenTables:
    """Factored token-to-token matrices over a sample of tokens."""

    def __init__(
        self,
        model: Any,
        *,
        n_tokens: int = 2048,
        through_block_0: bool = False,
        seed: int = 0,
        weights: HeadWeights | None = None,
    ):
        self.model, self.weights = model, weights or HeadWeights(model)
        ids = ordinary_tokens(model)
        chosen = torch.randperm(len(ids), generator=make_generator(seed, "sampled tokens"))[:n_tokens].sort().values
        self.tokens = ids[chosen]
        self.through_block_0 = through_block_0
        self.embedding = embeddings(model, self.tokens, through_block_0=through_block_0)
        self.unembedding = self.weights.unembedding()[:, self.tokens]

    def ov(self, head: HeadName) -> Factored:
        """`[token attended to, logit of token]`, unit-scaled input, per unit of the final norm's scale."""
        return self.weights.ov(head).rows(self.embedding).columns(self.unembedding)

    def qk(self, head: HeadName, *, offset: int = 0) -> Factored:
        """`[query token, key token]`: attention scores, before division by the square root of d_head."""
        return self.weights.qk(head, offset=offset).rows(self.embedding).columns(self.embedding.T)

    def top(self, table: Factored, row: int, n: int = 10) -> list[tuple[str, float]]:
        """The largest entries of one row of a table, as `(token, value)`."""
        values = (table.left[row] @ table.right).topk(n)
        texts = token_strings(self.model, self.tokens[values.indices])
        return list(zip(texts, values.values.tolist(), strict=True))


@torch.no_grad()
def copying(
    model: Any,
    heads: Sequence[HeadName],
    *,
    n_tokens: int = 2048,
    through_block_0: bool = False,
    seed: int = 0,
    weights: HeadWeights | None = None,
) -> Copying:
    """Copying scores of some heads on `n_tokens` sampled tokens (all of them, when the vocabulary is smaller)."""
    tables = TokenTables(model, n_tokens=n_tokens, through_block_0=through_block_0, seed=seed, weights=weights)
    own = torch.arange(len(tables.tokens))
    eigenvalue, top1 = {}, {}
    total = torch.zeros(len(own), len(own), dtype=torch.float32)
    for head in heads:
        table = tables.ov(head)
        eigenvalue[head] = eigenvalue_score(table)
        logits = table.left.float() @ table.right.float()
        top1[head] = float((logits.argmax(1) == own).float().mean())
        total += logits
    return Copying(
        eigenvalue,
        top1,
        float((total.argmax(1) == own).float().mean()) if heads else 0.0,
        {"n_tokens": len(own), "through_block_0": through_block_0, "seed": seed},
    )


def eigenvalue_score(table: Factored) -> float:
    """Sum of the eigenvalues' real parts over the sum of their sizes, of a square table; 0 for the zero matrix."""
    values = torch.linalg.eigvals(table.right @ table.left)
    size = float(values.abs().sum())
    return float(values.real.sum()) / size if size else 0.0


@torch.no_grad()
def embeddings(model: Any, tokens: Tensor, *, through_block_0: bool = False, batch_size: int = 1024) -> Tensor:
    """`[n, d_model]` float64: token embeddings without positions, or the stream after block 0 on each token alone."""
    if not through_block_0:
        return model.embed.original_component.weight.detach()[tokens].double()
    point = "blocks.0.hook_resid_post"
    rows = [capture(model, part[:, None], [point])[point][:, 0] for part in tokens.split(batch_size)]
    return torch.cat(rows).double()
