"""A workspace in a bucket: same bytes and hashes as in a folder, one winner of several writers, deleting and the cache.

The S3 server is moto's, on the loopback.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from make_recording import recorded_of, settings_of
from s3_server import BUCKET, ROWS, Server, another_machine, filled, fresh, objects, write

from interp import remote, storage
from interp.artifacts import Draft, as_json, copy_artefact, read_manifest, save_artefact, verify, write_table
from interp.cache import FileCache
from interp.errors import ConfigError, MissingError, UnknownNameError
from interp.notes import Notes
from interp.recording.store import Recording
from interp.remote import RemotePath, as_path
from interp.workspace import Workspace, empty_trash, move_to_trash, restore, trashed
from workbench.__main__ import main


def test_an_artefact_has_the_bytes_and_hashes_of_one_in_a_folder(bucket: Workspace, tmp_path: Path) -> None:
    local = Workspace(tmp_path / "folder", create=True)
    here, there = write(local), write(bucket)
    assert there.content_hash == here.content_hash
    assert there.files == here.files
    other = another_machine(tmp_path)
    assert other.manifest("sae", "demo") == there
    assert [each.name for each in other.artifacts()] == ["demo"]
    assert other.key(there) == "saes/demo"
    for name in here.files:
        assert (other.path("sae", "demo") / name).read_bytes() == (local.path("sae", "demo") / name).read_bytes()
    assert bucket.partials() == other.partials() == other.broken() == []
    with pytest.raises(UnknownNameError, match=r"did you mean 'demo'.*s3://bucket/team/w"):
        other.manifest("sae", "dem")


def test_copies_go_both_ways(bucket: Workspace, tmp_path: Path) -> None:
    local = Workspace(tmp_path / "folder", create=True)
    made = write(local)
    copy_artefact(local.path("sae", "demo"), bucket.path("sae", "copy"))
    other = another_machine(tmp_path)
    assert other.manifest("sae", "copy").content_hash == made.content_hash
    copy_artefact(other.path("sae", "copy"), local.path("sae", "back"))
    assert verify(local.path("sae", "back")) == []
    with pytest.raises(ConfigError, match="already there"):
        copy_artefact(local.path("sae", "demo"), other.path("sae", "copy"))


def test_paths_answer_without_fetching(bucket: Workspace, tmp_path: Path, server: Server) -> None:
    write(bucket)
    folder = another_machine(tmp_path).path("sae", "demo")
    (folder / "manifest.json").read_bytes()
    server.log.clear()
    assert folder.is_dir()
    assert (folder / "parts").is_dir()
    assert (folder / "parts" / "one.bin").is_file()
    assert not (folder / "parts" / "two.bin").exists()
    assert (folder / "values.parquet").stat().st_size > 100_000
    names = ["about.json", "manifest.json", "parts", "values.parquet"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert sorted(path.name for path in folder.glob("*.json")) == names[:2]
    assert sorted(path.name for path in folder.rglob("*.bin")) == ["one.bin"]
    assert [path.name for path in folder.glob("parts/o*")] == ["one.bin"]
    assert f"{folder / 'about.json'}" == f"{BUCKET}/saes/demo/about.json"
    assert isinstance(as_path(str(folder)), RemotePath)
    assert server.log == []
    assert sorted(os.listdir(folder / "parts")) == ["empty", "one.bin"]  # a folder that is opened is fetched whole
    assert [line for line, _ in server.log if "values" in line] == []


def test_tables_are_read_in_place_row_group_by_row_group(
    bucket: Workspace, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "IN_PLACE", 0)
    monkeypatch.setattr(storage, "BLOCK", 1 << 14)
    write(bucket)
    other = another_machine(tmp_path)
    path = other.table_path("sae", "demo", "values")
    server.log.clear()
    found = other.query("select sum(value) as total from t where row between 9000 and 9010", t=path)
    expected = np.random.default_rng(0).normal(size=ROWS)[9000:9011].sum()
    assert found["total"][0].as_py() == pytest.approx(expected, abs=1e-12)
    n_read = sum(n for _, n in server.asked(r"GET .*values\.parquet"))
    assert 0 < n_read < path.stat().st_size / 2
    again = len(server.log)
    other.query("select sum(value) from t where row between 9000 and 9010", t=path)
    assert server.asked("GET")[again:] == []  # its blocks are in memory


def recording(workspace: Workspace) -> Recording:
    """A recording of three shards, its activations made up."""
    from safetensors.torch import save_file

    settings = settings_of(context_length=8, dtype="float32")
    draft = Draft.open(workspace.path("recording", "r"), kind="recording", config=as_json(settings), seed=0)
    for folder in ("tokens", "documents", "blocks.0.hook_resid_post"):
        (draft.path / folder).mkdir()
    for shard in range(3):
        number = torch.arange(64, dtype=torch.int32) + 64 * shard
        save_file({"tokens": number, "document": number // 16, "position": number % 16},
                  draft.path / "tokens" / f"{shard:05d}.safetensors")  # fmt: skip
        acts = torch.randn(64, 32, generator=torch.Generator().manual_seed(shard))
        save_file({"activations": acts}, draft.path / "blocks.0.hook_resid_post" / f"{shard:05d}.safetensors")
        begun = [4 * shard + i for i in range(4)]
        table = {"document": pa.array(begun, pa.int32()), "id": [f"d{i}" for i in begun], "label": ["x"] * 4}
        write_table(draft.path / "documents" / f"{shard:05d}.parquet", pa.table(table))
    save_artefact(recorded_of(settings, (64, 64, 64), 32), workspace.path("recording", "r"), draft=draft)
    return Recording(workspace.path("recording", "r"))


def test_recordings_are_read_shard_by_shard(bucket: Workspace, tmp_path: Path, server: Server) -> None:
    here, made = recording(Workspace(tmp_path / "folder", create=True)), recording(bucket)
    assert made.manifest.content_hash == here.manifest.content_hash
    far = Recording(another_machine(tmp_path).path("recording", "r"))
    server.log.clear()
    shard = far.activation_shard("blocks.0.hook_resid_post", 1)
    assert torch.equal(shard, here.activation_shard("blocks.0.hook_resid_post", 1))
    assert len(server.asked(r"\.safetensors")) == len(server.asked(r"resid_post/00001\.safetensors")) > 0
    assert far.documents() == here.documents()
    for one, two in zip(far.shuffled(batch_size=50, seed=3), here.shuffled(batch_size=50, seed=3), strict=True):
        assert torch.equal(one.rows, two.rows)
        assert torch.equal(*(each.activations["blocks.0.hook_resid_post"] for each in (one, two)))
    assert torch.equal(far.document_rows(7), here.document_rows(7))
    assert far.verify() == []


def test_of_two_writers_of_a_name_one_wins(bucket: Workspace, tmp_path: Path) -> None:
    first, second = filled(bucket, "demo", 1), filled(another_machine(tmp_path), "demo", 2)
    first.finish()
    with pytest.raises(ConfigError, match=r"s3://bucket/team/w/saes/demo was written by another.*--overwrite"):
        second.finish()
    third = another_machine(tmp_path, "third")
    assert third.manifest("sae", "demo").config == {"seed": 1}
    assert verify(third.path("sae", "demo")) == []
    assert len({name.split("/")[3] for name in objects(bucket) if name.startswith("content")}) == 1
    with pytest.raises(ConfigError, match="already there; choose another --name"):
        filled(third, "demo", 3)


def test_many_writers_at_once_have_one_winner(bucket: Workspace, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    drafts = [filled(another_machine(tmp_path, f"m{n}"), "demo", n) for n in range(4)]

    def finish(draft: Draft) -> bool:
        try:
            return bool(draft.finish())
        except ConfigError:
            return False

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(finish, drafts))
    assert sum(won) == 1
    last = another_machine(tmp_path, "last")
    assert last.manifest("sae", "demo").config == {"seed": won.index(True)}
    assert verify(last.path("sae", "demo")) == []


def test_of_two_that_replace_an_artefact_one_wins(bucket: Workspace, tmp_path: Path) -> None:
    write(bucket)
    first = filled(bucket, "demo", 1, overwrite=True)
    second = filled(another_machine(tmp_path), "demo", 2, overwrite=True)
    first.finish()
    with pytest.raises(ConfigError, match="was replaced or deleted by another writer"):
        second.finish()
    assert another_machine(tmp_path, "third").manifest("sae", "demo").config == {"seed": 1}
    assert fresh(bucket).manifest("sae", "demo").config == {"seed": 1}


def test_a_reader_keeps_its_version_while_another_replaces_it(
    bucket: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(bucket)
    other = another_machine(tmp_path)
    held = other.path("sae", "demo")
    assert read_manifest(held).config == {"seed": 0}
    write(bucket, seed=1, overwrite=True)
    assert json.loads((held / "about.json").read_text()) == {"seed": 0}  # fetched after it was replaced
    assert json.loads((fresh(other).path("sae", "demo") / "about.json").read_text()) == {"seed": 1}
    assert main(["verify", "--clean", "--workspace", BUCKET]) == 0  # the old version is young: its readers finish
    assert json.loads((bucket.path("sae", "demo") / "about.json").read_text()) == {"seed": 1}
    assert (held / "parts" / "one.bin").stat().st_size == 10240
    assert main(["verify", "--clean", "--hours", "0", "--workspace", BUCKET]) == 0
    assert "removed  content/saes/demo/" in capsys.readouterr().out
    with pytest.raises(MissingError, match="was replaced or deleted while it was read"):
        (held / "parts" / "one.bin").read_bytes()
    assert verify(other.path("sae", "demo")) == []


def test_the_cache_stays_within_its_limit_and_fetches_again(
    bucket: Workspace, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        write(bucket, name)
    monkeypatch.setattr(FileCache, "GRACE", 0.0)
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "other"))
    size = bucket.path("sae", "a").stat and (bucket.path("sae", "a") / "values.parquet").stat().st_size
    monkeypatch.setenv("INTERP_CACHE_GB", str(1.5 * size / 1e9))
    other = another_machine(tmp_path)
    for name in ("a", "b", "c", "a"):
        time.sleep(0.02)
        assert (other.path("sae", name) / "values.parquet").read_bytes()[:4] == b"PAR1"
        held = [path.stat().st_size for path in (tmp_path / "other").rglob("*") if path.is_file()]
        assert sum(held) <= 1.5 * size
    assert len(server.asked(r"GET .*/a/.*values")) == 2
    monkeypatch.setenv("INTERP_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="INTERP_CACHE_GB is a number of gigabytes, got 'much'"):
        (other.path("sae", "b") / "values.parquet").read_bytes()


def test_deleting_is_undone_or_final(bucket: Workspace, tmp_path: Path) -> None:
    made = write(bucket)
    gone = move_to_trash(bucket, "saes/demo")
    assert (gone.key, gone.n_bytes > 100_000, bucket.names("sae")) == ("saes/demo", True, [])
    other = another_machine(tmp_path)
    assert [each.entry for each in trashed(other)] == [gone.entry]
    assert main(["verify", "--clean", "--hours", "0", "--workspace", BUCKET]) == 0
    assert restore(other, gone.entry) == "saes/demo"
    assert other.manifest("sae", "demo") == made
    assert trashed(other) == []
    again = move_to_trash(other, "saes/demo")
    write(other, seed=1)
    with pytest.raises(ConfigError, match="written by another"):
        restore(other, again.entry)
    assert empty_trash(other) == again.n_bytes
    assert trashed(other) == []
    assert len({name.split("/")[3] for name in objects(other) if name.startswith("content/")}) == 1
    with pytest.raises(UnknownNameError):
        move_to_trash(other, "saes/none")


def test_notes_of_a_bucket_are_the_users_own(bucket: Workspace, tmp_path: Path) -> None:
    notes = Notes.open(bucket)
    notes.set("saes/demo", title="mine")
    assert not notes.in_workspace
    assert notes.path.is_relative_to(tmp_path / "data")
    assert Notes.open(another_machine(tmp_path) if write(bucket) else bucket).get("saes/demo").title == "mine"


def test_what_is_missing_is_said_with_the_next_move(
    bucket: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(MissingError, match="no workspace at s3://bucket/nothing"):
        Workspace("s3://bucket/nothing")
    with pytest.raises(MissingError, match=r"there is no elsewhere.*make the bucket first"):
        Workspace("s3://elsewhere/w", create=True)
    with pytest.raises(ConfigError, match="no store is known"):
        Workspace("nothing-such://b/w", create=True)
    assert Workspace(Path("s3://bucket//team/w/"), create=True).address == BUCKET
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")
    assert main(["verify", "--workspace", "s3://bucket/unseen"]) == 2
    assert "pip install '.[s3]'" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingError, match=r"needs fsspec and s3fs: pip install '\.\[s3\]'"):
        Workspace("s3://bucket/unseen-too")
