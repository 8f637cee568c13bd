"""Feature absorption: a parent latent stops firing because a more specific latent has absorbed its direction.

A latent for "begins with S" may fire on every S-word except "short", because the latent for "short" itself adds the
direction of S. The code is sparser by one latent, and the parent latent has a hole (Chanin et al. 2024, arXiv
2409.14507).

1. A linear probe per class, on the activations, finds the direction of the class and the rows that carry it. Classes
   with a poor probe are left out; with too few classes the measurement is refused.
2. The *main* latents of a class are those of the best k-sparse probe: one, and further ones while each lifts F1 by
   `JUMP`.
3. Absorption is measured on rows of held-out groups (word types) that the probe classifies correctly, with the
   thresholds of the paper and of SAEBench. It is *full* where all main latents are silent, and the latent that adds
   most along the probe is aligned with it and adds at least `SHARE` of the whole projection. The *fraction* is the
   projection of up to three aligned latents, over the sum of that and the projection of the main latents.

Limits of the score. It is 0 on a dictionary without absorption and equals the planted rate where absorption is planted
(tests). On a real model it is a lower bound that depends on the probe and on the choice of main latents. Latents that
fire by accident count too, so compare with the score of an untrained SAE. The paper used models from 1B parameters and
dictionaries from 16k latents, where letters have latents of their own. In a small dictionary of a small model, a low
score more often means that no latent is general enough than that nothing is absorbed: read `main_f1` first.

One deviation: projections are of `x - b_dec`, the part that latents reconstruct, not of `x` with its large mean.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.geometry.probes import logistic_regression
from interp.progress import Progress
from interp.recording.store import Recording
from interp.seeds import derive_seed, make_generator
from interp.statistics import MIN_DOCUMENTS, Ends, poisson_weights, quantile_ends
from saes.evaluation.probing import fit_probe, mean_difference, sparse_columns, tokens_at
from saes.evaluation.scores import Absorption, AbsorptionConfig, ClassAbsorption
from saes.kinds.base import SAE

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

PROBE_F1 = 0.7
"""Smallest F1 on held-out groups with which the linear probe of a class is used."""
MIN_CLASSES = 3
"""Smallest number of classes with such a probe."""
MIN_POSITIVES = 10
"""Smallest number of rows of a class, in training and in test rows."""
JUMP = 0.03
"""Smallest rise of F1 for which another main latent is added."""
MAX_MAIN = 10
"""Largest number of main latents."""
COSINE_FULL, COSINE_PART = 0.025, 0.1
"""Smallest cosine of an absorbing latent with the probe: for full absorption, and for the fraction."""
SHARE = 0.4
"""Smallest share of the projection on the probe that absorbing latents add."""
N_ABSORBERS = 3
"""Largest number of absorbing latents that the fraction counts."""
PROBE_STRENGTH = 1.0
"""Inverse L2 penalty of the linear probes."""


class ClassedActivations(NamedTuple):
    """Activations with the class of each row."""

    x: Float[Tensor, "n d"]
    """`[n, d]`: activations"""
    label: Int[np.ndarray, " n"]
    """`[n]` int: index in `names`"""
    group: Int[np.ndarray, " n"]
    """`[n]` int: rows of one group (word type) are all training rows or all test rows"""
    names: list[str]
    """names of the classes"""


class _Probe(NamedTuple):
    """Linear probe of one class in one split, shared by all dictionaries."""

    direction: Tensor
    """`[d]`, unit"""
    f1: float
    right: np.ndarray
    """rows of the class that the probe classifies correctly, as indices into the split's test rows"""


class _Found(NamedTuple):
    """Absorption of one class in one dictionary and one split."""

    main: list[int]
    main_f1: float
    full: np.ndarray
    """`[n]` bool, per row"""
    fraction: np.ndarray
    """`[n]`, per row"""
    group: np.ndarray
    """`[n]`, per row"""


def measure_absorption(
    saes: Mapping[str, SAE],
    examples: ClassedActivations,
    config: AbsorptionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Absorption]:
    """Measure feature absorption in SAEs that read and write the hook point of `examples`.

    `saes` are the dictionaries by name.

    Each seed splits the groups anew. Returns the absorption by name of the SAE. Raises `MismatchError` for an SAE of
    another width and for a transcoder. Raises `ConfigError` when fewer than `MIN_CLASSES` classes have a linear probe
    of F1 `PROBE_F1`: absorption is then not defined.
    """
    config = config or AbsorptionConfig()
    seeds = config.seeds
    for name, sae in saes.items():
        if sae.d_in != examples.x.shape[1] or sae.d_out != sae.d_in or sae.hook_point_out not in ("", sae.hook_point):
            raise MismatchError(
                f"{name} ({sae}) does not read and write the hook point of the examples, of width "
                f"{examples.x.shape[1]}; choose an SAE that was trained there"
            )
    runs: dict[tuple[str, str], list[_Found]] = {}
    probes: dict[str, list[float]] = {}
    failed: dict[str, float] = {}
    for number, seed in enumerate(seeds):
        train, test = split_groups(examples, config.test_share, seed)
        probed, too_low = _probe_classes(train, test)
        failed |= too_low
        for name, sae in saes.items():
            columns = sparse_columns(sae, train.x), sparse_columns(sae, test.x)
            for label, probe in probed.items():
                runs.setdefault((name, label), []).append(_absorbed(sae, columns, train, test, label, probe))
        for label, probe in probed.items():
            probes.setdefault(label, []).append(probe.f1)
        if progress:
            progress(number + 1, len(seeds), {"classes": len(probed)})
    usable = [label for label in examples.names if len(probes.get(label, ())) == len(seeds)]
    _refuse_too_few(examples, usable, {**failed, **{n: float(np.mean(f1)) for n, f1 in probes.items()}})
    rows, groups = len(examples.x), len(np.unique(examples.group))
    f1 = {label: float(np.mean(probes[label])) for label in usable}
    return {name: _summarise({label: runs[name, label] for label in usable}, f1, failed, rows, groups) for name in saes}


def first_letters(
    recording: Recording,
    hook_point: str,
    vocabulary: Sequence[str],
    config: AbsorptionConfig | None = None,
) -> ClassedActivations:
    """Return words of the recorded text, labelled by their first letter, as examples for `measure_absorption`.

    `recording` holds the activations at `hook_point`; `vocabulary` is the text of every token.

    A word is a token of a space and at least two letters. At most `n_rows` are drawn, at most `per_word` of each word
    type. The paper prompts the model to spell single words; recorded text needs no run of the model.
    Raises `ConfigError` when the text holds no such tokens.
    """
    import pandas as pd

    letter = np.array([_letter(text) for text in vocabulary], np.int64)
    config = config or AbsorptionConfig()
    generator = make_generator(config.seeds[0], "absorption", "rows")
    parts = []
    for shard in range(recording.n_shards):
        rows = recording.real_rows(shard)
        word = torch.from_numpy(letter)[recording.token_shard(shard).tokens[rows].long()] >= 0
        parts.append(rows[word] + int(recording.shard_starts[shard]))
    rows = torch.cat(parts)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    token = tokens_at(recording, rows).token
    times_before = pd.Series(token).groupby(token).cumcount().to_numpy()
    chosen = np.flatnonzero(times_before < config.per_word)[: config.n_rows]
    if not len(chosen):
        raise ConfigError(
            f"{recording.folder} holds no words (tokens of a space and letters), which the first-letter task needs; "
            "record a model whose tokens are words"
        )
    order = rows[torch.from_numpy(chosen)].sort().values
    token = tokens_at(recording, order).token
    names = [chr(ord("a") + i) for i in range(26)]
    return ClassedActivations(
        recording.read_rows(recording.check_hook_point(hook_point), order), letter[token], token, names
    )


def split_groups(
    examples: ClassedActivations, test_share: float, seed: int
) -> tuple[ClassedActivations, ClassedActivations]:
    """Split examples into training and test rows, so that no group is in both."""
    groups = np.unique(examples.group)
    drawn = np.random.default_rng(derive_seed(seed, "absorption", "split")).random(len(groups)) < test_share
    test = drawn[np.searchsorted(groups, examples.group)]
    return _part(examples, ~test), _part(examples, test)


def _probe_classes(train: ClassedActivations, test: ClassedActivations) -> tuple[dict[str, _Probe], dict[str, float]]:
    """Return the probes of classes whose F1 on test rows is at least `PROBE_F1`, and the F1 of the other classes."""
    probed, too_low = {}, {}
    scale = float((train.x - train.x.mean(0)).square().mean().sqrt().clamp_min(1e-12))
    x_train, x_test = ((part.x / scale).numpy() for part in (train, test))
    for index, name in enumerate(train.names):
        yes, expected = train.label == index, test.label == index
        if min(yes.sum(), expected.sum()) < MIN_POSITIVES:
            continue
        fitted = logistic_regression(PROBE_STRENGTH, balanced=True, std=False, tol=1e-3).fit(x_train, yes)
        predicted = fitted.decision_function(x_test) > 0
        f1 = f1_score(predicted, expected)
        if f1 < PROBE_F1:
            too_low[name] = f1
            continue
        direction = torch.from_numpy(fitted.steps[-1][1].coef_[0]).float()
        probed[name] = _Probe(direction / direction.norm(), f1, np.flatnonzero(predicted & expected))
    return probed, too_low


@torch.no_grad()
def _absorbed(
    sae: SAE,
    columns: "tuple[csr_matrix, csr_matrix]",
    train: ClassedActivations,
    test: ClassedActivations,
    label: str,
    probe: _Probe,
) -> _Found:
    """Measure absorption on every correctly classified row; `columns` are activations of training and test rows."""
    index = train.names.index(label)
    main, main_f1 = main_latents(*columns, train.label == index, test.label == index)
    x = test.x[torch.from_numpy(probe.right)]
    directions = sae.decoder_directions.float().cpu()
    along = directions @ probe.direction
    cosines = along / directions.norm(dim=1).clamp_min(1e-12)
    whole = (x - sae.decode(torch.zeros(1, sae.d_sae, device=sae.device)).cpu()) @ probe.direction
    acts = sae.encode(x.to(sae.device)).cpu()
    return _Found(main, main_f1, *absorption_of(acts, along, cosines, whole, main), test.group[probe.right])


def absorption_of(
    acts: Float[Tensor, "n d_sae"],
    along: Float[Tensor, " d_sae"],
    cosines: Float[Tensor, " d_sae"],
    whole: Float[Tensor, " n"],
    main: Sequence[int],
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return full absorption `[n]` bool and the absorption fraction `[n]` of rows with activations `acts [n, d_sae]`.

    `along [d_sae]`: projection of each latent's decoder row on the unit probe. `cosines [d_sae]`: cosine of the two.
    `whole [n]`: projection of each row's `x - b_dec` on the probe. `main`: the main latents of the class.
    """
    adds = acts * along
    mains = torch.tensor(list(main), dtype=torch.int64)
    top = adds.max(dim=1)
    silent = (acts[:, mains].abs() < 1e-8).all(1)
    full = silent & (whole > 0) & (cosines[top.indices] >= COSINE_FULL) & (top.values >= SHARE * whole)
    others = (cosines >= COSINE_PART).clone()
    others[mains] = False
    absorbers = (adds * others).clamp_min(0).topk(min(N_ABSORBERS, adds.shape[1]), dim=1).values.sum(1)
    written = adds[:, mains].sum(1)
    missing = (whole - written).clamp_min(0)
    part = torch.minimum(absorbers, missing)
    fraction = torch.where(written <= 0, torch.ones_like(written), part / (part + written).clamp_min(1e-12))
    none = (written >= whole) | (absorbers < SHARE * whole) | (whole <= 0)
    return full.numpy(), torch.where(none, torch.zeros_like(written), fraction).double().numpy()


def main_latents(
    train: "csr_matrix", test: "csr_matrix", yes: Bool[np.ndarray, " n_train"], expected: Bool[np.ndarray, " n_test"]
) -> tuple[list[int], float]:
    """Return the main latents of a class, and the F1 on test rows of the probe that reads them.

    `train` and `test` are activations as CSR matrices `[n, d_sae]`; `yes` and `expected` (bool) mark the rows of the
    class in each. Latents are added in order of their mean difference on training rows, while each lifts the F1 there
    by `JUMP`.
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
    predicted = fit_probe(train[:, chosen].toarray(), label, test[:, chosen].toarray(), strength=1.0) > 0
    return chosen.tolist(), f1_score(predicted, expected)


def f1_score(predicted: Bool[np.ndarray, " n"], true: Bool[np.ndarray, " n"]) -> float:
    """Return the harmonic mean of precision and recall, `[n]` bool both; 1 is perfect, 0 has no true positive."""
    return float(2 * (predicted & true).sum() / max(predicted.sum() + true.sum(), 1))


def _refuse_too_few(examples: ClassedActivations, usable: list[str], f1: dict[str, float]) -> None:
    if len(usable) >= min(MIN_CLASSES, len(examples.names)):
        return
    listed = ", ".join(f"{name} {score:.2f}" for name, score in sorted(f1.items())) or "no class has enough rows"
    raise ConfigError(
        f"a linear probe detects {len(usable)} of {len(examples.names)} classes in the activations with F1 of "
        f"{PROBE_F1} or more, {MIN_CLASSES} are needed ({listed}); absorption cannot be measured on classes that the "
        "model does not represent: record more text, or another layer"
    )


def _summarise(
    by_class: dict[str, list[_Found]], probe_f1: dict[str, float], failed: dict[str, float], n_rows: int, n_groups: int
) -> Absorption:
    by_seed = np.mean([[run.full.mean() for run in runs] for runs in by_class.values()], axis=0)
    classes = [
        ClassAbsorption(
            name=name,
            probe_f1=probe_f1[name],
            main=tuple(runs[0].main),
            main_f1=float(np.mean([run.main_f1 for run in runs])),
            n=sum(len(run.full) for run in runs),
            full=float(np.mean([run.full.mean() for run in runs])),
            fraction=float(np.mean([run.fraction.mean() for run in runs])),
        )
        for name, runs in by_class.items()
    ]
    ends = {score: _ends(by_class, score) for score in ("full", "fraction")}
    return Absorption(
        full=float(np.mean([row.full for row in classes])),
        fraction=float(np.mean([row.fraction for row in classes])),
        main_f1=float(np.mean([row.main_f1 for row in classes])),
        probe_f1=float(np.mean([row.probe_f1 for row in classes])),
        intervals={score: interval for score, interval in ends.items() if interval is not None},
        by_seed=by_seed.tolist(),
        classes=classes,
        left_out={name: score for name, score in failed.items() if name not in by_class},
        n_rows=n_rows,
        n_groups=n_groups,
    )


def _ends(by_class: dict[str, list[_Found]], score: str) -> Ends | None:
    """Return a bootstrap interval over groups, or None with too few groups.

    In one replicate a group has the same weight in every class and split.
    """
    n_groups = len(np.unique(np.concatenate([run.group for runs in by_class.values() for run in runs])))
    if n_groups < MIN_DOCUMENTS:
        return None
    means = []
    for runs in by_class.values():
        for run in runs:
            groups, index = np.unique(run.group, return_inverse=True)
            weights = poisson_weights(groups.tolist())[1:][:, index]
            with np.errstate(invalid="ignore", divide="ignore"):
                means.append(weights @ getattr(run, score).astype(float) / weights.sum(1))
    drawn = np.array(means)
    counts = np.isfinite(drawn).any(0)  # replicates in which some group counts
    return quantile_ends(np.nanmean(drawn[:, counts], axis=0), n_groups)


def _part(examples: ClassedActivations, chosen: np.ndarray) -> ClassedActivations:
    return examples._replace(
        x=examples.x[torch.from_numpy(chosen)], label=examples.label[chosen], group=examples.group[chosen]
    )


def _letter(text: str) -> int:
    """Return the alphabet index (a is 0) of the first letter of a token that is a word; -1 for any other token."""
    return ord(text[1].lower()) - ord("a") if re.fullmatch(r" [A-Za-z]{2,}", text) else -1
