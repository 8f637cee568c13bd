"""What sparse probes found (`probing.py`), as values and as a table."""

from dataclasses import dataclass

from saes.comparison import ProbedRow, align

ALL = "all coordinates"
"""the row that reads the whole activation"""
MEAN = "mean of tasks"


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """One dictionary, one `k`, one task or the mean over tasks. Accuracies are balanced: .5 is guessing, 1 is right."""

    dictionary: str
    k: int
    task: str
    accuracy: float
    low: float | None
    high: float | None
    """95 % interval of the accuracy over held-out documents; None where those are fewer than `bootstrap.MIN_DOCUMENTS`,
    or too many resampled texts lack an answer"""
    control: float
    """accuracy on control labels"""
    selectivity: float
    """`accuracy - control`"""
    auroc: float
    """area under the ROC curve: .5 is guessing"""
    by_seed: tuple[float, ...]
    """accuracy for each seed"""


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """A question as it was asked."""

    name: str
    yes: str
    key: str
    base_rate: float
    """share of yes among the test tokens that it applies to"""
    n_train: int
    n_test: int


@dataclass(frozen=True, kw_only=True)
class Probing:
    """What the probes found."""

    tasks: list[TaskFacts]
    skipped: dict[str, str]
    """task -> why it could not be asked"""
    scores: list[ProbeScore]
    means: list[ProbeScore]
    """over tasks, one for every dictionary and `k`"""
    n_test: int
    n_documents: int
    """held-out documents that the test tokens come from"""
    seeds: tuple[int, ...]

    def rows(self) -> dict[str, ProbedRow]:
        """By dictionary, for `compare`."""
        names = dict.fromkeys(score.dictionary for score in self.means)
        return {
            name: ProbedRow(
                accuracy={s.k: s.accuracy for s in self.means if s.dictionary == name},
                selectivity={s.k: s.selectivity for s in self.means if s.dictionary == name},
            )
            for name in names
            if name != ALL
        }

    def table(self) -> str:
        """Plain text: the means, then every task at the smallest `k`."""
        lines = align([["", "k", "accuracy", "95 %", "control", "selectivity", "AUROC"], *map(_cells, self.means)])
        names = list(dict.fromkeys(score.dictionary for score in self.scores))
        smallest = min((score.k for score in self.scores), default=0)
        of = {(s.task, s.dictionary): s for s in self.scores if s.k == smallest or s.dictionary == ALL}
        head = [f"accuracy at k={smallest} (control)", "yes", *names]
        tasks = [
            [
                t.name,
                f"{t.base_rate:.1%}",
                *(f"{of[t.name, n].accuracy:.2f} ({of[t.name, n].control:.2f})" for n in names),
            ]
            for t in self.tasks
        ]
        skipped = [f"not asked: {name} ({why})" for name, why in self.skipped.items()]
        return "\n".join([*lines, "", *align([head, *tasks]), *skipped])


def _cells(score: ProbeScore) -> list[str]:
    ends = "" if score.low is None or score.high is None else f"{score.low:.3f}-{score.high:.3f}"
    numbers = [f"{value:.3f}" for value in (score.control, score.selectivity, score.auroc)]
    return [score.dictionary, str(score.k), f"{score.accuracy:.3f}", ends, *numbers]
