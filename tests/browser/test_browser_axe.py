"""Every page, light and dark, holds to the rules that axe-core checks: names, roles, contrast, headings, landmarks.

On a phone it is no longer than four screens before a click.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Visit, settle

from dashboard.components.pages import find_pages

pytestmark = pytest.mark.browser

PAGES = {
    "overview": ("/", ".wb-made"),
    "atlas": ("/atlas/embeddings?q=the&point=14", ".atlas"),
    "features": ("/feature/demo/12", "#feature-histogram .wb-bin"),
    "prompt": ("/prompt?text=hello+world&model=smollm2-135m&features=demo", "#prompt-tokens .wb-tok"),
    "heads in a text": ("/heads?texts=smollm2-135m", "#heads-found td"),
    "head": ("/head/smollm2-135m/L0H1", ".wb-head-examples mark"),
    "heads": ("/heads/smollm2-135m?kind=previous_token&head=L3H1", ".js-plotly-plot .main-svg"),
    "circuit": ("/circuit/induction?at=L1H2-k-L4H1", "#circuit-graph[data-ready]"),
    "sae": ("/sae?name=demo", ".js-plotly-plot .main-svg"),
    "geometry": ("/geometry?list=weekdays", ".js-plotly-plot .main-svg"),
    "dynamics": ("/dynamics?name=grok", ".js-plotly-plot .main-svg"),
    "changes": ("/changes?name=changes-base-tuned", ".js-plotly-plot .main-svg"),
    "compare": ("/compare?a=demo:3&b=demo:6", "#compare-measured .wb-panel"),
    "compare nothing": ("/compare", ".wb-compare-form"),
    "artefact": ("/artefact/labels/demo-judge", "#artefact-parts .wb-panel"),
    "artefact with long tables": ("/artefact/heads/smollm2-135m", "#artefact-parts .wb-panel"),
    "neuron": ("/feature/neurons/5", "#feature-histogram .wb-bin"),
    "directions": ("/directions", ".wb-page"),
    "graph": ("/graph", ".wb-page"),
    "doctor": ("/doctor", ".wb-checks"),
    "runs": ("/runs", ".wb-page"),
    "notes": ("/notes", ".wb-page"),
    "search": ("/search?q=river", ".wb-page"),
    "glossary": ("/glossary", ".wb-terms"),
    "missing": ("/feature/demp/3", ".wb-notice-error"),
}
VIEWPORT, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module", params=["light", pytest.param("dark", marks=pytest.mark.slow)])
def axe_visit(browser: Any, base: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A visitor whose pages take the checker's script, which the policy of our pages would refuse."""
    context = browser.new_context(
        viewport=VIEWPORT, color_scheme=request.param, bypass_csp=True, reduced_motion="reduce"
    )
    context.set_default_timeout(30_000)
    yield Visit(context.new_page(), base)
    context.close()


def violations(page: Any) -> list[str]:
    """Return one line for every element that breaks a rule of axe-core, with the rule and the reason."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['html'][:160]} {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_page_breaks_no_rule_of_axe(axe_visit: Visit, name: str):
    address, ready = PAGES[name]
    page = axe_visit.open(address)
    page.locator(ready).first.wait_for(state="attached")
    settle(page)
    assert violations(page) == []
    page.set_viewport_size(PHONE)
    page.wait_for_function(f"document.documentElement.scrollHeight < {4 * PHONE['height']}", timeout=5000)
    page.set_viewport_size(VIEWPORT)


def test_every_page_is_among_these():
    assert {page.path.split("/")[1] for page in find_pages()} <= {
        address.split("/")[1].split("?")[0] for address, _ in PAGES.values()
    }


def test_help_tour_menu_and_palette_break_no_rule_of_axe(axe_visit: Visit):
    page = axe_visit.open("/notes")
    page.click("#help-open")
    page.wait_for_selector(".wb-keys")
    page.wait_for_timeout(300)  # the dialog fades in, and half of its contrast is none
    assert violations(page) == []
    page.click("#help-tour")
    page.wait_for_selector("#tour:not([hidden])")
    page.wait_for_selector(".wb-keys", state="hidden")
    assert violations(page) == []
    page.click("#tour-close")
    page.locator(".wb-menu > summary").first.click()
    assert violations(page) == []
    page.click("#palette-open")
    page.wait_for_function("document.querySelectorAll('.wb-palette li').length > 18")
    assert violations(page) == []
