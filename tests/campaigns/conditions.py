"""Run verbs in bad conditions, and again in good ones.

    python -m tests.campaigns.conditions --n 50 --seed 0

- `full disk`: the workspace lies on a disk that is too small, or is filled by others at a random moment.
- `read-only disk`: the disk can only be read, from the start or from a random moment.
- `clock`: a verb is killed, its files get dates of tomorrow, and it goes on while the clock runs backwards.
- `two processes`: a second process starts the same command at a random moment, sometimes with another seed.
- `moved`: the workspace of a running dashboard is moved away, asked for, and moved back.

A verb that cannot go on must exit with code 2 and a message that names the next move, and what was written before must
be whole. The same command in good conditions must then give the content of an undisturbed run. The disks are mounted
in memory (tmpfs) where this process may mount. Elsewhere the error of the system is raised in the verb instead, at a
random one of its writes; the first line that is printed says which.
"""

import argparse
import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.campaigns import report
from tests.campaigns.kill import VERBS, Campaign, code_of, in_fork

OUTCOMES = ("same content", "condition not met", "other content", "lost", "unclear", "failed again")
SEEDED = ("record", "train", "set")
"""Verbs whose second process may have another seed."""
ROOM = 1 << 28
"""Bytes of a disk that is large enough."""


class Disk:
    """A small disk: mounted in memory where that is allowed, else a plain folder whose verbs are given errors."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.mounted = self._mount(f"size={ROOM}")

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "campaign", str(self.folder)]
        with contextlib.suppress(OSError):  # no such program
            return subprocess.run(command, capture_output=True).returncode == 0
        return False

    def set(self, options: str) -> bool:
        """Change the size of a mounted disk, or make it read-only (`ro`, `rw`)."""
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def leave(self, n_bytes: int) -> None:
        """Leave this many bytes of a mounted disk free."""
        about = os.statvfs(self.folder)
        assert self.set(f"size={(about.f_blocks - about.f_bfree) * about.f_frsize + max(4096, n_bytes)}")

    def remove(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True, capture_output=True)
        shutil.rmtree(self.folder)


def failing_writes(number: int, after: int) -> None:
    """From the write after so many on, let every atomic write of this process fail with an error of the system."""
    real, done = os.replace, [0]

    def replace(*paths: Any, **options: Any) -> None:
        done[0] += 1
        if done[0] > after:
            raise OSError(number, os.strerror(number))
        real(*paths, **options)

    os.replace = replace


def backwards(seconds: float = 37.0) -> None:
    """Let the clock of this process go back by so many seconds whenever it is read."""
    now, gmtime, localtime = [time.time()], time.gmtime, time.localtime

    def read() -> float:
        now[0] -= seconds
        return now[0]

    time.time = read
    time.gmtime = lambda at=None: gmtime(read() if at is None else at)
    time.localtime = lambda at=None: localtime(read() if at is None else at)


class Conditions:
    """The verbs of a campaign of kills, run in bad conditions."""

    def __init__(self, campaign: Campaign):
        self.campaign, self.scratch = campaign, campaign.scratch

    def case(self, number: int, seed: int) -> tuple[str, str, str]:
        """Run one case; return its condition, its outcome and details."""
        rng = random.Random(f"{seed} {number}")
        conditions = {"full disk": self.full, "read-only disk": self.read_only, "clock": self.clock,
                      "two processes": self.two, "moved": self.moved}  # fmt: skip
        condition = list(conditions)[number % len(conditions)]
        verbs = list(self.campaign.commands)
        verb = verbs[number // len(conditions) % len(verbs)]
        outcome, details = conditions[condition](verb, rng)
        return condition, outcome, f"case {number}: {condition}, {verb}: {details}" if details else ""

    def full(self, verb: str, rng: random.Random) -> tuple[str, str]:
        """Run a verb on a disk that is too small, or is filled by others at a random moment."""
        after = rng.randrange(12)
        with self._disk(verb) as (disk, workspace):
            if not disk.mounted:
                code = self._run(verb, workspace, lambda: failing_writes(errno.ENOSPC, after))
            elif rng.random() < 0.5:
                disk.leave(round(rng.uniform(0, 0.9) * self._bytes(verb)))
                code = self._run(verb, workspace)
            else:
                pid = in_fork(lambda: self.campaign.run(verb, workspace), self.campaign.said)
                time.sleep(rng.uniform(0, 0.9 * self.campaign.seconds[verb]))
                disk.leave(0)
                code = code_of(pid)
            disk.set(f"size={ROOM}")
            return self._judged(verb, workspace, code, "disk full while writing", " are free; ")

    def read_only(self, verb: str, rng: random.Random) -> tuple[str, str]:
        """Run a verb on a disk that can only be read, from the start or from some moment."""
        at_once = rng.random() < 0.5
        with self._disk(verb) as (disk, workspace):
            if not disk.mounted:
                code = self._run(verb, workspace, lambda: failing_writes(errno.EROFS, 0 if at_once else 9))
            elif at_once:
                assert disk.set("ro")
                if self._program("verify", "--workspace", workspace):
                    return "unclear", f"verify fails on a disk that can be read: {self._said()}"
                code = self._run(verb, workspace)
            else:
                code = self._read_only_later(verb, workspace, disk, rng)
            disk.set("rw")
            return self._judged(verb, workspace, code, "cannot write", "cannot open")

    def _read_only_later(self, verb: str, workspace: str, disk: Disk, rng: random.Random) -> int:
        pid = in_fork(lambda: self.campaign.run(verb, workspace), self.campaign.said)
        time.sleep(rng.uniform(0, self.campaign.seconds[verb]))
        while not disk.set("ro"):  # busy while a file is open for writing
            if (done := os.waitpid(pid, os.WNOHANG))[0]:
                return os.waitstatus_to_exitcode(done[1])
        return code_of(pid)

    def clock(self, verb: str, rng: random.Random) -> tuple[str, str]:
        """Kill a verb, date its files tomorrow, and go on with a clock that runs backwards."""
        workspace = self.campaign.prepared(verb)
        pid = in_fork(lambda: self.campaign.run(verb, workspace), self.campaign.said)
        time.sleep(rng.uniform(0, 0.9 * self.campaign.seconds[verb]))
        os.kill(pid, signal.SIGKILL)
        code_of(pid)
        for path in Path(workspace).rglob("*"):
            os.utime(path, (time.time() + 86_400,) * 2)
        if self.campaign.looked(verb, workspace) == self.campaign.wanted[verb]:
            return "condition not met", ""
        code = self._run(verb, workspace, backwards)
        return self._again(verb, workspace) if code == 0 else ("failed again", f"code {code}: {self._said()}")

    def two(self, verb: str, rng: random.Random) -> tuple[str, str]:
        """Let two processes write one name: one must win, and the other be refused."""
        workspace = self.campaign.prepared(verb)
        others = [[], ["--seed", "1"]] if verb in SEEDED else [[]]
        said = [self.scratch / "first", self.scratch / "second"]
        pids = [in_fork(lambda: self.campaign.run(verb, workspace), said[0])]
        time.sleep(rng.uniform(0, 0.7 * self.campaign.seconds[verb]) * (rng.random() < 0.5))
        more = rng.choice(others)
        pids.append(in_fork(lambda: self.campaign.run(verb, workspace, *more), said[1]))
        codes = [code_of(pid) for pid in pids]
        texts = [path.read_text() for path in said]
        if sorted(codes) != [0, 2]:
            return "unclear", f"codes {codes}: {texts[0][-900:]} and {texts[1][-900:]}"
        refused = texts[codes.index(2)]
        if not any(words in refused for words in ("by another process", "already there", "with other settings")):
            return "unclear", refused[-900:]
        if codes[1] == 0 and more:
            return ("lost", "the winner is damaged") if self._problems(workspace) else ("same content", "")
        return self._again(verb, workspace)

    def moved(self, _verb: str, rng: random.Random) -> tuple[str, str]:
        """Move the workspace of a running dashboard away and back."""
        from benchmarks.many_visitors import served
        from interp.workspace import Workspace

        folder, away = self.scratch / "shown", self.scratch / "away"
        if not folder.exists():
            shutil.copytree(self.scratch / "made", folder)
        with served(Workspace(folder)) as (port, _):
            before = answers(port)
            time.sleep(rng.random())
            folder.rename(away)
            meanwhile = answers(port)
            made_again = folder.exists()
            if made_again:
                shutil.rmtree(folder)
            away.rename(folder)
            after = answers(port)
        silent = [name for name, (status, text) in meanwhile.items() if status == 500 or str(folder) not in text]
        if silent or made_again:
            shown = {name: (meanwhile[name][0], meanwhile[name][1][:300]) for name in silent[:3]}
            return "unclear", f"made again: {made_again}; answers while it was away: {shown}"
        other = [name for name in before if before[name] != after[name]]
        return ("other content", f"answers after it was back: {other}") if other else ("same content", "")

    @contextlib.contextmanager
    def _disk(self, verb: str) -> Any:
        """Yield a disk, and on it the workspace as it is before a verb."""
        disk = Disk(self.scratch / "disk")
        try:
            workspace = disk.folder / "workspace"
            shutil.copytree(self.scratch / f"before-{verb}", workspace)
            yield disk, str(workspace)
        finally:
            disk.remove()

    def _run(self, verb: str, workspace: str, before: Callable[[], None] | None = None) -> int:
        def work() -> int:
            if before is not None:
                before()
            return self.campaign.run(verb, workspace)

        return code_of(in_fork(work, self.campaign.said))

    def _program(self, *words: str) -> int:
        from workbench.__main__ import main

        return code_of(in_fork(lambda: main(list(words)), self.campaign.said))

    def _said(self) -> str:
        return self.campaign.said.read_text()[-1500:].strip()

    def _judged(self, verb: str, workspace: str, code: int, *words: str) -> tuple[str, str]:
        """Return the outcome of a verb that met its condition with this code, and runs again in a good one."""
        said = self._said()
        if code == 0:
            return "condition not met", ""
        if code != 2 or not any(each in said for each in words) or "Traceback" in said:
            return "unclear", f"code {code}: {said}"
        if problems := self._problems(workspace):
            return "lost", problems
        if (code := self._run(verb, workspace)) != 0:
            return "failed again", f"code {code}: {self._said()}"
        return self._again(verb, workspace)

    def _again(self, verb: str, workspace: str) -> tuple[str, str]:
        found = self.campaign.looked(verb, workspace)
        if problems := self._problems(workspace):
            return "lost", problems
        return ("same content", "") if found == self.campaign.wanted[verb] else ("other content", found)

    def _problems(self, workspace: str) -> str:
        """Return what `verify` says of damage."""
        return self._said() if self._program("verify", "--workspace", workspace) else ""

    def _bytes(self, verb: str) -> int:
        from interp.workspace import Workspace, folder_bytes

        kind, made, _ = VERBS[verb]
        return folder_bytes(Workspace(self.scratch / "made").path(kind, made))


READS = ("artefacts", "features?features=one", "feature?features=one&index=3", "search?query=the", "notes?key=saes/one")
PAGES = (
    "",
    "feature/one/3",
    "sae",
    "atlas/map",
    "circuit",
    "graph/g",
    "changes",
    "heads",
    "geometry",
    "dynamics",
    "prompt",
)
_VISITOR = re.compile(r"\b[0-9a-f]{16}\b")
"""Random name of a visitor, in the page for prompts."""


def answers(port: int, reads: Sequence[str] = READS, pages: Sequence[str] = PAGES) -> dict[str, tuple[int, str]]:
    """Return the status and the text of reads of the API, and of pages as the browser asks for them."""
    from benchmarks.many_visitors import Log, Visitor

    visitor = Visitor(port, Log(), 0)
    found = {each: (visitor.ask("GET", f"/api/{each}"), visitor.status) for each in reads}
    found |= {f"/{each}": (visitor.open(f"/{each}"), visitor.status) for each in pages}
    plain = {each: text.decode().replace("\\u002f", "/") for each, (text, _) in found.items()}
    return {each: (status, _VISITOR.sub("", plain[each])) for each, (_, status) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS), help="with those that each needs")
    parser.add_argument("--no-report", action="store_true", help="leave docs/trust.md as it is, as with --verbs")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    outcomes: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        trial = Disk(Path(scratch) / "trial")
        trial.remove()
        disks = "mounted in memory" if trial.mounted else "injected, as this process may not mount"
        print(f"disks: {disks}", flush=True)
        campaign = Campaign(Path(scratch), options.verbs)
        print(json.dumps({name: round(s, 1) for name, s in campaign.seconds.items()}), flush=True)
        conditions = Conditions(campaign)
        for number in range(options.n):
            condition, outcome, details = conditions.case(number, options.seed)
            outcomes.setdefault(condition, Counter())[outcome] += 1
            if details:
                print(f"{outcome}: {details}", flush=True)
    some = "" if len(options.verbs) == len(VERBS) else f" --verbs {' '.join(options.verbs)}"
    command = f"`python -m tests.campaigns.conditions --n {options.n} --seed {options.seed}{some}`"
    rows = [f"| {name} | {' | '.join(str(each[outcome]) for outcome in OUTCOMES)} |" for name, each in outcomes.items()]
    table = ["", f"{command}, disks {disks}:", "", f"| condition | {' | '.join(OUTCOMES)} |"]
    table += ["|---" * (len(OUTCOMES) + 1) + "|", *rows]
    print("\n".join(table))
    if not options.no_report and not some:  # a table of some verbs would replace that of all
        report.put("conditions", table)


if __name__ == "__main__":
    main()
