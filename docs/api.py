"""The reference by subject: one page per subject, one heading per public name.

An entry has the signature and the docstring; an example, from the docstring or from a notebook or how-to page that uses
the name; the names that its docstring mentions, and those that mention it; the pages that use it; and the papers that
it cites. All of it comes from the code.
"""

import dataclasses
import importlib
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docs.bibliography import citations, linked
from docs.examples import Use, uses
from docs.markdown import MARK, as_markdown, write

PUBLIC = ("interp", "interp.studies", "saes", "dashboard", "dashboard.figures")
"""Packages whose exported names users may rely on."""
SUBJECTS = {
    "models": ("Models and generated text", "interp.models"),
    "doctor": ("A set-up examined", "interp.doctor"),
    "recordings": ("Text and recordings", "interp.text interp.recording"),
    "lenses": ("Lenses and direct attribution", "interp.lenses"),
    "interventions": ("Interventions", "interp.interventions"),
    "directions": ("Directions to steer with", "interp.directions"),
    "patching": ("Patching and ablation", "interp.patching"),
    "circuits": ("Heads and circuits", "interp.circuits"),
    "graphs": ("Attribution graphs", "interp.tracing"),
    "geometry": ("Geometry of words and layers", "interp.geometry"),
    "maps": ("Maps", "interp.atlas"),
    "comparison": ("Model comparison", "interp.changes"),
    "training": ("Dictionaries: training and files", "saes.training saes.kinds saes.weights"),
    "features": ("Features", "saes.features"),
    "evaluation": ("Evaluation of dictionaries", "saes.evaluation"),
    "attribution": ("Attribution to features", "saes.attribution"),
    "sets": ("Transcoders of every layer", "saes.sets"),
    "studies": ("Small models that each show one thing", "interp.studies"),
    "acts": ("Acts: questions to a model", "saes.acts"),
    "figures": ("Figures and notebooks", "dashboard"),
    "workspace": ("Workspace, results, statistics", "interp"),
}
"""Pages: their titles, and the packages whose public names stand on them; the first that fits has a name."""
MOST = 6
"""Links of one sort in an entry."""
ALIKE = {
    "model": "the model that is run or read",
    "config": "settings; by default those of their class",
    "hook_point": "name of the value that is read",
    "hook_points": "names of the values that are read",
    "folder": "of the artefact, such as `workspace.path(kind, name)`",
    "overwrite": "replace what is there",
    "seed": "of all random draws",
    "batch_size": "prompts or rows in memory at a time",
    "heldout_fraction": "share of the documents that is held out",
    "run": "a prompt that was run once, by `clean_run` or `question_run`",
    "draws": "draws of the null",
    "n_random": "draws of the null",
    "n_null": "draws of the null",
    "n_draws": "draws of the null",
    "n_shuffles": "draws of the null",
    "n_permutations": "draws of the null",
    "n_bootstrap": "resamples of the interval",
    "confidence": "level of the interval",
    "device": "where tensors are; by default a checked GPU or the CPU",
    "progress": "called as `progress(done, total, info)`",
    "done": "called with the number of tokens of each pass; it may raise, to stop",
    "colours": "of the figure, from `colours_of`",
    "height": "of the figure, in pixels",
}
"""Arguments that mean the same in every function; said in an entry whose docstring does not mention them."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One public name."""

    package: str
    name: str
    value: Any

    @property
    def module(self) -> str:
        """The module that defines it."""
        found = inspect.getmodule(self.value)
        return found.__name__ if found else self.package

    @property
    def subject(self) -> str:
        """Name of its page."""
        fits = (page for page, (_, packages) in SUBJECTS.items() for each in packages.split()
                if f"{self.module}.".startswith(f"{each}."))  # fmt: skip
        return next(fits)

    @property
    def doc(self) -> str:
        """Its docstring."""
        return inspect.getdoc(self.value) or ""

    @property
    def link(self) -> str:
        """A link to it."""
        return f"[`{self.name}`](#api-{self.name.lower()})"


@cache
def entries() -> tuple[Entry, ...]:
    """Every public name, each once; a name that two packages share is the first one's."""
    found: dict[str, Entry] = {}
    for package in PUBLIC:
        module = importlib.import_module(package)
        for name in module.__all__:
            found.setdefault(name, Entry(package, name, getattr(module, name)))
    return tuple(found.values())


def by_file() -> dict[str, list[tuple[str, str]]]:
    """Links to the entries of each file, with their docstrings."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for each in entries():
        found[each.module.replace(".", "/") + ".py"].append((each.link, each.doc))
    return dict(found)


@cache
def _mentions() -> dict[str, set[str]]:
    """Public names in the docstring and the signature of each public name."""
    names = {each.name for each in entries()}
    return {
        each.name: ({*re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", each.doc)))}
                    | {*re.findall(r"\w+", _signature(each.value))}) & names - {each.name}
        for each in entries()
    }  # fmt: skip


def see_also(entry: Entry) -> list[Entry]:
    """Names that its docstring or signature mentions, then those that mention it, then others near it."""
    mentioned = _mentions()[entry.name]
    back = [each for each in entries() if entry.name in _mentions()[each.name]]
    near = [each for each in entries() if each.module == entry.module]
    if len(near) == 1 and not mentioned and not back:
        near = [each for each in entries() if each.subject == entry.subject]
    wanted = [*(each for each in entries() if each.name in mentioned), *back, *near]
    return [each for each in dict.fromkeys(wanted) if each is not entry][:MOST]


def api(folder: Path) -> int:
    """Write the pages of all subjects, and their index; returns how many."""
    lines = ["# Functions and classes", "", "These names may be relied on; everything else may move.", ""]
    lines += ["| subject | names |", "|---|---|"]
    for subject, (title, packages) in SUBJECTS.items():
        found = [each for each in entries() if each.subject == subject]
        about = [as_markdown(_about(name)) for name in packages.split()]
        parts = [f"# {title}", *filter(None, about), *(entry_page(each) for each in found)]
        write(folder / f"{subject}.md", MARK + "\n\n".join(parts) + "\n")
        lines.append(f"| [{title}]({subject}.md) | {', '.join(each.link for each in found)} |")
    toctree = ["", "```{toctree}", ":hidden:", "", *SUBJECTS, "```", ""]
    write(folder / "index.md", MARK + "\n".join(lines + toctree))
    return len(SUBJECTS)


def _about(package: str) -> str:
    """The first paragraph of a package's docstring; the rest lists its modules."""
    return (inspect.getdoc(importlib.import_module(package)) or "").partition("\n\n")[0]


def entry_page(entry: Entry) -> str:
    """An entry: heading, import, signature and docstring, example, links."""
    used = uses().get(entry.name, [])
    about = [f"(api-{entry.name.lower()})=", f"## {entry.name}", f"`from {entry.package} import {entry.name}`"]
    usual = [f"`{name}`: {ALIKE[name]}" for name in unmentioned(entry) if name in ALIKE]
    links = {
        "Arguments that mean the same everywhere": usual,
        "See also": [each.link for each in see_also(entry)],
        "Used in": list(dict.fromkeys(each.link for each in used))[:MOST],
        "Papers": [linked(key) for key in dict.fromkeys(citations(f"{entry.doc} {_module_doc(entry)}"))],
    }
    shown = [f"**{title}:** {'; '.join(found)}" for title, found in links.items() if found]
    example = [] if has_example(entry.doc) else [_example(entry, used)]
    current = f"```{{py:currentmodule}} {entry.package}\n```"
    return "\n\n".join(
        filter(None, [*about, current, directive(entry.package, entry.name, entry.value), *example, *shown])
    )


def unmentioned(entry: Entry) -> list[str]:
    """Arguments of a function that its docstring does not mention."""
    if not inspect.isfunction(entry.value):
        return []
    return [name for name in inspect.signature(entry.value).parameters if not re.search(rf"\b{name}\b", entry.doc)]


def _module_doc(entry: Entry) -> str:
    return inspect.getdoc(inspect.getmodule(entry.value)) or ""


def with_links(text: str) -> str:
    """A page whose code spans of public names, such as `interp.trace`, are links to their entries."""
    known = {f"{each.package}.{each.name}": each.name.lower() for each in entries()}
    return re.sub(
        r"(?<![\[`])`([a-z.]+\.\w+)`(?![\]`])",
        lambda span: f"[{span[0]}](#api-{known[span[1]]})" if span[1] in known else span[0],
        text,
    )


def has_example(doc: str) -> bool:
    """Whether a docstring shows code itself."""
    return ">>>" in doc or "```" in doc or bool(re.search(r"\n\n {4}\S.*[(=]", doc))


def _example(entry: Entry, used: list[Use]) -> str:
    """The shortest use of a name, or the lines of its module's docstring that use it."""
    blocks = re.findall(r"\n\n((?: {4}.*\n?)+)", _module_doc(entry))
    for block in blocks:
        if re.search(rf"\b{entry.name}\(", block):
            return f"**Example**\n\n```python\n{textwrap.dedent(block).strip()}\n```"
    if not used:
        return ""
    best = min(used, key=lambda use: (use.code.count("\n") > 8, len(use.code)))
    return f"**Example**, from {best.link}\n\n```python\n{best.code}\n```"


def directive(package: str, name: str, value: Any) -> str:
    """The directive of a name: its signature, its docstring, and of a class its fields and methods."""
    if inspect.isclass(value):
        return described("class", f"{name}{_signature(value)}", "\n\n".join(class_parts(value)), 6)
    if callable(value):
        return described("function", f"{name}{_signature(value)}", as_markdown(inspect.getdoc(value) or ""), 6)
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
            yield described("method", f"{name}{_signature(getattr(cls, name), method=True)}", text, 5)


def described(kind: str, head: str, body: str, colons: int, option: str = "") -> str:
    """A directive of the Python domain, as Markdown; one inside another has fewer colons."""
    fence = ":" * colons
    return "\n".join([f"{fence}{{py:{kind}}} {head}", *([option] if option else []), "", body, "", fence])


def _signature(value: Any, method: bool = False) -> str:
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
