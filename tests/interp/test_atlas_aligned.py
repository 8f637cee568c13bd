"""Aligned maps: what did not change stays, what changed moves, and each map is as true as alone."""

import numpy as np
import pytest
import torch

from interp.atlas.build import in_one_frame, lay_out_aligned, movement
from interp.atlas.layout import lay_out
from interp.atlas.neighbours import measure_quality, nearest_neighbours
from interp.errors import ConfigError

N, GROUPS = 480, 8


def spaces_with_a_mover(seed: int = 0, d: int = 20) -> list[torch.Tensor]:
    """Three spaces: the second is the first turned about; in the third, group 0 has gone over to group 5."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(GROUPS, d, generator=generator)
    noise = 0.5 * torch.randn(N, d, generator=generator)
    group = torch.arange(N) % GROUPS
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    moved = torch.where(group == 0, torch.tensor(5), group)
    return [centres[group] + noise, (centres[group] + noise) @ turn, centres[moved] + noise]


def neighbours_of(spaces: list[torch.Tensor]):
    return [nearest_neighbours(space, 12, metric="euclidean") for space in spaces]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_what_changed_moves_and_the_rest_stays(seed: int):
    spaces = spaces_with_a_mover(seed)
    found = lay_out_aligned(spaces, neighbours_of(spaces), seed=seed)
    went, host = np.arange(N) % GROUPS == 0, np.arange(N) % GROUPS == 5
    still, turned = found.moved[1][~went], found.moved[0]
    assert np.median(turned) < 1.5 * np.median(found.null), "the same cloud, turned about, is the same map"
    assert np.median(still) < 2 * np.median(found.null), "it makes room"
    assert np.median(found.moved[1][went]) > 3 * np.median(still)
    assert found.stayed[0].min() > 0.7, "neighbours do not turn (but for rounding)"
    assert found.stayed[1][~went & ~host].mean() > 0.98
    assert found.stayed[1][went].mean() < 0.8
    centre = {g: found.positions[2][np.arange(N) % GROUPS == g].mean(0) for g in (0, 5)}
    assert np.linalg.norm(centre[0] - centre[5]) < 0.5 * np.linalg.norm(found.positions[2], axis=1).mean()


def test_an_aligned_map_is_as_true_as_one_laid_out_alone_and_moves_less():
    spaces = spaces_with_a_mover()
    near = neighbours_of(spaces)
    together = lay_out_aligned(spaces, near, seed=0)
    alone = [lay_out(x, n, metric="euclidean", seed=0).positions for x, n in zip(spaces, near, strict=True)]

    def trust(positions: np.ndarray, space: torch.Tensor) -> float:
        found = measure_quality(space, positions, metric="euclidean", generator=torch.Generator().manual_seed(0))
        return found.trustworthiness

    for space, aligned, own in zip(spaces, together.positions, alone, strict=True):
        assert trust(aligned, space) > trust(own, space) - 0.01
    unaligned = movement(in_one_frame(alone))
    assert np.median(together.moved) < 0.5 * np.median(unaligned)


def test_without_change_points_move_as_little_as_the_null_and_the_same_seed_gives_the_same_bits():
    x = spaces_with_a_mover()[0]
    near = nearest_neighbours(x, 12, metric="euclidean")
    one = lay_out_aligned([x, x], [near, near], seed=4)
    np.testing.assert_allclose(one.moved[0], one.null, atol=1e-6)
    assert (one.stayed == 1).all()
    two = lay_out_aligned([x, x], [near, near], seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(one.positions, two.positions, strict=True))


def test_a_turned_and_mirrored_map_is_laid_back_on_the_first():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(50, 2)).astype(np.float32)
    other = (first @ np.array([[0.6, 0.8], [0.8, -0.6]]) + 7).astype(np.float32)
    np.testing.assert_allclose(in_one_frame([first, other])[1], first, atol=1e-5)


def test_spaces_that_do_not_belong_together_are_refused():
    x = spaces_with_a_mover()[0]
    near = nearest_neighbours(x, 5)
    with pytest.raises(ConfigError, match="two spaces"):
        lay_out_aligned([x], [near])
    with pytest.raises(ConfigError, match="same points"):
        lay_out_aligned([x, x[:9]], [near, near])
    with pytest.raises(ConfigError, match="strength"):
        lay_out_aligned([x, x], [near, near], strength=2)
