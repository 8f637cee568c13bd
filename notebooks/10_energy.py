# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Do attention heads retrieve memories, and at what temperature does a prediction melt?
#
# One step of attention is one step down an energy landscape whose stored patterns are the keys (Ramsauer et al. 2020), and a
# next-token distribution is a Boltzmann distribution over tokens. We take both readings at their word: first on networks whose
# capacity is known, then on SmolLM2-135M, beside the same model untrained.

# %%
import numpy as np
import torch

from dashboard.figures import plot
from interp import load_model, open_corpus, untrained_model
from interp.studies import (
    classify, compare_capacity, contrastive_divergence, exact_gradient, learn, least_slope, measure_capacity,
    measure_retrieval, new_machine, random_energy_null, replica_capacity, retrieve, settle, sweep_temperatures,
    text_prompts,
)


# %% [markdown]
# ## How much do associative memories hold?
#
# The network of 1982 stores patterns in a quadratic energy. In the limit of many spins replica theory allows 0.138 patterns a spin
# (dotted line); 600 spins follow it below, and break down above.

# %%
loads = (0.05, 0.09, 0.115, 0.13, 0.14, 0.15, 0.17, 0.2, 0.25)
classical = measure_capacity(600, loads, n_seeds=4, n_starts=30)
capacity, overlap_there = replica_capacity()
print(f"theory: capacity {capacity:.4f}, overlap {overlap_there:.3f} there")
plot(classical, capacity=capacity)

# %% [markdown]
# With an exponential in place of the square the same starts, a fifth of the spins wrong, come back from exponentially many patterns.

# %%
both = compare_capacity((10, 15, 20, 25, 30, 35), wrong=0.2)
print(f"doublings per dimension: {both.slope:.2f}, at least {least_slope(0.2):.2f} in theory")
plot(both)

# %% [markdown]
# How many patterns one step mixes is a matter of temperature. Two clusters of three patterns: cold finds one pattern, lukewarm the
# mean of its cluster, hot the mean of all.

# %%
noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
patterns = torch.eye(8, dtype=torch.float64)[:2].repeat_interleave(3, 0) + 0.1 * noise
kinds = {}
for beta in (2000.0, 8.0, 0.1):
    state, steps = settle(patterns, patterns[:1], beta)
    found = retrieve(patterns, state, beta)
    kinds[beta] = classify(int(found.n_mass[0]), 6)
    print(f"beta {beta:6}: {kinds[beta]}, {float(found.n_patterns[0]):.2f} patterns in effect, energy {float(found.energy[0]):.3f}")

# %% [markdown]
# ## Heads as memories
#
# A query is the state, its keys the patterns, both after rotary positions; 90 % of a head's attention lies on so many of its keys.
# Prose from docstrings, the later half of each prompt. The same is measured in an untrained model.

# %%
smollm2 = load_model("smollm2-135m")
tokens = text_prompts(smollm2, open_corpus("docstrings", seed=0), 4, 96)
twin = untrained_model(smollm2, 0)
heads = measure_retrieval(smollm2, tokens, untrained=twin)
null = measure_retrieval(untrained_model(smollm2, 1), tokens, untrained=twin)
print(f"our attention differs from the model's by {heads.pattern_error:.1e} at most; energy never rises ({heads.energy_rise:.0e})")
print("SmolLM2:  ", heads.counts(), f"{int(heads.concentrates.sum())} concentrate more than untrained ones")
print("untrained:", null.counts(), f"{int(null.concentrates.sum())} do")
plot(heads)

# %%
rest = measure_retrieval(smollm2, tokens, untrained=twin, skip_first=True)
sinks = int((heads.first_share > 0.5).sum())
print(f"{sinks} heads keep most of their attention on the first position; without it: {rest.counts()}")
for layer in (0, 3, 10, 20, 29):
    print(
        f"layer {layer:2}: beta with unit keys {heads.beta_unit[layer].mean():5.1f} (untrained {null.beta_unit[layer].mean():.1f}), "
        f"scores spread {heads.score_spread[layer].mean():.2f} nats ({null.score_spread[layer].mean():.2f}), "
        f"energy {heads.energy[layer].mean():.0f} -> {heads.energy_after[layer].mean():.0f}"
    )

# %% [markdown]
# ## A prediction as a Boltzmann distribution
#
# The energy of a token is the mean logit less its own; the temperature divides the logits. Where the heat capacity peaks, the few
# tokens that the model prefers give way to all others. The null is a random energy model: normal logits of the same variance.

# %%
heat = torch.logspace(-0.7, 1, 40)
with torch.no_grad():
    logits = smollm2(tokens)[:, -16:].flatten(0, 1).double()
    twin_logits = twin(tokens)[:, -16:].flatten(0, 1).double()
sweep, random, untrained = sweep_temperatures(logits, heat), random_energy_null(logits, heat, n_draws=1), sweep_temperatures(twin_logits, heat)
series = {"SmolLM2": sweep, "random energies": random, "untrained": untrained}
plot(series, measure="entropy")

# %%
plot(series, measure="heat_capacity")

# %%
one = int((heat - 1).abs().argmin())
at_one = {name: float(each.entropy[:, one].mean()) for name, each in (("model", sweep), ("random", random), ("untrained", untrained))}
slope = (sweep.energy[:, one + 1] - sweep.energy[:, one - 1]) / (heat[one + 1] - heat[one - 1])
print({name: round(value, 2) for name, value in at_one.items()}, "nats at temperature 1; log d_vocab", round(float(np.log(logits.shape[1])), 2))
print(f"heat capacity there {float(sweep.heat_capacity[:, one].mean()):.2f}, slope of the energy {float(slope.mean()):.2f}")

# %% [markdown]
# ## A machine that learns such a distribution
#
# Seven spins, five of them seen. Up to twelve spins all states can be summed, so sampling and learning are checked exactly:
# contrastive divergence climbs nearly as high as the exact gradient.

# %%
data = torch.tensor([[1, 1, 1, -1, -1], [-1, -1, 1, 1, 1], [1, -1, 1, -1, 1]], dtype=torch.float64).repeat(60, 1)
start = new_machine(5, 2, scale=0.1)
*_, exact = learn(start, data, steps=150, lr=0.1)
*_, sampled = learn(start, data, steps=150, lr=0.1, n_sweeps=1)
generator = torch.Generator().manual_seed(0)
gradients = [exact_gradient(start, data).second, contrastive_divergence(start, data, n_sweeps=30, generator=generator).second]
alike = float(torch.nn.functional.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0))
likelihoods = [start.log_likelihood(data), sampled.log_likelihood, exact.log_likelihood, float(np.log(1 / 3))]
print("log-likelihood:", dict(zip(("start", "contrastive divergence", "exact", "best possible"), np.round(likelihoods, 2).tolist(), strict=True)))

# %% [markdown]
# ## The answer

# %%
assert np.abs(classical.overlap.estimate[:3] - classical.theory[:3]).max() < 0.015 and classical.overlap.high[-1] < 0.6
assert both.slope.low > least_slope(0.2)
assert list(kinds.values()) == ["single pattern", "metastable", "global averaging"]
assert heads.pattern_error < 1e-5 and heads.energy_rise < 1e-9
assert null.counts()["global averaging"] == 270 and not null.concentrates.any()
assert heads.concentrates.mean() > 0.9 and heads.mass_share[0].mean() > heads.mass_share[1:].mean() + 0.1
assert at_one["model"] < at_one["random"] - 1 and at_one["untrained"] > at_one["random"]
assert likelihoods[0] < likelihoods[1] <= likelihoods[2] + 1e-6 and alike > 0.9
layer_0 = sum(row["kind"] == "global averaging" for row in heads.to_records() if row["layer"] == 0)
print(
    f"Attention is retrieval by the letter: the energy falls in every step of every head. By its numbers {heads.counts()['single pattern']} "
    f"of 270 heads hold one key, {heads.counts()['metastable']} mix a few, {heads.counts()['global averaging']} average ({layer_0} of the 9 in "
    f"layer 0 do); all 270 of the untrained model average. But {sinks} heads rest on the first position, and without it "
    f"{rest.counts()['single pattern']} hold one key and {rest.counts()['global averaging']} average: a single pattern is mostly the sink.\n"
    f"At its own temperature SmolLM2 has {np.exp(at_one['model']):.0f} tokens in play where normal logits of the same variance have "
    f"{np.exp(at_one['random']):.0f}: what it knows are a few tokens far below the crowd.\n"
    "What this is not: a memory of the training text. The patterns are the prompt's own keys, and what a head writes are values, which "
    "have no energy here."
)

# %% [markdown]
# ## Exercises
#
# 1. Below which load do the classical network and the theory agree? To check: the interval of `classical.overlap` should hold the theory.
# 2. Leave `skip_first` out and in. Which heads change their kind? To check: `heads.first_share` is above 0.5 for them.
# 3. At which temperature do the model's predictions have the entropy of the random energies at 1? To check: read it off the sweep; the
#    answer lies above 1.
