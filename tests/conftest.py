"""Fixtures that every package's tests share."""

import contextlib
import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook
from own_words import OWN
from shapes import SHAPES_CHECKED

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may need a network
os.environ.setdefault("WORKBENCH_DOCTOR", "off")  # thousands of small models; tests of the first look turn it on

install_import_hook(SHAPES_CHECKED, "shapes.check_shapes")

# Test processes beside each other share the cores; set before torch counts them. Threads of torch and numba that wait
# for a core must not spin: two processes with two threads each took ten times as long for the same products.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
BESIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if BESIDE > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // BESIDE)))

# A shell that starts the tests in the background leaves Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


OF_THE_DEMO = (
    *("tests/test_demo.py", "tests/browser/test_browser_pictures.py"),
    "tests/test_notebooks.py::test_notebook_runs_and_its_findings_hold[01_",
)
"""Begins the names of tests that need `demo_workspace`."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of the demo to one process, as a file is: any other would wait for minutes until it is made."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "demo" if nodeid.startswith(OF_THE_DEMO) else super()._split_scope(nodeid)

    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """Leave the modules and tests out of all later searches for garbage, which are rarer too: 3 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def smollm2():
    """Return the packaged SmolLM2-135M, float32, eager attention. Read-only: tests that edit weights load their own."""
    from interp.models.loading import load_model

    return load_model("smollm2-135m")


@pytest.fixture(scope="session")
def gemma():
    """Return Gemma 3 270M. Skips without its optional packages, or fails when WORKBENCH_REQUIRE_GEMMA=1. Read-only."""
    from interp.errors import MissingError
    from interp.models.loading import load_model

    try:
        return load_model("gemma3-270m")
    except MissingError as error:
        if os.environ.get("WORKBENCH_REQUIRE_GEMMA") == "1":
            pytest.fail(f"{error}, and WORKBENCH_REQUIRE_GEMMA=1")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_model():
    """Return a small random model with bytes as tokens: two layers with MLPs. Read-only."""
    from interp.models.loading import load_model

    return load_model("small:mlp-2l", seed=0)


@pytest.fixture(scope="module")
def one_thread():
    """Compute on one thread: bits are promised for a fixed number, and small products are quickest on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold what several test processes need back from all but one of them: the others find it made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _toy(request, spec: str):
    """Return a trained toy, cached by pytest under its recipe and training code; a clean checkout has no cache."""
    import hashlib

    from interp.models import small, toys, training

    code = b"".join(Path(module.__file__).read_bytes() for module in (small, toys, training))
    folder = request.config.cache.mkdir("toys") / hashlib.sha256(code).hexdigest()[:12]
    with alone(folder):
        return toys.cached_toy(spec, folder, seed=0, device="cpu", dtype=None)


@pytest.fixture(scope="session")
def induction_toy(request):
    """Return a two-layer model trained by recipe until it has an induction circuit. Read-only."""
    return _toy(request, "toy:induction-2l")


@pytest.fixture(scope="session")
def one_layer_toy(request):
    """Return the one-layer control of the induction toy, which cannot have an induction circuit. Read-only."""
    return _toy(request, "toy:induction-1l")


@pytest.fixture(scope="session")
def fixed_period_toy(request):
    """Return a model that copies only at period 16, by position. Read-only."""
    return _toy(request, "toy:fixed-period-1l")


@pytest.fixture(scope="session")
def text_documents():
    """Return some pages of plain text as documents with ids and labels; the same in every run."""
    from interp.text.corpora import Document

    sentence = "the quick brown fox jumps over a lazy dog while seven wizards quietly mix potions for grumpy kings"
    words = sentence.split()
    documents = []
    for number in range(60):
        chosen = [words[(number * 7 + place * place) % len(words)] for place in range(40 + number % 13)]
        documents.append(Document(f"{number}: " + " ".join(chosen) + ".", f"page-{number}", f"book-{number % 4}"))
    return documents


@pytest.fixture
def workspace_folder(tmp_path: Path) -> Path:
    """Return an empty workspace folder."""
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture(params=["cut in half", "zeros in the middle"])
def damage_file(request: pytest.FixtureRequest):
    """Return a function that damages the file at a path, as an interrupted copy or a bad disk does."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        quarter = len(data) // 4
        zeroed = data[:quarter] + bytes(2 * quarter) + data[3 * quarter :]
        path.write_bytes(data[: 2 * quarter] if request.param == "cut in half" else zeroed)

    return damage


@pytest.fixture(scope="session")
def demo_workspace(tmp_path_factory) -> Path:
    """Return the workspace of `workbench demo` with the packaged dictionary; a minute or two, for slow tests only."""
    return _made_by("WORKBENCH_DEMO_WORKSPACE", tmp_path_factory, "demo")


@pytest.fixture(scope="session")
def trained_workspace(tmp_path_factory) -> Path:
    """Return a workspace of the packaged model that `workbench own` makes from nothing; takes minutes."""
    return _made_by("WORKBENCH_TRAINED_WORKSPACE", tmp_path_factory, *OWN)


def _made_by(variable: str, tmp_path_factory, *words: str) -> Path:
    """Return a copy of a workspace that is made once for all test processes, or the one that a variable names."""
    if ready := os.environ.get(variable):
        return Path(ready)
    of_all = tmp_path_factory.getbasetemp().parent if BESIDE > 1 else tmp_path_factory.getbasetemp()
    made = of_all / f"made-by-{words[0]}"
    command = [sys.executable, "-m", "workbench", *words, "--no-serve", "--workspace", str(made)]
    with alone(made):
        if not made.with_suffix(".done").exists():
            subprocess.run(command, check=True, timeout=1700)  # below that of these tests
            made.with_suffix(".done").touch()
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("demo") / "workspace"))
