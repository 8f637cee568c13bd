"""Push the residual stream along a direction: how strong must it be to show, and what does it break?

    sweep = sweep_strengths(model, "blocks.10.hook_resid_post", direction, prompts=..., targets=..., text=...)

At every strength two numbers: the *effect*, the log-odds of the target tokens as the next token after the prompts, and
the *side effect*, the loss on unrelated text with the same push at every position. Both are changes from no push, with
95 % intervals over prompts and over documents. The null is the same push along random directions: of the strengths that
do little harm, does any do more than they?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.geometry.values import Finding
from interp.intervals import t_interval
from interp.runtime import make_generator

HARMLESS = 0.1
"""nats of loss on unrelated text that a push may cost"""


@dataclass(frozen=True, kw_only=True)
class StrengthSweep(Finding):
    """Changes from no push, by strength."""

    hook_point: str
    strengths: tuple[float, ...]
    """in units of `unit`; below 0 against the direction"""
    unit: float
    """length added at strength 1, in units of the activations"""
    effect: np.ndarray
    """`[n]` nats: log-odds of the target tokens, mean over prompts"""
    low: np.ndarray
    high: np.ndarray
    """`[n]`: its interval; infinite with one prompt"""
    side_effect: np.ndarray
    """`[n]` nats of loss per token on unrelated text, mean over documents; above 0 is harm"""
    side_low: np.ndarray
    side_high: np.ndarray
    """`[n]`: its interval; infinite with one document"""
    random_effect: np.ndarray
    random_side_effect: np.ndarray
    """`[n_random, n]`: the same for random directions"""
    baseline: float
    """probability of the targets without a push, mean over prompts"""
    n_prompts: int
    n_tokens: int
    seed: int

    @property
    def best(self) -> int | None:
        """Number of the strength with the largest effect among the harmless ones; None when there is none above 0."""
        ok = np.flatnonzero((self.side_effect <= HARMLESS) & (np.array(self.strengths) > 0))
        return int(ok[self.effect[ok].argmax()]) if len(ok) else None

    def sentence(self) -> str:
        best = self.best
        if best is None:
            return f"every push at {self.hook_point} costs more than {HARMLESS} nats of loss on unrelated text"
        return (
            f"at {self.hook_point} strength {self.strengths[best]:g} ({self.strengths[best] * self.unit:.3g} long) "
            f"moves the targets by {self.effect[best]:+.2f} nats [{self.low[best]:+.2f}, {self.high[best]:+.2f}] for "
            f"{self.side_effect[best]:+.3f} [{self.side_low[best]:+.3f}, {self.side_high[best]:+.3f}] nats of loss on "
            f"unrelated text; random directions {self.random_effect[:, best].mean():+.2f}, at most "
            f"{self.random_effect[:, best].max():+.2f}"
        )


@torch.no_grad()
def sweep_strengths(
    model: Any,
    hook_point: str,
    direction: np.ndarray,
    *,
    unit: float,
    prompts: Sequence[str],
    targets: Sequence[int],
    text: Sequence[str],
    strengths: Sequence[float] = (-0.5, 0.0, 0.1, 0.25, 0.5, 1.0),
    n_random: int = 2,
    seed: int = 0,
) -> StrengthSweep:
    """`direction [d]`; a strength of 1 adds `unit` of it (`ConceptDirection.distance`) at every position but BOS.

    `targets` are token ids, `text` some documents. Raises `ConfigError` when one of them is empty, or the direction 0.
    """
    from interp.models.adapter import bos_token_id, to_tokens

    length = float(np.linalg.norm(direction))
    if not (prompts and targets and text and strengths) or length == 0 or unit <= 0:
        raise ConfigError("a sweep needs prompts, target tokens, text, strengths and a direction of some length")
    asked, documents = [to_tokens(model, p) for p in prompts], [to_tokens(model, t) for t in text]
    first = int(bos_token_id(model) is not None)
    units = [torch.from_numpy(np.asarray(direction) / length)]
    generator = make_generator(seed, "random directions")
    for _ in range(n_random):
        drawn = torch.randn(len(direction), generator=generator, dtype=torch.float64)
        units.append(drawn / drawn.norm())
    clean = _measure(model, asked, documents, list(targets), [])
    effects = np.zeros((len(units), len(strengths), len(asked)))
    side_effects = np.zeros((len(units), len(strengths), len(documents)))
    for i, along in enumerate(units):
        for j, strength in enumerate(strengths):
            if strength == 0:
                continue
            pushed = _measure(
                model, asked, documents, list(targets), [(hook_point, push(along * (strength * unit), first))]
            )
            effects[i, j], side_effects[i, j] = pushed[0] - clean[0], pushed[1] - clean[1]
    (effect, low, high), (side_effect, side_low, side_high) = t_interval(effects[0]), t_interval(side_effects[0])
    return StrengthSweep(
        hook_point=hook_point,
        strengths=tuple(map(float, strengths)),
        unit=float(unit),
        effect=effect,
        low=low,
        high=high,
        side_effect=side_effect,
        side_low=side_low,
        side_high=side_high,
        random_effect=effects[1:].mean(-1),
        random_side_effect=side_effects[1:].mean(-1),
        baseline=float(np.mean(1 / (1 + np.exp(-clean[0])))),
        n_prompts=len(prompts),
        n_tokens=sum(tokens.shape[1] - 1 for tokens in documents),
        seed=seed,
    )


def push(added: Tensor, first: int) -> Any:
    """A hook that adds a vector at all but the `first` positions."""

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        moved = value.clone()
        moved[:, first:] += added.to(value)
        return moved

    return hook


def _measure(
    model: Any, asked: list[Tensor], documents: list[Tensor], targets: list[int], hooks: list[tuple[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of the targets as the next token, `[prompts]`, and loss per token, `[documents]`."""
    from interp.loss import token_losses
    from interp.models.adapter import run_with_hooks

    odds = []
    for tokens in asked:
        log_p = run_with_hooks(model, tokens, hooks)[0, -1].double().log_softmax(-1)
        inside = log_p[targets].logsumexp(0)
        odds.append(float(inside - torch.log(-torch.expm1(inside.clamp(max=-1e-12)))))
    losses = [float(token_losses(run_with_hooks(model, t, hooks), t).mean()) for t in documents]
    return np.array(odds), np.array(losses)
