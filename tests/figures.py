"""Figures of the code that are worth a look and bind nobody: `python -m tests.figures`, the end of `make check`.

What must hold is in `tests/test_shape_of_code.py`. A figure that grew is a question for whoever changed the code.
"""

from statistics import median

from tests.test_shape_of_code import PACKAGES, ROOT, SOURCES, import_graph, module_name
from workbench.__main__ import overview

SMALL, LARGE, SHOWN = 60, 400, 5
"""Lines of a module that may belong into the one that imports it, and of one that may be two; names of the latter."""


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
    print(f"lines of `workbench --help`: {len(overview().splitlines())}; of README.md: {readme}")


if __name__ == "__main__":
    main()
