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
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError
from interp.values import as_json, save_json

MASS = 0.9
"""share of the weights that the counted patterns hold together (Ramsauer et al. 2020, section on BERT)"""
CLASSES = ("single pattern", "metastable", "global averaging")
AVERAGING = 0.5
"""share of the patterns from which a head that needs them for `MASS` of its weights averages globally"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Retrieval:
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
