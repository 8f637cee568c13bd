"""On the prompt page a person asks which features an answer rests on, and follows one."""

import pytest

pytestmark = pytest.mark.browser


def test_features_behind_an_answer_are_one_click_away(visit, live):
    page = visit.open("/prompt?text=one+two+three&features=demo")
    page.wait_for_selector("#prompt-share-map .main-svg")
    page.fill("#prompt-answer", "Paris")
    page.click("#prompt-attribution")
    page.wait_for_function("document.querySelector('#prompt-feature-shares').innerText.includes('remainder')")
    assert live.calls[-2:] == [("feature_shares", "demo: Paris-"), ("shares", "Paris-")]
    lines = page.locator("#prompt-feature-shares .wb-feature-line")
    assert lines.count() == 5
    lines.nth(1).click()
    page.wait_for_function("location.pathname === '/feature/demo/7'")
    assert visit.errors == []


def test_patches_between_two_typed_prompts_are_drawn(visit, live):
    page = visit.open("/prompt")
    page.fill("#prompt-patch-clean", "one two three")
    page.fill("#prompt-patch-corrupt", "one four three")
    page.click("#prompt-patch-go")
    page.wait_for_selector("#prompt-patch-map .main-svg")
    assert live.calls[-1] == ("patch", "resid_pre denoise: Paris-Rome")
    assert "beyond the null" in page.inner_text("#prompt-patch-result").lower()
    page.fill("#prompt-patch-corrupt", "one")
    page.click("#prompt-patch-go")
    page.wait_for_function("document.querySelector('#prompt-patch-result').innerText.includes('reword')")
    assert visit.errors == []
