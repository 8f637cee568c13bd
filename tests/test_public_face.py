"""The public face is light and complete, notebooks and docs use no more, and package docstrings are maps."""

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from docs.api import entries
from docs.examples import uses
from tests.oracles.peer_names import rows

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


# Functions that people call first

SIXTY = """
    load_model to_tokens token_strings run_with_hooks untrained_model generate start_vllm hooks_of intervened
    logit_lens logit_effects direct_logit_attribution activation_patching measure_map make_task clean_run cut_effects
    score_heads head_composition find_induction_circuit trace open_system intervene changes_of continuations examine
    open_corpus record open_recording save_artefact open_artefact find_concepts t_interval
    read_examples make_direction measure_direction read_directions write_directions
    load_sae save_sae load_dictionary train train_sae train_many own_config open_set evaluate_in_model splice_hooks
    build_features prove load_recipe attribute_features
    plot show atlas_view create_app colours_of styled training_curves activation_histogram
"""
"""Functions whose docstrings have sections and an example; `called_first()` is among them."""
FIRST = SIXTY.split()
REFUSE_NOTHING = """
    token_strings run_with_hooks untrained_model generate cut_effects logit_effects t_interval examine create_app
    colours_of styled training_curves activation_histogram
"""
DOCTESTED = [
    path
    for package in ("interp", "saes", "dashboard", "workbench")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "\n    >>> " in path.read_text(encoding="utf-8")
]


def called_first() -> set[str]:
    """Functions that README, the lesson, a how-to page or two notebooks call, or that the page on other tools names."""
    known = {each.name for each in entries() if inspect.isfunction(each.value)}
    found = {ours.rpartition(".")[2] for _, _, ours in rows()}
    for name, used in uses().items():
        links = {use.link for use in used if "short-examples" not in use.link}
        if len(links) > 1 or any("/tutorials/" not in link or "/00_" in link for link in links):
            found.add(name)
    return found & known


def test_the_functions_that_documents_call_are_among_the_sixty():
    assert len(FIRST) == len(set(FIRST)) == 60
    assert called_first() - set(FIRST) == set()


@pytest.mark.parametrize("name", FIRST)
def test_functions_called_first_say_parameters_result_errors_and_an_example(name):
    from interp import errors

    value = next(each.value for each in entries() if each.name == name)
    doc = inspect.getdoc(value) or ""
    first, sections = doc.partition("\n")[0], dict(re.findall(r"^(Args|Returns|Raises):(.*(?:\n    .*)*)", doc, re.M))
    named = set(re.findall(r"^    (\w+(?:, \w+)*):", sections["Args"], re.M))
    assert {each for names in named for each in names.split(", ")} <= set(inspect.signature(value).parameters)
    result = inspect.signature(value).return_annotation
    assert (
        result is None or "Iterator[None]" in str(result) or "Returns" in sections or re.search(r"(?i)\breturn", first)
    )
    raised = re.findall(r"\b\w+Error\b", sections.get("Raises", ""))
    assert bool(raised) != (name in REFUSE_NOTHING.split())
    assert all(issubclass(getattr(errors, each), errors.WorkbenchError) for each in raised)
    assert re.search(rf"^(>>>|\.\.\.) .*\b{name}\(", doc, re.M)


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Public names, and what the page Reference makes before the examples."""
    known = {name: getattr(importlib.import_module(each), name) for each in PUBLIC
             for name in importlib.import_module(each).__all__}  # fmt: skip
    [setup] = code_blocks(ROOT / "docs" / "reference.md")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("examples")))
        exec(compile(setup, "reference.md", "exec"), known)
    return known


@pytest.mark.parametrize("path", DOCTESTED, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_docstrings_run(path: Path, at_hand: dict[str, object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_KINDS", "")  # which an example sets
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(module, extraglobs=at_hand, optionflags=flags)
    assert found.attempted > 0
    assert found.failed == 0, "the report is above"
