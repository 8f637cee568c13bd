"""What a person does: along the features, a prompt, a head on a prompt."""

import re

import pytest
from conftest import list_by_number, settle, wait_for_address

pytestmark = pytest.mark.browser

FIRST_LABEL = """document.querySelector(".ag-row[row-index='0'] [col-id=label]")"""


def number(page) -> int:
    """The feature that is shown."""
    return int(page.locator("#feature-number").inner_text().removeprefix("#"))


def wait_for_feature(page, index: int) -> None:
    page.wait_for_function(f"document.querySelector('#feature-number')?.innerText === '#{index}'")


def test_keys_and_buttons_walk_along_the_features_and_back_returns(visit):
    page = visit.open("/feature/demo/12")
    wait_for_feature(page, 12)
    list_by_number(page)
    page.click("#feature-next")
    wait_for_feature(page, 13)
    page.locator("body").press("j")
    wait_for_feature(page, 14)
    page.locator("body").press("ArrowLeft")
    wait_for_feature(page, 13)
    wait_for_address(page, end="/feature/demo/13")
    page.go_back()
    wait_for_feature(page, 14)
    page.go_back()
    wait_for_feature(page, 13)
    assert visit.errors == []


def test_going_to_a_number_and_past_the_end(visit):
    page = visit.open("/feature/demo/12")
    page.fill("#feature-jump", "239")
    page.press("#feature-jump", "Enter")
    wait_for_feature(page, 239)
    list_by_number(page)
    page.click("#feature-next")
    settle(page)
    assert number(page) == 239
    page.fill("#feature-jump", "5000")
    page.press("#feature-jump", "Enter")
    page.wait_for_selector("#error-strip:not([hidden])")
    assert "0 to 239" in page.locator("#error-text").inner_text()
    page.click("#error-close")
    page.wait_for_selector("#error-strip", state="hidden")


def test_list_filters_sorts_and_opens(visit):
    page = visit.open("/feature/demo/12")
    page.wait_for_selector(".ag-row[row-index='0']")
    page.fill("#feature-search", "prose about is")
    page.wait_for_function(
        "document.querySelector(\".ag-row[row-index='0'] [col-id=label]\")?.innerText.includes('about is')"
    )
    page.click(".ag-header-cell[col-id=density]")
    settle(page)
    page.wait_for_timeout(400)
    column = page.locator(".ag-row [col-id=density]").all_inner_texts()
    densities = [float(text.rstrip("%")) for text in column if text]
    assert densities == sorted(densities, reverse=True)
    row = page.locator(".ag-row[row-index='1']")
    index = int(row.locator("[col-id=feature]").inner_text())
    row.locator("[col-id=label]").click()
    wait_for_feature(page, index)
    wait_for_address(page, "q=prose")


def test_address_restores_search_and_range(visit):
    page = visit.open("/feature/demo/12?q=about+the&d=-3%2C-1")
    page.wait_for_selector(".ag-row[row-index='0']")
    assert page.input_value("#feature-search") == "about the"
    page.wait_for_function(FIRST_LABEL + "?.innerText.includes('about the')")
    labels = page.locator(".ag-row [col-id=label]").all_inner_texts()
    assert all("about the" in label for label in labels if label)
    wait_for_feature(page, 12)
    wait_for_address(page, "d=-3%2C-1")


def test_a_prompt_is_read_and_its_features_lead_on(visit, live):
    page = visit.open("/prompt")
    live.calls.clear()
    page.fill("#prompt-text", "one two <b>three</b>")
    page.press("#prompt-text", "Control+Enter")
    page.wait_for_selector("#prompt-lens canvas")
    page.wait_for_selector("#prompt-pattern canvas")
    assert ("read", "one two <b>three</b>") in live.calls
    page.wait_for_function("location.search.includes('text=one+two')")
    assert page.locator("#prompt-tokens .wb-tokens").inner_text().endswith("<b>three</b>")
    page.locator(".wb-fired a").nth(3).click()
    page.wait_for_url(re.compile(r"/feature/demo/\d+"))
    assert visit.errors == []


@pytest.mark.parametrize(("text", "says"), [("", "the prompt is empty"), ("a" * 4100, "shorten the prompt")])
def test_a_prompt_that_cannot_be_read_says_why(visit, text, says):
    page = visit.open("/prompt")
    page.fill("#prompt-text", text)
    page.click("#prompt-go")
    page.wait_for_selector("#prompt-error .wb-notice-error")
    assert says in page.locator("#prompt-error").inner_text()


def test_click_on_a_head_shows_it_on_a_prompt(visit, live):
    page = visit.open("/heads/smollm2-135m")
    page.wait_for_selector("#heads-map .main-svg")
    live.calls.clear()
    box = page.locator("#heads-map .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.4, steps=3)
    page.mouse.click(box["x"] + box["width"] * 0.62, box["y"] + box["height"] * 0.42)
    page.wait_for_selector("#heads-pattern-graph .main-svg")
    assert live.calls == [("pattern", "L3H2")]
    assert page.locator("#heads-pattern-title").inner_text() == "L3H2 on a prompt"
    wait_for_address(page, "head=L3H2")
    page.locator("#heads-grid .ag-row[row-index='0'] [col-id=name]").click()
    page.wait_for_function("!document.querySelector('#heads-pattern-title').innerText.includes('L3H2')")


def test_other_scores_change_map_and_table(visit):
    page = visit.open("/heads/smollm2-135m")
    page.wait_for_selector(".ag-row[row-index='0']")
    page.get_by_text("first token", exact=True).click()
    page.wait_for_function("document.querySelector('#heads-lead').innerText.includes('first-token heads')")
    wait_for_address(page, "kind=first_token")


def test_a_read_that_fails_inside_is_said_in_the_page(visit, live, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("wires crossed")

    page = visit.open("/prompt")
    monkeypatch.setattr(live, "read_prompt", fail)
    page.click("#prompt-go")
    page.wait_for_selector("#prompt-error .wb-notice-error")
    visit.errors.clear()  # the browser notes the status of the answer
    assert "RuntimeError: wires crossed" in page.locator("#prompt-error").inner_text()
