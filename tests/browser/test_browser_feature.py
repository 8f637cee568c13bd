"""Examples on the feature page by mouse and by key: a range of the histogram, the switches, tooltips."""

from typing import Any

import pytest
from conftest import Visit, list_by_number

pytestmark = pytest.mark.browser
EXAMPLES = "#feature-examples li"


def opened(visit: Visit) -> Any:
    page = visit.open("/feature/demo/12")
    page.wait_for_selector("#feature-histogram .wb-bin")
    page.wait_for_selector(EXAMPLES)
    return page


def heading(page: Any) -> str:
    return page.locator("#feature-examples h3").first.inner_text()


def test_a_click_or_a_drag_on_the_histogram_chooses_the_examples(visit: Visit):
    page = opened(visit)
    bars = page.locator("#feature-histogram .wb-bin")
    n = bars.count()
    page.locator("#feature-histogram .wb-bins").scroll_into_view_if_needed()
    where = page.locator("#feature-histogram .wb-bins").bounding_box()
    box = bars.nth(n // 2).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2)
    page.wait_for_function("document.querySelector('#feature-examples h3').innerText.startsWith('Activation')")
    assert "tokens of the recording" in heading(page)
    one = heading(page)
    page.mouse.move(where["x"] + where["width"] * 0.6, where["y"] + 30)
    page.mouse.down()
    page.mouse.move(where["x"] + where["width"] * 0.7, where["y"] + 50, steps=4)
    page.mouse.move(where["x"] + where["width"] - 3, where["y"] + 60, steps=4)
    page.mouse.up()
    page.wait_for_function("before => document.querySelector('#feature-examples h3').innerText !== before", arg=one)
    values = [float(text) for text in page.locator(EXAMPLES + " > .wb-value").all_inner_texts()]
    low, high = (float(part) for part in heading(page).split("\n")[0].removeprefix("Activation ").split()[0:3:2])
    assert values
    assert all(low <= value <= high for value in values)
    page.click("#feature-range-all")
    page.wait_for_function("document.querySelector('#feature-examples h3').innerText.startsWith('Strongest')")
    assert page.locator(EXAMPLES).count() == 18
    assert not visit.errors, visit.errors


def test_range_and_switches_by_key(visit: Visit):
    page = opened(visit)
    list_by_number(page)
    page.locator("#feature-range [role=slider]").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#feature-examples h3').innerText.startsWith('Activation')")
    window = len(page.locator(".wb-examples .wb-tokens").first.inner_text())
    page.locator("#feature-view input[value=context]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("n => document.querySelector('.wb-examples .wb-tokens')?.innerText.length < n", arg=window)
    page.locator("#feature-view input[value=snippet]").focus()
    page.keyboard.press("ArrowLeft")  # around to the last one
    page.wait_for_function("document.querySelector('#feature-examples').innerText.includes('Full text of the first 6')")
    page.keyboard.press("Tab")
    page.wait_for_function("document.activeElement.closest('#feature-scale') !== null")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#feature-scale input[value=list]').checked")
    page.locator("#feature-next").click()
    page.wait_for_function("document.querySelector('#feature-number').innerText === '#13'")
    assert page.locator("#feature-view input[value=document]").is_checked()  # the switches stay from feature to feature
    assert not visit.errors, visit.errors


def test_every_token_tells_activation_position_and_id(visit: Visit):
    page = opened(visit)
    page.locator(".wb-examples .wb-mark").first.focus()
    assert ", position " in page.evaluate("document.activeElement.dataset.tip")
    assert ", token " in page.evaluate("document.activeElement.getAttribute('aria-label')")
    silent = page.locator(".wb-examples .wb-tokens > span[data-at]").first
    silent.scroll_into_view_if_needed()
    box = silent.bounding_box()
    page.mouse.move(box["x"] + 6, box["y"] + 12)
    tip = page.locator(".wb-tip")
    strip = page.locator(".wb-examples .wb-tokens").first
    ids, first = strip.get_attribute("data-ids").split(","), int(strip.get_attribute("data-first"))
    at = int(silent.get_attribute("data-at"))
    assert tip.inner_text() == f"0, position {first + at}, token {ids[at]}"
    page.mouse.move(2, 2)
    assert tip.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_exported_page_opens_offline_in_both_schemes(visit: Visit, browser: Any, tmp_path: Any, scheme: str):
    page = visit.open("/feature/demo/1")
    page.click("summary:has-text('Download')")
    with page.expect_download() as download:
        page.click("#feature-export")
    path = tmp_path / "feature.html"
    download.value.save_as(path)
    context = browser.new_context(color_scheme=scheme, offline=True)
    alone = context.new_page()
    asked, said = [], []
    alone.on("request", lambda request: asked.append(request.url))
    alone.on("console", lambda message: said.append(message.text))
    alone.goto(path.as_uri())
    assert asked == [path.as_uri()]
    assert said == []
    assert alone.evaluate("window.pwned") is None
    assert "<img src=x onerror='window.pwned=1'>" in alone.locator("h2").first.inner_text()
    assert alone.locator(".wb-bin").count() > 20
    light = alone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    assert alone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_on_a_phone_panels_far_down_are_folded_until_pressed(visit: Visit):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = visit.open("/feature/demo/12")
    page.wait_for_selector(".wb-shut")
    assert page.evaluate("document.documentElement.scrollHeight") < 4 * 844
    first = page.locator(".wb-shut").first
    title = first.locator("h2").inner_text()
    button = first.locator(".wb-shutter")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    opened = page.locator(".wb-panel", has=page.locator("h2", has_text=title)).first
    assert opened.locator(".wb-shutter").get_attribute("aria-expanded") == "true"
    assert opened.bounding_box()["height"] > 60
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function("!document.querySelector('.wb-shut')")
    assert visit.errors == []
