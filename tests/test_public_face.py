"""The public face is light and complete, notebooks and docs use no more, and package docstrings are maps."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PUBLIC = ("interp", "interp.studies", "saes", "dashboard", "dashboard.figures")
PACKAGES = sorted(
    path.parent
    for package in ("interp", "saes", "dashboard", "workbench", "tools")
    for path in (ROOT / package).rglob("__init__.py")
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_can_be_imported(package):
    face = importlib.import_module(package)
    assert face.__all__
    for name in face.__all__:
        assert getattr(face, name).__module__.split(".")[0] in ("interp", "saes", "dashboard"), name


@pytest.mark.source
@pytest.mark.parametrize("package", PUBLIC)
def test_no_public_name_is_hidden_by_a_module_of_the_same_name(package):
    folder = Path(importlib.import_module(package).__file__ or "").parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    assert not modules & set(importlib.import_module(package).__all__)


@pytest.mark.source
@pytest.mark.parametrize("package", PUBLIC)
def test_an_unknown_name_is_an_attribute_error_that_names_the_package(package):
    with pytest.raises(AttributeError, match=rf"{re.escape(package)}.*no_such_name"):
        importlib.import_module(package).no_such_name  # noqa: B018


@pytest.mark.source
@pytest.mark.parametrize("package", PUBLIC)
def test_importing_a_package_is_light(package):
    heavy = {
        "torch",
        "numpy",
        "pandas",
        "transformers",
        "transformer_lens",
        "plotly",
        "dash",
        "scipy",
        "sklearn",
        "numba",
    }
    loaded = f"print(*sorted({heavy!r} & set(sys.modules)), end='|'); print(len(set(sys.modules) - before))"
    code = f"import sys; before = set(sys.modules); import {package}; {loaded}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    loaded, count = out.stdout.strip().split("|")
    assert loaded == ""
    assert int(count) < 120, "an import of this many modules takes longer than a tenth of a second"


def ours_in(source: str) -> list[tuple[str, str]]:
    """(module, name) of every import from our packages."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return [(module, name) for module, name in found if module.split(".")[0] in ("interp", "saes", "dashboard")]


def code_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def not_public(source: str) -> list[str]:
    return [
        f"{module}: {name or 'imported whole'}"
        for module, name in ours_in(source)
        if module not in PUBLIC or name not in importlib.import_module(module).__all__
    ]


@pytest.mark.source
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_use_public_names_only(path):
    assert not_public(path.read_text(encoding="utf-8")) == []


@pytest.mark.source
@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_use_public_names_only(page):
    blocks = code_blocks(page)
    assert [bad for block in blocks for bad in not_public(block)] == []


@pytest.mark.source
def test_readme_has_a_block_to_check():
    assert any(ours_in(block) for block in code_blocks(ROOT / "README.md"))


@pytest.mark.source
@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_docstring_names_every_module_of_its_folder_and_no_other(folder):
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    if "nothing else names it" in text:
        return  # its files are found by themselves
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")}
    modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
    listed = re.findall(r"^- (.*(?:\n {2,}.*)*)", text, re.MULTILINE)
    named = {
        name for line in listed for name in re.findall(r"`(\w+)`", re.split(r"(?<=`)[:\s](?=\s*[^`,\s])", line)[0])
    }
    assert modules - named == set(), "modules that the docstring does not name"
    assert named - modules == set(), "names that are no modules"
