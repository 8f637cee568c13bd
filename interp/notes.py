"""Notes on the content of a workspace: stars, texts, lists, searches, recipes, chats, edits of graphs, in one SQLite
file.

    notes = Notes.open(workspace)
    notes.set("features/demo#9042", title="months", note="fires on January to December", starred=True)
    notes.recipes()["months up"].steps

A key names a thing: `folder/name` for an artefact, and `folder/name#part` for a part of one, such as a feature. Every
value is one entry (`interp.entries`, which also defines the format of an export). A write is on the disk when its
method returns. A text that was replaced or deleted, or was the older one at an import, can be restored.
`set(..., was=...)` refuses to replace a text that another writer has changed meanwhile (`ConflictError` has theirs).

The file is `notes.sqlite` in the workspace. Where that cannot be written, as in object storage, it lies in the user's
data folder (`$XDG_DATA_HOME/interp-workbench/notes`), named by a hash of the workspace's absolute path. Torch-free.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.artifacts import FOLDERS, as_json, disk_errors, read_json, write_json
from interp.entries import Entries, Merged, copy_entries, short
from interp.errors import ConfigError, ConflictError, CorruptError, UnknownNameError
from interp.forms import from_json
from interp.interventions.conversation import Conversation
from interp.interventions.recipe import Recipe
from interp.workspace import Workspace

FILE = "notes.sqlite"
MAX_FILE = 16_000_000
"""Bytes of an export that can be imported."""
MAX_TITLE, MAX_NOTE, MAX_ADDRESS, MAX_LIST = 200, 20_000, 4_000, 10_000

_KEY = re.compile(r"([a-z-]{1,40})/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:#([A-Za-z0-9][A-Za-z0-9._:-]{0,63}))?")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,80}")


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
    own, elsewhere = _places(workspace)
    if not own.exists() and (elsewhere is None or not elsewhere.exists()):
        return {}
    notes = Notes.open(workspace)
    try:
        return {note.key: note.title for note in notes.all() if note.title}
    finally:
        notes.close()


def _places(workspace: Workspace) -> tuple[Path, Path | None]:
    """Return the file in the workspace, and the one in the user's data folder where the former cannot be written."""
    own = workspace.root / FILE
    if own.is_symlink():
        raise ConfigError(f"{own} is a link; put the file itself there: links may lead out of the workspace")
    if not workspace.remote and os.access(workspace.root, os.W_OK) and (not own.exists() or os.access(own, os.W_OK)):
        return own, None
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    name = hashlib.sha256(workspace.absolute.encode()).hexdigest()[:32]
    return own, data / "interp-workbench" / "notes" / f"{name}.sqlite"


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
        own, elsewhere = _places(workspace)
        if elsewhere is None:
            return cls(own)
        with disk_errors(elsewhere):
            elsewhere.parent.mkdir(parents=True, exist_ok=True)
            if own.is_file() and not elsewhere.exists():
                copy_entries(own, elsewhere)
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
        found: dict[str, dict[str, Any]] = {}
        for kind, key, value, edited in self.entries.all():
            for each in value if kind == "list" else [key] if kind in _FIELD else []:
                at = found.setdefault(each, {"edited": "", "tags": ()})
                if kind == "list":
                    at["tags"] += (key,)
                else:
                    at[_FIELD[kind]] = value
                    at["edited"] = max(at["edited"], edited)
        notes = [Note(key=key, **at) for key, at in found.items()]
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
        check_key(key)
        given = {"title": title, "note": note, "star": starred}
        checked = {kind: self.entries.checked(kind, key, value) for kind, value in given.items() if value is not None}
        names = None if tags is None else [_name(each) for each in dict.fromkeys(_strings("tags", tags))]
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
                self.entries.put("list", name, _CHECKS["list"](name, [*members, key]))
            elif name not in names and key in members:
                self.entries.put("list", name, [each for each in members if each != key] or None)

    def lists(self) -> dict[str, list[str]]:
        """Return the lists by name, each with its keys in order."""
        return self._named("list")

    def set_list(self, name: str, keys: Sequence[str]) -> None:
        """Give a list these keys, in this order."""
        self.entries.put("list", name, _CHECKS["list"](name, [*keys]), reason="order")

    def move(self, name: str, key: str, by: int) -> list[str]:
        """Move a key within its list by some lines, up (below 0) or down, and return the list in its new order.

        At an end of the list it stays. Raises `UnknownNameError` where the key is not in the list.
        """
        with self.entries.transaction():
            keys = self.lists().get(_name(name), [])
            if key not in keys:
                raise UnknownNameError("key", short(key), keys, f"in the list {name!r}")
            at = keys.index(key)
            keys.insert(min(max(at + by, 0), len(keys) - 1), keys.pop(at))
            self.set_list(name, keys)
            return keys

    def searches(self) -> dict[str, str]:
        """Return the saved searches: name -> address within the dashboard."""
        return self._named("search")

    def save_search(self, name: str, address: str) -> None:
        """Save the address of a view, such as `/search?q=January`, under a name."""
        self.entries.put("search", name, _CHECKS["search"](name, address))

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipes by name."""
        return {name: _recipe(name, value) for name, value in self._named("recipe").items()}

    def recipe(self, name: str) -> Recipe:
        """Return one recipe. Raises `UnknownNameError` with the nearest names."""
        found = self.recipes()
        if name not in found:
            raise UnknownNameError("recipe", name, found, f"(notes {self.path})")
        return found[name]

    def save_recipe(self, recipe: Recipe) -> None:
        """Save a recipe under its name; one of the same name goes to the earlier values."""
        self.entries.put("recipe", recipe.name, self.entries.checked("recipe", recipe.name, recipe.as_json()))

    def conversations(self) -> dict[str, Conversation]:
        """Return the conversations by name."""
        return {name: read_conversation(value, f"conversation {name!r}") for name, value in self._named("chat").items()}

    def save_conversation(self, name: str, talk: Conversation) -> None:
        """Save a conversation under a name; one of the same name goes to the earlier values."""
        self.entries.put("chat", name, self.entries.checked("chat", name, as_json(talk)))

    def graph_edits(self, key: str) -> dict[str, Any]:
        """Return the edits of an attribution graph `graphs/NAME`; empty without any. Their fields: `_check_graph`."""
        return self.entries.value("graph", key) or {}

    def save_graph_edits(self, key: str, edits: Mapping[str, Any], *, was: Mapping[str, Any]) -> dict[str, Any]:
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
        return {key: value for each, key, value, _ in self.entries.all() if each == kind}


_FIELD = {"star": "starred", "title": "title", "note": "note"}
_FOLDERS = set(FOLDERS.values())


def check_key(key: Any) -> tuple[str, str, str]:
    """Return folder, name and part of a key (part empty without one). Raises `ConfigError`, `UnknownNameError`."""
    match = _KEY.fullmatch(key) if isinstance(key, str) else None
    if match is None:
        raise ConfigError(f"a key is folder/name or folder/name#part, such as features/demo#12; got {short(key)}")
    if match[1] not in _FOLDERS:
        raise UnknownNameError("folder of artefacts", match[1], _FOLDERS)
    return match[1], match[2], match[3] or ""


def _name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name != name.strip():
        raise ConfigError(f"a name has 1 to 80 characters on one line, no space at either end; got {short(name)}")
    return _text("name", name, 80)


def _text(what: str, text: Any, most: int) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"a {what} is a text, got {short(text)}")
    if len(text) > most:
        raise ConfigError(f"a {what} has at most {most:,} characters, this one has {len(text):,}; shorten it")
    if any("\ud800" <= c <= "\udfff" or c == "\0" for c in text):
        raise ConfigError(f"a {what} is text that can be written as UTF-8, got {short(text)}")
    return text


def _strings(what: str, given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise ConfigError(f"{what} are a list of texts, got {short(given)}")
    if len(given) > MAX_LIST:
        raise ConfigError(f"{what} are at most {MAX_LIST:,}, got {len(given):,}")
    return list(given)


def _check_star(key: str, value: Any) -> bool | None:
    check_key(key)
    if value not in (None, True, False) or (isinstance(value, int) and not isinstance(value, bool)):
        raise ConfigError(f"a star is true or false, got {short(value)}")
    return value or None


def _check_title(key: str, value: Any) -> str | None:
    check_key(key)
    return None if value is None else _text("title", value, MAX_TITLE).strip() or None


def _check_note(key: str, value: Any) -> str | None:
    check_key(key)
    return None if value is None else _text("note", value, MAX_NOTE).strip() or None


def _check_list(name: str, value: Any) -> list[str] | None:
    _name(name)
    keys = list(dict.fromkeys(_strings("keys of a list", [] if value is None else value)))
    for key in keys:
        check_key(key)
    return keys or None


def _check_search(name: str, value: Any) -> str | None:
    _name(name)
    if value is None:
        return None
    address = _text("search", value, MAX_ADDRESS)
    if not re.fullmatch(r"/(?![/\\])[^\x00-\x20\x7f]*", address):
        raise ConfigError(f"a search is an address within the dashboard, such as /search?q=January; got {short(value)}")
    return address


def _check_recipe(name: str, value: Any) -> dict[str, Any] | None:
    _name(name)
    return None if value is None else _recipe(name, value).as_json()


def _recipe(name: str, value: Any) -> Recipe:
    """Return a recipe from its stored value. Raises `ConfigError` for any other value."""
    try:
        recipe = from_json(Recipe, {"name": name, **value} if isinstance(value, dict) else value, f"recipe {name!r}")
    except CorruptError as error:
        raise ConfigError(str(error).partition("; it was edited")[0]) from None
    for latent in recipe.latents:
        folder, _, part = check_key(latent.dictionary)
        if folder not in ("features", "saes") or part:
            raise ConfigError(f"a recipe takes features/NAME or saes/NAME, got {latent.dictionary!r}")
    _text("prompt", recipe.prompt, MAX_NOTE)
    _text("model", recipe.model, MAX_TITLE)
    return recipe


def _check_conversation(name: str, value: Any) -> dict[str, Any] | None:
    _name(name)
    return None if value is None else as_json(read_conversation(value, f"conversation {name!r}"))


def read_conversation(value: Any, what: str) -> Conversation:
    """Return a conversation, called `what`, from its stored value. Raises `ConfigError` for any other value."""
    try:
        return from_json(Conversation, value, what)
    except CorruptError as error:
        raise ConfigError(re.split("; it was edited|; `", str(error))[0]) from None


_NODE = re.compile(r"(feature|error|token|logit)(:-?\d{1,10}){2,3}")


def _check_graph(key: str, value: Any) -> dict[str, Any] | None:
    """Return edits of a graph: `pins`, `hidden`: node ids; `groups`: [name, node ids]; `names`: node id to text;
    `moves`: node id to [x, y], pixels from its automatic position; `sets`: name to {latent: factor of its activation}.
    Empty fields are omitted."""
    if check_key(key)[0] != "graphs" or "#" in key:
        raise ConfigError(f"edits of a graph belong to graphs/NAME, got {short(key)}")
    if value is None:
        return None
    given = value if isinstance(value, dict) else {"": value}
    if unknown := {*given} - {"pins", "hidden", "groups", "names", "moves", "sets"}:
        raise ConfigError(
            f"edits of a graph have pins, hidden, groups, names, moves and sets, found {short(sorted(unknown))}"
        )
    groups, names, moves, sets = (given.get(each, {}) for each in ("groups", "names", "moves", "sets"))
    if not all(isinstance(each, dict) for each in (names, moves, sets)) or not isinstance(groups or [], list):
        raise ConfigError("names and moves are objects by node id, sets one by name, groups a list")
    found = {
        "pins": _nodes("pins", given.get("pins", [])),
        "hidden": _nodes("hidden nodes", given.get("hidden", [])),
        "groups": [_group(each) for each in list(groups)[:MAX_LIST]],
        "names": {node: _text("name", names[node], MAX_TITLE) for node in _nodes("names", [*names])},
        "moves": {node: _move(moves[node]) for node in _nodes("moves", [*moves])},
        "sets": {_name(each): _factors(sets[each]) for each in sets},
    }
    return {name: each for name, each in found.items() if each} or None


def _nodes(what: str, given: Any) -> list[str]:
    found = _strings(what, given)
    if wrong := [each for each in found if not _NODE.fullmatch(each)]:
        raise ConfigError(f"{what} are by node id, such as feature:12:5:1033; got {short(wrong[0])}")
    return list(dict.fromkeys(found))


def _group(given: Any) -> list[Any]:
    if not isinstance(given, list) or len(given) != 2:
        raise ConfigError(f"a group is [name, node ids], got {short(given)}")
    return [_name(given[0]), _nodes("members of a group", given[1])]


def _move(given: Any) -> list[float]:
    if not isinstance(given, list) or [type(each) in (int, float) and abs(each) < 1e6 for each in given] != [True] * 2:
        raise ConfigError(f"a move is [x, y] in pixels, got {short(given)}")
    return [float(each) for each in given]


def _factors(given: Any) -> dict[str, float]:
    """Return the factors of an intervention by latent."""
    factors = given if isinstance(given, dict) else {}
    wrong = [each for each in factors.values() if type(each) not in (int, float) or not abs(each) < 1e3]
    if not factors or wrong or any(not node.startswith("feature:") for node in _nodes("latents of a set", [*factors])):
        raise ConfigError(f"a set of interventions is {{latent: factor}}, got {short(given)}")
    return {node: float(factor) for node, factor in factors.items()}


_CHECKS = {
    "star": _check_star,
    "title": _check_title,
    "note": _check_note,
    "list": _check_list,
    "search": _check_search,
    "recipe": _check_recipe,
    "chat": _check_conversation,
    "graph": _check_graph,
}
