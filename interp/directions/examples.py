"""Pairs of texts that differ in the subject of a direction: from a file, two sets of texts, or a trait.

A *reply* follows a prompt that both sides share; a *prompt* stands alone, and what the model says next is the question;
a *text* stands alone and is read as a whole. Even-numbered examples (the first, third ...) make a direction and choose
its layer and strength; odd-numbered ones judge it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from interp.errors import ConfigError, CorruptError, MissingError
from interp.models.hooked import HookedModel

ExampleKind = Literal["replies", "prompts", "texts"]
LEAST = 8
"""fewest pairs: half of them judge"""
STARTS = (
    "I think that my life", "When I woke up this morning", "The people I work with", "If you ask me about the weather",
    "My house is", "Last summer we", "The best thing about this town", "Every time I meet somebody new",
    "What I want to tell you is", "The food that we had yesterday", "My plans for tomorrow", "The news today",
    "When I look out of the window", "My brother and I", "As for the future", "This city", "The book I am reading",
    "On my way home", "To be honest, I", "The evening was", "Our neighbours", "The journey took", "Looking back, I",
    "The first thing I saw",
)  # fmt: skip
"""Openings that any character could go on from."""
REPLY_TOKENS = 16
"""Tokens that the model writes for a trait, for each opening."""


@dataclass(frozen=True, kw_only=True)
class ContrastPair:
    """Two texts that differ in the subject of the direction."""

    towards: str
    away: str
    prompt: str = ""
    """Prompt that both follow."""

    def __post_init__(self) -> None:
        if self.towards == self.away:
            raise ConfigError(f"both sides of an example are {self.towards[:60]!r}; they have to differ")
        if not (self.towards.strip() and self.away.strip()):
            raise ConfigError("a side of an example is empty; write a text on both sides")


@dataclass(frozen=True, kw_only=True)
class ContrastPairs:
    """The examples of one direction."""

    kind: ExampleKind
    pairs: tuple[ContrastPair, ...]
    source: str
    """Kind and origin of the pairs, in words."""
    chat: bool = False
    """Prompts stand in the model's chat template."""

    def __post_init__(self) -> None:
        if len(self.pairs) < LEAST:
            raise ConfigError(
                f"{self.source}: {len(self.pairs)} pairs; a direction needs {LEAST}, half of which judge it: give more"
            )


def read_examples(source: Path | str, *, chat: bool = False) -> ContrastPairs:
    r"""Read pairs from a `.jsonl` file: `{"prompt": ..., "towards": ..., "away": ...}` in each line; or a JSON list.

    Args:
        source: the file. Without `prompt`, both sides are prompts of their own.
        chat: put the prompts into the model's chat template.
    Returns: the pairs, half of which are held out when a direction is made.
    Raises:
        MissingError: no such file.
        ConfigError: a line that is not an example (with its number), too few pairs, equal sides, or prompts in some
            lines only.

    >>> lines = [f'{{"prompt": "It is {n}.", "towards": " good", "away": " bad"}}' for n in range(12)]
    >>> _ = (folder / "pairs.jsonl").write_text("\n".join(lines))
    >>> len(read_examples(folder / "pairs.jsonl").pairs)
    12
    """
    path, lines = _pair_lines(source)
    pairs = [_example(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    with_prompt = sum(bool(pair.prompt) for pair in pairs)
    if with_prompt not in (0, len(pairs)):
        raise ConfigError(f"{with_prompt} of {len(pairs)} lines of {path} have a prompt; give all of them one, or none")
    kind: ExampleKind = "replies" if with_prompt else "prompts"
    return ContrastPairs(kind=kind, pairs=tuple(pairs), source=f"{len(pairs)} pairs of {Path(path).name}", chat=chat)


def _pair_lines(source: Path | str) -> tuple[Path | str, list[str]]:
    """Return the location of the pairs, in words, and each as a line of JSON."""
    if isinstance(source, str) and source.lstrip().startswith("["):
        try:
            return "the list of pairs", [json.dumps(pair) for pair in json.loads(source)]
        except ValueError as error:
            raise ConfigError(f"the list of pairs is not JSON ({error}); check quotes and commas") from None
    path = Path(source).expanduser()
    if not path.is_file():
        raise MissingError(f"no file at {path}; it holds one JSON object a line with prompt, towards and away")
    return path, _lines(path)


LEAST_GROUPS = 4
"""Fewest groups that hold a text of a label: every part of the split needs both."""


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Texts with a yes-or-no label and the group of each: its document, template or entity."""

    texts: tuple[str, ...]
    yes: tuple[bool, ...]
    group: tuple[str, ...]
    source: str
    """Origin of the texts, in words."""


def read_labelled(path: Path) -> LabelledTexts:
    """Read texts from lines `{"text": ..., "label": true, "group": ...}` of a `.jsonl` file.

    Raises `MissingError`, `CorruptError`, and `ConfigError` with the line that is wrong, or for labels that no split
    by group can hold out.
    """
    path = path.expanduser()
    if not path.is_file():
        raise MissingError(
            f'no file at {path}; it holds a line {{"text": "...", "label": true, "group": "..."}} a text'
        )
    entries = [_labelled(line, f"{path}, line {number}") for number, line in enumerate(_lines(path), 1)]
    texts, yes, group = zip(*entries, strict=True) if entries else ((), (), ())
    _check_groups(path, yes, group)
    return LabelledTexts(texts=texts, yes=yes, group=group, source=f"{len(texts)} texts of {path.name}")


def _check_groups(path: Path, yes: Sequence[bool], group: Sequence[str]) -> None:
    """Raise `ConfigError` where too few groups hold a label: such a probe would be judged on what it has seen."""
    if len(set(group)) < 2 * LEAST_GROUPS:
        raise ConfigError(
            f"{path}: {len(set(group))} groups; {2 * LEAST_GROUPS} are needed, as whole groups test: write more"
        )
    for label in (True, False):
        holding = len({each for each, of in zip(group, yes, strict=True) if of is label})
        if holding < LEAST_GROUPS:
            raise ConfigError(
                f"{path}: {holding} groups hold a text labelled {str(label).lower()}, {LEAST_GROUPS} are needed, as "
                "whole groups train, choose and test; write more"
            )


def _labelled(line: str, where: str) -> tuple[str, bool, str]:
    """Return text, label and group of one line. Raises `ConfigError` that names it."""
    try:
        value = json.loads(line)
        text, label, group = value["text"], value["label"], value["group"]
    except (ValueError, KeyError, TypeError, AttributeError):
        text, label, group = "", None, ""
    if not isinstance(text, str) or not text.strip() or label not in (True, False) or not isinstance(group, str | int):
        raise ConfigError(f'{where} is no example; a line is {{"text": "...", "label": true or false, "group": "..."}}')
    return text, bool(label), str(group)


def examples_of_texts(towards: Path | str, away: Path | str) -> ContrastPairs:
    """Pair the texts of two sources: `.txt` files with one text a line, or folders of `.txt` files.

    The longer source is cut to the length of the shorter. Raises `MissingError` and `ConfigError`.
    """
    sides = [read_texts(Path(path)) for path in (towards, away)]
    pairs = [ContrastPair(towards=yes, away=no) for yes, no in zip(*sides, strict=False)]
    names = [Path(path).name for path in (towards, away)]
    return ContrastPairs(
        kind="texts", pairs=tuple(pairs), source=f"{len(pairs)} texts each of {names[0]} and {names[1]}"
    )


Writer = Callable[[str, Sequence[str]], Sequence[str]]
"""Writes what follows some openings, as somebody with a trait."""


def examples_of_trait(
    model: HookedModel, trait: str, instead: str, starts: Sequence[str] = STARTS, *, writer: Writer | None = None
) -> ContrastPairs:
    """Let a writer go on from openings as two characters; by default the model: its most likely replies, after a
    sentence about the author.

    Openings at which both write the same are left out. Raises `ConfigError` where too few remain.
    """
    written = [(writer or partial(_written, model))(trait_text, starts) for trait_text in (trait, instead)]
    pairs = [
        ContrastPair(prompt=start, towards=yes, away=no)
        for start, yes, no in zip(starts, *written, strict=True)
        if yes != no and yes.strip() and no.strip()
    ]
    author = "the model" if writer is None else "another model"
    source = f"what {author} writes as somebody who is {trait}, and who is {instead}"
    return ContrastPairs(kind="replies", pairs=tuple(pairs), source=source)


def _written(model: HookedModel, trait: str, starts: Sequence[str]) -> list[str]:
    import torch

    from interp.models.adapter import to_tokens, token_strings
    from interp.models.generation import NextToken, check_room, generate

    texts = []
    for start in starts:
        tokens = to_tokens(model, f"The following was written by a person who is very {trait}.\n\n{start}")
        check_room(model, tokens, REPLY_TOKENS)
        reply = torch.stack(list(generate(NextToken(model), tokens, REPLY_TOKENS)), 1)[0]
        texts.append("".join(token_strings(model, reply)).split("\n")[0])
    return texts


def read_texts(path: Path) -> list[str]:
    """Return the texts of a `.txt` file, one a line, or of a folder of them, one a file.

    Raises `MissingError`, `CorruptError`, and `ConfigError` where there is no text.
    """
    path = path.expanduser()
    if path.is_dir():
        texts = [file.read_text(encoding="utf-8") for file in sorted(path.glob("*.txt"))]
    elif path.is_file():
        texts = _lines(path)
    else:
        raise MissingError(f"no file or folder at {path}; give a .txt file with one text a line, or a folder of them")
    if not (texts := [text for text in texts if text.strip()]):
        raise ConfigError(f"{path} has no text; write one a line")
    return texts


def _example(line: str, where: str) -> ContrastPair:
    """Return the example of one line. Raises `ConfigError` that names it."""
    try:
        value = json.loads(line)
        fields = {name: value[name] for name in ("towards", "away")} | {"prompt": value.get("prompt", "")}
        if all(isinstance(text, str) for text in fields.values()):
            return ContrastPair(prompt=fields["prompt"], towards=fields["towards"], away=fields["away"])
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    raise ConfigError(f'{where} is not an example; every line is {{"prompt": "...", "towards": "...", "away": "..."}}')


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise CorruptError(f"{path} is not UTF-8 text: {error}") from None
