"""What a first visit costs over the wire, and libraries that are loaded only where they are used."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import READY, Visit, new_context, open_menu_page

pytestmark = pytest.mark.browser


@pytest.fixture
def first_visit(browser: Any, base: str) -> Iterator[Visit]:
    """A visitor with an empty cache."""
    context = new_context(browser, "light")
    yield Visit(context.new_page(), base)
    context.close()


def transferred(visit: Visit) -> Counter[str]:
    """Count the bytes of every answer as they come over the wire, from now on."""
    sizes: Counter[str] = Counter()
    network = visit.page.context.new_cdp_session(visit.page)
    network.send("Network.enable")
    network.on(
        "Network.loadingFinished", lambda event: sizes.update({event["requestId"]: int(event["encodedDataLength"])})
    )
    return sizes


def test_first_page_stays_far_below_two_megabytes(first_visit):
    sizes = transferred(first_visit)
    page = first_visit.open("/")
    page.wait_for_selector(".wb-card")
    assert 100_000 < sum(sizes.values()) < 1_000_000
    heavy = [url for url in first_visit.requests if any(each in url for each in ("plotly", "ag_grid"))]
    assert heavy == []
    assert first_visit.errors == []


@pytest.mark.parametrize("address", ["/heads/smollm2-135m", "/circuit/ioi"])
def test_a_page_with_figures_and_a_grid_stays_below_two_megabytes(first_visit, address):
    sizes = transferred(first_visit)
    page = first_visit.open(address)
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.wait_for_selector(".ag-row[row-index='0']")
    assert any("plotly.min.js" in url for url in first_visit.requests)
    assert 1_000_000 < sum(sizes.values()) < 2_000_000
    assert first_visit.errors == []


def test_a_feature_needs_no_library_of_figures(first_visit):
    sizes = transferred(first_visit)
    page = first_visit.open("/feature/demo/12")
    page.wait_for_selector("#feature-logits .wb-bin", state="attached")  # its panel is folded
    page.wait_for_selector(".ag-row[row-index='0']")
    assert not any("plotly.min.js" in url for url in first_visit.requests)
    assert sum(sizes.values()) < 1_500_000
    assert first_visit.errors == []


def test_a_grid_is_loaded_when_a_page_draws_one(first_visit):
    page = first_visit.open("/")
    open_menu_page(page, "features")
    page.wait_for_selector(".ag-row[row-index='0']")
    open_menu_page(page, "circuit")
    page.wait_for_selector(".wb-circuit-table .ag-row[row-index='0']")
    page.click(".wb-brand")
    page.wait_for_selector(f"{READY} .wb-card")
    assert first_visit.errors == []
    assert sum("dash_ag_grid.v" in url for url in first_visit.requests) == 1
