"""The map's data: what the browser fetches is what the tables hold, and both read a selection the same way."""

import base64
import csv
import dataclasses
import io
import itertools
import json
import re
import shutil
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_series import NAMES, series
from make_workspace import HOSTILE, build
from werkzeug.test import Client

from dashboard.atlas.page import judged, regions_panel
from dashboard.components.modules import ASSETS
from dashboard.figures.theme import DARK, LIGHT, canvas_colours
from dashboard.maps import data as atlas
from dashboard.maps.columns import UNREADABLE, about, array, columns, points_of, region_colours, regions
from dashboard.maps.data import PointFilter, chosen, inside
from dashboard.maps.view import atlas_view
from interp.artifacts import Table, save_artefact
from interp.atlas.vector_map import MapPoint, Region, VectorMap, tells
from interp.errors import ConfigError, CorruptError, UnknownNameError, UsageError

HOST = {"Host": "127.0.0.1"}


@pytest.fixture
def get(server):
    client = Client(server.wsgi_app)
    return lambda path, **headers: client.get(f"/atlas-data/{path}", headers=HOST | headers)


def labels(workspace) -> list[str]:
    return points_of(workspace, "embeddings").column("label").to_pylist()


# what the routes send


def test_places_arrive_as_float32_pairs_and_regions_as_small_numbers(get, workspace):
    xy = np.frombuffer(get("embeddings/xy.bin").data, "<f4").reshape(-1, 2)
    rows = points_of(workspace, "embeddings")
    assert np.array_equal(xy[:, 0], rows.numbers("x"))
    assert np.array_equal(xy[:, 1], rows.numbers("y"))
    level = np.frombuffer(get("embeddings/level_1.bin").data, "<u2").astype(int) - 1
    assert np.array_equal(level, rows.numbers("level_1"))
    kept = np.frombuffer(get("embeddings/kept.bin").data, "<f4")
    assert np.array_equal(kept, rows.numbers("kept"))


def test_a_number_that_is_not_finite_is_a_damaged_file_and_no_defect(get, monkeypatch):
    """As a zeroed table of regions has them: JSON has no NaN, and the page says what to do."""
    monkeypatch.setattr("dashboard.maps.columns.regions", lambda *_: [{"x": float("nan")}])
    answer = get("embeddings/regions.json")
    assert answer.status_code == 500
    assert "a file is damaged" in answer.get_data(as_text=True)
    assert "unexpected" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("what", ["about.json", "regions.json", "cells.json", "xy.bin", "density.bin"])
def test_an_unchanged_map_is_not_sent_twice(get, what):
    first = get(f"embeddings/{what}")
    assert first.status_code == 200
    again = get(f"embeddings/{what}", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert get(f"demo-features/{what}").headers["ETag"] != first.headers["ETag"]
    assert "no-cache" in first.headers["Cache-Control"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("embedings/xy.bin", 404), ("embeddings/nothing.bin", 404), ("embeddings/label.bin", 404),
        ("-embeddings/xy.bin", 400), ("embeddings/texts.json?ids=1,x", 400),
        ("embeddings/points.csv?selection=lasso:1,2", 400),
        ("embeddings/points.csv?selection=drop", 400), ("embeddings/points.csv?filter=kept", 400),
        ("embeddings/points.csv?selection=region:999", 400),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_so_in_a_sentence(get, path, status):
    answer = get(path)
    assert answer.status_code == status
    assert answer.get_json()["error"]
    assert "Traceback" not in answer.text


def test_texts_hold_labels_as_they_are_and_unknown_points_are_left_out(get):
    found = json.loads(get("embeddings/texts.json?ids=5,0,99999,-1").data)
    assert [text["point"] for text in found] == [5, 0]
    assert [text["label"] for text in found] == [HOSTILE[5], HOSTILE[0]]
    assert dict(found[0]["values"]).keys() == {"local density (rank)", "norm", "neighbours preserved"}


def test_search_sends_one_bit_per_point(get, workspace):
    answer = get("embeddings/search.bin?q=%20RIVER")
    bits = np.unpackbits(np.frombuffer(answer.data, np.uint8), bitorder="little")[: len(labels(workspace))]
    expected = ["river" in label.lower() for label in labels(workspace)]
    assert bits.astype(bool).tolist() == expected
    assert int(answer.headers["X-Found"]) == sum(expected) > 0
    assert get("embeddings/search.bin?q=%20").headers["X-Found"] == "0"


def test_a_search_with_few_hits_sends_their_nearest_neighbours_too(get, workspace):
    made, n = workspace.open(VectorMap, "embeddings"), len(labels(workspace))
    word = labels(workspace)[300]
    bits = np.frombuffer(get(f"embeddings/search.bin?q={quote(word)}").data, np.uint8).reshape(2, -1)
    found, near = (np.flatnonzero(np.unpackbits(half, bitorder="little")[:n]) for half in bits)
    assert 300 in found
    rows = [row for point in found.tolist() for row in made.neighbours.rows("point = ?", point)]
    assert near.tolist() == sorted({other for row in rows for other in row.neighbours[:15]})
    many = np.arange(n) < atlas.FEW_FOUND + 1
    assert atlas.neighbours(workspace, "embeddings", many) is None


def test_whole_words_are_named_first_and_parts_of_words_never_on_their_own(workspace):
    ranks = array(workspace, "embeddings", "rank")
    words = [bool(re.fullmatch(r" ?[^\W\d_]{3,}", label)) for label in labels(workspace)]
    assert (ranks == UNREADABLE).tolist() == [not word for word in words]
    rows, _ = atlas.rows(workspace, "embeddings", PointFilter(), sort="rank", end=5)
    assert [row["label"].isspace() or row["label"].strip().isalpha() for row in rows] == [True] * 5


def test_csv_has_every_column_of_the_chosen_points_and_hostile_labels_survive(get, workspace):
    lines = list(csv.DictReader(io.StringIO(get("embeddings/points.csv?selection=points:0,2,8,6").text)))
    assert [line["label"] for line in lines] == [HOSTILE[i] for i in (0, 2, 6, 8)]
    assert list(lines[0]) == points_of(workspace, "embeddings").names


# what is selected


@given(
    st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=3, max_size=12),
    st.lists(st.tuples(st.integers(-21, 21), st.integers(-21, 21)), min_size=1, max_size=30),
)
def test_inside_agrees_with_counting_crossings_one_by_one(corners, points):
    polygon = np.array(corners, float) + 0.25  # no point lies on a corner
    x, y = np.array(points, float).T

    def crossings(px: float, py: float) -> bool:
        odd = False
        for (xi, yi), (xj, yj) in zip(polygon, np.roll(polygon, 1, axis=0), strict=True):
            if (yi > py) != (yj > py) and px < (xj - xi) * (py - yi) / (yj - yi) + xi:
                odd = not odd
        return odd

    assert inside(polygon, x, y).tolist() == [crossings(px, py) for px, py in zip(x, y, strict=True)]


def test_a_box_a_region_and_a_filter_choose_what_the_table_says(workspace):
    xy = array(workspace, "embeddings", "xy")
    x0, y0, x1, y1 = *np.quantile(xy, 0.3, axis=0), *np.quantile(xy, 0.8, axis=0)
    box = chosen(workspace, "embeddings", PointFilter(selection=f"box:{x0},{y0},{x1},{y1}"))
    assert np.array_equal(box, np.flatnonzero(((xy >= [x0, y0]) & (xy < [x1, y1])).all(1)))
    region = regions(workspace, "embeddings")[5]
    inside_it = chosen(workspace, "embeddings", PointFilter(selection="region:5"))
    assert np.array_equal(inside_it, np.flatnonzero(points_of(workspace, "embeddings").numbers("level_1") == 5))
    assert len(inside_it) == region["size"]
    kept = chosen(workspace, "embeddings", PointFilter(selection="region:5", filter="kept:0.5,1"))
    assert set(kept) == {i for i in inside_it if array(workspace, "embeddings", "kept")[i] >= 0.5}


def test_a_search_and_a_filter_choose_what_meets_both(workspace):
    found = chosen(workspace, "embeddings", PointFilter(search="river", filter="kept:0.25,1"))
    river = np.array(["river" in label.lower() for label in labels(workspace)])
    kept = array(workspace, "embeddings", "kept") >= 0.25
    assert 0 < len(found) < river.sum()
    assert np.array_equal(found, np.flatnonzero(river & kept))


@pytest.mark.parametrize("selection", ["lasso:0,0,1,1,nan,2", "box:1,2,3", "circle:1,2", "points:one", "region:-4"])
def test_a_selection_that_cannot_be_read_says_what_was_expected(workspace, selection):
    with pytest.raises(UsageError):
        chosen(workspace, "embeddings", PointFilter(selection=selection))


def test_rows_are_sorted_by_any_column_and_paged(workspace):
    rows, total = atlas.rows(workspace, "embeddings", PointFilter(), sort="value", descending=True, start=10, end=40)
    everything = np.sort(points_of(workspace, "embeddings").numbers("value"))[::-1]
    assert total == len(everything)
    assert [row["value"] for row in rows] == pytest.approx(everything[10:40].tolist())
    by_label, _ = atlas.rows(workspace, "embeddings", PointFilter(search="river"), sort="label")
    assert [row["label"] for row in by_label] == sorted(label for label in labels(workspace) if "river" in label)
    assert atlas.rows(workspace, "embeddings", PointFilter(), sort="no such column", start=3, end=4)[0][0]["point"] == 3


# columns, regions, colours


def test_columns_say_how_they_are_coloured_and_unknown_ones_what_there_is(workspace):
    kinds = {column.name: column.kind for column in columns(workspace, "embeddings")}
    assert kinds == {"level_0": "region", "level_1": "region", "level_2": "region",
                     "density": "number", "value": "number", "kept": "number"}  # fmt: skip
    assert about(workspace, "embeddings")["colour"] == "regions"
    with pytest.raises(UnknownNameError, match="did you mean 'density'"):
        array(workspace, "embeddings", "densty")


def test_groups_are_categories_by_frequency_and_nothing_is_zero(tmp_path):
    import pyarrow as pa

    workspace = build(tmp_path / "ws", n_points=40, n_features=40)
    words = [None if i % 4 == 3 else "numpy" if i % 4 else "<b>torch" for i in range(40)]
    made = workspace.open(VectorMap, "embeddings")
    table = made.points.arrow().drop_columns("group").append_column("group", pa.array(words))
    made = dataclasses.replace(made, points=Table.of_columns(MapPoint, table))
    save_artefact(made, workspace.path("atlas", "embeddings"), overwrite=True)
    column = next(c for c in columns(workspace, "embeddings") if c.name == "group")
    assert (column.kind, column.names, column.counts) == ("category", ["numpy", "<b>torch"], [20, 10])
    expected = [{None: 0, "numpy": 1, "<b>torch": 2}[word] for word in words]
    assert array(workspace, "embeddings", "group").tolist() == expected
    picked = chosen(workspace, "embeddings", PointFilter(filter="group=2"))
    assert picked.tolist() == [i for i, word in enumerate(words) if word == "<b>torch"]
    shown = atlas.texts(workspace, "embeddings", [0])[0]
    assert ["group", "<b>torch"] in shown["values"]


def test_a_map_without_regions_is_coloured_by_a_number(tmp_path):
    import pyarrow as pa

    workspace = build(tmp_path / "ws", n_points=30, n_features=40)
    made = workspace.open(VectorMap, "embeddings")
    table = made.points.arrow()
    levels = pa.nulls(30, pa.list_(pa.int32())).fill_null([])
    table = table.set_column(table.column_names.index("levels"), "levels", levels)
    parts = {"regions_per_level": (), "naming": None, "regions": Table.of(Region, [])}
    made = dataclasses.replace(made, points=Table.of_columns(MapPoint, table), **parts)
    save_artefact(made, workspace.path("atlas", "embeddings"), overwrite=True)
    found = about(workspace, "embeddings")
    assert (found["levels"], found["colour"]) == (0, "density")
    assert regions(workspace, "embeddings") == []
    assert atlas.point(workspace, "embeddings", 3)["region"] == ""


def test_cells_come_by_grid_with_the_side_that_their_middles_say(workspace, get):
    import pyarrow.parquet as parquet

    rows = parquet.read_table(workspace.table_path("atlas", "embeddings", "cells")).to_pylist()
    grids = json.loads(get("embeddings/cells.json").data)
    assert [grid["grid"] for grid in grids] == sorted({row["grid"] for row in rows})
    assert sum(len(grid["cells"]) for grid in grids) == len(rows)
    assert grids[0]["side"] == pytest.approx(2 * grids[1]["side"], rel=0.02)
    mine = [row for row in rows if row["grid"] == grids[0]["grid"]]
    x, column = (np.array([row[key] for row in mine]) for key in ("x", "column"))
    assert np.ptp(x) == pytest.approx(np.ptp(column) * grids[0]["side"], rel=0.02)
    assert get("demo-features/cells.json").data == b"[]"


def test_a_rebuilt_map_is_read_anew(tmp_path):
    root = tmp_path / "ws"
    assert points_of(build(root, n_points=30, n_features=40), "embeddings").n == 30
    shutil.rmtree(root)
    again = build(root, n_points=31, n_features=40)
    assert len(array(again, "embeddings", "xy")) == 31


def test_a_damaged_map_is_named(tmp_path, damage_file):
    workspace = build(tmp_path / "ws", n_points=30, n_features=40)
    damage_file(workspace.table_path("atlas", "embeddings", "points"))
    for column in ("xy", "density"):
        with pytest.raises(CorruptError, match=r"cannot read .*points\.parquet"):
            array(workspace, "embeddings", column)


def test_a_point_knows_its_true_neighbours_and_one_off_the_map_says_the_range(workspace):
    found = atlas.point(workspace, "embeddings", 14)
    assert len(found["neighbours"]) == atlas.MAX_NEIGHBOURS
    cosines = [cosine for *_, cosine in found["neighbours"]]
    assert cosines == sorted(cosines, reverse=True)
    assert 14 not in [n for n, *_ in found["neighbours"]]
    with pytest.raises(UsageError, match="0 to 399"):
        atlas.point(workspace, "embeddings", 400)


def test_largest_regions_come_first(workspace):
    sizes = [region["size"] for region in atlas.largest_regions(workspace, "embeddings")]
    assert len(sizes) > 2
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("seed", range(4))
def test_neighbouring_regions_have_different_colours(seed):
    rng = np.random.default_rng(seed)

    def region(number: int, level: int, parent: int, x: float, y: float) -> Region:
        box = dict.fromkeys(("x_min", "x_max", "y_min", "y_max", "priority"), 0.0)
        return Region(region=number, level=level, parent=parent, x=x, y=y, label="", size=1, contour=[], **box)

    rows = [region(i, 0, -1, x, y) for i, (x, y) in enumerate(rng.random((40, 2)))]
    rows += [region(40 + i, 1, i % 40, x, y) for i, (x, y) in enumerate(rng.random((80, 2)))]
    colours = np.array(region_colours(rows))
    for level in (0, 1):
        at = np.array([[r.x, r.y] for r in rows if r.level == level])
        mine = colours[[r.level == level for r in rows]]
        apart = ((at[:, None] - at[None]) ** 2).sum(-1) + np.eye(len(at)) * 9
        assert (mine[apart.argmin(1)] != mine).mean() > 0.95
    assert set(colours) <= set(range(len(LIGHT.points)))


_VISION = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear light
    "normal": np.eye(3),
    "protan": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deutan": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritan": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    light = np.clip(seen @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x = to_xyz @ light / [0.9505, 1, 1.089]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", _VISION)
@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_point_colours_differ_for_every_eye(colours, vision):
    seen = [lab(colour, _VISION[vision]) for colour in colours.points]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 18


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_groups_of_a_graph_have_no_colour_that_is_a_sign_there(colours):
    normal = _VISION["normal"]
    signs = [lab(colour, normal) for colour in (colours.accent, colours.opposite)]
    groups = [lab(colour, normal) for colour in canvas_colours(colours, [])["groups"]]
    assert min(np.linalg.norm(group - sign) for group in groups for sign in signs) > 35
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(groups, 2)) > 18


@pytest.mark.parametrize("vision", _VISION)
@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_the_scale_runs_one_way_in_lightness_for_every_eye(colours, vision):
    lightness = np.array([lab(colour, _VISION[vision])[0] for _, colour in colours.points_scale])
    steps = np.diff(lightness) * (1 if colours is DARK else -1)
    assert (steps > 0).all()


# the view from Python


def test_a_view_of_a_map_becomes_a_component(workspace):
    made = atlas_view(workspace, "embeddings", colour="kept", search="river").component("m").to_plotly_json()
    assert (made["namespace"], made["type"]) == ("workbench_atlas", "AtlasMap")
    assert made["props"] == {"id": "m", "source": "/atlas-data/embeddings", "colour": "kept", "search": "river"}


def test_a_page_of_its_own_holds_all_modules_and_no_markup_from_labels(workspace):
    page = atlas_view(workspace, "embeddings").to_html()
    assert page.count("<script") == 4
    for label in HOSTILE[:3]:
        assert label not in page
    imports = json.loads(re.search(r'<script type="importmap">(.*?)</script>', page, re.S)[1])["imports"]
    assert {f"page/{path.stem}" for path in (ASSETS / "atlas").glob("*.mjs")} < set(imports)
    modules = [base64.b64decode(each.partition(",")[2]).decode() for each in imports.values()]
    assert {name for text in modules for name in re.findall(r'from "([^"]+)"', text)} <= set(imports)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_a_page_of_its_own_brings_its_grids_of_averages(workspace):
    page = atlas_view(workspace, "embeddings").to_html()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])
    assert data["about"]["cells"]
    assert data["cells"] == atlas.cells(workspace, "embeddings") != []


def test_the_page_says_what_quality_was_measured_on_and_every_note(workspace):
    made = workspace.open(VectorMap, "embeddings")
    measured = dataclasses.replace(made.quality, sample=7)
    cases = ((made.quality, "each point"), (measured, "Measured on 7 random points"), (None, "Read regions"))
    for quality, said in cases:
        notes = ("two <b>parts</b>", "copies")
        shown = judged(dataclasses.replace(made, quality=quality, notes=notes))
        words = json.dumps(shown.to_plotly_json(), default=str)
        assert said in words
        assert "two <b>parts</b>" in words
        assert "copies" in words


def test_arrays_that_do_not_fit_together_are_refused():
    xy = np.zeros((5, 2))
    for wrong in (
        {"source": np.zeros((5, 3))}, {"source": np.full((5, 2), np.nan)}, {"source": xy, "labels": ["one"]},
        {"source": xy, "columns": {"norm": np.zeros(4)}}, {"source": xy, "columns": {"xy": np.zeros(5)}},
        {"source": xy, "columns": {"norm": np.zeros((5, 2))}}, {"source": xy, "columns": {"norm": ["a"] * 5}},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            atlas_view(**wrong)
    with pytest.raises(UnknownNameError, match="did you mean 'colour'"):
        atlas_view(xy, color="norm")
    with pytest.raises(ConfigError, match="a view of arrays has no server"):
        atlas_view(xy).component("m")


# maps of several spaces


def test_the_maps_of_a_series_are_served_one_by_one(tmp_path):
    workspace = build(tmp_path / "ws", n_features=40, n_points=60)
    series(workspace)
    told = about(workspace, "series")
    assert told["frames"] == NAMES
    last = array(workspace, "series", "xy")
    assert np.array_equal(array(workspace, "series", "frame_2"), last)
    np.testing.assert_allclose(array(workspace, "series", "frame_0"), -last, atol=1e-6)  # turned by two quarters
    with pytest.raises(UnknownNameError):
        array(workspace, "series", "frame_3")
    assert about(workspace, "embeddings")["frames"] == []
    page = atlas_view(workspace, "series").to_html()
    assert "frame_1" in page
    assert "<b>blocks.1</b>" not in page


def test_the_page_says_how_many_regions_have_names_and_how_many_shuffled_labels_give(workspace):
    made = workspace.open(VectorMap, "embeddings")
    rows = [row for row in made.region_rows if row.level == made.whole_map_level]
    inside = sum(row.size for row in rows if row.label) / made.n_points
    assert f"{inside:.0%} of the words lie in them" in made.naming_sentence() or inside < 0.5
    assert "With shuffled labels 0.05 regions have a name" in str(regions_panel(made, []))
    naming = dataclasses.replace(made.naming, per_level=(0, 0, 0))
    assert dataclasses.replace(made, naming=naming).naming_sentence().startswith("0 of 35 regions have names")
    assert dataclasses.replace(made, naming=None).naming_sentence() == ""


def test_names_of_regions_that_tell_something_are_whole_words():
    assert tells("south, east, eastern")
    assert not any(tells(label) for label in ("Capitalised: json, http", "ma, lo, mo", "punctuation: />", "bytes: !"))
