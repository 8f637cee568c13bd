"""Executed copies of every notebook, in notebooks/built/: `python -m notebooks.build [--workspace DIR] [NAME ...]`."""

import argparse
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUILT = HERE / "built"


def notebooks() -> list[Path]:
    """Every notebook source, in reading order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def execute(source: Path, workspace: Path, timeout: int = 900):
    """The executed notebook of a percent-format source; an exception in a cell is raised here.

    The notebook finds its workspace in the environment variable INTERP_WORKSPACE.
    """
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(source)
    os.environ["INTERP_WORKSPACE"] = str(workspace.resolve())
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    ).execute()
    return notebook


def build(source: Path, workspace: Path) -> Path:
    """Execute a notebook and write the copy with its outputs to notebooks/built/; returns where."""
    import nbformat

    target = BUILT / source.with_suffix(".ipynb").name
    text = nbformat.writes(execute(source, workspace))
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


def executed(source: Path, built: Path = BUILT) -> Any | None:
    """The notebook with the outputs of its last run; None where it never ran or its code has changed since.

    Prose may have changed: it is that of the source.
    """
    import jupytext
    import nbformat

    copy = built / source.with_suffix(".ipynb").name
    if not copy.exists():
        return None
    notebook, ran = jupytext.read(source), nbformat.read(copy, as_version=4)
    cells, outputs = ([c for c in version.cells if c.cell_type == "code"] for version in (notebook, ran))
    if [c.source for c in cells] != [c.source for c in outputs]:
        return None
    for cell, output in zip(cells, outputs, strict=True):
        cell.outputs, cell.execution_count = output.outputs, output.execution_count
    notebook.metadata = ran.metadata
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of file names; default: all")
    parser.add_argument("--workspace", type=Path, default=HERE.parent / "workspace")
    options = parser.parse_args()
    if not options.workspace.is_dir():
        parser.error(f"no workspace at {options.workspace}; `make demo ARGS=--no-serve` makes one")
    for source in notebooks():
        if options.names and not any(name in source.name for name in options.names):
            continue
        print(f"wrote {build(source, options.workspace)}")


if __name__ == "__main__":
    main()
