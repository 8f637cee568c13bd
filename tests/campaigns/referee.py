"""The table of the referee in `docs/trust.md`, from the answers that lie in folders of cases:

python -m tests.campaigns.referee FOLDER [FOLDER ...] [--write]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.campaigns import report
from workbench.referee.score import RefereeScores, score_folder


def table(folders: Sequence[Path]) -> list[str]:
    """Return a row per kind and tool, the workbench first."""
    cells = [cell for folder in folders for cell in score_folder(folder).cells]
    rows = RefereeScores(cells=tuple(sorted(cells, key=lambda cell: cell.tool != "workbench"))).shown()
    names = list(dict.fromkeys(name for row in rows for name in row))
    body = [[str(row.get(name, "")) for name in names] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), *body)]


def main() -> None:
    """Print the table, or put it into the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help="put the table into docs/trust.md")
    options = parser.parse_args()
    lines = table(options.folders)
    print("\n".join(lines))
    if options.write:
        report.put("referee", lines)


if __name__ == "__main__":
    main()
