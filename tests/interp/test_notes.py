"""Notes: acts that survive a kill, writers that lose nothing to each other, and refusal of what is no note."""

import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from interp.errors import ConfigError, ConflictError, CorruptError, ResourceError, UnknownNameError, WorkbenchError
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


def test_what_is_set_is_there_for_the_next_who_opens(notes: Notes, workspace: Workspace):
    assert notes.get(KEY) == Note(key=KEY)
    assert not notes.path.exists(), "reading makes no file"
    notes.set(KEY, title=" months ", note="January to December\n<script>", starred=True, tags=["time", "dates"])
    notes.save_recipe(MONTHS)
    found = Notes.open(workspace)
    note = found.get(KEY)
    assert (note.title, note.note, note.starred) == ("months", "January to December\n<script>", True)
    assert note.tags == ("time", "dates")
    assert found.recipe("months up") == MONTHS
    assert found.all() == [note]
    assert found.titles() == {KEY: "months"}
    assert notes.export() == json.loads(notes.path.read_text())


def test_fields_that_are_not_given_stay_and_an_empty_note_goes(notes: Notes):
    notes.set(KEY, title="months", starred=True)
    notes.set(KEY, note="a text")
    found = notes.set(KEY, starred=False)
    assert (found.title, found.note, found.starred) == ("months", "a text", False)
    notes.set(KEY, title="", note=" ")
    assert notes.all() == []


def test_a_list_has_what_was_put_into_it_until_it_is_deleted(notes: Notes):
    keys = [f"features/demo#{n}" for n in (3, 1, 2)]
    for key in keys:
        notes.set(key, tags=["mine", "mine"], note="a text" if key == keys[0] else "")
    assert notes.lists() == {"mine": keys}
    notes.set(keys[1], tags=[])
    assert notes.lists() == {"mine": [keys[0], keys[2]]}
    notes.delete_list("mine")
    assert notes.lists() == {}
    assert [note.key for note in notes.all()] == keys[:1], "what has a text stays"
    with pytest.raises(UnknownNameError):
        notes.delete_list("mine")


def test_a_recipe_is_replaced_and_deleted_by_its_name(notes: Notes):
    notes.save_recipe(MONTHS)
    notes.save_recipe(replace(MONTHS, prompt="It is"))
    assert notes.recipes()["months up"].prompt == "It is"
    notes.delete_recipe("months up")
    with pytest.raises(UnknownNameError):
        notes.recipe("months up")


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
    assert set(notes.lists()["shared"]) == starred, "members added at once by both"
    for n in range(40):
        assert notes.get(f"features/demo#{n}").note in (f"a {n}", f"b {n}"), "the last one stays"


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


def test_threads_that_write_at_once_lose_nothing(notes: Notes):
    def write(name: str) -> None:
        for n in range(20):
            notes.set(f"saes/{name}-{n}", tags=["all"], note=name)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes.lists()["all"]) == len(notes.all()) == 80


# What is wrong with the file


@pytest.mark.parametrize(
    "content", ["not JSON", "[]", "{", '{"notes": [{"key": "../x"}]}', '{"version": 2}', '{"notes": 3}', '{"more": 1}']
)
def test_a_damaged_file_is_named_with_the_next_move_and_stays_as_it_is(notes: Notes, content: str):
    notes.path.write_text(content)
    for use in (notes.all, lambda: notes.set(KEY, note="x")):
        with pytest.raises(CorruptError, match=r"notes\.json.*move the file away"):
            use()
    assert notes.path.read_text() == content


def test_a_note_on_a_kind_of_another_version_stays_until_it_is_emptied(notes: Notes):
    notes.path.write_text('{"notes": [{"key": "departed/x", "note": "of before"}]}')
    notes.set(KEY, note="new")
    assert notes.get("departed/x").note == "of before"
    notes.set("departed/x", note="")
    with pytest.raises(UnknownNameError, match="folder of artefacts"):
        notes.set("departed/x", note="new")


def test_a_workspace_that_cannot_be_written_is_read_and_says_so(notes: Notes, workspace: Workspace, monkeypatch):
    notes.set(KEY, note="came with it")

    def shut(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("interp.notes.write_json", shut)
    with pytest.raises(ResourceError, match=r"cannot write .*notes\.json"):
        notes.set(KEY, note="new")
    assert Notes.open(workspace).get(KEY).note == "came with it"


def test_a_link_is_refused(workspace: Workspace, tmp_path: Path):
    (workspace.root / FILE).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ConfigError, match="link"):
        Notes.open(workspace)


def latent(dictionary: str) -> tuple[Intervention, ...]:
    return (replace(MONTHS_UP, target=Latent(dictionary=dictionary, index=1)),)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda notes: notes.set("../etc/passwd", starred=True), "folder/name"),
        (lambda notes: notes.set("nothing/demo", starred=True), "unknown folder"),
        (lambda notes: notes.set(KEY, starred=1), "should be a valid boolean"),
        (lambda notes: notes.set(KEY, note="x" * 20_001), "at most 20000"),
        (lambda notes: notes.set(KEY, note="\ud800"), "half a character"),
        (lambda notes: notes.set(KEY, title=["x"]), "should be a valid string"),
        (lambda notes: notes.set(KEY, tags=[" "]), "1 to 80 characters"),
        (lambda notes: notes.save_recipe(replace(MONTHS, name=" ")), "1 to 80 characters"),
        (lambda notes: notes.save_recipe(replace(MONTHS, steps=latent("saes/../x"))), "should be features/NAME"),
        (lambda notes: notes.save_recipe(replace(MONTHS, prompt="x" * 20_001)), "at most 20000"),
    ],
)  # fmt: skip
def test_what_is_no_note_is_refused_and_nothing_is_written(notes: Notes, act, says):
    with pytest.raises(WorkbenchError, match=says):
        act(notes)
    assert notes.all() == []


GRAPH = {"pins": ["feature:3:2:17"], "groups": [["say a city", ["feature:3:2:17", "logit:8:0"]]],
         "names": {"error:1:2": "<b>"}}  # fmt: skip


def test_edits_of_a_graph_yield_to_nobody(notes: Notes):
    assert notes.save_graph_edits("graphs/paris", GRAPH, was={}) == GRAPH
    with pytest.raises(ConflictError) as conflict:
        notes.save_graph_edits("graphs/paris", {"pins": ["logit:8:0"]}, was={})
    assert json.loads(conflict.value.theirs) == notes.graph_edits("graphs/paris") == GRAPH
    assert notes.save_graph_edits("graphs/paris", {}, was=GRAPH) == notes.graph_edits("graphs/paris") == {}


@pytest.mark.parametrize(
    ("key", "edits"),
    [
        ("features/demo", {}),
        ("graphs/a#1", {}),
        ("graphs/a", {"colour": "red"}),
        ("graphs/a", {"pins": ["../x"]}),
        ("graphs/a", {"groups": [["x"]]}),
        ("graphs/a", {"groups": [[" ", []]]}),
        ("graphs/a", {"names": {"token:0:4": "x" * 201}}),
        ("graphs/a", {"names": []}),
        ("graphs/a", {"groups": {}}),
    ],
)
def test_edits_that_no_graph_has_are_refused(notes: Notes, key: str, edits: dict):
    with pytest.raises(ConfigError):
        notes.save_graph_edits(key, edits, was={})
