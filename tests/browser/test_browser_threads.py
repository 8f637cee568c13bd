"""Back returns to the same scroll and the same selection, on the way from page to page."""

from urllib.parse import unquote

import pytest
from conftest import open_menu_page, wait_for_address

pytestmark = pytest.mark.browser
AT = "Math.round(window.scrollY)"
LIST = "document.querySelector('#feature-grid .ag-body-viewport').scrollTop"
CHOSEN = "document.querySelector('#feature-grid .ag-row-selected')?.getAttribute('row-id')"


def test_back_from_a_feature_returns_to_the_list_where_it_was(visit):
    page = visit.open("/feature/demo/3")
    page.wait_for_selector("#feature-grid .ag-row[row-index='0']")
    page.evaluate("document.querySelector('#feature-grid .ag-body-viewport').scrollTop = 3600")
    # A row has an id once the server has answered; before that a click on it opens nothing.
    row = page.locator("#feature-grid .ag-row[row-index='125'][row-id]").first
    chosen = row.get_attribute("row-id")
    row.locator(".ag-cell").first.click()
    page.wait_for_selector(f"#feature-number:has-text('#{chosen}')")
    page.evaluate("window.scrollTo(0, 700)")
    page.wait_for_timeout(200)
    top = page.evaluate(LIST)
    neighbour = page.locator(".wb-lines .wb-feature-line").first
    href = neighbour.get_attribute("href")
    neighbour.evaluate("link => link.click()")
    page.wait_for_selector(f"#feature-number:has-text('#{href.rpartition('/')[2]}')")
    page.go_back()
    page.wait_for_selector(f"#feature-number:has-text('#{chosen}')")
    page.wait_for_function(f"Math.abs({LIST} - {top}) < 3")
    page.wait_for_function(f"Math.abs({AT} - 700) < 3")
    page.wait_for_function(f"{CHOSEN} === '{chosen}'")
    page.go_back()
    page.wait_for_selector("#feature-number:has-text('#3')")
    assert visit.errors == []


def test_back_from_a_feature_returns_to_the_selection_on_the_map(visit):
    page = visit.open("/atlas/demo-features?selection=points:3,14,15,92&point=14")
    page.wait_for_selector("#atlas-table-title:has-text('Chosen points: 4')")
    page.evaluate("window.scrollTo(0, 200)")
    page.wait_for_timeout(200)
    before = page.url
    page.locator("#atlas-chosen a", has_text="Open the feature").evaluate("link => link.click()")
    page.wait_for_selector("#feature-number")
    page.go_back()
    page.wait_for_selector("#atlas-table-title:has-text('Chosen points: 4')")
    page.wait_for_selector("#atlas-chosen .wb-chosen")
    page.wait_for_url(lambda url: unquote(url) == unquote(before))
    page.wait_for_function(f"Math.abs({AT} - 200) < 3")
    assert visit.errors == []


def test_back_from_a_prompt_returns_to_the_head(visit):
    page = visit.open("/heads/smollm2-135m?kind=previous_token&head=L1H2&text=one+two+three")
    link = page.locator("#heads-pattern a", has_text="Open this prompt")
    link.wait_for()
    page.evaluate("window.scrollTo(0, 420)")
    page.wait_for_timeout(200)
    before, at = page.url, page.evaluate(AT)
    assert at > 100
    link.evaluate("link => link.click()")
    page.wait_for_selector("#prompt-tokens .wb-tok")
    page.wait_for_function(f"{AT} < 50")
    page.go_back()
    page.wait_for_selector("#heads-pattern-title:has-text('L1H2')")
    page.wait_for_function(f"Math.abs({AT} - {at}) < 3")
    wait_for_address(page, end=before)
    page.wait_for_function("document.querySelector('#heads-kind input:checked')?.value === 'previous_token'")
    page.go_forward()
    page.wait_for_selector("#prompt-tokens .wb-tok")
    wait_for_address(page, "head=2")
    wait_for_address(page, "layer=1")
    assert visit.errors == []


def test_a_reload_keeps_the_place_and_a_new_visit_starts_at_the_top(visit):
    page = visit.open("/feature/demo/5")
    page.wait_for_selector("#feature-number")
    page.evaluate("window.scrollTo(0, 500)")
    page.wait_for_timeout(200)
    page.reload()
    page.wait_for_selector("#feature-number")
    page.wait_for_function(f"Math.abs({AT} - 500) < 3")
    open_menu_page(page, "circuit")
    page.wait_for_selector("#circuit-graph")
    page.wait_for_function(f"{AT} === 0")
    open_menu_page(page, "features")
    page.wait_for_selector("#feature-number")
    page.wait_for_timeout(500)
    assert page.evaluate(AT) == 0
    assert visit.errors == []
