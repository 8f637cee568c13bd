"""The campaigns: what they measure is right on known answers, and their reports land where the page has its markers."""

import ast
import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from interp.artifacts import write_json
from interp.errors import ResourceError
from interp.statistics import t_interval
from saes.kinds.base import Weights
from saes.kinds.l1 import ReLUSAE
from tests.campaigns import conditions, families, files, intervals, kill, proofs, report, requests
from tests.campaigns.mutants import TESTS, mutants_of


def test_coverage_is_counted_and_marked_outside_its_limits(monkeypatch):
    true = intervals.Case("mean", "normal", intervals.means(lambda rng, shape: rng.normal(1, 1, shape), 1.0, 8))
    wrong = intervals.Case(
        "mean", "wrong", intervals.means(lambda rng, shape: rng.normal(0, 1, shape), 1.0, 8), said="so"
    )
    narrow = intervals.Case(
        "half", "normal", lambda rng, n: intervals.holds(t_interval(rng.normal(size=(n, 8)), 0.5), 0.0)
    )
    null = intervals.Null("p", "uniform", lambda rng, n: rng.random(n))
    monkeypatch.setattr(intervals, "cases", lambda: [true, wrong, narrow])
    monkeypatch.setattr(intervals, "nulls", lambda: [null])
    lines = intervals.tables(2000, 0)
    rates = {line.split(" | ")[1]: line.split(" | ")[2] for line in lines if line.startswith("| mean")}
    assert 0.93 <= float(rates["normal"]) <= 0.97
    assert rates["wrong"].endswith("(low: so)")
    assert "(low)" in next(line for line in lines if line.startswith("| half"))
    p = next(line for line in lines if line.startswith("| p |")).split(" | ")
    assert float(p[2]) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("name", ["Wilson", "balanced", "recovered loss", "AUROC", "edge score"])
def test_each_kind_of_case_can_be_drawn(name):
    case = next(each for each in intervals.cases() if name in f"{each.name} {each.data}")
    found, n = intervals.measure(case, round(20 / case.share), 0)
    assert found.shape == (n,)
    assert found.dtype == bool
    assert np.array_equal(found, intervals.measure(case, round(20 / case.share), 0)[0]), "the seed decides"


def test_the_page_of_models_says_what_runs_on_gemma_3():
    """Norms on queries and keys, and after attention: every analysis runs."""
    tried = dict(row.strip("| ").split(" | ") for row in families.table(["gemma3"])[2:] if row.startswith("|"))
    rows = [row.strip("| ").split(" | ") for row in families.PAGE.read_text(encoding="utf-8").splitlines()]
    head = next(row for row in rows if row[0] == "analysis")
    page = {row[0]: row[head.index("gemma3")] for row in rows if row[0] in families.ANALYSES}
    assert {name: said[:2] for name, said in tried.items()} == {name: said[:2] for name, said in page.items()}
    assert [name for name, said in tried.items() if said != "yes"] == []


def test_a_report_replaces_what_stands_between_its_markers(tmp_path):
    page = tmp_path / "trust.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n")
    report.put("x", ["new"], page)
    assert page.read_text() == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
    with pytest.raises(ValueError, match="no place for this campaign"):
        report.put("y", ["new"], page)


def test_the_page_has_a_place_for_every_campaign(tmp_path):
    for campaign in (
        "intervals",
        "proofs",
        "proofs of g",
        "mutants",
        "files",
        "kill",
        "conditions",
        "requests",
    ):
        assert f"<!-- {campaign} -->" in report.PAGE.read_text()


def test_controls_of_a_proof_swap_what_is_read_and_what_is_written():
    generator = torch.Generator().manual_seed(0)
    weights = Weights(torch.randn(5, 8, generator=generator), torch.randn(8, generator=generator),
                      torch.randn(8, 5, generator=generator), torch.zeros(5))  # fmt: skip
    sae, x = ReLUSAE(weights), torch.randn(9, 5, generator=generator)
    same, turned = torch.arange(8), torch.arange(8).roll(1)
    shuffled, near_miss = proofs.permuted(sae, same, turned), proofs.permuted(sae, turned, turned)
    torch.testing.assert_close(shuffled.encode(x), sae.encode(x))
    torch.testing.assert_close(shuffled.W_dec, sae.W_dec[turned])
    torch.testing.assert_close(near_miss.encode(x), sae.encode(x)[:, turned])
    torch.testing.assert_close(near_miss.decode(near_miss.encode(x)), sae.decode(sae.encode(x)))


def test_a_table_of_proofs_counts_p_values_of_all_files_and_marks_those_that_chance_bounds(tmp_path):
    def write(name: str, p: dict[str, float], chosen_by: str = "firings"):
        controls = ("near miss", "as trained")
        rows = [{"control": one, "number": n, "chosen_by": chosen_by, "p": p} for one in controls for n in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    write("fires-steer", {"fires": 0.0125, "steer": 0.051})
    write("joined", {"joined": 0.05})
    lines = {line.split(" | ")[0]: line for line in proofs.table(tmp_path)}
    counts = ("3 of 3 (0.44 to 1.00)", "0 of 3 (0.00 to 0.56)")
    assert (
        lines["| as trained"] == f"| as trained | {counts[0]} | {counts[1]} | not tested | {counts[0]} | not tested |"
    )
    assert lines["| near miss"].startswith(f"| near miss | **{counts[0]}** | **{counts[1]}** |")
    write("lens", {"steer": 0.01}, "lens")
    assert {line.split(" | ")[0]: line for line in proofs.table(tmp_path)} == lines, "words of the lens do not count"


SOURCE = '''
def f(x: int = 3) -> int:
    """Add 1."""
    if x > 0 and not x == 5:
        raise ValueError(f"{x + 1} is wrong")
    return x + 2 if x else -x
'''


def test_mutants_change_one_thing_each_and_leave_text_alone():
    found = mutants_of("f.py", SOURCE)
    changes = {each.change for each in found}
    assert {"x > 0 -> x >= 0", "x == 5 -> x != 5", "x + 2 -> x - 2", "-x -> +x", "3 -> 4", "2 -> 3"} <= changes
    assert "x + 2 if x else -x -> -x if x else x + 2" in changes
    assert "x > 0 and (not x == 5) -> x > 0 or not x == 5" in changes
    assert not any("x + 1" in change for change in changes), "messages are not numbers"
    assert len({each.source for each in found}) == len(found)
    for each in found:
        assert ast.dump(ast.parse(each.source)) != ast.dump(ast.parse(SOURCE))


def test_the_negation_of_a_negation_is_what_stood_there():
    [found] = [each for each in mutants_of("g.py", "y = not a") if each.change.startswith("not")]
    assert eval(found.source.removeprefix("y = "), {"a": True}) is True


@pytest.mark.parametrize("file", TESTS)
def test_files_and_their_tests_exist(file):
    root = report.PAGE.parents[1]
    assert (root / file).exists()
    tests = [each for each in TESTS[file] if each.startswith("tests/")]
    assert tests
    assert all((root / each.split("::")[0]).exists() for each in tests)


def _run(module: str, *options: str) -> str:
    command = [sys.executable, "-m", f"tests.campaigns.{module}", "--no-report", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=report.PAGE.parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_damaged_files_are_refused_and_a_bad_reader_is_noticed(tmp_path):
    said = _run("files", "--n", "130", "--seed", "7")
    assert "0 leaked, 0 crashed, 0 executed, 0 hang" in said, said
    assert " 0 refused" not in said
    folder = tmp_path / "planted"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps({"a": 1}))
    readers = {
        "read": lambda path: (path / "a.json").read_bytes(),
        "leaked": lambda path: {}["key"],
        "executed": lambda path: subprocess.run(["true"], check=True),
        "hang": lambda path: time.sleep(60),
    }
    for outcome, reader in readers.items():
        subject = files.Subject(outcome, folder, reader)
        assert files.run_case(0, 0, [subject], tmp_path)[0] == outcome
    large = files.Subject("large", folder, lambda path: bytearray(2 * files.BYTES))
    assert "MemoryError" in files.run_case(0, 0, [large], tmp_path)[1]


def test_memory_that_grows_is_told_from_memory_that_settles():
    rng = np.random.default_rng(0)
    sent = list(range(100, 5100, 100))
    settled = [300 - 80 * np.exp(-n / 300) + rng.normal(0, 1) for n in sent]
    leaking = [each + 0.01 * n for each, n in zip(settled, sent, strict=True)]
    found = requests.Watched(sent, settled).growth()
    assert found.low <= 0 <= found.high
    found = requests.Watched(sent, leaking).growth()
    assert 0 < found.low < 10 < found.high


def test_a_small_disk_is_full_and_large_again(tmp_path):
    disk = conditions.Disk(tmp_path / "disk")
    try:
        if not disk.mounted:
            pytest.skip("this process may not mount")
        disk.leave(0)
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "a").write_bytes(bytes(1 << 16))
        assert disk.set("ro")
        with pytest.raises(OSError, match="Read-only"):
            (disk.folder / "b").write_bytes(b"b")
        assert disk.set(f"rw,size={conditions.ROOM}")
        (disk.folder / "a").write_bytes(bytes(1 << 16))
    finally:
        disk.remove()
    assert not disk.folder.exists()


def test_writes_can_be_made_to_fail_and_the_clock_to_run_backwards(tmp_path, monkeypatch):
    for name in ("time", "gmtime", "localtime"):
        monkeypatch.setattr(time, name, getattr(time, name))
    monkeypatch.setattr(os, "replace", os.replace)
    conditions.failing_writes(errno.ENOSPC, 1)
    write_json(tmp_path / "a.json", {})
    with pytest.raises(ResourceError, match="disk full"):
        write_json(tmp_path / "b.json", {})
    conditions.backwards()
    assert time.time() > time.time()
    assert time.strftime("%s", time.gmtime()) > time.strftime("%s", time.gmtime())


@pytest.mark.slow
def test_verbs_bear_bad_conditions():
    rows = [
        line for line in _run("conditions", "--n", "5", "--seed", "3", "--verbs", "record").splitlines() if "|" in line
    ]
    assert len(rows) == 2 + 5
    for row in rows[2:]:
        assert row.endswith("| 1 | 0 | 0 | 0 | 0 | 0 |") or row.endswith("| 0 | 1 | 0 | 0 | 0 | 0 |"), rows


@pytest.mark.slow
def test_a_dashboard_answers_requests_of_every_kind():
    said = _run("requests", "--n", "300", "--seed", "2")
    rows = [line.split("|") for line in said.splitlines() if line.startswith("| ")]
    assert len(rows) == 10
    assert int(rows[-1][1].replace(",", "")) >= 300
    assert {row[3].strip() for row in rows} == {"0"}, said


@pytest.mark.slow
def test_killed_verbs_give_what_undisturbed_ones_give():
    n = str(len(kill.VERBS))
    rows = [line for line in _run("kill", "--n", n, "--seed", "5").splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(kill.VERBS)
    assert all(row.endswith("| 1 | 0 | 0 | 0 | 0 |") for row in rows[1:]), rows
