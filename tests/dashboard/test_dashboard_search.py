"""The page *Search*: hits beside their nulls, filters in the address, and texts that stay texts."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import make_search
import pytest
from fake_live import FakeLive
from page_text import text_of
from visit import ERROR, Visitor

from dashboard.app import create_app
from dashboard.data import meaning
from dashboard.search.page import find, results, row
from interp.errors import ResourceError
from interp.workspace import Workspace
from saes.features.found import FeatureHits, Hit

EVERYWHERE = {"in": ""}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_search.build(tmp_path_factory.mktemp("search-page") / "workspace")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path_factory.getbasetemp() / "search-page-cache"))


@pytest.fixture
def visitor(planted: Workspace) -> Visitor:
    return Visitor(create_app(planted, live=FakeLive()))


def test_a_search_shows_hits_with_their_nulls_and_matching_tokens(visitor):
    said = visitor.open("/search?q=January&in=planted")
    assert ERROR not in said
    assert "/feature/planted/0" in said
    assert "fires on it" in said
    assert "match" in said
    assert " January" in said
    assert "a random feature of the same density" in said  # the null of the first hit


def test_every_hit_with_a_score_has_its_null(planted):
    found = find(planted, {"q": "January", **EVERYWHERE})
    for hit in found.hits:
        if hit.score is not None:
            assert hit.null is not None
            assert "a random feature of the same density" in text_of(row(hit))


def test_the_page_says_which_part_of_the_text_was_searched(planted):
    whole = results(find(planted, {"q": "January", **EVERYWHERE, "in": "planted"}))
    assert "Only the text of the examples" not in text_of(whole)
    assert "corrected for all features searched (Holm)" in text_of(whole)
    part = results(find(planted, {"q": "January", **EVERYWHERE, "in": "older"}))
    assert "Only the text of the examples is indexed of older" in text_of(part)


def test_the_menu_of_the_address_is_applied(planted):
    hook = {"in": f"hook:{make_search.HOOK_POINT}"}
    assert {hit.features for hit in find(planted, {"q": "January", **hook}).hits} == {"older", "planted"}
    assert {hit.features for hit in find(planted, {"q": "January", "in": "planted"}).hits} == {"planted"}


def test_a_search_that_finds_nothing_says_so(visitor):
    said = visitor.open("/search?q=xylophone&in=planted")
    assert ERROR not in said
    assert "occurs neither in the recorded text" in said


@pytest.mark.parametrize("address", ["/search", "/search?q=%20", "/search?q=%23999&in=planted"])
def test_empty_and_odd_addresses_are_pages(visitor, address):
    assert ERROR not in visitor.open(address)


@pytest.mark.parametrize("address", ["/search?q=like+planted:99", "/search?q=x&in=nothing"])
def test_addresses_of_things_that_are_not_there_explain_themselves(visitor, address):
    assert ERROR in visitor.open(address)


def test_hostile_tokens_stay_text(planted):
    hits = find(planted, {"q": make_search.HOSTILE, **EVERYWHERE}).hits
    assert hits[0].feature == 5
    assert make_search.HOSTILE in text_of(row(hits[0]))


def test_hits_no_better_than_chance_stand_below_a_line_without_a_strength(planted):
    sure = find(planted, {"q": "January", **EVERYWHERE, "in": "planted"}).hits[0]
    chance = replace(sure, feature=2, by="tokens", convincing=False, strength=0.4, p=0.4, fired=2, tries=9)
    said = text_of(results(FeatureHits(query="x", hits=(sure, chance))))
    before, line, after = said.partition("What came nearest")
    assert line
    assert '"match "' in before
    assert '"match "' not in after
    assert "1e-12" not in after
    assert "Statistics" in after


def test_a_search_without_a_convincing_hit_says_so(planted):
    weak = replace(find(planted, {"q": "January", **EVERYWHERE, "in": "planted"}).hits[0], convincing=False)
    answer = FeatureHits(query="x", hits=(weak,))
    assert "Nothing convincing" in text_of(results(answer))
    assert answer.headline() == "'x': nothing convincing; 1 came nearest"


def test_a_number_opens_the_feature(planted):
    for text in ("2", "#2", "planted:2"):
        first = find(planted, {"q": text, **EVERYWHERE, "in": ""}).hits[0]
        assert (first.feature, first.by) == (2, "number")


def test_a_hit_asked_for_by_number_has_no_strength():
    assert "match" not in text_of(row(Hit(features="demo", feature=1, by="number", label="x")))


def test_a_page_does_not_wait_for_what_features_say(planted, monkeypatch):
    began, searched = [], threading.Event()
    lens = SimpleNamespace(about=SimpleNamespace(content_hash="of a lens"))
    monkeypatch.setattr(meaning, "lens_for", lambda *_: lens)
    monkeypatch.setattr(meaning, "is_computed", lambda *_: False)

    def compute(workspace, features, **_):
        began.append(features.name)
        searched.wait(60)
        raise ResourceError("the model is not here")

    monkeypatch.setattr(meaning, "meaning_of", compute)
    for _ in range(2):
        found = find(planted, {"q": "January", **EVERYWHERE, "in": "planted"})
        assert found.hits[0].feature == 0
        said = text_of(results(found))
        assert (
            "planted was not searched by the words that its features make the model say: it is being computed; "
            "search again" in said
        )
    searched.set()
    deadline = time.monotonic() + 10
    while "the model is not here" not in said and time.monotonic() < deadline:
        said = str(find(planted, {"q": "January", **EVERYWHERE, "in": "planted"}).notes)
    assert "the model is not here" in said
    assert began == ["planted"], "begun once"
