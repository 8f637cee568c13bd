"""Versions of the installed packages, and packages that import their public names when they are first asked for."""

import contextlib
import importlib
import platform
import sys
from collections.abc import Callable, Mapping
from importlib import metadata


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


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], list[str]]:
    """Return `__getattr__` and `__all__` of a package that imports its public names when they are first asked for.

    `homes` maps each module to its names, separated by spaces; `attribute:public` renames one.
    """
    exports = {
        public or attribute: (module, attribute)
        for module, names in homes.items()
        for attribute, _, public in (name.partition(":") for name in names.split())
    }

    def find(name: str) -> object:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = exports[name]
        value = getattr(importlib.import_module(module), attribute)
        setattr(sys.modules[package], name, value)
        return value

    return find, list(exports)
