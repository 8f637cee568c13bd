"""The rows of the feature tables and the constants that readers rely on."""

import subprocess
import sys

from saes.features.schema import GROUPS


def test_groups_are_stored_in_the_order_shown():
    assert GROUPS == ("top", "q4", "q3", "q2", "q1")


def test_reading_the_schema_loads_no_torch():
    code = "import sys, saes.features.schema; saes.features.schema.Features; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
