"""A workspace: a folder of artefact folders, opened the same way by scripts, notebooks and the dashboard. Torch-free.

    workspace/
      recordings/demo/  saes/demo/  features/demo/  heads/smollm2-135m/  atlases/demo-features/  ...

Tables are parquet, read through DuckDB: only the row groups and columns that a query needs are read from disk.
"""

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from interp.artifacts.artefact import Artefact, value_of
from interp.artifacts.files import read_json
from interp.artifacts.manifest import MANIFEST, PARTIAL, STATUS, Manifest, partial_path, read_manifest
from interp.artifacts.tables import query
from interp.errors import (
    ConfigError,
    CorruptError,
    MissingError,
    ResourceError,
    UnknownNameError,
    WorkbenchError,
)
from interp.registry import FOLDERS, KINDS, check_kind, discover, kind_in

if TYPE_CHECKING:
    import pyarrow as pa

EXAMINATIONS = "certificates/"
"""Beginning of the key of a certificate."""
NOT_OF_THIS_VERSION = "not of this version, and no installed package has its kind; it is left as it is"
"""Said of an artefact that `Workspace.foreign` lists."""
A = TypeVar("A", bound=Artefact)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")
"""Start of a URL: a scheme of two characters or more, since one letter is a drive of Windows."""


@dataclass(frozen=True)
class Broken:
    """A folder that cannot be read, with the reason; pages show it instead of hiding it."""

    kind: str
    name: str
    problem: str
    key: str
    """Path `folder/name` in the workspace."""


@dataclass(frozen=True)
class Partial:
    """An artefact in progress, or interrupted: its kind, name and last status."""

    kind: str
    name: str
    status: dict[str, Any]


class Workspace:
    """Open, list and query a folder of artefacts."""

    def __init__(self, root: str | Path, *, create: bool = False):
        """Open the folder `root`, made when missing with `create`.

        Raises `ConfigError` for a URL, `MissingError` where there is no folder, `ResourceError` where none can be made.
        """
        discover()
        if _URL.match(Path(root).as_posix() if isinstance(root, Path) else root):
            raise ConfigError(
                f"a workspace is a folder, got {str(root)!r}; copy it to one (from a bucket with `aws s3 sync`) and "
                "check the copy with `workbench verify`; give the absolute path of a folder whose name holds a colon"
            )
        self.root = Path(root).expanduser()
        if create:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ResourceError(
                    f"cannot make a workspace at {self.root}: {error.strerror}; choose another folder"
                ) from error
        elif not self.root.is_dir():
            raise MissingError(f"no workspace at {self.root}; `workbench demo --workspace {self.root}` makes one")

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.root.resolve().name or "workspace"

    def check_there(self) -> None:
        """Raise `MissingError` where the folder was moved or removed since it was opened."""
        if not self.root.is_dir():
            raise MissingError(
                f"there is no folder at {self.root} any more; move the workspace back there, or open it where it is now"
            )

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def path(self, kind: str, name: str) -> Path:
        """Return the path of the artefact `name` of `kind`, existing or not.

        Names are `[A-Za-z0-9._-]`, at most 64 characters.
        """
        check_kind(kind)
        if not _NAME.match(name) or name.endswith((PARTIAL, ".old", ".tmp")):
            raise ConfigError(
                f"{name[:80]!r} is not a usable name: letters, digits, '.', '_' and '-', at most 64, no leading dot"
            )
        path = self.root / FOLDERS[kind] / name
        if path.is_symlink() or not path.resolve().is_relative_to(self.root.resolve()):
            raise ConfigError(f"{kind} {name!r} points outside the workspace; links out are not followed")
        for folder in (path, partial_path(path)):
            if (link := _link_in(folder)) is not None:
                raise ConfigError(
                    f"{kind} {name!r} holds a link, {link}; put the file itself there: links may lead out"
                )
        return path

    def key(self, manifest: Manifest) -> str:
        """Return `folder/name`, the key of this artefact among the parents in other manifests."""
        return manifest.key

    def folder(self, key: str) -> Path:
        """Return the folder of a key, `folder/name`."""
        return self.root / key

    def names(self, kind: str) -> list[str]:
        """Return the names of the complete artefacts of one kind, sorted."""
        return sorted(self._folders(kind, f"*/{MANIFEST}"))

    def manifest(self, kind: str, name: str) -> Manifest:
        """Return the manifest of one artefact. Raises `UnknownNameError` with the nearest names when there is none."""
        path = self.path(kind, name)
        if not _there(path):
            raise UnknownNameError(kind, name, self.names(kind), f"(workspace {self.root})")
        manifest = read_manifest(path)
        if manifest.kind != kind:
            raise CorruptError(f"{path} holds a {manifest.kind}, not a {kind}")
        return manifest

    def open(self, form: type[A], name: str) -> A:
        """Return one artefact as a value of its class.

        Raises `UnknownNameError` with the nearest names, `CorruptError` where a file has another form.
        """
        return value_of(form, self.manifest(form.kind, name), self.path(form.kind, name))

    def open_key(self, key: str) -> Artefact:
        """Return the artefact of a key, `folder/name`, as a value of its class. Raises as `open`."""
        folder, _, name = key.partition("/")
        if not (kind := kind_in(folder)):
            raise UnknownNameError("folder of artefacts", folder, FOLDERS.values())
        return self.open(KINDS[kind].load(), name)

    def value(self, manifest: Manifest) -> Artefact:
        """Return the artefact of a manifest as a value of its class. Raises `CorruptError` for another form."""
        return value_of(KINDS[manifest.kind].load(), manifest, self.path(manifest.kind, manifest.name))

    def values(self, form: type[A]) -> "list[A]":
        """Return the artefacts of one class, newest first; those that cannot be read are left out (`broken`)."""
        values = []
        for manifest in self.newest(form.kind):
            with contextlib.suppress(WorkbenchError):
                values.append(value_of(form, manifest, self.path(form.kind, manifest.name)))
        return values

    def find(self, name: str, *kinds: str) -> Manifest:
        """Return the artefact of one of these kinds that is called `name`, or has the key `folder/name`.

        Where artefacts of several kinds share a name, the newest is returned; the key names one of them. Raises
        `UnknownNameError` with the nearest names.
        """
        for kind in kinds:
            check_kind(kind)
        parent, _, bare = name.rpartition("/")
        if _NAME.match(parent) and not kind_in(parent):
            raise UnknownNameError("folder of artefacts", parent, FOLDERS.values())
        meant = [kind for kind in kinds if parent in ("", FOLDERS[kind])]
        paths = {kind: self.path(kind, bare if meant else name) for kind in meant or kinds}  # raises on unusable names
        existing = [kind for kind, path in paths.items() if _there(path)]
        if not existing:
            known = [artefact for kind in kinds for artefact in self.names(kind)]
            raise UnknownNameError(" or ".join(kinds), name, known, f"(workspace {self.root})")
        finished = [kind for kind in existing if (paths[kind] / MANIFEST).is_file()]
        return max((self.manifest(kind, bare) for kind in finished or existing), key=lambda manifest: manifest.created)

    def artifacts(self, kind: str | None = None) -> list[Manifest]:
        """Return the manifest of every readable artefact, of one kind or of all."""
        return [m for m in self._scan(kind) if isinstance(m, Manifest)]

    def newest(self, *kinds: str) -> list[Manifest]:
        """Return the readable artefacts of some kinds, newest first, then by kind and name."""
        manifests = [manifest for kind in kinds for manifest in self.artifacts(kind)]
        return sorted(manifests, key=lambda manifest: manifest.created, reverse=True)

    def default(self, *kinds: str, prefer: Callable[[Manifest], bool] | None = None) -> Manifest | None:
        """Return the artefact that a page opens when its address names none; None when there is none.

        On every page this is the newest complete and readable artefact of the kinds that it shows. Artefacts for which
        `prefer` holds come before all others (the *Feature* page prefers features of an SAE to neurons). The exception
        is the *SAE* page, which opens one in training first.
        """
        manifests = self.newest(*kinds)
        return next(filter(prefer, manifests), None) or next(iter(manifests), None)

    def broken(self) -> list[Broken]:
        """Return every artefact that cannot be read, with the reason."""
        return [b for b in self._scan(None) if isinstance(b, Broken)]

    def foreign(self) -> list[str]:
        """Return the keys, `folder/name`, of artefacts whose kind is not of this version, or of no imported package."""
        folders = [manifest.parent for manifest in sorted(self.root.glob(f"*/*/{MANIFEST}"))]
        return [f"{path.parent.name}/{path.name}" for path in folders if not kind_in(path.parent.name)]

    def partials(self) -> list[Partial]:
        """Return the artefacts that are in progress, or interrupted and resumable."""
        partials = []
        for kind in KINDS:
            for name, folder in sorted(self._folders(kind, f"*{PARTIAL}/{STATUS}").items()):
                try:
                    partials.append(Partial(kind, name, read_json(folder / STATUS)))
                except WorkbenchError as error:
                    partials.append(Partial(kind, name, {"state": "unreadable", "problem": str(error)}))
        return partials

    def children(self, kind: str, name: str) -> list[Manifest]:
        """Return the artefacts made from this one."""
        key = f"{FOLDERS[kind]}/{name}"
        return [m for m in self.artifacts() if key in m.parents]

    def table_path(self, kind: str, name: str, table: str) -> Path:
        """Return the parquet file of one table of an artefact."""
        path = self.path(kind, name) / f"{table}.parquet"
        if not path.is_file():
            self.manifest(kind, name)  # the clearer error when the artefact itself is missing
            raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is")
        return path

    def query(self, sql: str, *parameters: object, **tables: Path) -> "pa.Table":
        """Run SQL with each keyword as a table: `ws.query("select * from f where density > ?", 0.1, f=path)`."""
        return query(sql, *parameters, **tables)

    def _folders(self, kind: str, pattern: str) -> dict[str, Path]:
        """Return the folders of one kind with a file that fits `pattern`, by name."""
        check_kind(kind)
        self.check_there()
        folders = [file.parent for file in sorted((self.root / FOLDERS[kind]).glob(pattern))]
        return {folder.name.removesuffix(PARTIAL): folder for folder in folders if _NAME.match(folder.name)}

    def _scan(self, kind: str | None) -> list[Manifest | Broken]:
        entries: list[Manifest | Broken] = []
        for folder_kind in KINDS if kind is None else [kind]:
            for name in sorted(self._folders(folder_kind, f"*/{MANIFEST}")):
                try:
                    entries.append(self.manifest(folder_kind, name))
                except WorkbenchError as error:
                    entries.append(Broken(folder_kind, name, str(error), f"{FOLDERS[folder_kind]}/{name}"))
        return entries


def outdated(manifests: list[Manifest], key: Callable[[Manifest], str]) -> dict[str, list[str]]:
    """Return for every artefact the parents, as `folder/name`, whose content has changed since it was made.

    Parents that are gone, and models, whose weights would have to be read, are not judged. A certificate that was made
    anew changes nothing that was measured before it.
    """
    present = {key(manifest): manifest.content_hash for manifest in manifests}
    return {
        key(manifest): [
            parent
            for parent, digest in manifest.parents.items()
            if present.get(parent, digest) != digest and not parent.startswith(EXAMINATIONS)
        ]
        for manifest in manifests
    }


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a folder; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _link_in(folder: Path) -> str | None:
    """Return the path of a symbolic link in a folder or below it, relative to the folder; None when there is none."""
    try:
        entries = list(os.scandir(folder))
    except (OSError, ValueError):  # no folder
        return None
    for entry in entries:
        if entry.is_symlink():
            return entry.name
        if entry.is_dir() and (below := _link_in(Path(entry.path))) is not None:
            return f"{entry.name}/{below}"
    return None


def _there(path: Path) -> bool:
    """Return whether there is a complete or an unfinished artefact at a path."""
    return path.exists() or partial_path(path).exists()
