"""Counts of null draws, stated once: how many directions, shuffles or prompts a result is compared with. Torch-free."""

from typing import Literal

Level = Literal["quick", "standard", "thorough"]
"""How much is spent on a null; what it buys is the smallest p-value, `1 / (1 + draws)`."""
DRAWS: dict[Level, int] = {"quick": 5, "standard": 19, "thorough": 99}
"""Draws of each null by level: p can reach 1/6, 1/20, 1/100."""


def draws(level: Level) -> int:
    """Return the number of draws of each null."""
    return DRAWS[level]
