"""Verbs, a family in each file: frozen dataclasses whose fields are the options; `measure` or `run` does the work.

A file says with its `HEADING` where `workbench --help` lists its verbs; nothing else names it.
"""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from workbench.analysis import Analysis
from workbench.terminal import Heading, Verb

FIRST = ("record", "train", "evaluate", "features", "heads", "patch", "trace", "geometry")
"""Files whose verbs come first under their heading; the others follow by name."""


def _verbs(heading: Heading) -> Iterator[type[Verb]]:
    """Yield the verbs of the files with this `HEADING`, in the order of `FIRST` and of the lines."""
    names = [info.name for info in iter_modules(__path__)]
    for name in sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        module = import_module(f"{__name__}.{name}")
        if heading == module.HEADING:
            classes = (value for _, value in vars(module).items() if inspect.isclass(value))
            yield from (
                value
                for value in classes
                if value.__module__ == module.__name__ and issubclass(value, Verb) and not inspect.isabstract(value)
            )


GROUPS: dict[str, tuple[type[Verb], ...]] = {heading.value: tuple(_verbs(heading)) for heading in Heading}
"""Every verb of this folder, under the heading that `workbench --help` gives it."""

ANALYSES = tuple(verb for group in GROUPS.values() for verb in group if issubclass(verb, Analysis) and verb.on_page)
"""Verbs that the page *Runs*, the API and agents may start, in the order of the menu."""
