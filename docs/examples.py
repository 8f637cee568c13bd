"""Uses of public names in notebooks and in the Python blocks of pages: the statements that call them."""

import ast
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PACKAGES = ("interp", "saes", "dashboard")


@dataclass(frozen=True)
class Use:
    """A statement that calls a public name."""

    code: str
    link: str
    """to the page or tutorial"""


@cache
def uses() -> dict[str, list[Use]]:
    """The uses of each name; a notebook or page has one of a name, its shortest."""
    found: dict[str, list[Use]] = defaultdict(list)
    for source, link in _sources():
        for name, code in _calls(source).items():
            found[name].append(Use(code, link))
    return dict(found)


def _sources() -> Iterator[tuple[str, str]]:
    """Code of every notebook and of every page, with a link to it."""
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py")):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# # (.*)$", text, flags=re.MULTILINE)
        yield text, f"[{title[1] if title else path.stem}](../tutorials/{path.stem})"
    for path in [ROOT / "README.md", *sorted((DOCS / "howto").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        title = text.partition("\n")[0].lstrip("# ")
        yield "\n".join(blocks), title if path.name == "README.md" else f"[{title}](../../howto/{path.name})"


def _calls(source: str) -> dict[str, str]:
    """The shortest statement that calls each name imported from the public packages, or else one that names it."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports if (node.module or "").split(".")[0] in PACKAGES for alias in node.names}
    found: dict[str, tuple[bool, int, str]] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt) or isinstance(node, ast.FunctionDef | ast.ImportFrom):
            continue
        code = textwrap.dedent("\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])).strip()
        called = {_called(each) for each in ast.walk(node)}
        for name in names & {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}:
            found[name] = min(found.get(name, (True, len(source), "")), (name not in called, len(code), code))
    return {name: code for name, (_, _, code) in found.items()}


def _called(node: ast.AST) -> str:
    """The name that a call calls, `Name(...)` or `Name.method(...)`."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        function = function.value
    return function.id if isinstance(function, ast.Name) else ""
