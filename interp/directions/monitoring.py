"""Training of a monitor: a linear probe, a threshold chosen on one part, rates on another, nulls, and drift.

    monitor = train_monitor(model, read_labelled("questions.jsonl"))
    Scorer(model, monitor).watch(to_tokens(model, "Where is the station?")[0].tolist()).scores

1. Whole groups (documents, templates, entities) are split: half train, a quarter chooses, a quarter tests.
2. A text is the mean of its tokens after the first, which attends to nothing else. The probe is the logistic regression
   of `interp.geometry.probes`. As it is linear, the score of a text is the mean of those of its tokens.
3. On the groups that choose, the hook point and the coordinates with the largest AUROC are taken (of equal ones that
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from torch import Tensor

from interp.artifacts import Table
from interp.dictionary import Dictionary
from interp.directions.choosing import spread_layers
from interp.directions.examples import LabelledTexts
from interp.directions.monitor import (
    BASES,
    BY_GROUP,
    BY_TEXT,
    CONTROL,
    LABELS,
    MONITOR,
    N_UNTRAINED,
    UNTRAINED,
    Basis,
    Drift,
    Monitor,
    MonitorConfig,
    MonitoredText,
    MonitorRates,
    MonitorSettings,
)
from interp.directions.named import base_of
from interp.directions.sides import Encode, span_means
from interp.errors import ConfigError, MismatchError, NonFiniteError, PromptError
from interp.geometry.probes import accuracy_interval, control_classes, fit_linear, split_by_document
from interp.models.adapter import available_hook_points, to_tokens, token_strings, untrained_model, weight_hash
from interp.models.hooked import HookedModel
from interp.models.passes import capture
from interp.names import canonical_hook_point
from interp.nulls import DRAWS, NUMERIC_DRAWS, ROUNDING, NullComparison
from interp.progress import Progress
from interp.seeds import derive_seed
from interp.statistics import auroc, auroc_interval

FIRST = 1
"""First token that is read: the one before is the BOS or has nothing to attend to."""
Means = Mapping[tuple[Basis, str], Float64[np.ndarray, "n d"]]
"""Mean of each text by coordinates and hook point."""


@dataclass(frozen=True)
class Parts:
    """Rows that train, choose and test, `[n]` bool each."""

    train: Bool[np.ndarray, " n"]
    choose: Bool[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class TextProbe:
    """A linear score of texts at one hook point, above 0 where it fires."""

    at: tuple[Basis, str]
    weights: Float64[np.ndarray, " d"]
    bias: float
    auroc: float
    gap: float
    """mean of the positive texts less that of the others, over the spread within both: on the groups that choose"""


def train_monitor(
    model: HookedModel,
    examples: LabelledTexts,
    config: MonitorConfig | None = None,
    *,
    dictionary: Dictionary | None = None,
    dictionary_name: str = "",
    others: Sequence[LabelledTexts] = (),
    model_name: str = "",
    progress: Progress | None = None,
) -> Monitor:
    """Train a monitor of labelled texts, and state its rates on groups that it was not made of.

    Args:
        model: the model that reads the texts.
        examples: texts with labels and groups (`read_labelled`).
        config: settings; see `MonitorConfig`.
        dictionary: an SAE, whose latents are one more choice of coordinates.
        dictionary_name: its name in the workspace.
        others: other texts, for the drift of scores and false alarms.
        model_name: name of the model.
        progress: called after each step.
    Returns: the monitor with its rates, nulls and drift.
    Raises:
        ConfigError: labels that no split of groups can hold out, or latents without an SAE.
        PromptError: a text that is too long, or of one token.
        NonFiniteError: activations that are not finite.
    """
    config = config or MonitorConfig()
    columns = _columns(model, config, dictionary)
    spans = [[_span(model, text) for text in source.texts] for source in (examples, *others)]
    yes, group = np.array(examples.yes), np.array(examples.group)
    split_groups(group, yes, config.seed)  # errors before the passes
    tell, total = progress or (lambda done, total, facts: None), 1 + N_UNTRAINED + DRAWS["standard"]
    blank = []
    for draw in range(N_UNTRAINED):
        tell(draw, total, {"step": "untrained models"})
        other = untrained_model(model, derive_seed(config.seed, "untrained", draw))
        blank.append(_means(other, spans[0], columns))
    tell(N_UNTRAINED, total, {"step": "the model"})
    means = _means(model, spans[0], columns)

    def shuffling(done: int) -> None:
        tell(1 + N_UNTRAINED + done, total, {"step": "shuffled labels"})

    judged = judge_probes(means, blank, yes, group, config, grouped=examples.grouped, progress=shuffling)
    basis, hook_point = judged.probe.at
    settings = MonitorSettings(
        **vars(base_of(config, MonitorConfig)), model=model_name, weight_hash=weight_hash(model),
        source=examples.source, grouped=examples.grouped, n_groups=judged.n_groups, read=basis, hook_point=hook_point,
        dictionary=dictionary_name if basis == "latents" else "",
    )  # fmt: skip
    monitor = Monitor(
        settings=settings, weights=judged.probe.weights, bias=judged.probe.bias, compared=judged.compared,
        rates=Table.of(MonitorRates, judged.rates), drift=Table.of(Drift, []),
    )  # fmt: skip
    own = [*judged.negatives]
    sources = [("negatives of the test", [spans[0][i] for i in own], group[own])]
    for source, read in zip(others, spans[1:], strict=True):
        for label in (False, True):
            rows = [i for i, each in enumerate(source.yes) if each is label]
            name = source.source + (f", labelled {str(label).lower()}" if any(source.yes) else "")
            if rows:
                sources.append((name, [read[i] for i in rows], np.array(source.group)[rows]))
    return replace(monitor, drift=Table.of(Drift, _drift(Scorer(model, monitor, dictionary), sources)))


@dataclass(frozen=True)
class JudgedProbe:
    """The chosen probe, and everything that is said of it but drift."""

    probe: TextProbe
    rates: list[MonitorRates]
    compared: NullComparison
    n_groups: tuple[int, int, int]
    negatives: Int[np.ndarray, " m"]
    """rows of the negative texts that test"""


def judge_probes(
    means: Means,
    untrained: Sequence[Means],
    yes: Bool[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    config: MonitorConfig | None = None,
    *,
    grouped: bool = True,
    progress: Callable[[int], None] | None = None,
) -> JudgedProbe:
    """Choose a probe and judge it: steps 1 to 4, and the nulls.

    `means` has the texts' means by coordinates and hook point, `untrained` those of untrained models; `grouped` is
    false where each text is a group, so that no split leaks. Raises `ConfigError` for labels that cannot be split.
    """
    config, n_draws = config or MonitorConfig(), DRAWS["standard"]
    parts = split_groups(group, yes, config.seed)
    probe = _search(means, yes, parts, config)
    blank = [_rates(UNTRAINED, _search(read, yes, parts, config), read, yes, group, parts) for read in untrained]
    rates = [_rates(MONITOR, probe, means, yes, group, parts), max(blank, key=lambda row: row.separation[2])]
    rates += _by_basis(means, yes, group, parts, config)
    if grouped:
        rates += _leaky(means, yes, group, config)
    shuffled = []
    for draw in range(n_draws):
        if progress:
            progress(draw)
        labels = shuffled_labels(yes, group, parts, np.random.default_rng(derive_seed(config.seed, "shuffled", draw)))
        found = _search(means, labels, parts, config)
        scores = means[found.at] @ found.weights[:, None]
        shuffled.append(float(_separation(scores, labels, parts, config)[0]))
    random = _random_directions(means[probe.at], yes, parts, config).tolist()
    train, choose, test = (len(np.unique(group[part])) for part in (parts.train, parts.choose, parts.test))
    compared = NullComparison(rates[0].separation[0], {"shuffled labels": shuffled, "random directions": random})
    return JudgedProbe(probe, rates, compared, (train, choose, test), np.flatnonzero(parts.test & ~yes))


def split_groups(group: Shaped[np.ndarray, " n"], yes: Bool[np.ndarray, " n"], seed: int) -> Parts:
    """Split whole groups. Raises `ConfigError` where no split has both labels in every part."""
    train = split_by_document(group, yes, heldout=0.5, seed=seed)
    choose, rest = np.zeros_like(train), ~train
    choose[rest] = split_by_document(group[rest], yes[rest], heldout=0.5, seed=derive_seed(seed, "groups that test"))
    return Parts(train, choose, rest & ~choose)


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

    def __init__(self, model: HookedModel, monitor: Monitor, dictionary: Dictionary | None = None):
        """Raise `MismatchError` for other weights, `ConfigError` without the SAE that the monitor reads."""
        if weight_hash(model) != monitor.settings.weight_hash:
            raise MismatchError(
                f"the monitor was made for weights {monitor.settings.weight_hash[:12]} of {monitor.settings.model}, "
                f"this model has {weight_hash(model)[:12]}; load that model, or make the monitor again"
            )
        self.model, self.hook_point = model, monitor.settings.hook_point
        self._encode = _encoder(monitor.settings.read, dictionary)
        self._weights, self._bias = torch.from_numpy(monitor.weights), monitor.bias

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return the log-odds of each row above the threshold."""
        with torch.no_grad():
            read = (x if self._encode is None else self._encode(x)).cpu().double()
        return read @ self._weights + self._bias

    def tokens(self, ids: Sequence[int]) -> Float[np.ndarray, " n"]:
        """Return the scores of a text's tokens after the first, `[n - 1]`. Raises `PromptError` where there is none."""
        if len(ids) <= FIRST:
            raise PromptError("the text has one token, and the first is not read; write more")
        tokens = torch.tensor([list(ids)], device=self.model.cfg.device)
        [values] = capture(self.model, tokens, [self.hook_point]).values()
        return finite(self(values.flatten(2)[0, FIRST:]).numpy(), f"scores at {self.hook_point}")

    def watch(self, ids: Sequence[int]) -> MonitoredText:
        """Return the tokens of a text with their scores. Raises as `tokens`."""
        scores = self.tokens(ids)
        return MonitoredText(
            tokens=tuple(token_strings(self.model, list(ids))),
            scores=(None, *scores.tolist()),
            score=float(scores.mean()),
        )


def _columns(
    model: HookedModel, config: MonitorConfig, dictionary: Dictionary | None
) -> dict[tuple[Basis, str], tuple[str, Encode | None]]:
    """Return the candidates: coordinates and hook point, with what encodes them."""
    layers, known = spread_layers(model, config.layers, until=1), available_hook_points(model)
    columns: dict[tuple[Basis, str], tuple[str, Encode | None]] = {("residual", at): (at, None) for at in layers}
    for at in (at.replace("hook_resid_post", "mlp.hook_post") for at in layers):
        if at in known:  # some models have no MLPs
            columns["neurons", at] = (at, None)
    if dictionary is not None:
        at = canonical_hook_point(dictionary.hook_point)
        columns["latents", at] = (at, _encoder("latents", dictionary))
    if not any(config.basis in (None, basis) for basis, _ in columns):
        raise ConfigError(f"there is nothing to read for {config.basis}: latents need --sae, neurons a model with MLPs")
    return columns


def _encoder(basis: Basis, dictionary: Dictionary | None) -> Encode | None:
    if basis != "latents":
        return None
    if dictionary is None:
        raise ConfigError("this monitor reads latents, and no SAE was given; give the one that it was made with")
    return dictionary.encode


def _span(model: HookedModel, text: str) -> tuple[list[int], int]:
    """Return the token ids of a text, and the first that is read. Raises `PromptError`, which quotes the text."""
    try:
        ids = to_tokens(model, text)[0].tolist()
    except PromptError as error:
        raise PromptError(f"the text {text[:40]!r} cannot be read: {error}") from None
    if len(ids) <= FIRST:
        raise PromptError(f"the text {text[:40]!r} has one token, and the first is not read; write more")
    return ids, FIRST


def _means(
    model: HookedModel,
    spans: Sequence[tuple[list[int], int]],
    columns: Mapping[tuple[Basis, str], tuple[str, Encode | None]],
) -> Means:
    means = span_means(model, spans, {f"{basis} {at}": column for (basis, at), column in columns.items()})
    return {key: finite(means[f"{key[0]} {key[1]}"], f"activations at {key[1]}") for key in columns}


def finite(x: np.ndarray, what: str) -> np.ndarray:
    """Return an array. Raises `NonFiniteError` for NaN or infinity in it."""
    if not np.isfinite(x).all():
        raise NonFiniteError(f"{what} are not finite; try --dtype float32, or another text")
    return x


def _search(means: Means, yes: np.ndarray, parts: Parts, config: MonitorConfig, only: Basis | None = None) -> TextProbe:
    """Return the probe with the largest AUROC on the groups that choose, with its threshold."""
    wanted, probes = only or config.basis, list[TextProbe]()
    for at, x in means.items():
        if wanted in (None, at[0]):
            weights = fit_linear(x[parts.train], yes[parts.train]).weights[0]
            scores, labels = x[parts.choose] @ weights, yes[parts.choose]
            within = max(float(np.hypot(scores[labels].std(), scores[~labels].std())), ROUNDING)
            gap = float(scores[labels].mean() - scores[~labels].mean()) / within
            bias = -float(_threshold(x @ weights, yes, parts, config))
            probes.append(TextProbe(at, weights, bias, auroc(scores, labels), gap))
    return max(probes, key=lambda probe: (probe.auroc, probe.gap))


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
    *, split: str = BY_GROUP, labels: str = LABELS,
) -> MonitorRates:  # fmt: skip
    """Return the rates on the part that tests; intervals over its groups."""
    test, scores = parts.test, means[probe.at] @ probe.weights + probe.bias
    fires = scores > ROUNDING
    caught, alarms = (accuracy_interval(fires[rows], group[rows]) for rows in (test & yes, test & ~yes))
    return MonitorRates(
        name=name, split=split, labels=labels, hook_point=probe.at[1], auroc=auroc(scores[test], yes[test]),
        caught=caught.estimate, caught_low=float(caught.low), caught_high=float(caught.high),
        alarms=alarms.estimate, alarms_low=float(alarms.low), alarms_high=float(alarms.high),
    )  # fmt: skip


def _by_basis(
    means: Means, yes: np.ndarray, group: np.ndarray, parts: Parts, config: MonitorConfig, split: str = BY_GROUP
) -> list[MonitorRates]:
    """Return the rates of the best probe of each basis."""
    found = {basis: _search(means, yes, parts, config, basis) for basis in BASES if any(at[0] == basis for at in means)}
    return [_rates(basis, probe, means, yes, group, parts, split=split) for basis, probe in found.items()]


def _leaky(means: Means, yes: np.ndarray, group: np.ndarray, config: MonitorConfig) -> list[MonitorRates]:
    """Return the rates on a split by text, and those of control labels on both splits where these can be split."""
    single, rows = np.arange(len(yes)), list[MonitorRates]()
    cases = [(BY_TEXT, single, yes, LABELS)]
    if (control := _control_labels(yes, group, config.seed)) is not None:
        cases += [(BY_GROUP, group, control, CONTROL), (BY_TEXT, single, control, CONTROL)]
    for split, of, wanted, labels in cases:
        parts = split_groups(of, wanted, config.seed)
        probe = _search(means, wanted, parts, config)
        rows.append(_rates(MONITOR, probe, means, wanted, of, parts, split=split, labels=labels))
        if labels == LABELS:
            rows += _by_basis(means, wanted, of, parts, config, split)
    return rows


def _control_labels(yes: np.ndarray, group: np.ndarray, seed: int) -> np.ndarray | None:
    """Return a random class for each group; None where of 20 draws no split has both in every part."""
    for draw in range(20):
        control = control_classes(group, yes, seed=seed + draw)
        with contextlib.suppress(ConfigError):
            split_groups(group, control, seed)
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


def _drift(score: Scorer, sources: Sequence[tuple[str, Sequence[tuple[list[int], int]], np.ndarray]]) -> list[Drift]:
    """Return the scores of texts by source; the first source is what the others are compared with."""
    rows, first = [], np.empty(0)
    for name, spans, group in sources:
        tokens = [score.tokens(ids) for ids, _ in spans]
        texts = np.array([each.mean() for each in tokens])
        first = first if len(first) else texts
        fires = accuracy_interval(texts > 0, group)
        wins = (texts[:, None] > first) + 0.5 * (texts[:, None] == first)
        shift = auroc_interval(wins)
        rows.append(
            Drift(
                source=name, n_texts=len(texts), n_tokens=sum(map(len, tokens)), fires=fires.estimate,
                fires_low=float(fires.low), fires_high=float(fires.high),
                per_thousand=1000 * float(np.mean(np.concatenate(tokens) > 0)),
                shift=shift.estimate, shift_low=shift.low, shift_high=shift.high,
            )
        )  # fmt: skip
    return rows
