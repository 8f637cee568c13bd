"""Output of a benchmark: a table, or with `--json` a list of `{"question", "ratio", "target", "against"}`.

def run() -> list[Result]: ...
if __name__ == "__main__":
    main(run)
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One ratio, measured within one process."""

    question: str
    ratio: float
    target: float
    against: str
    """Baseline of the ratio."""
    detail: str
    """Absolute numbers and settings, for the reader of the table."""
    lower_is_better: bool

    @property
    def met(self) -> bool:
        """Return whether the ratio meets the target."""
        return self.ratio <= self.target if self.lower_is_better else self.ratio >= self.target


def at_least(question: str, ratio: float, target: float, against: str, detail: str = "") -> Result:
    """Return a ratio of which a higher one is better."""
    return Result(question, ratio, target, against, detail, lower_is_better=False)


def at_most(question: str, ratio: float, target: float, against: str, detail: str = "") -> Result:
    """Return a ratio of which a lower one is better."""
    return Result(question, ratio, target, against, detail, lower_is_better=True)


def main(run: Callable[[], list[Result]]) -> None:
    """Run a benchmark from the command line and print its results."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    as_json = parser.parse_args().json
    results = run()
    if as_json:
        print(json.dumps([as_record(result) for result in results], indent=1))
    else:
        print_table(results)


def as_record(result: Result) -> dict[str, str | float]:
    """Return the four fields of a result in JSON."""
    return {
        "question": result.question,
        "ratio": round(result.ratio, 4),
        "target": result.target,
        "against": result.against,
    }


def print_table(results: list[Result]) -> None:
    """Print the results as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("question", "ratio", "target", "met", "against", "detail")
    for result in results:
        sign = "<=" if result.lower_is_better else ">="
        met = "[green]yes[/]" if result.met else "[red]no[/]"
        table.add_row(
            result.question, f"{result.ratio:.3f}", f"{sign} {result.target:g}", met, result.against, result.detail
        )
    Console().print(table)


def interleaved(
    *functions: Callable[[], object], repeats: int = 5, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Measure the seconds per call of each function, `repeats` times each.

    Functions run in turns, so that a slow phase of the machine affects all of them. Compare `min` or `median` of the
    lists; the first `warm_up` rounds are not timed.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    for round_number in range(warm_up + repeats):
        for function, mine in zip(functions, seconds, strict=True):
            started = clock()
            function()
            if round_number >= warm_up:
                mine.append(clock() - started)
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median over rounds of `numerator[i] / denominator[i]`, as both of a round met the same load."""
    return statistics.median(n / d for n, d in zip(numerator, denominator, strict=True))
