"""Spaces and their comparison on the geometry page: every number with its null, and damage is one sentence."""

import pytest
from fake_live import FakeLive
from page_text import text_of

from dashboard.app import create_app
from dashboard.figures.geometry import similarity_map
from dashboard.figures.theme import theme
from dashboard.geometry import page
from dashboard.overview import _data as overview
from interp.geometry.space import SpaceComparison
from interp.workspace import Workspace
from workbench.__main__ import main


@pytest.fixture(scope="module")
def spaces(tmp_path_factory) -> Workspace:
    """What the two verbs write about a small untrained model."""
    folder = tmp_path_factory.mktemp("spaces") / "workspace"
    common = ["small:mlp-2l", "--points", "256", "--workspace", str(folder)]
    assert main(["geometry", "space", *common, "--name", "fills"]) == 0
    assert main(["geometry", "compare", *common, "--batch", "64", "--name", "alike"]) == 0
    return Workspace(folder)


def shown(workspace: Workspace, name: str, scheme: str = "light") -> str:
    with create_app(workspace, live=FakeLive()).server.app_context():
        return text_of(page.show_geometry({"name": name, "list": None}, scheme))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_space_shows_its_measures_with_their_nulls(spaces, scheme):
    text = shown(spaces, "fills", scheme)
    assert "participation ratio" in text
    assert "embeddings" in text
    assert "single tokens" in text, "there are no words, and it says so"


def test_a_comparison_shows_all_pairs_and_the_close_ones(spaces):
    text = shown(spaces, "alike")
    assert "shuffled rows at most" in text
    assert "blocks.1.hook_resid_post" in text
    cards = overview.overview(spaces).cards
    assert cards["space"][0].href == "/geometry?name=spaces/fills"
    assert cards["space_comparison"][0].href == "/geometry?name=space-comparisons/alike"


def test_the_map_of_similarity_is_square_and_runs_from_0_to_1(spaces):
    (heat,) = similarity_map(spaces.open(SpaceComparison, "alike").cka, theme("dark")).data
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert [len(row) for row in heat.z] == [2, 2]


def test_a_missing_file_is_one_sentence_and_the_rest_stays(spaces):
    path = spaces.path("space_comparison", "alike") / "pairs.json"
    path.rename(path.with_suffix(".gone"))
    try:
        text = shown(spaces, "alike")
        assert "pairs.json is missing from the artefact" in text
        assert "geometry-cka" in text
    finally:
        path.with_suffix(".gone").rename(path)
