"""Change the numeric core a little, many times, and count how often the tests notice.

    python -m tests.campaigns.mutants --n 100 --seed 0 [--files interp/statistics.py ...]

A mutant is one change of one file: an operator or a comparison swapped, a number moved, a condition negated. It lives
in a copy of the repository, and the tests named in `TESTS` run there until one fails. Mutants of a sample are drawn
from all files by `--seed`. A *survivor* passes every test: read it, and add a test or call it equivalent. Each run is
a fork of one process that has imported the heavy libraries, so a mutant costs little more than its tests. A mutant
that outlasts `--timeout` counts as killed.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns import report

ROOT = Path(__file__).parents[2]

UNTRAINED = "not training and not untrained and not reconstruction and not reversal and not table"
"""tests of `test_recovery.py` that train nothing"""

TESTS: dict[str, list[str]] = {
    "interp/nulls.py": ["tests/interp/test_nulls.py", "tests/interp/test_statistics.py"],
    "interp/statistics.py": [
        "tests/interp/test_statistics.py",
        "tests/saes/test_evaluate.py::test_intervals_of_ten_documents_hold_the_truth_as_often_as_those_of_many",
        "tests/saes/test_evaluate.py::test_a_document_counts_the_same_wherever_it_comes",
        "tests/saes/test_evaluate.py::test_few_documents_give_no_interval",
    ],
    "interp/circuits/_edge_scores.py": [
        "tests/interp/test_attribution.py",
        "tests/interp/test_circuit_evaluation.py::test_node_circuits_keep_all_edges_among_their_nodes",
        "tests/interp/test_circuit_evaluation.py::test_pruning_over_some_positions_takes_away_only_what_does_nothing",
    ],
    "saes/evaluation/matching.py": ["tests/saes/test_recovery.py", "-k", UNTRAINED],
    "saes/training/reconstruction.py": ["tests/saes/test_evaluate.py"],
    "saes/evaluation/synthetic.py": ["tests/saes/test_synthetic.py", "tests/saes/test_recovery.py", "-k", UNTRAINED],
    "saes/attribution/attribution.py": ["tests/saes/test_feature_attribution.py"],
    "saes/kernels/_plain.py": ["tests/saes/test_kernels.py"],
    "saes/kernels/step.py": ["tests/saes/test_kind_gradients.py", "tests/saes/test_kernels.py"],
    "saes/kernels/spread.py": ["tests/saes/test_kernels.py", "tests/saes/test_ranks.py"],
    "saes/kernels/compiled.py": ["tests/saes/test_kernels.py"],
    "saes/kernels/_selection.py": ["tests/saes/test_kernels.py"],
    "saes/evaluation/_scaling_law.py": ["tests/saes/test_scaling_law.py"],
    "saes/features/_labels.py": ["tests/saes/test_feature_labels.py", "tests/saes/test_feature_lexicon.py"],
    "saes/explain/run.py": ["tests/saes/test_explain_parsing.py", "tests/saes/test_explain_run.py"],
}
"""file -> arguments of pytest: the tests that must notice a change of it"""

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: str
    line: int
    change: str
    source: str
    """the whole file with the change"""


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Return every mutant of a file; annotations, docstrings, messages and decorators remain."""
    tree = ast.parse(source)
    found = []
    for at, node in enumerate(_nodes(tree)):
        for number in range(_n_changes(node)):
            changed = copy.deepcopy(tree)
            target = _nodes(changed)[at]
            what = _apply(target, number)
            ast.fix_missing_locations(changed)
            found.append(Mutant(file, getattr(node, "lineno", 0), what, ast.unparse(changed)))
    return found


def _nodes(tree: ast.AST) -> list[ast.AST]:
    return list(_walk(tree))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes whose change is a change of the numbers, in order."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(
                child, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom
            ):
                yield child
                yield from _walk(child)


def _n_changes(node: ast.AST) -> int:
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            return int(type(op) in SWAPPED)
        case ast.Compare(ops=[op]):
            return int(type(op) in SWAPPED)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            return 1
        case ast.Constant(value=bool()):
            return 1
        case ast.Constant(value=int() | float()):
            return 1
        case ast.IfExp():
            return 1
        case _:
            return 0


def _apply(node: ast.AST, number: int) -> str:
    before = ast.unparse(node)
    match node:
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp():
            node.op = SWAPPED[type(node.op)]()  # pyright: ignore[reportAttributeAccessIssue]
        case ast.Compare():
            node.ops = [SWAPPED[type(node.ops[0])]()]  # pyright: ignore[reportAttributeAccessIssue]
        case ast.UnaryOp():
            if isinstance(node.op, ast.Not):
                node.operand = ast.UnaryOp(ast.Not(), node.operand)
            else:
                node.op = ast.UAdd()
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant():
            node.value = node.value + 1 if isinstance(node.value, int) else node.value * 2 + (node.value == 0)  # pyright: ignore
        case ast.IfExp():
            node.body, node.orelse = node.orelse, node.body
    return f"{before} -> {ast.unparse(node)}"


def run_tests(copy_of: Path, tests: Sequence[str], timeout: int) -> bool:
    """Return True if all tests pass in a fork of this process that works in a copy of the repository."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        os.chdir(copy_of)
        sys.path[:0] = [str(copy_of)]
        os.environ["PYTHONPATH"] = str(copy_of)  # processes that a test starts (ranks, verbs) import the copy too
        sys.dont_write_bytecode = True
        import pytest

        options = ["-x", "-q", "-m", "not slow", "-p", "no:dash", "-p", "no:xdist"]
        os._exit(int(pytest.main([*options, *tests])))
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.alarm(timeout)
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    return os.waitstatus_to_exitcode(status) == 0


def sample(files: Sequence[str], n: int, seed: int) -> list[Mutant]:
    """Return `n` mutants of the files, as many of each file as its share of all allows."""
    rng = random.Random(seed)
    every = [mutant for file in files for mutant in mutants_of(file, (ROOT / file).read_text())]
    return sorted(rng.sample(every, min(n, len(every))), key=lambda each: (files.index(each.file), each.line))


def campaign(files: Sequence[str], n: int, seed: int, timeout: int) -> list[str]:
    """Run the sample and return the lines of the table and of the survivors."""
    import numpy  # noqa: F401  (heavy libraries, imported once for all forks)
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch

    torch.set_num_threads(1)
    counts, survivors = {file: [0, 0] for file in files}, []
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "copy"
        there.mkdir()
        for name in ("interp", "saes", "dashboard", "workbench", "tests"):
            shutil.copytree(ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
        shutil.copy(ROOT / "pyproject.toml", there)
        if (toys := ROOT / ".pytest_cache").exists():
            shutil.copytree(toys, there / toys.name)  # trained toys, which tests would train again
        for file in dict.fromkeys(files):
            began = time.monotonic()
            if not run_tests(there, TESTS[file], 4 * timeout):
                raise SystemExit(f"the tests of {file} fail without any change: {' '.join(TESTS[file])}")
            print(f"{file}: its tests take {time.monotonic() - began:.0f} s", flush=True)
        for mutant in sample(files, n, seed):
            path, before = there / mutant.file, (there / mutant.file).read_text()
            path.write_text(mutant.source)
            survived = run_tests(there, TESTS[mutant.file], timeout)
            path.write_text(before)
            counts[mutant.file][0] += 1
            counts[mutant.file][1] += not survived
            if survived:
                survivors.append(f"- `{mutant.file}:{mutant.line}` `{mutant.change}`")
            print("survived" if survived else "killed", mutant.file, mutant.line, mutant.change, flush=True)
    total, killed = (sum(each[i] for each in counts.values()) for i in (0, 1))
    rows = [f"| `{file}` | {made} | {dead} |" for file, (made, dead) in counts.items() if made]
    return ["| file | mutants | killed |", "|---|---|---|", *rows, f"| all | {total} | {killed} |", "", *survivors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=int, default=120, help="seconds for the tests of one mutant")
    parser.add_argument("--write", action="store_true", help="put the table into docs/trust.md")
    args = parser.parse_args()
    lines = campaign(args.files, args.n, args.seed, args.timeout)
    print("\n".join(lines))
    if args.write:
        report.put("mutants", [f"`python -m tests.campaigns.mutants --n {args.n} --seed {args.seed}`:", "", *lines])


if __name__ == "__main__":
    main()
