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
# # What happens while nothing happens?
#
# A small transformer learns to add modulo 37. It soon knows its examples by heart and fails on all others; hundreds of epochs
# later, with nothing new to learn from, it suddenly knows the rest (Power et al. 2022). Is the network idle in between? We train
# three seeds at once, look at the frequencies in embedding and logits (Nanda et al. 2023), and follow back what formed when.
#
# Pairs are trained together with their mirror image: drawn singly, a model that only knows that the order does not matter passes
# 60 % of the test without any addition.

# %%
import os
from pathlib import Path

import numpy as np

from dashboard import atlas_view
from dashboard.figures import colours_of, frequency_shares, plot, training_curves
from interp import Workspace, save_artefact
from interp.studies import ModularConfig, describe_grokking, embedding_series, train_modular

root = Path(os.environ.get("INTERP_WORKSPACE", "../workspace")) / "notebooks" / "grokking"
workspace = Workspace(root, create=True)
light = colours_of("light")

# %% [markdown]
# ## Train
#
# One layer, no norms; weight decay is what makes it generalise. The control has none.

# %%
config = ModularConfig()
snapshots = list(train_modular(config))
study = describe_grokking(snapshots, config)
control_config = ModularConfig(weight_decay=0.0, epochs=400, log_every=20, seeds=(0,))
control = describe_grokking(list(train_modular(control_config)), control_config)
save_artefact(study, workspace.path("grokking", "grokking"), seed=config.seeds[0], overwrite=True)
for seed, phases in enumerate(run.phases for run in study.runs):
    print(
        f"seed {seed}: by heart at {phases.memorised:.0f}, begins to generalise at {phases.generalising:.0f}, done at {phases.generalised}"
    )
print("without weight decay:", control.runs[0].phases)

# %%
curves, phases = study.curves, study.runs[0].phases
marks = {"by heart": phases.memorised, "generalising": phases.generalising, "generalised": phases.generalised}
plot(study)

# %% [markdown]
# ## Inside
#
# The network that generalises adds by angles, at a few frequencies. *Restricted* loss is that of these frequencies alone, on all
# pairs; *excluded* loss is that of everything else, on the training pairs: what memory explains. The frequencies are read off
# the last snapshot and followed back.

# %%
inside = {name: curves[f"{name}_loss"][:, 0] for name in ("train", "test", "restricted", "excluded")}
training_curves(study.epochs, inside, light, x_title="epoch", y_title="loss (nats)", log=True, marks=marks)

# %%
frequency_shares(study.logit_share[:, 0], study.epochs, light)

# %%
for seed, run in enumerate(study.runs):
    print(f"seed {seed}: frequencies of the logits {run.keys}, of the embedding {run.embedding_keys}")
    print("   while nothing shows: restricted loss %+.2f, excluded %+.2f nats" % study.circuit_forms_unseen(seed))

# %% [markdown]
# ## The numbers, over training
#
# The embedding of the 37 numbers at six checkpoints, as maps in one frame: move the slider.

# %%
series = embedding_series(snapshots, config)
save_artefact(series, workspace.path("atlas", "numbers"), seed=0, overwrite=True)
print(*series.details(), sep="\n")

# %%
atlas_view(workspace, "numbers", colour="value")

# %% [markdown]
# ## Answer
#
# It is not idle. In every seed the loss of the key frequencies alone falls while the test still fails: the circuit that adds is
# built first, and what was memorised is given up when it carries enough. Embedding and logits, read apart, name the same
# frequencies. Without weight decay there is nothing that would give memory up, and nothing is.

# %%
for seed, run in enumerate(study.runs):
    assert run.phases.grokked
    assert study.circuit_forms_unseen(seed)[0] < -0.2
    assert set(run.keys) <= set(run.embedding_keys)
    assert study.curves["excluded_loss"][-1, seed] > 2 > 0.2 > study.curves["restricted_loss"][-1, seed]
    assert study.curves["gini"][-1, seed] > 2 * study.curves["gini"][0, seed]
assert control.runs[0].phases.memorised is not None
assert control.runs[0].phases.generalising is None
assert np.isfinite(study.curves["test_loss"]).all()

# %% [markdown]
# ## Exercises
#
# 1. Which seed generalises last, and does its circuit form last too? To check: `study.circuit_forms_unseen(seed)`.
# 2. Train the control for as many epochs as the others. To check: `generalising` should stay None without weight decay.
# 3. Halve the weight decay. Does generalisation come later? To check: three seeds, not one.
