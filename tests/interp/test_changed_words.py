"""Words for a fine-tune: a planted direction is named; a copy and an equal change along random directions are not."""

from functools import cache

import pytest
import torch
from tuned_pair import CONFIG, contexts, copy_of

from interp.changes._components import check_comparable
from interp.changes._reading import changed_words, scrambled
from interp.errors import ConfigError
from interp.lenses.vocabulary import read_directions
from interp.models.small import build_small
from interp.seeds import make_generator

WORD, LAYER = 7, 1

pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def base_model():
    """Shared: read-only."""
    return build_small(CONFIG, seed=0, device="cpu", dtype=torch.float32)


def written_along(direction):
    """A copy whose MLP of one layer also writes along a direction, by a change half as long as its matrix."""
    model = copy_of(base_model())
    weight = model.blocks[LAYER].mlp.out.original_component.weight
    change = torch.outer(direction, torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        weight += 0.5 * weight.norm() * change / change.norm()
    return model


def report(tuned, **options):
    return changed_words(base_model(), tuned, contexts(16, 9, keys=0.0), **options)


def found_in(rows, *questions):
    return [row for row in rows if row.found and row.question in questions]


@pytest.fixture(scope="module")
def planted():
    return report(written_along(read_directions(base_model())[WORD]))


def test_a_planted_direction_is_named_by_difference_weights_and_predictions(planted):
    rows, said = planted
    found = {(row.question, row.name): row for row in found_in(rows, "difference", "writes")}
    assert ("difference", f"L{LAYER}") in found
    assert ("writes", f"L{LAYER}.mlp.out 1") in found
    assert not {name for question, name in found if question == "difference"} & {"embed", "L0"}
    assert all(row.words[0] == str(WORD) for row in found.values())
    assert [row.name for row in found_in(rows, "more")] == [str(WORD)]
    assert not found_in(rows, "less")
    assert len(found_in(rows, "predictions")) == 1
    assert said.steered_at == f"blocks.{LAYER}.hook_resid_post"
    (text,) = said.written  # without a BOS no text is begun from nothing
    assert len({text.base, text.steered, text.null}) == 3


def test_a_copy_says_nothing():
    rows, said = report(copy_of(base_model()))
    assert [(row.question, row.value, row.found) for row in rows] == [("predictions", 0, False)]
    assert not said.turns
    assert not said.steered_at


@pytest.mark.parametrize("seed", [0, 1])
def test_an_equal_change_along_a_random_direction_names_nothing(seed):
    rows, _ = report(written_along(torch.randn(32, generator=torch.Generator().manual_seed(100 + seed))))
    assert {"difference", "writes"} <= {row.question for row in rows}
    assert not found_in(rows, "difference", "writes", "more", "less")


def test_the_null_keeps_norm_and_rank_of_a_change_and_the_base_is_restored():
    base, tuned = base_model(), written_along(read_directions(base_model())[WORD])
    ones, twos = check_comparable(base, tuned)
    at = next(i for i, each in enumerate(ones) if each.name == f"L{LAYER}.mlp.out")
    before = [one.matrix() for one in ones]
    with scrambled(ones, twos, make_generator(0, "test")):
        moved = [i for i, one in enumerate(ones) if not torch.equal(one.matrix(), before[i])]
        change, true = ones[at].matrix() - before[at], twos[at].matrix() - before[at]
    assert moved == [at]
    assert change.norm() == pytest.approx(float(true.norm()), rel=1e-5)
    assert torch.linalg.svdvals(change)[1] < 1e-4 * change.norm()
    assert abs(float((change * true).sum())) < 0.9 * float(true.norm()) ** 2
    assert all(torch.equal(one.matrix(), each) for one, each in zip(ones, before, strict=True))


def test_too_few_nulls_are_refused():
    with pytest.raises(ConfigError, match="at least 2"):
        changed_words(base_model(), base_model(), contexts(16, 9, keys=0.0), n_null=1)
