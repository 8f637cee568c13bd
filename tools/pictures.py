"""Pictures of README and docs, drawn by Chromium from the demo's workspace: `make pictures`.

A picture is a part of a page, in the light and the dark theme: docs/images/NAME.webp and NAME-dark.webp. The words and
numbers in it go into docs/images/pictures.json. `--check` opens the same pages and compares what stands there with that
file, without drawing: words one for one, numbers within 2 %.

The pages are those of a copy of the workspace, in which notes are written; the workspace itself is only read.
"""

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

from dashboard.queue import RunQueue
from interp.notes import Notes
from interp.workspace import Workspace
from tools.chromium import FLAGS, READY, chromium, serving, settle
from workbench.commands import Commands

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MANIFEST = IMAGES / "pictures.json"
THEMES: dict[Literal["light", "dark"], str] = {"light": "", "dark": "-dark"}
QUALITY, SHARPNESS = 82, 1.25
"""Of WebP, 0 to 100; pixels of a picture per pixel of the page."""
TEXT = """([left, top, width, height]) => {
  const found = [], range = document.createRange(), seen = { checkOpacity: true, checkVisibilityCSS: true };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const words = walk.currentNode.textContent.trim(), owner = walk.currentNode.parentElement;
    if (!words || !owner.checkVisibility(seen)) continue;
    if (owner.closest("script, style, .ag-overlay, .ag-aria-description-container")) continue;
    range.selectNodeContents(walk.currentNode);
    const box = range.getBoundingClientRect();
    const x = box.x + box.width / 2 + scrollX, y = box.y + box.height / 2 + scrollY;
    if (box.width > 1 && x > left && y > top && x < left + width && y < top + height) found.push(words);
  }
  return found.join(" ").replace(/\\s+/g, " ");
}"""
"""Of the browser: the text nodes whose middle lies in a rectangle of the page."""
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")
PASSING = re.compile(
    r"\b\d+(\.\d+)? (seconds?|minutes?|hours?|days?|s|min|h|ms|[kMG]B|tokens/s)\b|\d{4}-\d\d-\d\d(T?[ \d:]*)|\d\d:\d\d"
    r"|\bno certificate\b|\bcertificate deleted\b|\bexamined anew since\b|\bquick checks passed\b"
)
"""Times and sizes, which are others on the next day or machine, and whether a workspace was examined."""
TOLERANCE = 0.02
PROMPT = "The capital of France is Paris, and the capital of Italy is".replace(" ", "+")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A part of a page."""

    name: str
    address: str
    height: int
    """pixels of the page, from below the bar"""
    width: int = 1200
    ready: str = "main"
    """selector of what is there when the page is drawn"""
    compared: bool = True
    """False where the model measures for minutes while all cores are busy: such a page is drawn, and not checked"""


PICTURES = (
    Picture(name="overview", address="/", height=720),
    Picture(name="feature", address="/feature/demo/4398", height=900),
    Picture(name="routes", address="/prompt?routes=capital", height=640, ready="#prompt-routes svg"),
    Picture(
        name="graph",
        address="/graph/capital-of-France",
        height=860,
        ready="#graph-view[data-ready] .wb-graph-area[data-edges]",
    ),
    Picture(name="circuit", address="/circuit/induction-smollm2-135m", height=860),
    Picture(name="heads", address="/heads/smollm2-135m", height=840),
    Picture(
        name="prompt",
        address=f"/prompt?text={PROMPT}",
        height=1100,
        ready="main:has(#prompt-pattern canvas):has(#prompt-routes > .wb-note:not(:empty))",
        compared=False,
    ),
    Picture(name="atlas", address="/atlas/demo-tokens", height=800, ready="#atlas-view[data-ready], canvas"),
    Picture(name="compare", address="/compare?a=demo:4398&b=demo:3889", height=640),
    Picture(name="doctor", address="/doctor/smollm2-135m", height=800),
    Picture(name="directions", address="/directions/praise", height=1000),
    Picture(name="runs", address="/runs?verb=atlas&source=sae:demo", height=800),
    Picture(name="notes", address="/notes", height=560),
    Picture(name="sae", address="/sae?name=demo", height=800),
    Picture(name="search", address="/search?q=cooking", height=640),
)


@contextlib.contextmanager
def _served(workspace: Path) -> Iterator[str]:
    """Serve a workspace with notes in it, and yield the address."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        shutil.copytree(
            workspace, Path(folder) / "workspace", ignore=shutil.ignore_patterns("runs", "notes.*", "*.partial")
        )
        # A command on a page names no folder of this machine: neither that of the workspace nor that of the program.
        stack.enter_context(contextlib.chdir(folder))
        os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        opened = Workspace(Path("workspace"))
        notes = Notes.open(opened)
        notes.set(
            "features/demo#2151", title="drinks", starred=True, tags=["food"], note="Does it make the model order one?"
        )
        notes.set("features/demo#9042", title="months", starred=True, tags=["dates"])
        yield stack.enter_context(serving(opened, runs=RunQueue(opened, Commands(opened))))


def _requests_of(page: Any) -> set[Any]:
    """Return the requests of a page that wait for an answer, kept up to date."""
    waiting: set[Any] = set()
    page.on("request", lambda request: waiting.add(request))
    for event in ("requestfinished", "requestfailed"):
        page.on(event, lambda request: waiting.discard(request))
    return waiting


def _rectangle(page: Any, picture: Picture) -> list[float]:
    box = page.locator("main").first.bounding_box()
    top = box["y"] + page.evaluate("scrollY")
    return [0, top, picture.width, picture.height]


def _photograph(page: Any, rectangle: list[float]) -> bytes:
    left, top, width, height = rectangle
    clip = {"x": left, "y": top, "width": width, "height": height, "scale": SHARPNESS}
    made = page.context.new_cdp_session(page).send(
        "Page.captureScreenshot",
        {"format": "webp", "quality": QUALITY, "clip": clip, "captureBeyondViewport": True},
    )
    return base64.b64decode(made["data"])


def visit(workspace: Path, pictures: tuple[Picture, ...], *, draw: bool) -> dict[str, dict[str, str]]:
    """Return the address of every picture and the text in it; draw them in both themes unless told not to."""
    from playwright.sync_api import sync_playwright

    found = {}
    with _served(workspace) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for theme, ending in list(THEMES.items())[: 2 if draw else 1]:
            page = browser.new_page(color_scheme=theme, reduced_motion="reduce")
            page.set_default_timeout(600_000)
            unanswered = _requests_of(page)
            for picture in pictures:
                started = time.monotonic()
                unanswered.clear()
                page.set_viewport_size({"width": picture.width, "height": picture.height + 120})
                page.goto(base + picture.address)
                page.wait_for_selector(picture.ready)
                page.wait_for_selector(READY)
                settle(page, unanswered, seconds=120, looks=5, pause=100)
                rectangle = _rectangle(page, picture)
                if draw:
                    (IMAGES / f"{picture.name}{ending}.webp").write_bytes(_photograph(page, rectangle))
                if not ending:
                    found[picture.name] = {"address": picture.address, "text": page.evaluate(TEXT, rectangle)}
                print(f"{picture.name}{ending}: {time.monotonic() - started:.1f} s", flush=True)
            page.close()
        browser.close()
    return found


def differences(recorded: str, current: str) -> list[str]:
    """Return the words and numbers of two texts that differ, as `OLD -> NEW`; times and sizes of files are left out.

    >>> differences("F1 0.910 of 40 tokens, 3 minutes ago", "F1 0.905 of 80 tokens, 5 minutes ago")
    ['40 -> 80']
    """
    old, new = (PASSING.sub("", text).split() for text in (recorded, current))
    matched = SequenceMatcher(a=old, b=new, autojunk=False)
    found = []
    for kind, a, b, c, d in matched.get_opcodes():
        before, after = old[a:b], new[c:d]
        if kind == "equal" or (len(before) == len(after) and all(map(_same, before, after))):
            continue
        found.append(f"{' '.join(before)} -> {' '.join(after)}")
    return found


def _same(one: str, other: str) -> bool:
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    values = [[float(each.replace(",", "")) for each in NUMBER.findall(word)] for word in (one, other)]
    return all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in zip(*values, strict=True))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=Path("workspace"), help="the one that `make demo` makes")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[each.name for each in PICTURES])
    parser.add_argument("--check", action="store_true", help="compare the pages with pictures.json; draw nothing")
    options = parser.parse_args(arguments)
    wanted = tuple(each for each in PICTURES if not options.only or each.name in options.only)
    chosen = tuple(each for each in wanted if each.compared) if options.check else wanted
    recorded = json.loads(MANIFEST.read_text(encoding="utf-8")) if MANIFEST.exists() else {}
    found = visit(options.workspace, chosen, draw=not options.check)
    if not options.check:
        kept = {each.name: (recorded | found).get(each.name) for each in PICTURES}
        MANIFEST.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    if not Workspace(options.workspace).names("certificate"):
        print("doctor: not compared, this workspace was not examined")
        found.pop("doctor", None)
    wrong = {name: differences(recorded[name]["text"], now["text"]) for name, now in found.items()}
    for name, lines in wrong.items():
        print(f"{name}: {'as drawn' if not lines else '; '.join(lines)}")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
