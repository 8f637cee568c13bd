"""Notes on the content of a workspace: stars, names, texts, lists, recipes, edits of graphs, in one JSON file.

    notes = Notes.open(workspace)
    notes.set("features/demo#9042", title="months", note="fires on January to December", starred=True)
    notes.recipes()["months up"].steps

A key names a thing: `folder/name` for an artefact, and `folder/name#part` for a part of one, such as a feature. The
file is `notes.json` in the workspace. A change takes a lock and replaces the whole file at once, so that a killed
process loses nothing that it acknowledged; of two changes of one value the last one stays. Torch-free.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MaxLen

from interp.artifacts import FOLDERS, as_json, disk_errors, read_json, write_json
from interp.errors import ConfigError, ConflictError, CorruptError, MissingError, UnknownNameError
from interp.forms import Passes, from_json, matches
from interp.interventions.recipe import Recipe
from interp.registry import kind_in, kinds_of
from interp.workspace import Workspace

FILE = "notes.json"
MAX_TITLE, MAX_NOTE, MAX_LIST = 200, 20_000, 10_000

_KEY = re.compile(r"([a-z-]{1,40})/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:#([A-Za-z0-9][A-Za-z0-9._:-]{0,63}))?")


def split_key(key: str) -> tuple[str, str, str]:
    """Return folder, name and part of a key (part empty without one). Raises `ConfigError` for a malformed one."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise ConfigError(f"a key is folder/name or folder/name#part, such as features/demo#12; got {key[:80]!r}")
    return match[1], match[2], match[3] or ""


def check_key(key: str) -> str:
    """Return the key of something to note on. Raises `ConfigError`, or `UnknownNameError` for a folder of no kind."""
    folder = split_key(key)[0]
    if not kind_in(folder):
        raise UnknownNameError("folder of artefacts", folder, FOLDERS.values())
    return key


def _graph_key(key: str) -> str:
    if kind_in(split_key(check_key(key))[0]) not in ("attribution_graph", *kinds_of("circuit")) or "#" in key:
        raise ConfigError("should be graphs/NAME or the key of a circuit, to which the edits belong")
    return key


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


_TEXT = matches(r"[^\0]*", "text without the character NUL")
Key = Annotated[str, matches(_KEY.pattern, "folder/name or folder/name#part")]
"""Perhaps of a kind of artefact that this version has no more."""
Name = Annotated[
    str, matches(r"(?!\s)[^\x00-\x1f\x7f]{1,80}(?<!\s)", "1 to 80 characters on one line, no space at either end")
]
Title = Annotated[str, MaxLen(MAX_TITLE), _TEXT]
Text = Annotated[str, MaxLen(MAX_NOTE), _TEXT]
Names = Annotated[tuple[Name, ...], MaxLen(MAX_LIST), Passes(_once)]
NodeId = Annotated[
    str,
    matches(
        r"(feature|error|token|logit)(:-?\d{1,10}){2,3}"  # of an attribution graph
        r"|(embed|logits|L\d{1,4}(H\d{1,4}|MLP|[a-z]{1,9}\.(\d{1,10}|error)))(@\d{1,7})?",  # of a circuit
        "a node id, such as feature:12:5:1033 or L5H1",
    ),
]
NodeIds = Annotated[tuple[NodeId, ...], MaxLen(MAX_LIST), Passes(_once)]


_Dictionary = Annotated[str, matches(r"(features|saes)/[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "features/NAME or saes/NAME")]


@dataclass(frozen=True, kw_only=True)
class GraphMarks:
    """Edits of a graph. Fields that are empty are not stored."""

    pins: NodeIds = ()
    groups: Annotated[tuple[tuple[Name, NodeIds], ...], MaxLen(MAX_LIST)] = ()
    names: dict[NodeId, Title] = field(default_factory=dict)


def graph_marks(key: str, edits: Mapping[str, object]) -> GraphMarks:
    """Return the edits of a graph or a circuit, checked. Raises `ConfigError`."""
    _graph_key(key)
    return from_json(GraphMarks, dict(edits), f"graph of {key}", "asked")


@dataclass(frozen=True, kw_only=True)
class Note:
    """Everything noted on one thing."""

    key: Key
    title: Annotated[Title, Passes(str.strip)] = ""
    """Name for display; empty: its own."""
    note: Annotated[Text, Passes(str.strip)] = ""
    starred: bool = False
    tags: Names = ()
    """Names of the lists that it is in."""
    edited: str = ""
    """Time of the last edit, UTC; empty: never."""


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Content of the file."""

    format: Literal["workbench-notes"] = "workbench-notes"
    version: Literal[1] = 1
    notes: tuple[Note, ...] = ()
    recipes: dict[Name, Recipe] = field(default_factory=dict)
    graphs: dict[Key, GraphMarks] = field(default_factory=dict)


class Notes:
    """The notes of one workspace; threads and processes may share them."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def open(cls, workspace: Workspace) -> "Notes":
        """Return the notes of a workspace; nothing is written before the first change.

        Raises `ConfigError` where the file is a link, `MissingError` where the workspace was moved away. A reading
        method raises `CorruptError` where the file is damaged, one that writes `ResourceError` where it cannot be
        written.
        """
        workspace.check_there()
        path = workspace.root / FILE
        if path.is_symlink():
            raise ConfigError(f"{path} is a link; put the file itself there: links may lead out of the workspace")
        return cls(path)

    def get(self, key: str) -> Note:
        """Return the note on one thing; an empty `Note` where none exists."""
        return next((note for note in self._read().notes if note.key == key), None) or Note(key=check_key(key))

    def all(self) -> list[Note]:
        """Return the note of every thing with a star, title, text or list, the last edited first."""
        return sorted(self._read().notes, key=lambda note: (note.edited, note.key), reverse=True)

    def titles(self) -> dict[str, str]:
        """Return the names that the user gave to things, by key."""
        return {note.key: note.title for note in self._read().notes if note.title}

    def set(
        self,
        key: str,
        *,
        title: str | None = None,
        note: str | None = None,
        starred: bool | None = None,
        tags: Sequence[str] | None = None,
    ) -> Note:
        """Change some fields of a thing's note, and return the whole."""
        changes = {"title": title, "note": note, "starred": starred, "tags": tags}
        now = {name: value for name, value in changes.items() if value is not None} | {"edited": _now()}

        def change(stored: _Stored) -> _Stored:
            notes = {entry.key: entry for entry in stored.notes}
            before = notes.get(key) or Note(key=check_key(key))
            notes[key] = from_json(Note, as_json(before) | now, "the note", "asked")
            return replace(stored, notes=tuple(entry for entry in notes.values() if entry != _empty(entry)))

        stored = self._change(change)
        return next((entry for entry in stored.notes if entry.key == key), Note(key=key))

    def lists(self) -> dict[str, list[str]]:
        """Return the lists by name, each with its keys, those noted first in front."""
        lists: dict[str, list[str]] = {}
        for note in self._read().notes:
            for name in note.tags:
                lists.setdefault(name, []).append(note.key)
        return dict(sorted(lists.items()))

    def delete_list(self, name: str) -> None:
        """Take everything out of a list. Raises `UnknownNameError`."""
        _check_known("list", name, self.lists())

        def change(stored: _Stored) -> _Stored:
            notes = (replace(entry, tags=tuple(tag for tag in entry.tags if tag != name)) for entry in stored.notes)
            return replace(stored, notes=tuple(entry for entry in notes if entry != _empty(entry)))

        self._change(change)

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipes by name."""
        return self._read().recipes

    def recipe(self, name: str) -> Recipe:
        """Return one recipe. Raises `UnknownNameError` with the nearest names."""
        recipes = self.recipes()
        _check_known("recipe", name, recipes)
        return recipes[name]

    def save_recipe(self, recipe: Recipe) -> None:
        """Save a recipe under its name, in place of one of the same name."""
        from_json(Name, recipe.name, "name", "asked")
        for latent in recipe.latents:
            from_json(_Dictionary, latent.dictionary, f"recipe {recipe.name!r}: dictionary of a latent", "asked")
        from_json(Text, recipe.prompt, "the prompt of a recipe", "asked")
        from_json(Title, recipe.model, "the model of a recipe", "asked")
        self._change(lambda stored: replace(stored, recipes={**stored.recipes, recipe.name: recipe}))

    def delete_recipe(self, name: str) -> None:
        """Delete a recipe. Raises `UnknownNameError`."""
        self.recipe(name)
        self._change(
            lambda stored: replace(stored, recipes={key: it for key, it in stored.recipes.items() if key != name})
        )

    def graph_edits(self, key: str) -> dict[str, Any]:
        """Return the edits of an attribution graph or a circuit by its key; empty without any. Fields: `GraphMarks`."""
        marks = self._read().graphs.get(key, GraphMarks())
        return {name: value for name, value in as_json(marks).items() if value}

    def save_graph_edits(self, key: str, edits: Mapping[str, object], *, was: Mapping[str, object]) -> dict[str, Any]:
        """Replace the edits of a graph, and return them as they are stored.

        `was` has the edits that the writer started from; where they have changed since, nothing is written and
        `ConflictError` is raised.
        """
        marks = graph_marks(key, edits)

        def change(stored: _Stored) -> _Stored:
            theirs = self.graph_edits(key)
            if theirs not in (dict(was), {name: value for name, value in as_json(marks).items() if value}):
                raise ConflictError(
                    f"the edits of {key} were changed elsewhere meanwhile; load them again, or replace them",
                    theirs=json.dumps(theirs),
                    field="graph",
                )
            return replace(stored, graphs={**stored.graphs, key: marks})

        self._change(change)
        return self.graph_edits(key)

    def export(self) -> dict[str, Any]:
        """Return everything as plain JSON values, as the file has it (docs/formats.md)."""
        return as_json(self._read())

    def _read(self) -> _Stored:
        """Return the content of the file. Raises `CorruptError`, which names the first wrong value."""
        try:
            return from_json(_Stored, read_json(self.path), self.path)
        except MissingError:
            return _Stored()
        except CorruptError as error:
            raise CorruptError(f"the notes are damaged: {error}; move the file away, and notes start anew") from error

    def _change(self, change: Callable[[_Stored], _Stored]) -> _Stored:
        """Replace the content of the file and return it; other threads and processes wait meanwhile."""
        with self._alone():
            changed = change(self._read())
            write_json(self.path, as_json(changed))
        return changed

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with disk_errors(self.path), open(self.path.with_suffix(".lock"), "ab") as lock:
            with contextlib.suppress(ImportError, OSError):  # Windows, and file systems without locks
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _empty(note: Note) -> Note:
    return Note(key=note.key, edited=note.edited)


def _check_known(what: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise UnknownNameError(what, name, known)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
