"""An act: a question that can be asked of a model, as a value.

    @dataclass(frozen=True, kw_only=True)
    class Steer(Act[Run, list[SteeredRow]]):
        # the docstring is the help of its command, of its tool for agents, and of its reference page
        verb: ClassVar[str] = "steer"
        feature: Count  # the fields are the question: types, defaults, help and limits are written here alone

        def measure(self, run: Run) -> list[SteeredRow]: ...

`measure` answers with a value, or an iterator of steps in a `Streamed` act. A page, the command line, a script, an
agent or a notebook builds the act, from JSON by `decode`, and hands it a run: the models, dictionaries and
files that it may use. `Analysis` of the command line is an act whose answer is stored. Torch-free.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeGuard, TypeVar, get_type_hints

from interp.errors import UsageError
from interp.forms import check_fields, from_json, json_schema
from interp.nulls import Level
from interp.options import field_texts

R = TypeVar("R", contravariant=True)
A = TypeVar("A", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Act(ABC, Generic[R, A]):
    """A question to a model: its fields are the question, `measure` answers."""

    verb: ClassVar[str] = ""
    """Its name on the command line, in addresses and for agents: `workbench ask VERB`, `/api/act/VERB`."""
    later: ClassVar[bool] = False
    """True for an answer that fills a lower panel of a page: it comes after the page's other requests."""
    replaces_all: ClassVar[bool] = False
    """True where a newer one makes the page's earlier requests of every kind needless."""
    offered: ClassVar[bool] = True
    """True for the command line and agents; False for an act that only a page can use."""

    def __post_init__(self) -> None:
        """Raise `ConfigError` for a field that its annotation does not allow."""
        check_fields(self, self.verb or type(self).__name__)

    @abstractmethod
    def measure(self, run: R) -> A:
        """Answer with the models and artefacts that the run opens."""

    @classmethod
    def about(cls) -> str:
        """Return its help, in sentences; the first is its summary."""
        return inspect.getdoc(cls) or ""

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Return the JSON schema of the question, with the help and the limits of every field."""
        return question_schema(cls)


class Streamed(Act[R, Iterator[A]]):
    """An act that answers in steps; the last one ends the answer."""


def is_streamed(act: Act[R, object]) -> TypeGuard[Streamed[R, object]]:
    """Return True for an act that answers in steps."""
    return isinstance(act, Streamed)


@dataclass(frozen=True)
class Price:
    """Passes that an answer takes: its arms, each a candidate or one draw of a null, over the same tokens."""

    arms: dict[str, int]
    """number of arms by name: the candidate, then each kind of null"""
    tokens: int
    """tokens of one arm"""
    model: str
    passes: str
    """kind of pass, such as the name of the act: each kind has a pace of its own in each model"""
    seconds: float | None = None
    """at the pace of earlier answers with such passes of this model; None before the first"""

    @property
    def total(self) -> int:
        """Tokens of all arms."""
        return sum(self.arms.values()) * self.tokens

    def arm(self, tokens: int) -> str:
        """Return the arm that runs after a number of tokens, in words: `random directions: 3 of 19`."""
        done = tokens // max(1, self.tokens)
        for name, n in self.arms.items():
            if done < n:
                return f"{name}: {done + 1} of {n}"
            done -= n
        return ""


@dataclass(frozen=True, kw_only=True)
class Compared(Act[R, A]):
    """An act whose answer is compared with nulls: the candidate and every draw of a null are its arms."""

    nulls: Level = "quick"
    """Draws of each null: quick 5, standard 19, thorough 99; the smallest p-value is 1 / (1 + draws)."""

    @abstractmethod
    def arms(self, run: R) -> object:
        """Return the candidate and its nulls as values."""

    @abstractmethod
    def price(self, run: R) -> Price:
        """Return the passes that the answer takes, before anything of it is measured."""


class Prices(Protocol):
    """A run that knows the pace of earlier answers."""

    def priced(self, price: Price) -> Price: ...


@dataclass(frozen=True, kw_only=True)
class PriceOf(Act[Prices, Price]):
    """Return the price of another act: its candidate, its draws of each null, and the tokens of each.

    Raises `UsageError` for an act without arms, and the errors of that act.
    """

    act: Act[Any, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.act, Compared):
            raise UsageError(
                f"{self.act.verb} runs the model a few times and has no draws to count; ask without an estimate"
            )

    def measure(self, run: Prices) -> Price:
        assert isinstance(self.act, Compared)  # checked above
        return run.priced(self.act.price(run))


Q = TypeVar("Q", bound=Act[Any, Any])


def decode(act: type[Q], fields: Mapping[str, object]) -> Q:
    """Return an act from JSON. Raises `ConfigError`, which names the first wrong field and its allowed values."""
    return from_json(act, dict(fields), act.verb, "asked")


def typed(form: type, texts: Mapping[str, str]) -> dict[str, str | float]:
    """Return the texts of an address, `?feature=12`, as numbers and truth values where a form takes them."""
    hints = get_type_hints(form)
    return {name: _as_number(text, hints.get(name)) for name, text in texts.items()}


def question_schema(form: type) -> dict[str, Any]:
    """Return the JSON schema of an object with the fields of a form, with the text under each."""
    schema = json_schema(form)
    if "$ref" in schema:  # the object itself, as tools of agents take it
        others = dict(schema["$defs"])
        whole = others.pop(schema["$ref"].rpartition("/")[2])
        schema = whole | ({"$defs": others} if others else {})
    for name, text in field_texts(form).items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = text
    return schema


def _as_number(text: str, kind: object) -> str | float:
    """Return the text of a number or a truth value as such where that is what the field takes."""
    taken = {kind, *getattr(kind, "__args__", ())}
    if bool in taken and text.lower() in ("true", "1", "false", "0"):
        return text.lower() in ("true", "1")
    for number in (int, float):
        if number in taken:
            try:
                return number(text)
            except ValueError:
                continue
    return text
