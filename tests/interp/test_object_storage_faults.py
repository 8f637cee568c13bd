"""A workspace in a bucket that fails: an artefact is whole or absent, faults are survived or named, damage is found.

The S3 server is moto's, on the loopback; faults are injected between it and the client.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_server import BUCKET, ROWS, Server, another_machine, filled, fresh, objects, write

from interp import remote, storage
from interp.artifacts import Draft, Manifest, verify
from interp.errors import CorruptError, ResourceError
from interp.workspace import Workspace
from workbench.__main__ import main

DYING = """
from s3_server import filled
from interp.workspace import Workspace
draft = filled(Workspace({url!r}, create=True), "demo", 5)
print("ready", flush=True)
draft.finish()
"""


def test_a_kill_during_the_upload_leaves_no_artefact_and_the_work_resumes(
    bucket: Workspace, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    server.fail(r"PUT .*/manifest\.json", "slow", 100)
    code = DYING.format(url=BUCKET)
    environment = {**os.environ, "INTERP_CACHE": str(tmp_path / "dying"), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        while not server.asked(r"PUT .*/values\.parquet"):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    server.faults.clear()
    assert any(name.endswith("values.parquet") for name in objects(bucket))
    assert fresh(bucket).names("sae") == [] == bucket.broken()
    assert main(["verify", "--workspace", BUCKET]) == 0
    assert main(["verify", "--clean", "--workspace", BUCKET]) == 0
    assert any(name.endswith("values.parquet") for name in objects(bucket))  # it could still be written
    assert main(["verify", "--hours", "0", "--workspace", BUCKET]) == 0
    assert "1 uploads older than 0 hours belong to no artefact" in capsys.readouterr().out
    assert main(["verify", "--clean", "--hours", "0", "--workspace", BUCKET]) == 0
    assert objects(bucket) == []
    again = another_machine(tmp_path, "dying")
    (partial,) = again.partials()
    assert (partial.name, partial.status["config"]) == ("demo", {"seed": 5})
    assert write_again(again).content_hash == write(bucket, "other", 5).content_hash


def write_again(workspace: Workspace) -> Manifest:
    draft = Draft.open(workspace.path("sae", "demo"), kind="sae", config={"seed": 5}, seed=5)
    assert draft.resumed
    return draft.finish()


def test_a_kill_after_the_pointer_leaves_an_artefact_and_no_unfinished_one(
    bucket: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = filled(bucket, "demo", 0)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bucket.remote, "version", killed)  # what follows the commit
        with pytest.raises(KeyboardInterrupt):
            draft.finish()
    assert another_machine(tmp_path).names("sae") == ["demo"]
    assert draft.path.is_dir()
    assert fresh(bucket).partials() == []
    os.utime(draft.path / "manifest.json", (0, 0))
    assert bucket.partials() == []
    assert not draft.path.is_dir()


@pytest.mark.parametrize("fault", ["500", "slow", "torn", "short", "spoilt"])
def test_a_failed_read_is_repeated(bucket: Workspace, server: Server, tmp_path: Path, fault: str) -> None:
    made = write(bucket)
    other = another_machine(tmp_path)
    server.fail(r"GET .*one\.bin", fault)
    server.fail(r"GET .*pointers", fault)
    assert (other.path("sae", "demo") / "parts" / "one.bin").read_bytes() == bytes(range(256)) * 40
    assert other.manifest("sae", "demo") == made


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("500", ResourceError, "failed 6 times at reading .*check the network"),
        ("short", CorruptError, "gave 5120 bytes, expected 10240"),
        ("spoilt", CorruptError, "has another checksum than expected"),
    ],
)
def test_a_read_that_always_fails_is_named_and_leaves_nothing(
    bucket: Workspace, server: Server, tmp_path: Path, fault: str, error: type[Exception], says: str
) -> None:
    write(bucket)
    folder = another_machine(tmp_path).path("sae", "demo")
    server.fail(r"GET .*one\.bin", fault, 1000)
    with pytest.raises(error, match=says):
        (folder / "parts" / "one.bin").read_bytes()
    assert list((tmp_path / "other").rglob("one.bin*")) == []
    server.faults.clear()
    assert len((folder / "parts" / "one.bin").read_bytes()) == 10240


def test_a_query_in_place_says_that_the_store_fails(
    bucket: Workspace, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "IN_PLACE", 0)
    write(bucket)
    other = another_machine(tmp_path)
    path = other.table_path("sae", "demo", "values")
    server.fail(r"GET .*values", "500", 1000)
    with pytest.raises(ResourceError, match="failed 6 times"):
        other.query("select count(*), sum(value) from t", t=path)
    server.faults.clear()
    server.fail(r"GET .*values", "short")
    assert other.query("select count(distinct value) as n from t", t=path)["n"][0].as_py() == ROWS


def test_a_store_that_is_gone_is_named_and_the_work_stays(bucket: Workspace, server: Server) -> None:
    draft = filled(bucket, "demo", 0)
    server.fail(r"PUT", "500", 1000)
    with pytest.raises(ResourceError, match="run the same command again"):
        draft.finish()
    server.faults.clear()
    assert bucket.names("sae") == []
    resumed = Draft.open(bucket.path("sae", "demo"), kind="sae", config={"seed": 0}, seed=0)
    assert resumed.resumed
    resumed.finish()
    assert verify(bucket.path("sae", "demo")) == []


def test_a_commit_whose_answer_is_lost_counts(bucket: Workspace, server: Server) -> None:
    server.fail(r"PUT .*/pointers/", "lost", 2)
    made = write(bucket)
    assert bucket.manifest("sae", "demo") == made
    server.fail(r"PUT .*/pointers/", "lost", 2)
    assert bucket.manifest("sae", "demo") != write(bucket, seed=1, overwrite=True) == bucket.manifest("sae", "demo")


def test_damage_in_the_bucket_is_found_whatever_the_cache_holds(
    bucket: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(bucket)
    write(bucket, "cut")
    write(bucket, "fine")
    assert bucket.remote
    store = bucket.remote.store
    (spoilt,) = [name for name in objects(bucket) if "/demo/" in name and name.endswith("one.bin")]
    store.write(spoilt, b"x" * 10240)
    (gone,) = [name for name in objects(bucket) if "/demo/" in name and name.endswith("values.parquet")]
    store.remove([gone])
    store.write("pointers/saes/cut.json", b'{"format": "interp-workbe')
    fresh(bucket)
    assert main(["verify", "--workspace", BUCKET]) == 1
    said = capsys.readouterr().out
    assert "DAMAGED  saes/demo" in said
    assert "parts/one.bin: content differs from its checksum" in said
    assert "values.parquet: missing" in said
    assert "DAMAGED  saes/cut" in said
    assert "not a pointer to an artefact" in said
    assert "ok       saes/fine" in said
    assert [each.name for each in another_machine(tmp_path).artifacts()] == ["demo", "fine"]


def test_a_pointer_or_manifest_cannot_lead_out(bucket: Workspace, tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="not a pointer"):
        storage.read_pointer(
            storage.Pointer("saes/a", "content/saes/a/../../../etc", "0" * 64, 5).as_bytes(), "pointers/saes/a.json"
        )
    draft = filled(bucket, "demo", 0)
    draft.finish()
    found = bucket.path("sae", "demo").found()  # type: ignore[attr-defined]
    assert found
    version = found[0]
    raw = json.loads((Path(version.home) / "manifest.json").read_text())
    raw["files"]["../../out"] = {"sha256": "0" * 64, "bytes": 1}
    text = json.dumps(raw).encode()
    (Path(version.home) / "manifest.json").write_bytes(text)
    edited = remote.Version(version.mirror, storage.Pointer("saes/demo", version.pointer.content, "unused", len(text)))
    with pytest.raises(CorruptError, match="outside the artefact"):
        edited.local("../../out")


def test_a_disk_that_cannot_hold_it_is_named_at_once(
    bucket: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(bucket)
    other = another_machine(tmp_path)
    assert other.remote
    calls = []

    def full(*_: object) -> None:
        calls.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(other.remote.store.files, "get_file", full)
    with pytest.raises(ResourceError, match=r"No space left on device; free space, lower INTERP_CACHE_GB"):
        (other.path("sae", "demo") / "about.json").read_text()
    assert len(calls) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="set INTERP_CACHE to another folder"):
        _ = remote.Mirror(BUCKET, frozenset()).root
