"""Kinds of one's own: a class in a Python file that the environment names.

    export WORKBENCH_KINDS=soft.py                    # several files are separated as in PATH
    workbench train demo --kind soft --d-sae 512      # the kind is named as its file

The file holds one subclass of `saes.kinds.autograd.AutogradKind`; keyword-only arguments of its `__init__` are the
settings of the kind. The file is run where such a dictionary is trained or loaded, and only where the variable names
it: a dictionary never brings code with it. Listing and scores of one need no code. Torch-free until a file is run.
"""

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from interp.errors import ConfigError, MissingError
from saes.kinds.config import CONFIGS, OwnConfig

if TYPE_CHECKING:
    from saes.kinds.autograd import AutogradKind, AutogradRecipe, DictionarySizes

VARIABLE = "WORKBENCH_KINDS"


def own_kinds() -> dict[str, Path]:
    """Return the file of every kind that the environment names, by the name of the kind."""
    paths = [Path(path).expanduser() for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]
    return {path.stem: path for path in paths}


def own_config(kind: str, *, d_sae: int | None = None, **settings: object) -> OwnConfig:
    """Return the config of a kind of one's own, by name.

    Args:
        kind: the name of its file, one of those that `WORKBENCH_KINDS` lists.
        d_sae: the number of latents.
        settings: arguments of the class. A text is converted to the type of the default.
    Returns: a config, for `train_sae`.
    Raises:
        MissingError: a file that is not there.
        ConfigError: a name that a kind of the workbench has, a setting that the class lacks, or one without a value.

    >>> os.environ["WORKBENCH_KINDS"] = str(folder / "plain.py")
    >>> code = '''from saes import AutogradKind
    ... class Plain(AutogradKind):
    ...     def __init__(self, sizes, *, width: float = 0.5): ...
    ...     def encode(self, x): ...
    ...     def loss(self, batch, acts, recons): ...
    ... '''
    >>> _ = (folder / "plain.py").write_text(code)
    >>> own_config("plain", d_sae=512, width=0.1).d_sae
    512
    """
    made = kind_class(kind)
    known = _settings(made)
    if foreign := [name for name in settings if name not in known]:
        raise ConfigError(f"a {kind} SAE has no {', '.join(foreign)}; its settings are {', '.join(['d_sae', *known])}")
    chosen = {name: parameter.default for name, parameter in known.items()}
    chosen |= {name: _converted(value, known[name]) for name, value in settings.items()}
    if missing := [name for name, value in chosen.items() if value is inspect.Parameter.empty]:
        raise ConfigError(f"a {kind} SAE needs a value of {', '.join(missing)}; give {missing[0]}=VALUE")
    size = OwnConfig.d_sae if d_sae is None else d_sae
    return OwnConfig(kind=kind, d_sae=size, code=_hash(own_kinds()[kind]), settings=chosen)


def own_recipe(config: OwnConfig) -> "AutogradRecipe":
    """Return what trains a kind of one's own."""
    from saes.kinds.autograd import AutogradRecipe

    return AutogradRecipe(config.kind, lambda sizes: own_kind(config.kind, sizes, config.settings))


def own_kind(kind: str, sizes: "DictionarySizes", settings: Mapping[str, object]) -> "AutogradKind":
    """Return a dictionary in training, of a kind of one's own."""
    return kind_class(kind)(sizes, **settings).named(kind, settings)


def kind_class(kind: str) -> "type[AutogradKind]":
    """Return the class of a kind of one's own, for which its file is run."""
    from saes.kinds.autograd import AutogradKind

    paths = own_kinds()
    if kind not in paths:
        raise MissingError(
            f"the kind {kind} is code of its own, which is not here; name its file: export {VARIABLE}={kind}.py"
        )
    path = paths[kind]
    if kind in CONFIGS:
        raise ConfigError(f"{path} has the name of a kind of the workbench, {kind}; rename the file")
    if not path.is_file():
        raise MissingError(f"no file at {path}, which {VARIABLE} names; correct the path")
    module = _run(path, _hash(path))
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    kinds = [c for c in classes if issubclass(c, AutogradKind) and not inspect.isabstract(c)]
    if len(kinds) != 1:
        raise ConfigError(
            f"{path} must hold one subclass of AutogradKind with an `encode`, it holds {len(kinds)}; "
            "docs/howto/own-kind.md shows one"
        )
    return kinds[0]


@lru_cache
def _run(path: Path, content: str) -> ModuleType:
    """Return the module of a file, run once as long as its content is the same."""
    spec = importlib.util.spec_from_file_location(f"workbench_kind_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _settings(made: "type[AutogradKind]") -> dict[str, inspect.Parameter]:
    """Return the keyword-only arguments of a class."""
    parameters = inspect.signature(made.__init__).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _converted(value: object, parameter: inspect.Parameter) -> object:
    """Return a value as its default's type; text is read, numbers are converted."""
    default = parameter.default
    if default is inspect.Parameter.empty or isinstance(value, type(default)) or default is None:
        return value
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[str(value).lower()]
        return type(default)(value)
    except (KeyError, ValueError):
        raise ConfigError(
            f"{parameter.name} must be a {type(default).__name__} like {default!r}, got {value!r}"
        ) from None


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
