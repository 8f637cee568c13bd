"""The page of certificates, and the mark of a page whose numbers were made under one."""

import shutil
from dataclasses import replace

import pytest
from make_certificate import certificate
from page_text import text_of

from dashboard.app import create_app
from dashboard.components.pages import Context, artefact_menu
from dashboard.doctor import page
from interp.artifacts import save_artefact
from interp.circuits.head_scores import HeadScores
from interp.errors import UnknownNameError


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
    told = text_of(page.layout(Context(certified, None)))
    assert "1 of 2 checks passed; failed: hooks edited; 1 could not be run" in told
    assert "differences up to 1e-06" in told
    assert "FAILED" in told
    assert told.count('"open": true') == 1
    assert "<b>Something</b> stays behind." in told  # text, which Dash escapes


def test_a_name_that_is_not_there_is_told_the_nearest(certified):
    with pytest.raises(UnknownNameError, match="did you mean 'mine'"):
        page.layout(Context(certified, None), name="mime")


def test_a_page_says_under_which_certificate_its_numbers_were_made(certified):
    def menu(name: str) -> str:
        return text_of(artefact_menu("Model", [], "/heads", key=f"heads/{name}"))

    assert "no certificate" in menu("without")
    assert '"certified"' in menu("under")
    assert "/doctor/mine" in menu("under")
    made = certificate_again(certified)
    assert made != certified.manifest("heads", "under").parents["certificates/mine"]
    assert "certified, and examined anew since" in menu("under")


def certificate_again(workspace) -> str:
    """Replace the certificate by one in which something else came, and return its hash."""
    shutil.rmtree(workspace.path("certificate", "mine"))
    return certificate(workspace, "mine", "smollm2-135m", "0" * 64, "2e-06").about.content_hash
