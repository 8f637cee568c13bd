"""Activation patching: equal to plain hooks, exact on a planted model, and honest about what it patched."""

from functools import cache

import numpy as np
import pytest
import torch
from architectures import ALL_NAMES, POST_NORM, tiny

from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.models.adapter import run_with_cache
from interp.models.small import SmallConfig, build_small
from interp.models.toys import planted_induction
from interp.patching import activation
from interp.patching.activation import activation_patching
from interp.patching.metrics import LogitDiff
from interp.patching.task import Task

WHATS = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern")


def last_logit(logits):
    """The logit of token 3 less that of token 9 at the last position."""
    return logits[:, -1, 3] - logits[:, -1, 9]


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(50, (3, 6), generator=generator), torch.randint(50, (3, 6), generator=generator)


def by_hand(model, clean, corrupt, hook_point, index):
    """One denoising patch, written with the bridge's own calls."""
    _, cache = model.run_with_cache(clean)

    def patch(value, hook):
        value = value.clone()
        value[index] = cache[hook_point][index]
        return value

    with torch.no_grad():
        values = [last_logit(model(tokens)).mean() for tokens in (clean, corrupt)]
        patched = last_logit(model.run_with_hooks(corrupt, fwd_hooks=[(hook_point, patch)])).mean()
    return float((patched - values[1]) / (values[0] - values[1]))


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("what", WHATS)
def test_effects_equal_patches_written_by_hand(name, what, pairs):
    model, (clean, corrupt) = tiny(name), pairs
    found = activation_patching(model, (clean, corrupt), last_logit, what=what, batch_size=7)
    everything = slice(None)
    whole = what in WHATS[:4]
    kv_heads = 2 if name in ("llama-gqa", *POST_NORM) and what in ("k", "v") else 4
    assert found.effect.shape == ((2, 6) if whole else (2, kv_heads, 6))
    assert found.settings.heads == (None if whole else "key-value" if kv_heads == 2 else "query")
    for layer, head, position in ((0, 1, 2), (1, kv_heads - 1, 5)):
        if whole:
            index, cell, suffix = (everything, position), (layer, position), f"hook_{what}"
        else:
            index = (everything, head, position) if what == "pattern" else (everything, position, head)
            cell, suffix = (layer, head, position), f"attn.hook_{what}"
        expected = by_hand(model, clean, corrupt, f"blocks.{layer}.{suffix}", index)
        assert float(found.effect[cell]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_the_whole_input_of_the_first_block_is_the_whole_effect(name, direction, pairs):
    found = activation_patching(tiny(name), pairs, last_logit, by_position=False, direction=direction)
    np.testing.assert_allclose(found.effect, np.ones(2), rtol=1e-4, atol=1e-4)
    assert found.settings.direction == direction


def test_batches_do_not_change_the_effects(pairs):
    one = activation_patching(tiny("llama-gqa"), pairs, last_logit, what="z", batch_size=64)
    for batch_size in (1, 2, 5):  # below, and no multiple of, the number of prompts
        again = activation_patching(tiny("llama-gqa"), pairs, last_logit, what="heads", batch_size=batch_size)
        np.testing.assert_allclose(again.effect, one.effect, rtol=1e-4, atol=1e-5)
        assert again.settings == one.settings


def test_the_planted_circuit_is_found_position_by_position():
    model = planted_induction()
    block = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    clean = torch.cat([block, block])[None, :25]  # the last token is block[8]; block[9] is due
    corrupt = clean.clone()
    corrupt[0, 8] = (clean[0, 8] + 1) % 16  # the earlier copy is gone: nothing to look back to

    def metric(logits):
        return logits[:, -1, block[9]] - logits[:, -1].mean(-1)

    heads = activation_patching(model, (clean, corrupt), metric, what="z")
    expected = torch.zeros(2, 1, 25).double()
    expected[0, 0, 9] = expected[1, 0, 24] = 1  # L0H0 says at 9 what was at 8; L1H0 reads it at the end
    np.testing.assert_allclose(heads.effect, expected, rtol=0, atol=1e-3)
    assert heads.top(1)[0].effect == pytest.approx(1, abs=1e-3)
    keys = activation_patching(model, (clean, corrupt), metric, what="k")
    assert float(keys.effect[1, 0, 9]) == pytest.approx(1, abs=1e-3)
    queries = activation_patching(model, (clean, corrupt), metric, what="q", by_position=False)
    assert np.abs(queries.effect).max() < 1e-3  # K, not Q, carries the difference


def test_records_are_plain_and_hooks_are_gone(pairs):
    model = tiny("gpt2")
    found = activation_patching(model, pairs, last_logit, what="q")
    records = found.to_records()
    assert (len(records), records[-1]["effect"]) == (2 * 4 * 6, float(found.effect[-1, -1, -1]))
    assert found.clean_metric != found.corrupt_metric
    assert not any(point.has_hooks() for point in model.hook_dict.values())


@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_task_brings_its_own_prompts_metric_and_positions(pairs, batch_size):
    clean, corrupt = pairs
    task = Task.of(
        tiny("gpt2"), clean, corrupt, LogitDiff(correct=[3, 3, 3], wrong=[9, 9, 9]), check_gap=False,
        at=torch.tensor([[5], [5], [5]]),
    )  # fmt: skip
    found = activation_patching(tiny("gpt2"), task, what="attn_out", batch_size=batch_size)
    expected = activation_patching(tiny("gpt2"), pairs, last_logit, what="attn_out")
    np.testing.assert_allclose(found.effect, expected.effect, rtol=1e-4, atol=1e-5)
    assert found.clean_metric == pytest.approx(float(task.clean_value.mean()), rel=1e-4)


def test_lengths_that_differ_are_named_with_their_tokens():
    clean, corrupt = torch.zeros(1, 4).long(), torch.ones(1, 5).long()
    with pytest.raises(PromptError, match=r"got 4 \(0\|0\|0\|0\) and 5 \(1\|1\|1\|1\|1\)"):
        activation_patching(tiny("gpt2"), (clean, corrupt), last_logit)


def test_bad_requests_are_refused(pairs):
    model, (clean, _) = tiny("gpt2"), pairs
    with pytest.raises(ConfigError, match="no gap"):
        activation_patching(model, (clean, clean), last_logit)
    with pytest.raises(ConfigError, match="one number per prompt"):
        activation_patching(model, pairs, lambda logits: logits[:, -1])
    with pytest.raises(ConfigError, match="without a metric"):
        activation_patching(model, pairs)
    with pytest.raises(UnknownNameError, match="pattern"):
        activation_patching(model, pairs, last_logit, what="patern")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="no MLPs"):
        activation_patching(planted_induction(), (clean % 16, clean.flip(0) % 16), last_logit, what="mlp_out")


def test_the_residual_is_read_once_and_left_alone(pairs):
    model = tiny("gpt2")
    _, before = run_with_cache(model, pairs[0], ["blocks.1.hook_resid_post"])
    activation_patching(model, pairs, last_logit)
    _, after = run_with_cache(model, pairs[0], ["blocks.1.hook_resid_post"])
    assert torch.equal(*before.values(), *after.values())


def one_at_a_time(model, base, source, hook_point, index):
    """The metric of every prompt with one patch, from a whole pass of its own."""
    _, cache = model.run_with_cache(source)

    def patch(value, hook):
        value = value.clone()
        value[index] = cache[hook_point][index]
        return value

    with torch.no_grad():
        return last_logit(model.run_with_hooks(base, fwd_hooks=[(hook_point, patch)])).double()


@cache
def six_layers():
    config = SmallConfig(n_layers=6, d_model=32, n_heads=2, d_mlp=48, d_vocab=50, n_ctx=16, positions="rotary")
    return build_small(config, seed=1, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def one_by_one(pairs):
    """A function that returns the effects of patches made one at a time, found once for each kind of patch."""
    model, (clean, corrupt) = six_layers(), pairs
    with torch.no_grad():
        start, target = (last_logit(model(tokens)).double() for tokens in (clean, corrupt))

    @cache
    def effects(what, by_position):
        everything = slice(None)
        expected = []
        for layer in range(6):
            point = f"blocks.{layer}." + (f"attn.hook_{what}" if what in "zk" else f"hook_{what}")
            for head in range(2) if what in "zk" else [None]:
                slots = [(everything, p) if head is None else (everything, p, head) for p in range(6)]
                slots = slots if by_position else [everything if head is None else (everything, everything, head)]
                expected += [one_at_a_time(model, clean, corrupt, point, slot) for slot in slots]
        return ((torch.stack(expected) - start) / (target - start).mean()).mean(1)

    return effects


@pytest.mark.parametrize("batch_size", [2, 7, 64])
@pytest.mark.parametrize("stored", [1, 2000, 1 << 26])
@pytest.mark.parametrize(("what", "by_position"), [("z", True), ("resid_pre", True), ("mlp_out", False), ("k", False)])
def test_patches_that_share_passes_equal_patches_one_at_a_time(
    what, by_position, stored, batch_size, pairs, one_by_one, monkeypatch
):
    """Six layers: passes span several layers, start inside the model, and values are read in one or several groups."""
    monkeypatch.setattr(activation, "STORED_VALUES", stored)
    found = activation_patching(
        six_layers(), pairs, last_logit, what=what, by_position=by_position, direction="noise", batch_size=batch_size
    )
    np.testing.assert_allclose(found.effect.ravel(), one_by_one(what, by_position), rtol=1e-5, atol=1e-5)


def test_random_changes_do_not_depend_on_how_layers_are_read(pairs, monkeypatch):
    found = []
    for stored in (1, 1 << 26):
        monkeypatch.setattr(activation, "STORED_VALUES", stored)
        generator = torch.Generator().manual_seed(3)
        found.append(activation_patching(tiny("gpt2"), pairs, last_logit, what="pattern", random_change=generator))
    np.testing.assert_allclose(found[0].effect, found[1].effect, rtol=1e-5, atol=1e-5)


def test_a_patch_skips_the_blocks_before_its_layer(pairs):
    model, calls = tiny("llama-gqa"), [0, 0]

    def count(layer):
        def hook(value, hook):
            calls[layer] += len(value)

        return hook

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", count(layer)) for layer in (0, 1)]):
        activation_patching(model, pairs, last_logit, what="z", batch_size=3)
    n_patches, n_prompts = 4 * 6, 3  # heads and positions of a layer
    read = 2 * n_prompts  # the base and the donors, each read by a pass that ends before the MLP of the last block
    probe = 1  # the first partial pass of a model looks at what a block returns
    assert calls[1] - calls[0] >= n_patches * n_prompts - read - probe
