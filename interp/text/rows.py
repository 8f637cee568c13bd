"""One row of a table of texts -> one document: the text of its column, or a conversation through a chat template.

A conversation is a list of messages, `{"role": "user", "content": "..."}` each, or `{"from": "human", "value": "..."}`.
Which column is read belongs to the spec of a corpus: `pages.jsonl?column=body`. Torch-free.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from interp.errors import ConfigError

TEXT = "text"
COLUMN = "?column="
"""Separator of file or data set and column in the spec of a corpus."""
_FORMS = (("role", "content"), ("from", "value"))
_ROLES = {"human": "user", "gpt": "assistant"}

Message = dict[str, str]
ChatTemplate = Callable[[list[Message]], str]


class Document(NamedTuple):
    """One text, with its source."""

    text: str
    id: str
    """names the document within its corpus, for a person: `numpy.linalg.norm`, `notes.txt#3`"""
    label: str
    """a free group label: the package, the file, the column `label`; empty when there is none"""


@dataclass(frozen=True)
class TextColumn:
    """The column of the texts, and the template that makes a conversation a text."""

    name: str = TEXT
    template: ChatTemplate | None = None

    def require(self, columns: Sequence[str], where: str) -> None:
        """Raise `ConfigError` listing the columns when the one that is read is not among them."""
        if self.name not in columns:
            found = ", ".join(map(str, columns)) or "none"
            raise ConfigError(
                f"{where} has no column `{self.name}` (columns: {found}); name the one that holds the text with "
                f"--column, or behind the file: FILE{COLUMN}NAME"
            )

    def document(self, row: dict[str, Any], where: str, default_id: str, default_label: str) -> Document:
        """Return the document of a row; `id` and `label` are taken from it where it has them."""
        self.require(list(row), where)
        value, label = row[self.name], row.get("label")
        text = self._conversation(value, where) if isinstance(value, list) else value
        if not isinstance(text, str):
            raise ConfigError(
                f"{where}: column `{self.name}` holds {type(value).__name__}, expected a text or a list of messages"
            )
        return Document(text, str(row.get("id") or default_id), default_label if label is None else str(label))

    def _conversation(self, value: list[Any], where: str) -> str:
        if self.template is None:
            raise ConfigError(f"{where}: column `{self.name}` holds conversations, which only `record` and `own` read")
        return self.template([_message(each, f"{where}: column `{self.name}`") for each in value])


def _message(found: Any, where: str) -> Message:
    for form in _FORMS:
        role, content = (found.get(key) for key in form) if isinstance(found, dict) else (None, None)
        if isinstance(role, str) and isinstance(content, str):
            return {"role": _ROLES.get(role, role), "content": content}
    raise ConfigError(
        f'{where} holds a list whose entries are not messages, expected {{"role": "user", "content": "..."}}'
    )


def split_column(spec: str) -> tuple[str, str]:
    """Return the file or data set that a spec names, and the column.

    >>> split_column("pages.jsonl?column=body")
    ('pages.jsonl', 'body')
    """
    source, mark, column = spec.rpartition(COLUMN)
    return (source, column) if mark else (spec, TEXT)
