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
from interp.recording.recorded import RecordConfig, Recorded
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


def path(workspace: Workspace) -> Path:
    return workspace.path("recording", "r")


def shards(workspace: Workspace) -> list[str]:
    return [name for name in objects(workspace) if name.startswith("unfinished/recordings/r/shards/")]


def stopping(shard: int) -> Callable:
    """Return a progress that ends a recording in a shard as Ctrl-C does."""

    def stop(done: int, total: int, info: dict) -> None:
        if info["shard"] == shard:
            raise KeyboardInterrupt

    return stop


def record(
    workspace: Workspace, progress: Callable | None = None, config: RecordConfig = FEW, *, overwrite: bool = False
) -> Recorded:
    from interp.models.loading import load_model
    from interp.recording.record import record

    model = load_model("small:attn-only-2l", seed=0)
    where, points = path(workspace), recorder.HOOK_POINTS
    made = record(
        model, recorder.documents(), where, config, hook_points=points, overwrite=overwrite, progress=progress
    )
    fresh(workspace)
    return made


@pytest.fixture(scope="module")
def whole(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Files of the short recording in a folder, without any interruption."""
    return recorder.record_all(tmp_path_factory.mktemp("whole") / "recording", config=FEW).about.files


def test_killed_on_one_machine_it_goes_on_from_an_empty_folder_on_another(
    whole: dict, bucket: Workspace, server: Server, tmp_path: Path
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
    computed: list[int] = []
    made = record(other, lambda done, total, info: computed.append(info["shard"]))
    assert set(computed) == {n for n in range(len(made.shard_rows)) if n >= there}
    assert made.about.files == whole
    assert verify(path(other)) == []
    assert server.asked(r"PUT .*/content/.*tokens/")  # copied there within the store, not sent again
    assert not [name for name in objects(other) if name.startswith("unfinished/")]


@pytest.mark.parametrize(("fault", "says"), [("500", "failed 6 times at writing"), ("403", "refused writing")])
def test_a_bucket_that_refuses_in_the_middle_is_named_and_what_was_recorded_stays(
    whole: dict, bucket: Workspace, server: Server, tmp_path: Path, fault: str, says: str
) -> None:
    server.fail(r"PUT .*/unfinished/.*/shards/00002", fault, 1000)
    with pytest.raises(ResourceError, match=rf"{says} .*00002.*run the same command again"):
        record(bucket)
    assert len(shards(bucket)) == 2
    server.faults.clear()
    server.log.clear()
    assert record(bucket).about.files == whole
    assert not server.asked("GET .*/files/")  # they are here
    assert not server.asked("PUT .*/shards/0000[01]")
    assert verify(path(another_machine(tmp_path))) == []


def test_the_command_ends_with_one_error_and_resumes(
    bucket: Workspace, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text("\n\n".join(document.text for document in recorder.documents()))
    words = [
        *("record", "small:attn-only-2l", "--name", "r", "--corpus", str(corpus), "--tokens", "1500"),
        *("--context-length", "32", "--shard-contexts", "8", "--batch-size", "4", "--threads", "1"),
        *("--workspace", BUCKET),
    ]
    server.fail(r"PUT .*/unfinished/.*/shards/00001", "403", 1000)
    assert main(words) == 2
    assert capsys.readouterr().err.count("refused writing unfinished/recordings/r/shards/00001.json") == 1
    server.faults.clear()
    assert main(words) == 0


def test_damage_of_unfinished_work_costs_one_shard(whole: dict, bucket: Workspace, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(bucket, stopping(4))
    assert bucket.remote
    store, (first, second, *_) = bucket.remote.store, shards(bucket)
    store.write(first, b'{"shard": 0, "files": {"../../out": {"sha')
    store.write(second, store.read(second).replace(b'"sha256": "', b'"sha256": "0'))
    computed: set[int] = set()
    made = record(another_machine(tmp_path), lambda done, total, info: computed.add(info["shard"]))
    assert {0, 1} < computed
    assert 2 not in computed
    assert made.about.files == whole


def test_other_settings_are_refused_or_replace_it(bucket: Workspace, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(bucket, stopping(2))
    other, config = another_machine(tmp_path), replace(FEW, dtype="bfloat16")
    with pytest.raises(
        MismatchError, match=r"s3://.*unfinished/recordings/r holds an .* other settings; .*--overwrite"
    ):
        record(other, config=config)
    assert record(other, config=config, overwrite=True).settings.dtype == "bfloat16"


def test_of_two_machines_that_record_the_same_the_first_wins(
    whole: dict, bucket: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(bucket, stopping(3))

    def finish_elsewhere(done: int, total: int, info: dict) -> None:
        if info["shard"] == 4 and not (tmp_path / "third").exists():
            record(another_machine(tmp_path, "third"))

    with pytest.raises(ConfigError, match="was written by another process"):
        record(bucket, finish_elsewhere)
    last = another_machine(tmp_path, "last")
    assert last.open(Recorded, "r").about.files == whole
    assert verify(path(last)) == []
    assert last.remote
    last.remote.store.write("unfinished/recordings/r/begun.json", b"{}")  # of a machine that began after it
    last.remote.store.write("unfinished/recordings/live/begun.json", b"{}")
    assert main(["verify", "--clean", "--hours", "0", "--workspace", BUCKET]) == 0
    assert "unfinished/recordings/live/begun.json" in objects(last)
