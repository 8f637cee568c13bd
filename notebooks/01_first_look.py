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
# SmolLM2-135M has 30 layers of 9 heads and a residual stream of 576 numbers per token. Do its single numbers mean something, or do the
# *directions* that a sparse autoencoder finds? And do some heads have a job?
#
# Run `workbench demo` first: this notebook reads the folder that it wrote.

# %%
import os

import plotly.io as pio

from interp.workspace import Workspace

pio.renderers.default = "notebook_connected" if "INTERP_GALLERY" in os.environ else pio.renderers.default
workspace = Workspace(os.environ.get("INTERP_WORKSPACE", "../workspace"))
for artifact in workspace.artifacts():
    print(f"{artifact.kind:10} {artifact.name:28} {artifact.created}")

# %% [markdown]
# ## The text, and what the model computed on it

# %%
from interp.recording.store import Recording

recording = Recording(workspace.path("recording", "demo"))
hook_point = recording.hook_points[0]
stats = recording.stats(hook_point)
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
workspace.query(
    """select feature, label, density, max_activation, promoted_tokens[1:4] as promotes
       from f where n_fired > 20 order by max_activation desc limit 8""",
    f=features,
).to_pandas()

# %% [markdown]
# One of them, in its own words: the strongest places where it fires.

# %%

examples = workspace.table_path("features", "demo", "examples")
chosen = workspace.query("select feature from f where n_fired > 50 order by max_activation desc limit 1", f=features)
feature = chosen["feature"][0].as_py()
top = workspace.query(
    "select activation, tokens, peak, document_label from e where feature = ? and \"group\" = 'top' order by rank limit 6",
    feature,
    e=examples,
).to_pylist()
for example in top:
    before, at, after = (
        example["tokens"][: example["peak"]],
        example["tokens"][example["peak"]],
        example["tokens"][example["peak"] + 1 :],
    )
    print(
        f"{example['activation']:6.1f}  {''.join(before)[-50:]!r} >>{at}<< {''.join(after)[:30]!r}   ({example['document_label']})"
    )

# %% [markdown]
# ## Are features more specific than neurons?
#
# Neurons of the same layer's MLP, through the same tables: on how many tokens does each fire?

# %%
import numpy as np


def median_density(name: str) -> float:
    table = workspace.query(
        "select density from f where n_fired > 0", f=workspace.table_path("features", name, "features")
    )
    return float(np.median(table["density"].to_numpy()))


feature_density, neuron_density = median_density("demo"), median_density("demo-neurons")
print(f"median feature fires on {feature_density:.2%} of tokens, median neuron on {neuron_density:.2%}")

# %% [markdown]
# ## Heads with a job

# %%
from dashboard.figures.heads import score_map

heads = workspace.query("select * from h", h=workspace.table_path("heads", "smollm2-135m", "heads"))
score_map(heads.to_pandas(), "induction")

# %%
found = workspace.query(
    """select 'L' || layer || 'H' || head as head, induction, induction_low, induction_null_high
       from h where induction_found order by induction desc limit 5""",
    h=workspace.table_path("heads", "smollm2-135m", "heads"),
).to_pandas()
found

# %% [markdown]
# ## The answer

# %%
assert neuron_density > 10 * feature_density, "the dictionary should be sparser than the neurons it is compared with"
assert len(found) > 0, "SmolLM2-135M has induction heads"
print(
    f"Single neurons fire on {neuron_density:.0%} of all tokens, features on {feature_density:.1%}: features are the more specific unit.\n"
    f"And heads have jobs: {found['head'].iloc[0]} puts {found['induction'].iloc[0]:.0%} of its attention on the token "
    f"that followed the same token before."
)
