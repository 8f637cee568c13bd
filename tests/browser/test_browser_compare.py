"""The page *Compare* as a visitor uses it: by mouse and by keyboard, in both schemes, on a narrow screen."""

from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import Visit, wait_for_address

pytestmark = pytest.mark.browser

BOTH = "/compare?a=demo:3&b=demo:6"


def test_two_names_typed_by_keyboard_are_compared(visit: Visit):
    page = visit.open("/compare")
    page.get_by_text("Choose two features").wait_for()
    page.get_by_label("Compare", exact=True).first.focus()
    page.keyboard.type("demo:3")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    page.keyboard.type("demo:6")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".wb-compare-examples").first.wait_for()
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query) == {"a": ["demo:3"], "b": ["demo:6"]})
    assert page.locator(".wb-compare-examples").count() == 2
    assert visit.errors == []
    assert visit.outside == []


def test_partners_are_proposed_and_swapping_keeps_both(visit: Visit):
    page = visit.open("/compare?a=demo:3")
    page.get_by_text("neighbour, cosine").first.wait_for()
    page.locator(".wb-lines a").first.click()
    page.locator(".wb-compare-examples").first.wait_for()
    wait_for_address(page, "b=")
    before = parse_qs(urlsplit(page.url).query)
    page.get_by_role("link", name="swap").click()
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query) == {"a": before["b"], "b": before["a"]})
    page.locator(".wb-compare-examples").first.wait_for()


def test_a_name_that_is_not_there_leaves_the_form_to_correct_it(visit: Visit):
    page = visit.open("/compare?a=demo:3&b=demp:6")
    assert "did you mean 'demo'" in page.locator(".wb-notice-error").inner_text()
    assert page.get_by_label("with", exact=True).first.input_value() == "demp:6"


def test_a_word_in_place_of_a_name_proposes_features_and_keeps_the_other(visit: Visit):
    page = visit.open("/compare?a=demo:3&b=river")
    page.get_by_role("heading", name="Features for river").wait_for()
    page.locator(".wb-lines a").first.click()
    page.locator(".wb-compare-examples").first.wait_for()
    address = parse_qs(urlsplit(page.url).query)
    assert address["a"] == ["demo:3"]
    assert address["b"][0].startswith("demo:")


def test_what_cannot_be_measured_is_said_and_the_rest_stays(fresh_visit: Visit):
    """The synthetic dictionary has no weights."""
    page = fresh_visit.open(BOTH)
    page.get_by_text("Not measured:").first.wait_for()
    page.get_by_role("cell", name="shared promoted tokens").wait_for()
    assert page.locator("#error-strip").is_hidden()
    assert page.evaluate("window.pwned") is None
    assert fresh_visit.errors == []
