"""How a benchmark tells its answer: a table, or with `--json` a list of `{"question", "ratio", "target", "against"}`.

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


@dataclass(frozen=True, kw_only=True)
class Result:
    """One ratio, measured within one process."""

    question: str
    ratio: float
    target: float
    against: str
    """what the ratio is taken against"""
    lower_is_better: bool = False
    detail: str = ""
    """absolute numbers and settings, for the reader of the table"""

    @property
    def met(self) -> bool:
        """Whether the ratio is on the right side of the target."""
        return self.ratio <= self.target if self.lower_is_better else self.ratio >= self.target


def main(run: Callable[[], list[Result]]) -> None:
    """Run a benchmark from the command line and print what it found."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    as_json = parser.parse_args().json
    results = run()
    if as_json:
        print(json.dumps([as_record(result) for result in results], indent=1))
    else:
        print_table(results)


def as_record(result: Result) -> dict[str, str | float]:
    """The four fields of the JSON form."""
    return {
        "question": result.question,
        "ratio": round(result.ratio, 4),
        "target": result.target,
        "against": result.against,
    }


def print_table(results: list[Result]) -> None:
    """The table a person reads."""
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
    """Seconds per call of each function, `repeats` of each, run in turns so that a slow spell of the machine hits all.

    Compare `min` or `median` of the lists; the first `warm_up` rounds are not timed.
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
    """Median over rounds of `numerator[i] / denominator[i]`: pairs of one round met the same weather."""
    return statistics.median(n / d for n, d in zip(numerator, denominator, strict=True))
