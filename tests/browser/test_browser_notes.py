"""Notes in a real browser: by mouse and keyboard, and typed text that stays."""

import json
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
    page.keyboard.type(HOSTILE)
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("months")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("form.wb-note-form", state="detached")
    note = Notes.open(own).get("features/demo#12")
    assert (note.title, note.note, note.starred) == ("months", HOSTILE, True)
    page.click("#feature-next")
    page.wait_for_function("document.querySelector('#feature-number')?.innerText === '#13'")
    page.wait_for_selector(".wb-star[aria-pressed=false]")
    open_menu_page(page, "notes")
    page.wait_for_selector("h1:has-text('Notes')")
    page.wait_for_selector(".wb-notes a:has-text('months')")
    assert page.evaluate("window.pwned") is None
    assert HOSTILE in page.inner_text("#notes-parts")
    page.click(".wb-notes a:has-text('months')")
    page.wait_for_function("document.querySelector('#feature-number')?.innerText === '#12'")
    assert visit.errors == []


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


def test_a_recipe_is_saved_and_deleted_and_everything_exported(visits, own, tmp_path):
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
    open_menu_page(page, "notes")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("button[aria-label='Delete the recipe up']")
    assert Notes.open(own).recipes() == saved
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("button[aria-label='Delete the recipe up']")
    page.wait_for_selector("button[aria-label='Delete the recipe up']", state="detached")
    assert Notes.open(own).recipes() == {}
    with page.expect_download() as exported:
        page.click("a:has-text('Export')")
    exported.value.save_as(tmp_path / "notes.json")
    assert json.loads((tmp_path / "notes.json").read_text())["recipes"] == {}
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


def test_a_name_shows_in_the_list_at_once(visits, own):
    page = visits[0].open("/feature/demo/12")
    list_by_number(page)
    page.click("button[aria-label^='Note on']")
    page.fill(".wb-note-form input >> nth=0", "months")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".ag-cell:has-text('months · ')")
    page.fill("#feature-search", "MONTHS")
    page.wait_for_function("document.querySelectorAll('.ag-center-cols-container .ag-row').length === 1")
    assert visits[0].errors == []
