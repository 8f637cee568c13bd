"""The written schema and the document that describes it say the same."""

import re
import subprocess
import sys
from pathlib import Path

from saes.features.schema import (
    GROUPS,
    examples_schema,
    features_schema,
    relations_schema,
)

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"


def documented_columns(section: str, until: str) -> list[str]:
    text = FORMATS.read_text(encoding="utf-8")
    part = text[text.index(section) : text.index(until)]
    names = re.findall(r"^\| ([a-z0-9_, ]+) \|", part, flags=re.MULTILINE)
    return [name.strip() for row in names if row != "column" for name in row.split(",")]


def test_feature_columns_are_those_of_the_document():
    assert documented_columns("in `features.parquet`", "`examples.parquet`") == features_schema().names


def test_example_columns_are_those_of_the_document():
    assert documented_columns("`examples.parquet`, sorted", "`relations.parquet`") == examples_schema().names


def test_relation_columns_are_those_of_the_document():
    assert documented_columns("`relations.parquet`, one row", "## heads") == relations_schema().names


def test_groups_are_stored_in_the_order_shown():
    assert GROUPS == ("top", "q4", "q3", "q2", "q1")


def test_reading_the_schema_loads_no_torch():
    code = "import sys, saes.features.schema; saes.features.schema.features_schema(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
