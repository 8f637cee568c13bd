"""From examples or two lists of words to a direction: a direction at several layers, one chosen, all methods compared.

made = make_direction(model, read_examples("pairs.jsonl"), name="formal")
measure_direction(model, made.direction, find_concepts([]), made=made)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from interp.dictionary import Dictionary
from interp.directions._variants import DEFAULT, Find, Variant, methods, variants
from interp.directions.choice import SteeringChoice
from interp.directions.choosing import Candidate, candidate, choose_steering, spread_layers
from interp.directions.config import DirectionConfig
from interp.directions.examples import ContrastPairs
from interp.directions.named import NamedDirection
from interp.directions.questions import Questions, neutral_text, prompts_of, reply_questions, word_questions
from interp.directions.sides import Sides, read_sides, words_as_sides
from interp.errors import ConfigError, UnknownNameError
from interp.geometry.report import PROMPTS, TEXT
from interp.models.adapter import token_strings, untrained_model
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.names import canonical_hook_point
from interp.nulls import PER_PART
from interp.progress import Progress


@dataclass(frozen=True, kw_only=True)
class TwoLists:
    """Two lists of words that a direction leads to and away from."""

    towards: tuple[str, ...]
    away: tuple[str, ...]

    @property
    def source(self) -> str:
        """Origin of the direction, in words."""
        return f"from {', '.join(self.away)} to {', '.join(self.towards)}"


@dataclass(frozen=True)
class Made:
    """A direction, and how it was chosen."""

    direction: NamedDirection
    choice: SteeringChoice | str
    variants: dict[str, Variant]
    vectors: Float64[np.ndarray, "variants d"]
    amount: float | None
    """Length that the chosen cell adds, or value that it sets."""


def make_direction(
    model: HookedModel,
    made_from: ContrastPairs | TwoLists,
    config: DirectionConfig | None = None,
    *,
    name: str = "",
    variant: str = DEFAULT,
    hook_points: Sequence[str] = (),
    dictionary: Dictionary | None = None,
    nuisance: ContrastPairs | None = None,
    progress: Progress | None = None,
) -> Made:
    r"""Make a direction of the examples that are not held out, choose its layer and strength, and judge them.

    Args:
        made_from: pairs of texts, or two lists of words.
        config: action, strengths, layers and random directions; defaults where not given.
        name: of the direction.
        variant: method of the direction that is steered along (`interp.directions._variants`).
        hook_points: layers to try; default: `config.layers` of them, evenly spread.
        dictionary: an SAE: its own direction is one variant, and its decoder directions are placebos at its hook point.
        nuisance: examples of a difference that must not count; its direction is projected out in one variant.
        progress: called as by `choose_steering`.
    Returns: the direction, its variants, and the choice with its nulls.
    Raises:
        UnknownNameError: another variant.
        ConfigError: too few examples, prompts without target words, or a model in which both sides are the same.

    >>> lines = [f'{{"prompt": "It is {n}.", "towards": "good", "away": "bad"}}' for n in range(12)]
    >>> _ = (folder / "made.jsonl").write_text("\n".join(lines))
    >>> quick = DirectionConfig(strengths=(1.0,), n_random=1, n_judging=2)
    >>> made = make_direction(model, read_examples(folder / "made.jsonl"), quick, hook_points=[point])
    >>> made.direction.hook_point
    'blocks.0.hook_resid_post'
    """
    config = config or DirectionConfig()
    points = [canonical_hook_point(name) for name in hook_points] or spread_layers(model, config.layers)
    sides = _read(model, made_from, points)
    nuisance_sides = None if nuisance is None else read_sides(model, nuisance, points)
    finders = {point: _methods(sides, point, dictionary, nuisance_sides) for point in points}
    if not any(variant in methods_of_point for methods_of_point in finders.values()):
        raise UnknownNameError("method of a direction", variant, finders[points[0]])
    points = [point for point in points if variant in finders[point]]
    candidates = [candidate(sides, point, finders[point][variant]) for point in points]
    choice: SteeringChoice | str = "interventions were left out"
    index = len(points) // 2
    if config.interventions:
        placebos = None if dictionary is None else _placebos(dictionary, config.seed)
        choice = choose_steering(
            model, candidates, _questions(model, made_from, config), neutral_text(model, TEXT), config=config,
            placebos=placebos, placebo_at="" if dictionary is None else _reads(dictionary), progress=progress,
        )  # fmt: skip
        index = choice.layer
    point = points[index]
    untrained = untrained_model(model, config.seed)
    scores, vectors = variants(sides, _read(untrained, made_from, [point]), point, finders[point], seed=config.seed)
    towards, away = (made_from.towards, made_from.away) if isinstance(made_from, TwoLists) else ((), ())
    row = list(scores).index(variant)
    direction = NamedDirection(
        name=name or variant, source=f"{variant}, {made_from.source}", hook_point=point, towards=towards, away=away,
        vector=vectors[row], accuracy=scores[variant].accuracy,
    )  # fmt: skip
    return Made(direction, choice, scores, vectors, _amount(candidates[index], choice))


def target_ids(model: HookedModel, words: Sequence[str]) -> list[int]:
    """Return the last token of each word, with a space before it."""
    if not words:
        return []
    return sorted({ids[-1] for ids in map(list, tokenizer_of(model).encode_batch([f" {word}" for word in words]))})


def _read(model: HookedModel, made_from: ContrastPairs | TwoLists, points: Sequence[str]) -> Sides:
    if isinstance(made_from, TwoLists):
        return words_as_sides(model, made_from.towards, made_from.away, points)
    return read_sides(model, made_from, points)


def _questions(model: HookedModel, made_from: ContrastPairs | TwoLists, config: DirectionConfig) -> Questions:
    words = config.targets or (made_from.towards if isinstance(made_from, TwoLists) else ())
    ids = target_ids(model, words)
    if ids:
        prompts = PROMPTS
        if isinstance(made_from, ContrastPairs) and made_from.kind != "texts":
            prompts = prompts_of(made_from)
        return word_questions(model, prompts, ids, token_strings(model, ids))
    assert isinstance(made_from, ContrastPairs)
    if made_from.kind == "prompts":
        raise ConfigError(
            "pairs of prompts say nothing about what the model should answer; name words of the answer as targets, "
            "or give replies: lines with prompt, towards and away"
        )
    return reply_questions(model, made_from)


def _methods(sides: Sides, point: str, dictionary: Dictionary | None, nuisance: Sides | None) -> dict[str, Find]:
    """Return the methods at one hook point."""
    away = None if nuisance is None else candidate(nuisance, point, methods(nuisance)[DEFAULT]).vector
    reader = dictionary if dictionary is not None and _reads(dictionary) == point else None
    return methods(sides, dictionary=reader, nuisance=away)


def _reads(dictionary: Dictionary) -> str:
    return canonical_hook_point(dictionary.hook_point)


def _placebos(dictionary: Dictionary, seed: int) -> Float64[np.ndarray, "n d"]:
    chosen = np.random.default_rng(seed).choice(dictionary.d_sae, min(PER_PART, dictionary.d_sae), replace=False)
    return dictionary.decoder_directions.detach().double().cpu().numpy()[np.sort(chosen)]


def _amount(along: Candidate, choice: SteeringChoice | str) -> float | None:
    if isinstance(choice, str) or choice.amount is None or choice.action == "ablate":
        return None
    return choice.amount + (along.start if choice.action == "set" else 0.0)
