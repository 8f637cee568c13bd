"""What heads of the real model do for indirect objects, against an implementation that shares no line with ours."""

import pytest
import torch

from interp.circuits.attribution import attribute
from interp.circuits.graph import Graph
from interp.circuits.tasks import ioi_task
from interp.lenses.direct_attribution import direct_logit_attribution
from interp.models.packaged import PACKAGED
from tests.oracles.plain_heads import direct_effects, load_plain, resampled_effects

LAYERS = [16, 23]
"""two layers whose heads differ most in what they do; all thirty take minutes"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_effects_of_heads_are_those_of_plain_hooks(smollm2):
    task = ioi_task(smollm2, n_prompts=4, seed=1, check_gap=False)
    graph = Graph.from_model(smollm2)
    n_heads, at = graph.n_heads, task.at[:, 0]
    correct, wrong = task.metric.correct[:, 0, 0], task.metric.wrong[:, 0, 0]
    plain = load_plain(*PACKAGED["smollm2-135m"].parts())

    direct = direct_effects(plain, task.clean, at, correct, wrong)
    ours = direct_logit_attribution(smollm2, task.clean, correct, wrong, position=at).heads.mean(-1)
    torch.testing.assert_close(ours.float(), direct, atol=2e-3, rtol=1e-3)

    resampled = resampled_effects(plain, task.clean, task.corrupt, at, correct, wrong, LAYERS)
    sources = [graph.sources.index(f"L{layer}H{head}") for layer in LAYERS for head in range(n_heads)]
    exact = attribute(smollm2, task, graph, method="exact", level="node", only=sources).values[sources]
    torch.testing.assert_close(exact.float().reshape(len(LAYERS), n_heads), resampled, atol=2e-3, rtol=1e-3)
    assert resampled.abs().max() > 0.05, "something is compared"
