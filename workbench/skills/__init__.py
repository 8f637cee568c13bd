"""The steps of a journey for an agent, a file each: `workbench skill` lists them, `workbench skill NAME` prints one.

A file has a head of name and description, as the programs of agents read it. `docs/conf.py` puts the same text into the
how-to page of the journey, and `tests/workbench/test_skills.py` runs its commands.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from interp.errors import UnknownNameError
from interp.options import Argument
from workbench.terminal import Verb, say


def skills() -> dict[str, str]:
    """Return the files by name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.md"))}


def text_of(skill: str) -> str:
    """Return a file without its head."""
    return skill.partition("\n---\n")[2].strip()


@dataclass(frozen=True, kw_only=True)
class Skill(Verb):
    """Print the steps of a journey for an agent: commands, what to read, mistakes to avoid.

    Example: workbench skill make-direction

    Without a name it lists the journeys.
    """

    name: Annotated[str | None, Argument("NAME")] = None
    """Name of a journey."""

    def run(self) -> None:
        texts = skills()
        if self.name is None:
            for name, text in texts.items():
                say(f"{name:<17} {text.splitlines()[2].removeprefix('description: ')}")
        elif self.name not in texts:
            raise UnknownNameError("skill", self.name, texts)
        else:
            say(texts[self.name].rstrip())
