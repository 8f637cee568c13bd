"""Libraries of a server, loaded without what it does not need: before, that took half of the time until it answered.

Mantine's package makes a class for each of its 160 components, and pages draw fourteen; the others are made when
somebody names them. Dash loads IPython, where it is installed, in case it runs in a notebook, and pyarrow loads pandas,
in case somebody gives it a frame. A process that has them already keeps them, and one that needs them later loads them.
"""

import sys
from importlib import import_module
from types import ModuleType

USED = (
    *("Autocomplete", "Button", "Checkbox", "MantineProvider", "Modal", "NumberInput", "RangeSlider"),
    *("SegmentedControl", "Select", "Slider", "Switch", "TagsInput", "TextInput", "Textarea"),
)
"""Components of Mantine that pages draw. Another one is found too, and costs what its module takes to load."""
_MANTINE = "dash_mantine_components"


class _Components(ModuleType):
    """Stands for the module that imports every component of Mantine: each is imported when it is asked for."""

    def __init__(self):
        super().__init__(f"{_MANTINE}._imports_")
        self.__all__ = [*USED]

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return getattr(import_module(f"{_MANTINE}.{name}"), name)
        except ModuleNotFoundError:
            raise AttributeError(f"{_MANTINE} has no {name}") from None


class _Missing:
    """Lets the import of some packages fail, unless they are loaded already."""

    def __init__(self, *names: str):
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is not loaded while the server starts", name=name)

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)


def load_libraries() -> None:
    """Load Dash, its components and pyarrow, without what they do not need."""
    import pyarrow as pa

    with _Missing("pandas", "IPython"):
        pa.array([0.0])  # it looks for pandas once, at the first array
        import_module("dash")
    if _MANTINE not in sys.modules:
        components = sys.modules[f"{_MANTINE}._imports_"] = _Components()
        import_module(_MANTINE).__getattr__ = components.__getattr__
