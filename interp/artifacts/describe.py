"""Kinds of artefact described from their classes: what lies where, and in which form. Torch-free.

`described` is for the reference pages, `schema_of_kind` for the API, `as_record` for its answers.
"""

import inspect
from dataclasses import asdict, dataclass

from interp.artifacts.artefact import Artefact, layout_of
from interp.artifacts.files import as_json
from interp.artifacts.tables import schema_of
from interp.forms import json_schema
from interp.registry import KINDS
from interp.results import Record


@dataclass(frozen=True)
class DescribedField:
    """One field of a kind of artefact."""

    name: str
    file: str
    """Its file in the folder."""
    form: str
    """Its type, of a table its columns."""


def described(kind: str) -> list[DescribedField]:
    """Return the fields of a kind of artefact, each with its file and form."""
    rows = []
    for name, part in layout_of(KINDS[kind].load()).items():
        if part.place == "table":
            form = ", ".join(f"{column.name} {column.type}" for column in schema_of(part.form))
        else:
            form = inspect.formatannotation(part.form)
        rows.append(DescribedField(name, part.file, form))
    return rows


def schema_of_kind(kind: str) -> dict[str, object]:
    """Return the content of a kind of artefact: JSON schemas of its values and the columns of its tables."""
    form_of = KINDS[kind].load()
    described_fields: dict[str, dict[str, object]] = {}
    for name, part in layout_of(form_of).items():
        if part.place == "table":
            form: dict[str, object] = {"columns": {column.name: str(column.type) for column in schema_of(part.form)}}
        else:
            form = {"schema": json_schema(part.form)} if part.place != "array" else {"array": str(part.form)}
        described_fields[name] = {"file": part.file, **form}
    return {"folder": KINDS[kind].folder, "verb": form_of.made_by, "fields": described_fields}


def as_record(value: Artefact, most_rows: int) -> Record:
    """Return a stored artefact as plain JSON values; of a table the number of rows and the first `most_rows`."""
    manifest = value.about
    facts: Record = {
        "key": value.key,
        "kind": manifest.kind,
        "headline": value.headline(),
        "page": value.href,
    }
    facts |= {name: getattr(manifest, name) for name in ("created", "seed", "content_hash", "parents")}
    facts["findings"] = [asdict(finding) for finding in value.findings()]
    for name, part in layout_of(type(value)).items():
        content = getattr(value, name)
        if part.place == "array":
            facts[name] = None if content is None else {"shape": list(content.shape), "file": part.file}
        elif part.place == "table":
            rows = [] if content is None else [asdict(row) for row in content.rows(limit=most_rows)]
            facts[name] = {"n_rows": 0 if content is None else len(content), "rows": as_json(rows)}
        else:
            facts[name] = as_json(content)
    return facts
