"""Routes of a prompt in the browser: drawn from stored values, chosen, cut, swapped, listed and saved."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import wait_for_address
from make_routes import hostile, make_routes, write_routes
from test_browser_axe import axe_visit, violations  # noqa: F401 (a fixture)

from interp.routes.routes import Routes
from interp.workspace import Workspace

pytestmark = pytest.mark.browser

ARC, WORD = ".wb-arc[data-item]", ".wb-arc-word"
LONG = "In the spring of last year my old friend Alice from the north of Spain wrote me a letter on wine of France is"


@pytest.fixture(scope="module", autouse=True)
def stored(base_workspace: Workspace) -> Iterator[dict[str, Routes]]:
    """Three prompts: a planted one, the same in hostile texts, and a long one."""
    made = {"wild": hostile(), "long": make_routes(LONG), "capital": make_routes()}
    yield {name: write_routes(base_workspace, name, value) for name, value in made.items()}
    for name in made:
        shutil.rmtree(base_workspace.path("routes", name))


def opened(visit: Any, name: str = "capital") -> Any:
    page = visit.open(f"/prompt?routes={name}")
    page.wait_for_selector(ARC)
    return page


def choose(page: Any, key: str) -> Any:
    """Choose an arc or a word, and return what is then shown of it."""
    page.locator(f"[data-item='{key}']").dispatch_event("click")
    page.wait_for_selector(".wb-route-parts")
    return page.locator(".wb-route-open")


def test_stored_routes_are_drawn_without_a_model_and_usual_ones_wait(visit, live):
    before = len(live.calls)
    page = opened(visit)
    assert page.locator("#prompt-text").input_value() == "The capital of France is"
    assert page.locator(WORD).count() == 5
    assert {*page.locator(ARC).evaluate_all("all => all.map(arc => arc.dataset.item)")} == {
        *("3-4", "1-4", "1-3", "2-4", "1-2")
    }
    spoken = page.locator("[data-item='3-4']").get_attribute("aria-label")
    assert spoken == "France tells is, 4.1 nats, layers 20 to 24, Paris, City, metro"
    assert page.locator(".wb-arc-against[data-item*='-']").get_attribute("data-item") == "2-4"
    widths = page.locator(".wb-arc-line").evaluate_all(
        "all => all.map(line => [line.parentNode.dataset.item, +line.getAttribute('stroke-width')])"
    )
    assert [key for key, _ in sorted(widths, key=lambda row: -row[1])] == ["3-4", "1-4", "1-3", "2-4", "1-2"]
    assert "Paris 38.0%" in page.locator(".wb-arc-answer").text_content()
    page.get_by_role("button", name="2 more, 2 usual").click()
    assert page.locator(ARC).count() == 7
    page.get_by_role("button", name="Fewer").click()
    assert page.locator(ARC).count() == 5
    assert live.calls[before:] == []
    assert visit.errors == visit.outside == []


def test_an_arc_opens_its_layers_heads_words_and_swap_and_is_cut(visit):
    page = opened(visit)
    said = choose(page, "3-4").inner_text()
    for part in ("France → is", "layers 20 to 24", "L20H3", "Paris, City, metro", "null 4.2", "capitals", "Rome"):
        assert part in said
    assert page.locator(".wb-route-parts a[href='/head/smollm2-135m/L20H3']").count() == 1
    assert page.locator(".wb-route-parts a[href='/feature/demo/5']").count() == 1
    page.get_by_label("cut it in the picture").check()
    assert "the 31.0%" in page.locator(".wb-arc-answer").text_content()
    assert page.locator(".wb-arc.wb-arc-cut").get_attribute("data-item") == "3-4"
    assert "What it adds" in choose(page, "3").inner_text()
    assert "Paris 38.0%" in page.locator(".wb-arc-answer").text_content(), "another choice cuts nothing"
    page.locator(".wb-route-parts").get_by_role("button", name="France → is").click()
    assert "In which layers" in page.locator(".wb-route-open").inner_text()


def test_a_word_is_swapped_and_what_fails_stands_beside_the_field(visit, live):
    page = opened(visit)
    choose(page, "3-4")
    page.get_by_label("Swap France with").fill("Spain")
    page.keyboard.press("Enter")
    page.wait_for_selector(".wb-route-swap >> text=Spain: it flips and says of Spain")
    assert page.locator(".wb-route-swap").count() == 2, "the stored swap stays"
    assert live.calls[-1] == ("swap_route", "3-4 Spain")
    page.get_by_label("Swap France with").fill("San Marino")
    page.get_by_role("button", name="Swap", exact=True).click()
    page.wait_for_selector("text=the word has 3 tokens, France one")


def test_a_route_that_was_not_examined_is_measured_on_demand(visit, live):
    page = opened(visit)
    choose(page, "1-2")
    page.get_by_role("button", name="Measure").click()
    page.wait_for_selector(".wb-route-parts figure")
    assert live.calls[-1] == ("route", "1-2")


def test_a_prompt_is_answered_step_by_step_and_what_was_measured_stays_where_it_is_stopped(visit):
    page = visit.open("/prompt?text=The+capital+of+France+is&model=smollm2-135m")
    page.wait_for_selector(f"#prompt-routes {ARC} >> text=layers 20 to 24")
    assert "Paris" in page.locator(".wb-routes-sentence").inner_text()
    choose(page, "3")
    page.wait_for_selector("#prompt-tokens .wb-tok:nth-child(5)[aria-selected=true]")
    page.fill("#prompt-text", "Very slowly the capital of France is")
    page.click("#prompt-go")
    page.wait_for_selector(f"#prompt-routes {WORD} >> text=slowly")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=Stopped: what was measured stays.")
    assert page.locator(WORD).count() == 7
    assert page.locator(ARC).count() == 0
    page.click("#prompt-go")
    page.wait_for_selector(ARC)
    page.fill("#prompt-answer", "Rome")
    page.press("#prompt-answer", "Enter")
    page.wait_for_selector("#prompt-routes .wb-arc-answer >> text=Rome")
    page.get_by_text("How few are enough").click()
    assert "2 of 10 edges" in page.locator(".wb-routes > details").inner_text()
    assert visit.errors == []


def test_keys_reach_words_and_arcs_enter_opens_and_escape_closes(visit):
    page = opened(visit)
    assert page.locator(".wb-arcs [tabindex='0']").count() == 1
    here = "document.activeElement.dataset.item"
    page.locator(f"{WORD}[data-item='4']").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(here) == "3"
    page.keyboard.press("ArrowUp")
    arc = page.evaluate(here)
    assert "3" in arc.split("-")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(here) == arc.split("-")[1]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_selector(".wb-route-parts")
    assert page.locator("[data-item][aria-expanded='true']").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".wb-route-open").is_hidden()
    assert "-" in page.evaluate(here)


def test_the_table_says_the_same_and_the_picture_is_saved(visit):
    page = opened(visit)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as SVG").click()
    text = download.value.path().read_text()
    assert download.value.suggested_filename == "routes.svg"
    assert "Paris, City, metro" in text
    assert "rgb(26, 102, 214)" in text, "the colours are in the file"
    page.get_by_role("button", name="Table").click()
    rows = page.locator(".wb-routes tbody tr")
    assert rows.count() == 5
    assert "Paris, City, metro" in rows.first.inner_text()
    rows.first.get_by_role("button").click()
    page.wait_for_selector(".wb-route-parts")
    page.get_by_role("button", name="Picture").click()
    page.wait_for_selector(ARC)


@pytest.mark.parametrize("name", ["capital", "wild", "long"])
def test_a_narrow_screen_shows_the_end_and_the_page_scrolls_nowhere(visit, name):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = opened(visit, name)
    choose(page, "3-4" if name != "long" else page.locator(ARC).first.get_attribute("data-item"))
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth + 1")
    answer = page.locator(".wb-arc-answer").bounding_box()
    assert 0 <= answer["x"] + answer["width"] <= 390


def test_a_long_prompt_leaves_out_words_far_from_its_arcs(visit):
    page = opened(visit, "long")
    shown = page.locator(WORD).count()
    assert 5 <= shown < len(LONG.split())
    assert page.locator(".wb-arc-left").count() == 1
    assert visit.errors == []


def test_texts_are_texts_and_break_no_rule_of_axe(axe_visit):  # noqa: F811
    page = opened(axe_visit, "wild")
    choose(page, "3-4")
    assert page.evaluate("window.pwned") is None
    assert page.locator(".wb-routes :is(script, img, b)").count() == 0
    assert violations(page) == []
    page.get_by_role("button", name="Table").click()
    assert violations(page) == []


def test_the_overview_draws_one_and_names_the_others(visit):
    page = visit.open("/")
    page.wait_for_selector(f".wb-told {ARC}")
    assert "Paris" in page.locator(".wb-told .wb-routes").inner_text()
    assert page.locator(".wb-ask-others a").count() == 2
    page.locator(".wb-ask-others a").first.click()
    wait_for_address(page, "/prompt?routes=")
    page.wait_for_selector(f"#prompt-routes {ARC}")
    assert visit.errors == []
