"""The page *Compare* as a visitor uses it: by mouse and by keyboard, in both schemes, on a narrow screen."""

from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import Visit

pytestmark = pytest.mark.browser

BOTH = "/compare?a=demo:3&b=demo:6"


def test_two_names_typed_by_keyboard_are_compared(visit: Visit):
    page = visit.open("/compare")
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


def test_swapping_keeps_both(visit: Visit):
    page = visit.open(BOTH)
    page.get_by_role("link", name="swap").click()
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query) == {"a": ["demo:6"], "b": ["demo:3"]})
    page.locator(".wb-compare-examples").first.wait_for()


def test_a_name_that_is_not_there_leaves_the_form_to_correct_it(visit: Visit):
    page = visit.open("/compare?a=demo:3&b=demp:6")
    assert "did you mean 'demo'" in page.locator(".wb-notice-error").inner_text()
    assert page.get_by_label("with", exact=True).first.input_value() == "demp:6"


def test_what_cannot_be_measured_is_said_and_the_rest_stays(fresh_visit: Visit):
    """The synthetic dictionary has no weights."""
    page = fresh_visit.open(BOTH)
    page.get_by_text("Not measured:").first.wait_for()
    page.locator(".wb-compare-examples").first.wait_for()
    assert page.locator("#error-strip").is_hidden()
    assert page.evaluate("window.pwned") is None
    assert fresh_visit.errors == []
