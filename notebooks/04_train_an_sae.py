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
# # Does a larger dictionary say more, and how would we know?
#
# A sparse autoencoder rewrites each activation of a model as a sum of a few learned directions. More directions, or more of
# them per token, make the sum better. How fast, and does it end? We record a little of SmolLM2-135M, train nine dictionaries
# on one reading of it, hold two of them against baselines that learned nothing, fit the scaling law of Gao et al. (2024), and
# look at one feature. Minutes on two cores; everything is small, and the last cell says what that costs.

# %%
import os
from pathlib import Path

import numpy as np

from dashboard import read_log
from dashboard.figures import HealthRun, activation_histogram, colours_of, health_figure, plot
from interp import RecordConfig, Recording, Workspace, load_model, open_corpus, record
from saes import (
    BatchTopKConfig,
    Features,
    Job,
    TopKConfig,
    TrainConfig,
    Described,
    build_features,
    compare,
    fit_scaling,
    load_sae,
    scaling_runs_of,
    train_many,
)

HOOK_POINT = "blocks.9.hook_resid_post"
root = Path(os.environ.get("INTERP_WORKSPACE", "../workspace")) / "notebooks" / "train-an-sae"
workspace = Workspace(root, create=True)
light = colours_of("light")

# %% [markdown]
# ## Record
#
# The residual stream after block 9, on 24,000 tokens of prose from the docstrings of installed packages. What was recorded or
# trained before is used again.

# %%
folder = workspace.path("recording", "prose")
if not folder.exists():
    model = load_model("smollm2-135m")
    corpus = open_corpus("docstrings", seed=0)
    record(model, corpus, folder, RecordConfig(tokens=24_000, seed=0), hook_points=[HOOK_POINT])
recording = Recording(folder)
print(recording)

# %% [markdown]
# ## Train nine dictionaries on one reading
#
# Every batch is given to each of them in turn, so the data are read once. TopK with four sizes and two sparsities for the
# law, and one BatchTopK beside them. 80,000 tokens are seen: the text about four times.

# %%
SIZES, KS = (128, 256, 512, 1024), (8, 32)
train = TrainConfig(tokens=80_000, batch_size=256, seed=0)
configs = {f"topk-d{n}-k{k}": TopKConfig(d_sae=n, k=k) for n in SIZES for k in KS}
configs["batchtopk"] = BatchTopKConfig(d_sae=1024, k=32)
jobs = [Job(sae=config, train=train, folder=workspace.path("sae", name)) for name, config in configs.items()]
for job, metrics in train_many(recording, HOOK_POINT, jobs):
    pass
print(f"{len(workspace.names('sae'))} dictionaries")

# %% [markdown]
# ## Did they train well?
#
# Loss and L0 should have settled, few features should be dead, and the threshold of the smallest active value should have
# stopped moving: on the shaded last fifth the learning rate falls to zero. The dashboard's *SAE* page shows the same figure while
# a run goes on.

# %%
shown = ("batchtopk", "topk-d1024-k32", "topk-d256-k32", "topk-d1024-k8")
logs = [HealthRun(name, read_log(workspace.path("sae", name) / "log.jsonl").rows) for name in shown]
health_figure(logs, light)

# %% [markdown]
# ## Against baselines, at one sparsity
#
# All scores are on documents that no dictionary has seen. An error says nothing without its L0, so all are cut to the same one.
# Principal components, the coordinates of the residual stream and an untrained dictionary stand beside them.

# %%
pair = {name: load_sae(workspace.path("sae", name)) for name in ("batchtopk", "topk-d1024-k32")}
table = compare(pair, recording)
print(table)

# %% [markdown]
# ## The scaling law
#
# $L(n, k) = \exp(\alpha + \beta_k \log k + \beta_n \log n + \gamma \log k \log n) + \exp(\zeta + \eta \log k)$: a power of the
# size whose exponent depends on k, and a part that no size removes. The loss is the share of variance left on held-out text.

# %%
fit = fit_scaling(scaling_runs_of(workspace, kind="topk"), generator=np.random.default_rng(0))
print(fit)
plot(fit)

# %% [markdown]
# The band is the interval of the fitted law. The crosses are what the three smaller sizes predict for the largest.

# %%
for prediction in fit.left_out:
    print(
        f"k {prediction.k:2}: FVU {prediction.loss:.4f} came, {prediction.predicted:.4f} was predicted ({prediction.error:+.1%})"
    )

# %% [markdown]
# ## What is in one of them?
#
# The tables that the dashboard reads say where each feature fires. Of the features that fire on fewer than one token in a
# hundred, the strongest:

# %%
described = workspace.path("features", "batchtopk")
if not described.exists():
    model = load_model("smollm2-135m")
    parents = {"saes/batchtopk": workspace.manifest("sae", "batchtopk").content_hash}
    wanted = Described(dictionary=pair["batchtopk"], name="sae:batchtopk", folder=described, parents=parents)
    build_features(wanted, recording, model)
feature = workspace.query(
    """select feature, label, density, max_activation, histogram, promoted_tokens[1:5] as promotes
       from f where n_fired >= 20 and density < 0.01 order by max_activation desc limit 1""",
    f=workspace.table_path("features", "batchtopk", "features"),
).to_pylist()[0]
examples = workspace.query(
    """select activation, tokens, peak, document_label from e where feature = ? and "group" = 'top' order by rank limit 6""",
    feature["feature"],
    e=workspace.table_path("features", "batchtopk", "examples"),
).to_pylist()
print(
    f"feature {feature['feature']}: {feature['label']}; fires on {feature['density']:.2%} of tokens; promotes {feature['promotes']}"
)
for example in examples:
    words, peak = example["tokens"], example["peak"]
    before, after = "".join(words[:peak])[-50:], "".join(words[peak + 1 :])[:30]
    print(f"{example['activation']:6.1f}  {before!r} >>{words[peak]}<< {after!r}   ({example['document_label']})")

# %%
activation_histogram(feature["histogram"], workspace.open(Features, "batchtopk").histogram_edges, light)

# %% [markdown]
# ## The answer

# %%
matched = {row.name: row.matched.fvu for row in table.rows}
assert matched["batchtopk"] < min(matched["pca"], matched["coordinates"], matched["untrained"]), (
    "training beats no training"
)
assert all(exponent.high < 0 for exponent in fit.exponents.values()), (
    "larger dictionaries reconstruct unseen text better, at every k"
)
assert all(abs(prediction.error) < abs(prediction.unchanged) for prediction in fit.left_out), (
    "the law predicts better than no change"
)
worst = max(fit.left_out, key=lambda prediction: abs(prediction.error))
exponents = ", ".join(f"{exponent:.3f} at k {k}" for k, exponent in fit.exponents.items())
print(
    f"Yes: the error on unseen text goes with the number of latents to the power {exponents}. "
    f"{fit.details()[1]}\n"
    f"Trained, 1,024 directions leave {matched['batchtopk']:.1%} of the variance at L0 {table.l0:.0f}; principal components leave "
    f"{matched['pca']:.1%}, an untrained dictionary {matched['untrained']:.1%}.\n"
    "What this is not: a law of SmolLM2. The sizes span a factor of eight, one seed each; 24,000 tokens seen four times teach a "
    "large dictionary less than fresh ones would, and short runs leave all of them unfinished. The smaller sizes alone predict an "
    f"error for the largest that is {worst.error:+.1%} off at k {worst.k}. The exponents hold for this recipe. And "
    "a lower error is no proof of better features: see `saes/evaluation/synthetic.py`."
)

# %% [markdown]
# ## Exercises
#
# 1. Which k leaves less error per latent, 8 or 32? To check: read both lines of the law at the same number of latents.
# 2. Take the query for the *densest* features, `density > 0.1`. Are they worth a label? To check: compare `n_fired` and the examples.
# 3. Compare `topk-d256-k32` and `topk-d1024-k32` with `compare`. To check: the error at one L0 should fall as the law says.
