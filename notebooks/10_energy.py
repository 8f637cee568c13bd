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
# capacity is known, then on SmolLM2-135M, beside the same model untrained. What is measured is written out in
# `notebooks/energy.py`.

# %%
from itertools import islice

import numpy as np
import plotly.express as px
import torch
from energy import (
    KINDS,
    Memory,
    classify,
    contrastive_divergence,
    exact_gradient,
    hebb,
    learn,
    measure_doublings,
    measure_heads,
    measure_recall,
    new_machine,
    patterns_for_mass,
    random_energies,
    recall,
    replica_capacity,
    replica_overlap,
    sweep_temperatures,
)

from dashboard.figures import colours_of, training_curves
from interp import load_model, open_corpus, t_interval, to_tokens, untrained_model

light = colours_of("light")

# %% [markdown]
# ## How much do associative memories hold?
#
# The network of 1982 stores patterns in a quadratic energy. In the limit of many spins replica theory allows 0.138 patterns a spin
# (dotted line; Amit et al. 1985); 600 spins follow it below, and break down above.

# %%
loads = (0.05, 0.09, 0.115, 0.13, 0.14, 0.15, 0.17, 0.2, 0.25)
overlap = t_interval(measure_recall(600, loads, n_seeds=4, n_starts=30))
theory = np.array([replica_overlap(load) for load in loads])
capacity, overlap_there = replica_capacity()
print(f"theory: capacity {capacity:.4f}, overlap {overlap_there:.3f} there")
curves = {
    "measured": overlap.estimate,
    "its 95 % interval, lower end": overlap.low,
    "upper end": overlap.high,
    "replica theory": theory,
}
training_curves(
    loads,
    curves,
    light,
    x_title="load: patterns per spin",
    y_title="overlap with the stored pattern",
    marks={"capacity": capacity},
)

# %% [markdown]
# With an exponential in place of the square the same starts, a fifth of the spins wrong, come back from exponentially many patterns
# (Demircigil et al. 2017). The theorem bounds the doublings per dimension from below, for many dimensions.

# %%
dims, right = (10, 15, 20, 25, 30, 35), 1 - 2 * 0.2
modern = measure_doublings(lambda patterns, starts: Memory(patterns, 1.0).step(starts).sign(), dims, wrong=0.2)
classical = measure_doublings(lambda patterns, starts: recall(hebb(patterns), starts), dims, wrong=0.2)
doublings = t_interval(np.polyfit(dims, modern, 1)[0])
least = ((1 + right) * np.log1p(right) + (1 - right) * np.log1p(-right)) / 4 / np.log(2)
print(f"doublings per dimension: {doublings:.2f}, at least {least:.2f} in theory")
curves = {"modern": 2 ** modern.mean(1), "classical": 2 ** classical.mean(1)}
training_curves(dims, curves, light, x_title="dimension", y_title="stored patterns", log=True)

# %% [markdown]
# How many patterns one step mixes is a matter of temperature. Two clusters of three patterns: cold finds one pattern, lukewarm the
# mean of its cluster, hot the mean of all.

# %%
noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
patterns = torch.eye(8, dtype=torch.float64)[:2].repeat_interleave(3, 0) + 0.1 * noise
kinds = {}
for beta in (2000.0, 8.0, 0.1):
    memory, state = Memory(patterns, beta), patterns[:1]
    for _ in range(200):
        state = memory.step(state)
    weights = memory.scores(state).softmax(-1)
    kinds[beta] = classify(int(patterns_for_mass(weights)), 6)
    effective = float(torch.special.entr(weights).sum().exp())
    print(f"beta {beta:6}: {kinds[beta]}, {effective:.2f} patterns in effect, energy {float(memory.energy(state)):.3f}")

# %% [markdown]
# ## Heads as memories
#
# A query is the state, its keys the patterns, both after rotary positions; 90 % of a head's attention lies on so many of its keys.
# Prose from docstrings, the later half of each prompt. The same is measured in an untrained model.

# %%
smollm2 = load_model("smollm2-135m")
texts = (to_tokens(smollm2, document.text)[0, :96] for document in open_corpus("docstrings", seed=0))
tokens = torch.stack(list(islice((text for text in texts if len(text) == 96), 4)))
twin = untrained_model(smollm2, 0)
heads, bound, null = (measure_heads(model, tokens) for model in (smollm2, twin, untrained_model(smollm2, 1)))
concentrated, by_chance = heads.concentrate(bound), null.concentrate(bound)
print(
    f"our attention differs from the model's by {heads.pattern_error.max():.1e} at most; energy never rises ({heads.energy_rise.max():.0e})"
)
print("SmolLM2:  ", heads.counts(), f"{int(concentrated.sum())} concentrate more than untrained ones")
print("untrained:", null.counts(), f"{int(by_chance.sum())} do")
labels = {"x": "head", "y": "layer", "color": "fraction of keys<br>with 90 % of<br>the attention"}
px.imshow(heads.mass_share.mean(-1), zmin=0, labels=labels, color_continuous_scale="Blues", aspect="auto")

# %%
rest = measure_heads(smollm2, tokens, skip_first=True)
sinks = int((heads.first_share.mean(-1) > 0.5).sum())
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
# tokens that the model prefers give way to all others. The null is a random energy model (Derrida 1981): normal logits of the same
# variance.

# %%
heat = torch.logspace(-0.7, 1, 40)
with torch.no_grad():
    logits = smollm2(tokens)[:, -16:].flatten(0, 1).double()
    twin_logits = twin(tokens)[:, -16:].flatten(0, 1).double()
sweep, random, untrained = (
    sweep_temperatures(energies, heat) for energies in (logits, random_energies(logits), twin_logits)
)
series = {"SmolLM2": sweep, "random energies": random, "untrained": untrained}


def over_temperature(measure, title):
    curves = {name: getattr(run, measure).mean(0).numpy() for name, run in series.items()}
    figure = training_curves(heat.tolist(), curves, light, x_title="temperature (1: the model's own)", y_title=title)
    return figure.update_xaxes(type="log").add_vline(x=1, line_dash="dot", line_color=light.muted)


over_temperature("entropy", "entropy, nats")

# %%
over_temperature("heat_capacity", "heat capacity, nats")

# %%
index = int((heat - 1).abs().argmin())
at_one = {
    name: float(run.entropy[:, index].mean())
    for name, run in (("model", sweep), ("random", random), ("untrained", untrained))
}
slope = (sweep.energy[:, index + 1] - sweep.energy[:, index - 1]) / (heat[index + 1] - heat[index - 1])
print(
    {name: round(value, 2) for name, value in at_one.items()},
    "nats at temperature 1; log d_vocab",
    round(float(np.log(logits.shape[1])), 2),
)
print(
    f"heat capacity there {float(sweep.heat_capacity[:, index].mean()):.2f}, slope of the energy {float(slope.mean()):.2f}"
)

# %% [markdown]
# ## A machine that learns such a distribution
#
# Seven spins, five of them seen (Ackley et al. 1985). All states of so few can be summed, so sampling and learning are checked
# exactly: contrastive divergence (Hinton 2002) climbs nearly as high as the exact gradient.

# %%
data = torch.tensor([[1, 1, 1, -1, -1], [-1, -1, 1, 1, 1], [1, -1, 1, -1, 1]], dtype=torch.float64).repeat(60, 1)
start = new_machine(5, 2, scale=0.1)
exact = learn(start, data, steps=150, lr=0.1)
sampled = learn(start, data, steps=150, lr=0.1, n_sweeps=1)
gradients = [
    exact_gradient(start, data)[0],
    contrastive_divergence(start, data, 30, torch.Generator().manual_seed(0))[0],
]
alike = float(torch.nn.functional.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0))
likelihoods = [float(machine.log_likelihood(data)) for machine in (start, sampled, exact)] + [float(np.log(1 / 3))]
print(
    "log-likelihood:",
    dict(
        zip(
            ("start", "contrastive divergence", "exact", "best possible"),
            np.round(likelihoods, 2).tolist(),
            strict=True,
        )
    ),
)

# %% [markdown]
# ## The answer

# %%
assert np.abs(overlap.estimate[:3] - theory[:3]).max() < 0.015 and overlap.high[-1] < 0.6
assert doublings.low > least
assert tuple(kinds.values()) == KINDS
assert heads.pattern_error.max() < 1e-5 and heads.energy_rise.max() < 1e-9
assert null.counts()["global averaging"] == 270 and not by_chance.any()
assert concentrated.mean() > 0.9 and heads.mass_share[0].mean() > heads.mass_share[1:].mean() + 0.1
assert at_one["model"] < at_one["random"] - 1 and at_one["untrained"] > at_one["random"]
assert likelihoods[0] < likelihoods[1] <= likelihoods[2] + 1e-6 and alike > 0.9
layer_0 = int((heads.kinds[0] == "global averaging").sum())
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
# 1. Below which load do the classical network and the theory agree? To check: the interval `overlap` should hold the theory.
# 2. Compare `heads.kinds` and `rest.kinds`. Which heads change their kind? To check: `heads.first_share` is above 0.5 for them.
# 3. At which temperature do the model's predictions have the entropy of the random energies at 1? To check: read it off the sweep; the
#    answer lies above 1.
