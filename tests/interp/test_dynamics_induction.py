"""Following a toy: what its curves are, on a planted model and over training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.models.loading import load_model
from interp.models.toys import TOYS, planted_induction
from interp.studies.induction_emerges import follow_induction, measure_repeats
from interp.studies.induction_onset import CURVES


def test_a_planted_induction_circuit_scores_one():
    model = planted_induction()
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(seed)) for seed in range(8)])
    found = measure_repeats(model, order.repeat(1, 2), 20)
    assert found["previous"] > 0.99
    assert found["induction"] > 0.95
    assert found["accuracy"] > 0.9
    assert found["loss_repeat"] < 1 < found["loss_first"]
    assert found["composition"] > 2


def test_an_untrained_model_scores_nothing():
    model = load_model("small:attn-only-2l", seed=0)
    rows = torch.randint(200, (8, 24), generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    found = measure_repeats(model, rows, 20)
    assert found["induction"] < 0.1
    assert found["accuracy"] < 0.1
    assert found["loss_repeat"] == pytest.approx(found["loss_first"], abs=0.3)


def test_a_run_is_followed_from_its_first_step_and_may_be_stopped():
    toy = replace(TOYS["induction-1l"], training=replace(TOYS["induction-1l"].training, batch_size=8))
    run = follow_induction(toy, steps=16, every=2)
    assert run.steps.tolist() == list(range(0, 17, 2))
    assert set(run.curves) == set(CURVES)
    assert (run.curves["composition"] == 1).all(), "one layer has nothing to compose"
    assert run.onset is None
    assert run.together is None

    class Stop(Exception):
        pass

    def stop(done: int, total: int, info: dict) -> None:
        raise Stop

    with pytest.raises(Stop):
        follow_induction(toy, steps=16, every=2, progress=stop)


@pytest.mark.slow
@pytest.mark.long
def test_the_phase_change_is_found_where_two_layers_have_it_and_one_has_none():
    two = follow_induction("toy:induction-2l", steps=1000, every=50)
    assert two.onset is not None
    assert 250 < two.onset < 700, "the recipe's onset over seeds"
    assert two.transitions["induction"].sudden
    assert two.together is not None
    assert two.together < 100, "copying and induction score change together"
    assert two.curves["composition"][-1] > 1.5 * two.curves["composition"][0]
    one = follow_induction("toy:induction-1l", steps=1000, every=50)
    assert one.curves["induction"].max() < 0.15
    assert one.curves["loss_repeat"][-1] > two.curves["loss_repeat"][-1] + 1
    assert one.onset is None
    assert not one.transitions["induction"].sudden
    assert np.isfinite(one.curves["loss_repeat"]).all()
