"""Relations of every feature: to next tokens, to neurons, and to the features that fire on the same tokens.

Three tables in one, `relations.parquet`, each with its null:

- **Logits.** A histogram of the direct effects on the logits of all tokens (`interp.lenses.logit_lens`). The null is
  the fraction of random directions whose largest effect is at least as large. Any direction promotes some tokens; only
  a small fraction says that this one does so more than a direction without meaning.
- **Neurons.** The MLP neurons whose output weights have the largest cosine similarity with the decoder direction. The
  null is the largest cosine similarity that random directions reach with any neuron.
- **Co-activation.** The features that fire on the same tokens most often, by Jaccard index (tokens with both, divided
  by tokens with either). The null is the count expected if the two fired independently.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.artifacts import Table
from interp.artifacts.tables import schema_of
from interp.dictionary import Dictionary
from interp.lenses.logit_lens import BLOCK_DIRECTIONS, all_logit_effects
from interp.models.hooked import HookedModel
from interp.names import parse_hook_point
from interp.nulls import NUMERIC_DRAWS, p_from_null
from interp.recording.store import Recording
from interp.seeds import derive_seed, make_generator
from saes.features.schema import LogitScales, RelationRow, RelationScales
from saes.features.sources import writes_to_residual

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

N_DIRECTIONS = NUMERIC_DRAWS["quick"]
"""Random directions in each null."""
BINS = 60
RANGE = 1.5
"""Histograms reach to this many times the largest effect of the random directions; end bins hold what lies beyond."""
N_RELATED = 8
"""Neurons and co-active features stored per feature."""
SAMPLE_FIRINGS = 4_000_000
"""Firings in the sample of tokens that co-activation is counted on, so that memory stays bounded."""
BLOCK = 256


class LogitRelations(NamedTuple):
    """Direct effects of `n` directions on the logits of the whole vocabulary."""

    edges: np.ndarray
    """Edges of all histograms, `[BINS + 1]`, in logits."""
    counts: np.ndarray
    """Tokens of the vocabulary per bin, `[n, BINS]`."""
    promoted_p: np.ndarray
    """Fraction of random directions (with this one counted among them) whose largest effect is as large, `[n]`."""
    suppressed_p: np.ndarray
    """The same for the smallest effect, `[n]`."""
    null_counts: np.ndarray
    """Mean histogram of the random directions, `[BINS]`."""
    null_top: np.ndarray
    """Largest effect of each random direction, sorted, `[N_DIRECTIONS]`."""


@torch.no_grad()
def logit_relations(model: HookedModel, directions: Float[Tensor, "n d_model"], *, seed: int) -> LogitRelations:
    """Return the effects of directions on all logits, and those of random directions of the same distribution."""
    generator = make_generator(seed, "random directions")
    random = torch.randn(N_DIRECTIONS, directions.shape[1], generator=generator)
    null = torch.cat(list(_logits(model, random)))
    bound = RANGE * float(null.abs().max()) or 1.0
    counts, high, low = [], [], []
    for block in _logits(model, directions):
        counts.append(_histograms(block, bound))
        high.append(block.max(1).values.numpy())
        low.append(block.min(1).values.numpy())
    null_high, null_low = null.max(1).values.numpy(), null.min(1).values.numpy()
    return LogitRelations(
        edges=np.linspace(-bound, bound, BINS + 1),
        counts=np.concatenate(counts),
        promoted_p=p_from_null(np.concatenate(high), null_high[:, None]),
        suppressed_p=p_from_null(np.concatenate(low), null_low[:, None], alternative="less"),
        null_counts=_histograms(null, bound).mean(0),
        null_top=np.sort(null_high),
    )


def _logits(model: HookedModel, directions: Tensor) -> Iterator[Tensor]:
    """Yield the centred effects `[<= BLOCK_DIRECTIONS, d_vocab]` of blocks of directions on the CPU."""
    for block in directions.split(BLOCK_DIRECTIONS):
        yield all_logit_effects(model, block).cpu()


def _histograms(logits: Tensor, bound: float) -> np.ndarray:
    """Return the counts per bin of each row, `[n, BINS]`."""
    bins = (logits + bound).mul_(BINS / (2 * bound)).clamp_(0, BINS - 1).int()
    bins += BINS * torch.arange(len(logits), dtype=torch.int32)[:, None]
    return bins.flatten().bincount(minlength=BINS * len(logits)).view(len(logits), BINS).numpy()


class NeuronRelations(NamedTuple):
    """The neurons nearest to `n` directions."""

    layers: np.ndarray
    neurons: np.ndarray
    cosines: np.ndarray
    """Cosine similarities, largest magnitude first, `[n, N_RELATED]`; above 0 the neuron writes the direction."""
    null: float
    """The magnitude that the nearest neuron of 19 in 20 random directions stays below."""


@torch.no_grad()
def neuron_relations(
    model: HookedModel, directions: Float[Tensor, "n d_model"], hook_point: str, *, seed: int
) -> NeuronRelations | None:
    """Return the nearest neurons of the MLPs up to a hook point's layer; None for a model without MLPs."""
    last = parse_hook_point(hook_point).layer
    n_layers = model.cfg.n_layers if last is None else last + 1
    weights = [getattr(getattr(model.blocks[layer], "mlp", None), "W_out", None) for layer in range(n_layers)]
    outputs = [(layer, weight.detach().float().cpu()) for layer, weight in enumerate(weights) if weight is not None]
    if not outputs:
        return None
    layer_of = np.concatenate([np.full(len(weight), layer) for layer, weight in outputs])
    neuron_of = np.concatenate([np.arange(len(weight)) for _, weight in outputs])
    rows = torch.nn.functional.normalize(torch.cat([weight for _, weight in outputs]), dim=1)
    k = min(N_RELATED, len(rows))
    cosines, nearest_rows = [], []
    for block in directions.split(BLOCK):
        similarity = torch.nn.functional.normalize(block, dim=1) @ rows.T
        at = similarity.abs().topk(k, dim=1).indices
        nearest_rows.append(at)
        cosines.append(similarity.gather(1, at))
    index = torch.cat(nearest_rows).numpy()
    random = torch.randn(N_DIRECTIONS, directions.shape[1], generator=make_generator(seed, "random directions"))
    nearest = (torch.nn.functional.normalize(random, dim=1) @ rows.T).abs().max(1).values
    return NeuronRelations(layer_of[index], neuron_of[index], torch.cat(cosines).numpy(), float(nearest.quantile(0.95)))


class Coactivation(NamedTuple):
    """The features that fire on the same tokens as each of `n` features, in a sample of tokens."""

    features: list[list[int]]
    jaccard: list[list[float]]
    """Tokens with both divided by tokens with either: 0 never together, 1 always."""
    both: list[list[int]]
    expected: list[list[float]]
    """Tokens with both if the two fired independently."""
    n_tokens: int


@torch.no_grad()
def coactivation(dictionary: Dictionary, recording: Recording, hook_point: str, *, seed: int) -> Coactivation:
    """Count joint firings on a random sample of the recording's tokens and return the most frequent companions."""
    fired = _sampled_firings(dictionary, recording, hook_point, seed=seed)
    n_tokens, n = len(fired.indptr) - 1, np.asarray(fired.sum(0)).ravel()
    columns = fired.T.tocsr()
    coactivation = Coactivation([], [], [], [], n_tokens)
    for start in range(0, dictionary.d_sae, BLOCK):
        together = (columns[start : start + BLOCK] @ fired).tocsr()
        for row in range(together.shape[0]):
            _add_companions(coactivation, together[row], start + row, n)
    return coactivation


def _add_companions(coactivation: Coactivation, row: "csr_matrix", feature: int, n: np.ndarray) -> None:
    others, both = row.indices, row.data
    apart = others != feature
    others, both = others[apart], both[apart]
    jaccard = both / (n[feature] + n[others] - both)
    order = np.lexsort((others, -jaccard))[:N_RELATED]
    coactivation.features.append(others[order].tolist())
    coactivation.jaccard.append(jaccard[order].tolist())
    coactivation.both.append(both[order].astype(int).tolist())
    coactivation.expected.append((n[feature] * n[others[order]] / max(coactivation.n_tokens, 1)).tolist())


def _sampled_firings(dictionary: Dictionary, recording: Recording, hook_point: str, *, seed: int) -> "csr_matrix":
    """Return which features fire on a sample of tokens, `[n_tokens, d_sae]` of 0 and 1."""
    from scipy.sparse import csr_matrix

    indices, lengths, total = [], [], 0
    for x in _random_blocks(recording, hook_point, derive_seed(seed, "coactivation")):
        acts = dictionary.encode_sparse(x)
        active = (acts.values > 0).cpu()
        indices.append(acts.indices.cpu()[active].numpy())
        lengths.append(active.sum(1).numpy())
        total += len(indices[-1])
        if total > SAMPLE_FIRINGS:
            break
    ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    data = np.ones(int(ends[-1]), np.int32)
    return csr_matrix((data, np.concatenate(indices), ends), shape=(len(ends) - 1, dictionary.d_sae))


def _random_blocks(recording: Recording, hook_point: str, seed: int) -> Iterator[Tensor]:
    """Yield the activations of whole contexts, about 4,096 tokens at a time, in a random order."""
    step = max(1, 4096 // recording.context_length) * recording.context_length
    shards = range(recording.n_shards)
    blocks = [
        (shard, start) for shard in shards for start in range(0, len(recording.token_shard(shard).document), step)
    ]
    for at in np.random.default_rng(seed).permutation(len(blocks)):
        shard, start = blocks[at]
        real = recording.token_shard(shard).document[start : start + step] >= 0
        yield recording.activation_shard(hook_point, shard, slice(start, start + step))[real].float()


def measure_relations(
    dictionary: Dictionary, recording: Recording, model: HookedModel, hook_point: str, *, seed: int
) -> tuple[Table[RelationRow], RelationScales]:
    """Return the relations of every feature, and the nulls and scales that they are read with.

    Columns for logits and neurons are empty where directions do not lie in the residual stream.
    """
    directions = dictionary.decoder_directions.detach().float().cpu()
    residual = writes_to_residual(dictionary)
    logits = logit_relations(model, directions, seed=seed) if residual else None
    neurons = neuron_relations(model, directions, hook_point, seed=seed) if residual else None
    fired = coactivation(dictionary, recording, hook_point, seed=seed)
    scales = RelationScales(
        draws=N_DIRECTIONS,
        coactivation_tokens=fired.n_tokens,
        logits=None if logits is None else _scales(logits),
        neuron_null=None if neurons is None else neurons.null,
    )
    return relations_table(len(directions), logits, neurons, fired), scales


def _scales(logits: LogitRelations) -> LogitScales:
    low, middle, high = np.quantile(logits.null_top, [0.05, 0.5, 0.95]).tolist()
    return LogitScales(
        edges=(float(logits.edges[0]), float(logits.edges[-1]), BINS),
        null=logits.null_counts.round(2).tolist(),
        null_top=(low, middle, high),
    )


def relations_table(
    n: int, logits: LogitRelations | None, neurons: NeuronRelations | None, fired: Coactivation
) -> Table[RelationRow]:
    """Return the relations, a row per feature."""
    import pyarrow as pa

    none: list[list[float]] = [[]] * n
    columns = {
        "feature": np.arange(n),
        "logit_histogram": none if logits is None else logits.counts.tolist(),
        "promoted_p": [None] * n if logits is None else logits.promoted_p.tolist(),
        "suppressed_p": [None] * n if logits is None else logits.suppressed_p.tolist(),
        "neuron_layers": none if neurons is None else neurons.layers.tolist(),
        "neurons": none if neurons is None else neurons.neurons.tolist(),
        "neuron_cosines": none if neurons is None else neurons.cosines.tolist(),
        "coactive": fired.features,
        "coactive_jaccard": fired.jaccard,
        "coactive_tokens": fired.both,
        "coactive_expected": fired.expected,
    }
    return Table.of_columns(RelationRow, pa.table(columns, schema=schema_of(RelationRow)))
