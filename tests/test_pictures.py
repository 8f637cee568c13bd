"""Pictures of README and docs show the pages of today: each in both themes, with words that the demo still says."""

import json
import re
import shutil
from pathlib import Path

import pytest

from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from tools.pictures import IMAGES, MANIFEST, PICTURES, THEMES, differences
from workbench.demo import DATA

ROOT = Path(__file__).parent.parent
RECORDED = json.loads(MANIFEST.read_text(encoding="utf-8"))
WRITTEN = [ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]


def test_every_picture_is_drawn_in_both_themes_described_and_shown_on_a_page():
    names = [picture.name for picture in PICTURES]
    drawn = {path.name for path in IMAGES.glob("*.webp")}
    assert drawn == {f"{name}{ending}.webp" for name in names for ending in THEMES.values()}
    assert list(RECORDED) == names
    assert {each.name: each.address for each in PICTURES} == {key: row["address"] for key, row in RECORDED.items()}
    shown = {each for path in WRITTEN for each in re.findall(r"images/([\w-]+)\.webp", path.read_text("utf-8"))}
    assert set(names) <= shown


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory):
    """What the pages say of the data that ships, by address."""
    from dashboard.app import create_app
    from interp.workspace import Workspace

    folder = tmp_path_factory.mktemp("shipped") / "workspace"
    shutil.copytree(DATA, folder)
    client = create_app(Workspace(folder)).server.test_client()
    return lambda address: client.get(address).get_json()


def words_of(name: str) -> str:
    """Return the words of a picture without what only sets them: quotation marks, asterisks, spaces."""
    return plain(RECORDED[name]["text"])


def plain(text: str) -> str:
    return re.sub(r"[\s*]+", "", text)


def test_the_picture_of_a_graph_has_the_check_of_today(today):
    effects = Workspace(DATA).open(AttributionGraph, "capital-of-France").effects
    assert plain(f"({effects.spearman.estimate:.2f}; by chance up to {effects.chance:.2f})") in words_of("graph")


def test_pictures_of_a_feature_have_the_label_and_the_score_of_today(today):
    written = today("/api/feature?features=demo&index=4398")["explanations"][0]
    assert plain(written["label"]) in words_of("feature")
    assert f"{written['score']['accuracy']:.0%}ofthetime" in words_of("feature")
    assert plain(written["label"]) in words_of("compare")


def test_another_word_or_number_is_seen_and_a_time_is_not():
    old = "Score 0.900 (null 0.10), drawn 3 minutes ago, 2026-11-30 12:01"
    assert differences(old, "Score 0.905 (null 0.10), drawn 1 hour ago, 2026-12-01 09:00") == []
    assert differences(old, old.replace("0.10", "0.20")) == ["0.10), -> 0.20),"]
    assert differences(old, old.replace("Score", "Match")) == ["Score -> Match"]
    assert differences(old, old + " undecided") == [" -> undecided"]
