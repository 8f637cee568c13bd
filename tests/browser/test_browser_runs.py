"""Analyses started in the browser: a map made and opened, a run cancelled and resumed, an artefact deleted and back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import chromium, serving, wait_for_address
from fake_live import FakeLive
from make_workspace import HOSTILE, build

from dashboard.queue import RunQueue
from workbench.commands import Commands

pytestmark = pytest.mark.browser
MODEL = "small:mlp-2l"


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[RunQueue]:
    workspace = build(tmp_path / "workspace")
    made = RunQueue(workspace, Commands(workspace)).start()
    yield made
    made.stop()


@pytest.fixture
def running(visit, queue: RunQueue) -> Iterator:
    """Return a visit to a server with a queue."""
    chromium()
    with serving(queue.workspace, FakeLive(), runs=queue) as visit.base:
        yield visit


def field(page, name: str):
    """Return the input of a field of the form."""
    return page.locator(f'input[id*=\'"name":"{name}"\']')


@pytest.mark.slow
def test_a_map_is_made_from_the_page_and_opened(running):
    page = running.open("/runs")
    page.click("#runs-verb")
    page.get_by_role("option", name="atlas", exact=True).click()
    field(page, "source").fill("")
    page.wait_for_function("document.querySelector('#runs-problem').innerText.includes('Choose ')")
    assert page.locator("#runs-add").is_disabled()
    field(page, "source").fill(f"embeddings:{MODEL}")
    page.click("#runs-form summary >> text=other settings")
    field(page, "name").fill("mine")
    page.wait_for_function("document.querySelector('#runs-command').innerText.includes('--name mine')")
    assert f"atlas embeddings:{MODEL} --name mine --workspace" in page.locator("#runs-command").inner_text()
    page.click("#runs-add")
    page.wait_for_selector("#runs-list .wb-run-running")
    page.reload()
    page.wait_for_selector("#runs-list .wb-run")
    link = page.locator("#runs-list a", has_text="Open atlases/mine")
    link.wait_for(timeout=120_000)
    page.wait_for_selector("#runs-list .wb-run-done", timeout=60_000)
    page.wait_for_selector("#runs-storage th:has-text('atlases/mine')")
    link.click()
    page.wait_for_selector("h1:has-text('Atlas')")
    wait_for_address(page, end="/atlas/mine")
    assert running.errors == []


@pytest.mark.slow
def test_a_run_is_cancelled_and_resumed_by_keyboard(running, queue):
    page = running.open(f"/runs?verb=lens&model={MODEL}&steps=200000&n_contexts=40&context_length=32&name=slow")
    page.wait_for_function("!document.querySelector('#runs-add').disabled")
    page.locator("#runs-add").press("Enter")
    page.wait_for_function(
        "document.querySelector('#runs-list .wb-run-state')?.innerText.includes('left')", timeout=120_000
    )
    bar = page.locator("#runs-list progress")
    assert bar.get_attribute("aria-label") == "Progress of lens"
    page.locator("#runs-list button", has_text="Cancel").press("Enter")
    page.wait_for_selector("#runs-list .wb-run-cancelled", timeout=60_000)
    page.locator("#runs-list button", has_text="Resume").press("Enter")
    page.wait_for_selector("#runs-list .wb-run-running", timeout=60_000)
    page.locator("#runs-list button", has_text="Cancel").press("Enter")
    page.wait_for_selector("#runs-list .wb-run-cancelled", timeout=60_000)
    page.locator("#runs-list button", has_text="Remove").press("Enter")
    page.wait_for_selector("#runs-list .wb-none")
    assert queue.all() == []
    assert running.errors == []


def test_what_a_page_lacks_is_run_where_it_stands(running, queue, tmp_path):
    for kind in ("heads", "heads_in_text"):
        for name in queue.workspace.names(kind):
            queue.workspace.path(kind, name).rename(tmp_path / f"{kind} {name}")
    page = running.open("/heads")
    page.click("text=Run heads smollm2-135m")
    page.wait_for_selector(".wb-empty .wb-run-running, .wb-empty .wb-run-waiting")
    assert page.locator(".wb-empty button", has_text="Run heads").is_disabled()
    queue.cancel(queue.all()[0].id)
    page.wait_for_selector(".wb-empty .wb-run-cancelled", timeout=60_000)
    assert running.errors == []


def test_typed_text_stays_text(running):
    page = running.open("/runs?verb=patch&model=smollm2-135m")
    for name in ("clean", "corrupt", "answer"):
        field(page, name).fill(HOSTILE[0])
    page.wait_for_function("document.querySelector('#runs-command').innerText.includes('script')")
    assert page.evaluate("window.pwned") is None
    assert running.errors == []


@pytest.mark.parametrize(("verb", "asked"), [("prove", "--feature [0-9]+ "), ("direction", "--feature demo:[0-9]+ ")])
def test_a_feature_is_chosen_by_a_word_of_its_label(running, verb, asked):
    page = running.open(f"/runs?verb={verb}&feature=")
    field(page, "feature").fill("river in prose")
    page.get_by_role("option", name="river in prose").first.click()
    page.wait_for_function(f"/{asked}/.test(document.querySelector('#runs-command').innerText)")
    assert running.errors == []


@pytest.mark.slow
def test_the_overview_and_the_runs_follow_what_others_start(running, queue):
    page = running.open("/runs")
    page.wait_for_selector("#runs-list .wb-none")
    page.evaluate("window.same = true")
    queue.add("heads", {"model": "small:attn-only-1l", "n_prompts": 2, "seeds": (0,), "name": "mine"})
    page.wait_for_selector("#runs-list .wb-run", timeout=15_000)
    other = page.context.new_page()
    other.goto(running.base + "/")
    other.click("#overview-made summary")
    other.evaluate("window.same = true")
    other.wait_for_selector(".wb-made a:has-text('mine')", state="attached", timeout=120_000)
    page.wait_for_selector("#runs-storage th:has-text('heads/mine')", timeout=60_000)
    assert other.evaluate("window.same")
    assert page.evaluate("window.same"), "neither page was loaded again"
    other.close()
    assert running.errors == []


def test_a_page_without_anything_leads_to_the_form_that_fills_it(running, queue, tmp_path):
    for kind in ("model_comparison", "latent_comparison"):
        for name in queue.workspace.names(kind):
            queue.workspace.path(kind, name).rename(tmp_path / f"{kind}-{name}")
    page = running.open("/changes")
    tune = page.get_by_role("button", name="Fine-tune smollm2-135m on documents about volcanoes")
    tune.dblclick()
    page.wait_for_selector(".wb-empty .wb-run-running, .wb-empty .wb-run-waiting")
    assert tune.is_disabled()
    [run] = queue.all()
    assert "compare tune topic" in run.command
    queue.cancel(run.id)
    page.wait_for_selector(".wb-empty .wb-run-cancelled", timeout=60_000)
    page.click("text=Choose and run compare models")
    page.wait_for_selector("#runs-verb")
    assert page.locator("#runs-verb").input_value() == "compare models"
    page.wait_for_function(
        "document.querySelector('#runs-problem').innerText.includes('Choose your fine-tuned model.')"
    )
    assert running.errors == []


def test_a_direction_is_made_from_the_form_of_its_verb(running, queue, tmp_path):
    for name in queue.workspace.names("direction"):
        queue.workspace.path("direction", name).rename(tmp_path / name)
    page = running.open("/directions")
    page.click("text=Choose and run direction")
    page.wait_for_selector("#runs-verb")
    pairs = [{"prompt": f"Dish {n} was", "towards": " great.", "away": " awful."} for n in range(8)]
    field(page, "pairs").fill(json.dumps(pairs[:1]))
    page.wait_for_function("document.querySelector('#runs-problem').innerText.includes('a direction needs 8')")
    field(page, "pairs").fill(json.dumps(pairs))
    page.wait_for_function("!document.querySelector('#runs-add').disabled")
    page.click("#runs-add")
    page.wait_for_selector("#runs-list .wb-run-running, #runs-list .wb-run-waiting")
    [run] = queue.all()
    assert json.loads(run.options["pairs"]) == pairs
    page.locator("#runs-list button", has_text="Cancel").click()
    page.wait_for_selector("#runs-list .wb-run-cancelled", timeout=60_000)
    assert running.errors == []
