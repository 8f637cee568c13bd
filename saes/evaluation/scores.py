"""Settings and results of measurements of a dictionary: in the model, decoder cosines, probing, absorption, recovery.

`in_model`, `matching`, `probing`, `absorption` and `synthetic` measure them. Torch-free: pages read them. Lists of
concepts are read here too.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from interp.errors import ConfigError, CorruptError
from interp.options import check_least
from interp.results import Record, Result, whole_table
from interp.seeds import derive_seed
from interp.statistics import Ends, Interval
from interp.view import Rows, View

SHARED = 0.7
"""Cosine above which two latents count as the same."""


@dataclass(frozen=True, kw_only=True)
class InModel(Result):
    """Loss of the model with and without the SAE spliced in; CE and KL in nats per token."""

    n_tokens: int
    """Predicted tokens of text, a sample if the vocabulary is large; the token after BOS, whose prediction no SAE can
    change, is left out."""
    ce_clean: float
    """cross-entropy of the unchanged model"""
    ce_spliced: float
    """cross-entropy with the reconstruction"""
    ce_zero: float
    """cross-entropy with zero ablation"""
    ce_mean: float
    """cross-entropy with mean ablation"""
    ce_recovered: float | None
    """`(ce_zero - ce_spliced) / (ce_zero - ce_clean)`: 1 loses nothing, 0 is as bad as zero ablation. None where zero
    ablation does not raise the loss."""
    ce_recovered_from_mean: float | None
    """The same against mean ablation instead of zero ablation: the harder baseline."""
    kl_spliced: float
    """`KL(clean || spliced)`."""
    kl_zero: float
    """`KL(clean || zero ablation)`."""
    kl_recovered: float | None
    """`1 - kl_spliced / kl_zero`: 1 changes no prediction, 0 changes them as much as zero ablation."""
    n_documents: int
    intervals: dict[str, Ends]
    """`score -> (low, high)`, 95 %, over documents (over contexts, where documents are unknown)."""

    def view(self) -> View:
        yield f"Loss of the model with the dictionary spliced in, {self.n_tokens:,} tokens (nats per token)"


@dataclass(frozen=True, kw_only=True)
class DecoderCosines(Result):
    """Cosine of every decoder row with its nearest neighbour by cosine similarity."""

    nearest: float
    """Mean over latents of the largest cosine with another row."""
    nearest_random: float
    """The same for random rows with the dictionary's second moments: the null for crowding."""
    near_copies: float
    """Share of latents with another row above `NEAR_COPY`."""
    edges: tuple[float, ...]
    """Edges of the bins of that cosine."""
    counts: tuple[int, ...]
    """Latents per bin, `len(edges) - 1`."""


@dataclass(frozen=True, kw_only=True)
class Recovery(Result):
    """Scores of an SAE against the true features, over `n_rows` fresh rows.

    The two L0 are per row; all other scores are shares or ratios.
    """

    n_rows: int
    mcc: float
    """Mean `|cos|` over matched pairs: 1 is full recovery. A random dictionary scores `mcc_random`, not 0."""
    mcc_random: float
    """The same for the same number of random unit rows: the null."""
    mmcs: float
    """Mean over true features of the largest `|cos|` to any latent (Sharkey et al. 2022): latents may be reused."""
    uniqueness: float
    """Distinct nearest features (by `|cos|`) over latents, or over features where those are fewer: 1 when every latent
    has a nearest feature of its own."""
    precision: float
    """Mean over true features of the share of the latent's active rows on which the feature is on."""
    recall: float
    """Mean over true features of the share of the feature's rows on which its latent is active."""
    f1: float
    """Mean over true features of the harmonic mean of precision and recall."""
    recovered: float
    """Share of true features whose F1 is at least `FOUND`."""
    true_l0: float
    """True features per row."""
    l0: float
    """Active latents per row; above `true_l0` features are split or noise is fitted, below it features are missed."""
    shrinkage: float
    """Sum over active latents of their contribution along their features, over the sum of true strengths there: 1 is
    unbiased, below 1 the latents are too weak."""
    dead: float
    """Share of latents that never fire."""
    fvu: float
    """Fraction of variance unexplained, `E|x - x_hat|^2 / E|x - E x|^2`: 0 is perfect, 1 no better than the mean."""

    def view(self) -> View:
        yield f"Recovery of known features: MCC {self.mcc:.2f} (random directions {self.mcc_random:.2f})"


@dataclass(frozen=True, kw_only=True)
class SharedLatents(Result):
    """Latents that two dictionaries share, as shares of the smaller dictionary's latents."""

    shared: float
    """Share of pairs with a cosine above `SHARED`: 1 for two dictionaries that are equal up to order."""
    shared_random: float
    """The same for a null: random directions with the second moments of the second dictionary's rows."""
    mean_cosine: float
    """Mean cosine of the pairs."""
    mean_cosine_random: float
    """Mean cosine of the pairs under the null."""

    def __str__(self) -> str:
        return (
            f"{self.shared:.1%} of features have a partner above {SHARED} (mean cosine {self.mean_cosine:.2f}); "
            f"random rows {self.shared_random:.1%} ({self.mean_cosine_random:.2f})"
        )


ALL = "all coordinates"
"""Name of the probe that reads the whole activation."""
MEAN = "mean of tasks"
"""Task name of the mean over tasks."""


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """Scores of one dictionary at one `k`, on one task or as the mean over tasks.

    Accuracies are balanced: 0.5 is guessing, 1 is perfect.
    """

    dictionary: str
    k: int
    """latents that the probe reads"""
    task: str
    accuracy: Interval[float]
    """interval over held-out documents. Its ends are NaN with fewer documents than `interp.statistics.MIN_DOCUMENTS`,
    or where too many bootstrap replicates lack one of the answers"""
    control: float
    """accuracy on control labels"""
    selectivity: float
    """`accuracy - control`"""
    auroc: float
    """area under the ROC curve: 0.5 is guessing, 1 is perfect"""
    by_seed: tuple[float, ...]
    """accuracy for each seed"""


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """One task as it was probed."""

    name: str
    yes: str
    """description of a positive token"""
    key: str
    """property of a token that determines its label (`probing_tasks.Key`)"""
    base_rate: float
    """share of yes among the test tokens that the question applies to"""
    n_train: int
    """training tokens that the question applies to"""
    n_test: int
    """test tokens that the question applies to"""


@dataclass(frozen=True, kw_only=True)
class Probing(Result):
    """Scores of all probes."""

    tasks: list[TaskFacts]
    skipped: dict[str, str]
    """task -> reason why it could not be probed"""
    scores: list[ProbeScore]
    """one for every dictionary, `k` and task"""
    means: list[ProbeScore]
    """means over tasks, one for every dictionary and `k`"""
    n_test: int
    """test tokens"""
    n_documents: int
    """held-out documents that the test tokens come from"""
    seeds: tuple[int, ...]

    def table(self) -> str:
        """Return a plain-text table of the means, then of every task at the smallest `k`."""
        smallest = min((score.k for score in self.scores), default=0)
        head = f"accuracy at k={smallest} (control)"
        tasks: dict[str, Record] = {task.name: {head: task.name, "yes": task.base_rate} for task in self.tasks}
        for s in self.scores:
            if s.k == smallest or s.dictionary == ALL:
                tasks[s.task][s.dictionary] = f"{s.accuracy.estimate:.2f} ({s.control:.2f})"
        skipped = [f"not asked: {name} ({why})" for name, why in self.skipped.items()]
        return "\n".join([*whole_table(self.shown()), "", *whole_table([*tasks.values()]), *skipped])

    def to_records(self) -> list[Record]:
        """Return one row per dictionary, k and task: the fields of `ProbeScore`; task `mean` is the mean over tasks."""
        return [
            {"dictionary": s.dictionary, "k": s.k, "task": s.task, **s.accuracy.columns("accuracy", "low", "high")}
            | {"control": s.control, "selectivity": s.selectivity, "auroc": s.auroc}
            for s in (*self.means, *self.scores)
        ]

    def view(self) -> View:
        yield f"Balanced accuracy of probes, {self.n_test:,} tokens of {self.n_documents:,} documents (0.5: chance)"
        yield Rows(lambda: self.to_records()[: len(self.means)])


CAVEAT = (
    "absorption was defined on models from 1B parameters with 16k latents and more; with fewer, read main_f1 first: "
    "where no latent detects a class, nothing can be absorbed, and accidents count (compare the untrained SAE)"
)


@dataclass(frozen=True, kw_only=True)
class ClassAbsorption:
    """Absorption of one class, as means over seeds (splits)."""

    name: str
    probe_f1: float
    """F1 of the linear probe on held-out groups"""
    main: tuple[int, ...]
    """main latents in the first split"""
    main_f1: float
    """F1 of the k-sparse probe that reads the main latents, on held-out groups"""
    n: int
    """held-out rows that the probe classifies correctly, over all splits"""
    full: float
    """share of them that are fully absorbed"""
    fraction: float
    """mean absorption fraction: 0 is none, 1 is all"""


@dataclass(frozen=True, kw_only=True)
class Absorption(Result):
    """Absorption in one dictionary, as means over classes, then over seeds."""

    full: float
    """share of rows that are fully absorbed: 0 is none, 1 is all"""
    fraction: float
    """mean absorption fraction: 0 is none, 1 is all"""
    main_f1: float
    """F1 with which main latents detect their classes; near chance, absorption scores mean nothing"""
    probe_f1: float
    """F1 of the linear probes on held-out groups"""
    intervals: dict[str, Ends]
    """95 % intervals of `full` and `fraction` over held-out groups; empty with fewer than `statistics.MIN_DOCUMENTS`"""
    by_seed: list[float]
    """`full` of each split"""
    classes: list[ClassAbsorption]
    left_out: dict[str, float]
    """class -> F1 of its probe, which was too low in some split"""
    n_rows: int
    """rows of the examples"""
    n_groups: int
    """groups (word types) of the examples"""

    def to_records(self) -> list[Record]:
        """Return one row per class: `name, probe_f1, main, main_f1, n, full, fraction`."""
        return [dict(vars(score)) for score in self.classes]

    def view(self) -> View:
        ends = {k: f" [{v[0]:.1%}, {v[1]:.1%}]" for k, v in self.intervals.items()}
        sentence = (
            f"Absorption (0 is none): {self.full:.1%}{ends.get('full', '')} of {self.n_rows:,} rows fully, mean "
            f"fraction {self.fraction:.1%}{ends.get('fraction', '')}; main latents F1 {self.main_f1:.2f}. {CAVEAT}"
        )
        yield sentence.rstrip()
        yield Rows(lambda: sorted(self.to_records(), key=lambda row: -row["full"]))


def absorption_table(scores: Mapping[str, Absorption]) -> str:
    """Return a plain-text table with one dictionary a line."""
    return "\n".join(
        whole_table([{"dictionary": name} | Result.to_records(score)[0] for name, score in scores.items()])
    )


GOOD_F1 = 0.7
"""Smallest F1 with which a latent counts as detecting a concept."""
MIN_ROWS = 20
"""Smallest number of rows of each answer of a probing task, in training and in test rows."""


NEAR_COPY = 0.9
"""Cosine similarity with another decoder row above which a latent is nearly a copy of it."""


@dataclass(frozen=True)
class ScoreColumn:
    """A score of one dictionary in a comparison, shown as a column."""

    title: str
    path: str
    """Fields that lead to it from a row, such as `own.fvu`."""
    form: str = ".3f"
    averaged: bool = False
    """True where runs that differ in their seed are averaged."""

    def of(self, row: object) -> float | None:
        """Return the score of a row of a comparison; None where it was not measured."""
        value = row
        for name in self.path.split("."):
            value = getattr(value, name, None)
        return value if isinstance(value, int | float) else None

    def text(self, row: object) -> str:
        """Return the score of a row as text; empty where it was not measured."""
        value = self.of(row)
        return "" if value is None else format(value, self.form)


SCORES = (
    ScoreColumn("L0", "own.l0", ".1f", averaged=True),
    ScoreColumn("FVU", "own.fvu", ".4f", averaged=True),
    ScoreColumn("L0 cut", "matched.l0", ".1f"),
    ScoreColumn("FVU cut", "matched.fvu", ".4f", averaged=True),
    ScoreColumn("dead", "own.dead_fraction", ".1%", averaged=True),
    ScoreColumn("dense", "own.dense_fraction", ".1%"),
    ScoreColumn("nearest cos", "nearest_cosine", ".2f", averaged=True),
    ScoreColumn(f"cos > {NEAR_COPY}", "near_copies", ".1%"),
    ScoreColumn("rel. bias", "own.relative_bias"),
    ScoreColumn("l2 ratio", "own.l2_ratio"),
    ScoreColumn("CE recovered", "model.ce_recovered", averaged=True),
    ScoreColumn("from mean", "model.ce_recovered_from_mean"),
    *(
        ScoreColumn(title, f"recovery.{field}", averaged=True)
        for title, field in {"MCC": "mcc", "F1": "f1", "unique": "uniqueness", "strength": "shrinkage"}.items()
    ),
)
"""Scores in the order of the columns. `cut` is at the L0 of the sparsest dictionary; the model runs with that one."""


@dataclass(frozen=True, kw_only=True)
class ProbingConfig:
    """Settings of sparse probing."""

    ks: tuple[int, ...] = (1, 2, 5)
    """Numbers of latents that a probe reads."""
    n_train: int = 8192
    """Tokens of training documents that a probe is fitted to, drawn anew for every seed."""
    n_test: int = 8192
    """Tokens of held-out documents that probes are tested on."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds over which scores are averaged."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or min(self.n_train, self.n_test) < 2 * MIN_ROWS or not self.seeds:
            raise ConfigError(
                f"probing needs k of 1 or more, at least {2 * MIN_ROWS} training and test tokens and a seed, got ks "
                f"{self.ks}, n_train {self.n_train}, n_test {self.n_test} and seeds {self.seeds}"
            )


@dataclass(frozen=True, kw_only=True)
class AbsorptionConfig:
    """Settings of the measurement of feature absorption."""

    n_rows: int = 12_000
    """Largest number of words whose first letter is asked for."""
    per_word: int = 4
    """Largest number of occurrences of each word type among them."""
    test_share: float = 0.4
    """Share of word types that the probes do not see, drawn anew for every seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the splits over which scores are averaged; the first also draws the words."""

    def __post_init__(self) -> None:
        check_least(self, {"n_rows": 1, "per_word": 1})
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share must lie between 0 and 1, got {self.test_share}")
        if not self.seeds:
            raise ConfigError("absorption needs at least one seed of the splits, got none")


LIST = Path(__file__).with_name("concepts.toml")
"""The list that ships."""
NEGATIVES = 4
"""Words of other concepts for every word of a concept, so that always saying yes has F1 1/3."""
LEAST_WORDS, LEAST_SENTENCES = 7, 40
"""Fewest words of a concept, and fewest sentences that contain one of them."""

Set = Literal["choose", "judge"]
Half = Literal[0, 1]
"""0: the words that choose a latent and its threshold; 1: those that judge them."""


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One concept of a list."""

    name: str
    kind: str
    """class of words; its templates fit each of them"""
    set: Set
    """`choose`: may guide the choice of a dictionary; `judge`: judges once at the end"""
    words: tuple[str, ...]

    def half(self, half: Half) -> tuple[str, ...]:
        """Return the words at even (0) or odd (1) positions."""
        return self.words[half::2]


@dataclass(frozen=True, kw_only=True)
class ConceptList:
    """Concepts, and the templates and other words of their classes."""

    concepts: tuple[Concept, ...]
    measured: tuple[Concept, ...]
    """those to score"""
    templates: dict[str, tuple[str, ...]]
    """class -> sentences with one `{}`"""
    others: dict[str, tuple[str, ...]]
    """class -> words of no concept"""

    def negatives(self, concept: Concept, half: Half, *, seed: int = 0) -> tuple[str, ...]:
        """Draw `NEGATIVES` times as many words of other concepts of the class as the half has, from their same half."""
        pool = [w for c in self.concepts if c.kind == concept.kind and c != concept for w in c.half(half)]
        pool += self.others[concept.kind][half::2]
        rng = np.random.default_rng(derive_seed(seed, "concepts", concept.name, half))
        drawn = rng.permutation(len(pool))[: NEGATIVES * len(concept.half(half))]
        return tuple(pool[i] for i in sorted(drawn))

    def only(self, wanted: Literal["all", "choose", "judge"]) -> "ConceptList":
        """Return the list that measures concepts of one set; the words of all others remain negatives.

        Raises `ConfigError` for a set without concepts.
        """
        measured = tuple(c for c in self.measured if wanted in ("all", c.set))
        if not measured:
            raise ConfigError(f"no concept of the list is in the set {wanted!r}; choose another set")
        return replace(self, measured=measured)

    def sentences(self) -> "dict[tuple[str, str, int], tuple[str, int, int]]":
        """Return `(class, word, template) -> (text, start, end)`, with the characters of the word."""
        sentences = {}
        for kind, templates in self.templates.items():
            words = dict.fromkeys([w for c in self.concepts if c.kind == kind for w in c.words])
            for word in [*words, *self.others[kind]]:
                for number, template in enumerate(templates):
                    start = template.index("{}")
                    text = template[:start] + word + template[start + 2 :]
                    sentences[kind, word, number] = (text, start, start + len(word))
        return sentences


def read_concepts(path: Path = LIST) -> ConceptList:
    """Read a list of concepts, by default the one that ships.

    Raises `CorruptError` for a file of another shape, `ConfigError` for a list that cannot be measured: a word of two
    concepts of one class, or too few words, sentences or negatives.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        concepts = tuple(
            Concept(name=c["name"], kind=c["class"], set=c.get("set", "choose"), words=tuple(c["words"]))
            for c in table["concepts"]
        )
        templates = {name: tuple(section["templates"]) for name, section in table["classes"].items()}
        others = {name: tuple(section.get("others", ())) for name, section in table["classes"].items()}
        listed = ConceptList(concepts=concepts, measured=concepts, templates=templates, others=others)
        _check(listed)
    except OSError as error:
        raise ConfigError(f"no list of concepts can be read at {path} ({error.strerror}); give a .toml file") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:  # not TOML, not text, other shapes
        raise CorruptError(f"{path} is not a list of concepts ({error!r}); {LIST} shows the format") from error
    return listed


def _check(listed: ConceptList) -> None:
    names = Counter(c.name for c in listed.concepts)
    problems = [f"{name} is listed {n} times" for name, n in names.items() if n > 1]
    for kind, templates in listed.templates.items():
        problems += [f"a template of {kind} has not one {{}}: {t!r}" for t in templates if t.count("{}") != 1]
        words = Counter([w for c in listed.concepts if c.kind == kind for w in c.words] + list(listed.others[kind]))
        problems += [f"{word!r} is listed {n} times in class {kind}" for word, n in words.items() if n > 1]
    for c in listed.concepts:
        n = len(c.words) * len(listed.templates[c.kind])
        if len(c.words) < LEAST_WORDS or n < LEAST_SENTENCES:
            problems.append(
                f"{c.name} has {len(c.words)} words and {n} sentences, needs {LEAST_WORDS} and {LEAST_SENTENCES}"
            )
        for half in (0, 1):
            wanted, n_negatives = NEGATIVES * len(c.half(half)), len(listed.negatives(c, half))
            if n_negatives < wanted:
                problems.append(f"class {c.kind} has {n_negatives} other words in half {half}, {c.name} needs {wanted}")
    if problems:
        raise ConfigError(f"the list of concepts cannot be measured: {'; '.join(problems)}")
