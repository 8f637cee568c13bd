"""The unit of text. Torch-free."""

from typing import NamedTuple


class Document(NamedTuple):
    """One text, and where it came from."""

    text: str
    id: str
    """names the document within its corpus, for a person: `numpy.linalg.norm`, `notes.txt#3`"""
    label: str
    """a free group label: the package, the file, the column `label`; empty when there is none"""
