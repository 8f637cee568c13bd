"""Turn a word around its circle, and see whether the model then names what follows the word it was turned to.

    sweep = rotate_words(model, acts, plane, "blocks.7.hook_resid_post")

A prompt asks for the next item: *Today is Monday. Tomorrow is*. At the word, after a block, the activation is turned in
the plane by `k` items' worth of angle; nothing else is touched. If the model reads the word's place off that plane, the
answer moves by `k`. The measure is the change of one logit, that of the answer that belongs to the turned word, above
the mean change of the other items' (nats). The real answer is not among those: a turn that merely spoils it gives 0.

Beside it stand two references. *Random*: the same activation moved as far in a random direction. *Swapped*: the whole
activation replaced by what that place holds for the other word (mean over the sentences that fitted the plane), the
most that this place can do. A plane of two dimensions out of hundreds will move less than the swap; whether it moves
more than random directions is the question.

The plane is fitted on other sentences than these prompts. Answers are read as one token, so words must be single
tokens, or differ in the last one only (a space, then a digit): prompts then end with what comes before it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.geometry.points import Finding, check_count
from interp.geometry.shapes import Plane
from interp.geometry.words import WordActivations, by_length, encode, with_word
from interp.names import check_hook_points, parse_hook_point
from interp.patching.partial import capture
from interp.results import ends
from interp.runtime import make_generator
from interp.statistics import Interval, t_interval

MAX_STEPS = 6
"""turns tried, spread evenly around the circle"""


@dataclass(frozen=True, kw_only=True)
class RotationSweep(Finding):
    """What turning did to the answers, by steps `1 .. n - 1` around the circle (or along the line)."""

    name: str
    hook_point: str
    steps: tuple[int, ...]
    moved: Interval[np.ndarray] = field(metadata=ends("low", "high"))
    """`[n_steps]` nats: mean over words and prompts; above 0 where the answer goes along"""
    random: np.ndarray
    """`[n_random, n_steps]`: as far in random directions"""
    swapped: np.ndarray
    """`[n_steps]`: the whole activation replaced"""
    followed: np.ndarray
    """`[n_steps]`: share of prompts whose best answer among the items is that of the turned word; by chance `1 / n`"""
    baseline: float
    """share of prompts with the right answer without turning: can the model do this at all?"""
    overall: Interval[float]
    """`moved` over all steps, with its interval over prompts"""
    random_high: float
    """the largest mean over all steps of a random draw"""
    n_items: int
    n_prompts: int
    seed: int

    @property
    def moves_output(self) -> bool:
        """The interval lies above 0 and above every random draw."""
        return self.overall.low > max(0.0, self.random_high)

    @property
    def n_following(self) -> int:
        """Steps at which the answer goes along by itself: the interval above 0 and above every random draw."""
        return int((self.moved.low > np.maximum(0.0, self.random.max(0))).sum())

    def sentence(self) -> str:
        word = "moves" if self.moves_output else "does not move"
        overall, low, high = self.overall
        return (
            f"turning {self.name} at {self.hook_point} {word} the answer: {overall:+.2f} nats "
            f"[{low:+.2f}, {high:+.2f}] towards the turned word's, random directions at most "
            f"{self.random_high:+.2f}, whole activation swapped {self.swapped.mean():+.2f}; it goes along at "
            f"{self.n_following} of {len(self.steps)} steps; without turning {self.baseline:.0%} of {self.n_prompts} "
            f"prompts are answered right (chance {1 / self.n_items:.0%})"
        )


@torch.no_grad()
def rotate_words(
    model: Any,
    acts: WordActivations,
    plane: Plane,
    hook_point: str,
    *,
    prompts: Sequence[str] | None = None,
    n_random: int = 5,
    batch_size: int = 64,
    seed: int = 0,
) -> RotationSweep:
    """Turn every word of a list by every number of items, in every prompt (the list's `successors` by default).

    `plane`: fitted to `acts.points(hook_point, half=0)`. Raises `ConfigError` where the list has no prompts, or items
    of several tokens, or two items with the same one; `MismatchError` when the words or the plane are of another model,
    `UnknownNameError` for a place that the model does not have, `PromptError` for a prompt longer than its context.
    """
    from interp.models.adapter import available_hook_points

    check_count("n_random", n_random, 1, "a turn is never given without random directions")
    [hook_point] = check_hook_points([hook_point], available_hook_points(model), model.cfg.n_layers)
    layer, fitted = layer_after(hook_point), acts.points(hook_point, half=0)
    if fitted.shape[1] != model.cfg.d_model:
        raise MismatchError(
            f"words of this model are {model.cfg.d_model} wide, got {fitted.shape[1]}; read them with the same model"
        )
    direction = turning_sense(plane, fitted)
    prompts = list(acts.concept.successors if prompts is None else prompts)
    items = _single_tokens(acts, prompts)
    asked = _Asked.of(model, acts, prompts)
    n, starts = len(items), asked.starts(model, hook_point, batch_size)
    generator = make_generator(seed, "random directions")
    turned, swapped, random = [], [], [[] for _ in range(n_random)]
    clean = _logits(model, starts, layer, None, items)
    steps = sorted({round(step) for step in np.linspace(1, n - 1, min(n - 1, MAX_STEPS))})
    for step in steps:
        turn = torch.from_numpy(plane.turn(direction * step * 360 / n))
        moves = (torch.from_numpy(fitted - plane.centre) @ turn).norm(dim=1)
        turned.append(_logits(model, starts, layer, _turner(plane, turn), items))
        swapped.append(_logits(model, starts, layer, _swapper(np.roll(fitted, -step, axis=0)), items))
        for draw in random:
            draw.append(_logits(model, starts, layer, _pusher(moves, fitted.shape[1], generator), items))
    return _summary(acts, hook_point, steps, asked.word, clean, turned, swapped, random, seed)


def layer_after(hook_point: str) -> int:
    """The block that reads what a residual hook point holds. Raises `ConfigError` for another kind of place."""
    place = parse_hook_point(hook_point)
    if place.suffix == "hook_embed":
        return 0
    if place.layer is None or place.suffix not in ("hook_resid_pre", "hook_resid_post"):
        raise ConfigError(f"words are turned in the residual stream (hook_embed, hook_resid_post), not at {hook_point}")
    return place.layer + (place.suffix == "hook_resid_post")


def turning_sense(plane: Plane, points: np.ndarray) -> float:
    """+1 where the items go around in the sense in which the plane's angles grow, else -1."""
    place = plane.coordinates(points)
    after = np.roll(place, -1, axis=0)
    return 1.0 if (place[:, 0] * after[:, 1] - place[:, 1] * after[:, 0]).sum() >= 0 else -1.0


@dataclass(frozen=True)
class _Asked:
    """Prompts, and where the word stands in each."""

    tokens: list[list[int]]
    word: np.ndarray
    """`[n_prompts]` number of the word"""
    at: np.ndarray
    """`[n_prompts]` position of its last token"""

    @classmethod
    def of(cls, model: Any, acts: WordActivations, prompts: Sequence[str]) -> "_Asked":
        tokens, word, at = [], [], []
        for prompt in prompts:
            for number, text in enumerate(acts.concept.words):
                whole = with_word(prompt, text)
                ids, until = encode(model, [whole, whole[: prompt.index("{word}") + len(text)]])
                assert acts.prefix is not None
                if ids[: len(until)] != until:
                    raise ConfigError(f"the tokens of {whole!r} run across the end of the word; reword the prompt")
                if acts.prefix and tuple(ids[-len(acts.prefix) :]) != acts.prefix:
                    raise ConfigError(f"{prompt!r} must end with what comes before the last token of every answer")
                tokens.append(ids)
                word.append(number)
                at.append(len(until) - 1)
        return cls(tokens, np.array(word), np.array(at))

    def starts(self, model: Any, hook_point: str, batch_size: int) -> "list[_Start]":
        """The residual at the hook point for every prompt, in groups of one length: what the passes begin with."""
        found = []
        for group in by_length(self.tokens, batch_size):
            tokens = torch.tensor([self.tokens[i] for i in group], device=model.cfg.device)
            value = capture(model, tokens, [hook_point])[hook_point]
            found.append(
                _Start(np.array(group), value, torch.from_numpy(self.at[group]), torch.from_numpy(self.word[group]))
            )
        return found


class _Start(NamedTuple):
    """Prompts of one length."""

    group: np.ndarray
    value: Tensor
    """`[b, pos, d]`"""
    at: Tensor
    word: Tensor


def _logits(model: Any, starts: "list[_Start]", layer: int, edit: Any, items: Tensor) -> np.ndarray:
    """`[n_prompts, n_items]`: next-token logits of the items after `edit(rows [b, d], word numbers [b])` at the word.

    The blocks up to the hook point do not run again, and only the last position is unembedded.
    """
    from interp.models.adapter import final_norm_and_unembed

    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    out = np.empty((sum(len(start.group) for start in starts), len(items)))
    for group, value, at, word in starts:
        rows, value = torch.arange(len(at)), value.clone()
        if edit is not None:
            value[rows, at] = edit(value[rows, at].double().cpu(), word).to(value)
        end = value if layer == model.cfg.n_layers else capture(model, value, [last], layer=layer)[last]
        out[group] = final_norm_and_unembed(model, end[:, -1]).float().cpu()[:, items].numpy()
    return out


def _turner(plane: Plane, turn: Tensor) -> Any:
    centre = torch.from_numpy(plane.centre)
    return lambda rows, word: rows + (rows - centre) @ turn


def _swapper(others: np.ndarray) -> Any:
    values = torch.from_numpy(others)
    return lambda rows, word: values[word]


def _pusher(lengths: Tensor, d: int, generator: torch.Generator) -> Any:
    """Each word moved as far as the turning moves it on average, in a direction of its own."""
    directions = torch.randn(len(lengths), d, generator=generator, dtype=torch.float64)
    pushes = directions / directions.norm(dim=1, keepdim=True) * lengths[:, None]
    return lambda rows, word: rows + pushes[word]


def _single_tokens(acts: WordActivations, prompts: Sequence[str]) -> Tensor:
    name = acts.concept.name
    if not prompts:
        raise ConfigError(f"{name} has no prompts that ask for the next item; give some, with {{word}} in them")
    if acts.prefix is None:
        raise ConfigError(f"answers are read as one token, but {name} has words of several: {acts.note}")
    if len(set(acts.last_tokens)) < len(acts.last_tokens):
        raise ConfigError(f"two words of {name} are the same token; their answers cannot be told apart")
    return torch.tensor(acts.last_tokens)


def _summary(
    acts: WordActivations,
    hook_point: str,
    steps: list[int],
    word: np.ndarray,
    clean: np.ndarray,
    turned: list[np.ndarray],
    swapped: list[np.ndarray],
    random: list[list[np.ndarray]],
    seed: int,
) -> RotationSweep:
    """Changes of the answers, step by step; on a line the turns that would go past its end do not count."""
    n, cyclic = len(acts.concept.words), acts.concept.cyclic
    rows, real = np.arange(len(word)), word + 1
    own = real % n

    def towards(logits: np.ndarray, step: int) -> np.ndarray:
        """`[n_prompts]`: change of the turned word's answer above that of the items that are neither it nor real."""
        wanted, change = real + step, logits - clean
        right, spoilt = change[rows, wanted % n], change[rows, own]
        others = (change.sum(1) - right - spoilt) / (n - 2)
        return np.where(cyclic | (wanted < n), right - others, np.nan)

    used = [i for i, step in enumerate(steps) if cyclic or step < n - 1]
    moved = np.array([towards(turned[i], steps[i]) for i in used])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a prompt all of whose turns go past the end has no mean
        overall = t_interval(np.nanmean(moved, axis=0))
    null = np.array([[np.nanmean(towards(draw[i], steps[i])) for i in used] for draw in random])
    followed = [np.nanmean(_hits(turned[i], real, steps[i], n, cyclic)) for i in used]
    return RotationSweep(
        name=acts.concept.name,
        hook_point=hook_point,
        steps=tuple(steps[i] for i in used),
        moved=t_interval(moved),
        random=null,
        swapped=np.array([np.nanmean(towards(swapped[i], steps[i])) for i in used]),
        followed=np.array(followed),
        baseline=float(np.nanmean(_hits(clean, real, 0, n, cyclic))),
        overall=overall.at(()),
        random_high=float(null.mean(1).max()),
        n_items=n,
        n_prompts=len(word),
        seed=seed,
    )


def _hits(logits: np.ndarray, real: np.ndarray, step: int, n: int, cyclic: bool) -> np.ndarray:
    """Whether the best of the items is the answer wanted; NaN past the end of a line."""
    wanted = real + step
    return np.where(cyclic | (wanted < n), logits.argmax(1) == wanted % n, np.nan)
