"""Shares of features that carry a label by rule, and how good those labels are, for several dictionaries at once.

    shares = label_shares({"demo": sae, "untrained": other}, recording, model)
    shares["demo"].labelled          # share of the features that fired, with its interval

Labels are those of the features artefact (`saes/features/_labels.py`): chosen on one half of the documents, scored on
the other, and kept only above what other features' readings reach there. Random directions are labelled too, since most
of a residual is its token; so a share says something only beside that of dictionaries that learned nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.progress import Progress
from interp.seeds import derive_seed
from interp.statistics import Interval, proportion_interval, t_interval
from saes.features.schema import N_EFFECTS

if TYPE_CHECKING:
    from interp.models.hooked import HookedModel
    from interp.recording.store import Recording
    from saes.features._firings import FeatureStatistics
    from saes.kinds.base import SAE

WITHOUT = ("none", "dense", "rare", "dead")
"""Kinds of labels that name nothing."""
WINDOW = 1
"""Tokens that are kept around a firing; no text is shown here."""


@dataclass(frozen=True, kw_only=True)
class LabelShare:
    """Labels of one dictionary."""

    n_fired: int
    """Features with enough firings for a label."""
    n_labelled: int
    """Those with a label."""
    labelled: Interval[float]
    """Share of them with a label, 0 to 1; Wilson's interval"""
    score: Interval[float]
    """Mean balanced accuracy of the labels on held-out firings, over labelled features: 0.5 at chance, 1 without error.
    NaN without a label, ends NaN with a single one."""


def label_shares(
    dictionaries: "Mapping[str, SAE]",
    recording: "Recording",
    model: "HookedModel",
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, LabelShare]:
    """Label the features of every dictionary in one pass over a recording.

    Raises `MismatchError` for another width than the recording's, `NonFiniteError` on NaN or infinity.
    """
    import torch

    from interp.models.adapter import token_strings
    from saes.features._firings import Encoded, collect_together
    from saes.features.build import EVIDENCE

    vocabulary = token_strings(model, torch.arange(model.cfg.d_vocab))
    encoded = [Encoded(sae, sae.hook_point, None) for sae in dictionaries.values()]
    sample = derive_seed(seed, "sample")
    every = collect_together(encoded, recording, window=WINDOW, n_top=EVIDENCE, seed=sample, progress=progress)
    return {
        name: _share(statistics, recording, vocabulary, _promoted(sae, model), seed)
        for (name, sae), statistics in zip(dictionaries.items(), every, strict=True)
    }


def _promoted(sae: "SAE", model: "HookedModel") -> np.ndarray | None:
    from interp.lenses.logit_lens import logit_effects
    from saes.features.sources import writes_to_residual

    if not writes_to_residual(sae):
        return None
    return logit_effects(model, sae.decoder_directions.detach().float().cpu(), N_EFFECTS).promoted_ids.numpy()


def _share(
    statistics: "FeatureStatistics",
    recording: "Recording",
    vocabulary: list[str],
    promoted: np.ndarray | None,
    seed: int,
) -> LabelShare:
    from saes.features._labels import MIN_FIRINGS, label_features

    labels = label_features(statistics, recording, vocabulary, promoted, seed=seed)
    fired = [label for label, n in zip(labels, statistics.totals.n_fired, strict=True) if int(n) >= MIN_FIRINGS]
    scores = np.array([label.score for label in fired if label.kind not in WITHOUT and label.score is not None])
    labelled = proportion_interval(len(scores), len(fired)) if fired else Interval(np.nan, np.nan, np.nan)
    return LabelShare(
        n_fired=len(fired),
        n_labelled=len(scores),
        labelled=Interval(*map(float, labelled)),
        score=_mean(scores),
    )


def _mean(scores: np.ndarray) -> Interval[float]:
    if len(scores) < 2:
        return Interval(float(scores.mean()) if len(scores) else np.nan, np.nan, np.nan)
    return Interval(*map(float, t_interval(scores)))
