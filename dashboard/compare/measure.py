"""The cosine of two features, and their activations on the same tokens, computed from the weights.

    compare(workspace, "demo:540", "second:12")

is the read `/api/compare`; the page shows the same in parts.

The null of a pair is made of real pairs: each of the two with every other latent of the other's dictionary. A cosine is
also compared with those of nearest neighbours, since a pair that a search found is not random. Answers are cached until
a dictionary is made again. Torch is imported by the functions that need it.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboard.compare._data import NamedFeature, about, named, stored_pair
from interp.errors import ConfigError, MismatchError, WorkbenchError
from interp.nulls import ALPHA, p_from_null
from interp.recording.recorded import Recorded
from interp.workspace import Workspace
from saes.evaluation.counterparts import ALIKE, SHUFFLED, CounterpartRow, Counterparts

if TYPE_CHECKING:
    from torch import Tensor

    from saes.kinds.base import SAE

TOKENS = 8192
"""Recorded tokens on which two latents are compared."""
LEAST = 5
"""Tokens on which a latent must fire for its correlation to be measured."""
N_SAMPLE = 1024
"""Latents whose nearest neighbour is computed."""
CLOSER = "share of latents whose nearest neighbour is at least as close"
RANDOM_PAIRS = "each with every other latent of the other's dictionary"


@dataclass(frozen=True)
class Measure:
    """One number about a pair, with its null."""

    name: str
    value: float
    null: float | None
    """95th percentile of the magnitude of the null; of a count, the number expected by chance."""
    p: float | None
    """Fraction of the null that reaches the value, with the value counted among it; None without draws."""
    of: str
    """The null, in words."""


@dataclass(frozen=True)
class MeasuredPair:
    """Two features, measured."""

    measures: list[Measure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What was not measured, and why."""
    verdict: str = ""


@dataclass(frozen=True, eq=False)
class Latents:
    """Decoder directions of an SAE, loaded for comparison."""

    directions: "Tensor"
    """`[n, d]`: the vectors that its latents write, of norm 1."""
    weight_hash: str
    space: str
    """Name of the space of `directions`."""
    hook_point: str
    sae: "SAE"


def compare(workspace: Workspace, a: str, b: str) -> dict[str, object]:
    """Return everything known of two features: the answer of `/api/compare`."""
    first, second = named(workspace, a), named(workspace, b)
    measured = pair(workspace, first, second)
    return {
        "a": first,
        "b": second,
        "measures": measured.measures,
        "missing": measured.missing,
        "verdict": measured.verdict,
        "about": {"a": about(workspace, first), "b": about(workspace, second)},
    }


def pair(workspace: Workspace, a: NamedFeature, b: NamedFeature) -> MeasuredPair:
    """Measure two features: the cosine of their directions, and their activations on the same tokens.

    A part that cannot be measured is a sentence in `missing`.
    """
    try:
        measured = _pair(str(workspace.root), a, b, _version(workspace, a), _version(workspace, b))
    except WorkbenchError as error:
        measured = MeasuredPair(missing=[_reason(error)])
    stored = stored_pair(workspace, a, b)
    if stored is None:
        return measured
    made, row = stored
    by_word = _by_word(made, row)
    said = measured.verdict or _verdict_by_word(by_word)
    return replace(measured, measures=[*measured.measures, *by_word], verdict=said)


def _by_word(made: Counterparts, row: CounterpartRow) -> list[Measure]:
    """Return what is stored of two features that fire on the same words, of any two models."""
    on = f"words of {made.settings.corpus}, documents that did not choose the pair"
    shuffled = f"pairs chosen in the same way with {SHUFFLED}"
    measures = [Measure(f"correlation of activations on {on}", row.correlation, made.null_high, None, shuffled)]
    if row.agreement is not None:
        of = "another feature's counterpart"
        measures.append(Measure("agreement, balanced accuracy, both ways", row.agreement, row.null, None, of))
    return measures


def _verdict_by_word(measures: list[Measure]) -> str:
    first = measures[0]
    beyond = first.null is not None and first.value > first.null
    alike = "They fire on the same words" if first.value > ALIKE and beyond else "They fire on other words"
    return f"{alike}: correlation {first.value:.2f}; chosen with {SHUFFLED} up to {first.null:.2f}."


def _reason(error: WorkbenchError) -> str:
    return str(error).splitlines()[0]


def _version(workspace: Workspace, feature: NamedFeature) -> str:
    return workspace.manifest("sae", feature.sae).content_hash if feature.sae else ""


@lru_cache(maxsize=4)
def _latents(root: str, name: str, version: str) -> Latents:
    from saes.evaluation.matching import unit
    from saes.features.sources import writes_to_residual
    from saes.weights.folder import load_sae

    if not name:
        raise ConfigError("cosine and correlation are measured of features of SAEs; one of the two is of none")
    sae = load_sae(Workspace(root).path("sae", name))
    directions = sae.decoder_directions.detach().float()
    if directions.ndim != 2 or len(sae.hook_points) > 1:
        raise ConfigError(f"{name} reads several hook points: its latents have no single direction to compare")
    space = "residual" if writes_to_residual(sae) else sae.hook_point_out or sae.hook_point
    return Latents(unit(directions), sae.metadata.weight_hash, space, sae.hook_point, sae)


@lru_cache(maxsize=64)
def _pair(root: str, a: NamedFeature, b: NamedFeature, version_a: str, version_b: str) -> MeasuredPair:
    latents_a, latents_b = (_latents(root, x.sae, version) for x, version in ((a, version_a), (b, version_b)))
    _check_model(a, b, latents_a, latents_b)
    measures: list[Measure] = []
    missing: list[str] = []
    if latents_a.space == latents_b.space and latents_a.directions.shape[1] == latents_b.directions.shape[1]:
        measures += _cosines(a, b, latents_a, latents_b)
    else:
        missing.append(f"no cosine: {a.name} writes to {latents_a.space}, {b.name} to {latents_b.space}")
    try:
        measures += _activations(Workspace(root), a, b, latents_a, latents_b)
    except WorkbenchError as error:
        missing.append(_reason(error))
    return MeasuredPair(measures, missing, verdict(a, b, measures))


def _check_model(a: NamedFeature, b: NamedFeature, latents_a: Latents, latents_b: Latents) -> None:
    """Raise `MismatchError` for dictionaries of other weights; by the model's name where a hash was not recorded."""
    known = latents_a.weight_hash and latents_b.weight_hash
    if (latents_a.weight_hash != latents_b.weight_hash) if known else (not a.model or a.model != b.model):
        raise MismatchError(
            f"{a.name} and {b.name} belong to models of other weights, so that their directions share no basis; "
            "`workbench compare features` pairs such features by the words on which they fire"
        )


def _same(a: NamedFeature, b: NamedFeature) -> bool:
    return (a.dictionary, a.index) == (b.dictionary, b.index)


def _measure(name: str, value: float, null: np.ndarray, of: str) -> Measure:
    """Return a measure with the 95 % level of the magnitudes of its null."""
    p = float(p_from_null(value, null, alternative="two-sided"))
    return Measure(name, value, float(np.quantile(np.abs(null), 0.95)), p, of)


def values_of_other_pairs(a: NamedFeature, b: NamedFeature, along_b: np.ndarray, along_a: np.ndarray) -> np.ndarray:
    """Return the null: values of `a` with b's dictionary, and of `b` with a's, without the pair itself.

    `along_b [n_b]` are those of `a`, `along_a [n_a]` those of `b`.
    """
    parts: list[np.ndarray] = []
    for values, partner, feature, far in ((along_b, b, a, b.dictionary), (along_a, a, b, a.dictionary)):
        keep = np.ones(len(values), bool)
        keep[partner.index] = False
        if feature.dictionary == far:
            keep[feature.index] = False
        parts.append(values[keep])
    null = np.concatenate(parts)
    return null[np.isfinite(null)]


def _cosines(a: NamedFeature, b: NamedFeature, latents_a: Latents, latents_b: Latents) -> list[Measure]:
    """Return the cosine of two directions with random pairs, and the share of nearest neighbours as close."""
    along_b = (latents_b.directions @ latents_a.directions[a.index]).numpy()
    along_a = (latents_a.directions @ latents_b.directions[b.index]).numpy()
    null = values_of_other_pairs(a, b, along_b, along_a)
    value, near = float(along_b[b.index].clip(-1, 1)), _nearest(a, b, latents_a, latents_b)
    closer, of = float((near >= value).mean()), f"{len(near):,} latents of {a.dictionary}, nearest in {b.dictionary}"
    return [
        _measure("cosine of the directions they write", value, null, RANDOM_PAIRS),
        Measure(CLOSER, closer, None, None, of),
    ]


def _nearest(a: NamedFeature, b: NamedFeature, latents_a: Latents, latents_b: Latents) -> np.ndarray:
    """Return the largest cosine of latents of a's dictionary with one of b's, with another of the same, `[n]`."""
    n = len(latents_a.directions)
    rows = np.random.default_rng(0).permutation(n)[:N_SAMPLE]
    cosines = latents_a.directions[rows] @ latents_b.directions.T
    if a.dictionary == b.dictionary:
        cosines[range(len(rows)), rows] = -1
    return cosines.max(1).values.numpy()


def _activations(
    workspace: Workspace, a: NamedFeature, b: NamedFeature, latents_a: Latents, latents_b: Latents
) -> list[Measure]:
    """Return correlation and joint firing on recorded tokens. Raises `ConfigError` where nothing was recorded."""
    recording = _recording(workspace, latents_a, latents_b)
    x, y = (_acts(latents, recording) for latents in (latents_a, latents_b))
    mine, theirs = (acts[:, [at]].toarray().ravel().astype(np.float64) for acts, at in ((x, a.index), (y, b.index)))
    n, fired = len(mine), [int((values > 0).sum()) for values in (mine, theirs)]
    on = f"{n:,} tokens of the recording {recording.folder.name}"
    for feature, count in zip((a, b), fired, strict=True):
        if count < LEAST:
            raise ConfigError(f"no correlation: {feature.name} fires on {count} of {on}, {LEAST} are needed")
    along_b, along_a = correlations(y, mine), correlations(x, theirs)
    null = values_of_other_pairs(a, b, along_b, along_a)
    measures = [_measure(f"correlation of activations on {on}", float(along_b[b.index]), null, RANDOM_PAIRS)]
    both = float(((mine > 0) & (theirs > 0)).sum())
    chance = fired[0] * fired[1] / n
    title = f"tokens on which both fire, of {n:,} ({fired[0]:,} and {fired[1]:,})"
    return [*measures, Measure(title, both, chance, None, "the number expected if they fired independently")]


def _recording(workspace: Workspace, latents_a: Latents, latents_b: Latents) -> Any:
    """Return the newest stored recording of both hook points by a model of these weights."""
    points = {latents_a.hook_point, latents_b.hook_point}
    for made in workspace.values(Recorded):
        known = points <= set(made.settings.hook_points) and not made.live
        if known and made.settings.weight_hash == latents_a.weight_hash:
            return _open(str(made.folder), made.about.content_hash)
    raise ConfigError(f"no correlation: no stored recording of this model has {' and '.join(sorted(points))}")


@lru_cache(maxsize=2)
def _open(folder: str, version: str) -> Any:
    from interp.recording.store import Recording

    return Recording(folder)


@lru_cache(maxsize=6)
def _acts(latents: Latents, recording: Any) -> Any:
    """Return the activations `[n, d_sae]` of a dictionary as a sparse matrix.

    The order of a recording is seeded: those of every dictionary are on the same tokens.
    """
    import torch
    from scipy.sparse import csr_matrix

    batches = recording.shuffled([latents.hook_point], batch_size=TOKENS, group_rows=TOKENS)
    x = next(iter(batches)).activations[latents.hook_point]
    with torch.no_grad():
        acts = latents.sae.encode_sparse(x)
    active = acts.values > 0
    ends = np.concatenate([[0], active.sum(1).cumsum(0).numpy()])
    return csr_matrix((acts.values[active].numpy(), acts.indices[active].numpy(), ends), (len(x), latents.sae.d_sae))


def correlations(acts: Any, values: np.ndarray) -> np.ndarray:
    """Return the correlation of `values [n]` with every column of sparse `acts [n, m]`; NaN for a constant column."""
    n = len(values)
    mean = np.asarray(acts.mean(0)).ravel().astype(np.float64)
    product = np.asarray(acts.T @ (values - values.mean())).ravel() / n
    spread = np.sqrt(np.maximum(np.asarray(acts.multiply(acts).sum(0)).ravel() / n - mean**2, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, product / (spread * values.std()), np.nan)


def verdict(a: NamedFeature, b: NamedFeature, measures: list[Measure]) -> str:
    """Return one sentence about a pair: its first measure against random pairs, then against nearest neighbours."""
    if _same(a, b):
        return "They are the same."
    first = next((measure for measure in measures if measure.p is not None), None)
    if first is None or first.p is None or first.null is None:
        return ""
    name = "cosine" if first.name.startswith("cosine") else "correlation"
    numbers = f"{name} {first.value:.2f}; random pairs reach {first.null:.2f}"
    closer = next((measure.value for measure in measures if measure.name == CLOSER), None)
    if first.p > ALPHA:
        return f"No more alike than random pairs: {numbers}."
    if first.value < 0:
        return f"They point apart: {numbers}."
    if closer is None:
        return f"More alike than random pairs: {numbers}."
    if closer > ALPHA:
        return f"Somewhat alike, not one feature: {numbers}, and {closer:.0%} of features have as near a neighbour."
    return f"Nearer than {1 - closer:.0%} of nearest neighbours: {numbers}."
