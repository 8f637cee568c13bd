"""The queue of runs: real processes on a tiny model, cut off in every way; and the pages that queue them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from dash import no_update
from fake_live import FakeLive
from make_workspace import planted
from page_text import text_of

from dashboard.app import create_app
from dashboard.components.pages import artefact_href, empty_page, find_pages, first_step, open_again, run_button
from dashboard.data.features import one, unlabelled
from dashboard.feature.page import ask_for, ask_for_list
from dashboard.queue import QueuedRun, Report, RunQueue, how_far
from dashboard.runs.page import PAGE, entered
from dashboard.sources import current
from interp.artifacts import Draft, save_artefact, write_json
from interp.errors import ConfigError, ResourceError, UnknownNameError
from interp.workspace import Workspace
from saes.explain.endpoint import ENDPOINT, ENDPOINT_MODEL
from saes.features.case import ProofWords
from saes.features.proof import Proof, ProofSettings
from saes.features.schema import Features
from workbench.commands import Commands

HERE = {"Host": "127.0.0.1:8050"}
MODEL = "small:attn-only-1l"
HEADS = {"model": MODEL, "n_prompts": 2, "seeds": (0,)}
SLOW = {"model": "small:mlp-2l", "steps": 200_000, "n_contexts": 40, "context_length": 32, "checkpoint_every": 20}
"""A lens that is trained for hours, and saves its progress."""


@pytest.fixture
def queue(place: Workspace):
    """Return a working queue, ended with the test."""
    with queue_of(place, grace=20) as made:
        yield made


def wait_until(queue: RunQueue, id: str, reached: Callable[[QueuedRun], Any], seconds: float = 120) -> QueuedRun:
    """Wait until a run has come so far; return it."""
    end = time.monotonic() + seconds
    while not reached(run := queue.get(id)):
        assert time.monotonic() < end, f"{id} is {run.state} after {seconds} s; its log:\n{run.log}"
        time.sleep(0.05)
    return run


def wait(queue: RunQueue, id: str, *states: str, seconds: float = 120) -> QueuedRun:
    return wait_until(queue, id, lambda run: run.state in states, seconds)


def wait_for_progress(queue: RunQueue, id: str) -> QueuedRun:
    run = wait_until(queue, id, lambda run: run.fraction or not run.active)
    assert run.active, run
    return run


def test_runs_go_one_by_one_in_order_and_a_failure_gives_its_reason_and_stops_no_other(queue, place):
    first = queue.add("heads", {**HEADS, "name": "one"})
    again = queue.add("heads", {**HEADS, "name": "one", "seeds": (1,)})
    last = queue.add("heads", {**HEADS, "name": "two"})
    assert queue.add("heads", {**HEADS, "name": "two"}) == last, "the same command is not queued twice"
    assert [run.id for run in queue.all()] == [first, again, last]
    done = wait(queue, first, "done", "failed")
    assert (done.state, done.fraction, done.made) == ("done", 1.0, ["heads/one"])
    assert "wrote" in done.log
    failed = wait(queue, again, "failed", "done")
    assert "already there" in failed.problem
    ended = wait(queue, last, "done")
    assert ended.started >= failed.ended >= failed.started >= done.ended
    assert place.manifest("heads", "two").config["model"] == MODEL
    assert "heads small:attn-only-1l" in ended.command
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
from dashboard.queue import RunQueue
from interp.workspace import Workspace
from workbench.commands import Commands
place = Workspace(sys.argv[1])
queue = RunQueue(place, Commands(place)).start()
print(queue.add("lens", {options!r}), flush=True)
print(queue.add("heads", {heads!r}), flush=True)
time.sleep(600)
"""


@pytest.mark.slow
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
    with queue_of(place) as restarted:
        assert restarted.get(slow).state == "interrupted"
        assert wait(restarted, heads, "done", "failed").state == "done", "what waited goes on"
        restarted.resume(slow)
        wait_for_progress(restarted, slow)
        restarted.stop()
        assert restarted.get(slow).state == "interrupted"


def test_the_queue_needs_a_workspace_that_can_be_written(place):
    (place.root / "runs").write_text("in the way")
    blocked = RunQueue(place, Commands(place)).start()
    assert "cannot be written" in blocked.problem
    with pytest.raises(ResourceError, match="cannot be written"):
        blocked.add("heads", HEADS)
    assert blocked.all() == []
    blocked.stop()


def full_disk(monkeypatch, *, after_waiting: bool = False) -> pytest.MonkeyPatch:
    """Let every write of a run's record fail; `after_waiting`, not the one that queues it."""

    def fail(path: Path, value: Any) -> None:
        if after_waiting and value["state"] == "waiting":
            return write_json(path, value)
        raise ResourceError(f"disk full while writing {path}")

    monkeypatch.setattr("dashboard.queue.write_json", fail)
    return monkeypatch


def until(path: Path) -> tuple[str, ...]:
    """A program that says that it has begun, and ends once a file is there."""
    code = f"import pathlib, time; print('begun', flush=True)\nwhile not pathlib.Path({str(path)!r}).exists(): "
    return sys.executable, "-c", f"{code}time.sleep(0.05)"


def wait_for_output(queue: RunQueue, id: str) -> QueuedRun:
    return wait_until(queue, id, lambda run: "begun" in run.log, 20)


@contextlib.contextmanager
def queue_of(place: Workspace, **options: Any) -> Iterator[RunQueue]:
    """Start a queue, with another program than the workbench where one is given, and end it."""
    queue = RunQueue(place, Commands(place), **options)
    try:
        yield queue.start()
    finally:
        queue.stop()


def test_a_full_disk_fails_the_run_and_the_queue_goes_on(place, monkeypatch):
    with queue_of(place, program=(sys.executable, "-c", "print('wrote')")) as queue:
        with monkeypatch.context() as patch:
            full_disk(patch, after_waiting=True)
            id = queue.add("heads", HEADS)
            failed = wait(queue, id, "failed", seconds=20)
        assert "disk full" in failed.problem
        assert json.loads((place.root / "runs" / f"{id}.json").read_text())["state"] == "waiting"
        other = queue.add("heads", {**HEADS, "name": "other"})
        assert wait(queue, other, "done", "failed", seconds=20).state == "done"


def test_a_run_that_ends_on_a_full_disk_has_ended_here(place, monkeypatch):
    with queue_of(place, program=until(place.root / "go")) as queue:
        with monkeypatch.context() as patch:
            id = queue.add("heads", HEADS)
            wait_for_output(queue, id)
            full_disk(patch)
            (place.root / "go").touch()
            assert wait(queue, id, "done", "failed", seconds=20).state == "done"
        other = queue.add("heads", {**HEADS, "name": "other"})
        assert wait(queue, other, "done", "failed", seconds=20).state == "done", "the queue goes on"


def test_a_queue_opens_on_a_full_disk(place, monkeypatch):
    folder = place.root / "runs"
    folder.mkdir()
    left = {"id": "0001-heads", "verb": "heads", "options": HEADS, "command": "x", "state": "running", "place": 1}
    (folder / "0001-heads.json").write_text(json.dumps(left))
    full_disk(monkeypatch)
    with queue_of(place) as queue:
        assert queue.get("0001-heads").state == "interrupted"


def test_damaged_records_are_left_out(place):
    folder = place.root / "runs"
    folder.mkdir()
    (folder / "0001-heads.json").write_text("{not json")
    (folder / "0002-heads.json").write_text('{"id": "../../x"}')
    (folder / "0003-heads.json").write_text(json.dumps({"id": "0003-heads", "verb": 3}))
    with queue_of(place) as queue:
        assert queue.all() == []


def test_progress_gives_the_time_left_from_this_stage_alone():
    assert how_far(Report(done=30, total=40, first=10, since=100.0, now=104.0)) == (0.75, 2.0)
    assert how_far(Report(done=10, total=40, first=10, since=100.0, now=104.0)) == (0.25, None)
    assert how_far(Report(total=0)) == (None, None)
    assert how_far(Report()) == (None, None)


@pytest.fixture
def served(place, queue):
    """Return the page's application on the queue."""
    app = create_app(place, live=FakeLive(), runs=queue)
    with app.server.app_context():
        yield app


def test_the_page_shows_form_queue_and_artefacts(served, queue, place):
    planted(place, "recording", "demo", model=MODEL)
    shown = text_of(PAGE.layout(current(), verb="train", recording="demo"))
    assert "Start a run" in shown
    assert "recordings/demo" in shown
    assert "Nothing was run from here yet" in shown
    form = queue.catalogue.forms["train"]
    assert entered(form, {"recording": "demo", "tokens": "1100000", "skip": "no", "d_sae": []}) == {"recording": "demo"}
    assert entered(form, {"recording": "demo", "skip": "yes"}) == {"recording": "demo", "skip": True}
    for verb, chosen, name in (("prove", "12 french", "12"), ("direction", "demo:12 french", "demo:12")):
        assert entered(queue.catalogue.forms[verb], {"feature": chosen}) == {"feature": name}
    with pytest.raises(ConfigError, match="type a word of its label and choose one"):
        queue.catalogue.command("direction", {"model": MODEL, "feature": "french"})


def test_one_click_asks_the_chosen_endpoint_for_labels(served, workspace, monkeypatch):
    """Without an endpoint in the environment there is no button; with one, for a feature and for a list."""
    monkeypatch.delenv(ENDPOINT, raising=False)
    demo = workspace.open(Features, "demo")
    assert ask_for(demo, [1], "a") is None
    assert ask_for_list(workspace, "demo") is None
    monkeypatch.setenv(ENDPOINT, "http://localhost:9/v1")
    monkeypatch.setenv(ENDPOINT_MODEL, "my-model")
    assert "Ask my-model for a label" in text_of(ask_for(demo, [1], "a"))
    assert "excerpts of the recorded text to http://localhost:9/v1" in str(ask_for(demo, [1], "a"))
    listed = unlabelled(workspace, "demo", 3)
    rows = [one(workspace, "demo", index).row for index in listed]
    assert all(row.label_kind == "none" for row in rows)
    assert [row.n_fired for row in rows] == sorted((row.n_fired for row in rows), reverse=True)
    assert (ask_for_list(workspace, "demo") is None) == (not listed)


def test_without_a_queue_pages_show_commands_only(place):
    app = create_app(place, live=FakeLive())
    with app.server.app_context():
        assert "workbench" in text_of(PAGE.layout(current()))
        assert "runs no analyses" in text_of(run_button("heads", {"model": MODEL}, id="x", text="Run"))


def test_an_empty_page_opens_itself_once_there_is_something(served, place):
    assert open_again(1, "/sae") is no_update
    planted(place, "sae", "new", model=MODEL)
    assert open_again(2, "/sae") == "/sae?again=2"
    assert open_again(None, "/sae") is no_update
    assert open_again(3, "/no-page") is no_update


def test_an_empty_page_offers_the_button_that_fills_it(served):
    which = next(each for each in find_pages() if each.title == "Heads")
    shown = text_of(empty_page(which, current().workspace, MODEL))
    assert f"Run heads {MODEL}" in shown
    assert "In a terminal" in shown


def called(app, asks: str, inputs: list[Any], state: list[Any], changed: str) -> str:
    """Call back as a browser does: `asks` is in an input of the callback, `changed` is the property that was.

    Return the text of the answer.
    """
    client = app.server.test_client()
    client.get("/", headers=HERE)  # gives the key of the run
    known = client.get("/_dash-dependencies", headers=HERE).get_json()
    output = next(each["output"] for each in known if any(asks in one["id"] for one in each["inputs"]))
    targets = []
    for each in output.strip(".").split("..."):
        id, _, name = each.replace('["MATCH"]', '"x"').rpartition(".")
        targets.append({"id": json.loads(id) if id.startswith("{") else id, "property": name})
    body = {"output": output, "outputs": targets if output.startswith("..") else targets[0]}
    body |= {"inputs": inputs, "state": state, "changedPropIds": [changed]}
    answer = client.post("/_dash-update-component", json=body, headers=HERE)
    assert answer.status_code in (200, 204), answer.text
    assert "sideUpdate" not in answer.text, answer.text
    return answer.text


def at(kind: str, name: str, value: Any) -> dict[str, Any]:
    """Return a property of a part of a run's button, as a browser sends it."""
    return {"id": {"type": kind, "of": "x"}, "property": name, "value": value}


def test_only_its_button_queues_a_cancelled_run_again(served, queue):
    inputs = [at("run-go", "n_clicks", 1), at("run-clock", "n_intervals", 9)]
    state = [at("run-ask", "data", {"verb": "heads", "options": HEADS, "run": None, "then": ""})]
    called(served, "run-clock", inputs, state, '{"of":"x","type":"run-clock"}.n_intervals')
    assert queue.all() == []
    called(served, "run-clock", inputs, state, '{"of":"x","type":"run-go"}.n_clicks')
    assert len(queue.all()) == 1


def test_what_a_run_makes_is_opened_as_soon_as_it_is_there_where_the_page_asked_for_that(served, queue, monkeypatch):
    run = QueuedRun(id="0001-trace", verb="trace", options={}, state="running", command="")
    clock = '{"of":"x","type":"run-clock"}.n_intervals'
    for made, opens in product(([], ["graphs/first"]), (True, False)):
        monkeypatch.setattr(queue, "get", lambda _, made=made: replace(run, made=made))
        data = {"verb": "trace", "options": {}, "run": run.id, "then": "", "opens": opens}
        inputs = [at("run-go", "n_clicks", None), at("run-clock", "n_intervals", 9)]
        answer = called(served, "run-clock", inputs, [at("run-ask", "data", data)], clock)
        assert ("run-opens" in answer) == (opens and made != [])


def test_steps_towards_features_follow_what_is_there(place):
    assert first_step(place, MODEL) == ("record", {"model": MODEL})
    planted(place, "recording", "rec")
    assert first_step(place, MODEL) == ("train", {"recording": "rec"})
    planted(place, "sae", "dict", recording="rec")
    assert first_step(place, MODEL) == ("features", {"dictionary": "dict"})


def test_the_address_of_an_artefact_is_that_of_its_page(place):
    assert artefact_href(place, "atlases/a b") == "/atlas/a%20b"
    assert artefact_href(place, "edge-circuits/ioi").startswith("/circuit/edge-circuits")
    assert artefact_href(place, "recordings/demo") == "/"


def test_the_address_of_a_proof_is_that_of_the_feature_that_it_is_about(place):
    for name, features, feature in (("january-2", "demo-mine", 1669), ("no-digits", "demo", 3), ("damaged-7", "x", 1)):
        about = ProofSettings(features=features, feature=feature, model="m")
        proof = Proof(
            settings=about,
            label="",
            words=ProofWords((), ()),
            hook_point="h",
            strength=1.0,
            lens="",
            parts={},
            alike=(),
        )
        save_artefact(proof, place.path("proof", name))
    (place.path("proof", "damaged-7") / "manifest.json").write_text("{}")
    assert artefact_href(place, "proofs/january-2") == "/feature/demo-mine/1669"
    assert artefact_href(place, "proofs/no-digits") == "/feature/demo/3"
    assert artefact_href(place, "proofs/damaged-7") == artefact_href(place, "proofs/missing-7") == "/"


def test_a_running_run_is_cancelled_on_a_full_disk(place, monkeypatch):
    with queue_of(place, program=until(place.root / "never")) as queue, monkeypatch.context() as patch:
        id = queue.add("heads", HEADS)
        wait_for_output(queue, id)
        full_disk(patch)
        queue.cancel(id)
        assert wait(queue, id, "cancelled", "done", "failed", seconds=30).state == "cancelled"


@pytest.mark.parametrize(
    ("title", "offered"), [("SAE", "Run record small"), ("Changes", "Choose and run compare models")]
)
def test_empty_pages_lead_to_what_fills_them(served, title, offered):
    which = next(each for each in find_pages() if each.title == title)
    assert offered in text_of(empty_page(which, current().workspace, MODEL))


def test_the_overview_changes_with_the_workspace_and_only_then(served, place, queue):
    from dashboard.overview import page as overview

    def shown():
        parts = overview.layout(current())._traverse()
        return next(each.data for each in parts if getattr(each, "id", "") == "overview-shown")

    empty = shown()
    assert shown() == empty
    planted(place, "recording", "rec")
    made = shown()
    assert made[0] == empty[0], "no news"
    assert made[1] != empty[1], "another card"
    Draft.open(place.path("sae", "begun"), kind="sae", config={}, seed=0)
    begun = shown()
    assert all(before != after for before, after in zip(made, begun, strict=True))
    queue.add("lens", {**SLOW, "name": "slow"})
    assert "Run 0001-lens" in text_of(overview.layout(current()))
    queue.cancel("0001-lens")
    shutil.rmtree(place.root / "recordings/rec")
    assert shown()[1] not in (made[1], begun[1])
