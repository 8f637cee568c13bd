"""Docstrings and other text of the code as Markdown of the site, and writing of pages."""

import posixpath
import re
from pathlib import Path

from workbench.skills import skills, text_of

MARK = "% Written by docs/generate.py from the code; edit the code instead.\n\n"

GENERATED = {
    "docs/gallery/README.md": "tutorials/index.md",
    "docs/bibliography.toml": "bibliography.md",
    "dashboard/components/glossary.toml": "glossary.md",
    "interp/__init__.py": "api/index.md",
    "interp/artifacts/artefact.py": "reference/kinds.md",
    "saes/acts": "reference/acts.md",
    "workbench/shipped/data/card.json": "shipped.md",
    "workbench/verbs": "reference/verbs.md",
}
"""Source in the repository -> page of the site that is written from it."""

SECTIONS = {"Args": "Parameters", "Returns": "Returns", "Raises": "Raises"}
"""Section of a docstring -> its title."""

_written: set[Path] = set()


def write(path: Path, text: str) -> Path:
    """Write a page unless it already says so."""
    _written.add(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def remove_others(folder: Path) -> None:
    """Remove pages below a folder that this process has not written: those of an earlier build."""
    for path in [*folder.rglob("*.md"), *folder.rglob("*.ipynb")]:
        if path not in _written:
            path.unlink()


def with_steps(page: str) -> str:
    """A page with the text of a skill file in place of the link to it, so that the steps are written once."""
    link = r"^\*\*Steps\*\*: .*\(\.\./\.\./workbench/skills/([\w-]+)\.md\)$"
    return re.sub(link, lambda found: text_of(skills()[found[1]]), page, flags=re.MULTILINE)


def with_themes(page: str) -> str:
    """A page whose pictures from `make pictures` are those of the theme that the reader chose."""
    picture = r"!\[([^\]]*)\]\(([^)\s]*images/[\w-]+)\.webp\)"
    return re.sub(picture, r"![\1](\2.webp){.only-light}\n![\1](\2-dark.webp){.only-dark}", page)


def with_generated(page: str, docname: str) -> str:
    """A page whose links to sources lead to the pages of the site that are written from them."""
    folder = posixpath.dirname(f"docs/{docname}")

    def replaced(found: re.Match[str]) -> str:
        made = GENERATED.get(posixpath.normpath(posixpath.join(folder, found[1])))
        return f"](/generated/{made})" if made else found[0]

    return re.sub(r"\]\(([^)\s#]+)\)", replaced, page)


def with_sections(docstring: str) -> list[str]:
    """Lines of a docstring whose sections `Args:`, `Returns:` and `Raises:` are titles with a list each."""
    out: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if title := re.fullmatch(r"(Args|Returns|Raises):(?: (.+))?", line):
            inside = True
            out += ["", f"**{SECTIONS[title[1]]}**", "", *filter(None, [title[2]])]
        elif inside and (item := re.fullmatch(r" {4}(\w+(?:, \w+)*): (.*)", line)):
            out.append(f"- {', '.join(f'`{name}`' for name in item[1].split(', '))}: {item[2]}")
        elif inside and line.startswith("    "):
            out.append(f"  {line.strip()}")
        else:
            inside = False
            out.append(line)
    return out


def as_markdown(docstring: str) -> str:
    """A docstring as Markdown: sections are lists, examples code blocks, `<` outside of code is text."""
    out: list[str] = []
    lines = with_sections(docstring)
    fenced = example = False
    for line in lines:
        if line.lstrip().startswith("```"):
            fenced = not fenced
        starts = not fenced and line.lstrip().startswith(">>>")
        if starts and not example:
            out += ["", "```pycon"]
            example = True
        if example and not line.strip():
            out += ["```"]
            example = False
        if fenced or example or line.startswith("    "):
            out.append(line)
        elif re.fullmatch(r"\s*(-{3,}|={3,})\s*", line):
            continue  # an underline would make the line before it a heading of the page
        else:
            out.append(escaped(line))
    return "\n".join([*out, "```"] if example else out)


def escaped(line: str) -> str:
    """A line whose `<`, `[..](..)` and leading `#` are text; code spans stay as they are."""
    parts = re.split(r"(`[^`]*`)", line)
    text = "".join(p if p.startswith("`") else p.replace("<", "&lt;").replace("](", "]\\(") for p in parts)
    return re.sub(r"^(\s*)#", r"\1\\#", text)


def cell(text: str) -> str:
    """Text that stays inside one cell of a table."""
    return escaped(" ".join(text.split())).replace("|", "\\|")
