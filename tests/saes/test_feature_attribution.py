"""Effects of features: they add up, they are what autograd says, and they rank as ablation does."""

import pytest
import torch
from placed import D_SAE, KINDS, RESID, random_sae, random_task, tiny
from scipy.stats import spearmanr

from interp.errors import ConfigError, MismatchError, PromptError, UnknownNameError
from interp.patching.metrics import KLToClean, LogProb
from saes.attribution.attribution import AttributionConfig, attribute, exact_effects
from saes.attribution.sites import MeasuredPrompts
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.crosscoder import CrosscoderSAE
from saes.kinds.topk import TopKSAE

GRADIENT = AttributionConfig(method="gradient")


@pytest.fixture(scope="module")
def raw():
    """Without norms: logits are linear in the last residual, and in what the last MLP writes."""
    return tiny("native-raw")


def without_corruption(task) -> MeasuredPrompts:
    prompts = MeasuredPrompts.of_task(task)
    return MeasuredPrompts(
        name="p", tokens=prompts.tokens, lengths=prompts.lengths, at=prompts.at, metric=prompts.metric
    )


@pytest.mark.parametrize("paired", [False, True], ids=["switched off", "corrupted"])
@pytest.mark.parametrize("kind", KINDS)
def test_effects_add_up_where_the_metric_is_linear(raw, kind, paired):
    task = random_task(raw)
    prompts = MeasuredPrompts.of_task(task) if paired else without_corruption(task)
    [found] = attribute(raw, random_sae(kind, 1), prompts, GRADIENT)
    assert abs(found.total) > 0.05
    assert found.explained != pytest.approx(found.total, rel=0.01), "the error has a share of its own"
    assert found.gap == pytest.approx(0, abs=2e-5)


def test_features_error_and_bias_make_up_the_whole_metric(raw):
    """`m(x) - m(0)`: the bias `b_dec` is what the baseline keeps."""
    prompts, sae = without_corruption(random_task(raw)), random_sae("relu", 1)
    [found] = attribute(raw, sae, prompts, GRADIENT)
    with torch.no_grad():
        zero = raw.run_with_hooks(prompts.tokens, fwd_hooks=[(RESID.format(1), lambda v, hook: v * 0)])[:, -1:]
        bias = raw.run_with_hooks(prompts.tokens, fwd_hooks=[(RESID.format(1), lambda v, hook: v * 0 + sae.b_dec)])
    of_bias = float((prompts.metric(bias[:, -1:]) - prompts.metric(zero)).mean())
    whole = float((found.metric - prompts.metric(zero).double()).mean())
    assert found.explained + found.error_effect + of_bias == pytest.approx(whole, abs=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["native-ln", "llama-gqa", "neox"])
def test_effects_are_activation_times_gradient(architecture, kind):
    """Against autograd through a dense vector of activations at the site."""
    model, sae = tiny(architecture), random_sae(kind, 0)
    prompts = without_corruption(random_task(model, n=2))
    [found] = attribute(model, sae, prompts, GRADIENT)
    dense = torch.zeros(2, 7, D_SAE).index_put((found.prompt, found.position, found.feature), found.effect.float())
    store = {}

    def reads(value, hook):
        store["x"] = value

    def writes(value, hook):
        x = store["x"] if sae.hook_point_out else value
        store["acts"] = sae.encode(x).detach().requires_grad_()
        with torch.no_grad():
            error = value - sae.complete(sae.decode(store["acts"]), x)
        return sae.complete(sae.decode(store["acts"]), x.detach()) + error.detach()

    hooks = [(sae.hook_point, reads)] if sae.hook_point_out else []
    with torch.enable_grad():
        logits = model.run_with_hooks(
            prompts.tokens, fwd_hooks=[*hooks, (sae.hook_point_out or sae.hook_point, writes)]
        )
        gradient = torch.autograd.grad(prompts.metric(logits[:, -1:]).sum(), store["acts"])[0]
    torch.testing.assert_close(dense, (gradient * store["acts"]).detach(), atol=2e-5, rtol=1e-3)


def test_integrated_gradients_close_the_gap():
    model, sae = tiny("llama-gqa"), random_sae("topk", 0)
    prompts = MeasuredPrompts.of_task(random_task(model))
    gaps = [
        abs(attribute(model, sae, prompts, config)[0].gap)
        for config in (GRADIENT, AttributionConfig(steps=4), AttributionConfig(steps=64))
    ]
    assert gaps[0] > 0.02
    assert gaps[2] < min(gaps[:2]) / 4
    assert gaps[2] < 2e-3


@pytest.mark.parametrize("method", ["gradient", "ig"])
def test_batches_padding_and_the_order_of_saes_change_nothing(method):
    model = tiny("native-ln")
    saes = [random_sae("relu", 1, 1), random_sae("topk", 0)]
    task = random_task(model, n=5)
    config = AttributionConfig(method=method, steps=3)
    whole = attribute(model, saes, task, config)
    assert [a.site.writes for a in whole] == [RESID.format(0), RESID.format(1)], "as the model computes them"
    split = attribute(model, saes[::-1], task, AttributionConfig(method=method, steps=3, batch_size=2))
    padded = MeasuredPrompts.of_task(task)
    rows = [torch.nn.functional.pad(t, (0, 3)) for t in (padded.tokens, padded.corrupt)]
    longer = MeasuredPrompts(
        name="p", tokens=rows[0], corrupt=rows[1], lengths=padded.lengths, at=padded.at, metric=padded.metric
    )
    for one, two, three in zip(whole, split, attribute(model, saes, longer, config), strict=True):
        torch.testing.assert_close(one.by_feature, two.by_feature, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(one.by_feature, three.by_feature, atol=1e-6, rtol=1e-4)
        assert int(three.position.max()) < 7
        for each in (one, two, three):
            assert each.prompt.unique().tolist() == [0, 1, 2, 3, 4], "numbered over all batches"
        assert three.gap == pytest.approx(one.gap, abs=1e-5)


def test_positions_left_alone_have_no_effects():
    model, sae = tiny("native-ln"), random_sae("topk", 0)
    prompts = without_corruption(random_task(model))
    [found] = attribute(model, sae, prompts, AttributionConfig(steps=40, first=2))
    assert int(found.position.min()) == 2
    assert not found.error[:, :2].any()
    assert abs(found.gap) < 0.05 * abs(found.total) + 2e-3


def test_what_comes_after_the_answer_has_no_effect():
    """A causal model cannot look ahead: the null."""
    model, sae = tiny("native-ln"), random_sae("topk", 0)
    task = random_task(model)
    prompts = MeasuredPrompts(name="p", tokens=task.clean, lengths=task.lengths, at=task.at - 3, metric=task.metric)
    [found] = attribute(model, sae, prompts, GRADIENT)
    after = found.position > 3
    assert after.any()
    assert not found.effect[after].any()
    assert found.effect[~after].abs().max() > 1e-3
    assert not found.error[:, 4:].any()


@pytest.mark.parametrize("paired", [False, True], ids=["switched off", "corrupted"])
def test_estimates_are_exact_where_the_metric_is_linear(raw, paired):
    task, sae = random_task(raw), random_sae("topk", 1)
    prompts = MeasuredPrompts.of_task(task) if paired else without_corruption(task)
    [found] = attribute(raw, sae, prompts, GRADIENT)
    features = [feature for feature, _ in found.top(12)]
    exact = exact_effects(raw, sae, prompts, features)
    torch.testing.assert_close(found.by_feature[features], exact, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_estimates_rank_features_as_ablation_does(seed):
    model, sae = tiny("llama-gqa"), random_sae("jumprelu", 0, seed)
    prompts = without_corruption(random_task(model, seed=seed))
    active = sorted(set(attribute(model, sae, prompts, GRADIENT)[0].feature.tolist()))
    exact = exact_effects(model, sae, prompts, active)
    ranks = {
        name: spearmanr(attribute(model, sae, prompts, config)[0].by_feature[active], exact).statistic
        for name, config in (("gradient", GRADIENT), ("ig", AttributionConfig(steps=8)))
    }
    assert max(ranks.values()) > 0.8, ranks
    shuffled = exact[torch.randperm(len(exact), generator=torch.Generator().manual_seed(seed))]
    assert abs(spearmanr(shuffled, exact).statistic) < 0.5


def test_no_dense_activations_are_made(raw, monkeypatch):
    def dense(*_):
        raise AssertionError("a dense [batch, pos, d_sae] was made")

    monkeypatch.setattr(SAE, "encode", dense)
    assert len(attribute(raw, random_sae("topk", 1), random_task(raw))[0].feature)


def test_a_prompt_of_text_needs_an_answer_of_one_token(tiny_model):
    prompts = MeasuredPrompts.of_text(tiny_model, "one two", "t")
    assert prompts.at.tolist() == [[prompts.tokens.shape[1] - 1]]
    assert isinstance(prompts.metric, LogProb)
    assert MeasuredPrompts.of_text(tiny_model, "one two", "t", "o").metric.name == "logit difference"
    with pytest.raises(PromptError, match="2 tokens"):
        MeasuredPrompts.of_text(tiny_model, "one two", "th")


def test_what_cannot_be_attributed_is_refused(raw):
    task, sae = random_task(raw), random_sae("topk", 1)
    with pytest.raises(ConfigError, match="two SAEs write at one hook point"):
        attribute(raw, [sae, sae], task)
    elsewhere = TopKSAE(sae.weights, k=3, metadata=SAEMetadata(hook_point=RESID.format(7)))
    with pytest.raises(UnknownNameError, match="hook point"):
        attribute(raw, elsewhere, task)
    wide = Weights(torch.eye(40), torch.zeros(40), torch.eye(40), torch.zeros(40))
    with pytest.raises(MismatchError, match="expects"):
        attribute(raw, TopKSAE(wide, k=3, metadata=sae.metadata), task)
    places = [
        {"recording": "r", "model": "m", "weight_hash": "", "hook_point": RESID.format(i), "d": 20} for i in (0, 1)
    ]
    crosscoder = CrosscoderSAE(wide, threshold=torch.zeros(40), scales=torch.ones(2), sites=places)
    with pytest.raises(ConfigError, match="reads several hook points"):
        attribute(raw, crosscoder, task)
    with pytest.raises(ConfigError, match="zero on the prompts"):
        attribute(raw, sae, random_task(raw, metric=KLToClean()), GRADIENT)
    with pytest.raises(ConfigError, match="features 0 to"):
        exact_effects(raw, sae, task, [D_SAE])
    with pytest.raises(UnknownNameError, match="did you mean 'gradient'"):
        AttributionConfig(method="gradients")
    with pytest.raises(ConfigError, match="at least 1"):
        AttributionConfig(steps=0)
