"""Every verb uses each of its options: none is accepted and then ignored."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, TypeGuard

import pytest

from interp.options import Derived
from workbench.__main__ import VERBS
from workbench.analysis import Analysis
from workbench.options import options_of
from workbench.steps import SHARED
from workbench.terminal import OnDevice, RunsModel, Seeded, Threaded, Verb


def options(verb: type) -> set[str]:
    """The fields that are options: all but those that the verb derives from others."""
    return {option.name for option in options_of(verb)}


BY_RUNNER = {"workspace", "name", "overwrite", "threads"}
"""Options that `Analysis.run` and `AnalysisRun` use for every analysis."""
ON_DEVICE = {"device", "model", "recording", "recorded_model", "sae", "saes", "dictionary", "described", "of_another"}
"""Members of an `AnalysisRun` that pick the device and the dtype."""


def used(verb: type) -> set[str]:
    """The fields that the work reads, itself or through methods, settings, functions given the verb, and the run."""
    found: set[str] = set(BY_RUNNER) if issubclass(verb, Analysis) else set()
    seen: set[str] = set()
    waiting = ["measure" if issubclass(verb, Analysis) else "run", "default_name", "kind", "__post_init__"]
    waiting += ["run"] if issubclass(verb, Analysis) and verb.run is not Analysis.run else []
    while waiting:
        name = waiting.pop()
        method = getattr(verb, name, None)
        method = method.fget if isinstance(method, property) else method
        method = method.func if isinstance(method, cached_property) else method
        if name in seen or not inspect.isfunction(method):
            continue
        seen.add(name)
        code = inspect.getsource(method)
        if "super()." in code and name != "__post_init__":  # as it does, and what it extends
            above = [vars(base)[name] for base in verb.__mro__ if name in vars(base)][1:2]
            code += "".join(inspect.getsource(each) for each in above if inspect.isfunction(each))
        for node in ast.walk(ast.parse(textwrap.dedent(code))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                found.add(node.attr)
                waiting.append(node.attr)
            if of_run(node) & ON_DEVICE or is_given(node, "run"):
                found |= {"device", "dtype", "engine", "use_device"}
            if is_given(node, "self"):
                found |= handed_on(method, node)
    return found


def is_given(node: ast.AST, name: str) -> TypeGuard[ast.Call]:
    """True where a node calls a function with the variable of a name."""
    return isinstance(node, ast.Call) and any(isinstance(a, ast.Name) and a.id == name for a in node.args)


def of_run(node: ast.AST) -> set[str]:
    """The member of an `AnalysisRun` that a node reads, if it reads one."""
    reads = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "run"
    return {node.attr} if reads else set()


def handed_on(method: Callable, call: ast.Call) -> set[str]:
    """Fields that a call reads of the verb that it is given: of `settings_of`, of `sharing`, or of a plain function."""
    name = ast.unparse(call.func)
    if name in ("settings_of", "base_of"):
        kind = method.__globals__[ast.unparse(call.args[1])]
        return {each.name for each in fields(kind)} - {keyword.arg for keyword in call.keywords}
    if name == "sharing":
        return set(SHARED)
    function = method.__globals__.get(name)
    if not inspect.isfunction(function):
        return set()
    at = next(at for at, each in enumerate(call.args) if isinstance(each, ast.Name) and each.id == "self")
    return read_of(function, list(inspect.signature(function).parameters)[at])


def read_of(function: Callable, parameter: str) -> set[str]:
    """Attributes that a function reads of one of its parameters, itself or through functions that it gives it to."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == parameter:
            found.add(node.attr)
        if isinstance(node, ast.Call) and inspect.isfunction(other := function.__globals__.get(ast.unparse(node.func))):
            names = list(inspect.signature(other).parameters)
            given = [at for at, each in enumerate(node.args) if isinstance(each, ast.Name) and each.id == parameter]
            found |= {name for at in given for name in read_of(other, names[at])}
    return found


@pytest.mark.parametrize("name", VERBS)
def test_each_option_is_used(name):
    verb = VERBS[name]
    ignored = used_in_checks_only(verb)
    assert not ignored, f"workbench {name} accepts and ignores {sorted(ignored)}"


def used_in_checks_only(verb: type) -> set[str]:
    """Options that nothing but `__post_init__` reads: they are checked, and then ignored."""

    @dataclass(frozen=True, kw_only=True)
    class Unchecked(verb):
        def __post_init__(self) -> None:
            pass

    Unchecked.__module__ = verb.__module__
    return options(verb) - used(Unchecked)


def test_an_ignored_option_is_seen():
    @dataclass(frozen=True, kw_only=True)
    class Ignores(Seeded, Threaded):
        words: ClassVar[tuple[str, ...]] = ("ignores",)
        checked: int = 0
        size: int = 1
        derived: Derived[int] = 2

        def __post_init__(self) -> None:
            assert self.checked == 0

        def run(self) -> None:
            self.use_threads()
            self.grow()

        def grow(self) -> int:
            return self.size

    assert options(Ignores) - used(Ignores) == {"seed"}
    assert used_in_checks_only(Ignores) == {"seed", "checked"}


def test_a_verb_has_a_one_line_summary_and_words():
    for name, verb in VERBS.items():
        assert issubclass(verb, Verb)
        assert tuple(name.split()) == verb.typed_words()
        assert (verb.__doc__ or "").splitlines()[0].endswith("."), name


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if issubclass(verb, OnDevice)])
def test_the_device_is_printed(name):
    assert name == "demo" or "use_device" in used(VERBS[name]), "the demo's steps print theirs"


def named(verb: type) -> set[str]:
    """Names in the methods of a verb, and in the functions of its module that they name."""
    acts = [base for base in verb.__mro__[1:] if base.__module__.startswith("saes.acts.")]
    module, names = vars(sys.modules[verb.__module__]), set()
    waiting = [each for own in (verb, *acts) for called, each in vars(own).items() if not called.startswith("__")]
    modules = {own.__module__ for own in (verb, *acts)}
    while waiting:
        function = waiting.pop()
        if inspect.isfunction(function) and function.__module__ in modules:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
            found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            found |= {f"run.{member}" for node in ast.walk(tree) for member in of_run(node)}
            found -= names
            names |= found
            waiting += [module[each] for each in found if each in module]
    return names


def test_every_verb_that_loads_a_model_or_a_dictionary_takes_a_device():
    openers = {"load_model", "open_saes", "open_recording_model", "open_dictionary", "open_atlas_source"}
    openers |= {f"run.{member}" for member in ON_DEVICE}
    for name, verb in VERBS.items():
        assert not named(verb) & openers or issubclass(verb, OnDevice), name


OTHER_DTYPE = {
    "record": "--compute; its --dtype is that of the stored activations",
    "demo": "its steps are verbs, at their defaults",
}


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_that_loads_a_model_takes_its_dtype_and_no_other_does(name):
    openers = {"load_model", "open_saes", "open_recording_model", "open_atlas_source", "open_provider"}
    openers |= {
        "run.model",
        "run.weight_hash",
        "run.recorded_model",
        "run.saes",
        "run.described",
        "run.of_another",
        "CompareModels",
    }
    loads = bool(named(VERBS[name]) & openers)
    assert issubclass(VERBS[name], RunsModel) == (loads and name not in OTHER_DTYPE), name
    assert name != "record" or "compute" in options(VERBS[name])
