"""Geometry report: the representations of word lists in a model, as an artefact of tables and JSON.

All choices are fixed in advance: the sentences (`words`), the halves of them that choose the layer and that test
(`shapes`), the layer of interventions (after the block a quarter of the way up) and the steering strengths. A part that
does not apply to a list gives its reason, such as rotation for words of several tokens, or a probe with one list only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_json, write_table
from interp.errors import ConfigError, UsageError
from interp.geometry.points import Finding, ShapesConfig, plain
from interp.geometry.probes import ProbeResult, concept_directions, probe_layers
from interp.geometry.rotation import RotationSweep, rotate_words
from interp.geometry.shapes import Shape, find_shapes, fit_plane
from interp.geometry.steering import StrengthSweep, sweep_strengths
from interp.geometry.words import SENTENCES, Concept, WordActivations, read_words
from interp.models.hooked import HookedModel
from interp.progress import Progress
from interp.results import Record

if TYPE_CHECKING:
    import pyarrow as pa

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


@dataclass(frozen=True, kw_only=True)
class ConceptGeometry(Finding):
    """All measurements of one list. A part that is a string gives the reason why it is missing."""

    shape: Shape
    probes: tuple[ProbeResult, ...] | str
    """per hook point: does a word belong to this list? Words are held out"""
    steering: StrengthSweep | str
    rotation: RotationSweep | str

    def sentence(self) -> str:
        parts = [str(self.shape)]
        parts += [str(part) if isinstance(part, Finding) else "" for part in (self.steering, self.rotation)]
        return ". ".join(filter(None, parts))

    def to_records(self) -> list[Record]:
        """Return one row per hook point: RSA, silhouette, and the probe with its base rate and control."""
        shapes = self.shape.to_records()
        probes = [each.to_json() for each in self.probes] if isinstance(self.probes, tuple) else [{}] * len(shapes)
        return [
            row
            | {f"probe_{name}": probe.get(name) for name in ("accuracy", "low", "high")}
            | {name: probe.get(name) for name in ("base_rate", "control", "selectivity")}
            for row, probe in zip(shapes, probes, strict=True)
        ]


def measure_concepts(
    model: HookedModel,
    concepts: Sequence[Concept],
    config: ShapesConfig | None = None,
    *,
    sentences: Sequence[str] = SENTENCES,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, ConceptGeometry]:
    """Read the lists, test their shapes, and intervene; without `interventions` nothing is steered or rotated.

    `settings` are fields of `ShapesConfig`, which replace those of `config` (by default its defaults).
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
        rotation: RotationSweep | str = steering
        if config.interventions:
            steering = or_why(lambda name=name: _steer(model, name, lists, n_random, seed))
            rotation = or_why(lambda acts=acts: _rotate(model, acts, n_random, seed))
        probes = or_why(lambda name=name: tuple(_probes(name, lists, seed)))
        found[name] = ConceptGeometry(shape=shapes[name], probes=probes, steering=steering, rotation=rotation)
        if progress:
            progress(len(concepts) + done + 1, total, {"measured": name})
    return found


def early_hook_point(model: HookedModel) -> str:
    """Return the residual stream a quarter of the way up: past the first reading of the word, before most blocks."""
    return f"blocks.{model.cfg.n_layers // 4}.hook_resid_post"


def save_geometry(
    found: dict[str, ConceptGeometry],
    folder: Path,
    *,
    model_name: str,
    weight_hash: str,
    sentences: Sequence[str] = SENTENCES,
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write `geometry.json`, `points.parquet`, `layers.parquet` and `sweeps.parquet`; return the manifest."""
    config = {
        "model": model_name,
        "weight_hash": weight_hash,
        "lists": {name: list(each.shape.words) for name, each in found.items()},
        "sentences": list(sentences),
    }
    draft = Draft.open(folder, kind="word_geometry", config=config, seed=seed, overwrite=overwrite)
    write_json(draft.path / "geometry.json", {name: plain(each) for name, each in found.items()})
    write_table(draft.path / "points.parquet", points_table(found))
    write_table(draft.path / "layers.parquet", layers_table(found))
    write_table(draft.path / "sweeps.parquet", sweeps_table(found))
    return draft.finish(summary=summarise(found), parents={f"model:{model_name}": weight_hash}, threads=threads)


def summarise(found: dict[str, ConceptGeometry]) -> dict[str, Any]:
    """Return per list the verdict, its hook point, and the numbers behind it."""
    out = {}
    for name, each in found.items():
        order, cluster, turned = each.shape.order, each.shape.cluster, each.rotation
        out[name] = {
            "verdict": each.shape.verdict,
            "reason": each.shape.reason,
            "hook_point": each.shape.hook_point,
            "circular": round(order.circular, 4),
            "linear": round(order.linear, 4),
            "p_circular": order.p_circular,
            "p_linear": order.p_linear,
            "smallest_p": order.smallest_p,
            "silhouette": None if cluster is None else round(cluster.silhouette, 4),
            "p_cluster": None if cluster is None else cluster.p,
            "moves_output": turned.moves_output if isinstance(turned, RotationSweep) else None,
            "steps_followed": [turned.n_following, len(turned.steps)] if isinstance(turned, RotationSweep) else None,
        }
    return out


def points_table(found: dict[str, ConceptGeometry]) -> "pa.Table":
    """Return one row per word and half of the sentences, on the list's plane: `list, place, word, half, x, y`.

    `place` is the position of the word in its list.
    """
    rows = [
        {"list": name, "place": position, "word": word, "half": half, "x": float(x), "y": float(y)}
        for name, each in found.items()
        for half, points in zip(("fit", "judge"), each.shape.coordinates, strict=True)
        for position, (word, (x, y)) in enumerate(zip(each.shape.words, points, strict=True))
    ]
    return _table(rows)


def layers_table(found: dict[str, ConceptGeometry]) -> "pa.Table":
    """Return one row per list and hook point: RSA, silhouette, and the probe with its base rate and control."""
    return _table([{"list": name, **row} for name, each in found.items() for row in each.to_records()])


def sweeps_table(found: dict[str, ConceptGeometry]) -> "pa.Table":
    """Return one row per list and setting: `kind, setting, effect, low, high, side_effect`, then the controls.

    `kind` is `steering` or `rotation`; `random` and `random_high` are for random directions. `swapped` and `followed`
    are for a rotation.
    """
    columns = ("effect", "low", "high", "side_effect", "random", "random_high", "swapped", "followed")
    rows = []
    for name, each in found.items():
        for kind, setting, sweep in (("steering", "strength", each.steering), ("rotation", "step", each.rotation)):
            for row in sweep.to_records() if isinstance(sweep, Finding) else ():
                about = {"list": name, "kind": kind, "setting": float(row[setting])}
                rows.append(about | {column: row.get(column) for column in columns})
    return _table(rows)


def _table(rows: list[dict[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(rows)


def or_why(measure: Callable[[], Any]) -> Any:
    """Return the result of a part, or the reason why it does not apply."""
    try:
        return measure()
    except UsageError as error:
        return str(error)


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
