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
# # Do induction heads emerge at once, and is it they that make the loss fall?
#
# A two-layer, attention-only transformer reads random tokens that repeat with a period of their own. For a while it learns
# nothing but which tokens there are. Then, within a few hundred steps, it learns to copy. We watch loss, attention and weights
# on the way, and its one-layer control, which cannot compose heads (Olsson et al. 2022).

# %%

import numpy as np

from dashboard.figures import colours_of, training_curves
from interp.studies import follow_induction

light = colours_of("light")
STEPS, EVERY = 1000, 50

# %%
two_layers = follow_induction("toy:induction-2l", steps=STEPS, every=EVERY)
one_layer = follow_induction("toy:induction-1l", steps=STEPS, every=EVERY)
for run in (two_layers, one_layer):
    print(run.spec)
    for name, change in run.transitions.items():
        where = f"{change.onset:.0f} .. {change.middle:.0f} .. {change.end:.0f}" if change.sudden else change.reason
        print(f"   {name:12} {change.before:.2f} -> {change.after:.2f}   {where}")

# %% [markdown]
# ## Behaviour

# %%
losses = {
    "two layers, second copy": two_layers.curves["loss_repeat"],
    "two layers, first copy": two_layers.curves["loss_first"],
    "one layer, second copy": one_layer.curves["loss_repeat"],
}
training_curves(two_layers.steps, losses, light, y_title="loss (nats per token)", marks={"onset": two_layers.onset})

# %% [markdown]
# ## Mechanism
#
# Attention of the strongest head on what followed its token before, and on the token before; and how much the later layer's keys
# read from the earlier layer's heads, over chance.

# %%
scores = {
    "induction, two layers": two_layers.curves["induction"],
    "previous token, two layers": two_layers.curves["previous"],
    "induction, one layer": one_layer.curves["induction"],
}
training_curves(two_layers.steps, scores, light, y_title="share of attention", marks={"onset": two_layers.onset})

# %%
training_curves(
    two_layers.steps, {"K-composition": two_layers.curves["composition"]}, light, y_title="over its null (1: chance)"
)

# %% [markdown]
# ## Answer
#
# At once: copying and the induction score go from a tenth to nine tenths of their way within a third of the time, and pass the
# middle within a few steps of each other; the composition of the heads rises with them. The loss says less: it falls a little
# before, to that of knowing which tokens there are, and goes on falling long after. The control on the same data never copies and has
# no induction head. That they move together is no proof that the heads cause it; that is what ablation is for, in *02 induction
# heads*.

# %%
assert two_layers.onset is not None
assert two_layers.transitions["induction"].sudden
assert two_layers.together < 100
assert two_layers.curves["composition"].max() > 1.3 * two_layers.curves["composition"][0]
assert one_layer.onset is None
assert one_layer.curves["induction"].max() < 0.15
assert one_layer.curves["loss_repeat"][-1] > two_layers.curves["loss_repeat"][-1] + 1
assert np.isfinite(two_layers.curves["loss_repeat"]).all()

# %% [markdown]
# ## Exercises
#
# 1. Read the order of the transitions from the table: which comes first, the previous-token score or the induction score? To check:
#    compare their `middle` with `every`, the distance of two checkpoints; a smaller difference says nothing.
# 2. Follow another seed with `follow_induction("toy:induction-2l", steps=STEPS, every=EVERY, seed=1)`. To check: is the onset within 200
#    steps of the first?
# 3. Ablate the strongest head at the last step, as notebook 02 does. To check: the loss of the second copy should rise, that of the first
#    should not.
