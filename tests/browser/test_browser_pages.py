"""Every page in a real browser: no errors, nothing from outside, nothing that token texts could run."""

import shutil
from collections.abc import Iterator

import pytest
from conftest import open_menu_page, serving, wait_for_address
from make_graph import write_graph
from make_saes import evaluated
from make_workspace import build

from dashboard.components.pages import find_pages
from interp.artifacts import FOLDERS
from interp.errors import program
from interp.workspace import Workspace

pytestmark = pytest.mark.browser
IN_BOTH_SCHEMES = pytest.mark.parametrize(
    "fresh_visit", ["light", pytest.param("dark", marks=pytest.mark.slow)], indirect=True
)
"""every page takes its time: the dark scheme with the slow tests"""

ADDRESSES = {
    "overview": "/",
    "atlas": "/atlas/embeddings?q=the&point=14",
    "feature": "/feature/demo/1",
    "prompt": "/prompt?text=%3Cscript%3Ewindow.pwned%3D1%3C%2Fscript%3E+hello+world",
    "heads": "/heads/smollm2-135m?kind=previous_token&head=L3H1",
    "heads in a text": "/heads?texts=smollm2-135m",
    "head": "/head/smollm2-135m/L0H1",
    "sae": "/sae?name=demo",
    "geometry": "/geometry?list=%3Cimg+src%3Dx+onerror%3D%27window.pwned%3D1%27%3E",
    "dynamics": "/dynamics?name=grok",
    "changes": "/changes?name=changes-base-tuned",
    "artefact": "/artefact/labels/demo-judge",
    "circuit": "/circuit/induction?at=L1H2-k-L4H1",
    "compare": "/compare?a=demo:3&b=demo:6",
}


NAMELESS = """() => [...document.querySelectorAll('main button, main a, main input, main textarea, header button')]
    .filter(e => e.offsetParent && !e.closest('.js-plotly-plot, .ag-root-wrapper, .mantine-SegmentedControl-root'))
    .filter(e => !(e.textContent || e.getAttribute('aria-label') || e.title || e.labels?.[0]?.textContent || '').trim())
    .map(e => e.outerHTML.slice(0, 160))"""
WIDTHS = ((1920, 1080), (360, 800), (1280, 800))


@IN_BOTH_SCHEMES
def test_every_page_opens_without_errors_or_outside_requests_fits_and_texts_stay_inert(fresh_visit):
    for name, address in ADDRESSES.items():
        page = fresh_visit.open(address)
        assert page.locator("h1").inner_text().lower().startswith(name), name
        assert page.locator("#error-strip").is_hidden(), name
        assert page.evaluate("window.pwned") is None, name
        assert page.locator("main img:not([hidden]), main script, main iframe").count() == 0, name
        assert page.evaluate(NAMELESS) == [], f"{name}: everything to click has a name"
        for width, height in WIDTHS:
            page.set_viewport_size({"width": width, "height": height})
            fits = "document.documentElement.scrollWidth <= innerWidth + 1"
            page.wait_for_function(fits, timeout=8000)  # figures take a moment to follow
    assert fresh_visit.errors == []
    assert fresh_visit.outside == []
    assert len(fresh_visit.requests) > 20


def test_scheme_follows_the_system_and_the_switch_is_remembered(fresh_visit):
    other = {"light": "dark", "dark": "light"}[fresh_visit.scheme]
    page = fresh_visit.open("/feature/demo/12")
    assert page.evaluate("document.documentElement.dataset.scheme") == fresh_visit.scheme
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.wait_for_selector("#feature-histogram .wb-bin")
    page.click("#scheme-toggle")
    page.wait_for_function(f"document.documentElement.dataset.scheme === '{other}'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    fresh_visit.open("/")
    assert page.evaluate("document.documentElement.dataset.mantineColorScheme") == other


def test_hostile_labels_are_shown_as_they_are_written(visit):
    page = visit.open("/feature/demo/0")
    page.wait_for_selector("#feature-number")
    assert "<script>window.pwned=1</script>" in page.locator(".wb-feature-title").inner_text()
    assert page.evaluate("window.pwned") is None


def test_policy_stops_an_inline_script(visit):
    page = visit.open("/")
    page.evaluate(
        "() => { const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s); }"
    )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in error for error in visit.errors)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("/feature/demp/3", "did you mean 'demo'"),
        ("/feature/demo/99999", "0 to 239"),
        ("/atlas/..%2f..%2fetc", "not a usable name"),
        ("/atlas/embeddings?selection=region%3A999", "regions are 0 to 34"),
        ("/nowhere", "no page at this address"),
    ],
)
def test_a_wrong_address_explains_itself_and_leads_back(visit, address, says):
    page = visit.open(address)
    assert says in page.locator(".wb-notice-error").inner_text()
    assert page.locator(".atlas").count() == 0
    page.get_by_text("Back to the overview").click()
    page.wait_for_selector("h1:has-text('Overview')")
    of_the_page = "Failed to load resource: the server responded with a status of 404"
    assert [error for error in visit.errors if not error.startswith(of_the_page)] == []


DEMO_KINDS = {"recording", "sae", "features", "atlas", "heads", "heads_in_text", "induction_circuit", "evaluation"}
"""Kinds of artefacts that `workbench demo` leaves in a workspace."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory, live) -> Iterator[str]:
    """The address of a dashboard on a workspace with the demo's kinds of artefacts and no others."""
    workspace: Workspace = build(tmp_path_factory.mktemp("demo") / "workspace", n_features=40, n_points=40)
    for kind, folder in FOLDERS.items():
        if kind not in DEMO_KINDS:
            shutil.rmtree(workspace.root / folder, ignore_errors=True)
    shutil.rmtree(workspace.root / "saes" / "wide.partial")
    evaluated(workspace, "demo")
    with serving(workspace, live) as address:
        yield address


@IN_BOTH_SCHEMES
def test_after_the_demo_every_page_opens_without_an_error(fresh_visit, demo):
    fresh_visit.base = demo
    empty = set()
    for each in find_pages():
        page = fresh_visit.open(each.path)
        assert page.locator("h1").inner_text().startswith(each.title)
        assert page.locator(".wb-notice-error").count() == 0, each.title
        assert page.locator("#error-strip").is_hidden(), each.title
        if page.locator(".wb-empty").count():
            empty.add(each.title)
            assert page.locator(".wb-empty .wb-command").text_content().startswith(f"{program()} "), each.title
    assert empty == {"Geometry", "Directions", "Dynamics", "Changes", "Doctor", "Graph"}
    page.locator(".wb-menu > summary", has_text="Models").click()
    words = page.locator(".wb-menu[open] a > :last-child").all_inner_texts()
    assert len(words) == 4
    assert all(text.endswith("nothing yet") for text in words)
    page.locator(".wb-menu > summary", has_text="Features").click()
    assert page.locator(".wb-menu[open]").count() == 1, "one menu at a time"
    page.keyboard.press("Escape")
    assert page.locator(".wb-menu[open]").count() == 0
    assert page.evaluate("document.activeElement.innerText.trim()") == "Features"
    open_menu_page(page, "changes")
    page.wait_for_function("location.pathname === '/changes' && !document.querySelector('.wb-menu[open]')")
    page.wait_for_function("document.querySelector('#nav-changes').ariaCurrent === 'page'")
    assert fresh_visit.errors == []


def test_the_overview_and_the_prompt_name_models_and_nothing_else(visit, demo):
    visit.base = demo
    assert "made with smollm2-135m" in visit.open("/").locator("#overview-made summary").inner_text()
    page = visit.open("/prompt")
    page.click("#prompt-model")
    assert page.get_by_role("option").all_inner_texts() == ["smollm2-135m"]


@pytest.mark.parametrize("width", [390, 1280])
def test_five_menus_have_every_page_and_fit(visit, width):
    visit.page.set_viewport_size({"width": width, "height": 800})
    page = visit.open("/notes")
    listed = {each.path for each in find_pages() if each.listed and each.path != "/"}
    links = page.locator(".wb-menu a").evaluate_all("all => all.map(link => link.getAttribute('href'))")
    assert listed < {*links}
    right = page.evaluate(
        "[...document.querySelectorAll('.wb-menu > summary')].map(e => e.getBoundingClientRect().right)"
    )
    end = page.evaluate("document.querySelector('.wb-find').getBoundingClientRect().left") if width > 860 else width
    assert len(right) == 5
    assert max(right) <= end
    page.locator(".wb-menu > summary").last.click()
    menu = page.locator(".wb-menu[open] > div").bounding_box()
    assert menu["x"] >= 0
    assert menu["x"] + menu["width"] <= width


def test_the_overview_leads_with_a_prompt_and_its_artefacts_are_lines_behind_a_fold(visit, base_workspace):
    write_graph(base_workspace, "capital", n_features=60, n_edges=500)
    try:
        visit.page.set_viewport_size({"width": 390, "height": 844})
        page = visit.open("/")
        assert page.evaluate("document.documentElement.scrollHeight") < 4 * 844
        lines = page.locator(".wb-made > li")
        assert lines.first.is_hidden()
        page.locator("#overview-made summary").click()
        when = lines.locator("time").evaluate_all("all => all.map(time => time.dateTime)")
        assert when == sorted(when, reverse=True)
        assert max(line["height"] for line in lines.evaluate_all("all => all.map(e => e.getBoundingClientRect())")) < 60
        page.fill("#ask-text", "My cat is")
        page.keyboard.press("Enter")
        wait_for_address(page, "text=My+cat+is")
        page.wait_for_selector("#prompt-tokens .wb-tok")
        assert visit.errors == []
    finally:
        shutil.rmtree(base_workspace.root / "graphs" / "capital")
