"""Every picture of README and docs has the words and numbers that its page has in the demo of today."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import chromium

ROOT = Path(__file__).parents[2]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(1800)
def test_pictures_say_what_the_demo_says_today(demo_workspace):
    chromium()
    command = [sys.executable, "-m", "tools.pictures", "--check", "--workspace", str(demo_workspace)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
