"""Twenty thousand to a million points by real mouse events. Limits are loose: a busy machine is not a failure."""

from collections.abc import Iterator

import pytest
from conftest import serving

from benchmarks.atlas_view import LONGEST, WATCH, write_map
from interp.workspace import Workspace

pytestmark = pytest.mark.browser

VIEW = "document.querySelector('.atlas').atlasView"
SIZES = [20_000, pytest.param(100_000, marks=pytest.mark.slow), pytest.param(1_000_000, marks=pytest.mark.slow)]
LONGEST_FRAME = 2000
"""Milliseconds. On an idle machine a frame of a million points takes a tenth; Plotly's took 20,000."""


@pytest.fixture(scope="session")
def maps(tmp_path_factory: pytest.TempPathFactory, base: str, live) -> Iterator[tuple[Workspace, str]]:
    """A workspace that maps are put into, and the address of its dashboard."""
    workspace = Workspace(tmp_path_factory.mktemp("large") / "workspace", create=True)
    with serving(workspace, live) as address:
        yield workspace, address


@pytest.mark.parametrize("n", SIZES)
def test_many_points_are_dragged_zoomed_pointed_at_selected_and_searched(visit, maps, n):
    workspace, visit.base = maps
    write_map(workspace, f"m{n}", n)
    page = visit.page
    page.set_default_timeout(90_000)
    page.goto(f"{visit.base}/atlas/m{n}")
    page.wait_for_selector(".atlas-place > .atlas[data-prepared]")
    box = page.locator(".atlas-live").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    page.mouse.move(x, y)
    page.evaluate(WATCH)
    page.mouse.down()
    page.mouse.move(x + 120, y + 60, steps=15)
    page.mouse.up()
    assert page.evaluate(LONGEST) < LONGEST_FRAME
    page.wait_for_function(f"!{VIEW}.moving && {VIEW}.root.dataset.detail === 'full'")

    place = page.evaluate(f"{VIEW}.place({n // 2})")
    page.evaluate("(at) => { %s.set({at: `${at[0]},${at[1]},0.4`}); }" % VIEW, place)  # noqa: UP031 - braces of its own
    page.wait_for_function(f"!{VIEW}.moving && {VIEW}.visitor.pointAt({box['width'] / 2}, {box['height'] / 2}) >= 0")
    page.mouse.move(x - 2, y)
    page.mouse.move(x, y)
    page.wait_for_function(
        f"""(at) => {{
            const tip = document.querySelector('.atlas-tip:not([hidden])'), point = {VIEW}.visitor.pointAt(...at);
            return tip && tip.dataset.point === String(point)
                && tip.querySelector('.atlas-tip-label').innerText.trim() === `token ${{point}}`;
        }}""",
        arg=[box["width"] / 2, box["height"] / 2],
    )

    page.evaluate(f"{VIEW}.visitor.zoom('all')")
    page.keyboard.down("Shift")
    page.mouse.move(x - 200, y - 150)
    page.mouse.down()
    for dx, dy in ((200, -150), (200, 150), (-200, 150)):
        page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_function(
        "document.querySelector('#atlas-table-title')?.innerText.startsWith('Chosen')", timeout=60_000
    )
    bright = page.evaluate(f"{VIEW}.bright")
    assert 0 < bright < n
    assert page.locator("#atlas-table-title").inner_text() == f"Chosen points: {bright:,}"  # both count the same

    page.locator(".atlas-clear").first.click()
    page.fill(".atlas-search", "token 1234")
    found = sum(str(i).startswith("1234") for i in range(n))
    page.wait_for_function(f"{VIEW}.bright === {found}")
    texts = [url for url in visit.requests if "texts.json" in url]
    assert 0 < len(texts) < 60  # labels are asked for by number, never all
    assert not any("label.bin" in url for url in visit.requests)
    assert visit.outside == []
    assert visit.errors == []
