"""Pages of the site that are written from the code: tutorials from notebooks, the API, and the help of every verb.

1. Tutorials: the executed copies in `notebooks/built/`, when their code is still that of the notebook. Otherwise the
   page of an earlier run from `docs/gallery/`, with its outputs.
2. API: one page per subject, with every public name (`docs/api.py`).
3. Verbs: one page per verb of the command line, from the parser that the command line itself uses.
4. Acts: one page with the question and the answer of each, from its class.
5. Kinds: one page with the fields of every kind of artefact, from its class.
6. The bibliography: every paper that is cited, and where (`docs/bibliography.py`).
7. The glossary: every term, from `dashboard/components/glossary.toml`.
8. The card of what ships: bytes of the shipped files, and text and limits of the dictionary, from its `card.json`.

Pages are written only where their text changed, so that a second build is quick.
"""

import inspect
import json
import re
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

from docs import bibliography
from docs.api import api, by_file
from docs.markdown import MARK, as_markdown, cell, remove_others, write
from interp.acts import Streamed
from interp.artifacts import FOLDERS
from notebooks.build import BUILT, executed, notebooks
from notebooks.gallery import GALLERY, SOURCE, title_and_question

DOCS = Path(__file__).parent
GLOSSARY_ABOUT = (
    "One word per idea: pages of the dashboard link to these entries, and a test looks for the words after *Not* "
    "elsewhere. What a score means, with its 0 and its 1, says [What each score means](../explanation/scores.md)."
)
SHIPPED_ABOUT = (
    "The package carries these artefacts of SmolLM2-135M, and `workbench demo` copies them into a workspace. "
    "[Findings of the demo](../explanation/findings.md) has their numbers."
)
PLOTLY = "application/vnd.plotly.v1+json"


def generate(folder: Path) -> dict[str, int]:
    """Write every generated page below `folder` (the site's sources); returns how many of each sort.

    `"executed"` counts the tutorials that show the outputs of a run.
    """
    static_plotly(folder / "static")
    counts = tutorials(folder / "tutorials")
    write(folder / "bibliography.md", MARK + bibliography.page(by_file()))
    write(folder / "glossary.md", MARK + glossary_page())
    write(folder / "shipped.md", MARK + shipped_page())
    counts |= {
        "subjects": api(folder / "api"),
        "verbs": verbs(folder / "reference"),
        "acts": acts(folder / "reference"),
        "kinds": kinds(folder / "reference"),
    }
    remove_others(folder)
    return counts


def static_plotly(folder: Path) -> None:
    """Copy plotly's script out of its package, for `static/figures.js`."""
    import plotly

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / script.name).exists():
        shutil.copyfile(script, folder / script.name)


# Tutorials


def tutorials(folder: Path, built: Path = BUILT) -> dict[str, int]:
    """Write every notebook as a tutorial, and their index."""
    import jupytext
    import nbformat

    count, lines = 0, ["# Tutorials", "", "Each asks a question and asserts the answer. Begin with the first.", ""]
    sources = notebooks()
    for source in sources:
        page = folder / source.with_suffix(".ipynb").name
        plain = jupytext.read(source)
        ran = executed(source, built)
        if ran:
            write(page, nbformat.writes(with_drawn_figures(ran)))
        else:
            page = write(page.with_suffix(".md"), MARK + earlier_run(source.stem, plain))
        count += ran is not None
        title, question = title_and_question(plain)
        lines += [f"**[{title}]({page.name})**", "", question, ""]
    toctree = ["```{toctree}", ":hidden:", "", *(source.stem for source in sources), "```", ""]
    write(folder / "index.md", MARK + "\n".join(lines + toctree))
    return {"tutorials": len(sources), "executed": count}


def earlier_run(name: str, plain: Any) -> str:
    """The page of the gallery, for a checkout without executed notebooks; it says so where the code has changed."""
    text = (GALLERY / f"{name}.md").read_text(encoding="utf-8")
    ran = re.findall(r"^```python\n(.*?)\n```$", text, flags=re.MULTILINE | re.DOTALL)
    same = ran == [cell.source for cell in plain.cells if cell.cell_type == "code"]
    title, _, rest = text.partition("\n")
    note = "" if same else "\n```{note}\nThe code has changed since this run.\n```\n"
    shown = re.sub(rf"({name}-\d+\.png)", r"../../gallery/\1", rest.rpartition(SOURCE)[0])
    return f"{title}\n{note}{shown}The notebook: `notebooks/{name}.py`.\n"


def with_drawn_figures(notebook: Any) -> Any:
    """The notebook with plotly's figures as HTML that `static/figures.js` draws, and tracebacks of no machine."""
    for each in notebook.cells:
        for output in each.get("outputs", []):
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
                output["text"] = output["text"].replace(f"{DOCS.parent}/", "")
    return notebook


# The glossary


def glossary_page() -> str:
    """Every term with its meaning and the words that it replaces; a heading each, so that a term has an address."""
    from dashboard.components.glossary import glossary

    lines = ["# Glossary", "", GLOSSARY_ABOUT]
    for section, terms in groupby(glossary().values(), key=lambda term: term.section):
        lines += ["", f"## {section}"]
        for term in terms:
            replaced = f" *Not: {', '.join(term.instead_of)}*" if term.instead_of else ""
            lines += ["", f"### {term.name}", f"{term.meaning}{replaced}"]
    return "\n".join(lines) + "\n"


# The card of what ships


def shipped_page() -> str:
    """Bytes of every artefact that ships and their sum, and the text and the limits of the dictionary."""
    from workbench.demo import CARD, DATA, shipped_artifacts

    card = json.loads((DATA / CARD).read_text(encoding="utf-8"))
    sizes = {path.relative_to(DATA): path.stat().st_size for path in DATA.rglob("*") if path.is_file()}
    rows: list[tuple[str, int]] = []
    for kind, name in shipped_artifacts():
        inside = [path for path in sizes if path.parts[:2] == (FOLDERS[kind], name)]
        rows.append((f"`{FOLDERS[kind]}/{name}`", sum(sizes.pop(path) for path in inside)))
    rows.sort(key=lambda row: -row[1])
    rows.append((", ".join(f"`{path}`" for path in sorted(sizes)), sum(sizes.values())))
    rows.append(("together", sum(size for _, size in rows)))
    text = card["text"]
    lines = ["# What ships", "", SHIPPED_ABOUT, "", "| artefact | bytes |", "|---|--:|"]
    lines += [f"| {name} | {size:,} |" for name, size in rows]
    lines += ["", "## Text of the dictionary", "", f"{text['tokens']:,} tokens of {text['documents']:,} documents.", ""]
    lines += ["| kind | characters | licence |", "|---|--:|---|"]
    lines += [f"| {kind} | {n:,} | {cell(text['licences'][kind])} |" for kind, n in text["characters"].items()]
    lines += ["", "## Limits", "", *(f"- {each}" for each in card["limits"])]
    return "\n".join(lines) + "\n"


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
    toctree = ["```{toctree}", ":hidden:", "", *(f"verbs/{page.stem}" for page in pages), "```", ""]
    write(folder / "verbs.md", MARK + "\n".join(lines + toctree))
    return len(pages)


def verb_page(name: str, verb: type) -> str:
    """A verb's description, and its arguments and options as a table."""
    from workbench.options import about, options_of

    rows = [f"| `{each.typed}` | {cell(each.help)} |" for each in options_of(verb)]
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


# Acts


def acts(folder: Path) -> int:
    """Write the page of the acts: what each asks, its fields with their limits, and the form of its answer."""
    from saes.acts import catalogue

    about = (
        "Questions to a model and about features; each answer has its controls. `workbench ask ACT` asks one on the "
        "command line, `POST /api/act/ACT` with the fields as JSON on a server, an agent by its name, and a script "
        "`CLASS(...).measure(Run(workspace))` ([scripts and agents](../../howto/scripts-and-agents.md))."
    )
    lines = ["# Acts", "", about, ""]
    known = catalogue()
    for name, act in known.items():
        base = next(each for each in act.__orig_bases__ if len(get_args(each)) == 2)  # type: ignore[attr-defined]
        answer = re.sub(r"\b(?:\w+\.)+(?=\w)", "", inspect.formatannotation(get_args(base)[1])).strip("'\"")
        answer = re.sub(r"ForwardRef\('(\w+)'\)", r"\1", answer)
        where = "" if act.offered else " Asked by pages only."
        lines += [f"## {name}", "", as_markdown(act.about()), "", f"`{act.__module__}.{act.__name__}`, answers "]
        lines[-1] += f"`{answer}`{', in steps' if issubclass(act, Streamed) else ''}.{where}"
        lines += ["", "| field | values | |", "|---|---|---|"]
        schema = act.schema()
        for field, about_field in schema["properties"].items():
            needed = "" if field in schema.get("required", []) else f" Default: `{about_field.get('default')!r}`."
            values = _values(about_field, schema.get("$defs", {}))
            lines.append(f"| `{field}` | {values} | {cell(about_field.get('description', ''))}{needed} |")
        lines.append("")
    write(folder / "acts.md", MARK + "\n".join(lines))
    return len(known)


def _values(field: dict[str, Any], forms: dict[str, Any]) -> str:
    """Return what a field takes in words, from its JSON schema."""
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_values(each, forms) for each in field["anyOf"]))
    if "$ref" in field:
        return f"object ({field['$ref'].rpartition('/')[2]})"
    low, high = field.get("minimum"), field.get("maximum")
    bounds = f" from {low:,} to {high:,}" if low is not None and high is not None else ""
    return field.get("type", "any") + bounds


# Kinds of artefact


def kinds(folder: Path) -> int:
    """Write the page of the kinds of artefact: what each holds, in which file and form, from its class."""
    from interp.artifacts import KINDS
    from interp.artifacts.describe import described
    from interp.options import field_texts

    about = "The fields of each kind, from its class; [What is on disk](../../formats.md) says what lies beside them."
    lines = ["# Kinds of artefact", "", about, ""]
    for kind, each in KINDS.items():
        form = each.load()
        texts = field_texts(form)
        lines += [f"## {each.folder}/NAME", "", as_markdown(inspect.getdoc(form) or ""), ""]
        lines += [f"Made by `workbench {form.made_by}`; `{each.defined_in.replace(':', '.')}`.", ""]
        lines += ["| field | file | form | |", "|---|---|---|---|"]
        for part in described(kind):
            shape = re.sub(r"\b(?:\w+\.)+(?=\w)", "", part.form).replace("|", "or")
            lines.append(f"| `{part.name}` | `{part.file}` | `{shape}` | {cell(texts.get(part.name, ''))} |")
        lines.append("")
    write(folder / "kinds.md", MARK + "\n".join(lines))
    return len(KINDS)
