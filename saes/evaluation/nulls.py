"""Null dictionaries: trained like the dictionary that is judged, but without one half of what learning should give.

    dictionaries = train_nulls(sae, recording, folder, BatchTopKConfig(d_sae=4608, k=32), TrainConfig())
    scores = {name: NullScore(heldout=..., in_model=...) for name in dictionaries}

A dictionary whose decoder or encoder stays random reconstructs, labels and probes nearly as well as a trained one
(Korznikov et al. 2026, arXiv 2602.14111). What such a half reaches is no evidence of features. So the same kind of
dictionary, of the same size, is trained four times on the same batches: whole (`WHOLE`), and once for every null of
`saes.training.config.NULLS`. Principal components and coordinates, cut at the same L0, stand beside them.

The whole one is what nulls are compared with, since the dictionary itself may have seen more tokens. Torch-free but for
`train_nulls`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import ConfigError
from interp.progress import Progress
from interp.results import Record, Result, whole_table
from interp.statistics import Interval
from interp.view import View
from saes.evaluation.scores import InModel
from saes.features.label_shares import LabelShare
from saes.kinds.config import BatchTopKConfig, SAEConfig
from saes.training.config import NULLS, TrainConfig
from saes.training.stored import Reconstruction

if TYPE_CHECKING:
    from interp.recording.store import Recording
    from saes.kinds.base import SAE

FEWEST_LABELLED = 20
"""Fewest labelled features of a null whose mean score is compared: a few good labels say little."""
WHOLE = "trained-alike"
"""Name of the dictionary that is trained whole, on the same batches as its nulls."""


@dataclass(frozen=True, kw_only=True)
class NullScore:
    """Scores of a null, or of the whole one, on the held-out documents of the dictionary that is judged."""

    heldout: Reconstruction
    in_model: InModel | None
    """None where the dictionary itself was not spliced into the model"""
    labels: LabelShare | None = None
    """None for planted rows"""


@dataclass(frozen=True, kw_only=True)
class AgainstNulls:
    """One score of the whole one beside those of its nulls."""

    score: str
    whole: Interval[float]
    """over documents or concepts; its ends are NaN where there is no interval, as with few documents"""
    nulls: dict[str, float]
    more_is_better: bool = True

    @property
    def best(self) -> str:
        """Name of the best null."""
        return self.best_of(self.nulls)

    def best_of(self, names: Iterable[str]) -> str:
        """Return the name of the best of some nulls."""
        return (max if self.more_is_better else min)(names, key=self.nulls.__getitem__)

    def reaching(self) -> list[str]:
        """Return the nulls and baselines that the interval reaches, or the value where it has no interval."""
        estimate, *ends = self.whole
        low, high = (estimate if isnan(end) else end for end in ends)
        return [name for name, null in self.nulls.items() if not (low > null if self.more_is_better else high < null)]

    @property
    def above(self) -> bool:
        """True where the whole one's interval lies on the better side of every null and baseline."""
        return bool(self.nulls) and not isnan(self.whole.low) and not self.reaching()

    @property
    def verdict(self) -> str:
        """The judgement of the score: does it say anything about features?"""
        if not self.nulls:
            return "no null was measured"
        if self.above:
            return "better than all"
        if not (reaching := self.reaching()):
            return "better, no interval: undecided"
        if without_features := [name for name in reaching if name in (*NULLS, "untrained")]:
            return f"says nothing: {self.best_of(without_features)} reaches it"
        return f"no better than {self.best_of(reaching)}"


@dataclass(frozen=True, kw_only=True)
class DictionaryAgainstNulls(Result):
    """Every score of a dictionary's whole one beside its nulls."""

    scores: tuple[AgainstNulls, ...]

    def view(self) -> View:
        n = sum(score.above for score in self.scores)
        yield f"{n} of {len(self.scores)} scores are better than those of every null and baseline"

    def to_records(self) -> list[Record]:
        """Return one row per score: the whole one, its nulls, the best of the other baselines, and the verdict."""
        return [self._record(score) for score in self.scores]

    def _record(self, score: AgainstNulls) -> Record:
        row: Record = {"score": score.score, **score.whole.columns(WHOLE, "low", "high")}
        row |= {name: score.nulls.get(name) for name in NULLS}
        if others := [name for name in score.nulls if name not in NULLS]:
            best = score.best_of(others)
            row |= {"best baseline": f"{score.nulls[best]:.3g} ({best})"}
        return row | {"verdict": score.verdict}

    def table(self) -> str:
        """Return a plain-text table, one line per score."""
        return "\n".join(whole_table(self.to_records()))


def reconstruction_scores(scores: Mapping[str, NullScore]) -> Iterator[AgainstNulls]:
    """Yield FVU and the loss that is recovered, for the result of `train_nulls` and the baselines, `WHOLE` among them.

    A loss that a null does not have (zero ablation costs nothing) is left out.
    """
    whole, nulls = scores[WHOLE], {name: score for name, score in scores.items() if name != WHOLE}
    yield AgainstNulls(
        score="FVU (0 is perfect)",
        whole=_interval(whole.heldout.fvu, whole.heldout.intervals.get("fvu")),
        nulls={name: score.heldout.fvu for name, score in nulls.items()},
        more_is_better=False,
    )
    for field, words in {
        "ce_recovered": "loss recovered, against zeros",
        "ce_recovered_from_mean": "loss recovered, against the mean",
    }.items():
        values = {name: getattr(score.in_model, field, None) for name, score in scores.items()}
        known = {name: value for name, value in values.items() if value is not None}
        if whole.in_model is not None and len(known) == len(scores):
            ends = whole.in_model.intervals.get(field)
            yield AgainstNulls(score=words, whole=_interval(known.pop(WHOLE), ends), nulls=known)


def label_scores(scores: Mapping[str, NullScore]) -> Iterator[AgainstNulls]:
    """Yield the share of features with a label and the mean score of labels.

    Without nulls that have few labels, or in the share no feature that fired.
    """
    labels = {name: score.labels for name, score in scores.items() if score.labels is not None}
    if WHOLE not in labels:
        return
    for words, field in {"features with a label": "labelled", "labels, held-out accuracy": "score"}.items():
        found: dict[str, Interval[float]] = {name: getattr(share, field) for name, share in labels.items()}
        whole = found.pop(WHOLE)
        few = {name for name, share in labels.items() if field == "score" and share.n_labelled < FEWEST_LABELLED}
        few |= {name for name, value in found.items() if isnan(value.estimate)}
        nulls = {name: value.estimate for name, value in found.items() if name not in few}
        if not isnan(whole.estimate):
            yield AgainstNulls(score=words, whole=whole, nulls=nulls)


def _interval(estimate: float, ends: tuple[float, float] | None) -> Interval[float]:
    return Interval(estimate, *(ends or (nan, nan)))


def null_config(sae: "SAE", stored: SAEConfig | None, l0: float) -> SAEConfig:
    """Return the kind to train: that of the dictionary, or BatchTopK of its size and L0 where its kind is not known.

    Raises `ConfigError` for a dictionary of several hook points.
    """
    if len(sae.hook_points) > 1:
        raise ConfigError("null dictionaries are trained at one hook point; this one has several")
    if sae.hook_point_out:
        raise ConfigError("null dictionaries are autoencoders; this one reconstructs another hook point")
    return stored or BatchTopKConfig(d_sae=sae.d_sae, k=max(1, min(round(l0), sae.d_sae)))


def train_nulls(
    sae: "SAE",
    recording: "Recording",
    folder: Path,
    config: SAEConfig,
    train: TrainConfig,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> "dict[str, SAE]":
    """Train the whole one and the nulls of a dictionary on one stream of batches, and return them by name.

    Args:
        sae: the dictionary that is judged; its hook point is read.
        recording: rows to train on.
        folder: of their checkpoints and weights. An interrupted call continues there.
        config: kind and size (`null_config`).
        train: tokens, seed and held-out share of all of them.
        device: as for `saes.training.train.train`.
        progress: called with tokens of those that all have seen.
    Raises:
        ConfigError: a kind that is given by its loss, which has no halves to freeze.
    """
    from saes.training.run import Job
    from saes.training.train import train_many
    from saes.weights.folder import load_sae

    jobs = {WHOLE: Job(sae=config, train=replace(train, null="none"), folder=folder / "whole")}
    jobs |= {null: Job(sae=config, train=replace(train, null=null), folder=folder / null) for null in NULLS}
    reached = dict.fromkeys((job.folder for job in jobs.values()), 0)
    for job, metrics in train_many(recording, sae.hook_point, list(jobs.values()), device=device):
        reached[job.folder] = metrics.tokens
        if progress:
            progress(min(reached.values()), train.tokens, {"fvu": metrics.fvu, "null": job.train.null})
    return {name: load_sae(job.folder).to(sae.device) for name, job in jobs.items()}
