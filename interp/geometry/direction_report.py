"""The folder of one direction: what it says, what it sets apart, where it can be read, and what a push along it does.

Four questions, each beside random directions or shuffled labels:

1. which tokens does it raise, read straight off the weights? (`interp.lenses.logit_lens`)
2. which lists of words does it set apart, and does it lie in a list's plane? (`along`)
3. at which layers can a linear probe tell on which side of its middle a held-out word lies? (`probes`)
4. does a push along it raise the tokens that it stands for, at little cost elsewhere? (`steering`) The tokens are those
   of the words that it leads to; of a direction that was brought along those that question 1 names, so the push asks
   whether the model does what its last step alone would do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_json, write_table
from interp.errors import ConfigError
from interp.geometry.erasure import Erasure, erasure
from interp.geometry.points import Finding, plain, unit_vector
from interp.geometry.probes import NamedDirection, ProbeResult, probe_layers
from interp.geometry.report import PROMPTS, TEXT, or_why
from interp.geometry.separation import WordsAlong, words_along
from interp.geometry.steering import StrengthSweep, sweep_strengths
from interp.geometry.words import SENTENCES, Concept, WordActivations, read_words, residual_places
from interp.lenses.logit_lens import logit_effects
from interp.models.adapter import token_strings
from interp.names import RESIDUAL_SUFFIXES, canonical_hook_point, parse_hook_point
from interp.progress import Progress
from interp.runtime import derive_seed

if TYPE_CHECKING:
    import pyarrow as pa

N_TOKENS = 10
N_RANDOM_READINGS = 99
N_RANDOM_PROBES = 2
_PROBE_COLUMNS = ("accuracy", "low", "high", "base_rate", "control", "selectivity", "random")


@dataclass(frozen=True, kw_only=True)
class TokenReading(Finding):
    """The tokens whose logits a direction moves most, when it alone is the last residual."""

    raised: tuple[str, ...]
    raised_ids: tuple[int, ...]
    raised_logits: tuple[float, ...]
    """nats above the mean over the vocabulary, largest first"""
    lowered: tuple[str, ...]
    lowered_logits: tuple[float, ...]
    """nats, lowest first"""
    random: float
    """the largest logit of a random direction, mean over directions"""
    random_high: float
    """and the largest of them"""

    def sentence(self) -> str:
        return (
            f"read through the unembedding it raises {', '.join(map(repr, self.raised[:5]))} (largest logit "
            f"{self.raised_logits[0]:.2f}; random directions {self.random:.2f}, at most {self.random_high:.2f})"
        )


@dataclass(frozen=True, kw_only=True)
class DirectionProbe(Finding):
    """A probe for the side of the direction on which a word lies, at one place."""

    probe: ProbeResult
    random: float
    """mean accuracy of the same for random directions of the same place"""

    def sentence(self) -> str:
        return f"{self.probe}; for random directions {self.random:.3f}"


_PARTS = ("reading", "along", "probes", "erased", "steering", "targets")


@dataclass(frozen=True, kw_only=True)
class DirectionGeometry(Finding):
    """All that was measured of one direction. A part that is a text says why it is missing."""

    direction: NamedDirection
    reading: TokenReading | str
    along: WordsAlong
    probes: tuple[DirectionProbe, ...] | str
    erased: Erasure | str = "erasure was left out"
    """A linear probe for the two lists of words, before and after the linear information is erased (LEACE)."""
    steering: StrengthSweep | str
    targets: tuple[str, ...]
    """the tokens that the push is judged by"""

    @property
    def moves_output(self) -> bool | None:
        """Whether at the best harmless strength the targets rise by more than along every random direction; None where
        nothing was pushed."""
        if isinstance(self.steering, str):
            return None
        best = self.steering.best
        return best is not None and bool(
            self.steering.effect.low[best] > max(0.0, self.steering.random_effect[:, best].max())
        )

    def sentence(self) -> str:
        parts = (self.reading, self.along, self.erased, self.steering)
        text = ". ".join(str(part) for part in parts if isinstance(part, Finding))
        return f"{self.direction.name} ({self.direction.source}): {text}"

    def to_json(self) -> dict[str, Any]:
        """As of every finding; the vector itself lies beside it."""
        d = self.direction
        about = {"name": d.name, "source": d.source, "hook_point": d.hook_point, "towards": list(d.towards)}
        about |= {"away": list(d.away), "found": None if d.found is None else _without(d.found, "direction")}
        rest = {name: plain(getattr(self, name)) for name in _PARTS}
        return {"direction": about, **rest}


def measure_direction(
    model: Any,
    direction: NamedDirection,
    concepts: Sequence[Concept],
    *,
    targets: Sequence[str] = (),
    sentences: Sequence[str] = SENTENCES,
    interventions: bool = True,
    n_random: int = 9,
    seed: int = 0,
    progress: Progress | None = None,
) -> DirectionGeometry:
    """Measure one direction by the words of some lists. `targets`: words whose tokens a push is judged by, in place of
    those that it leads to or raises.

    Raises `ConfigError` without lists or for a direction 0, `MismatchError` on one of another width than its place,
    `NonFiniteError`, `UnknownNameError` for a place that the model does not have.
    """
    if not concepts:
        raise ConfigError("no lists of words were given; find_concepts([]) gives all")
    place = canonical_hook_point(direction.hook_point)
    made_of = (*direction.towards, *direction.away)
    concepts = [*concepts, *direction.own_words]
    steps = _Steps(progress, len(concepts) + 4)
    lists = _read(model, concepts, place, direction, sentences, steps)
    along = words_along(lists, place, direction.vector, made_of=made_of, seed=seed)
    steps.done("words")
    reading = or_why(lambda: read_tokens(model, place, direction.vector, seed=seed))
    steps.done("tokens")
    probes = or_why(lambda: _probes(lists, place, direction.vector, made_of, seed))
    steps.done("probes")
    erased = or_why(lambda: _erased(lists, place, direction, seed))
    steering, ids = "interventions were left out", []
    if interventions:
        ids = _target_ids(model, direction, targets, reading)
        steering = or_why(lambda: _push(model, place, direction, along.typical, ids, n_random, seed))
    steps.done("pushed")
    return DirectionGeometry(
        direction=direction,
        reading=reading,
        along=along,
        probes=probes,
        erased=erased,
        steering=steering,
        targets=tuple(token_strings(model, ids)) if ids else (),
    )


def read_tokens(
    model: Any,
    hook_point: str,
    vector: np.ndarray,
    *,
    top: int = N_TOKENS,
    n_random: int = N_RANDOM_READINGS,
    seed: int = 0,
) -> TokenReading:
    """The tokens that `vector [d_model]` raises and lowers most. Raises `ConfigError` at a place that is not in the
    residual stream: what lies there is not what the unembedding reads."""
    import torch

    if parse_hook_point(hook_point).suffix not in RESIDUAL_SUFFIXES:
        raise ConfigError(f"the unembedding reads the residual stream, and {hook_point} is not in it")
    rng = np.random.default_rng(derive_seed(seed, "random readings"))
    drawn = rng.standard_normal((n_random, len(vector)))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)  # a model without a final norm reads their length
    both = torch.from_numpy(np.concatenate([unit_vector(vector)[None], drawn])).float()
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
    )


def save_direction(
    found: DirectionGeometry,
    folder: Path,
    *,
    model_name: str,
    weight_hash: str,
    sentences: Sequence[str] = SENTENCES,
    parents: dict[str, str] | None = None,
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write `direction.json`, `direction.safetensors`, `along.parquet` and `layers.parquet`; returns the manifest."""
    import torch
    from safetensors.torch import save_file

    direction = found.direction
    config = {
        "model": model_name,
        "weight_hash": weight_hash,
        "direction": {"name": direction.name, "source": direction.source, "hook_point": found.along.hook_point},
        "lists": {each.name: list(each.words) for each in found.along.lists},
        "targets": list(found.targets),
        "sentences": list(sentences),
    }
    draft = Draft.open(folder, kind="direction", config=config, seed=seed, overwrite=overwrite)
    write_json(draft.path / "direction.json", found.to_json())
    save_file({"direction": torch.tensor(direction.vector)}, draft.path / "direction.safetensors")
    write_table(draft.path / "along.parquet", along_table(found))
    write_table(draft.path / "layers.parquet", layers_table(found))
    known = {f"model:{model_name}": weight_hash, **(parents or {})}
    return draft.finish(summary=summarise(found), parents=known, threads=threads)


def summarise(found: DirectionGeometry) -> dict[str, Any]:
    """What the overview and the command line say of it."""
    reading = found.reading if isinstance(found.reading, TokenReading) else None
    return {
        "direction": found.direction.name,
        "hook_point": found.along.hook_point,
        "set_apart": list(found.along.set_apart),
        "raised": list(reading.raised[:5]) if reading else [],
        "largest_logit": round(reading.raised_logits[0], 4) if reading else None,
        "random_logit_high": round(reading.random_high, 4) if reading else None,
        "share": found.along.share,
        "random_share_high": found.along.random_share_high,
        "moves_output": found.moves_output,
        "sentence": str(found),
    }


def along_table(found: DirectionGeometry) -> "pa.Table":
    """One row per word: `list, word, place, low, high, counted`."""
    import pyarrow as pa

    rows = [
        {
            "list": each.name,
            "word": word,
            **each.places.at(i).columns("place", "low", "high"),
            "counted": each.counted[i],
        }
        for each in found.along.lists
        for i, word in enumerate(each.words)
    ]
    return pa.Table.from_pylist(rows)


def layers_table(found: DirectionGeometry) -> "pa.Table":
    """One row per place: `layer, hook_point, chosen`, the probe beside its nulls, `random` among them."""
    import pyarrow as pa

    schema = {"layer": pa.int64(), "hook_point": pa.string(), "chosen": pa.bool_()}
    schema |= {column: pa.float64() for column in _PROBE_COLUMNS}
    rows = []
    for layer, each in enumerate(found.probes if isinstance(found.probes, tuple) else ()):
        p = each.probe
        numbers = (*p.accuracy, p.base_rate, p.control, p.selectivity, each.random)
        row = {"layer": layer, "hook_point": p.hook_point, "chosen": p.hook_point == found.along.hook_point}
        rows.append(row | dict(zip(_PROBE_COLUMNS, numbers, strict=True)))
    return pa.Table.from_pylist(rows, schema=pa.schema(list(schema.items())))


class _Steps:
    """Tells the progress bar what is done."""

    def __init__(self, progress: Progress | None, total: int):
        self._progress, self._total, self._n = progress, total, 0

    def done(self, what: str) -> None:
        self._n += 1
        if self._progress:
            self._progress(self._n, self._total, {"done": what})


def _read(
    model: Any,
    concepts: Sequence[Concept],
    place: str,
    direction: NamedDirection,
    sentences: Sequence[str],
    steps: _Steps,
) -> dict[str, WordActivations]:
    """Every list at every layer and at the direction's place."""
    places = residual_places(model)
    places += [place] * (place not in places)
    lists = {}
    for concept in concepts:
        lists[concept.name] = read_words(model, concept, sentences=sentences, hook_points=places)
        unit_vector(direction.vector, d=lists[concept.name].values[place].shape[-1])  # before the rest is read
        steps.done(concept.name)
    return lists


def _probes(
    lists: dict[str, WordActivations], place: str, vector: np.ndarray, made_of: Sequence[str], seed: int
) -> tuple[DirectionProbe, ...]:
    """On which side of the middle along the direction is a word? Half of the words are held out, and those that it was
    made of are left out."""
    words = np.array([word for acts in lists.values() for word in acts.concept.words])
    used = ~np.isin(words, list(made_of))
    places = next(iter(lists.values())).hook_points
    layers = {each: np.concatenate([acts.points(each) for acts in lists.values()])[used] for each in places}
    rng = np.random.default_rng(derive_seed(seed, "random probes"))

    def curve(along: np.ndarray) -> list[ProbeResult]:
        return probe_layers(layers, along > np.median(along), words[used], key=words[used], seed=seed)

    random = [curve(layers[place] @ rng.standard_normal(len(vector))) for _ in range(N_RANDOM_PROBES)]
    return tuple(
        DirectionProbe(probe=probe, random=float(np.mean([other[at].accuracy.estimate for other in random])))
        for at, probe in enumerate(curve(layers[place] @ vector))
    )


def _erased(lists: dict[str, WordActivations], place: str, direction: NamedDirection, seed: int) -> Erasure:
    """Erase the difference between the words of both sides; every second word is held out, as for the direction."""
    if not direction.own_words:
        raise ConfigError("erasure needs the two lists of words that a direction leads to and away from")
    sides = [lists[concept.name].points(place) for concept in direction.own_words]
    yes = np.repeat([True, False], [len(side) for side in sides])
    heldout = np.concatenate([np.arange(len(side)) % 2 == 1 for side in sides])
    return erasure(np.concatenate(sides), yes, heldout, seed=seed)


def _target_ids(
    model: Any, direction: NamedDirection, targets: Sequence[str], reading: TokenReading | str
) -> list[int]:
    """Last tokens of the words that were named, else of those that the direction leads to, else what it raises."""
    from interp.models.identity import tokenizer_of

    words = targets or direction.towards
    if words:
        return sorted({ids[-1] for ids in map(list, tokenizer_of(model).encode_batch([f" {word}" for word in words]))})
    return list(reading.raised_ids) if isinstance(reading, TokenReading) else []


def _push(
    model: Any, place: str, direction: NamedDirection, unit: float, ids: list[int], n_random: int, seed: int
) -> StrengthSweep:
    if not ids:
        raise ConfigError("no tokens to judge a push by: name some words as targets")
    return sweep_strengths(
        model, place, direction.vector, unit=unit, prompts=PROMPTS, targets=ids, text=TEXT, n_random=n_random, seed=seed
    )


def _without(found: Finding, name: str) -> dict[str, Any]:
    return {key: value for key, value in found.to_json().items() if key != name}
