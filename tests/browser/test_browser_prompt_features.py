"""On the prompt page a person asks which features an answer rests on, and follows one."""

import pytest

pytestmark = pytest.mark.browser


def test_features_behind_an_answer_are_one_click_away(visit, live):
    page = visit.open("/prompt?text=one+two+three&features=demo")
    page.wait_for_selector("#prompt-share-map .main-svg")
    page.fill("#prompt-answer", "Paris")
    page.click("#prompt-rests")
    page.wait_for_function("document.querySelector('#prompt-feature-shares').innerText.includes('remainder')")
    assert live.calls[-2:] == [("feature_shares", "demo: Paris-"), ("shares", "Paris-")]
    lines = page.locator("#prompt-feature-shares .wb-feature-line")
    assert lines.count() == 5
    lines.nth(1).click()
    page.wait_for_function("location.pathname === '/feature/demo/7'")
    assert visit.errors == []
