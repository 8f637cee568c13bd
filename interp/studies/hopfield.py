"""Modern Hopfield retrieval, and attention heads measured as such (Ramsauer et al. 2020).

**Retrieval** (`retrieve`): one step of attention is a descent in energy. Stored patterns are the rows `x_i` of
`X [n, d]`, the state is `q [d]`, `beta` the inverse temperature:

    weights = softmax(beta X q)                     retrieved fraction of each pattern
    step    q' = X^T weights                        equation 3 of the paper: attention whose values are its keys
    energy  E(q) = -lse(beta, X q) + |q|^2 / 2 + log(n) / beta + M^2 / 2

where `lse(beta, z) = log(sum exp(beta z)) / beta`, and `M` is the length of the longest pattern (equation 2). `E >= 0`,
and a step lowers it: lse is convex with gradient `q'`, so

    E(q') <= E(q) - |q - q'|^2 / 2

with equality at a fixed point. Fixed points have three classes, by the number of patterns that share the weights: all
(global averaging), a few (metastable), one (single pattern).

**Attention heads** (`measure_retrieval`). A query is the state, and the keys that it may attend to are the stored
patterns, both after rotary positions; `beta = 1/sqrt(d_head)`. The weights of one step are then exactly the head's
attention (checked against the model's own pattern for every head). The step is followed in key space,
`q' = sum attention_j k_j`. The head's actual output mixes values, which are in another space and have no energy here.

`beta` alone is not meaningful, as the lengths of query and keys multiply it. For unit lengths the inverse temperature
is `beta |q| rms|k|` (`beta_unit`). A vector common to all keys adds the same to every score and changes no weight. The
relevant quantity is therefore the spread of the scores (`score_spread`, nats).

Many heads attend mostly to the first position (attention sinks): a single pattern, but nothing is retrieved.
`first_share` is the attention on it, and `skip_first` measures the attention among the other positions.

The class of a head is descriptive. Its significance is a separate test: a head *concentrates* when the lower end of its
interval over prompts exceeds the bound of the heads of an untrained model, corrected for all heads.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from interp.artifacts import as_json, save_json
from interp.circuits.head_kinds import CONFIDENCE, untrained_bounds
from interp.errors import ConfigError, NonFiniteError, PromptError
from interp.models.adapter import available_hook_points, check_token_ids, head_shape, run_with_cache, untrained_model
from interp.models.hooked import HookedModel
from interp.models.residual import read_rotation, rotary_hook_points
from interp.names import HeadName
from interp.results import Record, Result
from interp.statistics import t_interval

MASS = 0.9
"""fraction of the weights that the counted patterns must hold together (Ramsauer et al. 2020, section on BERT)"""
CLASSES = ("single pattern", "metastable", "global averaging")
AVERAGING = 0.5
"""fraction of the patterns: a head that needs more than this for `MASS` of its weights averages globally"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Retrieval(Result):
    """One retrieval step from each state, `[..., n_states]` unless stated otherwise."""

    weights: Float64[Tensor, "*batch n_states n"]
    """`[..., n_states, n]`: rows sum to 1"""
    state: Float64[Tensor, "*batch n_states d"]
    """`[..., n_states, d]`: after the step, in the space of the patterns"""
    energy: Float64[Tensor, "*batch n_states"]
    """energy before the step; at least 0"""
    energy_after: Float64[Tensor, "*batch n_states"]
    """energy after the step; never above `energy`"""
    moved: Float64[Tensor, "*batch n_states"]
    """squared length of the step; the energy falls by at least half of it"""
    entropy: Float64[Tensor, "*batch n_states"]
    """entropy of the weights, nats: 0 for one pattern, log n for equal weights"""
    n_patterns: Float64[Tensor, "*batch n_states"]
    """exp(entropy): the effective number of patterns, 1 to n"""
    n_mass: Int64[Tensor, "*batch n_states"]
    """smallest number of patterns that hold `MASS` of the weights, 1 to n"""
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


def retrieve(
    patterns: Shaped[Tensor, "..."],
    states: Shaped[Tensor, "..."],
    beta: float,
    *,
    visible: Shaped[Tensor, "..."] | None = None,
) -> Retrieval:
    """Take one step from `states [..., n_states, d]` with stored `patterns [..., n, d]`, in float64.

    `visible [n_states, n]` bool marks the patterns in each state's memory (a causal mask); default all. Raises
    `ConfigError` on shapes that do not fit, an empty memory, no state, or `beta` not above 0.
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


def energies(
    patterns: Shaped[Tensor, "..."],
    states: Shaped[Tensor, "..."],
    beta: float,
    *,
    visible: Shaped[Tensor, "..."] | None = None,
) -> Float64[Tensor, "*batch n_states"]:
    """Return the energy of every state (equation 2), `[..., n_states]`, at least 0.

    `n` is the number of patterns visible to the state, `M` the length of the longest of them.
    """
    patterns, states = patterns.double(), states.double()
    mask = _check(patterns, states, beta, visible)
    lse = _scores(patterns, states, beta, mask).logsumexp(-1) / beta
    longest = torch.where(mask, patterns.square().sum(-1)[..., None, :], 0.0).amax(-1)
    return -lse + states.square().sum(-1) / 2 + mask.sum(-1).to(lse).log() / beta + longest / 2


def settle(
    patterns: Shaped[Tensor, "..."],
    states: Shaped[Tensor, "..."],
    beta: float,
    *,
    max_steps: int = 200,
    tolerance: float = 1e-10,
) -> tuple[Float64[Tensor, "*batch n_states d"], int]:
    """Repeat steps until the states are fixed points; returns them, `[n_states, d]`, and the number of steps.

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


def separation(patterns: Shaped[Tensor, "..."]) -> Float64[Tensor, " n"]:
    """Return each pattern's separation `Delta_i`, `[n]`: its product with itself minus the largest with another.

    A step from pattern i moves by at most `2 (n - 1) M exp(-beta (Delta_i - 2 M |q - x_i|))` (theorem 5), so the error
    falls exponentially with separation. Infinite for a single pattern.
    """
    if patterns.ndim != 2:
        raise ConfigError(f"expected patterns [n, d], got {list(patterns.shape)}; take one memory at a time")
    _check(patterns, patterns, 1.0, None)
    gram = patterns.double() @ patterns.double().T
    others = gram.clone().fill_diagonal_(-torch.inf)
    return gram.diagonal() - others.amax(1)


def weight_entropy(weights: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Return the entropy over the last axis, nats."""
    return torch.special.entr(weights).sum(-1)


def patterns_for_mass(weights: Float[Tensor, "*batch n"], mass: float = MASS) -> Int64[Tensor, "*batch"]:
    """Return the smallest number of entries over the last axis whose sum reaches `mass`, int64."""
    sums = weights.sort(-1, descending=True).values.cumsum(-1)
    return (sums < mass - 1e-12).sum(-1) + 1


def classify(n_mass: float, n: float) -> str:
    """Return the class of a fixed point whose weights need `n_mass` of `n` patterns for `MASS`.

    `single pattern`: one suffices. `global averaging`: more than `AVERAGING` of all. `metastable`: between. (The paper
    divides the middle at n/8 and n/32.) Raises `ConfigError` for one pattern, where the classes coincide.
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
    """Check the arguments, and return the mask `[n_states, n]`."""
    if not _fit(patterns, states):
        raise ConfigError(
            f"expected patterns [n, d] and states [n_states, d] of one width, one of each at least, got "
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
            f"visible must be true or false for each state and pattern, expected bool {list(expected)}, got "
            f"{visible.dtype} {list(visible.shape)}"
        )
    if not visible.any(-1).all():
        raise ConfigError("a state with an empty memory retrieves nothing; every row of visible needs a pattern")
    return visible


TOLERANCE = 1e-3
"""largest difference from the model's own attention that counts as rounding (half precision: 3e-2)"""
MEASURES = (
    "n_mass", "mass_share", "n_patterns", "entropy", "energy", "energy_after", "beta_unit", "score_spread",
    "first_share",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadRetrieval(Result):
    """Every head as an associative memory, `[n_layers, n_heads]`: means over prompts of medians over queries."""

    n_mass: np.ndarray
    """number of keys that hold `MASS` of the attention, 1 and up"""
    mass_share: np.ndarray
    """the same as a fraction of the visible keys: about 0.9 for uniform attention, towards 0 for one key"""
    n_patterns: np.ndarray
    """effective number of keys, exp(entropy)"""
    entropy: np.ndarray
    """entropy of the attention over its maximum log n: 0 for one key, 1 for uniform attention"""
    energy: np.ndarray
    """energy of the query, at least 0; in squared units of the key space"""
    energy_after: np.ndarray
    """energy after one step"""
    beta_unit: np.ndarray
    """inverse temperature for a query and keys of unit length: `beta |q| rms|k|`"""
    score_spread: np.ndarray
    """standard deviation of the scores over keys, nats: 0 gives uniform attention"""
    first_share: np.ndarray
    """attention on the first position, 0 to 1"""
    concentrates: np.ndarray
    """bool: attention on fewer keys than in heads of an untrained model"""
    concentration_low: np.ndarray
    """lower end of the 95 % interval of `1 - mass_share` over prompts"""
    untrained_bound: float
    """upper bound of `1 - mass_share` for heads of the untrained model, corrected for all heads"""
    per_prompt: np.ndarray
    """`[n_measures, n_layers, n_heads, n_prompts]`, in the order of `MEASURES`"""
    energy_rise: float
    """largest relative rise of the energy in any step of any head: 0 up to rounding, by theorem"""
    pattern_error: float
    """largest difference from the model's own attention"""
    settings: dict[str, Any]

    def kind(self, layer: int, head: int) -> str:
        """Return the class (`classify`) of one head, by the number of keys that hold `MASS` of the attention."""
        share = self.mass_share[layer, head]
        n = self.n_mass[layer, head]
        return classify(round(float(n)), float(n) / max(float(share), 1e-12))

    def counts(self) -> dict[str, int]:
        """Return the number of heads of each class."""
        kinds = [row["kind"] for row in self.to_records()]
        return {name: kinds.count(name) for name in CLASSES}

    def to_records(self) -> list[dict[str, Any]]:
        """Return one row per head: `layer, head, name, kind, concentrates` and every measure."""
        n_layers, n_heads = self.n_mass.shape
        return [
            {"layer": i, "head": j, "name": str(HeadName(i, j)), "kind": self.kind(i, j)}
            | {"concentrates": bool(self.concentrates[i, j])}
            | {name: float(getattr(self, name)[i, j]) for name in MEASURES}
            for i in range(n_layers)
            for j in range(n_heads)
        ]

    def headline(self) -> str:
        """Return one line: the number of heads of each class."""
        counts = ", ".join(f"{n} {name}" for name, n in self.counts().items())
        return f"Heads as associative memories: {counts}; {int(self.concentrates.sum())} above untrained heads"

    def shown(self) -> list[dict[str, Any]]:
        """Return all heads, starting with the smallest fraction of keys attended to."""
        names = ("name", "kind", "concentrates", "mass_share", "n_mass", "entropy", "beta_unit", "first_share")
        rows = sorted(self.to_records(), key=lambda row: row["mass_share"])
        return [{n: row[n] for n in names} for row in rows]

    def to_json(self) -> dict[str, Any]:
        return {"settings": self.settings, "counts": self.counts(), "twin_bound": self.untrained_bound} | {
            "energy_rise": self.energy_rise,
            "pattern_error": self.pattern_error,
            "heads": as_json(self.to_records()),
        }

    def save(self, path: Path | str) -> None:
        save_json(self.to_json(), path)


def text_prompts(model: HookedModel, documents: Iterable[Any], n: int, length: int) -> Tensor:
    """Return the first tokens of the first `n` documents that are long enough, `[n, length]`, BOS first if there is
    one.

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
    raise PromptError(f"expected {n} documents of at least {length} tokens, found {len(rows)}; ask for fewer")


def measure_retrieval(
    model: HookedModel,
    tokens: Tensor,
    *,
    first_query: int | None = None,
    skip_first: bool = False,
    untrained: HookedModel | None = None,
    seed: int = 0,
) -> HeadRetrieval:
    """Measure every head on `tokens [n_prompts, pos]`, at the queries from `first_query` on (default: the later half).

    `untrained` is the model of the null (randomly initialised); by default it is made from `seed`. Raises `PromptError`
    on fewer than two prompts or queries without two keys, `ConfigError` where attention is not a softmax of scaled
    products.
    """
    _check_prompts(model, tokens, skip_first)
    first = tokens.shape[1] // 2 if first_query is None else first_query
    _check_first(tokens, first, skip_first)
    values, rise, error = _measure(model, tokens, first, skip_first)
    null, *_ = _measure(untrained or untrained_model(model, seed), tokens, first, skip_first)
    share = MEASURES.index("mass_share")
    n_keys = np.arange(first, tokens.shape[1]) + 1 - skip_first
    even = float(1 - np.median(np.ceil(MASS * n_keys) / n_keys))
    n_all = values.shape[1] * values.shape[2]
    _, low, _ = t_interval(1 - values[share], CONFIDENCE)
    bound = untrained_bounds(1 - null[share], even, n_all)[1]
    means = {name: values[i].mean(-1) for i, name in enumerate(MEASURES)}
    return HeadRetrieval(
        **means,
        concentrates=low > bound,
        concentration_low=low,
        untrained_bound=bound,
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
            "null": "untrained model",
            "seed": seed,
        },
    )


def _measure(model: HookedModel, tokens: Tensor, first: int, skip_first: bool) -> tuple[np.ndarray, float, float]:
    """Return measures `[n_measures, n_layers, n_heads, n_prompts]`, the largest energy rise, and the pattern error."""
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
def queries_and_keys(model: HookedModel, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield per layer of one prompt `[1, pos]` queries and keys `[n_heads, pos, d_head]`, and the attention pattern.

    Rotary positions are applied, and each query head has the keys of its group.
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
    """Return measures `[n_measures, n_heads]`, the largest relative energy rise, and the pattern error of one layer."""
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


def _scale(model: HookedModel, layer: int) -> float:
    """Return the factor of the scores: the layer's own scaling, else `1/sqrt(d_head)`."""
    scaling = getattr(model.blocks[layer].attn.original_component, "scaling", None)
    return model.cfg.d_head**-0.5 if scaling is None else float(scaling)


def _check_prompts(model: HookedModel, tokens: Tensor, skip_first: bool) -> None:
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
