"""Associative memories and Boltzmann distributions: what the notebook `10_energy.py` measures.

- **Modern Hopfield retrieval** (`Memory`; Ramsauer et al. 2020), and heads measured as memories (`measure_heads`).
- **Capacity** of the network of 1982 and of the modern one (`measure_recall`, `measure_doublings`).
- **Temperature** of next-token distributions (`sweep_temperatures`), with a random energy model as the null.
- **A Boltzmann machine** (`new_machine`, `learn`), small enough that all its states can be summed.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy.optimize import brentq, minimize_scalar
from scipy.special import erfinv
from torch import Tensor

from interp.circuits.head_kinds import untrained_bounds
from interp.models.adapter import available_hook_points, run_with_cache
from interp.models.hooked import HookedModel
from interp.seeds import make_generator
from interp.threads import one_thread
from interp.statistics import t_interval

MASS = 0.9
"""fraction of the weights that the counted patterns must hold together (Ramsauer et al. 2020, section on BERT)"""
KINDS = ("single pattern", "metastable", "global averaging")


@dataclass(frozen=True, eq=False)
class Memory:
    """Stored patterns (rows of `X`), an inverse temperature, and the patterns that each state may read: all or some."""

    patterns: Float64[Tensor, "*batch n d"]
    beta: float
    visible: Bool[Tensor, "n_states n"] | None = None

    def scores(self, states: Float64[Tensor, "*batch n_states d"]) -> Float64[Tensor, "*batch n_states n"]:
        """Return `beta X q`, minus infinity for patterns that a state may not read."""
        scores = self.beta * states @ self.patterns.mT
        return scores if self.visible is None else scores.masked_fill(~self.visible, -torch.inf)

    def step(self, states: Float64[Tensor, "*batch n_states d"]) -> Float64[Tensor, "*batch n_states d"]:
        """Take one step of retrieval: attention whose values are its keys, `softmax(beta X q) X`."""
        return self.scores(states).softmax(-1) @ self.patterns

    def energy(self, states: Float64[Tensor, "*batch n_states d"]) -> Float64[Tensor, "*batch n_states"]:
        """Return `-lse(beta, X q) + |q|^2 / 2 + log(n) / beta + M^2 / 2` of every state (equation 2), at least 0.

        `n` is the number of patterns that the state may read, `M` the length of the longest of them. A step lowers the
        energy by at least half its squared length.
        """
        scores = self.scores(states)
        visible = scores > -torch.inf
        longest = torch.where(visible, self.patterns.square().sum(-1)[..., None, :], 0.0).amax(-1)
        free = (visible.sum(-1).double().log() - scores.logsumexp(-1)) / self.beta
        return free + states.square().sum(-1) / 2 + longest / 2


def patterns_for_mass(weights: Float64[Tensor, "*batch n"]) -> Int64[Tensor, "*batch"]:
    """Return the smallest number of weights whose sum reaches `MASS`."""
    return (weights.sort(-1, descending=True).values.cumsum(-1) < MASS - 1e-12).sum(-1) + 1


def classify(n_mass: float, n: float) -> str:
    """Return the kind of a fixed point: one of `n` patterns holds `MASS` of its weights, a few, or more than half."""
    return KINDS[0 if n_mass <= 1 else 2 if n_mass > n / 2 else 1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """Every head as an associative memory: medians over queries, `[n_layers, n_heads, n_prompts]`."""

    n_mass: np.ndarray
    """number of keys that hold `MASS` of the attention"""
    mass_share: np.ndarray
    """the same as a fraction of the visible keys: about 0.9 for uniform attention"""
    energy: np.ndarray
    """of the query, in squared units of the key space"""
    energy_after: np.ndarray
    beta_unit: np.ndarray
    """inverse temperature for a query and keys of unit length: `beta |q| rms|k|`"""
    score_spread: np.ndarray
    """standard deviation of the scores over keys, nats: 0 gives uniform attention"""
    first_share: np.ndarray
    """attention on the first position, 0 to 1"""
    energy_rise: np.ndarray
    """largest relative rise of the energy in a step: 0 up to rounding, by theorem"""
    pattern_error: np.ndarray
    """largest difference from the model's own attention"""

    @property
    def kinds(self) -> np.ndarray:
        """Kind of each head, `[n_layers, n_heads]`, by the means over prompts."""
        n_mass = self.n_mass.mean(-1)
        return np.vectorize(classify)(n_mass.round(), n_mass / self.mass_share.mean(-1))

    def counts(self) -> dict[str, int]:
        """Return the number of heads of each kind."""
        return {kind: int((self.kinds == kind).sum()) for kind in KINDS}

    def concentrate(self, untrained: "Heads") -> np.ndarray:
        """Return True for heads that attend to fewer keys than those of an untrained model, corrected for all heads."""
        null = 1 - untrained.mass_share
        return t_interval(1 - self.mass_share).low > untrained_bounds(null, 0.0, null[..., 0].size)[1]


def measure_heads(model: HookedModel, tokens: Int64[Tensor, "n_prompts pos"], *, skip_first: bool = False) -> Heads:
    """Measure every head at the queries of the later half of each prompt.

    A query is the state, the keys that it may attend to are the patterns, both after rotary positions. `skip_first`
    leaves the first position out of the memory: many heads attend to it without reading anything (attention sinks).
    """
    rows = [[_measure_layer(*layer, skip_first) for layer in queries_and_keys(model, row)] for row in tokens.split(1)]
    return Heads(**{name: np.stack([[layer[name] for layer in row] for row in rows], -1) for name in rows[0][0]})


@torch.no_grad()
def queries_and_keys(model: HookedModel, prompt: Int64[Tensor, "1 pos"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield per layer queries and keys `[n_heads, pos, d_head]` after rotary positions, and the attention pattern."""
    rotary = "blocks.0.attn.hook_rot_q" in available_hook_points(model)
    sides = ("rot_q", "rot_k", "pattern") if rotary else ("q", "k", "pattern")
    points = [[f"blocks.{layer}.attn.hook_{side}" for side in sides] for layer in range(model.cfg.n_layers)]
    _, cache = run_with_cache(model, prompt, list(itertools.chain(*points)))
    for names in points:
        q, k = (cache[name][0].transpose(0, 1).double() for name in names[:2])
        yield q, k.repeat_interleave(len(q) // len(k), 0), cache[names[2]][0]


def _measure_layer(q: Tensor, k: Tensor, pattern: Tensor, skip_first: bool) -> dict[str, Float64[Tensor, " n_heads"]]:
    """Return the fields of `Heads` for the heads of one layer on one prompt, as `queries_and_keys` yields them."""
    beta, first = q.shape[-1] ** -0.5, q.shape[1] // 2
    causal = torch.ones(pattern.shape[1:], dtype=torch.bool).tril()
    whole = Memory(k, beta, causal).scores(q).softmax(-1)
    state, visible = q[:, first:], causal[first:].clone()
    visible[:, 0] &= not skip_first
    memory, scores, n = Memory(k, beta, visible), Memory(k, beta).scores(state), visible.sum(-1).double()
    n_mass = patterns_for_mass(memory.scores(state).softmax(-1)).double()
    energy, energy_after = memory.energy(state), memory.energy(memory.step(state))

    def over_keys(values: Tensor) -> Tensor:
        return (values * visible).sum(-1) / n

    measures = {
        "n_mass": n_mass,
        "mass_share": n_mass / n,
        "energy": energy,
        "energy_after": energy_after,
        "beta_unit": beta * state.norm(dim=-1) * over_keys(k.square().sum(-1)[:, None]).sqrt(),
        "score_spread": over_keys((scores - over_keys(scores)[..., None]).square()).sqrt(),
        "first_share": whole[:, first:, 0],
    }
    rise = ((energy_after - energy) / energy.clamp_min(1e-9)).clamp_min(0)
    largest = {"energy_rise": rise.amax(-1), "pattern_error": (whole - pattern).abs().amax((-2, -1))}
    return {name: value.median(-1).values for name, value in measures.items()} | largest


def hebb(patterns: Float[Tensor, "n_patterns n"]) -> Float[Tensor, "n n"]:
    """Return Hebbian couplings of patterns of +1 and -1, without self-coupling."""
    return (patterns.T @ patterns / patterns.shape[1]).fill_diagonal_(0)


def recall(couplings: Float[Tensor, "n n"], states: Float[Tensor, "n_states n"]) -> Float[Tensor, "n_states n"]:
    """Flip the most unstable spin of every state until none is unstable: the energy `-s J s / 2` falls with each.

    A spin with a field below 1e-6 of the largest possible one stays, as that is rounding.
    """
    states = states.clone()
    field, least = states @ couplings, 1e-6 * float(couplings.abs().sum(0).max())
    while True:
        margin, spin = (states * field).min(1)
        unstable = (margin < -least).nonzero()[:, 0]
        if not len(unstable):
            return states
        flipped = spin[unstable]
        states[unstable, flipped] *= -1
        field[unstable] += 2 * states[unstable, flipped, None] * couplings[flipped]


def measure_recall(n: int, loads: tuple[float, ...], *, n_seeds: int, n_starts: int) -> np.ndarray:
    """Return mean overlaps `s . x / n` of stored patterns x with the states s that recall from them reaches.

    `[n_loads, n_seeds]`; 1 is an exact match, 0 chance. A load is the number of patterns per spin. A network at a lower
    load stores the first patterns of the network at the next.
    """
    counts, overlaps = [round(load * n) for load in loads], np.zeros((len(loads), n_seeds))
    with one_thread():
        for seed in range(n_seeds):
            generator = make_generator(0, "hopfield patterns", seed)
            patterns = torch.randint(2, (counts[-1], n), generator=generator).float() * 2 - 1
            couplings, stored = torch.zeros(n, n), 0
            for i, count in enumerate(counts):
                couplings, stored = couplings + hebb(patterns[stored:count]), count
                starts = patterns[:count][-n_starts:]
                overlaps[i, seed] = (recall(couplings, starts) * starts).mean()
    return overlaps


def replica_capacity() -> tuple[float, float]:
    """Return the largest load with a solution of replica theory (Amit et al. 1985), 0.138, and the overlap there."""
    best = minimize_scalar(lambda t: -_replica_load(t), bounds=(0.5, 4), method="bounded", options={"xatol": 1e-9})
    return _replica_load(best.x), math.erf(best.x)


def replica_overlap(load: float) -> float:
    """Return the overlap after recall in the limit of many spins; NaN above the capacity."""
    capacity, overlap = replica_capacity()
    if load > capacity:
        return math.nan
    return math.erf(brentq(lambda t: _replica_load(t) - load, erfinv(overlap), 40))


def _replica_load(t: float) -> float:
    return (math.erf(t) / t - 2 / math.sqrt(math.pi) * math.exp(-t * t)) ** 2 / 2


Recover = Callable[[Tensor, Tensor], Tensor]
"""(patterns, starts) -> the states that a network with these patterns reaches from these starts"""


def measure_doublings(
    recover: Recover, dims: tuple[int, ...], *, wrong: float, n_seeds: int = 4, n_starts: int = 100
) -> np.ndarray:
    """Return log2 of the number of random patterns that a network retains, `[n_dims, n_seeds]`, interpolated.

    At that number half of the starts, in which a fraction `wrong` of the spins is flipped, are recovered exactly.
    """
    doublings = np.zeros((len(dims), n_seeds))
    with one_thread():
        for (i, d), seed in itertools.product(enumerate(dims), range(n_seeds)):
            generator, power, before, share = make_generator(0, "capacity", seed, d), 0, 1.0, 1.0
            while share >= 0.5:
                power, before = power + 1, share
                share = _recovered(recover, 2**power, d, wrong, n_starts, generator)
            doublings[i, seed] = power - 1 + (before - 0.5) / (before - share)
    return doublings


def _recovered(recover: Recover, n: int, d: int, wrong: float, n_starts: int, generator: torch.Generator) -> float:
    """Return the fraction of starts that a network of `n` patterns recovers exactly."""
    patterns = torch.randint(2, (n, d), generator=generator, dtype=torch.int8).double() * 2 - 1
    chosen = torch.randint(n, (n_starts,), generator=generator)
    starts = patterns[chosen].clone()
    flipped = torch.rand(n_starts, d, generator=generator).argsort(1)[:, : round(wrong * d)]
    starts.scatter_(1, flipped, -starts.gather(1, flipped))
    return float((recover(patterns, starts) == patterns[chosen]).all(1).double().mean())


class Sweep(NamedTuple):
    """Thermodynamics of next-token distributions, `[n_rows, n_temperatures]`; energies are `mean(logits) - logits`.

    The heat capacity, `Var(energy) / T^2`, is the slope of the mean energy: at its peak the distribution melts.
    """

    energy: Tensor
    entropy: Tensor
    heat_capacity: Tensor


def sweep_temperatures(logits: Float[Tensor, "n_rows d_vocab"], temperatures: Float[Tensor, " n"]) -> Sweep:
    """Measure distributions at every temperature."""
    levels, columns = (logits.mean(1, keepdim=True) - logits).double(), []
    for heat in temperatures.tolist():
        p = (-levels / heat).softmax(1)
        energy = (p * levels).sum(1)
        variance = (p * (levels - energy[:, None]).square()).sum(1)
        columns.append((energy, torch.special.entr(p).sum(1), variance / heat**2))
    return Sweep(*(torch.stack(column, 1) for column in zip(*columns, strict=True)))


def random_energies(logits: Float64[Tensor, "n_rows d_vocab"]) -> Float64[Tensor, "n_rows d_vocab"]:
    """Draw normal logits of each row's mean and variance: a random energy model (Derrida 1981), the null of a sweep."""
    normal = torch.randn(logits.shape, generator=make_generator(0, "random energy model"), dtype=torch.float64)
    normal = (normal - normal.mean(1, keepdim=True)) / normal.std(1, keepdim=True)
    return logits.mean(1, keepdim=True) + logits.std(1, keepdim=True) * normal


@dataclass(frozen=True, eq=False)
class Machine:
    """A Boltzmann machine (Ackley et al. 1985): spins of +1 and -1, the visible ones first.

    `p(s) ~ exp(s J s / 2 + b s)`, with symmetric couplings and no self-coupling.
    """

    couplings: Float64[Tensor, "n n"]
    bias: Float64[Tensor, " n"]
    n_visible: int

    def exponents(self, states: Float64[Tensor, "*batch n"]) -> Float64[Tensor, "*batch"]:
        """Return the log-probabilities of states, up to a constant."""
        return ((states @ self.couplings) * states).sum(-1) / 2 + states @ self.bias

    def log_likelihood(self, data: Float64[Tensor, "n_rows n_visible"]) -> Float64[Tensor, ""]:
        """Return the mean log-probability of visible rows, nats: a sum over all states of the others."""
        hidden = all_states(len(self.bias) - self.n_visible)
        rows = torch.cat([data[:, None].expand(-1, len(hidden), -1), hidden.expand(len(data), -1, -1)], -1)
        return self.exponents(rows).logsumexp(1).mean() - self.exponents(all_states(len(self.bias))).logsumexp(0)

    def sweep(self, states: Tensor, n_sweeps: int, generator: torch.Generator, *, first: int = 0) -> Tensor:
        """Draw every spin of `states [n_chains, n]` from `first` on given the others, `n_sweeps` times in order."""
        states = states.clone()
        for spin in [*range(first, len(self.bias))] * n_sweeps:
            field = states @ self.couplings[:, spin] + self.bias[spin]
            up = torch.rand(len(states), generator=generator, dtype=field.dtype) < (2 * field).sigmoid()
            states[:, spin] = up.to(states) * 2 - 1
        return states


def new_machine(n_visible: int, n_hidden: int = 0, *, scale: float = 0.01, seed: int = 0) -> Machine:
    """Create a machine with small random couplings and no biases."""
    n = n_visible + n_hidden
    drawn = torch.randn(n, n, generator=make_generator(seed, "boltzmann machine"), dtype=torch.float64)
    return Machine(scale * (drawn.triu(1) + drawn.triu(1).T), torch.zeros(n, dtype=torch.float64), n_visible)


def all_states(n: int) -> Float64[Tensor, "n_states {n}"]:
    """Return all states of `n` spins, last spin fastest."""
    return torch.tensor([*itertools.product((-1.0, 1.0), repeat=n)], dtype=torch.float64)


Gradient = tuple[Float64[Tensor, "n n"], Float64[Tensor, " n"]]
"""by couplings, where `J_ij = J_ji` is one parameter, and by biases"""


def exact_gradient(machine: Machine, data: Float64[Tensor, "n_rows n_visible"]) -> Gradient:
    """Return the gradient of the log-likelihood."""
    leaves = [values.clone().requires_grad_() for values in (machine.couplings, machine.bias)]
    by_couplings, by_bias = torch.autograd.grad(Machine(*leaves, machine.n_visible).log_likelihood(data), leaves)
    return (by_couplings + by_couplings.T).fill_diagonal_(0), by_bias


def contrastive_divergence(machine: Machine, data: Tensor, n_sweeps: int, generator: torch.Generator) -> Gradient:
    """Estimate that gradient from `n_sweeps` that start at the data, hidden spins sampled first (Hinton 2002)."""
    hidden = torch.randint(2, (len(data), len(machine.bias) - machine.n_visible), generator=generator) * 2.0 - 1
    clamped = machine.sweep(torch.cat([data, hidden], 1), 3, generator, first=machine.n_visible)
    free = machine.sweep(clamped, n_sweeps, generator)
    return (clamped.T @ clamped - free.T @ free) / len(data), clamped.mean(0) - free.mean(0)


def learn(machine: Machine, data: Tensor, *, steps: int, lr: float, n_sweeps: int = 0) -> Machine:
    """Climb the likelihood of `data`: by the exact gradient, or by contrastive divergence where there are sweeps."""
    generator = make_generator(0, "boltzmann learning")
    for _ in range(steps):
        by = contrastive_divergence(machine, data, n_sweeps, generator) if n_sweeps else exact_gradient(machine, data)
        machine = Machine(machine.couplings + lr * by[0], machine.bias + lr * by[1], machine.n_visible)
    return machine
