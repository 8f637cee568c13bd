"""A small Boltzmann machine, and the thermodynamics of next-token distributions.

**The machine** (`BoltzmannMachine`; Ackley et al. 1985) is the distribution over spins whose energy a Hopfield network
minimises:

    p(s) = exp(-E(s) / T) / Z,    E(s) = -s^T J s / 2 - b . s,    s_i = +1 or -1

The first `n_visible` spins are visible, the others hidden. Gibbs sampling draws one spin at a time from its conditional
distribution. Learning follows the gradient of the log-likelihood, a difference of two correlations (at T = 1):

    d log p(v) / d J_ij = <s_i s_j> with v clamped - <s_i s_j> of the machine

Contrastive divergence (Hinton 2002) estimates the second term from a few sweeps that start at the data. Up to `MOST`
spins all sums are also exact, as a reference for sampling and learning. At temperature 0 the machine is the Hopfield
network of `classical_networks`.

**A next-token distribution** is a Boltzmann distribution too (`sweep_temperatures`): token v has energy `E_v`, and
`p_v ~ exp(-E_v / T)`. At `T = 1` this is the model's own distribution; other temperatures give `softmax(logits / T)`.
With `Z = sum exp(-E/T)`:

    U = sum p E              mean energy
    S = -sum p log p         entropy, nats;  exp(S) is the effective number of tokens
    F = U - T S = -T log Z   free energy
    C = Var(E) / T^2         heat capacity = dU/dT: at its peak the distribution melts

Logits determine energies up to a constant, which affects `U` and `F` but not `S` and `C`. Two gauges fix it:

    mean      E_v = mean(logits) - logit_v             energies average 0 over the vocabulary
    surprisal E_v = logsumexp(logits) - logit_v        energies are surprisals at T = 1: there U = S and F = 0

The null of every sweep is a random energy model (Derrida 1981): the same number of normal energies of the same
variance, over several draws. The knowledge of a model shows in tokens far below these random levels.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from interp.artifacts import as_json, save_json
from interp.errors import ConfigError, NonFiniteError, UnknownNameError
from interp.results import Result
from interp.runtime import make_generator
from interp.studies.classical_networks import check_couplings, check_spins

MOST = 16
"""largest number of spins for sums over all states: 65,536 states"""


class Moments(NamedTuple):
    """First and second moments of a distribution over spins."""

    first: Float[Tensor, " n"]
    """`[n]`: means `<s_i>`, -1 to 1"""
    second: Float[Tensor, "n n"]
    """`[n, n]`: correlations `<s_i s_j>`, 1 on the diagonal"""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoltzmannMachine:
    """Couplings and biases of a Boltzmann machine. Immutable: learning returns new machines."""

    couplings: Shaped[Tensor, "..."]
    """`[n, n]` symmetric, diagonal 0, float32 or float64"""
    bias: Shaped[Tensor, "..."]
    """`[n]`"""
    n_visible: int

    def __post_init__(self) -> None:
        check_couplings(self.couplings)
        n = len(self.couplings)
        if self.bias.shape != (n,) or self.bias.dtype != self.couplings.dtype:
            raise ConfigError(
                f"expected a bias for each spin in the dtype of the couplings, {self.couplings.dtype} [{n}], got "
                f"{self.bias.dtype} {list(self.bias.shape)}"
            )
        if not torch.isfinite(self.bias).all():
            raise NonFiniteError("biases must be finite, got NaN or infinity; give a large number to clamp a spin")
        if not 1 <= self.n_visible <= n:
            raise ConfigError(f"n_visible must lie between 1 and {n}, got {self.n_visible}")

    @property
    def n(self) -> int:
        """Number of spins, visible and hidden."""
        return len(self.bias)

    def energy(self, states: Shaped[Tensor, "..."]) -> Float64[Tensor, " n_states"]:
        """Return the energy of every row of `states [n_states, n]` of +1 and -1, summed in float64."""
        states = check_spins(states, self.couplings).double()
        return -((states @ self.couplings.double()) * states).sum(-1) / 2 - states @ self.bias.double()

    def exact(self, temperature: float = 1.0) -> Float64[Tensor, " n_states"]:
        """Return the probabilities of `all_states(n)`, `[2^n]` float64. Raises `ConfigError` beyond `MOST` spins."""
        return (-self.energy(all_states(self.n)) / _above_zero(temperature)).softmax(0)

    def moments(self, temperature: float = 1.0) -> Moments:
        """Return the exact means of spins and of pairs of spins."""
        return _moments(all_states(self.n), self.exact(temperature))

    def log_likelihood(self, data: Shaped[Tensor, "..."]) -> float:
        """Return the exact mean log-probability of visible rows `data [n_rows, n_visible]`, nats."""
        states = all_states(self.n)
        log_p = (-self.energy(states)).log_softmax(0)
        visible = log_p.view(2**self.n_visible, -1).logsumexp(1)
        return float(visible[state_numbers(_check_data(self, data))].mean())

    def sample(
        self, n_chains: int, n_sweeps: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Float[Tensor, "{n_chains} n"]:
        """Run independent chains of `n_sweeps` Gibbs sweeps from random spins; returns `[n_chains, n]`."""
        if n_chains < 1:
            raise ConfigError(f"expected at least one chain, got n_chains {n_chains}")
        states = torch.randint(2, (n_chains, self.n), generator=generator).to(self.bias) * 2 - 1
        return self.sweep(states, n_sweeps, temperature=temperature, generator=generator)

    def sweep(
        self,
        states: Shaped[Tensor, "..."],
        n_sweeps: int,
        *,
        temperature: float = 1.0,
        first: int = 0,
        generator: torch.Generator,
    ) -> Float[Tensor, "n_chains n"]:
        """Sweep over the spins of `states [n_chains, n]` from `first` on; `n_visible` clamps the visible spins."""
        if n_sweeps < 0 or not 0 <= first <= self.n:
            raise ConfigError(
                f"expected sweeps of at least 0 from a spin of 0 to {self.n} on, got {n_sweeps} from {first} on"
            )
        states, heat = check_spins(states, self.couplings).clone(), _above_zero(temperature)
        for _ in range(n_sweeps):
            for spin in range(first, self.n):
                field = states @ self.couplings[:, spin] + self.bias[spin]
                up = torch.rand(len(states), generator=generator, dtype=field.dtype) < (2 * field / heat).sigmoid()
                states[:, spin] = up.to(states) * 2 - 1
        return states


def new_machine(n_visible: int, n_hidden: int = 0, *, scale: float = 0.01, seed: int = 0) -> BoltzmannMachine:
    """Create a machine with small random couplings and no biases, float64."""
    if n_visible < 1 or n_hidden < 0 or not math.isfinite(scale):
        raise ConfigError(
            f"expected at least one visible spin, 0 hidden ones and a finite scale, got {n_visible}, {n_hidden} "
            f"and {scale}"
        )
    n = n_visible + n_hidden
    drawn = torch.randn(n, n, generator=make_generator(seed, "boltzmann machine"), dtype=torch.float64)
    upper = scale * drawn.triu(1)
    return BoltzmannMachine(couplings=upper + upper.T, bias=torch.zeros(n, dtype=torch.float64), n_visible=n_visible)


def all_states(n: int) -> Float64[Tensor, "n_states {n}"]:
    """Return all `[2^n, n]` float64 states of `n` spins, last spin fastest. Raises `ConfigError` beyond `MOST`."""
    if not 1 <= n <= MOST:
        raise ConfigError(f"all states can be summed for 1 to {MOST} spins, got {n}; sample instead")
    return _all_states(n)


@cache
def _all_states(n: int) -> Float64[Tensor, "n_states {n}"]:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n)), dtype=torch.float64)


def state_numbers(states: Float[Tensor, "n_states n"]) -> Int64[Tensor, " n_states"]:
    """Return the row numbers of `states [n_states, n]` in `all_states`."""
    powers = 2 ** torch.arange(states.shape[1] - 1, -1, -1)
    return ((states > 0).long() * powers).sum(1)


def exact_gradient(machine: BoltzmannMachine, data: Shaped[Tensor, "..."]) -> Moments:
    """Return the exact gradient of the mean log-likelihood of `data [n_rows, n_visible]` by biases and couplings.

    A coupling `J_ij = J_ji` is one parameter, with gradient `<s_i s_j>_data - <s_i s_j>_machine`.
    """
    states = all_states(machine.n)
    log_p = (-machine.energy(states)).log_softmax(0).view(2**machine.n_visible, -1)
    share = torch.bincount(state_numbers(_check_data(machine, data)), minlength=len(log_p)).double() / len(data)
    clamped = (log_p.log_softmax(1).exp() * share[:, None]).flatten()
    return _difference(_moments(states, clamped), machine.moments())


def contrastive_divergence(
    machine: BoltzmannMachine, data: Shaped[Tensor, "..."], *, n_sweeps: int = 1, generator: torch.Generator
) -> Moments:
    """Estimate the gradient by CD-`n_sweeps` (Hinton 2002), with chains that start at the data.

    Hidden spins are sampled first, then all spins. Biased for few sweeps; with many it converges to `exact_gradient` up
    to sampling noise.
    """
    if n_sweeps < 1:
        raise ConfigError(f"contrastive divergence needs a sweep, got n_sweeps {n_sweeps}; give at least 1")
    visible = _check_data(machine, data)
    hidden = torch.randint(2, (len(visible), machine.n - machine.n_visible), generator=generator) * 2.0 - 1
    states = torch.cat([visible, hidden.to(visible)], 1)
    held = machine.sweep(states, 3 if hidden.shape[1] else 0, first=machine.n_visible, generator=generator)
    free = machine.sweep(held, n_sweeps, generator=generator)
    even = torch.full((len(visible),), 1 / len(visible), dtype=visible.dtype)
    return _difference(_moments(held, even), _moments(free, even))


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningStep:
    """The machine after some steps of learning, with its log-likelihood."""

    step: int
    machine: BoltzmannMachine
    log_likelihood: float | None
    """exact, nats per row; None beyond `MOST` spins"""
    settings: dict[str, Any]


def learn(
    machine: BoltzmannMachine,
    data: Shaped[Tensor, "..."],
    *,
    steps: int = 200,
    lr: float = 0.1,
    n_sweeps: int | None = None,
    log_every: int = 50,
    seed: int = 0,
) -> Iterator[LearningStep]:
    """Maximise the likelihood of `data [n_rows, n_visible]`, yielding every `log_every` steps and at the last.

    `n_sweeps` None uses the exact gradient, a number contrastive divergence with that many sweeps. Raises
    `NonFiniteError` when couplings diverge.
    """
    if steps < 1 or not 0 < lr < math.inf or log_every < 1 or (n_sweeps is not None and n_sweeps < 1):
        raise ConfigError(
            "steps, log_every and n_sweeps must be at least 1, and lr above 0 and finite, got "
            f"{steps}, {log_every}, {n_sweeps} and {lr}"
        )
    generator = make_generator(seed, "boltzmann learning")
    settings = {"steps": steps, "lr": lr, "n_sweeps": n_sweeps, "seed": seed, "n_rows": len(data)}
    for step in range(1, steps + 1):
        if n_sweeps is None:
            by = exact_gradient(machine, data)
        else:
            by = contrastive_divergence(machine, data, n_sweeps=n_sweeps, generator=generator)
        couplings = machine.couplings + lr * by.second.to(machine.couplings)
        bias = machine.bias + lr * by.first.to(machine.bias)
        if not (torch.isfinite(couplings).all() and torch.isfinite(bias).all()):
            raise NonFiniteError(f"couplings are not finite after {step} steps; use a lower lr (it is {lr})")
        machine = BoltzmannMachine(couplings=couplings, bias=bias, n_visible=machine.n_visible)
        if step % log_every == 0 or step == steps:
            known = machine.log_likelihood(data) if machine.n <= MOST else None
            yield LearningStep(step=step, machine=machine, log_likelihood=known, settings=settings)


def _moments(states: Float[Tensor, "n_states n"], weights: Float[Tensor, " n_states"]) -> Moments:
    return Moments(weights @ states, states.T @ (weights[:, None] * states))


def _difference(one: Moments, other: Moments) -> Moments:
    return Moments(one.first - other.first, (one.second - other.second).fill_diagonal_(0))


def _above_zero(temperature: float) -> float:
    if not temperature > 0:
        raise ConfigError(f"expected a temperature above 0, got {temperature}; for 0 use classical_networks.recall")
    return temperature


def _check_data(machine: BoltzmannMachine, data: Shaped[Tensor, "..."]) -> Float[Tensor, "n_rows n_visible"]:
    if data.ndim != 2 or data.shape[1] != machine.n_visible or not len(data) or not bool((data.abs() == 1).all()):
        raise ConfigError(f"expected rows of {machine.n_visible} visible spins, +1 or -1, got {list(data.shape)}")
    return data.to(machine.bias)


Gauge = Literal["mean", "surprisal"]
GAUGES = ("mean", "surprisal")
COLDEST = 1e-100


@dataclass(frozen=True, kw_only=True, eq=False)
class Thermodynamics(Result):
    """Thermodynamics over temperature, `[n_rows, n_temperatures]` float64: one row per distribution."""

    temperatures: Float64[Tensor, " n_temperatures"]
    """`[n_temperatures]`, rising"""
    energy: Float64[Tensor, "n_rows n_temperatures"]
    """`U`, in logits, in the gauge of the settings"""
    entropy: Float64[Tensor, "n_rows n_temperatures"]
    """`S`, nats: 0 for one certain token, log d_vocab for a uniform distribution"""
    free_energy: Float64[Tensor, "n_rows n_temperatures"]
    """`F`, in logits, in the gauge of the settings"""
    heat_capacity: Float64[Tensor, "n_rows n_temperatures"]
    """`C`, nats: dU/dT"""
    settings: dict[str, Any]

    @property
    def n_tokens(self) -> Float64[Tensor, "n_rows n_temperatures"]:
        """Effective number of tokens, exp(entropy)."""
        return self.entropy.exp()

    @property
    def peak_temperature(self) -> Float64[Tensor, " n_rows"]:
        """Temperature of the largest heat capacity in the sweep, `[n_rows]`."""
        return self.temperatures[self.heat_capacity.argmax(1)]

    def to_records(self) -> list[dict[str, float]]:
        """Return one row per temperature, every measure a mean over distributions."""
        names = ("energy", "entropy", "free_energy", "heat_capacity")
        columns = {name: getattr(self, name).mean(0).tolist() for name in names}
        rows = enumerate(self.temperatures.tolist())
        return [{"temperature": t} | {name: columns[name][i] for name in names} for i, t in rows]

    def headline(self) -> str:
        """Return one line: the temperature of the largest heat capacity."""
        n, peak = len(self.entropy), float(self.peak_temperature.median())
        return f"{n} next-token distributions over temperature: means; heat capacity is largest at {peak:.2g} (median)"

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    def save(self, path: Path | str) -> None:
        save_json(self, path)


def sweep_temperatures(
    logits: Tensor | np.ndarray, temperatures: Tensor | np.ndarray | list[float], *, gauge: Gauge = "mean"
) -> Thermodynamics:
    """Measure `logits [n_rows, d_vocab]` (or `[d_vocab]`) at every temperature, in float64.

    Raises `ConfigError` unless temperatures are finite, above 0 and rising and there are two tokens; `NonFiniteError`
    on NaN or infinite logits (minus infinity, a forbidden token, would have infinite energy).
    """
    heat = torch.as_tensor(temperatures, dtype=torch.float64).flatten()
    _check_heat(heat)
    rows = _rows(logits)
    levels = energy_levels(rows, gauge)
    parts = [_at(levels, float(t)) for t in heat]
    energy, entropy, free, capacity = (torch.stack(column, 1) for column in zip(*parts, strict=True))
    return Thermodynamics(
        temperatures=heat,
        energy=energy,
        entropy=entropy,
        free_energy=free,
        heat_capacity=capacity,
        settings={"gauge": gauge, "d_vocab": rows.shape[1], "n_rows": len(rows)},
    )


def energy_levels(logits: Float[Tensor, "*rows d_vocab"], gauge: Gauge = "mean") -> Float[Tensor, "*rows d_vocab"]:
    """Return energies `[n_rows, d_vocab]` of logits, with the constant fixed by the gauge."""
    if gauge not in GAUGES:
        raise UnknownNameError("gauge", gauge, GAUGES)
    if not torch.isfinite(logits).all():
        raise NonFiniteError("logits hold NaN or infinity; leave out the tokens that are forbidden")
    offset = logits.mean(-1, keepdim=True) if gauge == "mean" else logits.logsumexp(-1, keepdim=True)
    return offset - logits


def random_energy_null(
    logits: Tensor | np.ndarray,
    temperatures: Tensor | np.ndarray | list[float],
    *,
    gauge: Gauge = "mean",
    n_draws: int = 5,
    seed: int = 0,
) -> Thermodynamics:
    """Return the same sweep for normal energies with each row's mean and variance, averaged over `n_draws` draws.

    Rows and gauge as in `sweep_temperatures`. In the limit of many tokens the entropy of this null reaches 0 below a
    temperature of `sigma / sqrt(2 log d_vocab)`.
    """
    rows = _rows(logits)
    if n_draws < 1:
        raise ConfigError(f"a null needs at least one draw, got {n_draws}")
    generator = make_generator(seed, "random energy model")
    mean, spread = rows.mean(1, keepdim=True), rows.std(1, keepdim=True, unbiased=False)
    draws = []
    for _ in range(n_draws):
        normal = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
        normal = (normal - normal.mean(1, keepdim=True)) / normal.std(1, keepdim=True, unbiased=False)
        draws.append(sweep_temperatures(mean + spread * normal, temperatures, gauge=gauge))
    names = ("energy", "entropy", "free_energy", "heat_capacity")
    return Thermodynamics(
        temperatures=draws[0].temperatures,
        **{name: torch.stack([getattr(draw, name) for draw in draws]).mean(0) for name in names},
        settings={**draws[0].settings, "null": "random energy model", "n_draws": n_draws, "seed": seed},
    )


def _at(
    levels: Float64[Tensor, "n_rows d_vocab"], temperature: float
) -> tuple[
    Float64[Tensor, " n_rows"], Float64[Tensor, " n_rows"], Float64[Tensor, " n_rows"], Float64[Tensor, " n_rows"]
]:
    log_z = (-levels / temperature).logsumexp(1)
    p = (-levels / temperature - log_z[:, None]).exp()
    energy = (p * levels).sum(1)
    variance = (p * (levels - energy[:, None]).square()).sum(1)
    return energy, torch.special.entr(p).sum(1), -temperature * log_z, variance / temperature**2


def _rows(logits: Tensor | np.ndarray) -> Float64[Tensor, "n_rows d_vocab"]:
    """Reshape `[d_vocab]` or any number of leading axes to `[n_rows, d_vocab]` float64."""
    values = torch.as_tensor(logits).detach().double()
    if values.ndim == 0 or values.shape[-1] < 2 or not values.numel():
        raise ConfigError(
            f"a distribution needs at least two tokens, got logits {list(values.shape)}; give [n_rows, d_vocab]"
        )
    return values.reshape(-1, values.shape[-1])


def _check_heat(heat: Float64[Tensor, " n_temperatures"]) -> None:
    """Check temperatures; below `COLDEST` the heat capacity is rounding error only."""
    if not len(heat) or not float(heat[0]) >= COLDEST or not bool((heat.diff() > 0).all()) or heat[-1].isinf():
        raise ConfigError(
            f"temperatures must be above 0 (at least {COLDEST:g}), finite and rising, got {heat.tolist()}; sort "
            "them, without the others"
        )
