"""The activation atlas: averages are averages, say what was planted, and do not where positions are shuffled."""

import numpy as np
import pytest
import torch

from interp.atlas.cells import (
    DictionaryReadout,
    NearestReadout,
    UnembeddingReadout,
    cell_table,
    choose_grids,
    grid_cells,
    read_means,
)
from interp.dictionary import SparseActs
from interp.models.adapter import token_strings
from interp.models.toys import planted_induction

D_VOCAB = 16


@pytest.fixture(scope="module")
def model():
    return planted_induction(d_vocab=D_VOCAB, n_ctx=8)


def spoken(truth: torch.Tensor, seed: int, noise: float = 0.3) -> torch.Tensor:
    """Residuals that say token `truth`: the planted model's `out` subspace holds it, one-hot; the rest is noise."""
    generator = torch.Generator().manual_seed(seed)
    vectors = noise * torch.randn(len(truth), 3 * D_VOCAB + 8, generator=generator)
    vectors[torch.arange(len(truth)), 2 * D_VOCAB + truth] += 1.0
    return vectors


def blobs(truth: torch.Tensor, seed: int) -> np.ndarray:
    """One place per token, far from the others."""
    rng = np.random.default_rng(seed)
    t = truth.numpy()
    return np.column_stack([10.0 * (t % 4), 10.0 * (t // 4)]) + rng.normal(0, 0.5, (len(t), 2))


def share_right(model, positions: np.ndarray, vectors: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of cells whose average says the token that most of the cell's vectors say."""
    found = grid_cells(positions, vectors, 8)
    texts, _ = read_means(UnembeddingReadout(model), found.means, top=1)
    step = np.ptp(positions, axis=0).max() / 8
    right = []
    for x, y, said in zip(found.x, found.y, texts, strict=True):
        mine = (np.abs(positions - [x, y]) <= step / 2 + 1e-9).all(1)
        most = int(np.bincount(truth.numpy()[mine], minlength=D_VOCAB).argmax())
        right.append(said == token_strings(model, [most]))
    return float(np.mean(right))


@pytest.mark.parametrize("seed", range(3))
def test_cells_of_one_token_say_it_and_those_of_a_shuffled_map_do_not(model, seed: int):
    truth = torch.arange(D_VOCAB).repeat_interleave(40)
    vectors, positions = spoken(truth, seed), blobs(truth, seed)
    assert share_right(model, positions, vectors, truth) == 1.0
    shuffled = positions[np.random.default_rng(seed).permutation(len(positions))]
    planted, null = grid_cells(positions, vectors, 8), grid_cells(shuffled, vectors, 8)
    said = [read_means(UnembeddingReadout(model), c.means, top=1)[1] for c in (planted, null)]
    assert np.mean(said[0]) > 0.99
    assert planted.coherence.mean() > 0.1
    assert abs(null.coherence.mean()) < 0.03
    assert share_right(model, shuffled, vectors, truth) < 0.6, "right only by the majority among few"


def test_a_cell_of_one_point_says_what_the_point_says(model):
    truth = torch.arange(D_VOCAB)
    vectors, positions = spoken(truth, 0), blobs(truth, 0)
    found = grid_cells(positions, vectors, 64, fewest=1)
    assert (found.n == 1).all()
    assert (found.coherence == 1).all()
    readout = UnembeddingReadout(model)
    order = [int(np.abs(positions - [x, y]).sum(1).argmin()) for x, y in zip(found.x, found.y, strict=True)]
    torch.testing.assert_close(found.means, vectors[order])
    assert readout.read(found.means, 3).texts == readout.read(vectors[order], 3).texts


@pytest.mark.parametrize("n", [500, 20_000])
def test_averages_equal_a_loop_in_one_block_and_in_several(n):
    rng = np.random.default_rng(0)
    positions, vectors = rng.normal(size=(n, 2)), torch.from_numpy(rng.normal(1, 2, (n, 7))).float()
    whole = grid_cells(positions, vectors, 8, fewest=3)
    step = np.ptp(positions, axis=0).max() / 8
    middle = vectors.double().mean(0)
    assert whole.n.min() >= 3
    for i in range(len(whole.n)):
        mine = (np.abs(positions - [whole.x[i], whole.y[i]]) <= step / 2 + 1e-9).all(1)
        assert mine.sum() == whole.n[i]
        torch.testing.assert_close(whole.means[i], vectors[mine].mean(0))
        own = vectors[mine].double() - middle
        products = own @ own.T
        pairs = (products.sum() - products.trace()) / (len(own) * (len(own) - 1))
        assert whole.coherence[i] == pytest.approx(float(pairs / products.diagonal().mean()))


def test_coherence_tells_averages_of_like_from_averages_of_unlike_vectors():
    generator = torch.Generator().manual_seed(0)
    positions = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 100, axis=0)
    same = torch.ones(100, 20) * torch.randn(20, generator=generator)
    unlike = torch.randn(100, 20, generator=generator)
    opposite = torch.cat([torch.ones(50, 20), -torch.ones(50, 20)]) * 3
    found = grid_cells(positions, torch.cat([same, unlike, opposite]), 2)
    by_place = {(int(c), int(r)): v for c, r, v in zip(found.column, found.row, found.coherence, strict=True)}
    assert by_place[0, 0] == pytest.approx(1, abs=1e-6)
    assert abs(by_place[1, 0]) < 0.2
    assert abs(by_place[0, 1]) < 0.1


def test_a_common_mean_does_not_speak_for_every_average():
    """Tokens that lie at the mean of all would be nearest to each average of unlike tokens, cell after cell."""
    rng = np.random.default_rng(0)
    family = np.repeat(np.arange(8), 30)
    own = rng.normal(size=(8, 40))[family] * 0.5 + rng.normal(size=(240, 40)) * 1.5
    directions = torch.from_numpy(np.concatenate([own, np.zeros((5, 40))]) + 3.0).float()
    labels = [f"family{f}" for f in family] + ["hub"] * 5
    means = torch.stack([directions[:240][torch.from_numpy(family == f)].mean(0) for f in range(8)])
    reading = NearestReadout("tokens", directions, labels).read(means, 5)
    right = [text == f"family{f}" for f, texts in enumerate(reading.texts) for text in texts]
    assert np.mean(right) > 0.9
    plain = (torch.nn.functional.normalize(means, dim=1) @ torch.nn.functional.normalize(directions, dim=1).T).topk(5)
    assert np.mean([labels[i] == "hub" for row in plain.indices.tolist() for i in row]) > 0.9
    alone = NearestReadout("tokens", directions, labels).read(directions[:3], 1)
    assert [weight for (weight,) in alone.weights] == pytest.approx([1, 1, 1], abs=1e-5)


class Axes:
    """A dictionary whose features are the coordinates above a threshold."""

    d_in = d_sae = 6
    hook_point = "blocks.0.hook_resid_post"
    decoder_directions = torch.eye(6)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).relu()

    def encode_sparse(self, x: torch.Tensor) -> SparseActs:
        found = self.encode(x).topk(3)
        return SparseActs(found.values, found.indices)

    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        return feature_acts


def test_a_dictionary_reads_the_features_that_are_active_and_no_others():
    vectors = torch.tensor([[0.0, 2, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0.4]])
    reading = DictionaryReadout("axes", Axes(), ["a", "<b>b</b>", "c", "", "e", "f"]).read(vectors, 4)
    assert reading.texts == [["<b>b</b>", "feature 3"], []]
    assert reading.weights == [[1.5, 0.5], []]


def test_grids_get_finer_while_their_cells_hold_enough_points():
    rng = np.random.default_rng(0)
    few, many = rng.random((300, 2)), rng.random((12_000, 2))
    assert [c.grid for c in choose_grids(few, torch.zeros(300, 2), (8, 16, 32, 64), 5)] == [8]
    assert [c.grid for c in choose_grids(many, torch.zeros(12_000, 2), (8, 16, 32, 64), 5)] == [8, 16, 32]
    assert choose_grids(few[:3], torch.zeros(3, 2), (8, 16), 5) == []
    square = grid_cells(many * [4, 1], torch.zeros(12_000, 2), 16)
    assert set(square.column) == set(range(16))
    assert len(set(square.row)) in (4, 5), "cells are square"
    assert 0 < square.size.min() <= square.size.max() == 1
    assert (np.diff(square.size[np.argsort(square.n)]) >= 0).all(), "drawn larger the more points"


def test_the_table_holds_every_grid_and_hostile_texts_as_text():
    rng = np.random.default_rng(0)
    positions, vectors = rng.random((2000, 2)), torch.from_numpy(rng.normal(size=(2000, 4))).float()
    hostile = ["<script>x</script>", "שלום", "🦜\n", ""]
    readout = NearestReadout("tokens", torch.eye(4), hostile)
    table = cell_table(positions, vectors, readout)
    rows = table.rows()
    assert {row.grid for row in rows} == {8, 16}
    assert {row.source for row in rows} == {"tokens"}
    assert all(set(row.texts) == set(hostile) for row in rows)
    assert all(row.weights == sorted(row.weights, reverse=True) for row in rows)
    assert sum(row.n for row in rows if row.grid == 8) == 2000


def test_the_table_is_the_same_to_the_bit_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    positions, vectors = rng.normal(size=(4000, 2)), torch.from_numpy(rng.normal(size=(4000, 96))).float()
    readout = NearestReadout("tokens", vectors, [str(i) for i in range(4000)])
    before, tables = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            tables.append(cell_table(positions, vectors, readout).rows())
    finally:
        torch.set_num_threads(before)
    assert tables[0] == tables[1]


def test_one_place_far_points_and_too_few_points():
    readout = NearestReadout("tokens", torch.eye(3), ["a", "b", "c"])
    assert cell_table(np.zeros((1, 2)), torch.ones(1, 3), readout) is None
    assert {row.grid for row in cell_table(np.zeros((50, 2)), torch.ones(50, 3), readout).rows()} == {8}
    rng = np.random.default_rng(0)
    positions = np.concatenate([rng.random((400, 2)), [[1e7, 1e7]]])
    found = grid_cells(positions, torch.zeros(401, 2), 8)
    assert len(found.n) > 30, "a point far away leaves the cells where the others are"
