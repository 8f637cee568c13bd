"""The executed notebooks as pages with pictures, in docs/gallery/: `make gallery`, or `python -m notebooks.gallery [NAME ...]`.

Reads what `python -m notebooks.build` wrote. Of each notebook: its prose, its code, its pictures, what its cells printed.
Pictures are drawn by Chromium from what the notebook itself would show. The site shows these pages where a checkout has
no executed notebooks.
"""

import argparse
import base64
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from notebooks.build import executed, notebooks

HERE = Path(__file__).parent
GALLERY = HERE.parent / "docs" / "gallery"
WIDTH, HEIGHT = 860, 480
PLOTLY = "application/vnd.plotly.v1+json"
MAX_LINES, WIDEST = 40, 160
"""Of printed text that a page takes over: lines, and characters of a row of a table."""
SOURCE = "The notebook: "
"""Begins the last line of a page."""


class Painter:
    """A Chromium page that turns figures into PNG bytes."""

    def __init__(self, page: Any):
        import plotly.offline

        self.page = page
        page.set_content("<body style='margin:0;background:#fff'><div id=figure></div></body>")
        page.add_script_tag(content=plotly.offline.get_plotlyjs())

    def figure(self, figure: dict[str, Any]) -> bytes:
        """A plotly figure as its notebook shows it."""
        height = figure.get("layout", {}).get("height") or HEIGHT
        address = self.page.evaluate(
            "([f, w, h]) => Plotly.toImage({data: f.data, layout: {...f.layout, width: w, height: h, paper_bgcolor: '#fff'}}, {format: 'png'})",
            [figure, WIDTH, height],
        )
        return base64.b64decode(address.split(",", 1)[1])

    def html(self, html: str) -> bytes:
        """A picture of what a cell returned as HTML: a map in its frame, or a piece of a page."""
        tab = self.page.context.new_page()
        tab.set_viewport_size({"width": WIDTH, "height": 560})
        tab.set_content(f"<body style='margin:0'>{html}</body>")
        tab.wait_for_timeout(3000)
        try:
            return tab.screenshot(full_page="<iframe" not in html)
        finally:
            tab.close()


def page_of(notebook: Any, name: str, painter: Painter) -> tuple[str, list[str]]:
    """Markdown of an executed notebook, and the file names of its pictures, which are written beside it."""
    parts, pictures = [], []
    for cell in notebook.cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            content = _output(output, painter)
            if isinstance(content, bytes):
                picture = f"{name}-{len(pictures) + 1}.png"
                (GALLERY / picture).write_bytes(content)
                pictures.append(picture)
                parts.append(f"![{_said(output) or 'figure'}]({picture})")
            elif content:
                parts.append(content)
    source = f"{SOURCE}[notebooks/{name}.py](../../notebooks/{name}.py)."
    return "\n\n".join([*parts, source]) + "\n", pictures


def _output(output: Any, painter: Painter) -> bytes | str | None:
    data = output.get("data", {})
    if PLOTLY in data:
        return painter.figure(data[PLOTLY])
    html = "".join(data.get("text/html", ""))
    if "<iframe" in html or "wb-shown" in html:
        return painter.html(html)
    if output.output_type == "stream" and output.name != "stdout":
        return None
    text = "".join(output.get("text", "") or data.get("text/plain", "")).strip("\n")
    return _fenced(text) if text and not text.startswith("<") else None


def _fenced(text: str) -> str:
    text = text.replace(f"{HERE.parent}/", "")  # a page says nothing of the machine that made it
    lines = [part for line in text.splitlines() for part in _wrapped(line)]
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"... {len(lines) - MAX_LINES} lines more"]
    return "\n".join(["```text", *lines, "```"])


def _wrapped(line: str) -> list[str]:
    """A sentence in lines that a page can show; a row of a table is cut instead."""
    if re.search(r"(\S {2,}\S.*){2}", line):
        return [line[:WIDEST]]
    return textwrap.wrap(line, 110, subsequent_indent="  ") or [""]


def _said(output: Any) -> str:
    """The title of a figure, as its alternative text."""
    title = output.get("data", {}).get(PLOTLY, {}).get("layout", {}).get("title", {})
    text = title.get("text", "") if isinstance(title, dict) else str(title)
    return re.sub(r"<[^>]*>|[\[\]]", "", text)


def title_and_question(notebook: Any) -> tuple[str, str]:
    """The heading of the first cell and the paragraph below it."""
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading, _, rest = first.partition("\n")
    return heading.lstrip("# "), " ".join(rest.strip().split("\n\n")[0].split())


def index() -> str:
    """Return the index: the question of each notebook, its page, and its first picture."""
    import jupytext

    parts = [
        "# Gallery",
        "Questions, and what a run of the notebooks answered. `make notebooks gallery` draws it anew.",
    ]
    for source in notebooks():
        title, question = title_and_question(jupytext.read(source))
        picture = next(iter(sorted(GALLERY.glob(f"{source.stem}-*.png"))), None)
        figure = [f"![A figure of: {title}]({picture.name})"] if picture else []
        parts += [f"## [{title}]({source.stem}.md)", question, *figure]
    return "\n\n".join(parts) + "\n"


def render(names: list[str]) -> Iterator[Path]:
    """Write the pages of the executed notebooks and the index, and remove pages of notebooks that are gone."""
    from playwright.sync_api import sync_playwright

    from tools.chromium import chromium

    sources = {path.stem: path for path in notebooks()}
    ran = {stem: executed(path) for stem, path in sources.items() if not names or any(n in stem for n in names)}
    if missing := [stem for stem, notebook in ran.items() if notebook is None]:
        raise SystemExit(f"run `make notebooks` first: no outputs of the present code of {', '.join(missing)}")
    executable = chromium()
    GALLERY.mkdir(parents=True, exist_ok=True)
    for old in GALLERY.glob("[0-9][0-9]_*"):
        if old.stem.rpartition("-")[0] in ran or old.stem.partition("-")[0] not in sources:
            old.unlink()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--use-gl=angle"])
        painter = Painter(browser.new_context().new_page())
        for stem, notebook in ran.items():
            text, _ = page_of(notebook, stem, painter)
            page = GALLERY / f"{stem}.md"
            page.write_text(text, encoding="utf-8")
            yield page
        browser.close()
    (GALLERY / "README.md").write_text(index(), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of file names; default: all")
    for page in render(parser.parse_args().names):
        print(f"wrote {page}")


if __name__ == "__main__":
    main()
