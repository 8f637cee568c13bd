"""Figures of the code that are worth a look and bind nobody: `python -m tests.figures`, the end of `make check`.

What must hold is in `tests/test_shape_of_code.py`. A figure that grew is a question for whoever changed the code.
"""

import ast
from statistics import median

from tests import source
from tests.test_shape_of_code import PACKAGES, ROOT, SOURCES, import_graph, module_name
from workbench.__main__ import overview

SMALL, LARGE, SHOWN = 60, 400, 5
"""Lines of a module that may belong into the one that imports it, and of one that may be two; names of the latter."""


WIDE, FORWARDED = 8, 4
"""Parameters of a function that may want a value, and keywords of the same name that a call hands on one by one."""


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Number of parameters without `self`."""
    given = function.args
    return len(
        [each for each in (*given.posonlyargs, *given.args, *given.kwonlyargs) if each.arg not in ("self", "cls")]
    )


def forwarded(call: ast.Call) -> int:
    """Number of keywords whose value has their own name, as `seed=seed` or `seed=self.seed`."""
    names = [(word.arg, getattr(word.value, "id", getattr(word.value, "attr", ""))) for word in call.keywords]
    return sum(keyword is not None and keyword == name for keyword, name in names)


def main() -> None:
    lines = {module_name(path): path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    modules = [name for name, path in zip(lines, SOURCES, strict=True) if path.name != "__init__.py"]
    importers = [other for others in import_graph().values() for other in others]
    small = [name for name in modules if lines[name] < SMALL and importers.count(name) == 1]
    large = sorted((name for name in modules if lines[name] > LARGE), key=lambda name: -lines[name])
    by_package = {each: sum(n for name, n in lines.items() if name.split(".")[0] == each) for each in PACKAGES}
    readme = (ROOT / "README.md").read_text(encoding="utf-8").count("\n")
    print(f"lines: {sum(lines.values()):,} ({', '.join(f'{name} {n:,}' for name, n in by_package.items())})")
    print(f"modules: {len(modules)}, median {median(lines[name] for name in modules):.0f} lines")
    print(f"modules under {SMALL} lines with one importer: {', '.join(small) or 'none'}")
    print(f"modules over {LARGE} lines: {len(large)}; {', '.join(f'{name} {lines[name]}' for name in large[:SHOWN])}")
    nodes = [node for path in SOURCES for node in source.nodes(path)]
    wide = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and parameters(node) >= WIDE for node in nodes)
    calls = sum(isinstance(node, ast.Call) and forwarded(node) >= FORWARDED for node in nodes)
    print(f"functions of {WIDE} parameters or more: {wide}; calls that forward {FORWARDED} keywords or more: {calls}")
    print(f"lines of `workbench --help`: {len(overview().splitlines())}; of README.md: {readme}")


if __name__ == "__main__":
    main()
