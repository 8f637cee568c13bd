"""The documentation site, in docs/_build/html: `make docs`, or `python -m docs.build [--require-executed]`.

1. write the pages that come from the code into docs/generated (`docs/generate.py`)
2. run Sphinx with warnings as errors
3. check that the pages load nothing from another machine

Nothing is fetched and no notebook is run. Open docs/_build/html/index.html; search works from the file too.
"""

import argparse
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

from docs.generate import DOCS, generate

SITE = DOCS / "_build" / "html"
LOADING = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
    ("audio", "src"),
    ("embed", "src"),
    ("object", "data"),
}
"""Attributes that make a browser fetch something by itself. A link that a reader may click is not among them."""


class _Loads(HTMLParser):
    """Collects the outside addresses that a page makes a browser fetch, those of frames within it included."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if (tag, key) in LOADING and _outside(value or ""):
                self.found.append(f"<{tag} {key}={value}>")
            elif key == "srcdoc":
                self.found += outside_loads(value or "")
            elif key == "style":
                self.found += outside_urls(value or "")


def _outside(address: str) -> bool:
    return bool(re.match(r"\s*(https?:)?//", address))


def outside_urls(css: str) -> list[str]:
    """Every outside address that a stylesheet loads."""
    urls = re.findall(r"url\(\s*['\"]?([^'\")]+)", css) + re.findall(r"@import\s+['\"]([^'\"]+)", css)
    return [f"style: {url}" for url in urls if _outside(url)]


def outside_loads(html: str) -> list[str]:
    """Every outside address that a page loads when it is opened."""
    parser = _Loads()
    parser.feed(html)
    sheets = re.findall(r"<style[^>]*>(.*?)</style>", html, flags=re.DOTALL)
    return parser.found + [url for sheet in sheets for url in outside_urls(sheet)]


def check_offline(site: Path) -> list[str]:
    """`page: address` for everything that the pages and stylesheets below `site` load from elsewhere."""
    wrong = []
    for suffix, find in (("html", outside_loads), ("css", outside_urls)):
        for path in sorted(site.rglob(f"*.{suffix}")):
            wrong += [f"{path.relative_to(site)}: {each}" for each in find(path.read_text(encoding="utf-8"))]
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Build the site; the return value is the exit code."""
    from sphinx.cmd.build import main as sphinx

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--require-executed", action="store_true", help="fail unless all tutorials show a run of their present code"
    )
    options = parser.parse_args(arguments)
    counts = generate(DOCS / "generated")
    print(", ".join(f"{name}: {n}" for name, n in counts.items()))
    if options.require_executed and counts["executed"] < counts["tutorials"]:
        print("some notebooks have no executed copy of their present source; run `make notebooks`", file=sys.stderr)
        return 2
    if code := sphinx(
        ["-W", "--keep-going", "-q", "-j", "auto", "-d", str(SITE.parent / "cache"), str(DOCS), str(SITE)]
    ):
        return code
    if wrong := check_offline(SITE):
        print("the site loads from other machines:", *wrong, sep="\n  ", file=sys.stderr)
        return 1
    print(f"open {SITE / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
