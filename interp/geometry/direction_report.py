"""Report of one direction: tokens, word lists, probes, erasure and steering, as an artefact.

Each part is compared with random directions or shuffled labels:

1. the tokens whose logits the direction raises, computed from the weights (`interp.lenses.logit_lens`);
2. the lists of words that it separates, and its share in each list's plane (`along`);
3. the layers at which a linear probe predicts on which side of the median a held-out word lies (`probes`);
4. the effect of steering along it on its target tokens, and the cost on unrelated text (`steering`). The targets are
   tokens of the words that the direction points to. For a direction without such words they are the tokens of part 1,
   so steering then tests if the model does what the unembedding alone would do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_json, write_table
from interp.errors import ConfigError
from interp.geometry.erasure import Erasure, erasure
from interp.geometry.points import DirectionConfig, Finding, plain, unit_vector
from interp.geometry.probes import NamedDirection, ProbeResult, probe_layers
from interp.geometry.report import PROMPTS, TEXT, or_why
from interp.geometry.separation import WordsAlong, words_along
from interp.geometry.steering import StrengthSweep, sweep_strengths
from interp.geometry.words import SENTENCES, Concept, WordActivations, read_words, residual_hook_points
from interp.lenses.logit_lens import logit_effects
from interp.models.adapter import token_strings
from interp.models.hooked import HookedModel
from interp.names import RESIDUAL_SUFFIXES, canonical_hook_point, parse_hook_point
from interp.progress import Progress
from interp.results import Record
from interp.runtime import derive_seed

if TYPE_CHECKING:
    import pyarrow as pa

N_TOKENS = 10
N_RANDOM_READINGS = 99
N_RANDOM_PROBES = 2
_PROBE_COLUMNS = ("accuracy", "low", "high", "base_rate", "control", "selectivity", "random")


@dataclass(frozen=True, kw_only=True)
class TokenReading(Finding):
    """Tokens whose logits a direction changes most, as if the direction alone were the final residual."""

    raised: tuple[str, ...]
    raised_ids: tuple[int, ...]
    raised_logits: tuple[float, ...]
    """nats above the mean over the vocabulary, largest first"""
    lowered: tuple[str, ...]
    lowered_logits: tuple[float, ...]
    """nats relative to the mean over the vocabulary, lowest first"""
    random: float
    """largest logit of a random direction, mean over random directions"""
    random_high: float
    """largest logit of any random direction"""

    def sentence(self) -> str:
        return (
            f"read through the unembedding it raises {', '.join(map(repr, self.raised[:5]))} (largest logit "
            f"{self.raised_logits[0]:.2f}; random directions {self.random:.2f}, at most {self.random_high:.2f})"
        )

    def to_records(self) -> list[Record]:
        """Return one row per token: `token, logit`, and the largest logits of random directions."""
        tokens = zip((*self.raised, *self.lowered), (*self.raised_logits, *self.lowered_logits), strict=True)
        null = {"random": self.random, "random_high": self.random_high}
        return [{"token": token, "logit": logit, **null} for token, logit in tokens]


@dataclass(frozen=True, kw_only=True)
class DirectionProbe(Finding):
    """A probe at one hook point that predicts on which side of the median along the direction a word lies."""

    probe: ProbeResult
    random: float
    """mean accuracy of the same probe for random directions at the same hook point"""

    def sentence(self) -> str:
        return f"{self.probe}; for random directions {self.random:.3f}"

    def to_records(self) -> list[Record]:
        """Return one row: the probe's, and `random`."""
        return [self.probe.to_records()[0] | {"random": self.random}]


_PARTS = ("reading", "along", "probes", "erased", "steering", "targets")


@dataclass(frozen=True, kw_only=True)
class DirectionGeometry(Finding):
    """All measurements of one direction. A part that is a string gives the reason why it is missing."""

    direction: NamedDirection
    reading: TokenReading | str
    along: WordsAlong
    probes: tuple[DirectionProbe, ...] | str
    erased: Erasure | str = "erasure was left out"
    """Linear probes for the two lists of words, before and after the linear information is erased (LEACE)."""
    steering: StrengthSweep | str
    targets: tuple[str, ...]
    """tokens whose log-odds measure the effect of steering"""

    @property
    def moves_output(self) -> bool | None:
        """True if steering along the direction raises the targets more than every random direction does.

        The strength is chosen on half of the prompts and judged on the other. None where nothing was steered.
        """
        return None if isinstance(self.steering, str) else self.steering.moves_targets

    def sentence(self) -> str:
        parts = (self.reading, self.along, self.erased, self.steering)
        text = ". ".join(str(part) for part in parts if isinstance(part, Finding))
        return f"{self.direction.name} ({self.direction.source}): {text}"

    def to_records(self) -> list[Record]:
        """Return one row per list of words along the direction."""
        return self.along.to_records()

    def to_json(self) -> dict[str, Any]:
        """Return plain values as every finding does, without the vector, which is saved in its own file."""
        d = self.direction
        about = {"name": d.name, "source": d.source, "hook_point": d.hook_point, "towards": list(d.towards)}
        about |= {"away": list(d.away), "found": None if d.found is None else _without(d.found, "direction")}
        rest = {name: plain(getattr(self, name)) for name in _PARTS}
        return {"direction": about, **rest}


def measure_direction(
    model: HookedModel,
    direction: NamedDirection,
    concepts: Sequence[Concept],
    config: DirectionConfig | None = None,
    *,
    sentences: Sequence[str] = SENTENCES,
    progress: Progress | None = None,
    **settings: Any,
) -> DirectionGeometry:
    """Measure one direction on the words of some lists.

    `settings` are fields of `DirectionConfig`, which replace those of `config` (by default its defaults).
    Raises `ConfigError` without lists or for a zero direction, `MismatchError` on a direction of another width than its
    hook point, `NonFiniteError`, `UnknownNameError` for a hook point that the model does not have.
    """
    config = replace(config or DirectionConfig(), **settings)
    seed = config.seed
    if not concepts:
        raise ConfigError("no lists of words were given; find_concepts([]) gives all")
    hook_point = canonical_hook_point(direction.hook_point)
    made_of = (*direction.towards, *direction.away)
    concepts = [*concepts, *direction.own_words]
    steps = _Steps(progress, len(concepts) + 4)
    lists = _read(model, concepts, hook_point, direction, sentences, steps)
    along = words_along(lists, hook_point, direction.vector, made_of=made_of, seed=seed)
    steps.done("words")
    reading = or_why(lambda: read_tokens(model, hook_point, direction.vector, seed=seed))
    steps.done("tokens")
    probes = or_why(lambda: _probes(lists, hook_point, direction.vector, made_of, seed))
    steps.done("probes")
    erased = or_why(lambda: _erased(lists, hook_point, direction, seed))
    steering, ids = "interventions were left out", []
    if config.interventions:
        ids = _target_ids(model, direction, config.targets, reading)
        steering = or_why(lambda: _steer(model, hook_point, direction, along.typical, ids, config.n_random, seed))
    steps.done("steered")
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
    model: HookedModel,
    hook_point: str,
    vector: np.ndarray,
    *,
    top: int = N_TOKENS,
    n_random: int = N_RANDOM_READINGS,
    seed: int = 0,
) -> TokenReading:
    """Return the tokens that `vector [d_model]` raises and lowers most.

    Raises `ConfigError` at a hook point outside the residual stream, as the unembedding does not read its values.
    """
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
    """Write `direction.json`, `direction.safetensors`, `along.parquet` and `layers.parquet`; return the manifest."""
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
    """Return the summary for the overview and the command line."""
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
    """Return one row per word: `list, word, place, low, high, counted`; `place` is its position along the direction."""
    import pyarrow as pa

    rows = [{"list": each.name, **row} for each in found.along.lists for row in each.to_records()]
    return pa.Table.from_pylist(rows)


def layers_table(found: DirectionGeometry) -> "pa.Table":
    """Return one row per hook point: `layer, hook_point, chosen`, the probe with its baselines and `random`."""
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
    """Counter that reports finished steps to the progress bar."""

    def __init__(self, progress: Progress | None, total: int):
        self._progress, self._total, self._n = progress, total, 0

    def done(self, what: str) -> None:
        self._n += 1
        if self._progress:
            self._progress(self._n, self._total, {"done": what})


def _read(
    model: HookedModel,
    concepts: Sequence[Concept],
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
    layers = {each: np.concatenate([acts.points(each) for acts in lists.values()])[used] for each in hook_points}
    rng = np.random.default_rng(derive_seed(seed, "random probes"))

    def curve(along: np.ndarray) -> list[ProbeResult]:
        return probe_layers(layers, along > np.median(along), words[used], key=words[used], seed=seed)

    random = [curve(layers[hook_point] @ rng.standard_normal(len(vector))) for _ in range(N_RANDOM_PROBES)]
    return tuple(
        DirectionProbe(probe=probe, random=float(np.mean([other[at].accuracy.estimate for other in random])))
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


def _target_ids(
    model: HookedModel, direction: NamedDirection, targets: Sequence[str], reading: TokenReading | str
) -> list[int]:
    """Return target tokens: of `targets`, else the direction's own words, else the tokens it promotes."""
    from interp.models.identity import tokenizer_of

    words = targets or direction.towards
    if words:
        return sorted({ids[-1] for ids in map(list, tokenizer_of(model).encode_batch([f" {word}" for word in words]))})
    return list(reading.raised_ids) if isinstance(reading, TokenReading) else []


def _steer(
    model: HookedModel,
    hook_point: str,
    direction: NamedDirection,
    unit: float,
    ids: list[int],
    n_random: int,
    seed: int,
) -> StrengthSweep:
    if not ids:
        raise ConfigError("steering needs target tokens to measure its effect: name some words as targets")
    return sweep_strengths(
        model,
        hook_point,
        direction.vector,
        unit=unit,
        prompts=PROMPTS,
        targets=ids,
        text=TEXT,
        n_random=n_random,
        seed=seed,
    )


def _without(found: Finding, name: str) -> dict[str, Any]:
    return {key: value for key, value in found.to_json().items() if key != name}
