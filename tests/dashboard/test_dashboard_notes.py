"""Notes in the dashboard: written over HTTP with the key of the run, shown with links, and never in the way."""

import json

import pytest
from fake_live import FakeLive
from page_text import text_of
from visit import ERROR, Visitor

from dashboard.app import create_app
from dashboard.components.pages import find_pages
from dashboard.data import features as features
from dashboard.notes.page import thing_href
from dashboard.search.page import results
from interp.artifacts import FOLDERS
from interp.interventions.intervention import Intervention, Latent
from interp.interventions.recipe import Recipe
from interp.notes import FILE, Notes
from saes.features.search import search_features

HERE = {"Host": "127.0.0.1:8050"}
KEY = "features/demo#12"


def post(visitor: Visitor, act: str, **body):
    return visitor.client.post(f"/api/notes/{act}", json=body, headers=HERE)


def test_what_is_noted_on_a_feature_is_on_its_page_and_on_notes(visitor, own):
    answer = post(
        visitor, "set", key=KEY, title="months", note="<script>window.pwned=1</script>", starred=True, tags=["a"]
    )
    assert answer.get_json() == {
        "key": KEY, "title": "months", "note": "<script>window.pwned=1</script>", "starred": True, "tags": ["a"],
        "lists": ["a"],
    }  # fmt: skip
    assert visitor.client.get("/api/notes?key=features/demo%2312", headers=HERE).get_json() == answer.get_json()
    assert json.dumps(KEY) in visitor.open("/feature/demo/12")
    page = visitor.open("/notes")
    assert ERROR not in page
    assert "/feature/demo/12" in page
    assert "months" in page
    assert Notes.open(own).get(KEY).starred


def test_a_write_without_the_key_of_the_run_changes_nothing(own):
    client = create_app(own, live=FakeLive()).server.test_client(use_cookies=False)
    assert client.post("/api/notes/set", json={"key": KEY, "starred": True}, headers=HERE).status_code == 403
    assert not (own.root / FILE).exists()


@pytest.mark.parametrize(
    ("act", "body", "status"),
    [
        ("delete", {"kind": "list", "name": 5}, 400),
        ("delete", {"kind": "everything", "name": "x"}, 400),
        ("delete", {"kind": "recipe", "name": "x"}, 404),
        ("vacuum", {}, 404),
    ],
)
def test_what_is_no_note_is_refused_with_a_sentence(visitor, act, body, status):
    answer = post(visitor, act, **body)
    assert answer.status_code == status, answer.text
    assert answer.get_json()["error"]


def test_a_body_that_is_too_large_is_a_413(visitor):
    answer = visitor.client.post("/api/notes/set", data=" " * 1_000_001, content_type="application/json", headers=HERE)
    assert answer.status_code == 413


def test_everything_is_shown_exported_and_deleted(visitor, own):
    post(visitor, "set", key=KEY, note="a text", tags=["mine"])
    steps = [{"target": {"dictionary": "features/demo", "index": 12}, "amount": 2}]
    post(visitor, "recipe", recipe={"name": "up", "steps": steps, "prompt": "Once"})
    exported = visitor.client.get("/api/notes/export", headers=HERE)
    assert exported.headers["Content-Disposition"].startswith("attachment")
    assert exported.get_json() == json.loads((own.root / FILE).read_text())
    page = visitor.open("/notes")
    for shown in ("mine", "load_recipe", "add +2"):
        assert shown in page
    step = Intervention(target=Latent(dictionary="features/demo", index=12), amount=2)
    assert Notes.open(own).recipe("up") == Recipe(name="up", steps=(step,), prompt="Once")
    for kind, name in (("recipe", "up"), ("list", "mine")):
        assert post(visitor, "delete", kind=kind, name=name).get_json() == {"deleted": name}
    assert Notes.open(own).recipes() == Notes.open(own).lists() == {}


def test_damaged_notes_are_named_and_every_other_page_goes_on(visitor, own):
    (own.root / FILE).write_bytes(b"damage" * 1000)
    assert "move the file away" in visitor.open("/notes")
    assert ERROR not in visitor.open("/feature/demo/12")
    assert ERROR not in visitor.open("/")
    answer = visitor.client.get("/api/notes?key=saes/demo", headers=HERE)
    assert answer.status_code == 500
    assert "damaged" in answer.get_json()["error"]
    (own.root / FILE).unlink()
    assert post(visitor, "set", key=KEY, starred=True).status_code == 200  # without a restart


def test_what_is_no_longer_there_stays_noted_and_says_so(visitor, own):
    for key in ("features/gone#3", "features/demo#9999", "saes/gone"):
        assert post(visitor, "set", key=key, note="remember").status_code == 200
    stored = json.loads((own.root / FILE).read_text())
    stored["notes"].append({"key": "departed/x", "note": "of a kind that left"})
    (own.root / FILE).write_text(json.dumps(stored))
    page = visitor.open("/notes")
    assert ERROR not in page
    for key in ("features/gone#3", "features/demo#9999", "saes/gone", "departed/x"):
        assert f"{key}, no longer in the workspace" in page
    assert "/feature/gone" not in page


def test_every_page_of_an_artefact_has_its_star(visitor):
    for address, key in (
        ("/atlas/embeddings", "atlases/embeddings"), ("/heads/smollm2-135m", "heads/smollm2-135m"),
        ("/circuit/induction", "induction-circuits/induction"), ("/dynamics?name=grok", "grokking/grok"),
        ("/geometry", "word-geometry/"), ("/changes", "-comparisons/"),
    ):  # fmt: skip
        page = visitor.open(address)
        assert '"data-note-thing": "' in page, address
        assert key in page, address


def test_keys_lead_to_pages_that_open(visitor, own):
    for manifest in own.artifacts():
        href = thing_href(own, f"{FOLDERS[manifest.kind]}/{manifest.name}")
        if href is not None:
            assert "That did not work" not in visitor.open(href), href


def test_the_page_of_an_sae_has_its_star(visitor):
    assert '"data-note-thing": "saes/demo"' in visitor.open("/sae?name=demo")


def test_own_names_are_in_the_list_of_features_and_its_filter_finds_them(visitor, own):
    post(visitor, "set", key="features/demo#12", title="Months of the <i>year</i>")
    named = features.names(own, "demo")
    assert named == {12: "Months of the <i>year</i>"}
    found = features.listing(own, "demo", features.ListQuery(text="months OF", names=named))
    assert [row["feature"] for row in found.rows] == [12]
    assert found.total == 1
    assert found.rows[0]["label"].startswith("Months of the <i>year</i> · ")
    assert features.listing(own, "demo", features.ListQuery(text="months of")).total == 0
    every = features.listing(own, "demo", features.ListQuery(names=named), 0, 20)
    assert [row["feature"] for row in every.rows if "·" in row["label"]] == [12]


def test_own_names_are_found_by_the_search_and_shown_with_every_hit(visitor, own):
    assert "your name for it" not in visitor.open("/search?q=springtime")
    post(visitor, "set", key="features/demo#12", title="Springtime <b>words</b>")
    page = visitor.open("/search?q=SPRINGTIME")
    assert "your name for it" in page
    assert "Springtime <b>words</b> " in page
    hits = search_features(own, "springtime").hits
    assert [(hit.by, hit.features, hit.feature, hit.own) for hit in hits] == [
        ("name", "demo", 12, "Springtime <b>words</b>")
    ]
    assert search_features(own, "#12", features="demo").hits[0].own == "Springtime <b>words</b>"
    assert search_features(own, "springtime", features="neurons").hits == ()


def test_a_search_goes_on_without_names_that_cannot_be_read(own):
    (own.root / FILE).write_bytes(b"damage" * 1000)
    found = search_features(own, "prose")
    assert found.hits
    assert any("damaged" in note for note in found.notes)
    assert "Your own names could not be read" in text_of(results(found))
    assert features.names(own, "demo") == {}


def test_the_palette_offers_every_page_artefact_and_note_with_an_address_that_opens(visitor, own):
    post(visitor, "set", key=KEY, title="months", note="cyclic", starred=True, tags=["a list"])
    answer = visitor.client.get("/api/destinations", headers=HERE).get_json()
    assert answer["features"] == "demo"
    destinations = {(each["kind"], each["text"]): each for each in answer["destinations"]}
    pages = [each for each in find_pages() if each.path != "/artefact"]
    assert [each["text"] for each in answer["destinations"][: len(pages)]] == [each.title for each in pages]
    assert all(each["about"] for each in answer["destinations"][: len(pages)])
    names = {("artefact", manifest.name) for manifest in own.artifacts()}
    assert names <= {*destinations}
    assert destinations["note", "months"] == {
        "kind": "note",
        "text": "months",
        "about": "cyclic",
        "href": "/feature/demo/12",
    }
    assert destinations["note", "a list"]["href"] == "/notes"
    for kind in ("page", "artefact"):
        shown = next(each for each in reversed(answer["destinations"]) if each["kind"] == kind)
        assert ERROR not in visitor.open(shown["href"]), shown


def test_the_palette_works_with_damaged_notes(own):
    (own.root / FILE).parent.mkdir(parents=True, exist_ok=True)
    (own.root / FILE).write_bytes(b"no database")
    destinations = (
        Visitor(create_app(own, live=FakeLive()))
        .client.get("/api/destinations", headers=HERE)
        .get_json()["destinations"]
    )
    assert {each["kind"] for each in destinations} == {"page", "artefact"}
