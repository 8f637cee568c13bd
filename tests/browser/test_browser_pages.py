"""Every page in a real browser: no errors, nothing from outside, nothing that token texts could run."""

import shutil
from collections.abc import Iterator

import pytest
from conftest import serving
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


DEMO_KINDS = {"recording", "sae", "features", "atlas", "heads", "induction_circuit", "evaluation"}
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
        assert page.locator("h1").inner_text() == each.title
        assert page.locator(".wb-notice-error").count() == 0, each.title
        assert page.locator("#error-strip").is_hidden(), each.title
        if page.locator(".wb-empty").count():
            empty.add(each.title)
            assert page.locator(".wb-empty .wb-command").inner_text().startswith(f"{program()} "), each.title
    assert empty == {"Geometry", "Directions", "Dynamics", "Changes", "Doctor", "Graph"}
    page.click(".wb-nav-more summary")
    assert page.locator(".wb-nav-more a").all_inner_texts() == ["Geometry", "Directions", "Dynamics", "Changes"]
    page.click("#nav-changes")
    page.wait_for_function("location.pathname === '/changes' && !document.querySelector('.wb-nav-more[open]')")
    page.wait_for_function("document.querySelector('#nav-changes').ariaCurrent === 'page'")
    assert fresh_visit.errors == []


def test_the_overview_and_the_prompt_name_models_and_nothing_else(visit, demo):
    visit.base = demo
    assert "made with smollm2-135m" in visit.open("/").locator(".wb-lead").inner_text()
    page = visit.open("/prompt")
    page.click("#prompt-model")
    assert page.get_by_role("option").all_inner_texts() == ["smollm2-135m"]


@pytest.mark.parametrize("width", [1280, 1440])
def test_the_navigation_shows_every_page(visit, width):
    visit.page.set_viewport_size({"width": width, "height": 800})
    page = visit.open("/notes")
    right = "[...document.querySelectorAll('.wb-nav a')].map(link => link.getBoundingClientRect().right)"
    assert max(page.evaluate(right)) <= page.evaluate("document.querySelector('.wb-find').getBoundingClientRect().left")
