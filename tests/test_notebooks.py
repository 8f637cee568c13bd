"""Every notebook runs, and the answer that its last cell asserts holds. The first reads what the demo made.

The executed copies stay in notebooks/built/, where `make docs` takes its tutorials from.
"""

from pathlib import Path

import pytest

from notebooks.build import build, notebooks

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("source", notebooks(), ids=lambda path: path.stem)
def test_notebook_runs_and_its_findings_hold(source: Path, request, tmp_path):
    workspace = request.getfixturevalue("demo_workspace") if source.name.startswith("01") else tmp_path
    build(source, workspace)
