"""The page of certificates, and the mark of a page whose numbers were made under one."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
from make_certificate import certificate
from page_text import text_of

from dashboard.app import create_app
from dashboard.components.pages import artefact_menu
from dashboard.doctor import page
from dashboard.sources import PageSources
from interp.artifacts import save_artefact
from interp.circuits.head_scores import HeadScores
from interp.doctor.certificate import Certificate


@pytest.fixture
def certified(workspace, place, live):
    """A workspace with heads that were scored under a certificate, and its app."""
    made = certificate(place, "mine", "smollm2-135m", "0" * 64)
    scores = workspace.open(HeadScores, "smollm2-135m")
    parents = {made.key: made.about.content_hash}
    save_artefact(replace(scores), place.path("heads", "under"), parents=parents)
    save_artefact(replace(scores), place.path("heads", "without"))
    with create_app(place, live=live).server.app_context():
        yield place


def test_every_check_is_shown_and_a_failed_one_says_what_it_means(certified):
    told = text_of(page.layout(PageSources(certified, None)))
    assert "1 of 2 checks passed; failed: hooks edited; 1 could not be run" in told
    assert "differences up to 1e-06" in told
    assert "FAILED" in told
    assert told.count('"open": true') == 1
    assert "<b>Something</b> stays behind." in told  # text, which Dash escapes


def test_a_page_says_under_which_certificate_its_numbers_were_made(certified):
    def menu(name: str) -> str:
        return text_of(artefact_menu("Model", [], "/heads", key=f"heads/{name}"))

    assert "no certificate" in menu("without")
    assert "1 check failed" in menu("under")
    assert "hooks edited" in menu("under")
    assert "/doctor/mine" in menu("under")
    shutil.rmtree(certified.path("certificate", "mine"))
    assert "certificate deleted" in menu("under")
    made = certificate(certified, "mine", "smollm2-135m", "0" * 64, "2e-06")  # something else came
    assert made.about.content_hash != certified.manifest("heads", "under").parents["certificates/mine"]
    assert "examined anew since" in menu("under")


def test_a_page_names_the_certificate_of_the_same_weights_where_its_numbers_were_made_without_one(certified, workspace):
    save_artefact(
        replace(workspace.open(HeadScores, "smollm2-135m")), certified.path("heads", "apart"),
        parents={"heads/without": "x", "model:smollm2-135m": "1" * 64},
    )  # fmt: skip
    menu = partial(artefact_menu, "Model", [], "/heads", key="heads/apart")
    assert "no certificate" in text_of(menu()), "other weights"
    save_artefact(
        replace(workspace.open(HeadScores, "smollm2-135m")), certified.path("heads", "from-apart"),
        parents={"heads/apart": "x"},
    )  # fmt: skip
    certificate(certified, "theirs", "smollm2-135m", "1" * 64)
    assert "/doctor/theirs" in text_of(menu())
    assert "not by the run that made these numbers" in text_of(menu(key="heads/from-apart"))


@pytest.mark.parametrize(("quick", "mark"), [(False, "certified"), (True, "quick checks passed")])
def test_a_page_says_whether_all_checks_were_run(certified, workspace, quick, mark):
    made = workspace_certificate(certified, quick)
    under = {made.key: made.about.content_hash, "certificates/mine": "gone and replaced"}
    scores = replace(workspace.open(HeadScores, "smollm2-135m"))
    save_artefact(scores, certified.path("heads", "well"), parents={made.key: made.about.content_hash})
    save_artefact(replace(scores), certified.path("heads", "both"), parents=under)
    assert f'"{mark}"' in text_of(artefact_menu("Model", [], "/heads", key="heads/well"))
    assert "examined anew since" in text_of(artefact_menu("Model", [], "/heads", key="heads/both"))  # the worse one


def workspace_certificate(workspace, quick: bool) -> Certificate:
    """Write a certificate without failed checks."""
    made = certificate(workspace, "raw", "smollm2-135m", "0" * 64)
    checks = [each for each in made.checks if each.verdict != "failed"]
    well = replace(made, settings=replace(made.settings, quick=quick), checks=checks)
    return save_artefact(well, workspace.path("certificate", "well"))
