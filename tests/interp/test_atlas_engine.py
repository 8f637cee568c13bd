"""Our layout and neighbour search: the same for any number of threads, as good as the reference, found otherwise."""

import hashlib
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
import torch

from interp.atlas import neighbours as approximate
from interp.atlas.layout import curve, force_tables, fuzzy_graph, lay_out, move_points
from interp.atlas.neighbours import approximate_neighbours, find_neighbours, measure_quality, nearest_neighbours


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clustered(n: int = 1500, d: int = 24, seed: int = 0) -> torch.Tensor:
    drawn = generator(seed)
    centres = torch.randn(12, d, generator=drawn)
    return centres[torch.arange(n) % 12] + 0.4 * torch.randn(n, d, generator=drawn)


def test_the_graph_is_umap_learns():
    from umap.umap_ import fuzzy_simplicial_set

    x = clustered(400)
    near = nearest_neighbours(x, 15, metric="euclidean")
    ours = fuzzy_graph(near)
    indices = np.column_stack([np.arange(400), near.indices.numpy()]).astype(np.int32)
    distances = np.column_stack([np.zeros(400), near.distances.numpy()]).astype(np.float32)
    theirs = fuzzy_simplicial_set(
        x.numpy(), 16, np.random.RandomState(0), "euclidean", knn_indices=indices, knn_dists=distances
    )[0].tocsr()
    theirs.sort_indices()
    assert ours.starts.tolist() == theirs.indptr.tolist()
    assert ours.others.tolist() == theirs.indices.tolist()
    np.testing.assert_allclose(ours.weights, theirs.data, atol=1e-3)


def test_the_curve_is_umap_learns_and_tables_follow_the_formulas():
    from umap.umap_ import find_ab_params

    np.testing.assert_allclose(curve(0.1), find_ab_params(1.0, 0.1), rtol=1e-6)
    a, b = curve(0.1)
    attraction, repulsion = force_tables(a, b)
    squared = np.array([1e-4, 0.03, 1.0, 7.5, 900.0], np.float32)
    entry = squared.view(np.int32) >> 16
    wanted = 2 * a * b * squared ** (b - 1.0) / (1 + a * squared**b)
    np.testing.assert_allclose(attraction[entry], wanted, rtol=0.008)
    np.testing.assert_allclose(repulsion[entry], 2 * b / ((0.001 + squared) * (1 + a * squared**b)), rtol=0.008)
    assert attraction[0] == repulsion[0] == 0


@pytest.mark.parametrize("metric", ["cosine", pytest.param("euclidean", marks=pytest.mark.slow)])
def test_maps_are_as_true_as_umap_learns_over_seeds(metric: str):
    x = clustered()
    near = nearest_neighbours(x, 15, metric=metric)

    def scores(method: str) -> np.ndarray:
        found = [
            measure_quality(
                x,
                lay_out(x, near, method=method, metric=metric, seed=seed).positions,
                metric=metric,
                generator=generator(),
            )
            for seed in range(3)
        ]
        return np.array([[f.trustworthiness, f.recall] for f in found if f is not None])

    ours, theirs = scores("umap"), scores("umap-learn")
    assert (ours.mean(0) > theirs.mean(0) - 0.01).all(), (ours, theirs)


def test_a_rolled_up_sheet_is_laid_out_as_truly_as_by_umap_learn():
    def scores(seed: int) -> list[list[float]]:
        turn, height = torch.rand(2, 1500, generator=generator(seed + 40))
        turn = 1.5 * torch.pi * (1 + 2 * turn)
        x = torch.stack([turn * turn.cos(), 21 * height, turn * turn.sin()], 1)
        near, found = nearest_neighbours(x, 15, metric="euclidean"), []
        for method in ("umap", "umap-learn"):
            places = lay_out(x, near, method=method, metric="euclidean", seed=seed).positions
            quality = measure_quality(x, places, metric="euclidean", generator=generator())
            found.append([quality.trustworthiness, quality.continuity, quality.recall])
        return found

    ours, theirs = np.mean([scores(seed) for seed in range(3)], axis=0)
    assert (ours > theirs - np.array([0.003, 0.01, 0.02])).all(), (ours, theirs)


def test_another_seed_gives_another_map_and_two_parts_stay_apart():
    x = torch.cat([clustered(300) + 40, clustered(300, seed=1) - 40])
    near = nearest_neighbours(x, 10, metric="euclidean")
    one, other = (lay_out(x, near, metric="euclidean", seed=seed).positions for seed in (0, 1))
    assert not np.array_equal(one, other)
    for positions in (one, other):
        middle = np.stack([positions[:300].mean(0), positions[300:].mean(0)])
        assert np.linalg.norm(middle[0] - middle[1]) > positions[:300].std()


def test_copies_of_one_vector_and_a_sent_stop_are_handled():
    x = torch.cat([torch.zeros(40, 8) + 1, clustered(80, 8)])
    near = nearest_neighbours(x, 10, metric="euclidean")
    assert np.isfinite(lay_out(x, near, metric="euclidean", seed=0).positions).all()

    class Stop(Exception):
        pass

    def stop(done: int, total: int, info: dict) -> None:
        raise Stop

    start = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    with pytest.raises(Stop):
        move_points(fuzzy_graph(near), start, min_dist=0.1, seed=0, progress=stop)


def test_approximate_neighbours_hold_nearly_all_true_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(approximate, "POOL", 400)
    for metric in ("cosine", "euclidean"):
        x = clustered(3000)
        near, recall = approximate_neighbours(x, 10, metric=metric, generator=generator())
        exact = nearest_neighbours(x, 10, metric=metric)
        share = (near.indices[:, :, None] == exact.indices[:, None, :]).any(2).float().mean()
        assert share > 0.9
        assert recall == pytest.approx(float(share), abs=0.03), "what it says of itself, from a sample"
        assert (near.indices != torch.arange(3000)[:, None]).all()
        assert (near.distances.diff(dim=1) >= -1e-5).all()


def test_the_search_is_exact_where_all_pairs_are_affordable():
    x = clustered(300)
    found = find_neighbours(x, 5, metric="cosine", generator=generator())
    assert (found.search, found.recall) == ("exact", 1.0)
    assert torch.equal(found.neighbours.indices, nearest_neighbours(x, 5).indices)


PROGRAM = """
import torch
torch.set_num_threads(2)
from interp.atlas import neighbours as approximate
from tests.interp.test_atlas_engine import clustered, digest
approximate.POOL = 300
print(digest(clustered()))
"""


def digest(x: torch.Tensor) -> str:
    """Of a whole map: searched neighbours, exact ones, positions."""
    searched, _ = approximate_neighbours(x, 15, metric="cosine", generator=generator())
    near = nearest_neighbours(x, 15)
    positions = lay_out(x, searched, seed=3).positions
    parts = (searched.indices, searched.distances, near.indices, near.distances, torch.from_numpy(positions))
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def test_maps_are_the_same_to_the_bit_for_any_number_of_threads_and_in_a_fresh_process(one_thread, monkeypatch):
    """Here on one thread, there on two."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True)
    monkeypatch.setattr(approximate, "POOL", 300)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert digest(clustered()) == done.stdout.strip()
    finally:
        numba.set_num_threads(before)


def test_tsne_is_there_for_comparison():
    x = clustered(300)
    near = nearest_neighbours(x, 15)
    layout = lay_out(x, near, method="tsne")
    quality = measure_quality(x, layout.positions, metric="cosine", generator=generator())
    assert layout.method == "tsne"
    assert quality.trustworthiness > 0.8


def test_a_sent_stop_ends_the_search_within_a_block():
    class Stop(Exception):
        pass

    blocks = []

    def stop(done: int, total: int, info: dict) -> None:
        blocks.append(done)
        raise Stop

    with pytest.raises(Stop):
        nearest_neighbours(clustered(4000), 5, block=20, progress=stop)
    assert len(blocks) == 1
