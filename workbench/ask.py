"""`workbench ask ACT`: one question to a model or about a feature; the answer, with its controls, is JSON.

The acts are those of `saes.acts`, their fields the options. A field that is no text or number is typed as JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, get_args, get_type_hints

from dashboard.answers import plain
from interp.acts import Act, Compared, PriceOf, decode, is_streamed
from interp.artifacts import as_json
from interp.errors import ConfigError, UnknownNameError, program
from saes.acts import catalogue
from saes.acts.run import Run
from workbench.terminal import ASK, ASK_ABOUT, InWorkspace, Threaded, Verb, say


@dataclass(frozen=True, kw_only=True)
class Asks(Threaded, InWorkspace):
    """Options of every act on the command line."""

    act: ClassVar[type[Act[Any, Any]]]

    def run(self) -> None:
        """Print the answer as JSON; of an act in steps, a line for each."""
        self.use_threads()
        act, run = self.asked(), Run(self.open_workspace())
        if is_streamed(act):
            for step in act.measure(run):
                say(json.dumps(plain(step), ensure_ascii=False))
        else:
            say(json.dumps(plain(act.measure(run)), ensure_ascii=False, indent=1))

    def asked(self) -> Act[Any, Any]:
        """Return the act that the options say."""
        hints = get_type_hints(self.act)
        values = {field.name: _typed(field.name, getattr(self, field.name), hints) for field in fields(self.act)}
        return decode(self.act, {name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class AsksBesideNulls(Asks):
    """Options of every act with nulls."""

    estimate: bool = False
    """Say how many passes of the model the answer takes, and answer nothing."""

    def run(self) -> None:
        """Print the answer, or what it takes."""
        if not self.estimate:
            return super().run()
        run = Run(self.open_workspace())
        return say(json.dumps(plain(PriceOf(act=self.asked()).measure(run)), indent=1))


def _typed(name: str, value: object, hints: Mapping[str, object]) -> object:
    """Return a value in the form of JSON; the text of an object or a list is read, but where a field is a text."""
    is_text = str in {hints[name], *get_args(hints[name])}
    if not isinstance(value, str) or is_text or not value.lstrip().startswith(("{", "[")):
        return as_json(value)
    try:
        return json.loads(value)
    except ValueError as error:
        raise ConfigError(f"--{name.replace('_', '-')} is no JSON: {error}") from None


@cache
def acts() -> dict[str, type[Verb]]:
    """Return the verb of every act that the command line offers, by the word that is typed."""
    return {act.verb.replace("_", "-"): _verb_of(act) for act in catalogue().values() if act.offered}


def _verb_of(act: type[Act[Any, Any]]) -> type[Verb]:
    """Return a verb with the fields of an act as its options."""
    words = (ASK, act.verb.replace("_", "-"))
    base: type[Asks] = AsksBesideNulls if issubclass(act, Compared) else Asks
    members = {"act": act, "words": words, "__doc__": act.__doc__, "__module__": __name__}
    made: type[Any] = type(act.__name__, (base, act), members)
    return dataclass(frozen=True, kw_only=True)(made)


def act_called(words: list[str]) -> tuple[type[Verb], list[str]]:
    """Return the verb of an act and the remaining words; print the acts, and exit, where that is asked for."""
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        raise SystemExit(0 if words else 2)
    word = words[0].replace("_", "-")
    if word not in acts():
        raise UnknownNameError("act", words[0], acts(), f"`{program()} ask --help` lists them")
    return acts()[word], words[1:]


def overview() -> str:
    """Return what `workbench ask --help` prints: every act, a line each."""
    lines = [f"usage: {program()} {ASK} ACT ...", "", f"{ASK_ABOUT}. The answer is JSON.", ""]
    wide = max(map(len, acts()))
    return "\n".join(
        lines + [f"  {word:<{wide}}  {(verb.__doc__ or '').splitlines()[0]}" for word, verb in acts().items()]
    )
