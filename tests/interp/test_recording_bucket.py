"""A recording whose workspace is a bucket: its shards are there as they finish, and another machine goes on with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import recorder
from s3_server import BUCKET, Server, another_machine, fresh, objects

from interp.artifacts import verify
from interp.errors import ConfigError, MismatchError, ResourceError
from interp.models.loading import load_model
from interp.recording.record import record
from interp.recording.recorded import Recorded
from interp.workspace import Workspace
from workbench.__main__ import main

FEW = replace(recorder.SETTINGS, tokens=1500)
KILLED = f"""
import torch
from recorder import SETTINGS, record_all
from dataclasses import replace
from interp.workspace import Workspace
torch.set_num_threads(1)
record_all(Workspace({BUCKET!r}, create=True).path("recording", "r"), 0.2, replace(SETTINGS, tokens=1500))
"""


def shards(workspace: Workspace) -> list[str]:
    return [name for name in objects(workspace) if name.startswith("unfinished/recordings/r/shards/")]


def run(workspace: Workspace, progress: Callable | None = None, **changed) -> Recorded:
    overwrite, config = changed.pop("overwrite", False), replace(FEW, **changed)
    model, where = load_model("small:attn-only-2l", seed=0), workspace.path("recording", "r")
    how = {"hook_points": recorder.HOOK_POINTS, "overwrite": overwrite, "progress": progress}
    made = record(model, recorder.documents(), where, config, **how)
    fresh(workspace)
    return made


def interrupt(workspace: Workspace, shard: int) -> None:
    def stop(done: int, total: int, info: dict) -> None:
        if info["shard"] == shard:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workspace, stop)


@pytest.fixture(scope="module")
def whole(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Files of the short recording in a folder, without any interruption."""
    return recorder.record_all(tmp_path_factory.mktemp("whole") / "recording", config=FEW).about.files


def test_killed_on_one_machine_it_goes_on_from_an_empty_folder_on_another(
    whole: dict, bucket: Workspace, tmp_path: Path
) -> None:
    paths = os.pathsep.join([str(Path(recorder.__file__).parent), *sys.path])
    environment = {**os.environ, "INTERP_CACHE": str(tmp_path / "dying"), "PYTHONPATH": paths}
    with subprocess.Popen([sys.executable, "-c", KILLED], env=environment) as process:
        while len(shards(bucket)) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    there = len(shards(bucket))
    assert fresh(bucket).names("recording") == [] == bucket.broken()
    other = another_machine(tmp_path)
    assert not list(other.root.rglob("*.safetensors"))
    computed: set[int] = set()
    made = run(other, lambda done, total, info: computed.add(info["shard"]))
    assert computed == set(range(there, len(made.shard_rows)))
    assert made.about.files == whole
    assert verify(other.path("recording", "r")) == []
    assert not [name for name in objects(other) if name.startswith("unfinished/")]


@pytest.mark.parametrize(("fault", "says"), [("500", "failed 6 times at writing"), ("403", "refused writing")])
def test_a_bucket_that_refuses_in_the_middle_is_named_and_what_was_recorded_stays(
    whole: dict, bucket: Workspace, server: Server, tmp_path: Path, fault: str, says: str
) -> None:
    server.fail(r"PUT .*/unfinished/.*/shards/.*/00002", fault, 1000)
    with pytest.raises(ResourceError, match=rf"{says} .*00002.*run the same command again"):
        run(bucket)
    assert ResourceError.exit_code == 2
    assert len(shards(bucket)) == 2
    server.faults.clear()
    server.log.clear()
    assert run(bucket).about.files == whole
    assert not server.asked("GET .*/files/")  # they are here
    assert not server.asked("PUT .*/shards/.*/0000[01]")
    assert verify(another_machine(tmp_path).path("recording", "r")) == []


def test_damage_of_unfinished_work_costs_one_shard(whole: dict, bucket: Workspace, tmp_path: Path) -> None:
    interrupt(bucket, 4)
    assert bucket.remote
    store, (first, second, *_) = bucket.remote.store, shards(bucket)
    store.write(first, b'{"shard": 0, "files": {"../../out": {"sha')
    store.write(second, store.read(second).replace(b'"sha256": "', b'"sha256": "0'))
    computed: set[int] = set()
    made = run(another_machine(tmp_path), lambda done, total, info: computed.add(info["shard"]))
    assert {0, 1} < computed
    assert 2 not in computed
    assert made.about.files == whole


def test_other_settings_are_refused_or_replace_it(bucket: Workspace, tmp_path: Path) -> None:
    interrupt(bucket, 2)
    other = another_machine(tmp_path)
    with pytest.raises(
        MismatchError, match=r"s3://.*unfinished/recordings/r holds an .* other settings; .*--overwrite"
    ):
        run(other, dtype="bfloat16")
    assert not list(other.root.rglob("*.partial"))  # or the settings it asks for would be refused there
    assert run(other, dtype="bfloat16", overwrite=True).settings.dtype == "bfloat16"


def test_shards_of_other_settings_are_never_taken_over(bucket: Workspace, tmp_path: Path) -> None:
    """A removal that was cut off leaves shards behind, and no word of their settings."""
    interrupt(bucket, 2)
    assert bucket.remote
    bucket.remote.store.remove(["unfinished/recordings/r/begun.json"])
    computed: set[int] = set()
    made = run(another_machine(tmp_path), lambda d, n, info: computed.add(info["shard"]), dtype="bfloat16")
    assert computed == set(range(len(made.shard_rows)))


def test_of_two_machines_that_record_the_same_the_first_wins(whole: dict, bucket: Workspace, tmp_path: Path) -> None:
    interrupt(bucket, 3)

    def finish_elsewhere(done: int, total: int, info: dict) -> None:
        if info["shard"] == 4 and not (tmp_path / "third").exists():
            run(another_machine(tmp_path, "third"))

    with pytest.raises(ConfigError, match="was written by another process"):
        run(bucket, finish_elsewhere)
    last = another_machine(tmp_path, "last")
    assert last.open(Recorded, "r").about.files == whole
    assert last.remote
    last.remote.store.write("unfinished/recordings/live/begun.json", b"{}")
    assert main(["verify", "--clean", "--hours", "0", "--workspace", BUCKET]) == 0
    assert "unfinished/recordings/live/begun.json" in objects(last)
