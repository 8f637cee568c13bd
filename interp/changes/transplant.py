"""Causal test of fine-tuning effects: transplant a part of one model into the other and measure the behaviour.

    carried = (base with the tuned part - base) / (tuned - base)        0: no effect, 1: the whole behaviour transfers
    removed = (tuned - tuned with the base's part) / (tuned - base)     0: no effect, 1: the whole behaviour is lost

A behaviour is a number per prompt. `carried` tests sufficiency, `removed` necessity. Redundant parts have a large
`carried` and a small `removed`; parts that depend on each other the reverse. The null of both is a random change of the
same norm in every matrix of the same part. A part is found if the interval's low end lies above the bound of the random
changes, and above 0.1.

Parts are the embedding, each layer's attention and MLP with the norms that they read through, and the unembedding. One
prompt is one observation; the interval of a fraction is Fieller's, of the ratio of two means (`ratio_interval`).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from interp.changes._components import (
    ROUNDING_MARGIN,
    WeightComponent,
    check_comparable,
    null_models,
    same,
    units,
    upper_bound,
    written,
)
from interp.changes.comparison import Change, Gap
from interp.errors import ConfigError, NonFiniteError, UnknownNameError
from interp.models.adapter import check_token_ids
from interp.models.hooked import HookedModel
from interp.models.passes import capture, loss_per_token, run_from, token_losses
from interp.nulls import ALPHA, DRAWS, prediction_bound
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import Interval, ratio_interval, t_interval

Behaviour = Callable[[HookedModel], Tensor | np.ndarray]
"""`behaviour(model)` returns `[n_prompts]`, larger where a model shows more of the behaviour it was tuned for"""
Direction = Literal["carried", "removed"]
CONTEXTS = 16
"""Contexts whose logits exist at a time."""
SMALLEST_SHARE = 0.1
N_SHOWN = 3
"""Parts that have a null even where their fraction is too small to be found."""
MIN_PROMPTS = 4


def log_prob_of(tokens: Shaped[Tensor, "n_contexts pos"]) -> Behaviour:
    """Return the behaviour "mean log-probability of the tokens of each context `[n_contexts, pos]`", in nats."""
    return _LogProb(tokens)


class _LogProb:
    """Mean log-probability of tokens. With a part of block `layer` exchanged, a pass begins there: nothing before it
    changes, and the residual of the model as it is waits for the next part of that block or a later one.
    """

    def __init__(self, tokens: Shaped[Tensor, "n_contexts pos"]):
        self.tokens = tokens
        self._before: WeakKeyDictionary[HookedModel, tuple[int, list[Tensor]]] = WeakKeyDictionary()

    def __call__(self, model: HookedModel) -> Tensor:
        check_token_ids(model, self.tokens)
        return -loss_per_token(model, self.tokens.to(model.cfg.device)).mean(1)

    def from_block(self, model: HookedModel, layer: int) -> Callable[[], Tensor]:
        """Return a function that measures the model with something exchanged in block `layer` or after it."""
        rows = self.tokens.to(model.cfg.device).split(CONTEXTS)
        at, values = self._before.get(model, (0, list(rows)))
        if at > layer:
            at, values = 0, list(rows)
        if at < layer:
            point = f"blocks.{layer - 1}.hook_resid_post"
            values = [capture(model, batch, [point], layer=at)[point] for batch in values]
        self._before[model] = layer, values

        def measure() -> Tensor:
            losses = []
            for resid, tokens in zip(values, rows, strict=True):
                logits = run_from(model, resid, layer=layer)
                assert logits is not None  # only a pass with `until` has none
                losses.append(token_losses(logits, tokens).cpu())
            return -torch.cat(losses).mean(1)

        return measure


def log_prob_of_answers(prompts: Shaped[Tensor, "..."], answers: Shaped[Tensor, "..."]) -> Behaviour:
    """Return the behaviour "log-probability of `answers [n_prompts]` after `prompts [n_prompts, pos]`", in nats."""
    if prompts.ndim != 2 or answers.shape != prompts.shape[:1]:
        raise ConfigError(f"expected one answer for each prompt, got {list(prompts.shape)}, {list(answers.shape)}")

    def measure(model: HookedModel) -> Tensor:
        check_token_ids(model, prompts)
        check_token_ids(model, answers)
        log_p = model(prompts.to(model.cfg.device))[:, -1].float().log_softmax(-1)
        return log_p.gather(1, answers.to(log_p.device)[:, None])[:, 0]

    return measure


@dataclass(frozen=True, kw_only=True)
class Transplants:
    """Transplants of every part that differs, and the difference in behaviour of which they are fractions."""

    gap: Gap
    rows: tuple[Change, ...]
    """two of each part, in the order of the model; none where the two models behave alike"""

    def of(self, part: str) -> dict[Direction, Change]:
        """Return both directions of a part. Raises `UnknownNameError` for one that was not transplanted."""
        by_direction: dict[Direction, Change] = {row.question: row for row in self.rows if row.name == part}  # pyright: ignore[reportAssignmentType]
        if not by_direction:
            raise UnknownNameError("part", part, [row.name for row in self.rows])
        return by_direction


@torch.no_grad()
def transplants(
    base: HookedModel,
    tuned: HookedModel,
    behaviour: Behaviour,
    *,
    name: str = "behaviour",
    continuations: Sequence[HookedModel] = (),
    n_random: int = DRAWS["quick"],
    seed: int = 0,
    progress: Progress | None = None,
) -> Transplants:
    """Transplant every part that differs, one at a time, in both directions; both models are restored at the end.

    Cost: two runs of the behaviour for each part that differs, and `2 n_random` more for the few that may be found: the
    others get no null. Raises `ConfigError` for fewer than four prompts or two random changes, `NonFiniteError`, and
    what `check_comparable` raises.
    """
    if n_random < 2:
        raise ConfigError(f"the null needs at least 2 random changes, got n_random {n_random}; leave it out")
    parts = check_comparable(base, tuned)
    run = _Run((base, tuned), parts, behaviour, name, n_random, seed)
    gap = run.gap(null_models(base, continuations))
    return Transplants(gap=gap, rows=tuple(run.all(progress)) if gap.differ else ())


class _Run:
    """Both models with their components and their unmodified behaviour."""

    def __init__(
        self,
        models: tuple[HookedModel, HookedModel],
        parts: tuple[list[WeightComponent], list[WeightComponent]],
        behaviour: Behaviour,
        name: str,
        n_random: int,
        seed: int,
    ):
        self.models, self.parts, self.behaviour, self.name = models, parts, behaviour, name
        self.n_random, self.seed = n_random, seed
        self.n_prompts: int | None = None
        self.base, self.tuned = (self._behave(model) for model in models)
        if len(self.base) < MIN_PROMPTS:
            raise ConfigError(
                f"an interval needs at least {MIN_PROMPTS} prompts, got {len(self.base)}; give more prompts"
            )

    def gap(self, nulls: Sequence[AbstractContextManager[HookedModel]]) -> Gap:
        """Say whether the models' behaviours differ by more than those of the nulls."""
        gaps = []
        for null in nulls:
            with null as model:
                gaps.append(float((self._behave(model) - self.base).mean()))
        bound = bound_of_gap(np.array(gaps))
        _, low, high = t_interval(self.tuned - self.base)
        return Gap(
            behaviour=self.name, base=float(self.base.mean()), tuned=float(self.tuned.mean()), bound=bound,
            differ=bool(max(float(low), -float(high)) > max(bound, 1e-9)),
        )  # fmt: skip

    def all(self, progress: Progress | None) -> list[Change]:
        """Transplant every part that differs in both directions, and test them together."""
        differs = {
            name: changed
            for name, ids in units(self.parts[0]).items()
            if (changed := [i for i in ids if not same(self.parts[0][i], self.parts[1][i])])
        }
        rows: list[Change] = []
        directions: tuple[Direction, ...] = get_args(Direction)
        for target, direction in enumerate(directions if differs else ()):
            moved, done = {}, target * len(differs)
            for name, indices in differs.items():
                if progress:
                    progress(done + len(moved), 2 * len(differs), {"part": name})
                moved[name] = self._interval(self._transplanted(indices, target), len(differs))
            nulls = {}
            for name in _may_be_found(moved):
                if progress:
                    progress(done + len(differs), 2 * len(differs), {"part": f"random changes of {name}"})
                nulls[name] = self._random_shares(name, differs[name], target)
            rows += self._judge(direction, moved, nulls)
        return rows

    def _other(self, indices: list[int], target: int) -> list[list[Tensor]]:
        """Return the tensors of a part in the model that is not `target`."""
        return [[tensor.detach().clone() for tensor in self.parts[1 - target][i].tensors] for i in indices]

    def _transplanted(self, indices: list[int], target: int) -> np.ndarray:
        """Return the effect per prompt of writing a part into model `target`."""
        return self._moved(target, [self.parts[target][i] for i in indices], self._other(indices, target))

    def _random_shares(self, name: str, indices: list[int], target: int) -> list[float]:
        """Return the fractions of random changes of the same norm as the part's own."""
        into, donors = [self.parts[target][i] for i in indices], self._other(indices, target)
        generator = make_generator(self.seed, "random change", name, target)
        shares = []
        for _ in range(self.n_random):
            changed = [
                [_random(tensor, donor, generator) for tensor, donor in zip(part.tensors, tensors, strict=True)]
                for part, tensors in zip(into, donors, strict=True)
            ]
            shares.append(self._share(self._moved(target, into, changed)))
        return shares

    def _judge(
        self, direction: Direction, moved: dict[str, tuple[Interval[float], float]], nulls: dict[str, list[float]]
    ) -> list[Change]:
        """Return a row per part; one without a null lies below the smallest share, and cannot be found."""
        high = upper_bound(np.array(list(nulls.values())).T, n_tests=len(moved), log=False)
        bounds = {name: max(float(bound), SMALLEST_SHARE) for name, bound in zip(nulls, high, strict=True)}
        return [
            Change(
                question=direction, text="", name=name, place=name.partition(".")[0],
                value=share.estimate, low=share.low, high=share.high,
                null=float(np.mean(nulls[name])) if name in nulls else float("nan"),
                bound=bounds.get(name, SMALLEST_SHARE), found=name in bounds and low > bounds[name], words=[],
            )
            for name, (share, low) in moved.items()
        ]  # fmt: skip

    def _moved(self, target: int, into: list[WeightComponent], values: list[list[Tensor]]) -> np.ndarray:
        """Return the shift of the behaviour per prompt from that of model `target` towards that of the other."""
        measure = self._measure(target, [part.layer for part in into])
        with written(into, values):
            after = self._checked(measure())
        return after - self.base if target == 0 else self.tuned - after

    def _share(self, moved: np.ndarray) -> float:
        return float(moved.mean() / (self.tuned - self.base).mean())

    def _interval(self, moved: np.ndarray, n_tests: int) -> tuple[Interval[float], float]:
        """Return the fraction with its interval over prompts, and the low end corrected for all tests."""
        gap = self.tuned - self.base
        return ratio_interval(moved, gap), ratio_interval(moved, gap, 1 - 2 * ALPHA / n_tests).low

    def _measure(self, target: int, layers: Sequence[int | None]) -> Callable[[], object]:
        """Return a function that measures model `target` with parts of some blocks exchanged; None: of no block."""
        model, known = self.models[target], [layer for layer in layers if layer is not None]
        if isinstance(self.behaviour, _LogProb) and len(known) == len(layers):
            return self.behaviour.from_block(model, min(known))
        return partial(self.behaviour, model)

    def _behave(self, model: HookedModel) -> np.ndarray:
        return self._checked(self.behaviour(model))

    def _checked(self, output: object) -> np.ndarray:
        values = _numbers(output)
        if not np.isfinite(values).all():
            raise NonFiniteError("the behaviour is NaN or infinite on some prompt")
        if self.n_prompts not in (None, len(values)):
            raise ConfigError(
                f"a behaviour needs the same prompts for every model, got {self.n_prompts} and then {len(values)} "
                "numbers; choose the prompts before"
            )
        self.n_prompts = len(values)
        return values


def bound_of_gap(gaps: Shaped[np.ndarray, " n_null"]) -> float:
    """Return the bound of the absolute gap of one more null, at 5 %, from the signed gaps of the nulls.

    They spread around 0. (A bound of the logarithms of their sizes, as components have, explodes where one of three is
    near 0 by luck: it hid planted differences of 2 nats behind a bound of 200.) That of a single null is twice its gap.
    """
    spread = float(np.sqrt((gaps**2).mean()))
    n = len(gaps)
    return ROUNDING_MARGIN * spread if n == 1 else float(prediction_bound(0.0, spread, n, n_tests=2, df=n))


def _may_be_found(moved: dict[str, tuple[Interval[float], float]]) -> list[str]:
    """Return the parts whose fraction lies above 0.1, and the largest ones, which get a null too."""
    largest = sorted(moved, key=lambda name: -moved[name][0].estimate)[:N_SHOWN]
    return [name for name, (_, low) in moved.items() if low > SMALLEST_SHARE or name in largest]


def _numbers(values: object) -> np.ndarray:
    """Return the values of a behaviour as `[n_prompts]` float64."""
    if isinstance(values, Tensor) and not values.is_complex():
        values = values.detach().double().cpu().numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise ConfigError(
            f"a behaviour returns one real number per prompt as a tensor or an array, got {type(values).__name__} "
            f"{getattr(values, 'dtype', '')}; wrap it in torch.tensor, or take the real part"
        )
    if values.ndim != 1:
        raise ConfigError(f"a behaviour returns one number per prompt, got shape {list(values.shape)}; take the mean")
    return values.astype(np.float64)


def _random(value: Tensor, donor: Tensor, generator: torch.Generator) -> Tensor:
    """Return `value` plus a random change of the same norm as the true one."""
    noise = torch.randn(value.shape, generator=generator).to(value)
    change = (donor.to(value.device) - value.detach()).float().norm()
    return value.detach() + noise * (change / noise.float().norm().clamp_min(1e-12)).to(value.dtype)
