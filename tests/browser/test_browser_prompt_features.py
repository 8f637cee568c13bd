"""On the prompt page: one selection by mouse and by keys, an answer and its features, a lens, a continuation."""

from dataclasses import replace

import pytest
from make_workspace import N_LAYERS

from saes.acts.writing import ContinuePrompt

pytestmark = pytest.mark.browser


READ = "/prompt?text=one+two+three&features=demo"


def test_features_behind_an_answer_are_one_click_away(visit, live):
    page = visit.open(READ)
    page.wait_for_selector("#prompt-share-bars .main-svg")
    page.click("text=By layer and head")
    page.wait_for_selector("#prompt-share-map .main-svg")
    page.fill("#prompt-answer", "Paris")
    page.press("#prompt-answer", "Enter")
    page.wait_for_function("document.querySelector('#prompt-shares').innerText.includes('logit(Paris)')")
    page.click("summary:has-text('To features')")
    page.click("#prompt-attribution")
    page.wait_for_function("document.querySelector('#prompt-feature-shares').innerText.includes('remainder')")
    assert ("feature_shares", "demo: Paris-") in live.calls
    shares, features = (page.locator(f"#{part} .wb-stat").first.inner_text() for part in SUMS)
    assert shares == features, "one answer has one number"
    lines = page.locator("#prompt-feature-shares .wb-feature-line")
    assert lines.count() == 5
    lines.nth(1).click()
    page.wait_for_function("location.pathname === '/feature/demo/7'")
    assert visit.errors == []


SUMS = ("prompt-shares", "prompt-feature-shares")


def test_one_selection_is_shared_by_mouse_and_kept_in_the_address(visit, live):
    page = visit.open(READ)
    page.wait_for_selector("#prompt-pattern canvas")
    page.locator("#prompt-tokens .wb-tok").nth(2).click()
    page.wait_for_function("location.search.includes('token=2')")
    assert page.inner_text("#prompt-selected") == "After “two”"
    page.wait_for_function("document.querySelector('#prompt-next').innerText.includes('after ␣two')")
    fired = page.locator(".wb-fired > li[data-feature]")
    assert fired.evaluate_all("rows => rows.map(row => row.dataset.feature)") == ["10", "11", "12", "13"]
    page.click("summary:has-text('On every token')")
    here = page.locator(".wb-token-features > li.wb-here .wb-token")
    assert here.text_content() == "␣two"  # rows out of sight are laid out later, and have no inner text before
    assert page.locator(".wb-token-features > li").count() == 4
    box = page.locator("#prompt-heads canvas").bounding_box()
    page.locator("#prompt-heads canvas").click(position={"x": box["width"] - 6, "y": 40})
    page.wait_for_function("/head=[1-9]/.test(location.search)")
    head = page.inner_text("#prompt-heads-words").split(",")[0]
    page.wait_for_function(f"document.querySelector('#prompt-pattern-title').innerText === 'Attention of {head}'")
    page.locator(".wb-chip-label").nth(2).click()
    page.wait_for_function("/feature=[0-9]/.test(location.search)")
    assert ("activations" in {name for name, _ in live.calls}) is True
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_function("document.querySelector('#prompt-selected')?.title === 'token 2'")
    page.wait_for_function(f"document.querySelector('#prompt-pattern-title').innerText.includes('{head}')")
    assert "feature" in page.inner_text("#prompt-selected")
    assert visit.errors == []


def test_spellings_of_the_chosen_token_are_folded_below_the_first(visit, live, monkeypatch):
    whole, labels = live.read_prompt, {10: '"two" in any form (94 %)', 11: "the word 'two'", 13: "two of a kind"}
    monkeypatch.setattr(live, "read_prompt", lambda act: replace(whole(act), labels=labels))
    page = visit.open(READ + "&token=2")
    page.wait_for_selector("summary >> text=1 more of the same word")
    fired = page.locator("#prompt-token-features > .wb-fired > li[data-feature]")
    assert fired.evaluate_all("rows => rows.map(row => row.dataset.feature)") == ["10", "12", "13"]
    assert visit.errors == []


def test_one_selection_is_moved_by_keys_and_a_cell_of_attention_is_explained(visit, live):
    page = visit.open(READ + "&token=1&layer=0&head=0")
    page.wait_for_selector("#prompt-pattern canvas")
    page.wait_for_function("document.querySelector('#prompt-pattern-words').innerText.includes('move over')")
    page.locator("#prompt-tokens .wb-tok[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.search.includes('token=3')")
    page.locator("#prompt-heads canvas").focus()
    page.keyboard.press("ArrowUp")  # layer 0 is at the bottom
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.search.includes('layer=1') && location.search.includes('head=1')")
    page.wait_for_function("document.querySelector('#prompt-pattern-title').innerText === 'Attention of L1H1'")
    page.locator("#prompt-pattern canvas").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("location.search.includes('key=2')")
    assert "␣three (3) attends to ␣two (2)" in page.inner_text("#prompt-pattern-words")
    assert "evenly spread" in page.inner_text("#prompt-pattern-words")
    page.wait_for_function("document.querySelector('#prompt-reasons').innerText.includes('score above the other keys')")
    assert "-0.75 to 0.25" in page.locator("#prompt-reasons").inner_text().replace("−", "-").replace("+", "")
    assert ("reasons", "L1H1 3 2") in live.calls
    page.keyboard.press("Escape")
    page.wait_for_function("!location.search.includes('key=')")
    page.locator("#prompt-lens canvas").focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_function("document.querySelector('#prompt-lens-words').innerText.startsWith('layer 2')")
    assert visit.errors == []


def test_the_lens_follows_the_answer_and_asks_for_seen_columns_only(visit, live):
    words = "+".join(["word"] * 200)
    page = visit.open(f"/prompt?text={words}&answer=Paris")
    page.wait_for_function("document.querySelector('#prompt-lens-words')?.innerText.includes('after')")
    asked = [text for name, text in live.calls if name == "lens"]
    spans = [tuple(map(int, text.split(" ")[0].split("-"))) for text in asked]
    assert sum(stop - start for start, stop in spans[-2:]) < 60
    page.get_by_label("Value in the cells").select_option("rank")
    page.wait_for_function(
        "document.querySelector('#prompt-lens-words').innerText.includes('the answer Paris has rank')"
    )
    live.calls.clear()
    page.evaluate("document.querySelector('.wb-lens').scrollLeft = 0")
    for _ in range(100):
        if any(name == "lens" for name, _ in live.calls):
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)
    assert {text.split("-")[0] for name, text in live.calls if name == "lens"} == {"0"}
    assert visit.errors == []


def test_a_continuation_shows_steering_beside_its_control(visit, live):
    page = visit.open(READ)
    page.click("summary:has-text('Continuation under steering')")
    page.click("#prompt-steer-go")
    assert "Choose a feature first" in page.inner_text("#prompt-steer")
    page.fill("#prompt-steer-feature", "3")
    page.click("#prompt-steer-go")
    page.wait_for_function("document.querySelector('#prompt-steer').innerText.includes('Mean loss of each')")
    assert ("generate", "demo 3 x1") in live.calls
    arms = page.locator(".wb-arms > li")
    assert [arms.nth(i).locator(".wb-other").count() for i in range(3)] == [0, ContinuePrompt.n_new, 0]
    assert f"{ContinuePrompt.n_new} changed, 0 in a random direction" in page.inner_text("#prompt-steer")
    page.click("#prompt-exchange-go")
    assert "Type two words" in page.inner_text("#prompt-steer")
    page.fill("#prompt-exchange-word", "Rome")
    page.fill("#prompt-exchange-other", "London")
    page.click("#prompt-exchange-go")
    page.wait_for_function("document.querySelector('#prompt-steer').innerText.includes('Mean loss of each')")
    assert ("generate", f"Rome>London@{int(0.6 * N_LAYERS)}") in live.calls
    assert page.evaluate("window.pwned") is None
    assert visit.errors == []


def test_the_next_token_distribution_follows_the_temperature(visit, live):
    page = visit.open(READ)
    page.wait_for_selector("#prompt-next li")
    page.get_by_label("Temperature", exact=True).press("ArrowRight")
    page.wait_for_function("document.querySelector('#prompt-next').innerText.includes('entropy 1.65')")
    assert live.calls[-1] == ("next", "3 1.1")


def test_patches_between_two_typed_prompts_are_drawn(visit, live):
    page = visit.open("/prompt")
    page.click("#fold-prompt-patch")
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


def test_a_selection_stays_inside_a_prompt_that_lost_its_chat_template(visit):
    page = visit.open(READ + "&chat=1")
    page.wait_for_function("document.querySelector('#prompt-selected')?.title === 'token 5'")
    page.locator("#prompt-chat").press("Space")
    page.locator("#prompt-go").press("Enter")
    page.wait_for_function("document.querySelector('#prompt-selected')?.title === 'token 3'")
    page.wait_for_function("document.querySelectorAll('#prompt-tokens .wb-tok').length === 4")
    assert page.locator("#prompt-error").inner_text() == ""
    page.locator("#prompt-chat").press("Space")
    page.locator("#prompt-go").press("Enter")
    page.wait_for_function("document.querySelector('#prompt-selected')?.title === 'token 5'")  # the last one
    assert visit.errors == []


def test_patching_follows_the_prompt_and_every_number_has_its_null(visit, live):
    live.calls.clear()
    page = visit.open("/prompt?text=one+two&features=demo")
    page.wait_for_function("document.querySelector('#prompt-lens-words')?.innerText.includes('null')")
    assert "suggest_pair" not in {name for name, _ in live.calls}, "what is folded away costs nothing"
    page.click("#fold-prompt-patch")
    page.wait_for_function("document.querySelector('#prompt-patch-clean').value === 'one two'")
    assert page.locator("#prompt-patch-corrupt").input_value() == "one owt"
    assert page.locator("#prompt-patch-wrong").input_value() == " Rome"
    assert "noise: 4" in page.locator("#prompt-feature-null").inner_text()
    assert "%" in page.locator(".wb-fired > li[data-feature]").first.inner_text()
    page.wait_for_function(
        "document.querySelector('#prompt-lens-words').innerText.includes('on top at 1 of 8 other positions')"
    )
    page.fill("#prompt-patch-corrupt", "my own")
    page.fill("#prompt-text", "three four")
    page.click("#prompt-go")
    page.wait_for_function("document.querySelector('#prompt-tokens').innerText.includes('four')")
    page.wait_for_timeout(500)
    assert page.locator("#prompt-patch-corrupt").input_value() == "my own", "what was typed stays"
    page.click("#prompt-patch-use")
    page.wait_for_function("document.querySelector('#prompt-patch-clean').value === 'three four'")
    page.click("summary:has-text('Continuation under steering')")
    page.fill("#prompt-steer-feature", "3")
    page.fill("#prompt-steer-strength", "0.5")
    page.select_option("#prompt-steer-nulls", "quick")
    page.click("#prompt-steer-verdict")
    page.wait_for_function("document.querySelector('#prompt-steer-judged').innerText.includes('Beyond both nulls')")
    assert ("steering_verdict", "demo 3 x0.5 quick") in live.calls
    assert visit.errors == []


@pytest.mark.parametrize("width", [390, 1440])
def test_the_chosen_token_stays_in_sight_and_panels_stand_beside_each_other_or_below(visit, width):
    visit.page.set_viewport_size({"width": width, "height": 900})
    page = visit.open(READ)
    page.wait_for_selector("#prompt-share-bars .main-svg")
    page.wait_for_selector("#prompt-next li")
    tops = [page.locator(f".wb-beside > .wb-panel >> nth={i}").bounding_box()["y"] for i in range(3)]
    assert (len(set(tops)) == 1) == (width == 1440)
    assert sorted(tops) == tops
    page.evaluate("document.querySelector('#prompt-patch').scrollIntoView()")
    page.wait_for_function("scrollY > 200")
    if width == 1440:  # on a phone the tokens alone stay in sight: see below
        assert 0 <= page.locator("#prompt-selected").bounding_box()["y"] < 120
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_long_prompt_keeps_names_and_cells_that_can_be_read(visit):
    page = visit.open("/prompt?text=" + "+".join(f"w{i}" for i in range(250)))
    page.wait_for_function("document.querySelector('#prompt-pattern')?.innerText.includes('From ')")
    side = page.evaluate("document.querySelector('.wb-pattern > div').offsetWidth")
    assert side >= 251 * 5, "a cell has five pixels at least"
    seen = "(() => { const e = document.querySelector('.wb-pattern'); return [e.scrollTop, e.clientHeight]; })()"
    page.wait_for_function(f"{seen}[0] > 251 * 5 / 2")  # the last token was chosen, and its row is in view
    canvas = page.locator("#prompt-pattern canvas")
    box = canvas.bounding_box()
    assert box["height"] <= 600
    drawn = """(canvas) => {
      const ratio = devicePixelRatio, of = canvas.getContext('2d');
      const dark = (x, y, w, h) => of.getImageData(x * ratio, y * ratio, w * ratio, h * ratio).data.some((v) => v);
      return [dark(0, 76, 74, 200), dark(76, 0, 200, 74)];
    }"""
    assert canvas.evaluate(drawn) == [True, True], "rows and columns have names"


def test_on_a_phone_the_tokens_alone_stay_in_sight(visit):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = visit.open(READ)
    page.wait_for_selector("#prompt-share-bars .main-svg")
    page.evaluate("scrollTo(0, 1200)")
    seen = "[...document.querySelectorAll('.wb-sticky, #prompt-tokens .wb-tok')].map(e => e.getBoundingClientRect())"
    page.wait_for_function(f"{seen}[0].top < 0")
    panel, *tokens = page.evaluate(f"{seen}.map(({{ top, bottom }}) => [top, bottom])")
    assert 20 < panel[1] < 80
    assert all(top >= 0 and bottom <= panel[1] for top, bottom in tokens)
