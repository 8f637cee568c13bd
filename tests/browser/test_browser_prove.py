"""The panel *Prove it* in a browser: text, steering and ablation by mouse and keyboard, hostile tokens as text."""

import threading

from fake_live import FakeLive
from make_workspace import HOSTILE

FEATURE = "/feature/demo/12"


def answer(visit, which: str) -> str:
    visit.until(visit.page, f"document.querySelector('#prove-{which}-answer')?.innerText.trim()")
    return visit.page.inner_text(f"#prove-{which}-answer")


def test_the_three_questions_answer_with_their_controls(visit, live: FakeLive):
    page = visit.open(FEATURE)
    page.click("summary:has-text('Your text')")
    page.fill("#prove-read-text", "moved to July")
    page.click("#prove-read-go")
    assert "others of like density" in answer(visit, "read").replace("\n", " ")
    page.click("#prove-steer-go")
    shown = answer(visit, "steer")
    assert "random direction" in shown
    assert "unchanged" in shown
    page.click("#prove-steer-verdict")
    page.wait_for_selector("#prove-judge-answer >> text=39 of 39 random directions")
    page.wait_for_selector("#prove-judge-answer >> text=The next token shifts by 0.3 nats")
    assert answer(visit, "steer") == shown, "the verdict leaves the steered texts"
    page.click("summary:has-text('Ablate')")
    page.click("#prove-ablate-go")
    assert "random directions" in answer(visit, "ablate")
    assert ("read_text", "12: moved to July") in live.calls
    assert page.evaluate("window.hacked") is None
    assert HOSTILE[0].strip()[:8] in answer(visit, "ablate")
    assert visit.errors == []


def test_the_strength_follows_the_keyboard(visit, live: FakeLive):
    page = visit.open(FEATURE)
    page.focus("#prove-strength [role=slider]")
    page.keyboard.press("ArrowLeft")
    page.focus("#prove-steer-go")
    page.keyboard.press("Enter")
    answer(visit, "steer")
    before = page.get_attribute("#prove-steer-text", "placeholder")  # what stands before the peak of its example
    assert before
    assert live.calls[-1] == ("steer", f"12: {before} x 0.75")


def test_typed_text_survives_moving_to_another_feature(visit):
    page = visit.open(FEATURE)
    page.click("summary:has-text('Your text')")
    page.fill("#prove-read-text", "a text of my own")
    page.keyboard.press("Tab")
    page.wait_for_timeout(300)
    page.click("#feature-next")
    visit.until(page, "document.querySelector('#feature-number')?.innerText !== '#12'")
    visit.until(page, "document.querySelector('#prove-read-text')?.value === 'a text of my own'")


def test_only_the_panel_in_use_is_busy(visit, live: FakeLive, monkeypatch):
    asked, go = FakeLive.steer, threading.Event()

    def slow(*given):
        go.wait(20)
        return asked(*given)

    monkeypatch.setattr(FakeLive, "steer", slow)
    page = visit.open(FEATURE)
    page.set_viewport_size({"width": 1440, "height": 1000})
    box = page.locator("#prove-steer-go").bounding_box()
    assert box["y"] + box["height"] < 1000, "in sight without a scroll"
    page.click("#prove-steer-go")
    page.wait_for_selector("#prove-steer-answer[data-dash-is-loading=true]", state="attached")
    page.wait_for_timeout(400)  # longer than the delay of a spinner
    assert page.locator("[data-dash-is-loading=true]").count() == 1
    faint = "[...document.querySelectorAll('.wb-detail *')].filter(e => getComputedStyle(e).opacity === '0.45')"
    assert page.evaluate(f"{faint}.every(e => e.querySelector('#prove-steer-answer'))")
    assert page.evaluate(f"{faint}.every(e => !e.querySelector('#feature-examples'))")
    go.set()
    assert "unchanged" in answer(visit, "steer")
