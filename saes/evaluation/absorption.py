"""Feature absorption: does the feature for a class keep silent where a more special one has taken its direction over?

"Begins with S" may have a latent that fires on every word with S but "short", because the latent for "short" adds the
direction of S itself: sparser by one, and a hole in the meaning of the first (Chanin et al. 2024, arXiv 2409.14507).

1. a linear probe of each class on the activations says which rows carry it and along which direction; classes that it
   cannot tell are left out, and where it can tell too few, the measurement is refused;
2. the *main* latents of a class are those of the best k-sparse probe: one, and more as long as each lifts F1 by `JUMP`;
3. on rows of held-out groups (word types) that the probe gets right, absorption is *full* where all main latents are
   silent while the latent that adds most along the probe is aligned with it and adds at least `SHARE` of the whole; the
   *fraction* is what up to three aligned latents add, over that and what the main ones add (thresholds of the paper and
   of SAEBench).

What the score can say. 0 on a dictionary whose parents never keep silent, the planted rate where they do (tests). On a
real model it is a lower bound that rests on the probe and on the choice of main latents: latents that fire by accident
count as well, so an untrained SAE stands beside it. The paper used models from 1B parameters and dictionaries from 16k
latents, where letters have latents of their own. In a small dictionary of a small model a low score more likely says
that no latent is that general than that nothing is absorbed: read `main_f1` first.

One deviation: projections are of `x - b_dec`, the part that latents make up, not of `x` with its large mean.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.geometry.probes import logistic_regression
from interp.progress import Progress
from interp.recording.store import Recording
from interp.results import Record, Result
from interp.runtime import derive_seed, make_generator
from interp.statistics import MIN_DOCUMENTS, Ends, poisson_weights, quantile_ends
from saes.evaluation.compare import align
from saes.evaluation.probing import fit_probe, mean_difference, sparse_columns
from saes.evaluation.probing_tasks import tokens_at
from saes.kinds.base import SAE

PROBE_F1 = 0.7
"""F1 on held-out groups that the linear probe of a class needs."""
MIN_CLASSES = 3
"""Classes that need it, at least."""
MIN_POSITIVES = 10
"""Rows of a class on either side."""
JUMP = 0.03
MAX_MAIN = 10
COSINE_FULL, COSINE_PART = 0.025, 0.1
SHARE = 0.4
N_ABSORBERS = 3
PROBE_STRENGTH = 1.0

CAVEAT = (
    "absorption was defined on models from 1B parameters with 16k latents and more; with fewer, read main_f1 first: "
    "where no latent stands for a class, nothing can be absorbed, and accidents count (compare the untrained SAE)"
)


class Examples(NamedTuple):
    """Rows that belong to one class each."""

    x: Tensor
    """`[n, d]`"""
    label: np.ndarray
    """`[n]` int: place in `names`"""
    group: np.ndarray
    """`[n]` int: rows of one group (word type) are never on both sides of the split"""
    names: list[str]


@dataclass(frozen=True, kw_only=True)
class ClassAbsorption:
    """One class, the mean over seeds (splits)."""

    name: str
    probe_f1: float
    """of the linear probe on held-out groups"""
    main: tuple[int, ...]
    """main latents in the first split"""
    main_f1: float
    """of the k-sparse probe that reads them, on held-out groups"""
    n: int
    """held-out rows that the probe gets right, over all splits"""
    full: float
    """share of them that are fully absorbed"""
    fraction: float
    """mean absorption fraction, 0 to 1"""


@dataclass(frozen=True, kw_only=True)
class Absorption(Result):
    """One dictionary: means over classes, then over seeds. 0 is none."""

    full: float
    fraction: float
    main_f1: float
    """how well main latents stand for their classes; near chance, absorption means nothing"""
    probe_f1: float
    intervals: dict[str, Ends]
    """of `full` and `fraction`, 95 %, over held-out groups; empty with fewer than `bootstrap.MIN_DOCUMENTS`"""
    by_seed: list[float]
    """`full` of each split"""
    classes: list[ClassAbsorption]
    left_out: dict[str, float]
    """class -> F1 of the probe that could not tell it (in some split)"""
    n_rows: int
    n_groups: int
    caveat: str = CAVEAT

    def to_records(self) -> list[Record]:
        """Return one row per class: `name, probe_f1, main, main_f1, n, full, fraction`."""
        return [dict(vars(each)) for each in self.classes]

    def headline(self) -> str:
        """Give the means and their intervals."""
        ends = {k: f" [{v[0]:.1%}, {v[1]:.1%}]" for k, v in self.intervals.items() if v is not None}
        return (
            f"Absorption (0 is none): {self.full:.1%}{ends.get('full', '')} of {self.n_rows:,} rows fully, mean "
            f"fraction {self.fraction:.1%}{ends.get('fraction', '')}; main latents "
            f"F1 {self.main_f1:.2f}. {self.caveat}".rstrip()
        )

    def shown(self) -> list[Record]:
        """Return the classes with most absorption."""
        return sorted(self.to_records(), key=lambda row: -row["full"])


class _Probe(NamedTuple):
    """What one split knows of one class, the same for all dictionaries."""

    direction: Tensor
    """`[d]`, unit"""
    f1: float
    right: np.ndarray
    """held-out rows of the class that the probe gets right (places in the split's test rows)"""


class _Found(NamedTuple):
    """One class, one dictionary, one split."""

    main: list[int]
    main_f1: float
    full: np.ndarray
    fraction: np.ndarray
    group: np.ndarray


def measure_absorption(
    saes: Mapping[str, SAE],
    examples: Examples,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    test_share: float = 0.4,
    progress: Progress | None = None,
) -> dict[str, Absorption]:
    """Measure SAEs that read and write the place of `examples`; each seed is a split of the groups.

    Raises `MismatchError` (widths, a transcoder), `ConfigError` when a linear probe tells fewer than `MIN_CLASSES` of
    the classes: then nothing can be said of their absorption.
    """
    for name, sae in saes.items():
        if sae.d_in != examples.x.shape[1] or sae.d_out != sae.d_in or sae.hook_point_out not in ("", sae.hook_point):
            raise MismatchError(f"{name} ({sae}) does not read and write the place of the examples")
    found: dict[tuple[str, str], list[_Found]] = {}
    probes: dict[str, list[float]] = {}
    failed: dict[str, float] = {}
    for number, seed in enumerate(seeds):
        train, test = split_groups(examples, test_share, seed)
        told, short = _probe_classes(train, test)
        failed |= short
        for name, sae in saes.items():
            columns = sparse_columns(sae, train.x), sparse_columns(sae, test.x)
            for label, each in told.items():
                found.setdefault((name, label), []).append(_absorbed(sae, columns, train, test, label, each))
        for label, each in told.items():
            probes.setdefault(label, []).append(each.f1)
        if progress:
            progress(number + 1, len(seeds), {"classes": len(told)})
    kept = [label for label in examples.names if len(probes.get(label, ())) == len(seeds)]
    _refuse_if_untold(examples, kept, {**failed, **{n: float(np.mean(f1)) for n, f1 in probes.items()}})
    rows, groups = len(examples.x), len(np.unique(examples.group))
    f1 = {label: float(np.mean(probes[label])) for label in kept}
    return {name: _summarise({label: found[name, label] for label in kept}, f1, failed, rows, groups) for name in saes}


def first_letters(
    recording: Recording,
    hook_point: str,
    vocabulary: Sequence[str],
    *,
    n_rows: int = 12_000,
    per_word: int = 4,
    seed: int = 0,
) -> Examples:
    """Words of the text by their first letter: tokens that are a space and letters, at most `per_word` of each type.

    The paper asks the model to spell single words; here the words stand in the recorded text, which needs no model.
    Raises `ConfigError` when there are none.
    """
    letter = np.array([_letter(text) for text in vocabulary], np.int64)
    generator = make_generator(seed, "absorption", "rows")
    parts = []
    for shard in range(recording.n_shards):
        rows = recording.real_rows(shard)
        word = torch.from_numpy(letter)[recording.token_shard(shard).tokens[rows].long()] >= 0
        parts.append(rows[word] + int(recording.shard_starts[shard]))
    rows = torch.cat(parts)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    token = tokens_at(recording, rows).token
    chosen = np.flatnonzero(_times_before(token) < per_word)[:n_rows]
    if not len(chosen):
        raise ConfigError(f"{recording.folder} holds no words; first letters are asked of text in letters")
    order = rows[torch.from_numpy(chosen)].sort().values
    token = tokens_at(recording, order).token
    names = [chr(ord("a") + i) for i in range(26)]
    return Examples(recording.read_rows(recording.check_hook_point(hook_point), order), letter[token], token, names)


def split_groups(examples: Examples, test_share: float, seed: int) -> tuple[Examples, Examples]:
    """Training and test rows; every group is on one side."""
    groups = np.unique(examples.group)
    drawn = np.random.default_rng(derive_seed(seed, "absorption", "split")).random(len(groups)) < test_share
    test = drawn[np.searchsorted(groups, examples.group)]
    return _part(examples, ~test), _part(examples, test)


def table_of(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Plain text, one dictionary a line, of what `measure_absorption` found, as dicts."""
    head = ["", "full", "95 %", "fraction", "95 %", "F1 of main latents", "F1 of probe", "classes"]
    return "\n".join(align([head, *([name, *_cells(each)] for name, each in found.items())]))


def _probe_classes(train: Examples, test: Examples) -> tuple[dict[str, _Probe], dict[str, float]]:
    """The classes that a linear probe tells on the test rows, and the F1 of the others."""
    told, short = {}, {}
    scale = float((train.x - train.x.mean(0)).square().mean().sqrt().clamp_min(1e-12))
    seen, asked = ((part.x / scale).numpy() for part in (train, test))
    for place, name in enumerate(train.names):
        yes, expected = train.label == place, test.label == place
        if min(yes.sum(), expected.sum()) < MIN_POSITIVES:
            continue
        model: Any = logistic_regression(PROBE_STRENGTH, balanced=True, each=False, tol=1e-3).fit(seen, yes)
        said = model.decision_function(asked) > 0
        f1 = f1_score(said, expected)
        if f1 < PROBE_F1:
            short[name] = f1
            continue
        direction = torch.from_numpy(model[-1].coef_[0]).float()
        told[name] = _Probe(direction / direction.norm(), f1, np.flatnonzero(said & expected))
    return told, short


@torch.no_grad()
def _absorbed(sae: SAE, columns: tuple[Any, Any], train: Examples, test: Examples, label: str, probe: _Probe) -> _Found:
    """Full absorption and absorption fraction of every right row; `columns` are the features of both sides."""
    place = train.names.index(label)
    main, main_f1 = main_latents(*columns, train.label == place, test.label == place)
    x = test.x[torch.from_numpy(probe.right)]
    along = sae.decoder_directions.float() @ probe.direction
    cosines = along / sae.decoder_directions.float().norm(dim=1).clamp_min(1e-12)
    whole = (x - sae.decode(torch.zeros(1, sae.d_sae))) @ probe.direction
    return _Found(main, main_f1, *absorption_of(sae.encode(x), along, cosines, whole, main), test.group[probe.right])


def absorption_of(
    acts: Tensor, along: Tensor, cosines: Tensor, whole: Tensor, main: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """`(full [n] bool, fraction [n])` of rows with feature activations `acts [n, d_sae]`.

    `along [d_sae]` is what one unit of each latent adds along the probe, `cosines [d_sae]` its alignment with it,
    `whole [n]` what there is along the probe in all.
    """
    adds = acts * along
    mains = torch.tensor(list(main), dtype=torch.int64)
    top = adds.max(dim=1)
    silent = (acts[:, mains].abs() < 1e-8).all(1)
    full = silent & (whole > 0) & (cosines[top.indices] >= COSINE_FULL) & (top.values >= SHARE * whole)
    others = (cosines >= COSINE_PART).clone()
    others[mains] = False
    absorbers = (adds * others).clamp_min(0).topk(min(N_ABSORBERS, adds.shape[1]), dim=1).values.sum(1)
    own = adds[:, mains].sum(1)
    missing = (whole - own).clamp_min(0)
    part = torch.minimum(absorbers, missing)
    fraction = torch.where(own <= 0, torch.ones_like(own), part / (part + own).clamp_min(1e-12))
    none = (own >= whole) | (absorbers < SHARE * whole) | (whole <= 0)
    return full.numpy(), torch.where(none, torch.zeros_like(own), fraction).double().numpy()


def main_latents(train: Any, test: Any, yes: np.ndarray, expected: np.ndarray) -> tuple[list[int], float]:
    """The latents that stand for a class, and the F1 on test rows of the probe that reads them.

    `train` and `test` are features as CSR matrices, `yes` and `expected` (bool) which of their rows are of the class.
    Chosen on training rows, by the largest mean difference first, as long as the next one lifts F1 by `JUMP`.
    """
    label = yes.astype(np.int8)
    order = np.argsort(-mean_difference(train, label), kind="stable")[:MAX_MAIN]
    best, k = -1.0, 0
    for size in range(1, len(order) + 1):
        columns = train[:, order[:size]].toarray()
        f1 = f1_score(fit_probe(columns, label, columns, strength=1.0) > 0, yes)
        if f1 < best + JUMP:
            break
        best, k = f1, size
    chosen = order[:k]
    said = fit_probe(train[:, chosen].toarray(), label, test[:, chosen].toarray(), strength=1.0) > 0
    return chosen.tolist(), f1_score(said, expected)


def f1_score(said: np.ndarray, true: np.ndarray) -> float:
    """Harmonic mean of precision and recall of `said [n]` bool; 0 where nothing is right."""
    return float(2 * (said & true).sum() / max(said.sum() + true.sum(), 1))


def _refuse_if_untold(examples: Examples, kept: list[str], f1: dict[str, float]) -> None:
    if len(kept) >= min(MIN_CLASSES, len(examples.names)):
        return
    listed = ", ".join(f"{name} {score:.2f}" for name, score in sorted(f1.items())) or "no class has enough rows"
    raise ConfigError(
        f"a linear probe tells {len(kept)} of {len(examples.names)} classes from the activations with F1 of {PROBE_F1} "
        f"or more, {MIN_CLASSES} are needed ({listed}); absorption cannot be measured on what the model does not "
        "represent: record more text, or another layer"
    )


def _summarise(
    found: dict[str, list[_Found]], probe_f1: dict[str, float], failed: dict[str, float], n_rows: int, n_groups: int
) -> Absorption:
    by_seed = np.mean([[each.full.mean() for each in runs] for runs in found.values()], axis=0)
    classes = [
        ClassAbsorption(
            name=name,
            probe_f1=probe_f1[name],
            main=tuple(runs[0].main),
            main_f1=float(np.mean([each.main_f1 for each in runs])),
            n=sum(len(each.full) for each in runs),
            full=float(np.mean([each.full.mean() for each in runs])),
            fraction=float(np.mean([each.fraction.mean() for each in runs])),
        )
        for name, runs in found.items()
    ]
    ends = {score: _ends(found, score) for score in ("full", "fraction")}
    return Absorption(
        full=float(np.mean([each.full for each in classes])),
        fraction=float(np.mean([each.fraction for each in classes])),
        main_f1=float(np.mean([each.main_f1 for each in classes])),
        probe_f1=float(np.mean([each.probe_f1 for each in classes])),
        intervals={score: each for score, each in ends.items() if each is not None},
        by_seed=by_seed.tolist(),
        classes=classes,
        left_out={name: score for name, score in failed.items() if name not in found},
        n_rows=n_rows,
        n_groups=n_groups,
    )


def _ends(found: dict[str, list[_Found]], score: str) -> Ends | None:
    """Bootstrap over groups: a group counts as often in every class and split. None where they are few."""
    n_groups = len(np.unique(np.concatenate([each.group for runs in found.values() for each in runs])))
    if n_groups < MIN_DOCUMENTS:
        return None
    means = []
    for runs in found.values():
        for each in runs:
            groups, place = np.unique(each.group, return_inverse=True)
            weights = poisson_weights(groups.tolist())[1:][:, place]
            with np.errstate(invalid="ignore", divide="ignore"):
                means.append(weights @ getattr(each, score).astype(float) / weights.sum(1))
    return quantile_ends(np.nanmean(means, axis=0), n_groups)


def _part(examples: Examples, keep: np.ndarray) -> Examples:
    return examples._replace(
        x=examples.x[torch.from_numpy(keep)], label=examples.label[keep], group=examples.group[keep]
    )


def _letter(text: str) -> int:
    """Place of the first letter of a word that begins here; -1 for any other token."""
    return ord(text[1].lower()) - ord("a") if re.fullmatch(r" [A-Za-z]{2,}", text) else -1


def _times_before(values: np.ndarray) -> np.ndarray:
    """How often each value came before, at every place."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    first = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    starts = np.maximum.accumulate(np.where(first, np.arange(len(values)), 0))
    times = np.empty(len(values), np.int64)
    times[order] = np.arange(len(values)) - starts
    return times


def _cells(each: Mapping[str, Any]) -> list[str]:
    cells = []
    for score in ("full", "fraction"):
        ends = each["intervals"].get(score)
        cells += [f"{each[score]:.3f}", f"{ends[0]:.3f}-{ends[1]:.3f}" if ends else ""]
    return [*cells, f"{each['main_f1']:.2f}", f"{each['probe_f1']:.2f}", str(len(each["classes"]))]
