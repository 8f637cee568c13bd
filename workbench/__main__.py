"""The command line: `workbench VERB ...`. Torch-free until a verb runs.

`VERBS` lists every verb by group; verbs that share their first word are a family (`circuit find`, `circuit show`). The
options of a verb are the fields of its dataclass (`workbench.options`).

Exit codes: 0 done, 1 damage found by `verify`, 2 an error whose message names the next move, 130 Ctrl-C.
"""

import atexit
import gc
import os
import sys

from interp.errors import ConfigError, UnknownNameError, program
from interp.packages import code_version
from interp.progress import follow_starter
from workbench.demo import Demo
from workbench.options import read_command
from workbench.own import Own
from workbench.serve import Mcp, Serve, Verify
from workbench.skills import Skill
from workbench.terminal import ASK, ASK_ABOUT, Verb, exit_code
from workbench.verbs import GROUPS as VERB_GROUPS

GROUPS: dict[str, tuple[type[Verb], ...]] = {"start": (Demo, Own, Serve, Mcp, Skill, Verify), **VERB_GROUPS}
"""Every verb, under the heading that `workbench --help` gives it."""

FAMILIES = {
    "circuit": "Find and test circuits",
    "geometry": "Measure the geometry of representations",
    "compare": "Compare dictionaries or models",
    "dynamics": "Train small models and follow what they learn",
}
"""First words that several verbs share."""

VERBS = {" ".join(verb.typed_words()): verb for group in GROUPS.values() for verb in group}
INTRODUCTION = "Look inside transformers. Start with `demo`; VERB --help explains a verb."

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

    Raises `UnknownNameError` for an unknown verb or option, `ConfigError` for values that the options do not take, and
    `SystemExit` after help (0) and without a verb (2).
    """
    verb, rest = _split_verb(arguments)
    return read_command(verb, rest)


def overview() -> str:
    """Return what `workbench --help` prints: every verb in its group, a family on one line."""
    lines = [f"usage: {program()} VERB ...", "", INTRODUCTION]
    for title, verbs in GROUPS.items():
        lines += ["", title]
        for word in dict.fromkeys(verb.typed_words()[0] for verb in verbs):
            members = [verb.typed_words()[1] for verb in verbs if verb.typed_words()[0] == word and word in FAMILIES]
            summary = f"{FAMILIES[word]}: {', '.join(members)}" if members else one_line(VERBS[word])
            lines.append(f"  {word:<10} {summary}")
        lines += [f"  {ASK:<10} {ASK_ABOUT}"] * (title == "start")
    return "\n".join(lines)


def family_help(word: str) -> str:
    """Return what `workbench FAMILY --help` prints: its verbs, one line each."""
    members = {name.split()[1]: verb for name, verb in VERBS.items() if name.split()[0] == word}
    lines = [f"usage: {program()} {word} {{{','.join(members)}}} ...", "", f"{FAMILIES[word]}.", ""]
    return "\n".join(lines + [f"  {name:<10} {one_line(verb)}" for name, verb in members.items()])


def one_line(verb: type[Verb]) -> str:
    """Return the first line of a verb's docstring, without its full stop."""
    return (verb.__doc__ or "").splitlines()[0].rstrip(".")


def _split_verb(arguments: list[str]) -> tuple[type[Verb], list[str]]:
    """Return the verb and the remaining arguments; print help or the version, and exit, where asked."""
    first, *rest = arguments or [""]
    if first in ("", "-h", "--help"):
        print(overview())
        raise SystemExit(0 if first else 2)
    if first == "--version":
        print(code_version())
        raise SystemExit(0)
    if first.startswith("-"):
        raise ConfigError(f"options follow the verb: `workbench VERB ... {first}`; `workbench --help` lists the verbs")
    if first == ASK:
        from workbench.ask import act_called  # acts take half a second to load

        return act_called(rest)
    if first not in FAMILIES:
        if first not in VERBS:
            known = [*VERBS, *FAMILIES, ASK]
            raise UnknownNameError("verb", first, known, "`workbench --help` lists them all")
        return VERBS[first], rest
    if not rest or rest[0] in ("-h", "--help"):
        print(family_help(first))
        raise SystemExit(0 if rest else 2)
    name = f"{first} {rest[0]}"
    if name not in VERBS:
        members = [verb.split()[1] for verb in VERBS if verb.split()[0] == first]
        raise UnknownNameError(f"verb of workbench {first}", rest[0], members)
    return VERBS[name], rest[1:]


if __name__ == "__main__":
    follow_starter()
    sys.exit(main())
