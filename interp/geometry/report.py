"""Geometry of lists of words in a model: the analysis behind the artefact (`word_geometry`).

All choices are fixed in advance: the sentences (`words`), the halves of them that choose the layer and that test
(`shapes`), the layer of interventions (after the block a quarter of the way up) and the steering strengths. A part that
does not apply to a list gives its reason, such as rotation for words of several tokens, or a probe with one list only.

**Rotation** (`rotate_words`) of words around their circle, and its effect on the item that the model names next.

    sweep = rotate_words(model, acts, plane, "blocks.7.hook_resid_post")

A prompt asks for the next item: *Today is Monday. Tomorrow is*. At the word, after a block, the activation is rotated
in the plane by the angle of `k` items; nothing else is changed. If the model reads the word's position in the order
from that plane, the answer moves by `k`. The measure is the change of the rotated word's answer logit, minus the mean
change of the other items' logits (nats). The original answer is not among those others, so a rotation that merely
destroys it scores 0.

There are two references. *Random*, the control: the same activation, moved as far in a random direction. *Swapped*, an
upper bound: the whole activation replaced by that of the other word (mean over the sentences that fitted the plane). A
plane of two dimensions among hundreds has less effect than the swap; the test is against random directions.

The plane is fitted on other sentences than these prompts. Answers are read as one token. So words must be single
tokens, or differ in the last token only (a space, then a digit); prompts then end with the tokens before it.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.geometry._steering import sweep_strengths
from interp.geometry.points import ShapesConfig, check_count, or_why
from interp.geometry.probes import ProbeResult, concept_directions, probe_layers
from interp.geometry.shapes import Plane, find_shapes, fit_plane
from interp.geometry.sweeps import RotationSweep, StrengthSweep
from interp.geometry.word_geometry import ConceptGeometry, ShapesSettings, WordGeometry
from interp.geometry.words import SENTENCES, WordActivations, WordList, by_length, encode, read_words, with_word
from interp.models.adapter import available_hook_points, final_norm_and_unembed
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec, weight_hash
from interp.models.passes import capture
from interp.names import check_hook_points, parse_hook_point
from interp.nulls import DRAWS
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import t_interval

MAX_STEPS = 6
"""largest number of rotations tried, spread evenly around the circle"""


@torch.no_grad()
def rotate_words(
    model: HookedModel,
    acts: WordActivations,
    plane: Plane,
    hook_point: str,
    *,
    prompts: Sequence[str] | None = None,
    n_random: int = DRAWS["quick"],
    batch_size: int = 64,
    seed: int = 0,
) -> RotationSweep:
    """Rotate every word of a list by every number of items, in every prompt (by default the list's `successors`).

    The nulls are moves as long in random directions, and the same rotation the other way: a rotation that only blurs
    which word it was raises answers that were far behind, in both senses alike.

    `plane`: fitted to `acts.points(hook_point, half=0)`. Raises `ConfigError` where the list has no prompts, items of
    several tokens, or two items with the same token; `MismatchError` when the words or the plane come from another
    model; `UnknownNameError` for a hook point that the model does not have; `PromptError` for a prompt longer than its
    context.
    """
    check_count("n_random", n_random, 1, "random directions are the control of a rotation")
    [hook_point] = check_hook_points([hook_point], available_hook_points(model), model.cfg.n_layers)
    layer, fitted = layer_after(hook_point), acts.points(hook_point, half=0)
    if fitted.shape[1] != model.cfg.d_model:
        raise MismatchError(
            f"words of this model are {model.cfg.d_model} wide, got {fitted.shape[1]}; read them with the same model"
        )
    direction = turning_sense(plane, fitted)
    prompts = list(acts.concept.successors if prompts is None else prompts)
    items = _single_tokens(acts, prompts)
    prompted = _Prompts.of(model, acts, prompts)
    n, starts = len(items), prompted.starts(model, hook_point, batch_size)
    generator = make_generator(seed, "random directions")
    rotated, swapped, back, random = [], [], [], [[] for _ in range(n_random)]
    clean = _logits(model, starts, layer, None, items)
    steps = sorted({round(step) for step in np.linspace(1, n - 1, min(n - 1, MAX_STEPS))})
    for step in steps:
        turn = torch.from_numpy(plane.turn(direction * step * 360 / n))
        moves = (torch.from_numpy(fitted - plane.centre) @ turn).norm(dim=1)
        rotated.append(_logits(model, starts, layer, _rotator(plane, turn), items))
        turned = turn if 2 * step == n else torch.from_numpy(plane.turn(-direction * step * 360 / n))
        back.append(rotated[-1] if turned is turn else _logits(model, starts, layer, _rotator(plane, turned), items))
        swapped.append(_logits(model, starts, layer, _swapper(np.roll(fitted, -step, axis=0)), items))
        for draw in random:
            draw.append(_logits(model, starts, layer, _mover(moves, fitted.shape[1], generator), items))
    return _summary(acts, hook_point, steps, prompted.word, clean, rotated, swapped, [*random, back], seed)


def layer_after(hook_point: str) -> int:
    """Return the block that reads a residual hook point. Raises `ConfigError` for other hook points."""
    parsed = parse_hook_point(hook_point)
    if parsed.suffix == "hook_embed":
        return 0
    if parsed.layer is None or parsed.suffix not in ("hook_resid_pre", "hook_resid_post"):
        raise ConfigError(
            f"words are rotated in the residual stream (hook_embed, hook_resid_post), not at {hook_point}"
        )
    return parsed.layer + (parsed.suffix == "hook_resid_post")


def turning_sense(plane: Plane, points: Float[np.ndarray, "n d"]) -> float:
    """Return +1 if the items go around in the direction of the plane's growing angles, else -1."""
    now = plane.coordinates(points)
    after = np.roll(now, -1, axis=0)
    return 1.0 if (now[:, 0] * after[:, 1] - now[:, 1] * after[:, 0]).sum() >= 0 else -1.0


@dataclass(frozen=True)
class _Prompts:
    """Prompts, with the position of the word in each."""

    tokens: list[list[int]]
    word: np.ndarray
    """`[n_prompts]` index of the word in its list"""
    at: np.ndarray
    """`[n_prompts]` position of its last token"""

    @classmethod
    def of(cls, model: HookedModel, acts: WordActivations, prompts: Sequence[str]) -> "_Prompts":
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

    def starts(self, model: HookedModel, hook_point: str, batch_size: int) -> "list[_Start]":
        """Return the residual at the hook point for every prompt, in groups of one length: where the passes start."""
        groups = []
        for group in by_length(self.tokens, batch_size):
            tokens = torch.tensor([self.tokens[i] for i in group], device=model.cfg.device)
            value = capture(model, tokens, [hook_point])[hook_point]
            groups.append(
                _Start(np.array(group), value, torch.from_numpy(self.at[group]), torch.from_numpy(self.word[group]))
            )
        return groups


class _Start(NamedTuple):
    """Prompts of one length, with their residual at the hook point."""

    group: np.ndarray
    value: Tensor
    """`[b, pos, d]`"""
    at: Tensor
    word: Tensor


_Edit = Callable[[Tensor, Tensor], Tensor]
"""`edit(rows [b, d], word indices [b])` returns the new rows."""


def _logits(model: HookedModel, starts: list[_Start], layer: int, edit: _Edit | None, items: Tensor) -> np.ndarray:
    """Return next-token logits of the items, `[n_prompts, n_items]`, after `edit` of the residual at the word.

    The blocks up to the hook point do not run again, and only the last position is unembedded.
    """
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    out = np.empty((sum(len(start.group) for start in starts), len(items)))
    for group, value, at, word in starts:
        rows, value = torch.arange(len(at)), value.clone()
        if edit is not None:
            value[rows, at] = edit(value[rows, at].double().cpu(), word).to(value)
        end = value if layer == model.cfg.n_layers else capture(model, value, [last], layer=layer)[last]
        out[group] = final_norm_and_unembed(model, end[:, -1]).float().cpu()[:, items].numpy()
    return out


def _rotator(plane: Plane, turn: Tensor) -> "_Edit":
    centre = torch.from_numpy(plane.centre)
    return lambda rows, word: rows + (rows - centre) @ turn


def _swapper(others: np.ndarray) -> "_Edit":
    values = torch.from_numpy(others)
    return lambda rows, word: values[word]


def _mover(lengths: Tensor, d: int, generator: torch.Generator) -> "_Edit":
    """Move each word as far as the rotation does, each in its own random direction."""
    directions = torch.randn(len(lengths), d, generator=generator, dtype=torch.float64)
    shifts = directions / directions.norm(dim=1, keepdim=True) * lengths[:, None]
    return lambda rows, word: rows + shifts[word]


def _single_tokens(acts: WordActivations, prompts: Sequence[str]) -> Tensor:
    name = acts.concept.name
    if not prompts:
        raise ConfigError(f"{name} has no prompts that ask for the next item; give some, with {{word}} in them")
    if acts.prefix is None:
        raise ConfigError(f"answers are read as one token, but {name} has words of several: {acts.note}")
    if len(set(acts.last_tokens)) < len(acts.last_tokens):
        raise ConfigError(f"two words of {name} are the same token, so their answers cannot be distinguished")
    return torch.tensor(acts.last_tokens)


def _summary(
    acts: WordActivations,
    hook_point: str,
    steps: list[int],
    word: np.ndarray,
    clean: np.ndarray,
    rotated: list[np.ndarray],
    swapped: list[np.ndarray],
    random: list[list[np.ndarray]],
    seed: int,
) -> RotationSweep:
    """Summarise the changes of the answers by step; on a line, rotations past its end do not count."""
    n, cyclic = len(acts.concept.words), acts.concept.cyclic
    rows, real = np.arange(len(word)), word + 1
    original = real % n

    def towards(logits: np.ndarray, step: int) -> np.ndarray:
        """Return the change of the rotated answer minus the mean over all but it and the original answer."""
        wanted, change = real + step, logits - clean
        right, spoilt = change[rows, wanted % n], change[rows, original]
        others = (change.sum(1) - right - spoilt) / (n - 2)
        return np.where(cyclic | (wanted < n), right - others, np.nan)

    used = [i for i, step in enumerate(steps) if cyclic or step < n - 1]
    moved = np.array([towards(rotated[i], steps[i]) for i in used])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a prompt whose rotations all pass the end has no mean
        overall = t_interval(np.nanmean(moved, axis=0))
    null = np.array([[np.nanmean(towards(draw[i], steps[i])) for i in used] for draw in random])
    followed = [np.nanmean(_hits(rotated[i], real, steps[i], n, cyclic)) for i in used]
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
    """Mark the prompts whose best item is the wanted answer, 1 or 0; NaN past the end of a line."""
    wanted = real + step
    return np.where(cyclic | (wanted < n), logits.argmax(1) == wanted % n, np.nan)


PROMPTS = (
    "I would like to tell you about",
    "The answer is",
    "Yesterday we spoke about",
    "Everybody in the room was thinking of",
    "On the first page of the book you read the word",
    "What comes to my mind is",
    "She turned to her brother and said",
    "The next word in the list is",
    "In the letter he wrote about",
    "A good example of this is",
    "When they arrived they saw",
    "The story begins with",
)
TEXT = (
    "The river rises in the hills and flows past two mills before it reaches the sea. In winter the road beside it is "
    "often under water, so people keep a boat in the barn.",
    "To install the package, clone the repository and run the command below. The tests need a compiler and about two "
    "gigabytes of memory. If something fails, open an issue with the log.",
    "She put the letter back into the drawer, locked it, and went to the window. Nobody was in the street; only the "
    "lamp over the door moved a little in the wind.",
    "Bread needs little more than flour, water, salt and time. Warm dough rises faster, but slowly risen dough tastes "
    "better, and its crust keeps for days.",
    "The committee heard both sides and put off its decision. A second report was asked for, on what the bridge would "
    "cost and who should pay for it.",
    "Sound travels faster in water than in air, and faster still in steel. Whales use this: their calls are heard by "
    "others across an ocean.",
)


def measure_concepts(
    model: HookedModel,
    concepts: Sequence[WordList],
    config: ShapesConfig | None = None,
    *,
    sentences: Sequence[str] = SENTENCES,
    progress: Progress | None = None,
) -> WordGeometry:
    """Read the lists, test their shapes, and intervene; without `interventions` nothing is steered or rotated.

    `config` defaults to `ShapesConfig()`.

    Cost: about a thousand short prompts for all seven lists, and a few hundred for each list that is rotated. Raises
    `ConfigError` without lists or on two of one name, and on sentences that `read_words` rejects.
    """
    config = config or ShapesConfig()
    seed, n_random = config.seed, config.n_random
    if not concepts:
        raise ConfigError("no lists were given; find_concepts([]) gives all")
    names = [concept.name for concept in concepts]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"several lists have the same name, {repeated[0]!r}; rename all but one")
    total, lists = 2 * len(concepts) + 1, {}
    for done, concept in enumerate(concepts):
        lists[concept.name] = read_words(model, concept, sentences=sentences)
        if progress:
            progress(done + 1, total, {"read": concept.name})
    shapes = find_shapes(lists, seed=seed)
    geometries = {}
    for done, (name, acts) in enumerate(lists.items()):
        steering: StrengthSweep | str = "interventions were left out"
        rotation: RotationSweep | str = "interventions were left out"
        if config.interventions:
            steering = or_why(lambda name=name: _steer(model, name, lists, n_random, seed))
            rotation = or_why(lambda acts=acts: _rotate(model, acts, n_random, seed))
        probes = or_why(lambda name=name: tuple(_probes(name, lists, seed)))
        geometries[name] = ConceptGeometry(shape=shapes[name], probes=probes, steering=steering, rotation=rotation)
        if progress:
            progress(len(concepts) + done + 1, total, {"measured": name})
    made = ShapesSettings(
        model=model_spec(model),
        weight_hash=weight_hash(model),
        lists=tuple(concepts),
        sentences=tuple(sentences),
        interventions=config.interventions,
        n_random=config.n_random,
        seed=config.seed,
    )
    return WordGeometry(settings=made, lists=geometries)


def early_hook_point(model: HookedModel) -> str:
    """Return the residual stream a quarter of the way up: past the first reading of the word, before most blocks."""
    return f"blocks.{model.cfg.n_layers // 4}.hook_resid_post"


def _probes(name: str, lists: dict[str, WordActivations], seed: int) -> list[ProbeResult]:
    """Probe at every layer if a word belongs to this list.
    Half of the words of every list are held out, so words cannot be memorised. The control labels, random for each
    word, must therefore stay at their base rate.
    """
    if len(lists) < 2:
        raise ConfigError("a probe needs words of another list as negatives; measure two lists or more")
    hook_points = next(iter(lists.values())).hook_points
    words = np.array([word for acts in lists.values() for word in acts.concept.words])
    yes = np.repeat([key == name for key in lists], [len(acts.concept.words) for acts in lists.values()])
    layers = {
        hook_point: np.concatenate([acts.points(hook_point) for acts in lists.values()]) for hook_point in hook_points
    }
    return probe_layers(layers, yes, words, key=words, seed=seed)


def _steer(model: HookedModel, name: str, lists: dict[str, WordActivations], n_random: int, seed: int) -> StrengthSweep:
    """Steer towards this list and away from the others, along the difference in means."""
    if len(lists) < 2:
        raise ConfigError("a direction needs words of another list to point away from; measure two lists or more")
    hook_point = early_hook_point(model)
    points = np.concatenate([acts.points(hook_point) for acts in lists.values()])
    yes = np.repeat([key == name for key in lists], [len(acts.concept.words) for acts in lists.values()])
    heldout = np.concatenate([np.arange(len(acts.concept.words)) % 2 == 1 for acts in lists.values()])
    direction = concept_directions(points, yes, heldout, seed=seed)["difference in means"]
    return sweep_strengths(
        model,
        hook_point,
        direction.direction,
        unit=direction.distance,
        prompts=PROMPTS,
        targets=sorted(set(lists[name].last_tokens)),
        text=TEXT,
        n_random=n_random,
        seed=seed,
    )


def _rotate(model: HookedModel, acts: WordActivations, n_random: int, seed: int) -> RotationSweep:
    hook_point = early_hook_point(model)
    plane = fit_plane(acts.points(hook_point, half=0), seed=seed)
    return rotate_words(model, acts, plane, hook_point, n_random=n_random, seed=seed)
