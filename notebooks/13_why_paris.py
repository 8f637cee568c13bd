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
# nodes: hold attention patterns and the scales of norms at their values on this prompt, and the model becomes linear from node
# to node, so that every logit splits exactly into direct effects. Here the nodes are MLP neurons, which need no training.
#
# A graph is a claim about the model. We hold it against three things: the graph that one gets without any neuron, the effect of
# ablating neurons in the model itself, and random neurons.

# %%
import numpy as np
import pandas as pd

from dashboard.figures import plot
from interp import (
    Neurons,
    TraceConfig,
    Workspace,
    background_nodes,
    changes_of,
    graph_effects,
    intervene,
    load_model,
    open_system,
    split_edge,
    to_tokens,
    trace,
)
from saes import NeuronLabels
from workbench.demo import DATA

model = load_model("smollm2-135m")
prompt, variant = "The capital of France is", "The capital of Italy is"
config = TraceConfig(max_feature_nodes=2000, edge_share=0.8)
graph = trace(model, prompt, Neurons(), config, target=" Paris", contrast=" Rome")
print(graph)

# %% [markdown]
# The target is a difference: how much more likely *Paris* is than *Rome*. The replacement score is the share of influence that
# comes from tokens through neurons; what comes from errors (here the neurons beyond the largest 30,000) is the rest. Without any
# neuron the score is that of the same prompt with every MLP left as one block: the floor. 1 would be perfect.

# %%
plot(graph, n_edges=250)

# %% [markdown]
# ## Does it predict the model?
#
# Edges are exact in the model with everything frozen. The effect of a neuron is predicted with nothing frozen, to first order:
# norms, gates and attention follow a small change. 48 neurons were ablated one by one: those with the largest predicted effects
# and random others.

# %%
print(f"slope {graph.effects.slope:.2f}, rank correlation {graph.effects.spearman:.2f}")
print(f"along the edges: slope {graph.effects.edges_slope:.2f}, rank correlation {graph.effects.edges_spearman:.2f}")
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
# of the same layers get the same amounts; 19 draws, so the least p is 0.05.

# %%
italy = open_system(model, to_tokens(model, variant), Neurons(limit=200_000))
keys = zip(italy.layer.tolist(), italy.position.tolist(), italy.latent.tolist(), strict=True)
activations = dict(zip(keys, italy.activation.tolist(), strict=True))
expected = {}
for i in france:
    node = graph.nodes[i]
    value = activations.get((node.layer, node.position, node.index), 0.0)
    expected[node.id] = (total[i] * (value / node.activation - 1), value)
order = sorted(expected, key=lambda name: expected[name][0])
for n in (5, 20, 80):
    changed = changes_of(graph, order[:n], values={name: expected[name][1] for name in order[:n]})
    effect = intervene(system, changed, graph)
    print(f"{n:3} neurons: {effect.headline()}")
assert effect.p <= 0.05

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
# ## In words
#
# What ships describes the neurons of all layers, both directions of each: a label that says on which text it fires, kept only where it
# holds on held-out text, and the words that it raises through the Jacobian lens. The neurons that lead every prompt alike (those of
# the first token, of a full stop) are background, measured over 27 other prompts: they say nothing about *Paris*.

# %%
words = Workspace(DATA).open(NeuronLabels, "smollm2-135m")
common = set(background_nodes(graph, words.background()))
keys = {i: (n.layer, n.index, 1 if n.activation >= 0 else -1) for i, n in enumerate(graph.nodes) if n.kind == "feature"}
share = sum(graph.nodes[i].influence for i in common) / sum(graph.nodes[i].influence for i in keys)
print(f"{len(common)} nodes with {share:.0%} of the influence of all neurons are background")
rows = words.of(keys.values())
strongest = sorted((i for i in keys if i not in common), key=lambda i: -abs(total[i]))[:12]
pd.DataFrame(
    [
        {"effect": total[i], "layer": graph.nodes[i].layer, "at": graph.token_texts[graph.nodes[i].position],
         "fires on": rows[keys[i]].label if rows[keys[i]].confirmed else "", "raises": ", ".join(rows[keys[i]].says)}
        for i in strongest
    ]
).round(2)  # fmt: skip

# %% [markdown]
# One group: the neurons at *France* that raise *Paris* over *Rome*. As many random neurons of the same layers, changed by the same
# amounts, are its null.

# %%
group = sorted((i for i in france if total[i] > 0), key=lambda i: -total[i])[:12]
for factor in (0.0, -1.0, -2.0):
    group_changed = intervene(system, changes_of(graph, [graph.nodes[i].id for i in group], factor=factor), graph)
    print(f"activations times {factor:+.0f}: {group_changed.headline()}")
group_changed.to_frame().head()

# %%
assert group_changed.measured < 0 and group_changed.p <= 0.05

# %% [markdown]
# Ablated, the dozen moves the difference by a logit, as some random dozens do: that alone proves nothing. Turned round, it moves
# it further than any of them, in the direction that the graph predicted and by more.
#
# ## What a graph does not say
#
# Attention is frozen in the graph; `interp.attention_reasons` says which of its nodes made a head look there. Neurons are
# many, and much of the influence runs through some without a label. `workbench train --set NAME` makes a set of transcoders, whose
# latents are fewer (an hour on two cores); `workbench trace --set NAME` holds its graph against an untrained set. The page *Graph*
# of the dashboard draws a graph with everything it links to.
#
# ## Exercises
#
# 1. Trace *The capital of Italy is* with `target=" Rome", contrast=" Paris"`. Which of the neurons above come back, with which sign? To
#    check: a neuron that raises any capital has the same sign in both graphs.
# 2. Ablate the background nodes alone. Does *Paris* over *Rome* change by what the graph predicts? To check: `intervene` gives both
#    numbers and those of random neurons.
# 3. Give `background_nodes` an empty dictionary and look at the table again: what leads it now? To check: `words.background()` says how
#    much influence each of them has on other prompts.
