"""The shape that the code keeps: small files, arrows one way, light imports, no pickles."""

import ast
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("interp", "saes", "dashboard", "workbench")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_CLASS = 600, 80, 250


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def trees() -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def imported(tree: ast.Module) -> set[str]:
    """Modules that a module imports, inside functions too; not those that only a type checker reads."""
    found: set[str] = set()
    for node in running_code(tree):
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
        for node in ast.walk(ast.parse(text)):
            limit = {"FunctionDef": MAX_FUNCTION, "ClassDef": MAX_CLASS}.get(type(node).__name__)
            if limit and node.end_lineno - node.lineno + 1 > limit:
                too_big.append(f"{path.relative_to(ROOT)}:{node.name}: {node.end_lineno - node.lineno + 1} lines")
    assert not too_big, "\n".join(too_big)


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports. A package counts where its `__init__` itself is meant."""
    modules = trees()
    graph = {}
    for name, tree in modules.items():
        graph[name] = {other for other in imported(tree) if other in modules and other != name}
        graph[name] -= {other for other in graph[name] if any(each.startswith(f"{other}.") for each in graph[name])}
    return graph


def test_no_import_circle():
    graph = import_graph()
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "import circle: " + " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                walk(other, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_the_circle_check_sees_imports_inside_functions():
    tree = ast.parse("def f():\n    from interp import errors\n\nif TYPE_CHECKING:\n    import torch\n")
    assert imported(tree) == {"interp", "interp.errors"}


def test_every_module_is_reached_from_a_command_a_page_or_a_public_name():
    graph, modules = import_graph(), trees()
    faces = {module_name(path) for path in SOURCES if path.name == "__init__.py"}
    todo = [name for name, tree in modules.items() if name.endswith(".page") or "'__main__'" in ast.unparse(tree)]
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
            todo += graph[name]
    assert not set(graph) - found - faces, sorted(set(graph) - found - faces)


def test_arrows_point_one_way():
    order = {package: level for level, package in enumerate(PACKAGES)}
    back = [
        f"{name} imports {other}"
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for other in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if order.get(other.split(".")[0], -1) > order[name.split(".")[0]]
    ]
    assert not back, "\n".join(back)


def test_only_interp_models_imports_transformer_lens():
    users = [
        module_name(path)
        for path in SOURCES
        if "interp/models/" not in path.as_posix()
        for node in running_code(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and "transformer_lens" in ast.unparse(node)
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
    assert {name: len(named[name]) for name in ("CIRCUITS", "DENSE", "GOOD_F1", "NEURONS", "PHASES")} == {
        "CIRCUITS": 1, "DENSE": 1, "GOOD_F1": 1, "NEURONS": 1, "PHASES": 1
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
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            n for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for n in [ast.unparse(node)]
        }
        assert not any("pickle" in n or "joblib" in n for n in names), path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert keywords.get("allow_pickle", "False") == "False", path
                if ast.unparse(node.func) == "torch.load":
                    assert keywords.get("weights_only") == "True", path


LIGHT = [
    "interp.errors",
    "interp.names",
    "interp.runtime",
    "interp.artifacts",
    "interp.workspace",
    "saes.kinds.config",
    "saes.training.config",
    "saes.features.schema",
    "dashboard.app",
    *(f"dashboard.{page}.page" for page in ("overview", "atlas", "feature", "prompt", "heads", "circuit", "sae")),
    *(f"dashboard.{page}.page" for page in ("geometry", "dynamics", "changes")),
    "interp.statistics",
    "workbench.__main__",
]
HEAVY = {"torch", "transformer_lens", "transformers", "umap", "numba", "sklearn", "datasets"}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module):
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    )
    assert out.stdout.strip() == "", f"{module} loads {out.stdout.strip()}"


def test_no_two_test_modules_share_a_name():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest imports them by name alone"
