"""Notes on the content of a workspace: stars, texts, lists, searches, recipes, chats, edits of graphs, in one SQLite
file.

    notes = Notes.open(workspace)
    notes.set("features/demo#9042", title="months", note="fires on January to December", starred=True)
    notes.recipes()["months up"].steps

A key names a thing: `folder/name` for an artefact, and `folder/name#part` for a part of one, such as a feature. Every
value is one entry (`interp.entries`, which also defines the format of an export). A write is on the disk when its
method returns. A text that was replaced or deleted, or was the older one at an import, can be restored.
`set(..., was=...)` refuses to replace a text that another writer has changed meanwhile (`ConflictError` has theirs).

The file is `notes.sqlite` in the workspace. Where that cannot be written, it lies in the user's
data folder (`$XDG_DATA_HOME/interp-workbench/notes`), named by a hash of the workspace's absolute path. Torch-free.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MaxLen

from interp.artifacts import FOLDERS, as_json, disk_errors, read_json, write_json
from interp.entries import Check, EditedValue, Entries, Merged, copy_entries
from interp.errors import ConfigError, ConflictError, UnknownNameError
from interp.forms import Passes, from_json, matches
from interp.interventions.conversation import Conversation
from interp.interventions.recipe import Recipe
from interp.registry import kind_in, kinds_of
from interp.workspace import Workspace

FILE = "notes.sqlite"
MAX_FILE = 16_000_000
"""Bytes of an export that can be imported."""
MAX_TITLE, MAX_NOTE, MAX_ADDRESS, MAX_LIST = 200, 20_000, 4_000, 10_000

_KEY = re.compile(r"([a-z-]{1,40})/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:#([A-Za-z0-9][A-Za-z0-9._:-]{0,63}))?")


@dataclass(frozen=True, kw_only=True)
class Note:
    """Everything noted on one thing."""

    key: str
    title: str = ""
    """Name for display; empty: its own."""
    note: str = ""
    starred: bool = False
    tags: tuple[str, ...] = ()
    """Names of the lists that it is in."""
    edited: str = ""
    """Time of the last edit, UTC; empty: never."""


def own_names(workspace: Workspace) -> dict[str, str]:
    """Return the names that the user gave to things, by key. No file is made where nothing was noted yet.

    Raises what `Notes.open` raises.
    """
    path, elsewhere = _places(workspace)
    if not path.exists() and (elsewhere is None or not elsewhere.exists()):
        return {}
    notes = Notes.open(workspace)
    try:
        return {note.key: note.title for note in notes.all() if note.title}
    finally:
        notes.close()


def _places(workspace: Workspace) -> tuple[Path, Path | None]:
    """Return the file in the workspace, and the one in the user's data folder where the former cannot be written."""
    path = workspace.root / FILE
    if path.is_symlink():
        raise ConfigError(f"{path} is a link; put the file itself there: links may lead out of the workspace")
    if os.access(workspace.root, os.W_OK) and (not path.exists() or os.access(path, os.W_OK)):
        return path, None
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    name = hashlib.sha256(str(workspace.root.resolve()).encode()).hexdigest()[:32]
    return path, data / "interp-workbench" / "notes" / f"{name}.sqlite"


class Notes:
    """The notes of one workspace; threads may share them."""

    def __init__(self, path: Path, *, in_workspace: bool = True):
        self.path, self.in_workspace = path, in_workspace
        self.entries = Entries(
            path, _CHECKS, united=frozenset({"list"}), unretained=frozenset({"star", "list", "graph"})
        )

    @classmethod
    def open(cls, workspace: Workspace) -> "Notes":
        """Open the notes of a workspace, made where missing.

        Notes that came with a read-only workspace are copied into the user's own at first. Raises `CorruptError` when
        the file is damaged, `SchemaError` when a newer version wrote it, `ResourceError` when neither folder can be
        written, `MissingError` where the workspace was moved away.
        """
        workspace.check_there()
        path, elsewhere = _places(workspace)
        if elsewhere is None:
            return cls(path)
        with disk_errors(elsewhere):
            elsewhere.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and not elsewhere.exists():
                copy_entries(path, elsewhere)
        return cls(elsewhere, in_workspace=False)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self.entries.close()

    def get(self, key: str) -> Note:
        """Return the note on one thing; an empty `Note` where none exists."""
        check_key(key)
        return next((note for note in self.all() if note.key == key), Note(key=key))

    def all(self) -> list[Note]:
        """Return the note of every thing with a star, title, text or list, the last edited first."""
        lists: dict[str, list[str]] = {}
        contents: dict[str, dict[str, EditedValue]] = {}
        for entry in self.entries.all():
            if entry.kind == "list":
                for subject in entry.value:
                    lists.setdefault(subject, []).append(entry.key)
            elif entry.kind in ("star", "title", "note"):
                contents.setdefault(entry.key, {})[entry.kind] = entry
        notes = [_note(key, contents.get(key, {}), lists.get(key, ())) for key in {*contents, *lists}]
        return sorted(notes, key=lambda note: (note.edited, note.key), reverse=True)

    def set(
        self,
        key: str,
        *,
        title: str | None = None,
        note: str | None = None,
        starred: bool | None = None,
        tags: Sequence[str] | None = None,
        was: Mapping[str, str] | None = None,
    ) -> Note:
        """Change some fields of a thing's note, and return the whole.

        `was` has the `title` or `note` that the writer started from. When the stored text has changed since, nothing is
        written and `ConflictError` carries it as `theirs`.
        """
        from_json(Key, key, "key", "asked")
        values = {"title": title, "note": note, "star": starred}
        checked = {kind: self.entries.checked(kind, key, value) for kind, value in values.items() if value is not None}
        names = None if tags is None else list(from_json(Names, tags, "tags", "asked"))
        with self.entries.transaction():
            for kind in {*checked} & {*(was or {})}:
                theirs = self.entries.value(kind, key) or ""
                if theirs not in ((was or {})[kind], checked[kind] or ""):
                    raise ConflictError(
                        f"the {kind} of {key} was changed elsewhere meanwhile; compare both and save again",
                        theirs=theirs,
                        field=kind,
                    )
            for kind, value in checked.items():
                self.entries.put(kind, key, value)
            if names is not None:
                self._put_in_lists(key, names)
            return self.get(key)

    def _put_in_lists(self, key: str, names: list[str]) -> None:
        known = self.lists()
        for name in {*known, *names}:
            members = known.get(name, [])
            if name in names and key not in members:
                self.entries.put("list", name, self.entries.checked("list", name, [*members, key]))
            elif name not in names and key in members:
                self.entries.put("list", name, [member for member in members if member != key] or None)

    def lists(self) -> dict[str, list[str]]:
        """Return the lists by name, each with its keys in order."""
        return self._named("list")

    def set_list(self, name: str, keys: Sequence[str]) -> None:
        """Give a list these keys, in this order."""
        self.entries.put("list", name, self.entries.checked("list", name, [*keys]), reason="order")

    def move(self, name: str, key: str, by: int) -> list[str]:
        """Move a key within its list by some lines, up (below 0) or down, and return the list in its new order.

        At an end of the list it stays. Raises `UnknownNameError` where the key is not in the list.
        """
        with self.entries.transaction():
            keys = self.lists().get(name, [])
            if key not in keys:
                raise UnknownNameError("key", key, keys, f"in the list {name!r}")
            at = keys.index(key)
            keys.insert(min(max(at + by, 0), len(keys) - 1), keys.pop(at))
            self.set_list(name, keys)
            return keys

    def searches(self) -> dict[str, str]:
        """Return the saved searches: name -> address within the dashboard."""
        return self._named("search")

    def save_search(self, name: str, address: str) -> None:
        """Save the address of a view, such as `/search?q=January`, under a name."""
        self.entries.put("search", name, self.entries.checked("search", name, address))

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipes by name."""
        return {name: _recipe(name, value) for name, value in self._named("recipe").items()}

    def recipe(self, name: str) -> Recipe:
        """Return one recipe. Raises `UnknownNameError` with the nearest names."""
        recipes = self.recipes()
        if name not in recipes:
            raise UnknownNameError("recipe", name, recipes, f"(notes {self.path})")
        return recipes[name]

    def save_recipe(self, recipe: Recipe) -> None:
        """Save a recipe under its name; one of the same name goes to the earlier values."""
        self.entries.put("recipe", recipe.name, self.entries.checked("recipe", recipe.name, recipe.as_json()))

    def conversations(self) -> dict[str, Conversation]:
        """Return the conversations by name."""
        return {
            name: from_json(Conversation, value, f"conversation {name!r}", "asked")
            for name, value in self._named("chat").items()
        }

    def save_conversation(self, name: str, talk: Conversation) -> None:
        """Save a conversation under a name; one of the same name goes to the earlier values."""
        self.entries.put("chat", name, self.entries.checked("chat", name, as_json(talk)))

    def graph_edits(self, key: str) -> dict[str, Any]:
        """Return the edits of an attribution graph or a circuit by its key; empty without any. Fields: `GraphMarks`."""
        return self.entries.value("graph", key) or {}

    def save_graph_edits(self, key: str, edits: Mapping[str, object], *, was: Mapping[str, object]) -> dict[str, Any]:
        """Replace the edits of a graph, and return them as they are stored.

        `was` has the edits that the writer started from; where they have changed since, nothing is written and
        `ConflictError` is raised.
        """
        checked = self.entries.checked("graph", key, dict(edits))
        with self.entries.transaction():
            theirs = self.graph_edits(key)
            if theirs not in (dict(was), checked or {}):
                raise ConflictError(
                    f"the edits of {key} were changed elsewhere meanwhile; load them again, or replace them",
                    theirs=json.dumps(theirs),
                    field="graph",
                )
            self.entries.put("graph", key, checked)
        return checked or {}

    def delete(self, kind: str, key: str) -> None:
        """Delete a text, list, search, recipe, chat or edits of a graph; `entries.earlier` keeps it for `.restore`."""
        self.entries.put(kind, key, self.entries.checked(kind, key, None), reason="delete")

    def export(self, path: Path | str) -> None:
        """Write everything as a JSON file (docs/formats.md)."""
        write_json(Path(path), self.entries.export())

    def merge(self, path: Path | str) -> Merged:
        """Take in an export, a JSON file of at most `MAX_FILE` bytes; `Entries.merge` says how."""
        path = Path(path)
        if path.is_file() and path.stat().st_size > MAX_FILE:
            raise ConfigError(f"{path} has {path.stat().st_size:,} bytes, an export of notes at most {MAX_FILE:,}")
        return self.entries.merge(read_json(path))

    def _named(self, kind: str) -> dict[str, Any]:
        return {key: value for entry_kind, key, value, _ in self.entries.all() if entry_kind == kind}


def _note(key: str, content: Mapping[str, EditedValue], lists: Sequence[str]) -> Note:
    values = {kind: entry.value for kind, entry in content.items()}
    return Note(
        key=key,
        starred=values.get("star", False),
        title=values.get("title", ""),
        note=values.get("note", ""),
        tags=tuple(lists),
        edited=max((entry.edited for entry in content.values()), default=""),
    )


def check_key(key: str) -> tuple[str, str, str]:
    """Return folder, name and part of a key (part empty without one). Raises `ConfigError`, `UnknownNameError`."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise ConfigError(f"a key is folder/name or folder/name#part, such as features/demo#12; got {key[:80]!r}")
    if not kind_in(match[1]):
        raise UnknownNameError("folder of artefacts", match[1], FOLDERS.values())
    return match[1], match[2], match[3] or ""


def _key(key: str) -> str:
    check_key(key)
    return key


def _graph_key(key: str) -> str:
    if kind_in(check_key(key)[0]) not in ("attribution_graph", *kinds_of("circuit")) or "#" in key:
        raise ConfigError("should be graphs/NAME or the key of a circuit, to which the edits belong")
    return key


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


_TEXT = matches(r"[^\0]*", "text without the character NUL")
Key = Annotated[str, Passes(_key)]
Name = Annotated[
    str, matches(r"(?!\s)[^\x00-\x1f\x7f]{1,80}(?<!\s)", "1 to 80 characters on one line, no space at either end")
]
Title = Annotated[str, MaxLen(MAX_TITLE), _TEXT]
Text = Annotated[str, MaxLen(MAX_NOTE), _TEXT]
Names = Annotated[tuple[Name, ...], MaxLen(MAX_LIST), Passes(_once)]
Keys = Annotated[tuple[Key, ...], MaxLen(MAX_LIST), Passes(_once)]
Address = Annotated[
    str,
    MaxLen(MAX_ADDRESS),
    matches(r"/(?![/\\])[^\x00-\x20\x7f]*", "an address within the dashboard, such as /search?q=January"),
]
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


def _recipe(name: str, value: object) -> Recipe:
    """Return a recipe from its stored value. Raises `ConfigError` for any other value."""
    recipe = from_json(
        Recipe, {"name": name, **value} if isinstance(value, dict) else value, f"recipe {name!r}", "asked"
    )
    for latent in recipe.latents:
        from_json(_Dictionary, latent.dictionary, f"recipe {name!r}: dictionary of a latent", "asked")
    from_json(Text, recipe.prompt, "the prompt of a recipe", "asked")
    from_json(Title, recipe.model, "the model of a recipe", "asked")
    return recipe


def _decoded(kind: str, name: str, value: object) -> object:
    """Return a value of a kind as it is stored. Raises `ConfigError`."""
    if kind == "recipe":
        return _recipe(name, value).as_json()
    content = as_json(from_json(_FORMS[kind][1], value, f"{kind} of {name}", "asked"))
    return {part: field for part, field in content.items() if field} if kind == "graph" else content


_FORMS: dict[str, tuple[object, object]] = {
    "star": (Key, bool),
    "title": (Key, Annotated[Title, Passes(str.strip)]),
    "note": (Key, Annotated[Text, Passes(str.strip)]),
    "list": (Name, Keys),
    "search": (Name, Address),
    "recipe": (Name, Recipe),
    "chat": (Name, Conversation),
    "graph": (Annotated[str, Passes(_graph_key)], GraphMarks),
}
"""Kind of entry -> form of its keys and of its values."""


def _check(kind: str) -> Check:
    """Return the check of the entries of a kind."""

    def check(key: str, value: object) -> object:
        from_json(_FORMS[kind][0], key, "key" if _FORMS[kind][0] is not Name else "name", "asked")
        return None if value is None else _decoded(kind, key, value) or None

    return check


_CHECKS = {kind: _check(kind) for kind in _FORMS}
