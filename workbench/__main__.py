"""The command line: `workbench VERB ...`. Torch-free until a verb runs.

`VERBS` lists every verb by group; verbs that share their first word are a family (`circuit find`, `circuit show`). The
options of a verb are the fields of its dataclass (tyro).

Exit codes: 0 done, 1 damage found by `verify`, 2 an error whose message names the next move, 130 Ctrl-C.
"""

import atexit
import gc
import os
import sys
from dataclasses import replace
from types import NoneType
from typing import get_args, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from interp.errors import ConfigError, UnknownNameError, program
from interp.progress import follow_starter
from interp.runtime import code_version
from workbench.demo import Demo
from workbench.help import help_of, is_switch
from workbench.help import options_of as described_options
from workbench.own import Own
from workbench.serve import Mcp, Serve, Verify
from workbench.skills import Skill
from workbench.terminal import Verb, exit_code
from workbench.verbs import GROUPS as VERB_GROUPS

GROUPS: dict[str, tuple[type[Verb], ...]] = {"start": (Demo, Own, Serve, Mcp, Skill, Verify), **VERB_GROUPS}
"""Every verb, under the heading that `workbench --help` gives it."""

FAMILIES = {
    "circuit": "Find circuits of heads or of features, and test them",
    "geometry": "Measure the geometry of representations",
    "compare": "Compare dictionaries or models",
    "dynamics": "Train small models and follow what they learn",
}
"""First words that several verbs share."""

VERBS = {" ".join(verb.typed_words()): verb for group in GROUPS.values() for verb in group}
INTRODUCTION = """Look inside transformers: record activations, learn their sparse features, score heads, find
circuits, map the geometry, and browse all of it. Start with `demo`; VERB --help explains a verb."""

SPINS = "1000"
"""Rounds for which an idle torch thread spins before it sleeps. By default threads spin for milliseconds: with other
programs on the same cores, an attribution of 60 tokens to features took 120 s instead of 24 s."""
COLLECT_AFTER = 5_000
"""New objects after which Python looks for unused cycles. Every 700, the default of Python 3.11, costs a second while
torch and transformers are loaded; so does a last search among their half a million objects as the process ends
(`gc.freeze`)."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    atexit.unregister(gc.freeze)  # once, however often this is called
    atexit.register(gc.freeze)
    if "OMP_WAIT_POLICY" not in os.environ:  # torch, which is loaded later, reads both
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    return exit_code(lambda: parse(sys.argv[1:] if arguments is None else arguments))


def parse(arguments: list[str]) -> Verb:
    """Return the verb of a command line, its options filled in.

    Raises `UnknownNameError` for an unknown verb or option, and `SystemExit` after help (0), without a verb
    (2), and for values that the options do not take (2).
    """
    name, rest = _split_verb(arguments)
    if {"-h", "--help"} & set(rest[: rest.index("--") if "--" in rest else None]):
        print(help_of(VERBS[name]))
        raise SystemExit(0)
    _check_options(name, rest)
    rest = _with_values(VERBS[name], rest)
    marks = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(VERBS[name], args=rest, prog=f"{program()} {name}", config=marks, registry=_registry())


def _registry() -> ConstructorRegistry:
    """Return the rules by which values are read: numbers with a plain message, `X | None` as X or the word None."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if info.type not in (int, float):
            return None

        def read(words: list[str]) -> int | float:
            try:
                return info.type(words[0])
            except ValueError:
                raise ValueError(f"expected a {'whole ' if info.type is int else ''}number, got {words[0]!r}") from None

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="N" if info.type is int else "NUMBER",
            instance_from_str=read,
            is_instance=lambda value: isinstance(value, int | float),
            str_from_instance=lambda value: [str(value)],
        )

    @registry.primitive_rule
    def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        inner = [each for each in get_args(info.type) if each is not NoneType]
        if NoneType not in get_args(info.type) or len(inner) != 1:
            return None
        spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(inner[0], info.markers))
        if not isinstance(spec, PrimitiveConstructorSpec):
            return None
        return replace(
            spec,
            instance_from_str=lambda words: None if words == ["None"] else spec.instance_from_str(words),
            is_instance=lambda value: value is None or spec.is_instance(value),
            str_from_instance=lambda value: ["unset"] if value is None else spec.str_from_instance(value),
        )

    return registry


def _with_values(verb: type[Verb], arguments: list[str]) -> list[str]:
    """Return the arguments, with a value after every switch that has three states (`bool | None`)."""
    hints = get_type_hints(verb)
    switches = {"--" + name.replace("_", "-") for name in hints if hints[name] is not bool and is_switch(hints[name])}
    words: list[str] = []
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option = word.replace("_", "-")
        if option in switches and following not in ("True", "False"):
            words += [option, "True"]
        elif option.replace("--no-", "--", 1) in switches - {option}:
            words += [option.replace("--no-", "--", 1), "False"]
        else:
            words.append(word)
    return words


def overview() -> str:
    """Return what `workbench --help` prints: every verb in its group, a family on one line."""
    lines = [f"usage: {program()} VERB ...", "", INTRODUCTION]
    for title, verbs in GROUPS.items():
        lines += ["", title]
        for word in dict.fromkeys(verb.typed_words()[0] for verb in verbs):
            members = [verb.typed_words()[1] for verb in verbs if verb.typed_words()[0] == word and word in FAMILIES]
            about = f"{FAMILIES[word]}: {', '.join(members)}" if members else one_line(VERBS[word])
            lines.append(f"  {word:<10} {about}")
    return "\n".join(lines)


def family_help(word: str) -> str:
    """Return what `workbench FAMILY --help` prints: its verbs, one line each."""
    members = {name.split()[1]: verb for name, verb in VERBS.items() if name.split()[0] == word}
    lines = [f"usage: {program()} {word} {{{','.join(members)}}} ...", "", f"{FAMILIES[word]}.", ""]
    return "\n".join(lines + [f"  {name:<10} {one_line(verb)}" for name, verb in members.items()])


def one_line(verb: type[Verb]) -> str:
    """Return the first line of a verb's docstring, without its full stop."""
    return (verb.__doc__ or "").splitlines()[0].rstrip(".")


def _split_verb(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the verb's name and the remaining arguments; print help or the version, and exit, where asked."""
    first, *rest = arguments or [""]
    if first in ("", "-h", "--help"):
        print(overview())
        raise SystemExit(0 if first else 2)
    if first == "--version":
        print(code_version())
        raise SystemExit(0)
    if first.startswith("-"):
        raise ConfigError(f"options follow the verb: `workbench VERB ... {first}`; `workbench --help` lists the verbs")
    if first not in FAMILIES:
        if first not in VERBS:
            known = [*VERBS, *FAMILIES]
            raise UnknownNameError("verb", first, known, "`workbench --help` lists them all")
        return first, rest
    if not rest or rest[0] in ("-h", "--help"):
        print(family_help(first))
        raise SystemExit(0 if rest else 2)
    name = f"{first} {rest[0]}"
    if name not in VERBS:
        members = [verb.split()[1] for verb in VERBS if verb.split()[0] == first]
        raise UnknownNameError(f"verb of workbench {first}", rest[0], members)
    return name, rest[1:]


def _check_options(name: str, arguments: list[str]) -> None:
    """Raise for an option that the verb does not have, naming the nearest."""
    known, positional = {"--help", *options_of(VERBS[name])}, positional_of(VERBS[name])
    for argument in arguments:
        option = argument.split("=", 1)[0].replace("_", "-")
        if option == "--":
            return
        if not option.startswith("--") or option in known:
            continue
        if option in positional:
            value = positional[option]
            raise ConfigError(f"`workbench {name}` takes {value} without {option}: `workbench {name} {value}`")
        hint = f"`workbench {name} --help` lists them"
        raise UnknownNameError(f"option of workbench {name}", option, known, hint)


def options_of(verb: type) -> set[str]:
    """Return the options that a verb gives the command line, with their aliases and negations."""
    return {flag for option in described_options(verb) for flag in option.flags}


def positional_of(verb: type[Verb]) -> dict[str, str]:
    """Return the values that a verb takes without an option: `{"--hook-point": "HOOK-POINT"}`."""
    names = [option.name.replace("_", "-") for option in described_options(verb) if not option.flags]
    return {f"--{name}": name.upper() for name in names}


if __name__ == "__main__":
    follow_starter()
    sys.exit(main())
