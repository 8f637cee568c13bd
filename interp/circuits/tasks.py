"""Tasks for a model: induction, indirect object, greater-than, or from a file of prompts.

    task = make_task("ioi", model, n_prompts=64, seed=0)

| task         | clean prompt; corrupted prompt                                     | metric                        |
|--------------|--------------------------------------------------------------------|-------------------------------|
| induction    | random tokens, then the same again; other tokens in the first half | logit of the next, above mean |
| ioi          | When Mary and John went to the shop, John gave a book to; Tom gave | logit(Mary) - logit(John)     |
| greater-than | The war lasted from the year 1732 to the year 17; from 1701        | p(years above) - p(others)    |

The induction task needs no tokenizer. IOI follows Wang et al. 2022 and greater-than Hanna et al. 2023; with tokenizers
that split years into digits, the answer of greater-than is the tens digit. Only words that are single tokens are used.

A file of prompts has one pair per line, as JSON lines or CSV:

    {"clean": "The capital of France is", "corrupt": "The capital of Italy is", "correct": " Paris", "wrong": " Rome"}

Answers are one token each, with the leading space that the tokenizer expects; a list of answers (in JSON) is a set.
Without `wrong` in all lines, the metric is the log-probability of the correct answer.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from interp.claims import OwnText
from interp.errors import ConfigError, CorruptError, MissingError, PromptError, UnknownNameError
from interp.models.generation import prompt_tokens
from interp.models.hooked import HookedModel
from interp.patching.metrics import LogitDiff, LogProb, Metric, ProbDiff
from interp.patching.patching_map import Origin
from interp.patching.task import Task
from interp.seeds import make_generator

_NAMES = (
    "Mary John Tom James Dan Sarah Anna Kate Jack Paul David Michael Robert Richard Thomas Mark George Simon Laura "
    "Alice Peter Martin Adam Jason Susan Daniel Emma Lisa Steven Kevin Brian Rachel Emily Henry Charles William Jane "
    "Helen Lucy Sam Max"
)
NAMES = tuple(_NAMES.split())
PLACES = ["store", "school", "park", "house", "office", "garden", "market", "beach", "hospital", "station"]
OBJECTS = ["book", "drink", "ring", "bag", "letter", "key", "ball", "card", "gift", "picture"]
TEMPLATES = (
    "When {first} and {second} went to the {place}, {subject} gave a {thing} to",
    "Then {first} and {second} met at the {place}. {subject} handed a {thing} to",
    "After {first} and {second} came back from the {place}, {subject} passed a {thing} to",
)
SPANS = (
    "The {noun} lasted from the year {start} to the year {century}",
    "The {noun} began in the year {start} and ended in the year {century}",
    "In the year {start} came the {noun}, which went on until the year {century}",
)
"""Greater-than; the first is that of the paper."""
NOUNS = ["war", "siege", "campaign", "trial", "reign", "project", "strike", "drought", "voyage", "famine"]


def make_task(
    kind: str,
    model: HookedModel,
    *,
    n_prompts: int = 64,
    seed: int = 0,
    check_gap: bool = True,
    template: int | None = None,
) -> Task:
    """Make a task by name: pairs of prompts, clean and corrupted, with a metric.

    Args:
        kind: `induction`, `ioi` (indirect objects) or `greater-than`.
        model: its tokenizer writes the prompts.
        n_prompts: the number of pairs.
        seed: of their choice.
        check_gap: refuse prompts on which the model does not do the task.
        template: the wording by its number from 0, of a task in `N_TEMPLATES` (default: the task's own).
    Returns: a task for `activation_patching`, `find_circuit` and others.
    Raises:
        UnknownNameError: no such task.
        ConfigError: the metric has no gap between clean and corrupted prompts.

    >>> make_task("induction", load_model("planted:induction"), n_prompts=8).clean.shape
    torch.Size([8, 32])
    """
    if kind not in TASKS:
        raise UnknownNameError("task", kind, TASKS, "A file of prompts (.jsonl or .csv) is a task too.")
    wording = {} if template is None else {"template": template}
    if template is not None and template not in range(N_TEMPLATES.get(kind, 0)):
        raise ConfigError(f"{kind} has {N_TEMPLATES.get(kind, 0)} templates, numbered from 0; got {template}")
    return TASKS[kind](model, n_prompts=n_prompts, seed=seed, check_gap=check_gap, **wording)


def induction_task(
    model: HookedModel, *, n_prompts: int = 64, seed: int = 0, block: int | None = None, check_gap: bool = True
) -> Task:
    """Make the induction task: random tokens that repeat once, read where the first half determines the next token.

    The prompt is `[BOS] r_0 .. r_(block-1) r_0 .. r_(block-2)`. The `block - 1` positions of the second half are read;
    the correct answers are `r_1 ..`. The corrupted prompt has other random tokens in its first half, so the second half
    has nothing to copy. `block` is 32 by default, or as long as context and vocabulary allow. Raises `ConfigError` when
    they are too small for `block`.
    """
    from interp.models.adapter import bos_token_id, ordinary_tokens
    from interp.text.tokens import repeated_random_tokens

    ids, bos = ordinary_tokens(model), bos_token_id(model)
    start = int(bos is not None)
    block = block or min(32, (model.cfg.n_ctx - start) // 2, len(ids))
    length = 2 * block + start
    if length > model.cfg.n_ctx:
        raise ConfigError(
            f"two blocks of {block} tokens do not fit a context of {model.cfg.n_ctx}; use block <= "
            f"{(model.cfg.n_ctx - start) // 2}"
        )
    generator = make_generator(seed, "induction task")
    clean = repeated_random_tokens(
        n_prompts=n_prompts,
        context_length=length,
        d_vocab_ids=ids,
        min_lag=block,
        max_lag=block,
        bos=bos,
        generator=generator,
    ).tokens
    corrupt = clean.clone()
    corrupt[:, start : start + block] = ids[torch.randint(len(ids), (n_prompts, block), generator=generator)]
    at = torch.arange(start + block, length - 1).expand(n_prompts, -1)
    correct = clean.gather(1, at + 1)
    return Task.of(
        model,
        clean,
        corrupt,
        LogitDiff(correct=correct[:, :, None]),
        name="induction",
        at=at,
        check_gap=check_gap,
        origin={"seed": seed, "block": block},
    )


def ioi_task(
    model: HookedModel, *, n_prompts: int = 64, seed: int = 0, check_gap: bool = True, template: int | None = None
) -> Task:
    """Make the task of indirect object identification: of two names, the one that occurs once comes next.

    Half of the prompts have the subject first (BABA), half second (ABBA). In the corrupted prompt a third name replaces
    the subject's second mention, so that neither answer is favoured. Templates take turns unless one is named. Raises
    `ConfigError` when fewer than three names are single tokens.
    """
    encode = _encoder(model)
    names = [name for name in NAMES if len(encode(f" {name}")) == 1]
    places = [word for word in PLACES if len(encode(f" {word}")) == 1]
    things = [word for word in OBJECTS if len(encode(f" {word}")) == 1]
    if len(names) < 3 or not places or not things:
        raise ConfigError(
            f"the tokenizer has {len(names)} of the task's names as single tokens, 3 are needed; use a file of prompts"
        )
    generator = make_generator(seed, "ioi task")
    clean, corrupt, correct, wrong = [], [], [], []
    for i in range(n_prompts):
        io, subject, third = _draw(names, 3, generator)
        place, thing = _draw(places, 1, generator)[0], _draw(things, 1, generator)[0]
        first, second = (subject, io) if i % 2 else (io, subject)
        wording = TEMPLATES[i // 2 % len(TEMPLATES) if template is None else template]
        for rows, who in ((clean, subject), (corrupt, third)):
            text = wording.format(first=first, second=second, subject=who, place=place, thing=thing)
            rows.append(_with_bos(model, encode(text)))
        correct += encode(f" {io}")
        wrong += encode(f" {subject}")
    return Task.of(
        model,
        clean,
        corrupt,
        LogitDiff(correct=correct, wrong=wrong),
        name="ioi",
        check_gap=check_gap,
        origin=_origin(seed, template) | {"names": len(names)},
    )


def greater_than_task(
    model: HookedModel, *, n_prompts: int = 64, seed: int = 0, check_gap: bool = True, template: int | None = None
) -> Task:
    """Make the greater-than task: a span of years must end after its start.

    The corrupted prompt starts in year 01, after which every end is possible. Where two digits are one token, the
    answer is the year (`correct`: all later years, `wrong`: all others). Where every digit is a token, it is the tens
    digit (larger ones against smaller ones). Raises `ConfigError` for other tokenizers.
    """
    encode = _encoder(model)
    whole = all(
        len(encode(f"17{year:02d}")) == 2 and encode(f"17{year:02d}")[0] == encode("17")[-1] for year in (1, 32, 98)
    )
    single = len(encode("1701")) == len(encode("17")) + 2
    if not whole and not single:
        raise ConfigError("the tokenizer must split years after the century or into digits; use a file of prompts")
    nouns = [noun for noun in NOUNS if len(encode(f" {noun}")) == 1]
    answers = _year_answers(encode) if whole else _digit_answers(encode)
    generator = make_generator(seed, "greater-than task")
    clean, corrupt, correct, wrong = [], [], [], []
    for _ in range(n_prompts):
        noun = _draw(nouns, 1, generator)[0]
        century = int(torch.randint(11, 18, (1,), generator=generator))
        year = int(torch.randint(11, 89, (1,), generator=generator))
        for rows, start in ((clean, year), (corrupt, 1)):
            text = SPANS[template or 0].format(noun=noun, start=f"{century}{start:02d}", century=century)
            rows.append(_with_bos(model, encode(text)))
        above, not_above = answers(year)
        correct.append(above)
        wrong.append(not_above)
    return Task.of(
        model,
        clean,
        corrupt,
        ProbDiff(correct=correct, wrong=wrong),
        name="greater-than",
        check_gap=check_gap,
        origin=_origin(seed, template) | {"years": "two digits" if whole else "tens digit"},
    )


def _origin(seed: int, template: int | None) -> Origin:
    return {"seed": seed} if template is None else {"seed": seed, "template": template}


TASKS: dict[str, Callable[..., Task]] = {
    "induction": induction_task,
    "ioi": ioi_task,
    "greater-than": greater_than_task,
}
N_TEMPLATES = {"ioi": len(TEMPLATES), "greater-than": len(SPANS)}
"""Wordings of the tasks that have several."""


def _year_answers(encode: Callable[[str], list[int]]) -> Callable[[int], tuple[list[int], list[int]]]:
    token = [encode(f"17{year:02d}")[-1] for year in range(100)]
    return lambda year: (token[year + 1 :], token[: year + 1])


def _digit_answers(encode: Callable[[str], list[int]]) -> Callable[[int], tuple[list[int], list[int]]]:
    """Return the tens digits above and below the year's own; that digit is neither, as the ones digit would decide."""
    token = [encode(f"17{digit}")[-1] for digit in range(10)]
    return lambda year: (token[year // 10 + 1 :] or token[9:], token[: year // 10])


def _encoder(model: HookedModel) -> Callable[[str], list[int]]:
    from interp.models.identity import tokenizer_of

    tokenizer = tokenizer_of(model)
    return lambda text: list(tokenizer.encode_batch([text])[0])


def _with_bos(model: HookedModel, ids: list[int]) -> list[int]:
    from interp.models.adapter import bos_token_id

    bos = bos_token_id(model)
    return ids if bos is None else [bos, *ids]


def _draw(options: list[str], n: int, generator: torch.Generator) -> list[str]:
    order: Tensor = torch.randperm(len(options), generator=generator)[:n]
    return [options[i] for i in order.tolist()]


FIELDS = ("clean", "corrupt", "correct", "wrong")


def task_from_file(
    model: HookedModel,
    path: Path | str | OwnText,
    *,
    n_prompts: int | None = None,
    seed: int = 0,
    check_gap: bool = True,
) -> Task:
    """Read the task of a .jsonl or .csv file with `clean, corrupt, correct` and optionally `wrong`.

    Its first `n_prompts` lines, with another `seed` than 0 random ones.

    Raises `MissingError`, `CorruptError` (names the line), `PromptError` for an answer of several tokens (lists them)
    or a pair of different length (lists both), `ConfigError` without a gap between clean and corrupted prompts.
    """
    text = None
    if isinstance(path, OwnText):
        path, text = path.name, path.text
    path = Path(path)
    rows = [(f"{path.name}, line {line}", row) for line, row in _read(path, text)]
    origin: Origin = {"file": path.name}
    if seed:
        order = torch.randperm(len(rows), generator=make_generator(seed, "lines of a file"))
        rows, origin = [rows[i] for i in order.tolist()], origin | {"seed": seed}
    return _task_of_rows(model, rows[:n_prompts], str(path), name=path.stem, check_gap=check_gap, origin=origin)


def pair_task(
    model: HookedModel, clean: str, corrupt: str, correct: str, wrong: str | None = None, *, check_gap: bool = True,
    chat: bool = False,
) -> Task:  # fmt: skip
    """Make the task of one pair of prompts and one answer (minus `wrong`, where given), read at the last token.

    With `chat` both prompts are messages in the model's chat template.

    Prompts are text, or token numbers such as `"3 5 7"` for a model without a tokenizer. Raises `PromptError` for an
    answer of several tokens (lists them), an empty prompt, or prompts of different length (lists both); `ConfigError`
    without a gap.
    """
    row = {"clean": clean, "corrupt": corrupt, "correct": correct, "wrong": wrong}
    for name in FIELDS[:3]:
        if not row[name]:
            raise PromptError(f"the {name} {'answer' if name == 'correct' else 'prompt'} is empty; give some text")
    origin: Origin = {"clean": clean, "corrupt": corrupt, "correct": correct, "wrong": wrong, "chat": chat}
    rows = [("the prompts", row)]
    return _task_of_rows(model, rows, "the prompts", name="pair", check_gap=check_gap, origin=origin, chat=chat)


def _task_of_rows(
    model: HookedModel, rows: list[tuple[str, dict[str, Any]]], source: str, *, name: str, check_gap: bool,
    origin: Origin, chat: bool = False,
) -> Task:  # fmt: skip
    """Make the task of rows, each with its name in error messages."""
    encode = encoder_with_bos(model)
    clean, corrupt, correct, wrong = [], [], [], []
    for where, row in rows:
        texts = [str(row[field]) for field in ("clean", "corrupt")]
        if chat:
            pair = [prompt_tokens(model, text, chat=True)[0].tolist() for text in texts]
        else:
            pair = [encode(text, bos=True) for text in texts]
        if len(pair[0]) != len(pair[1]):
            raise PromptError(
                f"{where}: {len(pair[0])} clean tokens and {len(pair[1])} corrupted ones, positions must match: "
                f"{_show(model, pair[0])} against {_show(model, pair[1])}; reword one of the two"
            )
        clean.append(pair[0])
        corrupt.append(pair[1])
        correct.append([one_token(model, encode, text, where) for text in _as_list(row["correct"])])
        if row.get("wrong"):
            wrong.append([one_token(model, encode, text, where) for text in _as_list(row["wrong"])])
    if wrong and len(wrong) != len(rows):
        raise CorruptError(
            f"{source}: {len(wrong)} of {len(rows)} lines have a wrong answer; give one everywhere or nowhere"
        )
    metric: Metric = LogitDiff(correct=correct, wrong=wrong) if wrong else LogProb(correct=correct)
    return Task.of(model, clean, corrupt, metric, name=name, check_gap=check_gap, origin=origin)


def _read(path: Path, text: str | None) -> list[tuple[int, dict[str, Any]]]:
    """Return line number and fields of every prompt pair, of a file or of its text."""
    if text is None and not path.is_file():
        raise MissingError(f"no file of prompts at {path}")
    if path.suffix not in (".jsonl", ".json", ".csv"):
        raise ConfigError(f"{path.name}: prompts are read from .jsonl or .csv files")
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
    except UnicodeDecodeError as error:
        raise CorruptError(f"{path} is not UTF-8 text: {error}") from None
    if path.suffix == ".csv":
        rows = [(i, dict(row)) for i, row in enumerate(csv.DictReader(text.splitlines()), start=2)]
    else:
        rows = [(i, _object(path, i, line)) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not rows:
        raise CorruptError(f"{path} holds no prompts")
    for line, row in rows:
        missing = [name for name in FIELDS[:3] if not row.get(name)]
        if missing:
            raise CorruptError(f"{path}, line {line}: lacks {', '.join(missing)}; expected {', '.join(FIELDS)}")
    return rows


def _object(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path}, line {line}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{path}, line {line}: expected a JSON object")
    return value


def one_token(model: HookedModel, encode: "Encode", text: str, where: str) -> int:
    """Return the token of an answer. Raises `PromptError` for an answer of several, with the tokens."""
    ids = encode(text, bos=False)
    if len(ids) != 1:
        raise PromptError(
            f"{where}: the answer {text!r} is {len(ids)} tokens ({_show(model, ids)}); choose an answer of one token, "
            "often one with a leading space"
        )
    return ids[0]


def _as_list(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]


def _show(model: HookedModel, ids: list[int]) -> str:
    from interp.models.adapter import token_strings

    return " ".join(repr(text) for text in token_strings(model, ids))


class Encode(Protocol):
    """Token ids of a text, with BOS first where the model has one and `bos` asks for it."""

    def __call__(self, text: str, bos: bool) -> list[int]: ...


def encoder_with_bos(model: HookedModel) -> Encode:
    """Return what makes tokens of texts; without a tokenizer, of numbers such as `"3 5 7"`."""
    from interp.models.adapter import bos_token_id
    from interp.models.identity import tokenizer_of

    tokenizer, start = tokenizer_of(model, required=False), bos_token_id(model)

    def encode(text: str, bos: bool) -> list[int]:
        ids = _numbers(model, text) if tokenizer is None else list(tokenizer.encode_batch([text])[0])
        return [start, *ids] if bos and start is not None else ids

    return encode


def _numbers(model: HookedModel, text: str) -> list[int]:
    """Return the token numbers of a text such as `"3 5 7"`, for a model without a tokenizer."""
    words = text.split()
    if not words or not all(word.isdecimal() and int(word) < model.cfg.d_vocab for word in words):
        raise PromptError(
            f"this model has no tokenizer; give token numbers from 0 to {model.cfg.d_vocab - 1} with spaces between "
            f"them, not {text!r}"
        )
    return [int(word) for word in words]


def open_task(
    model: HookedModel, task: str | OwnText, n_prompts: int | None, *, seed: int, template: int | None = None
) -> Task:
    """Return prompts of a task by its name, or from a `.jsonl` or `.csv` file; None takes the whole file.

    With seed 0 those of a file have its order, with another a random one.

    Raises `ConfigError` for a `template` (a wording by its number) that the task lacks; a file has none.
    """
    if not isinstance(task, str) or Path(task).suffix:
        if template is not None:
            raise ConfigError(f"{task} is a file, whose prompts have one wording; name a task to choose a wording")
        return task_from_file(model, task, n_prompts=n_prompts, seed=seed)
    if n_prompts is None:
        return make_task(task, model, seed=seed, template=template)
    return make_task(task, model, n_prompts=n_prompts, seed=seed, template=template)
