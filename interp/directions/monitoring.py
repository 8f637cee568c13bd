"""Training of a monitor: a linear probe, a threshold chosen on one part, rates on another, nulls, and drift.

    monitor = train_monitor(model, read_labelled("questions.jsonl"))
    Scorer(model, monitor).watch(to_tokens(model, "Where is the station?")[0].tolist()).scores

1. Whole groups (documents, templates, entities) are split: half train, a quarter chooses, a quarter tests.
2. A text is the mean of its tokens after the first, which attends to nothing else. The probe is the logistic regression
   of `interp.geometry.probes`. As it is linear, the score of a text is the mean of those of its tokens.
3. On the groups that choose, the hook point of the residual stream with the largest AUROC is taken (of equal ones that
   with the largest difference of means over spread), and the lowest threshold at which at most `false_alarms` of the
   negative texts fire.
4. The rates are those of the groups that test, with intervals over groups. The same is done with texts split one by
   one: that number is *leaky*, as it also counts what the texts of a group share.

Nulls, each by the whole of steps 2 to 4: labels shuffled within each part (among the texts of groups with both labels,
and among whole groups with one); random directions at the chosen hook point; five untrained models, which still see
the words. *Control labels* are a random class for each group (Hewitt and Liang 2019): on the leaky split a probe that
finds them has memorised groups.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor

from interp.artifacts import Table
from interp.directions.choosing import spread_layers
from interp.directions.examples import LabelledTexts
from interp.directions.monitor import (
    BY_GROUP,
    BY_TEXT,
    CONTROL,
    MONITOR,
    N_UNTRAINED,
    UNTRAINED,
    Drift,
    Monitor,
    MonitorConfig,
    MonitoredText,
    MonitorRates,
    MonitorSettings,
)
from interp.directions.sides import span_means
from interp.errors import ConfigError, MismatchError, NonFiniteError, PromptError
from interp.geometry.probes import accuracy_interval, control_classes, fit_linear, split_by_document
from interp.models.adapter import to_tokens, token_strings, untrained_model, weight_hash
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec
from interp.models.passes import capture
from interp.nulls import DRAWS, NUMERIC_DRAWS, ROUNDING, NullComparison
from interp.options import base_of
from interp.progress import Progress
from interp.seeds import derive_seed
from interp.statistics import auroc

FIRST = 1
"""First token that is read: the one before is the BOS or has nothing to attend to."""
LAYERS = 6
"""Layers to try, from a sixth of the depth to the last."""
Means = Mapping[str, Float64[np.ndarray, "n d"]]
"""Mean of each text by hook point."""


@dataclass(frozen=True)
class Parts:
    """Rows that train, choose and test, `[n]` bool each."""

    train: Bool[np.ndarray, " n"]
    choose: Bool[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class TextProbe:
    """A linear score of texts at one hook point, above 0 where it fires."""

    hook_point: str
    weights: Float64[np.ndarray, " d"]
    bias: float


def train_monitor(
    model: HookedModel,
    examples: LabelledTexts,
    config: MonitorConfig | None = None,
    *,
    others: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> Monitor:
    """Train a monitor of labelled texts, and state its rates on groups that it was not made of.

    Args:
        model: the model that reads the texts.
        examples: texts with labels and groups (`read_labelled`).
        config: settings; see `MonitorConfig`.
        others: other texts by source, for the drift of false alarms.
        progress: called after each step.
    Returns: the monitor with its rates, nulls and drift.
    Raises:
        ConfigError: labels that no split of groups can hold out.
        PromptError: a text that is too long, or of one token.
        NonFiniteError: activations that are not finite.
    """
    config, points = config or MonitorConfig(), spread_layers(model, LAYERS, until=1)
    yes, group = np.array(examples.yes), np.array(examples.group)
    parts = split_groups(group, yes, config.seed)  # errors before the passes
    spans = [_span(model, text) for text in examples.texts]
    read = {source: [_span(model, text) for text in texts] for source, texts in (others or {}).items()}
    tell, steps = progress or (lambda done, total, facts: None), N_UNTRAINED + 2
    blank = []
    for draw in range(N_UNTRAINED):
        tell(draw, steps, {"step": "untrained models"})
        untrained = untrained_model(model, derive_seed(config.seed, "untrained", draw))
        blank.append(_means(untrained, spans, points))
    tell(N_UNTRAINED, steps, {"step": "the model"})
    means = _means(model, spans, points)
    tell(N_UNTRAINED + 1, steps, {"step": "shuffled labels"})
    probe = find_probe(means, yes, parts, config)
    rates, compared = judge_probe(probe, means, blank, yes, group, parts, config)
    train, choose, test = (len(np.unique(group[part])) for part in (parts.train, parts.choose, parts.test))
    settings = MonitorSettings(
        **vars(base_of(config, MonitorConfig)), model=model_spec(model), weight_hash=weight_hash(model),
        source=examples.source, n_groups=(train, choose, test), hook_point=probe.hook_point,
    )  # fmt: skip
    monitor = Monitor(
        settings=settings, weights=probe.weights, bias=probe.bias, compared=compared,
        rates=Table.of(MonitorRates, rates), drift=Table.of(Drift, []),
    )  # fmt: skip
    score, negatives = Scorer(model, monitor), np.flatnonzero(parts.test & ~yes)
    drift = [_drift("negatives of the test", score, [spans[i][0] for i in negatives], group[negatives])]
    for source, texts in read.items():
        drift.append(_drift(source, score, [ids for ids, _ in texts], np.arange(len(texts))))
    return replace(monitor, drift=Table.of(Drift, drift))


def judge_probe(
    probe: TextProbe,
    means: Means,
    untrained: Sequence[Means],
    yes: Bool[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    parts: Parts,
    config: MonitorConfig,
) -> tuple[list[MonitorRates], NullComparison]:
    """Return the rates of a probe and of its controls, and its separation beside the nulls.

    `means` has the texts' means by hook point, `untrained` those of untrained models.
    """
    blank = [_rates(UNTRAINED, find_probe(read, yes, parts, config), read, yes, group, parts) for read in untrained]
    rates = [_rates(MONITOR, probe, means, yes, group, parts), max(blank, key=lambda row: row.separation[2])]
    rates += _leaky(means, yes, group, config)
    shuffled = []
    for draw in range(DRAWS["standard"]):
        labels = shuffled_labels(yes, group, parts, np.random.default_rng(derive_seed(config.seed, "shuffled", draw)))
        found = find_probe(means, labels, parts, config)
        scores = means[found.hook_point] @ found.weights[:, None]
        shuffled.append(float(_separation(scores, labels, parts, config)[0]))
    random = _random_directions(means[probe.hook_point], yes, parts, config).tolist()
    return rates, NullComparison(rates[0].separation[0], {"shuffled labels": shuffled, "random directions": random})


def split_groups(group: Shaped[np.ndarray, " n"], yes: Bool[np.ndarray, " n"], seed: int) -> Parts:
    """Split whole groups. Raises `ConfigError` where no split has both labels in every part."""
    train = split_by_document(group, yes, heldout=0.5, seed=seed)
    choose, rest = np.zeros_like(train), ~train
    choose[rest] = split_by_document(group[rest], yes[rest], heldout=0.5, seed=derive_seed(seed, "groups that test"))
    return Parts(train, choose, rest & ~choose)


def find_probe(means: Means, yes: Bool[np.ndarray, " n"], parts: Parts, config: MonitorConfig) -> TextProbe:
    """Return the probe with the largest AUROC on the groups that choose, with its threshold."""

    def fitted(hook_point: str, x: np.ndarray) -> tuple[tuple[float, float], TextProbe]:
        weights = fit_linear(x[parts.train], yes[parts.train]).weights[0]
        scores, labels = x[parts.choose] @ weights, yes[parts.choose]
        within = max(float(np.hypot(scores[labels].std(), scores[~labels].std())), ROUNDING)
        gap = float(scores[labels].mean() - scores[~labels].mean()) / within
        bias = -float(_threshold(x @ weights, yes, parts, config))
        return (auroc(scores, labels), gap), TextProbe(hook_point, weights, bias)

    return max((fitted(*layer_means) for layer_means in means.items()), key=lambda layer_means: layer_means[0])[1]


def shuffled_labels(
    yes: Bool[np.ndarray, " n"], group: Shaped[np.ndarray, " n"], parts: Parts, rng: np.random.Generator
) -> Bool[np.ndarray, " n"]:
    """Return labels `[n]` shuffled within each part: texts of groups with both labels, and whole groups with one.

    So each part keeps its number of groups of either label, and a group's texts stay as alike as they are.
    """
    labels = yes.copy()
    for part in (parts.train, parts.choose, parts.test):
        whole: list[np.ndarray] = []
        for name in np.unique(group[part]):
            rows = np.flatnonzero(part & (group == name))
            if np.ptp(yes[rows].astype(int)):
                labels[rows] = rng.permutation(yes[rows])
            else:
                whole.append(rows)
        for rows, label in zip(whole, rng.permutation([yes[rows[0]] for rows in whole]), strict=True):
            labels[rows] = label
    return labels


class Scorer:
    """Scores of tokens under a monitor, from the activations at its hook point."""

    def __init__(self, model: HookedModel, monitor: Monitor):
        """Raise `MismatchError` for other weights."""
        if weight_hash(model) != monitor.settings.weight_hash:
            raise MismatchError(
                f"the monitor was made for weights {monitor.settings.weight_hash[:12]} of {monitor.settings.model}, "
                f"this model has {weight_hash(model)[:12]}; load that model, or make the monitor again"
            )
        self.model, self.hook_point = model, monitor.settings.hook_point
        self._weights, self._bias = torch.from_numpy(monitor.weights), monitor.bias

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return the log-odds of each row above the threshold."""
        return x.detach().cpu().double() @ self._weights + self._bias

    def tokens(self, ids: Sequence[int]) -> Float[np.ndarray, " n"]:
        """Return the scores of a text's tokens after the first, `[n - 1]`. Raises `PromptError` where there is none."""
        if len(ids) <= FIRST:
            raise PromptError("the text has one token, and the first is not read; write more")
        tokens = torch.tensor([list(ids)], device=self.model.cfg.device)
        [values] = capture(self.model, tokens, [self.hook_point]).values()
        return _finite(self(values.flatten(2)[0, FIRST:]).numpy(), f"scores at {self.hook_point}")

    def watch(self, ids: Sequence[int]) -> MonitoredText:
        """Return the tokens of a text with their scores. Raises as `tokens`."""
        scores = self.tokens(ids)
        return MonitoredText(
            tokens=tuple(token_strings(self.model, list(ids))),
            scores=(None, *scores.tolist()),
            score=float(scores.mean()),
        )


def _span(model: HookedModel, text: str) -> tuple[list[int], int]:
    """Return the token ids of a text, and the first that is read. Raises `PromptError`, which quotes the text."""
    try:
        ids = to_tokens(model, text)[0].tolist()
    except PromptError as error:
        raise PromptError(f"the text {text[:40]!r} cannot be read: {error}") from None
    if len(ids) <= FIRST:
        raise PromptError(f"the text {text[:40]!r} has one token, and the first is not read; write more")
    return ids, FIRST


def _means(model: HookedModel, spans: Sequence[tuple[list[int], int]], points: Sequence[str]) -> Means:
    return {at: _finite(x, f"activations at {at}") for at, x in span_means(model, spans, points).items()}


def _finite(x: np.ndarray, what: str) -> np.ndarray:
    """Return an array. Raises `NonFiniteError` for NaN or infinity in it."""
    if not np.isfinite(x).all():
        raise NonFiniteError(f"{what} are not finite; try --dtype float32, or another text")
    return x


def _threshold(scores: np.ndarray, yes: np.ndarray, parts: Parts, config: MonitorConfig) -> np.ndarray:
    """Return the threshold, above which at most the allowed share of the negative texts that choose lies.

    `scores [n, ...]`; returns `[...]`.
    """
    negatives = np.sort(scores[parts.choose & ~yes], axis=0)[::-1]
    return negatives[int(config.false_alarms * len(negatives))]


def _separation(scores: np.ndarray, yes: np.ndarray, parts: Parts, config: MonitorConfig) -> np.ndarray:
    """Return the share caught less that of false alarms, with the threshold of each column: `[n, m]` to `[m]`."""
    fires = scores - _threshold(scores, yes, parts, config) > ROUNDING
    return fires[parts.test & yes].mean(0) - fires[parts.test & ~yes].mean(0)


def _rates(
    name: str, probe: TextProbe, means: Means, yes: np.ndarray, group: np.ndarray, parts: Parts,
    *, split: str = BY_GROUP,
) -> MonitorRates:  # fmt: skip
    """Return the rates on the part that tests; intervals over its groups."""
    test, scores = parts.test, means[probe.hook_point] @ probe.weights + probe.bias
    fires = scores > ROUNDING
    caught, alarms = (accuracy_interval(fires[rows], group[rows]) for rows in (test & yes, test & ~yes))
    return MonitorRates(
        name=name, split=split, auroc=auroc(scores[test], yes[test]),
        caught=caught.estimate, caught_low=float(caught.low), caught_high=float(caught.high),
        alarms=alarms.estimate, alarms_low=float(alarms.low), alarms_high=float(alarms.high),
    )  # fmt: skip


def _leaky(means: Means, yes: np.ndarray, group: np.ndarray, config: MonitorConfig) -> list[MonitorRates]:
    """Return the rates on a split by text, and those of control labels where these can be split."""
    single, rows = np.arange(len(yes)), list[MonitorRates]()
    for name, wanted in ((MONITOR, yes), (CONTROL, _control_labels(yes, group, config.seed))):
        if wanted is not None:
            parts = split_groups(single, wanted, config.seed)
            probe = find_probe(means, wanted, parts, config)
            rows.append(_rates(name, probe, means, wanted, single, parts, split=BY_TEXT))
    return rows


def _control_labels(yes: np.ndarray, group: np.ndarray, seed: int) -> np.ndarray | None:
    """Return a random class for each group; None where of 20 draws no split by text has both in every part."""
    for draw in range(20):
        control = control_classes(group, yes, seed=seed + draw)
        with contextlib.suppress(ConfigError):
            split_groups(np.arange(len(yes)), control, seed)
            return control
    return None


def _random_directions(
    x: np.ndarray, yes: np.ndarray, parts: Parts, config: MonitorConfig
) -> Float64[np.ndarray, " draws"]:
    """Return the separation of random directions at a hook point, each towards the positive training texts."""
    rng = np.random.default_rng(derive_seed(config.seed, "random directions"))
    scale = x[parts.train].std(0)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)  # the probe's inputs are standardised too
    drawn = rng.standard_normal((NUMERIC_DRAWS["quick"], len(scale))) * inverse
    gap = x[parts.train & yes].mean(0) - x[parts.train & ~yes].mean(0)
    return _separation(x @ (drawn * np.sign(drawn @ gap)[:, None]).T, yes, parts, config)


def _drift(source: str, score: Scorer, texts: Sequence[list[int]], group: np.ndarray) -> Drift:
    """Return how often texts of a source fire, given as token ids."""
    tokens = [score.tokens(ids) for ids in texts]
    fires = accuracy_interval(np.array([firing.mean() > 0 for firing in tokens]), group)
    return Drift(
        source=source, n_texts=len(texts), fires=fires.estimate, fires_low=float(fires.low),
        fires_high=float(fires.high), per_thousand=1000 * float(np.mean(np.concatenate(tokens) > 0)),
    )  # fmt: skip
