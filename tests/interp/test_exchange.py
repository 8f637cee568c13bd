"""Exchanging the coordinates along two directions: an involution that leaves the rest of the residual alone."""

import numpy as np
import pytest
import torch

from interp.errors import ConfigError
from interp.interventions.apply import hooks_of, intervened
from interp.interventions.intervention import Direction, Intervention
from interp.interventions.recipe import Recipe, read_recipe, write_recipe

POINT = "blocks.0.hook_resid_post"


def direction(seed: int, d: int = 64) -> Direction:
    return Direction(hook_point=POINT, vector=np.random.default_rng(seed).normal(size=d), origin=f"drawn {seed}")


def exchange(**more) -> Intervention:
    how = {"target": direction(0), "partner": direction(1), "action": "exchange", "positions": (0, None)}
    return Intervention(**how | more)


def changed(model, step: Intervention, value: torch.Tensor) -> torch.Tensor:
    ((_, hook),) = hooks_of(model, [step])
    return hook(value)


def coordinates(value: torch.Tensor) -> torch.Tensor:
    pair = torch.stack([torch.from_numpy(direction(seed).vector).float() for seed in (0, 1)])
    return value @ torch.linalg.pinv(torch.nn.functional.normalize(pair, dim=1).T).T


def test_coordinates_are_exchanged_and_nothing_else_changes(tiny_model):
    value = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(3))
    after = changed(tiny_model, exchange(), value)
    assert torch.allclose(coordinates(after), coordinates(value).flip(-1), atol=1e-5)
    pair = torch.stack([torch.from_numpy(direction(seed).vector).float() for seed in (0, 1)])
    others = torch.linalg.svd(pair, full_matrices=True).Vh[2:]
    assert torch.allclose(after @ others.T, value @ others.T, atol=1e-5)
    assert torch.allclose(changed(tiny_model, exchange(), after), value, atol=1e-5)


def test_the_pseudoinverse_is_that_of_transformer_lens(tiny_model):
    """Gurnee et al. 2026: h + V (sigma(c) - c), c = V+ h, V of unit columns."""
    value = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(4))
    pair = torch.stack([torch.from_numpy(direction(seed).vector).float() for seed in (0, 1)])
    columns = (pair / pair.norm(dim=1, keepdim=True)).T
    own = value @ torch.linalg.pinv(columns).T
    expected = value + (own.flip(-1) - own) @ columns.T
    assert torch.allclose(changed(tiny_model, exchange(), value), expected, atol=1e-5)


def test_a_control_changes_as_much_in_another_direction(tiny_model):
    units = [each.vector / np.linalg.norm(each.vector) for each in (direction(0), direction(1))]
    drawn = direction(2).vector
    length = np.linalg.norm(units[0] - units[1]) / np.linalg.norm(drawn)
    along = Direction(hook_point=POINT, vector=drawn * length, origin="control")
    value = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(5))
    own, control = (changed(tiny_model, step, value) - value for step in (exchange(), exchange(along=along)))
    assert torch.allclose(own.norm(dim=-1), control.norm(dim=-1), rtol=1e-4)
    assert not torch.allclose(own, control, atol=1e-2)


def test_it_is_kept_in_a_recipe_and_done_again(tiny_model, tmp_path):
    write_recipe(Recipe(name="swapped", steps=(exchange(),), model="tiny"), tmp_path / "swapped.json")
    (step,) = read_recipe(tmp_path / "swapped.json").steps
    tokens = torch.arange(97, 105)[None]
    found = []
    for each in (step, exchange()):
        with intervened(tiny_model, [each]), torch.no_grad():
            found.append(tiny_model(tokens))
    assert torch.equal(*found)
    with torch.no_grad():
        assert not torch.allclose(found[0], tiny_model(tokens), atol=1e-3)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"partner": None}, "second direction"),
        ({"action": "add"}, "second direction"),
        ({"partner": direction(0)}, "parallel"),
        ({"partner": direction(1, 32)}, "64 and 32 numbers"),
        (
            {"partner": Direction(hook_point="blocks.1.hook_resid_post", vector=np.ones(64), origin="x")},
            "one hook point",
        ),
    ],
)
def test_what_cannot_be_exchanged_is_refused(more, told):
    with pytest.raises(ConfigError, match=told):
        exchange(**more)
