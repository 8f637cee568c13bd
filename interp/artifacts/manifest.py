"""The manifest of an artefact: what it is, what it was made from, and the checksum of every file. Torch-free.

The content hash leaves out the manifest and the training log, whose speeds differ from run to run.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.artifacts.files import FileSum, read_json, sha256_file
from interp.errors import CorruptError, MissingError, SchemaError
from interp.registry import KINDS
from interp.results import Record, Result, flat
from interp.view import View

Raw = dict[str, Any]
"""A manifest as JSON."""
FIRST_VERSION = 4
"""Schema of version 1.0: what it wrote opens in every 1.x (decision 41)."""
UPGRADES: tuple[Callable[[Raw], Raw], ...] = ()
"""For each schema since the first, in order: its manifest as one of the next. A change of it that a default cannot
express (a field renamed, or of another form) adds one function here."""
SCHEMA_VERSION = FIRST_VERSION + len(UPGRADES)
MANIFEST = "manifest.json"
STATUS = "status.json"
PARTIAL = ".partial"
LOG = "log.jsonl"
"""Training log of losses and speeds; the speeds do not affect the result."""
UNHASHED = frozenset({LOG})
"""Files outside the content hash, in whatever folder; `verify` checks them as well."""


@dataclass(frozen=True, kw_only=True)
class Manifest(Result):
    """Manifest of an artefact: its kind, settings, results, origin and files."""

    kind: str
    name: str
    config: dict[str, Any]
    """The settings that determine the content, as JSON; `Workspace.open` gives them typed."""
    summary: dict[str, Any] = field(default_factory=dict)
    """The small values among the results, as JSON; `Workspace.open` gives them typed."""
    parents: dict[str, str] = field(default_factory=dict)
    """Hash of each parent: `"recordings/demo"` to its content hash, or `"model:smollm2-135m"` to its weight hash."""
    files: dict[str, FileSum] = field(default_factory=dict)
    """`{"sha256", "bytes"}` of every file but the manifest, by relative path."""
    content_hash: str = ""
    seed: int | None = None
    model_dtype: str = "float32"
    """Data type of the models that were loaded."""
    threads: int | None = None
    created: str = ""
    seconds: float = 0.0
    code_version: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def model(self) -> str:
        """Spec of the model that the artefact is about; empty where it is about none, or several."""
        names = (self.config.get("model"), self.summary.get("model"))
        return next((name for name in names if isinstance(name, str)), "")

    @property
    def key(self) -> str:
        """Key `folder/name`, by which parents and addresses name the artefact."""
        return f"{KINDS[self.kind].folder}/{self.name}"

    def to_records(self) -> list[Record]:
        """Return one row: `kind, name, created, seconds, seed, content_hash` and the numbers of the summary."""
        record = {key: getattr(self, key) for key in ("kind", "name", "created", "seconds", "seed")}
        return [record | {"content_hash": self.content_hash[:12]} | flat(self.summary)]

    def view(self) -> View:
        made_of = f", made from {', '.join(self.parents)}" if self.parents else ""
        yield f"{self.kind} {self.name}{made_of}"


def partial_path(folder: Path) -> Path:
    """Return the folder of an artefact until it is complete: `<folder>.partial`."""
    return folder.with_name(folder.name + PARTIAL)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a complete artefact.

    Raises `MissingError` (no such folder, or still partial), `CorruptError`, `SchemaError` (another version wrote it).
    """
    path = folder / MANIFEST
    if not path.exists():
        if partial_path(folder).exists():
            raise MissingError(f"{folder} is unfinished; run the same command again to resume it")
        raise MissingError(f"no artefact at {folder}, which lacks {MANIFEST}")
    raw = read_json(path)
    version = raw.get("schema_version")
    if type(version) is not int:
        raise CorruptError(f"{path}: schema_version is missing; the manifest was edited or cut short")
    if not FIRST_VERSION <= version <= SCHEMA_VERSION:
        raise SchemaError(_other_version(path, version, raw.get("kind")))
    for upgrade in UPGRADES[version - FIRST_VERSION :]:
        raw = upgrade(raw)
    if missing := {"kind", "name", "config", "files", "content_hash"} - raw.keys():
        raise CorruptError(f"{path}: lacks {', '.join(sorted(missing))}; the manifest was edited or cut short")
    if unknown := raw.keys() - Manifest.__dataclass_fields__:
        raise CorruptError(f"{path}: {', '.join(sorted(unknown))} is not part of a manifest; it was edited")
    if wrong := _wrong_fields(raw):
        raise CorruptError(f"{path}: {', '.join(wrong)} has another form; the manifest was edited")
    return Manifest(**raw)


def _other_version(path: Path, version: int, kind: object) -> str:
    """Return the message for an artefact of another version: the next move is to upgrade, or to make it again."""
    message = f"{path} has schema version {version}, this workbench reads {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        return f"{message}; upgrade the workbench"
    made_by = KINDS[kind].load().made_by if isinstance(kind, str) and kind in KINDS else "VERB"
    return f"{message}; make it again with `workbench {made_by} ... --overwrite`"


def leaves_folder(name: str) -> bool:
    """Return whether the name of a file in a manifest could lie outside the artefact's folder."""
    return name.startswith("/") or ".." in name.split("/") or "\\" in name


def _wrong_fields(raw: dict[str, Any]) -> list[str]:
    """Return the fields that are not of their form; files must lie inside the folder."""
    forms = dict.fromkeys(("kind", "name", "content_hash", "created", "model_dtype", "code_version"), str)
    forms |= dict.fromkeys(("config", "summary", "files", "parents", "versions"), dict)
    wrong = [name for name, form in forms.items() if not isinstance(raw.get(name, form()), form)]
    for name, entry in raw["files"].items() if not wrong else ():
        known = isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and type(entry.get("bytes")) is int
        wrong += ["files"] * (not known or leaves_folder(name))
    return wrong


def verify(folder: Path) -> list[str]:
    """Return every difference between the files and the manifest, one line each; empty when there is none."""
    manifest = read_manifest(folder)
    problems = []
    for relative, entry in manifest.files.items():
        path = folder / relative
        if not path.exists():
            problem = "missing"
        elif path.stat().st_size != entry["bytes"]:
            problem = f"{path.stat().st_size} bytes, the manifest says {entry['bytes']}"
        else:
            problem = "" if sha256_file(path) == entry["sha256"] else "content differs from its checksum"
        problems += [f"{relative}: {problem}"] if problem else []
    if hash_files(manifest.files) != manifest.content_hash:
        problems.append(f"{MANIFEST}: the file list was edited (content hash differs)")
    return problems


def hash_files(files: Mapping[str, FileSum]) -> str:
    """Return the content hash of a manifest's `files`, over the names and checksums of all but `UNHASHED`."""
    digest = hashlib.sha256()
    for relative in sorted(name for name in files if name.rpartition("/")[2] not in UNHASHED):
        digest.update(f"{relative}\0{files[relative]['sha256']}\n".encode())
    return digest.hexdigest()
