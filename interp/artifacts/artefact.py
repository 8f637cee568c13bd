"""An artefact is a type: a frozen dataclass whose fields say what is stored, and where.

    @dataclass(frozen=True, kw_only=True)
    class WordGeometry(Artefact, kind="word_geometry", title="Word lists", made_by="geometry shapes"):
        settings: ShapesSettings                                            # manifest.json, "config"
        n_lists: int                                                        # manifest.json, "summary"
        lists: Annotated[dict[str, ConceptGeometry], DocumentField("lists.json")]  # a JSON file of its own
        points: Table[Point]                                                # points.parquet
        planes: Annotated[Float[np.ndarray, "list dim"], ARRAY]             # arrays.safetensors

    manifest = save_artefact(value, folder)
    value = open_artefact(WordGeometry, folder)        # or workspace.open(WordGeometry, "smollm2-135m")

Small values are read and checked at once, documents, tables and arrays when they are first asked for. A file of another
form is refused when opened, with its name and the path inside it. A value that could not be read back is not written.
Torch-free.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from functools import cache
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import quote, urljoin

import numpy as np

from interp.artifacts.draft import Draft
from interp.artifacts.files import as_json, atomic_file, read_json, write_json, write_table
from interp.artifacts.manifest import MANIFEST, Manifest, read_manifest
from interp.artifacts.tables import Table
from interp.errors import ConfigError, CorruptError, MissingError, WorkbenchError
from interp.forms import EDITED, from_json
from interp.registry import check_kind
from interp.results import Result
from interp.view import Finding

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

A = TypeVar("A", bound="Artefact")
V = TypeVar("V")
ARRAYS = "arrays.safetensors"


@dataclass(frozen=True)
class DocumentField:
    """Marks a field that lies in a JSON file of its own, read when it is first asked for."""

    file: str


class _Array:
    """Marks a field that lies in `arrays.safetensors`, read when it is first asked for."""


ARRAY = _Array()


class Artefact(Result):
    """Base of everything that is stored in a workspace; a subclass is a frozen dataclass with `settings`."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """Name of the kind on pages; by default `kind` in words."""
    made_by: ClassVar[str]
    """Words of the verb that makes it; by default `kind`."""
    if TYPE_CHECKING:
        settings: Any
    else:

        def __getattr__(self, name: str) -> object:
            """Read a document, a table or an array of a stored artefact when it is first asked for."""
            place = layout_of(type(self)).get(name)
            folder = self.__dict__.get("_folder")
            if place is None or folder is None:
                raise AttributeError(f"{type(self).__name__} has no {name!r}")
            value = self.__dict__[name] = _read_part(folder, name, place)
            return value

    def __init_subclass__(cls, kind: str = "", title: str = "", made_by: str = "", **options: object) -> None:
        super().__init_subclass__(**options)
        if kind:
            check_kind(kind)
            cls.kind, cls.made_by = kind, made_by or kind
            cls.title = title or kind.replace("_", " ").capitalize()

    @property
    def about(self) -> Manifest:
        """Manifest: when it was made, from what, with which seed. Raises `MissingError` before it is saved."""
        manifest = self.__dict__.get("_manifest")
        if manifest is None:
            raise MissingError(f"this {self.kind} is not stored yet; save it first")
        return manifest

    @property
    def folder(self) -> Path:
        """Folder of the stored artefact. Raises `MissingError` before it is saved."""
        _ = self.about
        return self.__dict__["_folder"]

    @property
    def name(self) -> str:
        """Name of the stored artefact."""
        return self.about.name

    @property
    def key(self) -> str:
        """Key `folder/name`, by which addresses and parents name it."""
        return self.about.key

    @property
    def href(self) -> str:
        """Address of the page of an artefact; the dashboard leads it to a page of the kind's own where there is one."""
        return address_of(self.key)

    def findings(self) -> list[Finding]:
        """Return what was found beyond its null, with whole addresses. Raises `MissingError` before it is saved."""
        return [replace(found, href=urljoin(self.href, found.href)) for found in super().findings()]


def address_of(key: str) -> str:
    """Return the address of the page of any artefact, by its key `folder/name`."""
    return f"/artefact/{quote(key)}"


class FieldFile(NamedTuple):
    """File and form of one field."""

    place: Literal["settings", "summary", "document", "table", "array"]
    form: Any
    """Type of the value; of a table the class of its rows."""
    file: str
    optional: bool
    """True where the file may be missing: the field is None then."""


@cache
def layout_of(cls: type[Artefact]) -> dict[str, FieldFile]:
    """Return where every field of a class of artefacts lies."""
    hints = get_type_hints(cls, include_extras=True)
    layout = {field.name: _part(field.name, hints[field.name]) for field in fields(cls)}  # pyright: ignore[reportArgumentType]
    hidden = [
        name for name, part in layout.items() if part.place in ("document", "table", "array") and name in vars(cls)
    ]
    assert not hidden, f"{cls.__name__}.{hidden[0]} is read when asked for, so it has no default (or a default_factory)"
    return layout


def _part(name: str, hint: object) -> FieldFile:
    if name == "settings":
        return FieldFile("settings", hint, MANIFEST, False)
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    inner = get_args(hint)[0] if marks else hint
    optional = type(None) in get_args(inner)
    if document := next((mark for mark in marks if isinstance(mark, DocumentField)), None):
        return FieldFile("document", inner, document.file, optional)
    if any(isinstance(mark, _Array) for mark in marks):
        return FieldFile("array", inner, ARRAYS, optional)
    table = next((argument for argument in (inner, *get_args(inner)) if get_origin(argument) is Table), None)
    if table is not None:
        return FieldFile("table", get_args(table)[0], f"{name}.parquet", optional)
    return FieldFile("summary", hint, MANIFEST, optional)


@cache
def _summary_form(cls: type[Artefact]) -> "type[DataclassInstance]":
    """Return a dataclass of the fields in the manifest's summary."""
    layout = layout_of(cls)
    members = [
        (each.name, layout[each.name].form, field(default=each.default, default_factory=each.default_factory))
        for each in fields(cls)  # pyright: ignore[reportArgumentType]
        if layout[each.name].place == "summary"
    ]  # what was written before a field was added lacks it, and has its default (decision 41)
    return make_dataclass(f"{cls.__name__}Summary", members, kw_only=True)


def open_artefact(cls: type[A], folder: Path) -> A:
    """Return the artefact in a folder.

    Args:
        cls: the class of the kind, such as `HeadScores`.
        folder: that of the artefact.
    Returns: the artefact as it was saved.
    Raises:
        MissingError, SchemaError: no artefact is there, or one of another version.
        CorruptError: another kind or form is stored.

    >>> open_artefact(AttributionGraph, folder / "graph").prompt
    'abca'
    """
    manifest = read_manifest(folder)
    if manifest.kind != cls.kind:
        raise CorruptError(f"{folder} holds a {manifest.kind}, not a {cls.kind}")
    return value_of(cls, manifest, folder)


def value_of(cls: type[A], manifest: Manifest, folder: Path) -> A:
    """Return the artefact of a manifest that was read. Raises `CorruptError` where its values have another form."""
    value = object.__new__(cls)
    inside = value.__dict__
    inside |= {"_folder": folder, "_manifest": manifest}
    settings = layout_of(cls)["settings"].form
    try:
        inside["settings"] = from_json(settings, manifest.config, f"{folder / MANIFEST}, config")
        summary = from_json(_summary_form(cls), manifest.summary, f"{folder / MANIFEST}, summary")
    except CorruptError as error:
        again = f"`workbench {cls.made_by}` makes it again"
        fault = str(error).removesuffix(EDITED)
        raise CorruptError(
            f"{fault}; an earlier version of the workbench wrote it, or it was edited: {again}"
        ) from None
    inside |= {field.name: getattr(summary, field.name) for field in fields(summary)}
    return value


def _read_part(folder: Path, name: str, part: FieldFile) -> object:
    path = folder / part.file
    if part.place != "array" and not path.is_file():
        if part.optional:
            return None
        raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is")
    if part.place == "document":
        document: object = read_json(path)
        if _wrapped(part.form):
            if "value" not in document:
                raise CorruptError(f"{path} lacks 'value'; it was edited or cut short, `workbench verify` checks it")
            document = document["value"]
        return from_json(part.form, document, path)
    return Table(part.form, path) if part.place == "table" else _read_array(path, name, part)


def _wrapped(form: object) -> bool:
    """Return True for a document that may be other than a JSON object; one stores it under `value`."""
    kinds = get_args(form) if get_origin(form) in (Union, UnionType) else (form,)
    return not all(is_dataclass(kind) or get_origin(kind) is dict or kind is type(None) for kind in kinds)


def _read_array(path: Path, name: str, part: FieldFile) -> np.ndarray | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stored:
            array = stored.get_tensor(name) if name in stored.keys() else None  # noqa: SIM118 - no container
    except (SafetensorError, OSError) as error:
        if not (part.optional and isinstance(error, FileNotFoundError)):
            raise CorruptError(f"cannot read {path}: {error}; `workbench verify` checks it") from error
        array = None
    if array is None and not part.optional:
        raise CorruptError(f"{path} lacks the array {name!r}; it was edited or cut short")
    return _check_array(array, name, part, path)


def _check_array(array: V, name: str, part: FieldFile, where: object) -> V:
    """Return an array. Raises `CorruptError` where its type or number of axes is another."""
    if not isinstance(array, part.form):
        text = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else repr(array)
        raise CorruptError(f"{where}: the array {name!r} should be {part.form}, found {text}; it was edited")
    return array


def settings_json(settings: object) -> dict[str, Any]:
    """Return the settings of an artefact as in its manifest."""
    return as_json(settings)


def is_stored(value: Artefact) -> bool:
    """Return True for an artefact that was opened or saved."""
    return "_manifest" in value.__dict__


def save_artefact(
    value: A,
    folder: Path,
    *,
    parents: Mapping[str, str] | None = None,
    seed: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    draft: Draft | None = None,
) -> A:
    """Write an artefact and return it as it was stored.

    Args:
        value: the artefact; its settings are what an unfinished run must share to be resumed.
        folder: where it goes, `workspace.path(kind, name)`.
        parents: hashes of what it was made from, by key.
        seed, threads: of the computation.
        overwrite: replace an artefact of that name.
        draft: the work in progress of a resumable analysis, with the files written so far.
    Returns: the stored artefact.
    Raises:
        ConfigError: the name is taken, or a value could not be read again.

    >>> stored = save_artefact(graph, folder / "saved", seed=0)
    >>> (folder / "saved" / "manifest.json").exists()
    True
    """
    cls, parts = type(value), layout_of(type(value))
    contents = {name: getattr(value, name) for name in parts}
    summary = as_json({name: contents[name] for name, part in parts.items() if part.place == "summary"})
    documents = {name: as_json(contents[name]) for name, part in parts.items() if part.place == "document"}
    config = settings_json(value.settings)
    try:
        from_json(parts["settings"].form, config, "its settings")
        from_json(_summary_form(cls), summary, "its summary")
        for name, document_json in documents.items():
            if contents[name] is not None:
                from_json(parts[name].form, document_json, name)
        for name, part in parts.items():
            if part.place == "array":
                _check_array(contents[name], name, part, "this value")
    except WorkbenchError as error:
        raise ConfigError(f"this {cls.kind} could not be read again, so it is not written: {error}") from error
    draft = draft or Draft.open(folder, kind=cls.kind, config=config, seed=seed, overwrite=overwrite)
    arrays = {}
    for name, part in parts.items():
        if contents[name] is None:
            continue
        if part.place == "document":
            document = {"value": documents[name]} if _wrapped(part.form) else documents[name]
            write_json(draft.path / part.file, document)
        elif part.place == "table":
            write_table(draft.path / part.file, contents[name].arrow())
        elif part.place == "array":
            arrays[name] = contents[name]
    if arrays:
        from safetensors.numpy import save_file

        with atomic_file(draft.path / ARRAYS) as temporary:
            save_file(arrays, temporary)
    manifest = draft.finish(summary=summary, parents=dict(parents or {}), threads=threads)
    return value_of(cls, manifest, folder)
