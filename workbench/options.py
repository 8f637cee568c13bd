"""The options that every verb shares, and the few lines that every verb needs. Torch-free."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from interp.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Options(ABC):
    """Shared by all verbs."""

    words: ClassVar[tuple[str, ...]] = ()
    """what is typed for the verb; empty: the name of the class"""

    workspace: Path = Path("workspace")
    """The folder that holds all artefacts."""
    name: str | None = None
    """Name of the artefact that is written. Default: made from what it is made of."""
    seed: int = 0
    """Every random number follows from this."""
    threads: int | None = None
    """CPU threads. Default: all cores."""
    overwrite: bool = False
    """Replace an artefact of that name."""

    def open_workspace(self) -> "Workspace":
        """The workspace, made when missing."""
        from interp.workspace import Workspace

        return Workspace(self.workspace, create=True)

    @abstractmethod
    def run(self) -> int | None:
        """Do the verb's work; an exit code, or None for 0."""

    def use_threads(self) -> int:
        """Set the thread count; returns the number in use."""
        from interp.runtime import set_threads

        return set_threads(self.threads)


def slug(text: str) -> str:
    """A usable artefact name from any text.

    >>> slug("HuggingFaceTB/SmolLM2-135M")
    'HuggingFaceTB-SmolLM2-135M'
    """
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return kept.strip("-.")[:64] or "unnamed"
