"""Prose from the docstrings of the installed packages: real English without a network.

Source files are read with `ast`; nothing is imported. A document is one module, cut at paragraphs into parts of about
`DOCUMENT_CHARS`; its label is the package. Modules come in a seeded order and are read only when they are reached, so
any prefix is a mix of packages and costs only its own reading.

Paragraphs are included when they have at least `MIN_CHARS` characters and two sentences of prose. Excluded are code,
parameter lists, tables, repeated paragraphs, tests, and packages whose docstrings are generated from templates.
"""

import ast
import csv
import hashlib
import re
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from random import Random
from typing import NamedTuple

from interp.errors import MissingError
from interp.runtime import derive_seed
from interp.text.files import Document

MIN_CHARS = 150
DOCUMENT_CHARS = 4000
MIN_FILE_BYTES = 2000
# Generated docstrings (one sentence filled in thousands of times), and our own words.
LEFT_OUT = {"plotly", "dash", "dash-ag-grid", "dash-mantine-components", "dash-cytoscape", "interp-workbench"}

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_NOT_PROSE = re.compile(
    r">>>|\.\. |::|```|\|.*\||[+=~-]{4,}|^\s*(Args|Parameters|Returns|Raises|Examples?|Attributes|Yields|Notes?):?\s*$"
    r"|^\s*[`*]*[\w.*, ]{1,40}[`*]* ?(\([^)]*\))? ?:(?=\s)|^\s*:\w+|\\[a-z]+\{|https?://|[{}<>=\[\]]{2,}",
    re.MULTILINE,
)
_NOT_WORDS = re.compile(r"[^A-Za-z ,.'()-]")


class Module(NamedTuple):
    """One source file of an installed package."""

    package: str
    path: Path
    name: str
    recorded_hash: str
    """from the package's own record of its files"""


def read(seed: int) -> Iterator[Document]:
    """Yield every document, in the order of the seed."""
    seen: set[int] = set()
    for module in modules(seed):
        for number, text in enumerate(_parts(_fresh(prose_of(module.path), seen))):
            yield Document(text, f"{module.name}#{number}" if number else module.name, module.package)


def modules(seed: int) -> list[Module]:
    """Return the source files to read, in the order of the seed."""
    found = sorted(_installed(), key=lambda module: (module.package, module.name, str(module.path)))
    if not found:
        raise MissingError("no installed package has readable docstrings; use a .txt, .jsonl or .parquet file")
    Random(derive_seed(seed, "docstrings")).shuffle(found)
    return found


def fingerprint(seed: int) -> str:
    """Return the sha256 over order and content of the source files, as stated by the packages' own records."""
    digest = hashlib.sha256(f"{MIN_CHARS} {DOCUMENT_CHARS} {_NOT_PROSE.pattern}\n".encode())
    for module in modules(seed):
        digest.update(f"{module.package} {module.name} {module.recorded_hash}\n".encode())
    return digest.hexdigest()


def prose_of(path: Path) -> Iterator[str]:
    """Yield the prose paragraphs of a source file's docstrings, each on one line."""
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            tree = ast.parse(source)
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
        return  # a template, a Python 2 file or another encoding: no prose for us
    for node in (tree, *_documented(tree.body)):
        for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
            if is_prose(paragraph):
                yield " ".join(paragraph.split())


def _documented(body: list[ast.stmt]) -> Iterator[Documented]:
    """Yield classes, methods and functions in source order; nested functions are skipped, which halves the time."""
    for node in body:
        if isinstance(node, Documented):
            yield node
        if isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _documented(getattr(node, part, []))


def is_prose(paragraph: str) -> bool:
    """Return whether a paragraph consists of sentences rather than code, a list or a table."""
    if len(paragraph) < MIN_CHARS or _NOT_PROSE.search(paragraph):
        return False
    if len(_SENTENCE_END.findall(paragraph)) < 2:
        return False
    return len(_NOT_WORDS.findall(" ".join(paragraph.split()))) < 0.06 * len(paragraph)


def _installed() -> Iterator[Module]:
    for distribution in metadata.distributions():
        package = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if package in LEFT_OUT:
            continue
        root = Path(str(distribution.locate_file("")))
        # read as text: metadata's own file objects take ten times as long
        for path, recorded_hash, size in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
            parts = path.removesuffix(".py").split("/")
            if path.endswith(".py") and recorded_hash and int(size or 0) >= MIN_FILE_BYTES and not _is_test(parts):
                yield Module(package, root / path, ".".join(parts).removesuffix(".__init__"), recorded_hash)


def _is_test(parts: list[str]) -> bool:
    return any(part in ("tests", "test", "testing", "_vendor", "..") or part.startswith("test_") for part in parts)


def _fresh(paragraphs: Iterator[str], seen: set[int]) -> Iterator[str]:
    """Yield paragraphs not seen before, by a hash that is the same in every process."""
    for paragraph in paragraphs:
        key = int.from_bytes(hashlib.blake2b(paragraph.encode(), digest_size=8).digest(), "little")
        if key not in seen:
            seen.add(key)
            yield paragraph


def _parts(paragraphs: Iterator[str]) -> Iterator[str]:
    parts: list[str] = []
    for paragraph in paragraphs:
        parts.append(paragraph)
        if sum(map(len, parts)) >= DOCUMENT_CHARS:
            yield "\n\n".join(parts)
            parts = []
    if parts:
        yield "\n\n".join(parts)
