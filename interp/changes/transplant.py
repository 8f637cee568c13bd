"""The proof: put one part of the tuned model into the base and see how much of the behaviour comes along.

    carried = (base with the part - base) / (tuned - base)        0: nothing comes along, 1: all of it
    removed = (tuned - tuned without the part) / (tuned - base)   0: nothing is lost, 1: all of it

of a behaviour, a number per prompt. Parts that stand in for each other have a small `removed` and a large `carried`;
parts that need each other the other way round. The null of both: a random change of the same length in every matrix of
the same part. A part is found when the interval's low end lies above the bound of the random ones, and above 0.1.

Parts are the embedding, each layer's attention and MLP with the norms that they read through, the unembedding; then
the single heads of the layers whose attention was found. One prompt is one observation (bootstrap over prompts).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.changes.components import (
    FAMILY_WISE,
    Component,
    check_comparable,
    head_units,
    null_models,
    same,
    units,
    upper_bound,
    written,
)
from interp.errors import ConfigError, NonFiniteError, UnknownNameError
from interp.models.adapter import check_token_ids
from interp.progress import Progress
from interp.results import Result, columns_of
from interp.runtime import derive_seed, make_generator
from interp.statistics import Interval, bootstrap_counts, percentile_interval, t_interval

Behaviour = Callable[[Any], Tensor | np.ndarray]
"""`behaviour(model)` -> `[n_prompts]`, higher where the tuned model does more of what it was tuned to do"""
HEADS = ("found", "all", "none")
SMALLEST_SHARE = 0.1
MIN_PROMPTS = 4
N_BOOTSTRAP = 2000


@dataclass(frozen=True, kw_only=True)
class Transplant:
    """One part, moved in both directions. NaN where the two models behave alike."""

    name: str
    level: Literal["part", "head"]
    changed: bool
    """False: both models have it alike to the bit, and nothing was run"""
    carried: Interval[float]
    """over prompts"""
    carried_random: float
    """mean of random changes of the same length"""
    carried_bound: float
    carried_found: bool
    removed: Interval[float]
    removed_random: float
    removed_bound: float
    removed_found: bool


@dataclass(frozen=True, kw_only=True)
class Transplants(Result):
    """Every part, and the gap between the models that the shares are of."""

    behaviour: str
    base: float
    """mean over prompts"""
    tuned: float
    gap_bound: float
    """what the gap of one more null stays below"""
    differ: bool
    """the near end of the gap's 95 % interval lies beyond `gap_bound`; if not, no share means anything"""
    transplants: list[Transplant]
    n_prompts: int
    n_random: int
    seed: int

    @property
    def carried(self) -> list[str]:
        """Parts that bring the behaviour along, the largest share first."""
        return [t.name for t in sorted(self.transplants, key=lambda t: -t.carried.estimate) if t.carried_found]

    @property
    def removed(self) -> list[str]:
        """Parts without which the tuned model loses it."""
        return [t.name for t in sorted(self.transplants, key=lambda t: -t.removed.estimate) if t.removed_found]

    def __getitem__(self, name: str) -> Transplant:
        by_name = {t.name: t for t in self.transplants}
        if name not in by_name:
            raise UnknownNameError("part", name, by_name)
        return by_name[name]

    def to_records(self) -> list[dict[str, Any]]:
        """One row per part."""
        return [columns_of(t) for t in self.transplants]

    def headline(self) -> str:
        """Give the behaviour of both models."""
        return (
            f"{self.behaviour}: {self.base:.3f} in the base, {self.tuned:.3f} in the tuned model; shares of that "
            "gap that one part moves (1 is all of it)"
        )

    def shown(self) -> list[dict[str, Any]]:
        """Return the parts that carry most, without their intervals."""
        names = ("name", "carried", "carried_random", "carried_found", "removed", "removed_random", "removed_found")
        rows = sorted(self.to_records(), key=lambda row: (row["carried"] != row["carried"], -row["carried"]))
        return [{n: row[n] for n in names} for row in rows]


def log_prob_of(tokens: Tensor) -> Behaviour:
    """The mean log-probability of the tokens of each context `[n_contexts, pos]`, in nats."""
    from interp.models.loss import loss_per_token

    def measure(model: Any) -> Tensor:
        check_token_ids(model, tokens)
        return -loss_per_token(model, tokens.to(model.cfg.device)).mean(1)

    return measure


def log_prob_of_answers(prompts: Tensor, answers: Tensor) -> Behaviour:
    """The log-probability of `answers [n_prompts]` after `prompts [n_prompts, pos]`, in nats."""
    if prompts.ndim != 2 or answers.shape != prompts.shape[:1]:
        raise ConfigError(f"one answer for each prompt was expected, got {list(prompts.shape)}, {list(answers.shape)}")

    def measure(model: Any) -> Tensor:
        check_token_ids(model, prompts)
        check_token_ids(model, answers)
        log_p = model(prompts.to(model.cfg.device))[:, -1].float().log_softmax(-1)
        return log_p.gather(1, answers.to(log_p.device)[:, None])[:, 0]

    return measure


@torch.no_grad()
def transplants(
    base: Any,
    tuned: Any,
    behaviour: Behaviour,
    *,
    name: str = "behaviour",
    continuations: Sequence[Any] = (),
    heads: Literal["found", "all", "none"] = "found",
    n_random: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Transplants:
    """Move every part that differs, one at a time, in both directions. Both models are as before when it returns.

    Cost: `2 (1 + n_random)` runs of the behaviour for each part that differs. `heads`: those of layers whose attention
    was found, of all layers, or none. Raises `ConfigError` on fewer than four prompts or two random changes,
    `NonFiniteError`, and what `check_comparable` raises.
    """
    if heads not in HEADS:
        raise UnknownNameError("choice of heads", heads, HEADS)
    if n_random < 2:
        raise ConfigError(f"a share is never given without random changes beside it; n_random {n_random} is below 2")
    ones, twos = check_comparable(base, tuned)
    nulls = null_models(base, continuations)
    run = _Run((base, tuned), (ones, twos), behaviour, n_random, seed)
    run.judge_gap(nulls)
    parts = units(ones)
    found = run.all(parts, "part", progress)
    layers = [_layer(t.name) for t in found if t.name.endswith(".attn") and (t.carried_found or t.removed_found)]
    if heads == "all":
        layers = list(range(base.cfg.n_layers))
    if heads != "none" and layers:
        found += run.all(head_units(ones, layers), "head", progress)
    return Transplants(
        behaviour=name, base=float(run.base.mean()), tuned=float(run.tuned.mean()), gap_bound=run.gap_bound,
        differ=run.differ, transplants=found, n_prompts=len(run.base), n_random=n_random, seed=seed,
    )  # fmt: skip


def _layer(name: str) -> int:
    return int(name[1:].split(".")[0])


class _Run:
    """Both models, their parts, and how they behave as they are."""

    def __init__(
        self,
        models: tuple[Any, Any],
        parts: tuple[list[Component], list[Component]],
        behaviour: Behaviour,
        n: int,
        seed: int,
    ):
        self.models, self.parts, self.behaviour = models, parts, behaviour
        self.n_random, self.seed = n, seed
        self.n_prompts: int | None = None
        self.base, self.tuned = (self._behave(model) for model in models)
        if len(self.base) < MIN_PROMPTS:
            raise ConfigError(f"a share needs at least {MIN_PROMPTS} prompts for its interval, got {len(self.base)}")
        self.gap_bound, self.differ = 0.0, False

    def judge_gap(self, nulls: Sequence[AbstractContextManager[Any]]) -> None:
        """Do the models behave unlike each other, beyond what the nulls do?"""
        gaps = []
        for null in nulls:
            with null as model:
                gaps.append(abs(float((self._behave(model) - self.base).mean())))
        self.gap_bound = float(upper_bound(np.array(gaps), n_tests=1))
        _, low, high = t_interval(self.tuned - self.base)
        self.differ = bool(max(float(low), -float(high)) > max(self.gap_bound, 1e-9))

    def all(
        self, wanted: dict[str, list[int]], level: Literal["part", "head"], progress: Progress | None
    ) -> list[Transplant]:
        """Every part that is wanted (name -> components), judged together."""
        differs = {n: [i for i in each if not same(self.parts[0][i], self.parts[1][i])] for n, each in wanted.items()}
        run = [n for n, each in differs.items() if each and self.differ]
        shares: dict[str, dict[str, Any]] = {name: {} for name in wanted}
        for target, direction in enumerate(("carried", "removed")):
            moved = {}
            for done, name in enumerate(run):
                if progress:
                    progress(done + target * len(run), 2 * len(run), {"part": name})
                moved[name] = self._try(name, differs[name], target)
            for name, values in self._judge(moved, list(wanted)).items():
                shares[name] |= {direction + key: value for key, value in values.items()}
        return [Transplant(name=n, level=level, changed=bool(differs[n]), **shares[n]) for n in wanted]

    def _try(self, name: str, indices: list[int], target: int) -> tuple[np.ndarray, list[float]]:
        """Per prompt what moving a part into model `target` does, and the shares that random changes reach."""
        into = [self.parts[target][i] for i in indices]
        other = [[t.detach().clone() for t in self.parts[1 - target][i].tensors] for i in indices]
        generator = make_generator(self.seed, "random change", name, target)
        random = []
        for _ in range(self.n_random):
            changed = [
                [_random(here, there, generator) for here, there in zip(part.tensors, each, strict=True)]
                for part, each in zip(into, other, strict=True)
            ]
            random.append(self._share(self._moved(target, into, changed)))
        return self._moved(target, into, other), random

    def _judge(self, moved: dict[str, tuple[np.ndarray, list[float]]], names: list[str]) -> dict[str, dict[str, Any]]:
        """Per part the share, its interval, the random mean and bound, and the verdict."""
        none = 0.0 if self.differ else float("nan")
        nothing = {"": Interval(none, none, none), "_random": none, "_bound": none, "_found": False}
        judged: dict[str, dict[str, Any]] = dict.fromkeys(names, nothing)
        if not moved:
            return judged
        random = np.array([each for _, each in moved.values()]).T  # [n_random, n_parts]
        bounds = upper_bound(random, n_tests=len(moved), log=False)
        for i, (name, (after, _)) in enumerate(moved.items()):
            share, corrected = self._interval(after, len(moved))
            found = bool(corrected > max(bounds[i], SMALLEST_SHARE))
            chance = {"_random": float(random[:, i].mean()), "_bound": float(bounds[i])}
            judged[name] = {"": share, **chance, "_found": found}
        return judged

    def _moved(self, target: int, into: list[Component], values: list[list[Tensor]]) -> np.ndarray:
        """Per prompt how far the behaviour went from where model `target` has it, towards the other."""
        with written(into, values):
            after = self._behave(self.models[target])
        return after - self.base if target == 0 else self.tuned - after

    def _share(self, moved: np.ndarray) -> float:
        return float(moved.mean() / (self.tuned - self.base).mean())

    def _interval(self, moved: np.ndarray, n_tests: int) -> tuple[Interval[float], float]:
        """The share with its interval, and the low end corrected for all tests, by a bootstrap over prompts."""
        weights = bootstrap_counts(len(moved), N_BOOTSTRAP, np.random.default_rng(derive_seed(self.seed, "prompts")))
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (weights @ moved) / (weights @ (self.tuned - self.base))
        return percentile_interval(self._share(moved), drawn), float(np.nanquantile(drawn, FAMILY_WISE / n_tests))

    def _behave(self, model: Any) -> np.ndarray:
        values = _numbers(self.behaviour(model))
        if not np.isfinite(values).all():
            raise NonFiniteError("the behaviour is NaN or infinite on some prompt")
        if self.n_prompts not in (None, len(values)):
            raise ConfigError(
                f"a behaviour has the same prompts for every model, got {self.n_prompts} and then {len(values)} "
                "numbers; fix its prompts before"
            )
        self.n_prompts = len(values)
        return values


def _numbers(values: Any) -> np.ndarray:
    """`[n_prompts]` float64 of what a behaviour gave."""
    if isinstance(values, Tensor) and not values.is_complex():
        values = values.detach().double().cpu().numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise ConfigError(
            f"a behaviour gives one real number per prompt as a tensor or an array, got {type(values).__name__} "
            f"{getattr(values, 'dtype', '')}; wrap it in torch.tensor, or take the part that counts"
        )
    if values.ndim != 1:
        raise ConfigError(f"a behaviour gives one number per prompt, got shape {list(values.shape)}; take the mean")
    return values.astype(np.float64)


def _random(here: Tensor, there: Tensor, generator: torch.Generator) -> Tensor:
    """`here` plus a random change as long as the true one."""
    noise = torch.randn(here.shape, generator=generator).to(here)
    change = (there.to(here.device) - here.detach()).float().norm()
    return here.detach() + noise * (change / noise.float().norm().clamp_min(1e-12)).to(here.dtype)
