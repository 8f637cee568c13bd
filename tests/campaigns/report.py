"""The page of the campaigns, `docs/trust.md`: each campaign writes between two markers of its own."""

from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "trust.md"


def put(campaign: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Replace the lines between the markers of a campaign. Raises `ValueError` where the page lacks them."""
    start, stop = f"<!-- {campaign} -->", f"<!-- end of {campaign} -->"
    text = page.read_text()
    before, found, rest = text.partition(start)
    _, ended, after = rest.partition(stop)
    if not (found and ended):
        raise ValueError(f"{page} has no place for this campaign: {start} and {stop} were expected")
    page.write_text("\n".join([before + start, *lines, stop]) + after)
