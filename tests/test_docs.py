"""The documentation is true: links resolve, code blocks import what they use, commands are in the command line."""

import importlib
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from docs.generate import PUBLIC

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
WRITTEN = [
    path
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    if not {"_build", "generated"} & set(path.relative_to(ROOT).parts)
]
HISTORY = {ROOT / "docs" / "log.md", *(ROOT / "docs" / "decisions").glob("*.md")}
"""Pages of their date: commands in them may have other names by now."""
RUNS = "<!-- runs in the tests -->"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """Code blocks of these languages, each with the line before it."""
    found = re.findall(r"(^[^\n]*\n)?^```([\w{} -]*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [(before.strip(), code) for before, language, code in found if language in languages]


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    """Relative links and pictures that lead nowhere; pages generated at build time are Sphinx's to check."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target) or target.startswith("generated/"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    return broken


@pytest.mark.source
@pytest.mark.parametrize("path", WRITTEN, ids=name)
def test_links_resolve(path: Path):
    assert broken_links(path) == []


@pytest.mark.source
def test_a_broken_link_is_seen(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n[here](#title) [no](#other) ![picture](missing.png) [out](https://example.org)\n")
    assert broken_links(page) == ["#other", "missing.png"]


def test_the_gallery_lists_every_page_that_it_has():
    from notebooks.gallery import GALLERY, index

    assert (GALLERY / "README.md").read_text(encoding="utf-8") == index()


@pytest.mark.source
@pytest.mark.parametrize("path", WRITTEN, ids=name)
def test_pictures_have_alternative_texts(path: Path):
    assert "![](" not in path.read_text(encoding="utf-8")


def python_blocks() -> list[tuple[str, str, str]]:
    return [
        (f"{name(path)}-{number}", before, code)
        for path in WRITTEN
        for number, (before, code) in enumerate(blocks(path.read_text(encoding="utf-8"), "python"), 1)
    ]


@pytest.mark.parametrize(("before", "code"), [pytest.param(b, c, id=i) for i, b, c in python_blocks()])
def test_python_blocks_compile_and_their_imports_exist(before: str, code: str):
    import ast

    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.ImportFrom):
            continue
        module = importlib.import_module(node.module or "")
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
            if (node.module or "").split(".")[0] in ("interp", "saes", "dashboard"):
                assert node.module in PUBLIC, f"{node.module} is not public"
                assert alias.name in module.__all__


@pytest.mark.parametrize("code", [pytest.param(c, id=i) for i, b, c in python_blocks() if b == RUNS])
def test_marked_blocks_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(textwrap.dedent(code), "block", "exec"), {"__name__": "__main__"})


def commands(path: Path) -> list[str]:
    """Every `workbench` command of a page: lines of its code blocks, and code spans that begin with it."""
    text = path.read_text(encoding="utf-8")
    lines = [line for _, code in blocks(text, "console", "", "bash", "sh") for line in code.splitlines()]
    lines += re.findall(r"`((?:\$ )?workbench [^`]+)`", prose(text))
    found = []
    for line in lines:
        command = line.removeprefix("$ ").partition("  #")[0].strip()
        if match := re.match(r"(?:torchrun .*-m )?workbench (--help|\w.*)", command):
            found.append(match[1])
    return found


COMMANDS = [(path, each) for path in WRITTEN if path not in HISTORY for each in commands(path)]


@pytest.mark.parametrize("command", sorted({each for _, each in COMMANDS}))
def test_commands_are_those_of_the_command_line(command: str):
    from workbench.__main__ import FAMILIES, VERBS, parse

    # a kind of the reader's own: tests/saes/test_own_kind.py runs these commands with its file
    words = ["relu" if word == "log_penalty" else word for word in shlex.split(command)]
    if words[0] in ("VERB", "--help"):
        return
    if "--help" in words or "..." in words or len(words) == 1 or any(re.fullmatch("[A-Z]{2,}", w) for w in words):
        known = words[0] in {*VERBS, *FAMILIES} or " ".join(words[:2]) in VERBS
        assert known, command
        return
    try:
        parse(words)
    except SystemExit:
        # a verb mentioned without its required arguments
        assert " ".join(words) in {*VERBS, *FAMILIES}, command


@pytest.mark.source
def test_most_pages_have_commands_that_are_checked():
    assert len({each for _, each in COMMANDS}) > 40
    assert len(commands(README)) >= 6


@pytest.mark.source
@pytest.mark.parametrize("path", [path for path in WRITTEN if path not in HISTORY], ids=name)
def test_make_targets_exist(path: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"(?:^|`|\$ )make ((?:[a-z-]+ ?)+)", text, flags=re.MULTILINE))
    assert {word for words in used for word in words.split() if word != "makes"} <= targets


# The README


@pytest.mark.source
def test_the_readme_has_short_paragraphs():
    text = README.read_text(encoding="utf-8")
    long = [each for each in re.split(r"\n\s*\n|^- |\n- ", prose(text)) if len(each.split()) > 80 and "|" not in each]
    assert not long, long


@pytest.mark.source
def test_the_readme_says_where_commands_begin_before_the_first_one():
    text = README.read_text(encoding="utf-8")
    assert text.index("source .venv/bin/activate") < text.index("$ workbench")


# What the site is generated from


def test_every_public_name_has_an_entry(tmp_path: Path):
    from docs.generate import api

    api(tmp_path)
    for package in PUBLIC:
        text = (tmp_path / f"{package}.md").read_text(encoding="utf-8")
        entries = set(re.findall(r"^:{6}\{py:\w+\} ([\w.]+)", text, flags=re.MULTILINE))
        missing = set(importlib.import_module(package).__all__) - {each.split(".")[-1] for each in entries}
        assert not missing, f"{package}: {missing}"
    assert "score_heads(model" in (tmp_path / "interp.md").read_text(encoding="utf-8")


def test_every_verb_has_a_page_with_its_options(tmp_path: Path):
    from docs.generate import MARK, verbs
    from workbench.__main__ import VERBS, parse

    assert verbs(tmp_path) == len(VERBS)
    for verb in VERBS:
        text = (tmp_path / "verbs" / f"{verb.replace(' ', '-')}.md").read_text(encoding="utf-8")
        assert text.startswith(MARK + f"# workbench {verb}\n"), verb
        assert verb == "models" or "| `" in text, f"{verb} has options"
        for example in re.findall(r"^\$ workbench (.*)$", text, flags=re.MULTILINE):
            for command in example.split("; workbench "):
                parse(shlex.split(command))
    assert "`--d-sae" in (tmp_path / "verbs" / "train.md").read_text(encoding="utf-8")


def test_every_kind_has_its_fields_on_the_page_of_kinds(tmp_path: Path):
    from docs.generate import kinds
    from interp.artifacts import KINDS

    assert kinds(tmp_path) == len(KINDS)
    text = (tmp_path / "kinds.md").read_text(encoding="utf-8")
    assert "## heads/NAME" in text
    assert "| `scores` | `scores.parquet` | `layer int64, head int64, kind string," in text


@pytest.mark.source
def test_kinds_of_artefact_are_described_from_their_classes_and_what_the_formats_add_is_theirs(tmp_path):
    from docs.generate import kinds
    from interp.artifacts import FOLDERS

    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    described = {folder for heading in re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
                 for folder in re.findall(r"([\w-]+)/<name>", heading)}  # fmt: skip
    assert described <= set(FOLDERS.values())
    (tmp_path / "reference").mkdir()
    assert kinds(tmp_path) == len(FOLDERS)


def test_docstrings_become_markdown():
    from docs.generate import as_markdown

    text = as_markdown("Return `<name>` of a <thing>.\n\n>>> f(1)\n2\n\nRaises\n------\n# not a heading")
    assert text == "Return `<name>` of a &lt;thing>.\n\n\n```pycon\n>>> f(1)\n2\n```\n\nRaises\n\\# not a heading"


def test_a_notebook_that_changed_since_it_ran_is_not_shown_as_executed(tmp_path: Path):
    import nbformat

    from docs.generate import executed_copy

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert executed_copy(tmp_path / "a.ipynb", notebook) is not None
    notebook.cells[0].source = "1 + 2"
    assert executed_copy(tmp_path / "a.ipynb", notebook) is None
    assert executed_copy(tmp_path / "b.ipynb", notebook) is None


def test_pages_that_load_from_elsewhere_are_found(tmp_path: Path):
    from docs.build import check_offline

    (tmp_path / "good.html").write_text('<a href="https://example.org">read</a><script src="_static/a.js"></script>')
    assert check_offline(tmp_path) == []
    page = textwrap.dedent("""\
        <script src="https://cdn.example.org/a.js"></script><link rel="stylesheet" href="//fonts.example.org/f.css">
        <style>@import "https://example.org/b.css";</style><div style="background: url(https://example.org/c.png)"></div>
        <iframe srcdoc="<img src='http://example.org/d.png'>"></iframe>""")
    (tmp_path / "bad.html").write_text(page)
    (tmp_path / "bad.css").write_text("@font-face { src: url(https://example.org/e.woff2) }")
    assert len(check_offline(tmp_path)) == 6
