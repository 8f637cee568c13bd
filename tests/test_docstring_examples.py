"""Examples in docstrings: their calls fit the signatures of today, and those that need little are run."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from docs.api import PUBLIC
from tests import source
from tests.test_shape_of_code import SOURCES, module_name

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def examples(path: Path) -> Iterator[str]:
    """Indented blocks of the docstrings of a file that are Python and call something."""
    for node in source.nodes(path):
        text = (ast.get_docstring(node) or "") if isinstance(node, DOCUMENTED) else ""
        for block in re.findall(r"(?:^|\n\n)((?:    .*\n?(?:\n(?=    ))*)+)", text + "\n"):
            code = textwrap.dedent(block)
            try:
                called = any(isinstance(part, ast.Call) for part in ast.walk(ast.parse(code)))
            except SyntaxError:
                continue
            if called:
                yield code


EXAMPLES = [
    pytest.param(module_name(path), code, id=f"{module_name(path)}-{number}")
    for path in SOURCES
    for number, code in enumerate(examples(path))
]


def known_names(module: str) -> dict[str, Any]:
    """Names that an example may use: the public ones, and those of its module."""
    public = (importlib.import_module(name) for name in PUBLIC)
    return {name: getattr(face, name) for face in public for name in face.__all__} | vars(
        importlib.import_module(module)
    )


def misfits(code: str, names: dict[str, Any]) -> list[str]:
    """Calls that the functions would refuse, and members that results lack."""
    tree, wrong = ast.parse(code), []
    types: dict[str, Any] = dict.fromkeys(stored(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            made = names.get(ast.unparse(node.value.func))
            types[node.targets[0].id] = made if inspect.isclass(made) else returned(made)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in types:
            wrong += refused(node, member(names, types, node.func))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            kind = types.get(node.value.id)
            if inspect.isclass(kind) and kind.__module__.startswith(("interp.", "saes.", "dashboard.")):
                fields = {*dir(kind), *getattr(kind, "__annotations__", {}), *assigned(kind)}
                wrong += [] if node.attr in fields else [f"{kind.__name__} has no {node.attr}"]
    return wrong


def stored(tree: ast.Module) -> set[str]:
    """Names that an example itself defines."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return names | {each.name for each in functions} | {arg.arg for each in functions for arg in each.args.args}


def assigned(kind: type) -> set[str]:
    """Attributes that methods of a class assign."""
    return {*re.findall(r"self\.(\w+)", inspect.getsource(kind))}


def returned(function: Any) -> Any:
    try:
        return get_type_hints(function).get("return")
    except (NameError, TypeError):  # a type that is imported for a type checker alone
        return None


def member(names: dict[str, Any], types: dict[str, Any], function: ast.expr) -> Any:
    """Return the function that is called, without its `self`; None where that is not known."""
    if isinstance(function, ast.Name):
        return names.get(function.id)
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        owner = function.value.id
        kind = types.get(owner)
        method = getattr(kind if inspect.isclass(kind) else names.get(owner), function.attr, None)
        return method.__get__(object()) if inspect.isclass(kind) and inspect.isfunction(method) else method
    return None


def refused(call: ast.Call, function: Any) -> list[str]:
    given = [*call.args, *(keyword.arg for keyword in call.keywords)]
    if not callable(function) or any(isinstance(each, ast.Starred | None) for each in given):
        return []
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a builtin
        return []
    try:
        signature.bind(*call.args, **{keyword.arg or "": None for keyword in call.keywords})
    except TypeError as error:
        return [f"{ast.unparse(call)[:80]}: {error}"]
    return []


@pytest.mark.parametrize(("module", "code"), EXAMPLES)
def test_calls_of_an_example_fit_the_functions(module: str, code: str):
    assert not misfits(code, known_names(module))


def test_an_example_that_does_not_fit_is_seen():
    names = known_names("interp.directions.files")
    assert misfits('read_directions("formal.gguf", model)', names) == [
        "read_directions('formal.gguf', model): too many positional arguments"
    ]
    assert misfits('recipe = read_directions("formal.gguf")\nrecipe.checks(model)', names) == ["Recipe has no checks"]
    assert misfits("Recipe(name='months', step=(step,))", names)
    assert not misfits('recipe = read_directions("formal.gguf")\nrecipe.steps', names)


@pytest.fixture(scope="module")
def at_hand() -> dict[str, Any]:
    """What a reader of an example has: a model, tokens, a task, a direction."""
    import numpy as np
    import torch

    from interp import Direction, Intervention, Recipe, load_model, make_task

    model = load_model("planted:induction")
    vector = np.eye(model.cfg.d_model, dtype=np.float32)[0]
    step = Intervention(
        target=Direction(hook_point="blocks.1.hook_resid_post", vector=vector, origin="axis 0"), amount=2.0
    )
    tokens = torch.arange(1, 17)[None] % 8 + 2
    recipe = Recipe(name="axis", steps=(step,), model="planted:induction", weight_hash="")
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    return {
        "model": model, "tokens": tokens, "recipe": recipe, "about": {"made": "by hand"}, "step": step,
        "steps": [step], "task": make_task("induction", model), "x": x, "labels": torch.arange(60) % 2,
    }  # fmt: skip


RUN = (
    "interp.circuits.attribution", "interp.circuits.induction", "interp.directions.files", "interp.geometry.dimension",
    "interp.geometry.probes", "interp.lenses.logit_lens", "interp.patching.ablation", "saes.features.search",
)  # fmt: skip
"""Modules with an example that is complete with the names above."""


@pytest.mark.parametrize("module", RUN)
def test_examples_run(module: str, at_hand: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    ran = 0
    for name, code in (each.values for each in EXAMPLES):
        scope = {**known_names(module), **at_hand}
        used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)} - stored(ast.parse(code))
        if name == module and "..." not in code and not used - scope.keys() - {"print"}:
            exec(compile(code, module, "exec"), scope)
            ran += 1
    assert ran
