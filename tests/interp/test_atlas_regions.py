"""Regions of a map: planted ones are found, nested and outlined; none is invented where there is none."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_closing, binary_dilation, binary_erosion, binary_fill_holes, gaussian_filter, label
from shapely import Polygon

from interp.atlas.layout import lay_out
from interp.atlas.neighbours import find_neighbours
from interp.atlas.regions import (
    NONE,
    Grid,
    Regions,
    climb,
    contains,
    find_hierarchy,
    find_regions,
    join,
    one_piece,
    outline,
    saddles,
)
from interp.atlas.vector_map import whole_map_level


def planted(n_groups: int, n_parts: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups on a circle, each of several parts on a small circle; positions, group and part of every point."""
    rng = np.random.default_rng(seed)
    part = np.repeat(np.arange(n_groups * n_parts), size)
    group = part // n_parts
    around, within = 2 * np.pi * group / n_groups, 2 * np.pi * (part % n_parts) / n_parts
    centre = 20 * np.column_stack([np.cos(around), np.sin(around)])
    centre += 2.5 * np.column_stack([np.cos(within), np.sin(within)]) * (n_parts > 1)
    return centre + rng.normal(0, 0.35, centre.shape), group, part


def regions_of(positions: np.ndarray, **settings) -> Regions:
    return find_regions(positions.astype(np.float32), [f"p{i}" for i in range(len(positions))], **settings)


@pytest.mark.parametrize("seed", range(3))
def test_planted_groups_and_their_parts_are_two_levels(seed: int):
    from sklearn.metrics import adjusted_rand_score

    positions, group, part = planted(5, 4, 80, seed)
    found = regions_of(positions)
    assert found.per_level == (5, 20)
    assert adjusted_rand_score(group, found.levels[0]) > 0.98
    assert adjusted_rand_score(part, found.levels[1]) > 0.95
    assert whole_map_level(found.per_level) == 1


def test_what_is_left_beside_an_island_has_no_name_of_its_own():
    rng = np.random.default_rng(0)
    positions = np.concatenate([rng.normal(0, 2, (4000, 2)), rng.normal((14, 0), 0.05, (60, 2))])
    found = find_regions(positions.astype(np.float32), ["sea"] * 4000 + ["island"] * 60)
    assert [region.label for region in found.table if region.size > 3000] == ["nearly all points"]
    assert "island" in [region.label for region in found.table]


@pytest.mark.parametrize("seed", range(3))
def test_regions_agree_with_hdbscan_on_blobs_of_unlike_size_in_noise(seed: int):
    from sklearn.cluster import HDBSCAN
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(seed)
    sizes = [60, 120, 240, 240, 480, 960]
    truth = np.repeat(np.arange(6), sizes)
    centres = 12 * np.column_stack([np.cos(np.arange(6)), np.sin(np.arange(6))])
    blobs = centres[truth] + rng.normal(0, 1, (len(truth), 2)) * np.linspace(0.4, 1.3, 6)[truth][:, None]
    noise = rng.uniform(-18, 18, (200, 2))
    positions = np.concatenate([blobs, noise])
    found = regions_of(positions).levels[0]
    oracle = HDBSCAN(min_cluster_size=30, copy=True).fit_predict(positions)
    both = (found >= 0) & (oracle >= 0)
    assert both[: len(truth)].mean() > 0.8
    assert adjusted_rand_score(oracle[both], found[both]) > 0.95
    assert adjusted_rand_score(truth, found[: len(truth)]) > 0.95
    assert (found[len(truth) :] == NONE).mean() > 0.5, "most of the noise lies in no region"


@pytest.mark.parametrize(("n", "seeds"), [(60, 4), (700, 4), (6000, 2)])
def test_maps_without_structure_have_no_regions(n: int, seeds: int):
    invented = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        disc = rng.normal(size=(n, 2))
        disc *= np.sqrt(rng.random(n) / np.square(disc).sum(1))[:, None]
        invented += [regions_of(x).per_level for x in (rng.random((n, 2)), rng.normal(size=(n, 2)), disc)]
    assert invented == [()] * 3 * seeds


def test_a_map_of_unstructured_vectors_has_no_regions():
    """The layout draws random neighbours together, which must not read as density: `umap` of Gaussian vectors."""
    for seed in range(2):
        vectors = torch.randn(800, 16, generator=torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        near = find_neighbours(vectors, 15, metric="cosine", generator=generator).neighbours
        assert regions_of(lay_out(vectors, near, seed=seed).positions).per_level == ()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), n_blobs=st.integers(2, 40), spread=st.floats(0.2, 3))
def test_every_region_lies_within_one_of_the_coarser_level(seed: int, n_blobs: int, spread: float):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 10, (n_blobs, 2))
    positions = centres[rng.integers(0, n_blobs, 1500)] + rng.normal(0, spread, (1500, 2))
    found = regions_of(positions)
    starts = np.cumsum([0, *found.per_level])
    for number, region in enumerate(found.table):
        mine = found.levels[region.level] == number
        assert region.region == number
        assert region.size == mine.sum() >= 5
        assert starts[region.level] <= number < starts[region.level + 1]
        if region.level:
            assert set(found.levels[region.level - 1][mine]) == {region.parent}
        else:
            assert region.parent == NONE
        assert region.x_min <= region.x <= region.x_max
        assert region.y_min <= region.y <= region.y_max
        assert np.isclose(region.x_min, positions[mine, 0].min(), rtol=1e-5)
    order = [(-r.level, r.size) for r in found.table]
    assert order == sorted(order, reverse=True), "by level, then by falling size"
    assert [r.priority for r in found.table] == sorted((r.priority for r in found.table), reverse=True)


def test_regions_do_not_depend_on_the_order_of_points_nor_on_the_scale():
    positions, _, _ = planted(4, 3, 60)
    found = regions_of(positions)
    order = np.random.default_rng(1).permutation(len(positions))
    shuffled, scaled = regions_of(positions[order]), regions_of(4096 * positions - 1024)
    assert found.per_level == shuffled.per_level == scaled.per_level
    np.testing.assert_array_equal(scaled.levels, found.levels)
    for one, two in zip(found.levels[:, order], shuffled.levels, strict=True):
        assert len(set(zip(one.tolist(), two.tolist(), strict=True))) == len(set(one.tolist()))


def test_repeated_points_far_points_and_one_place():
    positions, group, _ = planted(4, 1, 100)
    same = np.repeat(positions[:1], 50, axis=0)  # fifty equal rows are a dense place
    far = np.array([[1e6, 1e6]])
    found = regions_of(np.concatenate([positions, same, far]))
    assert found.levels[-1][-1] == NONE, "one point far away is no region"
    assert len({found.levels[0][:400][group == g][50] for g in range(4)}) == 4, "and leaves the others their detail"
    assert regions_of(np.zeros((50, 2))).table == []
    assert regions_of(np.random.default_rng(0).normal(size=(9, 2))).table == []


def test_a_region_is_one_piece_the_one_with_most_points():
    cells = np.full((6, 9), NONE)
    cells[0:2, 0:2] = 0  # region 0 in two pieces, the second with more points
    cells[4:6, 5:8] = 0
    cells[2, 2] = cells[3, 3] = 1  # touching at a corner is together
    counts = np.where(cells >= 0, 1.0, 0.0)
    kept = one_piece(Grid(0, 0, 1, counts, np.zeros(0, np.int64)), cells)
    assert (kept[4:6, 5:8] == 0).all()
    assert (kept[0:2, 0:2] == NONE).all()
    assert kept[2, 2] == kept[3, 3] == 1


def test_peaks_and_basins_equal_the_definition():
    """ToMATo by its definition: cells from the highest down, each joins its highest neighbour's peak."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        height = 1 + rng.random((13, 11)) + rng.integers(0, 3, (13, 11))
        basin = climb(height)
        tops, index = np.unique(basin, return_inverse=True)
        ends = join(height.ravel()[tops], *saddles(height, index.reshape(height.shape)), 0.7)
        ours = tops[ends][index].reshape(height.shape)
        np.testing.assert_array_equal(ours, brute_force(height, 0.7))


def brute_force(height: np.ndarray, prominence: float) -> np.ndarray:
    n_y, n_x = height.shape
    root: dict[int, int] = {}

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    flat = height.ravel()
    for cell in np.argsort(-flat).tolist():
        y, x = divmod(cell, n_x)
        around = [(y + dy) * n_x + x + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)
                  if (dy or dx) and 0 <= y + dy < n_y and 0 <= x + dx < n_x]  # fmt: skip
        higher = sorted((i for i in around if i in root), key=lambda i: -flat[i])
        root[cell] = find(higher[0]) if higher else cell
        for other in higher:
            one, two = sorted((find(cell), find(other)), key=lambda i: flat[i])
            if one != two and flat[one] - flat[cell] < prominence:
                root[one] = two
    return np.array([find(i) for i in range(height.size)]).reshape(height.shape)


def test_the_outline_of_a_disc_has_its_area_and_holds_it():
    y, x = np.mgrid[0:120, 0:150] + 0.5
    inside = np.hypot(y - 60, x - 70) < 32
    ring = outline(inside, corner=(10.0, -5.0), step=0.25)
    assert (ring[0] == ring[-1]).all()
    assert Polygon(ring).area == pytest.approx(np.pi * 8**2, rel=0.03)
    places = np.column_stack([10 + 0.25 * x.ravel(), -5 + 0.25 * y.ravel()])
    held = contains(ring, places)
    assert held[inside.ravel()].mean() > 0.995
    assert held[~inside.ravel()].mean() < 0.01
    assert len(ring) < 60, "few corners say it"


def test_an_outline_of_a_ring_leaves_the_hole_in_and_of_nothing_is_empty():
    y, x = np.mgrid[0:80, 0:80] + 0.5
    distance = np.hypot(y - 40, x - 40)
    ring = outline((distance < 30) & (distance > 12), corner=(0, 0), step=1)
    assert Polygon(ring).area == pytest.approx(np.pi * 30**2, rel=0.03)
    assert outline(np.zeros((5, 5), bool), corner=(0, 0), step=1).shape == (0, 2)
    one = np.zeros((5, 5), bool)
    one[2, 2] = True
    assert contains(outline(one, corner=(0, 0), step=1), np.array([[2.5, 2.5]])).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
@example(seed=1238)
@example(seed=233)
def test_outlines_are_valid_rings_around_what_they_are_given(seed: int):
    inside = gaussian_filter(np.random.default_rng(seed).random((30, 40)), 3) > 0.5
    part = largest_part(inside)
    ring = outline(part, corner=(0, 0), step=1)
    assert (ring[0] == ring[-1]).all()
    assert Polygon(ring).is_valid
    y, x = np.mgrid[0:30, 0:40] + 0.5
    held = contains(ring, np.column_stack([x.ravel(), y.ravel()])).reshape(part.shape)
    around = np.ones((3, 3), bool)  # a cut corner can cross the cell that lies diagonally behind it
    assert held[binary_erosion(binary_fill_holes(part), around)].all(), "but for cells at the edge"
    closed = binary_fill_holes(binary_closing(np.pad(part, 3), around))[3:-3, 3:-3]  # a gap of one cell may close
    assert not held[~binary_dilation(closed, around)].any()


def largest_part(inside: np.ndarray) -> np.ndarray:
    numbered, _ = label(inside)
    return numbered == 1 + np.bincount(numbered.ravel())[1:].argmax()


@pytest.mark.parametrize("seed", range(2))
def test_outlines_hold_nearly_all_their_points_and_the_anchor(seed: int):
    positions, _, _ = planted(5, 4, 80, seed)
    found = regions_of(positions)
    for region in found.table:
        ring = np.array(region.contour).reshape(-1, 2)
        mine = found.levels[region.level] == region.region
        assert contains(ring, positions[mine]).mean() > 0.95
        assert contains(ring, positions[~mine]).mean() < 0.01
        assert contains(ring, np.array([[region.x, region.y]])).all()


def test_the_anchor_is_a_dense_place():
    rng = np.random.default_rng(0)
    halo, core = rng.normal((0, 0), 2, (300, 2)), rng.normal((2, 1), 0.1, (300, 2))
    other = rng.normal((30, 0), 1, (300, 2))
    found = regions_of(np.concatenate([halo, core, other]))
    assert found.per_level[0] == 2
    anchor = min(found.table[:2], key=lambda region: region.x)
    assert np.hypot(anchor.x - 2, anchor.y - 1) < 0.6


@pytest.mark.slow
@pytest.mark.long
def test_a_million_points_are_cut_in_bounded_memory():
    import resource

    rng = np.random.default_rng(0)
    centres = rng.normal(0, 30, (300, 2))
    blob = rng.integers(0, 300, 1_000_000)
    positions = (centres[blob] + rng.normal(0, 0.4, (len(blob), 2))).astype(np.float32)
    labels = [f"<b>{i}</b> شبكة word{b}{i % 5}" for i, b in enumerate(blob.tolist())]
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = find_regions(positions, labels)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert 3 <= len(found.levels) <= 5
    assert after.ru_maxrss - before.ru_maxrss < 3_000_000, "kilobytes"
    assert find_hierarchy(positions[:14]).levels == []
