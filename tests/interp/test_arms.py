"""Arms that share a pass have the numbers of passes of their own."""

from dataclasses import replace

import pytest
import torch

from interp.interventions import arms as measured
from interp.interventions.arms import Arms, prefix_of, read_arms
from tests.interp.architectures import ALL_NAMES, tiny


@pytest.mark.parametrize("point", ["blocks.0.hook_resid_post", "blocks.1.hook_attn_out"])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_positions_before_a_change_run_once_and_the_logits_stay(name, point, monkeypatch):
    """Behind windows, shared keys and caps, too; a model without a cache runs them for every arm."""
    model, generator = tiny(name), torch.Generator().manual_seed(4)
    tokens, at = torch.randint(1, 50, (1, 12), generator=generator), torch.tensor([[6, 7, 11]])
    arms = Arms(point, torch.randn(5, 32, generator=generator), torch.ones(5))
    sizes = torch.zeros(1, 12)
    sizes[0, [7, 10]] = torch.tensor([1.0, 2.0])
    prefix = replace(prefix_of(model, tokens, arms)[0], sizes=sizes)
    assert measured._past(model, prefix, at)[1] == (0 if name.startswith("native") else 6), "read before it is changed"
    shared = read_arms(model, prefix, arms, lambda logits: logits[:, 0], at=at)
    monkeypatch.setattr(measured, "LEAST_PAST", 99)
    alone = read_arms(model, prefix, arms, lambda logits: logits[:, 0], at=at)
    assert (alone[1:, 1] - alone[:1, 1]).abs().amax(1).min() > 0.01
    torch.testing.assert_close(shared, alone, atol=1e-4, rtol=1e-4)
