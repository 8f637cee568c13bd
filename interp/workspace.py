"""A workspace: a folder of artefact folders, opened the same way by scripts, notebooks and the dashboard. Torch-free.

    workspace/
      recordings/demo/  saes/demo/  features/demo/  heads/smollm2-135m/  atlases/demo-features/  ...

Tables are parquet, read through DuckDB: only the row groups and columns a query needs leave the disk.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.artifacts import KINDS, PARTIAL, STATUS, Manifest, read_json, read_manifest
from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError, WorkbenchError

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


@dataclass(frozen=True)
class Broken:
    """A folder that cannot be read, and why: shown instead of hidden."""

    kind: str
    name: str
    problem: str


@dataclass(frozen=True)
class Partial:
    """Work in progress (or interrupted): its kind, name and last status."""

    kind: str
    name: str
    status: dict[str, Any]


class Workspace:
    """Open, list and query a folder of artefacts."""

    def __init__(self, root: str | Path, *, create: bool = False):
        self.root = Path(root).expanduser()
        if create:
            self.root.mkdir(parents=True, exist_ok=True)
        elif not self.root.is_dir():
            raise MissingError(f"no workspace at {self.root}; `workbench demo --workspace {self.root}` makes one")

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def path(self, kind: str, name: str) -> Path:
        """Where the artefact `name` of `kind` is or will be. Names are `[A-Za-z0-9._-]`, at most 64 characters."""
        if kind not in KINDS:
            raise UnknownNameError("artefact kind", kind, KINDS)
        if not _NAME.match(name) or name.endswith((PARTIAL, ".old", ".tmp")):
            raise ConfigError(
                f"{name!r} is not a usable name: letters, digits, '.', '_' and '-', at most 64, no leading dot"
            )
        path = self.root / KINDS[kind] / name
        if path.is_symlink() or not path.resolve().is_relative_to(self.root.resolve()):
            raise ConfigError(f"{kind} {name!r} points outside the workspace; links out are not followed")
        return path

    def names(self, kind: str) -> list[str]:
        """The names of the whole artefacts of one kind, sorted."""
        if kind not in KINDS:
            raise UnknownNameError("artefact kind", kind, KINDS)
        folder = self.root / KINDS[kind]
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if _NAME.match(p.name) and (p / "manifest.json").is_file())

    def manifest(self, kind: str, name: str) -> Manifest:
        """The manifest of one artefact. Raises `UnknownNameError` with the nearest names when it is not there."""
        path = self.path(kind, name)
        if not path.exists() and not path.with_name(path.name + PARTIAL).exists():
            raise UnknownNameError(kind, name, self.names(kind), f"(workspace {self.root})")
        manifest = read_manifest(path)
        if manifest.kind != kind:
            raise CorruptError(f"{path} holds a {manifest.kind}, not a {kind}")
        return manifest

    def artifacts(self, kind: str | None = None) -> list[Manifest]:
        """Every readable artefact, of one kind or of all."""
        return [m for m in self._scan(kind) if isinstance(m, Manifest)]

    def newest(self, *kinds: str) -> list[Manifest]:
        """Return the readable artefacts of some kinds, newest first; of equally new ones the first by kind and name."""
        found = [manifest for kind in kinds for manifest in self.artifacts(kind)]
        return sorted(found, key=lambda manifest: manifest.created, reverse=True)

    def default(self, *kinds: str, prefer: Callable[[Manifest], bool] | None = None) -> Manifest | None:
        """Return the artefact that a page opens on when its address names none; None when there is none.

        The rule of every page: the newest finished and readable artefact of the kinds that the page shows. Those for
        which `prefer` holds come before all others (the *Feature* page prefers features of an SAE to neurons).
        """
        found = self.newest(*kinds)
        return next(filter(prefer, found), None) or next(iter(found), None)

    def broken(self) -> list[Broken]:
        """Every artefact that cannot be read, with the reason."""
        return [b for b in self._scan(None) if isinstance(b, Broken)]

    def partials(self) -> list[Partial]:
        """Work in progress, or interrupted and resumable."""
        found = []
        for kind, folder in KINDS.items():
            for status in sorted((self.root / folder).glob(f"*{PARTIAL}/{STATUS}")):
                name = status.parent.name.removesuffix(PARTIAL)
                try:
                    found.append(Partial(kind, name, read_json(status)))
                except WorkbenchError as error:
                    found.append(Partial(kind, name, {"state": "unreadable", "problem": str(error)}))
        return found

    def children(self, kind: str, name: str) -> list[Manifest]:
        """The artefacts made from this one."""
        key = f"{KINDS[kind]}/{name}"
        return [m for m in self.artifacts() if key in m.parents]

    def table_path(self, kind: str, name: str, table: str) -> Path:
        """The parquet file of one table of an artefact."""
        path = self.path(kind, name) / f"{table}.parquet"
        if not path.is_file():
            self.manifest(kind, name)  # the clearer error when the artefact itself is missing
            raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is")
        return path

    def query(self, sql: str, *parameters: Any, **tables: Path) -> "pa.Table":
        """Run SQL with each keyword as a table: `ws.query("select * from f where density > ?", 0.1, f=path)`."""
        import duckdb

        connection = duckdb.connect(config={"threads": 1})
        try:
            for alias, path in tables.items():
                if not re.fullmatch(r"[a-z_]\w*", alias):
                    raise ConfigError(f"{alias!r} is not a usable table alias")
                quoted = str(path).replace("'", "''")
                connection.execute(f"create view {alias} as select * from read_parquet('{quoted}')")
            return connection.sql(sql, params=list(parameters)).to_arrow_table()
        except (duckdb.InvalidInputException, duckdb.IOException) as error:
            files = ", ".join(map(str, tables.values()))
            raise CorruptError(
                f"cannot read {files}: {str(error).splitlines()[0]}; `workbench verify` checks it"
            ) from error
        finally:
            connection.close()

    def _scan(self, kind: str | None) -> list[Manifest | Broken]:
        found: list[Manifest | Broken] = []
        for each in KINDS if kind is None else [kind]:
            for name in self.names(each):
                try:
                    found.append(self.manifest(each, name))
                except WorkbenchError as error:
                    found.append(Broken(each, name, str(error)))
        return found
