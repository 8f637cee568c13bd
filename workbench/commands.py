"""The verbs that the dashboard runs: a form for each, checks of what is entered, and the arguments of the process.

A form is made from the verb's own dataclass, so nothing is stated twice. More people may reach a page than a terminal,
so a page accepts less. Artefacts must be those of the workspace, and models must load by name or be those that it was
made with. Files must lie inside the workspace. Options that write elsewhere or reach the network (`--workspace`, a
corpus of the hub) are not offered. `explain` sends text to the endpoint of the environment alone, which no page can
name. Torch-free.
"""

import inspect
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from dashboard.queue import VerbForm
from interp.artifacts import KINDS
from interp.directions.examples import read_examples
from interp.errors import ConfigError, UnknownNameError, as_typed, program
from interp.options import Option
from interp.recording.recorded import Recorded
from interp.workspace import Workspace
from saes.features.schema import NEURONS
from workbench.atlas_sources import ATLAS_SOURCES
from workbench.options import made, options_of, typed, value_of, words_of
from workbench.terminal import Verb
from workbench.verbs import ANALYSES

KNOWN_MODELS = (
    *("smollm2-135m", "gemma3-270m", "planted:induction", "planted:copying", "planted:post-norm", "small:attn-only-1l"),
    *("small:attn-only-2l", "small:mlp-1l", "small:mlp-2l", "toy:induction-2l", "toy:induction-1l"),
    *("toy:fixed-period-1l", "HuggingFaceTB/SmolLM2-135M-Instruct", "gpt2", "EleutherAI/pythia-70m"),
    "roneneldan/TinyStories-33M",
)
"""Names of `interp.models.loading.known_models`, here because a page loads without torch."""
TASKS = ("induction", "ioi", "greater-than")
WITHHELD = frozenset({"workspace", "share"})
"""Options that write elsewhere, reach the network, or mean something under torchrun only."""
LONGEST, MOST = 4_000, 200
"""Characters of a text, and values of one option."""
LONGEST_PAIRS = 100_000
"""Bytes of the pairs of a direction: systems give one argument of a process 128 KiB."""
_HELP = {
    "model": "A model that loads by name, or that the workspace was made with.",
    "corpus": "docstrings (prose of the installed packages), or a .txt, .jsonl or .parquet file inside the workspace.",
    "task": "induction, ioi, greater-than, or a .jsonl or .csv file inside the workspace with the columns clean, "
    "corrupt, correct and wrong.",
    "pairs": 'A .jsonl file inside the workspace, or the pairs themselves, eight or more: [{"prompt": "The food was", '
    '"towards": " great.", "away": " awful."}, ...].',
    "source": "KIND:NAME. Of a model: embeddings, unembeddings, heads-ov, heads-qk. Of an artefact: recording, sae, "
    "encoder, heads. Of a .npy or .parquet inside the workspace: file.",
}
"""Help by menu, for options of which a page accepts less than a terminal."""
_ARTEFACTS = {"recording": "recording", "sae": "sae", "atlas": "atlas", "features": "features"}
_HOOK_POINT = re.compile(r"^[A-Za-z][A-Za-z0-9_.]{0,99}$")
_DEVICE = re.compile(r"^(cpu|mps|cuda(:\d{1,2})?)$")
_TEXTS, _PROMPTS, _VECTORS = (".txt", ".jsonl", ".parquet"), (".jsonl", ".csv"), (".npy", ".parquet")
_PAIRS = (".jsonl",)


class Commands:
    """The verbs on offer for one workspace (a `Catalogue` of `dashboard.queue`)."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.verbs = {" ".join(verb.typed_words()): verb for verb in ANALYSES}
        self._forms: dict[str, VerbForm] = {}

    @property
    def forms(self) -> dict[str, VerbForm]:
        """Return the form of every verb on offer, by the words that are typed."""
        if not self._forms:
            self._forms = {name: form_of(name, verb) for name, verb in self.verbs.items()}
        return self._forms

    def suggestions(self, menu: str) -> list[str]:
        """Return the values that the workspace offers for a menu."""
        makers: dict[str, Callable[[], Iterable[str]]] = {
            "model": self._models,
            "dictionary": lambda: [*self._names("sae"), *(f"{NEURONS}{point}" for point in self._hook_points())],
            "source": self._sources,
            "hook point": self._hook_points,
            "corpus": lambda: ["docstrings", *self._files(_TEXTS)],
            "task": lambda: [*TASKS, *self._files(_PROMPTS)],
            "pairs": lambda: self._files(_PAIRS),
            "cells": lambda: ["auto", "unembedding", "none", *self._names("sae")],
            "device": lambda: ["cpu", "cuda", "mps"],
            **{menu: lambda kind=kind: self._names(kind) for menu, kind in _ARTEFACTS.items()},
        }
        return list(dict.fromkeys(makers[menu]())) if menu in makers else []

    def arguments(self, verb: str, options: Mapping[str, object]) -> list[str]:
        """Return the arguments of the process, values with their options in one word each, workspace included.

        Raises `UnknownNameError` for an unknown verb, option or name, `ConfigError` for a value that the option does
        not take.
        """
        return self._words(verb, options, str(self.workspace.root.resolve()))

    def command(self, verb: str, options: Mapping[str, object]) -> str:
        """Return the command as a reader types it. Raises as `arguments` does."""
        return typed(self._words(verb, options, str(self.workspace.root)))

    def _words(self, verb: str, options: Mapping[str, object], workspace: str) -> list[str]:
        checked = self.checked(verb, options)  # refuses an unknown verb
        return [*words_of(self.verbs[verb], checked), "--workspace", workspace]

    def checked(self, verb: str, options: Mapping[str, object]) -> dict[str, object]:
        """Return the options with the types of the verb's fields. Raises as `arguments` does."""
        form = self._form(verb)
        known = {option.name: option for option in form.fields}
        if not isinstance(options, dict):
            raise ConfigError(f"options are names with values, got {type(options).__name__}")
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of {verb}", str(name), known)
        entries = {name: value for name, value in options.items() if value not in (None, "", [], ())}
        values = {name: self._value(known[name], value) for name, value in entries.items()}
        for option in options_of(self.verbs[verb]):
            if option.required and option.name not in values:
                first = re.split(r"[.:](?:\s|$)", option.help)[0]
                raise ConfigError(f"Choose {first[:1] if first[1:2].isupper() else first[:1].lower()}{first[1:]}.")
        made(self.verbs[verb], values)  # the settings check themselves
        return values

    def _form(self, verb: str) -> VerbForm:
        if verb not in self.forms:
            hint = f"Others are for the terminal: `{program()} --help` lists them."
            raise UnknownNameError("verb that runs from the page", verb, self.forms, hint)
        return self.forms[verb]

    def _value(self, option: Option, value: object) -> object:
        if not option.many:
            return self._one(option, value)
        several = list(value) if isinstance(value, list | tuple) else _split(option, value)
        if len(several) > MOST:
            raise ConfigError(f"{option.label} takes at most {MOST} values, got {len(several)}")
        return tuple(self._one(option, entry) for entry in several)

    def _one(self, option: Option, value: object) -> object:
        if option.kind not in ("text", "choice"):
            return value_of(option, value)
        if option.menu == "pairs" and isinstance(value, str) and value.startswith("[") and value.isprintable():
            if (n_bytes := len(value.encode())) > LONGEST_PAIRS:
                raise ConfigError(
                    f"the pairs take {n_bytes:,} bytes, a command at most {LONGEST_PAIRS:,}; put them "
                    "into a .jsonl file inside the workspace and name that"
                )
            read_examples(value)  # refuses what makes no direction before anything runs
            return value
        if not isinstance(value, str) or len(value) > LONGEST or not value.isprintable():
            raise ConfigError(
                f"{option.label} takes one line of text, at most {LONGEST:,} characters, got {value!r:.80}"
            )
        if option.kind == "choice":
            return value_of(option, value)
        if value.startswith("-") and (option.many or not option.flags):
            raise ConfigError(f"a value of {option.label} may not begin with '-', which marks an option; got {value!r}")
        return self._named(option.menu, value)

    def _named(self, menu: str, value: str) -> str:
        """Return a text that names something, checked. Free texts are returned as they are."""
        kind, _, rest = value.partition(":")
        if menu in _ARTEFACTS:
            self.workspace.manifest(_ARTEFACTS[menu], value)
        elif menu == "model" and value not in self._models():
            raise UnknownNameError("model", value, self._models(), "Another one is for the terminal.")
        elif menu == "dictionary":
            self._named("hook point", rest) if kind == "neurons" else self._named("sae", value)
        elif menu == "source":
            return self._source(value)
        elif menu == "corpus":
            return value if value == "docstrings" else self._file(value, _TEXTS)
        elif menu == "task":
            return value if value in TASKS else self._file(value, _PROMPTS)
        elif menu == "pairs":
            return value if value.startswith("[") else self._file(value, _PAIRS)
        elif menu == "cells" and value not in ("auto", "unembedding", "none"):
            self._named("sae", value)
        elif menu == "name":
            self.workspace.path("sae", value)
        elif menu == "feature":
            sae, mark, _ = value.rpartition(":")
            if not mark:
                raise ConfigError(f"a feature is SAE:NUMBER, got {value!r}; type a word of its label and choose one")
            self._named("sae", sae)
        elif (menu == "hook point" and not _HOOK_POINT.match(value)) or (menu == "device" and not _DEVICE.match(value)):
            raise ConfigError(f"{value!r} is not a {menu}; examples: blocks.3.hook_resid_post; cpu, cuda, cuda:1, mps")
        return value

    def _source(self, value: str) -> str:
        kind, _, name = value.partition(":")
        if kind not in ATLAS_SOURCES:
            raise UnknownNameError("atlas source", value, [f"{prefix}:NAME" for prefix in ATLAS_SOURCES])
        named = ATLAS_SOURCES[kind]
        if named == "file":
            return f"file:{self._file(name, _VECTORS)}"
        if named == "heads":
            self.workspace.manifest("heads", name)
        else:
            self._named(named, name)
        return value

    def _file(self, name: str, suffixes: tuple[str, ...]) -> str:
        """Return the path of a file inside the workspace. Raises `ConfigError` for any other file."""
        root = self.workspace.root.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or path.suffix not in suffixes or not path.is_file():
            raise ConfigError(
                f"{name!r} is neither a name on offer nor a {', '.join(suffixes)} file inside the workspace; "
                "put the file there, or run the command in a terminal"
            )
        return str(path)

    def _names(self, kind: str) -> list[str]:
        return [manifest.name for manifest in self.workspace.newest(kind)]

    def _models(self) -> list[str]:
        """Return the models of the workspace, those of its newest artefacts first, then all that load by name."""
        models = [manifest.model for manifest in self.workspace.newest(*KINDS)]
        return list(dict.fromkeys([*filter(None, models), *KNOWN_MODELS]))

    def _hook_points(self) -> list[str]:
        made = self.workspace.values(Recorded)
        return list(dict.fromkeys(hook_point for recording in made for hook_point in recording.settings.hook_points))

    def _sources(self) -> list[str]:
        kinds = (*("sae", "recording", "heads"), *("embeddings", "unembeddings", "encoder", "heads-ov", "heads-qk"))
        return [
            f"{kind}:{name}"
            for kind in kinds
            for name in (self._models() if ATLAS_SOURCES[kind] == "model" else self._names(ATLAS_SOURCES[kind]))
        ]

    def _files(self, suffixes: tuple[str, ...]) -> list[str]:
        """Return the files at the top of the workspace, and in `texts/`, with one of these endings."""
        root = self.workspace.root
        paths = [path for folder in (root, root / "texts") for path in folder.glob("*") if path.suffix in suffixes]
        return sorted(path.relative_to(root).as_posix() for path in paths if path.is_file())


def form_of(name: str, verb: type[Verb]) -> VerbForm:
    """Return the form of a verb: its own options first; those that change rarely are marked as advanced."""
    offered = [option for option in options_of(verb) if option.name not in WITHHELD and option.kind != "path"]
    stated = [
        replace(option, help=_HELP[option.menu])
        if option.menu in _HELP and (option.required or option.menu in ("corpus", "task", "pairs"))
        else option
        for option in offered
    ]
    description = as_typed(inspect.getdoc(verb) or "")
    return VerbForm(verb=name, about=description, fields=tuple(sorted(stated, key=lambda option: option.advanced)))


def _split(option: Option, value: object) -> list[object]:
    """Return the values of a text that holds several. They are separated as in a shell: quotes hold spaces."""
    if not isinstance(value, str):
        return [value]
    try:
        return [*shlex.split(value.replace(",", " ") if option.kind in ("whole", "number") else value)]
    except ValueError as error:
        raise ConfigError(f"{option.label}: {error}; close the quotes") from None
