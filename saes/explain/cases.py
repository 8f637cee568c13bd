"""From a features folder to the cases: for every chosen feature what is shown, what is held out, what it is silent on.

A case depends on its feature, the settings and the seed alone, so that the same feature in another selection meets the
same questions, and finds their replies.

The questions that a scorer is asked about one feature.

*Detection*: here are contexts; in which does the feature fire? *Fuzzing*: here are contexts on which it fires, with
some tokens marked; in which are the marks right? (Paulo et al. 2024, arXiv 2410.13928.) Wrong marks lie on tokens of
the same context where the feature is silent, as many and in the same pattern, so that only the explanation tells them
apart. A context meets a scorer with right and with wrong marks, but never twice in one request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from interp.dictionary import Dictionary
from interp.errors import ConfigError, UsageError
from interp.recording.store import Recording
from interp.runtime import derive_seed
from saes.explain.config import ExplainConfig
from saes.explain.contexts import (
    SPARE,
    Candidates,
    Context,
    context_of,
    random_pool,
    read_table,
    real_tokens,
    silent_contexts,
    split_contexts,
)
from saes.explain.tokens import LABEL_SOURCE
from saes.features.schema import DENSE, TOP

Scorer = Literal["detection", "fuzzing"]
CROP = 8
"""Tokens cut off a fuzzing context, at random left or right: the middle of the context would give right marks away."""


@dataclass(frozen=True)
class Trial:
    """One context to judge."""

    context: Context
    marks: tuple[bool, ...]
    """which tokens are shown as marked; none for detection"""
    truth: bool
    """the right answer: it fires here (detection), the marks are right (fuzzing)"""


@dataclass(frozen=True)
class Case:
    """Everything that is asked about one feature."""

    feature: int
    statistics_label: str
    maximum: float
    """its largest activation"""
    shown: list[Context]
    detection: list[list[Trial]]
    """one list per request"""
    fuzzing: list[list[Trial]]

    def requests(self, scorer: Scorer) -> list[list[Trial]]:
        return self.detection if scorer == "detection" else self.fuzzing


def detection_trials(
    firing: Sequence[Context], silent: Sequence[Context], *, per_request: int, generator: np.random.Generator
) -> list[list[Trial]]:
    """Firing and silent contexts in random order, cut into requests."""
    trials = [
        Trial(c, (False,) * len(c.tokens), truth) for truth, side in ((True, firing), (False, silent)) for c in side
    ]
    return cut_requests(trials, per_request, generator)


def fuzzing_trials(firing: Sequence[Context], *, per_request: int, generator: np.random.Generator) -> list[list[Trial]]:
    """Every context twice, with right and with wrong marks; those without room for wrong marks are left out."""
    pairs = []
    for context in firing:
        context = crop(context, generator)
        wrong = wrong_marks(context, generator)
        if wrong is not None:
            pairs.append((Trial(context, context.marked, True), Trial(context, wrong, False)))
    rounds = [[pair[(number + turn) % 2] for number, pair in enumerate(pairs)] for turn in (0, 1)]
    return [request for each in rounds for request in cut_requests(each, per_request, generator)]


def cut_requests(trials: Sequence[Trial], per_request: int, generator: np.random.Generator) -> list[list[Trial]]:
    """Shuffled, and cut into as few requests as hold them, of nearly equal size."""
    if not trials:
        return []
    order = generator.permutation(len(trials))
    parts = np.array_split(order, -(-len(trials) // per_request))
    return [[trials[i] for i in part] for part in parts]


def crop(context: Context, generator: np.random.Generator) -> Context:
    """The context without `CROP` tokens, its peak kept: some go at the left, the others at the right."""
    n, peak = len(context.tokens), int(np.argmax(context.activations))
    spare = min(CROP, n - 1)
    low, high = max(0, spare - (n - 1 - peak)), min(spare, peak)
    left = int(generator.integers(low, high + 1))
    kept = slice(left, n - (spare - left))
    return Context(context.row, context.tokens[kept], context.activations[kept], context.group)


def wrong_marks(context: Context, generator: np.random.Generator) -> tuple[bool, ...] | None:
    """As many marks as the right ones on tokens where the feature is silent; None where there are too few such tokens.

    The pattern of the right marks is moved as a whole where it fits, else the marks are scattered.
    """
    right, silent = np.array(context.marked), np.array(context.activations) == 0
    places = np.flatnonzero(right)
    shifts = [s for s in range(-int(places[0]), len(right) - int(places[-1])) if silent[places + s].all()]
    if shifts:
        chosen = places + int(generator.choice(shifts))
    elif silent.sum() >= len(places):
        chosen = generator.choice(np.flatnonzero(silent), len(places), replace=False)
    else:
        return None
    marks = np.zeros(len(right), bool)
    marks[chosen] = True
    return tuple(marks.tolist())


FEWEST = 4
"""contexts held out, and random ones on which it is silent: with fewer there is no score"""
N_NEAREST = 5
"""nearest features whose contexts serve as hard negatives"""


class Source(NamedTuple):
    """What contexts are drawn from."""

    folder: Path
    """a features artefact"""
    window: int
    """tokens on each side of a peak there"""
    dictionary: Dictionary
    recording: Recording
    hook_point: str
    vocabulary: Sequence[str]
    """text of every token id"""


class Evidence(NamedTuple):
    """The rows of one feature and the split of its contexts."""

    row: dict[str, Any]
    shown: list[Context]
    heldout: list[Context]
    peak_tokens: np.ndarray
    generator: np.random.Generator


def choose_features(
    folder: Path, *, features: Sequence[int] = (), top: int | None = None, sample: int | None = None, seed: int = 0
) -> list[int]:
    """Those named; or the `top` most frequent that are not dense; or `sample` drawn from all that fire, by `seed`.

    Only a random sample speaks for the whole dictionary. Raises `ConfigError` unless exactly one way is chosen.
    """
    import pyarrow.parquet as pq

    numbers = [n for n in (top, sample) if n is not None]
    if bool(features) + len(numbers) != 1 or any(n < 1 for n in numbers):
        raise ConfigError("choose features in one way: --features 12 57, --top 50 or --sample 50")
    table = pq.read_table(folder / "features.parquet", columns=["feature", "density", "n_fired"]).to_pydict()
    number, density, fired = (np.array(table[name]) for name in ("feature", "density", "n_fired"))
    if features:
        unknown = sorted(set(features) - set(number.tolist()))
        if unknown:
            raise UsageError(f"features {unknown} are not in {folder.name!r}: its features are 0 to {number.max()}")
        return sorted(set(features))
    if top is not None:
        usable = np.flatnonzero((fired > 0) & (density <= DENSE))
        return sorted(number[usable[np.lexsort((number[usable], -fired[usable]))][:top]].tolist())
    alive = number[fired > 0]
    generator = np.random.default_rng(derive_seed(seed, "explained features"))
    return sorted(generator.permutation(alive)[:sample].tolist())


def build_cases(
    source: Source, features: Sequence[int], config: ExplainConfig, *, seed: int
) -> tuple[list[Case], dict[int, str]]:
    """(cases, feature -> why there is none): a feature that fires in too few places cannot be scored."""
    skipped: dict[int, str] = {}
    evidence = {}
    for feature, found in _evidence(source.folder, features, config, seed).items():
        if len(found.heldout) < FEWEST or len(found.shown) < 2:
            n = len(found.shown) + len(found.heldout)
            skipped[feature] = f"fires in only {n} different contexts"
        elif config.label_from == "token-statistics" and found.row["label_source"] != LABEL_SOURCE:
            skipped[feature] = f"its label comes from {found.row['label_source']}"
        else:
            evidence[feature] = found
    if not evidence:
        return [], skipped
    silent = silent_contexts(
        source.dictionary,
        source.recording,
        source.hook_point,
        _candidates(source, evidence, config, seed),
        source.vocabulary,
        window=source.window,
        n_random=config.heldout,
        n_hard=config.heldout,
    )
    cases = []
    for feature, found in evidence.items():
        random, hard = silent[feature]
        if len(random) < FEWEST:
            skipped[feature] = "is silent in too few contexts: it fires nearly everywhere"
        else:
            cases.append(_case(feature, found, [*random, *hard], config))
    return cases, skipped


def _case(feature: int, found: Evidence, silent: list[Context], config: ExplainConfig) -> Case:
    drawing = {"per_request": config.per_request, "generator": found.generator}
    return Case(
        feature=feature,
        statistics_label=found.row["label"] if found.row["label_source"] == LABEL_SOURCE else "",
        maximum=found.row["max_activation"],
        shown=found.shown,
        detection=detection_trials(found.heldout, silent, **drawing),
        fuzzing=fuzzing_trials(found.heldout, **drawing),
    )


def _evidence(folder: Path, features: Sequence[int], config: ExplainConfig, seed: int) -> dict[int, Evidence]:
    columns = ["feature", "label", "label_source", "max_activation", "neighbours"]
    rows = {row["feature"]: row for row in read_table(folder, "features", features, columns)}
    examples: dict[int, list[dict[str, Any]]] = {feature: [] for feature in features}
    for row in read_table(folder, "examples", features):
        examples[row["feature"]].append(row)
    found = {}
    for feature in features:
        generator = np.random.default_rng(derive_seed(seed, "contexts", feature))
        contexts = [context_of(row) for row in examples[feature]]
        shown, heldout = split_contexts(contexts, shown=config.shown, heldout=config.heldout, generator=generator)
        peaks = np.array([row["token_ids"][row["peak"]] for row in examples[feature]], np.int64)
        found[feature] = Evidence(rows[feature], shown, heldout, np.unique(peaks), generator)
    return found


def _candidates(source: Source, evidence: dict[int, Evidence], config: ExplainConfig, seed: int) -> list[Candidates]:
    rows, tokens = real_tokens(source.recording)
    pool = random_pool(rows, generator=np.random.default_rng(derive_seed(seed, "random contexts")))
    nearest = {feature: found.row["neighbours"][:N_NEAREST] for feature, found in evidence.items()}
    theirs: dict[int, list[int]] = {}
    wanted = {n for near in nearest.values() for n in near}
    for row in read_table(source.folder, "examples", wanted, ["feature", "group", "row"]):
        if row["group"] == TOP:
            theirs.setdefault(row["feature"], []).append(row["row"])
    most = SPARE * config.heldout
    candidates = []
    for feature, found in evidence.items():
        same = rows[np.isin(tokens, found.peak_tokens)]
        near = np.array([row for n in nearest[feature] for row in theirs.get(n, ())], np.int64)
        draw = found.generator.permutation
        candidates.append(Candidates(feature, draw(pool), draw(same)[:most], draw(near)[:most]))
    return candidates
