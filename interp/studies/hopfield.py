"""Modern Hopfield retrieval: one step of attention as a descent in energy (Ramsauer et al. 2020).

Stored patterns are the rows `x_i` of `X [n, d]`, the state is `q [d]`, `beta` the inverse temperature:

    weights = softmax(beta X q)                     how much of each pattern is retrieved
    step    q' = X^T weights                        equation 3 of the paper: attention whose values are its keys
    energy  E(q) = -lse(beta, X q) + |q|^2 / 2 + log(n) / beta + M^2 / 2

where `lse(beta, z) = log(sum exp(beta z)) / beta`, with `M` the longest pattern (equation 2). `E >= 0`, and a step
lowers it: lse is convex with gradient `q'`, so

    E(q') <= E(q) - |q - q'|^2 / 2

and equality of both means a fixed point. Three kinds of fixed point are told apart by how many patterns share the
weights: all of them (global averaging), a few (metastable), one (retrieval proper).

Attention heads as modern Hopfield retrieval, measured on prompts and against an untrained twin.

A query is the state, the keys that it may look at are the stored patterns, both after rotary positions, and
`beta = 1/sqrt(d_head)`: one step of retrieval has exactly the head's attention as its weights (checked against the
model's own pattern for every head). The step is followed in key space, `q' = sum attention_j k_j`; what the head really
writes mixes values, which live in another space and have no energy here.

What "inverse temperature" means for a head: `beta` alone says nothing, since lengths multiply it. With keys and query
of unit length it is `beta |q| rms|k|` (`beta_unit`). But a vector common to all keys adds to every score alike and
changes no weight: what is left is the spread of the scores (`score_spread`, nats).

Many heads rest on the first position (attention sinks): one pattern, but nothing retrieved. `first_share` says how
much, and `skip_first` measures what the head does among the others.

The class of a head is what its numbers are. Whether they mean anything is another question: a head concentrates when
the low end of its interval over prompts lies above what the twin's heads reach, corrected for all of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import as_json, save_json
from interp.circuits.head_kinds import CONFIDENCE, twin_bounds
from interp.errors import ConfigError, NonFiniteError, PromptError
from interp.models.adapter import available_hook_points, check_token_ids, head_shape, run_with_cache, untrained_model
from interp.models.norms import read_rotation, rotary_hook_points
from interp.names import HeadName
from interp.results import Record, Result
from interp.statistics import t_interval

MASS = 0.9
"""share of the weights that the counted patterns hold together (Ramsauer et al. 2020, section on BERT)"""
CLASSES = ("single pattern", "metastable", "global averaging")
AVERAGING = 0.5
"""share of the patterns from which a head that needs them for `MASS` of its weights averages globally"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Retrieval(Result):
    """One step from each state, `[..., n_states]` unless said otherwise."""

    weights: Tensor
    """`[..., n_states, n]`: rows sum to 1"""
    state: Tensor
    """`[..., n_states, d]`: after the step, in the space of the patterns"""
    energy: Tensor
    """before the step; at least 0"""
    energy_after: Tensor
    """never above `energy`"""
    moved: Tensor
    """squared distance of the step; half of it is the least that the energy falls"""
    entropy: Tensor
    """of the weights, nats: 0 one pattern, log n all alike"""
    n_patterns: Tensor
    """exp(entropy): the effective number of patterns, 1 to n"""
    n_mass: Tensor
    """fewest patterns that hold `MASS` of the weights, 1 to n"""
    settings: dict[str, Any]

    def to_records(self) -> list[Record]:
        """Return one row per state: `energy, energy_after, moved, entropy, n_patterns, n_mass`."""
        names = ("energy", "energy_after", "moved", "entropy", "n_patterns", "n_mass")
        columns = [getattr(self, name).flatten().tolist() for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    def save(self, path: Path | str) -> None:
        save_json(self, path)


def retrieve(patterns: Tensor, states: Tensor, beta: float, *, visible: Tensor | None = None) -> Retrieval:
    """One step from `states [..., n_states, d]` in the memories `patterns [..., n, d]`, in float64.

    `visible [n_states, n]` bool says which patterns each state's memory holds (a causal mask); default all.
    Raises `ConfigError` on shapes that do not fit, an empty memory, no state, or `beta` not above 0.
    """
    patterns, states = patterns.double(), states.double()
    mask = _check(patterns, states, beta, visible)
    weights = _scores(patterns, states, beta, mask).softmax(-1)
    after = weights @ patterns
    energy, energy_after = (energies(patterns, each, beta, visible=mask) for each in (states, after))
    entropy = weight_entropy(weights)
    return Retrieval(
        weights=weights,
        state=after,
        energy=energy,
        energy_after=energy_after,
        moved=(after - states).square().sum(-1),
        entropy=entropy,
        n_patterns=entropy.exp(),
        n_mass=patterns_for_mass(weights),
        settings={"beta": beta, "n": patterns.shape[-2], "d": patterns.shape[-1], "mass": MASS},
    )


def energies(patterns: Tensor, states: Tensor, beta: float, *, visible: Tensor | None = None) -> Tensor:
    """Energy `[..., n_states]` of every state (equation 2), at least 0; `n` and `M` are of each state's own memory."""
    patterns, states = patterns.double(), states.double()
    mask = _check(patterns, states, beta, visible)
    lse = _scores(patterns, states, beta, mask).logsumexp(-1) / beta
    longest = torch.where(mask, patterns.square().sum(-1)[..., None, :], 0.0).amax(-1)
    return -lse + states.square().sum(-1) / 2 + mask.sum(-1).to(lse).log() / beta + longest / 2


def settle(
    patterns: Tensor, states: Tensor, beta: float, *, max_steps: int = 200, tolerance: float = 1e-10
) -> tuple[Tensor, int]:
    """Fixed points `[n_states, d]` that repeated steps lead to, and the number of steps taken.

    Ends when no state moves by more than `tolerance` (squared distance), or after `max_steps`.
    """
    if max_steps < 1 or not tolerance >= 0:
        raise ConfigError(
            f"settling needs a step and a tolerance of at least 0, got max_steps {max_steps}, tolerance {tolerance}"
        )
    states = states.double()
    for step in range(1, max_steps + 1):
        found = retrieve(patterns, states, beta)
        states = found.state
        if float(found.moved.max()) <= tolerance:
            return states, step
    return states, max_steps


def separation(patterns: Tensor) -> Tensor:
    """`[n]`: how far each pattern's product with itself exceeds that with any other (`Delta_i` of the paper).

    A step from pattern i leaves it by at most `2 (n - 1) M exp(-beta (Delta_i - 2 M |q - x_i|))` (theorem 5): the error
    falls exponentially with separation. Infinite for a lone pattern.
    """
    if patterns.ndim != 2:
        raise ConfigError(f"patterns [n, d] were expected, got {list(patterns.shape)}; take one memory at a time")
    _check(patterns, patterns, 1.0, None)
    gram = patterns.double() @ patterns.double().T
    others = gram.clone().fill_diagonal_(-torch.inf)
    return gram.diagonal() - others.amax(1)


def weight_entropy(weights: Tensor) -> Tensor:
    """Entropy over the last axis, nats."""
    return torch.special.entr(weights).sum(-1)


def patterns_for_mass(weights: Tensor, mass: float = MASS) -> Tensor:
    """Fewest entries over the last axis whose sum reaches `mass`, int64."""
    sums = weights.sort(-1, descending=True).values.cumsum(-1)
    return (sums < mass - 1e-12).sum(-1) + 1


def classify(n_mass: float, n: float) -> str:
    """The class of a fixed point whose weights need `n_mass` of `n` patterns for `MASS`.

    `single pattern`: one is enough. `global averaging`: more than `AVERAGING` of all. `metastable`: between. (The paper
    splits the middle at n/8 and n/32.) With one pattern alone there is nothing to tell apart: `ConfigError`.
    """
    if not n >= 2:
        raise ConfigError(f"a memory of {n:g} patterns has one kind of retrieval only; use at least 2")
    if n_mass <= 1:
        return CLASSES[0]
    return CLASSES[2] if n_mass > AVERAGING * n else CLASSES[1]


def _scores(patterns: Tensor, states: Tensor, beta: float, mask: Tensor) -> Tensor:
    return (beta * states @ patterns.mT).masked_fill(~mask, -torch.inf)


def _fit(patterns: Tensor, states: Tensor) -> bool:
    if min(patterns.ndim, states.ndim) < 2 or not patterns.numel() or not states.numel():
        return False
    pairs = zip(reversed(patterns.shape[:-2]), reversed(states.shape[:-2]), strict=False)
    return patterns.shape[-1] == states.shape[-1] and all(one == other or 1 in (one, other) for one, other in pairs)


def _check(patterns: Tensor, states: Tensor, beta: float, visible: Tensor | None) -> Tensor:
    """The mask `[n_states, n]`, once everything fits."""
    if not _fit(patterns, states):
        raise ConfigError(
            f"patterns [n, d] and states [n_states, d] of one width, one of each at least, were expected, got "
            f"{list(patterns.shape)} and {list(states.shape)}; axes in front must be the same"
        )
    if not 0 < beta < float("inf"):
        raise ConfigError(f"the inverse temperature beta must be above 0 and finite, got {beta}")
    if not (torch.isfinite(patterns).all() and torch.isfinite(states).all()):
        raise NonFiniteError("patterns and states must be finite, got NaN or infinity; leave those rows out")
    if visible is None:
        return torch.ones(states.shape[-2], patterns.shape[-2], dtype=torch.bool)
    expected = (states.shape[-2], patterns.shape[-2])
    if visible.dtype != torch.bool or visible.shape != expected:
        raise ConfigError(
            f"visible says yes or no for each state and pattern: bool {list(expected)} was expected, got "
            f"{visible.dtype} {list(visible.shape)}"
        )
    if not visible.any(-1).all():
        raise ConfigError("a state whose memory is empty retrieves nothing; every row of visible needs a pattern")
    return visible


TOLERANCE = 1e-3
"""largest difference from the model's own attention that is still rounding (half precision: 3e-2)"""
MEASURES = (
    "n_mass", "mass_share", "n_patterns", "entropy", "energy", "energy_after", "beta_unit", "score_spread",
    "first_share",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadRetrieval(Result):
    """Every head as an associative memory, `[n_layers, n_heads]`: means over prompts of medians over queries."""

    n_mass: np.ndarray
    """keys that hold `MASS` of the attention: 1 and up"""
    mass_share: np.ndarray
    """the same over the keys that the query may look at: about 0.9 for even attention, towards 0 for one key"""
    n_patterns: np.ndarray
    """exp(entropy): effective number of keys"""
    entropy: np.ndarray
    """of the attention over its largest value log n: 0 one key, 1 all alike"""
    energy: np.ndarray
    """of the query, at least 0; in squared units of the key space"""
    energy_after: np.ndarray
    """after one step"""
    beta_unit: np.ndarray
    """inverse temperature for a query and keys of unit length: `beta |q| rms|k|`"""
    score_spread: np.ndarray
    """standard deviation of the scores over keys, nats: 0 gives even attention"""
    first_share: np.ndarray
    """attention on the first position, 0 to 1"""
    concentrates: np.ndarray
    """bool: on fewer keys than untrained heads do"""
    concentration_low: np.ndarray
    """low end of the 95 % interval of `1 - mass_share` over prompts"""
    twin_bound: float
    """what untrained heads reach of it at most, corrected for all heads"""
    per_prompt: np.ndarray
    """`[n_measures, n_layers, n_heads, n_prompts]`, in the order of `MEASURES`"""
    energy_rise: float
    """largest rise of energy in any step of any head, of the energy itself: 0 up to rounding, by theorem"""
    pattern_error: float
    """largest difference from the model's own attention"""
    settings: dict[str, Any]

    def kind(self, layer: int, head: int) -> str:
        """`single pattern`, `metastable` or `global averaging`, by the keys that hold `MASS` of the attention."""
        share = self.mass_share[layer, head]
        n = self.n_mass[layer, head]
        return classify(round(float(n)), float(n) / max(float(share), 1e-12))

    def counts(self) -> dict[str, int]:
        """How many heads are of each class."""
        kinds = [row["kind"] for row in self.to_records()]
        return {name: kinds.count(name) for name in CLASSES}

    def to_records(self) -> list[dict[str, Any]]:
        """One plain dict per head: `layer, head, name, kind, concentrates` and every measure."""
        n_layers, n_heads = self.n_mass.shape
        return [
            {"layer": i, "head": j, "name": str(HeadName(i, j)), "kind": self.kind(i, j)}
            | {"concentrates": bool(self.concentrates[i, j])}
            | {name: float(getattr(self, name)[i, j]) for name in MEASURES}
            for i in range(n_layers)
            for j in range(n_heads)
        ]

    def headline(self) -> str:
        """Count the heads of each class."""
        counts = ", ".join(f"{n} {name}" for name, n in self.counts().items())
        return f"Heads as associative memories: {counts}; {int(self.concentrates.sum())} above untrained heads"

    def shown(self) -> list[dict[str, Any]]:
        """Return the heads that attend to the smallest share of their keys."""
        names = ("name", "kind", "concentrates", "mass_share", "n_mass", "entropy", "beta_unit", "first_share")
        rows = sorted(self.to_records(), key=lambda row: row["mass_share"])
        return [{n: row[n] for n in names} for row in rows]

    def to_json(self) -> dict[str, Any]:
        return {"settings": self.settings, "counts": self.counts(), "twin_bound": self.twin_bound} | {
            "energy_rise": self.energy_rise,
            "pattern_error": self.pattern_error,
            "heads": as_json(self.to_records()),
        }

    def save(self, path: Path | str) -> None:
        save_json(self.to_json(), path)


def text_prompts(model: Any, documents: Iterable[Any], n: int, length: int) -> Tensor:
    """`[n, length]`: the first tokens of the first `n` documents that are long enough, BOS in front where there is one.

    Raises `PromptError` when there are fewer.
    """
    from interp.models.adapter import to_tokens

    rows = []
    for document in documents:
        tokens = to_tokens(model, document.text[: 12 * length])[0]
        if len(tokens) >= length:
            rows.append(tokens[:length])
        if len(rows) == n:
            return torch.stack(rows)
    raise PromptError(f"{n} documents of at least {length} tokens were expected, found {len(rows)}; ask for fewer")


def measure_retrieval(
    model: Any,
    tokens: Tensor,
    *,
    first_query: int | None = None,
    skip_first: bool = False,
    twin: Any = None,
    seed: int = 0,
) -> HeadRetrieval:
    """Measure every head on `tokens [n_prompts, pos]`, at the queries from `first_query` on (default: the later half).

    `twin` is the untrained model of the null; default: made from `seed`. Raises `PromptError` on fewer than two prompts
    or queries without two keys, `ConfigError` where attention is no softmax of scaled products.
    """
    _check_prompts(model, tokens, skip_first)
    first = tokens.shape[1] // 2 if first_query is None else first_query
    _check_first(tokens, first, skip_first)
    values, rise, error = _measure(model, tokens, first, skip_first)
    null, *_ = _measure(twin or untrained_model(model, seed), tokens, first, skip_first)
    share = MEASURES.index("mass_share")
    n_keys = np.arange(first, tokens.shape[1]) + 1 - skip_first
    even = float(1 - np.median(np.ceil(MASS * n_keys) / n_keys))
    n_all = values.shape[1] * values.shape[2]
    _, low, _ = t_interval(1 - values[share], CONFIDENCE)
    bound = twin_bounds(1 - null[share], even, n_all)[1]
    means = {name: values[i].mean(-1) for i, name in enumerate(MEASURES)}
    return HeadRetrieval(
        **means,
        concentrates=low > bound,
        concentration_low=low,
        twin_bound=bound,
        per_prompt=values,
        energy_rise=rise,
        pattern_error=error,
        settings={
            "beta": _scale(model, 0),
            "n_prompts": len(tokens),
            "context_length": tokens.shape[1],
            "first_query": first,
            "skip_first": skip_first,
            "mass": MASS,
            "null": "untrained twin",
            "seed": seed,
        },
    )


def _measure(model: Any, tokens: Tensor, first: int, skip_first: bool) -> tuple[np.ndarray, float, float]:
    """`[n_measures, n_layers, n_heads, n_prompts]`, the largest rise of energy, and the largest error of a pattern."""
    columns, rises, errors, tolerance = [], [], [], TOLERANCE
    for prompt in tokens.split(1):
        layers = []
        for layer, (q, k, pattern) in enumerate(queries_and_keys(model, prompt)):
            measured, rise, error = _measure_layer(q, k, pattern, _scale(model, layer), first, skip_first)
            layers.append(measured)
            rises.append(rise)
            errors.append(error)
            tolerance = TOLERANCE if pattern.dtype == torch.float32 else 3e-2
        columns.append(torch.stack(layers, 1))
    if not max(errors) <= tolerance:
        raise ConfigError(
            f"attention is not the softmax of scaled products of queries and keys (it differs by {max(errors):.2g}): "
            "this model norms them, caps scores or adds a bias, which retrieval does not cover"
        )
    return torch.stack(columns, -1).numpy(), max(rises), max(errors)


@torch.no_grad()
def queries_and_keys(model: Any, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Per layer of one prompt `[1, pos]`: queries and keys `[n_heads, pos, d_head]` as they meet, and the pattern.

    Rotary positions are applied, and each query head has its group's keys.
    """
    check_token_ids(model, tokens)
    shape = head_shape(model)
    if "blocks.0.attn.hook_pattern" not in available_hook_points(model):
        raise ConfigError('attention patterns are not computed by this kernel; load the model with attention="eager"')
    sides = [[f"blocks.{layer}.attn.hook_{each}" for each in ("q", "k", "pattern")] for layer in range(shape.n_layers)]
    tables = [rotary_hook_points(model, layer) for layer in range(shape.n_layers)]
    _, cache = run_with_cache(model, tokens, [point for points in (*sides, *tables) for point in points])
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    for layer, names in enumerate(sides):
        q, k = (cache[name][0].transpose(0, 1).float() for name in names[:2])
        rotation = read_rotation(model, layer, cache)
        if rotation is not None:
            q, k = rotation(q, positions), rotation(k, positions)
        yield q.cpu(), k.repeat_interleave(shape.n_heads // shape.n_kv_heads, 0).cpu(), cache[names[2]][0].cpu()


def _measure_layer(
    q: Tensor, k: Tensor, pattern: Tensor, beta: float, first: int, skip_first: bool
) -> tuple[Tensor, float, float]:
    """`[n_measures, n_heads]`, largest relative rise of energy, largest error of the pattern."""
    pos = q.shape[1]
    causal = torch.ones(pos, pos, dtype=torch.bool).tril()
    whole = (beta * q.double() @ k.double().mT).masked_fill(~causal, -torch.inf).softmax(-1)
    error = float((whole - pattern).abs().max())
    visible = causal[first:].clone()
    visible[:, 0] &= not skip_first
    state, n = q[:, first:].double(), visible.sum(-1).double()
    found = retrieve(k, state, beta, visible=visible)
    scores = beta * state @ k.double().mT
    seen = visible.double()
    mean = (scores * seen).sum(-1) / n
    spread = (((scores - mean[..., None]).square() * seen).sum(-1) / n).sqrt()
    rms = ((k.double().square().sum(-1)[:, None] * seen).sum(-1) / n).sqrt()
    by_name = {
        "n_mass": found.n_mass.double(),
        "mass_share": found.n_mass / n,
        "n_patterns": found.n_patterns,
        "entropy": found.entropy / n.log(),
        "energy": found.energy,
        "energy_after": found.energy_after,
        "beta_unit": beta * state.norm(dim=-1) * rms,
        "score_spread": spread,
        "first_share": whole[:, first:, 0],
    }
    rise = float(((found.energy_after - found.energy) / found.energy.clamp_min(1e-9)).max())
    return torch.stack([by_name[name].median(-1).values for name in MEASURES]), max(rise, 0.0), error


def _scale(model: Any, layer: int) -> float:
    """What scores are multiplied by: the layer's own scaling, else `1/sqrt(d_head)`."""
    scaling = getattr(model.blocks[layer].attn.original_component, "scaling", None)
    return model.cfg.d_head**-0.5 if scaling is None else float(scaling)


def _check_prompts(model: Any, tokens: Tensor, skip_first: bool) -> None:
    if tokens.ndim != 2 or len(tokens) < 2:
        raise PromptError(f"an interval needs at least two prompts as [n_prompts, pos], got {list(tokens.shape)}")
    if not 1 + skip_first < tokens.shape[1]:
        raise PromptError(f"a query with two keys needs {2 + skip_first} tokens, the prompts have {tokens.shape[1]}")
    check_token_ids(model, tokens)
    if tokens.shape[1] > model.cfg.n_ctx:
        raise PromptError(
            f"the prompts have {tokens.shape[1]} tokens, the context holds {model.cfg.n_ctx}; shorten them"
        )


def _check_first(tokens: Tensor, first: int, skip_first: bool) -> None:
    if not 1 + skip_first <= first < tokens.shape[1]:
        raise PromptError(
            f"the first query must have two keys and lie inside the prompts: from {1 + skip_first} to "
            f"{tokens.shape[1] - 1}, got {first}"
        )
