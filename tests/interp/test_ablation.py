"""Ablation against hand-made replacements, and on the planted circuit."""

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.models.adapter import run_with_cache, run_with_hooks
from interp.models.passes import loss_per_token
from interp.models.toys import planted_induction
from interp.patching.ablation import Ablator, ablate, ablated
from tests.interp.architectures import ALL_NAMES, tiny

TOKENS = torch.randint(1, 50, (5, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
@torch.no_grad()
def test_ablation_is_the_plain_replacement(name, kind):
    model = tiny(name)
    z_name, mlp_name = "blocks.0.attn.hook_z", "blocks.1.hook_mlp_out"
    _, cache = run_with_cache(model, TOKENS, [z_name, mlp_name])

    def replace(value, hook):
        other = {"zero": cache[hook.place] * 0, "mean": cache[hook.place].mean(0, keepdim=True)}.get(
            kind, cache[hook.place].roll(1, 0)
        )
        other = other.expand_as(value)
        if hook.place == mlp_name:
            return other
        value = value.clone()
        value[:, :, [0, 2]] = other[:, :, [0, 2]]
        return value

    class Place:
        def __init__(self, place):
            self.place = place

    hooks = [(n, lambda value, hook, n=n: replace(value, Place(n))) for n in (z_name, mlp_name)]
    expected = run_with_hooks(model, TOKENS, hooks)
    with ablated(
        model, ["L0H0", "L0H2", "L1MLP"], kind=kind, by_position=True,
        reference=TOKENS.roll(1, 0) if kind == "resample" else TOKENS,
    ):  # fmt: skip
        found = model(TOKENS)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(model(TOKENS), run_with_hooks(model, TOKENS, []))  # nothing is left behind


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_losses_are_those_of_the_context_manager_for_any_batch_size(kind):
    model = tiny("llama-gqa")
    groups = {"pair": ["L0H1", "L1H2"], "layer": ["L1ATTN"], "neurons": ["L0N3", "L0N5"]}
    runs = [ablate(model, TOKENS, groups, kind=kind, batch_size=size) for size in (2, 5)]
    for one, other in zip(*[[run.first, run.second, run.per_position] for run in runs], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    reference = TOKENS.roll(1, 0) if kind == "resample" else TOKENS
    for i, parts in enumerate(groups.values()):
        with ablated(model, parts, kind=kind, reference=reference):
            without = loss_per_token(model, TOKENS)
        change = (without - loss_per_token(model, TOKENS)).mean(0)
        np.testing.assert_allclose(runs[0].per_position[i], change.numpy(), atol=1e-5)


def test_planted_heads_cost_the_second_half_everything_and_the_first_nothing():
    model = planted_induction()
    block = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(4)])
    found = ablate(model, block.repeat(1, 2), ["L0H0", "L1H0"], kind="zero", lags=16)
    records = {record["group"]: record for record in found.to_records()}
    for record in records.values():
        assert record["loss_second_half"] > 2
        assert record["low"] > 2
    assert records["L1H0"]["loss_first_half"] < 0
    np.testing.assert_allclose(found.per_position[1][:15].mean(), found.first[1].mean(), atol=1e-4)


def test_neurons_and_mlp_agree_when_all_neurons_go():
    model = tiny("native-ln")
    found = ablate(model, TOKENS, {"neurons": [f"L1N{i}" for i in range(64)], "mlp": ["L1MLP"]}, kind="mean")
    np.testing.assert_allclose(found.second[0], found.second[1], atol=1e-4)


@pytest.mark.parametrize("bad", ["L9H0", "L0H9", "L0N64", "logits", "L0"])
def test_parts_that_are_not_there_are_refused(bad):
    with pytest.raises(UnknownNameError):
        ablate(tiny("native-ln"), TOKENS, [bad], kind="zero")


def test_settings_that_cannot_work_are_refused():
    model = tiny("native-ln")
    with pytest.raises(ConfigError, match="at least one"):
        ablate(model, TOKENS, [])
    with pytest.raises(ConfigError, match="second prompt"):
        ablate(model, TOKENS[:1], ["L0H0"], kind="resample")
    with pytest.raises(ConfigError, match="reference"):
        Ablator(model, ["L0H0"], kind="mean")
    with (
        pytest.raises(PromptError, match="one length"),
        ablated(model, ["L0H0"], reference=TOKENS[:, :4], by_position=True),
    ):
        model(TOKENS)
