"""Versions of the installed packages, and packages that import their public names when they are first asked for."""

import ast
import contextlib
import importlib
import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType


def code_version() -> str:
    try:
        return metadata.version("interp-workbench")
    except metadata.PackageNotFoundError:
        return "unknown"


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can change a number."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "transformers", "transformer-lens", "numpy", "umap-learn"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def lazily(
    package: str, file: str, renamed: Mapping[str, str] = MappingProxyType({})
) -> tuple[Callable[[str], object], list[str]]:
    """Return `__getattr__` and `__all__` of a package that imports its public names when they are first asked for.

    They are those that `file`, its `__init__.py`, imports for type checkers and editors, under `if TYPE_CHECKING:`.
    `renamed` maps a name of an earlier version 1 to that of today: it still works, and warns (decision 41).
    """
    blocks = [node for node in ast.parse(Path(file).read_text(encoding="utf-8")).body if isinstance(node, ast.If)]
    exports = {
        alias.asname or alias.name: (line.module or "", alias.name)
        for block in blocks
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }

    def find(name: str) -> object:
        if name in renamed:
            now = f"{package}.{name} is called {renamed[name]} now; the old name goes with version 2"
            warnings.warn(now, DeprecationWarning, stacklevel=2)
            return getattr(sys.modules[package], renamed[name])
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = exports[name]
        value = getattr(importlib.import_module(module), attribute)
        setattr(sys.modules[package], name, value)
        return value

    return find, list(exports)
