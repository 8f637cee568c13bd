"""Kill verbs at random moments, and run them again.

    python -m tests.campaigns.kill --n 200 --seed 0

A verb runs on tiny models in a fork of this process, and is killed (`kill -9`) at a moment drawn from its duration.
Then its artefact must be absent or whole. The same command runs again: it must give the content of a run that nobody
killed, or refuse with exit code 2 and its reason.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import saes  # noqa: F401 (registers its kinds of artefact)
from tests.campaigns import report

MODEL, HOOK = "small:mlp-2l", "blocks.1.hook_resid_post"
SIZES = ["--d-sae", "40", "--k", "4", "--batch-size", "256", "--checkpoint-every", "5", "--heldout-fraction", "0.4"]
TEXT = ["--tokens", "12000", "--context-length", "32", "--shard-contexts", "40"]
CHANGED = ["--prompts", "12", "--corpus", "random"]
VERBS: dict[str, tuple[str, str, list[str]]] = {
    "record": ("recording", "r", ["record", MODEL, "--name", "r", "--hook-points", HOOK, "mlps", *TEXT]),
    "train": ("sae", "one", ["train", "r", "--name", "one", "--hook-point", HOOK, "--tokens", "9000", *SIZES]),
    "set": ("transcoders", "set", ["train", "r", "--set", "set", "--tokens", "6000", *SIZES]),
    "features": ("features", "one", ["features", "one"]),
    "evaluate": ("evaluation", "one", ["evaluate", "one", "--contexts", "8"]),
    "atlas": ("atlas", "map", ["atlas", "sae:one", "--name", "map", "--n-neighbors", "5"]),
    "trace": ("attribution_graph", "g", ["trace", MODEL, "--name", "g", "--prompt", "a quick fox", "--set", "set"]),
    "changes": ("model_comparison", "m", ["compare", "models", "BASE", "TUNED", "--name", "m", *CHANGED]),
}
"""Kind and name of the artefact that a verb makes, and its command; each may need those before it."""
WORDS = ["--towards", "good", "great", "fine", "nice", "--away", "bad", "awful", "poor", "sad"]
TINY = ["--tokens", "40000", "--widths", "8", "16", "24", "32", "40", "--seeds", "0", "--n-checkpoints", "4"]
TINY += ["--batch-size", "32"]
VERBS |= {
    "shapes": ("word_geometry", "w", ["geometry", "shapes", MODEL, "--name", "w", "--lists", "weekdays", "digits"]),
    "direction": ("direction", "d", ["direction", MODEL, "--name", "d", "--lists", "weekdays", *WORDS]),
    "space": ("space", "s", ["geometry", "space", MODEL, "--name", "s", "--points", "200", "--hook-points", HOOK]),
    "layers": (
        "space_comparison",
        "c",
        ["geometry", "compare", MODEL, "--name", "c", "--points", "128", "--batch", "32"],
    ),
    "grok": ("grokking", "k", ["dynamics", "grok", "--name", "k", "--p", "13", "--epochs", "200", "--log-every", "20"]),
    "induction": ("induction_onset", "i", ["dynamics", "induction", "--name", "i", "--steps", "40", "--every", "4"]),
}
OUTCOMES = ("same content", "refused", "other content", "half an artefact", "failed again")


def checkpoints(folder: Path) -> tuple[str, str]:
    """Write a small model and a changed copy of it."""
    import torch

    from interp.models.small import SmallConfig, build_small, save_small

    config = SmallConfig(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=32)
    base = build_small(config, seed=0, device="cpu", dtype=torch.float32)
    save_small(base, config, folder / "base")
    with torch.no_grad():
        base.blocks[1].mlp.out.original_component.weight.mul_(20)  # pyright: ignore[reportCallIssue]
    save_small(base, config, folder / "tuned")
    return str(folder / "base"), str(folder / "tuned")


def in_fork(work: Callable[[], int], said: Path) -> int:
    """Start work in a fork, whose output goes to a file; return the process."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            code = work()
        except BaseException:  # whatever it is, the fork must not go on as a second campaign
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Campaign:
    """The verbs, the state that each begins from, and what it makes when nobody kills it."""

    def __init__(self, scratch: Path, verbs: Collection[str] = VERBS):
        self.scratch = scratch
        self.said = scratch / "said"
        base, tuned = checkpoints(scratch)
        words = {"BASE": base, "TUNED": tuned}
        self.commands = {
            name: [words.get(word, word) for word in command]
            for name, (_, _, command) in VERBS.items()
            if name in verbs
        }
        self.seconds: dict[str, float] = {}
        self.wanted: dict[str, str] = {}
        made = scratch / "made"
        made.mkdir()
        for name in self.commands:
            shutil.copytree(made, scratch / f"before-{name}")
            started = time.monotonic()
            code = code_of(in_fork(lambda name=name: self.run(name, str(made)), self.said))
            if code:
                raise SystemExit(f"{name} fails by itself ({code}): {self.said.read_text()[-2000:]}")
            self.seconds[name], self.wanted[name] = time.monotonic() - started, str(self.hash_in(made, name))

    def run(self, name: str, workspace: str, *more: str) -> int:
        from workbench.__main__ import main

        return main([*self.commands[name], *more, "--workspace", workspace, "--threads", "1"])

    def hash_in(self, workspace: Path | str, name: str) -> str | None:
        """Return the content hash of a verb's artefact, or None. Raises `ValueError` for one that is not whole."""
        from interp.artifacts import read_manifest, verify
        from interp.workspace import Workspace

        kind, made, _ = VERBS[name]
        opened = Workspace(workspace, create=True)
        if made not in opened.names(kind):
            return None
        folder = opened.path(kind, made)
        if problems := verify(folder):
            raise ValueError(problems[0])
        return read_manifest(folder).content_hash

    def case(self, number: int, seed: int) -> tuple[str, str]:
        """Kill one verb once, and run it again; return its outcome and details."""
        rng = random.Random(f"{seed} {number}")
        name = list(self.commands)[number % len(self.commands)]
        workspace = self.prepared(name)
        pid = in_fork(lambda: self.run(name, workspace), self.said)
        moment = rng.uniform(0, 1.1 * self.seconds[name])
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        code_of(pid)
        about = f"case {number}: {name} killed after {moment:.2f} of {self.seconds[name]:.2f} s"
        found = self.looked(name, workspace)
        if found.startswith("half"):
            return "half an artefact", f"{about}: {found}"
        if found == self.wanted[name]:
            return "same content", ""
        code = code_of(in_fork(lambda: self.run(name, workspace), self.said))
        text = self.said.read_text()
        if code == 2:
            return "refused", f"{about}: {text.strip().splitlines()[-1:]}"
        if code:
            return "failed again", f"{about}: {text[-1500:]}"
        now = self.looked(name, workspace)
        return ("same content", "") if now == self.wanted[name] else ("other content", f"{about}: {now}")

    def prepared(self, name: str) -> str:
        """Return a workspace as it is before the verb."""
        folder = self.scratch / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.scratch / f"before-{name}", folder)
        return str(folder)

    def looked(self, name: str, workspace: str) -> str:
        """Return the hash of the artefact in a workspace, as another process sees it; nothing where there is none."""
        answer = self.scratch / "answer"

        def look() -> int:
            try:
                found = self.hash_in(workspace, name) or ""
            except Exception as error:
                found = f"half: {error!r}"
            answer.write_text(found)
            return 0

        code_of(in_fork(look, self.said))
        return answer.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS), help="with those that each needs")
    parser.add_argument("--no-report", action="store_true", help="leave docs/trust.md as it is, as with --verbs")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    options.verbs = [name for name in VERBS if name in options.verbs]
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in options.verbs}
    with tempfile.TemporaryDirectory() as scratch:
        campaign = Campaign(Path(scratch), options.verbs)
        print(json.dumps({name: round(s, 1) for name, s in campaign.seconds.items()}), flush=True)
        for number in range(options.n):
            outcome, details = campaign.case(number, options.seed)
            outcomes[options.verbs[number % len(options.verbs)]][outcome] += 1
            if details:
                print(f"{outcome}: {details}", flush=True)
    some = "" if len(options.verbs) == len(VERBS) else f" --verbs {' '.join(options.verbs)}"
    command = f"`python -m tests.campaigns.kill --n {options.n} --seed {options.seed}{some}`"
    rows = [f"| {name} | {' | '.join(str(each[outcome]) for outcome in OUTCOMES)} |" for name, each in outcomes.items()]
    table = ["", f"{command}:", "", f"| verb | {' | '.join(OUTCOMES)} |", "|---" * (len(OUTCOMES) + 1) + "|", *rows]
    print("\n".join(table))
    if not options.no_report and not some:  # a table of some verbs would replace that of all
        report.put("kill", table)


if __name__ == "__main__":
    main()
