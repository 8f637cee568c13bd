"""Pages of the site that are written from the code: tutorials from notebooks, the API, and the help of every verb.

1. Tutorials: the executed copies in `notebooks/built/`, when their source is still that of the notebook. Otherwise the
   notebook's code without outputs, and the pictures of an earlier run from `docs/gallery/`.
2. API: one page per package of `PUBLIC`, with every name in its `__all__`. Docstrings are read as Markdown.
3. Verbs: one page per verb of the command line, from the parser that the command line itself uses.
4. Kinds: one page with the fields of every kind of artefact, from its class.

Pages are written only where their text changed, so that a second build is quick.
"""

import dataclasses
import importlib
import inspect
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
NOTEBOOKS = DOCS.parent / "notebooks"
PUBLIC = ("interp", "interp.studies", "saes", "dashboard", "dashboard.figures")
"""Packages whose exported names users may rely on."""
PLOTLY = "application/vnd.plotly.v1+json"
MARK = "% Written by docs/generate.py from the code; edit the code instead.\n\n"


def write(path: Path, text: str) -> Path:
    """Write a page unless it already says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def generate(folder: Path) -> dict[str, int]:
    """Write every generated page below `folder` (the site's sources); returns how many of each sort.

    `"executed"` counts the tutorials that show the outputs of a run.
    """
    static_plotly(folder / "static")
    counts = tutorials(folder / "tutorials")
    return {**counts, "packages": api(folder / "reference"), "verbs": verbs(folder / "reference"),
            "kinds": kinds(folder / "reference")}  # fmt: skip


def static_plotly(folder: Path) -> None:
    """Copy plotly's script out of its package, for `static/figures.js`."""
    import plotly

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / script.name).exists():
        shutil.copyfile(script, folder / script.name)


# Tutorials


def tutorials(folder: Path, built: Path = NOTEBOOKS / "built") -> dict[str, int]:
    """Write every notebook as a tutorial, and their index."""
    import jupytext
    import nbformat

    from notebooks.build import notebooks
    from notebooks.gallery import title_and_question

    executed, lines = 0, ["# Tutorials", "", "Each asks a question and asserts the answer in its last cell.", ""]
    sources = notebooks()
    for source in sources:
        plain = jupytext.read(source)
        ran = executed_copy(built / f"{source.stem}.ipynb", plain)
        executed += ran is not None
        shown = with_drawn_figures(ran) if ran is not None else with_pictures(plain, source.stem)
        write(folder / f"{source.stem}.ipynb", nbformat.writes(shown))
        title, question = title_and_question(plain)
        lines += [f"**[{title}]({source.stem}.ipynb)**", "", question, ""]
    toctree = ["```{toctree}", ":hidden:", "", *(source.stem for source in sources), "```", ""]
    write(folder / "index.md", MARK + "\n".join(lines + toctree))
    return {"tutorials": len(sources), "executed": executed}


def executed_copy(path: Path, plain: Any) -> Any | None:
    """The executed notebook at `path`; None where there is none or the source has changed since."""
    import nbformat

    if not path.exists():
        return None
    ran = nbformat.read(path, as_version=4)
    same = [(c.cell_type, c.source) for c in ran.cells] == [(c.cell_type, c.source) for c in plain.cells]
    return ran if same else None


def with_drawn_figures(notebook: Any) -> Any:
    """The notebook with plotly's figures as HTML that `static/figures.js` draws, and tracebacks of no machine."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if PLOTLY in data:
                figure = data.pop(PLOTLY)
                height = figure.get("layout", {}).get("height") or 480
                text = json.dumps({"data": figure["data"], "layout": figure.get("layout", {})}).replace("</", "<\\/")
                data["text/html"] = (
                    f'<div class="plotly-figure" style="height:{int(height)}px">'
                    f'<script type="application/json">{text}</script></div>'
                )
            if "text" in output:
                output["text"] = output["text"].replace(f"{NOTEBOOKS.parent}/", "")
    return notebook


def with_pictures(notebook: Any, name: str) -> Any:
    """The notebook without outputs, and below it the pictures that the gallery has of an earlier run."""
    import nbformat

    pictures = sorted((DOCS / "gallery").glob(f"{name}-*.png"))
    parts = ["## Pictures of an earlier run"] if pictures else []
    for number, picture in enumerate(pictures, 1):
        parts.append(f"![Figure {number} of this notebook, from an earlier run](../../gallery/{picture.name})")
    if parts:
        notebook.cells.append(nbformat.v4.new_markdown_cell("\n\n".join(parts), id="pictures"))
    return notebook


# The API


def api(folder: Path) -> int:
    """Write one page per public package, with every name of its `__all__`."""
    for package in PUBLIC:
        module = importlib.import_module(package)
        parts = [f"# {package}", as_markdown(inspect.getdoc(module) or "")]
        parts += [f"```{{py:currentmodule}} {package}\n```"]
        parts += [entry(package, name, getattr(module, name)) for name in module.__all__]
        write(folder / f"{package}.md", MARK + "\n\n".join(parts) + "\n")
    return len(PUBLIC)


def entry(package: str, name: str, value: Any) -> str:
    """One exported name: a directive with its signature, its docstring, and of a class its fields and methods."""
    if inspect.isclass(value):
        return described("class", f"{name}{signature(value)}", "\n\n".join(class_parts(value)), 6)
    if callable(value):
        return described("function", f"{name}{signature(value)}", as_markdown(inspect.getdoc(value) or ""), 6)
    if inspect.ismodule(value):
        return described("module", f"{package}.{name}", "", 6) + "\n\n" + as_markdown(inspect.getdoc(value) or "")
    return described("data", name, as_markdown(attribute_docs(package).get(("", name), "")), 6)


def class_parts(cls: type) -> Iterator[str]:
    """A class's docstring, its documented fields, and its public methods and properties."""
    yield as_markdown(inspect.getdoc(cls) or "")
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            said = (attribute_docs(base.__module__).get((base.__name__, field.name)) for base in cls.__mro__)
            text = next(filter(None, said), "")
            yield described("attribute", field.name, as_markdown(text), 5, f":type: {type_text(field.type)}")
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        text = as_markdown(inspect.getdoc(getattr(cls, name)) or "")
        if isinstance(member, property):
            yield described("property", name, text, 5)
        elif inspect.isroutine(member) or isinstance(member, classmethod | staticmethod):
            yield described("method", f"{name}{signature(getattr(cls, name), method=True)}", text, 5)


def described(kind: str, head: str, body: str, colons: int, option: str = "") -> str:
    """A directive of the Python domain, as Markdown; one inside another has fewer colons."""
    fence = ":" * colons
    return "\n".join([f"{fence}{{py:{kind}}} {head}", *([option] if option else []), "", body, "", fence])


def signature(value: Any, method: bool = False) -> str:
    """The call signature with annotations, shortened to the last part of every type's name."""
    from sphinx.util.inspect import signature as inspect_signature
    from sphinx.util.inspect import stringify_signature

    try:
        found = inspect_signature(value, bound_method=False)
    except (TypeError, ValueError):
        return ""
    parameters = [p for p in found.parameters.values() if not (method and p.name == "self")]
    text = stringify_signature(found.replace(parameters=parameters), unqualified_typehints=True)
    return re.sub(r"~[\w.]*?(\w+)(?![\w.])", r"\1", " ".join(text.split()))


def type_text(annotation: Any) -> str:
    """An annotation in one line."""
    from sphinx.util.typing import stringify_annotation

    return annotation if isinstance(annotation, str) else stringify_annotation(annotation, "smart").replace("~", "")


def attribute_docs(module: str) -> dict[tuple[str, str], str]:
    """(class or "", attribute) -> the string below its definition."""
    from sphinx.errors import PycodeError
    from sphinx.pycode import ModuleAnalyzer

    try:
        found = ModuleAnalyzer.for_module(module).find_attr_docs()
    except PycodeError:
        return {}
    return {key: "\n".join(lines).strip() for key, lines in found.items()}


def as_markdown(docstring: str) -> str:
    """A docstring as Markdown: examples become code blocks, `<` outside of code is text, headings are bold."""
    out: list[str] = []
    lines = docstring.splitlines()
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
            out.append(_escaped(line))
    return "\n".join([*out, "```"] if example else out)


def _escaped(line: str) -> str:
    """A line whose `<`, `[..](..)` and leading `#` are text; code spans stay as they are."""
    parts = re.split(r"(`[^`]*`)", line)
    text = "".join(p if p.startswith("`") else p.replace("<", "&lt;").replace("](", "]\\(") for p in parts)
    return re.sub(r"^(\s*)#", r"\1\\#", text)


# The command line


def verbs(folder: Path) -> int:
    """Write a page per verb, and their index in the groups of `workbench --help`."""
    from workbench.__main__ import GROUPS

    lines = ["# The command line", "", "`workbench VERB --help` prints what is here.", ""]
    pages = []
    for title, group in GROUPS.items():
        lines += [f"**{title[:1].upper()}{title[1:]}**", "", "| verb | |", "|---|---|"]
        for verb in group:
            name = " ".join(verb.typed_words())
            pages.append(write(folder / "verbs" / f"{name.replace(' ', '-')}.md", MARK + verb_page(name, verb)))
            summary = cell((verb.__doc__ or "").split("\n\n")[0])
            lines.append(f"| [`workbench {name}`](verbs/{pages[-1].name}) | {summary} |")
        lines.append("")
    for old in set((folder / "verbs").glob("*.md")) - set(pages):
        old.unlink()
    toctree = ["```{toctree}", ":hidden:", "", *(f"verbs/{page.stem}" for page in pages), "```", ""]
    write(folder / "verbs.md", MARK + "\n".join(lines + toctree))
    return len(pages)


def verb_page(name: str, verb: type) -> str:
    """A verb's description, and its arguments and options as a table."""
    from workbench.help import about, options_of

    rows = [f"| `{each.typed}` | {cell(each.text)} |" for each in options_of(verb)]
    table = ["\n".join(["| option | meaning |", "|---|---|", *rows])] if rows else []
    return "\n\n".join([f"# workbench {name}", described_text(about(verb)), *table]) + "\n"


def described_text(description: str) -> str:
    """A verb's docstring; its examples become code blocks, one command a line."""
    parts = inspect.cleandoc(description).split("\n\n")
    shown = [_example(part) if re.match(r"Examples?: *workbench ", part) else as_markdown(part) for part in parts]
    return "\n\n".join(shown)


def _example(part: str) -> str:
    lines = [line.strip() for line in re.sub(r"^Examples?: *", "", part).splitlines()]
    commands: list[str] = []
    for line in lines:
        if line.startswith("workbench "):
            commands.append(f"$ {line}")
        else:
            commands[-1] += f" {line}"
    return "\n".join(["```console", *commands, "```"])


def cell(text: str) -> str:
    """Text that stays inside one cell of a table."""
    return _escaped(" ".join(text.split())).replace("|", "\\|")


# Kinds of artefact


def kinds(folder: Path) -> int:
    """Write the page of the kinds of artefact: what each holds, in which file and form, from its class."""
    from interp.artifacts import KINDS
    from interp.artifacts.describe import described
    from workbench.help import field_texts

    about = "The fields of each kind, from its class; [What is on disk](../../formats.md) says what lies beside them."
    lines = ["# Kinds of artefact", "", about, ""]
    for kind, each in KINDS.items():
        form = each.load()
        texts = field_texts(form)
        lines += [f"## {each.folder}/NAME", "", as_markdown(inspect.getdoc(form) or ""), ""]
        lines += [f"Made by `workbench {each.made_by}`; `{each.defined_in.replace(':', '.')}`.", ""]
        lines += ["| field | file | form | |", "|---|---|---|---|"]
        for part in described(kind):
            shape = re.sub(r"\b(?:\w+\.)+(?=\w)", "", part.form).replace("|", "or")
            lines.append(f"| `{part.name}` | `{part.file}` | `{shape}` | {cell(texts.get(part.name, ''))} |")
        lines.append("")
    write(folder / "kinds.md", MARK + "\n".join(lines))
    return len(KINDS)
