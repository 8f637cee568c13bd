"""An artefact is whole or visibly unfinished; damage, strangers and newer versions are told apart."""

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from interp.artifacts import (
    FOLDERS,
    KINDS,
    LOG,
    MANIFEST,
    STATUS,
    Draft,
    atomic_file,
    disk_errors,
    hash_json,
    partial_path,
    read_json,
    read_manifest,
    read_table,
    table_errors,
    verify,
    write_json,
    write_table,
)
from interp.errors import (
    ConfigError,
    CorruptError,
    MismatchError,
    MissingError,
    ResourceError,
    SchemaError,
    UnknownNameError,
)
from interp.workspace import Workspace

CONFIG = {"model": "m", "size": 3}


def draft(folder: Path, **changes) -> Draft:
    return Draft.open(folder, **{"kind": "heads", "config": CONFIG, "seed": 1, **changes})


def finished(folder: Path) -> Path:
    work = draft(folder)
    (work.path / "table.bin").write_bytes(b"some numbers")
    (work.path / "inner").mkdir()
    (work.path / "inner" / "more.bin").write_bytes(b"other numbers")
    work.finish(summary={"found": 2}, parents={"recordings/demo": "abc"})
    return folder


def test_a_finished_artefact_says_what_it_is_and_was_made_from(tmp_path: Path) -> None:
    manifest = read_manifest(finished(tmp_path / "a"))
    assert (manifest.kind, manifest.name, manifest.config, manifest.seed) == ("heads", "a", CONFIG, 1)
    assert manifest.parents == {"recordings/demo": "abc"}
    assert set(manifest.files) == {"table.bin", "inner/more.bin"}
    assert not partial_path(tmp_path / "a").exists()
    assert not (tmp_path / "a" / STATUS).exists()
    assert verify(tmp_path / "a") == []


def test_the_training_log_is_outside_the_content_hash_and_checked_all_the_same(tmp_path: Path) -> None:
    hashes = []
    for name, speed in (("a", "fast"), ("b", "slow")):
        work = draft(tmp_path / name)
        (work.path / "weights.bin").write_bytes(b"same")
        (work.path / LOG).write_text(speed)
        hashes.append(work.finish().content_hash)
    assert hashes[0] == hashes[1]
    assert verify(tmp_path / "a") == []
    (tmp_path / "a" / LOG).write_text("FAST")
    assert verify(tmp_path / "a") == [f"{LOG}: content differs from its checksum"]


def test_a_kind_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'heads'"):
        draft(tmp_path / "a", kind="head")


def test_the_content_hash_is_that_of_the_files_alone(tmp_path: Path) -> None:
    one, two = read_manifest(finished(tmp_path / "a")), read_manifest(finished(tmp_path / "b"))
    assert one.content_hash == two.content_hash
    work = draft(tmp_path / "c")
    (work.path / "table.bin").write_bytes(b"some numbers")
    assert work.finish().content_hash != one.content_hash


def test_unfinished_work_has_no_manifest_and_shows_its_progress(tmp_path: Path) -> None:
    work = draft(tmp_path / "a")
    work.update(done=3)
    work.update(total=9)
    status = read_json(work.path / STATUS)
    assert status["progress"] == {"done": 3, "total": 9}
    assert status["state"] == "running"
    with pytest.raises(MissingError, match="unfinished; run the same command again"):
        read_manifest(tmp_path / "a")


def test_the_same_settings_resume_and_keep_the_files(tmp_path: Path) -> None:
    first = draft(tmp_path / "a")
    assert not first.resumed
    (first.path / "part.bin").write_bytes(b"x")
    first.update(done=1)
    second = draft(tmp_path / "a")
    assert second.resumed
    assert (second.path / "part.bin").read_bytes() == b"x"
    assert read_json(second.path / STATUS)["progress"] == {"done": 1}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config": {**CONFIG, "size": 4}}, f"size {json.dumps(CONFIG.get('size'))} there, 4 asked for"),
        ({"seed": 2}, "seed 1 there, 2 asked for"),
        ({"kind": "lens"}, 'kind "heads" there, "lens" asked for'),
        ({"config": {**CONFIG, "text": "x" * 99}}, f'text null there, "{"x" * 56}... asked for'),
        ({"config": {**CONFIG, **dict.fromkeys("abcdef", 1)}}, "; 2 more)"),
    ],
)
def test_other_settings_are_named_and_refused_unless_overwriting(tmp_path: Path, changes: dict, named: str) -> None:
    first = draft(tmp_path / "a")
    (first.path / "part.bin").write_bytes(b"x")
    with pytest.raises(MismatchError, match="unfinished run with other settings") as error:
        draft(tmp_path / "a", **changes)
    assert named in str(error.value)
    fresh = draft(tmp_path / "a", overwrite=True, **changes)
    assert not fresh.resumed
    assert not (fresh.path / "part.bin").exists()


def test_a_full_disk_is_named_whichever_library_finds_it(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    with pytest.raises(ResourceError, match=r"disk full while writing .*a\.safetensors"), \
            atomic_file(tmp_path / "a.safetensors"):  # fmt: skip
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), disk_errors():
        raise SafetensorError("Error while deserializing header: InvalidHeader")


def test_a_disk_that_becomes_read_only_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    (tmp_path / "a.json.tmp").write_text("of an earlier try")
    for method in ("mkdir", "unlink"):
        monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(ResourceError, match=r"cannot write .*a\.json: Read-only file system"):
        write_json(tmp_path / "a.json", {})


def test_a_damaged_table_is_named_in_one_line(damage_file, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, pa.table({"feature": list(range(100))}))
    assert read_table(path, ["feature"]).num_rows == 100
    damage_file(path)
    with pytest.raises(CorruptError, match=r"cannot read .*t\.parquet: .*`workbench verify` checks it") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_a_table_of_a_user_is_not_one_to_verify(tmp_path: Path) -> None:
    with (
        pytest.raises(CorruptError, match=r"cannot read .*t\.csv: .*byte 0xff.*; write or copy the file again$"),
        table_errors(tmp_path / "t.csv", "write or copy the file again"),
    ):
        b"\xff".decode()


def in_another_process(work: Callable[[], object]) -> str:
    """Run something in a fork; return the message of the `ConfigError` that it raises, or nothing."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except ConfigError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    assert os.waitpid(pid, 0)[1] == 0
    return text


def test_of_two_processes_on_one_name_the_second_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    begun, may_end = fork.Event(), fork.Event()

    def write() -> None:
        first = draft(tmp_path / "a")
        (first.path / "part.bin").write_bytes(b"x")
        begun.set()
        may_end.wait(60)
        assert (first.path / "part.bin").read_bytes() == b"x"
        first.finish()

    other = fork.Process(target=write)
    other.start()
    assert begun.wait(60)
    for changes in ({}, {"seed": 2}, {"seed": 2, "overwrite": True}):
        with pytest.raises(ConfigError, match="is being written by another process; wait"):
            draft(tmp_path / "a", **changes)
    may_end.set()
    other.join(60)
    assert other.exitcode == 0
    assert "is already there" in in_another_process(lambda: draft(tmp_path / "a"))
    assert in_another_process(lambda: draft(tmp_path / "a", overwrite=True)) == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.partial"]


def test_what_a_process_leaves_unfinished_is_free_for_the_next_one(tmp_path: Path) -> None:
    assert in_another_process(lambda: draft(tmp_path / "a")) == ""
    assert draft(tmp_path / "a").resumed
    assert in_another_process(lambda: draft(tmp_path / "a")) == "", "nothing refers to the draft any more"


def test_a_finished_folder_is_replaced_only_when_asked_and_only_at_the_end(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a")
    before = read_manifest(folder).content_hash
    with pytest.raises(ConfigError, match="--overwrite"):
        draft(folder)
    again = draft(folder, overwrite=True)
    (again.path / "table.bin").write_bytes(b"new")
    assert read_manifest(folder).content_hash == before
    again.finish()
    assert set(read_manifest(folder).files) == {"table.bin"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_every_kind_of_damage_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a")
    (folder / "table.bin").write_bytes(b"some numberz")
    (folder / "inner" / "more.bin").write_bytes(b"short")
    assert verify(folder) == [
        "inner/more.bin: 5 bytes, the manifest says 13",
        "table.bin: content differs from its checksum",
    ]
    (folder / "table.bin").unlink()
    assert "table.bin: missing" in verify(folder)


def test_a_checksum_edited_to_fit_is_found(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a")
    (folder / "table.bin").write_bytes(b"some numberz")
    manifest = read_json(folder / MANIFEST)
    from interp.artifacts import sha256_file

    manifest["files"]["table.bin"]["sha256"] = sha256_file(folder / "table.bin")
    write_json(folder / MANIFEST, manifest)
    assert verify(folder) == ["manifest.json: the file list was edited (content hash differs)"]


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        ({"schema_version": 99}, SchemaError, "upgrade the workbench"),
        ({"schema_version": 1}, SchemaError, "make it again with `workbench heads ... --overwrite`"),
        ({"schema_version": None}, CorruptError, "schema_version is missing"),
        ({"files": ...}, CorruptError, "lacks files"),
        ({"unknown_field": 1}, CorruptError, "unknown_field is not part of a manifest"),
        *(
            ({"files": {name: {"sha256": "0" * 64, "bytes": 1}}}, CorruptError, "files has another form")
            for name in ("../../out", "/etc/passwd", "tables\\..\\out")
        ),
    ],
)
def test_manifests_that_cannot_be_trusted_are_refused(
    tmp_path: Path, edit: dict, error: type[Exception], message: str
) -> None:
    folder = finished(tmp_path / "a")
    manifest = {**read_json(folder / MANIFEST), **edit}
    (folder / MANIFEST).write_text(json.dumps({k: v for k, v in manifest.items() if v is not ...}))
    with pytest.raises(error, match=message):
        read_manifest(folder)


def test_an_atomic_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"

    def stop_halfway() -> None:
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert list(target.parent.iterdir()) == []
    with atomic_file(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "disk full"), (errno.EACCES, "cannot write"), (errno.EROFS, "--workspace")],
)
def test_disk_errors_say_what_to_do(tmp_path: Path, code: int, message: str) -> None:
    with pytest.raises(ResourceError, match=message), disk_errors(tmp_path):
        raise OSError(code, os.strerror(code))


def test_numbers_that_are_not_finite_do_not_reach_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_hash_json_follows_the_value() -> None:
    assert hash_json({"a": [1, 2]}) == hash_json({"a": (1, 2)}) != hash_json({"a": [2, 1]})


@pytest.mark.parametrize("text", ["[" * 200_000, '{"n": ' + "9" * 5000 + "}", "{", "\ud800"])
def test_json_that_cannot_be_read_is_corrupt(tmp_path, text):
    (tmp_path / "deep.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CorruptError, match=r"deep\.json is not valid JSON"):
        read_json(tmp_path / "deep.json")


def test_every_kind_has_a_section_in_the_formats_and_a_folder_of_its_own() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    headings = " ".join(line for line in text.splitlines() if line.startswith("## "))
    assert [folder for folder in FOLDERS.values() if f"{folder}/<name>" not in headings] == []
    assert len(set(FOLDERS.values())) == len(KINDS)


def test_artefacts_of_kinds_that_are_not_of_this_version_are_listed_and_left(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    (tmp_path / "cores" / "one").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert workspace.foreign() == []
    (tmp_path / "cores" / "one" / "manifest.json").write_text("{}")
    assert workspace.foreign() == ["cores/one"]
    assert workspace.artifacts() == workspace.broken() == []
    with pytest.raises(UnknownNameError, match="not of this version"):
        workspace.find("cores/one", *KINDS)
