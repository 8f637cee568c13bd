"""The page of any artefact and `show` in a notebook answer for every kind from its class."""

import re

import make_direction
import make_graph
import make_saes
import pytest
from fake_live import FakeLive
from make_changes import HOSTILE_TEXT
from make_dynamics import induction
from make_lens import identity_lens
from make_workspace import HOSTILE, build
from page_text import text_of

from dashboard.app import create_app
from dashboard.artefact.page import PAGE, show_artefact
from dashboard.components.evidence import MAX_ROWS, evidence_table, number
from dashboard.components.pages import page_of
from dashboard.figures.results import has_figure, plot
from dashboard.figures.theme import visible
from dashboard.notebook import _ARTEFACTS, Shown, show
from dashboard.overview._data import overview
from dashboard.overview.page import artefacts
from dashboard.sources import PageSources
from interp.artifacts import FOLDERS, KINDS, save_artefact
from interp.artifacts.artefact import layout_of
from interp.errors import CorruptError, UnknownNameError
from interp.workspace import Workspace

KEYS = [
    *("recordings/demo", "saes/demo", "features/demo", "atlases/demo-features", "heads/smollm2-135m", "grokking/grok"),
    *("model-comparisons/changes-base-tuned", "latent-comparisons/difference-pair", "edge-circuits/ioi"),
    *("induction-circuits/induction", "labels/demo-judge", "word-geometry/shapes", "certificates/smollm2-135m"),
    *("evaluations/demo", "sae-comparisons/compare-demo", "size-laws/scaling", "directions/pushed", "graphs/traced"),
    *("lenses/identity", "induction-onsets/induction", "heads-in-text/smollm2-135m"),
]
"""One artefact of every kind that the fixtures make."""
CARDS = {
    "recordings/demo": ("/artefact/recordings/demo", "158,750 tokens of docstrings", None),
    "saes/demo": ("/sae?name=demo", "88% of the variance", None),
    "atlases/embeddings": ("/atlas/embeddings", "preserves 15% of each point's 15 nearest neighbours", None),
    "grokking/grok": (
        *("/dynamics?name=grokking/grok", "Addition modulo 13: 1 of 2 seeds grokked"),
        ("seed 3 frequencies", "2, 5"),
    ),
    "induction-onsets/induction": (
        *("/dynamics?name=induction-onsets/induction", "1 of 2 small models begin to copy suddenly"),
        ("toy:induction-2l 0 from step", "200"),
    ),
    "model-comparisons/changes-base-tuned": (
        *("/changes?name=model-comparisons/changes-base-tuned", "Fine-tuning base into tuned moves predictions"),
        ("changed matrices", "2"),
    ),
    "latent-comparisons/difference-pair": (
        *("/changes?name=latent-comparisons/difference-pair", "1 of tuned only, 1 shared"),
        None,
    ),
    "directions/pushed": (
        *("/directions/pushed", " works: +1.90 [+1.20, +2.60] nats; 99 random directions at most "),
        ("separates", "weekdays"),
    ),
    "word-geometry/shapes": (
        "/geometry?name=word-geometry/shapes",
        "3 of 4 lists of words form a circle, line, order or cluster in smollm2-135m",
        ("digits", "line"),
    ),
    "size-laws/scaling": ("/sae?name=a", "6 ", None),
}
"""What the cards of the overview lead to and say."""


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Workspace:
    """Return a workspace with all of `KEYS`."""
    workspace = build(tmp_path_factory.mktemp("kinds") / "workspace", n_features=240, n_points=60)
    make_saes.evaluated(workspace, "demo")
    make_saes.compared(workspace, "demo")
    make_saes.scaled(
        workspace, {"a": (256, 8), "b": (512, 8), "c": (1024, 8), "d": (512, 16), "e": (256, 16), "f": (1024, 16)}
    )
    make_direction.direction(workspace)
    make_graph.write_graph(workspace, "traced")
    save_artefact(identity_lens(("blocks.0.hook_resid_post",), 8, "0" * 64), workspace.path("lens", "identity"))
    induction(workspace)
    return workspace


@pytest.fixture(scope="module")
def serving(full):
    with create_app(full, live=FakeLive()).server.app_context():
        yield PageSources(full, FakeLive())


def test_the_list_has_every_kind_of_the_workspace(full):
    made = {manifest.kind for manifest in full.artifacts()}
    assert made == {full.find(key, *KINDS).kind for key in KEYS}


@pytest.mark.parametrize("key", KEYS)
def test_the_page_and_a_notebook_show_any_kind(serving, full, key):
    value = full.open_key(key)
    head = text_of(PAGE.layout(serving, name=key))
    assert visible(value.headline(), 600).replace('"', '\\"') in head
    assert f"{value.title} {value.name}" in head
    assert ("Open its own page" in head) == (page_of(value.href) != f"/artefact/{key}")
    parts = text_of(show_artefact({"key": key}, "dark"))
    assert "wb-notice-error" not in parts
    assert all(f'"{title}"' in parts for title in ("Settings", "Results", "Made from", "Files"))
    assert ('"Findings"' in parts) == bool(value.findings())
    assert value.made_by in parts
    assert ("artefact-figure" in parts) == has_figure(value)
    for name, part in layout_of(type(value)).items():
        assert (f'"Document {name}"' in parts) == (part.place == "document")
    shown = show(key, full)
    if value.kind not in _ARTEFACTS:
        assert isinstance(shown, Shown)
        assert "<h2>Settings</h2>" in shown.html
        assert len(shown.figures) == has_figure(value)


def test_every_name_on_overview_is_a_link(serving, full):
    cards = {f"{FOLDERS[kind]}/{card.name}": card for kind, of in overview(full).cards.items() for card in of}
    assert all(card.href for card in cards.values())
    assert "/artefact/recordings/demo" in text_of(artefacts(serving))
    for key, (href, sentence, fact) in CARDS.items():
        card = cards[key]
        assert (card.href, sentence in card.sentence, fact is None or fact in card.facts) == (href, True, True), card


def test_a_table_shows_its_first_rows_and_the_columns_of_plain_values(serving, full):
    parts = text_of(show_artefact({"key": "features/demo"}, None))
    assert "The first 200 of 240 rows, without the lists" in parts
    assert '"/artefact/recordings/demo"' in parts, "a parent is a link"
    rows = show("features/demo", full).html
    assert not re.search(r"<(img|script|iframe|svg|b)\b", rows, re.IGNORECASE)
    assert any("<" in text for text in (HOSTILE_TEXT, *HOSTILE))
    assert "&lt;" in show("latent-comparisons/difference-pair", full).html


def test_a_document_shows_a_row_for_each_part_and_folds_the_lists_inside_one(serving, full):
    certificate = full.open_key("certificates/smollm2-135m")
    parts = text_of(show_artefact({"key": certificate.key}, None))
    assert all(f'"{visible(check.name, 160)}"' in parts for check in certificate.checks)
    lists = full.open_key("word-geometry/shapes").lists
    parts = text_of(show_artefact({"key": "word-geometry/shapes"}, None))
    assert all(f'"{name}"' in parts for name in lists)
    heads = full.open_key("model-comparisons/changes-base-tuned")
    parts = text_of(show_artefact({"key": heads.key}, None))
    assert "wb-folded" in parts
    evaluation = full.open_key("evaluations/demo")
    absent = [name for name in ("probing", "absorption", "concepts", "nulls") if getattr(evaluation, name) is None]
    assert text_of(show_artefact({"key": evaluation.key}, None)).count("This artefact lacks it.") == len(absent)


def test_findings_are_next_to_their_nulls(serving, full):
    [finding, *_] = full.open_key("word-geometry/shapes").findings()
    parts = text_of(show_artefact({"key": "word-geometry/shapes"}, None))
    for text in ("value", "null", number(finding.value), number(finding.null), visible(finding.sentence, 160)):
        assert f'"{text}"' in parts


def test_a_damaged_table_is_said_in_its_panel_and_the_rest_stays(small, live):
    (small.path("labels", "demo-judge") / "labels.parquet").write_bytes(b"PAR1 cut short")
    with create_app(small, live=live).server.app_context():
        parts = text_of(show_artefact({"key": "labels/demo-judge"}, None))
    assert "labels.parquet" in parts
    assert "workbench verify" in parts
    assert '"Files"' in parts


def test_a_missing_artefact_has_its_nearest_name_and_a_damaged_one_its_file(small, live):
    with pytest.raises(UnknownNameError, match="demo"):
        PAGE.layout(PageSources(small, live), name="recordings/demp")
    (small.path("recording", "demo") / "manifest.json").write_text("{")
    with pytest.raises(CorruptError, match=r"manifest\.json"):
        PAGE.layout(PageSources(small, live), name="recordings/demo")


def test_a_class_without_a_figure_is_known(full):
    assert has_figure(full.open_key("grokking/grok"))
    assert not has_figure(full.open_key("recordings/demo"))
    assert plot(full.open_key("grokking/grok")).data


def test_a_long_table_of_values_says_how_many_it_leaves_out():
    shown = text_of(evidence_table({f"value {n}": n for n in range(MAX_ROWS + 3)}))
    assert '"and 3 more"' in shown
    assert "more" not in text_of(evidence_table({f"value {n}": n for n in range(MAX_ROWS)}))
