"""Keys, the banner of a server that is gone, and the tour."""

import contextlib
from urllib.parse import urlsplit

import pytest
from conftest import Visit, new_context, open_menu_page, serving, wait_for_address

pytestmark = pytest.mark.browser


def test_arrow_keys_walk_the_tokens_of_a_text_and_show_their_values(visit):
    page = visit.open("/feature/demo/12")
    page.wait_for_selector(".wb-examples .wb-mark")
    strips = "[...document.querySelectorAll('.wb-examples .wb-tokens')]"
    several = f"{strips}.find(each => each.querySelectorAll('.wb-mark').length > 1)"
    stops = f"{strips}.map(each => each.querySelectorAll('.wb-mark[tabindex=\"0\"]').length)"
    assert set(page.evaluate(stops)) == {1}
    page.evaluate(f"{several}.querySelector('.wb-mark').focus()")
    page.keyboard.press("ArrowRight")
    place = f"[...{several}.querySelectorAll('.wb-mark')].indexOf(document.activeElement)"
    assert page.evaluate(place) == 1
    shown = page.evaluate("getComputedStyle(document.activeElement, '::after').content")
    assert shown.strip('"') == page.evaluate("document.activeElement.dataset.tip")
    page.keyboard.press("Home")
    assert page.evaluate(place) == 0
    wait_for_address(page, end="/feature/demo/12")
    assert set(page.evaluate(stops)) == {1}


def test_enter_opens_the_row_of_a_grid(visit):
    page = visit.open("/feature/demo/12")
    row = page.locator(".ag-row[row-index='1']")
    row.wait_for()
    index = row.locator("[col-id=feature]").inner_text()
    page.locator(".ag-row[row-index='0'] [col-id=label]").click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('#feature-number')?.innerText === '#{index}'")


def test_help_lists_every_key_and_starts_the_tour(visit):
    page = visit.open("/notes")
    page.locator("body").press("?")
    page.wait_for_selector(".wb-keys")
    page.keyboard.press("Escape")
    page.wait_for_selector(".wb-keys", state="hidden")
    page.locator("body").press("?")
    page.wait_for_selector(".wb-keys")
    listed = " ".join(page.locator(".wb-keys kbd").all_inner_texts()).split()
    for key in ("/", "Ctrl", "K", "f", "j", "k", "r", "s", "t", "?", "Enter", "Tab", "arrows", "Esc", "+", "-", "0"):
        assert key in listed, key
    page.click("#help-tour")
    page.wait_for_selector("#tour:not([hidden])")
    page.click("#tour-close")
    page.wait_for_selector("#tour", state="hidden")


def test_the_palette_finds_pages_features_artefacts_and_notes_by_keys(visit):
    page = visit.open("/notes")
    field, options = page.locator(".wb-palette input"), page.locator(".wb-palette [role=option]")

    def typed(text: str) -> list[str]:
        field.fill(text)
        page.wait_for_function(f"document.querySelector('.wb-palette li:last-child').innerText.includes({text!r})")
        return options.all_inner_texts()

    page.keyboard.press("Control+k")
    page.wait_for_function("document.querySelectorAll('.wb-palette li').length > 18")
    assert field.evaluate("input => input === document.activeElement")
    assert any("embeddings" in each for each in typed("embed"))
    typed("12")
    options.filter(has_text="#12").first.wait_for()
    assert typed("atl")[0].startswith("Atlas")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert field.get_attribute("aria-activedescendant") == options.first.get_attribute("id")
    typed("zzz qqq")
    page.wait_for_function("document.querySelector('.wb-palette [role=status]').innerText.startsWith('No page')")
    page.keyboard.press("Escape")
    page.wait_for_selector(".wb-palette", state="hidden")
    page.keyboard.press("Control+k")
    typed("glossary")
    page.keyboard.press("Enter")
    page.wait_for_function("location.pathname === '/glossary'")
    assert page.locator(".wb-palette").is_hidden()
    assert visit.errors == []


def test_tour_is_shown_at_the_first_visit_leads_on_and_stays_dismissed(fresh_visit):
    page = fresh_visit.open("/")
    for step, words in enumerate(("word", "feature", "prompt", "map"), 1):
        page.wait_for_function(f"document.querySelector('#tour strong').innerText.startsWith('Tour, {step} of 4')")
        assert words in page.locator("#tour strong").inner_text()
        if step == 2:
            page.click("#tour a")
            page.wait_for_selector("#feature-number")
        page.click("#tour-next")
    page.wait_for_selector("#tour", state="hidden")
    page = fresh_visit.open("/")
    assert page.locator("#tour").is_hidden()
    assert fresh_visit.errors == []


def test_banner_says_that_the_server_is_gone_and_goes_when_it_is_back(browser, base_workspace, live):
    with contextlib.closing(new_context(browser, "light")) as context:
        with serving(base_workspace, live) as address:
            page = Visit(context.new_page(), address).open("/")
            assert page.locator("#server-gone").is_hidden()
        open_menu_page(page, "changes")
        page.wait_for_selector("#server-gone:not([hidden])")
        said = page.locator("#server-gone").inner_text()
        assert "serve --workspace" in said
        assert f"--port {urlsplit(address).port}" in said
        with serving(base_workspace, live, port=urlsplit(address).port):
            page.wait_for_selector("#server-gone", state="hidden")
