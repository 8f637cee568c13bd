"""The bibliography: papers that docstrings, notebooks and pages cite, each with the entries and files that cite it.

Citations are found in the text, as "Olsson et al. 2022" or "arXiv 2602.14687"; `bibliography.toml` says what they are.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NotRequired, TypedDict

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PACKAGES = ("interp", "saes", "dashboard", "workbench", "tools")
NAME = r"(?:nostalgebraist|(?:van der )?[A-Z][\w'’-]+)"
CITATION = re.compile(
    rf"\b({NAME}(?:(?:, {NAME})*,? (?:and|&) {NAME}| et al\.)?),? \(?((?:19|20)\d\d)\b\)?|arXiv[ :](\d{{4}}\.\d{{4,5}})"
)
OTHERWISE = {"Until", "CIE"}
"""Words before a year that is no citation."""


class Work(TypedDict):
    """One work of `bibliography.toml`."""

    authors: str
    title: str
    arxiv: NotRequired[str]
    where: NotRequired[str]
    url: NotRequired[str]


@cache
def works() -> dict[str, list[Work]]:
    """Works by citation, such as "Olsson et al. 2022"."""
    return tomllib.loads((DOCS / "bibliography.toml").read_text(encoding="utf-8"))


@cache
def _forms() -> dict[str, str]:
    """Citation by every form that a text may give it: all names, the first of more than two, or an arXiv number."""
    forms = {}
    for key, found in works().items():
        year = key.rpartition(" ")[2]
        for work in found:
            names = work["authors"].removesuffix(" and others").split(", ")
            forms[f"{' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))} {year}"] = key
            forms[f"{names[0]} {year}"] = key
            if "arxiv" in work:
                forms[work["arxiv"]] = key
    return {**forms, **{key: key for key in works()}}


def citations(text: str) -> Iterator[str]:
    """Every citation in a text, by its key in `bibliography.toml`; as it stands where no work has it."""
    for match in CITATION.finditer(" ".join(text.split())):
        if match[3]:
            yield _forms().get(match[3], match[3])
            continue
        names = re.sub(r"['’]s$", "", match[1].replace(",", ", ").replace("&", "and")).replace(" ,", ",")
        names = " ".join(names.split())
        if names not in OTHERWISE:
            yield _forms().get(f"{names} {match[2]}", f"{names} {match[2]}")


def docstrings(path: Path) -> Iterator[str]:
    """Docstrings of a file: of modules, classes and functions, and the strings below attributes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for child in ast.iter_child_nodes(node):
            value = child.value if isinstance(child, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def cited_by() -> dict[str, list[str]]:
    """The files that cite each work: modules, notebooks, and written pages of the site, relative to the checkout."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for key in dict.fromkeys(key for text in docstrings(path) for key in citations(text)):
            found[key].append(path.relative_to(ROOT).as_posix())
    folders = ("explanation", "findings", "howto")
    pages = [file for each in folders for file in ROOT.glob(f"docs/{each}/*.md")] + [*ROOT.glob("notebooks/[0-9]*.py")]
    for path in sorted(pages):
        text = re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for key in dict.fromkeys(citations(text)):
            found[key].append(path.relative_to(ROOT).as_posix())
    return dict(found)


def target(key: str) -> str:
    """The target of a work on the page."""
    return "paper-" + re.sub(r"\W+", "-", key.lower())


def linked(key: str) -> str:
    """A citation as a link to its entry."""
    return f"[{key}](#{target(key)})"


def page(entries: Mapping[str, list[tuple[str, str]]]) -> str:
    """The page. `entries`: of each file, links to its public names in the reference, with their docstrings."""
    cited = cited_by()
    lines = ["# Bibliography", "", "Papers that the code and these pages follow, and where.", ""]
    for key, found in sorted(works().items(), key=lambda each: each[0].lower()):
        lines += [f"({target(key)})=", f"**{key}**", ""]
        for work in found:
            url = f"https://arxiv.org/abs/{work['arxiv']}" if "arxiv" in work else work.get("url", "")
            title = f"[{work['title']}]({url})" if url else work["title"]
            lines += [f"- {work['authors']}. {title}. {work.get('where', 'arXiv ' + work.get('arxiv', ''))}."]
        places = [place for file in cited.get(key, []) for place in _places(key, file, entries.get(file, []))]
        lines += ["", f"  Used in: {', '.join(dict.fromkeys(places))}.", ""]
    return "\n".join(lines)


def _places(key: str, file: str, entries: list[tuple[str, str]]) -> list[str]:
    """The public names of a file whose docstrings cite a work, or else the file."""
    return [link for link, doc in entries if key in citations(doc)] or [_file(file)]


def _file(name: str) -> str:
    """A file of the checkout: a link where it is a page of the site."""
    if name.startswith("docs/"):
        title = (ROOT / name).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        return f"[{title}](../{name.removeprefix('docs/')})"
    if name.startswith("notebooks/"):
        title = re.search(r"^# # (.*)$", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        return f"[{title[1] if title else name}](tutorials/{Path(name).stem})"
    return f"`{name}`"
