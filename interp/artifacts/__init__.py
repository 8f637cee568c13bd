"""Artefacts: one folder per result, with `manifest.json`, atomic writes, hashes, and resumable work. Torch-free.

- `artefact`: the base class of what is stored, saved and opened by one function each;
- `tables`: parquet checked against classes of rows (`interp.forms` does it for JSON);
- `manifest`, `draft`: what a finished artefact says of itself, and one that is being written;
- `describe`: kinds described from their classes, for the reference and the API;
- `files`: atomic files, checksums.
"""

from interp.artifacts.artefact import (
    ARRAY,
    ARRAYS,
    Artefact,
    DocumentField,
    address_of,
    open_artefact,
    save_artefact,
)
from interp.artifacts.draft import Draft, copy_artefact
from interp.artifacts.files import (
    as_json,
    atomic_file,
    file_entry,
    hash_json,
    read_json,
    read_npy,
    read_table,
    save_json,
    sha256_file,
    table_errors,
    write_json,
    write_table,
)
from interp.artifacts.manifest import (
    LOG,
    MANIFEST,
    PARTIAL,
    SCHEMA_VERSION,
    STATUS,
    UNHASHED,
    Manifest,
    hash_files,
    partial_path,
    read_manifest,
    verify,
)
from interp.artifacts.tables import Table, query
from interp.errors import disk_errors
from interp.forms import Measured, from_json, json_schema
from interp.registry import FOLDERS, KINDS, kinds_of
