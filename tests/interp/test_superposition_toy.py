"""Toys of superposition: the gradient against autograd, the pentagon in every seed, and the control that has none."""

from dataclasses import replace

import pytest
import torch

from notebooks.superposition import (
    ToyConfig,
    constant_loss,
    draw_features,
    loss_and_gradients,
    random_geometry,
    train_grid,
    train_toys,
)

QUICK = ToyConfig(steps=1000, lr=2e-2)


@pytest.fixture(scope="module")
def toys():
    return train_toys(QUICK, densities=(0.05, 0.2), n_seeds=8, seed=0)


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_the_written_gradient_is_autograds(activation):
    generator = torch.Generator().manual_seed(0)
    x = draw_features(torch.tensor([0.5, 0.9, 1.0]), 40, 6, generator).double()
    W = torch.randn(3, 6, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    importance = torch.rand(3, 6, generator=generator, dtype=torch.float64)
    pre = torch.einsum("kfn,kfd,kgd->kgn", x, W, W) + b[..., None]
    expected = (importance[..., None] * ((pre.relu() if activation == "relu" else pre) - x) ** 2).sum(1).mean(1)
    expected.sum().backward()
    loss, by_W, by_b = loss_and_gradients(x, W.detach(), b.detach(), importance, activation)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(by_W, W.grad)
    torch.testing.assert_close(by_b, b.grad)


def test_features_are_on_as_often_as_asked_and_even_between_0_and_1():
    density = torch.tensor([0.05, 0.5, 1.0])
    x = draw_features(density, 40_000, 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close((x > 0).float().mean((1, 2)), density, atol=0.006, rtol=0)
    for row in x:
        on = row[row > 0]
        assert float(on.mean()) == pytest.approx(0.5, abs=0.01)
        assert float(on.var()) == pytest.approx(1 / 12, abs=0.005)
    torch.testing.assert_close(x.var((1, 2)), constant_loss(density), atol=0.003, rtol=0)


@pytest.mark.parametrize("seed", [1, 2])
def test_five_rare_features_in_two_dimensions_form_a_pentagon(seed):
    """At this short training one or two in a hundred settle in antipodal pairs instead, at twice the loss."""
    found = train_toys(QUICK, densities=(0.05,), n_seeds=16, seed=seed)
    pentagon = torch.tensor([found.geometry(toy).polytopes() == {"pentagon": 1} for toy in range(16)])
    assert pentagon.sum() >= 14
    assert (found.loss[~pentagon] > 1.5 * found.loss[pentagon].max()).all()
    for toy in pentagon.nonzero()[:, 0].tolist():
        geometry = found.geometry(toy)
        torch.testing.assert_close(geometry.dimensionality, torch.full((5,), 0.4).double(), atol=0.02, rtol=0)
        assert geometry.total == pytest.approx(2, abs=1e-3)
    assert random_geometry(5, 2)[1] == 0, "chance gives none"


def test_at_middle_density_antipodal_pairs_appear_beside_pentagons(toys):
    kinds = [str(toys.at(0.2).geometry(toy).polytopes()) for toy in range(8)]
    assert set(kinds) <= {"{'antipodal pair': 2}", "{'pentagon': 1}"}
    assert "{'antipodal pair': 2}" in kinds


def test_a_toy_reads_its_features_back_better_than_a_constant(toys):
    assert (toys.unexplained < 0.75).all()
    assert float(toys.unexplained[:8].mean()) < float(toys.unexplained[8:].mean()), "rarer features interfere less"


def test_one_dimension_and_two_rare_features_give_an_antipodal_pair():
    found = train_toys(replace(QUICK, n_features=2, d_hidden=1), densities=(0.05,), n_seeds=8)
    best = found.geometry()
    assert best.polytopes() == {"antipodal pair": 1}
    assert best.dimensionality.tolist() == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_without_the_relu_the_most_important_features_take_the_dimensions_and_no_others(seed):
    importance = 0.7 ** torch.arange(5)
    control = replace(QUICK, activation="linear")
    found = train_grid(control, torch.full((4,), 0.05), importance.expand(4, -1), seed)
    for toy in range(4):
        geometry = found.geometry(toy)
        assert geometry.polytopes() == {"dedicated": 2}
        assert [features for features, _ in geometry.groups] == [(0,), (1,)]
        assert geometry.represented == geometry.rank


def test_untrained_toys_show_no_polytope():
    found = train_toys(replace(QUICK, steps=1, lr=1e-9), densities=(0.05,), n_seeds=20)
    assert not any("pentagon" in found.geometry(toy).polytopes() for toy in range(20))


def test_the_same_seed_gives_the_same_toys_whatever_the_threads(toys):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    again = train_toys(replace(QUICK, steps=20), densities=(0.05, 0.2), n_seeds=8, seed=0)
    torch.set_num_threads(1)
    once = train_toys(replace(QUICK, steps=20), densities=(0.05, 0.2), n_seeds=8, seed=0)
    torch.set_num_threads(before)
    assert torch.equal(again.W, once.W)
    other = train_toys(replace(QUICK, steps=20), densities=(0.05, 0.2), n_seeds=8, seed=1)
    assert not torch.equal(other.W, once.W)
