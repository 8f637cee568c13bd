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
# # What is inside a small language model?
#
# SmolLM2-135M has 30 layers of 9 heads and a residual stream of 576 numbers per token. Do its single neurons mean something,
# or do the *directions* that a sparse autoencoder finds? And do some heads have a job?
#
# Run `workbench demo` first: this notebook reads the folder that it wrote.

# %%
import os

from dashboard import show
from interp import Recording, Workspace

workspace = Workspace(os.environ.get("INTERP_WORKSPACE", "../workspace"))
for artifact in workspace.artifacts():
    print(f"{artifact.kind:10} {artifact.name:28} {artifact.created}")

# %% [markdown]
# ## The text, and what the model computed on it

# %%
recording = Recording(workspace.path("recording", "demo"))
stats = recording.stats(recording.hook_points[0])
share_of_mean = float(stats.mean.norm()) / stats.mean_norm
print(recording)
print(
    f"{stats.n:,} tokens; mean norm {stats.mean_norm:.1f}; the mean vector alone has {share_of_mean:.0%} of that length"
)

# %% [markdown]
# Most of every activation is the same vector. That is why the autoencoder starts its bias at the mean.
#
# ## Features: directions that fire rarely

# %%
features = workspace.table_path("features", "demo", "features")
sharp = workspace.query(
    """select feature, label, density, max_activation, promoted_tokens[1:4] as promotes
       from f where n_fired > 50 and density < 0.01 order by max_activation desc limit 8""",
    f=features,
)
sharp.to_pandas()

# %% [markdown]
# The first of them, as the dashboard shows it: what its direction promotes, the examples on which it is most active, and
# the distribution of its activation.

# %%
show(f"demo:{sharp['feature'][0]}", workspace)

# %% [markdown]
# ## Are features more specific than neurons?
#
# The same layer's MLP neurons went through the same tables. A label says on which text a feature or neuron is active: a token, a
# class of words, a context (`saes/features/_labels.py`). It is chosen on one half of the documents and shown only if it holds
# on the other half, where it must beat the labels of others. For how many features, and how many neurons, is there one?

# %%
READABLE = """select avg((label_score is not null)::int) as readable, median(density) as density
              from f where n_fired >= 5"""


def measure(name: str) -> dict:
    return workspace.query(READABLE, f=workspace.table_path("features", name, "features")).to_pylist()[0]


of_features, of_neurons = measure("demo"), measure("demo-neurons")
print(
    f"features: {of_features['readable']:.0%} have a label that holds; the median one fires on {of_features['density']:.2%} of tokens"
)
print(
    f"neurons:  {of_neurons['readable']:.0%} have a label that holds; the median one fires on {of_neurons['density']:.2%} of tokens"
)

# %% [markdown]
# ## Heads with a job

# %%
heads = workspace.table_path("heads", "smollm2-135m", "scores")
show("heads/smollm2-135m", workspace, kind="induction")

# %%
induction_heads = workspace.query(
    """select 'L' || layer || 'H' || head as head, score as induction, low, null_high
       from h where kind = 'induction' and above_null order by score desc limit 5""",
    h=heads,
).to_pandas()
induction_heads

# %% [markdown]
# ## The answer

# %%
assert of_features["readable"] > of_neurons["readable"], "features should be easier to read than neurons"
assert len(induction_heads) > 0, "SmolLM2-135M has induction heads"
print(
    f"{of_features['readable']:.0%} of features have a label that holds on held-out text, and {of_neurons['readable']:.0%} of neurons: "
    "directions are the more specific unit.\n"
    f"And heads have jobs: {induction_heads['head'].iloc[0]} puts {induction_heads['induction'].iloc[0]:.0%} of its attention on the token "
    "that followed the same token before."
)

# %% [markdown]
# ## Exercises
#
# 1. Sort the features by `density` instead of `max_activation`. What do those say that fire most? To check: their labels are words such
#    as *the*, or there is none.
# 2. Show the second feature of the table with `show(f"demo:{sharp['feature'][1]}", workspace)`. Does its label fit the weak examples
#    too? To check: the label's score was measured on all firings, not on the strongest.
# 3. Show `kind="previous_token"` of the heads. Are the strongest ones earlier or later than the induction heads? To check: an induction
#    head needs the work of a previous-token head in an earlier layer.
