"""The shape that the code keeps: small files, arrows one way, light imports, no pickles."""

import ast
import contextlib
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from tests import source

ROOT = Path(__file__).parent.parent
PRODUCT = ("interp", "saes", "dashboard", "workbench")
PACKAGES = (*PRODUCT, "tools")
"""Each imports only what stands before it: `tools` makes what ships, and nothing of the product imports it."""
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
pytestmark = pytest.mark.source
MAX_FILE, MAX_FUNCTION, MAX_CLASS = 600, 80, 250


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[str, ast.Module]:
    return {module_name(path): source.tree(path) for path in SOURCES}


@cache
def imported(tree: ast.Module, *, typed: bool = False) -> set[str]:
    """Modules that a module imports, inside functions too; with `typed` those too that only a type checker reads."""
    found: set[str] = set()
    for node in ast.walk(tree) if typed else running_code(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def running_code(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from running_code(node)


def test_files_functions_and_classes_stay_small():
    too_big = []
    for path in SOURCES + sorted((ROOT / "dashboard" / "assets").rglob("*.*js")):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MAX_FILE:
            too_big.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        if path.suffix != ".py":
            continue
        for node in source.nodes(path):
            limit = {"FunctionDef": MAX_FUNCTION, "ClassDef": MAX_CLASS}.get(type(node).__name__)
            if limit and node.end_lineno - node.lineno + 1 > limit:
                too_big.append(f"{path.relative_to(ROOT)}:{node.name}: {node.end_lineno - node.lineno + 1} lines")
    assert not too_big, "\n".join(too_big)


@cache
def import_graph(*, typed: bool = False) -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports. A package counts where its `__init__` itself is meant."""
    modules = trees()
    graph = {}
    for name, tree in modules.items():
        graph[name] = {other for other in imported(tree, typed=typed) if other in modules and other != name}
        graph[name] -= {other for other in graph[name] if any(each.startswith(f"{other}.") for each in graph[name])}
    return graph


def test_no_import_circle():
    graph = import_graph(typed=True)
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "import circle: " + " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                walk(other, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_the_circle_check_sees_imports_inside_functions_and_for_a_type_checker_alone():
    tree = ast.parse("def f():\n    from interp import errors\n\nif TYPE_CHECKING:\n    import torch\n")
    assert imported(tree) == {"interp", "interp.errors"}
    assert imported(tree, typed=True) == {"interp", "interp.errors", "torch"}


def said_twice(tree: ast.Module) -> list[str]:
    """Modules imported again within a file, statements that repeat the one above, documented constants that are gone.

    In `tests/` a click may be repeated: only the product is asked.
    """
    imports = (ast.Import, ast.ImportFrom)
    at_top = [
        f"{getattr(node, 'module', '')}.{a.name}" for node in tree.body if isinstance(node, imports) for a in node.names
    ]
    wrong = [f"{name} imported under two names" for name in {*at_top} if at_top.count(name) > 1]
    for node in ast.walk(tree):
        if isinstance(node, imports) and node not in tree.body:
            again = {f"{getattr(node, 'module', '')}.{alias.name}" for alias in node.names} & {*at_top}
            wrong += [f"line {node.lineno}: {name} imported again" for name in again]
        for body in (getattr(node, part, None) for part in ("body", "orelse", "finalbody")):
            for above, below in pairwise(body if isinstance(body, list) else []):
                text = isinstance(below, ast.Expr) and isinstance(getattr(below.value, "value", None), str)
                if ast.dump(above) == ast.dump(below):
                    wrong.append(f"line {below.lineno} repeats the one above")
                elif text and not isinstance(above, ast.Assign | ast.AnnAssign):
                    wrong.append(f"line {below.lineno} documents nothing")
    return wrong


def test_nothing_is_imported_or_written_twice_in_a_file():
    wrong = [f"{name}: {each}" for name, tree in trees().items() for each in said_twice(tree)]
    assert not wrong, "\n".join(wrong)


def test_what_is_written_twice_is_seen():
    code = '''
import torch
from dashboard.sae import data as scores
from dashboard.sae import data as view

LIMIT = 3
"""Tokens."""
"""Left of a constant."""

def f():
    import torch
    a = torch.ones(2)
    a = torch.ones(2)
'''
    assert set(said_twice(ast.parse(code))) == {
        "dashboard.sae.data imported under two names", "line 8 documents nothing", "line 11: .torch imported again",
        "line 13 repeats the one above",
    }  # fmt: skip


FOUND_BY_THEIR_FILES = ("workbench.verbs.", "saes.acts.")


def test_every_module_is_reached_from_a_command_a_page_or_a_public_name():
    graph, modules = import_graph(), trees()
    faces = {module_name(path) for path in SOURCES if path.name == "__init__.py"}
    guards = {
        name: [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
        for name, tree in modules.items()
    }
    todo = [name for name in modules if name.endswith(".page") or "__name__ == '__main__'" in guards[name]]
    todo += [name for name in modules if name.startswith(FOUND_BY_THEIR_FILES)]
    todo += [name for name in modules if ".inside_" in name]  # an engine's own Python runs them
    todo += [
        name
        for face in faces
        for node in ast.walk(modules[face])
        if isinstance(node, ast.ImportFrom)
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        if name in graph and name not in faces
    ]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            tool = name.startswith("tools.")  # what only tools use belongs there
            todo += [other for other in graph[name] if other.startswith("tools.") or not tool]
    assert not set(graph) - found - faces, sorted(set(graph) - found - faces)


def test_arrows_point_one_way():
    order = {package: level for level, package in enumerate(PACKAGES)}
    back = [
        f"{name} imports {other}"
        for name, path in zip(trees(), SOURCES, strict=True)
        for node in source.nodes(path)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for other in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if order.get(other.split(".")[0], -1) > order[name.split(".")[0]]
    ]
    assert not back, "\n".join(back)


def every_import(tree: ast.Module, modules: Collection[str]) -> Iterator[str]:
    """What a module imports, inside functions and for a type checker alone too; of `modules` by their whole names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{ast.unparse(node)}: name the package"
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (each if each in modules else node.module or "" for each in whole)


def layers_of(package: str) -> list[list[set[str]]]:
    """Layers of a package, highest first, as import-linter has them in pyproject.toml.

    A layer is sets of folders and modules; those of one set may import each other. Pages that are not named stand
    beside *overview*, modules that are not named in the lowest set.
    """
    with open(ROOT / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [named] = [each["layers"] for each in contracts if each.get("containers") == [package]]
    layers = [[set(part.split(" : ")) for part in layer.split(" | ")] for layer in named]
    known = {unit for layer in layers for part in layer for unit in part}
    pages = {path.parent.name for path in (ROOT / package).glob("*/page.py")} - known
    for layer in layers:
        layer += [{page} for page in pages if {"overview"} in layer]
    layers[-1][-1] |= {path.stem for path in (ROOT / package).glob("*.py")} - known - {"__init__"}
    return layers


def against(layers: list[list[set[str]]], imports: dict[str, Collection[str]]) -> list[str]:
    """Imports within one package, by module, that lead to the same layer or to a higher one."""
    place = {unit: (n, part) for n, layer in enumerate(layers) for part in layer for unit in part}
    wrong = []
    for name, found in imports.items():
        package, here = (*name.split("."), "")[:2]
        for other in found:
            root, there = (*other.split("."), "")[:2]
            if root == package and here in place and there in place and here != there:
                (level, beside), (other_level, _) = place[here], place[there]
                if other_level <= level and there not in beside:
                    wrong.append(f"{name} imports {other}")
    return wrong


@pytest.mark.parametrize("package", PRODUCT)
def test_folders_import_only_what_lies_below_them(package):
    parsed, layers = trees(), layers_of(package)
    own = {name: set(every_import(tree, parsed)) for name, tree in parsed.items() if name.startswith(f"{package}.")}
    wrong = against(layers, own)
    assert not wrong, "against the order of folders in pyproject.toml:\n" + "\n".join(wrong)
    unnamed = {name.split(".")[1] for name in own} - {unit for layer in layers for part in layer for unit in part}
    assert not unnamed, f"the order of folders of {package} in pyproject.toml does not name {unnamed}"


def test_the_check_of_the_order_sees_what_is_against_it():
    layers = [[{"app"}], [{"overview"}, {"atlas"}], [{"data", "maps"}], [{"figures"}]]
    hidden = "def f():\n    from dashboard import atlas\n\nif TYPE_CHECKING:\n    import dashboard.maps.view\n"
    imports = {
        "dashboard.figures.saes": list(every_import(ast.parse(hidden), {"dashboard.atlas"})),
        "dashboard.overview.page": ["dashboard.atlas.page", "dashboard.figures.theme", "dashboard.data.features"],
        "dashboard.data.features": ["dashboard.maps.view", "dashboard.app", "dashboard.data.documents"],
        "dashboard.app": ["dashboard.atlas.page", "dashboard.data.features", "interp.atlas"],
    }
    assert against(layers, imports) == [
        "dashboard.figures.saes imports dashboard.atlas",
        "dashboard.figures.saes imports dashboard.maps.view",
        "dashboard.overview.page imports dashboard.atlas.page",
        "dashboard.data.features imports dashboard.app",
    ]


def test_figures_reach_no_dash_through_any_of_our_modules():
    parsed = trees()
    todo = [(name,) for name in parsed if name.startswith("dashboard.figures.")]
    seen = {name for (name,) in todo}
    assert "dashboard.figures.theme" in seen
    while todo:
        path = todo.pop()
        for other in every_import(parsed[path[-1]], parsed):
            assert not re.match(r"dash(_|\.|$)", other), " -> ".join((*path, other))
            if other in parsed and other not in seen:
                seen.add(other)
                todo.append((*path, other))


def test_private_names_stay_in_their_module():
    parsed = {module_name(path): source.nodes(path) for path in [*SOURCES, *(ROOT / "benchmarks").glob("*.py")]}
    wrong = []
    for name, found in parsed.items():
        modules: set[str] = set()
        for node in found:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (*PACKAGES, "benchmarks"):
                hidden = [a.name for a in node.names if re.match("_[^_]", a.name)]
                wrong += [f"{name}: {node.module}.{a}" for a in hidden if f"{node.module}.{a}" not in parsed]
                modules |= {a.asname or a.name for a in node.names if f"{node.module}.{a.name}" in parsed}
        attributes = (node for node in found if isinstance(node, ast.Attribute))
        used = {ast.unparse(node) for node in attributes if node.attr.startswith("_")}
        wrong += [
            f"{name}: {text}" for text in used for module in modules if re.fullmatch(rf"{module}\._[^_]\w*", text)
        ]
    assert not wrong, "\n".join(wrong)


def public_by_name() -> set[str]:
    """Modules that a table of public names or of kinds names."""
    inits = [path.read_text(encoding="utf-8") for path in SOURCES if path.name == "__init__.py"]
    return {module for text in inits for module in re.findall(r'"([\w.]+)(?:: |:[A-Z]|": ")', text)}


def test_a_module_that_only_its_own_folder_uses_begins_with_an_underscore_and_no_other_does():
    """Pages, verbs and acts are found by themselves, kinds by their names: public without an importer."""
    parsed, public, users = trees(), public_by_name(), defaultdict(set)
    outside = [path for folder in ("benchmarks", "notebooks") for path in (ROOT / folder).rglob("*.py")]
    for name, tree in (parsed | {module_name(path): source.tree(path) for path in outside}).items():
        for other in every_import(tree, parsed):
            users[other].add(name.rpartition(".")[0])
    wrong = []
    for name in (name for name in parsed if name.count(".") > 1 and not (ROOT / name.replace(".", "/")).is_dir()):
        folder, _, own = name.rpartition(".")
        found_by_itself = own == "page" or folder in ("workbench.verbs", "saes.acts", "saes.kinds") or own == "__main__"
        if own.startswith("_") and own != "__main__" and not users[name] <= {folder}:
            wrong.append(f"{name} is used by {users[name] - {folder}}: drop the underscore")
        if not own.startswith("_") and users[name] <= {folder} and name not in public and not found_by_itself:
            wrong.append(f"{name} is used by its own folder only: begin its name with an underscore")
    assert not wrong, "\n".join(wrong)


def test_a_public_class_name_stands_for_one_class():
    places = defaultdict(list)
    for name, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not name.startswith("tools."):
                places[node.name].append(name)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_only_interp_models_imports_transformer_lens():
    users = [
        name
        for name, tree in trees().items()
        if not name.startswith("interp.models.") and any("transformer_lens" in other for other in imported(tree))
    ]
    assert not users, users


def constants() -> dict[str, dict[str, list[object]]]:
    """Literal values that modules give to a name at their top level, by name without underscores and by module."""
    found: dict[str, dict[str, list[object]]] = {}
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id.strip("_")
                with contextlib.suppress(ValueError):
                    found.setdefault(name, {}).setdefault(module, []).append(ast.literal_eval(node.value))
    return found


def test_a_constant_is_defined_once():
    named = constants()
    assert {name: len(named[name]) for name in ("DENSE", "GOOD_F1", "NEURONS")} == {
        "DENSE": 1, "GOOD_F1": 1, "NEURONS": 1
    }  # fmt: skip
    texts = [
        (name, repr(value))
        for name, modules in named.items()
        for values in modules.values()
        for value in values
        if isinstance(value, str | tuple | frozenset) and len(repr(value)) >= 10
    ]
    assert [each for each in set(texts) if texts.count(each) > 1] == []


def test_every_module_says_what_it_is():
    bare = [name for name, tree in trees().items() if not ast.get_docstring(tree)]
    assert not bare, f"modules without a docstring: {bare}"


def test_nothing_is_unpickled():
    for name, path in zip(trees(), SOURCES, strict=True):
        for node in source.nodes(path):
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not re.search("pickle|joblib", ast.unparse(node)), name
            if isinstance(node, ast.Call):
                given = {k.arg: k.value for k in node.keywords}
                if "allow_pickle" in given:
                    assert ast.unparse(given["allow_pickle"]) == "False", name
                if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "torch.load":
                    assert "weights_only" in given, name
                    assert ast.unparse(given["weights_only"]) == "True", name


LIGHT = [
    "interp.errors",
    "interp.names",
    "interp.statistics",
    "interp.devices",
    "interp.artifacts",
    "interp.workspace",
    "saes.kinds.config",
    "saes.training.config",
    "saes.features.schema",
    "saes.features.search",
    "dashboard.app",
    *(f"dashboard.{page}.page" for page in ("overview", "atlas", "feature", "prompt", "heads", "circuit", "sae")),
    *(f"dashboard.{page}.page" for page in ("geometry", "dynamics", "changes", "compare")),
    "workbench.__main__",
]
HEAVY = {"torch", "transformer_lens", "transformers", "umap", "numba", "sklearn", "datasets"}
LIGHTER = {"interp.statistics": {"scipy"}}
"""What a module must not load beside those."""


@cache
def loaded_by_light_modules() -> dict[str, set[str]]:
    """Import every light module in one fresh process; return what each loaded that no module before it had loaded.

    The lightest come first, so that what a heavier one loads hides nothing.
    """
    code = f"""
import importlib, json, sys
found, before = {{}}, set(sys.modules)
for module in {LIGHT}:
    importlib.import_module(module)
    found[module] = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
    before = set(sys.modules)
print(json.dumps(found))
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    )
    return {module: set(names) for module, names in json.loads(out.stdout).items()}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module):
    found = loaded_by_light_modules()[module] & (HEAVY | LIGHTER.get(module, set()))
    assert not found, f"{module} loads {sorted(found)}"


def test_no_two_test_modules_share_a_name():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest imports them by name alone"
