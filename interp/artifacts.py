"""Artefacts: one folder per result, with `manifest.json`, atomic writes, hashes, and resumable work. Torch-free.

Steps of every verb:

1. `Draft.open(folder, kind=, config=)` makes `<folder>.partial/` with `status.json`, or resumes an existing one with
   the same config.
2. The verb writes files into `draft.path` (each atomically) and reports with `draft.update(...)`.
3. `draft.finish(...)` hashes every file, writes the manifest and renames the folder, or uploads it (`interp.remote`).
   Only complete artefacts have a manifest.

The content hash leaves out the manifest and the training log, whose speeds differ from run to run. The module also
reads arrays of users (`read_npy`), and writes frozen values as JSON (`as_json`, `save_json`).
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from interp.errors import (
    ConfigError,
    CorruptError,
    MismatchError,
    MissingError,
    SchemaError,
    UnknownNameError,
    disk_errors,
)
from interp.remote import MANIFEST, RemotePath, leaves_folder
from interp.results import Record, Result, flat
from interp.runtime import DTYPES, FolderLock, code_version, library_versions, model_dtype
from interp.upgrades import upgrade

SCHEMA_VERSION = 2
STATUS = "status.json"
PARTIAL = ".partial"
LOG = "log.jsonl"
"""Training log of losses and speeds; the speeds do not affect the result."""
UNHASHED = frozenset({LOG})
"""Files outside the content hash, in whatever folder; `verify` checks them as well."""

# The kinds of artefact, each with one format, and the folder of the workspace that holds each.
KINDS = {
    "recording": "recordings",
    "sae": "saes",
    "transcoders": "transcoders",
    "features": "features",
    "atlas": "atlases",
    "heads": "heads",
    "evaluation": "evaluations",
    "sae_comparison": "sae-comparisons",
    "size_law": "size-laws",
    "model_comparison": "model-comparisons",
    "latent_comparison": "latent-comparisons",
    "induction_circuit": "induction-circuits",
    "edge_circuit": "edge-circuits",
    "feature_circuit": "feature-circuits",
    "attribution_graph": "graphs",
    "lens": "lenses",
    "patching": "patching",
    "labels": "labels",
    "proof": "proofs",
    "word_geometry": "word-geometry",
    "direction": "directions",
    "space": "spaces",
    "space_comparison": "space-comparisons",
    "grokking": "grokking",
    "induction_onset": "induction-onsets",
    "language_scaling": "language-scaling",
}
CIRCUITS = ("induction_circuit", "edge_circuit", "feature_circuit")
GEOMETRY = ("word_geometry", "direction", "space", "space_comparison")
STUDIES = ("grokking", "induction_onset", "language_scaling")
MODEL_COMPARISONS = ("model_comparison", "latent_comparison")


@dataclass(frozen=True, kw_only=True)
class Manifest(Result):
    """Manifest of an artefact: its kind, settings, results, origin and files."""

    kind: str
    name: str
    config: dict[str, Any]
    """The settings that determine the content."""
    summary: dict[str, Any] = field(default_factory=dict)
    """The main results, as numbers and short texts."""
    parents: dict[str, str] = field(default_factory=dict)
    """Hash of each parent: `"recordings/demo"` to its content hash, or `"model:smollm2-135m"` to its weight hash."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`{"sha256", "bytes"}` of every file but the manifest, by relative path."""
    content_hash: str = ""
    seed: int | None = None
    threads: int | None = None
    created: str = ""
    seconds: float = 0.0
    code_version: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_records(self) -> list[Record]:
        """Return one row: `kind, name, created, seconds, seed, content_hash` and the numbers of the summary."""
        about = {key: getattr(self, key) for key in ("kind", "name", "created", "seconds", "seed")}
        return [about | {"content_hash": self.content_hash[:12]} | flat(self.summary)]

    def headline(self) -> str:
        """Name the artefact and what it was made from."""
        made_of = f", made from {', '.join(self.parents)}" if self.parents else ""
        return f"{self.kind} {self.name}{made_of}"


class Draft:
    """An artefact being written in `<folder>.partial/`."""

    def __init__(
        self, folder: Path, kind: str, config: dict[str, Any], seed: int | None, before: dict[str, Any] | None
    ):
        self.folder, self.kind, self.config, self.seed, self.resumed = folder, kind, config, seed, before is not None
        self._status = {
            **_identity(kind, config, seed),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "state": "running",
            "pid": os.getpid(),
        }
        if before is not None:
            self._status["progress"] = before.get("progress", {})
        self.path = partial_path(folder)
        self._lock: FolderLock | None = None
        self._known_files: dict[str, dict[str, Any]] = {}
        self._started = time.time()

    @classmethod
    def open(
        cls, folder: Path, *, kind: str, config: dict[str, Any], seed: int | None = None, overwrite: bool = False
    ) -> "Draft":
        """Start an artefact, or resume an interrupted run with the same config.

        With `overwrite` an existing folder is replaced, but only at `finish`; an unfinished run of it is resumed too.
        The dtype of the models that a command loads (`--dtype`) joins the config where it is not float32.
        Raises `ConfigError` when the finished folder exists without `overwrite` or another process writes it now,
        `MismatchError` when there is a partial run with another config, `UnknownNameError` for an unknown kind.
        """
        if kind not in KINDS:
            raise UnknownNameError("artefact kind", kind, KINDS)
        lock = _lock_partial(folder, overwrite)
        if model_dtype() != DTYPES[0]:
            config = {**config, "model_dtype": model_dtype()}
        partial = partial_path(folder)
        before = upgrade(read_json(partial / STATUS)) if (partial / STATUS).exists() else None
        identity = _identity(kind, config, seed)
        there = {} if before is None else {key: before.get(key) for key in identity}
        if before is not None and there != identity:
            before = None
            if overwrite:
                shutil.rmtree(partial)
                lock = _lock_partial(folder, overwrite)
            else:
                raise MismatchError(
                    f"{partial} holds an unfinished run with other settings ({_differences(there, identity)}); "
                    "repeat it with those settings to resume, --overwrite to discard it, or choose another --name"
                )
        with disk_errors(partial):
            draft = cls(folder, kind, config, seed, before)
            draft._lock = lock
            write_json(partial / STATUS, draft._status)
        return draft

    def update(self, **progress: Any) -> None:
        """Make progress visible to other processes (the dashboard reads `status.json`)."""
        self._status["progress"] = {**self._status.get("progress", {}), **progress}
        self._status["updated"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(self.path / STATUS, self._status)

    def add_known(self, relative: str, sha256: str, n_bytes: int) -> None:
        """Record the hash of a file that was computed while writing it, so that `finish` need not read it again."""
        self._known_files[relative] = {"sha256": sha256, "bytes": n_bytes}

    def finish(
        self,
        *,
        summary: dict[str, Any] | None = None,
        parents: dict[str, str] | None = None,
        threads: int | None = None,
    ) -> Manifest:
        """Hash the files, write the manifest and rename the folder. Return the manifest."""
        files: dict[str, dict[str, Any]] = {}
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            relative = path.relative_to(self.path).as_posix()
            if relative in (STATUS, MANIFEST) or relative.endswith(".tmp"):
                continue
            files[relative] = self._known_files.get(relative) or file_entry(path)
        manifest = Manifest(
            kind=self.kind,
            name=self.folder.name,
            config=self.config,
            summary=summary or {},
            parents=parents or {},
            files=files,
            content_hash=hash_files(files),
            seed=self.seed,
            threads=threads,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds=round(time.time() - self._started, 2),
            code_version=code_version(),
            versions=library_versions(),
        )
        write_json(self.path / MANIFEST, asdict(manifest))
        with disk_errors(self.folder):
            made = put_in_place(self.path, self.folder, list(files))
        (made / STATUS).unlink(missing_ok=True)  # last: until then it marks the partial folder as resumable
        return manifest

    def discard(self) -> None:
        """Remove the partial folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def _lock_partial(folder: Path, overwrite: bool) -> FolderLock:
    """Make the partial folder of an artefact and lock it. Raises `ConfigError` as `Draft.open`."""
    partial = partial_path(folder)
    with disk_errors(partial):
        partial.mkdir(parents=True, exist_ok=True)
        lock = FolderLock.take(partial)
    if folder.exists() and not overwrite:  # looked at under the lock: nobody can finish it now
        with contextlib.suppress(OSError):  # an unfinished run in it stays
            partial.rmdir()
        raise ConfigError(f"{folder} is already there; choose another --name, or --overwrite to replace it")
    return lock


def partial_path(folder: Path) -> Path:
    """Return the folder of an artefact until it is complete: `<folder>.partial`."""
    folder = folder.by_name() if isinstance(folder, RemotePath) else folder
    return folder.with_name(folder.name + PARTIAL)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a complete artefact, converted to the current schema (`interp.upgrades`).

    Raises `MissingError` (no such folder, or still partial), `CorruptError`, `SchemaError` (a newer version wrote it).
    """
    path = folder / MANIFEST
    if not path.exists():
        if partial_path(folder).exists():
            raise MissingError(f"{folder} is unfinished; run the same command again to resume it")
        raise MissingError(f"no artefact at {folder} (a {MANIFEST} was expected)")
    raw = read_json(path)
    version = raw.get("schema_version")
    if not isinstance(version, int):
        raise CorruptError(f"{path}: schema_version is missing; the manifest was edited or cut short")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"{path}: schema version {version} is newer than this workbench ({SCHEMA_VERSION}); upgrade the workbench"
        )
    if missing := {"kind", "name", "config", "files", "content_hash"} - raw.keys():
        raise CorruptError(f"{path}: lacks {', '.join(sorted(missing))}; the manifest was edited or cut short")
    found = {key: value for key, value in upgrade(raw).items() if key in Manifest.__dataclass_fields__}
    if wrong := _wrong_fields(found):
        raise CorruptError(f"{path}: {', '.join(wrong)} has another form; the manifest was edited")
    return Manifest(**found)


def _wrong_fields(raw: dict[str, Any]) -> list[str]:
    """Return the fields that are not of their form; files must lie inside the folder."""
    forms = dict.fromkeys(("kind", "name", "content_hash", "created"), str)
    forms |= dict.fromkeys(("config", "summary", "files", "parents"), dict)
    wrong = [name for name, form in forms.items() if not isinstance(raw.get(name, form()), form)]
    for name, entry in raw["files"].items() if not wrong else ():
        known = isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and type(entry.get("bytes")) is int
        wrong += ["files"] * (not known or leaves_folder(name))
    return wrong


def verify(folder: Path) -> list[str]:
    """Return every difference between the files and the manifest, one line each; empty when there is none."""
    manifest = read_manifest(folder)
    found = folder.found() if isinstance(folder, RemotePath) else None
    problems = []
    for relative, entry in manifest.files.items():
        path = folder / relative
        if found is not None:  # what is in the store, whatever the cache holds
            problem = found[0].problem(relative)
        elif not path.exists():
            problem = "missing"
        elif path.stat().st_size != entry["bytes"]:
            problem = f"{path.stat().st_size} bytes, the manifest says {entry['bytes']}"
        else:
            problem = "" if sha256_file(path) == entry["sha256"] else "content differs from its checksum"
        problems += [f"{relative}: {problem}"] if problem else []
    if hash_files(manifest.files, manifest.schema_version) != manifest.content_hash:
        problems.append(f"{MANIFEST}: the file list was edited (content hash differs)")
    return problems


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`: renamed to it when the block succeeds, removed when it fails."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # on a disk that can only be read it stays, and the next try replaces it
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(_dump(value) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `MissingError`, and `CorruptError` when the file does not hold one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"no file at {path}") from None
    except (ValueError, RecursionError) as error:  # not JSON, not text, a number of thousands of digits, too deep
        raise CorruptError(f"{path} is not valid JSON ({error}); it was edited or cut short") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{path} should hold a JSON object, found {type(value).__name__}")
    return value


def write_table(path: Path, table: Any) -> None:
    """Write a pyarrow table as parquet, atomically, in small row groups, so that one feature is one short read."""
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=8192)


def read_table(path: Path, columns: list[str] | None = None, filters: Any = None) -> Any:
    """Read a parquet file as a pyarrow table. Raises `CorruptError`."""
    import pyarrow.parquet as pq

    with table_errors(path):
        return pq.read_table(path, columns=columns, filters=filters)


@contextlib.contextmanager
def table_errors(path: Path, advice: str = "`workbench verify` checks it") -> Iterator[None]:
    """Turn errors in reading a table into a one-line `CorruptError` that names its file and ends in the next move."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise CorruptError(f"cannot read {path}: {reason}; {advice}") from error


def sha256_file(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def file_entry(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def hash_files(files: dict[str, dict[str, Any]], schema_version: int = SCHEMA_VERSION) -> str:
    """Return the content hash of a manifest's `files`, over the names and checksums of all but `UNHASHED`.

    Schema 1 hashed every file. Its recorded hashes remain valid, so that children still name their parents.
    """
    left_out = UNHASHED if schema_version > 1 else frozenset()
    digest = hashlib.sha256()
    for relative in sorted(name for name in files if name.rpartition("/")[2] not in left_out):
        digest.update(f"{relative}\0{files[relative]['sha256']}\n".encode())
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    return hashlib.sha256(_dump(value).encode()).hexdigest()


def copy_artefact(source: Path, target: Path) -> None:
    """Copy a finished artefact, to or from object storage too: `target` is the path of a free name in a workspace.

    Raises `CorruptError` where the source is damaged, `ConfigError` where the name is taken.
    """
    if problems := verify(source):
        raise CorruptError(f"{source} is damaged ({problems[0]}); make it or install the package again")
    if target.exists():
        raise ConfigError(f"{target} is already there; choose another name")
    copy = partial_path(target).with_name(f"{target.name}.tmp")  # not `.partial`: that may be an unfinished run
    with disk_errors(target):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        put_in_place(copy, target, list(read_manifest(copy).files))


def put_in_place(source: Path, target: Path, files: list[str]) -> Path:
    """Rename a folder to `target`, or upload its files there; return the folder on this machine.

    An old one is moved aside first, so that a crash leaves one of the two complete.
    """
    if isinstance(target, RemotePath) and (place := target.place()) and not place.relative:
        return place.mirror.publish(target, source, files)
    old = target.with_name(target.name + ".old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    os.replace(source, target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _identity(kind: str, config: dict[str, Any], seed: int | None) -> dict[str, Any]:
    """Return the settings that two runs must share for one to resume the other, as read back from JSON."""
    return json.loads(_dump({"kind": kind, "config": config, "seed": seed}))


def _differences(there: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return the settings in which an unfinished run differs from the one asked for: `k 4 there, 8 asked for`."""
    pairs = {key: (there.get(key), asked[key]) for key in asked if key != "config"}
    configs = [each if isinstance(each, dict) else {} for each in (there.get("config"), asked["config"])]
    pairs |= {key: (configs[0].get(key), configs[1].get(key)) for key in {**configs[0], **configs[1]}}
    found = [
        f"{key} {_short(one)} there, {_short(other)} asked for" for key, (one, other) in pairs.items() if one != other
    ]
    return "; ".join(found[:4]) + (f"; {len(found) - 4} more" if len(found) > 4 else "")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def read_npy(path: Path) -> np.ndarray:
    """Return the array of integers or floats in a `.npy` file.

    Raises `CorruptError` on any other content; pickled objects are not loaded.
    """
    try:
        array = np.load(path, allow_pickle=False)
    # headers are Python literals; a false one may ask for any memory
    except (ValueError, OSError, EOFError, SyntaxError, TokenError, MemoryError) as error:
        raise CorruptError(f"{path} cannot be read as .npy ({error}); pickled arrays are not loaded") from None
    if not isinstance(array, np.ndarray):
        raise CorruptError(f"{path} holds several arrays (.npz), one was expected; save that one by numpy.save")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise CorruptError(f"{path} should hold numbers, found {array.dtype}")
    return array


def as_json(value: Any) -> Any:
    """Return a frozen dataclass, tensor, array or container as plain JSON values; NaN and infinity become None.

    >>> as_json({"beta": 0.125, "heads": (1, 2), "slope": float("nan")})
    {'beta': 0.125, 'heads': [1, 2], 'slope': None}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if not isinstance(value, type) and hasattr(value, "tolist"):  # tensors, arrays, numpy's numbers
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def save_json(value: Any, path: Path | str) -> None:
    """Write a value atomically as one JSON file."""
    write_json(Path(path), as_json(value))
