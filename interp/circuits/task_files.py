"""A task from a file of prompts: one pair per line, as JSON lines or CSV.

    {"clean": "The capital of France is", "corrupt": "The capital of Italy is", "correct": " Paris", "wrong": " Rome"}

Answers are one token each, with the leading space that the tokenizer expects; a list of answers (in JSON) is a set.
`wrong` may be left out everywhere: then the metric is the log-probability of the right answer.
"""

import csv
import json
from pathlib import Path
from typing import Any

from interp.circuits.metrics import LogitDiff, LogProb, Metric
from interp.circuits.task import Task
from interp.errors import ConfigError, CorruptError, MissingError, PromptError

FIELDS = ("clean", "corrupt", "correct", "wrong")


def task_from_file(model: Any, path: Path | str, *, n_prompts: int | None = None, check_gap: bool = True) -> Task:
    """The task of a .jsonl or .csv file with `clean, corrupt, correct` and optionally `wrong`.

    Raises `MissingError`, `CorruptError` (names the line), `PromptError` for an answer of several tokens (lists
    them) or a pair of different length (lists both), `ConfigError` without a gap between clean and corrupted prompts.
    """
    path = Path(path)
    rows = _read(path)[:n_prompts]
    encode = _encoder_with_bos(model)
    clean, corrupt, correct, wrong = [], [], [], []
    for line, row in rows:
        where = f"{path.name}, line {line}"
        pair = [encode(str(row[field]), bos=True) for field in ("clean", "corrupt")]
        if len(pair[0]) != len(pair[1]):
            raise PromptError(
                f"{where}: {len(pair[0])} clean tokens and {len(pair[1])} corrupted ones, positions must match: "
                f"{_show(model, pair[0])} against {_show(model, pair[1])}; reword one of the two"
            )
        clean.append(pair[0])
        corrupt.append(pair[1])
        correct.append([_one_token(model, encode, text, where) for text in _as_list(row["correct"])])
        if row.get("wrong"):
            wrong.append([_one_token(model, encode, text, where) for text in _as_list(row["wrong"])])
    if wrong and len(wrong) != len(rows):
        raise CorruptError(
            f"{path}: {len(wrong)} of {len(rows)} lines have a wrong answer; give one everywhere or nowhere"
        )
    metric: Metric = LogitDiff(correct=correct, wrong=wrong) if wrong else LogProb(correct=correct)
    return Task.of(model, clean, corrupt, metric, name=path.stem, check_gap=check_gap, settings={"file": path.name})


def _read(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number, fields) of every prompt pair."""
    if not path.is_file():
        raise MissingError(f"there is no file of prompts at {path}")
    if path.suffix not in (".jsonl", ".json", ".csv"):
        raise ConfigError(f"{path.name}: prompts are read from .jsonl or .csv files")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        rows = [(i, dict(row)) for i, row in enumerate(csv.DictReader(text.splitlines()), start=2)]
    else:
        rows = [(i, _object(path, i, line)) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
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
    except ValueError as error:
        raise CorruptError(f"{path}, line {line}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{path}, line {line}: a JSON object was expected")
    return value


def _one_token(model: Any, encode: Any, text: str, where: str) -> int:
    ids = encode(text, bos=False)
    if len(ids) != 1:
        raise PromptError(
            f"{where}: the answer {text!r} is {len(ids)} tokens ({_show(model, ids)}); choose an answer of one token, "
            "often one with a leading space"
        )
    return ids[0]


def _as_list(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _show(model: Any, ids: list[int]) -> str:
    from interp.models.adapter import token_strings

    return " ".join(repr(text) for text in token_strings(model, ids))


def _encoder_with_bos(model: Any) -> Any:
    from interp.models.adapter import bos_token_id
    from interp.models.tokenizers import tokenizer_of

    tokenizer, start = tokenizer_of(model), bos_token_id(model)

    def encode(text: str, bos: bool) -> list[int]:
        ids = list(tokenizer.encode_batch([text])[0])
        return [start, *ids] if bos and start is not None else ids

    return encode
