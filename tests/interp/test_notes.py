"""Notes: acts that survive a kill, writers that lose nothing to each other, merges, and refusal of what is no note."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import notes as module
from interp.artifacts import as_json
from interp.entries import Merged
from interp.errors import (
    ConfigError,
    ConflictError,
    CorruptError,
    ResourceError,
    SchemaError,
    UnknownNameError,
    WorkbenchError,
)
from interp.interventions.intervention import Intervention, Latent
from interp.interventions.recipe import Recipe
from interp.notes import FILE, Note, Notes
from interp.workspace import Workspace

KEY = "features/demo#1669"
MONTHS_UP = Intervention(target=Latent(dictionary="features/demo", index=1669), amount=8.0)
MONTHS = Recipe(name="months up", steps=(MONTHS_UP,), prompt="It was")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace", create=True)


@pytest.fixture
def notes(workspace: Workspace) -> Notes:
    return Notes.open(workspace)


def export(notes: Notes) -> dict:
    return notes.entries.export()


def test_what_is_set_is_there_for_the_next_who_opens(notes: Notes, workspace: Workspace):
    assert notes.get(KEY) == Note(key=KEY)
    notes.set(KEY, title=" months ", note="January to December\n<script>", starred=True, tags=["time", "dates"])
    notes.save_search("months", "/search?q=January&features=demo")
    notes.save_recipe(MONTHS)
    notes.close()
    found = Notes.open(workspace)
    note = found.get(KEY)
    assert (note.title, note.note, note.starred) == ("months", "January to December\n<script>", True)
    assert note.tags == ("dates", "time")
    assert found.searches() == {"months": "/search?q=January&features=demo"}
    assert found.recipe("months up") == MONTHS
    assert found.all() == [note]


def test_fields_that_are_not_given_stay(notes: Notes):
    notes.set(KEY, title="months", starred=True)
    notes.set(KEY, note="a text")
    notes.set(KEY, starred=False)
    assert notes.get(KEY).title == "months"
    assert notes.get(KEY).note == "a text"
    assert not notes.get(KEY).starred


def test_lists_keep_their_order_and_lose_what_leaves_them(notes: Notes):
    keys = [f"features/demo#{n}" for n in (3, 1, 2)]
    for key in keys:
        notes.set(key, tags=["mine"])
    assert notes.lists() == {"mine": keys}
    notes.set_list("mine", keys[::-1])
    notes.set(keys[0], tags=[])
    assert notes.lists() == {"mine": [keys[2], keys[1]]}
    notes.delete("list", "mine")
    assert notes.lists() == {}
    notes.entries.restore(notes.entries.earlier("list")[0].id)
    assert notes.lists() == {"mine": [keys[2], keys[1]]}


def test_a_restored_list_retains_the_present_one(notes: Notes):
    old, new = ["features/demo#1", "features/demo#2"], ["features/demo#3"]
    notes.set_list("mine", old)
    notes.set_list("mine", new)
    notes.entries.restore(notes.entries.earlier("list")[0].id)
    assert notes.lists() == {"mine": old}
    assert [(each.value, each.reason) for each in notes.entries.earlier("list")] == [(new, "restore")]
    notes.entries.restore(notes.entries.earlier("list")[0].id)
    assert notes.lists() == {"mine": new}


def test_a_text_that_was_earlier_before_is_the_last_one_when_deleted(notes: Notes):
    for text in ("A", "B", "A"):
        notes.set(KEY, note=text)
    notes.delete("note", KEY)
    assert [each.value for each in notes.entries.earlier("note", KEY)] == ["A", "B"]
    assert notes.entries.earlier("note", KEY)[0].reason == "delete"


def test_the_second_writer_of_a_text_gets_the_first_ones_and_nothing_is_replaced(notes: Notes, workspace: Workspace):
    other = Notes.open(workspace)
    notes.set(KEY, note="mine", was={"note": ""})
    with pytest.raises(ConflictError, match="changed elsewhere") as caught:
        other.set(KEY, note="yours", title="too", was={"note": ""})
    assert caught.value.theirs == "mine"
    assert caught.value.field == "note"
    assert notes.get(KEY) == other.get(KEY)
    assert (notes.get(KEY).note, notes.get(KEY).title) == ("mine", "")
    other.set(KEY, note="mine and yours", was={"note": "mine"})
    other.set(KEY, note="mine and yours", was={"note": "an old text"})  # the same text is no conflict
    assert [each.value for each in notes.entries.earlier("note", KEY)] == ["mine"]


def test_a_replaced_or_deleted_text_can_be_restored(notes: Notes):
    notes.set(KEY, note="first")
    notes.set(KEY, note="second")
    notes.delete("note", KEY)
    assert notes.get(KEY).note == ""
    second, first = notes.entries.earlier()
    assert (second.value, second.reason, first.value, first.reason) == ("second", "delete", "first", "edit")
    notes.entries.restore(first.id)
    assert notes.get(KEY).note == "first"
    with pytest.raises(UnknownNameError):
        notes.entries.restore(first.id)


# Several processes

WRITER = """
import sys
from interp.notes import Notes
from interp.workspace import Workspace
notes = Notes.open(Workspace(sys.argv[1]))
for n in range(int(sys.argv[3])):
    notes.set(f"features/demo#{n}", note=f"{sys.argv[2]} {n}")
    notes.set(f"saes/{sys.argv[2]}-{n}", starred=True, tags=["shared"])
    print(n, flush=True)
"""


def start(workspace: Workspace, name: str, n: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(workspace.root), name, str(n)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_that_write_at_once_lose_nothing(workspace: Workspace):
    writers = [start(workspace, name, 40) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    notes = Notes.open(workspace)
    starred = {f"saes/{name}-{n}" for name in "ab" for n in range(40)}
    assert {note.key for note in notes.all() if note.starred} == starred
    assert set(notes.lists()["shared"]) == starred  # members added at once by both
    for n in range(40):
        texts = {notes.get(f"features/demo#{n}").note}
        texts |= {each.value for each in notes.entries.earlier("note", f"features/demo#{n}")}
        assert texts == {f"a {n}", f"b {n}"}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_kill_while_writing_loses_nothing_acknowledged(workspace: Workspace):
    writer = start(workspace, "a", 100_000)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(60)][-1]
    writer.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, writer.stdout.read().split("\n")[:-1])])
    writer.wait(30)
    notes = Notes.open(workspace)
    found = {note.key: note for note in notes.all()}
    for n in range(acknowledged + 1):
        assert found[f"features/demo#{n}"].note == f"a {n}"
        assert found[f"saes/a-{n}"].starred
    notes.set(KEY, note="it goes on")


def test_threads_share_one_connection(notes: Notes):
    def write(name: str) -> None:
        for n in range(20):
            notes.set(f"saes/{name}-{n}", tags=["all"], note=name)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes.lists()["all"]) == len(notes.all()) == 80


# Where the file lies, and what is wrong with it


def test_where_the_workspace_cannot_be_written_notes_lie_in_the_users_folder(workspace, tmp_path, monkeypatch):
    Notes.open(workspace).set(KEY, note="came with it")
    Notes.open(workspace).close()
    sqlite3.connect(workspace.root / FILE).execute("pragma wal_checkpoint(truncate)")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(workspace.root))
    before = (workspace.root / FILE).read_bytes()
    mine = Notes.open(workspace)
    assert not mine.in_workspace
    assert mine.path.is_relative_to(tmp_path / "data")
    assert mine.get(KEY).note == "came with it"
    mine.set(KEY, note="mine")
    assert Notes.open(workspace).get(KEY).note == "mine"
    assert (workspace.root / FILE).read_bytes() == before
    other = Workspace(tmp_path / "other", create=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert Notes.open(other).get(KEY).note == ""


@pytest.fixture
def unwritable(notes: Notes, workspace: Workspace, tmp_path: Path, monkeypatch) -> Path:
    """Return the user's data folder; the workspace cannot be written, and its log holds a note."""
    notes.set(KEY, note="in the log")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(workspace.root))
    return tmp_path / "data"


def test_notes_in_the_log_of_a_read_only_workspace_are_copied_too(unwritable: Path, workspace: Workspace):
    files = [workspace.root / FILE, workspace.root / f"{FILE}-wal"]
    before = [path.read_bytes() for path in files]
    assert before[1]
    mine = Notes.open(workspace)
    assert mine.path.is_relative_to(unwritable)
    assert mine.get(KEY).note == "in the log"
    assert [path.read_bytes() for path in files] == before
    mine.close()
    assert [path.name for path in mine.path.parent.iterdir()] == [mine.path.name]


def test_a_copy_that_is_cut_off_is_made_again(unwritable: Path, workspace: Workspace, monkeypatch):
    def full(source, target):
        Path(target).write_bytes(b"SQLite")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        with pytest.raises(ResourceError, match="disk full"):
            Notes.open(workspace)
    assert [path for path in unwritable.rglob("*") if path.is_file()] == []
    assert Notes.open(workspace).get(KEY).note == "in the log"


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\0" + bytes(2000)])
def test_a_damaged_file_is_named_with_the_next_move(workspace: Workspace, content: bytes):
    (workspace.root / FILE).write_bytes(content)
    with pytest.raises(CorruptError, match=r"notes\.sqlite.*move the file away"):
        Notes.open(workspace)
    assert (workspace.root / FILE).read_bytes() == content


def test_a_page_of_the_file_overwritten_is_damage(workspace: Workspace):
    notes = Notes.open(workspace)
    for n in range(300):
        notes.set(f"features/demo#{n}", note="x" * 200)
    notes.close()
    path = workspace.root / FILE
    whole = bytearray(path.read_bytes())
    whole[4096:] = b"\xff" * (len(whole) - 4096)
    path.write_bytes(whole)
    with pytest.raises(CorruptError, match="move the file away"):
        Notes.open(workspace)


def test_a_file_moved_away_while_open_is_started_anew(notes: Notes, workspace: Workspace, tmp_path: Path):
    notes.set(KEY, note="old")
    (workspace.root / FILE).rename(tmp_path / "kept.sqlite")
    assert notes.get(KEY) == Note(key=KEY)
    notes.set(KEY, note="new")
    assert Notes.open(workspace).get(KEY).note == "new"


def test_another_database_a_newer_version_and_a_link_are_refused(workspace: Workspace, tmp_path: Path):
    path = workspace.root / FILE
    with sqlite3.connect(path) as other:
        other.execute("create table bookmarks (url text)")
    other.close()
    with pytest.raises(CorruptError, match="something else"):
        Notes.open(workspace)
    path.unlink()
    Notes.open(workspace).close()
    with sqlite3.connect(path) as newer:
        newer.execute("pragma user_version = 9")
    newer.close()
    with pytest.raises(SchemaError, match="newer version"):
        Notes.open(workspace)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.sqlite")
    with pytest.raises(ConfigError, match="link"):
        Notes.open(workspace)


def test_a_writer_that_does_not_let_go_is_an_error_that_says_so(notes: Notes, workspace: Workspace, monkeypatch):
    monkeypatch.setattr("interp.entries.WAIT", 0.1)
    holder = sqlite3.connect(workspace.root / FILE, isolation_level=None)
    holder.execute("begin immediate")
    notes.close()
    with pytest.raises(ResourceError, match="locked"):
        notes.set(KEY, note="x")
    holder.execute("rollback")
    notes.set(KEY, note="x")


# Exchange


def test_an_export_carries_everything_to_another_workspace(notes: Notes, tmp_path: Path):
    notes.set(KEY, title="months", note="first", starred=True, tags=["time"])
    notes.set(KEY, note="second")
    notes.save_recipe(MONTHS)
    notes.save_search("m", "/search?q=x")
    notes.export(tmp_path / "notes.json")
    other = Notes.open(Workspace(tmp_path / "other", create=True))
    assert other.merge(tmp_path / "notes.json") == Merged(added=6)
    assert other.all() == notes.all()
    assert other.recipes() == notes.recipes()
    assert [each.value for each in other.entries.earlier()] == ["first"]
    assert other.merge(tmp_path / "notes.json") == Merged(same=6)


def test_of_two_texts_the_newest_stays_and_the_other_is_retained_either_way(tmp_path: Path):
    def made(name: str) -> Notes:
        return Notes.open(Workspace(tmp_path / name, create=True))

    old, new = made("old"), made("new")
    old.set(KEY, note="old text", title="only here")
    new.set(KEY, note="new text", starred=True)
    for here, there in ((old, new), (new, old)):
        here.entries.merge(export(there))
    for here in (old, new):
        assert (here.get(KEY).note, here.get(KEY).title, here.get(KEY).starred) == ("new text", "only here", True)
        assert [each.value for each in here.entries.earlier("note", KEY)] == ["old text"]


def test_lists_are_united_and_what_was_deleted_later_stays_deleted(tmp_path: Path):
    first, second = (Notes.open(Workspace(tmp_path / name, create=True)) for name in "ab")
    first.set("saes/a", tags=["mine"], note="gone")
    second.entries.merge(export(first))
    second.set("saes/b", tags=["mine"])
    second.delete("note", "saes/a")
    first.set("saes/c", tags=["mine"])
    first.entries.merge(export(second))
    assert sorted(first.lists()["mine"]) == ["saes/a", "saes/b", "saes/c"]
    assert first.get("saes/a").note == ""
    assert [each.value for each in first.entries.earlier("note")] == ["gone"]


def test_a_clock_ahead_does_not_win_for_ever(notes: Notes):
    ahead = export(notes) | {"entries": [entry("note", KEY, "from the future", edited="9999-01-01T00:00:00.000000Z")]}
    notes.entries.merge(ahead)
    notes.set(KEY, note="mine")
    notes.entries.merge(ahead | {"entries": [entry("note", KEY, "older", edited="2020-01-01T00:00:00.000000Z")]})
    assert notes.get(KEY).note == "mine"


def entry(kind, key, value, edited="2026-01-01T00:00:00.000000Z"):
    return {"kind": kind, "key": key, "value": value, "edited": edited}


STEP = as_json(MONTHS_UP)
WHOLE = {name: value for name, value in as_json(MONTHS).items() if name != "name"}


def stored(**changes):
    """A step of a recipe with other values; those of its target by their names."""
    target = {name: changes.pop(name) for name in ("index", "dictionary") if name in changes}
    return WHOLE | {"steps": [STEP | {"target": STEP["target"] | target} | changes]}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (entry("star", "../etc/passwd", True), "folder/name"),
        (entry("star", "nothing/demo", True), "unknown folder"),
        (entry("star", KEY, 1), "should be a valid boolean"),
        (entry("note", KEY, "x" * 20_001), "at most 20000"),
        (entry("note", KEY, "\ud800"), "value holds half a character"),
        (entry("title", KEY, ["x"]), "should be a valid string"),
        (entry("list", "mine", "saes/a"), "should be a valid array"),
        (entry("list", " ", []), "1 to 80 characters"),
        (entry("list", "mine", ["saes/a", "x"]), "folder/name"),
        (entry("search", "s", "https://evil.example"), "within the dashboard"),
        (entry("search", "s", "//evil.example"), "within the dashboard"),
        (entry("search", "s", "/\\evil.example"), "within the dashboard"),
        (entry("search", "s", "javascript:alert(1)"), "within the dashboard"),
        (entry("recipe", "r", WHOLE | {"steps": []}), "1 to 256 steps"),
        (entry("recipe", "r", stored(action="delete")), r"steps\.0\.action"),
        (entry("recipe", "r", stored(amount=float("nan"))), r"steps\.0\.amount"),
        (entry("recipe", "r", stored(index="1")), r"steps\.0\.target\.index"),
        (entry("recipe", "r", stored(dictionary="saes/../x")), "dictionary of a latent: should be features/NAME"),
        (entry("recipe", "r", stored(more=1)), r"steps\.0\.more is not a field"),
        (entry("recipe", "r", WHOLE | {"run": "rm"}), "run is not a field"),
        (entry("run", "r", 1), "unknown kind"),
        (entry("note", KEY, "x", edited="yesterday"), "edited should be a time"),
        ({"kind": "note"}, "key is missing"),
        (7, "should be an object"),
    ],
)
def test_one_malformed_entry_is_named_and_nothing_of_its_file_is_taken_in(notes: Notes, bad, says):
    document = export(notes) | {"entries": [entry("note", KEY, "good"), bad]}
    with pytest.raises(ConfigError, match=rf"entries\.1.*{says}"):
        notes.entries.merge(document)
    assert notes.all() == []


@pytest.mark.parametrize("document", [[], {}, {"format": "x"}, {"format": "workbench-notes"}, None, "text"])
def test_what_is_no_export_is_refused(notes: Notes, document):
    with pytest.raises(WorkbenchError, match="export"):
        notes.entries.merge(document)


def test_an_export_of_a_newer_version_and_a_file_too_large_are_refused(notes: Notes, tmp_path: Path, monkeypatch):
    with pytest.raises(ConfigError, match="upgrade"):
        notes.entries.merge(export(notes) | {"version": 2})
    (tmp_path / "large.json").write_text(json.dumps(export(notes)))
    monkeypatch.setattr(module, "MAX_FILE", 10)
    with pytest.raises(ConfigError, match="at most 10"):
        notes.merge(tmp_path / "large.json")


values = st.tuples(st.sampled_from(["note", "title"]), st.sampled_from(["saes/a", "saes/b"]), st.sampled_from("xyz"))


@settings(max_examples=25, deadline=None)
@given(st.lists(values, max_size=8), st.lists(values, max_size=8))
def test_merging_in_both_directions_agrees_and_loses_no_text(tmp_path_factory, ours, theirs):
    folder = tmp_path_factory.mktemp("merge")
    sides = [Notes.open(Workspace(folder / name, create=True)) for name in "ab"]
    for side, acts in zip(sides, (ours, theirs), strict=True):
        for kind, key, text in acts:
            side.set(key, **{kind: text})
    sides[0].entries.merge(export(sides[1]))
    sides[1].entries.merge(export(sides[0]))
    assert sides[0].all() == sides[1].all()
    for side in sides:
        here = {(kind, key, value) for kind, key, value, _ in side.entries.all()}
        here |= {(each.kind, each.key, each.value) for each in side.entries.earlier()}
        assert {*ours, *theirs} <= here
        side.close()


GRAPH = {"pins": ["feature:3:2:17"], "groups": [["say a city", ["feature:3:2:17", "logit:8:0"]]],
         "names": {"error:1:2": "<b>"}}  # fmt: skip


def test_edits_of_a_graph_survive_an_export_and_yield_to_nobody(notes: Notes, tmp_path: Path):
    assert notes.save_graph_edits("graphs/paris", GRAPH, was={}) == GRAPH
    with pytest.raises(ConflictError) as conflict:
        notes.save_graph_edits("graphs/paris", {"pins": ["logit:8:0"]}, was={})
    assert json.loads(conflict.value.theirs) == notes.graph_edits("graphs/paris") == GRAPH
    other = Notes.open(Workspace(tmp_path / "other", create=True))
    other.entries.merge(export(notes))
    assert other.graph_edits("graphs/paris") == GRAPH
    assert notes.save_graph_edits("graphs/paris", {}, was=GRAPH) == notes.graph_edits("graphs/paris") == {}


@pytest.mark.parametrize(
    ("key", "edits"),
    [
        ("features/demo", {}),
        ("graphs/a#1", {}),
        ("graphs/a", {"colour": "red"}),
        ("graphs/a", {"pins": ["../x"]}),
        ("graphs/a", {"groups": [["x"]]}),
        ("graphs/a", {"groups": {}}),
        ("graphs/a", {"groups": [[" ", []]]}),
        ("graphs/a", {"names": {"token:0:4": "x" * 201}}),
        ("graphs/a", {"names": []}),
    ],
)
def test_edits_that_no_graph_has_are_refused(notes: Notes, key: str, edits: dict):
    with pytest.raises(ConfigError):
        notes.save_graph_edits(key, edits, was={})
