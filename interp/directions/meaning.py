"""The meaning of one direction: the tokens that it raises, the words along it, probes and erasure.

Each part is compared with random directions or shuffled labels:

1. the tokens whose logits the direction raises, through a Jacobian lens or from the weights (`interp.lenses`);
2. the lists of words that it separates, and its share in each list's plane (`along`);
3. the layers at which a linear probe predicts on which side of the median a held-out word lies (`probes`);
4. the effect of steering along it and the cost on neutral text (`choice`), where it was not made with one: on the words
   that the direction points to, else on the tokens of part 1, so that steering then tests if the model does what the
   unembedding alone would do.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from interp.directions.choice import SteeringChoice
from interp.directions.choosing import Candidate, choose_steering
from interp.directions.config import DirectionConfig
from interp.directions.making import Made, target_ids
from interp.directions.named import NamedDirection
from interp.directions.questions import neutral_text, word_questions
from interp.directions.study import DirectionGeometry, DirectionProbe, DirectionSettings, TokenReading
from interp.errors import ConfigError
from interp.geometry.points import or_why, unit_vector
from interp.geometry.probes import Erasure, ProbeResult, erasure, probe_layers
from interp.geometry.report import PROMPTS, TEXT
from interp.geometry.separation import words_along
from interp.geometry.words import SENTENCES, WordActivations, WordList, read_words, residual_hook_points
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import lens_point
from interp.lenses.logit_lens import logit_effects
from interp.models.adapter import token_strings
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec, weight_hash
from interp.names import RESIDUAL_SUFFIXES, canonical_hook_point, parse_hook_point
from interp.nulls import DRAWS, SHOWN
from interp.progress import Progress
from interp.seeds import derive_seed

N_TOKENS = 10


def measure_direction(
    model: HookedModel, direction: NamedDirection, concepts: Sequence[WordList], config: DirectionConfig | None = None,
    *, sentences: Sequence[str] = SENTENCES, lens: JacobianLens | None = None,
    made: Made | None = None, progress: Progress | None = None,
) -> DirectionGeometry:  # fmt: skip
    """Measure one direction on the words of some lists.

    Args:
        direction: of `direction_of_words`, or `made.direction` of `make_direction`.
        concepts: the lists of words.
        config: measures and steering (default: `DirectionConfig()`).
        sentences: texts into which each word is put, in place of `{word}`.
        lens: the directions are read as tokens through it.
        made: variants and choice of a direction that was made with them.
    Returns: what the direction separates, each measure with its null.
    Raises:
        ConfigError, MismatchError: no lists, a zero direction, or one of another width than its hook point.
        NonFiniteError: NaN or infinity in activations.
        UnknownNameError: a hook point that the model does not have.

    >>> good, bad = ["good", "great", "fine", "kind"], ["bad", "sad", "poor", "cruel"]
    >>> along = direction_of_words(model, good, bad, point, name="good")
    >>> measure_direction(model, along, find_concepts(["months"]), DirectionConfig(interventions=False)).vector.shape
    (64,)
    """
    config = config or DirectionConfig()
    seed = config.seed
    if not concepts:
        raise ConfigError("no lists of words were given; find_concepts([]) gives all")
    hook_point = canonical_hook_point(direction.hook_point)
    made_of, words = (*direction.towards, *direction.away), [*concepts, *direction.own_words]
    steps = _Steps(progress, len(words) + 4)
    lists = _read(model, words, hook_point, direction, sentences, steps)
    along = words_along(lists, hook_point, direction.vector, made_of=made_of, seed=seed)
    steps.done("words")
    reading = or_why(lambda: read_tokens(model, hook_point, direction.vector, lens=lens, seed=seed))
    steps.done("tokens")
    probes = or_why(lambda: _probes(lists, hook_point, direction.vector, made_of, seed))
    steps.done("probes")
    erased = or_why(lambda: _erased(lists, hook_point, direction, seed))
    choice: SteeringChoice | str = "interventions were left out"
    if made is not None:
        choice = made.choice
    elif config.interventions:
        choice = or_why(lambda: _steer(model, direction, along.typical, config, reading, steps.within))
    steps.done("steered")
    about_direction = DirectionSettings(
        model=model_spec(model),
        weight_hash=weight_hash(model),
        direction=replace(direction.origin, hook_point=hook_point),
        lists=tuple(concepts),
        sentences=tuple(sentences),
        **vars(config),
    )
    return DirectionGeometry(
        settings=about_direction,
        vector=np.asarray(direction.vector, np.float64),
        accuracy=direction.accuracy,
        reading=reading,
        along=along,
        probes=probes,
        erased=erased,
        choice=choice,
        variants={} if made is None else made.variants,
        variant_vectors=np.empty((0, len(direction.vector))) if made is None else made.vectors,
        amount=_amount(made, choice),
        n_layers=model.cfg.n_layers,
    )


def read_tokens(
    model: HookedModel,
    hook_point: str,
    vector: np.ndarray,
    *,
    top: int = N_TOKENS,
    n_random: int = DRAWS["thorough"],
    lens: JacobianLens | None = None,
    seed: int = 0,
) -> TokenReading:
    """Return the tokens that `vector [d_model]` raises and lowers most: through a Jacobian lens, else directly.

    Raises `ConfigError` at a hook point outside the residual stream, as the unembedding does not read its values.
    """
    if parse_hook_point(hook_point).suffix not in RESIDUAL_SUFFIXES:
        raise ConfigError(f"the unembedding reads the residual stream, and {hook_point} is not in it")
    rng = np.random.default_rng(derive_seed(seed, "random readings"))
    drawn = rng.standard_normal((n_random, len(vector)))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)  # a model without a final norm reads their length
    both = torch.from_numpy(np.concatenate([unit_vector(vector)[None], drawn])).float()
    if lens is not None:
        both = lens.carry(lens_point(hook_point, model.cfg.n_layers), both)
    effects = logit_effects(model, both, min(top, model.cfg.d_vocab))
    highest = effects.promoted_logits[1:, 0].numpy()
    ids = effects.promoted_ids[0].tolist()
    return TokenReading(
        raised=tuple(token_strings(model, ids)),
        raised_ids=tuple(ids),
        raised_logits=tuple(effects.promoted_logits[0].tolist()),
        lowered=tuple(token_strings(model, effects.suppressed_ids[0])),
        lowered_logits=tuple(effects.suppressed_logits[0].tolist()),
        random=float(highest.mean()),
        random_high=float(highest.max()),
        lens="" if lens is None else lens.about.key,
    )


class _Steps:
    """Counter that reports finished steps to the progress bar."""

    def __init__(self, progress: Progress | None, total: int):
        self._progress, self._total, self._n = progress, total, 0

    def done(self, what: str) -> None:
        self._n += 1
        if self._progress:
            self._progress(self._n, self._total, {"done": what})

    def within(self, done: int, total: int, facts: dict[str, str]) -> None:
        """Report how far the current step is, as a share of it."""
        if self._progress:
            self._progress(self._n, self._total, {"steered": f"{done / total:.0%}", **facts})


def _read(
    model: HookedModel,
    concepts: Sequence[WordList],
    hook_point: str,
    direction: NamedDirection,
    sentences: Sequence[str],
    steps: _Steps,
) -> dict[str, WordActivations]:
    """Read every list at every layer and at the direction's hook point."""
    hook_points = residual_hook_points(model)
    hook_points += [hook_point] * (hook_point not in hook_points)
    lists = {}
    for concept in concepts:
        lists[concept.name] = read_words(model, concept, sentences=sentences, hook_points=hook_points)
        unit_vector(direction.vector, d=lists[concept.name].values[hook_point].shape[-1])  # before the rest is read
        steps.done(concept.name)
    return lists


def _probes(
    lists: dict[str, WordActivations], hook_point: str, vector: np.ndarray, made_of: Sequence[str], seed: int
) -> tuple[DirectionProbe, ...]:
    """Probe at every layer on which side of the median along the direction a word lies.

    Half of the words are held out, and those that the direction was derived from are excluded.
    """
    words = np.array([word for acts in lists.values() for word in acts.concept.words])
    used = ~np.isin(words, list(made_of))
    if used.sum() < 2:
        raise ConfigError(
            f"all but {used.sum()} of {len(words)} words define the direction, so no probe can be fitted to others; "
            "give another list"
        )
    hook_points = next(iter(lists.values())).hook_points
    layers = {point: np.concatenate([acts.points(point) for acts in lists.values()])[used] for point in hook_points}
    rng = np.random.default_rng(derive_seed(seed, "random probes"))

    def curve(along: np.ndarray) -> list[ProbeResult]:
        return probe_layers(layers, along > np.median(along), words[used], key=words[used], seed=seed)

    random = [curve(layers[hook_point] @ rng.standard_normal(len(vector))) for _ in range(SHOWN)]
    return tuple(
        DirectionProbe(probe=probe, random=float(np.mean([null[at].accuracy.estimate for null in random])))
        for at, probe in enumerate(curve(layers[hook_point] @ vector))
    )


def _erased(lists: dict[str, WordActivations], hook_point: str, direction: NamedDirection, seed: int) -> Erasure:
    """Erase the difference between the words of both sides; every second word is held out, as for the direction."""
    if not direction.own_words:
        raise ConfigError("erasure needs the two lists of words that a direction points to and away from")
    sides = [lists[concept.name].points(hook_point) for concept in direction.own_words]
    yes = np.repeat([True, False], [len(side) for side in sides])
    heldout = np.concatenate([np.arange(len(side)) % 2 == 1 for side in sides])
    return erasure(np.concatenate(sides), yes, heldout, seed=seed)


def _steer(
    model: HookedModel,
    direction: NamedDirection,
    unit: float,
    config: DirectionConfig,
    reading: TokenReading | str,
    progress: Progress,
) -> SteeringChoice:
    """Choose a strength of a direction that was given, in units of the mean distance of a word from the mean."""
    ids = target_ids(model, config.targets or direction.towards)
    if not ids and isinstance(reading, TokenReading):
        ids = list(reading.raised_ids)
    questions = word_questions(model, PROMPTS, ids, token_strings(model, ids) if ids else ())
    along = Candidate(canonical_hook_point(direction.hook_point), np.asarray(direction.vector, np.float64), unit)
    neutral = neutral_text(model, TEXT)
    return choose_steering(model, [along], questions, neutral, config=config, progress=progress)


def _amount(made: Made | None, choice: SteeringChoice | str) -> float | None:
    if made is not None:
        return made.amount
    return None if isinstance(choice, str) or choice.action == "ablate" else choice.amount
