"""Geometry of lists of words in a model: the analysis behind the artefact (`word_geometry`).

All choices are fixed in advance: the sentences (`words`), the halves of them that choose the layer and that test
(`shapes`), the layer of interventions (after the block a quarter of the way up) and the steering strengths. A part that
does not apply to a list gives its reason, such as rotation for words of several tokens, or a probe with one list only.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from interp.errors import ConfigError
from interp.geometry.points import ShapesConfig, or_why
from interp.geometry.probes import ProbeResult, concept_directions, probe_layers
from interp.geometry.rotation import rotate_words
from interp.geometry.shapes import find_shapes, fit_plane
from interp.geometry.steering import sweep_strengths
from interp.geometry.sweeps import RotationSweep, StrengthSweep
from interp.geometry.word_geometry import ConceptGeometry, ShapesSettings, WordGeometry
from interp.geometry.words import SENTENCES, Concept, WordActivations, read_words
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec, weight_hash
from interp.progress import Progress

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
    concepts: Sequence[Concept],
    config: ShapesConfig | None = None,
    *,
    sentences: Sequence[str] = SENTENCES,
    model_name: str = "",
    progress: Progress | None = None,
    **settings: Any,
) -> WordGeometry:
    """Read the lists, test their shapes, and intervene; without `interventions` nothing is steered or rotated.

    `settings` are fields of `ShapesConfig`, which replace those of `config` (by default its defaults). `model_name` is
    stored with the result; the default is the model's own name.

    Cost: about a thousand short prompts for all seven lists, and a few hundred for each list that is rotated. Raises
    `ConfigError` without lists or on two of one name, and on sentences that `read_words` rejects.
    """
    config = replace(config or ShapesConfig(), **settings)
    seed, n_random = config.seed, config.n_random
    if not concepts:
        raise ConfigError("no lists were given; find_concepts([]) gives all")
    if len({concept.name for concept in concepts}) != len(concepts):
        raise ConfigError("two lists have the same name")
    total, lists = 2 * len(concepts) + 1, {}
    for done, concept in enumerate(concepts):
        lists[concept.name] = read_words(model, concept, sentences=sentences)
        if progress:
            progress(done + 1, total, {"read": concept.name})
    shapes = find_shapes(lists, seed=seed)
    found = {}
    for done, (name, acts) in enumerate(lists.items()):
        steering: StrengthSweep | str = "interventions were left out"
        rotation: RotationSweep | str = "interventions were left out"
        if config.interventions:
            steering = or_why(lambda name=name: _steer(model, name, lists, n_random, seed))
            rotation = or_why(lambda acts=acts: _rotate(model, acts, n_random, seed))
        probes = or_why(lambda name=name: tuple(_probes(name, lists, seed)))
        found[name] = ConceptGeometry(shape=shapes[name], probes=probes, steering=steering, rotation=rotation)
        if progress:
            progress(len(concepts) + done + 1, total, {"measured": name})
    made = ShapesSettings(
        model=model_name or model_spec(model),
        weight_hash=weight_hash(model),
        lists=tuple(concepts),
        sentences=tuple(sentences),
        **asdict(config),
    )
    return WordGeometry(settings=made, lists=found)


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
    yes = np.repeat([each == name for each in lists], [len(acts.concept.words) for acts in lists.values()])
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
    yes = np.repeat([each == name for each in lists], [len(acts.concept.words) for acts in lists.values()])
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
