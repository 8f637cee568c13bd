"""The part of the writing rules that needs no judgement: openings of docstrings, a few private words, the glossary."""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import source

pytestmark = pytest.mark.source
ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for package in ("interp", "saes", "dashboard", "workbench", "tools") for path in (ROOT / package).rglob("*.py")
)
OPENING = re.compile(r"(What|Where|Who|How|Which|Whether|Why)\b")
PRIVATE = {
    r"\bplaces?\b": "hook point, site or position",
    r"\btwins?\b": "untrained model, control",
    r"\bnever saw\b": "held-out",
    r"\bwhat the dictionary leaves\b": "reconstruction error",
    r"\bcounts as no change\b": "null",
    r"\bbrings? (it |the \w+ )?along\b": "effect",
    r"\bstands? in for\b": "compensates for",
    r"\brests? on\b": "depends on",
}
"""Private word -> the field's."""
GLOSSARY = tomllib.loads((ROOT / "dashboard" / "components" / "glossary.toml").read_text(encoding="utf-8"))
REPLACED = {
    rf"\b{re.escape(word)}\b": name
    for entries in GLOSSARY.values()
    for name, entry in entries.items()
    for word in entry.get("instead_of", ())
}
"""Word that the glossary replaces -> its term."""
NUMBER = r"(?<![\w.\])}/*~:#+'\"-])\.\d+(?![\w~]|\.\d|%['\"]|%$)"
"""A number without its leading zero; formats of numbers are none."""
ALLOWED = re.compile(r"`[^`]*`|\bin[- ]place\b|\btak(e|es|ing) place\b|\bdecimal places?\b|\bin place of\b")


Nodes = tuple[ast.AST, ...]


def docstrings(nodes: Nodes) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes and functions, and strings below attributes and constants."""
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def owners(nodes: Nodes) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes and functions alone."""
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def checked(what: Callable[[Nodes], Iterator[tuple[int, str]]], judge: Callable[[str], Iterator[str]]) -> list[str]:
    """Every finding in the docstrings of the product, as `file:line: finding`."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {finding}"
        for path in SOURCES
        for line, text in what(source.nodes(path))
        for finding in judge(text)
    ]


def openings(text: str) -> Iterator[str]:
    if OPENING.match(text):
        yield text[:70]


def texts(nodes: Nodes) -> Iterator[tuple[int, str]]:
    """Every string of two words or more, docstrings too; seeds of random numbers, which are strings, left out."""
    seeds = {
        id(argument)
        for node in nodes
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("derive_seed", "make_generator")
        for argument in node.args
    }
    for node in nodes:
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and id(node) not in seeds
        ):
            yield node.lineno, node.value


def private_words(text: str) -> Iterator[str]:
    plain = ALLOWED.sub("", " ".join(text.split()))
    for word, better in PRIVATE.items():
        yield from (f"{match[0]!r}, say {better}" for match in re.finditer(word, plain))


def replaced_words(text: str) -> Iterator[str]:
    plain = re.sub("`[^`]*`", "", " ".join(text.split()))
    for word, term in REPLACED.items():
        yield from (f"{match[0]!r}, say {term}" for match in re.finditer(word, plain, flags=re.IGNORECASE))
    yield from (f"{match[0]!r}, say 0{match[0]}" for match in re.finditer(NUMBER, plain))


def test_docstrings_open_with_a_verb_or_a_noun():
    found = checked(owners, openings)
    assert not found, "\n".join(found)


def test_docstrings_use_the_terms_of_the_field():
    found = checked(docstrings, private_words)
    assert not found, "\n".join(found)


def test_texts_use_the_words_of_the_glossary_and_numbers_have_a_leading_zero():
    found = checked(texts, replaced_words)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["added to the stream", "no reading; fires on", "at most .05 of them", "from .1."])
def test_the_check_of_texts_fails_where_it_should(text):
    assert list(replaced_words(text))
    assert not list(replaced_words("the residual stream, 0.05, `.3`, d3.format('.2%'), {x:.2f}, x.5, the label"))


@pytest.mark.parametrize("text", ["What a folder is.", "Whether it holds.", "Who asks"])
def test_the_check_of_openings_fails_where_it_should(text):
    assert list(openings(text))


@pytest.mark.parametrize("text", ["the place where it reads", "its untrained twin", "the circuit rests on three heads"])
def test_the_check_of_words_fails_where_it_should(text):
    assert list(private_words(text))
    assert not list(private_words("sorted in place; `places` on disk"))
