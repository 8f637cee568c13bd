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
# # Which edges of a model do a task, and how do we know?
#
# A two-layer transformer has learned to copy what followed a token before. It has 81 edges: what each part writes, as each later
# part reads it. Which of them does the copying need? Patching every edge alone gives the truth here; larger models need an
# approximation. We compare two of them with the truth, cut a circuit, and hold it against random circuits and an untrained model.
# Then the same on a real model, SmolLM2-135M, with sentences about two people.

# %%
import torch
from scipy.stats import pearsonr

from dashboard.figures import colours_of, faithfulness_curve, plot
from interp import (
    EvaluationConfig,
    FindConfig,
    Graph,
    attribute_edges,
    find_circuit,
    load_model,
    make_task,
    verify_top_k,
)

model = load_model("toy:induction-2l")  # trained on first use, about a minute
graph = Graph.from_model(model)
graph.n_edges

# %% [markdown]
# ## The task
#
# Clean prompts repeat 32 random tokens; in the corrupted ones the first half is something else, so that nothing is there to be
# found. The metric is the logit of the right next token above the mean logit.

# %%
task = make_task("induction", model, n_prompts=16, seed=0)
print(
    f"{task.metric.name}: {task.clean_value.mean():.2f} on clean prompts, {task.corrupt_value.mean():.2f} on corrupted ones"
)

# %% [markdown]
# ## Three ways to score an edge
#
# `exact` corrupts one edge at a time and lets everything after it follow. `eap` takes the gradient at the clean prompts instead,
# `eap-ig` the mean of five gradients between corrupted and clean embeddings.

# %%
exact, eap, ig = (attribute_edges(model, task, graph, method=method) for method in ("exact", "eap", "eap-ig"))
agreement = {name: pearsonr(scores.values, exact.values)[0] for name, scores in (("eap", eap), ("eap-ig", ig))}
strongest = int(exact.order()[0])
print({name: round(float(value), 2) for name, value in agreement.items()})
print("strongest edge:", graph.edge(strongest), f"{exact.values[strongest]:+.2f}")
for name, scores in (("eap", eap), ("eap-ig", ig)):
    rank = int((scores.order() == strongest).nonzero()) + 1
    print(f"  {name:7} gives it {scores.values[strongest]:+.2f}, rank {rank}")

# %% [markdown]
# Attention of the clean prompt is saturated: a small step changes nothing, so the gradient there is blind to the edge that
# matters most, the value input of the previous-token head. Halfway to the corrupted prompt it is not.
#
# ## The circuit, judged

# %%
result = find_circuit(model, task, FindConfig(verify=20, evaluation=EvaluationConfig(n_random=10, n_minimality=5)))
print(result.verdict.reason)
plot(result)

# %%
faithfulness_curve(result.curve.rows(), graph.n_edges, colours_of("light"))

# %%
for edge in sorted(result.circuit.edges, key=lambda edge: -abs(edge.score))[:12]:
    print(f"{edge!s:24} {edge.score:+.2f}")

# %% [markdown]
# ## A real model
#
# *When Mary and John went to the store, John gave a drink to*: SmolLM2 says *Mary*. In the corrupted sentence a third person
# gives the drink. The graph has 70,651 edges, and five backward passes score them all.

# %%
smollm2 = load_model("smollm2-135m")
ioi = make_task("ioi", smollm2, n_prompts=8, seed=0)
print(f"logit(Mary) - logit(John): {ioi.clean_value.mean():.2f} clean, {ioi.corrupt_value.mean():.2f} corrupted")
scores = attribute_edges(smollm2, ioi, batch_size=8)
for i in scores.order()[:12].tolist():
    print(f"{scores.graph.edge(i)!s:24} {scores.values[i]:+.2f}")

# %%
verified = verify_top_k(scores, smollm2, ioi, 6, batch_size=8)
print(f"the best {len(verified.indices)} patched one by one: Pearson {verified.pearson:.2f}")

# %% [markdown]
# ## The answer

# %%
assert agreement["eap-ig"] > agreement["eap"] + 0.2, "gradients on the way see what the clean one does not"
assert result.verdict.holds, result.verdict.reason
assert torch.isfinite(scores.values).all()
share = len(result.circuit.edges) / graph.n_edges
print(
    f"{len(result.circuit.edges)} of {graph.n_edges} edges ({share:.0%}) keep {result.evaluation.faithfulness.estimate:.0%} of "
    f"the copying; random circuits of that size keep {result.evaluation.random_circuits.mean:.0%}. EAP-IG agrees with "
    f"patching edge by edge (r = {agreement['eap-ig']:.2f}), plain EAP does not (r = {agreement['eap']:.2f})."
)

# %% [markdown]
# ## Exercises
#
# 1. Score the edges with another seed of the task. Which of the twelve strongest stay? To check: `verify_top_k` patches them exactly.
# 2. Use `make_task("greater-than", smollm2, n_prompts=8)` in place of *ioi*. To check: the clean metric has to be above the corrupted one.
# 3. Find a circuit in `untrained_model(model, 0)`. To check: the task itself should be refused, since its metric has no gap.
