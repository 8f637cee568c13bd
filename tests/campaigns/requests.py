"""Send many requests to a dashboard, and watch its memory.

    python -m tests.campaigns.requests --n 50000 --seed 0

The server is a process of its own, on the synthetic workspace of the tests. Visitors open its pages, call back as the
browser does, and read its API, without pauses. At every tenth of the requests the table has the server's memory (RSS),
the wrong answers, and the median and 99th percentile of the seconds of an answer. The first fifth warms up: caches
fill. After it, the growth per 1,000 requests is the mean over 40 stretches, with Student's 95 % interval. Where memory
is flat, that interval holds 0.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.many_visitors import N_FEATURES, Log, Visitor, resident, served
from interp.statistics import Interval, t_interval
from tests.campaigns import report

VISITORS = 3
STRETCHES = 50
WARM_UP = 0.2
READS = (
    "artefacts", "features?features=demo&text=the&limit=20", "feature?features=demo&index={at}",
    "examples?features=demo&index={at}", "uses?features=demo&index={at}", "regions?atlas=demo-features",
    "circuit?name=ioi", "notes?key=features/demo%23{at}",
)  # fmt: skip
"""Reads of the API; `{at}` is the number of a feature."""


@dataclass
class Watched:
    """Requests sent, and the memory of the server in MB at as many points."""

    sent: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def growth(self) -> Interval[float]:
        """Return the MB that 1,000 requests add after the warm-up."""
        sent, memory = np.array(self.sent), np.array(self.memory)
        warm = sent >= WARM_UP * sent[-1]
        return t_interval(1000 * np.diff(memory[warm]) / np.diff(sent[warm]))


def visit(port: int, process: int, n: int, seed: int) -> tuple[Log, Watched, list[str]]:
    """Send `n` requests; return their log, the memory, and the rows of the table."""
    log, watched, rows = Log(), Watched(), []
    visitors = [Visitor(port, log, seed + number) for number in range(VISITORS)]

    def act(visitor: Visitor) -> None:
        while len(log.seconds) < n and log.problems.total() < 1000:
            if visitor.rng.random() < 0.25:
                read = visitor.rng.choice(READS).format(at=visitor.rng.randrange(N_FEATURES))
                visitor.ask("GET", f"/api/{read}", kind="read")
            else:
                visitor.click()

    threads = [threading.Thread(target=act, args=(visitor,), daemon=True) for visitor in visitors]
    for thread in threads:
        thread.start()
    for stretch in range(1, STRETCHES + 1):
        while len(log.seconds) < n * stretch // STRETCHES and any(thread.is_alive() for thread in threads):
            time.sleep(0.02)
        watched.sent.append(len(log.seconds))
        watched.memory.append(resident(process))
        if stretch % (STRETCHES // 10) == 0:
            rows.append(_row(log, watched))
            print(rows[-1], flush=True)
    for thread in threads:
        thread.join(120)
    return log, watched, rows


def _row(log: Log, watched: Watched) -> str:
    middle, slow = np.quantile(log.of(), (0.5, 0.99))
    wrong = log.problems.total()
    return f"| {watched.sent[-1]:,} | {watched.memory[-1]:.1f} | {wrong} | {1e3 * middle:.0f} | {1e3 * slow:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-report", action="store_true", help="leave docs/trust.md as it is")
    options = parser.parse_args()
    from benchmarks.prompt_page import made_workspace

    with tempfile.TemporaryDirectory() as folder, served(made_workspace(Path(folder) / "workspace")) as (port, process):
        log, watched, rows = visit(port, process, options.n, options.seed)
    for problem, times in log.problems.most_common(10):
        print(f"{times} x {problem}", file=sys.stderr)
    found = watched.growth()
    flat = "flat" if found.low <= 0 <= found.high else "falling" if found.high < 0 else "growing"
    command = f"`python -m tests.campaigns.requests --n {options.n} --seed {options.seed}`"
    load = f"{os.getloadavg()[0]:.0f} processes wanted the {os.cpu_count()} cores at the end"
    lines = [
        "",
        f"{command} ({load}):",
        "",
        "| requests | MB | wrong | median, ms | 99th percentile, ms |",
        "|---|---|---|---|---|",
    ]
    lines += [*rows, "", f"After the warm-up 1,000 requests add {found:.2f} MB: {flat}."]
    print("\n".join(lines[-2:]))
    if not options.no_report:
        report.put("requests", lines)


if __name__ == "__main__":
    main()
