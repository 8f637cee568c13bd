"""Notes in a real browser: by mouse and keyboard, two browsers at once, and typed text that stays."""

import shutil
from collections.abc import Iterator

import pytest
from conftest import Visit, list_by_number, new_context, open_menu_page, serving

from dashboard.data.features import one
from interp.interventions.intervention import Intervention, Latent
from interp.interventions.recipe import Recipe
from interp.notes import Notes
from interp.workspace import Workspace

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=window.pwned=1>"


@pytest.fixture
def own(base_workspace: Workspace, tmp_path) -> Workspace:
    """A copy of the workspace, since notes are written into it."""
    shutil.copytree(base_workspace.root, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def address(own: Workspace, live) -> Iterator[str]:
    with serving(own, live) as base:
        yield base


@pytest.fixture
def visits(browser, address) -> Iterator[list[Visit]]:
    """Two visitors with browsers of their own."""
    contexts = [new_context(browser, scheme) for scheme in ("light", "dark")]
    yield [Visit(context.new_page(), address) for context in contexts]
    for context in contexts:
        context.close()


def test_a_feature_is_starred_named_and_found_again_by_keyboard(visits, own):
    visit = visits[0]
    page = visit.open("/feature/demo/12")
    list_by_number(page)
    page.wait_for_selector(".wb-star")
    page.keyboard.press("s")
    page.wait_for_selector(".wb-star[aria-pressed=true]")
    page.focus("button[aria-label^='Note on']")
    page.keyboard.press("Enter")
    page.keyboard.type(f"{HOSTILE} like #13, demo:14, other:15 at 12:30")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("months")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("form.wb-note-form", state="detached")
    note = Notes.open(own).get("features/demo#12")
    assert (note.title, note.note.split(" like")[0], note.starred) == ("months", HOSTILE, True)
    links = [(link.inner_text(), link.get_attribute("href")) for link in page.locator(".wb-note-text a").all()]
    assert links == [("#13", "/feature/demo/13"), ("demo:14", "/feature/demo/14")]
    page.click("#feature-next")
    page.wait_for_function("document.querySelector('#feature-number')?.innerText === '#13'")
    page.wait_for_selector(".wb-star[aria-pressed=false]")
    open_menu_page(page, "notes")
    page.wait_for_selector("h1:has-text('Notes')")
    page.wait_for_selector(".wb-notes a:has-text('months')")
    assert page.evaluate("window.pwned") is None
    assert HOSTILE in page.inner_text("#notes-parts")
    page.fill("#notes-filter", "nothing of this kind")
    page.wait_for_function("[...document.querySelectorAll('.wb-notes > li')].every(row => row.hidden)")
    page.fill("#notes-filter", "month")
    page.click(".wb-notes a:has-text('months')")
    page.wait_for_function("document.querySelector('#feature-number')?.innerText === '#12'")
    assert visit.errors == []


def test_two_browsers_with_one_note_lose_neither_text(visits, own):
    first, second = (visit.open("/feature/demo/3") for visit in visits)
    for page, text in ((first, "of the first"), (second, "of the second")):
        page.click("button[aria-label^='Note on']")
        page.fill("form textarea", text)
    first.click("form button[type=submit]")
    first.wait_for_selector("form.wb-note-form", state="detached")
    second.click("form button[type=submit]")
    second.wait_for_selector("blockquote:has-text('of the first')")
    assert second.input_value("form textarea") == "of the second"
    assert Notes.open(own).get("features/demo#3").note == "of the first"
    second.get_by_role("button", name="Keep both").click()
    second.click("form button[type=submit]")
    second.wait_for_selector("form.wb-note-form", state="detached")
    assert Notes.open(own).get("features/demo#3").note == "of the first\n\nof the second"
    assert [error for error in visits[1].errors if "409" not in error] == []


def test_typed_text_survives_navigation_theme_and_reload(visits):
    visit = visits[0]
    page = visit.open("/prompt")
    page.fill("#prompt-text", "typed, not yet run")
    page.wait_for_timeout(400)
    visit.open("/feature/demo/5")
    page.click("button[aria-label^='Note on']")
    page.fill("form textarea", "half a thought")
    page.click("#feature-next")
    page.wait_for_function("!document.querySelector('form.wb-note-form')")
    page.click("#feature-previous")
    page.wait_for_selector("form textarea")
    assert page.input_value("form textarea") == "half a thought"
    page.click("#scheme-toggle")
    page.wait_for_function("document.documentElement.dataset.scheme === 'dark'")
    page.wait_for_function("document.querySelector('form textarea')?.value === 'half a thought'")
    page.reload()
    page.wait_for_function("document.querySelector('form textarea')?.value === 'half a thought'")
    open_menu_page(page, "prompt")
    page.wait_for_function("document.querySelector('#prompt-text')?.value === 'typed, not yet run'")
    page.click("#scheme-toggle")
    page.wait_for_function("document.documentElement.dataset.scheme === 'light'")
    page.wait_for_timeout(500)
    page.wait_for_function("document.querySelector('#prompt-text')?.value === 'typed, not yet run'")
    page.reload()
    page.wait_for_function("document.querySelector('#prompt-text')?.value === 'typed, not yet run'")


def test_a_recipe_is_saved_deleted_and_undone_and_an_export_taken_in(visits, own, tmp_path):
    visit = visits[0]
    page = visit.open("/feature/demo/12")
    page.click("button:has-text('Recipe')")
    page.get_by_label("Name of the recipe").fill("up")
    page.get_by_label("Amount, × its maximum").fill("4")
    page.click("form button[type=submit]")
    page.wait_for_selector("form.wb-note-form", state="detached")
    largest = one(own, "demo", 12).row.max_activation
    step = Intervention(target=Latent(dictionary="features/demo", index=12), amount=4 * largest)
    saved = {"up": Recipe(name="up", steps=(step,))}
    assert Notes.open(own).recipes() == saved
    page.click("button:has-text('Save this search')")
    page.get_by_label("Name of the search").fill("all")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Saved as “all”")
    open_menu_page(page, "notes")
    page.click("button[aria-label='Delete the recipe up']")
    page.click("#notes-said button:has-text('Undo')")
    page.wait_for_selector("button[aria-label='Delete the recipe up']")
    assert Notes.open(own).recipes() == saved
    Notes.open(own).export(tmp_path / "notes.json")
    Notes.open(own).delete("search", "all")
    other = Notes.open(Workspace(tmp_path / "other", create=True))
    other.set("saes/demo", starred=True)
    other.export(tmp_path / "other.json")
    page.set_input_files("#notes-import input", tmp_path / "other.json")
    page.wait_for_selector("#notes-said:has-text('1 added')")
    assert Notes.open(own).get("saes/demo").starred
    (tmp_path / "bad.json").write_text("{")
    page.set_input_files("#notes-import input", tmp_path / "bad.json")
    page.wait_for_selector("#notes-said:has-text('not valid JSON')")
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth + 1")
    assert visit.errors == []


def test_a_page_of_an_earlier_run_of_the_server_can_still_write(visits, own, address, live):
    page = visits[0].open("/feature/demo/12")
    page.wait_for_selector(".wb-star")
    page.context.clear_cookies()  # as after a restart: the key that the page got is none any more
    page.keyboard.press("s")
    page.wait_for_selector(".wb-star[aria-pressed=true]")
    assert Notes.open(own).get("features/demo#12").starred


def test_a_list_is_reordered_by_keyboard_and_the_focus_stays(visits, own):
    keys = ["features/demo#1", "features/demo#2", "features/demo#3"]
    Notes.open(own).set_list("mine", keys)
    page = visits[0].open("/notes")
    page.focus("button[aria-label='Move features/demo#3 up in mine']")
    for n in (2, 1):
        page.keyboard.press("Enter")
        page.wait_for_selector(f"text=features/demo#3 is now number {n} of 3 in mine.")
        page.wait_for_function(
            "document.activeElement.getAttribute('aria-label') === 'Move features/demo#3 up in mine'"
        )
    assert Notes.open(own).lists()["mine"] == [keys[2], keys[0], keys[1]]
    assert visits[0].errors == []


def test_a_search_is_saved_and_a_name_shows_in_the_list_at_once(visits, own):
    page = visits[0].open("/search?q=prose")
    page.click("text=Save this search")
    page.keyboard.type("about prose")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Saved as “about prose”")
    assert Notes.open(own).searches() == {"about prose": "/search?q=prose"}
    page = visits[0].open("/feature/demo/12")
    list_by_number(page)
    page.click("button[aria-label^='Note on']")
    page.fill(".wb-note-form input >> nth=0", "months")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".ag-cell:has-text('months · ')")
    page.fill("#feature-search", "MONTHS")
    page.wait_for_function("document.querySelectorAll('.ag-center-cols-container .ag-row').length === 1")
    assert visits[0].errors == []
