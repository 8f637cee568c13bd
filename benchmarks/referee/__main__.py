"""`python -m benchmarks.referee write|answer|score FOLDER`: how often a tool supports claims that are false."""

import argparse
from pathlib import Path

from benchmarks.referee.baselines import METHODS
from benchmarks.referee.run import KINDS, WORKBENCH, answer_cases, write_cases
from benchmarks.referee.score import markdown, score_folder


def main() -> None:
    """Write cases, answer them, or print the table of their errors."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.referee", description=main.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    write, answer, score = (verbs.add_parser(name) for name in ("write", "answer", "score"))
    for verb in (write, answer):
        verb.add_argument("folder", type=Path)
    for verb in (write, answer, score):
        verb.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    write.add_argument("--n", type=int, default=60, help="cases of each control, for every kind of claim")
    write.add_argument("--seed", type=int, default=0)
    answer.add_argument("--by", choices=METHODS, default=WORKBENCH, help="a simpler method answers")
    score.add_argument("folders", type=Path, nargs="+", metavar="folder")
    asked = parser.parse_args()
    if asked.verb == "write":
        write_cases(asked.folder, asked.kinds, asked.n, asked.seed)
    elif asked.verb == "answer":
        made = answer_cases(asked.folder, asked.kinds, asked.by)
        print(f"{len(made.answers)} answers by {made.tool}")
    else:
        cells = [cell for folder in asked.folders for cell in score_folder(folder, asked.kinds)]
        print("\n".join(markdown(cells)))


if __name__ == "__main__":
    main()
