"""The documentation is true: links resolve, code blocks import what they use, commands are in the command line."""

import importlib
import re
import shlex
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from docs.api import PUBLIC
from interp.errors import ConfigError
from tests.oracles.peer_names import KNOWN, reached, rows

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
WRITTEN = [
    path
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("workbench/skills/*.md")])
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
    """Relative links and pictures that lead nowhere, or into a folder that git ignores."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or "generated" in there.parts or (anchor and anchor not in anchors(there)):
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


def test_the_gallery_has_a_page_of_each_notebook_and_of_no_other():
    from notebooks.build import notebooks
    from notebooks.gallery import GALLERY, index

    assert (GALLERY / "README.md").read_text(encoding="utf-8") == index()
    assert {page.stem for page in GALLERY.glob("[0-9]*.md")} == {source.stem for source in notebooks()}


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
def test_python_blocks_compile_and_their_imports_exist(before: str, code: str, monkeypatch: pytest.MonkeyPatch):
    import ast

    monkeypatch.syspath_prepend(ROOT / "notebooks")  # a notebook imports the module beside it
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
    # a span may be broken over two lines
    lines += [" ".join(span.split()) for span in re.findall(r"`((?:\$ )?workbench [^`]+)`", prose(text))]
    found = []
    for line in lines:
        command = line.removeprefix("$ ").partition("  #")[0].strip()
        if match := re.match(r"(?:torchrun .*-m )?workbench (--help|\w.*)", command):
            found.append(match[1])
    return found


COMMANDS = [(path, each) for path in WRITTEN if path not in HISTORY for each in commands(path)]


@pytest.mark.parametrize("command", sorted({each for _, each in COMMANDS}))
def test_commands_are_those_of_the_command_line(command: str):
    from workbench.__main__ import ASK, FAMILIES, VERBS, parse

    # a kind of the reader's own: tests/saes/test_own_kind.py runs these commands with its file
    words = ["relu" if word == "log_penalty" else word for word in shlex.split(command)]
    if words[0] in ("VERB", "--help"):
        return
    if "--help" in words or "..." in words or len(words) == 1 or any(re.fullmatch("[A-Z]{2,}", w) for w in words):
        known = words[0] in {*VERBS, *FAMILIES, ASK} or " ".join(words[:2]) in VERBS
        assert known, command
        return
    try:
        parse(words)
    except (SystemExit, ConfigError):
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


# Names of other libraries and ours


@pytest.mark.parametrize("ours", sorted({ours for _, _, ours in rows()}))
def test_our_names_beside_those_of_other_libraries_are_public(ours: str):
    package, _, name = ours.rpartition(".")
    assert package in PUBLIC
    assert name in importlib.import_module(package).__all__
    assert reached(ours) is not None


@pytest.mark.parametrize(("library", "peer"), sorted({(library, peer) for library, peer, _ in rows()}))
def test_names_of_other_libraries_are_theirs(library: str, peer: str):
    """`make oracles` looks them up in the libraries that cannot be installed here, and keeps those that it found."""
    if library == "transformer_lens":
        assert reached(f"{library}.{peer}") is not None
    else:
        assert f"{library}.{peer}" in KNOWN.read_text(encoding="utf-8").splitlines()


def test_a_wrong_name_of_another_library_is_seen():
    assert len(rows()) > 40
    with pytest.raises((AttributeError, ImportError)):
        reached("transformer_lens.TransformerBridge.run_with_cash")


# Words


def glossary() -> dict[str, dict[str, Any]]:
    """Entries of the glossary by name, read from its source."""
    source = ROOT / "dashboard" / "components" / "glossary.toml"
    sections = tomllib.loads(source.read_text(encoding="utf-8"))
    return {name: entry for entries in sections.values() for name, entry in entries.items()}


def not_words() -> list[str]:
    """Words that the glossary replaces by others."""
    return [word for entry in glossary().values() for word in entry.get("instead_of", ())]


def forbidden(text: str) -> list[str]:
    """Uses of such words in a text, outside of code."""
    plain = " ".join(re.sub(r"`[^`]*`", "", prose(text)).split())
    return [word for word in not_words() if re.search(rf"\b{re.escape(word)}\b", plain, flags=re.IGNORECASE)]


def notebook_prose(path: Path) -> str:
    """The Markdown cells of a notebook."""
    cells = re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return "\n".join(re.sub(r"^# ?", "", each, flags=re.MULTILINE) for each in cells if each.startswith(" [markdown]"))


NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
SAID = [path for path in WRITTEN if path not in HISTORY and path.parent.name != "gallery"]


@pytest.mark.source
@pytest.mark.parametrize("path", [*SAID, *NOTEBOOKS], ids=name)
def test_pages_and_notebooks_use_the_words_of_the_glossary(path: Path):
    text = notebook_prose(path) if path.suffix == ".py" else path.read_text(encoding="utf-8")
    assert forbidden(text) == []


@pytest.mark.source
def test_a_word_that_the_glossary_replaces_is_seen():
    assert len(not_words()) > 10
    assert forbidden("Its untrained twin, and `a push`.") == ["twin"]


@pytest.mark.source
def test_every_term_has_a_meaning_and_no_word_leads_to_two():
    entries = glossary()
    assert {"null", "baseline", "control", "latent", "feature", "label", "hook point"} <= set(entries)
    assert all(entry["meaning"][0].isupper() and entry["meaning"].endswith((".", "*")) for entry in entries.values())
    said = [word for entry in entries.values() for word in entry.get("said", ())]
    assert len(said) == len(set(said)) > 50
    assert all(" ".join(entry["meaning"].split()) == entry["meaning"] for entry in entries.values())


def test_the_page_of_the_glossary_has_a_heading_for_each_term():
    from docs.generate import glossary_page

    page = glossary_page()
    assert re.findall(r"^### (.*)$", page, flags=re.MULTILINE) == list(glossary())
    assert "shuffled labels, an untrained model. The text says which. *Not: what counts as no change*" in page


@pytest.mark.source
def test_every_score_has_a_meaning_at_0_and_at_1():
    text = (ROOT / "docs" / "explanation" / "scores.md").read_text(encoding="utf-8")
    empty = []
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        head, _, *rows = ([each.strip() for each in row.strip("|").split("|")] for row in table.splitlines())
        ends = [at for at, title in enumerate(head) if title in ("0", "1")]
        empty += [row[0] for row in rows if len(row) != len(head) or not all(row[at] for at in ends)]
    assert empty == []


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


def test_every_public_name_has_one_entry_with_its_subject_an_example_or_relatives(tmp_path: Path):
    from docs.api import SUBJECTS, api, entries, see_also

    assert api(tmp_path) == len(SUBJECTS)
    pages = {page.stem: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.md")}
    headings = [each for subject in SUBJECTS for each in re.findall(r"^## (\w+)$", pages[subject], flags=re.MULTILINE)]
    public = {each for package in PUBLIC for each in importlib.import_module(package).__all__}
    assert sorted(headings) == sorted(public)
    assert all(see_also(each) for each in entries())
    assert "activation_patching(model" in pages["patching"]
    assert "(#paper-meng-et-al-2022)" in pages["patching"]
    assert "**Example**, from [" in pages["graphs"]
    assert sum(text.count("**Example**") for text in pages.values()) > len(public) / 2
    assert "**Arguments that mean the same everywhere:** " in pages["circuits"]
    assert "`batch_size`: prompts or rows in memory at a time" in pages["circuits"]


def test_every_argument_of_a_public_function_is_named_in_its_docstring_or_means_the_same_everywhere():
    from docs.api import ALIKE, entries, unmentioned

    missing = {each.name: set(unmentioned(each)) - set(ALIKE) for each in entries()}
    assert {name: found for name, found in missing.items() if found} == {}


def test_examples_of_the_reference_are_code_that_stands_in_notebooks_and_pages():
    from docs.examples import uses

    found = uses()
    assert {"load_model", "activation_patching", "prove", "plot"} <= set(found)
    assert all(name in use.code for name, used in found.items() for use in used)


def test_citations_are_found_in_every_form():
    from docs.bibliography import citations

    text = "Heads (Olsson et al. 2022), Holm's (1979) method, Steele, Lea & Flood 2014, arXiv 2602.14687; Until 2026."
    assert list(citations(text)) == [
        "Olsson et al. 2022",
        "Holm 1979",
        "Steele et al. 2014",
        "Chanin and Garriga-Alonso 2026",
    ]


def test_every_citation_has_a_work_and_every_work_is_cited():
    from docs.bibliography import cited_by, page, works

    cited = cited_by()
    assert {key: files for key, files in cited.items() if key not in works()} == {}
    assert set(works()) == set(cited)
    text = page(
        {"interp/patching/activation.py": [("[`patch`](#patch)", "As in Meng et al. 2022."), ("[`x`](#x)", "")]}
    )
    assert text.count("\n(paper-") == len(works())
    assert text.count("Used in: ") == len(works())
    assert "https://arxiv.org/abs/2202.05262" in text
    assert "[`patch`](#patch)" in text
    assert "[`x`](#x)" not in text


def test_public_names_on_pages_link_to_their_entries():
    from docs.api import with_links

    text = "| `a.b` | `interp.trace` | `interp.tracing` |"
    assert with_links(text) == "| `a.b` | [`interp.trace`](#api-trace) | `interp.tracing` |"


def test_every_verb_has_a_page_with_its_options(tmp_path: Path):
    from docs.generate import verbs
    from docs.markdown import MARK
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


def test_the_card_lists_every_byte_that_ships_and_they_fit_into_100_megabytes():
    from docs.generate import shipped_page
    from workbench.demo import DATA, shipped_artifacts

    table = shipped_page().split("## Text")[0]
    *rows, (_, total) = [
        (name, int(size.replace(",", "")))
        for name, size in re.findall(r"^\| (.+?) \| ([\d,]+) \|$", table, re.MULTILINE)
    ]
    assert total == sum(size for _, size in rows) == sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file())
    assert total < 100e6
    assert len(rows) == len(shipped_artifacts()) + 1
    assert rows[-1][0] == "`card.json`"


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


def test_every_skill_stands_on_one_how_to_page_in_place_of_its_link():
    from docs.markdown import with_steps
    from workbench.skills import skills, text_of

    pages = [with_steps(path.read_text(encoding="utf-8")) for path in (ROOT / "docs" / "howto").glob("*.md")]
    assert {name: sum(text_of(text) in page for page in pages) for name, text in skills().items()} == dict.fromkeys(
        skills(), 1
    )
    assert not any("workbench/skills/" in page for page in pages)


@pytest.mark.source
def test_links_to_sources_lead_to_the_pages_that_are_written_from_them():
    from docs.markdown import GENERATED, with_generated

    text = "[all](../../saes/acts) [words](../../dashboard/components/glossary.toml) [other](../formats.md#notes)"
    page = with_generated(text, "howto/index")
    assert page == "[all](/generated/reference/acts.md) [words](/generated/glossary.md) [other](../formats.md#notes)"
    assert all((ROOT / source).exists() for source in GENERATED)


def test_docstrings_become_markdown():
    from docs.markdown import as_markdown

    text = as_markdown("Return `<name>` of a <thing>.\n\n>>> f(1)\n2\n\nRaises\n------\n# not a heading")
    assert text == "Return `<name>` of a &lt;thing>.\n\n\n```pycon\n>>> f(1)\n2\n```\n\nRaises\n\\# not a heading"
    parts = as_markdown(
        "Do.\n\nArgs:\n    x, y: sizes,\n        above 0.\nReturns: a sum.\nRaises:\n    ConfigError: no.\n\n>>> 1\n1"
    )
    assert parts.split("\n\n") == [
        *("Do.", "\n**Parameters**", "- `x`, `y`: sizes,\n  above 0.", "**Returns**", "a sum.", "**Raises**"),
        *("- `ConfigError`: no.", "\n```pycon\n>>> 1\n1\n```"),
    ]


def test_a_notebook_whose_code_changed_since_it_ran_is_not_shown_as_executed(tmp_path: Path):
    import nbformat

    from notebooks.build import executed

    ran = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("old"), nbformat.v4.new_code_cell("1 + 1")])
    ran.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(ran, tmp_path / "a.ipynb")
    source = tmp_path / "a.py"
    source.write_text("# %% [markdown]\n# new\n\n# %%\n1 + 1\n")
    shown = executed(source, tmp_path)
    assert [cell.source for cell in shown.cells] == ["new", "1 + 1"]
    assert shown.cells[1].outputs[0].text == "2"
    source.write_text("# %% [markdown]\n# new\n\n# %%\n1 + 2\n")
    assert executed(source, tmp_path) is None
    assert executed(tmp_path / "b.py", tmp_path) is None


def test_without_executed_notebooks_tutorials_show_the_outputs_of_an_earlier_run(tmp_path: Path):
    from docs.generate import tutorials

    counts = tutorials(tmp_path / "site", built=tmp_path / "nothing")
    assert counts["executed"] == 0
    pages = sorted((tmp_path / "site").glob("[0-9]*.md"))
    assert len(pages) == counts["tutorials"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "```python" in text, page.name
        assert "```text" in text, page.name
        assert "](../../gallery/" in text, page.name


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
