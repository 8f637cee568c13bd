"""The queue of runs: real processes on a tiny model, cut off in every way, and options that try to break out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dashboard.runs.queue import RunQueue, how_far
from interp.errors import ConfigError, MissingError, ResourceError, UnknownNameError, WorkbenchError
from interp.workspace import Workspace
from workbench.commands import KNOWN_MODELS, OFFERED, Commands

MODEL = "small:attn-only-1l"
HEADS = {"model": MODEL, "n_prompts": 2, "seeds": (0,)}
SLOW = {"model": "small:mlp-2l", "steps": 200_000, "n_contexts": 40, "context_length": 32, "checkpoint_every": 20}
"""A lens that is trained for hours, and saves its progress."""


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """Return an empty workspace."""
    return Workspace(tmp_path / "workspace", create=True)


@pytest.fixture
def queue(place: Workspace):
    """Return a working queue, ended with the test."""
    made = RunQueue(place, Commands(place), grace=20).start()
    yield made
    made.stop()


def wait(queue: RunQueue, id: str, *states: str, seconds: float = 120):
    """Wait until a run has one of the states; return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run = queue.get(id)
        if run.state in states:
            return run
        time.sleep(0.1)
    raise AssertionError(f"{id} is {run.state} after {seconds} s; its log:\n{run.log}")


def wait_for_progress(queue: RunQueue, id: str, seconds: float = 120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run = queue.get(id)
        assert run.active, run
        if run.fraction:
            return run
        time.sleep(0.1)
    raise AssertionError(f"no progress after {seconds} s: {run}")


def test_runs_go_one_by_one_in_order_and_name_what_they_made(queue, place):
    first = queue.add("heads", {**HEADS, "name": "one"})
    second = queue.add("heads", {**HEADS, "name": "two"})
    assert queue.add("heads", {**HEADS, "name": "two"}) == second, "the same command is not queued twice"
    assert [run.id for run in queue.all()] == [first, second]
    done = wait(queue, first, "done", "failed")
    assert (done.state, done.fraction, done.made) == ("done", 1.0, ["heads/one"])
    assert "wrote" in done.log
    last = wait(queue, second, "done")
    assert last.started >= done.ended
    assert place.manifest("heads", "two").config["model"] == MODEL
    assert "heads small:attn-only-1l" in last.command


def test_a_failure_gives_the_reason_and_the_queue_goes_on(queue):
    queue.add("heads", {**HEADS, "name": "one"})
    again = queue.add("heads", {**HEADS, "name": "one", "seeds": (1,)})
    third = queue.add("heads", {**HEADS, "name": "three"})
    failed = wait(queue, again, "failed", "done")
    assert "already there" in failed.problem
    wait(queue, third, "done")
    queue.forget(again)
    with pytest.raises(UnknownNameError):
        queue.get(again)


def test_cancelled_work_is_kept_and_resumes_where_it_was(queue, place):
    id = queue.add("lens", {**SLOW, "name": "slow"})
    waiting = queue.add("heads", HEADS)
    assert wait_for_progress(queue, id).stage == "tuned lens"
    assert queue.get(waiting).state == "waiting"
    assert queue.using("lenses/slow").id == id
    queue.cancel(waiting)
    assert queue.get(waiting).state == "cancelled"
    time.sleep(1)
    queue.cancel(id)
    wait(queue, id, "cancelled")
    partial = place.root / "lenses" / "slow.partial"
    assert (partial / "status.json").exists()
    done = json.loads((partial / "status.json").read_text())["progress"]
    queue.resume(id)
    run = wait_for_progress(queue, id)
    assert run.fraction > 0
    assert json.loads((partial / "status.json").read_text())["progress"].get("step", 1) >= done.get("step", 0)
    queue.cancel(id)
    wait(queue, id, "cancelled")


SERVER = """
import sys, time
from dashboard.runs.queue import RunQueue
from interp.workspace import Workspace
from workbench.commands import Commands
place = Workspace(sys.argv[1])
queue = RunQueue(place, Commands(place)).start()
print(queue.add("lens", {options!r}), flush=True)
print(queue.add("heads", {heads!r}), flush=True)
time.sleep(600)
"""


def test_a_killed_server_takes_its_process_along_and_the_next_one_shows_it_as_interrupted(place):
    script = SERVER.format(options={**SLOW, "name": "slow"}, heads=HEADS)
    server = subprocess.Popen([sys.executable, "-c", script, str(place.root)], stdout=subprocess.PIPE, text=True)
    slow, heads = server.stdout.readline().strip(), server.stdout.readline().strip()
    onlooker = RunQueue(place, Commands(place)).start()
    assert "Another dashboard" in onlooker.problem
    with pytest.raises(ResourceError, match="Another dashboard"):
        onlooker.add("heads", HEADS)
    wait_for_progress(onlooker, slow)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    restarted = RunQueue(place, Commands(place)).start()
    try:
        assert restarted.get(slow).state == "interrupted"
        assert wait(restarted, heads, "done", "failed").state == "done", "what waited goes on"
        restarted.resume(slow)
        wait_for_progress(restarted, slow)
        restarted.stop()
        assert restarted.get(slow).state == "interrupted"
    finally:
        restarted.stop()


def test_the_queue_needs_a_workspace_that_can_be_written(place):
    (place.root / "runs").write_text("in the way")
    blocked = RunQueue(place, Commands(place)).start()
    assert "cannot be written" in blocked.problem
    with pytest.raises(ResourceError, match="cannot be written"):
        blocked.add("heads", HEADS)
    assert blocked.all() == []
    blocked.stop()


def test_damaged_records_are_left_out(place):
    folder = place.root / "runs"
    folder.mkdir()
    (folder / "0001-heads.json").write_text("{not json")
    (folder / "0002-heads.json").write_text('{"id": "../../x"}')
    (folder / "0003-heads.json").write_text(json.dumps({"id": "0003-heads", "verb": 3}))
    queue = RunQueue(place, Commands(place)).start()
    assert queue.all() == []
    queue.stop()


def test_progress_gives_the_time_left_from_this_stage_alone():
    assert how_far({"done": 30, "total": 40, "first": 10, "since": 100.0, "now": 104.0}) == (0.75, 2.0)
    assert how_far({"done": 10, "total": 40, "first": 10, "since": 100.0, "now": 104.0}) == (0.25, None)
    assert how_far({"done": None, "total": 0}) == (None, None)
    assert how_far({}) == (None, None)
