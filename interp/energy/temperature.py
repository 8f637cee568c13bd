"""A next-token distribution as a Boltzmann distribution: token v has energy `E_v`, and `p_v ~ exp(-E_v / T)`.

At `T = 1` this is the model's own distribution; other temperatures are `softmax(logits / T)`. With `Z = sum exp(-E/T)`:

    U = sum p E              mean energy
    S = -sum p log p         entropy, nats;  exp(S) tokens are in play
    F = U - T S = -T log Z   free energy
    C = Var(E) / T^2         heat capacity = dU/dT: where it peaks, the distribution melts

Logits fix energies up to a constant, which `S` and `C` do not see and `U` and `F` do. Two gauges fix it:

    mean      E_v = mean(logits) - logit_v             energies average 0 over the vocabulary
    surprisal E_v = logsumexp(logits) - logit_v        energies are surprisals at T = 1: there U = S and F = 0

Beside every sweep stands the null of a random energy model (Derrida 1981): as many normal energies of the same
variance, over several draws. What a model knows shows as tokens far below that crowd.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError, UnknownNameError
from interp.runtime import make_generator
from interp.values import as_json, save_json

Gauge = Literal["mean", "surprisal"]
GAUGES = ("mean", "surprisal")
COLDEST = 1e-100


@dataclass(frozen=True, kw_only=True, eq=False)
class Thermodynamics:
    """`[n_rows, n_temperatures]` float64 throughout: one row per distribution."""

    temperatures: Tensor
    """`[n_temperatures]`, rising"""
    energy: Tensor
    """`U`, in logits, by the gauge of the settings"""
    entropy: Tensor
    """`S`, nats: 0 one token, log d_vocab all alike"""
    free_energy: Tensor
    """`F`, in logits, by the gauge"""
    heat_capacity: Tensor
    """`C`, nats: dU/dT"""
    settings: dict[str, Any]

    @property
    def n_tokens(self) -> Tensor:
        """exp(entropy): the effective number of tokens in play."""
        return self.entropy.exp()

    @property
    def peak_temperature(self) -> Tensor:
        """`[n_rows]`: where the heat capacity is largest among the temperatures of the sweep."""
        return self.temperatures[self.heat_capacity.argmax(1)]

    def to_records(self) -> list[dict[str, float]]:
        """One plain dict per temperature, every measure a mean over rows."""
        names = ("energy", "entropy", "free_energy", "heat_capacity")
        columns = {name: getattr(self, name).mean(0).tolist() for name in names}
        rows = enumerate(self.temperatures.tolist())
        return [{"temperature": t} | {name: columns[name][i] for name in names} for i, t in rows]

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    def save(self, path: Path | str) -> None:
        save_json(self, path)


def sweep_temperatures(
    logits: Tensor | np.ndarray, temperatures: Tensor | np.ndarray | list[float], *, gauge: Gauge = "mean"
) -> Thermodynamics:
    """Sweep `logits [n_rows, d_vocab]` (or `[d_vocab]`) over temperatures, in float64, one temperature at a time.

    Raises `ConfigError` unless temperatures are finite, above 0 and rising and there are two tokens; `NonFiniteError`
    on logits that are no numbers (minus infinity, a forbidden token, would have infinite energy).
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


def energy_levels(logits: Tensor, gauge: Gauge = "mean") -> Tensor:
    """Energies `[n_rows, d_vocab]` of logits, the constant fixed by the gauge."""
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
    """The sweep of normal energies with each row's own mean and variance, means over `n_draws` draws.

    Rows and gauge as in `sweep_temperatures`. In the limit of many tokens its entropy reaches 0 below a temperature of
    `sigma / sqrt(2 log d_vocab)`.
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


def _at(levels: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    log_z = (-levels / temperature).logsumexp(1)
    p = (-levels / temperature - log_z[:, None]).exp()
    energy = (p * levels).sum(1)
    variance = (p * (levels - energy[:, None]).square()).sum(1)
    return energy, torch.special.entr(p).sum(1), -temperature * log_z, variance / temperature**2


def _rows(logits: Tensor | np.ndarray) -> Tensor:
    """`[n_rows, d_vocab]` float64 of `[d_vocab]` or any number of leading axes."""
    values = torch.as_tensor(logits).detach().double()
    if values.ndim == 0 or values.shape[-1] < 2 or not values.numel():
        raise ConfigError(
            f"a distribution needs at least two tokens, got logits {list(values.shape)}; give [n_rows, d_vocab]"
        )
    return values.reshape(-1, values.shape[-1])


def _check_heat(heat: Tensor) -> None:
    """Below `COLDEST` nothing is left of a heat capacity but rounding."""
    if not len(heat) or not float(heat[0]) >= COLDEST or not bool((heat.diff() > 0).all()) or heat[-1].isinf():
        raise ConfigError(
            f"temperatures must be above 0 (at least {COLDEST:g}), finite and rising, got {heat.tolist()}; sort "
            "them, without the others"
        )
