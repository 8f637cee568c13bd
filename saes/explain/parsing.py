"""Replies of a language model, read strictly: what cannot be read is None, never a guess."""

import json
import re

LONGEST_LABEL = 300
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_MARK = re.compile(r"^[\W_]*explanation[\W_]*:[\W_]*?(?=[\w\"'“‘(]|$)", re.IGNORECASE | re.MULTILINE)
_LIST = re.compile(r"\[[^\[\]]*\]")


def read_explanation(text: str) -> str | None:
    """The line after the last `Explanation:`, or the only line there is; None without either.

    >>> read_explanation("They are all animals.\\n\\n**Explanation:** names of animals")
    'names of animals'
    """
    text = _THOUGHT.sub("", text).strip()
    marks = list(_MARK.finditer(text))
    lines = [line for line in (text[marks[-1].end() :] if marks else text).splitlines() if line.strip()]
    if not lines or (not marks and len(lines) > 1):
        return None
    label = " ".join("".join(c if c.isprintable() else " " for c in lines[0]).split())
    label = label.strip().strip("*").strip()
    if len(label) > 1 and label[0] == label[-1] and label[0] in "\"'`":
        label = label[1:-1].strip()
    if not any(c.isalnum() for c in label):
        return None
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def read_answers(text: str, n: int) -> list[bool] | None:
    """The last JSON list of exactly `n` zeros and ones; None when there is none.

    >>> read_answers("I think: [1, 0, 1]", 3)
    [True, False, True]
    """
    for found in reversed(_LIST.findall(_THOUGHT.sub("", text))):
        try:
            values = json.loads(found)
        except (ValueError, RecursionError):  # no JSON, or a number of thousands of digits
            continue
        if len(values) == n and all(isinstance(v, int) and v in (0, 1) for v in values):
            return [bool(v) for v in values]
    return None
