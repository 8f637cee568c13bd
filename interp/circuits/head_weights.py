"""QK and OV circuits of heads as factored matrices; composition of heads, and copying (Elhage et al. 2021).

Vectors are rows, weights act as `x @ W`, norms are folded in. A head's input is the normed residual stream, so the
norm's gain (and for LayerNorm the centring) is multiplied into a copy of `W_Q W_K W_V`. The model's own weights do not
change.

    qk   W_Q W_K^T     [d_model, d_model]   query residual to key residual       left = W_Q, right = W_K^T
    ov   W_V W_O       [d_model, d_model]   key residual to head output          left = W_V, right = W_O

The products are never formed: all computations use the factors of width `d_head`. Biases are not included.

Rotary heads rotate queries and keys by position, so their QK circuit depends on the distance from key to query.
`offset=0` is the weights alone, for a query and key at the same position; `offset=n` is a key `n` positions earlier.

In post-norm models (Gemma 2 and 3) the gain of the norm on what attention writes is folded into `W_O`, and gains of
norms on queries and keys (Gemma 3) into `W_Q` and `W_K`. Their scales, which differ from run to run, are left out.

**Composition** measures how much of one head's output another head's weights read. `A = W_OV` belongs to the earlier
head, `B` to the later one:

    q   B = W_QK        k   B = W_QK^T        v   B = W_OV        score = ||A B|| / (||A|| ||B||)    (Frobenius)

0 means that nothing written is read, 1 is the maximum; factors in random directions give about `1 / sqrt(d_model)`.

The null distribution. Trained matrices have much of their norm in few directions, so their scores vary far more than
those of random matrices. The null therefore retains both spectra and applies a random (Haar) rotation between the two
matrices: `||S_A R S_B||`, with S the singular values and R a `d_head` square block of the rotation. One sample of
blocks serves all pairs. A pair is above chance when its score exceeds `null_high`, an upper bound at 5 % over all pairs
of its reader. Trained heads share directions, so the *arg-max* sender of each reader is the better indicator of an
edge. Composition is a property of weights: norm scales, positions and the actual residual stream do not enter.

**Copying**: a head copies if attending to a token raises that token's own logit. The full OV circuit maps tokens to
logits, `M = E W_V W_O W_U` with `E` the embedding of each token. It has two scores:

    eigenvalue   sum of Re(eigenvalues) / sum of |eigenvalues|; 1 copies, -1 suppresses the attended token, 0 neither
    top1         fraction of tokens whose own logit is raised most; by chance 1 / number of tokens

The non-zero eigenvalues of the token by token matrix are those of the `d_head` square `W_O W_U E W_V`. In a deep model
the inputs of later heads differ from raw embeddings, so `through_block_0=True` uses each token's residual after the
first block, run on that token alone. Large vocabularies are sampled: both axes have the same `n_tokens` tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.circuits.induction_circuit import ComposedPair
from interp.errors import ConfigError
from interp.models.adapter import ordinary_tokens, run_with_cache, token_strings
from interp.models.hooked import HookedModel
from interp.models.passes import capture
from interp.models.residual import SIDES, ResidualStream, Side, norm_of, read_rotation, rotary_hook_points
from interp.names import HeadName
from interp.nulls import BEYOND, NUMERIC_DRAWS, prediction_bound
from interp.results import Record, Result, columns_of
from interp.seeds import make_generator
from interp.view import Rows, View


@dataclass(frozen=True)
class Factored:
    """Product `left [a, d_head] @ right [d_head, b]` in factored form; float64."""

    left: Float64[Tensor, "a d_head"]
    right: Float64[Tensor, "d_head b"]

    @property
    def T(self) -> "Factored":
        return Factored(self.right.T, self.left.T)

    @cached_property
    def core(self) -> tuple[Float64[Tensor, "d_head d_head"], Float64[Tensor, "d_head d_head"]]:
        """Triangular `R_left, R_right [d_head, d_head]`: left = Q R_left, right = R_right^T Q'^T, Q orthonormal."""
        return torch.linalg.qr(self.left, mode="r").R, torch.linalg.qr(self.right.T, mode="r").R

    @cached_property
    def singular_values(self) -> Float64[Tensor, " d_head"]:
        """Singular values of the product, `[d_head]`, largest first."""
        left, right = self.core
        return torch.linalg.svdvals(left @ right.T)

    @cached_property
    def norm(self) -> float:
        """Frobenius norm of the product."""
        return float(self.singular_values.square().sum().sqrt())

    def composed_norm(self, other: "Factored") -> float:
        """Return the Frobenius norm of `self @ other`, from a `d_head x d_head` matrix."""
        left, right = self.core[0], other.core[1]
        return float((left @ (self.right @ other.left) @ right.T).norm())

    def rows(self, x: Float[Tensor, "n a"]) -> "Factored":
        """Return `x @ self` for `x [n, a]`, for example an embedding."""
        return Factored(x.double() @ self.left, self.right)

    def columns(self, y: Float[Tensor, "b n"]) -> "Factored":
        """Return `self @ y` for `y [b, n]`, for example an unembedding."""
        return Factored(self.left, self.right @ y.double())

    def dense(self) -> Float64[Tensor, "a b"]:
        """Return the product as one matrix; for few rows and columns only."""
        return self.left @ self.right


class HeadWeights:
    """Factored QK and OV circuits of a model's heads. Heads of a group share `W_K` and `W_V`."""

    def __init__(self, model: HookedModel):
        self.model, self.residual = model, ResidualStream(model)
        self.shape = self.residual.shape
        self._rotations: dict[tuple[int, int], Tensor] = {}
        self._folded: dict[tuple[int, str], Tensor] = {}

    def ov(self, head: HeadName) -> Factored:
        """Return `W_V W_O`."""
        self.residual.check_head(head)
        group = self.residual.kv_head(head.head)
        return Factored(self._read(head.layer, "v")[group], self._write(head.layer)[head.head])

    def qk(self, head: HeadName, *, offset: int = 0) -> Factored:
        """Return `W_Q W_K^T` for a key `offset` positions before the query; only rotary models depend on the offset."""
        self.residual.check_head(head)
        W_Q = self._read(head.layer, "q")[head.head]
        W_K = self._read(head.layer, "k")[self.residual.kv_head(head.head)]
        if offset:
            W_Q = W_Q @ self.rotation(head.layer, offset)
        return Factored(W_Q, W_K.T)

    def rotation(self, layer: int, offset: int) -> Float64[Tensor, "d_head d_head"]:
        """Return the rotation of a query (row vector) by rotary position `offset`, `[d_head, d_head]`.

        It is the identity in models without rotary embeddings.

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
        start, end = (rotation(unit, torch.full((len(unit),), position)) for position in (0, offset))
        return end @ torch.linalg.inv(start)  # some models also scale queries, at position 0 too

    @torch.no_grad()
    def unembedding(self) -> Float64[Tensor, "d_model d_vocab"]:
        """Return the unembedding with the final norm's gain folded in, centred over the vocabulary.

        `[d_model, d_vocab]` float64.
        """
        W_U = self.model.unembed.original_component.weight.T.detach().double()
        norm = norm_of(self.model, "ln_final", self.shape.d_model)
        W_U = W_U if norm is None else norm.fold(W_U)
        return W_U - W_U.mean(1, keepdim=True)

    @torch.no_grad()
    def _read(self, layer: int, side: Side) -> Tensor:
        """Return input weights `[heads, d_model, d_head]` float64, with the block's first norm folded in."""
        if (layer, side) not in self._folded:
            W = self.residual.W(layer, side).detach().double()
            norm = norm_of(self.model.blocks[layer], "ln1", self.shape.d_model)
            W = W if norm is None else norm.fold(W)
            gain = getattr(getattr(self.model.blocks[layer].attn, f"{side}_norm", None), "weight", None)
            if gain is not None and gain.shape == W.shape[-1:]:  # a norm on each query and key
                inner = norm_of(self.model.blocks[layer].attn, f"{side}_norm", self.shape.d_head)
                W = W if inner is None else inner.linear(W)
            self._folded[layer, side] = W
        return self._folded[layer, side]

    @torch.no_grad()
    def _write(self, layer: int) -> Tensor:
        return self.residual.W_write(layer).detach().double()


@dataclass(frozen=True)
class Composition(Result):
    """Composition scores of one side, all `[n_senders, n_readers]` float64.

    NaN where the sender is not in an earlier layer than the reader.
    """

    via: Side
    senders: tuple[HeadName, ...]
    readers: tuple[HeadName, ...]
    score: Float64[np.ndarray, "n_senders n_readers"]
    null_mean: Float64[np.ndarray, "n_senders n_readers"]
    null_high: Float64[np.ndarray, "n_senders n_readers"]
    """upper bound of the null at 5 % over all senders of a reader"""
    settings: dict[str, object] = field(default_factory=dict)
    """baseline `1 / sqrt(d_model)`, n_null, seed, offset, rotary, folded norms"""

    def argmax(self) -> dict[HeadName, HeadName]:
        """Return the sender with the highest score for each reader."""
        return {
            reader: self.senders[int(np.nanargmax(self.score[:, i]))]
            for i, reader in enumerate(self.readers)
            if np.isfinite(self.score[:, i]).any()
        }

    def rows(self) -> list[ComposedPair]:
        """Return the score of every pair next to its null."""
        best = self.argmax()
        return [
            ComposedPair(
                source=str(sender),
                target=str(reader),
                via=self.via,
                score=float(self.score[i, j]),
                null_mean=float(self.null_mean[i, j]),
                null_high=float(self.null_high[i, j]),
                is_argmax=best[reader] == sender,
            )
            for j, reader in enumerate(self.readers)
            for i, sender in enumerate(self.senders)
            if np.isfinite(self.score[i, j])
        ]

    def to_records(self) -> list[Record]:
        """Return one row per pair: `source, target, via, score, null_mean, null_high, is_argmax`."""
        return [columns_of(row) for row in self.rows()]

    def view(self) -> View:
        above = int((self.score > self.null_high).sum())
        n = int(np.isfinite(self.score).sum())
        yield f"{self.via.upper()}-composition of {n} pairs of heads; {above} {BEYOND}"
        yield Rows(self._rows)

    def _rows(self) -> list[Record]:
        """Return the sender with the highest score for each reader, the largest excess over the null first."""
        rows = [row for row in self.to_records() if row["is_argmax"]]
        return sorted(rows, key=lambda row: row["null_high"] - row["score"])


@torch.no_grad()
def composition(
    model: HookedModel,
    *,
    senders: Sequence[HeadName] | None = None,
    readers: Sequence[HeadName] | None = None,
    sides: Sequence[Side] = SIDES,
    offset: int = 0,
    n_null: int = NUMERIC_DRAWS["quick"],
    seed: int = 0,
    weights: HeadWeights | None = None,
) -> dict[Side, Composition]:
    """Score composition of senders with readers in later layers.

    The cost is products of width `d_head` for each pair; no `d_model` square matrix is formed.

    Args:
        model: has the heads.
        senders, readers: heads; by default all.
        sides: the inputs of a reader that are scored: q, k, v.
        offset: how many positions a key lies before its query (only models with rotary positions depend on it).
        n_null: rotations that are drawn for the null.
        weights: the heads' weights where they are already loaded.
    Returns: scores of all pairs and their null, by side.
    Raises:
        UnknownNameError: heads that the model lacks.
        ConfigError: no sender comes before any reader.

    >>> composed = head_composition(load_model("planted:induction"), n_null=20)
    >>> [str(head) for head in composed["k"].readers]
    ['L0H0', 'L1H0']
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
        "norms": "folded into what reads"
        + ("" if weights.residual.frozen is None else " and, after them, what writes"),
    }
    compositions: dict[Side, Composition] = {}
    for side in sides:
        read = [_reads(weights, head, side, offset) for head in readers]
        score, mean, high = composition_scores(written, read, before, blocks)
        compositions[side] = Composition(side, senders, readers, score, mean, high, settings)
    return compositions


def haar_blocks(d_model: int, d_head: int, n: int, seed: int) -> Float64[Tensor, "n d_head d_head"]:
    """Draw overlaps of two independent random `d_head`-dimensional frames, `[n, d_head, d_head]` float64.

    Each is a corner block of a Haar-random rotation of `d_model` dimensions. Raises `ConfigError` for fewer than 2.
    """
    if n < 2:
        raise ConfigError(f"a null needs at least 2 draws, got {n}")
    generator = make_generator(seed, "Haar rotations")
    return torch.stack([haar_frame(d_model, d_head, generator)[:d_head] for _ in range(n)])


def haar_frame(rows: int, columns: int, generator: torch.Generator) -> Float64[Tensor, "rows columns"]:
    """Draw orthonormal columns of a Haar-random rotation.

    The signs of R are moved to Q. Without that, Q turns a vector away from itself: the mean cosine is below 0.
    """
    q, r = torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def _reads(weights: HeadWeights, head: HeadName, side: Side, offset: int) -> Factored:
    if side == "v":
        return weights.ov(head)
    qk = weights.qk(head, offset=offset)
    return qk if side == "q" else qk.T


def composition_scores(
    written: list[Factored], read: list[Factored], before: np.ndarray, blocks: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return composition scores of heads, null means and null bounds, `[n_senders, n_readers]` each.

    NaN outside `before [n_senders, n_readers]`. `blocks [n_draws, rank, rank]` are of random rotations: the null.
    """
    score = np.full(before.shape, np.nan)
    for i, j in zip(*np.nonzero(before), strict=True):
        denominator = written[i].norm * read[j].norm
        score[i, j] = written[i].composed_norm(read[j]) / denominator if denominator else 0.0
    spectra_a, spectra_b = (torch.stack([f.singular_values.square() for f in side]).cpu() for side in (written, read))
    spectra_a, spectra_b = (s / s.sum(1, keepdim=True).clamp_min(1e-300) for s in (spectra_a, spectra_b))
    draws = torch.stack([(spectra_a @ block.square() @ spectra_b.T).sqrt() for block in blocks]).numpy()
    n_senders = np.maximum(before.sum(0), 1)
    mean = draws.mean(0)
    high = prediction_bound(mean, draws.std(0, ddof=1), len(blocks), n_tests=n_senders)
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
    settings: dict[str, object] = field(default_factory=dict)
    """n_tokens, through_block_0, seed"""

    def to_records(self) -> list[Record]:
        """Return one row per head: `head, eigenvalue` (-1 to 1), `top1` (0 to 1)."""
        return [{"head": str(h), "eigenvalue": value, "top1": self.top1[h]} for h, value in self.eigenvalue.items()]

    def view(self) -> View:
        yield f"Copying by {len(self.eigenvalue)} heads: together they raise {self.group_top1:.0%} of tokens most"
        yield Rows(lambda: sorted(self.to_records(), key=lambda row: -row["top1"]))


class TokenTables:
    """Factored token-to-token matrices over a sample of tokens."""

    def __init__(
        self,
        model: HookedModel,
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
        """Return the table `[attended token, logit]`, for normed inputs, per unit of the final norm's scale."""
        return self.weights.ov(head).rows(self.embedding).columns(self.unembedding)

    def qk(self, head: HeadName, *, offset: int = 0) -> Factored:
        """Return the table of attention scores `[query token, key token]`, before division by `sqrt(d_head)`."""
        return self.weights.qk(head, offset=offset).rows(self.embedding).columns(self.embedding.T)

    def top(self, table: Factored, row: int, n: int = 10) -> list[tuple[str, float]]:
        """Return the largest entries of one row of a table, as `(token, value)`."""
        values = (table.left[row] @ table.right).topk(n)
        texts = token_strings(self.model, self.tokens[values.indices])
        return list(zip(texts, values.values.tolist(), strict=True))


@torch.no_grad()
def copying(
    model: HookedModel,
    heads: Sequence[HeadName],
    *,
    n_tokens: int = 2048,
    through_block_0: bool = False,
    seed: int = 0,
    weights: HeadWeights | None = None,
) -> Copying:
    """Score copying by `heads` on `n_tokens` sampled tokens, or on all tokens of a smaller vocabulary.

    With `through_block_0` a head reads each token's residual after the first block instead of its embedding. `weights`
    are the heads' weights where they are already loaded.
    """
    tables = TokenTables(model, n_tokens=n_tokens, through_block_0=through_block_0, seed=seed, weights=weights)
    targets = torch.arange(len(tables.tokens))
    eigenvalue, top1 = {}, {}
    total = torch.zeros(len(targets), len(targets), dtype=torch.float32)
    for head in heads:
        table = tables.ov(head)
        eigenvalue[head] = eigenvalue_score(table)
        logits = (table.left.float() @ table.right.float()).cpu()
        top1[head] = float((logits.argmax(1) == targets).float().mean())
        total += logits
    return Copying(
        eigenvalue,
        top1,
        float((total.argmax(1) == targets).float().mean()) if heads else 0.0,
        {"n_tokens": len(targets), "through_block_0": through_block_0, "seed": seed},
    )


def eigenvalue_score(table: Factored) -> float:
    """Return the sum of real parts over the sum of absolute values of a square table's eigenvalues; 0 for zero."""
    values = torch.linalg.eigvals(table.right @ table.left)
    size = float(values.abs().sum())
    return float(values.real.sum()) / size if size else 0.0


@torch.no_grad()
def embeddings(
    model: HookedModel, tokens: Int[Tensor, " n"], *, through_block_0: bool = False, batch_size: int = 1024
) -> Float64[Tensor, "n d_model"]:
    """Return token embeddings without positions, `[n, d_model]` float64.

    With `through_block_0`, the residual stream after block 0 of a run on each token alone.
    """
    if not through_block_0:
        embed = model.embed.original_component
        return embed.weight.detach()[tokens].double() * float(
            getattr(embed, "embed_scale", 1.0)
        )  # Gemma: sqrt(d_model)
    point = "blocks.0.hook_resid_post"
    rows = [capture(model, part[:, None], [point])[point][:, 0] for part in tokens.split(batch_size)]
    return torch.cat(rows).double()
