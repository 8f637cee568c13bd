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
# # Why does it say Paris?
#
# SmolLM2-135M continues *The capital of France is* with *Paris*. An attribution graph (Ameisen et al. 2025) says through which
# units: hold attention patterns and the scales of norms at their values on this prompt, and the model becomes linear from unit
# to unit, so that every logit splits exactly into direct effects. Here the units are MLP neurons, which need no training.
#
# A graph is a claim about the model. We hold it against three things: the graph that one gets without any unit, the effect of
# ablating units in the model itself, and random units.

# %%
import numpy as np
import pandas as pd

from dashboard.figures import plot
from interp import (
    AttributionGraph,
    Neurons,
    TraceConfig,
    Workspace,
    changes_of,
    graph_effects,
    intervene,
    load_model,
    open_system,
    split_edge,
    to_tokens,
    trace,
)
from saes import graph_system
from workbench.demo import DATA

model = load_model("smollm2-135m")
prompt, other = "The capital of France is", "The capital of Italy is"
config = TraceConfig(max_feature_nodes=2000, edge_share=0.8)
graph = trace(model, prompt, Neurons(), config, target=" Paris", contrast=" Rome")
print(graph)

# %% [markdown]
# The target is a difference: how much more likely *Paris* is than *Rome*. The replacement score is the share of influence that
# comes from tokens through neurons; what comes from errors (here the neurons beyond the largest 30,000) is the rest. Without any
# unit the score is that of the same prompt with every MLP left as one block: the floor. 1 would be perfect.

# %%
plot(graph, n_edges=250)

# %% [markdown]
# ## Does it predict the model?
#
# The graph is exact in the model with everything frozen. In the model itself attention and norms react. 48 neurons were ablated
# one by one with nothing frozen: those with the largest predicted effects and random others.

# %%
print(f"slope {graph.effects.slope:.2f}, rank correlation {graph.effects.spearman:.2f}")
plot(graph, kind="agreement")

# %% [markdown]
# ## One neuron, and the head that carries it
#
# Which neuron at *France* matters most for *Paris* over *Rome*? Its edge to the logit crosses one position, so attention must move
# it. The edge is split by the last head on each path; the shares sum to the edge.

# %%
total = graph_effects(graph)
france = [
    i for i, node in enumerate(graph.nodes) if node.kind == "feature" and graph.token_texts[node.position] == " France"
]
best = graph.nodes[max(france, key=lambda i: abs(total[i]))]
logit = next(node for node in graph.nodes if node.kind == "logit")
system = open_system(model, to_tokens(model, prompt), Neurons())
split = split_edge(system, graph, best.id, logit.id)
print(split)
assert abs(split.total - sum(row["effect"] for row in split.to_records())) < 1e-3
plot(split)

# %% [markdown]
# ## An intervention, beside its prediction and beside random neurons
#
# Give neurons at *France* the values that they have at *Italy*, those first whose change the graph expects to matter. Random neurons
# of the same layers get the same amounts; 19 draws, so the least p is .05.

# %%
italy = open_system(model, to_tokens(model, other), Neurons(limit=200_000))
keys = zip(italy.layer.tolist(), italy.position.tolist(), italy.latent.tolist(), strict=True)
there = dict(zip(keys, italy.activation.tolist(), strict=True))
expected = {}
for i in france:
    node = graph.nodes[i]
    value = there.get((node.layer, node.position, node.index), 0.0)
    expected[node.id] = (total[i] * (value / node.activation - 1), value)
order = sorted(expected, key=lambda name: expected[name][0])
for n in (5, 20, 80):
    changed = changes_of(graph, order[:n], values={name: expected[name][1] for name in order[:n]})
    found = intervene(system, changed, graph)
    print(f"{n:3} neurons: {found.headline()}")
assert found.p <= 0.05

# %% [markdown]
# The random neurons move the difference both ways and by less. The measured effect exceeds the prediction as more neurons are
# changed: attention and norms follow in the same direction, and pruning left small edges out.
#
# ## Changing the answer
#
# The neurons with the largest predicted effects on *Paris* itself, wherever they are:

# %%
paris = trace(model, prompt, Neurons(), config, target=" Paris")
toward = graph_effects(paris)
best = sorted((i for i, node in enumerate(paris.nodes) if node.kind == "feature"), key=lambda i: -toward[i])[:8]
answer = intervene(system, changes_of(paris, [paris.nodes[i].id for i in best]), paris)
print(answer.headline())
answer.to_frame().head()

# %%
assert answer.to_frame().sort_values("after", ascending=False)["token"].iloc[0] != " Paris"
assert np.sign(answer.measured) == np.sign(answer.predicted)

# %% [markdown]
# Eight neurons out of 46,080 a token hold the answer up; as many random ones, changed by the same amounts, do not.
#
# ## With transcoders, and what untrained ones would have shown
#
# A set of transcoders (one for each MLP, trained on three million tokens) has about 32 active latents at a position and layer
# instead of 1,536 neurons. The graph of the same prompt ships with the package, and so do the latents that it uses.

# %%
shipped = Workspace(DATA)
learned = shipped.open(AttributionGraph, "capital-of-France")
pd.DataFrame(
    [
        {"score": score, "units": units, "score of the graph": getattr(known.scores, score),
         "without units": getattr(known.floor, score), "untrained": getattr(known.untrained, score, None)}
        for score in ("replacement", "completeness")
        for units, known in {"neurons": graph, "transcoders": learned}.items()
    ]
).round(2)  # fmt: skip

# %% [markdown]
# The untrained set has random directions of the same lengths, and as many active latents on this prompt. A graph comes out of it as
# well, as large and as easy to tell stories about, with a replacement score of .45. So a score alone says little: what the trained
# set adds is the difference to .59, and what its latents do in the model.

# %%
assert learned.scores.replacement > learned.untrained.replacement
plot(learned, n_edges=250)

# %% [markdown]
# ### One supernode
#
# The latents at *France* that raise *Paris* over *Rome*, as one group: the page *Graph* calls it a supernode. Labels say on which
# text a latent fires; the strongest one, in the middle of the model, fires on French.

# %%
through = graph_effects(learned)
group = sorted(
    (
        i
        for i, node in enumerate(learned.nodes)
        if node.kind == "feature" and learned.token_texts[node.position] == " France" and through[i] > 0
    ),
    key=lambda i: -through[i],
)[:12]
frozen = graph_system(learned, model, shipped)
for i in group[:6]:
    print(f"layer {learned.nodes[i].layer:2}  effect {through[i]:+.2f}  {learned.nodes[i].label}")
for factor in (0.0, -1.0, -2.0):
    group_changed = intervene(
        frozen, changes_of(learned, [learned.nodes[i].id for i in group], factor=factor), learned
    )
    print(f"activations times {factor:+.0f}: {group_changed.headline()}")
group_changed.to_frame().head()

# %%
ablated = intervene(frozen, changes_of(learned, [learned.nodes[i].id for i in group]), learned)
assert ablated.measured < 0 and ablated.p <= 0.05
assert group_changed.to_frame().sort_values("after", ascending=False)["token"].iloc[0] != " Paris"

# %% [markdown]
# Turned off, the dozen moves the difference by two logits; turned the other way, the model says *Rome*. As many random latents of
# the same layers, changed by the same amounts, move it less, and the graph had predicted the sign and most of the size.
#
# ## What a graph does not say
#
# Why attention looks where it looks is frozen, not explained: `interp.explain_score` takes a head's attention apart. The latents
# that ship are those of four prompts. For others, `workbench trace smollm2-135m --prompt "..."` uses neurons, and
# `workbench train --set NAME` makes a set (an hour on two cores). The page *Graph* of the dashboard draws a graph with everything it
# links to.
