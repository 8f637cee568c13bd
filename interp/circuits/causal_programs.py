"""Causal models: small programs with named variables, whose prompts a model answers.

    program = PROGRAMS["agreement"]
    program.run({"subject": "keys", "other": "lamp"})                    # {"number": "plural", "answer": " are"}
    program.run({"subject": "key", "other": "lamp"}, number="plural")    # the variable set: {..., "answer": " are"}

A variable is a function of the input and of the variables before it; the last one is `answer`. An interchange sets one
variable of a base to its value in a source, and the program says what the model should answer then (Geiger et al.
2021). A program of one's own is a `CausalProgram` with other functions:

    CausalProgram(name="repeat", variables={"answer": lambda v: v["word"]}, prompt="{word} and {word} and",
                  draw=lambda pick: {"word": pick(words)})

Half of the pairs of `draw_pairs` change the answer when the variable is set. In the other half the variable has the
same value and something else of the source differs, so the answer must stay. Where the answer depends on more than the
variable, a swap of everything fails there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import Any

import torch

from interp.artifacts import json_lines
from interp.circuits.tasks import NAMES, OBJECTS, PLACES
from interp.errors import ConfigError, CorruptError, UnknownNameError
from interp.seeds import make_generator

Values = dict[str, str]
Pick = Callable[[Sequence[str]], str]
"""Draws one of several texts."""
ANSWER = "answer"
TRIES = 20_000


@dataclass(frozen=True, kw_only=True)
class CausalProgram:
    """A program over texts, with a prompt for its input."""

    name: str
    variables: Mapping[str, Callable[[Values], str]]
    """In the order in which they are computed; the last is `answer`."""
    prompt: str
    """With `{name}` for each input, such as `The {subject} near the {other}`."""
    draw: Callable[[Pick], Values]
    """Returns a random input."""

    def __post_init__(self) -> None:
        if not self.variables or list(self.variables)[-1] != ANSWER:
            raise ConfigError(f"the last variable of a causal program is {ANSWER!r}, got {[*self.variables]}")

    def run(self, inputs: Values, **fixed: str) -> Values:
        """Return the value of every variable, some of them set."""
        self.check(*fixed)
        values = dict(inputs)
        for name, compute in self.variables.items():
            values[name] = fixed[name] if name in fixed else compute(values)
        return {name: values[name] for name in self.variables}

    def interchanged(self, base: Values, source: Values, variable: str) -> str:
        """Return the answer to `base` when the variable has its value in `source`."""
        return self.run(base, **{variable: self.run(source)[variable]})[ANSWER]

    def check(self, *names: str) -> None:
        """Raise `UnknownNameError` for a name that is no variable."""
        for name in names:
            if name not in self.variables:
                raise UnknownNameError(f"variable of the program {self.name}", name, [*self.variables])


@dataclass(frozen=True, kw_only=True)
class SwapPair:
    """A base and a source prompt, and what a model should answer to the base with the source's value of a variable."""

    base: str
    source: str
    value: str
    """Value of the variable in the source."""
    base_value: str
    answer: str
    """Of the program, to the base as it is."""
    wanted: str
    """Of the program, to the base with the variable of the source."""

    @property
    def changes(self) -> bool:
        """True where the swap should change the answer."""
        return self.wanted != self.answer


def draw_pairs(
    program: CausalProgram, variable: str, n: int, *, seed: int = 0, length: Callable[[str], int] = len
) -> list[SwapPair]:
    """Draw `n` different pairs, half of which change the answer; fewer where the program has no more.

    `length` counts the tokens of a prompt: all prompts have the most frequent length. Raises `ConfigError` where
    setting the variable never changes the answer, or never leaves it.
    """
    program.check(variable)
    generator = make_generator(seed, "pairs of a causal program")

    def pick(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (1,), generator=generator))]

    usual = mode(length(program.prompt.format(**program.draw(pick))) for _ in range(64))
    pairs_of: dict[bool, dict[tuple[str, str], SwapPair]] = {True: {}, False: {}}
    for _ in range(TRIES):
        base, source = program.draw(pick), program.draw(pick)
        before, after = program.run(base), program.run(source)
        pair = SwapPair(
            base=program.prompt.format(**base),
            source=program.prompt.format(**source),
            value=after[variable],
            base_value=before[variable],
            answer=before[ANSWER],
            wanted=program.interchanged(base, source, variable),
        )
        stays = pair.value == pair.base_value and base != source
        if not length(pair.base) == length(pair.source) == usual:
            continue
        if (pair.changes or stays) and len(pairs_of[pair.changes]) < n // 2:
            pairs_of[pair.changes].setdefault((pair.base, pair.source), pair)
        if all(len(pairs) == n // 2 for pairs in pairs_of.values()):
            break
    for changes, pairs in pairs_of.items():
        if not pairs:
            kept = "leaves" if changes else "changes"
            raise ConfigError(
                f"setting {variable!r} always {kept} the answer of {program.name}; choose another variable"
            )
    pairs = [pair for both in zip(*(side.values() for side in pairs_of.values()), strict=False) for pair in both]
    order = torch.randperm(len(pairs), generator=generator)
    return [pairs[i] for i in order.tolist()]


def pairs_from_file(path: Path) -> list[SwapPair]:
    """Read pairs from JSON lines with `base, source, answer, wanted`, and `value, base_value` of the variable.

    Without values, the variable is the answer itself: that of the source is the wanted one. Raises `MissingError`, and
    `CorruptError` that names the line.
    """
    pairs = [_pair_of(row, where) for where, row in json_lines(path, "write a line of JSON for each pair")]
    if not pairs:
        raise CorruptError(f"{path} holds no pairs")
    return pairs


def _pair_of(row: Any, where: str) -> SwapPair:
    needed = ("base", "source", "answer", "wanted")
    lacking = [name for name in needed if not isinstance(row, dict) or not isinstance(row.get(name), str)]
    if lacking:
        raise CorruptError(f"{where}: lacks {', '.join(lacking)}; expected {', '.join(needed)}")
    return SwapPair(
        **{name: row[name] for name in needed},
        value=str(row.get("value", row["wanted"])),
        base_value=str(row.get("base_value", row["answer"])),
    )


_NOUNS = "key book car dog friend teacher player cat boy girl student tree house chair letter picture phone bird"
NOUNS = _NOUNS.split()
"""nouns whose plural ends in s, both usually one token"""


def _noun(pick: Pick) -> str:
    return pick(NOUNS) + pick(("", "s"))


def _two_names(pick: Pick) -> Values:
    first, second = pick(NAMES), pick(NAMES)
    while second == first:
        second = pick(NAMES)
    return {
        "first": first,
        "second": second,
        "subject": pick((first, second)),
        "place": pick(PLACES),
        "thing": pick(OBJECTS),
    }


PROGRAMS = {
    program.name: program
    for program in (
        CausalProgram(
            name="agreement",
            variables={
                "number": lambda v: "plural" if v["subject"].endswith("s") else "singular",
                ANSWER: lambda v: " are" if v["number"] == "plural" else " is",
            },
            prompt="The {subject} near the {other}",
            draw=lambda pick: {"subject": _noun(pick), "other": _noun(pick)},
        ),
        CausalProgram(
            name="indirect-object",
            variables={
                "order": lambda v: "second" if v["subject"] == v["first"] else "first",
                ANSWER: lambda v: f" {v[v['order']]}",
            },
            prompt="When {first} and {second} went to the {place}, {subject} gave a {thing} to",
            draw=_two_names,
        ),
    )
}
"""Subject-verb agreement past another noun, and which of two names is the indirect object (Wang et al. 2022)."""


def program_called(name: str) -> CausalProgram:
    """Return a program by name. Raises `UnknownNameError`."""
    if name not in PROGRAMS:
        raise UnknownNameError("causal program", name, PROGRAMS, "A file of pairs (.jsonl) has a variable of its own.")
    return PROGRAMS[name]
