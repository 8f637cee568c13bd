"""Find features from any page by keyboard and by mouse, walk the hits, filter them, and come back."""

import pytest
from conftest import Visit


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path_factory.getbasetemp() / "browser-search-cache"))


def found(visit: Visit) -> None:
    visit.page.wait_for_selector("a.wb-hit")


def test_a_word_is_found_from_any_page_by_keyboard_alone(visit):
    page = visit.open("/heads")
    page.keyboard.press("/")
    page.keyboard.type("river")
    page.keyboard.press("Enter")
    found(visit)
    page.wait_for_function("location.pathname === '/search' && location.search === '?q=river'")
    assert page.locator(".wb-matches").first.inner_text().strip().startswith("river")
    assert "match" in page.locator(".wb-strength").first.inner_text()
    assert not page.locator(".wb-hit-stats ul").first.is_visible()
    page.locator(".wb-hit-stats summary").first.click()
    assert "a random feature" in page.locator(".wb-hit-stats ul").first.inner_text()  # the null
    page.locator("h1").first.click()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.wait_for_function("document.activeElement.matches('li:first-child a.wb-hit')")
    where = page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("Enter")
    page.wait_for_function(f"location.pathname === {where!r}")
    page.go_back()
    found(visit)
    assert page.locator("#find-box").input_value() == "river"
    assert visit.errors == []


def test_a_filter_is_kept_in_the_address_and_by_the_next_search(visit):
    page = visit.open("/search?q=river")
    found(visit)
    page.locator("#search-in").click()
    page.get_by_role("option", name="neurons · neurons:blocks.9.mlp.hook_post").click()
    page.wait_for_function("location.search === '?q=river&in=neurons'")
    hits = "[...document.querySelectorAll('a.wb-hit')].map(a => a.getAttribute('href'))"
    page.wait_for_function(f"{hits}.length > 0 && {hits}.every(href => href.startsWith('/feature/neurons/'))")
    page.locator("#find-box").fill("city")
    page.keyboard.press("Enter")
    page.wait_for_function("location.search === '?q=city&in=neurons'")
    assert visit.errors == []


def test_hostile_queries_and_tokens_stay_text(visit):
    page = visit.open("/search?q=%3Cscript%3Ewindow.pwned%3D1%3C%2Fscript%3E")
    found(visit)
    assert page.evaluate("window.pwned") is None
    assert "<script>" in page.locator(".wb-matches").first.inner_text()
    assert visit.errors == []


def test_an_empty_search_says_how_to_search(visit):
    page = visit.open("/search")
    page.wait_for_selector(".wb-find-examples")
    page.get_by_role("link", name="January April August").click()
    page.wait_for_function("location.search.includes('April')")
    assert visit.errors == []


@pytest.mark.parametrize("width", [360, 3000])
def test_the_page_fits(visit, width):
    page = visit.page
    page.set_viewport_size({"width": width, "height": 740})
    visit.open("/search?q=river")
    found(visit)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#find-box").focus()
    box = page.locator("#find-box").bounding_box()
    assert box["width"] > 150  # in a narrow window it grows while one types
    assert 0 <= box["x"] <= box["x"] + box["width"] <= width


def test_the_local_search_has_its_own_key(visit):
    page = visit.open("/feature/demo/3")
    page.keyboard.press("f")
    page.wait_for_function("document.activeElement.id === 'feature-search'")
